//! What a client gives at most, by its own figures and by those of all who got parts from it.

use hybrid_tests::{PeerProcess, ServerProcess, content};
use serde_json::Value;
use tempfile::TempDir;

/// 64 parts of 32 KiB.
const LEN: usize = 2 << 20;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Part bytes that this peer got from another one.
fn came_from(peer: &PeerProcess, giver: &str, part_bytes: u64) -> u64 {
    let events = peer.events();
    let parts = events.iter().filter(|event| event["event"] == "part" && event["peer"] == giver);
    // No part of the content is shorter.
    parts.count() as u64 * part_bytes
}

/// A swarm in which one client gives under `flags`: everybody finishes, and nobody ever got more from it than `cap`. Gives its
/// last figures.
fn give(flags: &[&str], cap: u64, off: &str) -> Value {
    let bytes = content(LEN, 11);
    let folder = TempDir::new().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    // So slow that it cannot send all to everybody before the giver has given what it may.
    let server = ServerProcess::start(&served, &["--direct-clients", "1", "--egress-limit", "1MB/s"]);
    let url = server.url("file.bin");

    // The first one has it all before anybody else comes, so all of them would take it from there.
    let all: Vec<&str> = ["--stay", "forever"].iter().chain(flags).copied().collect();
    let mut giver = PeerProcess::start("giver", &url, folder.path(), &all);
    let start = giver.wait_for("start");
    let (id, part_bytes) = (start["peer"].as_str().expect("its id").to_owned(), number(&start["part_bytes"]));
    assert_eq!(LEN as u64 % part_bytes, 0, "all parts are of one length");
    giver.wait_for("complete");
    let mut others: Vec<PeerProcess> = (0..4)
        .map(|index| {
            PeerProcess::start(&format!("peer{index}"), &url, folder.path(), &["--stay", "forever", "--parts"])
        })
        .collect();
    for peer in &mut others {
        peer.wait_for("complete");
        let written = std::fs::read(peer.output()).expect("the file that the peer wrote");
        assert!(written == bytes, "{} bytes that differ from the source; {}", written.len(), peer.said());
    }
    giver.wait_until(&format!("uploads to be off: {off}"), |event| event["uploads"]["off"] == off);
    let received: u64 = others.iter().map(|peer| came_from(peer, &id, part_bytes)).sum();
    for peer in &others {
        peer.interrupt();
    }
    giver.interrupt();
    let summary = giver.wait_for("summary");
    let sent = number(&summary["uploads"]["sent"]);
    assert!(sent <= cap && received <= cap, "sent {sent}, came {received}, of {cap}; {}", giver.said());
    assert_eq!(summary["sent_bytes"], summary["uploads"]["sent"]);
    let most = giver.events().iter().map(|event| event["uploads"]["sent"].as_u64().unwrap_or(0)).max();
    assert!(most <= Some(cap), "{most:?} of {cap} on the way; {}", giver.said());
    summary
}

#[test]
fn a_volume_that_is_much_less_than_what_others_want() {
    // Five parts, and some bytes in which none fits; others want 256.
    let cap = 5 * 32_768 + 1_000;
    let summary = give(&["--upload-volume", &cap.to_string()], cap, "volume");
    assert_eq!(summary["uploads"]["limit"], cap, "{summary}");
    assert!(number(&summary["uploads"]["sent"]) > 0, "{summary}");
}

#[test]
fn a_ratio_of_what_came() {
    // A twentieth of 2 MiB are three parts and some bytes, and two parts may always go out.
    let cap = LEN as u64 / 20 + 2 * 32_768;
    let summary = give(&["--upload-ratio", "0.05"], cap, "ratio");
    assert_eq!(summary["uploads"]["limit"], cap, "{summary}");
    assert!(number(&summary["uploads"]["sent"]) > 0, "{summary}");
}

#[test]
fn a_metered_connection_gives_nothing() {
    let summary = give(&["--metered"], 0, "metered");
    assert_eq!(
        (&summary["uploads"]["sent"], &summary["uploads"]["limit"]),
        (&Value::from(0), &Value::Null),
        "{summary}"
    );
}
