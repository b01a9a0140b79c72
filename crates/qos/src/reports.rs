//! What clients report, as far as it can be believed.
//!
//! A report counts only if it agrees with what the server counted itself; networks vote, not clients; and all votes
//! together lower the number of direct clients by a sixth at most.
//! They never raise it: that takes rates which the server has seen.

use crate::Refused;
use crate::meters::Meter;
use crate::window::quantile;
use hybrid_units::{BytesPerSecond, Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// The number of direct clients keeps at least this share of itself, whatever clients say: so lies move it by a fifth at most,
/// in either direction.
pub(crate) const EFFECT_MIN: f64 = 1.0 / 1.2;
/// A report tells of at most this long.
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// Reports kept of one network: enough for a median.
const VOTES_MAX: usize = 8;
/// Media ahead of the playhead with which a low rate hurts nobody.
const BUFFER_ENOUGH: f64 = 10.0;

/// How reports are weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportConfig {
    /// Bits of an IPv4 address that are one network. Default 24: what one customer is given is seldom larger.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that are one network. Default 48: what a site is given.
    pub prefix_v6: u8,
    /// How long a report votes. Default 30 s: three report intervals of 10 s.
    pub vote_for: Duration,
    /// Networks without which no report counts. Default 8: with fewer, a handful of liars is the majority.
    pub quorum: usize,
    /// Networks that are kept. Default 4,096: about 1 MiB.
    pub prefixes_max: usize,
    /// By how much a client may differ from what the server counted, as a share. Default 0.05: what is on the way when the
    /// two count.
    pub tolerance: f64,
    /// And by how many bytes. Default 1 MiB: a part is counted by the client when it is complete.
    pub slack_bytes: u64,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self {
            prefix_v4: 24,
            prefix_v6: 48,
            vote_for: Duration::from_secs(30),
            quorum: 8,
            prefixes_max: 4_096,
            tolerance: 0.05,
            slack_bytes: 1 << 20,
        }
    }
}

/// What a client says of itself over one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "who reports must know all that is asked for; the rest by `..`")]
pub struct ClientReport {
    /// The time that the report tells of.
    pub interval: Duration,
    /// Verified bytes from the server.
    pub from_server: u64,
    /// Verified bytes from peers.
    pub from_peers: u64,
    /// From the join to the first part, once it came.
    pub start_up: Option<Duration>,
    /// Pauses within the interval.
    pub stalls: u32,
    /// Media ahead of the playhead, if it plays.
    pub buffer: Option<Duration>,
    /// Round-trip time to the server.
    pub round_trip: Option<Duration>,
    /// Share of packets lost, 0 to 1.
    pub loss: Option<f64>,
    /// Parts that peers refused.
    pub refused_parts: u32,
    /// Parts that did not match their id.
    pub bad_parts: u32,
    /// The client holds everything: its rates say nothing of service.
    pub complete: bool,
}

/// What good service is, for the votes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    pub(crate) required: BytesPerSecond,
    pub(crate) start_up: Duration,
    pub(crate) stalls_per_minute: f64,
}

impl ClientReport {
    /// The report as samples, each checked, or the first thing that cannot be.
    pub(crate) fn samples(&self) -> Result<Vec<(Meter, f64)>, Refused> {
        if self.interval.is_zero() || self.interval > INTERVAL_MAX {
            return Err(Refused::Interval { max: INTERVAL_MAX, got: self.interval });
        }
        let minutes = self.interval.as_secs_f64() / 60.0;
        let rate = |bytes: u64| bytes as f64 / self.interval.as_secs_f64();
        let secs = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let transfers = [(Meter::FromServer, rate(self.from_server)), (Meter::FromPeers, rate(self.from_peers))];
        let counts = [
            (Meter::Stalls, f64::from(self.stalls) / minutes),
            (Meter::RefusedParts, f64::from(self.refused_parts) / minutes),
            (Meter::BadParts, f64::from(self.bad_parts) / minutes),
        ];
        let known = [
            (Meter::StartUp, secs(self.start_up)),
            (Meter::Buffer, secs(self.buffer)),
            (Meter::RoundTrip, secs(self.round_trip)),
            (Meter::Loss, self.loss),
        ];
        let rates = transfers.into_iter().filter(|_| !self.complete);
        let known = known.into_iter().filter_map(|(meter, value)| Some((meter, value?)));
        rates.chain(counts).chain(known).map(|(meter, value)| Ok((meter, meter.check(value)?))).collect()
    }

