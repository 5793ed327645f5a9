//! A store that does what stores should not: it refuses, panics, takes its time, or never answers. It keeps everything in
//! memory all the same.

use async_trait::async_trait;
use coop_core::store::memory::MemoryStore;
use coop_core::store::{Batch, Committed, NewAccount, NewRoom, Others, RoomHead, RoomStore, UserStore};
use coop_core::{
    Account, Error, Event, Member, Message, MessageId, Page, Range, Receipt, Result, RoomEntry, RoomId, RoomInfo, Seq,
    Snapshot, TurnId, TurnInfo, UsageFilter, UsageSum, UserId,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The store and, in a clone of it, the switches. What is off by default works.
#[derive(Clone, Default)]
pub(crate) struct FaultyStore {
    pub(crate) disk: MemoryStore,
    pub(crate) faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
pub(crate) struct Faults {
    /// Commits to these rooms are never answered.
    pub(crate) hang: BTreeSet<RoomId>,
    /// Making rooms and users is never answered.
    pub(crate) hang_creation: bool,
    /// How long making a room takes.
    pub(crate) slow_creation: Duration,
    /// So many commits are refused.
    pub(crate) refuse: u32,
    /// So many commits are carried out and reported as failed.
    pub(crate) doubt: u32,
    /// So many commits panic.
    pub(crate) panic: u32,
    /// So many reads of a log are refused.
    pub(crate) unreadable: u32,
    /// What the next look at somebody's rooms finds is told this much later.
    pub(crate) slow_rooms: Duration,
    /// The same of the next message that is read.
    pub(crate) slow_message: Duration,
}

fn take(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

fn refused() -> Error {
    Error::unavailable("as the test wants it")
}

impl FaultyStore {
    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    fn ask<T>(&self, look: impl FnOnce(&mut Faults) -> T) -> T {
        look(&mut self.faults.lock().unwrap())
    }
}

#[async_trait]
impl RoomStore for FaultyStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        if self.ask(|faults| faults.hang.contains(&batch.room)) {
            return std::future::pending().await;
        }
        assert!(!self.ask(|faults| take(&mut faults.panic)), "a store of somebody's own");
        if self.ask(|faults| take(&mut faults.refuse)) {
            return Err(refused());
        }
        let committed = self.disk.commit(batch).await;
        if self.ask(|faults| take(&mut faults.doubt)) {
            return Err(refused());
        }
        committed
    }

    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        if self.ask(|faults| faults.hang_creation) {
            return std::future::pending().await;
        }
        tokio::time::sleep(self.ask(|faults| faults.slow_creation)).await;
        self.disk.create_room(new).await
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        self.disk.room(room).await
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        self.disk.member(room, user).await
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        self.disk.members(room).await
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        let found = self.disk.rooms_of(user, only).await;
        tokio::time::sleep(self.ask(|faults| std::mem::take(&mut faults.slow_rooms))).await;
        found
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        if self.ask(|faults| take(&mut faults.unreadable)) {
            return Err(refused());
        }
        self.disk.events(room, after, limit).await
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        self.disk.history(room, range, limit).await
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        self.disk.snapshot(room, limit).await
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        let found = self.disk.message(room, message).await;
        tokio::time::sleep(self.ask(|faults| std::mem::take(&mut faults.slow_message))).await;
        found
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        self.disk.turn(room, turn).await
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        self.disk.turn_of_message(room, message).await
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        RoomStore::open_turns(&self.disk, only).await
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        self.disk.receipt(room, message).await
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        self.disk.written_by(user, after, limit).await
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        self.disk.usage(of).await
    }

    fn others(&self) -> Option<&dyn Others> {
        self.disk.others()
    }

    async fn close(&self) {
        RoomStore::close(&self.disk).await;
    }
}

#[async_trait]
impl UserStore for FaultyStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        self.disk.user(id).await
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        self.disk.user_by_name(name).await
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        if self.ask(|faults| faults.hang_creation) {
            return std::future::pending().await;
        }
        self.disk.create_user(new).await
    }

    async fn end_tokens(&self, id: UserId) -> Result<()> {
        self.disk.end_tokens(id).await
    }

    async fn delete_user(&self, id: UserId) -> Result<()> {
        self.disk.delete_user(id).await
    }
}
