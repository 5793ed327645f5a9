//! A store that takes its time, refuses, and sometimes leaves it in doubt whether a commit happened.

use super::world::World;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Account, Member, Message, Page, Range, Receipt, RoomEntry, RoomInfo, Snapshot, TurnInfo, UsageFilter, UsageSum,
};
use crate::store::memory::MemoryStore;
use crate::store::{
    Batch, Changes, Committed, Look, NewAccount, NewRoom, OpenTurn, Others, RoomHead, RoomStore, UserStore,
};
use async_trait::async_trait;
use std::sync::Arc;

pub(super) struct SimStore {
    disk: MemoryStore,
    world: Arc<World>,
}

impl SimStore {
    pub(super) fn new(world: &Arc<World>, disk: MemoryStore) -> Self {
        Self {
            disk,
            world: Arc::clone(world),
        }
    }

    /// Every read takes a while, and some fail.
    async fn read(&self) -> Result<()> {
        self.world.dawdle(4).await;
        if self.world.faulty() && self.world.roll(60) == 0 {
            return Err(Error::unavailable("the simulated store is away"));
        }
        Ok(())
    }
}

#[async_trait]
impl RoomStore for SimStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.world.dawdle(12).await;
        let fate = if self.world.faulty() {
            self.world.roll(24)
        } else {
            usize::MAX
        };
        if fate == 0 {
            return Err(Error::unavailable("the simulated store refuses"));
        }
        if fate == 2 && self.world.is_shared() {
            // Longer than a sender waits, now and then.
            self.world.dawdle(12_000).await;
        }
        let committed = self.disk.commit(batch).await;
        // A crash may fall between the commit and its answer.
        self.world.dawdle(6).await;
        if fate == 1 {
            return Err(Error::unavailable("the simulated store leaves it in doubt"));
        }
        committed
    }

    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        self.disk.create_room(new).await
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        self.read().await?;
        self.disk.room(room).await
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        self.read().await?;
        self.disk.member(room, user).await
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        self.read().await?;
        self.disk.members(room).await
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        self.read().await?;
        let seen = self.disk.rooms_of(user, only).await;
        self.world.dawdle(4).await;
        seen
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        self.read().await?;
        let seen = self.disk.events(room, after, limit).await;
        self.world.dawdle(4).await;
        seen
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        self.read().await?;
        self.disk.history(room, range, limit).await
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        self.read().await?;
        let seen = self.disk.snapshot(room, limit).await;
        self.world.dawdle(8).await;
        seen
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        self.read().await?;
        self.disk.message(room, message).await
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        self.read().await?;
        self.disk.turn(room, turn).await
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        self.read().await?;
        self.disk.turn_of_message(room, message).await
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        RoomStore::open_turns(&self.disk, only).await
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        self.read().await?;
        self.disk.receipt(room, message).await
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        self.disk.written_by(user, after, limit).await
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        self.disk.usage(of).await
    }

    fn others(&self) -> Option<&dyn Others> {
        self.disk.others().map(|_| self as &dyn Others)
    }

    async fn close(&self) {
        RoomStore::close(&self.disk).await;
    }
}

#[async_trait]
impl Others for SimStore {
    async fn identity(&self) -> Result<String> {
        self.disk.identity().await
    }

    async fn now(&self) -> Result<Look> {
        self.read().await?;
        Others::now(&self.disk).await
    }

    async fn changes(&self, since: Look) -> Result<Changes> {
        self.read().await?;
        let seen = self.disk.changes(since).await;
        self.world.dawdle(8).await;
        seen
    }

    async fn renew(&self) -> Result<()> {
        self.read().await?;
        let renewed = self.disk.renew().await;
        self.world.dawdle(8).await;
        renewed
    }

    async fn open_turns(&self) -> Result<Vec<OpenTurn>> {
        self.read().await?;
        let seen = Others::open_turns(&self.disk).await;
        self.world.dawdle(8).await;
        seen
    }

    async fn is_mine(&self, turn: TurnId) -> Result<bool> {
        self.read().await?;
        self.disk.is_mine(turn).await
    }
}

#[async_trait]
impl UserStore for SimStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        self.disk.user(id).await
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        self.disk.user_by_name(name).await
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        self.disk.create_user(new).await
    }
}
