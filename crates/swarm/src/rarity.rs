//! How many hold each part, and which parts are held by the fewest.

use crate::PartSet;
use hybrid_manifest::{MAX_PARTS, PartNumber};

/// Counts of copies per part, kept sorted.
///
/// All parts stand in one array in ascending order of their counts, and the first place of each count is known.
/// One copy more or fewer therefore swaps one part with the edge of its group and moves that edge by one: a constant time,
/// whatever the number of parts and holders.
/// The rarest parts are the front of the array.
/// (The same idea, with fewer words, is in libtorrent's piece picker, which rebuilds its order when it is out of date.)
///
/// The order among parts of equal count follows from the history of calls alone, so a replay sees the same order.
///
/// Memory: 12 bytes a part and 4 bytes for each count up to the largest one.
/// In a directory that is the number of holders, which has a limit; alone, it is the number of calls to [`Rarity::add`].
#[derive(Clone, Debug)]
pub struct Rarity {
    /// Copies of each part, by part.
    counts: Box<[u32]>,
    /// All parts, ascending by count.
    order: Box<[u32]>,
    /// Where each part stands in `order`.
    positions: Box<[u32]>,
    /// The first place in `order` of a part with this many copies or more. The last entry is below the number of parts:
    /// it belongs to the largest count that there is.
    starts: Vec<u32>,
}

impl Rarity {
    /// No copies of any of `part_count` parts; more than [`MAX_PARTS`] are cut down to it, as in [`PartSet::new`].
    pub fn new(part_count: u32) -> Self {
        let part_count = part_count.min(MAX_PARTS);
        let parts: Box<[u32]> = (0..part_count).collect();
        Self {
            counts: vec![0; part_count as usize].into_boxed_slice(),
            order: parts.clone(),
            positions: parts,
            starts: vec![0],
        }
    }

    /// How many parts are counted.
    pub fn part_count(&self) -> u32 {
        // At most MAX_PARTS by construction.
        u32::try_from(self.counts.len()).unwrap_or(u32::MAX)
    }

    /// How many copies of the part there are; zero beyond the end.
    pub fn count(&self, part: PartNumber) -> u32 {
        self.counts.get(part.as_index()).copied().unwrap_or(0)
    }

    /// One copy more. A part beyond the end changes nothing.
    pub fn add(&mut self, part: PartNumber) {
        let Some(&count) = self.counts.get(part.as_index()) else { return };
        let Some(more) = count.checked_add(1) else { return };
        // The part becomes the last of its group, then the group above begins one place earlier, with it.
        let above = self.starts.get(more as usize).copied().unwrap_or(self.part_count());
        self.move_to(part, above - 1);
        match self.starts.get_mut(more as usize) {
            Some(start) => *start -= 1,
            None => self.starts.push(above - 1),
        }
        self.counts[part.as_index()] = more;
    }

    /// One copy fewer. A part that has none, or lies beyond the end, changes nothing.
    pub fn remove(&mut self, part: PartNumber) {
        let count = self.count(part);
        let Some(fewer) = count.checked_sub(1) else { return };
        // The part becomes the first of its group, then the group begins one place later, without it.
        let start = self.starts[count as usize];
        self.move_to(part, start);
        self.starts[count as usize] = start + 1;
        if start + 1 == self.part_count() {
            self.starts.pop();
        }
        self.counts[part.as_index()] = fewer;
    }

    /// Swaps a part with the one at `place` of the order. Both exist: the callers know `part`, and a group's edge is a place.
    fn move_to(&mut self, part: PartNumber, place: u32) {
        let from = self.positions[part.as_index()];
        let other = self.order[place as usize];
        self.order.swap(from as usize, place as usize);
        self.positions.swap(part.as_index(), other as usize);
    }

    /// All parts from the one with the fewest copies on.
    pub fn rarest(&self) -> impl ExactSizeIterator<Item = PartNumber> + Clone + '_ {
        self.order.iter().copied().map(PartNumber::new)
    }

    /// The `n` rarest parts that `held` lacks and `exclude` does not name, rarest first.
    ///
    /// Lazy, so it costs as many steps as parts are passed over: few, unless `held` has all the rare ones.
    /// A caller that would serve many newcomers the same part excludes what is on its way already.
    pub fn rarest_for<'a>(
        &'a self,
        held: &'a PartSet,
        exclude: impl Fn(PartNumber) -> bool + 'a,
        n: usize,
    ) -> impl Iterator<Item = PartNumber> + 'a {
        self.rarest().filter(move |part| !held.contains(*part) && !exclude(*part)).take(n)
    }

    /// How many parts have fewer than `copies` copies.
    pub fn rarer_than(&self, copies: u32) -> u32 {
        self.starts.get(copies as usize).copied().unwrap_or(self.part_count())
    }

    /// Panics if the order, the places and the counts disagree: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        let parts = self.counts.len();
        assert_eq!((self.order.len(), self.positions.len()), (parts, parts), "one place for each part");
        for (place, part) in self.order.iter().enumerate() {
            assert_eq!(self.positions[*part as usize] as usize, place, "part {part} must know its place");
        }
        assert!(self.rarest().is_sorted_by_key(|part| self.count(part)), "the order must ascend by count");
        for (count, start) in self.starts.iter().enumerate() {
            let fewer = self.counts.iter().filter(|other| (**other as usize) < count).count();
            assert_eq!(*start as usize, fewer, "the group of {count} copies must begin after all rarer parts");
        }
        let largest = self.counts.iter().copied().max().unwrap_or(0) as usize;
        assert_eq!(self.starts.len(), largest + 1, "one group for each count up to the largest, {largest}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rarity: &Rarity) -> Vec<(u32, u32)> {
        rarity.rarest().map(|part| (part.as_u32(), rarity.count(part))).collect()
    }

    #[test]
    fn counts_move_parts() {
        let mut rarity = Rarity::new(3);
        for number in [1, 1, 0] {
            rarity.add(PartNumber::new(number));
            rarity.check_invariants();
        }
        assert_eq!(order(&rarity), [(2, 0), (0, 1), (1, 2)]);
        assert_eq!([0, 1, 2, 3].map(|copies| rarity.rarer_than(copies)), [0, 1, 2, 3]);
        for _ in 0..2 {
            rarity.remove(PartNumber::new(1));
            rarity.check_invariants();
        }
        assert_eq!(order(&rarity).last(), Some(&(0, 1)));
    }

    #[test]
    fn nothing_happens_out_of_bounds() {
        for part_count in [0, 1, 3] {
            let mut rarity = Rarity::new(part_count);
            rarity.add(PartNumber::new(part_count));
            rarity.remove(PartNumber::new(0));
            rarity.remove(PartNumber::new(u32::MAX));
            rarity.check_invariants();
            assert!(rarity.rarest().all(|part| rarity.count(part) == 0));
        }
    }

    #[test]
    fn the_rarest_that_a_newcomer_lacks() {
        let mut rarity = Rarity::new(4);
        for number in [0, 0, 1, 3, 3, 3] {
            rarity.add(PartNumber::new(number));
        }
        let held = PartSet::from_parts(4, [PartNumber::new(1)]);
        let pick = |excluded: u32, n: usize| -> Vec<u32> {
            rarity.rarest_for(&held, |part| part.as_u32() == excluded, n).map(PartNumber::as_u32).collect()
        };
        assert_eq!(pick(9, 9), [2, 0, 3]);
        assert_eq!(pick(2, 1), [0]);
        assert_eq!(pick(2, 0), [0; 0]);
    }
}
