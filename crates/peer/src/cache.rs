//! The cache folder: what a peer keeps from one start to the next.
//!
//! - `lock`: held as long as the folder is in use;
//! - `identity.key`: the peer's key;
//! - `servers/`: for each server the keys with which it may sign;
//! - `urls/`: for each URL the content that it named last;
//! - a folder for each content, named by its id, with its [`crate::store`] and its `manifest`;
//! - `evicted-…`: what [`crate::quota`] is about to delete.

use crate::quota::{self, Open, Wanted};
use crate::store::files;
use hybrid_manifest::{ContentId, Manifest, ServerKey};
use hybrid_peer_transport::{Identity, IdentityError};
use hybrid_units::ByteCount;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tracing::warn;

/// Keys and addresses are far below this; what is longer is none of ours.
const SMALL_FILE_BYTES_MAX: u64 = 16 << 10;

/// The cache folder, locked for this process.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    _lock: File,
    /// Held while room is made: two contents that come at a time must not count the same room.
    making_room: Mutex<()>,
}

/// The content that a URL named last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownUrl {
    pub(crate) content: ContentId,
    /// The server that had it.
    pub(crate) server: String,
    /// Its manifest's epoch and signer, unless the file is damaged: they outlive an evicted manifest, so that no older one is
    /// taken afterwards.
    pub(crate) seen: Option<(u64, ServerKey)>,
}

/// Why the cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It is a symbolic link, a file, or the root of the file system.
    #[error("{} cannot be the cache: it is {what}", path.display())]
    Unfit {
        /// The folder.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another process uses it.
    #[error("the cache {} is in use by {}", path.display(), pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds the lock, if it told.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content does not fit on the disk, even if all others are removed from the cache that may be.
    #[error("the content needs {needed} more in {}, where only {room} can be had", path.display())]
    NoRoom {
        /// The cache.
        path: PathBuf,
        /// How much of the content is not there yet.
        needed: ByteCount,
        /// What is free, and what other contents could leave to it.
        room: ByteCount,
    },
    /// What is kept of a server's keys cannot be read: it is not taken for a server that nobody has met.
    #[error("line {line} of {} is damaged: it tells by which keys {server} is known", path.display())]
    ServerKeys {
        /// The file.
        path: PathBuf,
        /// Whose keys it holds.
        server: String,
        /// Which line, the first of which is 1.
        line: usize,
    },
    /// The peer's key is damaged, or none could be made.
    #[error("cannot use {}", path.display())]
    Identity {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path: path.clone(), source }
}

impl Cache {
    pub(crate) fn open(folder: &Path) -> Result<Self, CacheError> {
        check_folder(folder)?;
        let lock_path = folder.join("lock");
        let mut lock = files::open_regular(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message.
                drop((&lock).take(20).read_to_string(&mut pid));
                return Err(CacheError::InUse { path: folder.to_owned(), pid: pid.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        told.map_err(at(&lock_path))?;
        quota::remove_leftovers(folder).map_err(at(folder))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock, making_room: Mutex::new(()) })
    }

    /// Removes other contents until this one fits. `open` tells the contents that must stay; who opens one has it told before.
    pub(crate) fn make_room(
        &self,
        wanted: Wanted,
        limit: Option<ByteCount>,
        open: impl FnOnce() -> Open,
    ) -> Result<(), CacheError> {
        let _one_at_a_time = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        quota::make_room(&self.folder, &open(), wanted, limit)?;
        // From here on it counts among what the disk has to hold, whoever comes next.
        let folder = self.content_folder(wanted.content);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(at(&folder)),
        }
        // Behind a link it would be somebody else's folder that is written to.
        match fs::symlink_metadata(&folder).map_err(at(&folder))? {
            found if found.is_dir() => Ok(()),
            _ => Err(at(&folder)(io::Error::new(io::ErrorKind::InvalidInput, "not a folder of its own: remove it"))),
        }
    }

