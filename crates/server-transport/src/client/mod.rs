//! The client's end: fetches manifests, hashes and parts, and opens control channels.
//!
//! It speaks HTTP/1.1 over a few connections that it keeps: bulk transfers cost less that way than over HTTP/2.
//! It follows no redirects, and everything that a server can make it hold or wait for has a limit.
//! What comes back is not verified here; `hybrid_manifest` does that.

mod connect;
mod control;
mod error;
mod trust;
mod url;

pub use control::{ClientControl, ClientControlSender};
pub use error::{Blame, FetchError};
pub use trust::{TlsTrust, TlsTrustError};
pub use url::{ServerUrl, UrlError};

use crate::{ContentPath, MANIFEST_MEDIA_TYPE, MANIFEST_RELATION, SESSION_HEADER};
use bytes::{Bytes, BytesMut};
use connect::Connector;
use http::header::{ACCEPT, CONTENT_LENGTH, HOST, LINK, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hybrid_manifest::{ContentId, PartNumber, PartRange};
use hybrid_wire::SessionToken;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The limits of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// `User-Agent`. Default `hybrid/` and the version.
    pub user_agent: String,
    /// How long a connection may take, TLS included. Default 10 s.
    pub connect_limit: Duration,
    /// How long an answer may take to begin. Default 60 s: a server that limits its egress makes its clients wait.
    pub answer_limit: Duration,
    /// How long an answer may stand still. Default 30 s.
    pub stall_limit: Duration,
    /// Connections kept for the next request. Default 4; more only wait for one another on the same link.
    pub idle_connections_max: usize,
    /// The longest manifest taken. Default 40 MiB: the ids of 2^20 parts with room to spare.
    pub manifest_bytes_max: usize,
    /// How long a control channel may be silent. Default 60 s.
    pub control_silence_limit: Duration,
    /// How long a message may take to be written. Default 30 s.
    pub control_write_limit: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("hybrid/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(60),
            stall_limit: Duration::from_secs(30),
            idle_connections_max: 4,
            manifest_bytes_max: 40 << 20,
            control_silence_limit: Duration::from_secs(60),
            control_write_limit: Duration::from_secs(30),
        }
    }
}

/// Part ids with their proofs, for as many parts as one call takes, fit four times over.
const HASHES_BYTES_MAX: usize = 4 << 20;
/// Error documents are some hundred bytes.
const PROBLEM_BYTES_MAX: usize = 16 << 10;
/// However long a server says: after an hour it is worth another question.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// One server, as a client sees it. Clones share connections.
#[derive(Clone)]
pub struct ServerClient {
    inner: Arc<Inner>,
}

struct Inner {
    server: ServerUrl,
    config: ClientConfig,
    connector: Connector,
    http: Client<Connector, Empty<Bytes>>,
    user_agent: HeaderValue,
}

impl fmt::Debug for ServerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerClient").field("server", &self.inner.server.to_string()).finish_non_exhaustive()
    }
}

impl ServerClient {
    /// A client of the service at `server`, which may have a base path. Nothing is sent yet.
    ///
    /// # Errors
    /// When the certificates to trust cannot be used.
    pub fn new(server: ServerUrl, trust: &TlsTrust, config: ClientConfig) -> Result<Self, TlsTrustError> {
        let connector = Connector::new(&server, trust, config.connect_limit)?;
        let http = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            // Servers close idle connections after 60 s; asking on one that is about to go costs a second question.
            .pool_idle_timeout(Duration::from_secs(45))
            .pool_max_idle_per_host(config.idle_connections_max)
            .http1_max_headers(64)
            // Headers longer than this are refused (hyper may take twice as much before it looks).
            .http1_max_buf_size(256 << 10)
            .build(connector.clone());
        let user_agent =
            HeaderValue::from_str(&config.user_agent).unwrap_or_else(|_| HeaderValue::from_static("hybrid"));
        Ok(Self { inner: Arc::new(Inner { server, config, connector, http, user_agent }) })
    }

