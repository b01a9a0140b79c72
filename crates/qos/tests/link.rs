//! A link that is shared by direct clients, as a fluid: what the engine makes of it, and what a plain threshold would.

#![allow(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small numbers, and a table for people")]

use hybrid_qos::{Config, Engine, Load, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;

/// Bytes per second: 1,000 Mbit/s of egress, 8 Mbit/s for each client.
const LINK: f64 = 125e6;
const REQUIRED: f64 = 1e6;
/// What a client takes if it can.
const DEMAND: f64 = 1.25 * REQUIRED;
/// Measured values are off by up to a tenth, and half a second old.
const NOISE: f64 = 0.1;
const DELAY_TICKS: usize = 2;
const TICK: f64 = 0.25;
const END_SECS: f64 = 600.0;
const STAY_SECS: f64 = 90.0;

#[derive(Clone, Copy)]
enum Decider {
    Engine,
    /// Direct while the measured egress is below the configured one.
    Plain,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// Of the seconds that clients were served directly, the share with less than 0.95 of the required rate.
    short: f64,
    /// Of what the link could have carried, what it did.
    used: f64,
    /// The most and the fewest direct clients in the last minute.
    end: (usize, usize),
}

/// A flash of 6 clients a second for 120 s, 2 a second after it; the link is halved from 200 s to 350 s.
fn play(seed: u64, decider: Decider) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut config = Config::default();
    config.egress_limit = Some(BytesPerSecond::new(LINK as u64));
    config.required_rate = BytesPerSecond::new(REQUIRED as u64);
    let mut engine = Engine::new(config).expect("the configuration is sound");
    // When each client leaves.
    let (mut direct, mut swarm): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut measured: VecDeque<(f64, usize)> = VecDeque::new();
    let (mut short, mut served, mut sent, mut able) = (0.0, 0.0, 0.0, 0.0);
    let mut due = 0.0;
    let mut end = (0, usize::MAX);
    let mut at = 0.0;
    while at < END_SECS {
        at += TICK;
        let now = Instant::ZERO + Duration::from_secs_f64(at);
        let link = if (200.0..350.0).contains(&at) { LINK / 2.0 } else { LINK };
        direct.retain(|leaves| *leaves > at);
        swarm.retain(|leaves| *leaves > at);
        let each = (link / (direct.len().max(1) as f64)).min(DEMAND);
        let egress = each * direct.len() as f64;
        able += link * TICK;
        sent += egress * TICK;
        served += direct.len() as f64 * TICK;
        short += if each < 0.95 * REQUIRED { direct.len() as f64 * TICK } else { 0.0 };
        measured.push_back((each, direct.len()));
        let (each, clients) =
            if measured.len() > DELAY_TICKS { measured.pop_front().unwrap_or_default() } else { (0.0, 0) };
        let mut noisy = |value: f64| BytesPerSecond::new((value * rng.random_range(1.0 - NOISE..=1.0 + NOISE)) as u64);
        let seen = noisy(each * clients as f64);
        if let Decider::Engine = decider {
            engine.sample(now, Sample { egress: seen, cpu: Some(0.2) }).expect("a sound sample");
            // Each client's rate once a second.
            for _ in 0..clients.div_ceil(4) {
                engine.client_rate(now, noisy(each)).expect("a sound rate");
            }
        }
        due += if at < 120.0 { 6.0 * TICK } else { 2.0 * TICK };
        while due >= 1.0 {
            due -= 1.0;
            let leaves = at - STAY_SECS * rng.random_range(1e-9..1.0f64).ln();
            let load = Load { direct_clients: direct.len() as u32, holders_reachable: 9 };
            let mode = match decider {
                Decider::Engine => engine.verdict(now, load).mode,
                Decider::Plain if (seen.as_u64() as f64) < LINK => Mode::ClientServer,
                Decider::Plain => Mode::PeerToPeer,
            };
            if mode == Mode::ClientServer { direct.push(leaves) } else { swarm.push(leaves) }
        }
        if let Decider::Engine = decider {
            let moves = engine.moves(now, direct.len() as u32, || u32::MAX);
            // Those who have longest to go change place.
            direct.sort_by(f64::total_cmp);
            let stay = direct.len() - moves.to_swarm as usize;
            swarm.extend(direct.split_off(stay));
            swarm.sort_by(f64::total_cmp);
            let stay = swarm.len().saturating_sub(moves.to_direct as usize);
            direct.extend(swarm.split_off(stay));
        }
        if at > END_SECS - 60.0 {
            end = (end.0.max(direct.len()), end.1.min(direct.len()));
        }
    }
    engine.check_invariants();
    Outcome { short: short / served, used: sent / able, end }
}

#[test]
fn a_flash_and_half_a_link_leave_nobody_short() {
    let mut worst = (0.0f64, 1.0f64, 1.0f64);
    for seed in 1..=20 {
        let (engine, plain) = (play(seed, Decider::Engine), play(seed, Decider::Plain));
        println!("seed {seed}: engine {engine:.3?}, plain threshold {plain:.3?}");
        assert!(engine.short <= 0.01, "seed {seed}: {engine:?}");
        assert!(engine.used >= 0.94, "seed {seed}: {engine:?}");
        assert!(engine.end.1 >= 90, "seed {seed}: the link is back, and so are they: {engine:?}");
        worst = (worst.0.max(engine.short), worst.1.min(engine.used), worst.2.min(plain.short));
    }
    println!("worst of all: short {:.4}, used {:.3}; plain threshold at best short {:.3}", worst.0, worst.1, worst.2);
    assert!(worst.2 > 0.1, "a plain threshold does as well: the scenario shows nothing");
}
