//! A peer: one key, one cache, one UDP socket, any number of contents.

use crate::anchors;
use crate::cache::Cache;
use crate::config::Config;
use crate::dht::Dht;
use crate::download::{Download, Standing, blocking};
use crate::driver::{Driver, DriverParts};
use crate::error::{GetError, PeerError};
use crate::origin::{self, Origin};
use crate::quota::Wanted;
use crate::store::Store;
use hybrid_manifest::{ContentId, SignedManifest};
use hybrid_peer_transport::{BindError, ConnectionId, Endpoint, Event, Events, Identity};
use hybrid_session::Anchors;
use hybrid_wire::PeerId;
use hybrid_wire::control::{Bye, ByeCode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// Events that wait for one content's driver. Its work takes microseconds, so this only evens out bursts.
const ROUTED_EVENTS_MAX: usize = 256;

/// Events that wait for the user; more are dropped, since a user that does not listen must not stop a download.
const USER_EVENTS_MAX: usize = 1_024;

/// Takes part in swarms: gets contents and serves them to others. Dropping it ends all downloads; [`Peer::close`] does so in
/// good order.
#[derive(Debug)]
pub struct Peer {
    cache: Arc<Cache>,
    config: Config,
    endpoint: Endpoint,
    dht: Option<Dht>,
    routes: Routes,
}

/// The contents that are under way.
type Routes = Arc<Mutex<BTreeMap<ContentId, Route>>>;

#[derive(Debug)]
struct Route {
    /// Its driver, which gets the events of its connections.
    events: mpsc::Sender<Event>,
    /// How long the content is.
    bytes: u64,
}

/// A content is under way, and so not evicted, for as long as this is.
#[derive(Debug)]
struct Claim {
    routes: Routes,
    content: ContentId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.routes).remove(&self.content);
    }
}

fn lock(routes: &Routes) -> MutexGuard<'_, BTreeMap<ContentId, Route>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// Opens the cache folder, making it if it is not there, and the UDP socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be used or is in use, or the address is taken.
    pub async fn open(cache: &Path, config: Config) -> Result<Self, PeerError> {
        let folder = cache.to_owned();
        let opened = blocking(move || {
            let cache = Cache::open(&folder)?;
            let identity = cache.identity()?;
            Ok::<_, PeerError>((cache, identity))
        });
        let stopping = || PeerError::Random("the program is stopping".to_owned());
        let (cache, identity) = opened.await.unwrap_or_else(|| Err(stopping()))?;
        let dht = match config.dht.clone() {
            Some(config) => Some(blocking(move || Dht::start(&config)).await.ok_or_else(stopping)??),
            None => None,
        };
        let (endpoint, events) = bind(&identity, &config)?;
        let routes = Routes::default();
        tokio::spawn(route(events, routes.clone()));
        Ok(Self { cache: Arc::new(cache), config, endpoint, dht, routes })
    }

    /// Who others see.
    pub fn peer_id(&self) -> PeerId {
        self.endpoint.peer_id()
    }

    /// The UDP address on which peers are taken.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Starts to get the content at `url`, from its server or from peers as the server decides.
    ///
    /// What the cache holds is hashed and not fetched again. With the server away, its last manifest is used, and peers that
    /// come may give what is missing. Other contents may be removed from the cache first ([`Config::cache_limit`]).
    ///
    /// # Errors
    /// When there is no manifest that can be believed, the cache fails, or the disk has no room for the content.
    pub async fn get(&self, url: &str) -> Result<Download, GetError> {
        let origin = Origin::open(url, &self.cache, &self.config).await?;
        let manifest = origin.manifest.manifest().clone();
        let wanted = Wanted { content: manifest.content(), bytes: manifest.layout().total_len() };
        let (events, routed) = mpsc::channel(ROUTED_EVENTS_MAX);
        let claim = self.claim(wanted, events);
        if matches!(claim, Err(GetError::UnderWay(_))) {
            // The content is the same, but its manifest may be a newer one.
            origin.keep(url, &self.cache, &self.config)?;
        }
        let claim = claim?;
        let (cache, config, kept_url) = (self.cache.clone(), self.config.clone(), url.to_owned());
        // The claim goes along: should nobody wait any more, the content stays claimed until its files are left alone.
        let opened = blocking(move || {
            let open = || lock(&claim.routes).iter().map(|(content, route)| (*content, route.bytes)).collect();
            cache.make_room(wanted, config.cache_limit, open)?;
            origin.keep(&kept_url, &cache, &config)?;
            let folder = cache.content_folder(wanted.content);
            let (store, recovery) = Store::open(&folder, manifest)?;
            Ok::<_, GetError>((claim, origin, anchors::path(&folder), store, recovery))
        });
        let (claim, origin, anchors_path, store, recovery) = opened.await.ok_or(GetError::Closed)??;
        let Origin { client, away, .. } = origin;
        let store = Arc::new(store);
        let anchors = if away.is_some() { kept_anchors(anchors_path.clone()).await } else { None };
        // A user who wants to hear of each part should miss none.
        let parts = if self.config.tell_parts { store.manifest().layout().part_count() as usize } else { 0 };
        let (user, events) = mpsc::channel(USER_EVENTS_MAX + parts);
        let (standing, standing_receiver) = watch::channel(Standing::UnderWay);
        let (progress, progress_receiver) = watch::channel(Default::default());
        let (commands, command_receiver) = mpsc::channel(8);
        let parts = DriverParts {
            config: self.config.clone(),
            url: url.to_owned(),
            client,
            endpoint: self.endpoint.clone(),
            dht: self.dht.clone(),
            store: store.clone(),
            anchors: (anchors_path, anchors),
            routed,
            commands: command_receiver,
            user,
            standing,
            progress,
        };
        let driver = Driver::new(parts);
        let task = tokio::spawn(async move {
            driver.run().await;
            drop(claim);
        });
        Ok(Download {
            store,
            recovery,
            from_cache: away.map(|error| error.to_string()),
            events,
            standing: standing_receiver,
            progress: progress_receiver,
            commands,
            task,
        })
    }

    /// The manifest of the content at `url`, signed as it came and checked; keeps nothing.
    ///
    /// # Errors
    /// When there is no manifest that can be believed.
    pub async fn inspect(&self, url: &str) -> Result<SignedManifest, GetError> {
        origin::inspect(url, Some(&self.cache), &self.config).await
    }

    /// Ends the connections to all peers, telling them. Close downloads first, so that their caches are on the disk.
    pub async fn close(self) {
        self.endpoint.close(&Bye { code: ByeCode::Shutdown, reason: String::new() }).await;
    }

    fn claim(&self, wanted: Wanted, events: mpsc::Sender<Event>) -> Result<Claim, GetError> {
        let mut routes = lock(&self.routes);
        if routes.contains_key(&wanted.content) {
            return Err(GetError::UnderWay(wanted.content));
        }
        routes.insert(wanted.content, Route { events, bytes: wanted.bytes });
        Ok(Claim { routes: self.routes.clone(), content: wanted.content })
    }
}

