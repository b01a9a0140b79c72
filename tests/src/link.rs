//! Two network namespaces with one shaped link between them: a server's and its clients'.

use std::process::{Command, Output};

/// The server's end.
pub const SERVER: &str = "10.77.0.1";

/// All addresses of the link.
pub const NETWORK: &str = "10.77.0.0/24";

/// The two namespaces; removed when this is dropped.
#[derive(Debug)]
pub struct Link {
    server: String,
    clients: String,
}

impl Link {
    /// A link whose server sends at `mbit` megabits per second; `Err` says why there can be none on this machine.
    ///
    /// # Errors
    /// Without root, `ip` and `tc`, or where the kernel has no namespaces or no token bucket.
    pub fn new(mbit: u32) -> Result<Self, String> {
        let id = std::process::id();
        let link = Self { server: format!("hyb-test-{id}s"), clients: format!("hyb-test-{id}c") };
        let (server, clients) = (&link.server, &link.clients);
        for line in [
            format!("ip netns add {server}"),
            format!("ip netns add {clients}"),
            format!("ip link add eth0 netns {server} type veth peer name eth0 netns {clients}"),
            format!("ip -n {server} addr add {SERVER}/24 dev eth0"),
            format!("ip -n {clients} addr add 10.77.0.2/24 dev eth0"),
            format!("ip -n {server} link set eth0 up"),
            format!("ip -n {clients} link set eth0 up"),
            format!("ip -n {clients} link set lo up"),
            // The machine's own choice may be one that keeps sending what the link no longer takes.
            format!("ip netns exec {server} sysctl -qw net.ipv4.tcp_congestion_control=cubic"),
        ] {
            run(&line)?;
        }
        link.shape("add", mbit)?;
        Ok(link)
    }

    /// Changes what the server's end sends.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn set_rate(&self, mbit: u32) -> Result<(), String> {
        self.shape("change", mbit)
    }

    fn shape(&self, how: &str, mbit: u32) -> Result<(), String> {
        // A burst of 3 ms, and room for 100 ms.
        let burst = (mbit * 375).max(12_000);
        let shape = format!("tbf rate {mbit}mbit burst {burst} latency 100ms");
        run(&format!("tc -n {} qdisc {how} dev eth0 root handle 1: {shape}", self.server)).map(drop)
    }

    /// Runs a command on the server's side.
    pub fn server(&self, command: &Command) -> Command {
        within(&self.server, command)
    }

    /// Runs a command on the clients' side.
    pub fn client(&self, command: &Command) -> Command {
        within(&self.clients, command)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.clients] {
            // One that was never made cannot be removed.
            drop(Command::new("ip").args(["netns", "delete", namespace]).output());
        }
    }
}

fn within(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    inside.stdin(std::process::Stdio::null()).env_remove("RUST_LOG");
    inside
}

fn run(line: &str) -> Result<Output, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
