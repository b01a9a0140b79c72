//! The client's brain under any sequence: it neither panics nor contradicts itself, comes to rest after each input, stores
//! nothing but the content, dials only what its policy admits, and sends no more than its caps allow.

use super::{decoded, note, peer, ranges};
use crate::feed::Feed;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hybrid_manifest::{Builder, Manifest, ManifestSpec, PartIds, PartLen, PartNumber, PartRange, Prepared, server_key};
use hybrid_session::{Anchors, Config, ConnectionId, Input, Output, PartFailure, PartSource, Session, UploadPause};
use hybrid_units::{ByteCount, Duration, Instant, Mode, Ratio, UnixTime};
use hybrid_wire::address::{AddressPolicy, dialable};
use hybrid_wire::control::{ByeCode, Directive, PartPush, ServerMessage, Welcome};
use hybrid_wire::peer::{AskProofs, Have, Hello, PeerMessage, Proofs, ToldPeers};
use hybrid_wire::ticket::{Roles, Ticket};
use hybrid_wire::{PROTOCOL_VERSION, PeerCoordinates, PeerLimits, SessionToken, decode_peer, decode_server};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

const PARTS: u32 = 12;
const OWN: u8 = 200;
const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);
/// Longer sequences find nothing that these do not, and cost time.
const STEPS_MAX: usize = 300;

struct Content {
    bytes: Bytes,
    manifest: Arc<Manifest>,
    ids: PartIds,
    /// Of peers 0 to 7 and our own at the end; each good, of a wrong key, and too old.
    tickets: Vec<[Bytes; 3]>,
}

/// The content with its part ids in the manifest, or to be asked for.
fn content(inline: bool) -> &'static Content {
    static CONTENTS: OnceLock<[Content; 2]> = OnceLock::new();
    let both = CONTENTS.get_or_init(|| [make(false), make(true)]);
    &both[usize::from(inline)]
}

fn make(inline: bool) -> Content {
    let bytes: Bytes = (0..=250).cycle().take(11 * 16_384 + 77).collect::<Vec<u8>>().into();
    let key = SigningKey::from_bytes(&[9; 32]);
    let mut builder = Builder::new(PartLen::MIN);
    builder.write(&bytes).expect("a short content");
    let prepared: Prepared = builder.finish().expect("a short content");
    let mut spec = ManifestSpec::new("a");
    spec.inline_hashes_below = ByteCount::new(if inline { u64::MAX } else { 0 });
    let manifest = Arc::new(Manifest::new(spec, &prepared, server_key(&key)).expect("a sound content"));
    let ids = PartIds::with_ids(&manifest, prepared.part_ids()).expect("its own parts");
    let ticket = |index: u8, key: &SigningKey, age: u64| {
        let issued = UnixTime::from_secs(NOW.as_secs() - age);
        let hour = Duration::from_secs(3_600);
        Ticket::issue(key, manifest.content(), peer(index), issued, hour, Roles::LEECH).sign(key)
    };
    let other = SigningKey::from_bytes(&[1; 32]);
    let of = |index| [ticket(index, &key, 10), ticket(index, &other, 10), ticket(index, &key, 9_000)];
    let tickets = (0..8).chain([OWN]).map(of).collect();
    Content { bytes, manifest, ids, tickets }
}

impl Content {
    fn part(&self, number: u32) -> Bytes {
        let Some(place) = self.manifest.layout().part(PartNumber::new(number)) else {
            return Bytes::from_static(b"none");
        };
        let start = usize::try_from(place.offset()).expect("a short content");
        self.bytes.slice(start..start + place.len() as usize)
    }

    fn spoilt(&self, number: u32, how: u8) -> Bytes {
        let part = self.part(number);
        match how % 8 {
            0 => part.iter().map(|byte| byte ^ 4).collect::<Vec<u8>>().into(),
            1 => part.slice(..part.len().min(9)),
            2 => Bytes::new(),
            _ => part,
        }
    }

    fn hello(&self, from: u8, feed: &mut Feed<'_>) -> Hello {
        let lie = feed.byte() % 16;
        Hello {
            version: if lie == 2 { 9 } else { PROTOCOL_VERSION },
            content: self.manifest.content(),
            part_len_bytes: if lie == 3 { 65_536 } else { 16_384 },
            ticket: self.tickets[usize::from(from)][usize::from(if lie < 2 { lie + 1 } else { 0 })].clone(),
            has: ranges(&feed.set(PARTS + 1)),
            uploads: lie != 4,
        }
    }

