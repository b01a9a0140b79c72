//! Two endpoints, or one and a peer that misbehaves, over loopback.

use crate::config::Config;
use crate::tls::Credentials;
use crate::{
    CloseReason, Connection, DialError, Endpoint, Event, Events, Identity, PartAnswer, RequestError, Responder,
    SendError,
};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_units::BytesPerSecond;
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::peer::{Have, Hello, PartReply, PeerMessage, Request};
use hybrid_wire::{
    PEER_ALPN, PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, encode_peer, encode_reply, encode_request,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Nothing here takes longer unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        content: ContentId::from_bytes([7; 32]),
        part_len_bytes: 1 << 16,
        ticket: Bytes::from_static(b"a ticket"),
        has: PartRanges::one(PartNumber::new(3)),
        uploads: true,
    }
}

fn part(number: u32, length_bytes: usize) -> Bytes {
    (0..length_bytes).map(|i| (i * 7 + number as usize).to_le_bytes()[0]).collect()
}

pub(crate) fn bind(config: Config) -> (Endpoint, Events) {
    Endpoint::bind(localhost(), &Identity::generate().unwrap(), config).unwrap()
}

fn coordinates(endpoint: &Endpoint) -> PeerCoordinates {
    PeerCoordinates { peer: endpoint.peer_id(), address: endpoint.local_addr().unwrap() }
}

async fn next(events: &mut Events) -> Event {
    timeout(DEADLINE, events.next()).await.expect("an event in time").expect("the endpoint is open")
}

async fn connected(events: &mut Events) -> (Connection, Hello) {
    match next(events).await {
        Event::Connected { connection, hello, .. } => (connection, hello),
        other => panic!("{other:?}"),
    }
}

async fn closed(events: &mut Events) -> CloseReason {
    loop {
        if let Event::Closed { reason, .. } = next(events).await {
            return reason;
        }
    }
}

async fn requested(events: &mut Events) -> (PartNumber, Responder) {
    loop {
        match next(events).await {
            Event::PartRequested { number, responder, .. } => break (number, responder),
            Event::RequestCancelled { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A dialler and an answerer with a connection between them.
struct Pair {
    dialler: Connection,
    dialler_events: Events,
    answerer: Connection,
    answerer_events: Events,
    _endpoints: [Endpoint; 2],
}

impl Pair {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let (one, mut dialler_events) = bind(config.clone());
        let (two, mut answerer_events) = bind(config);
        let to = coordinates(&two);
        let dialling = tokio::spawn({
            let one = one.clone();
            async move { one.dial(&to, hello()).await }
        });
        let (answerer, said) = connected(&mut answerer_events).await;
        assert_eq!(said, hello());
        assert_eq!(answerer.peer(), one.peer_id());
        answerer.send(&PeerMessage::Hello(hello())).unwrap();
        let dialler = timeout(DEADLINE, dialling).await.unwrap().unwrap().unwrap();
        assert_eq!(connected(&mut dialler_events).await.0.id(), dialler.id());
        assert_eq!(dialler.peer(), two.peer_id());
        Self { dialler, dialler_events, answerer, answerer_events, _endpoints: [one, two] }
    }

    /// The dialler asks for a part; what the answerer does with it is up to the caller.
    async fn ask(
        &mut self,
        number: u32,
        length_bytes: u32,
    ) -> (tokio::task::JoinHandle<Result<PartAnswer, RequestError>>, Responder) {
        let dialler = self.dialler.clone();
        let asking = tokio::spawn(async move { dialler.request(PartNumber::new(number), length_bytes, drop).await });
        let asked = timeout(DEADLINE, requested(&mut self.answerer_events));
        let (got, responder) = asked.await.expect("the request comes");
        assert_eq!(got, PartNumber::new(number));
        (asking, responder)
    }
}

/// A peer that does what it likes: QUIC and TLS as they should be, and nothing above.
pub(crate) struct Raw {
    endpoint: quinn::Endpoint,
    credentials: Credentials,
    peer: PeerId,
}

impl Raw {
    fn new() -> Self {
        Self::with_config(&Config { bidi_streams_max: 100, ..Config::default() })
    }

    pub(crate) fn with_config(config: &Config) -> Self {
        let identity = Identity::generate().unwrap();
        let credentials = Credentials::new(&identity).unwrap();
        let tls = QuicServerConfig::try_from(credentials.server().unwrap()).unwrap();
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(Arc::new(config.transport()));
        let endpoint = quinn::Endpoint::server(server, localhost()).unwrap();
        Self { endpoint, credentials, peer: identity.peer_id() }
    }

    fn coordinates(&self) -> PeerCoordinates {
        PeerCoordinates { peer: self.peer, address: self.endpoint.local_addr().unwrap() }
    }

    async fn connect(&self, to: &Endpoint, alpn: &[u8]) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.connect_to(&coordinates(to), alpn).await
    }

    pub(crate) async fn connect_to(
        &self,
        to: &PeerCoordinates,
        alpn: &[u8],
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let mut tls = self.credentials.client(self.credentials.pin(to.peer)).unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        timeout(DEADLINE, self.endpoint.connect_with(config, to.address, "peer.invalid").unwrap()).await.unwrap()
    }

    /// Takes one dial and answers its `Hello`.
    async fn answer(&self) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream) {
        let connection = self.endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, recv) = connection.accept_bi().await.unwrap();
        send.write_all(&encode_peer(&PeerMessage::Hello(hello())).unwrap()).await.unwrap();
        (connection, send, recv)
    }
}

