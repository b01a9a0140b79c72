//! Single promises, each with the shortest story that shows it.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod networks;
mod opinions;
mod quality;
mod uploads;

use ed25519_dalek::SigningKey;
use hybrid_coordinator::{ClientId, Config, Coordinator, EgressPolicy, Input, Output, PartVerdict, TicketIssuer};
use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_qos::DirectClients;
use hybrid_units::{Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{ByeCode, Join, Report, ServerMessage, Want, Welcome};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, SessionToken, Source, UploadContract};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const PARTS: u32 = 40;

struct Story {
    coordinator: Coordinator,
    now: Instant,
}

/// Who joins, and how.
struct Newcomer {
    index: u8,
    content: ContentId,
    has: std::ops::Range<u32>,
    upload: bool,
    rate_limit: Option<u64>,
    address: Ipv4Addr,
}

impl Newcomer {
    fn new(index: u8) -> Self {
        Self {
            index,
            content: content(1),
            has: 0..0,
            upload: true,
            rate_limit: None,
            address: Ipv4Addr::new(10, 0, 0, index),
        }
    }
}

fn content(index: u8) -> ContentId {
    ContentId::from_bytes([index; 32])
}

fn peer(index: u8) -> PeerId {
    PeerId::from_bytes([index; 32])
}

fn session(client: u64) -> SessionToken {
    SessionToken::from_bytes([u8::try_from(client).unwrap(); 16])
}

fn ranges(parts: impl IntoIterator<Item = u32>) -> PartRanges {
    PartRanges::from_ascending(parts.into_iter().map(PartNumber::new))
}

impl Story {
    /// A server with contents 1 and 2, of which it serves so many clients directly.
    fn new(direct: u32) -> Self {
        Self::with(direct, |_| {})
    }

    fn with(direct: u32, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.qos.direct_clients = DirectClients::Fixed(direct);
        config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
        // Most stories are of clients that say what they hold and serve nobody.
        config.vouchers_needed = 0;
        change(&mut config);
        let issuer = TicketIssuer { key: SigningKey::from_bytes(&[4; 32]), network_secret: [1; 32] };
        let now = Instant::from_micros(1);
        let coordinator = Coordinator::new(config, issuer, now, UnixTime::from_secs(1_790_000_000)).unwrap();
        let mut story = Self { coordinator, now };
        for index in [1, 2] {
            let part_len = PartLen::new(65_536).unwrap();
            story.tell(Input::ContentAdded { content: content(index), part_count: PARTS, part_len, class: None });
        }
        story
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.coordinator.handle_input(self.now, input);
        let mut outputs = Vec::new();
        loop {
            match self.coordinator.poll_output() {
                Output::Timeout(_) => break,
                output => outputs.push(output),
            }
        }
        self.coordinator.check_invariants();
        outputs
    }

    fn join(&mut self, client: u64, newcomer: &Newcomer) -> Vec<Output> {
        let join = Join {
            version: PROTOCOL_VERSION,
            program: "test".to_owned(),
            content: newcomer.content,
            peer: peer(newcomer.index),
            quic_port: Some(7_000),
            has: ranges(newcomer.has.clone()),
            want: Want::Whole,
            contract: UploadContract { upload: newcomer.upload, rate_limit_bytes_per_second: newcomer.rate_limit },
        };
        let observed = IpAddr::V4(newcomer.address);
        self.tell(Input::Join { client: ClientId(client), observed, session: session(client), join })
    }

    fn report(&mut self, client: u64, gained: std::ops::Range<u32>) -> Vec<Output> {
        let report = Report { gained: ranges(gained), peers: 10, ..Report::default() };
        self.tell(Input::Report { client: ClientId(client), report })
    }

    /// Says of each push that it was written, until no more come; gives them all.
    fn write_pushes(&mut self, outputs: &[Output]) -> Vec<(ClientId, ContentId, PartNumber)> {
        let mut all = Vec::new();
        let mut fresh = pushes(outputs);
        while let Some((client, content, number)) = fresh.pop() {
            all.push((client, content, number));
            let outputs = self.tell(Input::PushDone { client, number, sent: true });
            fresh.extend(pushes(&outputs));
        }
        all
    }

    fn fetch(&mut self, client: u64, number: u32) -> PartVerdict {
        self.coordinator.authorize_part(self.now, Some(session(client)), content(1), PartNumber::new(number))
    }
}

fn pushes(outputs: &[Output]) -> Vec<(ClientId, ContentId, PartNumber)> {
    let push = |output: &Output| match output {
        Output::Push { client, content, number } => Some((*client, *content, *number)),
        _ => None,
    };
    outputs.iter().filter_map(push).collect()
}

