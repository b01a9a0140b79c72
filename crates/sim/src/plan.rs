//! The planner: what a server's uplink and a crowd of viewers come to, simulated and as a fluid.
//!
//! A large crowd is played by a smaller one, with the server's uplink in the same proportion; the fluid bound is of the whole.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, rates and times far below 2^53")]

use crate::outcome::Spread;
use crate::{Arrivals, Churn, Moment, Outcome, Playback, Scenario, ScenarioError, Simulation};
use hybrid_coordinator::EgressPolicy;
use hybrid_manifest::{Kind, PartLen, part_len};
use hybrid_units::{ByteCount, BytesPerSecond, Duration};
use hybrid_wire::Source;
use hybrid_wire::control::Want;

/// The most viewers that a plan is for.
pub const VIEWERS_MAX: u32 = 10_000_000;

/// The most viewers that are simulated, however many are asked for: time and memory grow with them.
pub const SIMULATED_MAX: u32 = 10_000;

/// The longest content: beyond it even long parts are too many.
const LENGTH_MAX: Duration = Duration::from_secs(6 * 3_600);

/// The longest content in bytes: the simulator hashes it twice.
const CONTENT_MAX: u64 = 32_000_000_000;

/// Simulated parts times viewers if nothing else is asked for; what that takes is in `docs/guide/plan.md`.
const PARTS_PLAYED: u64 = 150_000;

/// Simulated viewers if nothing else is asked for: at least twice as many as a client has peers, and no more than some seconds
/// are enough for with a short content.
const SIMULATED_MIN_DEFAULT: u64 = 100;
const SIMULATED_MAX_DEFAULT: u64 = 1_000;

/// The parts of a long content are made longer until there are no more than so many.
const PARTS_MAX: u32 = 4_096;

/// A server for a part of the crowd has the same part of the uplink, but no less than so many streams (or its whole uplink): each
/// byte has to leave it in time to be watched, however few are simulated.
/// Twenty streams send a copy in a twentieth of the time that it plays.
const STREAMS_MIN: f64 = 20.0;

/// What the simulated server has more than its part, its viewers have less, up to this share of their uplinks.
const PEERS_LEND_MAX: f64 = 0.1;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs, reason = "who asks sets all of it")]
pub struct PlanRequest {
    /// The server's uplink.
    pub uplink: BytesPerSecond,
    /// Viewers in all.
    pub viewers: u32,
    /// The rate of the media.
    pub bitrate: BytesPerSecond,
    /// Each viewer's uplink.
    pub peer_up: BytesPerSecond,
    /// Each viewer's downlink.
    pub peer_down: BytesPerSecond,
    /// How long a viewer goes on giving when it has seen the end.
    pub stay: Duration,
    /// When viewers come.
    pub arrivals: ViewerArrivals,
    /// How long the content plays.
    pub length: Duration,
    /// One-way delay between any two hosts.
    pub delay: Duration,
    /// What the server sends beyond one copy.
    pub egress_policy: EgressPolicy,
    /// All randomness comes from it.
    pub seed: u64,
    /// Viewers to simulate; `None` leaves it to the planner.
    pub simulate: Option<u32>,
}