/// Waits for the close that a raw connection gets, and tells its code.
async fn close_code(connection: &quinn::Connection) -> ByeCode {
    match timeout(DEADLINE, connection.closed()).await.expect("closed in time") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ByeCode::from_u16(close.error_code.into_inner().try_into().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_both_ways_and_a_farewell() {
    let mut pair = Pair::new().await;
    let have = PeerMessage::Have(Have { parts: PartRanges::one(PartNumber::new(9)), queue: 2 });
    pair.dialler.send(&have).unwrap();
    pair.answerer.send(&PeerMessage::Idle).unwrap();
    assert!(matches!(next(&mut pair.answerer_events).await, Event::Message { message, .. } if message == have));
    assert!(
        matches!(next(&mut pair.dialler_events).await, Event::Message { message, .. } if message == PeerMessage::Idle)
    );
    assert!(pair.dialler.stats().sent_bytes > 0);
    pair.dialler.close(&Bye { code: ByeCode::Duplicate, reason: "one is enough".to_owned() });
    let bye = Bye { code: ByeCode::Duplicate, reason: "one is enough".to_owned() };
    assert_eq!(closed(&mut pair.answerer_events).await, CloseReason::Peer(bye));
    assert_eq!(closed(&mut pair.dialler_events).await, CloseReason::Local);
    assert_eq!(pair.dialler.send(&PeerMessage::Idle), Err(SendError::Closed));
    let asked = pair.dialler.request(PartNumber::new(0), 1, drop).await;
    assert_eq!(asked, Err(RequestError::Closed));
}

#[tokio::test]
async fn another_key_is_refused() {
    let (one, _one_events) = bind(Config::default());
    let (two, mut two_events) = bind(Config::default());
    let expected = Identity::generate().unwrap().peer_id();
    let to = PeerCoordinates { peer: expected, address: two.local_addr().unwrap() };
    let error = timeout(DEADLINE, one.dial(&to, hello())).await.unwrap().unwrap_err();
    assert_eq!(error, DialError::WrongPeer { expected, got: two.peer_id() });
    drop(two);
    assert!(timeout(Duration::from_millis(100), two_events.next()).await.is_err(), "no event of a stranger");
}

#[tokio::test]
async fn oneself_is_not_dialled() {
    let (one, _events) = bind(Config::default());
    assert_eq!(one.dial(&coordinates(&one), hello()).await.unwrap_err(), DialError::Myself);
}

#[tokio::test]
async fn who_is_there_is_told_without_a_hello() {
    let (one, mut one_events) = bind(Config::default());
    let (two, mut two_events) = bind(Config::default());
    let address = two.local_addr().unwrap();
    assert_eq!(timeout(DEADLINE, one.identify(address)).await.unwrap(), Ok(two.peer_id()));
    // The connection that this took was none: the next event is of one that says hello.
    let dialling = tokio::spawn({
        let (one, to) = (one.clone(), coordinates(&two));
        async move { one.dial(&to, hello()).await }
    });
    let (answerer, _) = connected(&mut two_events).await;
    answerer.send(&PeerMessage::Hello(hello())).unwrap();
    timeout(DEADLINE, dialling).await.unwrap().unwrap().unwrap();
    connected(&mut one_events).await;
    // A socket that never answers.
    let silent = std::net::UdpSocket::bind(localhost()).unwrap();
    let short = Config { handshake_deadline: Duration::from_millis(200), ..Config::default() };
    assert_eq!(bind(short).0.identify(silent.local_addr().unwrap()).await, Err(DialError::TimedOut));
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let (endpoint, _events) = bind(Config::default());
    let error = Raw::new().connect(&endpoint, b"h3").await.unwrap_err();
    // TLS alert 120, no_application_protocol (RFC 7301), as a QUIC error (RFC 9001 section 4.8).
    let code = u64::from(quinn::TransportErrorCode::crypto(120));
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == code));
}

