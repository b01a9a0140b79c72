//! Parts on streams of their own: asked for, answered, pushed.

use crate::connection::Connection;
use crate::error::RequestError;
use crate::frames::StreamFrames;
use crate::link::Link;
use bytes::{Bytes, BytesMut};
use hybrid_manifest::{PartLen, PartNumber};
use hybrid_units::BytesPerSecond;
use hybrid_wire::control::ByeCode;
use hybrid_wire::peer::{PartReply, Request};
use hybrid_wire::{encode_reply, encode_request};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Close code of a stream that is no longer wanted (RFC 9000 section 19.5). Streams need no other.
const CANCELLED: quinn::VarInt = quinn::VarInt::from_u32(1);

/// A paced part goes out in slices of this size, so that the pace holds within a part.
const SLICE_BYTES: usize = 16 << 10;

/// A buffer never starts larger than this, whatever the part's length; it grows with what comes.
const FIRST_BUFFER_BYTES: usize = 1 << 20;

/// Pieces of a part, one a datagram, that are taken from the connection in one go: as many as the library sends in one go.
const CHUNKS_AT_ONCE: usize = 20;

/// A peer's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an answer that a program does not handle must not compile")]
pub enum PartAnswer {
    /// The bytes, as many as were asked for; not yet verified.
    Part {
        /// The bytes.
        bytes: Bytes,
    },
    /// Not now.
    Busy {
        /// When to ask again.
        retry_in: Duration,
        /// Requests that wait at the peer.
        queue: u8,
    },
    /// The peer does not hold the part, or does not serve.
    Gone,
}

impl Connection {
    /// Asks for a part of this many bytes and waits for it. `begun` hears when the peer begins to send it, and how many
    /// requests wait there.
    ///
    /// Dropping the future cancels the request: the peer stops sending.
    /// There is no deadline here, because how long to wait is a decision.
    ///
    /// # Errors
    /// When the answer does not fit the request, or none comes.
    pub async fn request(
        &self,
        number: PartNumber,
        length_bytes: u32,
        begun: impl FnOnce(u8) + Send,
    ) -> Result<PartAnswer, RequestError> {
        let _permit = self.requests.try_acquire().map_err(|_| RequestError::TooMany)?;
        let frame = encode_request(&Request { number: number.as_u32() })?;
        let (mut send, recv) = self.link.quic.open_bi().await.map_err(|_| RequestError::Closed)?;
        // A request must not wait for a part that goes the same way.
        let _ = send.set_priority(1);
        send.write_all(&frame).await.map_err(|_| RequestError::Dropped)?;
        send.finish().map_err(|_| RequestError::Dropped)?;
        let mut frames = StreamFrames::new(recv);
        match frames.reply().await.map_err(|error| error.in_request(&self.link))? {
            PartReply::Part { number: got_number, length_bytes: got, queue } => {
                begun(queue);
                let expected = (number.as_u32(), length_bytes);
                let bytes = read_part(&self.link, frames, expected, (got_number, got)).await?;
                Ok(PartAnswer::Part { bytes })
            }
            PartReply::Busy { retry_in_ms, queue } => {
                Ok(PartAnswer::Busy { retry_in: Duration::from_millis(retry_in_ms.into()), queue })
            }
            PartReply::Gone => Ok(PartAnswer::Gone),
        }
    }

    /// Sends a part unasked, at most this fast; gives the bytes that went out, and whether the peer has them all.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn push(
        &self,
        number: PartNumber,
        bytes: Bytes,
        pace: Option<BytesPerSecond>,
    ) -> Result<(u64, bool), RequestError> {
        let send = self.link.quic.open_uni().await.map_err(|_| RequestError::Closed)?;
        Ok(Sending { send, sent_bytes: 0, finished: false }.run(number, bytes, 0, pace).await)
    }
}

/// Reads the bytes behind a part's header. Lengths are compared before a byte is buffered.
async fn read_part(
    link: &Link,
    frames: StreamFrames,
    (number, expected): (u32, u32),
    (got_number, got): (u32, u32),
) -> Result<Bytes, RequestError> {
    if (number, expected) != (got_number, got) || expected > PartLen::MAX.as_u32() {
        link.fault(if number == got_number { ByeCode::PartLength } else { ByeCode::WrongPart });
        return Err(RequestError::Length { number, expected, got_number, got });
    }
    let mut stream = frames.into_stream();
    let whole = expected as usize;
    let mut bytes = BytesMut::with_capacity(whole.min(FIRST_BUFFER_BYTES));
    let mut chunks = [const { Bytes::new() }; CHUNKS_AT_ONCE];
    while let Some(count) = stream.read_chunks(&mut chunks).await.map_err(|error| dropped(&error))? {
        // Taken out, since each would keep the whole batch of datagrams in memory that it came with.
        for chunk in chunks.iter_mut().take(count).map(std::mem::take) {
            if chunk.len() > whole - bytes.len() {
                link.fault(ByeCode::PartLength);
                return Err(RequestError::TooLong { expected });
            }
            bytes.extend_from_slice(&chunk);
        }
    }
    if bytes.len() < whole {
        let got = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        return Err(RequestError::Short { expected, got });
    }
    Ok(bytes.freeze())
}

