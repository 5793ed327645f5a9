//! Two engines in one process, as two servers would be: one store, and a bus by which what happens at one is live at the
//! other. Alice is at the first, Bob at the second, and an answer that begins at the one grows before both.
//!
//! Between machines the store is `PostgresStore` and the bus `RedisBus`, and nothing else changes.

use coop_core::bus::memory::MemoryBus;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, Event, Finish, Room, Subscription};
use futures::StreamExt;
use std::time::Duration;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Anything<()> {
    let (store, bus) = (MemoryStore::new(), MemoryBus::new());
    let first = server(&store, &bus).await?;
    let second = server(&store, &bus).await?;

    let alice = first.create_user("alice").await?;
    let room = alice.create_room("lab").await?;
    // Bob makes his account at the other, and is invited at this one.
    let bob = second.create_user("bob").await?;
    room.invite(&first.user(bob.id()).await?).await?;

    let alices = follow("first", room.subscribe().await?);
    let bobs = follow("second", bob.room(room.id()).await?.subscribe().await?);
    room.send("Can you hear me over there?").await?;
    let there: Room = bob.room(room.id()).await?;
    there.send("/echo loud and clear").await?;

    for reader in [alices, bobs] {
        print!("{}", reader.await??);
    }
    first.close(Duration::from_secs(1)).await;
    second.close(Duration::from_secs(1)).await;
    Ok(())
}

async fn server(store: &MemoryStore, bus: &MemoryBus) -> Anything<Engine> {
    let engine = Engine::builder(store.join())
        .bus(bus.join())
        .bot_fn("echo", |turn, out| async move {
            for word in turn.prompt.split_inclusive(' ') {
                out.push(word).await?;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            Ok(Finish::stop())
        });
    Ok(engine.build().await?)
}

/// Writes down what is seen at a server, up to the end of the first answer.
fn follow(server: &'static str, mut events: Subscription) -> tokio::task::JoinHandle<Anything<String>> {
    tokio::spawn(async move {
        let mut seen = format!("at the {server} server\n");
        while let Some(event) = events.next().await {
            match event? {
                Event::MessagePosted { message, .. } => seen += &format!("  {}: {}\n", message.author, message.text),
                Event::TurnStarted { bot, .. } => seen += &format!("  {bot}: "),
                Event::Delta { text, .. } => seen += &text,
                Event::TurnEnded { .. } => break,
                _ => {}
            }
        }
        Ok(seen + "\n")
    })
}
