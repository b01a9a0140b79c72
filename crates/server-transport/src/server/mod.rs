//! The listener: accepts connections, keeps each within its limits, and ends in order.
//!
//! In cleartext it speaks HTTP/1.1 only; browsers use HTTP/2 over TLS alone, and without a preface to tell apart there is
//! one way less to keep a connection half open. Over TLS, ALPN chooses between HTTP/2 and HTTP/1.1.

mod activity;
mod config;
mod pages;
mod slots;
mod watch;

pub use config::ServerConfig;
pub(crate) use config::open_files_limit;

use crate::service::{Caller, split};
use crate::tls::TlsIdentityError;
use crate::{Service, Site};
use activity::{Activity, WatchedBody, WatchedStream};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pages::{Outbox, PageStream};
use slots::{Slot, Slots};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch as signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How a listener ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeSummary {
    /// Connections that were taken.
    pub connections: u64,
    /// Connections that were told 503 because there were too many.
    pub refused: u64,
    /// Connections that were still open when the drain limit came.
    pub cut: u64,
    /// Panics in connections: bugs of ours, or of the site.
    pub panics: u64,
}

/// Serves on these listeners until `shutdown` completes, and then until all answers are sent or the drain limit comes.
///
/// # Errors
/// When the TLS identity cannot be used, or a listener cannot be registered with the runtime.
/// Errors of single connections, and a lack of descriptors, are waited out.
pub async fn serve<S: Site>(
    listeners: Vec<std::net::TcpListener>,
    service: Service<S>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<ServeSummary> {
    let listeners = listeners.into_iter().map(register).collect::<io::Result<Vec<_>>>()?;
    let tls = match &config.tls {
        None => None,
        Some(identity) => {
            let config = identity.server_config().map_err(|error: TlsIdentityError| io::Error::other(error))?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
    };
    let (stop, stopped) = signal::channel(false);
    let (alive, mut all_gone) = mpsc::channel(1);
    let drain_limit = config.drain_limit;
    let slots = Slots::new(config.connections_max, config.connections_per_address_max);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let shared = Arc::new(Shared { service, config, tls, stopped });
    let mut summary = ServeSummary::default();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listeners) => accepted,
            Some(ended) = connections.join_next() => {
                summary.panics += note_panic(ended);
                continue;
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: neither spin nor stop, some will be closed.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match slots.take(client.ip()) {
            Some(slot) => {
                summary.connections += 1;
                let keep = Keep { _slot: slot, _alive: alive.clone() };
                connections.spawn(connection(Arc::clone(&shared), stream, client, keep));
            }
            None => {
                summary.refused += 1;
                if shared.tls.is_none()
                    && let Ok(permit) = Arc::clone(&refusals).try_acquire_owned()
                {
                    connections.spawn(refuse(stream, permit));
                }
            }
        }
    }
    drop(listeners);
    drop(alive);
    let _ = stop.send(true);
    // `all_gone` ends when the last socket is closed, also those that an upgrade has taken out of their tasks.
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            summary.panics += note_panic(ended);
        }
        let _: Option<()> = all_gone.recv().await;
    };
    let _ = timeout(drain_limit, drained).await;
    summary.cut = u64::try_from(connections.len()).unwrap_or(u64::MAX);
    connections.abort_all();
    Ok(summary)
}

/// What waits in the kernel cannot be decided anew: a part that is pushed should wait here.
fn keep_little_unsent(socket: &TcpStream) {
    bound_unsent(socket, CHANNEL_UNSENT_MAX);
}

fn bound_unsent(socket: &TcpStream, bytes_max: u32) {
    drop(socket2::SockRef::from(socket).set_tcp_notsent_lowat(bytes_max));
}

/// Bytes of one control channel that the kernel takes beyond what it may send at once: enough for a wake-up at 1 Gbit/s.
const CHANNEL_UNSENT_MAX: u32 = 32 << 10;

/// The same for any other connection: a wake-up at 4 Gbit/s. Without it each client that does not read made the kernel hold some
/// 600 KiB, and 2,500 of them all that it has for TCP: then it drops what others send.
const UNSENT_MAX: u32 = 128 << 10;

/// How much of an answer is encrypted before it is written: a part of 256 KiB with its headers goes out in one system call.
/// With rustls's usual 64 KiB there are five, which cost 5 to 8 % more processor time. A client that does not read holds
/// as much of our memory.
const TLS_BUFFER_BYTES: usize = 288 << 10;

/// Connections that are being told 503; beyond these, a flood is closed without a word.
const REFUSALS_MAX: usize = 64;

struct Shared<S> {
    service: Service<S>,
    config: ServerConfig,
    tls: Option<TlsAcceptor>,
    stopped: signal::Receiver<bool>,
}

/// What a socket holds as long as it is open.
struct Keep {
    _slot: Slot,
    _alive: mpsc::Sender<()>,
}

