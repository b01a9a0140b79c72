//! Parts that peers send unasked.
//!
//! In a young swarm whoever got a part first has everybody in line, and those who got it next wait until they are asked: for an
//! announcement and a request, which is longer than a part takes.
//! A client that got a rare part and has nothing else to send does not wait.

use crate::connection::Connection;
use crate::{ConnectionId, Output, Session};
use hybrid_manifest::PartNumber;
use hybrid_units::{ByteCount, Duration, Instant, Mode};
use hybrid_wire::PartRanges;
use hybrid_wire::peer::{Have, PeerMessage};
use rand::RngExt;
use std::collections::VecDeque;

/// Pushes of one client at one time: as many as uploads begin at once.
const PUSHES: usize = 2;

/// A part is rare as long as no more than one neighbour in so many is known to hold it.
const RARE: usize = 8;

/// For how long a part is pushed: later, others hold it who did not tell, because they knew that it is held here.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Fresh parts that are kept; more than can be pushed meanwhile.
const FRESH_MAX: usize = 8;

/// A neighbour that refused so many pushes gets no more: it has better sources.
const REFUSALS: u8 = 3;

/// What may be pushed.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    /// Parts that were rare when they came, and when that was; the newest last.
    fresh: VecDeque<(PartNumber, Instant)>,
    /// Whether there may be something to push: a part, a slot or a neighbour is new.
    pub(crate) due: bool,
}

impl Session {
    /// Up to so many neighbours may hold a part that is rare.
    fn rare(&self) -> usize {
        self.connections.len() / RARE
    }

    /// A part came.
    pub(crate) fn note_fresh(&mut self, now: Instant, number: PartNumber) {
        if usize::from(self.availability.of(number)) > self.rare() {
            return;
        }
        if self.pushes.fresh.len() >= FRESH_MAX {
            self.pushes.fresh.pop_front();
        }
        self.pushes.fresh.push_back((number, now));
        self.pushes.due = true;
    }

    /// Sends what few neighbours hold to those that lack it, while nobody asks for anything.
    pub(crate) fn push(&mut self, now: Instant) {
        let slots = self.upload_slots();
        let may = self.serves() && !self.stopped;
        while may && self.pushes.due && self.allowance.has_room() && self.uploads.may_push(now, slots.min(PUSHES)) {
            let Some((id, number)) = self.choose_push(now) else {
                self.pushes.due = false;
                return;
            };
            let Some(connection) = self.connections.get_mut(id) else { return };
            connection.pushing = Some(number);
            self.allowance.begin(id, number, self.length_of(number).into());
            let pace = self.uploads.push(now, id, number, slots);
            self.out.push_back(Output::PushPart { connection: id, number, pace });
        }
    }

    /// The rarest of the fresh parts, and of the neighbours that lack it the one that holds the fewest parts.
    fn choose_push(&mut self, now: Instant) -> Option<(ConnectionId, PartNumber)> {
        self.pushes.fresh.retain(|(_, since)| now.since(*since) < FRESH_FOR);
        let (held, availability, uploads) = (self.fetches.held(), &self.availability, &self.uploads);
        let copies = |number: PartNumber| usize::from(availability.of(number)) + uploads.sending(number);
        let fresh = self.pushes.fresh.iter().map(|(number, _)| *number).filter(|number| held.contains(*number));
        let number = fresh.min_by_key(|number| copies(*number)).filter(|number| copies(*number) <= self.rare())?;
        let takes = |connection: &Connection| {
            let willing = connection.uploads && connection.refused_pushes < REFUSALS;
            willing && connection.pushing.is_none() && !connection.has.contains(number)
        };
        let (connections, rng) = (&self.connections, &mut self.rng);
        let takers = connections.iter().filter(|(_, connection)| takes(connection));
        let (_, _, id) = takers.map(|(id, connection)| (connection.has.len(), rng.random::<u32>(), id)).min()?;
        Some((id, number))
    }

    /// A push of ours ended.
    pub(crate) fn on_pushed(
        &mut self,
        now: Instant,
        id: ConnectionId,
        number: PartNumber,
        sent_bytes: u64,
        taken: bool,
    ) {
        self.uploads.ended(now, id, number, taken && sent_bytes == self.part_bytes);
        self.allowance.end(id, number, sent_bytes);
        self.progress.sent += ByteCount::new(sent_bytes);
        self.reporting.sent(sent_bytes);
        self.pushes.due = true;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.pushing = None;
            if taken {
                if connection.has.insert(number) {
                    self.availability.gained(number);
                }
            } else {
                // It has the part, or is getting it, so others pass it on.
                self.pushes.fresh.retain(|(fresh, _)| *fresh != number);
                connection.refused_pushes = connection.refused_pushes.saturating_add(1);
                if !connection.has.contains(number) && self.fetches.held().contains(number) {
                    // It was not told of this part while it was on the way.
                    let have = Have { parts: PartRanges::from_ascending([number]), queue: self.uploads.queue() };
                    self.out.push_back(Output::SendPeer { connection: id, message: PeerMessage::Have(have) });
                }
            }
        }
        if self.uploads.is_idle() {
            self.call_for_work(now);
        }
    }

    /// A peer begins to send a part unasked. What is taken counts as asked for, with all that bounds and watches requests.
    pub(crate) fn on_offered(&mut self, now: Instant, id: ConnectionId, number: PartNumber) {
        let exists = self.manifest.layout().part(number).is_some();
        // Who sends a part holds it, wanted or not; that it was sent whole is all that the sender may hear of a refusal.
        if let Some(connection) = self.connections.get_mut(id).filter(|_| exists)
            && connection.has.insert(number)
        {
            connection.announced = connection.announced.saturating_add(1);
            self.availability.gained(number);
        }
        if !self.wants_offered(id, number) {
            self.out.push_back(Output::RefusePush { connection: id, number });
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let deadline = connection.ask(number, now, self.part_bytes);
        connection.sends(number);
        self.expires_at = self.expires_at.min(deadline);
        let others = self.fetches.flight(number).map(|flight| flight.peers.clone()).unwrap_or_default();
        self.fetches.ask_peer(number, id);
        self.want_id(number);
        for other in others {
            if self.connections.get_mut(other).is_some_and(|waits| waits.answered(number).is_some()) {
                self.fetches.peer_failed(number, other);
                self.out.push_back(Output::CancelRequest { connection: other, number });
            }
        }
        let length_bytes = self.length_of(number);
        self.out.push_back(Output::TakePush { connection: id, number, length_bytes });
    }

    /// Whether a part is lacked and nobody is sending it, and the peer may have one more on its way.
    fn wants_offered(&self, id: ConnectionId, number: PartNumber) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let begun = |other: &ConnectionId| {
            self.connections.get(*other).is_some_and(|other| other.asked.iter().any(|a| a.number == number && a.begun))
        };
        let only_waited_for = self.fetches.flight(number).is_some_and(|flight| {
            flight.server.is_none() && !flight.peers.contains(&id) && !flight.peers.iter().any(begun)
        });
        let requests: usize = self.connections.values().map(|connection| connection.asked.len()).sum();
        // Who is served directly gets all from the server, as long as that is there.
        let in_swarm = self.mode == Some(Mode::PeerToPeer) || !self.server_reachable();
        in_swarm
            && !self.store_full
            && (self.fetches.is_open(number) || only_waited_for)
            && connection.has_room(&self.config, self.part_bytes)
            && requests < self.config.peer_requests
            && (self.hashes.is_known(number) || self.unknown_room > 0)
    }
}
