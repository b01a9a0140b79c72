//! What a session does while the server is away.

use crate::world::{NOW, PARTS, World, coordinates, numbers, peer, world};
use hybrid_manifest::PartNumber;
use hybrid_session::{Anchors, Config, ConnectionId, Event, Input, Output, Session};
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{ByeCode, ServerMessage, Welcome};
use hybrid_wire::peer::{Hello, PeerMessage, ToldPeers};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken};
use std::net::SocketAddr;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

const NOBODY: [u64; 0] = [];

struct Story {
    world: World,
    config: Config,
    session: Session,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(set: impl FnOnce(&mut Config)) -> Self {
        let world = world(true);
        let mut config = Config::default();
        set(&mut config);
        config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
        let now = Instant::from_micros(1);
        let session = Session::new(config.clone(), now, NOW, world.manifest.clone(), peer(200), []);
        Self { world, config, session, now }
    }

    /// A member of a swarm whose server is lost.
    fn without_server(peers: &[u8]) -> Self {
        let mut story = Self::new();
        story.welcome(peers);
        story.tell(Input::ControlClosed);
        story
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.session.handle_input(self.now, input);
        let mut outputs = Vec::new();
        loop {
            match self.session.poll_output() {
                Output::Timeout(_) => break,
                output => outputs.push(output),
            }
        }
        self.session.check_invariants();
        outputs
    }

    fn after(&mut self, wait: Duration) -> Vec<Output> {
        self.now += wait;
        self.tell(Input::Timeout)
    }

    fn welcome(&mut self, peers: &[u8]) -> Vec<Output> {
        self.tell(Input::ControlOpened);
        let welcome = Welcome {
            mode: Mode::PeerToPeer,
            reasons: Vec::new(),
            session: SessionToken::from_bytes([2; 16]),
            ticket: self.world.ticket(peer(200), 9),
            server_time_secs: NOW.as_secs(),
            report_interval_ms: 1_000,
            peers: coordinates(peers),
            grants: PartRanges::empty(),
            pushes: 0,
            limits: PeerLimits { connections_max: 60, uploads_max: 1 },
        };
        self.tell(Input::ControlMessage(ServerMessage::Welcome(welcome)))
    }

    /// Lets a peer connect; gives the code with which it was sent away, if it was.
    fn connect(&mut self, connection: u64, index: u8, outgoing: bool) -> Option<ByeCode> {
        closed(&self.connected(connection, index, outgoing), ConnectionId(connection))
    }

    fn connected(&mut self, connection: u64, index: u8, outgoing: bool) -> Vec<Output> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.world.manifest.content(),
            part_len_bytes: 16_384,
            ticket: self.world.ticket(peer(index), 9),
            has: numbers(&[0]),
            uploads: true,
        };
        let connection = ConnectionId(connection);
        self.tell(Input::PeerConnected { connection, peer: peer(index), outgoing, hello })
    }

    fn says(&mut self, connection: u64, message: PeerMessage) -> Vec<Output> {
        self.tell(Input::PeerMessage { connection: ConnectionId(connection), message })
    }

    /// Asks for peers over a connection; gives what is answered.
    fn asks(&mut self, connection: u64) -> Option<Vec<PeerCoordinates>> {
        self.says(connection, PeerMessage::AskPeers).into_iter().find_map(|output| match output {
            Output::SendPeer { connection: to, message: PeerMessage::Peers(told) } if to.0 == connection => {
                Some(told.peers)
            }
            _ => None,
        })
    }
}

fn closed(outputs: &[Output], connection: ConnectionId) -> Option<ByeCode> {
    outputs.iter().find_map(|output| match output {
        Output::ClosePeer { connection: other, bye } if *other == connection => Some(bye.code),
        _ => None,
    })
}

