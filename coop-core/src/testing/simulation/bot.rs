//! A bot of many moods, whose every piece is in the ledger.

use super::world::World;
use crate::bot::{Bot, BotError, BotErrorKind, BotProfile, ReplyWriter, Turn};
use crate::model::Finish;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct SimBot {
    handle: &'static str,
    world: Arc<World>,
    /// The number of the server that it runs at.
    server: usize,
}

impl SimBot {
    pub(super) fn new(handle: &'static str, world: &Arc<World>, server: usize) -> Self {
        Self {
            handle,
            world: Arc::clone(world),
            server,
        }
    }
}

#[async_trait]
impl Bot for SimBot {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new(self.handle);
        profile.limits.text_bytes = 160;
        profile.limits.time = Duration::from_secs(3);
        profile
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        self.world.begins(turn.id, self.server);
        let mood = self.world.roll(12);
        let pieces = self.world.roll(14);
        match mood {
            0 => {
                write(&self.world, &turn, &out, pieces / 2).await?;
                Err(BotError::new(BotErrorKind::Server, "The simulated provider failed."))
            }
            1 => {
                write(&self.world, &turn, &out, pieces / 2).await?;
                std::future::pending().await
            }
            // One that leaves a task behind which goes on writing after it has returned.
            2 | 3 => {
                let (world, turn, out) = (Arc::clone(&self.world), turn.clone(), out.clone());
                tokio::spawn(async move { write(&world, &turn, &out, pieces).await });
                self.world.dawdle(120).await;
                Ok(Finish::stop())
            }
            4 => {
                write(&self.world, &turn, &out, 40).await?;
                Ok(Finish::stop())
            }
            _ => {
                write(&self.world, &turn, &out, pieces).await?;
                Ok(Finish::stop())
            }
        }
    }
}

async fn write(world: &Arc<World>, turn: &Turn, out: &ReplyWriter, pieces: usize) -> Result<(), BotError> {
    for piece in 0..pieces {
        world.dawdle(if world.roll(6) == 0 { 250 } else { 30 }).await;
        let text = format!("p{piece}\u{e9} ");
        world.ledger().wrote.entry(turn.id).or_default().text.push_str(&text);
        out.push(&text).await?;
        let now = world.now();
        let mut ledger = world.ledger();
        let wrote = ledger.wrote.entry(turn.id).or_default();
        let length = wrote.text.len();
        wrote.taken.push((now, length));
    }
    Ok(())
}
