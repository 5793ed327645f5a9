//! The smallest program: two people, a room, a bot. The database is `chat.db`, or the path given.

use coop_core::{Engine, Event, Finish, sqlite::SqliteStore};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "chat.db".into());
    let engine = Engine::builder(SqliteStore::open(path).await?)
        .bot_fn("echo", |turn, out| async move {
            for word in turn.prompt.split_inclusive(' ') {
                out.push(word).await?;
            }
            Ok(Finish::stop())
        })
        .build()
        .await?;

    let alice = engine.create_user("alice").await?;
    let bob = engine.create_user("bob").await?;
    let room = alice.create_room("lab").await?;
    room.invite(&bob).await?;

    let mut events = bob.room(room.id()).await?.subscribe().await?;
    room.send("/echo one answer, live for everyone").await?;

    while let Some(event) = events.next().await {
        match event? {
            Event::MessagePosted { message, .. } => println!("{}: {}", message.author, message.text),
            Event::Delta { text, .. } => print!("{text}"),
            Event::TurnEnded { .. } => break,
            _ => {}
        }
    }
    Ok(())
}
