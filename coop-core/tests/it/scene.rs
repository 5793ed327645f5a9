//! What the tests share: an engine, people in a room, a bot whose strings the test holds, and ways to look at what a
//! subscription yields.

use async_trait::async_trait;
use coop_core::mutant::{self, Mutant};
use coop_core::store::memory::MemoryStore;
use coop_core::store::{RoomStore, Store};
use coop_core::{
    Bot, BotError, BotLimits, BotProfile, Engine, EngineBuilder, ErrorKind, Event, Finish, MessageId, ReplyWriter,
    Result, Room, Snapshot, Subscription, Turn, TurnHandle, User,
};
use futures::{FutureExt, StreamExt};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

/// Longer than everything the engine waits for by itself to deliver something.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(60);

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An engine with the bot `ann`, and alice's room in which bob is.
pub(crate) struct Scene {
    pub(crate) engine: Engine,
    pub(crate) alice: User,
    pub(crate) bob: User,
    /// A stranger.
    pub(crate) carol: User,
    /// As alice sees it, who owns it.
    pub(crate) room: Room,
    /// The same as bob sees it.
    pub(crate) bobs: Room,
    pub(crate) ann: Strings,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::on(MemoryStore::new()).await
    }

    pub(crate) async fn on(store: impl Store) -> Self {
        Self::with(store, |builder| builder).await
    }

    pub(crate) async fn with(store: impl Store, more: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        Self::limited(store, BotLimits::default(), more).await
    }

    pub(crate) async fn limited(
        store: impl Store,
        limits: BotLimits,
        more: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let (bot, ann) = puppet("ann", limits);
        let engine = more(Engine::builder(store).bot(bot)).build().await.unwrap();
        let alice = engine.create_user("alice").await.unwrap();
        let bob = engine.create_user("bob").await.unwrap();
        let carol = engine.create_user("carol").await.unwrap();
        let room = alice.create_room("lab").await.unwrap();
        room.invite(&bob).await.unwrap();
        let bobs = bob.room(room.id()).await.unwrap();
        Self {
            engine,
            alice,
            bob,
            carol,
            room,
            bobs,
            ann,
        }
    }

    /// Alice asks `ann`, who begins to answer.
    pub(crate) async fn ask(&mut self, prompt: &str) -> (TurnHandle, Answering) {
        let sent = self.room.send(format!("/ann {prompt}")).await.unwrap();
        (sent.turn.unwrap(), self.ann.next().await)
    }

    /// A subscription of bob's, with the snapshot already taken.
    pub(crate) async fn bob_reads(&self) -> Subscription {
        reads(&self.bobs).await.1
    }

    pub(crate) async fn close(&self) {
        self.engine.close(Duration::ZERO).await;
    }
}

/// A subscription and the snapshot it began with.
pub(crate) async fn reads(room: &Room) -> (Snapshot, Subscription) {
    let mut events = room.subscribe().await.unwrap();
    match next(&mut events).await {
        Event::Snapshot(snapshot) => (*snapshot, events),
        other => panic!("a subscription begins with a snapshot, not {other:?}"),
    }
}

/// What comes next, which must come.
pub(crate) async fn next(events: &mut Subscription) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    next.expect("nothing comes").expect("it has ended").expect("no error")
}

/// Everything up to and including the first that is `wanted`.
pub(crate) async fn until(events: &mut Subscription, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        let event = next(events).await;
        let last = wanted(&event);
        seen.push(event);
        if last {
            return seen;
        }
    }
}

/// Everything that comes before nothing more does for a moment.
pub(crate) async fn settled(events: &mut Subscription) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(A_MOMENT, events.next()).await {
        seen.push(event.unwrap());
    }
    seen
}

/// Everything that comes before the subscription ends.
pub(crate) async fn to_the_end(events: &mut Subscription) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(60), events.next())
        .await
        .expect("it does not end")
    {
        seen.push(event.unwrap());
    }
    seen
}

pub(crate) fn is_end(event: &Event) -> bool {
    matches!(event, Event::TurnEnded { .. })
}

