//! Verdicts as a log would show them, and the number that `Auto` finds.

use super::*;
use crate::{Decision, Load, Moves, Newcomer, Verdict};

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn fixed(clients: u32) -> Engine {
    let limit = Some(BytesPerSecond::new(1_000));
    let direct_clients = DirectClients::Fixed(clients);
    Engine::new(Config { direct_clients, egress_limit: limit, ..Config::default() }).unwrap()
}

fn load(direct_clients: u32, holders_reachable: u32) -> Load {
    Load { direct_clients, holders_reachable }
}

/// The verdict and its reasons on lines, as a log would show them.
fn shown(verdict: &Verdict) -> Vec<String> {
    let reasons = verdict.reasons.iter().map(ToString::to_string);
    [verdict.mode.to_string()].into_iter().chain(reasons).collect()
}

#[test]
fn the_count_is_exact_and_immediate() {
    for (allowed, direct, holders, expected) in [
        (2, 0, 5, Mode::ClientServer),
        (2, 1, 5, Mode::ClientServer),
        (2, 2, 5, Mode::PeerToPeer),
        (2, 3, 1, Mode::PeerToPeer),
        (2, 3, 0, Mode::ClientServer),
        (0, 0, 0, Mode::ClientServer),
        (0, 0, 1, Mode::PeerToPeer),
        (u32::MAX, u32::MAX - 1, 1, Mode::ClientServer),
    ] {
        let verdict = fixed(allowed).verdict(at(0), load(direct, holders));
        assert_eq!(verdict.mode, expected, "{verdict:?}");
    }
}

#[test]
fn without_a_holder_the_server_serves_and_says_so() {
    let verdict = fixed(2).verdict(at(0), load(2, 0));
    assert_eq!(
        shown(&verdict),
        [
            "client-server",
            "direct clients 2 of 2 allowed: passed",
            "reachable holders 0 of 1 needed: too few, the server serves"
        ]
    );
}

#[test]
fn egress_is_entered_after_a_while_and_left_after_a_longer_one() {
    let mut engine = fixed(100);
    let mut story = Vec::new();
    for second in 0..200 {
        let egress = BytesPerSecond::new(if second < 20 { 950 } else { 500 });
        engine.sample(at(second * 1_000), Sample { egress, cpu: Some(0.5) }).unwrap();
        let verdict = engine.verdict(at(second * 1_000), load(3, 9));
        if story.last().is_none_or(|(_, last)| *last != verdict.mode) {
            story.push((second, verdict.mode));
        }
        if second == 60 {
            assert_eq!(
                shown(&verdict),
                [
                    "peer-to-peer",
                    "direct clients 3 of 100 allowed: not passed",
                    "egress 4.0 kbit/s, low mark 5.0 kbit/s: passed, not yet below for long enough",
                    "cpu 50 % of 85 % allowed: not passed",
                    "reachable holders 9 of 1 needed: enough"
                ]
            );
        }
    }
    // Entered after 5 s; the mean sinks below 630 in 2 s, and 60 s later it is left.
    assert_eq!(story, [(0, Mode::ClientServer), (5, Mode::PeerToPeer), (81, Mode::ClientServer)]);
}

#[test]
fn processors_alone_suffice() {
    let mut engine = fixed(100);
    for second in 0..=5 {
        engine.sample(at(second * 1_000), Sample { egress: BytesPerSecond::new(0), cpu: Some(0.99) }).unwrap();
    }
    assert_eq!(engine.verdict(at(5_000), load(0, 1)).mode, Mode::PeerToPeer);
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let mut engine = fixed(1);
    engine.sample(at(2_000), Sample { egress: BytesPerSecond::new(10), cpu: Some(0.5) }).unwrap();
    let before = format!("{engine:?}");
    for (millis, egress, cpu, expected) in [
        (3_000, 10, f64::NAN, "cpu must be a number from 0 to 1, got NaN"),
        (3_000, 10, f64::INFINITY, "cpu must be a number from 0 to 1, got inf"),
        (3_000, 10, -0.1, "cpu must be a number from 0 to 1, got -0.1"),
        (3_000, 10, 1.1, "cpu must be a number from 0 to 1, got 1.1"),
        (3_000, u64::MAX, 0.5, "18446744.1 Tbit/s is beyond the largest rate that is believed, 8.0 Tbit/s"),
        (1_999, 10, 0.5, "the clock went back: the last measurement was at 2.000000s, this one is at 1.999000s"),
    ] {
        let sample = Sample { egress: BytesPerSecond::new(egress), cpu: Some(cpu) };
        assert_eq!(engine.sample(at(millis), sample).unwrap_err().to_string(), expected);
        assert_eq!(format!("{engine:?}"), before, "nothing has changed");
    }
    assert!(matches!(engine.client_rate(at(0), BytesPerSecond::new(1)), Err(Refused::ClockBack { .. })));
    assert!(matches!(engine.client_rate(at(9_000), BytesPerSecond::new(u64::MAX)), Err(Refused::Rate { .. })));
    assert_eq!(format!("{engine:?}"), before, "nothing has changed");
}

