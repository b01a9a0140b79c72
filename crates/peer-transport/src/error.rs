//! What goes wrong between peers, and the numbers that say so on the wire.

use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::{EncodeError, PeerId};
use std::io;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it, as we were told to.
    Local,
    /// The peer closed it, and why.
    Peer(Bye),
    /// The peer broke the protocol in this way, and we closed it.
    Fault(ByeCode),
    /// Nothing came any more.
    TimedOut,
    /// The peer's process forgot the connection, or broke QUIC or TLS.
    Lost(String),
}

impl CloseReason {
    /// The reason as one of the protocol's codes.
    pub fn code(&self) -> ByeCode {
        match self {
            Self::Local => ByeCode::Done,
            Self::Peer(bye) => bye.code,
            Self::Fault(code) => *code,
            Self::TimedOut | Self::Lost(_) => ByeCode::Shutdown,
        }
    }
}

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot take peers on UDP {address}")]
    Socket {
        /// The address that was asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The key cannot be used for TLS.
    #[error("the peer key cannot be used for TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a dial led to no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The peer is this endpoint.
    #[error("this peer itself")]
    Myself,
    /// [`crate::Config::connections_max`] or its like is reached.
    #[error("too many connections")]
    TooMany,
    /// The address cannot be used, or the endpoint is closed.
    #[error("cannot connect: {0}")]
    Unusable(String),
    /// Somebody else's key was shown.
    #[error("peer {got} answered in place of {expected}")]
    WrongPeer {
        /// Whom we dialled.
        expected: PeerId,
        /// Who answered.
        got: PeerId,
    },
    /// No connection, or no `Hello`, within [`crate::Config::handshake_deadline`].
    #[error("no answer in time")]
    TimedOut,
    /// Our `Hello` is none that a peer would take: the caller's fault.
    #[error(transparent)]
    Invalid(#[from] EncodeError),
    /// Nobody could be talked to there: what answered is no peer, or takes none.
    #[error("no handshake: {0:?}")]
    Handshake(CloseReason),
    /// The peer showed its key, and the connection ended before its `Hello` came.
    #[error("closed before its hello: {0:?}")]
    Closed(CloseReason),
}

impl DialError {
    /// Whether the peer was there: it showed its key, and then did not want the connection.
    pub fn peer_answered(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

/// Why a part that was asked for did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// [`crate::Config::requests_max`] is reached.
    #[error("too many requests on one connection")]
    TooMany,
    /// The answer is about another part, or its length is not the part's. No byte was read.
    #[error("asked for part {number} of {expected} bytes, got part {got_number} of {got} bytes")]
    Length {
        /// The part that was asked for.
        number: u32,
        /// Its length in bytes.
        expected: u32,
        /// The part that was announced.
        got_number: u32,
        /// Its announced length in bytes.
        got: u32,
    },
    /// The part ended early.
    #[error("{got} of {expected} bytes came")]
    Short {
        /// The part's length in bytes.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// More bytes came than the part has; the connection is closed.
    #[error("more than {expected} bytes came")]
    TooLong {
        /// The part's length in bytes.
        expected: u32,
    },
    /// The peer gave up the stream without an answer.
    #[error("the peer dropped the request")]
    Dropped,
    /// The answer is no answer; the connection is closed.
    #[error("the peer broke the protocol: {0:?}")]
    Protocol(ByeCode),
    /// The part number or the length is none that any content has: the caller's fault.
    #[error(transparent)]
    Invalid(#[from] EncodeError),
    /// The connection ended.
    #[error("the connection ended")]
    Closed,
}

impl RequestError {
    /// Whether the peer sent what no honest one sends.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Length { .. } | Self::Short { .. } | Self::TooLong { .. } | Self::Protocol(_))
    }
}

/// Why a message was not taken for sending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection ended.
    #[error("the connection ended")]
    Closed,
    /// [`crate::Config::queued_messages_max`] messages wait: the connection is closed.
    #[error("the peer reads too slowly")]
    Full,
    /// The message is none that a peer would take: the caller's fault.
    #[error(transparent)]
    Message(#[from] EncodeError),
}
