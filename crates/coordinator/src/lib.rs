//! The server's brain: whom to serve directly, whom to refer to the swarm, and with which parts.
//!
//! A [`Coordinator`] is a pure state machine for all contents of one server, the seed's figure 2: at each join the thresholds
//! are brought up to date and compared; who comes below them is served directly, who comes above is given peers and a part
//! that the swarm lacks most.
//! It does no I/O and reads no clock; the same code runs in the server and in the simulator.
//!
//! # The contract
//!
//! Feed one [`Input`], take [`Output`]s until [`Output::Timeout`], wait for that time or the next input, repeat.
//! [`Coordinator::authorize_part`] answers at once, for the HTTP server's own path.
//!
//! What it does not do: it holds no bytes, opens no connection and measures nothing; what the server measures of itself comes
//! in as [`Input::Sample`], what clients measure as reports.
//!
//! # Example
//!
//! `tests/pair.rs` of this crate drives it and the session against each other on a virtual clock.

mod config;
mod content;
mod coordinator;
mod history;
mod io;
mod quality;
mod service;

pub use config::{ClassConfig, Config, EgressPolicy};
pub use coordinator::{ClientStatus, ContentStatus, Coordinator, Survival, TicketIssuer};
pub use history::Recorded;
pub use io::{ClientId, ContentStats, Event, Input, Output, PartVerdict};
