//! What a settings file must not say: each mistake with the exact words that its writer sees.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};

/// Text, line and column of the mistake, and the value that is named.
type Mistake = (&'static str, &'static str, &'static str);

/// Mistakes at a place in the file, by what is said of them, with `{}` for the value.
const PLACES: &[(&str, &[Mistake])] = &[
    (
        "key with no value, expected `=`",
        &[
            ("folder \"public\"", "1:8", ""),
            ("folder = \"a\nb\"", "2:3", ""),
            ("\0", "1:2", ""),
            ("\u{1b}[2J = 1", "1:2", ""),
        ],
    ),
    (
        "string values must be quoted, expected literal string",
        &[("folder = ", "1:10", ""), ("folder = public", "1:10", "")],
    ),
    ("invalid basic string, expected `\"`", &[("folder = \"public", "1:17", "")]),
    (
        "unquoted keys cannot be empty, expected letters, numbers, `-`, `_`",
        &[("= 'x'", "1:1", ""), ("[", "1:2", ""), ("[]", "1:2", "")],
    ),
    ("extra `=`, expected nothing", &[("folder == 'x'", "1:9", "")]),
    ("unexpected key or value, expected newline, `#`", &[("folder = \"a\" \"b\"", "1:14", ""), ("[tls]]", "1:6", "")]),
    ("unclosed table, expected `]`", &[("[tls", "1:5", "")]),
    ("unclosed array table, expected `]`", &[("[[tls]", "1:7", "")]),
    (
        "missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\\`, `\"`, `x`, `u`, `U`",
        &[("folder = \"\\q\"", "1:12", "")],
    ),
    ("invalid basic string, expected non-double-quote visible characters, `\\`", &[("folder = \"a\0b\"", "1:12", "")]),
    (
        "unknown field `{}`, expected one of `folder`, `listen`, `state`, `direct_clients`, `egress_limit`, `egress_policy`, `allow_peers`, `cache`, `tls`, `connections`, `networks`, `thresholds`, `classes`, `rules`",
        &[
            ("a.b.c = 1", "1:1", "a"),
            ("\"\" = 1", "1:1", ""),
            ("flder = \"public\"", "1:1", "flder"),
            ("Folder = \"public\"", "1:1", "Folder"),
            ("port = 8080", "1:1", "port"),
            ("[server]\nfolder = \"public\"", "1:2", "server"),
            ("wait_for_swarm = '5s'", "1:1", "wait_for_swarm"),
        ],
    ),
    ("duplicate key", &[("[tls]\n[tls]", "2:2", "")]),
    (
        "unknown field `{}`, expected one of `cert`, `key`, `self_signed`",
        &[("[tls]\nfolder = \"public\"", "2:1", "folder"), ("[tls]\nfingerprint = 'x'", "2:1", "fingerprint")],
    ),
    (
        "unknown field `{}`, expected one of `egress`, `cpu`, `enter_after`, `leave_after`, `dwell`, `required_rate`, `start_up`, `pauses_per_minute`, `control_share`",
        &[
            ("[thresholds]\nfolder = 'x'", "2:1", "folder"),
            ("[thresholds]\nmemory = { low = 0.5, high = 0.8 }", "2:1", "memory"),
        ],
    ),
    (
        "invalid type: integer `{}`, expected a path in quotes",
        &[("folder = 5", "1:10", "5"), ("state = 5", "1:9", "5"), ("[tls]\ncert = 1", "2:8", "1")],
    ),
    (
        "invalid type: sequence, expected a path in quotes",
        &[("folder = [\"public\"]", "1:10", ""), ("[tls]\ncert = ['a']", "2:8", ""), ("state = ['s']", "1:9", "")],
    ),
    ("invalid type: boolean `{}`, expected a path in quotes", &[("folder = true", "1:10", "true")]),
    ("invalid type: map, expected a path in quotes", &[("folder = {}", "1:10", "")]),
    (
        "invalid type: string \"{}\", expected a list in brackets",
        &[("listen = '127.0.0.1:80'", "1:10", "127.0.0.1:80"), ("allow_peers = '10.0.0.0/8'", "1:15", "10.0.0.0/8")],
    ),
    (
        "invalid type: integer `{}`, expected text in quotes",
        &[
            ("listen = [80]", "1:11", "80"),
            ("egress_limit = 5", "1:16", "5"),
            ("egress_policy = 1", "1:17", "1"),
            ("allow_peers = [10]", "1:16", "10"),
            ("cache = 5", "1:9", "5"),
            ("[thresholds]\ndwell = 5", "2:9", "5"),
            ("[thresholds]\nrequired_rate = 5", "2:17", "5"),
            ("[thresholds]\nstart_up = 2", "2:12", "2"),
            ("[classes.a]\npart_length = 65536", "2:15", "65536"),
            ("[[rules]]\npath = 5\nclass = 'vod'", "2:8", "5"),
            ("[[rules]]\nclass = 5", "2:9", "5"),
            ("[[rules]]\nmedia_type = 5\nclass = 'vod'", "2:14", "5"),
        ],
    ),
    (
        "'{}' is no address to listen on: write address and port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::]:80",
        &[
            ("listen = ['80']", "1:10", "80"),
            ("listen = ['']", "1:10", ""),
            ("listen = ['127.0.0.1:65536']", "1:10", "127.0.0.1:65536"),
            ("listen = ['localhost:80']", "1:10", "localhost:80"),
            ("listen = ['0.0.0.0']", "1:10", "0.0.0.0"),
        ],
    ),
    ("invalid type: integer `{}`, expected a list in brackets", &[("listen = 80", "1:10", "80")]),
    (
        "{} is no number of clients, 0 to 4294967295",
        &[("direct_clients = -1", "1:18", "-1"), ("direct_clients = 4294967296", "1:18", "4294967296")],
    ),
    (
        "invalid type: floating point `{}`, expected \"auto\" or a number of clients",
        &[("direct_clients = 1.5", "1:18", "1.5"), ("direct_clients = nan", "1:18", "NaN")],
    ),
    (
        "'{}' is neither auto nor a number of clients, 0 to 4294967295",
        &[("direct_clients = 'many'", "1:18", "many"), ("[classes.a]\ndirect_clients = 'no'", "2:18", "no")],
    ),
    (
        "invalid type: integer `{}`, expected \"auto\" or a number of clients",
        &[("direct_clients = 9223372036854775808", "1:18", "9223372036854775808")],
    ),
    (
        "invalid type: boolean `{}`, expected \"auto\" or a number of clients",
        &[("direct_clients = true", "1:18", "true")],
    ),
    ("invalid type: sequence, expected \"auto\" or a number of clients", &[("direct_clients = []", "1:18", "")]),
    ("invalid type: map, expected \"auto\" or a number of clients", &[("direct_clients = 1979-05-27", "1:18", "")]),
    (
        "a rate of zero would never send anything: write a greater one, or leave it away where that means no limit",
        &[
            ("egress_limit = '0'", "1:16", ""),
            ("[thresholds]\nrequired_rate = '0'", "2:17", ""),
            ("[classes.a]\nrequired_rate = '0'", "2:17", ""),
        ],
    ),
    (
        "'{}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, or bytes per second, such as 2.5MB/s or 512KiB/s",
        &[
            ("egress_limit = 'fast'", "1:16", "fast"),
            ("egress_limit = '-1M'", "1:16", "-1M"),
            ("egress_limit = ''", "1:16", ""),
            ("[classes.a]\nrequired_rate = 'no'", "2:17", "no"),
            ("[thresholds]\nrequired_rate = '10X'", "2:17", "10X"),
        ],
    ),
    (
        "invalid type: floating point `{}`, expected text in quotes",
        &[("egress_limit = nan", "1:16", "NaN"), ("[thresholds]\nenter_after = 1.5", "2:15", "1.5")],
    ),
    (
        "'{}' is neither fast nor thrifty",
        &[
            ("egress_policy = 'slow'", "1:17", "slow"),
            ("egress_policy = ''", "1:17", ""),
            ("[classes.a]\negress_policy = 'no'", "2:17", "no"),
        ],
    ),
    (
        "the address has bits beyond its prefix length: did you mean {}?",
        &[("allow_peers = ['10.0.0.1/8']", "1:15", "10.0.0.0/8")],
    ),
    ("a prefix length of {}, at most 32", &[("allow_peers = ['10.0.0.0/33']", "1:15", "33")]),
    (
        "'{}' is not a network: write an address and a prefix length, such as 10.0.0.0/8 or fd00::/8, or one address",
        &[("allow_peers = ['all']", "1:15", "all"), ("allow_peers = ['10.0.0.0/8', 'x']", "1:15", "x")],
    ),
    (
        "'{}' is not a size: write bytes, or a number with k, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024)",
        &[
            ("cache = 'big'", "1:9", "big"),
            ("cache = '-1'", "1:9", "-1"),
            ("cache = ''", "1:9", ""),
            ("cache = '99999999999999999999'", "1:9", "99999999999999999999"),
            ("cache = '1e3'", "1:9", "1e3"),
            ("cache = '10X'", "1:9", "10X"),
            ("cache = '1.5.5M'", "1:9", "1.5.5M"),
            ("[classes.a]\npart_length = '-1'", "2:15", "-1"),
        ],
    ),
    ("invalid type: string \"{}\", expected a boolean", &[("[tls]\nself_signed = 'yes'", "2:15", "yes")]),
    ("invalid type: boolean `{}`, expected a table that begins with [tls]", &[("tls = true", "1:7", "true")]),
    (
        "missing field `{}`",
        &[
            ("[thresholds]\ncpu = { low = 0.5 }", "2:7", "high"),
            ("[thresholds]\ncpu = { high = 0.5 }", "2:7", "low"),
            ("[[rules]]\npath = 'x'", "1:1", "class"),
        ],
    ),
    (
        "invalid type: floating point `{}`, expected { low = NUMBER, high = NUMBER }",
        &[("[thresholds]\ncpu = 0.5", "2:7", "0.5")],
    ),
    (
        "invalid type: string \"{}\", expected a number",
        &[
            ("[thresholds]\ncpu = { low = 'a', high = 0.5 }", "2:15", "a"),
            ("[thresholds]\npauses_per_minute = 'few'", "2:21", "few"),
            ("[thresholds]\ncontrol_share = 'a'", "2:17", "a"),
            ("[thresholds]\ncontrol_share = '5%'", "2:17", "5%"),
        ],
    ),
    (
        "unknown field `{}`, expected `low` or `high`",
        &[("[thresholds]\ncpu = { low = 0.1, high = 0.5, mid = 0.2 }", "2:32", "mid")],
    ),
    (
        "'{}' is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 2h or 1d",
        &[
            ("[thresholds]\ndwell = '-5s'", "2:9", "-5s"),
            ("[thresholds]\ndwell = '5'", "2:9", "5"),
            ("[thresholds]\ndwell = ''", "2:9", ""),
            ("[thresholds]\nenter_after = 'soon'", "2:15", "soon"),
            ("[thresholds]\nleave_after = '1y'", "2:15", "1y"),
            ("[thresholds]\nleave_after = '99999999999999999999d'", "2:15", "99999999999999999999d"),
            ("[classes.a]\nstart_up = 'no'", "2:12", "no"),
            ("[thresholds]\nstart_up = '-1s'", "2:12", "-1s"),
        ],
    ),
    (
        "unknown field `{}`, expected one of `direct_clients`, `egress_policy`, `required_rate`, `start_up`, `pauses_per_minute`, `control_share`, `part_length`",
        &[("[classes.a]\nspeed = 1", "2:1", "speed"), ("[classes.a]\nthresholds = { low = 1 }", "2:1", "thresholds")],
    ),
    (
        "invalid type: integer `{}`, expected a table that begins with [connections]",
        &[("connections = 5", "1:15", "5")],
    ),
    (
        "unknown field `{}`, expected one of `max`, `max_per_address`, `first_request`, `idle`, `stall`",
        &[("[connections]\nilde = '5s'", "2:1", "ilde")],
    ),
    ("invalid type: integer `{}`, expected a table that begins with [networks]", &[("networks = 5", "1:12", "5")]),
    ("unknown field `{}`, expected `clients` or `peers`", &[("[networks]\nclient = 5", "2:1", "client")]),
    (
        "invalid type: string \"{}\", expected a whole number from 1 to 4294967295",
        &[("[networks]\npeers = 'two'", "2:9", "two")],
    ),
    (
        "invalid value: integer `{}`, expected a whole number from 1 to 4294967295",
        &[
            ("[networks]\nclients = 0", "2:11", "0"),
            ("[networks]\npeers = -1", "2:9", "-1"),
            ("[connections]\nmax = 0", "2:7", "0"),
            ("[connections]\nmax = 4294967296", "2:7", "4294967296"),
            ("[connections]\nmax_per_address = -1", "2:19", "-1"),
        ],
    ),
    (
        "'{}' is no limit for a connection: write a time from 1s to 1h",
        &[
            ("[connections]\nidle = '999ms'", "2:8", "999ms"),
            ("[connections]\nstall = '3601s'", "2:9", "3601s"),
            ("[connections]\nfirst_request = '0s'", "2:17", "0s"),
        ],
    ),
    ("invalid type: integer `{}`, expected text in quotes", &[("[connections]\nfirst_request = 5", "2:17", "5")]),
    ("invalid type: integer `{}`, expected a table", &[("classes = 5", "1:11", "5")]),
    ("invalid type: integer `{}`, expected a table such as [classes.films]", &[("[classes]\na = 5", "2:5", "5")]),
    ("invalid type: map, expected a list in brackets", &[("[rules]\nclass = 'vod'", "1:1", "")]),
    (
        "unknown field `{}`, expected one of `media_type`, `path`, `class`",
        &[("[[rules]]\nclass = 'vod'\nhost = 'x'", "3:1", "host")],
    ),
    ("invalid type: integer `{}`, expected a boolean", &[("[tls]\nself_signed = 1", "2:15", "1")]),
];

/// Mistakes of the whole: text, what is said, and the hint.
const WHOLE: &[(&str, &str, &str)] = &[
    (
        "listen = ['0.0.0.0:80']\nallow_peers = ['127.0.0.0/8']",
        "--allow-peers 127.0.0.0/8 with --listen 0.0.0.0:80: loopback addresses mean nothing to others",
        "listen on 127.0.0.1, or allow the networks in which the peers are",
    ),
    ("[tls]\ncert = 'a'", "tls: cert and key belong together; one of them is missing", ""),
    ("[tls]\nkey = 'a'", "tls: cert and key belong together; one of them is missing", ""),
    ("[tls]\ncert = 'a'\nkey = 'b'\nself_signed = true", "tls: self_signed and cert contradict each other", ""),
    ("[thresholds]\ncpu = { low = 0.9, high = 0.8 }", "thresholds: cpu: low (0.9) must be below high (0.8)", ""),
    ("[thresholds]\ncpu = { low = 0.8, high = 0.8 }", "thresholds: cpu: low (0.8) must be below high (0.8)", ""),
    (
        "[thresholds]\ncpu = { low = -0.1, high = 0.8 }",
        "thresholds: cpu: marks must lie above 0 and at most at 1, got low (-0.1) and high (0.8)",
        "",
    ),
    (
        "[thresholds]\ncpu = { low = 0.5, high = 1.5 }",
        "thresholds: cpu: marks must lie above 0 and at most at 1, got low (0.5) and high (1.5)",
        "",
    ),
    (
        "[thresholds]\ncpu = { low = nan, high = 0.8 }",
        "thresholds: cpu: marks must lie above 0 and at most at 1, got low (NaN) and high (0.8)",
        "",
    ),
    (
        "[thresholds]\ncpu = { low = 0.1, high = inf }",
        "thresholds: cpu: marks must lie above 0 and at most at 1, got low (0.1) and high (inf)",
        "",
    ),
    (
        "[thresholds]\ncpu = { low = 0.0, high = 0.0 }",
        "thresholds: cpu: marks must lie above 0 and at most at 1, got low (0) and high (0)",
        "",
    ),
    ("[thresholds]\negress = { low = 0.9, high = 0.8 }", "thresholds: egress: low (0.9) must be below high (0.8)", ""),
    (
        "[thresholds]\negress = { low = 0.5, high = 2.0 }",
        "thresholds: egress: marks must lie above 0 and at most at 1, got low (0.5) and high (2)",
        "",
    ),
    ("[thresholds]\nstart_up = '0s'", "thresholds: start_up must be a number from 0.001 to 3600, got 0", ""),
    (
        "[thresholds]\npauses_per_minute = -1.0",
        "thresholds: pauses_per_minute must be a number from 0.001 to 600, got -1",
        "",
    ),
    (
        "[thresholds]\npauses_per_minute = nan",
        "thresholds: pauses_per_minute must be a number from 0.001 to 600, got NaN",
        "",
    ),
    (
        "[thresholds]\npauses_per_minute = inf",
        "thresholds: pauses_per_minute must be a number from 0.001 to 600, got inf",
        "",
    ),
    ("[thresholds]\ncontrol_share = 2.0", "thresholds: control_share must be a number from 0 to 1, got 2", ""),
    ("[thresholds]\ncontrol_share = -0.1", "thresholds: control_share must be a number from 0 to 1, got -0.1", ""),
    ("[thresholds]\ncontrol_share = nan", "thresholds: control_share must be a number from 0 to 1, got NaN", ""),
    (
        "[classes.file]",
        "classes.file: 'file' is what contents are that no rule fits",
        "its settings are those without a class: direct_clients, egress_policy and [thresholds]",
    ),
    (
        "[classes.a]\npart_length = '3000'",
        "class 'a': part lengths must be powers of two from 16 KiB to 16 MiB, and the least not above the most",
        "",
    ),
    (
        "[classes.a]\npart_length = '1G'",
        "class 'a': part lengths must be powers of two from 16 KiB to 16 MiB, and the least not above the most",
        "",
    ),
    (
        "[classes.a]\npart_length = '99999999999'",
        "class 'a': part lengths must be powers of two from 16 KiB to 16 MiB, and the least not above the most",
        "",
    ),
    ("[classes.a]\ncontrol_share = 7.0", "class 'a': control_share must be a number from 0 to 1, got 7", ""),
    (
        "[classes.a]\npauses_per_minute = -7.0",
        "class 'a': pauses_per_minute must be a number from 0.001 to 600, got -7",
        "",
    ),
    ("[[rules]]\nclass = 'none'", "a rule names the class 'none'; there are file, page, vod, live", ""),
    (
        "[[rules]]\nclass = 'vod'\npath = '['",
        "rules: the path '[' fits nothing, because paths begin with /",
        "write '/[', or '**/[' for any folder",
    ),
    (
        "[[rules]]\nclass = 'vod'\npath = ''",
        "rules: the path '' fits nothing, because paths begin with /",
        "write '/', or '**/' for any folder",
    ),
    (
        "[[rules]]\nclass = 'vod'\nmedia_type = 'video'",
        "rules: 'video' is no media type",
        "write video/mp4, or video/* for all of a kind",
    ),
    (
        "[[rules]]\nclass = 'vod'\nmedia_type = ''",
        "rules: '' is no media type",
        "write video/mp4, or video/* for all of a kind",
    ),
    (
        "[[rules]]\nclass = 'vod'\npath = 'films/**'",
        "rules: the path 'films/**' fits nothing, because paths begin with /",
        "write '/films/**', or '**/films/**' for any folder",
    ),
    (
        "[thresholds]\negress = { low = nan, high = nan }",
        "thresholds: egress: marks must lie above 0 and at most at 1, got low (NaN) and high (NaN)",
        "",
    ),
    (
        "[classes.a]\npart_length = '0'",
        "class 'a': part lengths must be powers of two from 16 KiB to 16 MiB, and the least not above the most",
        "",
    ),
    ("[classes.a]\nstart_up = '0s'", "class 'a': start_up must be a number from 0.001 to 3600, got 0", ""),
];

/// Files that are no text, or more than settings ever take.
fn files() -> [(Vec<u8>, &'static str); 7] {
    [
        (b"\xff\xfef\0o\0l\0d\0e\0r\0".to_vec(), "x.toml: not UTF-8 text"),
        (b"folder = '\xff'".to_vec(), "x.toml: not UTF-8 text"),
        (vec![b'#'; (1 << 20) + 1], "x.toml: a settings file of more than 1 MiB is not read"),
        ("# more\n".repeat(200_000).into_bytes(), "x.toml: a settings file of more than 1 MiB is not read"),
        (
            format!("folder = {}", "[".repeat(400_000)).into_bytes(),
            "x.toml:1:90: cannot recurse further; max recursion depth met",
        ),
        ("[tls]\n".repeat(100_000).into_bytes(), "x.toml:2:2: duplicate key"),
        (vec![0; 1_000], "x.toml:1:1001: key with no value, expected `=`"),
    ]
}

/// Starts the server with this file in its folder, only to check it.
fn check(folder: &Path, text: &[u8], message: &str, hint: &str) {
    std::fs::write(folder.join("x.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-server"));
    command.args(["serve", "public", "--config", "x.toml", "--state", "s", "--check-config"]);
    let output = command.current_dir(folder).stdin(Stdio::null()).env_clear().output().unwrap();
    let hint = if hint.is_empty() { String::new() } else { format!("  hint: {hint}\n") };
    let expected = format!("hybrid-server: error: {message} [E_CONFIG]\n{hint}");
    let got = String::from_utf8(output.stderr).unwrap();
    let shown = String::from_utf8_lossy(&text[..text.len().min(80)]);
    assert_eq!((output.status.code(), got), (Some(3), expected), "{shown}");
    assert!(output.stdout.is_empty(), "{shown}");
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("public")).unwrap();
    folder
}

#[test]
fn mistakes_at_a_place() {
    let folder = folder();
    for (said, rows) in PLACES {
        for (text, place, value) in *rows {
            let message = format!("x.toml:{place}: {}", said.replace("{}", value));
            check(folder.path(), text.as_bytes(), &message, "hybrid-server serve --help tells what each setting means");
        }
    }
}

#[test]
fn mistakes_of_the_whole() {
    let folder = folder();
    for (text, message, hint) in WHOLE {
        check(folder.path(), text.as_bytes(), message, hint);
    }
}

#[test]
fn files_that_are_no_settings() {
    let folder = folder();
    for (bytes, message) in files() {
        let place = message.starts_with("x.toml:1") || message.starts_with("x.toml:2");
        let hint = if place { "hybrid-server serve --help tells what each setting means" } else { "" };
        check(folder.path(), &bytes, message, hint);
    }
}