fn dropped(error: &quinn::ReadError) -> RequestError {
    match error {
        quinn::ReadError::ConnectionLost(_) => RequestError::Closed,
        _ => RequestError::Dropped,
    }
}

/// A part that a peer sends unasked; dropped, it refuses the bytes.
#[derive(Debug)]
pub struct PushedPart {
    link: Link,
    frames: StreamFrames,
    number: PartNumber,
    length_bytes: u32,
}

impl PushedPart {
    pub(crate) fn new(link: Link, frames: StreamFrames, number: PartNumber, length_bytes: u32) -> Self {
        Self { link, frames, number, length_bytes }
    }

    /// Which part, as the peer says.
    pub fn number(&self) -> PartNumber {
        self.number
    }

    /// Reads it, if it is as long as the part is.
    ///
    /// # Errors
    /// When it is not, or does not come whole.
    pub async fn receive(self, length_bytes: u32) -> Result<Bytes, RequestError> {
        let number = self.number.as_u32();
        read_part(&self.link, self.frames, (number, length_bytes), (number, self.length_bytes)).await
    }
}

/// Answers one request; dropped, it refuses.
#[derive(Debug)]
pub struct Responder {
    sending: Sending,
    number: PartNumber,
    /// Its end tells the task that watches for a cancellation that there is nothing to watch any more.
    waiting: oneshot::Sender<Infallible>,
}

impl Responder {
    /// A responder, and what ends when it answers or is dropped.
    pub(crate) fn new(send: quinn::SendStream, number: PartNumber) -> (Self, oneshot::Receiver<Infallible>) {
        let (waiting, answered) = oneshot::channel();
        (Self { sending: Sending { send, sent_bytes: 0, finished: false }, number, waiting }, answered)
    }

    /// Sends the part, at most this fast, with the number of requests that wait here.
    ///
    /// Returns when the peer has it all or wants no more, with the bytes that went out: fewer than the part has if it was cut
    /// short.
    pub async fn send_part(self, bytes: Bytes, queue: u8, pace: Option<BytesPerSecond>) -> u64 {
        let Self { sending, number, waiting } = self;
        drop(waiting);
        sending.run(number, bytes, queue, pace).await.0
    }

    /// Answers with `Busy` or `Gone`.
    pub async fn refuse(self, reply: &PartReply) {
        let Self { mut sending, waiting, .. } = self;
        drop(waiting);
        if sending.write_reply(reply).await.is_ok() {
            sending.finish();
        }
    }
}

/// The sending half of a part's stream.
#[derive(Debug)]
struct Sending {
    send: quinn::SendStream,
    sent_bytes: u64,
    finished: bool,
}

impl Sending {
    async fn run(mut self, number: PartNumber, bytes: Bytes, queue: u8, pace: Option<BytesPerSecond>) -> (u64, bool) {
        let mut taken = false;
        let began = Instant::now();
        if self.write(number, bytes, queue, pace).await.is_ok() && self.finish() {
            // What is written only waits in our window. An upload slot is free when the peer has the part, or else a slow
            // uplink would take on any number of parts at once; and not before the pace allows the next one.
            taken = matches!(self.send.stopped().await, Ok(None));
            if let Some(rate) = pace {
                tokio::time::sleep_until(began + rate.time_for(self.sent_bytes)).await;
            }
        }
        (self.sent_bytes, taken)
    }

    fn finish(&mut self) -> bool {
        self.finished = self.send.finish().is_ok();
        self.finished
    }

    async fn write_reply(&mut self, reply: &PartReply) -> Result<(), quinn::WriteError> {
        // A reply that cannot be encoded speaks of no part that any content has: the stream is reset, as for a lost one.
        let frame = encode_reply(reply).map_err(|_| quinn::WriteError::ClosedStream)?;
        self.send.write_chunk(frame).await
    }

    async fn write(
        &mut self,
        number: PartNumber,
        mut bytes: Bytes,
        queue: u8,
        pace: Option<BytesPerSecond>,
    ) -> Result<(), quinn::WriteError> {
        let length_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let header = PartReply::Part { number: number.as_u32(), length_bytes, queue };
        self.write_reply(&header).await?;
        let began = Instant::now();
        while !bytes.is_empty() {
            let mut slice_bytes = bytes.len();
            if let Some(rate) = pace {
                // Counted from the start, so that late wake-ups are made up for.
                self.pause_until(began + rate.time_for(self.sent_bytes)).await?;
                slice_bytes = slice_bytes.min(SLICE_BYTES);
            }
            let mut slice = [bytes.split_to(slice_bytes)];
            while !slice[0].is_empty() {
                self.sent_bytes += self.send.write_chunks(&mut slice).await?.bytes as u64;
            }
        }
        Ok(())
    }

    /// Waits, unless the peer no longer wants the part.
    async fn pause_until(&mut self, due: Instant) -> Result<(), quinn::WriteError> {
        tokio::select! {
            () = tokio::time::sleep_until(due) => Ok(()),
            stopped = self.send.stopped() => Err(match stopped {
                Ok(Some(code)) => quinn::WriteError::Stopped(code),
                _ => quinn::WriteError::ClosedStream,
            }),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Left alone, the library would finish the stream in good order, as if it were whole.
        if !self.finished {
            let _ = self.send.reset(CANCELLED);
        }
    }
}
