//! The nouns: users, rooms, members, messages, turns. Plain values without behaviour; they know neither who may
//! do what nor where they are stored.

use crate::error::{Error, Result};
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

mod context;
mod settings;
mod usage;

pub use context::{Context, ContextTurn, MessageVersion, Receipt, Side};
pub use settings::{RoomSettings, TurnPolicy, WhoMayStop};
pub use usage::{Budgets, Usage, UsageFilter, UsageSum};

/// A person with an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Account {
    /// Its id.
    pub id: UserId,
    /// The name it is found and mentioned by: lower case, unique.
    pub name: String,
    /// Its e-mail address, shown only to its owner.
    pub email: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How often all its tokens have been ended: a token that was given out for another version is no longer good.
    #[serde(default)]
    pub token_version: i64,
}

impl Account {
    /// An account, as a user store returns it.
    #[must_use]
    pub fn new(id: UserId, name: impl Into<String>, email: Option<String>, created_at: Timestamp) -> Self {
        Self {
            id,
            name: name.into(),
            email,
            created_at,
            token_version: 0,
        }
    }

    /// With this version of its tokens. A new account's is 0.
    #[must_use]
    pub fn with_token_version(mut self, version: i64) -> Self {
        self.token_version = version;
        self
    }
}

/// What a member may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Role {
    /// May also rename, remove members, delete any message, hand the room over and delete it. One per room.
    Owner,
    /// May read, write, invite, stop bots and leave.
    Member,
}

/// A room as its members see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoomInfo {
    /// Its id.
    pub id: RoomId,
    /// Its name, up to 100 characters.
    pub name: String,
    /// Who owns it.
    pub owner: UserId,
    /// Made for several people.
    pub is_group: bool,
    /// Made for one person and a bot: while it has one member every message is an ask.
    pub is_ai_chat: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Their name when they joined.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Everything up to here they have read.
    pub read: Seq,
    /// When that last moved; `None` until they have read something here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_at: Option<Timestamp>,
    /// Since when.
    pub joined_at: Timestamp,
}

/// Who said it: a person, or a bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Author {
    /// The person, if it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<UserId>,
    /// The bot's handle, if it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bot: Option<String>,
    /// The name to show, as it was then.
    pub name: String,
}

impl Author {
    /// A person.
    #[must_use]
    pub fn person(user: UserId, name: impl Into<String>) -> Self {
        Self {
            user: Some(user),
            bot: None,
            name: name.into(),
        }
    }

    /// A bot, by its handle and the name it shows.
    #[must_use]
    pub fn bot(handle: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            user: None,
            bot: Some(handle.into()),
            name: name.into(),
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How far a message has come. What people say is `Done` at once; a bot's answer streams first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MessageStatus {
    /// A bot is still writing it.
    Streaming,
    /// Complete.
    Done,
    /// A person stopped the bot, or a budget was spent; the text up to there is kept.
    Stopped,
    /// The bot failed; the text up to there is kept.
    Failed,
    /// The process died or closed while the bot was writing; the text up to the last checkpoint is kept.
    Interrupted,
}

impl MessageStatus {
    /// The word for it in stores and on wires.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Streaming,
            Self::Done,
            Self::Stopped,
            Self::Failed,
            Self::Interrupted,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }
}

