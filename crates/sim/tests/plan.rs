//! Plans: questions that have no answer, crowds that peers carry, and crowds that they cannot carry.

use hybrid_coordinator::EgressPolicy;
use hybrid_sim::{Plan, PlanError, PlanRequest, ViewerArrivals};
use hybrid_units::{BytesPerSecond, Duration};

const SECOND: Duration = Duration::from_secs(1);

fn mbit(mbit: u64) -> BytesPerSecond {
    BytesPerSecond::from_bits_per_second(mbit * 1_000_000)
}

/// Forty of four hundred viewers of two minutes.
fn request() -> PlanRequest {
    PlanRequest {
        uplink: mbit(100),
        viewers: 400,
        bitrate: mbit(1),
        peer_up: mbit(10),
        peer_down: mbit(50),
        stay: SECOND * 60,
        arrivals: ViewerArrivals::Over(SECOND * 30),
        length: SECOND * 120,
        delay: Duration::from_millis(25),
        egress_policy: EgressPolicy::Fast,
        seed: 1,
        simulate: Some(40),
    }
}

#[test]
fn what_has_no_answer_is_refused() {
    let refused = |request| Plan::new(request).expect_err("it has no answer");
    assert_eq!(refused(PlanRequest { viewers: 0, ..request() }), PlanError::Viewers { got: 0 });
    for (request, words) in [
        (PlanRequest { viewers: u32::MAX, ..request() }, "from 1 to 10000000"),
        (PlanRequest { uplink: mbit(0), ..request() }, "the server's uplink must be above 0"),
        (PlanRequest { bitrate: mbit(0), ..request() }, "the bitrate must be above 0"),
        (PlanRequest { bitrate: mbit(51), ..request() }, "51.0 Mbit/s is above the 50.0 Mbit/s"),
        (PlanRequest { stay: Duration::from_millis(100), ..request() }, "a stay of 0.1 s is shorter than a part"),
        (PlanRequest { length: SECOND, ..request() }, "a length of 1 s"),
        (PlanRequest { length: SECOND * 30_000, ..request() }, "to 21600 s"),
        (PlanRequest { bitrate: mbit(40), length: SECOND * 20_000, ..request() }, "a content of 100.0 GB"),
        (PlanRequest { arrivals: ViewerArrivals::PerSecond(0.0), ..request() }, "come over inf s"),
        (PlanRequest { arrivals: ViewerArrivals::PerSecond(1e-6), ..request() }, "a week"),
        (PlanRequest { simulate: Some(0), ..request() }, "0 viewers to simulate"),
        (PlanRequest { simulate: Some(20_000), ..request() }, "20000 viewers to simulate"),
        (PlanRequest { delay: SECOND * 11, ..request() }, "the delay: at most 10 s"),
    ] {
        let error = refused(request).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn peers_carry_nearly_all_where_their_uplinks_are_fast() {
    let answer = Plan::new(request()).and_then(Plan::run).expect("it has an answer");
    assert_eq!((answer.simulated, answer.cut_short, answer.plan.bound.deficit.is_none()), (40, false, true));
    assert!(answer.from_peers > 0.9 && answer.from_peers <= 1.0, "{}", answer.from_peers);
    assert_eq!((answer.stalled_viewers, answer.stalled_time, answer.never_started), (0.0, 0.0, 0.0));
    assert!(answer.start_up.p50 >= answer.plan.bound.start_up_min.as_secs_f64());
    assert!(answer.server_copies >= 1.0);
    assert!(answer.server_rate_peak >= answer.server_rate_mean && answer.server_rate_peak < 1.001 * 12_500_000.0);
    assert!(answer.series.iter().any(|moment| moment.watching > 399.0));
    let svg = answer.svg();
    assert!(svg.contains("Mbit/s") && svg.contains("viewers") && svg.ends_with("</svg>\n"), "{svg}");
}

#[test]
fn a_deficit_is_told_and_what_would_be_enough_is_enough() {
    let poor = PlanRequest { bitrate: mbit(4), peer_up: mbit(2), length: SECOND * 60, ..request() };
    let answer = Plan::new(poor.clone()).and_then(Plan::run).expect("it has an answer");
    assert!(
        answer.stalled_viewers > 0.3 && answer.stalled_time > 0.2,
        "{} {}",
        answer.stalled_viewers,
        answer.stalled_time
    );
    let deficit = answer.plan.bound.deficit.expect("1,600 Mbit/s are needed, 900 are there");
    assert!((deficit.missing * 8.0 - 700e6).abs() < 1e3, "{}", deficit.missing);
    assert_eq!((deficit.uplink, deficit.stay), (mbit(800), None));
    let has_deficit = |request| Plan::new(request).expect("it can be planned").bound.deficit.is_some();
    assert!(!has_deficit(PlanRequest { uplink: deficit.uplink, ..poor.clone() }));
    assert!(!has_deficit(PlanRequest { bitrate: deficit.bitrate, ..poor.clone() }));
    assert!(!has_deficit(PlanRequest { peer_up: deficit.peer_up.expect("one copy can be sent"), ..poor.clone() }));
}

#[test]
fn a_longer_stay_helps_where_viewers_keep_coming() {
    let slow = PlanRequest {
        bitrate: mbit(4),
        peer_up: mbit(3),
        uplink: mbit(10),
        arrivals: ViewerArrivals::Over(SECOND * 600),
        ..request()
    };
    let enough = |request| Plan::new(request).expect("it can be planned").bound.deficit.map(|deficit| deficit.stay);
    let brief = PlanRequest { stay: SECOND * 5, ..slow };
    let stay = enough(brief.clone()).flatten().expect("a stay that is enough");
    assert!(stay > SECOND * 5, "{stay:?}");
    assert_eq!(enough(PlanRequest { stay: stay + SECOND, ..brief }), None);
}

#[test]
fn a_server_that_cannot_send_one_copy_in_time_is_a_deficit_for_one_viewer_too() {
    let slow = PlanRequest { uplink: mbit(1), bitrate: mbit(2), viewers: 1, ..request() };
    let deficit = Plan::new(slow).expect("it can be planned").bound.deficit.expect("half is missing");
    assert_eq!((deficit.uplink, deficit.bitrate, deficit.peer_up), (mbit(2), mbit(1), None));
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let answer = |seed| {
        let request = PlanRequest { seed, length: SECOND * 30, ..request() };
        Plan::new(request).and_then(Plan::run).expect("it has an answer").series
    };
    assert_eq!(answer(7), answer(7));
    assert_ne!(answer(7), answer(8));
}
