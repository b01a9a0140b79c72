//! The client as a library: session, part store and both transports.

pub mod store;
