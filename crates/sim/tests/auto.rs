//! The number of direct clients that `auto` finds, against the best fixed one.

use hybrid_sim::{Scenario, Simulation};

/// Seconds from arrival to completion, the mean of all clients over a few seeds.
fn mean(scenario: &Scenario) -> f64 {
    const SEEDS: u64 = 3;
    let one = |seed| {
        let scenario = Scenario { seed, ..scenario.clone() };
        Simulation::new(scenario).expect("it can be played").run().completion.mean
    };
    (1..=SEEDS).map(one).sum::<f64>() / SEEDS as f64
}

/// A crowd at once and one that comes a client a second, the server's link known to it or not.
#[test]
fn auto_is_as_good_as_the_best_fixed_number() {
    for name in ["S1", "S4"] {
        let named = Scenario::named(name).expect("a name of the list");
        let fixed = |direct| mean(&Scenario { direct: Some(direct), ..named.clone() });
        let best = [1, 2, 4].map(fixed).into_iter().fold(f64::INFINITY, f64::min);
        for limit in [None, Some(named.server_up)] {
            let mut scenario = Scenario { direct: None, ..named.clone() };
            scenario.coordinator.qos.egress_limit = limit;
            let auto = mean(&scenario);
            assert!(auto <= 1.05 * best, "{name}, limit {limit:?}: {auto:.2} s with auto, {best:.2} s at best");
        }
    }
}
