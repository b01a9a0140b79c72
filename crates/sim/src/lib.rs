//! The two brains on a virtual network: what a crowd of any size does, as a function of a scenario and a seed.
//!
//! The same `Coordinator` and `Session` that the programs drive over sockets are driven here over links that are numbers:
//! uplinks that transfers share, delays, lost messages, clients that come and go, a server that dies.
//! Nothing is decided here, so what a run shows is a property of the brains' decisions; and nothing depends on the machine, so
//! the same scenario with the same seed gives the same run, bit for bit.
//!
//! ```
//! use hybrid_sim::{Scenario, Simulation};
//!
//! let scenario = Scenario { peers: 8, parts: 16, check_every: 1, ..Scenario::named("flash")? };
//! let outcome = Simulation::new(scenario)?.run();
//! assert_eq!(outcome.complete, 8);
//! println!("the last one was complete after {:.2} times the bound", outcome.last_ratio);
//! # Ok::<(), hybrid_sim::ScenarioError>(())
//! ```
//!
//! # What is modelled
//!
//! - Each uplink is shared equally by the parts that are sent over it; see `network.rs`.
//! - A message, a request and its cancellation take one delay each; a dial takes three (a round trip of the handshake, and the
//!   hello); an upload slot is free when the acknowledgement of the last byte is back, two delays after that byte left, as in
//!   the real transport.
//! - A lost message is one that comes later (a round trip and 20 ms), and holds up those behind it; a lost dial comes to nothing.
//! - A cancelled request stops its transfer one delay later; what was sent until then is wasted.
//! - Pushes to one client go one after the other, over its control channel.
//! - A viewer plays parts in order at the media's rate, tells its session its place, and leaves when it has seen the end and
//!   stayed; see [`Playback`].
//! - Some clients misbehave, as the scenario says; see [`Misbehaviour`].
//!
//! # What is not
//!
//! Congestion control and its start, packets, processors, disks, hashing: parts are verified once, when the world is made.
//! Messages other than parts take no bytes of a link.

mod host;
mod misbehaviour;
mod network;
mod outcome;
mod picture;
mod plan;
mod playback;
mod queue;
mod scenario;
mod simulation;

pub use misbehaviour::{Harm, Misbehaviour};
pub use outcome::{ClientOutcome, Idle, Moment, Outcome, Spread};
pub use plan::{
    Answer, Bound, Deficit, Plan, PlanError, PlanMoment, PlanRequest, SIMULATED_MAX, VIEWERS_MAX, ViewerArrivals,
};
pub use playback::{PlayOutcome, Playback};
pub use scenario::{Arrivals, Churn, PEERS_MAX, Scenario, ScenarioError, ServerFate, SlotFree, Uplinks};
pub use simulation::{Counts, Simulation};
