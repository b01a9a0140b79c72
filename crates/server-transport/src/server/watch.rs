//! When to give up on a connection: the watchdog's rules, on a clock that is an argument.
//!
//! Invariant: every connection either makes progress that we can count, or ends.
//! Reading counts for nothing here, since a client can drip bytes for ever; requests begun and bytes taken do.

use super::ServerConfig;
use std::time::Duration;
use tokio::time::Instant;

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// No request came in time.
    NoRequest,
    /// Nothing was asked for some time.
    Idle,
    /// The client does not take its answers.
    Stalled,
    /// The client keeps cancelling requests.
    Abandons,
}

/// The limits that a [`Watch`] keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    first_request: Duration,
    idle: Duration,
    stall: Duration,
    stall_bytes: u64,
}

impl From<&ServerConfig> for Limits {
    fn from(config: &ServerConfig) -> Self {
        Self {
            first_request: config.first_request_limit,
            idle: config.idle_limit,
            stall: config.stall_limit,
            stall_bytes: config.stall_bytes,
        }
    }
}

impl Limits {
    /// How often [`Watch::verdict`] is to be asked: a fraction of the shortest limit, and at least once a second.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.first_request.min(self.idle).min(self.stall);
        (shortest / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// Requests cancelled within [`ABANDON_WINDOW`] before their answer began that make a connection hostile. HTTP/2 lets a client
/// start and cancel requests at no cost to itself (CVE-2023-44487); a person who leaves a page cancels some dozens.
const ABANDONS_MAX: u32 = 200;
const ABANDON_WINDOW: Duration = Duration::from_secs(10);

/// What happened on one connection so far.
#[derive(Debug)]
pub(super) struct Watch {
    any_request: bool,
    /// Requests from their headers to the end of their answers.
    in_flight: u32,
    /// Those of them for which the server has to do something before the client can.
    working: u32,
    /// Whether the socket takes no more bytes at the moment.
    blocked: bool,
    /// The last request, end of an answer, or byte that had to wait for the client.
    touched: Instant,
    /// Since when the client keeps us waiting, if it does.
    waiting_since: Option<Instant>,
    /// For how long it kept us waiting for the last `taken_bytes`.
    waited: Duration,
    taken_bytes: u64,
    abandons: u32,
    abandons_since: Instant,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            any_request: false,
            in_flight: 0,
            working: 0,
            blocked: false,
            touched: now,
            waiting_since: None,
            waited: Duration::ZERO,
            taken_bytes: 0,
            abandons: 0,
            abandons_since: now,
        }
    }

    /// The TLS handshake is over; what follows has its own time.
    pub(super) fn restart(&mut self, now: Instant) {
        self.touched = now;
    }

    pub(super) fn request_began(&mut self, now: Instant) {
        self.any_request = true;
        self.in_flight += 1;
        self.working += 1;
        self.touched = now;
        self.settle(now);
    }

    /// The answer of a request ended, or the request was given up. `abandoned`: before there was an answer.
    pub(super) fn request_ended(&mut self, now: Instant, abandoned: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.touched = now;
        self.settle(now);
        if abandoned {
            if now.duration_since(self.abandons_since) > ABANDON_WINDOW {
                self.abandons = 0;
                self.abandons_since = now;
            }
            self.abandons += 1;
        }
    }

    /// The server begins to work on an answer that the client has asked for more of.
    pub(super) fn work_began(&mut self, now: Instant) {
        self.working += 1;
        self.settle(now);
    }

    /// The server has something for the client.
    pub(super) fn work_ended(&mut self, now: Instant) {
        self.working = self.working.saturating_sub(1);
        self.settle(now);
    }

