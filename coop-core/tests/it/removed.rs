//! Turns as those see them who ask.

use coop_core::error::ErrorKind;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, Finish, TurnStatus};
use std::time::Duration;
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn who_has_been_removed_stops_nothing() {
    let engine = Engine::builder(MemoryStore::new())
        .bot_fn("slow", |_, _| async {
            sleep(LONG).await;
            Ok(Finish::stop())
        })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let bob = engine.create_user("bob").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    room.invite(&bob).await.unwrap();
    let sent = bob.room(room.id()).await.unwrap().send("/slow down").await.unwrap();
    let turn = sent.turn.unwrap();
    room.remove(bob.id()).await.unwrap();
    assert_eq!(turn.stop().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    engine.close(LONG).await;
}
