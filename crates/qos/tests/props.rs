//! What holds whatever is measured.

use hybrid_qos::{Config, DirectClients, Engine, Load, Measure, Moves, Newcomer, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use proptest::prelude::*;

const REQUIRED: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    Sample { egress: u64, cpu: Option<f64> },
    Rate(u64),
    Verdict { direct: u32, holders: u32 },
}

fn rates() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..200 * REQUIRED, 4 => 0..2 * REQUIRED, 1 => any::<u64>()]
}

fn cpus() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        8 => (0.0..=1.0f64).prop_map(Some),
        1 => Just(None),
        1 => any::<f64>().prop_map(Some),
        1 => prop::sample::select(vec![Some(f64::NAN), Some(f64::INFINITY), Some(-0.0), Some(f64::MIN_POSITIVE)]),
    ]
}

fn counts() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..200, 1 => any::<u32>()]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (rates(), cpus()).prop_map(|(egress, cpu)| Step::Sample { egress, cpu }),
        rates().prop_map(Step::Rate),
        (counts(), counts()).prop_map(|(direct, holders)| Step::Verdict { direct, holders }),
    ]
}

/// Milliseconds to the next step; sometimes none, sometimes a clock that jumps either way.
fn pauses() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0i64..2_000, 2 => Just(0), 1 => 0i64..200_000, 1 => -5_000i64..0]
}

#[allow(clippy::cast_possible_truncation, reason = "small positive numbers")]
fn share_of(rate: u64, share: f64) -> BytesPerSecond {
    BytesPerSecond::new((share * rate as f64) as u64)
}

fn config(direct_clients: DirectClients, limit: Option<u64>) -> Config {
    let mut config = Config::default();
    config.direct_clients = direct_clients;
    config.egress_limit = limit.map(BytesPerSecond::new);
    config.required_rate = BytesPerSecond::new(REQUIRED);
    config
}

fn engine(config: Config) -> Engine {
    Engine::new(config).expect("the configuration is sound")
}

fn limits() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![8 => 1..300 * REQUIRED, 1 => 1..=u64::MAX])
}

