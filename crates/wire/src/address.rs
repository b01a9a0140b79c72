//! Which addresses may be dialled because a message said so.
//!
//! A message can name any address; a swarm that dials all of them is a weapon against the hosts behind them, and a way into
//! networks that the sender cannot reach itself.
//! So everyone asks [`dialable`] before the first packet: the server before it hands an address out, a client before it dials.
//!
//! By default only addresses of the public internet pass.
//! [`AddressPolicy::allow`] admits more, for a LAN or for tests on one machine.
//! There is no separate switch for loopback: a prefix that itself lies within loopback (`127.0.0.0/8`, `::1`) admits it, and
//! a wide one such as `0.0.0.0/0` does not, so that nobody opens his own machine by opening a network.
//! The same holds for link-local addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What may be dialled besides the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Networks whose addresses may be dialled although they are not public; none by default.
    pub allow: Vec<Prefix>,
}

impl AddressPolicy {
    /// A policy that admits these networks as well.
    pub fn allowing(allow: impl IntoIterator<Item = Prefix>) -> Self {
        Self { allow: allow.into_iter().collect() }
    }
}

/// A network: an address and how many of its leading bits count. `10.77.0.0/16`, `::1/128`; a bare address is one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePrefixError {
    /// Neither an address nor an address with a length.
    #[error(
        "'{0}' is not a network: write an address and a prefix length, such as 10.0.0.0/8 or fd00::/8, or one address"
    )]
    Form(String),
    /// More bits than the address has.
    #[error("a prefix length of {got}, at most {max}")]
    Length {
        /// The length in the text.
        got: u8,
        /// The most that it may be.
        max: u8,
    },
    /// Bits behind the prefix length that are not zero: perhaps the length is wrong.
    #[error("the address has bits beyond its prefix length: did you mean {meant}?")]
    HostBits {
        /// The network that the address lies in.
        meant: Prefix,
    },
}

impl Prefix {
    /// The network of `address` with this many leading bits; `None` if it does not have so many.
    ///
    /// The other bits are set to zero. An IPv4 address in an IPv6 one (`::ffff:10.0.0.0/104`) becomes the IPv4 network.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(inner)) if (96..=128).contains(&bits) => Self::new(IpAddr::V4(inner), bits - 96),
            (IpAddr::V4(address), _) if bits <= 32 => {
                Some(Self { address: (address & Ipv4Addr::from_bits(mask32(bits))).into(), bits })
            }
            (IpAddr::V6(address), _) if bits <= 128 => {
                Some(Self { address: (address & Ipv6Addr::from_bits(mask128(bits))).into(), bits })
            }
            _ => None,
        }
    }

    /// Whether the address lies in the network. An IPv4 address never lies in an IPv6 network, nor the reverse.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => address & Ipv4Addr::from_bits(mask32(self.bits)) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => address & Ipv6Addr::from_bits(mask128(self.bits)) == network,
            _ => false,
        }
    }

    /// Whether all addresses of this network lie in the other.
    fn lies_within(&self, range: &Range) -> bool {
        self.bits >= range.bits && range.contains(self.address)
    }
}

fn mask32(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)
}

fn mask128(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let form = || ParsePrefixError::Form(text.chars().take(80).flat_map(char::escape_default).collect());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| form())?,
            Some(_) => return Err(form()),
        };
        let prefix = Self::new(address, bits).ok_or(ParsePrefixError::Length { got: bits, max })?;
        if prefix.address == address || prefix.address == address.to_canonical() {
            Ok(prefix)
        } else {
            Err(ParsePrefixError::HostBits { meant: prefix })
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// An address that must not be dialled, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not dialled: {rule}{}", hint(*.address, *.rule))]
#[non_exhaustive]
pub struct AddressRefused {
    /// The address as it was given.
    pub address: SocketAddr,
    /// What speaks against it.
    pub rule: AddressRule,
}

fn hint(address: SocketAddr, rule: AddressRule) -> String {
    if rule.may_be_allowed() {
        format!("; --allow-peers {} would admit it", host_of(address.ip()))
    } else {
        String::new()
    }
}

/// What speaks against an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressRule {
    /// A port below 1024: services that never expect a peer.
    SystemPort,
    /// A port of a service that answers a small datagram with large ones, or falls over.
    ReflectorPort,
    /// A scope id: it means an interface of one machine.
    ScopeId,
    /// No host at all: `0.0.0.0/8`, `::`.
    Unspecified,
    /// This machine.
    Loopback,
    /// This link.
    LinkLocal,
    /// A private network (RFC 1918, RFC 4193, and site-local of RFC 3879).
    Private,
    /// Between a provider and its customers (RFC 6598).
    Shared,
    /// For documents and examples (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// For measurements (RFC 2544).
    Benchmark,
    /// For protocols, not hosts: RFC 6890, RFC 7526, `2001::/23` with Teredo and ORCHID.
    Protocol,
    /// Many hosts at once.
    Multicast,
    /// All hosts of a link.
    Broadcast,
    /// Not given to anybody: `240.0.0.0/4`, and all IPv6 outside `2000::/3`.
    Reserved,
    /// Where clouds tell a machine its secrets.
    CloudMetadata,
}

