//! How long the parts of a content should be.

use crate::PartLen;
use hybrid_units::BytesPerSecond;
use std::fmt;

/// What a content is like over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a new kind needs a decision wherever kinds differ")]
pub enum Kind {
    /// A file: one segment, all there from the beginning.
    Static,
    /// Recorded media in segments.
    Streaming,
    /// Media in segments that is still being made.
    Live,
}

impl Kind {
    /// The kind's name in JSON, logs and metrics: `static`, `streaming` or `live`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Streaming => "streaming",
            Self::Live => "live",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Files are cut into about this many parts at most, while the part length allows it.
///
/// The last part costs a swarm about log2(peers) / parts of the whole time, so many parts are good; beyond a thousand the
/// gain is lost in requests and in tables.
const STATIC_PARTS_TARGET: u64 = 1_024;

const STATIC_MIN: u32 = 32 << 10;
const STATIC_MAX: u32 = 1 << 20;
const MEDIA_SHORT: u32 = 128 << 10;
const MEDIA_LONG: u32 = 256 << 10;

/// The part length for a content of `total_len` bytes, whose media (if it is media) runs at `media_rate`.
///
/// - Static: the smallest of 32, 64, 128, 256, 512 KiB and 1 MiB that gives at most 1,024 parts.
///   Beyond 1 GiB it stays at 1 MiB until [`crate::MAX_PARTS`] forces more; then powers of two up to 16 MiB.
/// - Streaming and live: 128 or 256 KiB, whichever is nearer (in ratio) to one second of media; 256 KiB if the rate is
///   unknown, for fewer requests.
///   `total_len` does not matter.
///
/// It never fails: what is too long at 16 MiB a part, [`crate::Layout::new`] refuses.
pub fn part_len(kind: Kind, total_len: u64, media_rate: Option<BytesPerSecond>) -> PartLen {
    let bytes = match kind {
        Kind::Static => static_part_len(STATIC_MIN, STATIC_MAX, total_len),
        Kind::Streaming | Kind::Live => media_part_len(media_rate),
    };
    PartLen::new(bytes).unwrap_or(PartLen::MAX)
}

/// The part length for a file of `total_len` bytes, between two lengths: the smallest that gives at most 1,024 parts.
///
/// It goes beyond `longest` only where [`crate::MAX_PARTS`] forces it to.
pub fn part_len_between(shortest: PartLen, longest: PartLen, total_len: u64) -> PartLen {
    PartLen::new(static_part_len(shortest.as_u32(), longest.as_u32(), total_len)).unwrap_or(PartLen::MAX)
}

fn static_part_len(shortest: u32, longest: u32, total_len: u64) -> u32 {
    let fits = |bytes: u32, parts: u64| total_len.div_ceil(u64::from(bytes)) <= parts;
    let mut bytes = shortest;
    while bytes < longest && !fits(bytes, STATIC_PARTS_TARGET) {
        bytes *= 2;
    }
    while bytes < PartLen::MAX.as_u32() && !fits(bytes, u64::from(crate::MAX_PARTS)) {
        bytes *= 2;
    }
    bytes
}

fn media_part_len(rate: Option<BytesPerSecond>) -> u32 {
    // The nearer in ratio: on which side of the geometric mean the rate is.
    let is_slow =
        |rate: BytesPerSecond| u128::from(rate.as_u64()).pow(2) < u128::from(MEDIA_SHORT) * u128::from(MEDIA_LONG);
    if rate.is_some_and(is_slow) { MEDIA_SHORT } else { MEDIA_LONG }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        const K: u64 = 1 << 10;
        const G: u64 = 1 << 30;
        for (total, kib) in [
            (0, 32),
            (1, 32),
            (32 * K * 1_024, 32),
            (32 * K * 1_024 + 1, 64),
            (64 * K * 1_024, 64),
            (64 * K * 1_024 + 1, 128),
            (150_000_000, 256),
            (512 * K * 1_024, 512),
            (512 * K * 1_024 + 1, 1_024),
            (G, 1_024),
            (G + 1, 1_024),
            (1_024 * G, 1_024),
            (1_024 * G + 1, 2_048),
            (1 << 44, 16_384),
            (u64::MAX, 16_384),
        ] {
            assert_eq!(part_len(Kind::Static, total, None).as_u32(), kib * 1_024, "{total} bytes");
        }
    }

    #[test]
    fn between_two_lengths() {
        let len = |bytes| PartLen::new(bytes).expect("an allowed length");
        for (shortest, longest, total, kib) in
            [(64, 64, 1 << 30, 64), (64, 256, 1 << 30, 256), (128, 1_024, 1, 128), (64, 64, 1 << 44, 16_384)]
        {
            let found = part_len_between(len(shortest << 10), len(longest << 10), total);
            assert_eq!(found.as_u32(), kib << 10, "{shortest} to {longest} KiB, {total} bytes");
        }
    }

    #[test]
    fn media() {
        for (rate, kib) in [
            (None, 256),
            (Some("500k"), 128),
            (Some("1M"), 128),
            (Some("1.4M"), 128),
            (Some("1.5M"), 256),
            (Some("2M"), 256),
            (Some("20M"), 256),
        ] {
            let parsed = rate.map(|rate| rate.parse().expect("a rate"));
            for kind in [Kind::Streaming, Kind::Live] {
                assert_eq!(part_len(kind, 1 << 40, parsed).as_u32(), kib << 10, "{rate:?}");
            }
        }
    }
}
