//! Which bytes of a content belong to which part.
//!
//! Invariants: parts cover the content without gap or overlap, in order; a part never crosses a segment's end; every part of
//! a segment but its last has the content's part length.
//! Only a [`Layout`] makes a [`PartPlace`], so who holds one holds a part that exists.

use crate::{MAX_PARTS, PartLen, PartNumber, PartRange};
use std::sync::Arc;

/// The longest content, 2^44 bytes: [`MAX_PARTS`] parts of the greatest part length.
pub const MAX_TOTAL_LEN: u64 = 1 << 44;

/// The most segments of a content, 100,000.
///
/// At two seconds each that is 55 hours of media, and the segments' part of a manifest stays below 10 MB unless most have
/// long names.
pub const MAX_SEGMENTS: u32 = 100_000;

/// How a content is cut: its segments, and the parts within them.
///
/// Cloning is cheap: the table of segments is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    part_len: PartLen,
    total_len: u64,
    part_count: u32,
    segments: Arc<[SegmentSpan]>,
}

/// Why lengths make no [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The content would be too long.
    #[error("the segments add up to more than {MAX_TOTAL_LEN} bytes at segment {segment}")]
    TotalLen {
        /// The segment that goes beyond.
        segment: u32,
    },
    /// The content would have too many parts.
    #[error(
        "the segments make more than {MAX_PARTS} parts of {part_len_bytes} bytes at segment {segment}: take longer parts"
    )]
    Parts {
        /// The segment that goes beyond.
        segment: u32,
        /// The part length that was asked for.
        part_len_bytes: u32,
    },
    /// The content would have too many segments.
    #[error("{got} segments, at most {MAX_SEGMENTS} are allowed: take longer segments")]
    Segments {
        /// How many there would be.
        got: usize,
    },
}

/// Where a segment lies in its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    offset: u64,
    len: u64,
    first_part: u32,
    part_count: u32,
}

/// Where a part lies, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlace {
    number: PartNumber,
    segment: u32,
    offset: u64,
    offset_in_segment: u64,
    len: u32,
    is_whole_segment: bool,
}

impl Layout {
    /// Cuts segments of these lengths, in bytes and in order, into parts of `part_len`.
    ///
    /// A content of no bytes is one segment of length 0; it has no parts.
    ///
    /// # Errors
    /// Beyond [`MAX_SEGMENTS`], [`MAX_TOTAL_LEN`] or [`MAX_PARTS`].
    pub fn new(part_len: PartLen, segment_lens: &[u64]) -> Result<Self, LayoutError> {
        if u32::try_from(segment_lens.len()).map_or(true, |count| count > MAX_SEGMENTS) {
            return Err(LayoutError::Segments { got: segment_lens.len() });
        }
        let (mut total_len, mut part_count) = (0u64, 0u32);
        let mut segments = Vec::with_capacity(segment_lens.len());
        for (segment, &len) in (0u32..).zip(segment_lens) {
            let end = total_len.checked_add(len).filter(|&end| end <= MAX_TOTAL_LEN);
            let end = end.ok_or(LayoutError::TotalLen { segment })?;
            // At most 2^44 / 2^14 parts, so the conversion fails for no length that passed the line above.
            let parts = u32::try_from(len.div_ceil(part_len.as_u64())).unwrap_or(u32::MAX);
            let end_part = part_count.checked_add(parts).filter(|&end| end <= MAX_PARTS);
            let end_part = end_part.ok_or(LayoutError::Parts { segment, part_len_bytes: part_len.as_u32() })?;
            segments.push(SegmentSpan { offset: total_len, len, first_part: part_count, part_count: parts });
            (total_len, part_count) = (end, end_part);
        }
        Ok(Self { part_len, total_len, part_count, segments: segments.into() })
    }

    /// The length of every part but the last of each segment.
    pub fn part_len(&self) -> PartLen {
        self.part_len
    }

    /// The content's length in bytes.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// How many parts the content has.
    pub fn part_count(&self) -> u32 {
        self.part_count
    }

    /// All parts; `None` if there are none.
    pub fn parts(&self) -> Option<PartRange> {
        PartRange::new(PartNumber::new(0), self.part_count)
    }

    /// How many segments the content has.
    pub fn segment_count(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(MAX_SEGMENTS)
    }

