//! The program itself: what it prints, where it says it, and how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-server"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

/// Exit code and standard error, which must have our form.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("hybrid-server: error: "), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code().unwrap(), error)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Serving {
    child: Child,
    lines: Vec<String>,
    address: String,
}

/// Starts a server and waits until it says where it listens.
fn serve(arguments: &[&str]) -> Serving {
    let child = program(arguments).spawn().unwrap();
    let mut serving = Serving { child, lines: Vec::new(), address: String::new() };
    let mut stdout = BufReader::new(serving.child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).unwrap() == 0 {
            let mut error = String::new();
            serving.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("the server ended: {error}");
        }
        serving.lines.push(line.trim_end().to_owned());
        if let Some(url) = line.trim_end().strip_prefix("listening on ") {
            serving.address = url.split_once("://").unwrap().1.to_owned();
            return serving;
        }
    }
}

impl Serving {
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        // The shell's own kill: the program of that name is not on every machine.
        assert!(Command::new("sh").args(["-c", &format!("kill {name} {id}")]).status().unwrap().success());
    }

    fn ends(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < DEADLINE, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn get(address: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn serves_a_folder_until_it_is_told_to_stop() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("a.txt"), "hello").unwrap();
    for signal in ["-INT", "-TERM"] {
        let arguments = ["serve", text(folder.path()), "--listen", "127.0.0.1:0", "--state", text(state.path())];
        let mut server = serve(&arguments);
        assert!(get(&server.address, "/a.txt").ends_with("\r\n\r\nhello"));
        server.signal(signal);
        assert_eq!(server.ends(), 0, "{signal}");
        let mut log = String::new();
        server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(log.lines().any(|line| line.contains("stopped") && line.contains("sent_bytes=5")), "{log}");
    }
}

#[test]
fn a_running_server_explains_itself() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("film.mp4"), "moving pictures").unwrap();
    let explain = |rest: &[&str]| {
        let mut arguments = vec!["explain", "--state", text(state.path())];
        arguments.extend(rest);
        run(&arguments)
    };
    let said = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let alone = explain(&[]);
    assert_eq!(alone.status.code(), Some(4), "{alone:?}");
    assert!(String::from_utf8_lossy(&alone.stderr).contains("hybrid-server serve"), "{alone:?}");

    let arguments = ["serve", text(folder.path()), "--listen", "127.0.0.1:0", "--state", text(state.path())];
    for _ in 0..2 {
        let mut server = serve(&arguments);
        assert!(get(&server.address, "/film.mp4").ends_with("moving pictures"));
        assert_eq!(said(&explain(&[])).lines().next(), Some("film.mp4: 0 direct, 0 in the swarm, 0 of them complete"));
        let content = said(&explain(&["film.mp4"]));
        assert!(content.contains("class vod: 0 direct"), "{content}");
        let answer: serde_json::Value = serde_json::from_str(&said(&explain(&["/film.mp4", "--json"]))).unwrap();
        assert_eq!(answer["class"], "vod");
        for (unknown, words) in [(&["other"][..], "no content 'other'"), (&["--client", "00"], "a client '00'")] {
            let output = explain(unknown);
            assert_eq!(output.status.code(), Some(6), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
        }
        // A socket that a killed server left behind is no obstacle to the next one.
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert!(state.path().join("status.sock").exists());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("big"), vec![7; 50_000_000]).unwrap();
    let arguments = ["serve", text(folder.path()), "--listen", "127.0.0.1:0", "--state", text(state.path())];
    let mut server = serve(&arguments);
    // An answer that nobody takes holds up the first signal's end.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    write!(stream, "GET /big HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    server.signal("-INT");
    std::thread::sleep(Duration::from_millis(500));
    assert!(server.child.try_wait().unwrap().is_none(), "the first signal waits for the answer");
    server.signal("-INT");
    assert_eq!(server.ends(), 130);
}

#[test]
fn a_certificate_of_its_own_is_told_and_kept() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments =
        ["serve", text(folder.path()), "--listen", "127.0.0.1:0", "--state", text(state.path()), "--tls-self-signed"];
    let first = serve(&arguments).lines.clone();
    let second = serve(&arguments).lines.clone();
    let fingerprint = first[0].strip_prefix("certificate fingerprint ").unwrap();
    assert_eq!(fingerprint.len(), 64);
    assert_eq!(first[0], second[0]);
    assert!(first[1].starts_with("listening on https://127.0.0.1:"));
}

