//! How many of the connected peers hold each part.

use hybrid_manifest::PartNumber;
use hybrid_swarm::PartSet;

/// Open parts looked at for one choice: all of an ordinary content's, and a few microseconds of a very large one's.
const LOOKED_AT: usize = 2_048;

/// The number of connected peers that hold each part, kept as they tell.
#[derive(Debug)]
pub(crate) struct Availability {
    counts: Vec<u16>,
}

impl Availability {
    pub(crate) fn new(part_count: u32) -> Self {
        Self { counts: vec![0; part_count as usize] }
    }

    /// How many peers hold this part.
    pub(crate) fn of(&self, number: PartNumber) -> u16 {
        self.counts.get(number.as_index()).copied().unwrap_or(0)
    }

    /// A peer holds one part more.
    pub(crate) fn gained(&mut self, number: PartNumber) {
        if let Some(count) = self.counts.get_mut(number.as_index()) {
            *count = count.saturating_add(1);
        }
    }

    /// A peer holds one part less.
    pub(crate) fn lost(&mut self, number: PartNumber) {
        if let Some(count) = self.counts.get_mut(number.as_index()) {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn joined(&mut self, has: &PartSet) {
        has.iter().for_each(|number| self.gained(number));
    }

    pub(crate) fn left(&mut self, has: &PartSet) {
        has.iter().for_each(|number| self.lost(number));
    }

    /// Of the parts in `has` and not in `taken`, one that the fewest peers hold; the first such from `start` on, so that clients
    /// with different starts choose different ones. None can be held by fewer than `least`, so one of these ends the search.
    pub(crate) fn rarest(&self, has: &PartSet, taken: &PartSet, start: PartNumber, least: u16) -> Option<PartNumber> {
        let mut rarest = None;
        for number in has.missing_from(taken, start).take(LOOKED_AT) {
            let count = self.of(number);
            if rarest.is_none_or(|(fewest, _)| count < fewest) {
                rarest = Some((count, number));
                if count <= least {
                    break;
                }
            }
        }
        rarest.map(|(_, number)| number)
    }

    pub(crate) fn check_invariants<'a>(&self, sets: impl Iterator<Item = &'a PartSet>) {
        let mut counts = vec![0; self.counts.len()];
        for number in sets.flat_map(PartSet::iter) {
            counts[number.as_index()] += 1;
        }
        assert_eq!(counts, self.counts, "copies at the connected peers are miscounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32) -> PartNumber {
        PartNumber::new(number)
    }

    #[test]
    fn the_rarest_open_part_from_the_start_on() {
        let mut copies = Availability::new(6);
        let set = |parts: &[u32]| PartSet::from_parts(6, parts.iter().copied().map(part));
        copies.joined(&set(&[0, 1, 2, 3, 4]));
        copies.joined(&set(&[0, 2, 4]));
        let (all, none) = (PartSet::full(6), set(&[]));
        assert_eq!(copies.rarest(&all, &none, part(0), 0), Some(part(5)), "nobody holds it");
        assert_eq!(copies.rarest(&set(&[0, 1, 3]), &none, part(0), 1), Some(part(1)));
        assert_eq!(copies.rarest(&set(&[0, 1, 3]), &none, part(2), 1), Some(part(3)), "among equals the start decides");
        assert_eq!(copies.rarest(&set(&[0, 1, 3]), &set(&[1, 3]), part(2), 1), Some(part(0)));
        assert_eq!(copies.rarest(&set(&[0]), &set(&[0]), part(0), 1), None);
        copies.left(&set(&[0, 2, 4]));
        assert_eq!(copies.of(part(0)), 1);
    }
}