fn welcome(outputs: &[Output]) -> &Welcome {
    let welcome = outputs.iter().find_map(|output| match output {
        Output::Send { message: ServerMessage::Welcome(welcome), .. } => Some(welcome),
        _ => None,
    });
    welcome.unwrap_or_else(|| panic!("no welcome in {outputs:?}"))
}

#[test]
fn a_newcomer_to_the_swarm_gets_peers_and_a_part_that_nobody_has() {
    let mut story = Story::with(1, |config| config.top_ups_in_flight_max = 0);
    assert_eq!(welcome(&story.join(1, &Newcomer::new(1))).mode, Mode::ClientServer);
    story.report(1, 0..39);
    let outputs = story.join(2, &Newcomer::new(2));
    let welcome = welcome(&outputs);
    assert_eq!(welcome.mode, Mode::PeerToPeer);
    assert_eq!(welcome.peers.iter().map(|coordinates| coordinates.peer).collect::<Vec<_>>(), [peer(1)]);
    assert_eq!(welcome.pushes, 1);
    assert!(welcome.reasons.iter().any(|reason| reason.contains("direct clients 1 of 1")), "{:?}", welcome.reasons);
    assert_eq!(pushes(&outputs), [(ClientId(2), content(1), PartNumber::new(39))], "the one part without a holder");
}

#[test]
fn starters_beyond_the_first_are_granted() {
    let mut story = Story::with(1, |config| (config.starter_parts, config.top_ups_in_flight_max) = (3, 0));
    story.join(1, &Newcomer::new(1));
    story.report(1, 0..37);
    let outputs = story.join(2, &Newcomer::new(2));
    let pushed = pushes(&outputs);
    let granted: Vec<u32> = welcome(&outputs).grants.iter().map(PartNumber::as_u32).collect();
    assert_eq!((welcome(&outputs).pushes, pushed.len(), granted.len()), (1, 1, 2));
    let mut all: Vec<u32> = granted.iter().copied().chain([pushed[0].2.as_u32()]).collect();
    all.sort_unstable();
    assert_eq!(all, [37, 38, 39], "the three parts without a holder");
    for number in granted {
        assert_eq!(story.fetch(2, number), PartVerdict::Serve(Source::ServerGrant));
    }
}

#[test]
fn each_part_goes_out_once_before_any_goes_out_twice() {
    let mut story = Story::with(1, |config| config.top_ups_in_flight_max = 0);
    story.join(1, &Newcomer::new(1));
    let mut sent: Vec<u32> = Vec::new();
    for index in 2..6 {
        let outputs = story.join(u64::from(index), &Newcomer::new(index));
        sent.extend(story.write_pushes(&outputs).iter().map(|(_, _, number)| number.as_u32()));
    }
    // Who came after that was still given a part to begin with.
    assert_eq!(sent.len(), PARTS as usize + 3);
    sent.truncate(PARTS as usize);
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), PARTS as usize, "one of the first {PARTS} went out twice");
}

#[test]
fn a_fast_server_goes_on_until_nearly_all_have_all() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer::new(1));
    story.report(1, 0..PARTS);
    let outputs = story.join(2, &Newcomer::new(2));
    let mut got: BTreeSet<u32> = BTreeSet::new();
    let mut fresh = pushes(&outputs);
    while !fresh.is_empty() {
        assert!(fresh.len() <= 2, "more at one time than {}", Config::default().top_ups_in_flight_max);
        let (client, _, number) = fresh.remove(0);
        assert_eq!(client, ClientId(2));
        assert!(got.insert(number.as_u32()), "part {number} went out twice");
        fresh.extend(pushes(&story.tell(Input::PushDone { client, number, sent: true })));
        fresh.extend(pushes(&story.report(2, number.as_u32()..number.as_u32() + 1)));
    }
    // One more where the part was written and the report of it still on its way.
    assert!((24..=26).contains(&got.len()), "{} parts: the last ones it has asked its peers for", got.len());
}

#[test]
fn a_part_with_a_single_holder_gets_a_second_one_first() {
    let mut story = Story::with(1, |config| config.starter_parts = 0);
    story.join(1, &Newcomer { has: 0..PARTS, ..Newcomer::new(1) });
    story.join(2, &Newcomer { has: 0..PARTS - 1, ..Newcomer::new(2) });
    story.join(3, &Newcomer { has: 0..PARTS - 1, ..Newcomer::new(3) });
    // Although this one lacks so little that it would get no other part.
    let outputs = story.join(4, &Newcomer { has: 0..PARTS - 2, ..Newcomer::new(4) });
    let single = PartNumber::new(PARTS - 1);
    assert!(pushes(&outputs).iter().all(|(_, _, number)| *number == single), "{:?}", pushes(&outputs));
    assert!(!pushes(&outputs).is_empty());
}

