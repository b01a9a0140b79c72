//! The coordinator itself: admits, refers, grants, and learns from reports.

mod pushing;

use crate::content::{Content, Place};
use crate::{ClientId, Config, ContentStats, EgressPolicy, Event, Input, Output, PartVerdict};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber, SigningKey};
use hybrid_qos::{DirectClients, Engine, Load};
use hybrid_swarm::PartSet;
use hybrid_units::{BytesPerSecond, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::dialable;
use hybrid_wire::control::{Bye, ByeCode, Directive, Join, Report, ServerMessage, Want, Welcome};
use hybrid_wire::ticket::{Roles, Ticket, prefix_mac};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source};
use rand::rngs::ChaCha8Rng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Members looked at for one peer list: three for each place in it.
const LIST_SAMPLE: usize = 60;

/// Peers of which accusations are kept; the first to come stay.
const ACCUSED_MAX: usize = 4_096;

/// Accusers kept of one peer: more change nothing.
const ACCUSERS_MAX: usize = 16;

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
    /// Where others can dial it; `None` if nowhere.
    coordinates: Option<SocketAddr>,
    /// Uplink that it offers, in bytes per second; the largest number if it set no limit.
    uplink: u64,
    /// The most that it was seen to send to peers over one report's interval, in bytes per second; fades slowly.
    sent_rate: u64,
    joined_at: Instant,
    reported_at: Instant,
    /// Whether it has reported since it joined: before, nobody knows whether it reaches peers.
    reported: bool,
    complete: bool,
    /// Parts that it may fetch over HTTP although it is in the swarm; at most the starters beyond the first.
    granted: BTreeSet<PartNumber>,
    /// Parts that are being pushed to it.
    pushing: BTreeSet<PartNumber>,
    /// Parts in a row that it was sent and did not report.
    lapsed: u8,
    /// Since when it has been served more slowly than required, if it is served directly.
    slow_since: Option<Instant>,
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
        let rate = if self.sent_rate == 0 { UPLINK_UNSEEN } else { self.sent_rate };
        rate.min(self.uplink).min(UPLINK_MOST)
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
    engine: Engine,
    contents: BTreeMap<ContentId, Content>,
    clients: BTreeMap<ClientId, Client>,
    sessions: BTreeMap<SessionToken, ClientId>,
    by_peer: BTreeMap<(ContentId, PeerId), ClientId>,
    /// Clients of the swarm that wait for a part to begin with.
    newcomers: Vec<ClientId>,
    /// Contents for which a push may be due.
    hungry: BTreeSet<ContentId>,
    /// The content for which a push was last looked for.
    last_pushed: Option<ContentId>,
    /// Contents with leases, so that time is looked at only where it matters.
    leased: BTreeSet<ContentId>,
    pushes: usize,
    direct_clients: u32,
    /// When a direct client was last sent to the swarm because it was served too slowly.
    moved_at: Instant,
    accused: BTreeMap<PeerId, BTreeSet<PeerId>>,
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
        let mut qos = config.qos.clone();
        if config.egress_policy == EgressPolicy::Thrifty {
            // A direct client costs a whole copy, so there is one only where there is nobody to send it to.
            qos.direct_clients = DirectClients::Fixed(0);
        }
        Ok(Self {
            engine: Engine::new(qos)?,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            issuer,
            clock: (now, unix_now),
            seen: now,
            contents: BTreeMap::new(),
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            newcomers: Vec::new(),
            hungry: BTreeSet::new(),
            last_pushed: None,
            leased: BTreeSet::new(),
            pushes: 0,
            direct_clients: 0,
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
            Input::ContentAdded { content, part_count, part_len } => {
                if self.contents.len() < self.config.contents_max || self.contents.contains_key(&content) {
                    let clients_max = u32::try_from(self.config.clients_max).unwrap_or(u32::MAX);
                    self.contents.entry(content).or_insert_with(|| Content::new(part_count, part_len, clients_max));
                }
            }
            Input::ContentRemoved { content } => self.on_content_removed(now, content),
            Input::Join { client, observed, session, join } => self.on_join(now, client, observed, session, join),
            Input::Report { client, report } => self.on_report(now, client, report),
            Input::Left { client } => self.remove(now, client),
            Input::PushDone { client, number, sent } => self.on_push_done(now, client, number, sent),
            Input::Sample(sample) => {
                if let Err(error) = self.engine.sample(now, sample) {
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
        let coordinates = join
            .quic_port
            .filter(|_| join.contract.upload)
            .map(|port| SocketAddr::new(observed, port))
            .filter(|address| dialable(*address, &self.config.addresses).is_ok());
        let Some(swarm) = self.contents.get_mut(&join.content) else { return };
        let has = PartSet::from_parts(swarm.part_count(), join.has.iter());
        let complete = has.is_full();
        // Steps 24 and 25: the thresholds are brought up to date, then compared.
        let load = Load { direct_clients: self.direct_clients, holders_reachable: swarm.reachable() };
        let verdict = self.engine.verdict(now, load);
        let hidden = self.accused.get(&join.peer).is_some_and(|accusers| is_enough(&self.config, accusers));
        let coordinates = coordinates.filter(|_| !hidden);
        let Some(place) = swarm.join(client, has, coordinates.is_some()) else {
            let bye = Bye { code: ByeCode::Busy, reason: "the swarm is full".to_owned() };
            self.out.push_back(Output::Close { client, bye });
            return;
        };
        // Steps 27 and 30: the newcomer's coordinates are recorded, in either mode.
        let mode = verdict.mode;
        self.direct_clients += u32::from(mode == Mode::ClientServer);
        swarm.joined_last_at = now;
        let interval = self.report_interval(join.content, complete);
        let record = Client {
            peer: join.peer,
            content: join.content,
            place,
            mode,
            session,
            observed,
            coordinates,
            uplink: if join.contract.upload {
                join.contract.rate_limit_bytes_per_second.unwrap_or(u64::MAX)
            } else {
                0
            },
            sent_rate: 0,
            joined_at: now,
            reported_at: now,
            reported: false,
            complete,
            granted: BTreeSet::new(),
            pushing: BTreeSet::new(),
            lapsed: 0,
            slow_since: None,
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
        if let Some(swarm) = self.contents.get_mut(&record.content) {
            swarm.uplinks_known = swarm.uplinks_known.saturating_add(record.uplink_known());
        }
        self.clients.insert(client, record);
        let event = Event::Admitted { client, peer: join.peer, content: join.content, verdict };
        self.out.push_back(Output::Event(event));

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
            Mode::ClientServer => (Vec::new(), Vec::new()),
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
            limits: self.limits(client),
        };
        self.out.push_back(Output::Send { client, message: ServerMessage::Welcome(welcome) });
        if let Some(number) = pushed {
            self.push(now, client, number);
        }
        if mode == Mode::PeerToPeer {
            self.hungry.insert(join.content);
        }
        if self.config.egress_policy == EgressPolicy::Thrifty {
            self.spare_direct_clients(join.content);
        }
    }

    /// Sends those to the swarm who were served directly because there was nobody else, now that there is.
    fn spare_direct_clients(&mut self, content: ContentId) {
        let Some(swarm) = self.contents.get(&content) else { return };
        let spared = |id: &ClientId| {
            self.clients.get(id).is_some_and(|client| {
                let others = swarm.reachable() - u32::from(client.coordinates.is_some());
                client.mode == Mode::ClientServer && !client.complete && others >= self.engine.config().holders_min
            })
        };
        let spared: Vec<ClientId> = swarm.members.iter().copied().filter(spared).collect();
        for client in spared {
            self.move_to_swarm(client, THRIFTY.to_owned());
        }
    }

    /// Sends a client to the swarm that was served directly; it goes on with what it holds.
    fn move_to_swarm(&mut self, client: ClientId, reason: String) {
        let Some(record) = self.clients.get_mut(&client) else { return };
        record.mode = Mode::PeerToPeer;
        self.direct_clients -= 1;
        self.hungry.insert(record.content);
        let reasons = vec![reason];
        let mode = Some((Mode::PeerToPeer, reasons.clone()));
        let directive = Directive { mode, peers: self.peer_list(client), ..Directive::default() };
        self.out.push_back(Output::Event(Event::ModeChanged { client, mode: Mode::PeerToPeer, reasons }));
        self.out.push_back(Output::Send { client, message: ServerMessage::Directive(directive) });
    }

    /// Sends a direct client to the swarm that has been served worse than it should be for some time, more slowly than the
    /// content requires or than members that came later: the server has shown that it cannot, and the members may.
    fn relieve_direct(&mut self, now: Instant, client: ClientId, rate: BytesPerSecond) {
        let required = self.engine.config().required_rate;
        let direct =
            self.clients.get(&client).is_some_and(|client| client.mode == Mode::ClientServer && !client.complete);
        let overtaken = direct && self.is_overtaken(client);
        let Some(record) = self.clients.get_mut(&client) else { return };
        if !direct || rate >= required && !overtaken {
            record.slow_since = None;
            return;
        }
        let since = *record.slow_since.get_or_insert(now);
        let Some(swarm) = self.contents.get(&record.content) else { return };
        let others = swarm.reachable() - u32::from(record.coordinates.is_some());
        // Alone on the link a client is as slow as its own.
        let contended = self.direct_clients > 1 || self.pushes > 0;
        let due = contended && now.since(since) >= SLOW_FOR && now.since(self.moved_at) >= MOVE_INTERVAL;
        if due && others >= self.engine.config().holders_min {
            self.moved_at = now;
            let why = if overtaken { "members that came later are ahead" } else { "the swarm may do better" };
            self.move_to_swarm(client, format!("served at {rate}, {required} required: {why}"));
        }
    }

    /// Whether most members of the swarm that came later than this client, of some that are looked at, hold clearly more.
    fn is_overtaken(&self, client: ClientId) -> bool {
        let Some(record) = self.clients.get(&client) else { return false };
        let Some(swarm) = self.contents.get(&record.content) else { return false };
        let held = |id, place| swarm.held(id, place).map_or(0, PartSet::len);
        let clearly = held(client, record.place) + swarm.part_count() / OVERTAKEN;
        let later = |member: &Client| member.mode == Mode::PeerToPeer && member.joined_at >= record.joined_at;
        let members =
            swarm.members.iter().rev().take(MEMBERS_LOOKED_AT).filter_map(|id| Some((*id, self.clients.get(id)?)));
        let (mut count, mut ahead) = (0u32, 0u32);
        for (id, member) in members.filter(|(_, member)| later(member)) {
            count += 1;
            ahead += u32::from(held(id, member.place) > clearly);
        }
        ahead * 2 > count
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

    /// As many connections for each place in its list as everybody has.
    fn limits(&self, client: ClientId) -> PeerLimits {
        let connections = self.edges(client) * usize::from(self.config.peer_connections_max);
        let connections_max = u16::try_from(connections / self.config.peers_per_list.max(1)).unwrap_or(u16::MAX);
        PeerLimits { connections_max, uploads_max: self.config.uploads_max }
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

    // ---- Peer lists.

    /// Whom a client should dial: most of them uniformly, which keeps the graph an expander, the rest by their uplink.
    fn peer_list(&mut self, client: ClientId) -> Vec<PeerCoordinates> {
        let Some(content) = self.clients.get(&client).map(|client| client.content) else { return Vec::new() };
        let Some(swarm) = self.contents.get(&content) else { return Vec::new() };
        let sample = index::sample(&mut self.rng, swarm.members.len(), LIST_SAMPLE.min(swarm.members.len()));
        let mut candidates: Vec<(u32, PeerCoordinates)> = sample
            .into_iter()
            .filter_map(|place| swarm.members.get(place))
            .filter(|member| **member != client)
            .filter_map(|member| {
                let member = self.clients.get(member)?;
                let address = member.coordinates?;
                Some((member.uplink_class(), PeerCoordinates { peer: member.peer, address }))
            })
            .collect();
        let places = self.edges(client);
        let uniform = places * self.config.uniform_share_percent.min(100) / 100;
        if candidates.len() > places {
            candidates[uniform..].sort_by_key(|(uplink, _)| std::cmp::Reverse(*uplink));
            candidates.truncate(places);
        }
        candidates.into_iter().map(|(_, coordinates)| coordinates).collect()
    }

    /// Peers in a client's list: more for a fast uplink, which then has more to serve, and fewer for a slow one.
    fn edges(&self, client: ClientId) -> usize {
        let usual = self.config.peers_per_list;
        let Some(record) = self.clients.get(&client) else { return usual };
        let Some(swarm) = self.contents.get(&record.content) else { return usual };
        let members = u64::try_from(swarm.members.len()).unwrap_or(u64::MAX).max(1);
        let mean = (swarm.uplinks_known / members).max(1);
        // Half of the usual number, and half for each mean uplink that it has.
        let halves = 1.0 + record.uplink_known() as f64 / mean as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to some dozens")]
        let edges = (usual as f64 * halves / 2.0).min(1e6) as usize;
        edges.clamp(usual * EDGES_LEAST / EDGES_USUAL, usual * EDGES_MOST / EDGES_USUAL)
    }

    // ---- Parts that clients ask for over HTTP.

    /// Whether the server sends a part to whoever shows this secret, or shows none.
    ///
    /// A caller without a secret is an ordinary HTTP client, or a cache in front: it is served while the server's own
    /// thresholds are not passed.
    pub fn authorize_part(
        &mut self,
        now: Instant,
        session: Option<SessionToken>,
        content: ContentId,
        number: PartNumber,
    ) -> PartVerdict {
        self.seen = self.seen.max(now);
        let now = self.seen;
        let Some(session) = session else {
            let Some(swarm) = self.contents.get(&content) else { return PartVerdict::UnknownSession };
            let load = Load { direct_clients: self.direct_clients, holders_reachable: swarm.reachable() };
            return if self.engine.verdict(now, load).mode == Mode::PeerToPeer {
                PartVerdict::Wait {
                    retry_after: self.config.rescue_interval,
                    code: "E_JOIN_FIRST",
                    reason: "the server is at its limits; join over the control channel to be given peers".to_owned(),
                }
            } else {
                PartVerdict::Serve(Source::ServerDirect)
            };
        };
        let Some(client) = self.sessions.get(&session).copied() else { return PartVerdict::UnknownSession };
        let until = self.lease_until(now, client);
        let (Some(record), Some(swarm)) = (self.clients.get_mut(&client), self.contents.get_mut(&content)) else {
            return PartVerdict::UnknownSession;
        };
        if record.content != content {
            return PartVerdict::UnknownSession;
        }
        let source = if record.mode == Mode::ClientServer {
            Source::ServerDirect
        } else if record.granted.contains(&number) {
            Source::ServerGrant
        } else if (record.alone_since.is_none() || !record.reported)
            && self.pushes >= self.config.pushes_in_flight_max
            && swarm.parts_without_holder() > 0
        {
            // Help for each of a large crowd that starves would take the link from what all of them are waiting for.
            return PartVerdict::Wait {
                retry_after: self.config.rescue_interval / 4,
                code: "E_RESCUE_BUDGET",
                reason: "the server is sending the swarm parts that nobody holds; peers will have them soon".to_owned(),
            };
        } else if swarm.copies(number) == u32::from(swarm.is_leased(client, number)) {
            // Nobody else could give it; a copy on its way to this very client is none that it could ask for.
            Source::ServerRescue
        } else if now >= record.rescue_at {
            // Who reaches nobody lives on help alone: as fast as the content requires, not as fast as the server could.
            let alone = record.alone_since.is_some_and(|since| now.since(since) >= ALONE_FOR);
            let floor = self.engine.config().required_rate.time_for(swarm.part_len.as_u64());
            let interval = if alone { floor.min(self.config.rescue_interval) } else { self.config.rescue_interval };
            record.rescue_at = now + interval;
            Source::ServerRescue
        } else {
            return PartVerdict::Wait {
                retry_after: record.rescue_at.since(now),
                code: "E_RESCUE_BUDGET",
                reason: "peers hold this part, and this client's share of help is used up for now".to_owned(),
            };
        };
        swarm.lease(client, number, until);
        self.leased.insert(content);
        PartVerdict::Serve(source)
    }

    // ---- Reports.

    fn on_report(&mut self, now: Instant, client: ClientId, report: Report) {
        let Some(record) = self.clients.get_mut(&client) else { return };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        let end = report.gained.end().max(report.lost.end());
        if end.as_u32() > swarm.part_count() {
            return self.misbehaved(now, client, "a report of parts beyond the content's end");
        }
        for number in report.gained.iter() {
            swarm.end_lease(client, number);
            record.granted.remove(&number);
            record.lapsed = 0;
            swarm.gain(client, record.place, number);
        }
        for number in report.lost.iter() {
            swarm.lose(client, record.place, number);
        }
        for (source, bytes) in &report.received {
            let total = swarm.received.entry(*source).or_default();
            *total = total.saturating_add(*bytes);
        }
        // Two reports at once are no reason to believe in an endless uplink.
        let interval = now.since(record.reported_at).max(self.config.report_interval_min / 2);
        let rate = BytesPerSecond::mean(report.sent_bytes, interval).as_u64();
        let known_before = record.uplink_known();
        record.sent_rate = rate.max(record.sent_rate - record.sent_rate / 16);
        swarm.uplinks_known = swarm.uplinks_known.saturating_sub(known_before).saturating_add(record.uplink_known());
        record.reported_at = now;
        record.reported = true;
        record.alone_since = if report.peers > 0 { None } else { Some(record.alone_since.unwrap_or(now)) };
        let complete = swarm.held(client, record.place).is_some_and(PartSet::is_full);
        let completed = complete && !record.complete;
        record.complete = complete;
        if record.mode == Mode::ClientServer && !complete {
            let rate = BytesPerSecond::new(report.download_bytes_per_second);
            if let Err(error) = self.engine.client_rate(now, rate) {
                self.out.push_back(Output::Event(Event::SampleRefused { why: error.to_string() }));
            }
        }
        let content = record.content;
        self.hungry.insert(content);
        self.relieve_direct(now, client, BytesPerSecond::new(report.download_bytes_per_second));
        if completed {
            self.out.push_back(Output::Event(Event::Completed { client, content }));
        }
        for (accused, _) in &report.bad {
            self.accuse(client, *accused);
        }
        self.direct(now, client, report.peers);
    }

    /// Tells a client what has changed for it, if anything has.
    fn direct(&mut self, now: Instant, client: ClientId, peers: u16) {
        let Some(record) = self.clients.get(&client) else { return };
        let mut directive = Directive::default();
        let interval = self.report_interval(record.content, record.complete);
        // Small changes are not worth a message.
        if interval > record.interval * 5 / 4 || interval < record.interval * 3 / 4 {
            directive.report_interval_ms = Some(millis(interval));
        }
        if now >= record.renew_at {
            directive.ticket = Some(self.ticket(record));
        }
        let reachable = self.contents.get(&record.content).map_or(0, |swarm| swarm.reachable() as usize);
        let others = reachable.saturating_sub(usize::from(record.coordinates.is_some()));
        let wanted = u16::try_from(others.min(self.edges(client) / 2)).unwrap_or(u16::MAX).max(PEERS_WANTED);
        let lonely = record.mode == Mode::PeerToPeer && !record.complete && peers < wanted;
        let refresh = lonely && now >= record.refresh_at;
        if refresh {
            directive.peers = self.peer_list(client);
        }
        if directive == Directive::default() {
            return;
        }
        let Some(record) = self.clients.get_mut(&client) else { return };
        if directive.report_interval_ms.is_some() {
            record.interval = interval;
        }
        if directive.ticket.is_some() {
            // A tenth sooner or later, so that clients who came together do not renew together.
            let half = self.config.ticket_ttl / 2;
            record.renew_at = now + half.mul_f64(self.rng.random_range(0.9..1.1));
        }
        if refresh {
            record.refresh_at = now + REFRESH_INTERVAL;
        }
        self.out.push_back(Output::Send { client, message: ServerMessage::Directive(directive) });
    }

    fn accuse(&mut self, accuser: ClientId, accused: PeerId) {
        let Some(from) = self.clients.get(&accuser).map(|client| client.peer) else { return };
        if self.accused.len() >= ACCUSED_MAX && !self.accused.contains_key(&accused) {
            return;
        }
        let accusers = self.accused.entry(accused).or_default();
        if accusers.len() < ACCUSERS_MAX {
            accusers.insert(from);
        }
        let enough = is_enough(&self.config, accusers);
        let accusers = u32::try_from(accusers.len()).unwrap_or(u32::MAX);
        self.out.push_back(Output::Event(Event::BadPartReported { client: accuser, accused, accusers }));
        if enough {
            self.hide(accused);
        }
    }

    /// No longer gives a peer to others, nor counts on what it says it holds.
    fn hide(&mut self, peer: PeerId) {
        for (content, swarm) in &mut self.contents {
            let Some(client) = self.by_peer.get(&(*content, peer)) else { continue };
            let Some(record) = self.clients.get_mut(client) else { continue };
            record.coordinates = None;
            record.place = swarm.set_apart(*client, record.place);
            self.hungry.insert(*content);
        }
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
                // A reader that has stopped no longer holds a place among the pushes.
                if client.pushing.remove(&number) {
                    *pushes -= 1;
                }
            }
            content.next_lease_end().is_some()
        });
    }

    fn misbehaved(&mut self, now: Instant, client: ClientId, what: &'static str) {
        self.out.push_back(Output::Event(Event::Misbehaved { client, what }));
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
        let Some(record) = self.clients.remove(&client) else { return };
        self.sessions.remove(&record.session);
        self.by_peer.remove(&(record.content, record.peer));
        self.pushes -= record.pushing.len();
        self.newcomers.retain(|newcomer| *newcomer != client);
        self.direct_clients -= u32::from(record.mode == Mode::ClientServer);
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        swarm.leave(client, record.place);
        swarm.uplinks_known = swarm.uplinks_known.saturating_sub(record.uplink_known());
        if swarm.members.is_empty() {
            self.hungry.remove(&record.content);
            return;
        }
        self.hungry.insert(record.content);
        if swarm.reachable() <= 1 {
            self.take_back_orphans(now, record.content);
        }
    }

    /// Whoever is left in a swarm with nobody to fetch from comes back to the server.
    fn take_back_orphans(&mut self, now: Instant, content: ContentId) {
        let Some(swarm) = self.contents.get(&content) else { return };
        let orphans: Vec<ClientId> = swarm
            .members
            .iter()
            .copied()
            .filter(|id| {
                self.clients.get(id).is_some_and(|client| {
                    let others = swarm.reachable() - u32::from(client.coordinates.is_some());
                    client.mode == Mode::PeerToPeer && !client.complete && others == 0
                })
            })
            .collect();
        for client in orphans {
            let load = Load { direct_clients: self.direct_clients, holders_reachable: 0 };
            let verdict = self.engine.verdict(now, load);
            if verdict.mode != Mode::ClientServer {
                continue;
            }
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            if let Some(record) = self.clients.get_mut(&client) {
                record.mode = Mode::ClientServer;
                self.direct_clients += 1;
            }
            let directive = Directive { mode: Some((Mode::ClientServer, reasons.clone())), ..Directive::default() };
            self.out.push_back(Output::Event(Event::ModeChanged { client, mode: Mode::ClientServer, reasons }));
            self.out.push_back(Output::Send { client, message: ServerMessage::Directive(directive) });
        }
    }

    /// Panics if the coordinator contradicts itself; for tests and the simulator, which call it after each step.
    pub fn check_invariants(&self) {
        self.contents.values().for_each(Content::check_invariants);
        let direct = self.clients.values().filter(|client| client.mode == Mode::ClientServer).count();
        assert_eq!(direct, self.direct_clients as usize, "direct clients are miscounted");
        let pushes: usize = self.clients.values().map(|client| client.pushing.len()).sum();
        assert_eq!(pushes, self.pushes, "pushes are miscounted");
        assert_eq!(self.sessions.len(), self.clients.len());
        assert!(self.newcomers.iter().all(|id| self.clients.contains_key(id)), "a newcomer that left is remembered");
        assert_eq!(self.by_peer.len(), self.clients.len());
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

fn is_enough(config: &Config, accusers: &BTreeSet<PeerId>) -> bool {
    accusers.len() >= config.accusers_to_hide as usize
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
