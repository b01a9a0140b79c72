//! The holders of one content.

use crate::{PartSet, Rarity};
use hybrid_manifest::PartNumber;
use std::fmt;

/// The place of a holder in a [`Directory`]: small and dense, so that other tables can be indexed by it.
///
/// A slot names a holder from its `join` to its `leave`; then the next newcomer may get the same slot.
/// Whoever keeps slots forgets them when the holder leaves, in the same step: the slot carries no generation, because
/// the one table that keeps them (the coordinator's, client by client) does so anyway.
/// A slot that nobody occupies is no error: it holds nothing and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderSlot(u32);

impl HolderSlot {
    /// The slot with this number, for instance from a random one below [`Directory::slot_count`].
    pub const fn new(slot: u32) -> Self {
        Self(slot)
    }

    /// The number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The number, to index a table by holder.
    pub const fn as_index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for HolderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a holder cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The directory has as many holders as it may have.
    #[error("the directory is full: it has its limit of {limit} holders; serve the client directly or raise the limit")]
    Full {
        /// The limit given to [`Directory::new`].
        limit: u32,
    },
    /// The set is for a content of another number of parts.
    #[error("the set is over {got} parts, the content has {expected}")]
    PartCount {
        /// The parts of the directory's content.
        expected: u32,
        /// The parts of the set given.
        got: u32,
    },
}

/// Sets that are read ahead together: with 1,000 parts they take 8 KiB, a fraction of any processor's nearest cache.
const READ_AHEAD: usize = 64;

/// Who holds which parts of one content, and how rare each part is.
///
/// A holder costs its set and a place: 156 bytes at 1,000 parts.
/// Gaining or losing a part takes constant time; joining and leaving take constant time for each part held.
#[derive(Clone, Debug)]
pub struct Directory {
    slots: Vec<Option<PartSet>>,
    /// Slots without a holder, the last one left on top.
    vacant: Vec<u32>,
    rarity: Rarity,
    max_holders: u32,
}

impl Directory {
    /// An empty directory for a content of `part_count` parts (cut down as in [`PartSet::new`]).
    ///
    /// `max_holders` bounds its memory; nothing is allocated for it in advance.
    pub fn new(part_count: u32, max_holders: u32) -> Self {
        Self { slots: Vec::new(), vacant: Vec::new(), rarity: Rarity::new(part_count), max_holders }
    }

    /// How many parts the content has.
    pub fn part_count(&self) -> u32 {
        self.rarity.part_count()
    }

