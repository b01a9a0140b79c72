//! How server, clients and peers say it: messages, tickets and their codec.
//!
//! - [`control`]: what a client and the server say on the control channel;
//! - [`peer`]: what peers say to each other, and how a part is asked for;
//! - [`codec`]: all of that as bytes, with limits on what is taken;
//! - [`ticket`]: the right to take part in a swarm, signed by the server and checked by peers without it;
//! - [`address`]: which addresses may be dialled because a message named them.
//!
//! The bytes are specified in `docs/spec/wire.md`, with vectors that the tests read.
//!
//! This crate opens no connection, reads no clock and decides nothing: what to say is up to `coordinator` and `session`, how
//! bytes travel is up to the transports.
//! Nothing that a remote sends makes it panic, and each error of decoding knows the code to end the channel with.
//!
//! ```
//! use hybrid_manifest::{ContentId, SigningKey, server_key};
//! use hybrid_units::{Duration, UnixTime};
//! use hybrid_wire::peer::{Hello, PeerMessage};
//! use hybrid_wire::ticket::{Roles, Ticket, TicketPolicy};
//! use hybrid_wire::{Decoded, PROTOCOL_VERSION, PartRanges, PeerId, decode_peer, encode_peer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The server lets a peer in for half an hour.
//! let key = SigningKey::from_bytes(&[1; 32]);
//! let (content, peer) = (ContentId::from_bytes([2; 32]), PeerId::from_bytes([3; 32]));
//! let now = UnixTime::from_secs(1_800_000_000);
//! let ticket = Ticket::issue(&key, content, peer, now, Duration::from_secs(1_800), Roles::LEECH);
//!
//! // The peer shows its ticket to another one.
//! let hello = Hello {
//!     version: PROTOCOL_VERSION,
//!     content,
//!     part_len_bytes: 131_072,
//!     ticket: ticket.sign(&key),
//!     has: PartRanges::empty(),
//!     uploads: true,
//! };
//! let frame = encode_peer(&PeerMessage::Hello(hello))?;
//!
//! // Which reads it, and checks the ticket with what the manifest and the TLS handshake say.
//! let Decoded::Message(PeerMessage::Hello(hello)) = decode_peer(&frame)? else { panic!("a hello was sent") };
//! let keys = [server_key(&key)];
//! let checked = Ticket::check(&hello.ticket, &TicketPolicy::new(&keys, content, peer, now))?;
//! assert_eq!(checked, ticket);
//!
//! // What is no frame is an error that says how to end the connection.
//! let error = decode_peer(b"GET / HTTP/1.1\r\n").expect_err("not a frame");
//! assert_eq!(error.bye_code().to_u16(), 0x14);
//! # Ok(())
//! # }
//! ```

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
