//! What a listener is told.

use crate::TlsIdentity;
use std::time::Duration;

/// The listener's settings. [`Default`] is for the open Internet, in cleartext.
///
/// hyper's own time limits do not stop a client that connects and says nothing, or half a preface; the watchdog that these
/// limits set does, for every connection, from its first byte to its last.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Speak TLS with this identity: HTTP/2 and HTTP/1.1 by ALPN. Default none: HTTP/1.1 in cleartext.
    pub tls: Option<TlsIdentity>,
    /// How long a TLS handshake may take. Default 5 s.
    pub handshake_limit: Duration,
    /// How long a connection may take to bring its first whole request. Default 10 s.
    pub first_request_limit: Duration,
    /// How long the headers of one request may take. Default 10 s.
    pub header_limit: Duration,
    /// How long a connection may lie idle between requests. Default 60 s.
    pub idle_limit: Duration,
    /// How long a client may take for [`Self::stall_bytes`] of an answer while the server has more for it. Default 30 s.
    pub stall_limit: Duration,
    /// Default 30 KiB: with 30 s, one KiB/s.
    pub stall_bytes: u64,
    /// How long the end waits for answers under way. Default 30 s.
    pub drain_limit: Duration,
    /// Connections at one time; more are told 503 and closed.
    /// Default: four fifths of the process's limit of open files, the rest being for files.
    pub connections_max: usize,
    /// Connections of one IPv4 address, or one IPv6 /64, once half of [`Self::connections_max`] are taken.
    /// Default 64: a household's browsers and programs, at some six connections each. Before that there is no limit for an
    /// address, because many people may be behind one.
    pub connections_per_address_max: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            tls: None,
            handshake_limit: Duration::from_secs(5),
            first_request_limit: Duration::from_secs(10),
            header_limit: Duration::from_secs(10),
            idle_limit: Duration::from_secs(60),
            stall_limit: Duration::from_secs(30),
            stall_bytes: 30 << 10,
            drain_limit: Duration::from_secs(30),
            connections_max: open_files_limit() / 5 * 4,
            connections_per_address_max: 64,
        }
    }
}

/// The soft limit of open files; 1,024, the usual one, where the system does not say.
pub(crate) fn open_files_limit() -> usize {
    std::fs::read_to_string("/proc/self/limits").ok().and_then(|limits| parse_open_files(&limits)).unwrap_or(1_024)
}

fn parse_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95000                95000                processes \n\
                    Max open files            4096                 1048576              files     \n";
        assert_eq!(parse_open_files(text), Some(4_096));
        assert_eq!(parse_open_files(&text.replace("4096 ", "unlimited ")), Some(usize::MAX));
        assert_eq!(parse_open_files("Max processes 1 1"), None);
    }
}
