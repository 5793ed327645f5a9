//! `coop.v1`: answers as pieces by their place, acknowledgements, resuming. What every frame looks like is told, and tried,
//! in `PROTOCOL.md`.
//!
//! It remembers nothing: whatever a frame needs is in the event. A piece that comes after its answer's end, as it may where
//! a reader was given the end from the store, is dropped by clients, to whom the answer is complete.

#[cfg(test)]
mod tests;

use super::{Asked, Command, Farewell, Malformed, Outbound, Ref, Welcome, alone, write};
use crate::paging::part;
use coop_core::live::{Encoder, Entry, Frames, Level};
use coop_core::{
    Draft, Error, Event, GoneReason, Hint, HintKind, Message, MessageId, Meta, Position, RoomEntry, RoomId, Seq,
    Snapshot, Timestamp, TurnEnd, TurnError, TurnHandle, TurnId, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The subprotocol.
pub(crate) const NAME: &str = "coop.v1";
/// How a handshake's list of subprotocols carries a token.
pub(crate) const BEARER: &str = "bearer.";

/// How long pieces of an answer gather.
const DELTAS: Duration = Duration::from_millis(25);
/// How many bytes of a room's last message are told in a list of rooms.
const LISTED: usize = 300;

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    by: Option<&'a RawValue>,
    #[serde(borrow, default)]
    room: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rooms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    turn: Option<&'a RawValue>,
    #[serde(borrow, default)]
    seq: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    limit: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    client_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reply_to: Option<&'a RawValue>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    token: Option<&'a RawValue>,
}

/// What a frame says.
///
/// # Errors
/// Words for the client, with the number of the command if that could be read.
pub(crate) fn decode(text: &str) -> Result<Asked, Malformed> {
    const NOT_AN_OBJECT: &str = "a frame must be one JSON object";
    // An array of the right values would do for the parser.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(NOT_AN_OBJECT.into());
    }
    let said: Said<'_> = serde_json::from_str(text).map_err(|_| Malformed::from(NOT_AN_OBJECT))?;
    let by: Option<Ref> = optional(said.by, "ref").map_err(|words| Malformed {
        by: None,
        words: words.into(),
    })?;
    match command(&said) {
        Ok(command) => Ok(Asked { by, command }),
        Err(words) => Err(Malformed {
            by,
            words: words.into(),
        }),
    }
}

fn command(said: &Said<'_>) -> Result<Command, String> {
    let room = || required::<RoomId>(said.room, "room");
    let message = || required::<MessageId>(said.message, "message");
    let text = || required::<String>(said.text, "text");
    let kind: String = required(said.kind, "type")?;
    Ok(match kind.as_str() {
        "resume" => {
            let rooms: BTreeMap<RoomId, Position> = required(said.rooms, "rooms")?;
            Command::Resume(rooms.into_iter().collect())
        }
        "join" => Command::Join(room()?, optional(said.after, "after")?),
        "leave" => Command::Leave(room()?),
        "send" => Command::Send(
            room()?,
            Draft {
                text: text()?,
                client_id: optional(said.client_id, "client_id")?,
                reply_to: optional(said.reply_to, "reply_to")?,
                meta: optional_meta(said.meta)?,
                asks_nobody: false,
            },
        ),
        "edit" => Command::Edit(room()?, message()?, text()?),
        "delete" => Command::Delete(room()?, message()?),
        "typing" => Command::Typing(room()?),
        "read" => Command::Read(room()?, required(said.seq, "seq")?),
        "stop" => Command::Stop(room()?, required::<TurnId>(said.turn, "turn")?),
        "retry" => Command::Retry(room()?, message()?),
        "history" => {
            let (before, after) = (optional(said.before, "before")?, optional(said.after, "after")?);
            let (range, limit) = part(before, after, optional(said.limit, "limit")?)?;
            Command::History(room()?, range, limit)
        }
        "token" => Command::Token(required(said.token, "token")?),
        _ => return Err(format!("no command is called {:?}", shortened(&kind))),
    })
}

/// The beginning of what a client wrote, to be shown to it.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(40)]
}

fn required<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, name: &str) -> Result<T, String> {
    optional(raw, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// A field; `null` is as good as none.
fn optional<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, name: &str) -> Result<Option<T>, String> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|_| format!("{name} is not what it should be"))
}

fn optional_meta(raw: Option<&RawValue>) -> Result<Option<Meta>, String> {
    let raw = raw.map(RawValue::get).filter(|raw| *raw != "null");
    raw.map(|raw| Meta::from_json(raw).map_err(|error| error.words().to_owned()))
        .transpose()
}

