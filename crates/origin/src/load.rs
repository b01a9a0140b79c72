//! What the server measures of itself, and the limit on what it sends.

use hybrid_qos::Sample;
use hybrid_units::{BytesPerSecond, Duration, Instant, TokenBucket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The process's monotonic clock, as the number that the coordinator counts in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }
}

/// Counts what is sent, and holds it back to a rate.
#[derive(Debug)]
pub(crate) struct Egress {
    clock: Clock,
    sent_bytes: AtomicU64,
    bucket: Option<Mutex<TokenBucket>>,
    /// The longest wait since it was last asked for, in microseconds.
    delay: AtomicU64,
}

impl Egress {
    pub(crate) fn new(clock: Clock, limit: Option<BytesPerSecond>) -> Self {
        // What may go at once after a pause: a tenth of a second, which no receiver's queue notices, and at least a small part.
        let bucket = |rate: BytesPerSecond| Mutex::new(TokenBucket::new(rate, (rate.as_u64() / 10).max(64 << 10)));
        Self { clock, sent_bytes: AtomicU64::new(0), bucket: limit.map(bucket), delay: AtomicU64::new(0) }
    }

    /// Waits until so many more bytes keep to the limit. Who comes first goes first.
    pub(crate) async fn pace(&self, bytes: u64) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).spend(self.clock.now(), bytes);
        if !wait.is_zero() {
            self.delay.fetch_max(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            tokio::time::sleep(wait).await;
        }
    }

    /// The longest that bytes had to wait since the last call; `None` without a limit, when they wait for the link unseen.
    pub(crate) fn take_delay(&self) -> Option<Duration> {
        self.bucket.as_ref().map(|_| Duration::from_micros(self.delay.swap(0, Ordering::Relaxed)))
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// Turns counters into rates.
#[derive(Debug)]
pub(crate) struct Sampler {
    at: std::time::Instant,
    sent_bytes: u64,
    cpu_time: Option<Duration>,
    processors: u32,
}

impl Sampler {
    pub(crate) fn start(egress: &Egress) -> Self {
        let processors =
            std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
        Self { at: std::time::Instant::now(), sent_bytes: egress.sent_bytes(), cpu_time: cpu_time(), processors }
    }

    /// What went on since the last call.
    pub(crate) fn sample(&mut self, egress: &Egress) -> Sample {
        let now = std::time::Instant::now();
        let elapsed = now.duration_since(self.at);
        let (sent_bytes, cpu_time) = (egress.sent_bytes(), cpu_time());
        let rate = BytesPerSecond::mean(sent_bytes.saturating_sub(self.sent_bytes), elapsed);
        let available = elapsed.saturating_mul(self.processors);
        let cpu = cpu_time.zip(self.cpu_time).map(|(now, before)| {
            let used = now.saturating_sub(before).as_secs_f64() / available.as_secs_f64().max(1e-6);
            used.clamp(0.0, 1.0)
        });
        (self.at, self.sent_bytes, self.cpu_time) = (now, sent_bytes, cpu_time);
        Sample { egress: rate, cpu }
    }
}

/// The processor time that this process has used; `None` where `/proc` does not tell.
fn cpu_time() -> Option<Duration> {
    parse_cpu_time(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second: what Linux tells user space on every platform.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name in field 2 may hold anything, even parentheses and blanks; the last parenthesis ends it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()?.checked_add(ticks()?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time() {
        let stat = "4242 (odd) name) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(parse_cpu_time("4242 (short) S 1 2 3"), None);
        assert_eq!(parse_cpu_time(""), None);
    }

    #[tokio::test]
    async fn egress_keeps_to_its_rate_over_all_who_send() {
        let egress = Egress::new(Clock::start(), Some(BytesPerSecond::new(1_000_000)));
        let start = std::time::Instant::now();
        tokio::join!(egress.pace(100_000), egress.pace(100_000), egress.pace(200_000));
        // The first 100,000 bytes go at once.
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(299), "{waited:?}");
        let free = Egress::new(Clock::start(), None);
        free.pace(u64::MAX).await;
    }
}
