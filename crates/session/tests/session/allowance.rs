//! What a client sends at most, and who hears that it sends nothing.

use crate::world::{NOW, PARTS, World, numbers, peer, world};
use hybrid_manifest::PartNumber;
use hybrid_session::{Config, ConnectionId, Input, Output, PartSource, Session, UploadPause, UploadsOff};
use hybrid_units::{ByteCount, BytesPerSecond, Duration, Instant, Mode, Ratio};
use hybrid_wire::control::{ClientMessage, Directive, ServerMessage, Welcome};
use hybrid_wire::peer::{Hello, PartReply, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerLimits, SessionToken};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const PART: u64 = 16_384;
const LAST: u64 = 77;
const LIMITS: PeerLimits = PeerLimits { connections_max: 20, uploads_max: 16 };

/// A session with neighbours that hold nothing, and a driver that tells the truth.
struct Giver {
    world: World,
    session: Session,
    now: Instant,
    /// What is being sent.
    under_way: Vec<(ConnectionId, PartNumber)>,
    sent: u64,
    received: u64,
}

impl Giver {
    fn new(held: impl IntoIterator<Item = u32>, change: impl FnOnce(&mut Config)) -> Self {
        let world = world(true);
        let mut config = Config::default();
        change(&mut config);
        let now = Instant::from_micros(1);
        let held = held.into_iter().map(PartNumber::new);
        let session = Session::new(config, now, NOW, world.manifest.clone(), peer(200), held);
        Self { world, session, now, under_way: Vec::new(), sent: 0, received: 0 }
    }

    /// Welcome, with so many neighbours, numbered from 1 on.
    fn among(mut self, neighbours: u8) -> Self {
        self.welcome(LIMITS);
        (1..=neighbours).for_each(|index| drop(self.connect(index, true)));
        self
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.session.handle_input(self.now, input);
        let mut outputs = Vec::new();
        loop {
            match self.session.poll_output() {
                Output::Timeout(at) => {
                    assert!(at > self.now, "a timeout in the past would spin");
                    break;
                }
                output => outputs.push(output),
            }
        }
        self.session.check_invariants();
        for output in &outputs {
            if let Output::ServePart { connection, number, .. } | Output::PushPart { connection, number, .. } = output {
                self.under_way.push((*connection, *number));
            }
        }
        outputs
    }

    fn welcome(&mut self, limits: PeerLimits) -> Vec<Output> {
        let joined = self.tell(Input::ControlOpened);
        let welcome = Welcome {
            mode: Mode::PeerToPeer,
            reasons: Vec::new(),
            session: SessionToken::from_bytes([2; 16]),
            ticket: self.world.ticket(peer(200), 9),
            server_time_secs: NOW.as_secs(),
            report_interval_ms: 60_000,
            peers: Vec::new(),
            grants: PartRanges::empty(),
            pushes: 0,
            limits,
        };
        self.tell(Input::ControlMessage(ServerMessage::Welcome(welcome)));
        joined
    }

    fn limits(&mut self, uploads_max: u8) -> Vec<Output> {
        let limits = Some(PeerLimits { uploads_max, ..LIMITS });
        self.tell(Input::ControlMessage(ServerMessage::Directive(Directive { limits, ..Directive::default() })))
    }

