//! Writes the test vectors of `docs/spec/manifest.md` to standard output:
//!
//! ```text
//! cargo run -p hybrid-manifest --example manifest-vectors > docs/spec/vectors/manifest.txt
//! ```
//!
//! They change only when the format does, and then its version must.

mod make;

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(make::vectors().as_bytes())
}
