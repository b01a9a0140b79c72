//! Is it good enough: measured load against thresholds, and for each newcomer a verdict that says why.
//!
//! An [`Engine`] is told what the server measures of itself ([`Engine::sample`]) and how fast its clients are served
//! ([`Engine::client_rate`]), and is asked at every join ([`Engine::verdict`]).
//! It then brings its thresholds up to date, compares, and answers with a mode and all numbers that led to it.
//!
//! Under [`DirectClients::Auto`] the number of direct clients follows the capacity, and [`Engine::moves`] says how many clients
//! should change their mode while they are served; which ones is the caller's to choose.
//! Reports of clients ([`Engine::report`]) lower that number a little, never more.
//! [`Engine::events`] tells what was decided and from which numbers.
//!
//! It counts nobody itself; the caller says how many clients are direct.
//! So the same engine can stand for a server or for a class of contents ([`Classes`]): one engine each, fed with the same
//! samples, and told what the direct clients of the others are owed ([`Newcomer::reserved`]).
//! It keeps no state of single clients; [`TopUp`] is that of one client of the swarm.
//! The constants and formulas, with their sources, are in `docs/spec/qos.md`.
//!
//! ```
//! use hybrid_qos::{Config, DirectClients, Engine, Load, Sample};
//! use hybrid_units::{Instant, Mode};
//!
//! let mut config = Config::default();
//! config.direct_clients = DirectClients::Fixed(2);
//! config.egress_limit = Some("100M".parse()?);
//! let mut engine = Engine::new(config)?;
//!
//! let now = Instant::from_micros(250_000);
//! engine.sample(now, Sample { egress: "20M".parse()?, cpu: Some(0.1) })?;
//! assert_eq!(engine.verdict(now, Load { direct_clients: 1, holders_reachable: 1 }).mode, Mode::ClientServer);
//!
//! let verdict = engine.verdict(now, Load { direct_clients: 2, holders_reachable: 1 });
//! assert_eq!(verdict.mode, Mode::PeerToPeer);
//! assert_eq!(verdict.reasons[0].to_string(), "direct clients 2 of 2 allowed: passed");
//! assert_eq!(verdict.reasons[1].to_string(), "egress 20.0 Mbit/s of 90.0 Mbit/s allowed: not passed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allowance;
mod class;
mod clock;
mod config;
mod control;
mod engine;
mod events;
mod input;
mod latch;
mod meters;
mod moves;
mod refused;
mod reports;
mod service;
mod topup;
mod verdict;
mod window;

pub use class::{Class, ClassError, Classes, PartPolicy, Rule};
pub use config::{Config, ConfigError, DirectClients, Marks};
pub use control::{Comparison, ControlGroup, Experience, Side};
pub use engine::Engine;
pub use events::{Decision, Event, Evidence};
pub use input::{Load, Newcomer, Sample};
pub use meters::{Meter, Meters, Summary};
pub use moves::Moves;
pub use refused::Refused;
pub use reports::{ClientReport, ReportConfig, transfers_agree};
pub use topup::TopUp;
pub use verdict::{Measure, Reason, Thresholds, Verdict};
