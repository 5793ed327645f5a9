//! Where the examples in this documentation take place: a room with two people, and a bot that echoes.

use crate::error::Result;
use crate::model::Finish;
use crate::store::memory::MemoryStore;
use crate::{Engine, Room, User};
use std::time::Duration;

/// Runs an example with an engine, alice, bob, and alice's room in which bob is.
///
/// # Panics
/// If the example fails.
#[doc(hidden)]
pub fn in_a_lab(example: impl AsyncFnOnce(Engine, User, User, Room) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let outcome: Result<()> = runtime.expect("a runtime").block_on(async {
        let engine = Engine::builder(MemoryStore::new())
            .bot_fn("echo", |turn, out| async move {
                out.push(turn.prompt).await?;
                Ok(Finish::stop())
            })
            .build()
            .await?;
        let alice = engine.create_user("alice").await?;
        let bob = engine.create_user("bob").await?;
        let room = alice.create_room("lab").await?;
        room.invite(&bob).await?;
        example(engine.clone(), alice, bob, room).await?;
        engine.close(Duration::ZERO).await;
        Ok(())
    });
    outcome.expect("the example works");
}
