//! Peers against a small server of their own: what the library does when server, peers and disk do what they may.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use hybrid_manifest::{
    Builder, ContentId, Manifest, ManifestError, ManifestSpec, PartIds, PartLen, PartNumber, PartRange, SignedManifest,
    SigningKey, server_key,
};
use hybrid_peer::{
    Config, Download, DownloadError, DownloadEvent, FetchError, GetError, Hours, Mode, Overwrite, Peer, PeerId, Source,
    UploadsOff,
};
use hybrid_server_transport::{
    ContentInfo, ContentPath, ControlSocket, Document, ManifestForm, PartHead, PartVerdict, ServerConfig, Service,
    Site, SiteError, serve,
};
use hybrid_units::{ByteCount, UnixTime};
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, Join, ServerMessage, Welcome};
use hybrid_wire::ticket::{Roles, Ticket};
use hybrid_wire::{PartRanges, PeerCoordinates, PeerLimits, SessionToken};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Nothing here takes longer unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the server is like.
#[derive(Clone)]
struct Wanted {
    len: usize,
    inline: bool,
    epoch: u64,
    key: u8,
    /// From the second client on, parts come from peers.
    swarm: bool,
    /// The server says good-bye instead of welcome.
    refuses: Option<ByeCode>,
    /// Parts are to be asked for later.
    waits: bool,
    /// How many seconds its clock is ahead.
    ahead_secs: u64,
    /// There is no file.
    removed: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            len: 1_000_000,
            inline: true,
            epoch: 1,
            key: 1,
            swarm: false,
            refuses: None,
            waits: false,
            ahead_secs: 0,
            removed: false,
        }
    }
}

#[path = "downloads/damage.rs"]
mod damage;

