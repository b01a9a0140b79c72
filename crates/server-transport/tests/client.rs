//! The client against the service: what it fetches, what it refuses, and control channels.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{BUSY_SESSION, DEADLINE, GOOD_SESSION, Server, TestSite, UNWELCOME_LEVEL, id};
use hybrid_manifest::{ContentId, PartNumber, PartRange};
use hybrid_server_transport::client::{Blame, ClientConfig, FetchError, ServerClient, TlsTrust};
use hybrid_server_transport::{ChannelError, ContentPath, Fingerprint, ServerConfig, ServiceLimits, TlsIdentity};
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, Join, Report, ServerMessage, Want};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, SessionToken, UploadContract};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

fn site() -> TestSite {
    TestSite::with(&[("a.txt", 2_500), ("folder/sp ace", 10)])
}

fn client(server: &Server) -> ServerClient {
    let url = format!("http://{}", server.address).parse().unwrap();
    ServerClient::new(url, &TlsTrust::Platform, ClientConfig::default()).unwrap()
}

fn path(text: &str) -> ContentPath {
    ContentPath::from_url(text).unwrap()
}

#[tokio::test]
async fn what_the_service_has() {
    let server = Server::start(site());
    let url = format!("http://{}/folder/sp%20ace", server.address);
    let (client, found) = ServerClient::discover(&url, &TlsTrust::Platform, ClientConfig::default()).await.unwrap();
    assert_eq!(found, path("folder/sp%20ace"));
    assert_eq!(client.manifest(&path("a.txt")).await.unwrap(), format!("manifest of {}", id(1)));
    let whole = &server.site.contents["a.txt"].1;
    for (number, range) in [(0, 0..1_000), (1, 1_000..2_000), (2, 2_000..2_500)] {
        let length = u32::try_from(range.len()).unwrap();
        let session = Some(SessionToken::from_bytes(GOOD_SESSION));
        let part = client.part(id(1), PartNumber::new(number), length, session).await.unwrap();
        assert_eq!(part, whole.slice(range));
    }
    let parts = PartRange::new(PartNumber::new(1), 2).unwrap();
    assert_eq!(client.hashes(id(1), parts).await.unwrap(), [[1; 32], [2; 32]].concat());
    assert_eq!(server.stop().await.connections, 1, "one connection carries all requests");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let server = Server::start(site());
    let client = client(&server);
    let part = |content: ContentId, number, length, session: Option<[u8; 16]>| {
        let (client, session) = (client.clone(), session.map(SessionToken::from_bytes));
        async move { client.part(content, PartNumber::new(number), length, session).await.unwrap_err() }
    };
    let wait = part(id(1), 0, 1_000, Some(BUSY_SESSION)).await;
    assert!(matches!(&wait, FetchError::Refused { status: 429, code, .. } if code == "E_NOT_GRANTED"), "{wait}");
    assert_eq!((wait.retry_after(), wait.is_retryable()), (Some(Duration::from_millis(1_500)), true));
    let unknown = part(id(1), 0, 1_000, Some([9; 16])).await;
    assert!(matches!(&unknown, FetchError::Status { status: 401, code, .. } if code == "E_SESSION"), "{unknown}");
    let none = part(id(1), 9, 1_000, None).await;
    assert!(matches!(&none, FetchError::Status { status: 404, code, .. } if code == "E_NO_SUCH_PART"), "{none}");
    assert_eq!((none.is_retryable(), none.blame()), (false, Blame::Caller));
    let long = part(id(1), 0, 999, None).await;
    assert!(matches!(long, FetchError::TooLong { limit_bytes: 999 }), "{long}");
    let short = part(id(1), 0, 1_001, None).await;
    assert!(matches!(short, FetchError::TooShort { expected_bytes: 1_001, got_bytes: 1_000 }), "{short}");
    let missing = client.manifest(&path("none")).await.unwrap_err();
    assert!(matches!(missing, FetchError::Status { status: 404, .. }), "{missing}");
}

/// Answers every connection with the same bytes.
async fn canned(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(&answer).await);
                // Held open: a client that waits for more has to give up by itself.
                drop(stream.read(&mut request).await);
            });
        }
    });
    url
}

fn hasty() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.answer_limit = Duration::from_millis(500);
    config.stall_limit = Duration::from_millis(500);
    config.manifest_bytes_max = 1_000;
    config
}

