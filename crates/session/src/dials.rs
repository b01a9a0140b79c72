//! How often one address is dialled, whatever keys it is named under.
//!
//! A message can name one host under any number of keys.
//! Dialled once for each of them, by a whole crowd, that host would get a flood that it never asked for.
//! So dials are counted by address here, and each counts as unanswered until somebody answers there under the key that was
//! expected: nothing needs to be known of how it failed, or whether that was ever told.
//!
//! Nothing is forgotten before its time, so that nobody can wash an address clean by naming others: the bucket lets through
//! no more than [`PLACES_MAX`] dials in the time for which one is remembered.

use hybrid_units::{Duration, Instant};
use hybrid_wire::PeerId;
use hybrid_wire::address::{AddressPolicy, Prefix, dialable, host_of};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Dials at once after a while without any: a fast uplink's whole list, which a newcomer needs in its first second.
const BURST: u32 = 40;

/// From then on five a second: enough for peers that leave one by one, and a client that is told of a whole network sends
/// into it no more than 24 kB a second (a dial that nobody answers is four datagrams of 1,200 bytes).
const EVERY: Duration = Duration::from_millis(200);

/// Between two dials to one address where nobody answered: as long as a peer that could not be reached is left alone.
const AGAIN: Duration = Duration::from_secs(60);

/// Dials in a row that nobody answered before the address rests: one may be lost, one may meet a program that starts.
const UNANSWERED_MAX: u32 = 3;

/// How long it rests: as long as an address that a table of strangers named.
const REST: Duration = Duration::from_secs(600);

/// Dials to one host in [`AGAIN`] that fail or are under way: more are somebody's list of invented ports.
///
/// Those that are answered count for nothing, so many peers behind one address translator are dialled as fast as they answer.
const SITE_DIALS_MAX: usize = 8;

/// The most places that are remembered: as many as the bucket lets through in [`REST`]; about 300 KiB.
const PLACES_MAX: usize = 40 + 5 * 600;

/// Where a dial goes, as the book has it: the same for all ways to write the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    /// The host that the address belongs to; `None` in a network that only this client's user admitted: there one host may
    /// stand for many peers, as in tests on one machine, and it is the user's own.
    site: Option<Prefix>,
}

impl Door {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let host = host_of(address.ip());
        let public = dialable(address, &AddressPolicy::default()).is_ok();
        // Any host has all addresses of its /64.
        let bits = match host {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 64,
        };
        let site = public.then(|| Prefix::new(host, bits)).flatten();
        Self { address: SocketAddr::new(host, address.port()), site }
    }
}

#[derive(Debug)]
struct Place {
    last: Instant,
    /// Dials since somebody answered as expected.
    unanswered: u32,
    /// Who did so last, unless that one is being dialled again.
    answered: Option<PeerId>,
}

impl Place {
    fn ready_at(&self, key: Option<PeerId>) -> Instant {
        if key.is_some() && self.answered == key {
            Instant::ZERO
        } else {
            self.last + if self.unanswered < UNANSWERED_MAX { AGAIN } else { REST }
        }
    }
}

/// The book of dials.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    /// When the bucket is full again.
    full_at: Instant,
    places: BTreeMap<SocketAddr, Place>,
    /// When each host was dialled without an answer, or with none yet.
    sites: BTreeMap<Prefix, VecDeque<Instant>>,
    /// Where each peer was dialled that has neither answered nor failed.
    under_way: BTreeMap<PeerId, (Door, Instant)>,
}

impl Dials {
    /// When there is a dial for anybody.
    pub(crate) fn any_at(&self) -> Instant {
        self.full_at - EVERY * (BURST - 1)
    }

    /// When a door may be tried for a key (`None`: whoever is there), apart from [`Self::any_at`].
    pub(crate) fn door_at(&self, door: &Door, key: Option<PeerId>) -> Instant {
        let place = self.places.get(&door.address).map_or(Instant::ZERO, |place| place.ready_at(key));
        let full = |times: &&VecDeque<Instant>| times.len() >= SITE_DIALS_MAX;
        let times = door.site.and_then(|site| self.sites.get(&site)).filter(full);
        times.and_then(|times| times.front()).map_or(place, |first| place.max(*first + AGAIN))
    }

    /// A door is tried.
    pub(crate) fn begin(&mut self, now: Instant, door: Door, key: Option<PeerId>) {
        self.forget(now);
        self.full_at = self.full_at.max(now) + EVERY;
        let place = self.places.entry(door.address).or_insert(Place { last: now, unanswered: 0, answered: None });
        place.last = now;
        place.unanswered = place.unanswered.saturating_add(1);
        if place.answered == key {
            place.answered = None;
        }
        if let Some(site) = door.site {
            self.sites.entry(site).or_default().push_back(now);
        }
        if let Some(key) = key {
            self.under_way.insert(key, (door, now));
        }
    }

    /// A peer that was dialled answered under its key.
    pub(crate) fn answered(&mut self, peer: PeerId) {
        if let Some((door, began)) = self.under_way.remove(&peer) {
            self.answered_at(door, began, peer);
        }
    }

    /// Who is behind a door that was tried then answered.
    pub(crate) fn answered_at(&mut self, door: Door, began: Instant, peer: PeerId) {
        if let Some(place) = self.places.get_mut(&door.address) {
            place.unanswered = 0;
            place.answered = Some(peer);
        }
        if let Some(site) = door.site
            && let Some(times) = self.sites.get_mut(&site)
            && let Some(index) = times.iter().position(|at| *at == began)
        {
            times.remove(index);
        }
    }

    /// A dial to a peer failed, and nobody answered under its key.
    pub(crate) fn failed(&mut self, peer: PeerId) {
        self.under_way.remove(&peer);
    }

    fn forget(&mut self, now: Instant) {
        self.places.retain(|_, place| now < place.last + REST);
        self.sites.retain(|_, times| {
            times.retain(|at| now < *at + AGAIN);
            !times.is_empty()
        });
        self.under_way.retain(|_, (_, began)| now < *began + AGAIN);
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.places.len() <= PLACES_MAX, "more places than the bucket lets through");
        assert!(self.under_way.len() <= PLACES_MAX, "more dials than the bucket lets through");
        assert!(self.sites.values().all(|times| times.len() <= SITE_DIALS_MAX), "one host is dialled too often");
    }
}
