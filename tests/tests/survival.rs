//! A server that is told to stop and waits until its clients can do without it.

use hybrid_tests::{PeerProcess, ServerProcess, content};

/// A server of a file of one part with so many clients that have it, told to stop: what it says.
fn stopped_with(peers: u32, limit: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), content(1_000, 3)).expect("room for a file");
    let flags = ["--direct-clients", &peers.to_string(), "--wait-for-swarm", limit];
    let mut server = ServerProcess::start(&served, &flags);
    let start = |index| {
        let name = format!("peer{index}");
        PeerProcess::start(&name, &server.url("file.bin"), folder.path(), &["--stay", "forever"])
    };
    let mut clients: Vec<PeerProcess> = (0..peers).map(start).collect();
    clients.iter_mut().for_each(|client| drop(client.wait_for("complete")));
    server.interrupt();
    assert!(server.wait_for_end().success(), "{}", server.said());
    server.said()
}

#[test]
fn it_stops_as_soon_as_three_clients_hold_the_only_part() {
    let said = stopped_with(3, "1h");
    assert!(said.contains("the clients keep all parts without the server"), "{said}");
}

#[test]
fn it_stops_at_the_limit_and_says_what_would_be_lost() {
    let said = stopped_with(1, "1s");
    assert!(said.contains("0.20 parts would be lost if one client in five left"), "{said}");
    assert!(said.contains("the clients did not get enough copies in time"), "{said}");
}