/// Something said in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The room it stands in.
    pub room: RoomId,
    /// Where in the room's log it appeared.
    pub seq: Seq,
    /// Who said it.
    pub author: Author,
    /// What was said, exactly as sent. Empty once deleted.
    pub text: String,
    /// How far it has come.
    pub status: MessageStatus,
    /// Words about why it failed or was cut off, for people. Only with [`Failed`](MessageStatus::Failed) and
    /// [`Stopped`](MessageStatus::Stopped).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The message it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply_to: Option<MessageId>,
    /// What the sending application attached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub meta: Option<Meta>,
    /// The sender's own id for it, by which a resend is recognised.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_id: Option<String>,
    /// When it was said.
    pub created_at: Timestamp,
    /// When it was last changed by its author.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edited_at: Option<Timestamp>,
    /// How often it was changed.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub edits: u32,
    /// When it was deleted; nothing of its content is left then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deleted_at: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Message {
    /// A message as it is when it appears: nothing attached, not edited, not deleted. Stores fill in the rest.
    #[must_use]
    pub fn new(id: MessageId, room: RoomId, seq: Seq, author: Author, text: String, created_at: Timestamp) -> Self {
        Self {
            id,
            room,
            seq,
            author,
            text,
            status: MessageStatus::Done,
            error: None,
            reply_to: None,
            meta: None,
            client_id: None,
            created_at,
            edited_at: None,
            edits: 0,
            deleted_at: None,
        }
    }

    /// Takes everything that was said out of it, as a deletion does.
    pub fn scrub(&mut self, at: Timestamp) {
        self.text.clear();
        self.meta = None;
        self.error = None;
        self.deleted_at = Some(at);
    }
}

/// A JSON object that an application attaches to a message. The engine carries it and never looks inside.
#[derive(Clone, Debug)]
pub struct Meta(Arc<serde_json::value::RawValue>);

impl Meta {
    /// The most bytes of JSON it may have.
    pub const MAX_BYTES: usize = 4 * 1024;

    /// Checks that `json` is one JSON object of at most [`Self::MAX_BYTES`].
    ///
    /// # Errors
    /// `BadRequest` if it is not a JSON object, `TooLarge` if it is over the limit.
    pub fn from_json(json: impl Into<String>) -> Result<Self> {
        let json = json.into();
        if json.len() > Self::MAX_BYTES {
            return Err(Error::too_large("meta may have at most 4 KiB"));
        }
        let raw = serde_json::value::RawValue::from_string(json)
            .map_err(|error| Error::bad_request("meta must be JSON").with_source(error))?;
        if !raw.get().trim_start().starts_with('{') {
            return Err(Error::bad_request("meta must be a JSON object"));
        }
        Ok(Self(raw.into()))
    }

    /// The same from anything that serializes to a JSON object.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn of(value: &impl Serialize) -> Result<Self> {
        let json =
            serde_json::to_string(value).map_err(|error| Error::bad_request("meta must be JSON").with_source(error))?;
        Self::from_json(json)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Meta {}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Meta {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Meta".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "What an application attaches to a message, at most 4 KiB: carried and never looked into"
        })
    }
}

impl Serialize for Meta {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
        Self::from_json(raw.get()).map_err(serde::de::Error::custom)
    }
}

/// How a bot's own work ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finish {
    /// Why it stopped writing.
    pub reason: FinishReason,
    /// The model that wrote, if the bot says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The provider's id for the answer, if the bot says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_id: Option<String>,
}

impl Finish {
    /// The ordinary end: everything was said.
    #[must_use]
    pub fn stop() -> Self {
        Self {
            reason: FinishReason::Stop,
            model: None,
            response_id: None,
        }
    }

    /// The answer was cut at a length limit.
    #[must_use]
    pub fn length() -> Self {
        Self {
            reason: FinishReason::Length,
            model: None,
            response_id: None,
        }
    }
}

/// Why a bot stopped writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FinishReason {
    /// Everything was said.
    Stop,
    /// Cut at a length limit.
    Length,
    /// The provider withheld it, with its word for why.
    Blocked(String),
    /// Anything else, in the provider's word.
    Other(String),
}

/// Where a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TurnStatus {
    /// Waits for earlier turns of the same bot in the same room.
    Queued,
    /// The bot is writing.
    Streaming,
    /// Complete.
    Done,
    /// Ended by a person, or because a budget was spent.
    Stopped,
    /// Ended by an error, or refused.
    Failed,
    /// Its process died or closed.
    Interrupted,
}

