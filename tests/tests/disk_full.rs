//! A disk that becomes full while a client gets a content, and has room again later.

use hybrid_tests::{PeerProcess, ServerProcess, content};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LEN: usize = 6 << 20;

/// The content, the journal, and as much again.
const DISK: &str = "size=16m";

/// `HYBRID_ROUNDS=20` is more of them.
const ROUNDS: u32 = 4;

/// A small disk of our own; it goes with this.
struct Disk(PathBuf);

impl Disk {
    /// `None` where we may not mount any.
    fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir(place).expect("an empty folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(place);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(place.to_owned()))
    }

    /// Takes what is left of it.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).expect("room for a name");
        let piece = vec![7; 64 << 10];
        while ballast.write_all(&piece).is_ok() {}
        while ballast.write_all(&piece[..1]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("our own file");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |value| value.parse().expect("a number"))
}

#[test]
#[allow(clippy::print_stderr, reason = "why nothing was tested")]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let (seed, rounds) = (number("HYBRID_SEED", 3), number("HYBRID_ROUNDS", ROUNDS));
    let bytes = content(LEN, 29);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let server = ServerProcess::start(&served, &["--egress-limit", "4MB/s"]);
    let url = server.url("file.bin");
    let chances = content(rounds as usize, u8::try_from(seed).expect("a seed below 256"));
    for (round, chance) in chances.into_iter().enumerate() {
        let replay = format!("HYBRID_SEED={seed}, round {round}");
        let name = format!("peer{round}");
        let Some(disk) = Disk::mount(&folder.path().join(format!("{name}.cache"))) else {
            return eprintln!("skipped: this user may mount no tmpfs");
        };
        let mut peer = PeerProcess::start(&name, &url, folder.path(), &[]);
        peer.wait_for("start");
        std::thread::sleep(Duration::from_millis(u64::from(chance) * 3));
        disk.fill();
        let told = peer.wait_for("store-full");
        assert!(told["needed_bytes"].as_u64() > Some(0), "{replay}: {told}");
        assert!(peer.events().iter().all(|event| event["event"] != "complete"), "{replay}");
        disk.make_room();
        let summary = peer.wait_for("summary");
        assert!(peer.wait_for_end().success(), "{replay}; {}", peer.said());
        assert!(peer.events().iter().any(|event| event["event"] == "store-ready"), "{replay}; {}", peer.said());
        assert!(std::fs::read(peer.output()).expect("the file") == bytes, "{replay}: other bytes; {summary}");
    }
}
