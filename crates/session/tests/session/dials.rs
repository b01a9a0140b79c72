//! Whatever addresses are named, by whomever: those that may not be dialled never are, and no other is knocked at often.

use crate::world::{NOW, World, peer, world};
use hybrid_session::{Anchors, Config, ConnectionId, Input, Output, Session};
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::control::{ByeCode, Directive, ServerMessage, Welcome};
use hybrid_wire::peer::{Hello, PeerMessage, ToldPeers};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

const OWN: u8 = 200;
const NEIGHBOUR: u8 = 201;

/// A session in a world where nobody answers, but for one neighbour who tells it what he likes.
struct Story {
    world: World,
    session: Session,
    now: Instant,
    /// Dials that will fail, and when.
    failing: VecDeque<(Instant, Input)>,
    /// When which address was dialled, or asked whose it is.
    knocked: BTreeMap<SocketAddr, Vec<Instant>>,
}

impl Story {
    fn new() -> Self {
        let world = world(true);
        let mut config = Config::default();
        config.lookups = true;
        let session = Session::new(config, Instant::ZERO, NOW, world.manifest.clone(), peer(OWN), []);
        Self { world, session, now: Instant::ZERO, failing: VecDeque::new(), knocked: BTreeMap::new() }
    }

    fn tell(&mut self, input: Input) {
        self.session.handle_input(self.now, input);
        loop {
            let (address, failed) = match self.session.poll_output() {
                Output::Timeout(_) => break,
                Output::Dial { peer, .. } => (peer.address, Input::DialFailed { peer: peer.peer }),
                Output::Identify { address } => (address, Input::Identified { address, peer: None }),
                _ => continue,
            };
            self.knocked.entry(address).or_default().push(self.now);
            self.failing.push_back((self.now + Duration::from_secs(5), failed));
        }
        self.session.check_invariants();
    }

    /// Time goes on by a second at a time.
    fn wait(&mut self, secs: u64) {
        for _ in 0..secs {
            self.now += Duration::from_secs(1);
            while self.failing.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, failed) = self.failing.pop_front().unwrap();
                self.tell(failed);
            }
            self.tell(Input::Timeout);
        }
    }

    fn ticket(&self, who: u8) -> bytes::Bytes {
        self.world.ticket(peer(who), 9)
    }

    fn name(&mut self, how: u8, peers: Vec<PeerCoordinates>) {
        match how {
            0 => {
                self.tell(Input::ControlOpened);
                let welcome = Welcome {
                    mode: Mode::PeerToPeer,
                    reasons: Vec::new(),
                    session: SessionToken::from_bytes([2; 16]),
                    ticket: self.ticket(OWN),
                    server_time_secs: NOW.as_secs(),
                    report_interval_ms: 1_000,
                    peers,
                    grants: PartRanges::empty(),
                    pushes: 0,
                    limits: PeerLimits { connections_max: 60, uploads_max: 1 },
                };
                self.tell(Input::ControlMessage(ServerMessage::Welcome(welcome)));
            }
            1 => {
                self.tell(Input::ControlMessage(ServerMessage::Directive(Directive { peers, ..Directive::default() })))
            }
            2 => {
                // It is asked once a minute.
                let message = PeerMessage::Peers(ToldPeers { peers });
                self.tell(Input::PeerMessage { connection: ConnectionId(1), message });
            }
            3 => self.tell(Input::AddressesFound { addresses: peers.iter().map(|peer| peer.address).collect() }),
            4 => self.tell(Input::Resume(Anchors { ticket: self.ticket(OWN), peers })),
            _ => self.tell(Input::ControlClosed),
        }
    }

    fn meet_neighbour(&mut self) {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.world.manifest.content(),
            part_len_bytes: 16_384,
            ticket: self.ticket(NEIGHBOUR),
            has: PartRanges::empty(),
            uploads: true,
        };
        let connection = ConnectionId(1);
        self.tell(Input::PeerConnected { connection, peer: peer(NEIGHBOUR), outgoing: false, hello });
    }
}

