//! Tickets: what a peer shows another peer to be let in, signed by the server and checked without it.
//!
//! A ticket has one encoding, of [`Ticket::BYTES`] bytes, all numbers little-endian:
//!
//! | offset | bytes | field |
//! |---:|---:|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 4 | key id: the first bytes of the BLAKE3 hash of the server's public key |
//! | 5 | 32 | content |
//! | 37 | 32 | peer |
//! | 69 | 4 | issued, seconds since 1970 |
//! | 73 | 2 | time to live in seconds, 1 to 7,200 |
//! | 75 | 1 | roles |
//! | 76 | 1 | net: 0 none, 4 or 6 |
//! | 77 | 8 | prefix code, by which the server knows the network that it issued the ticket to |
//! | 85 | 8 | site: the first bytes of the BLAKE3 hash of the page's origin; 0 for a native peer |
//! | 93 | 64 | Ed25519 signature (RFC 8032) over `hybrid-ticket-v1` and all before |
//!
//! What is signed are the bytes themselves, never a re-encoding of what was read from them.

use crate::PeerId;
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use hybrid_manifest::{ContentId, ServerKey, server_key};
use hybrid_units::{Duration, UnixTime};
use std::fmt;
use std::net::IpAddr;
use std::ops::BitOr;

pub use ed25519_dalek::SigningKey;

/// What stands before a ticket when it is signed, so that no other thing that the server signs can pass for one.
const DOMAIN: &[u8] = b"hybrid-ticket-v1";

const VERSION: u8 = 1;

/// Where the signature starts.
const SIGNED_BYTES: usize = 93;

/// The longest life of a ticket: two hours, after which a revoked peer is out at the latest while the server is there.
pub const TTL_MAX: Duration = Duration::from_secs(7_200);

/// How far the clocks of server and peers may differ: five minutes, as clocks that nobody looks after do.
pub const CLOCK_SLACK: Duration = Duration::from_secs(300);

/// How long the server must be away before expired tickets are accepted at all: one restart is not an outage.
pub const AWAY_MIN: Duration = Duration::from_secs(60);

/// What a peer may be in a swarm: a set of the constants of this type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// Fetches parts, and serves those that it has.
    pub const LEECH: Self = Self(1);
    /// Holds all and serves.
    pub const SEED: Self = Self(2);
    /// Carries connections between peers that cannot reach one another.
    pub const RELAY: Self = Self(4);
    /// Takes part in a live content.
    pub const LIVE: Self = Self(8);

    /// The roles with these bits; `None` when a bit means nothing or the roles contradict each other.
    ///
    /// A peer is either a leech or a seed.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        let either = (bits & Self::LEECH.0 != 0) != (bits & Self::SEED.0 != 0);
        if bits <= 15 && either { Some(Self(bits)) } else { None }
    }

    /// The roles as bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `roles` are among these.
    pub const fn contains(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }
}

impl BitOr for Roles {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(Self::LEECH, "leech"), (Self::SEED, "seed"), (Self::RELAY, "relay"), (Self::LIVE, "live")];
        f.debug_set().entries(all.iter().filter(|(role, _)| self.contains(*role)).map(|(_, name)| name)).finish()
    }
}

/// Which network a ticket was issued to, in a form that only the server can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "there are these and no other networks")]
pub enum Net {
    /// Not told.
    #[default]
    None,
    /// An IPv4 network of 256 addresses, by its [`prefix_mac`].
    V4([u8; 8]),
    /// An IPv6 site (a /48), by its [`prefix_mac`].
    V6([u8; 8]),
}

/// The right of a peer to take part in the swarm of a content for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which of the server's keys signs it ([`key_id`]).
    pub key_id: [u8; 4],
    /// The content.
    pub content: ContentId,
    /// The peer, who must prove that it is it.
    pub peer: PeerId,
    /// When it was issued; before the year 2106.
    pub issued: UnixTime,
    /// How long it holds from then on; whole seconds, at most [`TTL_MAX`].
    pub ttl: Duration,
    /// What the peer may be.
    pub roles: Roles,
    /// Which network it was issued to. Peers do not check it, so that a phone may change networks in the middle of a transfer.
    pub net: Net,
    /// Which web site it was issued to: [`site_code`]; zeros for a native peer.
    pub site: [u8; 8],
}

