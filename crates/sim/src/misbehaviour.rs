//! Clients that do not do what they say.
//!
//! Each has a real session, and what that says and is told is bent on its way.
//! Those who break the protocol itself are no matter of decisions; `tests/src/badpeer.rs` has them, on real sockets.

use crate::Simulation;
use crate::network::Kind;
use crate::queue::{Event, HostId, LinkId, connection, part};
use hybrid_session::{Input, PartFailure, PartSource};
use hybrid_units::{BytesPerSecond, Duration};
use hybrid_wire::PartRanges;
use hybrid_wire::control::{BLAMED_MAX, ClientMessage, Join};
use hybrid_wire::peer::{Hello, PeerMessage};
use rand::RngExt;

/// What bad clients do. A run without them, to compare with, is one with [`Misbehaviour::Absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a scenario is data")]
pub enum Misbehaviour {
    /// They never come: what the others do by themselves.
    Absent,
    /// Say that they hold everything, and send bytes that are not the part.
    Pollute,
    /// Send one wrong part in a hundred, and good ones else.
    PolluteSome,
    /// Send ten good parts to each, and then wrong ones.
    PolluteLater,
    /// Say that they hold everything, and send a byte a second.
    Trickle,
    /// Send 99 % of a part and then nothing more.
    Stall,
    /// Say that they hold everything, and never answer.
    Silent,
    /// Say that they hold everything, and answer each request with `Gone`.
    Deny,
    /// Tell the server that they hold everything, and peers that they hold nothing.
    FakeRarity,
    /// Fetch like others, and never say that they hold anything.
    FreeRide,
    /// Ask everybody for parts all the time, and throw them away.
    RequestFlood,
    /// Fetch from peers, and give up each part when it has begun to come.
    CancelStorm,
    /// Are like others, and say of all others that they sent bad parts.
    Slander,
}

/// How many good parts [`Misbehaviour::PolluteLater`] sends first.
const GOOD_FIRST: u64 = 10;

/// One part in so many is wrong with [`Misbehaviour::PolluteSome`].
const ONE_IN: u32 = 100;

/// Requests that a peer's transport takes at one time on one connection.
const REQUESTS_OPEN: usize = 15;

impl Misbehaviour {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Absent,
        Self::Pollute,
        Self::PolluteSome,
        Self::PolluteLater,
        Self::Trickle,
        Self::Stall,
        Self::Silent,
        Self::Deny,
        Self::FakeRarity,
        Self::FreeRide,
        Self::RequestFlood,
        Self::CancelStorm,
        Self::Slander,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Pollute => "pollute",
            Self::PolluteSome => "pollute-some",
            Self::PolluteLater => "pollute-later",
            Self::Trickle => "trickle",
            Self::Stall => "stall",
            Self::Silent => "silent",
            Self::Deny => "deny",
            Self::FakeRarity => "fake-rarity",
            Self::FreeRide => "free-ride",
            Self::RequestFlood => "request-flood",
            Self::CancelStorm => "cancel-storm",
            Self::Slander => "slander",
        }
    }

    /// Whether it says from the first moment that it has all, and so wants nothing.
    pub(crate) const fn claims_all(self) -> bool {
        !matches!(self, Self::Absent | Self::FreeRide | Self::CancelStorm | Self::Slander)
    }

    /// Whether it tells peers what it says that it holds.
    const fn tells_peers(self) -> bool {
        !matches!(self, Self::FakeRarity | Self::FreeRide | Self::RequestFlood | Self::CancelStorm)
    }
}

/// What one bad client did to one other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Harm {
    /// Part bytes that were of use.
    pub given: u64,
    /// Part bytes that were not: wrong ones, and those of parts that never came whole. What the victim gave up because others
    /// were sooner is not among them.
    pub wasted: u64,
}

impl Simulation {
    pub(crate) fn misbehaviour_of(&self, host: HostId) -> Option<Misbehaviour> {
        self.hosts[host as usize].record.bad.then_some(self.scenario.misbehaviour)
    }

    pub(crate) fn harm(&mut self, bad: HostId, victim: HostId) -> &mut Harm {
        self.harms.entry((bad, victim)).or_default()
    }

    pub(crate) fn bend_hello(&self, host: HostId, mut hello: Hello) -> Hello {
        if self.misbehaviour_of(host).is_some_and(|bad| !bad.tells_peers()) {
            hello.has = PartRanges::default();
        }
        hello
    }

    /// Whether a client keeps this to itself.
    pub(crate) fn withholds(&self, host: HostId, message: &PeerMessage) -> bool {
        matches!(message, PeerMessage::Have(_)) && self.misbehaviour_of(host).is_some_and(|bad| !bad.tells_peers())
    }