fn content(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// One content, and a coordinator in a nutshell.
struct Little {
    wanted: Wanted,
    key: SigningKey,
    bytes: Bytes,
    manifest: SignedManifest,
    ids: PartIds,
    members: Mutex<Vec<PeerCoordinates>>,
    parts_sent: AtomicU64,
    /// What clients said of their uploads, with their joins and later.
    uploads: Mutex<Vec<bool>>,
    /// The next part goes out with a flipped bit.
    spoil: AtomicBool,
    /// Somebody asked for the file: a server that has just started does not know its content before.
    resolved: AtomicBool,
    /// Ends the control channels, as the end of a process does.
    gone: tokio::sync::watch::Sender<bool>,
}

impl Little {
    fn new(wanted: Wanted) -> Self {
        let key = SigningKey::from_bytes(&[wanted.key; 32]);
        let bytes = content(wanted.len, wanted.epoch);
        let mut builder = Builder::new(PartLen::new(64 << 10).unwrap());
        builder.write(&bytes).unwrap();
        let prepared = builder.finish().unwrap();
        let mut spec = ManifestSpec::new("file.bin");
        spec.epoch = wanted.epoch;
        spec.grace = Duration::from_secs(3_600);
        spec.inline_hashes_below = ByteCount::new(if wanted.inline { u64::MAX } else { 0 });
        let manifest = Manifest::new(spec, &prepared, server_key(&key)).unwrap();
        let ids = PartIds::with_ids(&manifest, prepared.part_ids()).unwrap();
        let manifest = SignedManifest::sign(manifest, &key).unwrap();
        Self {
            wanted,
            key,
            bytes,
            manifest,
            ids,
            members: Mutex::default(),
            parts_sent: AtomicU64::new(0),
            uploads: Mutex::default(),
            spoil: AtomicBool::new(false),
            resolved: AtomicBool::new(false),
            gone: tokio::sync::watch::Sender::new(false),
        }
    }

    fn welcome(&self, join: &Join, client: SocketAddr) -> Welcome {
        self.uploads.lock().unwrap().push(join.contract.upload);
        let mut members = self.members.lock().unwrap();
        let mode = if self.wanted.swarm && !members.is_empty() { Mode::PeerToPeer } else { Mode::ClientServer };
        let peers = if mode == Mode::PeerToPeer { members.clone() } else { Vec::new() };
        if let Some(port) = join.quic_port {
            let address = SocketAddr::new(client.ip(), port);
            members.push(PeerCoordinates { peer: join.peer, address });
        }
        let secs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let secs = secs + self.wanted.ahead_secs;
        let now = UnixTime::from_secs(secs);
        let ttl = Duration::from_secs(600);
        let ticket = Ticket::issue(&self.key, join.content, join.peer, now, ttl, Roles::LEECH);
        Welcome {
            mode,
            reasons: vec!["a test".to_owned()],
            session: SessionToken::from_bytes([9; 16]),
            ticket: ticket.sign(&self.key),
            server_time_secs: secs,
            report_interval_ms: 1_000,
            peers,
            grants: PartRanges::empty(),
            pushes: 0,
            limits: PeerLimits { connections_max: 8, uploads_max: 4 },
        }
    }
}

impl Site for Little {
    async fn resolve(&self, path: &ContentPath) -> Result<ContentInfo, SiteError> {
        if path.file_name() != "file.bin" || self.wanted.removed {
            return Err(SiteError::NotFound);
        }
        Ok(ContentInfo {
            content: self.manifest.manifest().content(),
            length_bytes: self.bytes.len() as u64,
            media_type: "application/octet-stream".to_owned(),
            modified: SystemTime::UNIX_EPOCH,
        })
    }

    async fn read(&self, _: ContentId, offset: u64, length_bytes: usize) -> Result<Bytes, SiteError> {
        let offset = usize::try_from(offset).unwrap();
        Ok(self.bytes.slice(offset..offset + length_bytes))
    }

    async fn manifest(&self, _: &ContentPath, _: ManifestForm) -> Result<Document, SiteError> {
        self.resolved.store(true, Ordering::Relaxed);
        Ok(Document { bytes: self.manifest.encode(), tag: "m".to_owned() })
    }

    fn part_head(&self, _: ContentId, number: PartNumber) -> Result<PartHead, SiteError> {
        let part_count = self.ids.layout().part_count();
        let place = self.ids.layout().part(number).ok_or(SiteError::NoSuchPart { part_count })?;
        Ok(PartHead { id: self.ids.id(number).unwrap(), length_bytes: place.len() })
    }

    fn authorize_part(&self, session: Option<SessionToken>, _: ContentId, _: PartNumber) -> PartVerdict {
        assert!(session.is_some(), "clients name themselves");
        if !self.resolved.load(Ordering::Relaxed) {
            return PartVerdict::UnknownSession;
        }
        let reason = "a test".to_owned();
        let wait = PartVerdict::Wait { retry_after: Duration::from_secs(1), code: "test", reason };
        if self.wanted.waits { wait } else { PartVerdict::Serve }
    }

    async fn part(&self, _: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        self.parts_sent.fetch_add(1, Ordering::Relaxed);
        let place = self.ids.layout().part(number).unwrap();
        let offset = usize::try_from(place.offset()).unwrap();
        let mut bytes = self.bytes[offset..][..place.len() as usize].to_vec();
        if self.spoil.swap(false, Ordering::Relaxed) {
            bytes[0] ^= 1;
        }
        Ok(bytes.into())
    }

    fn hashes(&self, _: ContentId, parts: PartRange) -> Result<Bytes, SiteError> {
        let proofs = self.ids.prove_all(parts).ok_or(SiteError::NotFound)?;
        Ok(proofs.iter().flat_map(hybrid_manifest::HashProof::encode).collect::<Vec<_>>().into())
    }

    async fn control(&self, mut socket: ControlSocket) {
        let (client, sender) = (socket.client(), socket.sender());
        let mut gone = self.gone.subscribe();
        loop {
            let message = tokio::select! {
                message = socket.recv() => message,
                _ = gone.wait_for(|gone| *gone) => return sender.cut(),
            };
            let Some(Ok(message)) = message else { return };
            match message {
                ClientMessage::Join(join) => {
                    let unknown =
                        !self.resolved.load(Ordering::Relaxed) || join.content != self.manifest.manifest().content();
                    let refused = self.wanted.refuses.or(unknown.then_some(ByeCode::UnknownContent));
                    if let Some(code) = refused {
                        return sender.close(Bye { code, reason: "a test".to_owned() });
                    }
                    drop(sender.send(&ServerMessage::Welcome(self.welcome(&join, client))).unwrap());
                }
                ClientMessage::Uploads(uploads) => self.uploads.lock().unwrap().push(uploads.on),
                ClientMessage::Report(_) | ClientMessage::Vouch(_) => {}
                ClientMessage::Bye(_) => return,
            }
        }
    }

    async fn pace(&self, _: u64) {}

    fn sent(&self, _: u64) {}
}

/// A server on a port of its own.
struct Server {
    site: Arc<Little>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    fn start(wanted: Wanted) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), wanted)
    }

    fn start_at(address: SocketAddr, wanted: Wanted) -> Self {
        let site = Arc::new(Little::new(wanted));
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = Service::new(site.clone());
        let mut config = ServerConfig::default();
        config.drain_limit = Duration::from_millis(100);
        let task = tokio::spawn(async move {
            drop(serve(vec![listener], service, config, async { drop(stopped.await) }).await);
        });
        Self { site, address, stop: Some(stop), task }
    }

    fn url(&self) -> String {
        format!("http://{}/file.bin", self.address)
    }

    /// Ends it and gives the address, on which nobody listens any more.
    async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        self.site.gone.send_replace(true);
        timeout(DEADLINE, &mut self.task).await.expect("the server ends").unwrap();
        self.address
    }

    /// Ends it, and starts another one on its address.
    async fn replace(self, wanted: Wanted) -> Self {
        Self::start_at(self.stop().await, wanted)
    }
}

