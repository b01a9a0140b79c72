//! What the server knows that it sent to one client, against what the client says.

use hybrid_units::{BytesPerSecond, Duration, Instant};

/// Over how long a rate is taken, at least: some parts of 256 KiB at the rate of a film.
const SPAN: Duration = Duration::from_secs(2);

/// Bytes of parts that the server sent to a client and that the client reported to have.
#[derive(Debug)]
pub(crate) struct Counted {
    began: Instant,
    bytes: u64,
    /// The span before: bytes, and how long it was.
    before: (u64, Duration),
}

impl Counted {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, before: (0, Duration::ZERO) }
    }

    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        let elapsed = now.since(self.began);
        if elapsed >= SPAN {
            *self = Self { began: now, bytes: 0, before: (self.bytes, elapsed) };
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The most that the client can have been served at; one part may have been on its way when the spans began.
    pub(crate) fn rate_most(&self, now: Instant, part_len: u64) -> BytesPerSecond {
        let (bytes, span) = self.before;
        let bytes = bytes.saturating_add(self.bytes).saturating_add(part_len);
        BytesPerSecond::mean(bytes, (span + now.since(self.began)).max(SPAN / 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_claim_goes_beyond_what_was_sent() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut counted = Counted::new(at(0));
        let most = |counted: &Counted, millis| counted.rate_most(at(millis), 100).as_u64();
        assert_eq!(most(&counted, 0), 400, "one part, over the shortest time that is judged");
        counted.add(at(1_000), 900);
        assert_eq!(most(&counted, 1_000), 1_000);
        counted.add(at(2_000), 100);
        assert_eq!(most(&counted, 2_000), 550, "both spans");
        counted.add(at(5_000), 100);
        assert_eq!(most(&counted, 5_000), 100, "what is long ago counts no more");
    }
}
