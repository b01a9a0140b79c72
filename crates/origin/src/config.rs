//! What an origin may be told.

use hybrid_units::{ByteCount, BytesPerSecond, Duration};

/// An origin's settings. [`Default`] is for a public server of files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The coordinator's settings. Its seed and its limit of egress are set by the origin.
    pub coordinator: hybrid_coordinator::Config,
    /// What is sent in all, over all connections; headers and TLS come on top. Default: no limit.
    pub egress_limit: Option<BytesPerSecond>,
    /// Parts kept in memory. Default 256 MiB: the crowd is at a few contents, and most of it at the same parts.
    pub cache: ByteCount,
    /// Part ids travel with the manifest of contents shorter than this. Default 50 MB.
    pub inline_hashes_below: ByteCount,
    /// Whether all files are prepared at the start, one after the other, in the background. Default yes: the first client
    /// of a large file need not wait then.
    pub prepare_at_start: bool,
    /// How long a request waits for its content to be prepared before it is told to ask again. Default 20 s: less than
    /// most HTTP clients wait for an answer.
    pub preparation_wait: Duration,
    /// How long a control channel may take for its join. Default 10 s.
    pub join_limit: Duration,
    /// Randomness for the coordinator's choices; a fixed one replays a run. Default none: from the operating system.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinator: hybrid_coordinator::Config::default(),
            egress_limit: None,
            cache: ByteCount::new(256 << 20),
            inline_hashes_below: ByteCount::new(50_000_000),
            prepare_at_start: true,
            preparation_wait: Duration::from_secs(20),
            join_limit: Duration::from_secs(10),
            seed: None,
        }
    }
}
