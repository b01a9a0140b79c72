//! What the engine answers.

use crate::Evidence;
use hybrid_units::{BytesPerSecond, Mode};
use std::fmt;

/// What was compared with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "whoever shows reasons must show every measure")]
pub enum Measure {
    /// Clients that are served directly now.
    DirectClients,
    /// Bytes per second that the server sends.
    Egress,
    /// The share of its processors that is in use, 0 to 1.
    Cpu,
    /// Holders that a newcomer could be sent to. Passed means that there are enough.
    Holders,
    /// What those around a newcomer can send together. Passed means that it is enough.
    Uplinks,
}

impl Measure {
    /// The measure's name in logs, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DirectClients => "direct-clients",
            Self::Egress => "egress",
            Self::Cpu => "cpu",
            Self::Holders => "holders",
            Self::Uplinks => "uplinks",
        }
    }
}

/// One comparison; together they are the whole decision.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reason {
    /// What was compared.
    pub measure: Measure,
    /// What it is now: a count, bytes per second (a mean) or a share of 1 (a mean).
    pub value: f64,
    /// The threshold, in the same unit. For egress and CPU the high mark, once passed the low one.
    pub threshold: f64,
    /// Whether the threshold counts as passed. For egress and CPU that depends on the past too (hysteresis).
    pub passed: bool,
    /// The threshold would count as passed, but what it guards against does not happen: under `Auto` a full link is no reason
    /// while direct clients get what is required; nor does the count speak about the control group.
    pub excused: bool,
}

impl fmt::Display for Reason {
    /// One line for people: `direct clients 12 of 12 allowed: passed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, value, threshold, passed, excused } = *self;
        let passed_text = if passed { "passed" } else { "not passed" };
        match measure {
            Measure::DirectClients if excused => {
                write!(f, "direct clients {value:.0} of {threshold:.0} allowed: does not count, served without peers")
            }
            Measure::DirectClients => write!(f, "direct clients {value:.0} of {threshold:.0} allowed: {passed_text}"),
            Measure::Holders if passed => write!(f, "reachable holders {value:.0} of {threshold:.0} needed: enough"),
            Measure::Holders => {
                write!(f, "reachable holders {value:.0} of {threshold:.0} needed: too few, the server serves")
            }
            Measure::Uplinks => {
                let verdict = if passed { "enough" } else { "too little, the server serves" };
                write!(f, "uplinks of the swarm {} of {} needed: {verdict}", rate(value), rate(threshold))
            }
            Measure::Egress if excused => {
                let (value, threshold) = (rate(value), rate(threshold));
                write!(f, "egress {value}, low mark {threshold}: does not count, direct clients get what is required")
            }
            Measure::Egress => load(f, "egress", &rate(value), &rate(threshold), self),
            Measure::Cpu => load(f, "cpu", &percent(value), &percent(threshold), self),
        }
    }
}

/// A measure with hysteresis; where value and state seem to disagree, the line says that it is a matter of time.
fn load(f: &mut fmt::Formatter<'_>, name: &str, value: &str, threshold: &str, reason: &Reason) -> fmt::Result {
    let Reason { value: is, threshold: mark, passed, .. } = *reason;
    match passed {
        false if is > mark => write!(f, "{name} {value} of {threshold} allowed: above, but not yet for long enough"),
        false => write!(f, "{name} {value} of {threshold} allowed: not passed"),
        true if is < mark => write!(f, "{name} {value}, low mark {threshold}: passed, not yet below for long enough"),
        true => write!(f, "{name} {value}, low mark {threshold}: passed"),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people, and saturating")]
fn rate(bytes_per_second: f64) -> String {
    BytesPerSecond::new(bytes_per_second as u64).to_string()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The thresholds that hold now.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Thresholds {
    /// How many direct clients are allowed: the N of the seed.
    pub direct_clients: u32,
    /// Egress above which newcomers go to the swarm, or, once there, below which the server takes them again; `None`
    /// without a limit.
    pub egress: Option<BytesPerSecond>,
    /// The same for the processors, as a share of 1.
    pub cpu: f64,
    /// What the server is thought able to send: measured under load, else the configured limit; `None` if nobody knows.
    pub capacity: Option<BytesPerSecond>,
    /// What one connection should get at most, so that all get what is required; `None` while the server has enough for all.
    pub per_connection: Option<BytesPerSecond>,
    /// What is left for clients of the swarm in need: what direct clients are not owed, and at least a fifth of the capacity;
    /// `None` if the capacity is not known.
    pub rescue: Option<BytesPerSecond>,
}

/// A newcomer's mode, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// How it is served.
    pub mode: Mode,
    /// Every comparison that was made, whether passed or not: direct clients first, holders and their uplinks last.
    ///
    /// The mode is peer-to-peer if there are holders and uplinks enough and any other threshold is passed.
    pub reasons: Vec<Reason>,
    /// The thresholds after they were brought up to date.
    pub thresholds: Thresholds,
    /// What was known beside.
    pub evidence: Box<Evidence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_for_people() {
        for (measure, value, threshold, passed, expected) in [
            (Measure::DirectClients, 12.0, 12.0, true, "direct clients 12 of 12 allowed: passed"),
            (Measure::DirectClients, 3.0, 12.0, false, "direct clients 3 of 12 allowed: not passed"),
            (Measure::Egress, 1e6, 2e6, false, "egress 8.0 Mbit/s of 16.0 Mbit/s allowed: not passed"),
            (
                Measure::Egress,
                3e6,
                2e6,
                false,
                "egress 24.0 Mbit/s of 16.0 Mbit/s allowed: above, but not yet for long enough",
            ),
            (Measure::Egress, 3e6, 2e6, true, "egress 24.0 Mbit/s, low mark 16.0 Mbit/s: passed"),
            (
                Measure::Egress,
                1e6,
                2e6,
                true,
                "egress 8.0 Mbit/s, low mark 16.0 Mbit/s: passed, not yet below for long enough",
            ),
            (Measure::Cpu, 0.42, 0.85, false, "cpu 42 % of 85 % allowed: not passed"),
            (
                Measure::Uplinks,
                5e5,
                1e6,
                false,
                "uplinks of the swarm 4.0 Mbit/s of 8.0 Mbit/s needed: too little, the server serves",
            ),
            (Measure::Holders, 2.0, 1.0, true, "reachable holders 2 of 1 needed: enough"),
            (Measure::Holders, 0.0, 1.0, false, "reachable holders 0 of 1 needed: too few, the server serves"),
        ] {
            assert_eq!(Reason { measure, value, threshold, passed, excused: false }.to_string(), expected);
        }
    }
}
