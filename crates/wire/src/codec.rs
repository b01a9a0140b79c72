//! Messages as bytes, and back: the one module that calls bincode.
//!
//! A frame is a `u32` length in little-endian order, a `u8` type number ([`FrameKind`]), and a body; the length counts the
//! type and the body.
//! Bodies are what bincode 2 makes of them in its standard configuration: little-endian, integers of variable length.
//! `docs/spec/wire.md` gives the bytes of each.
//!
//! Two kinds of channels use frames:
//! - on a WebSocket or a data channel a message is exactly one frame, and behind a [`PartPush`] come the part's raw bytes:
//!   give the whole message to `decode_*`;
//! - on a stream frames follow one another: read [`HEAD_BYTES`], ask [`body_bytes`] how many bytes follow, read those, and
//!   give both together to `decode_*`.
//!
//! What a decoder takes is bounded before it is read: the frame by its kind's ceiling, lists and texts by their caps.
//! No decoder panics, none allocates more than a small multiple of the bytes it was given.

mod body;
mod error;
mod kind;

pub use error::{DecodeError, EncodeError, ValueError};
pub use kind::{CRITICAL_BIT, FrameKind};

use crate::control::{Bye, ClientMessage, PartPush, ServerMessage};
use crate::peer::{PartReply, PeerMessage, Request};
use crate::{MAX_FRAME_BYTES, PROTOCOL_VERSION};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use body::{
    AskProofsBody, BusyBody, ByeBody, DirectiveBody, EmptyBody, HaveBody, HelloBody, JoinBody, PartBody, PartPushBody,
    PeersBody, ProofsBody, ReportBody, RequestBody, UploadsBody, VouchBody, WelcomeBody,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The bytes of a frame before its body: the length and the type.
pub const HEAD_BYTES: usize = 5;

/// The length field alone.
const LENGTH_BYTES: usize = 4;

/// bincode counts a number of variable length as the bytes that it takes in memory, up to eight for one on the wire, so this
/// lets every frame through that its ceiling admits and still refuses claims that no frame could keep.
const BINCODE_LIMIT: usize = 8 * MAX_FRAME_BYTES;

const CONFIG: Configuration<LittleEndian, Varint, Limit<BINCODE_LIMIT>> =
    bincode::config::standard().with_limit::<BINCODE_LIMIT>();

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a frame is either known or not")]
pub enum Decoded<T> {
    /// A message.
    Message(T),
    /// A frame of a later version that may be skipped.
    Unknown {
        /// Its type number.
        number: u8,
    },
}

impl<T> Decoded<T> {
    /// The message, if it is one; frames of later versions are skipped.
    pub fn message(self) -> Option<T> {
        match self {
            Self::Message(message) => Some(message),
            Self::Unknown { .. } => None,
        }
    }
}

// ---- out ----

/// The frame of a client's message.
///
/// Texts that are too long are cut, characters that they must not hold become `?`.
///
/// # Errors
/// When a list is longer, or a number larger, than the server would take.
pub fn encode_client(message: &ClientMessage) -> Result<Bytes, EncodeError> {
    match message {
        ClientMessage::Join(join) => try_frame(FrameKind::Join, JoinBody::try_from(join)),
        ClientMessage::Report(report) => try_frame(FrameKind::Report, ReportBody::try_from(report)),
        ClientMessage::Vouch(vouch) => try_frame(FrameKind::Vouch, VouchBody::try_from(vouch)),
        ClientMessage::Uploads(uploads) => try_frame(FrameKind::Uploads, Ok(UploadsBody { on: uploads.on })),
        ClientMessage::Bye(bye) => Ok(bye_frame(bye)),
    }
}

/// The frame of a server's message, and behind a [`PartPush`] the part's bytes: one WebSocket message.
///
/// Texts that are too long are cut, characters that they must not hold become `?`.
///
/// # Errors
/// When a list is longer, or a number larger, than the client would take.
pub fn encode_server(message: &ServerMessage) -> Result<Bytes, EncodeError> {
    match message {
        ServerMessage::Welcome(welcome) => try_frame(FrameKind::Welcome, WelcomeBody::try_from(welcome)),
        ServerMessage::Directive(directive) => try_frame(FrameKind::Directive, DirectiveBody::try_from(directive)),
        ServerMessage::PartPush(push) => encode_part_push(push),
        ServerMessage::Bye(bye) => Ok(bye_frame(bye)),
    }
}

fn encode_part_push(push: &PartPush) -> Result<Bytes, EncodeError> {
    let kind = FrameKind::PartPush;
    let body = PartPushBody::try_from(push).map_err(|error| EncodeError { kind, error })?;
    Ok(frame(kind, &body, &push.bytes))
}

/// The frame of a message between peers.
///
/// # Errors
/// When a list is longer, or a number larger, than the other peer would take.
pub fn encode_peer(message: &PeerMessage) -> Result<Bytes, EncodeError> {
    match message {
        PeerMessage::Hello(hello) => try_frame(FrameKind::Hello, HelloBody::try_from(hello)),
        PeerMessage::Have(have) => Ok(frame(FrameKind::Have, &HaveBody::from(have), &[])),
        PeerMessage::Idle => Ok(frame(FrameKind::Idle, &EmptyBody, &[])),
        PeerMessage::AskProofs(ask) => try_frame(FrameKind::AskProofs, AskProofsBody::try_from(ask)),
        PeerMessage::Proofs(proofs) => try_frame(FrameKind::Proofs, ProofsBody::try_from(proofs)),
        PeerMessage::AskPeers => Ok(frame(FrameKind::AskPeers, &EmptyBody, &[])),
        PeerMessage::Peers(peers) => try_frame(FrameKind::Peers, PeersBody::try_from(peers)),
        PeerMessage::Bye(bye) => Ok(bye_frame(bye)),
    }
}

/// The frame of a request for a part.
///
/// # Errors
/// When no content has such a part.
pub fn encode_request(request: &Request) -> Result<Bytes, EncodeError> {
    try_frame(FrameKind::Request, RequestBody::try_from(request))
}

/// The frame of an answer to a request; behind [`PartReply::Part`] the caller sends the part's bytes.
///
/// # Errors
/// When no content has such a part, or none of that length.
pub fn encode_reply(reply: &PartReply) -> Result<Bytes, EncodeError> {
    match *reply {
        PartReply::Part { number, length_bytes, queue } => {
            try_frame(FrameKind::Part, PartBody { number, length_bytes, queue }.checked())
        }
        PartReply::Busy { retry_in_ms, queue } => Ok(frame(FrameKind::Busy, &BusyBody { retry_in_ms, queue }, &[])),
        PartReply::Gone => Ok(frame(FrameKind::Gone, &EmptyBody, &[])),
    }
}

fn bye_frame(bye: &Bye) -> Bytes {
    frame(FrameKind::Bye, &ByeBody::from(bye), &[])
}

fn try_frame(kind: FrameKind, body: Result<impl Serialize, ValueError>) -> Result<Bytes, EncodeError> {
    match body {
        Ok(body) => Ok(frame(kind, &body, &[])),
        Err(error) => Err(EncodeError { kind, error }),
    }
}

fn frame(kind: FrameKind, body: &impl Serialize, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(64 + payload.len());
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind.number());
    bincode::serde::encode_into_std_write(body, &mut out, CONFIG)
        .expect("bodies are plain, and memory takes any bytes");
    debug_assert!(out.len() - HEAD_BYTES <= kind.body_bytes_max(), "the caps keep {kind} below its ceiling");
    let length = u32::try_from(out.len() - LENGTH_BYTES).expect("the caps keep every body below the frame limit");
    if let Some(field) = out.first_chunk_mut() {
        *field = length.to_le_bytes();
    }
    out.extend_from_slice(payload);
    out.into()
}

