//! The thresholds' constants, each with its reason.

use crate::ReportConfig;
use hybrid_units::{BytesPerSecond, Duration};

/// How many clients the server serves directly before newcomers go to the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a configuration must handle every kind")]
pub enum DirectClients {
    /// As many as the operator says; `Fixed(0)` sends every newcomer to the swarm as soon as it has a holder.
    Fixed(u32),
    /// As many as the server's capacity and the clients' rates allow, moved while it runs.
    Auto,
}

/// A high mark above which a measure counts as passed, and a low one below which it no longer does: fractions of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "two marks are the definition of hysteresis")]
pub struct Marks {
    /// Left below this; above 0.
    pub low: f64,
    /// Entered above this; at most 1.
    pub high: f64,
}

/// What an [`Engine`](crate::Engine) may be told. [`Default`] is for a server of files about which nothing is known.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The number of direct clients. Default [`DirectClients::Auto`]: a wrong fixed number hurts more than a moving one.
    pub direct_clients: DirectClients,
    /// What the server may send in all. Default none: then egress sends nobody to the swarm, and `Auto` starts small.
    pub egress_limit: Option<BytesPerSecond>,
    /// Marks for egress, as fractions of [`Config::egress_limit`]. Default 0.63 and 0.9: at 90 % queues begin to grow, and a
    /// low mark of 0.7 of the high one is wider than the load of one client on a link that is worth sharing.
    pub egress: Marks,
    /// Marks for the share of the processors in use. Default 0.6 and 0.85: beyond 85 % the wait for a core grows faster
    /// than the load.
    pub cpu: Marks,
    /// Time constant of the mean over samples of egress and CPU; zero takes samples as they are. Default 1 s: one busy
    /// moment is no load.
    pub smoothing: Duration,
    /// How long a measure must stay above its high mark to count as passed. Default 5 s: shorter than the time in which a
    /// queue becomes a stall, longer than one burst.
    pub enter_after: Duration,
    /// How long it must stay below its low mark to count no longer. Default 60 s: swarms are worth keeping, and with it a
    /// measure changes at most twice a minute.
    pub leave_after: Duration,
    /// It counts for at least this long after the last time above the high mark, whatever `leave_after` is. Default 30 s.
    pub dwell: Duration,
    /// Reachable holders without which nobody is sent to the swarm; at least 1. Default 1: a newcomer who meets one holder
    /// and is given the rarest parts can already go on, and the server helps out.
    pub holders_min: u32,
    /// `Auto`: the rate that a direct client should get. Default 1 MB/s (8 Mbit/s): a full-HD film plays, and a file of
    /// 100 MB takes less than two minutes.
    pub required_rate: BytesPerSecond,
    /// From the join to the first part, at most; for the votes of clients. Default 2 s: people wait so long without wondering.
    pub start_up: Duration,
    /// Pauses a minute, at most; for the votes of clients. Default 0.5.
    pub stalls_per_minute: f64,
    /// `Auto`: bytes that wait in the server for longer than this show that it is saturated. Default 50 ms: a queue that a
    /// person notices in a game or a call on the same link.
    pub queue_delay: Duration,
    /// `Auto`: the number before anything is known, without an egress limit. Default 1: a flash crowd comes before anything was
    /// measured, and a client too many takes the link from the parts that all others wait for; too small a number costs the next
    /// newcomers nothing but an earlier swarm, and it doubles while service is good.
    pub direct_start: u32,
    /// `Auto` goes no lower; at least 1, or there would be no client whose rate tells that it may rise again. Default 1.
    pub direct_floor: u32,
    /// `Auto` goes no higher. Default 10,000: about 100 KiB of buffers each, so 1 GiB.
    pub direct_cap: u32,
    /// The share of newcomers that is served directly where the thresholds of load allow, for comparison, 0 to 1. Default 0.
    pub control_share: f64,
    /// What keeps clients from knowing who is in the control group; give it from a source of randomness. Default all zero.
    pub control_secret: [u8; 32],
    /// How reports are weighed.
    pub reports: ReportConfig,
    /// Decisions that are kept for [`Engine::events`](crate::Engine::events). Default 1,024: at about 400 bytes each, 400 KiB.
    pub events_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            direct_clients: DirectClients::Auto,
            egress_limit: None,
            egress: Marks { low: 0.63, high: 0.9 },
            cpu: Marks { low: 0.6, high: 0.85 },
            smoothing: Duration::from_secs(1),
            enter_after: Duration::from_secs(5),
            leave_after: Duration::from_secs(60),
            dwell: Duration::from_secs(30),
            holders_min: 1,
            required_rate: BytesPerSecond::new(1_000_000),
            start_up: Duration::from_secs(2),
            stalls_per_minute: 0.5,
            queue_delay: Duration::from_millis(50),
            direct_start: 1,
            direct_floor: 1,
            direct_cap: 10_000,
            control_share: 0.0,
            control_secret: [0; 32],
            reports: ReportConfig::default(),
            events_max: 1_024,
        }
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The marks are the wrong way round or equal.
    #[error("{what}: low ({low}) must be below high ({high})")]
    Order {
        /// `egress` or `cpu`.
        what: &'static str,
        /// The low mark.
        low: f64,
        /// The high mark.
        high: f64,
    },
    /// A mark is no fraction.
    #[error("{what}: marks must lie above 0 and at most at 1, got low ({low}) and high ({high})")]
    Range {
        /// `egress` or `cpu`.
        what: &'static str,
        /// The low mark.
        low: f64,
        /// The high mark.
        high: f64,
    },
    /// A rate of nothing.
    #[error("{what} must be above zero{hint}")]
    ZeroRate {
        /// The field.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A share or a target that is none.
    #[error("{what} must be a number from {min} to {max}, got {got}")]
    Number {
        /// The field.
        what: &'static str,
        /// The least.
        min: f64,
        /// The most.
        max: f64,
        /// The value given.
        got: f64,
    },
    /// Fewer holders than one can serve nobody.
    #[error("holders_min must be at least 1, got {0}: without a holder there is nobody to send a newcomer to")]
    NoHolders(u32),
    /// The bounds of `Auto` leave no number.
    #[error(
        "direct clients: floor ({floor}) must be at least 1 and at most start ({start}), start at most cap ({cap})"
    )]
    Bounds {
        /// `direct_floor`.
        floor: u32,
        /// `direct_start`.
        start: u32,
        /// `direct_cap`.
        cap: u32,
    },
}

