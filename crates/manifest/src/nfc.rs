//! Whether a text is in Unicode's composed form, NFC (Unicode Standard Annex 15).
//!
//! It takes a text apart, puts the marks into canonical order, puts it together again, and sees whether that is the text.

use crate::nfc_tables::{CLASSES, COMPOSED, NEVER};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::LazyLock;

struct Tables {
    composed: BTreeMap<(char, char), char>,
    parts: BTreeMap<char, (char, char)>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let mut tables = Tables { composed: BTreeMap::new(), parts: BTreeMap::new() };
    for &(second, pairs) in COMPOSED {
        let mut pairs = pairs.chars();
        while let (Some(first), Some(composed)) = (pairs.next(), pairs.next()) {
            tables.composed.insert((first, second), composed);
            tables.parts.insert(composed, (first, second));
        }
    }
    tables
});

/// The first character that differs from the text's composed form; `None` if the text is composed.
pub(crate) fn first_not_composed(text: &str) -> Option<char> {
    // Below the first combining mark nothing composes or is composed differently: most names end here.
    if text.chars().all(|c| c < '\u{300}') {
        return None;
    }
    let never = |c: &char| NEVER.binary_search_by(|&(first, last)| place(first, last, *c)).is_ok();
    if let Some(c) = text.chars().find(never) {
        return Some(c);
    }
    let mut apart = Vec::new();
    text.chars().for_each(|c| take_apart(c, &mut apart));
    // Marks between two other characters go by their class; the sort keeps the order of equal ones.
    for marks in apart.chunk_by_mut(|&a, &b| class(a) != 0 && class(b) != 0) {
        marks.sort_by_key(|&c| class(c));
    }
    let composed = put_together(&apart);
    let mut pairs = text.chars().zip(composed.iter().copied());
    let differs = pairs.find(|(ours, composed)| ours != composed).map(|(ours, _)| ours);
    differs.or_else(|| text.chars().nth(composed.len()))
}

fn place(first: u32, last: u32, c: char) -> Ordering {
    let c = u32::from(c);
    if last < c {
        Ordering::Less
    } else if first > c {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

fn class(c: char) -> u8 {
    let found = CLASSES.binary_search_by(|&(first, last, _)| place(first, last, c)).ok();
    found.and_then(|index| CLASSES.get(index)).map_or(0, |&(_, _, class)| class)
}

// Hangul: 19 leading, 21 middle and 27 trailing letters (or none) make 11,172 syllables, in this order.
const SYLLABLE: u32 = 0xac00;
const LEADING: u32 = 0x1100;
const MIDDLE: u32 = 0x1161;
/// One before the first trailing letter, which stands for none.
const TRAILING: u32 = 0x11a7;
const MIDDLES: u32 = 21;
const TRAILINGS: u32 = 28;
const SYLLABLES: u32 = 19 * MIDDLES * TRAILINGS;

fn take_apart(c: char, out: &mut Vec<char>) {
    let syllable = u32::from(c).wrapping_sub(SYLLABLE);
    if syllable < SYLLABLES {
        let (leading, middle) = (syllable / (MIDDLES * TRAILINGS), syllable / TRAILINGS % MIDDLES);
        out.extend([LEADING + leading, MIDDLE + middle].into_iter().filter_map(char::from_u32));
        out.extend(Some(TRAILING + syllable % TRAILINGS).filter(|&t| t > TRAILING).and_then(char::from_u32));
    } else if let Some(&(first, second)) = TABLES.parts.get(&c) {
        // The table has no rings, and its longest chain is three; second characters are never composed themselves.
        take_apart(first, out);
        out.push(second);
    } else {
        out.push(c);
    }
}

fn compose(first: char, second: char) -> Option<char> {
    let (a, b) = (u32::from(first), u32::from(second));
    let (leading, middle) = (a.wrapping_sub(LEADING), b.wrapping_sub(MIDDLE));
    if leading < 19 && middle < MIDDLES {
        return char::from_u32(SYLLABLE + (leading * MIDDLES + middle) * TRAILINGS);
    }
    let (syllable, trailing) = (a.wrapping_sub(SYLLABLE), b.wrapping_sub(TRAILING));
    if syllable < SYLLABLES && syllable.is_multiple_of(TRAILINGS) && (1..TRAILINGS).contains(&trailing) {
        return char::from_u32(a + trailing);
    }
    TABLES.composed.get(&(first, second)).copied()
}

fn put_together(apart: &[char]) -> Vec<char> {
    let mut out: Vec<char> = Vec::with_capacity(apart.len());
    let mut starter: Option<usize> = None;
    for &c in apart {
        let class_of_c = class(c);
        // A mark reaches its starter past marks of lower classes; a starter only if nothing stands between.
        let reaches = |at: usize| match out.get(at + 1..) {
            None | Some([]) => true,
            Some([.., last]) => class(*last) != 0 && class(*last) < class_of_c,
        };
        let merged = starter.filter(|&at| reaches(at)).and_then(|at| Some((at, compose(*out.get(at)?, c)?)));
        if let Some((at, composed)) = merged {
            if let Some(slot) = out.get_mut(at) {
                *slot = composed;
            }
            continue;
        }
        if class_of_c == 0 {
            starter = Some(out.len());
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_not() {
        for (text, expected) in [
            ("", None),
            ("Ünïcödé", None),
            ("e\u{301}", Some('e')),
            ("xe\u{301}", Some('e')),
            // Marks that do not compose with what they stand on are composed text.
            ("x\u{301}", None),
            ("\u{1eb9}\u{301}", None),
            // Two marks: composed only in canonical order.
            ("\u{1ec7}", None),
            ("\u{ea}\u{323}", Some('\u{ea}')),
            ("x\u{323}\u{301}", None),
            ("x\u{301}\u{323}", Some('\u{301}')),
            // Characters that stand for others.
            ("\u{212b}", Some('\u{212b}')),
            ("\u{f900}", Some('\u{f900}')),
            // Hangul, kana, Bengali.
            ("한국어", None),
            ("\u{1112}\u{1161}\u{11ab}", Some('\u{1112}')),
            ("\u{d558}\u{11ab}", Some('\u{d558}')),
            ("が", None),
            ("か\u{3099}", Some('か')),
            ("বাংলা", None),
            ("\u{9c7}\u{9be}", Some('\u{9c7}')),
        ] {
            assert_eq!(first_not_composed(text), expected, "{}", text.escape_unicode());
        }
    }
}
