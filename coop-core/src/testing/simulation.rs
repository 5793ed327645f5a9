//! The engine in a world that can be repeated: one seed decides what people do, how long everything takes, what the
//! store refuses or leaves in doubt, what a bus between several engines loses, doubles and reorders, when readers come
//! back and when processes die.
//!
//! Time is a paused clock on one thread. Most schedules are the lives of one engine after another, each a runtime of its
//! own that a crash drops; in the others two or three engines use one store in one runtime, and trouble comes to one of
//! them while the rest go on. The world (the store's contents, what was acknowledged, what bots wrote, what readers show)
//! outlives them. At the end it is held against the invariants.

mod bot;
mod bus;
mod people;
mod servers;
mod shown;
mod store;
mod verdict;
mod wire;
mod world;

pub use bus::Carriage;
pub use shown::Shown;

use servers::{Server, Servers};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use world::World;

/// What a schedule may contain.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How many engines use the store at the same time.
    pub servers: usize,
    /// How what they do is carried between them.
    pub bus: Carriage,
    /// The store refuses, answers late and leaves commits in doubt.
    pub faults: bool,
    /// Engines die in the middle of everything; of several, one is also cut off from the store for a while, or closed.
    pub crashes: bool,
}

/// Runs the schedule of this seed: most with one engine, some with several.
///
/// # Errors
/// The first invariant that does not hold, in words, and how to run the schedule again.
pub fn run(seed: u64) -> Result<(), String> {
    let buses = [Carriage::None, Carriage::Good, Carriage::Lossy];
    match seed % 5 {
        4 => run_between(seed, buses[(seed / 10 % 3) as usize]),
        _ => tell(seed, weather(seed, 1, Carriage::None), "schedules_hold"),
    }
}

/// Runs the schedule of this seed with several engines and such a bus between them.
///
/// # Errors
/// As [`run`].
pub fn run_between(seed: u64, bus: Carriage) -> Result<(), String> {
    let servers = 2 + (seed / 5 % 2) as usize;
    let test = match bus {
        Carriage::Lossy => "lossy_bus",
        _ => "schedules_hold",
    };
    tell(seed, weather(seed, servers, bus), test)
}

fn weather(seed: u64, servers: usize, bus: Carriage) -> Weather {
    Weather {
        servers,
        bus,
        faults: seed % 3 == 1,
        crashes: seed % 2 == 1,
    }
}

fn tell(seed: u64, weather: Weather, test: &str) -> Result<(), String> {
    schedule(seed, weather).map_err(|broken| {
        format!(
            "{broken}\n  in {weather:?}; again with: COOP_SIM_SEED={seed} cargo test -p coop-core --features testing \
             --test it {test}"
        )
    })
}

fn schedule(seed: u64, weather: Weather) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World::new(&mut random, weather));
    if weather.servers > 1 {
        run_until_done(&world, false, together(&world, &mut random))?;
    } else {
        for _ in 0..random.usize(1..3) {
            let crash = weather.crashes && random.usize(0..3) > 0;
            live(&world, crash, &mut random)?;
        }
        // One more, in fair weather, in which everything must come right.
        world.clear_up();
        live(&world, false, &mut random)?;
    }
    verdict::of(&world)
}

/// In a runtime of its own. Whatever still runs in the end is gone in the middle of what it does.
fn run_until_done(
    world: &Arc<World>,
    crash: bool,
    life: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(async {
        world.begin_life();
        let outcome = life.await;
        world.end_life(crash);
        outcome
    });
    drop(runtime);
    outcome.and_then(|()| world.broken())
}

/// One life of an engine that is alone on its store.
fn live(world: &Arc<World>, crash: bool, random: &mut fastrand::Rng) -> Result<(), String> {
    let lasts = Duration::from_millis(random.u64(200..1_500));
    run_until_done(world, crash, one_life(world, lasts, crash))
}

async fn one_life(world: &Arc<World>, lasts: Duration, crash: bool) -> Result<(), String> {
    // A store that fails while an engine opens: this life is over before it began.
    let Ok(server) = Server::start(world, world.disk.reopen()).await else {
        return Ok(());
    };
    let servers = Servers::one(world, server);
    people::found(world, &servers).await?;
    let actors = people::wake(world, &servers);
    sleep(lasts).await;
    if crash {
        return Ok(());
    }
    rest(world, &servers, actors).await
}

/// Several engines at once, in foul weather and then in fair.
async fn together(world: &Arc<World>, random: &mut fastrand::Rng) -> Result<(), String> {
    let servers = Servers::several(world).await.map_err(|error| error.to_string())?;
    people::found(world, &servers).await?;
    let actors = people::wake(world, &servers);
    let end = Instant::now() + Duration::from_millis(random.u64(1_000..8_000));
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(100..2_500))).await;
        if world.weather.crashes {
            servers.trouble(random).await;
        }
    }
    world.clear_up();
    servers.clear_up();
    sleep(Duration::from_millis(random.u64(500..2_500))).await;
    rest(world, &servers, actors).await
}

/// People stop, readers read to the end, turns end, and engines close.
async fn rest(world: &Arc<World>, servers: &Servers, actors: Vec<tokio::task::JoinHandle<()>>) -> Result<(), String> {
    world.quiet_down();
    for actor in actors {
        actor.await.map_err(|error| format!("a panic: {error}"))?;
    }
    people::turns_end(world).await?;
    servers.close().await
}
