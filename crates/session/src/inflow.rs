//! How fast parts come in, from all peers together.

use hybrid_units::{Duration, Instant};

/// Over how long the rate is taken, at least.
const SPAN: Duration = Duration::from_secs(1);

/// Bytes of the span that runs and of the one before.
#[derive(Debug)]
pub(crate) struct Inflow {
    began: Instant,
    bytes: u64,
    /// In bytes per second, over the span before.
    before: f64,
}

impl Inflow {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, before: 0.0 }
    }

    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        let elapsed = now.since(self.began);
        if elapsed >= SPAN {
            self.before = self.bytes as f64 / elapsed.as_secs_f64();
            self.bytes = 0;
            self.began = now;
        }
        self.bytes += bytes;
    }

    /// Bytes per second: of this span or the one before, whichever is more, so that a rate that grows counts at once and one
    /// that falls a span later.
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        let elapsed = now.since(self.began).max(SPAN / 4).as_secs_f64();
        self.before.max(self.bytes as f64 / elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_rate_that_grows_counts_at_once_and_one_that_falls_a_span_later() {
        let mut inflow = Inflow::new(at(0));
        assert_eq!(inflow.rate(at(0)), 0.0);
        inflow.add(at(500), 1_000);
        assert_eq!(inflow.rate(at(500)), 2_000.0);
        inflow.add(at(1_000), 500);
        assert_eq!(inflow.rate(at(1_000)), 2_000.0, "500 in a quarter of a second, the least that is judged by");
        inflow.add(at(1_100), 1_000);
        assert_eq!(inflow.rate(at(1_100)), 6_000.0);
        inflow.add(at(3_000), 1);
        assert_eq!(inflow.rate(at(4_000)), 750.0, "1,500 bytes in the two seconds before");
    }
}
