//! Parts that the server sends unasked.

use super::{Client, Coordinator};
use crate::content::Content;
use crate::{ClientId, EgressPolicy, Output};
use hybrid_manifest::PartNumber;
use hybrid_swarm::PartSet;
use hybrid_units::{Instant, Mode};
use rand::RngExt;
use std::ops::Bound::{Excluded, Unbounded};

/// Members looked at for the target of one push.
const PUSH_SAMPLE: usize = 24;

/// Parts in a row that a client may fail to report before it is sent no more unasked.
const LAPSED_MAX: u8 = 2;

/// A client that lacks no more parts than this has asked peers for most of them (it may always ask for ten, and for what comes
/// within 600 ms): what it is sent would come twice.
const TOP_UP_LACKING_MIN: u32 = 16;

/// Clients came together if they joined within this fraction of the time since the first of them did.
const TOGETHER: u32 = 4;

impl Coordinator {
    /// Parts for a newcomer to begin with, the rarest first. Each is leased before the next is chosen, so that they differ.
    pub(super) fn choose_starters(&mut self, now: Instant, client: ClientId, count: u16) -> Vec<PartNumber> {
        let until = self.lease_until(now, client);
        let Some(record) = self.clients.get(&client) else { return Vec::new() };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return Vec::new() };
        self.leased.insert(record.content);
        let starters = (0..count).map_while(|_| {
            let number = swarm.starter_part(client, record.place)?;
            swarm.lease(client, number, until);
            Some(number)
        });
        starters.collect()
    }

    pub(super) fn push(&mut self, now: Instant, client: ClientId, number: PartNumber) {
        let until = self.lease_until(now, client) + self.config.push_patience;
        let Some(record) = self.clients.get_mut(&client) else { return };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        if record.pushing.insert(number, now).is_none() {
            self.pushes += 1;
        }
        swarm.lease(client, number, until);
        self.leased.insert(record.content);
        self.out.push_back(Output::Push { client, content: record.content, number });
    }

    /// Until when a part that is being sent counts as a copy: as long as a slow link takes for it, and for the report of it.
    pub(super) fn lease_until(&self, now: Instant, client: ClientId) -> Instant {
        let Some(client) = self.clients.get(&client) else { return now };
        let part_len = self.contents.get(&client.content).map_or(0, |swarm| swarm.part_len.as_u64());
        now + self.config.lease + self.config.slow_link.time_for(part_len) + client.interval
    }

    pub(super) fn on_push_done(&mut self, now: Instant, client: ClientId, number: PartNumber, sent: bool) {
        let until = self.lease_until(now, client);
        let Some(record) = self.clients.get_mut(&client) else { return };
        let Some(began) = record.pushing.remove(&number) else { return };
        if let Some(swarm) = self.contents.get(&record.content).filter(|_| sent) {
            // The time is ours, so it is never refused but for being absurd.
            drop(self.quality.class_mut(swarm.class).engine.part_time(now, now.since(began)));
        }
        self.pushes -= 1;
        if let Some(swarm) = self.contents.get_mut(&record.content)
            && swarm.is_leased(client, number)
        {
            if sent {
                swarm.lease(client, number, until);
            } else {
                swarm.end_lease(client, number);
            }
        }
        self.hungry.insert(record.content);
    }

    /// Sends parts that nobody holds to members of swarms, each part once, the fastest uplinks first; then what the policy says.
    ///
    /// Unique-first is what brings a swarm with a slow server near the ideal time: a part sent twice is a part not sent.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.pushes < self.config.pushes_in_flight_max {
            if let Some(client) = self.next_newcomer() {
                if let Some(number) = self.choose_starters(now, client, 1).pop() {
                    self.push(now, client, number);
                }
                continue;
            }
            // Contents take turns.
            let later = self.last_pushed.and_then(|last| self.hungry.range((Excluded(last), Unbounded)).next());
            let Some(content) = later.or_else(|| self.hungry.first()).copied() else { return };
            let start = self.rng.random_range(0..usize::MAX / 2);
            let choice = self.contents.get(&content).and_then(|swarm| self.next_push(swarm, start));
            self.last_pushed = Some(content);
            match choice {
                Some((client, number)) => self.push(now, client, number),
                None => {
                    self.hungry.remove(&content);
                }
            }
        }
    }

    /// One of those who came while all pushes were under way, and still have nothing to begin with.
    ///
    /// They wait for their turn, because parts that are sent to all of a crowd at one time reach none of them soon, and nobody
    /// has anything to give until then. Chance decides whose turn it is: who came one after the other know each other, and parts
    /// would be slow to get from them to the rest. Whom a member gave something meanwhile needs it no more.
    fn next_newcomer(&mut self) -> Option<ClientId> {
        while !self.newcomers.is_empty() {
            let client = self.newcomers.swap_remove(self.rng.random_range(0..self.newcomers.len()));
            let Some(record) = self.clients.get(&client) else { continue };
            let Some(swarm) = self.contents.get(&record.content) else { continue };
            let empty = swarm.held(client, record.place).is_some_and(PartSet::is_empty) && record.pushing.is_empty();
            if empty && record.mode == Mode::PeerToPeer {
                return Some(client);
            }
        }
        None
    }

    /// What to send next, and to whom. `start` is any number: members are looked at from there on.
    fn next_push(&self, swarm: &Content, start: usize) -> Option<(ClientId, PartNumber)> {
        if swarm.has_unsent() {
            let target = self.push_target(swarm, start)?;
            let place = self.clients.get(&target)?.place;
            if let Some(number) = swarm.unsent_part(target, place) {
                return Some((target, number));
            }
        }
        if self.quality.class(swarm.class).egress_policy != EgressPolicy::Fast
            || self.pushes >= self.config.top_ups_in_flight_max
        {
            return None;
        }
        self.rare_part(swarm, start).or_else(|| self.top_up(swarm, start))
    }

    /// A part that few hold, for the client that spreads it soonest.
    fn rare_part(&self, swarm: &Content, start: usize) -> Option<(ClientId, PartNumber)> {
        let id = self.push_target(swarm, start)?;
        Some((id, swarm.rare_part(id, self.clients.get(&id)?.place)?))
    }

    /// For a part that nobody or nearly nobody holds: the client that spreads it soonest.
    fn push_target(&self, swarm: &Content, start: usize) -> Option<ClientId> {
        self.push_targets(swarm, start)
            .filter(|(_, client)| client.coordinates.is_some())
            .min_by_key(|(id, client)| {
                let held = swarm.held(*id, client.place).map_or(0, PartSet::len);
                let coming = swarm.leases_of(*id).count();
                (client.pushing.len(), std::cmp::Reverse(client.uplink_class()), held, coming, *id)
            })
            .map(|(id, _)| id)
    }

    /// Beyond one copy of each part, when no part is rare: something that a client lacks.
    ///
    /// Of clients that came together, the one that lacks most gets it, so that the last is done soon; if that is one in
    /// client/server mode, the link is left to it. Of others, the one that lacks least: it is the sooner a source of everything,
    /// while peers serve those who lack most.
    fn top_up(&self, swarm: &Content, start: usize) -> Option<(ClientId, PartNumber)> {
        let lacking = |id: ClientId, client: &Client| {
            let held = swarm.held(id, client.place).map_or(0, PartSet::len);
            let coming = u32::try_from(client.pushing.len()).unwrap_or(u32::MAX);
            swarm.part_count().saturating_sub(held).saturating_sub(coming)
        };
        let members = || self.some_members(swarm, start).filter(|(_, client)| !client.complete);
        let joined = || members().map(|(_, client)| client.joined_at);
        let (first, last) = (joined().min()?, joined().max()?);
        let together = last.since(first) < self.seen.since(first) / TOGETHER;
        let order = |id: ClientId, client: &Client| {
            let lacking = lacking(id, client);
            let gives_nothing = client.vouchers.is_empty();
            (client.pushing.len(), gives_nothing, if together { u32::MAX - lacking } else { lacking }, id)
        };
        let (id, client) = self
            .push_targets(swarm, start)
            .filter(|(id, client)| lacking(*id, client) > TOP_UP_LACKING_MIN)
            .min_by_key(|(id, client)| order(*id, client))?;
        let lacks = lacking(id, client);
        let direct =
            |(id, member): (ClientId, &Client)| member.mode == Mode::ClientServer && lacking(id, member) > lacks;
        if together && members().any(direct) {
            return None;
        }
        Some((id, swarm.common_part(id, client.place, start)?))
    }

    /// Some members, from a place on.
    fn some_members<'a>(
        &'a self,
        swarm: &'a Content,
        start: usize,
    ) -> impl Iterator<Item = (ClientId, &'a Client)> + 'a {
        let len = swarm.members.len();
        (0..len.min(PUSH_SAMPLE))
            .filter_map(move |step| swarm.members.get((start + step) % len))
            .filter_map(|id| Some((*id, self.clients.get(id)?)))
    }

    /// Some members that may be sent a part.
    fn push_targets<'a>(
        &'a self,
        swarm: &'a Content,
        start: usize,
    ) -> impl Iterator<Item = (ClientId, &'a Client)> + 'a {
        self.some_members(swarm, start).filter(|(_, client)| {
            client.mode == Mode::PeerToPeer
                && !client.complete
                && client.lapsed < LAPSED_MAX
                && client.pushing.len() < usize::from(self.config.pushes_per_client_max)
        })
    }
}