async fn manifest_from(url: String) -> FetchError {
    let url = url.trim_end_matches("/x").parse().unwrap();
    let client = ServerClient::new(url, &TlsTrust::Platform, hasty()).unwrap();
    timeout(DEADLINE, client.manifest(&path("x"))).await.expect("the client gives up").unwrap_err()
}

#[tokio::test]
async fn servers_that_misbehave() {
    let headers = "HTTP/1.1 200 OK\r\n".to_owned() + &"x: y\r\n".repeat(100) + "\r\n";
    let long_header = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1_500_000));
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n800\r\n{}\r\n", "y".repeat(2_048));
    for (answer, expected) in [
        (String::new(), "Timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-le".to_owned(), "Timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned(), "Timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_owned(), "TooLong"),
        (chunked, "TooLong"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "Broken"),
        (headers, "Broken"),
        (long_header, "Broken"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned(), "Status"),
        ("HTTP/1.1 503 Busy\r\nretry-after: 99999999\r\ncontent-length: 0\r\n\r\n".to_owned(), "Refused"),
    ] {
        let shown = answer[..answer.len().min(60)].to_owned();
        let error = manifest_from(canned(answer).await).await;
        assert!(format!("{error:?}").starts_with(expected), "{shown:?}: {error:?}");
        if expected == "Refused" {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(3_600)));
        }
    }
}

