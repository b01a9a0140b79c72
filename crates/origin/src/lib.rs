//! The content server as a library: a folder, the coordinator and the HTTP service joined.
//!
//! An [`Origin`] serves the files beneath a folder.
//! It prepares each (cuts it into parts and hashes them) on first use and in the background, keeps recently used parts in
//! memory, answers HTTP through [`Origin::service`], and drives a coordinator that decides for each client who serves it.
//! It decides nothing itself.
//!
//! [`Origin::serve`] runs a listener of our own; to serve from a host's instead, mount the service there
//! (`examples/embed_axum.rs`).
//!
//! ```no_run
//! use hybrid_origin::{Config, Origin, ServerConfig, StateFolder};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = StateFolder::open("state".as_ref())?.identity()?;
//! let origin = Origin::open("public".as_ref(), identity, Config::default())?;
//! let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
//! let shutdown = std::future::pending(); // Or a signal.
//! origin.serve(vec![listener], ServerConfig::default(), shutdown).await?;
//! # Ok(())
//! # }
//! ```

mod cache;
mod catalogue;
mod config;
mod driver;
mod folder;
mod load;
mod origin;
mod prepare;
mod state;

pub use catalogue::media_type;
pub use config::{ClassConfig, Config};
pub use folder::{FileProblem, FolderError};
pub use hybrid_coordinator::EgressPolicy;
pub use hybrid_coordinator::{
    ClientStatus, Config as CoordinatorConfig, ContentStats, ContentStatus, Event, Recorded, Survival,
};
pub use hybrid_manifest::ContentId;
pub use hybrid_qos::{Class, ClassError, Classes, DirectClients, PartPolicy, Rule};
pub use hybrid_server_transport::{
    ClientAddress, ContentPath, Fingerprint, ServeSummary, ServerConfig, Service, TlsIdentity, TlsIdentityError,
};
pub use hybrid_wire::PeerId;
pub use hybrid_wire::address::{AddressPolicy, ParsePrefixError, Prefix};
pub use origin::{OpenError, Origin};
pub use prepare::{PrepareFileError, prepare_file};
pub use state::{Identity, StateError, StateFolder};
