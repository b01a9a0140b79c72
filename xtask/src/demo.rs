//! `cargo xtask demo [FILE]`: one server and twelve peers as real processes on loopback.
//!
//! Uplinks are capped by the programs' own flags, so that it needs no rights and no tools: what is seen is how the server's
//! cost stays while the crowd gets the file.

mod crowd;
mod table;

use crate::work_folder::WorkFolder;
use crate::workspace;
use anyhow::{Context, bail, ensure};
use crowd::{Crowd, Peer};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const HELP: &str = "\
Usage: cargo xtask demo [FILE]

One server and 12 peers as real processes on loopback share FILE; the first 2 are served directly, the others by the swarm.
Without FILE: the compiler's own library, about 150 MB. Needs free disk of about 25 times the file.";

/// Peers that the server serves directly.
const DIRECT: usize = 2;

/// Peers in all.
const PEERS: usize = 12;

/// The server's uplink. With [`PEER_UPLINK_BYTES`] small enough that two cores are not the limit, large enough not to bore.
const SERVER_UPLINK_BYTES: u64 = 20_000_000;

/// Each peer's uplink.
const PEER_UPLINK_BYTES: u64 = 10_000_000;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let file = match arguments {
        [] => default_file()?,
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{HELP}");
            return Ok(());
        }
        [file] if !file.starts_with('-') => PathBuf::from(file),
        _ => bail!("expected at most one FILE\n\n{HELP}"),
    };
    let programs = workspace::programs()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let work = WorkFolder::new("demo")?;
        std::fs::create_dir(work.path().join("served"))?;
        tokio::select! {
            result = show(&programs, &file, work.path()) => result,
            _ = tokio::signal::ctrl_c() => {
                // The programs heard it too, being of the same terminal; what still runs is killed when its handle goes.
                println!("\nstopped");
                Ok(())
            }
        }
    })
}

/// The library of the compiler that builds this: large, real, and on every machine that can run this command.
fn default_file() -> anyhow::Result<PathBuf> {
    let output =
        std::process::Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let folder = Path::new(String::from_utf8(output.stdout)?.trim()).join("lib");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let is_library = |name: &str| name.starts_with("librustc_driver") || name.starts_with("rustc_driver");
    let candidates = entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(is_library));
    let largest = candidates.max_by_key(|entry| entry.metadata().map(|data| data.len()).unwrap_or(0));
    let found = largest.with_context(|| format!("no librustc_driver in {}; name a FILE", folder.display()))?;
    Ok(found.path())
}

fn hash(path: &Path) -> anyhow::Result<blake3::Hash> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            bytes => hasher.update(&buffer[..bytes]),
        };
    }
}

async fn show(programs: &Path, file: &Path, work: &Path) -> anyhow::Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("the file's name is not plain text")?;
    let served = work.join("served");
    std::fs::copy(file, served.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    let length = std::fs::metadata(served.join(name))?.len();
    let source = hash(&served.join(name))?;
    println!("\n{name}: {:.1} MB, BLAKE3 {source}", mega(length));
    println!(
        "server uplink {:.0} Mbit/s, each peer's {:.0} Mbit/s; the first {DIRECT} of {PEERS} are served directly\n",
        mega(SERVER_UPLINK_BYTES * 8),
        mega(PEER_UPLINK_BYTES * 8)
    );

    let (mut server, address) = start_server(programs, work, &served).await?;
    let url = format!("{address}/{}", percent_encoded(name));
    let mut crowd = Crowd::default();
    let start = Instant::now();
    for index in 0..PEERS {
        crowd.peers.push(Peer::start(programs, work, index, &url, PEER_UPLINK_BYTES)?);
        // The direct ones first, so that everybody sees who is who; the others all at once.
        if index < DIRECT {
            crowd.until(|peers| peers[index].state().mode.is_some(), start).await?;
        }
    }
    crowd.until(|peers| peers.iter().all(|peer| peer.state().complete_after.is_some()), start).await?;
    let took = start.elapsed();
    for peer in &crowd.peers {
        let written = hash(&peer.output)?;
        ensure!(written == source, "{} wrote a file with hash {written}, not {source}", peer.name);
    }
    println!("\nall {PEERS} files have the source's hash");
    crowd.stop().await?;
    interrupt(&server).await?;
    stop(&mut server).await?;
    conclude(&crowd, length, took)
}

