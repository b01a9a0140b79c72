//! One race: a network, a server, the clients, and what was seen from outside.

use super::network::{Counters, Network, address};
use super::plan::{Plan, Scenario, System};
use crate::bench::write_noise;
use crate::process::{self, Running};
use crate::work_folder::WorkFolder;
use anyhow::Context;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);
/// Nothing takes longer that is worth waiting for: plain HTTP needs 110 s here.
const LIMIT: Duration = Duration::from_secs(600);
/// A race is over when all hosts together sent less than this in so long.
const STALLED_BYTES: u64 = 1 << 20;
const STALLED_AFTER: Duration = Duration::from_secs(20);

/// What came of a race.
#[derive(Debug)]
pub(super) struct Outcome {
    bound_secs: f64,
    clients: usize,
    /// Of those that finished, how long each took, ascending.
    times: Vec<f64>,
    /// How many of them have other bytes than the server.
    pub(super) wrong: usize,
    copies: f64,
    busy: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound_secs, clients, times, copies, busy, .. } = self;
        let finished = times.len();
        write!(f, "{finished} of {clients} clients finished, ")?;
        if let Some(last) = times.last() {
            #[allow(clippy::cast_precision_loss, reason = "there are few clients")]
            let mean = times.iter().sum::<f64>() / finished as f64;
            write!(f, "last / T_min {:.2}, mean / T_min {:.2}, ", last / bound_secs, mean / bound_secs)?;
        }
        write!(f, "{copies:.2} copies sent by the server, machine {:.0} % busy", 100.0 * busy)
    }
}

/// A client, from its start to the end of the race.
struct Client {
    process: Running,
    log: PathBuf,
    output: PathBuf,
    started: Instant,
    finished: Option<Instant>,
    /// It will not finish any more.
    failed: bool,
}

pub(super) async fn run(plan: &Plan, scenario: Scenario, system: System, programs: &Path) -> anyhow::Result<Outcome> {
    // In this order, so that they go in the other one: processes, network, files.
    let work = WorkFolder::new("arena")?;
    let work = work.path();
    let file = work.join("served/file.bin");
    std::fs::create_dir_all(work.join("served"))?;
    write_noise(&file, plan.size_bytes())?;
    let network = Network::build(plan, work)?;
    let log = work.join("server.log");
    let mut server = Running::start(&mut server_command(plan, system, &network, work, programs)?, &log)?;
    match system {
        System::Nginx => server.wait_for_file(&log, &work.join("nginx.ready"), Duration::from_secs(10))?,
        System::Hybrid => server.wait_for_log(&log, "all files are prepared", Duration::from_secs(60))?,
    }
    let mut server = Some(server);

    let before = network.counters()?;
    let cpu_before = machine_times()?;
    let start = Instant::now();
    let mut clients = Vec::new();
    for host in 1..=plan.peers {
        clients.push(Client::start(system, &network, work, programs, host)?);
    }
    let kill_at = scenario.killed_after_copies().map(|copies| copies * as_f64(plan.size_bytes()));
    let mut progress = (start, 0);
    loop {
        tokio::time::sleep(TICK).await;
        for client in &mut clients {
            client.look(system)?;
        }
        let now = Instant::now();
        let counters = network.counters()?;
        let sent = total_sent(&counters) - total_sent(&before);
        if kill_at.is_some_and(|limit| as_f64(counters[0].sent - before[0].sent) >= limit) {
            drop(server.take());
        }
        if sent >= progress.1 + STALLED_BYTES {
            progress = (now, sent);
        }
        let is_done = clients.iter().all(|client| client.finished.is_some() || client.failed);
        if is_done || now - progress.0 > STALLED_AFTER || now - start > LIMIT {
            break;
        }
    }
    let copies = as_f64(network.counters()?[0].sent - before[0].sent) / as_f64(plan.size_bytes());
    let cpu_after = machine_times()?;
    let mut times: Vec<f64> = clients.iter().filter_map(Client::took).map(|took| took.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let source = std::fs::read(&file)?;
    let finished = clients.iter().filter(|client| client.finished.is_some());
    let wrong = finished.filter(|client| std::fs::read(&client.output).map_or(true, |bytes| bytes != source)).count();
    let busy = as_f64(cpu_after.0 - cpu_before.0) / as_f64((cpu_after.1 - cpu_before.1).max(1));
    Ok(Outcome { bound_secs: plan.fluid_bound_secs(), clients: clients.len(), times, wrong, copies, busy })
}

const NGINX: &str = "\
master_process off; daemon off; pid WORK/nginx.ready; error_log WORK/nginx-errors.log;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path WORK/temp1; proxy_temp_path WORK/temp2; fastcgi_temp_path WORK/temp3;
  uwsgi_temp_path WORK/temp4; scgi_temp_path WORK/temp5;
  server { listen 80; root WORK/served; }
}
";

