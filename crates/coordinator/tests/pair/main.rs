//! The server's and the clients' brains together, on a virtual clock and network.

mod continuity;
mod world;

use hybrid_coordinator::EgressPolicy;
use hybrid_units::{Duration, Mode};
use hybrid_wire::Source;
use world::{Scenario, World};

const LIMIT: Duration = Duration::from_secs(600);

fn all_complete(world: &World) {
    // A timer that is due and changes nothing would spin a real driver.
    let client_secs = (world.now.as_micros() / 1_000_000 + 1) * world.clients.len() as u64;
    assert!(world.timeouts < 60 * client_secs, "{} timeouts; {}", world.timeouts, world.describe());
    for (index, client) in world.clients.iter().enumerate() {
        assert!(client.session.is_complete(), "client {index} is not complete; {}", world.describe());
        let rebuilt: Vec<u8> = client.store.values().flat_map(|part| part.bytes().to_vec()).collect();
        assert!(rebuilt == world.bytes, "client {index} rebuilt other bytes; {}", world.describe());
    }
}

fn flash_crowd(scenario: Scenario, clients: u32) -> World {
    let mut world = World::new(scenario);
    for index in 0..clients {
        world.add_client(Duration::from_millis(u64::from(index)));
    }
    world
}

#[test]
fn the_first_are_served_directly_and_the_others_by_the_swarm() {
    for seed in 1..=10 {
        let scenario = Scenario { seed, server_rate: 10_000_000, ..Scenario::default() };
        let mut world = flash_crowd(scenario, 14);
        world.run(LIMIT);
        all_complete(&world);
        let (direct, swarm) = world.clients.split_at(2);
        assert!(direct.iter().all(|client| client.modes == [Mode::ClientServer]), "{}", world.describe());
        assert!(swarm.iter().all(|client| client.modes == [Mode::PeerToPeer]), "{}", world.describe());
        for (index, _) in direct.iter().enumerate() {
            assert_eq!(world.progress(index).from(Source::ServerDirect), world.progress(index).total);
        }
        let copies = world.server_sent as f64 / world.bytes.len() as f64;
        assert!(
            copies < 7.0,
            "half of what it would send to all of them directly: it sent {copies:.2} copies to 14 clients; {}",
            world.describe()
        );
    }
}

#[test]
fn a_flash_crowd_ends_near_the_fluid_bound() {
    // Not a benchmark: the clock is virtual, so the figure is a property of the decisions.
    for seed in 1..=5 {
        let scenario = Scenario { seed, content_len: 16 << 20, direct_clients: 1, ..Scenario::default() };
        let (file, server, peer) =
            (scenario.content_len as f64, scenario.server_rate as f64, scenario.peer_rate as f64);
        let mut world = flash_crowd(scenario, 16);
        world.run(LIMIT);
        all_complete(&world);
        let bound = (file / server).max(16.0 * file / (server + 16.0 * peer));
        let last = world.clients.iter().filter_map(|client| client.complete_at).max().expect("all are complete");
        let ratio = last.as_micros() as f64 / 1e6 / bound;
        assert!(ratio < 1.25, "last / bound = {ratio:.2}; {}", world.describe());
    }
}

#[test]
fn who_is_served_too_slowly_joins_the_swarm() {
    // Half a megabyte per second for each of two, where one megabyte is required.
    let mut world = flash_crowd(Scenario { server_rate: 1_000_000, ..Scenario::default() }, 8);
    world.run(LIMIT);
    all_complete(&world);
    for (index, client) in world.clients[..2].iter().enumerate() {
        assert_eq!(client.modes, [Mode::ClientServer, Mode::PeerToPeer], "client {index}; {}", world.describe());
        assert!(world.progress(index).from(Source::Peer).as_u64() > 0, "client {index}; {}", world.describe());
    }
}

#[test]
fn large_contents_ask_for_their_part_ids() {
    let mut world = flash_crowd(
        Scenario { inline_hashes: false, content_len: 20 << 20, part_len: 16_384, ..Scenario::default() },
        6,
    );
    world.run(LIMIT);
    all_complete(&world);
}

#[test]
fn contents_of_no_part_and_of_one() {
    for content_len in [0, 1, 65_536, 65_537] {
        let mut world = flash_crowd(Scenario { content_len, ..Scenario::default() }, 4);
        world.run(LIMIT);
        all_complete(&world);
    }
}

#[test]
fn a_polluter_is_dropped_by_each_victim_after_one_part() {
    for seed in 1..=5 {
        let mut world = flash_crowd(Scenario { seed, ..Scenario::default() }, 10);
        world.clients[0].polluter = true;
        world.run(LIMIT);
        all_complete(&world);
        let polluter = World::peer_id(0);
        let mut victims = 0;
        for (index, client) in world.clients.iter().enumerate() {
            assert!(
                client.banned.iter().all(|peer| *peer == polluter),
                "an honest peer was banned; {}",
                world.describe()
            );
            assert!(client.banned.len() <= 1, "banned twice; {}", world.describe());
            victims += client.banned.len();
            let wasted = world.progress(index).wasted.as_u64();
            let duplicates = client.fetched.len() as u64 * 65_536;
            assert!(wasted <= duplicates, "more wasted than came");
        }
        assert!(victims > 0, "the polluter met nobody: the test tests nothing; {}", world.describe());
    }
}

