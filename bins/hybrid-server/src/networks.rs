//! The settings of networks: what the clients of one may take.

use std::num::NonZeroU32;

/// The table `[networks]`; what is not given stays as it is by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table that begins with [networks]")]
pub(crate) struct Networks {
    clients: Option<NonZeroU32>,
    peers: Option<NonZeroU32>,
}

impl Networks {
    pub(crate) fn put(self, config: &mut hybrid_origin::CoordinatorConfig) {
        let count = |given: NonZeroU32| usize::try_from(given.get()).unwrap_or(usize::MAX);
        config.clients_per_network_max = self.clients.map_or(config.clients_per_network_max, count);
        config.peers_per_network = self.peers.map_or(config.peers_per_network, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_set_and_the_rest_stays() {
        let with = |text: &str| {
            let mut config = hybrid_origin::Config::default().coordinator;
            toml::from_str::<Networks>(text).unwrap().put(&mut config);
            (config.clients_per_network_max, config.peers_per_network)
        };
        let (clients, peers) = with("");
        assert_eq!(with("clients = 7"), (7, peers));
        assert_eq!(with("peers = 20"), (clients, 20));
    }
}
