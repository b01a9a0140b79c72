//! Classes, moves while clients are served, reports that are checked, and what is told of it all.

use super::*;
use hybrid_coordinator::{ClassConfig, Event};
use hybrid_qos::{Decision, Sample};
use hybrid_units::BytesPerSecond;

/// Bytes of a part.
const PART: u64 = 65_536;

fn mode_changes(outputs: &[Output]) -> Vec<(ClientId, Mode)> {
    let changed = |output: &Output| match output {
        Output::Event(Event::ModeChanged { client, mode, .. }) => Some((*client, *mode)),
        _ => None,
    };
    outputs.iter().filter_map(changed).collect()
}

fn refusals(outputs: &[Output]) -> Vec<&str> {
    let refused = |output| match output {
        &Output::Event(Event::ReportRefused { ref why, .. }) => Some(why.as_str()),
        _ => None,
    };
    outputs.iter().filter_map(refused).collect()
}

/// A link that direct clients share, in steps of half a second. Those of the swarm get little from one another.
struct Link {
    story: Story,
    /// Client, and whether it is served directly.
    clients: Vec<(u64, bool, u32)>,
    capacity: u64,
}

impl Link {
    const LONG: u8 = 3;

    fn new(capacity: u64) -> Self {
        let mut story = Story::with(0, |config| {
            config.qos.direct_clients = DirectClients::Auto;
            config.qos.egress_limit = Some(BytesPerSecond::new(capacity));
            config.pushes_in_flight_max = 0;
        });
        let part_len = PartLen::new(65_536).unwrap();
        story.tell(Input::ContentAdded { content: content(Self::LONG), part_count: 100_000, part_len, class: None });
        // Somebody has everything, so that there is a swarm to go to.
        let outputs = story.join(99, &Newcomer { content: content(Self::LONG), has: 0..100_000, ..Newcomer::new(99) });
        assert_eq!(welcome(&outputs).mode, Mode::ClientServer);
        Self { story, clients: Vec::new(), capacity }
    }

    fn join(&mut self, index: u8) -> Mode {
        let newcomer = Newcomer { content: content(Self::LONG), ..Newcomer::new(index) };
        let mode = welcome(&self.story.join(index.into(), &newcomer)).mode;
        self.clients.push((index.into(), mode == Mode::ClientServer, 0));
        mode
    }

    fn direct(&self) -> u64 {
        self.clients.iter().filter(|(_, direct, _)| *direct).count() as u64
    }

    fn step(&mut self) -> Vec<(ClientId, Mode)> {
        self.story.now += Duration::from_millis(500);
        let each = (self.capacity / self.direct().max(1)).min(1_250_000);
        let mut outputs = Vec::new();
        for (client, direct, held) in &mut self.clients {
            let (source, rate) = if *direct { (Source::ServerDirect, each) } else { (Source::Peer, 200_000) };
            let parts = u32::try_from(rate / 2 / PART).unwrap();
            for number in *held..*held + parts {
                let number = PartNumber::new(number);
                if *direct {
                    let now = self.story.now;
                    let secret = Some(session(*client));
                    let verdict = self.story.coordinator.authorize_part(now, secret, content(Self::LONG), number);
                    assert_eq!(verdict, PartVerdict::Serve(Source::ServerDirect));
                }
            }
            let report = Report {
                gained: ranges(*held..*held + parts),
                received: vec![(source, u64::from(parts) * PART)],
                download_bytes_per_second: rate,
                peers: 3,
                ..Report::default()
            };
            *held += parts;
            outputs.extend(self.story.tell(Input::Report { client: ClientId(*client), report }));
        }
        assert_eq!(refusals(&outputs), Vec::<&str>::new());
        let sample = Sample { egress: BytesPerSecond::new(each * self.direct()), cpu: Some(0.1) };
        outputs.extend(self.story.tell(Input::Sample(sample)));
        let changes = mode_changes(&outputs);
        for (changed, mode) in &changes {
            let client = self.clients.iter_mut().find(|(client, _, _)| client == &changed.0).unwrap();
            client.1 = *mode == Mode::ClientServer;
        }
        changes
    }

