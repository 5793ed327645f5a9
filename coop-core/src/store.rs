//! What the engine asks of a database, in two traits: [`UserStore`] and [`RoomStore`].
//!
//! A commit is three steps: load the [`plan::Facts`] that a batch of intents needs, let the pure function
//! [`plan::plan`] decide what survives and what rows that makes, write those rows. Every store does the first and the
//! last in one transaction of its own; the decision is the same code for all of them.
//!
//! This module knows no SQL, no readers and no bots.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Account, Budgets, Member, Message, Meta, Page, Range, Receipt, RoomEntry, RoomInfo, RoomSettings, Snapshot,
    TurnEnd, TurnError, TurnInfo, Usage, UsageFilter, UsageSum,
};
use crate::search;
use crate::time::Timestamp;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod connect;
pub mod memory;
pub mod plan;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod whole;

pub use whole::{Renaming, WholeRoom};

/// Where people come from. An application that has its own users implements this (looking up by id and by name is
/// enough) and keeps one of our room stores.
#[async_trait]
pub trait UserStore: Send + Sync + 'static {
    /// The account of this id.
    async fn user(&self, id: UserId) -> Result<Option<Account>>;

    /// The account of this name (already folded to lower case).
    async fn user_by_name(&self, name: &str) -> Result<Option<Account>>;

    /// Makes an account. A store whose users come from elsewhere refuses with `Forbidden`.
    ///
    /// # Errors
    /// `Conflict` if the name or the e-mail address is taken; the words say which.
    async fn create_user(&self, new: NewAccount) -> Result<Account>;

    /// The account of this name and its password hash, for logging in.
    async fn credentials(&self, _name: &str) -> Result<Option<(Account, String)>> {
        Ok(None)
    }

    /// Replaces a password by another, of this hash, and with it [ends all tokens](Self::end_tokens): whoever knew the
    /// old one is out.
    async fn set_password(&self, _id: UserId, _hash: &str) -> Result<()> {
        Err(Error::forbidden("passwords are kept elsewhere"))
    }

    /// Replaces the hash of a password by another of the same password, if it is still `from`. Tokens stay.
    async fn rehash(&self, _id: UserId, _from: &str, _to: &str) -> Result<()> {
        Ok(())
    }

    /// Raises the account's [token version](Account::token_version) by one.
    ///
    /// # Errors
    /// `NotFound` if there is nobody of this id.
    async fn end_tokens(&self, _id: UserId) -> Result<()> {
        Err(Error::forbidden("tokens are kept elsewhere"))
    }

    /// Removes an account with all that is kept of it. Its id never comes back; its name and address may. Memberships
    /// and messages are the room store's and stay.
    ///
    /// # Errors
    /// `NotFound` if there is nobody of this id.
    async fn delete_user(&self, _id: UserId) -> Result<()> {
        Err(Error::forbidden("accounts are kept elsewhere"))
    }

    /// Up to `limit` accounts whose name contains `text` (folded; its characters stand for themselves), without
    /// `except`, in the order of their names.
    async fn search(&self, _text: &str, _limit: u32, _except: UserId) -> Result<Vec<Account>> {
        Ok(Vec::new())
    }
}

/// An account to be made. The engine has checked name, address and password already.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its name, folded.
    pub name: String,
    /// Its address, its case kept. Unique by its lower-case form.
    pub email: Option<String>,
    /// The hash of its password as a PHC string; without one nobody can log in.
    pub password: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// Where rooms live: their log, messages, members and turns.
