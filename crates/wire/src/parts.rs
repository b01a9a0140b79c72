//! Sets of parts as they travel: ordered runs.

use hybrid_manifest::{MAX_PARTS, PartNumber, PartRange};

/// A set of parts as runs in ascending order that neither overlap nor touch, so that each set has one encoding.
///
/// On the wire each run is a pair of the gap since the end of the run before (at least 1 but for the first) and its count.
/// At most [`PartRanges::MAX_RUNS`] runs travel in one message; a set with more goes in several (`docs/spec/wire.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartRanges(Vec<PartRange>);

/// Why runs make no [`PartRanges`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartRangesError {
    /// More runs than fit a message.
    #[error("{0} runs of parts, at most {max} travel in one message", max = PartRanges::MAX_RUNS)]
    TooMany(usize),
    /// A run is empty or goes beyond the largest content.
    #[error("a run of {count} parts from {first} is empty or goes beyond {MAX_PARTS} parts")]
    Bounds {
        /// Where the run would start.
        first: u64,
        /// How many parts it would have.
        count: u32,
    },
    /// Runs that overlap, touch or go back.
    #[error("the run from part {first} does not come after a gap behind the run before")]
    Order {
        /// Where the offending run starts.
        first: u32,
    },
}

impl PartRanges {
    /// At 2 to 6 bytes a run, so many runs fit a control frame of 64 KiB with room to spare.
    pub const MAX_RUNS: usize = 8_192;

    /// No parts.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The set of these runs, which must be in order, apart, and at most [`Self::MAX_RUNS`].
    ///
    /// # Errors
    /// When they are not.
    pub fn new(runs: Vec<PartRange>) -> Result<Self, PartRangesError> {
        if runs.len() > Self::MAX_RUNS {
            return Err(PartRangesError::TooMany(runs.len()));
        }
        match runs.windows(2).find(|pair| pair[1].first() <= pair[0].end()) {
            Some(pair) => Err(PartRangesError::Order { first: pair[1].first().as_u32() }),
            None => Ok(Self(runs)),
        }
    }

    /// The set of these parts, which must ascend; only the first [`Self::MAX_RUNS`] runs are taken.
    ///
    /// Numbers from [`MAX_PARTS`] on and numbers that do not ascend are left out.
    pub fn from_ascending(parts: impl IntoIterator<Item = PartNumber>) -> Self {
        let mut runs: Vec<PartRange> = Vec::new();
        for number in parts {
            let full = runs.len() == Self::MAX_RUNS;
            match runs.last_mut() {
                Some(last) if number < last.end() => {}
                Some(last) if number == last.end() => {
                    if let Some(longer) = PartRange::new(last.first(), last.count() + 1) {
                        *last = longer;
                    }
                }
                _ if full => break,
                _ => runs.extend(PartRange::one(number)),
            }
        }
        Self(runs)
    }

    /// One part, or none where there is no such number.
    pub fn one(number: PartNumber) -> Self {
        Self::from_ascending([number])
    }

    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many parts.
    pub fn part_count(&self) -> u32 {
        self.0.iter().map(|run| run.count()).sum()
    }

    /// The number just after the last part; 0 for no parts.
    pub fn end(&self) -> PartNumber {
        self.0.last().map_or(PartNumber::new(0), |run| run.end())
    }

    /// The runs in order.
    pub fn runs(&self) -> &[PartRange] {
        &self.0
    }

    /// The parts in order.
    pub fn iter(&self) -> impl Iterator<Item = PartNumber> + '_ {
        self.0.iter().flat_map(|run| run.iter())
    }
}
