//! The coordinator itself: admits, refers, grants, and learns from reports.

mod lists;
mod modes;
mod networks;
mod opinions;
mod parts;
mod pushing;
mod reports;
mod status;

pub use status::{ClientStatus, ContentStatus, Survival};

use crate::content::{Content, Place};
use crate::history::History;
use crate::quality::{Budget, Quality};
use crate::service::Service;
use crate::{ClientId, Config, ContentStats, EgressPolicy, Event, Input, Output, PartVerdict};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber, SigningKey};
use hybrid_qos::{DirectClients, Experience, Moves, TopUp};
use hybrid_swarm::PartSet;
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::dialable;
use hybrid_wire::control::{Bye, ByeCode, Directive, Join, Report, ServerMessage, Want, Welcome};
use hybrid_wire::ticket::{Roles, Ticket, prefix_mac};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source};
use networks::Network;
use rand::rngs::ChaCha8Rng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Members looked at for one peer list: three for each place in it.
const LIST_SAMPLE: usize = 60;

/// Members looked at if most of those were of too few networks: where one in fifty is of another, some twenty are found.
const LIST_SAMPLE_MOST: usize = 960;

/// Peers of which accusations are kept; the first to come stay.
const ACCUSED_MAX: usize = 4_096;

/// Networks kept that accuse one peer: as many as may vouch for it.
const ACCUSERS_MAX: usize = 64;

/// The uplink that a client is credited with before it sent anything: 1 MB/s.
const UPLINK_UNSEEN: u64 = 1_000_000;

/// The most that a client is credited with, 1 Gbit/s: what it says that it sent is not checked, and moves the mean of all.
const UPLINK_MOST: u64 = 125_000_000;

/// How long a client of the swarm must have been without any peer before its help grows to the required rate.
const ALONE_FOR: Duration = Duration::from_secs(3);

/// A client that has too few peers gets more, but not more often than this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);

/// A client in the swarm with fewer peers than this is given more, and one with fewer than half of the places in its list.
const PEERS_WANTED: u16 = 6;

/// A list of 20 grows to 50 with the uplink and shrinks to 12. In the simulator, with 500 clients of whom 80 % have a tenth of the
/// mean uplink, that brought the last one from 1.53 to 1.48 times the bound (`docs/PERFORMANCE.md`).
const EDGES_USUAL: usize = 20;
const EDGES_LEAST: usize = 12;
const EDGES_MOST: usize = 50;

/// The interval between reports is at least one part in so many of the time since the last client joined: 1 s after a minute,
/// the longest after ten.
const QUIET: u32 = 64;

/// Why a client is in the swarm although the thresholds would let it be served directly.
const THRIFTY: &str = "egress policy thrifty: there are members to fetch from";

/// For how long a direct client must have been served more slowly than required before it is sent to the swarm: two or three
/// reports, since the first one tells of the start only.
const SLOW_FOR: Duration = Duration::from_millis(500);

/// The time between two such moves, in which those who stay can get faster.
const MOVE_INTERVAL: Duration = Duration::from_millis(300);

/// Clearly more than somebody holds who holds one part in so many of the content more.
const OVERTAKEN: u32 = 16;

/// Members that are looked at to see whether they are ahead of a direct client: those at the end of the list, where newcomers
/// are put.
const MEMBERS_LOOKED_AT: usize = 16;

/// With what the server signs tickets. There is no default: identity is the caller's to choose.
pub struct TicketIssuer {
    /// The key whose public half is in the manifests.
    pub key: SigningKey,
    /// Known to this server, or all servers of one site: binds tickets to networks without telling which.
    pub network_secret: [u8; 32],
}

impl fmt::Debug for TicketIssuer {
    /// Says nothing of the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketIssuer(…)")
    }
}

