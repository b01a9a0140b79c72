//! How much the server adds for one client of the swarm whose peers give too little.

use hybrid_units::{BytesPerSecond, Duration, Instant};

/// Time constant of the mean rate: a part that comes late is no deficit.
const SMOOTHING: Duration = Duration::from_secs(5);
/// Less media than this ahead of the playhead is a deficit, whatever the rate: half of it is gone before help shows.
const BUFFER_MIN: Duration = Duration::from_secs(10);
/// Peers have to give this share of the required rate before help ends, and for so long.
const ENOUGH: f64 = 1.1;
const ENOUGH_FOR: Duration = Duration::from_secs(5);

/// The top-up of one client in peer-to-peer mode: what the server should send it beside its peers.
///
/// ```
/// use hybrid_qos::TopUp;
/// use hybrid_units::{BytesPerSecond, Instant};
///
/// let mut top_up = TopUp::new(BytesPerSecond::new(1_000));
/// let now = Instant::from_micros(1);
/// assert_eq!(top_up.update(now, BytesPerSecond::new(400), None), BytesPerSecond::new(600));
/// ```
#[derive(Clone, Debug)]
pub struct TopUp {
    required: f64,
    mean: Option<(Instant, f64)>,
    helping: bool,
    enough_since: Option<Instant>,
}

impl TopUp {
    /// For a client that should get `required`.
    #[allow(clippy::cast_precision_loss, reason = "rates are estimates")]
    pub fn new(required: BytesPerSecond) -> Self {
        Self { required: required.as_u64() as f64, mean: None, helping: false, enough_since: None }
    }

    /// A client's peers gave it `from_peers` since the last update; `buffer` is the media ahead of the playhead, if it plays.
    ///
    /// Returns the rate that the server should add from now on: zero while the peers do well.
    /// A `now` before the last one counts as that one.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are estimates, and not negative"
    )]
    pub fn update(&mut self, now: Instant, from_peers: BytesPerSecond, buffer: Option<Duration>) -> BytesPerSecond {
        let rate = from_peers.as_u64() as f64;
        let (now, mean) = match self.mean {
            None => (now, rate),
            Some((last, mean)) => {
                let now = now.max(last);
                let elapsed = now.since(last).as_secs_f64();
                let weight = elapsed / (elapsed + SMOOTHING.as_secs_f64());
                (now, mean * (1.0 - weight) + rate * weight)
            }
        };
        self.mean = Some((now, mean));
        let thin = buffer.is_some_and(|buffer| buffer < BUFFER_MIN);
        let enough = mean > ENOUGH * self.required && !thin;
        self.enough_since = if enough { Some(self.enough_since.unwrap_or(now)) } else { None };
        if self.enough_since.is_some_and(|since| now.since(since) >= ENOUGH_FOR) {
            self.helping = false;
        } else if mean < self.required || thin {
            self.helping = true;
        }
        // A thin buffer needs more than the required rate to grow; help aims at the rate at which it would end.
        let aim = if thin { ENOUGH * self.required } else { self.required };
        let deficit = if self.helping { (aim - mean).max(0.0) } else { 0.0 };
        BytesPerSecond::new(deficit.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helps_until_peers_have_given_enough_for_a_while() {
        let mut top_up = TopUp::new(BytesPerSecond::new(1_000));
        let mut added = Vec::new();
        for second in 0..40 {
            let rate = if second < 10 { 400 } else { 2_000 };
            let now = Instant::ZERO + Duration::from_secs(second);
            added.push(top_up.update(now, BytesPerSecond::new(rate), None).as_u64());
        }
        assert_eq!((added[0], added[9]), (600, 600));
        assert!(added[10] > 0 && added[10] < 400, "{added:?}");
        assert!(added[14..].iter().all(|rate| *rate == 0), "{added:?}");
        let now = Instant::ZERO + Duration::from_secs(40);
        assert_eq!(top_up.update(now, BytesPerSecond::new(0), None).as_u64(), 0, "one bad second is no deficit");
    }

    #[test]
    fn a_thin_buffer_is_filled() {
        let mut top_up = TopUp::new(BytesPerSecond::new(1_000));
        let mut update = |secs, rate, buffer: u64| {
            let now = Instant::ZERO + Duration::from_secs(secs);
            top_up.update(now, BytesPerSecond::new(rate), Some(Duration::from_secs(buffer))).as_u64()
        };
        assert_eq!(update(0, 1_050, 30), 0);
        assert_eq!(update(1, 1_050, 9), 50);
        assert_eq!(update(2, 1_050, 11), 0);
        assert_eq!(update(0, 1_050, 3), 50, "a clock that went back stands still");
    }
}
