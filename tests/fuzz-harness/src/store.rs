//! The journal of a client's store: whatever the disk gives back.

/// The store's own file: the format is private to the store, and opening a store for each input would take 10,000 times as long.
#[allow(dead_code, unreachable_pub, reason = "only reading is fuzzed")]
#[path = "../../../crates/peer/src/store/journal.rs"]
mod format;

use format::{Contents, Format};
use hybrid_manifest::{ContentId, Layout, PartLen};
use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

const PARTS: u32 = 100;

thread_local! {
    /// One file for all inputs of a thread.
    static FILE: RefCell<File> = RefCell::new(tempfile::tempfile().expect("a temporary file can be made"));
}

pub(crate) fn journal(data: &[u8]) {
    let layout = Layout::new(PartLen::MIN, &[u64::from(PARTS) * PartLen::MIN.as_u64()]).expect("a sound content");
    let format = Format::new(ContentId::from_bytes([5; 32]), &layout);
    let contents = FILE.with_borrow_mut(|file| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(data)?;
        file.seek(SeekFrom::Start(0))?;
        format.read(file)
    });
    match contents.expect("a temporary file can be written and read") {
        Contents::Parts { parts, whole } => {
            assert!(parts.iter().all(|number| number.as_u32() < PARTS), "a part beyond the content");
            let mut written = Vec::new();
            format.write(&parts, &mut written).expect("memory takes all");
            assert!(written.len() <= data.len(), "more was read than was there");
            assert!(!whole || written.len() == data.len(), "called whole, and is not");
        }
        Contents::Newer(version) => assert!(version > 1),
        Contents::Unusable => {}
    }
}
