//! The upper part of a segment's BLAKE3 tree: the one over its parts.
//!
//! A part's length is a power of two of BLAKE3's 1,024-byte chunks, so each part is a whole subtree and the tree over the
//! parts has the shape of BLAKE3's tree over chunks: the left child of `n` parts has the greatest power of two below `n`.

use crate::layout::PartPlace;
use crate::{PartId, SegmentHash};
use blake3::hazmat::{self, HasherExt};

/// A chaining value; at the top of a tree, its root.
pub(crate) type Value = [u8; 32];

/// The id of the part at `place`, given its bytes; `None` if they are not as many as the part has.
///
/// It is the chaining value of the part's subtree, or the segment's hash if the part is the whole segment.
/// It reads nothing else, so parts may be hashed in any order and on any thread: one thread a part scales better than
/// several within a part.
pub fn part_id(place: &PartPlace, bytes: &[u8]) -> Option<PartId> {
    let mut hasher = PartHasher::new(place);
    hasher.update(bytes);
    hasher.finish()
}

/// As [`part_id`], for bytes that come piece by piece.
#[derive(Clone, Debug)]
pub struct PartHasher {
    hasher: blake3::Hasher,
    missing_bytes: Option<u32>,
    is_whole_segment: bool,
}

impl PartHasher {
    /// Nothing yet of the part at `place`.
    pub fn new(place: &PartPlace) -> Self {
        Self {
            hasher: subtree_hasher(place.offset_in_segment()),
            missing_bytes: Some(place.len()),
            is_whole_segment: place.is_whole_segment(),
        }
    }

    /// The next bytes. Those beyond the part's end are not looked at.
    pub fn update(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).ok();
        self.missing_bytes = self.missing_bytes.zip(length).and_then(|(missing, length)| missing.checked_sub(length));
        if self.missing_bytes.is_some() {
            self.hasher.update(bytes);
        }
    }

    /// The part's id; `None` if its bytes were not as many as it has.
    pub fn finish(self) -> Option<PartId> {
        (self.missing_bytes == Some(0)).then(|| finish_subtree(&self.hasher, self.is_whole_segment))
    }
}

/// A hasher for the part that starts `offset_in_segment` bytes into its segment (a multiple of the part length).
pub(crate) fn subtree_hasher(offset_in_segment: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset_in_segment);
    hasher
}

