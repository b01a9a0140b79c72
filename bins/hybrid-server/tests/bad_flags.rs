//! What the command line does not take: each mistake with the exact words that its user sees.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Stdio};

const HELP: &str = "hybrid-server --help and hybrid-server serve --help show what there is";

/// A command, its option as the parser names it, values that it does not take, and what is said of each; `{}` is the value.
const VALUES: &[(&str, &str, &[&str], &str)] = &[
    (
        "serve . --listen",
        "--listen <ADDR>",
        &[
            "8080",
            "0",
            "",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:abc",
            "127.0.0.1:-1",
            "127.0.0.1:65536",
            "localhost:80",
            "::1:80",
            "[::1]",
            "256.0.0.1:80",
            "http://127.0.0.1:80",
            "[::1]:",
            "127.0.0.1:80:80",
        ],
        "'{}' is no address to listen on: write address and port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::]:80",
    ),
    (
        "serve . --direct-clients",
        "--direct-clients <N|auto>",
        &["", "-1", "+1", "1.5", "1e3", "Auto", "none", "4294967296", "99999999999999999999", "１", " 1", "0x10"],
        "'{}' is neither auto nor a number of clients, 0 to 4294967295",
    ),
    (
        "serve . --egress-limit",
        "--egress-limit <RATE>",
        &[
            "",
            "10X",
            "-1",
            "+1M",
            "1e3",
            "1,5M",
            "1.2.3M",
            "M",
            "NaN",
            "inf",
            "２０M",
            "20 M",
            "99999999999999999999G",
            "20m",
        ],
        "'{}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, or bytes per second, such as 2.5MB/s or 512KiB/s",
    ),
    (
        "serve . --egress-limit",
        "--egress-limit <RATE>",
        &["0", "0M"],
        "a rate of zero would never send anything: write a greater one, or leave it away where that means no limit",
    ),
    (
        "serve . --egress-policy",
        "--egress-policy <fast|thrifty>",
        &["slow", "Fast"],
        "'{}' is neither fast nor thrifty",
    ),
    (
        "serve . --allow-peers",
        "--allow-peers <CIDR>",
        &["everyone", "", "10.0.0.0/-1", "10.0.0.0/", "10/8", "300.0.0.0/8"],
        "'{}' is not a network: write an address and a prefix length, such as 10.0.0.0/8 or fd00::/8, or one address",
    ),
    (
        "serve . --allow-peers",
        "--allow-peers <CIDR>",
        &["10.0.0.1/8"],
        "the address has bits beyond its prefix length: did you mean 10.0.0.0/8?",
    ),
    ("serve . --allow-peers", "--allow-peers <CIDR>", &["10.0.0.0/33"], "a prefix length of 33, at most 32"),
    ("serve . --allow-peers", "--allow-peers <CIDR>", &["fd00::/129"], "a prefix length of 129, at most 128"),
    (
        "serve . --allow-peers",
        "--allow-peers <CIDR>",
        &["fd00::1/8"],
        "the address has bits beyond its prefix length: did you mean fd00::/8?",
    ),
    (
        "serve . --wait-for-swarm",
        "--wait-for-swarm <TIME>",
        &["30", "soon", "", "1y", "99999999999999999999h", "1e3s", "30S"],
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate",
        "--bitrate <RATE>",
        &["fast"],
        "'{}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, or bytes per second, such as 2.5MB/s or 512KiB/s",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --peer-up",
        "--peer-up <RATE>",
        &["0"],
        "a rate of zero would never send anything: write a greater one, or leave it away where that means no limit",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --arrivals",
        "--arrivals <RATE>",
        &["10", "0/s", "inf/s", "10/d"],
        "'{}' is no rate of arrivals: write 10/s, 90/min or 500/h",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --length",
        "--length <TIME>",
        &["long"],
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --seed",
        "--seed <N>",
        &["-1", "18446744073709551616"],
        "'{}' is no whole number of at most 64 bits: write digits alone, such as 5000",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --egress-policy",
        "--egress-policy <fast|thrifty>",
        &["none"],
        "'{}' is neither fast nor thrifty",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --stay",
        "--stay <TIME>",
        &["forever"],
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --delay",
        "--delay <TIME>",
        &["5"],
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --peer-down",
        "--peer-down <RATE>",
        &["fast"],
        "'{}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, or bytes per second, such as 2.5MB/s or 512KiB/s",
    ),
];