/// What the server says. Only its shape; serialized straight into a frame.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Say<'a> {
    Ready {
        user: UserObject<'a>,
        rooms: Vec<Cow<'a, RoomEntry>>,
        bots: Vec<BotObject<'a>>,
        limits: LimitsObject,
        server_time: Timestamp,
    },
    Ok {
        #[serde(rename = "ref")]
        by: &'a Ref,
        #[serde(flatten)]
        made: Made<'a>,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        by: Option<&'a Ref>,
        #[serde(flatten)]
        error: ErrorObject<'a>,
    },
    Page {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        by: Option<&'a Ref>,
        room: RoomId,
        messages: &'a [Arc<Message>],
        more: bool,
    },
    Event {
        #[serde(flatten)]
        event: &'a Event,
    },
    /// The end of an answer whose text the client has been given in pieces.
    #[serde(rename = "event")]
    TurnEnded {
        kind: &'static str,
        room: RoomId,
        seq: Seq,
        turn: TurnId,
        bot: &'a str,
        message: MessageId,
        /// How long the text is.
        end: u64,
        #[serde(flatten)]
        how: &'a TurnEnd,
    },
    Delta {
        room: RoomId,
        message: MessageId,
        offset: u64,
        end: u64,
        text: Cow<'a, str>,
    },
    Snapshot {
        room: RoomId,
        #[serde(flatten)]
        snapshot: &'a Snapshot,
    },
    Hint {
        room: RoomId,
        kind: &'static str,
        user: UserId,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        here: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
    Room {
        room: Cow<'a, RoomEntry>,
    },
    Gone {
        room: RoomId,
        reason: GoneReason,
        by: Option<UserId>,
    },
    Bye {
        code: u16,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

/// The one whose connection it is.
#[derive(Serialize)]
struct UserObject<'a> {
    id: UserId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

#[derive(Serialize)]
struct BotObject<'a> {
    handle: &'a str,
    name: &'a str,
}

/// What a client may send, in bytes and messages.
#[derive(Serialize)]
struct LimitsObject {
    frame_bytes: usize,
    text_bytes: usize,
    meta_bytes: usize,
    page: u32,
}

/// What a command made.
#[derive(Serialize, Default)]
struct Made<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnId>,
    /// Where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<TurnId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// Why a turn was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a TurnError>,
    /// Why nobody was asked who would have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    unasked: Option<ErrorObject<'a>>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl<'a> From<&'a Error> for ErrorObject<'a> {
    fn from(error: &'a Error) -> Self {
        Self {
            code: error.code(),
            detail: error.words(),
            retry_after_ms: error.retry_after().map(milliseconds),
        }
    }
}

/// A whole number of milliseconds, rounded up: whoever comes too early is refused again.
fn milliseconds(after: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A room as in a list: of what was said last the beginning is enough.
fn listed(entry: &RoomEntry) -> Cow<'_, RoomEntry> {
    let is_long = |message: &&Arc<Message>| message.text.len() > LISTED || message.meta.is_some();
    let Some(last) = entry.last_message.as_ref().filter(is_long) else {
        return Cow::Borrowed(entry);
    };
    let mut last = Message::clone(last);
    last.text.truncate(last.text.floor_char_boundary(LISTED));
    last.meta = None;
    let mut entry = entry.clone();
    entry.last_message = Some(Arc::new(last));
    Cow::Owned(entry)
}

/// The frames that say this.
pub(super) fn encode(said: &Outbound<'_>) -> Vec<u8> {
    let say = match said {
        Outbound::Ready(Welcome {
            user,
            rooms,
            bots,
            frame_bytes,
            bounds,
            now,
        }) => Say::Ready {
            user: UserObject {
                id: user.id,
                name: &user.name,
                email: user.email.as_deref(),
            },
            rooms: rooms.iter().map(listed).collect(),
            bots: bots.iter().map(|(handle, name)| BotObject { handle, name }).collect(),
            limits: LimitsObject {
                frame_bytes: *frame_bytes,
                text_bytes: bounds.text_bytes,
                meta_bytes: Meta::MAX_BYTES,
                page: bounds.page,
            },
            server_time: *now,
        },
        Outbound::Done(by) => Say::Ok {
            by,
            made: Made::default(),
        },
        Outbound::Sent { by: None, .. } => return Vec::new(),
        Outbound::Sent {
            by: Some(by),
            sent,
            unasked,
        } => Say::Ok {
            by,
            made: Made {
                message: Some(sent.message.id),
                seq: Some(sent.message.seq),
                turn: sent.turn.as_ref().map(TurnHandle::id),
                turns: match &sent.turns[..] {
                    [] | [_] => Vec::new(),
                    several => several.iter().map(TurnHandle::id).collect(),
                },
                duplicate: sent.duplicate,
                refused: sent.turns.iter().find_map(TurnHandle::refused),
                unasked: unasked.map(ErrorObject::from),
            },
        },
        Outbound::Changed { by, message } => Say::Ok {
            by,
            made: Made {
                message: Some(message.id),
                seq: Some(message.seq),
                ..Made::default()
            },
        },
        Outbound::Asked { by, turn } => Say::Ok {
            by,
            made: Made {
                turn: Some(turn.id()),
                refused: turn.refused(),
                ..Made::default()
            },
        },
        Outbound::Page { by, room, page } => Say::Page {
            by: *by,
            room: *room,
            messages: &page.messages,
            more: page.more,
        },
        Outbound::Refused { by, error } => Say::Error {
            by: *by,
            error: (*error).into(),
        },
        Outbound::Gained(entry) => Say::Room { room: listed(entry) },
        Outbound::Gone { room, reason, by, .. } => Say::Gone {
            room: *room,
            reason: *reason,
            by: *by,
        },
        Outbound::JustEnded(_) => return Vec::new(),
        Outbound::Bye { reason, code, again } => Say::Bye {
            code: *code,
            reason: reason.words(),
            retry_after_ms: match reason {
                Farewell::Expired | Farewell::LoggedOut => None,
                _ => Some(milliseconds(*again)),
            },
        },
    };
    alone(&say)
}

