//! What will happen, in order of time.
//!
//! Most events are messages that take one and the same delay, so they come out in the order in which they went in: plain
//! queues hold those, and a heap the others.
//! Events of one moment come in the order in which they were put in, so a run has one order only.

use hybrid_manifest::PartNumber;
use hybrid_session::ConnectionId;
use hybrid_units::{Duration, Instant};
use hybrid_wire::SessionToken;
use hybrid_wire::control::{ByeCode, ClientMessage, ServerMessage};
use hybrid_wire::peer::{Hello, PeerMessage};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// A host by its number; [`crate::network::SERVER`] is the server.
pub(crate) type HostId = u32;

/// A connection as its own side numbers it: the place in the host's table of links.
pub(crate) type LinkId = u32;

/// What happens. Small, since there are millions under way; what is large and rare is boxed.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive(HostId),
    /// A host leaves: with a good-bye, or without.
    Leave {
        host: HostId,
        crash: bool,
    },
    /// A part has been played.
    Played(HostId),
    /// A session's timer may be due.
    Wake(HostId),
    /// The coordinator's timer may be due.
    WakeServer,
    /// The server measures itself.
    SampleServer,
    /// The world is looked at for the time series.
    Observe,
    /// The server's uplink changes to this share of what it was, in thousandths.
    CutServer(u32),
    /// The last byte of one of this host's transfers leaves, unless rates have changed since (then the version has too).
    Sent {
        sender: HostId,
        version: u32,
    },
    /// The header of a part that a peer sends has arrived.
    Begun {
        to: HostId,
        link: LinkId,
        number: u32,
        queue: u8,
    },
    /// The header of a part that a peer sends unasked has arrived.
    Offered {
        to: HostId,
        link: LinkId,
        number: u32,
    },
    /// A part from a peer has arrived.
    FromPeer {
        to: HostId,
        link: LinkId,
        number: u32,
        pushed: bool,
    },
    /// A part that was asked of the server has arrived.
    FromServer {
        to: HostId,
        incarnation: u32,
        number: u32,
    },
    /// A part that the server pushed has arrived.
    Pushed {
        to: HostId,
        incarnation: u32,
        number: u32,
    },
    /// The receiver's acknowledgement of a part's last byte is here.
    Served {
        host: HostId,
        link: LinkId,
        number: u32,
        bytes: u32,
        pushed: bool,
    },
    Have {
        to: HostId,
        link: LinkId,
        first: u32,
        count: u32,
        queue: u8,
    },
    Idle {
        to: HostId,
        link: LinkId,
    },
    Request {
        to: HostId,
        link: LinkId,
        number: u32,
    },
    Cancel {
        to: HostId,
        link: LinkId,
        number: u32,
        pushed: bool,
    },
    Busy {
        to: HostId,
        link: LinkId,
        number: u32,
        retry_in_ms: u32,
        queue: u8,
    },
    Gone {
        to: HostId,
        link: LinkId,
        number: u32,
    },
    Closed {
        to: HostId,
        link: LinkId,
        code: ByeCode,
    },
    /// A dial that nobody answers is given up.
    Unanswered {
        host: HostId,
        link: LinkId,
    },
    Fetch {
        host: HostId,
        incarnation: u32,
        number: u32,
    },
    CancelFetch {
        host: HostId,
        number: u32,
    },
    FetchFailed {
        to: HostId,
        incarnation: u32,
        number: u32,
        /// When to ask again; `None` when the server is not there.
        retry_after_ms: Option<u32>,
    },
    /// The control channel is found to be closed.
    ControlClosed {
        to: HostId,
        incarnation: u32,
    },
    Letter(Box<Letter>),
}

/// Events that are large and rare.
#[derive(Debug)]
pub(crate) enum Letter {
    ToServer { host: HostId, incarnation: u32, message: ClientMessage },
    ToClient { host: HostId, incarnation: u32, message: ServerMessage },
    Dialled { from: HostId, link: LinkId, to: HostId, hello: Hello },
    Accepted { to: HostId, link: LinkId, hello: Hello },
    Peer { to: HostId, link: LinkId, message: PeerMessage },
    Input { to: HostId, incarnation: u32, input: hybrid_session::Input },
}

/// What a client needs to ask the server for parts.
pub(crate) type Token = SessionToken;

pub(crate) fn connection(link: LinkId) -> ConnectionId {
    ConnectionId(u64::from(link))
}

pub(crate) fn part(number: u32) -> PartNumber {
    PartNumber::new(number)
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl Entry {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, so that it is on top of the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// The events to come.
#[derive(Debug)]
pub(crate) struct Queue {
    /// By number of delays: what is put in here is due after what was put in before.
    lanes: [VecDeque<Entry>; Self::LANES],
    heap: BinaryHeap<Entry>,
    sequence: u64,
    delay: Duration,
}

impl Queue {
    /// Messages take one delay, acknowledgements two, dials three.
    const LANES: usize = 3;

    pub(crate) fn new(delay: Duration) -> Self {
        Self { lanes: Default::default(), heap: BinaryHeap::new(), sequence: 0, delay }
    }

    fn entry(&mut self, at: Instant, event: Event) -> Entry {
        self.sequence += 1;
        Entry { at, sequence: self.sequence, event }
    }

    /// At any time.
    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        let entry = self.entry(at, event);
        self.heap.push(entry);
    }

    /// So many of the network's delays from now; `now` never goes back.
    pub(crate) fn after_delays(&mut self, now: Instant, delays: u32, event: Event) {
        let entry = self.entry(now + self.delay * delays, event);
        match self.lanes.get_mut(delays.wrapping_sub(1) as usize) {
            Some(lane) => lane.push_back(entry),
            None => self.heap.push(entry),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Event)> {
        let mut first = self.heap.peek().map(Entry::key);
        let mut lane = None;
        for (index, entries) in self.lanes.iter().enumerate() {
            if let Some(key) = entries.front().map(Entry::key)
                && first.is_none_or(|first| key < first)
            {
                first = Some(key);
                lane = Some(index);
            }
        }
        let entry = match lane {
            Some(index) => self.lanes[index].pop_front(),
            None => self.heap.pop(),
        };
        entry.map(|entry| (entry.at, entry.event))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.lanes.iter().map(VecDeque::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_small() {
        assert!(size_of::<Event>() <= 24, "{} bytes", size_of::<Event>());
        assert!(size_of::<Entry>() <= 40, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn events_come_in_order_of_time_then_of_entry() {
        let mut queue = Queue::new(Duration::from_millis(10));
        let at = Instant::from_micros;
        queue.at(at(10_000), Event::Wake(1));
        queue.after_delays(at(0), 1, Event::Wake(2));
        queue.at(at(5), Event::Wake(3));
        queue.after_delays(at(0), 2, Event::Wake(4));
        queue.at(at(10_000), Event::Wake(5));
        queue.after_delays(at(10), 1, Event::Wake(6));
        queue.after_delays(at(0), 4, Event::Wake(7));
        let mut order = Vec::new();
        while let Some((_, Event::Wake(host))) = queue.pop() {
            order.push(host);
        }
        assert_eq!(order, [3, 1, 2, 5, 6, 4, 7]);
    }
}
