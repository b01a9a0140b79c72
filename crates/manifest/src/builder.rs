//! From bytes to hashes: what a server does once with each content.

use crate::layout::MAX_SEGMENTS;
use crate::tree::{finish_subtree, segment_hash, subtree_hasher};
use crate::{Layout, LayoutError, PartId, PartLen, PartRange, SegmentHash};

/// A content that is cut and hashed: all that [`crate::Manifest::new`] needs to know of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    layout: Layout,
    part_ids: Vec<PartId>,
    segment_hashes: Vec<SegmentHash>,
}

/// Why a content cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// It is beyond the limits.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Not one id for each part.
    #[error("{got} part ids for a content of {expected} parts")]
    Count {
        /// How many parts the content has.
        expected: u32,
        /// How many ids were given.
        got: usize,
    },
}

impl Prepared {
    /// For a driver that hashed the parts itself, in any order and on any number of threads, with [`crate::part_id`].
    ///
    /// # Errors
    /// When the ids are not as many as the layout has parts.
    pub fn from_part_ids(layout: Layout, part_ids: Vec<PartId>) -> Result<Self, PrepareError> {
        if u32::try_from(part_ids.len()) != Ok(layout.part_count()) {
            return Err(PrepareError::Count { expected: layout.part_count(), got: part_ids.len() });
        }
        let ids = |parts: PartRange| part_ids.get(parts.first().as_index()..parts.end().as_index());
        let hash = |span: crate::SegmentSpan| segment_hash(span.parts().and_then(ids).unwrap_or_default());
        let segment_hashes = layout.segments().map(hash).collect();
        Ok(Self { layout, part_ids, segment_hashes })
    }

    /// How the content is cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The ids of all parts.
    pub fn part_ids(&self) -> &[PartId] {
        &self.part_ids
    }

    /// The hashes of all segments; the only one's is a static content's id.
    pub fn segment_hashes(&self) -> &[SegmentHash] {
        &self.segment_hashes
    }
}

/// Prepares a content from its bytes as they come, in one pass and in constant memory but for the ids.
///
/// ```
/// use hybrid_manifest::{Builder, PartLen};
///
/// let mut builder = Builder::new(PartLen::MIN);
/// for bytes in [b"hello ", b"world!"] {
///     builder.write(bytes)?;
/// }
/// let prepared = builder.finish()?;
/// assert_eq!(prepared.segment_hashes()[0].as_bytes(), blake3::hash(b"hello world!").as_bytes());
/// # Ok::<(), hybrid_manifest::PrepareError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    part_len: PartLen,
    part_ids: Vec<PartId>,
    segment_lens: Vec<u64>,
    segment: Option<OpenSegment>,
}

#[derive(Clone, Debug)]
struct OpenSegment {
    len: u64,
    /// How many of its parts are closed.
    closed_parts: u64,
    /// The part being written. When it is full it stays open until more bytes come: only then is it known not to be the
    /// whole segment, whose hash is finished in another way.
    hasher: blake3::Hasher,
}

impl Builder {
    /// Nothing yet, to be cut into parts of this length.
    pub fn new(part_len: PartLen) -> Self {
        Self { part_len, part_ids: Vec::new(), segment_lens: Vec::new(), segment: None }
    }

    /// Appends bytes to the current segment.
    ///
    /// # Errors
    /// When the content grows beyond the limits; the builder is of no use then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PrepareError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let part_len = self.part_len.as_u64();
        let segment = self.segment.get_or_insert_with(OpenSegment::new);
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = part_len - segment.hasher.count();
            if room == 0 {
                self.part_ids.push(finish_subtree(&segment.hasher, false));
                segment.closed_parts += 1;
                segment.hasher = subtree_hasher(segment.closed_parts * part_len);
                if self.part_ids.len() >= crate::MAX_PARTS as usize {
                    let segment = u32::try_from(self.segment_lens.len()).unwrap_or(u32::MAX);
                    return Err(LayoutError::Parts { segment, part_len_bytes: self.part_len.as_u32() }.into());
                }
                continue;
            }
            let (now, later) = bytes.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len()));
            segment.hasher.update(now);
            segment.len += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Ends the current segment; what is written next begins another.
    ///
    /// A segment into which nothing was written is empty.
    ///
    /// # Errors
    /// When there are too many segments.
    pub fn end_segment(&mut self) -> Result<(), PrepareError> {
        if self.segment_lens.len() >= MAX_SEGMENTS as usize {
            return Err(LayoutError::Segments { got: self.segment_lens.len() + 1 }.into());
        }
        let segment = self.segment.take().unwrap_or_else(OpenSegment::new);
        if segment.hasher.count() > 0 {
            self.part_ids.push(finish_subtree(&segment.hasher, segment.closed_parts == 0));
        }
        self.segment_lens.push(segment.len);
        Ok(())
    }

    /// The content's cut and hashes. If no segment was ended, or something was written since, that is the last segment.
    ///
    /// # Errors
    /// When the content is beyond the limits.
    pub fn finish(mut self) -> Result<Prepared, PrepareError> {
        if self.segment.is_some() || self.segment_lens.is_empty() {
            self.end_segment()?;
        }
        Prepared::from_part_ids(Layout::new(self.part_len, &self.segment_lens)?, self.part_ids)
    }
}

impl OpenSegment {
    fn new() -> Self {
        Self { len: 0, closed_parts: 0, hasher: subtree_hasher(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_PARTS;

    fn lens(calls: &[Option<usize>]) -> Vec<u64> {
        let mut builder = Builder::new(PartLen::MIN);
        for call in calls {
            match call {
                Some(len) => builder.write(&vec![1; *len]).unwrap(),
                None => builder.end_segment().unwrap(),
            }
        }
        builder.finish().unwrap().layout().segments().map(|span| span.len()).collect()
    }

    #[test]
    fn where_segments_end() {
        for (calls, expected) in [
            (&[][..], &[0][..]),
            (&[Some(0)], &[0]),
            (&[Some(5)], &[5]),
            (&[None], &[0]),
            (&[Some(5), None], &[5]),
            (&[Some(5), None, Some(0)], &[5]),
            (&[Some(5), None, None], &[5, 0]),
            (&[Some(16_384), None, Some(16_385)], &[16_384, 16_385]),
        ] {
            assert_eq!(lens(calls), expected, "{calls:?}");
        }
    }

    #[test]
    fn limits() {
        let mut builder = Builder::new(PartLen::MIN);
        for _ in 0..MAX_SEGMENTS {
            builder.end_segment().unwrap();
        }
        assert_eq!(builder.end_segment(), Err(LayoutError::Segments { got: 100_001 }.into()));

        let mut builder = Builder::new(PartLen::MIN);
        builder.part_ids = vec![PartId::from_bytes([0; 32]); MAX_PARTS as usize - 1];
        builder.write(&[0; 16_384]).unwrap();
        let expected = LayoutError::Parts { segment: 0, part_len_bytes: 16_384 };
        assert_eq!(builder.write(&[0]), Err(expected.into()));
        let layout = Layout::new(PartLen::MIN, &[1]).unwrap();
        assert_eq!(Prepared::from_part_ids(layout, vec![]), Err(PrepareError::Count { expected: 1, got: 0 }));
    }
}
