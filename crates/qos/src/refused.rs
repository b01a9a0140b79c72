//! Why a measurement was left out.

use crate::Meter;
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// The largest rate that is believed, 8 Tbit/s: no server sends as much, so it is an error of measurement.
pub(crate) const RATE_MAX: BytesPerSecond = BytesPerSecond::new(1_000_000_000_000);

/// Why a measurement was left out. Whoever refused it is as before, but for remembering a doubtful time.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A time before that of the last measurement.
    #[error("the clock went back: the last measurement was at {last}, this one is at {got}")]
    ClockBack {
        /// The latest time so far.
        last: Instant,
        /// The time given.
        got: Instant,
    },
    /// A time so far after the last one that the clock may have jumped; a second measurement there is believed.
    #[error(
        "the clock jumped: the last measurement was at {last}, this one is at {got}; the next one there is believed"
    )]
    ClockJump {
        /// The latest time so far.
        last: Instant,
        /// The time given.
        got: Instant,
    },
    /// No share of the processors.
    #[error("cpu must be a number from 0 to 1, got {0}")]
    Cpu(f64),
    /// A rate that nobody reaches.
    #[error("{got} is beyond the largest rate that is believed, {max}", max = RATE_MAX)]
    Rate {
        /// The rate given.
        got: BytesPerSecond,
    },
    /// NaN, infinite, negative or beyond what can be.
    #[error("{} must be a number from 0 to {max}, got {got}", .meter.as_str())]
    Value {
        /// Where it was to be recorded.
        meter: Meter,
        /// The largest value that is believed, in the meter's unit.
        max: f64,
        /// The value given.
        got: f64,
    },
    /// A report over no time, or over more than a report may tell of.
    #[error("a report must tell of more than nothing and at most {max:?}, got {got:?}")]
    Interval {
        /// The longest interval.
        max: Duration,
        /// The interval given.
        got: Duration,
    },
    /// A report that contradicts what the server counted.
    #[error("the client says that it got {claimed} bytes from the server, which sent it {counted}")]
    Contradicted {
        /// What the client says.
        claimed: u64,
        /// What the server counted over the same time.
        counted: u64,
    },
    /// As many network prefixes vote as are kept.
    #[error("{max} network prefixes vote already")]
    TooManyPrefixes {
        /// The limit.
        max: usize,
    },
}
