//! Every limit of the transport, in one place.

use hybrid_wire::address::Prefix;
use std::time::Duration;

/// How much one endpoint takes from its peers.
///
/// The defaults keep what a hostile peer sends below 3 MiB of our memory if parts have no more than 1 MiB, where the QUIC library's own would let it hold 255 MiB:
/// its receive window for a whole connection is unlimited.
/// An embedder may lower any of them; who raises one raises what a stranger can make this process hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Bidirectional streams that a peer may have open: one of frames (from the dialler) and one for each part it asks for.
    ///
    /// Default 16: a pipeline of 8 parts, and as many again that are being cancelled.
    pub bidi_streams_max: u32,
    /// One-way streams that a peer may have open: pushed parts. Default 4.
    pub uni_streams_max: u32,
    /// What a peer may send on one stream before we read. Default 512 KiB: one part at full speed and half of the next.
    pub stream_receive_window_bytes: u32,
    /// What a peer may send on all streams before we read. Default 896 KiB: 36 MB/s at a round trip of 25 ms. The library
    /// may hold twice as much, because what it keeps lies in larger buffers; with the part of 1 MiB that is being read that
    /// stays below 3 MiB (`memory.rs` measures it).
    pub receive_window_bytes: u32,
    /// What we hold for a peer that has not acknowledged it. Default 2 MiB: what a peer can take at one time, and some.
    pub send_window_bytes: u64,
    /// Connections that wait for us to take them. Default 256.
    pub incoming_max: usize,
    /// What one waiting connection may send ahead. Default 16 KiB: its handshake.
    pub incoming_buffer_bytes: u64,
    /// What all waiting connections may send ahead. Default 1 MiB.
    pub incoming_buffer_total_bytes: u64,
    /// A connection on which nothing comes for so long is gone. Default 30 s.
    pub idle_timeout: Duration,
    /// How often an idle connection is kept alive. Default 10 s: three chances within the idle timeout, and below the 30 s
    /// after which common NATs forget a UDP flow.
    pub keep_alive: Duration,
    /// From the first packet to the other side's `Hello`. Default 5 s.
    pub handshake_deadline: Duration,
    /// From the opening of a stream to the end of its header. Default 5 s.
    pub header_deadline: Duration,
    /// With more handshakes than this under way with addresses that are not proved, newcomers first prove theirs by a Retry.
    /// Default 16: packets with false senders hold a quarter of [`Self::connections_max`] at most, until their deadline.
    pub retry_above_unproven: u16,
    /// With more newcomers than this in one second, they first prove their address by a Retry. Default 50.
    pub retry_above_new_per_second: u16,
    /// Connections at one time, both directions. Default 64: at 30 KiB each when idle and 3 MiB at worst, 200 MiB at worst.
    pub connections_max: u16,
    /// Connections with one IPv4 /24 or IPv6 /48, both directions, so that one network cannot be all our peers. Default 8.
    ///
    /// Who runs many peers in one network on purpose names that network in [`Self::admitted`].
    pub connections_per_prefix_max: u16,
    /// Networks whose addresses [`Self::connections_per_prefix_max`] does not bound: a LAN is one network. Default none.
    pub admitted: Vec<Prefix>,
    /// What the kernel is asked to buffer for the socket, each way. Default 4 MiB: with the usual 208 KiB, 50 handshakes at a
    /// time lost datagrams and ran at an eighth of the rate.
    pub socket_buffer_bytes: usize,
    /// Messages that wait to be sent on one connection. Default 256; one more ends the connection, because the peer reads too
    /// slowly and a lost `Have` would never be told again.
    pub queued_messages_max: usize,
    /// Events that wait to be taken. Default 256; when they do, connections are read no further, and QUIC slows their peers.
    pub events_max: usize,
    /// Requests of ours that wait for their answer on one connection. Default 15: what fits beside the stream of frames.
    pub requests_max: usize,
}

/// Packets that a peer may receive without acknowledging them: an acknowledgement for every ten. With one for every two, small
/// packets were 2.4 % of what a client sent in the harness of `docs/PERFORMANCE.md`.
const ACK_THRESHOLD: quinn::VarInt = quinn::VarInt::from_u32(9);

/// How long a peer may wait before it acknowledges fewer.
///
/// An upload slot is free when the part's last packet is acknowledged, and half of all parts end in a lone packet: with the
/// usual 25 ms (RFC 9000 section 18.2) four slots of 64 KiB would carry no more than 10 MB/s.
const ACK_DELAY: Duration = Duration::from_millis(5);

impl Default for Config {
    fn default() -> Self {
        Self {
            bidi_streams_max: 16,
            uni_streams_max: 4,
            stream_receive_window_bytes: 512 << 10,
            receive_window_bytes: 896 << 10,
            send_window_bytes: 2 << 20,
            incoming_max: 256,
            incoming_buffer_bytes: 16 << 10,
            incoming_buffer_total_bytes: 1 << 20,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            handshake_deadline: Duration::from_secs(5),
            header_deadline: Duration::from_secs(5),
            retry_above_unproven: 16,
            retry_above_new_per_second: 50,
            connections_max: 64,
            connections_per_prefix_max: 8,
            admitted: Vec::new(),
            socket_buffer_bytes: 4 << 20,
            queued_messages_max: 256,
            events_max: 256,
            requests_max: 15,
        }
    }
}

impl Config {
    /// The part of the limits that the QUIC library enforces on a connection.
    pub(crate) fn transport(&self) -> quinn::TransportConfig {
        let mut transport = quinn::TransportConfig::default();
        let mut acks = quinn::AckFrequencyConfig::default();
        acks.max_ack_delay(Some(ACK_DELAY)).ack_eliciting_threshold(ACK_THRESHOLD);
        transport
            .max_concurrent_bidi_streams(self.bidi_streams_max.into())
            .max_concurrent_uni_streams(self.uni_streams_max.into())
            .stream_receive_window(self.stream_receive_window_bytes.into())
            .receive_window(self.receive_window_bytes.into())
            .send_window(self.send_window_bytes)
            .max_idle_timeout(self.idle_timeout.try_into().ok())
            // One part after the other: the first can be passed on sooner, and what comes together is of one stream.
            .send_fairness(false)
            .keep_alive_interval(Some(self.keep_alive))
            .ack_frequency_config(Some(acks))
            // No datagrams: nothing of ours may be lost, so their buffers would only be an attack surface.
            .datagram_receive_buffer_size(None);
        transport
    }

    /// The part of the limits that the QUIC library enforces on newcomers.
    pub(crate) fn limit_server(&self, server: &mut quinn::ServerConfig) {
        server
            .max_incoming(self.incoming_max)
            .incoming_buffer_size(self.incoming_buffer_bytes)
            .incoming_buffer_size_total(self.incoming_buffer_total_bytes)
            // A peer that changes its address dials again. Following it would let it turn our data on a third party.
            .migration(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The QUIC library shows its settings only by `Debug`; that is enough to see that each limit reached it.
    #[test]
    fn limits_reach_the_library() {
        let transport = format!("{:?}", Config::default().transport());
        for setting in [
            "max_concurrent_bidi_streams: 16",
            "max_concurrent_uni_streams: 4",
            "stream_receive_window: 524288",
            "receive_window: 917504",
            "send_window: 2097152",
            "send_fairness: false",
            "datagram_receive_buffer_size: None",
            "keep_alive_interval: Some(10s)",
            "max_idle_timeout: Some(30000)",
            "enable_segmentation_offload: true",
        ] {
            assert!(transport.contains(setting), "no '{setting}' in {transport}");
        }
    }
}
