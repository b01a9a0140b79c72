//! Single promises, each with the shortest story that shows it.

use crate::world::{NOW, PARTS, World, coordinates, numbers, peer, world};
use hybrid_manifest::{PartNumber, VerifiedPart, VerifyError};
use hybrid_session::{Config, ConnectionId, Event, Input, Output, PartFailure, PartSource, Session};
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{ByeCode, ClientMessage, ServerMessage, Want, Welcome};
use hybrid_wire::peer::{Have, Hello, PartReply, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerLimits, SessionToken, Source};

struct Story {
    world: World,
    session: Session,
    now: Instant,
}

impl Story {
    fn new(inline: bool) -> Self {
        Self::with(inline, |_| {})
    }

    fn with(inline: bool, change: impl FnOnce(&mut Config)) -> Self {
        let world = world(inline);
        let mut config = Config::default();
        config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
        change(&mut config);
        let now = Instant::from_micros(1);
        let session = Session::new(config, now, NOW, world.manifest.clone(), peer(200), []);
        Self { world, session, now }
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

    fn wake_in(&mut self) -> Duration {
        match self.session.poll_output() {
            Output::Timeout(at) => at.since(self.now),
            output => panic!("not drained: {output:?}"),
        }
    }

    fn welcome(&mut self, mode: Mode, peers: &[u8]) -> Vec<Output> {
        self.welcome_at(mode, peers, NOW.as_secs())
    }

    fn welcome_at(&mut self, mode: Mode, peers: &[u8], server_time_secs: u64) -> Vec<Output> {
        self.tell(Input::ControlOpened);
        let welcome = Welcome {
            mode,
            reasons: vec!["because".to_owned()],
            session: SessionToken::from_bytes([2; 16]),
            ticket: self.world.ticket(peer(200), 9),
            server_time_secs,
            report_interval_ms: 1_000,
            peers: coordinates(peers),
            grants: PartRanges::empty(),
            pushes: 0,
            limits: PeerLimits { connections_max: 20, uploads_max: 1 },
        };
        self.tell(Input::ControlMessage(ServerMessage::Welcome(welcome)))
    }

    fn connect(&mut self, connection: u64, index: u8) -> Vec<Output> {
        self.connect_holding(connection, index, &(0..PARTS).collect::<Vec<_>>())
    }

    fn connect_holding(&mut self, connection: u64, index: u8, parts: &[u32]) -> Vec<Output> {
        self.connect_with(connection, index, parts, true)
    }

    fn connect_with(&mut self, connection: u64, index: u8, parts: &[u32], uploads: bool) -> Vec<Output> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.world.manifest.content(),
            part_len_bytes: 16_384,
            ticket: self.world.ticket(peer(index), 9),
            has: numbers(parts),
            uploads,
        };
        self.tell(Input::PeerConnected {
            connection: ConnectionId(connection),
            peer: peer(index),
            outgoing: false,
            hello,
        })
    }

    fn part(&mut self, source: PartSource, number: PartNumber, spoil: u8) -> Vec<Output> {
        let bytes = self.world.part(number.as_u32(), spoil);
        self.tell(Input::PartReceived { source, number, bytes })
    }

    /// A peer's part with its queue, a time after it was asked that is the same for all; gives what is asked for next.
    fn part_with_queue(&mut self, (id, number): (ConnectionId, PartNumber), queue: u8) -> (ConnectionId, PartNumber) {
        self.now += Duration::from_millis(20);
        let source = PartSource::Peer(id);
        let bytes = self.world.part(number.as_u32(), 0);
        self.tell(Input::PartBegun { connection: id, number, queue });
        let outputs = self.tell(Input::PartReceived { source, number, bytes });
        let next = requests(&outputs)[0];
        self.tell(Input::PartVerified { source, part: verified(outputs) });
        next
    }

    /// Brings a part from a source into the store.
    fn store(&mut self, source: PartSource, number: PartNumber) -> Vec<Output> {
        let verify = self.part(source, number, 0);
        let part = verified(verify);
        self.tell(Input::PartVerified { source, part });
        self.tell(Input::Stored { number })
    }
}

fn verified(outputs: Vec<Output>) -> VerifiedPart {
    let verify = outputs.into_iter().find_map(|output| match output {
        Output::Verify { expected, bytes, .. } => expected.verify(bytes).ok(),
        _ => None,
    });
    verify.expect("a part to verify")
}