    /// How many holders there are, those that hold nothing yet included.
    pub fn len(&self) -> u32 {
        self.slot_count() - u32::try_from(self.vacant.len()).unwrap_or(u32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All slots in use are below this number: the length for a table by slot.
    pub fn slot_count(&self) -> u32 {
        // Never above `max_holders`.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The limit given to [`Directory::new`].
    pub fn max_holders(&self) -> u32 {
        self.max_holders
    }

    /// Adds a holder with what it has, which may be nothing.
    ///
    /// # Errors
    /// When the directory is full, or the set is for another number of parts; nothing has changed then.
    pub fn join(&mut self, set: PartSet) -> Result<HolderSlot, DirectoryError> {
        if set.part_count() != self.part_count() {
            return Err(DirectoryError::PartCount { expected: self.part_count(), got: set.part_count() });
        }
        if self.len() >= self.max_holders {
            return Err(DirectoryError::Full { limit: self.max_holders });
        }
        for part in set.iter() {
            self.rarity.add(part);
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slot_count() - 1
        });
        self.slots[slot as usize] = Some(set);
        Ok(HolderSlot(slot))
    }

    /// Removes a holder; returns what it held, `None` for a vacant slot.
    pub fn leave(&mut self, slot: HolderSlot) -> Option<PartSet> {
        let set = self.slots.get_mut(slot.as_index())?.take()?;
        self.vacant.push(slot.0);
        for part in set.iter() {
            self.rarity.remove(part);
        }
        Some(set)
    }

    /// The holder has one more part; says whether that is news.
    pub fn gain(&mut self, slot: HolderSlot, part: PartNumber) -> bool {
        let news = self.set_mut(slot).is_some_and(|set| set.insert(part));
        if news {
            self.rarity.add(part);
        }
        news
    }

    /// The holder has these parts; returns how many of them are news.
    pub fn gain_all(&mut self, slot: HolderSlot, parts: impl IntoIterator<Item = PartNumber>) -> u32 {
        parts.into_iter().map(|part| u32::from(self.gain(slot, part))).sum()
    }

    /// The holder has a part no longer; says whether it had it.
    pub fn lose(&mut self, slot: HolderSlot, part: PartNumber) -> bool {
        let had = self.set_mut(slot).is_some_and(|set| set.remove(part));
        if had {
            self.rarity.remove(part);
        }
        had
    }

    fn set_mut(&mut self, slot: HolderSlot) -> Option<&mut PartSet> {
        self.slots.get_mut(slot.as_index())?.as_mut()
    }

    /// What the holder has; `None` for a vacant slot.
    pub fn set(&self, slot: HolderSlot) -> Option<&PartSet> {
        self.slots.get(slot.as_index())?.as_ref()
    }

    /// Whether the holder has the part.
    pub fn holds(&self, slot: HolderSlot, part: PartNumber) -> bool {
        self.set(slot).is_some_and(|set| set.contains(part))
    }

    /// How many parts each of these holders has that `other` lacks, in their order; zero for a vacant slot.
    ///
    /// Sets lie all over the memory, so a good part of the time of one count is the wait for it.
    /// Here some of each of the next sets is read before any is counted, so that these waits overlap.
    pub fn useful_to(&self, holders: &[HolderSlot], other: &PartSet) -> Vec<u32> {
        let mut counts = Vec::with_capacity(holders.len());
        for some in holders.chunks(READ_AHEAD) {
            let sets = some.iter().map(|slot| self.set(*slot));
            std::hint::black_box(sets.clone().flatten().map(PartSet::sample_words).fold(0, |all, words| all | words));
            counts.extend(sets.map(|set| set.map_or(0, |set| set.useful_to(other))));
        }
        counts
    }

    /// How many copies of each part the holders have; the server's own copy is not counted.
    pub fn rarity(&self) -> &Rarity {
        &self.rarity
    }

    /// All holders with their sets, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (HolderSlot, &PartSet)> {
        (0..).map(HolderSlot).zip(&self.slots).filter_map(|(slot, set)| Some((slot, set.as_ref()?)))
    }

    /// Who has the part, by slot.
    ///
    /// Looks at holders one by one: one bit each, without an index per part that each report would have to keep.
    pub fn holders(&self, part: PartNumber) -> impl Iterator<Item = HolderSlot> + '_ {
        self.holders_from(part, HolderSlot(0))
    }

