//! The loop around one session: carries out what it decides and tells it what happened.
//!
//! No decision is made here.
//! Everything that takes time runs in a task of its own and comes back as an input; hashing and the disk run on threads that
//! may block.
//! The session bounds how many tasks there are: parts in flight, uploads, dials.

use crate::anchors;
use crate::config::Config;
use crate::dht::Dht;
use crate::download::{DownloadEvent, Standing, blocking};
use crate::error::DownloadError;
use crate::hours;
use crate::origin::{self, ControlEvent};
use crate::pause::Pauses;
use crate::store::{Store, SyncError, WriteError, is_full};
use bytes::Bytes;
use hybrid_manifest::{ExpectedPart, PartNumber, VerifiedPart};
use hybrid_peer_transport::{
    Connection, Endpoint, Event as PeerEvent, PartAnswer, PushedPart, RequestError, Responder,
};
use hybrid_server_transport::Written;
use hybrid_server_transport::client::{ClientControlSender, FetchError, ServerClient};
use hybrid_session::{
    Anchors, ConnectionId, Event, Input, Output, PartFailure, PartSource, Progress, Rejoin, Session, UploadPause,
};
use hybrid_units::{ByteCount, BytesPerSecond};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{Bye, ByeCode, ClientMessage};
use hybrid_wire::peer::{PartReply, PeerMessage};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

/// How often progress is told and the cache brought to the disk, at most so much is fetched again after a power cut.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// Syncs happen every fourth time, so once a second, or earlier after so many parts.
const SYNC_EVERY: u32 = 4;
const SYNC_PARTS: usize = 64;
/// Parts up to this length are verified on the network's thread: at a gigabyte a second and more that takes a quarter of a
/// millisecond at most, and another thread would cost a wake-up and find the bytes in no cache. Longer ones would hold up
/// what comes.
const INLINE_VERIFY_BYTES_MAX: usize = 256 << 10;
/// The hours are looked at no later than this: a computer that slept, or was taken to another time zone, is found out then.
const HOURS_LOOK: Duration = Duration::from_secs(300);
/// How long the last words to the server may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The session's timers are looked at no later than this, so that a far future needs no arithmetic.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// What a download may be told.
#[derive(Debug)]
pub(crate) enum Command {
    Seek(PartNumber),
    Playing { buffer: Duration, ran_dry: bool },
    Metered(bool),
    Stop,
}

/// What a driver works with.
pub(crate) struct DriverParts {
    pub(crate) config: Config,
    pub(crate) url: String,
    pub(crate) client: ServerClient,
    pub(crate) endpoint: Endpoint,
    pub(crate) dht: Option<Dht>,
    pub(crate) store: Arc<Store>,
    /// Where the session's anchors are kept, and those of the last run if the server could not be reached.
    pub(crate) anchors: (PathBuf, Option<Anchors>),
    pub(crate) routed: mpsc::Receiver<PeerEvent>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) user: mpsc::Sender<DownloadEvent>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) progress: watch::Sender<Progress>,
}

/// A task that can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Fetch(PartNumber),
    Request(ConnectionId, PartNumber),
}

/// What came of a task.
#[derive(Debug)]
enum Done {
    /// To tell the session.
    Inputs(Vec<Input>),
    /// To tell the session, unless the task with this key and number was cancelled.
    Keyed(Key, u64, Input),
    /// The disk did not take a part.
    StoreFailed(PartNumber, WriteError),
    /// The cache is on the disk, or why not.
    Synced(Result<(), SyncError>),
    /// Whether the disk has room again.
    Reserved(io::Result<()>),
    /// Whether the content is still the one at its URL.
    AskedAgain(Result<(), DownloadError>),
}

