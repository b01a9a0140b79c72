//! What to ask of whom: the session's choice of parts and sources.
//!
//! In client/server mode the server is asked for everything.
//! In peer-to-peer mode grants come first, then peers by their load, and the server again only when the peers let the
//! client starve.

use crate::connection::{Asked, Connection};
use crate::{ConnectionId, Output, Session};
use hybrid_manifest::PartNumber;
use hybrid_swarm::PartSet;
use hybrid_units::{Duration, Instant, Mode};
use hybrid_wire::Source;
use rand::RngExt;

/// A second source is asked for a part only if it would be this much sooner: a cancelled transfer wastes what was sent.
const SOONER: f64 = 1.5;

/// At most so many sources are asked for one part at one time.
const SOURCES_PER_PART: usize = 2;

/// In client/server mode, so many failures of the server in a row send the client to its peers as well.
const FAILURES_TO_LOOK_AROUND: u32 = 2;

/// For how long requests should be out: the queue of a slow uplink, both ways, and our own reaction.
const AHEAD: Duration = Duration::from_millis(600);

/// Parts that may always be asked for at one time, before it is known how fast they come. In the harness of
/// `docs/PERFORMANCE.md`, 8 within 400 ms and 16 within 1 s made no difference among equal uplinks, and with unequal ones 16
/// within 1 s were slower (1.46 against 1.41 times the bound; one run each).
const REQUESTS_MIN: usize = 10;

/// Parts from the reader's place on that are asked for in order; what lies behind is asked for as in a download, so that those
/// who are ahead have something to give to those behind. 32 parts of 256 KiB are 13 s of a stream of 5 Mbit/s.
const PLAY_WINDOW: u32 = 32;

/// A part that was asked of one peer only.
#[derive(Clone, Copy, Debug)]
struct Late {
    /// Until it should be here.
    eta_secs: f64,
    number: PartNumber,
    other: ConnectionId,
    /// Whether it is being sent.
    begun: bool,
}

