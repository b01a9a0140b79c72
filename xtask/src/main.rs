//! What the project does to itself: `cargo xtask` lists the commands.
//!
//! Plain Rust, so that a machine with the Rust toolchain needs nothing else; each command is a module.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to people")]

mod arena;
mod bench;
mod ci;
mod demo;
mod fuzz;
mod layers;
#[cfg(test)]
mod lock;
mod process;
mod sim;
mod source;
mod work_folder;
mod workspace;

use std::process::ExitCode;

/// A command: its name, what it does in one line, and the function that takes the arguments after the name.
type Command = (&'static str, &'static str, fn(&[String]) -> anyhow::Result<()>);

const COMMANDS: &[Command] = &[
    ("arena", "Race plain HTTP and ours over shaped links in network namespaces (root)", arena::run),
    ("bench", "Measure what the programs cost against yardsticks: bench [--quick] [NAME…]", bench::run),
    ("ci", "Run every check, as CI does: format, lints, docs, layers, wasm, dependencies, fuzzing, tests", ci::run),
    ("demo", "Show one server and 12 peers sharing a file on this machine: demo [FILE]", demo::run),
    ("fuzz", "Fuzz every decoder and both brains, or one: fuzz [TARGET [ARGUMENT OF libFuzzer…]]", fuzz::run),
    ("layers", "Check which crate may know which, and that the pure ones stay pure", layers::run),
    ("sim", "Play a crowd of clients with the real brains on a virtual network: sim [--help]", sim::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        println!("{}", help());
        return ExitCode::SUCCESS;
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        println!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some((_, _, run)) = COMMANDS.iter().find(|(command, _, _)| command == name) else {
        eprintln!("cargo xtask has no command '{name}'\n\n{}", help());
        return ExitCode::from(2);
    };
    match run(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let lines = COMMANDS.iter().map(|(name, about, _)| format!("  {name:<8} {about}"));
    let lines: Vec<String> = lines.collect();
    format!("Usage: cargo xtask COMMAND\n\nCommands:\n{}", lines.join("\n"))
}

/// Commands that take no arguments say so instead of ignoring them.
fn no_arguments(arguments: &[String]) -> anyhow::Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => anyhow::bail!("takes no arguments, got '{argument}'"),
    }
}
