//! A peer that does not do what it says, among honest ones: real programs, real sockets.

use hybrid_tests::badpeer::{BadPeer, Mode};
use hybrid_tests::{PeerProcess, ServerProcess, content, poll};
use serde_json::Value;
use tempfile::TempDir;

const PEERS: usize = 5;
const LEN: usize = 12_000_000;

/// Five honest peers and one bad one, which takes one of two direct places and offers all parts from the first moment.
struct Swarm {
    peers: Vec<PeerProcess>,
    bad: BadPeer,
    server: ServerProcess,
    _runtime: tokio::runtime::Runtime,
    _folder: TempDir,
}

/// Plays until the honest ones are complete, and looks at what they wrote.
fn play(mode: Mode) -> Swarm {
    let bytes = content(LEN, 9);
    let folder = TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    // Slow enough that peers are asked for most.
    let server = ServerProcess::start(&served, &["--direct-clients", "2", "--egress-limit", "8MB/s"]);
    let url = server.url("file.bin");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bad = runtime.block_on(BadPeer::join(&url, bytes.clone().into(), mode)).expect("the bad peer joins");
    let start = |index| PeerProcess::start(&format!("peer{index}"), &url, folder.path(), &["--stay", "forever"]);
    let mut peers: Vec<PeerProcess> = (0..PEERS).map(start).collect();
    for peer in &mut peers {
        peer.wait_for("complete");
        let written = std::fs::read(peer.output()).expect("the file that the peer wrote");
        assert!(written == bytes, "{} bytes that differ from the source; {}", written.len(), peer.said());
    }
    Swarm { peers, bad, server, _runtime: runtime, _folder: folder }
}

fn bans(peer: &PeerProcess) -> usize {
    peer.events().iter().filter(|event| event["event"] == "banned").count()
}

/// Bytes that a peer got for nothing, by its summary.
fn wasted(peer: &mut PeerProcess) -> u64 {
    peer.interrupt();
    let summary: Value = peer.wait_for("summary");
    summary["wasted_bytes"].as_u64().unwrap_or_else(|| panic!("no figure in {summary}"))
}

#[test]
fn bad_parts_end_it() {
    let swarm = play(Mode::Pollute);
    assert!(
        swarm.peers.iter().any(|peer| bans(peer) > 0),
        "nobody met it: the test tests nothing; {}",
        swarm.server.said()
    );
    for peer in &swarm.peers {
        assert!(bans(peer) <= 1, "banned {} times; {}", bans(peer), peer.said());
    }
    let asked = swarm.bad.served();
    assert!(asked <= 2 * PEERS as u64, "a stranger gets one request, yet the polluter was asked {asked} times");
}

#[test]
fn short_parts_end_it() {
    let swarm = play(Mode::Short);
    let asked = swarm.bad.served();
    assert!((1..=2 * PEERS as u64).contains(&asked), "asked {asked} times; {}", swarm.server.said());
}

#[test]
fn silence_holds_nobody_up() {
    let mut swarm = play(Mode::Silent);
    let asked = swarm.bad.served();
    assert!(asked > 0, "nobody met it: the test tests nothing; {}", swarm.server.said());
    // Nothing came, so nothing of its was wasted; what is, is of two honest sources for one part.
    for peer in &mut swarm.peers {
        let wasted = wasted(peer);
        assert!(wasted < LEN as u64 / 4, "{wasted} bytes for nothing; {}", peer.said());
    }
}

#[test]
fn a_ticket_of_another_key_opens_no_door() {
    let swarm = play(Mode::OthersTicket);
    poll("somebody to turn it away", || (swarm.bad.turned_away() > 0).then_some(()));
    assert_eq!(swarm.bad.served(), 0, "it was asked for parts");
}
