//! What an endpoint sends to an address that has proved nothing: little, or it would be a weapon against that address.

use crate::tests::{bind, hello, localhost};
use crate::{Config, Identity};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket as AsyncUdpSocket;

/// RFC 9000 section 8.1: no more than three times what came, and what rounding to whole datagrams may add.
const UNPROVEN_MAX: f64 = 3.2;

/// A Retry, or a Version Negotiation packet, against the 1,200 bytes that a datagram with an Initial has at least.
const STATELESS_MAX: f64 = 0.2;

/// The datagram that a peer of ours begins with, taken on its way to an address where nobody answers.
async fn first_datagram() -> Vec<u8> {
    let silent = AsyncUdpSocket::bind(localhost()).await.unwrap();
    let (dialler, _events) = bind(Config::default());
    let to = hybrid_wire::PeerCoordinates {
        peer: Identity::generate().unwrap().peer_id(),
        address: silent.local_addr().unwrap(),
    };
    let dialling = tokio::spawn(async move { dialler.dial(&to, hello()).await });
    let mut datagram = vec![0; 65_536];
    let length = tokio::time::timeout(Duration::from_secs(20), silent.recv(&mut datagram)).await.unwrap().unwrap();
    dialling.abort();
    datagram.truncate(length);
    assert!(length >= 1_200, "RFC 9000 section 14.1");
    datagram
}

/// Those of so many peers: equal ones would be one connection.
async fn first_datagrams(count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    for _ in 0..count {
        datagrams.push(first_datagram().await);
    }
    datagrams
}

/// How many bytes come back for each that is sent, from sockets that never answer: each sends one datagram from a port of its own.
async fn factor(config: Config, datagrams: impl IntoIterator<Item = Vec<u8>>) -> f64 {
    let deadline = config.handshake_deadline;
    let (endpoint, _events) = bind(config);
    let (mut sent, mut sockets) = (0, Vec::new());
    for datagram in datagrams {
        let socket = UdpSocket::bind(localhost()).unwrap();
        socket.set_nonblocking(true).unwrap();
        sent += socket.send_to(&datagram, endpoint.local_addr().unwrap()).unwrap();
        sockets.push(socket);
    }
    // Until the endpoint has given up on all of them, so that what it sends again counts too.
    let (end, mut received, mut bytes) = (Instant::now() + deadline * 2, 0, [0; 65_536]);
    while Instant::now() < end {
        received += sockets.iter().filter_map(|socket| socket.recv(&mut bytes).ok()).sum::<usize>();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    f64::from(u32::try_from(received).unwrap()) / f64::from(u32::try_from(sent).unwrap())
}

fn config() -> Config {
    Config { handshake_deadline: Duration::from_secs(1), ..Config::default() }
}

#[tokio::test]
async fn an_address_without_proof_gets_three_times_what_it_sent_at_most() {
    let factor = factor(config(), vec![first_datagram().await]).await;
    assert!((0.5..=UNPROVEN_MAX).contains(&factor), "{factor:.3} bytes for each; below 0.5 there was no handshake");
}

#[tokio::test]
async fn a_retry_is_small() {
    // Every newcomer is beyond the limit.
    let config = Config { retry_above_new_per_second: 0, ..config() };
    let factor = factor(config, first_datagrams(3).await).await;
    assert!((0.01..=STATELESS_MAX).contains(&factor), "{factor:.3} bytes for each; below 0.01 there was no Retry");
}

#[tokio::test]
async fn a_flood_is_answered_with_less_than_it_sends() {
    // All come from one address here, so the limit for a network does not help.
    let config = Config { connections_per_prefix_max: u16::MAX, ..config() };
    let factor = factor(config, first_datagrams(100).await).await;
    assert!((0.01..1.0).contains(&factor), "{factor:.3} bytes for each");
}

#[tokio::test]
async fn an_unknown_version_gets_a_short_answer() {
    let mut probe = first_datagram().await;
    // One of the versions that are reserved to force negotiation (RFC 9000 section 15).
    probe[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    let factor = factor(config(), vec![probe]).await;
    assert!((0.005..=STATELESS_MAX).contains(&factor), "{factor:.3} bytes for each; below 0.005 there was no answer");
}

#[tokio::test]
async fn garbage_is_answered_with_less_than_it_has() {
    for length in [1, 20, 21, 40, 100, 1_199, 1_200, 1_472] {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xff] {
            let mut datagram = blake3::Hasher::new_keyed(&[first; 32]).finalize_xof();
            let mut bytes = vec![0; length];
            datagram.fill(&mut bytes);
            bytes[0] = first;
            let config = Config { handshake_deadline: Duration::from_millis(25), ..Config::default() };
            let factor = factor(config, vec![bytes]).await;
            assert!(factor < 1.0, "{factor:.3} bytes for each of {length} that begin with {first:#04x}");
        }
    }
}
