//! What was decided, newest last, for whoever wants to know why.

use crate::{Comparison, Moves, Verdict};
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode};
use std::collections::VecDeque;
use std::fmt;

/// What the engine knew when it decided, beside the values that it compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// The fifth of direct clients that is served worst gets at most this; `None` with fewer than three rates.
    pub slow: Option<BytesPerSecond>,
    /// The median rate of direct clients.
    pub median: Option<BytesPerSecond>,
    /// The best median of the last minute: what they take when nothing holds them back.
    pub typical: Option<BytesPerSecond>,
    /// Mean egress.
    pub egress: Option<BytesPerSecond>,
    /// How long bytes wait in the server, a mean.
    pub queue_delay: Option<Duration>,
    /// The server is seen to send all it can.
    pub saturated: bool,
    /// The share of the number of direct clients that reports leave, 5/6 to 1.
    pub reports: f64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(slow), Some(median), Some(typical)) = (self.slow, self.median, self.typical) {
            write!(f, "slow fifth {slow}, median {median}, typical {typical}")?;
        } else {
            f.write_str("too few rates")?;
        }
        if let Some(egress) = self.egress {
            write!(f, ", egress {egress}")?;
        }
        if let Some(delay) = self.queue_delay {
            write!(f, ", queue {} ms", delay.as_millis())?;
        }
        if self.saturated {
            f.write_str(", saturated")?;
        }
        if self.reports < 1.0 {
            write!(f, ", reports leave {:.0} %", self.reports * 100.0)?;
        }
        Ok(())
    }
}

/// Something that was decided.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// A newcomer's mode, with every comparison.
    Verdict(Verdict),
    /// Newcomers are sent elsewhere than the one before.
    Switched {
        /// Where they went.
        from: Mode,
        /// Where they go.
        to: Mode,
    },
    /// The number of direct clients has changed.
    Threshold {
        /// What it was.
        from: u32,
        /// What it is.
        to: u32,
        /// From what that follows.
        evidence: Evidence,
    },
    /// Clients should change their mode while they are served.
    Moved {
        /// How many.
        moves: Moves,
        /// How many were direct.
        direct_clients: u32,
        /// How many are allowed.
        allowed: u32,
    },
    /// Clients with peers fared worse than those without, or it is tried again.
    Peers {
        /// Whether newcomers are left without peers from now on.
        off: bool,
        /// What was compared; `None` when it is tried again.
        comparison: Option<Comparison>,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => {
                write!(f, "newcomer {}", verdict.mode)?;
                for (index, reason) in verdict.reasons.iter().enumerate() {
                    write!(f, "{} {reason}", if index == 0 { ":" } else { ";" })?;
                }
                write!(f, " ({})", verdict.evidence)
            }
            Self::Switched { from, to } => write!(f, "newcomers no longer {from} but {to}"),
            Self::Threshold { from, to, evidence } => write!(f, "direct clients allowed {from} → {to} ({evidence})"),
            Self::Moved { moves, direct_clients, allowed } => {
                let Moves { to_swarm, to_direct } = moves;
                write!(
                    f,
                    "{direct_clients} direct clients of {allowed} allowed: {to_swarm} to the swarm, {to_direct} back"
                )
            }
            Self::Peers { off: true, comparison: Some(comparison) } => write!(f, "peers off: {comparison}"),
            Self::Peers { off: true, comparison: None } => f.write_str("peers off"),
            Self::Peers { off: false, .. } => f.write_str("peers on: tried again"),
        }
    }
}

/// A [`Decision`] and when it was made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Counted from 0 since the engine was made; a gap means that events were dropped.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub decision: Decision,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.decision)
    }
}

/// The last events; older ones are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    events: VecDeque<Event>,
    max: usize,
    next: u64,
}

impl Log {
    pub(crate) fn new(max: usize) -> Self {
        Self { events: VecDeque::new(), max, next: 0 }
    }

    pub(crate) fn push(&mut self, at: Instant, decision: Decision) {
        let number = self.next;
        self.next += 1;
        if self.max == 0 {
            return;
        }
        if self.events.len() >= self.max {
            self.events.pop_front();
        }
        self.events.push_back(Event { number, at, decision });
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> + ExactSizeIterator {
        self.events.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_counted() {
        for (max, expected) in [(0, vec![]), (2, vec![3, 4]), (9, vec![0, 1, 2, 3, 4])] {
            let mut log = Log::new(max);
            for second in 0..5 {
                let (from, to) = (Mode::ClientServer, Mode::PeerToPeer);
                log.push(Instant::from_micros(second * 1_000_000), Decision::Switched { from, to });
            }
            assert_eq!(log.iter().map(|event| event.number).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn events_for_people() {
        let rate = |megabytes: u64| Some(BytesPerSecond::new(megabytes * 1_000_000));
        let evidence = Evidence {
            slow: rate(1),
            median: rate(2),
            typical: rate(3),
            egress: rate(4),
            queue_delay: Some(Duration::from_millis(60)),
            saturated: true,
            reports: 0.9,
        };
        let shown = |decision| Event { number: 0, at: Instant::from_micros(1_500_000), decision }.to_string();
        assert_eq!(
            shown(Decision::Threshold { from: 115, to: 57, evidence }),
            "1.500000s direct clients allowed 115 → 57 (slow fifth 8.0 Mbit/s, median 16.0 Mbit/s, typical 24.0 Mbit/s, \
             egress 32.0 Mbit/s, queue 60 ms, saturated, reports leave 90 %)"
        );
        let moves = Moves { to_swarm: 11, to_direct: 0 };
        assert_eq!(
            shown(Decision::Moved { moves, direct_clients: 115, allowed: 57 }),
            "1.500000s 115 direct clients of 57 allowed: 11 to the swarm, 0 back"
        );
        assert_eq!(shown(Decision::Peers { off: false, comparison: None }), "1.500000s peers on: tried again");
    }
}