fn requests(outputs: &[Output]) -> Vec<(ConnectionId, PartNumber)> {
    let request = |output: &Output| match output {
        Output::RequestPart { connection, number, .. } => Some((*connection, *number)),
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

fn fetches(outputs: &[Output]) -> Vec<PartNumber> {
    let fetch = |output: &Output| match output {
        Output::FetchPart { number, .. } => Some(*number),
        _ => None,
    };
    outputs.iter().filter_map(fetch).collect()
}

fn dials(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Dial { .. })).count()
}

#[test]
fn a_peer_that_proved_nothing_gets_one_request_until_the_verdict() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let asked = requests(&story.connect(1, 2));
    assert_eq!(asked.len(), 1);
    let source = PartSource::Peer(ConnectionId(1));
    let outputs = story.part(source, asked[0].1, 0);
    assert!(requests(&outputs).is_empty(), "asked again before the verdict: {outputs:?}");
    let outputs = story.tell(Input::PartVerified { source, part: verified(outputs) });
    assert_eq!(requests(&outputs).len(), 2);
}

#[test]
fn a_stranger_that_begins_a_part_and_does_not_end_it_is_asked_for_one() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let (connection, number) = requests(&story.connect(1, 2))[0];
    story.tell(Input::PartBegun { connection, number, queue: 0 });
    story.now += Duration::from_secs(20);
    let outputs = story.tell(Input::Timeout);
    assert!(outputs.iter().any(|output| matches!(output, Output::CancelRequest { .. })), "{outputs:?}");
    for _ in 0..10 {
        story.now += Duration::from_secs(1);
        let outputs = story.tell(Input::PeerMessage { connection, message: PeerMessage::Idle });
        assert_eq!(requests(&outputs), [], "it says that it has nothing to do");
    }
    story.tell(Input::PeerClosed { connection, code: ByeCode::Done });
    let closed = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::ClosePeer { .. }));
    assert!(closed(&story.connect(2, 2)), "it comes back as a stranger");
    story.now += Config::default().redial_after;
    let (connection, number) = requests(&story.connect(3, 2))[0];
    story.tell(Input::PartBegun { connection, number, queue: 0 });
    story.now += Config::default().patience + Duration::from_secs(1);
    let outputs = story.tell(Input::Timeout);
    let given_up = outputs.iter().any(|output| matches!(output, Output::CancelRequest { .. }));
    assert!(!given_up, "it may only be slow, and gets more time: {outputs:?}");
}

#[test]
fn a_promise_that_is_not_kept_is_a_strike() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let mut asked = requests(&story.connect(1, 2));
    for strike in 1..=Config::default().strikes {
        let (connection, number) = asked[0];
        let source = PartSource::Peer(connection);
        let outputs = story.tell(Input::PartFailed { source, number, failure: PartFailure::Gone });
        let closed = outputs.iter().any(|output| matches!(output, Output::ClosePeer { .. }));
        assert_eq!(closed, strike == Config::default().strikes, "after {strike}: {outputs:?}");
        story.now += Duration::from_secs(1);
        asked = requests(&story.tell(Input::Timeout));
    }
}

#[test]
fn the_queue_that_comes_with_a_part_counts() {
    let (first, second) = (ConnectionId(1), ConnectionId(2));
    for (queue, expected) in [(0, first), (9, second)] {
        let mut story = Story::with(true, |config| config.peer_requests = 1);
        story.welcome(Mode::PeerToPeer, &[]);
        let asked = requests(&story.connect(1, 2))[0];
        story.connect(2, 4);
        let asked = story.part_with_queue(asked, queue);
        assert_eq!(asked.0, second, "the first has not proved itself");
        let asked = story.part_with_queue(asked, 0);
        assert_eq!(asked.0, first, "the second has not proved itself");
        assert_eq!(story.part_with_queue(asked, queue).0, expected, "with {queue} waiting at the first");
    }
}

