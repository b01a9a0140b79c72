//! How server, clients and peers say it: messages, tickets and their codec.

pub mod control;
mod parts;
pub mod peer;
mod types;

pub use parts::{PartRanges, PartRangesError};
pub use types::{PeerCoordinates, PeerId, PeerLimits, SessionToken, Source, UploadContract};

/// The protocol's version, in `Join` and `Hello`; a new one when old programs could misread new messages.
pub const PROTOCOL_VERSION: u16 = 1;
