//! One server and eight peers, all real processes on loopback.

use hybrid_tests::{PeerProcess, ServerProcess, content};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

const PEERS: usize = 8;
const DIRECT: usize = 2;

/// A server of `file.bin`, and the folder that it and its clients live in.
fn serve(bytes: &[u8], flags: &[&str]) -> (TempDir, ServerProcess) {
    let folder = TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), bytes).expect("room for a file");
    let server = ServerProcess::start(&served, flags);
    (folder, server)
}

/// The first two come before the others, so that it is known who is served directly.
fn start_peers(url: &str, folder: &Path, count: usize) -> Vec<PeerProcess> {
    let mut peers: Vec<PeerProcess> = Vec::new();
    for index in 0..count {
        let mut peer = PeerProcess::start(&format!("peer{index}"), url, folder, &["--stay", "forever"]);
        if index < DIRECT {
            peer.wait_for("mode");
        }
        peers.push(peer);
    }
    peers
}

/// Each peer's file is the source; gives the summaries.
fn finish(peers: &mut [PeerProcess], bytes: &[u8]) -> Vec<Value> {
    for peer in peers.iter_mut() {
        peer.wait_for("complete");
        // An empty file is complete before its client has joined.
        peer.wait_for("mode");
        let written = std::fs::read(peer.output()).expect("the file that the peer wrote");
        assert!(written == bytes, "{} bytes that differ from the source; {}", written.len(), peer.said());
    }
    let summary = |peer: &mut PeerProcess| {
        peer.interrupt();
        let summary = peer.wait_for("summary");
        // All that was asked is done, so an interruption is the ordinary way to end a stay.
        assert!(peer.wait_for_end().success(), "{}", peer.said());
        summary
    };
    peers.iter_mut().map(summary).collect()
}

fn from(summary: &Value, source: &str) -> u64 {
    summary["bytes"][source].as_u64().unwrap_or_else(|| panic!("no bytes from {source} in {summary}"))
}

fn was_overtaken(peer: &PeerProcess) -> bool {
    let told =
        |event: &Value| event["event"] == "mode" && event["reasons"].to_string().contains("came later are ahead");
    peer.events().iter().any(told)
}

const SERVER_SOURCES: [&str; 3] = ["server-direct", "server-grant", "server-rescue"];

fn swarm_of(len: usize) {
    let bytes = content(len, 7);
    let (folder, server) = serve(&bytes, &["--direct-clients", &DIRECT.to_string()]);
    let mut peers = start_peers(&server.url("file.bin"), folder.path(), PEERS);
    let summaries = finish(&mut peers, &bytes);

    let total = bytes.len() as u64;
    for (index, summary) in summaries.iter().enumerate() {
        let all: u64 = SERVER_SOURCES.iter().chain(&["peer", "store"]).map(|source| from(summary, source)).sum();
        assert_eq!(all, total, "peer {index}: each byte has one source: {summary}");
        let mode = if index < DIRECT { "client-server" } else { "peer-to-peer" };
        assert_eq!(summary["mode_at_join"], mode, "peer {index}: {summary}");
        // On a busy machine newcomers may overtake it; then it is sent to them, and told so.
        if index < DIRECT && !was_overtaken(&peers[index]) {
            assert_eq!(from(summary, "server-direct"), total, "peer {index} was served directly: {summary}");
        }
    }
}

#[test]
fn an_empty_file() {
    swarm_of(0);
}

#[test]
fn a_file_of_one_byte() {
    swarm_of(1);
}

#[test]
fn a_small_file() {
    swarm_of(100_000);
}

#[test]
fn a_fast_server_whose_link_is_shared_by_all_leaves_most_to_the_crowd() {
    let bytes = content(30_000_000, 9);
    let (folder, server) = serve(&bytes, &["--direct-clients", "1", "--egress-limit", "10MB/s"]);
    let mut peers = start_peers(&server.url("file.bin"), folder.path(), PEERS);
    let summaries = finish(&mut peers, &bytes);
    let sent: u64 = summaries.iter().flat_map(|summary| SERVER_SOURCES.map(|source| from(summary, source))).sum();
    let copies = sent as f64 / bytes.len() as f64;
    assert!(copies < 5.0, "the server sent {copies:.2} copies to {PEERS} peers; {}", server.said());
}

