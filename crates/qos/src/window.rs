//! Samples of the last while, few enough to sort.

use hybrid_units::{Duration, Instant};
use std::collections::VecDeque;

/// Samples that are kept: enough for a fifth of them to mean something, few enough to sort at every join (4 KiB).
pub(crate) const SAMPLES_MAX: usize = 256;

/// Finite numbers of the last `span`, at most [`SAMPLES_MAX`] of them, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    span: Duration,
    samples: VecDeque<(Instant, f64)>,
}

impl Window {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, samples: VecDeque::new() }
    }

    /// A finite value, not earlier than the one before.
    pub(crate) fn record(&mut self, now: Instant, value: f64) {
        let full = self.samples.len() == SAMPLES_MAX;
        if full || self.samples.front().is_some_and(|(at, _)| now.since(*at) > self.span) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, value));
    }

    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// The samples that are not too old, smallest first.
    pub(crate) fn sorted(&self, now: Instant) -> Vec<f64> {
        let fresh = self.samples.iter().filter(|(at, _)| now.since(*at) <= self.span);
        let mut values: Vec<f64> = fresh.map(|(_, value)| *value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    pub(crate) fn last(&self) -> Option<f64> {
        self.samples.back().map(|(_, value)| *value)
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    pub(crate) fn check_invariants(&self) {
        assert!(self.samples.len() <= SAMPLES_MAX, "{} samples are kept", self.samples.len());
        assert!(self.samples.iter().is_sorted_by_key(|(at, _)| *at), "samples must be in order");
        assert!(self.samples.iter().all(|(_, value)| value.is_finite()), "{self:?}");
    }
}

/// The value that `part` of `of` sorted values do not exceed; `None` of nothing.
pub(crate) fn quantile(sorted: &[f64], part: usize, of: usize) -> Option<f64> {
    sorted.get((sorted.len() * part / of.max(1)).min(sorted.len().saturating_sub(1))).copied()
}

/// The largest value of the last `SECONDS` seconds, second by second.
#[derive(Clone, Debug)]
pub(crate) struct RecentMax<const SECONDS: usize>([(u64, f64); SECONDS]);

impl<const SECONDS: usize> Default for RecentMax<SECONDS> {
    fn default() -> Self {
        Self([(0, 0.0); SECONDS])
    }
}

impl<const SECONDS: usize> RecentMax<SECONDS> {
    pub(crate) fn record(&mut self, now: Instant, value: f64) {
        let second = now.as_micros() / 1_000_000;
        let index = usize::try_from(second % SECONDS as u64).unwrap_or(0);
        if let Some((recorded, max)) = self.0.get_mut(index) {
            *max = if *recorded == second { value.max(*max) } else { value };
            *recorded = second;
        }
    }

    /// `None` if nothing above zero was recorded in the window.
    pub(crate) fn max(&self, now: Instant) -> Option<f64> {
        let second = now.as_micros() / 1_000_000;
        let fresh = |recorded: u64| recorded <= second && second - recorded < SECONDS as u64;
        self.0.iter().filter(|(recorded, max)| fresh(*recorded) && *max > 0.0).map(|(_, max)| *max).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn old_samples_do_not_count_and_memory_is_bounded() {
        let mut window = Window::new(Duration::from_secs(10));
        (0..1_000u32).for_each(|millis| window.record(at(millis.into()), millis.into()));
        window.check_invariants();
        let sorted = window.sorted(at(999));
        assert_eq!((sorted.len(), sorted[0]), (SAMPLES_MAX, 744.0));
        assert_eq!(quantile(&sorted, 1, 5), Some(744.0 + 51.0));
        assert_eq!(quantile(&sorted, 1, 1), Some(999.0));
        assert_eq!(window.sorted(at(10_990)).len(), 10);
        assert_eq!(quantile(&window.sorted(at(20_000)), 1, 2), None);
    }

    #[test]
    fn the_maximum_is_forgotten_second_by_second() {
        let mut max = RecentMax::<10>::default();
        assert_eq!(max.max(at(0)), None);
        max.record(at(500), 7.0);
        max.record(at(900), 3.0);
        max.record(at(1_000), 2.0);
        for (millis, expected) in [(1_000, Some(7.0)), (9_999, Some(7.0)), (10_000, Some(2.0)), (11_000, None)] {
            assert_eq!(max.max(at(millis)), expected, "{millis}");
        }
    }
}
