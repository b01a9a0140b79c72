//! The world: one coordinator, many sessions, and a network that carries out what they decide.
//!
//! It is the driver of all of them, as `origin` and `peer` are of one each, and decides nothing.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and bytes far below their types' ends"
)]

use crate::host::{Host, LinkState, NO_LINK};
use crate::misbehaviour::{Harm, Misbehaviour};
use crate::network::{Kind, Load, Network, SERVER, Transfer};
use crate::outcome::{Idle, Moment, Outcome};
use crate::playback::{Played, Player};
use crate::queue::{Event, HostId, Letter, LinkId, Queue, connection, part};
use crate::scenario::{Scenario, ScenarioError, SlotFree};
use bytes::Bytes;
use hybrid_coordinator::{ClientId, Coordinator, PartVerdict, TicketIssuer};
use hybrid_manifest::{
    Builder, Manifest, ManifestSpec, PartIds, PartNumber, PartRange, SigningKey, VerifiedPart, server_key,
};
use hybrid_qos::{DirectClients, Sample};
use hybrid_session::{ConnectionId, Input, Output, PartFailure, PartSource, Session};
use hybrid_units::{ByteCount, BytesPerSecond, Duration, Instant, UnixTime};
use hybrid_wire::address::{AddressPolicy, Prefix};
use hybrid_wire::control::{ByeCode, ClientMessage, PartPush, ServerMessage, Want};
use hybrid_wire::peer::{Have, Hello, PartReply, PeerMessage};
use hybrid_wire::{PartRanges, PeerId, SessionToken, Source};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The civil time at the start, so that tickets have dates.
const EPOCH: UnixTime = UnixTime::from_secs(1_790_000_000);

/// The network 10.0.0.0/8: the rest of an address comes from a host's number.
const NETWORK: u32 = 10 << 24;

/// As the real server does, "several times a second".
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// A lost packet is found out by those behind it and sent again: a round trip, and the acknowledgement timer.
const RESEND: Duration = Duration::from_millis(20);

/// As `hybrid-peer-transport` waits for a handshake.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

/// As `hybrid-peer-transport` waits for a sign of life.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Hosts whose reason to be idle is looked for at one moment; more tell nothing new.
const IDLE_SAMPLE: usize = 256;

/// One run. [`Simulation::run`] plays it to its end; [`Simulation::step`] one event at a time.
#[derive(Debug)]
pub struct Simulation {
    pub(crate) scenario: Scenario,
    manifest: Arc<Manifest>,
    /// All parts are alike: zeros. Their ids differ by their places.
    bytes: Bytes,
    /// What polluters send.
    bad_bytes: Bytes,
    /// By part: made once by its verification, and handed out each time that a session has bytes verified.
    verified: Vec<VerifiedPart>,
    ids: PartIds,
    coordinator: Coordinator,
    server_alive: bool,
    server_wake: Instant,
    server_armed: Instant,
    pub(crate) hosts: Vec<Host>,
    network: Network,
    queue: Queue,
    now: Instant,
    pub(crate) rng: ChaCha8Rng,
    /// Delays differ from message to message.
    varied: bool,
    inputs: VecDeque<Input>,
    /// Clients that will still be complete, as far as is known.
    outstanding: u32,
    /// The bytes that the server had sent when it measured itself last.
    sampled_bytes: f64,
    observe_every: Duration,
    observed: (Instant, f64, f64),
    /// Bytes that have left and not arrived.
    flying: u64,
    /// Bytes that arrived and nobody waited for, or that were cut short.
    wasted: u64,
    /// What bad clients did to others: the bad one, its victim.
    pub(crate) harms: BTreeMap<(HostId, HostId), Harm>,
    counts: Counts,
    series: Vec<Moment>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Events that the simulator handled.
    pub events: u64,
    /// Inputs to sessions.
    pub inputs: u64,
    /// Of these, timers.
    pub timeouts: u64,
    /// `Have` messages that arrived.
    pub haves: u64,
    /// `Idle` messages that arrived.
    pub idles: u64,
    /// Requests for parts that arrived at peers.
    pub requests: u64,
    /// Requests that were cancelled.
    pub cancels: u64,
    /// Requests that were answered with `Busy` or `Gone`.
    pub refusals: u64,
    /// Messages to and from the server, parts not counted.
    pub control: u64,
    /// Transfers that began.
    pub transfers: u64,
    /// Connections that were dialled.
    pub dials: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Parts that were stored.
    pub stored: u64,
    /// Parts that the server refused to send for the time being.
    pub rescues_refused: u64,
    /// Peers banned for bad parts.
    pub bans: u64,
}

