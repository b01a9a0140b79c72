//! One connection after its two `Hello`s: a handle for the driver, and the tasks that read and write.

use crate::config::Config;
use crate::error::SendError;
use crate::event::{ConnectionId, Event};
use crate::frames::{FrameError, StreamFrames};
use crate::gate::Slot;
use crate::link::Link;
use crate::request::{PushedPart, Responder};
use bytes::Bytes;
use hybrid_manifest::PartNumber;
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::peer::{Hello, PartReply, PeerMessage};
use hybrid_wire::{PeerId, encode_peer};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::trace;

/// A handle on one connection; clones are the same connection.
///
/// Dropping the last one does not end it: [`Connection::close`] does, or the peer, or the idle timeout.
#[derive(Clone)]
pub struct Connection {
    pub(crate) link: Link,
    pub(crate) requests: Arc<Semaphore>,
    id: ConnectionId,
    peer: PeerId,
    outbox: mpsc::Sender<Bytes>,
}

/// Figures of one connection, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// UDP payload bytes sent, retransmissions and headers included.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets that were sent.
    pub sent_packets: u64,
    /// How many of them were lost.
    pub lost_packets: u64,
}

impl Connection {
    /// Its number on this endpoint, never used twice.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose key was shown in the TLS handshake.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's address now.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.link.quic.remote_address())
    }

    /// Queues a message for the stream of frames; returns at once.
    ///
    /// On a connection that the peer opened, the first one must be `Hello`.
    ///
    /// # Errors
    /// When the connection has ended, or too much waits already, which ends it; or when the message is none.
    pub fn send(&self, message: &PeerMessage) -> Result<(), SendError> {
        self.outbox.try_send(encode_peer(message)?).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
            mpsc::error::TrySendError::Full(_) => {
                self.link.fault(ByeCode::Useless);
                SendError::Full
            }
        })
    }

    /// Ends the connection at once, telling the peer why; what was not sent yet is not sent.
    pub fn close(&self, bye: &Bye) {
        self.link.close(bye.code, &bye.reason);
    }

    /// The figures up to now.
    pub fn stats(&self) -> ConnectionStats {
        let stats = self.link.quic.stats();
        ConnectionStats {
            rtt: self.link.quic.rtt(),
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// An IPv4 address that came in on an IPv6 socket, as what it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection whose peer has said `Hello`.
pub(crate) struct Established {
    pub(crate) link: Link,
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    pub(crate) outgoing: bool,
    pub(crate) hello: Hello,
    pub(crate) send: quinn::SendStream,
    pub(crate) frames: StreamFrames,
    pub(crate) slot: Slot,
}

impl Established {
    /// Starts the connection's tasks; gives the handle that the `Connected` event carries too.
    pub(crate) fn start(self, config: &Config, events: mpsc::Sender<Event>) -> Connection {
        let (outbox, queue) = mpsc::channel(config.queued_messages_max);
        let requests = Arc::new(Semaphore::new(config.requests_max));
        let connection = Connection { link: self.link.clone(), requests, id: self.id, peer: self.peer, outbox };
        let connected = Event::Connected {
            connection: connection.clone(),
            outgoing: self.outgoing,
            remote: connection.remote_address(),
            hello: self.hello,
        };
        let streams = Streams { link: self.link, id: self.id, header_deadline: config.header_deadline, events };
        tokio::spawn(streams.run(connected, self.send, self.frames, queue, self.slot));
        connection
    }
}

/// What the tasks of one connection share.
#[derive(Clone)]
struct Streams {
    link: Link,
    id: ConnectionId,
    header_deadline: Duration,
    events: mpsc::Sender<Event>,
}

impl Streams {
    /// Lives as long as the connection. `Connected` is its first event and `Closed` its last.
    async fn run(
        self,
        connected: Event,
        send: quinn::SendStream,
        frames: StreamFrames,
        queue: mpsc::Receiver<Bytes>,
        mut slot: Slot,
    ) {
        slot.established();
        let (id, events, link) = (self.id, self.events.clone(), self.link.clone());
        if events.send(connected).await.is_err() {
            return link.close(ByeCode::Shutdown, "");
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().read_messages(frames));
        tasks.spawn(self.clone().write_messages(send, queue));
        tasks.spawn(self.clone().accept_requests());
        tasks.spawn(self.accept_pushes());
        let error = tokio::select! {
            error = link.quic.closed() => error,
            // Nobody listens any more.
            () = events.closed() => return link.close(ByeCode::Shutdown, ""),
        };
        tasks.shutdown().await;
        drop(slot);
        // Fails only when nobody listens any more.
        drop(events.send(Event::Closed { connection: id, reason: link.reason(&error) }).await);
    }

    async fn read_messages(self, mut frames: StreamFrames) {
        let fault = loop {
            match frames.message().await {
                Ok(Some(PeerMessage::Hello(_))) => break ByeCode::Protocol,
                Ok(Some(message)) => {
                    if self.events.send(Event::Message { connection: self.id, message }).await.is_err() {
                        return;
                    }
                }
                // The stream of frames ends with the connection, never before it.
                Ok(None) | Err(FrameError::Dropped) => break ByeCode::Protocol,
                Err(error) => match error.fault() {
                    Some(fault) => break fault,
                    None => return,
                },
            }
        };
        self.link.fault(fault);
    }

    async fn write_messages(self, mut send: quinn::SendStream, mut queue: mpsc::Receiver<Bytes>) {
        // Messages are small and steer everything else, so they overtake parts.
        let _ = send.set_priority(1);
        while let Some(message) = queue.recv().await {
            if send.write_chunk(message).await.is_err() {
                return;
            }
        }
        // All handles are gone, but the peer may go on: the stream must outlive them.
        self.link.quic.closed().await;
    }

    async fn accept_requests(self) {
        accept(|| self.link.quic.accept_bi(), |(send, recv)| self.clone().take_request(send, recv)).await;
    }

    async fn take_request(self, send: quinn::SendStream, recv: quinn::RecvStream) {
        let mut frames = StreamFrames::new(recv);
        let request = match tokio::time::timeout(self.header_deadline, frames.request()).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return self.fail(error.fault()),
            // A stream without a request is worth nothing to anybody; the peer may open another one.
            Err(_) => return,
        };
        let number = PartNumber::new(request.number);
        // The peer has said all it may on this stream; what else it sends is not read.
        drop(frames);
        let stopped = send.stopped();
        let (responder, answered) = Responder::new(send, number);
        trace!(connection = self.id.0, part = request.number, "asked");
        let event = Event::PartRequested { connection: self.id, number, responder };
        if self.events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            // A stream that we reset never wakes who waits for its stop, so this task must not depend on that.
            _ = answered => {}
            stopped = stopped => if matches!(stopped, Ok(Some(_))) {
                drop(self.events.send(Event::RequestCancelled { connection: self.id, number }).await);
            }
        }
    }

    async fn accept_pushes(self) {
        accept(|| self.link.quic.accept_uni(), |recv| self.clone().take_push(recv)).await;
    }

    async fn take_push(self, recv: quinn::RecvStream) {
        let mut frames = StreamFrames::new(recv);
        let reply = match tokio::time::timeout(self.header_deadline, frames.reply()).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return self.fail(error.fault()),
            Err(_) => return,
        };
        let PartReply::Part { number, length_bytes, .. } = reply else { return self.fail(Some(ByeCode::Protocol)) };
        let part = PushedPart::new(self.link.clone(), frames, PartNumber::new(number), length_bytes);
        drop(self.events.send(Event::PartPushed { connection: self.id, part }).await);
    }

    fn fail(&self, fault: Option<ByeCode>) {
        if let Some(fault) = fault {
            self.link.fault(fault);
        }
    }
}

/// Takes streams until the connection ends, each in a task of its own; QUIC's stream limit bounds their number.
async fn accept<S, A, T>(next: impl Fn() -> A, take: impl Fn(S) -> T)
where
    A: Future<Output = Result<S, quinn::ConnectionError>>,
    T: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = next() => match stream {
                Ok(stream) => drop(tasks.spawn(take(stream))),
                Err(_) => return,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}
