//! Parts in sealed pages over real sockets: whatever a client does, it gets their bytes and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{DEADLINE, Server, TestSite, id, request};
use hybrid_server_transport::{ClientAddress, Sealer, Service};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const PART: usize = 3 << 20;

/// Two parts and a bit.
fn site(descriptors_max: usize) -> TestSite {
    let mut site = TestSite::with(&[("a.bin", 2 * PART + 1_234)]);
    (site.part_len, site.sealer) = (PART, Sealer::new(descriptors_max));
    site
}

fn part(server: &Server, number: usize) -> bytes::Bytes {
    let whole = &server.site.contents["a.bin"].1;
    whole.slice(number * PART..whole.len().min((number + 1) * PART))
}

fn get(number: usize) -> String {
    request("GET", &format!("/hybrid/v1/parts/{}/{number}", id(1)), &[])
}

/// The headers of the next answer, byte by byte, so that what follows stays where it is.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read_body(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    timeout(DEADLINE, stream.read_exact(&mut body)).await.unwrap().unwrap();
    body
}

async fn expect_part(server: &Server, stream: &mut TcpStream, number: usize) {
    let expected = part(server, number);
    let head = read_head(stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", expected.len())), "{head}");
    assert!(read_body(stream, expected.len()).await == expected, "part {number} came with other bytes");
}

#[tokio::test]
async fn requests_in_a_row_of_every_kind() {
    let server = Server::start(site(8));
    let mut stream = server.connect().await;
    let head = request("HEAD", &format!("/hybrid/v1/parts/{}/0", id(1)), &[]);
    let range = request("GET", "/a.bin", &[("range", "bytes=100-299")]);
    let all = [&get(0), &head, &get(1), &get(2), &range, &get(0), &request("GET", "/healthz", &[])];
    stream.write_all(all.map(String::as_str).concat().as_bytes()).await.unwrap();
    expect_part(&server, &mut stream, 0).await;
    assert!(read_head(&mut stream).await.contains(&format!("content-length: {PART}\r\n")));
    expect_part(&server, &mut stream, 1).await;
    expect_part(&server, &mut stream, 2).await;
    assert!(read_head(&mut stream).await.contains("content-range: bytes 100-299/"));
    assert_eq!(read_body(&mut stream, 200).await, part(&server, 0)[100..300]);
    expect_part(&server, &mut stream, 0).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(read_body(&mut stream, 3).await, b"ok\n");
}

#[tokio::test]
async fn a_reader_with_a_small_buffer() {
    let server = Server::start(site(8));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    for number in [1, 0] {
        stream.write_all(get(number).as_bytes()).await.unwrap();
        expect_part(&server, &mut stream, number).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_goes_away_frees_the_pages() {
    let server = Server::start(site(1));
    let mut stream = server.connect().await;
    stream.write_all([get(0), get(1)].concat().as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    read_body(&mut stream, 1_000).await;
    assert!(server.site.sealer.seal(b"bytes").is_none(), "the part being sent holds the only descriptor");
    // With no descriptor left, parts come from memory.
    let mut other = server.connect().await;
    other.write_all(get(0).as_bytes()).await.unwrap();
    expect_part(&server, &mut other, 0).await;
    drop(stream);
    let freed = async {
        while server.site.sealer.seal(b"bytes").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, freed).await.expect("the pages are freed in time");
    other.write_all(get(1).as_bytes()).await.unwrap();
    expect_part(&server, &mut other, 1).await;
}

#[tokio::test]
async fn a_host_that_takes_the_body_gets_the_bytes() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let site = Arc::new(site(8));
    let service = Service::new(Arc::clone(&site));
    let target = format!("http://localhost/hybrid/v1/parts/{}/1", id(1));
    let request = http::Request::get(target).header("host", "localhost");
    let request = request.extension(ClientAddress("127.0.0.1:1".parse().unwrap())).body(()).unwrap();
    let answer = service.oneshot(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body == site.contents["a.bin"].1[PART..2 * PART]);
}

#[test]
fn what_is_sealed_is_what_was_given() {
    let sealer = Sealer::new(1);
    for bytes in [&b"some bytes"[..], &[7; 100_000]] {
        let sealed = sealer.seal(bytes);
        assert_eq!(sealed.is_some(), cfg!(target_os = "linux"), "Linux can seal");
        let Some(sealed) = sealed else { return };
        assert_eq!((sealed.len(), &sealed.to_bytes().unwrap()[..]), (bytes.len(), bytes));
        assert!(sealer.seal(bytes).is_none(), "there is one descriptor");
    }
    assert!(sealer.seal(b"").is_none());
}
