//! Several engines on one store: one order, nothing skipped, every turn run by one of them and ended once.
//!
//! Each check is run over the store in memory on a paused clock, and over a real PostgreSQL; without a bus, and with one,
//! by which everything comes much sooner.

use crate::faults::FaultyStore;
use crate::isolation::Defective;
use crate::scene::{Answering, Strings, a_moment, is_end, kind, next, notices, puppet, reads, until};
use async_trait::async_trait;
use coop_core::bus::BusItem;
use coop_core::bus::memory::MemoryBus;
use coop_core::live::Level;
use coop_core::mutant::Mutant;
use coop_core::store::Store;
use coop_core::store::memory::MemoryStore;
use coop_core::testing::simulation::Shown;
use coop_core::{
    BotLimits, Bus, BusState, Engine, EngineBuilder, ErrorKind, Event, GoneReason, Hint, HintKind, Room, RoomDraft,
    RoomId, Seq, Subscription, TurnEnd, TurnHandle, TurnStatus, User,
};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long something done at one engine may take to be effective at another, without a bus.
const SEEN: Duration = Duration::from_secs(2);

/// The same with one, where time is counted exactly.
const HEARD: Duration = Duration::from_millis(100);

/// An engine with the bot `ann` on a store that it shares.
struct Server {
    engine: Engine,
    ann: Strings,
    alice: User,
    bob: User,
}

impl Server {
    async fn new(store: impl Store) -> Self {
        Self::with(store, |builder| builder).await
    }

    async fn with(store: impl Store, more: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        let (bot, ann) = puppet("ann", BotLimits::default());
        let builder = more(Engine::builder(store))
            .bot(bot)
            .checkpoint_every(Duration::from_millis(100));
        let engine = builder.build().await.unwrap();
        let (alice, bob) = (person(&engine, "alice").await, person(&engine, "bob").await);
        Self {
            engine,
            ann,
            alice,
            bob,
        }
    }

    async fn close(&self) {
        self.engine.close(Duration::ZERO).await;
    }
}

async fn person(engine: &Engine, name: &str) -> User {
    match engine.find_user(name).await {
        Ok(user) => user,
        Err(_) => engine.create_user(name).await.unwrap(),
    }
}

/// Two servers, and alice's room at the first with bob in it, as he sees it at the second.
struct Pair {
    one: Server,
    two: Server,
    room: Room,
    bobs: Room,
    /// How long something done at one may take to be effective at the other.
    seen: Duration,
}

impl Pair {
    async fn new(stores: (impl Store, impl Store)) -> Self {
        let (one, two) = (Server::new(stores.0).await, Server::new(stores.1).await);
        Self::of(one, two, SEEN).await
    }

    async fn with_bus(stores: (impl Store, impl Store), buses: (impl Bus, impl Bus), seen: Duration) -> Self {
        let one = Server::with(stores.0, |builder| builder.bus(buses.0)).await;
        let two = Server::with(stores.1, |builder| builder.bus(buses.1)).await;
        for server in [&one, &two] {
            assert_eq!(server.engine.bus_state(), Some(BusState::Up));
        }
        Self::of(one, two, seen).await
    }

    async fn of(one: Server, two: Server, seen: Duration) -> Self {
        let room = one.alice.create_room("lab").await.unwrap();
        room.invite(&one.bob).await.unwrap();
        let bobs = two.bob.room(room.id()).await.unwrap();
        Self {
            one,
            two,
            room,
            bobs,
            seen,
        }
    }

    async fn close(&self) {
        self.one.close().await;
        self.two.close().await;
    }

    /// Alice asks, and the first server's bot begins to answer.
    async fn ask(&mut self) -> (TurnHandle, Answering) {
        let sent = self.room.send("/ann why?").await.unwrap();
        (sent.turn.unwrap(), self.one.ann.next().await)
    }
}

/// Stores for as many servers as a check wants: in memory.
fn in_memory() -> impl Fn() -> MemoryStore {
    let world = MemoryStore::new();
    move || world.join()
}

macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $check() {
                let store = super::in_memory();
                super::$check(super::Pair::new((store(), store())).await).await;
            })*
        }

        mod memory_with_a_bus {
            use super::MemoryBus;

            $(#[tokio::test(start_paused = true)]
            async fn $check() {
                let (store, bus) = (super::in_memory(), MemoryBus::new());
                let pair = super::Pair::with_bus((store(), store()), (bus.join(), bus.join()), super::HEARD);
                super::$check(pair.await).await;
            })*
        }

        #[cfg(all(feature = "postgres", feature = "redis"))]
        mod postgres_with_redis {
            use coop_core::bus::redis::RedisBus;
            use coop_core::store::postgres::PostgresStore;
            use coop_core::testing::postgres::shared;
            use coop_core::testing::redis::Redis;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let (Some(cluster), Some(redis)) = (shared(stringify!($check)), Redis::start(stringify!($check))) else {
                    return;
                };
                let url = cluster.database();
                let stores = (PostgresStore::open(&url).await.unwrap(), PostgresStore::open(&url).await.unwrap());
                let bus = || RedisBus::new(&redis.url()).unwrap();
                // Real time is not to be relied on; what the bus is worth is measured elsewhere.
                super::$check(super::Pair::with_bus(stores, (bus(), bus()), super::SEEN).await).await;
            })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            use coop_core::store::postgres::PostgresStore;
            use coop_core::testing::postgres::shared;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let Some(cluster) = shared(stringify!($check)) else { return };
                let url = cluster.database();
                let stores = (PostgresStore::open(&url).await.unwrap(), PostgresStore::open(&url).await.unwrap());
                super::$check(super::Pair::new(stores).await).await;
            })*
        }
    };
}

checks!(
    all_readers_see_one_order,
    what_is_said_elsewhere_comes_without_anything_said_here,
    a_reader_moves_in_the_middle_of_an_answer,
    who_comes_late_has_the_text_so_far,
    an_invitation_is_heard_at_the_server_of_the_invited,
    a_removal_is_effective_at_the_other_server,
    a_deleted_room_is_gone_at_the_other_server,
    an_answer_is_one_text_at_both_servers,
    a_stop_reaches_the_server_of_the_turn,
    a_question_that_waits_is_stopped_from_anywhere,
    what_a_closing_server_leaves_waiting_is_answered_by_the_other,
    a_resend_at_another_server_is_not_doubled,
);

async fn texts(events: &mut Subscription, count: usize) -> Vec<(Seq, String)> {
    let mut said = Vec::new();
    while said.len() < count {
        if let Event::MessagePosted { seq, message, .. } = next(events).await {
            said.push((seq, message.text.clone()));
        }
    }
    said
}