#[test]
fn newcomers_wait_for_their_first_part() {
    let mut story = Story::with(1, |config| config.pushes_in_flight_max = 2);
    story.join(1, &Newcomer::new(1));
    story.report(1, 0..1);
    // The first one takes both places.
    let first = pushes(&story.join(2, &Newcomer::new(2)));
    assert_eq!(first.iter().map(|push| push.0).collect::<Vec<_>>(), [ClientId(2), ClientId(2)]);
    for index in 3..6 {
        let outputs = story.join(u64::from(index), &Newcomer::new(index));
        assert_eq!((welcome(&outputs).pushes, pushes(&outputs).len()), (0, 0), "both places are taken");
    }
    // The fourth gets one from a peer meanwhile; the fifth leaves.
    story.report(4, 0..1);
    story.tell(Input::Left { client: ClientId(5) });
    story.join(6, &Newcomer::new(6));
    let mut given = Vec::new();
    for (client, _, number) in first {
        given.extend(pushes(&story.tell(Input::PushDone { client, number, sent: true })));
    }
    let given: BTreeSet<ClientId> = given.iter().map(|push| push.0).collect();
    assert_eq!(given, BTreeSet::from([ClientId(3), ClientId(6)]));
}

/// Clients 1 (served directly) and 2 to 4 come at once and hold so many of 100 parts, and perhaps a fifth comes a minute later.
/// Gives who is sent a part as soon as the server's link is free.
fn helped(held: [u32; 4], later: Option<u32>) -> Option<ClientId> {
    let mut story = Story::with(2, |config| {
        (config.starter_parts, config.pushes_in_flight_max, config.top_ups_in_flight_max) = (0, 2, 2);
    });
    let part_len = PartLen::new(65_536).unwrap();
    story.tell(Input::ContentRemoved { content: content(1) });
    story.tell(Input::ContentAdded { content: content(1), part_count: 100, part_len, class: None });
    story.join(1, &Newcomer { has: 0..held[0], ..Newcomer::new(1) });
    // Two pushes of another content keep the link busy.
    story.join(20, &Newcomer { content: content(2), ..Newcomer::new(20) });
    let pushed = pushes(&story.join(21, &Newcomer { content: content(2), ..Newcomer::new(21) }));
    let mut come = |index: u8, held| {
        assert_eq!(pushes(&story.join(u64::from(index), &Newcomer { has: 0..held, ..Newcomer::new(index) })), []);
    };
    (2u8..).zip(held.into_iter().skip(1)).for_each(|(index, held)| come(index, held));
    (5..9).for_each(|index| come(index, 100));
    assert_eq!(pushed.len(), 2);
    // They are given up.
    story.now += Duration::from_secs(60);
    let outputs = match later {
        Some(held) => story.join(9, &Newcomer { has: 0..held, ..Newcomer::new(9) }),
        None => story.tell(Input::Timeout),
    };
    pushes(&outputs).iter().find(|push| push.1 == content(1)).map(|push| push.0)
}

#[test]
fn of_a_crowd_the_last_is_helped_and_of_others_the_first() {
    assert_eq!(helped([90, 50, 30, 60], None), Some(ClientId(3)), "it lacks most");
    assert_eq!(helped([20, 50, 30, 60], None), None, "the direct client lacks more: the link is its own");
    assert_eq!(helped([90, 50, 30, 60], Some(40)), Some(ClientId(4)), "not together: it is done soonest");
}

#[test]
fn a_direct_client_that_is_overtaken_joins_the_swarm() {
    let moved = |outputs: &[Output]| {
        outputs.iter().any(|output| {
            matches!(output, Output::Send { client: ClientId(1), message: ServerMessage::Directive(directive) }
                if matches!(directive.mode, Some((Mode::PeerToPeer, _))))
        })
    };
    for (later, expected) in [([30, 30, 30], true), ([30, 5, 5], false)] {
        let mut story = Story::with(1, |config| config.starter_parts = 0);
        story.join(1, &Newcomer::new(1));
        for (index, held) in (2u8..).zip(later) {
            story.join(u64::from(index), &Newcomer { has: 0..held, ..Newcomer::new(index) });
        }
        let fast =
            Report { gained: ranges(0..4), peers: 3, download_bytes_per_second: 100_000_000, ..Report::default() };
        let mut any = false;
        for step in 0..4u32 {
            story.now += Duration::from_millis(300);
            let report = Report { gained: ranges(step..step + 1), ..fast.clone() };
            any |= moved(&story.tell(Input::Report { client: ClientId(1), report }));
        }
        assert_eq!(any, expected, "with later ones that hold {later:?}");
    }
}

