//! How many connections there are, and who may open one more.

use crate::Config;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An IPv4 /24 or an IPv6 /48: about what one site or one attacker has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(IpAddr);

impl Prefix {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        })
    }
}

/// Counts connections and handshakes of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    limits: Config,
    connections: u16,
    /// Handshakes under way with addresses that are not proved.
    unproven: u16,
    by_prefix: BTreeMap<Prefix, u16>,
    second_began: Instant,
    new_in_second: u16,
}

/// What to do with a newcomer.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on with the handshake.
    Admit(Slot),
    /// First let it prove that it receives at its address.
    Retry,
    /// There are too many.
    Refuse,
}

/// A place for one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Gate,
    prefix: Prefix,
    unproven: bool,
}

impl Gate {
    pub(crate) fn new(limits: Config, now: Instant) -> Self {
        let by_prefix = BTreeMap::new();
        let counts = Counts { limits, connections: 0, unproven: 0, by_prefix, second_began: now, new_in_second: 0 };
        Self(Arc::new(Mutex::new(counts)))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counts are changed by single statements, so a panic elsewhere leaves them true.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a newcomer; `validated` says that it has proved its address.
    pub(crate) fn judge(&self, now: Instant, address: IpAddr, validated: bool) -> Verdict {
        let mut counts = self.counts();
        if now.saturating_duration_since(counts.second_began) >= Duration::from_secs(1) {
            counts.second_began = now;
            counts.new_in_second = 0;
        }
        // A newcomer that comes back after a Retry was counted when it first came.
        if !validated {
            counts.new_in_second = counts.new_in_second.saturating_add(1);
        }
        let crowded = counts.unproven > counts.limits.retry_above_unproven
            || counts.new_in_second > counts.limits.retry_above_new_per_second;
        if crowded && !validated {
            return Verdict::Retry;
        }
        self.take(counts, address, !validated).map_or(Verdict::Refuse, Verdict::Admit)
    }

    /// A place for a connection that we open.
    pub(crate) fn reserve(&self, address: IpAddr) -> Option<Slot> {
        self.take(self.counts(), address, false)
    }

    fn take(&self, mut counts: MutexGuard<'_, Counts>, address: IpAddr, unproven: bool) -> Option<Slot> {
        let prefix = Prefix::of(address);
        let in_prefix = counts.by_prefix.get(&prefix).copied().unwrap_or(0);
        let limits = &counts.limits;
        let bounded = !limits.admitted.iter().any(|network| network.contains(address.to_canonical()));
        let crowded = bounded && in_prefix >= limits.connections_per_prefix_max;
        if crowded || counts.connections >= limits.connections_max {
            return None;
        }
        counts.connections += 1;
        counts.unproven += u16::from(unproven);
        counts.by_prefix.insert(prefix, in_prefix + 1);
        Some(Slot { gate: self.clone(), prefix, unproven })
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let counts = self.counts();
        counts.connections == 0 && counts.unproven == 0 && counts.by_prefix.is_empty()
    }
}

impl Slot {
    /// The handshake is over, and the address proved by it.
    pub(crate) fn established(&mut self) {
        if std::mem::take(&mut self.unproven) {
            self.gate.counts().unproven -= 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.established();
        let mut counts = self.gate.counts();
        counts.connections -= 1;
        match counts.by_prefix.get_mut(&self.prefix) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.by_prefix.remove(&self.prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(a: u8, b: u8) -> IpAddr {
        Ipv4Addr::new(203, 0, a, b).into()
    }

    fn admit(gate: &Gate, now: Instant, address: IpAddr) -> Slot {
        match gate.judge(now, address, false) {
            Verdict::Admit(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_than_the_limits() {
        let limits = Config { connections_max: 3, connections_per_prefix_max: 2, ..Config::default() };
        let (gate, now) = (Gate::new(limits, Instant::now()), Instant::now());
        let first = admit(&gate, now, address(0, 1));
        let _second = admit(&gate, now, address(0, 2));
        assert!(matches!(gate.judge(now, address(0, 3), true), Verdict::Refuse));
        let mapped = "::ffff:203.0.0.9".parse().unwrap();
        assert!(matches!(gate.judge(now, mapped, true), Verdict::Refuse), "a mapped address is in its IPv4 prefix");
        let _third = gate.reserve(address(1, 1)).unwrap();
        assert!(gate.reserve(address(2, 1)).is_none());
        drop(first);
        let _fourth = gate.reserve(address(0, 1)).unwrap();
    }

    #[test]
    fn an_admitted_network_may_be_all_and_the_others_may_not() {
        let admitted = vec!["203.0.7.0/24".parse().unwrap()];
        let limits = Config { connections_max: 6, connections_per_prefix_max: 1, admitted, ..Config::default() };
        let gate = Gate::new(limits, Instant::now());
        let _slots: Vec<_> = (1..=4).map(|host| gate.reserve(address(7, host)).unwrap()).collect();
        let _other = gate.reserve(address(8, 1)).unwrap();
        assert!(gate.reserve(address(8, 2)).is_none(), "its network was not admitted");
        let mapped = gate.reserve("::ffff:203.0.7.9".parse().unwrap()).unwrap();
        assert!(gate.reserve(address(7, 5)).is_none(), "six are all");
        drop(mapped);
    }

    #[test]
    fn a_crowd_proves_its_addresses() {
        let limits = Config { retry_above_unproven: 2, retry_above_new_per_second: 5, ..Config::default() };
        let (gate, now) = (Gate::new(limits, Instant::now()), Instant::now());
        let mut slots: Vec<_> = (0..3).map(|i| admit(&gate, now, address(i, 0))).collect();
        assert!(matches!(gate.judge(now, address(9, 0), false), Verdict::Retry), "three have proved nothing");
        assert!(matches!(gate.judge(now, address(9, 0), true), Verdict::Admit(_)));
        slots.iter_mut().for_each(Slot::established);
        slots.push(admit(&gate, now, address(10, 0)));
        assert!(matches!(gate.judge(now, address(11, 0), false), Verdict::Retry), "the sixth in this second");
        slots.push(admit(&gate, now + Duration::from_secs(1), address(11, 0)));
        drop(slots);
        assert!(gate.is_empty());
    }

    /// With the limits as they are by default: packets with false senders, each from another network, none of which goes on.
    #[test]
    fn false_senders_leave_room_for_others() {
        let now = Instant::now();
        let gate = Gate::new(Config::default(), now);
        let mut slots = Vec::new();
        for network in 0..200u8 {
            match gate.judge(now + Duration::from_millis(25) * network.into(), address(network, 1), false) {
                Verdict::Admit(slot) => slots.push(slot),
                verdict => assert!(matches!(verdict, Verdict::Retry), "{verdict:?}"),
            }
        }
        assert_eq!(slots.len(), 17);
        assert!(gate.reserve(address(250, 1)).is_some(), "there is room for those whom we dial");
        let proved = gate.judge(now + Duration::from_secs(5), address(251, 1), true);
        assert!(matches!(proved, Verdict::Admit(_)), "and for those who come back after a Retry");
    }
}
