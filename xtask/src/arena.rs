//! `cargo xtask arena`: one server and a crowd over a network of real TCP, UDP and queues, on one machine.
//!
//! Each host is a network namespace on one bridge, with its uplink and its downlink shaped, and nothing is connected to the
//! machine's own network. Plain HTTP (nginx and curl) and ours run through the same scenarios; what is seen is set against
//! the fluid bound, as `docs/ARCHITECTURE.md` defines it.
//! Whatever happens, processes, namespaces and files are gone at the end; what a killed run leaves behind, the next removes.

mod network;
mod plan;
mod race;

use crate::process;
use crate::workspace;
use anyhow::ensure;
use plan::{Plan, Scenario, System};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// What it needs, and the Debian packages that have it.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{}", plan::help());
        return Ok(());
    }
    let (plan, systems, scenarios) = plan::parse(arguments)?;
    if !process::is_root() {
        println!("arena: skipped: needs root, for network namespaces");
        return Ok(());
    }
    if let Some(why) = process::missing(TOOLS) {
        println!("arena: skipped: {why}");
        return Ok(());
    }
    let programs = workspace::programs()?;
    network::remove_leftovers()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminations = signal(SignalKind::terminate())?;
        // Whichever comes first, the races are dropped, and with them all that they have started.
        tokio::select! {
            done = races(&plan, &systems, &scenarios, programs) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped"),
            _ = terminations.recv() => anyhow::bail!("stopped"),
        }
    })
}

async fn races(plan: &Plan, systems: &[System], scenarios: &[Scenario], programs: PathBuf) -> anyhow::Result<()> {
    println!("{plan}");
    for scenario in scenarios {
        println!("\n{}: {}; T_min {:.1} s", scenario.name(), scenario.about(), plan.fluid_bound_secs());
        for system in systems {
            for _ in 0..plan.runs {
                let result = race::run(plan, *scenario, *system, &programs).await?;
                println!("  {:<7} {result}", system.name());
                ensure!(result.wrong == 0, "{} clients finished with other bytes than the server's", result.wrong);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_in_the_help() {
        for scenario in plan::SCENARIOS {
            assert!(plan::help().contains(scenario.about()));
        }
    }
}