#[test]
fn what_it_refuses_and_with_which_code() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, state) = (outer.path().join("folder"), outer.path().join("state"));
    std::fs::create_dir(&folder).unwrap();
    let file = outer.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let config = outer.path().join("x.toml");
    std::fs::write(&config, "folder = \"x\"\nlisten = 5\n").unwrap();
    let thresholds = outer.path().join("thresholds.toml");
    std::fs::write(&thresholds, "[thresholds]\ncpu = { low = 0.9, high = 0.8 }\n").unwrap();
    let readable = outer.path().join("readable");
    std::fs::create_dir(&readable).unwrap();
    std::fs::write(readable.join("server.key"), [0; 32]).unwrap();
    std::fs::set_permissions(readable.join("server.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let inside = folder.join("state");
    let (folder, state) = (text(&folder), text(&state));
    let none = text(outer.path()).to_owned() + "/none";
    let cases: &[(&[&str], i32, &str)] = &[
        (&["serve", folder, "--state", state, "--listen", "nonsense"], 2, "[E_USAGE]"),
        (&["serve", &none, "--state", state], 6, "[E_FILE]"),
        (&["serve", text(&file), "--state", state], 6, "is not a folder [E_FILE]"),
        (&["serve", folder, "--state", state, "--listen", &taken_address], 4, "already in use [E_ADDRESS_IN_USE]"),
        (&["serve", folder], 3, "neither XDG_STATE_HOME nor HOME"),
        (&["serve", folder, "--state", text(&inside)], 3, "lies in the served folder"),
        (&["serve", folder, "--state", text(&inside), "--check-config"], 3, "lies in the served folder"),
        (&["serve", folder, "--state", text(&readable)], 3, "is readable by others (0644) [E_KEY_PERMISSIONS]"),
        (&["serve", "--state", state, "--config", text(&config)], 3, "x.toml:2:10: "),
        (&["serve", "--state", state, "--config", &none], 3, "[E_CONFIG]"),
        (
            &["serve", folder, "--state", state, "--config", text(&thresholds)],
            3,
            "cpu: low (0.9) must be below high (0.8)",
        ),
        (&["serve", folder, "--state", state, "--tls-cert", &none, "--tls-key", &none], 3, "[E_TLS]"),
        (&["prepare", &none], 6, "[E_FILE]"),
        (&["prepare", folder], 6, "is a folder [E_FILE]"),
        (&["prepare", "/dev/zero"], 6, "is a pipe, socket or device [E_FILE]"),
        (&["prepare", text(&file), "-o", text(&config), "--state", state], 6, "x.toml exists [E_EXISTS]"),
    ];
    for (arguments, code, words) in cases {
        let (exit, error) = failure(arguments);
        assert_eq!(exit, *code, "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let good = run(&["serve", folder, "--state", &none, "--check-config"]);
    assert_eq!((good.status.code(), good.stdout), (Some(0), b"the configuration is good\n".to_vec()));
    assert!(!Path::new(&none).exists(), "a check makes nothing");
}

#[test]
fn prepares_a_file() {
    // The hash of nothing, as b3sum prints it.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let outer = tempfile::tempdir().unwrap();
    let (file, state) = (outer.path().join("empty file"), outer.path().join("state"));
    std::fs::write(&file, "").unwrap();
    let output = run(&["prepare", text(&file)]);
    let expected = format!("{EMPTY}  {}\npart length  32768 bytes\nparts  0\n", file.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let manifest = outer.path().join("manifest");
    let arguments = ["prepare", text(&file), "--json", "-o", text(&manifest), "--state", text(&state)];
    let output = run(&arguments);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((object["event"].as_str(), object["content"].as_str()), (Some("prepared"), Some(EMPTY)));
    assert!(std::fs::read(&manifest).unwrap().starts_with(b"HYBRID"));
    assert_eq!(run(&[&arguments[..], &["--force"]].concat()).status.code(), Some(0));
}
