//! The `Range` header (RFC 9110 section 14).

use std::ops::Range;

/// What a `Range` header asks of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RangeVerdict {
    /// The whole: there is no header, or one that says nothing we know.
    Whole,
    /// These bytes; never none, never beyond the end.
    Bytes(Range<u64>),
    /// Nothing that the content has.
    Unsatisfiable,
    /// More than one range. We refuse, as section 14.2 allows: many small ranges cost far more than they bring.
    Many,
}

/// Reads the value of a `Range` header for a content of `length_bytes`.
pub(super) fn read_range(value: &str, length_bytes: u64) -> RangeVerdict {
    let Some((unit, set)) = value.split_once('=') else { return RangeVerdict::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return RangeVerdict::Whole;
    }
    let mut specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let (Some(spec), more) = (specs.next(), specs.next()) else { return RangeVerdict::Whole };
    if more.is_some() {
        return RangeVerdict::Many;
    }
    let Some((first, last)) = spec.split_once('-') else { return RangeVerdict::Whole };
    match (position(first), position(last)) {
        (Position::None, Position::At(count)) => {
            let start = length_bytes.saturating_sub(count);
            satisfiable(start..length_bytes)
        }
        (Position::At(first), Position::None) => satisfiable(first..length_bytes),
        (Position::At(first), Position::At(last)) if first <= last => {
            satisfiable(first..last.saturating_add(1).min(length_bytes))
        }
        // A range that ends before it starts, or is no range at all, is as if it were not there (section 14.1.1).
        _ => RangeVerdict::Whole,
    }
}

fn satisfiable(range: Range<u64>) -> RangeVerdict {
    if range.is_empty() { RangeVerdict::Unsatisfiable } else { RangeVerdict::Bytes(range) }
}

enum Position {
    None,
    At(u64),
    Invalid,
}

fn position(digits: &str) -> Position {
    if digits.is_empty() {
        return Position::None;
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Position::Invalid;
    }
    // Only a number beyond 2^64 fails here: it is beyond the end of everything.
    Position::At(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RangeVerdict::{Bytes, Many, Unsatisfiable, Whole};

    #[test]
    fn what_headers_ask_for() {
        for (value, length, expected) in [
            ("bytes=0-0", 10, Bytes(0..1)),
            ("bytes=2-5", 10, Bytes(2..6)),
            ("bytes=2-", 10, Bytes(2..10)),
            ("bytes=-3", 10, Bytes(7..10)),
            ("bytes=-30", 10, Bytes(0..10)),
            ("bytes=5-99", 10, Bytes(5..10)),
            ("BYTES = 1-2", 10, Bytes(1..3)),
            ("bytes=,1-2,", 10, Bytes(1..3)),
            ("bytes=1-99999999999999999999", 10, Bytes(1..10)),
            ("bytes=18446744073709551615-18446744073709551615", u64::MAX, Unsatisfiable),
            ("bytes=0-18446744073709551615", u64::MAX, Bytes(0..u64::MAX)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-12", 10, Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Unsatisfiable),
            ("bytes=0-1,4-5", 10, Many),
            ("bytes=0-1,junk", 10, Many),
            ("bytes=5-2", 10, Whole),
            ("bytes=abc", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=", 10, Whole),
            ("items=0-1", 10, Whole),
            ("0-1", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(read_range(value, length), expected, "{value} of {length}");
        }
    }
}
