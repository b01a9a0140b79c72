//! Peers: whom to dial, whom to take, and what they say.

use crate::connection::Connection;
use crate::{ConnectionId, Event, Output, Session};
use hybrid_swarm::PartSet;
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::address::dialable;
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::peer::{Have, Hello, PeerMessage};
use hybrid_wire::ticket::{Ticket, TicketPolicy};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId};

/// How soon another peer is asked for part ids after one had none.
const PROOFS_RETRY: Duration = Duration::from_millis(200);

impl Session {
    pub(crate) fn hello(&self) -> Option<Hello> {
        let membership = self.membership.as_ref()?;
        Some(Hello {
            version: PROTOCOL_VERSION,
            content: self.manifest.content(),
            part_len_bytes: self.manifest.layout().part_len().as_u32(),
            ticket: membership.ticket.clone(),
            has: PartRanges::from_ascending(self.fetches.held().iter()),
            uploads: self.serves(),
        })
    }

    /// Takes addresses from the server, or `told` by a peer.
    pub(crate) fn learn_peers(&mut self, peers: Vec<PeerCoordinates>, told: bool) {
        for coordinates in peers {
            if coordinates.peer == self.me {
                continue;
            }
            match dialable(coordinates.address, &self.config.addresses) {
                Ok(()) if told => self.known.learn_told(coordinates),
                Ok(()) => self.known.learn(coordinates),
                Err(refused) if self.known.refuse(coordinates.peer) => {
                    let event = Event::AddressRefused { peer: coordinates.peer, refused };
                    self.out.push_back(Output::Event(event));
                }
                Err(_) => {}
            }
        }
    }

    pub(crate) fn connection_to(&self, peer: PeerId) -> Option<ConnectionId> {
        self.connections.iter().find(|(_, connection)| connection.peer == peer).map(|(id, _)| id)
    }

    /// Whether peers are needed: in the swarm, and when the server that served directly has gone.
    pub(crate) fn may_dial(&self) -> bool {
        let wanted = match self.mode {
            Some(Mode::PeerToPeer) => true,
            Some(Mode::ClientServer) => !self.server_reachable(),
            None => false,
        };
        let room = self.connections.len() + self.known.dialling() < usize::from(self.limits.connections_max);
        wanted && room && !self.stopped && !self.is_complete() && self.membership.is_some()
    }

    /// Dials known peers while there is room and something to gain: a complete client waits to be dialled.
    pub(crate) fn dial(&mut self, now: Instant) {
        if !self.may_dial() {
            return;
        }
        let room = usize::from(self.limits.connections_max);
        let mut hello = None;
        while self.connections.len() + self.known.dialling() < room {
            let Some(peer) = self.known.next_dial(now) else { return };
            let Some(hello) = hello.get_or_insert_with(|| self.hello()) else { return };
            self.out.push_back(Output::Dial { peer, hello: hello.clone() });
        }
    }

    pub(crate) fn on_peer_connected(
        &mut self,
        now: Instant,
        id: ConnectionId,
        peer: PeerId,
        outgoing: bool,
        hello: Hello,
    ) {
        self.known.dialled(peer);
        if outgoing {
            self.known.answered(peer);
        }
        // A driver that uses a number again has forgotten to say that the first connection ended.
        self.remove_connection(now, id, ByeCode::Duplicate);
        if let Err((code, reason)) = self.check_hello(now, peer, outgoing, &hello) {
            self.known.forget_told(peer);
            let bye = Bye { code, reason: reason.to_owned() };
            self.out.push_back(Output::ClosePeer { connection: id, bye });
            return;
        }
        if let Some(other) = self.connection_to(peer) {
            // Both sides dialled at once. The smaller id's dial is kept, on both sides alike; a second dial of the same side
            // means that the first one is dead.
            let dialler = |outgoing: bool| if outgoing { self.me } else { peer };
            let old_outgoing = self.connections.get(other).is_some_and(|connection| connection.outgoing);
            let keep_new = old_outgoing == outgoing || dialler(outgoing) < dialler(old_outgoing);
            let bye = Bye { code: ByeCode::Duplicate, reason: String::new() };
            if !keep_new {
                self.out.push_back(Output::ClosePeer { connection: id, bye });
                return;
            }
            self.forget_connection(now, other);
            self.out.push_back(Output::ClosePeer { connection: other, bye });
        }
        let has = PartSet::from_parts(self.progress.parts_total, hello.has.iter());
        self.availability.joined(&has);
        self.pushes.due = true;
        self.known.connected(peer);
        let patience = self.known.patience(peer, self.config.patience);
        let mut connection = Connection::new(peer, outgoing, has, hello.uploads, patience, now);
        if outgoing {
            connection.exchange.reached_at = self.known.reached(peer);
        }
        self.connections.insert(id, connection);
        self.alone_since = None;
        if !outgoing && let Some(hello) = self.hello() {
            self.out.push_back(Output::AcceptPeer { connection: id, hello });
        }
        self.out.push_back(Output::Event(Event::PeerJoined { peer }));
        self.tell_missed_parts(id, outgoing);
    }

