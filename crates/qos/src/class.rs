//! Classes of contents: what a page needs is not what a film needs.

use crate::Config;
use hybrid_units::{BytesPerSecond, Duration};

/// How long a class's parts should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a configuration must handle every kind")]
pub enum PartPolicy {
    /// The same for all: a power of two.
    Fixed {
        /// Bytes.
        bytes: u32,
    },
    /// As many as the length asks for, between two powers of two.
    BySize {
        /// Bytes of the shortest.
        min_bytes: u32,
        /// Bytes of the longest.
        max_bytes: u32,
    },
}

/// One class: its thresholds, and how its contents are cut.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Class {
    /// What it is called in the configuration, logs and metrics.
    pub name: String,
    /// Required rate, targets and thresholds.
    pub thresholds: Config,
    /// How its contents are cut.
    pub parts: PartPolicy,
}

impl Class {
    /// A class with the thresholds of [`Config::default`] and parts by size, to be changed by configuration.
    pub fn new(name: impl Into<String>) -> Self {
        let parts = PartPolicy::BySize { min_bytes: 32 << 10, max_bytes: 1 << 20 };
        Self { name: name.into(), thresholds: Config::default(), parts }
    }

    fn with(name: &str, bits_per_second: u64, start_up: Duration, stalls_per_minute: f64, parts: PartPolicy) -> Self {
        let required_rate = BytesPerSecond::from_bits_per_second(bits_per_second);
        let thresholds = Config { required_rate, start_up, stalls_per_minute, ..Config::default() };
        Self { name: name.to_owned(), thresholds, parts }
    }

    /// `page`, `file`, `vod` and `live`.
    ///
    /// A page is small and waited for: 4 Mbit/s and half a second.
    /// A file is the default of [`Config`].
    /// A film plays at 5 Mbit/s in full HD, so it needs 8 with its peaks, and pauses less than once in five minutes.
    /// A live stream has the same rate and no buffer to speak of: it starts within a second, and its parts are short.
    pub fn defaults() -> [Self; 4] {
        let short = PartPolicy::Fixed { bytes: 256 << 10 };
        let mut file = Self::new("file");
        file.thresholds = Config::default();
        [
            Self::with("page", 4_000_000, Duration::from_millis(500), 1.0, PartPolicy::Fixed { bytes: 64 << 10 }),
            file,
            Self::with("vod", 8_000_000, Duration::from_secs(2), 0.2, short),
            Self::with("live", 8_000_000, Duration::from_secs(1), 0.2, PartPolicy::Fixed { bytes: 128 << 10 }),
        ]
    }
}

/// What a rule looks at; all that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// `video/mp4`, or `video/*` for all of a type.
    pub media_type: Option<String>,
    /// A pattern for the whole path: `*` is any text without `/`, `**` any text, `?` one character that is no `/`.
    pub path: Option<String>,
    /// The class's name.
    pub class: String,
}

impl Rule {
    /// Contents of a media type, `video/mp4` or `video/*`.
    pub fn media_type(media_type: impl Into<String>, class: impl Into<String>) -> Self {
        Self { media_type: Some(media_type.into()), path: None, class: class.into() }
    }

    /// Contents whose path fits a pattern.
    pub fn path(path: impl Into<String>, class: impl Into<String>) -> Self {
        Self { media_type: None, path: Some(path.into()), class: class.into() }
    }

    fn fits(&self, media_type: &str, path: &str) -> bool {
        self.media_type.as_deref().is_none_or(|wanted| media_type_fits(wanted, media_type))
            && self.path.as_deref().is_none_or(|pattern| path_fits(pattern, path))
    }
}

/// Media types compare without case and without parameters (RFC 9110, 8.3.1).
fn media_type_fits(wanted: &str, got: &str) -> bool {
    let got = got.split(';').next().unwrap_or_default().trim();
    match wanted.strip_suffix("/*") {
        Some(kind) => got.split('/').next().is_some_and(|got| got.eq_ignore_ascii_case(kind)),
        None => got.eq_ignore_ascii_case(wanted),
    }
}

