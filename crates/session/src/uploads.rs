//! The queue of parts that peers asked of us, and who is next.

use crate::{Config, ConnectionId};
use hybrid_manifest::PartNumber;
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// A part that is being sent and has not ended after this long no longer holds up the others.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Uploads that begin at once while it is not known how long one takes; the others follow each after [`FIRST_PITCH`].
const FIRST_UPLOADS: usize = 2;

/// Longer than a part of 256 KiB takes at 4 Mbit/s.
const FIRST_PITCH: Duration = Duration::from_millis(500);

/// So many parts are sent at one time where the uplink is slow, or not known yet.
const SLOTS_MIN: usize = 4;

/// A part ends when its last byte is acknowledged; what the uplink sends meanwhile must be under way. In `docs/PERFORMANCE.md`'s
/// harness a round trip is 60 ms with full queues, and a connection that was idle needs some of its time to come to its rate.
const PIPELINE: Duration = Duration::from_millis(100);

/// Receivers are at the same level if they differ by no more than one part in so many of the content.
const LEVEL_SPREAD: u32 = 16;

/// A part that is being sent.
#[derive(Clone, Copy, Debug)]
struct Upload {
    connection: ConnectionId,
    number: PartNumber,
    since: Instant,
    /// Its share of the time since then: uploads that are under way together divide it.
    share: Duration,
    /// Nobody asked for it.
    pushed: bool,
}

/// What the uplink takes for one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartTime {
    /// A moving mean, which waits for slow receivers too.
    mean: Duration,
    /// The least that the mean has been lately: what the uplink can do when it does not wait for them.
    least: Duration,
}

impl PartTime {
    fn after(before: Option<Self>, took: Duration) -> Self {
        let Some(Self { mean, least }) = before else { return Self { mean: took, least: took } };
        // One receiver that does not read must not hold up all the others.
        let mean = (mean * 3 + took.min(mean * 2)) / 4;
        // An uplink that became slower is found out after some hundred parts.
        Self { mean, least: mean.min(least.saturating_add(least / 128)) }
    }
}

#[derive(Debug)]
pub(crate) struct Uploads {
    waiting: Vec<(ConnectionId, PartNumber)>,
    active: Vec<Upload>,
    /// `None` before the first upload of a part of the full length has ended.
    part_time: Option<PartTime>,
    /// When an upload last began or ended.
    settled: Instant,
    limit: Option<BytesPerSecond>,
    part_count: u32,
    per_peer: usize,
    total: usize,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Queued,
    Busy { retry_in: Duration },
}

impl Uploads {
    pub(crate) fn new(config: &Config, part_count: u32) -> Self {
        Self {
            waiting: Vec::new(),
            active: Vec::new(),
            part_time: None,
            settled: Instant::ZERO,
            limit: config.upload_limit,
            part_count,
            per_peer: config.queue_per_peer,
            total: config.queue_total,
        }
    }

