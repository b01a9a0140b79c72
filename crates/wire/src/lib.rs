//! How server, clients and peers say it: messages, tickets and their codec.

pub mod address;
pub mod codec;
pub mod control;
mod parts;
pub mod peer;
pub mod ticket;
mod types;

pub use codec::{
    DecodeError, Decoded, EncodeError, FrameKind, ValueError, decode_client, decode_peer, decode_reply, decode_request,
    decode_server, encode_client, encode_peer, encode_reply, encode_request, encode_server,
};
pub use parts::{PartRanges, PartRangesError};
pub use types::{PeerCoordinates, PeerId, PeerLimits, SessionToken, Source, UploadContract};

/// The protocol's version, in `Join` and `Hello`; a new one when old programs could misread new messages.
pub const PROTOCOL_VERSION: u16 = 1;

/// The name of the protocol between peers in the TLS handshake (ALPN, RFC 7301); it carries the version.
pub const PEER_ALPN: &[u8] = b"hybrid/1";

/// The longest frame, type and body: 64 KiB, so that a stranger makes a program hold no more than that before it is checked.
/// The largest messages (a report with 8,192 gained and 8,192 lost runs, 60 KiB of proofs) fit.
pub const MAX_FRAME_BYTES: usize = 64 << 10;

/// The longest part, 16 MiB: [`hybrid_manifest::PartLen::MAX`].
pub const MAX_PART_BYTES: u32 = hybrid_manifest::PartLen::MAX.as_u32();

/// The longest message that a server sends on the control channel: a frame with a pushed part behind it.
/// A client's WebSocket takes this much, a server's only [`MAX_CLIENT_MESSAGE_BYTES`].
pub const MAX_CONTROL_MESSAGE_BYTES: usize = 4 + MAX_FRAME_BYTES + MAX_PART_BYTES as usize;

/// The longest message that a client sends on the control channel: one frame.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = 4 + MAX_FRAME_BYTES;
