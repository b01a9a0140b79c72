//! The client's brain: what to fetch, from whom, and whom to serve.

mod config;
mod io;
mod progress;

pub use config::Config;
pub use io::{ConnectionId, Event, Input, Output, PartFailure, PartSource};
pub use progress::Progress;
