//! What an origin may be told.

use hybrid_coordinator::EgressPolicy;
use hybrid_qos::{Class, Rule};
use hybrid_units::{ByteCount, BytesPerSecond, Duration};

/// The class of contents that no rule fits.
pub(crate) const FILE: &str = "file";

/// One class of contents.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "who makes a class must know all that it has")]
pub struct ClassConfig {
    /// Its name, thresholds and part lengths.
    pub class: Class,
    /// What the server sends to its swarms; `None` for the coordinator's own policy.
    pub egress_policy: Option<EgressPolicy>,
}

impl From<Class> for ClassConfig {
    fn from(class: Class) -> Self {
        Self { class, egress_policy: None }
    }
}

/// An origin's settings. [`Default`] is for a public server of files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The coordinator's settings. Its seed and its limit of egress are set by the origin.
    pub coordinator: hybrid_coordinator::Config,
    /// Classes of contents beside `file`, which the coordinator's own settings describe. Default: page, vod and live
    /// ([`hybrid_qos::Class::defaults`]), with the coordinator's egress policy. Their limit of egress is set by the origin.
    pub classes: Vec<ClassConfig>,
    /// Which class a content belongs to, by the first rule that fits; `file` if none does. Default: by media type.
    pub rules: Vec<Rule>,
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
            classes: Class::defaults().into_iter().filter(|class| class.name != FILE).map(ClassConfig::from).collect(),
            rules: Rule::defaults(),
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
