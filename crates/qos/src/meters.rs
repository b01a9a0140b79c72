//! What is measured of one class of contents, by the server and by its clients.
//!
//! Meters show; they decide nothing. What the engine decides from stands in `allowance` and `latch`, what it believes of
//! reports in `reports`.

use crate::Refused;
use crate::clock::Clock;
use crate::refused::RATE_MAX;
use crate::window::{Window, quantile};
use hybrid_units::{Duration, Instant};

/// How long a sample counts: long enough for a report interval of 10 s, short enough to be about now.
const SPAN: Duration = Duration::from_secs(60);

/// A quantity that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "whoever shows meters must show every one")]
pub enum Meter {
    /// Clients that are served directly.
    DirectClients,
    /// Bytes per second that one direct client gets, as the server sees them acknowledged.
    DirectRate,
    /// Bytes per second that the server sends.
    Egress,
    /// The share of the server's processors in use, 0 to 1.
    Cpu,
    /// Seconds that bytes wait in the server before they are sent.
    QueueDelay,
    /// Seconds from a request for a part until all its bytes are there to be sent; of a part sent unasked, until they are written.
    PartTime,
    /// Reported: seconds from the join to the first part.
    StartUp,
    /// Reported: pauses per minute.
    Stalls,
    /// Reported: seconds of media ahead of the playhead.
    Buffer,
    /// Reported: bytes per second from the server.
    FromServer,
    /// Reported: bytes per second from peers.
    FromPeers,
    /// Reported: round-trip time to the server, in seconds.
    RoundTrip,
    /// Reported: the share of packets lost, 0 to 1.
    Loss,
    /// Reported: parts per minute that peers refused.
    RefusedParts,
    /// Reported: parts per minute that did not match their id.
    BadParts,
}

impl Meter {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 15] = [
        Self::DirectClients,
        Self::DirectRate,
        Self::Egress,
        Self::Cpu,
        Self::QueueDelay,
        Self::PartTime,
        Self::StartUp,
        Self::Stalls,
        Self::Buffer,
        Self::FromServer,
        Self::FromPeers,
        Self::RoundTrip,
        Self::Loss,
        Self::RefusedParts,
        Self::BadParts,
    ];

    /// The meter's name in logs, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DirectClients => "direct-clients",
            Self::DirectRate => "direct-rate",
            Self::Egress => "egress",
            Self::Cpu => "cpu",
            Self::QueueDelay => "queue-delay",
            Self::PartTime => "part-time",
            Self::StartUp => "start-up",
            Self::Stalls => "stalls",
            Self::Buffer => "buffer",
            Self::FromServer => "from-server",
            Self::FromPeers => "from-peers",
            Self::RoundTrip => "round-trip",
            Self::Loss => "loss",
            Self::RefusedParts => "refused-parts",
            Self::BadParts => "bad-parts",
        }
    }

    /// The largest value that is believed, in the meter's unit.
    pub fn max(self) -> f64 {
        match self {
            Self::DirectClients => f64::from(u32::MAX),
            Self::DirectRate | Self::Egress | Self::FromServer | Self::FromPeers => RATE_MAX.as_u64() as f64,
            Self::Cpu | Self::Loss => 1.0,
            Self::QueueDelay | Self::RoundTrip => 60.0,
            Self::PartTime | Self::StartUp => 3_600.0,
            Self::Buffer => 86_400.0,
            Self::Stalls => 600.0,
            Self::RefusedParts | Self::BadParts => 60_000.0,
        }
    }

    /// The value, if it can be one of this meter's.
    pub(crate) fn check(self, value: f64) -> Result<f64, Refused> {
        let max = self.max();
        if (0.0..=max).contains(&value) { Ok(value) } else { Err(Refused::Value { meter: self, max, got: value }) }
    }
}

/// What a meter saw lately.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Samples of the last minute, at most 256.
    pub count: usize,
    /// A fifth of the samples are below this.
    pub low: f64,
    /// Half of them are below this.
    pub median: f64,
    /// A fifth of the samples are above this.
    pub high: f64,
    /// The latest.
    pub last: f64,
}

/// One window for each [`Meter`]: the last minute, at most 256 samples each, 60 KiB in all.
#[derive(Clone, Debug)]
pub struct Meters {
    clock: Clock,
    windows: [Window; Meter::ALL.len()],
}

impl Default for Meters {
    fn default() -> Self {
        Self { clock: Clock::default(), windows: std::array::from_fn(|_| Window::new(SPAN)) }
    }
}

impl Meters {
    /// Adds a sample.
    ///
    /// # Errors
    /// When the value cannot be one of this meter's, or the clock went back or jumped; no sample has changed then.
    pub fn record(&mut self, now: Instant, meter: Meter, value: f64) -> Result<(), Refused> {
        let value = meter.check(value)?;
        self.clock.advance(now)?;
        if let Some(window) = self.windows.get_mut(meter as usize) {
            window.record(now, value);
        }
        Ok(())
    }

    /// What was measured in the minute before `now`; `None` if nothing was.
    pub fn summary(&self, now: Instant, meter: Meter) -> Option<Summary> {
        let window = self.windows.get(meter as usize)?;
        let sorted = window.sorted(now);
        Some(Summary {
            count: sorted.len(),
            low: quantile(&sorted, 1, 5)?,
            median: quantile(&sorted, 1, 2)?,
            high: quantile(&sorted, 4, 5)?,
            last: window.last()?,
        })
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        self.windows.iter().for_each(Window::check_invariants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_meter_has_its_place_and_name() {
        let mut names = std::collections::BTreeSet::new();
        for (index, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter as usize, index);
            assert!(names.insert(meter.as_str()), "{meter:?}");
        }
    }

    #[test]
    fn summaries_are_of_the_last_minute() {
        let mut meters = Meters::default();
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        for secs in 0..100u32 {
            meters.record(at(secs.into()), Meter::StartUp, f64::from(secs)).unwrap();
        }
        let summary = meters.summary(at(99), Meter::StartUp).unwrap();
        assert_eq!(summary, Summary { count: 61, low: 51.0, median: 69.0, high: 87.0, last: 99.0 });
        assert_eq!(meters.summary(at(99), Meter::Egress), None);
        assert_eq!(meters.summary(at(200), Meter::StartUp), None);
    }
}
