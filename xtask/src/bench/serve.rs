//! Serving parts: `hybrid-server` and nginx in turn, one processor for the server and one for wrk.
//!
//! Our side is the real program with its real addresses, `/hybrid/v1/parts/CONTENT/NUMBER`; nginx has each part as a file.
//! Both are asked for the same parts in the same order over connections that stay open, and everything comes from memory.

use super::figures::{Limit, median, short, spread};
use super::{Outcome, Setting, machine, prepare};
use crate::process::{self, Running, cpu_time};
use crate::work_folder::WorkFolder;
use crate::workspace::output;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the measurement needs, and the Debian packages that have it.
const TOOLS: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("openssl", "openssl"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
];

const WALK: &str = include_str!("serve/walk.lua");
const NGINX: &str = include_str!("serve/nginx.conf");

/// A file of this length is cut into parts of 256 KiB.
const FILE_BYTES: u64 = 256 << 20;
const PART_BYTES: u64 = 256 << 10;
/// Half of the parts: they fit into the server's usual memory for parts and into no processor's cache.
const PARTS: u64 = 512;
const CONNECTIONS: u32 = 32;

const ROUNDS: usize = 7;
const ROUND_SECS: u32 = 4;
const QUICK_ROUNDS: usize = 2;
const QUICK_ROUND_SECS: u32 = 2;

/// Processor time per byte, of nginx's with sendfile. Both hand over pages of the page cache; we have three system calls a
/// part where nginx has five, but more to do in between.
const PLAIN_CPU_TO_NGINX_MAX: f64 = 1.0;
/// The same over TLS, where nginx cannot hand over pages. The headroom is in the ciphers: aws-lc's against OpenSSL 3.0's.
const TLS_CPU_TO_NGINX_MAX: f64 = 0.5;

const OURS: &str = "hybrid-server";
const SENDFILE: &str = "nginx, sendfile";
const COPYING: &str = "nginx, sendfile off";
const OURS_TLS: &str = "hybrid-server, TLS";
const NGINX_TLS: &str = "nginx, TLS";

/// A server under measurement.
struct Target {
    name: &'static str,
    process: u32,
    url: String,
    /// The path of a part without its number.
    prefix: String,
    rounds: Vec<Round>,
}

