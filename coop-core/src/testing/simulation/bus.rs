//! A bus on which little can be relied: it loses, doubles, delays and so reorders what it carries, and is away for a while
//! now and then. In some worlds it is a good one, and then what it carries must be quick.

use super::world::World;
use crate::bus::memory::MemoryBus;
use crate::bus::{Bus, BusItem, BusState};
use crate::id::RoomId;
use crate::sync::lock;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How the bus of a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// There is none.
    None,
    /// It carries everything, in a few milliseconds.
    Good,
    /// It does not.
    Lossy,
}

/// One engine's place on a simulated bus.
pub(super) struct SimBus {
    place: MemoryBus,
    world: Arc<World>,
    /// Until when this engine is cut off from it.
    away: Arc<Mutex<Option<Instant>>>,
}

impl SimBus {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self {
            place: world.bus.join(),
            world: Arc::clone(world),
            away: Arc::default(),
        }
    }

    /// Whether nothing comes through.
    fn is_away(&self) -> bool {
        self.world.weather.bus == Carriage::Lossy && is_away(&self.world, &self.away)
    }
}

/// Whether an engine is cut off now, for up to a few seconds at a time.
fn is_away(world: &World, away: &Mutex<Option<Instant>>) -> bool {
    let mut away = lock(away);
    if away.is_none() && !world.is_clear() && world.roll(200) == 0 {
        *away = Some(Instant::now() + Duration::from_millis(world.roll(4_000) as u64));
    }
    away.is_some_and(|until| Instant::now() < until)
}

#[async_trait]
impl Bus for SimBus {
    async fn listen(&self, store: &str) -> BoxStream<'static, BusItem> {
        let mut carried = self.place.listen(store).await;
        let (arrive, arrived) = mpsc::unbounded_channel();
        let (world, away) = (Arc::clone(&self.world), Arc::clone(&self.away));
        let lossy = self.world.weather.bus == Carriage::Lossy;
        tokio::spawn(async move {
            while let Some(item) = carried.next().await {
                if !lossy {
                    world.dawdle(4).await;
                    let _ = arrive.send(item);
                    continue;
                }
                if is_away(&world, &away) {
                    continue;
                }
                if lock(&away).take().is_some() {
                    // Back again, and says so, unless that is lost as well.
                    let _ = arrive.send(BusItem::Gap);
                }
                let copies = match world.roll(12) {
                    0 | 1 => 0,
                    2 | 3 => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let late = if world.roll(30) == 0 { 3_000 } else { 40 };
                    let wait = Duration::from_millis(world.roll(late) as u64);
                    let (arrive, item) = (arrive.clone(), item.clone());
                    tokio::spawn(async move {
                        sleep(wait).await;
                        let _ = arrive.send(item);
                    });
                }
            }
        });
        stream::unfold(
            arrived,
            |mut arrived| async move { Some((arrived.recv().await?, arrived)) },
        )
        .boxed()
    }

    fn publish(&self, item: BusItem) {
        if !self.is_away() {
            self.place.publish(item);
        }
    }

    fn follow(&self, room: RoomId) {
        self.place.follow(room);
    }

    fn unfollow(&self, room: RoomId) {
        self.place.unfollow(room);
    }

    fn state(&self) -> BusState {
        self.place.state()
    }

    async fn close(&self) {
        self.place.close().await;
    }
}