// ---- in ----

/// A client's message, from one whole frame.
///
/// # Errors
/// When the bytes are no frame that a client may send.
pub fn decode_client(bytes: &[u8]) -> Result<Decoded<ClientMessage>, DecodeError> {
    decode(bytes, |kind, body| match kind {
        FrameKind::Join => {
            versioned(kind, body).and_then(|()| message::<JoinBody<'_>, _>(kind, body)).map(ClientMessage::Join)
        }
        FrameKind::Report => message::<ReportBody<'_>, _>(kind, body).map(ClientMessage::Report),
        FrameKind::Vouch => message::<VouchBody, _>(kind, body).map(ClientMessage::Vouch),
        FrameKind::Uploads => message::<UploadsBody, _>(kind, body).map(ClientMessage::Uploads),
        FrameKind::Bye => message::<ByeBody<'_>, _>(kind, body).map(ClientMessage::Bye),
        _ => Err(DecodeError::Misplaced { kind }),
    })
}

/// A server's message, from one whole WebSocket message.
///
/// The bytes of a [`PartPush`] are a slice of `bytes`, not a copy.
///
/// # Errors
/// When the bytes are no message that a server may send.
pub fn decode_server(bytes: &Bytes) -> Result<Decoded<ServerMessage>, DecodeError> {
    let head = Head::read(bytes)?;
    if head.kind == Some(FrameKind::PartPush) {
        return decode_part_push(&head, bytes).map(|push| Decoded::Message(ServerMessage::PartPush(push)));
    }
    decode(bytes, |kind, body| match kind {
        FrameKind::Welcome => message::<WelcomeBody<'_>, _>(kind, body).map(ServerMessage::Welcome),
        FrameKind::Directive => message::<DirectiveBody<'_>, _>(kind, body).map(ServerMessage::Directive),
        FrameKind::Bye => message::<ByeBody<'_>, _>(kind, body).map(ServerMessage::Bye),
        _ => Err(DecodeError::Misplaced { kind }),
    })
}

fn decode_part_push(head: &Head, bytes: &Bytes) -> Result<PartPush, DecodeError> {
    let kind = FrameKind::PartPush;
    let (body, _) = head.split(bytes)?;
    let body: PartPushBody = parse(kind, body)?;
    let body = body.checked().map_err(|error| DecodeError::Value { kind, error })?;
    let part = bytes.slice(head.frame_bytes()..);
    if usize::try_from(body.length_bytes) != Ok(part.len()) {
        return Err(DecodeError::PartBytes { named: body.length_bytes, got: part.len() });
    }
    Ok(PartPush { number: body.number, bytes: part })
}

/// A message between peers, from one whole frame.
///
/// # Errors
/// When the bytes are no frame that a peer may send on the stream of frames.
pub fn decode_peer(bytes: &[u8]) -> Result<Decoded<PeerMessage>, DecodeError> {
    decode(bytes, |kind, body| match kind {
        FrameKind::Hello => {
            versioned(kind, body).and_then(|()| message::<HelloBody<'_>, _>(kind, body)).map(PeerMessage::Hello)
        }
        FrameKind::Have => message::<HaveBody<'_>, _>(kind, body).map(PeerMessage::Have),
        FrameKind::Idle => parse::<EmptyBody>(kind, body).map(|EmptyBody| PeerMessage::Idle),
        FrameKind::AskProofs => message::<AskProofsBody, _>(kind, body).map(PeerMessage::AskProofs),
        FrameKind::Proofs => message::<ProofsBody<'_>, _>(kind, body).map(PeerMessage::Proofs),
        FrameKind::AskPeers => parse::<EmptyBody>(kind, body).map(|EmptyBody| PeerMessage::AskPeers),
        FrameKind::Peers => message::<PeersBody, _>(kind, body).map(PeerMessage::Peers),
        FrameKind::Bye => message::<ByeBody<'_>, _>(kind, body).map(PeerMessage::Bye),
        _ => Err(DecodeError::Misplaced { kind }),
    })
}

/// A request for a part, from one whole frame.
///
/// # Errors
/// When the bytes are no such frame.
pub fn decode_request(bytes: &[u8]) -> Result<Decoded<Request>, DecodeError> {
    decode(bytes, |kind, body| match kind {
        FrameKind::Request => message::<RequestBody, _>(kind, body),
        _ => Err(DecodeError::Misplaced { kind }),
    })
}

/// An answer to a request, from one whole frame; the bytes that follow [`PartReply::Part`] are not part of it.
///
/// # Errors
/// When the bytes are no such frame.
pub fn decode_reply(bytes: &[u8]) -> Result<Decoded<PartReply>, DecodeError> {
    decode(bytes, |kind, body| match kind {
        FrameKind::Part => message::<PartBody, _>(kind, body),
        FrameKind::Busy => parse::<BusyBody>(kind, body).map(PartReply::from),
        FrameKind::Gone => parse::<EmptyBody>(kind, body).map(|EmptyBody| PartReply::Gone),
        _ => Err(DecodeError::Misplaced { kind }),
    })
}

/// A frame's head, once its length is known to be allowed.
struct Head {
    number: u8,
    /// `None` for a kind of a later version that may be skipped.
    kind: Option<FrameKind>,
    body_bytes: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(&[a, b, c, d, number]) = bytes.first_chunk::<HEAD_BYTES>() else {
            return Err(DecodeError::Truncated { got: bytes.len(), expected: HEAD_BYTES });
        };
        let length = u32::from_le_bytes([a, b, c, d]);
        let body_bytes = match usize::try_from(length) {
            Ok(length @ 1..=MAX_FRAME_BYTES) => length - 1,
            _ => return Err(DecodeError::FrameLength { length }),
        };
        let kind = FrameKind::from_number(number);
        match kind {
            None if number & CRITICAL_BIT != 0 => Err(DecodeError::UnknownCritical { number }),
            Some(kind) if body_bytes > kind.body_bytes_max() => Err(DecodeError::BodyLength { kind, got: body_bytes }),
            _ => Ok(Self { number, kind, body_bytes }),
        }
    }

    fn frame_bytes(&self) -> usize {
        HEAD_BYTES + self.body_bytes
    }

    /// The body, and what follows the frame.
    fn split<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        bytes
            .get(HEAD_BYTES..)
            .and_then(|rest| rest.split_at_checked(self.body_bytes))
            .ok_or(DecodeError::Truncated { got: bytes.len(), expected: self.frame_bytes() })
    }
}

