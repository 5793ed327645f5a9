//! Rooms leave memory when nobody needs them and come back: nobody who holds a handle or reads them may notice.

use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, EngineBuilder, Event, Finish, HintKind, Room, Subscription, User};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Much longer than a quiet room stays in memory here.
const LONG: Duration = Duration::from_secs(5);

fn builder() -> EngineBuilder {
    Engine::builder(MemoryStore::new()).idle_after(Duration::from_secs(1))
}

/// Alice's room with bob in it, no longer in memory, as alice has held it from the beginning.
async fn forgotten(engine: &Engine) -> (Room, User) {
    let alice = engine.create_user("alice").await.unwrap();
    let bob = engine.create_user("bob").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    room.invite(&bob).await.unwrap();
    sleep(LONG).await;
    (room, bob)
}

async fn subscribe(user: &User, room: &Room) -> Subscription {
    let mut events = user.room(room.id()).await.unwrap().subscribe().await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Snapshot(_))));
    events
}

/// What comes next, if anything comes at all.
async fn next(events: &mut Subscription) -> Option<Event> {
    timeout(LONG, events.next()).await.ok()?.map(Result::unwrap)
}

#[tokio::test(start_paused = true)]
async fn a_handle_outlives_the_room_in_memory() {
    let engine = builder()
        .bot_fn("slow", |_, out| async move {
            out.push("so far").await?;
            sleep(LONG * 4).await;
            Ok(Finish::stop())
        })
        .build()
        .await
        .unwrap();
    let (old, bob) = forgotten(&engine).await;
    let mut events = subscribe(&bob, &old).await;
    old.typing().await.unwrap();
    match next(&mut events).await {
        Some(Event::Hint(hint)) => assert_eq!(hint.what, HintKind::Typing),
        other => panic!("a hint was expected: {other:?}"),
    }
    let sent = old.send("/slow go on").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let page = old.history(coop_core::Range::Newest, 10).await.unwrap();
    let answer = page.messages.last().unwrap();
    assert_eq!(answer.text, "so far", "the text so far, also before it is kept");
    assert_eq!(old.message(answer.id).await.unwrap().text, "so far");
    sent.turn.unwrap().stop().await.unwrap();
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_room_comes_back_where_its_log_stands() {
    let engine = builder().build().await.unwrap();
    let (old, bob) = forgotten(&engine).await;
    let alice = engine.find_user("alice").await.unwrap();
    let other = alice.room(old.id()).await.unwrap();
    other.remove(bob.id()).await.unwrap();
    other.invite(&bob).await.unwrap();
    sleep(LONG).await;
    // Brings the room back before anybody reads it.
    old.mark_all_read().await.unwrap();
    let mut events = subscribe(&bob, &old).await;
    old.send("welcome back").await.unwrap();
    match next(&mut events).await {
        Some(Event::MessagePosted { message, .. }) => assert_eq!(message.text, "welcome back"),
        other => panic!("bob was removed before he read: {other:?}"),
    }
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_a_room_takes_it_from_nobody_else() {
    let engine = builder().build().await.unwrap();
    let (room, bob) = forgotten(&engine).await;
    let alice = engine.find_user("alice").await.unwrap();
    let lost = subscribe(&bob, &room).await;
    room.remove(bob.id()).await.unwrap();
    sleep(LONG).await;
    let mut events = subscribe(&alice, &room).await;
    drop(lost);
    room.send("does anybody hear me?").await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::MessagePosted { .. })));
    engine.close(LONG).await;
}
