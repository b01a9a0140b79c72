//! What a content is: segments, parts, lengths, hashes and proofs.

mod builder;
mod date;
mod id;
mod json;
mod layout;
mod manifest;
mod name;
mod nfc;
mod nfc_tables;
mod part;
mod part_ids;
mod policy;
mod proof;
mod signed;
mod tree;
mod verify;

pub use builder::{Builder, PrepareError, Prepared};
pub use ed25519_dalek::SigningKey;
pub use id::{ContentId, ParseIdError, PartId, SegmentHash, ServerKey};
pub use layout::{Layout, LayoutError, MAX_SEGMENTS, MAX_TOTAL_LEN, PartPlace, SegmentSpan};
pub use manifest::{
    CLOCK_SKEW, MAX_GRACE, MAX_KEYS, MAX_MANIFEST_LEN, MAX_TIME, Manifest, ManifestError, ManifestSpec, Segment,
    SegmentSpec, Validity, stream_content_id,
};
pub use name::{MAX_NAME_LEN, NameError, NameRule, check_name, folded_name};
pub use part::{MAX_PARTS, PartLen, PartNumber, PartRange};
pub use part_ids::{PartIds, ProofError};
pub use policy::{Kind, part_len};
pub use proof::{HashProof, ProofDecodeError};
pub use signed::{SignedManifest, Trust, server_key};
pub use tree::part_id;
pub use verify::{ExpectedPart, VerifiedPart, VerifyError};
