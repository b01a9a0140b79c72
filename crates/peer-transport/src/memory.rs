//! What a hostile peer can make this process hold, measured in a process of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "one process tells the other where it is")]

use crate::tests::{Raw, bind, hello};
use crate::{Config, Event};
use bytes::Bytes;
use hybrid_manifest::PartNumber;
use hybrid_wire::peer::{PartReply, PeerMessage, Request};
use hybrid_wire::{PEER_ALPN, PeerCoordinates, PeerId, encode_peer, encode_reply, encode_request};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Enough for one's share to be told from what the process itself does.
const ATTACKERS: usize = 16;

/// What `Config` promises of one.
const BYTES_EACH_MAX: usize = 3 << 20;

/// Below this the attack did not do what it should: half of the window for what comes.
const BYTES_EACH_MIN: usize = 1 << 20;

/// Of a usual large content.
const PART_BYTES: usize = 1 << 20;

/// Lives until its standard input ends: takes everyone, serves what is asked for, and takes one pushed part from each.
#[test]
#[ignore = "the process that the other test measures"]
fn victim() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config { connections_per_prefix_max: u16::MAX, ..Config::default() };
        let (endpoint, mut events) = bind(config);
        let peer = blake3::Hash::from_bytes(*endpoint.peer_id().as_bytes());
        println!("victim {} {}", peer.to_hex(), endpoint.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        std::thread::spawn(|| {
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            std::process::exit(0);
        });
        let part = Bytes::from(vec![7; PART_BYTES]);
        let (mut connections, mut taken, mut waiting) = (Vec::new(), BTreeMap::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Connected { connection, .. } => {
                    connection.send(&PeerMessage::Hello(hello())).unwrap();
                    connections.push(connection);
                }
                Event::PartRequested { responder, .. } => {
                    drop(tokio::spawn(responder.send_part(part.clone(), 0, None)))
                }
                Event::PartPushed { connection, part } if taken.insert(connection, ()).is_none() => {
                    tokio::spawn(part.receive(u32::try_from(PART_BYTES).unwrap()));
                }
                Event::PartPushed { part, .. } => waiting.push(part),
                _ => {}
            }
        }
    });
}

/// Asks for more than it reads, pushes what it never finishes, and then is as dead: it acknowledges nothing more.
async fn attack(raw: &Raw, victim: &PeerCoordinates) -> Vec<quinn::SendStream> {
    let connection = raw.connect_to(victim, PEER_ALPN).await.unwrap();
    let (mut frames, _) = connection.open_bi().await.unwrap();
    frames.write_all(&encode_peer(&PeerMessage::Hello(hello())).unwrap()).await.unwrap();
    let mut streams = vec![frames];
    let mut answers = Vec::new();
    for number in 0..15 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&encode_request(&Request { number }).unwrap()).await.unwrap();
        send.finish().unwrap();
        streams.push(send);
        answers.push(recv);
    }
    for answer in &mut answers[..10] {
        answer.read_to_end(2 * PART_BYTES).await.unwrap();
    }
    let mut pushing = Vec::new();
    for number in 20..24 {
        let mut send = connection.open_uni().await.unwrap();
        let length_bytes = u32::try_from(PART_BYTES).unwrap();
        let header = PartReply::Part { number: PartNumber::new(number).as_u32(), length_bytes, queue: 0 };
        send.write_all(&encode_reply(&header).unwrap()).await.unwrap();
        // As much as the victim lets it, and not the last byte.
        pushing.push(tokio::spawn(async move {
            drop(timeout(Duration::from_secs(1), send.write_all(&vec![1; PART_BYTES - 1])).await);
            send
        }));
    }
    for push in pushing {
        streams.push(push.await.unwrap());
    }
    streams
}

fn spawn_attacker(victim: PeerCoordinates) -> JoinHandle<(Runtime, Raw, Vec<quinn::SendStream>)> {
    let window = 64 << 20;
    let greedy = Config { stream_receive_window_bytes: window, receive_window_bytes: window, ..Config::default() };
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (raw, streams) = runtime.block_on(async {
            let raw = Raw::with_config(&greedy);
            let streams = attack(&raw, &victim).await;
            (raw, streams)
        });
        (runtime, raw, streams)
    })
}

/// Memory of a process that is not shared with files, in bytes.
fn anonymous_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn peer_id(hex: &str) -> PeerId {
    PeerId::from_bytes(*blake3::Hash::from_hex(hex).unwrap().as_bytes())
}

#[test]
fn a_hostile_peer_holds_three_mebibytes_at_most() {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["memory::victim", "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let place = lines.find_map(|line| Some(line.unwrap().split_once("victim ")?.1.to_owned())).unwrap();
    let (peer, address) = place.split_once(' ').unwrap();
    let port = address.parse::<SocketAddr>().unwrap().port();
    let victim = PeerCoordinates { peer: peer_id(peer), address: SocketAddr::from(([127, 0, 0, 1], port)) };
    let before = anonymous_bytes(process.id());

    let attacking: Vec<_> = (0..ATTACKERS).map(|_| spawn_attacker(victim.clone())).collect();
    // Nobody runs them any more, and their sockets are open.
    let frozen: Vec<_> = attacking.into_iter().map(|attacker| attacker.join().unwrap()).collect();
    let (mut most, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        most = most.max(anonymous_bytes(process.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(process.stdin.take());
    process.wait().unwrap();
    drop(frozen);
    let each = most.saturating_sub(before) / ATTACKERS;
    println!("{} KiB for each of {ATTACKERS}", each >> 10);
    assert!((BYTES_EACH_MIN..=BYTES_EACH_MAX).contains(&each), "{} KiB for each of {ATTACKERS}", each >> 10);
}
