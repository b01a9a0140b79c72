//! The calls of `docs/spec/http.md` as a `tower` service.

mod body;
mod conditional;
mod path;
mod pool;
mod problem;
mod range;

pub use body::{Body, BodyError};
pub use path::{ContentPath, PathError};

use crate::control::{self, ControlLimits};
use crate::site::{ContentInfo, ManifestForm, PartBytes, PartVerdict, Site};
use crate::{HASHES_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, MANIFEST_RELATION, SESSION_HEADER};
use bytes::Bytes;
use conditional::{Condition, Validators};
use http::header::{ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST};
use http::header::{LAST_MODIFIED, LINK, ORIGIN, RANGE, TRANSFER_ENCODING, UPGRADE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hybrid_manifest::{ContentId, PartNumber, PartRange};
use hybrid_wire::SessionToken;
use pool::Pool;
use problem::Problem;
use range::RangeVerdict;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

/// Where a request comes from: a request extension that [`crate::serve`] sets.
///
/// An embedder inserts it with the address that its own listener saw; without it there are no control channels, since the
/// server would not know which address to give to peers.
/// Headers such as `X-Forwarded-For` are never believed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "an embedder makes it")]
pub struct ClientAddress(pub SocketAddr);

/// Who asks, and over what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// See [`ClientAddress`].
    pub(crate) address: Option<SocketAddr>,
    /// Whether the connection sends sealed bytes without copying them.
    pub(crate) sends_pages: bool,
}

/// The limits of a service. [`Default`] is for the open Internet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceLimits {
    /// Parts being read at one time, paced ones that wait not counted. Default 256: at 256 KiB each, 64 MiB of buffers.
    /// Twice as many may wait; more are told 503 at once.
    /// Manifests and contents have no such limit: they wait for one preparation or one read each, and a server that is
    /// overrun must still be able to send its clients to the swarm.
    pub reads_max: usize,
    /// Proofs being made at one time. Default 64; twice as many may wait.
    pub proofs_max: usize,
    /// Control channels are limited by [`crate::ServerConfig::connections_max`]; this is the time for their handshake.
    /// Default 10 s.
    pub upgrade_limit: Duration,
    /// A client that says nothing for so long, not even a pong, is gone. Default 60 s.
    pub control_silence_limit: Duration,
    /// A message that is not written after so long ends the channel. Default 30 s.
    pub control_write_limit: Duration,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            reads_max: 256,
            proofs_max: 64,
            upgrade_limit: Duration::from_secs(10),
            control_silence_limit: Duration::from_secs(60),
            control_write_limit: Duration::from_secs(30),
        }
    }
}

/// Serves a [`Site`] over HTTP. Clones share the site and the limits.
///
/// Request bodies are never read: no call has one.
pub struct Service<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    site: Arc<S>,
    base_path: String,
    limits: ServiceLimits,
    reads: Pool,
    proofs: Pool,
}

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("base_path", &self.inner.base_path).finish_non_exhaustive()
    }
}

impl<S: Site> Service<S> {
    /// A service at the root of its host.
    pub fn new(site: Arc<S>) -> Self {
        Self::mounted(site, "", ServiceLimits::default())
    }

    /// A service that its host has mounted at `base_path`, such as `/media`.
    ///
    /// The host strips that prefix from requests, as routers do; here it only makes the links right.
    /// A `base_path` with characters that no header may carry leaves the links out.
    pub fn mounted(site: Arc<S>, base_path: &str, limits: ServiceLimits) -> Self {
        let reads = Pool::new(limits.reads_max);
        let proofs = Pool::new(limits.proofs_max);
        let base_path = base_path.trim_end_matches('/').to_owned();
        Self { inner: Arc::new(Inner { site, base_path, limits, reads, proofs }) }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S: Site, B> tower_service::Service<Request<B>> for Service<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Overload is answered, not waited for: the host would only queue the requests elsewhere.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let address = request.extensions().get::<ClientAddress>().map(|ClientAddress(address)| *address);
        let (head, upgrade) = split(request);
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(head, upgrade, Caller { address, sends_pages: false }).await) })
    }
}

impl<S: Site> Service<S> {
    pub(crate) async fn answer(
        &self,
        head: http::request::Parts,
        upgrade: Option<Upgrade>,
        caller: Caller,
    ) -> Response<Body> {
        let head_only = head.method == Method::HEAD;
        let mut response = match self.inner.answer(&head, caller, upgrade).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if head_only {
            let length = http_body::Body::size_hint(response.body()).exact();
            if let Some(length) = length.filter(|_| response.status() != StatusCode::NOT_MODIFIED) {
                response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
            }
            *response.body_mut() = Body::empty();
        }
        response
    }
}