    fn connect(&mut self, index: u8, uploads: bool) -> Vec<Output> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.world.manifest.content(),
            part_len_bytes: 16_384,
            ticket: self.world.ticket(peer(index), 9),
            has: PartRanges::empty(),
            uploads,
        };
        let connection = ConnectionId(index.into());
        self.tell(Input::PeerConnected { connection, peer: peer(index), outgoing: false, hello })
    }

    fn ask(&mut self, index: u8, number: u32) -> Vec<Output> {
        self.tell(Input::PartRequested { connection: ConnectionId(index.into()), number: PartNumber::new(number) })
    }

    fn length(&self, number: PartNumber) -> u64 {
        self.world.manifest.layout().part(number).unwrap().len().into()
    }

    /// The upload that began first ends, of which so many bytes were sent.
    fn end(&mut self, sent_bytes: u64) -> Vec<Output> {
        let (connection, number) = self.under_way.remove(0);
        let sent_bytes = sent_bytes.min(self.length(number));
        self.sent += sent_bytes;
        self.tell(Input::PartServed { connection, number, sent_bytes })
    }

    /// The server sends a part.
    fn get(&mut self, number: u32) -> Vec<Output> {
        let (source, bytes) = (PartSource::Push, self.world.part(number, 0));
        let number = PartNumber::new(number);
        let outputs = self.tell(Input::PartReceived { source, number, bytes });
        let part = outputs.into_iter().find_map(|output| match output {
            Output::Verify { expected, bytes, .. } => expected.verify(bytes).ok(),
            _ => None,
        });
        let Some(part) = part else { return Vec::new() };
        self.received += self.length(number);
        self.tell(Input::PartVerified { source, part });
        self.tell(Input::Stored { number })
    }

    /// What went out or will, if all that is under way is sent to its end.
    fn at_most(&self) -> u64 {
        self.sent + self.under_way.iter().map(|(_, number)| self.length(*number)).sum::<u64>()
    }

    fn off(&self) -> Option<UploadsOff> {
        self.session.progress().uploads_off
    }

    /// Each neighbour asks for each part, one after the other, and what begins is sent to its end.
    fn drain(&mut self, neighbours: u8) {
        for number in 0..PARTS {
            for index in 1..=neighbours {
                self.ask(index, number);
                self.end_all();
            }
        }
    }

    fn end_all(&mut self) {
        while !self.under_way.is_empty() {
            self.now += Duration::from_millis(700);
            self.end(u64::MAX);
        }
    }
}

fn busy(outputs: &[Output]) -> Vec<u32> {
    let refusals = outputs.iter().filter_map(|output| match output {
        Output::RefuseRequest { reply: PartReply::Busy { retry_in_ms, .. }, .. } => Some(*retry_in_ms),
        Output::RefuseRequest { reply, .. } => panic!("{reply:?}"),
        _ => None,
    });
    refusals.collect()
}

fn told_server(outputs: &[Output]) -> Vec<bool> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::SendControl(ClientMessage::Uploads(uploads)) => Some(uploads.on),
        Output::SendControl(ClientMessage::Join(join)) => Some(join.contract.upload),
        _ => None,
    });
    told.collect()
}

fn told_peers(outputs: &[Output]) -> Vec<(u64, String)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::SendPeer { connection, message: PeerMessage::Idle } => Some((connection.0, "idle".to_owned())),
        Output::SendPeer { connection, message: PeerMessage::Have(have) } => {
            let parts: Vec<u32> = have.parts.iter().map(PartNumber::as_u32).collect();
            Some((connection.0, format!("{parts:?}")))
        }
        _ => None,
    });
    told.collect()
}

fn ratio(text: &str) -> Option<Ratio> {
    Some(text.parse().unwrap())
}

#[test]
fn no_more_parts_than_fit_the_volume() {
    for (volume, sent) in [
        (0, 0),
        (1, 0),
        (PART - 1, 0),
        (PART, PART),
        (3 * PART - 1, 2 * PART),
        (3 * PART, 3 * PART),
        (5 * PART + LAST, 5 * PART),
        (u64::MAX, 22 * PART + 2 * LAST),
    ] {
        let cap = Some(ByteCount::new(volume));
        let mut giver = Giver::new(0..PARTS, |config| config.upload_volume_max = cap).among(2);
        let off = (volume < PART).then_some(UploadsOff::Volume);
        assert_eq!((giver.off(), giver.session.progress().upload_max), (off, cap), "of {volume} at first");
        giver.drain(2);
        assert_eq!(giver.sent, sent, "of {volume}");
        assert_eq!(giver.session.progress().sent.as_u64(), sent, "of {volume}");
        let off = (volume < u64::MAX).then_some(UploadsOff::Volume);
        assert_eq!(giver.off(), off, "of {volume} at last");
    }
}

#[test]
fn parts_under_way_are_charged_in_full_and_what_was_not_sent_is_given_back() {
    let volume = Some(ByteCount::new(2 * PART));
    let mut giver = Giver::new(0..PARTS, |config| config.upload_volume_max = volume).among(3);
    for index in 1..=2 {
        giver.ask(index, 0);
    }
    assert_eq!(giver.under_way.len(), 2);
    assert_eq!(giver.off(), Some(UploadsOff::Volume), "all of it is promised");
    assert_eq!(busy(&giver.ask(3, 0)), [30_000]);
    // One gave up in the middle, the other before anything was sent.
    assert_eq!(told_peers(&giver.end(PART - 1)), [], "a byte is left");
    assert_eq!(giver.off(), Some(UploadsOff::Volume));
    let idle = |index| (index, "idle".to_owned());
    assert_eq!(told_peers(&giver.end(0)), [idle(1), idle(2), idle(3)], "a part fits again");
    assert_eq!(giver.off(), None);
    giver.ask(3, 0);
    assert_eq!(giver.under_way.len(), 1);
    // The receiver hangs up, and only then the driver tells how much was sent.
    giver.tell(Input::PeerClosed { connection: ConnectionId(3), code: hybrid_wire::control::ByeCode::Done });
    assert_eq!(giver.off(), Some(UploadsOff::Volume), "it may have been sent");
    giver.end(1);
    assert_eq!((giver.sent, giver.off()), (PART, None), "a part fits again");
    giver.ask(1, 1);
    giver.end(u64::MAX);
    assert_eq!((giver.sent, giver.off()), (2 * PART, Some(UploadsOff::Volume)));
}