    /// The key from before, or a new one that is kept.
    pub(crate) fn identity(&self) -> Result<Identity, CacheError> {
        let path = self.folder.join("identity.key");
        let identity_error = |source| CacheError::Identity { path: path.clone(), source };
        if let Some(key) = files::read_regular(&path, SMALL_FILE_BYTES_MAX).map_err(at(&path))? {
            return Identity::from_pkcs8(&key).map_err(identity_error);
        }
        let identity = Identity::generate().map_err(identity_error)?;
        files::replace(&path, &identity.to_pkcs8()).map_err(at(&path))?;
        Ok(identity)
    }

    /// Where the keys of a server are kept, for people who must remove them.
    pub(crate) fn keys_path(&self, server: &str) -> PathBuf {
        self.folder.join("servers").join(file_name(server))
    }

    /// The keys that a server showed before; none if it is new.
    ///
    /// A file that is damaged is an error: taken for none, it would let anybody be the server from now on.
    pub(crate) fn server_keys(&self, server: &str) -> Result<Vec<ServerKey>, CacheError> {
        let path = self.keys_path(server);
        let Some(bytes) = files::read_regular(&path, SMALL_FILE_BYTES_MAX).map_err(at(&path))? else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&bytes);
        let damaged = |line| CacheError::ServerKeys { path: path.clone(), server: server.to_owned(), line };
        let mut lines = text.split('\n').zip(1..);
        // A name may have lines of its own.
        for (part, (line, number)) in server.split('\n').zip(lines.by_ref()) {
            if part != line {
                return Err(damaged(number));
            }
        }
        let mut keys = Vec::new();
        for (line, number) in lines {
            match line.parse() {
                Ok(key) => keys.push(key),
                Err(_) if line.is_empty() && !keys.is_empty() => {}
                Err(_) => return Err(damaged(number)),
            }
        }
        if keys.is_empty() { Err(damaged(2)) } else { Ok(keys) }
    }

    /// Keeps the keys of a server.
    pub(crate) fn pin(&self, server: &str, keys: &[ServerKey]) -> Result<(), CacheError> {
        let keys: String = keys.iter().map(|key| format!("{key}\n")).collect();
        self.put(&self.keys_path(server), format!("{server}\n{keys}").as_bytes())
    }

    /// What a URL named last, and on which server.
    pub(crate) fn known_url(&self, url: &str) -> Result<Option<KnownUrl>, CacheError> {
        let path = self.folder.join("urls").join(file_name(url));
        let bytes = files::read_regular(&path, SMALL_FILE_BYTES_MAX).map_err(at(&path))?.unwrap_or_default();
        Ok(parse_url_file(&String::from_utf8_lossy(&bytes)))
    }

    /// Keeps a manifest as it came, and that it is what `url` names on `server`.
    pub(crate) fn remember(
        &self,
        url: &str,
        server: &str,
        manifest: &Manifest,
        encoded: &[u8],
    ) -> Result<(), CacheError> {
        self.put(&self.content_folder(manifest.content()).join("manifest"), encoded)?;
        self.put(&self.folder.join("urls").join(file_name(url)), url_file(url, server, manifest).as_bytes())
    }

    /// The manifest of a content, if it was kept.
    pub(crate) fn manifest(&self, content: ContentId) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.content_folder(content).join("manifest");
        let max = hybrid_manifest::MAX_MANIFEST_LEN as u64 + 1;
        files::read_regular(&path, max).map_err(at(&path))
    }

    pub(crate) fn content_folder(&self, content: ContentId) -> PathBuf {
        self.folder.join(content.to_string())
    }

    /// Leaves a file alone that holds these bytes already: a full disk takes no other, and needs none.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let there = files::read_regular(path, bytes.len() as u64 + 1).map_err(at(path))?;
        if there.is_some_and(|there| there == bytes) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        files::replace(path, bytes).map_err(at(path))
    }
}

/// Names may hold anything, files are named by hashes only.
fn file_name(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex().to_string()
}

/// The URL, the content, the server, and a line with epoch, signer and a check of all this: a flipped bit in an epoch would
/// refuse every manifest to come.
fn url_file(url: &str, server: &str, manifest: &Manifest) -> String {
    let named = format!("{url}\n{}\n{server}\n", manifest.content());
    let seen = format!("{} {}", manifest.epoch(), manifest.signer());
    let check = file_name(&format!("{named}{seen}"));
    format!("{named}{seen} {check}\n")
}

