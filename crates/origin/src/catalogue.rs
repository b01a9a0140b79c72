//! What is served: paths, the contents behind them, and their preparation.
//!
//! Invariant: each content here has the bytes that its id says, or is found not to at the next read and prepared again.
//! What is prepared again is served on until it is known whether its bytes are others.

use crate::driver::Driver;
use crate::folder::{FileProblem, Folder, Stamp};
use crate::prepare::{PrepareFileError, prepare_file, read_at};
use bytes::Bytes;
use hybrid_coordinator::Input;
use hybrid_manifest::{
    ContentId, Manifest, ManifestError, ManifestSpec, PartIds, PartNumber, Prepared, ProofError, SignedManifest,
    SigningKey, check_name, server_key,
};
use hybrid_qos::Classes;
use hybrid_server_transport::{ContentPath, SiteError};
use hybrid_units::{ByteCount, Duration};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::{Semaphore, watch};

/// How long clients go on with expired tickets while the server is away. A day: an outage that lasts longer is no outage.
/// The price is that a peer which the server would have stopped may stay for that time; it can waste bytes, never spoil any.
const GRACE: Duration = Duration::from_secs(86_400);

fn unix_millis() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A file that is prepared.
#[derive(Debug)]
pub(crate) struct Content {
    path: ContentPath,
    file: PathBuf,
    stamp: Stamp,
    media_type: String,
    class: String,
    signed: SignedManifest,
    ids: PartIds,
    /// A read found other bytes than the hashes say.
    stale: AtomicBool,
    /// A read found the file changed, and its path is looked at again.
    rechecking: AtomicBool,
}