/// What one round of wrk and the server's processor time say.
struct Round {
    cpu_secs_per_gb: f64,
    requests_per_sec: f64,
    gb_per_sec: f64,
    /// The share of its processor that the server used: below 1, wrk is the limit.
    busy: f64,
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Outcome> {
    if let Some(why) = process::missing(TOOLS) {
        return Ok(Outcome::Skipped(why));
    }
    if !process::is_root() {
        return Ok(Outcome::Skipped("needs root, for a network of its own in which TCP uses cubic".to_owned()));
    }
    let [server_core, client_core, ..] = machine::processors()?[..] else {
        return Ok(Outcome::Skipped("needs two processors, one for the server and one for wrk".to_owned()));
    };
    if !setting.isolated {
        return machine::isolate("serve", setting);
    }
    machine::prepare_network()?;
    let work = WorkFolder::new("bench-serve")?;
    let work = work.path();
    let content = prepare_files(setting, work)?;
    let server_pin = ["taskset".to_owned(), "-c".to_owned(), server_core.to_string()];
    let client_pin = ["taskset".to_owned(), "-c".to_owned(), client_core.to_string()];

    let (plain, plain_port) = start_ours(setting, work, &server_pin, false)?;
    let (tls, tls_port) = start_ours(setting, work, &server_pin, true)?;
    // After ours, whose certificate it uses.
    let nginx = start_nginx(work, &server_pin)?;
    let parts = format!("/hybrid/v1/parts/{content}/");
    let target = |name, process: &Running, url: String, prefix: &str| Target {
        name,
        process: process.id(),
        url,
        prefix: prefix.to_owned(),
        rounds: Vec::new(),
    };
    let mut targets = [
        target(OURS, &plain, format!("http://127.0.0.1:{plain_port}"), &parts),
        target(SENDFILE, &nginx, "http://127.0.0.1:8081".to_owned(), "/"),
        target(COPYING, &nginx, "http://127.0.0.1:8082".to_owned(), "/"),
        target(OURS_TLS, &tls, format!("https://127.0.0.1:{tls_port}"), &parts),
        target(NGINX_TLS, &nginx, "https://127.0.0.1:8083".to_owned(), "/"),
    ];
    for (name, port) in [(OURS_TLS, tls_port), (NGINX_TLS, 8083)] {
        println!("  {name:<20} speaks {}", cipher(port)?);
    }

    let (rounds, secs) = if setting.quick { (QUICK_ROUNDS, QUICK_ROUND_SECS) } else { (ROUNDS, ROUND_SECS) };
    let walk = work.join("walk.lua");
    std::fs::write(&walk, WALK)?;
    // Once uncounted: all parts are in memory then, and the processor has left its sleep.
    for target in &targets {
        measure(target, &walk, &client_pin, 1)?;
    }
    for _ in 0..rounds {
        for target in &mut targets {
            let round = measure(target, &walk, &client_pin, secs)?;
            target.rounds.push(round);
        }
    }
    Ok(Outcome::Measured(conclude(&targets)))
}

/// Makes the file and nginx's copy of its parts; returns the content's id.
fn prepare_files(setting: &Setting, work: &Path) -> anyhow::Result<String> {
    let (served, parts) = (work.join("served"), work.join("parts"));
    std::fs::create_dir_all(&served)?;
    std::fs::create_dir_all(&parts)?;
    let file = served.join("file.bin");
    prepare::write_noise(&file, FILE_BYTES)?;
    let json = output(Command::new(setting.programs.join("hybrid-server")).arg("prepare").arg(&file).arg("--json"))?;
    let told: Value = serde_json::from_str(&json)?;
    ensure!(told["part_bytes"].as_u64() == Some(PART_BYTES), "the parts have another length: {json}");
    let bytes = std::fs::read(&file)?;
    for (number, part) in (0..PARTS).zip(bytes.chunks(usize::try_from(PART_BYTES)?)) {
        std::fs::write(parts.join(number.to_string()), part)?;
    }
    told["content"].as_str().map(ToOwned::to_owned).with_context(|| format!("no content id in {json}"))
}

/// Starts our server on a free port and waits until it has prepared the file.
fn start_ours(setting: &Setting, work: &Path, pin: &[String], tls: bool) -> anyhow::Result<(Running, u16)> {
    let log = work.join(if tls { "tls.log" } else { "plain.log" });
    let mut command = process::bound(pin, setting.programs.join("hybrid-server"));
    command
        .arg("serve")
        .arg(work.join("served"))
        .args(["--listen", "127.0.0.1:0"])
        .arg("--state")
        .arg(work.join("state"));
    if tls {
        command.arg("--tls-self-signed");
    }
    let mut server = Running::start(&mut command, &log)?;
    server.wait_for_log(&log, "all files are prepared", Duration::from_secs(60))?;
    let text = std::fs::read_to_string(&log)?;
    let port = text.lines().find_map(|line| line.strip_prefix("listening on ")?.rsplit_once(':')?.1.parse().ok());
    Ok((server, port.with_context(|| format!("no port in {text}"))?))
}

fn start_nginx(work: &Path, pin: &[String]) -> anyhow::Result<Running> {
    let (config, log): (PathBuf, PathBuf) = (work.join("nginx.conf"), work.join("nginx.log"));
    let place = work.to_str().context("the folder's name is not plain text")?;
    std::fs::write(&config, NGINX.replace("WORK", place))?;
    let mut command = process::bound(pin, "nginx");
    command.arg("-p").arg(work).arg("-c").arg(&config);
    let mut nginx = Running::start(&mut command, &log)?;
    nginx.wait_for_port(&log, 8083, Duration::from_secs(10))?;
    Ok(nginx)
}

/// The cipher that a server chooses for OpenSSL, which is what wrk speaks with.
fn cipher(port: u16) -> anyhow::Result<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).stdin(std::process::Stdio::null());
    let text = output(&mut command)?;
    let line = text.lines().find(|line| line.contains("Cipher is"));
    line.map(ToOwned::to_owned).with_context(|| format!("openssl names no cipher: {text}"))
}

