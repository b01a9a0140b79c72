//! Recently used parts in memory, each read and verified once for all who ask at the same time.

use hybrid_manifest::{ContentId, PartNumber};
use hybrid_server_transport::PartBytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Who wants a part: each form has a place of its own, and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// For whoever needs the bytes: TLS, ranges, control channels.
    Memory,
    /// For connections that send sealed bytes without copying them.
    ToSend,
}

/// The number comes first, which tells most keys apart.
type Key = (PartNumber, ContentId, Form);
type Cell = Arc<OnceCell<PartBytes>>;

/// Parts that were used lately, within a number of bytes.
///
/// Parts that are being read count from when they are there; one for each request that waits is on the way beyond the limit.
#[derive(Debug)]
pub(crate) struct PartCache {
    bytes_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    cells: BTreeMap<Key, Entry>,
    /// Keys in the order in which they came, or were spared last.
    order: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    /// Its place in the order.
    place: u64,
    /// Whether it was used since it got that place: it is spared once then. Keeping the order by last use would cost more
    /// than all else that a part in memory costs here.
    used: bool,
    /// Zero until the part is there.
    counted_bytes: usize,
}

impl PartCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: Mutex::default() }
    }

    /// The part, from memory or by `load`, which runs once however many ask.
    pub(crate) async fn part<E>(
        &self,
        content: ContentId,
        number: PartNumber,
        form: Form,
        load: impl Future<Output = Result<PartBytes, E>>,
    ) -> Result<PartBytes, E> {
        let key = (number, content, form);
        let cell = self.used().touch(key);
        if let Some(bytes) = cell.get() {
            return Ok(bytes.clone());
        }
        let loaded = cell.get_or_try_init(|| load).await;
        let mut used = self.used();
        match loaded {
            Ok(bytes) => {
                used.count(key, &cell, bytes.len());
                used.evict(self.bytes_max);
                Ok(bytes.clone())
            }
            Err(error) => {
                used.forget(key, &cell);
                Err(error)
            }
        }
    }

    /// Forgets all parts of a content that is no more.
    pub(crate) fn forget(&self, content: ContentId) {
        let mut used = self.used();
        let keys: Vec<Key> = used.cells.keys().filter(|(_, id, _)| *id == content).copied().collect();
        for key in keys {
            used.remove(key);
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // Counts that a panic left half done cost some memory at most.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn touch(&mut self, key: Key) -> Cell {
        if let Some(entry) = self.cells.get_mut(&key) {
            entry.used = true;
            return Arc::clone(&entry.cell);
        }
        let (cell, place) = (Cell::default(), self.place_last(key));
        self.cells.insert(key, Entry { cell: Arc::clone(&cell), place, used: false, counted_bytes: 0 });
        cell
    }

    fn place_last(&mut self, key: Key) -> u64 {
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.clock
    }

    fn count(&mut self, key: Key, cell: &Cell, length: usize) {
        if let Some(entry) = self.cells.get_mut(&key)
            && entry.counted_bytes == 0
            && Arc::ptr_eq(&entry.cell, cell)
        {
            entry.counted_bytes = length;
            self.bytes += length;
        }
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some((_, key)) = self.order.pop_first()
        {
            if self.cells.get(&key).is_some_and(|entry| entry.used) {
                let place = self.place_last(key);
                if let Some(entry) = self.cells.get_mut(&key) {
                    (entry.used, entry.place) = (false, place);
                }
            } else {
                // An entry that is still being read is evicted too: who waits for it holds the cell.
                self.remove(key);
            }
        }
    }

    fn forget(&mut self, key: Key, cell: &Cell) {
        if self.cells.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.cells.remove(&key) {
            self.order.remove(&entry.place);
            self.bytes -= entry.counted_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CONTENT: ContentId = ContentId::from_bytes([1; 32]);

    fn sizes(cache: &PartCache) -> (usize, usize, usize) {
        let used = cache.used();
        (used.bytes, used.cells.len(), used.order.len())
    }

    async fn ask(cache: &PartCache, number: u32, loads: &AtomicUsize) -> Bytes {
        ask_for(cache, number, Form::Memory, loads).await
    }

    async fn ask_for(cache: &PartCache, number: u32, form: Form, loads: &AtomicUsize) -> Bytes {
        let load = async {
            loads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(PartBytes::Memory(vec![u8::try_from(number).unwrap(); 10].into()))
        };
        match cache.part(CONTENT, PartNumber::new(number), form, load).await.unwrap() {
            PartBytes::Memory(bytes) => bytes,
            sealed => panic!("nobody sealed {sealed:?}"),
        }
    }

    #[tokio::test]
    async fn one_load_for_all_who_ask_at_once() {
        let (cache, loads) = (PartCache::new(100), AtomicUsize::new(0));
        let (a, b, c) = tokio::join!(ask(&cache, 1, &loads), ask(&cache, 1, &loads), ask(&cache, 1, &loads));
        assert_eq!((a, b), (c.clone(), c));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(cache.used().bytes, 10);
    }

    #[tokio::test]
    async fn what_was_not_used_goes_first() {
        let (cache, loads) = (PartCache::new(30), AtomicUsize::new(0));
        for number in [1, 2, 3, 1, 4] {
            ask(&cache, number, &loads).await;
        }
        let kept: Vec<u32> = cache.used().cells.keys().map(|(number, _, _)| number.as_u32()).collect();
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(sizes(&cache), (30, 3, 3));
        assert_eq!(loads.load(Ordering::Relaxed), 4);
        cache.forget(CONTENT);
        assert_eq!(sizes(&cache), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_failed_load_leaves_nothing() {
        let cache = PartCache::new(30);
        let failed = cache.part(CONTENT, PartNumber::new(1), Form::Memory, async { Err("no") }).await;
        assert_eq!(failed.unwrap_err(), "no");
        assert_eq!(sizes(&cache), (0, 0, 0));
        assert_eq!(ask(&cache, 1, &AtomicUsize::new(0)).await.len(), 10);
    }

    #[tokio::test]
    async fn each_form_counts_and_goes_with_its_content() {
        let (cache, loads) = (PartCache::new(30), AtomicUsize::new(0));
        for form in [Form::Memory, Form::ToSend, Form::Memory, Form::ToSend] {
            ask_for(&cache, 1, form, &loads).await;
        }
        assert_eq!((sizes(&cache), loads.load(Ordering::Relaxed)), ((20, 2, 2), 2));
        cache.forget(CONTENT);
        assert_eq!(sizes(&cache), (0, 0, 0));
    }
}