fn decode<T>(
    bytes: &[u8],
    message: impl FnOnce(FrameKind, &[u8]) -> Result<T, DecodeError>,
) -> Result<Decoded<T>, DecodeError> {
    let head = Head::read(bytes)?;
    let (body, rest) = head.split(bytes)?;
    let Some(kind) = head.kind else {
        // What follows an unknown frame is unknown as well: a later version's frame may have raw bytes behind it.
        return Ok(Decoded::Unknown { number: head.number });
    };
    let decoded = message(kind, body)?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes { kind, count: rest.len() });
    }
    Ok(Decoded::Message(decoded))
}

/// Reads the version at the front of a `Join` or `Hello`, whose other fields another version may have changed.
fn versioned(kind: FrameKind, body: &[u8]) -> Result<(), DecodeError> {
    match read::<u16>(kind, body)? {
        (PROTOCOL_VERSION, _) => Ok(()),
        (theirs, _) => Err(DecodeError::Version { theirs }),
    }
}

fn message<'a, B, T>(kind: FrameKind, bytes: &'a [u8]) -> Result<T, DecodeError>
where
    B: Deserialize<'a>,
    T: TryFrom<B, Error = ValueError>,
{
    parse::<B>(kind, bytes)?.try_into().map_err(|error| DecodeError::Value { kind, error })
}

/// A body that takes up all of `bytes`.
fn parse<'a, B: Deserialize<'a>>(kind: FrameKind, bytes: &'a [u8]) -> Result<B, DecodeError> {
    let (body, consumed) = read(kind, bytes)?;
    match bytes.len() - consumed {
        0 => Ok(body),
        count => Err(DecodeError::TrailingBytes { kind, count }),
    }
}

fn read<'a, B: Deserialize<'a>>(kind: FrameKind, bytes: &'a [u8]) -> Result<(B, usize), DecodeError> {
    bincode::serde::borrow_decode_from_slice(bytes, CONFIG)
        .map_err(|error| DecodeError::Body { kind, detail: error.to_string() })
}

// ---- streams ----

/// How many bytes of body follow this head on a stream.
///
/// # Errors
/// When the frame's length is not allowed, or its kind is unknown and critical.
pub fn body_bytes(head: &[u8; HEAD_BYTES]) -> Result<usize, DecodeError> {
    Head::read(head).map(|head| head.body_bytes)
}
