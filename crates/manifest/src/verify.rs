//! The only door through which a part's bytes come in.
//!
//! Invariant: a [`VerifiedPart`] holds bytes whose hash is the part's id, which was proved against the manifest.
//! There is no other way to make one, so a store, a player or a peer that takes only verified parts takes only right bytes.

use crate::layout::PartPlace;
use crate::tree::part_id;
use crate::{ContentId, PartId, PartNumber};
use bytes::Bytes;

/// What a part must be: its place and its id.
///
/// Only [`crate::PartIds::expect`] makes one.
/// It is small and stands for itself, so it can go to the thread that hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedPart {
    content: ContentId,
    place: PartPlace,
    id: PartId,
}

/// A part whose bytes are right.
///
/// Only [`ExpectedPart::verify`] makes one; a literal does not compile:
///
/// ```compile_fail,E0451
/// use hybrid_manifest::{ExpectedPart, VerifiedPart};
/// fn forge(expected: ExpectedPart, bytes: bytes::Bytes) -> VerifiedPart {
///     VerifiedPart { expected, bytes }
/// }
/// ```
///
/// This does:
///
/// ```
/// use hybrid_manifest::{ExpectedPart, VerifiedPart, VerifyError};
/// fn check(expected: ExpectedPart, bytes: bytes::Bytes) -> Result<VerifiedPart, VerifyError> {
///     expected.verify(bytes)
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedPart {
    expected: ExpectedPart,
    bytes: Bytes,
}

/// Why bytes are not the part: whoever sent them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Too many or too few bytes.
    #[error("part {number} has {expected} bytes, got {got}")]
    Length {
        /// Which part.
        number: PartNumber,
        /// How many bytes it has.
        expected: u32,
        /// How many came.
        got: usize,
    },
    /// As many bytes as there should be, but others.
    #[error("part {number} has the id {expected:?}, got bytes with {got:?}")]
    Hash {
        /// Which part.
        number: PartNumber,
        /// Its id.
        expected: PartId,
        /// The id of the bytes that came.
        got: PartId,
    },
}

impl ExpectedPart {
    pub(crate) fn new(content: ContentId, place: PartPlace, id: PartId) -> Self {
        Self { content, place, id }
    }

    /// The content that the part belongs to.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// Where the part lies.
    pub fn place(&self) -> &PartPlace {
        &self.place
    }

    /// Which part.
    pub fn number(&self) -> PartNumber {
        self.place.number()
    }

    /// The part's id.
    pub fn id(&self) -> PartId {
        self.id
    }

    /// Checks the bytes: their number first, then (at some gigabytes a second) their hash.
    ///
    /// # Errors
    /// When they are not the part's; they are dropped then.
    pub fn verify(&self, bytes: Bytes) -> Result<VerifiedPart, VerifyError> {
        let number = self.number();
        let got = part_id(&self.place, &bytes);
        let got = got.ok_or(VerifyError::Length { number, expected: self.place.len(), got: bytes.len() })?;
        if got != self.id {
            return Err(VerifyError::Hash { number, expected: self.id, got });
        }
        Ok(VerifiedPart { expected: self.clone(), bytes })
    }
}

impl VerifiedPart {
    /// The content that the part belongs to.
    pub fn content(&self) -> ContentId {
        self.expected.content
    }

    /// Which part.
    pub fn number(&self) -> PartNumber {
        self.expected.number()
    }

    /// Where the part lies.
    pub fn place(&self) -> &PartPlace {
        &self.expected.place
    }

    /// The part's id.
    pub fn id(&self) -> PartId {
        self.expected.id
    }

    /// The part's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The part's bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl std::fmt::Debug for VerifiedPart {
    /// Without the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedPart").field("expected", &self.expected).finish_non_exhaustive()
    }
}
