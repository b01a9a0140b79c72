//! Writes `docs/spec/vectors/wire.txt` anew. Only for a new version of the protocol: the vectors are what old programs speak.

#[path = "../tests/samples/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod samples;

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/vectors/wire.txt");
    std::fs::write(path, samples::vectors())
}
