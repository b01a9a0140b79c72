//! The bodies of frames as bincode sees them.
//!
//! Each message has a body of its own here, so that neither the order of an enum's variants nor a field added to a message
//! can change the wire by accident: enums travel as numbers that are written down, and `From`/`TryFrom` name every field.
//! Decoding borrows from the frame and counts what it would have to drop, so that caps are checked with names and figures.

use super::error::ValueError;
use crate::control::{
    BLAMED_MAX, Bye, ByeCode, Directive, Join, PEERS_MAX, PROGRAM_BYTES_MAX, PartPush, REASON_BYTES_MAX,
    REASON_LINE_BYTES_MAX, REASONS_MAX, Report, SOURCES_MAX, TICKET_BYTES_MAX, Uploads, Vouch, Want, Welcome,
};
use crate::peer::{
    ASK_PROOFS_MAX, AskProofs, Have, Hello, PROOFS_BYTES_MAX, PartReply, Proofs, Request, TOLD_PEERS_MAX, ToldPeers,
};
use crate::{
    MAX_PART_BYTES, PartRanges, PartRangesError, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source,
    UploadContract,
};
use bytes::Bytes;
use hybrid_manifest::{ContentId, MAX_PARTS, PartNumber, PartRange};
use hybrid_units::Mode;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

type Checked<T> = Result<T, ValueError>;

// ---- forms that several bodies share ----

/// A text: cleaned and cut when it is sent, checked when it is received.
struct Text<'a>(Cow<'a, str>);

/// Which characters a text may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Charset {
    /// Printable ASCII.
    Ascii,
    /// All but control characters, so that a hostile text cannot steer a terminal or forge a line in a log.
    Line,
}

impl Charset {
    fn has(self, c: char) -> bool {
        match self {
            Self::Ascii => c == ' ' || c.is_ascii_graphic(),
            Self::Line => !c.is_control(),
        }
    }
}

impl<'a> Text<'a> {
    fn cleaned(text: &'a str, charset: Charset, max: usize) -> Self {
        let mut cut = text.len().min(max);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let text = text.get(..cut).unwrap_or_default();
        if text.chars().all(|c| charset.has(c)) {
            return Self(Cow::Borrowed(text));
        }
        // One byte stands for a character of one byte or more, so the text only gets shorter.
        Self(Cow::Owned(text.chars().map(|c| if charset.has(c) { c } else { '?' }).collect()))
    }

    fn checked(self, field: &'static str, charset: Charset, max: usize) -> Checked<String> {
        if self.0.len() > max {
            return Err(ValueError::TooLong { field, got: self.0.len(), max });
        }
        if !self.0.chars().all(|c| charset.has(c)) {
            return Err(ValueError::Characters { field });
        }
        Ok(self.0.into_owned())
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&str>::deserialize(deserializer).map(|text| Self(Cow::Borrowed(text)))
    }
}

/// Raw bytes behind their count. (`&[u8]` would be written byte by byte.)
#[derive(Clone, Copy)]
struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    fn capped(self, field: &'static str, max: usize) -> Checked<Self> {
        if self.0.len() > max {
            return Err(ValueError::TooLong { field, got: self.0.len(), max });
        }
        Ok(self)
    }

    /// A copy: what is kept for long must not keep the frame it came in.
    fn checked(self, field: &'static str, max: usize) -> Checked<Bytes> {
        self.capped(field, max).map(|raw| Bytes::copy_from_slice(raw.0))
    }
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

/// A list that keeps at most `MAX` entries and counts the others.
struct List<T, const MAX: usize> {
    items: Vec<T>,
    count: usize,
}

impl<T, const MAX: usize> List<T, MAX> {
    fn new(field: &'static str, items: impl ExactSizeIterator<Item = T>) -> Checked<Self> {
        let count = items.len();
        if count > MAX {
            return Err(ValueError::TooMany { field, count, max: MAX });
        }
        Ok(Self { items: items.collect(), count })
    }