/// A link that is shared evenly by clients who take up to `demand` percent of the required rate; newcomers fill what is
/// allowed, and the direct ones stay. Returns the number allowed after each phase of (capacity in required rates, seconds).
fn shared_link(limit: Option<u64>, demand: u64, phases: &[(u64, u64)]) -> Vec<u32> {
    const REQUIRED: u64 = 1_000_000;
    let egress_limit = limit.map(|clients| BytesPerSecond::new(clients * REQUIRED));
    let mut engine = Engine::new(Config { egress_limit, ..Config::default() }).unwrap();
    let (mut now, mut direct) = (Instant::ZERO, 0);
    let mut allowed = Vec::new();
    for (capacity, seconds) in phases {
        for _ in 0..seconds * 4 {
            now += Duration::from_millis(250);
            let each = (capacity * REQUIRED / u64::from(direct).max(1)).min(demand * REQUIRED / 100);
            let egress = BytesPerSecond::new(each * u64::from(direct));
            engine.sample(now, Sample { egress, cpu: Some(0.3) }).unwrap();
            for _ in 0..direct.min(50) {
                engine.client_rate(now, BytesPerSecond::new(each)).unwrap();
            }
            if engine.verdict(now, load(direct, 1)).mode == Mode::ClientServer {
                direct += 1;
            }
            // A fifth of the clients is done each 25 s or so; whoever stays has stayed direct.
            direct -= u32::from(direct > 0 && now.as_micros() % 5_000_000 == 0) * direct.div_ceil(25);
            engine.check_invariants();
        }
        allowed.push(engine.thresholds().direct_clients);
    }
    allowed
}

#[test]
fn auto_finds_the_number_and_follows_the_link() {
    let [found, halved, back] = shared_link(None, 200, &[(100, 180), (50, 60), (100, 120)])[..] else {
        panic!("three phases")
    };
    assert!((80..=95).contains(&found), "{found} of 100 / 1.08 - 1");
    assert!((40..=50).contains(&halved), "{halved} of 50 / 1.08 - 1");
    assert!((80..=95).contains(&back), "{back} of 100 / 1.08 - 1");
}

#[test]
fn auto_starts_from_the_configured_limit() {
    assert_eq!(shared_link(Some(100), 100, &[(100, 5)]), [91]);
    let [halved] = shared_link(Some(100), 100, &[(100, 60), (50, 60)])[1..] else { panic!("two phases") };
    assert!((40..=50).contains(&halved), "{halved} of 50 / 1.08 - 1");
}

/// An engine with a link of a hundred required rates, where this many are sent and each direct client gets this share.
fn served(egress: u64, percent: u64, change: impl Fn(&mut Config)) -> Engine {
    let mut config = Config { egress_limit: Some(BytesPerSecond::new(100_000_000)), ..Config::default() };
    change(&mut config);
    let mut engine = Engine::new(config).unwrap();
    for quarter in 0..40 {
        engine
            .sample(at(quarter * 250), Sample { egress: BytesPerSecond::new(egress * 1_000_000), cpu: None })
            .unwrap();
        for _ in 0..3 {
            engine.client_rate(at(quarter * 250), BytesPerSecond::new(percent * 10_000)).unwrap();
        }
    }
    engine
}

#[test]
fn a_full_link_is_no_reason_while_all_get_what_is_required() {
    let mut engine = served(99, 108, |_| ());
    let verdict = engine.verdict(at(10_000), load(80, 9));
    assert_eq!(
        shown(&verdict),
        [
            "client-server",
            "direct clients 80 of 91 allowed: not passed",
            "egress 792.0 Mbit/s, low mark 504.0 Mbit/s: does not count, direct clients get what is required",
            "reachable holders 9 of 1 needed: enough"
        ]
    );
    assert_eq!(
        verdict.evidence.to_string(),
        "slow fifth 8.6 Mbit/s, median 8.6 Mbit/s, typical 8.6 Mbit/s, egress 792.0 Mbit/s"
    );
    assert_eq!(served(99, 89, |_| ()).verdict(at(10_000), load(80, 9)).mode, Mode::PeerToPeer);
    let fixed = |config: &mut Config| config.direct_clients = DirectClients::Fixed(100);
    assert_eq!(served(99, 108, fixed).verdict(at(10_000), load(80, 9)).mode, Mode::PeerToPeer);
}

#[test]
fn a_swarm_that_cannot_carry_a_newcomer_gets_none() {
    for (uplinks, expected) in
        [(None, Mode::PeerToPeer), (Some(999_999), Mode::ClientServer), (Some(1_000_000), Mode::PeerToPeer)]
    {
        let newcomer = Newcomer { uplinks: uplinks.map(BytesPerSecond::new), ..load(2, 5).into() };
        assert_eq!(fixed(2).verdict(at(0), newcomer).mode, expected, "{uplinks:?}");
    }
}

