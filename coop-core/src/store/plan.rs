//! What a batch of intents does to a room: a pure function from the rows it needs to the rows it makes.
//!
//! A store's commit is, in one transaction: [`Needs::of`] the batch, load those [`Facts`], [`plan`], write the
//! [`Plan`]. Making a room is [`plan_creation`] and writing the [`Creation`]. All rules about who may do what, about
//! duplicates, unread counts and turns are here and nowhere else, so a store with tables of its own cannot get them
//! wrong. This module reads no clock and no database, and draws its ids from the [`Ids`] it is given.

mod intents;
mod overlay;
mod rows;
#[cfg(test)]
mod tests;

pub use rows::{EventKind, EventRow, MemberRow, MessageRow, RoomRow, TurnRow, UsageRow};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Author, Message, Receipt, Role, RoomInfo, RoomSettings, TurnEnd};
use crate::store::{Batch, Committed, Intent, NewRoom, Post};
use crate::time::Day;
use overlay::Overlay;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most members a room may have.
pub const MAX_MEMBERS: u32 = 1_000;

/// The most turns of one bot that may wait in one room. One more is refused as `busy`.
pub const MAX_WAITING: usize = 8;

/// The most hops from bot to bot after what a person said.
pub const MAX_HOPS: u32 = 3;

/// The most turns of bots since a person last spoke. With so many, no bot asks another.
pub const MAX_BOT_TURNS: u32 = 4;

/// Where fresh ids come from. Skipping some is fine; giving one out twice, ever, is not.
pub trait Ids {
    /// An id for a room.
    fn room(&mut self) -> RoomId;
    /// An id for a message.
    fn message(&mut self) -> MessageId;
    /// An id for a turn. Later turns have larger ones: that is the order in which they wait.
    fn turn(&mut self) -> TurnId;
}

/// [`Ids`] for a store that is alone on its tables: the next of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextIds {
    /// The next room.
    pub room: RoomId,
    /// The next message.
    pub message: MessageId,
    /// The next turn.
    pub turn: TurnId,
}

impl Default for NextIds {
    fn default() -> Self {
        Self {
            room: RoomId(1),
            message: MessageId(1),
            turn: TurnId(1),
        }
    }
}

impl Ids for NextIds {
    fn room(&mut self) -> RoomId {
        let next = RoomId(self.room.0 + 1);
        std::mem::replace(&mut self.room, next)
    }

    fn message(&mut self) -> MessageId {
        let next = MessageId(self.message.0 + 1);
        std::mem::replace(&mut self.message, next)
    }

    fn turn(&mut self) -> TurnId {
        let next = TurnId(self.turn.0 + 1);
        std::mem::replace(&mut self.turn, next)
    }
}

/// Which rows a batch must see before it can be decided. Everything is looked for in the batch's room only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The memberships of these users.
    pub users: BTreeSet<UserId>,
    /// The messages with these client ids of these authors, and every turn asked for by such a message.
    pub client_ids: BTreeSet<(UserId, String)>,
    /// These messages, and the turns whose answers they are.
    pub messages: BTreeSet<MessageId>,
    /// Every turn that has not ended.
    pub open_turns: bool,
    /// These turns.
    pub turns: BTreeSet<TurnId>,
    /// The messages that are the answers of these turns.
    pub answers: BTreeSet<TurnId>,
    /// What lies at and above these read marks.
    pub marks: BTreeSet<(UserId, Seq)>,
    /// How many turns there have been since a person last spoke.
    pub turns_since_person: bool,
    /// What was used on this day, in the room and by [`users`](Self::users) and everybody who asked for one of its open
    /// turns.
    pub spent: Option<Day>,
    /// How many fresh ids of messages it takes at most.
    pub new_messages: usize,
    /// How many fresh ids of turns it takes at most.
    pub new_turns: usize,
}

