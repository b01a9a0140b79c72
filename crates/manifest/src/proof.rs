//! Proofs that parts have certain ids: what a peer can pass on without being trusted.

use crate::tree::Value;
use crate::{PartId, PartNumber, PartRange};

/// The ids of a run of parts of one segment, with what leads from them to the segment's hash.
///
/// A proof says nothing by itself: [`crate::PartIds::insert`] checks it.
/// `docs/spec/manifest.md` gives the bytes and the order of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashProof {
    pub(crate) range: PartRange,
    /// Values of subtrees before the run, ids of the run, values of subtrees after it: left to right.
    pub(crate) values: Vec<Value>,
    /// How many values come before the run.
    pub(crate) left: usize,
}

/// Bytes that are no [`HashProof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofDecodeError {
    /// The bytes end within a proof.
    #[error("a proof is truncated: {needed} bytes needed, {got} are there")]
    Truncated {
        /// How many bytes the proof has by its header, or the header itself.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// More of something than a proof may have, or a run that is empty or beyond [`crate::MAX_PARTS`].
    #[error("a proof of {count} parts from part {first} with {left} and {right} siblings is beyond the limits")]
    Limit {
        /// The first part.
        first: u32,
        /// How many parts.
        count: u32,
        /// Siblings before the run.
        left: u8,
        /// Siblings after it.
        right: u8,
    },
}

impl HashProof {
    /// The most parts in one proof, 4,096: 128 KiB of ids, a moment of any link that carries parts.
    pub const MAX_PARTS: u32 = 4_096;
    /// The most siblings on either side: a tree of 2^20 parts is 20 levels deep.
    pub const MAX_SIBLINGS_A_SIDE: u8 = 20;
    /// The length of an encoded proof but for its values, in bytes.
    pub const HEADER_LEN: usize = 10;

    /// Which parts.
    pub fn range(&self) -> PartRange {
        self.range
    }

    /// The ids that the proof claims, in order; believe them only after [`crate::PartIds::insert`].
    pub fn claimed_ids(&self) -> impl ExactSizeIterator<Item = PartId> + '_ {
        let count = self.range.count() as usize;
        self.values.iter().skip(self.left).take(count).map(|value| PartId::from_bytes(*value))
    }

    /// How many siblings there are after the run.
    pub(crate) fn right(&self) -> usize {
        self.values.len().saturating_sub(self.left + self.range.count() as usize)
    }

    /// How many bytes [`Self::encode_into`] writes.
    pub fn encoded_len(&self) -> usize {
        Self::HEADER_LEN + 32 * self.values.len()
    }

    /// Appends the encoded proof.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let siblings = |count| u8::try_from(count).expect("a proof has at most 20 siblings a side");
        out.reserve(self.encoded_len());
        out.extend_from_slice(&self.range.first().as_u32().to_le_bytes());
        out.extend_from_slice(&self.range.count().to_le_bytes());
        out.push(siblings(self.left));
        out.push(siblings(self.right()));
        out.extend(self.values.iter().flatten());
    }

    /// The encoded proof.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Reads one proof from the start of `bytes`; returns it with what comes behind it.
    ///
    /// # Errors
    /// When the bytes end too early or the header is beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), ProofDecodeError> {
        let truncated = |needed| ProofDecodeError::Truncated { needed, got: bytes.len() };
        let header = bytes.first_chunk::<{ Self::HEADER_LEN }>().ok_or(truncated(Self::HEADER_LEN))?;
        let &[f0, f1, f2, f3, c0, c1, c2, c3, left, right] = header;
        let (first, count) = (u32::from_le_bytes([f0, f1, f2, f3]), u32::from_le_bytes([c0, c1, c2, c3]));
        let fits = count <= Self::MAX_PARTS && left.max(right) <= Self::MAX_SIBLINGS_A_SIDE;
        let range = PartRange::new(PartNumber::new(first), count).filter(|_| fits);
        let range = range.ok_or(ProofDecodeError::Limit { first, count, left, right })?;

        let values_len = 32 * (usize::from(left) + count as usize + usize::from(right));
        let needed = Self::HEADER_LEN + values_len;
        let (proof, rest) = bytes.split_at_checked(needed).ok_or(truncated(needed))?;
        let values = proof[Self::HEADER_LEN..].as_chunks::<32>().0.to_vec();
        Ok((Self { range, values, left: usize::from(left) }, rest))
    }

    /// Reads proofs, one behind the other, up to the end of `bytes`.
    ///
    /// The caller bounds the length of `bytes`, and so what the proofs take.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, ProofDecodeError> {
        let mut rest = bytes;
        let mut proofs = Vec::new();
        while !rest.is_empty() {
            let (proof, behind) = Self::decode(rest)?;
            proofs.push(proof);
            rest = behind;
        }
        Ok(proofs)
    }
}
