//! Errors as people and scripts see them: a line with a code, a hint, an exit code.

use hybrid_peer::store::{OpenError, is_full};
use hybrid_peer::{
    BindError, ByeCode, CacheError, DhtError, DownloadError, ExportError, FetchError, GetError, PeerError,
};
use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Exit codes, the same for all of hybrid's programs.
mod exit {
    pub(super) const USAGE: u8 = 2;
    pub(super) const CONFIG: u8 = 3;
    pub(super) const NETWORK: u8 = 4;
    pub(super) const INTEGRITY: u8 = 5;
    pub(super) const DISK: u8 = 6;
    pub(super) const TICKET: u8 = 7;
    pub(super) const INCOMPLETE: u8 = 8;
    /// As a shell shows SIGPIPE.
    pub(super) const BROKEN_PIPE: u8 = 141;
}

const MAKE_ROOM: &str = "free space there, or name a folder on another disk with --cache DIR";

/// As a shell shows SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why the program ends without having done what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: u8,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, "E_USAGE", message)
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(exit::CONFIG, "E_CONFIG", message)
    }

    pub(crate) fn file(message: impl Into<String>) -> Self {
        Self::new(exit::DISK, "E_FILE", message)
    }

    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        Self::new(exit::DISK, "E_SYSTEM", format!("{what}: {error}"))
    }

    /// Nobody reads what we write. Said to nobody.
    pub(crate) fn broken_pipe() -> Self {
        Self::new(exit::BROKEN_PIPE, "", "")
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        if !self.message.is_empty() {
            #[allow(clippy::print_stderr, reason = "this is the program's voice")]
            {
                eprintln!("hybrid-peer: error: {} [{}]", shown(&self.message), self.code);
                if let Some(hint) = &self.hint {
                    eprintln!("  hint: {}", shown(hint));
                }
            }
        }
        ExitCode::from(self.exit)
    }
}

/// Control characters of foreign words cannot steer the terminal.
fn shown(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().take(500).map(escape).collect()
}

/// An error with what caused it.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Errors that only wrap another one repeat its words.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Help and version are no errors; everything else is one of the usage.
pub(crate) fn from_clap(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            drop(error.print());
            ExitCode::SUCCESS
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(exit::USAGE)
        }
        _ => usage_of(&error.render().to_string()).tell(),
    }
}

