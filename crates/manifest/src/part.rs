//! Part numbers, runs of parts and part lengths.

use std::fmt;

/// The most parts that a content may have, 2^20: at the largest part length, 16 TiB.
///
/// It bounds every table that is indexed by part: a set of parts takes at most 128 KiB, the part ids 32 MiB.
pub const MAX_PARTS: u32 = 1 << 20;

/// The position of a part in its content, from 0.
///
/// A number alone does not say that the content has such a part; [`crate::Layout::part`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u32);

impl PartNumber {
    /// The part at this position.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The position.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The position, to index a table by part.
    pub const fn as_index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of consecutive parts; it holds at least one part and ends at [`MAX_PARTS`] or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartRange {
    first: u32,
    count: u32,
}

impl PartRange {
    /// `count` parts from `first` on; `None` if that is no part at all or goes beyond [`MAX_PARTS`].
    pub fn new(first: PartNumber, count: u32) -> Option<Self> {
        let end = first.0.checked_add(count)?;
        (count > 0 && end <= MAX_PARTS).then_some(Self { first: first.0, count })
    }

    /// One part; `None` beyond [`MAX_PARTS`].
    pub fn one(number: PartNumber) -> Option<Self> {
        Self::new(number, 1)
    }

    /// The first part.
    pub const fn first(self) -> PartNumber {
        PartNumber(self.first)
    }

    /// How many parts.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The number just after the last part.
    pub const fn end(self) -> PartNumber {
        PartNumber(self.first + self.count)
    }

    /// Whether the part is in the run.
    pub fn contains(self, number: PartNumber) -> bool {
        (self.first..self.first + self.count).contains(&number.0)
    }

    /// The parts in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PartNumber> + ExactSizeIterator + Clone {
        (self.first..self.first + self.count).map(PartNumber)
    }
}

/// How long the parts of a content are: a power of two from 16 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartLen(u32);

impl PartLen {
    /// 16 KiB, BLAKE3's usual group in which transports verify.
    pub const MIN: Self = Self(16 << 10);
    /// 16 MiB.
    pub const MAX: Self = Self(16 << 20);

    /// A part length of this many bytes; `None` unless it is a power of two from 16 KiB to 16 MiB.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 { Some(Self(bytes)) } else { None }
    }

    /// The length in bytes.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The length in bytes, for offsets.
    pub const fn as_u64(self) -> u64 {
        self.0 as u64
    }
}