fn dialled(outputs: &[Output]) -> Vec<PeerId> {
    let dial = |output: &Output| match output {
        Output::Dial { peer, .. } => Some(peer.peer),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}

fn asked(outputs: &[Output]) -> Vec<u64> {
    let asked = |output: &Output| match output {
        Output::SendPeer { connection, message: PeerMessage::AskPeers } => Some(connection.0),
        _ => None,
    };
    outputs.iter().filter_map(asked).collect()
}

fn told(peers: &[u8]) -> PeerMessage {
    PeerMessage::Peers(ToldPeers { peers: coordinates(peers) })
}

#[test]
fn expired_tickets_hold_for_the_grace_time_while_the_server_is_away() {
    // Tickets of this world were issued at NOW - 10 s for an hour, and clocks may differ by five minutes.
    let expired = Duration::from_secs(3_600 - 10 + 300 + 1);
    for (away, later, expected) in [
        (None, Duration::ZERO, None),
        (None, expired, Some(ByeCode::Ticket)),
        (Some(MINUTE - Duration::from_secs(1)), expired, Some(ByeCode::Ticket)),
        (Some(MINUTE), expired, None),
        (Some(MINUTE), expired + DAY - Duration::from_secs(2), None),
        (Some(MINUTE), expired + DAY, Some(ByeCode::Ticket)),
    ] {
        let mut story = Story::new();
        story.welcome(&[]);
        story.now += later - away.unwrap_or_default().min(later);
        if let Some(away) = away {
            story.tell(Input::ControlClosed);
            story.now += away;
        }
        assert_eq!(story.connect(1, 2, false), expected, "away for {away:?}, {later:?} after the welcome");
    }
}

#[test]
fn peers_are_asked_for_others_once_a_minute_while_the_server_is_away() {
    let mut story = Story::new();
    story.welcome(&[]);
    story.connect(1, 2, false);
    assert_eq!(asked(&story.after(MINUTE)), NOBODY, "the server introduces peers");
    story.tell(Input::ControlClosed);
    assert_eq!(asked(&story.after(Duration::from_secs(1))), NOBODY, "it may be back in a moment");
    assert_eq!(asked(&story.after(Duration::from_secs(5))), [1]);
    assert_eq!(asked(&story.after(MINUTE - Duration::from_secs(1))), NOBODY);
    assert_eq!(asked(&story.after(Duration::from_secs(1))), [1]);
    assert_eq!(asked(&story.connected(2, 4, false)), [2]);
}

#[test]
fn only_peers_that_it_has_dialled_itself_are_told() {
    let mut story = Story::new();
    story.welcome(&[2, 4, 6]);
    story.connect(1, 2, true);
    story.connect(2, 4, true);
    story.connect(3, 8, false);
    // It dialled 2 and 4, was dialled by 8 and has not reached 6.
    let others = |story: &mut Story, connection| {
        let mut peers = story.asks(connection).expect("an answer");
        peers.sort_by_key(|coordinates| coordinates.peer);
        peers
    };
    assert_eq!(others(&mut story, 3), coordinates(&[2, 4]));
    assert_eq!(others(&mut story, 1), coordinates(&[4]));
    story.tell(Input::PeerClosed { connection: ConnectionId(1), code: ByeCode::Done });
    assert_eq!(others(&mut story, 2), []);
}

#[test]
fn an_answer_holds_fifty_peers_at_most() {
    let mut story = Story::new();
    let peers: Vec<u8> = (0..55).map(|index| 2 * index + 2).collect();
    story.welcome(&peers);
    for index in &peers {
        story.connect(u64::from(*index), *index, true);
    }
    assert_eq!(story.asks(2).expect("an answer").len(), 50);
}

#[test]
fn who_asks_too_often_is_let_go() {
    let mut story = Story::new();
    story.welcome(&[]);
    story.connect(1, 2, false);
    assert!(story.asks(1).is_some());
    story.now += Duration::from_secs(55);
    assert!(story.asks(1).is_some(), "a message may have waited on its way");
    story.now += Duration::from_secs(20);
    assert_eq!(story.asks(1), None, "too soon");
    let outputs = story.says(1, PeerMessage::AskPeers);
    assert_eq!(closed(&outputs, ConnectionId(1)), Some(ByeCode::Protocol));
}

#[test]
fn peers_that_nobody_asked_for_end_the_connection() {
    let mut story = Story::without_server(&[]);
    story.connect(1, 2, false);
    assert_eq!(closed(&story.says(1, told(&[4])), ConnectionId(1)), Some(ByeCode::Protocol));
    story.connect(2, 2, false);
    assert_eq!(asked(&story.after(MINUTE)), [2]);
    assert_eq!(closed(&story.says(2, told(&[4])), ConnectionId(2)), None);
    assert_eq!(closed(&story.says(2, told(&[4])), ConnectionId(2)), Some(ByeCode::Protocol), "a second answer");
}

#[test]
fn told_peers_are_judged_and_dialled_a_few_at_a_time() {
    let mut story = Story::without_server(&[]);
    story.connect(1, 2, false);
    story.after(MINUTE);
    // Odd ones are where nobody may be dialled, 200 is this client and 2 is connected.
    let outputs = story.says(1, told(&[200, 2, 1, 3, 4, 6, 8, 10, 12, 14]));
    let refused = outputs.iter().filter(|o| matches!(o, Output::Event(Event::AddressRefused { .. }))).count();
    assert_eq!((dialled(&outputs), refused), ([4, 6, 8, 10].map(peer).to_vec(), 2));
    let outputs = story.tell(Input::DialFailed { peer: peer(4), answered: false });
    assert_eq!(dialled(&outputs), [peer(12)]);
    for failed in [6, 8, 10, 12, 14] {
        story.tell(Input::DialFailed { peer: peer(failed), answered: false });
    }
    // What nobody answered at is forgotten; peers that the server named would be tried again.
    assert_eq!(dialled(&story.after(2 * MINUTE)), []);
}

#[test]
fn what_peers_tell_does_not_change_what_the_server_said() {
    let mut story = Story::without_server(&[4]);
    story.connect(1, 2, false);
    story.after(MINUTE);
    let elsewhere = PeerCoordinates { peer: peer(4), address: "10.9.9.9:9999".parse().unwrap() };
    story.says(1, PeerMessage::Peers(ToldPeers { peers: vec![elsewhere] }));
    let outputs = story.after(2 * MINUTE);
    let at: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Dial { peer, .. } => Some(peer.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(at, coordinates(&[4]));
}

#[test]
fn a_told_peer_must_show_a_ticket() {
    let mut story = Story::without_server(&[]);
    story.connect(1, 2, false);
    story.after(MINUTE);
    assert_eq!(dialled(&story.says(1, told(&[4, 6]))).len(), 2);
    let mut hello = Hello {
        version: PROTOCOL_VERSION,
        content: story.world.manifest.content(),
        part_len_bytes: 16_384,
        ticket: story.world.ticket(peer(4), 0),
        has: numbers(&(0..PARTS).collect::<Vec<_>>()),
        uploads: true,
    };
    let connected = |connection, index, hello: &Hello| Input::PeerConnected {
        connection: ConnectionId(connection),
        peer: peer(index),
        outgoing: true,
        hello: hello.clone(),
    };
    let outputs = story.tell(connected(2, 4, &hello));
    assert_eq!(closed(&outputs, ConnectionId(2)), Some(ByeCode::Ticket));
    hello.ticket = story.world.ticket(peer(6), 9);
    let outputs = story.tell(connected(3, 6, &hello));
    assert_eq!(closed(&outputs, ConnectionId(3)), None);
    assert!(outputs.iter().any(|output| matches!(output, Output::RequestPart { .. })), "{outputs:?}");
}

fn asked_whose(outputs: &[Output]) -> Vec<SocketAddr> {
    let asked = |output: &Output| match output {
        Output::Identify { address } => Some(*address),
        _ => None,
    };
    outputs.iter().filter_map(asked).collect()
}

/// How often peers were looked up, and this one was announced.
fn looked_up(outputs: &[Output]) -> (usize, usize) {
    let count = |wanted: fn(&Output) -> bool| outputs.iter().filter(|output| wanted(output)).count();
    (count(|output| matches!(output, Output::LookUp)), count(|output| matches!(output, Output::Announce)))
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 1, last], 7_000))
}

