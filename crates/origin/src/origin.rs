//! The origin itself: answers what the HTTP service asks, and runs the tasks behind it.

use crate::cache::{Form, PartCache};
use crate::catalogue::{Catalogue, Content};
use crate::config::FILE;
use crate::driver::{Driver, Push};
use crate::folder::{Folder, FolderError};
use crate::load::{Clock, Egress, Sampler};
use crate::state::{Identity, StateError};
use crate::{ClientStatus, Config, ContentStats, ContentStatus, Recorded, ServeSummary, ServerConfig, Service};
use bytes::Bytes;
use hybrid_coordinator::{ClientId, Coordinator, Input, Survival, TicketIssuer};
use hybrid_manifest::{ContentId, HashProof, PartNumber, PartRange, ServerKey};
use hybrid_qos::{Class, Classes};
use hybrid_server_transport::{
    ChannelError, ContentInfo, ContentPath, ControlSocket, Document, ManifestForm, PartBytes, PartHead, PartVerdict,
    Sealer, Site, SiteError, serve,
};
use hybrid_units::{BytesPerSecond, Duration, Instant, TokenBucket, UnixTime};
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, PartPush, ServerMessage};
use hybrid_wire::{PeerId, SessionToken};
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How often the server's own load is told to the coordinator.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Reports that a client may send: each is worked on under the lock that all clients share.
/// A client of ours reports every 50 ms at most, whatever it was told to do, and every 250 ms in a young swarm.
const REPORTS_PER_SECOND: u64 = 20;
/// Reports that may come at once: ten seconds' worth in a young swarm, which a stalled connection lets go together.
const REPORTS_AT_ONCE: u64 = 40;

/// A content server over a folder. Clones are the same server; its tasks end with the last of them.
#[derive(Clone)]
pub struct Origin {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    driver: Arc<Driver>,
    server_key: ServerKey,
    join_limit: Duration,
    /// The civil time at the clock's zero.
    opened: SystemTime,
    tasks: Vec<AbortHandle>,
}

/// Contents and the way out for their bytes.
struct Store {
    catalogue: Arc<Catalogue>,
    cache: PartCache,
    sealer: Sealer,
    loads: Semaphore,
    egress: Egress,
}

/// Parts read from the disk at one time: more than a disk works on at once only hold memory.
const LOADS_MAX: usize = 32;

