//! How often addresses are dialled, whatever keys they are named under: each rule on a virtual clock, and all at once.

use crate::world::{NOW, World, numbers, peer, world};
use hybrid_session::{Anchors, Config, ConnectionId, Input, Output, Session};
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::address::{AddressPolicy, dialable, host_of};
use hybrid_wire::control::{ByeCode, Directive, ServerMessage, Welcome};
use hybrid_wire::peer::{Hello, PeerMessage, ToldPeers};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::net::SocketAddr;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const ME: u8 = 255;

/// A dial, or a question whose address one is (`None`).
#[derive(Clone, Copy, Debug)]
struct Knock {
    at: Instant,
    address: SocketAddr,
    key: Option<PeerId>,
}

/// A client among addresses where nobody answers, unless the test does.
struct Street {
    world: World,
    policy: AddressPolicy,
    session: Session,
    began: Instant,
    now: Instant,
    wake: Instant,
    knocks: Vec<Knock>,
    /// When the driver says that a dial failed, or that nobody is there; `None`: never.
    fails_after: Option<Duration>,
    failing: Vec<Knock>,
    connections: u64,
    timeouts: usize,
}

impl Street {
    fn new() -> Self {
        let world = world(true);
        let mut config = Config::default();
        config.lookups = true;
        config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
        let (policy, now) = (config.addresses.clone(), Instant::from_micros(1));
        let session = Session::new(config, now, NOW, world.manifest.clone(), peer(ME), []);
        Self {
            world,
            policy,
            session,
            began: now,
            now,
            wake: now,
            knocks: Vec::new(),
            fails_after: Some(5 * SECOND),
            failing: Vec::new(),
            connections: 0,
            timeouts: 0,
        }
    }

    fn tell(&mut self, input: Input) {
        self.session.handle_input(self.now, input);
        let mut asked = Vec::new();
        loop {
            let knock = match self.session.poll_output() {
                Output::Timeout(at) => {
                    assert!(at > self.now, "a timeout in the past would spin");
                    self.wake = at;
                    break;
                }
                Output::Dial { peer, .. } => Knock { at: self.now, address: peer.address, key: Some(peer.peer) },
                Output::Identify { address } => Knock { at: self.now, address, key: None },
                Output::SendPeer { connection, message: PeerMessage::AskPeers } => {
                    asked.push(connection);
                    continue;
                }
                _ => continue,
            };
            assert_eq!(dialable(knock.address, &self.policy), Ok(()));
            self.knocks.push(knock);
            self.failing.extend(self.fails_after.map(|after| Knock { at: self.now + after, ..knock }));
        }
        self.session.check_invariants();
    }

