//! How often which address is dialled, whoever is said to be there.
//!
//! Whoever can have addresses named to many clients, by joining under many keys or by telling lies to neighbours, could have
//! them all knock at the door of somebody who knows nothing of this; so it is doors that are counted, not names.

use hybrid_units::{Duration, Instant};
use hybrid_wire::address::{AddressPolicy, dialable};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Dials at once: a fast uplink's whole list, which a newcomer needs in its first second.
const BURST: u64 = 40;

/// One more dial after this time. Five a second is far below what hosters take for a port scan.
const EVERY: Duration = Duration::from_millis(200);

/// An address where nobody has answered yet is left alone for so long, whoever else is said to be there.
const REST: Duration = Duration::from_secs(60);

/// Dials in a row that nobody answered, after which the address rests longer.
const FAILURES_MAX: u8 = 3;

/// The longer rest.
const LONG_REST: Duration = Duration::from_secs(600);

/// Dials in [`REST`] that were not answered, at all ports of one public IP address. Many peers behind one address answer, so they
/// wait for each other only a round trip.
const UNANSWERED_MAX: usize = 8;

/// Addresses that are remembered; the oldest are forgotten first. At five a second it takes longer than [`LONG_REST`] to get
/// one forgotten.
const PLACES_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Place {
    dialled_at: Instant,
    ready_at: Instant,
    failures: u8,
}

/// The book of dials.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    /// When the next dial would be due if all went out one by one.
    due: Instant,
    places: BTreeMap<SocketAddr, Place>,
    /// Times of dials without an answer by public IP address, the oldest first.
    unanswered: BTreeMap<IpAddr, VecDeque<Instant>>,
}

impl Dials {
    /// From when on this address may be dialled.
    pub(crate) fn ready_at(&self, address: SocketAddr) -> Instant {
        let place = self.places.get(&address).map_or(Instant::ZERO, |place| place.ready_at);
        let times = self.unanswered.get(&address.ip()).filter(|times| times.len() >= UNANSWERED_MAX);
        let ip = times.and_then(|times| times.get(times.len() - UNANSWERED_MAX)).map_or(Instant::ZERO, |at| *at + REST);
        let rate = self.due - EVERY * u32::try_from(BURST - 1).unwrap_or(u32::MAX);
        place.max(ip).max(rate)
    }

    /// An address is dialled.
    pub(crate) fn began(&mut self, now: Instant, address: SocketAddr) {
        self.due = self.due.max(now) + EVERY;
        let failures = self.places.get(&address).map_or(0, |place| place.failures);
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&address) {
            let oldest = self.places.iter().min_by_key(|(_, place)| place.dialled_at).map(|(address, _)| *address);
            oldest.map(|address| self.places.remove(&address));
        }
        self.places.insert(address, Place { dialled_at: now, ready_at: now + REST, failures });
        if dialable(address, &AddressPolicy::default()).is_ok() {
            self.unanswered.retain(|_, times| times.back().is_some_and(|last| now.since(*last) < REST));
            let times = self.unanswered.entry(address.ip()).or_default();
            times.push_back(now);
            times.retain(|at| now.since(*at) < REST);
        }
    }

    /// Somebody answered there as was expected.
    pub(crate) fn answered(&mut self, address: SocketAddr) {
        if let Some(place) = self.places.remove(&address)
            && let Some(times) = self.unanswered.get_mut(&address.ip())
            && let Some(at) = times.iter().position(|at| *at == place.dialled_at)
        {
            times.remove(at);
        }
    }

    /// Nobody answered there, or somebody else.
    pub(crate) fn failed(&mut self, now: Instant, address: SocketAddr) {
        if let Some(place) = self.places.get_mut(&address) {
            place.failures = place.failures.saturating_add(1);
            if place.failures >= FAILURES_MAX {
                place.failures = 0;
                place.ready_at = now + LONG_REST;
            }
        }
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.places.len() <= PLACES_MAX, "more addresses than the limit");
        assert!(self.unanswered.values().all(|times| times.len() <= UNANSWERED_MAX), "too many dials at one address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn address(ip: [u8; 4], port: u16) -> SocketAddr {
        (ip, port).into()
    }

    const NEAR: [u8; 4] = [10, 1, 1, 1];
    const FAR: [u8; 4] = [8, 8, 8, 8];

    #[test]
    fn an_address_rests_after_a_dial_and_longer_after_three() {
        let (mut dials, place) = (Dials::default(), address(NEAR, 7_000));
        assert_eq!(dials.ready_at(place), Instant::ZERO);
        for minute in 0..3 {
            dials.began(at(minute * 60_000), place);
            assert_eq!(dials.ready_at(place), at((minute + 1) * 60_000), "dial {minute}");
            dials.failed(at(minute * 60_000 + 5_000), place);
        }
        assert_eq!(dials.ready_at(place), at(125_000 + 600_000));
        assert!(dials.ready_at(address(NEAR, 7_001)) <= at(125_000), "another door");
        dials.began(at(725_000), place);
        dials.answered(place);
        assert!(dials.ready_at(place) <= at(725_000), "somebody was there");
    }

    #[test]
    fn a_list_is_dialled_at_once_and_then_five_a_second() {
        let mut dials = Dials::default();
        let next = address(NEAR, 9_000);
        for port in 0..40 {
            assert!(dials.ready_at(next) <= at(1_000), "dial {port}");
            dials.began(at(1_000), address(NEAR, 7_000 + port));
        }
        assert_eq!(dials.ready_at(next), at(1_200));
        dials.began(at(1_200), next);
        assert_eq!(dials.ready_at(address(NEAR, 9_001)), at(1_400));
    }

    #[test]
    fn a_public_host_is_dialled_at_eight_ports_until_it_answers() {
        let mut dials = Dials::default();
        for port in 0..8 {
            dials.began(at(port.into()), address(FAR, 7_000 + port));
            dials.began(at(port.into()), address(NEAR, 7_000 + port));
        }
        assert_eq!(dials.ready_at(address(FAR, 9_000)), at(60_000));
        assert_eq!(dials.ready_at(address(NEAR, 9_000)), Instant::ZERO, "an admitted network may be one machine");
        dials.answered(address(FAR, 7_003));
        assert_eq!(dials.ready_at(address(FAR, 9_000)), Instant::ZERO, "one of them is a peer");
        dials.check_invariants();
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut dials = Dials::default();
        for place in 0..5_000u16 {
            dials.began(at(u64::from(place) * 200), address(NEAR, place + 1));
            dials.check_invariants();
        }
        assert_eq!(dials.ready_at(address(NEAR, 1)), dials.ready_at(address(NEAR, 60_000)), "forgotten");
        assert!(dials.ready_at(address(NEAR, 5_000)) > at(1_000_000));
    }
}