    /// Requests that wait or are being answered; 255 for that many or more.
    ///
    /// What is pushed does not count: it must not keep anybody from asking.
    pub(crate) fn queue(&self) -> u8 {
        let answered = self.active.iter().filter(|upload| !upload.pushed).count();
        u8::try_from(self.waiting.len() + answered).unwrap_or(u8::MAX)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    pub(crate) fn admit(&mut self, connection: ConnectionId, number: PartNumber, part_bytes: u64) -> Admission {
        let of_peer = self.waiting.iter().filter(|(other, _)| *other == connection).count();
        if of_peer >= self.per_peer || self.waiting.len() >= self.total {
            let drain = self.limit.unwrap_or(BytesPerSecond::new(10_000_000)).time_for(part_bytes);
            let retry_in =
                (drain * u32::from(self.queue()) / 2).clamp(Duration::from_millis(50), Duration::from_secs(5));
            return Admission::Busy { retry_in };
        }
        if !self.waiting.contains(&(connection, number)) {
            self.waiting.push((connection, number));
        }
        Admission::Queued
    }

    /// Takes a request off the queue; `false` if it was being answered already, or never came.
    pub(crate) fn cancel(&mut self, connection: ConnectionId, number: PartNumber) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|entry| *entry != (connection, number));
        self.waiting.len() != before
    }

    /// Takes all requests off the queue.
    pub(crate) fn take_waiting(&mut self) -> Vec<(ConnectionId, PartNumber)> {
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn none_wait(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nobody can be sent this part any more: those who wait for it.
    pub(crate) fn lost(&mut self, number: PartNumber) -> Vec<ConnectionId> {
        self.waiting.extract_if(.., |(_, waits)| *waits == number).map(|(connection, _)| connection).collect()
    }

    /// An upload ended; only one of a whole part of the `full` length says how long a part takes.
    pub(crate) fn ended(&mut self, now: Instant, connection: ConnectionId, number: PartNumber, full: bool) {
        let place = self.active.iter().position(|upload| (upload.connection, upload.number) == (connection, number));
        self.settle(now);
        if let Some(Upload { share, .. }) = place.map(|place| self.active.remove(place))
            && full
        {
            self.part_time = Some(PartTime::after(self.part_time, share.min(STUCK_AFTER)));
        }
    }

    /// Divides the time since the last upload began or ended among those that are under way.
    fn settle(&mut self, now: Instant) {
        let share = now.since(self.settled) / u32::try_from(self.active.len().max(1)).unwrap_or(u32::MAX);
        self.active.iter_mut().for_each(|upload| upload.share += share);
        self.settled = now;
    }

    fn begin(&mut self, now: Instant, connection: ConnectionId, number: PartNumber, pushed: bool) {
        self.settle(now);
        self.active.push(Upload { connection, number, since: now, share: Duration::ZERO, pushed });
    }

    /// How many parts are sent at one time: those that the uplink sends within [`PIPELINE`] and one more, at most as many as
    /// the server allows. More would only make each part late.
    pub(crate) fn slots(&self, most: usize) -> usize {
        let parts = |time: PartTime| PIPELINE.as_micros().div_ceil(time.least.as_micros().max(1)).saturating_add(1);
        let slots = usize::try_from(self.part_time.map_or(0, parts)).unwrap_or(most);
        slots.max(SLOTS_MIN).min(most)
    }

    /// The first moment at which another upload may begin beside those that are under way.
    ///
    /// Parts that begin together end together: nobody has any of them soon, and then the uplink waits for all their
    /// acknowledgements at once. So they begin one after the other, a little closer than they are in a full pipeline, for a
    /// time that is taken for too long would otherwise never be found out. What slow receivers take does not count.
    fn next_begin(&self) -> Option<Instant> {
        let last = self.active.iter().map(|upload| upload.since).max()?;
        match self.part_time {
            Some(PartTime { least, .. }) => Some(last + least * 3 / 4),
            None => (self.active.len() >= FIRST_UPLOADS).then_some(last + FIRST_PITCH),
        }
    }

    pub(crate) fn forget(&mut self, now: Instant, connection: ConnectionId) {
        self.settle(now);
        self.waiting.retain(|(other, _)| *other != connection);
        self.active.retain(|upload| upload.connection != connection);
    }

    /// Whether a request waits and may be answered now.
    pub(crate) fn may_begin(&self, now: Instant, slots: usize) -> bool {
        let alive = || self.active.iter().filter(|upload| now.since(upload.since) < STUCK_AFTER).count();
        !self.waiting.is_empty() && alive() < slots && self.next_begin().is_none_or(|at| now >= at)
    }

    /// How often this part is being sent now.
    pub(crate) fn sending(&self, number: PartNumber) -> usize {
        self.active.iter().filter(|upload| upload.number == number).count()
    }

    /// Whether nothing waits and a part may be sent unasked.
    pub(crate) fn may_push(&self, now: Instant, slots: usize) -> bool {
        self.waiting.is_empty() && self.active.len() < slots && self.next_begin().is_none_or(|at| now >= at)
    }

    /// Takes a slot for a part that nobody asked for; gives the pace, as [`Self::next`] does.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        number: PartNumber,
        slots: usize,
    ) -> Option<BytesPerSecond> {
        self.begin(now, connection, number, true);
        self.pace(slots)
    }

    fn pace(&self, slots: usize) -> Option<BytesPerSecond> {
        let share = u64::try_from(slots.max(1)).unwrap_or(1);
        self.limit.map(|limit| BytesPerSecond::new((limit.as_u64() / share).max(1)))
    }

    /// The next request to answer, if a slot is free, with the pace that keeps all slots below the limit.
    ///
    /// What no neighbour holds yet comes first: until it is with somebody else, all who lack it wait for this client alone.
    /// Those that were sent more than they offer come last: they took what others could pass on.
    /// Then, among receivers that came together or are at the same level, the one that holds the fewest parts comes first, then
    /// whoever asked first.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        slots: usize,
        together: bool,
        standing: impl Fn(ConnectionId) -> (bool, u32),
        copies: impl Fn(PartNumber) -> u16,
        lot: &mut impl FnMut() -> u32,
    ) -> Option<(ConnectionId, PartNumber, Option<BytesPerSecond>)> {
        if !self.may_begin(now, slots) {
            return None;
        }
        // Whoever is being served, and perhaps does not read, comes after those who are not.
        let served = |connection| self.active.iter().any(|upload| upload.connection == connection);
        let levels = || self.waiting.iter().map(|(connection, _)| standing(*connection).1);
        let spread = levels().max().unwrap_or(0) - levels().min().unwrap_or(0);
        let crowd = together || spread <= self.part_count / LEVEL_SPREAD;
        let mut key = |connection, number| {
            let (indebted, level) = standing(connection);
            let order = if crowd { (level, lot()) } else { (0, 0) };
            (served(connection), indebted, copies(number) > 0, order)
        };
        let (place, _) = self.waiting.iter().enumerate().min_by_key(|(_, (id, number))| key(*id, *number))?;
        let (connection, number) = self.waiting.remove(place);
        self.begin(now, connection, number, false);
        Some((connection, number, self.pace(slots)))
    }

    /// When a stuck slot frees another one, if requests wait.
    pub(crate) fn wake_at(&self, now: Instant, slots: usize, push_due: bool) -> Option<Instant> {
        if self.waiting.is_empty() && !push_due {
            return None;
        }
        let stuck = self.active.iter().map(|upload| upload.since + STUCK_AFTER);
        let next = (self.active.len() < slots).then(|| self.next_begin()).flatten();
        stuck.chain(next).filter(|at| *at > now).min()
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.waiting.len() <= self.total, "more requests wait than the limit allows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(config: &Config) -> Uploads {
        Uploads::new(config, 1_000)
    }

    fn common(_: PartNumber) -> u16 {
        5
    }

    /// Lots that leave equals in the order of asking.
    fn in_order() -> u32 {
        0
    }

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn part(number: u32) -> PartNumber {
        PartNumber::new(number)
    }

    #[test]
    fn the_most_deprived_comes_first() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(A, part(2), 1);
        queue.admit(B, part(3), 1);
        let held = |connection| (false, if connection == A { 10 } else { 2 });
        assert_eq!(queue.next(Instant::ZERO, 1, false, held, common, &mut in_order), Some((B, part(3), None)));
        assert_eq!(queue.next(Instant::ZERO, 1, false, held, common, &mut in_order), None, "one slot");
        queue.ended(Instant::ZERO, B, part(3), true);
        assert_eq!(
            queue.next(Instant::ZERO, 1, false, held, common, &mut in_order),
            Some((A, part(1), None)),
            "then in order"
        );
    }

    #[test]
    fn those_who_lack_most_come_first_only_among_equals_and_in_a_crowd() {
        for (together, first) in [(false, (A, part(1), None)), (true, (B, part(3), None))] {
            let mut queue = uploads(&Config::default());
            queue.admit(A, part(1), 1);
            queue.admit(B, part(3), 1);
            let held = |connection| (false, if connection == A { 900 } else { 2 });
            assert_eq!(queue.next(Instant::ZERO, 1, together, held, common, &mut in_order), Some(first));
        }
    }

    #[test]
    fn what_nobody_else_holds_comes_before_that() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(B, part(2), 1);
        let held = |connection| (false, if connection == A { 10 } else { 2 });
        let copies = |number| if number == part(1) { 0 } else { 1 };
        assert_eq!(queue.next(Instant::ZERO, 1, false, held, copies, &mut in_order), Some((A, part(1), None)));
    }

    #[test]
    fn who_was_sent_more_than_it_offers_comes_last() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(B, part(2), 1);
        let standing = |connection| if connection == A { (true, 0) } else { (false, 900) };
        let copies = |number| if number == part(1) { 0 } else { 1 };
        assert_eq!(queue.next(Instant::ZERO, 1, true, standing, copies, &mut in_order), Some((B, part(2), None)));
    }

    #[test]
    fn what_is_pushed_takes_a_slot_and_keeps_nobody_from_asking() {
        let mut queue = uploads(&Config { upload_limit: Some(BytesPerSecond::new(1_000)), ..Config::default() });
        assert!(queue.may_push(Instant::ZERO, 1));
        assert_eq!(queue.push(Instant::ZERO, A, part(1), 1), Some(BytesPerSecond::new(1_000)));
        assert_eq!((queue.queue(), queue.is_idle(), queue.sending(part(1))), (0, false, 1));
        assert!(!queue.may_push(Instant::ZERO, 1), "one slot");
        queue.admit(B, part(2), 1);
        assert_eq!(queue.next(Instant::ZERO, 1, false, |_| (false, 0), common, &mut in_order), None);
        assert!(!queue.may_push(Instant::ZERO, 2), "somebody asks");
        queue.ended(Instant::ZERO, A, part(1), true);
        assert!(queue.next(Instant::ZERO, 1, false, |_| (false, 0), common, &mut in_order).is_some());
    }

    #[test]
    fn equals_are_drawn_by_lot() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(B, part(2), 1);
        let mut lots = [7, 3].into_iter();
        let mut lot = || lots.next().unwrap_or(0);
        assert_eq!(queue.next(Instant::ZERO, 1, false, |_| (false, 0), common, &mut lot), Some((B, part(2), None)));
    }

    #[test]
    fn a_full_queue_says_busy() {
        let config = Config { queue_per_peer: 2, upload_limit: Some(BytesPerSecond::new(1_000)), ..Config::default() };
        let mut queue = uploads(&config);
        assert_eq!(queue.admit(A, part(1), 1_000), Admission::Queued);
        assert_eq!(queue.admit(A, part(2), 1_000), Admission::Queued);
        assert_eq!(queue.admit(A, part(3), 1_000), Admission::Busy { retry_in: Duration::from_secs(1) });
        assert_eq!(queue.admit(B, part(3), 1_000), Admission::Queued);
        assert!(queue.cancel(A, part(2)));
        assert!(!queue.cancel(A, part(2)));
        assert_eq!(queue.admit(A, part(3), 1_000), Admission::Queued);
    }

    #[test]
    fn a_stuck_receiver_does_not_hold_up_the_others() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(B, part(2), 1);
        assert!(queue.next(Instant::ZERO, 1, false, |_| (false, 0), common, &mut in_order).is_some());
        assert!(queue.next(Instant::ZERO, 1, false, |_| (false, 0), common, &mut in_order).is_none());
        assert_eq!(queue.wake_at(Instant::ZERO, 1, false), Some(Instant::ZERO + STUCK_AFTER));
        assert_eq!(
            queue.next(Instant::ZERO + STUCK_AFTER, 1, false, |_| (false, 0), common, &mut in_order),
            Some((B, part(2), None))
        );
    }

    #[test]
    fn uploads_begin_one_after_the_other() {
        let mut queue = uploads(&Config::default());
        (0..8).for_each(|number| assert_eq!(queue.admit(A, part(number), 1), Admission::Queued));
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let begun = |queue: &mut Uploads, now| {
            queue.next(now, 4, false, |_| (false, 0), common, &mut in_order).map(|(_, number, _)| number)
        };
        assert_eq!(begun(&mut queue, at(0)), Some(part(0)));
        assert_eq!(begun(&mut queue, at(0)), Some(part(1)), "two, as long as nothing is known");
        assert_eq!(begun(&mut queue, at(0)), None);
        assert_eq!(queue.wake_at(at(0), 4, false), Some(at(500)));
        queue.ended(at(100), A, part(0), true);
        assert_eq!(begun(&mut queue, at(100)), Some(part(2)), "two that divided 100 ms: 50 ms for a part");
        assert_eq!(begun(&mut queue, at(137)), None);
        let due = at(137) + Duration::from_micros(500);
        assert_eq!(queue.wake_at(at(137), 4, false), Some(due), "three quarters of that");
        assert_eq!(begun(&mut queue, at(138)), Some(part(3)));
        queue.forget(at(138), A);
        queue.admit(B, part(9), 1);
        assert_eq!(begun(&mut queue, at(139)), Some(part(9)), "nothing is under way, so nothing is waited for");
    }

    #[test]
    fn as_many_uploads_as_keep_the_uplink_busy() {
        let mut queue = uploads(&Config::default());
        let mut now = Instant::ZERO;
        let mut sent_in = |queue: &mut Uploads, millis| {
            queue.push(now, A, part(0), 4);
            now += Duration::from_millis(millis);
            queue.ended(now, A, part(0), true);
            queue.slots(16)
        };
        assert_eq!((queue.slots(16), queue.slots(2)), (4, 2), "nothing is known");
        assert_eq!(sent_in(&mut queue, 100), 4, "a slow uplink");
        let fast: Vec<usize> = (0..20).map(|_| sent_in(&mut queue, 10)).collect();
        assert_eq!(
            (fast.last(), sent_in(&mut queue, 400)),
            (Some(&11), 11),
            "a slow receiver is not the uplink: {fast:?}"
        );
        let slower: Vec<usize> = (0..500).map(|_| sent_in(&mut queue, 20)).collect();
        assert_eq!(slower.last(), Some(&7), "an uplink that became slower is found out");
        assert_eq!((0..40).map(|_| sent_in(&mut queue, 0)).last(), Some(16), "as many as are allowed");
        let before = queue.part_time;
        queue.push(now, A, part(0), 4);
        queue.ended(now, A, part(0), false);
        assert_eq!(queue.part_time, before, "what is given up at once, or is short, teaches nothing");
    }

    #[test]
    fn who_does_not_read_comes_after_the_others() {
        let mut queue = uploads(&Config::default());
        queue.admit(A, part(1), 1);
        queue.admit(A, part(2), 1);
        queue.admit(B, part(3), 1);
        let deprived = |connection| (false, if connection == A { 0 } else { 100 });
        assert_eq!(queue.next(Instant::ZERO, 1, false, deprived, common, &mut in_order), Some((A, part(1), None)));
        assert_eq!(
            queue.next(Instant::ZERO + STUCK_AFTER, 1, false, deprived, common, &mut in_order),
            Some((B, part(3), None))
        );
    }

    #[test]
    fn the_pace_is_shared_by_the_slots() {
        let config = Config { upload_limit: Some(BytesPerSecond::new(1_000)), ..Config::default() };
        let mut queue = uploads(&config);
        queue.admit(A, part(1), 1);
        let (_, _, pace) =
            queue.next(Instant::ZERO, 2, false, |_| (false, 0), common, &mut in_order).expect("one waits");
        assert_eq!(pace, Some(BytesPerSecond::new(500)));
    }
}
