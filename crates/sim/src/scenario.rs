//! What is played: who comes when, over which links, with which brains' settings.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares of counts below 2^32")]

use crate::{Misbehaviour, Playback};
use hybrid_manifest::{MAX_PARTS, PartLen};
use hybrid_units::{BytesPerSecond, Duration};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The most clients: as many addresses as the virtual network 10.0.0.0/8 is used for.
pub const PEERS_MAX: u32 = 1_000_000;

/// Moments of the time series in the time that the run takes at the least.
const MOMENTS: u32 = 200;

/// A crowd, its links and its content. A run is a function of this alone.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "who plays a scenario sets any of its numbers")]
pub struct Scenario {
    /// What it is called in results.
    pub name: String,
    /// All randomness comes from it.
    pub seed: u64,
    /// Clients in all.
    pub peers: u32,
    /// Parts of the content.
    pub parts: u32,
    /// How long a part is.
    pub part_len: PartLen,
    /// Whether the manifest carries the part ids; else clients ask for them while parts arrive.
    pub inline_hashes: bool,
    /// The mean of the clients' uplinks.
    pub uplink: BytesPerSecond,
    /// How the uplinks differ.
    pub uplinks: Uplinks,
    /// The clients' downlinks; `None` if they are no limit.
    pub downlink: Option<BytesPerSecond>,
    /// Whether clients limit their upload to their uplink: they pace themselves and the server knows their rates.
    pub limited: bool,
    /// When an upload slot is free again.
    pub slot_free: SlotFree,
    /// The server's uplink.
    pub server_up: BytesPerSecond,
    /// One-way delay between any two hosts.
    pub delay: Duration,
    /// Up to so much is added to each message's delay, uniformly.
    pub jitter: Duration,
    /// The share of messages that are lost and sent again, and of dials that come to nothing.
    pub loss: f64,
    /// When clients come.
    pub arrivals: Arrivals,
    /// How clients go.
    pub churn: Churn,
    /// How clients play what they fetch; `None` if they only fetch it. Their settings must want the parts in order then.
    pub playback: Option<Playback>,
    /// Clients that the server serves directly; `None` leaves it to the thresholds.
    pub direct: Option<u32>,
    /// What becomes of the server.
    pub server: ServerFate,
    /// Clients that misbehave.
    pub bad_peers: u32,
    /// What those do.
    pub misbehaviour: Misbehaviour,
    /// The server's settings. Addresses, thresholds and the seed are set by the simulator.
    pub coordinator: hybrid_coordinator::Config,
    /// The clients' settings. Addresses, port, upload limit and the seed are set by the simulator.
    pub session: hybrid_session::Config,
    /// The run is given up after this long.
    pub limit: Duration,
    /// Invariants are checked at each step that this divides; 0 never.
    pub check_every: u64,
}

/// How uplinks differ, as multiples of their mean.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums, reason = "a scenario is data")]
pub enum Uplinks {
    /// All the same.
    Equal,
    /// 50 % with 0.3, 30 % with 1, 20 % with 2.75 of it.
    ThreeClass,
    /// 80 % with 0.1, 20 % with 4.6 of it.
    TwoClass,
    /// The first, the second, … in turn, and from the first on again.
    InTurn(Vec<f64>),
}

/// When a client that sends a part may begin with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a scenario is data")]
pub enum SlotFree {
    /// When the acknowledgement of its last byte is back, as in the real transport.
    Acknowledged,
    /// When its last byte has left.
    Sent,
}

/// When clients come.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums, reason = "a scenario is data")]
pub enum Arrivals {
    /// All within this long, uniformly.
    Flash(Duration),
    /// At random, so many a second.
    Poisson(f64),
    /// One after the other, this long apart.
    Every(Duration),
}

/// How clients go.
#[derive(Clone, Debug, PartialEq, Default)]
#[allow(clippy::exhaustive_structs, reason = "a scenario is data")]
pub struct Churn {
    /// A client goes this long after it is complete, and has played all if it plays; `None`: it stays.
    pub stay: Option<Duration>,
    /// The share of the clients that go before they are complete, at a random moment of the time that a complete download
    /// would take at the least.
    pub leave: f64,
    /// The share of those that come back with what they had.
    pub return_share: f64,
    /// How long those are away.
    pub away: Duration,
    /// Whether those that go early go without a good-bye.
    pub crash: bool,
}

