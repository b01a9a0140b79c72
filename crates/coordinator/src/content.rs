//! One content's swarm: its members, who holds what, and which parts are on their way to whom.

use crate::ClientId;
use crate::quality::ClassIndex;
use hybrid_manifest::{PartLen, PartNumber};
use hybrid_swarm::{Directory, HolderSlot, PartSet, Rarity};
use hybrid_units::{ByteCount, Instant};
use hybrid_wire::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Where a member's parts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the holders, by its slot there.
    Among(HolderSlot),
    /// Apart from them.
    Apart,
}

#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) class: ClassIndex,
    pub(crate) part_len: PartLen,
    /// What those members hold from whom others can fetch: rarity and copies come from these alone.
    directory: Directory,
    /// Copies of which there is more than their holders' word: parts that the server sent, and all of those from whom others
    /// got parts.
    known: Rarity,
    /// What the server sent, of those holders from whom nobody is known to have got a part.
    unproven: BTreeMap<ClientId, PartSet>,
    everything: PartSet,
    /// What the other members hold: those that serve nobody, that nobody can dial, or that others accuse.
    apart: BTreeMap<ClientId, PartSet>,
    /// The clients, in an order of no meaning, so that a random one costs one step.
    pub(crate) members: Vec<ClientId>,
    /// Copies of each part that were sent and not reported yet.
    flying: Vec<u16>,
    leases: BTreeMap<(ClientId, PartNumber), Instant>,
    lease_ends: BTreeSet<(Instant, ClientId, PartNumber)>,
    pub(crate) received: BTreeMap<Source, u64>,
    pub(crate) joined_last_at: Instant,
    /// The sum of what is known of the members' uplinks, in bytes per second.
    pub(crate) uplinks_known: u64,
}

impl Content {
    pub(crate) fn new(class: ClassIndex, part_count: u32, part_len: PartLen, clients_max: u32) -> Self {
        Self {
            class,
            part_len,
            directory: Directory::new(part_count, clients_max),
            known: Rarity::new(part_count),
            unproven: BTreeMap::new(),
            everything: PartSet::full(part_count),
            apart: BTreeMap::new(),
            members: Vec::new(),
            flying: vec![0; part_count as usize],
            leases: BTreeMap::new(),
            lease_ends: BTreeSet::new(),
            received: BTreeMap::new(),
            joined_last_at: Instant::ZERO,
            uplinks_known: 0,
        }
    }

    pub(crate) fn part_count(&self) -> u32 {
        self.directory.part_count()
    }

    /// Copies that are known to exist or are on their way.
    pub(crate) fn known_copies(&self, number: PartNumber) -> u32 {
        let flying = self.flying.get(number.as_index()).copied().unwrap_or(0);
        self.known.count(number) + u32::from(flying)
    }

    /// The same with those that there are by their holders' word.
    pub(crate) fn copies(&self, number: PartNumber) -> u32 {
        let flying = self.flying.get(number.as_index()).copied().unwrap_or(0);
        self.directory.rarity().count(number) + u32::from(flying)
    }

    pub(crate) fn is_leased(&self, client: ClientId, number: PartNumber) -> bool {
        self.leases.contains_key(&(client, number))
    }

    /// A copy is on its way to a client; it counts until it is reported, or until the lease ends.
    pub(crate) fn lease(&mut self, client: ClientId, number: PartNumber, until: Instant) {
        let Some(flying) = self.flying.get_mut(number.as_index()) else { return };
        match self.leases.insert((client, number), until) {
            Some(before) => {
                self.lease_ends.remove(&(before, client, number));
            }
            None => *flying = flying.saturating_add(1),
        }
        self.lease_ends.insert((until, client, number));
    }

    /// Says whether there was one.
    pub(crate) fn end_lease(&mut self, client: ClientId, number: PartNumber) -> bool {
        let Some(until) = self.leases.remove(&(client, number)) else { return false };
        self.lease_ends.remove(&(until, client, number));
        if let Some(flying) = self.flying.get_mut(number.as_index()) {
            *flying = flying.saturating_sub(1);
        }
        true
    }

