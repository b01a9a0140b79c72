//! What goes into a session and what comes out: the whole contract with its driver.

use crate::{Anchors, Progress, UploadPause};
use bytes::Bytes;
use hybrid_manifest::{ExpectedPart, PartNumber, PartRange, VerifiedPart, VerifyError};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use hybrid_wire::address::AddressRefused;
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, ServerMessage};
use hybrid_wire::peer::{Hello, PartReply, PeerMessage};
use hybrid_wire::{PeerCoordinates, PeerId, SessionToken, Source};
use std::net::SocketAddr;

/// One connection to a peer, numbered by the driver; a number is never used twice in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Whence a part's bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums, reason = "a new origin of bytes must be handled everywhere")]
pub enum PartSource {
    /// The server, asked by [`Output::FetchPart`].
    Server,
    /// The server, unasked, over the control channel.
    Push,
    /// A peer, asked by [`Output::RequestPart`] or unasked.
    Peer(ConnectionId),
}

/// Why a part that was asked for did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new failure must be handled everywhere")]
pub enum PartFailure {
    /// The peer has others to serve first.
    Busy {
        /// When to ask again.
        retry_in: Duration,
        /// Requests that wait at the peer.
        queue: u8,
    },
    /// The peer does not hold the part, or does not serve.
    Gone,
    /// The server wants to be asked later.
    Refused {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The transport failed; nobody's bytes were wrong.
    Transport,
    /// The sender broke the protocol: a length that the part does not have.
    Misbehaved,
}

/// What happened.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum Input {
    /// The time that [`Output::Timeout`] named has come (harmless at any other time).
    Timeout,
    /// The server could not be reached at the start, and this is what the last run kept: the session turns to those peers.
    Resume(Anchors),
    /// The control channel to the server is open: the session joins.
    ControlOpened,
    /// The server said something; a `PartPush` too.
    ControlMessage(ServerMessage),
    /// The control channel is gone; the driver opens another one when it can.
    ControlClosed,
    /// The answer to [`Output::FetchHashes`]: encoded proofs, one behind the other.
    HashesReceived {
        /// As the server sent them.
        proofs: Bytes,
    },
    /// [`Output::FetchHashes`] brought nothing.
    HashesFailed {
        /// When to ask again; `None` leaves it to the session.
        retry_after: Option<Duration>,
    },
    /// A peer has begun to send a part that was asked of it: the header of its answer is here.
    PartBegun {
        /// Who sends it.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// Requests that wait at the peer, by the header.
        queue: u8,
    },
    /// A part's bytes came. They count for nothing before they are verified.
    PartReceived {
        /// Whence.
        source: PartSource,
        /// Which part they are said to be.
        number: PartNumber,
        /// The bytes.
        bytes: Bytes,
    },
    /// A part that was asked for did not come.
    PartFailed {
        /// Who was asked.
        source: PartSource,
        /// Which part.
        number: PartNumber,
        /// Why.
        failure: PartFailure,
    },
    /// The answer to [`Output::Verify`]: the bytes are the part.
    PartVerified {
        /// Whence they came.
        source: PartSource,
        /// The part.
        part: VerifiedPart,
    },
    /// The answer to [`Output::Verify`]: the bytes are not the part.
    PartRejected {
        /// Whence they came.
        source: PartSource,
        /// Which part they were said to be.
        number: PartNumber,
        /// What is wrong with them.
        error: VerifyError,
    },
    /// The answer to [`Output::Store`]: the part can be read back.
    Stored {
        /// Which part.
        number: PartNumber,
    },
    /// The store could not take a part (disk full, say); it will be fetched again when the driver says [`Input::StoreReady`].
    StoreFailed {
        /// Which part.
        number: PartNumber,
    },
    /// The store takes parts again.
    StoreReady,
    /// The store lost a part that it held: damaged, or evicted.
    StoreLost {
        /// Which part.
        number: PartNumber,
    },
    /// A connection to a peer is up and the peer's `Hello` has come.
    PeerConnected {
        /// The connection.
        connection: ConnectionId,
        /// Whose key was shown in the TLS handshake.
        peer: PeerId,
        /// Whether this side dialled.
        outgoing: bool,
        /// What the peer said first.
        hello: Hello,
    },
    /// A peer could not be reached.
    DialFailed {
        /// Which peer.
        peer: PeerId,
        /// Whether it showed its key all the same, and then did not want the connection: then the address is its own.
        answered: bool,
    },
    /// The answer to [`Output::LookUp`]; it may come in pieces.
    AddressesFound {
        /// Addresses and UDP ports, of whomever.
        addresses: Vec<SocketAddr>,
    },
    /// The answer to [`Output::Identify`].
    Identified {
        /// The address that was asked.
        address: SocketAddr,
        /// Whose key was shown there; `None` if nobody answered.
        peer: Option<PeerId>,
    },
    /// A peer said something.
    PeerMessage {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: PeerMessage,
    },
    /// A connection to a peer ended.
    PeerClosed {
        /// Which.
        connection: ConnectionId,
        /// Why, as far as is known.
        code: ByeCode,
    },
    /// A peer asks for a part.
    PartRequested {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
    },
    /// A peer no longer wants what it asked for.
    RequestCancelled {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
    },
    /// [`Output::ServePart`] ended.
    PartServed {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// Bytes that went out, of a part that was cut short too.
        sent_bytes: u64,
    },
    /// A peer begins to send a part unasked; [`Output::TakePush`] or [`Output::RefusePush`] says what to do with it.
    PartOffered {
        /// Which peer.
        connection: ConnectionId,
        /// Which part, as the peer says: the content may have no such part.
        number: PartNumber,
    },
    /// [`Output::PushPart`] ended.
    PartPushed {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// Bytes that went out, of a part that was refused too.
        sent_bytes: u64,
        /// Whether the peer has it all.
        taken: bool,
    },
    /// The reader of the content moved; it wants the parts from here on first.
    Seek {
        /// The part that is needed next.
        number: PartNumber,
    },
    /// How the play-out of the content goes, told by whoever plays it: at each pause, and whenever the buffer has changed much.
    Playing {
        /// Media ahead of the playhead.
        buffer: Duration,
        /// Whether the player has just run dry: a stall begins.
        ran_dry: bool,
    },
    /// What the transports see of the links, now and then.
    Links {
        /// Round-trip time to the server, if it is known.
        round_trip: Option<Duration>,
        /// Packets that were sent to peers since this was told last.
        sent_packets: u64,
        /// How many of them were lost.
        lost_packets: u64,
    },
    /// Peers are to be served no more, or `None`: as far as the caps of the [`Config`](crate::Config) allow it. What is being
    /// sent is sent to its end.
    PauseUploads(Option<UploadPause>),
    /// The end: say good-bye to everyone.
    Stop,
}