    fn welcome(&self, feed: &mut Feed<'_>) -> ServerMessage {
        ServerMessage::Welcome(Welcome {
            mode: mode(feed.flag()),
            reasons: vec!["because".to_owned()],
            session: SessionToken::from_bytes([2; 16]),
            ticket: self.tickets[8][0].clone(),
            server_time_secs: u64::from(feed.byte()),
            report_interval_ms: u32::from(feed.u16()),
            peers: coordinates(&feed.few(8)),
            grants: ranges(&feed.set(PARTS + 1)),
            pushes: u16::from(feed.byte()),
            limits: PeerLimits { connections_max: feed.u16() % 9, uploads_max: feed.byte() % 5 },
        })
    }

    fn input(&self, feed: &mut Feed<'_>) -> Option<Input> {
        let kind = match feed.byte() {
            // Of the rest of the division, so that the corpus goes on meaning what it meant.
            byte @ 252.. => byte,
            byte => byte % 36,
        };
        let connection = ConnectionId(u64::from(feed.byte() % 6));
        let which = feed.below(PARTS + 2);
        let number = PartNumber::new(which);
        let source = if feed.flag() { PartSource::Server } else { PartSource::Peer(connection) };
        Some(match kind {
            0 => Input::ControlOpened,
            1 => Input::ControlClosed,
            2 => Input::ControlMessage(self.welcome(feed)),
            3 => Input::ControlMessage(ServerMessage::Directive(Directive {
                mode: feed.flag().then(|| (mode(feed.flag()), Vec::new())),
                peers: coordinates(&feed.few(8)),
                grants: ranges(&feed.set(PARTS + 1)),
                revoked: feed.few(8).into_iter().map(peer).collect(),
                ..Directive::default()
            })),
            4 => Input::ControlMessage(ServerMessage::PartPush(PartPush {
                number: which,
                bytes: self.spoilt(which, feed.byte()),
            })),
            5 => Input::ControlMessage(decoded(feed, decode_server)?),
            6 | 7 => {
                let from = feed.byte() % 8;
                let hello = self.hello(from, feed);
                Input::PeerConnected { connection, peer: peer(from), outgoing: feed.flag(), hello }
            }
            8 => Input::PeerMessage { connection, message: decoded(feed, |bytes| decode_peer(bytes))? },
            9 => Input::PeerMessage { connection, message: PeerMessage::Idle },
            10 => {
                let message = PeerMessage::Have(Have { parts: ranges(&feed.set(PARTS + 1)), queue: feed.byte() });
                Input::PeerMessage { connection, message }
            }
            11 => {
                let message = PeerMessage::AskProofs(AskProofs { first: which, count: u32::from(feed.u16()) });
                Input::PeerMessage { connection, message }
            }
            12 => {
                let message = PeerMessage::Proofs(Proofs { proofs: self.proofs(feed) });
                Input::PeerMessage { connection, message }
            }
            13..=16 => Input::PartReceived { source, number, bytes: self.spoilt(which, feed.byte()) },
            17 => Input::PartBegun { connection, number, queue: feed.byte() },
            18 => Input::PartFailed {
                source,
                number,
                failure: match feed.byte() % 6 {
                    0 => PartFailure::Busy { retry_in: Duration::from_secs(u64::MAX), queue: 255 },
                    1 => PartFailure::Busy { retry_in: Duration::ZERO, queue: 0 },
                    2 => PartFailure::Gone,
                    3 => PartFailure::Refused { retry_after: Duration::from_secs(u64::MAX) },
                    4 => PartFailure::Transport,
                    _ => PartFailure::Misbehaved,
                },
            },
            19 => Input::PeerClosed { connection, code: ByeCode::from_u16(feed.u16()) },
            20 => {
                let byte = feed.byte();
                Input::DialFailed { peer: peer(byte % 8), answered: byte & 8 == 8 }
            }
            21 => Input::PartRequested { connection, number },
            22 => Input::RequestCancelled { connection, number },
            23 => Input::PartServed { connection, number, sent_bytes: self.sent(which, feed) },
            24 => Input::PartOffered { connection, number },
            25 => {
                let sent_bytes = self.sent(which, feed);
                Input::PartPushed { connection, number, sent_bytes, taken: feed.flag() }
            }
            26 => Input::HashesReceived { proofs: self.proofs(feed) },
            27 => Input::HashesFailed { retry_after: feed.flag().then(|| Duration::from_secs(u64::from(feed.u16()))) },
            28 => Input::StoreLost { number },
            29 => Input::Seek { number },
            30 => Input::Playing { buffer: Duration::from_millis(u64::from(feed.u16())), ran_dry: feed.flag() },
            31 => Input::Links {
                round_trip: feed.flag().then(|| Duration::from_millis(u64::from(feed.u16()))),
                sent_packets: u64::from(feed.u16()),
                lost_packets: u64::from(feed.u16()),
            },
            32 => Input::Resume(Anchors {
                ticket: self.tickets[8][usize::from(feed.byte() % 3)].clone(),
                peers: coordinates(&feed.few(8)),
            }),
            33 => Input::PeerMessage { connection, message: PeerMessage::AskPeers },
            34 => {
                let message = PeerMessage::Peers(ToldPeers { peers: coordinates(&feed.few(8)) });
                Input::PeerMessage { connection, message }
            }
            252 | 253 => Input::PauseUploads(match feed.byte() % 3 {
                0 => Some(UploadPause::Hours),
                1 => Some(UploadPause::Metered),
                _ => None,
            }),
            254 => {
                let addresses = coordinates(&feed.few(8)).into_iter().map(|peer| peer.address).collect();
                Input::AddressesFound { addresses }
            }
            255 => {
                let known = coordinates(&[feed.byte() % 9]).remove(0);
                Input::Identified { address: known.address, peer: feed.flag().then_some(known.peer) }
            }
            _ => Input::PartReceived { source: PartSource::Push, number, bytes: self.spoilt(which, feed.byte()) },
        })
    }

