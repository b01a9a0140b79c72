//! The settings file: TOML in which an unknown key is an error, and each error names its line.

use crate::args::{Direct, Egress, listen_address};
use crate::connections::Connections;
use crate::failure::Failure;
use crate::networks::Networks;
use hybrid_origin::Prefix;
use hybrid_units::{ByteCount, BytesPerSecond, parse_duration};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A settings file has some kilobytes; more is not one.
const MAX_BYTES: u64 = 1 << 20;

/// What the parser calls things, and what those who write settings do.
const RUST_WORDS: &[(&str, &str)] = &[
    ("expected a sequence", "expected a list in brackets"),
    ("expected a map", "expected a table"),
    ("expected path string", "expected a path in quotes"),
    ("expected a string", "expected text in quotes"),
    ("expected f64", "expected a number"),
    ("expected a nonzero u32", "expected a whole number from 1 to 4294967295"),
];

/// What a file may say. The first test below has every key.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) folder: Option<PathBuf>,
    pub(crate) listen: Vec<Parsed<Listen>>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) direct_clients: Option<DirectValue>,
    pub(crate) egress_limit: Option<Parsed<BytesPerSecond>>,
    pub(crate) egress_policy: Option<Parsed<Egress>>,
    pub(crate) allow_peers: Vec<Parsed<Prefix>>,
    pub(crate) cache: Option<Parsed<ByteCount>>,
    pub(crate) tls: Option<Tls>,
    pub(crate) connections: Connections,
    pub(crate) networks: Networks,
    pub(crate) thresholds: Thresholds,
    pub(crate) classes: BTreeMap<String, Class>,
    pub(crate) rules: Vec<Rule>,
}

/// What a class of contents has of its own; the rest is as it is without classes.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [classes.films]")]
pub(crate) struct Class {
    pub(crate) direct_clients: Option<DirectValue>,
    pub(crate) egress_policy: Option<Parsed<Egress>>,
    pub(crate) required_rate: Option<Parsed<BytesPerSecond>>,
    pub(crate) start_up: Option<Parsed<Time>>,
    pub(crate) pauses_per_minute: Option<f64>,
    pub(crate) control_share: Option<f64>,
    pub(crate) part_length: Option<Parsed<ByteCount>>,
}

/// Which contents are of a class: all that is given must fit.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table that begins with [[rules]]")]
pub(crate) struct Rule {
    pub(crate) media_type: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) class: String,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table that begins with [tls]")]
pub(crate) struct Tls {
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) self_signed: bool,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table that begins with [thresholds]")]
pub(crate) struct Thresholds {
    pub(crate) egress: Option<Marks>,
    pub(crate) cpu: Option<Marks>,
    pub(crate) enter_after: Option<Parsed<Time>>,
    pub(crate) leave_after: Option<Parsed<Time>>,
    pub(crate) dwell: Option<Parsed<Time>>,
    pub(crate) required_rate: Option<Parsed<BytesPerSecond>>,
    pub(crate) start_up: Option<Parsed<Time>>,
    pub(crate) pauses_per_minute: Option<f64>,
    pub(crate) control_share: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ low = NUMBER, high = NUMBER }")]
pub(crate) struct Marks {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        listen_address(text).map(Self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = hybrid_units::ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self)
    }
}

/// `"auto"` or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DirectValue(pub(crate) Direct);

