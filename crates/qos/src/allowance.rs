//! How many direct clients `Auto` allows: from the capacity, from what clients get, and by trying one more.
//!
//! The number rises only by probing, and a probe needs clients that are served better than required; everything else
//! lowers it, for good or for as long as the server is seen to be saturated.
//! So no load, however measured, admits more direct clients.

#[cfg(test)]
mod tests;

use crate::Config;
use crate::service::{Rates, Service};
use crate::window::RecentMax;
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// Room above the required rate: `n = C / (1.08 r)`. Little's law with 8 % for noise and for what is not parts.
pub(crate) const ROOM: f64 = 1.08;
/// Of the clients that the capacity carries, so many stand for the swarm: its parts cannot spread faster than the server sends
/// them once, so it is owed the rate of one client.
const SWARM_STREAMS: f64 = 1.0;
/// Served well enough to try more: the slow fifth gets more than this share of the required rate.
const PROBE: f64 = 1.15;
/// The same below the number that the configured limit gives: the limit promises more, so less is proof enough.
const RECOVER: f64 = 1.04;
/// Served so badly that the capacity must have fallen: the slow fifth gets less than this share of the required rate.
const CUT: f64 = 0.85;
/// Under loaded processors, half of the clients below this share of the required rate show that more cannot be sent.
const WANTING: f64 = 0.95;
/// One probe waits this long for the next: rates of the client that it let in are known by then.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// One probe on the way back to the configured limit waits this long for the next.
const RECOVER_INTERVAL: Duration = Duration::from_secs(5);
/// One cut waits this long for the next: what it changed must show first.
const CUT_INTERVAL: Duration = Duration::from_secs(2);
/// Without a limit, good service while others are served too must have lasted this long: sockets' buffers are full by then.
const PROVED_AFTER: Duration = Duration::from_secs(5);
/// Without a limit and with one lone client, good service proves nothing about a second one; it is tried after this long.
const EXPLORE_AFTER: Duration = Duration::from_secs(10);
/// Egress above so many median rates means that one client more is served beside the direct one, if only by pushes.
const OTHERS: f64 = 1.3;
/// Below this share of its limit a server is not what makes its clients slow. Less than half, so that a link that fell to
/// half of its limit is still seen.
pub(crate) const IDLE: f64 = 0.4;
/// Seconds over which the largest egress while saturated is taken for the capacity.
const SATURATED_SECS: usize = 10;

/// What the server knows of itself when the number is brought up to date.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    /// Mean egress in bytes per second; `None` before the first sample.
    pub(crate) egress: Option<f64>,
    /// Egress is above its high mark, or counts as passed.
    pub(crate) egress_high: bool,
    /// CPU is above its high mark, or counts as passed.
    pub(crate) cpu_high: bool,
    /// CPU is below [`IDLE`] of its high mark, or unknown.
    pub(crate) cpu_idle: bool,
    /// Bytes wait in the server for too long.
    pub(crate) delayed: bool,
}

/// The moving number of direct clients.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// What probes and cuts made of it.
    number: u32,
    /// The same, bounded by what was sent while saturated just now.
    allowed: u32,
    /// The number that the configured limit gives.
    start: u32,
    floor: u32,
    cap: u32,
    required: f64,
    limit: Option<f64>,
    saturated_at: RecentMax<SATURATED_SECS>,
    saturated: bool,
    service: Service,
    rates: Option<Rates>,
    /// Since when the slow fifth has been served better than required, and no worse than before.
    well_since: Option<Instant>,
    probed: Option<Instant>,
    cut: Option<Instant>,
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53, and no rate that is believed is larger")]
fn float(rate: BytesPerSecond) -> f64 {
    rate.as_u64() as f64
}