/// What a request asks for, without its body: no call reads one.
pub(crate) fn split<B>(mut request: Request<B>) -> (http::request::Parts, Option<Upgrade>) {
    let upgrade = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let accept = upgrade.is_some().then(|| control::accept_handshake(&request)).flatten();
    (request.into_parts().0, upgrade.zip(accept))
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// A call beneath `/hybrid/`, or a content.
enum Call<'a> {
    Health,
    Content(&'a str),
    Manifest(&'a str),
    Part { content: &'a str, number: &'a str },
    Hashes { content: &'a str },
    Control,
    Unknown,
}

fn route(path: &str) -> Call<'_> {
    let Some(path) = path.strip_prefix('/') else { return Call::Unknown };
    if path == "healthz" {
        return Call::Health;
    }
    let Some(call) = path.strip_prefix("hybrid/").or((path == "hybrid").then_some("")) else {
        return Call::Content(path);
    };
    let Some((name, rest)) = call.strip_prefix("v1/").map(|call| call.split_once('/').unwrap_or((call, ""))) else {
        return Call::Unknown;
    };
    match (name, rest) {
        ("control", "") => Call::Control,
        ("manifest", path) if !path.is_empty() => Call::Manifest(path),
        ("hashes", content) if !content.is_empty() => Call::Hashes { content },
        ("parts", rest) => match rest.split_once('/') {
            Some((content, number)) => Call::Part { content, number },
            None => Call::Unknown,
        },
        _ => Call::Unknown,
    }
}

/// A control channel to come, and the answer that opens it.
pub(crate) type Upgrade = (hyper::upgrade::OnUpgrade, Response<Body>);

impl<S: Site> Inner<S> {
    async fn answer(
        &self,
        head: &http::request::Parts,
        caller: Caller,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Body>, Problem> {
        check_request(head)?;
        match route(head.uri.path()) {
            Call::Health => Ok(document(Bytes::from_static(b"ok\n"), "text/plain; charset=utf-8")),
            Call::Content(path) => self.content(&read_path(path)?, head).await,
            Call::Manifest(path) => self.manifest(&read_path(path)?, &head.headers).await,
            Call::Part { content, number } => {
                self.part(read_content_id(content)?, read_part_number(number)?, caller, head).await
            }
            Call::Hashes { content } => {
                self.hashes(read_content_id(content)?, read_hash_query(head.uri.query())?, &head.headers).await
            }
            Call::Control => self.control(head, caller, upgrade),
            Call::Unknown => Err(Problem::not_found()),
        }
    }

    async fn content(&self, path: &ContentPath, head: &http::request::Parts) -> Result<Response<Body>, Problem> {
        let info = self.site.resolve(path).await?;
        let validators = Validators { tag: quoted_hex(info.content.as_bytes()), modified: Some(info.modified) };
        let mut response = match conditional::evaluate(&head.headers, &validators) {
            Condition::Failed => return Err(precondition_failed()),
            Condition::NotModified => status(StatusCode::NOT_MODIFIED),
            Condition::Go => self.content_body(&info, &validators, head)?,
        };
        let headers = response.headers_mut();
        insert(headers, ETAG, &validators.tag);
        if let Some(modified) = conditional::http_date(info.modified) {
            headers.insert(LAST_MODIFIED, modified);
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // The name may stand for other bytes tomorrow; asking again costs one answer without a body.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let link = format!("<{}/hybrid/v1/manifest/{}>; rel=\"{MANIFEST_RELATION}\"", self.base_path, path.to_url());
        insert(headers, LINK, &link);
        Ok(response)
    }

    fn content_body(
        &self,
        info: &ContentInfo,
        validators: &Validators,
        head: &http::request::Parts,
    ) -> Result<Response<Body>, Problem> {
        let total = info.length_bytes;
        let range = match head.headers.get(RANGE).map(HeaderValue::to_str) {
            // Ranges are defined for GET only (RFC 9110 section 14.2).
            Some(Ok(value))
                if head.method == Method::GET
                    && conditional::range_applies(&head.headers, validators, SystemTime::now()) =>
            {
                range::read_range(value, total)
            }
            _ => RangeVerdict::Whole,
        };
        let body = |range| Body::content(Arc::clone(&self.site), info.content, range);
        let mut response = match range {
            RangeVerdict::Whole => Response::new(body(0..total)),
            RangeVerdict::Bytes(range) => {
                let content_range = format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1));
                let mut response = Response::new(body(range));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                insert(response.headers_mut(), CONTENT_RANGE, &content_range);
                response
            }
            RangeVerdict::Unsatisfiable => {
                return Ok(range_problem("E_RANGE", "the range is beyond the content", total));
            }
            RangeVerdict::Many => {
                return Ok(range_problem("E_RANGE_MULTI", "ask for one range at a time", total));
            }
        };
        let media_type = HeaderValue::from_str(&info.media_type)
            .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        Ok(response)
    }

    async fn manifest(&self, path: &ContentPath, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let form = match headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) {
            Some(accept) if accept.contains("application/json") && !accept.contains(MANIFEST_MEDIA_TYPE) => {
                ManifestForm::Json
            }
            _ => ManifestForm::Binary,
        };
        let found = self.site.manifest(path, form).await?;
        let media_type = match form {
            ManifestForm::Binary => MANIFEST_MEDIA_TYPE,
            ManifestForm::Json => "application/json",
        };
        let validators = Validators { tag: format!("\"{}\"", found.tag), modified: None };
        let mut response = self.conditional_document(headers, &validators, found.bytes, media_type).await?;
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    async fn hashes(
        &self,
        content: ContentId,
        parts: PartRange,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Problem> {
        let permit = self.proofs.permit().await?;
        let bytes = self.site.hashes(content, parts)?;
        drop(permit);
        let tag = format!("\"{content}-{}-{}\"", parts.first(), parts.count());
        let validators = Validators { tag, modified: None };
        let mut response = self.conditional_document(headers, &validators, bytes, HASHES_MEDIA_TYPE).await?;
        response.headers_mut().insert(CACHE_CONTROL, IMMUTABLE);
        Ok(response)
    }

    async fn conditional_document(
        &self,
        headers: &HeaderMap,
        validators: &Validators,
        bytes: Bytes,
        media_type: &'static str,
    ) -> Result<Response<Body>, Problem> {
        let mut response = match conditional::evaluate(headers, validators) {
            Condition::Failed => return Err(precondition_failed()),
            Condition::NotModified => status(StatusCode::NOT_MODIFIED),
            Condition::Go => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.site.pace(length).await;
                self.site.sent(length);
                document(bytes, media_type)
            }
        };
        insert(response.headers_mut(), ETAG, &validators.tag);
        Ok(response)
    }

    async fn part(
        &self,
        content: ContentId,
        number: PartNumber,
        caller: Caller,
        head: &http::request::Parts,
    ) -> Result<Response<Body>, Problem> {
        let session = read_session(&head.headers)?;
        let part = self.site.part_head(content, number)?;
        let validators = Validators { tag: quoted_hex(part.id.as_bytes()), modified: None };
        let mut response = match conditional::evaluate(&head.headers, &validators) {
            Condition::Failed => return Err(precondition_failed()),
            Condition::NotModified => status(StatusCode::NOT_MODIFIED),
            Condition::Go if head.method == Method::HEAD => {
                // Neither the client's share of help nor the disk is asked for what has no body.
                let mut response = document(Bytes::new(), OCTETS);
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(part.length_bytes));
                response
            }
            Condition::Go => {
                let bytes = self.part_bytes(session, content, number, part.length_bytes, caller).await?;
                typed(Body::part(bytes), OCTETS)
            }
        };
        let headers = response.headers_mut();
        let tag = Bytes::from(validators.tag);
        let id = tag.slice(1..tag.len() - 1);
        insert_shared(headers, ETAG, tag);
        headers.insert(PART_NUMBER, HeaderValue::from(number.as_u32()));
        insert_shared(headers, PART_ID, id);
        headers.insert(CACHE_CONTROL, IMMUTABLE);
        Ok(response)
    }

    async fn part_bytes(
        &self,
        session: Option<SessionToken>,
        content: ContentId,
        number: PartNumber,
        length_bytes: u32,
        caller: Caller,
    ) -> Result<PartBytes, Problem> {
        match self.site.authorize_part(session, content, number) {
            PartVerdict::Serve => {}
            PartVerdict::Wait { retry_after, code, reason } => {
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, code, reason).retry_after(retry_after));
            }
            PartVerdict::UnknownSession => {
                let detail = "the server knows no such session of this content: join again";
                return Err(Problem::new(StatusCode::UNAUTHORIZED, "E_SESSION", detail));
            }
        }
        let began = Instant::now();
        // Waited for before the part is read, so that those who wait hold no memory.
        self.site.pace(u64::from(length_bytes)).await;
        let permit = self.reads.permit().await?;
        let bytes = match caller.sends_pages {
            true => self.site.part_to_send(content, number).await?,
            false => PartBytes::Memory(self.site.part(content, number).await?),
        };
        drop(permit);
        self.site.part_served(content, began.elapsed());
        self.site.sent(u64::from(length_bytes));
        Ok(bytes)
    }

    fn control(
        &self,
        head: &http::request::Parts,
        caller: Caller,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Body>, Problem> {
        check_origin(&head.headers)?;
        let Some((on_upgrade, response)) = upgrade else {
            let detail = "this call is a WebSocket: HTTP/1.1 with 'Upgrade: websocket', version 13";
            let mut response = Problem::new(StatusCode::UPGRADE_REQUIRED, "E_UPGRADE", detail).into_response();
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            return Ok(response);
        };
        let Some(client) = caller.address else {
            tracing::error!("the host gave no ClientAddress with the request; control channels need one");
            return Err(Problem::from(crate::SiteError::Failed));
        };
        let site = Arc::clone(&self.site);
        let limits = ControlLimits {
            upgrade: self.limits.upgrade_limit,
            silence: self.limits.control_silence_limit,
            write: self.limits.control_write_limit,
        };
        tokio::spawn(async move {
            match control::open(on_upgrade, client, limits).await {
                Ok(socket) => site.control(socket).await,
                Err(error) => tracing::debug!(%error, "a control channel did not open"),
            }
        });
        Ok(response)
    }
}

