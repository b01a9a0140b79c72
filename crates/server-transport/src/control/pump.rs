//! The task that moves messages between a WebSocket and two bounded queues.

use super::{ChannelError, ControlLimits, Frame, SendError, Written};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hybrid_wire::control::{ClientMessage, ServerMessage};
use hybrid_wire::{DecodeError, EncodeError, MAX_CLIENT_MESSAGE_BYTES, MAX_CONTROL_MESSAGE_BYTES};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Messages that wait to be handled. A client sends one report each 250 ms at most; behind 16, TCP tells it to wait.
const INCOMING_MAX: usize = 16;
/// Messages that wait to be written: directives of a minute in a young swarm.
const OUTGOING_MAX: usize = 256;
/// Bytes that wait to be written, beyond the first message: two of the largest parts.
const OUTGOING_BYTES_MAX: usize = 2 * MAX_CONTROL_MESSAGE_BYTES;
/// The slowest that a message may be written, beyond the limit for small ones: 32 KiB/s, a quarter of the slowest link
/// on which a swarm of parts is of any use.
const WRITE_RATE_MIN: u32 = 32 << 10;
/// How long the other side's close is waited for, so that our last message is not lost in a reset.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Which side of a channel this is.
pub(crate) trait Side: 'static {
    type Incoming: Send + 'static;
    type Outgoing;
    const PINGS_FIRST: bool;

    fn config() -> WebSocketConfig;
    fn encode(message: &Self::Outgoing) -> Result<Frame, EncodeError>;
    /// `None` for a frame of a later version that may be skipped.
    fn decode(bytes: &Bytes) -> Result<Option<Self::Incoming>, DecodeError>;
}

/// The server: takes short messages from many.
pub(crate) struct ServerSide;

impl Side for ServerSide {
    type Incoming = ClientMessage;
    type Outgoing = ServerMessage;
    const PINGS_FIRST: bool = false;

    fn config() -> WebSocketConfig {
        // The usual buffer of 128 KiB for each of thousands of channels would be most of the server's memory.
        WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES))
    }

    fn encode(message: &ServerMessage) -> Result<Frame, EncodeError> {
        hybrid_wire::encode_server(message)
    }

    fn decode(bytes: &Bytes) -> Result<Option<ClientMessage>, DecodeError> {
        hybrid_wire::decode_client(bytes).map(hybrid_wire::Decoded::message)
    }
}

/// The client: takes parts from one server.
pub(crate) struct ClientSide;

impl Side for ClientSide {
    type Incoming = ServerMessage;
    type Outgoing = ClientMessage;
    const PINGS_FIRST: bool = true;

    fn config() -> WebSocketConfig {
        WebSocketConfig::default()
            .write_buffer_size(0)
            .max_message_size(Some(MAX_CONTROL_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_CONTROL_MESSAGE_BYTES))
    }

    fn encode(message: &ClientMessage) -> Result<Frame, EncodeError> {
        hybrid_wire::encode_client(message)
    }

    fn decode(bytes: &Bytes) -> Result<Option<ServerMessage>, DecodeError> {
        hybrid_wire::decode_server(bytes).map(hybrid_wire::Decoded::message)
    }
}

struct Outgoing {
    frame: Frame,
    written: Option<oneshot::Sender<()>>,
    last: bool,
}

/// The queue of what is to be written.
#[derive(Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    cut: Arc<Notify>,
    pings: Arc<Pings>,
}

/// When the other side was pinged, and how long the last answer took.
#[derive(Debug)]
struct Pings {
    began: Instant,
    /// Microseconds; [`UNKNOWN`] before the first answer.
    round_trip: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl Pings {
    fn start() -> Self {
        Self { began: Instant::now(), round_trip: AtomicU64::new(UNKNOWN) }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(UNKNOWN)
    }

    /// What a ping says: when it was sent.
    fn payload(&self) -> Bytes {
        Bytes::copy_from_slice(&self.micros().to_le_bytes())
    }

    /// A pong that repeats no ping of ours says nothing.
    fn answered(&self, payload: &[u8]) {
        let sent = <[u8; 8]>::try_from(payload).map(u64::from_le_bytes);
        if let Some(round_trip) = sent.ok().and_then(|sent| self.micros().checked_sub(sent)) {
            self.round_trip.store(round_trip, Ordering::Relaxed);
        }
    }
}

impl Outbox {
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let micros = self.pings.round_trip.load(Ordering::Relaxed);
        (micros != UNKNOWN).then(|| Duration::from_micros(micros))
    }

    pub(crate) fn send(&self, frame: Frame) -> Result<Written, SendError> {
        let (written, receipt) = oneshot::channel();
        self.queue(Outgoing { frame, written: Some(written), last: false })?;
        Ok(Written(receipt))
    }

