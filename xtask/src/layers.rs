//! `cargo xtask layers`: which crate may know which, and what pure crates must not contain.

use crate::workspace::{self, Package};
use crate::{no_arguments, source};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::Path;

const FOUNDATION: &[&str] = &["hybrid-units", "hybrid-manifest", "hybrid-wire"];

/// Decides or describes: no I/O, no clock, no threads.
pub(crate) const PURE: &[&str] = &[
    "hybrid-units",
    "hybrid-manifest",
    "hybrid-swarm",
    "hybrid-qos",
    "hybrid-wire",
    "hybrid-coordinator",
    "hybrid-session",
    "hybrid-sim",
];

/// Every package of the workspace, and our packages that it may depend on. A new arrow is a change of the architecture:
/// it gets a line here, a commit of its own and a sentence in `docs/ARCHITECTURE.md`.
const ARROWS: &[(&str, &[&[&str]])] = &[
    ("hybrid-units", &[]),
    ("hybrid-manifest", &[&["hybrid-units"]]),
    ("hybrid-swarm", &[&["hybrid-manifest"]]),
    ("hybrid-qos", &[&["hybrid-units"]]),
    ("hybrid-wire", &[&["hybrid-manifest", "hybrid-units"]]),
    ("hybrid-coordinator", &[&["hybrid-qos", "hybrid-swarm"], FOUNDATION]),
    ("hybrid-session", &[&["hybrid-swarm"], FOUNDATION]),
    // Drives both brains on a virtual network.
    ("hybrid-sim", &[&["hybrid-coordinator", "hybrid-session", "hybrid-qos"], FOUNDATION]),
    ("hybrid-server-transport", &[FOUNDATION]),
    ("hybrid-peer-transport", &[FOUNDATION]),
    ("hybrid-origin", &[&["hybrid-coordinator", "hybrid-qos", "hybrid-server-transport"], FOUNDATION]),
    ("hybrid-peer", &[&["hybrid-session", "hybrid-server-transport", "hybrid-peer-transport"], FOUNDATION]),
    // Programs name units and ids on their command lines.
    // `hybrid-server plan` plays the crowd that the server is to serve.
    ("hybrid-server-cli", &[&["hybrid-origin", "hybrid-sim", "hybrid-units", "hybrid-manifest"]]),
    ("hybrid-peer-cli", &[&["hybrid-peer", "hybrid-units", "hybrid-manifest"]]),
    ("xtask", &[]),
];

/// Arrows for tests only: the two brains are tested as a pair.
const TEST_ARROWS: &[(&str, &str)] = &[("hybrid-coordinator", "hybrid-session")];

/// These test everything from outside, so they may name everything.
const TESTS: &[&str] = &["hybrid-tests", "hybrid-fuzz-harness"];

/// I/O, run times and sockets, anywhere below a pure crate.
const BANNED_BELOW_PURE: &[&str] = &["tokio", "hyper", "quinn", "quinn-proto", "rustls", "mio", "socket2"];

/// One TLS stack and one crypto provider: rustls with aws-lc-rs.
const BANNED_ON_LINUX: &[&str] = &["ring", "openssl-sys"];

const LINUX: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    no_arguments(arguments)?;
    let packages = workspace::packages()?;
    let mut offences = arrow_offences(&packages);
    for package in packages.iter().filter(|package| PURE.contains(&&*package.name)) {
        let tree = workspace::tree(&["-p", &package.name], "all")?;
        offences.extend(tree_offences(&package.name, &tree, BANNED_BELOW_PURE));
        source_offences(&package.folder.join("src"), &mut offences)?;
    }
    let linux = workspace::tree(&["--workspace"], LINUX)?;
    offences.extend(tree_offences("the workspace on Linux", &linux, BANNED_ON_LINUX));
    for offence in &offences {
        eprintln!("layers: {offence}");
    }
    match offences.len() {
        0 => {
            let pure = packages.iter().filter(|package| PURE.contains(&&*package.name)).count();
            println!("layers: {} packages, {pure} of them pure: all arrows allowed", packages.len());
            Ok(())
        }
        1 => bail!("one offence; the rules are in xtask/src/layers.rs"),
        count => bail!("{count} offences; the rules are in xtask/src/layers.rs"),
    }
}

