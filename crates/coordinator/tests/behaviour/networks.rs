//! Clients by their networks: what one network may have of the server's places and of others' lists.

use super::*;
use hybrid_wire::PeerCoordinates;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Members in the swarm of content 1, all of whom can be dialled.
struct Crowd {
    coordinator: Coordinator,
    joined: u64,
}

impl Crowd {
    fn new(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let story = Story::with(0, |config| {
            config.seed = seed;
            config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
            change(config);
        });
        Self { coordinator: story.coordinator, joined: 0 }
    }

    /// Whom the newcomer is told of, or why it is refused.
    fn join(&mut self, observed: impl Into<IpAddr>) -> Result<Vec<PeerCoordinates>, (ByeCode, String)> {
        self.joined += 1;
        let number = self.joined;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let join = Join {
            version: PROTOCOL_VERSION,
            program: "test".to_owned(),
            content: content(1),
            peer: PeerId::from_bytes(key),
            quic_port: Some(7_000),
            has: ranges(0..PARTS),
            want: Want::Seed,
            contract: UploadContract { upload: true, rate_limit_bytes_per_second: None },
        };
        let session = SessionToken::from_bytes(key[..16].try_into().unwrap());
        let input = Input::Join { client: ClientId(number), observed: observed.into(), session, join };
        self.coordinator.handle_input(Instant::from_micros(number), input);
        let mut answer = None;
        loop {
            match self.coordinator.poll_output() {
                Output::Timeout(_) => break,
                Output::Send { client: ClientId(to), message: ServerMessage::Welcome(welcome) } if to == number => {
                    answer = Some(Ok(welcome.peers));
                }
                Output::Close { client: ClientId(to), bye } if to == number => {
                    answer = Some(Err((bye.code, bye.reason)))
                }
                _ => {}
            }
        }
        answer.expect("each join is answered")
    }

    fn leave(&mut self, number: u64) {
        let now = Instant::from_micros(self.joined);
        self.coordinator.handle_input(now, Input::Left { client: ClientId(number) });
        while !matches!(self.coordinator.poll_output(), Output::Timeout(_)) {}
    }
}

fn v4(a: u8, b: u8, c: u8, d: u16) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, u8::try_from(d % 250).unwrap())
}

