//! Hashing a file: `hybrid-server prepare` and `b3sum` in turn, both with all processors, the file in the page cache.

use super::figures::{Limit, median, short, spread};
use super::{Outcome, Setting};
use crate::process;
use crate::work_folder::WorkFolder;
use anyhow::{Context, ensure};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const FILE_BYTES: u64 = 1 << 30;
const ROUNDS: usize = 9;
const QUICK_ROUNDS: usize = 3;

/// b3sum maps the file and hashes it with all processors inside of one tree; we read parts into buffers and hash each with
/// one. What is left between the two is the copy.
const RATE_TO_B3SUM_MIN: f64 = 0.85;

pub(super) fn run(setting: &Setting) -> anyhow::Result<Outcome> {
    if let Some(why) = process::missing(&[("b3sum", "b3sum")]) {
        return Ok(Outcome::Skipped(why));
    }
    let work = WorkFolder::new("bench-prepare")?;
    let file = work.path().join("file.bin");
    write_noise(&file, FILE_BYTES)?;
    let server = setting.programs.join("hybrid-server");
    let ours = || timed(Command::new(&server).arg("prepare").arg(&file));
    let theirs = || timed(Command::new("b3sum").arg(&file));
    // Once uncounted: both programs and the file are in memory then.
    ensure!(first_word(&ours()?.1) == first_word(&theirs()?.1), "b3sum and hybrid-server do not agree");
    let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
    for _ in 0..if setting.quick { QUICK_ROUNDS } else { ROUNDS } {
        #[allow(clippy::cast_precision_loss, reason = "a file's length is far below 2^52")]
        let rate = |secs: f64| FILE_BYTES as f64 / 1e9 / secs;
        our_rates.push(rate(ours()?.0));
        their_rates.push(rate(theirs()?.0));
    }
    println!("  hybrid-server prepare  {} GB/s", spread(&our_rates));
    println!("  {:<21}  {} GB/s", version()?, spread(&their_rates));
    let ratios: Vec<f64> = our_rates.iter().zip(&their_rates).map(|(ours, theirs)| ours / theirs).collect();
    println!("  rate / b3sum's, pair by pair: {}", spread(&ratios));
    Ok(Outcome::Measured(vec![Limit::at_least("rate / b3sum's rate", median(ratios), RATE_TO_B3SUM_MIN)]))
}

/// How long a program takes from its start to its end, in seconds, and what it prints.
fn timed(command: &mut Command) -> anyhow::Result<(f64, String)> {
    let start = Instant::now();
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    let secs = start.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{command:?} failed after {} s", short(secs));
    Ok((secs, String::from_utf8(output.stdout)?))
}

fn first_word(text: &str) -> Option<&str> {
    text.split_ascii_whitespace().next()
}

fn version() -> anyhow::Result<String> {
    Ok(timed(Command::new("b3sum").arg("--version"))?.1.trim().to_owned())
}

/// Bytes that no file system and no program can make shorter: the output of BLAKE3, the same in every run.
pub(crate) fn write_noise(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        noise.fill(&mut buffer[..now]);
        (&file).write_all(&buffer[..now])?;
        left -= u64::try_from(now)?;
    }
    Ok(())
}