impl AddressRule {
    /// Whether [`AddressPolicy::allow`] can admit such an address.
    pub fn may_be_allowed(self) -> bool {
        match self {
            Self::Loopback
            | Self::LinkLocal
            | Self::Private
            | Self::Shared
            | Self::Documentation
            | Self::Benchmark
            | Self::Protocol => true,
            Self::SystemPort
            | Self::ReflectorPort
            | Self::ScopeId
            | Self::Unspecified
            | Self::Multicast
            | Self::Broadcast
            | Self::Reserved
            | Self::CloudMetadata => false,
        }
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemPort => "ports below 1024 belong to other services",
            Self::ReflectorPort => "the port belongs to a service that can be made to flood others",
            Self::ScopeId => "it names an interface of one machine",
            Self::Unspecified => "it is no host",
            Self::Loopback => "it is this machine",
            Self::LinkLocal => "it is on this link only",
            Self::Private => "it is in a private network",
            Self::Shared => "it is in a provider's shared network",
            Self::Documentation => "it is for documents only",
            Self::Benchmark => "it is for measurements only",
            Self::Protocol => "it is for protocols, not for hosts",
            Self::Multicast => "it is many hosts",
            Self::Broadcast => "it is all hosts of a link",
            Self::Reserved => "it is given to nobody",
            Self::CloudMetadata => "it is a cloud's metadata service",
        })
    }
}

/// A range that is refused, and why.
struct Range {
    address: IpAddr,
    bits: u8,
    rule: AddressRule,
}

impl Range {
    const fn v4(address: [u8; 4], bits: u8, rule: AddressRule) -> Self {
        let [a, b, c, d] = address;
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits, rule }
    }

    const fn v6(first: [u16; 3], bits: u8, rule: AddressRule) -> Self {
        let [a, b, c] = first;
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits, rule }
    }

    fn contains(&self, address: IpAddr) -> bool {
        Prefix { address: self.address, bits: self.bits }.contains(address)
    }
}

const LOOPBACK: [Range; 2] = [
    Range::v4([127, 0, 0, 0], 8, AddressRule::Loopback),
    Range { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128, rule: AddressRule::Loopback },
];

const LINK_LOCAL: [Range; 2] =
    [Range::v4([169, 254, 0, 0], 16, AddressRule::LinkLocal), Range::v6([0xfe80, 0, 0], 10, AddressRule::LinkLocal)];