/// What the driver must do, or tell its user.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum Output {
    /// Say this to the server; may be dropped when the channel is closed.
    SendControl(ClientMessage),
    /// Fetch a part from the server over HTTP.
    FetchPart {
        /// Which part.
        number: PartNumber,
        /// How long it is.
        length_bytes: u32,
        /// The secret that names this client.
        session: SessionToken,
    },
    /// Give up a fetch from the server. No [`Input`] about it is expected any more; one that comes is harmless.
    CancelFetch {
        /// Which part.
        number: PartNumber,
    },
    /// Fetch part ids with their proofs from the server.
    FetchHashes {
        /// Which parts.
        range: PartRange,
    },
    /// Check these bytes with [`ExpectedPart::verify`] and tell the result.
    Verify {
        /// Whence they came; goes back with the answer.
        source: PartSource,
        /// What they must be.
        expected: ExpectedPart,
        /// The bytes.
        bytes: Bytes,
    },
    /// Keep this part.
    Store {
        /// The part.
        part: VerifiedPart,
    },
    /// Connect to a peer and say this first.
    Dial {
        /// Whom and where.
        peer: PeerCoordinates,
        /// What to say.
        hello: Hello,
    },
    /// Look for addresses of peers that have this content elsewhere, and tell [`Input::AddressesFound`].
    LookUp,
    /// Say there that this client has parts of it, at the port of [`Config::quic_port`](crate::Config::quic_port).
    Announce,
    /// Find out whose address this is, and tell [`Input::Identified`].
    Identify {
        /// The address.
        address: SocketAddr,
    },
    /// Answer a peer that connected with this `Hello`.
    AcceptPeer {
        /// Which connection.
        connection: ConnectionId,
        /// What to say.
        hello: Hello,
    },
    /// Say this to a peer.
    SendPeer {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: PeerMessage,
    },
    /// End a connection; no [`Input::PeerClosed`] is expected for it.
    ClosePeer {
        /// Which.
        connection: ConnectionId,
        /// What to say.
        bye: Bye,
    },
    /// Ask a peer for a part.
    RequestPart {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// How long it is.
        length_bytes: u32,
    },
    /// Give up a request. No [`Input`] about it is expected any more; one that comes is harmless.
    CancelRequest {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
    },
    /// Send a part that a peer asked for, then tell [`Input::PartServed`].
    ServePart {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// Requests that still wait here, for the reply's header.
        queue: u8,
        /// How fast at most.
        pace: Option<BytesPerSecond>,
    },
    /// Send a part that nobody asked for, then tell [`Input::PartPushed`].
    PushPart {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// How fast at most.
        pace: Option<BytesPerSecond>,
    },
    /// Read a part that a peer offered. What comes of it is told, and it is given up, as if it had been asked for by
    /// [`Output::RequestPart`].
    TakePush {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// How long it is.
        length_bytes: u32,
    },
    /// Tell a peer to stop sending the part that it offered.
    RefusePush {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
    },
    /// Refuse a request: `Busy` or `Gone`, never `Part`.
    RefuseRequest {
        /// Which peer.
        connection: ConnectionId,
        /// Which part.
        number: PartNumber,
        /// What to answer.
        reply: PartReply,
    },
    /// For the user.
    Event(Event),
    /// Nothing more to do before this time or the next [`Input`].
    Timeout(Instant),
}