const PART_NUMBER: HeaderName = HeaderName::from_static("part-number");
const PART_ID: HeaderName = HeaderName::from_static("part-id");
const OCTETS: &str = "application/octet-stream";
/// A year, the longest that RFC 9111 caches are asked to keep anything: the address names the bytes by their hash.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A request line of 8 KiB is what RFC 9110 section 4.1 asks servers to take.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// Twice what browsers send at most in practice.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Part ids in one answer. All ids of a content of usual size (about 1,024 parts) come in one.
const HASHES_MAX: u32 = 1_024;

/// What any call refuses.
fn check_request(head: &http::request::Parts) -> Result<(), Problem> {
    let bad = |code, detail: &str| Problem::new(StatusCode::BAD_REQUEST, code, detail).and_close();
    let header_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > HEADER_BYTES_MAX {
        let detail = "the headers are longer than 16 KiB";
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "E_HEADERS", detail).and_close());
    }
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_BYTES_MAX {
        let detail = "the request target is longer than 8 KiB";
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "E_TARGET", detail).and_close());
    }
    // No call has a body. One that is sent all the same would stand in front of the next request on the connection.
    let declared = head.headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if declared || head.headers.contains_key(TRANSFER_ENCODING) {
        let detail = "no call takes a request body";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "E_BODY", detail).and_close());
    }
    check_host(head).map_err(|detail| bad("E_HOST", detail))?;
    if head.method != Method::GET && head.method != Method::HEAD { Err(Problem::method()) } else { Ok(()) }
}

