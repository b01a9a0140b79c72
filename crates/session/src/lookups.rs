//! Addresses that are found elsewhere, in a table which anybody may write (a DHT), while the server is away.
//!
//! What is found is an address and nothing more.
//! It is judged like any other, asked whose it is, and then it is an address that was told: whoever answers must show a ticket
//! of the server's, and what he sends must fit the server's hashes.

use crate::{Output, Session};
use hybrid_units::{Duration, Instant};
use hybrid_wire::address::dialable;
use hybrid_wire::{PeerCoordinates, PeerId};
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// How long the server must be away: as with peers that are asked for others.
const AFTER: Duration = Duration::from_secs(5);

/// How often peers are looked up. A lookup asks some dozens of strangers, so not more often than peers are asked.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// How often this client says that it is there. Mainline nodes forget who was silent for half an hour.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(15 * 60);

/// Addresses that wait to be asked whose they are: as many as the peers that one tells.
const FOUND_MAX: usize = 50;

/// Addresses that are asked at one time: whoever writes lies into the table cannot make a swarm beat on a stranger's door.
const ASKED_MAX: usize = 4;

/// How long an address has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How long an address that was asked is not asked again: nobody may have answered, or it is a neighbour's.
const REST: Duration = Duration::from_secs(600);

/// Addresses that rest; the oldest are forgotten first. Ten lookups' worth.
const RESTING_MAX: usize = 500;

/// What is found elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    look_up_at: Instant,
    announce_at: Instant,
    found: VecDeque<SocketAddr>,
    asked: BTreeMap<SocketAddr, Instant>,
    rested: VecDeque<(SocketAddr, Instant)>,
}

impl Session {
    fn may_look_up_from(&self) -> Option<Instant> {
        let member = self.config.lookups && self.membership.is_some() && !self.stopped;
        self.server_away.filter(|_| member).map(|since| since + AFTER)
    }

    fn has_something_to_announce(&self) -> bool {
        self.serves() && self.config.quic_port.is_some() && !self.fetches.held().is_empty()
    }

    /// Looks for peers, and says that this one is there.
    pub(crate) fn look_up(&mut self, now: Instant) {
        let Some(from) = self.may_look_up_from() else {
            self.lookups.found.clear();
            return;
        };
        if now < from {
            return;
        }
        if self.has_something_to_announce() && self.lookups.announce_at <= now {
            self.lookups.announce_at = now + ANNOUNCE_EVERY;
            self.out.push_back(Output::Announce);
        }
        self.lookups.asked.retain(|_, since| now.since(*since) < ANSWER_WITHIN);
        self.lookups.rested.retain(|(_, since)| now.since(*since) < REST);
        if !self.may_dial() {
            return;
        }
        if self.lookups.look_up_at <= now {
            self.lookups.look_up_at = now + LOOK_UP_EVERY;
            self.out.push_back(Output::LookUp);
        }
        while self.lookups.asked.len() < ASKED_MAX
            && self.known.identify_at() <= now
            && let Some(address) = self.lookups.found.pop_front()
        {
            // Where nobody answered a moment ago, nobody is asked; the next lookup finds the address again.
            if !self.known.identify(now, address) {
                continue;
            }
            self.lookups.asked.insert(address, now);
            if self.lookups.rested.len() >= RESTING_MAX {
                self.lookups.rested.pop_front();
            }
            self.lookups.rested.push_back((address, now));
            self.out.push_back(Output::Identify { address });
        }
    }

    /// When there is something to look up, to announce, or to give up.
    pub(crate) fn look_up_at(&self) -> Option<Instant> {
        let from = self.may_look_up_from()?;
        let lookups = &self.lookups;
        let announce = self.has_something_to_announce().then_some(lookups.announce_at);
        let look_up = self.may_dial().then_some(lookups.look_up_at);
        let given_up = lookups.asked.values().map(|since| *since + ANSWER_WITHIN);
        let given_up = given_up.filter(|_| !lookups.found.is_empty());
        let waiting = !lookups.found.is_empty() && lookups.asked.len() < ASKED_MAX && self.may_dial();
        let next = waiting.then(|| self.known.identify_at());
        announce.into_iter().chain(look_up).chain(given_up).chain(next).map(|at| at.max(from)).min()
    }

    /// A lookup brought these.
    pub(crate) fn on_addresses_found(&mut self, mut addresses: Vec<SocketAddr>) {
        if self.may_look_up_from().is_none() {
            return;
        }
        addresses.shuffle(&mut self.rng);
        for address in addresses {
            let lookups = &self.lookups;
            let news = !lookups.found.contains(&address)
                && lookups.rested.iter().all(|(other, since)| *other != address || self.seen.since(*since) >= REST)
                && !self.known.has_address(address);
            if news && lookups.found.len() < FOUND_MAX && dialable(address, &self.config.addresses).is_ok() {
                self.lookups.found.push_back(address);
            }
        }
    }

    /// Who answered at an address, if anybody did.
    pub(crate) fn on_identified(&mut self, address: SocketAddr, peer: Option<PeerId>) {
        // What was not asked, or is given up, is no answer.
        if let Some(began) = self.lookups.asked.remove(&address)
            && let Some(peer) = peer
        {
            self.known.identified(began, address, peer);
            self.learn_peers(vec![PeerCoordinates { peer, address }], true);
        }
    }
}

impl Lookups {
    pub(crate) fn check_invariants(&self) {
        assert!(self.found.len() <= FOUND_MAX && self.rested.len() <= RESTING_MAX, "more addresses than the limits");
        assert!(self.asked.len() <= ASKED_MAX, "too many addresses are asked at one time");
    }
}
