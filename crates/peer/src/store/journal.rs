//! The journal: which parts the data file holds.
//!
//! A header that names the content, then one record of eight bytes for each part, appended behind the part's bytes.
//! Every record carries a check of its own, so one that was torn or damaged costs that part and no other.
//! The journal is only a list of candidates: whoever reads it hashes the bytes before a part counts.

use hybrid_manifest::{ContentId, Layout, MAX_PARTS, PartNumber};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"hybJrnl\n";

/// The format's version; one more when older programs could misread it.
const VERSION: u16 = 1;

/// Magic, version, content, part length, total length, check.
const HEADER_BYTES: usize = 8 + 2 + 32 + 4 + 8 + CHECK_BYTES;

const RECORD_BYTES: usize = 4 + CHECK_BYTES;

/// Enough to tell a torn or damaged record from a whole one; bytes are judged by their hash.
const CHECK_BYTES: usize = 4;

/// Each part twice, which compaction at every start keeps it below; what is longer is damaged and not read further.
const JOURNAL_BYTES_MAX: u64 = HEADER_BYTES as u64 + 2 * RECORD_BYTES as u64 * MAX_PARTS as u64;

/// What a journal says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// These parts, and whether every byte was as it should be.
    Parts { parts: BTreeSet<PartNumber>, whole: bool },
    /// Nothing that can be believed: all that the data file holds must be hashed.
    Unusable,
    /// A later version's: to be left alone.
    Newer(u16),
}

/// Writes and reads records for one content.
#[derive(Debug)]
pub(super) struct Format {
    header: [u8; HEADER_BYTES],
    part_count: u32,
}

impl Format {
    pub(super) fn new(content: ContentId, layout: &Layout) -> Self {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(content.as_bytes());
        header.extend_from_slice(&layout.part_len().as_u32().to_le_bytes());
        header.extend_from_slice(&layout.total_len().to_le_bytes());
        let check = check(&[&header]);
        header.extend_from_slice(&check);
        Self { header: header.try_into().expect("the fields add up to the length"), part_count: layout.part_count() }
    }

    pub(super) fn record(&self, number: PartNumber) -> [u8; RECORD_BYTES] {
        let number = number.as_u32().to_le_bytes();
        let [a, b, c, d] = number;
        let [e, f, g, h] = check(&[&self.header, &number]);
        [a, b, c, d, e, f, g, h]
    }

    /// A whole journal for these parts.
    pub(super) fn write(&self, parts: &BTreeSet<PartNumber>, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = self.header.to_vec();
        bytes.extend(parts.iter().flat_map(|&number| self.record(number)));
        out.write_all(&bytes)
    }

    pub(super) fn read(&self, file: &File) -> io::Result<Contents> {
        let mut bytes = Vec::new();
        file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(self.parse(&bytes))
    }

    fn parse(&self, bytes: &[u8]) -> Contents {
        let Some((header, records)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Contents::Unusable };
        if header != &self.header {
            let (told, checked) = header.split_at(HEADER_BYTES - CHECK_BYTES);
            let version = u16::from_le_bytes([header[8], header[9]]);
            let newer = header.starts_with(&MAGIC) && version > VERSION && check(&[told]) == *checked;
            return if newer { Contents::Newer(version) } else { Contents::Unusable };
        }
        let (records, torn) = records.as_chunks::<RECORD_BYTES>();
        let parts: BTreeSet<PartNumber> = records.iter().filter_map(|record| self.parse_record(record)).collect();
        let whole = torn.is_empty() && parts.len() == records.len() && bytes.len() as u64 <= JOURNAL_BYTES_MAX;
        Contents::Parts { parts, whole }
    }

    fn parse_record(&self, record: &[u8; RECORD_BYTES]) -> Option<PartNumber> {
        let &[a, b, c, d, ..] = record;
        let number = PartNumber::new(u32::from_le_bytes([a, b, c, d]));
        (number.as_u32() < self.part_count && self.record(number) == *record).then_some(number)
    }
}

fn check(fields: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(field);
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_manifest::PartLen;

    fn format() -> Format {
        let layout = Layout::new(PartLen::MIN, &[100 * PartLen::MIN.as_u64()]).unwrap();
        Format::new(ContentId::from_bytes([5; 32]), &layout)
    }

    fn numbers(numbers: &[u32]) -> BTreeSet<PartNumber> {
        numbers.iter().copied().map(PartNumber::new).collect()
    }

    fn journal(parts: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        format().write(&numbers(parts), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn written_and_read() {
        let bytes = journal(&[0, 7, 99]);
        assert_eq!(format().parse(&bytes), Contents::Parts { parts: numbers(&[0, 7, 99]), whole: true });
    }

    #[test]
    fn cut_anywhere_only_the_tail_is_lost() {
        let bytes = journal(&[0, 7, 99]);
        for end in 0..bytes.len() {
            let expected = match end.checked_sub(HEADER_BYTES) {
                None => Contents::Unusable,
                Some(rest) => {
                    let parts = numbers(&[0, 7, 99][..rest / RECORD_BYTES]);
                    Contents::Parts { parts, whole: rest % RECORD_BYTES == 0 }
                }
            };
            assert_eq!(format().parse(&bytes[..end]), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_record() {
        let bytes = journal(&[0, 7, 99]);
        for bit in HEADER_BYTES * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Contents::Parts { parts, whole } = format().parse(&damaged) else { panic!("bit {bit}") };
            assert_eq!((parts.len(), whole), (2, false), "bit {bit}");
            assert!(parts.is_subset(&numbers(&[0, 7, 99])), "bit {bit}");
        }
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(format().parse(&damaged), Contents::Unusable, "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_parts_beyond_the_content_are_nothing() {
        let mut bytes = journal(&[3]);
        bytes.extend_from_slice(&[0; 4096]);
        bytes.extend_from_slice(&format().record(PartNumber::new(100)));
        bytes.extend_from_slice(&format().record(PartNumber::new(3)));
        assert_eq!(format().parse(&bytes), Contents::Parts { parts: numbers(&[3]), whole: false });
    }

    #[test]
    fn later_versions_are_told_apart() {
        let mut bytes = journal(&[3]);
        bytes[8] = 2;
        let check = check(&[&bytes[..HEADER_BYTES - CHECK_BYTES]]);
        bytes[HEADER_BYTES - CHECK_BYTES..HEADER_BYTES].copy_from_slice(&check);
        assert_eq!(format().parse(&bytes), Contents::Newer(2));
    }
}
