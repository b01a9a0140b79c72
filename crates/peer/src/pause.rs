//! When a disk that took no part is looked at again.

use std::time::Duration;

/// A look costs two calls of the system, so the first come soon: whoever waits for room often makes it at once.
const FIRST: Duration = Duration::from_millis(500);
/// Long enough to cost nothing, short enough that nobody thinks it hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that become longer, up to a limit, until a part was kept.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// How long to wait now.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }

    /// The disk took a part.
    pub(crate) fn kept(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_and_longer_until_a_part_is_kept() {
        let mut pauses = Pauses::default();
        let seconds: Vec<f64> = (0..9).map(|_| pauses.pause().as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        pauses.kept();
        assert_eq!(pauses.pause(), FIRST);
    }
}
