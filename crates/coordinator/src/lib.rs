//! The server's brain: whom to serve directly, whom to refer to the swarm, and with which parts.

mod config;
mod io;

pub use config::Config;
pub use io::{ClientId, ContentStats, Event, Input, Output, PartVerdict};
