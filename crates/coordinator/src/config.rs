//! The coordinator's constants, each with its reason.

use hybrid_units::{BytesPerSecond, Duration};
use hybrid_wire::address::AddressPolicy;

/// What the server sends to a swarm, beyond what its members ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a configuration must handle every kind")]
pub enum EgressPolicy {
    /// All that its link takes: each part once, then rare parts again, to those who are nearest their end, until everybody has
    /// nearly everything.
    #[default]
    Fast,
    /// One copy, and then only what no member holds, is late or was lost. A client that was served directly because it found
    /// nobody joins the swarm as soon as there is one, whatever the thresholds allow.
    Thrifty,
}

/// One class of contents, beside the one that [`Config::qos`] and [`Config::egress_policy`] describe.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "who makes a class must know all that it has")]
pub struct ClassConfig {
    /// What [`Input::ContentAdded`](crate::Input::ContentAdded) calls it.
    pub name: String,
    /// Its thresholds; its number of direct clients counts its own clients only.
    pub qos: hybrid_qos::Config,
    /// What the server sends to its swarms.
    pub egress_policy: EgressPolicy,
}

/// What a coordinator may be told. [`Default`] is for a public server of files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The thresholds of contents of no other class.
    pub qos: hybrid_qos::Config,
    /// Other classes of contents. Default none.
    pub classes: Vec<ClassConfig>,
    /// Which addresses may be given to peers. The default admits public ones only.
    pub addresses: AddressPolicy,
    /// Randomness, so that a run can be replayed: peer lists and the choice of who gets a part depend on it.
    pub seed: u64,
    /// How long a ticket lasts. Default 1 h: a revoked peer is gone within the hour, and a renewal costs 20 µs of signing.
    pub ticket_ttl: Duration,
    /// Peers in the list of a newcomer with a mean uplink; one with a slow uplink gets down to three fifths of them, one with a
    /// fast uplink up to two and a half times as many. Default 20: within 0.1 % of a full mesh for equal uplinks in our simulations
    /// (`docs/ARCHITECTURE.md`, "How near the limit"), and a bound on what one client can learn of others.
    pub peers_per_list: usize,
    /// Peers of one public network (an IPv4 /24 or an IPv6 /48) in a list; of the IPv4 /16 or IPv6 /32 around it a quarter of the
    /// list. Of the client's own networks, half of the list. Default 2: whoever has a whole network of addresses is not all that
    /// a client knows.
    pub peers_per_network: usize,
    /// The share of that list that is picked uniformly, in percent; the rest are the fastest uplinks of the sample.
    /// Default 60: the uniform part keeps the graph an expander, whatever the rest does.
    pub uniform_share_percent: usize,
    /// Connections that a client with a mean uplink may have with peers; others have them in proportion to their lists.
    /// Default 40: twice the list, so that newcomers can always dial in.
    pub peer_connections_max: u16,
    /// The most parts that a client may send at one time. Default 16: a client sends as few as keep its uplink busy, four over a
    /// slow one (`docs/decisions/uploads.md` has the figures), and this bounds what a fast one holds open.
    pub uploads_max: u8,
    /// What the server sends beyond one copy of each part. Default [`EgressPolicy::Fast`]: a link that is paid for should not
    /// idle while clients wait.
    pub egress_policy: EgressPolicy,
    /// Parts given to a newcomer of the swarm with its welcome: the first is pushed, the others are granted, for it to fetch.
    /// While as many pushes are under way as may be, it gets one later, unless it got something from a peer meanwhile.
    /// Default 1: enough to have something to give, and what each newcomer costs the server.
    pub starter_parts: u16,
    /// Pushes under way at one time, over all contents. Default 4: the link is full with two, and a slow receiver must not
    /// hold up the others.
    pub pushes_in_flight_max: usize,
    /// Pushes under way at one time beyond one copy of each part. Default 2: they give way to clients in client/server mode,
    /// which share the link with them.
    pub top_ups_in_flight_max: usize,
    /// Pushes under way to one client. Default 2: the next one is there when the first ends.
    pub pushes_per_client_max: u8,
    /// How long a part that was sent but not reported counts as a copy, beyond one report interval and the time that
    /// [`Self::slow_link`] takes for it. Default 2 s: queues on the way.
    pub lease: Duration,
    /// How much longer a part counts that still waits to be written to its client. Default 15 s: a server at its egress limit
    /// lets pushes wait, and one that is sent again meanwhile is sent twice.
    pub push_patience: Duration,
    /// A link that the server is patient with. Default 2 Mbit/s: 4 s for a part of 1 MiB.
    pub slow_link: BytesPerSecond,
    /// Help for a client in the swarm: one part per this time is given even though peers hold it. Default 2 s.
    pub rescue_interval: Duration,
    /// The shortest interval between a client's reports. Default 250 ms: what a young swarm needs to spread parts evenly.
    pub report_interval_min: Duration,
    /// The longest. Default 10 s: what an old swarm needs for tickets and rarity.
    pub report_interval_max: Duration,
    /// Reports that the server is willing to read per second, over all clients. Default 2,000: about 1 % of a core.
    pub reports_per_second: u32,
    /// The most clients at one time. Default 100,000: at about 1.9 KB each, 190 MB.
    pub clients_max: usize,
    /// The most of them in one public network (an IPv4 /24 or an IPv6 /48). Default 6,250, a sixteenth of all: many, since a
    /// mobile network may put a whole crowd behind one address, and so few that one network cannot take all places.
    pub clients_per_network_max: usize,
    /// The most contents. Default 100,000.
    pub contents_max: usize,
    /// Events of clients that are kept for [`Coordinator::status`](crate::Coordinator::status). Default 4,096: at about 500 bytes
    /// each, 2 MiB.
    pub events_max: usize,
    /// From how many other networks members must have got parts from a member before its own word of what it holds counts.
    /// Default 1; 0 for a closed network, all clients of which are one's own.
    pub vouchers_needed: u8,
    /// Whether the word of members counts at once whose address is not public, but of a network that [`Self::addresses`] admits.
    /// Default true: a LAN is one network, so nobody could vouch there, and whoever admitted it knows who is in it.
    pub trust_admitted_networks: bool,
    /// From how many networks it must be said that a peer sent bad parts before it is no longer given to newcomers; they must
    /// also be more than those from which members got good parts. Default 3: one or two could slander; the victims themselves
    /// have dropped it at the first bad part.
    pub accusers_to_hide: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            qos: hybrid_qos::Config::default(),
            classes: Vec::new(),
            addresses: AddressPolicy::default(),
            seed: 0,
            ticket_ttl: Duration::from_secs(3_600),
            peers_per_list: 20,
            peers_per_network: 2,
            uniform_share_percent: 60,
            peer_connections_max: 40,
            uploads_max: 16,
            egress_policy: EgressPolicy::default(),
            starter_parts: 1,
            pushes_in_flight_max: 4,
            top_ups_in_flight_max: 2,
            pushes_per_client_max: 2,
            lease: Duration::from_secs(2),
            push_patience: Duration::from_secs(15),
            slow_link: BytesPerSecond::from_bits_per_second(2_000_000),
            rescue_interval: Duration::from_secs(2),
            report_interval_min: Duration::from_millis(250),
            report_interval_max: Duration::from_secs(10),
            reports_per_second: 2_000,
            clients_max: 100_000,
            clients_per_network_max: 6_250,
            contents_max: 100_000,
            events_max: 4_096,
            vouchers_needed: 1,
            trust_admitted_networks: true,
            accusers_to_hide: 3,
        }
    }
}
