//! A bus between the engines of one process: for tests, and for programs that run several.

use super::inbox::Inbox;
use super::{Bus, BusItem, BusState};
use crate::id::RoomId;
use crate::sync::lock;
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One engine's place on a bus in memory. Each engine has its own, made from another by [`join`](Self::join).
///
/// ```
/// # use coop_core::{Engine, bus::memory::MemoryBus, store::memory::MemoryStore};
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let (store, bus) = (MemoryStore::new(), MemoryBus::new());
/// let one = Engine::builder(store.join()).bus(bus.join()).build().await?;
/// let two = Engine::builder(store.join()).bus(bus.join()).build().await?;
/// # Ok::<_, coop_core::Error>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemoryBus {
    hub: Arc<Hub>,
    id: u64,
}

#[derive(Debug, Default)]
struct Hub {
    newest: AtomicU64,
    /// Those who listen. No other lock is taken under this one.
    members: Mutex<Vec<Member>>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    store: String,
    inbox: Arc<Inbox>,
}

impl MemoryBus {
    /// A place on a new bus.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hub: Arc::default(),
            id: 0,
        }
    }

    /// Another place on the same bus.
    #[must_use]
    pub fn join(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            id: 1 + self.hub.newest.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn leave(&self) {
        lock(&self.hub.members).retain(|member| member.id != self.id);
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn listen(&self, store: &str) -> BoxStream<'static, BusItem> {
        self.leave();
        let (inbox, heard) = Inbox::new();
        lock(&self.hub.members).push(Member {
            id: self.id,
            store: store.to_owned(),
            inbox,
        });
        heard
    }

    fn publish(&self, item: BusItem) {
        if matches!(item, BusItem::Gap) {
            return;
        }
        let members = lock(&self.hub.members);
        let Some(own) = members.iter().find(|member| member.id == self.id) else {
            return;
        };
        let others = members.iter().filter(|other| other.id != self.id);
        for other in others.filter(|other| other.store == own.store) {
            other.inbox.put(item.clone());
        }
    }

    /// Everybody hears of every room: what an engine does not hold in memory it passes over.
    fn follow(&self, _room: RoomId) {
        let members = lock(&self.hub.members);
        if let Some(own) = members.iter().find(|member| member.id == self.id) {
            own.inbox.put_gap();
        }
    }

    fn unfollow(&self, _room: RoomId) {}

    fn state(&self) -> BusState {
        match lock(&self.hub.members).iter().any(|member| member.id == self.id) {
            true => BusState::Up,
            false => BusState::Down,
        }
    }

    async fn close(&self) {
        self.leave();
    }
}

impl Drop for MemoryBus {
    fn drop(&mut self) {
        self.leave();
    }
}
