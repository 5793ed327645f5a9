//! What goes wrong beneath an engine or is asked of it in excess costs what it must and nothing else.

use coop_core::error::ErrorKind;
use coop_core::model::{Member, Message, Page, Range, RoomEntry, RoomInfo, Snapshot, TurnInfo, TurnStatus};
use coop_core::store::memory::MemoryStore;
use coop_core::store::{Batch, Committed, NewRoom, RoomHead, RoomStore};
use coop_core::{
    Bot, BotError, BotProfile, Engine, Event, Finish, MessageId, ReplyWriter, Result, RoomId, Seq, Turn, TurnId, UserId,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// What happens to the next commit.
#[derive(Clone, Copy)]
enum Fate {
    /// It is carried out, and the caller is told that it may not have been.
    Doubt,
    Panic,
}

/// A store with one misfortune ahead.
#[derive(Clone, Default)]
struct Unlucky {
    disk: MemoryStore,
    next: Arc<Mutex<Option<Fate>>>,
}

impl Unlucky {
    fn expect(&self, fate: Fate) {
        *self.next.lock().unwrap() = Some(fate);
    }
}

#[coop_core::async_trait]
impl RoomStore for Unlucky {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let fate = self.next.lock().unwrap().take();
        match fate {
            None => self.disk.commit(batch).await,
            Some(Fate::Panic) => panic!("a store of somebody's own"),
            Some(Fate::Doubt) => {
                self.disk.commit(batch).await?;
                Err(coop_core::Error::unavailable("in doubt"))
            }
        }
    }
    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
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
        self.disk.rooms_of(user, only).await
    }
    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        self.disk.events(room, after, limit).await
    }
    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        self.disk.history(room, range, limit).await
    }
    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        self.disk.snapshot(room, limit).await
    }
    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        self.disk.message(room, message).await
    }
    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        self.disk.turn(room, turn).await
    }
    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        self.disk.turn_of_message(room, message).await
    }
    async fn open_turns(&self) -> Result<Vec<TurnInfo>> {
        self.disk.open_turns().await
    }
    async fn close(&self) {
        RoomStore::close(&self.disk).await;
    }
}

/// A bot that answers at once and whose limits are as wide as they can be.
struct Boundless;

#[coop_core::async_trait]
impl Bot for Boundless {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new("wide");
        profile.limits.time = Duration::MAX;
        profile.limits.text_bytes = usize::MAX;
        profile
    }

    async fn reply(&self, _turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        out.push("here").await?;
        Ok(Finish::stop())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_start_in_doubt_lets_the_next_turn_begin() {
    let store = Unlucky::default();
    let engine = Engine::builder_with(store.clone(), store.disk.clone())
        .bot_fn("echo", |_, _| async { Ok(Finish::stop()) })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    store.expect(Fate::Doubt);
    let (one, two) = tokio::join!(room.send("/echo one"), room.send("/echo two"));
    assert_eq!(one.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(two.unwrap_err().kind(), ErrorKind::Unavailable);
    // The first has started, but the engine has not looked yet. The second waits behind it.
    let open = store.open_turns().await.unwrap();
    let [first, second] = open.as_slice() else {
        panic!("both were asked: {open:?}");
    };
    assert_eq!(first.status, TurnStatus::Streaming);
    room.stop(first.id).await.unwrap();
    sleep(LONG).await;
    let second = store.turn(room.id(), second.id).await.unwrap().unwrap();
    assert_eq!(second.status, TurnStatus::Done, "nobody let it begin");
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_store_costs_one_commit() {
    let store = Unlucky::default();
    let engine = Engine::builder_with(store.clone(), store.disk.clone())
        .bot_fn("echo", |_, _| async { Ok(Finish::stop()) })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    store.expect(Fate::Panic);
    let lost = room.send("lost").await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable, "the engine is not closed");
    let sent = room.send("/echo and on").await.unwrap();
    let end = timeout(LONG, sent.turn.unwrap().ended()).await;
    assert_eq!(end.unwrap().unwrap().status, TurnStatus::Done);
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn times_without_bounds_are_no_panic() {
    for extreme in [Duration::ZERO, Duration::MAX] {
        let engine = Engine::builder(MemoryStore::new())
            .bot(Boundless)
            .checkpoint_every(extreme)
            .idle_after(extreme)
            .patience(extreme.max(LONG))
            .build()
            .await
            .unwrap();
        let alice = engine.create_user("alice").await.unwrap();
        let room = alice.create_room("lab").await.unwrap();
        let sent = room.send("/wide how long?").await.unwrap();
        let end = timeout(LONG, sent.turn.unwrap().ended()).await;
        assert_eq!(end.unwrap().unwrap().status, TurnStatus::Done);
        engine.close(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_rests_early_still_keeps_read_marks() {
    let store = MemoryStore::new();
    let engine = Engine::builder(store.clone())
        .idle_after(Duration::from_millis(10))
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let bob = engine.create_user("bob").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    room.invite(&bob).await.unwrap();
    let sent = room.send("read me").await.unwrap();
    let room = bob.room(room.id()).await.unwrap();
    room.mark_read(sent.message.seq).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(room.entry().await.unwrap().unread, 0);
    engine.close(LONG).await;
}
