//! Tells a connection's [`Watch`] what happens: at the socket, and at the requests.

use super::pages::{Chunk, Outbox};
use super::watch::{Cut, Limits, Watch};
use crate::{Body, BodyError};
use http_body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A watch that the socket, the requests and the watchdog share.
#[derive(Clone)]
pub(super) struct Activity {
    watch: Arc<Mutex<Watch>>,
    limits: Limits,
    /// Whether the connection has become a control channel.
    upgraded: Arc<AtomicBool>,
}

impl Activity {
    pub(super) fn new(limits: Limits) -> Self {
        let watch = Arc::new(Mutex::new(Watch::new(Instant::now())));
        Self { watch, limits, upgraded: Arc::new(AtomicBool::new(false)) }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        // A count that a panic left half done is better than a connection without a watchdog.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn restart(&self) {
        self.watch().restart(Instant::now());
    }

    /// Completes when the connection is to be cut.
    pub(super) async fn cut(&self) -> Cut {
        let mut ticks = tokio::time::interval(self.limits.tick());
        loop {
            ticks.tick().await;
            if let Some(cut) = self.watch().verdict(Instant::now(), &self.limits) {
                return cut;
            }
        }
    }

    pub(super) fn request(&self) -> InFlight {
        self.watch().request_began(Instant::now());
        InFlight { activity: self.clone(), working: true, answered: false }
    }
}

/// A request, from its headers to the end of its answer.
pub(super) struct InFlight {
    activity: Activity,
    working: bool,
    answered: bool,
}

impl InFlight {
    /// The headers of the answer are there.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.set_working(false);
    }

    /// What is written from now on is a control channel's.
    pub(super) fn upgraded(&self) {
        self.activity.upgraded.store(true, Ordering::Relaxed);
    }

    fn set_working(&mut self, working: bool) {
        if self.working == working {
            return;
        }
        self.working = working;
        let mut watch = self.activity.watch();
        if working { watch.work_began(Instant::now()) } else { watch.work_ended(Instant::now()) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set_working(false);
        self.activity.watch().request_ended(Instant::now(), !self.answered);
    }
}

/// A body that counts as in flight until its last byte is taken, or it is dropped.
pub(super) struct WatchedBody {
    body: Body,
    in_flight: InFlight,
    /// Where sealed bytes go, if the connection sends them without copying.
    outbox: Option<Outbox>,
}

impl WatchedBody {
    pub(super) fn new(body: Body, in_flight: InFlight, outbox: Option<Outbox>) -> Self {
        Self { body, in_flight, outbox }
    }
}

impl http_body::Body for WatchedBody {
    type Data = Chunk;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        let this = &mut *self;
        if let Some(outbox) = &this.outbox
            && let Some(sealed) = this.body.take_sealed()
        {
            return Poll::Ready(Some(Ok(Frame::data(outbox.put(sealed)))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.in_flight.set_working(frame.is_pending());
        frame.map_ok(|frame| frame.map_data(Chunk::Memory))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

/// A socket that tells what is written to it. `keep` lives as long as the socket, wherever an upgrade takes it.
pub(super) struct WatchedStream<S, K> {
    stream: S,
    activity: Activity,
    /// What is done to the socket, once, when it has become a control channel's.
    on_upgrade: Option<fn(&S)>,
    _keep: K,
}

impl<S, K> WatchedStream<S, K> {
    pub(super) fn new(stream: S, activity: Activity, on_upgrade: fn(&S), keep: K) -> Self {
        Self { stream, activity, on_upgrade: Some(on_upgrade), _keep: keep }
    }

    fn before_write(&mut self) {
        if self.activity.upgraded.load(Ordering::Relaxed)
            && let Some(on_upgrade) = self.on_upgrade.take()
        {
            on_upgrade(&self.stream);
        }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut watch = self.activity.watch();
        match &written {
            Poll::Pending => watch.write_blocked(Instant::now()),
            Poll::Ready(Ok(bytes)) => {
                watch.wrote(Instant::now(), u64::try_from(*bytes).unwrap_or(u64::MAX), &self.activity.limits);
            }
            Poll::Ready(Err(_)) => {}
        }
        drop(watch);
        written
    }
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for WatchedStream<S, K> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for WatchedStream<S, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.before_write();
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerConfig;
    use std::sync::atomic::AtomicU32;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    #[tokio::test]
    async fn a_socket_is_changed_once_and_only_for_a_control_channel() {
        static CHANGED: AtomicU32 = AtomicU32::new(0);
        fn change(_: &DuplexStream) {
            CHANGED.fetch_add(1, Ordering::Relaxed);
        }
        let activity = Activity::new((&ServerConfig::default()).into());
        let (stream, _other) = tokio::io::duplex(64);
        let mut stream = WatchedStream::new(stream, activity.clone(), change, ());
        stream.write_all(b"an answer").await.unwrap();
        assert_eq!(CHANGED.load(Ordering::Relaxed), 0);
        activity.request().upgraded();
        for _ in 0..2 {
            stream.write_all(b"a message").await.unwrap();
            assert_eq!(CHANGED.load(Ordering::Relaxed), 1);
        }
    }
}
