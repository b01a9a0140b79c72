//! What tickets are good for, and what spoils them.

#[allow(dead_code, reason = "other tests use more of it")]
mod samples;

use hybrid_manifest::{ContentId, ServerKey, SigningKey, server_key};
use hybrid_units::{Duration, UnixTime};
use hybrid_wire::PeerId;
use hybrid_wire::ticket::{
    AWAY_MIN, CLOCK_SLACK, Net, Roles, TTL_MAX, Ticket, TicketError, TicketPolicy, key_id, prefix_mac, site_code,
};
use proptest::prelude::*;
use samples::{content, peer, ticket};
use std::net::IpAddr;

const HOUR: Duration = Duration::from_secs(3_600);

fn key() -> SigningKey {
    samples::server_key()
}

fn keys() -> [ServerKey; 2] {
    // The key that signed comes second: keys are rolled over with both in the manifest.
    [server_key(&SigningKey::from_bytes(&[8; 32])), server_key(&key())]
}

fn policy(keys: &[ServerKey]) -> TicketPolicy<'_> {
    TicketPolicy::new(keys, content(), peer(0x11), ticket().issued)
}

fn with<'a>(keys: &'a [ServerKey], change: impl FnOnce(&mut TicketPolicy<'a>)) -> TicketPolicy<'a> {
    let mut policy = policy(keys);
    change(&mut policy);
    policy
}

fn at(secs_after_issue: i64) -> UnixTime {
    UnixTime::from_secs(ticket().issued.as_secs().checked_add_signed(secs_after_issue).expect("in range"))
}

/// A ticket with one byte changed and signed anew: what only a server with a bug makes.
fn resigned(offset: usize, bytes: &[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let mut raw = ticket().sign(&key())[..93].to_vec();
    raw[offset..offset + bytes.len()].copy_from_slice(bytes);
    let signature = key().sign(&[b"hybrid-ticket-v1", &raw[..]].concat());
    raw.extend_from_slice(&signature.to_bytes());
    raw
}

#[track_caller]
fn refused(bytes: &[u8], policy: &TicketPolicy<'_>, code: &str) -> TicketError {
    let error = Ticket::check(bytes, policy).expect_err(code);
    assert_eq!(error.code(), code, "{error}");
    error
}

proptest! {
    // A signature takes milliseconds in an unoptimised build.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_is_read(
        seed: [u8; 32],
        content: [u8; 32],
        peer: [u8; 32],
        issued: u32,
        ttl in 1u64..=7_200,
        roles in (0u8..16).prop_filter_map("no roles", Roles::from_bits),
        address in prop::option::of(any::<IpAddr>()),
        site: [u8; 8],
    ) {
        let key = SigningKey::from_bytes(&seed);
        let (content, peer) = (ContentId::from_bytes(content), PeerId::from_bytes(peer));
        let issued = UnixTime::from_secs(issued.into());
        let net = address.map_or(Net::None, |address| prefix_mac(&[1; 32], address));
        let ticket = Ticket {
            net,
            site,
            ..Ticket::issue(&key, content, peer, issued, Duration::from_secs(ttl), roles)
        };
        let keys = [server_key(&key)];
        let bytes = ticket.sign(&key);
        prop_assert_eq!(bytes.len(), Ticket::BYTES);
        prop_assert_eq!(Ticket::check(&bytes, &TicketPolicy::new(&keys, content, peer, issued)), Ok(ticket));
    }

    #[test]
    fn any_bytes_are_no_ticket(mut bytes in prop::collection::vec(any::<u8>(), 0..400), sized: bool) {
        if sized {
            bytes.resize(Ticket::BYTES, 1);
        }
        prop_assert!(Ticket::check(&bytes, &policy(&keys())).is_err());
    }
}

#[test]
fn a_ticket_of_another_length_is_none() {
    let bytes = ticket().sign(&key());
    for end in 0..bytes.len() {
        let error = refused(&bytes[..end], &policy(&keys()), "E_TICKET_FORMAT");
        assert_eq!(error, TicketError::Length { got: end });
    }
    refused(&[&bytes[..], &[0]].concat(), &policy(&keys()), "E_TICKET_FORMAT");
    refused(&vec![1; 10 << 20], &policy(&keys()), "E_TICKET_FORMAT");
}

#[test]
fn each_flipped_bit_spoils_a_ticket() {
    let good = ticket().sign(&key());
    for bit in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let code = if bit < 8 { "E_TICKET_VERSION" } else { "E_TICKET_KEY" };
        refused(&bytes, &policy(&keys()), code);
    }
}

#[test]
fn versions_0_and_2_are_unknown() {
    for version in [0, 2] {
        refused(&resigned(0, &[version]), &policy(&keys()), "E_TICKET_VERSION");
    }
}