/// Arrows between our packages that [`ARROWS`] does not allow.
fn arrow_offences(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, Vec<&str>> =
        ARROWS.iter().map(|(name, groups)| (*name, groups.iter().copied().flatten().copied().collect())).collect();
    let mut offences = Vec::new();
    for package in packages.iter().filter(|package| !TESTS.contains(&&*package.name)) {
        let name = &*package.name;
        let Some(targets) = allowed.get(name) else {
            offences.push(format!("{name} has no place yet: give it a line with its arrows"));
            continue;
        };
        for target in package.normal.iter().filter(|target| !targets.contains(&&***target)) {
            offences.push(format!("{name} must not depend on {target}"));
        }
        let in_tests = |target: &str| targets.contains(&target) || TEST_ARROWS.contains(&(name, target));
        for target in package.dev.iter().filter(|target| !in_tests(target)) {
            offences.push(format!("{name} must not depend on {target}, not even in its tests"));
        }
    }
    offences
}

/// Packages of a dependency tree that must not be in it.
fn tree_offences(whose: &str, tree: &[String], banned: &[&str]) -> Vec<String> {
    let found = tree.iter().filter(|name| banned.contains(&&***name));
    found
        .map(|name| format!("{whose} must not depend on {name}, directly or through others (cargo tree -i {name})"))
        .collect()
}

fn source_offences(folder: &Path, offences: &mut Vec<String>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    for path in paths {
        if path.is_dir() {
            source_offences(&path, offences)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(workspace::root()).unwrap_or(&path).display();
            offences.extend(source::offences(&text).into_iter().map(|offence| format!("{shown}:{offence}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, normal: &[&str], dev: &[&str]) -> Package {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Package { name: name.to_owned(), normal: names(normal), dev: names(dev), ..Package::default() }
    }

    #[test]
    fn forbidden_arrows_are_named() {
        for (name, normal, dev, expected) in [
            ("hybrid-wire", &["hybrid-manifest", "hybrid-units"][..], &[][..], None),
            ("hybrid-units", &["hybrid-wire"], &[], Some("hybrid-units must not depend on hybrid-wire")),
            ("hybrid-origin", &["hybrid-coordinator", "hybrid-wire"], &[], None),
            ("hybrid-peer", &["hybrid-swarm"], &[], Some("hybrid-peer must not depend on hybrid-swarm")),
            (
                "hybrid-server-transport",
                &["hybrid-units", "hybrid-peer-transport"],
                &[],
                Some("hybrid-server-transport must not depend on hybrid-peer-transport"),
            ),
            ("hybrid-coordinator", &["hybrid-qos"], &["hybrid-session"], None),
            (
                "hybrid-coordinator",
                &["hybrid-session"],
                &[],
                Some("hybrid-coordinator must not depend on hybrid-session"),
            ),
            (
                "hybrid-session",
                &[],
                &["hybrid-coordinator"],
                Some("hybrid-session must not depend on hybrid-coordinator, not even in its tests"),
            ),
            ("hybrid-tests", &["hybrid-peer"], &["hybrid-origin"], None),
            ("hybrid-relay", &[], &[], Some("hybrid-relay has no place yet: give it a line with its arrows")),
        ] {
            let expected: Vec<&str> = expected.into_iter().collect();
            assert_eq!(arrow_offences(&[package(name, normal, dev)]), expected, "{name}");
        }
    }

    #[test]
    fn the_table_has_no_circle_and_pure_crates_know_pure_ones_only() {
        // Each line may only name packages of lines before it.
        for (place, (name, groups)) in ARROWS.iter().enumerate() {
            for target in groups.iter().copied().flatten() {
                let before = ARROWS[..place].iter().any(|(earlier, _)| earlier == target);
                assert!(before, "{name} → {target} goes to a later line");
                assert!(!PURE.contains(name) || PURE.contains(target), "{name} is pure, {target} is not");
            }
        }
    }

    #[test]
    fn what_lies_below_is_named() {
        let tree: Vec<String> = ["bytes", "hyper-util", "tokio"].map(str::to_owned).to_vec();
        let expected = "hybrid-wire must not depend on tokio, directly or through others (cargo tree -i tokio)";
        assert_eq!(tree_offences("hybrid-wire", &tree, BANNED_BELOW_PURE), [expected]);
    }
}
