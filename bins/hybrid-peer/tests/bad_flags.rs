//! What the command line does not take: each mistake with the exact words that its user sees.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Stdio};

const HELP: &str = "hybrid-peer --help and hybrid-peer get --help show what there is";

/// A command, its option as the parser names it, values that it does not take, and what is said of each; `{}` is the value.
const VALUES: &[(&str, &str, &[&str], &str)] = &[
    (
        "get http://127.0.0.1:1/film.mp4 --stay",
        "--stay <DURATION>",
        &["30", "-30", "soon", "", "Forever", "10M", "1m30s", "３０s"],
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limit",
        "--upload-limit <RATE>",
        &["0", "0MB/s"],
        "a rate of zero would never send anything: write a greater one, or leave it away where that means no limit",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limit",
        "--upload-limit <RATE>",
        &["", "10X", "-1", "+1M", "1e3", "１M", "unlimited"],
        "'{}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, or bytes per second, such as 2.5MB/s or 512KiB/s",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-volume",
        "--upload-volume <SIZE>",
        &["0", "0B", "0.0M"],
        "a volume of zero sends nothing: write --no-upload for that",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-volume",
        "--upload-volume <SIZE>",
        &["", "10X", "-1", "+1M", "1e3", "１M", "unlimited"],
        "'{}' is not a size: write bytes, or a number with k, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024)",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-ratio",
        "--upload-ratio <RATIO>",
        &["", "0", "-1", "0.0004", "1000001", "50%", "1:2", "1e3", "inf", "１"],
        "'{}' is not a ratio: write a number from 0.001 to 1000000, such as 0.5 or 2",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-hours",
        "--upload-hours <HH:MM-HH:MM>",
        &[
            "",
            "-",
            "22-07",
            "22:00",
            "-22:00",
            "24:00-07:00",
            "22:60-07:00",
            "9:00-17:00",
            "22:00-07:00-08:00",
            "10pm-7am",
            "２２:00-07:00",
        ],
        "'{}' are no hours: write two times of the day, such as 22:00-07:00",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-hours",
        "--upload-hours <HH:MM-HH:MM>",
        &["00:00-00:00", "00:00-24:00"],
        "from 00:00 to 00:00 is no time at all, or all of it: write two different times, or leave the hours away",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --cache-limit",
        "--cache-limit <SIZE>",
        &["", "10X", "-1", "+1G", "1e9", "１G", "10%", "none", "10000TiB"],
        "'{}' is not a size: write bytes, or a number with k, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024)",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --allow-peers",
        "--allow-peers <CIDR>",
        &["everyone", "", "localhost", "10.0.0.0/8,192.168.0.0/16"],
        "'{}' is not a network: write an address and a prefix length, such as 10.0.0.0/8 or fd00::/8, or one address",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --allow-peers",
        "--allow-peers <CIDR>",
        &["10.0.0.1/8"],
        "the address has bits beyond its prefix length: did you mean 10.0.0.0/8?",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --allow-peers",
        "--allow-peers <CIDR>",
        &["10.0.0.0/33"],
        "a prefix length of 33, at most 32",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --listen",
        "--listen <ADDR>",
        &["80", "", "127.0.0.1", "127.0.0.1:65536", "localhost:80", "::1:80"],
        "write an address with a port, such as 0.0.0.0:4000 or [::]:4000",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --dht --dht-node",
        "--dht-node <NODE>",
        &[
            "",
            "6881",
            ":6881",
            "dht.example.org",
            "dht.example.org:0",
            "dht.example.org:65536",
            "[::1]:6881",
            "::1:6881",
        ],
        "write a name or an IPv4 address, and a port, such as dht.example.org:6881 or 192.0.2.1:6881",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --tls-fingerprint",
        "--tls-fingerprint <HASH>",
        &[
            "abc",
            "",
            "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            "d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc5",
            "sha256:d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc54",
        ],
        "a certificate's fingerprint is its SHA-256: 64 hexadecimal digits, colons between the bytes allowed",
    ),
];