#[test]
fn what_is_owed_to_other_classes_is_not_given_twice() {
    let mut engine = served(60, 110, |_| ());
    for (reserved, direct, expected) in [
        (0, 90, Mode::ClientServer),
        (40_000_000, 50, Mode::ClientServer),
        (40_000_000, 51, Mode::PeerToPeer),
        (u64::MAX, 0, Mode::ClientServer),
        (u64::MAX, 1, Mode::PeerToPeer),
    ] {
        let newcomer = Newcomer { reserved: BytesPerSecond::new(reserved), ..load(direct, 9).into() };
        let verdict = engine.verdict(at(10_000), newcomer);
        assert_eq!(verdict.mode, expected, "{verdict:?}");
    }
}

#[test]
fn the_control_group_has_places() {
    let tenth = |config: &mut Config| config.control_share = 0.1;
    let mut engine = served(60, 110, tenth);
    for (direct, control, expected) in [
        (81, false, Mode::ClientServer),
        (82, false, Mode::PeerToPeer),
        (82, true, Mode::ClientServer),
        (91, true, Mode::ClientServer),
    ] {
        let verdict = engine.verdict(at(10_000), Newcomer { control, ..load(direct, 9).into() });
        assert_eq!(verdict.mode, expected, "{direct} {control}: {verdict:?}");
    }
    let mut full = served(99, 80, tenth);
    let verdict = full.verdict(at(10_000), Newcomer { control: true, ..load(95, 9).into() });
    assert_eq!(verdict.mode, Mode::PeerToPeer, "no comparison is worth an overload: {verdict:?}");
}

#[test]
fn peers_that_hurt_are_left_out() {
    let mut engine = served(60, 110, |config| config.direct_clients = DirectClients::Fixed(5));
    let experience =
        |rate| Experience { start_up: Duration::from_secs(1), rate: BytesPerSecond::new(rate), stalls_per_minute: 0.0 };
    for _ in 0..30 {
        engine.experience(at(10_000), true, experience(500_000)).unwrap();
        engine.experience(at(10_000), false, experience(1_000_000)).unwrap();
    }
    assert!(engine.comparison().is_some_and(|comparison| comparison.worse));
    assert_eq!(engine.verdict(at(10_000), load(5, 9)).mode, Mode::PeerToPeer);
    assert_eq!(engine.verdict(at(70_000), load(5, 9)).mode, Mode::ClientServer);
    let story: Vec<String> = engine.events().map(|event| event.decision.to_string()).collect();
    assert_eq!(story.len(), 4, "{story:#?}");
    assert!(story[1].starts_with("peers off: with peers (30) and without (30)"), "{}", story[1]);
    assert_eq!(story[2], "newcomers no longer peer-to-peer but client-server");
    assert!(story[3].contains("does not count, served without peers"), "{}", story[3]);
}

#[test]
fn thresholds_per_connection_and_for_rescue() {
    let mut engine = served(50, 80, |_| ());
    let thresholds = engine.verdict(at(9_750), load(60, 9)).thresholds;
    assert_eq!(thresholds.direct_clients, 45, "50 / 1.08 - 1");
    assert_eq!(thresholds.rescue, Some(BytesPerSecond::new(35_200_000)), "100 less 60 of 1.08");
    assert_eq!(thresholds.per_connection, None, "nobody has got more than now");
    let (mut full, required) = (served(50, 150, |_| ()), 1_000_000);
    for quarter in 40..80 {
        full.sample(at(quarter * 250), Sample { egress: BytesPerSecond::new(50 * required), cpu: None }).unwrap();
        for _ in 0..3 {
            full.client_rate(at(quarter * 250), BytesPerSecond::new(required)).unwrap();
        }
    }
    let thresholds = full.verdict(at(20_000), load(30, 9)).thresholds;
    assert_eq!(thresholds.capacity, Some(BytesPerSecond::new(50 * required)));
    assert_eq!(thresholds.per_connection, Some(BytesPerSecond::new(50 * required / 30)));
    assert_eq!(thresholds.rescue, Some(BytesPerSecond::new(17_600_000)));
}

#[test]
fn events_tell_how_the_number_moved() {
    let mut engine = served(50, 80, |_| ());
    let Moves { to_swarm, .. } = engine.moves(at(9_750), 91, || 0);
    assert_eq!(to_swarm, 1, "the first at once, the others by and by");
    let story: Vec<String> = engine.events().map(ToString::to_string).collect();
    assert_eq!(
        story,
        [
            "9.750000s direct clients allowed 91 → 45 (slow fifth 6.4 Mbit/s, median 6.4 Mbit/s, typical 6.4 Mbit/s, \
             egress 400.0 Mbit/s)",
            "9.750000s 91 direct clients of 45 allowed: 1 to the swarm, 0 back"
        ]
    );
    assert!(matches!(engine.events().next().map(|event| &event.decision), Some(Decision::Threshold { to: 45, .. })));
}