/// What becomes of the server.
#[derive(Clone, Debug, PartialEq, Default)]
#[allow(clippy::exhaustive_structs, reason = "a scenario is data")]
pub struct ServerFate {
    /// It ends for good when it has sent so many copies of the content.
    pub dies_after_copies: Option<f64>,
    /// At this time its uplink falls to this share of what it was.
    pub cut: Option<(Duration, f64)>,
}

/// A scenario that cannot be played.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(pub(crate) String);

impl Scenario {
    /// The names that [`Scenario::named`] knows, each with one line of what it is.
    pub const NAMES: [(&str, &str); 13] = [
        ("flash", "all come at once; equal uplinks, a server of ten of them"),
        ("flash3", "the same with uplinks of three classes"),
        ("slow-server", "a server no faster than a client"),
        ("fast-server", "a server of a hundred uplinks"),
        ("arrivals", "clients come at random and leave when they are complete; a server of five uplinks"),
        ("churn", "a quarter leaves in the middle, half of them come back"),
        ("server-dies", "the server ends after 1.2 copies"),
        ("S1", "16 clients at once, 16 MiB, server 20 Mbit/s, clients 10 up and 50 down"),
        ("S2", "S1 with a server of 5 Mbit/s"),
        ("S3", "S1 with uplinks of 2.5, 10 and 25 Mbit/s in turn"),
        ("S4", "S1 with about one arrival a second"),
        ("S5", "S1 with a server that ends after 1.2 copies"),
        ("S6", "S1 with 32 clients"),
    ];

