//! A server whose link is cut to half under load and comes back: quality decides who is served how, and nobody's download stops.
//!
//! Needs root and network namespaces; says so and passes where there are none.

use hybrid_tests::link::{Link, NETWORK, SERVER};
use hybrid_tests::{PeerProcess, ServerProcess, content, poll};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const MBIT: u32 = 40;

/// What seven clients get of 40 Mbit/s and a seventh to spare; of 20 Mbit/s it is for four.
const REQUIRED: &str = "[thresholds]\nrequired_rate = \"4.5M\"\n";

/// Large enough for the whole story at the rates of the link, and no larger.
const FILE_BYTES: usize = 36_000_000;

/// Three times what direct service is to take to come back: how long it takes is said, and judged by whoever measures.
const PATIENCE: Duration = Duration::from_secs(180);

fn is_direct(event: &Value) -> Option<bool> {
    (event["event"] == "mode").then(|| event["mode"] == "client-server")
}

/// The mode that a client was given last.
fn mode(peer: &PeerProcess) -> Option<bool> {
    peer.events().iter().rev().find_map(is_direct)
}

fn join(link: &Link, name: &str, url: &str, folder: &Path) -> PeerProcess {
    loop {
        // Uplinks so slow that a swarm of them cannot do the server's work.
        let limits = ["--upload-limit", "2M", "--allow-peers", NETWORK];
        let mut peer = PeerProcess::start_in(link, name, url, folder, &limits);
        let joined = poll("a mode", || mode(&peer).map(|_| true).or_else(|| peer.has_ended().then_some(false)));
        // Packets are lost on a full link, so a connection may fail; a user would try again.
        if joined {
            return peer;
        }
    }
}

/// Lets clients come until one is served as wanted.
fn wait_for_newcomer(direct: bool, link: &Link, url: &str, folder: &Path, why: impl Fn() -> String) -> PeerProcess {
    let start = Instant::now();
    for index in 0.. {
        let mut visitor = join(link, &format!("visitor-{direct}-{index}"), url, folder);
        if mode(&visitor) == Some(direct) {
            return visitor;
        }
        visitor.kill();
        assert!(start.elapsed() < PATIENCE, "no newcomer is served so for {PATIENCE:?}; {}", why());
        std::thread::sleep(Duration::from_millis(500));
    }
    unreachable!("there are more numbers than minutes")
}

#[test]
#[allow(clippy::print_stderr, reason = "who runs it should know what was not tested")]
fn a_link_that_is_cut_to_half_and_comes_back() {
    let link = match Link::new(MBIT) {
        Ok(link) => link,
        Err(why) => return eprintln!("skipped: no network namespaces here ({why}); run it as root with iproute2"),
    };
    let bytes = content(FILE_BYTES, 17);
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let config = folder.path().join("server.toml");
    std::fs::write(&config, REQUIRED).expect("room for the settings");
    let listen = format!("{SERVER}:0");
    let server = ServerProcess::start_in(
        &link,
        &served,
        &listen,
        &["--egress-limit", "40M", "--allow-peers", NETWORK, "--config", config.to_str().expect("a plain path")],
    );
    let url = server.url("file.bin");

    let mut peers: Vec<PeerProcess> =
        (0..7).map(|index| join(&link, &format!("peer{index}"), &url, folder.path())).collect();
    let direct = peers.iter().filter(|peer| mode(peer) == Some(true)).count();
    assert_eq!(direct, 7, "40 Mbit/s carry seven clients of 4.5 Mbit/s; {}", server.said());
    peers[6].wait_until("a tenth of the file", |event| event["held_bytes"].as_u64() > Some(FILE_BYTES as u64 / 10));

    link.set_rate(MBIT / 2).expect("the link is ours");
    let moved = |peers: &[PeerProcess]| peers.iter().filter(|peer| mode(peer) == Some(false)).count();
    poll("two direct clients to join the swarm", || (moved(&peers) >= 2).then_some(()));
    peers.push(wait_for_newcomer(false, &link, &url, folder.path(), || server.explain("file.bin")));

    link.set_rate(MBIT).expect("the link is ours");
    let back_at = Instant::now();
    drop(wait_for_newcomer(true, &link, &url, folder.path(), || server.explain("file.bin")));
    eprintln!("newcomers were served directly again after {:?}", back_at.elapsed());

    for peer in &mut peers {
        peer.wait_for("complete");
        assert!(std::fs::read(peer.output()).expect("the file") == bytes, "other bytes; {}", peer.said());
        // Reports of progress come every half second; between two that tell the same amount nothing came.
        let mut still = 0;
        let mut before = None;
        for event in peer.events().iter().filter(|event| event["event"] == "progress") {
            let held = event["held_bytes"].as_u64();
            still = if held == before { still + 1 } else { 0 };
            before = held;
            let complete = held == Some(FILE_BYTES as u64);
            assert!(complete || still < 20, "nothing came for ten seconds; {}", peer.said());
        }
    }

    let story = server.explain("file.bin");
    for words in
        ["direct clients allowed", "to the swarm", "now peer-to-peer", "joins, peer-to-peer", "joins, client-server"]
    {
        assert!(story.contains(words), "the decision log says nothing of '{words}':\n{story}");
    }
}
