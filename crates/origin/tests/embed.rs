//! The example that mounts the service in a host's own router, exercised in this process.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../examples/embed_axum.rs"]
mod embed_axum;

use hybrid_manifest::{PartIds, PartNumber, SignedManifest, Trust};
use hybrid_origin::{Config, Identity, Origin};
use hybrid_server_transport::client::{ClientConfig, ServerClient, TlsTrust};
use hybrid_wire::control::{ClientMessage, Join, ServerMessage, Want};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, UploadContract};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn mounted_beside_the_hosts_routes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("films")).unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    std::fs::write(folder.path().join("films/a b.bin"), &bytes).unwrap();
    let origin = Origin::open(folder.path(), Identity::ephemeral().unwrap(), Config::default()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = embed_axum::router(&origin).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    // The link carries the prefix that the router strips: the client finds all calls by it.
    let url = format!("http://{address}/media/films/a%20b.bin");
    let (client, path) = ServerClient::discover(&url, &TlsTrust::Platform, ClientConfig::default()).await.unwrap();
    assert_eq!(client.server().to_string(), format!("http://{address}/media"));
    let signed =
        SignedManifest::decode(&client.manifest(&path).await.unwrap(), &Trust::key(origin.server_key())).unwrap();
    let manifest = signed.manifest();
    assert_eq!((manifest.name(), manifest.layout().total_len()), ("films/a b.bin", 200_000));

    let expected = PartIds::new(manifest).expect(PartNumber::new(3)).unwrap();
    let length = expected.place().len();
    let part = client.part(manifest.content(), PartNumber::new(3), length, None).await.unwrap();
    assert_eq!(expected.verify(part).unwrap().into_bytes(), bytes[3 * 32_768..4 * 32_768]);

    // The upgrade works under a host's own listener too.
    let mut control = client.control().await.unwrap();
    let join = Join {
        version: PROTOCOL_VERSION,
        program: "test".to_owned(),
        content: manifest.content(),
        peer: PeerId::from_bytes([1; 32]),
        quic_port: None,
        has: PartRanges::empty(),
        want: Want::Whole,
        contract: UploadContract::default(),
    };
    assert!(control.send(&ClientMessage::Join(join)).unwrap().await);
    let answer = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap();
    assert!(matches!(answer, ServerMessage::Welcome(_)), "{answer:?}");
    origin.close();
    let end = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap();
    assert!(matches!(end, ServerMessage::Bye(_)), "{end:?}");

    // The host's own route is its own.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(page.ends_with("the host's own page"), "{page}");
}
