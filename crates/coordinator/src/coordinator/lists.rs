//! Whom a client should know, and how many of them.

use super::networks::Mix;
use super::*;

/// An uplink over which a part of 256 KiB takes two seconds and longer: two at a time would be given up for lost.
const POOR_LINK: BytesPerSecond = BytesPerSecond::from_bits_per_second(1_000_000);

/// Packets lost of a thousand with which an uplink counts as half of what it was seen to send.
///
/// Senders that fill their own link lose packets too: in `cargo xtask arena`'s kind of network a rule that took every link with
/// such losses for a poor one brought S1 from 1.16 to 1.28 times the bound.
const LOSSY_PERMILLE: u16 = 50;

/// A part takes at most this long; who offers less than that serves nobody. Peers give a part up sooner than that.
const PART_TIME_MOST: Duration = Duration::from_secs(10);

/// Whether somebody who offers so many bytes per second sends a part in time.
pub(super) fn offers_enough(uplink: u64, part_len: u64) -> bool {
    BytesPerSecond::new(uplink).time_for(part_len) <= PART_TIME_MOST
}

impl Coordinator {
    /// As many connections for each place in its list as everybody has, and as many receivers at a time as its uplink serves.
    pub(super) fn limits(&self, client: &Client) -> PeerLimits {
        let connections = self.edges(client) * usize::from(self.config.peer_connections_max);
        let connections_max = u16::try_from(connections / self.config.peers_per_list.max(1)).unwrap_or(u16::MAX);
        PeerLimits { connections_max, uploads_max: self.receivers(client) }
    }

    /// How many receivers a client serves at a time: one over a poor link, so that each part arrives before it is given up;
    /// none if what it offers is too little for a part in time.
    fn receivers(&self, client: &Client) -> u8 {
        let usual = self.config.uploads_max;
        let lossy = client.loss_permille >= LOSSY_PERMILLE;
        // Whether it serves anybody now is its own affair: what it may do when it does must not wait for another message.
        let uplink = BytesPerSecond::new(client.known_within(client.offered) / if lossy { 2 } else { 1 });
        let measured = client.sent_rate > 0 || client.offered < u64::MAX;
        let part_len = self.contents.get(&client.content).map_or(0, |swarm| swarm.part_len.as_u64());
        if !offers_enough(client.offered, part_len) {
            0
        } else if measured && uplink < POOR_LINK {
            usual.min(1)
        } else {
            usual
        }
    }

    /// Whom a client should dial: most of them uniformly, which keeps the graph an expander, the rest by their uplink, and few of
    /// any network but its own.
    pub(super) fn peer_list(&mut self, client: ClientId) -> Vec<PeerCoordinates> {
        let Some(record) = self.clients.get(&client) else { return Vec::new() };
        let Some(swarm) = self.contents.get(&record.content) else { return Vec::new() };
        let places = self.edges(record);
        let mut mix = Mix::new(places, self.config.peers_per_network, record.network);
        let members = swarm.members.len();
        let candidate = |place: usize| {
            let id = *swarm.members.get(place)?;
            let member = self.clients.get(&id).filter(|_| id != client)?;
            let coordinates = PeerCoordinates { peer: member.peer, address: member.coordinates? };
            Some((member.uplink_class(), member.network, coordinates))
        };
        let sample = index::sample(&mut self.rng, members, LIST_SAMPLE.min(members));
        let candidates: Vec<_> = sample.into_iter().filter_map(candidate).collect();
        let many = candidates.len() > places;
        let uniform = places * self.config.uniform_share_percent.min(100) / 100;
        let (mut list, mut others) = (Vec::with_capacity(places), Vec::new());
        for (uplink, network, coordinates) in candidates {
            if many && list.len() >= uniform {
                others.push((uplink, network, coordinates));
            } else if mix.takes(network) {
                list.push(coordinates);
            }
        }
        others.sort_by_key(|(uplink, ..)| std::cmp::Reverse(*uplink));
        for (_, network, coordinates) in others {
            if list.len() < places && mix.takes(network) {
                list.push(coordinates);
            }
        }
        if list.len() < places && mix.refused && members > LIST_SAMPLE {
            let more = index::sample(&mut self.rng, members, LIST_SAMPLE_MOST.min(members));
            for (_, network, coordinates) in more.into_iter().filter_map(candidate) {
                if list.len() >= places {
                    break;
                }
                if !list.contains(&coordinates) && mix.takes(network) {
                    list.push(coordinates);
                }
            }
        }
        list
    }

    /// Peers in a client's list: more for a fast uplink, which then has more to serve, and fewer for a slow one.
    pub(super) fn edges(&self, record: &Client) -> usize {
        let usual = self.config.peers_per_list;
        let Some(swarm) = self.contents.get(&record.content) else { return usual };
        let members = u64::try_from(swarm.members.len()).unwrap_or(u64::MAX).max(1);
        let mean = (swarm.uplinks_known / members).max(1);
        // Half of the usual number, and half for each mean uplink that it has.
        let halves = 1.0 + record.uplink_known() as f64 / mean as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to some dozens")]
        let edges = (usual as f64 * halves / 2.0).min(1e6) as usize;
        edges.clamp(usual * EDGES_LEAST / EDGES_USUAL, usual * EDGES_MOST / EDGES_USUAL)
    }
}