/// When viewers come.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums, reason = "a request is data")]
pub enum ViewerArrivals {
    /// All within this long, uniformly.
    Over(Duration),
    /// At random, so many a second on average.
    PerSecond(f64),
}

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Nobody watches, or too many do.
    #[error("{got} viewers: from 1 to {VIEWERS_MAX} can be planned for")]
    Viewers {
        /// How many were asked for.
        got: u32,
    },
    /// A rate is zero.
    #[error("{what} must be above 0")]
    Zero {
        /// Which rate.
        what: &'static str,
    },
    /// Nobody can watch it, whoever sends it.
    #[error("the bitrate of {bitrate} is above the {peer_down} that a viewer can receive")]
    Downlink {
        /// The rate of the media.
        bitrate: BytesPerSecond,
        /// What a viewer can receive.
        peer_down: BytesPerSecond,
    },
    /// The content is shorter than the buffer before the first picture, or too long.
    #[error("a length of {secs} s: from {least} s (the buffer before the first picture) to {} s", LENGTH_MAX.as_secs())]
    Length {
        /// The length in seconds.
        secs: f64,
        /// The shortest.
        least: f64,
    },
    /// The content takes too many bytes.
    #[error("a content of {bytes}: at most {} can be planned for", ByteCount::new(CONTENT_MAX))]
    Content {
        /// Its length.
        bytes: ByteCount,
    },
    /// Viewers who go as soon as they have seen the end are gone before their last part could be of use.
    #[error("a stay of {stay} s is shorter than a part, which plays for {part:.2} s")]
    Stay {
        /// The stay in seconds.
        stay: f64,
        /// How long a part plays, in seconds.
        part: f64,
    },
    /// The time in which viewers come is no time, or longer than a week.
    #[error("viewers come over {secs:.0} s: at most {ARRIVALS_SECS_MAX} s, a week, can be planned for")]
    Arrivals {
        /// The time in seconds.
        secs: f64,
    },
    /// None or too many to simulate.
    #[error("{got} viewers to simulate: from 1 to {SIMULATED_MAX}")]
    Simulated {
        /// How many were asked for.
        got: u32,
    },
    /// The simulator refuses, for instance a delay.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

const ARRIVALS_SECS_MAX: f64 = 604_800.0;

/// A request that can be answered: what is simulated for it, and what no schedule can exceed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// What was asked.
    pub request: PlanRequest,
    /// What is simulated for it.
    pub scenario: Scenario,
    /// What no schedule can exceed.
    pub bound: Bound,
}

/// The crowd as a fluid, at the moment when it is largest. Rates are in bytes per second.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bound {
    /// Viewers who watch then.
    pub watching: f64,
    /// Viewers who are there then, those who have seen the end included.
    pub here: f64,
    /// What those who watch need.
    pub need: f64,
    /// What the server and those who are there can send.
    pub supply: f64,
    /// The largest share of the bytes that can come from peers then, if nobody is to stall.
    pub from_peers_max: f64,
    /// The least that the server has to send then, if nobody is to stall: one copy, and what peers cannot.
    pub server_rate_min: f64,
    /// The shortest time to the first picture.
    pub start_up_min: Duration,
    /// The least share of the viewing time that is lost in stalls, if it stays as it is then.
    pub stalled_min: f64,
    /// Set if peers cannot carry it.
    pub deficit: Option<Deficit>,
}

/// What is missing, and what would be enough, each alone and as a fluid: without any reserve.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Deficit {
    /// Bytes per second.
    pub missing: f64,
    /// The server's uplink.
    pub uplink: BytesPerSecond,
    /// The rate of the media.
    pub bitrate: BytesPerSecond,
    /// The viewers' uplink; `None` if the server cannot send one copy as fast as it is watched.
    pub peer_up: Option<BytesPerSecond>,
    /// How long viewers would have to stay; `None` if no stay is enough.
    pub stay: Option<Duration>,
}

/// What the simulated crowd saw, and what follows for the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// What was asked and simulated.
    pub plan: Plan,
    /// Viewers who were simulated.
    pub simulated: u32,
    /// Parts of the simulated content.
    pub parts: u32,
    /// How long a part plays, in seconds.
    pub part_secs: f64,
    /// The simulated server's uplink.
    pub simulated_uplink: BytesPerSecond,
    /// The simulated viewers' uplink: less than was asked, if the simulated server has more than its part.
    pub simulated_peer_up: BytesPerSecond,
    /// Of the bytes that viewers received, the share that came from peers, if the server's link is used as the simulated one is.
    pub from_peers: f64,
    /// From a viewer's arrival to its first picture, in seconds, of those who saw one.
    pub start_up: Spread,
    /// Viewers who never saw a picture, as a share.
    pub never_started: f64,
    /// Viewers who stalled or never saw a picture, as a share.
    pub stalled_viewers: f64,
    /// Of the time in which viewers played or stood still, the share in which they stood still.
    pub stalled_time: f64,
    /// Bytes per second that the server sends, from the first arrival until the last viewer has seen the end.
    pub server_rate_mean: f64,
    /// The highest rate of a moment.
    pub server_rate_peak: f64,
    /// How long such a moment is, in seconds.
    pub moment_secs: f64,
    /// Copies of the content that the server sends.
    pub server_copies: f64,
    /// From the first arrival to the end of the simulation, in seconds.
    pub end_secs: f64,
    /// Whether the simulation was given up before all had seen the end.
    pub cut_short: bool,
    /// How it went, for the whole crowd.
    pub series: Vec<PlanMoment>,
}