    fn checked(self, field: &'static str) -> Checked<Vec<T>> {
        if self.count > MAX {
            return Err(ValueError::TooMany { field, count: self.count, max: MAX });
        }
        Ok(self.items)
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.items)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                // The claimed count allocates nothing, and since every entry takes bytes of the frame, it spins for nothing.
                let mut list = List { items: Vec::new(), count: 0 };
                while let Some(item) = seq.next_element()? {
                    list.count += 1;
                    if list.count <= MAX {
                        list.items.push(item);
                    }
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// A set of parts: pairs of the gap since the run before and the run's count.
enum Runs<'a> {
    Sent(&'a PartRanges),
    Received(Result<PartRanges, PartRangesError>),
}

impl Runs<'_> {
    fn checked(self, field: &'static str) -> Checked<PartRanges> {
        match self {
            Self::Sent(parts) => Ok(parts.clone()),
            Self::Received(parts) => parts.map_err(|error| ValueError::Parts { field, error }),
        }
    }
}

impl Serialize for Runs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let runs = match self {
            Self::Sent(parts) => parts.runs(),
            Self::Received(parts) => parts.as_ref().map(PartRanges::runs).unwrap_or_default(),
        };
        let mut end = 0;
        serializer.collect_seq(runs.iter().map(|run| {
            let gap = run.first().as_u32() - end;
            end = run.end().as_u32();
            (gap, run.count())
        }))
    }
}

impl<'de> Deserialize<'de> for Runs<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Result<PartRanges, PartRangesError>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {} runs of parts in order", PartRanges::MAX_RUNS)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut runs: Vec<PartRange> = Vec::new();
                let mut error = None;
                let mut count_runs = 0;
                while let Some((gap, count)) = seq.next_element::<(u32, u32)>()? {
                    count_runs += 1;
                    if error.is_some() || count_runs > PartRanges::MAX_RUNS {
                        continue;
                    }
                    match next_run(runs.last(), gap, count) {
                        Ok(run) => runs.push(run),
                        Err(bad) => error = Some(bad),
                    }
                }
                if count_runs > PartRanges::MAX_RUNS {
                    return Ok(Err(PartRangesError::TooMany(count_runs)));
                }
                Ok(error.map_or_else(|| PartRanges::new(runs), Err))
            }
        }

        deserializer.deserialize_seq(Pairs).map(Runs::Received)
    }
}

/// That the gap is one is for [`PartRanges::new`] to check.
fn next_run(last: Option<&PartRange>, gap: u32, count: u32) -> Result<PartRange, PartRangesError> {
    let end = last.map_or(0, |run| run.end().as_u32());
    let first = u64::from(end) + u64::from(gap);
    let bounds = PartRangesError::Bounds { first, count };
    u32::try_from(first).ok().and_then(|first| PartRange::new(PartNumber::new(first), count)).ok_or(bounds)
}

/// Address and port of a peer; IPv4 travels as the IPv6 address that stands for it (RFC 4291 section 2.5.5.2).
///
/// Scope ids and flow labels stay behind: they mean nothing on another machine.
#[derive(Serialize, Deserialize)]
struct Coordinates {
    peer: [u8; 32],
    address: [u8; 16],
    port: u16,
}

impl From<&PeerCoordinates> for Coordinates {
    fn from(coordinates: &PeerCoordinates) -> Self {
        let address = match coordinates.address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { peer: *coordinates.peer.as_bytes(), address: address.octets(), port: coordinates.address.port() }
    }
}

impl From<Coordinates> for PeerCoordinates {
    fn from(body: Coordinates) -> Self {
        let ip = Ipv6Addr::from(body.address).to_canonical();
        Self { peer: PeerId::from_bytes(body.peer), address: SocketAddr::new(ip, body.port) }
    }
}

type Peers = List<Coordinates, PEERS_MAX>;
type Blamed = List<([u8; 32], u32), BLAMED_MAX>;
type Reasons<'a> = List<Text<'a>, REASONS_MAX>;

fn peers(peers: &[PeerCoordinates]) -> Checked<Peers> {
    List::new("peers", peers.iter().map(Coordinates::from))
}

fn peers_back(body: Peers) -> Checked<Vec<PeerCoordinates>> {
    Ok(body.checked("peers")?.into_iter().map(PeerCoordinates::from).collect())
}

fn reasons(reasons: &[String]) -> Checked<Reasons<'_>> {
    List::new("reasons", reasons.iter().map(|line| Text::cleaned(line, Charset::Line, REASON_LINE_BYTES_MAX)))
}

fn reasons_back(body: Reasons<'_>) -> Checked<Vec<String>> {
    let lines = body.checked("reasons")?.into_iter();
    lines.map(|line| line.checked("reasons", Charset::Line, REASON_LINE_BYTES_MAX)).collect()
}

fn blamed(field: &'static str, blamed: &[(PeerId, u32)]) -> Checked<Blamed> {
    List::new(field, blamed.iter().map(|(peer, count)| (*peer.as_bytes(), *count)))
}

