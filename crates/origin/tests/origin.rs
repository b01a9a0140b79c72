//! An origin over a real folder and real sockets, with the real coordinator.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use hybrid_manifest::{ContentId, HashProof, Manifest, PartIds, PartNumber, PartRange, SignedManifest, Trust};
use hybrid_origin::{AddressPolicy, Config, ContentPath, DirectClients, Identity, Origin, ServeSummary, ServerConfig};
use hybrid_server_transport::client::{ClientConfig, ClientControl, FetchError, ServerClient, TlsTrust};
use hybrid_units::{ByteCount, BytesPerSecond, Mode};
use hybrid_wire::control::{ByeCode, ClientMessage, Join, Report, ServerMessage, Want, Welcome};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, SessionToken, UploadContract};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    folder: tempfile::TempDir,
    origin: Origin,
    client: ServerClient,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<ServeSummary>>,
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 31 + index / 1_009 + seed) % 251).unwrap()).collect()
}

fn path(text: &str) -> ContentPath {
    ContentPath::from_url(text).unwrap()
}

/// Loopback peers are allowed, two clients are direct, part ids of contents from 100 kB on are asked for.
fn config() -> Config {
    let mut config = Config::default();
    config.coordinator.addresses = AddressPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
    config.coordinator.qos.direct_clients = DirectClients::Fixed(2);
    config.inline_hashes_below = ByteCount::new(100_000);
    config.seed = Some(1);
    config
}

fn start(files: &[(&str, &[u8])], config: Config) -> Server {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let origin = Origin::open(folder.path(), Identity::ephemeral().unwrap(), config).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client = ServerClient::new(url, &TlsTrust::Platform, ClientConfig::default()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn({
        let origin = origin.clone();
        async move {
            let shutdown = async { drop(stopped.await) };
            origin.serve(vec![listener], ServerConfig::default(), shutdown).await
        }
    });
    Server { folder, origin, client, stop, task }
}

impl Server {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn manifest(&self, name: &str) -> Arc<Manifest> {
        let bytes = self.client.manifest(&path(name)).await.unwrap();
        let signed = SignedManifest::decode(&bytes, &Trust::key(self.origin.server_key())).unwrap();
        Arc::clone(signed.manifest())
    }

    /// Fetches all parts with their hashes, as a client does, and verifies each.
    async fn fetch(&self, name: &str, session: Option<SessionToken>) -> Vec<u8> {
        let manifest = self.manifest(name).await;
        let mut ids = PartIds::new(&manifest);
        let mut whole = Vec::new();
        let Some(parts) = manifest.layout().parts() else { return whole };
        for missing in ids.missing(parts) {
            let proofs = self.client.hashes(manifest.content(), missing).await.unwrap();
            for proof in HashProof::decode_all(&proofs).unwrap() {
                ids.insert(&proof).unwrap();
            }
        }
        for number in parts.iter() {
            let expected = ids.expect(number).unwrap();
            let length = expected.place().len();
            let part = self.client.part(manifest.content(), number, length, session).await.unwrap();
            whole.extend_from_slice(expected.verify(part).unwrap().bytes());
        }
        whole
    }

    async fn join(&self, content: ContentId, who: u8) -> (ClientControl, Welcome) {
        let mut control = self.client.control().await.unwrap();
        let join = Join {
            version: PROTOCOL_VERSION,
            program: "test".to_owned(),
            content,
            peer: PeerId::from_bytes([who; 32]),
            quic_port: Some(40_000 + u16::from(who)),
            has: PartRanges::empty(),
            want: Want::Whole,
            contract: UploadContract { upload: true, rate_limit_bytes_per_second: None },
        };
        assert!(control.send(&ClientMessage::Join(join)).unwrap().await);
        match next(&mut control).await {
            ServerMessage::Welcome(welcome) => (control, welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }
}

async fn next(control: &mut ClientControl) -> ServerMessage {
    timeout(DEADLINE, control.recv()).await.expect("a message in time").expect("an open channel").unwrap()
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn files_of_all_sizes_in_verified_parts() {
    for length in [0, 1, 32_768, 32_769, 99_999, 1_000_000] {
        let content = bytes(length, 0);
        let server = start(&[("a.bin", &content)], config());
        let manifest = server.manifest("a.bin").await;
        assert_eq!(manifest.content().as_bytes(), blake3_of(&content), "{length}");
        assert_eq!(manifest.part_ids().is_some(), length < 100_000, "{length}");
        assert_eq!(server.fetch("a.bin", None).await, content, "{length}");
    }
}

/// The content's id by the one-pass builder, so that the threads' result is compared with something else.
fn blake3_of(bytes: &[u8]) -> &'static [u8; 32] {
    let mut builder = hybrid_manifest::Builder::new(hybrid_manifest::PartLen::MIN);
    builder.write(bytes).unwrap();
    Box::leak(Box::new(*builder.finish().unwrap().segment_hashes()[0].as_bytes()))
}

#[tokio::test]
async fn whole_contents_and_ranges_over_part_boundaries() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let content = bytes(300_000, 0);
    let server = start(&[("a.txt", &content)], config());
    for (range, expected) in
        [(None, 0..300_000), (Some("bytes=65535-65536"), 65_535..65_537), (Some("bytes=60000-200000"), 60_000..200_001)]
    {
        let mut request = http::Request::get("/a.txt").header("host", "x");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let request = request.version(http::Version::HTTP_11).body(()).unwrap();
        let answer = server.origin.service().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), content[expected], "{range:?}");
    }
    assert_eq!(server.origin.sent_bytes(), 300_000 + 2 + 140_001);
}

