//! Whatever clients say, and in whatever order, a coordinator neither panics nor contradicts itself, and gives no client an
//! address that its policy does not admit.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use ed25519_dalek::SigningKey;
use hybrid_coordinator::{ClientId, Config, Coordinator, Input, Output, PartVerdict, TicketIssuer};
use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_qos::{DirectClients, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::{AddressPolicy, dialable};
use hybrid_wire::control::{Join, Report, ServerMessage, Uploads, Vouch, Want};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, SessionToken, Source, UploadContract};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const PARTS: u32 = 20;
const DIRECT: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Wait(u16),
    Join {
        client: u8,
        peer: u8,
        content: u8,
        port: Option<u16>,
        public: bool,
        has: Vec<u32>,
        upload: bool,
        version: u16,
    },
    Report {
        client: u8,
        gained: Vec<u32>,
        lost: Vec<u32>,
        bad: Vec<u8>,
    },
    Vouch {
        client: u8,
        peers: Vec<u8>,
    },
    Uploads {
        client: u8,
        on: bool,
    },
    Left {
        client: u8,
    },
    PushDone {
        client: u8,
        number: u32,
        sent: bool,
    },
    Fetch {
        client: Option<u8>,
        content: u8,
        number: u32,
    },
    Sample {
        egress: u32,
        cpu: f64,
    },
    Remove {
        content: u8,
    },
    Add {
        content: u8,
    },
}

fn parts(beyond: u32) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0..PARTS + beyond, 0..20).prop_map(|set| set.into_iter().collect())
}

fn steps() -> impl Strategy<Value = Step> {
    let client = || 0u8..10;
    prop_oneof![
        3 => (0u16..9_000).prop_map(Step::Wait),
        6 => (client(), 0u8..8, 0u8..3, prop::option::of(any::<u16>()), any::<bool>(), parts(1), any::<bool>(), 0u16..9).prop_map(
            |(client, peer, content, port, public, has, upload, version)| {
                let version = if version == 0 { 0 } else { PROTOCOL_VERSION };
                Step::Join { client, peer, content, port, public, has, upload, version }
            }
        ),
        8 => (client(), parts(1), prop::collection::btree_set(0..PARTS, 0..3), prop::collection::vec(0u8..8, 0..3)).prop_map(
            |(client, gained, lost, bad)| Step::Report { client, gained, lost: lost.into_iter().collect(), bad }
        ),
        4 => (client(), prop::collection::vec(0u8..8, 0..4)).prop_map(|(client, peers)| Step::Vouch { client, peers }),
        4 => (client(), any::<bool>()).prop_map(|(client, on)| Step::Uploads { client, on }),
        2 => client().prop_map(|client| Step::Left { client }),
        4 => (client(), 0..PARTS + 1, any::<bool>()).prop_map(|(client, number, sent)| Step::PushDone { client, number, sent }),
        6 => (prop::option::of(client()), 0u8..3, 0..PARTS + 2).prop_map(|(client, content, number)| {
            Step::Fetch { client, content, number }
        }),
        1 => (any::<u32>(), prop_oneof![Just(f64::NAN), 0.0..1.2]).prop_map(|(egress, cpu)| Step::Sample { egress, cpu }),
        1 => (0u8..3).prop_map(|content| Step::Remove { content }),
        1 => (0u8..3).prop_map(|content| Step::Add { content }),
    ]
}

fn content(index: u8) -> ContentId {
    ContentId::from_bytes([index; 32])
}