    /// The scenario of this name with its own numbers.
    ///
    /// # Errors
    /// When there is none; the error lists them all.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let flash = Self::flash();
        let mbit = |mbit: u64| BytesPerSecond::from_bits_per_second(mbit * 1_000_000);
        let times = |factor: f64| BytesPerSecond::new((flash.uplink.as_u64() as f64 * factor) as u64);
        // As a harness measures the real programs on shaped links. The part length is the one that the server chooses for 16 MiB;
        // the delay is about what a shaper's queue of 60 ms adds when it is a third full.
        let harness = || Self {
            peers: 16,
            parts: 256,
            part_len: PartLen::new(64 << 10).expect("a power of two within the limits"),
            uplink: mbit(10),
            downlink: Some(mbit(50)),
            server_up: mbit(20),
            delay: Duration::from_millis(20),
            arrivals: Arrivals::Flash(Duration::from_millis(50)),
            ..Self::flash()
        };
        let scenario = match name {
            "flash" => flash,
            "flash3" => Self { uplinks: Uplinks::ThreeClass, ..flash },
            "slow-server" => Self { server_up: flash.uplink, ..flash },
            "fast-server" => Self { server_up: times(100.0), ..flash },
            "arrivals" => Self {
                peers: 300,
                server_up: times(5.0),
                // So that about forty are there at one time.
                arrivals: Arrivals::Poisson(1.5),
                churn: Churn { stay: Some(Duration::ZERO), ..Churn::default() },
                ..flash
            },
            "churn" => Self {
                peers: 300,
                churn: Churn { leave: 0.25, return_share: 0.5, away: Duration::from_secs(10), ..Churn::default() },
                ..flash
            },
            "server-dies" => Self {
                peers: 300,
                server: ServerFate { dies_after_copies: Some(1.2), ..ServerFate::default() },
                ..flash
            },
            "S1" => harness(),
            "S2" => Self { server_up: mbit(5), ..harness() },
            "S3" => Self {
                uplink: BytesPerSecond::from_bits_per_second(12_500_000),
                uplinks: Uplinks::InTurn(vec![0.2, 0.8, 2.0]),
                ..harness()
            },
            "S4" => Self { arrivals: Arrivals::Poisson(1.0), ..harness() },
            "S5" => Self { server: ServerFate { dies_after_copies: Some(1.2), ..ServerFate::default() }, ..harness() },
            "S6" => Self { peers: 32, ..harness() },
            _ => {
                let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                return Err(ScenarioError(format!("no scenario '{name}'; there are {}", names.join(", "))));
            }
        };
        Ok(Self { name: name.to_owned(), ..scenario })
    }

    /// A thousand clients of 20 Mbit/s and 64 MiB: a part takes 0.1 s, and 0.26 of that to arrive.
    fn flash() -> Self {
        Self {
            name: "flash".to_owned(),
            seed: 1,
            peers: 1_000,
            parts: 256,
            part_len: PartLen::new(256 << 10).expect("a power of two within the limits"),
            inline_hashes: true,
            uplink: BytesPerSecond::new(2_500_000),
            uplinks: Uplinks::Equal,
            downlink: None,
            limited: false,
            slot_free: SlotFree::Acknowledged,
            server_up: BytesPerSecond::new(25_000_000),
            delay: Duration::from_micros(26_214),
            jitter: Duration::ZERO,
            loss: 0.0,
            arrivals: Arrivals::Flash(Duration::from_millis(100)),
            churn: Churn::default(),
            playback: None,
            // With no threshold at all, the first one is still served directly: there is nobody else.
            direct: Some(1),
            server: ServerFate::default(),
            bad_peers: 0,
            misbehaviour: Misbehaviour::Pollute,
            coordinator: public_coordinator(),
            session: hybrid_session::Config::default(),
            limit: Duration::from_secs(3_600),
            check_every: 0,
        }
    }

    /// Names of the brains' settings that [`Scenario::set`] knows, for trials.
    pub const SETTINGS: [&str; 15] = [
        "peer_requests",
        "requests_per_peer",
        "queue_per_peer",
        "queue_total",
        "patience_ms",
        "rescue_after_ms",
        "rescue_requests",
        "server_requests",
        "starter_parts",
        "pushes_in_flight_max",
        "pushes_per_client_max",
        "rescue_interval_ms",
        "report_interval_min_ms",
        "reports_per_second",
        "uniform_share_percent",
    ];

    /// Changes one of the brains' settings by its name.
    ///
    /// # Errors
    /// When there is none of that name, or the number does not fit it.
    pub fn set(&mut self, name: &str, value: u32) -> Result<(), ScenarioError> {
        let (session, coordinator) = (&mut self.session, &mut self.coordinator);
        let count = value as usize;
        let millis = Duration::from_millis(u64::from(value));
        let fits = |name: &str| ScenarioError(format!("{value} is too much for {name}"));
        match name {
            "peer_requests" => session.peer_requests = count,
            "requests_per_peer" => session.requests_per_peer = count,
            "queue_per_peer" => session.queue_per_peer = count,
            "queue_total" => session.queue_total = count,
            "patience_ms" => session.patience = millis,
            "rescue_after_ms" => session.rescue_after = millis,
            "rescue_requests" => session.rescue_requests = count,
            "server_requests" => session.server_requests = count,
            "starter_parts" => coordinator.starter_parts = u16::try_from(value).map_err(|_| fits(name))?,
            "pushes_in_flight_max" => coordinator.pushes_in_flight_max = count,
            "pushes_per_client_max" => {
                coordinator.pushes_per_client_max = u8::try_from(value).map_err(|_| fits(name))?
            }
            "rescue_interval_ms" => coordinator.rescue_interval = millis,
            "report_interval_min_ms" => coordinator.report_interval_min = millis,
            "reports_per_second" => coordinator.reports_per_second = value,
            "uniform_share_percent" => coordinator.uniform_share_percent = count,
            _ => {
                return Err(ScenarioError(format!("no setting '{name}'; there are {}", Self::SETTINGS.join(", "))));
            }
        }
        Ok(())
    }

    /// The content's length.
    pub fn content_bytes(&self) -> u64 {
        u64::from(self.parts) * self.part_len.as_u64()
    }

    /// How long a client of the mean uplink takes to send a part.
    pub fn part_time(&self) -> Duration {
        self.uplink.time_for(self.part_len.as_u64())
    }

    /// Sets the one-way delay in times of a part.
    pub fn set_delay_in_parts(&mut self, parts: f64) {
        self.delay = self.part_time().mul_f64(parts.max(0.0));
    }

    /// Says what cannot be played.
    ///
    /// # Errors
    /// When a number is out of bounds, with its name.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let positive = |rate: BytesPerSecond| rate.as_u64() > 0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let shares = match &self.uplinks {
            Uplinks::InTurn(shares) => !shares.is_empty() && shares.iter().all(|share| *share > 0.0 && *share <= 1e3),
            Uplinks::Equal | Uplinks::ThreeClass | Uplinks::TwoClass => true,
        };
        let arrivals = match self.arrivals {
            Arrivals::Poisson(rate) => rate.is_finite() && rate > 1e-3,
            Arrivals::Flash(_) | Arrivals::Every(_) => true,
        };
        let rules = [
            ((1..=PEERS_MAX).contains(&self.peers), "peers: from 1 to 1,000,000"),
            ((1..=MAX_PARTS).contains(&self.parts), "parts: from 1 to 1,048,576"),
            (positive(self.uplink) && positive(self.server_up), "uplinks must be above 0"),
            (self.downlink.is_none_or(positive), "the downlink must be above 0"),
            (shares, "uplinks in turn: one or more multiples, each above 0 and at most 1,000"),
            (arrivals, "arrivals: more than 0.001 a second"),
            (self.delay <= Duration::from_secs(10), "the delay: at most 10 s"),
            (self.jitter <= Duration::from_secs(10), "the jitter: at most 10 s"),
            ((0.0..=0.5).contains(&self.loss), "the loss: from 0 to 0.5"),
            (share(self.churn.leave) && share(self.churn.return_share), "shares of those who go: from 0 to 1"),
            (self.playback.as_ref().is_none_or(|play| positive(play.rate)), "the rate of the media must be above 0"),
            (self.playback.is_none() || self.churn.leave == 0.0, "those who play do not leave before the end"),
            (self.bad_peers < self.peers, "bad peers: fewer than there are clients"),
            (self.server.cut.is_none_or(|(_, left)| share(left)), "the server's uplink after a cut: a share, 0 to 1"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ScenarioError((*rule).to_owned())),
            None => Ok(()),
        }
    }

    /// Each client's uplink in bytes per second, by client.
    pub fn uplinks_by_client(&self) -> Vec<f64> {
        let count = self.peers as usize;
        let classes = |classes: &[(f64, f64)]| -> Vec<f64> {
            let mut shares: Vec<f64> = Vec::with_capacity(count);
            for (share, multiple) in classes {
                let these = (share * count as f64).round() as usize;
                shares.extend(std::iter::repeat_n(*multiple, these.min(count - shares.len())));
            }
            // What rounding left over is of the first class.
            shares.resize(count, classes[0].1);
            shares.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed ^ 0xc1a5));
            shares
        };
        let multiples = match &self.uplinks {
            Uplinks::Equal => vec![1.0; count],
            Uplinks::ThreeClass => classes(&[(0.5, 0.3), (0.3, 1.0), (0.2, 2.75)]),
            Uplinks::TwoClass => classes(&[(0.8, 0.1), (0.2, 4.6)]),
            Uplinks::InTurn(shares) => (0..count).map(|client| shares[client % shares.len()]).collect(),
        };
        multiples.into_iter().map(|multiple| multiple * self.uplink.as_u64() as f64).collect()
    }

    /// Each client's arrival, by client, in order.
    pub fn arrivals_by_client(&self) -> Vec<Duration> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0xa881_17e5);
        let mut now = 0.0;
        let mut times: Vec<Duration> = (0..self.peers)
            .map(|client| match self.arrivals {
                Arrivals::Flash(spread) => spread.mul_f64(rng.random_range(0.0..1.0)),
                Arrivals::Poisson(rate) => {
                    // The first one starts the clock.
                    if client > 0 {
                        now -= rng.random_range(f64::MIN_POSITIVE..1.0).ln() / rate;
                    }
                    Duration::from_secs_f64(now)
                }
                Arrivals::Every(pause) => pause * client,
            })
            .collect();
        times.sort_unstable();
        times
    }

    /// The time, from the first arrival, before which no schedule can have the last one complete (Kumar and Ross, "Peer-Assisted
    /// File Distribution: The Minimum Distribution Time", HotWeb 2006; for later arrivals, each link counts from its client's).
    ///
    /// It knows nothing of direct clients, of delays, and of clients that leave; with those it is only a yardstick.
    pub fn bound_secs(&self) -> f64 {
        let file = self.content_bytes() as f64;
        let server = self.server_up.as_u64() as f64;
        let (uplinks, arrivals) = (self.uplinks_by_client(), self.arrivals_by_client());
        let arrivals: Vec<f64> = arrivals.iter().map(Duration::as_secs_f64).collect();
        let late: f64 = uplinks.iter().zip(&arrivals).map(|(uplink, arrival)| uplink * arrival).sum();
        let together = (f64::from(self.peers) * file + late) / (server + uplinks.iter().sum::<f64>());
        let first = arrivals.first().copied().unwrap_or(0.0);
        let last = arrivals.last().copied().unwrap_or(0.0);
        let down = self.downlink.map_or(0.0, |rate| file / rate.as_u64() as f64);
        (first + file / server).max(together).max(last + down)
    }

    /// The time between moments of the time series: a part of the time that a run takes at the least, by
    /// [`Scenario::bound_secs`] and until the last one has played the content.
    pub(crate) fn moment(&self) -> Duration {
        let last = self.arrivals_by_client().last().copied().unwrap_or_default();
        let played = self.playback.as_ref().map(|play| last + play.part_time(self.part_len) * self.parts);
        let least = Duration::from_secs_f64(self.bound_secs()).max(played.unwrap_or_default());
        (least / MOMENTS).max(Duration::from_millis(1))
    }
}

