//! The peers of the demo: processes that tell their events as lines of JSON.

use super::{interrupt, stop, table};
use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// What a peer has told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) mode: Option<String>,
    /// The newest event that tells bytes by source.
    pub(crate) figures: Value,
    pub(crate) complete_after: Option<Duration>,
}

impl State {
    pub(crate) fn bytes_from(&self, source: &str) -> u64 {
        self.figures["bytes"][source].as_u64().unwrap_or(0)
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.figures[name].as_u64().unwrap_or(0)
    }

    fn learn(&mut self, event: Value, after: Duration) {
        match event["event"].as_str() {
            Some("mode") if self.mode.is_none() => self.mode = event["mode"].as_str().map(ToOwned::to_owned),
            Some("complete") => self.complete_after = Some(after),
            _ => {}
        }
        if event["bytes"].is_object() {
            self.figures = event;
        }
    }
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) output: PathBuf,
    log: PathBuf,
    child: Child,
    state: Arc<Mutex<State>>,
    reader: JoinHandle<()>,
}

impl Peer {
    pub(crate) fn start(programs: &Path, work: &Path, index: usize, url: &str, uplink: u64) -> anyhow::Result<Self> {
        let name = format!("peer {:2}", index + 1);
        let folder = work.join(format!("peer{index}"));
        std::fs::create_dir_all(&folder)?;
        let (output, log) = (folder.join("output"), folder.join("log"));
        let mut child = Command::new(programs.join("hybrid-peer"))
            .args(["get", url, "--json", "--stay", "forever", "--allow-peers", "127.0.0.0/8"])
            .args(["--upload-limit", &format!("{uplink}B/s")])
            .arg("-o")
            .arg(&output)
            .arg("--cache")
            .arg(folder.join("cache"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start hybrid-peer")?;
        let state = Arc::new(Mutex::new(State::default()));
        let stdout = child.stdout.take().context("the peer's output is piped")?;
        let (shared, start) = (state.clone(), Instant::now());
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(event) = serde_json::from_str(&line)
                    && let Ok(mut state) = shared.lock()
                {
                    state.learn(event, start.elapsed());
                }
            }
        });
        Ok(Self { name, output, log, child, state, reader })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// All peers that have been started.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) peers: Vec<Peer>,
    table: table::Table,
}

impl Crowd {
    /// Shows the table until the peers are as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&[Peer]) -> bool, start: Instant) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let done = wanted(&self.peers);
            self.table.show(&self.peers, start.elapsed(), done);
            if done {
                return Ok(());
            }
            for peer in &mut self.peers {
                if let Some(status) = peer.child.try_wait()? {
                    bail!("{} ended with {status}: {}", peer.name, std::fs::read_to_string(&peer.log)?);
                }
            }
        }
    }

    /// Ends all peers; their last words are in their states then.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for peer in &self.peers {
            interrupt(&peer.child).await?;
        }
        for peer in &mut self.peers {
            stop(&mut peer.child).await?;
            // What was in the pipe when it ended still counts.
            if tokio::time::timeout(Duration::from_secs(5), &mut peer.reader).await.is_err() {
                eprintln!("{} left its output open", peer.name);
            }
        }
        Ok(())
    }
}
