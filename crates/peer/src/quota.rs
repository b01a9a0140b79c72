//! How much of the disk the contents in the cache may take, and which of them go when another one comes.
//!
//! [`plan`] decides on numbers alone; [`make_room`] looks at the folder and carries it out.
//! A content goes in two steps: its folder gets a name that is no content's, then it is deleted.
//! So a process that is killed in between leaves a whole content or a leftover, and [`remove_leftovers`] knows the latter.

use crate::cache::CacheError;
use hybrid_manifest::ContentId;
use hybrid_units::ByteCount;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tracing::{debug, info, warn};

/// What nobody asked for takes no more than this, however large the disk is.
const DEFAULT_LIMIT_MAX: u64 = 4 << 30;

/// One in so many bytes of what would be free without the cache.
const DEFAULT_SHARE: u64 = 10;

/// Folders that are to be deleted begin with this; no content's id does.
const EVICTED: &str = "evicted-";

/// The content that is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) content: ContentId,
    /// Its whole length.
    pub(crate) bytes: u64,
}

/// The contents that this process has open, with their whole lengths: they may become as long as that, and stay.
pub(crate) type Open = BTreeMap<ContentId, u64>;

/// A content in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    content: ContentId,
    /// What its files take on the disk.
    bytes: u64,
    last_used: SystemTime,
}

/// What is to be done before a content is opened.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Those that go, in this order.
    evict: Vec<Kept>,
    /// What the contents may take.
    limit: u64,
    /// What they will take when all that are open are whole.
    taken: u64,
}

/// The rest of the content does not fit, even if all goes that may.
#[derive(Debug, PartialEq, Eq)]
struct Short {
    needed: u64,
    room: u64,
}

/// The cache's limit where the user named none.
fn default_limit(free: u64, taken: u64) -> u64 {
    // What the cache takes counts as free: otherwise the limit would sink as the cache fills.
    (free.saturating_add(taken) / DEFAULT_SHARE).min(DEFAULT_LIMIT_MAX)
}

/// Evicts the least recently used until the contents fit the limit and the disk has room for what is wanted.
///
/// A content that is longer than the limit is wanted all the same; one that does not fit on the disk costs no other its place.
fn plan(mut kept: Vec<Kept>, free: u64, open: &Open, wanted: Wanted, limit: Option<ByteCount>) -> Result<Plan, Short> {
    let limit = limit.map_or_else(|| default_limit(free, kept.iter().map(|kept| kept.bytes).sum()), ByteCount::as_u64);
    let mut promised = open.clone();
    promised.insert(wanted.content, wanted.bytes);
    let (mut taken, mut others_need, mut needed) = (0u64, 0u64, 0u64);
    for (content, whole) in &promised {
        let there = kept.iter().find(|kept| kept.content == *content).map_or(0, |kept| kept.bytes);
        let rest = whole.saturating_sub(there);
        let sum = if *content == wanted.content { &mut needed } else { &mut others_need };
        *sum = sum.saturating_add(rest);
        taken = taken.saturating_add(there.max(*whole));
    }
    kept.retain(|kept| !promised.contains_key(&kept.content));
    kept.sort_by_key(|kept| (kept.last_used, kept.content));
    taken = kept.iter().fold(taken, |sum, kept| sum.saturating_add(kept.bytes));
    let mut room = free.saturating_sub(others_need);
    let mut evict = Vec::new();
    for kept in kept {
        if taken <= limit && room >= needed {
            break;
        }
        taken = taken.saturating_sub(kept.bytes);
        room = room.saturating_add(kept.bytes);
        evict.push(kept);
    }
    if room < needed { Err(Short { needed, room }) } else { Ok(Plan { evict, limit, taken }) }
}

