//! Who changes the mode while it is served.

use super::*;
use crate::quality::ClassIndex;

/// A client that came to the swarm less long ago is not yet served as it will be: it is connecting, and has little to give.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Sends those to the swarm who were served directly because there was nobody else, now that there is.
    pub(super) fn spare_direct_clients(&mut self, now: Instant, content: ContentId) {
        let Some(swarm) = self.contents.get(&content) else { return };
        let spared = |id: &ClientId| {
            self.clients.get(id).is_some_and(|client| {
                let others = swarm.reachable() - u32::from(client.coordinates.is_some());
                client.mode == Mode::ClientServer
                    && !client.complete
                    && others >= self.quality.class(swarm.class).engine.config().holders_min
            })
        };
        let spared: Vec<ClientId> = swarm.members.iter().copied().filter(spared).collect();
        for client in spared {
            self.move_to_swarm(now, client, THRIFTY.to_owned());
        }
    }

    /// Sends a client to the swarm that was served directly; it goes on with what it holds.
    fn move_to_swarm(&mut self, now: Instant, client: ClientId, reason: String) {
        let peers = self.peer_list(client);
        self.set_mode(now, client, Mode::PeerToPeer, vec![reason], peers);
    }

    /// Tells a client of its new mode. What it holds and what is on its way to it stays.
    fn set_mode(
        &mut self,
        now: Instant,
        client: ClientId,
        mode: Mode,
        reasons: Vec<String>,
        peers: Vec<PeerCoordinates>,
    ) {
        let Some(record) = self.clients.get_mut(&client) else { return };
        let Some(swarm) = self.contents.get(&record.content) else { return };
        let direct_clients = &mut self.quality.class_mut(swarm.class).direct_clients;
        match mode {
            Mode::ClientServer => *direct_clients += 1,
            Mode::PeerToPeer => *direct_clients -= 1,
        }
        record.mode = mode;
        record.moved = true;
        record.slow_since = None;
        // What it was served at before says nothing of now.
        record.service = Service::new(now);
        self.hungry.insert(record.content);
        let directive = Directive { mode: Some((mode, reasons.clone())), peers, ..Directive::default() };
        self.record(now, client, Event::ModeChanged { client, mode, reasons });
        self.out.push_back(Output::Send { client, message: ServerMessage::Directive(directive) });
    }

    /// Moves as many clients as the thresholds say, of each class.
    pub(super) fn balance(&mut self, now: Instant) {
        for index in 0..self.quality.len() {
            let (clients, contents) = (&self.clients, &self.contents);
            let class = self.quality.class_mut(index);
            let required = class.engine.config().required_rate;
            let mut waiting = Vec::new();
            let count = || {
                waiting = worst_served(clients, contents, now, index, required);
                u32::try_from(waiting.len()).unwrap_or(u32::MAX)
            };
            let Moves { to_swarm, to_direct, .. } = class.engine.moves(now, class.direct_clients, count);
            if to_swarm == 0 && to_direct == 0 {
                continue;
            }
            let (direct, allowed) = (class.direct_clients, class.engine.thresholds().direct_clients);
            let reason = format!("direct clients {direct} of {allowed} allowed");
            for client in self.most_to_fetch(index, to_swarm) {
                self.move_to_swarm(now, client, reason.clone());
            }
            for client in waiting.into_iter().take(to_direct as usize) {
                self.set_mode(now, client, Mode::ClientServer, vec![reason.clone()], Vec::new());
            }
        }
    }

    /// Direct clients that lack most, who have most to gain in the swarm; those of the control group last.
    fn most_to_fetch(&self, class: ClassIndex, count: u32) -> Vec<ClientId> {
        if count == 0 {
            return Vec::new();
        }
        let needed = self.quality.class(class).engine.config().holders_min;
        let mut clients = ranked(&self.clients, &self.contents, class, |swarm, id, client| {
            let others = swarm.reachable() - u32::from(client.coordinates.is_some());
            let held = swarm.held(id, client.place).map_or(0, PartSet::len);
            (client.mode == Mode::ClientServer && others >= needed).then_some((client.control, held))
        });
        clients.truncate(count as usize);
        clients
    }

    /// Sends a direct client to the swarm that has been served worse than it should be for some time, more slowly than the
    /// content requires or than members that came later: the server has shown that it cannot, and the members may.
    pub(super) fn relieve_direct(&mut self, now: Instant, client: ClientId, rate: BytesPerSecond) {
        let Some(class) = self.class_of(client) else { return };
        let required = self.quality.class(class).engine.config().required_rate;
        let needed = self.quality.class(class).engine.config().holders_min;
        let direct = self
            .clients
            .get(&client)
            .is_some_and(|client| client.mode == Mode::ClientServer && !client.complete && !client.control);
        let overtaken = direct && self.is_overtaken(client);
        // A number that follows the clients' rates falls when they do, and those who are too many leave by it.
        let engine = &self.quality.class(class).engine;
        let moves_itself = engine.config().direct_clients == DirectClients::Auto
            && self.quality.class(class).direct_clients > engine.config().direct_floor;
        let Some(record) = self.clients.get_mut(&client) else { return };
        if !direct || !overtaken && (rate >= required || moves_itself) {
            record.slow_since = None;
            return;
        }
        let since = *record.slow_since.get_or_insert(now);
        let Some(swarm) = self.contents.get(&record.content) else { return };
        let others = swarm.reachable() - u32::from(record.coordinates.is_some());
        // Alone on the link a client is as slow as its own.
        let contended = self.quality.direct_clients() > 1 || self.pushes > 0;
        let due = contended && now.since(since) >= SLOW_FOR && now.since(self.moved_at) >= MOVE_INTERVAL;
        if due && others >= needed {
            self.moved_at = now;
            self.quality.class_mut(class).engine.left(now);
            let why = if overtaken { "members that came later are ahead" } else { "the swarm may do better" };
            self.move_to_swarm(now, client, format!("served at {rate}, {required} required: {why}"));
        }
    }

    /// Whether most members of the swarm that came later than this client, of some that are looked at, hold clearly more.
    pub(super) fn is_overtaken(&self, client: ClientId) -> bool {
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

    fn class_of(&self, client: ClientId) -> Option<ClassIndex> {
        Some(self.contents.get(&self.clients.get(&client)?.content)?.class)
    }

    /// Whoever is left in a swarm with nobody to fetch from comes back to the server.
    pub(super) fn take_back_orphans(&mut self, now: Instant, content: ContentId) {
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
            let Some(class) = self.class_of(client) else { continue };
            let newcomer = self.quality.newcomer(class, 0, false);
            let verdict = self.quality.class_mut(class).engine.verdict(now, newcomer);
            if verdict.mode == Mode::ClientServer {
                let reasons = verdict.reasons.iter().map(ToString::to_string).collect();
                self.set_mode(now, client, Mode::ClientServer, reasons, Vec::new());
            }
        }
    }
}

