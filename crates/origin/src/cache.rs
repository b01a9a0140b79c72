//! Recently used parts in memory, each read and verified once for all who ask at the same time.

use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

type Key = (ContentId, PartNumber);
type Cell = Arc<OnceCell<Bytes>>;

/// Parts by use, within a number of bytes.
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
    /// Keys in the order of their last use.
    order: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    used_at: u64,
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
        load: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        let key = (content, number);
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
        let first = (content, PartNumber::new(0));
        let last = (content, PartNumber::new(u32::MAX));
        let keys: Vec<Key> = used.cells.range(first..=last).map(|(key, _)| *key).collect();
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
        self.clock += 1;
        let now = self.clock;
        let entry =
            self.cells.entry(key).or_insert_with(|| Entry { cell: Cell::default(), used_at: 0, counted_bytes: 0 });
        self.order.remove(&entry.used_at);
        entry.used_at = now;
        self.order.insert(now, key);
        Arc::clone(&entry.cell)
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
            && let Some((_, key)) = self.order.first_key_value()
        {
            // An entry that is still being read is evicted too: who waits for it holds the cell.
            self.remove(*key);
        }
    }

    fn forget(&mut self, key: Key, cell: &Cell) {
        if self.cells.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.cells.remove(&key) {
            self.order.remove(&entry.used_at);
            self.bytes -= entry.counted_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(number: u32) -> (ContentId, PartNumber) {
        (ContentId::from_bytes([1; 32]), PartNumber::new(number))
    }

    fn sizes(cache: &PartCache) -> (usize, usize, usize) {
        let used = cache.used();
        (used.bytes, used.cells.len(), used.order.len())
    }

    async fn ask(cache: &PartCache, number: u32, loads: &AtomicUsize) -> Bytes {
        let load = async {
            loads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Bytes::from(vec![u8::try_from(number).unwrap(); 10]))
        };
        let (content, number) = key(number);
        cache.part(content, number, load).await.unwrap()
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
    async fn the_least_recently_used_goes_first() {
        let (cache, loads) = (PartCache::new(30), AtomicUsize::new(0));
        for number in [1, 2, 3, 1, 4] {
            ask(&cache, number, &loads).await;
        }
        let kept: Vec<u32> = cache.used().cells.keys().map(|(_, number)| number.as_u32()).collect();
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(sizes(&cache), (30, 3, 3));
        assert_eq!(loads.load(Ordering::Relaxed), 4);
        cache.forget(key(0).0);
        assert_eq!(sizes(&cache), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_failed_load_leaves_nothing() {
        let cache = PartCache::new(30);
        let (content, number) = key(1);
        assert_eq!(cache.part(content, number, async { Err("no") }).await, Err("no"));
        assert_eq!(sizes(&cache), (0, 0, 0));
        assert_eq!(ask(&cache, 1, &AtomicUsize::new(0)).await.len(), 10);
    }
}
