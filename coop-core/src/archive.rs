//! A whole room outside of any store, and its form: lines of JSON, in which nothing depends on the database it was in.
//! People are named by their number in it, messages and turns by theirs in the room, so that a room that is exported,
//! imported and exported again gives the same bytes.
//!
//! It decides nothing about who may have a room: whoever calls is the host.

use crate::builder::Engine;
use crate::bus::BusItem;
use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Member, Message, Meta, Receipt, Role, RoomInfo, RoomSettings, TurnEnd, TurnInfo, TurnStatus, Usage,
};
use crate::names;
use crate::store::plan::{EventKind, EventRow, MemberRow, MessageRow, RoomRow, TurnRow};
use crate::store::{Intent, NewAccount, Renaming, RoomStore, Store, UserStore, WholeRoom};
use crate::time::Timestamp;
use crate::writer::submit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

mod foreign;
pub use foreign::{ForeignMember, ForeignMessage, ForeignRoom, Speaker};

/// The form's version.
const VERSION: u32 = 1;
/// How many names are tried for somebody who has no account any more.
const TRIES: u32 = 100;

/// A whole room: its members, messages, turns and its log. [`Display`](fmt::Display) writes it as lines of JSON, and
/// [`parse`](str::parse) reads those.
///
/// In memory as a whole, like the room that is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Number `n` is at `n - 1`.
    people: Vec<Person>,
    room: WholeRoom,
}

