//! The programs as processes.

use crate::link::Link;
use crate::{binaries, poll};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The loopback range, which nobody is given or dials unless it is admitted.
const LOOPBACK: &str = "127.0.0.0/8";

/// `hybrid-server` with these arguments.
pub fn server_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().join("hybrid-server"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// `hybrid-peer` with these arguments.
pub fn peer_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().join("hybrid-peer"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// Runs a program that ends by itself.
///
/// # Panics
/// When it cannot be started.
pub fn run_to_end(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

/// Lines of a program's output as they come.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn collect(&self, output: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.0.lock().expect("no holder panics").push(line);
            }
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").clone()
    }
}

/// A running program; it is killed when the test is done with it.
#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(name: String, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let (stdout, stderr) = (Lines::default(), Lines::default());
        stdout.collect(child.stdout.take().expect("piped"));
        stderr.collect(child.stderr.take().expect("piped"));
        Self { name, child, stdout, stderr }
    }

    fn said(&self) -> String {
        let tail = |lines: &Lines| {
            let all = lines.all();
            all[all.len().saturating_sub(30)..].join("\n")
        };
        format!("{} said:\n{}\n-- and on stderr:\n{}", self.name, tail(&self.stdout), tail(&self.stderr))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    fn signal(&self, signal: &str) {
        // The shell's own kill: the program of that name is not on every machine.
        let kill = format!("kill {signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell runs");
        assert!(status.success(), "{} was gone already", self.name);
    }
}

impl Drop for Running {
    #[allow(clippy::print_stderr, reason = "what the programs said is what one needs to know of a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A `hybrid-server` that serves a folder on a port of the system's choice.
#[derive(Debug)]
pub struct ServerProcess {
    running: Running,
    address: String,
    state: tempfile::TempDir,
    /// Its arguments but for the address and the state.
    again: Vec<String>,
}

/// Where a server listens, once it does; `None` if it ends before.
fn listening(running: &mut Running) -> Option<String> {
    poll("the server to listen", || {
        let line = running.stdout.all().into_iter().find(|line| line.contains("listening on "));
        let address = line.and_then(|line| line.split_whitespace().last().map(ToOwned::to_owned));
        (address.is_some() || running.ended().is_some()).then_some(address)
    })
}

impl ServerProcess {
    /// Starts one and waits until it serves.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = ["--allow-peers", LOOPBACK].iter().chain(arguments).copied().collect();
        Self::start_as(folder, "127.0.0.1:0", &arguments, |command| command)
    }

    /// Starts one on the server's side of a link.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub fn start_in(link: &Link, folder: &Path, listen: &str, arguments: &[&str]) -> Self {
        Self::start_as(folder, listen, arguments, |command| link.server(&command))
    }

    fn start_as(folder: &Path, listen: &str, arguments: &[&str], wrap: impl FnOnce(Command) -> Command) -> Self {
        let state = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.to_str().expect("a plain path");
        let state_path = state.path().to_str().expect("a plain path");
        let mut command = server_command(&["serve", folder, "--listen", listen, "--state", state_path]);
        command.args(arguments);
        let mut running = Running::start("hybrid-server".to_owned(), wrap(command));
        let address = listening(&mut running).unwrap_or_else(|| panic!("the server ended; {}", running.said()));
        let again = [folder].iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        Self { running, address, state, again }
    }

    /// Starts it again at the same address, with the state that it had.
    ///
    /// # Panics
    /// When it is still there, or does not come to serve.
    pub fn start_again(&mut self) {
        assert!(self.running.ended().is_some(), "the server is still there");
        let listen = self.socket_address().to_string();
        let state = self.state.path().to_str().expect("a plain path");
        // Another program may have the port for a moment.
        self.running = poll("the server to start again", || {
            let mut command = server_command(&["serve", "--listen", &listen, "--state", state]);
            command.args(&self.again);
            let mut running = Running::start("hybrid-server".to_owned(), command);
            listening(&mut running).map(|_| running)
        });
    }

    /// What `hybrid-server explain` says of a content.
    ///
    /// # Panics
    /// When it fails.
    pub fn explain(&self, content: &str) -> String {
        let state = self.state.path().to_str().expect("a plain path");
        let output = run_to_end(server_command(&["explain", content, "--state", state]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it speaks UTF-8")
    }

    /// The URL of a content.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.address.trim_end_matches('/'))
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When it said something else than an address.
    pub fn socket_address(&self) -> SocketAddr {
        let (_, address) = self.address.split_once("://").expect("it prints a URL");
        address.trim_end_matches('/').parse().expect("it prints an address")
    }

    /// How many sockets it has open.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn open_sockets(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.running.child.id())).expect("the process is there");
        let is_socket = |path: &PathBuf| path.to_string_lossy().starts_with("socket:");
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).filter(is_socket).count()
    }

    /// What it printed, for messages.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.running.signal("-INT");
    }

    /// Waits until it ends.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        poll("the end of the server", || self.running.ended())
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.running.child.kill().expect("our own child");
        self.running.child.wait().expect("our own child");
    }
}

