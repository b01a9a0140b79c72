//! A client that is killed again and again on one cache, as `kill -9` does.

use hybrid_tests::{PeerProcess, ServerProcess, content, poll};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const KILLS: u32 = 100;

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |value| value.parse().expect("a number"))
}

/// The longest that a client lives behind its start, or behind its first new part.
const LIFE_MILLIS_MAX: u64 = 250;

/// Whole parts, so that bytes held are parts held.
const LEN: usize = 12 << 20;

fn largest(events: &[Value], field: &str) -> u64 {
    events.iter().filter_map(|event| event[field].as_u64()).max().unwrap_or(0)
}

/// What a client found in its cache, once it has looked.
fn recovered_bytes(events: &[Value]) -> Option<u64> {
    let start = events.iter().find(|event| event["event"] == "start")?;
    Some(start["recovered_parts"].as_u64()? * start["part_bytes"].as_u64()?)
}

fn has_new_parts(events: &[Value]) -> bool {
    recovered_bytes(events).is_some_and(|recovered| largest(events, "held_bytes") > recovered)
}

/// The file is the source; it and the cache go, so that the next client begins anew.
fn check_and_clear(peer: &mut PeerProcess, folder: &Path, bytes: &[u8], replay: &str) {
    assert!(peer.wait_for_end().success(), "{replay}; {}", peer.said());
    assert!(std::fs::read(peer.output()).expect("the file") == bytes, "{replay}: other bytes; {}", peer.said());
    std::fs::remove_file(peer.output()).expect("our own file");
    std::fs::remove_dir_all(folder.join("peer.cache")).expect("our own folder");
}

/// `HYBRID_KILLS=1000` kills more often.
#[test]
#[allow(clippy::print_stdout, reason = "the seed and what came of it, for whoever wants them of a run that passed")]
fn a_hundred_kills_lose_nothing_that_was_told_to_be_held() {
    let seed = u8::try_from(number("HYBRID_SEED", 23)).expect("a seed below 256");
    let wanted = number("HYBRID_KILLS", KILLS);
    let bytes = content(LEN, 17);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let server = ServerProcess::start(&served, &["--egress-limit", "5MB/s"]);
    let url = server.url("file.bin");

    let (mut kills, mut with_new_parts, mut whole, mut held_bytes) = (0, 0, 0, 0);
    for (round, chance) in content(4 * wanted as usize, seed).chunks_exact(2).cycle().enumerate() {
        if kills == wanted {
            break;
        }
        let replay = format!("HYBRID_SEED={seed}, round {round}, kill {kills}");
        let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
        // Half of them are killed wherever they are, half while parts come in.
        if chance[0] % 2 == 0 {
            poll("a new part or the end", || (peer.has_ended() || has_new_parts(&peer.events())).then_some(()));
        }
        std::thread::sleep(Duration::from_millis(u64::from(chance[1]) * LIFE_MILLIS_MAX / 255));
        let ended = peer.has_ended();
        if !ended {
            peer.kill();
        }
        let events = peer.events();
        if let Some(recovered) = recovered_bytes(&events) {
            // The system outlives the process, and with it everything that the process wrote.
            assert!(recovered >= held_bytes, "{replay}: held {held_bytes}, then {recovered}; {}", peer.said());
        }
        held_bytes = held_bytes.max(largest(&events, "held_bytes"));
        if ended {
            check_and_clear(&mut peer, folder.path(), &bytes, &replay);
            (whole, held_bytes) = (whole + 1, 0);
            continue;
        }
        kills += 1;
        with_new_parts += u32::from(has_new_parts(&events));
        if peer.output().exists() {
            // Killed behind its work: the file has its name only when it is whole.
            assert!(std::fs::read(peer.output()).expect("the file") == bytes, "{replay}: other bytes");
            std::fs::remove_file(peer.output()).expect("our own file");
        }
    }
    let tale =
        format!("HYBRID_SEED={seed}: {kills} kills, {with_new_parts} with new parts, {whole} whole files between");
    println!("{tale}");
    assert!(with_new_parts >= wanted / 4, "{tale}: too few to say anything");
    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    check_and_clear(&mut peer, folder.path(), &bytes, &tale);
}