/// RFC 9112 section 3.2: one `Host`, and no other host in the target.
fn check_host(head: &http::request::Parts) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("there is more than one Host header");
    }
    if head.version == Version::HTTP_11 && host.is_none() {
        return Err("there is no Host header");
    }
    match (head.uri.authority(), host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err("the request target names another host than the Host header")
        }
        _ => Ok(()),
    }
}

/// A page of another site may not make its visitors join: browsers say whose page it is, programs say nothing.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin_host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    match (origin_host, host) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Problem::new(StatusCode::FORBIDDEN, "E_ORIGIN", "pages of other sites may not open control channels")),
    }
}

fn read_path(path: &str) -> Result<ContentPath, Problem> {
    ContentPath::from_url(path).map_err(|error| match error {
        PathError::Empty => Problem::not_found(),
        _ => Problem::new(StatusCode::BAD_REQUEST, "E_PATH", error.to_string()),
    })
}

fn read_content_id(text: &str) -> Result<ContentId, Problem> {
    // One spelling only, so that a cache in front holds each part once.
    let canonical = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = canonical.then(|| text.parse::<ContentId>().ok());
    id.flatten().ok_or_else(|| {
        let detail = "a content id is written as 64 hexadecimal digits in lower case";
        Problem::new(StatusCode::BAD_REQUEST, "E_CONTENT_ID", detail)
    })
}

