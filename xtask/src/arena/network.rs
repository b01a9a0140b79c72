//! A star of network namespaces: one bridge, and a shaped link from it to each host.
//!
//! Host 0 is the server, at 10.78.0.1; the peers follow. A host's interface is `eth0`; its other end, `p` and the host's
//! number, is a port of the bridge, in a namespace of its own. The uplink is shaped where the host sends, the downlink where
//! the bridge sends to it.

use super::plan::Plan;
use crate::process::{self, Running};
use crate::work_folder::{is_alive, owner};
use crate::workspace::output;
use anyhow::{Context, ensure};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names of our namespaces begin with it, then comes the process that owns them.
const PREFIX: &str = "hyb";

/// How long a full queue takes to drain: what a home router holds.
const QUEUE_SECS: f64 = 0.060;
/// How long a link may send at its physical rate: short, so that the rate holds at the scale of a part.
const BURST_SECS: f64 = 0.003;
/// A token bucket passes no packet longer than its burst. This is a few Ethernet frames; larger packets, which the kernel
/// builds to save work, are cut, so that each frame's header is charged.
const BURST_BYTES_MIN: f64 = 12_000.0;

/// The network; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Network {
    tag: String,
    hosts: u16,
    /// Runs in the bridge's namespace, whose counters are read through it.
    holder: Option<Running>,
}

/// Bytes that a host has sent and received since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Network {
    pub(super) fn build(plan: &Plan, work: &Path) -> anyhow::Result<Self> {
        let mut network = Self { tag: format!("{PREFIX}-{}", std::process::id()), hosts: plan.peers + 1, holder: None };
        let bridge = network.bridge();
        let all = || (0..network.hosts).map(|host| network.host(host));
        run_batch(&[], "ip", std::iter::once(bridge.clone()).chain(all()).map(|name| format!("netns add {name}")))?;
        let in_bridge = enter(&bridge);
        let lines = ["link set lo up", "link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up"];
        run_batch(&in_bridge, "ip", lines.map(ToOwned::to_owned))?;
        for host in 0..network.hosts {
            let name = network.host(host);
            let (up, down) = if host == 0 { (plan.server_up, SERVER_DOWN) } else { (plan.peer_up, plan.peer_down) };
            run_batch(&[], "ip", [format!("link add p{host} netns {bridge} type veth peer name eth0 netns {name}")])?;
            run_batch(&in_bridge, "ip", [format!("link set p{host} master br0 up")])?;
            run_batch(&in_bridge, "tc", [shaped(&format!("p{host}"), down)])?;
            let inside = enter(&name);
            let settings = "echo cubic > /proc/sys/net/ipv4/tcp_congestion_control; \
                            echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 2> /dev/null || true";
            output(command(&inside, "sh").args(["-c", settings]))?;
            let lines = [
                "link set lo up".to_owned(),
                format!("addr add {}/16 dev eth0", address(host)),
                "link set eth0 up".to_owned(),
                "route add default dev eth0".to_owned(),
            ];
            run_batch(&inside, "ip", lines)?;
            run_batch(&inside, "tc", [shaped("eth0", up)])?;
        }
        let mut holder = process::bound(&in_bridge, "sleep");
        network.holder = Some(Running::start(holder.arg("infinity"), &work.join("holder.log"))?);
        network.wait_for_holder()?;
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.tag)
    }

    fn host(&self, host: u16) -> String {
        format!("{}-{host}", self.tag)
    }

    /// In front of a command, runs it on a host.
    pub(super) fn enter(&self, host: u16) -> Vec<String> {
        enter(&self.host(host))
    }

    /// The holder is in our own namespace until it has entered the bridge's.
    fn wait_for_holder(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.counters().is_err() {
            ensure!(Instant::now() < deadline, "the bridge's namespace could not be entered");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What each host has sent and received, in order.
    pub(super) fn counters(&self) -> anyhow::Result<Vec<Counters>> {
        let holder = self.holder.as_ref().context("the network is not built")?;
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", holder.id()))?;
        (0..self.hosts)
            .map(|host| port_counters(&text, host).with_context(|| format!("no port of host {host}")))
            .collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.take());
        let bridge = self.bridge();
        for name in (0..self.hosts).map(|host| self.host(host)).chain([bridge]) {
            if let Err(error) = remove(&name) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Nothing goes to the server but requests and acknowledgements.
const SERVER_DOWN: f64 = 1_000.0;

pub(super) fn address(host: u16) -> Ipv4Addr {
    let [_, low] = (host + 1).to_be_bytes();
    Ipv4Addr::new(10, 78, 0, low)
}

/// Removes the namespaces of runs that were killed, with what still runs in them.
pub(super) fn remove_leftovers() -> anyhow::Result<()> {
    let Ok(entries) = Path::new("/run/netns").read_dir() else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if owner(name, PREFIX).is_some_and(|owner| !is_alive(owner)) {
            remove(name)?;
        }
    }
    Ok(())
}

fn remove(name: &str) -> anyhow::Result<()> {
    if !Path::new("/run/netns").join(name).exists() {
        return Ok(());
    }
    for process in output(Command::new("ip").args(["netns", "pids", name]))?.split_ascii_whitespace() {
        // It may have ended meanwhile.
        drop(Command::new("sh").args(["-c", &format!("kill -KILL {process} 2> /dev/null")]).status());
    }
    output(Command::new("ip").args(["netns", "del", name]))?;
    Ok(())
}

fn enter(namespace: &str) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]
}