impl<'de> Deserialize<'de> for DirectValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = DirectValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number of clients")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<DirectValue, E> {
                text.parse().map(DirectValue).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<DirectValue, E> {
                let count = u32::try_from(number)
                    .map_err(|_| E::custom(format!("{number} is no number of clients, 0 to {}", u32::MAX)))?;
                Ok(DirectValue(Direct::Fixed(count)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let unreadable = |error: std::io::Error| Failure::config(format!("{name}: {error}"));
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(Failure::config(format!("{name}: a settings file of more than 1 MiB is not read")));
        }
        let text = String::from_utf8(bytes).map_err(|_| Failure::config(format!("{name}: not UTF-8 text")))?;
        Self::parse(&text).map_err(|(line, column, message)| {
            Failure::config(format!("{name}:{line}:{column}: {message}"))
                .hint("hybrid-server serve --help tells what each setting means")
        })
    }

    /// The settings, or what is wrong with the text in which line and column.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, usize, String)> {
        let text = text.trim_start_matches('\u{feff}');
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            (line, column, RUST_WORDS.iter().fold(message, |text, (rust, plain)| text.replace(rust, plain)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_every_key() {
        let text = "\u{feff}folder = \"public\"\r\nlisten = [\"0.0.0.0:80\", \"[::]:80\"]\r\nstate = \"/var/lib/x\"\n\
                    direct_clients = 100\negress_limit = \"100M\"\nallow_peers = [\"10.0.0.0/8\"]\ncache = \"1GiB\"\n\
                    [tls]\ncert = \"a\"\nkey = \"b\"\nself_signed = false\n\
                    [connections]\nmax = 1000\nmax_per_address = 64\nfirst_request = \"10s\"\nidle = \"60s\"\nstall = \"30s\"\n\
                    [networks]\nclients = 6250\npeers = 2\n\
                    [thresholds]\negress = { low = 0.6, high = 0.9 }\ncpu = { low = 0.5, high = 0.8 }\n\
                    enter_after = \"5s\"\nleave_after = \"1m\"\ndwell = \"30s\"\nrequired_rate = \"1MB/s\"\n\
                    start_up = \"2s\"\npauses_per_minute = 0.5\ncontrol_share = 0.05\n\
                    [classes.films]\ndirect_clients = \"auto\"\negress_policy = \"thrifty\"\nrequired_rate = \"8M\"\n\
                    start_up = \"1s\"\npauses_per_minute = 0.2\ncontrol_share = 0.1\npart_length = \"256KiB\"\n\
                    [[rules]]\nmedia_type = \"video/*\"\npath = \"/films/**\"\nclass = \"films\"\n";
        let file = File::parse(text).unwrap();
        assert_eq!(file.listen.len(), 2);
        assert_eq!(file.direct_clients, Some(DirectValue(Direct::Fixed(100))));
        assert_eq!(file.thresholds.leave_after, Some(Parsed(Time(Duration::from_secs(60)))));
        assert_eq!(file.rules[0].class, "films");
        assert_eq!(file.classes["films"].part_length, Some(Parsed(ByteCount::new(262_144))));
        assert_eq!(File::parse("").unwrap(), File::default());
        assert_eq!(File::parse("direct_clients = \"auto\"").unwrap().direct_clients, Some(DirectValue(Direct::Auto)));
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, line, column, words) in [
            ("a = 1", 1, 1, "unknown field `a`, expected one of `folder`, `listen`"),
            ("folder = \"x\"\n\n[tls]\ncerd = \"x\"", 4, 1, "unknown field `cerd`"),
            ("folder = \"x\"\nfolder = \"y\"", 2, 1, "duplicate key"),
            ("listen = [\"80\"]", 1, 10, "'80' is no address to listen on"),
            ("listen = \"0.0.0.0:80\"", 1, 10, "expected a list in brackets"),
            ("\negress_limit = \"0M\"", 2, 16, "a rate of zero"),
            ("egress_policy = \"slow\"", 1, 17, "'slow' is neither fast nor thrifty"),
            ("egress_limit = 5", 1, 16, "expected text in quotes"),
            ("allow_peers = [\"10.0.0.1/8\"]", 1, 15, "10.0.0.0/8"),
            ("direct_clients = -1", 1, 18, "-1 is no number of clients"),
            ("direct_clients = 1.5", 1, 18, "expected \"auto\" or a number"),
            ("[thresholds]\ndwell = \"-5s\"", 2, 9, "is not a duration"),
            ("[thresholds]\ncpu = { low = 0.5 }", 2, 7, "missing field `high`"),
            ("[classes.a]\nspeed = 1", 2, 1, "unknown field `speed`"),
            ("[[rules]]\npath = \"x\"", 1, 1, "missing field `class`"),
            ("folder \"x\"", 1, 8, ""),
            ("folder = \"x", 1, 12, ""),
            ("\0", 1, 2, ""),
        ] {
            let (at_line, at_column, message) = File::parse(text).expect_err(text);
            assert_eq!((at_line, at_column), (line, column), "{text}: {message}");
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        assert!(File::parse(&format!("folder = {}", "[".repeat(400_000))).is_err());
    }
}
