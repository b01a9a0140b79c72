//! Somebody who is named as a peer, under many keys, and has nothing to do with it.

use hybrid_manifest::{SignedManifest, Trust};
use hybrid_peer_transport::Identity;
use hybrid_server_transport::client::{ClientConfig, ClientControl, ServerClient, TlsTrust};
use hybrid_tests::{PeerProcess, ServerProcess, content};
use hybrid_wire::control::{ClientMessage, Join, ServerMessage, Want};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, UploadContract};
use std::net::UdpSocket;
use std::time::Duration;

/// Keys under which the victim is named: more than a list of peers has.
const KEYS: usize = 100;

/// Datagrams that one client sends to somebody who never answers: a handshake's first one, its repetition in two, a good-bye.
const DATAGRAMS_MAX: usize = 4;

/// Joins at the server under a new key, and says that it takes peers at the victim's port.
async fn join(client: &ServerClient, manifest: &SignedManifest, port: u16) -> ClientControl {
    let mut control = client.control().await.expect("a control channel");
    let join = Join {
        version: PROTOCOL_VERSION,
        program: "attacker".to_owned(),
        content: manifest.manifest().content(),
        peer: Identity::generate().expect("a key").peer_id(),
        quic_port: Some(port),
        has: PartRanges::empty(),
        want: Want::Whole,
        contract: UploadContract { upload: true, rate_limit_bytes_per_second: None },
    };
    drop(control.send(&ClientMessage::Join(join)).expect("room for one message"));
    let answer = control.recv().await.expect("an answer").expect("a message");
    assert!(matches!(answer, ServerMessage::Welcome(_)), "{answer:?}");
    control
}

#[test]
#[allow(clippy::print_stdout, reason = "the figure")]
fn a_victim_that_is_named_a_hundred_times_is_dialled_once() {
    let bytes = content(3 << 20, 9);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let server = ServerProcess::start(&served, &["--direct-clients", "0"]);
    let url = server.url("file.bin");
    let victim = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = victim.local_addr().expect("a port").port();

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let channels: Vec<ClientControl> = runtime.block_on(async {
        let (client, path) =
            ServerClient::discover(&url, &TlsTrust::Platform, ClientConfig::default()).await.expect("it");
        let bytes = client.manifest(&path).await.expect("a manifest");
        let manifest = SignedManifest::decode(&bytes, &Trust::FirstUse).expect("a manifest");
        let mut channels = Vec::new();
        for _ in 0..KEYS {
            channels.push(join(&client, &manifest, port).await);
        }
        channels
    });
    let mut peer = PeerProcess::start("peer", &url, folder.path(), &["--stay", "8s"]);
    peer.wait_for("summary");
    assert!(peer.wait_for_end().success(), "{}", peer.said());
    assert!(std::fs::read(peer.output()).expect("the file") == bytes, "other bytes; {}", peer.said());
    drop(channels);

    victim.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let (mut datagrams, mut bytes, mut buffer) = (0, 0, [0; 65_536]);
    while let Ok(length) = victim.recv(&mut buffer) {
        (datagrams, bytes) = (datagrams + 1, bytes + length);
    }
    println!("{datagrams} datagrams, {bytes} bytes");
    assert!((1..=DATAGRAMS_MAX).contains(&datagrams), "{datagrams} datagrams of {bytes} bytes; {}", peer.said());
}