impl Needs {
    /// What this batch needs.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let mut needs = Self::default();
        for intent in &batch.intents {
            needs.add(intent);
        }
        let charges = |intent: &Intent| match intent {
            Intent::Post(post) => post.may_ask() > 0,
            Intent::Checkpoint { usage, .. } => usage.is_some(),
            Intent::StartTurn { .. } | Intent::Retry { .. } => true,
            Intent::EndTurn { asks, .. } => !asks.is_empty(),
            _ => false,
        };
        if batch.budgets.limit_anything() && batch.intents.iter().any(charges) {
            needs.open_turns = true;
            needs.spent = Some(batch.now.day());
        }
        needs
    }

    fn add(&mut self, intent: &Intent) {
        match intent {
            Intent::Post(post) => {
                self.users.insert(post.author);
                self.client_ids
                    .extend(post.client_id.clone().map(|id| (post.author, id)));
                self.messages.extend(post.reply_to);
                let asks = post.may_ask();
                self.open_turns |= asks > 0;
                self.new_messages += 1;
                self.new_turns += asks;
            }
            Intent::Edit { message, by, .. } => {
                self.users.insert(*by);
                self.messages.insert(*message);
            }
            Intent::Delete { message, by } => {
                self.users.insert(*by);
                self.messages.insert(*message);
                self.open_turns = true;
            }
            Intent::Purge { message, .. } => {
                self.messages.insert(*message);
                self.open_turns = true;
            }
            Intent::Invite { user, by, .. } | Intent::Remove { user, by } | Intent::HandOver { to: user, by } => {
                self.users.extend([*user, *by]);
            }
            Intent::Rename { by, .. } | Intent::Configure { by, .. } | Intent::DeleteRoom { by } => {
                self.users.insert(*by);
            }
            Intent::Retry { turn, ask, by, .. } => {
                self.users.insert(*by);
                self.messages.insert(*ask);
                self.turns.insert(*turn);
                self.open_turns = true;
                self.new_turns += 1;
            }
            Intent::StartTurn { .. } => {
                self.open_turns = true;
                self.new_messages += 1;
            }
            Intent::Checkpoint { turn, .. } => {
                self.turns.insert(*turn);
            }
            Intent::EndTurn { turn, asks, .. } => {
                self.turns.insert(*turn);
                self.answers.insert(*turn);
                self.open_turns |= !asks.is_empty();
                self.turns_since_person |= !asks.is_empty();
                self.new_turns += asks.len();
            }
            Intent::Read { user, seq } => {
                self.users.insert(*user);
                self.marks.insert((*user, *seq));
            }
        }
    }
}

impl Post {
    /// How many bots it asks at most.
    fn may_ask(&self) -> usize {
        self.asks.len() + usize::from(self.asks_default || self.asks_if_alone)
    }
}

/// The rows that a batch [`Needs`], as they are in its transaction. Rows beyond those do no harm.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The room, if there is one.
    pub room: Option<RoomRow>,
    /// Memberships.
    pub members: Vec<MemberRow>,
    /// Messages.
    pub messages: Vec<MessageRow>,
    /// Turns.
    pub turns: Vec<TurnRow>,
    /// Read marks.
    pub marks: Vec<Mark>,
    /// How many turns have been admitted at or after what a person last said, those left out that failed or were stopped
    /// before they began.
    pub turns_since_person: u32,
    /// The tokens that were used in the room on the day.
    pub spent_in_room: u64,
    /// The tokens that these users have used on the day, in all rooms.
    pub spent_by: BTreeMap<UserId, u64>,
    /// Those of the turns that another engine runs, or has admitted, and that is alive: their text and their end are
    /// its own. None where only one engine writes.
    pub elsewhere: BTreeSet<TurnId>,
}

impl Facts {
    /// Takes what was used, in the room or by a user, as a database sums it up.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(in crate::store) fn spend(&mut self, by: Option<UserId>, tokens: i64) {
        let tokens = u64::try_from(tokens).unwrap_or(0);
        match by {
            Some(user) => drop(self.spent_by.insert(user, tokens)),
            None => self.spent_in_room = tokens,
        }
    }
}

/// What lies at and above a position, for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whom it is about.
    pub user: UserId,
    /// The position.
    pub seq: Seq,
    /// The number of the last message at or below it, 0 if there is none.
    pub number: i64,
    /// How many messages above that number are deleted or answers to an ask of this user.
    pub quiet: i64,
}

/// One message that does not count as unread: one is added to the discount of the members who have it above their
/// mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discount {
    /// The message's number: members whose `read_number` is lower are meant.
    pub number: i64,
    /// Only this one of them.
    pub only: Option<UserId>,
    /// All but this one.
    pub except: Option<UserId>,
}

impl Discount {
    /// Whether this member's discount grows by one.
    #[must_use]
    pub fn applies_to(&self, row: &MemberRow) -> bool {
        self.means(row.member.user) && row.read_number < self.number
    }

    fn means(&self, user: UserId) -> bool {
        self.only.is_none_or(|only| only == user) && self.except != Some(user)
    }
}

/// What is written to the room's own row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomChange {
    /// Nothing.
    Keep,
    /// This.
    Write(RoomRow),
    /// The room goes, with everything in it. Nothing else of the plan needs to be written.
    Delete,
}

