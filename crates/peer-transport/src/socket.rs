//! A UDP socket that can take a burst, and that wakes its task no more often than there is something to do.

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;
use tracing::warn;

/// For how long nothing is read after datagrams that trickle in.
///
/// One at a time they cost a wake-up each, which is several times the work on the datagram itself. The pause is part of the
/// round-trip time, so it is small beside those of the internet. The socket is not watched meanwhile, or the kernel would go on
/// to wake us.
const PAUSE: Duration = Duration::from_millis(2);

/// Datagrams per second, both ways, above which those that come are read at once: about 100 Mbit/s of full ones. Who sends much
/// waits for acknowledgements, which are few, and must not wait longer.
const TRICKLE_PER_SECOND: f64 = 8_000.0;

/// Over about which time that rate is smoothed: one slow millisecond of a fast transfer is no trickle, and a burst of a slow one
/// is.
const WINDOW: Duration = Duration::from_millis(20);

/// Binds a socket with buffers of `buffer_bytes` each way, as far as the system grants them.
///
/// An IPv6 socket takes IPv4 as well.
pub(crate) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A refusal is not fatal: the system's own size stays, and the warning below tells it.
    drop(socket.set_recv_buffer_size(buffer_bytes));
    drop(socket.set_send_buffer_size(buffer_bytes));
    let granted = usable(socket.recv_buffer_size()?.min(socket.send_buffer_size()?));
    if granted < buffer_bytes {
        warn!(
            asked = buffer_bytes,
            granted,
            "the system grants smaller socket buffers, so bursts lose packets; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&SockAddr::from(address))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Linux reports twice what can be used: the other half is for its own bookkeeping (socket(7), SO_RCVBUF).
fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

/// The socket as the QUIC library uses it.
///
/// The library's own waits for room to send all the time, and the kernel tells of it whenever a datagram has left: on a slow
/// uplink that is a wake-up for each datagram, with nothing to do. This one waits for room only after it found none.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
    /// Whether the last datagram to be sent found no room.
    full: AtomicBool,
    intake: Mutex<Intake>,
    /// Datagrams that were sent since the intake was last judged.
    sent: AtomicU64,
}

/// How fast datagrams come, and whether they are left alone for a moment.
#[derive(Debug)]
struct Intake {
    /// Tells of datagrams; none in a pause, and behind it only when nothing came meanwhile.
    watched: Option<AsyncFd<Arc<UdpSocket>>>,
    since: Instant,
    datagrams: u64,
    /// Of datagrams, smoothed over [`WINDOW`].
    per_second: f64,
    pause: Pin<Box<Sleep>>,
    pausing: bool,
}

impl Intake {
    /// All that had come was read: begins a pause if it was little for the time.
    fn drained(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < PAUSE / 2 {
            return;
        }
        let (secs, window) = (elapsed.as_secs_f64(), WINDOW.as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let per_second = self.datagrams as f64 / secs;
        self.per_second += (per_second - self.per_second) * secs / (secs + window);
        self.pausing = self.per_second < TRICKLE_PER_SECOND;
        if self.pausing {
            self.watched = None;
            self.pause.as_mut().reset((now + PAUSE).into());
        }
        self.since = now;
        self.datagrams = 0;
    }
}

impl PeerSocket {
    /// Takes a socket that does not block. Needs a tokio runtime, here and wherever it is used.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        let intake =
            Intake { watched: None, since: Instant::now(), datagrams: 0, per_second: 0.0, pause, pausing: false };
        Ok(Self {
            socket: Arc::new(socket),
            state,
            full: AtomicBool::new(false),
            intake: Mutex::new(intake),
            sent: AtomicU64::new(0),
        })
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, and what that asks for holds: a socket keeps its descriptor"
)]
fn watch<S: AsRawFd>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncUdpSocket for PeerSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&*self.socket).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        if sent.is_ok() {
            let datagrams = transmit.contents.len().div_ceil(transmit.segment_size.unwrap_or(usize::MAX).max(1));
            self.sent.fetch_add(datagrams as u64, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Figures, a timer and a watch: a panic elsewhere does no harm to them.
        let mut guard = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        let intake = &mut *guard;
        if intake.pausing {
            ready!(intake.pause.as_mut().poll(cx));
            intake.pausing = false;
        }
        let room = bufs.len().min(meta.len());
        let count = loop {
            let mut told = match &intake.watched {
                Some(watched) => Some(ready!(watched.poll_read_ready(cx))?),
                None => None,
            };
            match self.state.recv((&*self.socket).into(), bufs, meta) {
                Ok(count) => {
                    if let (Some(told), true) = (&mut told, count < room) {
                        // That was all: asking once more would only say so. What has come since is told by a new wake-up.
                        told.clear_ready();
                    }
                    break count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match told {
                    Some(mut told) => told.clear_ready(),
                    // What comes before the watch begins is told by it too.
                    None => intake.watched = Some(watch(self.socket.clone(), Interest::READABLE)?),
                },
                Err(error) => return Poll::Ready(Err(error)),
            }
        };
        let datagrams = meta.iter().take(count).map(|one| one.len.div_ceil(one.stride.max(1)) as u64);
        intake.datagrams += datagrams.sum::<u64>();
        if count < room {
            intake.datagrams += self.sent.swap(0, Ordering::Relaxed);
            intake.drained(Instant::now());
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits for room to send, on a descriptor of its own that is watched only meanwhile.
#[derive(Debug)]
struct Room {
    socket: Arc<PeerSocket>,
    waiting: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Room {
    /// The library asks before each datagram.
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.socket.full.load(Ordering::Relaxed) {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => watch(self.socket.socket.try_clone()?, Interest::WRITABLE)?,
        };
        if let Poll::Ready(room) = waiting.poll_write_ready(cx) {
            self.socket.full.store(false, Ordering::Relaxed);
            return Poll::Ready(room.map(drop));
        }
        self.waiting = Some(waiting);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// How long a test waits for what must come.
    const DEADLINE: Duration = Duration::from_secs(10);

    fn pair() -> (Arc<PeerSocket>, UdpSocket, SocketAddr) {
        let socket = bind("127.0.0.1:0".parse().unwrap(), 64 << 10).unwrap();
        let address = socket.local_addr().unwrap();
        (Arc::new(PeerSocket::new(socket).unwrap()), UdpSocket::bind("127.0.0.1:0").unwrap(), address)
    }

    /// Reads once, into eight buffers.
    fn poll_once(socket: &PeerSocket, cx: &mut Context<'_>) -> Poll<usize> {
        let mut space = [[0; 100]; 8];
        let mut bufs = space.each_mut().map(|buf| IoSliceMut::new(buf));
        let mut meta = [RecvMeta::default(); 8];
        socket.poll_recv(cx, &mut bufs, &mut meta).map(|count| count.unwrap())
    }

    async fn receive(socket: &PeerSocket) -> usize {
        tokio::time::timeout(DEADLINE, poll_fn(|cx| poll_once(socket, cx))).await.expect("datagrams are there")
    }

    #[test]
    fn both_families_bind() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind(address.parse().unwrap(), 64 << 10).unwrap();
            assert_ne!(socket.local_addr().unwrap().port(), 0);
        }
    }

    #[tokio::test]
    async fn what_trickles_in_is_read_in_batches() {
        let (socket, other, address) = pair();
        tokio::time::sleep(PAUSE).await;
        other.send_to(b"first", address).unwrap();
        // The pause begins when the first was read, so whatever holds this test up is part of it.
        let began = Instant::now();
        assert_eq!(receive(&socket).await, 1);
        other.send_to(b"second", address).unwrap();
        let at_once = poll_fn(|cx| Poll::Ready(poll_once(&socket, cx))).await;
        if at_once.is_pending() {
            other.send_to(b"third", address).unwrap();
            assert_eq!(receive(&socket).await, 2, "both in one go");
        }
        assert!(began.elapsed() >= PAUSE, "no pause after one datagram");
    }

    #[tokio::test]
    async fn what_comes_long_after_a_pause_is_told() {
        let (socket, other, address) = pair();
        tokio::time::sleep(PAUSE).await;
        other.send_to(b"before", address).unwrap();
        assert_eq!(receive(&socket).await, 1);
        assert!(socket.intake.lock().unwrap().watched.is_none(), "watched in a pause");
        let late = async {
            tokio::time::sleep(5 * PAUSE).await;
            other.send_to(b"after", address).unwrap();
        };
        let (count, ()) = tokio::join!(receive(&socket), late);
        assert_eq!(count, 1);
    }

    #[tokio::test]
    async fn a_crowd_of_datagrams_is_read_without_pauses() {
        let (socket, other, address) = pair();
        {
            let mut intake = socket.intake.lock().unwrap();
            intake.drained(Instant::now() + DEADLINE);
            assert!(intake.pausing, "nothing came for long");
            let mut pausing_after = |datagrams, elapsed| {
                intake.datagrams = datagrams;
                let now = intake.since + elapsed;
                intake.drained(now);
                intake.pausing
            };
            assert!(pausing_after(50, PAUSE), "a burst");
            assert!(!pausing_after(1_000_000, Duration::from_secs(1)));
            assert!(!pausing_after(0, PAUSE / 4), "too short a time to judge by");
            assert!(!pausing_after(0, PAUSE), "one slow moment");
        }
        // More than fit into one batch: all are read, one batch after the other.
        for _ in 0..20 {
            other.send_to(b"one of many", address).unwrap();
        }
        let mut read = 0;
        while read < 20 {
            read += receive(&socket).await;
        }
    }

    #[tokio::test]
    async fn who_sends_much_reads_without_pauses() {
        for (sent, paused) in [(0, true), (u64::from(u32::MAX), false)] {
            let (socket, other, address) = pair();
            tokio::time::sleep(PAUSE).await;
            socket.sent.store(sent, Ordering::Relaxed);
            other.send_to(b"an acknowledgement", address).unwrap();
            assert_eq!(receive(&socket).await, 1);
            assert_eq!(socket.intake.lock().unwrap().pausing, paused, "{sent} datagrams sent");
        }
    }

    #[tokio::test]
    async fn room_is_waited_for_only_when_there_was_none() {
        let (socket, _, _) = pair();
        let mut room = socket.clone().create_io_poller();
        for full in [false, true] {
            socket.full.store(full, Ordering::Relaxed);
            let waited = tokio::time::timeout(DEADLINE, poll_fn(|cx| room.as_mut().poll_writable(cx)));
            waited.await.expect("an idle socket has room").unwrap();
            assert!(!socket.full.load(Ordering::Relaxed));
        }
    }
}
