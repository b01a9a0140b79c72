//! What the swarm's books cost with 100,000 clients of a content of 1,000 parts: in the directory alone, and in the whole
//! coordinator.
//!
//! `cargo xtask bench bookkeeping` runs it and holds the figures against their limits; each is a line
//! `figure<TAB>NAME<TAB>VALUE<TAB>UNIT`.
//! Times are hand-taken: medians of [`ROUNDS`] rounds over operations that were made up before, one after the other at random
//! places, so that each finds its holder in memory rather than in the processor's cache.

#![allow(clippy::print_stdout, reason = "its lines are what it is for")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures time, and against a hash map")]
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use ed25519_dalek::SigningKey;
use hybrid_coordinator::{ClientId, Config, Coordinator, Input, Output, TicketIssuer};
use hybrid_manifest::{ContentId, PartLen, PartNumber};
use hybrid_qos::DirectClients;
use hybrid_swarm::{Directory, HolderSlot, PartSet};
use hybrid_units::{Duration, Instant, UnixTime};
use hybrid_wire::address::AddressPolicy;
use hybrid_wire::control::{Join, Report, ServerMessage, Want};
use hybrid_wire::ticket::{Roles, Ticket, prefix_mac};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerId, SessionToken, UploadContract};
use rand::rngs::ChaCha8Rng;
use rand::seq::index;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

const HOLDERS: u32 = 100_000;
const PARTS: u32 = 1_000;
/// What a holder has, in percent of the parts, in the mean: a swarm that is young enough to be busy.
const HELD_PERCENT: u32 = 18;
const ROUNDS: usize = 5;
const PER_ROUND: usize = 20_000;
/// New parts in a report.
const REPORTED: usize = 16;
/// Rarest parts asked for at a time.
const RAREST: usize = 8;
/// Holders looked at for a newcomer's list, and places in it.
const SAMPLE: usize = 60;
const LIST: usize = 20;
/// Holders in the hash map, which would not fit otherwise.
const HASHED_HOLDERS: u32 = 2_000;

/// A part of the benchmark, with its source of randomness.
type Section = fn(&mut ChaCha8Rng);

fn main() {
    // `cargo test --all-targets` starts this too, without optimisation and without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let sections: [(&str, Section); 3] =
        [("yardsticks", yardsticks), ("directory", directory), ("coordinator", coordinator)];
    match std::env::args().find_map(|argument| sections.iter().find(|(name, _)| *name == argument)) {
        Some((_, section)) => section(&mut ChaCha8Rng::seed_from_u64(1)),
        // Each in a process of its own: memory that one has freed would be used again by the next, and not be seen.
        None => sections.iter().for_each(|(name, _)| {
            let status = Command::new(std::env::current_exe().unwrap()).args(["--bench", name]).status().unwrap();
            assert!(status.success(), "{name} failed");
        }),
    }
}

fn figure(name: &str, value: f64, unit: &str) {
    println!("figure\t{name}\t{value:.1}\t{unit}");
}