fn ranges(parts: &[u32]) -> PartRanges {
    PartRanges::from_ascending(parts.iter().copied().map(PartNumber::new))
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let policy = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
    let mut config = Config::default();
    config.addresses = policy.clone();
    config.qos.direct_clients = DirectClients::Fixed(DIRECT);
    config.clients_max = 8;
    // So that peers are hidden and shown again in short stories.
    config.accusers_to_hide = 1;
    let issuer = TicketIssuer { key: SigningKey::from_bytes(&[4; 32]), network_secret: [1; 32] };
    let mut now = Instant::from_micros(7);
    let mut coordinator = Coordinator::new(config, issuer, now, UnixTime::from_secs(1_790_000_000)).unwrap();
    // What the test knows: each client's mode, its secret, and the pushes that it is owed.
    let mut sessions: BTreeMap<u64, SessionToken> = BTreeMap::new();
    let mut modes: BTreeMap<u64, Mode> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let id = |client: &u8| ClientId(u64::from(*client));
        let input = match step {
            Step::Wait(millis) => {
                now += Duration::from_millis(u64::from(*millis));
                Input::Timeout
            }
            Step::Join { client, peer, content: which, port, public, has, upload, version } => {
                let mut secret = [0; 16];
                secret[..8].copy_from_slice(&(index as u64).to_le_bytes());
                let session = SessionToken::from_bytes(secret);
                sessions.insert(u64::from(*client), session);
                let first = if *public { 192 } else { 10 };
                Input::Join {
                    client: id(client),
                    observed: IpAddr::V4(Ipv4Addr::new(first, 168, *client, 1)),
                    session,
                    join: Join {
                        version: *version,
                        program: "test".to_owned(),
                        content: content(*which),
                        peer: PeerId::from_bytes([*peer; 32]),
                        quic_port: *port,
                        has: ranges(has),
                        want: Want::Whole,
                        contract: UploadContract { upload: *upload, rate_limit_bytes_per_second: Some(1_000) },
                    },
                }
            }
            Step::Report { client, gained, lost, bad } => Input::Report {
                client: id(client),
                report: Report {
                    gained: ranges(gained),
                    lost: ranges(lost),
                    received: vec![(Source::Peer, u64::MAX)],
                    download_bytes_per_second: u64::MAX,
                    bad: bad.iter().map(|peer| (PeerId::from_bytes([*peer; 32]), 1)).collect(),
                    ..Report::default()
                },
            },
            Step::Vouch { client, peers } => {
                let peers = peers.iter().map(|peer| PeerId::from_bytes([*peer; 32])).collect();
                Input::Vouch { client: id(client), vouch: Vouch { peers } }
            }
            Step::Uploads { client, on } => Input::Uploads { client: id(client), uploads: Uploads { on: *on } },
            Step::Left { client } => Input::Left { client: id(client) },
            Step::PushDone { client, number, sent } => {
                Input::PushDone { client: id(client), number: PartNumber::new(*number), sent: *sent }
            }
            Step::Fetch { client, content: which, number } => {
                let session = client.and_then(|client| sessions.get(&u64::from(client)).copied());
                let verdict = coordinator.authorize_part(now, session, content(*which), PartNumber::new(*number));
                if let PartVerdict::Wait { retry_after, .. } = verdict {
                    prop_assert!(retry_after <= Duration::from_secs(60));
                }
                Input::Timeout
            }
            Step::Sample { egress, cpu } => {
                let sample = Sample { egress: BytesPerSecond::new(u64::from(*egress)), cpu: Some(*cpu) };
                Input::Sample(sample)
            }
            Step::Remove { content: which } => Input::ContentRemoved { content: content(*which) },
            Step::Add { content: which } => {
                Input::ContentAdded { content: content(*which), part_count: PARTS, part_len: PartLen::MIN, class: None }
            }
        };
        coordinator.handle_input(now, input);
        for outputs in 0.. {
            prop_assert!(outputs < 1_000, "the coordinator never comes to rest");
            match coordinator.poll_output() {
                Output::Timeout(at) => {
                    prop_assert!(at > now, "a timeout in the past would spin");
                    break;
                }
                Output::Send { client, message } => {
                    let peers = match message {
                        ServerMessage::Welcome(welcome) => {
                            modes.insert(client.0, welcome.mode);
                            prop_assert_eq!(welcome.reasons.is_empty(), false, "a decision without its reasons");
                            welcome.peers
                        }
                        ServerMessage::Directive(directive) => directive.peers,
                        _ => Vec::new(),
                    };
                    for peer in peers {
                        prop_assert!(dialable(peer.address, &policy).is_ok(), "{} was given out", peer.address);
                    }
                }
                Output::Push { client, number, .. } => {
                    prop_assert_eq!(modes.get(&client.0), Some(&Mode::PeerToPeer), "a push to a direct client");
                    prop_assert!(number.as_u32() < PARTS);
                }
                _ => {}
            }
        }
        coordinator.check_invariants();
    }
    Ok(())
}

/// Cases that failed once are kept beside the tests and tried first.
fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::Direct("proptest-regressions/props.txt");
    ProptestConfig { cases: 400, failure_persistence: Some(Box::new(failures)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_events(steps in prop::collection::vec(steps(), 1..150)) {
        run(&steps)?;
    }
}