    /// Who has the part, from slot `start` on and round: a random `start` samples the holders.
    ///
    /// Finding one of `k` holders among `n` takes about `n / k` steps; [`Rarity::count`] tells `k`, so that a caller can
    /// stop at the last one.
    pub fn holders_from(&self, part: PartNumber, start: HolderSlot) -> impl Iterator<Item = HolderSlot> + '_ {
        let end = self.slot_count();
        let start = start.0.min(end);
        // No more than there are: the walk ends at the last holder and not at the last slot.
        let copies = self.rarity.count(part) as usize;
        (start..end).chain(0..start).map(HolderSlot).filter(move |slot| self.holds(*slot, part)).take(copies)
    }

    /// Panics if the sets, the counts and the vacant slots disagree: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        self.rarity.check_invariants();
        assert!(self.len() <= self.max_holders, "{} holders, the limit is {}", self.len(), self.max_holders);
        let mut vacant = self.vacant.clone();
        vacant.sort_unstable();
        let empty = (0..self.slot_count()).filter(|slot| self.set(HolderSlot(*slot)).is_none());
        assert!(empty.eq(vacant), "each slot without a holder must be vacant, once");
        let mut counts = vec![0; self.part_count() as usize];
        for (_, set) in self.iter() {
            set.check_invariants();
            assert_eq!(set.part_count(), self.part_count(), "all sets are over the content's parts");
            set.iter().for_each(|part| counts[part.as_index()] += 1);
        }
        for (part, count) in (0..).map(PartNumber::new).zip(counts) {
            assert_eq!(self.rarity.count(part), count, "copies of part {part}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(parts: &[u32]) -> PartSet {
        PartSet::from_parts(4, parts.iter().copied().map(PartNumber::new))
    }

    #[test]
    fn full_and_free_again() {
        let mut directory = Directory::new(4, 2);
        let first = directory.join(set(&[0])).unwrap();
        let second = directory.join(set(&[0, 1])).unwrap();
        assert_eq!(directory.join(set(&[])), Err(DirectoryError::Full { limit: 2 }));
        assert_eq!(directory.leave(first), Some(set(&[0])));
        assert_eq!(directory.leave(first), None, "a holder leaves once");
        assert_eq!(directory.join(set(&[3])), Ok(first), "the slot is used again");
        assert_eq!(directory.iter().map(|(slot, _)| slot).collect::<Vec<_>>(), [first, second]);
        directory.check_invariants();
    }

    #[test]
    fn a_set_of_another_content() {
        let mut directory = Directory::new(4, 2);
        let error = directory.join(PartSet::new(5)).unwrap_err();
        assert_eq!(error, DirectoryError::PartCount { expected: 4, got: 5 });
        assert_eq!(error.to_string(), "the set is over 5 parts, the content has 4");
        assert!(directory.is_empty());
    }

    #[test]
    fn vacant_slots_hold_and_change_nothing() {
        let mut directory = Directory::new(4, 10);
        for slot in [0, 1, u32::MAX].map(HolderSlot) {
            assert!(!directory.gain(slot, PartNumber::new(0)) && !directory.lose(slot, PartNumber::new(0)));
            assert!(directory.set(slot).is_none() && !directory.holds(slot, PartNumber::new(0)));
        }
        directory.check_invariants();
    }

    #[test]
    fn holders_from_any_start() {
        let mut directory = Directory::new(4, 10);
        for parts in [&[0][..], &[1], &[0, 1], &[], &[0]] {
            directory.join(set(parts)).unwrap();
        }
        let from = |start: u32| -> Vec<u32> {
            directory.holders_from(PartNumber::new(0), HolderSlot(start)).map(HolderSlot::as_u32).collect()
        };
        assert_eq!((from(0), from(1), from(5), from(99)), (vec![0, 2, 4], vec![2, 4, 0], vec![0, 2, 4], vec![0, 2, 4]));
        assert_eq!(directory.holders(PartNumber::new(7)).count(), 0);
    }

    #[test]
    fn usefulness_of_many() {
        let mut directory = Directory::new(4, 200);
        let slots: Vec<HolderSlot> = (0..150u32).map(|n| directory.join(set(&[n % 4, 3])).unwrap()).collect();
        directory.leave(slots[1]).unwrap();
        let other = set(&[0]);
        let counts = directory.useful_to(&slots, &other);
        assert_eq!(counts[..5], [1, 0, 2, 1, 1]);
        let expected = slots.iter().map(|slot| directory.set(*slot).map_or(0, |set| set.useful_to(&other)));
        assert!(counts.iter().copied().eq(expected));
        assert_eq!(directory.useful_to(&[], &other), [0; 0]);
    }

    #[test]
    fn a_holder_costs_at_most_200_bytes_at_1000_parts() {
        // The place in `slots`, its share of `vacant` at worst, and the words behind it.
        let bytes = size_of::<Option<PartSet>>() + size_of::<u32>() + PartSet::new(1_000).heap_bytes();
        assert!(bytes <= 200, "{bytes} bytes a holder");
    }
}