///
/// Within one room commits are in one order and the log has no holes. All that a commit makes becomes visible to
/// reads at once or not at all, and before `commit` returns `Ok` it is durable.
#[async_trait]
pub trait RoomStore: Send + Sync + 'static {
    /// Applies a batch of intents of one room, in order, in one transaction. Only the room's writer calls this.
    ///
    /// An intent that may not happen fails alone, in its outcome; the others of the batch are not touched.
    ///
    /// # Errors
    /// `Unavailable` if nothing was written **or the outcome is in doubt**; the caller reads the room again. For a
    /// room that does not exist every outcome is `NotFound`.
    async fn commit(&self, batch: Batch) -> Result<Committed>;

    /// Makes a room. Its log begins with one `MemberJoined` for each member, the owner first.
    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)>;

    /// A room and the newest position of its log.
    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>>;

    /// Somebody's membership.
    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>>;

    /// Everybody in a room, in the order of joining. Empty if there is no such room.
    async fn members(&self, room: RoomId) -> Result<Vec<Member>>;

    /// A user's rooms in one query, newest activity (last message, else creation) first; only one of them if `only`
    /// says so.
    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>>;

    /// Up to `limit` events after a position, in order. Each carries its message as it is now.
    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>>;

    /// Part of the history: messages that are not deleted, oldest first.
    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page>;

    /// Messages that [have all these words](crate::search::finds), oldest first: the newest of them, or the newest below
    /// `before`. `words` is not empty. A store without an index for them reads the history, as this does unless it is
    /// replaced.
    async fn find(&self, room: RoomId, words: &[String], before: Option<Seq>, limit: u32) -> Result<Page> {
        const PAGE: u32 = 200;
        let limit = limit as usize;
        let mut found = Vec::new();
        let mut range = before.map_or(Range::Newest, Range::Before);
        loop {
            let page = self.history(room, range, PAGE).await?;
            let fits = |message: &&Arc<Message>| search::finds(words, message);
            found.extend(page.messages.iter().rev().filter(fits).cloned());
            match page.messages.first() {
                Some(first) if page.more && found.len() <= limit => range = Range::Before(first.seq),
                _ => break,
            }
        }
        Ok(Page::newest_first(found, limit))
    }

    /// A room, its members, newest `limit` messages and open turns, as of one position (one transaction).
    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>>;

    /// One message, also a deleted one.
    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>>;

    /// One turn.
    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>>;

    /// The turn whose answer is this message.
    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>>;

    /// Every turn that has not ended, oldest first; of one room if `only` says so.
    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>>;

    /// What the bot had read whose answer is this message, if that is kept.
    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>>;

    /// Up to `limit` messages that this person has written and that are not deleted, in all rooms, those they have left
    /// included, in the order of their ids above `after`. For deleting them all: it may read every message there is.
    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>>;

    /// The sum of the tokens that were used.
    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum>;

    /// All rows of a room, as of one moment.
    ///
    /// # Errors
    /// `Forbidden` from a store that cannot do it, as this does unless it is replaced.
    async fn export(&self, _room: RoomId) -> Result<Option<WholeRoom>> {
        Err(Error::forbidden("this store exports no rooms"))
    }

    /// Makes a room of these rows, [renumbered](WholeRoom::renumber), whole or not at all. Its users are those of this
    /// store; all else was [checked](WholeRoom::check).
    ///
    /// # Errors
    /// `Forbidden` from a store that cannot do it, as this does unless it is replaced.
    async fn import(&self, _room: WholeRoom, _now: Timestamp) -> Result<RoomInfo> {
        Err(Error::forbidden("this store imports no rooms"))
    }

    /// What is known of the other engines that use this store at the same time; nothing if one engine has it alone.
    fn others(&self) -> Option<&dyn Others> {
        None
    }

    /// Waits for what is being written and lets go of the database. Later calls fail with `Closed`.
    async fn close(&self);
}

/// How long an engine that cannot renew its lease is taken to be alive, by the store's clock.
pub const LEASE: Duration = Duration::from_secs(10);

/// The half of a [`RoomStore`] that several engines use at once. Each has a lease on its turns: those that it admitted
/// and that wait, and those that it has started. Whoever ends a turn of an engine whose lease holds only asks that engine
/// to (see [`plan::Facts::elsewhere`]).
#[async_trait]
pub trait Others: Send + Sync {
    /// A name of this store that no other has, of letters, digits and dashes: engines on it find each other by it.
    async fn identity(&self) -> Result<String>;

    /// Where a look begins that sees all that is not visible yet.
    async fn now(&self) -> Result<Look>;

