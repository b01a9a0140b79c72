//! What members say of each other.

use super::*;
use hybrid_wire::control::Vouch;

const STAKE: u32 = 10;

/// Seven clients, each in a network of its own and served directly, of whom the first say that they hold everything.
fn seven(claim: u8) -> Story {
    let mut story = Story::with(7, |config| {
        config.vouchers_needed = 1;
        config.trust_admitted_networks = false;
    });
    for index in 1..=7 {
        let has = if index <= claim { 0..PARTS } else { 0..0 };
        story.join(index.into(), &Newcomer { has, address: Ipv4Addr::new(10, 0, index, 1), ..Newcomer::new(index) });
    }
    story
}

impl Story {
    /// The server sends parts to a client, which reports them.
    fn send(&mut self, client: u64, parts: std::ops::Range<u32>) {
        for number in parts.clone() {
            assert_eq!(self.fetch(client, number), PartVerdict::Serve(Source::ServerDirect));
        }
        self.report(client, parts);
    }

    fn vouch(&mut self, client: u64, index: u8) {
        let vouch = Vouch { peers: vec![peer(index)] };
        self.tell(Input::Vouch { client: ClientId(client), vouch });
    }

    fn accuse(&mut self, client: u64, index: u8) {
        let report = Report { bad: vec![(peer(index), 1)], ..Report::default() };
        self.tell(Input::Report { client: ClientId(client), report });
    }

    fn unknown_parts(&self) -> u32 {
        self.coordinator.stats(content(1)).unwrap().parts_without_holder
    }

    /// Whether a newcomer is told of this peer.
    fn is_given(&mut self, index: u8) -> bool {
        let newcomer = Newcomer { address: Ipv4Addr::new(10, 0, 99, 1), ..Newcomer::new(99) };
        let outputs = self.join(99, &newcomer);
        let given = welcome(&outputs).peers.iter().any(|coordinates| coordinates.peer == peer(index));
        self.tell(Input::Left { client: ClientId(99) });
        given
    }
}

#[test]
fn what_a_client_says_that_it_holds_counts_when_somebody_got_a_part_from_it() {
    let mut story = seven(1);
    assert_eq!(story.unknown_parts(), PARTS, "that is its own word");
    story.report(2, 0..PARTS);
    assert_eq!(story.unknown_parts(), PARTS, "and so is a report of parts that the server did not send");
    story.send(3, 0..STAKE - 1);
    assert_eq!(story.unknown_parts(), PARTS - STAKE + 1, "what the server sent is known");
    story.vouch(3, 1);
    assert_eq!(story.unknown_parts(), PARTS - STAKE + 1, "nine parts give nobody a voice");
    story.send(3, STAKE - 1..STAKE);
    story.vouch(3, 1);
    assert_eq!(story.unknown_parts(), 0);
    story.tell(Input::Left { client: ClientId(1) });
    assert_eq!(story.unknown_parts(), PARTS - STAKE);
    story.vouch(3, 3);
    story.vouch(2, 2);
    assert_eq!(story.unknown_parts(), PARTS - STAKE, "nobody vouches for itself");
}

#[test]
fn the_server_may_stop_when_each_part_has_enough_copies() {
    let mut story = seven(1);
    for client in 2..=5 {
        let survival = story.coordinator.status(content(1)).unwrap().survival;
        let copies = i32::try_from(client - 2).unwrap();
        let expected = f64::from(PARTS) * 0.2f64.powi(copies);
        assert!((survival.lost_of_fifth - expected).abs() < 1e-9, "{survival:?} with {copies} copies");
        assert!(!survival.may_stop(), "{survival:?}: the first one's word does not count");
        story.send(client, 0..PARTS);
    }
    story.vouch(2, 1);
    let survival = story.coordinator.status(content(1)).unwrap().survival;
    assert!((survival.lost_of_tenth - f64::from(PARTS) * 0.1f64.powi(5)).abs() < 1e-9, "{survival:?}");
    assert!(!survival.may_stop(), "{survival:?}: 40 parts of five copies");
    story.send(6, 0..PARTS);
    let survivals: Vec<bool> = story.coordinator.survivals().map(|(_, survival)| survival.may_stop()).collect();
    assert_eq!(survivals, [true], "only contents with clients are looked at");
}

#[test]
fn accused_from_three_networks_a_peer_is_given_to_nobody() {
    let mut story = seven(1);
    for client in [2, 3, 4] {
        assert!(story.is_given(1), "before {client} accuses it");
        story.send(client, 0..STAKE);
        story.accuse(client, 1);
        story.accuse(client, 1);
    }
    assert!(!story.is_given(1));
    story.tell(Input::Left { client: ClientId(1) });
    story.join(8, &Newcomer { address: Ipv4Addr::new(10, 0, 1, 1), ..Newcomer::new(1) });
    assert!(!story.is_given(1), "it left and came back");
}

#[test]
fn nobody_is_hidden_by_those_who_have_no_parts_or_are_of_one_network() {
    let mut story = seven(1);
    for client in [2, 3, 4, 5] {
        story.report(client, 0..PARTS);
        story.accuse(client, 1);
    }
    assert!(story.is_given(1), "they only say that they have parts");
    for index in 10..15 {
        let accuser = u64::from(index);
        story.tell(Input::Left { client: ClientId(accuser - 8) });
        story.join(accuser, &Newcomer { address: Ipv4Addr::new(10, 0, 200, index), ..Newcomer::new(index) });
        story.send(accuser, 0..STAKE);
        story.accuse(accuser, 1);
    }
    assert!(story.is_given(1), "five of one network are one");
}

#[test]
fn slander_is_outvoted_by_those_who_got_good_parts() {
    let mut story = seven(1);
    (2..=7).for_each(|client| story.send(client, 0..STAKE));
    for voucher in [2, 3, 4] {
        story.vouch(voucher, 1);
    }
    for slanderer in [5, 6, 7] {
        story.accuse(slanderer, 1);
    }
    assert!(story.is_given(1), "three for it and three against it");
    // Who got good parts first and a bad one then, is against it.
    story.accuse(4, 1);
    assert!(!story.is_given(1));
    story.vouch(4, 1);
    story.join(8, &Newcomer { address: Ipv4Addr::new(10, 0, 8, 1), ..Newcomer::new(8) });
    assert!(!story.is_given(1), "three for it and four against it");
    story.tell(Input::Left { client: ClientId(6) });
    story.join(9, &Newcomer { address: Ipv4Addr::new(10, 0, 9, 1), ..Newcomer::new(9) });
    story.send(9, 0..STAKE);
    story.vouch(9, 1);
    assert!(story.is_given(1), "as many for it as against it again");
}

#[test]
fn in_a_network_that_the_operator_admitted_ones_own_word_counts() {
    for (trusted, expected) in [(true, 0), (false, PARTS)] {
        let mut story = Story::with(1, |config| {
            config.vouchers_needed = 1;
            config.trust_admitted_networks = trusted;
        });
        story.join(1, &Newcomer { has: 0..PARTS, ..Newcomer::new(1) });
        let stats = story.coordinator.stats(content(1)).expect("it is there");
        assert_eq!(stats.parts_without_holder, expected, "trusted: {trusted}");
    }
}
