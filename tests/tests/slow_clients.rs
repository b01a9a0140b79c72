//! Clients that hold connections and give nothing for them lose them in time, and others are served meanwhile.

use hybrid_tests::badclient::{Held, KINDS, Kind, source};
use hybrid_tests::{ServerProcess, content, poll};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One byte more than what any buffers of a socket hold.
const FILE_BYTES: usize = 16 << 20;

/// The time limits of the servers: short, but enough for all clients to be there before the first is cut.
fn patience(clients: usize) -> Duration {
    Duration::from_secs(5 + clients as u64 / 400)
}

/// So many of those limits may pass until the last is closed; two were seen, and without the settings it would be a minute.
const CUT_WITHIN: u32 = 5;

fn settings(patience: Duration) -> String {
    let secs = patience.as_secs();
    format!("[connections]\nfirst_request = \"{secs}s\"\nidle = \"{secs}s\"\nstall = \"{secs}s\"\n")
}

const REQUESTS: usize = 300;

/// What a loaded machine may add to any request: far less than a limit, and far more than a request takes on a quiet one.
const NOISE: Duration = Duration::from_millis(50);

/// The 99th percentile of requests for one part, each on a connection of its own.
fn p99(server: SocketAddr) -> Duration {
    let mut took: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let began = Instant::now();
            let mut stream = TcpStream::connect(server).expect("the server takes connections");
            let ask = "GET /big.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=0-65535\r\nConnection: close\r\n\r\n";
            stream.write_all(ask.as_bytes()).expect("the server reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("the server answers");
            assert!(
                answer.starts_with(b"HTTP/1.1 206"),
                "{}",
                String::from_utf8_lossy(&answer[..answer.len().min(99)])
            );
            assert!(answer.len() > 65_536);
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[REQUESTS * 99 / 100]
}

/// `HYBRID_SLOW_CLIENTS=10000` runs it with so many; they need twice as many open files.
#[test]
#[allow(clippy::print_stderr, reason = "the figures")]
fn slow_clients_are_cut_and_others_are_served() {
    let clients: usize = std::env::var("HYBRID_SLOW_CLIENTS").map_or(800, |n| n.parse().expect("a number of clients"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("big.bin"), content(FILE_BYTES, 3)).expect("room for a file");
    let config = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(config.path(), settings(patience(clients))).expect("room for settings");
    let config = config.path().to_str().expect("a plain path");
    let plain = ServerProcess::start(folder.path(), &["--config", config]);
    let tls = ServerProcess::start(folder.path(), &["--config", config, "--tls-self-signed"]);
    let servers = [&plain, &tls];
    p99(plain.socket_address());
    let quiet = p99(plain.socket_address());
    let before = servers.map(ServerProcess::open_sockets);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let began = Instant::now();
    runtime.block_on(async {
        for number in 0..clients {
            let kind = KINDS[number % KINDS.len()];
            let server = if kind == Kind::HalfHandshake { &tls } else { &plain };
            let held = Held::open(kind, server.socket_address(), source(number), "/big.bin").await;
            let held = held.unwrap_or_else(|error| panic!("client {number}, {kind:?}: {error:#}"));
            tokio::spawn(held.hold());
        }
    });
    let opened = began.elapsed();
    let most = servers.map(ServerProcess::open_sockets);
    let attacked = p99(plain.socket_address());
    // The clients all hold their ends, so only the servers can have closed theirs.
    poll("the servers to close all slow connections", || {
        let open = servers.map(ServerProcess::open_sockets);
        (open[0] <= before[0] && open[1] <= before[1]).then_some(())
    });
    let closed = began.elapsed();
    eprintln!(
        "{clients} clients: opened in {opened:.1?}, sockets before {before:?} and at most {most:?}; \
         all closed after {closed:.1?}; p99 quiet {quiet:.1?}, attacked {attacked:.1?}"
    );
    assert!(closed - opened < patience(clients) * CUT_WITHIN, "the last was closed after {closed:.1?}");
    assert!(most[0] + most[1] > (before[0] + before[1]) + clients / 2, "the clients were not there: {most:?}");
    assert!(attacked <= quiet * 2 + NOISE, "p99 {attacked:?} beside {clients} slow clients, {quiet:?} without");
}