#[test]
fn a_polluter_that_hangs_up_is_banned_all_the_same() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let (connection, number) = requests(&story.connect(1, 2))[0];
    let source = PartSource::Peer(connection);
    let outputs = story.part(source, number, 4);
    let error = outputs.into_iter().find_map(|output| match output {
        Output::Verify { expected, bytes, .. } => expected.verify(bytes).err(),
        _ => None,
    });
    story.tell(Input::PeerClosed { connection, code: ByeCode::Done });
    let outputs = story.tell(Input::PartRejected { source, number, error: error.expect("spoiled bytes") });
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Event(Event::PeerBanned { peer: banned, .. }) if *banned == peer(2)))
    );
    let told = outputs.iter().any(|output| match output {
        Output::SendControl(ClientMessage::Report(report)) => report.bad == [(peer(2), 1)],
        _ => false,
    });
    assert!(told, "the server was not told: {outputs:?}");
    let outputs = story.connect(2, 2);
    assert!(outputs.iter().any(|o| matches!(o, Output::ClosePeer { .. })), "it came back: {outputs:?}");
}

#[test]
fn unasked_parts_of_strangers_count_for_nothing() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let (_, asked) = requests(&story.connect(1, 2))[0];
    let other = PartNumber::new((asked.as_u32() + 1) % PARTS);
    let outputs = story.part(PartSource::Peer(ConnectionId(1)), other, 0);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Verify { .. })), "{outputs:?}");
    assert_eq!(story.session.progress().wasted.as_u64(), 16_384);
}

#[test]
fn when_all_peers_are_gone_the_session_wakes_to_dial_them_again() {
    let mut story = Story::new(true);
    let outputs = story.welcome(Mode::PeerToPeer, &[2, 4]);
    assert_eq!(dials(&outputs), 2);
    story.tell(Input::ControlClosed);
    story.tell(Input::DialFailed { peer: peer(2), answered: false });
    story.tell(Input::DialFailed { peer: peer(4), answered: false });
    let wake_in = story.wake_in();
    assert!(wake_in <= Config::default().redial_after, "sleeps for {wake_in:?}");
    story.now += Config::default().redial_after;
    assert_eq!(dials(&story.tell(Input::Timeout)), 2);
}

#[test]
fn a_direct_client_whose_server_died_turns_to_the_peers_it_knows() {
    let mut story = Story::new(true);
    assert_eq!(dials(&story.welcome(Mode::ClientServer, &[2])), 0, "no peers are needed");
    assert_eq!(dials(&story.tell(Input::ControlClosed)), 1);
    assert!(!requests(&story.connect(1, 2)).is_empty());
}

#[test]
fn a_wrong_clock_is_set_by_the_server() {
    let mut story = Story::new(true);
    let outputs = story.welcome_at(Mode::PeerToPeer, &[], NOW.as_secs() + 7_000);
    assert!(outputs.iter().any(|output| matches!(output, Output::Event(Event::ClockDiffers { .. }))), "{outputs:?}");
    // A ticket of an hour that began at NOW has expired by the server's clock.
    let outputs = story.connect(1, 2);
    assert!(outputs.iter().any(|output| matches!(output, Output::ClosePeer { .. })), "{outputs:?}");
}

#[test]
fn parts_without_ids_wait_in_a_bounded_room() {
    let mut story = Story::with(false, |config| {
        config.parked_bytes_max = 3 * 16_384;
        config.server_requests = 10;
    });
    let asked = fetches(&story.welcome(Mode::ClientServer, &[]));
    assert_eq!(asked.len(), 3, "as many as could wait for their ids");
    for number in asked {
        let outputs = story.part(PartSource::Server, number, 0);
        assert!(fetches(&outputs).is_empty(), "asked for what could not be kept: {outputs:?}");
    }
    assert_eq!(story.session.progress().wasted.as_u64(), 0);
    let range = hybrid_manifest::PartRange::new(PartNumber::new(0), PARTS).unwrap();
    let proofs = story.world.ids.prove(range).unwrap().encode().into();
    let outputs = story.tell(Input::HashesReceived { proofs });
    assert_eq!(outputs.iter().filter(|output| matches!(output, Output::Verify { .. })).count(), 3);
    assert_eq!(fetches(&outputs).len(), 9, "the ids are known: all the rest may come");
}

#[test]
fn a_lost_part_is_fetched_again_and_counted_once() {
    let mut story = Story::new(true);
    let asked = fetches(&story.welcome(Mode::ClientServer, &[]));
    story.store(PartSource::Server, asked[0]);
    let length = u64::from(story.world.manifest.layout().part(asked[0]).unwrap().len());
    assert_eq!(story.session.progress().from(Source::ServerDirect).as_u64(), length);
    story.tell(Input::StoreLost { number: asked[0] });
    assert_eq!(story.session.progress().held().as_u64(), 0);
    assert_eq!(story.session.progress().wasted.as_u64(), length);
}

