//! The client's end of a control channel.

use super::connect::Connector;
use super::{ClientConfig, FetchError, ServerUrl};
use crate::control::{ChannelError, ClientSide, ControlLimits, Outbox, Pump, SendError, Side, Written};
use hybrid_wire::control::{Bye, ClientMessage, ServerMessage};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;

/// The client's end of a control channel. Dropping it, and all its senders, closes the channel in order.
pub struct ClientControl {
    pump: Pump<ClientSide>,
}

/// Sends on a control channel from anywhere, without waiting.
#[derive(Clone)]
pub struct ClientControlSender(Outbox);

impl ClientControl {
    /// A sender for this channel.
    pub fn sender(&self) -> ClientControlSender {
        ClientControlSender(self.pump.outbox())
    }

    /// Queues a message.
    ///
    /// # Errors
    /// At once, when the queue is full or the channel has ended.
    pub fn send(&self, message: &ClientMessage) -> Result<Written, SendError> {
        self.sender().send(message)
    }

    /// The next message of the server; `None` when the channel has ended. An error is the last thing that comes.
    ///
    /// May be dropped and called again without losing a message.
    pub async fn recv(&mut self) -> Option<Result<ServerMessage, ChannelError>> {
        self.pump.recv().await
    }
}

impl ClientControlSender {
    /// Queues a message.
    ///
    /// # Errors
    /// At once, when the queue is full or the channel has ended.
    pub fn send(&self, message: &ClientMessage) -> Result<Written, SendError> {
        self.0.send(ClientSide::encode(message)?)
    }

    /// Queues a good-bye, and closes the channel when it is written. Where it cannot be queued, the channel is cut.
    pub fn close(&self, bye: Bye) {
        match ClientSide::encode(&ClientMessage::Bye(bye)) {
            Ok(frame) => self.0.close(frame),
            Err(_) => self.0.cut(),
        }
    }

    /// Ends the channel without another word.
    pub fn cut(&self) {
        self.0.cut();
    }

    /// How long the server took to answer the last ping, what waited before it included; `None` before the first answer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.round_trip()
    }
}

impl fmt::Debug for ClientControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientControl").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientControlSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientControlSender").finish_non_exhaustive()
    }
}

pub(super) async fn open(
    connector: &Connector,
    server: &ServerUrl,
    config: &ClientConfig,
) -> Result<ClientControl, FetchError> {
    let stream = connector.connect().await.map_err(|error| FetchError::from_connect(&error))?;
    let url = server.web_socket("/hybrid/v1/control");
    let handshake = client_async_with_config(url, stream, Some(ClientSide::config()));
    let limit = config.answer_limit;
    let (stream, _) = timeout(limit, handshake)
        .await
        .map_err(|_| FetchError::Timeout { what: "the control channel", limit })?
        .map_err(|error| match error {
            Error::Http(response) => match response.status().as_u16() {
                status @ (429 | 503) => FetchError::Refused {
                    status,
                    code: String::new(),
                    detail: "no control channel now".to_owned(),
                    retry_after: None,
                },
                status => FetchError::Status { status, code: String::new(), detail: "no control channel".to_owned() },
            },
            error => FetchError::broken(&error),
        })?;
    let limits =
        ControlLimits { upgrade: limit, silence: config.control_silence_limit, write: config.control_write_limit };
    Ok(ClientControl { pump: Pump::start(stream, limits) })
}