    /// The segments in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = SegmentSpan> + ExactSizeIterator + '_ {
        self.segments.iter().copied()
    }

    /// Where a segment lies; `None` if there is no such segment.
    pub fn segment_span(&self, segment: u32) -> Option<SegmentSpan> {
        self.segments.get(usize::try_from(segment).ok()?).copied()
    }

    /// The parts of a segment; `None` if it is empty or does not exist.
    pub fn parts_in_segment(&self, segment: u32) -> Option<PartRange> {
        self.segment_span(segment)?.parts()
    }

    /// Where a part lies; `None` if the content has no such part.
    pub fn part(&self, number: PartNumber) -> Option<PartPlace> {
        let index = self.segments.partition_point(|span| span.end_part() <= number.as_u32());
        let span = self.segments.get(index)?;
        let offset_in_segment = u64::from(number.as_u32() - span.first_part) * self.part_len.as_u64();
        let left = span.len - offset_in_segment;
        Some(PartPlace {
            number,
            segment: u32::try_from(index).ok()?,
            offset: span.offset + offset_in_segment,
            offset_in_segment,
            len: u32::try_from(left).map_or(self.part_len.as_u32(), |left| left.min(self.part_len.as_u32())),
            is_whole_segment: span.part_count == 1,
        })
    }

    /// The part that holds the byte at `offset` of the content; `None` at its end and beyond.
    pub fn part_at(&self, offset: u64) -> Option<PartPlace> {
        let span = self.segments.get(self.segments.partition_point(|span| span.end() <= offset))?;
        let index = u32::try_from((offset - span.offset) / self.part_len.as_u64()).ok()?;
        self.part(PartNumber::new(span.first_part + index))
    }

    /// The parts that hold any of the `len` bytes from `offset` on.
    ///
    /// Bytes beyond the content's end do not count; `None` if none is left.
    pub fn parts_covering(&self, offset: u64, len: u64) -> Option<PartRange> {
        let end = offset.saturating_add(len).min(self.total_len);
        if offset >= end {
            return None;
        }
        let (first, last) = (self.part_at(offset)?.number, self.part_at(end - 1)?.number);
        PartRange::new(first, last.as_u32() - first.as_u32() + 1)
    }

    /// The parts of `range` that exist, as one run for each segment that has some, in order.
    pub fn split_by_segment(&self, range: PartRange) -> impl Iterator<Item = PartRange> + '_ {
        let start = self.segments.partition_point(|span| span.end_part() <= range.first().as_u32());
        let spans = self.segments.iter().skip(start).take_while(move |span| span.first_part < range.end().as_u32());
        spans.filter_map(move |span| {
            let first = span.first_part.max(range.first().as_u32());
            let end = span.end_part().min(range.end().as_u32());
            PartRange::new(PartNumber::new(first), end.saturating_sub(first))
        })
    }
}

#[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
impl SegmentSpan {
    /// Where the segment starts in the content, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where it ends in the content, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Its parts; `None` if it is empty.
    pub fn parts(&self) -> Option<PartRange> {
        PartRange::new(PartNumber::new(self.first_part), self.part_count)
    }

    fn end_part(&self) -> u32 {
        self.first_part + self.part_count
    }
}

#[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection; a part is never empty")]
impl PartPlace {
    /// Which part.
    pub fn number(&self) -> PartNumber {
        self.number
    }

    /// The segment it belongs to, from 0.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Where it starts in the content, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it starts in its segment, in bytes.
    pub fn offset_in_segment(&self) -> u64 {
        self.offset_in_segment
    }

    /// How long it is, in bytes; at least 1.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Where it ends in the content, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// Whether it is all of its segment, so that its id is the segment's hash.
    pub fn is_whole_segment(&self) -> bool {
        self.is_whole_segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K16: PartLen = PartLen::MIN;

    #[test]
    fn no_bytes_no_parts() {
        let layout = Layout::new(K16, &[0]).unwrap();
        assert_eq!((layout.total_len(), layout.part_count(), layout.segment_count()), (0, 0, 1));
        assert_eq!(layout.part(PartNumber::new(0)), None);
        assert_eq!(layout.part_at(0), None);
        assert_eq!(layout.parts_covering(0, 1), None);
        assert_eq!(layout.parts_in_segment(0), None);
        assert_eq!(layout.parts(), None);
    }

    #[test]
    fn parts_end_with_their_segment() {
        let layout = Layout::new(K16, &[16_385, 0, 100]).unwrap();
        assert_eq!(layout.part_count(), 3);
        let places: Vec<_> = (0..3).map(|n| layout.part(PartNumber::new(n)).unwrap()).collect();
        let summary: Vec<_> =
            places.iter().map(|p| (p.segment(), p.offset(), p.offset_in_segment(), p.len())).collect();
        assert_eq!(summary, [(0, 0, 0, 16_384), (0, 16_384, 16_384, 1), (2, 16_385, 0, 100)]);
        assert_eq!(places.iter().map(PartPlace::is_whole_segment).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(layout.parts_in_segment(1), None);
        assert_eq!(layout.parts_in_segment(3), None);
        let all = PartRange::new(PartNumber::new(1), 9).unwrap();
        let runs: Vec<_> = layout.split_by_segment(all).map(|r| (r.first().as_u32(), r.count())).collect();
        assert_eq!(runs, [(1, 1), (2, 1)]);
    }

    #[test]
    fn limits() {
        let most = MAX_TOTAL_LEN;
        assert!(Layout::new(PartLen::MAX, &[most]).is_ok());
        assert_eq!(Layout::new(PartLen::MAX, &[most + 1]), Err(LayoutError::TotalLen { segment: 0 }));
        assert_eq!(Layout::new(PartLen::MAX, &[1, u64::MAX]), Err(LayoutError::TotalLen { segment: 1 }));
        assert_eq!(
            Layout::new(PartLen::MAX, &[most - 1, 1]),
            Err(LayoutError::Parts { segment: 1, part_len_bytes: 16 << 20 })
        );
        assert_eq!(Layout::new(K16, &[most]), Err(LayoutError::Parts { segment: 0, part_len_bytes: 16 << 10 }));
        assert!(Layout::new(K16, &vec![1; 100_000]).is_ok());
        assert_eq!(Layout::new(K16, &vec![1; 100_001]), Err(LayoutError::Segments { got: 100_001 }));
    }
}
