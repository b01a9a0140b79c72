//! The UDP socket, who is let in, and dialling.

use crate::config::Config;
use crate::congestion::Farewells;
use crate::connection::{Connection, Established};
use crate::error::{BindError, CloseReason, DialError};
use crate::event::{ConnectionId, Event, Events};
use crate::frames::StreamFrames;
use crate::gate::{Gate, Slot, Verdict};
use crate::identity::Identity;
use crate::link::{self, Link};
use crate::socket::{self, PeerSocket};
use crate::tls::{Credentials, Pinned, peer_id_of};
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PeerCoordinates, PeerId, encode_peer};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

/// What the dialler's TLS names as the server: a name that no one owns (RFC 2606), since keys are all that counts here.
const SERVER_NAME: &str = "peer.invalid";

/// How long an address may be silent. The library repeats its first datagram after one second, twice, and again two seconds later
/// (RFC 9002 section 6.2): whoever has nothing to do with us gets three, and the good-bye.
const FIRST_ANSWER: Duration = Duration::from_millis(2_800);

/// How long [`Endpoint::close`] waits until the peers have been told.
const FAREWELL: Duration = Duration::from_secs(1);

/// One UDP socket on which this peer takes and makes connections; clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    quic: quinn::Endpoint,
    credentials: Credentials,
    transport: Arc<quinn::TransportConfig>,
    farewells: Farewells,
    config: Config,
    gate: Gate,
    peer: PeerId,
    /// Strong ones are held by the task that takes newcomers and by each connection, so that the events end with them.
    events: mpsc::WeakSender<Event>,
}

/// Connections are numbered through the whole process, so that a driver of several endpoints can mix their events.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn next_id() -> ConnectionId {
    ConnectionId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
}

