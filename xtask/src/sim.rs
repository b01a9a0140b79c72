//! `cargo xtask sim`: crowds of any size, played by the real brains on a virtual network.
//!
//! Optimised, since it counts millions of events; what it does and takes is in `crates/sim/examples/simulate.rs`.

use crate::workspace;
use anyhow::ensure;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let package = ["--quiet", "--release", "--package", "hybrid-sim", "--example", "simulate"];
    let build = workspace::cargo().arg("build").args(package).status()?;
    ensure!(build.success(), "the simulator does not build");
    let program = workspace::target()?.join("release/examples/simulate");
    let status = std::process::Command::new(program).args(arguments).status()?;
    // Its own words say why.
    std::process::exit(status.code().unwrap_or(1));
}