impl Session {
    /// Gives up requests that took too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        if now < self.expires_at {
            return;
        }
        let late: Vec<(ConnectionId, PartNumber)> = self
            .connections
            .iter()
            .flat_map(|(id, c)| {
                c.asked.iter().filter(|asked| asked.deadline <= now).map(move |asked| (id, asked.number))
            })
            .collect();
        for (id, number) in late {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if let Some(asked) = connection.answered(number) {
                let unproven = connection.verified_parts == 0;
                self.fetches.peer_failed(number, id);
                self.out.push_back(Output::CancelRequest { connection: id, number });
                if asked.begun && unproven {
                    self.bar(now, id);
                }
                self.strike(now, id);
            }
        }
    }

    pub(crate) fn fetch(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        let unknown = if self.hashes.are_in_manifest() {
            0
        } else {
            self.fetches.flights().filter(|(number, _)| !self.hashes.is_known(*number)).count()
        };
        self.unknown_room = self.hashes.room_for_unknown(unknown, self.part_bytes);
        if !self.store_full && !self.is_complete() {
            match self.mode {
                Some(Mode::ClientServer) => {
                    self.fetch_direct(now);
                    if !self.server_reachable() || self.server_failures >= FAILURES_TO_LOOK_AROUND {
                        self.fetch_from_peers(now);
                    }
                }
                Some(Mode::PeerToPeer) => {
                    self.fetch_grants(now);
                    self.fetch_from_peers(now);
                    self.fetch_rescue(now);
                }
                None => {}
            }
        }
        self.ask_hashes(now);
    }

    /// Where to look for the next part: at the playhead when the content is being used, else anywhere, so that no two clients
    /// hold the same parts.
    fn start(&mut self) -> PartNumber {
        match self.playhead {
            Some(number) => number,
            None => PartNumber::new(self.rng.random_range(0..self.progress.parts_total.max(1))),
        }
    }

    /// A part whose id is not known is asked for together with its id; only so many may wait for theirs.
    pub(crate) fn want_id(&mut self, number: PartNumber) {
        if !self.hashes.is_known(number) {
            self.hashes.want(number);
            self.unknown_room = self.unknown_room.saturating_sub(1);
        }
    }

    fn server_takes_requests(&self, now: Instant) -> bool {
        self.server_reachable() && now >= self.server_retry_at && self.unknown_room > 0
    }

    fn ask_server(&mut self, number: PartNumber, class: Source) {
        let Some(session) = self.membership.as_ref().and_then(|membership| membership.session) else { return };
        self.fetches.ask_server(number, class);
        self.want_id(number);
        let length_bytes = self.length_of(number);
        self.out.push_back(Output::FetchPart { number, length_bytes, session });
    }

    fn fetch_direct(&mut self, now: Instant) {
        while self.server_takes_requests(now) && self.fetches.server_requests() < self.config.server_requests {
            let start = self.start();
            let number = match self.playhead {
                Some(_) => self.fetches.any_open_from(start),
                // What no neighbour has yet: a part that the server need not send to them, and that is safe once it is here.
                None => self.availability.rarest(self.fetches.everything(), self.fetches.taken(), start, 0),
            };
            let Some(number) = number else { return };
            self.ask_server(number, Source::ServerDirect);
        }
    }

    fn fetch_grants(&mut self, now: Instant) {
        while !self.grants.is_empty()
            && self.server_takes_requests(now)
            && self.fetches.server_requests() < self.config.server_requests
        {
            let Some(number) = self.grants.pop_front() else { return };
            if self.fetches.is_open(number) {
                self.ask_server(number, Source::ServerGrant);
            }
        }
    }

    /// Asks as many peers as bring what is wanted soon, and beyond that whoever has nothing to do.
    fn fetch_from_peers(&mut self, now: Instant) {
        let asked = self.connections.values().flat_map(|connection| &connection.asked);
        // What does not come must not keep the session from asking others.
        let mut requests = asked.filter(|asked| asked.due > now).count();
        let most = self.requests_max(now);
        while requests < self.config.peer_requests && self.unknown_room > 0 {
            let start = self.start();
            let Some((id, number)) = self.least_loaded(now, start, requests >= most) else { break };
            self.ask_peer(now, id, number);
            requests += 1;
        }
        self.relieve(now);
        self.relieve_server(now);
    }

    /// Asks a peer that has nothing to do for us for what the server was asked for as help.
    ///
    /// The server may be busy with all of a crowd: a part that peers hold by now would come last from there.
    fn relieve_server(&mut self, now: Instant) {
        for number in self.fetches.asked_of_server_alone(Source::ServerRescue) {
            let holders = self.connections.iter().filter(|(_, connection)| {
                connection.asked.is_empty()
                    && connection.has.contains(number)
                    && connection.takes_requests(now, &self.config, self.part_bytes)
            });
            let soonest =
                holders.min_by(|(_, a), (_, b)| a.eta_secs(self.part_bytes).total_cmp(&b.eta_secs(self.part_bytes)));
            if let Some(id) = soonest.map(|(id, _)| id) {
                self.ask_peer(now, id, number);
            }
        }
    }

    /// How many parts may be asked of all peers: what comes within [`AHEAD`], so that no source idles while a request is on
    /// its way. More would only wait in queues, each at the mercy of its source, and make the end of the download long.
    fn requests_max(&self, now: Instant) -> usize {
        let coming = self.inflow.rate(now) * AHEAD.as_secs_f64() / self.part_bytes.max(1) as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to some dozens")]
        let coming = coming.clamp(0.0, 4_096.0) as usize;
        coming.max(REQUESTS_MIN).min(self.config.peer_requests)
    }

    fn ask_peer(&mut self, now: Instant, id: ConnectionId, number: PartNumber) {
        let part_bytes = self.part_bytes;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let deadline = connection.ask(number, now, part_bytes);
        self.expires_at = self.expires_at.min(deadline);
        self.fetches.ask_peer(number, id);
        self.want_id(number);
        let length_bytes = self.length_of(number);
        self.out.push_back(Output::RequestPart { connection: id, number, length_bytes });
    }

    /// The source that would be done soonest with another part, among all or only among the idle, and an open part that it holds.
    ///
    /// Load decides, not rarity: in our simulations of swarms with unequal uplinks, the choice of the source made the
    /// difference between 2 and 1.05 times the ideal time, the choice of the part none, as long as each has several holders.
    fn least_loaded(&self, now: Instant, start: PartNumber, idle: bool) -> Option<(ConnectionId, PartNumber)> {
        if !self.fetches.any_open() {
            return None;
        }
        let mut soonest: Option<(f64, ConnectionId, &Connection)> = None;
        for (id, connection) in self.connections.iter() {
            if (idle && !connection.is_idle()) || !connection.takes_requests(now, &self.config, self.part_bytes) {
                continue;
            }
            let eta_secs = connection.eta_secs(self.part_bytes);
            // What it holds is looked at last: that is the dearest question.
            if soonest.is_none_or(|(least, ..)| eta_secs < least) && connection.has.is_useful_to(self.fetches.taken()) {
                soonest = Some((eta_secs, id, connection));
            }
        }
        let (_, id, connection) = soonest?;
        Some((id, self.choose(&connection.has, start)?))
    }

    /// An open part that this peer holds: the next one for a reader who is near it, else one that few others hold.
    ///
    /// A part that waits for its turn at its only holder keeps everybody waiting in the end, so it is asked for while there is
    /// other work to be done.
    fn choose(&self, has: &PartSet, start: PartNumber) -> Option<PartNumber> {
        if self.playhead.is_some() {
            let next = self.fetches.open_from(has, start)?;
            let ahead = (next.as_u32() + self.progress.parts_total - start.as_u32()) % self.progress.parts_total.max(1);
            if ahead < PLAY_WINDOW {
                return Some(next);
            }
        }
        // This peer holds it, so one holder is the least.
        self.availability.rarest(has, self.fetches.taken(), start, 1)
    }

    /// Gives idle sources the parts that wait longest at others: stolen when the other has not begun, asked twice at the end.
    ///
    /// While there are open parts, a source that still has nothing to do has none of them. That is so in a young swarm, where
    /// whoever got a part first has everybody in line and those who got it next have nobody.
    fn relieve(&mut self, now: Instant) {
        let part_bytes = self.part_bytes;
        let open = self.fetches.any_open();
        let idle = || {
            let idle = self.connections.iter().filter(|(_, c)| if open { c.is_idle() } else { c.asked.is_empty() });
            idle.filter(|(_, c)| c.takes_requests(now, &self.config, part_bytes))
        };
        // Most of the time nothing is late enough for anybody, and there is no need to look closer.
        let etas = idle().map(|(_, connection)| connection.eta_secs(part_bytes));
        let Some(soonest) = etas.min_by(f64::total_cmp) else { return };
        let asked =
            self.connections.values().flat_map(|c| c.asked.iter().enumerate().map(move |(place, a)| (c, place, a)));
        if !asked.into_iter().any(|(c, place, asked)| self.eta_of(c, place, asked, now) > SOONER * soonest) {
            return;
        }
        let mut idle: Vec<(bool, ConnectionId)> = idle().map(|(id, c)| (c.verified_parts == 0, id)).collect();
        // What is late already is not lent to a stranger while there is anybody else.
        idle.sort_unstable();
        // The same for all idle sources until one of them is asked.
        let mut late: Option<Vec<Late>> = None;
        for (_, id) in idle {
            let list = late.get_or_insert_with(|| self.late_parts(now));
            let Some(connection) = self.connections.get(id) else { continue };
            let soon = SOONER * connection.eta_secs(part_bytes);
            let Some(&Late { number, other, begun, .. }) =
                list.iter().take_while(|late| late.eta_secs > soon).find(|late| connection.has.contains(late.number))
            else {
                continue;
            };
            if !begun && let Some(slow) = self.connections.get_mut(other) {
                if let Some(asked) = slow.answered(number) {
                    // It has not begun, so it cannot have spoiled anything.
                    slow.passed_over(asked, now);
                }
                self.ask_peer(now, id, number);
                self.fetches.peer_failed(number, other);
                self.out.push_back(Output::CancelRequest { connection: other, number });
                late = None;
            } else if !open {
                self.ask_peer(now, id, number);
                late = None;
            }
        }
    }

    /// Seconds until a part that was asked for should be here. What is overdue will take as long again as it has taken.
    fn eta_of(&self, connection: &Connection, place: usize, asked: &Asked, now: Instant) -> f64 {
        let waited = now.since(asked.since).as_secs_f64();
        let eta = connection.eta_secs_at(place, self.part_bytes) - waited;
        if eta > 0.0 { eta } else { waited }
    }

    /// The parts that one peer was asked for and nobody else, those first that will be longest in coming.
    fn late_parts(&self, now: Instant) -> Vec<Late> {
        let mut late: Vec<Late> = Vec::new();
        for (id, connection) in self.connections.iter() {
            for (place, asked) in connection.asked.iter().enumerate() {
                if self.fetches.flight(asked.number).is_none_or(|flight| flight.sources() >= SOURCES_PER_PART) {
                    continue;
                }
                let eta_secs = self.eta_of(connection, place, asked, now);
                late.push(Late { eta_secs, number: asked.number, other: id, begun: asked.begun });
            }
        }
        late.sort_unstable_by(|a, b| b.eta_secs.total_cmp(&a.eta_secs).then(a.number.cmp(&b.number)));
        late
    }

    /// Asks the server for help when peers brought nothing for a while, and all the time when there is none to be reached.
    fn fetch_rescue(&mut self, now: Instant) {
        let alone = self.alone_since.is_some_and(|since| now >= since + self.config.rescue_after);
        if !alone && now < self.last_progress + self.config.rescue_after {
            return;
        }
        while self.server_takes_requests(now) && self.fetches.server_requests() < self.config.rescue_requests {
            let start = self.start();
            let open = self.fetches.any_open_from(start);
            // Everything is asked for and nothing comes: the part that has been waited for longest.
            let number = open.or_else(|| {
                let waiting = |number| {
                    let asked = self.connections.values().flat_map(|connection| &connection.asked);
                    asked.filter(|asked| asked.number == number).map(|asked| asked.since).min()
                };
                let flights = self.fetches.flights().filter(|(_, flight)| flight.server.is_none());
                flights.min_by_key(|(number, _)| waiting(*number)).map(|(number, _)| number)
            });
            let Some(number) = number else { return };
            self.ask_server(number, Source::ServerRescue);
        }
    }

    /// One of these at random.
    pub(crate) fn pick(&mut self, ids: &[ConnectionId]) -> Option<ConnectionId> {
        let index = self.rng.random_range(0..ids.len().max(1));
        ids.get(index).copied()
    }
}
