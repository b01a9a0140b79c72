//! What the service asks of whoever has the contents.

use crate::{ContentPath, ControlSocket, SealedBytes};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartId, PartNumber, PartRange};
use hybrid_wire::SessionToken;
use std::future::Future;
use std::time::{Duration, SystemTime};

/// A content as an HTTP client sees it.
#[derive(Clone, Debug)]
pub struct ContentInfo {
    /// Which content; its digits are the entity tag.
    pub content: ContentId,
    /// How long it is.
    pub length_bytes: u64,
    /// For `Content-Type`. Text that is no header value is sent as `application/octet-stream`.
    pub media_type: String,
    /// When it was last changed.
    pub modified: SystemTime,
}

/// Which form of a manifest is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a site must handle every form")]
pub enum ManifestForm {
    /// The signed one, [`crate::MANIFEST_MEDIA_TYPE`].
    Binary,
    /// For people and other tools.
    Json,
}

/// A manifest in one of its forms.
#[derive(Clone, Debug)]
pub struct Document {
    /// The bytes.
    pub bytes: Bytes,
    /// A validator, without quotes: other bytes, another tag. ASCII letters, digits, `-`, `.` and `_` only.
    pub tag: String,
}

/// A part without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// Its hash.
    pub id: PartId,
    /// How long it is.
    pub length_bytes: u32,
}

/// The bytes of a part, as a connection is to send them.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_enums, reason = "a service must send every form")]
pub enum PartBytes {
    /// From memory.
    Memory(Bytes),
    /// From sealed pages, without a copy where the connection can.
    Sealed(SealedBytes),
}

impl PartBytes {
    /// How many they are.
    #[allow(clippy::len_without_is_empty, reason = "no part is empty but that of an empty content")]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Sealed(sealed) => sealed.len(),
        }
    }
}

/// Whether a client may have a part now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new verdict must be answered")]
pub enum PartVerdict {
    /// It may.
    Serve,
    /// Not now: 429 with `Retry-After`.
    Wait {
        /// When to ask again.
        retry_after: Duration,
        /// A stable code for the error document.
        code: &'static str,
        /// For people.
        reason: String,
    },
    /// The session is not one of a client of this content: 401, join again.
    UnknownSession,
}

/// Why a site does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// There is nothing of that name.
    #[error("there is no such content")]
    NotFound,
    /// There is no such part.
    #[error("the content has {part_count} parts")]
    NoSuchPart {
        /// How many it has.
        part_count: u32,
    },
    /// It was there and has changed since.
    #[error("the content has changed; ask for its manifest again")]
    Changed,
    /// It is being prepared.
    #[error("the content is being prepared; ask again in {} s", retry_after.as_secs())]
    Preparing {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Something failed on the server; the site has logged what.
    #[error("the server failed")]
    Failed,
}

/// Contents, and what may be had of them: what a [`crate::Service`] serves.
///
/// All methods are called concurrently, and a future may be dropped at any `await` when its client goes away.
pub trait Site: Send + Sync + 'static {
    /// The content at a path.
    fn resolve(&self, path: &ContentPath) -> impl Future<Output = Result<ContentInfo, SiteError>> + Send;

    /// Bytes of a content from `offset` on: at least one, at most `length_bytes`.
    ///
    /// The service asks for at most [`crate::Body::READ_BYTES`] at a time, and never beyond [`ContentInfo::length_bytes`].
    /// Fewer bytes than asked for are no end: the service asks for the rest.
    fn read(
        &self,
        content: ContentId,
        offset: u64,
        length_bytes: usize,
    ) -> impl Future<Output = Result<Bytes, SiteError>> + Send;

    /// The manifest of the content at a path.
    fn manifest(
        &self,
        path: &ContentPath,
        form: ManifestForm,
    ) -> impl Future<Output = Result<Document, SiteError>> + Send;

    /// A part's id and length.
    ///
    /// # Errors
    /// [`SiteError::NotFound`] or [`SiteError::NoSuchPart`].
    fn part_head(&self, content: ContentId, number: PartNumber) -> Result<PartHead, SiteError>;

    /// Whether a client may have a part that exists. [`PartVerdict::Serve`] is followed by [`Site::part`], if the client
    /// does not go away first.
    fn authorize_part(&self, session: Option<SessionToken>, content: ContentId, number: PartNumber) -> PartVerdict;

    /// The bytes of a part, verified by the site.
    fn part(&self, content: ContentId, number: PartNumber) -> impl Future<Output = Result<Bytes, SiteError>> + Send;

    /// The bytes of a part for a connection in cleartext, which sends sealed ones without copying them.
    ///
    /// By default what [`Site::part`] gives.
    fn part_to_send(
        &self,
        content: ContentId,
        number: PartNumber,
    ) -> impl Future<Output = Result<PartBytes, SiteError>> + Send {
        async move { self.part(content, number).await.map(PartBytes::Memory) }
    }

    /// Part ids with their proofs, as `docs/spec/manifest.md` encodes them, one behind the other.
    ///
    /// # Errors
    /// [`SiteError::NotFound`] or [`SiteError::NoSuchPart`].
    fn hashes(&self, content: ContentId, parts: PartRange) -> Result<Bytes, SiteError>;

    /// Talks with a client on its control channel until one of the two ends it.
    fn control(&self, socket: ControlSocket) -> impl Future<Output = ()> + Send;

    /// Completes when so many more bytes may be sent: the place to hold back for a limit on egress.
    fn pace(&self, bytes: u64) -> impl Future<Output = ()> + Send;

    /// A part that was asked for was ready to be sent after this time, waiting for its turn included. By default nobody cares.
    fn part_served(&self, content: ContentId, took: Duration) {
        let _ = (content, took);
    }

    /// So many bytes of content, manifests or hashes were handed to a connection. Headers and TLS are not counted.
    fn sent(&self, bytes: u64);
}