#[tokio::test]
async fn a_file_that_changes_becomes_another_content() {
    let (before, after) = (bytes(200_000, 0), bytes(150_000, 1));
    let server = start(&[("a", &before)], config());
    let old = server.manifest("a").await.content();
    std::fs::write(server.file("a"), &after).unwrap();
    // The old content's bytes are gone; what is asked of it is refused, never served from the new file.
    let stale = server.client.part(old, PartNumber::new(2), 32_768, None).await;
    assert!(matches!(stale, Err(FetchError::Status { status: 404 | 410, .. })), "{stale:?}");
    assert_eq!(server.fetch("a", None).await, after);
    assert_ne!(server.manifest("a").await.content(), old);
    assert!(server.origin.stats(old).is_none(), "the coordinator knows that it is gone");
    std::fs::remove_file(server.file("a")).unwrap();
    let gone = server.client.manifest(&path("a")).await;
    assert!(matches!(gone, Err(FetchError::Status { status: 404, .. })), "{gone:?}");
}

#[tokio::test]
async fn a_touched_file_keeps_its_swarm() {
    let content = bytes(200_000, 0);
    let server = start(&[("a", &content)], config());
    let id = server.manifest("a").await.content();
    let (mut control, _welcome) = server.join(id, 1).await;
    let file = std::fs::File::options().write(true).open(server.file("a")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    // Nobody has looked at the file's time yet; what is asked of the content is verified and served all the same.
    let part = server.client.part(id, PartNumber::new(1), 32_768, None).await.unwrap();
    assert_eq!(part, content[32_768..65_536]);
    assert_eq!(server.fetch("a", None).await, content, "prepared again");
    let stats = server.origin.stats(id).expect("still there");
    assert_eq!(stats.direct_clients, 1, "the client was not sent away");
    // A file that goes away ends it.
    std::fs::remove_file(server.file("a")).unwrap();
    assert!(server.client.manifest(&path("a")).await.is_err());
    assert!(matches!(next(&mut control).await, ServerMessage::Bye(bye) if bye.code == ByeCode::UnknownContent));
}

#[tokio::test]
async fn clients_hear_of_a_change_without_asking_for_the_path() {
    let mut config = config();
    // Nothing but the read below finds the change.
    config.prepare_at_start = false;
    let server = start(&[("a", &bytes(200_000, 0)), ("b", &bytes(200_000, 1))], config);
    for (name, who) in [("a", 1), ("b", 2)] {
        let id = server.manifest(name).await.content();
        let (mut control, _welcome) = server.join(id, who).await;
        if name == "a" {
            std::fs::write(server.file(name), bytes(200_000, 2)).unwrap();
        } else {
            std::fs::remove_file(server.file(name)).unwrap();
        }
        let stale = server.client.part(id, PartNumber::new(1), 32_768, None).await;
        assert!(matches!(stale, Err(FetchError::Status { status: 410, .. })), "{name}: {stale:?}");
        let bye = next(&mut control).await;
        assert!(matches!(&bye, ServerMessage::Bye(bye) if bye.code == ByeCode::UnknownContent), "{name}: {bye:?}");
        assert!(server.origin.stats(id).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_change_that_hides_is_found_by_the_hash() {
    let mut content = bytes(200_000, 0);
    let mut config = config();
    // The pass over the files could see it between the write and the old time.
    config.prepare_at_start = false;
    let server = start(&[("a", &content)], config);
    let id = server.manifest("a").await.content();
    let file = server.file("a");
    let times = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let modified: SystemTime = times(&file);
    content[40_000] ^= 1;
    std::fs::write(&file, &content).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    assert_eq!(times(&file), modified);
    let whole = server.client.part(id, PartNumber::new(0), 32_768, None).await.unwrap();
    assert_eq!(whole, content[..32_768], "this part is as it was");
    let changed = server.client.part(id, PartNumber::new(1), 32_768, None).await;
    assert!(matches!(changed, Err(FetchError::Status { status: 410, .. })), "{changed:?}");
    assert_eq!(server.fetch("a", None).await, content, "prepared again");
}

#[tokio::test]
async fn the_same_bytes_at_two_paths_are_one_content() {
    let content = bytes(70_000, 0);
    let server = start(&[("a", &content), ("b", &content)], config());
    let id = server.manifest("a").await.content();
    assert_eq!(server.manifest("b").await.content(), id);
    std::fs::remove_file(server.file("a")).unwrap();
    assert!(server.client.manifest(&path("a")).await.is_err());
    assert_eq!(server.fetch("b", None).await, content);
    assert!(server.origin.stats(id).is_some(), "the other path keeps it");
}

#[tokio::test]
async fn a_copy_serves_when_the_other_was_overwritten() {
    let content = bytes(200_000, 0);
    let server = start(&[("a", &content), ("b", &content)], config());
    let id = server.manifest("a").await.content();
    assert_eq!(server.manifest("b").await.content(), id);
    // Nobody asks for these paths again, so only a read can find out.
    std::fs::write(server.file("a"), bytes(200_000, 1)).unwrap();
    let part = server.client.part(id, PartNumber::new(1), 32_768, None).await.unwrap();
    assert_eq!(part, content[32_768..65_536]);
    std::fs::remove_file(server.file("b")).unwrap();
    let gone = server.client.part(id, PartNumber::new(0), 32_768, None).await;
    assert!(matches!(gone, Err(FetchError::Status { status: 404 | 410, .. })), "{gone:?}");
}

#[tokio::test]
async fn all_files_are_prepared_without_being_asked_for() {
    let content = bytes(70_000, 0);
    let server = start(&[("a", &content)], config());
    let mut builder = hybrid_manifest::Builder::new(hybrid_manifest::PartLen::MIN);
    builder.write(&content).unwrap();
    let id = ContentId::from_bytes(*builder.finish().unwrap().segment_hashes()[0].as_bytes());
    until("the background pass", async || server.origin.stats(id)).await;
}

#[tokio::test]
async fn figure_2_over_sockets() {
    let content = bytes(500_000, 0);
    let server = start(&[("a", &content)], config());
    let id = server.manifest("a").await.content();
    // The first two are served directly, with parts over HTTP under their session.
    let (_first, welcome) = server.join(id, 1).await;
    assert_eq!((welcome.mode, welcome.pushes), (Mode::ClientServer, 0));
    assert_eq!(server.fetch("a", Some(welcome.session)).await, content);
    let (second, welcome) = server.join(id, 2).await;
    assert_eq!(welcome.mode, Mode::ClientServer);
    // The second says that it holds all: it can be given to the third.
    let all = PartRanges::from_ascending((0..16).map(PartNumber::new));
    let report = Report { last_part: Some(15), level: 16, gained: all, ..Report::default() };
    assert!(second.send(&ClientMessage::Report(report)).unwrap().await);
    until("the report", async || server.origin.stats(id).filter(|stats| stats.complete_clients == 1)).await;
    let (mut third, welcome) = server.join(id, 3).await;
    assert_eq!(welcome.mode, Mode::PeerToPeer, "{:?}", welcome.reasons);
    assert!(welcome.peers.iter().any(|peer| peer.address.port() == 40_002), "{:?}", welcome.peers);
    assert_eq!(welcome.pushes, 1);
    let push = loop {
        match next(&mut third).await {
            ServerMessage::PartPush(push) => break push,
            ServerMessage::Directive(_) => {}
            other => panic!("no push: {other:?}"),
        }
    };
    let start = push.number as usize * 32_768;
    assert_eq!(push.bytes, Bytes::copy_from_slice(&content[start..content.len().min(start + 32_768)]));
    // Beyond its grants the third is told to wait, with the coordinator's own reason.
    let refused = until("a refusal", async || {
        let number = PartNumber::new((push.number + 1) % 16);
        let length = if number.as_u32() == 15 { 8_480 } else { 32_768 };
        server.client.part(id, number, length, Some(welcome.session)).await.err()
    })
    .await;
    assert!(matches!(&refused, FetchError::Refused { status: 429, code, .. } if code.starts_with("E_")), "{refused}");
    assert!(refused.retry_after().is_some());
    let unknown = server.client.part(id, PartNumber::new(0), 32_768, Some(SessionToken::from_bytes([9; 16]))).await;
    assert!(matches!(unknown, Err(FetchError::Status { status: 401, .. })), "{unknown:?}");

    // Closing the channel is leaving.
    drop(second);
    until("the second to leave", async || {
        let stats = server.origin.stats(id)?;
        (stats.direct_clients == 1 && stats.swarm_clients == 1).then_some(())
    })
    .await;

    // The end says good-bye and does not wait for channels that stay open.
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    let bye = loop {
        match next(&mut third).await {
            ServerMessage::Bye(bye) => break bye,
            _ => continue,
        }
    };
    assert_eq!(bye.code, ByeCode::Shutdown);
    timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
}

#[tokio::test]
async fn joins_that_come_to_nothing() {
    let mut config = config();
    config.join_limit = Duration::from_millis(300);
    config.prepare_at_start = false;
    let server = start(&[("a", b"x")], config);
    let mut silent = server.client.control().await.unwrap();
    assert!(matches!(next(&mut silent).await, ServerMessage::Bye(bye) if bye.code == ByeCode::Protocol));
    let mut hasty = server.client.control().await.unwrap();
    assert!(hasty.send(&ClientMessage::Report(Report::default())).unwrap().await);
    assert!(matches!(next(&mut hasty).await, ServerMessage::Bye(bye) if bye.code == ByeCode::Protocol));
    let mut lost = server.client.control().await.unwrap();
    let join = Join {
        version: PROTOCOL_VERSION,
        program: String::new(),
        content: ContentId::from_bytes([1; 32]),
        peer: PeerId::from_bytes([1; 32]),
        quic_port: None,
        has: PartRanges::empty(),
        want: Want::Whole,
        contract: UploadContract::default(),
    };
    assert!(lost.send(&ClientMessage::Join(join)).unwrap().await);
    assert!(matches!(next(&mut lost).await, ServerMessage::Bye(bye) if bye.code == ByeCode::UnknownContent));
}

#[tokio::test]
async fn a_flood_of_reports_is_cut() {
    let server = start(&[("a", &bytes(100_000, 0))], config());
    let id = server.manifest("a").await.content();
    let (mut control, _welcome) = server.join(id, 1).await;
    let (usual, _welcome) = server.join(id, 2).await;
    let report = |parts: u32| {
        let gained = PartRanges::from_ascending((0..parts).map(PartNumber::new));
        ClientMessage::Report(Report { level: parts, gained, ..Report::default() })
    };
    for _ in 0..200 {
        // The channel may end before all are sent.
        drop(control.send(&report(0)));
    }
    let bye = loop {
        match next(&mut control).await {
            ServerMessage::Bye(bye) => break bye,
            _ => continue,
        }
    };
    assert_eq!(bye.code, ByeCode::TooFast, "{bye:?}");
    until("its end", async || server.origin.stats(id).filter(|stats| stats.direct_clients == 1)).await;
    // As many as a stalled connection lets go together do no harm.
    for _ in 0..39 {
        assert!(usual.send(&report(0)).unwrap().await);
    }
    assert!(usual.send(&report(4)).unwrap().await);
    until("the last report", async || server.origin.stats(id).filter(|stats| stats.complete_clients == 1)).await;
}

#[tokio::test]
async fn egress_keeps_to_its_limit_over_all_answers() {
    let content = bytes(600_000, 0);
    let mut config = config();
    config.egress_limit = Some(BytesPerSecond::new(1_000_000));
    let server = start(&[("a", &content)], config);
    server.manifest("a").await;
    let start = Instant::now();
    let (one, two) = tokio::join!(server.fetch("a", None), server.fetch("a", None));
    assert_eq!((one.len(), two.len()), (600_000, 600_000));
    // 1.2 MB at 1 MB/s, of which a tenth of a second's worth may go at once.
    assert!(start.elapsed() >= Duration::from_millis(1_050), "{:?}", start.elapsed());
}

#[tokio::test]
async fn hashes_that_do_not_exist() {
    let server = start(&[("a", &bytes(100_000, 0))], config());
    let id = server.manifest("a").await.content();
    for (first, count, fine) in [(0, 4, true), (3, 1, true), (4, 1, false), (0, 5, false)] {
        let parts = PartRange::new(PartNumber::new(first), count).unwrap();
        assert_eq!(server.client.hashes(id, parts).await.is_ok(), fine, "{first} {count}");
    }
}
