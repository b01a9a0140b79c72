//! The server is away and peers come and go: the swarm holds together by what peers tell each other.

use crate::all_complete;
use crate::world::{Scenario, World};
use hybrid_units::Duration;

const CLIENTS: u32 = 16;
const CUT: Duration = Duration::from_secs(602);

/// A latecomer that knows few of a swarm of seeds, and the time at which the server goes.
fn latecomer(seed: u64) -> (World, usize) {
    let scenario = Scenario {
        seed,
        server_rate: 200_000,
        peer_rate: 200_000,
        peers_per_list: 3,
        content_len: 16 << 20,
        ..Scenario::default()
    };
    let mut world = World::new(scenario);
    for index in 0..CLIENTS {
        world.add_client(Duration::from_millis(u64::from(index)));
    }
    let late = world.add_client(Duration::from_secs(600));
    world.kill_server_at(CUT);
    (world, late)
}

#[test]
fn who_loses_all_its_peers_goes_on_with_those_that_they_told_of() {
    for seed in 1..=4 {
        let (mut world, late) = latecomer(seed);
        // Before it asks them, and one second after.
        world.run(CUT + Duration::from_secs(4));
        let neighbours = world.neighbours(late);
        assert!((1..12).contains(&neighbours.len()), "it knows {neighbours:?}; {}", world.describe());
        assert!(!world.clients[late].session.is_complete(), "too fast to lose anybody; {}", world.describe());
        for neighbour in neighbours {
            world.leave_at(neighbour, CUT + Duration::from_secs(6));
        }
        world.run(Duration::from_secs(1_200));
        all_complete(&world);
    }
}
