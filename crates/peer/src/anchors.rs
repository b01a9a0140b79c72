//! The file in a content's folder that lets a client go on without the server after a restart.
//!
//! It holds the peers, as the frame in which a peer would tell of them, and behind it the client's ticket.

use crate::store::files;
use hybrid_session::Anchors;
use hybrid_wire::peer::{PeerMessage, ToldPeers};
use hybrid_wire::ticket::Ticket;
use hybrid_wire::{decode_peer, encode_peer};
use std::io;
use std::path::{Path, PathBuf};

/// Eight peers and a ticket take some 600 bytes.
const BYTES_MAX: u64 = 4 << 10;

/// Where the anchors of the content with this folder are.
pub(crate) fn path(content_folder: &Path) -> PathBuf {
    content_folder.join("anchors")
}

/// What the last run kept; none if it kept nothing, or nothing that can be read.
pub(crate) fn read(path: &Path) -> io::Result<Option<Anchors>> {
    let Some(bytes) = files::read_regular(path, BYTES_MAX)? else { return Ok(None) };
    Ok(decode(&bytes))
}

/// Keeps them for the next run.
pub(crate) fn write(path: &Path, anchors: &Anchors) -> io::Result<()> {
    files::replace(path, &encode(anchors))
}

fn encode(anchors: &Anchors) -> Vec<u8> {
    let peers = PeerMessage::Peers(ToldPeers { peers: anchors.peers.clone() });
    let frame = encode_peer(&peers).expect("a session keeps fewer than a message takes");
    [&frame[..], &anchors.ticket[..]].concat()
}

fn decode(bytes: &[u8]) -> Option<Anchors> {
    let (frame, ticket) = bytes.split_at_checked(bytes.len().checked_sub(Ticket::BYTES)?)?;
    let PeerMessage::Peers(told) = decode_peer(frame).ok()?.message()? else { return None };
    Some(Anchors { ticket: ticket.to_vec().into(), peers: told.peers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_wire::{PeerCoordinates, PeerId};

    fn anchors() -> Anchors {
        let peer = |index: u8| PeerCoordinates {
            peer: PeerId::from_bytes([index; 32]),
            address: format!("192.0.2.{index}:7000").parse().unwrap(),
        };
        Anchors { ticket: vec![7; Ticket::BYTES].into(), peers: (1..=8).map(peer).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = path(folder.path());
        assert_eq!(read(&path).unwrap(), None);
        for anchors in [anchors(), Anchors { peers: Vec::new(), ..anchors() }] {
            write(&path, &anchors).unwrap();
            assert_eq!(read(&path).unwrap(), Some(anchors));
        }
    }

    #[test]
    fn a_damaged_file_is_none() {
        let whole = encode(&anchors());
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "cut to {end} bytes");
        }
        assert_eq!(decode(&[&whole[..], b"x"].concat()), None);
    }
}
