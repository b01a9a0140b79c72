//! What the engine is told and asked.

use hybrid_units::BytesPerSecond;

/// What the server measured of itself since the sample before; to be given several times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "who measures must know all that is asked for")]
pub struct Sample {
    /// Bytes per second sent.
    pub egress: BytesPerSecond,
    /// The share of all processors that was in use, 0 to 1; `None` where it cannot be measured.
    pub cpu: Option<f64>,
}

/// What the caller counts at the moment of a join, the newcomer not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "who asks must know all that is compared")]
pub struct Load {
    /// Clients that are served directly.
    pub direct_clients: u32,
    /// Holders of the content that the newcomer could be sent to.
    pub holders_reachable: u32,
}

/// A newcomer, and what is known of where it could go. A [`Load`] is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "who asks must know all that is compared; the rest by `..`")]
pub struct Newcomer {
    /// The counts.
    pub load: Load,
    /// What the holders that it could be sent to can send together; `None` if nobody knows, which counts as enough.
    pub uplinks: Option<BytesPerSecond>,
    /// What is owed to direct clients of other classes on the same link: their number times what they require. Default none.
    pub reserved: BytesPerSecond,
    /// It belongs to the control group ([`Engine::in_control_group`](crate::Engine::in_control_group)).
    pub control: bool,
}

impl From<Load> for Newcomer {
    fn from(load: Load) -> Self {
        Self { load, ..Self::default() }
    }
}
