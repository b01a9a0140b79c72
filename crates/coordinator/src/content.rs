//! One content's swarm: its members, who holds what, and which parts are on their way to whom.

use crate::ClientId;
use hybrid_manifest::{PartLen, PartNumber};
use hybrid_swarm::{Directory, HolderSlot, PartSet};
use hybrid_units::{ByteCount, Instant};
use hybrid_wire::Source;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) part_len: PartLen,
    pub(crate) directory: Directory,
    /// The clients, in an order of no meaning, so that a random one costs one step.
    pub(crate) members: Vec<ClientId>,
    /// Members that others can dial and that serve parts.
    pub(crate) reachable: u32,
    /// Copies of each part that were sent and not reported yet.
    flying: Vec<u16>,
    leases: BTreeMap<(ClientId, PartNumber), Instant>,
    lease_ends: BTreeSet<(Instant, ClientId, PartNumber)>,
    pub(crate) received: BTreeMap<Source, u64>,
}

impl Content {
    pub(crate) fn new(part_count: u32, part_len: PartLen, clients_max: u32) -> Self {
        Self {
            part_len,
            directory: Directory::new(part_count, clients_max),
            members: Vec::new(),
            reachable: 0,
            flying: vec![0; part_count as usize],
            leases: BTreeMap::new(),
            lease_ends: BTreeSet::new(),
            received: BTreeMap::new(),
        }
    }

    pub(crate) fn part_count(&self) -> u32 {
        self.directory.part_count()
    }

    /// Copies that exist or are on their way.
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

    pub(crate) fn end_lease(&mut self, client: ClientId, number: PartNumber) {
        if let Some(until) = self.leases.remove(&(client, number)) {
            self.lease_ends.remove(&(until, client, number));
            if let Some(flying) = self.flying.get_mut(number.as_index()) {
                *flying = flying.saturating_sub(1);
            }
        }
    }

    pub(crate) fn leases_of(&self, client: ClientId) -> impl Iterator<Item = PartNumber> + '_ {
        let all = (client, PartNumber::new(0))..=(client, PartNumber::new(u32::MAX));
        self.leases.range(all).map(|((_, number), _)| *number)
    }

    /// Ends what is overdue; says whether anything was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((until, client, number)) = self.lease_ends.first().copied() {
            if until > now {
                break;
            }
            self.end_lease(client, number);
            any = true;
        }
        any
    }

    pub(crate) fn next_lease_end(&self) -> Option<Instant> {
        self.lease_ends.first().map(|(until, _, _)| *until)
    }

    /// The part that nobody holds and nobody is being sent: unique-first.
    pub(crate) fn unsent_part(&self) -> Option<PartNumber> {
        let rarity = self.directory.rarity();
        rarity.rarest().take_while(|number| rarity.count(*number) == 0).find(|number| self.copies(*number) == 0)
    }

    /// Of the rarest parts, those on their way included, one that a client lacks and is not being sent.
    pub(crate) fn starter_part(&self, client: ClientId, slot: HolderSlot) -> Option<PartNumber> {
        /// The rarest by holders may all be on their way already; among so many of the next ones there is a rarer one.
        const CANDIDATES: usize = 256;
        let held = self.directory.set(slot)?;
        let rarity = self.directory.rarity();
        rarity
            .rarest()
            .filter(|number| !held.contains(*number) && !self.is_leased(client, *number))
            .take(CANDIDATES)
            .min_by_key(|number| self.copies(*number))
    }

    pub(crate) fn join(&mut self, client: ClientId, has: PartSet) -> Option<HolderSlot> {
        let slot = self.directory.join(has).ok()?;
        self.members.push(client);
        Some(slot)
    }

    pub(crate) fn leave(&mut self, client: ClientId, slot: HolderSlot) {
        let leased: Vec<PartNumber> = self.leases_of(client).collect();
        for number in leased {
            self.end_lease(client, number);
        }
        self.directory.leave(slot);
        if let Some(place) = self.members.iter().position(|member| *member == client) {
            self.members.swap_remove(place);
        }
    }

    pub(crate) fn received(&self) -> Vec<(Source, ByteCount)> {
        self.received.iter().map(|(source, bytes)| (*source, ByteCount::new(*bytes))).collect()
    }

    pub(crate) fn check_invariants(&self) {
        self.directory.check_invariants();
        assert_eq!(self.leases.len(), self.lease_ends.len());
        let mut flying = vec![0u16; self.flying.len()];
        for (_, number) in self.leases.keys() {
            flying[number.as_index()] += 1;
        }
        assert_eq!(flying, self.flying, "copies under way are miscounted");
        assert_eq!(self.members.len(), self.directory.len() as usize);
        for (client, _) in self.leases.keys() {
            assert!(self.members.contains(client), "a lease of a client that left");
        }
    }
}