    pub(crate) fn close(&self, frame: Frame) {
        if self.queue(Outgoing { frame, written: None, last: true }).is_err() {
            self.cut();
        }
    }

    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    fn queue(&self, message: Outgoing) -> Result<(), SendError> {
        let length = message.frame.len();
        let ahead = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        let queued = if ahead > OUTGOING_BYTES_MAX {
            Err(SendError::Full)
        } else {
            self.queue.try_send(message).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::Closed,
            })
        };
        if queued.is_err() {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        queued
    }
}

/// A channel with its task.
pub(crate) struct Pump<D: Side> {
    incoming: mpsc::Receiver<Result<D::Incoming, ChannelError>>,
    outbox: Outbox,
}

impl<D: Side> Pump<D> {
    pub(crate) fn start<S>(stream: WebSocketStream<S>, limits: ControlLimits) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (deliver, incoming) = mpsc::channel(INCOMING_MAX);
        let (queue, outgoing) = mpsc::channel(OUTGOING_MAX);
        let pings = Arc::new(Pings::start());
        let outbox = Outbox { queue, queued_bytes: Arc::default(), cut: Arc::default(), pings: Arc::clone(&pings) };
        let (queued_bytes, cut) = (Arc::clone(&outbox.queued_bytes), Arc::clone(&outbox.cut));
        tokio::spawn(async move {
            let (sink, source) = stream.split();
            let writer = write::<D, S>(sink, outgoing, &queued_bytes, &pings, limits);
            let reader = read::<D, S>(source, &deliver, &pings, limits.silence);
            tokio::pin!(writer, reader);
            let ended = tokio::select! {
                () = cut.notified() => Ok(()),
                ended = &mut reader => ended,
                ended = &mut writer => {
                    if ended.is_ok() {
                        // What the other side still says counts for nothing, but its close is waited for.
                        drop(timeout(CLOSE_LIMIT, &mut reader).await);
                    }
                    ended
                }
            };
            if let Err(error) = ended {
                // A receiver that does not take its messages is not told the end either.
                drop(deliver.try_send(Err(error)));
            }
        });
        Self { incoming, outbox }
    }

    pub(crate) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    pub(crate) async fn recv(&mut self) -> Option<Result<D::Incoming, ChannelError>> {
        self.incoming.recv().await
    }
}

async fn read<D: Side, S>(
    mut source: SplitStream<WebSocketStream<S>>,
    deliver: &mpsc::Sender<Result<D::Incoming, ChannelError>>,
    pings: &Pings,
    silence: Duration,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let Ok(message) = timeout(silence, source.next()).await else { return Err(ChannelError::Silent(silence)) };
        let bytes = match message {
            None | Some(Ok(Message::Close(_))) | Some(Err(Error::ConnectionClosed)) => return Ok(()),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Pong(payload))) => {
                pings.answered(&payload);
                continue;
            }
            Some(Ok(Message::Ping(_))) => continue,
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                return Err(ChannelError::WebSocket("a message is not binary".to_owned()));
            }
            Some(Err(Error::Io(error))) => return Err(ChannelError::Broken(error.to_string())),
            Some(Err(error)) => return Err(ChannelError::WebSocket(error.to_string())),
        };
        // Nobody listens: what is still said is dropped, for the end of reading would cut off a good-bye that is being written.
        if deliver.is_closed() {
            continue;
        }
        if let Some(message) = D::decode(&bytes)? {
            drop(deliver.send(Ok(message)).await);
        }
    }
}

async fn write<D: Side, S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    queued_bytes: &AtomicUsize,
    pings: &Pings,
    limits: ControlLimits,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Three chances to hear a pong before the other side is given up.
    let ping_interval = limits.silence / 3;
    // A client asks at once, so that its first reports tell how far the server is.
    let first = if D::PINGS_FIRST { Duration::ZERO } else { ping_interval };
    let mut ticks = interval_at(Instant::now() + first, ping_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = outgoing.recv() => message,
            _ = ticks.tick() => {
                put(&mut sink, Message::Ping(pings.payload()), limits.write).await?;
                continue;
            }
        };
        let Some(Outgoing { frame, written, last }) = message else { break };
        let length = frame.len();
        let limit = limits.write + Duration::from_secs(1) * u32::try_from(length).unwrap_or(u32::MAX) / WRITE_RATE_MIN;
        let put = put(&mut sink, Message::Binary(frame), limit).await;
        queued_bytes.fetch_sub(length, Ordering::Relaxed);
        put?;
        if let Some(written) = written {
            let _ = written.send(());
        }
        if last {
            break;
        }
    }
    put(&mut sink, Message::Close(None), limits.write).await
}

async fn put<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    message: Message,
    limit: Duration,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(limit, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => Ok(()),
        Ok(Err(error)) => Err(ChannelError::Broken(error.to_string())),
        Err(_) => Err(ChannelError::Stalled),
    }
}