/// One client of one content.
#[derive(Debug)]
struct Client {
    peer: PeerId,
    content: ContentId,
    place: Place,
    mode: Mode,
    session: SessionToken,
    observed: IpAddr,
    /// Its network; `None` if that was admitted by the operator.
    network: Option<Network>,
    /// Where it could be dialled; `None` if nowhere.
    address: Option<SocketAddr>,
    /// The same for others to know: `None` while it serves nobody, offers too little, or is accused.
    coordinates: Option<SocketAddr>,
    /// Networks of members that got parts from it.
    vouchers: BTreeSet<Network>,
    /// Parts that the server sent to it and it reported.
    earned: u32,
    /// Uplink that it offers while it serves peers, in bytes per second; the largest number if it set no limit.
    offered: u64,
    /// The same now: none while it serves nobody.
    uplink: u64,
    /// The most that it was seen to send to peers over one report's interval, in bytes per second; fades slowly.
    sent_rate: u64,
    /// Of a thousand packets that it sent to peers, how many it last said were lost.
    loss_permille: u16,
    joined_at: Instant,
    reported_at: Instant,
    /// Whether it has reported since it joined: before, nobody knows whether it reaches peers.
    reported: bool,
    complete: bool,
    /// Parts that it may fetch over HTTP although it is in the swarm; at most the starters beyond the first.
    granted: BTreeSet<PartNumber>,
    /// Parts that are being pushed to it, and since when.
    pushing: BTreeMap<PartNumber, Instant>,
    /// Parts in a row that it was sent and did not report.
    lapsed: u8,
    /// Since when it has been served more slowly than required, if it is served directly.
    slow_since: Option<Instant>,
    /// It is in the control group and is served without peers for comparison.
    control: bool,
    /// Its mode is not the one that it was given at its join.
    moved: bool,
    /// What it said last of its download rate.
    rate: BytesPerSecond,
    /// Bytes that it said it got, from whomever.
    downloaded: u64,
    /// Pauses that it told of.
    stalls: u32,
    start_up: Option<Duration>,
    /// How it is served in its mode.
    service: Service,
    /// What the server adds to what peers give, while it plays something.
    top_up: Option<TopUp>,
    /// The time between parts with which the server makes up what its peers do not give.
    top_up_interval: Option<Duration>,
    limits: PeerLimits,
    /// What it may take while the server is full.
    paced: Budget,
    rescue_at: Instant,
    /// Since when it has said that it is connected to no peer; `None` while it is.
    alone_since: Option<Instant>,
    refresh_at: Instant,
    interval: Duration,
    renew_at: Instant,
}

impl Client {
    /// What is known of its uplink, in bytes per second: what it was seen to send, within what it offers. One of whom nothing was
    /// seen yet counts as an ordinary one, between those that have shown little and those that have shown much.
    fn uplink_known(&self) -> u64 {
        self.known_within(self.uplink)
    }

    /// The same if it offered so much.
    fn known_within(&self, offer: u64) -> u64 {
        let rate = if self.sent_rate == 0 { UPLINK_UNSEEN } else { self.sent_rate };
        rate.min(offer).min(UPLINK_MOST)
    }

    /// The same as a power of two.
    fn uplink_class(&self) -> u32 {
        self.uplink_known().checked_ilog2().unwrap_or(0)
    }
}

/// The server's brain. The crate's documentation tells how to drive it.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    issuer: TicketIssuer,
    clock: (Instant, UnixTime),
    seen: Instant,
    rng: ChaCha8Rng,
    quality: Quality,
    history: History,
    contents: BTreeMap<ContentId, Content>,
    clients: BTreeMap<ClientId, Client>,
    sessions: BTreeMap<SessionToken, ClientId>,
    by_peer: BTreeMap<(ContentId, PeerId), ClientId>,
    /// How many clients each public network has.
    by_network: BTreeMap<Network, usize>,
    /// Clients of the swarm that wait for a part to begin with.
    newcomers: Vec<ClientId>,
    /// Contents for which a push may be due.
    hungry: BTreeSet<ContentId>,
    /// The content for which a push was last looked for.
    last_pushed: Option<ContentId>,
    /// Contents with leases, so that time is looked at only where it matters.
    leased: BTreeSet<ContentId>,
    pushes: usize,
    /// When a direct client was last sent to the swarm because it was served too slowly.
    moved_at: Instant,
    accused: BTreeMap<PeerId, BTreeSet<Network>>,
    out: VecDeque<Output>,
}

