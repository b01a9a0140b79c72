//! Ordinary HTTP clients get ordinary files.

use hybrid_tests::{ServerProcess, content, run_to_end, server_command};
use std::process::Command;

#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
fn curl(arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new("curl").args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
        Err(_) => {
            eprintln!("skipped: there is no curl on this machine");
            None
        }
    }
}

#[test]
fn curl_gets_ranges_validators_and_the_whole() {
    let bytes = content(3_000_000, 5);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("film.mp4");
    std::fs::write(&file, &bytes).expect("room for a file");
    let server = ServerProcess::start(folder.path(), &[]);
    let url = server.url("film.mp4");
    let id = blake3::hash(&bytes).to_hex().to_string();

    let prepared = run_to_end(server_command(&["prepare", file.to_str().expect("a plain path")]));
    assert!(prepared.status.success());
    let printed = String::from_utf8(prepared.stdout).expect("text");
    assert!(printed.starts_with(&id), "prepare printed '{printed}', b3sum would print {id}");

    let Some(range) = curl(&["-r", "1000000-1999999", &url]) else { return };
    assert!(range == bytes[1_000_000..2_000_000], "other bytes");
    let whole = curl(&[&url]).expect("curl is there");
    assert_eq!(blake3::hash(&whole).to_hex().to_string(), id);

    let headers = String::from_utf8(curl(&["--head", &url]).expect("curl is there")).expect("text").to_lowercase();
    assert!(headers.contains(&format!("etag: \"{id}\"")), "{headers}");
    assert!(headers.contains("content-length: 3000000"), "{headers}");
    assert!(headers.contains("content-type: video/mp4"), "{headers}");
    assert!(headers.contains("rel=\"hybrid-manifest\""), "{headers}");

    let tag = format!("If-None-Match: \"{id}\"");
    let unchanged = curl(&["-H", &tag, "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url]);
    assert_eq!(unchanged.as_deref(), Some(b"304 0".as_slice()));
    let changed = curl(&["-H", "If-None-Match: \"other\"", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(changed.as_deref(), Some(b"200".as_slice()));
}
