//! Other peers, asked of those that are connected while the server is away.
//!
//! Peers are asked and never tell by themselves: while the server is there it introduces them, and nobody spends a byte on
//! this.
//! What a peer tells only adds addresses: each is judged and dialled like one that the server named, and who answers there
//! must show the key and a ticket of the server's.
//! Only addresses that the teller has dialled itself are told, so an invented one goes no further than its first hearer.

use crate::{ConnectionId, Output, Session};
use hybrid_units::{Duration, Instant};
use hybrid_wire::PeerCoordinates;
use hybrid_wire::control::ByeCode;
use hybrid_wire::peer::{PeerMessage, TOLD_PEERS_MAX, ToldPeers};
use rand::seq::SliceRandom;

/// How long the server must be away before peers are asked for others: a channel that breaks is mostly open again by then.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// How often one peer is asked. A swarm changes little in a minute, and 50 addresses a minute weigh 40 bytes a second.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Who asks again within this time asks too soon. Less than [`ASK_EVERY`], since a message may wait on its way.
const TOO_SOON: Duration = Duration::from_secs(50);

/// What is known of the exchange with one peer.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Where it answered our dial; `None` if it dialled us.
    pub(crate) reached_at: Option<PeerCoordinates>,
    /// When it is due to be asked.
    ask_at: Instant,
    /// Whether it was asked and has not answered.
    asked: bool,
    /// When it was last told.
    told_at: Option<Instant>,
    /// Whether it asked too soon once already.
    too_soon: bool,
}

impl Session {
    /// Since when peers may be asked for others; `None` while there is no need.
    fn may_exchange_from(&self) -> Option<Instant> {
        let needed = self.membership.is_some() && !self.is_complete() && !self.stopped;
        self.server_away.filter(|_| needed).map(|since| since + ASK_AFTER)
    }

    /// Asks those for others who are due to be asked.
    pub(crate) fn ask_peers(&mut self, now: Instant) {
        if self.may_exchange_from().is_none_or(|from| now < from) {
            return;
        }
        for (id, connection) in self.connections.iter_mut() {
            let exchange = &mut connection.exchange;
            if exchange.ask_at <= now {
                exchange.ask_at = now + ASK_EVERY;
                exchange.asked = true;
                self.out.push_back(Output::SendPeer { connection: id, message: PeerMessage::AskPeers });
            }
        }
    }

    /// When the next peer is due to be asked.
    pub(crate) fn ask_peers_at(&self) -> Option<Instant> {
        let from = self.may_exchange_from()?;
        self.connections.values().map(|connection| connection.exchange.ask_at.max(from)).min()
    }

    /// A peer asks for others.
    pub(crate) fn tell_peers(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (peer, exchange) = (connection.peer, &mut connection.exchange);
        if exchange.told_at.is_some_and(|at| now.since(at) < TOO_SOON) {
            if std::mem::replace(&mut exchange.too_soon, true) {
                self.close_peer(now, peer, ByeCode::Protocol, "asked for peers too often");
            }
            return;
        }
        exchange.told_at = Some(now);
        let others = self.connections.values().filter(|other| other.peer != peer);
        let mut peers: Vec<PeerCoordinates> = others.filter_map(|other| other.exchange.reached_at.clone()).collect();
        peers.shuffle(&mut self.rng);
        peers.truncate(TOLD_PEERS_MAX);
        let message = PeerMessage::Peers(ToldPeers { peers });
        self.out.push_back(Output::SendPeer { connection: id, message });
    }

    /// A peer answers with others.
    pub(crate) fn on_told_peers(&mut self, now: Instant, id: ConnectionId, told: ToldPeers) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::take(&mut connection.exchange.asked) {
            let peer = connection.peer;
            return self.close_peer(now, peer, ByeCode::Protocol, "peers that nobody asked for");
        }
        // The server is back, and its word is better.
        if !self.server_reachable() {
            self.learn_peers(told.peers, true);
        }
    }
}