    fn steps(&mut self, count: u32) -> Vec<(ClientId, Mode)> {
        (0..count).flat_map(|_| self.step()).collect()
    }
}

#[test]
fn who_is_served_directly_leaves_when_the_link_halves_and_comes_back_with_it() {
    let mut link = Link::new(10_000_000);
    let modes: Vec<Mode> = (1..=9).map(|index| link.join(index)).collect();
    let direct = modes.iter().filter(|mode| **mode == Mode::ClientServer).count();
    assert_eq!(direct, 7, "8 of 8 with the one that has everything: {modes:?}");
    assert_eq!(link.steps(20), [], "all get what they should");

    link.capacity = 5_000_000;
    let left = link.steps(14);
    assert!(left.iter().all(|(_, mode)| *mode == Mode::PeerToPeer), "{left:?}");
    assert!((2..=4).contains(&link.direct()), "{} are left, beside the complete one; {left:?}", link.direct());
    let modes = [10, 11, 12].map(|index| link.join(index));
    assert!(modes.contains(&Mode::PeerToPeer), "newcomers go to the swarm: {modes:?}");

    link.capacity = 10_000_000;
    let back = link.steps(120);
    assert!(back.iter().filter(|(_, mode)| *mode == Mode::PeerToPeer).count() <= 2, "{back:?}");
    assert!(link.direct() >= 6, "{} within a minute; {back:?}", link.direct());

    // And all of it can be read afterwards.
    let status = link.story.coordinator.status(content(Link::LONG)).unwrap();
    let told = |wanted: fn(&Decision) -> bool| status.decisions.iter().any(|event| wanted(&event.decision));
    assert!(told(|decision| matches!(decision, Decision::Threshold { from, to, .. } if to < from)));
    assert!(told(|decision| matches!(decision, Decision::Threshold { from, to, .. } if to > from)));
    let (mover, _) = left[0];
    let mover = peer(u8::try_from(mover.0).unwrap());
    let story: Vec<&Event> =
        link.story.coordinator.events_of(|peer| peer == mover).map(|recorded| &recorded.event).collect();
    assert!(
        matches!(story[..2], [Event::Admitted { .. }, Event::ModeChanged { mode: Mode::PeerToPeer, .. }]),
        "{story:?}"
    );
    assert_eq!(link.story.coordinator.clients_of(|peer| peer == mover).len(), 1);
}

#[test]
fn a_claim_beyond_what_was_sent_is_refused() {
    let mut story = Story::new(2);
    story.join(1, &Newcomer::new(1));
    for number in 0..4 {
        assert_eq!(story.fetch(1, number), PartVerdict::Serve(Source::ServerDirect));
    }
    let mut claim = |gained: std::ops::Range<u32>, bytes| {
        story.now += Duration::from_secs(2);
        let report = Report {
            gained: ranges(gained),
            received: vec![(Source::ServerDirect, bytes)],
            peers: 1,
            ..Report::default()
        };
        refusals(&story.tell(Input::Report { client: ClientId(1), report })).len()
    };
    assert_eq!(claim(0..2, 2 * PART), 0);
    assert_eq!(claim(2..4, 2 * PART), 0);
    assert_eq!(claim(4..8, 4 * PART), 0, "up to 1 MiB may be a matter of when one counts");
    assert_eq!(claim(8..28, 20 * PART), 1, "twenty parts that were never sent");
}

