//! Parts that come: from bytes of unknown worth to verified parts in the store.

use crate::fetches::Arriving;
use crate::{ConnectionId, Event, Output, PartFailure, PartSource, Session};
use bytes::Bytes;
use hybrid_manifest::{PartNumber, VerifiedPart};
use hybrid_units::{ByteCount, Duration, Instant, Mode};
use hybrid_wire::control::ByeCode;
use hybrid_wire::peer::PartReply;
use hybrid_wire::{PeerId, Source};

/// The pause after the server failed to send a part and named none.
const SERVER_RETRY: Duration = Duration::from_secs(1);

/// The longest pause that the server may ask for; what a broken server says beyond that is not believed.
pub(crate) const SERVER_RETRY_MAX: Duration = Duration::from_secs(60);

impl Session {
    pub(crate) fn on_part(&mut self, now: Instant, source: PartSource, number: PartNumber, bytes: Bytes) {
        let length = bytes.len() as u64;
        let mut peer = None;
        if let PartSource::Peer(id) = source {
            let Some(connection) = self.connections.get_mut(id) else { return };
            peer = Some(connection.peer);
            match connection.answered(number) {
                Some(asked) => {
                    connection.measure(asked, length, now);
                    self.inflow.add(now, length);
                }
                // Pushed, or given up in the meantime: welcome from a peer that proved itself.
                None if connection.verified_parts > 0 => {}
                None => {
                    self.progress.wasted += ByteCount::new(length);
                    return;
                }
            }
        }
        let Some(place) = self.manifest.layout().part(number) else {
            self.progress.wasted += ByteCount::new(length);
            return self.on_misbehaviour(now, source);
        };
        let class = match source {
            PartSource::Server => self.fetches.flight(number).and_then(|flight| flight.server),
            PartSource::Push => Some(Source::ServerGrant),
            PartSource::Peer(_) => Some(Source::Peer),
        };
        // Bytes of the server's that nobody waits for any more still count as what the mode makes them.
        let class = class.unwrap_or_else(|| self.class_of_server_parts());
        let holders = self.connections.values().filter(|connection| connection.has.contains(number)).count();
        let holders = u32::try_from(holders).unwrap_or(u32::MAX);
        let Some(flight) = self.fetches.arrive(number, Arriving { class, peer, holders }) else {
            self.progress.wasted += ByteCount::new(length);
            return;
        };
        self.cancel_others(number, source, &flight.peers, flight.server.is_some());
        if u64::from(place.len()) != length {
            self.fetches.discard(number);
            self.progress.wasted += ByteCount::new(length);
            return self.on_misbehaviour(now, source);
        }
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.awaits_verdict();
        }
        match self.hashes.expect(number) {
            Some(expected) => self.out.push_back(Output::Verify { source, expected, bytes }),
            None => {
                self.hashes.want(number);
                if self.hashes.park(number, source, bytes).is_err() {
                    self.discard(source, number);
                }
            }
        }
    }

    /// Throws away bytes that arrived and are not, or not known to be, the part; gives whose they were.
    pub(crate) fn discard(&mut self, source: PartSource, number: PartNumber) -> Option<PeerId> {
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.judged();
        }
        let arriving = self.fetches.discard(number)?;
        self.progress.wasted += ByteCount::new(self.length_of(number).into());
        arriving.peer
    }

    pub(crate) fn class_of_server_parts(&self) -> Source {
        match self.mode {
            Some(Mode::PeerToPeer) => Source::ServerRescue,
            Some(Mode::ClientServer) | None => Source::ServerDirect,
        }
    }

    /// A part is here: whoever else was asked for it need not send it.
    pub(crate) fn cancel_others(
        &mut self,
        number: PartNumber,
        source: PartSource,
        peers: &[ConnectionId],
        server: bool,
    ) {
        for id in peers {
            if PartSource::Peer(*id) == source {
                continue;
            }
            if let Some(connection) = self.connections.get_mut(*id)
                && let Some(asked) = connection.answered(number)
            {
                let spoiled = connection.passed_over(asked, self.seen);
                self.out.push_back(Output::CancelRequest { connection: *id, number });
                if spoiled {
                    self.bar(self.seen, *id);
                }
            }
        }
        if server && source != PartSource::Server {
            self.out.push_back(Output::CancelFetch { number });
        }
    }

    pub(crate) fn on_part_failed(
        &mut self,
        now: Instant,
        source: PartSource,
        number: PartNumber,
        failure: &PartFailure,
    ) {
        match source {
            PartSource::Push => {}
            PartSource::Server => {
                if self.fetches.server_failed(number) {
                    let pause = match failure {
                        PartFailure::Refused { retry_after } | PartFailure::Busy { retry_in: retry_after, .. } => {
                            (*retry_after).min(SERVER_RETRY_MAX)
                        }
                        PartFailure::Gone | PartFailure::Transport | PartFailure::Misbehaved => {
                            self.server_failures = self.server_failures.saturating_add(1);
                            SERVER_RETRY
                        }
                    };
                    self.server_retry_at = self.server_retry_at.max(now + pause);
                }
            }
            PartSource::Peer(id) => self.on_peer_failed(now, id, number, failure),
        }
    }

    pub(crate) fn on_peer_failed(&mut self, now: Instant, id: ConnectionId, number: PartNumber, failure: &PartFailure) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.answered(number).is_none() {
            return;
        }
        self.fetches.peer_failed(number, id);
        match failure {
            PartFailure::Busy { retry_in, queue } => {
                connection.note_queue(*queue);
                connection.busy_until = now + (*retry_in).clamp(Duration::from_millis(20), Duration::from_secs(30));
            }
            PartFailure::Gone => {
                if connection.has.remove(number) {
                    self.availability.lost(number);
                }
                self.strike(now, id);
            }
            PartFailure::Refused { .. } | PartFailure::Transport => self.strike(now, id),
            PartFailure::Misbehaved => self.on_misbehaviour(now, PartSource::Peer(id)),
        }
    }

    pub(crate) fn on_misbehaviour(&mut self, now: Instant, source: PartSource) {
        match source {
            PartSource::Peer(id) => {
                if let Some(connection) = self.connections.get(id) {
                    let peer = connection.peer;
                    self.known.ban(peer);
                    self.close_peer(now, peer, ByeCode::Protocol, "a part of the wrong number or length");
                }
            }
            PartSource::Server | PartSource::Push => self.on_server_fault(now),
        }
    }

    pub(crate) fn on_server_fault(&mut self, now: Instant) {
        self.server_failures = self.server_failures.saturating_add(1);
        self.server_retry_at = self.server_retry_at.max(now + SERVER_RETRY);
    }

    pub(crate) fn strike(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.strikes = connection.strikes.saturating_add(1);
        connection.busy_until = connection.busy_until.max(now + Duration::from_millis(500));
        if connection.strikes >= self.config.strikes {
            return self.let_go(now, id, ByeCode::Useless, "too many parts did not come in time");
        }
        self.reporting.refused(connection.peer);
    }

    /// Asks a peer no more for a while that has begun a first part and not brought it: a second one might end like that too.
    pub(crate) fn bar(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let peer = connection.peer;
        let until = self.known.let_go(now, peer);
        connection.bar(until, self.known.patience(peer, self.config.patience));
    }

    /// Ends the dealings with a peer that does not keep its promises, for a while.
    pub(crate) fn let_go(&mut self, now: Instant, id: ConnectionId, code: ByeCode, reason: &str) {
        let Some(connection) = self.connections.get(id) else { return };
        let peer = connection.peer;
        self.reporting.refused(peer);
        self.known.let_go(now, peer);
        self.close_peer(now, peer, code, reason);
    }

    pub(crate) fn on_verified(&mut self, now: Instant, source: PartSource, part: VerifiedPart) {
        self.last_progress = now;
        if source == PartSource::Server {
            self.server_failures = 0;
        }
        if part.content() != self.manifest.content() {
            debug_assert!(false, "the driver mixed up two contents");
            return;
        }
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.judged();
            connection.proved();
            let peer = connection.peer;
            if connection.verified_parts == 1 {
                self.reporting.vouch(peer);
            }
            // As many as there are connections at one time, and as many again: a figure for people, not a ledger.
            if !self.peers_used.contains(&peer) && self.peers_used.len() < 4_096 {
                self.peers_used.push(peer);
            }
        }
        self.out.push_back(Output::Store { part });
    }

    pub(crate) fn on_rejected(&mut self, now: Instant, source: PartSource, number: PartNumber) {
        let sender = self.discard(source, number);
        match (source, sender) {
            // It answers for its bytes even when it has hung up in the meantime.
            (PartSource::Peer(_), Some(peer)) => {
                self.ban(now, peer, "a part did not match its id");
                self.reporting.bad(peer);
                self.reporting.hurry(now);
                self.out.push_back(Output::Event(Event::PeerBanned { peer, number }));
            }
            (PartSource::Peer(_), None) => {}
            (PartSource::Server | PartSource::Push, _) => {
                self.on_server_fault(now);
                self.out.push_back(Output::Event(Event::ServerPartBad { number }));
            }
        }
    }

    /// Never deals with a peer again, and throws away what else of it waits to be verified.
    pub(crate) fn ban(&mut self, now: Instant, peer: PeerId, reason: &str) {
        self.known.ban(peer);
        for number in self.fetches.arriving_from(peer) {
            if !self.hashes.is_known(number) {
                self.hashes.drop_parked(number);
                self.fetches.discard(number);
                self.progress.wasted += ByteCount::new(self.length_of(number).into());
            }
        }
        self.close_peer(now, peer, ByeCode::BadPart, reason);
    }

    pub(crate) fn on_stored(&mut self, now: Instant, number: PartNumber) {
        let Some(Arriving { class, peer, holders }) = self.fetches.stored(number) else { return };
        let length = u64::from(self.length_of(number));
        self.progress.add(class, length);
        self.progress.parts_held = self.fetches.held().len();
        self.progress.start_up.get_or_insert(now.since(self.started));
        self.reporting.part_gained(now, number, class, length);
        self.allowance.received(length);
        let progress = self.progress();
        self.out.push_back(Output::Event(Event::PartStored { number, source: class, peer, holders, progress }));
        self.announcements.add(now, number);
        self.note_fresh(now, number);
        self.tell_if_complete();
        if self.is_complete() {
            self.reporting.hurry(now);
        }
    }

    pub(crate) fn tell_if_complete(&mut self) {
        if self.is_complete() && !self.told_complete {
            self.told_complete = true;
            self.out.push_back(Output::Event(Event::Complete { progress: self.progress() }));
        }
    }

    pub(crate) fn on_store_lost(&mut self, number: PartNumber) {
        if let Some(class) = self.fetches.lost(number) {
            self.progress.lose(class, self.length_of(number).into());
            self.progress.parts_held = self.fetches.held().len();
            self.reporting.part_lost(number);
            self.announcements.remove(number);
            self.told_complete = false;
            for connection in self.uploads.lost(number) {
                self.out.push_back(Output::RefuseRequest { connection, number, reply: PartReply::Gone });
            }
        }
    }
}
