//! What goes wrong for the user of a peer.

use crate::cache::CacheError;
use crate::store;
use hybrid_manifest::{ContentId, ManifestError, PartNumber, ServerKey};
use hybrid_peer_transport::BindError;
use hybrid_server_transport::client::{FetchError, TlsTrustError, UrlError};
use hybrid_wire::control::Bye;
use std::path::PathBuf;

/// Why a peer cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The cache folder cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No UDP socket for peers.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The DHT cannot be entered.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// The system has no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

/// Why peers cannot be looked for in a DHT.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// This build has no DHT.
    #[error("this build knows no DHT: build it with the feature `dht`, or leave the DHT away")]
    NotBuilt,
    /// None of the nodes to begin with is an IPv4 address or a name that has one.
    #[error("no node of the DHT could be found: each is HOST:PORT with an IPv4 address, got {0:?}")]
    Nodes(Vec<String>),
    /// No UDP socket for it.
    #[error("no UDP socket for the DHT")]
    Socket(#[source] std::io::Error),
}

/// Why there is no manifest, or none that can be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// It is no URL that we can fetch.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Trust(#[from] TlsTrustError),
    /// The server did not give its manifest, and the cache has none that still holds.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The manifest is wrong, forged, too old or too new.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The server signs with another key than before.
    #[error("{server} signs with key {got}, which is not the one it showed before")]
    KeyChanged {
        /// The server.
        server: String,
        /// The key that it shows now.
        got: ServerKey,
        /// Where the key that it showed before is kept: who trusts the change removes this file.
        kept_in: PathBuf,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The content's store cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// This peer is getting that content already.
    #[error("content {0:?} is under way already")]
    UnderWay(ContentId),
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

/// Why a download ended without its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server refuses this client for good.
    #[error("the server refuses: {:?} {}", .0.code, .0.reason)]
    Refused(Bye),
    /// The server has no content at this URL any more.
    #[error("the server has nothing at this URL any more ({status})")]
    NotFound {
        /// The HTTP status.
        status: u16,
    },
    /// The server has another content at this URL now.
    #[error("the content at this URL has changed: it is {content} now; start again to get that")]
    Changed {
        /// What is there now, as the server says: its key was not looked at.
        content: ContentId,
    },
    /// The cache cannot be written, and waiting does not help: the disk fails or is read-only, or rights are missing.
    #[error("the cache {} cannot be written: {reason}", folder.display())]
    CacheFailed {
        /// The content's folder in the cache.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It was closed before it was complete.
    #[error("stopped before it was complete: {} parts are missing", missing.len())]
    Stopped {
        /// The parts that are missing, in order.
        missing: Vec<PartNumber>,
    },
}
