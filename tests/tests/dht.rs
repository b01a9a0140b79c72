//! Peers find each other in a DHT when the server is gone and nobody is known from before.

use hybrid_tests::{PeerProcess, ServerProcess, content, poll};
use mainline::{Id, Testnet};
use std::net::Ipv4Addr;
use tempfile::TempDir;

/// The key under which a content is found, as docs/spec/wire.md says.
fn key(content: &str) -> Id {
    let id = blake3::Hash::from_hex(content).expect("a content id");
    let hash = blake3::derive_key("hybrid 2026-11-23 DHT key of a content", id.as_bytes());
    Id::from(*hash.first_chunk::<20>().expect("32 bytes have 20"))
}

#[test]
fn a_client_finds_a_peer_that_nobody_told_it_of() {
    let network = Testnet::builder(5).bind_address(Ipv4Addr::LOCALHOST).build().expect("a DHT of our own");
    let mut dht: Vec<&str> = vec!["--dht"];
    for node in &network.bootstrap {
        dht.extend(["--dht-node", node]);
    }
    let bytes = content(20_000_000, 31);
    let folder = TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let mut server = ServerProcess::start(&served, &["--direct-clients", "1", "--egress-limit", "4MB/s"]);
    let url = server.url("file.bin");

    // Alone with the server: it has a ticket afterwards, and knows no peer.
    let mut late = PeerProcess::start("late", &url, folder.path(), &dht);
    late.wait_until("a part", |event| {
        event["event"] == "progress" && event["bytes"]["server-direct"].as_u64() > Some(0)
    });
    poll("anchors in the cache", || {
        let mut contents = std::fs::read_dir(folder.path().join("late.cache")).ok()?.filter_map(Result::ok);
        contents.any(|entry| entry.path().join("anchors").exists()).then_some(())
    });
    late.kill();
    assert!(late.events().iter().all(|event| event["event"] != "complete"), "killed too late; {}", late.said());
    // Another one comes and goes on without it. It takes peers at a new port, which only the DHT can tell.
    let stay: Vec<&str> = [&["--stay", "forever"], &dht[..]].concat();
    let mut seed = PeerProcess::start("seed", &url, folder.path(), &stay);
    let content = seed.wait_for("start")["content"].as_str().expect("its id").to_owned();
    seed.wait_for("complete");
    server.kill();
    let anyone = network.nodes[0].clone();
    #[expect(deprecated, reason = "there is no runtime here for the other one")]
    poll("the seed's address in the DHT", || anyone.get_peers(key(&content)).flatten().next());

    let mut late = PeerProcess::start("late", &url, folder.path(), &dht);
    let mode = late.wait_for("mode");
    assert!(mode.to_string().contains("continuing with peers from before: 0"), "{mode}");
    let summary = late.wait_for("summary");
    assert!(late.wait_for_end().success(), "{}", late.said());
    assert!(std::fs::read(late.output()).expect("the file") == bytes, "other bytes; {}", late.said());
    assert!(summary["bytes"]["peer"].as_u64() > Some(0), "{summary}");
}

#[test]
fn nodes_that_are_not_found_are_an_error() {
    let folder = TempDir::new().expect("a temporary folder");
    let arguments = ["--dht", "--dht-node", "nowhere.invalid:6881"];
    let mut peer = PeerProcess::start("peer", "http://127.0.0.1:9/file.bin", folder.path(), &arguments);
    assert_eq!(peer.wait_for_end().code(), Some(4), "{}", peer.said());
    assert!(peer.said().contains("no node of the DHT could be found"), "{}", peer.said());
}
