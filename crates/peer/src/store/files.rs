//! Files of ours in a directory of ours.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Opens a file of the cache for reading and writing, making it if it is not there.
///
/// # Errors
/// When there is something else than a plain file with one name: links, pipes and devices are never opened, wherever they lead.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    refuse_irregular(path)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Reads a file of the cache, at most `max_bytes` of it; `None` if it is not there.
///
/// # Errors
/// As [`open_regular`].
pub(crate) fn read_regular(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    refuse_irregular(path)?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn refuse_irregular(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && names(&found) == 1 => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file of its own: remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// How many names the file has: what is written to one of several may be somebody else's.
#[cfg(unix)]
fn names(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(file)
}

#[cfg(not(unix))]
fn names(_: &fs::Metadata) -> u64 {
    1
}

/// Replaces a file of the cache in one step: whoever looks sees the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // What a killed process left there.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

/// A new file that only its owner can read, since some of them are keys.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
