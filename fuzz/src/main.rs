//! One program for all targets, so that they are linked once: `HYBRID_FUZZ_TARGET` names the one to run.
#![no_main]

use hybrid_fuzz_harness::{TARGETS, Target, find};
use std::sync::OnceLock;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("HYBRID_FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            panic!("HYBRID_FUZZ_TARGET is '{name}', and not one of {}", names.join(", "))
        })
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (target().run)(data));
