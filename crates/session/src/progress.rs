//! How far a session is, and what came from where.

use hybrid_units::{ByteCount, Duration, Mode};
use hybrid_wire::Source;

/// A session's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The mode that the server decided on; `None` before it did.
    pub mode: Option<Mode>,
    /// The mode of the first welcome; `None` before it came.
    pub mode_at_join: Option<Mode>,
    /// The content's length.
    pub total: ByteCount,
    /// Parts of the content.
    pub parts_total: u32,
    /// Parts in the store.
    pub parts_held: u32,
    /// Verified bytes in the store, by source in the order of [`Source::ALL`].
    pub received: [ByteCount; Source::ALL.len()],
    /// Part bytes sent to peers.
    pub sent: ByteCount,
    /// What may have been sent by now, all told; `None` without a cap. With a ratio it grows with what comes.
    pub upload_max: Option<ByteCount>,
    /// Why peers are not served now; `None` if they are.
    pub uploads_off: Option<UploadsOff>,
    /// Bytes that came twice, or came and were not the part.
    pub wasted: ByteCount,
    /// Peers connected now.
    pub peers: u32,
    /// Peers that gave at least one part.
    pub peers_used: u32,
    /// From the first input to the first part; `None` before it.
    pub start_up: Option<Duration>,
}

/// Why peers are not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new reason must be told everywhere")]
pub enum UploadsOff {
    /// The user wants it so.
    NoUpload,
    /// No other part fits what may be sent in this session.
    Volume,
    /// No other part fits what may be sent for what came.
    Ratio,
    /// These are not the hours for it.
    Hours,
    /// The user pays for each byte.
    Metered,
    /// The server gives no receivers: the uplink is too slow for a part in time.
    Server,
}

impl UploadsOff {
    /// The reason's name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoUpload => "no-upload",
            Self::Volume => "volume",
            Self::Ratio => "ratio",
            Self::Hours => "hours",
            Self::Metered => "metered",
            Self::Server => "server",
        }
    }
}

impl Progress {
    /// Verified bytes in the store.
    pub fn held(&self) -> ByteCount {
        self.received.iter().fold(ByteCount::ZERO, |sum, bytes| sum + *bytes)
    }

    /// Verified bytes from one source.
    pub fn from(&self, source: Source) -> ByteCount {
        Source::ALL.iter().position(|s| *s == source).map_or(ByteCount::ZERO, |index| self.received[index])
    }

    /// Of what was fetched in this session, the share that came from peers; 0 if nothing was fetched.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn peer_share(&self) -> f64 {
        let fetched = self.held().as_u64() - self.from(Source::Store).as_u64();
        if fetched == 0 { 0.0 } else { self.from(Source::Peer).as_u64() as f64 / fetched as f64 }
    }

    pub(crate) fn add(&mut self, source: Source, bytes: u64) {
        if let Some(index) = Source::ALL.iter().position(|s| *s == source) {
            self.received[index] += ByteCount::new(bytes);
        }
    }

    /// Bytes that are no longer held: they came for nothing.
    pub(crate) fn lose(&mut self, source: Source, bytes: u64) {
        if let Some(index) = Source::ALL.iter().position(|s| *s == source) {
            self.received[index] = ByteCount::new(self.received[index].as_u64().saturating_sub(bytes));
        }
        self.wasted += ByteCount::new(bytes);
    }
}