    /// How well the client is served: 1 if every target is met, else the share of the worst one.
    fn quality(&self, targets: Targets) -> f64 {
        let share = |target: f64, value: f64| if value > target { target / value } else { 1.0 };
        let start_up = self.start_up.map_or(1.0, |time| share(targets.start_up.as_secs_f64(), time.as_secs_f64()));
        let stalls = f64::from(self.stalls) * 60.0 / self.interval.as_secs_f64();
        let sated = self.complete || self.buffer.is_some_and(|buffer| buffer.as_secs_f64() >= BUFFER_ENOUGH);
        let rate = self.from_server.saturating_add(self.from_peers) as f64 / self.interval.as_secs_f64();
        let rate = if sated { 1.0 } else { (rate / targets.required.as_u64() as f64).min(1.0) };
        start_up.min(share(targets.stalls_per_minute, stalls)).min(rate)
    }
}

/// Whether what one peer says it sent and what the other says it got are within a tenth of each other; else neither counts.
pub fn transfers_agree(sent: u64, received: u64) -> bool {
    sent.abs_diff(received) <= sent.max(received) / 10
}

/// A network: the first bits of an address, IPv4 written as IPv6.
fn network(address: IpAddr, config: &ReportConfig) -> u128 {
    let mask = |bits: u8| u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits() & mask(96 + config.prefix_v4.min(32)),
        IpAddr::V6(v6) => v6.to_bits() & mask(config.prefix_v6),
    }
}

/// The votes of networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Votes(BTreeMap<u128, VecDeque<(Instant, f64)>>);

impl Votes {
    /// Takes a report whose values were checked.
    pub(crate) fn cast(
        &mut self,
        now: Instant,
        from: IpAddr,
        report: &ClientReport,
        counted: Option<u64>,
        targets: Targets,
        config: &ReportConfig,
    ) -> Result<(), Refused> {
        let claimed = report.from_server;
        let differs = |counted: u64| {
            claimed.abs_diff(counted) as f64 > config.tolerance * counted as f64 + config.slack_bytes as f64
        };
        if let Some(counted) = counted.filter(|counted| differs(*counted)) {
            return Err(Refused::Contradicted { claimed, counted });
        }
        let network = network(from, config);
        if self.0.len() >= config.prefixes_max && !self.0.contains_key(&network) {
            self.0.retain(|_, votes| votes.back().is_some_and(|(at, _)| now.since(*at) <= config.vote_for));
            if self.0.len() >= config.prefixes_max {
                return Err(Refused::TooManyPrefixes { max: config.prefixes_max });
            }
        }
        let votes = self.0.entry(network).or_default();
        if votes.len() == VOTES_MAX {
            votes.pop_front();
        }
        votes.push_back((now, report.quality(targets)));
        Ok(())
    }

    /// The share of the number of direct clients that the votes leave: from [`EFFECT_MIN`] to 1.
    pub(crate) fn effect(&self, now: Instant, config: &ReportConfig) -> f64 {
        let median_of = |votes: &VecDeque<(Instant, f64)>| {
            let fresh = votes.iter().filter(|(at, _)| now.since(*at) <= config.vote_for);
            let mut values: Vec<f64> = fresh.map(|(_, quality)| *quality).collect();
            values.sort_unstable_by(f64::total_cmp);
            quantile(&values, 1, 2)
        };
        let mut votes: Vec<f64> = self.0.values().filter_map(median_of).collect();
        votes.sort_unstable_by(f64::total_cmp);
        if votes.len() < config.quorum.max(1) {
            return 1.0;
        }
        quantile(&votes, 1, 2).unwrap_or(1.0).clamp(EFFECT_MIN, 1.0)
    }