    /// The socket took bytes.
    pub(super) fn wrote(&mut self, now: Instant, bytes: u64, limits: &Limits) {
        if self.blocked {
            self.blocked = false;
            self.touched = now;
        }
        self.settle(now);
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        if self.taken_bytes >= limits.stall_bytes {
            self.taken_bytes = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// The socket took no bytes.
    pub(super) fn write_blocked(&mut self, now: Instant) {
        self.blocked = true;
        self.touched = now;
        self.settle(now);
    }

    /// Whether the connection is to be cut.
    pub(super) fn verdict(&mut self, now: Instant, limits: &Limits) -> Option<Cut> {
        self.settle(now);
        let still = now.saturating_duration_since(self.touched);
        let quiet = self.in_flight == 0 && !self.blocked;
        if quiet && !self.any_request && still >= limits.first_request {
            return Some(Cut::NoRequest);
        }
        if quiet && self.any_request && still >= limits.idle {
            return Some(Cut::Idle);
        }
        if self.waited >= limits.stall {
            return Some(Cut::Stalled);
        }
        (self.abandons > ABANDONS_MAX).then_some(Cut::Abandons)
    }

    /// Accounts the time since the last event to whoever kept the other waiting.
    ///
    /// Time in which the server works, or holds back for its own limit on egress, is not the client's.
    fn settle(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        if self.blocked || (self.in_flight > 0 && self.working == 0) {
            self.waiting_since = Some(now);
        } else if self.in_flight == 0 {
            self.waited = Duration::ZERO;
            self.taken_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        first_request: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(30),
        stall_bytes: 30 << 10,
    };

    struct Clock(Instant);

    impl Clock {
        fn after(&mut self, secs: u64) -> Instant {
            self.0 += Duration::from_secs(secs);
            self.0
        }
    }

    fn start() -> (Clock, Watch) {
        let now = Instant::now();
        (Clock(now), Watch::new(now))
    }

    #[test]
    fn no_request() {
        let (mut clock, mut watch) = start();
        assert_eq!(watch.verdict(clock.after(9), &LIMITS), None);
        assert_eq!(watch.verdict(clock.after(1), &LIMITS), Some(Cut::NoRequest));
    }

    #[test]
    fn idle_after_a_request() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        assert_eq!(watch.verdict(clock.after(1_000), &LIMITS), None, "the server works");
        watch.work_ended(clock.after(1));
        watch.request_ended(clock.after(1), false);
        assert_eq!(watch.verdict(clock.after(59), &LIMITS), None);
        assert_eq!(watch.verdict(clock.after(1), &LIMITS), Some(Cut::Idle));
    }

    #[test]
    fn a_reader_that_stops() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(1));
        watch.wrote(clock.after(0), 10_000, &LIMITS);
        watch.write_blocked(clock.after(0));
        assert_eq!(watch.verdict(clock.after(29), &LIMITS), None);
        assert_eq!(watch.verdict(clock.after(1), &LIMITS), Some(Cut::Stalled));
    }

    #[test]
    fn a_reader_that_drips() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(1));
        for second in 0.. {
            watch.write_blocked(clock.after(1));
            if let Some(cut) = watch.verdict(clock.0, &LIMITS) {
                assert_eq!((cut, second), (Cut::Stalled, 29));
                break;
            }
            watch.wrote(clock.after(0), 100, &LIMITS);
        }
    }

    #[test]
    fn a_slow_reader_that_goes_on() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(1));
        for _ in 0..1_000 {
            watch.write_blocked(clock.after(0));
            assert_eq!(watch.verdict(clock.after(20), &LIMITS), None);
            watch.wrote(clock.after(0), 30 << 10, &LIMITS);
        }
    }

    #[test]
    fn an_answer_that_the_server_holds_back() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(0));
        for _ in 0..100 {
            watch.work_began(clock.after(0));
            assert_eq!(watch.verdict(clock.after(120), &LIMITS), None);
            watch.work_ended(clock.after(0));
            watch.wrote(clock.after(0), 10, &LIMITS);
        }
    }

    #[test]
    fn a_stream_without_window() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(0));
        // The socket would take bytes, but HTTP/2 flow control does not let any go.
        assert_eq!(watch.verdict(clock.after(30), &LIMITS), Some(Cut::Stalled));
    }

    #[test]
    fn a_tail_that_is_still_being_taken() {
        let (mut clock, mut watch) = start();
        watch.request_began(clock.after(1));
        watch.work_ended(clock.after(0));
        watch.write_blocked(clock.after(0));
        watch.request_ended(clock.after(0), false);
        for _ in 0..100 {
            assert_eq!(watch.verdict(clock.after(20), &LIMITS), None);
            watch.wrote(clock.after(0), 30 << 10, &LIMITS);
            watch.write_blocked(clock.after(0));
        }
        assert_eq!(watch.verdict(clock.after(30), &LIMITS), Some(Cut::Stalled));
    }

    #[test]
    fn requests_cancelled_one_after_the_other() {
        let (mut clock, mut watch) = start();
        for _ in 0..=ABANDONS_MAX {
            assert_eq!(watch.verdict(clock.0, &LIMITS), None);
            watch.request_began(clock.after(0));
            watch.work_ended(clock.after(0));
            watch.request_ended(clock.after(0), true);
        }
        assert_eq!(watch.verdict(clock.0, &LIMITS), Some(Cut::Abandons));
    }
}
