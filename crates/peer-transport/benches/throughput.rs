//! What parts cost beside a plain QUIC stream: time, and processor time of both ends, over loopback.
//!
//! Parts are of 256 KiB, eight asked for at a time, each verified as the driver does it. The plain stream is the bare library
//! with its own socket, the same windows, acknowledgements, cipher and socket buffers, and nothing is hashed.
//! Giver and taker are processes of their own, with the threads of `hybrid-peer`: one for the network, others for what blocks.
//!
//! `cargo xtask bench peers` runs it and holds the ratios against their limits; each line is
//! `pair<TAB>SECONDS<TAB>PROCESSOR SECONDS OF THE GIVER<TAB>AND OF THE TAKER`, of the plain stream, and again of the parts.

#![allow(clippy::print_stdout, reason = "its lines are what it is for")]

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hybrid_manifest::{Builder, ExpectedPart, Manifest, ManifestSpec, PartIds, PartLen, PartNumber, server_key};
use hybrid_peer_transport::{Config, Connection, Endpoint, Event, Identity, PartAnswer};
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use std::error::Error;
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PART_BYTES: u32 = 256 << 10;
/// Parts of the content, which are sent in turn: 64 MiB are more than a processor's cache holds.
const CONTENT_PARTS: u32 = 256;
const DEPTH: u32 = 8;
const PAIRS: u32 = 9;
/// Parts of one transfer.
const PARTS: u32 = 4_096;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts this too, without optimisation and without this flag.
    let Some(place) = arguments.iter().position(|argument| argument == "--bench") else { return Ok(()) };
    let words: Vec<&str> =
        arguments.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, word)| &**word).collect();
    match words[..] {
        ["giver", "plain", parts] => end(give_plain(parts.parse()?)),
        ["giver", "parts", _] => end(give_parts()),
        ["taker", "plain", parts, address, secret] => end(take_plain(parts.parse()?, address.parse()?, unhex(secret)?)),
        ["taker", "parts", parts, address, secret] => end(take_parts(parts.parse()?, address.parse()?, unhex(secret)?)),
        [] => compare(PAIRS, PARTS),
        [pairs, parts] => compare(pairs.parse()?, parts.parse()?),
        _ => Err("give a number of pairs and one of parts, or nothing".into()),
    }
}

/// Runs one end of a transfer on the threads of `hybrid-peer`, tells the parent its figures, and lives until it has them.
fn end(work: impl Future<Output = Outcome<String>> + Send + 'static) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!("{}", runtime.block_on(runtime.spawn(work))??);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

// ---- The pairs.

fn compare(pairs: u32, parts: u32) -> Outcome<()> {
    // The first warms up.
    for pair in 0..=pairs {
        let costs = format!("{}\t{}", transfer("plain", parts)?, transfer("parts", parts)?);
        if pair > 0 {
            println!("pair\t{costs}");
        }
    }
    Ok(())
}

/// What one transfer between two processes costs: seconds, processor seconds of the giver, and of the taker.
fn transfer(what: &str, parts: u32) -> Outcome<String> {
    let parts = parts.to_string();
    let mut giver = Running::start(&["giver", what, &parts])?;
    let ready = giver.line()?;
    let (address, secret) = ready.split_once(' ').ok_or("the giver names no address")?;
    let mut taker = Running::start(&["taker", what, &parts, address, secret])?;
    let taken = taker.line()?;
    let (secs, taker_cpu) = taken.split_once(' ').ok_or("the taker tells nothing")?;
    Ok(format!("{secs}\t{}\t{taker_cpu}", giver.line()?))
}

/// A process of this program, killed when dropped; when its input ends, it ends.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bench").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        if line.is_empty() {
            return Err("one end ended early".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processor time of this process so far, in seconds: fields 14 and 15 of proc_pid_stat(5), in hundredths.
fn cpu_secs() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, behind_name) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks = behind_name.split_ascii_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.collect::<Result<Vec<f64>, _>>()?.iter().sum::<f64>() / 100.0)
}

// ---- What is sent.

/// The same bytes in both processes.
fn content() -> Vec<Bytes> {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut part = || {
        let mut bytes = vec![0; PART_BYTES as usize];
        noise.fill(&mut bytes);
        Bytes::from(bytes)
    };
    (0..CONTENT_PARTS).map(|_| part()).collect()
}

fn expected() -> Outcome<Vec<ExpectedPart>> {
    let mut builder = Builder::new(PartLen::new(PART_BYTES).ok_or("no length of parts")?);
    for part in content() {
        builder.write(&part)?;
    }
    let prepared = builder.finish()?;
    let key = server_key(&SigningKey::from_bytes(&[1; 32]));
    let manifest = Manifest::new(ManifestSpec::new("noise"), &prepared, key)?;
    let ids = PartIds::with_ids(&manifest, prepared.part_ids())?;
    let part = |number| ids.expect(PartNumber::new(number)).ok_or_else(|| "no such part".into());
    (0..CONTENT_PARTS).map(part).collect()
}