fn on_loopback() -> Config {
    let mut config = Config::default();
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    config.allow_peers = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

async fn peer(cache: &Path) -> Peer {
    Peer::open(cache, on_loopback()).await.unwrap()
}

async fn complete(download: &mut Download) {
    timeout(DEADLINE, download.wait()).await.expect("complete in time").unwrap();
}

/// Waits for an event, passing over others.
async fn event<T>(download: &mut Download, wanted: impl Fn(&DownloadEvent) -> Option<T>) -> T {
    let waiting = async {
        loop {
            let event = download.next_event().await.expect("the download goes on");
            if let Some(found) = wanted(&event) {
                break found;
            }
        }
    };
    timeout(DEADLINE, waiting).await.expect("the event comes in time")
}

#[tokio::test]
async fn from_the_server_to_a_file() {
    for (len, inline) in [(0, true), (1, true), (1_000_000, true), (1_000_000, false)] {
        let folder = TempDir::new().unwrap();
        let server = Server::start(Wanted { len, inline, ..Wanted::default() });
        let peer = peer(&folder.path().join("cache")).await;
        let mut download = peer.get(&server.url()).await.unwrap();
        complete(&mut download).await;
        let output = folder.path().join("out");
        download.export(&output, Overwrite::Refuse).await.unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), server.site.bytes);
        let progress = download.close().await;
        assert_eq!(progress.from(Source::ServerDirect).as_u64(), len as u64, "{len} bytes");
        assert_eq!(progress.held(), progress.total);
        peer.close().await;
    }
}

#[tokio::test]
async fn a_second_start_fetches_nothing_again() {
    for inline in [true, false] {
        let folder = TempDir::new().unwrap();
        let server = Server::start(Wanted { inline, ..Wanted::default() });
        for start in 0..2 {
            let peer = peer(folder.path()).await;
            let mut download = peer.get(&server.url()).await.unwrap();
            assert_eq!(download.recovery().recovered, 16 * start);
            complete(&mut download).await;
            assert!(matches!(peer.get(&server.url()).await, Err(GetError::UnderWay(_))));
            download.close().await;
            peer.close().await;
        }
        assert_eq!(server.site.parts_sent.load(Ordering::Relaxed), 16);
    }
}

