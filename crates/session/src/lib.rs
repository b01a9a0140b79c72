//! The client's brain: what to fetch, from whom, and whom to serve.
//!
//! A [`Session`] is a pure state machine for one content, the seed's figure 3: join, learn the mode, fetch parts from the
//! server or from peers, verify, keep, pass on, report.
//! It does no I/O and reads no clock; the same code runs under an async runtime, in a web page and in the simulator.
//!
//! # The contract
//!
//! Feed one [`Input`], take [`Output`]s until [`Output::Timeout`], wait for that time or the next input, repeat.
//! All decisions are made here; a driver only carries them out.
//!
//! What it does not do: it fetches no manifest, opens no connection, hashes no part (the driver does when told by
//! [`Output::Verify`], on whatever thread it likes) and knows no file.
//! Part bytes leave it only as [`hybrid_manifest::VerifiedPart`].
//!
//! # Example
//!
//! `crates/coordinator/tests/pair.rs` drives this crate and the coordinator against each other on a virtual clock.

mod allowance;
mod anchors;
mod announcements;
mod arrivals;
mod availability;
mod config;
mod connection;
mod dials;
mod exchange;
mod fetches;
mod fetching;
mod hashes;
mod inflow;
mod io;
mod lookups;
mod membership;
mod part_ids;
mod peers;
mod progress;
mod pushing;
mod rejoin;
mod reporting;
mod serving;
mod session;
mod swarming;
mod uploads;

pub use allowance::UploadPause;
pub use anchors::Anchors;
pub use config::Config;
pub use io::{ConnectionId, Event, Input, Output, PartFailure, PartSource};
pub use progress::{Progress, UploadsOff};
pub use rejoin::Rejoin;
pub use session::Session;
