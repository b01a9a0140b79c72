//! A set of the parts of one content, one bit a part.

use hybrid_manifest::{MAX_PARTS, PartNumber, PartRange};
use std::fmt;

const WORD_BITS: u32 = u64::BITS;

/// Which parts of a content of a fixed number of parts someone holds.
///
/// One bit a part and a count that is kept, so a set of 1,000 parts takes 152 bytes and asking for its size costs nothing.
/// A part beyond the end is a part that the set does not hold: asking for it says no, inserting it changes nothing.
/// That holds between sets of different lengths too.
#[derive(Clone, PartialEq, Eq)]
pub struct PartSet {
    /// Bits beyond `part_count` are never set.
    words: Box<[u64]>,
    part_count: u32,
    len: u32,
}

/// The word and the bit of a part, whether or not a set is that long.
fn place(part: PartNumber) -> (usize, u64) {
    ((part.as_u32() / WORD_BITS) as usize, 1 << (part.as_u32() % WORD_BITS))
}

/// The parts of the set bits of `word`, the word at `index`.
fn parts_of(index: usize, mut word: u64) -> impl Iterator<Item = PartNumber> + Clone {
    // A set has at most MAX_PARTS bits, so the product fits.
    let base = u32::try_from(index).unwrap_or(u32::MAX).saturating_mul(WORD_BITS);
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            PartNumber::new(base + bit)
        })
    })
}

impl PartSet {
    /// An empty set over the parts from 0 up to `part_count`.
    ///
    /// No content has more than [`MAX_PARTS`] parts; a larger count is cut down to it.
    pub fn new(part_count: u32) -> Self {
        let part_count = part_count.min(MAX_PARTS);
        let words = vec![0; part_count.div_ceil(WORD_BITS) as usize].into_boxed_slice();
        Self { words, part_count, len: 0 }
    }

    /// The set that holds every part: what the server has.
    pub fn full(part_count: u32) -> Self {
        let mut set = Self::new(part_count);
        for index in 0..set.words.len() {
            let mask = set.mask(index);
            if let Some(word) = set.words.get_mut(index) {
                *word = mask;
            }
        }
        set.len = set.part_count;
        set
    }

    /// The set of these parts; numbers beyond the end are left out.
    pub fn from_parts(part_count: u32, parts: impl IntoIterator<Item = PartNumber>) -> Self {
        let mut set = Self::new(part_count);
        set.insert_all(parts);
        set
    }

    /// How many parts the content has: the set's length, whatever it holds.
    pub fn part_count(&self) -> u32 {
        self.part_count
    }

    /// How many parts the set holds; a kept count, not a scan.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds no part.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds every part; true for a content of no parts.
    pub fn is_full(&self) -> bool {
        self.len == self.part_count
    }

    /// Whether it holds the part.
    pub fn contains(&self, part: PartNumber) -> bool {
        let (index, bit) = place(part);
        self.word(index) & bit != 0
    }

