//! The control group: some newcomers are served without peers, to see what peers are worth.

use crate::Refused;
use crate::clock::Clock;
use crate::meters::Meter;
use crate::window::{Window, quantile};
use hybrid_units::{BytesPerSecond, Duration, Instant};
use std::fmt;

/// How long an experience counts: long enough for thirty on each side, short enough to be about this crowd.
const SPAN: Duration = Duration::from_secs(600);
/// Experiences on each side without which nothing is compared.
const EXPERIENCES_MIN: usize = 30;
/// Clients with peers fare worse if they are behind by this share.
const MARGIN: f64 = 0.2;
/// For so long they must have been, before peers are switched off.
const WORSE_FOR: Duration = Duration::from_secs(60);
/// Peers stay off for this long; then it is tried again with fresh experiences.
const OFF_FOR: Duration = Duration::from_secs(600);
/// Start-up times nearer than this are not told apart by people.
const START_UP_NOTICED: f64 = 0.2;
/// Nor are so few pauses a minute more.
const STALLS_NOTICED: f64 = 0.1;

/// What one client had of it; to be told once, when it is complete or leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "who compares must know all that is compared")]
pub struct Experience {
    /// From the join to the first part.
    pub start_up: Duration,
    /// Mean download rate.
    pub rate: BytesPerSecond,
    /// Pauses per minute.
    pub stalls_per_minute: f64,
}

/// The medians of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Side {
    /// How many experiences of the last ten minutes they are of.
    pub count: usize,
    /// Seconds to the first part.
    pub start_up: f64,
    /// Bytes per second.
    pub rate: f64,
    /// Mean of pauses per minute: a median would hide them.
    pub stalls_per_minute: f64,
}

/// Clients with peers beside clients without.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Those that were sent to the swarm.
    pub with_peers: Side,
    /// The control group.
    pub without_peers: Side,
    /// Those with peers are behind in one of the three by the margin.
    pub worse: bool,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with_peers: with, without_peers: without, worse } = self;
        write!(f, "with peers ({}) and without ({}): ", with.count, without.count)?;
        write!(f, "start-up {:.2} s and {:.2} s, ", with.start_up, without.start_up)?;
        write!(f, "{:.2} MB/s and {:.2} MB/s, ", with.rate / 1e6, without.rate / 1e6)?;
        write!(f, "{:.2} and {:.2} pauses a minute: ", with.stalls_per_minute, without.stalls_per_minute)?;
        f.write_str(if *worse { "worse with peers" } else { "not worse with peers" })
    }
}

#[derive(Clone, Debug)]
struct Experiences([Window; 3]);

impl Experiences {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Window::new(SPAN)))
    }

    fn side(&self, now: Instant) -> Option<Side> {
        let [start_up, rate, stalls] = self.0.each_ref().map(|window| window.sorted(now));
        let count = start_up.len();
        if count < EXPERIENCES_MIN {
            return None;
        }
        Some(Side {
            count,
            start_up: quantile(&start_up, 1, 2)?,
            rate: quantile(&rate, 1, 2)?,
            stalls_per_minute: stalls.iter().sum::<f64>() / count as f64,
        })
    }
}

/// Chooses the control group and compares it with the others, for one class of contents.
#[derive(Clone, Debug)]
pub struct ControlGroup {
    /// Of 2^64 keys, so many belong to it.
    below: u64,
    secret: [u8; 32],
    clock: Clock,
    with_peers: Experiences,
    without_peers: Experiences,
    worse_since: Option<Instant>,
    off_since: Option<Instant>,
}

impl ControlGroup {
    /// `share` of the newcomers, 0 to 1 (anything else counts as 0), are chosen by a keyed hash: without `secret` nobody can tell
    /// which.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the range; 1 is all of it")]
    pub fn new(share: f64, secret: [u8; 32]) -> Self {
        let share = if (0.0..=1.0).contains(&share) { share } else { 0.0 };
        Self {
            below: (share * u64::MAX as f64) as u64,
            secret,
            clock: Clock::default(),
            with_peers: Experiences::new(),
            without_peers: Experiences::new(),
            worse_since: None,
            off_since: None,
        }
    }

    /// Whether the newcomer with this id is to be served directly. The same id always gets the same answer, so coming back
    /// changes nothing.
    pub fn contains(&self, client: &[u8]) -> bool {
        let hash = blake3::keyed_hash(&self.secret, client);
        let (first, _) = hash.as_bytes().split_at(8);
        let value = first.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        value < self.below
    }

    /// What a client had of it, with peers or without.
    ///
    /// # Errors
    /// When a value cannot be, or the clock went back or jumped; nothing has changed then.
    pub fn record(&mut self, now: Instant, with_peers: bool, experience: Experience) -> Result<(), Refused> {
        let values = [
            Meter::StartUp.check(experience.start_up.as_secs_f64())?,
            Meter::DirectRate.check(experience.rate.as_u64() as f64)?,
            Meter::Stalls.check(experience.stalls_per_minute)?,
        ];
        self.clock.advance(now)?;
        let side = if with_peers { &mut self.with_peers } else { &mut self.without_peers };
        for (window, value) in side.0.iter_mut().zip(values) {
            window.record(now, value);
        }
        Ok(())
    }

