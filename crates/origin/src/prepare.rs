//! Hashing a file with all processors: any order, constant memory.

use hybrid_manifest::{Kind, Layout, LayoutError, PartHasher, PartId, PartLen, PartNumber, PrepareError, Prepared};
use hybrid_manifest::{part_len, part_len_between};
use hybrid_qos::PartPolicy;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Why a file cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareFileError {
    /// It cannot be read.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// It is beyond the limits.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It was changed while it was read.
    #[error("the file changed while it was being read")]
    Changed,
}

impl From<PrepareError> for PrepareFileError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Layout(error) => Self::Layout(error),
            // One id for each part is what the threads made, unless the file lost parts meanwhile.
            _ => Self::Changed,
        }
    }
}

/// How long the parts of a file are, by a class's policy.
fn part_length(policy: PartPolicy, length: u64) -> PartLen {
    let (shortest, longest) = match policy {
        PartPolicy::Fixed { bytes } => (bytes, bytes),
        PartPolicy::BySize { min_bytes, max_bytes } => (min_bytes, max_bytes),
    };
    // A class with other lengths is refused when the origin is opened.
    let usual = part_len(Kind::Static, length, None);
    let lengths = PartLen::new(shortest).zip(PartLen::new(longest));
    lengths.map_or(usual, |(shortest, longest)| part_len_between(shortest, longest, length))
}

/// Cuts a static file into parts as its class wants them and hashes them, on as many threads as there are processors.
///
/// Each thread reads parts at their positions through a buffer of its own, so the memory is 128 KiB for each thread,
/// and 36 bytes for each part. Blocks.
///
/// # Errors
/// When the file cannot be read, is too long, or changes meanwhile.
pub fn prepare_file(file: &File, parts: PartPolicy) -> Result<Prepared, PrepareFileError> {
    let before = file.metadata()?;
    let length = before.len();
    let layout = Layout::new(part_length(parts, length), &[length])?;
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let ids = part_ids(file, &layout, threads)?;
    let after = file.metadata()?;
    if after.len() != length || after.modified()? != before.modified()? {
        return Err(PrepareFileError::Changed);
    }
    Ok(Prepared::from_part_ids(layout, ids)?)
}

/// Read at a time: enough for the hash's widest instructions, and so little that it stays in a processor's own cache between
/// the copy and the hash.
const READ_BYTES: usize = 128 << 10;

fn part_ids(file: &File, layout: &Layout, threads: usize) -> Result<Vec<PartId>, PrepareFileError> {
    let next = AtomicU32::new(0);
    let failed = AtomicBool::new(false);
    let threads = threads.min(usize::try_from(layout.part_count()).unwrap_or(usize::MAX)).max(1);
    let work = || {
        let found = hash_parts(file, layout, &next, &failed);
        if found.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        found
    };
    let mut ids = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work()?;
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, PrepareFileError>(all)
    })?;
    ids.sort_unstable_by_key(|(number, _)| *number);
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// Hashes parts until there are no more, or another thread has failed.
fn hash_parts(
    file: &File,
    layout: &Layout,
    next: &AtomicU32,
    failed: &AtomicBool,
) -> Result<Vec<(u32, PartId)>, PrepareFileError> {
    let mut ids = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    while !failed.load(Ordering::Relaxed) {
        // Beyond the last part the counter grows by one for each thread; it cannot come round.
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(place) = layout.part(PartNumber::new(number)) else { break };
        let (mut hasher, mut offset, end) =
            (PartHasher::new(&place), place.offset(), place.offset() + u64::from(place.len()));
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ_BYTES);
            let piece = &mut buffer[..length];
            read_at(file, piece, offset)?;
            hasher.update(piece);
            offset += length as u64;
        }
        ids.push((number, hasher.finish().ok_or(PrepareFileError::Changed)?));
    }
    Ok(ids)
}

/// Fills the buffer from a position; a file that ends before is [`PrepareFileError::Changed`].
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), PrepareFileError> {
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(not(unix))]
    let read = {
        use std::io::{Read as _, Seek as _};
        // No positional reads here: a handle of its own for each reader.
        file.try_clone().and_then(|mut file| {
            file.seek(io::SeekFrom::Start(offset))?;
            file.read_exact(buffer)
        })
    };
    read.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => PrepareFileError::Changed,
        _ => PrepareFileError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_manifest::Builder;
    use std::io::Write as _;

    const PARTS: PartPolicy = PartPolicy::BySize { min_bytes: 64 << 10, max_bytes: 1 << 20 };

    fn file(length: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|index| u8::try_from((index * 31 + index / 977) % 251).unwrap()).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn any_number_of_threads_gives_what_one_pass_gives() {
        for length in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
            let (file, bytes) = file(length);
            let mut builder = Builder::new(PartLen::new(64 << 10).unwrap());
            builder.write(&bytes).unwrap();
            let expected = builder.finish().unwrap();
            for threads in [1, 2, 7] {
                let ids = part_ids(file.as_file(), expected.layout(), threads).unwrap();
                assert_eq!(ids, expected.part_ids(), "{length} bytes on {threads} threads");
            }
            assert_eq!(prepare_file(file.as_file(), PARTS).unwrap(), expected, "{length}");
        }
    }

    #[test]
    fn a_file_that_shrinks_is_not_prepared() {
        let (file, _) = file(1_000_000);
        let layout = Layout::new(PartLen::new(64 << 10).unwrap(), &[1_000_000]).unwrap();
        file.as_file().set_len(500_000).unwrap();
        for threads in [1, 3] {
            assert!(matches!(part_ids(file.as_file(), &layout, threads), Err(PrepareFileError::Changed)));
        }
    }
}