pub(crate) struct Driver {
    parts: DriverParts,
    session: Session,
    began: Instant,
    wake: Instant,
    metered: bool,
    pause: Option<UploadPause>,
    /// When the hours are looked at again.
    hours_at: Instant,
    control: Option<ClientControlSender>,
    control_events: mpsc::Receiver<ControlEvent>,
    last_words: Option<Written>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Packets sent and lost on each connection, as far as the session was told.
    told_packets: BTreeMap<ConnectionId, (u64, u64)>,
    responders: BTreeMap<(ConnectionId, PartNumber), Responder>,
    /// Pushed parts of which the session has not said yet whether it takes them.
    offered: BTreeMap<(ConnectionId, PartNumber), PushedPart>,
    tasks: JoinSet<Done>,
    /// What tasks tell the session before they end: no more than one thing for each request that is out.
    inputs: (mpsc::UnboundedSender<Input>, mpsc::UnboundedReceiver<Input>),
    running: BTreeMap<Key, (u64, AbortHandle)>,
    started: u64,
    syncing: bool,
    asking_again: bool,
    kept_anchors: Option<Anchors>,
    /// The disk is full, and looked at again then; `None` while it is being looked at.
    paused: Option<Option<Instant>>,
    pauses: Pauses,
    told: Progress,
    tell_complete: bool,
}

impl Driver {
    pub(crate) fn new(parts: DriverParts) -> Self {
        let began = Instant::now();
        let config = session_config(&parts);
        // Other chance than the session's, or when it comes back would tell what it asks for.
        let seed = !config.seed;
        let session = Session::new(
            config,
            hybrid_units::Instant::ZERO,
            origin::unix_now(),
            parts.store.manifest().clone(),
            parts.endpoint.peer_id(),
            parts.store.held(),
        );
        let (control, control_events) = mpsc::channel(64);
        tokio::spawn(origin::keep_control_open(parts.client.clone(), Rejoin::new(seed), control));
        Self {
            told: session.progress(),
            metered: parts.config.metered,
            pause: None,
            hours_at: began,
            parts,
            session,
            began,
            wake: began,
            control: None,
            control_events,
            last_words: None,
            connections: BTreeMap::new(),
            told_packets: BTreeMap::new(),
            responders: BTreeMap::new(),
            offered: BTreeMap::new(),
            tasks: JoinSet::new(),
            inputs: mpsc::unbounded_channel(),
            running: BTreeMap::new(),
            started: 0,
            syncing: false,
            asking_again: false,
            kept_anchors: None,
            paused: None,
            pauses: Pauses::default(),
            tell_complete: false,
        }
    }