impl Coordinator {
    /// A coordinator without contents. `now` and `unix_now` are the same moment on the two clocks.
    ///
    /// # Errors
    /// When the thresholds contradict themselves.
    pub fn new(
        config: Config,
        issuer: TicketIssuer,
        now: Instant,
        unix_now: UnixTime,
    ) -> Result<Self, hybrid_qos::ConfigError> {
        Ok(Self {
            quality: Quality::new(&config)?,
            history: History::new(config.events_max),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            issuer,
            clock: (now, unix_now),
            seen: now,
            contents: BTreeMap::new(),
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_network: BTreeMap::new(),
            newcomers: Vec::new(),
            hungry: BTreeSet::new(),
            last_pushed: None,
            leased: BTreeSet::new(),
            pushes: 0,
            moved_at: Instant::ZERO,
            accused: BTreeMap::new(),
            out: VecDeque::new(),
            config,
        })
    }

    /// Takes what happened. `now` never goes back.
    ///
    /// Drain [`Self::poll_output`] until it gives [`Output::Timeout`] before the next call.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        self.seen = self.seen.max(now);
        let now = self.seen;
        match input {
            Input::Timeout => {}
            Input::ContentAdded { content, part_count, part_len, class } => {
                if self.contents.len() < self.config.contents_max || self.contents.contains_key(&content) {
                    let clients_max = u32::try_from(self.config.clients_max).unwrap_or(u32::MAX);
                    let class = self.quality.find(class.as_deref());
                    let new = || Content::new(class, part_count, part_len, clients_max);
                    self.contents.entry(content).or_insert_with(new);
                }
            }
            Input::ContentRemoved { content } => self.on_content_removed(now, content),
            Input::Join { client, observed, session, join } => self.on_join(now, client, observed, session, join),
            Input::Report { client, report } => self.on_report(now, client, report),
            Input::Vouch { client, vouch } => self.on_vouch(client, &vouch.peers),
            Input::Uploads { client, uploads } => self.on_uploads(now, client, uploads.on),
            Input::Left { client } => self.remove(now, client),
            Input::PushDone { client, number, sent } => self.on_push_done(now, client, number, sent),
            Input::Sample(sample) => {
                if let Err(error) = self.quality.sample(now, sample) {
                    self.out.push_back(Output::Event(Event::SampleRefused { why: error.to_string() }));
                }
                self.balance(now);
            }
            Input::QueueDelay(delay) => {
                if let Err(error) = self.quality.queue_delay(now, delay) {
                    self.out.push_back(Output::Event(Event::SampleRefused { why: error.to_string() }));
                }
            }
        }
        self.expire(now);
        self.pump(now);
    }

    /// What to do next; [`Output::Timeout`] when there is nothing until then.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop_front().unwrap_or_else(|| {
            let ends = self.leased.iter().filter_map(|content| self.contents.get(content)?.next_lease_end());
            let next = ends.min().unwrap_or(Instant::FAR_FUTURE);
            Output::Timeout(next.max(self.seen + Duration::from_millis(1)))
        })
    }

    /// What a content's swarm looks like now; `None` for a content that is not in the catalogue.
    pub fn stats(&self, content: ContentId) -> Option<ContentStats> {
        let swarm = self.contents.get(&content)?;
        let members = || swarm.members.iter().filter_map(|member| self.clients.get(member));
        let count = |predicate: &dyn Fn(&Client) -> bool| {
            u32::try_from(members().filter(|client| predicate(client)).count()).unwrap_or(u32::MAX)
        };
        Some(ContentStats {
            direct_clients: count(&|client| client.mode == Mode::ClientServer),
            swarm_clients: count(&|client| client.mode == Mode::PeerToPeer),
            complete_clients: count(&|client| client.complete),
            parts_without_holder: swarm.parts_without_holder(),
            received: swarm.received(),
        })
    }

    // ---- Figure 2: a newcomer.

    fn on_join(&mut self, now: Instant, client: ClientId, observed: IpAddr, session: SessionToken, join: Join) {
        if self.clients.contains_key(&client) {
            return self.misbehaved(now, client, "a second join");
        }
        if let Err((code, reason)) = self.check_join(&join) {
            let bye = Bye { code, reason: reason.to_owned() };
            self.out.push_back(Output::Close { client, bye });
            return;
        }
        if let Some(before) = self.by_peer.get(&(join.content, join.peer)).copied() {
            // The same client came back before its old channel was seen to end. A join proves no key, so who comes from
            // elsewhere with a peer's id, which is no secret, does not throw that peer out.
            if self.clients.get(&before).is_some_and(|client| client.observed != observed) {
                let bye =
                    Bye { code: ByeCode::Duplicate, reason: "this peer has joined from another address".to_owned() };
                self.out.push_back(Output::Close { client, bye });
                return;
            }
            self.close(now, before, ByeCode::Duplicate, "the same client joined again");
        }
        let network = Network::public(observed);
        let in_network = network.and_then(|network| self.by_network.get(&network)).copied().unwrap_or(0);
        if in_network >= self.config.clients_per_network_max {
            let bye =
                Bye { code: ByeCode::Busy, reason: "your network has all the clients that it may have".to_owned() };
            self.out.push_back(Output::Close { client, bye });
            return;
        }
        let offered = join.contract.rate_limit_bytes_per_second.unwrap_or(u64::MAX);
        let uplink = if join.contract.upload { offered } else { 0 };
        let part_len = self.contents.get(&join.content).map_or(0, |swarm| swarm.part_len.as_u64());
        let address = join
            .quic_port
            .map(|port| SocketAddr::new(observed, port))
            .filter(|address| dialable(*address, &self.config.addresses).is_ok());
        let coordinates = address.filter(|_| lists::offers_enough(uplink, part_len) && !self.is_shunned(join.peer, 0));
        let Some(swarm) = self.contents.get_mut(&join.content) else { return };
        let has = PartSet::from_parts(swarm.part_count(), join.has.iter());
        let complete = has.is_full();
        // Steps 24 and 25: the thresholds are brought up to date, then compared.
        let class = swarm.class;
        let engine = &self.quality.class(class).engine;
        let control = engine.config().control_share > 0.0 && engine.in_control_group(join.peer.as_bytes());
        let newcomer = self.quality.newcomer(class, swarm.reachable(), control);
        let verdict = self.quality.class_mut(class).engine.verdict(now, newcomer);
        let Some(place) = swarm.join(client, has, coordinates.is_some()) else {
            let bye = Bye { code: ByeCode::Busy, reason: "the swarm is full".to_owned() };
            self.out.push_back(Output::Close { client, bye });
            return;
        };
        // Steps 27 and 30: the newcomer's coordinates are recorded, in either mode.
        let mode = verdict.mode;
        self.quality.class_mut(class).direct_clients += u32::from(mode == Mode::ClientServer);
        swarm.joined_last_at = now;
        let interval = self.report_interval(join.content, complete);
        let plays = matches!(join.want, Want::PlayFrom(_));
        let required = self.quality.class(class).engine.config().required_rate;
        let mut record = Client {
            peer: join.peer,
            content: join.content,
            place,
            mode,
            session,
            observed,
            network,
            address,
            coordinates,
            vouchers: BTreeSet::new(),
            earned: 0,
            offered,
            uplink,
            sent_rate: 0,
            loss_permille: 0,
            joined_at: now,
            reported_at: now,
            reported: false,
            complete,
            granted: BTreeSet::new(),
            pushing: BTreeMap::new(),
            lapsed: 0,
            slow_since: None,
            control: control && mode == Mode::ClientServer,
            moved: false,
            rate: BytesPerSecond::new(0),
            downloaded: 0,
            stalls: 0,
            start_up: None,
            service: Service::new(now),
            top_up: plays.then(|| TopUp::new(required)),
            top_up_interval: None,
            limits: PeerLimits { connections_max: 0, uploads_max: 0 },
            paced: Budget::default(),
            rescue_at: Instant::ZERO,
            alone_since: Some(now),
            refresh_at: now + REFRESH_INTERVAL,
            interval,
            renew_at: now + self.config.ticket_ttl / 2,
        };
        let reasons = verdict.reasons.iter().map(ToString::to_string).collect();
        let ticket = self.ticket(&record);
        self.by_peer.insert((record.content, record.peer), client);
        self.sessions.insert(session, client);
        if let Some(network) = network {
            *self.by_network.entry(network).or_default() += 1;
        }
        if let Some(swarm) = self.contents.get_mut(&record.content) {
            swarm.uplinks_known = swarm.uplinks_known.saturating_add(record.uplink_known());
        }
        record.limits = self.limits(&record);
        let limits = record.limits;
        self.clients.insert(client, record);
        self.believe(client);
        self.record(now, client, Event::Admitted { client, peer: join.peer, content: join.content, verdict });

        // Step 28: coordinates of the swarm and at least one of the parts that it lacks most.
        let (peers, starters) = match mode {
            Mode::PeerToPeer if join.want == Want::Seed || complete => (self.peer_list(client), Vec::new()),
            Mode::PeerToPeer if self.pushes < self.config.pushes_in_flight_max => {
                (self.peer_list(client), self.choose_starters(now, client, self.config.starter_parts))
            }
            Mode::PeerToPeer => {
                if self.config.starter_parts > 0 {
                    self.newcomers.push(client);
                }
                (self.peer_list(client), Vec::new())
            }
            // For the case that the server goes away before the client is complete.
            Mode::ClientServer => (self.peer_list(client), Vec::new()),
        };
        // The first comes with the welcome, so that joining costs no round trip more; the client fetches the others.
        let mut starters = starters.into_iter();
        let pushed = starters.next();
        let granted: BTreeSet<PartNumber> = starters.collect();
        if let Some(record) = self.clients.get_mut(&client) {
            record.granted.clone_from(&granted);
        }
        let welcome = Welcome {
            mode,
            reasons,
            session,
            ticket,
            server_time_secs: self.unix().as_secs(),
            report_interval_ms: millis(interval),
            peers,
            grants: PartRanges::from_ascending(granted.iter().copied()),
            pushes: u16::from(pushed.is_some()),
            limits,
        };
        self.out.push_back(Output::Send { client, message: ServerMessage::Welcome(welcome) });
        if let Some(number) = pushed {
            self.push(now, client, number);
        }
        if mode == Mode::PeerToPeer {
            self.hungry.insert(join.content);
        }
        if self.quality.class(class).egress_policy == EgressPolicy::Thrifty {
            self.spare_direct_clients(now, join.content);
        }
    }

    fn check_join(&self, join: &Join) -> Result<(), (ByeCode, &'static str)> {
        if join.version != PROTOCOL_VERSION {
            return Err((ByeCode::Version, "this server speaks protocol version 1"));
        }
        let swarm = self.contents.get(&join.content).ok_or((ByeCode::UnknownContent, "no such content here"))?;
        if join.has.end().as_u32() > swarm.part_count() {
            return Err((ByeCode::Protocol, "parts beyond the content's end"));
        }
        if self.clients.len() >= self.config.clients_max {
            return Err((ByeCode::Busy, "the server has all the clients it can keep"));
        }
        Ok(())
    }

    fn unix(&self) -> UnixTime {
        self.clock.1 + self.seen.since(self.clock.0)
    }

    fn ticket(&self, client: &Client) -> Bytes {
        let TicketIssuer { key, network_secret } = &self.issuer;
        let (now, ttl) = (self.unix(), self.config.ticket_ttl);
        let mut ticket = Ticket::issue(key, client.content, client.peer, now, ttl, Roles::LEECH);
        ticket.net = prefix_mac(network_secret, client.observed);
        ticket.sign(key)
    }

    /// How often a client should report: as often as helps a young swarm, as seldom as a large or an old one needs.
    fn report_interval(&self, content: ContentId, complete: bool) -> Duration {
        let fair = Duration::from_secs(1) * u32::try_from(self.clients.len()).unwrap_or(u32::MAX)
            / self.config.reports_per_second.max(1);
        // Where nobody has joined for long, nobody waits for what is learnt from reports.
        let quiet = self.contents.get(&content).map_or(Duration::ZERO, |swarm| self.seen.since(swarm.joined_last_at));
        // A complete client has news only when it leaves.
        let least = if complete { self.config.report_interval_min * 8 } else { self.config.report_interval_min };
        fair.max(quiet / QUIET).clamp(least, self.config.report_interval_max.max(least))
    }

    // ---- The end of things.

    fn expire(&mut self, now: Instant) {
        let (contents, clients, hungry) = (&mut self.contents, &mut self.clients, &mut self.hungry);
        let pushes = &mut self.pushes;
        self.leased.retain(|id| {
            let Some(content) = contents.get_mut(id) else { return false };
            for (client, number) in content.expire(now) {
                hungry.insert(*id);
                let Some(client) = clients.get_mut(&client) else { continue };
                client.lapsed = client.lapsed.saturating_add(1);
                client.service.miscounted();
                // A reader that has stopped no longer holds a place among the pushes.
                if client.pushing.remove(&number).is_some() {
                    *pushes -= 1;
                }
            }
            content.next_lease_end().is_some()
        });
    }

    /// Tells the driver, and keeps it for whoever asks later.
    fn record(&mut self, now: Instant, client: ClientId, event: Event) {
        if let Some(record) = self.clients.get(&client) {
            self.history.push(now, record.content, record.peer, event.clone());
        }
        self.out.push_back(Output::Event(event));
    }

    fn misbehaved(&mut self, now: Instant, client: ClientId, what: &'static str) {
        self.record(now, client, Event::Misbehaved { client, what });
        self.close(now, client, ByeCode::Protocol, what);
    }

    fn close(&mut self, now: Instant, client: ClientId, code: ByeCode, reason: &str) {
        self.remove(now, client);
        self.out.push_back(Output::Close { client, bye: Bye { code, reason: reason.to_owned() } });
    }

    fn on_content_removed(&mut self, now: Instant, content: ContentId) {
        let members = self.contents.get(&content).map(|swarm| swarm.members.clone()).unwrap_or_default();
        for client in members {
            self.close(now, client, ByeCode::UnknownContent, "the content is no longer served");
        }
        self.contents.remove(&content);
        self.hungry.remove(&content);
        self.leased.remove(&content);
    }

    fn remove(&mut self, now: Instant, client: ClientId) {
        let Some(complete) = self.clients.get(&client).map(|record| record.complete) else { return };
        self.record(now, client, Event::Left { client, complete });
        if !complete {
            self.tell_experience(now, client);
        }
        let Some(record) = self.clients.remove(&client) else { return };
        self.sessions.remove(&record.session);
        self.by_peer.remove(&(record.content, record.peer));
        if let Some(network) = record.network
            && let Some(count) = self.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
        self.pushes -= record.pushing.len();
        self.newcomers.retain(|newcomer| *newcomer != client);
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        self.quality.class_mut(swarm.class).direct_clients -= u32::from(record.mode == Mode::ClientServer);
        swarm.leave(client, record.place);
        swarm.uplinks_known = swarm.uplinks_known.saturating_sub(record.uplink_known());
        if swarm.members.is_empty() {
            self.hungry.remove(&record.content);
            return;
        }
        self.lost_a_holder(now, record.content);
    }

    /// A member left, or serves nobody any more.
    fn lost_a_holder(&mut self, now: Instant, content: ContentId) {
        self.hungry.insert(content);
        if self.contents.get(&content).is_some_and(|swarm| swarm.reachable() <= 1) {
            self.take_back_orphans(now, content);
        }
    }

    /// Panics if the coordinator contradicts itself; for tests and the simulator, which call it after each step.
    pub fn check_invariants(&self) {
        self.contents.values().for_each(Content::check_invariants);
        for index in 0..self.quality.len() {
            let class = self.quality.class(index);
            let of_class = |client: &&Client| self.contents.get(&client.content).is_some_and(|c| c.class == index);
            let direct = self.clients.values().filter(of_class).filter(|client| client.mode == Mode::ClientServer);
            assert_eq!(
                direct.count(),
                class.direct_clients as usize,
                "direct clients of {} are miscounted",
                class.name
            );
            class.engine.check_invariants();
        }
        let pushes: usize = self.clients.values().map(|client| client.pushing.len()).sum();
        assert_eq!(pushes, self.pushes, "pushes are miscounted");
        assert_eq!(self.sessions.len(), self.clients.len());
        assert!(self.newcomers.iter().all(|id| self.clients.contains_key(id)), "a newcomer that left is remembered");
        assert_eq!(self.by_peer.len(), self.clients.len());
        let mut by_network = BTreeMap::new();
        for network in self.clients.values().filter_map(|client| client.network) {
            *by_network.entry(network).or_default() += 1;
        }
        assert_eq!(by_network, self.by_network, "clients of networks are miscounted");
        assert!(by_network.values().all(|clients| *clients <= self.config.clients_per_network_max));
        for (id, content) in &self.contents {
            let members = self.clients.values().filter(|client| client.content == *id);
            assert_eq!(members.clone().count(), content.members.len());
            let known: u64 = members.clone().fold(0, |sum, client| sum.saturating_add(client.uplink_known()));
            assert_eq!(known, content.uplinks_known, "uplinks are summed up wrongly");
            let reachable = members.filter(|client| client.coordinates.is_some()).count();
            assert_eq!(reachable, content.reachable() as usize, "reachable members are miscounted");
        }
        assert!(self.clients.len() <= self.config.clients_max);
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