    /// Lets time pass as a driver does.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let fails = self.failing.iter().map(|knock| knock.at).min().unwrap_or(Instant::FAR_FUTURE);
            let next = self.wake.min(fails);
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if fails > next {
                self.timeouts += 1;
                self.tell(Input::Timeout);
                continue;
            }
            let index = self.failing.iter().position(|knock| knock.at == fails).expect("one is due");
            let failed = self.failing.remove(index);
            self.tell(match failed.key {
                Some(peer) => Input::DialFailed { peer, answered: false },
                None => Input::Identified { address: failed.address, peer: None },
            });
        }
        self.now = until;
    }

    fn welcome(&mut self, peers: Vec<PeerCoordinates>) {
        self.tell(Input::ControlOpened);
        let welcome = Welcome {
            mode: Mode::PeerToPeer,
            reasons: Vec::new(),
            session: SessionToken::from_bytes([2; 16]),
            ticket: self.world.ticket(peer(ME), 9),
            server_time_secs: (NOW + self.now.since(self.began)).as_secs(),
            report_interval_ms: 10_000,
            peers,
            grants: PartRanges::empty(),
            pushes: 0,
            limits: PeerLimits { connections_max: 60, uploads_max: 1 },
        };
        self.tell(Input::ControlMessage(ServerMessage::Welcome(welcome)));
    }

    fn directive(&mut self, peers: Vec<PeerCoordinates>) {
        let directive = Directive { peers, ..Directive::default() };
        self.tell(Input::ControlMessage(ServerMessage::Directive(directive)));
    }

    fn connect(&mut self, index: u8, outgoing: bool) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.world.manifest.content(),
            part_len_bytes: 16_384,
            ticket: self.world.ticket(peer(index), 9),
            has: numbers(&[]),
            uploads: true,
        };
        self.failing.retain(|knock| knock.key != Some(peer(index)));
        self.tell(Input::PeerConnected { connection, peer: peer(index), outgoing, hello });
        connection
    }

    /// A stranger connects, is asked for peers, which the server's absence makes it be, tells these and leaves.
    fn told(&mut self, index: u8, peers: &[PeerCoordinates]) {
        for some in peers.chunks(50) {
            let connection = self.connect(index, false);
            self.pass(6 * SECOND);
            let message = PeerMessage::Peers(ToldPeers { peers: some.to_vec() });
            self.tell(Input::PeerMessage { connection, message });
            self.tell(Input::PeerClosed { connection, code: ByeCode::Done });
        }
    }

    /// When an address was dialled or asked, in seconds since the beginning.
    fn times(&self, address: &str) -> Vec<f64> {
        let door = door(address.parse().unwrap());
        let there = self.knocks.iter().filter(|knock| self::door(knock.address) == door);
        there.map(|knock| knock.at.since(self.began).as_secs_f64()).collect()
    }

    /// The most that were dialled within less than `window`.
    fn most_within(&self, window: Duration, wanted: impl Fn(&Knock) -> bool) -> usize {
        let times: Vec<Instant> = self.knocks.iter().filter(|knock| wanted(knock)).map(|knock| knock.at).collect();
        let from = |(index, first): (usize, &Instant)| {
            times[index..].iter().take_while(|at| at.since(*first) < window).count()
        };
        times.iter().enumerate().map(from).max().unwrap_or(0)
    }
}

/// All ways to write an address are one.
fn door(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(host_of(address.ip()), address.port())
}

fn at(index: u8, address: &str) -> PeerCoordinates {
    PeerCoordinates { peer: peer(index), address: address.parse().unwrap() }
}

#[test]
fn forty_are_dialled_at_once_and_then_five_a_second() {
    let mut street = Street::new();
    street.fails_after = None;
    street.welcome((0..60).map(|index| at(index, &format!("8.0.0.{index}:7000"))).collect());
    assert_eq!(street.knocks.len(), 40, "a newcomer's first list");
    street.pass(10 * SECOND);
    let expected: Vec<u128> = (0..60u128).map(|index| 200 * index.saturating_sub(39)).collect();
    let times: Vec<u128> = street.knocks.iter().map(|knock| knock.at.since(street.began).as_millis()).collect();
    assert_eq!(times, expected);
    assert!(street.timeouts < 60, "woken {} times", street.timeouts);
}

#[test]
fn an_address_under_many_keys_is_dialled_as_one() {
    const VICTIM: &str = "8.8.8.8:7000";
    let keys = || (0..100).map(|index| at(index, VICTIM)).collect::<Vec<_>>();
    let expected = [0, 60, 120, 720, 780, 840, 1_440, 1_500, 1_560].map(f64::from);
    for (server, fails_after) in [(true, Some(5 * SECOND)), (false, Some(SECOND)), (true, None), (false, None)] {
        let mut street = Street::new();
        street.fails_after = fails_after;
        street.welcome(keys());
        if !server {
            street.tell(Input::ControlClosed);
        }
        for _ in 0..350 {
            street.pass(5 * SECOND);
            if server {
                street.directive(keys());
            }
        }
        let times = street.times(VICTIM);
        assert_eq!(times.len(), expected.len(), "server {server}, {fails_after:?}: {times:?}");
        for (got, expected) in times.iter().zip(expected) {
            // The server's absence is what some of its keys wait for, and a place for a dial is given up after 15 s.
            assert!((got - expected).abs() < 16.0, "server {server}, {fails_after:?}: {times:?}");
        }
        assert!(street.timeouts < 2_000, "server {server}, {fails_after:?}: woken {} times", street.timeouts);
    }
}

