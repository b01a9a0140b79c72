//! One coordinator and many sessions on a virtual clock and network.
//!
//! Links have an uplink rate (one transfer after the other) and a one-way delay.
//! Everything is a function of the seed; a failed check says which.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hybrid_coordinator::{ClientId, Coordinator, EgressPolicy, PartVerdict, TicketIssuer};
use hybrid_manifest::{
    Builder, Manifest, ManifestSpec, PartIds, PartLen, PartNumber, PartRange, VerifiedPart, server_key,
};
use hybrid_qos::DirectClients;
use hybrid_session::{ConnectionId, PartFailure, PartSource, Progress, Session};
use hybrid_units::{ByteCount, BytesPerSecond, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{ByeCode, ClientMessage, PartPush, ServerMessage};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PeerId, SessionToken};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

const EPOCH: UnixTime = UnixTime::from_secs(1_790_000_000);

pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) content_len: usize,
    pub(crate) part_len: u32,
    pub(crate) inline_hashes: bool,
    pub(crate) direct_clients: u32,
    pub(crate) egress_policy: EgressPolicy,
    pub(crate) server_rate: u64,
    pub(crate) peer_rate: u64,
    pub(crate) delay: Duration,
    /// Peers that the server names to a newcomer.
    pub(crate) peers_per_list: usize,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            content_len: 4 << 20,
            part_len: 65_536,
            inline_hashes: true,
            direct_clients: 2,
            egress_policy: EgressPolicy::Fast,
            server_rate: 2_500_000,
            peer_rate: 1_250_000,
            delay: Duration::from_millis(10),
            peers_per_list: hybrid_coordinator::Config::default().peers_per_list,
        }
    }
}

enum Event {
    Arrive(usize),
    Leave(usize),
    ToServer(usize, ClientMessage),
    ServerInput(hybrid_coordinator::Input),
    Client(usize, hybrid_session::Input),
    Fetch {
        client: usize,
        number: PartNumber,
        session: SessionToken,
    },
    Dialled {
        from: usize,
        connection: ConnectionId,
        to: usize,
        hello: Hello,
    },
    PartAtPeer {
        from: usize,
        connection: ConnectionId,
        number: PartNumber,
        bytes: Bytes,
    },
    /// A pushed part's last byte has arrived, unless it was refused.
    PushAtPeer {
        from: usize,
        connection: ConnectionId,
        number: PartNumber,
        bytes: Bytes,
    },
    PartFromServer {
        client: usize,
        number: PartNumber,
        bytes: Bytes,
    },
    KillServer,
}

pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) store: BTreeMap<PartNumber, VerifiedPart>,
    pub(crate) modes: Vec<Mode>,
    pub(crate) complete_at: Option<Instant>,
    pub(crate) banned: Vec<PeerId>,
    /// Parts fetched over any transport, with repetitions.
    pub(crate) fetched: Vec<PartNumber>,
    pub(crate) polluter: bool,
    /// Whether nothing but HTTP gets through to it and from it.
    pub(crate) cut_off: bool,
    online: bool,
    id: ClientId,
    uplink_free: Instant,
    timer: Instant,
    next_connection: u64,
    /// Each of our connections: at whom, and how it is called there.
    peers: BTreeMap<ConnectionId, (usize, Option<ConnectionId>)>,
    cancelled: BTreeSet<(ConnectionId, PartNumber)>,
    cancelled_fetches: BTreeSet<PartNumber>,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) bytes: Bytes,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) clients: Vec<Client>,
    pub(crate) coordinator: Coordinator,
    /// Part bytes that the server sent.
    pub(crate) server_sent: u64,
    pub(crate) now: Instant,
    /// Times that a session was woken by its own timer.
    pub(crate) timeouts: u64,
    server_ids: PartIds,
    server_alive: bool,
    server_uplink_free: Instant,
    server_timer: Instant,
    kill_after_bytes: Option<u64>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
}

