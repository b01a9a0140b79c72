//! Whatever server and peers say, and in whatever order, a session neither panics nor contradicts itself, and stores nothing
//! but the content.

use crate::world::{NOW, PARTS, World, coordinates, mode, numbers, peer, world};
use bytes::Bytes;
use hybrid_manifest::{PartNumber, PartRange};
use hybrid_session::{Config, ConnectionId, Input, Output, PartFailure, PartSource, Session, UploadPause};
use hybrid_units::{ByteCount, Duration, Instant, Ratio};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{Bye, ByeCode, Directive, PartPush, ServerMessage, Welcome};
use hybrid_wire::peer::{AskProofs, Have, Hello, PeerMessage, Proofs, ToldPeers};
use hybrid_wire::{PROTOCOL_VERSION, PeerLimits, SessionToken};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::VecDeque;

/// What the world does next. Numbers go a little beyond what is valid.
#[derive(Clone, Debug)]
enum Step {
    Wait(u16),
    Control(bool),
    Welcome {
        swarm: bool,
        peers: Vec<u8>,
        grants: Vec<u32>,
        connections_max: u16,
    },
    Directive {
        swarm: Option<bool>,
        peers: Vec<u8>,
        revoked: Vec<u8>,
        grants: Vec<u32>,
    },
    Push {
        number: u32,
        spoil: bool,
    },
    Connect {
        connection: u8,
        peer: u8,
        outgoing: bool,
        has: Vec<u32>,
        lie: u8,
    },
    Say {
        connection: u8,
        what: u8,
        number: u32,
    },
    Part {
        connection: Option<u8>,
        number: u32,
        spoil: u8,
    },
    Begun {
        connection: u8,
        number: u32,
        queue: u8,
    },
    Fail {
        connection: Option<u8>,
        number: u32,
        how: u8,
    },
    Close {
        connection: u8,
    },
    Ask {
        connection: u8,
        number: u32,
    },
    Unask {
        connection: u8,
        number: u32,
    },
    Served {
        connection: u8,
        number: u32,
    },
    Offer {
        connection: u8,
        number: u32,
    },
    Pushed {
        connection: u8,
        number: u32,
        taken: bool,
    },
    Hashes {
        first: u32,
        count: u32,
        spoil: bool,
    },
    NoHashes,
    StoreBreaks(bool),
    Lose {
        number: u32,
    },
    Seek {
        number: u32,
    },
    PauseUploads(bool),
    /// Threads that verify and store come to an end.
    Settle,
}

fn parts() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0..PARTS + 1, 0..14).prop_map(|set| set.into_iter().collect())
}

fn steps() -> impl Strategy<Value = Step> {
    let number = || 0..PARTS + 2;
    let connection = || 0u8..6;
    let peers = || prop::collection::vec(0u8..8, 0..5);
    prop_oneof![
        4 => (0u16..4_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Control),
        2 => (any::<bool>(), peers(), parts(), 0u16..6).prop_map(|(swarm, peers, grants, connections_max)| {
            Step::Welcome { swarm, peers, grants, connections_max }
        }),
        1 => (any::<Option<bool>>(), peers(), peers(), parts()).prop_map(|(swarm, peers, revoked, grants)| {
            Step::Directive { swarm, peers, revoked, grants }
        }),
        2 => (number(), any::<bool>()).prop_map(|(number, spoil)| Step::Push { number, spoil }),
        4 => (connection(), 0u8..8, any::<bool>(), parts(), 0u8..12).prop_map(|(connection, peer, outgoing, has, lie)| {
            Step::Connect { connection, peer, outgoing, has, lie }
        }),
        4 => (connection(), 0u8..8, number()).prop_map(|(connection, what, number)| Step::Say { connection, what, number }),
        8 => (prop::option::of(connection()), number(), 0u8..6).prop_map(|(connection, number, spoil)| {
            Step::Part { connection, number, spoil }
        }),
        3 => (prop::option::of(connection()), number(), 0u8..5).prop_map(|(connection, number, how)| {
            Step::Fail { connection, number, how }
        }),
        2 => (connection(), number(), any::<u8>()).prop_map(|(connection, number, queue)| Step::Begun { connection, number, queue }),
        1 => connection().prop_map(|connection| Step::Close { connection }),
        3 => (connection(), number()).prop_map(|(connection, number)| Step::Ask { connection, number }),
        1 => (connection(), number()).prop_map(|(connection, number)| Step::Unask { connection, number }),
        2 => (connection(), number()).prop_map(|(connection, number)| Step::Served { connection, number }),
        4 => (connection(), number()).prop_map(|(connection, number)| Step::Offer { connection, number }),
        2 => (connection(), number(), any::<bool>()).prop_map(|(connection, number, taken)| {
            Step::Pushed { connection, number, taken }
        }),
        3 => (0..PARTS, 1..PARTS, any::<bool>()).prop_map(|(first, count, spoil)| Step::Hashes { first, count, spoil }),
        1 => Just(Step::NoHashes),
        1 => any::<bool>().prop_map(Step::StoreBreaks),
        1 => number().prop_map(|number| Step::Lose { number }),
        1 => number().prop_map(|number| Step::Seek { number }),
        1 => any::<bool>().prop_map(Step::PauseUploads),
        3 => Just(Step::Settle),
    ]
}