/// Compares without recursion: each star remembers where it may be tried again, so the time is the product of the lengths.
fn path_fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.as_bytes(), path.as_bytes());
    // Reached positions of the path, for one position of the pattern after the other.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some((first, after)) = rest.split_first() {
        let deep = *first == b'*' && after.first() == Some(&b'*');
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            let byte = at.checked_sub(1).and_then(|before| path.get(before)).copied();
            next[at] = match (*first, byte) {
                (b'*', None) => reached[at],
                (b'*', Some(byte)) => reached[at] || next[at - 1] && (deep || byte != b'/'),
                (_, None) => false,
                (b'?', Some(byte)) => reached[at - 1] && byte != b'/',
                (wanted, Some(byte)) => reached[at - 1] && wanted == byte,
            };
        }
        reached = next;
        rest = if deep { &after[1..] } else { after };
    }
    reached[path.len()]
}

/// Why classes cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassError {
    /// Two classes of one name.
    #[error("there are two classes '{0}'")]
    Twice(String),
    /// A rule for a class that is not there.
    #[error("a rule names the class '{got}'; there are {known}")]
    Unknown {
        /// What the rule says.
        got: String,
        /// The names that there are.
        known: String,
    },
    /// A class whose thresholds contradict themselves.
    #[error("class '{class}': {error}")]
    Thresholds {
        /// Its name.
        class: String,
        /// What is wrong.
        error: crate::ConfigError,
    },
    /// A part length that is none.
    #[error(
        "class '{class}': part lengths must be powers of two from 16 KiB to 16 MiB, and the least not above the most"
    )]
    Parts {
        /// Its name.
        class: String,
    },
    /// No class at all.
    #[error("there must be a class")]
    None,
}

/// Classes, and the rules that choose among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    classes: Vec<Class>,
    rules: Vec<Rule>,
    fallback: usize,
}

impl Rule {
    /// By media type, for the classes of [`Class::defaults`]; what fits none is a `file`.
    pub fn defaults() -> Vec<Self> {
        let by_type = [
            ("application/vnd.apple.mpegurl", "live"),
            ("application/dash+xml", "live"),
            ("video/*", "vod"),
            ("audio/*", "vod"),
            ("text/*", "page"),
            ("image/*", "page"),
            ("font/*", "page"),
            ("application/javascript", "page"),
            ("application/json", "page"),
            ("application/wasm", "page"),
        ];
        by_type.map(|(media_type, class)| Self::media_type(media_type, class)).to_vec()
    }
}

impl Default for Classes {
    /// The four of [`Class::defaults`]; `file` where no rule fits.
    fn default() -> Self {
        Self { classes: Class::defaults().to_vec(), rules: Rule::defaults(), fallback: 1 }
    }
}

impl Classes {
    /// Classes with rules, of which the first that fits decides; `fallback` is for contents that fit none.
    ///
    /// # Errors
    /// When a name is there twice or not at all, or a class contradicts itself.
    pub fn new(classes: Vec<Class>, rules: Vec<Rule>, fallback: &str) -> Result<Self, ClassError> {
        if classes.is_empty() {
            return Err(ClassError::None);
        }
        let power = |bytes: u32| bytes.is_power_of_two() && (16 << 10..=16 << 20).contains(&bytes);
        for (index, class) in classes.iter().enumerate() {
            let name = || class.name.clone();
            if classes.iter().take(index).any(|other| other.name == class.name) {
                return Err(ClassError::Twice(name()));
            }
            class.thresholds.check().map_err(|error| ClassError::Thresholds { class: name(), error })?;
            let sound = match class.parts {
                PartPolicy::Fixed { bytes } => power(bytes),
                PartPolicy::BySize { min_bytes, max_bytes } => {
                    power(min_bytes) && power(max_bytes) && min_bytes <= max_bytes
                }
            };
            if !sound {
                return Err(ClassError::Parts { class: name() });
            }
        }
        let place = |name: &str| {
            classes.iter().position(|class| class.name == name).ok_or_else(|| {
                let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
                ClassError::Unknown { got: name.to_owned(), known: known.join(", ") }
            })
        };
        for rule in &rules {
            place(&rule.class)?;
        }
        let fallback = place(fallback)?;
        Ok(Self { classes, rules, fallback })
    }