pub(crate) fn peer_id(host: HostId) -> PeerId {
    // Keys are spread evenly, so their order must not be the order of arrival.
    let mut spread = u64::from(host).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread = (spread ^ (spread >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    spread = (spread ^ (spread >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(spread ^ (spread >> 31)).to_le_bytes());
    bytes[8..12].copy_from_slice(&host.to_le_bytes());
    PeerId::from_bytes(bytes)
}

/// The host that has this key.
fn host_of(peer: PeerId) -> HostId {
    let [.., a, b, c, d] = *peer.as_bytes().first_chunk::<12>().expect("an id is longer");
    HostId::from_le_bytes([a, b, c, d])
}

fn address(host: HostId) -> IpAddr {
    // Neighbours in number are in different networks.
    IpAddr::V4(Ipv4Addr::from_bits(NETWORK | (host & 0xffff) << 8 | host >> 16))
}

fn host_at(address: IpAddr) -> HostId {
    match address {
        IpAddr::V4(v4) => (v4.to_bits() - NETWORK) >> 8 | (v4.to_bits() & 0xff) << 16,
        IpAddr::V6(_) => panic!("the virtual network is IPv4"),
    }
}

fn addresses() -> AddressPolicy {
    AddressPolicy::allowing(Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(NETWORK)), 8))
}

fn client_id(host: HostId, incarnation: u32) -> ClientId {
    ClientId(u64::from(incarnation) << 32 | u64::from(host))
}

/// What a session is told of an upload that has ended.
fn upload_ended(connection: ConnectionId, number: PartNumber, sent_bytes: u64, pushed: bool, taken: bool) -> Input {
    if pushed {
        Input::PartPushed { connection, number, sent_bytes, taken }
    } else {
        Input::PartServed { connection, number, sent_bytes }
    }
}

impl Simulation {
    /// The world of a scenario before the first arrival.
    ///
    /// # Errors
    /// When the scenario cannot be played.
    pub fn new(scenario: Scenario) -> Result<Self, ScenarioError> {
        scenario.check()?;
        let length = scenario.part_len.as_u32() as usize;
        let bytes = Bytes::from(vec![0; length]);
        let key = SigningKey::from_bytes(&[3; 32]);
        let mut builder = Builder::new(scenario.part_len);
        let too_large = |error: &dyn std::fmt::Display| ScenarioError(format!("no such content: {error}"));
        for _ in 0..scenario.parts {
            builder.write(&bytes).map_err(|error| too_large(&error))?;
        }
        let prepared = builder.finish().map_err(|error| too_large(&error))?;
        let mut spec = ManifestSpec::new("film.mp4");
        spec.inline_hashes_below = ByteCount::new(if scenario.inline_hashes { u64::MAX } else { 0 });
        spec.grace = Duration::from_secs(86_400);
        let manifest = Manifest::new(spec, &prepared, server_key(&key)).map_err(|error| too_large(&error))?;
        let ids = PartIds::with_ids(&manifest, prepared.part_ids()).map_err(|error| too_large(&error))?;
        let verify = |number| ids.expect(part(number)).and_then(|expected| expected.verify(bytes.clone()).ok());
        let verified: Vec<VerifiedPart> = (0..scenario.parts).filter_map(verify).collect();
        assert_eq!(verified.len(), scenario.parts as usize, "a content's own parts are its parts");

        let mut config = scenario.coordinator.clone();
        config.addresses = addresses();
        config.seed = scenario.seed;
        config.clients_max = config.clients_max.max(scenario.peers as usize + 1);
        if let Some(direct) = scenario.direct {
            config.qos.direct_clients = DirectClients::Fixed(direct);
        }
        let issuer = TicketIssuer { key, network_secret: [5; 32] };
        let coordinator = Coordinator::new(config, issuer, Instant::ZERO, EPOCH)
            .map_err(|error| ScenarioError(format!("the server's thresholds: {error}")))?;

        let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
        let down = scenario.downlink.map_or(f64::INFINITY, |rate| rate.as_u64() as f64);
        let uplinks = scenario.uplinks_by_client();
        let server = (scenario.server_up.as_u64() as f64, f64::INFINITY);
        let network = Network::new(std::iter::once(server).chain(uplinks.iter().map(|up| (*up, down))));
        let mut hosts: Vec<Host> = (0..=scenario.peers).map(|_| Host::default()).collect();
        // The first is served directly, whatever it does, and its place would be missing in the comparison.
        for host in rand::seq::index::sample(&mut rng, scenario.peers as usize - 1, scenario.bad_peers as usize) {
            hosts[host + 2].record.bad = true;
        }
        let mut world = Self {
            manifest: Arc::new(manifest),
            bad_bytes: Bytes::from(vec![1; length]),
            bytes,
            verified,
            ids,
            coordinator,
            server_alive: true,
            server_wake: Instant::FAR_FUTURE,
            server_armed: Instant::FAR_FUTURE,
            hosts,
            network,
            queue: Queue::new(scenario.delay),
            now: Instant::ZERO,
            rng,
            varied: scenario.jitter > Duration::ZERO || scenario.loss > 0.0,
            inputs: VecDeque::new(),
            outstanding: scenario.peers - scenario.bad_peers,
            sampled_bytes: 0.0,
            observe_every: scenario.moment(),
            observed: (Instant::ZERO, 0.0, 0.0),
            flying: 0,
            wasted: 0,
            harms: BTreeMap::new(),
            counts: Counts::default(),
            series: Vec::new(),
            scenario,
        };
        world.prepare();
        Ok(world)
    }

    /// Puts into the queue what is known beforehand.
    fn prepare(&mut self) {
        let layout = self.manifest.layout();
        let added = hybrid_coordinator::Input::ContentAdded {
            content: self.manifest.content(),
            part_count: layout.part_count(),
            part_len: layout.part_len(),
            class: None,
        };
        self.server(added);
        let churn = self.scenario.churn.clone();
        let arrivals = self.scenario.arrivals_by_client();
        for (host, arrival) in (1..).zip(&arrivals) {
            let arrives = Instant::ZERO + *arrival;
            let bad = self.misbehaviour_of(host);
            if bad == Some(Misbehaviour::Absent) {
                continue;
            }
            self.queue.at(arrives, Event::Arrive(host));
            if bad.is_none() && churn.leave > 0.0 && self.rng.random_bool(churn.leave) {
                let least = self.scenario.bound_secs() - arrivals.first().map_or(0.0, Duration::as_secs_f64);
                let leaves = arrives + Duration::from_secs_f64(least * self.rng.random_range(0.02..0.98));
                self.queue.at(leaves, Event::Leave { host, crash: churn.crash });
                if self.rng.random_bool(churn.return_share) {
                    self.queue.at(leaves + churn.away, Event::Arrive(host));
                } else {
                    // It may be complete before it goes; then it counts as one of those that are.
                    self.hosts[host as usize].record.goes = true;
                    self.outstanding -= 1;
                }
            }
        }
        self.queue.at(Instant::ZERO + SAMPLE_EVERY, Event::SampleServer);
        self.queue.at(Instant::ZERO + self.observe_every, Event::Observe);
        if let Some((when, left)) = self.scenario.server.cut {
            self.queue.at(Instant::ZERO + when, Event::CutServer((left * 1_000.0) as u32));
        }
    }

    /// Plays until all clients that stay are complete, or the scenario's limit.
    pub fn run(mut self) -> Outcome {
        while self.outstanding > 0 && self.step() {}
        self.observe();
        self.outcome()
    }

    /// Plays one event; `false` when there is none, or the time is up.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        if at > Instant::ZERO + self.scenario.limit {
            return false;
        }
        self.now = at;
        self.counts.events += 1;
        self.handle(event);
        self.arm_transfers();
        if self.scenario.check_every > 0 && self.counts.events.is_multiple_of(self.scenario.check_every) {
            self.check_invariants();
        }
        true
    }

    /// Whether all clients that stay are complete.
    pub fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    fn host(&self, host: HostId) -> &Host {
        &self.hosts[host as usize]
    }

    fn host_mut(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[host as usize]
    }

    fn is_here(&self, host: HostId, incarnation: u32) -> bool {
        let host = self.host(host);
        host.session.is_some() && host.incarnation == incarnation
    }

    // ---- The network.

    fn arm_transfers(&mut self) {
        for due in self.network.due.drain(..) {
            self.queue.at(due.at, Event::Sent { sender: due.sender, version: due.version });
        }
    }

    /// What the network adds to a message's delay.
    fn mishap(&mut self) -> Duration {
        let jitter = self.scenario.jitter.mul_f64(self.rng.random_range(0.0..1.0));
        let lost = self.scenario.loss > 0.0 && self.rng.random_bool(self.scenario.loss);
        jitter + if lost { self.scenario.delay * 2 + RESEND } else { Duration::ZERO }
    }

    /// Sends something to the other side of a connection, in order with all that was said on it before.
    pub(crate) fn tell_peer(&mut self, to: HostId, link: LinkId, event: Event) {
        if !self.varied {
            return self.queue.after_delays(self.now, 1, event);
        }
        let at = self.now + self.scenario.delay + self.mishap();
        let Some(link) = self.host_mut(to).links.get_mut(link as usize) else { return };
        let at = at.max(link.in_order);
        link.in_order = at;
        self.queue.at(at, event);
    }

    /// Sends something over a control channel, or about a request to the server, in order.
    fn over_control(&mut self, host: HostId, to_server: bool, event: Event) {
        if !self.varied {
            return self.queue.after_delays(self.now, 1, event);
        }
        let at = self.now + self.scenario.delay + self.mishap();
        let (to, from) = &mut self.host_mut(host).control_in_order;
        let in_order = if to_server { to } else { from };
        *in_order = at.max(*in_order);
        let at = *in_order;
        self.queue.at(at, event);
    }

    /// For what takes so many delays and needs no order.
    fn after_delays(&mut self, delays: u32, event: Event) {
        if !self.varied {
            return self.queue.after_delays(self.now, delays, event);
        }
        let at = self.now + self.scenario.delay * delays + self.mishap();
        self.queue.at(at, event);
    }

    pub(crate) fn begin(
        &mut self,
        from: HostId,
        to: HostId,
        number: PartNumber,
        kind: Kind,
        pace: Option<BytesPerSecond>,
    ) -> u32 {
        self.counts.transfers += 1;
        let bytes = self.sends_of(from, self.manifest.layout().part(number).map_or(0, |place| place.len()));
        let pace = pace.map_or(f64::INFINITY, |pace| pace.as_u64() as f64);
        self.network.begin(self.now, from, to, Load { number: number.as_u32(), bytes, kind, pace })
    }

    /// A transfer's last byte has left.
    fn on_sent(&mut self, id: u32) {
        let transfer = self.network.finish(self.now, id, true);
        let Transfer { from, to, number, kind, .. } = transfer;
        self.flying += transfer.sent();
        match kind {
            Kind::Peer { .. } if self.misbehaviour_of(from) == Some(Misbehaviour::Stall) => {
                self.flying -= transfer.sent();
                self.wasted += transfer.sent();
                self.note_waste(from, to, transfer.sent());
            }
            Kind::Peer { from_link, to_link, pushed } => {
                self.after_delays(1, Event::FromPeer { to, link: to_link, number, pushed });
                // The slot is free when the receiver has the part; a paced one not before its pace allows the next.
                let bytes = transfer.sent() as u32;
                let served = Event::Served { host: from, link: from_link, number, bytes, pushed };
                self.host_mut(from).unacknowledged += 1;
                let paced = transfer.pace.is_finite().then(|| f64::from(bytes) / transfer.pace);
                let paced = paced.map_or(Instant::ZERO, |secs| transfer.began + Duration::from_secs_f64(secs));
                match self.scenario.slot_free {
                    SlotFree::Acknowledged if paced <= self.now + self.scenario.delay * 2 => {
                        self.after_delays(2, served);
                    }
                    SlotFree::Acknowledged | SlotFree::Sent => self.queue.at(paced.max(self.now), served),
                }
            }
            Kind::Fetch { incarnation } => {
                self.after_delays(1, Event::FromServer { to, incarnation, number });
            }
            Kind::Push { incarnation } => {
                self.host_mut(to).pushing = None;
                self.over_control(to, false, Event::Pushed { to, incarnation, number });
                let (client, number) = (client_id(to, incarnation), part(number));
                self.server(hybrid_coordinator::Input::PushDone { client, number, sent: true });
                self.next_push(to);
            }
        }
        if from == SERVER {
            self.maybe_kill_server();
        }
    }

    /// Bytes of a bad client were sent for nothing.
    fn note_waste(&mut self, from: HostId, to: HostId, bytes: u64) {
        if self.misbehaviour_of(from).is_some() {
            self.harm(from, to).wasted += bytes;
        }
    }

    /// Cuts a transfer short; gives the bytes that had gone out.
    fn cut_short(&mut self, id: u32) -> u64 {
        let transfer = self.network.finish(self.now, id, false);
        self.wasted += transfer.sent();
        if let Kind::Push { .. } = transfer.kind {
            self.host_mut(transfer.to).pushing = None;
        }
        transfer.sent()
    }

    /// The transfer that answers a peer's request, or the one that nobody asked for, if it is under way.
    fn upload(&self, host: HostId, link: LinkId, number: u32, unasked: bool) -> Option<u32> {
        self.network.end(host).sending.iter().copied().find(|id| {
            let transfer = self.network.transfer(*id);
            let kind = transfer.kind;
            matches!(kind, Kind::Peer { from_link, pushed, .. } if from_link == link && pushed == unasked)
                && transfer.number == number
        })
    }

    /// A connection ends on this side: what it carried from here ends with it.
    fn close_link(&mut self, host: HostId, link: LinkId) {
        self.host_mut(host).links[link as usize].state = LinkState::Closed;
        self.host_mut(host).asked.retain(|(asked, _)| *asked != link);
        self.host_mut(host).taken.retain(|(taken, _)| *taken != link);
        let of_link =
            |id: &&u32| matches!(self.network.transfer(**id).kind, Kind::Peer { from_link, .. } if from_link == link);
        let cut: Vec<u32> = self.network.end(host).sending.iter().filter(of_link).copied().collect();
        for id in cut {
            let to = self.network.transfer(id).to;
            let sent = self.cut_short(id);
            self.note_waste(host, to, sent);
        }
    }

    // ---- Events.

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(host) => self.arrive(host),
            Event::Leave { host, crash } => self.leave(host, crash),
            Event::Played(host) => self.played(host),
            Event::Wake(host) => self.wake(host),
            Event::WakeServer => {
                if self.server_armed != self.now {
                    return;
                }
                self.server_armed = Instant::FAR_FUTURE;
                if self.server_wake <= self.now {
                    self.server(hybrid_coordinator::Input::Timeout);
                } else {
                    self.arm_server();
                }
            }
            Event::SampleServer => self.sample_server(),
            Event::Observe => {
                self.observe();
                self.queue.at(self.now + self.observe_every, Event::Observe);
            }
            Event::CutServer(thousandths) => {
                let up = self.scenario.server_up.as_u64() as f64 * f64::from(thousandths) / 1_000.0;
                self.network.set_up(self.now, SERVER, up);
            }
            Event::Sent { sender, version } => {
                if let Some(transfer) = self.network.ended(self.now, sender, version) {
                    self.on_sent(transfer);
                }
            }
            Event::Begun { to, link, number, queue } => {
                if self.host(to).is_open(link) && !self.bad_begun(to, link, number) {
                    let (connection, number) = (connection(link), part(number));
                    self.client(to, Input::PartBegun { connection, number, queue });
                }
            }
            Event::Offered { to, link, number } => {
                if self.host(to).is_open(link) {
                    self.client(to, Input::PartOffered { connection: connection(link), number: part(number) });
                }
            }
            Event::FromPeer { to, link, number, pushed } => self.on_part_from_peer(to, link, number, pushed),
            Event::FromServer { to, incarnation, number } => {
                self.flying -= self.part_bytes(number);
                if self.is_here(to, incarnation) && self.host_mut(to).fetched(number) {
                    let (source, bytes) = (PartSource::Server, self.bytes.clone());
                    self.client(to, Input::PartReceived { source, number: part(number), bytes });
                } else {
                    self.wasted += self.part_bytes(number);
                }
            }
            Event::Pushed { to, incarnation, number } => {
                self.flying -= self.part_bytes(number);
                if self.is_here(to, incarnation) {
                    let push = ServerMessage::PartPush(PartPush { number, bytes: self.bytes.clone() });
                    self.client(to, Input::ControlMessage(push));
                } else {
                    self.wasted += self.part_bytes(number);
                }
            }
            Event::Served { host, link, number, bytes, pushed } => {
                self.host_mut(host).unacknowledged -= 1;
                if self.host(host).is_open(link) {
                    let (connection, number) = (connection(link), part(number));
                    self.client(host, upload_ended(connection, number, bytes.into(), pushed, true));
                }
            }
            Event::Have { to, link, first, count, queue } => {
                self.counts.haves += 1;
                self.flood(to, link);
                if self.host(to).is_open(link) {
                    let runs = PartRange::new(part(first), count).into_iter().collect();
                    let parts = PartRanges::new(runs).expect("one run is in order");
                    let message = PeerMessage::Have(Have { parts, queue });
                    self.client(to, Input::PeerMessage { connection: connection(link), message });
                }
            }
            Event::Idle { to, link } => {
                self.counts.idles += 1;
                self.flood(to, link);
                if self.host(to).is_open(link) {
                    self.client(to, Input::PeerMessage { connection: connection(link), message: PeerMessage::Idle });
                }
            }
            Event::Request { to, link, number } => {
                self.counts.requests += 1;
                if self.host(to).is_open(link) && !self.bad_request(to, link, number) {
                    self.client(to, Input::PartRequested { connection: connection(link), number: part(number) });
                }
            }
            Event::Cancel { to, link, number, pushed } => self.on_cancel(to, link, number, pushed),
            Event::Busy { to, link, number, retry_in_ms, queue } => {
                let retry_in = Duration::from_millis(u64::from(retry_in_ms));
                self.on_refused(to, link, number, PartFailure::Busy { retry_in, queue });
            }
            Event::Gone { to, link, number } => self.on_refused(to, link, number, PartFailure::Gone),
            Event::Closed { to, link, code } => self.on_closed(to, link, code),
            Event::Unanswered { host, link } => {
                if self.host(host).links[link as usize].state == LinkState::Dialling {
                    self.on_closed(host, link, ByeCode::HandshakeTimeout);
                }
            }
            Event::Fetch { host, incarnation, number } => {
                if self.is_here(host, incarnation) {
                    self.on_fetch(host, number);
                }
            }
            Event::CancelFetch { host, number } => {
                let mine = |id: &&u32| {
                    let transfer = self.network.transfer(**id);
                    transfer.number == number && matches!(transfer.kind, Kind::Fetch { .. })
                };
                let under_way = self.network.end(host).receiving.iter().find(mine).copied();
                if let Some(id) = under_way {
                    self.cut_short(id);
                }
            }
            Event::FetchFailed { to, incarnation, number, retry_after_ms } => {
                if self.is_here(to, incarnation) && self.host_mut(to).fetched(number) {
                    let failure = match retry_after_ms {
                        Some(millis) => PartFailure::Refused { retry_after: Duration::from_millis(millis.into()) },
                        None => PartFailure::Transport,
                    };
                    let source = PartSource::Server;
                    self.client(to, Input::PartFailed { source, number: part(number), failure });
                }
            }
            Event::ControlClosed { to, incarnation } => {
                if self.is_here(to, incarnation) {
                    self.client(to, Input::ControlClosed);
                }
            }
            Event::Letter(letter) => self.on_letter(*letter),
        }
    }

    fn on_letter(&mut self, letter: Letter) {
        match letter {
            Letter::ToServer { host, incarnation, message } => {
                self.counts.control += 1;
                self.deliver_to_server(host, incarnation, message);
            }
            Letter::ToClient { host, incarnation, message } => {
                self.counts.control += 1;
                if self.is_here(host, incarnation) {
                    self.client(host, Input::ControlMessage(message));
                }
            }
            Letter::Dialled { from, link, to, hello } => self.dialled(from, link, to, hello),
            Letter::Accepted { to, link, hello } => {
                let (peer, state) = (self.host(to).links[link as usize].peer, self.host(to).links[link as usize].state);
                if state == LinkState::Dialling && self.host(to).session.is_some() {
                    self.host_mut(to).links[link as usize].state = LinkState::Open;
                    let (connection, peer) = (connection(link), peer_id(peer));
                    self.client(to, Input::PeerConnected { connection, peer, outgoing: true, hello });
                }
            }
            Letter::Peer { to, link, message } => {
                if self.host(to).is_open(link) {
                    self.client(to, Input::PeerMessage { connection: connection(link), message });
                }
            }
            Letter::Input { to, incarnation, input } => {
                if self.is_here(to, incarnation) {
                    self.client(to, input);
                }
            }
        }
    }

    fn part_bytes(&self, number: u32) -> u64 {
        self.manifest.layout().part(part(number)).map_or(0, |place| u64::from(place.len()))
    }

    fn on_part_from_peer(&mut self, to: HostId, link: LinkId, number: u32, pushed: bool) {
        self.flying -= self.part_bytes(number);
        let from = self.host(to).links[link as usize].peer;
        let length = self.part_bytes(number);
        // Whoever gave a request up, or refused a push, no longer listens on its stream.
        let host = self.host_mut(to);
        if !(if pushed { host.took(link, number) } else { host.answered(link, number) }) {
            self.wasted += length;
            if !self.host(to).is_open(link) {
                self.note_waste(from, to, length);
            }
            return;
        }
        self.flood(to, link);
        let wrong = self.is_wrong(from, to);
        if self.misbehaviour_of(from).is_some() {
            let harm = self.harm(from, to);
            *(if wrong { &mut harm.wasted } else { &mut harm.given }) += length;
        }
        let bytes = if wrong { self.bad_bytes.clone() } else { self.bytes.clone() };
        let source = PartSource::Peer(connection(link));
        self.client(to, Input::PartReceived { source, number: part(number), bytes });
    }

    fn on_cancel(&mut self, to: HostId, link: LinkId, number: u32, pushed: bool) {
        self.counts.cancels += 1;
        if !self.host(to).is_open(link) {
            return;
        }
        let (connection, number_of) = (connection(link), part(number));
        if let Some(id) = self.upload(to, link, number, pushed) {
            let sent_bytes = self.cut_short(id);
            self.client(to, upload_ended(connection, number_of, sent_bytes, pushed, false));
        } else if !pushed {
            self.client(to, Input::RequestCancelled { connection, number: number_of });
        }
    }

    fn on_refused(&mut self, to: HostId, link: LinkId, number: u32, failure: PartFailure) {
        self.counts.refusals += 1;
        if self.host(to).is_open(link) && self.host_mut(to).answered(link, number) {
            self.flood(to, link);
            let source = PartSource::Peer(connection(link));
            self.client(to, Input::PartFailed { source, number: part(number), failure });
        }
    }

    fn on_closed(&mut self, to: HostId, link: LinkId, code: ByeCode) {
        let (state, peer) = {
            let link = &self.host(to).links[link as usize];
            (link.state, peer_id(link.peer))
        };
        if state == LinkState::Closed {
            return;
        }
        self.close_link(to, link);
        if state == LinkState::Dialling {
            self.counts.dials_failed += 1;
            // Whoever answers says why not; otherwise it is the dialler's own patience that ended.
            let answered = code != ByeCode::HandshakeTimeout;
            self.client(to, Input::DialFailed { peer, answered });
        } else {
            self.client(to, Input::PeerClosed { connection: connection(link), code });
        }
    }

    // ---- Clients come and go.

    fn arrive(&mut self, index: HostId) {
        let claims_all = self.misbehaviour_of(index).is_some_and(Misbehaviour::claims_all);
        let scenario = &self.scenario;
        let mut config = scenario.session.clone();
        let host = &mut self.hosts[index as usize];
        if host.session.is_some() {
            return;
        }
        host.incarnation += 1;
        config.seed = scenario.seed.wrapping_mul(1_000_003) + u64::from(index) + (u64::from(host.incarnation) << 40);
        config.addresses = addresses();
        config.quic_port = Some(7_000);
        if scenario.limited {
            config.upload_limit = Some(BytesPerSecond::new(self.network.end(index).up as u64));
        }
        let unix = EPOCH + self.now.since(Instant::ZERO);
        let mut held = std::mem::take(&mut host.stored);
        if claims_all {
            config.want = Want::Seed;
            held = (0..scenario.parts).map(part).collect();
        }
        host.session = Some(Session::new(config, self.now, unix, self.manifest.clone(), peer_id(index), held));
        host.record.arrived.get_or_insert(self.now);
        if let Some(playback) = &scenario.playback {
            let player = Player::new(playback, scenario.part_len, scenario.parts, self.now);
            host.record.player.get_or_insert(player);
        }
        host.wake = Instant::FAR_FUTURE;
        if self.server_alive {
            self.client(index, Input::ControlOpened);
        }
    }

    fn leave(&mut self, index: HostId, crash: bool) {
        if self.host(index).session.is_none() {
            return;
        }
        if !crash {
            self.client(index, Input::Stop);
        }
        let incarnation = self.host(index).incarnation;
        let links = 0..self.host(index).links.len() as LinkId;
        for link in
            links.filter(|link| self.host(index).links[*link as usize].state != LinkState::Closed).collect::<Vec<_>>()
        {
            let other = self.host(index).other_side(link);
            self.close_link(index, link);
            if let Some((to, theirs)) = other {
                // Nobody says good-bye: the other side finds out by itself.
                let closed = Event::Closed { to, link: theirs, code: ByeCode::Shutdown };
                self.queue.at(self.now + IDLE_TIMEOUT, closed);
            }
        }
        let receiving = self.network.end(index).receiving.clone();
        for id in receiving {
            self.cut_short(id);
        }
        let host = self.host_mut(index);
        host.pushes.clear();
        host.asked.clear();
        host.taken.clear();
        host.fetching.clear();
        host.wake = Instant::FAR_FUTURE;
        if let Some(session) = host.session.take() {
            host.stored = session.held().iter().collect();
            host.record.wasted_before += session.progress().wasted.as_u64();
        }
        if crash && self.server_alive {
            // The system of a program that was killed closes its sockets.
            let bye = ClientMessage::Bye(hybrid_wire::control::Bye { code: ByeCode::Shutdown, reason: String::new() });
            self.letter(Letter::ToServer { host: index, incarnation, message: bye });
        }
    }

    fn letter(&mut self, letter: Letter) {
        let (host, to_server) = match &letter {
            Letter::ToServer { host, .. } => (*host, true),
            Letter::ToClient { host, .. } => (*host, false),
            Letter::Peer { to, link, .. } | Letter::Accepted { to, link, .. } => {
                let (to, link) = (*to, *link);
                return self.tell_peer(to, link, Event::Letter(Box::new(letter)));
            }
            Letter::Dialled { .. } => return self.after_delays(3, Event::Letter(Box::new(letter))),
            Letter::Input { .. } => return self.after_delays(2, Event::Letter(Box::new(letter))),
        };
        self.over_control(host, to_server, Event::Letter(Box::new(letter)));
    }

    // ---- The coordinator's driver.

    fn deliver_to_server(&mut self, host: HostId, incarnation: u32, message: ClientMessage) {
        let client = client_id(host, incarnation);
        let input = match message {
            ClientMessage::Join(join) => {
                let mut token = [0; 16];
                token[..8].copy_from_slice(&client.0.to_le_bytes());
                let session = SessionToken::from_bytes(token);
                hybrid_coordinator::Input::Join { client, observed: address(host), session, join }
            }
            ClientMessage::Report(report) => {
                self.host_mut(host).record.stalls += report.stalls;
                hybrid_coordinator::Input::Report { client, report }
            }
            ClientMessage::Vouch(vouch) => hybrid_coordinator::Input::Vouch { client, vouch },
            ClientMessage::Uploads(uploads) => hybrid_coordinator::Input::Uploads { client, uploads },
            ClientMessage::Bye(_) => hybrid_coordinator::Input::Left { client },
        };
        self.server(input);
    }

    fn server(&mut self, input: hybrid_coordinator::Input) {
        if self.server_alive {
            self.coordinator.handle_input(self.now, input);
            self.drain_server();
        }
    }

    fn drain_server(&mut self) {
        use hybrid_coordinator::Output;
        loop {
            match self.coordinator.poll_output() {
                Output::Timeout(at) => {
                    self.server_wake = at;
                    return self.arm_server();
                }
                Output::Send { client, message } => {
                    let (host, incarnation) = (client.0 as u32, (client.0 >> 32) as u32);
                    self.letter(Letter::ToClient { host, incarnation, message });
                }
                Output::Push { client, number, .. } => {
                    let (host, incarnation) = (client.0 as u32, (client.0 >> 32) as u32);
                    if self.is_here(host, incarnation) {
                        self.host_mut(host).pushes.push_back(number.as_u32());
                        self.next_push(host);
                    }
                }
                Output::Close { client, .. } => {
                    let (to, incarnation) = (client.0 as u32, (client.0 >> 32) as u32);
                    self.over_control(to, false, Event::ControlClosed { to, incarnation });
                }
                Output::Event(_) => {}
            }
        }
    }

    fn arm_server(&mut self) {
        if self.server_wake < self.server_armed {
            self.server_armed = self.server_wake;
            self.queue.at(self.server_wake, Event::WakeServer);
        }
    }

    /// A client's pushes go over its one control channel, so one after the other.
    fn next_push(&mut self, host: HostId) {
        if self.host(host).pushing.is_some() {
            return;
        }
        if let Some(number) = self.host_mut(host).pushes.pop_front() {
            let kind = Kind::Push { incarnation: self.host(host).incarnation };
            let id = self.begin(SERVER, host, part(number), kind, None);
            self.host_mut(host).pushing = Some(id);
        }
    }

    fn on_fetch(&mut self, host: HostId, number: u32) {
        let incarnation = self.host(host).incarnation;
        let failed = |retry_after_ms| Event::FetchFailed { to: host, incarnation, number, retry_after_ms };
        if !self.server_alive {
            return self.over_control(host, false, failed(None));
        }
        let (session, content) = (self.host(host).token, self.manifest.content());
        let verdict = self.coordinator.authorize_part(self.now, session, content, part(number));
        self.drain_server();
        match verdict {
            PartVerdict::Serve(_) => {
                self.begin(SERVER, host, part(number), Kind::Fetch { incarnation }, None);
            }
            PartVerdict::Wait { retry_after, .. } => {
                self.counts.rescues_refused += 1;
                let millis = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                self.over_control(host, false, failed(Some(millis)));
            }
            // The client left and came back while its request was on the way.
            PartVerdict::UnknownSession => self.over_control(host, false, failed(None)),
        }
    }

    fn sample_server(&mut self) {
        if !self.server_alive {
            return;
        }
        self.settle_server();
        let sent = self.network.end(SERVER).sent;
        let egress = BytesPerSecond::mean((sent - self.sampled_bytes) as u64, SAMPLE_EVERY);
        self.sampled_bytes = sent;
        self.server(hybrid_coordinator::Input::Sample(Sample { egress, cpu: None }));
        self.queue.at(self.now + SAMPLE_EVERY, Event::SampleServer);
    }

    fn settle_server(&mut self) {
        self.network.settle_sender(self.now, SERVER);
    }

    fn maybe_kill_server(&mut self) {
        let Some(copies) = self.scenario.server.dies_after_copies else { return };
        if self.server_alive && self.network.end(SERVER).sent >= copies * self.scenario.content_bytes() as f64 {
            self.kill_server();
        }
    }

    fn kill_server(&mut self) {
        self.server_alive = false;
        let sending = self.network.end(SERVER).sending.clone();
        for id in sending {
            let Transfer { to, number, kind, .. } = *self.network.transfer(id);
            self.cut_short(id);
            if let Kind::Fetch { incarnation } = kind {
                let event = Event::FetchFailed { to, incarnation, number, retry_after_ms: None };
                self.over_control(to, false, event);
            }
        }
        for to in 1..self.hosts.len() as HostId {
            self.host_mut(to).pushes.clear();
            if self.host(to).session.is_some() {
                let incarnation = self.host(to).incarnation;
                self.over_control(to, false, Event::ControlClosed { to, incarnation });
            }
        }
    }

    // ---- The sessions' driver.

    fn wake(&mut self, index: HostId) {
        let now = self.now;
        let host = self.host_mut(index);
        // It was replaced by an earlier one, which has looked already and put in another: two would go on for ever.
        if host.armed != now {
            return;
        }
        host.armed = Instant::FAR_FUTURE;
        if host.wake <= now {
            host.wake = Instant::FAR_FUTURE;
            self.counts.timeouts += 1;
            self.client(index, Input::Timeout);
        } else {
            self.arm(index);
        }
    }

    fn arm(&mut self, index: HostId) {
        let host = &mut self.hosts[index as usize];
        if host.wake < host.armed {
            host.armed = host.wake;
            self.queue.at(host.wake, Event::Wake(index));
        }
    }

    pub(crate) fn client(&mut self, host: HostId, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let Some(session) = &mut self.hosts[host as usize].session else { continue };
            self.counts.inputs += 1;
            session.handle_input(self.now, input);
            while let Some(session) = &mut self.hosts[host as usize].session {
                match session.poll_output() {
                    Output::Timeout(at) => {
                        self.hosts[host as usize].wake = at;
                        break;
                    }
                    output => self.perform(host, output),
                }
            }
        }
        self.arm(host);
    }

    fn perform(&mut self, host: HostId, output: Output) {
        match output {
            Output::SendControl(mut message) => {
                self.bend_control(host, &mut message);
                let incarnation = self.host(host).incarnation;
                self.letter(Letter::ToServer { host, incarnation, message });
            }
            Output::FetchPart { number, session, .. } => {
                let number = number.as_u32();
                let this = self.host_mut(host);
                this.token = Some(session);
                this.fetching.push(number);
                let incarnation = this.incarnation;
                self.over_control(host, true, Event::Fetch { host, incarnation, number });
            }
            Output::CancelFetch { number } => {
                let number = number.as_u32();
                if self.host_mut(host).fetched(number) {
                    self.over_control(host, true, Event::CancelFetch { host, number });
                }
            }
            Output::FetchHashes { range } => {
                let incarnation = self.host(host).incarnation;
                let input = self.hashes(range);
                self.letter(Letter::Input { to: host, incarnation, input });
            }
            Output::Verify { source, expected, bytes } => {
                let number = expected.number();
                // Only polluters' bytes are looked at: all others are the part's by construction.
                let verdict = if bytes.as_ptr() == self.bad_bytes.as_ptr() {
                    expected.verify(bytes)
                } else {
                    Ok(self.verified[number.as_index()].clone())
                };
                self.inputs.push_back(match verdict {
                    Ok(part) => Input::PartVerified { source, part },
                    Err(error) => Input::PartRejected { source, number, error },
                });
            }
            Output::Store { part } => self.inputs.push_back(Input::Stored { number: part.number() }),
            Output::Dial { peer, hello } => self.dial(host, &peer, self.bend_hello(host, hello)),
            Output::LookUp | Output::Announce | Output::Identify { .. } => unreachable!("there is only the server"),
            Output::AcceptPeer { connection, hello } => {
                let hello = self.bend_hello(host, hello);
                if let Some((to, link)) = self.host(host).other_side(connection.0 as LinkId) {
                    self.letter(Letter::Accepted { to, link, hello });
                }
            }
            Output::SendPeer { connection, message } => self.say(host, connection, message),
            Output::ClosePeer { connection, bye } => {
                let link = connection.0 as LinkId;
                let other = self.host(host).other_side(link);
                self.close_link(host, link);
                if let Some((to, link)) = other {
                    self.tell_peer(to, link, Event::Closed { to, link, code: bye.code });
                }
            }
            Output::RequestPart { connection, number, .. } => {
                let (link, number) = (connection.0 as LinkId, number.as_u32());
                if let Some((to, theirs)) = self.host(host).other_side(link) {
                    self.host_mut(host).asked.push((link, number));
                    self.tell_peer(to, theirs, Event::Request { to, link: theirs, number });
                }
            }
            Output::CancelRequest { connection, number } => {
                let (link, number) = (connection.0 as LinkId, number.as_u32());
                let pushed = self.host_mut(host).took(link, number);
                if !pushed {
                    self.host_mut(host).answered(link, number);
                }
                if let Some((to, theirs)) = self.host(host).other_side(link) {
                    self.tell_peer(to, theirs, Event::Cancel { to, link: theirs, number, pushed });
                }
            }
            Output::ServePart { connection, number, queue, pace } => self.serve(host, connection, number, queue, pace),
            Output::PushPart { connection, number, pace } => {
                let link = connection.0 as LinkId;
                let Some((to, theirs)) = self.host(host).other_side(link) else {
                    self.inputs.push_back(upload_ended(connection, number, 0, true, false));
                    return;
                };
                self.tell_peer(to, theirs, Event::Offered { to, link: theirs, number: number.as_u32() });
                self.begin_upload(host, (link, to, theirs), number, pace, true);
            }
            Output::TakePush { connection, number, .. } => {
                self.host_mut(host).taken.push((connection.0 as LinkId, number.as_u32()));
            }
            Output::RefusePush { connection, number } => {
                let number = number.as_u32();
                if let Some((to, theirs)) = self.host(host).other_side(connection.0 as LinkId) {
                    self.tell_peer(to, theirs, Event::Cancel { to, link: theirs, number, pushed: true });
                }
            }
            Output::RefuseRequest { connection, number, reply } => {
                let Some((to, link)) = self.host(host).other_side(connection.0 as LinkId) else { return };
                let number = number.as_u32();
                let event = match reply {
                    PartReply::Busy { retry_in_ms, queue } => Event::Busy { to, link, number, retry_in_ms, queue },
                    PartReply::Gone => Event::Gone { to, link, number },
                    PartReply::Part { .. } => panic!("a refusal that is a part"),
                };
                self.tell_peer(to, link, event);
            }
            Output::Event(event) => self.note(host, &event),
            Output::Timeout(_) => {}
        }
    }

    fn hashes(&self, range: PartRange) -> Input {
        let proofs = if self.server_alive { self.ids.prove_all(range) } else { None };
        match proofs {
            None => Input::HashesFailed { retry_after: None },
            Some(proofs) => {
                let mut encoded = Vec::new();
                proofs.iter().for_each(|proof| proof.encode_into(&mut encoded));
                Input::HashesReceived { proofs: encoded.into() }
            }
        }
    }

    fn dial(&mut self, host: HostId, peer: &hybrid_wire::PeerCoordinates, hello: Hello) {
        self.counts.dials += 1;
        let to = host_at(peer.address.ip());
        assert_eq!(peer.peer, peer_id(to), "coordinates of another peer");
        let link = self.host_mut(host).link(to, NO_LINK, LinkState::Dialling);
        let lost = self.scenario.loss > 0.0 && self.rng.random_bool(self.scenario.loss);
        if lost {
            self.queue.at(self.now + DIAL_PATIENCE, Event::Unanswered { host, link });
        } else {
            self.letter(Letter::Dialled { from: host, link, to, hello });
        }
    }

    /// A dial's hello arrives: after a round trip of the handshake and its own way.
    fn dialled(&mut self, from: HostId, link: LinkId, to: HostId, hello: Hello) {
        if self.host(from).links[link as usize].state != LinkState::Dialling {
            return;
        }
        if self.host(to).session.is_none() {
            // Nobody answers; the dialler has waited for three delays already.
            self.queue.at(self.now + DIAL_PATIENCE, Event::Unanswered { host: from, link });
            return;
        }
        let theirs = self.host_mut(to).link(from, link, LinkState::Open);
        self.host_mut(from).links[link as usize].theirs = theirs;
        let (connection, peer) = (connection(theirs), peer_id(from));
        self.client(to, Input::PeerConnected { connection, peer, outgoing: false, hello });
    }

    fn say(&mut self, host: HostId, connection: ConnectionId, message: PeerMessage) {
        let Some((to, link)) = self.host(host).other_side(connection.0 as LinkId) else { return };
        if self.withholds(host, &message) {
            return;
        }
        let event = match message {
            PeerMessage::Idle => Event::Idle { to, link },
            PeerMessage::Have(Have { parts, queue }) if parts.runs().len() == 1 => {
                let run = parts.runs()[0];
                Event::Have { to, link, first: run.first().as_u32(), count: run.count(), queue }
            }
            message => return self.letter(Letter::Peer { to, link, message }),
        };
        self.tell_peer(to, link, event);
    }

    fn serve(
        &mut self,
        host: HostId,
        connection: ConnectionId,
        number: PartNumber,
        queue: u8,
        pace: Option<BytesPerSecond>,
    ) {
        let link = connection.0 as LinkId;
        let Some((to, theirs)) = self.host(host).other_side(link) else {
            // The peer has gone, and the session will learn so; its slot is free.
            self.inputs.push_back(Input::PartServed { connection, number, sent_bytes: 0 });
            return;
        };
        self.tell_peer(to, theirs, Event::Begun { to, link: theirs, number: number.as_u32(), queue });
        self.begin_upload(host, (link, to, theirs), number, pace, false);
    }

    /// Begins to send a part to a peer: over which link, to whom, and how the other side numbers it.
    fn begin_upload(
        &mut self,
        host: HostId,
        (link, to, theirs): (LinkId, HostId, LinkId),
        number: PartNumber,
        pace: Option<BytesPerSecond>,
        pushed: bool,
    ) {
        let now = self.now;
        let holds = self.host(host).session.as_ref().is_some_and(|session| session.held().contains(number));
        assert!(holds, "host {host} serves part {number}, which it does not hold; {}", self.describe());
        self.host_mut(host).record.first_upload.get_or_insert(now);
        self.begin(host, to, number, Kind::Peer { from_link: link, to_link: theirs, pushed }, pace);
    }

    fn note(&mut self, host: HostId, event: &hybrid_session::Event) {
        use hybrid_session::Event as Note;
        let now = self.now;
        match event {
            Note::Mode { mode, .. } => {
                self.host_mut(host).record.mode.get_or_insert(*mode);
            }
            Note::PartStored { number, source, .. } => {
                self.counts.stored += 1;
                let bytes = self.part_bytes(number.as_u32());
                let record = &mut self.host_mut(host).record;
                record.first_part.get_or_insert(now);
                if let Some(place) = Source::ALL.iter().position(|other| other == source) {
                    record.received[place] += bytes;
                }
                self.play(host);
            }
            Note::Complete { .. } => {
                let this = self.host_mut(host);
                let is_first = this.record.complete.is_none();
                this.record.complete.get_or_insert(now);
                if this.record.player.is_none() {
                    self.done(host, is_first);
                }
            }
            Note::PeerBanned { peer, .. } => {
                self.counts.bans += 1;
                assert!(self.host(host_of(*peer)).record.bad, "an honest peer was banned; {}", self.describe());
            }
            Note::ServerPartBad { .. } | Note::ServerHashesBad => {
                panic!("the server's own bytes were refused; {}", self.describe())
            }
            _ => {}
        }
    }

    /// A client has all that it came for, perhaps not for the first time.
    fn done(&mut self, host: HostId, is_first: bool) {
        if self.host(host).record.bad {
            return;
        }
        if is_first && !self.host(host).record.goes {
            self.outstanding -= 1;
        }
        if let Some(stay) = self.scenario.churn.stay {
            self.queue.at(self.now + stay, Event::Leave { host, crash: false });
        }
    }

    /// A part is held: a player that waits may go on.
    fn play(&mut self, host: HostId) {
        let Host { session: Some(session), record, .. } = &mut self.hosts[host as usize] else { return };
        let Some(player) = &mut record.player else { return };
        if player.on_held(self.now, |number| session.held().contains(part(number))) {
            self.queue.at(self.now + player.part_time, Event::Played(host));
        }
    }

    fn played(&mut self, host: HostId) {
        let now = self.now;
        let Some(player) = &mut self.host_mut(host).record.player else { return };
        let (played, place, part_time) = (player.on_played(now), player.place, player.part_time);
        let buffer = player.buffer();
        match played {
            Played::Ended => return self.done(host, true),
            Played::Next => self.queue.at(now + part_time, Event::Played(host)),
            Played::Stalled => {}
        }
        if self.host(host).session.as_ref().is_some_and(|session| !session.is_complete()) {
            self.client(host, Input::Seek { number: part(place) });
            self.client(host, Input::Playing { buffer, ran_dry: played == Played::Stalled });
        }
    }

    // ---- Looking at it.

    /// What it is and how far, with the way to see it again.
    pub fn describe(&self) -> String {
        let complete = self.hosts.iter().filter(|host| !host.record.bad && host.record.complete.is_some()).count();
        format!(
            "scenario {}, seed {}, {} peers, event {} at {}: {complete} complete",
            self.scenario.name, self.scenario.seed, self.scenario.peers, self.counts.events, self.now
        )
    }

    /// Adds a moment to the time series.
    fn observe(&mut self) {
        self.network.settle_all(self.now);
        let server = self.network.end(SERVER).sent;
        let peers: f64 = self.network.ends[1..].iter().map(|end| end.sent).sum();
        let (then, server_then, peers_then) = self.observed;
        let secs = self.now.since(then).as_secs_f64();
        if secs <= 0.0 {
            return;
        }
        self.observed = (self.now, server, peers);
        let here = || self.hosts.iter().enumerate().skip(1).filter(|(_, host)| host.session.is_some());
        let capacity: f64 = here().map(|(index, _)| self.network.ends[index].up).sum();
        let mut idle = Idle::default();
        let hosts = here().count();
        let stride = (hosts / IDLE_SAMPLE).max(1);
        for (index, host) in here().step_by(stride) {
            self.why_idle(index as HostId, host, &mut idle);
        }
        let complete = self.hosts.iter().filter(|host| !host.record.bad && host.record.complete.is_some()).count();
        let watches = |host: &Host| host.record.player.as_ref().is_some_and(|player| !player.has_ended());
        let watching = here().filter(|(_, host)| watches(host)).count();
        self.series.push(Moment {
            secs: self.now.since(Instant::ZERO).as_secs_f64(),
            server_use: (server - server_then) / (self.network.end(SERVER).up.max(1.0) * secs),
            uplink_use: if capacity > 0.0 { (peers - peers_then) / (capacity * secs) } else { 0.0 },
            server_rate: (server - server_then) / secs,
            peer_rate: (peers - peers_then) / secs,
            watching: watching as u32,
            server_copies: server / self.scenario.content_bytes() as f64,
            here: hosts as u32,
            complete: complete as u32,
            queued: self.queue.len() as u64,
            idle,
        });
    }

    fn why_idle(&self, index: HostId, host: &Host, idle: &mut Idle) {
        let Some(session) = &host.session else { return };
        idle.looked_at += 1;
        if !self.network.end(index).sending.is_empty() {
            idle.sending += 1;
        } else if session.held().is_empty() {
            idle.empty += 1;
        } else if host.unacknowledged > 0 {
            idle.unacknowledged += 1;
        } else {
            let neighbours = || {
                let links = host.links.iter().filter(|link| link.state == LinkState::Open && link.theirs != NO_LINK);
                links.filter_map(|link| Some((link, self.host(link.peer).session.as_ref()?)))
            };
            let wants = |other: &Session| session.held().is_useful_to(other.held());
            let asked =
                neighbours().any(|(link, _)| self.host(link.peer).asked.iter().any(|(asked, _)| *asked == link.theirs));
            if asked {
                // A request is on its way here, or its cancellation.
                idle.asked += 1;
            } else if neighbours().any(|(_, other)| wants(other)) {
                idle.not_asked += 1;
            } else if neighbours().all(|(_, other)| other.is_complete()) {
                idle.neighbours_complete += 1;
            } else {
                idle.useless += 1;
            }
        }
    }

    /// Panics if the brains contradict themselves or the world does; in a world of many clients a matter of seconds.
    pub fn check_invariants(&mut self) {
        self.coordinator.check_invariants();
        self.network.settle_all(self.now);
        self.network.check_invariants();
        let mut stored = 0;
        let mut wasted = self.wasted;
        for (index, host) in self.hosts.iter().enumerate().skip(1) {
            stored += host.record.received.iter().sum::<u64>();
            wasted += host.wasted();
            let Some(session) = &host.session else { continue };
            session.check_invariants();
            let whole = session.held().len() == self.scenario.parts;
            assert_eq!(session.is_complete(), whole, "host {index} is complete and lacks parts; {}", self.describe());
            for (link, number) in &host.asked {
                assert!(host.is_open(*link), "part {number} is asked for on a connection that has ended");
            }
        }
        let sent: f64 = self.network.ends.iter().map(|end| end.sent).sum();
        let under_way: u64 = self.network.under_way();
        let arrived = (stored + wasted + self.flying + under_way) as f64;
        // Parts that wait for their ids are not accounted for, and each cut transfer is rounded.
        let parked = if self.scenario.inline_hashes { 0.0 } else { f64::INFINITY };
        let rounded = self.counts.transfers as f64 + 1.0;
        assert!(
            arrived <= sent + rounded && sent <= arrived + rounded + parked,
            "{sent} bytes were sent, {arrived} accounted for; {}",
            self.describe()
        );
    }

    fn outcome(self) -> Outcome {
        let network = &self.network;
        let wasted = self.wasted + self.hosts.iter().map(Host::wasted).sum::<u64>();
        let records: Vec<_> = self.hosts.into_iter().skip(1).map(|host| host.record).collect();
        let uplinks: Vec<f64> = network.ends[1..].iter().map(|end| end.up).collect();
        let sent: Vec<u64> = network.ends[1..].iter().map(|end| end.sent as u64).collect();
        Outcome::new(
            &self.scenario,
            self.counts,
            (self.series, self.harms.into_values().collect()),
            (network.end(SERVER).sent, wasted, self.now),
            &records,
            &uplinks,
            &sent,
        )
    }
}