    /// What has become visible since a look, whoever did it. Some of it may have been seen before; nothing is missed,
    /// however long a transaction took to commit.
    async fn changes(&self, since: Look) -> Result<Changes>;

    /// Renews this engine's lease for [`LEASE`] from now.
    async fn renew(&self) -> Result<()>;

    /// Every turn that has not ended, and whose it is.
    async fn open_turns(&self) -> Result<Vec<OpenTurn>>;

    /// Whether this engine has admitted or started this turn, and nobody has started it after that.
    async fn is_mine(&self, turn: TurnId) -> Result<bool>;
}

/// A moment between transactions, of meaning to its store alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look(pub i64);

/// What a look finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Where the next look begins.
    pub next: Look,
    /// Rooms with new events, and the newest of each.
    pub rooms: Vec<(RoomId, Seq)>,
    /// Who has become a member of which room.
    pub joined: Vec<(RoomId, UserId)>,
    /// Who has left which room, or was removed from it.
    pub left: Vec<Left>,
    /// Rooms that were deleted.
    pub gone: Vec<RoomId>,
    /// Users whose tokens have ended, if the store keeps users.
    pub tokens_ended: Vec<UserId>,
}

/// Somebody who has left a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The room.
    pub room: RoomId,
    /// Who has left it.
    pub user: UserId,
    /// The event.
    pub seq: Seq,
    /// Who did it: the same, if of their own accord.
    pub by: UserId,
}

/// A turn that has not ended.
#[derive(Clone, Debug)]
pub struct OpenTurn {
    /// The turn.
    pub info: TurnInfo,
    /// Whose it is.
    pub whose: Whose,
    /// How another engine asks its owner to end it.
    pub stop: Option<TurnEnd>,
}

/// Whose a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This engine's.
    Mine,
    /// Another's, whose lease holds.
    Anothers,
    /// Of an engine whose lease has ended: whoever finds it ends it.
    Nobodys,
}

/// A step of a database's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaStep {
    /// Its number. Steps are taken in this order.
    pub version: i64,
    /// What it is about, in a word or a few.
    pub description: String,
    /// Whether it has been taken.
    pub applied: bool,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl SchemaStep {
    /// All steps; `None` if some were applied that are unknown here.
    fn all(known: &sqlx::migrate::Migrator, applied: &[i64]) -> Option<Vec<Self>> {
        let steps = known.iter().map(|step| Self {
            version: step.version,
            description: step.description.to_string(),
            applied: applied.contains(&step.version),
        });
        let steps: Vec<_> = steps.collect();
        let is_known = |version: &i64| steps.iter().any(|step| step.version == *version);
        applied.iter().all(is_known).then_some(steps)
    }
}

/// Both halves, as our own stores are.
pub trait Store: RoomStore + UserStore {}

impl<T: RoomStore + UserStore> Store for T {}

/// A room and where its log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomHead {
    /// The room.
    pub info: RoomInfo,
    /// Which life of the log.
    pub epoch: crate::id::Epoch,
    /// Its newest event.
    pub seq: Seq,
    /// How many members it has.
    pub members: u32,
    /// What its owner has set.
    pub settings: Arc<RoomSettings>,
}

/// A room to be made.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// Its name, checked.
    pub name: String,
    /// Its owner and their name.
    pub owner: (UserId, String),
    /// Others who are in it from the start, without the owner and without repeats.
    pub members: Vec<(UserId, String)>,
    /// Made for several people.
    pub is_group: bool,
    /// Made for one person and a bot.
    pub is_ai_chat: bool,
    /// A first message, said by a bot without being asked: its handle, its name, the text. It counts as read, and it
    /// belongs to no turn.
    pub greeting: Option<Greeting>,
    /// Now.
    pub now: Timestamp,
}

/// A bot's first words in a new AI chat.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The bot's handle.
    pub bot: String,
    /// The name it shows.
    pub name: String,
    /// The words.
    pub text: String,
}

