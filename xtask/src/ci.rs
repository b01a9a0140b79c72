//! `cargo xtask ci`: every check, one after the other, with its time.
//!
//! A failed step does not stop the others: one run tells all that is wrong.
//! The tests come last, and the runner's closing lines are the last lines of the output, after our summary.

use crate::workspace::{cargo, output, root};
use crate::{fuzz, layers, no_arguments};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WASM: &str = "wasm32-unknown-unknown";

/// How a step ended.
enum Outcome {
    Passed,
    /// Not run, and why.
    Skipped(&'static str),
    Failed(anyhow::Error),
}

/// A step's name, how it ended and how long it took.
type Row = (&'static str, Outcome, Duration);

/// Runs the steps and keeps what is to be printed at the end.
#[derive(Default)]
struct Run {
    rows: Vec<Row>,
    closing_lines: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    no_arguments(arguments)?;
    let mut run = Run::default();
    run.step("format", || passes(&mut checked(["fmt", "--all", "--check"])));
    run.step("lints", || passes(&mut checked(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])));
    // The workspace's tests turn all features on.
    run.step("lints, no features", || {
        passes(&mut checked(["clippy", "-p", "hybrid-peer-cli", "--", "-D", "warnings"]))
    });
    run.step("docs", || passes(checked(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings")));
    run.step("layers", || layers::run(&[]).map(|()| Outcome::Passed));
    run.step("wasm", wasm);
    run.step("dependencies", dependencies);
    run.step("fuzzing", || Ok(fuzz::in_ci()?.map_or(Outcome::Passed, Outcome::Skipped)));
    run.step("doc tests", || passes(&mut checked(["test", "--doc", "--workspace"])));
    let mut closing_lines = Vec::new();
    run.step("tests", || tests(&mut closing_lines));
    run.closing_lines = closing_lines;
    run.finish()
}

impl Run {
    fn step(&mut self, name: &'static str, action: impl FnOnce() -> anyhow::Result<Outcome>) {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = action().unwrap_or_else(Outcome::Failed);
        let row = (name, outcome, started.elapsed());
        println!("=== {}", shown(&row));
        self.rows.push(row);
    }

    fn finish(self) -> anyhow::Result<()> {
        println!("\n=== summary");
        for row in &self.rows {
            println!("{}", shown(row));
        }
        let total: Duration = self.rows.iter().map(|(_, _, elapsed)| *elapsed).sum();
        println!("{:<12} {:>7.1} s", "together", total.as_secs_f64());
        for line in &self.closing_lines {
            eprintln!("{line}");
        }
        let failed = self.rows.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
        let failed: Vec<&str> = failed.map(|(name, _, _)| *name).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

fn shown((name, outcome, elapsed): &Row) -> String {
    let outcome = match outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Skipped(why) => format!("skipped: {why}"),
        Outcome::Failed(error) => format!("FAILED: {error:#}"),
    };
    format!("{name:<12} {:>7.1} s  {outcome}", elapsed.as_secs_f64())
}

/// Cargo with these arguments. Incremental builds only cost time and space where everything is built once.
fn checked<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = cargo();
    command.args(arguments).env("CARGO_INCREMENTAL", "0");
    command
}

fn passes(command: &mut Command) -> anyhow::Result<Outcome> {
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(Outcome::Passed)
}

fn wasm() -> anyhow::Result<Outcome> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    if !Path::new(sysroot.trim()).join("lib/rustlib").join(WASM).join("lib").is_dir() {
        return Ok(Outcome::Skipped("the target is not installed (rustup target add wasm32-unknown-unknown)"));
    }
    let mut command = checked(["check", "--target", WASM]);
    for name in layers::PURE {
        command.args(["-p", name]);
    }
    passes(&mut command)
}

/// Whether cargo has this subcommand.
fn has(subcommand: &str) -> bool {
    cargo().args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}

fn dependencies() -> anyhow::Result<Outcome> {
    if !has("deny") {
        return Ok(Outcome::Skipped("cargo-deny is not installed (cargo install cargo-deny --locked)"));
    }
    passes(&mut checked(["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

fn tests(closing_lines: &mut Vec<String>) -> anyhow::Result<Outcome> {
    if !has("nextest") {
        println!(
            "cargo-nextest is not installed (cargo install cargo-nextest --locked): the tests run under cargo test"
        );
        return passes(&mut checked(["test", "--workspace", "--all-targets"]));
    }
    let mut command = checked(["nextest", "run", "--workspace", "--no-fail-fast"]);
    // Without colours, even forced ones, the summary is known by its first word.
    command.env("CARGO_TERM_COLOR", "never").stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
    let stderr = child.stderr.take().context("the runner has no standard error")?;
    // Everything passes through at once but the closing lines, which are to be the last of all.
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("the runner's output cannot be read")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if !closing_lines.is_empty() || is_summary(&line) {
            closing_lines.push(line);
        } else {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(Outcome::Passed)
}

/// The line with which nextest begins its result: `Summary [   1.469s] 17 tests run: 17 passed, 0 skipped`.
fn is_summary(line: &str) -> bool {
    line.trim_start().starts_with("Summary [") && line.contains(" run: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_are_known() {
        for (line, expected) in [
            ("     Summary [   1.469s] 17 tests run: 17 passed, 0 skipped", true),
            ("     Summary [   0.162s] 11/23 tests run: 9 passed, 2 failed, 0 skipped", true),
            ("     Summary [   0.010s] 1 test run: 1 passed, 0 skipped", true),
            ("        PASS [   0.005s] ( 1/17) hybrid-swarm Summary [ run: ", false),
            ("────────────", false),
        ] {
            assert_eq!(is_summary(line), expected, "{line}");
        }
    }

    #[test]
    fn one_failure_fails_all_and_is_named() {
        let mut run = Run::default();
        run.step("good", || Ok(Outcome::Passed));
        run.step("absent", || Ok(Outcome::Skipped("not here")));
        run.step("bad", || bail!("exit status: 101"));
        assert!(shown(&run.rows[1]).ends_with("skipped: not here"));
        assert!(shown(&run.rows[2]).ends_with("FAILED: exit status: 101"));
        assert_eq!(run.finish().unwrap_err().to_string(), "failed: bad");

        let mut run = Run::default();
        run.step("good", || Ok(Outcome::Passed));
        assert!(run.finish().is_ok());
    }
}
