//! How many direct clients `Auto` allows: from the capacity, from what clients get, and by trying one more.
//!
//! The number rises only by probing, and a probe needs clients that are served better than required; everything else
//! lowers it, for good or for as long as the processors are the bottleneck.
//! So no load, however measured, admits more direct clients.

use crate::Config;
use hybrid_units::{BytesPerSecond, Duration, Instant};
use std::collections::VecDeque;

/// Room above the required rate, in percent: `n = C / (1.08 r)`. Little's law with 8 % for noise and for what is not parts.
const ROOM_PERCENT: u64 = 108;
/// Served well enough to try more: the slow fifth gets more than 1.15 of the required rate.
const PROBE_PERCENT: u64 = 115;
/// Served so badly that the capacity must have fallen: the slow fifth gets less than 0.85 of it.
const CUT_PERCENT: u64 = 85;
/// One probe waits this long for the next: rates of the client that it let in are known by then.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// One cut waits this long for the next: what it changed must show first.
const CUT_INTERVAL: Duration = Duration::from_secs(2);
/// Older rates say nothing about now.
const RATE_AGE_MAX: Duration = Duration::from_secs(10);
/// Rates that are kept: enough for a fifth of them to mean something, few enough to sort at every join (2 KiB each way).
const RATES_MAX: usize = 256;
/// Fewer rates judge nobody.
const RATES_MIN: usize = 3;
/// Under loaded processors, half of the clients below 0.95 of the required rate show that more cannot be sent.
const SATURATED_PERCENT: u64 = 95;
/// Below this share of its limit a server is not what makes its clients slow, in percent. Less than half, so that a link
/// that fell to half of its limit is still seen.
pub(crate) const IDLE_PERCENT: u32 = 40;
/// Seconds over which the largest egress under load is taken for the capacity.
const WINDOW_SECS: usize = 10;

/// The largest value of the last [`WINDOW_SECS`] seconds, second by second.
#[derive(Clone, Debug, Default)]
struct RecentMax([(u64, u64); WINDOW_SECS]);

impl RecentMax {
    fn record(&mut self, now: Instant, value: u64) {
        let second = now.as_micros() / 1_000_000;
        let index = usize::try_from(second % WINDOW_SECS as u64).unwrap_or(0);
        if let Some((recorded, max)) = self.0.get_mut(index) {
            *max = if *recorded == second { value.max(*max) } else { value };
            *recorded = second;
        }
    }

    /// `None` if nothing was recorded in the window; no rate of zero is recorded.
    fn max(&self, now: Instant) -> Option<u64> {
        let second = now.as_micros() / 1_000_000;
        let fresh = |recorded: u64| recorded <= second && second - recorded < WINDOW_SECS as u64;
        self.0.iter().filter(|(recorded, max)| fresh(*recorded) && *max > 0).map(|(_, max)| *max).max()
    }
}

/// What the server knows of itself when the number is brought up to date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// Mean egress; `None` before the first sample.
    pub(crate) egress: Option<u64>,
    /// Egress or CPU is above its high mark, or counts as passed.
    pub(crate) loaded: bool,
    /// CPU is below [`IDLE_PERCENT`] of its high mark, or unknown.
    pub(crate) cpu_idle: bool,
}