proptest! {
    /// Floor and cap hold, nonsense changes nothing, and the mode follows from the reasons.
    #[test]
    fn bounds_hold_whatever_comes_in(
        limit in limits(),
        (floor, start, cap) in (1u32..10, 0u32..10, 0u32..200).prop_map(|(floor, start, cap)| (floor, floor + start, floor + start + cap)),
        steps in prop::collection::vec((pauses(), steps()), 0..200),
    ) {
        let mut config = config(DirectClients::Auto, limit);
        (config.direct_floor, config.direct_start, config.direct_cap) = (floor, start, cap);
        let mut engine = engine(config);
        let mut clock = 0u64;
        for (pause, step) in steps {
            clock = clock.saturating_add_signed(pause);
            let now = Instant::from_micros(clock * 1_000);
            let before = engine.clone();
            let refused = match step {
                Step::Sample { egress, cpu } => engine.sample(now, Sample { egress: BytesPerSecond::new(egress), cpu }).is_err(),
                Step::Rate(rate) => engine.client_rate(now, BytesPerSecond::new(rate)).is_err(),
                Step::Verdict { direct, holders } => {
                    let verdict = engine.verdict(now, Load { direct_clients: direct, holders_reachable: holders });
                    let passed = verdict.reasons.iter().any(|reason| reason.passed && reason.measure != Measure::Holders);
                    prop_assert_eq!(verdict.mode == Mode::PeerToPeer, passed && holders > 0);
                    prop_assert_eq!(verdict.thresholds, engine.thresholds());
                    prop_assert!(verdict.reasons.iter().all(|reason| !reason.to_string().contains("NaN")), "{:?}", verdict);
                    false
                }
            };
            if refused {
                prop_assert_eq!(format!("{:?}", engine), format!("{:?}", before));
            }
            engine.check_invariants();
            let allowed = engine.thresholds().direct_clients;
            prop_assert!((floor..=cap).contains(&allowed), "{} of {}..={}", allowed, floor, cap);
        }
    }

    /// Of two servers with the same history of moments, the one with more load goes to the swarm whenever the other does.
    #[test]
    fn more_load_never_means_more_direct_service(
        limit in limits(),
        (enter, leave, dwell, smoothing) in (0u64..8_000, 0u64..20_000, 0u64..20_000, 0u64..2_000),
        allowed in 0u32..20,
        steps in prop::collection::vec((0u64..3_000, (0.0..=1.2f64, 0.0..0.5f64), (0.0..=1.0f64, 0.0..=0.5f64), 0u32..20, 0u32..20, 0u32..3), 0..200),
    ) {
        let mut config = config(DirectClients::Fixed(allowed), limit);
        let millis = Duration::from_millis;
        (config.enter_after, config.leave_after) = (millis(enter), millis(leave));
        (config.dwell, config.smoothing) = (millis(dwell), millis(smoothing));
        let (mut calm, mut busy) = (engine(config.clone()), engine(config));
        let mut now = Instant::ZERO;
        let scale = limit.unwrap_or(REQUIRED).min(300 * REQUIRED);
        for (pause, (egress, more_egress), (cpu, more_cpu), direct, more_direct, holders) in steps {
            now += millis(pause);
            let sample = |egress: f64, cpu: f64| Sample {
                egress: share_of(scale, egress),
                cpu: Some(cpu.min(1.0)),
            };
            calm.sample(now, sample(egress, cpu)).expect("a sound sample");
            busy.sample(now, sample(egress + more_egress, cpu + more_cpu)).expect("a sound sample");
            let load = |direct_clients| Load { direct_clients, holders_reachable: holders };
            let (less, more) = (calm.verdict(now, load(direct)), busy.verdict(now, load(direct + more_direct)));
            prop_assert!(less.mode <= more.mode, "at {}: {:?} but {:?}", now, less, more);
        }
    }

    /// Only clients that do better than required raise the number; egress, processors and crowds never do.
    #[test]
    fn auto_rises_by_good_service_alone(
        limit in limits(),
        steps in prop::collection::vec((0u64..3_000, steps()), 0..200),
        more in 0u32..1_000,
    ) {
        let mut engine = engine(config(DirectClients::Auto, limit));
        let start = engine.thresholds().direct_clients;
        let mut clock = 0;
        for (pause, step) in steps {
            clock += pause;
            let now = Instant::from_micros(clock * 1_000);
            match step {
                // Nonsense may be refused; the other property looks at that.
                Step::Sample { egress, cpu } => {
                    let _refused = engine.sample(now, Sample { egress: BytesPerSecond::new(egress), cpu });
                }
                Step::Rate(rate) => {
                    let _refused = engine.client_rate(now, BytesPerSecond::new(rate % (REQUIRED * 115 / 100 + 1)));
                }
                Step::Verdict { direct, holders } => {
                    let load = |direct_clients| Load { direct_clients, holders_reachable: holders };
                    let mut crowded = engine.clone();
                    let verdict = engine.verdict(now, load(direct));
                    let with_more = crowded.verdict(now, load(direct.saturating_add(more)));
                    prop_assert!(verdict.mode <= with_more.mode, "{:?} but {:?}", verdict, with_more);
                }
            }
            prop_assert!(engine.thresholds().direct_clients <= start);
        }
    }

    /// With the default times a newcomer's mode changes at most twice a minute for reasons of load, however it swings.
    #[test]
    fn at_most_two_flips_a_minute(
        // Swings around both marks, where flapping would be worst.
        samples in prop::collection::vec((1u64..1_000, 0.5..1.0f64, 0.5..1.0f64), 1..600),
        stretch in 1u64..20,
    ) {
        let mut engine = engine(config(DirectClients::Fixed(u32::MAX), Some(REQUIRED)));
        let mut now = Instant::ZERO;
        let mut mode = Mode::ClientServer;
        let mut flips: Vec<Instant> = Vec::new();
        for (pause, egress, cpu) in samples {
            // Several samples of each value, so that the times of the marks are reached.
            for _ in 0..stretch {
                now += Duration::from_millis(pause);
                let egress = share_of(REQUIRED, egress);
                engine.sample(now, Sample { egress, cpu: Some(cpu) }).expect("a sound sample");
                let verdict = engine.verdict(now, Load { direct_clients: 5, holders_reachable: 1 });
                if verdict.mode != mode {
                    mode = verdict.mode;
                    flips.push(now);
                }
            }
        }
        for three in flips.windows(3) {
            prop_assert!(three[2].since(three[0]) >= Duration::from_secs(60), "{:?}", three);
        }
    }

    /// A load that does not change, but for noise of 10 %, changes the mode once at most.
    #[test]
    fn constant_load_settles(base in 0.0..=1.0f64, noise in prop::collection::vec(0.9..1.1f64, 1_200)) {
        let mut engine = engine(config(DirectClients::Fixed(u32::MAX), Some(REQUIRED)));
        let mut modes = vec![Mode::ClientServer];
        for (quarter, noise) in (0u64..).zip(noise) {
            let now = Instant::from_micros(quarter * 250_000);
            let egress = share_of(REQUIRED, base * noise);
            engine.sample(now, Sample { egress, cpu: None }).expect("a sound sample");
            modes.push(engine.verdict(now, Load { direct_clients: 5, holders_reachable: 1 }).mode);
        }
        modes.dedup();
        prop_assert!(modes.len() <= 2, "{:?}", modes);
    }
}