fn key(number: usize) -> PeerId {
    let mut bytes = [77; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PeerId::from_bytes(bytes)
}

fn named(addresses: &[SocketAddr]) -> Vec<PeerCoordinates> {
    let coordinates =
        |(number, address): (usize, &SocketAddr)| PeerCoordinates { peer: key(number), address: *address };
    addresses.iter().enumerate().map(coordinates).collect()
}

/// All that the table refuses, and ports that are refused everywhere.
fn forbidden() -> Vec<SocketAddr> {
    let table = include_str!("../../../../docs/spec/vectors/addresses.txt");
    let rows = table.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" -"));
    let addresses = rows.map(|line| SocketAddr::new(line.split(' ').next().unwrap().parse().unwrap(), 40_000));
    let ports = (0..1_024).step_by(21).chain([1434, 1900, 3478, 5060, 5353, 11211, 47808]);
    addresses.chain(ports.map(|port| SocketAddr::from(([8, 8, 8, 8], port)))).collect()
}

#[test]
fn what_may_not_be_dialled_is_not_whoever_names_it() {
    let forbidden = forbidden();
    assert!(forbidden.len() >= 150, "{}", forbidden.len());
    for how in 0..=4 {
        // One that is dialled, among each twenty that are not.
        for (number, some) in forbidden.chunks(20).enumerate() {
            let public = SocketAddr::from(([9, 9, 9, u8::try_from(number).unwrap()], 40_000));
            let addresses: Vec<_> = some.iter().copied().chain([public]).collect();
            let mut story = Story::new();
            if how != 4 {
                story.name(0, Vec::new());
                story.meet_neighbour();
            }
            if how == 2 || how == 3 {
                story.name(5, Vec::new());
                story.wait(6);
            }
            story.name(how, named(&addresses));
            story.wait(120);
            let knocked: Vec<_> = story.knocked.keys().copied().collect();
            assert_eq!(knocked, [public], "named in way {how}");
        }
    }
}

#[test]
fn a_victim_under_a_hundred_keys_is_dialled_once_a_minute() {
    let victim = SocketAddr::from(([9, 9, 9, 9], 40_000));
    let mut story = Story::new();
    story.name(0, named(&[victim; 64]));
    story.name(1, named(&[victim; 100]));
    story.wait(59);
    assert_eq!(story.knocked[&victim].len(), 1);
    for _ in 0..20 {
        story.name(1, named(&[victim; 100]));
        story.wait(30);
    }
    let times: Vec<_> = story.knocked[&victim].iter().map(|at| at.as_micros() / 1_000_000).collect();
    assert_eq!(times.len(), 3, "{times:?}");
}

#[test]
fn a_liar_who_connects_by_himself_has_his_victim_dialled_no_more_often() {
    let victim = SocketAddr::from(([9, 9, 9, 9], 40_000));
    let mut story = Story::new();
    story.name(0, Vec::new());
    for _ in 0..300 {
        story.name(1, vec![PeerCoordinates { peer: peer(NEIGHBOUR), address: victim }]);
        story.wait(1);
        story.meet_neighbour();
        story.tell(Input::PeerClosed { connection: ConnectionId(1), code: ByeCode::Done });
        story.wait(1);
    }
    assert!((1..=3).contains(&story.knocked[&victim].len()), "{:?}", story.knocked);
}

proptest! {
    /// Three dials in ten minutes, and one question whose it is.
    #[test]
    fn no_address_is_knocked_at_often(
        steps in prop::collection::vec((0u8..6, prop::collection::vec((0usize..40, 0u16..6), 0..12), 0u64..90), 1..60),
    ) {
        let mut story = Story::new();
        story.name(0, Vec::new());
        story.meet_neighbour();
        for (how, peers, secs) in steps {
            let coordinates = |(number, place): (usize, u16)| {
                // Three ports of one host, and three hosts.
                let (host, port) = if place < 3 { (1, place) } else { (place, 0) };
                let host = u8::try_from(host).unwrap();
                PeerCoordinates { peer: key(number), address: SocketAddr::from(([9, 9, 9, host], 40_000 + port)) }
            };
            story.name(how, peers.into_iter().map(coordinates).collect());
            story.wait(secs);
        }
        for (address, times) in &story.knocked {
            for (place, at) in times.iter().enumerate() {
                let soon = times[place..].iter().filter(|other| other.since(*at) < Duration::from_secs(600)).count();
                prop_assert!(soon <= 4, "{address} was knocked at {soon} times in ten minutes: {times:?}");
            }
        }
    }
}