/// Words, what is said of them, and the hint if it is another than [`HELP`]. A lone `-` stands for an empty word.
const LINES: &[(&str, &str, &str)] = &[
    ("gett http://127.0.0.1:1/film.mp4", "unrecognized subcommand 'gett'", "a similar subcommand exists: 'get'"),
    ("fetch http://127.0.0.1:1/film.mp4", "unrecognized subcommand 'fetch'", HELP),
    ("get", "the following required arguments were not provided: <URL>", HELP),
    ("inspect", "the following required arguments were not provided: <URL>", HELP),
    (
        "get http://127.0.0.1:1/film.mp4 http://127.0.0.1:1/film.mp4",
        "unexpected argument 'http://127.0.0.1:1/film.mp4' found",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --forse",
        "unexpected argument '--forse' found",
        "a similar argument exists: '--force'",
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limt 1M",
        "unexpected argument '--upload-limt' found",
        "a similar argument exists: '--upload-limit'",
    ),
    ("get http://127.0.0.1:1/film.mp4 --quiet", "unexpected argument '--quiet' found", HELP),
    ("get http://127.0.0.1:1/film.mp4 -q", "unexpected argument '-q' found", HELP),
    ("inspect http://127.0.0.1:1/film.mp4 --stay 1m", "unexpected argument '--stay' found", HELP),
    ("inspect http://127.0.0.1:1/film.mp4 --force", "unexpected argument '--force' found", HELP),
    ("get http://127.0.0.1:1/film.mp4 -o", "a value is required for '--output <FILE>' but none was supplied", HELP),
    ("get http://127.0.0.1:1/film.mp4 -o a -o b", "the argument '--output <FILE>' cannot be used multiple times", HELP),
    ("get http://127.0.0.1:1/film.mp4 -o -", "a value is required for '--output <FILE>' but none was supplied", HELP),
    ("get http://127.0.0.1:1/film.mp4 --cache", "a value is required for '--cache <DIR>' but none was supplied", HELP),
    (
        "get http://127.0.0.1:1/film.mp4 --cache -",
        "a value is required for '--cache <DIR>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --cache a --cache b",
        "the argument '--cache <DIR>' cannot be used multiple times",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --cache-limit",
        "a value is required for '--cache-limit <SIZE>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --cache-limit 1G --cache-limit 2G",
        "the argument '--cache-limit <SIZE>' cannot be used multiple times",
        HELP,
    ),
    ("inspect http://127.0.0.1:1/film.mp4 --cache-limit 1G", "unexpected argument '--cache-limit' found", HELP),
    (
        "get http://127.0.0.1:1/film.mp4 --stay",
        "a value is required for '--stay <DURATION>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --stay --json",
        "a value is required for '--stay <DURATION>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --stay 1m --stay 2m",
        "the argument '--stay <DURATION>' cannot be used multiple times",
        HELP,
    ),
    ("get http://127.0.0.1:1/film.mp4 --stay -30s", "unexpected argument '-3' found", HELP),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limit",
        "a value is required for '--upload-limit <RATE>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-volume",
        "a value is required for '--upload-volume <SIZE>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-ratio",
        "a value is required for '--upload-ratio <RATIO>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-hours",
        "a value is required for '--upload-hours <HH:MM-HH:MM>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-volume 1M --no-upload",
        "the argument '--upload-volume <SIZE>' cannot be used with '--no-upload'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-ratio 1 --no-upload",
        "the argument '--upload-ratio <RATIO>' cannot be used with '--no-upload'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-hours 22:00-07:00 --no-upload",
        "the argument '--upload-hours <HH:MM-HH:MM>' cannot be used with '--no-upload'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered --no-upload",
        "the argument '--metered' cannot be used with '--no-upload'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered --upload-limit 1M",
        "the argument '--metered' cannot be used with '--upload-limit <RATE>'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered --upload-volume 1M",
        "the argument '--metered' cannot be used with '--upload-volume <SIZE>'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered --upload-ratio 1",
        "the argument '--metered' cannot be used with '--upload-ratio <RATIO>'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered --upload-hours 22:00-07:00",
        "the argument '--metered' cannot be used with '--upload-hours <HH:MM-HH:MM>'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-volume 1M --upload-volume 2M",
        "the argument '--upload-volume <SIZE>' cannot be used multiple times",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --metered=1",
        "unexpected value '1' for '--metered' found; no more were expected",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limit 1M --no-upload",
        "the argument '--upload-limit <RATE>' cannot be used with '--no-upload'",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --upload-limit 1M --upload-limit 2M",
        "the argument '--upload-limit <RATE>' cannot be used multiple times",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --allow-peers",
        "a value is required for '--allow-peers <CIDR>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --listen",
        "a value is required for '--listen <ADDR>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --listen 127.0.0.1:1 --listen 127.0.0.1:2",
        "the argument '--listen <ADDR>' cannot be used multiple times",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --tls-ca",
        "a value is required for '--tls-ca <FILE>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --tls-fingerprint",
        "a value is required for '--tls-fingerprint <HASH>' but none was supplied",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --tls-ca a --tls-fingerprint d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc54",
        "the argument '--tls-ca <FILE>' cannot be used with '--tls-fingerprint <HASH>'",
        HELP,
    ),
    ("get http://127.0.0.1:1/film.mp4 --parts", "the following required arguments were not provided: --json", HELP),
    ("get http://127.0.0.1:1/film.mp4 --json --json", "the argument '--json' cannot be used multiple times", HELP),
    (
        "get http://127.0.0.1:1/film.mp4 --force=yes",
        "unexpected value 'yes' for '--force' found; no more were expected",
        HELP,
    ),
    (
        "get http://127.0.0.1:1/film.mp4 --no-upload=1",
        "unexpected value '1' for '--no-upload' found; no more were expected",
        HELP,
    ),
];