/// One moment of the whole crowd. Rates are in bytes per second, since the moment before.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlanMoment {
    /// When.
    pub secs: f64,
    /// Viewers who have not seen the end.
    pub watching: f64,
    /// What they need, to play without a stall.
    pub need: f64,
    /// What the server sends.
    pub from_server: f64,
    /// What peers send.
    pub from_peers: f64,
}

impl Plan {
    /// Checks a request and makes its scenario and its bound.
    ///
    /// # Errors
    /// When there is no sensible answer; the error says why.
    pub fn new(request: PlanRequest) -> Result<Self, PlanError> {
        let PlanRequest { uplink, viewers, bitrate, peer_up, peer_down, .. } = request;
        if !(1..=VIEWERS_MAX).contains(&viewers) {
            return Err(PlanError::Viewers { got: viewers });
        }
        let rates = [
            (uplink, "the server's uplink"),
            (bitrate, "the bitrate"),
            (peer_up, "the peers' uplink"),
            (peer_down, "the peers' downlink"),
        ];
        if let Some((_, what)) = rates.into_iter().find(|(rate, _)| rate.as_u64() == 0) {
            return Err(PlanError::Zero { what });
        }
        if bitrate > peer_down {
            return Err(PlanError::Downlink { bitrate, peer_down });
        }
        let playback = Playback::new(bitrate);
        if !(playback.start_buffer..=LENGTH_MAX).contains(&request.length) {
            let (secs, least) = (request.length.as_secs_f64(), playback.start_buffer.as_secs_f64());
            return Err(PlanError::Length { secs, least });
        }
        let span = request.arrivals_secs();
        if !(0.0..=ARRIVALS_SECS_MAX).contains(&span) {
            return Err(PlanError::Arrivals { secs: span });
        }
        let total = (bitrate.as_u64() as f64 * request.length.as_secs_f64()) as u64;
        if total > CONTENT_MAX {
            return Err(PlanError::Content { bytes: ByteCount::new(total) });
        }
        let (part_len, parts) = cut(total);
        let part_time = playback.part_time(part_len);
        if request.stay < part_time {
            let (stay, part) = (request.stay.as_secs_f64(), part_time.as_secs_f64());
            return Err(PlanError::Stay { stay, part });
        }
        let default = (PARTS_PLAYED / u64::from(parts)).clamp(SIMULATED_MIN_DEFAULT, SIMULATED_MAX_DEFAULT) as u32;
        let simulated = request.simulate.unwrap_or(default);
        if !(1..=SIMULATED_MAX).contains(&simulated) {
            return Err(PlanError::Simulated { got: simulated });
        }
        let simulated = simulated.min(viewers);
        let share = f64::from(simulated) / f64::from(viewers);
        let (server_up, peer_up) = scaled(&request, simulated);
        let mut scenario = Scenario {
            name: "plan".to_owned(),
            seed: request.seed,
            peers: simulated,
            parts,
            part_len,
            uplink: peer_up,
            downlink: Some(peer_down),
            server_up,
            delay: request.delay,
            arrivals: match request.arrivals {
                ViewerArrivals::Over(time) => Arrivals::Flash(time),
                ViewerArrivals::PerSecond(rate) => Arrivals::Poisson(rate * share),
            },
            churn: Churn { stay: Some(request.stay), ..Churn::default() },
            playback: Some(playback),
            direct: None,
            // Who is still not at the end when all could have watched it twice has told enough.
            limit: Duration::from_secs_f64(1.2 * span) + request.length * 2 + Duration::from_secs(60),
            ..Scenario::named("flash")?
        };
        scenario.session.want = Want::PlayFrom(0);
        scenario.coordinator.egress_policy = request.egress_policy;
        scenario.coordinator.qos.egress_limit = Some(server_up);
        scenario.coordinator.qos.required_rate = bitrate;
        scenario.check()?;
        let bound = Bound::of(&request, &scenario);
        Ok(Self { request, scenario, bound })
    }

