//! The control channel between a client and the server: one WebSocket, one frame a message.

use crate::{PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source, UploadContract};
use bytes::Bytes;
use hybrid_manifest::ContentId;
use hybrid_units::Mode;

/// What a client says to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a message that a program does not handle must not compile")]
pub enum ClientMessage {
    /// First, once: what I want, what I have, who I am.
    Join(Join),
    /// Again and again: how far I am and how well it goes.
    Report(Report),
    /// Who sent me parts.
    Vouch(Vouch),
    /// I begin or cease to serve peers.
    Uploads(Uploads),
    /// I leave, and why.
    Bye(Bye),
}

/// What the server says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a message that a program does not handle must not compile")]
pub enum ServerMessage {
    /// The answer to `Join`: the mode and all that goes with it.
    Welcome(Welcome),
    /// A change of anything that `Welcome` set.
    Directive(Directive),
    /// A granted part, unasked.
    PartPush(PartPush),
    /// The server ends the channel, and why.
    Bye(Bye),
}

/// A client asks to be served a content.
///
/// It carries no address: the server takes the one that it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// [`crate::PROTOCOL_VERSION`] of the client.
    pub version: u16,
    /// Program and version, for logs: at most [`PROGRAM_BYTES_MAX`] of ASCII.
    pub program: String,
    /// The content.
    pub content: ContentId,
    /// Who the client is to peers.
    pub peer: PeerId,
    /// The UDP port on which it takes QUIC connections from peers; `None` if it takes none.
    pub quic_port: Option<u16>,
    /// The parts that it holds already.
    pub has: PartRanges,
    /// What it wants of the content.
    pub want: Want,
    /// What it is willing to give.
    pub contract: UploadContract,
}

/// In which order a client wants the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new kind of want must be handled everywhere")]
pub enum Want {
    /// The whole content, in any order.
    Whole,
    /// To play or show from this part on.
    PlayFrom(u32),
    /// Nothing: it holds all and serves others.
    Seed,
}

/// The server's answer to a join: the seed's figure 2, steps 24 to 31.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The decision.
    pub mode: Mode,
    /// Why, for people: the thresholds with their values, one line each; at most [`REASONS_MAX`] lines.
    pub reasons: Vec<String>,
    /// The secret that names this client in HTTP requests.
    pub session: SessionToken,
    /// The client's ticket for peers, as `ticket` encodes it.
    pub ticket: Bytes,
    /// The server's civil time, seconds since 1970.
    pub server_time_secs: u64,
    /// How long between reports.
    pub report_interval_ms: u32,
    /// Whom to dial; at most [`PEERS_MAX`].
    pub peers: Vec<PeerCoordinates>,
    /// Parts that the client may fetch from the server at once; pushed ones are not among them.
    pub grants: PartRanges,
    /// How many parts that follow as [`PartPush`] without being asked for.
    pub pushes: u16,
    /// What the client may do with peers.
    pub limits: PeerLimits,
}

/// A change of what [`Welcome`] set; what is `None` or empty stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// The client's new mode, and why.
    pub mode: Option<(Mode, Vec<String>)>,
    /// More peers to dial.
    pub peers: Vec<PeerCoordinates>,
    /// More parts that the client may fetch from the server.
    pub grants: PartRanges,
    /// New limits.
    pub limits: Option<PeerLimits>,
    /// A new interval between reports.
    pub report_interval_ms: Option<u32>,
    /// A new ticket.
    pub ticket: Option<Bytes>,
    /// Peers that must be dropped and not dialled again; at most [`BLAMED_MAX`].
    pub revoked: Vec<PeerId>,
}

/// A granted part, sent without being asked for. The bytes follow the frame in the same WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPush {
    /// Which part.
    pub number: u32,
    /// Its bytes, not yet verified; as long as the manifest says.
    pub bytes: Bytes,
}

/// How far a client is and how well it goes. All counts are since the last report, but for `level`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The part that came last.
    pub last_part: Option<u32>,
    /// How many parts the client holds.
    pub level: u32,
    /// Parts gained since the last report.
    pub gained: PartRanges,
    /// Parts lost since the last report: evicted, or found damaged.
    pub lost: PartRanges,
    /// Verified bytes by source.
    pub received: Vec<(Source, u64)>,
    /// Part bytes sent to peers.
    pub sent_bytes: u64,
    /// Mean download rate over the interval.
    pub download_bytes_per_second: u64,
    /// Round-trip time to the server as the client sees it; `None` before it is known.
    pub rtt_ms: Option<u32>,
    /// From `Join` to the first part; `None` before it came.
    pub start_up_ms: Option<u32>,
    /// Pauses of playback, or of more than two seconds without a byte.
    pub stalls: u32,
    /// Media ahead of the playhead; `None` when nothing is played.
    pub buffer_ms: Option<u32>,
    /// Peers that are connected now.
    pub peers: u16,
    /// Parts that peers refused or failed to send in time, by peer; at most [`BLAMED_MAX`] peers.
    pub refused: Vec<(PeerId, u32)>,
    /// Parts that did not match their id, by peer; at most [`BLAMED_MAX`] peers.
    pub bad: Vec<(PeerId, u32)>,
    /// Of a thousand packets sent to peers, how many were lost; `None` when too few were sent to tell.
    pub loss_permille: Option<u16>,
}

