//! What is fuzzed: every decoder of bytes from outside, and both brains' inputs as sequences.
//!
//! A target is a function that takes any bytes, and panics when a promise is broken.
//! `fuzz/` calls them from libFuzzer, and `tests/replay.rs` calls them with the corpora of `fuzz/corpus/` in every run of the
//! tests; `docs/guide/testing.md` tells how to use both.

mod brains;
mod decoders;
mod feed;
#[cfg(feature = "programs")]
mod programs;
mod store;

/// A decoder or a brain under any bytes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Target {
    /// Its name, and its folder's in `fuzz/corpus/`.
    pub name: &'static str,
    /// Takes any bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("address", decoders::address),
    target("client-frame", decoders::client_frame),
    target("coordinator", brains::coordinator::run),
    target("journal", store::journal),
    target("manifest", decoders::manifest),
    target("manifest-signed", decoders::manifest_signed),
    target("name", decoders::name),
    target("part-reply", decoders::part_reply),
    target("part-request", decoders::part_request),
    target("peer-frame", decoders::peer_frame),
    target("proofs", decoders::proofs),
    target("server-frame", decoders::server_frame),
    target("session", brains::session::run),
    target("text", decoders::text),
    target("ticket", decoders::ticket),
    target("ticket-signed", decoders::ticket_signed),
    #[cfg(feature = "programs")]
    target("http", programs::http),
    #[cfg(feature = "programs")]
    target("settings", programs::settings),
    #[cfg(feature = "programs")]
    target("url", programs::url),
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