impl TurnStatus {
    /// The word for it in stores and on wires.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Queued,
            Self::Streaming,
            Self::Done,
            Self::Stopped,
            Self::Failed,
            Self::Interrupted,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }

    /// Whether a turn in this status is over.
    #[must_use]
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Streaming)
    }

    /// The status of the answer's message, once the answer has one.
    #[must_use]
    pub fn of_message(self) -> MessageStatus {
        match self {
            Self::Queued | Self::Streaming => MessageStatus::Streaming,
            Self::Done => MessageStatus::Done,
            Self::Stopped => MessageStatus::Stopped,
            Self::Failed => MessageStatus::Failed,
            Self::Interrupted => MessageStatus::Interrupted,
        }
    }
}

/// Why a turn failed or was cut off, as far as people may know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TurnError {
    /// A stable word: a bot error's kind, or why an ask was refused (`busy`, `hop_limit`, `budget_exceeded`).
    pub code: String,
    /// Words for people.
    pub words: String,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TurnEnd {
    /// One of the ended statuses.
    pub status: TurnStatus,
    /// The bot's own word, if it had one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish: Option<Finish>,
    /// Who stopped it, if somebody did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<UserId>,
    /// Why it failed or was cut off, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<TurnError>,
    /// What it used, if the bot said or is [metered](crate::BotProfile::metered).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

impl TurnEnd {
    /// An end of this status with nothing more known.
    #[must_use]
    pub fn new(status: TurnStatus) -> Self {
        Self {
            status,
            finish: None,
            by: None,
            error: None,
            usage: None,
        }
    }

    /// Ended by this person.
    #[must_use]
    pub fn stopped(by: UserId) -> Self {
        Self {
            by: Some(by),
            ..Self::new(TurnStatus::Stopped)
        }
    }

    /// Cut off for this reason, by nobody.
    #[must_use]
    pub fn cut(error: TurnError) -> Self {
        Self {
            error: Some(error),
            ..Self::new(TurnStatus::Stopped)
        }
    }

    /// Failed or refused, with a stable word and words for people.
    #[must_use]
    pub fn failed(code: impl Into<String>, words: impl Into<String>) -> Self {
        Self {
            error: Some(TurnError {
                code: code.into(),
                words: words.into(),
            }),
            ..Self::new(TurnStatus::Failed)
        }
    }
}

/// A room in a user's list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoomEntry {
    /// The room.
    #[serde(flatten)]
    pub info: RoomInfo,
    /// The log's life.
    pub epoch: Epoch,
    /// The newest event.
    pub seq: Seq,
    /// What the user may do.
    pub role: Role,
    /// Since when they are in it.
    pub joined_at: Timestamp,
    /// Messages not yet read, answers to one's own asks left out.
    pub unread: u32,
    /// The newest message that is not deleted.
    pub last_message: Option<Arc<Message>>,
}

impl RoomEntry {
    /// An entry, as a store makes it.
    #[must_use]
    pub fn new(
        info: RoomInfo,
        epoch: Epoch,
        seq: Seq,
        role: Role,
        joined_at: Timestamp,
        unread: u32,
        last_message: Option<Arc<Message>>,
    ) -> Self {
        Self {
            info,
            epoch,
            seq,
            role,
            joined_at,
            unread,
            last_message,
        }
    }
}

/// Some messages of a room's history, oldest first. Deleted ones are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Whether there are more in the direction asked for.
    pub more: bool,
    /// How many messages stand before the first of these, deleted ones counted; 0 if there are none, and in what a search
    /// found.
    pub older: u32,
}

impl Page {
    /// A page of the first `limit` of these, which are the newest first.
    pub(crate) fn newest_first(mut messages: Vec<Arc<Message>>, limit: usize) -> Self {
        let more = messages.len() > limit;
        messages.truncate(limit);
        messages.reverse();
        Self {
            messages,
            more,
            older: 0,
        }
    }
}

/// Which part of a room's history to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The newest messages.
    Newest,
    /// The newest messages below this position.
    Before(Seq),
    /// The oldest messages above this position.
    After(Seq),
}

/// The text so far of an answer that is being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapeText {
    /// The answer's message.
    pub message: MessageId,
    /// The number of bytes so far; the next delta begins here.
    pub end: u64,
    /// All of it.
    pub text: Arc<str>,
}