/// What a user may want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server decided on a mode, and why.
    Mode {
        /// The mode.
        mode: Mode,
        /// The thresholds with their values, one line each.
        reasons: Vec<String>,
    },
    /// A part is in the store.
    PartStored {
        /// Which part.
        number: PartNumber,
        /// Where it came from.
        source: Source,
        /// The peer that sent it, if one did.
        peer: Option<PeerId>,
        /// Connected peers that were known to hold it when it came.
        holders: u32,
        /// How far the content is now.
        progress: Progress,
    },
    /// The whole content is in the store.
    Complete {
        /// The final figures.
        progress: Progress,
    },
    /// A peer is connected.
    PeerJoined {
        /// Which.
        peer: PeerId,
    },
    /// A peer is no longer connected.
    PeerLeft {
        /// Which.
        peer: PeerId,
        /// Why.
        code: ByeCode,
    },
    /// A peer sent bytes that are not the part; it will not be dealt with again.
    PeerBanned {
        /// Which.
        peer: PeerId,
        /// The part it spoiled.
        number: PartNumber,
    },
    /// A peer's address was not dialled.
    AddressRefused {
        /// Which peer.
        peer: PeerId,
        /// By which rule.
        refused: AddressRefused,
    },
    /// The server itself sent bytes that are not the part: a broken server, proxy or cache.
    ServerPartBad {
        /// Which part.
        number: PartNumber,
    },
    /// The server sent part ids that do not fit the manifest.
    ServerHashesBad,
    /// This computer's clock differs from the server's by more than a minute; the server's is used.
    ClockDiffers {
        /// What this computer says, in seconds since 1970.
        ours_secs: u64,
        /// What the server says.
        server_secs: u64,
    },
    /// The server refuses this client for good.
    ServerRefused {
        /// Why.
        bye: Bye,
    },
}