/// The most of one network that is in the list: of a /24 or /48, and of a /16 or /32.
fn most(list: &[PeerCoordinates]) -> (usize, usize) {
    let by = |bits4: u32, bits6: u32| {
        let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
        for peer in list {
            let network = match peer.address.ip() {
                IpAddr::V4(v4) => u128::from(v4.to_bits() >> (32 - bits4)),
                IpAddr::V6(v6) => v6.to_bits() >> (128 - bits6),
            };
            *counts.entry(network).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    };
    (by(24, 48), by(16, 32))
}

#[test]
fn a_list_has_two_of_a_network_and_a_quarter_of_what_is_around_it() {
    let mut crowd = Crowd::new(1, |_| {});
    for index in 0..100 {
        crowd.join(v4(9, 9, 9, index)).unwrap();
    }
    // Of some networks there are many, and for the rest one each.
    let list = crowd.join(v4(8, 8, 8, 1)).unwrap();
    assert_eq!((list.len(), most(&list)), (2, (2, 2)));
    for network in 0..100 {
        crowd.join(v4(20, 30, network, 1)).unwrap();
    }
    let list = crowd.join(v4(8, 8, 7, 1)).unwrap();
    assert_eq!(most(&list), (2, 5), "{list:?}");
    for network in 0..100 {
        crowd.join(v4(50, network, 1, 1)).unwrap();
    }
    for seed in 0..20 {
        let list = crowd.join(v4(60, seed, 1, 1)).unwrap();
        assert_eq!(list.len(), 20, "there are others enough");
        assert!(most(&list).0 <= 2 && most(&list).1 <= 5, "{list:?}");
    }
    crowd.coordinator.check_invariants();
}

#[test]
fn half_of_a_list_may_be_of_ones_own_network() {
    let mut crowd = Crowd::new(2, |_| {});
    for index in 0..100 {
        crowd.join(v4(9, 9, 9, index)).unwrap();
        crowd.join(Ipv6Addr::new(0x2a00, 7, 7, index, 0, 0, 0, 1)).unwrap();
    }
    let of_mine = |list: &[PeerCoordinates]| list.iter().filter(|peer| peer.address.is_ipv4()).count();
    let list = crowd.join(v4(9, 9, 9, 200)).unwrap();
    assert_eq!((list.len(), of_mine(&list)), (12, 10));
    // The same company's next network: two of each, and half of the list in all.
    let list = crowd.join(v4(9, 9, 8, 1)).unwrap();
    assert_eq!((list.len(), of_mine(&list)), (4, 2));
    let list = crowd.join(Ipv6Addr::new(0x2a00, 7, 7, 500, 0, 0, 0, 1)).unwrap();
    assert_eq!((list.len(), of_mine(&list)), (13, 3));
}

#[test]
fn networks_that_were_admitted_are_not_counted() {
    let mut crowd = Crowd::new(3, |config| config.clients_per_network_max = 10);
    let lists: Vec<_> = (0..100).map(|index| crowd.join(v4(10, 1, 1, index)).unwrap()).collect();
    assert_eq!((lists[99].len(), most(&lists[99])), (20, (20, 20)));
}

#[test]
fn one_network_does_not_take_all_places() {
    let mut crowd = Crowd::new(4, |config| config.clients_per_network_max = 10);
    for index in 0..10 {
        crowd.join(v4(9, 9, 9, index)).unwrap();
    }
    let reason = "your network has all the clients that it may have".to_owned();
    assert_eq!(crowd.join(v4(9, 9, 9, 77)), Err((ByeCode::Busy, reason)));
    assert!(crowd.join(v4(9, 9, 8, 77)).is_ok(), "that is another one");
    crowd.leave(3);
    assert!(crowd.join(v4(9, 9, 9, 77)).is_ok(), "one has left");
    assert!(crowd.join(v4(9, 9, 9, 78)).is_err());
    crowd.coordinator.check_invariants();
}

#[test]
fn ten_thousand_identities_in_one_network_are_two_to_others() {
    let mut crowd = Crowd::new(5, |_| {});
    let admitted = (0..10_000).filter(|index| crowd.join(v4(9, 9, 9, *index)).is_ok()).count();
    assert_eq!(admitted, 6_250);
    for honest in 0..200 {
        let list = crowd.join(v4(20 + honest, 1, 1, 1)).unwrap();
        let liars = list.iter().filter(|peer| peer.address.ip().to_string().starts_with("9.9.9.")).count();
        assert!(liars <= 2, "{liars} of {}", list.len());
        // Of 960 that are looked at, about one in 6,450 / honest is.
        assert!(honest < 100 || list.len() - liars >= 3, "honest client {honest} knows {} others", list.len() - liars);
    }
    crowd.coordinator.check_invariants();
}

#[test]
fn whoever_has_four_networks_is_not_all_that_a_client_knows() {
    for seed in 0..100 {
        let mut crowd = Crowd::new(seed, |_| {});
        for index in 0..128 {
            crowd.join(v4(80 + u8::try_from(index % 4).unwrap(), 1, 1, index)).unwrap();
        }
        for honest in 0..32 {
            crowd.join(v4(20 + honest, 1, 1, 1)).unwrap();
        }
        let list = crowd.join(v4(8, 8, 8, 8)).unwrap();
        let honest = list.len() - sybils(&list);
        assert!(honest >= 3 && sybils(&list) <= 8, "seed {seed}: {honest} honest, {} others", sybils(&list));
    }
}

fn sybils(list: &[PeerCoordinates]) -> usize {
    let first = |peer: &PeerCoordinates| match peer.address.ip() {
        IpAddr::V4(v4) => v4.octets()[0],
        IpAddr::V6(_) => 0,
    };
    list.iter().filter(|peer| (80..84).contains(&first(peer))).count()
}
