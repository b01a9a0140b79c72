//! What must hold of the lock files: CI cannot fetch the advisory database, so the floors that it implies are kept here.

use crate::workspace;

/// The first versions without a known advisory. A crate with several release lines has one entry for each.
///
/// Every advisory of the database's commit bf5c0d2 (2026-08-21) against a crate of our lock files is covered, and some later ones;
/// reviewed 2026-11-23. To add one: the advisory's `patched` field, smallest version of each line.
const FLOORS: &[(&str, &str, &str)] = &[
    ("anstream", "0.6.8", "RUSTSEC-2024-0404: unsound"),
    ("anyhow", "1.0.103", "RUSTSEC-2026-0190: unsound downcast"),
    ("aws-lc-sys", "0.39.0", "RUSTSEC-2026-0044 and -0048: names and revocations checked wrongly"),
    ("axum-core", "0.3.0", "RUSTSEC-2022-0055: bodies without end"),
    ("base64", "0.5.2", "RUSTSEC-2017-0004: buffer overflow"),
    ("borsh", "1.0.0", "RUSTSEC-2023-0033: unsound"),
    ("bumpalo", "3.11.1", "RUSTSEC-2022-0078: use after free"),
    ("bytes", "1.11.1", "RUSTSEC-2026-0007: overflow in BytesMut::reserve"),
    ("chacha20", "0.2.3", "RUSTSEC-2019-0029: the keystream repeats"),
    ("crossbeam-channel", "0.5.15", "RUSTSEC-2025-0024: double free on drop"),
    ("curve25519-dalek", "4.1.3", "RUSTSEC-2024-0344: timing tells of secrets"),
    ("ed25519-dalek", "2.0.0", "RUSTSEC-2022-0093: signs for a key that the caller names"),
    ("futures-task", "0.3.6", "RUSTSEC-2020-0060: use after free"),
    ("futures-util", "0.3.7", "RUSTSEC-2020-0059: data race"),
    ("h2", "0.4.16", "RUSTSEC-2026-0258: empty DATA frames without end"),
    ("hashbrown", "0.15.1", "RUSTSEC-2024-0402: two encodings of one map"),
    ("hickory-proto", "0.26.1", "advisories of 2026 against 0.26.0 and before"),
    ("http", "0.1.20", "RUSTSEC-2019-0033 and -0034: overflow in HeaderMap::reserve"),
    ("hyper", "0.14.12", "RUSTSEC-2021-0078, RUSTSEC-2021-0079 and RUSTSEC-2022-0022: request smuggling"),
    ("idna", "1.0.0", "RUSTSEC-2024-0421: hosts that compare wrong"),
    ("lru", "0.18.2", "RUSTSEC-2026-0253"),
    ("memmap2", "0.9.11", "RUSTSEC-2026-0186: ranges not checked"),
    ("mio", "0.8.11", "RUSTSEC-2024-0019: tokens of others"),
    ("once_cell", "1.0.1", "RUSTSEC-2019-0017: undefined after a panic"),
    ("protobuf", "3.7.2", "RUSTSEC-2024-0437: recursion without end"),
    ("quinn", "0.7.0", "RUSTSEC-2021-0035: memory layout assumed"),
    ("quinn-proto", "0.11.15", "RUSTSEC-2026-0037, RUSTSEC-2026-0185: memory without end"),
    ("rand", "0.8.6", "RUSTSEC-2026-0097: unsound with a custom logger"),
    ("rand", "0.9.3", "RUSTSEC-2026-0097: unsound with a custom logger"),
    ("rand", "0.10.1", "RUSTSEC-2026-0097: unsound with a custom logger"),
    ("rand_core", "0.6.2", "RUSTSEC-2021-0023: fewer random bytes than asked for"),
    ("ring", "0.17.12", "RUSTSEC-2025-0009: panic in AES"),
    ("rustls", "0.23.45", "RUSTSEC-2026-0285"),
    ("rustls-webpki", "0.103.13", "RUSTSEC-2026-0049, -0098, -0099 and -0104"),
    ("security-framework", "0.1.12", "RUSTSEC-2017-0003: host names not checked"),
    ("sha2", "0.9.8", "RUSTSEC-2021-0100: wrong hashes"),
    ("shlex", "1.3.0", "RUSTSEC-2024-0006: quotes that do not hold"),
    ("slab", "0.4.11", "RUSTSEC-2025-0047: access out of bounds"),
    ("smallvec", "1.6.1", "RUSTSEC-2021-0003: buffer overflow"),
    ("socket2", "0.3.16", "RUSTSEC-2020-0079: memory layout assumed"),
    ("thread_local", "1.1.4", "RUSTSEC-2022-0006: data race"),
    ("time", "0.3.47", "RUSTSEC-2026-0009: stack exhaustion"),
    ("tokio", "1.44.2", "RUSTSEC-2025-0023: unsound broadcast channel"),
    ("tokio-rustls", "0.13.1", "RUSTSEC-2020-0019: memory without end"),
    ("tracing", "0.1.40", "RUSTSEC-2023-0078: use after free"),
    ("tracing-subscriber", "0.3.20", "RUSTSEC-2025-0055: escape sequences in logs"),
    ("tungstenite", "0.20.1", "RUSTSEC-2023-0065: headers without end"),
    ("untrusted", "0.6.2", "RUSTSEC-2018-0001: panic on underflow"),
];