    pub(crate) fn leases_of(&self, client: ClientId) -> impl Iterator<Item = PartNumber> + '_ {
        let all = (client, PartNumber::new(0))..=(client, PartNumber::new(u32::MAX));
        self.leases.range(all).map(|((_, number), _)| *number)
    }

    /// Ends what is overdue, and says whose.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(ClientId, PartNumber)> {
        let mut lapsed = Vec::new();
        while let Some((until, client, number)) = self.lease_ends.first().copied() {
            if until > now {
                break;
            }
            self.end_lease(client, number);
            lapsed.push((client, number));
        }
        lapsed
    }

    pub(crate) fn next_lease_end(&self) -> Option<Instant> {
        self.lease_ends.first().map(|(until, _, _)| *until)
    }

    fn unsent(&self) -> impl Iterator<Item = PartNumber> + '_ {
        let unknown = self.known.rarest().take_while(|number| self.known.count(*number) == 0);
        unknown.filter(|number| self.known_copies(*number) == 0)
    }

    /// Whether there are parts that nobody is known to hold and nobody is being sent: unique-first.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent().next().is_some()
    }

    /// One of those that a client lacks.
    pub(crate) fn unsent_part(&self, client: ClientId, place: Place) -> Option<PartNumber> {
        let held = self.held(client, place)?;
        self.unsent().find(|number| !held.contains(*number))
    }

    /// Of the rarest parts, those on their way included, one that a client lacks and is not being sent.
    pub(crate) fn starter_part(&self, client: ClientId, place: Place) -> Option<PartNumber> {
        /// The rarest by holders may all be on their way already; among so many of the next ones there is a rarer one.
        const CANDIDATES: usize = 256;
        let held = self.held(client, place)?;
        let rarity = self.directory.rarity();
        rarity
            .rarest()
            .filter(|number| !held.contains(*number) && !self.is_leased(client, *number))
            .take(CANDIDATES)
            .min_by_key(|number| self.copies(*number))
    }

    /// The rarest part that a client lacks and is not being sent, if so few hold it that all who lack it wait for a few uplinks,
    /// perhaps slow ones.
    pub(crate) fn rare_part(&self, client: ClientId, place: Place) -> Option<PartNumber> {
        /// Of the rarest parts, those that are looked at: the client may hold the first of them itself.
        const LOOKED_AT: usize = 256;
        /// A part is rare if one member in so many holds it, or fewer.
        const RARE: usize = 4;
        let held = self.held(client, place)?;
        let few = u32::try_from(self.members.len() / RARE).unwrap_or(u32::MAX);
        let rarity = self.directory.rarity();
        let rare = rarity.rarest().take(LOOKED_AT).take_while(|number| rarity.count(*number) <= few);
        rare.filter(|number| self.copies(*number) <= few && !held.contains(*number) && !self.is_leased(client, *number))
            .min_by_key(|number| self.copies(*number))
    }

    /// Of some parts that a client lacks and is not being sent, the one with the most copies. The client asks its peers for the
    /// rarest first, and would get those twice: in the harness of `docs/PERFORMANCE.md`, 9 to 21 pushes came while the same
    /// part was being asked of a peer, and 20 to 48 when the rarest were pushed (six runs each).
    pub(crate) fn common_part(&self, client: ClientId, place: Place, start: usize) -> Option<PartNumber> {
        const LOOKED_AT: usize = 8;
        let held = self.held(client, place)?;
        #[allow(clippy::cast_possible_truncation, reason = "a remainder of a u32")]
        let start = PartNumber::new((start % self.part_count().max(1) as usize) as u32);
        let lacking = self.everything.missing_from(held, start).filter(|number| !self.is_leased(client, *number));
        lacking.step_by(7).take(LOOKED_AT).max_by_key(|number| self.copies(*number))
    }

    /// Parts of which no copy is known that can be fetched from a member.
    pub(crate) fn parts_without_holder(&self) -> u32 {
        self.known.rarer_than(1)
    }

    /// Parts of which no known copy is left, on average, if each holder leaves by itself with this probability.
    pub(crate) fn expected_lost(&self, leave: f64) -> f64 {
        let holders = self.everything.iter().map(|number| self.known.count(number));
        holders.map(|holders| leave.powi(i32::try_from(holders).unwrap_or(i32::MAX))).sum()
    }

    /// Members from whom others can fetch.
    pub(crate) fn reachable(&self) -> u32 {
        self.directory.len()
    }

    pub(crate) fn join(&mut self, client: ClientId, has: PartSet, reachable: bool) -> Option<Place> {
        let place = if reachable {
            let slot = self.directory.join(has).ok()?;
            self.unproven.insert(client, PartSet::new(self.part_count()));
            Place::Among(slot)
        } else {
            self.apart.insert(client, has);
            Place::Apart
        };
        self.members.push(client);
        Some(place)
    }

    /// A member's word counts from now on.
    pub(crate) fn believe(&mut self, client: ClientId, place: Place) {
        let Place::Among(slot) = place else { return };
        let Some(sent) = self.unproven.remove(&client) else { return };
        let Some(held) = self.directory.set(slot) else { return };
        held.iter().filter(|number| !sent.contains(*number)).for_each(|number| self.known.add(number));
    }

    /// A member that was set apart and may be fetched from again.
    pub(crate) fn admit(&mut self, client: ClientId, place: Place) -> Place {
        let Some(has) = self.apart.remove(&client) else { return place };
        match self.directory.join(has.clone()) {
            Ok(slot) => {
                self.unproven.insert(client, PartSet::new(self.part_count()));
                Place::Among(slot)
            }
            Err(_) => {
                self.apart.insert(client, has);
                Place::Apart
            }
        }
    }

    /// A member that others should no longer fetch from: what it holds counts no more.
    pub(crate) fn set_apart(&mut self, client: ClientId, place: Place) -> Place {
        if let Place::Among(slot) = place
            && let Some(has) = self.directory.leave(slot)
        {
            let known = self.unproven.remove(&client);
            known.as_ref().unwrap_or(&has).iter().for_each(|number| self.known.remove(number));
            self.apart.insert(client, has);
        }
        Place::Apart
    }

    pub(crate) fn held(&self, client: ClientId, place: Place) -> Option<&PartSet> {
        match place {
            Place::Among(slot) => self.directory.set(slot),
            Place::Apart => self.apart.get(&client),
        }
    }

    /// A member reports a part; `sent` says that the server sent it.
    pub(crate) fn gain(&mut self, client: ClientId, place: Place, number: PartNumber, sent: bool) {
        match place {
            Place::Among(slot) => {
                let news = self.directory.gain(slot, number);
                let known = match self.unproven.get_mut(&client) {
                    Some(known) => sent && self.directory.holds(slot, number) && known.insert(number),
                    None => news,
                };
                if known {
                    self.known.add(number);
                }
            }
            Place::Apart => {
                if let Some(set) = self.apart.get_mut(&client) {
                    set.insert(number);
                }
            }
        }
    }

    pub(crate) fn lose(&mut self, client: ClientId, place: Place, number: PartNumber) {
        match place {
            Place::Among(slot) => {
                let had = self.directory.lose(slot, number);
                if self.unproven.get_mut(&client).map_or(had, |known| known.remove(number)) {
                    self.known.remove(number);
                }
            }
            Place::Apart => {
                if let Some(set) = self.apart.get_mut(&client) {
                    set.remove(number);
                }
            }
        }
    }

    pub(crate) fn leave(&mut self, client: ClientId, place: Place) {
        let leased: Vec<PartNumber> = self.leases_of(client).collect();
        for number in leased {
            self.end_lease(client, number);
        }
        self.set_apart(client, place);
        self.apart.remove(&client);
        if let Some(index) = self.members.iter().position(|member| *member == client) {
            self.members.swap_remove(index);
        }
    }

    pub(crate) fn received(&self) -> Vec<(Source, ByteCount)> {
        self.received.iter().map(|(source, bytes)| (*source, ByteCount::new(*bytes))).collect()
    }

    pub(crate) fn check_invariants(&self) {
        self.directory.check_invariants();
        self.known.check_invariants();
        let unproven: u32 = self.unproven.values().map(PartSet::len).sum();
        let held: u32 = self.directory.iter().map(|(_, set)| set.len()).sum();
        let known: u32 = self.everything.iter().map(|number| self.known.count(number)).sum();
        assert!(unproven <= known && known <= held, "{unproven} of {known} known copies of {held} are of the unproven");
        assert!(self.unproven.keys().all(|client| self.members.contains(client)), "parts of a client that left");
        assert_eq!(self.leases.len(), self.lease_ends.len());
        let mut flying = vec![0u16; self.flying.len()];
        for (_, number) in self.leases.keys() {
            flying[number.as_index()] += 1;
        }
        assert_eq!(flying, self.flying, "copies under way are miscounted");
        assert_eq!(self.members.len(), self.directory.len() as usize + self.apart.len());
        assert!(self.apart.keys().all(|client| self.members.contains(client)), "parts of a client that left");
        for (client, _) in self.leases.keys() {
            assert!(self.members.contains(client), "a lease of a client that left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_parts_need_a_crowd_and_common_ones_are_the_most_common() {
        let part_len = PartLen::new(65_536).expect("an allowed length");
        let mut content = Content::new(0, 8, part_len, 10);
        let set = |parts: std::ops::Range<u32>| PartSet::from_parts(8, parts.map(PartNumber::new));
        content.join(ClientId(1), set(0..8), true);
        content.join(ClientId(2), set(0..1), true);
        let place = content.join(ClientId(3), set(0..0), true).expect("room");
        for start in [0, 1] {
            assert_eq!(content.common_part(ClientId(3), place, start), Some(PartNumber::new(0)), "two hold it");
        }
        assert_eq!(content.rare_part(ClientId(3), place), None, "of three, no part is rare");
        content.join(ClientId(4), set(0..0), true);
        let rare = content.rare_part(ClientId(3), place).expect("one of four holds it");
        assert_ne!(rare, PartNumber::new(0), "two of four hold it");
        content.lease(ClientId(4), rare, Instant::FAR_FUTURE);
        assert_ne!(content.rare_part(ClientId(3), place), Some(rare), "a second copy is on its way");
    }
}