fn blamed_back(field: &'static str, body: Blamed) -> Checked<Vec<(PeerId, u32)>> {
    Ok(body.checked(field)?.into_iter().map(|(peer, count)| (PeerId::from_bytes(peer), count)).collect())
}

fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::ClientServer => 1,
        Mode::PeerToPeer => 2,
    }
}

/// A mode that a client does not know is one that it cannot follow, so it is refused.
fn mode_back(number: u8) -> Checked<Mode> {
    match number {
        1 => Ok(Mode::ClientServer),
        2 => Ok(Mode::PeerToPeer),
        _ => Err(ValueError::Number { field: "mode", number: number.into() }),
    }
}

fn part_number(field: &'static str, number: u32) -> Checked<u32> {
    if number < MAX_PARTS { Ok(number) } else { Err(ValueError::PartNumber { field, number: number.into() }) }
}

fn part_count(field: &'static str, count: u32) -> Checked<u32> {
    if count <= MAX_PARTS { Ok(count) } else { Err(ValueError::PartNumber { field, number: count.into() }) }
}

fn part_len(bytes: u32) -> Checked<u32> {
    if bytes <= MAX_PART_BYTES { Ok(bytes) } else { Err(ValueError::PartLength(bytes.into())) }
}

fn limits((connections_max, uploads_max): (u16, u8)) -> PeerLimits {
    PeerLimits { connections_max, uploads_max }
}

// ---- the control channel ----

#[derive(Serialize, Deserialize)]
pub(super) struct JoinBody<'a> {
    version: u16,
    #[serde(borrow)]
    program: Text<'a>,
    content: [u8; 32],
    peer: [u8; 32],
    quic_port: Option<u16>,
    has: Runs<'a>,
    want: u8,
    want_from: u32,
    upload: bool,
    rate_limit_bytes_per_second: Option<u64>,
}

impl<'a> TryFrom<&'a Join> for JoinBody<'a> {
    type Error = ValueError;

    fn try_from(join: &'a Join) -> Checked<Self> {
        let Join { version, program, content, peer, quic_port, has, want, contract } = join;
        let (want, want_from) = match *want {
            Want::Whole => (1, 0),
            Want::PlayFrom(number) => (2, part_number("want", number)?),
            Want::Seed => (3, 0),
        };
        Ok(Self {
            version: *version,
            program: Text::cleaned(program, Charset::Ascii, PROGRAM_BYTES_MAX),
            content: *content.as_bytes(),
            peer: *peer.as_bytes(),
            quic_port: *quic_port,
            has: Runs::Sent(has),
            want,
            want_from,
            upload: contract.upload,
            rate_limit_bytes_per_second: contract.rate_limit_bytes_per_second,
        })
    }
}

