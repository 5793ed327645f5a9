//! Rooms, people and bots through the public interface, on the store in memory.

use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, Event, Finish};
use futures::StreamExt;

#[tokio::test(start_paused = true)]
async fn one_answer_reaches_everyone_while_it_grows() {
    let engine = Engine::builder(MemoryStore::new())
        .bot_fn("echo", |turn, out| async move {
            for word in turn.prompt.split_inclusive(' ') {
                out.push(word).await?;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Ok(Finish::stop())
        })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let bob = engine.create_user("bob").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    room.invite(&bob).await.unwrap();
    let mut events = bob.room(room.id()).await.unwrap().subscribe().await.unwrap();
    let sent = room.send("/echo one answer, live for everyone").await.unwrap();
    let mut streamed = String::new();
    let mut deltas = 0;
    loop {
        match events.next().await.unwrap().unwrap() {
            Event::MessagePosted { message, .. } => assert_eq!(*message, *sent.message),
            Event::Delta { text, offset, .. } => {
                assert_eq!(offset as usize, streamed.len());
                streamed.push_str(&text);
                deltas += 1;
            }
            Event::TurnEnded { text, .. } => {
                assert_eq!(&*text, streamed);
                break;
            }
            other => println!("{other:?}"),
        }
    }
    assert_eq!(streamed, "one answer, live for everyone");
    assert!(deltas >= 4, "it grew in {deltas} pieces");
    engine.close(std::time::Duration::from_secs(1)).await;
}
