//! The parts of one content on disk.
//!
//! Invariants: only verified parts go in, and what comes out was hashed on its way; a process that is killed at any moment
//! leaves a store that opens again with every part whose bytes reached the disk, and with no other.
//!
//! One folder for each content:
//! - `manifest`: as the server signed it;
//! - `data`: the content itself, sparse until it is whole;
//! - `journal`: which parts `data` holds (a list of self-checking records);
//! - `proofs`: the part ids that were learned, each proved against the manifest again when it is read.
//!
//! No part is written and synced on its own: that costs nine times the rate.
//! A record follows its part's bytes, [`Store::sync`] flushes data and journal about once a second, and since bytes are
//! judged by their hash at the next start, neither the order in which a power cut keeps them nor a torn record matters.

mod export;
pub(crate) mod files;
mod journal;

pub use export::{ExportError, Overwrite, check_output};

use crate::quota;
use bytes::{Bytes, BytesMut};
use hybrid_manifest::{ExpectedPart, HashProof, Manifest, PartIds, PartNumber, PartPlace, VerifiedPart};
use journal::{Contents, Format};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tracing::{debug, warn};

/// The proofs of the largest content, with room for proofs that overlap.
const PROOFS_BYTES_MAX: u64 = 128 << 20;

/// What journal and proofs grow by for each part, with room to spare: a download that goes on should not stop for a record.
const ROOM_FOR_RECORDS: u64 = 256;

/// Threads that hash a store when it is opened; more than the disk can feed gain nothing.
const HASHING_THREADS_MAX: usize = 8;

/// The parts of one content on disk. Share it in an `Arc`; all methods block.
#[derive(Debug)]
pub struct Store {
    manifest: Arc<Manifest>,
    folder: PathBuf,
    data: File,
    format: Format,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: BTreeSet<PartNumber>,
    ids: PartIds,
    journal: File,
    proofs: File,
    /// Proofs that the disk has not taken yet; each proves an id that no other does, so they are no more than all proofs.
    unkept: Vec<u8>,
    /// Written since the last sync.
    unsynced: BTreeSet<PartNumber>,
}

/// What an opened store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Parts that are there and match.
    pub recovered: u32,
    /// Parts that the journal names but that do not match, or cannot be checked for want of their ids.
    pub dropped: u32,
    /// Whether the journal could not be used, so that all of the data was hashed.
    pub rescanned: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file of it cannot be opened, read or written.
    #[error("cannot use {} in the cache", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later version of the program wrote it.
    #[error("{} was written by a later version ({version}) of this program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format's version.
        version: u16,
    },
}