proptest! {
    // Each case is long.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In any state, a moment with more load leaves no larger number than the same moment with less: more CPU, more delay, more
    /// owed to others, and of two crowds that are served as well the one that is larger.
    #[test]
    fn more_load_never_raises_the_number(
        limit in limits(),
        steps in prop::collection::vec((0u64..3_000, steps()), 0..100),
        (cpu, more_cpu) in (0.0..=1.0f64, 0.0..=1.0f64),
        (delay, more_delay) in (0u64..200, 0u64..200),
        (direct, reserved) in (counts(), 0..20 * REQUIRED),
        egress in 0..200 * REQUIRED,
    ) {
        let mut engine = engine(config(DirectClients::Auto, limit));
        let mut clock = 0;
        for (pause, step) in steps {
            clock += pause;
            let now = Instant::from_micros(clock * 1_000);
            match step {
                Step::Sample { egress, cpu } => drop(engine.sample(now, Sample { egress: BytesPerSecond::new(egress), cpu })),
                Step::Rate(rate) => drop(engine.client_rate(now, BytesPerSecond::new(rate))),
                Step::Verdict { direct, holders } => {
                    engine.verdict(now, Load { direct_clients: direct, holders_reachable: holders });
                }
            }
        }
        let now = Instant::from_micros(clock * 1_000 + 250_000);
        let then = |cpu: f64, delay: u64, reserved: u64| {
            let mut engine = engine.clone();
            let sample = Sample { egress: BytesPerSecond::new(egress), cpu: Some(cpu) };
            engine.queue_delay(now, Duration::from_millis(delay)).expect("a sound delay");
            engine.sample(now, sample).expect("a sound sample");
            let load = Load { direct_clients: direct, holders_reachable: 9 };
            let reserved = BytesPerSecond::new(reserved);
            let verdict = engine.verdict(now, Newcomer { reserved, ..Newcomer::from(load) });
            (verdict.thresholds.direct_clients, verdict.mode)
        };
        let less = then(cpu, delay, 0);
        let more = then((cpu + more_cpu).min(1.0), delay + more_delay, reserved);
        // An idle server cuts nobody, and one with loaded processors is not idle.
        prop_assert!(more.0 <= less.0 && more.1 >= less.1, "{:?} with less, {:?} with more", less, more);
    }

    /// Nobody is moved who need not be, not more than a tenth a second, and never both ways at once.
    #[test]
    fn moves_are_paced(
        limit in 1..300 * REQUIRED,
        crowds in prop::collection::vec((0u64..2_000, counts()), 0..100),
    ) {
        let mut engine = engine(config(DirectClients::Auto, Some(limit)));
        let mut clock = 0;
        for (pause, direct) in crowds {
            clock += pause;
            let Moves { to_swarm, to_direct, .. } = engine.moves(Instant::from_micros(clock * 1_000), direct, || u32::MAX);
            let (n, allowed) = (f64::from(direct), f64::from(engine.thresholds().direct_clients));
            prop_assert!(to_swarm == 0 || n > 1.1 * allowed, "{} of {} leave", to_swarm, direct);
            prop_assert!(to_direct == 0 || n + f64::from(to_direct) < 0.8 * allowed + 1.0);
            prop_assert!(to_swarm == 0 || to_direct == 0);
            prop_assert!(f64::from(to_swarm) <= n);
        }
        let mut fixed = self::engine(config(DirectClients::Fixed(1), None));
        prop_assert_eq!(fixed.moves(Instant::ZERO, 1_000, || u32::MAX), Moves::default(), "a fixed number is about newcomers");
    }

    /// Under `Auto` too: a constant crowd with constant rates, but for noise, around the number allowed.
    #[test]
    fn a_constant_crowd_flips_at_most_twice_a_minute(
        direct in 80u32..140,
        share in 0.7..1.4f64,
        noise in prop::collection::vec((0.9..1.1f64, 0.9..1.1f64), 1_200),
    ) {
        let mut engine = engine(config(DirectClients::Auto, Some(125 * REQUIRED)));
        let mut flips: Vec<Instant> = Vec::new();
        let mut mode = None;
        for (quarter, (of_egress, of_rates)) in (1u64..).zip(noise) {
            let now = Instant::from_micros(quarter * 250_000);
            let egress = share_of(REQUIRED, share * f64::from(direct) * of_egress);
            engine.sample(now, Sample { egress, cpu: None }).expect("a sound sample");
            for off in [0.95, 1.0, 1.05] {
                engine.client_rate(now, share_of(REQUIRED, share * of_rates * off)).expect("a sound rate");
            }
            let verdict = engine.verdict(now, Load { direct_clients: direct, holders_reachable: 1 });
            if mode.replace(verdict.mode).is_some_and(|before| before != verdict.mode) {
                flips.push(now);
            }
        }
        for three in flips.windows(3) {
            prop_assert!(three[2].since(three[0]) >= Duration::from_secs(60), "{:?}", flips);
        }
    }
}