    /// No driver sends more of a part than it has.
    fn sent(&self, number: u32, feed: &mut Feed<'_>) -> u64 {
        u64::from(feed.u16()).min(self.part(number).len() as u64)
    }

    fn proofs(&self, feed: &mut Feed<'_>) -> Bytes {
        let (first, count, spoil) = (feed.below(PARTS), 1 + feed.below(PARTS), feed.byte());
        let range = PartRange::new(PartNumber::new(first), count.min(PARTS - first)).expect("within the content");
        let mut proofs = self.ids.prove(range).expect("all ids are known").encode();
        if spoil < 64 {
            let place = usize::from(spoil) % proofs.len();
            proofs[place] ^= 1;
        }
        proofs.into()
    }
}

fn mode(swarm: bool) -> Mode {
    if swarm { Mode::PeerToPeer } else { Mode::ClientServer }
}

/// Every other one is where nobody may dial.
fn coordinates(peers: &[u8]) -> Vec<PeerCoordinates> {
    let address = |index: u8| {
        let net = if index.is_multiple_of(2) { 10 } else { 127 };
        SocketAddr::from((Ipv4Addr::new(net, 0, 0, index + 1), 7_000))
    };
    peers.iter().map(|index| PeerCoordinates { peer: peer(*index), address: address(*index) }).collect()
}

/// A session with its store and its threads, which answer at once or when the feed says so.
struct Driver {
    content: &'static Content,
    session: Session,
    policy: AddressPolicy,
    uploads: bool,
    /// Bytes that may be sent.
    volume_max: u64,
    ratio_max: Option<Ratio>,
    /// What is being sent, and what was.
    under_way: Vec<(ConnectionId, PartNumber)>,
    sent: u64,
    stored: u64,
    store_breaks: bool,
    lazy: bool,
    /// What threads will say.
    pending: VecDeque<Input>,
}

impl Driver {
    fn feed(&mut self, now: Instant, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut outputs = 0;
        while let Some(input) = inputs.pop_front() {
            note(&input);
            self.account(&input);
            self.session.handle_input(now, input);
            loop {
                outputs += 1;
                assert!(outputs < 5_000, "the session never comes to rest");
                match self.session.poll_output() {
                    Output::Timeout(at) => {
                        assert!(at > now, "a timeout in the past would spin");
                        break;
                    }
                    output => {
                        let answer = self.answer(output);
                        if self.lazy { self.pending.extend(answer) } else { inputs.extend(answer) }
                    }
                }
            }
            self.session.check_invariants();
            let lengths = self.under_way.iter().map(|(_, number)| self.content.part(number.as_u32()).len() as u64);
            let at_most = self.sent + lengths.sum::<u64>();
            assert!(at_most <= self.volume_max, "{at_most} bytes go out");
            let ratio_allows = self.ratio_max.map_or(u64::MAX, |ratio| ratio.of(self.stored) + 2 * 16_384);
            assert!(at_most <= ratio_allows, "{at_most} bytes go out for {}", self.stored);
        }
    }