#[test]
fn other_peers_are_dialled_meanwhile() {
    let mut street = Street::new();
    let victims = (0..100).map(|index| at(index, "8.8.8.8:7000"));
    street.welcome(victims.chain((100..110).map(|index| at(index, &format!("8.0.0.{index}:7000")))).collect());
    assert_eq!(street.knocks.len(), 11);
}

#[test]
fn who_answered_may_be_dialled_again_and_others_at_its_address_may_not() {
    let (mine, others) = (at(2, "8.8.8.8:7000"), at(4, "8.8.8.8:7000"));
    let mut street = Street::new();
    street.fails_after = None;
    street.welcome(vec![mine.clone()]);
    // It is there and has no room.
    street.pass(SECOND);
    street.tell(Input::DialFailed { peer: peer(2), answered: true });
    street.directive(vec![others.clone()]);
    assert_eq!(street.times("8.8.8.8:7000"), [0.0]);
    street.directive(vec![mine.clone()]);
    assert_eq!(street.times("8.8.8.8:7000"), [0.0, 1.0]);
    // Now it is not: its own key waits as well.
    street.pass(SECOND);
    street.tell(Input::DialFailed { peer: peer(2), answered: false });
    street.directive(vec![mine]);
    assert_eq!(street.times("8.8.8.8:7000"), [0.0, 1.0]);
    street.pass(2 * MINUTE);
    assert_eq!(street.times("8.8.8.8:7000"), [0.0, 1.0, 61.0, 121.0]);
}

#[test]
fn an_answer_ends_the_row_of_failures() {
    let mut street = Street::new();
    let keys = || (2..50).map(|index| at(index, "8.8.8.8:7000")).collect();
    street.welcome(keys());
    street.pass(MINUTE + SECOND);
    street.directive(keys());
    assert_eq!(street.knocks.len(), 2);
    let Some(key) = street.knocks[1].key else { panic!("a question whose address it is") };
    let connection = street.connect(key.as_bytes()[0], true);
    street.tell(Input::PeerClosed { connection, code: ByeCode::Done });
    for _ in 0..4 {
        street.directive(keys());
        street.pass(MINUTE);
    }
    // One more in vain would have been the third in a row.
    assert_eq!(street.times("8.8.8.8:7000").len(), 5, "{:?}", street.times("8.8.8.8:7000"));
}

#[test]
fn many_ports_of_one_public_host_are_somebodys_invention() {
    // The same host, however it is written, and for IPv6 the network that any host has.
    for (form, limited) in [
        ("8.8.8.8:PORT", true),
        ("[::ffff:8.8.8.8]:PORT", true),
        ("[64:ff9b::8.8.8.8]:PORT", true),
        ("[2002:808:808::INDEX]:PORT", true),
        ("[2606:4700:4700:1::INDEX]:PORT", true),
        ("[2606:4700:4700:INDEX::1]:PORT", false),
        ("10.0.0.1:PORT", false),
    ] {
        let mut street = Street::new();
        let write = |index: u8| {
            let port = (20_000 + u16::from(index)).to_string();
            at(index, &form.replace("PORT", &port).replace("INDEX", &(1 + index).to_string()))
        };
        street.welcome((0..45).map(write).collect());
        assert_eq!(street.knocks.len(), if limited { 8 } else { 40 }, "{form}");
        for _ in 0..60 {
            street.pass(5 * SECOND);
            street.directive((0..45).map(write).collect());
        }
        let most = street.most_within(MINUTE, |_| true);
        assert_eq!(most, if limited { 8 } else { 45 }, "{form}");
        assert_eq!(street.knocks.len(), if limited { 8 * 6 } else { 45 * 3 }, "{form}");
    }
}