#[test]
fn a_refusal_of_the_server_is_kept_to() {
    let mut story = Story::new(true);
    let asked = fetches(&story.welcome(Mode::ClientServer, &[]));
    let failure = PartFailure::Refused { retry_after: Duration::from_secs(7) };
    for number in asked {
        let outputs = story.tell(Input::PartFailed { source: PartSource::Server, number, failure: failure.clone() });
        assert!(fetches(&outputs).is_empty(), "asked again at once: {outputs:?}");
    }
    story.now += Duration::from_millis(6_900);
    assert!(fetches(&story.tell(Input::Timeout)).is_empty());
    story.now += Duration::from_millis(200);
    assert_eq!(fetches(&story.tell(Input::Timeout)).len(), 4);
}

#[test]
fn help_is_asked_for_only_after_a_while_without_progress() {
    let mut story = Story::new(true);
    assert!(fetches(&story.welcome(Mode::PeerToPeer, &[])).is_empty());
    let patience = Config::default().rescue_after;
    assert!(story.wake_in() <= patience);
    story.now += patience;
    assert_eq!(fetches(&story.tell(Input::Timeout)).len(), Config::default().rescue_requests);
}

#[test]
fn what_the_server_is_slow_to_help_with_is_asked_of_a_peer_that_holds_it() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.now += Config::default().rescue_after;
    let helped = fetches(&story.tell(Input::Timeout));
    let number = helped[0];
    assert_eq!(requests(&story.connect_holding(1, 2, &[number.as_u32()])), [(ConnectionId(1), number)]);
    let outputs = story.part(PartSource::Peer(ConnectionId(1)), number, 0);
    let given_up =
        |output: &Output| matches!(output, Output::CancelFetch { number: cancelled } if *cancelled == number);
    assert!(outputs.iter().any(given_up), "the server still sends it: {outputs:?}");
}

#[test]
fn who_reaches_no_peer_asks_the_server_all_the_time() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[2]);
    story.tell(Input::DialFailed { peer: peer(2), answered: false });
    story.now += Config::default().rescue_after;
    let mut asked = fetches(&story.tell(Input::Timeout));
    for _ in 0..4 {
        let outputs = story.part(PartSource::Server, asked.remove(0), 0);
        asked.extend(fetches(&outputs));
        assert!(!asked.is_empty(), "it waits though there is nobody to wait for");
        story.tell(Input::PartVerified { source: PartSource::Server, part: verified(outputs) });
    }
}

#[test]
fn an_address_that_is_refused_is_told_once() {
    let mut story = Story::new(true);
    let told = |outputs: &[Output]| {
        outputs.iter().filter(|output| matches!(output, Output::Event(Event::AddressRefused { .. }))).count()
    };
    // Peers of odd numbers live on loopback, which is not admitted here.
    assert_eq!(told(&story.welcome(Mode::PeerToPeer, &[1, 2, 3])), 2);
    assert_eq!(told(&story.welcome(Mode::PeerToPeer, &[1, 2, 3, 5])), 1);
}

#[test]
fn all_peers_of_the_list_are_dialled_at_once() {
    // Some of them never answer, and must not keep the others waiting.
    let mut story = Story::new(true);
    let outputs = story.welcome(Mode::PeerToPeer, &[2, 4, 6, 8, 10, 12]);
    assert_eq!(dials(&outputs), 6);
    assert!(story.wake_in() > Duration::from_millis(100), "woken after {:?} with nothing to do", story.wake_in());
}

#[test]
fn more_than_so_many_parts_are_asked_only_of_those_who_have_nothing_to_do() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    let said = |index: u8, message| Input::PeerMessage { connection: ConnectionId(index.into()), message };
    let busy = || PeerMessage::Have(Have { parts: PartRanges::default(), queue: 9 });
    let mut asked = 0;
    for index in 0..10 {
        asked += requests(&story.connect(index.into(), 2 * index)).len();
        asked += requests(&story.tell(said(index, busy()))).len();
    }
    assert_eq!(asked, 10);
    assert_eq!(requests(&story.connect(10, 20)).len(), 1, "it has nothing to do");
    story.connect_holding(11, 22, &[]);
    story.tell(said(11, busy()));
    let have = PartRanges::from_ascending((0..PARTS).map(PartNumber::new));
    assert_eq!(requests(&story.tell(said(11, PeerMessage::Have(Have { parts: have, queue: 9 })))), [], "it has");
    assert_eq!(requests(&story.tell(said(11, PeerMessage::Idle))).len(), 1);
}

