//! Tickets that break a rule each: the code, and the words that a user sees.

#[allow(dead_code, reason = "other tests use more of it")]
mod samples;

use ed25519_dalek::Signer;
use hybrid_manifest::{ContentId, server_key};
use hybrid_units::{Duration, UnixTime};
use hybrid_wire::PeerId;
use hybrid_wire::ticket::{Ticket, TicketPolicy, site_code};
use samples::{content, peer, ticket};
use std::net::IpAddr;

/// A good ticket cut or drawn out to this length.
const LENGTHS: &[(usize, &str)] = &[
    (0, "a ticket of 0 bytes, must be 157"),
    (1, "a ticket of 1 bytes, must be 157"),
    (93, "a ticket of 93 bytes, must be 157"),
    (156, "a ticket of 156 bytes, must be 157"),
    (158, "a ticket of 158 bytes, must be 157"),
    (314, "a ticket of 314 bytes, must be 157"),
    (10 << 20, "a ticket of 10485760 bytes, must be 157"),
];

/// Bytes changed before the server signs: what only a server with a bug makes.
const RESIGNED: &[(usize, &[u8], &str, &str)] = &[
    (0, &[0], "E_TICKET_VERSION", "ticket of version 0, this program knows version 1"),
    (0, &[2], "E_TICKET_VERSION", "ticket of version 2, this program knows version 1"),
    (0, &[255], "E_TICKET_VERSION", "ticket of version 255, this program knows version 1"),
    (1, &[0], "E_TICKET_KEY", "ticket signed with a key that is none of the server's: fetch the manifest again"),
    (73, &[0, 0], "E_TICKET_FORMAT", "ticket with ttl 0, which means nothing"),
    (73, &[0x21, 0x1c], "E_TICKET_FORMAT", "ticket with ttl 7201, which means nothing"),
    (73, &[255, 255], "E_TICKET_FORMAT", "ticket with ttl 65535, which means nothing"),
    (75, &[0], "E_TICKET_ROLE", "ticket with roles 0x00, which contradict each other or are unknown"),
    (75, &[3], "E_TICKET_ROLE", "ticket with roles 0x03, which contradict each other or are unknown"),
    (75, &[4], "E_TICKET_ROLE", "ticket with roles 0x04, which contradict each other or are unknown"),
    (75, &[16], "E_TICKET_ROLE", "ticket with roles 0x10, which contradict each other or are unknown"),
    (75, &[255], "E_TICKET_ROLE", "ticket with roles 0xff, which contradict each other or are unknown"),
    (76, &[1, 0, 0, 0, 0, 0, 0, 0, 0], "E_TICKET_FORMAT", "ticket with net 1, which means nothing"),
    (76, &[5, 0, 0, 0, 0, 0, 0, 0, 0], "E_TICKET_FORMAT", "ticket with net 5, which means nothing"),
    (76, &[0, 1, 0, 0, 0, 0, 0, 0, 0], "E_TICKET_FORMAT", "ticket with net 0, which means nothing"),
    (85, &[1], "E_TICKET_SITE", "ticket issued to another web site"),
];

/// Seconds after the issue of a ticket that lives an hour.
const TIMES: &[(i64, &str, &str)] = &[
    (3_901, "E_TICKET_EXPIRED", "ticket expired 5 minutes ago: ask the server for a new one"),
    (3_959, "E_TICKET_EXPIRED", "ticket expired 5 minutes ago: ask the server for a new one"),
    (4_320, "E_TICKET_EXPIRED", "ticket expired 12 minutes ago: ask the server for a new one"),
    (7_200, "E_TICKET_EXPIRED", "ticket expired 60 minutes ago: ask the server for a new one"),
    (90_000, "E_TICKET_EXPIRED", "ticket expired 24 hours ago: ask the server for a new one"),
    (900_000, "E_TICKET_EXPIRED", "ticket expired 249 hours ago: ask the server for a new one"),
    (-301, "E_TICKET_NOT_YET", "ticket issued 5 minutes from now: one of the clocks is wrong"),
    (-7_200, "E_TICKET_NOT_YET", "ticket issued 2 hours from now: one of the clocks is wrong"),
    (-900_000, "E_TICKET_NOT_YET", "ticket issued 250 hours from now: one of the clocks is wrong"),
];

struct Case {
    bytes: Vec<u8>,
    now: UnixTime,
}

fn good() -> Vec<u8> {
    ticket().sign(&samples::server_key()).to_vec()
}

