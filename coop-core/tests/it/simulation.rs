//! Random schedules against the invariants, and the same schedules with one safety mechanism taken away.

use coop_core::mutant::{self, Mutant};
use coop_core::testing::simulation::{self, Carriage};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many schedules a run of the tests goes through; `COOP_SIM_SCHEDULES` overrides it.
const SCHEDULES: u64 = 10_000;

/// `COOP_SIM_SEED` runs one schedule again, `COOP_SIM_TRACE` prints what happens.
#[test]
fn schedules_hold_the_invariants() {
    hold(simulation::run);
}

/// The same with several servers each time, and a bus between them that loses, doubles, reorders, and is away.
#[test]
fn schedules_hold_over_a_lossy_bus() {
    hold(|seed| simulation::run_between(seed, Carriage::Lossy));
}

fn hold(run: impl Fn(u64) -> Result<(), String> + Sync) {
    if let Ok(seed) = std::env::var("COOP_SIM_SEED") {
        let seed = seed.parse().expect("a number");
        return run(seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let schedules: u64 = std::env::var("COOP_SIM_SCHEDULES").map_or(SCHEDULES, |n| n.parse().expect("a number"));
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= schedules {
                        break;
                    }
                    if let Err(broken) = run(seed) {
                        // The others need not go on.
                        next.store(schedules, Ordering::Relaxed);
                        panic!("{broken}");
                    }
                }
            });
        }
    });
}

/// Every mechanism that schedules can notice the loss of, and how many of them that may take.
#[test]
fn without_a_mechanism_the_schedules_break() {
    let mechanisms = [
        Mutant::ClientIdLookup,
        Mutant::BodyHash,
        Mutant::AckAfterCommit,
        Mutant::ReloadInDoubt,
        Mutant::Gate,
        Mutant::OfferChecksPosition,
        Mutant::BehindAfterRefusal,
        Mutant::HeadBeforeSleep,
        Mutant::SkipBelowCursor,
        Mutant::FillFromStore,
        Mutant::TapeCloses,
        Mutant::TapeWithSnapshot,
        Mutant::Recovery,
        Mutant::EndRetry,
        Mutant::EndOnce,
        Mutant::Checkpoint,
        Mutant::AskWithTurn,
        Mutant::GoneBeforePublish,
        Mutant::GoneAfterLoad,
        Mutant::Heads,
        Mutant::Lease,
        Mutant::Fence,
    ];
    // These are noticed where a bus loses something, and where it carries everything and is to be quick.
    let of_buses = [
        (Mutant::Gate, Carriage::Lossy),
        (Mutant::Heads, Carriage::Lossy),
        (Mutant::PieceFits, Carriage::Lossy),
        (Mutant::ExpelHeard, Carriage::Good),
    ];
    let anywhere = mechanisms.into_iter().map(|mechanism| (mechanism, None));
    let of_buses = of_buses.into_iter().map(|(mechanism, bus)| (mechanism, Some(bus)));
    let mut unnoticed = Vec::new();
    for (mechanism, bus) in anywhere.chain(of_buses) {
        let _removed = mutant::remove(mechanism);
        let run = |seed| match bus {
            Some(bus) => simulation::run_between(seed, bus),
            None => simulation::run(seed),
        };
        let broken = (0..6_000).find_map(|seed| run(seed).err().map(|broken| (seed, broken)));
        match broken {
            Some((seed, broken)) => {
                let words: String = broken.lines().next().unwrap_or_default().chars().take(140).collect();
                println!("without {mechanism:?}, schedule {seed}: {words}");
            }
            None => unnoticed.push((mechanism, bus)),
        }
    }
    assert!(
        unnoticed.is_empty(),
        "nothing noticed that these were missing: {unnoticed:?}"
    );
}