/// The pieces of an answer put together; each must continue those before it.
pub(crate) fn streamed(events: &[Event], answer: MessageId, from: u64) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Delta {
                message,
                offset,
                end,
                text: piece,
                ..
            } if *message == answer => {
                assert_eq!(*offset, from + text.len() as u64, "a piece continues what was there");
                text.push_str(piece);
                assert_eq!(*end, from + text.len() as u64);
            }
            Event::Tape { message, .. } if *message == answer => panic!("a reader that is not behind gets no tape"),
            _ => {}
        }
    }
    text
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("this is refused").kind()
}

/// A bot that does what the test tells it.
struct Puppet {
    profile: BotProfile,
    answers: mpsc::UnboundedSender<Answering>,
}

/// Where the answers that a puppet begins arrive.
pub(crate) struct Strings(mpsc::UnboundedReceiver<Answering>);

/// One answer, in the test's hand. Dropping it leaves the bot hanging.
pub(crate) struct Answering {
    pub(crate) turn: Turn,
    orders: mpsc::UnboundedSender<Order>,
    dropped: Arc<Mutex<Option<Instant>>>,
}

enum Order {
    Say(String, oneshot::Sender<Result<(), BotError>>),
    End(Result<Finish, BotError>),
    Panic,
}

/// Notes when the bot's future is dropped.
struct Guard(Arc<Mutex<Option<Instant>>>);

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = Some(Instant::now());
    }
}

pub(crate) fn puppet(handle: &str, limits: BotLimits) -> (impl Bot + use<>, Strings) {
    let (answers, strings) = mpsc::unbounded_channel();
    let mut profile = BotProfile::new(handle);
    profile.limits = limits;
    (Puppet { profile, answers }, Strings(strings))
}

#[async_trait]
impl Bot for Puppet {
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let (orders, mut told) = mpsc::unbounded_channel();
        let dropped = Arc::default();
        let _guard = Guard(Arc::clone(&dropped));
        let _ = self.answers.send(Answering { turn, orders, dropped });
        while let Some(order) = told.recv().await {
            match order {
                Order::Say(text, said) => {
                    let _ = said.send(out.push(text).await);
                }
                Order::End(end) => return end,
                Order::Panic => panic!("as the test wants it"),
            }
        }
        std::future::pending().await
    }
}

impl Strings {
    /// The next answer that begins.
    pub(crate) async fn next(&mut self) -> Answering {
        let begun = tokio::time::timeout(Duration::from_secs(60), self.0.recv()).await;
        begun.expect("no answer begins").unwrap()
    }

    /// Whether an answer has begun that was not taken.
    pub(crate) fn has_next(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Answering {
    /// Has the bot write this; fails if the bot is not there any more.
    pub(crate) async fn say(&self, text: &str) -> Result<(), BotError> {
        let (said, done) = oneshot::channel();
        let _ = self.orders.send(Order::Say(text.to_owned(), said));
        done.await?
    }

    pub(crate) fn finish(&self) {
        self.end(Ok(Finish::stop()));
    }

    pub(crate) fn end(&self, end: Result<Finish, BotError>) {
        let _ = self.orders.send(Order::End(end));
    }

    pub(crate) fn panic(&self) {
        let _ = self.orders.send(Order::Panic);
    }

    /// When the bot's future was dropped.
    pub(crate) fn dropped(&self) -> Option<Instant> {
        *self.dropped.lock().unwrap()
    }
}

/// The message in which a turn is answered.
pub(crate) async fn answer_of(store: &MemoryStore, room: &Room, turn: &TurnHandle) -> Option<MessageId> {
    let turn = store.reopen().turn(room.id(), turn.id()).await.unwrap();
    turn.and_then(|turn| turn.message)
}

/// Runs a check as it is, where it must pass, and without one mechanism, where it must fail.
pub(crate) fn notices<F: Future<Output = ()>>(mutant: Mutant, check: impl Fn() -> F) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(AssertUnwindSafe(check()).catch_unwind())
    };
    if let Err(panic) = run() {
        std::panic::resume_unwind(panic);
    }
    let _removed = mutant::remove(mutant);
    assert!(run().is_err(), "nothing notices that {mutant:?} is gone");
}

/// Waits for so long that everything under way has arrived.
pub(crate) async fn a_moment() {
    sleep(A_MOMENT).await;
}