/// URLs that are none, or not for us, by what is said of them.
const URLS: &[(&str, &[&str])] = &[
    (
        "this is no URL; write http://HOST[:PORT]/PATH or https://…",
        &[
            "",
            "film.mp4",
            "127.0.0.1/x",
            "127.0.0.1:1/x",
            "//127.0.0.1:1/x",
            "/etc/passwd",
            "http:x",
            "http:/x",
            "http://",
            "http:///x",
            "http://:80/x",
            "data:,x",
            "javascript:alert(1)",
            "http://h\\x",
            "http://[::1/x",
            "http://[::1]x/x",
            "http://[zz]/x",
            "http://ex%61mple.org/x",
            "http://::1/x",
        ],
    ),
    (
        "only http and https URLs can be fetched",
        &[
            "ftp://127.0.0.1/x",
            "file:///etc/passwd",
            "ws://127.0.0.1/x",
            "hybrid://127.0.0.1/x",
            " http://127.0.0.1:1/a",
        ],
    ),
    (
        "a URL with a user name or password is not taken: leave it away",
        &[
            "http://user:pass@127.0.0.1:1/x",
            "http://user@127.0.0.1:1/x",
            "http://@127.0.0.1:1/x",
            "http://127.0.0.1:1@127.0.0.2/x",
        ],
    ),
    (
        "a URL with a fragment ('#…') names a place in a content; leave it away",
        &["http://127.0.0.1:1/x#t=10", "http://127.0.0.1:1/#"],
    ),
    (
        "a port is a number from 1 to 65535",
        &[
            "http://127.0.0.1:0/x",
            "http://127.0.0.1:65536/x",
            "http://127.0.0.1:99999999999/x",
            "http://127.0.0.1:abc/x",
            "http://127.0.0.1:-1/x",
            "http://127.0.0.1:+80/x",
            "http://127.0.0.1:/x",
        ],
    ),
    (
        "a URL is written in ASCII without blanks: others as %20 in the path, as punycode (xn--…) in the host",
        &[
            "http://h h/x",
            "http://127.0.0.1:1/a b",
            "http://127.0.0.1:1/a ",
            "http://bücher.example/x",
            "http://１２７.0.0.1:1/x",
            "http://127.0.0.1:1/é",
        ],
    ),
];

/// Runs the program; gives exit code and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-peer"));
    let output = command.args(arguments).stdin(Stdio::null()).env_clear().output().unwrap();
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn check(arguments: &[&str], code: &str, message: &str, hint: &str) {
    let hint = if hint.is_empty() { String::new() } else { format!("  hint: {hint}\n") };
    let expected = format!("hybrid-peer: error: {message} [{code}]\n{hint}");
    assert_eq!(run(arguments), (Some(2), expected), "{arguments:?}");
}

#[test]
fn values_that_mean_nothing() {
    for (command, option, values, said) in VALUES {
        for value in *values {
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.push(value);
            // The library shows the value as it is, and our words show it in ASCII.
            let said = said.replace("{}", &value.escape_default().to_string());
            check(&arguments, "E_USAGE", &format!("invalid value '{value}' for '{option}': {said}"), HELP);
        }
    }
}

#[test]
fn words_that_do_not_belong() {
    for (line, message, hint) in LINES {
        let arguments: Vec<&str> = line.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        check(&arguments, "E_USAGE", message, hint);
    }
}

#[test]
fn urls_that_cannot_be_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().to_str().unwrap();
    let long = format!("http://127.0.0.1:1/{}", "a".repeat(2_048));
    let rows = URLS.iter().flat_map(|(message, urls)| urls.iter().map(move |url| (*message, *url)));
    for (message, url) in rows.chain([("the URL is longer than 2048 characters", &*long)]) {
        check(&["inspect", url], "E_URL", message, "");
        check(&["get", url, "--cache", cache], "E_URL", message, "");
    }
}
