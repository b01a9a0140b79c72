//! Why a client did not get what it asked for.

use super::{TlsTrustError, UrlError};
use std::error::Error;
use std::time::Duration;

/// Why a fetch failed. The libraries beneath are not part of it; their words are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Trust(#[from] TlsTrustError),
    /// The server could not be reached.
    #[error("cannot connect to the server: {reason}")]
    Connect {
        /// What the system said.
        reason: String,
    },
    /// The server's certificate is not one that we trust, or it speaks no TLS that we do.
    #[error("the TLS handshake with the server failed: {reason}")]
    Tls {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("waited {} s for {what}", limit.as_secs())]
    Timeout {
        /// For what.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The connection broke, or what came on it was no HTTP.
    #[error("the connection to the server broke: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
    /// The server wants to be asked later: 429 or 503.
    #[error("the server says {status} {code}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code of its error document; empty if it sent none.
        code: String,
        /// Its words.
        detail: String,
        /// When to ask again, at most an hour; `None` if it did not say.
        retry_after: Option<Duration>,
    },
    /// The server says no.
    #[error("the server says {status} {code}: {detail}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The code of its error document; empty if it sent none.
        code: String,
        /// Its words.
        detail: String,
    },
    /// More came than there can be.
    #[error("the server's answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// The most that was to come.
        limit_bytes: u64,
    },
    /// Less came than there must be.
    #[error("the server's answer has {got_bytes} bytes instead of {expected_bytes}")]
    TooShort {
        /// What was to come.
        expected_bytes: u64,
        /// What came.
        got_bytes: u64,
    },
    /// The server is not one of ours.
    #[error("this is no hybrid server: {reason}")]
    NotHybrid {
        /// What is missing.
        reason: String,
    },
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// The server's: it does not keep to the protocol, or says no.
    Server,
    /// Nobody's: the way between.
    Network,
    /// The caller's: what it asked for cannot be had.
    Caller,
}

impl FetchError {
    /// Whether the same question may get another answer later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. } | Self::Refused { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            // A body that is cut short is a broken connection in other words.
            Self::TooShort { .. } => true,
            Self::Url(_) | Self::Trust(_) | Self::Tls { .. } | Self::TooLong { .. } | Self::NotHybrid { .. } => false,
        }
    }

    /// When the server wants to be asked again, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Url(_) | Self::Trust(_) => Blame::Caller,
            Self::Status { status, .. } if *status < 500 => Blame::Caller,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. } => Blame::Network,
            Self::Tls { .. }
            | Self::Refused { .. }
            | Self::Status { .. }
            | Self::TooLong { .. }
            | Self::TooShort { .. }
            | Self::NotHybrid { .. } => Blame::Server,
        }
    }

    pub(super) fn broken(error: &(dyn Error + 'static)) -> Self {
        Self::Broken { reason: innermost(error) }
    }

    pub(super) fn from_client(error: &hyper_util::client::legacy::Error) -> Self {
        if error.is_connect() { Self::from_connect(error) } else { Self::broken(error) }
    }

    /// A failed connection; the connector marks what came of TLS.
    pub(super) fn from_connect(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(tls) => Self::Tls { reason: tls.to_string() },
                    None => Self::Connect { reason: io.to_string() },
                };
            }
            next = error.source();
        }
        Self::Connect { reason: innermost(error) }
    }
}

/// The last cause: the outer ones only say that something failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
