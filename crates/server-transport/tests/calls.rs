//! The calls of `docs/spec/http.md`, byte by byte over real sockets.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{BUSY_SESSION, GOOD_SESSION, PART_LEN, Server, TestSite, id, part_id, request};
use hybrid_wire::SessionToken;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn site() -> TestSite {
    TestSite::with(&[("a.txt", 2_500), ("folder/sp ace", 10), ("empty", 0), ("big", 700_000)])
}

fn token(bytes: [u8; 16]) -> String {
    SessionToken::from_bytes(bytes).to_header()
}

#[tokio::test]
async fn contents_for_anyone() {
    let server = Server::start(site());
    let answer = server.get("/a.txt", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, server.site.contents["a.txt"].1);
    let tag = format!("\"{}\"", id(1));
    for (name, value) in [
        ("content-type", "text/x-test"),
        ("content-length", "2500"),
        ("accept-ranges", "bytes"),
        ("etag", tag.as_str()),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("link", "</hybrid/v1/manifest/a.txt>; rel=\"hybrid-manifest\""),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert_eq!(server.site.sent.load(Ordering::Relaxed), 2_500);
    assert_eq!(server.site.paced.load(Ordering::Relaxed), 2_500);

    let big = server.get("/big", &[]).await;
    assert_eq!(big.body, server.site.contents["big"].1);
    let empty = server.get("/empty", &[]).await;
    assert_eq!((empty.status, empty.header("content-length"), empty.body.len()), (200, "0", 0));
    let spaced = server.get("/folder/sp%20ace", &[]).await;
    assert_eq!(spaced.header("link"), "</hybrid/v1/manifest/folder/sp%20ace>; rel=\"hybrid-manifest\"");
    assert_eq!(server.get("/healthz", &[]).await.body, b"ok\n");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = Server::start(site());
    let session = token(GOOD_SESSION);
    let targets = ["/a.txt", "/empty", "/hybrid/v1/manifest/a.txt", &format!("/hybrid/v1/parts/{}/2", id(1))];
    for target in targets {
        let get = server.get(target, &[("hybrid-session", &session)]).await;
        let head = server.ask(&request("HEAD", target, &[("range", "bytes=0-1")])).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
        let (mut get, mut head) = (get.headers, head.headers);
        get.remove("date");
        head.remove("date");
        assert_eq!(get, head, "{target}");
    }
}

#[tokio::test]
async fn ranges() {
    let server = Server::start(site());
    let whole = server.site.contents["a.txt"].1.clone();
    let tag = format!("\"{}\"", id(1));
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (range, condition, expected) in [
        ("bytes=0-0", "", Some(0..1)),
        ("bytes=1000-1999", "", Some(1000..2000)),
        ("bytes=-500", "", Some(2000..2500)),
        ("bytes=2400-", "", Some(2400..2500)),
        ("bytes=2400-9999", "", Some(2400..2500)),
        ("bytes=0-1", tag.as_str(), Some(0..2)),
        ("bytes=0-1", date, Some(0..2)),
        ("bytes=0-1", "\"other\"", None),
        ("bytes=0-1", "garbage", None),
        ("bytes=5-2", "", None),
        ("bytes=abc", "", None),
        ("lines=1-2", "", None),
    ] {
        let mut headers = vec![("range", range)];
        if !condition.is_empty() {
            headers.push(("if-range", condition));
        }
        let answer = server.get("/a.txt", &headers).await;
        match expected {
            Some(expected) => {
                let content_range = format!("bytes {}-{}/2500", expected.start, expected.end - 1);
                assert_eq!((answer.status, answer.header("content-range")), (206, content_range.as_str()), "{range}");
                assert_eq!(answer.body, whole.slice(expected), "{range}");
            }
            None => {
                assert_eq!((answer.status, answer.header("content-range")), (200, ""), "{range} {condition}");
                assert_eq!(answer.body, whole, "{range}");
            }
        }
    }
    for (target, range, code, content_range) in [
        ("/a.txt", "bytes=2500-", "E_RANGE", "bytes */2500"),
        ("/a.txt", "bytes=-0", "E_RANGE", "bytes */2500"),
        ("/empty", "bytes=0-", "E_RANGE", "bytes */0"),
        ("/a.txt", "bytes=0-1,5-6", "E_RANGE_MULTI", "bytes */2500"),
    ] {
        let answer = server.get(target, &[("range", range)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (416, code), "{range}");
        assert_eq!(answer.header("content-range"), content_range);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn conditional_requests() {
    let server = Server::start(site());
    let tag = format!("\"{}\"", id(1));
    let part = format!("/hybrid/v1/parts/{}/1", id(1));
    let part_tag = format!("\"{}\"", part_id(1));
    for (target, name, value, status) in [
        ("/a.txt", "if-none-match", tag.as_str(), 304),
        ("/a.txt", "if-none-match", "\"x\"", 200),
        ("/a.txt", "if-match", tag.as_str(), 200),
        ("/a.txt", "if-match", "\"x\"", 412),
        ("/a.txt", "if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("/a.txt", "if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        (&part, "if-none-match", &part_tag, 304),
        ("/hybrid/v1/manifest/a.txt", "if-none-match", "\"b\"", 304),
        ("/hybrid/v1/manifest/a.txt", "if-none-match", "\"j\"", 200),
    ] {
        let answer = server.get(target, &[(name, value)]).await;
        assert_eq!(answer.status, status, "{target} {name}: {value}");
        if status == 304 {
            assert!(answer.body.is_empty());
            assert!(name != "if-none-match" || answer.header("etag") == value, "{target}: {}", answer.header("etag"));
        }
    }
}

#[tokio::test]
async fn manifests() {
    let server = Server::start(site());
    let expected = format!("manifest of {}", id(1)).into_bytes();
    for (accept, media_type) in [
        ("", "application/vnd.hybrid.manifest"),
        ("*/*", "application/vnd.hybrid.manifest"),
        ("application/vnd.hybrid.manifest, application/json;q=0.5", "application/vnd.hybrid.manifest"),
        ("application/json", "application/json"),
    ] {
        let headers = if accept.is_empty() { vec![] } else { vec![("accept", accept)] };
        let answer = server.get("/hybrid/v1/manifest/a.txt", &headers).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media_type), "{accept}");
        assert_eq!(answer.header("vary"), "accept");
        assert_eq!(answer.body == expected, media_type.contains("hybrid"));
    }
    assert_eq!(server.get("/hybrid/v1/manifest/none", &[]).await.code(), "E_NOT_FOUND");
}

#[tokio::test]
async fn parts() {
    let server = Server::start(site());
    let whole = server.site.contents["a.txt"].1.clone();
    let parts = format!("/hybrid/v1/parts/{}", id(1));
    for (number, session) in [(0, None), (1, Some(token(GOOD_SESSION))), (2, None)] {
        let headers: Vec<_> = session.iter().map(|session| ("hybrid-session", session.as_str())).collect();
        let answer = server.get(&format!("{parts}/{number}"), &headers).await;
        let start = number * PART_LEN;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, whole.slice(start..whole.len().min(start + PART_LEN)));
        let number = u32::try_from(number).unwrap();
        let part = part_id(number).to_string();
        for (name, value) in [
            ("part-number", number.to_string()),
            ("part-id", part.clone()),
            ("etag", format!("\"{part}\"")),
            ("cache-control", "public, max-age=31536000, immutable".to_owned()),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
    }
    let answer = server.get(&format!("{parts}/0"), &[("hybrid-session", &token(BUSY_SESSION))]).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "E_NOT_GRANTED"));
    // Whole seconds in the header, rounded up; the document has the rest.
    assert_eq!((answer.header("retry-after"), answer.json()["retry_after"].as_f64()), ("2", Some(1.5)));
    assert_eq!(answer.json()["detail"], "peers have it");
}

#[tokio::test]
async fn hashes() {
    let server = Server::start(site());
    let hashes = format!("/hybrid/v1/hashes/{}", id(1));
    let answer = server.get(&format!("{hashes}?first=1&count=2"), &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/vnd.hybrid.hashes"));
    assert_eq!(answer.body, [[1; 32], [2; 32]].concat());
    assert_eq!(answer.header("etag"), format!("\"{}-1-2\"", id(1)));
    assert_eq!(server.get(&format!("{hashes}?first=2&count=2"), &[]).await.code(), "E_NO_SUCH_PART");
    assert_eq!(server.get(&format!("{hashes}?first=2"), &[]).await.code(), "E_QUERY");
}

#[tokio::test]
async fn bad_requests() {
    let server = Server::start(site());
    let (id1, id9) = (id(1), id(9));
    let get = |target: &str| request("GET", target, &[]);
    let long = format!("/{}", "a".repeat(9_000));
    let session = token([9; 16]);
    for (request, status, code) in [
        (get("/"), 404, "E_NOT_FOUND"),
        (get("/none"), 404, "E_NOT_FOUND"),
        (get("/a.txt/x"), 404, "E_NOT_FOUND"),
        (get("/hybrid"), 404, "E_NOT_FOUND"),
        (get("/hybrid/v1"), 404, "E_NOT_FOUND"),
        (get("/hybrid/v2/control"), 404, "E_NOT_FOUND"),
        (get("/hybrid/v1/status"), 404, "E_NOT_FOUND"),
        (get("/hybrid/v1/parts"), 404, "E_NOT_FOUND"),
        (get("//a.txt"), 400, "E_PATH"),
        (get("/a.txt/"), 400, "E_PATH"),
        (get("/../a.txt"), 400, "E_PATH"),
        (get("/%2e%2e/a.txt"), 400, "E_PATH"),
        (get("/folder%2fsp%20ace"), 400, "E_PATH"),
        (get("/a.txt%00"), 400, "E_PATH"),
        (get("/%c0%ae%c0%ae/a"), 400, "E_PATH"),
        (get("/a%5cb"), 400, "E_PATH"),
        (get("/%zz"), 400, "E_PATH"),
        (get("/hybrid/v1/manifest/%2e%2e/a.txt"), 400, "E_PATH"),
        (get(&format!("/hybrid/v1/parts/{id1}/3")), 404, "E_NO_SUCH_PART"),
        (get(&format!("/hybrid/v1/parts/{id1}/4294967296")), 404, "E_NO_SUCH_PART"),
        (get(&format!("/hybrid/v1/parts/{id1}/-1")), 400, "E_PART_NUMBER"),
        (get(&format!("/hybrid/v1/parts/{id1}/01")), 400, "E_PART_NUMBER"),
        (get(&format!("/hybrid/v1/parts/{id1}/1.0")), 400, "E_PART_NUMBER"),
        (get(&format!("/hybrid/v1/parts/{id1}/")), 400, "E_PART_NUMBER"),
        (get(&format!("/hybrid/v1/parts/{id1}/0/0")), 400, "E_PART_NUMBER"),
        (get(&format!("/hybrid/v1/parts/{id9}/0")), 404, "E_NOT_FOUND"),
        (get("/hybrid/v1/parts/abc/0"), 400, "E_CONTENT_ID"),
        (get(&format!("/hybrid/v1/parts/{}/0", "AB".repeat(32))), 400, "E_CONTENT_ID"),
        (request("GET", &format!("/hybrid/v1/parts/{id1}/0"), &[("hybrid-session", "x")]), 400, "E_SESSION_FORM"),
        (request("GET", &format!("/hybrid/v1/parts/{id1}/0"), &[("hybrid-session", &session)]), 401, "E_SESSION"),
        (get("/hybrid/v1/control"), 426, "E_UPGRADE"),
        (request("GET", "/hybrid/v1/control", &[("origin", "http://elsewhere")]), 403, "E_ORIGIN"),
        (request("POST", "/a.txt", &[]), 405, "E_METHOD"),
        (request("TRACE", "/a.txt", &[]), 405, "E_METHOD"),
        (request("OPTIONS", "/a.txt", &[]), 405, "E_METHOD"),
        (request("GET", "/a.txt", &[("content-length", "5")]) + "hello", 413, "E_BODY"),
        (request("GET", "/a.txt", &[("transfer-encoding", "chunked")]) + "0\r\n\r\n", 413, "E_BODY"),
        (request("GET", "/a.txt", &[("host", "other")]), 400, "E_HOST"),
        (get("http://other/a.txt"), 400, "E_HOST"),
        ("GET /a.txt HTTP/1.1\r\n\r\n".to_owned(), 400, "E_HOST"),
        (get(&long), 414, "E_TARGET"),
        (request("GET", "/a.txt", &[("x", &"y".repeat(20_000))]), 431, "E_HEADERS"),
    ] {
        let answer = server.ask(&request).await;
        let shown = &request[..request.len().min(120)];
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{shown}");
        let document = answer.json();
        assert_eq!(document["status"], status);
        assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{shown}");
        if status == 405 {
            assert_eq!(answer.header("allow"), "GET, HEAD");
        }
        if matches!(code, "E_BODY" | "E_HOST" | "E_TARGET" | "E_HEADERS") {
            assert_eq!(answer.header("connection"), "close", "{shown}");
        }
    }
    // What hyper itself refuses, without a document.
    for (request, status) in [
        ("GET /a.txt\r\n\r\n".to_owned(), 400),
        ("GET /a.txt HTTP/3.0\r\n\r\n".to_owned(), 400),
        (request("GET", "/a.txt", &[("content-length", "1"), ("content-length", "2")]), 400),
        (request("GET", "/a.txt", &vec![("x", "y"); 101]), 431),
        (request("GET", "/a.txt", &[("x", &"y".repeat(100_000))]), 431),
    ] {
        assert_eq!(server.ask(&request).await.status, status, "{}", &request[..request.len().min(120)]);
    }
    // HTTP/2 in cleartext is not spoken: the preface is no request, and the connection ends.
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    common::closed(&mut stream).await;
}

#[tokio::test]
async fn two_requests_on_one_connection() {
    let server = Server::start(site());
    let mut stream = server.connect().await;
    let both = request("GET", "/a.txt", &[]) + &request("GET", "/none", &[]);
    stream.write_all(both.as_bytes()).await.unwrap();
    // Read byte by byte, so that nothing of the second answer is taken with the first.
    let mut one_by_one = tokio::io::BufReader::with_capacity(1, &mut stream);
    let first = common::read_answer(&mut one_by_one, true).await;
    assert_eq!(first.status, 200);
}

#[tokio::test]
async fn a_content_that_breaks_is_cut_short() {
    let site = TestSite { broken_from: Some(1), ..site() };
    let server = Server::start(site);
    let answer = server.get("/big", &[]).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "700000"));
    assert_eq!(answer.body.len(), 128 << 10, "the connection ends before the length that was promised");
}

#[tokio::test]
async fn a_panic_stays_in_its_connection() {
    let server = Server::start(site());
    let mut healthy = server.connect().await;
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/panic", &[]).as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    healthy.write_all(request("GET", "/a.txt", &[("connection", "close")]).as_bytes()).await.unwrap();
    assert_eq!(common::read_answer(&mut healthy, false).await.status, 200);
    let summary = server.stop().await;
    assert_eq!((summary.connections, summary.panics), (2, 1));
}
