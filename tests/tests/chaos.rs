//! A swarm whose programs are killed, held up and damaged at random ends with the right bytes everywhere.

use hybrid_tests::{PeerProcess, ServerProcess, content};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PEERS: usize = 6;

/// What the server can send: four copies in some 20 s, so that the faults come while everybody is at work.
const EGRESS: &str = "4MB/s";

const LEN: usize = 20 << 20;

/// Faults, one after the other. `HYBRID_FAULTS` is another number.
const FAULTS: u32 = 25;

/// Between two faults, at most.
const PAUSE_MILLIS_MAX: usize = 600;

/// Chance by seed: what happens, not when, is the same in each run.
struct Chance(blake3::OutputReader);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % limit
    }

    fn pause(&mut self, millis_max: usize) -> Duration {
        Duration::from_millis(self.below(millis_max) as u64)
    }
}

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |value| value.parse().expect("a number"))
}

/// Files of a cache, without the client's key and what is locked.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name == "data" || name == "journal") {
            found.push(path);
        }
    }
    found.sort();
    found
}

struct Crowd {
    folder: tempfile::TempDir,
    server: ServerProcess,
    url: String,
    peers: Vec<PeerProcess>,
    chance: Chance,
}

impl Crowd {
    fn start(&self, index: usize) -> PeerProcess {
        let arguments = ["--stay", "forever", "--force"];
        PeerProcess::start(&format!("peer{index}"), &self.url, self.folder.path(), &arguments)
    }

    /// Kills a client and starts it on the same cache; says what was done.
    fn kill_peer(&mut self, damage: bool) -> String {
        let index = self.chance.below(self.peers.len());
        self.peers[index].kill();
        let mut what = format!("kills peer{index}");
        let found = files(&self.folder.path().join(format!("peer{index}.cache")));
        if damage && !found.is_empty() {
            let path = &found[self.chance.below(found.len())];
            let mut bytes = std::fs::read(path).expect("a file of the cache");
            if !bytes.is_empty() {
                let bit = self.chance.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(path, bytes).expect("a file of the cache");
                what = format!("{what} and flips bit {bit} of {}", path.display());
            }
        }
        self.peers[index] = self.start(index);
        what
    }

    fn hold_up_peer(&mut self) -> String {
        let index = self.chance.below(self.peers.len());
        self.peers[index].hold_up();
        std::thread::sleep(self.chance.pause(4_000));
        self.peers[index].go_on();
        format!("holds up peer{index}")
    }

    fn kill_server(&mut self) -> String {
        self.server.kill();
        std::thread::sleep(self.chance.pause(3_000));
        self.server.start_again();
        "kills the server and starts it again".to_owned()
    }

    fn fault(&mut self) -> String {
        match self.chance.below(10) {
            0..=2 => self.kill_peer(false),
            3..=5 => self.kill_peer(true),
            6 | 7 => self.hold_up_peer(),
            _ => self.kill_server(),
        }
    }
}

/// `HYBRID_SEED` and `HYBRID_FAULTS` are other faults, and more of them.
#[test]
#[allow(clippy::print_stdout, reason = "what was done, for whoever wants to see it of a run that passed")]
fn whatever_happens_everybody_ends_with_the_right_bytes() {
    let seed = number("HYBRID_SEED", 1);
    let faults = number("HYBRID_FAULTS", FAULTS);
    let bytes = content(LEN, 41);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let server = ServerProcess::start(&served, &["--direct-clients", "1", "--egress-limit", EGRESS]);
    let url = server.url("file.bin");
    let chance = Chance(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof());
    let mut crowd = Crowd { folder, server, url, peers: Vec::new(), chance };
    crowd.peers = (0..PEERS).map(|index| crowd.start(index)).collect();
    let mut tale = format!("HYBRID_SEED={seed} HYBRID_FAULTS={faults}");
    println!("{tale}");
    for fault in 0..faults {
        std::thread::sleep(crowd.chance.pause(PAUSE_MILLIS_MAX));
        let what = format!("{fault}: {}", crowd.fault());
        println!("{what}");
        tale = format!("{tale}\n{what}");
    }
    for (index, peer) in crowd.peers.iter_mut().enumerate() {
        peer.wait_for("complete");
        let got = std::fs::read(peer.output()).expect("the file");
        assert!(got == bytes, "peer{index} has other bytes; {tale}\n{}", peer.said());
        assert!(!peer.said().contains("panicked"), "{tale}\n{}", peer.said());
    }
    assert!(!crowd.server.said().contains("panicked"), "{tale}\n{}", crowd.server.said());
}