#[test]
fn the_swarm_finishes_when_the_server_dies_after_enough_copies() {
    for seed in 1..=10 {
        let mut world = flash_crowd(Scenario { seed, direct_clients: 1, ..Scenario::default() }, 10);
        let len = world.bytes.len() as u64;
        world.kill_server_after(len * 2);
        world.run(LIMIT);
        all_complete(&world);
        assert!(world.server_sent < len * 5 / 2);
    }
}

#[test]
fn part_ids_come_from_peers_when_the_server_is_away() {
    let scenario = Scenario { inline_hashes: false, direct_clients: 1, ..Scenario::default() };
    let mut world = flash_crowd(scenario, 6);
    let len = world.bytes.len() as u64;
    world.kill_server_after(len * 2);
    world.run(LIMIT);
    all_complete(&world);
}

#[test]
fn who_comes_back_fetches_only_what_it_lacks() {
    for seed in 1..=5 {
        let mut world = flash_crowd(Scenario { seed, ..Scenario::default() }, 8);
        world.leave_at(1, Duration::from_secs(2));
        world.leave_at(5, Duration::from_secs(2));
        world.arrive_again_at(1, Duration::from_secs(3));
        world.arrive_again_at(5, Duration::from_secs(3));
        world.run(LIMIT);
        all_complete(&world);
        for index in [1, 5] {
            let mut fetched = world.clients[index].fetched.clone();
            let all = fetched.len();
            fetched.sort_unstable();
            fetched.dedup();
            assert_eq!(fetched.len(), all, "client {index} fetched a part twice; {}", world.describe());
        }
    }
}

#[test]
fn a_client_alone_in_the_swarm_comes_back_to_the_server() {
    let mut world = flash_crowd(Scenario { direct_clients: 1, ..Scenario::default() }, 2);
    world.leave_at(0, Duration::from_millis(500));
    world.arrive_again_at(0, Duration::from_secs(60));
    world.run(Duration::from_secs(59));
    assert!(world.clients[1].session.is_complete(), "{}", world.describe());
    assert_eq!(world.clients[1].modes, [Mode::PeerToPeer, Mode::ClientServer], "{}", world.describe());
}

#[test]
fn who_reaches_no_peer_gets_the_content_at_the_required_rate() {
    let mut world = flash_crowd(Scenario { direct_clients: 1, ..Scenario::default() }, 6);
    world.clients[5].cut_off = true;
    world.run(LIMIT);
    all_complete(&world);
    // 4 MiB at 1 MB/s, and the time until it is known to be alone.
    let took = world.clients[5].complete_at.expect("complete");
    assert!(took.as_micros() < 20_000_000, "took {took}; {}", world.describe());
    assert_eq!(world.progress(5).from(Source::Peer).as_u64(), 0);
}

#[test]
fn late_comers_join_a_swarm_of_seeds() {
    let mut world = World::new(Scenario { egress_policy: EgressPolicy::Thrifty, ..Scenario::default() });
    for index in 0..8u64 {
        world.add_client(Duration::from_secs(index * 8));
    }
    world.run(LIMIT);
    all_complete(&world);
    let copies = world.server_sent as f64 / world.bytes.len() as f64;
    assert!(copies < 1.5, "one direct copy and a part for each of seven: {copies:.2}; {}", world.describe());
}

#[test]
fn a_thrifty_server_sends_little_more_than_one_copy() {
    for seed in 1..=5 {
        let scenario =
            Scenario { seed, content_len: 16 << 20, egress_policy: EgressPolicy::Thrifty, ..Scenario::default() };
        let (file, peer) = (scenario.content_len as f64, scenario.peer_rate as f64);
        let mut world = flash_crowd(scenario, 16);
        world.run(LIMIT);
        all_complete(&world);
        let copies = world.server_sent as f64 / file;
        assert!(copies < 1.2, "the server sent {copies:.2} copies; {}", world.describe());
        let bound = (16.0 - copies) * file / (16.0 * peer);
        let last = world.clients.iter().filter_map(|client| client.complete_at).max().expect("all are complete");
        let ratio = last.as_micros() as f64 / 1e6 / bound;
        assert!(ratio < 1.25, "last / bound with that egress = {ratio:.2}; {}", world.describe());
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = flash_crowd(Scenario { seed: 42, ..Scenario::default() }, 12);
        world.run(LIMIT);
        let completions: Vec<_> = world.clients.iter().map(|client| client.complete_at).collect();
        (world.server_sent, completions)
    };
    assert_eq!(run(), run());
}