/// Peers from whom the client got its first verified part since it joined, or since it last said so of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouch {
    /// The peers; at most [`BLAMED_MAX`].
    pub peers: Vec<PeerId>,
}

/// A change of what [`Join`]'s contract said: whether the client serves peers now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// Whether it does.
    pub on: bool,
}

/// The end of a channel, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye {
    /// A stable code; `docs/spec/wire.md` lists them.
    pub code: ByeCode,
    /// For people: ASCII, at most [`REASON_BYTES_MAX`] characters.
    pub reason: String,
}

/// The longest program name and version in a [`Join`], in bytes.
pub const PROGRAM_BYTES_MAX: usize = 64;

/// The most coordinates in one message; a newcomer dials a handful, the rest is choice.
pub const PEERS_MAX: usize = 64;

/// The most peers blamed ([`Report::refused`], [`Report::bad`]), vouched for or revoked in one message: as many as one client is ever
/// connected to.
pub const BLAMED_MAX: usize = 64;

/// The most sources in a report; there are five today.
pub const SOURCES_MAX: usize = 16;

/// The most lines that explain a mode.
pub const REASONS_MAX: usize = 16;

/// The longest ticket, in bytes: today's have [`crate::ticket::Ticket::BYTES`], other ways to sign take more.
pub const TICKET_BYTES_MAX: usize = 1 << 10;

/// The longest reason of a [`Bye`]: it must also fit a WebSocket's close frame, which holds 123 bytes (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = 100;

/// The longest of the lines that explain a mode, in bytes: one line in a log.
pub const REASON_LINE_BYTES_MAX: usize = 200;

/// Why a channel or connection ends.
///
/// The same numbers ([`ByeCode::to_u16`]) are in `Bye` frames and in QUIC's application close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ByeCode {
    /// 0x00: all is done.
    Done,
    /// 0x01: the program stops.
    Shutdown,
    /// 0x02: a limit is reached; try later.
    Busy,
    /// 0x03: another connection to the same peer is kept.
    Duplicate,
    /// 0x04: too slow, or no use for each other.
    Useless,
    /// 0x10: the ticket is not valid, or not for this key.
    Ticket,
    /// 0x11: the other side broke the protocol: a message out of order, or one that makes no sense.
    Protocol,
    /// 0x12: the first message did not come in time.
    HandshakeTimeout,
    /// 0x13: the versions cannot talk.
    Version,
    /// 0x14: a frame of no, too great or wrong length.
    FrameSize,
    /// 0x15: a frame of an unknown type that must not be skipped.
    UnknownType,
    /// 0x16: no such content here.
    UnknownContent,
    /// 0x17: runs of parts that overlap, go back or go beyond the content.
    PartSet,
    /// 0x18: a request that makes no sense, or too many at one time.
    BadRequest,
    /// 0x19: a part of another length than announced.
    PartLength,
    /// 0x1a: another part than was asked for.
    WrongPart,
    /// 0x1b: a part did not match its id.
    BadPart,
    /// 0x1e: too many messages in too short a time.
    TooFast,
    /// A code of a later version; never one of the numbers above.
    Other(u16),
}

impl ByeCode {
    /// All codes of this version, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Done,
        Self::Shutdown,
        Self::Busy,
        Self::Duplicate,
        Self::Useless,
        Self::Ticket,
        Self::Protocol,
        Self::HandshakeTimeout,
        Self::Version,
        Self::FrameSize,
        Self::UnknownType,
        Self::UnknownContent,
        Self::PartSet,
        Self::BadRequest,
        Self::PartLength,
        Self::WrongPart,
        Self::BadPart,
        Self::TooFast,
    ];

    /// The code's number, in `Bye` frames and as QUIC's application error code.
    pub const fn to_u16(self) -> u16 {
        match self {
            Self::Done => 0x00,
            Self::Shutdown => 0x01,
            Self::Busy => 0x02,
            Self::Duplicate => 0x03,
            Self::Useless => 0x04,
            Self::Ticket => 0x10,
            Self::Protocol => 0x11,
            Self::HandshakeTimeout => 0x12,
            Self::Version => 0x13,
            Self::FrameSize => 0x14,
            Self::UnknownType => 0x15,
            Self::UnknownContent => 0x16,
            Self::PartSet => 0x17,
            Self::BadRequest => 0x18,
            Self::PartLength => 0x19,
            Self::WrongPart => 0x1a,
            Self::BadPart => 0x1b,
            Self::TooFast => 0x1e,
            Self::Other(number) => number,
        }
    }

    /// The code with this number; [`ByeCode::Other`] for one that this version does not know.
    pub fn from_u16(number: u16) -> Self {
        Self::ALL.into_iter().find(|code| code.to_u16() == number).unwrap_or(Self::Other(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bye_codes_are_numbers_both_ways() {
        for number in 0..=u16::MAX {
            assert_eq!(ByeCode::from_u16(number).to_u16(), number);
        }
        for code in ByeCode::ALL {
            assert_eq!(ByeCode::from_u16(code.to_u16()), code);
        }
    }
}