    /// Runs until it is told to stop, or nobody can tell it any more.
    pub(crate) async fn run(mut self) {
        self.mind_pause();
        self.parts.progress.send_replace(self.session.progress());
        for proofs in self.parts.store.known_proofs() {
            self.feed(Input::HashesReceived { proofs });
        }
        if let Some(anchors) = self.parts.anchors.1.take() {
            self.feed(Input::Resume(anchors));
        }
        self.drain();
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            tokio::select! {
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.on_done(done),
                    Err(failed) if failed.is_panic() => error!(%failed, "a task panicked"),
                    Err(_) => {}
                },
                Some(input) = self.inputs.1.recv() => self.feed(input),
                Some(event) = self.parts.routed.recv() => self.on_peer_event(event),
                Some(event) = self.control_events.recv() => self.on_control_event(event),
                command = self.parts.commands.recv() => match command {
                    Some(Command::Seek(number)) => self.feed(Input::Seek { number }),
                    Some(Command::Playing { buffer, ran_dry }) => self.feed(Input::Playing { buffer, ran_dry }),
                    Some(Command::Metered(metered)) => {
                        self.metered = metered;
                        self.mind_pause();
                    }
                    Some(Command::Stop) | None => break,
                },
                () = sleep_until(self.wake) => self.feed(Input::Timeout),
                () = sleep_until(self.hours_at), if self.parts.config.upload_hours.is_some() => self.mind_pause(),
                _ = housekeeping.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.keep_house(ticks.is_multiple_of(SYNC_EVERY));
                }
            }
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        self.feed(Input::Stop);
        let progress = self.session.progress();
        self.control_events.close();
        if let Some(written) = self.last_words.take() {
            drop(timeout(FAREWELL, written).await);
        }
        self.tasks.shutdown().await;
        let store = self.parts.store.clone();
        let synced = blocking(move || {
            // It served others until now.
            store.touch();
            store.sync()
        });
        if let Some(Err(failed)) = synced.await {
            warn!(%failed, "the cache may miss the last parts")
        }
        self.parts.progress.send_replace(progress);
        let missing = self.parts.store.missing();
        self.parts.standing.send_if_modified(|standing| {
            let ended_early = *standing == Standing::UnderWay && !missing.is_empty();
            if ended_early {
                *standing = Standing::Failed(DownloadError::Stopped { missing });
            }
            ended_early
        });
    }

    // ---- The session.

    /// One step of the contract: an input, then all outputs.
    fn feed(&mut self, input: Input) {
        let now = hybrid_units::Instant::ZERO + self.began.elapsed();
        self.session.handle_input(now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.session.poll_output() {
                Output::Timeout(at) => {
                    let until = Duration::from_micros(at.as_micros()).saturating_sub(self.began.elapsed());
                    self.wake = Instant::now() + until.min(SLEEP_MAX);
                    return;
                }
                output => self.carry_out(output),
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::SendControl(message) => self.send_control(&message),
            Output::FetchPart { number, length_bytes, session } => {
                let (client, content) = (self.parts.client.clone(), self.parts.store.manifest().content());
                self.spawn_keyed(Key::Fetch(number), async move {
                    let fetched = client.part(content, number, length_bytes, Some(session)).await;
                    from_server(number, fetched)
                });
            }
            Output::CancelFetch { number } => self.cancel(Key::Fetch(number)),
            Output::FetchHashes { range } => self.fetch_hashes(range),
            Output::Verify { source, expected, bytes } => {
                self.spawn(async move { verify(source, expected, bytes).await });
            }
            Output::Store { part } => {
                let store = self.parts.store.clone();
                self.spawn(async move { keep(store, part).await });
            }
            Output::Dial { peer, hello } => {
                let endpoint = self.parts.endpoint.clone();
                self.spawn(async move {
                    match endpoint.dial(&peer, hello).await {
                        // The endpoint tells of the connection by itself.
                        Ok(_) => Done::Inputs(Vec::new()),
                        Err(error) => {
                            debug!(peer = %peer.peer, %error, "a peer could not be reached");
                            let answered = error.peer_answered();
                            Done::Inputs(vec![Input::DialFailed { peer: peer.peer, answered }])
                        }
                    }
                });
            }
            Output::LookUp => self.look_up(),
            Output::Announce => self.announce(),
            Output::Identify { address } => {
                let endpoint = self.parts.endpoint.clone();
                self.spawn(async move {
                    let found = endpoint.identify(address).await;
                    let peer = found.inspect_err(|error| debug!(%address, %error, "nobody showed a key")).ok();
                    Done::Inputs(vec![Input::Identified { address, peer }])
                });
            }
            Output::AcceptPeer { connection, hello } => self.send_peer(connection, &PeerMessage::Hello(hello)),
            Output::SendPeer { connection, message } => self.send_peer(connection, &message),
            Output::ClosePeer { connection, bye } => {
                if let Some(handle) = self.forget(connection) {
                    handle.close(&bye);
                }
            }
            Output::RequestPart { connection, number, length_bytes } => {
                self.request_part(connection, number, length_bytes);
            }
            Output::CancelRequest { connection, number } => self.cancel(Key::Request(connection, number)),
            Output::ServePart { connection, number, queue, pace } => self.serve(connection, number, queue, pace),
            Output::PushPart { connection, number, pace } => self.push_part(connection, number, pace),
            Output::TakePush { connection, number, length_bytes } => self.take_push(connection, number, length_bytes),
            Output::RefusePush { connection, number } => drop(self.offered.remove(&(connection, number))),
            Output::RefuseRequest { connection, number, reply } => {
                if let Some(responder) = self.responders.remove(&(connection, number)) {
                    self.spawn(async move {
                        responder.refuse(&reply).await;
                        Done::Inputs(Vec::new())
                    });
                }
            }
            Output::Event(event) => self.on_session_event(event),
            Output::Timeout(_) => {}
        }
    }

    /// Tells the session whether this is the time to serve anybody, and notes when to look again.
    fn mind_pause(&mut self) {
        let now = hours::now();
        let hours = self.parts.config.upload_hours.map(|hours| hours.at(&now));
        if let Some((_, until)) = hours {
            self.hours_at = Instant::now() + until.min(HOURS_LOOK);
        }
        let pause = if self.metered {
            Some(UploadPause::Metered)
        } else {
            hours.filter(|(within, _)| !within).map(|_| UploadPause::Hours)
        };
        if pause != self.pause {
            self.pause = pause;
            self.feed(Input::PauseUploads(pause));
        }
    }

    // ---- Tasks.

    fn spawn(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.tasks.spawn(task);
    }

    fn spawn_keyed(&mut self, key: Key, task: impl Future<Output = Input> + Send + 'static) {
        self.started += 1;
        let started = self.started;
        let handle = self.tasks.spawn(async move { Done::Keyed(key, started, task.await) });
        if let Some((_, before)) = self.running.insert(key, (started, handle)) {
            before.abort();
        }
    }

    fn cancel(&mut self, key: Key) {
        if let Some((_, handle)) = self.running.remove(&key) {
            handle.abort();
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Inputs(inputs) => {
                if inputs.iter().any(|input| matches!(input, Input::Stored { .. })) {
                    self.pauses.kept();
                }
                inputs.into_iter().for_each(|input| self.feed(input));
            }
            Done::Keyed(key, started, input) => {
                // A task that ended just before it was cancelled is not the one that runs under its key now.
                if self.running.get(&key).is_some_and(|(running, _)| *running == started) {
                    self.running.remove(&key);
                    self.feed(input);
                }
            }
            Done::StoreFailed(number, error) => {
                debug!(%error, "the cache does not take a part");
                self.feed(Input::StoreFailed { number });
                match error {
                    WriteError::Full(error) => self.pause(&error),
                    error => self.fail_cache(&error),
                }
            }
            Done::Synced(synced) => self.on_synced(synced),
            Done::Reserved(reserved) => self.on_reserved(reserved),
            Done::AskedAgain(answer) => {
                self.asking_again = false;
                if let Err(error) = answer {
                    self.fail(error);
                }
            }
        }
    }

    // ---- The server.

    fn send_control(&mut self, message: &ClientMessage) {
        let Some(control) = &self.control else { return };
        match control.send(message) {
            Ok(written) => self.last_words = Some(written),
            // A channel that takes nothing has ended, or is about to: its end comes as an event.
            Err(failed) => debug!(%failed, "a message to the server was not taken"),
        }
    }

    fn on_control_event(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Opened(sender) => {
                self.control = Some(sender);
                self.tell(DownloadEvent::ServerReached);
                self.feed(Input::ControlOpened);
            }
            ControlEvent::Message(message) => self.feed(Input::ControlMessage(message)),
            ControlEvent::Closed { reason, retry_in } => {
                self.tell(DownloadEvent::ServerAway { reason, retry_in: Some(retry_in) });
                if self.control.take().is_some() {
                    self.feed(Input::ControlClosed);
                }
            }
        }
    }

    fn fetch_hashes(&mut self, range: hybrid_manifest::PartRange) {
        let (client, store) = (self.parts.client.clone(), self.parts.store.clone());
        self.spawn(async move {
            match client.hashes(store.manifest().content(), range).await {
                Ok(proofs) => learn(store, proofs, |proofs| Input::HashesReceived { proofs }).await,
                Err(error) => {
                    debug!(%error, "no part ids from the server");
                    Done::Inputs(vec![Input::HashesFailed { retry_after: error.retry_after() }])
                }
            }
        });
    }

    // ---- Peers.

    fn on_peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected { connection, outgoing, hello, .. } => {
                let (id, peer) = (ConnectionId(connection.id().0), connection.peer());
                self.connections.insert(id, connection);
                self.feed(Input::PeerConnected { connection: id, peer, outgoing, hello });
            }
            PeerEvent::Message { connection, message } => {
                let connection = ConnectionId(connection.0);
                if !self.connections.contains_key(&connection) {
                    return;
                }
                match message {
                    PeerMessage::Proofs(proofs) => {
                        let store = self.parts.store.clone();
                        self.spawn(learn(store, proofs.proofs, move |proofs| Input::PeerMessage {
                            connection,
                            message: PeerMessage::Proofs(hybrid_wire::peer::Proofs { proofs }),
                        }));
                    }
                    message => self.feed(Input::PeerMessage { connection, message }),
                }
            }
            PeerEvent::PartRequested { connection, number, responder } => {
                let key = (ConnectionId(connection.0), number);
                // Who asks for the same part twice at one time gets one answer; dropping the other responder refuses it.
                if self.connections.contains_key(&key.0) && !self.responders.contains_key(&key) {
                    self.responders.insert(key, responder);
                    self.feed(Input::PartRequested { connection: key.0, number });
                }
            }
            PeerEvent::RequestCancelled { connection, number } => {
                let connection = ConnectionId(connection.0);
                if self.responders.remove(&(connection, number)).is_some() {
                    self.feed(Input::RequestCancelled { connection, number });
                }
            }
            PeerEvent::PartPushed { connection, part } => self.receive_push(ConnectionId(connection.0), part),
            PeerEvent::Closed { connection, reason } => {
                let connection = ConnectionId(connection.0);
                if self.forget(connection).is_some() {
                    self.feed(Input::PeerClosed { connection, code: reason.code() });
                }
            }
        }
    }

    /// Takes a connection and all that hangs on it out of the tables.
    fn forget(&mut self, connection: ConnectionId) -> Option<Connection> {
        self.responders.retain(|(other, _), _| *other != connection);
        self.offered.retain(|(other, _), _| *other != connection);
        self.running.retain(|key, (_, handle)| {
            let gone = matches!(key, Key::Request(other, _) if *other == connection);
            if gone {
                handle.abort();
            }
            !gone
        });
        self.told_packets.remove(&connection);
        self.connections.remove(&connection)
    }

    /// Tells what the transports see of the links.
    fn measure_links(&mut self) {
        let (mut sent_packets, mut lost_packets) = (0u64, 0u64);
        for (id, connection) in &self.connections {
            let stats = connection.stats();
            let now = (stats.sent_packets, stats.lost_packets);
            let before = self.told_packets.insert(*id, now).unwrap_or_default();
            sent_packets += now.0.saturating_sub(before.0);
            lost_packets += now.1.saturating_sub(before.1);
        }
        let round_trip = self.control.as_ref().and_then(ClientControlSender::round_trip);
        self.feed(Input::Links { round_trip, sent_packets, lost_packets });
    }

    fn send_peer(&self, connection: ConnectionId, message: &PeerMessage) {
        if let Some(Err(failed)) = self.connections.get(&connection).map(|handle| handle.send(message)) {
            // Its end comes as an event.
            debug!(%failed, "a message to a peer was not taken");
        }
    }

    fn request_part(&mut self, connection: ConnectionId, number: PartNumber, length_bytes: u32) {
        let Some(handle) = self.connections.get(&connection).cloned() else { return };
        let source = PartSource::Peer(connection);
        let inputs = self.inputs.0.clone();
        let begun = move |queue| drop(inputs.send(Input::PartBegun { connection, number, queue }));
        self.spawn_keyed(Key::Request(connection, number), async move {
            let failure = match handle.request(number, length_bytes, begun).await {
                Ok(PartAnswer::Part { bytes }) => return Input::PartReceived { source, number, bytes },
                Ok(PartAnswer::Busy { retry_in, queue }) => PartFailure::Busy { retry_in, queue },
                Ok(PartAnswer::Gone) => PartFailure::Gone,
                Err(error) => failure_of(&error),
            };
            Input::PartFailed { source, number, failure }
        });
    }

    fn receive_push(&mut self, connection: ConnectionId, part: PushedPart) {
        let number = part.number();
        if self.connections.contains_key(&connection) {
            self.offered.insert((connection, number), part);
            self.feed(Input::PartOffered { connection, number });
        }
    }

    fn take_push(&mut self, connection: ConnectionId, number: PartNumber, length_bytes: u32) {
        let Some(part) = self.offered.remove(&(connection, number)) else { return };
        let source = PartSource::Peer(connection);
        self.spawn_keyed(Key::Request(connection, number), async move {
            match part.receive(length_bytes).await {
                Ok(bytes) => Input::PartReceived { source, number, bytes },
                Err(error) => Input::PartFailed { source, number, failure: failure_of(&error) },
            }
        });
    }

    fn push_part(&mut self, connection: ConnectionId, number: PartNumber, pace: Option<BytesPerSecond>) {
        let Some(handle) = self.connections.get(&connection).cloned() else { return };
        let store = self.parts.store.clone();
        self.spawn(async move {
            let pushed = |sent_bytes, taken| Input::PartPushed { connection, number, sent_bytes, taken };
            let Some(part) = blocking(move || store.read(number)).await.flatten() else {
                return Done::Inputs(vec![Input::StoreLost { number }, pushed(0, false)]);
            };
            Done::Inputs(match handle.push(number, part.into_bytes(), pace).await {
                Ok((sent_bytes, taken)) => vec![pushed(sent_bytes, taken)],
                // Its end comes as an event.
                Err(_) => vec![pushed(0, false)],
            })
        });
    }

    fn serve(&mut self, connection: ConnectionId, number: PartNumber, queue: u8, pace: Option<BytesPerSecond>) {
        let Some(responder) = self.responders.remove(&(connection, number)) else {
            // The peer has gone or no longer wants it, and the session will learn so; its slot is free.
            self.spawn(async move { Done::Inputs(vec![Input::PartServed { connection, number, sent_bytes: 0 }]) });
            return;
        };
        let store = self.parts.store.clone();
        self.spawn(async move {
            let Some(part) = blocking(move || store.read(number)).await.flatten() else {
                responder.refuse(&PartReply::Gone).await;
                let served = Input::PartServed { connection, number, sent_bytes: 0 };
                return Done::Inputs(vec![Input::StoreLost { number }, served]);
            };
            let sent_bytes = responder.send_part(part.into_bytes(), queue, pace).await;
            Done::Inputs(vec![Input::PartServed { connection, number, sent_bytes }])
        });
    }

    // ---- The DHT.

    fn look_up(&mut self) {
        let (Some(dht), inputs) = (self.parts.dht.clone(), self.inputs.0.clone()) else { return };
        let content = self.parts.store.manifest().content();
        self.spawn(async move {
            // Each node's answer at once: the last ones take seconds.
            dht.look_up(content, |addresses| drop(inputs.send(Input::AddressesFound { addresses }))).await;
            Done::Inputs(Vec::new())
        });
    }

    fn announce(&mut self) {
        let Some(dht) = self.parts.dht.clone() else { return };
        let (content, port) = (self.parts.store.manifest().content(), self.parts.endpoint.local_addr());
        self.spawn(async move {
            match port {
                Ok(address) => dht.announce(content, address.port()).await,
                Err(error) => debug!(%error, "the port to announce is not known"),
            }
            Done::Inputs(Vec::new())
        });
    }

    // ---- The cache.

    fn keep_anchors(&mut self) {
        let anchors = self.session.anchors();
        if anchors == self.kept_anchors {
            return;
        }
        self.kept_anchors.clone_from(&anchors);
        let (path, Some(anchors)) = (self.parts.anchors.0.clone(), anchors) else { return };
        self.spawn(async move {
            if let Some(Err(error)) = blocking(move || anchors::write(&path, &anchors)).await {
                debug!(%error, "peers could not be kept for the next start");
            }
            Done::Inputs(Vec::new())
        });
    }

    fn keep_house(&mut self, sync_due: bool) {
        if sync_due {
            self.measure_links();
            self.keep_anchors();
        }
        let unsynced = self.parts.store.unsynced();
        if unsynced >= SYNC_PARTS || (sync_due && unsynced > 0) {
            self.sync();
        }
        if self.paused.flatten().is_some_and(|at| at <= Instant::now()) {
            self.paused = Some(None);
            let store = self.parts.store.clone();
            self.spawn(async move {
                blocking(move || store.reserve()).await.map_or(Done::Inputs(Vec::new()), Done::Reserved)
            });
        }
        let progress = self.session.progress();
        if progress != self.told {
            self.told = progress;
            self.parts.progress.send_replace(progress);
            self.tell(DownloadEvent::Progress(progress));
        }
    }

    fn sync(&mut self) {
        if std::mem::replace(&mut self.syncing, true) {
            return;
        }
        let store = self.parts.store.clone();
        self.spawn(async move { Done::Synced(blocking(move || store.sync()).await.unwrap_or(Ok(()))) });
    }

    fn on_synced(&mut self, synced: Result<(), SyncError>) {
        self.syncing = false;
        if let Err(SyncError { lost, source, .. }) = synced {
            debug!(%source, lost = lost.len(), "the disk did not keep what was written");
            // First of all, or what is lost would be fetched at once and be lost again.
            if let Some(&number) = lost.first() {
                self.feed(Input::StoreFailed { number });
            }
            let some_lost = !lost.is_empty();
            lost.into_iter().for_each(|number| self.feed(Input::StoreLost { number }));
            match source {
                // What is not lost was hashed and is right; if the disk has no room, the next part will say so.
                source if is_full(&source) => {
                    if some_lost {
                        self.pause(&source)
                    }
                }
                source => self.fail_cache(&source),
            }
        }
        if !std::mem::take(&mut self.tell_complete) || !self.session.is_complete() {
            return;
        }
        if self.parts.store.unsynced() > 0 {
            // The last parts came while an earlier sync was running.
            self.tell_complete = true;
            return self.sync();
        }
        let progress = self.session.progress();
        self.parts.progress.send_replace(progress);
        self.tell(DownloadEvent::Complete(progress));
        self.parts.standing.send_replace(Standing::Complete);
    }

    // ---- The disk.

    /// The session fetches nothing until it hears [`Input::StoreReady`]. The user is told once.
    fn pause(&mut self, reason: &io::Error) {
        if self.paused.is_some() {
            return;
        }
        self.paused = Some(Some(Instant::now() + self.pauses.pause()));
        let (folder, needed) = (self.parts.store.folder().to_owned(), ByteCount::new(self.parts.store.needed()));
        info!(folder = %folder.display(), %needed, %reason, "the disk is full: paused");
        self.tell(DownloadEvent::StoreFull { folder, needed, reason: reason.to_string() });
    }

    fn on_reserved(&mut self, reserved: io::Result<()>) {
        match reserved {
            Ok(()) => {
                self.paused = None;
                self.tell(DownloadEvent::StoreReady);
                self.feed(Input::StoreReady);
            }
            Err(error) if is_full(&error) => {
                let pause = self.pauses.pause();
                debug!(%error, ?pause, "the disk is still full");
                self.paused = Some(Some(Instant::now() + pause));
            }
            Err(error) => self.fail_cache(&error),
        }
    }

    /// What was refused is not asked for again: the session hears of no disk that is ready.
    fn fail_cache(&self, error: &dyn std::error::Error) {
        self.fail(DownloadError::CacheFailed {
            folder: self.parts.store.folder().to_owned(),
            reason: with_causes(error),
        });
    }

    // ---- The user.

    fn tell(&self, event: DownloadEvent) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.parts.user.try_send(event) {
            debug!(?event, "the user does not listen");
        }
    }

    fn on_session_event(&mut self, event: Event) {
        let event = match event {
            Event::Mode { mode, reasons } => DownloadEvent::Mode { mode, reasons },
            Event::PartStored { number, source, peer, holders, .. } if self.parts.config.tell_parts => {
                DownloadEvent::Part { number, source, peer, holders }
            }
            // Told by housekeeping, a few times a second instead of for each part.
            Event::PartStored { .. } => return,
            Event::Complete { .. } => {
                // Whole means on the disk.
                self.tell_complete = true;
                return self.sync();
            }
            Event::PeerJoined { peer } => DownloadEvent::PeerJoined { peer },
            Event::PeerLeft { peer, code } => DownloadEvent::PeerLeft { peer, code },
            Event::PeerBanned { peer, number } => DownloadEvent::PeerBanned { peer, number },
            Event::AddressRefused { peer, refused } => DownloadEvent::AddressRefused { peer, refused },
            Event::ServerPartBad { number } => DownloadEvent::ServerPartBad { number },
            Event::ServerHashesBad => DownloadEvent::ServerHashesBad,
            Event::ClockDiffers { ours_secs, server_secs } => DownloadEvent::ClockDiffers { ours_secs, server_secs },
            Event::ServerRefused { bye } => {
                self.tell(DownloadEvent::ServerBye(bye.clone()));
                return self.on_bye(bye);
            }
            other => return debug!(?other, "an event that has no name here"),
        };
        self.tell(event);
    }

    fn on_bye(&mut self, bye: Bye) {
        match bye.code {
            // A server of another version will not serve this client tomorrow either.
            ByeCode::Version => self.fail(DownloadError::Refused(bye)),
            // It may have started again a moment ago, and knows its contents only as they are asked for.
            ByeCode::UnknownContent => self.ask_again(),
            // It may still be preparing its contents: the one that is asked for comes first.
            ByeCode::Busy if self.session.progress().mode_at_join.is_none() => self.ask_again(),
            // The control channel comes back by itself, later and later.
            _ => {}
        }
    }

    fn ask_again(&mut self) {
        if std::mem::replace(&mut self.asking_again, true) {
            return;
        }
        let (url, config) = (self.parts.url.clone(), self.parts.config.clone());
        let content = self.parts.store.manifest().content();
        self.spawn(async move { Done::AskedAgain(origin::ask_again(&url, content, &config).await) });
    }

    /// What is whole stays so, whatever the server says; the first error is the one that is told.
    fn fail(&self, error: DownloadError) {
        let failed = matches!(*self.parts.standing.borrow(), Standing::Failed(_));
        if !failed && !self.session.is_complete() {
            self.tell(DownloadEvent::Failed(error.clone()));
            self.parts.standing.send_replace(Standing::Failed(error));
        }
    }
}