impl Allowance {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = config.egress_limit.map(float);
        let mut allowance = Self {
            number: 0,
            allowed: 0,
            start: 0,
            floor: config.direct_floor,
            cap: config.direct_cap,
            required: float(config.required_rate),
            limit,
            saturated_at: RecentMax::default(),
            saturated: false,
            service: Service::new(),
            rates: None,
            well_since: None,
            probed: None,
            cut: None,
        };
        allowance.set(limit.map_or(config.direct_start, |limit| allowance.carried_by(limit)));
        allowance.start = allowance.number;
        allowance.bound(Instant::ZERO);
        allowance
    }

    pub(crate) fn allowed(&self) -> u32 {
        self.allowed
    }

    pub(crate) fn rates(&self) -> Option<Rates> {
        self.rates
    }

    pub(crate) fn saturated(&self) -> bool {
        self.saturated
    }

    fn set(&mut self, number: u32) {
        self.number = number.clamp(self.floor, self.cap);
    }

    fn bound(&mut self, now: Instant) {
        let bound = self.saturated_at.max(now).map_or(u32::MAX, |egress| self.carried_by(egress));
        self.allowed = self.number.min(bound).max(self.floor);
    }

    /// How many clients so many bytes per second serve well, the swarm beside them.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is rounded down on purpose"
    )]
    pub(crate) fn carried_by(&self, capacity: f64) -> u32 {
        (capacity / (ROOM * self.required) - SWARM_STREAMS) as u32
    }

    /// The capacity on which the number rests: the largest egress while saturated, else the configured limit.
    pub(crate) fn capacity(&self, now: Instant) -> Option<f64> {
        self.saturated_at.max(now).or(self.limit)
    }

    pub(crate) fn client_rate(&mut self, now: Instant, rate: f64) {
        self.service.record(now, rate);
    }

    /// The server measured itself.
    pub(crate) fn observe(&mut self, now: Instant, condition: Condition) {
        self.watch(now);
        let Some(rates) = self.rates else { return };
        let wanting = condition.cpu_high && rates.median < WANTING * self.required;
        let sharing = (condition.delayed || rates.fell()) && rates.slow <= PROBE * self.required;
        self.saturated = (wanting || sharing) && !self.is_idle(condition);
        if let Some(egress) = condition.egress.filter(|_| self.saturated) {
            self.saturated_at.record(now, egress);
        }
    }

    fn watch(&mut self, now: Instant) {
        self.rates = self.service.rates(now);
        // Too few rates say neither that service is good nor that it is bad.
        let Some(rates) = self.rates else { return };
        let well = rates.slow > PROBE * self.required && !rates.fell();
        self.well_since = if well { Some(self.well_since.unwrap_or(now)) } else { None };
    }

    /// Brings the number up to date for `direct_clients` that are there now.
    pub(crate) fn update(&mut self, now: Instant, direct_clients: u32, condition: Condition) {
        self.watch(now);
        self.bound(now);
        if let Some(rates) = self.rates {
            if rates.slow < CUT * self.required {
                if is_due(self.cut, now, CUT_INTERVAL) && !self.is_idle(condition) {
                    self.cut_to(now, condition.egress);
                }
            } else if direct_clients.saturating_add(1) >= self.allowed
                && self.may_probe(now, rates, direct_clients, condition)
            {
                self.probe(now, condition);
            }
            self.bound(now);
        }
    }

    fn may_probe(&self, now: Instant, rates: Rates, direct_clients: u32, condition: Condition) -> bool {
        let recovering = self.limit.is_some() && self.number < self.start;
        if condition.cpu_high || condition.delayed || condition.egress_high && !recovering {
            return false;
        }
        if rates.slow <= PROBE * self.required {
            let recovered = rates.slow > RECOVER * self.required;
            return recovering && recovered && is_due(self.probed, now, RECOVER_INTERVAL);
        }
        let proved = self.limit.is_some() || {
            let others = direct_clients > 1 || condition.egress.is_some_and(|egress| egress > OTHERS * rates.median);
            let after = if others { PROVED_AFTER } else { EXPLORE_AFTER };
            self.well_since.is_some_and(|since| now.since(since) >= after)
        };
        proved && is_due(self.probed, now, PROBE_INTERVAL)
    }

    fn probe(&mut self, now: Instant, condition: Condition) {
        self.probed = Some(now);
        let one_more = self.number.saturating_add(self.number / 50).saturating_add(1);
        // What was sent while all were served well can be sent again; without a limit that is all that is known.
        let carried = condition.egress.filter(|_| self.limit.is_none()).map_or(0, |egress| self.carried_by(egress));
        self.set(one_more.max(carried.min(self.number.saturating_mul(2))));
        self.service.forget_rates();
    }

    /// Whether the server has so much to spare that slow clients are slow for reasons of their own.
    fn is_idle(&self, condition: Condition) -> bool {
        let egress_idle = self.limit.zip(condition.egress).is_some_and(|(limit, egress)| egress < IDLE * limit);
        egress_idle && condition.cpu_idle
    }

    fn cut_to(&mut self, now: Instant, egress: Option<f64>) {
        self.cut = Some(now);
        self.saturated_at = RecentMax::default();
        self.service.forget_rates();
        // Not measured, it falls by the factor at which the cut was due.
        let carried = egress.map_or(self.number - self.number.div_ceil(7), |egress| self.carried_by(egress));
        self.set(self.number.min(carried));
    }

    /// Panics if a bound does not hold: that would be a bug of this crate.
    pub(crate) fn check_invariants(&self) {
        let bounds = self.floor..=self.cap;
        assert!(bounds.contains(&self.allowed) && bounds.contains(&self.number), "{self:?}");
        assert!(self.allowed <= self.number, "{self:?}");
        self.service.check_invariants();
    }
}

fn is_due(last: Option<Instant>, now: Instant, interval: Duration) -> bool {
    last.is_none_or(|last| now.since(last) >= interval)
}
