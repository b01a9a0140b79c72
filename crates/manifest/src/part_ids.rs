//! The table of part ids: what is known of a content's hashes, and what may be expected of a part.

use crate::proof::HashProof;
use crate::tree::{HashTree, Span};
use crate::verify::ExpectedPart;
use crate::{ContentId, Layout, Manifest, PartId, PartNumber, PartPlace, PartRange};

/// The part ids that are known, each proved against its segment's hash.
///
/// It also keeps the inner nodes that came with proofs, so that whoever learned an id can prove it to others (as long as
/// the content's server is away, or for good).
/// It takes up to 66 bytes for each part that is known.
#[derive(Clone)]
pub struct PartIds {
    content: ContentId,
    layout: Layout,
    /// By segment.
    trees: Vec<HashTree>,
}

/// Why a proof was refused; nothing of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The content has no such parts, or they are not in one segment.
    #[error("a proof of {count} parts from part {first} does not fit into a segment of the content")]
    Range {
        /// The first part.
        first: PartNumber,
        /// How many parts.
        count: u32,
    },
    /// The number of siblings is not the one that the tree needs.
    #[error(
        "a proof from part {first} has {} and {} siblings where the tree needs {} and {}",
        got.0, got.1, expected.0, expected.1
    )]
    Siblings {
        /// The first part.
        first: PartNumber,
        /// Before and after the run, by the segment's tree.
        expected: (usize, usize),
        /// Before and after the run, in the proof.
        got: (usize, usize),
    },
    /// The values do not lead to the segment's hash: at least one of them is wrong.
    #[error("a proof from part {first} does not lead to the hash of segment {segment}")]
    Hash {
        /// The first part.
        first: PartNumber,
        /// The segment.
        segment: u32,
    },
    /// Not one id for each part.
    #[error("{got} part ids for a content of {expected} parts")]
    Count {
        /// How many parts the content has.
        expected: u32,
        /// How many ids were given.
        got: usize,
    },
}

impl PartIds {
    /// What the manifest itself tells: all ids if it carries them, else those of segments of one part.
    pub fn new(manifest: &Manifest) -> Self {
        let mut ids = Self::from_hashes(manifest);
        if let Some(inline) = manifest.part_ids() {
            ids.insert_all(inline)
                .expect("a manifest's own ids lead to its own hashes, which was checked when it was made");
        }
        ids
    }

    /// The table of who has all ids: the server that made them, or a client that stored them.
    ///
    /// # Errors
    /// When they are not as many as the content has parts or do not lead to its segments' hashes.
    pub fn with_ids(manifest: &Manifest, ids: &[PartId]) -> Result<Self, ProofError> {
        let mut table = Self::from_hashes(manifest);
        table.insert_all(ids)?;
        Ok(table)
    }

    fn from_hashes(manifest: &Manifest) -> Self {
        let spans = manifest.layout().segments().zip(manifest.segments());
        let parts = |span: crate::SegmentSpan| span.parts().map_or(0, PartRange::count);
        let trees = spans.map(|(span, segment)| HashTree::new(parts(span), segment.hash())).collect();
        Self { content: manifest.content(), layout: manifest.layout().clone(), trees }
    }

    fn insert_all(&mut self, ids: &[PartId]) -> Result<(), ProofError> {
        if u32::try_from(ids.len()) != Ok(self.layout.part_count()) {
            return Err(ProofError::Count { expected: self.layout.part_count(), got: ids.len() });
        }
        for (segment, tree) in (0u32..).zip(&mut self.trees) {
            let Some(parts) = self.layout.parts_in_segment(segment) else { continue };
            let values = ids.iter().skip(parts.first().as_index()).map(|id| *id.as_bytes());
            if !tree.insert(Span { first: 0, count: parts.count() }, values) {
                return Err(ProofError::Hash { first: parts.first(), segment });
            }
        }
        Ok(())
    }

