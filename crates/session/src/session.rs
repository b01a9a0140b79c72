//! The session itself: takes inputs, keeps the parts' states, and decides what to ask of whom.

use crate::connection::{Connection, Connections};
use crate::fetches::{Arriving, Fetches};
use crate::hashes::Hashes;
use crate::peers::KnownPeers;
use crate::reporting::Reporting;
use crate::uploads::{Admission, Uploads};
use crate::{Config, ConnectionId, Event, Input, Output, PartFailure, PartSource, Progress};
use bytes::Bytes;
use hybrid_manifest::{Manifest, PartNumber, PartRange, VerifiedPart};
use hybrid_swarm::PartSet;
use hybrid_units::{ByteCount, Duration, Instant, Mode, UnixTime};
use hybrid_wire::address::dialable;
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, Directive, Join, ServerMessage, Want, Welcome};
use hybrid_wire::peer::{AskProofs, Have, Hello, PartReply, PeerMessage, Proofs};
use hybrid_wire::ticket::{Ticket, TicketPolicy};
use hybrid_wire::{
    PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken, Source, UploadContract,
};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::VecDeque;
use std::sync::Arc;

/// The pause after the server failed to send a part and named none.
const SERVER_RETRY: Duration = Duration::from_secs(1);

/// The longest pause that the server may ask for; what a broken server says beyond that is not believed.
const SERVER_RETRY_MAX: Duration = Duration::from_secs(60);

/// What a client may do with peers before the server said more.
const LIMITS_BEFORE_WELCOME: PeerLimits = PeerLimits { connections_max: 16, uploads_max: 1 };

/// Clocks that differ by more are not both right.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// How soon another peer is asked for part ids after one had none.
const PROOFS_RETRY: Duration = Duration::from_millis(200);

/// Neighbours that hear that this client has nothing to send. Four are enough to be heard and too few for a storm.
const IDLE_NOTICES: usize = 4;

/// The most parts that one `AskProofs` may ask for, so that the answer fits a frame.
const PROOFS_PER_ANSWER: u32 = 256;

/// What a welcome gave.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) session: SessionToken,
    ticket: Bytes,
}

/// The client's brain for one content. The crate's documentation tells how to drive it.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Config,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) me: PeerId,
    /// The same moment on both clocks.
    pub(crate) clock: (Instant, UnixTime),
    /// The time of the last input.
    pub(crate) seen: Instant,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) part_bytes: u64,
    /// How many more parts of unknown id may be asked for in this round.
    pub(crate) unknown_room: usize,

    pub(crate) mode: Option<Mode>,
    pub(crate) membership: Option<Membership>,
    pub(crate) limits: PeerLimits,
    /// Since when the server has not been there; `None` from its welcome until the control channel closes.
    pub(crate) server_away: Option<Instant>,
    pub(crate) server_retry_at: Instant,
    /// Failures of the server in a row, refusals apart.
    pub(crate) server_failures: u32,
    pub(crate) grants: VecDeque<PartNumber>,
    pub(crate) playhead: Option<PartNumber>,
    pub(crate) store_full: bool,
    pub(crate) stopped: bool,
    pub(crate) told_complete: bool,

    pub(crate) fetches: Fetches,
    pub(crate) hashes: Hashes,
    pub(crate) connections: Connections,
    pub(crate) known: KnownPeers,
    pub(crate) uploads: Uploads,
    pub(crate) reporting: Reporting,

    pub(crate) started: Instant,
    /// When a part last arrived, or the session began to wait for one.
    pub(crate) last_progress: Instant,
    /// Since when there has been no peer at all; `None` while there is one.
    pub(crate) alone_since: Option<Instant>,
    pub(crate) progress: Progress,
    pub(crate) peers_used: Vec<PeerId>,
    pub(crate) out: VecDeque<Output>,
}

impl Session {
    /// A session for the content of `manifest` that holds `held` already.
    ///
    /// `now` and `unix_now` are the same moment on the two clocks; `me` is the hash of this client's TLS key.
    pub fn new(
        config: Config,
        now: Instant,
        unix_now: UnixTime,
        manifest: Arc<Manifest>,
        me: PeerId,
        held: impl IntoIterator<Item = PartNumber>,
    ) -> Self {
        let layout = manifest.layout();
        let held = PartSet::from_parts(layout.part_count(), held);
        let mut progress = Progress {
            total: ByteCount::new(layout.total_len()),
            parts_total: layout.part_count(),
            parts_held: held.len(),
            ..Progress::default()
        };
        let stored: u64 =
            held.iter().filter_map(|number| layout.part(number)).map(|place| u64::from(place.len())).sum();
        progress.add(Source::Store, stored);
        let playhead = match config.want {
            Want::PlayFrom(number) => Some(PartNumber::new(number)),
            Want::Whole | Want::Seed => None,
        };
        let mut session = Self {
            clock: (now, unix_now),
            seen: now,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            part_bytes: layout.part_len().as_u64(),
            unknown_room: 0,
            mode: None,
            membership: None,
            limits: LIMITS_BEFORE_WELCOME,
            server_away: Some(now),
            server_retry_at: Instant::ZERO,
            server_failures: 0,
            grants: VecDeque::new(),
            playhead,
            store_full: false,
            stopped: false,
            told_complete: false,
            fetches: Fetches::new(held),
            hashes: Hashes::new(&manifest, &config),
            connections: Connections::new(),
            known: KnownPeers::new(&config),
            uploads: Uploads::new(&config),
            reporting: Reporting::new(now),
            started: now,
            last_progress: now,
            alone_since: Some(now),
            progress,
            peers_used: Vec::new(),
            out: VecDeque::new(),
            config,
            manifest,
            me,
        };
        session.tell_if_complete();
        session
    }

