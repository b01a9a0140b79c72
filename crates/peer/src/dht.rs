//! BitTorrent's Mainline DHT (BEP 5) as a place where the peers of a content find each other without its server.
//!
//! Only addresses come from it; whoever is found must show a ticket of the server's, and his bytes must fit its hashes.
//! This node asks and announces; it answers nobody (BEP 43), so that it cannot be made to send to others.

#[cfg(feature = "dht")]
pub(crate) use mainline::Dht;
#[cfg(not(feature = "dht"))]
pub(crate) use none::Dht;

#[cfg(feature = "dht")]
mod mainline {
    use crate::config::DhtConfig;
    use crate::error::DhtError;
    use ::mainline::async_dht::AsyncDht;
    use ::mainline::{Id, RequestFilter, RequestSpecific, ServerSettings};
    use futures_util::StreamExt;
    use hybrid_manifest::ContentId;
    use std::fmt;
    use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
    use std::time::Duration;
    use tokio::time::timeout;
    use tracing::debug;

    /// A lookup takes some seconds; one that takes longer waits for nodes that do not answer.
    const LOOKUP_WITHIN: Duration = Duration::from_secs(30);

    /// Addresses taken from one lookup: more than a session keeps, and a bound to what nodes may pour out.
    const FOUND_MAX: usize = 200;

    #[derive(Clone)]
    pub(crate) struct Dht(AsyncDht);

    impl fmt::Debug for Dht {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Dht(…)")
        }
    }

    /// Answers no questions: after some minutes at a public address the library would begin to.
    #[derive(Clone, Debug)]
    struct Nobody;

    impl RequestFilter for Nobody {
        fn allow_request(&self, _request: &RequestSpecific, _from: SocketAddrV4) -> bool {
            false
        }
    }

    impl Dht {
        /// Opens a socket and begins to learn of nodes. Blocks while names are resolved.
        pub(crate) fn start(config: &DhtConfig) -> Result<Self, DhtError> {
            let mut builder = ::mainline::Dht::builder();
            builder.server_settings(ServerSettings { filter: Box::new(Nobody), ..ServerSettings::default() });
            if !config.nodes.is_empty() {
                let resolve = |node: &String| node.to_socket_addrs().into_iter().flatten();
                let nodes: Vec<_> = config.nodes.iter().flat_map(resolve).filter(SocketAddr::is_ipv4).collect();
                if nodes.is_empty() {
                    return Err(DhtError::Nodes(config.nodes.clone()));
                }
                builder.bootstrap(&nodes);
            }
            Ok(Self(builder.build().map_err(DhtError::Socket)?.as_async()))
        }

        /// Says that this machine has parts of a content at a UDP port.
        pub(crate) async fn announce(&self, content: ContentId, port: u16) {
            match timeout(LOOKUP_WITHIN, self.0.announce_peer(key(content), Some(port))).await {
                Ok(Ok(_)) => debug!("announced in the DHT"),
                Ok(Err(error)) => debug!(%error, "no node of the DHT took the announcement"),
                Err(_) => debug!("the DHT did not answer"),
            }
        }

        /// Gives the addresses that are announced for a content, as they come.
        pub(crate) async fn look_up(&self, content: ContentId, found: impl Fn(Vec<SocketAddr>)) {
            let mut answers = self.0.get_peers(key(content));
            let mut room = FOUND_MAX;
            let all = async {
                while room > 0
                    && let Some(some) = answers.next().await
                {
                    let addresses: Vec<_> = some.into_iter().map(SocketAddr::V4).take(room).collect();
                    room -= addresses.len();
                    found(addresses);
                }
            };
            if timeout(LOOKUP_WITHIN, all).await.is_err() {
                debug!("some nodes of the DHT did not answer");
            }
        }
    }

    /// Under which 20 bytes a content is found: others than its id, which would tell strangers what is looked for.
    fn key(content: ContentId) -> Id {
        let hash = blake3::derive_key("hybrid 2026-11-23 DHT key of a content", content.as_bytes());
        let key = hash.first_chunk().expect("32 bytes have 20");
        Id::from(*key)
    }
}

#[cfg(not(feature = "dht"))]
mod none {
    use crate::config::DhtConfig;
    use crate::error::DhtError;
    use hybrid_manifest::ContentId;
    use std::net::SocketAddr;

    /// There is none in this build.
    #[derive(Clone, Debug)]
    pub(crate) enum Dht {}

    impl Dht {
        pub(crate) fn start(_config: &DhtConfig) -> Result<Self, DhtError> {
            Err(DhtError::NotBuilt)
        }

        pub(crate) async fn announce(&self, _content: ContentId, _port: u16) {
            match *self {}
        }

        pub(crate) async fn look_up(&self, _content: ContentId, _found: impl Fn(Vec<SocketAddr>)) {
            match *self {}
        }
    }
}
