//! Sealed bytes on their way through hyper: it queues placeholders, and the socket sends pages in their stead.
//!
//! Invariant: no byte of a placeholder leaves.
//! A placeholder is a slice of one block that nothing else points to, so that the socket knows it by its address; where it
//! begins in the block is where the bytes begin in their pages.
//! As long as sealed bytes wait, each write must show their placeholder; one that does not has copied it, and fails.

use crate::SealedBytes;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Never read, so the system gives it addresses and no memory.
static PLACEHOLDER: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; SealedBytes::LENGTH_MAX].into_boxed_slice());

/// Where in the block a slice begins, if it is a placeholder.
fn place(slice: &[u8]) -> Option<usize> {
    let offset = slice.as_ptr().addr().checked_sub(PLACEHOLDER.as_ptr().addr())?;
    (offset < PLACEHOLDER.len() && !slice.is_empty()).then_some(offset)
}

/// A piece of a body as hyper queues it.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes in memory.
    Memory(Bytes),
    /// Stands for sealed bytes in the connection's [`Outbox`].
    Placeholder {
        /// How many of them are sent.
        sent: usize,
        /// How many they are.
        length: usize,
    },
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.remaining(),
            Self::Placeholder { sent, length } => length - sent,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes.chunk(),
            Self::Placeholder { sent, length } => &PLACEHOLDER[*sent..*length],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Memory(bytes) => bytes.advance(count),
            Self::Placeholder { sent, length } => {
                assert!(count <= *length - *sent, "advanced beyond the end of a placeholder");
                *sent += count;
            }
        }
    }
}

/// The sealed bytes whose placeholders hyper holds, in the order of the answers.
/// It holds a few at most: hyper queues no more than 16 chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<VecDeque<SealedBytes>>>);

impl Outbox {
    /// What hyper is given in place of sealed bytes.
    pub(super) fn put(&self, sealed: SealedBytes) -> Chunk {
        let length = sealed.len();
        self.queue().push_back(sealed);
        Chunk::Placeholder { sent: 0, length }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<SealedBytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that sends sealed bytes where placeholders are written to it.
pub(super) struct PageStream {
    socket: TcpStream,
    outbox: Outbox,
}

impl PageStream {
    pub(super) fn new(socket: TcpStream, outbox: Outbox) -> Self {
        Self { socket, outbox }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends what comes before the first placeholder, and then from its pages.
    fn poll_send(&self, cx: &mut Context<'_>, before: &[IoSlice<'_>], offset: usize) -> Poll<io::Result<usize>> {
        let mut queue = self.outbox.queue();
        let sealed = queue.front().filter(|sealed| offset < sealed.len()).ok_or_else(misplaced)?;
        let length: usize = before.iter().map(|slice| slice.len()).sum();
        let mut sent = 0;
        if length > 0 {
            sent = ready!(self.poll_try(cx, || send_more(&self.socket, before)))?;
        }
        if sent < length {
            return Poll::Ready(Ok(sent));
        }
        match self.poll_try(cx, || sealed.send(&self.socket, offset)) {
            Poll::Ready(Ok(pages)) => {
                if offset + pages == sealed.len() {
                    queue.pop_front();
                }
                Poll::Ready(Ok(sent + pages))
            }
            // What went before is told; the rest is asked for again, and fails again.
            _ if sent > 0 => Poll::Ready(Ok(sent)),
            other => other,
        }
    }

    fn poll_try(&self, cx: &mut Context<'_>, mut send: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_io(Interest::WRITABLE, &mut send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// Sends bytes of which more will follow at once, so that the kernel does not make a packet of them alone.
#[cfg(target_os = "linux")]
fn send_more(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
    Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

#[cfg(not(target_os = "linux"))]
fn send_more(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    socket.try_write_vectored(slices)
}

fn misplaced() -> io::Error {
    io::Error::other("a placeholder came without its pages, or pages without their placeholder: a bug")
}

impl AsyncRead for PageStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for PageStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs.iter().enumerate().find_map(|(index, slice)| Some((index, place(slice)?))) {
            Some((index, offset)) => self.poll_send(cx, &bufs[..index], offset),
            None if self.outbox.queue().is_empty() => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
            None => Poll::Ready(Err(misplaced())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::Sealer;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair() -> (PageStream, TcpStream, Outbox) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Outbox::default();
        (PageStream::new(listener.accept().await.unwrap().0, outbox.clone()), client, outbox)
    }

    async fn write(stream: &mut PageStream, slices: &[&[u8]]) -> io::Result<usize> {
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices)).await
    }

    /// All that the client gets once the server has closed.
    async fn received(mut stream: PageStream, mut client: TcpStream) -> Vec<u8> {
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    fn sealed(bytes: &[u8]) -> SealedBytes {
        Sealer::new(4).seal(bytes).expect("Linux can seal")
    }

    #[tokio::test]
    async fn pages_go_out_in_place_of_placeholders() {
        let (mut stream, client, outbox) = pair().await;
        let (mut first, second) = (outbox.put(sealed(b"first part")), outbox.put(sealed(b"second")));
        // What hyper does after a write that was cut short: the placeholder begins later.
        assert_eq!(write(&mut stream, &[b"head ", &first.chunk()[..0], first.chunk(), b" tail"]).await.unwrap(), 15);
        first.advance(10);
        assert_eq!((first.remaining(), first.chunk()), (0, &[][..]));
        assert_eq!(write(&mut stream, &[b" and "]).await.unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(write(&mut stream, &[b" and ", second.chunk(), b"!"]).await.unwrap(), 11);
        assert_eq!(write(&mut stream, &[b"!"]).await.unwrap(), 1);
        assert_eq!(received(stream, client).await, b"head first part and second!");
    }

    #[tokio::test]
    async fn a_placeholder_begins_where_its_pages_go_on() {
        let (mut stream, client, outbox) = pair().await;
        let mut chunk = outbox.put(sealed(b"0123456789"));
        chunk.advance(4);
        assert_eq!(write(&mut stream, &[chunk.chunk()]).await.unwrap(), 6);
        assert_eq!(received(stream, client).await, b"456789");
    }

    #[tokio::test]
    async fn no_byte_of_a_placeholder_leaves() {
        let (mut stream, client, outbox) = pair().await;
        let chunk = outbox.put(sealed(b"some bytes"));
        let copy = chunk.chunk().to_vec();
        assert!(write(&mut stream, &[b"head", &copy]).await.is_err(), "a copied placeholder");
        assert!(stream.write(&copy).await.is_err(), "one that is written alone");
        assert_eq!(write(&mut stream, &[chunk.chunk()]).await.unwrap(), 10);
        assert!(write(&mut stream, &[b"head", chunk.chunk()]).await.is_err(), "one without pages");
        assert!(stream.write(chunk.chunk()).await.is_err(), "and alone");
        let short = outbox.put(sealed(b"short"));
        assert!(write(&mut stream, &[&chunk.chunk()[5..]]).await.is_err(), "beyond the end of its pages");
        assert_eq!(write(&mut stream, &[short.chunk()]).await.unwrap(), 5);
        assert_eq!(received(stream, client).await, b"some bytesshort");
    }
}