    /// Adds a part; says whether it was new.
    pub fn insert(&mut self, part: PartNumber) -> bool {
        let (index, bit) = place(part);
        let inside = part.as_u32() < self.part_count;
        match self.words.get_mut(index) {
            Some(word) if inside && *word & bit == 0 => {
                *word |= bit;
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    /// Removes a part; says whether it was there.
    pub fn remove(&mut self, part: PartNumber) -> bool {
        let (index, bit) = place(part);
        match self.words.get_mut(index) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                self.len -= 1;
                true
            }
            _ => false,
        }
    }

    /// Adds parts; returns how many were new.
    pub fn insert_all(&mut self, parts: impl IntoIterator<Item = PartNumber>) -> u32 {
        let before = self.len;
        for part in parts {
            self.insert(part);
        }
        self.len - before
    }

    /// Adds a run of parts, word by word; returns how many were new. What lies beyond the end is left out.
    pub fn insert_range(&mut self, range: PartRange) -> u32 {
        let (mut from, end) = (range.first().as_u32(), range.end().as_u32().min(self.part_count));
        let before = self.len;
        while from < end {
            let (index, bit) = place(PartNumber::new(from));
            let next = end.min((from / WORD_BITS + 1) * WORD_BITS);
            // `bit` and all above it, without what lies above the last part of the run.
            let run = (bit.wrapping_neg()) & low_bits(next - (from - from % WORD_BITS));
            if let Some(word) = self.words.get_mut(index) {
                self.len += (run & !*word).count_ones();
                *word |= run;
            }
            from = next;
        }
        self.len - before
    }

    /// Adds what `other` holds, as far as this set reaches; returns how many were new.
    pub fn union_with(&mut self, other: &Self) -> u32 {
        let before = self.len;
        for index in 0..self.words.len() {
            let theirs = other.word(index) & self.mask(index);
            if let Some(word) = self.words.get_mut(index) {
                self.len += (theirs & !*word).count_ones();
                *word |= theirs;
            }
        }
        self.len - before
    }

    /// How many parts this set holds that `other` lacks: what its holder could give to the other.
    pub fn useful_to(&self, other: &Self) -> u32 {
        // Word beside word without a look-up for each, so that the compiler can take several at a time.
        let beside: u32 = self.words.iter().zip(&other.words).map(|(mine, theirs)| (mine & !theirs).count_ones()).sum();
        let beyond = self.words.get(other.words.len()..).unwrap_or_default();
        beside + beyond.iter().map(|word| word.count_ones()).sum::<u32>()
    }

    /// Whether this set holds a part that `other` lacks; cheaper than [`PartSet::useful_to`] when it does.
    pub fn is_useful_to(&self, other: &Self) -> bool {
        let beyond = self.words.get(other.words.len()..).unwrap_or_default();
        self.words.iter().zip(&other.words).any(|(mine, theirs)| mine & !theirs != 0)
            || beyond.iter().any(|word| *word != 0)
    }

    /// The first part from `start` on, going round at the end, that this set holds and `other` lacks.
    ///
    /// With a random `start` the caller gets a random useful part for a few word operations.
    /// It is not uniform: a part after a long run of useless ones is more likely.
    pub fn select_missing_from(&self, other: &Self, start: PartNumber) -> Option<PartNumber> {
        let useful = |index: usize| self.word(index) & !other.word(index);
        let (first, bit) = if start.as_u32() < self.part_count { place(start) } else { (0, 1) };
        let from_bit = bit.wrapping_neg();
        let found = |index: usize, word: u64| parts_of(index, word).next();
        found(first, useful(first) & from_bit)
            .or_else(|| (first + 1..self.words.len()).find_map(|index| found(index, useful(index))))
            .or_else(|| (0..first).find_map(|index| found(index, useful(index))))
            .or_else(|| found(first, useful(first) & !from_bit))
    }

    /// The parts that this set holds and `other` lacks, from `start` on and around the end.
    pub fn missing_from<'a>(
        &'a self,
        other: &'a Self,
        start: PartNumber,
    ) -> impl Iterator<Item = PartNumber> + Clone + 'a {
        let useful = |index: usize| self.word(index) & !other.word(index);
        let (first, bit) = if start.as_u32() < self.part_count { place(start) } else { (0, 1) };
        let from_bit = bit.wrapping_neg();
        parts_of(first, useful(first) & from_bit)
            .chain((first + 1..self.words.len()).flat_map(move |index| parts_of(index, useful(index))))
            .chain((0..first).flat_map(move |index| parts_of(index, useful(index))))
            .chain(parts_of(first, useful(first) & !from_bit))
    }

    /// The lowest part that the set lacks; `None` if it is full.
    pub fn first_missing(&self) -> Option<PartNumber> {
        self.missing().next()
    }

    /// The parts that it holds, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PartNumber> + Clone + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| parts_of(index, *word))
    }

    /// The parts that it lacks, ascending.
    pub fn missing(&self) -> impl Iterator<Item = PartNumber> + Clone + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| parts_of(index, !word & self.mask(index)))
    }

    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Words from the beginning, the middle and the end, merged: what brings a set of usual size from memory.
    pub(crate) fn sample_words(&self) -> u64 {
        self.word(0) | self.word(self.words.len() / 2) | self.word(self.words.len().saturating_sub(1))
    }

    /// The word at `index`; nothing beyond the end.
    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// The bits of the word at `index` that stand for parts.
    fn mask(&self, index: usize) -> u64 {
        let before = u32::try_from(index).unwrap_or(u32::MAX).saturating_mul(WORD_BITS);
        low_bits(self.part_count.saturating_sub(before))
    }

    /// Panics if the count or the bits beyond the end are wrong: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        let counted: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        assert_eq!(counted, self.len, "the kept count must be the number of bits set");
        for (index, word) in self.words.iter().enumerate() {
            assert_eq!(word & !self.mask(index), 0, "no bit beyond the end may be set");
        }
    }
}

