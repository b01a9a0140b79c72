//! `hybrid-server`: serves a folder to browsers, to any HTTP client, and to swarms of hybrid peers.
//!
//! A library only so that its settings file can be tested from outside; embedders use `hybrid-origin`.

mod args;
mod config;
mod connections;
#[cfg(unix)]
mod explain;
mod failure;
mod networks;
mod plan;
mod prepare;
mod serve;
mod settings;
#[cfg(unix)]
mod status;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return failure::from_clap(&error),
    };
    start_log();
    let done = match args.command {
        Command::Serve(serve) => {
            #[cfg(unix)]
            raise_open_files_limit();
            serve::run(serve)
        }
        #[cfg(unix)]
        Command::Explain(explain) => explain::run(&explain),
        Command::Prepare(prepare) => prepare::run(&prepare),
        Command::Plan(plan) => plan::run(&plan),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Reads the text of a settings file as `hybrid-server serve --config FILE` does, and starts nothing.
///
/// # Errors
/// What is wrong with it, as the program says it.
pub fn check_settings(text: &str) -> Result<(), String> {
    settings::Settings::check_text(text).map_err(|failure| failure.message)
}

/// Connections and contents take descriptors, and the usual soft limit of 1,024 is for programs that use `select`.
#[cfg(unix)]
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    /// Enough for two thousand clients with half a dozen connections each.
    const WANTED: u64 = 16_384;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < WANTED
    {
        tracing::warn!(
            limit,
            "few files may be open at a time, and four fifths of them are all connections: raise `ulimit -Hn`"
        );
    }
}

/// Starts, stops and warnings, or what `HYBRID_LOG` (or else `RUST_LOG`) asks for, on standard error.
fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("HYBRID_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}

/// Writes a line of data at once, for whoever waits for it.
fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
        _ => Failure::file(format!("cannot write to standard output: {error}")),
    })
}