#[test]
fn a_push_is_charged_like_an_answer() {
    let volume = Some(ByteCount::new(PART));
    let mut giver = Giver::new([], |config| config.upload_volume_max = volume).among(2);
    giver.get(3);
    assert_eq!(giver.under_way.len(), 1, "a rare part is pushed");
    assert_eq!(giver.off(), Some(UploadsOff::Volume));
    let (connection, number) = giver.under_way[0];
    giver.tell(Input::PartPushed { connection, number, sent_bytes: 100, taken: false });
    giver.get(4);
    assert_eq!((giver.under_way.len(), giver.off()), (1, Some(UploadsOff::Volume)), "nothing fits any more");
}

#[test]
fn no_more_than_the_ratio_of_what_came_and_two_parts() {
    for (text, got, sent, spent) in [
        ("0.001", 5, 2 * PART, true),
        ("0.25", 10, 4 * PART, true),
        ("0.5", 4, 4 * PART, true),
        ("0.5", PARTS, 7 * PART, true),
        ("1", 3, 5 * PART, true),
        ("2", 5, 10 * PART, false),
        ("1000000", PARTS, 22 * PART + 2 * LAST, false),
    ] {
        let mut giver = Giver::new([], |config| config.upload_ratio_max = ratio(text)).among(0);
        (0..got).for_each(|number| drop(giver.get(number)));
        let allowed = ratio(text).unwrap().of(giver.received) + 2 * PART;
        assert_eq!(giver.session.progress().upload_max, Some(ByteCount::new(allowed)), "{text} of {got} parts");
        // Later than what came is fresh enough to be pushed.
        giver.now += Duration::from_secs(2);
        (1..=2).for_each(|index| drop(giver.connect(index, true)));
        giver.end_all();
        giver.drain(2);
        assert_eq!(giver.sent, sent, "{text} of {got} parts");
        assert_eq!(giver.off(), spent.then_some(UploadsOff::Ratio), "{text} of {got} parts");
    }
}

#[test]
fn what_was_here_at_the_start_counts_for_no_ratio() {
    let mut giver = Giver::new(0..PARTS, |config| config.upload_ratio_max = ratio("1000")).among(2);
    giver.drain(2);
    assert_eq!((giver.sent, giver.off()), (2 * PART, Some(UploadsOff::Ratio)));
}

#[test]
fn the_smaller_of_two_caps_holds() {
    for (volume, text, sent, off) in
        [(3 * PART, "100", 3 * PART, UploadsOff::Volume), (9 * PART, "0.5", 4 * PART, UploadsOff::Ratio)]
    {
        let mut giver = Giver::new([], |config| {
            (config.upload_volume_max, config.upload_ratio_max) = (Some(ByteCount::new(volume)), ratio(text));
        });
        giver.welcome(LIMITS);
        (0..4).for_each(|number| drop(giver.get(number)));
        (1..=2).for_each(|index| drop(giver.connect(index, true)));
        giver.end_all();
        giver.drain(2);
        assert_eq!((giver.sent, giver.off()), (sent, Some(off)), "{volume} and {text}");
    }
}

#[test]
fn who_had_used_up_its_ratio_serves_again_with_room_for_some_parts() {
    let mut giver = Giver::new([], |config| config.upload_ratio_max = ratio("1")).among(0);
    giver.get(0);
    giver.connect(1, true);
    giver.end_all();
    while giver.off().is_none() {
        assert_eq!(busy(&giver.ask(1, 0)), [0; 0]);
        giver.end_all();
    }
    assert_eq!(giver.sent, 3 * PART);
    assert_eq!(busy(&giver.ask(1, 0)), [1_000], "soon");
    for number in 1..8 {
        assert_eq!(told_peers(&giver.get(number)), [], "not for each part that comes");
        assert_eq!(giver.off(), Some(UploadsOff::Ratio));
    }
    let told = told_peers(&giver.get(8));
    assert_eq!(told, [(1, "idle".to_owned()), (1, "[1, 2, 3, 4, 5, 6, 7, 8]".to_owned())]);
    assert_eq!(giver.off(), None);
}

