//! Rooms and users kept in memory: for tests, simulations and rooms that need not outlive a process.
//!
//! It keeps the same rows as the databases and rebuilds events from them on every read. Everything is ordered, so that
//! a program over it repeats exactly. It knows no rules: what a commit does is [`plan`](super::plan)'s.

mod reads;
mod shared;
mod world;

use super::plan::{Needs, plan, plan_creation};
use super::{Batch, Changes, Committed, Look, NewAccount, NewRoom, OpenTurn, Others, RoomHead, RoomStore, UserStore};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::Epoch;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::RoomInfo;
use crate::model::{
    Account, Member, Message, Page, Range, Receipt, RoomEntry, Snapshot, TurnInfo, UsageFilter, UsageSum,
};
use crate::store::WholeRoom;
use crate::time::Timestamp;
use async_trait::async_trait;
use shared::EngineId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use world::World;

/// A store in memory. Clones share one world, as two programs share a file; each is closed by itself.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Everything. Held for one call, never across an await.
    world: Arc<Mutex<World>>,
    /// Whether this handle was closed; the world goes on.
    closed: AtomicBool,
    /// Which of the engines that use the world together has this handle.
    engine: Option<EngineId>,
    /// Whether the world cannot be reached, for this handle and its clones.
    cut_off: Arc<AtomicBool>,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self {
            world: self.world.clone(),
            closed: AtomicBool::new(self.closed.load(Ordering::Acquire)),
            engine: self.engine,
            cut_off: Arc::clone(&self.cut_off),
        }
    }
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An open handle on the same world, as a program that starts again finds its disk.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            world: self.world.clone(),
            closed: AtomicBool::new(false),
            engine: None,
            cut_off: Arc::default(),
        }
    }

    /// An open handle for one more engine that uses the same world at the same time, each by such a handle of its own:
    /// several servers on one database, in one process.
    #[must_use]
    pub fn join(&self) -> Self {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            world: self.world.clone(),
            closed: AtomicBool::new(false),
            engine: Some(world.shared.enlist()),
            cut_off: Arc::default(),
        }
    }

    /// For tests: lets this handle and its clones lose the world, as a server loses its database, or find it again. Others
    /// are not concerned. Until then every call fails as `Unavailable`.
    pub fn cut_off(&self, is: bool) {
        self.cut_off.store(is, Ordering::Release);
    }

    fn world(&self) -> Result<MutexGuard<'_, World>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if self.cut_off.load(Ordering::Acquire) {
            return Err(Error::unavailable("the world cannot be reached"));
        }
        // A panic while it was held cannot have left half a commit: rows are written only by code that cannot fail.
        Ok(self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl RoomStore for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let mut world = self.world()?;
        let room = batch.room;
        let facts = world.facts(room, &Needs::of(&batch), self.engine);
        let plan = plan(facts, batch, &mut world.ids);
        Ok(world.write(room, plan, self.engine))
    }

    async fn create_room(&self, new: NewRoom) -> Result<(crate::model::RoomInfo, Vec<Arc<Event>>)> {
        let mut world = self.world()?;
        let creation = plan_creation(new, &mut world.ids)?;
        Ok(world.create(creation))
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        Ok(self.world()?.rooms.get(&room).map(|room| room.row.head()))
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        let world = self.world()?;
        let row = world.rooms.get(&room).and_then(|room| room.members.get(&user));
        Ok(row.map(|row| row.member.clone()))
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        Ok(self.world()?.room(room).map_or_else(Vec::new, |room| room.members()))
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        Ok(self.world()?.rooms_of(user, only))
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        self.world()?
            .room(room)
            .map_or_else(|| Ok(Vec::new()), |room| room.events(after, limit))
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        let nothing = Page {
            messages: Vec::new(),
            more: false,
            older: 0,
        };
        Ok(self
            .world()?
            .room(room)
            .map_or(nothing, |room| room.history(range, limit)))
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        Ok(self.world()?.room(room).map(|room| room.snapshot(limit)))
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        let world = self.world()?;
        Ok(world.room(room).and_then(|room| room.message(message)))
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        let world = self.world()?;
        let row = world.room(room).and_then(|room| room.turns.get(&turn));
        Ok(row.map(|row| row.info.clone()))
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        let world = self.world()?;
        let mut turns = world.room(room).into_iter().flat_map(|room| room.turns.values());
        let found = turns.find(|row| row.info.message == Some(message));
        Ok(found.map(|row| row.info.clone()))
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        Ok(self.world()?.open_turns(only))
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        let world = self.world()?;
        Ok(world.room(room).and_then(|room| room.receipt(message)))
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        Ok(self.world()?.written_by(user, after, limit))
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        Ok(self.world()?.usage(of))
    }

    async fn export(&self, room: RoomId) -> Result<Option<WholeRoom>> {
        Ok(self.world()?.room(room).map(world::Room::whole))
    }

    async fn import(&self, mut room: WholeRoom, now: Timestamp) -> Result<RoomInfo> {
        let mut world = self.world()?;
        room.renumber(&mut world.ids, Epoch(now.0))?;
        Ok(world.take_in(room))
    }

    fn others(&self) -> Option<&dyn Others> {
        self.engine.map(|_| self as &dyn Others)
    }

    async fn close(&self) {
        if let (Some(engine), Ok(mut world)) = (self.engine, self.world()) {
            world.shared.leave(engine);
        }
        self.closed.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Others for MemoryStore {
    async fn identity(&self) -> Result<String> {
        // No other is at the same place while this one is there.
        Ok(format!("memory-{:x}", Arc::as_ptr(&self.world).addr()))
    }

    async fn now(&self) -> Result<Look> {
        Ok(self.world()?.shared.now())
    }

    async fn changes(&self, since: Look) -> Result<Changes> {
        Ok(self.world()?.shared.changes(since))
    }

    async fn renew(&self) -> Result<()> {
        if let Some(engine) = self.engine {
            self.world()?.shared.renew(engine);
        }
        Ok(())
    }

    async fn open_turns(&self) -> Result<Vec<OpenTurn>> {
        let world = self.world()?;
        let open = world.open_turns(None).into_iter();
        Ok(open.map(|info| world.shared.open_turn(info, self.engine)).collect())
    }

    async fn is_mine(&self, turn: TurnId) -> Result<bool> {
        Ok(self.world()?.shared.is_mine(turn, self.engine))
    }
}

#[async_trait]
impl UserStore for MemoryStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        Ok(self.world()?.users.get(&id).map(|user| user.account.clone()))
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        Ok(self.world()?.user_by_name(name).map(|user| user.account.clone()))
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        self.world()?.create_user(new)
    }

    async fn credentials(&self, name: &str) -> Result<Option<(Account, String)>> {
        let world = self.world()?;
        let user = world.user_by_name(name);
        Ok(user.and_then(|user| Some((user.account.clone(), user.password.clone()?))))
    }

    async fn set_password(&self, id: UserId, hash: &str) -> Result<()> {
        let mut world = self.world()?;
        let user = world
            .users
            .get_mut(&id)
            .ok_or_else(|| Error::not_found("no such user"))?;
        user.password = Some(hash.to_owned());
        user.account.token_version += 1;
        world.shared.tokens_ended(id);
        Ok(())
    }

    async fn rehash(&self, id: UserId, from: &str, to: &str) -> Result<()> {
        let mut world = self.world()?;
        let user = world.users.get_mut(&id);
        if let Some(user) = user.filter(|user| user.password.as_deref() == Some(from)) {
            user.password = Some(to.to_owned());
        }
        Ok(())
    }

    async fn end_tokens(&self, id: UserId) -> Result<()> {
        let mut world = self.world()?;
        let user = world
            .users
            .get_mut(&id)
            .ok_or_else(|| Error::not_found("no such user"))?;
        user.account.token_version += 1;
        world.shared.tokens_ended(id);
        Ok(())
    }

    async fn delete_user(&self, id: UserId) -> Result<()> {
        let mut world = self.world()?;
        let removed = world.users.remove(&id);
        world.shared.tokens_ended(id);
        removed.map(drop).ok_or_else(|| Error::not_found("no such user"))
    }

    async fn search(&self, text: &str, limit: u32, except: UserId) -> Result<Vec<Account>> {
        Ok(self.world()?.search(text, limit, except))
    }
}
