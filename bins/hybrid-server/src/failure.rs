//! Errors as people and scripts see them: a line with a code, a hint, an exit code.

use hybrid_origin::{FolderError, OpenError, PrepareFileError, StateError};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

const USAGE: u8 = 2;
const CONFIG: u8 = 3;
const NETWORK: u8 = 4;
const DISK: u8 = 6;
/// As a shell shows SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Why the program ends without having done what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, "E_USAGE", message)
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(CONFIG, "E_CONFIG", message)
    }

    pub(crate) fn tls(message: impl Into<String>) -> Self {
        Self::new(CONFIG, "E_TLS", message)
    }

    pub(crate) fn file(message: impl Into<String>) -> Self {
        Self::new(DISK, "E_FILE", message)
    }

    pub(crate) fn exists(path: &Path) -> Self {
        Self::new(DISK, "E_EXISTS", format!("{} exists", path.display()))
            .hint("--force replaces it; -o FILE names another")
    }

    pub(crate) fn network(message: impl Into<String>) -> Self {
        Self::new(NETWORK, "E_NETWORK", message)
    }

    /// A listener that cannot be opened.
    pub(crate) fn bind(address: SocketAddr, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::AddrInUse => Self::new(NETWORK, "E_ADDRESS_IN_USE", format!("address {address} already in use"))
                .hint("another program listens there; choose another port with --listen, or 0 for any"),
            ErrorKind::PermissionDenied => {
                Self::new(DISK, "E_PERMISSION", format!("cannot bind {address}: permission denied"))
                    .hint("ports from 1024 on need no rights; for a lower one grant CAP_NET_BIND_SERVICE")
            }
            ErrorKind::AddrNotAvailable => {
                Self::new(NETWORK, "E_ADDRESS", format!("cannot bind {address}: this computer has no such address"))
                    .hint("0.0.0.0 or [::] stand for all addresses that it has")
            }
            _ => Self::new(NETWORK, "E_ADDRESS", format!("cannot bind {address}: {error}")),
        }
    }

    /// Nobody reads what we write. Said to nobody.
    pub(crate) fn broken_pipe() -> Self {
        Self::new(BROKEN_PIPE, "", "")
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        if !self.message.is_empty() {
            #[allow(clippy::print_stderr, reason = "this is the program's voice")]
            {
                eprintln!("hybrid-server: error: {} [{}]", shown(&self.message), self.code);
                if let Some(hint) = &self.hint {
                    eprintln!("  hint: {}", shown(hint));
                }
            }
        }
        ExitCode::from(self.exit)
    }
}

/// Control characters in names and values cannot steer the terminal.
fn shown(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().take(600).map(escape).collect()
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
            ExitCode::from(USAGE)
        }
        _ => usage(&error.render().to_string()).tell(),
    }
}

/// What the parser says, in our form: its first paragraph on one line, and its tips as the hint.
pub(crate) fn usage(rendered: &str) -> Failure {
    let message = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let message: Vec<&str> = message.split_whitespace().collect();
    // Its tip to pass an unknown flag as a value helps nobody here.
    let tips = rendered.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let tips: Vec<&str> = tips.filter(|tip| !tip.starts_with("to pass")).collect();
    let hint = if tips.is_empty() {
        "hybrid-server --help and hybrid-server serve --help show what there is".to_owned()
    } else {
        tips.join("; ")
    };
    Failure::usage(message.join(" ")).hint(hint)
}

/// An error and its causes in one line; a cause whose words are there already is not said twice.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let message = whole(&error);
        match &error {
            StateError::Readable { path, .. } => {
                let hint = format!("if nobody else has read it: chmod 600 {}", path.display());
                Self::new(CONFIG, "E_KEY_PERMISSIONS", message).hint(hint)
            }
            StateError::Length { path, .. } => Self::new(CONFIG, "E_KEY", message).hint(format!(
                "{} is not one of our keys; restore it, or move it away to become a new server",
                path.display()
            )),
            StateError::Tls { path, .. } => {
                Self::tls(message).hint(format!("remove {} to get a new one", path.display()))
            }
            _ => Self::file(message).hint("--state DIR names another folder for the server's keys"),
        }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let hint = match &error {
            FolderError::NotAFolder(_) => "name the folder that holds the files",
            _ => "name a folder that this user can read",
        };
        Self::file(whole(&error)).hint(hint)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Folder(error) => error.into(),
            OpenError::State(error) => error.into(),
            // In the settings file's words: [thresholds] are those of the class without a name there.
            error => Self::config(
                whole(&error).replace("class 'file'", "thresholds").replace("stalls_per_minute", "pauses_per_minute"),
            ),
        }
    }
}

impl From<PrepareFileError> for Failure {
    fn from(error: PrepareFileError) -> Self {
        Self::file(whole(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_steer_a_terminal() {
        assert_eq!(shown("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }
}
