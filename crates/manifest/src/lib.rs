//! What a content is: segments, parts, lengths, hashes and proofs.

mod id;
mod part;

pub use id::{ContentId, ParseIdError, PartId, SegmentHash};
pub use part::{MAX_PARTS, PartLen, PartNumber, PartRange};