#[test]
fn many_peers_behind_one_address_translator_do_not_wait_for_each_other() {
    let mut street = Street::new();
    street.fails_after = None;
    street.welcome((0..20).map(|index| at(index, &format!("8.8.8.8:{}", 20_000 + u16::from(index)))).collect());
    let mut answered = 0;
    while let Some(knock) = street.knocks.get(answered).copied() {
        answered += 1;
        street.pass(Duration::from_millis(10));
        street.connect(knock.key.expect("a dial").as_bytes()[0], true);
    }
    assert_eq!((answered, street.now.since(street.began) < SECOND), (20, true));
}

#[test]
fn questions_whose_address_it_is_count_as_dials() {
    let mut street = Street::new();
    street.welcome(vec![at(2, "8.8.8.8:7000")]);
    street.tell(Input::ControlClosed);
    street.pass(6 * SECOND);
    let found = |addresses: &[&str]| Input::AddressesFound {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    // The server's peer was dialled in vain there; written otherwise it is not known by that address.
    street.tell(found(&["[::ffff:8.8.8.8]:7000", "8.8.4.4:7000", "8.8.4.5:7000"]));
    assert_eq!(street.times("8.8.8.8:7000"), [0.0]);
    assert_eq!(street.times("8.8.4.4:7000"), [6.0]);
    // Who answers is dialled at once, and only under the key that was shown.
    street.failing.clear();
    street.tell(Input::Identified { address: "8.8.4.4:7000".parse().unwrap(), peer: Some(peer(4)) });
    assert_eq!(street.times("8.8.4.4:7000"), [6.0, 6.0]);
    // Where nobody does, nobody is dialled who is said to be there.
    street.tell(Input::Identified { address: "8.8.4.5:7000".parse().unwrap(), peer: None });
    let told: Vec<_> = (10..40).map(|index| at(index, "8.8.4.5:7000")).collect();
    street.told(200, &told);
    assert_eq!(street.times("8.8.4.5:7000"), [6.0]);
    street.pass(MINUTE);
    assert_eq!(street.times("8.8.4.5:7000"), [6.0, 66.0]);
}

#[test]
fn questions_wait_their_turn_and_are_not_forgotten() {
    let mut street = Street::new();
    street.fails_after = Some(SECOND);
    street.welcome((0..80).map(|index| at(index, &format!("8.0.0.{index}:7000"))).collect());
    street.tell(Input::ControlClosed);
    street.pass(8 * SECOND);
    assert_eq!(street.knocks.len(), 80, "the last one just now");
    street.tell(Input::AddressesFound { addresses: vec!["8.8.4.4:7000".parse().unwrap()] });
    assert_eq!(street.knocks.len(), 80);
    street.pass(SECOND);
    assert_eq!(street.times("8.8.4.4:7000"), [8.2]);
}

#[test]
fn liars_who_connect_by_themselves_have_their_victim_dialled_no_more_often() {
    let mut street = Street::new();
    street.fails_after = None;
    street.welcome(Vec::new());
    for liar in 0..20 {
        street.directive(vec![at(liar, "8.8.8.8:7000")]);
        street.pass(SECOND);
        let connection = street.connect(liar, false);
        street.tell(Input::PeerClosed { connection, code: ByeCode::Done });
        street.pass(MINUTE);
    }
    assert!(street.knocks.len() >= 3, "{:?}", street.knocks);
    assert_eq!(street.most_within(10 * MINUTE, |_| true), 3, "{:?}", street.times("8.8.8.8:7000"));
}

// ----- Addresses that nobody dials -----

/// The rows of the table whose addresses are dialled, or not.
fn table(dialled: bool) -> Vec<SocketAddr> {
    let table = include_str!("../../../../docs/spec/vectors/addresses.txt");
    let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows = rows.map(|row| row.split_once(' ').expect("an address and a rule"));
    let address = |text: &str| text.parse().unwrap_or_else(|_| SocketAddr::new(text.parse().unwrap(), 40_000));
    rows.filter(|(_, rule)| (*rule == "dialled") == dialled).map(|(text, _)| address(text)).collect()
}

/// A way to name peers to a client.
type Way = fn(&mut Street, Vec<PeerCoordinates>);

/// Lets a client be told of addresses in every way, one after the other; gives how often it knocked after each.
fn named_in_every_way(addresses: &[SocketAddr]) -> Vec<(&'static str, usize)> {
    let keys =
        || addresses.iter().zip(0..).map(|(address, index)| PeerCoordinates { peer: peer(index), address: *address });
    let ways: [(&str, Way); 5] = [
        ("welcome", |street, peers| street.welcome(peers)),
        ("directive", |street, peers| {
            street.welcome(Vec::new());
            street.directive(peers);
        }),
        ("anchors", |street, peers| {
            let ticket = street.world.ticket(peer(ME), 9);
            street.tell(Input::Resume(Anchors { ticket, peers }));
        }),
        ("told peers", |street, peers| {
            street.welcome(Vec::new());
            street.tell(Input::ControlClosed);
            street.told(200, &peers);
        }),
        ("found addresses", |street, peers| {
            street.welcome(Vec::new());
            street.tell(Input::ControlClosed);
            street.pass(6 * SECOND);
            for some in peers.chunks(25) {
                let addresses = some.iter().map(|peer| peer.address).collect();
                street.tell(Input::AddressesFound { addresses });
                street.pass(5 * MINUTE);
            }
        }),
    ];
    let tried = ways.map(|(name, way)| {
        let mut street = Street::new();
        street.policy = AddressPolicy::default();
        let mut config = Config::default();
        config.lookups = true;
        config.known_peers_max = 1_000;
        let manifest = street.world.manifest.clone();
        street.session = Session::new(config, street.now, NOW, manifest, peer(ME), []);
        way(&mut street, keys().collect());
        street.pass(10 * MINUTE);
        let mut reached: Vec<SocketAddr> = street.knocks.iter().map(|knock| door(knock.address)).collect();
        reached.sort_unstable();
        reached.dedup();
        (name, reached.len())
    });
    tried.to_vec()
}

#[test]
fn addresses_that_are_refused_are_never_dialled_in_whatever_way_they_are_named() {
    let ports = (0..1_024).step_by(21).map(|port| SocketAddr::from(([9, 9, 9, 9], port)));
    let refused: Vec<SocketAddr> = table(false).into_iter().chain(ports).collect();
    assert!(refused.len() >= 150 && refused.len() < 200, "{} addresses", refused.len());
    for (way, knocks) in named_in_every_way(&refused) {
        assert_eq!(knocks, 0, "{way}");
    }
    // The same way, those that may be dialled are, so it was not the way that kept the others away.
    let mut dialled: Vec<SocketAddr> = table(true);
    dialled.sort_unstable_by_key(|address| door(*address));
    dialled.dedup_by_key(|address| door(*address));
    for (way, knocks) in named_in_every_way(&dialled) {
        assert_eq!(knocks, dialled.len(), "{way}");
    }
}

// ----- Any sequence -----

#[derive(Clone, Debug)]
enum Step {
    Wait(u32),
    Welcome(Vec<(u8, usize)>),
    Directive(Vec<(u8, usize)>),
    Told(u8, Vec<(u8, usize)>),
    Found(Vec<usize>),
    Close,
    Fail(u8),
    Revoke(u8),
    /// Whether the driver tells of failures, and after how long.
    Fails(Option<u16>),
}

/// A few hosts with a few ports, written in several ways, and addresses that nobody dials.
fn place(index: usize) -> SocketAddr {
    let hosts = ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "10.0.0.1", "9.9.9.9", "2606::1", "2606::2"];
    let refused = ["127.0.0.1", "192.168.0.1", "::1", "169.254.169.254", "224.0.0.1", "fe80::1"];
    let port = 20_000 + u16::try_from(index % 12).unwrap();
    let host = hosts.iter().chain(&refused).nth(index / 12 % 13).unwrap();
    SocketAddr::new(host.parse().unwrap(), port)
}

