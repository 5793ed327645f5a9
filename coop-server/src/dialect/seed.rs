//! The first system's words on a socket. Answers are sent as their whole text so far, not as pieces, so pieces that are
//! followed by others in the same batch are left out.

#[cfg(test)]
mod tests;

use super::{Command, Outbound, alone, write};
use crate::objects::{ChatObject, MessageObject, ending};
use crate::receipts::{Receipts, RoomReceipts};
use crate::reply::whole_seconds;
use coop_core::live::{Encoder, Entry, Frames, Level, Tape};
use coop_core::{
    Draft, Engine, ErrorKind, Event, GoneReason, Hint, HintKind, Message, MessageId, MessageStatus, Role, RoomId,
    RoomInfo, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long pieces of an answer gather: its clients append another bubble for each that follows something else.
const DELTAS: Duration = Duration::from_millis(75);
/// A leave takes effect after this, unless the room is joined again: the seed's page leaves and joins all the time.
pub(super) const LEAVES_AFTER: Duration = Duration::from_secs(1);
/// How long opening a room may take.
const A_MOMENT: Duration = Duration::from_secs(10);
/// How many answers are remembered, those that have ended the shortest.
const MAX_ANSWERS: usize = 4_096;

/// What every room a client is not in is called to it, whether or not there is one.
pub(crate) const NOT_AUTHORIZED: &str = "Not authorized";

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    chat_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// What a frame says; `None` if it is of a type that means nothing here.
///
/// # Errors
/// Words for the client.
pub(crate) fn decode(text: &str) -> Result<Option<Command>, &'static str> {
    const NOT_AN_OBJECT: &str = "Not a JSON object";
    // An array of the right values would do for the parser.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(NOT_AN_OBJECT);
    }
    let said: Said<'_> = serde_json::from_str(text).map_err(|_| NOT_AN_OBJECT)?;
    let Some(kind) = said.kind.and_then(of::<String>) else {
        return Ok(None);
    };
    let command: fn(RoomId, Option<String>) -> Option<Command> = match kind.as_str() {
        "join" => |room, _| Some(Command::Join(room, None)),
        "leave" => |room, _| Some(Command::Leave(room)),
        "typing" => |room, _| Some(Command::Typing(room)),
        "message" => |room, content| content.map(|content| Command::Send(room, Draft::text(content))),
        _ => return Ok(None),
    };
    let room = said.chat_id.and_then(of::<i64>).ok_or(NOT_AUTHORIZED)?;
    let content = said.content.and_then(of::<String>);
    command(room.into(), content).map(Some).ok_or("content must be a text")
}

fn of<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// What the server says. Only its shape; serialized straight into a frame.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Say<'a> {
    Message {
        message: MessageObject<'a>,
    },
    BotStream {
        message: MessageObject<'a>,
    },
    Typing {
        chat_id: RoomId,
        username: &'a str,
    },
    UserJoined {
        chat_id: RoomId,
        username: &'a str,
    },
    UserLeft {
        chat_id: RoomId,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<UserId>,
        username: &'a str,
    },
    ReadReceiptsUpdated {
        chat_id: RoomId,
        read_receipts: RoomReceipts<'a>,
    },
    ChatCreated {
        chat: ChatObject<'a>,
        notification: String,
    },
    ChatInvite {
        chat: ChatObject<'a>,
        notification: String,
    },
    RemovedFromChat {
        chat_id: RoomId,
        notification: &'a str,
    },
    ChatDeleted {
        chat_id: RoomId,
        notification: &'a str,
    },
}

/// A refusal, which in the seed has no type.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The frames that say this; none for what this dialect has no words for.
pub(super) fn encode(said: &Outbound<'_>) -> Vec<u8> {
    match said {
        Outbound::Refused { error, .. } => refusal(
            match error.kind() {
                ErrorKind::NotFound => NOT_AUTHORIZED,
                _ => error.words(),
            },
            error.retry_after(),
        ),
        // That it was sent is seen by its event; which bots will not answer is not.
        Outbound::Sent { sent, unasked, .. } => {
            let refused = sent.turns.iter().filter_map(|turn| turn.refused());
            let mut frames: Vec<u8> = refused.flat_map(|error| refusal(&error.words, None)).collect();
            if let Some(error) = unasked {
                frames.extend(refusal(error.words(), error.retry_after()));
            }
            frames
        }
        // Who made a room has been told over HTTP.
        Outbound::Gained(entry) if entry.role == Role::Owner => Vec::new(),
        Outbound::Gained(entry) => gained(&entry.info, entry.joined_at),
        // Who did it knows it.
        Outbound::Gone { mine: true, .. } => Vec::new(),
        Outbound::Gone { room, reason, .. } => {
            let (chat_id, reason) = (*room, *reason);
            alone(&match reason {
                GoneReason::Removed => Say::RemovedFromChat {
                    chat_id,
                    notification: "You were removed from a chat",
                },
                GoneReason::Deleted => Say::ChatDeleted {
                    chat_id,
                    notification: "A chat was deleted",
                },
            })
        }
        Outbound::JustEnded(message) => alone(&Say::BotStream {
            message: (*message).into(),
        }),
        Outbound::Ready(_)
        | Outbound::Done(_)
        | Outbound::Changed { .. }
        | Outbound::Asked { .. }
        | Outbound::Page { .. }
        | Outbound::Bye { .. } => Vec::new(),
    }
}

