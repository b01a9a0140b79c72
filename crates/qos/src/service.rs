//! How well direct clients are served, judged by their rates.

use crate::window::{RecentMax, Window, quantile};
use hybrid_units::{Duration, Instant};

/// Older rates say nothing about now.
const RATE_AGE_MAX: Duration = Duration::from_secs(10);
/// Fewer rates judge nobody.
const RATES_MIN: usize = 3;
/// Seconds over which the best median counts as what clients take when nothing holds them back.
const TYPICAL_SECS: usize = 60;
/// Below this share of the typical rate, something holds clients back. Lower than noise, and than one flow more among four.
const FELL: f64 = 0.8;

/// Rates of direct clients, and what they took at best.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    rates: Window,
    typical: RecentMax<TYPICAL_SECS>,
}

/// The rates of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// The fifth that is served worst gets at most this, in bytes per second.
    pub(crate) slow: f64,
    pub(crate) median: f64,
    /// The best median of the last minute.
    pub(crate) typical: f64,
}

impl Rates {
    /// Whether clients get clearly less than they took before: they share something that is full.
    pub(crate) fn fell(self) -> bool {
        self.median < FELL * self.typical
    }
}

impl Service {
    pub(crate) fn new() -> Self {
        Self { rates: Window::new(RATE_AGE_MAX), typical: RecentMax::default() }
    }

    pub(crate) fn record(&mut self, now: Instant, rate: f64) {
        self.rates.record(now, rate);
    }

    /// The next judgement is by rates that saw what was just changed.
    pub(crate) fn forget_rates(&mut self) {
        self.rates.clear();
    }

    /// `None` if too few were heard of lately.
    pub(crate) fn rates(&mut self, now: Instant) -> Option<Rates> {
        let sorted = self.rates.sorted(now);
        if sorted.len() < RATES_MIN {
            return None;
        }
        let (slow, median) = (quantile(&sorted, 1, 5)?, quantile(&sorted, 1, 2)?);
        self.typical.record(now, median);
        let typical = self.typical.max(now).unwrap_or(median);
        Some(Rates { slow, median, typical })
    }

    pub(crate) fn check_invariants(&self) {
        self.rates.check_invariants();
    }
}
