//! One measure against two marks: entered slowly, left more slowly.

use crate::Config;
use hybrid_units::{Duration, Instant};

/// The times of a [`Latch`], from the [`Config`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    smoothing: Duration,
    enter_after: Duration,
    leave_after: Duration,
    dwell: Duration,
}

impl From<&Config> for Times {
    fn from(config: &Config) -> Self {
        let Config { smoothing, enter_after, leave_after, dwell, .. } = *config;
        Self { smoothing, enter_after, leave_after, dwell }
    }
}

/// Whether a measure counts as passed.
///
/// Of two latches with the same times and marks, the one that is fed higher values at the same moments is passed whenever
/// the other is: that is why the dwell counts from the last value above the high mark and not from the moment of entering,
/// which may be later for the lower one.
/// Time passes with samples only: a server too busy to measure itself keeps what it last knew.
#[derive(Clone, Debug)]
pub(crate) struct Latch {
    /// In the unit of the samples.
    low: f64,
    high: f64,
    value: Option<f64>,
    sampled: Instant,
    passed: bool,
    /// Since when the value is beyond the mark that would change `passed`.
    beyond_since: Option<Instant>,
    last_above: Instant,
}

impl Latch {
    pub(crate) fn new(low: f64, high: f64) -> Self {
        let zero = Instant::ZERO;
        Self { low, high, value: None, sampled: zero, passed: false, beyond_since: None, last_above: zero }
    }

    /// The mean so far; `None` before the first sample.
    pub(crate) fn value(&self) -> Option<f64> {
        self.value
    }

    pub(crate) fn passed(&self) -> bool {
        self.passed
    }

    /// Whether the value is above the high mark now, for however short a time.
    pub(crate) fn is_above(&self) -> bool {
        self.value.is_some_and(|value| value > self.high)
    }

    /// The mark that would change the state: the high one before it is passed, then the low one.
    pub(crate) fn mark(&self) -> f64 {
        if self.passed { self.low } else { self.high }
    }

    /// A finite sample, not earlier than the one before.
    pub(crate) fn sample(&mut self, now: Instant, sample: f64, times: Times) {
        let elapsed = now.since(self.sampled).as_secs_f64();
        let smoothing = times.smoothing.as_secs_f64();
        let value = match self.value {
            // Written so that it grows with both the old value and the sample, rounding included.
            Some(old) if smoothing > 0.0 => {
                let weight = elapsed / (elapsed + smoothing);
                old * (1.0 - weight) + sample * weight
            }
            _ => sample,
        };
        self.value = Some(value);
        self.sampled = now;
        if value > self.high {
            self.last_above = now;
        }
        let (beyond, long_enough) = if self.passed {
            (value < self.low, now.since(self.last_above) >= times.dwell)
        } else {
            (value > self.high, true)
        };
        let after = if self.passed { times.leave_after } else { times.enter_after };
        if !beyond {
            self.beyond_since = None;
            return;
        }
        let since = *self.beyond_since.get_or_insert(now);
        if long_enough && now.since(since) >= after {
            self.passed = !self.passed;
            self.beyond_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one value a second, smoothing off; returns the seconds at which the state changed.
    fn changes(enter: u64, leave: u64, dwell: u64, values: impl IntoIterator<Item = f64>) -> Vec<(usize, bool)> {
        let secs = Duration::from_secs;
        let times =
            Times { smoothing: Duration::ZERO, enter_after: secs(enter), leave_after: secs(leave), dwell: secs(dwell) };
        let mut latch = Latch::new(0.5, 0.8);
        let mut changes = Vec::new();
        for (second, value) in values.into_iter().enumerate() {
            let before = latch.passed();
            latch.sample(Instant::ZERO + Duration::from_secs(second as u64), value, times);
            if latch.passed() != before {
                changes.push((second, latch.passed()));
            }
        }
        changes
    }

    fn runs(runs: &[(f64, usize)]) -> Vec<f64> {
        runs.iter().flat_map(|(value, count)| std::iter::repeat_n(*value, *count)).collect()
    }

    #[test]
    fn entered_and_left_after_their_times() {
        for (values, expected) in [
            (runs(&[(0.9, 100)]), vec![(5, true)]),
            (runs(&[(0.8, 100)]), vec![]),
            (runs(&[(0.9, 5), (0.7, 1), (0.9, 5)]), vec![]),
            (runs(&[(0.9, 10), (0.4, 100)]), vec![(5, true), (70, false)]),
            (runs(&[(0.9, 10), (0.5, 200)]), vec![(5, true)]),
            (runs(&[(0.9, 10), (0.4, 59), (0.6, 1), (0.4, 61)]), vec![(5, true), (130, false)]),
        ] {
            assert_eq!(changes(5, 60, 30, values.clone()), expected, "{values:?}");
        }
    }

    #[test]
    fn the_dwell_counts_from_the_last_time_above() {
        assert_eq!(changes(0, 0, 30, runs(&[(0.9, 11), (0.4, 100)])), [(0, true), (40, false)]);
        assert_eq!(changes(0, 10, 5, runs(&[(0.9, 11), (0.4, 100)])), [(0, true), (21, false)]);
    }

    #[test]
    fn the_mean_follows_with_its_time_constant() {
        let times = Times::from(&Config { smoothing: Duration::from_secs(1), ..Config::default() });
        let mut latch = Latch::new(0.5, 0.8);
        latch.sample(Instant::from_micros(7_000_000), 0.2, times);
        assert_eq!(latch.value(), Some(0.2), "the first sample is all that is known");
        latch.sample(Instant::from_micros(8_000_000), 1.0, times);
        assert_eq!(latch.value(), Some(0.6));
        latch.sample(Instant::from_micros(8_000_000), 1.0, times);
        assert_eq!(latch.value(), Some(0.6), "no time, no weight");
    }
}
