//! The number by itself: how it starts, rises, falls and is bounded.

use super::*;

const CALM: Condition =
    Condition { egress: Some(9_000_000.0), egress_high: false, cpu_high: false, cpu_idle: true, delayed: false };

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn sent(egress: f64) -> Condition {
    Condition { egress: Some(egress), ..CALM }
}

fn allowance(limit: Option<u64>) -> Allowance {
    Allowance::new(&Config { egress_limit: limit.map(BytesPerSecond::new), ..Config::default() })
}

fn rates(allowance: &mut Allowance, now: Instant, rates: &[f64]) {
    rates.iter().for_each(|rate| allowance.client_rate(now, *rate));
}

#[test]
fn the_first_number() {
    for (limit, expected) in [
        (None, 1),
        (Some(125_000_000), 114),
        (Some(11_880_000), 10),
        (Some(2_500_000), 1),
        (Some(1_000), 1),
        (Some(u64::MAX), 10_000),
    ] {
        assert_eq!(allowance(limit).allowed(), expected, "{limit:?}");
    }
}

#[test]
fn probes_one_by_one_while_clients_do_well() {
    let mut allowance = allowance(Some(4_500_000));
    let fast = [1_200_000.0; 4];
    for (millis, clients, speeds, expected) in [
        (0, 3, &fast[..0], 3),            // nothing known
        (100, 3, &fast[..2], 3),          // too few rates
        (200, 1, &fast[..], 3),           // not all places taken
        (300, 2, &fast[..0], 4),          // the next one would be the last
        (400, 4, &fast[..], 4),           // too soon
        (1_300, 4, &fast[..0], 5),        // its rates are known by now
        (2_400, 5, &fast[..0], 5),        // no rates since the last probe
        (2_500, 5, &[1_150_000.0; 4], 5), // not better than required
    ] {
        rates(&mut allowance, at(millis), speeds);
        allowance.update(at(millis), clients, CALM);
        assert_eq!(allowance.allowed(), expected, "at {millis} ms");
    }
    for loaded in [
        Condition { cpu_high: true, ..CALM },
        Condition { egress_high: true, ..CALM },
        Condition { delayed: true, ..CALM },
    ] {
        rates(&mut allowance, at(20_000), &fast);
        allowance.update(at(20_000), 6, loaded);
        assert_eq!(allowance.allowed(), 5, "no probe under load");
    }
}

/// Without a limit: (millisecond, direct clients, their rates, egress, allowed).
fn unlimited(story: &[(u64, u32, f64, f64, u32)]) {
    let mut allowance = allowance(None);
    for (millis, clients, rate, egress, expected) in story {
        rates(&mut allowance, at(*millis), &[*rate; 3]);
        allowance.observe(at(*millis), sent(*egress));
        allowance.update(at(*millis), *clients, sent(*egress));
        assert_eq!(allowance.allowed(), *expected, "at {millis} ms");
    }
}

#[test]
fn without_a_limit_good_service_has_to_last() {
    // A lone client proves nothing of a second one, for ten seconds.
    unlimited(&[(0, 1, 2.5e6, 2.5e6, 1), (9_900, 1, 2.5e6, 2.5e6, 1), (10_000, 1, 2.5e6, 2.5e6, 2)]);
    // Pushes beside it that do not slow it down prove room, in five; the first step is to what was carried, at most twice.
    unlimited(&[(0, 1, 6e6, 25e6, 1), (4_900, 1, 6e6, 25e6, 1), (5_000, 1, 6e6, 25e6, 2), (6_000, 2, 6e6, 25e6, 4)]);
    // Pushes that slow it down prove the contrary, fast as it may still be.
    unlimited(&[(0, 1, 2.5e6, 2.5e6, 1), (5_000, 1, 1.9e6, 2.5e6, 1), (20_000, 1, 1.9e6, 2.5e6, 1)]);
}

#[test]
fn falls_to_what_is_carried() {
    let mut allowance = allowance(Some(11_880_000));
    rates(&mut allowance, at(0), &[8e5, 8e5, 8e5, 5e6, 5e6]);
    allowance.update(at(0), 10, sent(6_480_000.0));
    assert_eq!(allowance.allowed(), 5);
    rates(&mut allowance, at(1_000), &[8e5; 3]);
    allowance.update(at(1_000), 10, sent(5_400_000.0));
    assert_eq!(allowance.allowed(), 5, "the last cut must show first");
    allowance.update(at(2_000), 10, sent(5_400_000.0));
    assert_eq!(allowance.allowed(), 4);
    rates(&mut allowance, at(9_000), &[1.0; 3]);
    allowance.update(at(9_000), 10, sent(4_400_000.0));
    assert_eq!(allowance.allowed(), 4, "an idle server does not make clients slow");
    allowance.update(at(9_000), 10, Condition { cpu_idle: false, cpu_high: true, ..sent(4_400_000.0) });
    assert_eq!(allowance.allowed(), 3, "unless its processors are the bottleneck");
    for (secs, expected) in [(10, 4), (11, 4), (14, 4), (15, 5)] {
        rates(&mut allowance, at(secs * 1_000), &[1.05e6; 300]);
        allowance.update(at(secs * 1_000), 10, Condition { egress_high: true, ..CALM });
        assert_eq!(allowance.allowed(), expected, "the limit promises more, so it comes back: {secs} s");
    }
}

#[test]
fn a_cut_without_a_measure() {
    let mut allowance = allowance(Some(11_880_000));
    rates(&mut allowance, at(0), &[1.0; 3]);
    allowance.update(at(0), 10, Condition { egress: None, ..CALM });
    assert_eq!(allowance.allowed(), 8);
}

#[test]
fn saturation_bounds_the_number_for_a_while() {
    let busy = |egress| Condition { cpu_high: true, cpu_idle: false, ..sent(egress) };
    let mut allowance = allowance(Some(109_080_000));
    allowance.observe(at(100), busy(1_000.0));
    rates(&mut allowance, at(100), &[950_000.0; 5]);
    allowance.observe(at(100), busy(1_000.0));
    assert_eq!(allowance.capacity(at(100)), Some(109_080_000.0), "nobody wanted more");
    rates(&mut allowance, at(200), &[900_000.0; 9]);
    allowance.observe(at(500), busy(22_680_000.0));
    allowance.observe(at(900), busy(11_880_000.0));
    for (millis, capacity, allowed) in
        [(1_000, 22_680_000.0, 20), (9_999, 22_680_000.0, 20), (10_000, 109_080_000.0, 100)]
    {
        allowance.update(at(millis), 90, CALM);
        assert_eq!(allowance.capacity(at(millis)), Some(capacity), "at {millis} ms");
        assert_eq!(allowance.allowed(), allowed, "at {millis} ms");
    }
}
