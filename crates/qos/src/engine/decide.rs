//! What the engine decides: the verdict for a newcomer, the thresholds, and how many clients move.

use super::{Engine, float, rate};
use crate::allowance::ROOM;
use crate::events::{Decision, Evidence};
use crate::latch::Latch;
use crate::verdict::{Measure, Reason, Thresholds, Verdict};
use crate::{DirectClients, Load, Moves, Newcomer};
use hybrid_units::{Duration, Instant, Mode};

/// The share of the capacity that clients of the swarm in need may always have.
const RESCUE_SHARE: f64 = 0.2;
/// Reports refuse nobody direct service while the server sends less than this share of its limit.
const REPORTS_ABOVE: f64 = 0.5;
/// Votes are counted again after this long: thousands of networks take longer to count than a join may.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);

impl Engine {
    /// Brings the thresholds up to date, compares, and decides for one newcomer. A [`Load`] is enough to ask.
    ///
    /// A `now` that is not believed counts as the last measurement's time: a join must have an answer.
    pub fn verdict(&mut self, now: Instant, newcomer: impl Into<Newcomer>) -> Verdict {
        let newcomer = newcomer.into();
        let now = self.clock.answer(now);
        self.direct_clients = newcomer.load.direct_clients;
        self.refresh(now);
        let evidence = self.evidence();
        let thresholds = self.thresholds();
        let mut reasons: Vec<Reason> = self.comparisons(now, newcomer).collect();
        reasons.extend(self.conditions(newcomer));
        let mode = self.mode(now, newcomer);
        let verdict = Verdict { mode, reasons, thresholds, evidence: Box::new(evidence) };
        if let Some(from) = self.mode.replace(mode).filter(|from| *from != mode) {
            self.log.push(now, Decision::Switched { from, to: mode });
        }
        self.log.push(now, Decision::Verdict(verdict.clone()));
        verdict
    }

    /// Whether somebody who asks for one part and did not join would be served now. It is no newcomer: nothing is kept of it,
    /// and its answer is no event.
    pub fn serves(&mut self, now: Instant, load: Load) -> bool {
        let now = self.clock.answer(now);
        self.direct_clients = load.direct_clients;
        self.refresh(now);
        self.mode(now, load.into()) == Mode::ClientServer
    }

    fn mode(&self, now: Instant, newcomer: Newcomer) -> Mode {
        let passed = self.comparisons(now, newcomer).any(|reason| reason.passed);
        let possible = self.conditions(newcomer).all(|reason| reason.passed);
        if passed && possible { Mode::PeerToPeer } else { Mode::ClientServer }
    }

    /// The thresholds: one that is passed is enough.
    fn comparisons(&self, now: Instant, newcomer: Newcomer) -> impl Iterator<Item = Reason> {
        let count = self.count(newcomer, self.thresholds().direct_clients);
        let egress = self.egress.as_ref().and_then(|latch| self.measured(now, Measure::Egress, latch));
        [Some(count), egress, self.measured(now, Measure::Cpu, &self.cpu)].into_iter().flatten()
    }

    /// What a swarm needs: all of it.
    fn conditions(&self, newcomer: Newcomer) -> impl Iterator<Item = Reason> {
        let enough = |measure, value: f64, threshold: f64| Reason {
            measure,
            value,
            threshold,
            passed: value >= threshold,
            excused: false,
        };
        let (holders, needed) = (newcomer.load.holders_reachable, self.config.holders_min);
        let required = float(self.config.required_rate);
        let holders = enough(Measure::Holders, holders.into(), needed.into());
        let uplinks = newcomer.uplinks.map(|uplinks| enough(Measure::Uplinks, float(uplinks), required));
        [Some(holders), uplinks].into_iter().flatten()
    }

    /// How many clients should change their mode now, of so many that are served directly; to be asked several times a second.
    ///
    /// `waiting` is asked only if there is room: how many of the swarm would rather be served directly.
    ///
    /// Only under [`DirectClients::Auto`]: a fixed number is about newcomers.
    pub fn moves(&mut self, now: Instant, direct_clients: u32, waiting: impl FnOnce() -> u32) -> Moves {
        let now = self.clock.answer(now);
        self.direct_clients = direct_clients;
        self.refresh(now);
        if self.config.direct_clients != DirectClients::Auto {
            return Moves::default();
        }
        let allowed = self.allowed;
        let moves = self.mover.moves(now, direct_clients, allowed, waiting);
        if moves != Moves::default() {
            self.log.push(now, Decision::Moved { moves, direct_clients, allowed });
        }
        moves
    }