#[tokio::test]
async fn without_a_key_nobody_is_let_in() {
    let (endpoint, mut events) = bind(Config::default());
    let raw = Raw::new();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(raw.credentials.pin(endpoint.peer_id()))
        .with_no_client_auth();
    tls.alpn_protocols = vec![PEER_ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let connecting = raw.endpoint.connect_with(config, endpoint.local_addr().unwrap(), "peer.invalid").unwrap();
    // In TLS 1.3 the client is done before the server has seen that it shows no certificate.
    let error = match timeout(DEADLINE, connecting).await.unwrap() {
        Ok(connection) => timeout(DEADLINE, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    // TLS alert 116, certificate_required (RFC 8446 section 6).
    let code = u64::from(quinn::TransportErrorCode::crypto(116));
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == code));
    assert!(timeout(Duration::from_millis(100), events.next()).await.is_err());
}

#[tokio::test]
async fn what_is_said_first_must_be_hello() {
    let garbage = vec![1, 0, 0, 0, 0xff];
    let huge = vec![0xff, 0xff, 0xff, 0xff, 0xa1];
    let mut old = encode_peer(&PeerMessage::Hello(hello())).unwrap().to_vec();
    old[5] = 77;
    for (bytes, expected) in [
        (encode_peer(&PeerMessage::Idle).unwrap().to_vec(), ByeCode::Protocol),
        (encode_request(&Request { number: 1 }).unwrap().to_vec(), ByeCode::Protocol),
        (garbage, ByeCode::UnknownType),
        (huge, ByeCode::FrameSize),
        (old, ByeCode::Version),
    ] {
        let (endpoint, mut events) = bind(Config::default());
        let raw = Raw::new();
        let connection = raw.connect(&endpoint, PEER_ALPN).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&connection).await, expected, "{bytes:02x?}");
        assert!(timeout(Duration::from_millis(20), events.next()).await.is_err(), "no event of a stranger");
    }
}

#[tokio::test]
async fn a_dialled_peer_must_say_hello_too() {
    let (endpoint, _events) = bind(Config::default());
    let raw = Raw::new();
    let to = raw.coordinates();
    let answering = tokio::spawn(async move {
        let connection = raw.endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        send.write_all(&encode_peer(&PeerMessage::Idle).unwrap()).await.unwrap();
        close_code(&connection).await
    });
    let error = timeout(DEADLINE, endpoint.dial(&to, hello())).await.unwrap().unwrap_err();
    assert_eq!(error, DialError::Closed(CloseReason::Fault(ByeCode::Protocol)));
    assert_eq!(answering.await.unwrap(), ByeCode::Protocol);
}

#[tokio::test]
async fn silence_is_not_waited_for() {
    let deadline = Duration::from_millis(300);
    let config = Config { handshake_deadline: deadline, ..Config::default() };
    let (endpoint, _events) = bind(config);
    let raw = Raw::new();
    let began = Instant::now();
    let connection = raw.connect(&endpoint, PEER_ALPN).await.unwrap();
    assert_eq!(close_code(&connection).await, ByeCode::HandshakeTimeout);
    assert!(began.elapsed() >= deadline);

    let to = raw.coordinates();
    let answering = tokio::spawn(async move {
        let connection = raw.endpoint.accept().await.unwrap().await.unwrap();
        connection.closed().await
    });
    assert_eq!(timeout(DEADLINE, endpoint.dial(&to, hello())).await.unwrap().unwrap_err(), DialError::TimedOut);
    timeout(DEADLINE, answering).await.expect("the dialler leaves").unwrap();
}