#[tokio::test]
async fn another_key_is_an_error_that_says_so() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted::default());
    peer.get(&server.url()).await.unwrap().close().await;
    let server = server.replace(Wanted { key: 2, epoch: 2, ..Wanted::default() }).await;
    let Err(GetError::KeyChanged { got, kept_in, .. }) = peer.get(&server.url()).await else { panic!("taken") };
    assert_eq!(got, server_key(&server.site.key));
    // Whoever trusts the change says so by removing the file that the error names.
    std::fs::remove_file(kept_in).unwrap();
    peer.get(&server.url()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_manifest_never_goes_back() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted { epoch: 5, ..Wanted::default() });
    peer.get(&server.url()).await.unwrap().close().await;
    let server = server.replace(Wanted { epoch: 4, ..Wanted::default() }).await;
    let error = peer.get(&server.url()).await.unwrap_err();
    assert!(matches!(error, GetError::Manifest(ManifestError::Rollback { known: 5, got: 4 })), "{error:?}");
    let server = server.replace(Wanted { epoch: 6, ..Wanted::default() }).await;
    let mut download = peer.get(&server.url()).await.unwrap();
    complete(&mut download).await;
}

#[tokio::test]
async fn the_cache_does_without_the_server() {
    let folder = TempDir::new().unwrap();
    let peer = peer(&folder.path().join("cache")).await;
    let server = Server::start(Wanted { inline: false, ..Wanted::default() });
    let (url, bytes) = (server.url(), server.site.bytes.clone());
    let mut download = peer.get(&url).await.unwrap();
    complete(&mut download).await;
    download.close().await;
    server.stop().await;
    let mut download = peer.get(&url).await.unwrap();
    assert!(download.manifest_from_cache().is_some());
    complete(&mut download).await;
    let output = folder.path().join("out");
    download.export(&output, Overwrite::Refuse).await.unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
    let error = peer.get(&url.replace("file.bin", "other.bin")).await.unwrap_err();
    assert!(matches!(error, GetError::Fetch(FetchError::Connect { .. })), "{error:?}");
}

/// One bit of the manifest that is kept: it counts as none, and the server is not blamed for it.
#[tokio::test]
async fn a_flipped_bit_in_the_kept_manifest() {
    let seed: u8 = std::env::var("HYBRID_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(23);
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let peer = peer(&cache).await;
    let server = Server::start(Wanted::default());
    let url = server.url();
    let mut download = peer.get(&url).await.unwrap();
    complete(&mut download).await;
    let path = cache.join(download.manifest().content().to_string()).join("manifest");
    download.close().await;
    let sound = std::fs::read(&path).unwrap();
    let flip = |at: usize| {
        let mut damaged = sound.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        std::fs::write(&path, damaged).unwrap();
    };
    flip(sound.len() * 4);
    let mut download = peer.get(&url).await.unwrap();
    complete(&mut download).await;
    download.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), sound, "a server that is there gives it again");

    server.stop().await;
    let mut chances = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
    for round in 0..250 {
        let mut chance = [0; 4];
        chances.fill(&mut chance);
        let at = u32::from_le_bytes(chance) as usize % (sound.len() * 8);
        flip(at);
        let got = peer.get(&url).await.map(drop);
        let replay = format!("HYBRID_SEED={seed}, round {round}: bit {at}");
        assert!(matches!(got, Err(GetError::Fetch(FetchError::Connect { .. }))), "{replay}: {got:?}");
    }
    std::fs::write(&path, &sound).unwrap();
    let mut download = peer.get(&url).await.unwrap();
    complete(&mut download).await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_joined_again() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted::default());
    let mut download = peer.get(&server.url()).await.unwrap();
    event(&mut download, |event| matches!(event, DownloadEvent::Mode { .. }).then_some(())).await;
    let server = server.replace(Wanted::default()).await;
    event(&mut download, |event| matches!(event, DownloadEvent::ServerAway { .. }).then_some(())).await;
    event(&mut download, |event| matches!(event, DownloadEvent::ServerReached).then_some(())).await;
    let joined = async {
        while server.site.members.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, joined).await.expect("it is joined again");
}