fn session_config(parts: &DriverParts) -> hybrid_session::Config {
    let mut config = hybrid_session::Config::default();
    config.program.clone_from(&parts.config.program);
    config.seed = getrandom::u64().unwrap_or_else(|_| {
        // Not a secret: any number that differs between clients will do.
        let id = parts.endpoint.peer_id();
        id.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    });
    config.addresses = AddressPolicy::allowing(parts.config.allow_peers.iter().copied());
    config.quic_port = parts.endpoint.local_addr().ok().map(|address| address.port());
    config.lookups = parts.dht.is_some();
    config.upload = parts.config.upload;
    config.upload_limit = parts.config.upload_limit;
    config.upload_volume_max = parts.config.upload_volume_max;
    config.upload_ratio_max = parts.config.upload_ratio_max;
    // What the transport takes; asking for more would fail.
    config.requests_per_peer = config.requests_per_peer.min(hybrid_peer_transport::Config::default().requests_max);
    config
}

fn failure_of(error: &RequestError) -> PartFailure {
    if error.is_misbehaviour() { PartFailure::Misbehaved } else { PartFailure::Transport }
}

fn from_server(number: PartNumber, fetched: Result<Bytes, FetchError>) -> Input {
    let source = PartSource::Server;
    let failure = match fetched {
        Ok(bytes) => return Input::PartReceived { source, number, bytes },
        Err(FetchError::Refused { retry_after, .. }) => {
            PartFailure::Refused { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) }
        }
        Err(error) => {
            debug!(part = number.as_u32(), %error, "no part from the server");
            if matches!(error, FetchError::TooLong { .. }) { PartFailure::Misbehaved } else { PartFailure::Transport }
        }
    };
    Input::PartFailed { source, number, failure }
}

