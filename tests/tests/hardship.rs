//! Two peers with a bad network between them: it costs time, never a byte.

use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber};
use hybrid_peer_transport::{Config, Connection, Endpoint, Event, Events, Identity, PartAnswer};
use hybrid_tests::hardship::{Hardship, Relay};
use hybrid_tests::{DEADLINE, content};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

const PART_BYTES: usize = 16 << 10;

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        content: ContentId::from_bytes([7; 32]),
        part_len_bytes: 16 << 10,
        ticket: Bytes::from_static(b"checked by sessions"),
        has: PartRanges::empty(),
        uploads: true,
    }
}

fn bind() -> (Endpoint, Events) {
    let identity = Identity::generate().expect("randomness");
    Endpoint::bind("127.0.0.1:0".parse().expect("an address"), &identity, Config::default()).expect("a socket")
}

/// Answers whoever asks.
async fn give(mut events: Events, bytes: Bytes) {
    let mut connections = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { connection, .. } => {
                drop(connection.send(&PeerMessage::Hello(hello())));
                connections.push(connection);
            }
            Event::PartRequested { number, responder, .. } => {
                let start = number.as_u32() as usize * PART_BYTES;
                tokio::spawn(responder.send_part(bytes.slice(start..start + PART_BYTES), 0, None));
            }
            _ => {}
        }
    }
}

/// Dials until somebody answers.
async fn dial(endpoint: &Endpoint, to: &PeerCoordinates) -> Connection {
    loop {
        if let Ok(connection) = endpoint.dial(to, hello()).await {
            return connection;
        }
    }
}

/// Fetches so many parts through a relay, dialling again when the connection is lost; every byte must be right.
async fn fetch(hardship: Hardship, parts: usize, meanwhile: impl AsyncFnOnce(&Relay)) -> (u64, u64, u64) {
    let bytes = Bytes::from(content(parts * PART_BYTES, 23));
    let (giver, giver_events) = bind();
    let giving = tokio::spawn(give(giver_events, bytes.clone()));
    let relay = Relay::start(giver.local_addr().expect("bound"), hardship).await.expect("a socket");
    let (taker, mut taker_events) = bind();
    let listening = tokio::spawn(async move { while taker_events.next().await.is_some() {} });
    let to = PeerCoordinates { peer: giver.peer_id(), address: relay.address() };
    let fetched = async {
        let mut connection = dial(&taker, &to).await;
        for number in 0..parts {
            let part = loop {
                let wanted = PartNumber::new(u32::try_from(number).expect("few"));
                match connection.request(wanted, 16 << 10, drop).await {
                    Ok(PartAnswer::Part { bytes }) => break bytes,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => connection = dial(&taker, &to).await,
                }
            };
            let start = number * PART_BYTES;
            assert!(part == bytes[start..start + PART_BYTES], "part {number} has other bytes with {hardship:?}");
        }
    };
    let both = async { tokio::join!(fetched, meanwhile(&relay)) };
    tokio::time::timeout(DEADLINE, both).await.unwrap_or_else(|_| panic!("no end with {hardship:?}"));
    giving.abort();
    listening.abort();
    let count = |fate: &std::sync::atomic::AtomicU64| fate.load(Ordering::Relaxed);
    (count(&relay.fates().seen), count(&relay.fates().lost), count(&relay.fates().corrupted))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_through_bad_networks_as_they_are() {
    let level = |seed, delay, loss| Hardship { seed, delay: ms(delay), loss, ..Hardship::default() };
    let levels = [
        (48, level(1, 16, 0.001)),
        (24, Hardship { jitter: ms(20), reorder: 0.05, duplicate: 0.02, ..level(2, 20, 0.01) }),
        (16, Hardship { burst: 4.0, corrupt: 0.02, ..level(3, 10, 0.05) }),
        (32, Hardship { bytes_per_second: Some(250_000), duplicate: 0.05, ..level(4, 20, 0.02) }),
        (4, Hardship { reorder: 0.05, ..level(5, 5, 0.3) }),
    ];
    // Most of the time is spent waiting, so they run at one time.
    let mut fetches = JoinSet::new();
    for (parts, hardship) in levels {
        fetches.spawn(async move { (hardship, fetch(hardship, parts, async |_: &Relay| {}).await) });
    }
    while let Some(fetched) = fetches.join_next().await {
        let (hardship, (seen, lost, corrupted)) = fetched.expect("a fetch that ends well");
        assert!(seen > 0 && lost < seen, "{seen} datagrams, {lost} lost, with {hardship:?}");
        assert!(hardship.loss < 0.05 || lost > 0, "nothing was lost: {hardship:?}");
        assert!(hardship.corrupt == 0.0 || corrupted > 0, "nothing was spoilt: {hardship:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_gone_for_a_while_costs_that_while() {
    let hardship = Hardship { seed: 6, bytes_per_second: Some(500_000), delay: ms(5), ..Hardship::default() };
    let (_, lost, _) = fetch(hardship, 64, async |relay: &Relay| {
        while relay.fates().seen.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(ms(5)).await;
        }
        relay.set_blackhole(true);
        while relay.fates().lost.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(ms(5)).await;
        }
        relay.set_blackhole(false);
    })
    .await;
    assert!(lost >= 3);
}