/// A download that cannot become complete, and the server that replaces its server.
async fn with_another_server(folder: &Path, wanted: Wanted) -> (Peer, Download, Server) {
    let peer = peer(folder).await;
    let server = Server::start(Wanted { waits: true, ..Wanted::default() });
    let mut download = peer.get(&server.url()).await.unwrap();
    event(&mut download, |event| matches!(event, DownloadEvent::Mode { .. }).then_some(())).await;
    let server = server.replace(wanted).await;
    (peer, download, server)
}

#[tokio::test]
async fn a_server_that_forgot_the_content_is_asked_for_it() {
    let folder = TempDir::new().unwrap();
    let (_peer, mut download, _server) = with_another_server(folder.path(), Wanted::default()).await;
    let forgot = |event: &DownloadEvent| match event {
        DownloadEvent::ServerBye(bye) => Some(bye.code),
        _ => None,
    };
    assert_eq!(event(&mut download, forgot).await, ByeCode::UnknownContent);
    complete(&mut download).await;
}

#[tokio::test]
async fn a_content_that_changed_ends_the_wait() {
    let folder = TempDir::new().unwrap();
    let (_peer, mut download, server) =
        with_another_server(folder.path(), Wanted { epoch: 2, ..Wanted::default() }).await;
    let failed = event(&mut download, |event| match event {
        DownloadEvent::Failed(error) => Some(error.clone()),
        _ => None,
    });
    let failed = failed.await;
    assert_eq!(failed, DownloadError::Changed { content: server.site.manifest.manifest().content() });
    assert_eq!(download.wait().await, Err(failed));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_led_to_the_end_is_told_before_it() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(Wanted::default());
    let mut config = on_loopback();
    config.tell_parts = true;
    let peer = Peer::open(folder.path(), config).await.unwrap();
    let mut download = peer.get(&server.url()).await.unwrap();
    complete(&mut download).await;
    let told: Vec<DownloadEvent> = std::iter::from_fn(|| download.told_event()).collect();
    let parts = told.iter().filter(|event| matches!(event, DownloadEvent::Part { .. })).count();
    assert_eq!(parts, download.manifest().layout().part_count() as usize);
    assert!(matches!(told.last(), Some(DownloadEvent::Complete(_))), "{:?}", told.last());
}

#[tokio::test]
async fn a_content_that_was_removed_ends_the_wait() {
    let folder = TempDir::new().unwrap();
    let (_peer, mut download, _server) =
        with_another_server(folder.path(), Wanted { removed: true, ..Wanted::default() }).await;
    let ended = timeout(DEADLINE, download.wait()).await.expect("the wait ends");
    assert_eq!(ended, Err(DownloadError::NotFound { status: 404 }));
}

#[tokio::test]
async fn wrong_bytes_of_the_server_are_thrown_away() {
    let folder = TempDir::new().unwrap();
    let peer = peer(&folder.path().join("cache")).await;
    let server = Server::start(Wanted::default());
    server.site.spoil.store(true, Ordering::Relaxed);
    let mut download = peer.get(&server.url()).await.unwrap();
    event(&mut download, |event| matches!(event, DownloadEvent::ServerPartBad { .. }).then_some(())).await;
    complete(&mut download).await;
    let output = folder.path().join("out");
    download.export(&output, Overwrite::Refuse).await.unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), server.site.bytes);
}

#[tokio::test]
async fn a_refusal_ends_the_wait() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted { refuses: Some(ByeCode::Version), ..Wanted::default() });
    let mut download = peer.get(&server.url()).await.unwrap();
    let error = timeout(DEADLINE, download.wait()).await.expect("the wait ends").unwrap_err();
    assert!(matches!(error, DownloadError::Refused(bye) if bye.code == ByeCode::Version));
}