async fn verify(source: PartSource, expected: ExpectedPart, bytes: Bytes) -> Done {
    let number = expected.number();
    let verified = if bytes.len() <= INLINE_VERIFY_BYTES_MAX {
        Some(expected.verify(bytes))
    } else {
        blocking(move || expected.verify(bytes)).await
    };
    Done::Inputs(match verified {
        Some(Ok(part)) => vec![Input::PartVerified { source, part }],
        Some(Err(error)) => vec![Input::PartRejected { source, number, error }],
        // The runtime is shutting down.
        None => Vec::new(),
    })
}

async fn keep(store: Arc<Store>, part: VerifiedPart) -> Done {
    let number = part.number();
    match blocking(move || store.write(&part)).await {
        Some(Ok(())) => Done::Inputs(vec![Input::Stored { number }]),
        Some(Err(failed)) => Done::StoreFailed(number, failed),
        None => Done::Inputs(Vec::new()),
    }
}

/// Keeps proofs for the next start before the session uses them, so that the parts they prove can be read back.
async fn learn(store: Arc<Store>, proofs: Bytes, input: impl FnOnce(Bytes) -> Input + Send + 'static) -> Done {
    let kept = blocking(move || {
        match store.learn(&proofs) {
            // The next sync tries again, and that the disk is full is told where parts are kept.
            Err(failed) if is_full(&failed) => debug!(%failed, "part ids are not on the disk yet"),
            Err(failed) => warn!(%failed, "part ids could not be kept for the next start"),
            Ok(()) => {}
        }
        proofs
    });
    Done::Inputs(kept.await.map(input).into_iter().collect())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
