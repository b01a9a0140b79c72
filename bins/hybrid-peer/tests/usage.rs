//! The program itself, used wrongly: each mistake with its exit code, its stable code, and words that help.
//!
//! Nothing here reaches a server: port 1 of this machine stands for one where the mistake is found before anybody is asked.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const CONFIG: i32 = 3;
const NETWORK: i32 = 4;
const FILES: i32 = 6;

const URL: &str = "http://127.0.0.1:1/film.mp4";

/// Runs the program in a folder; gives exit code and standard error, which must have our form.
fn failure(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-peer"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_clear();
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("hybrid-peer: error: "), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), error)
}

/// One mistake: the whole line, split at blanks.
fn check(folder: &Path, line: &str, exit: i32, code: &str, words: &[&str]) {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let (got, error) = failure(folder, &arguments);
    assert_eq!(got, Some(exit), "{line}: {error}");
    assert!(error.lines().next().unwrap().ends_with(&format!(" [{code}]")), "{line}: {error}");
    for word in words {
        assert!(error.contains(word), "{line}: no {word:?} in {error}");
    }
}

#[test]
fn a_password_is_not_shown_again() {
    let folder = TempDir::new().unwrap();
    let (_, error) = failure(folder.path(), &["inspect", "http://user:secret@127.0.0.1:1/x"]);
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "wrong words leave nothing behind");
}

#[test]
fn wrong_files() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::write(root.join("out.bin"), "precious").unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    std::os::unix::fs::symlink("out.bin", root.join("link")).unwrap();
    std::os::unix::fs::symlink("folder", root.join("folder-link")).unwrap();
    // Held by this process: for the program it is another one.
    fs::create_dir(root.join("locked")).unwrap();
    fs::write(root.join("locked/lock"), "4711\n").unwrap();
    let lock = File::open(root.join("locked/lock")).unwrap();
    lock.lock().unwrap();
    for (line, code, words) in [
        ("-o out.bin", "E_EXISTS", &["out.bin exists", "--force replaces it"][..]),
        ("-o folder", "E_FILE", &["folder is a folder", "-o FILE"]),
        ("-o folder --force", "E_FILE", &["folder is a folder"]),
        ("-o link --force", "E_FILE", &["link is a symbolic link"]),
        ("-o no/such/out.bin", "E_FILE", &["no/such"]),
        ("-o out.bin/below", "E_FILE", &["out.bin is no folder"]),
        ("--cache out.bin", "E_CACHE", &["out.bin cannot be the cache: it is not a folder", "--cache DIR"]),
        ("--cache folder-link", "E_CACHE", &["a symbolic link"]),
        ("--cache /", "E_CACHE", &["the root of the file system"]),
        ("--cache locked", "E_CACHE_IN_USE", &["in use by process 4711", "--cache DIR"]),
        ("--cache new --tls-ca no-such.pem", "E_FILE", &["cannot read no-such.pem"]),
        ("--cache new --tls-ca folder", "E_FILE", &["not a file of certificates"]),
    ] {
        check(root, &format!("get {URL} {line}"), FILES, code, words);
    }
    assert_eq!(fs::read(root.join("out.bin")).unwrap(), b"precious");
    assert_eq!(fs::read(root.join("locked/lock")).unwrap(), b"4711\n");
}

#[test]
fn wrong_surroundings() {
    let folder = TempDir::new().unwrap();
    let get = format!("get {URL}");
    check(folder.path(), &get, CONFIG, "E_CONFIG", &["XDG_CACHE_HOME", "HOME", "--cache DIR"]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let line = format!("{get} --cache cache --listen {address}");
    check(folder.path(), &line, NETWORK, "E_ADDRESS_IN_USE", &[&address.to_string(), "--listen"]);
    let (_, error) = failure(folder.path(), &["get", URL, "--cache", "cache"]);
    assert!(error.contains("[E_UNREACHABLE]"), "{error}");
}
