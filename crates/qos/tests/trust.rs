//! What reports can do, and what they cannot.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]

use hybrid_qos::{ClientReport, Config, Engine, Load, Meter, Meters, Refused, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

const REQUIRED: u64 = 1_000_000;
const INTERVAL: Duration = Duration::from_secs(10);

fn engine() -> Engine {
    let mut config = Config::default();
    config.egress_limit = Some(BytesPerSecond::new(125 * REQUIRED));
    Engine::new(config).expect("the configuration is sound")
}

/// A client in a network of its own, served at this share of the required rate.
fn report(engine: &mut Engine, now: Instant, network: u16, share: f64) -> Result<(), Refused> {
    let from_server = (share * (REQUIRED * INTERVAL.as_secs()) as f64) as u64;
    let report = ClientReport { interval: INTERVAL, from_server, ..ClientReport::default() };
    let [high, low] = network.to_be_bytes();
    engine.report(now, IpAddr::V4(Ipv4Addr::new(10, high, low, 1)), &report, None)
}

/// The number of direct clients at which newcomers go to the swarm, under a load at which reports count.
fn switch_point(shares: &[f64]) -> u32 {
    let mut engine = engine();
    let now = Instant::from_micros(10_000_000);
    engine.sample(now, Sample { egress: BytesPerSecond::new(100 * REQUIRED), cpu: None }).expect("a sound sample");
    for (network, share) in (0u16..).zip(shares) {
        report(&mut engine, now, network, *share).expect("a sound report");
    }
    let sent_away = |direct_clients| {
        let load = Load { direct_clients, holders_reachable: 9 };
        engine.clone().verdict(now, load).mode == Mode::PeerToPeer
    };
    (0..1_000).find(|direct_clients| sent_away(*direct_clients)).expect("there is a limit")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Three networks in ten lie together: that they get the required rate over 1.25, or anything else.
    #[test]
    fn colluding_liars_move_the_switch_point_by_a_fifth_at_most(
        honest in prop::collection::vec(0.5..1.5f64, 10..80),
        lie in prop_oneof![4 => Just(1.0 / 1.25), 1 => 0.0..3.0f64],
    ) {
        let liars = honest.len() * 3 / 10;
        let honestly = switch_point(&honest);
        let mut lied = honest;
        lied[..liars].fill(lie);
        let got = switch_point(&lied);
        prop_assert!(got.abs_diff(honestly) * 5 <= honestly, "{} without lies, {} with", honestly, got);
    }

    /// Where the others are served well, they move nothing at all.
    #[test]
    fn liars_move_nothing_where_service_is_good(honest in 10usize..80, lie in 0.0..1.0f64) {
        let mut shares = vec![1.1; honest];
        let well = switch_point(&shares);
        shares[..honest * 3 / 10].fill(lie);
        prop_assert_eq!(switch_point(&shares), well);
    }

    /// All reports together leave five sixths, and raise nothing.
    #[test]
    fn the_effect_is_bounded(shares in prop::collection::vec(0.0..10.0f64, 0..300)) {
        let (without, with) = (switch_point(&[]), switch_point(&shares));
        prop_assert!(with <= without && with * 6 >= without * 5, "{} of {}", with, without);
    }

    /// No value and no time breaks a meter: what makes no sense is refused, and what is refused leaves no trace.
    #[test]
    fn meters_take_sense_only(
        steps in prop::collection::vec((any::<u64>(), 0u64..10_000_000, any::<bool>(), 0..15usize, any::<f64>()), 0..100),
    ) {
        let mut meters = Meters::default();
        let mut clock = 0u64;
        for (jump, pause, jumps, meter, value) in steps {
            let at = if jumps { jump } else { clock.saturating_add(pause) };
            let (now, meter) = (Instant::from_micros(at), Meter::ALL[meter]);
            let before = meters.summary(Instant::from_micros(clock), meter);
            match meters.record(now, meter, value) {
                Ok(()) => {
                    prop_assert!(value >= 0.0 && value <= meter.max());
                    prop_assert_eq!(meters.summary(now, meter).map(|summary| summary.last), Some(value));
                    clock = at;
                }
                Err(refused) => {
                    prop_assert!(!refused.to_string().is_empty());
                    prop_assert_eq!(meters.summary(Instant::from_micros(clock), meter), before);
                }
            }
            meters.check_invariants();
        }
    }

    /// Reports of anything at all are refused or change the number by a sixth at most.
    #[test]
    fn absurd_reports_do_not_hurt(
        reports in prop::collection::vec(
            (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), prop::option::of(any::<f64>()), prop::option::of(any::<u64>()), any::<u32>()),
            0..100,
        ),
    ) {
        let mut engine = engine();
        let now = Instant::from_micros(10_000_000);
        for (from_server, from_peers, interval, stalls, loss, counted, address) in reports {
            let report = ClientReport {
                interval: Duration::from_millis(interval.into()),
                from_server,
                from_peers,
                stalls,
                loss,
                round_trip: Some(Duration::from_millis(stalls.into())),
                ..ClientReport::default()
            };
            let _refused = engine.report(now, IpAddr::V4(address.into()), &report, counted);
            engine.check_invariants();
            let verdict = engine.verdict(now, Load { direct_clients: 90, holders_reachable: 9 });
            prop_assert_eq!(verdict.mode, Mode::ClientServer, "{:?}", verdict);
        }
    }
}

#[test]
fn what_the_server_counted_decides() {
    let mut engine = engine();
    let report = ClientReport { interval: INTERVAL, from_server: 1_000, ..ClientReport::default() };
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let refused = engine.report(Instant::ZERO, from, &report, Some(80_000_000)).expect_err("a lie");
    assert_eq!(refused.to_string(), "the client says that it got 1000 bytes from the server, which sent it 80000000");
    assert_eq!(engine.summary(Meter::FromServer), None);
}

#[test]
fn an_idle_server_refuses_nobody_because_of_reports() {
    let mut engine = engine();
    let now = Instant::from_micros(10_000_000);
    engine.sample(now, Sample { egress: BytesPerSecond::new(50 * REQUIRED), cpu: None }).expect("a sound sample");
    (0..50).for_each(|network| report(&mut engine, now, network, 0.1).expect("a sound report"));
    let verdict = engine.verdict(now, Load { direct_clients: 113, holders_reachable: 9 });
    assert_eq!(verdict.mode, Mode::ClientServer, "{verdict:?}");
}
