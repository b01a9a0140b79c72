//! Words that the sources of pure crates do not contain.

/// A word and why it is banned.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    ("std::thread", "a pure crate has no threads"),
    ("HashMap", "its iteration order breaks replay; use BTreeMap or a Vec"),
    ("HashSet", "its iteration order breaks replay; use BTreeSet or a Vec"),
];

/// Lines of one source file with a banned word, as `line: word: why`.
///
/// Comments may say the words, and so may the tests, which stand at the bottom of a file.
pub(crate) fn offences(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let is_test_module = |pair: &[&str]| {
        let [attribute, item] = pair else { return false };
        attribute.trim() == "#[cfg(test)]" && item.trim_start().starts_with("mod ")
    };
    let end = lines.windows(2).position(is_test_module).unwrap_or(lines.len());
    let mut offences = Vec::new();
    for (number, line) in (1..).zip(&lines[..end]) {
        let code = line.split("//").next().unwrap_or(line);
        for (word, why) in BANNED {
            if code.contains(word) {
                offences.push(format!("{number}: {word}: {why}"));
            }
        }
    }
    offences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_read_comments_and_tests_are_not() {
        for (source, expected) in [
            ("fn a() {}\n", &[][..]),
            ("\nlet now = std::time::Instant::now();", &["2: Instant::now: time is an argument"]),
            ("use std::thread;", &["1: std::thread: a pure crate has no threads"]),
            ("// no HashMap here\n/// nor HashMap there", &[]),
            ("#[cfg(test)]\nmod tests { use std::thread; }", &[]),
            ("#[cfg(test)]\nfn bytes() {}\nstd::thread::spawn", &["3: std::thread: a pure crate has no threads"]),
            (
                "a: HashMap<u8, SystemTime> // why",
                &["1: HashMap: its iteration order breaks replay; use BTreeMap or a Vec"],
            ),
        ] {
            assert_eq!(offences(source), expected, "{source}");
        }
    }
}
