//! The served folder: which names are files beneath it, and opening them without being led out of it.

use hybrid_server_transport::ContentPath;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder with its links resolved.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

/// What tells one state of a file from the next. A change that keeps all of these is found when a part is read and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) length_bytes: u64,
    pub(crate) modified: SystemTime,
    inode: u64,
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It is not there, or cannot be looked into.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
}

/// Why a file cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// There is no file of that name, or none that is served: hidden files and whatever a link leads to outside are not.
    #[error("no such file")]
    NotFound,
    /// The system does not let us read it.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let unreadable = |source| FolderError::Unreadable { path: path.to_owned(), source };
        let root = path.canonicalize().map_err(unreadable)?;
        if !root.is_dir() {
            return Err(FolderError::NotAFolder(path.to_owned()));
        }
        root.read_dir().map_err(unreadable)?;
        Ok(Self { root })
    }

    /// Whether a path, with its links resolved, is beneath the root and no component of it is hidden.
    fn is_served(&self, resolved: &Path) -> bool {
        resolved.strip_prefix(&self.root).is_ok_and(|inner| {
            inner.components().all(|component| !component.as_os_str().as_encoded_bytes().starts_with(b"."))
        })
    }

    /// The file at a path, with its links resolved. Blocks.
    pub(crate) fn find(&self, path: &ContentPath) -> Result<(PathBuf, Stamp), FileProblem> {
        // A hidden name is not served even if it is a link to a file that is.
        if path.components().any(|component| component.starts_with('.')) {
            return Err(FileProblem::NotFound);
        }
        let mut name = self.root.clone();
        name.extend(path.components());
        let resolved = name.canonicalize().map_err(not_found)?;
        if !self.is_served(&resolved) {
            return Err(FileProblem::NotFound);
        }
        let metadata = resolved.symlink_metadata().map_err(not_found)?;
        // Anything else may block for ever when it is opened, or has no end.
        if !metadata.is_file() {
            return Err(FileProblem::NotFound);
        }
        Ok((resolved, Stamp::of(&metadata)?))
    }

    /// Opens a file that [`Self::find`] has found. Blocks.
    ///
    /// Between the two, somebody may have put a link in its place: what counts is where the open file is.
    pub(crate) fn open_file(&self, resolved: &Path) -> Result<(File, Stamp), FileProblem> {
        let file = File::open(resolved).map_err(not_found)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || !self.is_beneath(&file) {
            return Err(FileProblem::NotFound);
        }
        let stamp = Stamp::of(&metadata)?;
        Ok((file, stamp))
    }

    #[cfg(target_os = "linux")]
    fn is_beneath(&self, file: &File) -> bool {
        use std::os::fd::AsRawFd as _;
        match std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
            Ok(opened) => self.is_served(&opened),
            // Without /proc there is only the check before.
            Err(_) => !Path::new("/proc/self/fd").exists(),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn is_beneath(&self, _: &File) -> bool {
        true
    }

    /// Tells the files beneath the root that are served, in order of their names; links are not followed. Blocks.
    pub(crate) fn walk(&self, mut tell: impl FnMut(ContentPath) -> bool) {
        let mut folders = vec![Vec::new()];
        while let Some(components) = folders.pop() {
            let folder: PathBuf =
                std::iter::once(self.root.as_os_str().into()).chain(components.iter().map(PathBuf::from)).collect();
            let Ok(entries) = folder.read_dir() else { continue };
            let mut entries: Vec<_> = entries
                .filter_map(Result::ok)
                .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.file_type().ok()?)))
                .filter(|(name, _)| !name.starts_with('.'))
                .collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let mut inner = Vec::new();
            for (name, kind) in entries {
                let mut path = components.clone();
                path.push(name);
                if kind.is_dir() && path.len() < ContentPath::MAX_COMPONENTS {
                    inner.push(path);
                } else if kind.is_file()
                    && let Ok(path) = ContentPath::from_components(path)
                    && !tell(path)
                {
                    return;
                }
            }
            folders.extend(inner.into_iter().rev());
        }
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> io::Result<Self> {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Ok(Self { length_bytes: metadata.len(), modified: metadata.modified()?, inode })
    }
}

/// Links that lead back to themselves; the standard library has no stable name for it.
#[cfg(target_os = "linux")]
const ELOOP: i32 = 40;
#[cfg(not(target_os = "linux"))]
const ELOOP: i32 = 62;

fn not_found(error: io::Error) -> FileProblem {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput => FileProblem::NotFound,
        _ if error.raw_os_error() == Some(ELOOP) => FileProblem::NotFound,
        _ => FileProblem::Io(error),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }

    fn tree() -> (tempfile::TempDir, Folder) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        for name in ["a", "b/c", "b/.hidden", ".secret/x", "z"] {
            write(&root, name);
        }
        write(outer.path(), "outside");
        symlink("a", root.join("link-inside")).unwrap();
        symlink("../outside", root.join("link-outside")).unwrap();
        symlink("/etc", root.join("link-etc")).unwrap();
        symlink(".secret/x", root.join("link-hidden")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let folder = Folder::open(&root).unwrap();
        (outer, folder)
    }

    fn find(folder: &Folder, url: &str) -> Result<PathBuf, FileProblem> {
        folder.find(&ContentPath::from_url(url).unwrap()).map(|(path, _)| path)
    }

    #[test]
    fn what_is_served() {
        let (_outer, folder) = tree();
        for (url, inner) in [("a", "a"), ("b/c", "b/c"), ("link-inside", "a")] {
            let found = find(&folder, url).unwrap();
            assert_eq!(found, folder.root.join(inner), "{url}");
            assert!(folder.open_file(&found).is_ok());
        }
        for url in
            ["none", "b", "a/x", ".secret/x", "b/.hidden", "link-outside", "link-etc/hostname", "link-hidden", "loop"]
        {
            assert!(matches!(find(&folder, url), Err(FileProblem::NotFound)), "{url}");
        }
    }

    #[test]
    fn a_link_put_in_place_of_a_found_file_is_not_followed_out() {
        let (outer, folder) = tree();
        let found = find(&folder, "a").unwrap();
        std::fs::remove_file(&found).unwrap();
        symlink(outer.path().join("outside"), &found).unwrap();
        assert!(matches!(folder.open_file(&found), Err(FileProblem::NotFound)));
    }

    #[test]
    fn the_walk_tells_files_in_order_and_follows_no_links() {
        let (_outer, folder) = tree();
        let mut names = Vec::new();
        folder.walk(|path| {
            names.push(path.to_string());
            true
        });
        assert_eq!(names, ["a", "z", "b/c"]);
        let mut count = 0;
        folder.walk(|_| {
            count += 1;
            false
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn what_is_no_folder() {
        let (outer, _) = tree();
        assert!(matches!(Folder::open(&outer.path().join("outside")), Err(FolderError::NotAFolder(_))));
        assert!(matches!(Folder::open(&outer.path().join("none")), Err(FolderError::Unreadable { .. })));
    }
}