/// Removes other contents until `wanted` fits. The caller holds the cache's lock, and lets nobody else open a content meanwhile.
pub(crate) fn make_room(
    folder: &Path,
    open: &Open,
    wanted: Wanted,
    limit: Option<ByteCount>,
) -> Result<(), CacheError> {
    let kept = kept_in(folder).map_err(|source| CacheError::Io { path: folder.to_owned(), source })?;
    let free = File::open(folder).and_then(free_bytes).unwrap_or_else(|error| {
        debug!(%error, "what is free on the disk is not known");
        u64::MAX
    });
    let Plan { evict, limit, taken } = plan(kept, free, open, wanted, limit).map_err(|Short { needed, room }| {
        let (needed, room) = (ByteCount::new(needed), ByteCount::new(room));
        CacheError::NoRoom { path: folder.to_owned(), needed, room }
    })?;
    for kept in evict {
        match evict_one(folder, kept.content) {
            Ok(()) => info!(content = %kept.content, bytes = kept.bytes, "removed from the cache to make room"),
            // There is room in the limit only: if the disk has none, the download says so.
            Err(error) => warn!(content = %kept.content, %error, "cannot be removed from the cache"),
        }
    }
    if taken > limit {
        let (taken, limit) = (ByteCount::new(taken), ByteCount::new(limit));
        warn!(%taken, %limit, "the contents that are asked for take more than the cache's limit; all others were removed");
    }
    Ok(())
}

/// Deletes what an earlier process was about to.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(EVICTED) || !entry.file_type()?.is_dir() {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            warn!(folder = %entry.path().display(), %error, "a leftover in the cache cannot be removed");
        }
    }
    Ok(())
}

/// What this user can still write on the file system of this file or folder.
pub(crate) fn free_bytes(file: impl AsFd) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(file)?;
    // Some file systems over the network tell nothing, which must not look like a full disk.
    if disk.f_blocks == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn evict_one(folder: &Path, content: ContentId) -> io::Result<()> {
    let doomed = doomed_name(folder, content)?;
    fs::rename(folder.join(content.to_string()), &doomed)?;
    fs::remove_dir_all(&doomed)
}

/// A name that is not taken: an earlier leftover may not have let itself be deleted.
fn doomed_name(folder: &Path, content: ContentId) -> io::Result<PathBuf> {
    for number in 0..u32::MAX {
        let path = folder.join(format!("{EVICTED}{content}-{number}"));
        match fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("every name is taken"))
}

/// The folders that are contents'. Keys, pins and whatever else lies there are none.
fn kept_in(folder: &Path) -> io::Result<Vec<Kept>> {
    let now = SystemTime::now();
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let content = name.to_str().and_then(|name| Some((name, name.parse::<ContentId>().ok()?)));
        let Some((_, content)) = content.filter(|(name, content)| *name == content.to_string()) else { continue };
        // A link is none of ours, and what it leads to even less.
        if entry.file_type()?.is_dir() {
            match measure(&entry.path()) {
                // A clock that was ahead once must not keep a content for ever.
                Ok((bytes, last_used)) => kept.push(Kept { content, bytes, last_used: last_used.min(now) }),
                // What cannot be read could not be removed either.
                Err(error) => warn!(%content, %error, "cannot be looked at in the cache, and is not counted"),
            }
        }
    }
    Ok(kept)
}