/// Crates that must not come in at all.
const FORBIDDEN: &[(&str, &str)] =
    &[("serde_yaml", "unmaintained"), ("tokio-tar", "RUSTSEC-2025-0111: wrong file boundaries, unmaintained")];

/// Crates of which exactly one version will do.
const EXACT: &[(&str, &str, &str)] = &[("bincode", "2.0.1", "docs/decisions/bincode.md")];

type Version = [u64; 3];

/// Three numbers; what follows a `+` does not count. A pre-release is no version that has a floor, so it is refused.
fn parse_version(text: &str) -> Option<Version> {
    let plain = text.split('+').next()?;
    let (numbers, pre_release) = plain.split_once('-').map_or((plain, false), |(numbers, _)| (numbers, true));
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    (parts.next().is_none() && !pre_release).then_some(version)
}

/// The release line: versions in one line are compatible by cargo's rule.
fn line([major, minor, patch]: Version) -> Version {
    match (major, minor) {
        (0, 0) => [0, 0, patch],
        (0, _) => [0, minor, 0],
        _ => [major, 0, 0],
    }
}

/// `(name, version)` of every package in the lock file.
fn locked(text: &str) -> Vec<(String, String)> {
    let value =
        |line: &str, key: &str| Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
    let mut packages = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if line == "[[package]]" {
            name = None;
        } else if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let Some(version) = value(line, "version") {
            packages.extend(name.take().map(|name| (name, version)));
        }
    }
    packages
}

fn offences(packages: &[(String, String)]) -> Vec<String> {
    let mut offences = Vec::new();
    for (name, version) in packages {
        let floors: Vec<_> = FLOORS.iter().filter(|(floor, _, _)| floor == name).collect();
        if let Some((_, _, why)) = floors.first() {
            let parsed = parse_version(version);
            let fine = |version: Version| {
                let minima = floors.iter().filter_map(|(_, floor, _)| parse_version(floor));
                let newest = minima.clone().map(line).max();
                newest.is_none_or(|newest| line(version) > newest)
                    || minima.clone().any(|floor| line(floor) == line(version) && version >= floor)
            };
            if !parsed.is_some_and(fine) {
                let wanted: Vec<&str> = floors.iter().map(|(_, floor, _)| *floor).collect();
                offences.push(format!("{name} {version} is below {}: {why}", wanted.join(" or ")));
            }
        }
        for (_, why) in FORBIDDEN.iter().filter(|(forbidden, _)| forbidden == name) {
            offences.push(format!("{name} must not be used: {why}"));
        }
        for (_, exact, why) in EXACT.iter().filter(|(exact, wanted, _)| exact == name && wanted != version) {
            offences.push(format!("{name} {version} must be exactly {exact}: {why}"));
        }
    }
    offences
}

#[test]
fn known_advisories_are_patched() {
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let path = workspace::root().join(file);
        let packages = locked(&std::fs::read_to_string(path).unwrap());
        assert!(packages.len() > 50, "{file} was not understood: {packages:?}");
        assert!(packages.iter().any(|(name, _)| name == "bincode"), "bincode is pinned because it is used");
        assert_eq!(offences(&packages), [""; 0], "{file}");
    }
}

#[test]
fn old_versions_are_named() {
    let check = |name: &str, version: &str, expected: &[&str]| {
        assert_eq!(offences(&[(name.to_owned(), version.to_owned())]), expected, "{name} {version}");
    };
    check("serde", "0.0.1", &[]);
    check("h2", "0.4.16", &[]);
    check("h2", "0.4.15", &["h2 0.4.15 is below 0.4.16: RUSTSEC-2026-0258: empty DATA frames without end"]);
    check("h2", "0.3.99", &["h2 0.3.99 is below 0.4.16: RUSTSEC-2026-0258: empty DATA frames without end"]);
    check("h2", "0.5.0", &[]);
    check("h2", "1.0.0-rc.1", &["h2 1.0.0-rc.1 is below 0.4.16: RUSTSEC-2026-0258: empty DATA frames without end"]);
    check("h2", "0.4.20+more", &[]);
    check("rand", "0.8.6", &[]);
    check("rand", "0.10.4", &[]);
    for version in ["0.7.9", "0.8.5", "0.9.2", "0.10.0"] {
        let expected = format!(
            "rand {version} is below 0.8.6 or 0.9.3 or 0.10.1: RUSTSEC-2026-0097: unsound with a custom logger"
        );
        check("rand", version, &[&expected]);
    }
    check("bincode", "2.0.1", &[]);
    check("bincode", "3.0.0", &["bincode 3.0.0 must be exactly 2.0.1: docs/decisions/bincode.md"]);
    check("serde_yaml", "0.9.34", &["serde_yaml must not be used: unmaintained"]);
}

#[test]
fn lock_files_are_read() {
    let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
    let expected = [("a", "1.2.3"), ("b", "0.1.0")].map(|(name, version)| (name.to_owned(), version.to_owned()));
    assert_eq!(locked(text), expected);
}