#[test]
fn those_who_connected_together_are_served_by_level() {
    // The second one asks first and has more; it came together with the first, or ten seconds later.
    for (later, first) in [(Duration::from_millis(10), 1), (Duration::from_secs(10), 2)] {
        let mut story = Story::new(true);
        story.welcome(Mode::ClientServer, &[]);
        for number in 0..6 {
            story.store(PartSource::Server, PartNumber::new(number));
        }
        // What came a while ago is not pushed.
        story.now += Duration::from_secs(1);
        story.connect_holding(1, 2, &[]);
        story.now += later;
        story.connect_holding(2, 4, &[]);
        story.now += Duration::from_secs(1);
        let have = PartRanges::from_ascending((6..11).map(PartNumber::new));
        let message = PeerMessage::Have(Have { parts: have, queue: 0 });
        story.tell(Input::PeerMessage { connection: ConnectionId(2), message });
        let mut served = Vec::new();
        let ask = |connection: u64, number| Input::PartRequested {
            connection: ConnectionId(connection),
            number: PartNumber::new(number),
        };
        // Others fill the slots meanwhile.
        for number in 0..4 {
            story.tell(ask(2, number));
        }
        story.tell(ask(2, 4));
        story.tell(ask(1, 5));
        for number in 0..4 {
            let (connection, number) = (ConnectionId(2), PartNumber::new(number));
            let outputs = story.tell(Input::PartServed { connection, number, sent_bytes: 16_384 });
            served.extend(outputs.iter().filter_map(|output| match output {
                Output::ServePart { connection, .. } => Some(connection.0),
                _ => None,
            }));
        }
        assert_eq!(served.first(), Some(&first), "{later:?} between them: {served:?}");
    }
}

#[test]
fn a_part_is_stolen_for_an_idle_source_unless_it_has_begun() {
    for begun in [false, true] {
        let mut story = Story::new(true);
        story.welcome(Mode::PeerToPeer, &[]);
        // The one part that there is, at a peer where it does not come.
        let asked = requests(&story.connect_holding(1, 2, &[5]));
        assert_eq!(asked, [(ConnectionId(1), PartNumber::new(5))]);
        if begun {
            story.tell(Input::PartBegun { connection: ConnectionId(1), number: PartNumber::new(5), queue: 0 });
        }
        story.now += Duration::from_millis(300);
        let outputs = story.connect_holding(2, 4, &[5]);
        let cancelled = outputs.iter().any(|output| matches!(output, Output::CancelRequest { .. }));
        assert_eq!((requests(&outputs).len(), cancelled), if begun { (0, false) } else { (1, true) });
    }
}

#[test]
fn parts_are_announced_in_bunches_while_requests_wait() {
    let mut story = Story::new(true);
    story.welcome(Mode::ClientServer, &[]);
    let part = PartNumber::new;
    let announced = |outputs: &[Output]| {
        let have = |output: &Output| match output {
            Output::SendPeer { message: PeerMessage::Have(have), .. } => have.parts.iter().count(),
            _ => 0,
        };
        outputs.iter().map(have).sum::<usize>()
    };
    // Who does not pass on what it gets is pushed nothing.
    story.connect_with(1, 2, &[], false);
    for number in 0..3 {
        assert_eq!(announced(&story.store(PartSource::Push, part(number))), 1, "nothing waits: at once");
    }
    for number in 0..3 {
        story.tell(Input::PartRequested { connection: ConnectionId(1), number: part(number) });
    }
    for number in 3..5 {
        assert_eq!(announced(&story.store(PartSource::Push, part(number))), 0, "three wait");
    }
    story.now += Duration::from_millis(149);
    assert_eq!(announced(&story.tell(Input::Timeout)), 0);
    story.now += Duration::from_millis(1);
    assert_eq!(announced(&story.tell(Input::Timeout)), 2);
}

