//! Random schedules against the invariants, and the same schedules with one safety mechanism taken away.

use coop_core::mutant::{self, Mutant};
use coop_core::testing::simulation;

/// `COOP_SIM_SEED` runs one schedule again.
#[test]
fn schedules_hold_the_invariants() {
    if let Ok(seed) = std::env::var("COOP_SIM_SEED") {
        let seed = seed.parse().expect("a number");
        return simulation::run(seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let schedules: u64 = std::env::var("COOP_SIM_SCHEDULES").map_or(200, |n| n.parse().expect("a number"));
    for seed in 0..schedules {
        simulation::run(seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn without_a_mechanism_the_schedules_find_it_out() {
    for mutant in [Mutant::Recovery] {
        let _removed = mutant::remove(mutant);
        let found = (0..2_000).find_map(|seed| simulation::run(seed).err());
        println!("{mutant:?}: {}", found.expect("nothing noticed"));
    }
}
