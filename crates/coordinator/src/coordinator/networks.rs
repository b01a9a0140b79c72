//! Networks as far as one can tell them apart: what one site, or one attacker, has to itself.

use super::*;
use hybrid_wire::address::AddressPolicy;

/// Any port at which peers may be dialled.
const ANY_PORT: u16 = 40_000;

/// Tells the numbers of IPv6 networks from those of IPv4 ones.
const V6: u64 = 1 << 63;

/// An IPv4 /24 or an IPv6 /48, by the number that its bits make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(u64);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits() >> 8)),
            IpAddr::V6(v6) => Self(V6 | u64::try_from(v6.to_bits() >> 80).unwrap_or(0)),
        }
    }

    /// The same; `None` for an address that is not public: there a network is one's own, and whoever admitted it knows who is
    /// in it.
    pub(super) fn public(address: IpAddr) -> Option<Self> {
        dialable(SocketAddr::new(address, ANY_PORT), &AddressPolicy::default()).is_ok().then(|| Self::of(address))
    }

    /// The IPv4 /16 or the IPv6 /32 around it: about what one company has.
    fn wider(self) -> Self {
        Self(self.0 & !(if self.0 & V6 == 0 { 0xff } else { 0xffff }))
    }
}

/// What a list of peers may still take: few of each network, so that whoever has many addresses in one of them is not all that
/// a client knows.
///
/// The client's own network may have half of the places: neighbours are near, and where a whole crowd sits in one network, they
/// are all that there is.
#[derive(Debug)]
pub(super) struct Mix {
    places: usize,
    per_network: usize,
    own: Option<Network>,
    /// Taken so far, by network and by what is around it: some dozens, which are sooner read through than sorted.
    networks: Vec<(Network, usize)>,
    wider: Vec<(Network, usize)>,
    /// Whether one was not taken.
    pub(super) refused: bool,
}

impl Mix {
    pub(super) fn new(places: usize, per_network: usize, own: Option<Network>) -> Self {
        Self { places, per_network, own, networks: Vec::new(), wider: Vec::new(), refused: false }
    }

    /// Takes one of this network, if it may.
    pub(super) fn takes(&mut self, network: Option<Network>) -> bool {
        let Some(network) = network else { return true };
        let most = if self.own == Some(network) { self.per_network.max(self.places / 2) } else { self.per_network };
        let own_wider = self.own.map(Network::wider) == Some(network.wider());
        let most_wider = (self.places / if own_wider { 2 } else { 4 }).max(self.per_network);
        let takes = count(&self.networks, network) < most && count(&self.wider, network.wider()) < most_wider;
        if takes {
            add(&mut self.networks, network);
            add(&mut self.wider, network.wider());
        }
        self.refused |= !takes;
        takes
    }
}

fn count(counts: &[(Network, usize)], network: Network) -> usize {
    counts.iter().find(|(other, _)| *other == network).map_or(0, |(_, count)| *count)
}

fn add(counts: &mut Vec<(Network, usize)>, network: Network) {
    match counts.iter_mut().find(|(other, _)| *other == network) {
        Some((_, count)) => *count += 1,
        None => counts.push((network, 1)),
    }
}