fn pushes(outputs: &[Output]) -> Vec<(u64, u32)> {
    let push = |output: &Output| match output {
        Output::PushPart { connection, number, .. } => Some((connection.0, number.as_u32())),
        _ => None,
    };
    outputs.iter().filter_map(push).collect()
}

fn rejection(outputs: Vec<Output>) -> VerifyError {
    let verify = outputs.into_iter().find_map(|output| match output {
        Output::Verify { expected, bytes, .. } => expected.verify(bytes).err(),
        _ => None,
    });
    verify.expect("spoiled bytes to verify")
}

fn told_of(outputs: &[Output], connection: u64, number: u32) -> bool {
    outputs.iter().any(|output| match output {
        Output::SendPeer { connection: ConnectionId(to), message: PeerMessage::Have(have) } => {
            *to == connection && have.parts.iter().any(|part| part.as_u32() == number)
        }
        _ => false,
    })
}

#[test]
fn a_part_that_nobody_holds_is_pushed_to_who_lacks_most() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.connect_holding(1, 2, &[0, 1]);
    story.connect_holding(2, 4, &[0]);
    let outputs = story.store(PartSource::Push, PartNumber::new(5));
    assert_eq!(pushes(&outputs), [(2, 5)], "one slot");
    assert!(told_of(&outputs, 1, 5) && !told_of(&outputs, 2, 5), "who is sent a part is not told of it");
    let pushed = |taken| Input::PartPushed {
        connection: ConnectionId(2),
        number: PartNumber::new(5),
        sent_bytes: 16_384,
        taken,
    };
    let outputs = story.tell(pushed(true));
    assert_eq!(pushes(&outputs), [], "a neighbour of two holds it: it is not rare");
}

#[test]
fn a_refused_push_is_announced_and_the_next_goes_elsewhere() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.connect_holding(1, 2, &[0, 1]);
    story.connect_holding(2, 4, &[0]);
    story.store(PartSource::Push, PartNumber::new(5));
    let (connection, number) = (ConnectionId(2), PartNumber::new(5));
    let refused = || Input::PartPushed { connection, number, sent_bytes: 100, taken: false };
    assert!(told_of(&story.tell(refused()), 2, 5));
    for _ in 0..4 {
        story.tell(refused());
    }
    let outputs = story.store(PartSource::Push, PartNumber::new(6));
    assert_eq!(pushes(&outputs), [(1, 6)], "who refuses again and again gets no more");
}

#[test]
fn nothing_is_pushed_while_somebody_asks_or_when_it_is_old() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.connect_holding(1, 2, &[]);
    let outputs = story.store(PartSource::Push, PartNumber::new(5));
    assert_eq!(pushes(&outputs), [(1, 5)]);
    // The slot is taken; what comes meanwhile waits, and a request comes first.
    story.store(PartSource::Push, PartNumber::new(6));
    let (connection, number) = (ConnectionId(1), PartNumber::new(6));
    story.tell(Input::PartRequested { connection, number });
    let number = PartNumber::new(5);
    let outputs = story.tell(Input::PartPushed { connection, number, sent_bytes: 16_384, taken: true });
    assert_eq!(pushes(&outputs), []);
    assert!(outputs.iter().any(|output| matches!(output, Output::ServePart { .. })));

    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.store(PartSource::Push, PartNumber::new(5));
    story.now += Duration::from_secs(1);
    assert_eq!(pushes(&story.connect_holding(1, 2, &[])), [], "who came since was told by the hello");
}