/// Words, what is said of them, and the hint if it is another than [`HELP`]. A lone `-` stands for an empty word.
const LINES: &[(&str, &str, &str)] = &[
    ("serv .", "unrecognized subcommand 'serv'", "a similar subcommand exists: 'serve'"),
    ("--serve .", "unexpected argument '--serve' found", HELP),
    ("serve", "the following required arguments were not provided: <DIR>", HELP),
    ("serve . more", "unexpected argument 'more' found", HELP),
    (
        "serve . --direct-client 3",
        "unexpected argument '--direct-client' found",
        "a similar argument exists: '--direct-clients'",
    ),
    ("serve . --part-size 3", "unexpected argument '--part-size' found", HELP),
    ("serve . -x", "unexpected argument '-x' found", HELP),
    ("serve . --listen", "a value is required for '--listen <ADDR>' but none was supplied", HELP),
    ("serve . --direct-clients", "a value is required for '--direct-clients <N|auto>' but none was supplied", HELP),
    (
        "serve . --direct-clients 1 --direct-clients 2",
        "the argument '--direct-clients <N|auto>' cannot be used multiple times",
        HELP,
    ),
    ("serve . --egress-limit", "a value is required for '--egress-limit <RATE>' but none was supplied", HELP),
    (
        "serve . --egress-limit 1M --egress-limit 2M",
        "the argument '--egress-limit <RATE>' cannot be used multiple times",
        HELP,
    ),
    ("serve . --egress-policy", "a value is required for '--egress-policy <fast|thrifty>' but none was supplied", HELP),
    ("serve . --allow-peers", "a value is required for '--allow-peers <CIDR>' but none was supplied", HELP),
    ("serve . --tls-cert a", "the following required arguments were not provided: --tls-key <FILE>", HELP),
    ("serve . --tls-key a", "the following required arguments were not provided: --tls-cert <FILE>", HELP),
    (
        "serve . --tls-cert a --tls-key b --tls-self-signed",
        "the argument '--tls-cert <FILE>' cannot be used with '--tls-self-signed'",
        HELP,
    ),
    (
        "serve . --tls-self-signed=yes",
        "unexpected value 'yes' for '--tls-self-signed' found; no more were expected",
        HELP,
    ),
    ("serve . --config", "a value is required for '--config <FILE>' but none was supplied", HELP),
    ("serve . --state", "a value is required for '--state <DIR>' but none was supplied", HELP),
    ("serve . --wait-for-swarm", "a value is required for '--wait-for-swarm <TIME>' but none was supplied", HELP),
    ("serve . --wait-for-swarm -5s", "unexpected argument '-5' found", HELP),
    ("serve . --check-config --check-config", "the argument '--check-config' cannot be used multiple times", HELP),
    ("prepare", "the following required arguments were not provided: <FILE>", HELP),
    ("prepare a b", "unexpected argument 'b' found", HELP),
    ("prepare a --force", "the following required arguments were not provided: --output <FILE>", HELP),
    ("prepare a -o", "a value is required for '--output <FILE>' but none was supplied", HELP),
    ("prepare a -o b -o c", "the argument '--output <FILE>' cannot be used multiple times", HELP),
    ("explain a --client b", "the argument '[CONTENT]' cannot be used with '--client <ID>'", HELP),
    ("explain --client", "a value is required for '--client <ID>' but none was supplied", HELP),
    ("explain a b", "unexpected argument 'b' found", HELP),
    (
        "plan",
        "the following required arguments were not provided: --uplink <RATE> --viewers <N> --bitrate <RATE>",
        HELP,
    ),
    ("plan --viewers 10", "the following required arguments were not provided: --uplink <RATE> --bitrate <RATE>", HELP),
    ("plan --uplink 1M --viewers 10", "the following required arguments were not provided: --bitrate <RATE>", HELP),
    (
        "plan --uplink 1M --viewers -1 --bitrate 1M",
        "invalid value '-1' for '--viewers <N>': '-1' is no whole number of at most 32 bits: write digits alone, such as 5000",
        HELP,
    ),
    (
        "plan --uplink 1M --viewers ten --bitrate 1M",
        "invalid value 'ten' for '--viewers <N>': 'ten' is no whole number of at most 32 bits: write digits alone, such as 5000",
        HELP,
    ),
    (
        "plan --uplink 1M --viewers 4294967296 --bitrate 1M",
        "invalid value '4294967296' for '--viewers <N>': '4294967296' is no whole number of at most 32 bits: write digits alone, such as 5000",
        HELP,
    ),
    (
        "plan --uplink 0 --viewers 10 --bitrate 1M",
        "invalid value '0' for '--uplink <RATE>': a rate of zero would never send anything: write a greater one, or leave it away where that means no limit",
        HELP,
    ),
    (
        "plan --uplink 1M --viewers 0 --bitrate 1M",
        "0 viewers: from 1 to 10000000 can be planned for",
        "--viewers is the number of people who watch, such as 5000",
    ),
    ("plan --uplink 1M --viewers 10 --bitrate 1M --arrivals -1/s", "unexpected argument '-1' found", HELP),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --arrivals 10/s --over 60s",
        "the argument '--arrivals <RATE>' cannot be used with '--over <TIME>'",
        HELP,
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --length 0s",
        "a length of 0 s: from 2.5 s (the buffer before the first picture) to 21600 s",
        "--length is how long the content plays, such as 10min or 2h",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --simulate 0",
        "0 viewers to simulate: from 1 to 10000",
        "leave --simulate away, and the planner chooses",
    ),
    ("serve -", "a value is required for '[DIR]' but none was supplied", HELP),
    ("serve . --state -", "a value is required for '--state <DIR>' but none was supplied", HELP),
    ("serve . --config -", "a value is required for '--config <FILE>' but none was supplied", HELP),
    (
        "plan --uplink 1M --viewers 1e3 --bitrate 1M",
        "invalid value '1e3' for '--viewers <N>': '1e3' is no whole number of at most 32 bits: write digits alone, such as 5000",
        HELP,
    ),
    (
        "plan --uplink 1M --viewers 10000001 --bitrate 1M",
        "10000001 viewers: from 1 to 10000000 can be planned for",
        "--viewers is the number of people who watch, such as 5000",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --length 7h",
        "a length of 25200 s: from 2.5 s (the buffer before the first picture) to 21600 s",
        "--length is how long the content plays, such as 10min or 2h",
    ),
    (
        "plan --uplink 1M --viewers 10 --bitrate 1M --simulate 10001",
        "10001 viewers to simulate: from 1 to 10000",
        "leave --simulate away, and the planner chooses",
    ),
];

/// Runs the program; gives exit code and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-server"));
    let output = command.args(arguments).stdin(Stdio::null()).env_clear().output().unwrap();
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn check(arguments: &[&str], code: &str, message: &str, hint: &str) {
    let hint = if hint.is_empty() { String::new() } else { format!("  hint: {hint}\n") };
    let expected = format!("hybrid-server: error: {message} [{code}]\n{hint}");
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
