//! Rooms that no engine of ours has kept, in the form of ours.
//!
//! It knows nothing of whoever kept them: what cannot be a room of ours has been made so, or refused, before.

use super::{Archive, HERE, Person};
use crate::error::{Error, Result};
use crate::id::{Epoch, MessageId, Seq, UserId};
use crate::model::{Author, Message, Role, RoomInfo, RoomSettings};
use crate::store::WholeRoom;
use crate::store::plan::{EventKind, EventRow, MemberRow, MessageRow, RoomRow};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A room as another chat kept it: who is in it and what was said. [`Archive::foreign`] makes a room of ours of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoom {
    /// What it is called.
    pub name: String,
    /// The username of one of its members.
    pub owner: String,
    /// Whether it is a group, and not a conversation of two.
    pub is_group: bool,
    /// Whether it was made to talk to a bot.
    pub is_ai_chat: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// In the order of joining.
    pub members: Vec<ForeignMember>,
    /// In the order of being said.
    pub messages: Vec<ForeignMessage>,
}

/// Who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignMember {
    /// The username.
    pub name: String,
    /// Since when.
    pub joined_at: Timestamp,
    /// Until when they have read. Whatever they said themselves they have read, and what a bot said to that.
    pub read_at: Option<Timestamp>,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignMessage {
    /// By whom.
    pub by: Speaker,
    /// The words.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// Which of the messages before it answers, counted from 0. Of a bot's, those without are greetings, which bots do
    /// not read.
    pub reply_to: Option<usize>,
}

/// Who said something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// Somebody of this username, member or not.
    Person(String),
    /// Somebody who was called so and has no account any more: nobody's namesake.
    Former(String),
    /// A bot.
    Bot {
        /// Its handle.
        handle: String,
        /// The name it shows.
        name: String,
    },
}

impl Archive {
    /// Makes a room of ours of a foreign one: its log says that the members joined, and then what was said.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// use coop_core::{Archive, ForeignMember, ForeignMessage, ForeignRoom, Speaker, Timestamp};
    /// let room = ForeignRoom {
    ///     name: "Kitchen".to_owned(),
    ///     owner: "mia".to_owned(),
    ///     is_group: true,
    ///     is_ai_chat: false,
    ///     created_at: Timestamp(0),
    ///     members: vec![ForeignMember { name: "mia".to_owned(), joined_at: Timestamp(0), read_at: None }],
    ///     messages: vec![ForeignMessage {
    ///         by: Speaker::Former("noah".to_owned()),
    ///         text: "Who has the salt?".to_owned(),
    ///         at: Timestamp(60_000),
    ///         reply_to: None,
    ///     }],
    /// };
    /// let made = engine.import_room(Archive::foreign(room)?).await?;
    /// assert_eq!(engine.find_user("mia").await?.room(made.id).await?.entry().await?.unread, 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` or `TooLarge` with what cannot be in a room of ours.
    pub fn foreign(room: ForeignRoom) -> Result<Self> {
        let mut people = People::default();
        people.number(&Speaker::Person(room.owner.clone()));
        let owner = room.owner.clone();
        let is_owner = |member: &ForeignMember| member.name == owner;
        // The owner's is the first event of a log, whenever they came.
        let (mut all, others): (Vec<_>, _) = room.members.into_iter().partition(is_owner);
        all.extend(others);
        let joins = i64::try_from(all.len()).unwrap_or(i64::MAX);

        let mut messages: Vec<MessageRow> = Vec::with_capacity(room.messages.len());
        for (number, said) in (1..).zip(room.messages) {
            let author = match &said.by {
                Speaker::Bot { handle, name } => Author::bot(handle, name),
                speaker @ (Speaker::Person(name) | Speaker::Former(name)) => {
                    Author::person(people.number(speaker), name)
                }
            };
            let seq = Seq(joins + number);
            let mut message = Message::new(MessageId(number), HERE, seq, author, said.text, said.at);
            message.reply_to = match said.reply_to {
                Some(to) => Some(messages.get(to).map(|row| row.message.id).ok_or_else(nothing_before)?),
                None => None,
            };
            messages.push(MessageRow {
                message,
                number,
                body_hash: None,
            });
        }

        let members = (1..).zip(all).map(|(joined, member)| {
            let user = people.number(&Speaker::Person(member.name.clone()));
            let mark = mark(&messages, user, member.read_at);
            let role = match member.name == owner {
                true => Role::Owner,
                false => Role::Member,
            };
            let read = (Seq(joins + mark), mark);
            let mut row = MemberRow::new(user, member.name, role, Seq(joined), read, member.joined_at);
            row.member.read_at = member.read_at;
            row
        });
        let members: Vec<_> = members.collect();

        let said = messages.iter().map(|row| EventRow {
            seq: row.message.seq,
            message: Some(row.message.id),
            ..EventRow::new(EventKind::MessagePosted, row.message.created_at)
        });
        let joined = members.iter().map(|row| EventRow {
            seq: row.joined,
            user: Some(row.member.user),
            by: Some(UserId(1)),
            name: Some(row.member.name.clone()),
            ..EventRow::new(EventKind::MemberJoined, row.member.joined_at)
        });
        let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        let room = WholeRoom {
            room: RoomRow {
                info: RoomInfo {
                    id: HERE,
                    name: room.name,
                    owner: UserId(1),
                    is_group: room.is_group,
                    is_ai_chat: room.is_ai_chat,
                    created_at: room.created_at,
                },
                epoch: Epoch::default(),
                seq: Seq(joins + count),
                number: count,
                members: u32::try_from(members.len()).unwrap_or(u32::MAX),
                settings: Arc::new(RoomSettings::default()),
            },
            events: joined.chain(said).collect(),
            members,
            messages,
            turns: Vec::new(),
            receipts: Vec::new(),
        };
        room.check()?;
        Ok(Self {
            people: people.list,
            room,
        })
    }
}

fn nothing_before() -> Error {
    Error::bad_request("a message answers one that is not before it")
}

/// The number of the last message that somebody has read.
fn mark(messages: &[MessageRow], user: UserId, read_at: Option<Timestamp>) -> i64 {
    let mine = |id: MessageId| {
        let at = usize::try_from(id.0 - 1).ok();
        at.and_then(|at| messages.get(at))
            .is_some_and(|row| row.message.author.user == Some(user))
    };
    let read = messages.iter().rev().find(|row| {
        let message = &row.message;
        let old = read_at.is_some_and(|at| message.created_at <= at);
        old || message.author.user == Some(user) || (message.author.bot.is_some() && message.reply_to.is_some_and(mine))
    });
    read.map_or(0, |row| row.number)
}

/// Everybody who is named, by number. The first is the owner.
#[derive(Default)]
struct People {
    list: Vec<Person>,
    numbers: BTreeMap<Speaker, UserId>,
}

impl People {
    fn number(&mut self, speaker: &Speaker) -> UserId {
        if let Some(number) = self.numbers.get(speaker) {
            return *number;
        }
        let (account, name) = match speaker {
            Speaker::Person(name) => (true, name),
            Speaker::Former(name) | Speaker::Bot { name, .. } => (false, name),
        };
        self.list.push(Person {
            name: name.clone(),
            account,
        });
        let number = UserId(i64::try_from(self.list.len()).unwrap_or(i64::MAX));
        self.numbers.insert(speaker.clone(), number);
        number
    }
}
