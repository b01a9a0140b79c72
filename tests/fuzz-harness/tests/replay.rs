//! Every input of the corpora, in every run of the tests: what fuzzing found once is not lost again.

use hybrid_fuzz_harness::TARGETS;
use hybrid_wire::FrameKind;
use std::path::PathBuf;

/// They are in everybody's checkout.
const BYTES_MAX: u64 = 1 << 20;

fn corpora() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus"))
}

#[test]
fn corpora_replay() {
    let mut bytes = 0;
    for target in TARGETS {
        let folder = corpora().join(target.name);
        let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            bytes += input.len() as u64;
            let run = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(run.is_ok(), "replay with: cargo xtask fuzz {} {}", target.name, path.display());
        }
    }
    assert!(bytes < BYTES_MAX, "{bytes} bytes of corpora");
}

#[test]
fn each_corpus_has_a_target() {
    for entry in corpora().read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(hybrid_fuzz_harness::find(&name).is_some(), "{name} is the corpus of no target");
    }
}

#[test]
fn the_corpora_hold_every_kind_of_frame() {
    let folders = ["client-frame", "server-frame", "peer-frame", "part-request", "part-reply"];
    let inputs = folders.iter().flat_map(|name| corpora().join(name).read_dir().unwrap());
    let numbers: Vec<u8> =
        inputs.filter_map(|entry| std::fs::read(entry.unwrap().path()).unwrap().get(4).copied()).collect();
    for kind in FrameKind::ALL {
        assert!(numbers.contains(&kind.number()), "no corpus holds a {kind}");
    }
}
