//! The engine in a world that can be repeated: one seed decides what people do, how long everything takes, what the
//! store refuses or leaves in doubt, when readers come back and when the process dies.
//!
//! Each life of an engine is a single-threaded runtime with a paused clock; a crash drops the runtime. The world
//! (the store's contents, what was acknowledged, what bots wrote, what readers show) outlives it. At the end the
//! world is held against the invariants.

mod bot;
mod people;
mod shown;
mod store;
mod verdict;
mod wire;
mod world;

pub use shown::Shown;

use crate::builder::{Engine, EngineBuilder};
use crate::live::Pace;
use std::sync::Arc;
use std::time::Duration;
use world::World;

/// What a schedule may contain.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The store refuses and leaves commits in doubt.
    pub faults: bool,
    /// Engines die in the middle of everything.
    pub crashes: bool,
}

/// Runs the schedule of this seed.
///
/// # Errors
/// The first invariant that does not hold, in words, and how to run the schedule again.
pub fn run(seed: u64) -> Result<(), String> {
    let weather = Weather {
        faults: seed % 3 == 1,
        crashes: seed % 2 == 1,
    };
    schedule(seed, weather).map_err(|broken| {
        format!(
            "{broken}\n  in {weather:?}; again with: COOP_SIM_SEED={seed} cargo test -p coop-core --features testing \
             --test it schedules_hold"
        )
    })
}

fn schedule(seed: u64, weather: Weather) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World::new(&mut random, weather));
    for _ in 0..random.usize(1..3) {
        let crash = weather.crashes && random.usize(0..3) > 0;
        live(&world, crash, &mut random)?;
    }
    // One more, in fair weather, in which everything must come right.
    world.clear_up();
    live(&world, false, &mut random)?;
    verdict::of(&world)
}

/// One life of an engine.
fn live(world: &Arc<World>, crash: bool, random: &mut fastrand::Rng) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let lasts = Duration::from_millis(random.u64(200..1_500));
    let outcome = runtime.block_on(async {
        world.begin_life();
        let outcome = one_life(world, lasts, crash).await;
        world.end_life(crash);
        outcome
    });
    // Whatever still runs is gone in the middle of what it does.
    drop(runtime);
    outcome.and_then(|()| world.broken())
}

async fn one_life(world: &Arc<World>, lasts: Duration, crash: bool) -> Result<(), String> {
    // A store that fails while an engine opens: this life is over before it began.
    let Ok(engine) = builder(world).build().await else {
        return Ok(());
    };
    people::found(world, &engine).await?;
    let actors = people::wake(world, &engine);
    tokio::time::sleep(lasts).await;
    if crash {
        return Ok(());
    }
    world.quiet_down();
    for actor in actors {
        actor.await.map_err(|error| format!("a panic: {error}"))?;
    }
    people::turns_end(world).await?;
    engine.close(Duration::from_secs(1)).await;
    Ok(())
}

fn builder(world: &Arc<World>) -> EngineBuilder {
    // Small limits, so that short schedules reach them.
    let pace = Pace {
        entries: 8,
        bytes: 2_000,
        ..Pace::default()
    };
    Engine::builder(store::SimStore::new(world))
        .clock(world::SimClock(Arc::clone(world)))
        .idle_after(Duration::from_millis(300))
        .pace(pace)
        .bot(bot::SimBot::new("ann", world))
        .bot(bot::SimBot::new("ben", world))
}