#[test]
fn who_has_all_serves_as_long_as_one_part_fits() {
    let mut giver = Giver::new([], |config| config.upload_ratio_max = ratio("0.1")).among(0);
    giver.get(0);
    giver.connect(1, true);
    giver.end_all();
    giver.ask(1, 0);
    giver.end_all();
    assert_eq!((giver.sent, giver.off()), (2 * PART, Some(UploadsOff::Ratio)));
    (1..PARTS - 1).for_each(|number| drop(giver.get(number)));
    assert_eq!(giver.off(), Some(UploadsOff::Ratio), "more may come, and there is room for one part only");
    giver.get(PARTS - 1);
    assert_eq!(giver.off(), None);
}

#[test]
fn a_pause_ends_what_waits_and_not_what_is_being_sent() {
    let mut giver = Giver::new(0..4, |_| {}).among(2);
    (0..4).for_each(|number| drop(giver.ask(1, number)));
    assert_eq!(giver.under_way.len(), 2, "as many as begin at once");
    let outputs = giver.tell(Input::PauseUploads(Some(UploadPause::Hours)));
    assert_eq!(busy(&outputs), [30_000; 2], "those who wait");
    assert_eq!(told_server(&outputs), [false]);
    assert_eq!(giver.off(), Some(UploadsOff::Hours));
    assert_eq!(told_peers(&giver.end(PART)), [], "it calls for no work");
    assert_eq!(busy(&giver.ask(2, 0)), [30_000]);
    assert_eq!(told_peers(&giver.get(7)), [], "and offers nothing");
    let accepted = giver.connect(3, true);
    assert!(accepted.iter().any(|output| matches!(output, Output::AcceptPeer { hello, .. } if !hello.uploads)));
    giver.end(PART);
    assert_eq!(giver.under_way, []);
    // And back, when nothing is fresh enough to be pushed.
    giver.now += Duration::from_secs(2);
    let outputs = giver.tell(Input::PauseUploads(None));
    let idle = |index| (index, "idle".to_owned());
    let news = |index| (index, "[7]".to_owned());
    assert_eq!(told_peers(&outputs), [idle(1), idle(2), idle(3), news(1), news(2), news(3)]);
    assert_eq!((giver.off(), told_server(&outputs)), (None, vec![]), "the server was told a moment ago");
    giver.ask(3, 7);
    assert_eq!(giver.under_way.len(), 1);
    giver.now += Duration::from_secs(10);
    assert_eq!(told_server(&giver.tell(Input::Timeout)), [true]);
    assert_eq!(told_server(&giver.tell(Input::Timeout)), [false; 0]);
}

#[test]
fn who_met_a_client_in_its_pause_hears_that_it_serves_before_it_has_anything_to_give() {
    let mut giver = Giver::new([], |_| {}).among(0);
    giver.tell(Input::PauseUploads(Some(UploadPause::Hours)));
    giver.connect(1, true);
    let outputs = giver.tell(Input::PauseUploads(None));
    assert_eq!(told_peers(&outputs), [(1, "idle".to_owned())]);
}

#[test]
fn the_server_hears_of_a_change_once_in_ten_seconds() {
    let mut giver = Giver::new(0..PARTS, |_| {}).among(1);
    let mut told = Vec::new();
    for second in 0..60 {
        let pause = (second % 2 == 0).then_some(UploadPause::Metered);
        told.extend(told_server(&giver.tell(Input::PauseUploads(pause))));
        giver.now += Duration::from_secs(1);
        told.extend(told_server(&giver.tell(Input::Timeout)));
    }
    assert!((1..=6).contains(&told.len()), "{told:?}");
    giver.now += Duration::from_secs(10);
    told.extend(told_server(&giver.tell(Input::Timeout)));
    assert_eq!(told.last(), Some(&true), "what holds in the end is told: {told:?}");
}

