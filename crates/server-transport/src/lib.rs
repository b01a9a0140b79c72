//! HTTP between the server and its clients: the embeddable service, its listener, and its client.
//!
//! This crate knows HTTP and takes no decision.
//! What exists, who may have which part and what is said on a control channel is for the [`Site`]; `hybrid-origin` is one.
//! The calls, headers and error codes are those of `docs/spec/http.md`.
//!
//! - [`Service`] answers requests. It is a `tower` service over `http` types, so it runs under any host:
//!   mounted in a router beside the host's own routes, or under [`serve`].
//! - [`serve`] is a listener with the limits that a server on the open Internet needs: a watchdog for each connection,
//!   bounded headers, a cap on connections, a graceful end.
//! - [`client`] fetches manifests, hashes and parts from such a service and opens control channels.
//!
//! Only `std`, `bytes`, `http`, `http-body`, `tower-service` and the project's own types appear in the public API.

pub mod client;
mod control;
mod sealed;
mod server;
mod service;
mod site;
mod tls;

pub use control::{ChannelError, ControlSender, ControlSocket, SendError, Written};
pub use sealed::{SealedBytes, Sealer};
pub use server::{ServeSummary, ServerConfig, serve};
pub use service::{Body, BodyError, ClientAddress, ContentPath, PathError, Service, ServiceLimits};
pub use site::{ContentInfo, Document, ManifestForm, PartBytes, PartHead, PartVerdict, Site, SiteError};
pub use tls::{Fingerprint, ParseFingerprintError, TlsIdentity, TlsIdentityError};

/// The media type of the binary manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.hybrid.manifest";

/// The media type of part ids with their proofs.
pub const HASHES_MEDIA_TYPE: &str = "application/vnd.hybrid.hashes";

/// The request header that names the client: [`hybrid_wire::SessionToken::to_header`].
pub const SESSION_HEADER: &str = "hybrid-session";

/// The relation of a content to its manifest in a `Link` header.
pub const MANIFEST_RELATION: &str = "hybrid-manifest";
