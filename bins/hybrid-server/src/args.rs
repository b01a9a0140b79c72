//! The command line.

use clap::{Parser, Subcommand};
use hybrid_origin::Prefix;
use hybrid_units::{BytesPerSecond, Duration, parse_duration};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Serve a folder over HTTP, the first clients directly and the rest through a swarm of those that came before
#[derive(Debug, Parser)]
#[command(name = "hybrid-server", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the files beneath a folder
    Serve(Serve),
    /// Ask a running server why it serves whom and how
    #[cfg(unix)]
    Explain(Explain),
    /// Show what a file becomes: its id (as b3sum prints it), its part length and parts
    Prepare(Prepare),
    /// Simulate a crowd of viewers before it comes: what peers carry, who stalls, and what the server sends
    Plan(Plan),
}

#[derive(Debug, Default, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Serve {
    /// The folder; hidden files and links that lead outside are not served
    #[arg(value_name = "DIR", required_unless_present = "config")]
    pub(crate) folder: Option<PathBuf>,

    /// Where to take connections; port 0 takes any; may be given again [default: 127.0.0.1:8080, this computer only]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,

    /// How many clients of each class of contents are served directly before newcomers go to the swarm: a number, or auto,
    /// which follows the server's load and what clients report [default: auto]
    #[arg(long, value_name = "N|auto")]
    pub(crate) direct_clients: Option<Direct>,

    /// What the server sends at most: 20M (bits per second), 2.5MB/s [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub(crate) egress_limit: Option<BytesPerSecond>,

    /// What the server sends to the swarm: fast sends what its link takes, thrifty one copy and then only what is missing, late
    /// or lost [default: fast]
    #[arg(long, value_name = "fast|thrifty")]
    pub(crate) egress_policy: Option<Egress>,

    /// A private network whose clients may be given to one another as peers, such as 10.0.0.0/8; may be given again
    /// [default: public addresses only]
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow_peers: Vec<Prefix>,

    /// The certificate chain for HTTPS, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// HTTPS with a certificate that the server makes itself and keeps; clients are told its fingerprint
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) tls_self_signed: bool,

    /// Settings in TOML; flags override them
    #[arg(long, value_name = "FILE", env = "HYBRID_SERVER_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Where the server's keys are kept [default: hybrid-server in the user's state folder]
    #[arg(long, value_name = "DIR", env = "HYBRID_SERVER_STATE")]
    pub(crate) state: Option<PathBuf>,

    /// When told to stop, go on until the clients hold enough copies to keep every part without the server, but no longer than
    /// this, and say which it was
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait_for_swarm: Option<Duration>,

    /// Check the settings and what they name, and end
    #[arg(long)]
    pub(crate) check_config: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// A content, by its path or its id; all of them in short if none is named
    #[arg(value_name = "CONTENT", conflicts_with = "client")]
    pub(crate) content: Option<String>,

    /// A client instead, by the first digits of its id, which it shows as `peer` when it starts
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,

    /// One JSON object on one line instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// The server's state folder [default: hybrid-server in the user's state folder]
    #[arg(long, value_name = "DIR", env = "HYBRID_SERVER_STATE")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Prepare {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// One JSON object on one line instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the manifest, signed with the server's key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Replace the manifest's file if it is there already
    #[arg(long, requires = "output")]
    pub(crate) force: bool,

    /// Where the server's keys are kept [default: hybrid-server in the user's state folder]
    #[arg(long, value_name = "DIR", env = "HYBRID_SERVER_STATE")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Plan {
    /// What the server can send: 100M (bits per second), 12.5MB/s
    #[arg(long, value_name = "RATE")]
    pub(crate) uplink: BytesPerSecond,

    /// How many watch
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    pub(crate) viewers: u32,

    /// The rate of the media
    #[arg(long, value_name = "RATE")]
    pub(crate) bitrate: BytesPerSecond,

    /// What each viewer can send
    #[arg(long, value_name = "RATE", default_value = "5M")]
    pub(crate) peer_up: BytesPerSecond,

    /// What each viewer can receive
    #[arg(long, value_name = "RATE", default_value = "50M")]
    pub(crate) peer_down: BytesPerSecond,

    /// How long a viewer goes on giving when it has seen the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) stay: Duration,

    /// Viewers come at random, so many on average: 10/s, 90/min
    #[arg(long, value_name = "RATE", conflicts_with = "over")]
    pub(crate) arrivals: Option<PerSecond>,

    /// All viewers come within this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) over: Duration,

    /// How long the content plays
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = duration)]
    pub(crate) length: Duration,

    /// How long a packet takes from anybody to anybody
    #[arg(long, value_name = "TIME", default_value = "25ms", value_parser = duration)]
    pub(crate) delay: Duration,

    /// What the server sends to the swarm, as with `serve`
    #[arg(long, value_name = "fast|thrifty", default_value = "fast")]
    pub(crate) egress_policy: Egress,

    /// All randomness comes from it: the same seed, the same answer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole_number::<u64>)]
    pub(crate) seed: u64,

    /// How many of the viewers are simulated, the server's uplink in proportion [default: as many as take some seconds]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    pub(crate) simulate: Option<u32>,

    /// One JSON object on one line instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a plot over the time; a file that is there is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// So many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PerSecond(pub(crate) f64);

impl FromStr for PerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, unit)| {
            let seconds = match unit {
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3_600.0,
                _ => return None,
            };
            let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            number.parse::<f64>().ok().filter(|_| plain).map(|number| number / seconds)
        });
        match parsed {
            Some(rate) if rate > 0.0 => Ok(Self(rate)),
            _ => Err(format!("'{}' is no rate of arrivals: write 10/s, 90/min or 500/h", text.escape_default())),
        }
    }
}

/// Digits alone; the bounds that mean something are the command's.
fn whole_number<T: FromStr>(text: &str) -> Result<T, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if plain { text.parse().ok() } else { None };
    number.ok_or_else(|| {
        let bits = 8 * size_of::<T>();
        format!(
            "'{}' is no whole number of at most {bits} bits: write digits alone, such as 5000",
            text.escape_default()
        )
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// How many clients are served directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direct {
    Auto,
    Fixed(u32),
}

impl FromStr for Direct {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count) if plain => Ok(Self::Fixed(count)),
            _ => Err(format!("'{}' is neither auto nor a number of clients, 0 to {}", text.escape_default(), u32::MAX)),
        }
    }
}

/// What the server sends to the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    Fast,
    Thrifty,
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fast" => Ok(Self::Fast),
            "thrifty" => Ok(Self::Thrifty),
            _ => Err(format!("'{}' is neither fast nor thrifty", text.escape_default())),
        }
    }
}

pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = "write address and port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::]:80";
        format!("'{}' is no address to listen on: {hint}", text.escape_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn arrivals() {
        for (text, expected) in [
            ("10/s", Some(10.0)),
            ("90/min", Some(1.5)),
            ("1.8/h", Some(0.0005)),
            ("10", None),
            ("0/s", None),
            ("-1/s", None),
            ("inf/s", None),
            ("1e3/s", None),
            ("./s", None),
            ("/s", None),
            ("10/d", None),
        ] {
            assert_eq!(text.parse().ok(), expected.map(PerSecond), "{text}");
        }
    }

    #[test]
    fn direct_clients() {
        for (text, expected) in [
            ("auto", Some(Direct::Auto)),
            ("0", Some(Direct::Fixed(0))),
            ("200", Some(Direct::Fixed(200))),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("4294967296", None),
            ("Auto", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