fn server_command(
    plan: &Plan,
    system: System,
    network: &Network,
    work: &Path,
    programs: &Path,
) -> anyhow::Result<std::process::Command> {
    let prefix = network.enter(0);
    Ok(match system {
        System::Nginx => {
            let config = work.join("nginx.conf");
            let place = work.to_str().context("the folder's name is not plain text")?;
            std::fs::write(&config, NGINX.replace("WORK", place))?;
            let mut command = process::bound(&prefix, "nginx");
            command.arg("-p").arg(work).arg("-c").arg(&config);
            command
        }
        System::Hybrid => {
            let mut command = process::bound(&prefix, programs.join("hybrid-server"));
            command.arg("serve").arg(work.join("served")).args(["--listen", &format!("{}:80", address(0))]);
            command.args(["--allow-peers", "10.78.0.0/16"]);
            command.args(["--direct-clients", &plan.direct_clients.to_string()]);
            command.arg("--state").arg(work.join("state"));
            command
        }
    })
}

impl Client {
    fn start(system: System, network: &Network, work: &Path, programs: &Path, host: u16) -> anyhow::Result<Self> {
        let folder = work.join(format!("host{host}"));
        std::fs::create_dir_all(&folder)?;
        let (log, output) = (folder.join("log"), folder.join("file.bin"));
        let url = format!("http://{}/file.bin", address(0));
        let prefix = network.enter(host);
        let mut command = match system {
            System::Nginx => {
                let mut command = process::bound(&prefix, "curl");
                command.args(["--silent", "--show-error", "--fail", "--output"]).arg(&output).arg(&url);
                command
            }
            System::Hybrid => {
                let mut command = process::bound(&prefix, programs.join("hybrid-peer"));
                command.args(["get", &url, "--json", "--stay", "forever", "--allow-peers", "10.78.0.0/16"]);
                command.arg("-o").arg(&output).arg("--cache").arg(folder.join("cache"));
                command
            }
        };
        let process = Running::start(&mut command, &log)?;
        Ok(Self { process, log, output, started: Instant::now(), finished: None, failed: false })
    }

    /// Notices that it has finished: curl ends then, ours tells an event and stays to share.
    fn look(&mut self, system: System) -> anyhow::Result<()> {
        if self.finished.is_some() || self.failed {
            return Ok(());
        }
        let ended = self.process.ended()?;
        let is_finished = match system {
            System::Nginx => ended.is_some_and(|status| status.success()),
            System::Hybrid => std::fs::read_to_string(&self.log)?.lines().any(is_complete),
        };
        if is_finished {
            self.finished = Some(Instant::now());
        }
        self.failed = !is_finished && ended.is_some();
        Ok(())
    }

    fn took(&self) -> Option<Duration> {
        Some(self.finished? - self.started)
    }
}

fn is_complete(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|event| event["event"] == "complete")
}

fn total_sent(counters: &[Counters]) -> u64 {
    counters.iter().map(|counters| counters.sent).sum()
}

/// Busy and all time of the machine's processors, in its ticks; the simulated network's work is in it.
fn machine_times() -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    parse_machine_times(&text).context("/proc/stat has another form")
}

/// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_machine_times(text: &str) -> Option<(u64, u64)> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let fields: Vec<u64> = fields.take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let total: u64 = fields.iter().sum();
    Some((total - fields.get(3)? - fields.get(4)?, total))
}

#[allow(clippy::cast_precision_loss, reason = "bytes and ticks are far below 2^52")]
fn as_f64(amount: u64) -> f64 {
    amount as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        assert!(is_complete(r#"{"event": "complete", "bytes": {}}"#));
        for line in [r#"{"event": "mode", "why": "complete"}"#, r#""complete""#, "complete", ""] {
            assert!(!is_complete(line), "{line}");
        }
    }

    #[test]
    fn how_busy_the_machine_is() {
        assert_eq!(parse_machine_times("cpu  10 1 5 80 4 0 2 1 0 0\ncpu0 1"), Some((19, 103)));
        assert_eq!(parse_machine_times("intr 5"), None);
    }
}
