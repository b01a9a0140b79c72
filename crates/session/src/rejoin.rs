//! When a client that lost its server tries again.

use hybrid_units::Duration;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The first pause: a server that only starts again is missed for a moment.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause before chance is added, which makes it up to half longer: a server that comes back has all clients
/// within a minute.
const LONGEST: Duration = Duration::from_secs(40);

/// Pauses between tries to reach the server.
///
/// They double from one second to 40, each made up to half longer or shorter, so that a crowd that lost its server does not
/// come back in one instant.
#[derive(Debug)]
pub struct Rejoin {
    pause: Duration,
    rng: ChaCha8Rng,
}

impl Rejoin {
    /// Clients with different seeds try at different times.
    pub fn new(seed: u64) -> Self {
        Self { pause: FIRST, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// How long to wait now.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause.mul_f64(self.rng.random_range(0.5..=1.5))
    }

    /// The server welcomed the client: the next pause is a short one again.
    pub fn welcomed(&mut self) {
        self.pause = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: u64 = 1_000;

    /// When each client of a crowd tries again for the first time after its server, which was lost by all at one moment, is back.
    fn returns(away: Duration) -> Vec<Duration> {
        let first_after = |seed| {
            let mut rejoin = Rejoin::new(seed);
            let mut at = Duration::ZERO;
            while at < away {
                at += rejoin.pause();
            }
            at - away
        };
        (0..CLIENTS).map(first_after).collect()
    }

    fn most_in_a_second(times: &[Duration]) -> usize {
        let mut seconds = [0; 120];
        times.iter().for_each(|at| seconds[usize::try_from(at.as_secs()).expect("soon")] += 1);
        seconds.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn all_are_back_within_a_minute() {
        for secs in [0, 1, 7, 30, 60, 600, 86_400] {
            let returns = returns(Duration::from_secs(secs));
            assert!(returns.iter().all(|at| at.as_secs() < 60), "away for {secs} s");
        }
    }

    #[test]
    fn they_come_back_one_after_the_other() {
        for secs in [60, 61, 90, 600, 86_400] {
            let most = most_in_a_second(&returns(Duration::from_secs(secs)));
            assert!(most <= 60, "away for {secs} s: {most} of {CLIENTS} in one second");
        }
    }

    #[test]
    fn a_welcome_makes_the_pause_short_again() {
        let mut rejoin = Rejoin::new(1);
        let long = (0..10).map(|_| rejoin.pause()).last();
        rejoin.welcomed();
        assert!(rejoin.pause() < Duration::from_secs(2) && long > Some(Duration::from_secs(19)));
    }
}
