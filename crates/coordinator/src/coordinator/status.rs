//! What is known of a content's swarm and of one client, for people.

use super::*;
use crate::Recorded;
use hybrid_qos::{Comparison, Decision, Meter, Summary, Thresholds};

/// A content's swarm, the thresholds of its class, and what they follow from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContentStatus {
    /// The name of its class.
    pub class: String,
    /// Who is there.
    pub stats: ContentStats,
    /// What is compared with now.
    pub thresholds: Thresholds,
    /// What was measured in the last minute.
    pub meters: Vec<(Meter, Summary)>,
    /// How clients fare with peers and without; `None` with too few of either.
    pub comparison: Option<Comparison>,
    /// Whether the swarm would keep it without the server.
    pub survival: Survival,
    /// The last decisions of its class about all: thresholds that moved, moves of clients, peers switched off and on.
    pub decisions: Vec<hybrid_qos::Event>,
    /// The last that happened to clients of this content.
    pub events: Vec<Recorded>,
}

/// Parts that would be lost, on average, if the server stopped and each holder left by itself with some probability.
///
/// Only copies count that are known to be there, not what a holder says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Survival {
    /// If one holder in ten left.
    pub lost_of_tenth: f64,
    /// If one in five left.
    pub lost_of_fifth: f64,
}

impl Survival {
    /// Whether the server may stop: with one holder in five gone, a part is lost in less than one case of a hundred.
    ///
    /// A part with n copies is lost with 0.2^n, so 4,096 parts need nine copies each, and one part needs three.
    pub fn may_stop(&self) -> bool {
        self.lost_of_fifth < 0.01
    }
}

/// A client that is there now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientStatus {
    /// Its content.
    pub content: ContentId,
    /// Its mode.
    pub mode: Mode,
    /// Parts that it reported to have.
    pub parts_held: u32,
    /// Of so many.
    pub parts_total: u32,
    /// What it said last of its download rate.
    pub rate: BytesPerSecond,
    /// What is known of its uplink.
    pub uplink: BytesPerSecond,
    /// Receivers that it may serve at a time.
    pub receivers_max: u8,
    /// Whether others can dial it.
    pub reachable: bool,
    /// Whether it is served without peers for comparison.
    pub control: bool,
    /// When it joined.
    pub joined_at: Instant,
    /// When it reported last.
    pub reported_at: Instant,
}

impl Content {
    fn survival(&self) -> Survival {
        Survival { lost_of_tenth: self.expected_lost(0.1), lost_of_fifth: self.expected_lost(0.2) }
    }
}

impl Coordinator {
    /// All that is known of a content's swarm; `None` for a content that is not in the catalogue.
    pub fn status(&self, content: ContentId) -> Option<ContentStatus> {
        let swarm = self.contents.get(&content)?;
        let class = self.quality.class(swarm.class);
        let meters = Meter::ALL.into_iter().filter_map(|meter| Some((meter, class.engine.summary(meter)?)));
        // Of verdicts, the clients' events tell.
        let about_all = |event: &&hybrid_qos::Event| !matches!(event.decision, Decision::Verdict(_));
        Some(ContentStatus {
            class: class.name.clone(),
            stats: self.stats(content)?,
            thresholds: class.engine.thresholds(),
            meters: meters.collect(),
            comparison: class.engine.comparison(),
            survival: swarm.survival(),
            decisions: class.engine.events().filter(about_all).cloned().collect(),
            events: self.history.iter().filter(|recorded| recorded.content == content).cloned().collect(),
        })
    }

    /// How each content that has clients would fare without the server.
    pub fn survivals(&self) -> impl Iterator<Item = (ContentId, Survival)> {
        let used = self.contents.iter().filter(|(_, swarm)| !swarm.members.is_empty());
        used.map(|(content, swarm)| (*content, swarm.survival()))
    }

    /// What happened to some clients lately, of whatever content.
    pub fn events_of(&self, wanted: impl Fn(PeerId) -> bool) -> impl Iterator<Item = &Recorded> {
        self.history.iter().filter(move |recorded| wanted(recorded.peer))
    }

    /// The state of some clients, at each content that they are there for now.
    pub fn clients_of(&self, wanted: impl Fn(PeerId) -> bool) -> Vec<ClientStatus> {
        let of_peer = self.clients.iter().filter(|(_, client)| wanted(client.peer));
        let status = |(id, client): (&ClientId, &Client)| {
            let swarm = self.contents.get(&client.content)?;
            Some(ClientStatus {
                content: client.content,
                mode: client.mode,
                parts_held: swarm.held(*id, client.place).map_or(0, PartSet::len),
                parts_total: swarm.part_count(),
                rate: client.rate,
                uplink: BytesPerSecond::new(client.uplink_known()),
                receivers_max: client.limits.uploads_max,
                reachable: client.coordinates.is_some(),
                control: client.control,
                joined_at: client.joined_at,
                reported_at: client.reported_at,
            })
        };
        of_peer.filter_map(status).collect()
    }
}
