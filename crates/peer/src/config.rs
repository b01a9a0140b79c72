//! What an embedder may choose.

use crate::hours::Hours;
use hybrid_manifest::ServerKey;
use hybrid_server_transport::client::TlsTrust;
use hybrid_units::{ByteCount, BytesPerSecond, Ratio};
use hybrid_wire::address::Prefix;
use std::net::SocketAddr;

/// How a peer behaves. [`Default`] serves other peers without a rate limit and dials public addresses only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Name and version of the program, for the server's log. Default: this library's.
    pub program: String,
    /// The UDP address on which peers are taken, port 0 for any. Default `None`: any port of all addresses, IPv6 and IPv4.
    pub listen: Option<SocketAddr>,
    /// Whether other peers are served. Default `true`.
    pub upload: bool,
    /// How fast they are served at most, all together. Default `None`: no limit.
    pub upload_limit: Option<BytesPerSecond>,
    /// How many bytes of parts each download sends at most, from its start to its end. Default `None`: no limit.
    pub upload_volume_max: Option<ByteCount>,
    /// How much each download sends at most for what it got itself, two parts apart. Default `None`: no limit.
    pub upload_ratio_max: Option<Ratio>,
    /// When other peers are served, by this computer's clock and time zone. Default `None`: always.
    pub upload_hours: Option<Hours>,
    /// Whether the user pays for each byte: nobody is served then. [`Download::set_metered`](crate::Download::set_metered)
    /// changes it. Default `false`.
    ///
    /// What is asked for is fetched as before; nothing else ever is.
    pub metered: bool,
    /// Private networks whose addresses may be dialled. Default none: public addresses only.
    ///
    /// The limit of connections with one network does not hold in them, since such a network is often a single one.
    pub allow_peers: Vec<Prefix>,
    /// Whether peers are looked for in a DHT too, while the server is away, and this one is announced there. Default `None`.
    /// Needs the feature `dht`.
    pub dht: Option<DhtConfig>,
    /// What the contents in the cache may take at most. Default `None`: a tenth of what would be free on the file system without
    /// them, at most 4 GiB.
    ///
    /// When a content is opened, the least recently used others are removed until it fits; contents under way stay. One that is
    /// longer than the limit is got all the same, and all others that may go are removed.
    pub cache_limit: Option<ByteCount>,
    /// Whether each part is told of ([`DownloadEvent::Part`](crate::DownloadEvent::Part)). Default `false`: there are thousands.
    pub tell_parts: bool,
    /// Which server certificates are believed. Default: those that the system believes.
    pub tls_trust: TlsTrust,
    /// Which keys may sign manifests. Default: what a server showed first.
    pub server_keys: ServerKeys,
}

/// Which DHT, and how it is entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "there is no other way into a DHT")]
pub struct DhtConfig {
    /// Nodes to begin with, `HOST:PORT` each. Default none: those that clients of BitTorrent's DHT begin with.
    pub nodes: Vec<String>,
}

/// Which keys may sign manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "trust is decided everywhere")]
pub enum ServerKeys {
    /// What a server showed when it was met first; the cache keeps it, and another key later is an error.
    #[default]
    FirstUse,
    /// These, and no others.
    Only(Vec<ServerKey>),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: concat!("hybrid/", env!("CARGO_PKG_VERSION")).to_owned(),
            listen: None,
            upload: true,
            upload_limit: None,
            upload_volume_max: None,
            upload_ratio_max: None,
            upload_hours: None,
            metered: false,
            allow_peers: Vec::new(),
            dht: None,
            cache_limit: None,
            tell_parts: false,
            tls_trust: TlsTrust::Platform,
            server_keys: ServerKeys::FirstUse,
        }
    }
}