#[test]
fn peers_are_looked_up_once_a_minute_while_the_server_is_away() {
    for (lookups, expected) in [(false, 0), (true, 1)] {
        let mut story = Story::with(|config| config.lookups = lookups);
        story.welcome(&[]);
        assert_eq!(looked_up(&story.after(MINUTE)), (0, 0), "the server introduces peers");
        story.tell(Input::ControlClosed);
        assert_eq!(looked_up(&story.after(Duration::from_secs(4))), (0, 0), "it may be back in a moment");
        assert_eq!(looked_up(&story.after(Duration::from_secs(1))), (expected, 0), "it has nothing to announce");
        assert_eq!(looked_up(&story.after(Duration::from_secs(59))), (0, 0));
        assert_eq!(looked_up(&story.after(Duration::from_secs(1))), (expected, 0));
        story.welcome(&[]);
        assert_eq!(looked_up(&story.after(MINUTE)), (0, 0), "the server is back");
    }
}

#[test]
fn who_holds_parts_is_announced_and_who_serves_nobody_is_not() {
    for (upload, port, held, expected) in [
        (true, Some(7), 1, 1),
        (false, Some(7), 1, 0),
        (true, None, 1, 0),
        (true, Some(7), 0, 0),
        (true, Some(7), PARTS, 1),
    ] {
        let mut story = Story::with(|config| (config.lookups, config.upload, config.quic_port) = (true, upload, port));
        let held = (0..held).map(PartNumber::new);
        let (world, config) = (&story.world, story.config.clone());
        story.session = Session::new(config, story.now, NOW, world.manifest.clone(), peer(200), held.clone());
        story.welcome(&[]);
        story.tell(Input::ControlClosed);
        // A whole client looks for nobody, and is looked for.
        let looks = usize::from(held.len() < PARTS as usize);
        let what = format!("upload {upload}, port {port:?}, {} parts", held.len());
        assert_eq!(looked_up(&story.after(Duration::from_secs(5))), (looks, expected), "{what}");
        assert_eq!(looked_up(&story.after(14 * MINUTE)).1, 0, "{what}");
        assert_eq!(looked_up(&story.after(MINUTE)).1, expected, "{what}");
    }
}

