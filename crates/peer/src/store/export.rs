//! Writing the whole content to a file of the user's.

use super::Store;
use hybrid_manifest::PartNumber;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What to do when the output is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Overwrite {
    /// Leave it alone and fail.
    Refuse,
    /// Replace it, if it is a plain file.
    Replace,
}

/// Why the content was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Parts are missing.
    #[error("{} parts are missing, the first is part {}", missing.len(), missing.first().map_or(0, |part| part.as_u32()))]
    Incomplete {
        /// Which, in order.
        missing: Vec<PartNumber>,
    },
    /// There is a file already.
    #[error("{} exists", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// There is something that cannot be replaced by a file.
    #[error("{} is {what}, not a file", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// The output, or the folder it should be in.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether the content could be written there, asked before it is fetched.
///
/// # Errors
/// When something is there already that may not be replaced, or the folder is missing.
pub fn check_output(path: &Path, overwrite: Overwrite) -> Result<(), ExportError> {
    let name_missing = || io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file");
    path.file_name().ok_or_else(|| io_error(path)(name_missing()))?;
    let folder = folder_of(path);
    if !fs::metadata(folder).map_err(io_error(folder))?.is_dir() {
        return Err(ExportError::NotAFile { path: folder.to_owned(), what: "no folder" });
    }
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path)(error)),
    };
    let not_a_file = |what| Err(ExportError::NotAFile { path: path.to_owned(), what });
    match overwrite {
        _ if found.is_dir() => not_a_file("a folder"),
        _ if found.is_symlink() => not_a_file("a symbolic link"),
        _ if !found.is_file() => not_a_file("a pipe or device"),
        Overwrite::Refuse => Err(ExportError::Exists { path: path.to_owned() }),
        Overwrite::Replace => Ok(()),
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { path: path.clone(), source }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside the output, removed unless it became the output.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Its name is the output's between a dot and the process number, so that nobody takes it for the content.
    fn beside(output: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let path = folder_of(output).join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }

    fn become_output(&self, output: &Path, overwrite: Overwrite) -> Result<(), ExportError> {
        // On disk before it has its name: a name after a power cut must not stand for an empty file.
        self.file.sync_data().map_err(io_error(output))?;
        match overwrite {
            Overwrite::Replace => fs::rename(&self.path, output).map_err(io_error(output)),
            // A rename would replace a file that came up since we looked; a link fails. Where the file system has no
            // links, looking once more is the best there is.
            Overwrite::Refuse => match fs::hard_link(&self.path, output) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(ExportError::Exists { path: output.to_owned() })
                }
                Err(_) => {
                    check_output(output, overwrite)?;
                    fs::rename(&self.path, output).map_err(io_error(output))
                }
            },
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails when it was renamed, which is how it should end.
        drop(fs::remove_file(&self.path));
    }
}

impl Store {
    /// Writes the whole content to a file, under a temporary name first. Every part is hashed once more on its way.
    ///
    /// # Errors
    /// When parts are missing or the file cannot be written; then nothing is left behind.
    pub fn export(&self, output: &Path, overwrite: Overwrite) -> Result<(), ExportError> {
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(ExportError::Incomplete { missing });
        }
        check_output(output, overwrite)?;
        let mut temporary = Temporary::beside(output).map_err(io_error(output))?;
        for number in self.manifest().layout().parts().iter().flat_map(|parts| parts.iter()) {
            // A part that does not match any more is not held any more.
            let part = self.read(number).ok_or_else(|| ExportError::Incomplete { missing: vec![number] })?;
            temporary.file.write_all(part.bytes()).map_err(io_error(output))?;
        }
        temporary.become_output(output, overwrite)
    }
}
