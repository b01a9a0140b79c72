//! Clients that begin and cease to serve others while they are there.

use super::*;
use hybrid_wire::control::Uploads;

impl Story {
    fn uploads(&mut self, client: u64, on: bool) -> Vec<Output> {
        self.tell(Input::Uploads { client: ClientId(client), uploads: Uploads { on } })
    }

    fn peers_of_a_newcomer(&mut self) -> Vec<PeerId> {
        let outputs = self.join(99, &Newcomer::new(99));
        let peers = welcome(&outputs).peers.iter().map(|coordinates| coordinates.peer).collect();
        self.tell(Input::Left { client: ClientId(99) });
        peers
    }

    fn unknown(&self) -> u32 {
        self.coordinator.stats(content(1)).unwrap().parts_without_holder
    }
}

#[test]
fn who_ceases_to_serve_is_no_source_until_it_serves_again() {
    let mut story = Story::new(9);
    story.join(1, &Newcomer { has: 0..PARTS, ..Newcomer::new(1) });
    assert_eq!((story.peers_of_a_newcomer(), story.unknown()), (vec![peer(1)], 0));
    for _ in 0..2 {
        story.uploads(1, false);
        assert_eq!((story.peers_of_a_newcomer(), story.unknown()), (vec![], PARTS));
    }
    for _ in 0..2 {
        story.uploads(1, true);
        assert_eq!((story.peers_of_a_newcomer(), story.unknown()), (vec![peer(1)], 0));
    }
    // Nobody of that number has joined.
    assert!(story.uploads(7, true).is_empty());
}

#[test]
fn who_joins_while_it_does_not_serve_is_given_later_where_it_named_a_port() {
    let mut story = Story::new(9);
    let silent = Newcomer { upload: false, has: 0..PARTS, ..Newcomer::new(1) };
    let limits = welcome(&story.join(1, &silent)).limits;
    assert!(limits.uploads_max > 0, "what it may do when it serves must not wait for another message");
    assert_eq!(story.peers_of_a_newcomer(), []);
    story.uploads(1, true);
    assert_eq!(story.peers_of_a_newcomer(), [peer(1)]);
    // Its own rate goes on to bind it.
    let slow = Newcomer { upload: false, rate_limit: Some(1), has: 0..PARTS, ..Newcomer::new(2) };
    assert_eq!(welcome(&story.join(2, &slow)).limits.uploads_max, 0);
    story.uploads(2, true);
    assert_eq!(story.peers_of_a_newcomer(), [peer(1)]);
}

#[test]
fn those_who_are_left_with_nobody_come_back_to_the_server() {
    let mut story = Story::new(1);
    story.join(1, &Newcomer { has: 0..PARTS, ..Newcomer::new(1) });
    let second = story.join(2, &Newcomer { upload: false, ..Newcomer::new(2) });
    assert_eq!(welcome(&second).mode, Mode::PeerToPeer);
    // There is room for one direct client, and the complete one needs it no more.
    story.join(3, &Newcomer { has: 0..PARTS, ..Newcomer::new(3) });
    story.tell(Input::Left { client: ClientId(1) });
    let outputs = story.uploads(3, false);
    let taken_back = outputs.iter().any(|output| {
        matches!(output, Output::Send { client: ClientId(2), message: ServerMessage::Directive(directive) }
            if matches!(directive.mode, Some((Mode::ClientServer, _))))
    });
    assert!(taken_back, "{outputs:?}");
}