/// Why a part was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It belongs to another content: the caller's fault.
    #[error("part {0} of another content")]
    OtherContent(PartNumber),
    /// The disk is full, or this user's share of it.
    #[error("the disk is full")]
    Full(#[source] io::Error),
    /// The system refused.
    #[error("cannot write to the cache")]
    Io(#[source] io::Error),
}

impl WriteError {
    fn from_io(error: io::Error) -> Self {
        if is_full(&error) { Self::Full(error) } else { Self::Io(error) }
    }
}

/// Whether it passes when somebody makes room: the disk is full (`ENOSPC`), or this user's share of it (`EDQUOT`).
///
/// All others stay as they are however long one waits: a disk that fails or is read-only, missing rights, a file that is too
/// long for its file system.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Store {
    /// Opens the store of this content in `folder`, making it if it is not there, and hashes what it holds.
    ///
    /// The caller holds the cache's lock: two stores on one folder would not see each other's parts.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn open(folder: &Path, manifest: Arc<Manifest>) -> Result<(Self, Recovery), OpenError> {
        let at = |name: &str| {
            let path = folder.join(name);
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(at(""))?;
        let data = files::open_regular(&folder.join("data")).map_err(at("data"))?;
        // Sparse: only parts that were written take space.
        data.set_len(manifest.layout().total_len()).map_err(at("data"))?;

        let mut proofs = files::open_regular(&folder.join("proofs")).map_err(at("proofs"))?;
        let mut ids = PartIds::new(&manifest);
        recover_proofs(&mut proofs, &folder.join("proofs"), &mut ids).map_err(at("proofs"))?;

        let format = Format::new(manifest.content(), manifest.layout());
        let journal_path = folder.join("journal");
        let journal = files::open_regular(&journal_path).map_err(at("journal"))?;
        let contents = format.read(&journal).map_err(at("journal"))?;
        let mut recovery = Recovery::default();
        let (candidates, whole) = match contents {
            Contents::Newer(version) => return Err(OpenError::Newer { path: journal_path, version }),
            Contents::Parts { parts, whole } => (parts, whole),
            Contents::Unusable if journal.metadata().map_err(at("journal"))?.len() == 0 => (BTreeSet::new(), false),
            Contents::Unusable => {
                recovery.rescanned = true;
                (manifest.layout().parts().iter().flat_map(|parts| parts.iter()).collect(), false)
            }
        };
        let held = still_right(&data, &ids, &candidates);
        recovery.recovered = u32::try_from(held.len()).unwrap_or(u32::MAX);
        if !recovery.rescanned {
            recovery.dropped = u32::try_from(candidates.len() - held.len()).unwrap_or(u32::MAX);
        }
        let journal = if whole && held.len() == candidates.len() {
            journal
        } else {
            compact(&format, &held, &journal_path).map_err(at("journal"))?
        };
        let mut state = State { held, ids, journal, proofs, unkept: Vec::new(), unsynced: BTreeSet::new() };
        state.journal.seek(SeekFrom::End(0)).map_err(at("journal"))?;
        debug!(?recovery, "store opened");
        let folder = folder.to_owned();
        let store = Self { manifest, folder, data, format, state: Mutex::new(state) };
        store.touch();
        Ok((store, recovery))
    }

    /// Marks the content as used now: when the cache needs room, the one that was not used for longest goes first.
    pub(crate) fn touch(&self) {
        if let Err(error) = self.state().journal.set_modified(SystemTime::now()) {
            debug!(%error, "the last use of a content could not be kept");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one insertion or removal, so a panic elsewhere leaves it true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the content is.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The parts that are there, in order.
    pub fn held(&self) -> Vec<PartNumber> {
        self.state().held.iter().copied().collect()
    }

    /// The parts that are not there, in order.
    pub fn missing(&self) -> Vec<PartNumber> {
        let state = self.state();
        let parts = self.manifest.layout().parts();
        parts.iter().flat_map(|parts| parts.iter()).filter(|number| !state.held.contains(number)).collect()
    }

    /// Takes the part ids that these encoded proofs prove, and keeps them for the next start; wrong ones are left out.
    ///
    /// A part is only readable while its id is known, so whatever teaches the session an id is given here too.
    ///
    /// # Errors
    /// When they cannot be written; they are known to this process all the same, and the next call or sync tries again.
    pub fn learn(&self, proofs: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let mut rest = proofs;
        while let Ok((proof, behind)) = HashProof::decode(rest) {
            rest = behind;
            if !state.ids.missing(proof.range()).is_empty() && state.ids.insert(&proof).is_ok() {
                proof.encode_into(&mut state.unkept);
            }
        }
        keep_proofs(state)
    }

    /// Proofs of all part ids that are known and do not come with the manifest, each list for one call of the session.
    pub fn known_proofs(&self) -> Vec<Bytes> {
        if self.manifest.part_ids().is_some() {
            return Vec::new();
        }
        let state = self.state();
        let layout = self.manifest.layout();
        let starts = (0..layout.part_count()).step_by(HashProof::MAX_PARTS as usize);
        let ranges = starts.filter_map(|first| {
            let count = HashProof::MAX_PARTS.min(layout.part_count() - first);
            hybrid_manifest::PartRange::new(PartNumber::new(first), count)
        });
        ranges.flat_map(|range| known_in(&state.ids, range)).collect()
    }

    /// Keeps a part.
    ///
    /// # Errors
    /// When the disk does not take it; it can be written again.
    pub fn write(&self, part: &VerifiedPart) -> Result<(), WriteError> {
        if part.content() != self.manifest.content() {
            return Err(WriteError::OtherContent(part.number()));
        }
        self.data.write_all_at(part.bytes(), part.place().offset()).map_err(WriteError::from_io)?;
        let number = part.number();
        let mut state = self.state();
        if !state.held.contains(&number) {
            append(&mut state.journal, &self.format.record(number)).map_err(WriteError::from_io)?;
            state.held.insert(number);
        }
        state.unsynced.insert(number);
        Ok(())
    }

    /// A part, hashed on its way; `None` if it is not there. One that does not match any more is forgotten, and reported.
    pub fn read(&self, number: PartNumber) -> Option<VerifiedPart> {
        let expected = {
            let state = self.state();
            state.held.contains(&number).then(|| state.ids.expect(number))?
        };
        // Without its id a part cannot be checked, and so it is not there; it can be again when the id is learned.
        match read_at(&self.data, &expected?) {
            Ok(part) => Some(part),
            Err(reason) => {
                warn!(part = number.as_u32(), %reason, "a stored part is damaged and will be fetched again");
                self.state().held.remove(&number);
                None
            }
        }
    }

    /// Whether a part is there.
    pub fn holds(&self, number: PartNumber) -> bool {
        self.state().held.contains(&number)
    }

    /// How many parts were written since the last sync.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Brings what was written to the disk. Call it about once a second, or after 64 parts, and before the program ends.
    ///
    /// # Errors
    /// When the disk fails; then what was written since the last sync is suspect. It is hashed again, and what does not
    /// match is forgotten. A failed sync is never repeated in the belief that it would tell the truth the second time.
    pub fn sync(&self) -> Result<(), SyncError> {
        let (written, journal, proofs) = {
            let mut state = self.state();
            if state.unsynced.is_empty() {
                return Ok(());
            }
            if let Err(error) = keep_proofs(&mut state) {
                debug!(%error, "part ids are not on the disk yet");
            }
            let files = (state.journal.try_clone(), state.proofs.try_clone());
            (std::mem::take(&mut state.unsynced), files.0, files.1)
        };
        // The lock is free meanwhile: a sync may take long, and parts must not wait for it.
        let synced = self.data.sync_data().and_then(|()| proofs?.sync_data()).and_then(|()| journal?.sync_data());
        synced.map_err(|source| SyncError { lost: self.recheck(&written), source })
    }

    /// Takes room on the disk for all parts that are missing, as far as the file system can, so that a download that was paused
    /// goes on when it will get to its end, and fetches nothing for nothing.
    ///
    /// # Errors
    /// When there is no room (see [`is_full`]), or the disk fails.
    pub fn reserve(&self) -> io::Result<()> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        // First by numbers alone: what is taken bit by bit while it does not suffice is taken from everybody else.
        let records = missing.len() as u64 * ROOM_FOR_RECORDS;
        if quota::free_bytes(&self.data).is_ok_and(|free| free < self.needed().saturating_add(records)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut places = missing.iter().filter_map(|&number| self.manifest.layout().part(number)).peekable();
        while let Some(first) = places.next() {
            let mut end = first.offset() + u64::from(first.len());
            while let Some(next) = places.next_if(|next| next.offset() == end) {
                end += u64::from(next.len());
            }
            match take_room(&self.data, first.offset(), end - first.offset()) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
                taken => taken?,
            }
        }
        Ok(())
    }

    /// How much more the disk must hold.
    pub fn needed(&self) -> u64 {
        let taken = self.data.metadata().map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found));
        self.manifest.layout().total_len().saturating_sub(taken.saturating_mul(512))
    }

    fn recheck(&self, suspect: &BTreeSet<PartNumber>) -> Vec<PartNumber> {
        let right = still_right(&self.data, &self.state().ids, suspect);
        let lost: Vec<PartNumber> = suspect.difference(&right).copied().collect();
        let mut state = self.state();
        state.held.retain(|number| !lost.contains(number));
        lost
    }
}

