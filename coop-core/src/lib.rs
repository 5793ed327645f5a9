//! An embeddable group-chat engine: people and AI bots share rooms, and a bot's answer streams live to everyone in
//! the room at once.
#![forbid(unsafe_code)]

pub mod bot;
pub mod bus;
pub mod command;
pub mod context;
pub mod error;
pub mod event;
pub mod id;
pub mod model;
pub mod mutant;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;

pub use bot::{Bot, BotError, BotErrorKind, BotLimits, BotProfile, ContextPolicy, ReplyWriter, Turn, bot_fn};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, GoneReason, Hint, HintKind};
pub use id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
pub use model::*;
#[cfg(feature = "sqlite")]
pub use store::sqlite;
pub use time::{Clock, Timestamp};
