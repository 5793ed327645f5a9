//! An embeddable group-chat engine: people and AI bots share rooms, and a bot's answer streams live to everyone in
//! the room at once.
#![forbid(unsafe_code)]

mod attachment;
pub mod bot;
mod builder;
pub mod bus;
pub mod command;
pub mod context;
mod engine;
pub mod error;
pub mod event;
mod gate;
pub mod id;
pub mod live;
pub mod model;
pub mod mutant;
pub mod names;
pub mod password;
mod room;
pub mod store;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
mod turn;
mod user;
mod writer;

/// For those who implement the traits of this crate.
pub use async_trait::async_trait;
pub use attachment::{Attachment, Feed, Pulled, Start};
pub use bot::{Bot, BotError, BotErrorKind, BotLimits, BotProfile, ContextPolicy, ReplyWriter, Turn, bot_fn};
pub use builder::{Engine, EngineBuilder};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, GoneReason, Hint, HintKind};
pub use id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
pub use model::*;
pub use room::{MAX_PAGE, Room, Sent};
#[cfg(feature = "sqlite")]
pub use store::sqlite;
pub use subscription::Subscription;
pub use time::{Clock, Timestamp};
pub use turn::TurnHandle;
pub use user::{RoomDraft, User};