#[test]
fn a_thrifty_server_sends_one_copy() {
    let mut story = Story::with(4, |config| config.egress_policy = EgressPolicy::Thrifty);
    assert_eq!(welcome(&story.join(1, &Newcomer::new(1))).mode, Mode::ClientServer);
    let outputs = story.join(2, &Newcomer::new(2));
    assert_eq!(welcome(&outputs).mode, Mode::PeerToPeer, "although four could be served directly");
    assert!(
        welcome(&outputs).reasons.iter().any(|reason| reason.contains("direct clients 1 of 0")),
        "{:?}",
        welcome(&outputs).reasons
    );
    let directed = outputs.iter().any(|output| {
        matches!(output, Output::Send { client: ClientId(1), message: ServerMessage::Directive(directive) }
            if matches!(directive.mode, Some((Mode::PeerToPeer, _))) && directive.peers.len() == 1)
    });
    assert!(directed, "the first one joins the swarm: {outputs:?}");
    let mut sent: Vec<u32> = story.write_pushes(&outputs).iter().map(|(_, _, number)| number.as_u32()).collect();
    let all = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!((sent.len(), all), (PARTS as usize, PARTS as usize), "each part once");
}

#[test]
fn who_serves_nobody_is_no_holder() {
    let mut story = Story::new(2);
    story.join(1, &Newcomer::new(1));
    // Complete, but it does not upload: nobody can get its parts.
    story.join(2, &Newcomer { upload: false, has: 0..PARTS, ..Newcomer::new(2) });
    let outputs = story.join(3, &Newcomer::new(3));
    assert_eq!(welcome(&outputs).mode, Mode::PeerToPeer);
    assert_eq!(welcome(&outputs).peers.len(), 1);
    assert_eq!(story.coordinator.stats(content(1)).unwrap().parts_without_holder, PARTS);
    assert_eq!(story.write_pushes(&outputs).len(), PARTS as usize, "the swarm lacks every part");
}

#[test]
fn who_never_reports_is_sent_no_more() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer::new(1));
    let outputs = story.join(2, &Newcomer::new(2));
    assert_eq!(story.write_pushes(&outputs).len(), PARTS as usize);
    story.now += Duration::from_secs(60);
    let outputs = story.tell(Input::Timeout);
    assert_eq!(story.write_pushes(&outputs), [], "to whom else, and why to that one again");
    // A sign of life changes that.
    assert_eq!(pushes(&story.report(2, 0..1)).len(), 2);
}

#[test]
fn readers_that_stop_give_their_places_back() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer::new(1));
    // Each holds two pushes and reads neither.
    let first = pushes(&story.join(2, &Newcomer::new(2)));
    let second = pushes(&story.join(3, &Newcomer::new(3)));
    assert_eq!(first.len() + second.len(), 4, "all places are taken");
    story.now += Duration::from_secs(60);
    story.tell(Input::Timeout);
    let outputs = story.join(4, &Newcomer::new(4));
    assert_eq!(story.write_pushes(&outputs).len(), PARTS as usize, "the new one is served");
}

#[test]
fn contents_take_turns() {
    let mut story = Story::new(2);
    let of = |index, which| Newcomer { content: content(which), ..Newcomer::new(index) };
    story.join(1, &of(1, 1));
    story.join(2, &of(2, 2));
    let mut waiting = pushes(&story.join(3, &of(3, 1)));
    waiting.extend(pushes(&story.join(4, &of(4, 2))));
    for _ in 0..10 {
        let (client, _, number) = waiting.remove(0);
        waiting.extend(pushes(&story.tell(Input::PushDone { client, number, sent: true })));
    }
    for which in [1, 2] {
        assert!(
            waiting.iter().any(|(_, content_id, _)| *content_id == content(which)),
            "content {which} waits: {waiting:?}"
        );
    }
}

#[test]
fn nobody_is_thrown_out_by_who_knows_its_id() {
    let mut story = Story::new(5);
    story.join(1, &Newcomer::new(1));
    let outputs = story.join(2, &Newcomer { address: Ipv4Addr::new(10, 9, 9, 9), ..Newcomer::new(1) });
    let closed = |outputs: &[Output], id: u64| {
        outputs.iter().any(|output| matches!(output, Output::Close { client, bye } if client.0 == id && bye.code == ByeCode::Duplicate))
    };
    assert!(closed(&outputs, 2) && !closed(&outputs, 1), "{outputs:?}");
    // From its own address it takes its place again.
    let outputs = story.join(3, &Newcomer::new(1));
    assert!(closed(&outputs, 1), "{outputs:?}");
    assert_eq!(welcome(&outputs).session, session(3));
}

