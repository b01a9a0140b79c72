//! The table of connected peers: what each holds, how busy and how fast it is, and what was asked of it.

use crate::exchange::Exchange;
use crate::{Config, ConnectionId};
use hybrid_manifest::PartNumber;
use hybrid_swarm::PartSet;
use hybrid_units::{Duration, Instant};
use hybrid_wire::PeerId;

/// The rate that a peer is credited with before it sent anything: 1 MB/s, so that nobody is left out and nobody overwhelmed.
const RATE_UNKNOWN: f64 = 1e6;

/// How much of a new sample goes into the smoothed rate: the last four parts or so decide.
const RATE_WEIGHT: f64 = 0.25;

/// For how long a peer should have work from us without another request: twice the longest usual delay across the world
/// would be 0.3 s, and our own reaction is part of it.
const PIPELINE: Duration = Duration::from_millis(200);

/// A peer that leaves a first request lying is not asked for so long, and then for twice as long each time.
const LAPSE: Duration = Duration::from_millis(500);
const LAPSES_MAX: u32 = 6;

/// So often a peer that has sent nothing yet may call for work.
const LAPSES_BELIEVED: u32 = 2;

/// Parts that a neighbour is sent like all others before it has offered anything: what is announced comes a round trip after
/// the first part, while some others are on their way.
const CREDIT: u32 = 2;

/// A part that was asked of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) number: PartNumber,
    pub(crate) since: Instant,
    /// After a tenth of the patience and twice the time that was expected, it is no longer counted on.
    pub(crate) due: Instant,
    pub(crate) deadline: Instant,
    /// Whether the peer has begun to send it.
    pub(crate) begun: bool,
}

/// Messages and requests that a peer may send at once beyond those that bring something: as many as come in some seconds of an
/// ordinary connection.
const MESSAGES_BURST: u32 = 2_048;

/// From then on one in this time. An honest peer sends far fewer; at 4 µs for each, a thousand a second are 0.4 % of a core.
const MESSAGE_EVERY: Duration = Duration::from_millis(1);