/// The id of the part whose bytes (at least one) went into `hasher`.
pub(crate) fn finish_subtree(hasher: &blake3::Hasher, is_whole_segment: bool) -> PartId {
    PartId::from_bytes(if is_whole_segment { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
}

/// The hash of a segment with these parts.
pub(crate) fn segment_hash(ids: &[PartId]) -> SegmentHash {
    let Ok(count @ 1..) = u32::try_from(ids.len()) else {
        return SegmentHash::from_bytes(*blake3::hash(b"").as_bytes());
    };
    let all = Span { first: 0, count };
    let mut values = ids.iter().map(|id| *id.as_bytes());
    let root = fold(all, all, all, &mut values, &mut |_, _| {});
    SegmentHash::from_bytes(root.expect("there is a value for each part"))
}

/// A node of the tree by the parts below it, numbered from 0 within the segment; `count` is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Span {
    fn end(self) -> u32 {
        self.first + self.count
    }

    /// How many parts the left child has; only for nodes of two parts or more.
    fn left_count(self) -> u32 {
        self.count.next_power_of_two() / 2
    }

    fn children(self) -> (Self, Self) {
        let left = self.left_count();
        (Self { first: self.first, count: left }, Self { first: self.first + left, count: self.count - left })
    }

    fn is_apart_from(self, other: Self) -> bool {
        self.end() <= other.first || other.end() <= self.first
    }

    /// Whether a proof of `run` carries this node's value rather than its children's.
    fn is_leaf_of(self, run: Self) -> bool {
        self.count == 1 || self.is_apart_from(run)
    }

    /// Where the node stands in a table: in order, so a part stands at twice its number, and an inner node between its
    /// children, just before the first part of the right one.
    fn index(self) -> usize {
        let index = if self.count == 1 { 2 * self.first } else { 2 * (self.first + self.left_count()) - 1 };
        index as usize
    }
}

/// Computes the value of `node` in the tree of `all` from the values, left to right, that a proof of `run` carries.
///
/// Tells `found` every value on the way; `None` if there are too few.
/// The depth is at most 20, since a segment has at most 2^20 parts.
fn fold(
    node: Span,
    all: Span,
    run: Span,
    values: &mut impl Iterator<Item = Value>,
    found: &mut impl FnMut(Span, Value),
) -> Option<Value> {
    let value = if node.is_leaf_of(run) {
        values.next()?
    } else {
        let (left, right) = node.children();
        let left = fold(left, all, run, values, found)?;
        let right = fold(right, all, run, values, found)?;
        if node == all {
            *hazmat::merge_subtrees_root(&left, &right, hazmat::Mode::Hash).as_bytes()
        } else {
            hazmat::merge_subtrees_non_root(&left, &right, hazmat::Mode::Hash)
        }
    };
    found(node, value);
    Some(value)
}

/// The nodes whose values a proof of `run` in the tree of `all` carries, left to right.
fn proof_nodes(node: Span, run: Span, nodes: &mut Vec<Span>) {
    if node.is_leaf_of(run) {
        nodes.push(node);
    } else {
        let (left, right) = node.children();
        proof_nodes(left, run, nodes);
        proof_nodes(right, run, nodes);
    }
}

/// What is known of one segment's tree.
///
/// Invariant: a known value is right, since it was found below (or is) the segment's hash; and with a node all its
/// ancestors are known.
#[derive(Clone, Debug)]
pub(crate) struct HashTree {
    parts: u32,
    /// By [`Span::index`]. Zeroed pages cost nothing before they are used, so what is not known takes no memory.
    values: Vec<Value>,
    known: Vec<bool>,
}

/// A proof of a run whose shape fits, as values: siblings to the left, parts, siblings to the right.
pub(crate) struct ProofValues {
    pub(crate) left: usize,
    pub(crate) values: Vec<Value>,
}

impl HashTree {
    /// The tree of a segment with this many parts, of which nothing but the root is known.
    pub(crate) fn new(parts: u32, hash: SegmentHash) -> Self {
        let nodes = (2 * parts as usize).saturating_sub(1);
        let mut tree = Self { parts, values: vec![[0; 32]; nodes], known: vec![false; nodes] };
        if parts > 0 {
            tree.set(tree.all(), *hash.as_bytes());
        }
        tree
    }

    fn all(&self) -> Span {
        Span { first: 0, count: self.parts }
    }

    fn set(&mut self, node: Span, value: Value) {
        let index = node.index();
        if let (Some(slot), Some(known)) = (self.values.get_mut(index), self.known.get_mut(index)) {
            (*slot, *known) = (value, true);
        }
    }

    fn value(&self, node: Span) -> Option<Value> {
        let index = node.index();
        if *self.known.get(index)? { self.values.get(index).copied() } else { None }
    }

    /// The id of a part, numbered from 0 within the segment.
    pub(crate) fn id(&self, part: u32) -> Option<PartId> {
        if part >= self.parts {
            return None;
        }
        self.value(Span { first: part, count: 1 }).map(PartId::from_bytes)
    }

    /// How many siblings to the left and to the right a proof of `run` carries.
    pub(crate) fn sibling_counts(&self, run: Span) -> (usize, usize) {
        let mut nodes = Vec::new();
        proof_nodes(self.all(), run, &mut nodes);
        let left = nodes.iter().filter(|node| node.end() <= run.first).count();
        let right = nodes.iter().filter(|node| node.first >= run.end()).count();
        (left, right)
    }

    /// A proof of `run`, if what is known suffices.
    pub(crate) fn prove(&self, run: Span) -> Option<ProofValues> {
        let mut nodes = Vec::new();
        proof_nodes(self.all(), run, &mut nodes);
        let left = nodes.iter().filter(|node| node.end() <= run.first).count();
        let values = nodes.into_iter().map(|node| self.value(node)).collect::<Option<_>>()?;
        Some(ProofValues { left, values })
    }

    /// Takes in the values of a proof of `run`, of the right number, if they lead to the segment's hash; says whether
    /// they did.
    pub(crate) fn insert(&mut self, run: Span, values: impl Iterator<Item = Value>) -> bool {
        let all = self.all();
        let mut found = Vec::new();
        let mut values = values;
        let root = fold(all, all, run, &mut values, &mut |node, value| found.push((node, value)));
        if root.is_none() || root != self.value(all) {
            return false;
        }
        for (node, value) in found {
            self.set(node, value);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_place_of_its_own() {
        fn visit(node: Span, seen: &mut Vec<usize>) {
            seen.push(node.index());
            if node.count > 1 {
                let (left, right) = node.children();
                visit(left, seen);
                visit(right, seen);
            }
        }
        for parts in 1..200 {
            let mut seen = Vec::new();
            visit(Span { first: 0, count: parts }, &mut seen);
            seen.sort_unstable();
            assert_eq!(seen, (0..2 * parts as usize - 1).collect::<Vec<_>>(), "{parts} parts");
        }
    }

    #[test]
    fn proofs_in_the_largest_trees_stay_within_their_limits() {
        let most = crate::MAX_PARTS;
        for parts in [1, 2, 3, most / 2 + 1, most - 1, most] {
            let tree = HashTree::new(parts, SegmentHash::from_bytes([1; 32]));
            for first in [0, 1, parts / 3, parts / 2, parts - 1].into_iter().filter(|&first| first < parts) {
                for count in [1, 2, 4_096, parts - first].into_iter().filter(|&count| first + count <= parts) {
                    let (left, right) = tree.sibling_counts(Span { first, count });
                    assert!(
                        left.max(right) <= 20,
                        "{left} and {right} siblings of {count} parts from {first} of {parts}"
                    );
                }
            }
        }
    }

    /// Only what lies beside the run is visited, however large the tree.
    #[test]
    fn a_proof_in_a_large_tree() {
        let parts = 70_001u32;
        let ids: Vec<_> = (0..parts).map(|n| PartId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())).collect();
        let hash = segment_hash(&ids);
        let (mut server, mut client) = (HashTree::new(parts, hash), HashTree::new(parts, hash));
        let all = Span { first: 0, count: parts };
        assert!(server.insert(all, ids.iter().map(|id| *id.as_bytes())));
        let run = Span { first: 65_530, count: 256 };
        let proof = server.prove(run).unwrap();
        assert_eq!((proof.left, proof.values.len() - proof.left - 256), server.sibling_counts(run));
        let carried = proof.values.len();
        assert!(client.insert(run, proof.values.into_iter()));
        // What was carried, and the nodes above it.
        assert_eq!(client.known.iter().filter(|known| **known).count(), 2 * carried - 1);
        assert_eq!(client.id(65_785), Some(ids[65_785]));
        assert_eq!(client.id(65_529), None);
        assert_eq!(client.id(parts), None);
    }
}