    /// The caller sent a direct client to the swarm for want of service: the room that it leaves calls nobody back.
    pub fn left(&mut self, now: Instant) {
        let now = self.clock.answer(now);
        self.mover.left(now);
    }

    /// Brings everything that moves up to date, and tells what did.
    fn refresh(&mut self, now: Instant) {
        self.meter(now, crate::Meter::DirectClients, self.direct_clients.into());
        let condition = self.condition();
        self.allowance.update(now, self.direct_clients, condition);
        self.note_service(now);
        let limit = self.config.egress_limit.map(float);
        let half = limit.zip(condition.egress).is_none_or(|(limit, egress)| egress >= REPORTS_ABOVE * limit);
        if !half {
            self.effect = 1.0;
        } else if now.since(self.counted_at) >= COUNT_INTERVAL {
            (self.counted_at, self.effect) = (now, self.votes.effect(now, &self.config.reports));
        }
        let allowed = self.thresholds().direct_clients;
        if allowed != self.allowed {
            let evidence = self.evidence();
            self.log.push(now, Decision::Threshold { from: self.allowed, to: allowed, evidence });
            self.allowed = allowed;
        }
        let off = self.control.peers_off(now);
        if off != self.peers_off {
            self.peers_off = off;
            let comparison = self.control.comparison(now);
            self.log.push(now, Decision::Peers { off, comparison });
        }
    }

    /// The count, for this newcomer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturates")]
    fn count(&self, newcomer: Newcomer, allowed: u32) -> Reason {
        let auto = self.config.direct_clients == DirectClients::Auto;
        let owed = (float(newcomer.reserved) / float(self.config.required_rate)).ceil() as u32;
        let limited = self.config.egress_limit.is_some();
        // Where the link's load is known it stands for the count, or the control group would be empty while N is fixed; with
        // no limit nothing but the count protects the link.
        let without_peers = (newcomer.control || self.peers_off) && limited;
        let threshold = if auto {
            // Places are kept for the control group, so that it finds some.
            let kept =
                if newcomer.control { 0 } else { (f64::from(allowed) * self.config.control_share).floor() as u32 };
            allowed.saturating_sub(owed).saturating_sub(kept).max(self.config.direct_floor)
        } else {
            allowed
        };
        let above = newcomer.load.direct_clients >= threshold;
        Reason {
            measure: Measure::DirectClients,
            value: newcomer.load.direct_clients.into(),
            threshold: threshold.into(),
            passed: above && !without_peers,
            excused: above && without_peers,
        }
    }

    fn measured(&self, now: Instant, measure: Measure, latch: &Latch) -> Option<Reason> {
        let value = latch.value()?;
        let excused = latch.passed() && measure == Measure::Egress && self.is_served(now);
        Some(Reason { measure, value, threshold: latch.mark(), passed: latch.passed() && !excused, excused })
    }

    /// Whether no direct client is known to have got less than it should for some time. A swarm may fill the link, and gives way.
    fn is_served(&self, now: Instant) -> bool {
        self.config.direct_clients == DirectClients::Auto
            && self.short_at.is_none_or(|short| now.since(short) >= self.config.dwell)
    }

    fn evidence(&self) -> Evidence {
        let rates = self.allowance.rates();
        Evidence {
            slow: rates.map(|rates| rate(rates.slow)),
            median: rates.map(|rates| rate(rates.median)),
            typical: rates.map(|rates| rate(rates.typical)),
            egress: self.egress_mean.value().map(rate),
            queue_delay: self.delay.value().map(Duration::from_secs_f64),
            saturated: self.allowance.saturated(),
            reports: self.effect,
        }
    }

    /// The thresholds as of the last measurement or verdict, for status pages.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturates")]
    pub fn thresholds(&self) -> Thresholds {
        let direct_clients = match self.config.direct_clients {
            DirectClients::Fixed(clients) => clients,
            DirectClients::Auto => {
                let allowed = f64::from(self.allowance.allowed()) * self.effect;
                (allowed.ceil() as u32).max(self.config.direct_floor)
            }
        };
        let capacity = self.allowance.capacity(self.clock.last());
        let due = ROOM * float(self.config.required_rate);
        let direct = f64::from(self.direct_clients);
        let per_connection = capacity.filter(|_| self.allowance.saturated());
        Thresholds {
            direct_clients,
            egress: self.egress.as_ref().map(|latch| rate(latch.mark())),
            cpu: self.cpu.mark(),
            capacity: capacity.map(rate),
            per_connection: per_connection.map(|capacity| rate((capacity / direct.max(1.0)).max(due))),
            rescue: capacity.map(|capacity| rate((capacity - direct * due).max(RESCUE_SHARE * capacity))),
        }
    }
}