/// One person at each of three servers; everybody talks and asks, and all three read the same.
async fn three_servers_tell_one_story(stores: [impl Store; 3]) {
    const EACH: usize = 20;
    let mut servers = Vec::new();
    for store in stores {
        servers.push(Server::new(store).await);
    }
    let room = servers[0].alice.create_room("lab").await.unwrap();
    let mut rooms = vec![room.clone()];
    for (server, name) in servers.iter().skip(1).zip(["bob", "carol"]) {
        let user = person(&server.engine, name).await;
        room.invite(&user).await.unwrap();
        rooms.push(user.room(room.id()).await.unwrap());
    }
    let mut readers = Vec::new();
    for room in &rooms {
        readers.push(reads(room).await.1);
    }
    let talk = |room: &Room| {
        let room = room.clone();
        async move {
            let mut turns = Vec::new();
            for count in 0..EACH {
                let text = if count == EACH / 2 { "/ann why?" } else { "just talk" };
                turns.extend(room.send(text).await.unwrap().turn);
            }
            turns
        }
    };
    let talking = rooms.iter().map(talk);
    let turns: Vec<_> = futures::future::join_all(talking).await.concat();
    let asked = turns.len();
    assert_eq!(asked, 3);
    // One after the other, each at one server, whichever that is.
    let mut answers = 0;
    let answering = async {
        while answers < asked {
            let next = servers.iter_mut().map(|server| server.ann.next().boxed());
            let (answering, ..) = futures::future::select_all(next).await;
            answering.say("because").await.unwrap();
            answering.finish();
            answers += 1;
        }
    };
    timeout(SEEN * 4, answering).await.expect("all are answered");
    let mut stories = Vec::new();
    for reader in &mut readers {
        let (mut story, mut ends) = (Vec::new(), 0);
        while ends < asked {
            let event = timeout(SEEN * 2, next(reader)).await.expect("heard in time");
            ends += usize::from(is_end(&event));
            if let Some(seq) = event.seq() {
                let what = match &event {
                    Event::TurnEnded { turn, text, end, .. } => format!("{turn} {text} {:?}", end.status),
                    Event::TurnStarted { turn, .. } | Event::TurnQueued { turn, .. } => format!("{turn}"),
                    other => format!("{:?}", other.message().map(|message| message.id)),
                };
                story.push((seq, what));
            }
        }
        stories.push(story);
    }
    assert!(
        stories[0]
            .iter()
            .zip(&stories[0][1..])
            .all(|(one, other)| one.0.next() == other.0)
    );
    assert_eq!(stories[0], stories[1]);
    assert_eq!(stories[0], stories[2]);
    for turn in turns {
        assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    }
    for server in &servers {
        assert!(!server.ann.has_next(), "nobody answers twice");
        server.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_servers_in_memory() {
    let store = in_memory();
    three_servers_tell_one_story([store(), store(), store()]).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn three_servers_on_a_database() {
    use coop_core::store::postgres::PostgresStore;
    let Some(cluster) = coop_core::testing::postgres::shared("three_servers_on_a_database") else {
        return;
    };
    let url = cluster.database();
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(PostgresStore::open(&url).await.unwrap());
    }
    let stores: [PostgresStore; 3] = stores.try_into().unwrap();
    three_servers_tell_one_story(stores).await;
}

async fn all_readers_see_one_order(pair: Pair) {
    const EACH: usize = 60;
    let mut readers = Vec::new();
    for room in [&pair.room, &pair.bobs, &pair.bobs] {
        readers.push(reads(room).await.1);
    }
    let say = |room: &Room, who: &'static str| {
        let room = room.clone();
        tokio::spawn(async move {
            for count in 0..EACH {
                room.send(format!("{who} {count}")).await.unwrap();
            }
        })
    };
    let said = [say(&pair.room, "alice"), say(&pair.bobs, "bob")];
    let mut seen = Vec::new();
    for reader in &mut readers {
        seen.push(texts(reader, 2 * EACH).await);
    }
    for said in said {
        said.await.unwrap();
    }
    for (one, other) in seen[0].iter().zip(&seen[0][1..]) {
        assert_eq!(one.0.next(), other.0, "no hole and nothing twice");
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    for who in ["alice", "bob"] {
        let of_one: Vec<_> = seen[0].iter().filter(|(_, text)| text.starts_with(who)).collect();
        let sent: Vec<_> = (0..EACH).map(|count| format!("{who} {count}")).collect();
        assert!(
            of_one.iter().map(|(_, text)| text).eq(&sent),
            "in the order of being sent"
        );
    }
    pair.close().await;
}

async fn what_is_said_elsewhere_comes_without_anything_said_here(pair: Pair) {
    let mut bobs = reads(&pair.bobs).await.1;
    for text in ["one", "two"] {
        pair.room.send(text).await.unwrap();
        let said = timeout(pair.seen, texts(&mut bobs, 1)).await.expect("seen in time");
        assert_eq!(said[0].1, text);
    }
    pair.close().await;
}

async fn an_invitation_is_heard_at_the_server_of_the_invited(pair: Pair) {
    let mut bobs = pair.two.bob.subscribe().await.unwrap();
    let other = pair.one.alice.create_room("another").await.unwrap();
    other.invite(&pair.one.bob).await.unwrap();
    let gained = |event: &Event| matches!(event, Event::RoomGained { entry } if entry.info.id == other.id());
    timeout(pair.seen, until(&mut bobs, gained))
        .await
        .expect("heard in time");
    other.send("welcome").await.unwrap();
    let said = |event: &Event| event.message().is_some_and(|message| message.text == "welcome");
    timeout(pair.seen, until(&mut bobs, said)).await.expect("heard in time");
    pair.close().await;
}

async fn a_removal_is_effective_at_the_other_server(pair: Pair) {
    let mut bobs = reads(&pair.bobs).await.1;
    pair.room.remove(pair.one.bob.id()).await.unwrap();
    let gone = |event: &Event| {
        matches!(
            event,
            Event::Gone {
                reason: GoneReason::Removed,
                ..
            }
        )
    };
    timeout(pair.seen, until(&mut bobs, gone))
        .await
        .expect("effective in time");
    assert_eq!(kind(pair.bobs.send("still here?").await), ErrorKind::NotFound);
    pair.room.send("among us").await.unwrap();
    assert!(bobs.next().await.is_none(), "nothing of the room any more");
    pair.close().await;
}

async fn a_deleted_room_is_gone_at_the_other_server(pair: Pair) {
    let mut bobs = reads(&pair.bobs).await.1;
    pair.room.delete_room().await.unwrap();
    let gone = |event: &Event| {
        matches!(
            event,
            Event::Gone {
                reason: GoneReason::Deleted,
                ..
            }
        )
    };
    timeout(pair.seen, until(&mut bobs, gone))
        .await
        .expect("effective in time");
    assert_eq!(kind(pair.bobs.send("hello?").await), ErrorKind::NotFound);
    drop(bobs);
    let forgotten = async {
        while pair.two.engine.rooms_in_memory() > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), forgotten)
        .await
        .expect("it leaves memory");
    pair.close().await;
}

/// How a turn ended, and with which text.
fn end_of(events: &[Event]) -> (TurnEnd, String) {
    let ends: Vec<_> = events.iter().filter(|event| is_end(event)).collect();
    let [Event::TurnEnded { end, text, .. }] = ends[..] else {
        panic!("one end, not {ends:?}")
    };
    (TurnEnd::clone(end), text.to_string())
}

async fn an_answer_is_one_text_at_both_servers(mut pair: Pair) {
    let (mut alices, mut bobs) = (reads(&pair.room).await.1, reads(&pair.bobs).await.1);
    let (turn, answering) = pair.ask().await;
    answering.say("first, ").await.unwrap();
    let started = |event: &Event| matches!(event, Event::TurnStarted { .. });
    timeout(pair.seen, until(&mut bobs, started))
        .await
        .expect("seen in time");
    answering.say("second, ").await.unwrap();
    // It grows at the other server too, which does not take the first for dead meanwhile.
    let grown = |event: &Event| matches!(event, Event::Delta { text, .. } if text.contains("second"));
    timeout(pair.seen * 2, until(&mut bobs, grown)).await.expect("it grows");
    sleep(pair.seen * 2).await;
    let late = reads(&pair.bobs).await;
    answering.say("then the rest").await.unwrap();
    answering.finish();
    let here = until(&mut alices, is_end).await;
    let there = timeout(pair.seen, until(&mut bobs, is_end))
        .await
        .expect("seen in time");
    let mut late = late.1;
    let later = timeout(pair.seen, until(&mut late, is_end))
        .await
        .expect("seen in time");
    let expected = (TurnStatus::Done, "first, second, then the rest".to_owned());
    for events in [here, there, later] {
        let (end, text) = end_of(&events);
        assert_eq!((end.status, text), expected);
    }
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    assert!(!pair.two.ann.has_next(), "one server answers");
    pair.close().await;
}

/// It may have had more than the other server knows, which reads the answer at its checkpoints.
async fn a_reader_moves_in_the_middle_of_an_answer(mut pair: Pair) {
    let mut alices = pair.room.subscribe().await.unwrap();
    // Bob's server has the room in memory, and has not looked since.
    let _bobs = reads(&pair.bobs).await;
    let (_, answering) = pair.ask().await;
    let mut shown = None;
    answering.say("first, ").await.unwrap();
    let held = |shown: &Option<Shown>| {
        shown
            .as_ref()
            .map_or(0, |shown: &Shown| shown.position.tapes.values().sum())
    };
    while held(&shown) == 0 {
        show(&mut shown, &next(&mut alices).await);
    }
    let mut position = alices.position().unwrap().clone();
    drop(alices);
    let there = pair.two.alice.room(pair.room.id()).await.unwrap();
    if let Some(shown) = &mut shown {
        shown.moved = true;
        position = shown.position.clone();
    }
    let mut alices = there.resume(position).await.unwrap();
    answering.say("second, ").await.unwrap();
    while held(&shown) < "first, second, ".len() as u64 {
        show(&mut shown, &next(&mut alices).await);
    }
    answering.say("and the rest").await.unwrap();
    answering.finish();
    let mut ended = false;
    while !ended {
        let event = next(&mut alices).await;
        ended = is_end(&event);
        show(&mut shown, &event);
    }
    let shown = shown.unwrap();
    let answer = shown
        .messages
        .values()
        .find(|message| message.reply_to.is_some())
        .unwrap();
    assert_eq!(answer.text, "first, second, and the rest");
    pair.close().await;
}

/// At a server that has not had the room in memory when the answer began.
async fn who_comes_late_has_the_text_so_far(mut pair: Pair) {
    let (_, answering) = pair.ask().await;
    answering.say("first, ").await.unwrap();
    sleep(pair.seen * 2).await;
    let (snapshot, mut events) = reads(&pair.bobs).await;
    let [tape] = &snapshot.tapes[..] else {
        panic!("one answer is being written: {snapshot:?}")
    };
    assert_eq!(&*tape.text, "first, ");
    answering.say("second, ").await.unwrap();
    let grown = |event: &Event| matches!(event, Event::Delta { text, .. } if text.contains("second"));
    timeout(pair.seen * 2, until(&mut events, grown))
        .await
        .expect("it grows");
    answering.finish();
    let (end, text) = end_of(
        &timeout(pair.seen, until(&mut events, is_end))
            .await
            .expect("seen in time"),
    );
    assert_eq!((end.status, text.as_str()), (TurnStatus::Done, "first, second, "));
    pair.close().await;
}

fn show(shown: &mut Option<Shown>, event: &Event) {
    match shown {
        None => *shown = Shown::begin(event),
        Some(shown) => shown.apply(event).unwrap(),
    }
}

async fn a_stop_reaches_the_server_of_the_turn(mut pair: Pair) {
    let mut bobs = reads(&pair.bobs).await.1;
    let (turn, answering) = pair.ask().await;
    let started = |event: &Event| matches!(event, Event::TurnStarted { .. });
    until(&mut bobs, started).await;
    answering.say("half an ").await.unwrap();
    // Older than the last checkpoint by then, so that only the server of the turn knows it.
    pair.bobs.stop(turn.id()).await.unwrap();
    let more = answering.say("answer").await;
    let there = timeout(pair.seen * 2, until(&mut bobs, is_end))
        .await
        .expect("seen in time");
    let (end, text) = end_of(&there);
    assert_eq!(end.status, TurnStatus::Stopped);
    assert_eq!(end, TurnEnd::stopped(pair.two.bob.id()));
    // A bus may have been quicker than the bot.
    let said = if more.is_ok() { "half an answer" } else { "half an " };
    assert_eq!(text, said);
    assert!(answering.dropped().is_some(), "the bot is stopped");
    assert_eq!(turn.ended().await.unwrap(), end);
    pair.close().await;
}

async fn a_question_that_waits_is_stopped_from_anywhere(mut pair: Pair) {
    let (_, answering) = pair.ask().await;
    let waiting = pair.room.send("/ann and why that?").await.unwrap().turn.unwrap();
    pair.bobs.stop(waiting.id()).await.unwrap();
    assert_eq!(waiting.ended().await.unwrap().status, TurnStatus::Stopped);
    answering.finish();
    a_moment().await;
    assert!(!pair.one.ann.has_next(), "it does not start");
    pair.close().await;
}

async fn what_a_closing_server_leaves_waiting_is_answered_by_the_other(mut pair: Pair) {
    let (first, _answering) = pair.ask().await;
    let waiting = pair.bobs.send("/ann and mine?").await.unwrap().turn.unwrap();
    pair.one.close().await;
    let answering = timeout(pair.seen * 2, pair.two.ann.next())
        .await
        .expect("taken up in time");
    answering.say("yours").await.unwrap();
    answering.finish();
    assert_eq!(waiting.ended().await.unwrap().status, TurnStatus::Done);
    assert_eq!(kind(first.ended().await), ErrorKind::Closed);
    let history = pair.bobs.history(coop_core::Range::Newest, 10).await.unwrap();
    let cut = history
        .messages
        .iter()
        .find(|message| message.reply_to.is_some())
        .unwrap();
    assert_eq!(cut.status, coop_core::MessageStatus::Interrupted);
    pair.two.close().await;
}

async fn a_resend_at_another_server_is_not_doubled(pair: Pair) {
    let bob_at_one = pair.one.bob.room(pair.room.id()).await.unwrap();
    let draft = || coop_core::Draft::from("once").client_id("a");
    let first = bob_at_one.send(draft()).await.unwrap();
    let again = pair.bobs.send(draft()).await.unwrap();
    assert_eq!(first.message.id, again.message.id);
    let other = coop_core::Draft::from("twice").client_id("a");
    assert_eq!(kind(pair.bobs.send(other).await), ErrorKind::Conflict);
    pair.close().await;
}

/// A server that loses the store while its bot answers is taken for dead, and what it says afterwards changes nothing.
async fn a_server_that_lost_the_store_loses_its_turns() {
    let stores = in_memory();
    let lost = stores();
    let mut pair = Pair::new((lost.clone(), stores())).await;
    let (mut alices, mut bobs) = (reads(&pair.room).await.1, reads(&pair.bobs).await.1);
    let (turn, answering) = pair.ask().await;
    answering.say("kept").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    lost.cut_off(true);
    answering.say(" and lost").await.unwrap();
    let cut = Instant::now();
    let waiting = pair.bobs.send("/ann and mine?").await.unwrap().turn.unwrap();
    let there = timeout(Duration::from_secs(15), until(&mut bobs, is_end))
        .await
        .expect("found dead in time");
    let (end, text) = end_of(&there);
    assert_eq!((end.status, text.as_str()), (TurnStatus::Interrupted, "kept"));
    let dropped = answering.dropped().expect("it has given up by itself");
    assert!(dropped - cut < Duration::from_secs(8), "before others took its turn");
    // The next question is answered by the server that lives.
    pair.two.ann.next().await.finish();
    assert_eq!(waiting.ended().await.unwrap().status, TurnStatus::Done);
    lost.cut_off(false);
    let here = timeout(Duration::from_secs(15), until(&mut alices, is_end))
        .await
        .expect("seen in time");
    assert_eq!(end_of(&here), (end.clone(), text), "the same end as everyone saw");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(turn.ended().await.unwrap(), end);
    pair.room.send("back again").await.unwrap();
    assert_eq!(texts(&mut bobs, 1).await[0].1, "back again");
    pair.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_changes_nothing() {
    a_server_that_lost_the_store_loses_its_turns().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_fleeting_goes_over_the_bus() {
    let (pair, _) = with_a_slow_one().await;
    let mut bobs = reads(&pair.bobs).await.1;
    let kinds = [HintKind::Typing, HintKind::Presence { here: true }];
    pair.room.typing().await.unwrap();
    pair.room.presence(true).await.unwrap();
    for expected in kinds {
        let is = |event: &Event| matches!(event, Event::Hint(hint) if hint.what == expected && hint.name == "alice");
        timeout(HEARD, until(&mut bobs, is)).await.expect("heard in time");
    }
    let sent = pair.room.send("read this").await.unwrap();
    let bob_at_one = pair.one.bob.room(pair.room.id()).await.unwrap();
    bob_at_one.mark_read(sent.message.seq).await.unwrap();
    let read = |event: &Event| matches!(event, Event::Hint(Hint { what: HintKind::Read { .. }, user, .. }) if *user == pair.one.bob.id());
    // A read mark is stored first, and waits for others.
    timeout(HEARD * 4, until(&mut bobs, read)).await.expect("heard in time");
    // A room that is made with somebody in it.
    let mut all = pair.two.bob.subscribe().await.unwrap();
    let draft = RoomDraft::named("made").with([pair.one.bob.clone()]);
    let made = pair.one.alice.create_room(draft).await.unwrap();
    let gained = |event: &Event| matches!(event, Event::RoomGained { entry } if entry.info.id == made.id());
    timeout(HEARD, until(&mut all, gained)).await.expect("heard in time");
    pair.close().await;
}

/// A bus that loses pieces of answers, one in so many.
struct Losing {
    bus: MemoryBus,
    one_in: usize,
    pieces: AtomicUsize,
}

#[async_trait]
impl Bus for Losing {
    async fn listen(&self, store: &str) -> BoxStream<'static, BusItem> {
        self.bus.listen(store).await
    }

    fn publish(&self, item: BusItem) {
        let is_piece = matches!(item, BusItem::Delta { .. });
        let is_lost = || self.pieces.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in);
        if !is_piece || !is_lost() {
            self.bus.publish(item);
        }
    }

    fn follow(&self, room: RoomId) {
        self.bus.follow(room);
    }

    fn unfollow(&self, room: RoomId) {
        self.bus.unfollow(room);
    }

    fn state(&self) -> BusState {
        self.bus.state()
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_was_lost_is_read_from_the_store() {
    let (store, bus) = (in_memory(), MemoryBus::new());
    let losing = Losing {
        bus: bus.join(),
        one_in: 2,
        pieces: AtomicUsize::new(0),
    };
    let mut pair = Pair::with_bus((store(), store()), (losing, bus.join()), HEARD).await;
    let mut bobs = reads(&pair.bobs).await.1;
    let (_, answering) = pair.ask().await;
    until(&mut bobs, |event| matches!(event, Event::TurnStarted { .. })).await;
    // Sooner than the server would look by itself.
    let begun = Instant::now();
    let (mut said, mut shown) = (String::new(), String::new());
    for piece in ["one ", "two ", "three ", "four "] {
        answering.say(piece).await.unwrap();
        said.push_str(piece);
        sleep(Duration::from_millis(60)).await;
    }
    while shown != said {
        if let Event::Delta { offset, text, .. } = next(&mut bobs).await {
            assert_eq!(offset as usize, shown.len());
            shown.push_str(&text);
        }
    }
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    answering.finish();
    until(&mut bobs, is_end).await;
    pair.close().await;
}

/// Two servers with a bus, the second on a store that can be slow.
async fn with_a_slow_one() -> (Pair, FaultyStore) {
    let (store, bus) = (in_memory(), MemoryBus::new());
    let slow = FaultyStore {
        disk: store(),
        ..FaultyStore::default()
    };
    let pair = Pair::with_bus((store(), slow.clone()), (bus.join(), bus.join()), HEARD).await;
    (pair, slow)
}

async fn an_answer_ends_while_it_is_looked_for() {
    let (mut pair, slow) = with_a_slow_one().await;
    let (_, answering) = pair.ask().await;
    answering.say("half an answer").await.unwrap();
    sleep(Duration::from_secs(12)).await;
    assert_eq!(
        pair.two.engine.rooms_in_memory(),
        0,
        "so that the answer has to be looked for"
    );
    slow.set(|faults| faults.slow_message = Duration::from_secs(1));
    let end = async {
        sleep(Duration::from_millis(500)).await;
        answering.finish();
    };
    let ((snapshot, events), ()) = tokio::join!(reads(&pair.bobs), end);
    assert!(snapshot.tapes.is_empty(), "{:?}", snapshot.tapes);
    drop(events);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(pair.two.engine.rooms_in_memory(), 0, "nothing keeps it there");
    pair.close().await;
}

async fn somebody_comes_while_something_is_said_elsewhere() {
    let store = in_memory();
    let slow = FaultyStore {
        disk: store(),
        ..FaultyStore::default()
    };
    let pair = Pair::new((store(), slow.clone())).await;
    sleep(Duration::from_secs(12)).await;
    assert_eq!(pair.two.engine.rooms_in_memory(), 0);
    // Longer than the server goes without a look.
    slow.set(|faults| faults.slow_rooms = SEEN * 2);
    let say = async {
        sleep(Duration::from_millis(500)).await;
        pair.room.send("here?").await.unwrap();
    };
    let reader = pair.two.bob.attach(Arc::new(Defective), Arc::new(Defective));
    let (entered, ()) = tokio::join!(reader.enter_all(), say);
    sleep(SEEN).await;
    let (entry, feed, cursor) = entered.unwrap().pop().unwrap();
    let missed = reader.pull(&feed, Level::Events, cursor).await.unwrap().entries;
    // Either it came late enough to know, or it has heard of it.
    let newest = missed
        .iter()
        .filter_map(|entry| entry.event.seq())
        .max()
        .unwrap_or(entry.seq);
    let said = pair.bobs.history(coop_core::Range::Newest, 1).await.unwrap();
    assert_eq!(newest, said.messages[0].seq);
    drop(reader);
    pair.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_while_it_is_looked_for_is_not_left_open() {
    an_answer_ends_while_it_is_looked_for().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_something_is_said_elsewhere_misses_nothing() {
    somebody_comes_while_something_is_said_elsewhere().await;
}

#[test]
fn a_server_without_one_of_its_safety_mechanisms_is_noticed() {
    let pair = async || {
        let store = in_memory();
        Pair::new((store(), store())).await
    };
    notices(Mutant::Gate, || async { all_readers_see_one_order(pair().await).await });
    notices(Mutant::Heads, || async {
        what_is_said_elsewhere_comes_without_anything_said_here(pair().await).await;
    });
    notices(Mutant::Fence, || async {
        a_stop_reaches_the_server_of_the_turn(pair().await).await
    });
    notices(Mutant::TapesAsOfHead, an_answer_ends_while_it_is_looked_for);
    notices(Mutant::LookAgain, somebody_comes_while_something_is_said_elsewhere);
    notices(Mutant::Lease, || async {
        an_answer_is_one_text_at_both_servers(pair().await).await
    });
}