fn parse_url_file(text: &str) -> Option<KnownUrl> {
    let mut lines = text.split_inclusive('\n');
    let (url, content, server) = (lines.next()?, lines.next()?, lines.next()?);
    let seen = lines.next().and_then(|line| {
        let (seen, check) = line.trim_end().rsplit_once(' ')?;
        let (epoch, signer) = seen.split_once(' ')?;
        let sound = file_name(&format!("{url}{content}{server}{seen}")) == check;
        sound.then_some((epoch.parse().ok()?, signer.parse().ok()?))
    });
    Some(KnownUrl { content: content.trim_end().parse().ok()?, server: server.trim_end().to_owned(), seen })
}

fn check_folder(folder: &Path) -> Result<(), CacheError> {
    let unfit = |what| Err(CacheError::Unfit { path: folder.to_owned(), what });
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_symlink() => return unfit("a symbolic link"),
        Ok(found) if !found.is_dir() => return unfit("not a folder"),
        Ok(found) => warn_if_open_to_all(folder, &found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(folder)?,
        Err(error) => return Err(at(folder)(error)),
    }
    if folder.canonicalize().map_err(at(folder))?.parent().is_none() {
        return unfit("the root of the file system");
    }
    Ok(())
}

/// Only for its owner: it holds a key.
fn create(folder: &Path) -> Result<(), CacheError> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(folder).map_err(at(folder))
}

