//! The session's constants, each with its reason.

use hybrid_units::{ByteCount, BytesPerSecond, Duration, Ratio};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::Want;

/// What a session may be told. [`Default`] downloads a whole content and serves peers without a rate limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Name and version of the program, for the server's log; at most 64 bytes.
    pub program: String,
    /// Randomness, so that a run can be replayed; different clients need different seeds, or they all ask for the same parts.
    pub seed: u64,
    /// Which addresses may be dialled. The default admits public ones only.
    pub addresses: AddressPolicy,
    /// The UDP port on which this client takes connections from peers; `None` if it takes none.
    pub quic_port: Option<u16>,
    /// Whether the driver can look for peers elsewhere while the server is away ([`Output::LookUp`](crate::Output::LookUp)).
    /// Default `false`.
    pub lookups: bool,
    /// In which order parts are wanted.
    pub want: Want,
    /// Whether this client serves peers.
    pub upload: bool,
    /// How fast it serves them at most.
    pub upload_limit: Option<BytesPerSecond>,
    /// How many bytes of parts it sends in this session at most. A part is sent only if it fits as a whole.
    pub upload_volume_max: Option<ByteCount>,
    /// How much it sends at most for what came in this session and was verified; two parts may be sent before anything came.
    pub upload_ratio_max: Option<Ratio>,
    /// Parts asked of the server at one time in client/server mode. Default 4: hides the round trip without holding a queue.
    pub server_requests: usize,
    /// Parts asked of peers at one time. Default 64; also bounded by what the sources take.
    pub peer_requests: usize,
    /// Parts asked of one peer at one time. Default 16: enough for a source of 1 Gbit/s at 30 ms with parts of 256 KiB.
    pub requests_per_peer: usize,
    /// Requests of one peer that wait here; more are told to come back. Default 8.
    pub queue_per_peer: usize,
    /// Requests of all peers that wait here; more are told to come back. Default 64.
    pub queue_total: usize,
    /// How long a peer may take for a part beyond four times what was expected. Default 3 s: less cuts off a slow uplink in
    /// the middle of a large part.
    pub patience: Duration,
    /// Broken promises after which a peer is let go. Default 3.
    pub strikes: u8,
    /// How long a client in the swarm waits without progress before it asks the server for help. Default 1.5 s.
    pub rescue_after: Duration,
    /// Parts asked of the server as help at one time. Default 2.
    pub rescue_requests: usize,
    /// Part ids asked for at one time. Default 256: 8 KiB of ids cover 64 MiB of parts of 256 KiB.
    pub hashes_per_request: u32,
    /// Bytes of parts that wait for their ids. Default 32 MiB: two of the longest parts.
    pub parked_bytes_max: usize,
    /// How long a peer that could not be reached is left alone. Default 60 s.
    pub redial_after: Duration,
    /// The most peers of which addresses are kept. Default 200.
    pub known_peers_max: usize,
    /// The most keys of which a ban is kept; the oldest are forgotten first. Default 1,024.
    pub banned_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: String::new(),
            seed: 0,
            addresses: AddressPolicy::default(),
            quic_port: None,
            lookups: false,
            want: Want::Whole,
            upload: true,
            upload_limit: None,
            upload_volume_max: None,
            upload_ratio_max: None,
            server_requests: 4,
            peer_requests: 64,
            requests_per_peer: 16,
            queue_per_peer: 8,
            queue_total: 64,
            patience: Duration::from_secs(3),
            strikes: 3,
            rescue_after: Duration::from_millis(1_500),
            rescue_requests: 2,
            hashes_per_request: 256,
            parked_bytes_max: 32 << 20,
            redial_after: Duration::from_secs(60),
            known_peers_max: 200,
            banned_max: 1_024,
        }
    }
}
