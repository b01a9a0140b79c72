//! Sets, rarity and directory against models so naive that they are plainly right.

use hybrid_manifest::{PartNumber, PartRange};
use hybrid_swarm::{Directory, DirectoryError, HolderSlot, PartSet, Rarity};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Word edges and their neighbours are where bit sets go wrong.
fn part_counts() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(63), Just(64), Just(65), Just(128), 2u32..300]
}

/// Mostly inside a content of up to 300 parts, sometimes far beyond.
fn part_numbers() -> impl Strategy<Value = u32> {
    prop_oneof![9 => 0u32..310, 1 => any::<u32>()]
}

fn number(part: PartNumber) -> u32 {
    part.as_u32()
}

fn numbers(parts: impl IntoIterator<Item = PartNumber>) -> Vec<u32> {
    parts.into_iter().map(number).collect()
}

#[derive(Clone, Debug)]
enum SetStep {
    Insert(u32),
    Remove(u32),
    InsertRange(u32, u32),
    Union(Vec<u32>),
}

fn set_steps() -> impl Strategy<Value = SetStep> {
    prop_oneof![
        4 => part_numbers().prop_map(SetStep::Insert),
        3 => part_numbers().prop_map(SetStep::Remove),
        1 => (0u32..310, 1u32..200).prop_map(|(first, count)| SetStep::InsertRange(first, count)),
        1 => prop::collection::vec(part_numbers(), 0..20).prop_map(SetStep::Union),
    ]
}

