//! The server's brain under any sequence: it neither panics nor contradicts itself, comes to rest after each input, gives
//! reasons, and names only addresses that its policy admits.

use super::{decoded, note, peer, ranges};
use crate::feed::Feed;
use ed25519_dalek::SigningKey;
use hybrid_coordinator::{ClientId, Config, Coordinator, Input, Output, PartVerdict, TicketIssuer};
use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_qos::{DirectClients, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::{AddressPolicy, dialable};
use hybrid_wire::control::{ClientMessage, Join, Report, ServerMessage, Uploads, Vouch, Want};
use hybrid_wire::{PROTOCOL_VERSION, SessionToken, Source, UploadContract, decode_client};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const PARTS: u32 = 20;
/// Longer sequences find nothing that these do not, and cost time.
const STEPS_MAX: usize = 300;

fn content(index: u8) -> ContentId {
    ContentId::from_bytes([index % 3; 32])
}

struct Driver {
    coordinator: Coordinator,
    policy: AddressPolicy,
    now: Instant,
    sessions: BTreeMap<u64, SessionToken>,
    modes: BTreeMap<u64, Mode>,
    joins: u64,
}

impl Driver {
    fn join(&mut self, client: ClientId, join: Join, last_octet: u8, public: bool) -> Input {
        self.joins += 1;
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.joins.to_le_bytes());
        let session = SessionToken::from_bytes(secret);
        self.sessions.insert(client.0, session);
        let first = if public { 192 } else { 10 };
        let observed = IpAddr::V4(Ipv4Addr::new(first, 168, 0, last_octet));
        Input::Join { client, observed, session, join }
    }

    fn input(&mut self, feed: &mut Feed<'_>) -> Option<Input> {
        let kind = match feed.byte() {
            // Of the rest of the division, so that the corpus goes on meaning what it meant.
            252..=255 => 21,
            kind => kind % 21,
        };
        let index = feed.byte() % 10;
        let client = ClientId(u64::from(index));
        let number = PartNumber::new(feed.below(PARTS + 2));
        Some(match kind {
            0..=4 => {
                let join = Join {
                    version: if feed.byte() == 255 { 0 } else { PROTOCOL_VERSION },
                    program: "fuzz".to_owned(),
                    content: content(feed.byte()),
                    peer: peer(feed.byte() % 8),
                    quic_port: feed.flag().then(|| feed.u16()),
                    has: ranges(&feed.set(PARTS + 1)),
                    want: match feed.byte() % 3 {
                        0 => Want::Whole,
                        1 => Want::Seed,
                        _ => Want::PlayFrom(feed.below(PARTS + 2)),
                    },
                    contract: UploadContract { upload: feed.byte() > 30, rate_limit_bytes_per_second: Some(1_000) },
                };
                let public = feed.flag();
                self.join(client, join, index, public)
            }
            5 => match decoded(feed, |bytes| decode_client(bytes))? {
                ClientMessage::Join(join) => self.join(client, join, index, false),
                ClientMessage::Report(report) => Input::Report { client, report },
                ClientMessage::Vouch(vouch) => Input::Vouch { client, vouch },
                ClientMessage::Uploads(uploads) => Input::Uploads { client, uploads },
                ClientMessage::Bye(_) => Input::Left { client },
            },
            6..=10 => Input::Report {
                client,
                report: Report {
                    last_part: feed.flag().then(|| feed.below(PARTS + 2)),
                    level: u32::from(feed.byte()),
                    gained: ranges(&feed.set(PARTS + 1)),
                    lost: ranges(&feed.set(PARTS + 1)),
                    received: vec![(Source::Peer, if feed.flag() { u64::MAX } else { 1_000 })],
                    download_bytes_per_second: u64::from(feed.u16()) << (feed.byte() % 48),
                    rtt_ms: feed.flag().then(|| u32::from(feed.u16())),
                    stalls: u32::from(feed.byte()),
                    bad: feed.few(8).into_iter().map(|bad| (peer(bad), 1)).collect(),
                    refused: feed.few(8).into_iter().map(|refused| (peer(refused), 1)).collect(),
                    ..Report::default()
                },
            },
            11 => Input::Left { client },
            12 | 13 => Input::PushDone { client, number, sent: feed.flag() },
            14 | 15 => {
                let session = self.sessions.get(&client.0).copied().filter(|_| feed.flag());
                let verdict = self.coordinator.authorize_part(self.now, session, content(feed.byte()), number);
                if let PartVerdict::Wait { retry_after, .. } = verdict {
                    assert!(retry_after <= Duration::from_secs(60), "told to wait {retry_after:?}");
                }
                Input::Timeout
            }
            16 => {
                let cpu = if feed.flag() { f64::NAN } else { f64::from(feed.byte()) / 200.0 };
                let egress = BytesPerSecond::new(u64::from(feed.u16()) << (feed.byte() % 16));
                Input::Sample(Sample { egress, cpu: Some(cpu) })
            }
            17 => Input::QueueDelay(Duration::from_millis(u64::from(feed.u16()))),
            18 => Input::ContentRemoved { content: content(feed.byte()) },
            19 => {
                let peers = feed.few(8).into_iter().map(peer).collect();
                Input::Vouch { client, vouch: Vouch { peers } }
            }
            21 => Input::Uploads { client, uploads: Uploads { on: feed.flag() } },
            _ => Input::ContentAdded {
                content: content(feed.byte()),
                part_count: if feed.byte() == 0 { 0 } else { PARTS },
                part_len: PartLen::MIN,
                class: feed.flag().then(|| "fuzz".to_owned()),
            },
        })
    }

    fn feed(&mut self, input: Input) {
        note(&input);
        self.coordinator.handle_input(self.now, input);
        for outputs in 0.. {
            assert!(outputs < 5_000, "the coordinator never comes to rest");
            match self.coordinator.poll_output() {
                Output::Timeout(at) => {
                    assert!(at > self.now, "a timeout in the past would spin");
                    break;
                }
                Output::Send { client, message } => {
                    let peers = match message {
                        ServerMessage::Welcome(welcome) => {
                            self.modes.insert(client.0, welcome.mode);
                            assert!(!welcome.reasons.is_empty(), "a decision without its reasons");
                            welcome.peers
                        }
                        ServerMessage::Directive(directive) => directive.peers,
                        _ => Vec::new(),
                    };
                    for peer in peers {
                        assert_eq!(dialable(peer.address, &self.policy), Ok(()));
                    }
                }
                Output::Push { client, number, .. } => {
                    assert_eq!(self.modes.get(&client.0), Some(&Mode::PeerToPeer), "a push to a direct client");
                    assert!(number.as_u32() < PARTS);
                }
                _ => {}
            }
        }
        self.coordinator.check_invariants();
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let flags = feed.byte();
    let policy = AddressPolicy::allowing(["10.0.0.0/8".parse().expect("a network")]);
    let mut config = Config::default();
    config.addresses = policy.clone();
    config.clients_max = 8;
    config.qos.direct_clients = if flags & 1 == 0 { DirectClients::Fixed(2) } else { DirectClients::Auto };
    let issuer = TicketIssuer { key: SigningKey::from_bytes(&[4; 32]), network_secret: [1; 32] };
    let now = Instant::from_micros(7);
    let unix = UnixTime::from_secs(1_790_000_000);
    let coordinator = Coordinator::new(config, issuer, now, unix).expect("sound settings");
    let (sessions, modes) = (BTreeMap::new(), BTreeMap::new());
    let mut driver = Driver { coordinator, policy, now, sessions, modes, joins: 0 };
    for index in 0..2 {
        let class = None;
        let part_len = PartLen::MIN;
        driver.feed(Input::ContentAdded { content: content(index), part_count: PARTS, part_len, class });
    }
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            break;
        }
        if feed.byte() < 220 {
            if let Some(input) = driver.input(&mut feed) {
                driver.feed(input);
            }
        } else {
            driver.now += Duration::from_millis(u64::from(feed.u16()) / 8);
            driver.feed(Input::Timeout);
        }
    }
}
