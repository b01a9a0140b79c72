//! The engine: samples in, verdicts out.

use crate::allowance::{Allowance, Condition, IDLE_PERCENT};
use crate::latch::{Latch, Times};
use crate::verdict::{Measure, Reason, Thresholds, Verdict};
use crate::{Config, ConfigError, DirectClients};
use hybrid_units::{BytesPerSecond, Instant, Mode};

/// The largest rate that is believed, 8 Tbit/s: no server sends as much, so it is an error of measurement.
const RATE_MAX: BytesPerSecond = BytesPerSecond::new(1_000_000_000_000);

/// What the server measured of itself since the sample before; to be given several times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "who measures must know all that is asked for")]
pub struct Sample {
    /// Bytes per second sent.
    pub egress: BytesPerSecond,
    /// The share of all processors that was in use, 0 to 1; `None` where it cannot be measured.
    pub cpu: Option<f64>,
}

/// What the caller counts at the moment of a join, the newcomer not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "who asks must know all that is compared")]
pub struct Load {
    /// Clients that are served directly.
    pub direct_clients: u32,
    /// Holders of the content that the newcomer could be sent to.
    pub holders_reachable: u32,
}

/// Why a measurement was left out. The engine is as it was before.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A time before that of the last measurement.
    #[error("the clock went back: the last measurement was at {last}, this one is at {got}")]
    ClockBack {
        /// The latest time so far.
        last: Instant,
        /// The time given.
        got: Instant,
    },
    /// No share of the processors.
    #[error("cpu must be a number from 0 to 1, got {0}")]
    Cpu(f64),
    /// A rate that nobody reaches.
    #[error("{got} is beyond the largest rate that is believed, {max}", max = RATE_MAX)]
    Rate {
        /// The rate given.
        got: BytesPerSecond,
    },
}

/// Compares what is measured with thresholds that move, for newcomers.
///
/// Bounded memory, about 6 KiB at most; a verdict costs at most sorting 256 numbers.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    times: Times,
    last: Instant,
    /// `None` without an egress limit.
    egress: Option<Latch>,
    cpu: Latch,
    /// Mean egress whether or not there is a limit.
    egress_mean: Latch,
    allowance: Allowance,
}

/// Rates and counts as comparable numbers; exact below 2^53, and beyond that nothing here depends on the last digit.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn float(value: u64) -> f64 {
    value as f64
}

