//! A file that is replaced under its name.

use hybrid_tests::{PeerProcess, ServerProcess, content, poll};

#[test]
fn who_knows_the_old_file_gets_the_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    let (old, new) = (content(500_000, 1), content(600_000, 2));
    std::fs::write(served.join("file.bin"), &old).expect("room for a file");
    let server = ServerProcess::start(&served, &[]);
    let url = server.url("file.bin");

    let mut peer = PeerProcess::start("peer", &url, folder.path(), &[]);
    assert!(peer.wait_for_end().success(), "{}", peer.said());
    assert!(std::fs::read(peer.output()).expect("the file") == old);

    std::fs::write(served.join("file.bin"), &new).expect("room for a file");
    // A file that is just being written is refused for a moment.
    poll("the new file", || {
        let mut peer = PeerProcess::start("peer", &url, folder.path(), &["--force"]);
        let ended = peer.wait_for_end();
        let got = std::fs::read(peer.output()).expect("the file");
        assert!(got == old || got == new, "neither the old nor the new file; {}", peer.said());
        assert_ne!(ended.code(), Some(5), "taken for a forgery; {}", peer.said());
        (ended.success() && got == new).then_some(())
    });
}
