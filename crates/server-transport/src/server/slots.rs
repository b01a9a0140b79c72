//! How many connections there may be, and how many of one address when room gets short.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of a listener.
///
/// While less than half of them are taken an address may have as many as it likes: a whole town may be behind it.
/// From then on one that has its share already gets no more, so that one host does not shut out all others.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    most_of_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// As many entries as there are connections, at most.
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken as long as this lives.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    pub(super) fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_address, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Slot> {
        let address = network(client);
        let mut taken = self.taken();
        let of_address = taken.by_address.get(&address).copied().unwrap_or(0);
        let short = taken.all >= self.most / 2;
        if taken.all >= self.most || short && of_address >= self.most_of_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Slot { slots: Arc::clone(self), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What one customer is given: an IPv4 address, or a /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_cannot_take_the_second_half() {
        let slots = Slots::new(10, 2);
        let crowd: Vec<Slot> = (0..5).filter_map(|_| slots.take(address("192.0.2.1"))).collect();
        assert_eq!(crowd.len(), 5, "there is room");
        assert!(slots.take(address("192.0.2.1")).is_none());
        assert!(slots.take(address("::ffff:192.0.2.1")).is_none(), "the same in other clothes");
        let other: Vec<Slot> = (0..3).filter_map(|_| slots.take(address("2001:db8::1"))).collect();
        assert_eq!(other.len(), 2);
        assert!(slots.take(address("2001:db8::ffff:2")).is_none(), "the same network");
        let rest: Vec<Slot> = (2..9).filter_map(|last| slots.take(address(&format!("192.0.2.{last}")))).collect();
        assert_eq!(rest.len(), 3, "ten in all");
        drop((crowd, rest));
        assert!(slots.take(address("192.0.2.1")).is_some(), "there is room again");
        drop(other);
        assert!(slots.taken().by_address.is_empty());
        assert_eq!(slots.taken().all, 0);
    }
}