/// The parser's words in our form: its first paragraph, and its tips as the hint.
///
/// Its tip to pass an unknown flag as a value helps nobody here.
fn usage_of(rendered: &str) -> Failure {
    let paragraph = rendered.split("\n\n").next().unwrap_or_default();
    let message: Vec<&str> = paragraph.trim_start_matches("error: ").split_whitespace().collect();
    let tips: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .filter(|tip| !tip.starts_with("to pass"))
        .collect();
    let hint = if tips.is_empty() {
        "hybrid-peer --help and hybrid-peer get --help show what there is".to_owned()
    } else {
        tips.join("; ")
    };
    Failure::usage(message.join(" ")).hint(hint)
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Cache(error) => error.into(),
            PeerError::Bind(BindError::Socket { address, source }) => {
                let message = format!("cannot take peers on UDP {address}: {source}");
                match source.kind() {
                    ErrorKind::AddrInUse => Self::new(exit::NETWORK, "E_ADDRESS_IN_USE", message)
                        .hint("another program uses it; choose another port, or leave --listen away"),
                    ErrorKind::PermissionDenied => {
                        Self::new(exit::DISK, "E_PERMISSION", message).hint("ports from 1024 on need no rights")
                    }
                    _ => Self::new(exit::NETWORK, "E_ADDRESS", message),
                }
            }
            PeerError::Dht(DhtError::NotBuilt) => Self::config("this program was built without the DHT")
                .hint("leave --dht away, or build it with: cargo build --release -p hybrid-peer-cli --features dht"),
            PeerError::Dht(error @ DhtError::Nodes(_)) => Self::new(exit::NETWORK, "E_DHT", error.to_string())
                .hint("check the name and the network; only IPv4 is used for the DHT"),
            error => Self::new(exit::DISK, "E_SYSTEM", with_causes(&error)),
        }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        let failure = |code| Self::new(exit::DISK, code, with_causes(&error));
        match &error {
            CacheError::InUse { .. } => {
                failure("E_CACHE_IN_USE").hint("wait for it, or give this one a cache of its own with --cache DIR")
            }
            CacheError::Unfit { .. } => failure("E_CACHE").hint("name a folder of its own with --cache DIR"),
            CacheError::NoRoom { .. } => failure("E_DISK_FULL")
                .hint("nothing was removed; free space there, or name a folder on another disk with --cache DIR"),
            CacheError::Io { source, .. } if is_full(source) => failure("E_DISK_FULL").hint(MAKE_ROOM),
            CacheError::ServerKeys { path, .. } => failure("E_CACHE").hint(format!(
                "if you are sure that nobody stands between you and the server, remove {}: its keys are then asked for anew",
                path.display()
            )),
            CacheError::Identity { path, .. } => {
                failure("E_CACHE").hint(format!("remove {} to get a new key", path.display()))
            }
            _ => failure("E_CACHE"),
        }
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Url(error) => Self::new(exit::USAGE, "E_URL", error.to_string()),
            GetError::Trust(error) => Self::new(exit::CONFIG, "E_TLS_TRUST", error.to_string()),
            GetError::Fetch(error) => error.into(),
            GetError::Manifest(error) => Self::new(exit::INTEGRITY, error.code(), with_causes(&error)),
            GetError::KeyChanged { ref kept_in, .. } => Self::new(exit::INTEGRITY, "E_SERVER_KEY", error.to_string())
                .hint(format!(
                    "somebody may be between you and the server; if its operator confirms the new key, remove {}",
                    kept_in.display()
                )),
            GetError::Cache(error) => error.into(),
            GetError::Store(error @ OpenError::Newer { .. }) => {
                Self::new(exit::DISK, "E_CACHE_VERSION", error.to_string())
                    .hint("use the later version, or another folder with --cache DIR")
            }
            GetError::Store(OpenError::Io { ref source, .. }) if is_full(source) => {
                Self::new(exit::DISK, "E_DISK_FULL", with_causes(&error)).hint(MAKE_ROOM)
            }
            GetError::Store(error) => Self::new(exit::DISK, "E_CACHE", with_causes(&error)),
            error => Self::new(exit::NETWORK, "E_GET", with_causes(&error)),
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::Url(_) => Self::new(exit::USAGE, "E_URL", message),
            FetchError::Trust(_) => Self::new(exit::CONFIG, "E_TLS_TRUST", message),
            FetchError::Tls { .. } => Self::new(exit::INTEGRITY, "E_TLS", message)
                .hint("for a server with a certificate of its own give --tls-ca FILE or --tls-fingerprint HASH"),
            FetchError::NotHybrid { .. } => Self::new(exit::NETWORK, "E_NOT_HYBRID", message)
                .hint("what it has can be fetched with curl or a browser"),
            FetchError::Status { status: 404, .. } => {
                Self::new(exit::NETWORK, "E_NOT_FOUND", "the server has nothing at this URL (404)")
            }
            FetchError::Refused { .. } => Self::new(exit::NETWORK, "E_REFUSED", message).hint("try again later"),
            FetchError::Connect { .. } | FetchError::Timeout { .. } | FetchError::Broken { .. } => {
                Self::new(exit::NETWORK, "E_UNREACHABLE", message).hint("is the server running, and the URL right?")
            }
            _ => Self::new(exit::NETWORK, "E_SERVER", message),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        let message = error.to_string();
        match error {
            DownloadError::Refused(bye) if bye.code == ByeCode::Ticket => Self::new(exit::TICKET, "E_TICKET", message),
            DownloadError::Refused(_) => Self::new(exit::NETWORK, "E_REFUSED", message),
            DownloadError::NotFound { .. } => Self::new(exit::NETWORK, "E_NOT_FOUND", message),
            DownloadError::Changed { .. } => {
                Self::new(exit::INCOMPLETE, "E_CHANGED", message).hint("run the same command again")
            }
            DownloadError::CacheFailed { .. } => Self::new(exit::DISK, "E_CACHE", message)
                .hint("what came is kept; look after the disk, or name a folder on another with --cache DIR"),
            _ => Self::new(exit::INCOMPLETE, "E_INCOMPLETE", message)
                .hint("what came is kept; the same command goes on from there"),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let message = with_causes(&error);
        match error {
            ExportError::Exists { .. } => {
                Self::new(exit::DISK, "E_EXISTS", message).hint("--force replaces it; -o FILE chooses another")
            }
            ExportError::Incomplete { .. } => Self::new(exit::INCOMPLETE, "E_INCOMPLETE", message)
                .hint("what came is kept; the same command goes on from there"),
            ExportError::NotAFile { .. } => Self::new(exit::DISK, "E_FILE", message).hint("-o FILE chooses another"),
            _ => Self::new(exit::DISK, "E_FILE", message).hint("what came is kept; -o FILE chooses another output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    #[test]
    fn usage_errors_in_our_form() {
        let of = |line: &str| {
            let error = Args::try_parse_from(line.split_whitespace()).unwrap_err();
            usage_of(&error.render().to_string())
        };
        let failure = of("hybrid-peer get http://h/x --forse");
        assert_eq!((failure.exit, failure.code), (2, "E_USAGE"));
        assert_eq!(failure.message, "unexpected argument '--forse' found");
        assert_eq!(failure.hint.as_deref(), Some("a similar argument exists: '--force'"));
        let failure = of("hybrid-peer get http://h/x --stay 30");
        assert!(failure.message.contains("'30' is not a duration"), "{}", failure.message);
    }

    #[test]
    fn foreign_words_cannot_steer_a_terminal() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