/// The first that fits decides.
const REFUSED: [Range; 24] = [
    Range::v4([255, 255, 255, 255], 32, AddressRule::Broadcast),
    Range::v4([169, 254, 169, 254], 32, AddressRule::CloudMetadata),
    Range::v4([0, 0, 0, 0], 8, AddressRule::Unspecified),
    Range::v4([10, 0, 0, 0], 8, AddressRule::Private),
    Range::v4([172, 16, 0, 0], 12, AddressRule::Private),
    Range::v4([192, 168, 0, 0], 16, AddressRule::Private),
    Range::v4([100, 64, 0, 0], 10, AddressRule::Shared),
    Range::v4([192, 0, 0, 0], 24, AddressRule::Protocol),
    Range::v4([192, 0, 2, 0], 24, AddressRule::Documentation),
    Range::v4([192, 88, 99, 0], 24, AddressRule::Protocol),
    Range::v4([198, 18, 0, 0], 15, AddressRule::Benchmark),
    Range::v4([198, 51, 100, 0], 24, AddressRule::Documentation),
    Range::v4([203, 0, 113, 0], 24, AddressRule::Documentation),
    Range::v4([224, 0, 0, 0], 4, AddressRule::Multicast),
    Range::v4([240, 0, 0, 0], 4, AddressRule::Reserved),
    Range { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), bits: 128, rule: AddressRule::Unspecified },
    CLOUD_METADATA_V6,
    Range::v6([0xfc00, 0, 0], 7, AddressRule::Private),
    Range::v6([0xfec0, 0, 0], 10, AddressRule::Private),
    Range::v6([0xff00, 0, 0], 8, AddressRule::Multicast),
    // Translation within one network (RFC 8215): where the IPv4 address lies in it is that network's choice of six, so there is
    // no telling which host it means.
    Range::v6([0x64, 0xff9b, 1], 48, AddressRule::Protocol),
    Range::v6([0x2001, 0, 0], 23, AddressRule::Protocol),
    Range::v6([0x2001, 0xdb8, 0], 32, AddressRule::Documentation),
    Range::v6([0x3fff, 0, 0], 20, AddressRule::Documentation),
];

const CLOUD_METADATA_V6: Range = Range {
    address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    bits: 128,
    rule: AddressRule::CloudMetadata,
};

const PUBLIC_V6: Range = Range::v6([0x2000, 0, 0], 3, AddressRule::Reserved);

/// SQL Server Browser, SSDP, Source-engine queries and the like: all have been used to flood others, or fall over when hit.
const REFLECTOR_PORTS: [u16; 14] =
    [1434, 1900, 3283, 3478, 3702, 5060, 5353, 5683, 10001, 11211, 17185, 27015, 37810, 47808];

/// Whether an address that a message named may be dialled.
///
/// # Errors
/// When it is not a host of the public internet and no prefix of the policy admits it, or the port is not for peers.
pub fn dialable(address: SocketAddr, policy: &AddressPolicy) -> Result<(), AddressRefused> {
    match against(address, policy) {
        None => Ok(()),
        Some(rule) => Err(AddressRefused { address, rule }),
    }
}

fn against(address: SocketAddr, policy: &AddressPolicy) -> Option<AddressRule> {
    if let SocketAddr::V6(address) = address
        && address.scope_id() != 0
    {
        return Some(AddressRule::ScopeId);
    }
    if address.port() < 1024 {
        return Some(AddressRule::SystemPort);
    }
    if REFLECTOR_PORTS.contains(&address.port()) {
        return Some(AddressRule::ReflectorPort);
    }
    let ip = host_of(address.ip());
    rule(ip).filter(|rule| !admitted(ip, *rule, policy))
}

/// The IPv4 address that an IPv6 address stands for, or else the address itself: it is that host which gets the packets.
pub fn host_of(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = v6.octets();
    let inner = match [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11] {
        // Mapped and compatible (RFC 4291 section 2.5.5); `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] => [a12, a13, a14, a15],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] if v6.to_bits() > 1 => [a12, a13, a14, a15],
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] => [a12, a13, a14, a15],
        [0x20, 0x02, ..] => [a2, a3, a4, a5],
        _ => return address,
    };
    IpAddr::V4(inner.into())
}

fn rule(ip: IpAddr) -> Option<AddressRule> {
    let ranges = REFUSED.iter().chain(&LOOPBACK).chain(&LINK_LOCAL);
    let rule = ranges.into_iter().find(|range| range.contains(ip)).map(|range| range.rule);
    rule.or_else(|| (ip.is_ipv6() && !PUBLIC_V6.contains(ip)).then_some(AddressRule::Reserved))
}

fn admitted(ip: IpAddr, rule: AddressRule, policy: &AddressPolicy) -> bool {
    let mut prefixes = policy.allow.iter().filter(|prefix| prefix.contains(ip));
    match rule {
        AddressRule::Loopback => prefixes.any(|prefix| LOOPBACK.iter().any(|range| prefix.lies_within(range))),
        AddressRule::LinkLocal => prefixes.any(|prefix| LINK_LOCAL.iter().any(|range| prefix.lies_within(range))),
        rule => rule.may_be_allowed() && prefixes.next().is_some(),
    }
}