#[test]
fn a_join_says_what_holds_then_and_names_the_port_for_later() {
    let joined = |outputs: &[Output]| {
        let join = outputs.iter().find_map(|output| match output {
            Output::SendControl(ClientMessage::Join(join)) => Some(join),
            _ => None,
        });
        join.map(|join| (join.contract.upload, join.quic_port)).expect("a join")
    };
    let mut giver = Giver::new(0..PARTS, |config| config.quic_port = Some(7_000));
    giver.tell(Input::PauseUploads(Some(UploadPause::Metered)));
    assert_eq!(joined(&giver.welcome(LIMITS)), (false, Some(7_000)));
    assert_eq!(told_server(&giver.tell(Input::PauseUploads(None))), [true]);
    // With the server away there is nobody to tell; it hears with the next join.
    giver.tell(Input::ControlClosed);
    giver.now += Duration::from_secs(60);
    assert_eq!(told_server(&giver.tell(Input::PauseUploads(Some(UploadPause::Hours)))), [false; 0]);
    assert_eq!(joined(&giver.welcome(LIMITS)), (false, Some(7_000)));
    let mut nobody = Giver::new(0..PARTS, |config| (config.quic_port, config.upload) = (Some(7_000), false));
    assert_eq!(joined(&nobody.welcome(LIMITS)), (false, None));
    assert_eq!(told_server(&nobody.tell(Input::PauseUploads(None))), [false; 0]);
}

/// What a server gives never adds to what the user allows.
#[test]
fn the_servers_limits_only_lower_what_the_user_allows() {
    let most = PeerLimits { connections_max: u16::MAX, uploads_max: u8::MAX };
    let mut giver = Giver::new(0..PARTS, |config| config.upload = false);
    giver.welcome(most);
    giver.connect(1, true);
    let outputs = giver.ask(1, 0);
    assert!(outputs.iter().any(|o| matches!(o, Output::RefuseRequest { reply: PartReply::Gone, .. })), "{outputs:?}");
    assert_eq!(giver.off(), Some(UploadsOff::NoUpload));

    let rate = BytesPerSecond::new(100_000);
    let mut giver = Giver::new(0..PARTS, |config| config.upload_limit = Some(rate));
    giver.welcome(most);
    (1..=4).for_each(|index| drop(giver.connect(index, true)));
    let outputs: Vec<Output> = (1..=4).flat_map(|index| giver.ask(index, 0)).collect();
    let paces = outputs.iter().filter_map(|output| match output {
        Output::ServePart { pace, .. } => Some(*pace),
        _ => None,
    });
    assert_eq!(paces.collect::<Vec<_>>(), [Some(rate)], "one at a time, at the user's rate");

    let volume = Some(ByteCount::new(2 * PART));
    let mut giver = Giver::new(0..PARTS, |config| config.upload_volume_max = volume);
    giver.welcome(most);
    (1..=4).for_each(|index| drop(giver.connect(index, true)));
    giver.drain(4);
    assert_eq!(told_peers(&giver.limits(u8::MAX)), []);
    giver.welcome(most);
    giver.drain(4);
    assert_eq!((giver.sent, giver.off()), (2 * PART, Some(UploadsOff::Volume)));

    let mut giver = Giver::new(0..PARTS, |_| {}).among(1);
    giver.tell(Input::PauseUploads(Some(UploadPause::Metered)));
    assert_eq!(told_peers(&giver.limits(u8::MAX)), []);
    giver.drain(1);
    assert_eq!((giver.sent, giver.off()), (0, Some(UploadsOff::Metered)));

    // It may lower it to nothing, and give it back.
    giver.tell(Input::PauseUploads(None));
    giver.limits(0);
    assert_eq!((busy(&giver.ask(1, 0)), giver.off()), (vec![30_000], Some(UploadsOff::Server)));
    assert_eq!(told_peers(&giver.limits(1)), [(1, "idle".to_owned())]);
    giver.drain(1);
    assert!(giver.sent > 0);
}

