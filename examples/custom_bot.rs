//! A bot over an application's own data: it keeps the stock of a workshop. No model is behind it, and none is needed.

use async_trait::async_trait;
use coop_core::store::memory::MemoryStore;
use coop_core::{Bot, BotError, BotErrorKind, BotProfile, Engine, Event, Finish, ReplyWriter, Subscription, Turn};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// What the application has anyway, be it a database or a service.
struct Workshop {
    stock: Mutex<BTreeMap<String, u32>>,
}

impl Workshop {
    fn list(&self) -> BTreeMap<String, u32> {
        self.stock.lock().map(|stock| stock.clone()).unwrap_or_default()
    }

    /// Takes some of a thing and says how many are left, or how many there are if that is not enough.
    fn take(&self, thing: &str, count: u32) -> Result<u32, u32> {
        let Ok(mut stock) = self.stock.lock() else {
            return Err(0);
        };
        let Some(there) = stock.get_mut(thing) else {
            return Err(0);
        };
        *there = there.checked_sub(count).ok_or(*there)?;
        Ok(*there)
    }
}

/// The bot.
struct Storekeeper {
    workshop: Workshop,
}

#[async_trait]
impl Bot for Storekeeper {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new("stock");
        profile.name = "Storekeeper".into();
        profile.about = "I know what is in the workshop. Ask me to `list`, or to `take 3 bolts`.".into();
        profile.limits.time = Duration::from_secs(5);
        profile
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let words: Vec<&str> = turn
            .prompt
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
            .collect();
        match words.as_slice() {
            ["list"] => {
                // Each line is shown to everybody as soon as it is pushed.
                for (thing, count) in self.workshop.list() {
                    out.push(format!("{count} {thing}\n")).await?;
                }
            }
            ["take", count, thing, ..] => {
                // `?` turns any error into a failed turn. Its words go to the log, not to the room.
                let count: u32 = count.parse()?;
                let who = &turn.asked_by.name;
                match self.workshop.take(thing, count) {
                    Ok(left) => {
                        out.push(format!("{who} takes {count} {thing}; {left} are left."))
                            .await?
                    }
                    Err(there) => out.push(format!("There are only {there} {thing}.")).await?,
                }
            }
            // What people should read is said in so many words.
            _ => return Err(BotError::new(BotErrorKind::InvalidRequest, "I can only list and take.")),
        }
        Ok(Finish::stop())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stock = [("bolts".into(), 12), ("nuts".into(), 7)].into();
    let workshop = Workshop {
        stock: Mutex::new(stock),
    };
    let engine = Engine::builder(MemoryStore::new())
        .bot(Storekeeper { workshop })
        .build()
        .await?;
    let alice = engine.create_user("alice").await?;
    let bob = engine.create_user("bob").await?;
    let room = alice.create_room("workshop").await?;
    room.invite(&bob).await?;
    let shown = tokio::spawn(show(room.subscribe().await?));
    let bobs = bob.room(room.id()).await?;
    for (who, text) in [
        (&room, "/stock list"),
        (&bobs, "@stock, take 3 bolts, please"),
        (&room, "Is that enough, Bob?"),
        (&bobs, "take 100 nuts @stock"),
        (&room, "/stock take many bolts"),
        (&room, "/stock dance"),
    ] {
        if let Some(turn) = who.send(text).await?.turn {
            turn.ended().await?;
        }
    }
    engine.close(Duration::from_secs(5)).await;
    shown.await?
}

/// Prints what is said until the engine closes.
async fn show(mut events: Subscription) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    while let Some(event) = events.next().await {
        match event? {
            Event::MessagePosted { message, .. } => println!("{}: {}", message.author, message.text),
            Event::TurnEnded { text, end, .. } => match end.error {
                Some(error) => println!("stock failed ({}): {}", error.code, error.words),
                None => println!("stock: {}", text.trim_end().replace('\n', "\n       ")),
            },
            _ => {}
        }
    }
    Ok(())
}