#[tokio::test]
async fn servers_that_are_none_of_ours() {
    let url = canned("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").await;
    let error = ServerClient::discover(&url, &TlsTrust::Platform, hasty()).await.unwrap_err();
    assert!(matches!(error, FetchError::NotHybrid { .. }), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = ServerClient::discover(&format!("http://{closed}/x"), &TlsTrust::Platform, hasty()).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn certificates_are_checked() {
    let (identity, certificate, _) = TlsIdentity::self_signed(&[], &["127.0.0.1".parse().unwrap()]).unwrap();
    let fingerprint = identity.fingerprint();
    let mut config = ServerConfig::default();
    config.tls = Some(identity);
    let server = Server::start_with(site(), config, ServiceLimits::default());
    let ask = |host: &str, trust: TlsTrust| {
        let url = format!("https://{host}:{}", server.address.port()).parse().unwrap();
        async move { ServerClient::new(url, &trust, ClientConfig::default())?.manifest(&path("a.txt")).await }
    };
    assert!(ask("127.0.0.1", TlsTrust::Fingerprint(fingerprint)).await.is_ok());
    assert!(ask("localhost", TlsTrust::Fingerprint(fingerprint)).await.is_ok(), "the pin is the name");
    let pem = TlsTrust::Pem(certificate.into_bytes());
    assert!(ask("127.0.0.1", pem.clone()).await.is_ok());
    for (host, trust) in [
        ("127.0.0.1", TlsTrust::Fingerprint(Fingerprint::from_bytes([1; 32]))),
        ("localhost", pem),
        ("127.0.0.1", TlsTrust::Platform),
    ] {
        let error = ask(host, trust.clone()).await.unwrap_err();
        // A machine without any certificates refuses before it asks.
        let refused = matches!(error, FetchError::Tls { .. } | FetchError::Trust(_));
        assert!(refused, "{host} {trust:?}: {error:?}");
        assert!(!error.is_retryable());
    }
    let garbage = ask("127.0.0.1", TlsTrust::Pem(b"garbage".to_vec())).await.unwrap_err();
    assert!(matches!(garbage, FetchError::Trust(_)), "{garbage}");
}

fn join() -> ClientMessage {
    ClientMessage::Join(Join {
        version: PROTOCOL_VERSION,
        program: "test".to_owned(),
        content: id(1),
        peer: PeerId::from_bytes([1; 32]),
        quic_port: Some(4_433),
        has: PartRanges::empty(),
        want: Want::Whole,
        contract: UploadContract::default(),
    })
}

#[tokio::test]
async fn a_control_channel_there_and_back() {
    for secure in [false, true] {
        let mut config = ServerConfig::default();
        let mut trust = TlsTrust::Platform;
        if secure {
            let (identity, _, _) = TlsIdentity::self_signed(&["localhost".to_owned()], &[]).unwrap();
            trust = TlsTrust::Fingerprint(identity.fingerprint());
            config.tls = Some(identity);
        }
        let server = Server::start_with(site(), config, ServiceLimits::default());
        let url = format!("{}://{}", if secure { "https" } else { "http" }, server.address).parse().unwrap();
        let client = ServerClient::new(url, &trust, ClientConfig::default()).unwrap();
        let mut control = client.control().await.unwrap();
        assert!(control.send(&join()).unwrap().await);
        let push = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap();
        let ServerMessage::PartPush(push) = push else { panic!("no push: {push:?}") };
        assert_eq!(push.bytes, server.site.contents["a.txt"].1.slice(0..1_000));
        // The ping went out with the channel's beginning; its answer may still be on its way.
        let sender = control.sender();
        let answered = async {
            while sender.round_trip().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, answered).await.expect("a round trip");
        let bye = ClientMessage::Bye(Bye { code: ByeCode::Done, reason: String::new() });
        assert!(control.send(&bye).unwrap().await);
        let bye = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap();
        let ServerMessage::Bye(bye) = bye else { panic!("no good-bye: {bye:?}") };
        assert_eq!(bye.reason, "127.0.0.1", "the server saw where the client is");
        assert!(timeout(DEADLINE, control.recv()).await.unwrap().is_none());
        // The channel is gone on the server too: the end does not wait for it.
        server.stop().await;
    }
}

#[tokio::test]
async fn a_good_bye_comes_though_the_client_talks_on() {
    let server = Server::start_with(site(), ServerConfig::default(), ServiceLimits::default());
    for _ in 0..10 {
        let mut control = client(&server).control().await.unwrap();
        for _ in 0..200 {
            let report = Report { level: UNWELCOME_LEVEL, ..Report::default() };
            drop(control.send(&ClientMessage::Report(report)));
        }
        let bye = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap();
        assert!(matches!(&bye, ServerMessage::Bye(bye) if bye.code == ByeCode::TooFast), "{bye:?}");
    }
}

#[tokio::test]
async fn a_silent_control_channel_ends() {
    let mut limits = ServiceLimits::default();
    limits.control_silence_limit = Duration::from_millis(400);
    let server = Server::start_with(site(), ServerConfig::default(), limits);
    // A client of ours answers pings, however little it says.
    let mut alive = client(&server).control().await.unwrap();
    assert!(timeout(Duration::from_millis(1_500), alive.recv()).await.is_err(), "pongs keep the channel");
    // A client that has stopped does not.
    let mut dead = server.connect().await;
    let handshake = common::request(
        "GET",
        "/hybrid/v1/control",
        &[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    dead.write_all(handshake.as_bytes()).await.unwrap();
    assert_eq!(common::read_answer(&mut dead, false).await.status, 101);
    common::closed(&mut dead).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_told_by_a_full_queue() {
    let server = Server::start(site());
    let mut slow = client(&server).control().await.unwrap();
    // The client's own queue fills first, then the sockets', then the server's; about 32 MiB wait there at most.
    let report = Report { level: common::FLOOD_LEVEL, ..Report::default() };
    assert!(slow.send(&ClientMessage::Report(report)).unwrap().await);
    let start = std::time::Instant::now();
    while server.site.floods.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < DEADLINE, "the queue takes without end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nobody else notices.
    assert!(client(&server).manifest(&path("a.txt")).await.is_ok());
    let end = async { while let Some(Ok(_)) = slow.recv().await {} };
    timeout(DEADLINE, end).await.expect("the channel is cut");
}

#[tokio::test]
async fn what_is_no_message_ends_the_channel() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    for message in [
        Message::text("hello"),
        Message::binary(vec![0; 3]),
        Message::binary(vec![0xff; 40]),
        Message::binary(vec![0; hybrid_wire::MAX_CLIENT_MESSAGE_BYTES + 1]),
    ] {
        let server = Server::start(site());
        let url = format!("ws://{}/hybrid/v1/control", server.address);
        let (mut socket, _) = tokio_tungstenite::client_async(url, server.connect().await).await.unwrap();
        let length = message.len();
        drop(socket.send(message).await);
        let end = async { while let Some(Ok(_)) = socket.next().await {} };
        timeout(DEADLINE, end).await.unwrap_or_else(|_| panic!("{length} bytes: the channel stays open"));
    }
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        use futures_util::{SinkExt, StreamExt};
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.send(tokio_tungstenite::tungstenite::Message::binary(vec![9; 9])).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    });
    let client = ServerClient::new(url, &TlsTrust::Platform, ClientConfig::default()).unwrap();
    let mut control = client.control().await.unwrap();
    let error = timeout(DEADLINE, control.recv()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::Message(_)), "{error}");
    assert!(timeout(DEADLINE, control.recv()).await.unwrap().is_none());
    timeout(DEADLINE, server).await.unwrap().unwrap();
}
