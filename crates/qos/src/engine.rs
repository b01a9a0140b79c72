//! The engine: what is measured goes in here; what it decides is in `decide`.

mod decide;
#[cfg(test)]
mod tests;

use crate::allowance::{Allowance, Condition, IDLE};
use crate::clock::Clock;
use crate::events::Log;
use crate::latch::{Latch, Times};
use crate::moves::Mover;
use crate::refused::RATE_MAX;
use crate::reports::{Targets, Votes};
use crate::{ClientReport, Comparison, Config, ConfigError, ControlGroup, DirectClients, Event, Experience};
use crate::{Meter, Meters, Refused, Sample, Summary};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use std::net::IpAddr;

/// Under `Auto` a full link is no reason while the slow fifth gets this share of the required rate.
const SERVED: f64 = 0.9;

/// Compares what is measured with thresholds that move, for newcomers.
///
/// Bounded memory: the meters (60 KiB), the votes of networks (1 MiB) and the decisions kept (400 KiB), each at most.
/// A verdict costs at most sorting 256 numbers, and one number for each network that votes.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    times: Times,
    clock: Clock,
    /// `None` without an egress limit.
    egress: Option<Latch>,
    cpu: Latch,
    /// Mean egress whether or not there is a limit.
    egress_mean: Latch,
    /// Mean time that bytes wait in the server, in seconds.
    delay: Latch,
    allowance: Allowance,
    /// The last moment at which the slow fifth of direct clients got less than it should.
    short_at: Option<Instant>,
    meters: Meters,
    votes: Votes,
    /// The share of the number of direct clients that the votes leave.
    effect: f64,
    counted_at: Instant,
    control: ControlGroup,
    peers_off: bool,
    mover: Mover,
    /// As of the last verdict.
    direct_clients: u32,
    mode: Option<Mode>,
    allowed: u32,
    log: Log,
}

/// Rates and counts as comparable numbers; exact below 2^53, and beyond that nothing here depends on the last digit.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn float(rate: BytesPerSecond) -> f64 {
    rate.as_u64() as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and no rate is negative")]
fn rate(value: f64) -> BytesPerSecond {
    BytesPerSecond::new(value as u64)
}

