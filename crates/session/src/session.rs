//! The session itself: takes inputs, keeps the parts' states, and decides what to ask of whom.

use crate::allowance::Allowance;
use crate::announcements::Announcements;
use crate::arrivals::SERVER_RETRY_MAX;
use crate::availability::Availability;
use crate::connection::Connections;
use crate::fetches::Fetches;
use crate::hashes::Hashes;
use crate::inflow::Inflow;
use crate::lookups::Lookups;
use crate::peers::KnownPeers;
use crate::pushing::Pushes;
use crate::reporting::Reporting;
use crate::uploads::Uploads;
use crate::{Config, Input, Output, Progress};
use bytes::Bytes;
use hybrid_manifest::{Manifest, PartNumber};
use hybrid_swarm::PartSet;
use hybrid_units::{ByteCount, Duration, Instant, Mode, UnixTime};
use hybrid_wire::control::Want;
use hybrid_wire::{PeerId, PeerLimits, SessionToken, Source};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a client may do with peers before the server said more.
const LIMITS_BEFORE_WELCOME: PeerLimits = PeerLimits { connections_max: 16, uploads_max: 1 };

/// What a welcome gave.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The secret for requests to the server; `None` until it welcomed this run of the program.
    pub(crate) session: Option<SessionToken>,
    pub(crate) ticket: Bytes,
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
    pub(crate) pushes: Pushes,

    pub(crate) fetches: Fetches,
    pub(crate) hashes: Hashes,
    pub(crate) connections: Connections,
    pub(crate) availability: Availability,
    pub(crate) announcements: Announcements,
    /// What comes from peers.
    pub(crate) inflow: Inflow,
    pub(crate) known: KnownPeers,
    pub(crate) uploads: Uploads,
    pub(crate) lookups: Lookups,
    pub(crate) allowance: Allowance,
    pub(crate) reporting: Reporting,

    /// No request to a peer is due to be given up before this time.
    pub(crate) expires_at: Instant,
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
            Want::PlayFrom(number) => place_to_play(PartNumber::new(number), layout.part_count()),
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
            pushes: Pushes::default(),
            fetches: Fetches::new(held),
            hashes: Hashes::new(&manifest, &config),
            connections: Connections::default(),
            availability: Availability::new(layout.part_count()),
            announcements: Announcements::default(),
            inflow: Inflow::new(now),
            known: KnownPeers::new(&config),
            lookups: Lookups::default(),
            uploads: Uploads::new(&config, layout.part_count()),
            // All parts but the last have the length of the first.
            allowance: Allowance::new(&config, layout.part(PartNumber::new(0)).map_or(0, |place| place.len().into())),
            reporting: Reporting::new(now),
            expires_at: Instant::FAR_FUTURE,
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
            upload_max: self.allowance.max().map(ByteCount::new),
            uploads_off: self.uploads_off(),
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
            Input::Resume(anchors) => self.resume(now, anchors),
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
            Input::PartBegun { connection, number, queue } => {
                if let Some(connection) = self.connections.get_mut(connection) {
                    connection.begun(number, queue);
                }
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
            Input::DialFailed { peer, answered } => {
                if answered {
                    self.known.answered(peer);
                }
                let reachable = self.server_reachable();
                self.known.unreachable(now, peer, reachable);
            }
            Input::AddressesFound { addresses } => self.on_addresses_found(addresses),
            Input::Identified { address, peer } => self.on_identified(address, peer),
            Input::PeerMessage { connection, message } => self.on_peer_message(now, connection, message),
            Input::PeerClosed { connection, code } => self.remove_connection(now, connection, code),
            Input::PartRequested { connection, number } => self.on_request(now, connection, number),
            Input::RequestCancelled { connection, number } => {
                self.uploads.cancel(connection, number);
            }
            Input::PartServed { connection, number, sent_bytes } => self.on_served(now, connection, number, sent_bytes),
            Input::PartOffered { connection, number } => self.on_offered(now, connection, number),
            Input::PartPushed { connection, number, sent_bytes, taken } => {
                self.on_pushed(now, connection, number, sent_bytes, taken);
            }
            Input::Seek { number } => self.playhead = place_to_play(number, self.progress.parts_total),
            Input::Playing { buffer, ran_dry } => self.reporting.playing(buffer, ran_dry),
            Input::Links { round_trip, sent_packets, lost_packets } => {
                self.reporting.links(round_trip, sent_packets, lost_packets);
            }
            Input::PauseUploads(pause) => self.allowance.pause(pause),
            Input::Stop => self.on_stop(now),
        }
        self.expire(now);
        self.dial(now);
        self.fetch(now);
        self.mind_uploads(now);
        self.serve(now);
        self.push(now);
        self.mind_uploads(now);
        self.ask_peers(now);
        self.look_up(now);
        self.announce(now);
        self.report(now);
    }

    /// What to do next; [`Output::Timeout`] when there is nothing until then.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop_front().unwrap_or_else(|| Output::Timeout(self.wake_at()))
    }

    /// When time alone will change a decision.
    fn wake_at(&mut self) -> Instant {
        if self.stopped {
            return Instant::FAR_FUTURE;
        }
        let fetching = !self.is_complete() && self.mode.is_some();
        let dial = self.may_dial().then(|| self.known.wake_at()).flatten();
        let (mut deadline, mut idle_again, mut ask_again) =
            (Instant::FAR_FUTURE, Instant::FAR_FUTURE, Instant::FAR_FUTURE);
        for connection in self.connections.values() {
            deadline = connection.asked.iter().map(|asked| asked.deadline).fold(deadline, Instant::min);
            let due = connection.asked.iter().map(|asked| asked.due).filter(|due| *due > self.seen);
            ask_again = due.fold(ask_again, Instant::min);
            if connection.uploads && connection.busy_until > self.seen {
                idle_again = idle_again.min(connection.busy_until);
            }
        }
        self.expires_at = deadline;
        let alone = self.alone_since.map_or(Instant::FAR_FUTURE, |since| since + self.config.rescue_after);
        let waits = [idle_again, ask_again, self.server_retry_at, self.last_progress + self.config.rescue_after, alone];
        waits
            .into_iter()
            .filter(|at| fetching && *at > self.seen)
            .chain(self.uploads.wake_at(self.seen, self.upload_slots(), self.pushes.due))
            .chain(self.hashes.wake_at())
            .chain(dial)
            .chain(self.ask_peers_at())
            .chain(self.look_up_at())
            .chain(self.uploads_tell_at())
            .chain([deadline, self.reporting.due(), self.announcements.due()])
            .min()
            .unwrap_or(Instant::FAR_FUTURE)
            // A timer that is due already was looked at in this very round: it must not spin the driver.
            .max(self.seen + Duration::from_millis(1))
    }

    pub(crate) fn unix(&self) -> UnixTime {
        self.clock.1 + self.seen.since(self.clock.0)
    }

    /// How long a part is, in bytes.
    pub(crate) fn length_of(&self, number: PartNumber) -> u32 {
        self.manifest.layout().part(number).map_or(0, |place| place.len())
    }

    /// Panics if the session contradicts itself; for tests and the simulator, which call it after each step.
    pub fn check_invariants(&self) {
        self.fetches.check_invariants();
        self.known.check_invariants();
        self.connections.check_invariants();
        let mut asked = self.connections.values().flat_map(|connection| &connection.asked);
        assert!(asked.all(|asked| asked.deadline >= self.expires_at), "a request is given up too late");
        self.availability.check_invariants(self.connections.values().map(|connection| &connection.has));
        self.uploads.check_invariants();
        self.lookups.check_invariants();
        self.allowance.check_invariants();
        assert!(self.stopped || self.serves() || self.uploads.none_wait(), "somebody waits for what will not come");
        let connected = self.connections.values().map(|connection| connection.peer);
        assert!(self.known.are_connected(connected), "the peers that are connected are not those with connections");
        for (number, flight) in self.fetches.flights() {
            for id in &flight.peers {
                let asked =
                    self.connections.get(*id).is_some_and(|c| c.asked.iter().any(|asked| asked.number == number));
                assert!(asked, "part {number} is in flight at {id:?}, which was not asked for it");
            }
        }
        for (id, connection) in self.connections.iter() {
            assert!(connection.asked.len() <= self.config.requests_per_peer.max(2), "too many requests at one peer");
            assert!(
                connection.asked.len() <= connection.trust(),
                "more was asked of {id:?} than it has given, and one"
            );
            assert!(!self.known.is_banned(connection.peer), "connected to a banned peer");
            for asked in &connection.asked {
                let in_flight = self.fetches.flight(asked.number).is_some_and(|flight| flight.peers.contains(&id));
                assert!(in_flight, "part {} was asked of {id:?} and is not in flight", asked.number);
            }
        }
        assert_eq!(self.progress.parts_held, self.fetches.held().len());
        let held: u64 = self.fetches.held().iter().map(|number| u64::from(self.length_of(number))).sum();
        assert_eq!(self.progress.held().as_u64(), held, "each byte held has exactly one source");
    }
}

/// Beyond the end nothing is played.
fn place_to_play(number: PartNumber, parts: u32) -> Option<PartNumber> {
    (number.as_u32() < parts).then_some(number)
}
