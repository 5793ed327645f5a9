//! The JSON objects of the seed's contract, the same over HTTP and on sockets. Only shapes and their words: who may see
//! which object is decided elsewhere.

use coop_core::{
    Account, Event, Member, Message, MessageId, MessageStatus, RoomEntry, RoomId, RoomInfo, Seq, Timestamp, UserId,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;

/// A person, as themselves or others see them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UserObject<'a> {
    id: UserId,
    username: &'a str,
    /// Empty for others: an address is shown to its owner only.
    email: &'a str,
    created_at: Timestamp,
}

impl<'a> UserObject<'a> {
    /// An account; its store or search has taken the address out if it is another's.
    pub(crate) fn of(account: &'a Account) -> Self {
        Self {
            id: account.id,
            username: &account.name,
            email: account.email.as_deref().unwrap_or(""),
            created_at: account.created_at,
        }
    }

    /// A member, seen by `viewer`. No client reads when a member's account was made, so it is when they joined.
    pub(crate) fn of_member(member: &'a Member, viewer: &'a Account) -> Self {
        if member.user == viewer.id {
            return Self::of(viewer);
        }
        Self {
            id: member.user,
            username: &member.name,
            email: "",
            created_at: member.joined_at,
        }
    }
}

/// A room.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatObject<'a> {
    id: RoomId,
    name: &'a str,
    owner_id: UserId,
    created_at: Timestamp,
    is_group: bool,
    is_ai_chat: bool,
}

impl<'a> From<&'a RoomInfo> for ChatObject<'a> {
    fn from(info: &'a RoomInfo) -> Self {
        Self {
            id: info.id,
            name: &info.name,
            owner_id: info.owner,
            created_at: info.created_at,
            is_group: info.is_group,
            is_ai_chat: info.is_ai_chat,
        }
    }
}

/// A room in somebody's list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatRow<'a> {
    #[serde(flatten)]
    chat: ChatObject<'a>,
    unread_count: u32,
    last_message: Option<Cow<'a, str>>,
    last_message_time: Option<Timestamp>,
}

impl<'a> From<&'a RoomEntry> for ChatRow<'a> {
    fn from(entry: &'a RoomEntry) -> Self {
        let last = entry.last_message.as_deref();
        Self {
            chat: (&entry.info).into(),
            unread_count: entry.unread,
            last_message: last.map(content),
            last_message_time: last.map(|message| message.created_at),
        }
    }
}

/// Something said.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageObject<'a> {
    id: MessageId,
    chat_id: RoomId,
    user_id: Option<UserId>,
    content: Cow<'a, str>,
    is_bot: bool,
    created_at: Timestamp,
    username: &'a str,
    /// Its place in the room, by which history is paged.
    seq: Seq,
    status: MessageStatus,
}

impl<'a> From<&'a Message> for MessageObject<'a> {
    fn from(message: &'a Message) -> Self {
        Self::saying(message, content(message), message.status)
    }
}

impl<'a> MessageObject<'a> {
    /// The message with another content and status than it had when it was read.
    pub(crate) fn saying(message: &'a Message, content: impl Into<Cow<'a, str>>, status: MessageStatus) -> Self {
        Self {
            id: message.id,
            chat_id: message.room,
            user_id: message.author.user,
            content: content.into(),
            is_bot: message.author.bot.is_some(),
            created_at: message.created_at,
            username: &message.author.name,
            seq: message.seq,
            status,
        }
    }
}

/// What is shown of a message.
fn content(message: &Message) -> Cow<'_, str> {
    shown(&message.text, message.status, message.error.as_deref())
}

/// What is shown of an answer that has ended so: its text, and words after it if it failed or was cut off, or in its place
/// if it is empty, lest an empty bubble stays.
pub(crate) fn shown<'a>(text: &'a str, status: MessageStatus, error: Option<&'a str>) -> Cow<'a, str> {
    let empty = text.trim().is_empty();
    match status {
        MessageStatus::Failed if !empty => format!("{text}\n\n{}", error.unwrap_or("The bot failed.")).into(),
        // Cut off by a budget, not by a person.
        MessageStatus::Stopped if !empty && error.is_some() => {
            format!("{text}\n\n{}", error.unwrap_or_default()).into()
        }
        _ if !empty => text.into(),
        MessageStatus::Streaming => text.into(),
        MessageStatus::Done => "The bot had nothing to say.".into(),
        MessageStatus::Stopped => error.unwrap_or("The answer was stopped.").into(),
        MessageStatus::Failed => error.unwrap_or("The bot failed.").into(),
        MessageStatus::Interrupted => "The answer was interrupted.".into(),
    }
}

/// The content with which an answer ends, if this event is its end.
pub(crate) fn ending(event: &Event) -> Option<(MessageId, Cow<'_, str>, MessageStatus)> {
    let Event::TurnEnded {
        message: Some(message),
        text,
        end,
        ..
    } = event
    else {
        return None;
    };
    let status = end.status.of_message();
    let words = end.error.as_ref().map(|error| error.words.as_str());
    Some((*message, shown(text, status, words), status))
}

/// That somebody has read a message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReceiptObject<'a> {
    pub(crate) user_id: UserId,
    pub(crate) username: &'a str,
    pub(crate) read_at: Timestamp,
}
