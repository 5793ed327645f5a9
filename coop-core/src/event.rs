//! What a subscription yields: the durable events of a room's log, the deltas of answers being written, and hints.
//! It knows neither how they reach a reader nor how they are encoded.

use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Message, RoomEntry, RoomInfo, Snapshot, TurnEnd};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that happened in a room. Those with a [`seq`](Event::seq) are the durable log: every reader sees each
/// exactly once and in order, or a [`Snapshot`] that stands for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "room and seq mean the same in every variant; the others are named by what they hold"
)]
pub enum Event {
    /// Something was said.
    MessagePosted {
        room: RoomId,
        seq: Seq,
        message: Arc<Message>,
    },
    /// A message was changed by its author; it is carried whole.
    MessageEdited {
        room: RoomId,
        seq: Seq,
        message: Arc<Message>,
    },
    /// A message was deleted.
    MessageDeleted {
        room: RoomId,
        seq: Seq,
        message: MessageId,
        by: UserId,
    },
    /// Somebody is now a member.
    MemberJoined {
        room: RoomId,
        seq: Seq,
        user: UserId,
        name: String,
        by: UserId,
    },
    /// Somebody left (`by` themselves) or was removed.
    MemberLeft {
        room: RoomId,
        seq: Seq,
        user: UserId,
        name: String,
        by: UserId,
    },
    /// The room's name or owner changed.
    RoomUpdated {
        room: RoomId,
        seq: Seq,
        info: RoomInfo,
        by: UserId,
    },
    /// A bot was asked and its turn was admitted; `position` turns of that bot are before it.
    TurnQueued {
        room: RoomId,
        seq: Seq,
        turn: TurnId,
        bot: String,
        asked_by: UserId,
        ask: MessageId,
        position: u32,
    },
    /// The bot begins; this is its message's only appearance in the log.
    TurnStarted {
        room: RoomId,
        seq: Seq,
        turn: TurnId,
        bot: String,
        asked_by: UserId,
        message: Arc<Message>,
    },
    /// The turn is over, or was refused (then it never started). `text` is all that was written.
    TurnEnded {
        room: RoomId,
        seq: Seq,
        turn: TurnId,
        bot: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        message: Option<MessageId>,
        text: Arc<str>,
        #[serde(flatten)]
        end: Box<TurnEnd>,
    },
    /// A piece of an answer: the bytes from `offset` to `end`. Where a reader holds exactly `offset` bytes it appends.
    Delta {
        room: RoomId,
        message: MessageId,
        offset: u64,
        end: u64,
        text: Arc<str>,
    },
    /// An answer's whole text so far, instead of the deltas up to `end`: a reader replaces what it holds.
    Tape {
        room: RoomId,
        message: MessageId,
        end: u64,
        text: Arc<str>,
    },
    /// Everything up to a position, instead of the events before it.
    Snapshot(Box<Snapshot>),
    /// Something that may be missed: typing, presence, a read mark.
    Hint(Hint),
    /// The user has gained a room. Only in [`User::subscribe`](crate::User::subscribe).
    RoomGained { entry: Box<RoomEntry> },
    /// The reader has lost a room; nothing of it follows.
    Gone {
        room: RoomId,
        reason: GoneReason,
        by: Option<UserId>,
    },
}

impl Event {
    /// The position in the room's log, if it is part of the log.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        match self {
            Self::MessagePosted { seq, .. }
            | Self::MessageEdited { seq, .. }
            | Self::MessageDeleted { seq, .. }
            | Self::MemberJoined { seq, .. }
            | Self::MemberLeft { seq, .. }
            | Self::RoomUpdated { seq, .. }
            | Self::TurnQueued { seq, .. }
            | Self::TurnStarted { seq, .. }
            | Self::TurnEnded { seq, .. } => Some(*seq),
            _ => None,
        }
    }

    /// The room it happened in.
    #[must_use]
    pub fn room(&self) -> RoomId {
        match self {
            Self::MessagePosted { room, .. }
            | Self::MessageEdited { room, .. }
            | Self::MessageDeleted { room, .. }
            | Self::MemberJoined { room, .. }
            | Self::MemberLeft { room, .. }
            | Self::RoomUpdated { room, .. }
            | Self::TurnQueued { room, .. }
            | Self::TurnStarted { room, .. }
            | Self::TurnEnded { room, .. }
            | Self::Delta { room, .. }
            | Self::Tape { room, .. }
            | Self::Gone { room, .. } => *room,
            Self::Snapshot(snapshot) => snapshot.info.id,
            Self::Hint(hint) => hint.room,
            Self::RoomGained { entry } => entry.info.id,
        }
    }

    /// The message it carries whole, if it does.
    #[must_use]
    pub fn message(&self) -> Option<&Arc<Message>> {
        match self {
            Self::MessagePosted { message, .. }
            | Self::MessageEdited { message, .. }
            | Self::TurnStarted { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// Why a reader lost a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// The user left or was removed.
    Removed,
    /// The room was deleted.
    Deleted,
}

/// Something fleeting: the latest wins, and any may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Where.
    pub room: RoomId,
    /// Whose.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// What.
    #[serde(flatten)]
    pub what: HintKind,
}

/// What a [`Hint`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "hint")]
#[non_exhaustive]
pub enum HintKind {
    /// They are writing.
    Typing,
    /// They opened or closed the room.
    Presence {
        /// Whether they are there now.
        here: bool,
    },
    /// They have read everything up to here. Stored before it is sent.
    Read {
        /// Up to and including this event.
        seq: Seq,
    },
}