/// The disk failed to keep what was written.
#[derive(Debug, thiserror::Error)]
#[error("the disk did not keep what was written to the cache")]
#[non_exhaustive]
pub struct SyncError {
    /// Parts that are not there any more, in order.
    pub lost: Vec<PartNumber>,
    /// What the system said.
    pub source: io::Error,
}

/// Appends all of it or nothing: what is behind a torn record would no longer stand where records do.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let end = file.stream_position()?;
    if let Err(error) = file.write_all(bytes) {
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        return Err(error);
    }
    Ok(())
}

fn keep_proofs(state: &mut State) -> io::Result<()> {
    append(&mut state.proofs, &state.unkept)?;
    state.unkept.clear();
    Ok(())
}

/// Changes no byte of the file, and so can be done while parts are written.
#[cfg(target_os = "linux")]
fn take_room(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let keep_size = rustix::fs::FallocateFlags::KEEP_SIZE;
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, keep_size, offset, len)) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
        taken => Ok(taken?),
    }
}

#[cfg(not(target_os = "linux"))]
fn take_room(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The runs of `range` whose ids are known, with their proofs.
fn known_in(ids: &PartIds, range: hybrid_manifest::PartRange) -> Option<Bytes> {
    let proofs: Vec<u8> = match ids.prove_all(range) {
        Some(proofs) => proofs.iter().flat_map(HashProof::encode).collect(),
        None => {
            let each = range.iter().filter(|&number| ids.id(number).is_some());
            let each = each.filter_map(hybrid_manifest::PartRange::one).filter_map(|one| ids.prove(one));
            each.flat_map(|proof| proof.encode()).collect()
        }
    };
    (!proofs.is_empty()).then(|| proofs.into())
}

/// Takes in the proofs of the file up to the first that is torn or wrong, and cuts the file there.
fn recover_proofs(file: &mut File, path: &Path, ids: &mut PartIds) -> io::Result<()> {
    let bytes = files::read_regular(path, PROOFS_BYTES_MAX)?.unwrap_or_default();
    let mut rest = bytes.as_slice();
    while let Ok((proof, behind)) = HashProof::decode(rest) {
        if ids.insert(&proof).is_err() {
            break;
        }
        rest = behind;
    }
    let good = u64::try_from(bytes.len() - rest.len()).unwrap_or(0);
    file.set_len(good)?;
    file.seek(SeekFrom::Start(good)).map(drop)
}

fn compact(format: &Format, held: &BTreeSet<PartNumber>, path: &Path) -> io::Result<File> {
    let mut bytes = Vec::new();
    format.write(held, &mut bytes)?;
    files::replace(path, &bytes)?;
    files::open_regular(path)
}

/// Those of `candidates` whose bytes are theirs, hashed on several threads.
fn still_right(data: &File, ids: &PartIds, candidates: &BTreeSet<PartNumber>) -> BTreeSet<PartNumber> {
    let candidates: Vec<PartNumber> = candidates.iter().copied().collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(HASHING_THREADS_MAX);
    let work = || {
        let mine = std::iter::from_fn(|| candidates.get(next.fetch_add(1, Ordering::Relaxed)));
        let right = mine.filter(|&&number| ids.expect(number).is_some_and(|part| read_at(data, &part).is_ok()));
        right.copied().collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(candidates.len())).map(|_| scope.spawn(work)).collect();
        let mut right: BTreeSet<PartNumber> = work().into_iter().collect();
        for other in others {
            right.extend(other.join().expect("hashing does not panic"));
        }
        right
    })
}

fn read_at(data: &File, expected: &ExpectedPart) -> Result<VerifiedPart, String> {
    let place: &PartPlace = expected.place();
    let mut bytes = BytesMut::zeroed(place.len() as usize);
    data.read_exact_at(&mut bytes, place.offset()).map_err(|error| error.to_string())?;
    expected.verify(bytes.freeze()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