/// The moving number of direct clients.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// What probes and cuts made of it.
    number: u32,
    /// The same, bounded by what was sent under loaded processors just now.
    allowed: u32,
    floor: u32,
    cap: u32,
    required: u64,
    limit: Option<u64>,
    busiest: RecentMax,
    /// Rates of direct clients, oldest first.
    rates: VecDeque<(Instant, u64)>,
    probed: Option<Instant>,
    cut: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = config.egress_limit.map(BytesPerSecond::as_u64);
        let mut allowance = Self {
            number: 0,
            allowed: 0,
            floor: config.direct_floor,
            cap: config.direct_cap,
            required: config.required_rate.as_u64(),
            limit,
            busiest: RecentMax::default(),
            rates: VecDeque::new(),
            probed: None,
            cut: None,
        };
        allowance.set(limit.map_or(config.direct_start, |limit| allowance.carried_by(limit)));
        allowance.bound(Instant::ZERO);
        allowance
    }

    pub(crate) fn allowed(&self) -> u32 {
        self.allowed
    }

    fn set(&mut self, number: u32) {
        self.number = number.clamp(self.floor, self.cap);
    }

    fn bound(&mut self, now: Instant) {
        let bound = self.busiest.max(now).map_or(u32::MAX, |busiest| self.carried_by(busiest));
        self.allowed = self.number.min(bound).max(self.floor);
    }

    /// How many clients so many bytes per second serve well.
    fn carried_by(&self, capacity: u64) -> u32 {
        let clients = u128::from(capacity) * 100 / (u128::from(self.required) * u128::from(ROOM_PERCENT)).max(1);
        u32::try_from(clients).unwrap_or(u32::MAX)
    }

    /// The capacity on which the number rests: the largest egress under load, else the configured limit.
    pub(crate) fn capacity(&self, now: Instant) -> Option<BytesPerSecond> {
        self.busiest.max(now).or(self.limit).map(BytesPerSecond::new)
    }

    /// The server's processors were loaded while it sent this much: that is its capacity, if its clients want more.
    pub(crate) fn loaded_at(&mut self, now: Instant, egress: u64) {
        let wanting = |median| percent_of(median, 100) < percent_of(self.required, SATURATED_PERCENT);
        if self.slowest(now, 2).is_some_and(wanting) {
            self.busiest.record(now, egress);
        }
    }

    pub(crate) fn client_rate(&mut self, now: Instant, rate: u64) {
        if self.rates.len() == RATES_MAX {
            self.rates.pop_front();
        }
        self.rates.push_back((now, rate));
    }

    /// The rate that one client in `share` does not exceed; `None` if too few were heard of lately.
    fn slowest(&self, now: Instant, share: usize) -> Option<u64> {
        let fresh = self.rates.iter().filter(|(at, _)| now.since(*at) <= RATE_AGE_MAX);
        let mut rates: Vec<u64> = fresh.map(|(_, rate)| *rate).collect();
        if rates.len() < RATES_MIN {
            return None;
        }
        let rank = rates.len() / share;
        Some(*rates.select_nth_unstable(rank).1)
    }

    /// Brings the number up to date for `direct_clients` that are there now.
    pub(crate) fn update(&mut self, now: Instant, direct_clients: u32, condition: Condition) {
        self.bound(now);
        if let Some(slow) = self.slowest(now, 5) {
            self.judge(now, percent_of(slow, 100), direct_clients, condition);
            self.bound(now);
        }
    }

    fn judge(&mut self, now: Instant, slow: u128, direct_clients: u32, condition: Condition) {
        if slow < percent_of(self.required, CUT_PERCENT) {
            if is_due(self.cut, now, CUT_INTERVAL) && !self.is_idle(condition) {
                self.cut_to(now, condition.egress);
            }
        } else if slow > percent_of(self.required, PROBE_PERCENT)
            && !condition.loaded
            && direct_clients.saturating_add(1) >= self.allowed
            && is_due(self.probed, now, PROBE_INTERVAL)
        {
            self.probed = Some(now);
            self.set(self.number.saturating_add(self.number / 50).saturating_add(1));
            // The next probe is judged by rates that saw this one.
            self.rates.clear();
        }
    }

    /// Whether the server has so much to spare that slow clients are slow for reasons of their own.
    fn is_idle(&self, condition: Condition) -> bool {
        match (self.limit, condition.egress) {
            (Some(limit), Some(egress)) => {
                condition.cpu_idle && u128::from(egress) * 100 < u128::from(limit) * u128::from(IDLE_PERCENT)
            }
            // Without a limit nothing tells how much is to spare.
            _ => false,
        }
    }

    /// The capacity fell: forgets what was, and goes down to what is carried now.
    fn cut_to(&mut self, now: Instant, egress: Option<u64>) {
        self.cut = Some(now);
        self.busiest = RecentMax::default();
        self.rates.clear();
        // Not measured, it falls by the factor at which the cut was due.
        let carried = egress.map_or(self.number - self.number.div_ceil(7), |egress| self.carried_by(egress));
        self.set(self.number.min(carried));
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    pub(crate) fn check_invariants(&self) {
        let bounds = self.floor..=self.cap;
        assert!(bounds.contains(&self.allowed) && bounds.contains(&self.number), "{self:?}");
        assert!(self.allowed <= self.number, "{self:?}");
        assert!(self.rates.len() <= RATES_MAX, "{} rates are kept", self.rates.len());
        assert!(self.rates.iter().is_sorted_by_key(|(at, _)| *at), "rates must be in order");
    }
}

/// `percent` of a rate, in hundredths of it: whole numbers, so that a replay rounds alike everywhere.
fn percent_of(rate: u64, percent: u64) -> u128 {
    u128::from(rate) * u128::from(percent)
}