/// Fetches the manifest of the content at `url` and checks it, without a cache: the server's key is taken as it comes.
///
/// # Errors
/// When there is no manifest that can be believed.
pub async fn inspect(url: &str, config: &Config) -> Result<SignedManifest, GetError> {
    origin::inspect(url, None, config).await
}

/// All addresses of the machine, or IPv4 alone where there is no IPv6.
fn bind(identity: &Identity, config: &Config) -> Result<(Endpoint, Events), BindError> {
    let mut limits = hybrid_peer_transport::Config::default();
    limits.admitted.clone_from(&config.allow_peers);
    let any = |address: &str| address.parse().expect("an address of ours");
    match config.listen {
        Some(address) => Endpoint::bind(address, identity, limits),
        None => Endpoint::bind(any("[::]:0"), identity, limits.clone())
            .or_else(|_| Endpoint::bind(any("0.0.0.0:0"), identity, limits)),
    }
}

/// Peers of the last run, which may go on where the server does not.
async fn kept_anchors(path: PathBuf) -> Option<Anchors> {
    match blocking(move || anchors::read(&path)).await? {
        Ok(anchors) => anchors,
        Err(error) => {
            debug!(%error, "the last run's peers cannot be read");
            None
        }
    }
}

/// Hands each connection's events to the driver of the content that its `Hello` named.
async fn route(mut events: Events, routes: Routes) {
    let mut connections: BTreeMap<ConnectionId, mpsc::Sender<Event>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let id = match &event {
            Event::Connected { connection, hello, .. } => {
                let route = lock(&routes).get(&hello.content).map(|route| route.events.clone());
                match route {
                    Some(route) => drop(connections.insert(connection.id(), route)),
                    None => {
                        debug!(peer = %connection.peer(), "a peer wants a content that is not here");
                        connection.close(&Bye { code: ByeCode::UnknownContent, reason: String::new() });
                    }
                }
                connection.id()
            }
            Event::Message { connection, .. }
            | Event::PartRequested { connection, .. }
            | Event::RequestCancelled { connection, .. }
            | Event::PartPushed { connection, .. }
            | Event::Closed { connection, .. } => *connection,
        };
        let closed = matches!(event, Event::Closed { .. });
        if let Some(route) = connections.get(&id) {
            // Fails when the driver has ended; it closed its connections then.
            drop(route.send(event).await);
        }
        if closed {
            connections.remove(&id);
        }
    }
}