/// Why something was not done, and when another try makes sense if that is known.
fn refusal(words: &str, retry_after: Option<Duration>) -> Vec<u8> {
    alone(&Refusal {
        error: words,
        retry_after: retry_after.map(whole_seconds),
    })
}

/// Tells somebody of a room they are now in: made with them in it, or later joined.
fn gained(info: &RoomInfo, joined_at: Timestamp) -> Vec<u8> {
    let chat = ChatObject::from(info);
    let name = &info.name;
    alone(&if joined_at == info.created_at {
        let notification = format!("You were added to \"{name}\"");
        Say::ChatCreated { chat, notification }
    } else {
        let notification = format!("You were invited to \"{name}\"");
        Say::ChatInvite { chat, notification }
    })
}

/// The frame that tells who has read what; it stands for all such frames of the room before it.
pub(crate) fn receipts(room: RoomId, receipts: RoomReceipts<'_>) -> Vec<u8> {
    alone(&Say::ReadReceiptsUpdated {
        chat_id: room,
        read_receipts: receipts,
    })
}

/// The encoder of this dialect. One for all sockets.
#[derive(Debug)]
pub(crate) struct Seed {
    /// Answers that have begun. Never held while anything else is locked.
    answers: Mutex<BTreeMap<MessageId, Known>>,
    /// What read marks become: their frame takes a look at the store, which encoding cannot wait for.
    receipts: Arc<Receipts>,
}

/// What is known of an answer.
#[derive(Debug, Default)]
struct Known {
    /// Its message as it was when it began: its end does not repeat who wrote it and when.
    message: Option<Arc<Message>>,
    /// A reader that has been given the end from the store may still be offered pieces from before it, which would take
    /// words back. So once the end has been encoded for anyone no piece is: whoever lacks the end will get it.
    ended: Option<Instant>,
}