fn resigned(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut raw = good()[..Ticket::BYTES - 64].to_vec();
    raw[offset..offset + bytes.len()].copy_from_slice(bytes);
    let signature = samples::server_key().sign(&[b"hybrid-ticket-v1", &raw[..]].concat());
    [&raw[..], &signature.to_bytes()].concat()
}

/// What is said of a ticket under a policy that everything but the change agrees with.
fn said(case: &Case, change: impl FnOnce(&mut TicketPolicy<'_>)) -> (String, String) {
    let keys = [server_key(&samples::server_key())];
    let mut policy = TicketPolicy::new(&keys, content(), peer(0x11), case.now);
    policy.site = Some([0; 8]);
    change(&mut policy);
    match Ticket::check(&case.bytes, &policy) {
        Ok(_) => (String::new(), String::new()),
        Err(error) => (error.code().to_owned(), error.to_string()),
    }
}

fn issued() -> UnixTime {
    ticket().issued
}

#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn check(&mut self, row: &str, got: (String, String), code: &str, message: &str) {
        if got != (code.to_owned(), message.to_owned()) {
            self.0.push(format!("{row} => {:?}, {:?}", got.0, got.1));
        }
    }
}

impl Wrong {
    fn end(&self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn lengths() {
    let mut wrong = Wrong::default();
    for (length, message) in LENGTHS {
        let mut bytes = good();
        bytes.resize(*length, 7);
        wrong.check(
            &format!("cut to {length}"),
            said(&Case { bytes, now: issued() }, |_| {}),
            "E_TICKET_FORMAT",
            message,
        );
    }
    wrong.end();
}

#[test]
fn fields() {
    let mut wrong = Wrong::default();
    for (offset, bytes, code, message) in RESIGNED {
        let case = Case { bytes: resigned(*offset, bytes), now: issued() };
        wrong.check(&format!("bytes from {offset} {bytes:?}"), said(&case, |_| {}), code, message);
    }
    wrong.end();
}

#[test]
fn times() {
    let mut wrong = Wrong::default();
    for (after, code, message) in TIMES {
        let now = UnixTime::from_secs(issued().as_secs().checked_add_signed(*after).expect("in range"));
        wrong.check(&format!("seconds after {after}"), said(&Case { bytes: good(), now }, |_| {}), code, message);
    }
    wrong.end();
}

#[test]
fn those_of_others() {
    let mut wrong = Wrong::default();
    let case = Case { bytes: good(), now: issued() };
    let banned: &'static [PeerId] = vec![peer(0x11)].leak();
    wrong.check(
        "another content",
        said(&case, |policy| policy.content = ContentId::from_bytes([1; 32])),
        "E_TICKET_CONTENT",
        "ticket for another content, ContentId(c0c0c0c0…)",
    );
    wrong.check(
        "another peer",
        said(&case, |policy| policy.peer = peer(0x12)),
        "E_TICKET_PEER",
        "ticket of peer 1111111111111111, shown by another",
    );
    wrong.check(
        "another banned",
        said(&case, |policy| policy.banned = banned),
        "E_TICKET_BANNED",
        "peer 1111111111111111 is banned",
    );
    wrong.check(
        "another site",
        said(&case, |policy| policy.site = Some(site_code("https://example.org"))),
        "E_TICKET_SITE",
        "ticket issued to another web site",
    );
    wrong.check(
        "another key",
        said(&case, |policy| policy.keys = &[]),
        "E_TICKET_KEY",
        "ticket signed with a key that is none of the server's: fetch the manifest again",
    );
    let bound = Case { bytes: resigned(76, &[4, 1, 2, 3, 4, 5, 6, 7, 8]), now: issued() };
    let network = Some((&[9; 32], IpAddr::from([198, 51, 100, 7])));
    wrong.check(
        "another network",
        said(&bound, |policy| policy.network = network),
        "E_TICKET_NET",
        "ticket issued to another network: join again",
    );
    let late = UnixTime::from_secs(issued().as_secs() + 4_320);
    let away = |policy: &mut TicketPolicy<'_>| {
        *policy = policy.while_away(Some(Duration::from_secs(60)), Duration::from_secs(60));
    };
    wrong.check(
        "another beyond grace",
        said(&Case { bytes: good(), now: late }, away),
        "E_TICKET_EXPIRED",
        "ticket expired 12 minutes ago: ask the server for a new one",
    );
    wrong.end();
}
