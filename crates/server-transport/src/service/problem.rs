//! Error documents: `application/problem+json` (RFC 9457) with a stable code.

use super::Body;
use crate::SiteError;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use std::time::Duration;

/// An error answer. The codes are listed in `docs/spec/http.md`.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    close: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<f64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, allow: None, close: false }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "E_NOT_FOUND", "there is nothing at this path")
    }

    pub(super) fn method() -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "E_METHOD", "only GET and HEAD are answered here");
        Self { allow: Some("GET, HEAD"), ..problem }
    }

    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The connection cannot be used further: what follows the request on it may not be what it seems.
    pub(super) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let document = Document {
            r#type: format!("urn:hybrid:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            // Milliseconds count for parts, but `Retry-After` knows whole seconds only.
            retry_after: self.retry_after.map(|after| (after.as_secs_f64() * 1e3).ceil() / 1e3),
        };
        let json = serde_json::to_vec(&document).unwrap_or_else(|_| b"{}".to_vec());
        let mut response = Response::new(Body::full(Bytes::from(json)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            // Rounded up: who comes back in time must not be refused again.
            let secs = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        let detail = error.to_string();
        match error {
            SiteError::NotFound => Self::not_found(),
            SiteError::NoSuchPart { .. } => Self::new(StatusCode::NOT_FOUND, "E_NO_SUCH_PART", detail),
            SiteError::Changed => Self::new(StatusCode::GONE, "E_CHANGED", detail),
            SiteError::Preparing { retry_after } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_PREPARING", detail).retry_after(retry_after)
            }
            SiteError::Failed => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "E_INTERNAL", detail),
        }
    }
}
