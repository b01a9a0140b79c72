//! A server that comes back learns from its clients who holds what.

use hybrid_tests::{PeerProcess, ServerProcess, content, poll};

const PEERS: usize = 8;

#[test]
fn a_server_that_comes_back_knows_who_holds_what() {
    let bytes = content(8 << 20, 5);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let mut server = ServerProcess::start(&served, &["--direct-clients", "2"]);
    let url = server.url("file.bin");
    let start = |index| PeerProcess::start(&format!("peer{index}"), &url, folder.path(), &["--stay", "forever"]);
    let mut peers: Vec<PeerProcess> = (0..PEERS).map(start).collect();
    let content = peers[0].wait_for("start")["content"].as_str().expect("its id").to_owned();
    peers.iter_mut().for_each(|peer| drop(peer.wait_for("complete")));
    let whole = |said: &str| said.contains(&format!("{PEERS} of them complete"));
    poll("the server to know that all are complete", || whole(&server.explain(&content)).then_some(()));

    server.kill();
    server.start_again();
    let said = poll("the server to know it again", || {
        let said = server.explain(&content);
        whole(&said).then_some(said)
    });
    assert!(said.contains("parts that no client holds: 0"), "{said}");
    // A newcomer is sent to those that hold everything.
    let mut late = PeerProcess::start("late", &url, folder.path(), &[]);
    let summary = late.wait_for("summary");
    assert!(summary["bytes"]["peer"].as_u64() > Some(0), "{summary}");
}