fn is_due(last: Option<Instant>, now: Instant, interval: Duration) -> bool {
    last.is_none_or(|last| now.since(last) >= interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Condition = Condition { egress: Some(9_000_000), loaded: false, cpu_idle: true };

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    fn allowance(limit: Option<u64>) -> Allowance {
        Allowance::new(&Config { egress_limit: limit.map(BytesPerSecond::new), ..Config::default() })
    }

    fn rates(allowance: &mut Allowance, now: Instant, rates: &[u64]) {
        rates.iter().for_each(|rate| allowance.client_rate(now, *rate));
    }

    #[test]
    fn the_first_number() {
        for (limit, expected) in
            [(None, 4), (Some(125_000_000), 115), (Some(10_800_000), 10), (Some(1_000), 1), (Some(u64::MAX), 10_000)]
        {
            assert_eq!(allowance(limit).allowed(), expected, "{limit:?}");
        }
    }

    #[test]
    fn probes_one_by_one_while_clients_do_well() {
        let mut allowance = allowance(None);
        let fast = [1_200_000; 4];
        for (millis, clients, speeds, expected) in [
            (0, 4, &fast[..0], 4),          // nothing known
            (100, 4, &fast[..2], 4),        // too few rates
            (200, 2, &fast[..], 4),         // not all places taken
            (300, 3, &fast[..0], 5),        // the next one would be the last
            (400, 5, &fast[..], 5),         // too soon
            (1_300, 5, &fast[..0], 6),      // its rates are known by now
            (2_400, 6, &fast[..0], 6),      // no rates since the last probe
            (2_500, 6, &[1_150_000; 4], 6), // not better than required
        ] {
            rates(&mut allowance, at(millis), speeds);
            allowance.update(at(millis), clients, CALM);
            assert_eq!(allowance.allowed(), expected, "at {millis} ms");
        }
        rates(&mut allowance, at(20_000), &fast);
        allowance.update(at(20_000), 6, Condition { loaded: true, ..CALM });
        assert_eq!(allowance.allowed(), 6, "no probe under load");
    }

    #[test]
    fn falls_to_what_is_carried() {
        let mut allowance = allowance(Some(10_800_000));
        rates(&mut allowance, at(0), &[800_000, 800_000, 800_000, 5_000_000, 5_000_000]);
        allowance.update(at(0), 10, Condition { egress: Some(5_400_000), ..CALM });
        assert_eq!(allowance.allowed(), 5);
        rates(&mut allowance, at(1_000), &[800_000; 3]);
        allowance.update(at(1_000), 10, Condition { egress: Some(4_320_000), ..CALM });
        assert_eq!(allowance.allowed(), 5, "the last cut must show first");
        allowance.update(at(2_000), 10, Condition { egress: Some(4_320_000), ..CALM });
        assert_eq!(allowance.allowed(), 4);
        rates(&mut allowance, at(9_000), &[1; 3]);
        allowance.update(at(9_000), 10, Condition { egress: Some(4_000_000), ..CALM });
        assert_eq!(allowance.allowed(), 4, "an idle server does not make clients slow");
        allowance.update(at(9_000), 10, Condition { egress: Some(4_000_000), cpu_idle: false, loaded: true });
        assert_eq!(allowance.allowed(), 3, "unless its processors are the bottleneck");
    }

    #[test]
    fn a_cut_without_a_measure() {
        let mut allowance = allowance(Some(10_800_000));
        rates(&mut allowance, at(0), &[1; 3]);
        allowance.update(at(0), 10, Condition { egress: None, ..CALM });
        assert_eq!(allowance.allowed(), 8);
    }

    #[test]
    fn loaded_processors_bound_the_number_for_a_while() {
        let mut allowance = allowance(Some(108_000_000));
        allowance.loaded_at(at(100), 1_000);
        rates(&mut allowance, at(100), &[950_000; 5]);
        allowance.loaded_at(at(100), 1_000);
        assert_eq!(allowance.capacity(at(100)), Some(BytesPerSecond::new(108_000_000)), "nobody wanted more");
        rates(&mut allowance, at(200), &[900_000; 9]);
        allowance.loaded_at(at(500), 21_600_000);
        allowance.loaded_at(at(900), 10_800_000);
        for (millis, capacity, allowed) in
            [(1_000, 21_600_000, 20), (9_999, 21_600_000, 20), (10_000, 108_000_000, 100)]
        {
            allowance.update(at(millis), 90, CALM);
            assert_eq!(allowance.capacity(at(millis)), Some(BytesPerSecond::new(capacity)), "at {millis} ms");
            assert_eq!(allowance.allowed(), allowed, "at {millis} ms");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut allowance = allowance(None);
        (0..1_000).for_each(|millis| allowance.client_rate(at(millis), millis));
        allowance.check_invariants();
        assert_eq!(allowance.rates.len(), RATES_MAX);
        assert_eq!(allowance.slowest(at(999), 5), Some(744 + 51));
        assert_eq!(allowance.slowest(at(20_000), 5), None, "too old");
    }
}
