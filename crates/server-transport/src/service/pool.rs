//! Permits for what costs memory, disk or processor, with a short queue in front.

use super::problem::Problem;
use http::StatusCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Pool {
    permits: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(permits: usize) -> Self {
        // Who waits behind two full rounds is answered sooner by another server, or by peers.
        Self { permits: Semaphore::new(permits), waiting: AtomicUsize::new(0), waiting_max: permits.saturating_mul(2) }
    }

    /// Waits for a permit, unless too many wait already.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if ahead >= self.waiting_max {
            return Err(overload());
        }
        let permit = self.permits.acquire().await.map_err(|_| overload())?;
        drop(waiting);
        Ok(permit)
    }
}

fn overload() -> Problem {
    let detail = "the server has more requests than it can work on";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "E_OVERLOAD", detail).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = Pool::new(1);
        let first = pool.permit().await.expect("the pool is free");
        let (mut second, mut third) = (Box::pin(pool.permit()), Box::pin(pool.permit()));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert!(pool.permit().await.is_err());
        drop(third);
        let mut fourth = Box::pin(pool.permit());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        assert!(second.await.is_ok());
        assert!(fourth.await.is_ok());
    }
}
