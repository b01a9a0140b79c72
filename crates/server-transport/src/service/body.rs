//! The body of an answer.

use crate::{PartBytes, SealedBytes, Site, SiteError};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http_body::{Frame, SizeHint};
use hybrid_manifest::ContentId;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body of an answer: bytes that are there, or a content that is read as the connection takes it.
///
/// Sealed bytes are copied into memory for a host that takes the body as it is; [`crate::serve`] sends their pages.
pub struct Body(Inner);

enum Inner {
    Full(Bytes),
    Sealed(SealedBytes),
    Content { reads: Reads, remaining_bytes: u64 },
}

type Reads = Pin<Box<dyn Stream<Item = Result<Bytes, SiteError>> + Send>>;

/// A content could not be read to its end; the connection is cut, so that no client takes a part of it for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the content could not be read to its end")]
pub struct BodyError(#[source] SiteError);

impl Body {
    /// How much of a content is read at a time: 256 KiB, from where larger reads bring little, and smaller ones cost
    /// more for each byte (8 KiB reads are five to ten times slower).
    pub const READ_BYTES: usize = 256 << 10;

    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(Inner::Full(bytes))
    }

    /// A part in the form that the site gave.
    pub(crate) fn part(bytes: PartBytes) -> Self {
        match bytes {
            PartBytes::Memory(bytes) => Self::full(bytes),
            PartBytes::Sealed(sealed) => Self(Inner::Sealed(sealed)),
        }
    }

    /// The sealed bytes, if that is what the body is; nothing is left of it then.
    pub(crate) fn take_sealed(&mut self) -> Option<SealedBytes> {
        let Inner::Sealed(sealed) = &self.0 else { return None };
        let sealed = sealed.clone();
        *self = Self::empty();
        Some(sealed)
    }

    /// These bytes of a content, paced and counted by the site.
    pub(crate) fn content<S: Site>(site: Arc<S>, content: ContentId, range: Range<u64>) -> Self {
        let remaining_bytes = range.end.saturating_sub(range.start);
        let reads = try_unfold(range, move |range| {
            let site = Arc::clone(&site);
            async move {
                let left = range.end.saturating_sub(range.start);
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(Self::READ_BYTES);
                if length == 0 {
                    return Ok(None);
                }
                let bytes = site.read(content, range.start, length).await?;
                if bytes.is_empty() || bytes.len() > length {
                    return Err(SiteError::Failed);
                }
                let length_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                site.pace(length_bytes).await;
                site.sent(length_bytes);
                Ok(Some((bytes, range.start + length_bytes..range.end)))
            }
        });
        Self(Inner::Content { reads: Box::pin(reads), remaining_bytes })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Sealed(sealed) => {
                let bytes = sealed.to_bytes().map_err(|_| BodyError(SiteError::Failed));
                *self = Self::empty();
                Poll::Ready(Some(bytes.map(Frame::data)))
            }
            Inner::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Content { reads, remaining_bytes } => reads.as_mut().poll_next(cx).map(|next| {
                next.map(|read| {
                    let bytes = read.map_err(BodyError)?;
                    *remaining_bytes = remaining_bytes.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    Ok(Frame::data(bytes))
                })
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Sealed(_) => false,
            Inner::Content { remaining_bytes, .. } => *remaining_bytes == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Inner::Full(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Inner::Sealed(sealed) => u64::try_from(sealed.len()).unwrap_or(u64::MAX),
            Inner::Content { remaining_bytes, .. } => *remaining_bytes,
        })
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes to come)", http_body::Body::size_hint(self).lower())
    }
}