impl Config {
    /// Whether the numbers make sense together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (what, Marks { low, high }) in [("egress", self.egress), ("cpu", self.cpu)] {
            let fraction = |mark: f64| mark > 0.0 && mark <= 1.0;
            if !fraction(low) || !fraction(high) {
                return Err(ConfigError::Range { what, low, high });
            }
            if low >= high {
                return Err(ConfigError::Order { what, low, high });
            }
        }
        let zero = BytesPerSecond::new(0);
        if self.egress_limit == Some(zero) {
            return Err(ConfigError::ZeroRate { what: "egress_limit", hint: ": leave it away for no limit" });
        }
        if self.required_rate == zero {
            return Err(ConfigError::ZeroRate { what: "required_rate", hint: "" });
        }
        for (what, min, max, got) in [
            ("control_share", 0.0, 1.0, self.control_share),
            ("reports.tolerance", 0.0, 1.0, self.reports.tolerance),
            ("stalls_per_minute", 0.001, 600.0, self.stalls_per_minute),
            ("start_up", 0.001, 3_600.0, self.start_up.as_secs_f64()),
        ] {
            if !(min..=max).contains(&got) {
                return Err(ConfigError::Number { what, min, max, got });
            }
        }
        if self.holders_min == 0 {
            return Err(ConfigError::NoHolders(self.holders_min));
        }
        let (floor, start, cap) = (self.direct_floor, self.direct_start, self.direct_cap);
        if floor == 0 || floor > start || start > cap {
            return Err(ConfigError::Bounds { floor, start, cap });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Config), expected: &str) {
        let mut config = Config::default();
        change(&mut config);
        let got = config.check().map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        assert_eq!(got, expected);
    }

    #[test]
    fn errors_name_both_values() {
        check(|_| (), "fine");
        check(|config| config.egress = Marks { low: 0.9, high: 0.8 }, "egress: low (0.9) must be below high (0.8)");
        check(|config| config.cpu = Marks { low: 0.5, high: 0.5 }, "cpu: low (0.5) must be below high (0.5)");
        for (low, high, shown) in [
            (0.0, 0.5, "low (0) and high (0.5)"),
            (0.5, 1.1, "low (0.5) and high (1.1)"),
            (f64::NAN, 0.5, "low (NaN) and high (0.5)"),
        ] {
            check(
                |config| config.cpu = Marks { low, high },
                &format!("cpu: marks must lie above 0 and at most at 1, got {shown}"),
            );
        }
        check(
            |config| config.holders_min = 0,
            "holders_min must be at least 1, got 0: without a holder there is nobody to send a newcomer to",
        );
        check(
            |config| config.egress_limit = Some(BytesPerSecond::new(0)),
            "egress_limit must be above zero: leave it away for no limit",
        );
        check(|config| config.required_rate = BytesPerSecond::new(0), "required_rate must be above zero");
        check(|config| config.control_share = f64::NAN, "control_share must be a number from 0 to 1, got NaN");
        for (floor, start, cap) in [(0, 4, 10), (5, 4, 10), (1, 11, 10)] {
            check(
                |config| (config.direct_floor, config.direct_start, config.direct_cap) = (floor, start, cap),
                &format!(
                    "direct clients: floor ({floor}) must be at least 1 and at most start ({start}), start at most cap ({cap})"
                ),
            );
        }
    }
}