impl Endpoint {
    /// Opens a socket at `address` (port 0: any) and takes connections from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, identity: &Identity, config: Config) -> Result<(Self, Events), BindError> {
        let socket_error = |source| BindError::Socket { address, source };
        let credentials = Credentials::new(identity).map_err(|error| BindError::Tls(error.into()))?;
        let tls = credentials.server().map_err(|error| BindError::Tls(error.into()))?;
        let tls = QuicServerConfig::try_from(tls).map_err(|error| BindError::Tls(error.into()))?;
        let (mut transport, farewells) = (config.transport(), Farewells::default());
        transport.congestion_controller_factory(Arc::new(farewells.clone()));
        let transport = Arc::new(transport);
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(transport.clone());
        config.limit_server(&mut server);
        let socket = socket::bind(address, config.socket_buffer_bytes).map_err(socket_error)?;
        let socket = Arc::new(PeerSocket::new(socket).map_err(socket_error)?);
        let (library, runtime) = (quinn::EndpointConfig::default(), Arc::new(quinn::TokioRuntime));
        let quic =
            quinn::Endpoint::new_with_abstract_socket(library, Some(server), socket, runtime).map_err(socket_error)?;
        let (events, receiver) = mpsc::channel(config.events_max);
        let gate = Gate::new(config.clone(), Instant::now());
        let shared = Shared {
            quic,
            credentials,
            transport,
            farewells,
            config,
            gate,
            peer: identity.peer_id(),
            events: events.downgrade(),
        };
        let endpoint = Self(Arc::new(shared));
        tokio::spawn(endpoint.clone().accept(events));
        Ok((endpoint, Events(receiver)))
    }

    /// The socket's address, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.quic.local_addr()
    }

    /// Who others see.
    pub fn peer_id(&self) -> PeerId {
        self.0.peer
    }

    /// Connects to a peer, says `hello`, and waits for the peer's `Hello`; then the connection is up and told as an event too.
    ///
    /// Whether the address may be dialled is not asked here: whoever decides to dial asks `hybrid_wire::address::dialable`.
    ///
    /// # Errors
    /// When there is no such connection within [`Config::handshake_deadline`].
    pub async fn dial(&self, to: &PeerCoordinates, hello: Hello) -> Result<Connection, DialError> {
        if to.peer == self.0.peer {
            return Err(DialError::Myself);
        }
        let events = self.0.events.upgrade().ok_or_else(|| DialError::Unusable("the endpoint is closed".to_owned()))?;
        let slot = self.0.gate.reserve(to.address.ip()).ok_or(DialError::TooMany)?;
        let hello = encode_peer(&PeerMessage::Hello(hello))?;
        let pin = self.0.credentials.pin(to.peer);
        let connecting = self.connecting(to.address, pin.clone())?;
        let established = timeout(self.0.config.handshake_deadline, async {
            let quic = answered(connecting).await?.await.map_err(|error| match pin.impostor() {
                Some(got) => DialError::WrongPeer { expected: to.peer, got },
                None => no_handshake(&error),
            })?;
            greet(Link::new(quic), to.peer, &hello, slot).await
        });
        let established = established.await.map_err(|_| DialError::TimedOut)??;
        Ok(established.start(&self.0.config, events))
    }

    /// Asks who takes connections at an address of which nobody said whose it is: a handshake, and no `Hello`.
    ///
    /// As with [`Self::dial`], whether the address may be dialled is not asked here.
    ///
    /// # Errors
    /// When nobody shows a key there within [`Config::handshake_deadline`].
    pub async fn identify(&self, address: SocketAddr) -> Result<PeerId, DialError> {
        let _slot = self.0.gate.reserve(address.ip()).ok_or(DialError::TooMany)?;
        let connecting = self.connecting(address, self.0.credentials.anyone())?;
        let connected = timeout(self.0.config.handshake_deadline, async {
            answered(connecting).await?.await.map_err(|error| no_handshake(&error))
        });
        let quic = connected.await.map_err(|_| DialError::TimedOut)??;
        let peer = shown_by(&quic).ok_or(DialError::Closed(CloseReason::Fault(ByeCode::Ticket)));
        quic.close(quinn::VarInt::from_u32(ByeCode::Done.to_u16().into()), b"");
        peer
    }

    fn connecting(&self, to: SocketAddr, pin: Arc<Pinned>) -> Result<quinn::Connecting, DialError> {
        let unusable = |error: &dyn fmt::Display| DialError::Unusable(error.to_string());
        let tls = self.0.credentials.client(pin).map_err(|error| unusable(&error))?;
        let tls = QuicClientConfig::try_from(tls).map_err(|error| unusable(&error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.0.transport.clone());
        self.0.quic.connect_with(config, to, SERVER_NAME).map_err(|error| unusable(&error))
    }

    /// Ends all connections, telling the peers why, and takes no new ones. Waits up to a second for that.
    pub async fn close(&self, bye: &Bye) {
        self.0.farewells.all_end();
        self.0.quic.close(quinn::VarInt::from_u32(bye.code.to_u16().into()), bye.reason.as_bytes());
        let _ = timeout(FAREWELL, self.0.quic.wait_idle()).await;
    }

    async fn accept(self, events: mpsc::Sender<Event>) {
        loop {
            let incoming = tokio::select! {
                incoming = self.0.quic.accept() => incoming,
                // Nobody listens any more.
                () = events.closed() => break self.close_now(),
            };
            match incoming {
                Some(incoming) => self.judge(incoming, &events),
                None => break,
            }
        }
    }

    fn close_now(&self) {
        self.0.farewells.all_end();
        self.0.quic.close(quinn::VarInt::from_u32(ByeCode::Shutdown.to_u16().into()), b"");
    }

    fn judge(&self, incoming: quinn::Incoming, events: &mpsc::Sender<Event>) {
        let (address, validated) = (incoming.remote_address().ip(), incoming.remote_address_validated());
        match self.0.gate.judge(Instant::now(), address, validated) {
            Verdict::Admit(slot) => drop(tokio::spawn(self.clone().welcome(incoming, slot, events.clone()))),
            // Fails only for a newcomer that has come back from a Retry, which is never sent there again.
            Verdict::Retry => drop(incoming.retry()),
            Verdict::Refuse => incoming.refuse(),
        }
    }

    /// Brings a newcomer up to its `Hello`. Whoever does not get that far is no event: strangers must not fill logs.
    async fn welcome(self, incoming: quinn::Incoming, slot: Slot, events: mpsc::Sender<Event>) {
        let Ok(connecting) = incoming.accept() else { return };
        let deadline = tokio::time::Instant::now() + self.0.config.handshake_deadline;
        let quic = match tokio::time::timeout_at(deadline, connecting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return debug!(%error, "a newcomer's handshake failed"),
            Err(_) => return debug!("a newcomer's handshake took too long"),
        };
        let link = Link::new(quic);
        match tokio::time::timeout_at(deadline, listen(link.clone(), slot)).await {
            Ok(Ok(established)) => drop(established.start(&self.0.config, events)),
            Ok(Err(reason)) => debug!(?reason, "a newcomer said no hello"),
            Err(_) => {
                debug!("a newcomer said no hello in time");
                link.fault(ByeCode::HandshakeTimeout);
            }
        }
    }
}

