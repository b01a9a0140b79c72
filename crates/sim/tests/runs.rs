//! Small crowds, with all invariants checked at each step.

use hybrid_sim::{Arrivals, Churn, Outcome, Scenario, Simulation, Uplinks};
use hybrid_units::{BytesPerSecond, Duration};
use hybrid_wire::Source;
use proptest::prelude::*;

fn play(scenario: Scenario) -> Outcome {
    Simulation::new(scenario).expect("it can be played").run()
}

/// The named scenario with a dozen clients and a few parts.
fn small(name: &str) -> Scenario {
    let mut named = Scenario::named(name).expect("a name of the list");
    // With so few parts, 1.2 copies are mostly the direct client's, and some parts reach nobody else.
    named.server.dies_after_copies = named.server.dies_after_copies.map(|_| 1.8);
    Scenario { peers: 12, parts: 24, check_every: 1, limit: Duration::from_secs(600), ..named }
}

#[test]
fn each_named_scenario_ends_with_all_who_stay_complete() {
    for (name, _) in Scenario::NAMES {
        for seed in 1..=3 {
            let outcome = play(Scenario { seed, ..small(name) });
            assert_eq!(outcome.incomplete, 0, "{name}, seed {seed}: {:?}", outcome.counts);
            let received: u64 = outcome.received.iter().sum();
            assert!(received >= u64::from(outcome.complete) * outcome.content_bytes, "{name}, seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenario = |seed| Scenario {
        jitter: Duration::from_millis(5),
        loss: 0.02,
        bad_peers: 1,
        uplinks: Uplinks::ThreeClass,
        ..Scenario { seed, ..small("churn") }
    };
    let (first, again, other) = (play(scenario(7)), play(scenario(7)), play(scenario(8)));
    assert!(first == again, "{:?} and {:?}", first.counts, again.counts);
    assert!(first != other, "the seed does nothing");
}

#[test]
fn timers_do_not_multiply() {
    let counts = play(Scenario { peers: 100, parts: 128, check_every: 0, ..small("flash") }).counts;
    assert!(counts.events < 2 * counts.inputs, "{counts:?}");
}

#[test]
fn no_run_is_faster_than_the_bound() {
    for seed in 1..=5 {
        for name in ["flash", "flash3", "slow-server", "fast-server", "S1", "S2", "S3", "S6"] {
            let outcome = play(Scenario { seed, check_every: 0, ..small(name) });
            assert!(outcome.last_ratio >= 1.0, "{name}, seed {seed}: {:.3}", outcome.last_ratio);
            assert!(outcome.uplink_use <= 1.0, "{name}, seed {seed}: {:.3}", outcome.uplink_use);
        }
    }
}

#[test]
fn the_swarm_ends_without_the_server() {
    let outcome = play(small("server-dies"));
    assert_eq!(outcome.complete, 12);
    // What was under way when it ended is cut: at most a part for each of a dozen clients.
    assert!((1.8..2.4).contains(&outcome.server_copies), "{:.2} copies", outcome.server_copies);
}

#[test]
fn bad_parts_cost_their_sender_its_place_and_nobody_the_content() {
    let outcome = play(Scenario { bad_peers: 3, ..small("flash") });
    assert_eq!(outcome.complete, 9);
    assert!(outcome.counts.bans > 0, "the polluters met nobody: the test tests nothing");
}

#[test]
fn who_comes_back_fetches_only_what_it_lacks() {
    let churn = Churn { leave: 0.5, return_share: 1.0, away: Duration::from_secs(2), ..Churn::default() };
    let outcome = play(Scenario { churn, ..small("flash") });
    assert_eq!(outcome.complete, 12);
    for (index, client) in outcome.clients.iter().enumerate() {
        assert_eq!(client.received.iter().sum::<u64>(), outcome.content_bytes, "client {index}: {client:?}");
    }
}

#[test]
fn those_that_vanish_do_not_hold_up_the_others() {
    let churn = Churn { leave: 0.4, crash: true, ..Churn::default() };
    let outcome = play(Scenario { churn, ..small("flash") });
    assert_eq!(outcome.incomplete, 0);
    assert!(outcome.complete < 12, "nobody left: the test tests nothing");
}

#[test]
fn direct_clients_get_it_all_from_the_server() {
    let outcome = play(Scenario { direct: Some(12), ..small("flash") });
    assert_eq!(outcome.received, [12 * outcome.content_bytes, 0, 0, 0, 0]);
    assert!((outcome.server_copies - 12.0).abs() < 1e-6, "{} copies", outcome.server_copies);
    assert_eq!(Source::ALL[0], Source::ServerDirect);
}

#[test]
fn tables_and_pictures_have_a_row_for_each() {
    let outcome = play(small("flash"));
    assert_eq!(outcome.clients_csv().lines().count(), 13);
    assert_eq!(outcome.series_csv().lines().count(), outcome.series.len() + 1);
    for svg in [outcome.completion_svg(), outcome.series_svg()] {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
    }
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let arrivals = prop_oneof![
        (0..3_000u64).prop_map(|millis| Arrivals::Flash(Duration::from_millis(millis))),
        (0.5..20.0f64).prop_map(Arrivals::Poisson),
        (1..1_000u64).prop_map(|millis| Arrivals::Every(Duration::from_millis(millis))),
    ];
    let uplinks = prop_oneof![Just(Uplinks::Equal), Just(Uplinks::ThreeClass), Just(Uplinks::TwoClass)];
    let crowd = (1..14u32, 1..40u32, any::<u64>(), uplinks, arrivals, prop::option::of(0..4u32));
    let network = (0..60u64, 0..20u64, prop_oneof![Just(0.0), 0.0..0.1f64], 1..30u64, any::<bool>(), any::<bool>());
    let churn = (0.0..0.5f64, 0.0..1.0f64, any::<bool>(), prop::option::of(0..5u64), 0..3u32);
    (crowd, network, churn).prop_map(|(crowd, network, churn)| {
        let (peers, parts, seed, uplinks, arrivals, direct) = crowd;
        let (delay, jitter, loss, server, limited, inline_hashes) = network;
        let (leave, return_share, crash, stay, bad_peers) = churn;
        Scenario {
            peers,
            parts,
            seed: seed % 1_000_000,
            uplinks,
            arrivals,
            direct,
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            loss,
            server_up: BytesPerSecond::new(server * 500_000),
            downlink: server.is_multiple_of(2).then(|| BytesPerSecond::new(6_000_000)),
            limited,
            inline_hashes,
            churn: Churn {
                leave,
                return_share,
                crash,
                stay: stay.map(Duration::from_secs),
                away: Duration::from_secs(3),
            },
            bad_peers: bad_peers.min(peers - 1),
            ..small("flash")
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_crowd_ends_complete(scenario in scenarios()) {
        let said = format!("{scenario:?}");
        let outcome = play(scenario);
        prop_assert_eq!(outcome.incomplete, 0, "{}", said);
    }
}