    /// Between the dial's hello and now, parts may have come that the other side was not told of.
    pub(crate) fn tell_missed_parts(&mut self, connection: ConnectionId, outgoing: bool) {
        let held = self.fetches.held();
        if outgoing && self.serves() && !held.is_empty() {
            let have = Have { parts: PartRanges::from_ascending(held.iter()), queue: self.uploads.queue() };
            self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Have(have) });
        }
    }

    pub(crate) fn check_hello(
        &self,
        now: Instant,
        peer: PeerId,
        outgoing: bool,
        hello: &Hello,
    ) -> Result<(), (ByeCode, &'static str)> {
        if self.known.is_banned(peer) {
            return Err((ByeCode::BadPart, "banned for a bad part"));
        }
        if self.known.rests(now, peer) {
            return Err((ByeCode::Useless, "it was let go a while ago"));
        }
        if peer == self.me {
            return Err((ByeCode::Duplicate, "this is myself"));
        }
        if hello.version != PROTOCOL_VERSION {
            return Err((ByeCode::Version, "this program speaks version 1"));
        }
        if hello.content != self.manifest.content() {
            return Err((ByeCode::UnknownContent, "another content"));
        }
        if hello.part_len_bytes != self.manifest.layout().part_len().as_u32() {
            return Err((ByeCode::UnknownContent, "another part length: another manifest"));
        }
        if hello.has.end().as_u32() > self.progress.parts_total {
            return Err((ByeCode::Protocol, "parts beyond the content's end"));
        }
        if self.membership.is_none() {
            return Err((ByeCode::Busy, "not welcomed by the server yet"));
        }
        if !outgoing && self.connections.len() >= usize::from(self.limits.connections_max) {
            return Err((ByeCode::Busy, "all connections are taken"));
        }
        let away = self.server_away.map(|since| now.since(since));
        let policy = TicketPolicy::new(self.manifest.keys(), self.manifest.content(), peer, self.unix())
            .while_away(away, self.manifest.grace());
        match Ticket::check(&hello.ticket, &policy) {
            Ok(_) => Ok(()),
            Err(_) => Err((ByeCode::Ticket, "the ticket is not valid here")),
        }
    }

    pub(crate) fn on_peer_message(&mut self, now: Instant, id: ConnectionId, message: PeerMessage) {
        let parts_total = self.progress.parts_total;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let peer = connection.peer;
        if !connection.says(now) {
            return self.let_go(now, id, ByeCode::TooFast, "too many messages");
        }
        match message {
            PeerMessage::Hello(_) => self.close_peer(now, peer, ByeCode::Protocol, "a second hello"),
            PeerMessage::Have(have) => {
                if have.parts.end().as_u32() > parts_total {
                    return self.close_peer(now, peer, ByeCode::Protocol, "parts beyond the content's end");
                }
                let mut news = false;
                for number in have.parts.iter() {
                    connection.announced = connection.announced.saturating_add(1);
                    if connection.has.insert(number) {
                        self.availability.gained(number);
                        news = true;
                    }
                }
                if news {
                    connection.said_news();
                }
                connection.note_queue(have.queue);
            }
            PeerMessage::Idle => connection.calls_for_work(),
            PeerMessage::AskProofs(ask) => self.answer_proofs(id, ask),
            PeerMessage::Proofs(proofs) => {
                if proofs.proofs.is_empty() {
                    self.hashes.failed(now, Some(PROOFS_RETRY));
                } else if self.hashes.learn(&proofs.proofs) {
                    self.verify_parked();
                } else {
                    self.ban(now, peer, "a proof does not hold");
                }
            }
            PeerMessage::AskPeers => self.tell_peers(now, id),
            PeerMessage::Peers(told) => self.on_told_peers(now, id, told),
            PeerMessage::Bye(bye) => {
                self.remove_connection(now, id, bye.code);
                self.out.push_back(Output::ClosePeer {
                    connection: id,
                    bye: Bye { code: ByeCode::Done, reason: String::new() },
                });
            }
        }
    }

    pub(crate) fn close_peer(&mut self, now: Instant, peer: PeerId, code: ByeCode, reason: &str) {
        if let Some(connection) = self.connection_to(peer) {
            self.remove_connection(now, connection, code);
            let bye = Bye { code, reason: reason.to_owned() };
            self.out.push_back(Output::ClosePeer { connection, bye });
        }
    }

    pub(crate) fn remove_connection(&mut self, now: Instant, id: ConnectionId, code: ByeCode) {
        if let Some(peer) = self.forget_connection(now, id) {
            self.out.push_back(Output::Event(Event::PeerLeft { peer, code }));
        }
    }

    pub(crate) fn forget_connection(&mut self, now: Instant, id: ConnectionId) -> Option<PeerId> {
        let connection = self.connections.remove(id)?;
        self.availability.left(&connection.has);
        if self.connections.is_empty() {
            self.alone_since = Some(now);
        }
        for asked in connection.asked {
            self.fetches.peer_failed(asked.number, id);
        }
        self.uploads.forget(now, id);
        self.known.disconnected(now, connection.peer);
        Some(connection.peer)
    }
}