    /// Keeps the books that the caps are checked against.
    fn account(&mut self, input: &Input) {
        match input {
            Input::PartServed { connection, number, sent_bytes }
            | Input::PartPushed { connection, number, sent_bytes, .. } => {
                let ended = self.under_way.iter().position(|begun| *begun == (*connection, *number));
                if let Some(place) = ended {
                    self.under_way.remove(place);
                    self.sent += sent_bytes;
                }
            }
            // Each was verified and is counted once by the session, or not at all.
            Input::Stored { number } => self.stored += self.content.part(number.as_u32()).len() as u64,
            _ => {}
        }
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Verify { source, expected, bytes } => {
                let number = expected.number();
                Some(match expected.verify(bytes) {
                    Ok(part) => Input::PartVerified { source, part },
                    Err(error) => Input::PartRejected { source, number, error },
                })
            }
            Output::Store { part } => {
                let number = part.number();
                assert_eq!(part.bytes(), &self.content.part(number.as_u32()), "stored, and not the content");
                Some(if self.store_breaks { Input::StoreFailed { number } } else { Input::Stored { number } })
            }
            Output::Dial { peer, .. } => {
                assert_eq!(dialable(peer.address, &self.policy), Ok(()));
                None
            }
            Output::Identify { address } => {
                assert_eq!(dialable(address, &self.policy), Ok(()));
                None
            }
            Output::ServePart { connection, number, .. } | Output::PushPart { connection, number, .. } => {
                self.under_way.push((connection, number));
                assert!(self.uploads && self.session.held().contains(number), "served, and not held");
                None
            }
            Output::TakePush { number, .. } => {
                assert!(!self.session.held().contains(number), "taken, and held already");
                None
            }
            _ => None,
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let flags = feed.byte();
    let content = content(flags & 1 == 0);
    let policy = AddressPolicy::allowing(["10.0.0.0/8".parse().expect("a network")]);
    let mut config = Config::default();
    config.seed = 5;
    config.upload = flags & 6 != 6;
    // Room for some parts.
    config.upload_volume_max = (flags & 48 == 48).then_some(ByteCount::new(90_000));
    config.upload_ratio_max = if flags & 192 == 192 { Ratio::from_thousandths(500) } else { None };
    config.addresses = policy.clone();
    config.quic_port = Some(7_000);
    config.lookups = flags & 16 == 16;
    config.rescue_after = Duration::from_millis(500);
    let uploads = config.upload;
    let volume_max = config.upload_volume_max.map_or(u64::MAX, ByteCount::as_u64);
    let ratio_max = config.upload_ratio_max;
    let held = feed.set(PARTS).into_iter().map(PartNumber::new);
    let mut now = Instant::from_micros(1);
    let session = Session::new(config, now, NOW, Arc::clone(&content.manifest), peer(OWN), held);
    let lazy = flags & 8 == 8;
    let pending = VecDeque::new();
    let mut driver = Driver {
        content,
        session,
        policy,
        uploads,
        volume_max,
        ratio_max,
        under_way: Vec::new(),
        sent: 0,
        stored: 0,
        store_breaks: false,
        lazy,
        pending,
    };
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            break;
        }
        match feed.byte() {
            0..=200 => {
                if let Some(input) = content.input(&mut feed) {
                    driver.feed(now, input);
                }
            }
            201..=235 => {
                now += Duration::from_millis(u64::from(feed.u16()) / 8);
                driver.feed(now, Input::Timeout);
            }
            236..=250 => {
                for input in std::mem::take(&mut driver.pending) {
                    driver.feed(now, input);
                }
            }
            _ => {
                driver.store_breaks = feed.flag();
                driver.feed(now, Input::StoreReady);
            }
        }
    }
    driver.feed(now, Input::Stop);
}
