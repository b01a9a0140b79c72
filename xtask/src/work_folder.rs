//! Folders beneath cargo's target folder for what one run needs, gone with it.

use crate::workspace;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// A folder of this run's own. What a run that was killed left behind is removed by the next of its kind.
#[derive(Debug)]
pub(crate) struct WorkFolder(PathBuf);

impl WorkFolder {
    /// `target/KIND-PID`.
    pub(crate) fn new(kind: &str) -> anyhow::Result<Self> {
        let target = workspace::target()?;
        remove_leftovers(&target, kind)?;
        let path = target.join(format!("{kind}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}

fn remove_leftovers(target: &Path, kind: &str) -> anyhow::Result<()> {
    let Ok(entries) = target.read_dir() else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().and_then(|name| owner(name, kind)).is_some_and(|owner| !is_alive(owner)) {
            std::fs::remove_dir_all(target.join(&name))?;
        }
    }
    Ok(())
}

/// The process in a name of the form `KIND-PID` or `KIND-PID-…`.
pub(crate) fn owner(name: &str, kind: &str) -> Option<u32> {
    name.strip_prefix(kind)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

/// Whether a process runs; where the system does not tell, it may.
pub(crate) fn is_alive(process: u32) -> bool {
    let tells = Path::new("/proc/self").exists();
    !tells || Path::new(&format!("/proc/{process}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_name_is() {
        for (name, expected) in [
            ("arena-12", Some(12)),
            ("arena-12-br", Some(12)),
            ("arena-", None),
            ("arena-x", None),
            ("arena", None),
            ("other-12", None),
            ("arena2-12", None),
        ] {
            assert_eq!(owner(name, "arena"), expected, "{name}");
        }
    }

    #[test]
    fn what_the_living_have_stays() {
        let target = std::env::temp_dir().join(format!("hybrid-work-folder-test-{}", std::process::id()));
        let ours = format!("kind-{}", std::process::id());
        // Above what Linux gives to any process (PID_MAX_LIMIT, 2^22).
        for name in [ours.as_str(), "kind-4194305", "kind-x", "other-4194305"] {
            std::fs::create_dir_all(target.join(name).join("inner")).unwrap();
        }
        remove_leftovers(&target, "kind").unwrap();
        let mut left: Vec<String> =
            target.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        std::fs::remove_dir_all(&target).unwrap();
        let mut expected = [ours, "kind-x".to_owned(), "other-4194305".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }
}