/// Clients of the swarm that get less than required, the slowest first, those that reach nobody before all others. Nobody
/// while parts of its content have no holder: those parts help more of them.
fn worst_served(
    clients: &BTreeMap<ClientId, Client>,
    contents: &BTreeMap<ContentId, Content>,
    now: Instant,
    class: ClassIndex,
    required: BytesPerSecond,
) -> Vec<ClientId> {
    ranked(clients, contents, class, |swarm, _, client| {
        let suffers = client.mode == Mode::PeerToPeer && client.rate < required && swarm.parts_without_holder() == 0;
        let settled = now.since(client.joined_at) >= SETTLED_AFTER;
        (suffers && settled).then_some((client.alone_since.is_none(), client.rate))
    })
}

/// Clients of a class that are not complete, by what is said of each; those of which nothing is said are left out.
fn ranked<K: Ord>(
    clients: &BTreeMap<ClientId, Client>,
    contents: &BTreeMap<ContentId, Content>,
    class: ClassIndex,
    key: impl Fn(&Content, ClientId, &Client) -> Option<K>,
) -> Vec<ClientId> {
    let of_class = clients.iter().filter(|(_, client)| !client.complete).filter_map(|(id, client)| {
        let swarm = contents.get(&client.content).filter(|swarm| swarm.class == class)?;
        Some((key(swarm, *id, client)?, *id))
    });
    let mut all: Vec<(K, ClientId)> = of_class.collect();
    all.sort_unstable();
    all.into_iter().map(|(_, id)| id).collect()
}
