//! `cargo xtask bench [NAME…]`: what the programs cost, each against a yardstick that runs beside it.
//!
//! Absolute figures are of one machine and one day; what has a limit is therefore a ratio within one run, or an absolute
//! figure with so much room that any machine of this decade keeps it.
//! To add one: a module with a `run`, and a line in [`BENCHES`].

mod bookkeeping;
mod figures;
mod machine;
mod peers;
mod prepare;
mod serve;

use crate::workspace;
use anyhow::{bail, ensure};
use figures::Limit;
pub(crate) use prepare::write_noise;
use std::path::PathBuf;

/// A benchmark: its name, what it measures in one line, and the function that does it.
type Bench = (&'static str, &'static str, fn(&Setting) -> anyhow::Result<Outcome>);

const BENCHES: &[Bench] = &[
    (
        "bookkeeping",
        "100,000 clients of 1,000 parts: memory and time in the directory and the coordinator",
        bookkeeping::run,
    ),
    (
        "peers",
        "parts between peers with verification, against a plain QUIC stream: rate and processor time",
        peers::run,
    ),
    ("prepare", "hashing a 1 GiB file into a manifest, against b3sum", prepare::run),
    ("serve", "serving parts of 256 KiB, against nginx: processor time and requests, plain and TLS", serve::run),
];

/// What every benchmark is told.
struct Setting {
    /// Where the programs are, built in release mode.
    programs: PathBuf,
    /// Fewer and shorter rounds: to see that it works, not to quote.
    quick: bool,
    /// This process is the one that [`machine::isolate`] started.
    isolated: bool,
}

/// What came of a benchmark.
enum Outcome {
    /// Something that it needs is not here.
    Skipped(String),
    /// It ran; these are the figures that have limits. The others it has printed.
    Measured(Vec<Limit>),
}

/// A hidden flag: the process is the one that [`machine::isolate`] started.
const ISOLATED: &str = "--isolated";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{}", help());
        return Ok(());
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let known = |argument: &&String| ["--quick", ISOLATED].contains(&argument.as_str());
    if let Some(flag) = arguments.iter().filter(|argument| argument.starts_with('-')).find(|flag| !known(flag)) {
        bail!("there is no flag '{flag}'\n\n{}", help());
    }
    if let Some(name) = names.iter().find(|name| !BENCHES.iter().any(|(bench, _, _)| bench == *name)) {
        bail!("there is no benchmark '{name}'\n\n{}", help());
    }
    let isolated = has(ISOLATED);
    if !isolated {
        workspace::programs()?;
        println!("{}", machine::describe()?);
    }
    let setting = Setting { programs: workspace::target()?.join("release"), quick: has("--quick"), isolated };
    let chosen = |bench: &&Bench| names.is_empty() || names.iter().any(|name| *name == bench.0);
    let mut missed = Vec::new();
    for (name, about, run) in BENCHES.iter().filter(chosen) {
        if !isolated {
            println!("\n{name}: {about}");
        }
        match run(&setting)? {
            Outcome::Skipped(why) => println!("  skipped: {why}"),
            Outcome::Measured(limits) => {
                for limit in limits {
                    println!("  {limit}");
                    if !limit.is_met() {
                        missed.push(format!("{name}: {}", limit.what));
                    }
                }
            }
        }
    }
    ensure!(missed.is_empty(), "limits not met: {}", missed.join("; "));
    Ok(())
}

fn help() -> String {
    let lines = BENCHES.iter().map(|(name, about, _)| format!("  {name:<12} {about}"));
    let lines: Vec<String> = lines.collect();
    format!(
        "Usage: cargo xtask bench [--quick] [NAME…]\n\nFails if a limit is not met. docs/PERFORMANCE.md tells how to read \
         the figures.\n\n  --quick      fewer and shorter rounds: to see that it works, not to quote\n\nBenchmarks (all, if \
         none is named):\n{}",
        lines.join("\n")
    )
}