#[tokio::test]
async fn whoever_is_refused_comes_back_later_and_later() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted { refuses: Some(ByeCode::Busy), ..Wanted::default() });
    let mut download = peer.get(&server.url()).await.unwrap();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let pause = event(&mut download, |event| match event {
            DownloadEvent::ServerAway { retry_in, .. } => *retry_in,
            _ => None,
        });
        pauses.push(pause.await);
    }
    // About one second, two, four: the third is never as short as the first can be long.
    assert!(pauses[2] >= Duration::from_secs(2), "{pauses:?}");
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted { ahead_secs: 7_200, ..Wanted::default() });
    let mut download = peer.get(&server.url()).await.unwrap();
    let clocks = event(&mut download, |event| match event {
        DownloadEvent::ClockDiffers { ours_secs, server_secs } => Some((*ours_secs, *server_secs)),
        _ => None,
    });
    let (ours, theirs) = clocks.await;
    assert!((7_140..7_260).contains(&(theirs - ours)), "{ours} {theirs}");
}

#[tokio::test]
async fn what_is_damaged_while_it_runs_is_fetched_again() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let first = peer(&cache).await;
    let server = Server::start(Wanted { swarm: true, ..Wanted::default() });
    let mut download = first.get(&server.url()).await.unwrap();
    complete(&mut download).await;
    // A bit rots; the next peer that asks for the part must not get it, and the first one gets it anew.
    let data = cache.join(download.manifest().content().to_string()).join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[100_000] ^= 4;
    std::fs::write(&data, &bytes).unwrap();
    let second = peer(&folder.path().join("second")).await;
    let mut other = second.get(&server.url()).await.unwrap();
    complete(&mut other).await;
    let output = folder.path().join("out");
    other.export(&output, Overwrite::Refuse).await.unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), server.site.bytes);
    assert_eq!(other.progress().wasted, ByteCount::ZERO, "nobody sent a damaged part");
    let mended = async {
        while std::fs::read(&data).unwrap() != server.site.bytes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, mended).await.expect("the damaged part is fetched again");
}

#[tokio::test]
async fn from_peer_to_peer() {
    for inline in [true, false] {
        let folder = TempDir::new().unwrap();
        let server = Server::start(Wanted { swarm: true, inline, ..Wanted::default() });
        let first = peer(&folder.path().join("first")).await;
        let mut seeding = first.get(&server.url()).await.unwrap();
        complete(&mut seeding).await;
        let second = peer(&folder.path().join("second")).await;
        let mut download = second.get(&server.url()).await.unwrap();
        let joined = event(&mut download, |event| match event {
            DownloadEvent::PeerJoined { peer } => Some(*peer),
            _ => None,
        });
        assert_eq!(joined.await, first.peer_id());
        complete(&mut download).await;
        let output = folder.path().join("out");
        download.export(&output, Overwrite::Refuse).await.unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), server.site.bytes);
        let progress = download.close().await;
        assert_eq!(progress.mode_at_join, Some(Mode::PeerToPeer));
        assert!(progress.from(Source::Peer).as_u64() > 0, "{progress:?}");
        let left = event(&mut seeding, |event| match event {
            DownloadEvent::PeerLeft { peer, .. } => Some(*peer),
            _ => None,
        });
        let second_id: PeerId = second.peer_id();
        assert_eq!(left.await, second_id);
    }
}