#[tokio::test]
async fn a_second_hello_ends_it() {
    let mut pair = Pair::new().await;
    pair.dialler.send(&PeerMessage::Hello(hello())).unwrap();
    assert_eq!(closed(&mut pair.answerer_events).await, CloseReason::Fault(ByeCode::Protocol));
    let reason = closed(&mut pair.dialler_events).await;
    assert_eq!(reason.code(), ByeCode::Protocol);
}

#[tokio::test]
async fn a_part_comes_as_it_was_sent() {
    let mut pair = Pair::new().await;
    for length_bytes in [0, 1, 65_536, 1 << 20] {
        let bytes = part(3, length_bytes);
        let (begun, queue) = tokio::sync::oneshot::channel();
        let dialler = pair.dialler.clone();
        let wanted_bytes = u32::try_from(length_bytes).unwrap();
        let asking = tokio::spawn(async move {
            dialler.request(PartNumber::new(3), wanted_bytes, |queue| begun.send(queue).unwrap()).await
        });
        let (_, responder) = requested(&mut pair.answerer_events).await;
        let sent = responder.send_part(bytes.clone(), 5, None).await;
        assert_eq!(sent, bytes.len() as u64);
        assert_eq!(asking.await.unwrap(), Ok(PartAnswer::Part { bytes }));
        assert_eq!(queue.await, Ok(5));
    }
}

#[tokio::test]
async fn both_sides_ask() {
    let mut pair = Pair::new().await;
    let answerer = pair.answerer.clone();
    let asking = tokio::spawn(async move { answerer.request(PartNumber::new(8), 100, drop).await });
    let (number, responder) = requested(&mut pair.dialler_events).await;
    assert_eq!(number, PartNumber::new(8));
    responder.send_part(part(8, 100), 0, None).await;
    assert_eq!(asking.await.unwrap(), Ok(PartAnswer::Part { bytes: part(8, 100) }));
}

#[tokio::test]
async fn refusals_come_as_they_were_given() {
    let mut pair = Pair::new().await;
    let (asking, responder) = pair.ask(1, 10).await;
    responder.refuse(&PartReply::Busy { retry_in_ms: 250, queue: 7 }).await;
    assert_eq!(asking.await.unwrap(), Ok(PartAnswer::Busy { retry_in: Duration::from_millis(250), queue: 7 }));
    let (asking, responder) = pair.ask(2, 10).await;
    responder.refuse(&PartReply::Gone).await;
    assert_eq!(asking.await.unwrap(), Ok(PartAnswer::Gone));
    let (asking, responder) = pair.ask(3, 10).await;
    drop(responder);
    assert_eq!(asking.await.unwrap(), Err(RequestError::Dropped));
}

#[tokio::test]
async fn a_waiting_request_can_be_cancelled() {
    let mut pair = Pair::new().await;
    let (asking, responder) = pair.ask(4, 10).await;
    asking.abort();
    match next(&mut pair.answerer_events).await {
        Event::RequestCancelled { number, .. } => assert_eq!(number, PartNumber::new(4)),
        other => panic!("{other:?}"),
    }
    assert_eq!(responder.send_part(part(4, 10), 0, None).await, 0, "nobody wants it any more");
}

#[tokio::test]
async fn cancelled_and_dropped_requests_leave_nothing_behind() {
    let mut pair = Pair::new().await;
    // Four times the streams that may be open at one time, each way of ending them.
    for number in 0..64 {
        let (asking, responder) = pair.ask(number, 10).await;
        match number % 3 {
            0 => {
                drop(responder);
                assert_eq!(asking.await.unwrap(), Err(RequestError::Dropped));
            }
            1 => {
                asking.abort();
                drop(asking.await);
                responder.refuse(&PartReply::Gone).await;
            }
            _ => {
                responder.refuse(&PartReply::Gone).await;
                assert_eq!(asking.await.unwrap(), Ok(PartAnswer::Gone));
            }
        }
    }
}