fn register(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    let accepts = listeners.iter().map(|listener| Box::pin(listener.accept()));
    if accepts.len() == 0 {
        return std::future::pending().await;
    }
    futures_util::future::select_all(accepts).await.0
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) -> u64 {
    match ended {
        Err(error) if error.is_panic() => {
            tracing::error!("a connection's task panicked; the others go on");
            1
        }
        _ => 0,
    }
}

async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    drop(timeout(Duration::from_secs(1), answer).await);
}

async fn connection<S: Site>(shared: Arc<Shared<S>>, stream: TcpStream, client: SocketAddr, keep: Keep) {
    // Answers go out in whole parts; waiting to fill a segment would only delay their ends.
    drop(stream.set_nodelay(true));
    bound_unsent(&stream, UNSENT_MAX);
    let client = canonical(client);
    let activity = Activity::new((&shared.config).into());
    let Some(tls) = &shared.tls else {
        let outbox = Outbox::default();
        let stream = PageStream::new(stream, outbox.clone());
        let on_upgrade = |stream: &PageStream| keep_little_unsent(stream.socket());
        let stream = WatchedStream::new(stream, activity.clone(), on_upgrade, keep);
        return speak(&shared, stream, client, activity, Version::Http1, Some(outbox)).await;
    };
    let stream = WatchedStream::new(stream, activity.clone(), keep_little_unsent, keep);
    let handshake = timeout(shared.config.handshake_limit, tls.accept(stream));
    match handshake.await {
        Ok(Ok(mut stream)) => {
            activity.restart();
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Http2,
                _ => Version::Http1,
            };
            speak(&shared, stream, client, activity, version, None).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// An IPv4 client of a dual-stack socket is an IPv4 client.
fn canonical(client: SocketAddr) -> SocketAddr {
    let ip: IpAddr = client.ip().to_canonical();
    SocketAddr::new(ip, client.port())
}

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

async fn speak<S, IO>(
    shared: &Shared<S>,
    stream: IO,
    client: SocketAddr,
    activity: Activity,
    version: Version,
    outbox: Option<Outbox>,
) where
    S: Site,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn({
        let (service, activity) = (shared.service.clone(), activity.clone());
        let caller = Caller { address: Some(client), sends_pages: outbox.is_some() };
        move |request: http::Request<Incoming>| {
            let mut in_flight = activity.request();
            let (service, outbox) = (service.clone(), outbox.clone());
            let (head, upgrade) = split(request);
            async move {
                let answer = service.answer(head, upgrade, caller).await;
                in_flight.answered();
                if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    in_flight.upgraded();
                }
                Ok::<_, Infallible>(answer.map(|body| WatchedBody::new(body, in_flight, outbox)))
            }
        }
    });
    let io = TokioIo::new(stream);
    let mut stopped = shared.stopped.clone();
    let stop = async move {
        drop(stopped.wait_for(|stopped| *stopped).await);
    };
    let ended = match version {
        Version::Http1 => {
            let connection = http1_builder(&shared.config).serve_connection(io, service).with_upgrades();
            drive(connection, |connection| connection.graceful_shutdown(), stop, &activity).await
        }
        Version::Http2 => {
            let connection = http2_builder().serve_connection(io, service);
            drive(connection, |connection| connection.graceful_shutdown(), stop, &activity).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// Runs a connection until it ends, is cut, or is told to stop and then ends.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl FnOnce(std::pin::Pin<&mut C>),
    stop: impl Future<Output = ()>,
    activity: &Activity,
) -> hyper::Result<()> {
    tokio::pin!(connection, stop);
    let cut = activity.cut();
    tokio::pin!(cut);
    let mut end = Some(end);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            why = &mut cut => {
                tracing::debug!(?why, "a connection is cut");
                return Ok(());
            }
            () = &mut stop, if end.is_some() => {
                if let Some(end) = end.take() {
                    end(connection.as_mut());
                }
            }
        }
    }
}

fn http1_builder(config: &ServerConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Without a timer hyper forgets the limit on headers in silence. 100 of them, its own limit, cost less than any that is set.
    builder.timer(TokioTimer::new()).header_read_timeout(config.header_limit).max_buf_size(64 << 10);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_header_list_size(16 << 10)
        // What clients may send us; we read no bodies.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_does_not_read_makes_the_kernel_hold_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4 << 10).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        bound_unsent(&server, UNSENT_MAX);
        let (piece, mut taken) = (vec![0; 1 << 20], 0);
        // Until there is no room for a while: the client's side takes some after the first wait.
        while timeout(Duration::from_millis(500), server.writable()).await.is_ok() {
            taken += server.try_write(&piece).unwrap_or_default();
        }
        // What the client's buffers take comes to it; the kernel may go beyond the mark by one buffer of its own.
        assert!((64 << 10..=2 * UNSENT_MAX as usize).contains(&taken), "{taken} bytes");
    }
}
