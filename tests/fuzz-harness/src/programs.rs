//! What programs read: requests, URLs and settings.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body::Body as _;
use hybrid_manifest::{ContentId, PartId, PartNumber, PartRange};
use hybrid_server_transport::client::ServerUrl;
use hybrid_server_transport::{
    ContentInfo, ContentPath, ControlSocket, Document, ManifestForm, PartHead, PartVerdict, Service, Site, SiteError,
};
use hybrid_wire::SessionToken;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};
use tower_service::Service as _;

const LENGTH: usize = 1_000;
const PART_LENGTH: usize = 300;

/// A content at `/a/b.txt` in four parts; a read beyond its end would panic.
struct OneContent;

fn id() -> ContentId {
    ContentId::from_bytes([0xab; 32])
}

fn bytes(offset: usize, length: usize) -> Bytes {
    static CONTENT: [u8; LENGTH] = [7; LENGTH];
    Bytes::from_static(&CONTENT[offset..offset + length])
}

impl Site for OneContent {
    async fn resolve(&self, path: &ContentPath) -> Result<ContentInfo, SiteError> {
        assert!(path.components().all(|component| !matches!(component, "" | "." | "..") && !component.contains('/')));
        if path.to_string() != "a/b.txt" {
            return Err(SiteError::NotFound);
        }
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Ok(ContentInfo { content: id(), length_bytes: LENGTH as u64, media_type: "text/plain".to_owned(), modified })
    }

    async fn read(&self, _: ContentId, offset: u64, length: usize) -> Result<Bytes, SiteError> {
        Ok(bytes(usize::try_from(offset).expect("an offset in the content"), length))
    }

    async fn manifest(&self, path: &ContentPath, _: ManifestForm) -> Result<Document, SiteError> {
        self.resolve(path).await?;
        Ok(Document { bytes: Bytes::from_static(b"manifest"), tag: "m".to_owned() })
    }

    fn part_head(&self, content: ContentId, number: PartNumber) -> Result<PartHead, SiteError> {
        let left = LENGTH.saturating_sub(number.as_index().saturating_mul(PART_LENGTH)).min(PART_LENGTH);
        match u32::try_from(left) {
            _ if content != id() => Err(SiteError::NotFound),
            Ok(length_bytes @ 1..) => Ok(PartHead { id: PartId::from_bytes([1; 32]), length_bytes }),
            _ => Err(SiteError::NoSuchPart { part_count: 4 }),
        }
    }

    fn authorize_part(&self, session: Option<SessionToken>, _: ContentId, _: PartNumber) -> PartVerdict {
        session.map_or(PartVerdict::Serve, |_| PartVerdict::UnknownSession)
    }

    async fn part(&self, content: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        let head = self.part_head(content, number)?;
        Ok(bytes(number.as_index() * PART_LENGTH, head.length_bytes as usize))
    }

    fn hashes(&self, content: ContentId, parts: PartRange) -> Result<Bytes, SiteError> {
        let last = parts.iter().next_back().ok_or(SiteError::NotFound)?;
        self.part_head(content, last).map(|_| Bytes::from_static(b"hashes"))
    }

    async fn control(&self, _: ControlSocket) {}

    async fn pace(&self, _: u64) {}

    fn sent(&self, _: u64) {}
}

/// `METHOD TARGET`, then a header on each line.
fn request(data: &[u8]) -> Option<Request<()>> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let (method, target) = first.split_at(space);
    let method = Method::from_bytes(method).ok()?;
    let mut request = Request::builder().method(method).uri(Uri::try_from(&target[1..]).ok()?).body(()).ok()?;
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value[1..].trim_ascii()))
        {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}

/// What is ready at once: the site waits for nothing.
fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("an answer that waits for nothing is not there"),
    }
}

/// The service from the request's line and headers to the last byte of the answer.
pub(crate) fn http(data: &[u8]) {
    static SERVICE: OnceLock<Service<OneContent>> = OnceLock::new();
    let Some(request) = request(data) else { return };
    let head = request.method() == Method::HEAD;
    let mut service = SERVICE.get_or_init(|| Service::new(Arc::new(OneContent))).clone();
    let mut context = Context::from_waker(Waker::noop());
    let Ok(response) = ready(service.call(request).as_mut().poll(&mut context));
    let status = response.status();
    assert!(!status.is_server_error() && status != StatusCode::SWITCHING_PROTOCOLS, "{status}");
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(frame) = ready(body.as_mut().poll_frame(&mut context)) {
        let frame = frame.expect("nothing changes under the service");
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    let number = |value: &HeaderValue| value.to_str().ok()?.parse::<usize>().ok();
    match parts.headers.get(CONTENT_LENGTH).and_then(number) {
        Some(said) if !head => assert_eq!(said, length),
        _ => assert!(!head || length == 0, "a body for HEAD"),
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let range = parts.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).expect("206 says which");
        let (first, rest) = range.strip_prefix("bytes ").and_then(|range| range.split_once('-')).expect("a range");
        let (last, total) = rest.split_once('/').expect("a range with its total");
        let [first, last, total] = [first, last, total].map(|text| text.parse::<usize>().expect("a number"));
        assert!(total == LENGTH && last < LENGTH && last + 1 - first == length, "{range} with {length} bytes");
    }
}

pub(crate) fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((server, target)) = ServerUrl::split(text) {
        assert!(target.starts_with('/') && server.port() != 0 && !server.host().is_empty(), "{text:?}");
        assert!(!server.authority().contains(['@', '/', '#']), "{text:?}");
    }
    if let Ok(path) = ContentPath::from_url(text) {
        assert_eq!(ContentPath::from_url(&path.to_url()), Ok(path), "{text:?}");
    }
}

pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(message) = hybrid_server_cli::check_settings(text) {
        assert!(!message.is_empty(), "an error without words");
    }
}