impl World {
    fn input(&self, step: &Step) -> Vec<Input> {
        let id = |connection: &u8| ConnectionId(u64::from(*connection));
        let number = |number: &u32| PartNumber::new(*number);
        let source =
            |connection: &Option<u8>| connection.as_ref().map_or(PartSource::Server, |c| PartSource::Peer(id(c)));
        vec![match step {
            Step::Wait(_) | Step::Settle => Input::Timeout,
            Step::Control(open) => {
                if *open {
                    Input::ControlOpened
                } else {
                    Input::ControlClosed
                }
            }
            Step::Welcome { swarm, peers, grants, connections_max } => {
                Input::ControlMessage(ServerMessage::Welcome(Welcome {
                    mode: mode(*swarm),
                    reasons: vec!["because".to_owned()],
                    session: SessionToken::from_bytes([2; 16]),
                    ticket: self.ticket(peer(200), 9),
                    server_time_secs: 0,
                    report_interval_ms: 300,
                    peers: coordinates(peers),
                    grants: numbers(grants),
                    pushes: 0,
                    limits: PeerLimits { connections_max: *connections_max, uploads_max: 1 },
                }))
            }
            Step::Directive { swarm, peers, revoked, grants } => {
                Input::ControlMessage(ServerMessage::Directive(Directive {
                    mode: swarm.map(|swarm| (mode(swarm), Vec::new())),
                    peers: coordinates(peers),
                    grants: numbers(grants),
                    revoked: revoked.iter().map(|index| peer(*index)).collect(),
                    ..Directive::default()
                }))
            }
            Step::Push { number, spoil } => {
                let bytes = self.part(*number, if *spoil { 4 } else { 0 });
                Input::ControlMessage(ServerMessage::PartPush(PartPush { number: *number, bytes }))
            }
            Step::Connect { connection, peer: index, outgoing, has, lie } => Input::PeerConnected {
                connection: id(connection),
                peer: peer(*index),
                outgoing: *outgoing,
                hello: Hello {
                    version: if *lie == 2 { 9 } else { PROTOCOL_VERSION },
                    content: self.manifest.content(),
                    part_len_bytes: if *lie == 3 { 65_536 } else { 16_384 },
                    ticket: self.ticket(peer(*index), *lie),
                    has: numbers(has),
                    uploads: *lie != 4,
                },
            },
            Step::Say { connection, what, number } => Input::PeerMessage {
                connection: id(connection),
                message: match what {
                    0 => PeerMessage::Idle,
                    1 => PeerMessage::AskProofs(AskProofs { first: *number, count: u32::MAX }),
                    2 => PeerMessage::Proofs(Proofs { proofs: Bytes::from_static(b"no proof at all") }),
                    5 => PeerMessage::AskPeers,
                    6 => PeerMessage::Peers(ToldPeers { peers: coordinates(&[2, 4, 6, 8, 200]) }),
                    3 => PeerMessage::Bye(Bye { code: ByeCode::Done, reason: String::new() }),
                    _ => PeerMessage::Have(Have { parts: numbers(&[*number]), queue: 3 }),
                },
            },
            Step::Part { connection, number: part, spoil } => Input::PartReceived {
                source: source(connection),
                number: number(part),
                bytes: self.part(*part, *spoil),
            },
            Step::Begun { connection, number: part, queue } => {
                Input::PartBegun { connection: id(connection), number: number(part), queue: *queue }
            }
            Step::Fail { connection, number: part, how } => Input::PartFailed {
                source: source(connection),
                number: number(part),
                failure: match how {
                    0 => PartFailure::Busy { retry_in: Duration::from_secs(u64::MAX), queue: 255 },
                    1 => PartFailure::Gone,
                    2 => PartFailure::Refused { retry_after: Duration::from_secs(u64::MAX) },
                    3 => PartFailure::Transport,
                    _ => PartFailure::Misbehaved,
                },
            },
            Step::Close { connection } => Input::PeerClosed { connection: id(connection), code: ByeCode::Shutdown },
            Step::Ask { connection, number: part } => {
                Input::PartRequested { connection: id(connection), number: number(part) }
            }
            Step::Unask { connection, number: part } => {
                Input::RequestCancelled { connection: id(connection), number: number(part) }
            }
            Step::Served { connection, number: part } => {
                Input::PartServed { connection: id(connection), number: number(part), sent_bytes: 16_384 }
            }
            Step::Offer { connection, number: part } => {
                Input::PartOffered { connection: id(connection), number: number(part) }
            }
            Step::Pushed { connection, number: part, taken } => Input::PartPushed {
                connection: id(connection),
                number: number(part),
                sent_bytes: 16_384,
                taken: *taken,
            },
            Step::Hashes { first, count, spoil } => {
                let range = PartRange::new(PartNumber::new(*first), (*count).min(PARTS - first)).unwrap();
                let mut proofs = self.ids.prove(range).unwrap().encode();
                if *spoil {
                    proofs[20] ^= 1;
                }
                Input::HashesReceived { proofs: proofs.into() }
            }
            Step::NoHashes => Input::HashesFailed { retry_after: Some(Duration::from_secs(u64::MAX)) },
            Step::StoreBreaks(_) => Input::StoreReady,
            Step::Lose { number: part } => Input::StoreLost { number: number(part) },
            Step::Seek { number: part } => Input::Seek { number: number(part) },
            Step::PauseUploads(pause) => Input::PauseUploads(pause.then_some(UploadPause::Hours)),
        }]
    }
}