fn command(prefix: &[String], program: &str) -> Command {
    let mut words = prefix.iter().map(String::as_str).chain([program]);
    let mut command = Command::new(words.next().expect("there is the program at least"));
    command.args(words);
    command
}

/// Runs lines as `ip` and `tc` read them from their standard input.
fn run_batch(prefix: &[String], tool: &str, lines: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    let mut command = command(prefix, tool);
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{tool} does not start"))?;
    child.stdin.take().context("its input is piped")?.write_all(text.as_bytes())?;
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "{tool}: {} in:\n{text}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// The line for `tc` that shapes a device.
fn shaped(device: &str, megabits: f64) -> String {
    let bytes_per_sec = megabits * 1e6 / 8.0;
    let burst = (bytes_per_sec * BURST_SECS).max(BURST_BYTES_MIN);
    let limit = burst + bytes_per_sec * QUEUE_SECS;
    format!("qdisc add dev {device} root tbf rate {:.0}bit burst {burst:.0} limit {limit:.0}", megabits * 1e6)
}

/// A port's counters in proc_pid_net(5)'s `dev`; what the bridge received from a host is what the host sent.
fn port_counters(text: &str, host: u16) -> Option<Counters> {
    let name = format!("p{host}:");
    let fields = text.lines().find_map(|line| line.trim_start().strip_prefix(&name))?;
    let fields: Vec<u64> = fields.split_ascii_whitespace().map(|field| field.parse().ok()).collect::<Option<_>>()?;
    Some(Counters { sent: *fields.first()?, received: *fields.get(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(shaped("eth0", 20.0), "qdisc add dev eth0 root tbf rate 20000000bit burst 12000 limit 162000");
        assert_eq!(shaped("p1", 1_000.0), "qdisc add dev p1 root tbf rate 1000000000bit burst 375000 limit 7875000");
        assert_eq!((address(0), address(200)), (Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 201)));
    }

    #[test]
    fn ports() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n  p1: 100 2 0 0 0 0 0 0 900 3 0 0 0 0 0 0\n\
                    \x20p11: 7 2 0 0 0 0 0 0 8 3 0 0 0 0 0 0\n";
        assert_eq!(port_counters(text, 1), Some(Counters { sent: 100, received: 900 }));
        assert_eq!(port_counters(text, 11), Some(Counters { sent: 7, received: 8 }));
        assert_eq!(port_counters(text, 0), None);
    }
}
