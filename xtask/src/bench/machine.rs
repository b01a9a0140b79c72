//! The machine under the figures: what it is, which processors we may use, and a network of our own.

use super::{ISOLATED, Outcome, Setting};
use crate::process;
use crate::workspace;
use anyhow::{Context, ensure};
use std::process::Command;

/// Processor, kernel and commit, for whoever quotes the figures.
pub(super) fn describe() -> anyhow::Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let git = |arguments: &[&str]| {
        workspace::output(Command::new("git").args(arguments).current_dir(workspace::root())).unwrap_or_default()
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    let changed = if git(&["status", "--porcelain"]).trim().is_empty() { "" } else { ", with changes" };
    let processors = processors()?.len();
    Ok(format!("commit {}{changed}; {processors} × {model}; Linux {}", commit.trim(), kernel.trim()))
}

/// The processors that this process may use.
pub(super) fn processors() -> anyhow::Result<Vec<u32>> {
    let status = std::fs::read_to_string("/proc/self/status").context("this is not Linux")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| parse_list(list.trim())).context("the kernel names no processors")
}

/// `0-2,5` as cpuset(7) writes lists.
fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        all.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(all)
}

/// Runs a benchmark again in a process with a network of its own, in which TCP uses cubic, or reno where that is not allowed.
///
/// A machine whose default is another algorithm gives other figures: with bbr, loopback is at 0.4 of its rate here, and
/// nginx's processor time doubles.
pub(super) fn isolate(name: &str, setting: &Setting) -> anyhow::Result<Outcome> {
    let mut command = process::bound(&["unshare", "--net"], std::env::current_exe()?);
    command.args(["bench", name, ISOLATED]);
    if setting.quick {
        command.arg("--quick");
    }
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    ensure!(status.success(), "the measurement failed or did not keep to its limits");
    // It has shown its limits itself.
    Ok(Outcome::Measured(Vec::new()))
}

/// What [`isolate`]'s process does first.
pub(super) fn prepare_network() -> anyhow::Result<()> {
    workspace::output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let choice = "/proc/sys/net/ipv4/tcp_congestion_control";
    // Where the machine allows no other, both servers use the same one all the same.
    if std::fs::write(choice, "cubic").is_err() {
        std::fs::write(choice, "reno").with_context(|| format!("cannot write cubic or reno to {choice}"))?;
        println!("TCP uses reno: this machine does not allow cubic in a network of its own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        for (list, expected) in
            [("0", Some(vec![0])), ("0-2,5", Some(vec![0, 1, 2, 5])), ("", None), ("a", None), ("1-", None)]
        {
            assert_eq!(parse_list(list), expected, "{list}");
        }
        assert!(!processors().unwrap().is_empty());
    }
}
