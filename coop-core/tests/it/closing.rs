//! Closing an engine: what runs, what waits and what is shown of it.

use coop_core::store::RoomStore;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, Event, Finish, TurnId, TurnStatus};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn closing_ends_what_runs_and_what_waits() {
    let store = MemoryStore::new();
    let engine = Engine::builder(store.clone())
        .bot_fn("slow", |_, out| async move {
            out.push("so far").await?;
            sleep(Duration::from_secs(300)).await;
            Ok(Finish::stop())
        })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let mut events = room.subscribe().await.unwrap();
    let mut asked: Vec<TurnId> = Vec::new();
    for text in ["/slow one", "/slow two", "/slow three"] {
        asked.push(room.send(text).await.unwrap().turn.unwrap().id());
    }
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    engine.close(Duration::from_secs(1)).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        began.elapsed()
    );

    let mut shown = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::TurnEnded { turn, end, text, .. } = event.unwrap() {
            assert_eq!(end.status, TurnStatus::Interrupted);
            shown.push((turn, text.to_string()));
        }
    }
    let texts = ["so far", "", ""].map(str::to_owned);
    let expected: Vec<_> = asked.iter().copied().zip(texts).collect();
    assert_eq!(shown, expected, "readers are told before they are told that it closes");
    let left = store.reopen().open_turns(None).await.unwrap();
    assert!(left.is_empty(), "left open: {left:?}");
}