proptest! {
    #[test]
    fn a_part_set_is_a_set(
        part_count in part_counts(),
        steps in prop::collection::vec(set_steps(), 0..100),
        others in prop::collection::vec(part_numbers(), 0..100),
        other_count in part_counts(),
        start in part_numbers(),
    ) {
        let mut set = PartSet::new(part_count);
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                SetStep::Insert(part) => {
                    let expected = part < part_count && model.insert(part);
                    prop_assert_eq!(set.insert(PartNumber::new(part)), expected);
                }
                SetStep::Remove(part) => prop_assert_eq!(set.remove(PartNumber::new(part)), model.remove(&part)),
                SetStep::InsertRange(first, count) => {
                    let before = model.len();
                    model.extend((first..first + count).filter(|part| *part < part_count));
                    let range = PartRange::new(PartNumber::new(first), count).expect("a run of at least one part");
                    prop_assert_eq!(set.insert_range(range) as usize, model.len() - before);
                }
                SetStep::Union(parts) => {
                    let before = model.len();
                    model.extend(parts.iter().copied().filter(|part| *part < part_count && *part < other_count));
                    let other = PartSet::from_parts(other_count, parts.into_iter().map(PartNumber::new));
                    prop_assert_eq!(set.union_with(&other) as usize, model.len() - before);
                }
            }
            set.check_invariants();
        }
        prop_assert_eq!(numbers(set.iter()), model.iter().copied().collect::<Vec<_>>());
        let missing: Vec<u32> = (0..part_count).filter(|part| !model.contains(part)).collect();
        prop_assert_eq!(set.first_missing().map(number), missing.first().copied());
        prop_assert_eq!(numbers(set.missing()), missing);
        prop_assert_eq!(set.len() as usize, model.len());
        prop_assert_eq!(set.is_full(), model.len() == part_count as usize);
        prop_assert_eq!(&PartSet::from_parts(part_count, set.iter()), &set);

        let other = PartSet::from_parts(other_count, others.into_iter().map(PartNumber::new));
        let useful: Vec<u32> = model.iter().copied().filter(|part| !other.contains(PartNumber::new(*part))).collect();
        prop_assert_eq!(set.useful_to(&other) as usize, useful.len());
        prop_assert_eq!(set.is_useful_to(&other), !useful.is_empty());
        let expected = useful.iter().copied().find(|part| *part >= start).or(useful.first().copied());
        prop_assert_eq!(set.select_missing_from(&other, PartNumber::new(start)).map(number), expected);
        let begin = if start < set.part_count() { start } else { 0 };
        let (before, behind): (Vec<u32>, Vec<u32>) = useful.iter().partition(|part| **part < begin);
        let all: Vec<u32> = set.missing_from(&other, PartNumber::new(start)).map(number).collect();
        prop_assert_eq!(all, [behind, before].concat(), "each once, from the start on and around the end");
    }

    #[test]
    fn rarity_counts_and_sorts(
        part_count in part_counts(),
        // Few parts, so that counts rise and fall instead of staying at one.
        steps in prop::collection::vec((prop_oneof![4 => 0u32..8, 1 => part_numbers()], prop::bool::weighted(0.6)), 0..300),
        held in prop::collection::vec(part_numbers(), 0..50),
        excluded in 0u32..8,
        n in 0usize..10,
    ) {
        let mut rarity = Rarity::new(part_count);
        let mut model: BTreeMap<u32, u32> = (0..part_count).map(|part| (part, 0)).collect();
        for (part, more) in steps {
            if more {
                rarity.add(PartNumber::new(part));
                model.entry(part).and_modify(|count| *count += 1);
            } else {
                rarity.remove(PartNumber::new(part));
                model.entry(part).and_modify(|count| *count = count.saturating_sub(1));
            }
            rarity.check_invariants();
        }
        for (part, count) in &model {
            prop_assert_eq!(rarity.count(PartNumber::new(*part)), *count);
        }
        let mut order = numbers(rarity.rarest());
        prop_assert!(order.is_sorted_by_key(|part| model[part]), "{:?}", order);
        order.sort_unstable();
        prop_assert_eq!(order, (0..part_count).collect::<Vec<_>>());
        for copies in 0..5 {
            let expected = model.values().filter(|count| **count < copies).count();
            prop_assert_eq!(rarity.rarer_than(copies) as usize, expected);
        }

        let held = PartSet::from_parts(part_count, held.into_iter().map(PartNumber::new));
        let picked = numbers(rarity.rarest_for(&held, |part| number(part) == excluded, n));
        let mut wanted: Vec<u32> =
            model.keys().copied().filter(|part| *part != excluded && !held.contains(PartNumber::new(*part))).collect();
        wanted.sort_by_key(|part| model[part]);
        prop_assert_eq!(picked.len(), n.min(wanted.len()));
        prop_assert!(picked.iter().all(|part| wanted.contains(part)), "{:?}", picked);
        // Ties may stand in any order, the counts may not.
        let counts = |parts: &[u32]| parts.iter().map(|part| model[part]).collect::<Vec<_>>();
        prop_assert_eq!(counts(&picked), counts(&wanted[..picked.len()]));
        prop_assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), picked.len());
    }
}

#[derive(Clone, Debug)]
enum DirectoryStep {
    Join(Vec<u32>),
    JoinOther(u32),
    Leave(u32),
    Gain(u32, u32),
    GainAll(u32, Vec<u32>),
    Lose(u32, u32),
}

fn directory_steps() -> impl Strategy<Value = DirectoryStep> {
    // Slots and parts are few, so that steps meet.
    let slot = || prop_oneof![9 => 0u32..8, 1 => any::<u32>()];
    let part = || prop_oneof![9 => 0u32..20, 1 => any::<u32>()];
    prop_oneof![
        3 => prop::collection::vec(part(), 0..20).prop_map(DirectoryStep::Join),
        1 => (0u32..400).prop_map(DirectoryStep::JoinOther),
        2 => slot().prop_map(DirectoryStep::Leave),
        4 => (slot(), part()).prop_map(|(slot, part)| DirectoryStep::Gain(slot, part)),
        1 => (slot(), prop::collection::vec(part(), 0..20)).prop_map(|(slot, parts)| DirectoryStep::GainAll(slot, parts)),
        2 => (slot(), part()).prop_map(|(slot, part)| DirectoryStep::Lose(slot, part)),
    ]
}

