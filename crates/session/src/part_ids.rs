//! Part ids: asked of the server, and of peers when it is away.

use crate::connection::Connection;
use crate::{ConnectionId, Event, Output, Session};
use bytes::Bytes;
use hybrid_manifest::{PartNumber, PartRange};
use hybrid_units::{Duration, Instant};
use hybrid_wire::peer::{AskProofs, PeerMessage, Proofs};

/// The most parts that one `AskProofs` may ask for, so that the answer fits a frame.
const PROOFS_PER_ANSWER: u32 = 256;

impl Session {
    pub(crate) fn on_hashes(&mut self, now: Instant, proofs: &[u8]) {
        if !self.hashes.learn(proofs) {
            self.hashes.failed(now, None);
            self.out.push_back(Output::Event(Event::ServerHashesBad));
        }
        self.verify_parked();
    }

    pub(crate) fn verify_parked(&mut self) {
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
    pub(crate) fn ask_peer_for_proofs(&mut self) {
        if !self.server_reachable() {
            self.hashes.failed(self.seen, Some(Duration::ZERO));
        }
    }

    pub(crate) fn ask_peer_for_range(&mut self, range: PartRange) {
        // Who holds parts of the run has known their ids.
        let holds = |connection: &Connection| range.iter().any(|number| connection.has.contains(number));
        let ids: Vec<ConnectionId> = self.connections.iter().filter(|(_, c)| holds(c)).map(|(id, _)| id).collect();
        let Some(connection) = self.pick(&ids) else { return };
        let ask = AskProofs { first: range.first().as_u32(), count: range.count().min(PROOFS_PER_ANSWER) };
        self.out.push_back(Output::SendPeer { connection, message: PeerMessage::AskProofs(ask) });
    }

    pub(crate) fn answer_proofs(&mut self, connection: ConnectionId, ask: AskProofs) {
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
}
