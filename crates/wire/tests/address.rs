//! Which addresses are dialled: a table for people, and a slow second reading of the rules.

use hybrid_wire::address::{AddressPolicy, AddressRule, ParsePrefixError, Prefix, dialable};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

fn policy(allow: &[&str]) -> AddressPolicy {
    AddressPolicy::allowing(allow.iter().map(|prefix| prefix.parse().expect("a prefix")))
}

fn rule(address: &str, allow: &[&str]) -> Option<AddressRule> {
    let address: IpAddr = address.parse().expect("an address");
    dialable(SocketAddr::new(address, 40_000), &policy(allow)).err().map(|refused| refused.rule)
}

#[test]
fn addresses_by_default() {
    let table = include_str!("../../../docs/spec/vectors/addresses.txt");
    let mut rows = 0;
    for row in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (text, expected) = row.split_once(' ').expect("an address and a rule");
        let address = text.parse().unwrap_or_else(|_| SocketAddr::new(text.parse().expect("an address"), 40_000));
        let got = dialable(address, &AddressPolicy::default()).err().map(|refused| format!("{:?}", refused.rule));
        assert_eq!(got.as_deref().unwrap_or("dialled"), expected, "{text}");
        rows += 1;
    }
    assert!(rows > 160, "{rows} rows were read");
}

#[test]
fn addresses_that_a_policy_admits() {
    use AddressRule::{Broadcast, CloudMetadata, LinkLocal, Loopback, Multicast, Private, Reserved, Unspecified};
    for (address, allow, expected) in [
        ("10.77.0.1", &["10.77.0.0/16"][..], None),
        ("10.78.0.1", &["10.77.0.0/16"], Some(Private)),
        ("10.78.0.1", &["10.77.0.0/16", "10.78.0.1"], None),
        ("10.78.0.2", &["10.77.0.0/16", "10.78.0.1"], Some(Private)),
        ("::ffff:10.77.0.1", &["10.77.0.0/16"], None),
        ("64:ff9b::10.77.0.1", &["10.77.0.0/16"], None),
        ("10.77.0.1", &["::ffff:10.77.0.0/112"], None),
        ("10.77.0.1", &["::/0"], Some(Private)),
        ("198.18.0.1", &["198.18.0.0/15"], None),
        ("203.0.113.1", &["203.0.113.0/24"], None),
        ("100.64.0.1", &["0.0.0.0/0"], None),
        ("fd12::1", &["fd12::/16"], None),
        ("fd12::1", &["::/0"], None),
        ("fec0::1", &["fec0::/10"], None),
        ("2001:db8::1", &["2001:db8::/32"], None),
        ("64:ff9b:1::1", &["64:ff9b:1::/48"], None),
        // Loopback and link-local only by a prefix that lies within them.
        ("127.0.0.1", &["127.0.0.0/8"], None),
        ("127.0.0.1", &["127.0.0.1"], None),
        ("::ffff:127.0.0.1", &["127.0.0.1"], None),
        ("127.0.0.2", &["127.0.0.1"], Some(Loopback)),
        ("127.0.0.1", &["0.0.0.0/0"], Some(Loopback)),
        ("127.0.0.1", &["126.0.0.0/7"], Some(Loopback)),
        ("127.0.0.1", &["0.0.0.0/0", "127.0.0.0/24"], None),
        ("::1", &["::1"], None),
        ("::1", &["::1/128"], None),
        ("::1", &["::/127"], Some(Loopback)),
        ("::1", &["::/0"], Some(Loopback)),
        ("::1", &["127.0.0.0/8"], Some(Loopback)),
        ("169.254.1.1", &["169.254.0.0/16"], None),
        ("169.254.1.1", &["0.0.0.0/0"], Some(LinkLocal)),
        ("169.254.1.1", &["169.254.0.0/15"], Some(LinkLocal)),
        ("fe80::1", &["fe80::/10"], None),
        ("fe80::1", &["fe80::/9"], Some(LinkLocal)),
        ("fe80::1", &["fe00::/8"], Some(LinkLocal)),
        // Never.
        ("169.254.169.254", &["169.254.169.254", "169.254.0.0/16", "0.0.0.0/0"], Some(CloudMetadata)),
        ("fd00:ec2::254", &["fd00:ec2::254", "fd00::/8"], Some(CloudMetadata)),
        ("0.0.0.0", &["0.0.0.0", "0.0.0.0/0"], Some(Unspecified)),
        ("::", &["::", "::/0"], Some(Unspecified)),
        ("224.0.0.1", &["224.0.0.0/4", "0.0.0.0/0"], Some(Multicast)),
        ("ff02::1", &["ff02::1", "::/0"], Some(Multicast)),
        ("255.255.255.255", &["255.255.255.255", "0.0.0.0/0"], Some(Broadcast)),
        ("240.0.0.1", &["240.0.0.0/4"], Some(Reserved)),
        ("4000::1", &["4000::/3"], Some(Reserved)),
    ] {
        assert_eq!(rule(address, allow), expected, "{address} with {allow:?}");
    }
}