/// What a room's writer wants to happen, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The room.
    pub room: RoomId,
    /// Now.
    pub now: Timestamp,
    /// How many tokens may be used.
    pub budgets: Budgets,
    /// How many members the room may have.
    pub most_members: u32,
    /// What is to happen.
    pub intents: Vec<Intent>,
}

impl Batch {
    /// A batch without budgets, of a room that may have as many members as any.
    #[must_use]
    pub fn new(room: RoomId, now: Timestamp, intents: Vec<Intent>) -> Self {
        Self {
            room,
            now,
            budgets: Budgets::default(),
            most_members: plan::MAX_MEMBERS,
            intents,
        }
    }
}

/// One thing that is to happen in a room. Whoever acts must be a member, or it fails with `NotFound` ("no such room").
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Intent {
    /// Say something, and perhaps ask bots.
    Post(Post),
    /// Change one's own message. Only its text; whoever else tries gets `Forbidden`, a deleted or unknown one is
    /// `NotFound`, a bot's answer is `Forbidden`.
    Edit {
        /// Which.
        message: MessageId,
        /// Who.
        by: UserId,
        /// The new text.
        text: String,
    },
    /// Delete a message: its author, or the owner any. A streaming one is `Conflict` (the engine stops it first). A
    /// turn that waits because of it ends as stopped. Deleting twice is no error and makes no event.
    Delete {
        /// Which.
        message: MessageId,
        /// Who.
        by: UserId,
    },
    /// Delete a message of somebody whose account goes, whether or not they are still a member. Deleting twice is no error
    /// and makes no event; a message that is not theirs is `NotFound`.
    Purge {
        /// Which.
        message: MessageId,
        /// Its author.
        author: UserId,
    },
    /// Make somebody a member; a member may. Inviting a member again is no error and makes no event. At most
    /// [`plan::MAX_MEMBERS`], then `TooLarge`.
    Invite {
        /// Whom.
        user: UserId,
        /// Their name.
        name: String,
        /// Who.
        by: UserId,
    },
    /// Take somebody's membership away: oneself (an owner may not leave: `Conflict`), or anyone if one is the owner
    /// (else `Forbidden`). Somebody who is no member is `NotFound`.
    Remove {
        /// Whom.
        user: UserId,
        /// Who.
        by: UserId,
    },
    /// Give the room another name. The owner may.
    Rename {
        /// The name.
        name: String,
        /// Who.
        by: UserId,
    },
    /// Set how bots are asked and governed. The owner may.
    Configure {
        /// All of it.
        settings: Arc<RoomSettings>,
        /// Who.
        by: UserId,
    },
    /// Make another member the owner. The owner may. A non-member is `NotFound`.
    HandOver {
        /// To whom.
        to: UserId,
        /// Who.
        by: UserId,
    },
    /// Delete the room with everything in it. The owner may. Its id never comes back. No event, and no turn's end is
    /// owed; intents after it in the batch find no room.
    DeleteRoom {
        /// Who.
        by: UserId,
    },
    /// Ask the same again: a new turn of the same bot, for the one who wants it. A member may. If one for that ask is
    /// under way already, that is the outcome. `NotFound` if the ask is deleted.
    Retry {
        /// The turn that is tried again.
        turn: TurnId,
        /// The message that asked for it.
        ask: MessageId,
        /// Who.
        by: UserId,
        /// Their name.
        name: String,
    },
    /// Start the oldest waiting turn of this bot, if none of this bot is streaming here. Those that no budget is left for
    /// are refused first. Otherwise nothing happens.
    StartTurn {
        /// The bot's handle.
        bot: String,
        /// The name its message shows.
        name: String,
    },
    /// Keep the text so far of a turn that is streaming, and charge what it has used. No event; of no effect on a turn that
    /// is not streaming.
    Checkpoint {
        /// The turn.
        turn: TurnId,
        /// All of its text.
        text: Arc<str>,
        /// The tokens it has used so far.
        usage: Option<Usage>,
        /// What its bot has read, if that is not kept yet.
        receipt: Option<Arc<Receipt>>,
    },
    /// End a turn that has not ended. `text` is all that was written (`None` keeps the last checkpoint). Of no effect
    /// on a turn that has ended.
    EndTurn {
        /// The turn.
        turn: TurnId,
        /// How.
        end: TurnEnd,
        /// The whole answer.
        text: Option<Arc<str>>,
        /// What its bot has read, if that is not kept yet.
        receipt: Option<Arc<Receipt>>,
        /// Other bots that the answer names, without repeats. They are asked if the turn ends as done, the room allows it and
        /// people have not been silent for too long.
        asks: Vec<String>,
    },
    /// Move a member's read mark forward to this position (or the head, if that is lower). Never back. No event.
    Read {
        /// Whose.
        user: UserId,
        /// Up to and including.
        seq: Seq,
    },
}