/// The median over the rounds of the time for one operation, in nanoseconds.
fn nanos_each<T>(rounds: &mut [Vec<T>], mut operation: impl FnMut(&mut T)) -> f64 {
    let mut times: Vec<f64> = rounds
        .iter_mut()
        .map(|round| {
            let start = std::time::Instant::now();
            round.iter_mut().for_each(&mut operation);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(round.len()).unwrap())
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn rounds_of<T>(mut make: impl FnMut() -> T) -> Vec<Vec<T>> {
    (0..ROUNDS).map(|_| (0..PER_ROUND).map(|_| make()).collect()).collect()
}

/// Memory that this process has from the system, in bytes; whole pages, which is fine for the sizes here.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    1_024.0 * kib.unwrap_or(f64::NAN)
}

fn random_parts(rng: &mut ChaCha8Rng) -> impl Iterator<Item = PartNumber> {
    (0..PARTS).filter(|_| rng.random_ratio(HELD_PERCENT, 100)).map(PartNumber::new)
}

/// Holders that are asked about in this order, each once, with new parts for each.
fn new_parts(rng: &mut ChaCha8Rng, lacks: impl Fn(u32, PartNumber) -> bool) -> Vec<Vec<(u32, Vec<PartNumber>)>> {
    let mut order = index::sample(rng, HOLDERS as usize, ROUNDS * PER_ROUND).into_iter();
    rounds_of(|| {
        let holder = u32::try_from(order.next().unwrap()).unwrap();
        let mut parts: Vec<PartNumber> = index::sample(rng, PARTS as usize, PARTS as usize)
            .into_iter()
            .map(|part| PartNumber::new(u32::try_from(part).unwrap()))
            .filter(|part| lacks(holder, *part))
            .take(REPORTED)
            .collect();
        parts.sort_unstable();
        (holder, parts)
    })
}

/// What any program must pay here for the same: a look at 125 bytes somewhere in memory, and the obvious structure.
fn yardsticks(rng: &mut ChaCha8Rng) {
    let bitmaps: Vec<[u64; 16]> = (0..HOLDERS).map(|_| std::array::from_fn(|_| rng.random())).collect();
    let mut places = rounds_of(|| rng.random_range(0..bitmaps.len()));
    let mut sum = 0;
    let nanos = nanos_each(&mut places, |place| {
        sum += bitmaps[*place].iter().map(|word| word.count_ones()).sum::<u32>();
    });
    black_box(sum);
    figure("counting the bits of a bitmap of 1,000", nanos, "ns");

    let before = resident_bytes();
    let mut holders: HashMap<u32, HashSet<u32>> = HashMap::new();
    for holder in 0..HASHED_HOLDERS {
        random_parts(rng).for_each(|part| {
            holders.entry(part.as_u32()).or_default().insert(holder);
        });
    }
    figure(
        "a hash map of hash sets, 2,000 holders: memory",
        (resident_bytes() - before) / f64::from(HASHED_HOLDERS),
        "B",
    );
    let mut reports = rounds_of(|| {
        let parts: [u32; REPORTED] = std::array::from_fn(|_| rng.random_range(0..PARTS));
        (rng.random_range(0..HASHED_HOLDERS), parts)
    });
    let nanos = nanos_each(&mut reports, |(holder, parts)| {
        for part in parts {
            holders.entry(*part).or_default().insert(*holder);
        }
    });
    figure("a hash map of hash sets, 2,000 holders: report", nanos, "ns");
}

fn directory(rng: &mut ChaCha8Rng) {
    let before = resident_bytes();
    let mut directory = Directory::new(PARTS, HOLDERS);
    for _ in 0..HOLDERS {
        directory.join(PartSet::from_parts(PARTS, random_parts(rng))).unwrap();
    }
    figure("directory: memory", (resident_bytes() - before) / f64::from(HOLDERS), "B");

    let mut reports = new_parts(rng, |holder, part| !directory.holds(HolderSlot::new(holder), part));
    let nanos = nanos_each(&mut reports, |(holder, parts)| {
        let news = directory.gain_all(HolderSlot::new(*holder), parts.iter().copied());
        assert_eq!(news as usize, REPORTED, "all parts of a report are news");
    });
    figure("directory: report", nanos, "ns");
    drop(reports);

    let mut askers = rounds_of(|| HolderSlot::new(rng.random_range(0..HOLDERS)));
    let mut sum = 0;
    let nanos = nanos_each(&mut askers, |asker| {
        let held = directory.set(*asker).unwrap();
        sum += directory.rarity().rarest_for(held, |_| false, RAREST).map(PartNumber::as_u32).sum::<u32>();
    });
    black_box(sum);
    figure("directory: rarest", nanos, "ns");

    let mut samples = rounds_of(|| {
        let newcomer = PartSet::from_parts(PARTS, random_parts(rng));
        let sample: [HolderSlot; SAMPLE] = std::array::from_fn(|_| HolderSlot::new(rng.random_range(0..HOLDERS)));
        (newcomer, sample)
    });
    let mut sum = 0;
    let nanos = nanos_each(&mut samples, |(newcomer, sample)| {
        let useful = directory.useful_to(sample, newcomer).into_iter().map(std::cmp::Reverse);
        let mut scored: Vec<_> = useful.zip(sample.iter().copied()).collect();
        scored.select_nth_unstable(LIST);
        sum += scored[..LIST].iter().map(|(useful, _)| useful.0).sum::<u32>();
    });
    black_box(sum);
    figure("directory: list", nanos, "ns");

    let mut leavers = rounds_of(|| HolderSlot::new(rng.random_range(0..HOLDERS)));
    let nanos = nanos_each(&mut leavers, |leaver| {
        let held = directory.leave(*leaver).unwrap();
        black_box(directory.join(held).unwrap());
    });
    figure("directory: leave and join again", nanos, "ns");
    directory.check_invariants();
}

/// The whole brain, as the server drives it.
struct Brain {
    coordinator: Coordinator,
    now: Instant,
    welcomes: u64,
    pushed: VecDeque<(ClientId, PartNumber)>,
}

impl Brain {
    /// Tells it, and does what a driver would: takes all outputs, and has one push written before each input. On a link that
    /// takes all pushes at once, each would bring another one, until all clients had everything.
    fn tell(&mut self, input: Input) {
        self.now += Duration::from_micros(20);
        if let Some((client, number)) = self.pushed.pop_front() {
            self.coordinator.handle_input(self.now, Input::PushDone { client, number, sent: true });
        }
        self.coordinator.handle_input(self.now, input);
        loop {
            match self.coordinator.poll_output() {
                Output::Timeout(_) => return,
                Output::Push { client, number, .. } => self.pushed.push_back((client, number)),
                Output::Send { message: ServerMessage::Welcome(_), .. } => self.welcomes += 1,
                Output::Close { bye, .. } => panic!("a client was sent away: {bye:?}"),
                Output::Send { .. } | Output::Event(_) => {}
            }
        }
    }
}

fn address(client: u64) -> IpAddr {
    let [.., a, b, c] = client.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, a, b, c))
}

