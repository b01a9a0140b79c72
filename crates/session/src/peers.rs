//! Peers that are known but not connected: where they are, when to dial them, and whom to leave alone.

use crate::Config;
use crate::dials::{Dials, Door};
use hybrid_units::{Duration, Instant};
use hybrid_wire::{PeerCoordinates, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Dials to addresses that peers told, at one time: an inventor of addresses cannot make a swarm beat on a stranger's door.
const TOLD_DIALS_MAX: usize = 4;

/// How long a dial may take before the place it holds is given up.
const DIAL_WITHIN: Duration = Duration::from_secs(15);

/// A peer that was let go so often rests no longer, and gets no more time: 64 times as much as at first.
const TIMES_MAX: u32 = 6;

#[derive(Debug)]
struct LetGo {
    peer: PeerId,
    until: Instant,
    times: u32,
}

#[derive(Debug)]
struct Known {
    coordinates: PeerCoordinates,
    door: Door,
    dial_at: Instant,
    /// Whether a peer told of it, and it has not shown its ticket.
    told: bool,
}

impl Known {
    fn new(coordinates: PeerCoordinates, dial_at: Instant, told: bool) -> Self {
        let door = Door::of(coordinates.address);
        Self { coordinates, door, dial_at, told }
    }
}

/// Addresses that the server gave or peers told, and keys that are banned.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    known: BTreeMap<PeerId, Known>,
    dialling: BTreeMap<PeerId, Instant>,
    dials: Dials,
    /// Those that are connected: not to be dialled.
    connected: BTreeSet<PeerId>,
    banned: VecDeque<PeerId>,
    /// Peers of which it was told that their addresses are refused; the oldest are forgotten first.
    refused: VecDeque<PeerId>,
    /// Peers that did not keep their promises; the oldest are forgotten first.
    let_go: VecDeque<LetGo>,
    known_max: usize,
    banned_max: usize,
    redial_after: Duration,
    /// What [`Self::wake_at`] said, until something changes: it is asked at each input.
    wake: Option<Option<Instant>>,
}