#[test]
fn a_neighbour_that_did_not_serve_is_asked_when_it_says_that_it_has_nothing_to_do() {
    let mut giver = Giver::new([], |_| {}).among(0);
    let connection = ConnectionId(1);
    let have = hybrid_wire::peer::Have { parts: numbers(&[0, 1, 2]), queue: 0 };
    let mut asked = giver.connect(1, false);
    asked.extend(giver.tell(Input::PeerMessage { connection, message: PeerMessage::Have(have) }));
    let requests = |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::RequestPart { .. })).count();
    assert_eq!(requests(&asked), 0);
    assert_eq!(requests(&giver.tell(Input::PeerMessage { connection, message: PeerMessage::Idle })), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Ask { index: u8, number: u32 },
    Cancel { index: u8, number: u32 },
    End { sent_bytes: u64, pushed: bool },
    Close { index: u8 },
    Connect { index: u8, uploads: bool },
    Get { number: u32 },
    Lose { number: u32 },
    Pause(Option<bool>),
    Limits(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Step> {
    let index = || 1u8..5;
    prop_oneof![
        12 => (index(), 0..PARTS).prop_map(|(index, number)| Step::Ask { index, number }),
        1 => (index(), 0..PARTS).prop_map(|(index, number)| Step::Cancel { index, number }),
        6 => (prop_oneof![Just(u64::MAX), Just(0), 0..PART], any::<bool>())
            .prop_map(|(sent_bytes, pushed)| Step::End { sent_bytes, pushed }),
        1 => index().prop_map(|index| Step::Close { index }),
        2 => (index(), any::<bool>()).prop_map(|(index, uploads)| Step::Connect { index, uploads }),
        3 => (0..PARTS).prop_map(|number| Step::Get { number }),
        1 => (0..PARTS).prop_map(|number| Step::Lose { number }),
        1 => any::<Option<bool>>().prop_map(Step::Pause),
        1 => (0u8..5).prop_map(Step::Limits),
        4 => (0u16..4_000).prop_map(Step::Wait),
    ]
}

fn play(volume: Option<u64>, thousandths: Option<u32>, held: u32, steps: &[Step]) -> Result<(), TestCaseError> {
    let ratio = thousandths.and_then(Ratio::from_thousandths);
    let mut giver = Giver::new(0..held, |config| {
        (config.upload_volume_max, config.upload_ratio_max) = (volume.map(ByteCount::new), ratio);
    })
    .among(3);
    for step in steps {
        let id = |index: &u8| ConnectionId(u64::from(*index));
        match step {
            Step::Ask { index, number } => drop(giver.ask(*index, *number)),
            Step::Cancel { index, number } => {
                let number = PartNumber::new(*number);
                giver.tell(Input::RequestCancelled { connection: id(index), number });
            }
            Step::End { .. } if giver.under_way.is_empty() => {}
            Step::End { sent_bytes, pushed } => {
                if *pushed {
                    let (connection, number) = giver.under_way.remove(0);
                    let sent_bytes = (*sent_bytes).min(giver.length(number));
                    giver.sent += sent_bytes;
                    giver.tell(Input::PartPushed { connection, number, sent_bytes, taken: sent_bytes > 0 });
                } else {
                    giver.end(*sent_bytes);
                }
            }
            Step::Close { index } => {
                let code = hybrid_wire::control::ByeCode::Done;
                giver.tell(Input::PeerClosed { connection: id(index), code });
            }
            Step::Connect { index, uploads } => drop(giver.connect(*index, *uploads)),
            Step::Get { number } => drop(giver.get(*number)),
            Step::Lose { number } => drop(giver.tell(Input::StoreLost { number: PartNumber::new(*number) })),
            Step::Pause(pause) => {
                let pause = pause.map(|hours| if hours { UploadPause::Hours } else { UploadPause::Metered });
                giver.tell(Input::PauseUploads(pause));
            }
            Step::Limits(uploads_max) => drop(giver.limits(*uploads_max)),
            Step::Wait(millis) => {
                giver.now += Duration::from_millis(u64::from(*millis));
                giver.tell(Input::Timeout);
            }
        }
        let progress = giver.session.progress();
        prop_assert_eq!(progress.sent.as_u64(), giver.sent);
        prop_assert!(giver.at_most() <= volume.unwrap_or(u64::MAX), "{} of {:?}", giver.at_most(), volume);
        let ratio = ratio.map(|ratio| ratio.of(giver.received) + 2 * PART);
        prop_assert!(giver.at_most() <= ratio.unwrap_or(u64::MAX), "{} of {:?}", giver.at_most(), ratio);
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::Direct("proptest-regressions/allowance.txt");
    ProptestConfig { cases: 400, failure_persistence: Some(Box::new(failures)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens, what was sent and what is being sent together stay within the caps.
    #[test]
    fn no_more_is_sent_than_the_caps_allow(
        volume in prop::option::of(0..30 * PART),
        thousandths in prop::option::of(1u32..3_000),
        held in 0..=PARTS,
        steps in prop::collection::vec(steps(), 1..150),
    ) {
        play(volume, thousandths, held, &steps)?;
    }
}
