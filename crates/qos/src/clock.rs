//! Times as they are given: never backwards, and no jump without a second witness.

use crate::Refused;
use hybrid_units::{Duration, Instant};

/// A longer pause between two measurements counts as a jump. Measurements come several times a second, or with clients;
/// an hour without any is a machine that slept or a clock that was set.
const JUMP: Duration = Duration::from_secs(3_600);

/// The latest time that was believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    last: Option<Instant>,
    /// A time that was refused because it lay too far ahead.
    doubted: Option<Instant>,
}

impl Clock {
    /// The latest time that was believed; the origin before any.
    pub(crate) fn last(&self) -> Instant {
        self.last.unwrap_or(Instant::ZERO)
    }

    /// Believes `now` or says why not.
    ///
    /// A jump ahead is refused once. If the next time lies there as well, the clock did jump, and refusing for ever would
    /// leave the engine blind.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<(), Refused> {
        let Some(last) = self.last else {
            self.last = Some(now);
            return Ok(());
        };
        if now < last {
            return Err(Refused::ClockBack { last, got: now });
        }
        if now.since(last) > JUMP {
            let confirmed = self.doubted.is_some_and(|doubted| now >= doubted && now.since(doubted) <= JUMP);
            if !confirmed {
                self.doubted = Some(now);
                return Err(Refused::ClockJump { last, got: now });
            }
        }
        (self.last, self.doubted) = (Some(now), None);
        Ok(())
    }

    /// The time to answer with where an answer is owed: `now`, or the latest believed time if `now` is not believed.
    pub(crate) fn answer(&mut self, now: Instant) -> Instant {
        let believed = self.advance(now).is_ok();
        if believed { now } else { self.last() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn jumps_need_a_second_witness() {
        let mut clock = Clock::default();
        for (secs, believed) in [
            (1_000_000, true), // any origin
            (999_999, false),
            (1_000_000, true),
            (1_003_600, true),
            (2_000_000, false),
            (1_003_601, true), // the doubted time was a slip
            (2_000_000, false),
            (1_500_000, false),
            (9_000_000, false),
            (9_000_001, true),
        ] {
            assert_eq!(clock.advance(at(secs)).is_ok(), believed, "{secs}");
        }
        assert_eq!(clock.answer(at(5)), at(9_000_001));
        assert_eq!(clock.answer(Instant::FAR_FUTURE), at(9_000_001));
    }
}
