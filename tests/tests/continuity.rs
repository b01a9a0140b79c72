//! The server is gone, and clients start again without it.

use hybrid_tests::{PeerProcess, ServerProcess, content, poll};
use std::path::Path;
use tempfile::TempDir;

/// Whether a client's cache holds what it needs to go on without the server.
fn has_anchors(cache: &Path) -> bool {
    let contents = std::fs::read_dir(cache).expect("the client's cache");
    contents.filter_map(Result::ok).any(|entry| entry.path().join("anchors").exists())
}

#[test]
fn a_peer_that_is_killed_and_started_again_without_the_server_finishes() {
    let bytes = content(20_000_000, 17);
    let folder = TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let mut server = ServerProcess::start(&served, &["--direct-clients", "1", "--egress-limit", "4MB/s"]);
    let url = server.url("file.bin");
    // Slow enough for the other one to be killed on its way.
    let mut seed = PeerProcess::start("seed", &url, folder.path(), &["--stay", "forever", "--upload-limit", "16M"]);
    seed.wait_for("complete");
    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    peer.wait_until("a part from a peer", |event| {
        event["event"] == "progress" && event["bytes"]["peer"].as_u64() > Some(0)
    });
    poll("anchors in the cache", || has_anchors(&folder.path().join("peer.cache")).then_some(()));
    server.kill();
    peer.kill();
    assert!(peer.events().iter().all(|event| event["event"] != "complete"), "killed too late; {}", peer.said());

    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    let mode = peer.wait_for("mode");
    assert!(mode.to_string().contains("cannot be reached: continuing with peers from before: 1"), "{mode}");
    let summary = peer.wait_for("summary");
    assert!(peer.wait_for_end().success(), "{}", peer.said());
    assert!(std::fs::read(peer.output()).expect("the file") == bytes, "other bytes; {}", peer.said());
    for source in ["store", "peer"] {
        assert!(summary["bytes"][source].as_u64() > Some(0), "nothing from {source}: {summary}");
    }
}
