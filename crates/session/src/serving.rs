//! Serving peers: which requests are answered, and in which order.

use crate::uploads::Admission;
use crate::{ConnectionId, Output, Session};
use hybrid_manifest::PartNumber;
use hybrid_units::{ByteCount, Instant};
use hybrid_wire::control::ByeCode;
use hybrid_wire::peer::{PartReply, PeerMessage};
use rand::RngExt;

/// Neighbours that hear that this client has nothing to send. Four are enough to be heard and too few for a storm.
const IDLE_NOTICES: usize = 4;

/// Neighbours came together if they connected within this fraction of the time since the first of them did, and
const TOGETHER: u32 = 4;

/// held then about the same: within one part in so many of the content.
const CROWD_SPREAD: u32 = 16;

impl Session {
    pub(crate) fn on_request(&mut self, now: Instant, connection: ConnectionId, number: PartNumber) {
        let Some(asking) = self.connections.get_mut(connection) else { return };
        if !asking.says(now) {
            return self.let_go(now, connection, ByeCode::TooFast, "too many requests");
        }
        let reply = if !self.fetches.held().contains(number) {
            PartReply::Gone
        } else if let Some(off) = self.uploads_off() {
            self.refusal(off)
        } else {
            match self.uploads.admit(connection, number, self.part_bytes) {
                Admission::Queued => return,
                Admission::Busy { retry_in } => PartReply::Busy {
                    retry_in_ms: u32::try_from(retry_in.as_millis()).unwrap_or(u32::MAX),
                    queue: self.uploads.queue(),
                },
            }
        };
        self.out.push_back(Output::RefuseRequest { connection, number, reply });
    }

    pub(crate) fn serve(&mut self, now: Instant) {
        if self.stopped || !self.serves() {
            return;
        }
        let slots = self.upload_slots();
        if !self.uploads.may_begin(now, slots) {
            return;
        }
        let crowd = self.is_crowd(now);
        let (connections, availability, rng) = (&self.connections, &self.availability, &mut self.rng);
        let level = |id: ConnectionId| {
            let connection = connections.get(id);
            // Who gave up what it was sent has had it all the same.
            connection.map_or((true, u32::MAX), |c| (c.is_indebted(), c.has.len().max(c.served)))
        };
        let copies = |number: PartNumber| availability.of(number);
        let mut lot = || rng.random();
        let mut begun = Vec::new();
        while self.allowance.has_room()
            && let Some((connection, number, pace)) = self.uploads.next(now, slots, crowd, level, copies, &mut lot)
        {
            begun.push(connection);
            let length = self.manifest.layout().part(number).map_or(0, |place| place.len().into());
            self.allowance.begin(connection, number, length);
            let queue = self.uploads.queue();
            self.out.push_back(Output::ServePart { connection, number, queue, pace });
        }
        for id in begun {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.served = connection.served.saturating_add(1);
            }
        }
    }

    pub(crate) fn upload_slots(&self) -> usize {
        // A pace of our own holds for one upload: divided among several, an idle one's share would be lost.
        let paced = self.config.upload_limit.is_some();
        if paced { 1 } else { self.uploads.slots(usize::from(self.limits.uploads_max.max(1))) }
    }

    /// Whether the incomplete neighbours came together. Then the one that holds the fewest parts is served first: the most
    /// deprived peer gains most, and has the most to pass on (Massoulié et al., "Randomized decentralized broadcasting
    /// algorithms", INFOCOM 2007), and the last one is done soon. Where clients come one after the other, those who came last
    /// would hold up those who are nearly done.
    fn is_crowd(&self, now: Instant) -> bool {
        let (mut first, mut last) = (Instant::FAR_FUTURE, Instant::ZERO);
        let (mut least, mut most) = (u32::MAX, 0);
        for connection in self.connections.values().filter(|connection| !connection.has.is_full()) {
            (first, last) = (first.min(connection.connected_at), last.max(connection.connected_at));
            (least, most) = (least.min(connection.level_at_first), most.max(connection.level_at_first));
        }
        if least > most {
            return false;
        }
        let spread = most - least;
        last.since(first) <= now.since(first) / TOGETHER && spread <= self.progress.parts_total / CROWD_SPREAD
    }

    pub(crate) fn on_served(&mut self, now: Instant, connection: ConnectionId, number: PartNumber, sent_bytes: u64) {
        self.uploads.ended(now, connection, number, sent_bytes == self.part_bytes);
        self.allowance.end(connection, number, sent_bytes);
        self.progress.sent += ByteCount::new(sent_bytes);
        self.reporting.sent(sent_bytes);
        if let Some(connection) = self.connections.get_mut(connection)
            && self.manifest.layout().part(number).is_some_and(|place| u64::from(place.len()) == sent_bytes)
        {
            connection.said_news();
            if connection.has.insert(number) {
                self.availability.gained(number);
            }
        }
        self.pushes.due = true;
        if self.uploads.is_idle() {
            self.call_for_work(now);
        }
    }

    /// Nothing waits here: tells the neighbours that lack most, so that they move requests from longer queues.
    pub(crate) fn call_for_work(&mut self, now: Instant) {
        if !self.serves() || !self.allowance.has_room() {
            return;
        }
        let held = self.fetches.held();
        let mut lacking: Vec<(u32, ConnectionId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| held.is_useful_to(&connection.has))
            .map(|(id, connection)| (connection.has.len(), id))
            .collect();
        lacking.sort_unstable();
        for (_, connection) in lacking.into_iter().take(IDLE_NOTICES) {
            if !self.connections.get_mut(connection).is_some_and(|neighbour| neighbour.may_call(now)) {
                continue;
            }
            self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Idle });
        }
    }
}
