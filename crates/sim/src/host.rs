//! One client on the virtual network: its session, its connections, and what it has going on.

use crate::network::TransferId;
use crate::playback::Player;
use crate::queue::{HostId, LinkId, Token};
use hybrid_manifest::PartNumber;
use hybrid_session::Session;
use hybrid_units::{Instant, Mode};
use hybrid_wire::Source;
use std::collections::VecDeque;

/// The other side has no number for the connection yet.
pub(crate) const NO_LINK: LinkId = LinkId::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// We dialled and have no answer.
    Dialling,
    Open,
    Closed,
}

/// One side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) peer: HostId,
    /// How the other side numbers it.
    pub(crate) theirs: LinkId,
    pub(crate) state: LinkState,
    /// Nothing that the other side says comes before this: it was said later.
    pub(crate) in_order: Instant,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) session: Option<Session>,
    /// Counts its sessions; what was meant for an earlier one is dropped.
    pub(crate) incarnation: u32,
    pub(crate) token: Option<Token>,
    pub(crate) links: Vec<Link>,
    /// What the session asked of peers and still waits for.
    pub(crate) asked: Vec<(LinkId, u32)>,
    /// What peers send unasked and the session takes.
    pub(crate) taken: Vec<(LinkId, u32)>,
    /// What it asked of the server and still waits for.
    pub(crate) fetching: Vec<u32>,
    /// What the server pushes to it, one after the other, and whether one is under way.
    pub(crate) pushes: VecDeque<u32>,
    pub(crate) pushing: Option<TransferId>,
    /// When the session wants to be woken.
    pub(crate) wake: Instant,
    /// The earliest event in the queue that will look at `wake`.
    pub(crate) armed: Instant,
    pub(crate) control_in_order: (Instant, Instant),
    /// Uploads that wait for their acknowledgement.
    pub(crate) unacknowledged: u32,

    /// What an earlier session held.
    pub(crate) stored: Vec<PartNumber>,
    pub(crate) record: Record,
}

/// What is known of a client at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// It misbehaves, as the scenario says.
    pub(crate) bad: bool,
    /// It goes before it is complete, for good; or else it has been quicker.
    pub(crate) goes: bool,
    pub(crate) arrived: Option<Instant>,
    pub(crate) first_part: Option<Instant>,
    pub(crate) first_upload: Option<Instant>,
    pub(crate) complete: Option<Instant>,
    pub(crate) mode: Option<Mode>,
    /// From its arrival on, if it plays.
    pub(crate) player: Option<Player>,
    pub(crate) stalls: u32,
    /// Part bytes that were stored, by source in the order of [`Source::ALL`].
    pub(crate) received: [u64; Source::ALL.len()],
    /// Part bytes that came to sessions that have ended, for nothing.
    pub(crate) wasted_before: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            session: None,
            incarnation: 0,
            token: None,
            links: Vec::new(),
            asked: Vec::new(),
            taken: Vec::new(),
            fetching: Vec::new(),
            pushes: VecDeque::new(),
            pushing: None,
            wake: Instant::FAR_FUTURE,
            armed: Instant::FAR_FUTURE,
            control_in_order: (Instant::ZERO, Instant::ZERO),
            unacknowledged: 0,
            stored: Vec::new(),
            record: Record::default(),
        }
    }
}

impl Host {
    pub(crate) fn link(&mut self, peer: HostId, theirs: LinkId, state: LinkState) -> LinkId {
        self.links.push(Link { peer, theirs, state, in_order: Instant::ZERO });
        LinkId::try_from(self.links.len() - 1).expect("fewer connections than 2^32")
    }

    /// The other side of an open connection.
    pub(crate) fn other_side(&self, link: LinkId) -> Option<(HostId, LinkId)> {
        let link = self.links.get(link as usize)?;
        (link.state == LinkState::Open && link.theirs != NO_LINK).then_some((link.peer, link.theirs))
    }

    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        self.links.get(link as usize).is_some_and(|link| link.state == LinkState::Open)
    }

    /// Takes a request off the list; says whether it was on it.
    pub(crate) fn answered(&mut self, link: LinkId, number: u32) -> bool {
        let place = self.asked.iter().position(|asked| *asked == (link, number));
        place.map(|place| self.asked.swap_remove(place)).is_some()
    }

    /// Takes a pushed part off the list of those that the session takes; says whether it was on it.
    pub(crate) fn took(&mut self, link: LinkId, number: u32) -> bool {
        let place = self.taken.iter().position(|taken| *taken == (link, number));
        place.map(|place| self.taken.swap_remove(place)).is_some()
    }

    pub(crate) fn fetched(&mut self, number: u32) -> bool {
        let place = self.fetching.iter().position(|fetching| *fetching == number);
        place.map(|place| self.fetching.swap_remove(place)).is_some()
    }

    /// Bytes that came and were of no use, as its sessions count them.
    pub(crate) fn wasted(&self) -> u64 {
        let now = self.session.as_ref().map_or(0, |session| session.progress().wasted.as_u64());
        self.record.wasted_before + now
    }
}