fn warn_if_open_to_all(folder: &Path, found: &fs::Metadata) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
    if mode & 0o002 != 0 {
        let mode = format!("{mode:04o}");
        warn!(folder = %folder.display(), mode, "everyone can write to the cache and so spoil it; chmod 700 it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_manifest::{Builder, ManifestSpec, PartLen, SignedManifest, SigningKey, server_key};
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use tempfile::TempDir;

    #[test]
    fn two_do_not_share_it() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a/cache");
        let cache = Cache::open(&path).unwrap();
        match Cache::open(&path).unwrap_err() {
            CacheError::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(cache);
        Cache::open(&path).unwrap();
    }

    #[test]
    fn folders_that_are_not_fit() {
        let folder = TempDir::new().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "x").unwrap();
        symlink(folder.path(), &link).unwrap();
        for path in [file.as_path(), link.as_path(), Path::new("/")] {
            assert!(matches!(Cache::open(path), Err(CacheError::Unfit { .. })), "{}", path.display());
        }
        assert!(matches!(Cache::open(&file.join("below")), Err(CacheError::Io { .. })));
        fs::create_dir_all(folder.path().join("odd/lock")).unwrap();
        assert!(matches!(Cache::open(&folder.path().join("odd")), Err(CacheError::Io { .. })));
    }

    #[test]
    fn the_identity_stays() {
        let folder = TempDir::new().unwrap();
        let first = Cache::open(folder.path()).unwrap().identity().unwrap().peer_id();
        assert_eq!(Cache::open(folder.path()).unwrap().identity().unwrap().peer_id(), first);
        let path = folder.path().join("identity.key");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        fs::write(&path, "damaged").unwrap();
        assert!(matches!(Cache::open(folder.path()).unwrap().identity(), Err(CacheError::Identity { .. })));
    }

    #[test]
    fn keys_and_urls_are_kept() {
        let folder = TempDir::new().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let (server, url) = ("https://example.org/../x", "https://example.org/a b\n?c");
        assert_eq!(cache.server_keys(server).unwrap(), []);
        assert_eq!(cache.known_url(url).unwrap(), None);
        let keys = [ServerKey::from_bytes([1; 32]), ServerKey::from_bytes([2; 32])];
        cache.pin(server, &keys).unwrap();
        assert_eq!(cache.server_keys(server).unwrap(), keys);
        let (manifest, encoded) = manifest(7);
        let url = "https://example.org/a";
        cache.remember(url, server, &manifest, &encoded).unwrap();
        let seen = Some((7, manifest.signer()));
        let known = KnownUrl { content: manifest.content(), server: server.to_owned(), seen };
        assert_eq!(cache.known_url(url).unwrap(), Some(known));
        assert_eq!(cache.manifest(manifest.content()).unwrap().unwrap(), encoded);
        assert_eq!(cache.manifest(ContentId::from_bytes([4; 32])).unwrap(), None);
    }
    fn manifest(epoch: u64) -> (Arc<Manifest>, Vec<u8>) {
        let prepared = Builder::new(PartLen::MIN).finish().unwrap();
        let mut spec = ManifestSpec::new("empty");
        spec.epoch = epoch;
        let key = SigningKey::from_bytes(&[1; 32]);
        let signed = SignedManifest::sign(Manifest::new(spec, &prepared, server_key(&key)).unwrap(), &key).unwrap();
        (signed.manifest().clone(), signed.encode().to_vec())
    }

    /// Taken for none, they would let anybody be the server.
    #[test]
    fn damaged_keys_are_not_taken_for_none() {
        let folder = TempDir::new().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let (server, key) = ("https://example.org", ServerKey::from_bytes([1; 32]));
        cache.pin(server, &[key]).unwrap();
        let path = cache.keys_path(server);
        let sound = fs::read(&path).unwrap();
        for damage in
            ["", "\n", "garbage", "https://example.org", "https://example.org\n", "https://example.com\n{key}\n"]
        {
            fs::write(&path, damage.replace("{key}", &key.to_string())).unwrap();
            let error = cache.server_keys(server).unwrap_err();
            assert!(matches!(error, CacheError::ServerKeys { .. }), "{damage:?}: {error:?}");
        }
        for end in 0..sound.len() - 1 {
            fs::write(&path, &sound[..end]).unwrap();
            assert!(cache.server_keys(server).is_err(), "cut at {end}");
        }
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            // Another key is refused when the server shows its own.
            assert!(!cache.server_keys(server).is_ok_and(|keys| keys.is_empty()), "bit {bit}");
        }
        fs::write(&path, &sound).unwrap();
        assert_eq!(cache.server_keys(server).unwrap(), [key]);
    }

    /// A damaged epoch would refuse what the server has, or let an older manifest in: it counts as none.
    #[test]
    fn a_flipped_bit_in_a_url_file() {
        let sound = url_file("https://example.org/a", "https://example.org", &manifest(7).0);
        let known = parse_url_file(&sound).unwrap();
        assert!(known.seen.is_some());
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let seen = parse_url_file(&String::from_utf8_lossy(&damaged)).and_then(|known| known.seen);
            assert!(seen.is_none() || seen == known.seen, "bit {bit}: {seen:?}");
        }
        for end in 0..sound.len() - 1 {
            let seen = parse_url_file(&sound[..end]).and_then(|known| known.seen);
            assert_eq!(seen, None, "cut to {end} bytes");
        }
    }

    #[test]
    fn a_full_disk_needs_no_write_of_what_is_there() {
        let folder = TempDir::new().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let path = folder.path().join("urls/a");
        cache.put(&path, b"x").unwrap();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let before = inode();
        cache.put(&path, b"x").unwrap();
        assert_eq!(inode(), before, "not written again");
        cache.put(&path, b"xy").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"xy");
    }

    #[test]
    fn room_is_made_and_what_is_left_over_goes() {
        let folder = TempDir::new().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let (old, open, new) =
            (ContentId::from_bytes([1; 32]), ContentId::from_bytes([2; 32]), ContentId::from_bytes([3; 32]));
        for content in [old, open] {
            cache.put(&cache.content_folder(content).join("data"), &[7; 10_000]).unwrap();
        }
        let opened = || Open::from([(open, 10_000)]);
        cache.make_room(Wanted { content: new, bytes: 1 }, Some(ByteCount::ZERO), opened).unwrap();
        let there = [old, open, new].map(|content| cache.content_folder(content).exists());
        assert_eq!(there, [false, true, true]);
        drop(cache);
        let leftover = folder.path().join(format!("evicted-{old}-0"));
        fs::create_dir_all(&leftover).unwrap();
        fs::write(leftover.join("data"), "x").unwrap();
        Cache::open(folder.path()).unwrap();
        assert!(!leftover.exists());
    }
}
