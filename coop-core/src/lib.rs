//! An embeddable group-chat engine: people and AI bots share rooms, and a bot's answer streams live to everyone in
//! the room at once.
//!
#![cfg_attr(feature = "sqlite", doc = "```no_run")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use coop_core::{Engine, Event, Finish, sqlite::SqliteStore};
//! use futures::StreamExt;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     let engine = Engine::builder(SqliteStore::open("chat.db").await?)
//!         .bot_fn("echo", |turn, out| async move {
//!             for word in turn.prompt.split_inclusive(' ') {
//!                 out.push(word).await?;
//!             }
//!             Ok(Finish::stop())
//!         })
//!         .build()
//!         .await?;
//!
//!     let alice = engine.create_user("alice").await?;
//!     let bob = engine.create_user("bob").await?;
//!     let room = alice.create_room("lab").await?;
//!     room.invite(&bob).await?;
//!
//!     let mut events = bob.room(room.id()).await?.subscribe().await?;
//!     room.send("/echo one answer, live for everyone").await?;
//!
//!     while let Some(event) = events.next().await {
//!         match event? {
//!             Event::MessagePosted { message, .. } => println!("{}: {}", message.author, message.text),
//!             Event::Delta { text, .. } => print!("{text}"),
//!             Event::TurnEnded { .. } => break,
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! - [`Engine`], [`User`], [`Room`] and [`TurnHandle`] are cheap to clone. The store is the one mandatory part; everything
//!   else has a default in [`EngineBuilder`].
//! - A [`Room`] is a room **as one member sees it**, and every call is checked against that membership. [`Engine::user`]
//!   authenticates nobody: the host obtains a user after its own login, or through [`Engine::authenticate`].
//! - When [`Room::send`] returns, the message is on disk. Sent again with the same [`client_id`](Draft::client_id) it is
//!   the same message, for ever.
//! - A [`Subscription`] never skips: a reader that is behind is filled from the store, and none slows another. Its
//!   [position](Subscription::position) is what [`Room::resume`] takes up from, in the middle of an answer if need be.
//! - A bot's answer is a **turn**: it starts, streams and ends exactly once, whatever happens. Anybody in the room can
//!   [stop](Room::stop) it; what a dead process leaves open is ended, with its text, by the next engine.
//!
//! # What can be your own
//!
//! | | implement | and try it with |
//! | --- | --- | --- |
//! | bots | [`Bot`], or [`bot_fn`] for a closure | `testing::bot_contract` |
//! | storage | [`RoomStore`](store::RoomStore), over [`store::plan`] | `testing::store_contract` |
//! | users | [`UserStore`](store::UserStore): look up by id and by name | |
//! | other engines | [`Bus`] | `testing::bus_contract` |
//! | connections | [`live::Reader`] and [`live::Encoder`], attached by [`User::attach`] | |
//!
//! # Features
//!
//! `sqlite` (on by default): [`store::sqlite`] and a bundled SQLite. `postgres`: `store::postgres`, for several engines on
//! one database. `redis`: `bus::redis`, by which they hear of each other at once. `testing`: the suites above, a simulation
//! of everything, and [switches](mutant) that take safety mechanisms away.
//!
//! Every fallible call returns the one opaque [`Error`], which has a [kind](Error::kind) and a stable
//! [code](Error::code). The library installs no tracing subscriber, no signal handler and no panic hook.
#![forbid(unsafe_code)]

mod account;
mod archive;
mod attachment;
pub mod bot;
mod bounds;
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
pub mod metrics;
pub mod model;
pub mod mutant;
pub mod names;
mod others;
pub mod password;
mod relay;
mod room;
pub mod search;
pub mod store;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
mod turn;
mod user;
mod writer;

pub use account::Departure;
pub use archive::{Archive, ForeignMember, ForeignMessage, ForeignRoom, Speaker};
/// For those who implement the traits of this crate.
pub use async_trait::async_trait;
pub use attachment::{Attachment, Feed, Pulled, Start};
pub use bot::{Bot, BotError, BotErrorKind, BotLimits, BotProfile, ContextPolicy, ReplyWriter, Turn, bot_fn};
pub use bounds::Bounds;
pub use builder::{Engine, EngineBuilder};
pub use bus::{Bus, BusState};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, GoneReason, Hint, HintKind};
pub use id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
pub use model::*;
pub use room::{Handed, Room, Sent};
#[cfg(feature = "postgres")]
pub use store::postgres;
#[cfg(feature = "sqlite")]
pub use store::sqlite;
pub use subscription::Subscription;
pub use time::{Clock, Day, Timestamp};
pub use turn::TurnHandle;
pub use user::{RoomDraft, User};
