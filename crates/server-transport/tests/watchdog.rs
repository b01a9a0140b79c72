//! Connections that make no progress end, whatever they are up to; those that make some do not.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{DEADLINE, Server, TestSite, closed, read_answer, request};
use hybrid_server_transport::{ServerConfig, ServiceLimits, TlsIdentity};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Short enough for a test, long enough that a busy machine does not reach them by accident.
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(600);

/// All limits but those under test are out of reach.
fn config(change: impl FnOnce(&mut ServerConfig)) -> ServerConfig {
    let mut config = ServerConfig::default();
    config.first_request_limit = LONG;
    config.header_limit = LONG;
    config.idle_limit = LONG;
    config.handshake_limit = LONG;
    config.stall_limit = LONG;
    change(&mut config);
    config
}

fn start(config: ServerConfig) -> Server {
    let site = TestSite::with(&[("a.txt", 2_500), ("big", 30_000_000)]);
    Server::start_with(site, config, ServiceLimits::default())
}

fn tls(config: &mut ServerConfig) {
    let (identity, _, _) = TlsIdentity::self_signed(&["localhost".to_owned()], &[]).unwrap();
    config.tls = Some(identity);
}

/// A TLS client that believes anything and offers one protocol.
async fn connect_tls(server: &Server, alpn: &[u8]) -> TlsStream<TcpStream> {
    #[derive(Debug)]
    struct Anything;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), server.connect().await).await.unwrap()
}

#[tokio::test]
async fn silence_and_half_request_lines() {
    for said in ["", "G", "GET /a.txt HT", "GET /a.txt HTTP/1.1\r\nhost: localhost\r\n"] {
        let server = start(config(|config| config.first_request_limit = SHORT));
        let mut stream = server.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let after = closed(&mut stream).await;
        assert!(after >= SHORT / 2, "{said:?}: closed after {after:?}");
    }
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_request() {
    let server = start(config(|config| config.first_request_limit = SHORT));
    let (mut read, mut write) = server.connect().await.into_split();
    let drip = tokio::spawn(async move {
        for byte in request("GET", "/a.txt", &[("x", &"y".repeat(1_000))]).bytes() {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the whole request went through");
    });
    closed(&mut read).await;
    tokio::time::timeout(DEADLINE, drip).await.expect("the dripping stops").unwrap();
}

#[tokio::test]
async fn slow_headers_of_a_later_request() {
    let server = start(config(|config| config.header_limit = SHORT));
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/a.txt", &[]).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.status, 200);
    stream.write_all(b"GET /a.txt HTTP/1.1\r\nhost: loc").await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn idle_after_a_request() {
    let server = start(config(|config| config.idle_limit = SHORT));
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/a.txt", &[]).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.status, 200);
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_silent_tls_handshake() {
    for said in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0]] {
        let server = start(config(|config| {
            tls(config);
            config.handshake_limit = SHORT;
        }));
        let mut stream = server.connect().await;
        stream.write_all(said).await.unwrap();
        closed(&mut stream).await;
    }
}

#[tokio::test]
async fn half_a_preface_over_tls() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for said in [&b""[..], &PREFACE[..10], PREFACE] {
        let server = start(config(|config| {
            tls(config);
            config.first_request_limit = SHORT;
        }));
        let mut stream = connect_tls(&server, b"h2").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream.write_all(said).await.unwrap();
        stream.flush().await.unwrap();
        closed(&mut stream).await;
    }
}

#[tokio::test]
async fn http2_is_spoken_over_tls() {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let server = start(config(tls));
    let stream = TokioIo::new(connect_tls(&server, b"h2").await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let whole = server.site.contents["big"].1.clone();
    for (target, range) in [("https://localhost/big", 0..whole.len()), ("https://localhost/a.txt", 0..2_500)] {
        let request = http::Request::get(target).body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), range.len(), "{target}");
        assert!(range.len() < 10_000 || body == whole, "{target}");
    }
    let request = http::Request::get("https://localhost/hybrid/v1/control").body(Empty::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 426, "control channels are for HTTP/1.1");
}

#[tokio::test]
async fn an_answer_that_is_not_taken() {
    for encrypted in [false, true] {
        let server = start(config(|config| {
            config.stall_limit = SHORT;
            if encrypted {
                tls(config);
            }
        }));
        let ask = request("GET", "/big", &[]);
        if encrypted {
            let mut stream = connect_tls(&server, b"http/1.1").await;
            stream.write_all(ask.as_bytes()).await.unwrap();
            not_taken(stream).await;
        } else {
            let mut stream = server.connect().await;
            stream.write_all(ask.as_bytes()).await.unwrap();
            not_taken(stream).await;
        }
        assert_eq!(server.stop().await.panics, 0);
    }
}

/// Reads nothing for some time; then there is less to read than was promised.
async fn not_taken(mut stream: impl tokio::io::AsyncRead + Unpin) {
    tokio::time::sleep(3 * SHORT).await;
    let mut taken = 0;
    let mut sink = vec![0; 1 << 20];
    let read = async {
        while let Ok(count) = stream.read(&mut sink).await
            && count > 0
        {
            taken += count;
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("the connection ends");
    assert!(taken < 30_000_000, "all of it came");
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_gets_all() {
    let server = start(config(|config| {
        config.stall_limit = SHORT;
        config.idle_limit = SHORT;
        config.first_request_limit = SHORT;
        config.stall_bytes = 1_000;
    }));
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/big", &[]).as_bytes()).await.unwrap();
    let (mut taken, mut paused_at, mut sink) = (0, 0, vec![0; 1 << 20]);
    while taken < 30_000_000 {
        // Pauses of half of every limit, and together far more. The kernel tells the server of room in a socket's buffer
        // only when a third of it is free, so several megabytes are taken in between.
        if taken >= paused_at {
            tokio::time::sleep(SHORT / 2).await;
            paused_at = taken + 8_000_000;
        }
        let count = stream.read(&mut sink).await.unwrap();
        assert!(count > 0, "cut after {taken} bytes");
        taken += count;
    }
}

#[tokio::test]
async fn too_many_connections() {
    let server = start(config(|config| config.connections_max = 2));
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(request("GET", "/a.txt", &[]).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream, false).await.status, 200);
        kept.push(stream);
    }
    let mut third = server.connect().await;
    let refused = read_answer(&mut third, false).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    closed(&mut third).await;
    drop(kept);
    // The slots come back as soon as the server has seen the ends.
    let again = async {
        loop {
            let mut stream = server.connect().await;
            drop(stream.write_all(request("GET", "/a.txt", &[]).as_bytes()).await);
            if read_answer(&mut stream, false).await.status == 200 {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("a slot becomes free");
    assert!(server.stop().await.refused >= 1);
}

#[tokio::test]
async fn the_end_waits_for_answers_but_not_for_idlers() {
    let server = start(config(|_| {}));
    let mut idle = server.connect().await;
    idle.write_all(request("GET", "/a.txt", &[]).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut idle, false).await.status, 200);
    let mut busy = server.connect().await;
    busy.write_all(request("GET", "/big", &[]).as_bytes()).await.unwrap();
    let mut first = [0; 1];
    busy.read_exact(&mut first).await.unwrap();
    let address = server.address;
    let stop = tokio::spawn(server.stop());
    closed(&mut idle).await;
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, busy.read_to_end(&mut rest)).await.expect("the answer ends").unwrap();
    assert!(rest.len() > 30_000_000, "the answer came whole: {}", rest.len());
    assert_eq!(stop.await.unwrap().cut, 0);
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}
