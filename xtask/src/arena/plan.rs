//! What is to be run: rates, sizes, scenarios, and the bound on the time that they take.

use anyhow::{Context, bail, ensure};
use std::fmt;

/// Who distributes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// nginx serves the file, each client fetches it with curl.
    Nginx,
    /// `hybrid-server` and `hybrid-peer`.
    Hybrid,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    FlashCrowd,
    OriginKilled,
}

const SYSTEMS: [System; 2] = [System::Nginx, System::Hybrid];
pub(super) const SCENARIOS: [Scenario; 2] = [Scenario::FlashCrowd, Scenario::OriginKilled];

impl System {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Hybrid => "hybrid",
        }
    }
}

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FlashCrowd => "S1",
            Self::OriginKilled => "S5",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::FlashCrowd => "a flash crowd: all clients come at once",
            Self::OriginKilled => "the same, and the server is killed when 1.2 copies have left it",
        }
    }

    /// After how many copies the server dies.
    pub(super) fn killed_after_copies(self) -> Option<f64> {
        match self {
            Self::FlashCrowd => None,
            Self::OriginKilled => Some(1.2),
        }
    }
}

/// Rates in Mbit/s on the wire, Ethernet headers included: of these, TCP can carry 0.955 as payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) peers: u16,
    pub(super) size_mib: u32,
    pub(super) server_up: f64,
    pub(super) peer_up: f64,
    pub(super) peer_down: f64,
    pub(super) runs: u32,
    /// Clients that our server serves directly before newcomers go to the swarm.
    pub(super) direct_clients: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { peers: 16, size_mib: 16, server_up: 20.0, peer_up: 10.0, peer_down: 50.0, runs: 1, direct_clients: 1 }
    }
}

impl Plan {
    pub(super) fn size_bytes(&self) -> u64 {
        u64::from(self.size_mib) << 20
    }

    /// Before this time no schedule can have all complete (Kumar and Ross, HotWeb 2006).
    pub(super) fn fluid_bound_secs(&self) -> f64 {
        let megabits = f64::from(self.size_mib) * 8.0 * 1.048_576;
        let peers = f64::from(self.peers);
        let together = peers * megabits / (self.server_up + peers * self.peer_up);
        (megabits / self.server_up).max(megabits / self.peer_down).max(together)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients, {} MiB, server {} Mbit/s, clients {} up and {} down",
            self.peers, self.size_mib, self.server_up, self.peer_up, self.peer_down
        )
    }
}

pub(super) fn help() -> String {
    let scenarios = SCENARIOS.map(|scenario| format!("  {}  {}", scenario.name(), scenario.about())).join("\n");
    format!(
        "Usage: cargo xtask arena [--system nginx|hybrid] [--scenario S1|S5] [--peers N] [--size MIB] [--scale FACTOR] \
         [--runs N] [--direct-clients N]\n\nOne server and a crowd in network namespaces with shaped links; plain HTTP and ours. Needs root, and \
         ip, tc, nginx and curl; without them it says so and ends.\n\n  --peers N       clients, at most 200 [default: 16]\n  \
         --size MIB      the file [default: 16]\n  --scale FACTOR  of all rates: below 1 on a machine that is too slow for \
         the crowd [default: 1]\n  --runs N        of each system in each scenario [default: 1]\n  --direct-clients N  \
         of our server: served whole before newcomers go to the swarm [default: 1]\n\nScenarios (both, if none \
         is named):\n{scenarios}"
    )
}

/// The plan, the systems and the scenarios that a command line asks for.
pub(super) fn parse(arguments: &[String]) -> anyhow::Result<(Plan, Vec<System>, Vec<Scenario>)> {
    let (mut plan, mut systems, mut scenarios) = (Plan::default(), Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = || rest.clone().next().with_context(|| format!("{flag} needs a value\n\n{}", help()));
        match flag.as_str() {
            "--system" => systems.push(find(&SYSTEMS, value()?, |system| system.name())?),
            "--scenario" => scenarios.push(find(&SCENARIOS, value()?, |scenario| scenario.name())?),
            "--peers" => plan.peers = value()?.parse().context("--peers is a number")?,
            "--size" => plan.size_mib = value()?.parse().context("--size is a number of MiB")?,
            "--direct-clients" => plan.direct_clients = value()?.parse().context("--direct-clients is a number")?,
            "--runs" => plan.runs = value()?.parse().context("--runs is a number")?,
            "--scale" => {
                let factor: f64 = value()?.parse().context("--scale is a number")?;
                ensure!(factor.is_finite() && factor > 0.0, "--scale is above 0");
                plan.server_up *= factor;
                plan.peer_up *= factor;
                plan.peer_down *= factor;
            }
            other => bail!("there is no flag '{other}'\n\n{}", help()),
        }
        rest.next();
    }
    // Beyond 200 the addresses here, and most machines, end.
    ensure!((1..=200).contains(&plan.peers), "--peers is from 1 to 200");
    ensure!((1..=4_096).contains(&plan.size_mib), "--size is from 1 to 4096 MiB");
    if systems.is_empty() {
        systems.extend(SYSTEMS);
    }
    if scenarios.is_empty() {
        scenarios.extend(SCENARIOS);
    }
    Ok((plan, systems, scenarios))
}

fn find<T: Copy>(all: &[T], name: &str, name_of: impl Fn(T) -> &'static str) -> anyhow::Result<T> {
    let found = all.iter().copied().find(|one| name_of(*one) == name);
    let names = || all.iter().map(|one| name_of(*one)).collect::<Vec<_>>().join(" or ");
    found.with_context(|| format!("'{name}' is not {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn command_lines() {
        let (plan, systems, scenarios) = parse(&[]).unwrap();
        assert_eq!((plan, &systems[..], &scenarios[..]), (Plan::default(), &SYSTEMS[..], &SCENARIOS[..]));
        let (plan, systems, scenarios) =
            parse(&words("--system hybrid --scenario S5 --peers 4 --size 2 --scale 0.5 --runs 3 --direct-clients 0"))
                .unwrap();
        let expected =
            Plan { peers: 4, size_mib: 2, server_up: 10.0, peer_up: 5.0, peer_down: 25.0, runs: 3, direct_clients: 0 };
        assert_eq!((plan, systems, scenarios), (expected, vec![System::Hybrid], vec![Scenario::OriginKilled]));
        for line in [
            "--system",
            "--system ftp",
            "--scenario S9",
            "--peers 0",
            "--peers 201",
            "--size 0",
            "--scale 0",
            "--scale NaN",
            "x",
        ] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_bound() {
        let secs = |change: fn(&mut Plan)| {
            let mut plan = Plan::default();
            change(&mut plan);
            plan.fluid_bound_secs()
        };
        // 16 MiB are 134.2 Mbit: together 16 × 134.2 / (20 + 160), else the server's or one client's link.
        for (found, expected) in [
            (secs(|_| {}), 11.93),
            (secs(|plan| plan.server_up = 5.0), 26.84),
            (secs(|plan| plan.peer_down = 5.0), 26.84),
            (secs(|plan| plan.peers = 1), 6.71),
        ] {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
    }
}