/// What the files of a content take on the disk, which sparse ones do not tell by their length, and when one was last changed.
///
/// The store touches its journal when it is opened and closed.
fn measure(folder: &Path) -> io::Result<(u64, SystemTime)> {
    let (mut bytes, mut last_used) = (0u64, SystemTime::UNIX_EPOCH);
    for entry in fs::read_dir(folder)? {
        let found = entry?.metadata()?;
        if found.is_file() {
            bytes = bytes.saturating_add(std::os::unix::fs::MetadataExt::blocks(&found).saturating_mul(512));
            last_used = last_used.max(found.modified()?);
        }
    }
    Ok((bytes, last_used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tempfile::TempDir;

    fn id(number: u8) -> ContentId {
        ContentId::from_bytes([number; 32])
    }

    fn kept(number: u8, bytes: u64, used: u64) -> Kept {
        Kept { content: id(number), bytes, last_used: SystemTime::UNIX_EPOCH + Duration::from_secs(used) }
    }

    fn want(number: u8, bytes: u64) -> Wanted {
        Wanted { content: id(number), bytes }
    }

    fn limit(bytes: u64) -> Option<ByteCount> {
        Some(ByteCount::new(bytes))
    }

    fn evicted(plan: &Plan) -> Vec<ContentId> {
        plan.evict.iter().map(|kept| kept.content).collect()
    }

    const FREE: u64 = 1 << 50;

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_must() {
        let there = vec![kept(1, 30, 300), kept(2, 30, 100), kept(3, 30, 200)];
        for (bytes, gone) in [(10, &[][..]), (11, &[2]), (40, &[2]), (41, &[2, 3]), (70, &[2, 3]), (71, &[2, 3, 1])] {
            let plan = plan(there.clone(), FREE, &Open::new(), want(9, bytes), limit(100)).unwrap();
            assert_eq!(evicted(&plan), gone.iter().copied().map(id).collect::<Vec<_>>(), "{bytes} bytes");
            assert!(plan.taken <= 100);
        }
    }

    #[test]
    fn what_is_wanted_or_open_stays() {
        let there = vec![kept(1, 30, 1), kept(2, 30, 2), kept(3, 30, 3)];
        let open = Open::from([(id(2), 60)]);
        let plan = plan(there, FREE, &open, want(1, 40), limit(100)).unwrap();
        assert_eq!((evicted(&plan), plan.taken), (vec![id(3)], 100), "the open one counts as whole");
    }

    #[test]
    fn a_content_longer_than_the_limit_is_got_alone() {
        let there = vec![kept(1, 30, 1), kept(2, 30, 2)];
        let plan = plan(there, FREE, &Open::new(), want(9, 500), limit(100)).unwrap();
        assert_eq!((evicted(&plan), plan.taken, plan.limit), (vec![id(1), id(2)], 500, 100));
    }

    #[test]
    fn what_does_not_fit_on_the_disk_costs_no_other_its_place() {
        let there = || vec![kept(1, 30, 1), kept(2, 30, 2), kept(9, 10, 3)];
        let no_limit = limit(u64::MAX);
        let short = plan(there(), 5, &Open::new(), want(9, 76), no_limit).unwrap_err();
        assert_eq!(short, Short { needed: 66, room: 65 });
        let fits = plan(there(), 5, &Open::new(), want(9, 75), no_limit).unwrap();
        assert_eq!(evicted(&fits), [id(1), id(2)], "a limit that is far away does not help a full disk");
        assert_eq!(evicted(&plan(there(), 5, &Open::new(), want(9, 45), no_limit).unwrap()), [id(1)]);
        // What the downloads under way still need is not free.
        let short = plan(there(), 60, &Open::from([(id(1), 80)]), want(9, 60), no_limit).unwrap_err();
        assert_eq!(short, Short { needed: 50, room: 40 });
    }

    #[test]
    fn the_limit_that_nobody_named() {
        assert_eq!(default_limit(1_000, 0), 100);
        assert_eq!(default_limit(0, 1_000), 100);
        assert_eq!(default_limit(900, 100), default_limit(500, 500), "it does not sink as the cache fills");
        assert_eq!(default_limit(u64::MAX, u64::MAX), 4 << 30);
    }

    proptest! {
        /// Any cache, any wish: what is planned keeps the promises, whatever the numbers.
        #[test]
        fn a_plan_fits(
            there in prop::collection::btree_map(0u8..20, (0u64..1_000, 0u64..50), 0..20),
            open in prop::collection::btree_map(0u8..20, 0u64..1_000, 0..5),
            wanted in (0u8..20, 0u64..3_000),
            free in 0u64..5_000,
            most in prop::option::of(0u64..5_000),
        ) {
            let there: Vec<Kept> = there.into_iter().map(|(number, (bytes, used))| kept(number, bytes, used)).collect();
            let open: Open = open.into_iter().map(|(number, bytes)| (id(number), bytes)).collect();
            let wanted = want(wanted.0, wanted.1);
            let may_go = |kept: &&Kept| kept.content != wanted.content && !open.contains_key(&kept.content);
            match plan(there.clone(), free, &open, wanted, most.map(ByteCount::new)) {
                Ok(plan) => {
                    prop_assert!(plan.evict.iter().all(|kept| may_go(&kept)));
                    let left = there.iter().filter(may_go).filter(|kept| !plan.evict.contains(kept));
                    let newest_gone = plan.evict.iter().map(|kept| (kept.last_used, kept.content)).max();
                    for kept in left {
                        prop_assert!(plan.taken <= plan.limit, "{kept:?} could have gone");
                        prop_assert!(newest_gone < Some((kept.last_used, kept.content)));
                    }
                }
                Err(short) => {
                    prop_assert!(short.needed > short.room);
                    prop_assert!(short.needed <= wanted.bytes);
                    let all: u64 = there.iter().filter(may_go).map(|kept| kept.bytes).sum();
                    prop_assert!(short.room <= free + all);
                }
            }
        }
    }

    /// A content's folder of about this many bytes, last used so many seconds after 1970.
    fn put(cache: &Path, number: u8, bytes: usize, used: u64) {
        let folder = cache.join(id(number).to_string());
        fs::create_dir_all(&folder).unwrap();
        for name in ["data", "journal"] {
            fs::write(folder.join(name), vec![7; if name == "data" { bytes } else { 1 }]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(used);
            let file = File::options().write(true).open(folder.join(name)).unwrap();
            // Some file systems count blocks only when they are written.
            file.sync_all().unwrap();
            file.set_modified(time).unwrap();
        }
    }

    fn names(cache: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_contents_are_removed() {
        let cache = TempDir::new().unwrap();
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        fs::write(cache.path().join("identity.key"), "key").unwrap();
        fs::create_dir(cache.path().join("servers")).unwrap();
        fs::create_dir(cache.path().join("a".repeat(63))).unwrap();
        fs::create_dir(cache.path().join("AB".repeat(32))).unwrap();
        fs::write(cache.path().join(id(3).to_string()), "a file with a content's name").unwrap();
        std::os::unix::fs::symlink(outside.path(), cache.path().join(id(4).to_string())).unwrap();
        let before = names(cache.path());
        put(cache.path(), 1, 100_000, 1);
        std::os::unix::fs::symlink(outside.path(), cache.path().join(id(1).to_string()).join("link")).unwrap();
        make_room(cache.path(), &Open::new(), want(9, 1), limit(0)).unwrap();
        assert_eq!(names(cache.path()), before);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn the_last_use_is_the_youngest_file() {
        let cache = TempDir::new().unwrap();
        let future = 100 * 365 * 86_400;
        put(cache.path(), 1, 100_000, future);
        put(cache.path(), 2, 100_000, 50);
        put(cache.path(), 3, 100_000, 60);
        make_room(cache.path(), &Open::new(), want(9, 100_000), limit(350_000)).unwrap();
        assert_eq!(names(cache.path()), [id(1), id(3)].map(|id| id.to_string()));
        // A time that has not come yet counts as now, and what is used now is younger by nothing.
        let kept = kept_in(cache.path()).unwrap();
        assert!(kept.iter().all(|kept| kept.last_used <= SystemTime::now()));
    }

    #[test]
    fn holes_take_no_space() {
        let cache = TempDir::new().unwrap();
        put(cache.path(), 1, 100_000, 1);
        let data = cache.path().join(id(1).to_string()).join("data");
        File::options().write(true).open(data).unwrap().set_len(1 << 40).unwrap();
        let kept = kept_in(cache.path()).unwrap();
        assert!((100_000..1_000_000).contains(&kept[0].bytes), "{kept:?}");
    }

    #[test]
    fn leftovers_are_removed_at_the_next_start() {
        let cache = TempDir::new().unwrap();
        put(cache.path(), 1, 10, 1);
        put(cache.path(), 2, 10, 1);
        let doomed = doomed_name(cache.path(), id(1)).unwrap();
        fs::rename(cache.path().join(id(1).to_string()), &doomed).unwrap();
        assert_ne!(doomed_name(cache.path(), id(1)).unwrap(), doomed, "another name while that one is taken");
        fs::write(cache.path().join("evicted-file"), "not a folder").unwrap();
        remove_leftovers(cache.path()).unwrap();
        assert_eq!(names(cache.path()), [id(2).to_string(), "evicted-file".to_owned()]);
    }

    #[test]
    fn more_than_the_disk_has_is_refused_with_figures() {
        let cache = TempDir::new().unwrap();
        put(cache.path(), 1, 10, 1);
        let error = make_room(cache.path(), &Open::new(), want(9, 1 << 62), limit(u64::MAX)).unwrap_err();
        let CacheError::NoRoom { path, needed, room } = error else { panic!("{error:?}") };
        assert_eq!((path.as_path(), needed), (cache.path(), ByteCount::new(1 << 62)));
        assert!(room < needed);
        assert_eq!(names(cache.path()), [id(1).to_string()], "nothing went for it");
    }
}