#[test]
fn found_addresses_are_judged_and_asked_a_few_at_a_time() {
    let mut story = Story::with(|config| config.lookups = true);
    story.welcome(&[]);
    story.tell(Input::AddressesFound { addresses: vec![address(1)] });
    assert_eq!(asked_whose(&story.after(Duration::from_secs(1))), [], "the server is there");
    story.tell(Input::ControlClosed);
    story.after(Duration::from_secs(5));
    let private = "192.168.0.1:7000".parse().unwrap();
    let addresses = (1..=6).map(address).chain([private, address(1)]).collect();
    let first = asked_whose(&story.tell(Input::AddressesFound { addresses }));
    assert_eq!(first.len(), 4);
    // Who answers is dialled; where nobody does, nobody is.
    assert_eq!(dialled(&story.tell(Input::Identified { address: first[0], peer: Some(peer(4)) })), [peer(4)]);
    assert_eq!(dialled(&story.tell(Input::Identified { address: first[1], peer: None })), []);
    assert_eq!(dialled(&story.tell(Input::Identified { address: first[2], peer: Some(peer(200)) })), [], "oneself");
    assert_eq!(dialled(&story.tell(Input::Identified { address: private, peer: Some(peer(6)) })), [], "not asked");
    let all = (1..=6).map(address).collect();
    let second = asked_whose(&story.tell(Input::AddressesFound { addresses: all }));
    assert_eq!(second, [], "each once");
    let known = story.tell(Input::AddressesFound { addresses: vec![coordinates(&[4])[0].address] });
    assert_eq!(asked_whose(&known).len(), 1, "another address");
    story.now += 10 * MINUTE;
    let again = story.tell(Input::AddressesFound { addresses: vec![first[1]] });
    assert_eq!(asked_whose(&again), [first[1]], "after ten minutes there may be somebody");
}

#[test]
fn an_address_that_never_answers_gives_its_place_to_another() {
    let mut story = Story::with(|config| config.lookups = true);
    story.welcome(&[]);
    story.tell(Input::ControlClosed);
    story.after(Duration::from_secs(5));
    let first = asked_whose(&story.tell(Input::AddressesFound { addresses: (1..=6).map(address).collect() }));
    assert_eq!(asked_whose(&story.after(Duration::from_secs(14))), []);
    assert_eq!(asked_whose(&story.after(Duration::from_secs(1))).len(), 2);
    let late = story.tell(Input::Identified { address: first[0], peer: Some(peer(4)) });
    assert_eq!(dialled(&late), [], "it was given up");
}

#[test]
fn the_last_runs_anchors_are_dialled_without_the_server() {
    let mut story = Story::new();
    story.welcome(&[2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
    story.connect(1, 20, true);
    story.connect(2, 30, false);
    let anchors = story.session.anchors().expect("it was welcomed");
    assert_eq!(anchors.peers[0], coordinates(&[20])[0], "who was reached comes first");
    assert_eq!(anchors.peers.len(), 8);

    let mut again = Story::new();
    assert_eq!(again.session.anchors(), None);
    let outputs = again.tell(Input::Resume(anchors.clone()));
    assert_eq!(dialled(&outputs).len(), 8);
    let why = outputs.iter().find_map(|output| match output {
        Output::Event(Event::Mode { reasons, .. }) => reasons.first().cloned(),
        _ => None,
    });
    assert_eq!(why.as_deref(), Some("the server cannot be reached: continuing with peers from before: 8"));
    again.connect(1, 20, true);
    assert_eq!(again.session.anchors().expect("a member").ticket, anchors.ticket);
}

#[test]
fn anchors_with_a_ticket_that_does_not_hold_are_of_no_use() {
    for (lie, index) in [(0, 200), (9, 201)] {
        let mut story = Story::new();
        let ticket = story.world.ticket(peer(index), lie);
        let outputs = story.tell(Input::Resume(Anchors { ticket, peers: coordinates(&[2]) }));
        assert_eq!(dialled(&outputs), [], "lie {lie} of {index}");
    }
    let mut story = Story::new();
    story.now += 2 * DAY;
    let ticket = story.world.ticket(peer(200), 9);
    let outputs = story.tell(Input::Resume(Anchors { ticket, peers: coordinates(&[2]) }));
    assert_eq!(dialled(&outputs), [], "expired beyond the grace time");
}