fn steps() -> impl Strategy<Value = Step> {
    let named = || prop::collection::vec((0u8..60, 0usize..13 * 12), 0..40);
    prop_oneof![
        3 => (0u32..5_000).prop_map(Step::Wait),
        3 => (0u32..120_000).prop_map(Step::Wait),
        1 => Just(Step::Wait(540_000)),
        3 => named().prop_map(Step::Welcome),
        3 => named().prop_map(Step::Directive),
        // One address under many keys.
        2 => (0usize..7 * 12).prop_map(|place| Step::Directive((0..60).map(|key| (key, place)).collect())),
        3 => (200u8..204, named()).prop_map(|(who, named)| Step::Told(who, named)),
        3 => prop::collection::vec(0usize..13 * 12, 0..20).prop_map(Step::Found),
        2 => Just(Step::Close),
        4 => (0u8..60).prop_map(Step::Fail),
        1 => (0u8..60).prop_map(Step::Revoke),
        1 => prop::option::of(1u16..20_000).prop_map(Step::Fails),
    ]
}

fn named(peers: &[(u8, usize)]) -> Vec<PeerCoordinates> {
    peers.iter().map(|(key, index)| PeerCoordinates { peer: peer(*key), address: place(*index) }).collect()
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut street = Street::new();
    for step in steps {
        match step {
            Step::Wait(millis) => street.pass(Duration::from_millis(u64::from(*millis))),
            Step::Welcome(peers) => street.welcome(named(peers)),
            Step::Directive(peers) => street.directive(named(peers)),
            Step::Told(who, peers) => street.told(*who, &named(peers)),
            Step::Found(places) => {
                let addresses = places.iter().map(|index| place(*index)).collect();
                street.tell(Input::AddressesFound { addresses });
            }
            Step::Close => street.tell(Input::ControlClosed),
            Step::Fail(key) => street.tell(Input::DialFailed { peer: peer(*key), answered: false }),
            Step::Revoke(key) => {
                let directive = Directive { revoked: vec![peer(*key)], ..Directive::default() };
                street.tell(Input::ControlMessage(ServerMessage::Directive(directive)));
            }
            Step::Fails(after) => street.fails_after = after.map(|millis| Duration::from_millis(millis.into())),
        }
    }
    let mut doors: Vec<SocketAddr> = street.knocks.iter().map(|knock| door(knock.address)).collect();
    doors.sort_unstable();
    doors.dedup();
    for door in doors {
        let most = street.most_within(10 * MINUTE, |knock| self::door(knock.address) == door);
        prop_assert!(most <= 3, "{door}: {most} within ten minutes");
        let most = street.most_within(MINUTE, |knock| self::door(knock.address) == door);
        prop_assert!(most <= 1, "{door}: {most} within a minute");
        let host = |knock: &Knock| self::door(knock.address).ip() == door.ip();
        let most = street.most_within(MINUTE, host);
        prop_assert!(most <= 8 || door.ip().to_string().starts_with("10."), "{door}: {most} of its host in a minute");
    }
    for (window, most) in [(SECOND, 45), (10 * SECOND, 90), (MINUTE, 340)] {
        prop_assert!(street.most_within(window, |_| true) <= most, "more than {most} within {window:?}");
    }
    Ok(())
}

/// Cases that failed once are kept beside the tests and tried first.
fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::Direct("proptest-regressions/dials.txt");
    ProptestConfig { cases: 300, failure_persistence: Some(Box::new(failures)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn where_nobody_answers_nobody_knocks_often(steps in prop::collection::vec(steps(), 1..60)) {
        run(&steps)?;
    }
}
