//! A UDP relay that treats datagrams as bad networks do: it delays, drops, reorders, doubles, spoils and holds them up.
//!
//! Chance is a function of the seed and of a datagram's place in its direction; when datagrams come is up to the machine.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Longer than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// What a link's queue holds at the most, as time at its rate; what comes then is dropped.
const QUEUE: Duration = Duration::from_millis(200);

/// How bad a network is, each way. The default is a perfect one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardship {
    /// All chance comes from it.
    pub seed: u8,
    /// How long each datagram takes.
    pub delay: Duration,
    /// Up to so much is added, uniformly: datagrams overtake each other.
    pub jitter: Duration,
    /// The share that is lost.
    pub loss: f64,
    /// How many are lost in a row, in the mean; less than one means one.
    pub burst: f64,
    /// The share that is not delayed at all and so overtakes what went before.
    pub reorder: f64,
    /// The share that comes twice.
    pub duplicate: f64,
    /// The share in which a bit is flipped.
    pub corrupt: f64,
    /// The link's rate; `None` if it has no limit.
    pub bytes_per_second: Option<u64>,
}

/// What became of the datagrams of both directions.
#[derive(Debug, Default)]
pub struct Fates {
    /// Those that came.
    pub seen: AtomicU64,
    /// Those that were dropped, for whatever reason.
    pub lost: AtomicU64,
    /// Those that were spoilt.
    pub corrupted: AtomicU64,
}

/// A relay to one address; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    fates: Arc<Fates>,
    blackhole: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// A relay on loopback to `target`.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub async fn start(target: SocketAddr, hardship: Hardship) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let address = front.local_addr()?;
        let (fates, blackhole) = (Arc::<Fates>::default(), Arc::<AtomicBool>::default());
        let way = |side| Way::new(hardship, side, fates.clone(), blackhole.clone());
        let task = tokio::spawn(relay(front, target, way(0), way(1))).abort_handle();
        Ok(Self { address, fates, blackhole, task })
    }

    /// Where to send what is to reach the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What became of the datagrams so far.
    pub fn fates(&self) -> &Fates {
        &self.fates
    }

    /// From now on everything is lost, or no longer so.
    pub fn set_blackhole(&self, on: bool) {
        self.blackhole.store(on, Ordering::Relaxed);
    }
}

async fn relay(front: Arc<UdpSocket>, target: SocketAddr, mut there: Way, back: Way) -> io::Result<()> {
    let mut upstreams: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut ways_back = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (len, from) = front.recv_from(&mut buffer).await?;
        let upstream = match upstreams.get(&from) {
            Some(upstream) => upstream.clone(),
            None => {
                let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
                upstream.connect(target).await?;
                upstreams.insert(from, upstream.clone());
                ways_back.spawn(answers(upstream.clone(), front.clone(), from, back.clone()));
                upstream
            }
        };
        there.pass(&buffer[..len], move |bytes| {
            let upstream = upstream.clone();
            async move { drop(upstream.send(&bytes).await) }
        });
    }
}

async fn answers(upstream: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, mut back: Way) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let len = upstream.recv(&mut buffer).await?;
        back.pass(&buffer[..len], |bytes| {
            let front = front.clone();
            async move { drop(front.send_to(&bytes, to).await) }
        });
    }
}

/// One direction.
#[derive(Clone)]
struct Way {
    hardship: Hardship,
    chance: blake3::OutputReader,
    fates: Arc<Fates>,
    blackhole: Arc<AtomicBool>,
    /// Whether the last datagram was lost in a burst that may go on.
    losing: bool,
    /// When the link has sent all that it took.
    free: Instant,
}

impl Way {
    fn new(hardship: Hardship, side: u8, fates: Arc<Fates>, blackhole: Arc<AtomicBool>) -> Self {
        let chance = blake3::Hasher::new_keyed(&[hardship.seed; 32]).update(&[side]).finalize_xof();
        Self { hardship, chance, fates, blackhole, losing: false, free: Instant::now() }
    }

    /// A number from 0 to 1.
    fn lot(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.chance.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn happens(&mut self, share: f64) -> bool {
        self.lot() < share
    }

    /// A burst begins and ends by chance (Gilbert's model), so that the given share is lost in the mean.
    fn loses(&mut self) -> bool {
        let (loss, burst) = (self.hardship.loss, self.hardship.burst.max(1.0));
        let share = if self.losing { 1.0 - 1.0 / burst } else { loss / (burst * (1.0 - loss)).max(loss) };
        self.losing = self.happens(share);
        self.losing
    }

    /// When a datagram has left the link; `None` if its queue is full.
    fn leaves(&mut self, len: usize) -> Option<Instant> {
        let now = Instant::now();
        let Some(rate) = self.hardship.bytes_per_second else { return Some(now) };
        let begins = self.free.max(now);
        if begins - now > QUEUE {
            return None;
        }
        self.free = begins + Duration::from_secs_f64(len as f64 / rate.max(1) as f64);
        Some(self.free)
    }

    fn pass<F: Future<Output = ()> + Send + 'static>(&mut self, datagram: &[u8], send: impl Fn(Vec<u8>) -> F) {
        self.fates.seen.fetch_add(1, Ordering::Relaxed);
        // All lots are drawn for each datagram, so that one's fate does not change another's.
        let (lost, corrupt) = (self.loses(), self.happens(self.hardship.corrupt));
        let (double, early) = (self.happens(self.hardship.duplicate), self.happens(self.hardship.reorder));
        let (place, jitter) = (self.lot(), self.hardship.jitter.mul_f64(self.lot()));
        let left = self.leaves(datagram.len()).filter(|_| !lost && !self.blackhole.load(Ordering::Relaxed));
        let Some(left) = left else {
            self.fates.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut bytes = datagram.to_vec();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the datagram")]
        let place = (place * bytes.len() as f64) as usize;
        if corrupt && let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
            self.fates.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        let arrives = if early { left } else { left + self.hardship.delay + jitter };
        for _ in 0..1 + usize::from(double) {
            let sending = send(bytes.clone());
            tokio::spawn(async move {
                sleep_until(arrives).await;
                sending.await;
            });
        }
    }
}
