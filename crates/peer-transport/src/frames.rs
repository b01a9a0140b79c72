//! Frames on a QUIC stream.

use crate::error::RequestError;
use crate::link::Link;
use hybrid_wire::codec::{self, Decoded, HEAD_BYTES};
use hybrid_wire::control::ByeCode;
use hybrid_wire::peer::{PartReply, PeerMessage, Request};
use hybrid_wire::{DecodeError, decode_peer, decode_reply, decode_request};
use quinn::{ReadError, ReadExactError};

/// Frames of later versions that are skipped in a row: one that sends more of them says nothing to us.
const SKIPPED_MAX: u32 = 1_024;

/// Reads the frames at the front of a stream, and no byte behind them.
#[derive(Debug)]
pub(crate) struct StreamFrames {
    stream: quinn::RecvStream,
    frame: Vec<u8>,
}

/// Why there is no frame.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// What came is no frame that may come here.
    Decode(DecodeError),
    /// The stream ended within a frame, or before the one that was due.
    Ended,
    /// The peer gave up the stream.
    Dropped,
    /// The connection ended.
    Closed,
    /// Too many frames in a row that mean nothing here.
    Flood,
}

impl FrameError {
    /// How the peer broke the protocol, if it did.
    pub(crate) fn fault(&self) -> Option<ByeCode> {
        match self {
            Self::Decode(error) => Some(error.bye_code()),
            Self::Ended => Some(ByeCode::FrameSize),
            Self::Flood => Some(ByeCode::TooFast),
            Self::Dropped | Self::Closed => None,
        }
    }

    /// The error of a request whose answer this was; ends the connection when the peer broke the protocol.
    pub(crate) fn in_request(self, link: &Link) -> RequestError {
        match (self.fault(), &self) {
            (Some(code), _) => {
                link.fault(code);
                RequestError::Protocol(code)
            }
            (None, Self::Closed) => RequestError::Closed,
            (None, _) => RequestError::Dropped,
        }
    }
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(_) => Self::Closed,
            _ => Self::Dropped,
        }
    }
}

impl StreamFrames {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, frame: Vec::new() }
    }

    /// What follows the frames that were read.
    pub(crate) fn into_stream(self) -> quinn::RecvStream {
        self.stream
    }

    /// The next message of the stream of frames; `None` where the stream ends between two.
    pub(crate) async fn message(&mut self) -> Result<Option<PeerMessage>, FrameError> {
        self.next(decode_peer).await
    }

    /// The request that a peer's stream starts with.
    pub(crate) async fn request(&mut self) -> Result<Request, FrameError> {
        self.next(decode_request).await?.ok_or(FrameError::Ended)
    }

    /// The answer that a stream brings first.
    pub(crate) async fn reply(&mut self) -> Result<PartReply, FrameError> {
        self.next(decode_reply).await?.ok_or(FrameError::Ended)
    }

    /// Skips frames of later versions, as the specification asks.
    async fn next<T>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<Decoded<T>, DecodeError>,
    ) -> Result<Option<T>, FrameError> {
        for _ in 0..=SKIPPED_MAX {
            if !self.read_frame().await? {
                return Ok(None);
            }
            if let Some(message) = decode(&self.frame).map_err(FrameError::Decode)?.message() {
                return Ok(Some(message));
            }
        }
        Err(FrameError::Flood)
    }

    /// Reads one whole frame; `false` at the stream's end.
    async fn read_frame(&mut self) -> Result<bool, FrameError> {
        let mut head = [0; HEAD_BYTES];
        match self.stream.read_exact(&mut head).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(false),
            Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Ended),
            Err(ReadExactError::ReadError(error)) => return Err(error.into()),
        }
        let body_bytes = codec::body_bytes(&head).map_err(FrameError::Decode)?;
        self.frame.clear();
        self.frame.extend_from_slice(&head);
        self.frame.resize(HEAD_BYTES + body_bytes, 0);
        let body = self.frame.get_mut(HEAD_BYTES..).unwrap_or_default();
        match self.stream.read_exact(body).await {
            Ok(()) => Ok(true),
            Err(ReadExactError::FinishedEarly(_)) => Err(FrameError::Ended),
            Err(ReadExactError::ReadError(error)) => Err(error.into()),
        }
    }
}