    /// Plays it.
    ///
    /// # Errors
    /// When the simulator refuses the scenario.
    pub fn run(self) -> Result<Answer, PlanError> {
        let outcome = Simulation::new(self.scenario.clone())?.run();
        Ok(Answer::new(self, &outcome))
    }
}

impl PlanRequest {
    /// How long viewers keep coming, on average.
    fn arrivals_secs(&self) -> f64 {
        match self.arrivals {
            ViewerArrivals::Over(time) => time.as_secs_f64(),
            ViewerArrivals::PerSecond(rate) if rate > 0.0 => f64::from(self.viewers) / rate,
            ViewerArrivals::PerSecond(_) => f64::INFINITY,
        }
    }
}

/// The uplinks of the server and of each peer in a crowd of so many of the viewers: together, the same for each viewer.
fn scaled(request: &PlanRequest, simulated: u32) -> (BytesPerSecond, BytesPerSecond) {
    let rate = |rate: BytesPerSecond| rate.as_u64() as f64;
    let (uplink, peer_up, simulated) = (rate(request.uplink), rate(request.peer_up), f64::from(simulated));
    let part = uplink * simulated / f64::from(request.viewers);
    let lent =
        (uplink.min(STREAMS_MIN * rate(request.bitrate)) - part).clamp(0.0, PEERS_LEND_MAX * simulated * peer_up);
    let up = |rate: f64| BytesPerSecond::new(rate.round().max(1.0) as u64);
    (up(part + lent), up(peer_up - lent / simulated))
}

/// How a content of so many bytes is cut: as the server does it, with longer parts if there would be too many.
fn cut(total: u64) -> (PartLen, u32) {
    let mut length = part_len(Kind::Static, total, None);
    while total.div_ceil(length.as_u64()) > u64::from(PARTS_MAX)
        && let Some(longer) = length.as_u32().checked_mul(2).and_then(PartLen::new)
    {
        length = longer;
    }
    (length, u32::try_from(total.div_ceil(length.as_u64())).unwrap_or(u32::MAX).max(1))
}

impl Bound {
    fn of(request: &PlanRequest, scenario: &Scenario) -> Self {
        let rate = |rate: BytesPerSecond| rate.as_u64() as f64;
        let (uplink, bitrate, peer_up) = (rate(request.uplink), rate(request.bitrate), rate(request.peer_up));
        let (length, stay) = (request.length.as_secs_f64(), request.stay.as_secs_f64());
        let (viewers, span) = (f64::from(request.viewers), request.arrivals_secs());
        // Little's law, when the last one comes.
        let there_for = |time: f64| if span > time { viewers * time / span } else { viewers };
        let (watching, here) = (there_for(length).max(1.0), there_for(length + stay).max(1.0));
        let (need, supply) = (watching * bitrate, uplink + here * peer_up);
        let server_rate_min = (need - here * peer_up).max(bitrate);
        let missing = (need - supply).max(bitrate - uplink);
        let up = |rate: f64| BytesPerSecond::new(rate.ceil() as u64);
        let deficit = (missing > 0.0).then(|| Deficit {
            missing,
            uplink: up(server_rate_min),
            bitrate: BytesPerSecond::new((supply / watching).min(uplink) as u64),
            peer_up: (uplink >= bitrate).then(|| up((need - uplink) / here)),
            stay: {
                let givers = (need - uplink) / peer_up;
                let enough = uplink >= bitrate && givers <= viewers && span > 0.0;
                enough.then(|| Duration::from_secs_f64((givers * span / viewers - length).max(0.0)))
            },
        });
        let playback = Playback::new(request.bitrate);
        let buffer =
            u64::from(playback.start_parts(scenario.part_len).min(scenario.parts)) * scenario.part_len.as_u64();
        Self {
            watching,
            here,
            need,
            supply,
            from_peers_max: (1.0 - server_rate_min / need).max(0.0),
            server_rate_min,
            // The join and the answer to it, which a part may come with.
            start_up_min: request.delay * 2 + request.peer_down.time_for(buffer),
            stalled_min: (1.0 - supply.min(uplink / bitrate * need) / need).max(0.0),
            deficit,
        }
    }
}

