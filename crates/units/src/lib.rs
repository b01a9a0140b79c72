//! Time, byte counts and rates: the words every layer of Hybrid shares.
//!
//! Nothing here reads a clock.
//! Time is an argument everywhere in the pure crates, and an [`Instant`] is a plain number, so the same code runs under an
//! async runtime, in a web page and in the simulator.
//!
//! ```
//! use hybrid_units::{BytesPerSecond, Instant, TokenBucket};
//! use std::time::Duration;
//!
//! let rate: BytesPerSecond = "20Mbit/s".parse().expect("a rate");
//! assert_eq!(rate.as_u64(), 2_500_000);
//!
//! let mut bucket = TokenBucket::new(rate, 500_000);
//! let start = Instant::ZERO;
//! assert!(bucket.take(start, 500_000));
//! assert!(!bucket.take(start, 1));
//! assert!(bucket.take(start + Duration::from_millis(100), 250_000));
//! ```

mod amount;
mod bucket;
mod time;

pub use amount::{ByteCount, BytesPerSecond, ParseAmountError, Ratio};
pub use bucket::TokenBucket;
pub use std::time::Duration;
pub use time::{Instant, ParseDurationError, UnixTime, parse_duration};

/// How a client gets a content: the decision of the seed's figure 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the two modes are the system's definition; a third one must break every match"
)]
pub enum Mode {
    /// The server itself sends the parts, over HTTP.
    ClientServer,
    /// Peers send the parts; the server gives coordinates, hashes, grants and help in need.
    PeerToPeer,
}

impl Mode {
    /// The mode's name in logs, JSON and metrics: `client-server` or `peer-to-peer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientServer => "client-server",
            Self::PeerToPeer => "peer-to-peer",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