impl Seed {
    pub(crate) fn new(engine: Engine) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            answers: Mutex::default(),
            receipts: Receipts::new(engine, Weak::clone(me)),
        })
    }

    pub(crate) fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    fn known<T>(&self, look: impl FnOnce(&mut BTreeMap<MessageId, Known>) -> T) -> T {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = look(&mut answers);
        while answers.len() > MAX_ANSWERS {
            let ended = answers
                .iter()
                .find(|(_, known)| known.ended.is_some())
                .map(|(id, _)| *id);
            match ended {
                Some(id) => answers.remove(&id).is_some(),
                None => answers.pop_first().is_some(),
            };
        }
        looked
    }

    /// Keeps an answer's message for its end.
    pub(crate) fn remember(&self, message: &Arc<Message>) {
        self.known(|answers| {
            let known = answers.entry(message.id).or_default();
            known.message.get_or_insert_with(|| Arc::clone(message));
        });
    }

    fn end(&self, message: MessageId) {
        let now = Instant::now();
        self.known(|answers| {
            answers.entry(message).or_default().ended.get_or_insert(now);
        });
    }

    fn has_ended(&self, message: MessageId) -> bool {
        self.known(|answers| answers.get(&message).is_some_and(|known| known.ended.is_some()))
    }

    fn recall(&self, message: MessageId) -> Option<Arc<Message>> {
        self.known(|answers| answers.get(&message)?.message.clone())
    }

    /// The answers of a room that ended a moment ago. Whoever opens a room reads its history beside joining it, and may
    /// have read it before the end and joined after.
    pub(crate) fn just_ended(&self, room: RoomId) -> Vec<MessageId> {
        let since = Instant::now().checked_sub(A_MOMENT);
        let just = |known: &Known| {
            let here = known.message.as_ref().is_some_and(|message| message.room == room);
            here && known.ended.is_some_and(|ended| since.is_none_or(|since| ended > since))
        };
        self.known(|answers| {
            let found = answers.iter().filter(|(_, known)| just(known));
            found.map(|(id, _)| *id).collect()
        })
    }

    /// The answers that end in these entries and of which nothing is known: somebody must look them up first.
    pub(crate) fn unknown(&self, entries: &[Entry]) -> Vec<MessageId> {
        let begun: BTreeSet<MessageId> = entries.iter().filter_map(begins).map(|message| message.id).collect();
        let ends = entries.iter().filter_map(|entry| Some(ending(&entry.event)?.0));
        ends.filter(|id| !begun.contains(id) && self.recall(*id).is_none())
            .collect()
    }

    /// An answer's text so far.
    fn piece(&self, tape: &Tape, end: u64, out: &mut Vec<u8>) -> bool {
        if self.has_ended(tape.message.id) {
            return false;
        }
        tape.with_prefix(end, |text| {
            let message = MessageObject::saying(&tape.message, text, MessageStatus::Streaming);
            !text.is_empty() && write(out, &Say::BotStream { message })
        })
    }

    fn event(&self, level: Level, event: &Event, out: &mut Vec<u8>) -> bool {
        match event {
            Event::MessagePosted { message, .. } => write(
                out,
                &Say::Message {
                    message: (&**message).into(),
                },
            ),
            Event::MemberLeft { room, user, name, .. } => write(
                out,
                &Say::UserLeft {
                    chat_id: *room,
                    user_id: Some(*user),
                    username: name,
                },
            ),
            Event::TurnEnded { .. } if level == Level::Full => {
                let Some((id, content, status)) = ending(event) else {
                    return false;
                };
                let Some(message) = self.recall(id) else {
                    tracing::error!(message = %id, "the end of an unknown answer was not sent");
                    return false;
                };
                write(
                    out,
                    &Say::BotStream {
                        message: MessageObject::saying(&message, content, status),
                    },
                )
            }
            _ => false,
        }
    }
}

/// The message of an answer that begins or is under way here.
fn begins(entry: &Entry) -> Option<&Arc<Message>> {
    match (&*entry.event, &entry.tape) {
        (Event::TurnStarted { message, .. }, _) => Some(message),
        (_, Some(tape)) => Some(&tape.message),
        _ => None,
    }
}

/// The answer whose text this entry carries, or the end of it.
fn grows(event: &Event) -> Option<MessageId> {
    match event {
        Event::Delta { message, .. } | Event::Tape { message, .. } => Some(*message),
        Event::TurnEnded { message, .. } => *message,
        _ => None,
    }
}

impl Encoder for Seed {
    fn delta_interval(&self) -> Duration {
        DELTAS
    }

    fn encode(&self, level: Level, entries: &[Entry], frames: &mut Frames) {
        for message in entries.iter().filter_map(begins) {
            self.remember(message);
        }
        for (message, ..) in entries.iter().filter_map(|entry| ending(&entry.event)) {
            self.end(message);
        }
        // Whole texts make those before them superfluous: a reader that is cut off in between gets the later one.
        let mut later = BTreeSet::new();
        let mut last: Vec<bool> = entries
            .iter()
            .rev()
            .map(|entry| grows(&entry.event).is_none_or(|message| later.insert(message)))
            .collect();
        last.reverse();
        for (entry, last) in entries.iter().zip(last) {
            let written = match (&*entry.event, &entry.tape) {
                _ if !last => false,
                (Event::Delta { end, .. } | Event::Tape { end, .. }, Some(tape)) => {
                    level == Level::Full && self.piece(tape, *end, &mut frames.bytes)
                }
                (event, _) => self.event(level, event, &mut frames.bytes),
            };
            if written {
                frames.end(entry.cursor());
            }
        }
    }

    fn encode_hint(&self, hint: &Hint, frames: &mut Frames) {
        let (chat_id, username) = (hint.room, hint.name.as_str());
        let said = match hint.what {
            HintKind::Typing => Say::Typing { chat_id, username },
            HintKind::Presence { here: true } => Say::UserJoined { chat_id, username },
            HintKind::Presence { here: false } => Say::UserLeft {
                chat_id,
                user_id: None,
                username,
            },
            HintKind::Read { .. } => return self.receipts.changed(hint),
            _ => return,
        };
        write(&mut frames.bytes, &said);
    }
}