    /// Whose parts these are.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// How the content is cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Checks a proof and takes in what it tells; returns the parts whose ids are now known.
    ///
    /// # Errors
    /// When the proof does not fit the content or is wrong; whoever sent it is at fault.
    pub fn insert(&mut self, proof: &HashProof) -> Result<PartRange, ProofError> {
        let range = proof.range();
        let first = range.first();
        let (segment, run) = self.run(range).ok_or(ProofError::Range { first, count: range.count() })?;
        let tree = self.trees.get_mut(segment as usize).ok_or(ProofError::Range { first, count: range.count() })?;
        let (expected, got) = (tree.sibling_counts(run), (proof.left, proof.right()));
        if expected != got {
            return Err(ProofError::Siblings { first, expected, got });
        }
        if !tree.insert(run, proof.values.iter().copied()) {
            return Err(ProofError::Hash { first, segment });
        }
        Ok(range)
    }

    /// The segment that holds all of `range`, and the run within it.
    fn run(&self, range: PartRange) -> Option<(u32, Span)> {
        let segment = self.layout.part(range.first())?.segment();
        let parts = self.layout.parts_in_segment(segment)?;
        let first = range.first().as_u32() - parts.first().as_u32();
        (range.end() <= parts.end()).then_some((segment, Span { first, count: range.count() }))
    }

    /// The id of a part; `None` if it is not known or there is no such part.
    pub fn id(&self, number: PartNumber) -> Option<PartId> {
        self.id_at(&self.layout.part(number)?)
    }

    fn id_at(&self, place: &PartPlace) -> Option<PartId> {
        let first = self.layout.parts_in_segment(place.segment())?.first();
        self.trees.get(place.segment() as usize)?.id(place.number().as_u32() - first.as_u32())
    }

    /// The parts of `range` whose ids are not known, as runs in order.
    pub fn missing(&self, range: PartRange) -> Vec<PartRange> {
        let mut runs: Vec<PartRange> = Vec::new();
        let end = range.end().as_u32().min(self.layout.part_count());
        for number in (range.first().as_u32()..end).map(PartNumber::new).filter(|&number| self.id(number).is_none()) {
            match runs.last_mut() {
                Some(last) if last.end() == number => {
                    *last = PartRange::new(last.first(), last.count() + 1).unwrap_or(*last);
                }
                _ => runs.extend(PartRange::one(number)),
            }
        }
        runs
    }

    /// A proof of these parts' ids; `None` if not enough is known, the parts are not in one segment, or they are more than
    /// [`HashProof::MAX_PARTS`].
    pub fn prove(&self, range: PartRange) -> Option<HashProof> {
        if range.count() > HashProof::MAX_PARTS {
            return None;
        }
        let (segment, run) = self.run(range)?;
        let proof = self.trees.get(segment as usize)?.prove(run)?;
        Some(HashProof { range, values: proof.values, left: proof.left })
    }

    /// Proofs of those of these parts' ids that exist, cut at the ends of segments and at [`HashProof::MAX_PARTS`]; `None`
    /// if not enough is known.
    pub fn prove_all(&self, range: PartRange) -> Option<Vec<HashProof>> {
        let runs = self.layout.split_by_segment(range).flat_map(|run| {
            let starts = (run.first().as_u32()..run.end().as_u32()).step_by(HashProof::MAX_PARTS as usize);
            starts.filter_map(move |first| {
                PartRange::new(PartNumber::new(first), (run.end().as_u32() - first).min(HashProof::MAX_PARTS))
            })
        });
        runs.map(|run| self.prove(run)).collect()
    }

    /// What to check a part's bytes against; `None` if its id is not known yet or there is no such part.
    pub fn expect(&self, number: PartNumber) -> Option<ExpectedPart> {
        let place = self.layout.part(number)?;
        Some(ExpectedPart::new(self.content, place, self.id_at(&place)?))
    }
}

impl std::fmt::Debug for PartIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartIds").field("content", &self.content).finish_non_exhaustive()
    }
}
