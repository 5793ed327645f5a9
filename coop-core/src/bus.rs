//! The seam between servers: what one engine commits, streams and hints reaches the others at once through a [`Bus`].
//!
//! A bus may lose, double, reorder and delay what it carries: the log's order and completeness rest on the store alone,
//! which every engine looks at in any case. A bus makes that quick and keeps no promise but to say when it may have lost
//! something. What is behind it: [`memory`] in one process, `redis` between machines, or one's own, which
//! `testing::bus_contract` checks.

mod inbox;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use crate::event::{Event, Hint};
use crate::id::{MessageId, RoomId, TurnId, UserId};
use crate::model::TurnEnd;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Carries what is live between the engines that share one store.
///
/// Nothing here waits for another engine: what cannot be carried now is dropped.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// What the other engines on this store publish, from now on: what concerns a [followed](Self::follow) room, and what
    /// concerns everybody. Called once, before anything else. `store` is the name by which a store is told from all
    /// others: what engines on other stores publish is never heard.
    async fn listen(&self, store: &str) -> BoxStream<'static, BusItem>;

    /// Hands something to the other engines.
    fn publish(&self, item: BusItem);

    /// Begins to hear of a room. Once that is so the stream yields a [`BusItem::Gap`]: what was published before was not
    /// heard.
    fn follow(&self, room: RoomId);

    /// Ends it. Something that is on its way may still come.
    fn unfollow(&self, room: RoomId);

    /// Whether others can be reached.
    fn state(&self) -> BusState;

    /// Sends what is still to be sent, as far as that takes little time, and lets go of everything.
    async fn close(&self);
}

/// Whether a bus carries anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusState {
    /// It does.
    Up,
    /// It does not: other engines see what is committed when they look at the store.
    Down,
}

impl BusState {
    /// Its name: `up` or `down`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a bus carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BusItem {
    /// An event that has been committed.
    Committed(#[serde(with = "whole")] Arc<Event>),
    /// A piece of an answer, from the engine that runs its turn.
    Delta {
        /// Where.
        room: RoomId,
        /// The answer's message.
        message: MessageId,
        /// The number of bytes before this piece.
        offset: u64,
        /// The piece.
        text: Arc<str>,
    },
    /// Something that may be missed.
    Hint(Hint),
    /// Somebody is now in a room. For everybody: whoever reads for them may not know the room yet.
    Joined {
        /// The room.
        room: RoomId,
        /// Who.
        user: UserId,
    },
    /// A room was deleted.
    Deleted {
        /// The room.
        room: RoomId,
        /// Who did it, if that is known.
        by: Option<UserId>,
    },
    /// A turn is to be ended by the engine that runs it. The store says so too.
    Stop {
        /// Where.
        room: RoomId,
        /// The turn.
        turn: TurnId,
        /// As what.
        end: Box<TurnEnd>,
    },
    /// All tokens of a user have ended. For everybody.
    TokensEnded(UserId),
    /// Something may have been lost here: look at the store. Made by a bus itself; to publish it does nothing.
    Gap,
}

impl BusItem {
    /// The room it concerns, if that is all it concerns: who does not follow the room need not hear of it.
    #[must_use]
    pub fn room(&self) -> Option<RoomId> {
        match self {
            Self::Committed(event) => Some(event.room()),
            Self::Hint(hint) => Some(hint.room),
            Self::Delta { room, .. } | Self::Deleted { room, .. } | Self::Stop { room, .. } => Some(*room),
            Self::Joined { .. } | Self::TokensEnded(_) | Self::Gap => None,
        }
    }
}

/// An event with what is attached to its message beside it, as text: raw JSON cannot be read out of an enum that is tagged
/// inside.
mod whole {
    use crate::event::Event;
    use crate::model::{Message, Meta};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::borrow::Cow;
    use std::sync::Arc;

    #[derive(Serialize, Deserialize)]
    struct Whole<'a> {
        event: Cow<'a, Event>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        meta: Option<Cow<'a, str>>,
    }

    pub(super) fn serialize<S: Serializer>(event: &Event, serializer: S) -> Result<S::Ok, S::Error> {
        let meta = event.message().and_then(|message| message.meta.clone());
        let mut event = Cow::Borrowed(event);
        if let Some(message) = meta.as_ref().and_then(|_| message_of(event.to_mut())) {
            Arc::make_mut(message).meta = None;
        }
        let meta = meta.as_ref().map(|meta| Cow::Borrowed(meta.as_json()));
        Whole { event, meta }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Event>, D::Error> {
        let Whole { event, meta } = Whole::deserialize(deserializer)?;
        let mut event = event.into_owned();
        if let (Some(message), Some(meta)) = (message_of(&mut event), meta) {
            Arc::make_mut(message).meta = Some(Meta::from_json(meta).map_err(D::Error::custom)?);
        }
        Ok(Arc::new(event))
    }

    fn message_of(event: &mut Event) -> Option<&mut Arc<Message>> {
        match event {
            Event::MessagePosted { message, .. }
            | Event::MessageEdited { message, .. }
            | Event::TurnStarted { message, .. } => Some(message),
            _ => None,
        }
    }
}