/// Between two calls for work to one peer, so that they stay below what it takes on a link of any speed.
const CALL_EVERY: Duration = Duration::from_millis(2);

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: PeerId,
    pub(crate) outgoing: bool,
    pub(crate) has: PartSet,
    pub(crate) uploads: bool,
    /// What was asked and has not come, in the order of asking.
    pub(crate) asked: Vec<Asked>,
    pub(crate) connected_at: Instant,
    /// Parts that it held then.
    pub(crate) level_at_first: u32,
    /// Not to be asked before this time.
    pub(crate) busy_until: Instant,
    pub(crate) strikes: u8,
    pub(crate) verified_parts: u32,
    /// Parts that came and are not verified yet.
    unverified: usize,
    /// The part that is being pushed to it.
    pub(crate) pushing: Option<PartNumber>,
    pub(crate) refused_pushes: u8,
    pub(crate) exchange: Exchange,
    queue: u8,
    /// Parts that it said it holds.
    pub(crate) announced: u32,
    /// Parts that we began to send to it.
    pub(crate) served: u32,
    /// Not to be asked before this time, whatever it says.
    barred_until: Instant,
    /// Requests in a row that were given to others because it did not begin on them, before it sent a first part.
    lapses: u32,
    /// How long it may take for a part beyond four times what is expected.
    patience: Duration,
    rate: Option<f64>,
    last_arrival: Instant,
    /// By when what it said would be due if it came at the rate that is admitted.
    said_until: Instant,
    /// When it was last told that we have nothing to send.
    called_at: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(
        peer: PeerId,
        outgoing: bool,
        has: PartSet,
        uploads: bool,
        patience: Duration,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            outgoing,
            connected_at: now,
            level_at_first: has.len(),
            announced: has.len(),
            served: 0,
            barred_until: Instant::ZERO,
            lapses: 0,
            patience,
            has,
            uploads,
            asked: Vec::new(),
            busy_until: Instant::ZERO,
            strikes: 0,
            verified_parts: 0,
            unverified: 0,
            pushing: None,
            refused_pushes: 0,
            exchange: Exchange::default(),
            queue: 0,
            rate: None,
            last_arrival: now,
            said_until: now,
            called_at: None,
        }
    }

    /// Counts a message or a request; false if there are too many.
    pub(crate) fn says(&mut self, now: Instant) -> bool {
        self.said_until = self.said_until.max(now) + MESSAGE_EVERY;
        self.said_until <= now + MESSAGE_EVERY * MESSAGES_BURST
    }

    /// What it said brought something, which there is only so much of: it does not count.
    pub(crate) fn said_news(&mut self) {
        self.said_until = self.said_until - MESSAGE_EVERY;
    }

    /// Whether it may be told now that we have nothing to send; counts as told.
    pub(crate) fn may_call(&mut self, now: Instant) -> bool {
        let may = self.called_at.is_none_or(|at| now >= at + CALL_EVERY);
        if may {
            self.called_at = Some(now);
        }
        may
    }

    fn rate(&self) -> f64 {
        self.rate.unwrap_or(RATE_UNKNOWN).max(1.0)
    }

    /// Requests that may be out before the peer has proved itself further: one more than it has answered well, so that all that
    /// it can spoil at one time is what it gave, and one part.
    pub(crate) fn trust(&self) -> usize {
        self.verified_parts as usize + 1
    }

    /// How many requests may be out at this peer.
    pub(crate) fn window(&self, config: &Config, part_bytes: u64) -> usize {
        let pipeline = PIPELINE.as_secs_f64() * self.rate() / part_bytes.max(1) as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped right behind")]
        let wanted = 1 + pipeline.ceil().min(64.0) as usize;
        wanted.clamp(2, config.requests_per_peer.max(2)).min(self.trust())
    }

    pub(crate) fn takes_requests(&self, now: Instant, config: &Config, part_bytes: u64) -> bool {
        self.uploads && now >= self.busy_until.max(self.barred_until) && self.has_room(config, part_bytes)
    }

    /// Whether one part more may be on its way from this peer.
    pub(crate) fn has_room(&self, config: &Config, part_bytes: u64) -> bool {
        let out = self.asked.len() + self.unverified;
        // The window is at least one and at most the trust: most of the time there is no need to work it out.
        out == 0 || out < self.trust() && out < self.window(config, part_bytes)
    }

    /// Whether it has nothing to do, as far as is known here.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.queue == 0
    }

    /// Seconds until a part that is asked now should be here.
    pub(crate) fn eta_secs(&self, part_bytes: u64) -> f64 {
        self.eta_secs_at(self.asked.len(), part_bytes)
    }

    /// Seconds, from the last sign of life, until the request at this place of ours should be answered; four times as many for
    /// each first request that was left lying.
    pub(crate) fn eta_secs_at(&self, place: usize, part_bytes: u64) -> f64 {
        self.expected_secs(place, part_bytes) * f64::from(1 << (2 * self.lapses))
    }

    /// The same if it did what it says.
    fn expected_secs(&self, place: usize, part_bytes: u64) -> f64 {
        let ahead = place.max(usize::from(self.queue));
        (ahead + 1) as f64 * part_bytes as f64 / self.rate()
    }

    /// Notes a request; gives the time by which the part must be here.
    pub(crate) fn ask(&mut self, number: PartNumber, now: Instant, part_bytes: u64) -> Instant {
        let expected = self.expected_secs(self.asked.len(), part_bytes);
        let times = |factor: f64| Duration::from_secs_f64((factor * expected).min(600.0));
        let (due, deadline) = (now + self.patience / 10 + times(2.0), now + self.patience + times(4.0));
        self.asked.push(Asked { number, since: now, due, deadline, begun: false });
        deadline
    }

    /// The peer has begun on a request, with so many others waiting there.
    pub(crate) fn begun(&mut self, number: PartNumber, queue: u8) {
        if self.sends(number) {
            self.note_queue(queue);
        }
    }

    /// The peer is sending a part; says whether it was on the list.
    pub(crate) fn sends(&mut self, number: PartNumber) -> bool {
        let asked = self.asked.iter_mut().find(|asked| asked.number == number);
        asked.map(|asked| asked.begun = true).is_some()
    }

    /// Takes a request off the list; `None` if there was none.
    pub(crate) fn answered(&mut self, number: PartNumber) -> Option<Asked> {
        let place = self.asked.iter().position(|asked| asked.number == number)?;
        Some(self.asked.remove(place))
    }

    /// A part came: learns the peer's rate from the time since it could have started on it.
    pub(crate) fn measure(&mut self, asked: Asked, bytes: u64, now: Instant) {
        let started = asked.since.max(self.last_arrival);
        self.last_arrival = now;
        let secs = now.since(started).as_secs_f64().max(1e-4);
        let sample = bytes as f64 / secs;
        self.rate = Some(self.rate.map_or(sample, |rate| rate + RATE_WEIGHT * (sample - rate)));
    }

    /// Bytes are here whose verdict is still to come: the peer's place is taken until then.
    pub(crate) fn awaits_verdict(&mut self) {
        self.unverified += 1;
    }

    /// A verdict came, or none ever will.
    pub(crate) fn judged(&mut self) {
        self.unverified = self.unverified.saturating_sub(1);
    }

    /// A request was given to another source. Says whether this one spoiled the part: it has sent nothing yet that was whole.
    pub(crate) fn passed_over(&mut self, asked: Asked, now: Instant) -> bool {
        let lapsed = asked.due <= now && self.verified_parts == 0;
        if lapsed {
            self.lapses = (self.lapses + 1).min(LAPSES_MAX);
            self.busy_until = self.busy_until.max(now + LAPSE * (1 << self.lapses));
        }
        asked.begun && self.verified_parts == 0
    }

    /// Is asked no more until then, and gets more time after that: it may only be slow.
    pub(crate) fn bar(&mut self, until: Instant, patience: Duration) {
        (self.barred_until, self.patience) = (until, patience);
    }

    /// It says that it has nothing to do: it serves, and is asked at once, unless it said so before and did nothing.
    pub(crate) fn calls_for_work(&mut self) {
        self.uploads = true;
        self.queue = 0;
        if self.lapses < LAPSES_BELIEVED {
            self.busy_until = Instant::ZERO;
        }
    }

    /// Whether we have begun to send it more than it offers: its other neighbours come first.
    pub(crate) fn is_indebted(&self) -> bool {
        self.served > self.announced.saturating_add(CREDIT)
    }

    pub(crate) fn proved(&mut self) {
        self.lapses = 0;
        self.verified_parts = self.verified_parts.saturating_add(1);
        self.strikes = self.strikes.saturating_sub(1);
    }

    pub(crate) fn note_queue(&mut self, queue: u8) {
        self.queue = queue;
    }
}