#[tokio::test]
async fn a_part_under_way_can_be_cancelled() {
    let mut pair = Pair::new().await;
    let length_bytes = 1 << 20;
    let (asking, responder) = pair.ask(4, length_bytes).await;
    // At this pace the part would take 16 seconds.
    let pace = Some(BytesPerSecond::new(1 << 16));
    let sending = tokio::spawn(responder.send_part(part(4, length_bytes as usize), 0, pace));
    let began = Instant::now();
    while pair.dialler.stats().received_bytes < 20_000 {
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    asking.abort();
    let sent = timeout(Duration::from_secs(5), sending).await.expect("the cancellation is noticed").unwrap();
    assert!((1..u64::from(length_bytes)).contains(&sent), "{sent}");
    // The connection goes on.
    let (asking, responder) = pair.ask(5, 3).await;
    responder.send_part(part(5, 3), 0, None).await;
    assert!(asking.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_pace_holds() {
    let mut pair = Pair::new().await;
    let (asking, responder) = pair.ask(0, 100_000).await;
    let began = Instant::now();
    responder.send_part(part(0, 100_000), 0, Some(BytesPerSecond::new(200_000))).await;
    assert!(asking.await.unwrap().is_ok());
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn requests_are_bounded() {
    let mut pair = Pair::with(Config { requests_max: 2, ..Config::default() }).await;
    let (first, _first) = pair.ask(0, 1).await;
    let (_second, _responder) = pair.ask(1, 1).await;
    assert_eq!(pair.dialler.request(PartNumber::new(2), 1, drop).await, Err(RequestError::TooMany));
    first.abort();
    drop(first.await);
    let (_third, _responder) = pair.ask(3, 1).await;
}

#[tokio::test]
async fn a_part_that_no_content_has_is_not_asked_for() {
    let pair = Pair::new().await;
    let asked = pair.dialler.request(PartNumber::new(u32::MAX), 1, drop).await;
    assert!(matches!(asked, Err(RequestError::Invalid(_))));
}

/// What a raw peer answers to a request for part 5 of 100 bytes, and what becomes of it.
async fn answered_with(reply: &[u8], bytes: &[u8]) -> (RequestError, Option<ByeCode>) {
    let (endpoint, mut events) = bind(Config::default());
    let raw = Raw::new();
    let to = raw.coordinates();
    let (reply, bytes) = (reply.to_vec(), bytes.to_vec());
    let answering = tokio::spawn(async move {
        let (connection, _send, _recv) = raw.answer().await;
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        drop(send.write_all(&reply).await);
        drop(send.write_all(&bytes).await);
        drop(send.finish());
        timeout(Duration::from_millis(300), close_code(&connection)).await.ok()
    });
    let connection = timeout(DEADLINE, endpoint.dial(&to, hello())).await.unwrap().unwrap();
    connected(&mut events).await;
    let error = timeout(DEADLINE, connection.request(PartNumber::new(5), 100, drop)).await.unwrap().unwrap_err();
    (error, answering.await.unwrap())
}

#[tokio::test]
async fn answers_that_do_not_fit() {
    let header = |number, length_bytes| encode_reply(&PartReply::Part { number, length_bytes, queue: 0 }).unwrap();
    let length = |got_number, got| RequestError::Length { number: 5, expected: 100, got_number, got };
    for (reply, bytes, error, code) in [
        (header(5, 100), part(5, 101), RequestError::TooLong { expected: 100 }, Some(ByeCode::PartLength)),
        (header(5, 100), part(5, 99), RequestError::Short { expected: 100, got: 99 }, None),
        (header(5, 101), part(5, 101), length(5, 101), Some(ByeCode::PartLength)),
        (header(5, PartLen::MAX.as_u32()), Bytes::new(), length(5, 16 << 20), Some(ByeCode::PartLength)),
        (header(6, 100), part(6, 100), length(6, 100), Some(ByeCode::WrongPart)),
        (Bytes::new(), Bytes::new(), RequestError::Protocol(ByeCode::FrameSize), Some(ByeCode::FrameSize)),
        (
            encode_peer(&PeerMessage::Idle).unwrap(),
            Bytes::new(),
            RequestError::Protocol(ByeCode::Protocol),
            Some(ByeCode::Protocol),
        ),
    ] {
        let (got, got_code) = answered_with(&reply, &bytes).await;
        assert_eq!((&got, got_code), (&error, code), "{reply:?} and {} bytes", bytes.len());
        assert!(got.is_misbehaviour());
    }
}

#[tokio::test]
async fn a_pushed_part_is_read_at_its_length_only() {
    // Less than a part fits into the window: what nobody reads is never acknowledged to its end.
    let mut pair = Pair::with(Config { stream_receive_window_bytes: 32 << 10, ..Config::default() }).await;
    let bytes = part(6, 70_000);
    let pushing = tokio::spawn({
        let (dialler, bytes) = (pair.dialler.clone(), bytes.clone());
        async move { dialler.push(PartNumber::new(6), bytes, None).await }
    });
    let Event::PartPushed { part, .. } = next(&mut pair.answerer_events).await else { panic!("no push") };
    assert_eq!(part.number(), PartNumber::new(6));
    assert_eq!(part.receive(70_000).await, Ok(bytes.clone()));
    assert_eq!(pushing.await.unwrap(), Ok((70_000, true)));

    let pushing = tokio::spawn({
        let (dialler, bytes) = (pair.dialler.clone(), bytes.clone());
        async move { dialler.push(PartNumber::new(6), bytes, None).await }
    });
    let Event::PartPushed { part, .. } = next(&mut pair.answerer_events).await else { panic!("no push") };
    drop(part);
    let (_, taken) = pushing.await.unwrap().unwrap();
    assert!(!taken, "it was refused");

    let pushing = tokio::spawn({
        let dialler = pair.dialler.clone();
        async move { dialler.push(PartNumber::new(7), bytes, None).await }
    });
    let Event::PartPushed { part, .. } = next(&mut pair.answerer_events).await else { panic!("no push") };
    let error = part.receive(60_000).await.unwrap_err();
    assert_eq!(error, RequestError::Length { number: 7, expected: 60_000, got_number: 7, got: 70_000 });
    assert_eq!(closed(&mut pair.dialler_events).await.code(), ByeCode::PartLength);
    pushing.await.unwrap().ok();
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_left() {
    let (endpoint, mut events) = bind(Config { queued_messages_max: 4, ..Config::default() });
    // A raw peer whose window is full after a few messages, because it reads nothing.
    let raw = Raw::with_config(&Config { stream_receive_window_bytes: 1 << 10, ..Config::default() });
    let to = raw.coordinates();
    let answering = tokio::spawn(async move {
        let (connection, _send, _recv) = raw.answer().await;
        close_code(&connection).await
    });
    let connection = timeout(DEADLINE, endpoint.dial(&to, hello())).await.unwrap().unwrap();
    connected(&mut events).await;
    let have = PeerMessage::Have(Have { parts: PartRanges::one(PartNumber::new(1)), queue: 0 });
    let began = Instant::now();
    let error = loop {
        assert!(began.elapsed() < DEADLINE);
        match connection.send(&have) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Full);
    assert_eq!(closed(&mut events).await, CloseReason::Fault(ByeCode::Useless));
    assert_eq!(answering.await.unwrap(), ByeCode::Useless);
}

#[tokio::test]
async fn streams_beyond_the_limit_wait() {
    let (endpoint, mut events) = bind(Config::default());
    let raw = Raw::new();
    let connection = raw.connect(&endpoint, PEER_ALPN).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&encode_peer(&PeerMessage::Hello(hello())).unwrap()).await.unwrap();
    connected(&mut events).await;
    let mut streams = Vec::new();
    for number in 0..15 {
        let (mut send, recv) = timeout(DEADLINE, connection.open_bi()).await.unwrap().unwrap();
        send.write_all(&encode_request(&Request { number }).unwrap()).await.unwrap();
        send.finish().unwrap();
        streams.push(recv);
    }
    let mut responders = Vec::new();
    for _ in 0..15 {
        responders.push(requested(&mut events).await);
    }
    assert!(timeout(Duration::from_millis(200), connection.open_bi()).await.is_err(), "the seventeenth stream");
    // The library announces free places a few at a time.
    responders.truncate(10);
    timeout(DEADLINE, connection.open_bi()).await.expect("there are places again").unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let (endpoint, mut events) = bind(Config { connections_per_prefix_max: 1, ..Config::default() });
    let (one, _one_events) = bind(Config::default());
    let (two, _two_events) = bind(Config::default());
    let to = coordinates(&endpoint);
    let dialling = tokio::spawn({
        let to = to.clone();
        async move { one.dial(&to, hello()).await.map(|connection| (connection, one)) }
    });
    let (first, _) = connected(&mut events).await;
    first.send(&PeerMessage::Hello(hello())).unwrap();
    let kept = dialling.await.unwrap().unwrap();
    let error = timeout(DEADLINE, two.dial(&to, hello())).await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::Handshake(CloseReason::Lost(_))), "{error:?}");
    assert_eq!(endpoint.dial(&coordinates(&two), hello()).await.unwrap_err(), DialError::TooMany);
    kept.0.close(&Bye { code: ByeCode::Done, reason: String::new() });
    closed(&mut events).await;
    let dialling = tokio::spawn(async move { two.dial(&to, hello()).await });
    connected(&mut events).await.0.send(&PeerMessage::Hello(hello())).unwrap();
    dialling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_crowd_is_let_in_after_a_retry() {
    let (endpoint, mut events) = bind(Config { retry_above_new_per_second: 0, ..Config::default() });
    let (one, _one_events) = bind(Config::default());
    let to = coordinates(&endpoint);
    let dialling = tokio::spawn(async move { one.dial(&to, hello()).await });
    connected(&mut events).await.0.send(&PeerMessage::Hello(hello())).unwrap();
    dialling.await.unwrap().unwrap();
}

/// Connections of which each is sent a part that is longer than what may be under way at first, and closed within it.
async fn closed_within_a_part(close: impl Fn(&Endpoint, &Connection)) -> Vec<ByeCode> {
    let mut codes = Vec::new();
    for _ in 0..20 {
        let (endpoint, mut events) = bind(Config::default());
        let raw = Raw::new();
        let connection = raw.connect(&endpoint, PEER_ALPN).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&encode_peer(&PeerMessage::Hello(hello())).unwrap()).await.unwrap();
        let (ours, _) = connected(&mut events).await;
        let (mut ask, _answer) = connection.open_bi().await.unwrap();
        ask.write_all(&encode_request(&Request { number: 3 }).unwrap()).await.unwrap();
        let (_, responder) = timeout(DEADLINE, requested(&mut events)).await.unwrap();
        let sending = tokio::spawn(responder.send_part(part(3, 1 << 20), 0, None));
        tokio::task::yield_now().await;
        close(&endpoint, &ours);
        codes.push(close_code(&connection).await);
        sending.await.unwrap();
    }
    codes
}

#[tokio::test]
async fn whoever_is_sent_a_part_hears_the_end_and_why() {
    let bye = Bye { code: ByeCode::Useless, reason: String::new() };
    assert_eq!(closed_within_a_part(|_, connection| connection.close(&bye)).await, [ByeCode::Useless; 20]);
    let shutdown = Bye { code: ByeCode::Shutdown, reason: String::new() };
    let all = |endpoint: &Endpoint, _: &Connection| {
        let (endpoint, bye) = (endpoint.clone(), shutdown.clone());
        drop(tokio::spawn(async move { endpoint.close(&bye).await }));
    };
    assert_eq!(closed_within_a_part(all).await, [ByeCode::Shutdown; 20]);
}

#[tokio::test]
async fn closing_tells_the_peers() {
    let mut pair = Pair::new().await;
    let bye = Bye { code: ByeCode::Shutdown, reason: "good night".to_owned() };
    let [dialler, _answerer] = &pair._endpoints;
    timeout(DEADLINE, dialler.close(&bye)).await.unwrap();
    assert_eq!(closed(&mut pair.answerer_events).await, CloseReason::Peer(bye));
    assert_eq!(closed(&mut pair.dialler_events).await, CloseReason::Local);
    assert!(timeout(DEADLINE, pair.dialler_events.next()).await.expect("the events end").is_none());
}

#[tokio::test]
async fn nobody_listening_ends_it() {
    let mut pair = Pair::new().await;
    drop(pair.dialler_events);
    assert_eq!(closed(&mut pair.answerer_events).await.code(), ByeCode::Shutdown);
}