fn peer_id(index: usize) -> PeerId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
    PeerId::from_bytes(bytes)
}

fn address(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(
        10,
        7,
        u8::try_from(index / 250).expect("few"),
        u8::try_from(index % 250 + 1).expect("few"),
    ))
}

fn index_of(address: SocketAddr) -> usize {
    let IpAddr::V4(v4) = address.ip() else { panic!("the world is IPv4") };
    usize::from(v4.octets()[2]) * 250 + usize::from(v4.octets()[3]) - 1
}

fn addresses() -> AddressPolicy {
    AddressPolicy::allowing(["10.7.0.0/16".parse().expect("a prefix")])
}

/// Bytes that differ from part to part and from seed to seed.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.fill(&mut bytes[..]);
    bytes.into()
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let bytes = noise(scenario.content_len, scenario.seed);
        let key = SigningKey::from_bytes(&[3; 32]);
        let part_len = PartLen::new(scenario.part_len).expect("a part length");
        let mut builder = Builder::new(part_len);
        builder.write(&bytes).expect("small");
        let prepared = builder.finish().expect("small");
        let mut spec = ManifestSpec::new("film.mp4");
        spec.inline_hashes_below = ByteCount::new(if scenario.inline_hashes { u64::MAX } else { 0 });
        spec.grace = Duration::from_secs(86_400);
        let manifest = Arc::new(Manifest::new(spec, &prepared, server_key(&key)).expect("valid"));
        let server_ids = PartIds::with_ids(&manifest, prepared.part_ids()).expect("its own ids");

        let mut config = hybrid_coordinator::Config::default();
        config.addresses = addresses();
        config.seed = scenario.seed;
        config.peers_per_list = scenario.peers_per_list;
        config.egress_policy = scenario.egress_policy;
        config.qos.direct_clients = DirectClients::Fixed(scenario.direct_clients);
        let issuer = TicketIssuer { key, network_secret: [5; 32] };
        let coordinator = Coordinator::new(config, issuer, Instant::ZERO, EPOCH).expect("valid");
        let mut world = Self {
            bytes,
            clients: Vec::new(),
            coordinator,
            server_sent: 0,
            now: Instant::ZERO,
            timeouts: 0,
            server_ids,
            server_alive: true,
            server_uplink_free: Instant::ZERO,
            server_timer: Instant::FAR_FUTURE,
            kill_after_bytes: None,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            manifest,
            scenario,
        };
        let layout = world.manifest.layout();
        let added = hybrid_coordinator::Input::ContentAdded {
            content: world.manifest.content(),
            part_count: layout.part_count(),
            part_len: layout.part_len(),
            class: None,
        };
        world.at(Instant::ZERO, Event::ServerInput(added));
        world
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((when, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn after_delay(&mut self, event: Event) {
        self.at(self.now + self.scenario.delay, event);
    }

    fn session(&self, index: usize, held: impl IntoIterator<Item = PartNumber>) -> Session {
        let mut config = hybrid_session::Config::default();
        config.seed = self.scenario.seed * 1_000 + index as u64;
        config.addresses = addresses();
        config.quic_port = Some(7_000);
        config.upload_limit = Some(BytesPerSecond::new(self.scenario.peer_rate));
        Session::new(
            config,
            self.now,
            EPOCH + self.now.since(Instant::ZERO),
            self.manifest.clone(),
            peer_id(index),
            held,
        )
    }

    /// A client that arrives at this time; gives its index.
    pub(crate) fn add_client(&mut self, arrives: Duration) -> usize {
        let index = self.clients.len();
        let session = self.session(index, []);
        self.clients.push(Client {
            session,
            store: BTreeMap::new(),
            modes: Vec::new(),
            complete_at: None,
            banned: Vec::new(),
            fetched: Vec::new(),
            polluter: false,
            cut_off: false,
            online: false,
            id: ClientId(0),
            uplink_free: Instant::ZERO,
            timer: Instant::FAR_FUTURE,
            next_connection: 0,
            peers: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            cancelled_fetches: BTreeSet::new(),
        });
        self.at(Instant::ZERO + arrives, Event::Arrive(index));
        index
    }

    pub(crate) fn leave_at(&mut self, index: usize, when: Duration) {
        self.at(Instant::ZERO + when, Event::Leave(index));
    }

    pub(crate) fn arrive_again_at(&mut self, index: usize, when: Duration) {
        self.at(Instant::ZERO + when, Event::Arrive(index));
    }

    pub(crate) fn kill_server_after(&mut self, bytes: u64) {
        self.kill_after_bytes = Some(bytes);
    }

    pub(crate) fn kill_server_at(&mut self, when: Duration) {
        self.at(Instant::ZERO + when, Event::KillServer);
    }

    /// Those that a client is connected to.
    pub(crate) fn neighbours(&self, index: usize) -> Vec<usize> {
        self.clients[index].peers.values().map(|(to, _)| *to).collect()
    }

    pub(crate) fn peer_id(index: usize) -> PeerId {
        peer_id(index)
    }

    pub(crate) fn progress(&self, index: usize) -> Progress {
        self.clients[index].session.progress()
    }

    /// Runs until all clients that are online are complete, or until `limit` of virtual time.
    pub(crate) fn run(&mut self, limit: Duration) {
        let limit = Instant::ZERO + limit;
        loop {
            let arrived = self.clients.iter().all(|client| client.session.is_complete());
            if arrived || self.now > limit {
                return;
            }
            if !self.step() {
                return;
            }
        }
    }

    /// What went wrong, with the way to see it again.
    pub(crate) fn describe(&self) -> String {
        let states: Vec<String> = self
            .clients
            .iter()
            .enumerate()
            .map(|(index, client)| {
                let progress = client.session.progress();
                format!(
                    "{index}: {}/{} parts, {:?}, {} peers",
                    progress.parts_held, progress.parts_total, client.modes, progress.peers
                )
            })
            .collect();
        format!("seed {} at {}:\n{}", self.scenario.seed, self.now, states.join("\n"))
    }

    fn step(&mut self) -> bool {
        let next_event = self.queue.peek().map(|Reverse((when, _))| *when);
        let client_timer =
            self.clients.iter().filter(|c| c.online).map(|c| c.timer).min().unwrap_or(Instant::FAR_FUTURE);
        let server_timer = if self.server_alive { self.server_timer } else { Instant::FAR_FUTURE };
        let timer = client_timer.min(server_timer);
        match next_event {
            Some(when) if when <= timer => {
                let Some(Reverse((when, sequence))) = self.queue.pop() else { return false };
                self.now = when;
                let event = self.events.remove(&sequence).expect("each event is queued once");
                self.handle(event);
            }
            _ if timer == Instant::FAR_FUTURE => return false,
            _ => {
                self.now = timer;
                if server_timer == timer {
                    self.server(hybrid_coordinator::Input::Timeout);
                }
                let due = |client: &Client| client.online && client.timer <= timer;
                let due: Vec<usize> = (0..self.clients.len()).filter(|index| due(&self.clients[*index])).collect();
                self.timeouts += due.len() as u64;
                for index in due {
                    self.client(index, hybrid_session::Input::Timeout);
                }
            }
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(index) => self.arrive(index),
            Event::Leave(index) => self.leave(index),
            Event::ToServer(index, message) => self.deliver_to_server(index, message),
            Event::ServerInput(input) => self.server(input),
            Event::Client(index, input) => {
                if self.clients[index].online {
                    self.client(index, input);
                }
            }
            Event::Fetch { client, number, session } => self.fetch(client, number, session),
            Event::Dialled { from, connection, to, hello } => self.dialled(from, connection, to, hello),
            Event::PartAtPeer { from, connection, number, bytes } => {
                let sender = &mut self.clients[from];
                if !sender.online || sender.cancelled.remove(&(connection, number)) {
                    return;
                }
                if let Some((to, Some(theirs))) = sender.peers.get(&connection).copied() {
                    let source = PartSource::Peer(theirs);
                    self.client(to, hybrid_session::Input::PartReceived { source, number, bytes });
                }
            }
            Event::PushAtPeer { from, connection, number, bytes } => {
                let sender = &mut self.clients[from];
                if !sender.online {
                    return;
                }
                let taken = !sender.cancelled.remove(&(connection, number));
                if taken && let Some((to, Some(theirs))) = sender.peers.get(&connection).copied() {
                    let source = PartSource::Peer(theirs);
                    self.client(to, hybrid_session::Input::PartReceived { source, number, bytes: bytes.clone() });
                }
                let sent_bytes = bytes.len() as u64;
                self.client(from, hybrid_session::Input::PartPushed { connection, number, sent_bytes, taken });
            }
            Event::PartFromServer { client, number, bytes } => {
                if self.clients[client].online && !self.clients[client].cancelled_fetches.remove(&number) {
                    let source = PartSource::Server;
                    self.client(client, hybrid_session::Input::PartReceived { source, number, bytes });
                }
            }
            Event::KillServer => {
                self.server_alive = false;
                for index in 0..self.clients.len() {
                    if self.clients[index].online {
                        self.client(index, hybrid_session::Input::ControlClosed);
                    }
                }
            }
        }
    }

    fn arrive(&mut self, index: usize) {
        let held: Vec<PartNumber> = self.clients[index].store.keys().copied().collect();
        let session = self.session(index, held);
        let id = ClientId(self.sequence + 1_000_000);
        let client = &mut self.clients[index];
        client.session = session;
        client.id = id;
        client.online = true;
        if self.server_alive {
            self.client(index, hybrid_session::Input::ControlOpened);
        }
    }

    fn leave(&mut self, index: usize) {
        self.clients[index].online = false;
        let id = self.clients[index].id;
        if self.server_alive {
            self.server(hybrid_coordinator::Input::Left { client: id });
        }
        let peers = std::mem::take(&mut self.clients[index].peers);
        for (to, theirs) in peers.into_values() {
            if let Some(connection) = theirs {
                self.clients[to].peers.remove(&connection);
                self.after_delay(Event::Client(
                    to,
                    hybrid_session::Input::PeerClosed { connection, code: ByeCode::Shutdown },
                ));
            }
        }
    }

    fn deliver_to_server(&mut self, index: usize, message: ClientMessage) {
        if !self.server_alive {
            return;
        }
        let client = self.clients[index].id;
        let input = match message {
            ClientMessage::Join(join) => {
                let mut token = [0; 16];
                token[..8].copy_from_slice(&self.sequence.to_le_bytes());
                token[8..].copy_from_slice(&(index as u64).to_le_bytes());
                let session = SessionToken::from_bytes(token);
                hybrid_coordinator::Input::Join { client, observed: address(index), session, join }
            }
            ClientMessage::Report(report) => hybrid_coordinator::Input::Report { client, report },
            ClientMessage::Vouch(vouch) => hybrid_coordinator::Input::Vouch { client, vouch },
            ClientMessage::Uploads(uploads) => hybrid_coordinator::Input::Uploads { client, uploads },
            ClientMessage::Bye(_) => hybrid_coordinator::Input::Left { client },
        };
        self.server(input);
    }

    fn server(&mut self, input: hybrid_coordinator::Input) {
        use hybrid_coordinator::Output;
        if !self.server_alive {
            return;
        }
        self.coordinator.handle_input(self.now, input);
        loop {
            match self.coordinator.poll_output() {
                Output::Timeout(at) => {
                    self.server_timer = at;
                    break;
                }
                Output::Send { client, message } => {
                    if let Some(index) = self.index(client) {
                        self.after_delay(Event::Client(index, hybrid_session::Input::ControlMessage(message)));
                    }
                }
                Output::Push { client, number, .. } => {
                    let Some(index) = self.index(client) else { continue };
                    let bytes = self.part(number);
                    let sent_at = self.server_transfer(bytes.len());
                    let push = ServerMessage::PartPush(PartPush { number: number.as_u32(), bytes });
                    self.at(
                        sent_at,
                        Event::ServerInput(hybrid_coordinator::Input::PushDone { client, number, sent: true }),
                    );
                    let arrives = sent_at + self.scenario.delay;
                    self.at(arrives, Event::Client(index, hybrid_session::Input::ControlMessage(push)));
                }
                Output::Close { client, .. } => {
                    if let Some(index) = self.index(client) {
                        self.after_delay(Event::Client(index, hybrid_session::Input::ControlClosed));
                    }
                }
                Output::Event(_) => {}
            }
        }
        if self.sequence.is_multiple_of(16) {
            self.coordinator.check_invariants();
        }
    }

    fn index(&self, id: ClientId) -> Option<usize> {
        self.clients.iter().position(|client| client.id == id && client.online)
    }

    fn part(&self, number: PartNumber) -> Bytes {
        let place = self.manifest.layout().part(number).expect("a part of the content");
        let start = usize::try_from(place.offset()).expect("small");
        self.bytes.slice(start..start + place.len() as usize)
    }

    fn server_transfer(&mut self, bytes: usize) -> Instant {
        self.server_sent += bytes as u64;
        let start = self.server_uplink_free.max(self.now);
        self.server_uplink_free = start + BytesPerSecond::new(self.scenario.server_rate).time_for(bytes as u64);
        if self.kill_after_bytes.is_some_and(|limit| self.server_sent >= limit) {
            self.kill_after_bytes = None;
            self.at(self.server_uplink_free, Event::KillServer);
        }
        self.server_uplink_free
    }

    fn fetch(&mut self, client: usize, number: PartNumber, session: SessionToken) {
        let source = PartSource::Server;
        if !self.clients[client].online {
            return;
        }
        if !self.server_alive {
            let failure = PartFailure::Transport;
            return self
                .after_delay(Event::Client(client, hybrid_session::Input::PartFailed { source, number, failure }));
        }
        let content = self.manifest.content();
        match self.coordinator.authorize_part(self.now, Some(session), content, number) {
            PartVerdict::Serve(_) => {
                let bytes = self.part(number);
                let sent_at = self.server_transfer(bytes.len());
                self.at(sent_at + self.scenario.delay, Event::PartFromServer { client, number, bytes });
            }
            PartVerdict::Wait { retry_after, .. } => {
                let failure = PartFailure::Refused { retry_after };
                self.after_delay(Event::Client(client, hybrid_session::Input::PartFailed { source, number, failure }));
            }
            // The client left and came back while its request was on the way.
            PartVerdict::UnknownSession => {
                let failure = PartFailure::Transport;
                self.after_delay(Event::Client(client, hybrid_session::Input::PartFailed { source, number, failure }));
            }
        }
    }

    fn dialled(&mut self, from: usize, connection: ConnectionId, to: usize, hello: Hello) {
        if !self.clients[to].online || self.clients[to].cut_off || self.clients[from].cut_off {
            let peer = peer_id(to);
            return self.after_delay(Event::Client(from, hybrid_session::Input::DialFailed { peer, answered: false }));
        }
        let theirs = self.connection(to, from, Some(connection));
        self.clients[from].peers.insert(connection, (to, Some(theirs)));
        let peer = peer_id(from);
        self.client(to, hybrid_session::Input::PeerConnected { connection: theirs, peer, outgoing: false, hello });
    }

    fn connection(&mut self, index: usize, to: usize, theirs: Option<ConnectionId>) -> ConnectionId {
        let client = &mut self.clients[index];
        client.next_connection += 1;
        let connection = ConnectionId(client.next_connection);
        client.peers.insert(connection, (to, theirs));
        connection
    }

    fn client(&mut self, index: usize, input: hybrid_session::Input) {
        use hybrid_session::{Input, Output};
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.clients[index].session.handle_input(self.now, input);
            loop {
                match self.clients[index].session.poll_output() {
                    Output::Timeout(at) => {
                        self.clients[index].timer = at;
                        break;
                    }
                    Output::SendControl(message) => self.after_delay(Event::ToServer(index, message)),
                    Output::FetchPart { number, session, .. } => {
                        self.clients[index].cancelled_fetches.remove(&number);
                        self.after_delay(Event::Fetch { client: index, number, session });
                    }
                    Output::CancelFetch { number } => {
                        self.clients[index].cancelled_fetches.insert(number);
                    }
                    Output::FetchHashes { range } => {
                        let answer = self.hashes(range);
                        self.at(self.now + self.scenario.delay * 2, Event::Client(index, answer));
                    }
                    Output::Verify { source, expected, bytes } => {
                        let number = expected.number();
                        self.clients[index].fetched.push(number);
                        inputs.push_back(match expected.verify(bytes) {
                            Ok(part) => Input::PartVerified { source, part },
                            Err(error) => Input::PartRejected { source, number, error },
                        });
                    }
                    Output::Store { part } => {
                        let number = part.number();
                        self.clients[index].store.insert(number, part);
                        inputs.push_back(Input::Stored { number });
                    }
                    Output::Dial { peer, hello } => {
                        let to = index_of(peer.address);
                        assert_eq!(peer.peer, peer_id(to), "coordinates of another peer");
                        let connection = self.connection(index, to, None);
                        self.at(
                            self.now + self.scenario.delay * 3,
                            Event::Dialled { from: index, connection, to, hello },
                        );
                    }
                    Output::LookUp | Output::Announce | Output::Identify { .. } => {
                        unreachable!("there is only the server")
                    }
                    Output::AcceptPeer { connection, hello } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            let peer = peer_id(index);
                            self.after_delay(Event::Client(
                                to,
                                Input::PeerConnected { connection: theirs, peer, outgoing: true, hello },
                            ));
                        }
                    }
                    Output::SendPeer { connection, message } => self.deliver_to_peer(index, connection, message),
                    Output::ClosePeer { connection, bye } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.remove(&connection) {
                            let closed = Input::PeerClosed { connection: theirs, code: bye.code };
                            self.after_delay(Event::Client(to, closed));
                            self.after_delay(Event::Client(
                                to,
                                Input::DialFailed { peer: peer_id(index), answered: true },
                            ));
                        }
                    }
                    Output::RequestPart { connection, number, .. } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            self.clients[to].cancelled.remove(&(theirs, number));
                            self.after_delay(Event::Client(to, Input::PartRequested { connection: theirs, number }));
                        }
                    }
                    Output::CancelRequest { connection, number } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            self.clients[to].cancelled.insert((theirs, number));
                            self.after_delay(Event::Client(to, Input::RequestCancelled { connection: theirs, number }));
                        }
                    }
                    Output::PushPart { connection, number, pace } => {
                        let bytes = self.peer_bytes(index, number);
                        let (start, end) = self.uplink(index, bytes.len() as u64, pace);
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            let offered = Input::PartOffered { connection: theirs, number };
                            self.at(start + self.scenario.delay, Event::Client(to, offered));
                        }
                        let arrives = end + self.scenario.delay;
                        self.at(arrives, Event::PushAtPeer { from: index, connection, number, bytes });
                    }
                    Output::TakePush { connection, number, .. } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            self.clients[to].cancelled.remove(&(theirs, number));
                        }
                    }
                    Output::RefusePush { connection, number } => {
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            self.clients[to].cancelled.insert((theirs, number));
                        }
                    }
                    Output::ServePart { connection, number, queue, pace } => {
                        let bytes = self.peer_bytes(index, number);
                        let sent_bytes = bytes.len() as u64;
                        let (start, end) = self.uplink(index, sent_bytes, pace);
                        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
                            let begun = Input::PartBegun { connection: theirs, number, queue };
                            self.at(start + self.scenario.delay, Event::Client(to, begun));
                        }
                        self.at(end, Event::Client(index, Input::PartServed { connection, number, sent_bytes }));
                        let arrives = end + self.scenario.delay;
                        self.at(arrives, Event::PartAtPeer { from: index, connection, number, bytes });
                    }
                    Output::RefuseRequest { connection, number, reply } => {
                        self.refuse(index, connection, number, reply)
                    }
                    Output::Event(event) => self.note(index, event),
                }
            }
            // Each looks at every part: on all steps it would be most of the run.
            if self.sequence.is_multiple_of(16) {
                self.clients[index].session.check_invariants();
            }
        }
    }

    fn hashes(&self, range: PartRange) -> hybrid_session::Input {
        if !self.server_alive {
            return hybrid_session::Input::HashesFailed { retry_after: None };
        }
        let proofs = self.server_ids.prove_all(range).expect("the server knows all ids");
        let mut encoded = Vec::new();
        proofs.iter().for_each(|proof| proof.encode_into(&mut encoded));
        hybrid_session::Input::HashesReceived { proofs: encoded.into() }
    }

    /// When a part that is sent now begins to leave a client, and when its last byte has left.
    fn uplink(&mut self, index: usize, bytes: u64, pace: Option<BytesPerSecond>) -> (Instant, Instant) {
        let rate = pace.map_or(self.scenario.peer_rate, |pace| pace.as_u64().min(self.scenario.peer_rate));
        let start = self.clients[index].uplink_free.max(self.now);
        let end = start + BytesPerSecond::new(rate).time_for(bytes);
        self.clients[index].uplink_free = end;
        (start, end)
    }

    fn deliver_to_peer(&mut self, index: usize, connection: ConnectionId, message: PeerMessage) {
        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
            self.after_delay(Event::Client(to, hybrid_session::Input::PeerMessage { connection: theirs, message }));
        }
    }

    fn peer_bytes(&self, index: usize, number: PartNumber) -> Bytes {
        let client = &self.clients[index];
        let bytes = client.store[&number].bytes();
        if !client.polluter {
            return bytes.clone();
        }
        let mut spoiled = bytes.to_vec();
        let middle = spoiled.len() / 2;
        spoiled[middle] ^= 1;
        spoiled.into()
    }

    fn refuse(
        &mut self,
        index: usize,
        connection: ConnectionId,
        number: PartNumber,
        reply: hybrid_wire::peer::PartReply,
    ) {
        use hybrid_wire::peer::PartReply;
        let failure = match reply {
            PartReply::Busy { retry_in_ms, queue } => {
                PartFailure::Busy { retry_in: Duration::from_millis(u64::from(retry_in_ms)), queue }
            }
            PartReply::Gone => PartFailure::Gone,
            PartReply::Part { .. } => panic!("a refusal that is a part"),
        };
        if let Some((to, Some(theirs))) = self.clients[index].peers.get(&connection).copied() {
            let source = PartSource::Peer(theirs);
            self.after_delay(Event::Client(to, hybrid_session::Input::PartFailed { source, number, failure }));
        }
    }

    fn note(&mut self, index: usize, event: hybrid_session::Event) {
        use hybrid_session::Event;
        let client = &mut self.clients[index];
        match event {
            Event::Mode { mode, .. } => client.modes.push(mode),
            Event::Complete { .. } => client.complete_at = Some(self.now),
            Event::PeerBanned { peer, .. } => client.banned.push(peer),
            Event::ServerPartBad { .. } | Event::ServerHashesBad => panic!("the server's own bytes were refused"),
            _ => {}
        }
    }
}