proptest! {
    #[test]
    fn the_directory_knows_who_has_what(
        part_count in prop_oneof![0u32..20, part_counts()],
        max_holders in 0u32..7,
        steps in prop::collection::vec(directory_steps(), 0..150),
        start in prop_oneof![0u32..8, any::<u32>()],
    ) {
        let mut directory = Directory::new(part_count, max_holders);
        let mut model: BTreeMap<HolderSlot, BTreeSet<u32>> = BTreeMap::new();
        let inside = |parts: Vec<u32>| parts.into_iter().filter(|part| *part < part_count).collect::<BTreeSet<_>>();
        for step in steps {
            match step {
                DirectoryStep::Join(parts) => {
                    let set = PartSet::from_parts(part_count, parts.iter().copied().map(PartNumber::new));
                    match directory.join(set) {
                        Ok(slot) => {
                            prop_assert!(slot.as_u32() < max_holders, "slots are dense");
                            prop_assert!(model.insert(slot, inside(parts)).is_none(), "the slot was vacant");
                        }
                        Err(error) => {
                            prop_assert_eq!(error, DirectoryError::Full { limit: max_holders });
                            prop_assert_eq!(model.len(), max_holders as usize);
                        }
                    }
                }
                DirectoryStep::JoinOther(got) => {
                    if got == part_count {
                        continue;
                    }
                    let expected = DirectoryError::PartCount { expected: part_count, got };
                    prop_assert_eq!(directory.join(PartSet::full(got)), Err(expected));
                }
                DirectoryStep::Leave(slot) => {
                    let left = directory.leave(HolderSlot::new(slot)).map(|set| numbers(set.iter()));
                    let expected = model.remove(&HolderSlot::new(slot)).map(|set| set.into_iter().collect());
                    prop_assert_eq!(left, expected);
                }
                DirectoryStep::Gain(slot, part) => {
                    let slot = HolderSlot::new(slot);
                    let expected = part < part_count && model.get_mut(&slot).is_some_and(|set| set.insert(part));
                    prop_assert_eq!(directory.gain(slot, PartNumber::new(part)), expected);
                }
                DirectoryStep::GainAll(slot, parts) => {
                    let slot = HolderSlot::new(slot);
                    let gained = directory.gain_all(slot, parts.iter().copied().map(PartNumber::new));
                    let expected = model.get_mut(&slot).map_or(0, |set| {
                        let before = set.len();
                        set.extend(inside(parts));
                        set.len() - before
                    });
                    prop_assert_eq!(gained as usize, expected);
                }
                DirectoryStep::Lose(slot, part) => {
                    let slot = HolderSlot::new(slot);
                    let expected = model.get_mut(&slot).is_some_and(|set| set.remove(&part));
                    prop_assert_eq!(directory.lose(slot, PartNumber::new(part)), expected);
                }
            }
            directory.check_invariants();
            prop_assert_eq!(directory.len() as usize, model.len());
        }
        prop_assert_eq!(directory.iter().map(|(slot, _)| slot).collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
        for (slot, parts) in &model {
            let set = directory.set(*slot).expect("the slot is taken");
            prop_assert_eq!(numbers(set.iter()), parts.iter().copied().collect::<Vec<_>>());
        }
        for part in 0..part_count.min(25) {
            let holders: Vec<HolderSlot> =
                model.iter().filter(|(_, set)| set.contains(&part)).map(|(slot, _)| *slot).collect();
            prop_assert_eq!(directory.rarity().count(PartNumber::new(part)) as usize, holders.len());
            let start = HolderSlot::new(start);
            let mut round: Vec<_> = directory.holders_from(PartNumber::new(part), start).collect();
            if let Some(first) = round.first() {
                let next = holders.iter().find(|slot| **slot >= start).or(holders.first());
                prop_assert_eq!(Some(first), next);
            }
            round.sort_unstable();
            prop_assert_eq!(&round, &holders);
            prop_assert_eq!(directory.holders(PartNumber::new(part)).collect::<Vec<_>>(), holders);
        }
    }
}
