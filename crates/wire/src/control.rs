//! The control channel between a client and the server: one WebSocket, one frame a message.

use crate::{PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source, UploadContract};
use bytes::Bytes;
use hybrid_manifest::ContentId;
use hybrid_units::Mode;

/// What a client says to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a message that a program does not handle must not compile")]
pub enum ClientMessage {
    /// First, once: what I want, what I have, who I am.
    Join(Join),
    /// Again and again: how far I am and how well it goes.
    Report(Report),
    /// I leave, and why.
    Bye(Bye),
}

/// What the server says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a message that a program does not handle must not compile")]
pub enum ServerMessage {
    /// The answer to `Join`: the mode and all that goes with it.
    Welcome(Welcome),
    /// A change of anything that `Welcome` set.
    Directive(Directive),
    /// A granted part, unasked.
    PartPush(PartPush),
    /// The server ends the channel, and why.
    Bye(Bye),
}

/// A client asks to be served a content.
///
/// It carries no address: the server takes the one that it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// [`crate::PROTOCOL_VERSION`] of the client.
    pub version: u16,
    /// Program and version, for logs: at most 64 bytes.
    pub program: String,
    /// The content.
    pub content: ContentId,
    /// Who the client is to peers.
    pub peer: PeerId,
    /// The UDP port on which it takes QUIC connections from peers; `None` if it takes none.
    pub quic_port: Option<u16>,
    /// The parts that it holds already.
    pub has: PartRanges,
    /// What it wants of the content.
    pub want: Want,
    /// What it is willing to give.
    pub contract: UploadContract,
}

/// In which order a client wants the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(clippy::exhaustive_enums, reason = "a new kind of want must be handled everywhere")]
pub enum Want {
    /// The whole content, in any order.
    Whole,
    /// To play or show from this part on.
    PlayFrom(u32),
    /// Nothing: it holds all and serves others.
    Seed,
}

/// The server's answer to a join: the seed's figure 2, steps 24 to 31.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The decision.
    pub mode: Mode,
    /// Why, for people: the thresholds with their values, one line each.
    pub reasons: Vec<String>,
    /// The secret that names this client in HTTP requests.
    pub session: SessionToken,
    /// The client's ticket for peers, as `ticket` encodes it.
    pub ticket: Bytes,
    /// The server's civil time, seconds since 1970.
    pub server_time_secs: u64,
    /// How long between reports.
    pub report_interval_ms: u32,
    /// Whom to dial.
    pub peers: Vec<PeerCoordinates>,
    /// Parts that the client may fetch from the server at once; pushed ones are not among them.
    pub grants: PartRanges,
    /// How many parts that follow as [`PartPush`] without being asked for.
    pub pushes: u16,
    /// What the client may do with peers.
    pub limits: PeerLimits,
}

/// A change of what [`Welcome`] set; what is `None` or empty stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// The client's new mode, and why.
    pub mode: Option<(Mode, Vec<String>)>,
    /// More peers to dial.
    pub peers: Vec<PeerCoordinates>,
    /// More parts that the client may fetch from the server.
    pub grants: PartRanges,
    /// New limits.
    pub limits: Option<PeerLimits>,
    /// A new interval between reports.
    pub report_interval_ms: Option<u32>,
    /// A new ticket.
    pub ticket: Option<Bytes>,
    /// Peers that must be dropped and not dialled again.
    pub revoked: Vec<PeerId>,
}

/// A granted part, sent without being asked for. The bytes follow the frame in the same WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPush {
    /// Which part.
    pub number: u32,
    /// Its bytes, not yet verified; as long as the manifest says.
    pub bytes: Bytes,
}

/// How far a client is and how well it goes. All counts are since the last report, but for `level`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The part that came last.
    pub last_part: Option<u32>,
    /// How many parts the client holds.
    pub level: u32,
    /// Parts gained since the last report.
    pub gained: PartRanges,
    /// Parts lost since the last report: evicted, or found damaged.
    pub lost: PartRanges,
    /// Verified bytes by source.
    pub received: Vec<(Source, u64)>,
    /// Part bytes sent to peers.
    pub sent_bytes: u64,
    /// Mean download rate over the interval.
    pub download_bytes_per_second: u64,
    /// Round-trip time to the server as the client sees it; `None` before it is known.
    pub rtt_ms: Option<u32>,
    /// From `Join` to the first part; `None` before it came.
    pub start_up_ms: Option<u32>,
    /// Pauses of playback, or of more than two seconds without a byte.
    pub stalls: u32,
    /// Media ahead of the playhead; `None` when nothing is played.
    pub buffer_ms: Option<u32>,
    /// Peers that are connected now.
    pub peers: u16,
    /// Parts that peers refused or failed to send in time, by peer.
    pub refused: Vec<(PeerId, u32)>,
    /// Parts that did not match their id, by peer.
    pub bad: Vec<(PeerId, u32)>,
}

/// The end of a channel, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye {
    /// A stable code; `docs/spec/wire.md` lists them.
    pub code: ByeCode,
    /// For people, at most 100 ASCII characters.
    pub reason: String,
}

/// Why a channel or connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ByeCode {
    /// All is done.
    Done,
    /// The program stops.
    Shutdown,
    /// The server has no such content.
    UnknownContent,
    /// The versions cannot talk.
    Version,
    /// The other side broke the protocol.
    Protocol,
    /// A limit is reached; try later.
    Busy,
    /// The ticket is not valid.
    Ticket,
    /// A part did not match its id.
    BadPart,
    /// Another connection to the same peer is kept.
    Duplicate,
    /// Too slow, or no use for each other.
    Useless,
    /// A code of a later version.
    Other(u16),
}