impl Engine {
    /// An engine that has measured nothing yet.
    ///
    /// # Errors
    /// When the configuration contradicts itself; the error names the values.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let egress = config.egress_limit.map(|limit| {
            let limit = float(limit.as_u64());
            Latch::new(config.egress.low * limit, config.egress.high * limit)
        });
        Ok(Self {
            times: Times::from(&config),
            last: Instant::ZERO,
            egress,
            cpu: Latch::new(config.cpu.low, config.cpu.high),
            egress_mean: Latch::new(f64::INFINITY, f64::INFINITY),
            allowance: Allowance::new(&config),
            config,
        })
    }

    /// The configuration given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check_time(&self, now: Instant) -> Result<(), SampleError> {
        if now < self.last { Err(SampleError::ClockBack { last: self.last, got: now }) } else { Ok(()) }
    }

    fn check_rate(got: BytesPerSecond) -> Result<(), SampleError> {
        if got > RATE_MAX { Err(SampleError::Rate { got }) } else { Ok(()) }
    }

    /// The server measured itself.
    ///
    /// # Errors
    /// When a number makes no sense or the clock went back; nothing has changed then.
    pub fn sample(&mut self, now: Instant, sample: Sample) -> Result<(), SampleError> {
        self.check_time(now)?;
        Self::check_rate(sample.egress)?;
        if let Some(cpu) = sample.cpu.filter(|cpu| !(0.0..=1.0).contains(cpu)) {
            return Err(SampleError::Cpu(cpu));
        }
        self.last = now;
        let egress = float(sample.egress.as_u64());
        self.egress_mean.sample(now, egress, self.times);
        if let Some(latch) = &mut self.egress {
            latch.sample(now, egress, self.times);
        }
        if let Some(cpu) = sample.cpu {
            self.cpu.sample(now, cpu, self.times);
        }
        if self.cpu.is_above() {
            self.allowance.loaded_at(now, self.egress_mean().unwrap_or(0));
        }
        Ok(())
    }

    /// A direct client was served at this rate since its last report. Only [`DirectClients::Auto`] looks at it.
    ///
    /// Give each client's rate once an interval, and rather what the server saw acknowledged than what the client says:
    /// the engine has no way to check it.
    ///
    /// # Errors
    /// When the rate makes no sense or the clock went back; nothing has changed then.
    pub fn client_rate(&mut self, now: Instant, rate: BytesPerSecond) -> Result<(), SampleError> {
        self.check_time(now)?;
        Self::check_rate(rate)?;
        self.last = now;
        self.allowance.client_rate(now, rate.as_u64());
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of rates below RATE_MAX")]
    fn egress_mean(&self) -> Option<u64> {
        self.egress_mean.value().map(|mean| mean as u64)
    }

    /// Brings the thresholds up to date, compares, and decides for one newcomer.
    ///
    /// A `now` before the last measurement counts as that measurement's time: a join must have an answer.
    pub fn verdict(&mut self, now: Instant, load: Load) -> Verdict {
        let now = now.max(self.last);
        self.last = now;
        let latches = || self.egress.iter().chain([&self.cpu]);
        let condition = Condition {
            egress: self.egress_mean(),
            loaded: latches().any(|latch| latch.passed() || latch.is_above()),
            cpu_idle: self.cpu.value().is_none_or(|cpu| cpu * 100.0 < self.config.cpu.high * f64::from(IDLE_PERCENT)),
        };
        self.allowance.update(now, load.direct_clients, condition);
        let thresholds = self.thresholds();
        let count = Reason {
            measure: Measure::DirectClients,
            value: f64::from(load.direct_clients),
            threshold: f64::from(thresholds.direct_clients),
            passed: load.direct_clients >= thresholds.direct_clients,
        };
        let holders = Reason {
            measure: Measure::Holders,
            value: f64::from(load.holders_reachable),
            threshold: f64::from(self.config.holders_min),
            passed: load.holders_reachable >= self.config.holders_min,
        };
        let measured = |measure: Measure, latch: &Latch| {
            let value = latch.value()?;
            Some(Reason { measure, value, threshold: latch.mark(), passed: latch.passed() })
        };
        let mut reasons = vec![count];
        reasons.extend(self.egress.as_ref().and_then(|latch| measured(Measure::Egress, latch)));
        reasons.extend(measured(Measure::Cpu, &self.cpu));
        let passed = reasons.iter().any(|reason| reason.passed);
        let mode = if passed && holders.passed { Mode::PeerToPeer } else { Mode::ClientServer };
        reasons.push(holders);
        Verdict { mode, reasons, thresholds }
    }

    /// The thresholds as of the last measurement or verdict, for status pages.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a rate")]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            direct_clients: match self.config.direct_clients {
                DirectClients::Fixed(clients) => clients,
                DirectClients::Auto => self.allowance.allowed(),
            },
            egress: self.egress.as_ref().map(|latch| BytesPerSecond::new(latch.mark() as u64)),
            cpu: self.cpu.mark(),
            capacity: self.allowance.capacity(self.last),
        }
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        self.allowance.check_invariants();
        for value in [self.egress_mean.value(), self.cpu.value()].into_iter().flatten() {
            assert!(value.is_finite() && value >= 0.0, "{self:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_units::Duration;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    fn fixed(clients: u32) -> Engine {
        let limit = Some(BytesPerSecond::new(1_000));
        let direct_clients = DirectClients::Fixed(clients);
        Engine::new(Config { direct_clients, egress_limit: limit, ..Config::default() }).unwrap()
    }

    fn load(direct_clients: u32, holders_reachable: u32) -> Load {
        Load { direct_clients, holders_reachable }
    }

    /// The verdict and its reasons on lines, as a log would show them.
    fn shown(verdict: &Verdict) -> Vec<String> {
        let reasons = verdict.reasons.iter().map(ToString::to_string);
        [verdict.mode.to_string()].into_iter().chain(reasons).collect()
    }

    #[test]
    fn the_count_is_exact_and_immediate() {
        for (allowed, direct, holders, expected) in [
            (2, 0, 5, Mode::ClientServer),
            (2, 1, 5, Mode::ClientServer),
            (2, 2, 5, Mode::PeerToPeer),
            (2, 3, 1, Mode::PeerToPeer),
            (2, 3, 0, Mode::ClientServer),
            (0, 0, 0, Mode::ClientServer),
            (0, 0, 1, Mode::PeerToPeer),
            (u32::MAX, u32::MAX - 1, 1, Mode::ClientServer),
        ] {
            let verdict = fixed(allowed).verdict(at(0), load(direct, holders));
            assert_eq!(verdict.mode, expected, "{verdict:?}");
        }
    }

    #[test]
    fn without_a_holder_the_server_serves_and_says_so() {
        let verdict = fixed(2).verdict(at(0), load(2, 0));
        assert_eq!(
            shown(&verdict),
            [
                "client-server",
                "direct clients 2 of 2 allowed: passed",
                "reachable holders 0 of 1 needed: too few, the server serves"
            ]
        );
    }

    #[test]
    fn egress_is_entered_after_a_while_and_left_after_a_longer_one() {
        let mut engine = fixed(100);
        let mut story = Vec::new();
        for second in 0..200 {
            let egress = BytesPerSecond::new(if second < 20 { 950 } else { 500 });
            engine.sample(at(second * 1_000), Sample { egress, cpu: Some(0.5) }).unwrap();
            let verdict = engine.verdict(at(second * 1_000), load(3, 9));
            if story.last().is_none_or(|(_, last)| *last != verdict.mode) {
                story.push((second, verdict.mode));
            }
            if second == 60 {
                assert_eq!(
                    shown(&verdict),
                    [
                        "peer-to-peer",
                        "direct clients 3 of 100 allowed: not passed",
                        "egress 4.0 kbit/s, low mark 5.0 kbit/s: passed, not yet below for long enough",
                        "cpu 50 % of 85 % allowed: not passed",
                        "reachable holders 9 of 1 needed: enough"
                    ]
                );
            }
        }
        // Entered after 5 s; the mean sinks below 630 in 2 s, and 60 s later it is left.
        assert_eq!(story, [(0, Mode::ClientServer), (5, Mode::PeerToPeer), (81, Mode::ClientServer)]);
    }

    #[test]
    fn processors_alone_suffice() {
        let mut engine = fixed(100);
        for second in 0..=5 {
            engine.sample(at(second * 1_000), Sample { egress: BytesPerSecond::new(0), cpu: Some(0.99) }).unwrap();
        }
        assert_eq!(engine.verdict(at(5_000), load(0, 1)).mode, Mode::PeerToPeer);
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let mut engine = fixed(1);
        engine.sample(at(2_000), Sample { egress: BytesPerSecond::new(10), cpu: Some(0.5) }).unwrap();
        let before = format!("{engine:?}");
        for (millis, egress, cpu, expected) in [
            (3_000, 10, f64::NAN, "cpu must be a number from 0 to 1, got NaN"),
            (3_000, 10, f64::INFINITY, "cpu must be a number from 0 to 1, got inf"),
            (3_000, 10, -0.1, "cpu must be a number from 0 to 1, got -0.1"),
            (3_000, 10, 1.1, "cpu must be a number from 0 to 1, got 1.1"),
            (3_000, u64::MAX, 0.5, "18446744.1 Tbit/s is beyond the largest rate that is believed, 8.0 Tbit/s"),
            (1_999, 10, 0.5, "the clock went back: the last measurement was at 2.000000s, this one is at 1.999000s"),
        ] {
            let sample = Sample { egress: BytesPerSecond::new(egress), cpu: Some(cpu) };
            assert_eq!(engine.sample(at(millis), sample).unwrap_err().to_string(), expected);
            assert_eq!(format!("{engine:?}"), before, "nothing has changed");
        }
        assert!(matches!(engine.client_rate(at(0), BytesPerSecond::new(1)), Err(SampleError::ClockBack { .. })));
        assert!(matches!(engine.client_rate(at(9_000), BytesPerSecond::new(u64::MAX)), Err(SampleError::Rate { .. })));
        assert_eq!(format!("{engine:?}"), before, "nothing has changed");
    }

    /// A link that is shared evenly by clients who take up to `demand` percent of the required rate; newcomers fill what is
    /// allowed, and the direct ones stay. Returns the number allowed after each phase of (capacity in required rates, seconds).
    fn shared_link(limit: Option<u64>, demand: u64, phases: &[(u64, u64)]) -> Vec<u32> {
        const REQUIRED: u64 = 1_000_000;
        let egress_limit = limit.map(|clients| BytesPerSecond::new(clients * REQUIRED));
        let mut engine = Engine::new(Config { egress_limit, ..Config::default() }).unwrap();
        let (mut now, mut direct) = (Instant::ZERO, 0);
        let mut allowed = Vec::new();
        for (capacity, seconds) in phases {
            for _ in 0..seconds * 4 {
                now += Duration::from_millis(250);
                let each = (capacity * REQUIRED / u64::from(direct).max(1)).min(demand * REQUIRED / 100);
                let egress = BytesPerSecond::new(each * u64::from(direct));
                engine.sample(now, Sample { egress, cpu: Some(0.3) }).unwrap();
                for _ in 0..direct.min(50) {
                    engine.client_rate(now, BytesPerSecond::new(each)).unwrap();
                }
                if engine.verdict(now, load(direct, 1)).mode == Mode::ClientServer {
                    direct += 1;
                }
                // A fifth of the clients is done each 25 s or so; whoever stays has stayed direct.
                direct -= u32::from(direct > 0 && now.as_micros() % 5_000_000 == 0) * direct.div_ceil(25);
                engine.check_invariants();
            }
            allowed.push(engine.thresholds().direct_clients);
        }
        allowed
    }

    #[test]
    fn auto_finds_the_number_and_follows_the_link() {
        let [found, halved, back] = shared_link(None, 200, &[(100, 180), (50, 60), (100, 120)])[..] else {
            panic!("three phases")
        };
        assert!((80..=95).contains(&found), "{found} of 100 / 1.08");
        assert!((40..=50).contains(&halved), "{halved} of 50 / 1.08");
        assert!((80..=95).contains(&back), "{back} of 100 / 1.08");
    }

    #[test]
    fn auto_starts_from_the_configured_limit() {
        assert_eq!(shared_link(Some(100), 100, &[(100, 5)]), [92]);
        let [halved] = shared_link(Some(100), 100, &[(100, 60), (50, 60)])[1..] else { panic!("two phases") };
        assert!((40..=50).contains(&halved), "{halved} of 50 / 1.08");
    }
}
