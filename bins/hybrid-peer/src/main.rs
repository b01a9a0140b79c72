//! `hybrid-peer`: gets contents from hybrid servers and from other peers, and serves them to others.

mod args;
mod failure;
mod get;
mod inspect;
mod report;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return failure::from_clap(&error),
    };
    start_log();
    // One thread for the network: several hand each other the same few connections and wake each other for it. Hashing and the
    // disk have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::system("cannot start", &error)),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    }
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Get(get) => get::run(*get).await,
        Command::Inspect(inspect) => inspect::run(inspect).await,
    }
}

/// Warnings and errors, or what `HYBRID_LOG` asks for, on standard error.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HYBRID_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_target(false).with_ansi(colours).init();
}

/// Writes a line of data. A reader that went away is no error of ours, but there is nobody left to work for.
fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
        _ => Failure::system("cannot write to standard output", &error),
    })
}