    /// All classes, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter()
    }

    /// The class of a content: that of the first rule that fits, else the fallback.
    pub fn choose(&self, media_type: &str, path: &str) -> &Class {
        let rule = self.rules.iter().find(|rule| rule.fits(media_type, path));
        let chosen = rule.and_then(|rule| self.classes.iter().find(|class| class.name == rule.class));
        chosen.unwrap_or(&self.classes[self.fallback])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_media_type() {
        let classes = Classes::default();
        for (media_type, expected) in [
            ("text/html; charset=utf-8", "page"),
            ("Image/PNG", "page"),
            ("video/mp4", "vod"),
            ("application/vnd.apple.mpegurl", "live"),
            ("application/zip", "file"),
            ("videos/mp4", "file"),
            ("", "file"),
        ] {
            assert_eq!(classes.choose(media_type, "/x").name, expected, "{media_type}");
        }
        assert_eq!(
            Classes::new(Class::defaults().to_vec(), Vec::new(), "file").map(|classes| classes.iter().count()),
            Ok(4)
        );
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("", "", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/*.mp4", "/film.mp4", true),
            ("/*.mp4", "/films/film.mp4", false),
            ("/**.mp4", "/films/film.mp4", true),
            ("/live/**", "/live/a/b", true),
            ("/live/**", "/live/", true),
            ("/live/**", "/live", false),
            ("/?.ts", "/1.ts", true),
            ("/?.ts", "//.ts", false),
            ("/a*b*c", "/axxbyybzzc", true),
            ("/a*b*c", "/axxbyybzz", false),
            ("***", "/a/b", true),
            ("*", "", true),
        ] {
            assert_eq!(path_fits(pattern, path), expected, "{pattern} {path}");
        }
        let slow = path_fits(&"*a".repeat(100), &"a".repeat(5_000));
        assert!(slow, "a hostile pattern ends too");
    }

    #[test]
    fn new_classes_by_configuration_alone() {
        let mut game = Class::new("game");
        game.parts = PartPolicy::Fixed { bytes: 1 << 20 };
        let mut rule = Rule::path("/games/**", "game");
        rule.media_type = Some("application/octet-stream".to_owned());
        let classes = Class::defaults().into_iter().chain([game.clone()]).collect::<Vec<_>>();
        let chosen = Classes::new(classes.clone(), vec![rule, Rule::path("/**.m4s", "live")], "page").unwrap();
        assert_eq!(chosen.choose("application/octet-stream", "/games/a/b").name, "game");
        assert_eq!(chosen.choose("text/plain", "/games/a/b").name, "page");
        assert_eq!(chosen.choose("video/mp4", "/x/1.m4s").name, "live");

        let error = |classes, rules, fallback| Classes::new(classes, rules, fallback).unwrap_err().to_string();
        assert_eq!(
            error(classes.clone(), vec![Rule::path("/", "films")], "page"),
            "a rule names the class 'films'; there are page, file, vod, live, game"
        );
        assert_eq!(error(vec![game.clone(), game.clone()], vec![], "game"), "there are two classes 'game'");
        assert_eq!(error(vec![], vec![], "game"), "there must be a class");
        game.parts = PartPolicy::BySize { min_bytes: 1 << 20, max_bytes: 64 << 10 };
        assert!(error(vec![game.clone()], vec![], "game").contains("powers of two"));
        game.thresholds.holders_min = 0;
        assert!(error(vec![game], vec![], "game").starts_with("class 'game': holders_min"));
    }
}