/// What may be sent, in bytes and in thousandths of what came.
type Caps = (Option<u64>, Option<u32>);

fn run(inline: bool, upload: bool, caps: Caps, lazy: bool, held: &[u32], steps: &[Step]) -> Result<(), TestCaseError> {
    let world = world(inline);
    let mut config = Config::default();
    config.seed = 5;
    config.upload = upload;
    config.upload_volume_max = caps.0.map(ByteCount::new);
    config.upload_ratio_max = caps.1.and_then(Ratio::from_thousandths);
    config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
    config.rescue_after = Duration::from_millis(500);
    let held = held.iter().copied().map(PartNumber::new);
    let mut now = Instant::from_micros(1);
    let mut session = Session::new(config, now, NOW, world.manifest.clone(), peer(200), held);
    let mut store_breaks = false;
    let mut pending = VecDeque::new();
    for step in steps {
        if let Step::Wait(millis) = step {
            now += Duration::from_millis(u64::from(*millis));
        }
        if let Step::StoreBreaks(breaks) = step {
            store_breaks = *breaks;
        }
        let mut inputs = VecDeque::from(world.input(step));
        if !lazy || matches!(step, Step::Settle) {
            inputs.append(&mut pending);
        }
        let mut outputs = 0;
        while let Some(input) = inputs.pop_front() {
            session.handle_input(now, input);
            loop {
                outputs += 1;
                prop_assert!(outputs < 2_000, "the session never comes to rest");
                match session.poll_output() {
                    Output::Timeout(at) => {
                        prop_assert!(at > now, "a timeout in the past would spin");
                        break;
                    }
                    Output::Verify { source, expected, bytes } => {
                        let number = expected.number();
                        let settled = if lazy { &mut pending } else { &mut inputs };
                        settled.push_back(match expected.verify(bytes) {
                            Ok(part) => Input::PartVerified { source, part },
                            Err(error) => Input::PartRejected { source, number, error },
                        });
                    }
                    Output::Store { part } => {
                        prop_assert_eq!(part.bytes(), &world.part(part.number().as_u32(), 0));
                        let number = part.number();
                        let failed = Input::StoreFailed { number };
                        let settled = if lazy { &mut pending } else { &mut inputs };
                        settled.push_back(if store_breaks { failed } else { Input::Stored { number } });
                    }
                    Output::TakePush { number, .. } => prop_assert!(!session.held().contains(number)),
                    Output::Dial { peer, .. } => prop_assert!(peer.address.ip().to_string().starts_with("10.")),
                    Output::ServePart { number, .. } | Output::PushPart { number, .. } => {
                        prop_assert!(upload && session.held().contains(number))
                    }
                    _ => {}
                }
            }
            session.check_invariants();
        }
    }
    session.handle_input(now, Input::Stop);
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
    fn any_sequence_of_events(
        inline in any::<bool>(),
        upload in prop::bool::weighted(0.9),
        caps in (prop::option::weighted(0.2, 0u64..100_000), prop::option::weighted(0.2, 1u32..2_000)),
        lazy in any::<bool>(),
        held in parts(),
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        run(inline, upload, caps, lazy, &held, &steps)?;
    }
}