/// Why there is no origin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder cannot be served.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The thresholds contradict themselves.
    #[error("thresholds: {0}")]
    Thresholds(#[from] hybrid_qos::ConfigError),
    /// The classes of contents contradict themselves.
    #[error(transparent)]
    Classes(#[from] hybrid_qos::ClassError),
    /// There is no randomness for the coordinator's choices.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system's clock is before 1970.
    #[error("this computer's clock is before 1970")]
    Clock,
}

impl Origin {
    /// Serves the files beneath `root`, of which hidden ones and links that lead outside are not served.
    ///
    /// Starts tasks on the current tokio runtime, so it must be called within one.
    ///
    /// # Errors
    /// When the folder cannot be read or the thresholds contradict themselves.
    pub fn open(root: &Path, identity: Identity, config: Config) -> Result<Self, OpenError> {
        let folder = Folder::open(root)?;
        let (clock, opened) = (Clock::start(), SystemTime::now());
        let mut settings = config.coordinator.clone();
        let control_secret = random()?;
        let mut file = Class::new(FILE);
        file.thresholds = settings.qos.clone();
        let all = std::iter::once(file).chain(config.classes.iter().map(|class| class.class.clone()));
        let all = all.map(|mut class| {
            class.thresholds.egress_limit = config.egress_limit;
            class.thresholds.control_secret = control_secret;
            class
        });
        let classes = Classes::new(all.collect(), config.rules.clone(), FILE)?;
        let policy = |name: &str| config.classes.iter().find(|class| class.class.name == name)?.egress_policy;
        for class in classes.iter() {
            let qos = class.thresholds.clone();
            if class.name == FILE {
                settings.qos = qos;
            } else {
                let egress_policy = policy(&class.name).unwrap_or(settings.egress_policy);
                settings.classes.push(hybrid_coordinator::ClassConfig { name: class.name.clone(), qos, egress_policy });
            }
        }
        settings.seed = match config.seed {
            Some(seed) => seed,
            None => random().map(u64::from_le_bytes)?,
        };
        let unix_now = SystemTime::UNIX_EPOCH.elapsed().map_err(|_| OpenError::Clock)?;
        let server_key = identity.server_key();
        let issuer = TicketIssuer { key: identity.key.clone(), network_secret: identity.network_secret };
        let unix_now = UnixTime::from_secs(unix_now.as_secs());
        let coordinator = Coordinator::new(settings, issuer, clock.now(), unix_now)?;
        let (driver, pushes) = Driver::new(clock, coordinator);
        let driver = Arc::new(driver);
        let catalogue = Arc::new(Catalogue::new(folder, identity.key, classes, &config, Arc::clone(&driver)));
        let cache = PartCache::new(usize::try_from(config.cache.as_u64()).unwrap_or(usize::MAX));
        let egress = Egress::new(clock, config.egress_limit);
        let loads = Semaphore::new(LOADS_MAX);
        let store =
            Arc::new(Store { catalogue: Arc::clone(&catalogue), cache, sealer: Sealer::default(), loads, egress });
        let mut tasks = vec![
            tokio::spawn(Arc::clone(&driver).keep_time()).abort_handle(),
            tokio::spawn(push_parts(Arc::clone(&store), Arc::clone(&driver), pushes)).abort_handle(),
            tokio::spawn(sample_load(Arc::clone(&store), Arc::clone(&driver))).abort_handle(),
        ];
        if config.prepare_at_start {
            tasks.push(tokio::spawn(catalogue.prepare_all()).abort_handle());
        }
        Ok(Self { inner: Arc::new(Inner { store, driver, server_key, join_limit: config.join_limit, opened, tasks }) })
    }

    /// The HTTP service, for the root of a host.
    pub fn service(&self) -> Service<Self> {
        Service::new(Arc::new(self.clone()))
    }

    /// The HTTP service, for a host that mounts it at `base_path`, such as `/media`, and strips that from requests.
    pub fn service_at(&self, base_path: &str) -> Service<Self> {
        Service::mounted(Arc::new(self.clone()), base_path, hybrid_server_transport::ServiceLimits::default())
    }

    /// Serves on these listeners until `shutdown` completes; then says good-bye to all clients and waits for the answers
    /// under way.
    ///
    /// # Errors
    /// When the listeners or the TLS identity cannot be used.
    pub async fn serve(
        &self,
        listeners: Vec<std::net::TcpListener>,
        config: ServerConfig,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<ServeSummary> {
        let end = async {
            shutdown.await;
            self.close();
        };
        serve(listeners, self.service(), config, end).await
    }

    /// Says good-bye to all clients on control channels, and to those that come. Plain HTTP goes on.
    pub fn close(&self) {
        self.inner.driver.close();
    }

    /// The public key with which manifests and tickets are signed.
    pub fn server_key(&self) -> ServerKey {
        self.inner.server_key
    }

    /// Prepares the content at a path, if it is not, and tells its id.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be prepared in time.
    pub async fn prepare(&self, path: &ContentPath) -> Result<ContentId, SiteError> {
        self.content(path).await.map(|content| content.id())
    }

    /// What a content's swarm looks like; `None` for a content that is not prepared.
    pub fn stats(&self, content: ContentId) -> Option<ContentStats> {
        self.inner.driver.stats(content)
    }

    /// All that is known of a content's swarm and why; `None` for a content that is not prepared.
    pub fn status(&self, content: ContentId) -> Option<ContentStatus> {
        self.inner.driver.status(content)
    }

    /// How each content that has clients would fare if the server stopped now.
    pub fn survivals(&self) -> Vec<(ContentId, Survival)> {
        self.inner.driver.survivals()
    }

    /// What happened to some clients lately, and their state at each content that they are there for now.
    pub fn clients(&self, wanted: impl Fn(PeerId) -> bool) -> (Vec<Recorded>, Vec<ClientStatus>) {
        self.inner.driver.clients(wanted)
    }

    /// The contents that are prepared, by their paths.
    pub fn contents(&self) -> Vec<(ContentPath, ContentId)> {
        self.inner.store.catalogue.contents()
    }

    /// The civil time of an event.
    pub fn civil_time(&self, at: Instant) -> SystemTime {
        self.inner.opened + at.since(Instant::ZERO)
    }

    /// Bytes of contents, manifests and hashes sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.inner.store.egress.sent_bytes()
    }

    async fn content(&self, path: &ContentPath) -> Result<Arc<Content>, SiteError> {
        self.inner.store.catalogue.resolve(path).await
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("server_key", &self.inner.server_key).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Store {
    /// The bytes of a part, verified, from memory or from the disk.
    async fn part(&self, id: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        match self.part_in(id, number, Form::Memory).await? {
            PartBytes::Memory(bytes) => Ok(bytes),
            PartBytes::Sealed(sealed) => sealed.to_bytes().map_err(|_| SiteError::Failed),
        }
    }

    async fn part_in(&self, id: ContentId, number: PartNumber, form: Form) -> Result<PartBytes, SiteError> {
        // What is no longer served is not served from memory either.
        self.catalogue.content(id)?;
        let load = async {
            let permit = self.loads.acquire().await;
            let loaded = self.catalogue.load(id, number).await;
            drop(permit);
            let bytes = loaded?;
            let sealed = if form == Form::ToSend { self.sealer.seal(&bytes) } else { None };
            Ok(sealed.map_or(PartBytes::Memory(bytes), PartBytes::Sealed))
        };
        let part = self.cache.part(id, number, form, load).await;
        if matches!(part, Err(SiteError::Changed)) {
            self.cache.forget(id);
        }
        part
    }
}

/// Sends the parts that the coordinator gives unasked, each in a task of its own, since each waits for its reader.
async fn push_parts(store: Arc<Store>, driver: Arc<Driver>, mut pushes: mpsc::UnboundedReceiver<Push>) {
    while let Some(push) = pushes.recv().await {
        let (store, driver) = (Arc::clone(&store), Arc::clone(&driver));
        tokio::spawn(async move {
            let sent = push_part(&store, &push).await;
            driver.input(Input::PushDone { client: push.client, number: push.number, sent });
        });
    }
}

async fn push_part(store: &Store, push: &Push) -> bool {
    let Ok(bytes) = store.part(push.content, push.number).await else { return false };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    store.egress.pace(length).await;
    let message = ServerMessage::PartPush(PartPush { number: push.number.as_u32(), bytes });
    let Ok(written) = push.sender.send(&message) else { return false };
    drop(message);
    store.egress.sent(length);
    written.await
}

async fn sample_load(store: Arc<Store>, driver: Arc<Driver>) {
    let mut sampler = Sampler::start(&store.egress);
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Some(delay) = store.egress.take_delay() {
            driver.input(Input::QueueDelay(delay));
        }
        driver.input(Input::Sample(sampler.sample(&store.egress)));
    }
}

impl Site for Origin {
    async fn resolve(&self, path: &ContentPath) -> Result<ContentInfo, SiteError> {
        let content = self.content(path).await?;
        Ok(ContentInfo {
            content: content.id(),
            length_bytes: content.stamp().length_bytes,
            media_type: content.media_type().to_owned(),
            modified: content.stamp().modified,
        })
    }

    async fn read(&self, id: ContentId, offset: u64, length_bytes: usize) -> Result<Bytes, SiteError> {
        // Only whole parts are read from the disk: small ranges cost no more than the parts that they lie in, and no byte
        // goes out that was not verified.
        let place = {
            let content = self.inner.store.catalogue.content(id)?;
            content.ids().layout().part_at(offset).ok_or(SiteError::Changed)?
        };
        let part = self.inner.store.part(id, place.number()).await?;
        let start = usize::try_from(offset.saturating_sub(place.offset())).unwrap_or(usize::MAX).min(part.len());
        let end = start.saturating_add(length_bytes).min(part.len());
        Ok(part.slice(start..end))
    }

    async fn manifest(&self, path: &ContentPath, form: ManifestForm) -> Result<Document, SiteError> {
        let content = self.content(path).await?;
        let binary = content.signed().encode();
        // The signature is over all that the manifest says, so its last bytes tell one manifest from another.
        let signature = binary.iter().rev().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(match form {
            ManifestForm::Binary => Document { bytes: binary, tag: signature },
            ManifestForm::Json => {
                Document { bytes: content.signed().manifest().to_json().into(), tag: format!("{signature}-json") }
            }
        })
    }

    fn part_head(&self, id: ContentId, number: PartNumber) -> Result<PartHead, SiteError> {
        let content = self.inner.store.catalogue.content(id)?;
        let no_such_part = SiteError::NoSuchPart { part_count: content.part_count() };
        let expected = content.ids().expect(number).ok_or(no_such_part)?;
        Ok(PartHead { id: expected.id(), length_bytes: expected.place().len() })
    }

    fn authorize_part(&self, session: Option<SessionToken>, content: ContentId, number: PartNumber) -> PartVerdict {
        match self.inner.driver.authorize_part(session, content, number) {
            hybrid_coordinator::PartVerdict::Serve(_) => PartVerdict::Serve,
            hybrid_coordinator::PartVerdict::Wait { retry_after, code, reason } => {
                PartVerdict::Wait { retry_after, code, reason }
            }
            hybrid_coordinator::PartVerdict::UnknownSession => PartVerdict::UnknownSession,
        }
    }

    async fn part(&self, content: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        self.inner.store.part(content, number).await
    }

    async fn part_to_send(&self, content: ContentId, number: PartNumber) -> Result<PartBytes, SiteError> {
        self.inner.store.part_in(content, number, Form::ToSend).await
    }

    fn hashes(&self, id: ContentId, parts: PartRange) -> Result<Bytes, SiteError> {
        let content = self.inner.store.catalogue.content(id)?;
        if parts.end().as_u32() > content.part_count() {
            return Err(SiteError::NoSuchPart { part_count: content.part_count() });
        }
        let proofs = content.ids().prove_all(parts).ok_or(SiteError::Failed)?;
        let mut bytes = Vec::with_capacity(proofs.iter().map(HashProof::encoded_len).sum());
        proofs.iter().for_each(|proof| proof.encode_into(&mut bytes));
        Ok(bytes.into())
    }

    async fn control(&self, mut socket: ControlSocket) {
        let driver = &self.inner.driver;
        let Some(client) = driver.register(socket.sender()) else { return };
        let registered = Registered { driver, client };
        if let Err(bye) = self.converse(client, &mut socket).await {
            socket.sender().close(bye);
        }
        drop(registered);
    }

    async fn pace(&self, bytes: u64) {
        self.inner.store.egress.pace(bytes).await;
    }

    fn sent(&self, bytes: u64) {
        self.inner.store.egress.sent(bytes);
    }

    fn part_served(&self, content: ContentId, took: Duration) {
        self.inner.driver.part_served(content, took);
    }
}

/// A control channel that the coordinator knows of; it is told the end however it comes.
struct Registered<'a> {
    driver: &'a Driver,
    client: ClientId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.driver.left(self.client);
    }
}