    pub(crate) fn check_invariants(&self, config: &ReportConfig) {
        assert!(self.0.len() <= config.prefixes_max, "{} networks vote", self.0.len());
        assert!(self.0.values().all(|votes| votes.len() <= VOTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets =
        Targets { required: BytesPerSecond::new(1_000), start_up: Duration::from_secs(2), stalls_per_minute: 1.0 };

    fn good() -> ClientReport {
        ClientReport { interval: Duration::from_secs(10), from_server: 10_000, ..ClientReport::default() }
    }

    fn bad() -> ClientReport {
        ClientReport { stalls: 10, ..good() }
    }

    fn votes(reports: impl IntoIterator<Item = (&'static str, ClientReport)>) -> f64 {
        let (mut votes, config) = (Votes::default(), ReportConfig::default());
        for (from, report) in reports {
            votes.cast(Instant::ZERO, from.parse().unwrap(), &report, None, TARGETS, &config).unwrap();
        }
        votes.effect(Instant::ZERO, &config)
    }

    #[test]
    fn quality_is_the_worst_of_its_targets() {
        let check = |report: ClientReport, expected: f64| assert!((report.quality(TARGETS) - expected).abs() < 1e-9);
        check(good(), 1.0);
        check(ClientReport { from_server: 4_000, from_peers: 1_000, ..good() }, 0.5);
        check(ClientReport { from_server: 0, complete: true, ..good() }, 1.0);
        check(ClientReport { from_server: 0, buffer: Some(Duration::from_secs(10)), ..good() }, 1.0);
        check(ClientReport { start_up: Some(Duration::from_secs(8)), ..good() }, 0.25);
        check(ClientReport { stalls: 1, ..good() }, 1.0 / 6.0);
    }

    #[test]
    fn networks_vote_not_addresses() {
        const MANY: [&str; 8] =
            ["1.0.0.1", "1.0.1.1", "1.0.2.1", "1.0.3.1", "1.0.4.1", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:3::1"];
        let from = |report| MANY.map(|address| (address, report));
        assert!((votes(from(bad())) - EFFECT_MIN).abs() < 1e-9);
        assert!((votes(from(good())) - 1.0).abs() < 1e-9);
        assert!((votes(from(bad()).into_iter().take(7)) - 1.0).abs() < 1e-9, "no quorum");
        let one_network = (0..100).map(|_| ("1.0.0.7", bad()));
        assert!((votes(from(good()).into_iter().chain(one_network)) - 1.0).abs() < 1e-9);
        let same =
            ["1.0.0.1", "1.0.0.2", "::ffff:1.0.0.3", "2001:db8:1::1", "2001:db8:1:ff::1"].map(|from| (from, bad()));
        assert!((votes(same) - 1.0).abs() < 1e-9, "two networks are no quorum");
    }

    #[test]
    fn the_server_has_counted_too() {
        let (mut votes, config) = (Votes::default(), ReportConfig { slack_bytes: 100, ..ReportConfig::default() });
        let from = IpAddr::from([1, 2, 3, 4]);
        for (counted, expected) in [(10_000, true), (9_429, true), (9_420, false), (10_640, false), (10_600, true)] {
            let got = votes.cast(Instant::ZERO, from, &good(), Some(counted), TARGETS, &config);
            assert_eq!(got.is_ok(), expected, "{counted}: {got:?}");
        }
        assert!(transfers_agree(100, 91) && !transfers_agree(100, 89) && transfers_agree(0, 0));
    }
}