/// The connected peers, in the order of their numbers.
///
/// Each input looks at all of them and there are some dozens, so they lie side by side: a tree's nodes cost more than its order
/// is worth.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    entries: Vec<(ConnectionId, Connection)>,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn place(&self, id: ConnectionId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |(other, _)| *other)
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let place = self.place(id).ok()?;
        self.entries.get(place).map(|(_, connection)| connection)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let place = self.place(id).ok()?;
        self.entries.get_mut(place).map(|(_, connection)| connection)
    }

    pub(crate) fn insert(&mut self, id: ConnectionId, connection: Connection) {
        match self.place(id) {
            Ok(place) => self.entries[place].1 = connection,
            Err(place) => self.entries.insert(place, (id, connection)),
        }
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let place = self.place(id).ok()?;
        Some(self.entries.remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.entries.iter().map(|(id, connection)| (*id, connection))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        self.entries.iter_mut().map(|(id, connection)| (*id, connection))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Connection> {
        self.entries.iter().map(|(_, connection)| connection)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.entries.iter().map(|(id, _)| *id)
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.entries.is_sorted_by(|(a, _), (b, _)| a < b), "connections are out of order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: u8) -> Connection {
        let patience = Duration::from_secs(1);
        Connection::new(PeerId::from_bytes([number; 32]), true, PartSet::new(1), true, patience, Instant::ZERO)
    }

    #[test]
    fn connections_are_in_the_order_of_their_numbers() {
        let mut connections = Connections::default();
        for number in [5, 1, 9, 5] {
            connections.insert(ConnectionId(number.into()), connection(number));
            connections.check_invariants();
        }
        assert!(connections.ids().eq([1, 5, 9].map(ConnectionId)));
        assert!(connections.remove(ConnectionId(5)).is_some() && connections.remove(ConnectionId(5)).is_none());
        assert!(connections.ids().eq([1, 9].map(ConnectionId)));
        assert_eq!(connections.get(ConnectionId(9)).map(|found| found.peer), Some(PeerId::from_bytes([9; 32])));
        assert!(connections.get_mut(ConnectionId(2)).is_none() && connections.get(ConnectionId(2)).is_none());
    }
}