#[test]
fn a_thrifty_server_pays_for_little_more_than_one_copy() {
    let bytes = content(30_000_000, 9);
    let (folder, server) = serve(&bytes, &["--egress-policy", "thrifty"]);
    let mut peers = start_peers(&server.url("file.bin"), folder.path(), PEERS);
    let summaries = finish(&mut peers, &bytes);
    let sent: u64 = summaries.iter().flat_map(|summary| SERVER_SOURCES.map(|source| from(summary, source))).sum();
    let copies = sent as f64 / bytes.len() as f64;
    // The first client may have got a whole copy before the second one came.
    assert!(copies < 2.5, "the server sent {copies:.2} copies to {PEERS} peers; {}", server.said());
}

#[test]
fn a_file_whose_part_ids_come_with_the_manifest() {
    swarm_of(30_000_000);
}

#[test]
fn a_file_whose_part_ids_are_asked_for() {
    swarm_of(80_000_000);
}

#[test]
fn a_killed_peer_resumes_without_fetching_again_what_it_had() {
    let bytes = content(30_000_000, 11);
    // Slow enough to be killed half way, on any machine.
    const RATE: u64 = 5_000_000;
    let (folder, server) = serve(&bytes, &["--egress-limit", "5MB/s"]);
    let url = server.url("file.bin");
    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    let held = |event: &Value| event["held_bytes"].as_u64().unwrap_or(0);
    peer.wait_until("half of the file", |event| event["event"] == "progress" && held(event) > 15_000_000);
    peer.kill();
    let before = peer.events().iter().map(held).max().expect("there was progress");
    assert!(before < 30_000_000, "it was killed after the end");

    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    let summary = peer.wait_for("summary");
    assert!(peer.wait_for_end().success());
    assert!(std::fs::read(peer.output()).expect("the file") == bytes, "other bytes; {}", peer.said());
    let kept = from(&summary, "store");
    assert!(kept + RATE >= before, "had {before} bytes before the kill and kept {kept}: {summary}");
    let fetched: u64 = SERVER_SOURCES.iter().chain(&["peer"]).map(|source| from(&summary, source)).sum();
    assert_eq!(kept + fetched, 30_000_000, "{summary}");
}

#[test]
fn the_swarm_finishes_when_the_server_dies() {
    let bytes = content(30_000_000, 13);
    // Without a limit the server may send all of the file before a peer has sent a part.
    let (folder, mut server) = serve(&bytes, &["--direct-clients", "1", "--egress-limit", "4MB/s"]);
    let url = server.url("file.bin");
    let mut seed = PeerProcess::start("seed", &url, folder.path(), &["--stay", "forever"]);
    seed.wait_for("complete");
    // Slow enough to be under way when the server goes.
    let mut seeding = Vec::new();
    for index in 0..3 {
        let mut peer = PeerProcess::start(
            &format!("late{index}"),
            &url,
            folder.path(),
            &["--stay", "forever", "--upload-limit", "40M", "--parts"],
        );
        peer.wait_until("a part from a peer", |event| {
            event["event"] == "progress" && event["bytes"]["peer"].as_u64() > Some(0)
        });
        seeding.push(peer);
    }
    server.kill();
    for peer in &mut seeding {
        let complete = peer.wait_for("complete");
        // Each part was told of, with its source; peers are named.
        let parts: Vec<Value> = peer.events().into_iter().filter(|event| event["event"] == "part").collect();
        assert_eq!(Some(parts.len() as u64), complete["parts_total"].as_u64(), "{}", peer.said());
        for part in &parts {
            assert_eq!(part["peer"].is_string(), part["source"] == "peer", "{part}");
            assert!(part["why"].as_str().is_some_and(|why| !why.is_empty()), "{part}");
        }
        assert!(std::fs::read(peer.output()).expect("the file") == bytes, "other bytes; {}", peer.said());
    }
}