#[test]
fn help_waits_for_what_the_whole_swarm_waits_for() {
    let mut story = Story::with(1, |config| (config.pushes_in_flight_max, config.top_ups_in_flight_max) = (2, 0));
    story.join(1, &Newcomer { has: 0..PARTS - 2, ..Newcomer::new(1) });
    let pushed = pushes(&story.join(2, &Newcomer::new(2)));
    assert_eq!(pushed.len(), 2);
    let waits = |verdict| matches!(verdict, PartVerdict::Wait { .. });
    assert!(waits(story.fetch(2, 0)), "served though it has not said that it reaches nobody");
    story.report(2, 0..0);
    let PartVerdict::Wait { retry_after, code, .. } = story.fetch(2, 0) else { panic!("served beside the pushes") };
    assert_eq!((retry_after, code), (Duration::from_millis(500), "E_RESCUE_BUDGET"));
    for (client, _, number) in pushed {
        story.tell(Input::PushDone { client, number, sent: true });
    }
    assert_eq!(story.fetch(2, 0), PartVerdict::Serve(Source::ServerRescue));
}

#[test]
fn help_is_counted_and_a_failed_fetch_may_be_tried_again() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer { has: 0..20, ..Newcomer::new(1) });
    let outputs = story.join(2, &Newcomer::new(2));
    story.write_pushes(&outputs);
    // Parts of the first 20 are held by a peer: one at a time.
    assert_eq!(story.fetch(2, 0), PartVerdict::Serve(Source::ServerRescue));
    let PartVerdict::Wait { retry_after, code, .. } = story.fetch(2, 1) else { panic!("served at once") };
    assert_eq!((retry_after, code), (Config::default().rescue_interval, "E_RESCUE_BUDGET"));
    // A part that nobody has is another matter, and stays so while the only copy is on its way to the one who asks.
    story.now += Duration::from_secs(60);
    story.tell(Input::Timeout);
    assert_eq!(story.fetch(2, 1), PartVerdict::Serve(Source::ServerRescue));
    assert_eq!(story.fetch(2, 30), PartVerdict::Serve(Source::ServerRescue));
    assert_eq!(story.fetch(2, 30), PartVerdict::Serve(Source::ServerRescue));
    assert_eq!(story.fetch(9, 30), PartVerdict::UnknownSession);
}

#[test]
fn a_fast_uplink_gets_more_peers_and_a_slow_one_fewer() {
    let mut story = Story::new(0);
    let limited = |index: u8, rate: Option<u64>| {
        let mut newcomer = Newcomer::new(index);
        newcomer.rate_limit = rate;
        newcomer
    };
    for index in 1..=80 {
        story.join(u64::from(index), &limited(index, Some(500_000)));
    }
    let mut peers_of = |index: u8, rate| {
        let outputs = story.join(u64::from(index), &limited(index, Some(rate)));
        let welcome = welcome(&outputs);
        (welcome.peers.len(), welcome.limits.connections_max)
    };
    assert_eq!(peers_of(101, 1_000), (12, 24));
    assert_eq!(peers_of(102, 1_000_000), (29, 58), "twice the mean, which it has raised itself");
    assert_eq!(peers_of(103, 500_000), (19, 38));
}

#[test]
fn a_swarm_that_nobody_joins_reports_less_often() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer::new(1));
    let interval = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Send { message: ServerMessage::Directive(directive), .. } => directive.report_interval_ms,
            _ => None,
        })
    };
    story.now += Duration::from_secs(10);
    assert_eq!(interval(&story.report(1, 0..1)), None, "as often as at first");
    story.now += Duration::from_secs(54);
    assert_eq!(interval(&story.report(1, 1..2)), Some(1_000), "a sixty-fourth of the time since the last join");
    story.now += Duration::from_secs(3_600);
    assert_eq!(interval(&story.report(1, 2..3)), Some(10_000), "no less often than that");
}

#[test]
fn who_asks_over_plain_http_is_served_until_the_thresholds_are_passed() {
    let mut story = Story::new(1);
    let ask = |story: &mut Story| story.coordinator.authorize_part(story.now, None, content(1), PartNumber::new(0));
    assert_eq!(ask(&mut story), PartVerdict::Serve(Source::ServerDirect));
    story.join(1, &Newcomer::new(1));
    assert!(matches!(ask(&mut story), PartVerdict::Wait { code: "E_JOIN_FIRST", .. }));
}
