//! What goes into the coordinator and what comes out: the whole contract with its driver.

use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_qos::{Sample, Verdict};
use hybrid_units::{ByteCount, Duration, Instant, Mode};
use hybrid_wire::control::{Bye, Join, Report, ServerMessage, Uploads, Vouch};
use hybrid_wire::{PeerId, SessionToken, Source};
use std::net::IpAddr;

/// One control channel, numbered by the driver; a number is never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What happened.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum Input {
    /// The time that [`Output::Timeout`] named has come (harmless at any other time).
    Timeout,
    /// The catalogue has a content, new or again.
    ContentAdded {
        /// Which.
        content: ContentId,
        /// How many parts it has.
        part_count: u32,
        /// How long they are.
        part_len: PartLen,
        /// The name of its class ([`Config::classes`](crate::Config::classes)); `None`, or a name that is not there, for the class
        /// of [`Config::qos`](crate::Config::qos).
        class: Option<String>,
    },
    /// The catalogue lost a content: its clients are told good-bye.
    ContentRemoved {
        /// Which.
        content: ContentId,
    },
    /// A client asks to be served.
    Join {
        /// Its control channel.
        client: ClientId,
        /// The address from which it came; the only address of it that is ever given to others.
        observed: IpAddr,
        /// A fresh unpredictable secret, for the client if it is welcome.
        session: SessionToken,
        /// What it said.
        join: Join,
    },
    /// A client reports.
    Report {
        /// Its control channel.
        client: ClientId,
        /// What it said.
        report: Report,
    },
    /// A client says from whom it got parts.
    Vouch {
        /// Its control channel.
        client: ClientId,
        /// What it said.
        vouch: Vouch,
    },
    /// A client begins to serve peers, or ceases to.
    Uploads {
        /// Its control channel.
        client: ClientId,
        /// What it said.
        uploads: Uploads,
    },
    /// A control channel ended.
    Left {
        /// Which.
        client: ClientId,
    },
    /// [`Output::Push`] is written to the socket, or given up.
    PushDone {
        /// To whom.
        client: ClientId,
        /// Which part.
        number: PartNumber,
        /// Whether all of it was written.
        sent: bool,
    },
    /// What the server measured of itself; to be given several times a second.
    Sample(Sample),
    /// How long bytes waited in the server itself before they were sent, the longest since the last time; beside each sample.
    QueueDelay(Duration),
}

/// What the driver must do, or log.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum Output {
    /// Say this to a client.
    Send {
        /// Which.
        client: ClientId,
        /// What.
        message: ServerMessage,
    },
    /// Send a part to a client as a `PartPush`, behind all that was said to it so far; then tell [`Input::PushDone`].
    Push {
        /// To whom.
        client: ClientId,
        /// Of which content.
        content: ContentId,
        /// Which part.
        number: PartNumber,
    },
    /// Say good-bye to a client and end its channel. [`Input::Left`] need not follow.
    Close {
        /// Which.
        client: ClientId,
        /// What to say.
        bye: Bye,
    },
    /// For the log.
    Event(Event),
    /// Nothing more to do before this time or the next [`Input`].
    Timeout(Instant),
}

/// What an operator may want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A newcomer was given its mode.
    Admitted {
        /// The client.
        client: ClientId,
        /// Its key.
        peer: PeerId,
        /// The content it asked for.
        content: ContentId,
        /// The decision with every number that led to it.
        verdict: Verdict,
    },
    /// A client changed its mode while it was served.
    ModeChanged {
        /// The client.
        client: ClientId,
        /// The new mode.
        mode: Mode,
        /// Why.
        reasons: Vec<String>,
    },
    /// A client has the whole content.
    Completed {
        /// The client.
        client: ClientId,
        /// Of which content.
        content: ContentId,
    },
    /// A client said that a peer sent it bytes that are not the part.
    BadPartReported {
        /// Who says so.
        client: ClientId,
        /// Of whom.
        accused: PeerId,
        /// From how many networks that was said of it.
        accusers: u32,
    },
    /// A client broke the protocol and was let go.
    Misbehaved {
        /// The client.
        client: ClientId,
        /// How.
        what: &'static str,
    },
    /// What the server measured of itself makes no sense and was left out.
    SampleRefused {
        /// Why.
        why: String,
    },
    /// What a client says of its service makes no sense, or contradicts what the server counted, and was left out.
    ReportRefused {
        /// The client.
        client: ClientId,
        /// Why.
        why: String,
    },
    /// A client's channel has ended.
    Left {
        /// The client.
        client: ClientId,
        /// Whether it had the whole content.
        complete: bool,
    },
}

/// Whether the server sends a part over HTTP to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle every kind")]
pub enum PartVerdict {
    /// Yes; the bytes count as this.
    Serve(Source),
    /// Not now: peers have it, or the client's share of help is used up.
    Wait {
        /// When to ask again.
        retry_after: Duration,
        /// A stable code for the error document.
        code: &'static str,
        /// For people.
        reason: String,
    },
    /// The secret is not one of a client of this content: join again.
    UnknownSession,
}

/// What a content's swarm looks like, for status pages and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContentStats {
    /// Clients in client/server mode.
    pub direct_clients: u32,
    /// Clients in peer-to-peer mode.
    pub swarm_clients: u32,
    /// Clients that hold all parts.
    pub complete_clients: u32,
    /// Parts that no client holds, as far as that is known: a client's own word counts when somebody got a part from it.
    pub parts_without_holder: u32,
    /// Part bytes that clients reported, by where they came from.
    pub received: Vec<(Source, ByteCount)>,
}