impl Intent {
    /// Ends a turn from outside: its text is what is kept, and it asks nobody.
    #[must_use]
    pub fn end(turn: TurnId, end: TurnEnd) -> Self {
        Self::EndTurn {
            turn,
            end,
            text: None,
            receipt: None,
            asks: Vec::new(),
        }
    }
}

/// Something to be said.
#[derive(Clone, Debug)]
pub struct Post {
    /// Who says it.
    pub author: UserId,
    /// Their name.
    pub name: String,
    /// The sender's own id for it.
    pub client_id: Option<String>,
    /// A hash of what was sent (text, `reply_to`, meta), which decides whether a resend is the same.
    pub body_hash: [u8; 32],
    /// The text, exactly as sent.
    pub text: String,
    /// The message it answers; it must be in this room, else `NotFound`.
    pub reply_to: Option<MessageId>,
    /// What the application attaches.
    pub meta: Option<Meta>,
    /// The bots it asks by name (handles), without repeats.
    pub asks: Vec<String>,
    /// Whether it asks the room's default bot, before those.
    pub asks_default: bool,
    /// Whether it asks the default bot if the room is an AI chat with one member and it asks nobody else.
    pub asks_if_alone: bool,
    /// The handles of all bots. The first is the default where the room has none of its own, or one that is not among them.
    pub bots: Arc<[String]>,
}

/// What a commit has done.
#[derive(Debug)]
pub struct Committed {
    /// The log's newest position now.
    pub seq: Seq,
    /// The events it made, in order and without holes, up to `seq`.
    pub events: Vec<Arc<Event>>,
    /// What became of each intent, in the batch's order.
    pub outcomes: Vec<Result<Outcome>>,
    /// Turns that stream and are to be ended by the engine that runs them, and how.
    pub stops: Vec<(TurnId, TurnEnd)>,
}

/// What became of an intent that was allowed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Said. With `duplicate` it had been said before, and `message` and `turns` are those of then, as they are now.
    Posted {
        /// The message.
        message: Arc<Message>,
        /// One turn for each bot asked, admitted or refused.
        turns: Vec<TurnInfo>,
        /// Whether this `client_id` had been used with the same body.
        duplicate: bool,
    },
    /// Changed.
    Edited(Arc<Message>),
    /// Done, or there was nothing to do.
    Done,
    /// A turn started; this is its state, its message included.
    Started {
        /// The turn.
        turn: TurnInfo,
        /// Who asked, by name.
        asked_by: String,
    },
    /// A turn, admitted or refused, or the one that was under way already.
    Asked(TurnInfo),
    /// What became of a checkpoint.
    Checkpointed {
        /// Whether the turn was streaming and its text was kept.
        kept: bool,
        /// Why it must not go on, if it must not.
        cut: Option<TurnError>,
    },
    /// The turn as it is after its end; `now` tells whether this intent ended it.
    Ended {
        /// The turn.
        turn: TurnInfo,
        /// Whether it was this intent that ended it.
        now: bool,
    },
    /// A read mark, as it stands now.
    Read {
        /// Whose.
        user: UserId,
        /// Their name.
        name: String,
        /// Up to here.
        seq: Seq,
        /// Whether it moved.
        moved: bool,
    },
}
