//! What an endpoint tells its driver.

use crate::connection::Connection;
use crate::error::CloseReason;
use crate::request::{PushedPart, Responder};
use hybrid_manifest::PartNumber;
use hybrid_wire::peer::{Hello, PeerMessage};
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// One connection of an endpoint; a number is never used twice in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happened. Of one connection, `Connected` comes first and `Closed` last.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum Event {
    /// A connection is up and the peer's `Hello` has come.
    ///
    /// If the peer dialled (`!outgoing`), it waits for ours: `Connection::send` it first.
    Connected {
        /// The handle.
        connection: Connection,
        /// Whether we dialled.
        outgoing: bool,
        /// The peer's address.
        remote: SocketAddr,
        /// What it said first.
        hello: Hello,
    },
    /// A message came.
    Message {
        /// On which connection.
        connection: ConnectionId,
        /// What, never `Hello`.
        message: PeerMessage,
    },
    /// The peer asks for a part.
    PartRequested {
        /// Which peer.
        connection: ConnectionId,
        /// Which part, as the peer says: the content may have no such part.
        number: PartNumber,
        /// To answer it; dropped, it refuses.
        responder: Responder,
    },
    /// The peer no longer wants a part that was not answered yet.
    RequestCancelled {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
    },
    /// The peer sends a part unasked.
    PartPushed {
        /// Which peer.
        connection: ConnectionId,
        /// To read it; dropped, it refuses.
        part: PushedPart,
    },
    /// The connection ended; nothing of it comes any more.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// The events of one endpoint, in order. Dropping it closes the endpoint.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Event>);

impl Events {
    /// The next one; `None` when the endpoint is closed and all are taken. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