/// The lowest `count` bits; all of them from 64 on.
fn low_bits(count: u32) -> u64 {
    1u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1)
}

impl fmt::Debug for PartSet {
    /// The count and no more than the first eight parts: a log line is no place for a million.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartSet({} of {}:", self.len, self.part_count)?;
        self.iter().take(8).try_for_each(|part| write!(f, " {part}"))?;
        f.write_str(if self.len > 8 { " …)" } else { ")" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(part_count: u32, parts: &[u32]) -> PartSet {
        PartSet::from_parts(part_count, parts.iter().copied().map(PartNumber::new))
    }

    fn numbers(parts: impl Iterator<Item = PartNumber>) -> Vec<u32> {
        parts.map(PartNumber::as_u32).collect()
    }

    #[test]
    fn beyond_the_end_there_is_nothing() {
        for part_count in [0, 1, 63, 64, 65, 1_000] {
            let mut set = PartSet::new(part_count);
            for number in [part_count, part_count + 1, part_count + 64, u32::MAX] {
                let part = PartNumber::new(number);
                assert!(!set.insert(part), "{number} of {part_count}");
                assert!(!set.contains(part) && !set.remove(part));
            }
            set.check_invariants();
            assert!(set.is_empty());
            assert_eq!(set.is_full(), part_count == 0);
        }
        assert_eq!(PartSet::new(u32::MAX).part_count(), MAX_PARTS);
    }

    #[test]
    fn full_sets_lack_nothing() {
        for part_count in [0, 1, 63, 64, 65, 128, 1_000] {
            let full = PartSet::full(part_count);
            full.check_invariants();
            assert!(full.is_full());
            assert_eq!(full.first_missing(), None);
            assert_eq!(full, set(part_count, &(0..part_count).collect::<Vec<_>>()));
            assert_eq!(full.useful_to(&PartSet::new(part_count)), part_count);
        }
    }

    #[test]
    fn runs_are_the_same_as_their_parts() {
        for part_count in [1, 64, 65, 130, 200] {
            for (first, count) in [(0, 1), (0, 64), (1, 63), (63, 2), (5, 190), (64, 64), (199, 1), (300, 5)] {
                let range = PartRange::new(PartNumber::new(first), count).unwrap();
                let mut by_run = set(part_count, &[0, 62, 64, 129]);
                let mut by_part = by_run.clone();
                assert_eq!(by_run.insert_range(range), by_part.insert_all(range.iter()), "{first}+{count}");
                assert_eq!(by_run, by_part);
                by_run.check_invariants();
            }
        }
    }

    #[test]
    fn useful_parts_are_found_from_any_start() {
        let mine = set(200, &[3, 64, 65, 199]);
        let theirs = set(200, &[65]);
        assert_eq!(mine.useful_to(&theirs), 3);
        assert!(mine.is_useful_to(&theirs) && !theirs.is_useful_to(&mine));
        for (start, expected) in [(0, 3), (3, 3), (4, 64), (64, 64), (65, 199), (199, 199), (200, 3), (u32::MAX, 3)] {
            let found = mine.select_missing_from(&theirs, PartNumber::new(start));
            assert_eq!(found, Some(PartNumber::new(expected)), "from {start}");
        }
        let one = set(200, &[3]);
        assert_eq!(one.select_missing_from(&theirs, PartNumber::new(4)), Some(PartNumber::new(3)), "round in one word");
        assert_eq!(theirs.select_missing_from(&mine, PartNumber::new(7)), None);
    }

    #[test]
    fn sets_of_different_lengths_compare_as_sets() {
        let (mut short, long) = (set(10, &[1]), set(200, &[1, 5, 100]));
        assert_eq!(long.useful_to(&short), 2);
        assert_eq!(short.useful_to(&long), 0);
        assert_eq!(short.union_with(&long), 1);
        short.check_invariants();
        assert_eq!(numbers(short.iter()), [1, 5]);
    }

    #[test]
    fn what_is_missing() {
        let set = set(66, &(0..65).collect::<Vec<_>>());
        assert_eq!(numbers(set.missing()), [65]);
        assert_eq!(set.first_missing(), Some(PartNumber::new(65)));
        assert_eq!(format!("{set:?}"), "PartSet(65 of 66: 0 1 2 3 4 5 6 7 …)");
    }
}