    pub(crate) fn bend_control(&self, host: HostId, message: &mut ClientMessage) {
        match (self.misbehaviour_of(host), message) {
            (Some(Misbehaviour::RequestFlood), ClientMessage::Join(Join { has, .. })) => *has = PartRanges::default(),
            (Some(Misbehaviour::Slander), ClientMessage::Report(report)) => {
                let others = self.hosts[host as usize].links.iter().map(|link| link.peer);
                let mut others: Vec<HostId> = others.filter(|other| self.misbehaviour_of(*other).is_none()).collect();
                others.sort_unstable();
                others.dedup();
                report.bad =
                    others.into_iter().take(BLAMED_MAX).map(|other| (crate::simulation::peer_id(other), 1)).collect();
            }
            _ => {}
        }
    }

    /// A request has come to a client that may be bad; says whether it was dealt with here.
    pub(crate) fn bad_request(&mut self, host: HostId, link: LinkId, number: u32) -> bool {
        let Some(bad) = self.misbehaviour_of(host) else { return false };
        let Some((to, theirs)) = self.hosts[host as usize].other_side(link) else { return true };
        let pace = match bad {
            Misbehaviour::Absent | Misbehaviour::Slander => return false,
            Misbehaviour::Silent => return true,
            Misbehaviour::Deny
            | Misbehaviour::FakeRarity
            | Misbehaviour::FreeRide
            | Misbehaviour::RequestFlood
            | Misbehaviour::CancelStorm => {
                self.tell_peer(to, theirs, Event::Gone { to, link: theirs, number });
                return true;
            }
            Misbehaviour::Trickle => Some(BytesPerSecond::new(1)),
            Misbehaviour::Stall | Misbehaviour::Pollute | Misbehaviour::PolluteSome | Misbehaviour::PolluteLater => {
                None
            }
        };
        // It does not queue: all that it was asked for comes at once.
        self.tell_peer(to, theirs, Event::Begun { to, link: theirs, number, queue: 0 });
        let kind = Kind::Peer { from_link: link, to_link: theirs, pushed: false };
        self.begin(host, to, part(number), kind, pace);
        true
    }

    /// Bytes that a client sends of a part of this length.
    pub(crate) fn sends_of(&self, host: HostId, bytes: u32) -> u32 {
        match self.misbehaviour_of(host) {
            Some(Misbehaviour::Stall) => bytes - bytes / 100,
            _ => bytes,
        }
    }

    /// Whether what a bad client sends to somebody now is wrong.
    pub(crate) fn is_wrong(&mut self, from: HostId, to: HostId) -> bool {
        match self.misbehaviour_of(from) {
            Some(Misbehaviour::Pollute) => true,
            Some(Misbehaviour::PolluteSome) => self.rng.random_ratio(1, ONE_IN),
            Some(Misbehaviour::PolluteLater) => {
                let first = GOOD_FIRST * self.scenario.part_len.as_u64();
                self.harm(from, to).given >= first
            }
            _ => false,
        }
    }

    /// A part begins to come to a client that gives up each.
    pub(crate) fn bad_begun(&mut self, host: HostId, link: LinkId, number: u32) -> bool {
        if self.misbehaviour_of(host) != Some(Misbehaviour::CancelStorm) {
            return false;
        }
        self.hosts[host as usize].answered(link, number);
        if let Some((to, theirs)) = self.hosts[host as usize].other_side(link) {
            self.tell_peer(to, theirs, Event::Cancel { to, link: theirs, number, pushed: false });
        }
        let failure = PartFailure::Busy { retry_in: Duration::from_millis(20), queue: 0 };
        self.client(
            host,
            Input::PartFailed { source: PartSource::Peer(connection(link)), number: part(number), failure },
        );
        true
    }

    /// Something came from a peer to a client that may be one that asks and asks.
    pub(crate) fn flood(&mut self, host: HostId, link: LinkId) {
        if self.misbehaviour_of(host) != Some(Misbehaviour::RequestFlood) {
            return;
        }
        let Some((to, theirs)) = self.hosts[host as usize].other_side(link) else { return };
        let asked = self.hosts[host as usize].asked.iter().filter(|(asked, _)| *asked == link).count();
        for _ in asked..REQUESTS_OPEN {
            let number = self.rng.random_range(0..self.scenario.parts);
            self.hosts[host as usize].asked.push((link, number));
            self.tell_peer(to, theirs, Event::Request { to, link: theirs, number });
        }
    }
}