#[test]
fn ports() {
    let allow = policy(&["127.0.0.0/8"]);
    let refused = |port| dialable(SocketAddr::from(([127, 0, 0, 1], port)), &allow).err().map(|refused| refused.rule);
    let reflectors = [1434, 1900, 3283, 3478, 3702, 5060, 5353, 5683, 10001, 11211, 17185, 27015, 37810, 47808];
    for port in 0..=u16::MAX {
        let expected = match port {
            0..1024 => Some(AddressRule::SystemPort),
            port if reflectors.contains(&port) => Some(AddressRule::ReflectorPort),
            _ => None,
        };
        assert_eq!(refused(port), expected, "port {port}");
    }
}

#[test]
fn scope_ids() {
    let address = |scope| SocketAddr::V6(std::net::SocketAddrV6::new("2606::1".parse().expect("one"), 5_000, 0, scope));
    assert!(dialable(address(0), &AddressPolicy::default()).is_ok());
    assert_eq!(dialable(address(3), &policy(&["::/0"])).unwrap_err().rule, AddressRule::ScopeId);
}

#[test]
fn a_refusal_says_what_would_help() {
    for (address, message) in [
        (
            "[::ffff:192.168.1.5]:40000",
            "[::ffff:192.168.1.5]:40000 is not dialled: it is in a private network; --allow-peers 192.168.1.5 would admit it",
        ),
        ("224.0.0.1:40000", "224.0.0.1:40000 is not dialled: it is many hosts"),
        ("8.8.8.8:53", "8.8.8.8:53 is not dialled: ports below 1024 belong to other services"),
    ] {
        let address = address.parse().expect("an address");
        assert_eq!(dialable(address, &AddressPolicy::default()).unwrap_err().to_string(), message);
    }
}

#[test]
fn prefixes_as_people_write_them() {
    for (text, expected) in [
        ("10.77.0.0/16", Some("10.77.0.0/16")),
        ("10.1.2.3", Some("10.1.2.3/32")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("::1/128", Some("::1/128")),
        ("::1", Some("::1/128")),
        ("fd00::/8", Some("fd00::/8")),
        ("::/0", Some("::/0")),
        ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
        ("::ffff:10.0.0.1", Some("10.0.0.1/32")),
        ("", None),
        ("/", None),
        ("10.0.0.0/", None),
        ("/8", None),
        ("10.0.0.0/33", None),
        ("::/129", None),
        ("10.0.0.0/-1", None),
        ("10.0.0.0/+8", None),
        ("10.0.0.0/8/8", None),
        ("10.0.0.0/ 8", None),
        ("10.0.0.0/256", None),
        ("10.0.0/8", None),
        ("010.0.0.0/8", None),
        ("example.org/8", None),
        ("fe80::1%eth0/64", None),
    ] {
        assert_eq!(text.parse::<Prefix>().ok().map(|prefix| prefix.to_string()).as_deref(), expected, "{text}");
    }
    let error = "10.77.3.4/16".parse::<Prefix>().unwrap_err();
    assert_eq!(error, ParsePrefixError::HostBits { meant: "10.77.0.0/16".parse().expect("a prefix") });
    assert_eq!(error.to_string(), "the address has bits beyond its prefix length: did you mean 10.77.0.0/16?");
}

// ----- A slow second reading -----

/// An address as text of zeros and ones.
fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    }
}

/// Whether an address lies in `address/length`, by comparing text.
fn within(address: IpAddr, network: &str) -> bool {
    let (first, length) = network.split_once('/').expect("a length");
    let first: IpAddr = first.parse().expect("an address");
    let length: usize = length.parse().expect("a length");
    first.is_ipv4() == address.is_ipv4() && bits(first)[..length] == bits(address)[..length]
}

const NEVER: [&str; 9] = [
    "0.0.0.0/8",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "169.254.169.254/32",
    "::/128",
    "ff00::/8",
    "fd00:ec2::254/128",
    "5f00::/16",
];
const OWN: [&str; 4] = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"];
const ALLOWABLE: [&str; 17] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "fc00::/7",
    "fec0::/10",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "64:ff9b:1::/48",
    "2001:10::/28",
];