/// The hosts' addresses are private, and stand for public ones.
fn public_coordinator() -> hybrid_coordinator::Config {
    let mut config = hybrid_coordinator::Config::default();
    config.trust_admitted_networks = false;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_scenario_that_can_be_played() {
        for (name, about) in Scenario::NAMES {
            let scenario = Scenario::named(name).expect("it is listed");
            assert_eq!(scenario.check(), Ok(()), "{name}: {about}");
            assert_eq!(scenario.name, name);
        }
        let error = Scenario::named("flesh").expect_err("no such scenario").to_string();
        assert!(error.contains("flash3") && error.contains("S6"), "{error}");
    }

    #[test]
    fn every_setting_can_be_set() {
        let mut scenario = Scenario::flash();
        for name in Scenario::SETTINGS {
            assert_eq!(scenario.set(name, 7), Ok(()), "{name}");
        }
        assert_eq!((scenario.session.peer_requests, scenario.coordinator.starter_parts), (7, 7));
        assert!(scenario.set("starter_parts", 70_000).is_err());
        assert!(scenario.set("requests", 7).expect_err("no such name").to_string().contains("peer_requests"));
    }

    #[test]
    fn uplinks_have_the_mean_that_they_say() {
        for (uplinks, mean) in [
            (Uplinks::Equal, 1.0),
            (Uplinks::ThreeClass, 1.0),
            (Uplinks::TwoClass, 1.0),
            (Uplinks::InTurn(vec![0.5, 1.5]), 1.0),
        ] {
            let scenario = Scenario { uplinks, ..Scenario::flash() };
            let all = scenario.uplinks_by_client();
            assert_eq!(all.len(), 1_000);
            let got = all.iter().sum::<f64>() / 1_000.0 / scenario.uplink.as_u64() as f64;
            assert!((got - mean).abs() < 1e-9, "{:?}: {got}", scenario.uplinks);
        }
    }

    #[test]
    fn the_bound_is_the_one_of_kumar_and_ross() {
        let at_once = Arrivals::Flash(Duration::ZERO);
        let scenario = Scenario { arrivals: at_once.clone(), ..Scenario::flash() };
        let file = 256.0 * 262_144.0;
        let expected = 1_000.0 * file / (25e6 + 1_000.0 * 2.5e6);
        assert!((scenario.bound_secs() - expected).abs() < 1e-9);
        let slow = Scenario { server_up: BytesPerSecond::new(1_000_000), arrivals: at_once, ..Scenario::flash() };
        assert!((slow.bound_secs() - file / 1e6).abs() < 1e-9, "the server has to send each byte once");
    }

    #[test]
    fn what_cannot_be_played_is_named() {
        for (scenario, expected) in [
            (Scenario { peers: 0, ..Scenario::flash() }, "peers"),
            (Scenario { parts: 0, ..Scenario::flash() }, "parts"),
            (Scenario { loss: 0.9, ..Scenario::flash() }, "loss"),
            (Scenario { uplinks: Uplinks::InTurn(Vec::new()), ..Scenario::flash() }, "in turn"),
            (Scenario { arrivals: Arrivals::Poisson(0.0), ..Scenario::flash() }, "arrivals"),
            (Scenario { bad_peers: 2_000, ..Scenario::flash() }, "bad peers"),
        ] {
            let error = scenario.check().expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
