//! The server ends for good while a crowd downloads, and nobody leaves.

use hybrid_sim::{Scenario, Simulation};
use hybrid_units::Duration;

#[test]
fn all_finish_when_the_server_ends_after_1_2_copies() {
    for seed in 1..=20 {
        let named = Scenario::named("server-dies").expect("a name of the list");
        let scenario = Scenario { seed, peers: 30, limit: Duration::from_secs(600), ..named };
        assert_eq!(scenario.server.dies_after_copies, Some(1.2));
        let outcome = Simulation::new(scenario).expect("it can be played").run();
        assert_eq!((outcome.complete, outcome.incomplete), (30, 0), "seed {seed}: {:?}", outcome.counts);
        assert!(outcome.server_copies < 1.5, "seed {seed}: {:.2} copies", outcome.server_copies);
    }
}