fn reference(address: IpAddr, allow: &[String]) -> bool {
    let text = bits(address);
    let v4 = |bits: &str| IpAddr::V4(Ipv4Addr::from_bits(u32::from_str_radix(bits, 2).expect("bits")));
    let address = if address.is_ipv4() || text[..127].bytes().all(|b| b == b'0') {
        address
    } else if ["::/96", "::ffff:0:0/96", "64:ff9b::/96"].iter().any(|network| within(address, network)) {
        v4(&text[96..])
    } else if within(address, "2002::/16") {
        v4(&text[16..48])
    } else {
        address
    };
    if NEVER.iter().any(|network| within(address, network)) {
        return false;
    }
    let length = |network: &str| network.split_once('/').expect("a length").1.parse::<u8>().expect("a length");
    if let Some(own) = OWN.iter().find(|network| within(address, network)) {
        return allow.iter().any(|prefix| within(address, prefix) && length(prefix) >= length(own));
    }
    if ALLOWABLE.iter().any(|network| within(address, network)) {
        return allow.iter().any(|prefix| within(address, prefix));
    }
    address.is_ipv4() || within(address, "2000::/3")
}

/// Addresses at and around the ends of all ranges, inside them, in disguise, and anywhere.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let networks: Vec<&str> =
        [&NEVER[..], &OWN, &ALLOWABLE, &["2000::/3", "64:ff9b::/96", "2002::/16", "::/96"]].concat();
    let near = (prop::sample::select(networks), any::<u128>(), 0u8..5).prop_map(|(network, random, place)| {
        let (first, length) = network.split_once('/').expect("a length");
        let length: u32 = length.parse().expect("a length");
        let move_in = |first: u128, size: u32| {
            let host = u128::MAX.checked_shr(128 - (size - length)).unwrap_or(0);
            match place {
                0 => first,
                1 => first.wrapping_sub(1),
                2 => first | host,
                3 => (first | host).wrapping_add(1),
                _ => first | (random & host),
            }
        };
        match first.parse().expect("an address") {
            IpAddr::V4(v4) => {
                let moved = move_in(u128::from(v4.to_bits()), 32) & u128::from(u32::MAX);
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(moved).expect("32 bits")))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(move_in(v6.to_bits(), 128))),
        }
    });
    let disguised = (near.clone(), 0u8..5).prop_map(|(address, way)| match address {
        IpAddr::V4(v4) => {
            let inner = u128::from(v4.to_bits());
            IpAddr::V6(Ipv6Addr::from_bits(match way {
                0 => 0xffff << 32 | inner,
                1 => inner,
                2 => 0x64_ff9b << 96 | inner,
                3 => 0x2002 << 112 | inner << 80 | 1,
                _ => 0x64_ff9b_0001 << 80 | inner,
            }))
        }
        v6 => v6,
    });
    prop_oneof![4 => near, 4 => disguised, 1 => any::<IpAddr>()]
}

fn any_prefixes() -> impl Strategy<Value = Vec<String>> {
    let prefix = (any_address(), 0u8..=128).prop_filter_map("too long, or in disguise", |(address, length)| {
        let mapped = address != address.to_canonical();
        (!mapped).then(|| Prefix::new(address, length)).flatten().map(|prefix| prefix.to_string())
    });
    prop::collection::vec(prefix, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_rules_are_as_the_slow_reading_has_them(address in any_address(), allow in any_prefixes()) {
        let prefixes: Vec<Prefix> = allow.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
        let refused = dialable(SocketAddr::new(address, 40_000), &AddressPolicy::allowing(prefixes));
        prop_assert_eq!(refused.is_ok(), reference(address, &allow), "{:?}", refused);
    }

    /// Prefixes of the address itself, so that admission is tried often.
    #[test]
    fn a_prefix_of_the_address_admits_what_may_be_admitted(address in any_address(), length in 0u8..=128) {
        if let Some(prefix) = Prefix::new(address.to_canonical(), length) {
            prop_assert!(prefix.contains(address.to_canonical()));
            let allowed = dialable(SocketAddr::new(address, 40_000), &AddressPolicy::allowing([prefix]));
            prop_assert_eq!(allowed.is_ok(), reference(address, &[prefix.to_string()]), "{:?}", allowed);
        }
    }

    #[test]
    fn prefixes_are_read_as_they_are_shown(address: IpAddr, length in 0u8..=128, text in "[0-9a-f.:/%]{0,30}") {
        if let Some(prefix) = Prefix::new(address, length) {
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
        // Whatever the text, an answer.
        if let Ok(prefix) = text.parse::<Prefix>() {
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
