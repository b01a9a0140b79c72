//! Addresses of servers.

use http::Uri;
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZero;
use std::str::FromStr;

/// Where a service is: scheme, host and port, and the path under which its host has mounted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    secure: bool,
    authority: String,
    base_path: String,
}

/// Why a text is no address of a server or content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Not a URL at all.
    #[error("this is no URL; write http://HOST[:PORT]/PATH or https://…")]
    Invalid,
    /// A scheme that we do not speak.
    #[error("only http and https URLs can be fetched")]
    Scheme,
    /// `user:password@`.
    #[error("a URL with a user name or password is not taken: leave it away")]
    UserInfo,
    /// A port that is none.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Longer than [`ServerUrl::MAX_BYTES`].
    #[error("the URL is longer than {} characters", ServerUrl::MAX_BYTES)]
    TooLong,
    /// `#…`.
    #[error("a URL with a fragment ('#…') names a place in a content; leave it away")]
    Fragment,
    /// Blanks, or letters beyond ASCII.
    #[error("a URL is written in ASCII without blanks: others as %20 in the path, as punycode (xn--…) in the host")]
    Characters,
}

/// `HOST[:PORT]`.
fn check_authority(authority: &str) -> Result<(), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Invalid)?;
            host.parse::<Ipv6Addr>().map_err(|_| UrlError::Invalid)?;
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match port.strip_prefix(':') {
        _ if host.is_empty() => Err(UrlError::Invalid),
        // The parser of numbers takes a sign.
        Some(port) if port.starts_with('+') || port.parse::<NonZero<u16>>().is_err() => Err(UrlError::Port),
        None if !port.is_empty() => Err(UrlError::Invalid),
        _ => Ok(()),
    }
}

impl ServerUrl {
    /// What all programs on the way can be expected to take.
    pub const MAX_BYTES: usize = 2_048;

    /// The server of a content's URL, without a base path, and the rest: path and query.
    ///
    /// # Errors
    /// When it is no URL that we can fetch.
    pub fn split(url: &str) -> Result<(Self, String), UrlError> {
        if url.len() > Self::MAX_BYTES {
            return Err(UrlError::TooLong);
        }
        if url.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Invalid)?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::Scheme);
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Characters);
        }
        check_authority(rest.split(['/', '?']).next().unwrap_or_default())?;
        let uri: Uri = url.parse().map_err(|_| UrlError::Invalid)?;
        let authority = uri.authority().ok_or(UrlError::Invalid)?;
        // As both together they begin with the question mark if there is no path.
        let target = uri.query().map_or_else(|| uri.path().to_owned(), |query| format!("{}?{query}", uri.path()));
        let server = Self { secure, authority: authority.as_str().to_ascii_lowercase(), base_path: String::new() };
        Ok((server, target))
    }

    /// The same server with the service mounted at another path.
    pub(crate) fn with_base_path(&self, base_path: &str) -> Result<Self, UrlError> {
        let base_path = base_path.trim_end_matches('/');
        if base_path.len() > Self::MAX_BYTES {
            return Err(UrlError::TooLong);
        }
        if base_path.contains('?') {
            return Err(UrlError::Invalid);
        }
        Ok(Self { base_path: base_path.to_owned(), ..self.clone() })
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host, and port if it is not the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host: a name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let default = if self.secure { 443 } else { 80 };
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn target(&self, call: &str) -> String {
        format!("{}{call}", self.base_path)
    }

    pub(crate) fn uri(&self, target: &str) -> Result<Uri, UrlError> {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{target}", self.authority).parse().map_err(|_| UrlError::Invalid)
    }

    pub(crate) fn web_socket(&self, call: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority, self.target(call))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    /// The server with its base path: `https://example.org/media`.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (server, target) = Self::split(text)?;
        server.with_base_path(&target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, host, port, target) in [
            ("http://localhost:8080/a/b?c=d", "localhost", 8080, "/a/b?c=d"),
            ("https://Example.org", "example.org", 443, "/"),
            ("http://[::1]:80?a", "::1", 80, "/?a"),
            ("http://h?", "h", 80, "/?"),
            ("http://127.0.0.1/x%20y", "127.0.0.1", 80, "/x%20y"),
            ("http://[::1]:81/x", "::1", 81, "/x"),
            ("http://[::1]/x", "::1", 80, "/x"),
        ] {
            let (server, found) = ServerUrl::split(text).unwrap();
            assert_eq!((server.host(), server.port(), found.as_str()), (host, port, target), "{text}");
        }
        let mounted: ServerUrl = "https://example.org/media/".parse().unwrap();
        assert_eq!(mounted.target("/hybrid/v1/control"), "/media/hybrid/v1/control");
        assert_eq!(mounted.to_string(), "https://example.org/media");
    }

    #[test]
    fn what_is_no_url() {
        let long = format!("http://h/{}", "a".repeat(ServerUrl::MAX_BYTES));
        for (text, error) in [
            ("", UrlError::Invalid),
            ("localhost/x", UrlError::Invalid),
            ("/x", UrlError::Invalid),
            ("http://", UrlError::Invalid),
            ("http://h:99999/", UrlError::Port),
            ("http://h:/", UrlError::Port),
            ("http://h:+80/", UrlError::Port),
            ("http://h:8o/", UrlError::Port),
            ("http:///x", UrlError::Invalid),
            ("http://:80/", UrlError::Invalid),
            ("http://::1/", UrlError::Invalid),
            ("http://[::1/", UrlError::Invalid),
            ("http://[::1]x/", UrlError::Invalid),
            ("http://[host]/", UrlError::Invalid),
            ("http://h\\x/", UrlError::Invalid),
            ("http://h h/", UrlError::Characters),
            ("http://h/\u{e9}", UrlError::Characters),
            ("http://h/\n", UrlError::Characters),
            ("ftp://h/x", UrlError::Scheme),
            ("http://u:p@h/x", UrlError::UserInfo),
            ("http://u@h/x", UrlError::UserInfo),
            ("http://h:0/x", UrlError::Port),
            ("http://h/x#y", UrlError::Fragment),
            (&long, UrlError::TooLong),
        ] {
            assert_eq!(ServerUrl::split(text), Err(error), "{}", &text[..text.len().min(60)]);
        }
    }
}
