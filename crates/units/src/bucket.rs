//! A token bucket on a clock that the caller gives.

use crate::{BytesPerSecond, Instant};
use std::time::Duration;

/// Lets bytes through at a rate, with a burst.
///
/// The bucket starts full.
/// A whole part may be taken at once even when it is larger than the burst ([`TokenBucket::spend`]): the bucket then goes
/// into debt and the next bytes wait, so that the long-run rate holds without cutting parts.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: BytesPerSecond,
    burst_bytes: u64,
    /// Tokens in millionths of a byte, so that slow rates lose nothing to rounding; negative is debt.
    level_micro: i128,
    updated: Instant,
}

const MICRO: i128 = 1_000_000;

impl TokenBucket {
    /// A full bucket. `burst_bytes` is what may pass at once after a pause.
    pub fn new(rate: BytesPerSecond, burst_bytes: u64) -> Self {
        Self { rate, burst_bytes, level_micro: i128::from(burst_bytes) * MICRO, updated: Instant::ZERO }
    }

    /// The rate that the bucket holds in the long run.
    pub fn rate(&self) -> BytesPerSecond {
        self.rate
    }

    /// Changes the rate from `now` on; what has been saved or owed stays.
    pub fn set_rate(&mut self, now: Instant, rate: BytesPerSecond) {
        self.refill(now);
        self.rate = rate;
    }

    fn refill(&mut self, now: Instant) {
        let micros = i128::from(now.as_micros().saturating_sub(self.updated.as_micros()));
        self.updated = self.updated.max(now);
        let full = i128::from(self.burst_bytes) * MICRO;
        self.level_micro = (self.level_micro + micros * i128::from(self.rate.as_u64())).min(full);
    }

    /// Takes `bytes` if they are all there; says whether it did.
    pub fn take(&mut self, now: Instant, bytes: u64) -> bool {
        self.refill(now);
        let cost = i128::from(bytes) * MICRO;
        let enough = self.level_micro >= cost;
        if enough {
            self.level_micro -= cost;
        }
        enough
    }

    /// Takes `bytes` and goes into debt for what is missing; returns how long to wait until the debt is paid.
    pub fn spend(&mut self, now: Instant, bytes: u64) -> Duration {
        self.refill(now);
        self.level_micro -= i128::from(bytes) * MICRO;
        self.wait()
    }

    /// How long until the bucket is out of debt; zero if it is not in debt.
    pub fn ready_in(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.wait()
    }

    fn wait(&self) -> Duration {
        if self.level_micro >= 0 {
            return Duration::ZERO;
        }
        let rate = i128::from(self.rate.as_u64().max(1));
        let micros = (-self.level_micro + rate - 1) / rate;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debt_is_paid_at_the_rate() {
        let mut bucket = TokenBucket::new(BytesPerSecond::new(1_000), 100);
        assert_eq!(bucket.spend(Instant::ZERO, 1_100), Duration::from_secs(1));
        assert_eq!(bucket.ready_in(Instant::from_micros(400_000)), Duration::from_millis(600));
        assert!(!bucket.take(Instant::from_micros(999_000), 1));
        assert!(bucket.take(Instant::from_micros(1_001_000), 1));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(BytesPerSecond::new(1_000), 100);
        assert!(bucket.take(Instant::from_micros(5_000_000), 100));
        assert!(!bucket.take(Instant::ZERO, 1));
        assert!(!bucket.take(Instant::from_micros(5_000_000), 1));
    }

    proptest! {
        /// Whatever is asked and when, never more than burst + rate × time passes.
        #[test]
        fn never_above_rate_and_burst(
            rate in 1u64..1_000_000_000,
            burst in 0u64..10_000_000,
            asks in prop::collection::vec((0u64..2_000_000, 0u64..5_000_000), 1..200),
        ) {
            let mut bucket = TokenBucket::new(BytesPerSecond::new(rate), burst);
            let (mut now, mut passed) = (0u64, 0u128);
            for (pause, bytes) in asks {
                now += pause;
                if bucket.take(Instant::from_micros(now), bytes) {
                    passed += u128::from(bytes);
                }
                prop_assert!(passed <= u128::from(burst) + u128::from(now) * u128::from(rate) / 1_000_000 + 1);
            }
        }
    }
}
