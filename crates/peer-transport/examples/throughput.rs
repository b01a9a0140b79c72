//! How much of a plain QUIC stream's rate is left to parts: 256 KiB each, 8 in flight, each hashed as it comes.
//!
//! Both run over loopback in this one process, one after the other, several times; the ratio of the medians is what counts.
//! `cargo run --release -p hybrid-peer-transport --example throughput`

use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber};
use hybrid_peer_transport::{Config, Connection, Endpoint, Event, Events, Identity, PartAnswer};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

const PART_BYTES: u32 = 256 << 10;
const PARTS: u32 = 2_048;
const DEPTH: usize = 8;
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        content: ContentId::from_bytes([0; 32]),
        part_len_bytes: PART_BYTES,
        ticket: Bytes::new(),
        has: PartRanges::empty(),
        uploads: true,
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn megabytes_per_second(began: Instant) -> f64 {
    f64::from(PARTS) * f64::from(PART_BYTES) / 1e6 / began.elapsed().as_secs_f64()
}

async fn serve(mut events: Events, part: Bytes) {
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { connection, .. } => drop(connection.send(&PeerMessage::Hello(hello()))),
            Event::PartRequested { responder, .. } => drop(tokio::spawn(responder.send_part(part.clone(), 0, None))),
            _ => {}
        }
    }
}

/// One request after the other, with the answer hashed before the next.
async fn fetch(connection: Connection, count: u32, expected: blake3::Hash) -> Outcome<()> {
    for number in 0..count {
        match connection.request(PartNumber::new(number), PART_BYTES, drop).await? {
            PartAnswer::Part { bytes, .. } if blake3::hash(&bytes) == expected => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

async fn parts(part: &Bytes) -> Outcome<f64> {
    let (giver, events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
    let (taker, _events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
    let serving = tokio::spawn(serve(events, part.clone()));
    let to = PeerCoordinates { peer: giver.peer_id(), address: giver.local_addr()? };
    let connection = taker.dial(&to, hello()).await?;
    let began = Instant::now();
    let mut fetching = JoinSet::new();
    let share = PARTS / u32::try_from(DEPTH)?;
    for _ in 0..DEPTH {
        fetching.spawn(fetch(connection.clone(), share, blake3::hash(part)));
    }
    while let Some(fetched) = fetching.join_next().await {
        fetched??;
    }
    let rate = megabytes_per_second(began);
    serving.abort();
    Ok(rate)
}

/// The same bytes on one stream of the bare library with its own settings, nothing hashed.
async fn plain(part: &Bytes) -> Outcome<f64> {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = CertificateDer::from(key.cert);
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let server = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], private.into())?;
    let giver = quinn::Endpoint::server(server, "127.0.0.1:0".parse()?)?;
    let to = giver.local_addr()?;
    let part = part.clone();
    let serving = tokio::spawn(async move {
        let connection = giver.accept().await.ok_or("closed")?.await?;
        let mut send = connection.open_uni().await?;
        for _ in 0..PARTS {
            send.write_chunk(part.clone()).await?;
        }
        send.finish()?;
        connection.closed().await;
        Outcome::Ok(())
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let taker = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    let connection = taker.connect_with(config, to, "localhost")?.await?;
    let mut recv = connection.accept_uni().await?;
    let began = Instant::now();
    let mut got = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        got += chunk.bytes.len();
    }
    let rate = megabytes_per_second(began);
    assert_eq!(got, PARTS as usize * PART_BYTES as usize);
    connection.close(0u32.into(), b"");
    serving.await??;
    Ok(rate)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example that measures")]
async fn main() -> Outcome<()> {
    let part: Bytes = (0..PART_BYTES).map(|i| i.to_le_bytes()[1]).collect();
    let (mut of_parts, mut of_plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_plain.push(plain(&part).await?);
        of_parts.push(parts(&part).await?);
    }
    println!("plain stream        {of_plain:.0?} MB/s");
    println!("parts with hashing  {of_parts:.0?} MB/s");
    println!("ratio of medians    {:.2}", median(of_parts) / median(of_plain));
    Ok(())
}