    /// How the two sides fared in the last ten minutes; `None` with fewer than thirty on one of them.
    pub fn comparison(&self, now: Instant) -> Option<Comparison> {
        let (with, without) = (self.with_peers.side(now)?, self.without_peers.side(now)?);
        let worse = with.rate < (1.0 - MARGIN) * without.rate
            || with.start_up > (1.0 + MARGIN) * without.start_up + START_UP_NOTICED
            || with.stalls_per_minute > (1.0 + MARGIN) * without.stalls_per_minute + STALLS_NOTICED;
        Some(Comparison { with_peers: with, without_peers: without, worse })
    }

    /// Whether peers are to be left out for newcomers of this class; to be asked at each join.
    pub fn peers_off(&mut self, now: Instant) -> bool {
        let now = self.clock.answer(now);
        if let Some(since) = self.off_since {
            if now.since(since) < OFF_FOR {
                return true;
            }
            // While peers are off nobody has any, so only trying tells whether they still hurt.
            self.off_since = None;
            self.worse_since = None;
            (self.with_peers, self.without_peers) = (Experiences::new(), Experiences::new());
            return false;
        }
        let worse = self.comparison(now).is_some_and(|comparison| comparison.worse);
        self.worse_since = if worse { Some(self.worse_since.unwrap_or(now)) } else { None };
        if self.worse_since.is_some_and(|since| now.since(since) >= WORSE_FOR) {
            self.off_since = Some(now);
        }
        self.off_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn group(share: f64) -> ControlGroup {
        ControlGroup::new(share, [7; 32])
    }

    const GOOD: Experience = Experience {
        start_up: Duration::from_millis(500),
        rate: BytesPerSecond::new(1_000_000),
        stalls_per_minute: 0.0,
    };

    #[test]
    fn the_share_is_met_and_the_secret_decides_who() {
        for share in [0.0, 0.05, 0.5, 1.0, f64::NAN, 3.0] {
            let group = group(share);
            let count = (0..20_000u32).filter(|id| group.contains(&id.to_le_bytes())).count();
            let expected = if (0.0..=1.0).contains(&share) { share } else { 0.0 };
            assert!((count as f64 / 20_000.0 - expected).abs() < 0.01, "{share}: {count}");
        }
        let (one, other) = (group(0.5), ControlGroup::new(0.5, [8; 32]));
        let same = (0..1_000u32).filter(|id| one.contains(&id.to_le_bytes()) == other.contains(&id.to_le_bytes()));
        assert!((400..600).contains(&same.count()));
    }

    /// Asks each second whether peers are off while both sides have experiences; returns the seconds at which it changed.
    fn story(with: impl Fn(u64) -> Experience, without_every: u64, secs: u64) -> Vec<(u64, bool)> {
        let mut group = group(0.1);
        let mut changes = vec![(0, false)];
        for second in 0..secs {
            let off = group.peers_off(at(second));
            if !off {
                group.record(at(second), true, with(second)).unwrap();
            }
            if second % without_every == 0 {
                group.record(at(second), false, GOOD).unwrap();
            }
            if changes.last().is_some_and(|(_, last)| *last != off) {
                changes.push((second, off));
            }
        }
        changes
    }

    #[test]
    fn peers_that_hurt_are_switched_off_and_tried_again() {
        let slow = |_| Experience { rate: BytesPerSecond::new(790_000), ..GOOD };
        assert_eq!(story(slow, 1, 900), [(0, false), (90, true), (690, false), (780, true)]);
        let late = |_| Experience { start_up: Duration::from_millis(810), ..GOOD };
        assert_eq!(story(late, 1, 200), [(0, false), (90, true)]);
        let paused =
            |second: u64| Experience { stalls_per_minute: if second.is_multiple_of(8) { 1.0 } else { 0.0 }, ..GOOD };
        assert_eq!(story(paused, 1, 200), [(0, false), (90, true)]);
    }

    #[test]
    fn a_small_difference_or_too_few_clients_change_nothing() {
        let slower = |_| Experience { rate: BytesPerSecond::new(810_000), ..GOOD };
        assert_eq!(story(slower, 1, 600), [(0, false)]);
        let slow = |_| Experience { rate: BytesPerSecond::new(1), ..GOOD };
        assert_eq!(story(slow, 30, 600), [(0, false)]);
        let in_turn = |second: u64| Experience { rate: BytesPerSecond::new(1_000_000 * (second / 50 % 2)), ..GOOD };
        assert!(story(in_turn, 1, 600).len() <= 3);
    }

    #[test]
    fn what_was_measured_is_told() {
        let mut group = group(0.1);
        for _ in 0..30 {
            group.record(at(0), true, Experience { rate: BytesPerSecond::new(500_000), ..GOOD }).unwrap();
            group.record(at(0), false, GOOD).unwrap();
        }
        assert_eq!(
            group.comparison(at(0)).unwrap().to_string(),
            "with peers (30) and without (30): start-up 0.50 s and 0.50 s, 0.50 MB/s and 1.00 MB/s, \
             0.00 and 0.00 pauses a minute: worse with peers"
        );
        let refused = group.record(at(0), true, Experience { stalls_per_minute: f64::NAN, ..GOOD });
        assert_eq!(refused.unwrap_err().to_string(), "stalls must be a number from 0 to 600, got NaN");
    }
}
