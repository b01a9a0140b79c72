//! The session against a world that the test makes up.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod allowance;
mod behaviour;
mod continuity;
mod dials;
mod props;
mod world;