/// The figures at the end, and the promises that they must keep.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn conclude(crowd: &Crowd, length: u64, took: Duration) -> anyhow::Result<()> {
    let sum = |source: &str| -> u64 { crowd.peers.iter().map(|peer| peer.state().bytes_from(source)).sum() };
    let (direct, grant, rescue, peer) = (sum("server-direct"), sum("server-grant"), sum("server-rescue"), sum("peer"));
    let sent = direct + grant + rescue;
    let copies = sent as f64 / length.max(1) as f64;
    println!(
        "the server sent   {copies:.2} copies to {PEERS} peers ({:.1} MB: {:.1} to clients in client/server mode, {:.1} granted, {:.1} as help)",
        mega(sent),
        mega(direct),
        mega(grant),
        mega(rescue)
    );
    println!("peers sent        {:.0} % of all bytes", 100.0 * peer as f64 / (peer + sent).max(1) as f64);
    let alone = PEERS as f64 * length as f64 / SERVER_UPLINK_BYTES as f64;
    let server_and_peers = (SERVER_UPLINK_BYTES + PEERS as u64 * PEER_UPLINK_BYTES) as f64;
    let bound = (length as f64 / SERVER_UPLINK_BYTES as f64).max(PEERS as f64 * length as f64 / server_and_peers);
    println!("it took           {:.1} s until the last peer was complete, its file written", took.as_secs_f64());
    println!("client/server     would take {alone:.1} s at least: {PEERS} copies over the same uplink");
    println!("the fluid bound   is {bound:.1} s: no schedule over these uplinks can be faster");
    for (index, peer) in crowd.peers.iter().enumerate() {
        let mode = peer.state().mode.clone().unwrap_or_default();
        let expected = if index < DIRECT { "client-server" } else { "peer-to-peer" };
        ensure!(mode == expected, "{} was served in {mode} mode, expected {expected}", peer.name);
    }
    ensure!(length == 0 || copies < 4.0, "the server sent {copies:.2} copies, expected fewer than 4");
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn mega(amount: u64) -> f64 {
    amount as f64 / 1e6
}

/// A file's name in a URL: all but unreserved characters as `%XX` (RFC 3986, section 2.3).
fn percent_encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn start_server(programs: &Path, work: &Path, served: &Path) -> anyhow::Result<(Child, String)> {
    let mut server = Command::new(programs.join("hybrid-server"))
        .arg("serve")
        .arg(served)
        .args(["--listen", "127.0.0.1:0", "--allow-peers", "127.0.0.0/8"])
        .args(["--direct-clients", &DIRECT.to_string(), "--egress-limit", &format!("{SERVER_UPLINK_BYTES}B/s")])
        .arg("--state")
        .arg(work.join("state"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(work.join("server.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start hybrid-server")?;
    let stdout = server.stdout.take().context("the server's output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, address)) = line.split_once("listening on ") {
            // What it says later must go somewhere, or it would wait for a reader.
            let address = address.trim().trim_end_matches('/').to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((server, address));
        }
    }
    bail!("the server ended: {}", std::fs::read_to_string(work.join("server.log"))?);
}

/// Asks a program to end, as Ctrl-C does.
async fn interrupt(child: &Child) -> anyhow::Result<()> {
    if let Some(id) = child.id() {
        // The shell's own kill: the program of that name is not on every machine.
        Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status().await.context("cannot run sh")?;
    }
    Ok(())
}

/// Waits for a program that was asked to end; kills it if it does not.
async fn stop(child: &mut Child) -> anyhow::Result<()> {
    if tokio::time::timeout(Duration::from_secs(20), child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}