/// A number in its only spelling: digits, no leading zero. Numbers that fit nothing become the largest.
fn read_number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = plain && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().unwrap_or(u32::MAX))
}

fn read_part_number(text: &str) -> Result<PartNumber, Problem> {
    read_number(text).map(PartNumber::new).ok_or_else(|| {
        let detail = "a part number is written in decimal digits without leading zeros";
        Problem::new(StatusCode::BAD_REQUEST, "E_PART_NUMBER", detail)
    })
}

fn read_hash_query(query: Option<&str>) -> Result<PartRange, Problem> {
    let bad = || {
        let detail = format!("ask with ?first=F&count=C, where C is from 1 to {HASHES_MAX}");
        Problem::new(StatusCode::BAD_REQUEST, "E_QUERY", detail)
    };
    let (mut first, mut count) = (None, None);
    for pair in query.unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        let slot = match name {
            "first" => &mut first,
            "count" => &mut count,
            _ => return Err(bad()),
        };
        if slot.replace(read_number(value).ok_or_else(bad)?).is_some() {
            return Err(bad());
        }
    }
    let (Some(first), Some(count)) = (first, count) else { return Err(bad()) };
    if count > HASHES_MAX {
        return Err(bad());
    }
    PartRange::new(PartNumber::new(first), count).ok_or_else(bad)
}

fn read_session(headers: &HeaderMap) -> Result<Option<SessionToken>, Problem> {
    let Some(value) = headers.get(SESSION_HEADER) else { return Ok(None) };
    let token = value.to_str().ok().and_then(SessionToken::from_header);
    token.map(Some).ok_or_else(|| {
        let detail = "Hybrid-Session is 32 hexadecimal digits, as the welcome gave it";
        Problem::new(StatusCode::BAD_REQUEST, "E_SESSION_FORM", detail)
    })
}

fn precondition_failed() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "E_PRECONDITION", "the content is not the one that was asked for")
}

fn range_problem(code: &'static str, detail: &str, total: u64) -> Response<Body> {
    let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, code, detail).into_response();
    insert(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{total}"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn document(bytes: Bytes, media_type: &'static str) -> Response<Body> {
    typed(Body::full(bytes), media_type)
}

fn typed(body: Body, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    // What any answer of ours holds; growing step by step costs more.
    response.headers_mut().reserve(8);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An id as a strong entity tag. By hand: formatting it digit by digit took a thirtieth of the time that a part takes.
fn quoted_hex(id: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let mut tag = String::with_capacity(2 * id.len() + 2);
    tag.push('"');
    for byte in id {
        tag.push(digit(byte >> 4));
        tag.push(digit(byte & 0xf));
    }
    tag.push('"');
    tag
}

/// As [`insert`], without a copy.
fn insert_shared(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.insert(name, value);
    }
}

/// Sets a header whose value we made; one that is no header value all the same is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for (text, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("4294967296", Some(u32::MAX)),
            ("", None),
            ("00", None),
            ("01", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("１", None),
        ] {
            assert_eq!(read_number(text), expected, "{text}");
        }
    }

    #[test]
    fn ids_as_tags_and_in_paths() {
        let id = ContentId::from_bytes(std::array::from_fn(|index| u8::try_from(index * 8 + 3).unwrap()));
        assert_eq!(quoted_hex(id.as_bytes()), format!("\"{id}\""));
        let text = id.to_string();
        assert_eq!(read_content_id(&text).ok(), Some(id));
        for text in [text.to_uppercase().as_str(), &text[1..], &format!("{text}0"), "", "g"] {
            assert!(read_content_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hash_queries() {
        for (query, expected) in [
            ("first=0&count=1", Some((0, 1))),
            ("count=1024&first=5", Some((5, 1_024))),
            ("first=0&count=1025", None),
            ("first=0&count=0", None),
            ("first=1048576&count=1", None),
            ("first=4294967295&count=2", None),
            ("first=0", None),
            ("first=0&first=1&count=1", None),
            ("first=0&count=1&more=1", None),
            ("", None),
        ] {
            let found = read_hash_query(Some(query)).ok().map(|parts| (parts.first().as_u32(), parts.count()));
            assert_eq!(found, expected, "{query}");
        }
    }
}