impl Content {
    pub(crate) fn id(&self) -> ContentId {
        self.ids.content()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(crate) fn media_type(&self) -> &str {
        &self.media_type
    }

    pub(crate) fn signed(&self) -> &SignedManifest {
        &self.signed
    }

    pub(crate) fn ids(&self) -> &PartIds {
        &self.ids
    }

    fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    pub(crate) fn part_count(&self) -> u32 {
        self.ids.layout().part_count()
    }
}

/// All contents of a folder that were asked for, or found in the background.
#[derive(Debug)]
pub(crate) struct Catalogue {
    folder: Folder,
    key: SigningKey,
    classes: Classes,
    inline_hashes_below: ByteCount,
    contents_max: usize,
    wait: Duration,
    driver: Arc<Driver>,
    /// The files are being prepared at the start: what is not known now may be known soon.
    starting: AtomicBool,
    slots: Mutex<Slots>,
    small: Semaphore,
    large: Semaphore,
}

#[derive(Debug, Default)]
struct Slots {
    by_path: BTreeMap<ContentPath, Slot>,
    /// Several paths may hold the same bytes; the first that has not changed serves.
    by_id: BTreeMap<ContentId, Vec<Arc<Content>>>,
}

#[derive(Debug)]
enum Slot {
    Ready(Arc<Content>),
    Preparing {
        stamp: Stamp,
        outcome: watch::Receiver<Outcome>,
        /// What was here before: its swarm goes on if the bytes turn out to be the same.
        before: Option<Arc<Content>>,
    },
}

impl Slot {
    /// What is served meanwhile.
    fn into_content(self) -> Option<Arc<Content>> {
        match self {
            Self::Ready(content) => Some(content),
            Self::Preparing { before, .. } => before,
        }
    }
}

/// `None` while it is being prepared.
type Outcome = Option<Result<Arc<Content>, SiteError>>;

/// Files below this are prepared several at a time, on one thread each in effect: they have a few parts only.
const SMALL_BELOW: u64 = 16 << 20;
const SMALL_AT_A_TIME: usize = 4;
/// How soon to ask again for a file that is being written.
const WRITTEN_RETRY: Duration = Duration::from_secs(2);
/// How soon to ask again for a file that takes long to prepare.
const LONG_RETRY: Duration = Duration::from_secs(5);

impl Catalogue {
    pub(crate) fn new(
        folder: Folder,
        key: SigningKey,
        classes: Classes,
        config: &crate::Config,
        driver: Arc<Driver>,
    ) -> Self {
        Self {
            folder,
            key,
            classes,
            inline_hashes_below: config.inline_hashes_below,
            contents_max: config.coordinator.contents_max,
            wait: config.preparation_wait,
            driver,
            starting: AtomicBool::new(config.prepare_at_start),
            slots: Mutex::default(),
            small: Semaphore::new(SMALL_AT_A_TIME),
            // A large file takes all processors; two at a time would only read from two places of the disk.
            large: Semaphore::new(1),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The tables are changed in whole steps that do not panic.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content with this id, if it is prepared; at a path whose file was not found changed, if there is one.
    pub(crate) fn content(&self, id: ContentId) -> Result<Arc<Content>, SiteError> {
        let slots = self.slots();
        let contents = slots.by_id.get(&id).ok_or(SiteError::NotFound)?;
        let found = contents.iter().find(|content| !content.is_stale()).or_else(|| contents.first());
        found.cloned().ok_or(SiteError::NotFound)
    }

    /// Whether a content that is not prepared may be one of the files that are being prepared at the start.
    pub(crate) fn may_come(&self, id: ContentId) -> bool {
        // In this order: when the start is over, all that it found is in its place.
        self.starting.load(Ordering::Acquire) && self.content(id).is_err()
    }

    /// The content at a path, prepared now if it was not before or has changed; one preparation serves all who ask.
    pub(crate) async fn resolve(self: &Arc<Self>, path: &ContentPath) -> Result<Arc<Content>, SiteError> {
        self.resolve_within(path, self.wait).await
    }

    async fn resolve_within(self: &Arc<Self>, path: &ContentPath, wait: Duration) -> Result<Arc<Content>, SiteError> {
        let found = blocking({
            let (catalogue, path) = (Arc::clone(self), path.clone());
            move || catalogue.folder.find(&path)
        });
        let (file, stamp) = match found.await? {
            Ok(found) => found,
            Err(problem) => {
                if matches!(problem, FileProblem::NotFound) {
                    self.remove(path);
                }
                return Err(file_problem(path, &problem));
            }
        };
        let mut outcome = {
            let mut slots = self.slots();
            match slots.by_path.get(path) {
                Some(Slot::Ready(content)) if content.stamp == stamp && !content.is_stale() => {
                    return Ok(Arc::clone(content));
                }
                Some(Slot::Preparing { stamp: started, outcome, .. }) if *started == stamp => outcome.clone(),
                known => {
                    if known.is_none() && slots.by_path.len() >= self.contents_max {
                        tracing::warn!(max = self.contents_max, "the catalogue is full; a file is not served");
                        return Err(SiteError::Failed);
                    }
                    let (tell, outcome) = watch::channel(None);
                    let before = slots.by_path.remove(path).and_then(Slot::into_content);
                    slots.by_path.insert(path.clone(), Slot::Preparing { stamp, outcome: outcome.clone(), before });
                    // Not bound to this request: who gives up must not make the next one start from the beginning.
                    tokio::spawn(Arc::clone(self).prepare(path.clone(), file, stamp, tell));
                    outcome
                }
            }
        };
        let done = tokio::time::timeout(wait, outcome.wait_for(Option::is_some)).await;
        match done {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(SiteError::Failed)),
            // The task is gone without a word: it panicked.
            Ok(Err(_)) => Err(SiteError::Failed),
            Err(_) => Err(SiteError::Preparing { retry_after: LONG_RETRY }),
        }
    }

    async fn prepare(self: Arc<Self>, path: ContentPath, file: PathBuf, stamp: Stamp, tell: watch::Sender<Outcome>) {
        let queue = if stamp.length_bytes < SMALL_BELOW { &self.small } else { &self.large };
        let permit = queue.acquire().await;
        let prepared = blocking({
            let (catalogue, path) = (Arc::clone(&self), path.clone());
            move || catalogue.prepare_now(path, file, stamp)
        });
        let prepared = prepared.await.and_then(|prepared| prepared);
        drop(permit);
        let mut slots = self.slots();
        // Meanwhile the file may have changed again, and another preparation taken the place.
        let ours =
            matches!(slots.by_path.get(&path), Some(Slot::Preparing { stamp: started, .. }) if *started == stamp);
        let prepared = prepared.map(Arc::new);
        if ours {
            self.settle(&mut slots, path, &prepared);
        }
        drop(slots);
        let superseded = Err(SiteError::Preparing { retry_after: WRITTEN_RETRY });
        tell.send_replace(Some(if ours { prepared } else { superseded }));
    }

    fn prepare_now(&self, path: ContentPath, file: PathBuf, stamp: Stamp) -> Result<Content, SiteError> {
        let (open, opened) = self.folder.open_file(&file).map_err(|problem| file_problem(&path, &problem))?;
        let written = SiteError::Preparing { retry_after: WRITTEN_RETRY };
        if opened != stamp {
            return Err(written);
        }
        let start = std::time::Instant::now();
        let media_type = media_type(path.file_name().as_ref());
        let class = self.classes.choose(&media_type, &format!("/{path}"));
        let prepared = match prepare_file(&open, class.parts) {
            Ok(prepared) => prepared,
            Err(PrepareFileError::Changed) => return Err(written),
            Err(error) => {
                tracing::warn!(%path, %error, "a file cannot be prepared");
                return Err(SiteError::Failed);
            }
        };
        let signed = self.sign(&path, &media_type, &prepared).map_err(|error| {
            tracing::warn!(%path, %error, "a file has no manifest");
            SiteError::Failed
        })?;
        let ids = PartIds::with_ids(signed.manifest(), prepared.part_ids()).map_err(|error: ProofError| {
            tracing::error!(%path, %error, "the hashes of a file do not fit together");
            SiteError::Failed
        })?;
        tracing::debug!(
            %path,
            content = %ids.content(),
            bytes = stamp.length_bytes,
            parts = ids.layout().part_count(),
            elapsed_ms = start.elapsed().as_millis(),
            "prepared"
        );
        Ok(Content {
            path,
            file,
            stamp,
            media_type,
            class: class.name.clone(),
            signed,
            ids,
            stale: AtomicBool::default(),
            rechecking: AtomicBool::default(),
        })
    }

    fn sign(&self, path: &ContentPath, media_type: &str, prepared: &Prepared) -> Result<SignedManifest, ManifestError> {
        // A name that some file system could not hold is replaced by one that all can: the bytes are served all the same.
        let name = [path.to_string(), path.file_name().to_owned()].into_iter().find(|name| check_name(name).is_ok());
        let hash = prepared.segment_hashes().first().map(ToString::to_string);
        let mut spec = ManifestSpec::new(name.or(hash).unwrap_or_default());
        spec.media_type = media_type.to_owned();
        spec.inline_hashes_below = self.inline_hashes_below;
        // A file that replaces another one needs a later epoch, or clients that know the old one would take it for a forgery.
        // The time of preparation grows where a file's own time may go back: an old version may be put back on purpose.
        spec.epoch = unix_millis();
        spec.grace = GRACE;
        let manifest = Manifest::new(spec, prepared, server_key(&self.key))?;
        SignedManifest::sign(manifest, &self.key)
    }

    /// Puts what came of a preparation into its place, and tells the coordinator what is new and what is gone.
    fn settle(&self, slots: &mut Slots, path: ContentPath, prepared: &Result<Arc<Content>, SiteError>) {
        let before = slots.by_path.remove(&path).and_then(Slot::into_content);
        match (prepared, before) {
            (Ok(content), before) => {
                let contents = slots.by_id.entry(content.id()).or_default();
                let is_new = contents.is_empty();
                contents.push(Arc::clone(content));
                // Behind the push, so that the same bytes at the same path are never gone; before the coordinator is told of
                // a new content, so that it has room for it.
                before.iter().for_each(|before| self.release(slots, before));
                if is_new {
                    self.driver.input(Input::ContentAdded {
                        content: content.id(),
                        part_count: content.part_count(),
                        part_len: content.ids.layout().part_len(),
                        class: Some(content.class.clone()),
                    });
                }
                slots.by_path.insert(path, Slot::Ready(Arc::clone(content)));
            }
            // It is being written: what it will be is known when it is asked for again.
            (Err(SiteError::Preparing { .. }), Some(before)) => drop(slots.by_path.insert(path, Slot::Ready(before))),
            (Err(_), Some(before)) => self.release(slots, &before),
            (Err(_), None) => {}
        }
    }

    /// Takes what is at a path, where no file is any more, out of the tables.
    fn remove(&self, path: &ContentPath) {
        let mut slots = self.slots();
        if let Some(content) = slots.by_path.remove(path).and_then(Slot::into_content) {
            self.release(&mut slots, &content);
        }
    }

    pub(crate) fn contents(&self) -> Vec<(ContentPath, ContentId)> {
        let slots = self.slots();
        let ready = |(path, slot): (&ContentPath, &Slot)| match slot {
            Slot::Ready(content) => Some((path.clone(), content.id())),
            Slot::Preparing { before, .. } => Some((path.clone(), before.as_ref()?.id())),
        };
        slots.by_path.iter().filter_map(ready).collect()
    }

    /// Tells the coordinator that a content is gone, if no other path has its bytes.
    fn release(&self, slots: &mut Slots, content: &Arc<Content>) {
        let Some(contents) = slots.by_id.get_mut(&content.id()) else { return };
        contents.retain(|other| !Arc::ptr_eq(other, content));
        if contents.is_empty() {
            slots.by_id.remove(&content.id());
            tracing::info!(path = %content.path, content = %content.id(), "no longer served");
            self.driver.input(Input::ContentRemoved { content: content.id() });
        }
    }

    /// Reads a part and verifies it; [`SiteError::Changed`] when no path has its bytes any more.
    pub(crate) async fn load(self: &Arc<Self>, id: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        let mut content = self.content(id)?;
        loop {
            let is_last = content.is_stale();
            let catalogue = Arc::clone(self);
            match blocking(move || catalogue.load_now(&content, number)).await? {
                // It is stale now, so that the next one is another; or it is out of the tables already, as the last one.
                Err(SiteError::Changed) if !is_last => content = self.content(id).map_err(|_| SiteError::Changed)?,
                loaded => return loaded,
            }
        }
    }

    fn load_now(self: &Arc<Self>, content: &Arc<Content>, number: PartNumber) -> Result<Bytes, SiteError> {
        let no_such_part = || SiteError::NoSuchPart { part_count: content.part_count() };
        let expected = content.ids.expect(number).ok_or_else(no_such_part)?;
        let changed = |()| {
            content.stale.store(true, Ordering::Relaxed);
            self.recheck(content);
            SiteError::Changed
        };
        let (file, stamp) = match self.folder.open_file(&content.file) {
            Ok(open) => open,
            Err(FileProblem::NotFound) => return Err(changed(())),
            Err(problem) => return Err(file_problem(&content.path, &problem)),
        };
        if stamp != content.stamp {
            self.recheck(content);
        }
        let mut bytes = vec![0; usize::try_from(expected.place().len()).unwrap_or(usize::MAX)];
        match read_at(&file, &mut bytes, expected.place().offset()) {
            Ok(()) => {}
            Err(PrepareFileError::Changed) => return Err(changed(())),
            Err(error) => {
                tracing::warn!(path = %content.path, %error, "a part cannot be read");
                return Err(SiteError::Failed);
            }
        }
        match expected.verify(bytes.into()) {
            Ok(part) => Ok(part.into_bytes()),
            Err(_) => {
                // Under another stamp it is no surprise, and other parts, or all if it was only touched, may be as they were.
                if stamp == content.stamp {
                    tracing::warn!(path = %content.path, %number, "a part changed under an unchanged time");
                }
                Err(changed(()))
            }
        }
    }

    /// Looks at a content's path again: its clients must hear that it is gone even if nobody asks for the path.
    fn recheck(self: &Arc<Self>, content: &Arc<Content>) {
        if content.rechecking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (catalogue, content) = (Arc::clone(self), Arc::clone(content));
        tokio::spawn(async move {
            if let Err(SiteError::Preparing { retry_after }) = catalogue.resolve(&content.path).await {
                // A file that is being written all the time is not hashed all the time.
                tokio::time::sleep(retry_after).await;
            }
            content.rechecking.store(false, Ordering::Relaxed);
        });
    }

    /// Prepares all files, one after the other; those that take long do not hold up the next.
    pub(crate) async fn prepare_all(self: Arc<Self>) {
        let (tell, mut found) = tokio::sync::mpsc::channel(64);
        let walk = blocking({
            let folder = self.folder.clone();
            move || folder.walk(|path| tell.blocking_send(path).is_ok())
        });
        let prepare = async {
            // No more than the catalogue has room for: without a place there is no preparation to wait for.
            let mut late = Vec::new();
            while let Some(path) = found.recv().await {
                match self.resolve(&path).await {
                    Err(SiteError::Preparing { .. }) => late.push(path),
                    prepared => tell_unprepared(&path, prepared),
                }
            }
            for path in late {
                let prepared = self.resolve_within(&path, Duration::MAX).await;
                tell_unprepared(&path, prepared);
            }
        };
        let (walked, ()) = tokio::join!(walk, prepare);
        self.starting.store(false, Ordering::Release);
        if walked.is_ok() {
            tracing::info!(contents = self.slots().by_path.len(), "all files are prepared");
        }
    }
}

fn tell_unprepared(path: &ContentPath, prepared: Result<Arc<Content>, SiteError>) {
    if let Err(error) = prepared {
        tracing::debug!(%path, %error, "not prepared at the start");
    }
}

/// The media type of a file, by its name.
pub fn media_type(path: &Path) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    // Text without a declared encoding is guessed at; UTF-8 is what text is today.
    if guess.type_() == mime_guess::mime::TEXT { format!("{guess}; charset=utf-8") } else { guess.to_string() }
}

fn file_problem(path: &ContentPath, problem: &FileProblem) -> SiteError {
    match problem {
        FileProblem::NotFound => SiteError::NotFound,
        FileProblem::Io(error) => {
            tracing::debug!(%path, %error, "a file cannot be read");
            SiteError::Failed
        }
    }
}

/// Runs what blocks where it holds up nobody; a panic there is [`SiteError::Failed`] here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SiteError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SiteError::Failed)
}

#[cfg(test)]
impl Catalogue {
    /// Holds up all preparations of small files until it is dropped.
    pub(crate) fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.small.try_acquire_many(u32::try_from(SMALL_AT_A_TIME).unwrap()).unwrap()
    }
}