fn peer(client: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&client.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn join(client: u64, content: ContentId, has: PartRanges) -> Input {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&client.to_be_bytes());
    Input::Join {
        client: ClientId(client),
        observed: address(client),
        session: SessionToken::from_bytes(session),
        join: Join {
            version: PROTOCOL_VERSION,
            program: "bench".to_owned(),
            content,
            peer: peer(client),
            quic_port: Some(4_000),
            has,
            want: Want::Whole,
            contract: UploadContract { upload: true, ..UploadContract::default() },
        },
    }
}

fn coordinator(rng: &mut ChaCha8Rng) {
    let (key, network_secret) = (SigningKey::from_bytes(&[4; 32]), [1; 32]);
    let unix_now = UnixTime::from_secs(1_790_000_000);
    let content = ContentId::from_bytes([7; 32]);

    let mut peers = rounds_of(|| rng.random::<u64>());
    // One round of signing is long enough.
    let nanos = nanos_each(&mut peers[..1], |client| {
        let mut ticket =
            Ticket::issue(&key, content, peer(*client), unix_now, Duration::from_secs(3_600), Roles::LEECH);
        ticket.net = prefix_mac(&network_secret, address(*client));
        black_box(ticket.sign(&key));
    });
    figure("coordinator: a ticket", nanos, "ns");

    let mut config = Config::default();
    config.addresses = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap()]);
    config.qos.direct_clients = DirectClients::Fixed(1);
    // Tickets that are renewed meanwhile would count as reports.
    config.ticket_ttl = Duration::from_secs(7_200);
    let now = Instant::from_micros(1);
    let issuer = TicketIssuer { key, network_secret };
    let coordinator = Coordinator::new(config, issuer, now, unix_now).unwrap();
    let mut brain = Brain { coordinator, now, welcomes: 0, pushed: VecDeque::new() };
    let part_len = PartLen::new(1 << 20).unwrap();
    brain.tell(Input::ContentAdded { content, part_count: PARTS, part_len, class: None });

    let held: Vec<PartSet> = (0..HOLDERS).map(|_| PartSet::from_parts(PARTS, random_parts(rng))).collect();
    let before = resident_bytes();
    let mut times = Vec::with_capacity(HOLDERS as usize);
    for (client, set) in (0..).zip(&held) {
        // Made one at a time, so that what it takes is not counted as the coordinator's memory.
        let input = join(client, content, PartRanges::from_ascending(set.iter()));
        let start = std::time::Instant::now();
        brain.tell(input);
        times.push(start.elapsed().as_secs_f64() * 1e9);
    }
    assert_eq!(brain.welcomes, u64::from(HOLDERS), "all were welcome");
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    figure("coordinator: memory", (resident_bytes() - before) / f64::from(HOLDERS), "B");
    figure("coordinator: join", median(&times), "ns");
    figure("coordinator: join, the first 5,000", median(&times[..5_000]), "ns");

    let mut reports: Vec<Vec<Option<Input>>> = new_parts(rng, |holder, part| !held[holder as usize].contains(part))
        .into_iter()
        .map(|round| {
            let input = |(holder, parts): (u32, Vec<PartNumber>)| {
                let report = Report {
                    level: held[holder as usize].len() + u32::try_from(parts.len()).unwrap(),
                    gained: PartRanges::from_ascending(parts),
                    peers: 20,
                    download_bytes_per_second: 1_000_000,
                    ..Report::default()
                };
                Some(Input::Report { client: ClientId(u64::from(holder)), report })
            };
            round.into_iter().map(input).collect()
        })
        .collect();
    let nanos = nanos_each(&mut reports, |input| brain.tell(input.take().unwrap()));
    figure("coordinator: report", nanos, "ns");

    let mut leavers = index::sample(rng, HOLDERS as usize, PER_ROUND).into_iter();
    let mut round = [(0..PER_ROUND / 10).map(|_| leavers.next().unwrap() as u64).collect::<Vec<u64>>()];
    let nanos = nanos_each(&mut round, |client| brain.tell(Input::Left { client: ClientId(*client) }));
    figure("coordinator: leave", nanos, "ns");
    brain.coordinator.check_invariants();
}