    /// Asks for the content at `url` and finds the service behind it: by its `Link` header.
    ///
    /// # Errors
    /// [`FetchError::NotHybrid`] when the server answers but names no manifest; what it has may still be fetched by any
    /// HTTP client.
    pub async fn discover(
        url: &str,
        trust: &TlsTrust,
        config: ClientConfig,
    ) -> Result<(Self, ContentPath), FetchError> {
        let (server, target) = ServerUrl::split(url)?;
        let client = Self::new(server, trust, config)?;
        let response = client.send(Method::HEAD, &target, |_| {}).await?;
        let response = client.check(response).await?;
        let (base_path, path) = manifest_link(response.headers())
            .ok_or_else(|| FetchError::NotHybrid { reason: "its answer links to no manifest".to_owned() })?;
        let inner = &client.inner;
        let server = inner.server.with_base_path(&base_path)?;
        let (config, connector) = (inner.config.clone(), inner.connector.clone());
        let (http, user_agent) = (inner.http.clone(), inner.user_agent.clone());
        Ok((Self { inner: Arc::new(Inner { server, config, connector, http, user_agent }) }, path))
    }

    /// The server.
    pub fn server(&self) -> &ServerUrl {
        &self.inner.server
    }

    /// The binary manifest of the content at a path.
    ///
    /// # Errors
    /// When the server does not answer, or not with a manifest.
    pub async fn manifest(&self, path: &ContentPath) -> Result<Bytes, FetchError> {
        let target = self.inner.server.target(&format!("/hybrid/v1/manifest/{}", path.to_url()));
        let accept = |headers: &mut HeaderMap| {
            headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_MEDIA_TYPE));
        };
        let response = self.send(Method::GET, &target, accept).await?;
        let max = self.inner.config.manifest_bytes_max;
        self.collect(self.check(response).await?, 0, max).await
    }

    /// The bytes of a part, exactly `length_bytes` of them, not verified.
    ///
    /// # Errors
    /// [`FetchError::Refused`] when the server wants to be asked later.
    pub async fn part(
        &self,
        content: ContentId,
        number: PartNumber,
        length_bytes: u32,
        session: Option<SessionToken>,
    ) -> Result<Bytes, FetchError> {
        let target = self.inner.server.target(&format!("/hybrid/v1/parts/{content}/{number}"));
        let name_session = |headers: &mut HeaderMap| {
            if let Some(mut value) = session.and_then(|session| HeaderValue::from_str(&session.to_header()).ok()) {
                value.set_sensitive(true);
                headers.insert(SESSION_HEADER, value);
            }
        };
        let response = self.send(Method::GET, &target, name_session).await?;
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        let bytes = self.collect(self.check(response).await?, length, length).await?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(FetchError::TooShort { expected_bytes: length_bytes.into(), got_bytes: size(bytes.len()) })
        }
    }

    /// Part ids with their proofs, as `docs/spec/manifest.md` encodes them, not verified.
    ///
    /// # Errors
    /// When the server does not answer, or not with as much as fits so many parts.
    pub async fn hashes(&self, content: ContentId, parts: PartRange) -> Result<Bytes, FetchError> {
        let (first, count) = (parts.first(), parts.count());
        let call = format!("/hybrid/v1/hashes/{content}?first={first}&count={count}");
        let response = self.send(Method::GET, &self.inner.server.target(&call), |_| {}).await?;
        self.collect(self.check(response).await?, 0, HASHES_BYTES_MAX).await
    }

    /// Opens a control channel.
    ///
    /// # Errors
    /// When the server cannot be reached or does not open one.
    pub async fn control(&self) -> Result<ClientControl, FetchError> {
        let inner = &self.inner;
        control::open(&inner.connector, &inner.server, &inner.config).await
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        headers: impl FnOnce(&mut HeaderMap),
    ) -> Result<Response<Incoming>, FetchError> {
        let inner = &self.inner;
        let uri = inner.server.uri(target)?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, inner.user_agent.clone());
        if let Ok(host) = HeaderValue::from_str(inner.server.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        headers(request.headers_mut());
        let limit = inner.config.answer_limit;
        match timeout(limit, inner.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(FetchError::from_client(&error)),
            Err(_) => Err(FetchError::Timeout { what: "the beginning of an answer", limit }),
        }
    }

    /// The answer, if it is the one hoped for; what its error document says otherwise.
    async fn check(&self, response: Response<Incoming>) -> Result<Response<Incoming>, FetchError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let header_retry = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        // The document only adds words; an answer without one is as clear.
        let document = self.collect(response, 0, PROBLEM_BYTES_MAX).await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&document).unwrap_or_default();
        let retry_after = problem
            .retry_after
            .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
            .or(header_retry.map(Duration::from_secs))
            .map(|after| after.min(RETRY_AFTER_MAX));
        let (status, code, detail) = (status.as_u16(), shown(problem.code, 40), shown(problem.detail, 200));
        match status {
            429 | 503 => Err(FetchError::Refused { status, code, detail, retry_after }),
            _ => Err(FetchError::Status { status, code, detail }),
        }
    }

    async fn collect(&self, response: Response<Incoming>, expected: usize, max: usize) -> Result<Bytes, FetchError> {
        let too_long = || FetchError::TooLong { limit_bytes: size(max) };
        let declared = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|declared: u64| declared > size(max)) {
            return Err(too_long());
        }
        let mut body = response.into_body();
        // What the server declares allocates nothing; what the caller expects does.
        let mut bytes = BytesMut::with_capacity(expected);
        let limit = self.inner.config.stall_limit;
        loop {
            let frame = match timeout(limit, body.frame()).await {
                Err(_) => return Err(FetchError::Timeout { what: "more of an answer", limit }),
                Ok(None) => return Ok(bytes.freeze()),
                Ok(Some(Err(error))) => return Err(FetchError::broken(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > max {
                return Err(too_long());
            }
            bytes.extend_from_slice(&data);
        }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
    retry_after: Option<f64>,
}

/// A server's words, made fit for a message.
fn shown(text: String, max: usize) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(max).collect()
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The base path and the content's path that a `Link` header with our relation names, on the same server only.
fn manifest_link(headers: &HeaderMap) -> Option<(String, ContentPath)> {
    const CALL: &str = "/hybrid/v1/manifest/";
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|value| value.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let named = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().replace('"', "");
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim() == "rel" && value.split_ascii_whitespace().any(|relation| relation == MANIFEST_RELATION)
            })
        });
        // A target with a host of its own, even in the short form `//host/`, leads to another server.
        if !named || !target.starts_with('/') || target.starts_with("//") {
            return None;
        }
        let (base_path, path) = target.split_once(CALL)?;
        Some((base_path.to_owned(), ContentPath::from_url(path).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_manifests() {
        for (value, expected) in [
            ("</hybrid/v1/manifest/a%20b>; rel=\"hybrid-manifest\"", Some(("", "a b"))),
            ("</media/hybrid/v1/manifest/x/y>;rel=hybrid-manifest", Some(("/media", "x/y"))),
            ("</style.css>; rel=preload, </hybrid/v1/manifest/a>; rel=\"x hybrid-manifest\"", Some(("", "a"))),
            ("</hybrid/v1/manifest/a>; rel=\"next\"", None),
            ("<http://other/hybrid/v1/manifest/a>; rel=\"hybrid-manifest\"", None),
            ("<//other/hybrid/v1/manifest/a>; rel=\"hybrid-manifest\"", None),
            ("</hybrid/v1/manifest/../a>; rel=\"hybrid-manifest\"", None),
            ("</hybrid/v1/manifest/>; rel=\"hybrid-manifest\"", None),
            ("garbage", None),
        ] {
            let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_str(value).unwrap())]);
            let found = manifest_link(&headers).map(|(base, path)| (base, path.to_string()));
            assert_eq!(found, expected.map(|(base, path)| (base.to_owned(), path.to_owned())), "{value}");
        }
    }
}