/// What a ticket is checked against.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TicketPolicy<'a> {
    /// The server's public keys, from the manifest.
    pub keys: &'a [ServerKey],
    /// The content that the swarm is about.
    pub content: ContentId,
    /// Who the other side proved to be.
    pub peer: PeerId,
    /// The civil time.
    pub now: UnixTime,
    /// For how long the server has not answered; `None` while it does, the default.
    pub server_away: Option<Duration>,
    /// For how long expired tickets hold while the server is away; none by default, the manifest says.
    pub grace: Duration,
    /// Peers that are let in no more; none by default.
    pub banned: &'a [PeerId],
    /// The site that the ticket must be for; `None`, the default, takes any.
    pub site: Option<[u8; 8]>,
    /// The server's secret and the address of the other side, for the server itself; `None`, the default, checks no network.
    pub network: Option<(&'a [u8; 32], IpAddr)>,
}

impl<'a> TicketPolicy<'a> {
    /// The policy of a peer while the server is there.
    pub fn new(keys: &'a [ServerKey], content: ContentId, peer: PeerId, now: UnixTime) -> Self {
        Self {
            keys,
            content,
            peer,
            now,
            server_away: None,
            grace: Duration::ZERO,
            banned: &[],
            site: None,
            network: None,
        }
    }

    /// The same while the server has been `away` that long: from [`AWAY_MIN`] on, tickets that expired less than `grace` ago hold.
    ///
    /// The price: a peer that the server would have stopped may stay for that time. It can waste bytes, never spoil content.
    #[must_use]
    pub fn while_away(self, away: Option<Duration>, grace: Duration) -> Self {
        Self { server_away: away, grace, ..self }
    }
}

/// Why a ticket is not accepted; [`TicketError::code`] names the case for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Not the length of a ticket.
    #[error("a ticket of {got} bytes, must be {expected}", expected = Ticket::BYTES)]
    Length {
        /// How many bytes there are.
        got: usize,
    },
    /// A signed field with a value that it must not have: the server's bug.
    #[error("ticket with {field} {number}, which means nothing")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        number: u64,
    },
    /// A ticket of another version.
    #[error("ticket of version {got}, this program knows version {VERSION}")]
    Version {
        /// The ticket's version.
        got: u8,
    },
    /// Signed with a key that the manifest does not name.
    #[error("ticket signed with a key that is none of the server's: fetch the manifest again")]
    UnknownKey {
        /// The ticket's key id.
        key_id: [u8; 4],
    },
    /// The signature does not fit the bytes.
    #[error("ticket with a signature that is not the server's")]
    Signature,
    /// Too old.
    #[error("ticket expired {} ago: ask the server for a new one", rounded(*.ago))]
    Expired {
        /// For how long it has been expired.
        ago: Duration,
    },
    /// Issued in the future.
    #[error("ticket issued {} from now: one of the clocks is wrong", rounded(*.ahead))]
    NotYet {
        /// How far in the future.
        ahead: Duration,
    },
    /// For another content.
    #[error("ticket for another content, {got:?}")]
    Content {
        /// The ticket's content.
        got: ContentId,
    },
    /// For another peer than the one that shows it.
    #[error("ticket of peer {got}, shown by another")]
    Peer {
        /// The ticket's peer.
        got: PeerId,
    },
    /// Issued to another network.
    #[error("ticket issued to another network: join again")]
    Net,
    /// Roles that contradict each other or that this version does not know.
    #[error("ticket with roles {bits:#04x}, which contradict each other or are unknown")]
    Roles {
        /// The ticket's roles.
        bits: u8,
    },
    /// The peer is banned.
    #[error("peer {peer} is banned")]
    Banned {
        /// The peer.
        peer: PeerId,
    },
    /// Issued to another site.
    #[error("ticket issued to another web site")]
    Site,
}

impl TicketError {
    /// The error's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Field { .. } => "E_TICKET_FORMAT",
            Self::Version { .. } => "E_TICKET_VERSION",
            Self::UnknownKey { .. } | Self::Signature => "E_TICKET_KEY",
            Self::Expired { .. } => "E_TICKET_EXPIRED",
            Self::NotYet { .. } => "E_TICKET_NOT_YET",
            Self::Content { .. } => "E_TICKET_CONTENT",
            Self::Peer { .. } => "E_TICKET_PEER",
            Self::Net => "E_TICKET_NET",
            Self::Roles { .. } => "E_TICKET_ROLE",
            Self::Banned { .. } => "E_TICKET_BANNED",
            Self::Site => "E_TICKET_SITE",
        }
    }
}

