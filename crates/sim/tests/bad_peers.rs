//! Six clients of twenty misbehave, all in the same way: what that costs the fourteen others, against the same run in which
//! the six never come.

use hybrid_sim::{Misbehaviour, Outcome, Scenario, Simulation};
use hybrid_units::Duration;

const PEERS: u32 = 20;
const BAD: u32 = 6;

fn play(misbehaviour: Misbehaviour, name: &str, seed: u64) -> Outcome {
    let named = Scenario::named(name).expect("a name of the list");
    let limit = Duration::from_secs(600);
    let scenario = Scenario { seed, peers: PEERS, bad_peers: BAD, parts: 128, misbehaviour, limit, ..named };
    Simulation::new(scenario).expect("it can be played").run()
}

/// All honest clients are complete, the last no later than so many times as late as without the bad ones, and no bad one
/// wasted more than a part beyond what it gave.
fn costs_at_most(misbehaviour: Misbehaviour, most: f64) {
    for name in ["flash", "S1"] {
        for seed in 1..=2 {
            let outcome = play(misbehaviour, name, seed);
            let again = format!(
                "cargo xtask sim --scenario {name} --peers {PEERS} --parts 128 --bad-peers {BAD} --misbehaviour {} --seed {seed}",
                misbehaviour.name()
            );
            assert_eq!((outcome.complete, outcome.incomplete), (PEERS - BAD, 0), "{again}");
            let part = outcome.content_bytes / u64::from(outcome.parts);
            for harm in &outcome.harms {
                assert!(harm.wasted <= harm.given + part, "{harm:?} with parts of {part} bytes; {again}");
            }
            let ratio = outcome.last_secs / play(Misbehaviour::Absent, name, seed).last_secs;
            assert!(ratio <= most, "{ratio:.3} times as late as without them; {again}");
        }
    }
}

/// Of those who lie about what they hold or send.
const LIARS: f64 = 1.15;

/// Of those who only take: all twenty want the content and fourteen uplinks serve them, of which the fluid bound is this
/// multiple at most.
const TAKERS: f64 = PEERS as f64 / (PEERS - BAD) as f64;

#[test]
fn pollute() {
    costs_at_most(Misbehaviour::Pollute, LIARS);
}

#[test]
fn pollute_some() {
    costs_at_most(Misbehaviour::PolluteSome, LIARS);
}

#[test]
fn pollute_later() {
    costs_at_most(Misbehaviour::PolluteLater, LIARS);
}

#[test]
fn trickle() {
    costs_at_most(Misbehaviour::Trickle, LIARS);
}

#[test]
fn stall() {
    costs_at_most(Misbehaviour::Stall, LIARS);
}

#[test]
fn silent() {
    costs_at_most(Misbehaviour::Silent, LIARS);
}

#[test]
fn deny() {
    costs_at_most(Misbehaviour::Deny, LIARS);
}

#[test]
fn fake_rarity() {
    costs_at_most(Misbehaviour::FakeRarity, LIARS);
}

#[test]
fn free_ride() {
    costs_at_most(Misbehaviour::FreeRide, TAKERS);
}

#[test]
fn request_flood() {
    costs_at_most(Misbehaviour::RequestFlood, TAKERS);
}

#[test]
fn cancel_storm() {
    costs_at_most(Misbehaviour::CancelStorm, TAKERS);
}

#[test]
fn slander() {
    costs_at_most(Misbehaviour::Slander, TAKERS);
}

#[test]
fn a_bad_part_costs_its_sender_each_victim() {
    let outcome = play(Misbehaviour::Pollute, "flash", 1);
    assert!(outcome.counts.bans >= u64::from(BAD), "the polluters met nobody: the test tests nothing");
    let part = outcome.content_bytes / u64::from(outcome.parts);
    for harm in &outcome.harms {
        assert!(harm.given == 0 && harm.wasted <= part, "{harm:?}");
    }
}