#[test]
fn each_class_counts_its_own_clients() {
    let mut story = Story::with(1, |config| {
        let mut qos = config.qos.clone();
        qos.direct_clients = DirectClients::Fixed(2);
        config.classes = vec![ClassConfig { name: "vod".to_owned(), qos, egress_policy: EgressPolicy::Fast }];
    });
    let part_len = PartLen::new(65_536).unwrap();
    for (index, class) in [(3, "vod"), (4, "unheard-of")] {
        let class = Some(class.to_owned());
        story.tell(Input::ContentAdded { content: content(index), part_count: PARTS, part_len, class });
    }
    let mut mode = |client: u8, which: u8| {
        let newcomer = Newcomer { content: content(which), has: 0..PARTS - 1, ..Newcomer::new(client) };
        welcome(&story.join(client.into(), &newcomer)).mode
    };
    let (direct, swarm) = (Mode::ClientServer, Mode::PeerToPeer);
    assert_eq!([mode(1, 1), mode(2, 1)], [direct, swarm]);
    assert_eq!([mode(3, 3), mode(4, 3), mode(5, 3)], [direct, direct, swarm]);
    assert_eq!([mode(6, 4), mode(7, 4)], [direct, swarm], "content 4 has no holder yet; then it is as content 1");
    assert_eq!(story.coordinator.status(content(3)).unwrap().class, "vod");
}

#[test]
fn the_control_group_is_served_without_peers() {
    let mut story = Story::with(1, |config| {
        config.qos.control_share = 1.0;
        config.qos.egress_limit = Some(BytesPerSecond::new(10_000_000));
    });
    for index in 1..=4 {
        assert_eq!(welcome(&story.join(index.into(), &Newcomer::new(index))).mode, Mode::ClientServer);
    }
    assert!(story.coordinator.clients_of(|known| known == peer(4))[0].control);
}

#[test]
fn a_poor_uplink_serves_one_receiver() {
    let mut story = Story::new(1);
    let mut uploads = |client: u8, rate_limit| {
        let newcomer = Newcomer { rate_limit, ..Newcomer::new(client) };
        welcome(&story.join(client.into(), &newcomer)).limits.uploads_max
    };
    assert_eq!(uploads(1, None), 16);
    assert_eq!(uploads(2, Some(100_000)), 1);
    assert_eq!(uploads(3, Some(1_000_000)), 16);
    // It offered much and sends little.
    let mut report = |sent_bytes, loss_permille| {
        story.now += Duration::from_secs(1);
        let report = Report { sent_bytes, peers: 10, loss_permille, ..Report::default() };
        let outputs = story.tell(Input::Report { client: ClientId(1), report });
        outputs.iter().find_map(|output| match output {
            Output::Send { message: ServerMessage::Directive(directive), .. } => Some(directive.limits?.uploads_max),
            _ => None,
        })
    };
    assert_eq!(report(40_000, None), Some(1));
    assert_eq!(report(40_000, None), None, "it knows");
    assert_eq!(report(400_000, None), Some(16));
    assert_eq!(report(400_000, Some(50)), None, "a twentieth of its packets is lost, and it is fast enough");
    // The most that it was seen to send fades slowly, from 400,000 to 240,000 in eight reports and more.
    let slower: Vec<_> = (0..12).filter_map(|_| report(130_000, Some(50))).collect();
    assert_eq!(slower, [1], "half of that is poor");
    assert_eq!(report(130_000, None), None, "it sent too little to tell");
    assert_eq!(report(130_000, Some(10)), Some(16));
}

#[test]
fn who_offers_too_little_for_a_part_in_time_is_given_to_nobody() {
    let mut story = Story::new(1);
    let offering = |index: u8, rate: u64| Newcomer { rate_limit: Some(rate), has: 0..PARTS, ..Newcomer::new(index) };
    let mut joined = |index: u8, rate| {
        let outputs = story.join(index.into(), &offering(index, rate));
        let welcome = welcome(&outputs);
        (welcome.limits.uploads_max, welcome.peers.len())
    };
    // A part of 64 KiB in 10 s are 6,553.6 bytes per second.
    assert_eq!(joined(1, 6_553), (0, 0));
    assert_eq!(joined(2, 6_554), (1, 0), "the first is no peer");
    assert_eq!(joined(3, 1_000_000), (16, 1));
}
