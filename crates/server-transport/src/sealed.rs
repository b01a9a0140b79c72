//! Bytes in pages of their own that nobody can change, which the kernel sends without copying them.
//!
//! On Linux they are anonymous files that are sealed against writing once they are written, each of them one descriptor.
//! Elsewhere nothing is sealed, and parts are sent from memory.

use bytes::Bytes;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seals bytes, a limited number of them at one time.
#[derive(Clone, Debug)]
pub struct Sealer {
    slots: Arc<Semaphore>,
}

/// Bytes in sealed pages. Clones are the same pages, which are freed with the last of them.
#[derive(Clone)]
pub struct SealedBytes {
    inner: Arc<Inner>,
}

struct Inner {
    pages: Pages,
    length: usize,
    _slot: OwnedSemaphorePermit,
}

impl Sealer {
    /// At most so many [`SealedBytes`] at one time, since each takes a descriptor.
    pub fn new(descriptors_max: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(descriptors_max.min(Semaphore::MAX_PERMITS))) }
    }

    /// Copies bytes into sealed pages.
    ///
    /// `None` where the system has no such pages, when there are no descriptors left for them, and for bytes that are none or
    /// longer than [`SealedBytes::LENGTH_MAX`].
    pub fn seal(&self, bytes: &[u8]) -> Option<SealedBytes> {
        if bytes.is_empty() || bytes.len() > SealedBytes::LENGTH_MAX {
            return None;
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let pages = Pages::new(bytes).ok()?;
        Some(SealedBytes { inner: Arc::new(Inner { pages, length: bytes.len(), _slot: slot }) })
    }
}

impl Default for Sealer {
    /// A tenth of the process's limit of open files: half of what connections leave.
    fn default() -> Self {
        Self::new(crate::server::open_files_limit() / 10)
    }
}

impl SealedBytes {
    /// The longest part.
    pub const LENGTH_MAX: usize = hybrid_manifest::PartLen::MAX.as_u32() as usize;

    /// How many they are; at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.inner.length
    }

    /// A copy in memory.
    ///
    /// # Errors
    /// When the system cannot read its own pages.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.inner.length];
        self.inner.pages.read(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Sends bytes from `offset` on, as many as the socket takes.
    pub(crate) fn send(&self, socket: &TcpStream, offset: usize) -> io::Result<usize> {
        self.inner.pages.send(socket, offset, self.inner.length.saturating_sub(offset))
    }
}

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBytes({})", self.inner.length)
    }
}

#[cfg(target_os = "linux")]
use linux::Pages;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, sendfile};
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt as _;
    use tokio::net::TcpStream;

    /// An anonymous file for each part, and not one for all: pages of the socket's queue that are freed are then never
    /// written again, nor cleared because their neighbours in a huge page go.
    pub(super) struct Pages(File);

    impl Pages {
        pub(super) fn new(bytes: &[u8]) -> io::Result<Self> {
            let file = File::from(memfd_create("hybrid-part", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
            file.write_all_at(bytes, 0)?;
            fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Ok(Self(file))
        }

        pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_exact_at(buffer, 0)
        }

        pub(super) fn send(&self, socket: &TcpStream, offset: usize, length: usize) -> io::Result<usize> {
            let mut offset = u64::try_from(offset).map_err(io::Error::other)?;
            Ok(sendfile(socket, &self.0, Some(&mut offset), length)?)
        }
    }
}

#[cfg(not(target_os = "linux"))]
enum Pages {}

#[cfg(not(target_os = "linux"))]
impl Pages {
    fn new(_: &[u8]) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _: &mut [u8]) -> io::Result<()> {
        match *self {}
    }

    fn send(&self, _: &TcpStream, _: usize, _: usize) -> io::Result<usize> {
        match *self {}
    }
}