/// The rows that a batch makes, to be written in this order, and what to answer once they are durable.
#[derive(Debug)]
pub struct Plan {
    /// The room.
    pub room: RoomChange,
    /// New messages.
    pub inserted: Vec<MessageRow>,
    /// Changed messages: text, status, error, meta, the times of change and their number.
    pub updated: Vec<MessageRow>,
    /// Texts of messages that are being written.
    pub checkpoints: Vec<(MessageId, Arc<str>)>,
    /// What is added to the discounts of members, **before** [`members`](Self::members) are written.
    pub discounts: Vec<Discount>,
    /// New and changed members, whole.
    pub members: Vec<MemberRow>,
    /// Members no more.
    pub removed: Vec<UserId>,
    /// New and changed turns, whole.
    pub turns: Vec<TurnRow>,
    /// What the owner has set, if that changes.
    pub settings: Option<Arc<RoomSettings>>,
    /// What the bots of turns have read.
    pub receipts: Vec<(TurnId, Arc<Receipt>)>,
    /// Tokens that were used.
    pub usage: Vec<UsageRow>,
    /// Turns that another engine may run, and the end it is asked for.
    pub stops: Vec<(TurnId, TurnEnd)>,
    /// New events.
    pub events: Vec<EventRow>,
    /// What to answer.
    pub committed: Committed,
}

impl Plan {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.room == RoomChange::Keep
            && self.checkpoints.is_empty()
            && self.updated.is_empty()
            && self.discounts.is_empty()
            && self.members.is_empty()
            && self.turns.is_empty()
            && self.settings.is_none()
            && self.receipts.is_empty()
            && self.stops.is_empty()
    }
}

/// Decides a batch: walks its intents in order, each over what those before it did.
pub fn plan(facts: Facts, batch: Batch, ids: &mut dyn Ids) -> Plan {
    let mut overlay = Overlay::new(facts, (batch.now, batch.budgets, batch.most_members), ids);
    let outcomes = batch.intents.into_iter().map(|intent| overlay.apply(intent)).collect();
    overlay.into_plan(outcomes)
}

/// The rows of a new room.
#[derive(Debug)]
pub struct Creation {
    /// The room.
    pub room: RoomRow,
    /// Its members.
    pub members: Vec<MemberRow>,
    /// The greeting, if it has one.
    pub message: Option<MessageRow>,
    /// Its first events.
    pub events: Vec<EventRow>,
    /// The same as they are answered.
    pub committed: Vec<Arc<Event>>,
}

/// Decides a new room.
///
/// # Errors
/// `TooLarge` if it would have more than [`MAX_MEMBERS`].
pub fn plan_creation(new: NewRoom, ids: &mut dyn Ids) -> Result<Creation> {
    let members = u32::try_from(new.members.len() + 1).unwrap_or(u32::MAX);
    if members > MAX_MEMBERS {
        return Err(too_many_members(MAX_MEMBERS));
    }
    let info = RoomInfo {
        id: ids.room(),
        name: new.name,
        owner: new.owner.0,
        is_group: new.is_group,
        is_ai_chat: new.is_ai_chat,
        created_at: new.now,
    };
    let greeting = new.greeting.map(|greeting| {
        let author = Author::bot(greeting.bot, greeting.name);
        let seq = Seq(i64::from(members) + 1);
        MessageRow {
            message: Message::new(ids.message(), info.id, seq, author, greeting.text, new.now),
            number: 1,
            body_hash: None,
        }
    });
    let room = RoomRow {
        // A log that begins at another moment is another log, also if a lost database is begun anew and counts its
        // rooms from 1 again.
        epoch: Epoch(new.now.0),
        seq: Seq(i64::from(members) + i64::from(greeting.is_some())),
        number: i64::from(greeting.is_some()),
        members,
        settings: Arc::default(),
        info,
    };
    let everybody = std::iter::once((new.owner, Role::Owner)).chain(new.members.into_iter().map(|m| (m, Role::Member)));
    let members: Vec<_> = (1..)
        .map(Seq)
        .zip(everybody)
        .map(|(joined, ((user, name), role))| {
            MemberRow::new(user, name, role, joined, (room.seq, room.number), new.now)
        })
        .collect();
    let events = first_events(&room, &members, greeting.as_ref());
    let message = greeting.as_ref().map(|row| Arc::new(row.message.clone()));
    let committed = events
        .iter()
        .map(|row| Ok(Arc::new(row.event(&room.info, message.as_ref(), None)?)))
        .collect::<Result<_>>()?;
    Ok(Creation {
        room,
        members,
        message: greeting,
        events,
        committed,
    })
}

fn first_events(room: &RoomRow, members: &[MemberRow], greeting: Option<&MessageRow>) -> Vec<EventRow> {
    let now = room.info.created_at;
    let joined = members.iter().map(|row| EventRow {
        seq: row.joined,
        user: Some(row.member.user),
        by: Some(room.info.owner),
        name: Some(row.member.name.clone()),
        ..EventRow::new(EventKind::MemberJoined, now)
    });
    let posted = greeting.map(|row| EventRow {
        seq: row.message.seq,
        message: Some(row.message.id),
        ..EventRow::new(EventKind::MessagePosted, now)
    });
    joined.chain(posted).collect()
}

/// A room has as many members as it may.
fn too_many_members(most: u32) -> Error {
    Error::too_large(format!("a room may have at most {most} members"))
}
