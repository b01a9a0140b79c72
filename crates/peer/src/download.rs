//! One content under way, as its user sees it.

use crate::driver::Command;
use crate::error::DownloadError;
use crate::store::{ExportError, Overwrite, Recovery, Store};
use hybrid_manifest::{Manifest, PartNumber};
use hybrid_session::Progress;
use hybrid_units::{ByteCount, Mode};
use hybrid_wire::address::AddressRefused;
use hybrid_wire::control::{Bye, ByeCode};
use hybrid_wire::{PeerId, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What a user may want to know while a content is under way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DownloadEvent {
    /// The server decided on a mode, and why.
    Mode {
        /// The mode.
        mode: Mode,
        /// The thresholds with their values, one line each.
        reasons: Vec<String>,
    },
    /// How far it is; comes a few times a second while parts come.
    Progress(Progress),
    /// A part is in the cache, verified; only if [`Config::tell_parts`](crate::Config::tell_parts) asks for it.
    Part {
        /// Which.
        number: PartNumber,
        /// Where it came from.
        source: Source,
        /// The peer that sent it, if one did.
        peer: Option<PeerId>,
        /// Connected peers that were known to hold it when it came.
        holders: u32,
    },
    /// A peer is connected.
    PeerJoined {
        /// Which.
        peer: PeerId,
    },
    /// A peer is no longer connected.
    PeerLeft {
        /// Which.
        peer: PeerId,
        /// Why.
        code: ByeCode,
    },
    /// A peer sent bytes that are not the part; they were thrown away, and it will not be dealt with again.
    PeerBanned {
        /// Which.
        peer: PeerId,
        /// The part that it spoiled.
        number: PartNumber,
    },
    /// A peer's address was not dialled.
    AddressRefused {
        /// Which peer.
        peer: PeerId,
        /// By which rule.
        refused: AddressRefused,
    },
    /// The server cannot be reached, or sent a wrong answer; what can be done without it goes on.
    ServerAway {
        /// What happened.
        reason: String,
        /// When it is tried again.
        retry_in: Option<Duration>,
    },
    /// The server can be reached (again).
    ServerReached,
    /// The server said good-bye.
    ServerBye(Bye),
    /// The server sent bytes that are not the part: a broken server, proxy or cache.
    ServerPartBad {
        /// Which part.
        number: PartNumber,
    },
    /// The server sent part ids that do not fit the manifest.
    ServerHashesBad,
    /// This computer's clock differs from the server's by more than a minute; the server's is used to judge tickets.
    ClockDiffers {
        /// What this computer says, in seconds since 1970.
        ours_secs: u64,
        /// What the server says.
        server_secs: u64,
    },
    /// The disk with the cache is full: nothing more is fetched until it has room for the rest, which is looked at after half a
    /// second, and then later and later up to every half minute.
    StoreFull {
        /// The content's folder in the cache.
        folder: PathBuf,
        /// How much more the disk must hold.
        needed: ByteCount,
        /// What the system said.
        reason: String,
    },
    /// The disk has room again, and the download goes on.
    StoreReady,
    /// The whole content is in the cache, verified.
    Complete(Progress),
    /// It will not become complete any more; [`Download::wait`] gives the same error.
    Failed(DownloadError),
}

/// How a download stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    UnderWay,
    Complete,
    Failed(DownloadError),
}

/// One content under way. It goes on, and serves others, until it is closed or dropped.
#[derive(Debug)]
pub struct Download {
    pub(crate) store: Arc<Store>,
    pub(crate) recovery: Recovery,
    pub(crate) from_cache: Option<String>,
    pub(crate) events: mpsc::Receiver<DownloadEvent>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Download {
    /// What the content is.
    pub fn manifest(&self) -> &Arc<Manifest> {
        self.store.manifest()
    }

    /// What was found in the cache.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Why the manifest comes from the cache, if the server could not be reached.
    pub fn manifest_from_cache(&self) -> Option<&str> {
        self.from_cache.as_deref()
    }

    /// The next event; `None` when the download has ended. Safe to cancel.
    ///
    /// A user that does not listen loses events, and nothing waits for him: [`Self::wait`] and [`Self::progress`] tell what
    /// counts.
    pub async fn next_event(&mut self) -> Option<DownloadEvent> {
        self.events.recv().await
    }

    /// The next event that was told already; `None` when there is none now.
    ///
    /// When [`Self::wait`] returns, all that led to it is here, up to [`DownloadEvent::Complete`] or [`DownloadEvent::Failed`].
    pub fn told_event(&mut self) -> Option<DownloadEvent> {
        self.events.try_recv().ok()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until the whole content is in the cache. Safe to cancel.
    ///
    /// # Errors
    /// When that will not happen any more.
    pub async fn wait(&mut self) -> Result<(), DownloadError> {
        let standing = self.standing.wait_for(|standing| *standing != Standing::UnderWay).await;
        match standing.as_deref() {
            Ok(Standing::Complete) => Ok(()),
            Ok(Standing::Failed(error)) => Err(error.clone()),
            Ok(Standing::UnderWay) | Err(_) => Err(DownloadError::Stopped { missing: self.store.missing() }),
        }
    }

    /// Writes the whole content to a file.
    ///
    /// # Errors
    /// When parts are missing or the file cannot be written.
    pub async fn export(&self, output: &Path, overwrite: Overwrite) -> Result<(), ExportError> {
        let (store, path) = (self.store.clone(), output.to_owned());
        blocking(move || store.export(&path, overwrite)).await.unwrap_or_else(|| Err(stopped(output.to_owned())))
    }

    /// Asks for the parts from this byte of the content on first.
    pub async fn seek(&self, offset: u64) {
        if let Some(place) = self.manifest().layout().part_at(offset) {
            // Fails when the download has ended, and then there is nothing to seek.
            drop(self.commands.send(Command::Seek(place.number())).await);
        }
    }

    /// Tells how the play-out goes: how much media is ahead of the playhead, and whether the player has just run dry. The server
    /// helps whose buffer is thin.
    pub async fn playing(&self, buffer: Duration, ran_dry: bool) {
        drop(self.commands.send(Command::Playing { buffer, ran_dry }).await);
    }

    /// Tells whether the user pays for each byte now: nobody is served while he does.
    pub async fn set_metered(&self, metered: bool) {
        drop(self.commands.send(Command::Metered(metered)).await);
    }

    /// Ends it in good order: says good-bye to server and peers and brings the cache to the disk. Gives the last figures.
    pub async fn close(mut self) -> Progress {
        drop(self.commands.send(Command::Stop).await);
        // Nobody reads the events any more, and nothing waits for that.
        self.events.close();
        drop((&mut self.task).await);
        self.progress()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // With the commands' sender the task ends by itself; this only makes it soon.
        drop(self.commands.try_send(Command::Stop));
    }
}

fn stopped(path: PathBuf) -> ExportError {
    ExportError::Io { path, source: std::io::Error::other("the program is stopping") }
}

/// Runs what blocks on a thread that may; `None` if the runtime is shutting down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}
