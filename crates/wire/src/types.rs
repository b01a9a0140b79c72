//! What several messages speak of.

use hybrid_units::BytesPerSecond;
use std::fmt;
use std::net::SocketAddr;

/// Who a peer is: the BLAKE3 hash of its TLS key (the DER of its SubjectPublicKeyInfo).
///
/// A peer proves it by the TLS handshake; a ticket binds rights to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The peer with this hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PeerId {
    /// 16 hexadecimal digits, enough to name a peer in logs and tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// A secret between the server and one client, with which its HTTP requests name their client.
///
/// It never goes to peers: who had it could use up the client's grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionToken([u8; 16]);

impl SessionToken {
    /// The token with these bytes, which must be unpredictable.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 32 hexadecimal digits, as the `Hybrid-Session` header carries it. (No `Display`, so that it reaches no log by accident.)
    pub fn to_header(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`Self::to_header`] wrote; `None` for anything else.
    pub fn from_header(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// Where a peer can be dialled and who must answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCoordinates {
    /// Whose key must be shown in the TLS handshake.
    pub peer: PeerId,
    /// Address and UDP port. Who dials it asks `address::dialable` first.
    pub address: SocketAddr,
}

/// What a client is willing to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadContract {
    /// Whether it serves peers at all.
    pub upload: bool,
    /// Its uplink limit in bytes per second; `None` when it set none.
    pub rate_limit_bytes_per_second: Option<u64>,
}

impl UploadContract {
    /// The uplink limit as a rate.
    pub fn rate_limit(&self) -> Option<BytesPerSecond> {
        self.rate_limit_bytes_per_second.map(BytesPerSecond::new)
    }
}

/// How much a client may do with peers; the server sets it, the client may do less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Connections to peers, both directions together.
    pub connections_max: u16,
    /// Parts being sent to peers at one time.
    pub uploads_max: u8,
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The server, to a client in client/server mode.
    ServerDirect,
    /// The server, as a grant in peer-to-peer mode: a part that the swarm lacked.
    ServerGrant,
    /// The server, as help: no peer could give the part in time.
    ServerRescue,
    /// A peer.
    Peer,
    /// The client's own store, from before.
    Store,
}

impl Source {
    /// All sources, in the order in which summaries list them.
    pub const ALL: [Self; 5] = [Self::ServerDirect, Self::ServerGrant, Self::ServerRescue, Self::Peer, Self::Store];

    /// The source's number in reports; 0 is none.
    pub const fn to_number(self) -> u8 {
        match self {
            Self::ServerDirect => 1,
            Self::ServerGrant => 2,
            Self::ServerRescue => 3,
            Self::Peer => 4,
            Self::Store => 5,
        }
    }

    /// The source with this number; `None` if this version knows none.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.to_number() == number)
    }

    /// The source's name in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerDirect => "server-direct",
            Self::ServerGrant => "server-grant",
            Self::ServerRescue => "server-rescue",
            Self::Peer => "peer",
            Self::Store => "store",
        }
    }
}