/// `12 minutes`, for people.
fn rounded(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..120 => format!("{secs} seconds"),
        secs @ 120..7_200 => format!("{} minutes", secs / 60),
        secs => format!("{} hours", secs / 3_600),
    }
}

/// The id of a server's key: the first bytes of its BLAKE3 hash.
pub fn key_id(key: &ServerKey) -> [u8; 4] {
    first_bytes(&blake3::hash(key.as_bytes()))
}

/// The code of a network: keyed BLAKE3 over its prefix, so that only who has the secret learns anything from it.
///
/// The network of an IPv4 address is its /24, that of an IPv6 address its /48.
pub fn prefix_mac(secret: &[u8; 32], address: IpAddr) -> Net {
    let mac = |prefix: &[u8]| first_bytes(&blake3::keyed_hash(secret, prefix));
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Net::V4(mac(&[4, a, b, c]))
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, ..] = address.octets();
            Net::V6(mac(&[6, a, b, c, d, e, f]))
        }
    }
}

/// The code of a web site by its origin, such as `https://example.org`.
pub fn site_code(origin: &str) -> [u8; 8] {
    first_bytes(&blake3::hash(origin.as_bytes()))
}

fn first_bytes<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    *hash.as_bytes().first_chunk().expect("a hash is longer than any code made from it")
}

impl Ticket {
    /// The length of a ticket.
    pub const BYTES: usize = SIGNED_BYTES + Signature::BYTE_SIZE;

    /// A ticket of a native peer that was not bound to a network.
    ///
    /// `ttl` is cut to whole seconds between one and [`TTL_MAX`].
    pub fn issue(
        key: &SigningKey,
        content: ContentId,
        peer: PeerId,
        now: UnixTime,
        ttl: Duration,
        roles: Roles,
    ) -> Self {
        Self {
            key_id: key_id(&server_key(key)),
            content,
            peer,
            issued: now,
            ttl: Duration::from_secs(ttl.as_secs().clamp(1, TTL_MAX.as_secs())),
            roles,
            net: Net::None,
            site: [0; 8],
        }
    }

    /// When it expires.
    pub fn expires(&self) -> UnixTime {
        self.issued + self.ttl
    }

    /// The ticket's bytes, signed.
    ///
    /// The signature is over what the bytes say, so a field out of its range makes a ticket that nobody accepts.
    pub fn sign(&self, key: &SigningKey) -> Bytes {
        let issued = u32::try_from(self.issued.as_secs()).unwrap_or(u32::MAX);
        let ttl = u16::try_from(self.ttl.as_secs()).unwrap_or(u16::MAX);
        let (net, prefix) = match self.net {
            Net::None => (0, [0; 8]),
            Net::V4(mac) => (4, mac),
            Net::V6(mac) => (6, mac),
        };
        let mut out = Vec::with_capacity(DOMAIN.len() + Self::BYTES);
        out.extend_from_slice(DOMAIN);
        out.push(VERSION);
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(self.content.as_bytes());
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(&issued.to_le_bytes());
        out.extend_from_slice(&ttl.to_le_bytes());
        out.push(self.roles.bits());
        out.push(net);
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&self.site);
        let signature = key.sign(&out);
        out.extend_from_slice(&signature.to_bytes());
        Bytes::from(out).slice(DOMAIN.len()..)
    }

    /// Reads a ticket and checks everything about it.
    ///
    /// # Errors
    /// When it is no ticket, not the server's, or not good for this content, this peer and this time.
    pub fn check(bytes: &[u8], policy: &TicketPolicy<'_>) -> Result<Self, TicketError> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| TicketError::Length { got: bytes.len() })?;
        let fields = Fields::read(bytes);
        if fields.version != VERSION {
            return Err(TicketError::Version { got: fields.version });
        }
        fields.verify(policy.keys)?;
        let ticket = fields.ticket()?;
        ticket.check_rights(policy)?;
        ticket.check_time(policy)?;
        Ok(ticket)
    }

    fn check_rights(&self, policy: &TicketPolicy<'_>) -> Result<(), TicketError> {
        if self.content != policy.content {
            return Err(TicketError::Content { got: self.content });
        }
        if self.peer != policy.peer {
            return Err(TicketError::Peer { got: self.peer });
        }
        if policy.banned.contains(&self.peer) {
            return Err(TicketError::Banned { peer: self.peer });
        }
        if policy.site.is_some_and(|site| site != self.site) {
            return Err(TicketError::Site);
        }
        // Not in constant time: the code was signed by who has the secret, so nobody gets to try codes.
        match policy.network {
            Some((secret, address)) if self.net != Net::None && self.net != prefix_mac(secret, address) => {
                Err(TicketError::Net)
            }
            _ => Ok(()),
        }
    }

    fn check_time(&self, policy: &TicketPolicy<'_>) -> Result<(), TicketError> {
        let now = policy.now.as_secs();
        let ahead = self.issued.as_secs().saturating_sub(now);
        if ahead > CLOCK_SLACK.as_secs() {
            return Err(TicketError::NotYet { ahead: Duration::from_secs(ahead) });
        }
        let grace = match policy.server_away {
            Some(away) if away >= AWAY_MIN => policy.grace,
            _ => Duration::ZERO,
        };
        let ago = now.saturating_sub(self.expires().as_secs());
        if ago > CLOCK_SLACK.as_secs().saturating_add(grace.as_secs()) {
            return Err(TicketError::Expired { ago: Duration::from_secs(ago) });
        }
        Ok(())
    }
}

