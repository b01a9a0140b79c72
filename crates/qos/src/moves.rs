//! How many clients change their mode while they are served, and how fast. Which ones is the caller's to choose.

use hybrid_units::{Duration, Instant};

/// Direct clients leave for the swarm only above this multiple of the number allowed: a newcomer more is no reason.
const OVER: f64 = 1.1;
/// They come back only below this multiple.
const UNDER: f64 = 0.8;
/// For so long there must have been room, so that a wave of departures calls nobody back who would go again.
const ROOM_FOR: Duration = Duration::from_secs(5);
/// And for so long nobody may have left for want of service: there is room because they left.
const ROOM_AFTER: Duration = Duration::from_secs(30);
/// Of those who were direct when it began (of those allowed, on the way back), so many move a second at most: the swarm has to
/// take them in.
const SHARE_A_SECOND: f64 = 0.1;

/// How many clients should change their mode now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moves {
    /// So many direct clients should go to the swarm: those with most bytes left, who hold parts that others lack.
    pub to_swarm: u32,
    /// So many of the swarm may be served directly again: those who wait or suffer most.
    pub to_direct: u32,
}

/// Paces the moves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mover {
    room_since: Option<Instant>,
    left_at: Option<Instant>,
    /// When moves were last allowed for, and of how many clients a share may move; `None` while there is nothing to move.
    paced: Option<(Instant, f64)>,
    /// What is left of the pace, below one client.
    owed: f64,
}

impl Mover {
    /// A direct client left for want of service.
    pub(crate) fn left(&mut self, now: Instant) {
        self.left_at = Some(now);
    }

    /// `direct` clients are there, `allowed` may be; `waiting` says how many would come back.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "non-negative, and saturates")]
    pub(crate) fn moves(&mut self, now: Instant, direct: u32, allowed: u32, waiting: impl FnOnce() -> u32) -> Moves {
        let (n, target) = (f64::from(direct), f64::from(allowed));
        let over = n > OVER * target;
        if n >= UNDER * target {
            self.room_since = None;
        } else if self.room_since.is_none() {
            self.room_since = Some(now);
        }
        if over {
            self.left_at = Some(now);
        }
        let room = self.room_since.is_some_and(|since| now.since(since) >= ROOM_FOR)
            && self.left_at.is_none_or(|left| now.since(left) >= ROOM_AFTER);
        if !over && !room {
            (self.paced, self.owed) = (None, 0.0);
            return Moves::default();
        }
        // The first move is due at once.
        let (last, base, first) = match self.paced {
            Some((last, base)) => (last, base, 0.0),
            None => (now, if over { n } else { target }.max(1.0), 1.0),
        };
        self.paced = Some((now, base));
        let wanted = if over { n - OVER * target } else { UNDER * target - n };
        let elapsed = now.since(last).as_secs_f64().min(1.0);
        self.owed = (self.owed + first + (SHARE_A_SECOND * base).max(1.0) * elapsed).min(base);
        let mut count = self.owed.min(wanted.ceil()).floor();
        if !over && count > 0.0 {
            count = count.min(waiting().into());
        }
        self.owed -= count;
        let count = count as u32;
        if over { Moves { to_swarm: count, to_direct: 0 } } else { Moves { to_swarm: 0, to_direct: count } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn a_tenth_a_second_leaves_until_it_is_nearly_enough() {
        let (mut mover, mut direct) = (Mover::default(), 100);
        let mut by_second = Vec::new();
        for quarter in 0..40 {
            let moves = mover.moves(at(quarter * 250), direct, 50, || 0);
            assert_eq!(moves.to_direct, 0);
            direct -= moves.to_swarm;
            if quarter % 4 == 0 {
                by_second.push(direct);
            }
        }
        assert_eq!(by_second[..3], [99, 89, 79]);
        assert_eq!(direct, 55, "one tenth too many is borne");
    }

    #[test]
    fn room_must_last_before_anybody_comes_back() {
        let mut mover = Mover::default();
        for (millis, direct, expected) in [
            (0, 70, 0),
            (4_000, 85, 0),
            (5_000, 70, 0),
            (9_999, 70, 0),
            (10_000, 70, 1),
            (10_500, 71, 5),
            (11_000, 79, 1),
        ] {
            assert_eq!(mover.moves(at(millis), direct, 100, || 9).to_direct, expected, "at {millis} ms");
        }
        assert_eq!(mover.moves(at(12_000), 80, 100, || 9), Moves::default());
    }

    #[test]
    fn nobody_comes_back_because_others_left_nor_if_nobody_waits() {
        let mut mover = Mover::default();
        assert_eq!(mover.moves(at(0), 70, 60, || 9).to_swarm, 1);
        let mut back = |millis, waiting| mover.moves(at(millis), 50, 100, || waiting).to_direct;
        assert_eq!([back(1_000, 9), back(29_000, 9), back(30_000, 0), back(30_100, 1)], [0, 0, 0, 1]);
    }
}