    /// The figures at this moment.
    pub fn progress(&self) -> Progress {
        Progress {
            mode: self.mode,
            peers: u32::try_from(self.connections.len()).unwrap_or(u32::MAX),
            peers_used: u32::try_from(self.peers_used.len()).unwrap_or(u32::MAX),
            ..self.progress
        }
    }

    /// Whether the whole content is in the store.
    pub fn is_complete(&self) -> bool {
        self.fetches.held().is_full()
    }

    /// The parts in the store.
    pub fn held(&self) -> &PartSet {
        self.fetches.held()
    }

    /// Takes what happened. `now` never goes back.
    ///
    /// Drain [`Self::poll_output`] until it gives [`Output::Timeout`] before the next call.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        self.seen = self.seen.max(now);
        let now = self.seen;
        match input {
            Input::Timeout => {}
            Input::ControlOpened => self.join(),
            Input::ControlMessage(message) => self.on_server_message(now, message),
            Input::ControlClosed => {
                self.server_away.get_or_insert(now);
                self.reporting.stop();
            }
            Input::HashesReceived { proofs } => self.on_hashes(now, &proofs),
            Input::HashesFailed { retry_after } => {
                self.hashes.failed(now, retry_after.map(|pause| pause.min(SERVER_RETRY_MAX)));
                self.ask_peer_for_proofs();
            }
            Input::PartReceived { source, number, bytes } => self.on_part(now, source, number, bytes),
            Input::PartFailed { source, number, failure } => self.on_part_failed(now, source, number, &failure),
            Input::PartVerified { source, part } => self.on_verified(now, source, part),
            Input::PartRejected { source, number, error: _ } => self.on_rejected(now, source, number),
            Input::Stored { number } => self.on_stored(now, number),
            Input::StoreFailed { number } => {
                self.store_full = true;
                if self.fetches.discard(number).is_some() {
                    self.progress.wasted += ByteCount::new(self.length_of(number).into());
                }
            }
            Input::StoreReady => self.store_full = false,
            Input::StoreLost { number } => self.on_store_lost(number),
            Input::PeerConnected { connection, peer, outgoing, hello } => {
                self.on_peer_connected(now, connection, peer, outgoing, hello);
            }
            Input::DialFailed { peer } => {
                let reachable = self.server_reachable();
                self.known.unreachable(now, peer, reachable);
            }
            Input::PeerMessage { connection, message } => self.on_peer_message(now, connection, message),
            Input::PeerClosed { connection, code } => self.remove_connection(now, connection, code),
            Input::PartRequested { connection, number } => self.on_request(connection, number),
            Input::RequestCancelled { connection, number } => {
                self.uploads.cancel(connection, number);
            }
            Input::PartServed { connection, number, sent_bytes } => self.on_served(connection, number, sent_bytes),
            Input::Seek { number } => self.playhead = Some(number),
            Input::Stop => self.on_stop(now),
        }
        self.expire(now);
        self.dial(now);
        self.fetch(now);
        self.serve(now);
        self.report(now);
    }

    /// What to do next; [`Output::Timeout`] when there is nothing until then.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop_front().unwrap_or_else(|| Output::Timeout(self.wake_at()))
    }

    /// When time alone will change a decision.
    fn wake_at(&self) -> Instant {
        if self.stopped {
            return Instant::FAR_FUTURE;
        }
        let deadlines = self.connections.values().flat_map(|c| c.asked.iter().map(|asked| asked.deadline));
        let fetching = !self.is_complete() && self.mode.is_some();
        let dial = self.may_dial().then(|| self.known.wake_at(|peer| self.connection_to(peer).is_some())).flatten();
        let busy = self.connections.values().filter(|c| fetching && c.uploads).map(|c| c.busy_until);
        let alone = self.alone_since.map_or(Instant::FAR_FUTURE, |since| since + self.config.rescue_after);
        let server = [self.server_retry_at, self.last_progress + self.config.rescue_after, alone];
        deadlines
            .chain(busy.chain(server).filter(|at| fetching && *at > self.seen))
            .chain(self.uploads.wake_at(self.seen))
            .chain(self.hashes.wake_at())
            .chain(dial)
            .chain([self.reporting.due()])
            .min()
            .unwrap_or(Instant::FAR_FUTURE)
            // A timer that is due already was looked at in this very round: it must not spin the driver.
            .max(self.seen + Duration::from_millis(1))
    }

    fn unix(&self) -> UnixTime {
        self.clock.1 + self.seen.since(self.clock.0)
    }

    // ---- The server.

    fn join(&mut self) {
        // A join tells all parts; a report behind it only what came since.
        self.reporting.forget_parts();
        let join = Join {
            version: PROTOCOL_VERSION,
            program: self.config.program.clone(),
            content: self.manifest.content(),
            peer: self.me,
            quic_port: self.config.quic_port.filter(|_| self.config.upload),
            has: PartRanges::from_ascending(self.fetches.held().iter()),
            want: if self.is_complete() { Want::Seed } else { self.config.want },
            contract: UploadContract {
                upload: self.config.upload,
                rate_limit_bytes_per_second: self.config.upload_limit.map(|limit| limit.as_u64()),
            },
        };
        self.out.push_back(Output::SendControl(ClientMessage::Join(join)));
    }

    fn on_server_message(&mut self, now: Instant, message: ServerMessage) {
        match message {
            ServerMessage::Welcome(welcome) => self.on_welcome(now, welcome),
            ServerMessage::Directive(directive) => self.on_directive(now, directive),
            ServerMessage::PartPush(push) => {
                self.on_part(now, PartSource::Push, PartNumber::new(push.number), push.bytes);
            }
            ServerMessage::Bye(bye) => {
                self.reporting.stop();
                self.out.push_back(Output::Event(Event::ServerRefused { bye }));
            }
        }
    }

    fn on_welcome(&mut self, now: Instant, welcome: Welcome) {
        self.server_away = None;
        self.membership = Some(Membership { session: welcome.session, ticket: welcome.ticket });
        self.set_clock(now, welcome.server_time_secs);
        // What was asked of peers, or of nobody, is asked of the server now.
        self.hashes.failed(now, Some(Duration::ZERO));
        self.server_retry_at = Instant::ZERO;
        self.server_failures = 0;
        self.limits = welcome.limits;
        self.reporting.start(now, Duration::from_millis(u64::from(welcome.report_interval_ms)));
        self.progress.mode_at_join.get_or_insert(welcome.mode);
        self.last_progress = now;
        self.alone_since = self.connections.is_empty().then_some(now);
        self.change_mode(welcome.mode, welcome.reasons);
        self.learn_peers(welcome.peers);
        self.take_grants(&welcome.grants);
    }

    /// Tickets are dated by the server's clock, so a wrong clock here would refuse every peer.
    fn set_clock(&mut self, now: Instant, server_secs: u64) {
        let ours_secs = self.unix().as_secs();
        if ours_secs.abs_diff(server_secs) > CLOCK_DIFFERENCE.as_secs() {
            self.clock = (now, UnixTime::from_secs(server_secs));
            self.out.push_back(Output::Event(Event::ClockDiffers { ours_secs, server_secs }));
        }
    }

    fn on_directive(&mut self, now: Instant, directive: Directive) {
        if let Some((mode, reasons)) = directive.mode {
            self.change_mode(mode, reasons);
        }
        if let Some(limits) = directive.limits {
            self.limits = limits;
        }
        if let Some(interval) = directive.report_interval_ms {
            self.reporting.set_interval(now, Duration::from_millis(u64::from(interval)));
        }
        if let (Some(ticket), Some(membership)) = (directive.ticket, &mut self.membership) {
            membership.ticket = ticket;
        }
        for peer in directive.revoked {
            self.known.ban(peer);
            self.close_peer(now, peer, ByeCode::Ticket, "the server revoked the ticket");
        }
        self.learn_peers(directive.peers);
        self.take_grants(&directive.grants);
    }

    fn change_mode(&mut self, mode: Mode, reasons: Vec<String>) {
        self.mode = Some(mode);
        self.out.push_back(Output::Event(Event::Mode { mode, reasons }));
    }

    fn take_grants(&mut self, grants: &PartRanges) {
        let room = (self.progress.parts_total as usize).saturating_sub(self.grants.len());
        self.grants.extend(grants.iter().take(room));
    }

    /// Whether the server answers: its control channel is open and it gave a session.
    pub(crate) fn server_reachable(&self) -> bool {
        self.server_away.is_none() && self.membership.is_some()
    }

    fn on_stop(&mut self, now: Instant) {
        if self.server_away.is_none() {
            let report = self.take_report(now);
            let bye = Bye { code: ByeCode::Done, reason: String::new() };
            self.out.push_back(Output::SendControl(ClientMessage::Report(report)));
            self.out.push_back(Output::SendControl(ClientMessage::Bye(bye)));
        }
        for connection in std::mem::take(&mut self.connections).into_keys() {
            let bye = Bye { code: ByeCode::Shutdown, reason: String::new() };
            self.out.push_back(Output::ClosePeer { connection, bye });
        }
        self.stopped = true;
    }

    fn report(&mut self, now: Instant) {
        if self.stopped || now < self.reporting.due() || self.server_away.is_some() {
            return;
        }
        let report = self.take_report(now);
        self.out.push_back(Output::SendControl(ClientMessage::Report(report)));
    }

    fn take_report(&mut self, now: Instant) -> hybrid_wire::control::Report {
        let peers = u16::try_from(self.connections.len()).unwrap_or(u16::MAX);
        self.reporting.take(now, self.fetches.held().len(), peers, self.progress.start_up)
    }

    // ---- Parts that come.

    fn on_part(&mut self, now: Instant, source: PartSource, number: PartNumber, bytes: Bytes) {
        let length = bytes.len() as u64;
        let mut peer = None;
        if let PartSource::Peer(id) = source {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            peer = Some(connection.peer);
            match connection.answered(number) {
                Some(asked) => connection.measure(asked, length, now),
                // Pushed, or given up in the meantime: welcome from a peer that proved itself, where nobody else is at it.
                None if connection.verified_parts > 0 && self.fetches.flight(number).is_none() => {}
                None => {
                    self.progress.wasted += ByteCount::new(length);
                    return;
                }
            }
        }
        let Some(place) = self.manifest.layout().part(number) else {
            self.progress.wasted += ByteCount::new(length);
            return self.on_misbehaviour(now, source);
        };
        let class = match source {
            PartSource::Server => self.fetches.flight(number).and_then(|flight| flight.server),
            PartSource::Push => Some(Source::ServerGrant),
            PartSource::Peer(_) => Some(Source::Peer),
        };
        // Bytes of the server's that nobody waits for any more still count as what the mode makes them.
        let class = class.unwrap_or_else(|| self.class_of_server_parts());
        let Some(flight) = self.fetches.arrive(number, Arriving { class, peer }) else {
            self.progress.wasted += ByteCount::new(length);
            return;
        };
        self.cancel_others(number, source, &flight.peers, flight.server.is_some());
        if u64::from(place.len()) != length {
            self.fetches.discard(number);
            self.progress.wasted += ByteCount::new(length);
            return self.on_misbehaviour(now, source);
        }
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.awaits_verdict();
        }
        match self.hashes.expect(number) {
            Some(expected) => self.out.push_back(Output::Verify { source, expected, bytes }),
            None => {
                self.hashes.want(number);
                if self.hashes.park(number, source, bytes).is_err() {
                    self.discard(source, number);
                }
            }
        }
    }

    /// Throws away bytes that arrived and are not, or not known to be, the part; gives whose they were.
    fn discard(&mut self, source: PartSource, number: PartNumber) -> Option<PeerId> {
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.judged();
        }
        let arriving = self.fetches.discard(number)?;
        self.progress.wasted += ByteCount::new(self.length_of(number).into());
        arriving.peer
    }

    fn class_of_server_parts(&self) -> Source {
        match self.mode {
            Some(Mode::PeerToPeer) => Source::ServerRescue,
            Some(Mode::ClientServer) | None => Source::ServerDirect,
        }
    }

    /// A part is here: whoever else was asked for it need not send it.
    fn cancel_others(&mut self, number: PartNumber, source: PartSource, peers: &[ConnectionId], server: bool) {
        for id in peers {
            if PartSource::Peer(*id) == source {
                continue;
            }
            if let Some(connection) = self.connections.get_mut(id)
                && connection.answered(number).is_some()
            {
                self.out.push_back(Output::CancelRequest { connection: *id, number });
            }
        }
        if server && source != PartSource::Server {
            self.out.push_back(Output::CancelFetch { number });
        }
    }

    fn on_part_failed(&mut self, now: Instant, source: PartSource, number: PartNumber, failure: &PartFailure) {
        match source {
            PartSource::Push => {}
            PartSource::Server => {
                if self.fetches.server_failed(number) {
                    let pause = match failure {
                        PartFailure::Refused { retry_after } | PartFailure::Busy { retry_in: retry_after, .. } => {
                            (*retry_after).min(SERVER_RETRY_MAX)
                        }
                        PartFailure::Gone | PartFailure::Transport | PartFailure::Misbehaved => {
                            self.server_failures = self.server_failures.saturating_add(1);
                            SERVER_RETRY
                        }
                    };
                    self.server_retry_at = self.server_retry_at.max(now + pause);
                }
            }
            PartSource::Peer(id) => self.on_peer_failed(now, id, number, failure),
        }
    }

    fn on_peer_failed(&mut self, now: Instant, id: ConnectionId, number: PartNumber, failure: &PartFailure) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.answered(number).is_none() {
            return;
        }
        self.fetches.peer_failed(number, id);
        let peer = connection.peer;
        match failure {
            PartFailure::Busy { retry_in, queue } => {
                connection.note_queue(*queue);
                connection.busy_until = now + (*retry_in).clamp(Duration::from_millis(20), Duration::from_secs(30));
            }
            PartFailure::Gone => {
                connection.has.remove(number);
                self.reporting.refused(peer);
            }
            PartFailure::Refused { .. } | PartFailure::Transport => self.strike(now, id),
            PartFailure::Misbehaved => self.on_misbehaviour(now, PartSource::Peer(id)),
        }
    }

    fn on_misbehaviour(&mut self, now: Instant, source: PartSource) {
        match source {
            PartSource::Peer(id) => {
                if let Some(connection) = self.connections.get(&id) {
                    let peer = connection.peer;
                    self.known.ban(peer);
                    self.close_peer(now, peer, ByeCode::Protocol, "a part of the wrong number or length");
                }
            }
            PartSource::Server | PartSource::Push => self.on_server_fault(now),
        }
    }

    fn on_server_fault(&mut self, now: Instant) {
        self.server_failures = self.server_failures.saturating_add(1);
        self.server_retry_at = self.server_retry_at.max(now + SERVER_RETRY);
    }

    pub(crate) fn strike(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.strikes = connection.strikes.saturating_add(1);
        connection.busy_until = connection.busy_until.max(now + Duration::from_millis(500));
        let (peer, out) = (connection.peer, connection.strikes >= self.config.strikes);
        self.reporting.refused(peer);
        if out {
            self.known.rest(now, peer);
            self.close_peer(now, peer, ByeCode::Useless, "too many parts did not come in time");
        }
    }

    fn on_verified(&mut self, now: Instant, source: PartSource, part: VerifiedPart) {
        self.last_progress = now;
        if source == PartSource::Server {
            self.server_failures = 0;
        }
        if part.content() != self.manifest.content() {
            debug_assert!(false, "the driver mixed up two contents");
            return;
        }
        if let PartSource::Peer(id) = source
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.judged();
            connection.proved();
            let peer = connection.peer;
            // As many as there are connections at one time, and as many again: a figure for people, not a ledger.
            if !self.peers_used.contains(&peer) && self.peers_used.len() < 4_096 {
                self.peers_used.push(peer);
            }
        }
        self.out.push_back(Output::Store { part });
    }

    fn on_rejected(&mut self, now: Instant, source: PartSource, number: PartNumber) {
        let sender = self.discard(source, number);
        match (source, sender) {
            // It answers for its bytes even when it has hung up in the meantime.
            (PartSource::Peer(_), Some(peer)) => {
                self.ban(now, peer, "a part did not match its id");
                self.reporting.bad(peer);
                self.reporting.hurry(now);
                self.out.push_back(Output::Event(Event::PeerBanned { peer, number }));
            }
            (PartSource::Peer(_), None) => {}
            (PartSource::Server | PartSource::Push, _) => {
                self.on_server_fault(now);
                self.out.push_back(Output::Event(Event::ServerPartBad { number }));
            }
        }
    }

    /// Never deals with a peer again, and throws away what else of it waits to be verified.
    fn ban(&mut self, now: Instant, peer: PeerId, reason: &str) {
        self.known.ban(peer);
        for number in self.fetches.arriving_from(peer) {
            if !self.hashes.is_known(number) {
                self.hashes.drop_parked(number);
                self.fetches.discard(number);
                self.progress.wasted += ByteCount::new(self.length_of(number).into());
            }
        }
        self.close_peer(now, peer, ByeCode::BadPart, reason);
    }

    fn on_stored(&mut self, now: Instant, number: PartNumber) {
        let Some(class) = self.fetches.stored(number) else { return };
        let length = u64::from(self.length_of(number));
        self.progress.add(class, length);
        self.progress.parts_held = self.fetches.held().len();
        self.progress.start_up.get_or_insert(now.since(self.started));
        self.reporting.part_gained(now, number, class, length);
        self.out.push_back(Output::Event(Event::PartStored { number, source: class, progress: self.progress() }));
        if self.config.upload {
            let queue = self.uploads.queue();
            for (id, connection) in &self.connections {
                if !connection.has.contains(number) {
                    let have = Have { parts: PartRanges::one(number), queue };
                    self.out.push_back(Output::SendPeer { connection: *id, message: PeerMessage::Have(have) });
                }
            }
        }
        self.tell_if_complete();
        if self.is_complete() {
            self.reporting.hurry(now);
        }
    }

    fn tell_if_complete(&mut self) {
        if self.is_complete() && !self.told_complete {
            self.told_complete = true;
            self.out.push_back(Output::Event(Event::Complete { progress: self.progress() }));
        }
    }

    fn on_store_lost(&mut self, number: PartNumber) {
        if let Some(class) = self.fetches.lost(number) {
            self.progress.lose(class, self.length_of(number).into());
            self.progress.parts_held = self.fetches.held().len();
            self.reporting.part_lost(number);
            self.told_complete = false;
        }
    }

    // ---- Part ids.

    fn on_hashes(&mut self, now: Instant, proofs: &[u8]) {
        if !self.hashes.learn(proofs) {
            self.hashes.failed(now, None);
            self.out.push_back(Output::Event(Event::ServerHashesBad));
        }
        self.verify_parked();
    }

    fn verify_parked(&mut self) {
        while let Some((source, expected, bytes)) = self.hashes.unpark() {
            self.out.push_back(Output::Verify { source, expected, bytes });
        }
    }

    pub(crate) fn ask_hashes(&mut self, now: Instant) {
        while let Some(range) = self.hashes.next_request(now) {
            if self.server_reachable() {
                self.out.push_back(Output::FetchHashes { range });
            } else {
                self.ask_peer_for_range(range);
            }
        }
    }

    /// The server did not answer: whoever is connected may have kept its proofs.
    fn ask_peer_for_proofs(&mut self) {
        if !self.server_reachable() {
            self.hashes.failed(self.seen, Some(Duration::ZERO));
        }
    }

    fn ask_peer_for_range(&mut self, range: PartRange) {
        // Who holds parts of the run has known their ids.
        let holds = |connection: &Connection| range.iter().any(|number| connection.has.contains(number));
        let ids: Vec<ConnectionId> = self.connections.iter().filter(|(_, c)| holds(c)).map(|(id, _)| *id).collect();
        let Some(connection) = self.pick(&ids) else { return };
        let ask = AskProofs { first: range.first().as_u32(), count: range.count().min(PROOFS_PER_ANSWER) };
        self.out.push_back(Output::SendPeer { connection, message: PeerMessage::AskProofs(ask) });
    }

    fn answer_proofs(&mut self, connection: ConnectionId, ask: AskProofs) {
        let layout = self.manifest.layout();
        let range = PartRange::new(PartNumber::new(ask.first), ask.count.min(PROOFS_PER_ANSWER))
            .filter(|range| range.end().as_u32() <= layout.part_count());
        // One proof lies within one segment; the rest is asked for again.
        let proof = range.and_then(|range| {
            let segment = layout.part(range.first())?.segment();
            let end = layout.parts_in_segment(segment)?.end().min(range.end());
            let run = PartRange::new(range.first(), end.as_u32() - range.first().as_u32())?;
            self.hashes.prove(run)
        });
        let proofs = Proofs { proofs: proof.map_or_else(Bytes::new, |proof| proof.encode().into()) };
        self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Proofs(proofs) });
    }

    // ---- Peers.

    fn hello(&self) -> Option<Hello> {
        let membership = self.membership.as_ref()?;
        Some(Hello {
            version: PROTOCOL_VERSION,
            content: self.manifest.content(),
            part_len_bytes: self.manifest.layout().part_len().as_u32(),
            ticket: membership.ticket.clone(),
            has: PartRanges::from_ascending(self.fetches.held().iter()),
            uploads: self.config.upload,
        })
    }

    fn learn_peers(&mut self, peers: Vec<PeerCoordinates>) {
        for coordinates in peers {
            if coordinates.peer == self.me {
                continue;
            }
            match dialable(coordinates.address, &self.config.addresses) {
                Ok(()) => self.known.learn(coordinates),
                Err(refused) => {
                    let event = Event::AddressRefused { peer: coordinates.peer, refused };
                    self.out.push_back(Output::Event(event));
                }
            }
        }
    }

    fn connection_to(&self, peer: PeerId) -> Option<ConnectionId> {
        self.connections.iter().find(|(_, connection)| connection.peer == peer).map(|(id, _)| *id)
    }

    /// Whether peers are needed: in the swarm, and when the server that served directly has gone.
    fn may_dial(&self) -> bool {
        let wanted = match self.mode {
            Some(Mode::PeerToPeer) => true,
            Some(Mode::ClientServer) => !self.server_reachable(),
            None => false,
        };
        let room = self.connections.len() + self.known.dialling() < usize::from(self.limits.connections_max);
        wanted && room && !self.stopped && !self.is_complete() && self.membership.is_some()
    }

    /// Dials known peers while there is room and something to gain: a complete client waits to be dialled.
    fn dial(&mut self, now: Instant) {
        if !self.may_dial() {
            return;
        }
        let Some(hello) = self.hello() else { return };
        let room = usize::from(self.limits.connections_max);
        while self.connections.len() + self.known.dialling() < room {
            let connections = &self.connections;
            let connected = |peer| connections.values().any(|connection| connection.peer == peer);
            let Some(peer) = self.known.next_dial(now, connected) else { return };
            self.out.push_back(Output::Dial { peer, hello: hello.clone() });
        }
    }

    fn on_peer_connected(&mut self, now: Instant, id: ConnectionId, peer: PeerId, outgoing: bool, hello: Hello) {
        self.known.dialled(peer);
        // A driver that uses a number again has forgotten to say that the first connection ended.
        self.remove_connection(now, id, ByeCode::Duplicate);
        if let Err((code, reason)) = self.check_hello(now, peer, outgoing, &hello) {
            let bye = Bye { code, reason: reason.to_owned() };
            self.out.push_back(Output::ClosePeer { connection: id, bye });
            return;
        }
        if let Some(other) = self.connection_to(peer) {
            // Both sides dialled at once. The smaller id's dial is kept, on both sides alike; a second dial of the same side
            // means that the first one is dead.
            let dialler = |outgoing: bool| if outgoing { self.me } else { peer };
            let old_outgoing = self.connections.get(&other).is_some_and(|connection| connection.outgoing);
            let keep_new = old_outgoing == outgoing || dialler(outgoing) < dialler(old_outgoing);
            let bye = Bye { code: ByeCode::Duplicate, reason: String::new() };
            if !keep_new {
                self.out.push_back(Output::ClosePeer { connection: id, bye });
                return;
            }
            self.forget_connection(now, other);
            self.out.push_back(Output::ClosePeer { connection: other, bye });
        }
        let has = PartSet::from_parts(self.progress.parts_total, hello.has.iter());
        self.connections.insert(id, Connection::new(peer, outgoing, has, hello.uploads, now));
        self.alone_since = None;
        if !outgoing && let Some(hello) = self.hello() {
            self.out.push_back(Output::AcceptPeer { connection: id, hello });
        }
        self.out.push_back(Output::Event(Event::PeerJoined { peer }));
        self.tell_missed_parts(id, outgoing);
    }

    /// Between the dial's hello and now, parts may have come that the other side was not told of.
    fn tell_missed_parts(&mut self, connection: ConnectionId, outgoing: bool) {
        let held = self.fetches.held();
        if outgoing && self.config.upload && !held.is_empty() {
            let have = Have { parts: PartRanges::from_ascending(held.iter()), queue: self.uploads.queue() };
            self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Have(have) });
        }
    }

    fn check_hello(
        &self,
        now: Instant,
        peer: PeerId,
        outgoing: bool,
        hello: &Hello,
    ) -> Result<(), (ByeCode, &'static str)> {
        if self.known.is_banned(peer) {
            return Err((ByeCode::BadPart, "banned for a bad part"));
        }
        if peer == self.me {
            return Err((ByeCode::Duplicate, "this is myself"));
        }
        if hello.version != PROTOCOL_VERSION {
            return Err((ByeCode::Version, "this program speaks version 1"));
        }
        if hello.content != self.manifest.content() {
            return Err((ByeCode::UnknownContent, "another content"));
        }
        if hello.part_len_bytes != self.manifest.layout().part_len().as_u32() {
            return Err((ByeCode::UnknownContent, "another part length: another manifest"));
        }
        if hello.has.end().as_u32() > self.progress.parts_total {
            return Err((ByeCode::Protocol, "parts beyond the content's end"));
        }
        if self.membership.is_none() {
            return Err((ByeCode::Busy, "not welcomed by the server yet"));
        }
        if !outgoing && self.connections.len() >= usize::from(self.limits.connections_max) {
            return Err((ByeCode::Busy, "all connections are taken"));
        }
        let away = self.server_away.map(|since| now.since(since));
        let policy = TicketPolicy::new(self.manifest.keys(), self.manifest.content(), peer, self.unix())
            .while_away(away, self.manifest.grace());
        match Ticket::check(&hello.ticket, &policy) {
            Ok(_) => Ok(()),
            Err(_) => Err((ByeCode::Ticket, "the ticket is not valid here")),
        }
    }

    fn on_peer_message(&mut self, now: Instant, id: ConnectionId, message: PeerMessage) {
        let parts_total = self.progress.parts_total;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let peer = connection.peer;
        match message {
            PeerMessage::Hello(_) => self.close_peer(now, peer, ByeCode::Protocol, "a second hello"),
            PeerMessage::Have(have) => {
                if have.parts.end().as_u32() > parts_total {
                    return self.close_peer(now, peer, ByeCode::Protocol, "parts beyond the content's end");
                }
                connection.has.insert_all(have.parts.iter());
                connection.note_queue(have.queue);
            }
            PeerMessage::Idle => {
                connection.note_queue(0);
                connection.busy_until = Instant::ZERO;
            }
            PeerMessage::AskProofs(ask) => self.answer_proofs(id, ask),
            PeerMessage::Proofs(proofs) => {
                if proofs.proofs.is_empty() {
                    self.hashes.failed(now, Some(PROOFS_RETRY));
                } else if self.hashes.learn(&proofs.proofs) {
                    self.verify_parked();
                } else {
                    self.ban(now, peer, "a proof does not hold");
                }
            }
            PeerMessage::Bye(bye) => {
                self.remove_connection(now, id, bye.code);
                self.out.push_back(Output::ClosePeer {
                    connection: id,
                    bye: Bye { code: ByeCode::Done, reason: String::new() },
                });
            }
        }
    }

    fn close_peer(&mut self, now: Instant, peer: PeerId, code: ByeCode, reason: &str) {
        if let Some(connection) = self.connection_to(peer) {
            self.remove_connection(now, connection, code);
            let bye = Bye { code, reason: reason.to_owned() };
            self.out.push_back(Output::ClosePeer { connection, bye });
        }
    }

    fn remove_connection(&mut self, now: Instant, id: ConnectionId, code: ByeCode) {
        if let Some(peer) = self.forget_connection(now, id) {
            self.out.push_back(Output::Event(Event::PeerLeft { peer, code }));
        }
    }

    fn forget_connection(&mut self, now: Instant, id: ConnectionId) -> Option<PeerId> {
        let connection = self.connections.remove(&id)?;
        if self.connections.is_empty() {
            self.alone_since = Some(now);
        }
        for asked in connection.asked {
            self.fetches.peer_failed(asked.number, id);
        }
        self.uploads.forget(id);
        self.known.rest(now, connection.peer);
        Some(connection.peer)
    }

    // ---- Serving.

    fn on_request(&mut self, connection: ConnectionId, number: PartNumber) {
        if !self.connections.contains_key(&connection) {
            return;
        }
        let reply = if !self.config.upload || !self.fetches.held().contains(number) {
            PartReply::Gone
        } else {
            match self.uploads.admit(connection, number, self.part_bytes) {
                Admission::Queued => return,
                Admission::Busy { retry_in } => PartReply::Busy {
                    retry_in_ms: u32::try_from(retry_in.as_millis()).unwrap_or(u32::MAX),
                    queue: self.uploads.queue(),
                },
            }
        };
        self.out.push_back(Output::RefuseRequest { connection, number, reply });
    }

    fn serve(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        let slots = usize::from(self.limits.uploads_max.max(1));
        let connections = &self.connections;
        let held = |id: ConnectionId| connections.get(&id).map_or(u32::MAX, |connection| connection.has.len());
        while let Some((connection, number, pace)) = self.uploads.next(now, slots, held) {
            let queue = self.uploads.queue();
            self.out.push_back(Output::ServePart { connection, number, queue, pace });
        }
    }

    fn on_served(&mut self, connection: ConnectionId, number: PartNumber, sent_bytes: u64) {
        self.uploads.ended(connection, number);
        self.progress.sent += ByteCount::new(sent_bytes);
        self.reporting.sent(sent_bytes);
        if let Some(connection) = self.connections.get_mut(&connection)
            && self.manifest.layout().part(number).is_some_and(|place| u64::from(place.len()) == sent_bytes)
        {
            connection.has.insert(number);
        }
        if self.uploads.is_idle() {
            self.call_for_work();
        }
    }

    /// Nothing waits here: tells the neighbours that lack most, so that they move requests from longer queues.
    fn call_for_work(&mut self) {
        let held = self.fetches.held();
        let mut lacking: Vec<(u32, ConnectionId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| held.is_useful_to(&connection.has))
            .map(|(id, connection)| (connection.has.len(), *id))
            .collect();
        lacking.sort_unstable();
        for (_, connection) in lacking.into_iter().take(IDLE_NOTICES) {
            self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Idle });
        }
    }

    /// How long a part is, in bytes.
    pub(crate) fn length_of(&self, number: PartNumber) -> u32 {
        self.manifest.layout().part(number).map_or(0, |place| place.len())
    }

    /// Panics if the session contradicts itself; for tests and the simulator, which call it after each step.
    pub fn check_invariants(&self) {
        self.fetches.check_invariants();
        self.known.check_invariants();
        self.uploads.check_invariants();
        for (number, flight) in self.fetches.flights() {
            for id in &flight.peers {
                let asked =
                    self.connections.get(id).is_some_and(|c| c.asked.iter().any(|asked| asked.number == number));
                assert!(asked, "part {number} is in flight at {id:?}, which was not asked for it");
            }
        }
        for (id, connection) in &self.connections {
            assert!(connection.asked.len() <= self.config.requests_per_peer.max(2), "too many requests at one peer");
            assert!(!self.known.is_banned(connection.peer), "connected to a banned peer");
            for asked in &connection.asked {
                let in_flight = self.fetches.flight(asked.number).is_some_and(|flight| flight.peers.contains(id));
                assert!(in_flight, "part {} was asked of {id:?} and is not in flight", asked.number);
            }
        }
        assert_eq!(self.progress.parts_held, self.fetches.held().len());
        let held: u64 = self.fetches.held().iter().map(|number| u64::from(self.length_of(number))).sum();
        assert_eq!(self.progress.held().as_u64(), held, "each byte held has exactly one source");
    }
}
