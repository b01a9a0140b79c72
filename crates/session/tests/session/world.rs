//! A small content, its server's answers, and peers with valid and invalid papers.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hybrid_manifest::{Builder, Manifest, ManifestSpec, PartIds, PartLen, PartNumber, server_key};
use hybrid_units::{ByteCount, Duration, Mode, UnixTime};
use hybrid_wire::ticket::{Roles, Ticket};
use hybrid_wire::{PartRanges, PeerCoordinates, PeerId};
use std::sync::Arc;

pub(crate) const PARTS: u32 = 12;
pub(crate) const LEN: usize = 11 * 16_384 + 77;
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

pub(crate) struct World {
    pub(crate) bytes: Bytes,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) ids: PartIds,
    pub(crate) key: SigningKey,
}

pub(crate) fn world(inline: bool) -> World {
    let bytes: Bytes = (0..LEN).map(|i| u8::try_from(i * i % 251).unwrap()).collect();
    let key = SigningKey::from_bytes(&[9; 32]);
    let mut builder = Builder::new(PartLen::MIN);
    builder.write(&bytes).unwrap();
    let prepared = builder.finish().unwrap();
    let mut spec = ManifestSpec::new("a");
    spec.inline_hashes_below = ByteCount::new(if inline { u64::MAX } else { 0 });
    spec.grace = Duration::from_secs(86_400);
    let manifest = Arc::new(Manifest::new(spec, &prepared, server_key(&key)).unwrap());
    let ids = PartIds::with_ids(&manifest, prepared.part_ids()).unwrap();
    World { bytes, manifest, ids, key }
}

pub(crate) fn peer(index: u8) -> PeerId {
    PeerId::from_bytes([index; 32])
}

pub(crate) fn numbers(parts: &[u32]) -> PartRanges {
    PartRanges::from_ascending(parts.iter().copied().map(PartNumber::new))
}

pub(crate) fn coordinates(peers: &[u8]) -> Vec<PeerCoordinates> {
    // Every other one is where no one may be dialled.
    let address = |index: &u8| {
        let net = if index.is_multiple_of(2) { 10 } else { 127 };
        format!("{net}.0.0.{}:7000", index + 1).parse().unwrap()
    };
    peers.iter().map(|index| PeerCoordinates { peer: peer(*index), address: address(index) }).collect()
}

pub(crate) fn mode(swarm: bool) -> Mode {
    if swarm { Mode::PeerToPeer } else { Mode::ClientServer }
}

impl World {
    pub(crate) fn part(&self, number: u32, spoil: u8) -> Bytes {
        let Some(place) = self.manifest.layout().part(PartNumber::new(number)) else {
            return Bytes::from_static(b"none");
        };
        let start = usize::try_from(place.offset()).unwrap();
        let mut bytes = self.bytes[start..start + place.len() as usize].to_vec();
        match spoil {
            4 => bytes[5] ^= 4,
            5 => bytes.truncate(9),
            _ => {}
        }
        bytes.into()
    }

    pub(crate) fn ticket(&self, peer: PeerId, lie: u8) -> Bytes {
        let key = if lie == 0 { SigningKey::from_bytes(&[1; 32]) } else { self.key.clone() };
        let ttl = Duration::from_secs(3_600);
        let issued = UnixTime::from_secs(NOW.as_secs() - if lie == 1 { 9_000 } else { 10 });
        Ticket::issue(&key, self.manifest.content(), peer, issued, ttl, Roles::LEECH).sign(&key)
    }
}