impl Answer {
    fn new(plan: Plan, outcome: &Outcome) -> Self {
        let (request, scenario) = (&plan.request, &plan.scenario);
        let part_secs = request.bitrate.time_for(scenario.part_len.as_u64()).as_secs_f64();
        let came = outcome.clients.iter().filter_map(|client| client.play).collect::<Vec<_>>();
        let count = came.len().max(1) as f64;
        let share = |those: usize| those as f64 / count;
        let never = came.iter().filter(|play| play.start_up_secs.is_none()).count();
        let stalled = came.iter().filter(|play| play.stalls > 0).count();
        let stalled_secs: f64 = came.iter().map(|play| play.stalled_secs).sum();
        let played_secs: f64 = came.iter().map(|play| play.played_secs).sum();
        let first = outcome.clients.iter().filter_map(|client| client.arrived_secs).fold(f64::INFINITY, f64::min);
        let end_secs = outcome.end_secs - first.min(outcome.end_secs);
        let received: u64 = outcome.received.iter().sum();
        let peers = Source::ALL.iter().position(|source| *source == Source::Peer).map_or(0, |at| outcome.received[at]);
        // The real server's link is used as the simulated one's is, and viewers are as many times more.
        let server = request.uplink.as_u64() as f64 / scenario.server_up.as_u64() as f64;
        let crowd = f64::from(request.viewers) / f64::from(scenario.peers);
        let by_server = server * received.saturating_sub(peers) as f64;
        let from_peers = (1.0 - by_server / (crowd * received as f64).max(1.0)).clamp(0.0, 1.0);
        let moment = |moment: &Moment| PlanMoment {
            secs: moment.secs,
            watching: crowd * f64::from(moment.watching),
            need: crowd * f64::from(moment.watching) * request.bitrate.as_u64() as f64,
            from_server: server * moment.server_rate,
            from_peers: crowd * moment.peer_rate,
        };
        let series: Vec<PlanMoment> = outcome.series.iter().map(moment).collect();
        Self {
            simulated: scenario.peers,
            parts: scenario.parts,
            part_secs,
            simulated_uplink: scenario.server_up,
            simulated_peer_up: scenario.uplink,
            from_peers,
            start_up: Spread::of(came.iter().filter_map(|play| play.start_up_secs).collect()),
            never_started: share(never),
            stalled_viewers: share(never + stalled),
            stalled_time: stalled_secs / (stalled_secs + played_secs).max(1e-9),
            server_rate_mean: server * outcome.server_bytes as f64 / end_secs.max(1e-9),
            server_rate_peak: series.iter().map(|moment| moment.from_server).fold(0.0, f64::max),
            moment_secs: scenario.moment().as_secs_f64(),
            server_copies: server * outcome.server_copies,
            end_secs,
            cut_short: came.len() < outcome.clients.len() || came.iter().any(|play| !play.ended),
            series,
            plan,
        }
    }
}