/// A `hybrid-peer get` whose events are read as they come.
#[derive(Debug)]
pub struct PeerProcess {
    running: Running,
    output: PathBuf,
}

impl PeerProcess {
    /// Starts one with a cache and an output file of its own in `folder`.
    pub fn start(name: &str, url: &str, folder: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = ["--allow-peers", LOOPBACK].iter().chain(arguments).copied().collect();
        Self::start_as(name, url, folder, &arguments, |command| command)
    }

    /// Starts one on the clients' side of a link.
    pub fn start_in(link: &Link, name: &str, url: &str, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_as(name, url, folder, arguments, |command| link.client(&command))
    }

    fn start_as(
        name: &str,
        url: &str,
        folder: &Path,
        arguments: &[&str],
        wrap: impl FnOnce(Command) -> Command,
    ) -> Self {
        let output = folder.join(format!("{name}.out"));
        let cache = folder.join(format!("{name}.cache"));
        let mut command = peer_command(&["get", url, "--json"]);
        command.arg("-o").arg(&output).arg("--cache").arg(&cache).args(arguments);
        Self { running: Running::start(name.to_owned(), wrap(command)), output }
    }

    /// The file that it writes.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// All events so far.
    ///
    /// # Panics
    /// When a line of the program's output is no JSON object with an `event`.
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &String| -> Value {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("'{line}' is no JSON: {error}"));
            assert!(value["event"].is_string(), "'{line}' has no event");
            value
        };
        self.running.stdout.all().iter().map(parse).collect()
    }

    /// The first event of this name, once it has come.
    ///
    /// # Panics
    /// When the program ends without it, or it does not come in time.
    pub fn wait_for(&mut self, event: &str) -> Value {
        let what = format!("the event {event} of {}", self.running.name);
        poll(&what, || {
            let ended = self.running.ended();
            let found = self.events().into_iter().find(|value| value["event"] == event);
            assert!(found.is_some() || ended.is_none(), "ended with {ended:?} before {what}; {}", self.running.said());
            found
        })
    }

    /// Waits until an event makes `wanted` say yes.
    pub fn wait_until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        poll(what, || {
            let ended = self.running.ended();
            let found = self.events().into_iter().find(&mut wanted);
            assert!(found.is_some() || ended.is_none(), "ended with {ended:?} before {what}; {}", self.running.said());
            found
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.running.ended().is_some()
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let name = self.running.name.clone();
        poll(&format!("the end of {name}"), || self.running.ended())
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Panics
    /// When it is not ours to kill.
    pub fn kill(&mut self) {
        self.running.child.kill().expect("our own child");
        self.running.child.wait().expect("our own child");
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.running.signal("-INT");
    }

    /// Holds it up until [`Self::go_on`].
    pub fn hold_up(&self) {
        self.running.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.running.signal("-CONT");
    }

    /// What it printed, for messages.
    pub fn said(&self) -> String {
        self.running.said()
    }
}