/// Somebody who is named in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    /// Whether they have an account. Who has none any more is nobody's namesake.
    account: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Room(RoomLine),
    Person(Person),
    Member(MemberLine),
    Message(MessageLine),
    Turn(TurnLine),
    Event(EventLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomLine {
    version: u32,
    name: String,
    owner: UserId,
    is_group: bool,
    is_ai_chat: bool,
    created_at: Timestamp,
    seq: Seq,
    messages: i64,
    members: u32,
    settings: RoomSettings,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberLine {
    person: UserId,
    name: String,
    role: Role,
    joined: Seq,
    joined_at: Timestamp,
    read: Seq,
    read_at: Option<Timestamp>,
    read_messages: i64,
    discount: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageLine {
    message: Message,
    /// As text: an application's own spelling of JSON may have ends of lines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    meta: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    body_hash: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnLine {
    turn: TurnInfo,
    name: String,
    created_at: Timestamp,
    hop: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    receipt: Option<Receipt>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine {
    seq: Seq,
    kind: String,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    message: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    turn: Option<TurnId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    person: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    by: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name: Option<String>,
    #[serde(skip_serializing_if = "is_zero", default)]
    position: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Within an archive the room has this id.
const HERE: RoomId = RoomId(1);

impl Archive {
    /// A room of a store, as it is at one moment; beside the engine that runs on it, if need be.
    ///
    /// # Errors
    /// As [`Engine::export_room`].
    pub async fn of(store: &dyn Store, room: RoomId) -> Result<Self> {
        read(store, store, room).await
    }

    /// What the room is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.room.room.info.name
    }

    /// How many messages it has, deleted ones included.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.room.messages.len()
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let WholeRoom {
            room,
            members,
            messages,
            turns,
            receipts,
            events,
        } = &self.room;
        let receipts: BTreeMap<_, _> = receipts.iter().map(|(turn, receipt)| (*turn, receipt)).collect();
        let first = Line::Room(RoomLine {
            version: VERSION,
            name: room.info.name.clone(),
            owner: room.info.owner,
            is_group: room.info.is_group,
            is_ai_chat: room.info.is_ai_chat,
            created_at: room.info.created_at,
            seq: room.seq,
            messages: room.number,
            members: room.members,
            settings: RoomSettings::clone(&room.settings),
        });
        let turn = move |row: &TurnRow| {
            Line::Turn(TurnLine {
                turn: row.info.clone(),
                name: row.asker.clone(),
                created_at: row.created_at,
                hop: row.hop,
                usage: row.usage,
                receipt: receipts.get(&row.info.id).map(|receipt| Receipt::clone(receipt)),
            })
        };
        std::iter::once(first)
            .chain(self.people.iter().cloned().map(Line::Person))
            .chain(members.iter().map(member_line))
            .chain(messages.iter().map(message_line))
            .chain(turns.iter().map(turn))
            .chain(events.iter().map(event_line))
    }
}

fn member_line(row: &MemberRow) -> Line {
    let member = &row.member;
    Line::Member(MemberLine {
        person: member.user,
        name: member.name.clone(),
        role: member.role,
        joined: row.joined,
        joined_at: member.joined_at,
        read: member.read,
        read_at: member.read_at,
        read_messages: row.read_number,
        discount: row.discount,
    })
}

fn message_line(row: &MessageRow) -> Line {
    let mut message = row.message.clone();
    let meta = message.meta.take().map(|meta| meta.as_json().to_owned());
    let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Line::Message(MessageLine {
        message,
        meta,
        body_hash: row.body_hash.map(hex),
    })
}

fn event_line(row: &EventRow) -> Line {
    Line::Event(EventLine {
        seq: row.seq,
        kind: row.kind.as_str().to_owned(),
        at: row.at,
        message: row.message,
        turn: row.turn,
        person: row.user,
        by: row.by,
        name: row.name.clone(),
        position: row.position,
    })
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl FromStr for Archive {
    type Err = Error;

    /// # Errors
    /// `BadRequest`, with the line, for what is no archive; `TooLarge` for one of too many members.
    fn from_str(text: &str) -> Result<Self> {
        let mut found: Option<Self> = None;
        for (number, text) in (1..).zip(text.lines()) {
            let wrong = |words: String| Error::bad_request(format!("line {number}: {words}"));
            let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            match (line, &mut found) {
                (Line::Room(line), None) if line.version == VERSION => found = Some(begin(line)),
                (Line::Room(line), None) => return Err(wrong(format!("version {} is not known", line.version))),
                (Line::Room(_), Some(_)) => return Err(wrong("another room begins".to_owned())),
                (_, None) => return Err(wrong("a room is missing before it".to_owned())),
                (line, Some(archive)) => archive.add(line).map_err(|error| wrong(error.words().to_owned()))?,
            }
        }
        let found = found.ok_or_else(|| Error::bad_request("there is no room in it"))?;
        found.room.check()?;
        Ok(found)
    }
}

fn begin(line: RoomLine) -> Archive {
    Archive {
        people: Vec::new(),
        room: WholeRoom {
            room: RoomRow {
                info: RoomInfo {
                    id: HERE,
                    name: line.name,
                    owner: line.owner,
                    is_group: line.is_group,
                    is_ai_chat: line.is_ai_chat,
                    created_at: line.created_at,
                },
                epoch: Epoch::default(),
                seq: line.seq,
                number: line.messages,
                members: line.members,
                settings: Arc::new(line.settings),
            },
            members: Vec::new(),
            messages: Vec::new(),
            turns: Vec::new(),
            receipts: Vec::new(),
            events: Vec::new(),
        },
    }
}

impl Archive {
    fn add(&mut self, line: Line) -> Result<()> {
        let room = &mut self.room;
        match line {
            Line::Room(_) => return Err(Error::internal("a room in a room")),
            Line::Person(person) => self.people.push(person),
            Line::Member(line) => room.members.push(MemberRow {
                member: Member {
                    user: line.person,
                    name: line.name,
                    role: line.role,
                    read: line.read,
                    read_at: line.read_at,
                    joined_at: line.joined_at,
                },
                joined: line.joined,
                read_number: line.read_messages,
                discount: line.discount,
            }),
            Line::Message(line) => {
                let number = i64::try_from(room.messages.len() + 1).unwrap_or(i64::MAX);
                room.messages.push(MessageRow {
                    message: Message {
                        meta: line.meta.map(Meta::from_json).transpose()?,
                        room: HERE,
                        ..line.message
                    },
                    number,
                    body_hash: line.body_hash.as_deref().map(unhex).transpose()?,
                });
            }
            Line::Turn(line) => {
                let receipt = line.receipt.map(|receipt| (line.turn.id, Arc::new(receipt)));
                room.receipts.extend(receipt);
                room.turns.push(TurnRow {
                    info: TurnInfo {
                        room: HERE,
                        ..line.turn
                    },
                    asker: line.name,
                    created_at: line.created_at,
                    hop: line.hop,
                    usage: line.usage,
                });
            }
            Line::Event(line) => {
                let unknown = || Error::bad_request(format!("the event {:?} is not known", line.kind));
                let kind = EventKind::from_word(&line.kind).ok_or_else(unknown)?;
                room.events.push(EventRow {
                    seq: line.seq,
                    kind,
                    message: line.message,
                    turn: line.turn,
                    user: line.person,
                    by: line.by,
                    name: line.name,
                    position: line.position,
                    at: line.at,
                });
            }
        }
        Ok(())
    }
}

fn unhex(text: &str) -> Result<[u8; 32]> {
    let wrong = || Error::bad_request("body_hash must be 64 hexadecimal digits");
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let digit = |byte: &u8| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        }
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or_else(wrong)?;
    bytes.try_into().map_err(|_| wrong())
}

impl Engine {
    /// A whole room as it is at one moment, whoever asks. For the host.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, room| {
    /// room.send("Hello!").await?;
    /// let lines = engine.export_room(room.id()).await?.to_string();
    /// let again = engine.import_room(lines.parse()?).await?;
    /// assert_ne!(again.id, room.id());
    /// assert_eq!(engine.export_room(again.id).await?.to_string(), lines);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` if the store cannot do it, `Unavailable`, `Closed`. Cancel safe.
    pub async fn export_room(&self, room: RoomId) -> Result<Archive> {
        let shared = self.shared();
        shared.check_open()?;
        read(&*shared.rooms, &*shared.users, room).await
    }

    /// Makes a room of an archive, as a new one beside all others. People are those of the same name; who is not here yet
    /// gets an account without a password, made before the room. Answers that were being written end as interrupted.
    ///
    /// # Errors
    /// `BadRequest` if it contradicts itself or names somebody whom nobody can be called, `Conflict` for somebody who is
    /// called as a bot here, `Forbidden` if the store cannot do it, `Unavailable`, `Closed`. Dropping the call means made or
    /// not made.
    pub async fn import_room(&self, archive: Archive) -> Result<RoomInfo> {
        let shared = Arc::clone(self.shared());
        shared.check_open()?;
        let tasks = shared.tasks.clone();
        // In a task of its own: whoever asked may be gone before the others have been told of their new room.
        let made = tasks.spawn(async move { import(&shared, archive).await });
        let failed = |error| Error::internal("the room could not be made").with_source(error);
        made.await.map_err(failed)?
    }
}

async fn read(rooms: &dyn RoomStore, users: &dyn UserStore, room: RoomId) -> Result<Archive> {
    let mut whole = rooms.export(room).await?.ok_or_else(Error::no_such_room)?;
    let mut people = Vec::new();
    let mut numbers = BTreeMap::new();
    for (number, user) in (1..).zip(whole.users()) {
        numbers.insert(user, UserId(number));
        let account = users.user(user).await?;
        people.push(Person {
            account: account.is_some(),
            name: account.map_or_else(|| known_as(&whole, user), |account| account.name),
        });
    }
    let numbered = |row: &MessageRow| (row.message.id, MessageId(row.number));
    whole.rename(&Renaming {
        room: HERE,
        users: numbers,
        messages: whole.messages.iter().map(numbered).collect(),
        turns: whole
            .turns
            .iter()
            .map(|row| row.info.id)
            .zip((1..).map(TurnId))
            .collect(),
    })?;
    Ok(Archive { people, room: whole })
}

async fn import(shared: &Arc<Shared>, archive: Archive) -> Result<RoomInfo> {
    let Archive { people, mut room } = archive;
    room.check()?;
    // Everybody is looked at before anybody is made.
    let bots = shared.bots();
    for person in people.iter().filter(|person| person.account) {
        let is_key = names::fold(&person.name).is_ok_and(|key| key == person.name);
        if bots.get(&person.name).is_some() {
            return Err(Error::conflict(format!("{} is the name of a bot here", person.name)));
        }
        if !is_key || names::check_name(&person.name).is_err() {
            return Err(Error::bad_request(format!("nobody can be called {:?}", person.name)));
        }
    }
    let mut users = BTreeMap::new();
    for (number, person) in (1..).zip(&people) {
        let id = match person.account {
            true => account(shared, &person.name).await?,
            false => nobody(shared).await?,
        };
        if users.values().any(|other| *other == id) {
            return Err(Error::bad_request(format!("{} is there twice", person.name)));
        }
        users.insert(UserId(number), id);
    }
    let same_message = |row: &MessageRow| (row.message.id, row.message.id);
    room.rename(&Renaming {
        room: HERE,
        users,
        messages: room.messages.iter().map(same_message).collect(),
        turns: room.turns.iter().map(|row| (row.info.id, row.info.id)).collect(),
    })?;
    let members: Vec<_> = room.members.iter().map(|row| row.member.user).collect();
    let info = shared.rooms.import(room, shared.now()).await?;
    for user in members {
        shared.readers_of(user).iter().for_each(|reader| reader.gained(info.id));
        shared.publish(|| BusItem::Joined { room: info.id, user });
    }
    for turn in shared.rooms.open_turns(Some(info.id)).await? {
        let intent = Intent::end(turn.id, TurnEnd::new(TurnStatus::Interrupted));
        submit(shared, info.id, intent, Vec::new()).await?;
    }
    Ok(info)
}

/// What somebody is called who has no account any more.
fn known_as(room: &WholeRoom, user: UserId) -> String {
    let mut authors = room.messages.iter().map(|row| &row.message.author);
    let said = authors
        .find(|author| author.user == Some(user))
        .map(|author| &author.name);
    let mut told = room.events.iter().filter(|row| row.user == Some(user));
    let name = said.or_else(|| told.find_map(|row| row.name.as_ref()));
    name.cloned().unwrap_or_default()
}

async fn account(shared: &Shared, name: &str) -> Result<UserId> {
    if let Some(account) = shared.users.user_by_name(name).await? {
        return Ok(account.id);
    }
    Ok(shared.users.create_user(without_password(shared, name)).await?.id)
}

fn without_password(shared: &Shared, name: &str) -> NewAccount {
    NewAccount {
        name: name.to_owned(),
        email: None,
        password: None,
        now: shared.now(),
    }
}

/// An id that is nobody's and never will be anybody's.
async fn nobody(shared: &Shared) -> Result<UserId> {
    for n in 0..TRIES {
        let name = format!("former-{}-{n}", shared.now().0);
        match shared.users.create_user(without_password(shared, &name)).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            made => {
                let id = made?.id;
                shared.users.delete_user(id).await?;
                return Ok(id);
            }
        }
    }
    Err(Error::unavailable("no account could be made"))
}
