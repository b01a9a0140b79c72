//! The settings of connections: how many there may be, and how long one may keep the server waiting.

use crate::config::Parsed;
use crate::failure::Failure;
use hybrid_origin::ServerConfig;
use hybrid_units::parse_duration;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The table `[connections]`; what is not given stays as it is by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table that begins with [connections]")]
pub(crate) struct Connections {
    max: Option<NonZeroU32>,
    max_per_address: Option<NonZeroU32>,
    first_request: Option<Parsed<Patience>>,
    idle: Option<Parsed<Patience>>,
    stall: Option<Parsed<Patience>>,
}

/// How long the server waits for a client.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Patience(Duration);

impl FromStr for Patience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Below a second honest clients on slow links are cut; for more than an hour a place is held for nothing.
        let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
        let time = parse_duration(text).map_err(|error| error.to_string())?;
        if range.contains(&time) {
            return Ok(Self(time));
        }
        Err(format!("'{}' is no limit for a connection: write a time from 1s to 1h", text.escape_default()))
    }
}

impl Connections {
    /// The listener's settings with these.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, Failure> {
        let mut config = ServerConfig::default();
        let count = |given: NonZeroU32| usize::try_from(given.get()).unwrap_or(usize::MAX);
        if let Some(max) = self.max.map(count) {
            let most = config.connections_max;
            if max > most {
                let message =
                    format!("connections.max: {max} are more than the {most} that the limit of open files leaves");
                return Err(Failure::config(message).hint("raise it with `ulimit -n`, or name fewer connections"));
            }
            config.connections_max = max;
        }
        config.connections_per_address_max = self.max_per_address.map_or(config.connections_per_address_max, count);
        if let Some(Parsed(Patience(time))) = self.first_request {
            // The handshake and the headers are parts of it; their own limits may be shorter, but not longer.
            config.first_request_limit = time;
            config.handshake_limit = config.handshake_limit.min(time);
            config.header_limit = time;
        }
        config.idle_limit = self.idle.map_or(config.idle_limit, |time| time.0.0);
        config.stall_limit = self.stall.map_or(config.stall_limit, |time| time.0.0);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<ServerConfig, Failure> {
        toml::from_str::<Connections>(text).unwrap().server_config()
    }

    #[test]
    fn what_is_given_is_set_and_the_rest_stays() {
        let default = ServerConfig::default();
        let text = "max = 100\nmax_per_address = 7\nfirst_request = \"2s\"\nidle = \"3s\"\nstall = \"1h\"";
        let all = config(text).unwrap();
        assert_eq!((all.connections_max, all.connections_per_address_max), (100, 7));
        let seconds = [all.handshake_limit, all.first_request_limit, all.header_limit, all.idle_limit, all.stall_limit];
        assert_eq!(seconds.map(|limit| limit.as_secs()), [2, 2, 2, 3, 3_600]);
        let some = config("first_request = \"20s\"").unwrap();
        assert_eq!((some.handshake_limit, some.header_limit.as_secs()), (default.handshake_limit, 20));
        assert_eq!((some.connections_max, some.idle_limit), (default.connections_max, default.idle_limit));
    }

    #[test]
    fn no_more_connections_than_open_files() {
        let failure = config("max = 4294967295").unwrap_err();
        assert_eq!((failure.exit, failure.code), (3, "E_CONFIG"));
        assert!(failure.message.contains("limit of open files"), "{}", failure.message);
    }
}
