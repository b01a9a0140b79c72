//! The workspace as cargo sees it.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of our packages and which of our packages it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Where its `Cargo.toml` is.
    pub(crate) folder: PathBuf,
    /// Names under `[dependencies]` and `[build-dependencies]`, for any platform and feature.
    pub(crate) normal: Vec<String>,
    /// Names under `[dev-dependencies]`.
    pub(crate) dev: Vec<String>,
}

/// The workspace's folder, wherever `cargo xtask` was called.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs us, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} prints text"))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let json = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&json).context("cargo metadata is not JSON")?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target folder")
}

/// Builds both programs in release mode; gives the folder where they are.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    println!("building the programs (release)");
    let status = cargo()
        .args(["build", "--release", "--package", "hybrid-server-cli", "--package", "hybrid-peer-cli"])
        .status()?;
    ensure!(status.success(), "the programs do not build");
    Ok(target()?.join("release"))
}

/// Our packages.
pub(crate) fn packages() -> anyhow::Result<Vec<Package>> {
    let json = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    parse_packages(&json)
}

fn parse_packages(json: &str) -> anyhow::Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(json).context("cargo metadata is not JSON")?;
    let listed = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let name_of = |value: &Value| value["name"].as_str().map(str::to_owned).context("a package has no name");
    let ours: Vec<String> = listed.iter().map(name_of).collect::<anyhow::Result<_>>()?;
    listed
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().context("a package has no path")?;
            let folder = Path::new(manifest).parent().context("a manifest has no folder")?;
            let mut parsed = Package { name: name_of(package)?, folder: folder.to_owned(), ..Package::default() };
            for dependency in package["dependencies"].as_array().context("a package has no list of dependencies")? {
                let name = name_of(dependency)?;
                if ours.contains(&name) {
                    let dev = dependency["kind"].as_str() == Some("dev");
                    if dev { &mut parsed.dev } else { &mut parsed.normal }.push(name);
                }
            }
            Ok(parsed)
        })
        .collect()
}

/// The names of all packages in the normal dependency tree of `arguments` (`-p NAME` or `--workspace`) on a target.
pub(crate) fn tree(arguments: &[&str], target: &str) -> anyhow::Result<Vec<String>> {
    let fixed = ["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--target", target];
    let text = output(cargo().args(fixed).args(arguments))?;
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_by_kind() {
        let json = r#"{"packages": [
            {"name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [
                {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "serde", "kind": null}]},
            {"name": "b", "manifest_path": "/w/b/Cargo.toml", "dependencies": [{"name": "c", "kind": "build"}]},
            {"name": "c", "manifest_path": "/w/c/Cargo.toml", "dependencies": []}]}"#;
        let packages = parse_packages(json).unwrap();
        let arrows: Vec<_> = packages.iter().map(|package| (&*package.name, &package.normal, &package.dev)).collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            arrows,
            [
                ("a", &names(&["b"]), &names(&["c"])),
                ("b", &names(&["c"]), &names(&[])),
                ("c", &names(&[]), &names(&[]))
            ]
        );
        assert_eq!(packages[0].folder, Path::new("/w/a"));
    }
}