#[test]
fn only_the_servers_keys_sign() {
    let bytes = ticket().sign(&key());
    refused(&bytes, &policy(&[]), "E_TICKET_KEY");
    let error = refused(&bytes, &policy(&keys()[..1]), "E_TICKET_KEY");
    assert_eq!(error, TicketError::UnknownKey { key_id: key_id(&keys()[1]) });
    // The right key id, signed by another.
    let forged = ticket().sign(&SigningKey::from_bytes(&[8; 32]));
    assert_eq!(refused(&forged, &policy(&keys()), "E_TICKET_KEY"), TicketError::Signature);
}

/// With a key of small order one signature fits many messages; with S + L in place of S one message has two signatures.
#[test]
fn weak_keys_and_second_signatures_are_refused() {
    // The neutral point as key, and as R with S = 0: the equation holds for every message, so only the strict check refuses.
    let weak = ServerKey::from_bytes(std::array::from_fn(|i| u8::from(i == 0)));
    let forged = Ticket { key_id: key_id(&weak), ..ticket() }.sign(&key());
    let mut forged = forged.to_vec();
    forged[93..].fill(0);
    forged[93] = 1;
    let keys = [weak];
    assert_eq!(refused(&forged, &policy(&keys), "E_TICKET_KEY"), TicketError::Signature);

    // L, the order of the group (RFC 8032 section 5.1), little-endian.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut second = ticket().sign(&key()).to_vec();
    let mut carry = 0;
    for (byte, l) in second[125..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    refused(&second, &policy(&self::keys()), "E_TICKET_KEY");
}

#[test]
fn a_key_that_is_no_point_is_refused() {
    let no_point = ServerKey::from_bytes([2; 32]);
    let bytes = Ticket { key_id: key_id(&no_point), ..ticket() }.sign(&key());
    refused(&bytes, &policy(&[no_point]), "E_TICKET_KEY");
}

#[test]
fn a_life_of_no_time_or_too_long_is_none() {
    for ttl in [0u16, 7_201, 65_535] {
        let error = refused(&resigned(73, &ttl.to_le_bytes()), &policy(&keys()), "E_TICKET_FORMAT");
        assert_eq!(error, TicketError::Field { field: "ttl", number: ttl.into() });
    }
    for ttl in [Duration::ZERO, Duration::from_millis(1_500), Duration::MAX] {
        let ticket = Ticket::issue(&key(), content(), peer(0x11), at(0), ttl, Roles::LEECH);
        assert!(ticket.ttl >= Duration::from_secs(1) && ticket.ttl <= TTL_MAX);
        assert_eq!(Ticket::check(&ticket.sign(&key()), &policy(&keys())), Ok(ticket));
    }
}

#[test]
fn time_goes_by() {
    let keys = keys();
    let bytes = ticket().sign(&key());
    let slack = 300;
    let day = Duration::from_secs(86_400);
    let minute = Some(Duration::from_secs(60));
    let almost = Some(Duration::from_secs(59));
    for (now, away, grace, expected) in [
        (0, None, Duration::ZERO, None),
        (-slack, None, Duration::ZERO, None),
        (-slack - 1, None, Duration::ZERO, Some("E_TICKET_NOT_YET")),
        (-1_000_000, minute, day, Some("E_TICKET_NOT_YET")),
        (3_600, None, Duration::ZERO, None),
        (3_601, None, Duration::ZERO, None),
        (3_600 + slack, None, Duration::ZERO, None),
        (3_601 + slack, None, Duration::ZERO, Some("E_TICKET_EXPIRED")),
        (3_601 + slack, None, day, Some("E_TICKET_EXPIRED")),
        (3_601 + slack, almost, day, Some("E_TICKET_EXPIRED")),
        (3_601 + slack, minute, Duration::ZERO, Some("E_TICKET_EXPIRED")),
        (3_601 + slack, minute, day, None),
        (3_600 + slack + 86_400, minute, day, None),
        (3_601 + slack + 86_400, minute, day, Some("E_TICKET_EXPIRED")),
        (3_601 + slack + 86_400, minute, Duration::MAX, None),
    ] {
        let mut policy = policy(&keys).while_away(away, grace);
        policy.now = at(now);
        let code = Ticket::check(&bytes, &policy).err().map(|error| error.code());
        assert_eq!(code, expected, "{now} s after issue, server away for {away:?}, grace {grace:?}");
    }
    assert_eq!((CLOCK_SLACK.as_secs(), AWAY_MIN.as_secs()), (300, 60), "as the table says");
}

#[test]
fn times_are_told_to_people() {
    let keys = keys();
    let bytes = ticket().sign(&key());
    for (now, message) in [
        (3_600 + 720, "ticket expired 12 minutes ago: ask the server for a new one"),
        (3_600 + 86_400, "ticket expired 24 hours ago: ask the server for a new one"),
        (-301, "ticket issued 5 minutes from now: one of the clocks is wrong"),
    ] {
        let mut policy = policy(&keys);
        policy.now = at(now);
        assert_eq!(Ticket::check(&bytes, &policy).unwrap_err().to_string(), message);
    }
    // The ends of time.
    let mut policy = policy(&keys);
    for now in [0, u64::MAX] {
        policy.now = UnixTime::from_secs(now);
        assert!(Ticket::check(&bytes, &policy).is_err());
    }
}

#[test]
fn a_ticket_is_for_one_content_one_peer_one_site() {
    let keys = keys();
    let bytes = ticket().sign(&key());
    let other = ContentId::from_bytes([1; 32]);
    refused(&bytes, &with(&keys, |policy| policy.content = other), "E_TICKET_CONTENT");
    refused(&bytes, &with(&keys, |policy| policy.peer = peer(0x12)), "E_TICKET_PEER");
    let banned = [peer(1), peer(0x11)];
    refused(&bytes, &with(&keys, |policy| policy.banned = &banned), "E_TICKET_BANNED");
    assert!(Ticket::check(&bytes, &with(&keys, |policy| policy.banned = &banned[..1])).is_ok());

    let site = site_code("https://example.org");
    refused(&bytes, &with(&keys, |policy| policy.site = Some(site)), "E_TICKET_SITE");
    let bytes = Ticket { site, ..ticket() }.sign(&key());
    assert!(Ticket::check(&bytes, &with(&keys, |policy| policy.site = Some(site))).is_ok());
    refused(&bytes, &with(&keys, |policy| policy.site = Some([0; 8])), "E_TICKET_SITE");
}

#[test]
fn the_server_knows_the_network_again() {
    let keys = keys();
    let secret = [9; 32];
    let check = |issued_to: &str, seen: &str| {
        let net = prefix_mac(&secret, issued_to.parse().expect("an address"));
        let bytes = Ticket { net, ..ticket() }.sign(&key());
        assert!(Ticket::check(&bytes, &policy(&keys)).is_ok(), "peers do not check the network");
        let network = Some((&secret, seen.parse().expect("an address")));
        Ticket::check(&bytes, &with(&keys, |policy| policy.network = network)).err().map(|error| error.code())
    };
    for (issued_to, seen, expected) in [
        ("198.51.100.7", "198.51.100.7", None),
        ("198.51.100.7", "198.51.100.250", None),
        ("198.51.100.7", "::ffff:198.51.100.9", None),
        ("198.51.100.7", "198.51.101.7", Some("E_TICKET_NET")),
        ("198.51.100.7", "2001:db8::1", Some("E_TICKET_NET")),
        ("2001:db8:1::1", "2001:db8:1:ffff::1", None),
        ("2001:db8:1::1", "2001:db8:2::1", Some("E_TICKET_NET")),
        ("2001:db8:1::1", "198.51.100.7", Some("E_TICKET_NET")),
    ] {
        assert_eq!(check(issued_to, seen), expected, "issued to {issued_to}, seen at {seen}");
    }
    // A ticket that was not bound to a network holds in any.
    let network = Some((&secret, IpAddr::from([198, 51, 100, 7])));
    let bytes = ticket().sign(&key());
    assert!(Ticket::check(&bytes, &with(&keys, |policy| policy.network = network)).is_ok());
    // Who has another secret cannot make the code.
    assert_ne!(prefix_mac(&[8; 32], [198, 51, 100, 7].into()), prefix_mac(&secret, [198, 51, 100, 7].into()));
}

#[test]
fn networks_have_one_form() {
    for bytes in [[1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0, 0]] {
        refused(&resigned(76, &bytes), &policy(&keys()), "E_TICKET_FORMAT");
    }
}

#[test]
fn roles_must_not_contradict() {
    for bits in 0..=u8::MAX {
        let good = bits < 16 && matches!(bits & 3, 1 | 2);
        assert_eq!(Roles::from_bits(bits).is_some(), good, "{bits:#010b}");
        if good {
            assert!(Ticket::check(&resigned(75, &[bits]), &policy(&keys())).is_ok());
        } else {
            refused(&resigned(75, &[bits]), &policy(&keys()), "E_TICKET_ROLE");
        }
    }
    assert_eq!(format!("{:?}", Roles::SEED | Roles::LIVE), r#"{"seed", "live"}"#);
}

/// A ticket made past the year 2105 is one that nobody takes, not one that wraps to 1970 and holds.
#[test]
fn the_year_2106_does_not_wrap() {
    let late = UnixTime::from_secs(u64::from(u32::MAX) + 1_000_000);
    let bytes = Ticket::issue(&key(), content(), peer(0x11), late, HOUR, Roles::LEECH).sign(&key());
    let mut policy = policy(&[]);
    let keys = keys();
    policy.keys = &keys;
    refused(&bytes, &policy, "E_TICKET_NOT_YET");
    policy.now = late;
    refused(&bytes, &policy, "E_TICKET_EXPIRED");
}