#[allow(clippy::cast_precision_loss, reason = "counts of bytes and requests are far below 2^52")]
fn measure(target: &Target, walk: &Path, pin: &[String], secs: u32) -> anyhow::Result<Round> {
    let mut command = process::bound(pin, "wrk");
    command.args(["--threads", "1", "--connections", &CONNECTIONS.to_string(), "--duration", &secs.to_string()]);
    command.arg("--script").arg(walk).args([&target.url, "--", &target.prefix, &PARTS.to_string()]);
    let before = cpu_time(target.process)?;
    let text = output(&mut command)?;
    let cpu_secs = cpu_time(target.process)?.saturating_sub(before).as_secs_f64();
    let [requests, bytes, micros, failed] =
        parse_figures(&text).with_context(|| format!("wrk told no figures: {text}"))?;
    ensure!(failed == 0, "{}: {failed} of {requests} requests failed: {text}", target.name);
    ensure!(bytes >= requests * PART_BYTES, "{}: {requests} answers in {bytes} bytes are no parts", target.name);
    let (elapsed, gb) = (micros as f64 / 1e6, bytes as f64 / 1e9);
    Ok(Round {
        cpu_secs_per_gb: cpu_secs / gb,
        requests_per_sec: requests as f64 / elapsed,
        gb_per_sec: gb / elapsed,
        busy: cpu_secs / elapsed,
    })
}

/// Requests, bytes, microseconds, failures, as `walk.lua` writes them.
fn parse_figures(text: &str) -> Option<[u64; 4]> {
    let line = text.lines().find_map(|line| line.strip_prefix("figures "))?;
    let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    figures.try_into().ok()
}

fn conclude(targets: &[Target]) -> Vec<Limit> {
    let all = |target: &Target, figure: fn(&Round) -> f64| target.rounds.iter().map(figure).collect::<Vec<f64>>();
    for target in targets {
        let middle = |figure| short(median(all(target, figure)));
        println!(
            "  {:<20} {} CPU s/GB, {} requests/s, {} GB/s, {} of its processor",
            target.name,
            spread(&all(target, |round| round.cpu_secs_per_gb)),
            middle(|round| round.requests_per_sec),
            middle(|round| round.gb_per_sec),
            middle(|round| round.busy)
        );
    }
    // Pair by pair, so that a machine whose speed drifts takes both along.
    let ratio = |ours: &str, theirs: &str, figure: fn(&Round) -> f64| {
        let of = |name: &str| targets.iter().find(|target| target.name == name).map(|target| all(target, figure));
        let (ours, theirs) = (of(ours).unwrap_or_default(), of(theirs).unwrap_or_default());
        ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<f64>>()
    };
    let mut limits = Vec::new();
    for (ours, theirs, bound) in [
        (OURS, SENDFILE, Some(PLAIN_CPU_TO_NGINX_MAX)),
        (OURS, COPYING, None),
        (OURS_TLS, NGINX_TLS, Some(TLS_CPU_TO_NGINX_MAX)),
    ] {
        let cpu = ratio(ours, theirs, |round| round.cpu_secs_per_gb);
        let requests = ratio(ours, theirs, |round| round.requests_per_sec);
        println!("  {ours} / {theirs}: CPU per GB {}, requests/s {}", spread(&cpu), spread(&requests));
        let what = format!("CPU per GB, {ours} / {theirs}");
        limits.extend(bound.map(|bound| Limit::at_most(what, median(cpu), bound)));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_tells() {
        let text = "Running 1s test\nfigures 100 26214400 1000000 0\nRequests/sec: 1\n";
        assert_eq!(parse_figures(text), Some([100, 26_214_400, 1_000_000, 0]));
        for text in ["", "figures 1 2 3", "figures 1 2 3 x", "figures 1 2 3 4 5"] {
            assert_eq!(parse_figures(text), None, "{text}");
        }
    }
}
