//! The harness of the end-to-end tests: the real programs as processes on loopback, and peers that misbehave.
//!
//! Every wait polls with a deadline; ports are chosen by the system; a failure shows what the programs printed.

pub mod badclient;
pub mod badpeer;
pub mod hardship;
pub mod link;
mod process;
pub mod rawpeer;

pub use process::{PeerProcess, ServerProcess, peer_command, run_to_end, server_command};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything here may take. Far beyond what it takes on a busy machine: only a hang gets there.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// The folder with `hybrid-server` and `hybrid-peer`, built once for this test run.
///
/// # Panics
/// When they do not build.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // As a workspace build, so that dependencies keep the features with which the tests were built.
        let status = std::process::Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--bins"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the programs do not build");
        // A test program lies in `target/PROFILE/deps`.
        let test = std::env::current_exe().expect("a test program has a path");
        test.ancestors().nth(2).expect("a test program lies in target/PROFILE/deps").to_owned()
    })
}

/// Content that differs everywhere: a part out of its place would be seen.
pub fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut reader = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none before [`DEADLINE`]; `what` says what was waited for.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
