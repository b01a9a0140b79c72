//! Between peers: QUIC streams today, data channels and WebTransport streams later.
//!
//! A connection carries one stream of frames each way, opened by the dialler, that starts with [`Hello`].
//! A part is asked for on a stream of its own: [`Request`] out, [`PartReply`] back, and the part's bytes behind
//! [`PartReply::Part`].
//! A part may also be sent unasked on a one-way stream that starts with [`PartReply::Part`].

use crate::control::Bye;
use crate::{PartRanges, PeerCoordinates};
use bytes::Bytes;
use hybrid_manifest::ContentId;

/// A message on a connection's stream of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a message that a program does not handle must not compile")]
pub enum PeerMessage {
    /// First, once, each way.
    Hello(Hello),
    /// Parts gained, and how busy I am.
    Have(Have),
    /// I have nothing to send: ask me.
    Idle,
    /// Asks for proofs of part ids, for when the server is away.
    AskProofs(AskProofs),
    /// The answer: proofs as `docs/spec/manifest.md` encodes them; empty if there are none.
    Proofs(Proofs),
    /// Asks for other peers, for when the server is away.
    AskPeers,
    /// The answer: peers that the sender itself has dialled and is connected to.
    Peers(ToldPeers),
    /// The end, and why.
    Bye(Bye),
}

/// Who I am and what I hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u16,
    /// The content this connection is about.
    pub content: ContentId,
    /// The part length, so that part numbers mean the same to both.
    pub part_len_bytes: u32,
    /// The ticket, as `ticket` encodes it; bound to the key of the TLS handshake.
    pub ticket: Bytes,
    /// The parts that I hold.
    pub has: PartRanges,
    /// Whether I serve parts at all.
    pub uploads: bool,
}

/// Parts gained since the last `Have` or `Hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// The parts.
    pub parts: PartRanges,
    /// Requests waiting at me; 255 for that many or more.
    pub queue: u8,
}

/// Asks for one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which part.
    pub number: u32,
}

/// The answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an answer that a program does not handle must not compile")]
pub enum PartReply {
    /// The part: `length_bytes` raw bytes follow on the stream.
    Part {
        /// Which part.
        number: u32,
        /// How many bytes follow.
        length_bytes: u32,
        /// Requests waiting at me.
        queue: u8,
    },
    /// Not now.
    Busy {
        /// When to ask again.
        retry_in_ms: u32,
        /// Requests waiting at me.
        queue: u8,
    },
    /// I do not hold that part (any more), or do not serve.
    Gone,
}

/// The most parts in one [`AskProofs`]: with 30 hashes each, more than a frame of proofs holds, so asking for more is no use.
pub const ASK_PROOFS_MAX: u32 = 256;

/// Asks for the ids of parts with their proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskProofs {
    /// The first part.
    pub first: u32,
    /// How many, 1 to [`ASK_PROOFS_MAX`].
    pub count: u32,
}

/// The most bytes of proofs in one message: what a frame holds, with room for its head.
pub const PROOFS_BYTES_MAX: usize = 60 << 10;

/// Part ids with their proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs {
    /// One or more encoded proofs, one behind the other; at most [`PROOFS_BYTES_MAX`].
    pub proofs: Bytes,
}

/// The most peers in one [`ToldPeers`]: as many as the server names to a newcomer.
pub const TOLD_PEERS_MAX: usize = 50;

/// Other peers of the same content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldPeers {
    /// Where the sender dialled them; at most [`TOLD_PEERS_MAX`].
    pub peers: Vec<PeerCoordinates>,
}
