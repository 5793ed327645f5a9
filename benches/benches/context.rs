//! What it takes to make the context of an ask: in memory, and with reading the room from SQLite.
//!
//! `cargo bench -p coop-benches --bench context`.

use coop_benches::{Anything, fill, heading, room, told};
use coop_core::context::{self, ContextInput};
use coop_core::store::RoomStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::{Author, ContextPolicy, Message, MessageId, Range, Timestamp, UserId};
use std::time::Instant;

/// How often a context is made.
const TIMES: usize = 500;
#[tokio::main]
async fn main() -> Anything<()> {
    heading("a context of 50 messages, in a room of", "µs");
    for messages in [100, 1_000, 10_000] {
        let folder = tempfile::tempdir()?;
        let store = SqliteStore::open(folder.path().join("room.db")).await?;
        let room = room(&store).await?;
        fill(&store, room, messages).await?;
        let head = store.room(room).await?.ok_or("the room is there")?;
        let policy = ContextPolicy::default();
        let author = Author::person(UserId(1), "anne");
        let ask = Message::new(
            MessageId(i64::MAX),
            room,
            head.seq.next(),
            author,
            "and now?".into(),
            Timestamp(3),
        );
        let (mut built, mut read) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let begun = Instant::now();
            let page = store.history(room, Range::Before(ask.seq), policy.messages * 2).await?;
            let from = Instant::now();
            let made = context::build(&ContextInput {
                bot: "gemini",
                bot_name: "Gemini",
                policy: &policy,
                room_system: "",
                room_name: "room",
                present: &["anne".into(), "bob".into()],
                now: Timestamp(3),
                history: &page.messages,
                older: page.older,
                ask: &ask,
                prompt: &ask.text,
            });
            let receipt = made.map_err(|error| error.to_string())?.receipt();
            built.push(from.elapsed());
            read.push(begun.elapsed());
            drop(receipt);
        }
        told(&format!("{messages} messages: built"), 1e6, built);
        told("read from SQLite and built", 1e6, read);
        store.close().await;
    }
    Ok(())
}