impl KnownPeers {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            known: BTreeMap::new(),
            dialling: BTreeMap::new(),
            dials: Dials::default(),
            connected: BTreeSet::new(),
            banned: VecDeque::new(),
            refused: VecDeque::new(),
            let_go: VecDeque::new(),
            known_max: config.known_peers_max,
            banned_max: config.banned_max,
            redial_after: config.redial_after,
            wake: None,
        }
    }

    pub(crate) fn is_banned(&self, peer: PeerId) -> bool {
        self.banned.contains(&peer)
    }

    pub(crate) fn ban(&mut self, peer: PeerId) {
        self.wake = None;
        self.known.remove(&peer);
        self.dialling.remove(&peer);
        if !self.is_banned(peer) {
            if self.banned.len() >= self.banned_max {
                self.banned.pop_front();
            }
            self.banned.push_back(peer);
        }
    }

    /// A peer did not keep its promises: it rests until the time given, each time twice as long.
    pub(crate) fn let_go(&mut self, now: Instant, peer: PeerId) -> Instant {
        let place = self.let_go.iter().position(|other| other.peer == peer);
        let times = place.and_then(|place| self.let_go.remove(place)).map_or(0, |before| before.times);
        if self.let_go.len() >= self.banned_max {
            self.let_go.pop_front();
        }
        let until = now + self.redial_after * (1 << times.min(TIMES_MAX));
        self.let_go.push_back(LetGo { peer, until, times: times.saturating_add(1) });
        until
    }

    /// Whether a peer was let go and must not come back yet.
    pub(crate) fn rests(&self, now: Instant, peer: PeerId) -> bool {
        self.let_go.iter().any(|other| other.peer == peer && other.until > now)
    }

    /// How long a peer may take: one that was let go may only be slow, and gets more time when it comes back.
    pub(crate) fn patience(&self, peer: PeerId, usual: Duration) -> Duration {
        let times = self.let_go.iter().find(|other| other.peer == peer).map_or(0, |other| other.times);
        usual * (1 << times.min(TIMES_MAX))
    }

    /// A peer's address is not dialled; says whether that is news. The server names the same peers again and again.
    pub(crate) fn refuse(&mut self, peer: PeerId) -> bool {
        if self.refused.contains(&peer) {
            return false;
        }
        if self.refused.len() >= self.known_max {
            self.refused.pop_front();
        }
        self.refused.push_back(peer);
        true
    }

    /// The server named a peer. A new address replaces the old one.
    pub(crate) fn learn(&mut self, coordinates: PeerCoordinates) {
        if self.is_banned(coordinates.peer) {
            return;
        }
        self.wake = None;
        if self.known.len() >= self.known_max && !self.known.contains_key(&coordinates.peer) {
            // The server's word goes before what peers told.
            let told = self.known.iter().find(|(_, known)| known.told).map(|(peer, _)| *peer);
            let Some(told) = told else { return };
            self.known.remove(&told);
        }
        let dial_at = self.known.get(&coordinates.peer).map_or(Instant::ZERO, |known| known.dial_at);
        self.known.insert(coordinates.peer, Known::new(coordinates, dial_at, false));
    }

    /// A peer told of another one. What is known already stays as it is.
    pub(crate) fn learn_told(&mut self, coordinates: PeerCoordinates) {
        let known = self.known.contains_key(&coordinates.peer) || self.is_banned(coordinates.peer);
        if !known && self.known.len() < self.known_max {
            self.wake = None;
            self.known.insert(coordinates.peer, Known::new(coordinates, Instant::ZERO, true));
        }
    }

    /// Who answered has no ticket, or nobody answered: the one who told of it knew nothing.
    pub(crate) fn forget_told(&mut self, peer: PeerId) {
        if self.known.get(&peer).is_some_and(|known| known.told) {
            self.wake = None;
            self.known.remove(&peer);
        }
    }

    /// A peer answered where it was dialled, with a ticket; gives that place.
    pub(crate) fn reached(&mut self, peer: PeerId) -> Option<PeerCoordinates> {
        self.wake = None;
        let known = self.known.get_mut(&peer)?;
        known.told = false;
        Some(known.coordinates.clone())
    }

    /// Peers that the server named, or that have shown its ticket.
    pub(crate) fn vouched_for(&self) -> impl Iterator<Item = &PeerCoordinates> {
        self.known.values().filter(|known| !known.told).map(|known| &known.coordinates)
    }

    /// Whether some peer is known to be at this address.
    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        self.known.values().any(|known| known.coordinates.address == address)
    }

    fn may_dial_told(&self) -> bool {
        let told = |peer: &&PeerId| self.known.get(*peer).is_some_and(|known| known.told);
        self.dialling.keys().filter(told).count() < TOLD_DIALS_MAX
    }

    /// The next peer to dial, if there is one that is due and not connected.
    pub(crate) fn next_dial(&mut self, now: Instant) -> Option<PeerCoordinates> {
        if self.wake_at().is_none_or(|at| at > now) {
            return None;
        }
        self.wake = None;
        self.dialling.retain(|_, since| now.since(*since) < DIAL_WITHIN);
        let told_too = self.may_dial_told();
        if self.dials.any_at() > now {
            return None;
        }
        let (dialling, connected, dials) = (&self.dialling, &self.connected, &self.dials);
        let due = |(peer, known): &(&PeerId, &mut Known)| {
            known.dial_at <= now
                && (told_too || !known.told)
                && !dialling.contains_key(peer)
                && !connected.contains(peer)
                && dials.door_at(&known.door, Some(**peer)) <= now
        };
        // Where several are said to be at one address, the server's word goes first.
        let (peer, known) = self.known.iter_mut().filter(due).min_by_key(|(_, known)| known.told)?;
        known.dial_at = now + self.redial_after;
        let coordinates = known.coordinates.clone();
        let (peer, door) = (*peer, known.door);
        self.dialling.insert(peer, now);
        self.dials.begin(now, door, Some(peer));
        Some(coordinates)
    }

    /// Asks who is at an address, if it may be asked.
    pub(crate) fn identify(&mut self, now: Instant, address: SocketAddr) -> bool {
        let door = Door::of(address);
        let free = self.identify_at().max(self.dials.door_at(&door, None)) <= now;
        if free {
            self.wake = None;
            self.dials.begin(now, door, None);
        }
        free
    }

    /// Who is at an address was asked at `began`, and this peer answered: it may be dialled there at once.
    pub(crate) fn identified(&mut self, began: Instant, address: SocketAddr, peer: PeerId) {
        self.wake = None;
        self.dials.answered_at(Door::of(address), began, peer);
    }

    /// When it may be asked again who is at some address.
    pub(crate) fn identify_at(&self) -> Instant {
        self.dials.any_at()
    }

    /// A peer answered a dial under its key, whatever it said then.
    pub(crate) fn answered(&mut self, peer: PeerId) {
        self.wake = None;
        self.dials.answered(peer);
    }

    pub(crate) fn dialling(&self) -> usize {
        self.dialling.len()
    }

    /// When there is somebody to dial again, or a dial that takes too long is given up.
    pub(crate) fn wake_at(&mut self) -> Option<Instant> {
        if let Some(at) = self.wake {
            return at;
        }
        let at = self.first_change();
        self.wake = Some(at);
        at
    }

    fn first_change(&self) -> Option<Instant> {
        let told_too = self.may_dial_told();
        let waiting = |(peer, known): (&PeerId, &Known)| {
            let waits = !self.connected.contains(peer) && !self.dialling.contains_key(peer);
            let dial_at = || known.dial_at.max(self.dials.door_at(&known.door, Some(*peer)));
            (waits && (told_too || !known.told)).then(dial_at)
        };
        let dials = self.dialling.values().map(|since| *since + DIAL_WITHIN);
        let next = self.known.iter().filter_map(waiting).min().map(|at| at.max(self.dials.any_at()));
        next.into_iter().chain(dials).min()
    }

    /// A peer could not be reached. While the server is there it names those that can, so this one makes room for another.
    pub(crate) fn unreachable(&mut self, now: Instant, peer: PeerId, server_reachable: bool) {
        self.wake = None;
        self.dialling.remove(&peer);
        self.dials.failed(peer);
        if server_reachable || self.known.get(&peer).is_some_and(|known| known.told) {
            self.known.remove(&peer);
        } else {
            self.rest(now, peer);
        }
    }

    /// A connection to a peer is in use.
    pub(crate) fn connected(&mut self, peer: PeerId) {
        self.wake = None;
        self.connected.insert(peer);
    }

    /// A connection ended: the peer rests before it is dialled again.
    pub(crate) fn disconnected(&mut self, now: Instant, peer: PeerId) {
        self.wake = None;
        self.connected.remove(&peer);
        self.rest(now, peer);
    }

    /// A dial ended well.
    pub(crate) fn dialled(&mut self, peer: PeerId) {
        self.wake = None;
        self.dialling.remove(&peer);
    }

    /// The peer rests before it is dialled again.
    pub(crate) fn rest(&mut self, now: Instant, peer: PeerId) {
        let let_go = self.let_go.iter().find(|other| other.peer == peer).map(|other| other.until);
        if let Some(known) = self.known.get_mut(&peer) {
            known.dial_at = let_go.unwrap_or(Instant::ZERO).max(now + self.redial_after);
            self.wake = None;
        }
    }

    pub(crate) fn are_connected(&self, peers: impl Iterator<Item = PeerId>) -> bool {
        peers.collect::<BTreeSet<_>>() == self.connected
    }

    pub(crate) fn check_invariants(&self) {
        assert!(
            self.known.len() <= self.known_max && self.banned.len() <= self.banned_max,
            "more peers than the limits"
        );
        assert!(self.known.keys().all(|peer| !self.is_banned(*peer)), "a banned peer is known");
        self.dials.check_invariants();
        assert!(self.wake.is_none_or(|at| at == self.first_change()), "the time to dial is out of date");
    }
}