impl TryFrom<JoinBody<'_>> for Join {
    type Error = ValueError;

    fn try_from(body: JoinBody<'_>) -> Checked<Self> {
        Ok(Self {
            version: body.version,
            program: body.program.checked("program", Charset::Ascii, PROGRAM_BYTES_MAX)?,
            content: ContentId::from_bytes(body.content),
            peer: PeerId::from_bytes(body.peer),
            quic_port: body.quic_port,
            has: body.has.checked("has")?,
            want: match (body.want, body.want_from) {
                (1, 0) => Want::Whole,
                (2, number) => Want::PlayFrom(part_number("want", number)?),
                (3, 0) => Want::Seed,
                (number, _) => return Err(ValueError::Number { field: "want", number: number.into() }),
            },
            contract: UploadContract {
                upload: body.upload,
                rate_limit_bytes_per_second: body.rate_limit_bytes_per_second,
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct WelcomeBody<'a> {
    mode: u8,
    #[serde(borrow)]
    reasons: Reasons<'a>,
    session: [u8; 16],
    ticket: Raw<'a>,
    server_time_secs: u64,
    report_interval_ms: u32,
    peers: Peers,
    grants: Runs<'a>,
    pushes: u16,
    limits: (u16, u8),
}

impl<'a> TryFrom<&'a Welcome> for WelcomeBody<'a> {
    type Error = ValueError;

    fn try_from(welcome: &'a Welcome) -> Checked<Self> {
        Ok(Self {
            mode: mode(welcome.mode),
            reasons: reasons(&welcome.reasons)?,
            session: *welcome.session.as_bytes(),
            ticket: Raw(&welcome.ticket).capped("ticket", TICKET_BYTES_MAX)?,
            server_time_secs: welcome.server_time_secs,
            report_interval_ms: welcome.report_interval_ms,
            peers: peers(&welcome.peers)?,
            grants: Runs::Sent(&welcome.grants),
            pushes: welcome.pushes,
            limits: (welcome.limits.connections_max, welcome.limits.uploads_max),
        })
    }
}

impl TryFrom<WelcomeBody<'_>> for Welcome {
    type Error = ValueError;

    fn try_from(body: WelcomeBody<'_>) -> Checked<Self> {
        Ok(Self {
            mode: mode_back(body.mode)?,
            reasons: reasons_back(body.reasons)?,
            session: SessionToken::from_bytes(body.session),
            ticket: body.ticket.checked("ticket", TICKET_BYTES_MAX)?,
            server_time_secs: body.server_time_secs,
            report_interval_ms: body.report_interval_ms,
            peers: peers_back(body.peers)?,
            grants: body.grants.checked("grants")?,
            pushes: body.pushes,
            limits: limits(body.limits),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct DirectiveBody<'a> {
    #[serde(borrow)]
    mode: Option<(u8, Reasons<'a>)>,
    peers: Peers,
    grants: Runs<'a>,
    limits: Option<(u16, u8)>,
    report_interval_ms: Option<u32>,
    ticket: Option<Raw<'a>>,
    revoked: List<[u8; 32], BLAMED_MAX>,
}

impl<'a> TryFrom<&'a Directive> for DirectiveBody<'a> {
    type Error = ValueError;

    fn try_from(directive: &'a Directive) -> Checked<Self> {
        Ok(Self {
            mode: match &directive.mode {
                Some((new, why)) => Some((mode(*new), reasons(why)?)),
                None => None,
            },
            peers: peers(&directive.peers)?,
            grants: Runs::Sent(&directive.grants),
            limits: directive.limits.map(|limits| (limits.connections_max, limits.uploads_max)),
            report_interval_ms: directive.report_interval_ms,
            ticket: directive.ticket.as_ref().map(|t| Raw(t).capped("ticket", TICKET_BYTES_MAX)).transpose()?,
            revoked: List::new("revoked", directive.revoked.iter().map(|peer| *peer.as_bytes()))?,
        })
    }
}

impl TryFrom<DirectiveBody<'_>> for Directive {
    type Error = ValueError;

    fn try_from(body: DirectiveBody<'_>) -> Checked<Self> {
        Ok(Self {
            mode: match body.mode {
                Some((new, why)) => Some((mode_back(new)?, reasons_back(why)?)),
                None => None,
            },
            peers: peers_back(body.peers)?,
            grants: body.grants.checked("grants")?,
            limits: body.limits.map(limits),
            report_interval_ms: body.report_interval_ms,
            ticket: body.ticket.map(|ticket| ticket.checked("ticket", TICKET_BYTES_MAX)).transpose()?,
            revoked: body.revoked.checked("revoked")?.into_iter().map(PeerId::from_bytes).collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct PartPushBody {
    pub(super) number: u32,
    pub(super) length_bytes: u32,
}

impl TryFrom<&PartPush> for PartPushBody {
    type Error = ValueError;

    fn try_from(push: &PartPush) -> Checked<Self> {
        let length = u32::try_from(push.bytes.len()).unwrap_or(u32::MAX);
        Ok(Self { number: part_number("number", push.number)?, length_bytes: part_len(length)? })
    }
}

impl PartPushBody {
    pub(super) fn checked(self) -> Checked<Self> {
        Ok(Self { number: part_number("number", self.number)?, length_bytes: part_len(self.length_bytes)? })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReportBody<'a> {
    last_part: Option<u32>,
    level: u32,
    #[serde(borrow)]
    gained: Runs<'a>,
    lost: Runs<'a>,
    received: List<(u8, u64), SOURCES_MAX>,
    sent_bytes: u64,
    download_bytes_per_second: u64,
    rtt_ms: Option<u32>,
    start_up_ms: Option<u32>,
    stalls: u32,
    buffer_ms: Option<u32>,
    peers: u16,
    refused: Blamed,
    bad: Blamed,
    loss_permille: Option<u16>,
}

impl<'a> TryFrom<&'a Report> for ReportBody<'a> {
    type Error = ValueError;

    fn try_from(report: &'a Report) -> Checked<Self> {
        Ok(Self {
            last_part: report.last_part.map(|number| part_number("last_part", number)).transpose()?,
            level: part_count("level", report.level)?,
            gained: Runs::Sent(&report.gained),
            lost: Runs::Sent(&report.lost),
            received: List::new(
                "received",
                report.received.iter().map(|(source, bytes)| (source.to_number(), *bytes)),
            )?,
            sent_bytes: report.sent_bytes,
            download_bytes_per_second: report.download_bytes_per_second,
            rtt_ms: report.rtt_ms,
            start_up_ms: report.start_up_ms,
            stalls: report.stalls,
            buffer_ms: report.buffer_ms,
            peers: report.peers,
            refused: blamed("refused", &report.refused)?,
            bad: blamed("bad", &report.bad)?,
            loss_permille: report.loss_permille,
        })
    }
}

impl TryFrom<ReportBody<'_>> for Report {
    type Error = ValueError;

    /// Bytes from sources of a later version are dropped: the server cannot account for them, and the rest of the report
    /// is as good as ever.
    fn try_from(body: ReportBody<'_>) -> Checked<Self> {
        let received = body.received.checked("received")?.into_iter();
        Ok(Self {
            last_part: body.last_part.map(|number| part_number("last_part", number)).transpose()?,
            level: part_count("level", body.level)?,
            gained: body.gained.checked("gained")?,
            lost: body.lost.checked("lost")?,
            received: received
                .filter_map(|(source, bytes)| Source::from_number(source).map(|source| (source, bytes)))
                .collect(),
            sent_bytes: body.sent_bytes,
            download_bytes_per_second: body.download_bytes_per_second,
            rtt_ms: body.rtt_ms,
            start_up_ms: body.start_up_ms,
            stalls: body.stalls,
            buffer_ms: body.buffer_ms,
            peers: body.peers,
            refused: blamed_back("refused", body.refused)?,
            bad: blamed_back("bad", body.bad)?,
            loss_permille: body.loss_permille,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct VouchBody {
    peers: List<[u8; 32], BLAMED_MAX>,
}

impl TryFrom<&Vouch> for VouchBody {
    type Error = ValueError;

    fn try_from(vouch: &Vouch) -> Checked<Self> {
        Ok(Self { peers: List::new("peers", vouch.peers.iter().map(|peer| *peer.as_bytes()))? })
    }
}

impl TryFrom<VouchBody> for Vouch {
    type Error = ValueError;

    fn try_from(body: VouchBody) -> Checked<Self> {
        Ok(Self { peers: body.peers.checked("peers")?.into_iter().map(PeerId::from_bytes).collect() })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct UploadsBody {
    pub(super) on: bool,
}

impl TryFrom<UploadsBody> for Uploads {
    type Error = ValueError;

    fn try_from(body: UploadsBody) -> Checked<Self> {
        Ok(Self { on: body.on })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ByeBody<'a> {
    code: u16,
    #[serde(borrow)]
    reason: Text<'a>,
}

impl<'a> From<&'a Bye> for ByeBody<'a> {
    fn from(bye: &'a Bye) -> Self {
        Self { code: bye.code.to_u16(), reason: Text::cleaned(&bye.reason, Charset::Ascii, REASON_BYTES_MAX) }
    }
}

impl TryFrom<ByeBody<'_>> for Bye {
    type Error = ValueError;

    fn try_from(body: ByeBody<'_>) -> Checked<Self> {
        Ok(Self {
            code: ByeCode::from_u16(body.code),
            reason: body.reason.checked("reason", Charset::Ascii, REASON_BYTES_MAX)?,
        })
    }
}

// ---- peers ----

#[derive(Serialize, Deserialize)]
pub(super) struct HelloBody<'a> {
    version: u16,
    content: [u8; 32],
    part_len_bytes: u32,
    #[serde(borrow)]
    ticket: Raw<'a>,
    has: Runs<'a>,
    uploads: bool,
}

impl<'a> TryFrom<&'a Hello> for HelloBody<'a> {
    type Error = ValueError;

    fn try_from(hello: &'a Hello) -> Checked<Self> {
        Ok(Self {
            version: hello.version,
            content: *hello.content.as_bytes(),
            part_len_bytes: hello.part_len_bytes,
            ticket: Raw(&hello.ticket).capped("ticket", TICKET_BYTES_MAX)?,
            has: Runs::Sent(&hello.has),
            uploads: hello.uploads,
        })
    }
}

impl TryFrom<HelloBody<'_>> for Hello {
    type Error = ValueError;

    fn try_from(body: HelloBody<'_>) -> Checked<Self> {
        Ok(Self {
            version: body.version,
            content: ContentId::from_bytes(body.content),
            part_len_bytes: body.part_len_bytes,
            ticket: body.ticket.checked("ticket", TICKET_BYTES_MAX)?,
            has: body.has.checked("has")?,
            uploads: body.uploads,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct HaveBody<'a> {
    #[serde(borrow)]
    parts: Runs<'a>,
    queue: u8,
}

impl<'a> From<&'a Have> for HaveBody<'a> {
    fn from(have: &'a Have) -> Self {
        Self { parts: Runs::Sent(&have.parts), queue: have.queue }
    }
}

impl TryFrom<HaveBody<'_>> for Have {
    type Error = ValueError;

    fn try_from(body: HaveBody<'_>) -> Checked<Self> {
        Ok(Self { parts: body.parts.checked("parts")?, queue: body.queue })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct AskProofsBody {
    first: u32,
    count: u32,
}

impl TryFrom<&AskProofs> for AskProofsBody {
    type Error = ValueError;

    fn try_from(ask: &AskProofs) -> Checked<Self> {
        let AskProofs { first, count } = *ask;
        if count == 0 || count > ASK_PROOFS_MAX {
            return Err(ValueError::Number { field: "count", number: count.into() });
        }
        let end = u64::from(first) + u64::from(count);
        if end > u64::from(MAX_PARTS) {
            return Err(ValueError::PartNumber { field: "first + count", number: end });
        }
        Ok(Self { first, count })
    }
}

impl TryFrom<AskProofsBody> for AskProofs {
    type Error = ValueError;

    fn try_from(AskProofsBody { first, count }: AskProofsBody) -> Checked<Self> {
        let ask = Self { first, count };
        AskProofsBody::try_from(&ask)?;
        Ok(ask)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProofsBody<'a> {
    #[serde(borrow)]
    proofs: Raw<'a>,
}

impl<'a> TryFrom<&'a Proofs> for ProofsBody<'a> {
    type Error = ValueError;

    fn try_from(proofs: &'a Proofs) -> Checked<Self> {
        Ok(Self { proofs: Raw(&proofs.proofs).capped("proofs", PROOFS_BYTES_MAX)? })
    }
}

impl TryFrom<ProofsBody<'_>> for Proofs {
    type Error = ValueError;

    fn try_from(body: ProofsBody<'_>) -> Checked<Self> {
        Ok(Self { proofs: body.proofs.checked("proofs", PROOFS_BYTES_MAX)? })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct PeersBody {
    peers: List<Coordinates, TOLD_PEERS_MAX>,
}

impl TryFrom<&ToldPeers> for PeersBody {
    type Error = ValueError;

    fn try_from(list: &ToldPeers) -> Checked<Self> {
        Ok(Self { peers: List::new("peers", list.peers.iter().map(Coordinates::from))? })
    }
}

impl TryFrom<PeersBody> for ToldPeers {
    type Error = ValueError;

    fn try_from(body: PeersBody) -> Checked<Self> {
        Ok(Self { peers: body.peers.checked("peers")?.into_iter().map(PeerCoordinates::from).collect() })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct RequestBody {
    number: u32,
}

impl TryFrom<&Request> for RequestBody {
    type Error = ValueError;

    fn try_from(request: &Request) -> Checked<Self> {
        Ok(Self { number: part_number("number", request.number)? })
    }
}

impl TryFrom<RequestBody> for Request {
    type Error = ValueError;

    fn try_from(body: RequestBody) -> Checked<Self> {
        Ok(Self { number: part_number("number", body.number)? })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct PartBody {
    pub(super) number: u32,
    pub(super) length_bytes: u32,
    pub(super) queue: u8,
}

impl PartBody {
    pub(super) fn checked(self) -> Checked<Self> {
        part_number("number", self.number)?;
        part_len(self.length_bytes)?;
        Ok(self)
    }
}

impl TryFrom<PartBody> for PartReply {
    type Error = ValueError;

    fn try_from(body: PartBody) -> Checked<Self> {
        let PartBody { number, length_bytes, queue } = body.checked()?;
        Ok(Self::Part { number, length_bytes, queue })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct BusyBody {
    pub(super) retry_in_ms: u32,
    pub(super) queue: u8,
}

impl From<BusyBody> for PartReply {
    fn from(BusyBody { retry_in_ms, queue }: BusyBody) -> Self {
        Self::Busy { retry_in_ms, queue }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct EmptyBody;
