//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz-harness`, with coverage counters that the stable compiler makes.

use crate::workspace::{cargo, output, root};
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;

/// What `cargo fuzz` passes, less the sanitizer, which needs a nightly compiler and looks for what `forbid(unsafe_code)` rules
/// out.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// With the feature `programs` alone: their libraries take minutes to build so.
const PROGRAMS: [&str; 3] = ["http", "settings", "url"];

/// For each target when all run, unless `HYBRID_FUZZ_SECONDS` says otherwise: 16 targets, two at a time, take 24 s.
const SECONDS: u64 = 3;

/// An input that takes longer hangs.
const INPUT_SECONDS_MAX: u64 = 20;

/// More than that for one short input is a leak, or a length that was believed.
const MEMORY_MIB_MAX: u64 = 1_024;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    if let Some(why) = missing()? {
        bail!("{why}");
    }
    let Some((target, rest)) = arguments.split_first() else { return all(seconds()?) };
    if !corpus(target).is_dir() {
        bail!("there is no target '{target}'; fuzz/corpus/ has a folder for each");
    }
    let program = build(PROGRAMS.contains(&target.as_str()))?;
    let mut command = fuzzer(&program, target)?;
    let status = if rest.is_empty() { command.arg(found(target)?).arg(corpus(target)) } else { command.args(rest) }
        .status()
        .context("the fuzzer does not start")?;
    verdict(target, status)
}

/// All targets but those of programs, for a short time each; or why that cannot be.
pub(crate) fn in_ci() -> anyhow::Result<Option<&'static str>> {
    let seconds = seconds()?;
    if seconds == 0 {
        return Ok(Some("HYBRID_FUZZ_SECONDS is 0"));
    }
    if let Some(why) = missing()? {
        return Ok(Some(why));
    }
    all(seconds).map(|()| None)
}

fn seconds() -> anyhow::Result<u64> {
    match std::env::var("HYBRID_FUZZ_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("HYBRID_FUZZ_SECONDS: '{text}' is no number of seconds")),
        Err(_) => Ok(SECONDS),
    }
}

/// What is not there. A registry that cannot be reached is no failure of ours.
fn missing() -> anyhow::Result<Option<&'static str>> {
    if !cfg!(target_os = "linux") {
        return Ok(Some("libFuzzer is used on Linux only"));
    }
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if !Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(Some("there is no C++ compiler for libFuzzer (Debian: apt-get install g++)"));
    }
    let fetched = cargo().args(["fetch", "--quiet"]).current_dir(root().join("fuzz")).status()?;
    Ok((!fetched.success()).then_some("libfuzzer-sys cannot be fetched"))
}

fn build(programs: bool) -> anyhow::Result<PathBuf> {
    let compiler = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder = root().join("target/fuzz");
    // With a target named, build scripts and macros are built without the flags.
    let mut command = cargo();
    command.args(["build", "--release", "--target", host]).current_dir(root().join("fuzz"));
    command.env("CARGO_TARGET_DIR", &folder).env("CARGO_INCREMENTAL", "0").env("RUSTFLAGS", FLAGS);
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    if programs {
        command.args(["--features", "programs"]);
    }
    let status = command.status().context("cargo does not start")?;
    if !status.success() {
        bail!("the fuzzer does not build: {status}");
    }
    Ok(folder.join(host).join("release/hybrid-fuzz"))
}

fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

/// Where new inputs go; those worth keeping are merged into the corpus by hand.
fn found(target: &str) -> anyhow::Result<PathBuf> {
    folder("found", target)
}

fn folder(name: &str, target: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/fuzz").join(name).join(target);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn fuzzer(program: &PathBuf, target: &str) -> anyhow::Result<Command> {
    let mut artifacts: OsString = found(target)?.into_os_string();
    artifacts.push("-");
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(artifacts);
    let mut command = Command::new(program);
    command.env("HYBRID_FUZZ_TARGET", target).arg(prefix);
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    Ok(command)
}

fn verdict(target: &str, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("{target}: {status}; replay with: cargo xtask fuzz {target} FILE, with the file that is named above");
    }
    Ok(())
}

/// Every target that needs no programs, two at a time, from the corpora alone and with one seed: so a run differs from the last
/// one only where the code does, and no change is blamed for what chance has found.
fn all(seconds: u64) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    for entry in root().join("fuzz/corpus").read_dir().context("fuzz/corpus cannot be read")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !PROGRAMS.contains(&name.as_str()) {
            targets.push(name);
        }
    }
    targets.sort_by(|a, b| b.cmp(a));
    let program = build(false)?;
    let queue = Mutex::new(targets);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(target) = queue.lock().expect("nobody panics with it").pop() {
            if let Err(error) = one(&program, &target, seconds) {
                failures.lock().expect("nobody panics with it").push(format!("{error:#}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("nobody panics with it");
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    Ok(())
}

fn one(program: &PathBuf, target: &str, seconds: u64) -> anyhow::Result<()> {
    let new = folder("fresh", target)?;
    std::fs::remove_dir_all(&new).and_then(|()| std::fs::create_dir(&new)).context("what the last run added stays")?;
    let mut command = fuzzer(program, target)?;
    command.arg("-seed=1").arg(format!("-max_total_time={seconds}")).arg(new).arg(corpus(target));
    let output = command.output().context("the fuzzer does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = |words: &str| text.lines().rev().find(|line| line.contains(words)).unwrap_or_default().to_owned();
    println!("{target:<16} {}", last("Done "));
    if !output.status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.len().saturating_sub(60);
        eprintln!("{}", lines[tail..].join("\n"));
    }
    verdict(target, output.status)
}
