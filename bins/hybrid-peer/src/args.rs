//! The command line.

use clap::{Parser, Subcommand};
use hybrid_peer::{Fingerprint, Hours, Prefix, Ratio};
use hybrid_units::{ByteCount, BytesPerSecond, ParseDurationError, parse_duration};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Get contents from hybrid servers and from the peers that already have them
#[derive(Debug, Parser)]
#[command(name = "hybrid-peer", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get a content, verify every byte, and serve it to others meanwhile
    Get(Box<Get>),
    /// Show what a content is: its manifest
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The content's URL, the one that a browser would use
    pub(crate) url: String,

    /// Where to write it; by default the content's own name in this folder
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Replace the output file if it is there already
    #[arg(long)]
    pub(crate) force: bool,

    /// Where parts are kept from one start to the next; by default `hybrid` in the user's cache folder
    #[arg(long, value_name = "DIR", env = "HYBRID_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// What the contents in the cache may take at most: 500MB, 20GiB; the least recently used ones make room
    /// [default: a tenth of what is free without them, at most 4GiB]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) cache_limit: Option<ByteCount>,

    /// How long to go on serving others after the content is complete: 30s, 10m, 2h, or forever; Ctrl-C ends it earlier,
    /// and exits with 0 since the file is written [default: not at all]
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub(crate) stay: Option<Stay>,

    /// How fast others are served at most: 20M (bits per second), 2.5MB/s [default: no limit]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, conflicts_with = "no_upload")]
    pub(crate) upload_limit: Option<BytesPerSecond>,

    /// How much is sent to others at most, from start to end: 500M, 2GiB; a part goes out only if it fits as a whole [default:
    /// no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_volume, allow_negative_numbers = true, conflicts_with = "no_upload")]
    pub(crate) upload_volume: Option<ByteCount>,

    /// How much is sent to others at most for each byte that came and was verified: 1, 0.5; two parts may go out before anything
    /// came [default: no limit]
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true, conflicts_with = "no_upload")]
    pub(crate) upload_ratio: Option<Ratio>,

    /// When others are served, by this computer's clock: 22:00-07:00 [default: always]
    #[arg(long, value_name = "HH:MM-HH:MM", allow_hyphen_values = true, conflicts_with = "no_upload")]
    pub(crate) upload_hours: Option<Hours>,

    /// This connection costs by the byte: serve nobody, fetch only what was asked for
    #[arg(
        long,
        conflicts_with_all = ["no_upload", "upload_limit", "upload_volume", "upload_ratio", "upload_hours"]
    )]
    pub(crate) metered: bool,

    /// Serve nobody
    #[arg(long)]
    pub(crate) no_upload: bool,

    /// A private network whose peers may be connected to, such as 10.0.0.0/8; may be given again [default: public peers only]
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow_peers: Vec<Prefix>,

    /// The UDP address on which peers are taken [default: any port of all addresses]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,

    /// Look for peers in BitTorrent's DHT too while the server is away, and be found there: strangers can then see that this
    /// address has the content
    #[arg(long)]
    pub(crate) dht: bool,

    /// A node of a DHT of your own to begin with, HOST:PORT; may be given again [default: BitTorrent's]
    #[arg(long, value_name = "NODE", requires = "dht", value_parser = parse_node)]
    pub(crate) dht_node: Vec<String>,

    /// Print events as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Tell of each part where it came from and why
    #[arg(long, requires = "json")]
    pub(crate) parts: bool,

    #[command(flatten)]
    pub(crate) tls: Tls,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The content's URL
    pub(crate) url: String,

    /// Print the manifest as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) tls: Tls,
}

/// Which server certificates are believed.
#[derive(Debug, clap::Args)]
pub(crate) struct Tls {
    /// A file of certificates (PEM) to believe instead of the system's; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Vec<PathBuf>,

    /// Believe the one server certificate with this fingerprint, as hybrid-server prints it for a self-signed one
    #[arg(long, value_name = "HASH", conflicts_with = "tls_ca")]
    pub(crate) tls_fingerprint: Option<Fingerprint>,
}

/// How long to go on serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    For(Duration),
    Forever,
}

impl FromStr for Stay {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        if text == "forever" { Ok(Self::Forever) } else { parse_duration(text).map(Self::For) }
    }
}

fn parse_node(text: &str) -> Result<String, String> {
    let sound = |(host, port): (&str, &str)| {
        !host.is_empty() && !host.contains(['[', ']', ':', ' ']) && port.parse::<NonZeroU16>().is_ok()
    };
    let node = text.rsplit_once(':').filter(|parts| sound(*parts));
    node.map(|_| text.to_owned()).ok_or_else(|| {
        "write a name or an IPv4 address, and a port, such as dht.example.org:6881 or 192.0.2.1:6881".to_owned()
    })
}

/// A volume of nothing is meant as something else.
fn parse_volume(text: &str) -> Result<ByteCount, String> {
    match text.parse() {
        Ok(ByteCount::ZERO) => Err("a volume of zero sends nothing: write --no-upload for that".to_owned()),
        parsed => parsed.map_err(|error: hybrid_units::ParseAmountError| error.to_string()),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    // The parser has shown the text already.
    text.parse().map_err(|_| "write an address with a port, such as 0.0.0.0:4000 or [::]:4000".to_owned())
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
    fn get_with_everything() {
        let line = "hybrid-peer get http://h/x -o out --force --cache c --stay 10m --upload-limit 20M --allow-peers 10.0.0.0/8 \
                    --allow-peers 127.0.0.0/8 --listen 127.0.0.1:0 --cache-limit 2GiB --json --tls-ca a.pem --tls-ca b.pem";
        let Command::Get(get) = Args::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not get")
        };
        assert_eq!(get.stay, Some(Stay::For(Duration::from_secs(600))));
        assert_eq!(get.upload_limit, Some(BytesPerSecond::new(2_500_000)));
        assert_eq!(get.cache_limit, Some(ByteCount::new(2 << 30)));
        assert_eq!((get.allow_peers.len(), get.tls.tls_ca.len()), (2, 2));
    }

    #[test]
    fn get_with_bounds_for_uploads() {
        let line = "hybrid-peer get http://h/x --upload-limit 20M --upload-volume 2GiB --upload-ratio 1.5 --upload-hours 22:00-07:00";
        let Command::Get(get) = Args::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not get")
        };
        assert_eq!(get.upload_volume, Some(ByteCount::new(2 << 30)));
        assert_eq!(get.upload_ratio, Ratio::from_thousandths(1_500));
        assert_eq!(get.upload_hours.map(|hours| hours.to_string()).as_deref(), Some("22:00-07:00"));
    }
}
