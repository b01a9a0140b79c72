//! The cache folder: what a peer keeps from one start to the next.
//!
//! - `lock`: held as long as the folder is in use;
//! - `identity.key`: the peer's key;
//! - `servers/`: for each server the keys with which it may sign;
//! - `urls/`: for each URL the content that it named last;
//! - a folder for each content, named by its id, with its [`crate::store`] and its `manifest`.

use crate::store::files;
use hybrid_manifest::{ContentId, ServerKey};
use hybrid_peer_transport::{Identity, IdentityError};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Keys and addresses are far below this; what is longer is none of ours.
const SMALL_FILE_BYTES_MAX: u64 = 16 << 10;

/// The cache folder, locked for this process.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    _lock: File,
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
        Ok(Self { folder: folder.to_owned(), _lock: lock })
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
    pub(crate) fn server_keys(&self, server: &str) -> Result<Vec<ServerKey>, CacheError> {
        let path = self.keys_path(server);
        let bytes = files::read_regular(&path, SMALL_FILE_BYTES_MAX).map_err(at(&path))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().skip(1).filter_map(|line| line.parse().ok()).collect())
    }

    /// Keeps the keys of a server.
    pub(crate) fn pin(&self, server: &str, keys: &[ServerKey]) -> Result<(), CacheError> {
        let keys: String = keys.iter().map(|key| format!("{key}\n")).collect();
        self.put(&self.keys_path(server), format!("{server}\n{keys}").as_bytes())
    }

    /// The content that a URL named last, and the server that had it.
    pub(crate) fn known_url(&self, url: &str) -> Result<Option<(ContentId, String)>, CacheError> {
        let path = self.folder.join("urls").join(file_name(url));
        let bytes = files::read_regular(&path, SMALL_FILE_BYTES_MAX).map_err(at(&path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().skip(1);
        Ok(lines.next().and_then(|id| id.parse().ok()).zip(lines.next().map(str::to_owned)))
    }

    /// Keeps a manifest, and that it is what `url` names on `server`.
    pub(crate) fn remember(
        &self,
        url: &str,
        server: &str,
        content: ContentId,
        manifest: &[u8],
    ) -> Result<(), CacheError> {
        self.put(&self.content_folder(content).join("manifest"), manifest)?;
        self.put(&self.folder.join("urls").join(file_name(url)), format!("{url}\n{content}\n{server}\n").as_bytes())
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

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
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
    use std::os::unix::fs::symlink;
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
        let content = ContentId::from_bytes([3; 32]);
        cache.remember("https://example.org/a", server, content, b"a manifest").unwrap();
        assert_eq!(cache.known_url("https://example.org/a").unwrap(), Some((content, server.to_owned())));
        assert_eq!(cache.manifest(content).unwrap().unwrap(), b"a manifest");
        assert_eq!(cache.manifest(ContentId::from_bytes([4; 32])).unwrap(), None);
    }
}