/// The encoder of this dialect. One for all sockets.
#[derive(Debug)]
pub(crate) struct V1;

/// Where a piece of an answer begins and ends. A tape is a piece from the beginning: whoever holds some of it already
/// replaces it by what is as good and longer.
fn place(event: &Event) -> Option<(MessageId, u64, u64)> {
    match event {
        Event::Delta {
            message, offset, end, ..
        } => Some((*message, *offset, *end)),
        Event::Tape { message, end, .. } => Some((*message, 0, *end)),
        _ => None,
    }
}

/// Whether the second goes on where the first ends.
fn goes_on(first: &Entry, second: &Entry) -> bool {
    match (place(&first.event), place(&second.event)) {
        (Some((message, _, end)), Some((other, offset, _))) => message == other && end == offset && end > 0,
        _ => false,
    }
}

/// What is said of entries that go on from each other.
fn together(level: Level, run: &[Entry]) -> Option<Say<'_>> {
    let (first, rest) = run.split_first()?;
    let mut whole = say(&first.event)?;
    if let (
        Event::TurnEnded {
            room,
            seq,
            turn,
            bot,
            message: Some(message),
            text,
            end,
        },
        true,
    ) = (&*first.event, first.told && level == Level::Full)
    {
        return Some(Say::TurnEnded {
            kind: "turn_ended",
            room: *room,
            seq: *seq,
            turn: *turn,
            bot,
            message: *message,
            end: text.len() as u64,
            how: end,
        });
    }
    for entry in rest {
        if let (
            Say::Delta { end, text, .. },
            Some(Say::Delta {
                end: to, text: more, ..
            }),
        ) = (&mut whole, say(&entry.event))
        {
            text.to_mut().push_str(&more);
            *end = to;
        }
    }
    Some(whole)
}

/// What is said of an event; nothing of those that this dialect does not know.
fn say(event: &Event) -> Option<Say<'_>> {
    Some(match event {
        Event::Delta {
            room,
            message,
            offset,
            end,
            text,
        } => Say::Delta {
            room: *room,
            message: *message,
            offset: *offset,
            end: *end,
            text: Cow::Borrowed(text),
        },
        Event::Tape {
            room,
            message,
            end,
            text,
        } => Say::Delta {
            room: *room,
            message: *message,
            offset: 0,
            end: *end,
            text: Cow::Borrowed(text),
        },
        Event::Snapshot(snapshot) => Say::Snapshot {
            room: snapshot.info.id,
            snapshot,
        },
        Event::Gone { room, reason, by } => Say::Gone {
            room: *room,
            reason: *reason,
            by: *by,
        },
        Event::RoomGained { entry } => Say::Room {
            room: Cow::Borrowed(entry),
        },
        Event::Hint(hint) => return say_hint(hint),
        event if event.seq().is_some() => Say::Event { event },
        _ => return None,
    })
}

fn say_hint(hint: &Hint) -> Option<Say<'_>> {
    let (kind, here, seq) = match hint.what {
        HintKind::Typing => ("typing", None, None),
        HintKind::Presence { here } => ("presence", Some(here), None),
        HintKind::Read { seq } => ("read", None, Some(seq)),
        _ => return None,
    };
    Some(Say::Hint {
        room: hint.room,
        kind,
        user: hint.user,
        name: &hint.name,
        here,
        seq,
    })
}

/// An event as the JSON that its frame would have, and the name of its type; `None` if this dialect does not know it.
pub fn event_json(event: &Event) -> Option<(&'static str, String)> {
    let say = say(event)?;
    let kind = match say {
        Say::Event { .. } => "event",
        Say::Delta { .. } => "delta",
        Say::Snapshot { .. } => "snapshot",
        Say::Hint { .. } => "hint",
        Say::Gone { .. } => "gone",
        Say::Room { .. } => "room",
        _ => return None,
    };
    Some((kind, serde_json::to_string(&say).ok()?))
}

impl Encoder for V1 {
    fn delta_interval(&self) -> Duration {
        DELTAS
    }

    fn encode(&self, level: Level, entries: &[Entry], frames: &mut Frames) {
        for run in entries.chunk_by(goes_on) {
            let Some(last) = run.last() else { continue };
            if level == Level::Events && place(&last.event).is_some() {
                continue;
            }
            if together(level, run).is_some_and(|say| write(&mut frames.bytes, &say)) {
                frames.end(last.cursor());
            }
        }
    }

    fn encode_hint(&self, hint: &Hint, frames: &mut Frames) {
        if let Some(say) = say_hint(hint) {
            write(&mut frames.bytes, &say);
        }
    }
}
