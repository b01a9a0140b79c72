//! The client as a library: session, part store and both transports.
//!
//! A [`Peer`] has one key, one cache folder and one UDP socket.
//! [`Peer::get`] starts a [`Download`]: it fetches the manifest, joins at the server, and gets the parts from the server or
//! from other peers, as the server decides; it serves what it has to others, during and after.
//! Every part is verified before it is kept, passed on or written out.
//!
//! It survives being killed: the next start goes on with what the cache holds.
//! It survives the server's absence: with a manifest in the cache and peers that are connected, it goes on.
//!
//! All decisions are `hybrid_session`'s; this crate moves bytes and keeps files.
//!
//! ```no_run
//! use hybrid_peer::{Config, Overwrite, Peer};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let peer = Peer::open("cache".as_ref(), Config::default()).await?;
//! let mut download = peer.get("https://example.org/film.mp4").await?;
//! download.wait().await?;
//! download.export("film.mp4".as_ref(), Overwrite::Refuse).await?;
//! println!("{}", download.progress().held());
//! download.close().await;
//! peer.close().await;
//! # Ok(())
//! # }
//! ```

mod anchors;
mod cache;
mod config;
mod dht;
mod download;
mod driver;
mod error;
mod hours;
mod origin;
mod pause;
mod peer;
mod quota;
pub mod store;

pub use cache::CacheError;
pub use config::{Config, DhtConfig, ServerKeys};
pub use download::{Download, DownloadEvent};
pub use error::{DhtError, DownloadError, GetError, PeerError};
pub use hours::{Hours, ParseHoursError};
pub use hybrid_peer_transport::BindError;
pub use hybrid_server_transport::client::{FetchError, TlsTrust, TlsTrustError, UrlError};
pub use hybrid_server_transport::{Fingerprint, ParseFingerprintError};
pub use hybrid_session::{Progress, UploadsOff};
pub use hybrid_units::{Mode, Ratio};
pub use hybrid_wire::address::{ParsePrefixError, Prefix};
pub use hybrid_wire::control::{Bye, ByeCode};
pub use hybrid_wire::{PeerId, Source};
pub use peer::{Peer, inspect};
pub use store::{ExportError, Overwrite, check_output};