#[test]
fn an_offer_is_taken_once_and_by_the_rules_of_requests() {
    let offer = |connection, number| Input::PartOffered {
        connection: ConnectionId(connection),
        number: PartNumber::new(number),
    };
    let taken = |outputs: &[Output]| {
        let answers = outputs.iter().filter_map(|output| match output {
            Output::TakePush { .. } => Some(true),
            Output::RefusePush { .. } => Some(false),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    story.connect_holding(1, 2, &[]);
    story.connect_holding(2, 4, &[]);
    story.connect_holding(3, 6, &[]);
    assert_eq!(taken(&story.tell(offer(1, PARTS))), [false], "there is no such part");
    assert_eq!(taken(&story.tell(offer(1, 5))), [true]);
    assert_eq!(taken(&story.tell(offer(1, 6))), [false], "it has proved nothing: one part at a time");
    assert_eq!(taken(&story.tell(offer(2, 5))), [false], "it is on its way");
    let outputs = story.part(PartSource::Peer(ConnectionId(1)), PartNumber::new(5), 4);
    let error = rejection(outputs);
    let source = PartSource::Peer(ConnectionId(1));
    let outputs = story.tell(Input::PartRejected { source, number: PartNumber::new(5), error });
    let banned = |output: &Output| matches!(output, Output::Event(Event::PeerBanned { .. }));
    assert!(outputs.iter().any(banned), "a pushed part is judged like any other");
    let asked = [(ConnectionId(2), PartNumber::new(5))];
    assert_eq!(requests(&outputs), asked, "who offered it holds it, although it was not wanted then");
    assert_eq!(taken(&story.tell(offer(3, 5))), [true], "sooner than to wait for an answer");
    story.store(PartSource::Peer(ConnectionId(3)), PartNumber::new(5));
    assert_eq!(taken(&story.tell(offer(2, 5))), [false], "it is here");
}

#[test]
fn an_offer_beats_a_request_that_waits() {
    let mut story = Story::new(true);
    story.welcome(Mode::PeerToPeer, &[]);
    assert_eq!(requests(&story.connect_holding(1, 2, &[5])).len(), 1);
    story.connect_holding(2, 4, &[]);
    let outputs = story.tell(Input::PartOffered { connection: ConnectionId(2), number: PartNumber::new(5) });
    assert!(outputs.iter().any(|output| matches!(output, Output::TakePush { .. })));
    let cancelled = |output: &Output| matches!(output, Output::CancelRequest { connection: ConnectionId(1), .. });
    assert!(outputs.iter().any(cancelled));
}

#[test]
fn a_report_tells_of_the_links_and_of_the_player() {
    let mut story = Story::new(true);
    story.welcome(Mode::ClientServer, &[]);
    let second = Duration::from_secs(1);
    let mut report_after = |inputs: Vec<Input>| {
        inputs.into_iter().for_each(|input| drop(story.tell(input)));
        story.now += second;
        let outputs = story.tell(Input::Timeout);
        let reports = outputs.into_iter().filter_map(|output| match output {
            Output::SendControl(ClientMessage::Report(report)) => Some(report),
            _ => None,
        });
        let report = reports.last().expect("a report each second");
        (report.rtt_ms, report.loss_permille, report.buffer_ms, report.stalls)
    };
    assert_eq!(report_after(vec![]), (None, None, None, 0), "nothing is known");
    let links = |sent_packets, lost_packets| Input::Links {
        round_trip: Some(Duration::from_micros(23_900)),
        sent_packets,
        lost_packets,
    };
    assert_eq!(report_after(vec![links(60, 3)]), (Some(23), None, None, 0), "too few packets for a share");
    assert_eq!(report_after(vec![links(60, 0)]), (Some(23), Some(25), None, 0), "3 of 120");
    assert_eq!(report_after(vec![links(100, 300)]), (Some(23), Some(1_000), None, 0), "never more than all");
    let playing = |secs, ran_dry| Input::Playing { buffer: Duration::from_secs(secs), ran_dry };
    assert_eq!(report_after(vec![playing(4, false), playing(0, true)]), (Some(23), None, Some(0), 1));
    assert_eq!(report_after(vec![playing(7, false)]), (Some(23), None, Some(7_000), 0));
}

#[test]
fn a_lost_part_is_refused_to_those_who_wait_for_it() {
    let mut story = Story::new(true);
    story.welcome(Mode::ClientServer, &[]);
    let (first, lost) = (PartNumber::new(0), PartNumber::new(1));
    story.store(PartSource::Server, first);
    story.store(PartSource::Server, lost);
    let connection = ConnectionId(1);
    story.connect_holding(1, 2, &[]);
    // The only upload that is allowed is under way, and the second request waits for it.
    story.tell(Input::PartRequested { connection, number: first });
    story.tell(Input::PartRequested { connection, number: lost });
    let outputs = story.tell(Input::StoreLost { number: lost });
    let refused = |output: &Output| matches!(output, Output::RefuseRequest { number, reply: PartReply::Gone, .. } if *number == lost);
    assert!(outputs.iter().any(refused), "{outputs:?}");
}

#[test]
fn who_plays_from_beyond_the_end_gets_parts_in_any_order() {
    for beyond in [PARTS, PARTS + 1, 2 * PARTS + 1, u32::MAX] {
        let mut asked = Story::with(true, |config| config.want = Want::PlayFrom(beyond));
        asked.welcome(Mode::PeerToPeer, &[]);
        assert_eq!(requests(&asked.connect(1, 2)).len(), 1, "wants to play from {beyond}");
        let mut moved = Story::new(true);
        moved.welcome(Mode::PeerToPeer, &[]);
        moved.tell(Input::Seek { number: PartNumber::new(beyond) });
        assert_eq!(requests(&moved.connect(1, 2)).len(), 1, "moved to {beyond}");
    }
}

/// The code with which a connection was ended, if it was.
fn ended(outputs: &[Output]) -> Option<ByeCode> {
    outputs.iter().find_map(|output| match output {
        Output::ClosePeer { bye, .. } => Some(bye.code),
        _ => None,
    })
}

#[test]
fn a_flood_ends_the_connection_and_a_stream_does_not() {
    let connection = ConnectionId(1);
    let old_news = || Have { parts: PartRanges::from_ascending((0..PARTS).map(PartNumber::new)), queue: 0 };
    let floods: [(&str, &dyn Fn(u32) -> Input); 4] = [
        ("calls", &|_| Input::PeerMessage { connection, message: PeerMessage::Idle }),
        ("old news", &|_| Input::PeerMessage { connection, message: PeerMessage::Have(old_news()) }),
        ("requests", &|_| Input::PartRequested { connection, number: PartNumber::new(3) }),
        ("requests taken back", &|index| match index % 2 {
            0 => Input::PartRequested { connection, number: PartNumber::new(0) },
            _ => Input::RequestCancelled { connection, number: PartNumber::new(0) },
        }),
    ];
    for (what, input) in floods {
        for (pause, closes) in [(0, true), (150, true), (1_100, false)] {
            let mut story = Story::new(true);
            story.welcome(Mode::PeerToPeer, &[]);
            assert_eq!(ended(&story.connect(1, 2)), None);
            let sent = (0..12_000).find(|index| {
                story.now += Duration::from_micros(pause);
                ended(&story.tell(input(*index))) == Some(ByeCode::TooFast)
            });
            assert_eq!(sent.is_some(), closes, "{what} every {pause} us: {sent:?}");
            if closes {
                assert!(sent >= Some(2_048), "{what} every {pause} us: {sent:?}");
                assert_eq!(ended(&story.connect(2, 2)), Some(ByeCode::Useless), "{what}: it rests");
            }
        }
    }
}

#[test]
fn a_neighbour_is_called_once_in_two_milliseconds() {
    let mut story = Story::new(true);
    story.welcome(Mode::ClientServer, &[]);
    for number in 0..6 {
        story.store(PartSource::Server, PartNumber::new(number));
    }
    let mut outputs = story.connect_holding(1, 2, &[]);
    // It wants nothing that it did not ask for.
    while let Some((connection, number)) = outputs.iter().find_map(|output| match output {
        Output::PushPart { connection, number, .. } => Some((*connection, *number)),
        _ => None,
    }) {
        outputs = story.tell(Input::PartPushed { connection, number, sent_bytes: 0, taken: false });
    }
    story.now += Duration::from_secs(1);
    let (connection, number) = (ConnectionId(1), PartNumber::new(0));
    let (mut begun, mut calls) = (0, Vec::new());
    // Each request that it takes back leaves us with nothing to do: four times in 2 ms.
    for _ in 0..100 {
        story.now += Duration::from_micros(500);
        let outputs = story.tell(Input::PartRequested { connection, number });
        begun += outputs.iter().filter(|output| matches!(output, Output::ServePart { .. })).count();
        let outputs = story.tell(Input::PartServed { connection, number, sent_bytes: 0 });
        let is_call = |output: &&Output| matches!(output, Output::SendPeer { message: PeerMessage::Idle, .. });
        calls.extend(outputs.iter().filter(is_call).map(|_| story.now));
    }
    assert_eq!(begun, 100);
    assert_eq!(calls.len(), 25, "{calls:?}");
    assert!(calls.windows(2).all(|pair| pair[1] == pair[0] + Duration::from_millis(2)), "{calls:?}");
}