/// Gives up on an address from which nothing comes at all, before the library repeats itself a second time.
async fn answered(mut connecting: quinn::Connecting) -> Result<quinn::Connecting, DialError> {
    // Why a handshake failed is told by the connection itself.
    let first = timeout(FIRST_ANSWER, connecting.handshake_data()).await;
    first.map(|_| connecting).map_err(|_| DialError::TimedOut)
}

/// The dialler's side: opens the stream of frames, says `hello`, waits for the answer.
async fn greet(link: Link, peer: PeerId, hello: &[u8], slot: Slot) -> Result<Established, DialError> {
    let (mut send, recv) = link.quic.open_bi().await.map_err(|error| DialError::Closed(link.reason(&error)))?;
    send.write_all(hello).await.map_err(|_| DialError::Closed(link.ended()))?;
    let mut frames = StreamFrames::new(recv);
    let hello = first_hello(&link, &mut frames).await.map_err(DialError::Closed)?;
    Ok(Established { link, id: next_id(), peer, outgoing: true, hello, send, frames, slot })
}

/// The other side: waits for the stream of frames and the `Hello` on it.
async fn listen(link: Link, slot: Slot) -> Result<Established, CloseReason> {
    let peer = shown_by(&link.quic).ok_or(CloseReason::Fault(ByeCode::Ticket));
    // The verifier lets no connection through whose key it could not read.
    let peer = peer.inspect_err(|_| link.fault(ByeCode::Ticket))?;
    let (send, recv) = link.quic.accept_bi().await.map_err(|error| link::reason(&error))?;
    let mut frames = StreamFrames::new(recv);
    let hello = first_hello(&link, &mut frames).await?;
    Ok(Established { link, id: next_id(), peer, outgoing: false, hello, send, frames, slot })
}

async fn first_hello(link: &Link, frames: &mut StreamFrames) -> Result<Hello, CloseReason> {
    let code = match frames.message().await {
        Ok(Some(PeerMessage::Hello(hello))) => return Ok(hello),
        Ok(_) => ByeCode::Protocol,
        Err(error) => error.fault().ok_or_else(|| link.ended())?,
    };
    link.fault(code);
    Err(CloseReason::Fault(code))
}

fn shown_by(quic: &quinn::Connection) -> Option<PeerId> {
    let identity = quic.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    peer_id_of(chain.first()?).ok()
}

fn no_handshake(error: &quinn::ConnectionError) -> DialError {
    match link::reason(error) {
        CloseReason::TimedOut => DialError::TimedOut,
        reason => DialError::Handshake(reason),
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}
