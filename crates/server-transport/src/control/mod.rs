//! Control channels over WebSocket (RFC 6455): each binary message is one frame of `hybrid_wire`.
//!
//! A task of its own pumps each channel, so that a slow reader or writer holds up nobody else.
//! Both queues are bounded: what comes in waits (the sender feels it through TCP), what goes out is refused when the queue
//! is full, and the caller decides what to do with so slow a client.

mod pump;

pub(crate) use pump::{ClientSide, Outbox, Pump, Side};

use crate::Body;
use bytes::Bytes;
use http::{Request, Response};
use hybrid_wire::control::{Bye, ClientMessage, ServerMessage};
use hyper_util::rt::TokioIo;
use pump::ServerSide;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The times of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlLimits {
    pub(crate) upgrade: Duration,
    pub(crate) silence: Duration,
    pub(crate) write: Duration,
}

/// Why a channel ended without a good-bye.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The connection is gone.
    #[error("the control channel broke: {0}")]
    Broken(String),
    /// The other side said nothing for too long.
    #[error("the other side of the control channel was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side did not take a message in time.
    #[error("the other side of the control channel takes no messages")]
    Stalled,
    /// The other side sent something that is no binary message, or too long a one.
    #[error("the other side of the control channel broke the WebSocket protocol: {0}")]
    WebSocket(String),
    /// The other side sent something that is no message of ours.
    #[error("a message on the control channel cannot be read")]
    Message(#[from] hybrid_wire::DecodeError),
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Too much waits already: the other side is too slow.
    #[error("the control channel's queue is full")]
    Full,
    /// The channel has ended.
    #[error("the control channel has ended")]
    Closed,
    /// The message has no encoding.
    #[error("the message cannot be sent")]
    Encode(#[from] hybrid_wire::EncodeError),
}

/// Completes when a message has gone to the operating system: `true`, or `false` if it never will.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<()>);

impl Future for Written {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Pin::new(&mut self.0).poll(cx).map(|written| written.is_ok())
    }
}

/// The server's end of a control channel. Dropping it, and all its senders, closes the channel in order.
pub struct ControlSocket {
    client: SocketAddr,
    pump: Pump<ServerSide>,
}

/// Sends on a control channel from anywhere, without waiting.
#[derive(Clone)]
pub struct ControlSender(Outbox);

impl ControlSocket {
    /// The address from which the client came, as the listener saw it.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// A sender for this channel.
    pub fn sender(&self) -> ControlSender {
        ControlSender(self.pump.outbox())
    }

    /// The next message of the client; `None` when the channel has ended. An error is the last thing that comes.
    ///
    /// May be dropped and called again without losing a message.
    pub async fn recv(&mut self) -> Option<Result<ClientMessage, ChannelError>> {
        self.pump.recv().await
    }
}

impl ControlSender {
    /// Queues a message.
    ///
    /// # Errors
    /// At once, when the queue is full or the channel has ended.
    pub fn send(&self, message: &ServerMessage) -> Result<Written, SendError> {
        self.0.send(ServerSide::encode(message)?)
    }

    /// Queues a good-bye, and closes the channel when it is written. Where it cannot be queued, the channel is cut.
    pub fn close(&self, bye: Bye) {
        match ServerSide::encode(&ServerMessage::Bye(bye)) {
            Ok(frame) => self.0.close(frame),
            Err(_) => self.0.cut(),
        }
    }

    /// Ends the channel without another word.
    pub fn cut(&self) {
        self.0.cut();
    }
}

impl fmt::Debug for ControlSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSocket").finish_non_exhaustive()
    }
}

impl fmt::Debug for ControlSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSender").finish_non_exhaustive()
    }
}

/// The answer to a WebSocket handshake; `None` if the request is none.
pub(crate) fn accept_handshake<B>(request: &Request<B>) -> Option<Response<Body>> {
    create_response_with_body(request, Body::empty).ok()
}

/// Turns an upgraded connection into a channel.
pub(crate) async fn open(
    on_upgrade: hyper::upgrade::OnUpgrade,
    client: SocketAddr,
    limits: ControlLimits,
) -> Result<ControlSocket, ChannelError> {
    let broken = |error: &dyn fmt::Display| ChannelError::Broken(error.to_string());
    let upgraded = tokio::time::timeout(limits.upgrade, on_upgrade)
        .await
        .map_err(|_| ChannelError::Stalled)?
        .map_err(|error| broken(&error))?;
    let stream =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(ServerSide::config())).await;
    Ok(ControlSocket { client, pump: Pump::start(stream, limits) })
}

/// An encoded message.
type Frame = Bytes;
