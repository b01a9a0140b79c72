//! What members say of each other, and what follows from it.
//!
//! What a member holds by its own word is worth nothing before somebody got a part from it: until then only what the server
//! sent to it counts as a copy.
//! Nobody is banned on others' word: who is accused is no longer given to newcomers, and what it says that it holds no longer
//! counts.

use super::*;

/// Networks of which one member's praise is kept; more change nothing.
const VOUCHERS_MAX: usize = 64;

/// Parts that the server itself must have sent to a member before its word counts, unless others vouch for it.
const STAKE: u32 = 10;

impl Coordinator {
    /// The network of a member whose word counts: it has parts by the server's own count, or by that of others.
    fn voice(&self, client: ClientId) -> Option<Network> {
        let record = self.clients.get(&client)?;
        let stake = self.contents.get(&record.content)?.part_count().min(STAKE);
        (record.earned >= stake || !record.vouchers.is_empty()).then(|| Network::of(record.observed))
    }

    /// A member says that it got parts from these.
    pub(super) fn on_vouch(&mut self, client: ClientId, peers: &[PeerId]) {
        let Some(content) = self.clients.get(&client).map(|record| record.content) else { return };
        let Some(voice) = self.voice(client) else { return };
        for peer in peers {
            let Some(vouched) = self.by_peer.get(&(content, *peer)).copied() else { continue };
            let Some(record) = self.clients.get_mut(&vouched) else { continue };
            // One's own network is oneself, as far as can be told.
            let counts = record.vouchers.len() < VOUCHERS_MAX && Network::of(record.observed) != voice;
            if counts && record.vouchers.insert(voice) {
                self.believe(vouched);
                self.review(*peer);
            }
        }
    }

    /// Counts on what a member says that it holds, if enough others vouch for it.
    pub(super) fn believe(&mut self, client: ClientId) {
        let Some(record) = self.clients.get(&client) else { return };
        let admitted = || record.address.is_some() && record.network.is_none();
        let believed = record.vouchers.len() >= usize::from(self.config.vouchers_needed)
            || self.config.trust_admitted_networks && admitted();
        if believed && let Some(swarm) = self.contents.get_mut(&record.content) {
            swarm.believe(client, record.place);
        }
    }

    pub(super) fn accuse(&mut self, accuser: ClientId, accused: PeerId) {
        let Some(voice) = self.voice(accuser) else { return };
        if self.accused.len() >= ACCUSED_MAX && !self.accused.contains_key(&accused) {
            return;
        }
        let accusers = self.accused.entry(accused).or_default();
        if accusers.len() < ACCUSERS_MAX {
            accusers.insert(voice);
        }
        let accusers = u32::try_from(accusers.len()).unwrap_or(u32::MAX);
        self.out.push_back(Output::Event(Event::BadPartReported { client: accuser, accused, accusers }));
        let members: Vec<ClientId> = self.memberships(accused).collect();
        for member in members {
            if let Some(record) = self.clients.get_mut(&member) {
                // Whoever got good parts at first and a bad one then, vouches no more.
                record.vouchers.remove(&voice);
            }
        }
        self.review(accused);
    }

    fn memberships(&self, peer: PeerId) -> impl Iterator<Item = ClientId> + '_ {
        self.contents.keys().filter_map(move |content| self.by_peer.get(&(*content, peer)).copied())
    }

    /// Whether a peer is accused by enough networks, and by more than vouch for it.
    pub(super) fn is_shunned(&self, peer: PeerId, vouchers: usize) -> bool {
        let accusers = self.accused.get(&peer).map_or(0, BTreeSet::len);
        accusers >= self.config.accusers_to_hide as usize && accusers > vouchers
    }

    /// Hides a peer from others, or shows it again, wherever it is a member.
    fn review(&mut self, peer: PeerId) {
        let members: Vec<ClientId> = self.memberships(peer).collect();
        members.into_iter().for_each(|member| self.review_member(member));
    }

    /// Hides a member from others, or shows it again: it is not given to them, and what it says that it holds does not count.
    pub(super) fn review_member(&mut self, member: ClientId) {
        let Some(record) = self.clients.get(&member) else { return };
        let shunned = self.is_shunned(record.peer, record.vouchers.len());
        let Some(record) = self.clients.get_mut(&member) else { return };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        let serves = lists::offers_enough(record.uplink, swarm.part_len.as_u64());
        let coordinates = record.address.filter(|_| serves && !shunned);
        if coordinates.is_some() == record.coordinates.is_some() {
            return;
        }
        if coordinates.is_none() {
            record.place = swarm.set_apart(member, record.place);
        } else {
            record.place = swarm.admit(member, record.place);
        }
        record.coordinates = coordinates;
        self.hungry.insert(record.content);
        self.believe(member);
    }

    /// A member begins to serve others, or ceases to.
    pub(super) fn on_uploads(&mut self, now: Instant, member: ClientId, on: bool) {
        let Some(record) = self.clients.get_mut(&member) else { return };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        let content = record.content;
        let known_before = record.uplink_known();
        record.uplink = if on { record.offered } else { 0 };
        swarm.uplinks_known = swarm.uplinks_known.saturating_sub(known_before).saturating_add(record.uplink_known());
        let thrifty = self.quality.class(swarm.class).egress_policy == EgressPolicy::Thrifty;
        self.review_member(member);
        if !on {
            self.lost_a_holder(now, content);
        } else if thrifty {
            self.spare_direct_clients(now, content);
        }
    }
}