/// Everything a reader needs to show a room, up to and including `seq`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The room.
    pub info: RoomInfo,
    /// The log's life.
    pub epoch: Epoch,
    /// The newest event that is inside.
    pub seq: Seq,
    /// Everybody in it, in the order of joining.
    pub members: Vec<Member>,
    /// The newest messages, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// Turns that have not ended, the oldest first: those that stream, and the queue.
    pub turns: Vec<TurnInfo>,
    /// Answers that are being written.
    pub tapes: Vec<TapeText>,
}

impl Snapshot {
    /// A snapshot as a store reads it: without tapes, which only the live room knows.
    #[must_use]
    pub fn new(
        info: RoomInfo,
        epoch: Epoch,
        seq: Seq,
        members: Vec<Member>,
        messages: Vec<Arc<Message>>,
        turns: Vec<TurnInfo>,
    ) -> Self {
        Self {
            info,
            epoch,
            seq,
            members,
            messages,
            turns,
            tapes: Vec::new(),
        }
    }
}

/// Where an earlier subscription stopped; the next one can take up from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The log's life that `seq` belongs to.
    pub epoch: Epoch,
    /// The newest event that was applied.
    pub seq: Seq,
    /// How many bytes of each unfinished answer are held.
    #[serde(default)]
    pub tapes: BTreeMap<MessageId, u64>,
}

/// One turn, as its room's members may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TurnInfo {
    /// Its id.
    pub id: TurnId,
    /// The room.
    pub room: RoomId,
    /// The bot's handle.
    pub bot: String,
    /// Who asked.
    pub asked_by: UserId,
    /// The message that asked.
    pub ask: MessageId,
    /// Where that message stands: a bot reads nothing later.
    pub ask_seq: Seq,
    /// 1, or more when the same ask is tried again.
    #[serde(default = "first")]
    pub attempt: u32,
    /// The answer, once the turn has started.
    pub message: Option<MessageId>,
    /// Where it stands.
    pub status: TurnStatus,
    /// How it ended, once it has.
    pub end: Option<TurnEnd>,
}

fn first() -> u32 {
    1
}

impl TurnInfo {
    /// A turn that waits.
    #[must_use]
    pub fn queued(
        id: TurnId,
        room: RoomId,
        bot: impl Into<String>,
        asked_by: UserId,
        ask: MessageId,
        ask_seq: Seq,
    ) -> Self {
        let status = TurnStatus::Queued;
        Self {
            id,
            room,
            bot: bot.into(),
            asked_by,
            ask,
            ask_seq,
            attempt: first(),
            message: None,
            status,
            end: None,
        }
    }
}

/// What to say: a text, and what may go with it. A plain `&str` or `String` converts into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// What is said.
    pub text: String,
    /// The sender's own id for it (up to 64 characters): the same id gives the same message, for ever.
    pub client_id: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// What the application attaches.
    pub meta: Option<Meta>,
    /// Whether it asks nobody, whatever it says. No part of what is sent: a resend is the same without it.
    pub asks_nobody: bool,
}

impl Draft {
    /// A draft of this text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// With the sender's own id, which makes resending safe.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// As an answer to this message.
    #[must_use]
    pub fn reply_to(mut self, message: MessageId) -> Self {
        self.reply_to = Some(message);
        self
    }

    /// As something that is only said: no bot is asked, whatever its text and wherever it is said.
    #[must_use]
    pub fn asking_nobody(mut self) -> Self {
        self.asks_nobody = true;
        self
    }

    /// With this attached.
    #[must_use]
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = Some(meta);
        self
    }
}

impl Draft {
    /// A hash of everything that is sent but the `client_id`: whether a resend is the same.
    pub(crate) fn hash(&self) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        // Lengths first, so that no two drafts run together into the same bytes.
        hash.update((self.text.len() as u64).to_le_bytes());
        hash.update(&self.text);
        hash.update(self.reply_to.map_or(0, |id| id.0).to_le_bytes());
        hash.update(self.meta.as_ref().map_or("", Meta::as_json));
        hash.finalize().into()
    }
}

impl<T: Into<String>> From<T> for Draft {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}