impl Engine {
    /// An engine that has measured nothing yet.
    ///
    /// # Errors
    /// When the configuration contradicts itself; the error names the values.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let egress = config.egress_limit.map(|limit| {
            let limit = float(limit);
            Latch::new(config.egress.low * limit, config.egress.high * limit)
        });
        let delay = config.queue_delay.as_secs_f64();
        let mut engine = Self {
            times: Times::from(&config),
            clock: Clock::default(),
            egress,
            cpu: Latch::new(config.cpu.low, config.cpu.high),
            egress_mean: Latch::new(f64::INFINITY, f64::INFINITY),
            delay: Latch::new(delay, delay),
            allowance: Allowance::new(&config),
            short_at: None,
            meters: Meters::default(),
            votes: Votes::default(),
            effect: 1.0,
            counted_at: Instant::ZERO,
            control: ControlGroup::new(config.control_share, config.control_secret),
            peers_off: false,
            mover: Mover::default(),
            direct_clients: 0,
            mode: None,
            allowed: 0,
            log: Log::new(config.events_max),
            config,
        };
        engine.allowed = engine.thresholds().direct_clients;
        Ok(engine)
    }

    /// The configuration given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check_rate(got: BytesPerSecond) -> Result<(), Refused> {
        if got > RATE_MAX { Err(Refused::Rate { got }) } else { Ok(()) }
    }

    /// A value that was checked, at a time that was believed.
    fn meter(&mut self, now: Instant, meter: Meter, value: f64) {
        let recorded = self.meters.record(now, meter, value);
        debug_assert!(recorded.is_ok(), "{recorded:?}");
    }

    /// The server measured itself.
    ///
    /// # Errors
    /// When a number makes no sense or the clock went back or jumped; nothing else has changed then.
    pub fn sample(&mut self, now: Instant, sample: Sample) -> Result<(), Refused> {
        Self::check_rate(sample.egress)?;
        if let Some(cpu) = sample.cpu.filter(|cpu| !(0.0..=1.0).contains(cpu)) {
            return Err(Refused::Cpu(cpu));
        }
        self.clock.advance(now)?;
        let egress = float(sample.egress);
        self.meter(now, Meter::Egress, egress);
        self.egress_mean.sample(now, egress, self.times);
        if let Some(latch) = &mut self.egress {
            latch.sample(now, egress, self.times);
        }
        if let Some(cpu) = sample.cpu {
            self.meter(now, Meter::Cpu, cpu);
            self.cpu.sample(now, cpu, self.times);
        }
        let condition = self.condition();
        self.allowance.observe(now, condition);
        self.note_service(now);
        Ok(())
    }

    /// A direct client was served at this rate since its last report. Only [`DirectClients::Auto`] looks at it.
    ///
    /// Give each client's rate once an interval, and rather what the server saw acknowledged than what the client says:
    /// the engine has no way to check it.
    ///
    /// # Errors
    /// When the rate makes no sense or the clock went back or jumped; nothing else has changed then.
    pub fn client_rate(&mut self, now: Instant, rate: BytesPerSecond) -> Result<(), Refused> {
        Self::check_rate(rate)?;
        self.clock.advance(now)?;
        self.meter(now, Meter::DirectRate, float(rate));
        self.allowance.client_rate(now, float(rate));
        Ok(())
    }

    /// Bytes waited so long in the server before they were sent: in its own queue, not in that of one client's connection,
    /// which is long whenever the client is the slower end.
    ///
    /// # Errors
    /// When it is over a minute or the clock went back or jumped; nothing else has changed then.
    pub fn queue_delay(&mut self, now: Instant, delay: Duration) -> Result<(), Refused> {
        let secs = Meter::QueueDelay.check(delay.as_secs_f64())?;
        self.clock.advance(now)?;
        self.meter(now, Meter::QueueDelay, secs);
        self.delay.sample(now, secs, self.times);
        Ok(())
    }

    /// A part was served in this time: from its request until all its bytes were there to be sent, or, if it was sent unasked, until
    /// they were written.
    ///
    /// # Errors
    /// When it is over an hour or the clock went back or jumped; nothing else has changed then.
    pub fn part_time(&mut self, now: Instant, time: Duration) -> Result<(), Refused> {
        let secs = Meter::PartTime.check(time.as_secs_f64())?;
        self.clock.advance(now)?;
        self.meter(now, Meter::PartTime, secs);
        Ok(())
    }

    /// A client reported; `counted` is what the server sent it over the same time, if it counted.
    ///
    /// What is believed is metered, and votes: all together they leave at least five sixths of the number of direct
    /// clients, and
    /// only under [`DirectClients::Auto`].
    ///
    /// # Errors
    /// When a value makes no sense, the report contradicts what was counted, or the clock went back or jumped; nothing else
    /// has changed then.
    pub fn report(
        &mut self,
        now: Instant,
        from: IpAddr,
        report: &ClientReport,
        counted: Option<u64>,
    ) -> Result<(), Refused> {
        let samples = report.samples()?;
        self.clock.advance(now)?;
        let Config { required_rate: required, start_up, stalls_per_minute, .. } = self.config;
        let targets = Targets { required, start_up, stalls_per_minute };
        self.votes.cast(now, from, report, counted, targets, &self.config.reports)?;
        for (meter, value) in samples {
            self.meter(now, meter, value);
        }
        Ok(())
    }

    /// What a client had of it, with peers or without; to be told once, when it is complete or leaves.
    ///
    /// # Errors
    /// When a value makes no sense or the clock went back or jumped; nothing else has changed then.
    pub fn experience(&mut self, now: Instant, with_peers: bool, experience: Experience) -> Result<(), Refused> {
        self.control.record(now, with_peers, experience)
    }

    /// Whether the newcomer with this id is to be served directly for comparison ([`Config::control_share`]).
    pub fn in_control_group(&self, client: &[u8]) -> bool {
        self.control.contains(client)
    }

    /// How clients fare with peers and without; `None` with too few of either.
    pub fn comparison(&self) -> Option<Comparison> {
        self.control.comparison(self.clock.last())
    }

    /// What a meter saw in the last minute.
    pub fn summary(&self, meter: Meter) -> Option<Summary> {
        self.meters.summary(self.clock.last(), meter)
    }

    /// The last decisions, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> + ExactSizeIterator {
        self.log.iter()
    }

    fn condition(&self) -> Condition {
        let high = |latch: &Latch| latch.passed() || latch.is_above();
        Condition {
            egress: self.egress_mean.value(),
            egress_high: self.egress.as_ref().is_some_and(high),
            cpu_high: high(&self.cpu),
            cpu_idle: self.cpu.value().is_none_or(|cpu| cpu < self.config.cpu.high * IDLE),
            delayed: self.delay.is_above(),
        }
    }

    fn note_service(&mut self, now: Instant) {
        let short = |slow: f64| slow < SERVED * float(self.config.required_rate);
        if self.allowance.rates().is_some_and(|rates| short(rates.slow)) {
            self.short_at = Some(now);
        }
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    ///
    /// # Panics
    /// Only then.
    pub fn check_invariants(&self) {
        self.allowance.check_invariants();
        self.meters.check_invariants();
        self.votes.check_invariants(&self.config.reports);
        assert!(self.log.iter().len() <= self.config.events_max);
        assert!((crate::reports::EFFECT_MIN..=1.0).contains(&self.effect), "{}", self.effect);
        for value in [self.egress_mean.value(), self.cpu.value()].into_iter().flatten() {
            assert!(value.is_finite() && value >= 0.0, "{self:?}");
        }
        if self.config.direct_clients == DirectClients::Auto {
            let bounds = self.config.direct_floor..=self.config.direct_cap;
            assert!(bounds.contains(&self.thresholds().direct_clients), "{self:?}");
        }
    }
}
