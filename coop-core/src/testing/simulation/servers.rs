//! The engines on one world, and what befalls them while the others go on: killed, closed and replaced, cut off from the
//! store and come back as zombies.
//!
//! Being killed is being cut off for ever: from the store, and from the readers, who turn to another.

use super::Carriage;
use super::bot::SimBot;
use super::bus::SimBus;
use super::store::SimStore;
use super::world::{SimClock, World};
use crate::builder::Engine;
use crate::error::Result;
use crate::live::Pace;
use crate::store::memory::MemoryStore;
use crate::sync::lock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How many times an engine tries to open a store that fails.
const TRIES: usize = 20;

pub(super) struct Server {
    pub(super) engine: Engine,
    /// No two of a schedule have the same.
    pub(super) number: usize,
    /// Cancelled when it is killed.
    pub(super) died: CancellationToken,
    disk: MemoryStore,
    /// Since when it has the store, in the world's milliseconds.
    sound_since: AtomicI64,
}

impl Server {
    /// One on this handle of the world's disk.
    pub(super) async fn start(world: &Arc<World>, disk: MemoryStore) -> Result<Arc<Self>> {
        let number = world.next_server();
        // Small limits, so that short schedules reach them.
        let pace = Pace {
            entries: 8,
            bytes: 2_000,
            ..Pace::default()
        };
        let mut builder = Engine::builder(SimStore::new(world, disk.clone()));
        if world.weather.bus != Carriage::None {
            builder = builder.bus(SimBus::new(world));
        }
        let engine = builder
            .clock(SimClock(Arc::clone(world)))
            .idle_after(Duration::from_millis(300))
            .pace(pace)
            .bot(SimBot::new("ann", world, number))
            .bot(SimBot::new("ben", world, number))
            .build()
            .await?;
        Ok(Arc::new(Self {
            engine,
            number,
            died: CancellationToken::new(),
            disk,
            sound_since: AtomicI64::new(world.now()),
        }))
    }

    /// Since when whatever any server does must be known here, given its time.
    pub(super) fn sound_since(&self) -> i64 {
        self.sound_since.load(Ordering::Relaxed)
    }

    fn cut_off(&self, world: &World) {
        world.trace(|| format!("server {} is cut off", self.number));
        self.sound_since.store(i64::MAX, Ordering::Relaxed);
        self.disk.cut_off(true);
    }

    fn restore(&self, world: &World) {
        if !self.died.is_cancelled() && self.sound_since() == i64::MAX {
            world.trace(|| format!("server {} has the store again", self.number));
            self.disk.cut_off(false);
            self.sound_since.store(world.now(), Ordering::Relaxed);
        }
    }
}

/// Those that run.
pub(super) struct Servers {
    world: Arc<World>,
    running: Mutex<Vec<Arc<Server>>>,
    /// Those that are being closed.
    closing: Mutex<Vec<JoinHandle<()>>>,
}

impl Servers {
    pub(super) fn one(world: &Arc<World>, server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            running: Mutex::new(vec![server]),
            closing: Mutex::default(),
        })
    }

    /// As many as the weather says, on one disk.
    pub(super) async fn several(world: &Arc<World>) -> Result<Arc<Self>> {
        let servers = Self::one(world, join(world).await?);
        for _ in 1..world.weather.servers {
            let another = join(world).await?;
            lock(&servers.running).push(another);
        }
        Ok(servers)
    }

    /// Any of them.
    pub(super) fn any(&self) -> Arc<Server> {
        let running = lock(&self.running);
        Arc::clone(&running[self.world.roll(running.len())])
    }

    /// Something befalls one of them.
    pub(super) async fn trouble(self: &Arc<Self>, random: &mut fastrand::Rng) {
        match random.usize(0..6) {
            0 => {
                if let Some(server) = self.replaced().await {
                    self.world.loses(&server, true);
                    server.cut_off(&self.world);
                    server.died.cancel();
                }
            }
            1 => {
                if let Some(server) = self.replaced().await {
                    let grace = Duration::from_millis(random.u64(0..800));
                    self.world.loses(&server, false);
                    let close = async move { server.engine.close(grace).await };
                    lock(&self.closing).push(tokio::spawn(close));
                }
            }
            _ => {
                let server = self.any();
                // Most of the time too short to be taken for dead.
                let most = if random.usize(0..3) == 0 { 16_000 } else { 1_500 };
                let away = Duration::from_millis(random.u64(20..most));
                self.world.loses(&server, false);
                server.cut_off(&self.world);
                let world = Arc::clone(&self.world);
                tokio::spawn(async move {
                    sleep(away).await;
                    server.restore(&world);
                });
            }
        }
    }

    /// Takes one from among them, once another stands in for it.
    async fn replaced(&self) -> Option<Arc<Server>> {
        let another = join(&self.world).await.ok()?;
        let mut running = lock(&self.running);
        let index = self.world.roll(running.len());
        let replaced = std::mem::replace(&mut running[index], another);
        self.world.trace(|| format!("server {} leaves", replaced.number));
        self.world.ledger().left.insert(replaced.number);
        Some(replaced)
    }

    /// All have the store again.
    pub(super) fn clear_up(&self) {
        for server in lock(&self.running).iter() {
            server.restore(&self.world);
        }
    }

    pub(super) async fn close(&self) -> std::result::Result<(), String> {
        let running = std::mem::take(&mut *lock(&self.running));
        for server in running {
            server.engine.close(Duration::from_secs(1)).await;
        }
        let closing = std::mem::take(&mut *lock(&self.closing));
        for close in closing {
            close.await.map_err(|error| format!("a panic: {error}"))?;
        }
        Ok(())
    }
}

async fn join(world: &Arc<World>) -> Result<Arc<Server>> {
    let mut tries = 1;
    loop {
        match Server::start(world, world.disk.join()).await {
            Err(_) if tries < TRIES => tries += 1,
            started => return started,
        }
    }
}