#[tokio::test]
async fn private_addresses_are_not_dialled_unasked() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(Wanted { swarm: true, ..Wanted::default() });
    // A member that is only a socket: nothing may come there.
    let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let id = PeerId::from_bytes([3; 32]);
    server.site.members.lock().unwrap().push(PeerCoordinates { peer: id, address: trap.local_addr().unwrap() });
    let mut config = on_loopback();
    config.allow_peers.clear();
    let peer = Peer::open(folder.path(), config).await.unwrap();
    let mut download = peer.get(&server.url()).await.unwrap();
    let refused = event(&mut download, |event| match event {
        DownloadEvent::AddressRefused { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(refused.await, id);
    assert!(timeout(Duration::from_millis(300), trap.recv_from(&mut [0; 2_000])).await.is_err(), "a datagram came");
}

#[tokio::test]
async fn a_dropped_download_ends_and_can_be_taken_up() {
    let folder = TempDir::new().unwrap();
    let peer = peer(folder.path()).await;
    let server = Server::start(Wanted::default());
    let mut download = peer.get(&server.url()).await.unwrap();
    complete(&mut download).await;
    drop(download);
    let again = async {
        loop {
            match peer.get(&server.url()).await {
                Ok(download) => break download,
                Err(GetError::UnderWay(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let download = timeout(DEADLINE, again).await.expect("the first one ends");
    assert_eq!(download.recovery().recovered, 16);
}

/// Waits until the figures say why nobody is served, or that somebody is.
async fn uploads_are(download: &Download, wanted: Option<UploadsOff>) {
    let waiting = async {
        while download.progress().uploads_off != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(DEADLINE, waiting).await;
    assert!(in_time.is_ok(), "{:?}, not {wanted:?}", download.progress().uploads_off);
}

/// Another one that gets the content too, in the swarm.
async fn gets_it_too(server: &Server, folder: &Path) -> hybrid_peer::Progress {
    let peer = peer(folder).await;
    let mut download = peer.get(&server.url()).await.unwrap();
    complete(&mut download).await;
    let progress = download.close().await;
    peer.close().await;
    progress
}

#[tokio::test]
async fn no_more_goes_out_than_the_volume() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(Wanted { swarm: true, len: 400_000, ..Wanted::default() });
    let mut config = on_loopback();
    let volume = ByteCount::new(3 * 65_536 + 100);
    config.upload_volume_max = Some(volume);
    let first = Peer::open(&folder.path().join("first"), config).await.unwrap();
    let mut seeding = first.get(&server.url()).await.unwrap();
    complete(&mut seeding).await;
    uploads_are(&seeding, None).await;
    assert_eq!(seeding.progress().upload_max, Some(volume));
    let got = gets_it_too(&server, &folder.path().join("second")).await;
    assert_eq!(got.held(), got.total);
    uploads_are(&seeding, Some(UploadsOff::Volume)).await;
    let sent = seeding.close().await.sent;
    assert!(sent.as_u64() > 0 && sent <= volume, "{sent:?} of {volume:?}");
    assert!(got.from(Source::Peer) <= volume, "{got:?}");
    assert_eq!(*server.site.uploads.lock().unwrap(), [true, true, false], "two joins, and the first one's end");
}

#[tokio::test]
async fn hours_and_a_meter_keep_others_from_being_served() {
    let hour = jiff::ZonedDateTime::now().hour();
    let hours = |from: i8, to: i8| -> Hours {
        format!("{:02}:00-{:02}:00", (hour + from).rem_euclid(24), (hour + to).rem_euclid(24)).parse().unwrap()
    };
    for (hours, at_first) in [(None, None), (Some(hours(-2, 3)), None), (Some(hours(3, 5)), Some(UploadsOff::Hours))] {
        let folder = TempDir::new().unwrap();
        let server = Server::start(Wanted { swarm: true, len: 100_000, ..Wanted::default() });
        let mut config = on_loopback();
        config.upload_hours = hours;
        config.metered = true;
        let first = Peer::open(&folder.path().join("first"), config).await.unwrap();
        let mut seeding = first.get(&server.url()).await.unwrap();
        complete(&mut seeding).await;
        uploads_are(&seeding, Some(UploadsOff::Metered)).await;
        assert_eq!(server.site.uploads.lock().unwrap().first(), Some(&false), "from the first moment on");
        let got = gets_it_too(&server, &folder.path().join("second")).await;
        assert_eq!((got.held(), got.from(Source::Peer)), (got.total, ByteCount::ZERO));
        seeding.set_metered(false).await;
        uploads_are(&seeding, at_first).await;
        // On a busy machine the server may help with all of it before the two have met.
        for attempt in 0..10 {
            let got = gets_it_too(&server, &folder.path().join(format!("third{attempt}"))).await;
            if at_first.is_some() || got.from(Source::Peer) > ByteCount::ZERO {
                break;
            }
        }
        seeding.set_metered(true).await;
        uploads_are(&seeding, Some(UploadsOff::Metered)).await;
        assert_eq!(seeding.close().await.sent > ByteCount::ZERO, at_first.is_none());
    }
}

/// Which of the contents of these servers have a folder in the cache.
fn cached(cache: &Path, servers: &[&Server]) -> Vec<bool> {
    let folder = |server: &&Server| cache.join(server.site.manifest.manifest().content().to_string());
    servers.iter().map(|server| folder(server).join("data").exists()).collect()
}

async fn got(peer: &Peer, server: &Server) {
    let mut download = peer.get(&server.url()).await.unwrap();
    complete(&mut download).await;
    download.close().await;
}

#[tokio::test]
async fn the_least_recently_used_content_makes_room() {
    let folder = TempDir::new().unwrap();
    let [a, b, c] = [1, 2, 3].map(|epoch| Server::start(Wanted { epoch, ..Wanted::default() }));
    let mut config = on_loopback();
    config.cache_limit = Some("2.5MB".parse().unwrap());
    let peer = Peer::open(folder.path(), config.clone()).await.unwrap();
    got(&peer, &a).await;
    got(&peer, &b).await;
    got(&peer, &a).await;
    got(&peer, &c).await;
    assert_eq!(cached(folder.path(), &[&a, &b, &c]), [true, false, true], "two fit, and b was not used for longest");
    // What is gone is fetched again.
    got(&peer, &b).await;
    assert_eq!(b.site.parts_sent.load(Ordering::Relaxed), 32);
    assert_eq!(cached(folder.path(), &[&a, &b, &c]), [false, true, true]);
    peer.close().await;
    assert!(folder.path().join("identity.key").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("servers")).unwrap().count(), 3, "keys stay");
}

#[tokio::test]
async fn a_content_under_way_is_not_evicted() {
    let folder = TempDir::new().unwrap();
    let [a, b, c] = [1, 2, 3].map(|epoch| Server::start(Wanted { epoch, ..Wanted::default() }));
    let mut config = on_loopback();
    config.cache_limit = Some(ByteCount::ZERO);
    let peer = Peer::open(&folder.path().join("cache"), config).await.unwrap();
    let mut open = peer.get(&a.url()).await.unwrap();
    complete(&mut open).await;
    got(&peer, &b).await;
    // Longer than the whole limit, and got all the same.
    got(&peer, &c).await;
    assert_eq!(cached(&folder.path().join("cache"), &[&a, &b, &c]), [true, false, true]);
    let output = folder.path().join("out");
    open.export(&output, Overwrite::Refuse).await.unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), a.site.bytes);
    open.close().await;
    got(&peer, &b).await;
    assert_eq!(cached(&folder.path().join("cache"), &[&a, &b, &c]), [false, true, false], "closed, it goes");
}

#[tokio::test]
async fn a_manifest_never_goes_back_though_it_was_evicted() {
    let folder = TempDir::new().unwrap();
    let mut config = on_loopback();
    config.cache_limit = Some(ByteCount::ZERO);
    let peer = Peer::open(folder.path(), config).await.unwrap();
    let (server, other) = (
        Server::start(Wanted { epoch: 5, ..Wanted::default() }),
        Server::start(Wanted { epoch: 9, ..Wanted::default() }),
    );
    got(&peer, &server).await;
    got(&peer, &other).await;
    assert_eq!(cached(folder.path(), &[&server, &other]), [false, true]);
    let server = server.replace(Wanted { epoch: 4, ..Wanted::default() }).await;
    let error = peer.get(&server.url()).await.unwrap_err();
    assert!(matches!(error, GetError::Manifest(ManifestError::Rollback { known: 5, got: 4 })), "{error:?}");
    let server = server.replace(Wanted { epoch: 6, ..Wanted::default() }).await;
    got(&peer, &server).await;
}
