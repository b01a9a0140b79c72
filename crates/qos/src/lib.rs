//! Is it good enough: measured load against thresholds, and for each newcomer a verdict that says why.
//!
//! An [`Engine`] is told what the server measures of itself ([`Engine::sample`]) and how fast its clients are served
//! ([`Engine::client_rate`]), and is asked at every join ([`Engine::verdict`]).
//! It then brings its thresholds up to date, compares, and answers with a mode and all numbers that led to it.
//!
//! It speaks about newcomers only: a client that is served directly stays so (the seed's claim 1).
//! It counts nobody itself; the caller says how many clients are direct, so the same engine can stand for a server, for a
//! content or for a class of contents (one engine each, fed with the same samples).
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
mod config;
mod engine;
mod latch;
mod verdict;

pub use config::{Config, ConfigError, DirectClients, Marks};
pub use engine::{Engine, Load, Sample, SampleError};
pub use verdict::{Measure, Reason, Thresholds, Verdict};