impl Origin {
    /// Takes what a client says, until the channel ends; an error is what to say in parting.
    async fn converse(&self, client: ClientId, socket: &mut ControlSocket) -> Result<(), Bye> {
        let driver = &self.inner.driver;
        let first = timeout(self.inner.join_limit, socket.recv()).await;
        let first = first.map_err(|_| Bye { code: ByeCode::Protocol, reason: "no join came in time".to_owned() })?;
        let Some(ClientMessage::Join(join)) = first.transpose().map_err(farewell)? else {
            return Err(Bye { code: ByeCode::Protocol, reason: "the first message is not a join".to_owned() });
        };
        if self.inner.store.catalogue.may_come(join.content) {
            return Err(Bye { code: ByeCode::Busy, reason: "the contents are still being prepared".to_owned() });
        }
        let session = random().map(SessionToken::from_bytes);
        let session =
            session.map_err(|_| Bye { code: ByeCode::Busy, reason: "the server has no randomness".to_owned() })?;
        driver.input(Input::Join { client, observed: socket.client().ip(), session, join });
        let (clock, mut reports) = (Clock::start(), report_bucket());
        while let Some(message) = socket.recv().await.transpose().map_err(farewell)? {
            match message {
                ClientMessage::Report(_) | ClientMessage::Vouch(_) | ClientMessage::Uploads(_)
                    if !reports.take(clock.now(), 1) =>
                {
                    return Err(Bye { code: ByeCode::TooFast, reason: "too many reports".to_owned() });
                }
                ClientMessage::Report(report) => driver.input(Input::Report { client, report }),
                ClientMessage::Vouch(vouch) => driver.input(Input::Vouch { client, vouch }),
                ClientMessage::Uploads(uploads) => driver.input(Input::Uploads { client, uploads }),
                ClientMessage::Bye(_) => return Ok(()),
                ClientMessage::Join(_) => {
                    return Err(Bye { code: ByeCode::Protocol, reason: "a second join".to_owned() });
                }
            }
        }
        Ok(())
    }
}