/// A ticket cut into its fields, before anything is believed.
struct Fields<'a> {
    version: u8,
    key_id: [u8; 4],
    content: [u8; 32],
    peer: [u8; 32],
    issued: u32,
    ttl: u16,
    roles: u8,
    net: u8,
    prefix_mac: [u8; 8],
    site: [u8; 8],
    signed: &'a [u8],
    signature: [u8; 64],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8; Ticket::BYTES]) -> Self {
        let mut rest: &[u8] = bytes;
        Self {
            version: u8::from_le_bytes(take(&mut rest)),
            key_id: take(&mut rest),
            content: take(&mut rest),
            peer: take(&mut rest),
            issued: u32::from_le_bytes(take(&mut rest)),
            ttl: u16::from_le_bytes(take(&mut rest)),
            roles: u8::from_le_bytes(take(&mut rest)),
            net: u8::from_le_bytes(take(&mut rest)),
            prefix_mac: take(&mut rest),
            site: take(&mut rest),
            signature: take(&mut rest),
            signed: bytes.first_chunk::<SIGNED_BYTES>().expect("a ticket is longer than what is signed of it"),
        }
    }

    fn verify(&self, keys: &[ServerKey]) -> Result<(), TicketError> {
        let mut named = keys.iter().filter(|key| key_id(key) == self.key_id).peekable();
        if named.peek().is_none() {
            return Err(TicketError::UnknownKey { key_id: self.key_id });
        }
        let message = [DOMAIN, self.signed].concat();
        let signature = Signature::from_bytes(&self.signature);
        // Strict: one signature for one message, and no keys that fit every signature (small order).
        let fits = |key: &ServerKey| {
            VerifyingKey::from_bytes(key.as_bytes()).is_ok_and(|key| key.verify_strict(&message, &signature).is_ok())
        };
        if named.any(fits) { Ok(()) } else { Err(TicketError::Signature) }
    }

    fn ticket(&self) -> Result<Ticket, TicketError> {
        if self.ttl == 0 || u64::from(self.ttl) > TTL_MAX.as_secs() {
            return Err(TicketError::Field { field: "ttl", number: self.ttl.into() });
        }
        Ok(Ticket {
            key_id: self.key_id,
            content: ContentId::from_bytes(self.content),
            peer: PeerId::from_bytes(self.peer),
            issued: UnixTime::from_secs(self.issued.into()),
            ttl: Duration::from_secs(self.ttl.into()),
            roles: Roles::from_bits(self.roles).ok_or(TicketError::Roles { bits: self.roles })?,
            net: match (self.net, self.prefix_mac) {
                (0, [0, 0, 0, 0, 0, 0, 0, 0]) => Net::None,
                (4, mac) => Net::V4(mac),
                (6, mac) => Net::V6(mac),
                (net, _) => return Err(TicketError::Field { field: "net", number: net.into() }),
            },
            site: self.site,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, tail) = rest.split_first_chunk().expect("the fields add up to a ticket's length");
    *rest = tail;
    *field
}
