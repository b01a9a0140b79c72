//! What a client keeps, so that it can go on without the server after a restart.

use crate::session::Membership;
use crate::{Event, Output, Session};
use bytes::Bytes;
use hybrid_units::{Instant, Mode};
use hybrid_wire::PeerCoordinates;
use hybrid_wire::ticket::{AWAY_MIN, Ticket, TicketPolicy};

/// The most peers that are kept: some will have gone, and one that is there tells of others.
const ANCHORS_MAX: usize = 8;

/// Peers to turn to when the server is away at the start, and the ticket that lets one in there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a driver keeps all of it")]
pub struct Anchors {
    /// The client's own ticket.
    pub ticket: Bytes,
    /// At most eight: first those that sent parts, then others that could be reached, then those that the server named.
    pub peers: Vec<PeerCoordinates>,
}

impl Session {
    /// What to keep for a restart; `None` before the server's welcome.
    pub fn anchors(&self) -> Option<Anchors> {
        let ticket = self.membership.as_ref()?.ticket.clone();
        let mut reached: Vec<_> =
            self.connections.values().filter(|connection| connection.exchange.reached_at.is_some()).collect();
        // By age and not by parts sent, so that the list changes seldom.
        reached.sort_by_key(|connection| (connection.verified_parts == 0, connection.connected_at));
        let reached = reached.into_iter().filter_map(|connection| connection.exchange.reached_at.as_ref());
        let mut peers: Vec<PeerCoordinates> = Vec::new();
        for coordinates in reached.chain(self.known.vouched_for()) {
            if peers.len() < ANCHORS_MAX && peers.iter().all(|other| other.peer != coordinates.peer) {
                peers.push(coordinates.clone());
            }
        }
        Some(Anchors { ticket, peers })
    }

    /// Goes on as a member of the swarm, until the server is back and says what it wants.
    pub(crate) fn resume(&mut self, now: Instant, anchors: Anchors) {
        // The ticket is ours: how long the server has been away is for those to judge to whom it will be shown.
        let policy = TicketPolicy::new(self.manifest.keys(), self.manifest.content(), self.me, self.unix())
            .while_away(Some(AWAY_MIN), self.manifest.grace());
        if self.membership.is_some() || Ticket::check(&anchors.ticket, &policy).is_err() {
            return;
        }
        self.membership = Some(Membership { session: None, ticket: anchors.ticket });
        self.last_progress = now;
        self.learn_peers(anchors.peers, false);
        let peers = self.known.vouched_for().count();
        let reason = format!("the server cannot be reached: continuing with peers from before: {peers}");
        self.mode = Some(Mode::PeerToPeer);
        self.out.push_back(Output::Event(Event::Mode { mode: Mode::PeerToPeer, reasons: vec![reason] }));
    }
}