fn part_of<T>(content: &[T], number: u32) -> &T {
    &content[number as usize % content.len()]
}

// ---- Parts.

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        content: hybrid_manifest::ContentId::from_bytes([0; 32]),
        part_len_bytes: PART_BYTES,
        ticket: Bytes::new(),
        has: PartRanges::empty(),
        uploads: true,
    }
}

/// Prints where it is and who; serves one taker; prints its processor time.
async fn give_parts() -> Outcome<String> {
    let content = content();
    let (endpoint, mut events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
    println!("{} {}", endpoint.local_addr()?, hex(endpoint.peer_id().as_bytes()));
    let mut before = 0.0;
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { connection, .. } => {
                before = cpu_secs()?;
                connection.send(&PeerMessage::Hello(hello()))?;
            }
            Event::PartRequested { number, responder, .. } => {
                let part = part_of(&content, number.as_u32()).clone();
                tokio::spawn(responder.send_part(part, 0, None));
            }
            Event::Closed { .. } => break,
            _ => {}
        }
    }
    Ok((cpu_secs()? - before).to_string())
}

/// Fetches everything; prints the time and the processor time that it took.
async fn take_parts(parts: u32, address: SocketAddr, peer: Vec<u8>) -> Outcome<String> {
    let expected: Arc<[ExpectedPart]> = expected()?.into();
    let (endpoint, _events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
    let to = PeerCoordinates { peer: PeerId::from_bytes(peer[..].try_into()?), address };
    let connection = endpoint.dial(&to, hello()).await?;
    let (began, before) = (Instant::now(), cpu_secs()?);
    let mut fetching = JoinSet::new();
    for first in 0..DEPTH {
        fetching.spawn(fetch(connection.clone(), expected.clone(), first..parts));
    }
    while let Some(fetched) = fetching.join_next().await {
        fetched??;
    }
    let told = format!("{} {}", began.elapsed().as_secs_f64(), cpu_secs()? - before);
    endpoint.close(&Bye { code: ByeCode::Done, reason: String::new() }).await;
    Ok(told)
}

/// One request after the other; a part is verified before the next is asked for, on the thread of the network.
async fn fetch(connection: Connection, expected: Arc<[ExpectedPart]>, numbers: std::ops::Range<u32>) -> Outcome<()> {
    for number in numbers.step_by(DEPTH as usize) {
        let wanted = part_of(&expected, number);
        let PartAnswer::Part { bytes } = connection.request(wanted.number(), PART_BYTES, drop).await? else {
            return Err("refused".into());
        };
        wanted.verify(bytes)?;
    }
    Ok(())
}

// ---- The plain stream.

/// The windows, acknowledgements and timeouts of [`Config`]; one stream may use what all of them may there.
fn transport() -> Arc<quinn::TransportConfig> {
    let config = Config::default();
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.max_ack_delay(Some(Duration::from_millis(5))).ack_eliciting_threshold(9u32.into());
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(config.receive_window_bytes.into())
        .receive_window(config.receive_window_bytes.into())
        .send_window(config.send_window_bytes)
        .ack_frequency_config(Some(acks));
    Arc::new(transport)
}

/// The library's endpoint on its own socket, with the buffers of [`Config`].
fn endpoint(server: Option<quinn::ServerConfig>) -> Outcome<quinn::Endpoint> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(Config::default().socket_buffer_bytes)?;
    socket.set_send_buffer_size(Config::default().socket_buffer_bytes)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let (config, runtime) = (quinn::EndpointConfig::default(), Arc::new(quinn::TokioRuntime));
    Ok(quinn::Endpoint::new(config, server, UdpSocket::from(socket), runtime)?)
}

async fn give_plain(parts: u32) -> Outcome<String> {
    let content = content();
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = CertificateDer::from(key.cert);
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let mut server = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], private.into())?;
    server.transport_config(transport());
    let endpoint = endpoint(Some(server))?;
    println!("{} {}", endpoint.local_addr()?, hex(&certificate));
    let connection = endpoint.accept().await.ok_or("closed")?.await?;
    let before = cpu_secs()?;
    let mut send = connection.open_uni().await?;
    for number in 0..parts {
        send.write_chunk(part_of(&content, number).clone()).await?;
    }
    send.finish()?;
    connection.closed().await;
    Ok((cpu_secs()? - before).to_string())
}

async fn take_plain(parts: u32, address: SocketAddr, certificate: Vec<u8>) -> Outcome<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = endpoint(None)?;
    let connection = endpoint.connect_with(config, address, "localhost")?.await?;
    let mut recv = connection.accept_uni().await?;
    let (began, before) = (Instant::now(), cpu_secs()?);
    let mut got = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        got += chunk.bytes.len() as u64;
    }
    let told = format!("{} {}", began.elapsed().as_secs_f64(), cpu_secs()? - before);
    if got != u64::from(parts) * u64::from(PART_BYTES) {
        return Err("not all bytes came".into());
    }
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(told)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Outcome<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16));
    Ok(digits.collect::<Result<_, _>>()?)
}