/// Counts a report as a byte.
fn report_bucket() -> TokenBucket {
    TokenBucket::new(BytesPerSecond::new(REPORTS_PER_SECOND), REPORTS_AT_ONCE)
}

fn farewell(error: ChannelError) -> Bye {
    let code = match &error {
        ChannelError::Message(error) => error.bye_code(),
        _ => ByeCode::Protocol,
    };
    Bye { code, reason: error.to_string() }
}

fn random<const N: usize>() -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| StateError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_server_transport::client::{ClientConfig, ServerClient, TlsTrust};
    use hybrid_wire::control::{Join, Want};
    use hybrid_wire::{PROTOCOL_VERSION, PartRanges, UploadContract};

    fn join(content: ContentId) -> ClientMessage {
        ClientMessage::Join(Join {
            version: PROTOCOL_VERSION,
            program: "test".to_owned(),
            content,
            peer: PeerId::from_bytes([1; 32]),
            quic_port: None,
            has: PartRanges::empty(),
            want: Want::Whole,
            contract: UploadContract::default(),
        })
    }

    async fn answer(client: &ServerClient, content: ContentId) -> ServerMessage {
        let mut control = client.control().await.unwrap();
        assert!(control.send(&join(content)).unwrap().await);
        timeout(Duration::from_secs(20), control.recv()).await.unwrap().unwrap().unwrap()
    }

    // One thread: nothing is prepared before the preparations are held.
    #[tokio::test]
    async fn while_files_are_prepared_no_content_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, b"some bytes").unwrap();
        let id = prepare_id(&file);
        let origin = Origin::open(folder.path(), Identity::ephemeral().unwrap(), Config::default()).unwrap();
        let catalogue = Arc::clone(&origin.inner.store.catalogue);
        let held = catalogue.hold();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = origin.clone();
        tokio::spawn(
            async move { serving.serve(vec![listener], ServerConfig::default(), std::future::pending()).await },
        );
        let client = ServerClient::new(url, &TlsTrust::Platform, ClientConfig::default()).unwrap();
        for content in [id, ContentId::from_bytes([1; 32])] {
            let busy = answer(&client, content).await;
            assert!(matches!(&busy, ServerMessage::Bye(bye) if bye.code == ByeCode::Busy), "{busy:?}");
        }
        drop(held);
        assert_eq!(origin.prepare(&ContentPath::from_url("a").unwrap()).await.unwrap(), id);
        let welcome = answer(&client, id).await;
        assert!(matches!(welcome, ServerMessage::Welcome(_)), "{welcome:?}");
        // Touched, and held up again: the content is there all the time.
        let held = catalogue.hold();
        let open = std::fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let path = ContentPath::from_url("a").unwrap();
        let again = tokio::spawn({
            let origin = origin.clone();
            async move { origin.prepare(&path).await }
        });
        let part = client.part(id, PartNumber::new(0), 10, None).await.unwrap();
        assert_eq!(part, b"some bytes"[..]);
        assert!(origin.stats(id).is_some());
        drop(held);
        assert_eq!(again.await.unwrap().unwrap(), id);
    }

    /// The first report that is too many, when one comes every so often after so many at once.
    fn first_refused(at_once: u64, interval: Duration) -> Option<u64> {
        let (mut reports, mut now) = (report_bucket(), Instant::ZERO);
        (0..10_000).find(|number| {
            if *number >= at_once {
                now += interval;
            }
            !reports.take(now, 1)
        })
    }

    #[test]
    fn reports_are_limited_and_a_usual_rhythm_is_not() {
        let ms = Duration::from_millis;
        for (at_once, interval, refused) in [
            (1, ms(250), None),
            (1, ms(50), None),
            // After a stall, and every part that is bad hurries one.
            (40, ms(250), None),
            (20, ms(100), None),
            (10_000, ms(0), Some(40)),
            (40, ms(49), Some(40)),
            // Two thirds of a report are earned for each: the 39 that are saved last for 39 / (1 - 0.66) more.
            (1, ms(33), Some(115)),
        ] {
            assert_eq!(first_refused(at_once, interval), refused, "{at_once} at once, then every {interval:?}");
        }
    }

    fn prepare_id(file: &Path) -> ContentId {
        let prepared = crate::prepare_file(&std::fs::File::open(file).unwrap(), Class::new(FILE).parts).unwrap();
        ContentId::from_bytes(*prepared.segment_hashes()[0].as_bytes())
    }
}
