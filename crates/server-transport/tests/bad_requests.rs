//! Requests that break a rule each: status and code of the answer, never a panic, a hang or a 5xx.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Server, TestSite, id, read_answer, request};
use tokio::io::AsyncWriteExt as _;

/// `{id}` is a content of three parts, `{none}` one that is not there, `{long}` 9,000 letters, `{deep}` 4,096 components.
const TARGETS: &[(&str, u16, &str)] = &[
    ("/%2e/a.txt", 400, "E_PATH"),
    ("/./a.txt", 400, "E_PATH"),
    ("/a.txt/.", 400, "E_PATH"),
    ("/a.txt/..", 400, "E_PATH"),
    ("/%2E%2E/%2E%2E/etc/passwd", 400, "E_PATH"),
    ("/..%2f..%2fetc%2fpasswd", 400, "E_PATH"),
    ("/..%5c..%5cwindows", 400, "E_PATH"),
    ("/%252e%252e/a.txt", 404, "E_NOT_FOUND"),
    ("/a.txt%0a", 400, "E_PATH"),
    ("/a.txt%7f", 400, "E_PATH"),
    ("/a%c2%85b", 400, "E_PATH"),
    ("/%ff", 400, "E_PATH"),
    ("/%c3", 400, "E_PATH"),
    ("/%ed%a0%80", 400, "E_PATH"),
    ("/%f4%90%80%80", 400, "E_PATH"),
    ("/%e0%80%af", 400, "E_PATH"),
    ("/%", 400, "E_PATH"),
    ("/%2", 400, "E_PATH"),
    ("/a%2", 400, "E_PATH"),
    ("/%u0041", 400, "E_PATH"),
    ("/a.txt;x=1", 404, "E_NOT_FOUND"),
    ("/A.TXT", 404, "E_NOT_FOUND"),
    ("/a.txt%20", 404, "E_NOT_FOUND"),
    ("/.hidden", 404, "E_NOT_FOUND"),
    ("/folder", 404, "E_NOT_FOUND"),
    ("/folder/", 400, "E_PATH"),
    ("///", 400, "E_PATH"),
    ("/{deep}", 400, "E_PATH"),
    ("/{long}", 414, "E_TARGET"),
    ("/hybrid/", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/", 404, "E_NOT_FOUND"),
    ("/hybrid/v0/control", 404, "E_NOT_FOUND"),
    ("/hybrid/V1/control", 404, "E_NOT_FOUND"),
    ("/Hybrid/v1/control", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/control/", 426, "E_UPGRADE"),
    ("/hybrid/v1/manifest", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/manifest/", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/manifest/none", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/manifest//a.txt", 400, "E_PATH"),
    ("/hybrid/v1/manifest/a.txt%00", 400, "E_PATH"),
    ("/hybrid/v1/parts/", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/parts/{id}", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/parts/{id}/x", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/+1", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/0x1", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/1e0", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/00", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/%31", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/%EF%BC%91", 400, "E_PART_NUMBER"),
    ("/hybrid/v1/parts/{id}/4294967295", 404, "E_NO_SUCH_PART"),
    ("/hybrid/v1/parts/{id}/18446744073709551616", 404, "E_NO_SUCH_PART"),
    ("/hybrid/v1/parts/{id}/99999999999999999999999999", 404, "E_NO_SUCH_PART"),
    ("/hybrid/v1/parts/{none}/0", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/parts/{id}0/0", 400, "E_CONTENT_ID"),
    ("/hybrid/v1/parts/%00/0", 400, "E_CONTENT_ID"),
    ("/hybrid/v1/parts//0", 400, "E_CONTENT_ID"),
    ("/hybrid/v1/hashes", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/hashes/", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/hashes/{id}", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=0", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=1025", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=-1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=-1&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=00&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=01", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=a&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=&count=", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=1&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0&count=1&more=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=0;count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=4294967295&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=4294967295&count=1024", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=4294967296&count=1", 400, "E_QUERY"),
    ("/hybrid/v1/hashes/{id}?first=3&count=1", 404, "E_NO_SUCH_PART"),
    ("/hybrid/v1/hashes/{id}?first=0&count=4", 404, "E_NO_SUCH_PART"),
    ("/hybrid/v1/hashes/{none}?first=0&count=1", 404, "E_NOT_FOUND"),
    ("/hybrid/v1/hashes/{id}/0?first=0&count=1", 400, "E_CONTENT_ID"),
];

/// Headers of a request for the content of 2,500 bytes.
const HEADERS: &[(&str, &str, u16, &str)] = &[
    ("range", "bytes=2500-2600", 416, "E_RANGE"),
    ("range", "bytes=9999999999999999999-", 416, "E_RANGE"),
    ("range", "bytes=99999999999999999999999-", 416, "E_RANGE"),
    ("range", "bytes=-0", 416, "E_RANGE"),
    ("range", "bytes=0-0,2-2", 416, "E_RANGE_MULTI"),
    ("range", "bytes=0-0,-1", 416, "E_RANGE_MULTI"),
    ("range", "bytes=0-,0-,0-,0-,0-,0-,0-,0-", 416, "E_RANGE_MULTI"),
    ("range", "bytes=", 200, ""),
    ("range", "bytes", 200, ""),
    ("range", "bytes=-", 200, ""),
    ("range", "bytes=--1", 200, ""),
    ("range", "bytes=1-0", 200, ""),
    ("range", "bytes=a-b", 200, ""),
    ("range", "bytes=0x0-1", 200, ""),
    ("range", "bytes=+0-1", 200, ""),
    ("range", "bytes=0 - 1", 200, ""),
    ("range", "Bytes=0-1", 206, ""),
    ("range", "items=0-1", 200, ""),
    ("range", "", 200, ""),
    ("if-match", "garbage", 412, "E_PRECONDITION"),
    ("if-match", "W/\"x\"", 412, "E_PRECONDITION"),
    ("if-match", "", 412, "E_PRECONDITION"),
    ("if-none-match", "garbage", 200, ""),
    ("if-modified-since", "yesterday", 200, ""),
    ("if-unmodified-since", "yesterday", 200, ""),
    ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 412, "E_PRECONDITION"),
    ("accept", "garbage", 200, ""),
    ("accept-encoding", "zip-bomb", 200, ""),
    ("hybrid-session", "x", 200, ""),
    ("x-forwarded-for", "127.0.0.1", 200, ""),
    ("forwarded", "for=127.0.0.1", 200, ""),
    ("expect", "100-continue", 200, ""),
    ("upgrade", "h2c", 200, ""),
    ("content-length", "1", 413, "E_BODY"),
    ("content-length", "-1", 400, ""),
    ("content-length", "1e3", 400, ""),
    ("content-length", "99999999999999999999", 400, ""),
    ("transfer-encoding", "gzip", 400, ""),
    ("transfer-encoding", "chunked, gzip", 400, ""),
    ("host", "", 400, "E_HOST"),
    ("host", "a b", 400, "E_HOST"),
];

/// The head of a part's request with these session headers.
const SESSIONS: &[(&str, u16, &str)] = &[
    ("", 400, "E_SESSION_FORM"),
    ("0", 400, "E_SESSION_FORM"),
    ("0707070707070707070707070707070", 400, "E_SESSION_FORM"),
    ("070707070707070707070707070707070", 400, "E_SESSION_FORM"),
    ("0707070707070707070707070707070g", 400, "E_SESSION_FORM"),
    ("07070707070707070707070707070707 ", 200, ""),
    ("0x070707070707070707070707070707", 400, "E_SESSION_FORM"),
    ("00000000000000000000000000000000", 401, "E_SESSION"),
    ("ffffffffffffffffffffffffffffffff", 401, "E_SESSION"),
];

/// Bytes of a request up to its end.
const RAW: &[(&str, u16, &str)] = &[
    ("GET /a.txt HTTP/1.0\r\nhost: x\r\n\r\n", 200, ""),
    ("GET /a.txt HTTP/1.2\r\nhost: x\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/9.9\r\nhost: x\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1 \r\nhost: x\r\n\r\n", 400, ""),
    ("GET  /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("GET a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 400, "E_HOST"),
    ("GET * HTTP/1.1\r\nhost: x\r\n\r\n", 404, "E_NOT_FOUND"),
    ("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("GET /\u{e9} HTTP/1.1\r\nhost: x\r\n\r\n", 404, "E_NOT_FOUND"),
    ("GET /a.txt#x HTTP/1.1\r\nhost: x\r\n\r\n", 200, ""),
    ("GET http://x@y/a.txt HTTP/1.1\r\nhost: y\r\n\r\n", 400, "E_HOST"),
    ("GET ftp://x/a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 200, ""),
    ("get /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("PUT /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("DELETE /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("PATCH /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("PROPFIND /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n", 405, "E_METHOD"),
    ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 405, "E_METHOD"),
    ("\0GET /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("G\0T /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("GET /a\0b HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400, "E_HOST"),
    ("GET /a.txt HTTP/1.1\r\nhost : x\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\n host: x\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\nx: y\r\n z\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\n: empty\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n", 400, ""),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\nx: a\rb\r\n\r\n", 400, ""),
    (
        "GET /a.txt HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        413,
        "E_BODY",
    ),
    (
        "GET /a.txt HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        413,
        "E_BODY",
    ),
    ("GET /a.txt HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n", 413, "E_BODY"),
    ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /a.txt HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
    ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n", 400, ""),
    ("GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 426, "E_UPGRADE"),
    (
        "GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        426,
        "E_UPGRADE",
    ),
    (
        "GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 12\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        426,
        "E_UPGRADE",
    ),
    (
        "GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: short\r\n\r\n",
        426,
        "E_UPGRADE",
    ),
    (
        "GET /hybrid/v1/control HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        426,
        "E_UPGRADE",
    ),
    (
        "POST /hybrid/v1/control HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        405,
        "E_METHOD",
    ),
    (
        "GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\norigin: null\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        403,
        "E_ORIGIN",
    ),
    (
        "GET /hybrid/v1/control HTTP/1.1\r\nhost: x\r\norigin: http://x.evil\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        403,
        "E_ORIGIN",
    ),
];

fn target(template: &str) -> String {
    let deep = "a/".repeat(4_096);
    let target = template.replace("{id}", &id(1).to_string()).replace("{none}", &id(9).to_string());
    target.replace("{deep}", &deep[..deep.len() - 1]).replace("{long}", &"a".repeat(9_000))
}

struct Table {
    server: Server,
    wrong: Vec<String>,
}

impl Table {
    fn new() -> Self {
        let site = TestSite::with(&[("a.txt", 2_500), ("folder/sp ace", 10), ("empty", 0)]);
        Self { server: Server::start(site), wrong: Vec::new() }
    }

    /// An empty code stands for an answer without a document.
    async fn check(&mut self, row: &str, request: &str, status: u16, code: &str) {
        let mut stream = self.server.connect().await;
        // The server may answer, and close, before all is written.
        drop(stream.write_all(request.as_bytes()).await);
        let answer = read_answer(&mut stream, false).await;
        let document = answer.header("content-type") == "application/problem+json";
        let got = if document { answer.code() } else { String::new() };
        if (answer.status, got.as_str()) != (status, code) {
            self.wrong.push(format!("{row:?}: {} {got:?}", answer.status));
        }
    }

    fn end(&self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

#[tokio::test]
async fn targets() {
    let mut table = Table::new();
    for (template, status, code) in TARGETS {
        table.check(template, &request("GET", &target(template), &[("connection", "close")]), *status, code).await;
    }
    table.end();
}

#[tokio::test]
async fn headers() {
    let mut table = Table::new();
    for (name, value, status, code) in HEADERS {
        let asked = request("GET", "/a.txt", &[(name, value), ("connection", "close")]);
        table.check(&format!("{name}: {value}"), &asked, *status, code).await;
    }
    let part = target("/hybrid/v1/parts/{id}/0");
    for (session, status, code) in SESSIONS {
        let asked = request("GET", &part, &[("hybrid-session", session), ("connection", "close")]);
        table.check(session, &asked, *status, code).await;
    }
    table.end();
}

#[tokio::test]
async fn bytes() {
    let mut table = Table::new();
    for (raw, status, code) in RAW {
        table.check(raw, &raw.replacen("\r\nhost", "\r\nconnection: close\r\nhost", 1), *status, code).await;
    }
    table.end();
}
