//! Play-out: a viewer who watches the parts in order, at the rate of the media.

use hybrid_manifest::PartLen;
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// How clients play what they fetch.
///
/// A client begins when the media of [`Playback::start_buffer`] is held in order from the beginning, and plays a part in the
/// time that it lasts.
/// If the next part is not held then, it stalls until the media of [`Playback::resume_buffer`] is held from there on, or all that
/// is left.
/// It begins as early as that, and nobody skips: what a player does to hide a stall is not modelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a scenario is data")]
pub struct Playback {
    /// The rate of the media.
    pub rate: BytesPerSecond,
    /// Media that is held before the first picture.
    pub start_buffer: Duration,
    /// Media that is held before a player that ran dry goes on.
    pub resume_buffer: Duration,
}

impl Playback {
    /// Media of this rate, with the buffers that ExoPlayer 2 (Android) has by default: 2.5 s before the first picture, 5 s after
    /// it ran dry (`DefaultLoadControl`).
    pub fn new(rate: BytesPerSecond) -> Self {
        Self { rate, start_buffer: Duration::from_millis(2_500), resume_buffer: Duration::from_secs(5) }
    }

    /// How long a part plays.
    pub fn part_time(&self, part_len: PartLen) -> Duration {
        self.rate.time_for(part_len.as_u64())
    }

    /// Parts that hold the media of the first buffer.
    pub fn start_parts(&self, part_len: PartLen) -> u32 {
        parts_of(self.start_buffer, self.part_time(part_len))
    }
}

fn parts_of(buffer: Duration, part_time: Duration) -> u32 {
    u32::try_from(buffer.as_micros().div_ceil(part_time.as_micros().max(1))).unwrap_or(u32::MAX).max(1)
}

/// What became of one client's play-out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlayOutcome {
    /// From the arrival to the first picture; `None` if it never came.
    pub start_up_secs: Option<f64>,
    /// How often it ran dry.
    pub stalls: u32,
    /// How long it stood still after its beginning.
    pub stalled_secs: f64,
    /// How long it played.
    pub played_secs: f64,
    /// Whether it played to the end.
    pub ended: bool,
}

/// What comes after a part was played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Played {
    /// The next one plays.
    Next,
    /// The next one is not held.
    Stalled,
    /// That was the last one.
    Ended,
}

/// One client's player.
#[derive(Clone, Debug)]
pub(crate) struct Player {
    parts: u32,
    pub(crate) part_time: Duration,
    resume_parts: u32,
    arrived: Instant,
    /// The part that plays, or that is waited for.
    pub(crate) place: u32,
    /// Parts held in order from the beginning.
    in_order: u32,
    /// It stands still until so many are.
    wanted: u32,
    /// Since when it stands still.
    waits_since: Option<Instant>,
    start_up: Option<Duration>,
    stalls: u32,
    stalled: Duration,
    ended: bool,
}

impl Player {
    pub(crate) fn new(playback: &Playback, part_len: PartLen, parts: u32, arrived: Instant) -> Self {
        let part_time = playback.part_time(part_len);
        Self {
            parts,
            part_time,
            resume_parts: parts_of(playback.resume_buffer, part_time),
            arrived,
            place: 0,
            in_order: 0,
            wanted: playback.start_parts(part_len).min(parts),
            waits_since: Some(arrived),
            start_up: None,
            stalls: 0,
            stalled: Duration::ZERO,
            ended: false,
        }
    }

    /// More parts are held; says whether it begins to play the part at its place.
    pub(crate) fn on_held(&mut self, now: Instant, is_held: impl Fn(u32) -> bool) -> bool {
        while self.in_order < self.parts && is_held(self.in_order) {
            self.in_order += 1;
        }
        let Some(since) = self.waits_since.filter(|_| self.in_order >= self.wanted) else { return false };
        self.waits_since = None;
        if self.start_up.is_none() {
            self.start_up = Some(now.since(self.arrived));
        } else {
            self.stalled += now.since(since);
        }
        true
    }

    /// The part at its place has been played.
    pub(crate) fn on_played(&mut self, now: Instant) -> Played {
        self.place += 1;
        if self.place == self.parts {
            self.ended = true;
            Played::Ended
        } else if self.place < self.in_order {
            Played::Next
        } else {
            self.stalls += 1;
            self.waits_since = Some(now);
            self.wanted = self.place.saturating_add(self.resume_parts).min(self.parts);
            Played::Stalled
        }
    }

    /// Media that is held in order from the playhead on.
    pub(crate) fn buffer(&self) -> Duration {
        self.part_time * self.in_order.saturating_sub(self.place)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// How it went, if the run ended at this time.
    pub(crate) fn outcome(&self, end: Instant) -> PlayOutcome {
        let waits =
            self.waits_since.filter(|_| self.start_up.is_some()).map_or(Duration::ZERO, |since| end.since(since));
        PlayOutcome {
            start_up_secs: self.start_up.map(|time| time.as_secs_f64()),
            stalls: self.stalls,
            stalled_secs: (self.stalled + waits).as_secs_f64(),
            played_secs: (self.part_time * self.place).as_secs_f64(),
            ended: self.ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// Parts of a second, begun with three, gone on with after a stall with five.
    fn player(parts: u32) -> Player {
        let part_len = PartLen::new(1 << 20).expect("a power of two within the limits");
        Player::new(&Playback::new(BytesPerSecond::new(1 << 20)), part_len, parts, at(10))
    }

    #[test]
    fn it_begins_when_the_first_buffer_is_held_in_order() {
        let mut player = player(10);
        assert!(!player.on_held(at(11), |part| part < 2));
        assert!(!player.on_held(at(12), |part| part != 2));
        assert!(player.on_held(at(13), |part| part < 3));
        assert_eq!(player.outcome(at(13)).start_up_secs, Some(3.0));
    }

    #[test]
    fn it_stalls_until_the_second_buffer_is_held_and_then_ends() {
        let mut player = player(9);
        assert!(player.on_held(at(10), |part| part < 3));
        assert_eq!([11, 12].map(|secs| player.on_played(at(secs))), [Played::Next; 2]);
        assert_eq!(player.on_played(at(13)), Played::Stalled);
        assert!(!player.on_held(at(14), |part| part < 7), "four of five");
        let waiting = player.outcome(at(15));
        assert_eq!((waiting.stalled_secs, waiting.played_secs, waiting.stalls), (2.0, 3.0, 1));
        assert!(player.on_held(at(16), |part| part < 9));
        let rest: Vec<Played> = (17..23).map(|secs| player.on_played(at(secs))).collect();
        assert_eq!(rest, [[Played::Next; 5].as_slice(), &[Played::Ended]].concat());
        let end = player.outcome(at(40));
        assert_eq!((end.stalled_secs, end.played_secs, end.ended), (3.0, 9.0, true));
    }

    #[test]
    fn a_short_content_and_the_end_need_no_full_buffer() {
        let mut short = player(2);
        assert!(short.on_held(at(11), |part| part < 2));
        let mut player = player(4);
        assert!(player.on_held(at(11), |part| part < 3));
        for secs in 12..14 {
            assert_eq!(player.on_played(at(secs)), Played::Next);
        }
        assert_eq!(player.on_played(at(14)), Played::Stalled);
        assert!(player.on_held(at(15), |part| part < 4));
        assert_eq!(player.on_played(at(16)), Played::Ended);
    }
}
