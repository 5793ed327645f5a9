//! Our rows out of a database's: which columns, in which order, and what their words mean.

use super::Reads;
use crate::error::{Error, Result};
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Account, Author, Member, Message, MessageStatus, Meta, Role, RoomInfo, TurnInfo, TurnStatus};
use crate::store::plan::{EventKind, EventRow, MemberRow, MessageRow, RoomRow, TurnRow};
use crate::time::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use std::sync::Arc;

/// The columns of each kind of row, in the order in which the functions below take them.
macro_rules! columns {
    (room) => {
        "c.id, c.name, c.owner_id, c.is_group, c.is_ai_chat, c.created_at, c.epoch, c.last_seq, c.last_number, \
         c.member_count, c.settings"
    };
    (member) => {
        "p.user_id, p.username, p.role, p.joined_at, p.joined_seq, p.read_seq, p.read_number, p.discount, \
         p.read_at"
    };
    (message) => {
        "m.id, m.chat_id, m.number, m.seq, m.user_id, m.bot, m.author_name, m.content, m.status, m.error, m.reply_to, \
         m.meta, m.client_id, m.body_hash, m.created_at, m.edited_at, m.deleted_at, m.edits"
    };
    (turn) => {
        "t.id, t.chat_id, t.bot, t.asked_by, t.asker_name, t.ask_id, t.ask_seq, t.message_id, t.status, t.ending, \
         t.created_at, t.attempt, t.hop, t.tokens"
    };
    (event) => {
        "e.seq, e.kind, e.message_id, e.turn_id, e.user_id, e.by_id, e.name, e.position, e.created_at"
    };
    (account) => {
        "u.id, u.username, u.email, u.created_at, u.token_version"
    };
}
pub(in crate::store) use columns;

/// How many columns each kind of row has.
pub(in crate::store) mod width {
    pub(in crate::store) const ROOM: usize = 11;
    pub(in crate::store) const MEMBER: usize = 9;
    pub(in crate::store) const MESSAGE: usize = 18;
    pub(in crate::store) const TURN: usize = 14;
    pub(in crate::store) const EVENT: usize = 9;
    pub(in crate::store) const ACCOUNT: usize = 5;
}

impl<DB> Reads<DB>
where
    DB: Database,
    usize: ColumnIndex<DB::Row>,
    i64: Type<DB> + for<'r> Decode<'r, DB>,
    String: Type<DB> + for<'r> Decode<'r, DB>,
    Vec<u8>: Type<DB> + for<'r> Decode<'r, DB>,
    bool: Type<DB> + for<'r> Decode<'r, DB>,
{
    /// The message whose columns begin at `at`, if an outer join found one.
    pub(super) fn maybe_message(row: &DB::Row, at: usize) -> Result<Option<Arc<Message>>> {
        match get::<Option<i64>, DB>(row, at)? {
            Some(_) => Ok(Some(Arc::new(Self::message_row(row, at)?.message))),
            None => Ok(None),
        }
    }

    pub(in crate::store) fn room_row(row: &DB::Row, at: usize) -> Result<RoomRow> {
        let settings: Option<String> = get::<_, DB>(row, at + 10)?;
        Ok(RoomRow {
            settings: settings.map_or_else(|| Ok(Arc::default()), |json| read_json(&json))?,
            info: RoomInfo {
                id: RoomId(get::<_, DB>(row, at)?),
                name: get::<_, DB>(row, at + 1)?,
                owner: UserId(get::<_, DB>(row, at + 2)?),
                is_group: get::<_, DB>(row, at + 3)?,
                is_ai_chat: get::<_, DB>(row, at + 4)?,
                created_at: Timestamp(get::<_, DB>(row, at + 5)?),
            },
            epoch: Epoch(get::<_, DB>(row, at + 6)?),
            seq: Seq(get::<_, DB>(row, at + 7)?),
            number: get::<_, DB>(row, at + 8)?,
            members: u32::try_from(get::<i64, DB>(row, at + 9)?).map_err(broken)?,
        })
    }

    pub(in crate::store) fn member_row(row: &DB::Row, at: usize) -> Result<MemberRow> {
        let role: String = get::<_, DB>(row, at + 2)?;
        Ok(MemberRow {
            member: Member {
                user: UserId(get::<_, DB>(row, at)?),
                name: get::<_, DB>(row, at + 1)?,
                role: role_of(&role).ok_or_else(|| unknown(&role))?,
                joined_at: Timestamp(get::<_, DB>(row, at + 3)?),
                read: Seq(get::<_, DB>(row, at + 5)?),
                read_at: get::<Option<i64>, DB>(row, at + 8)?.map(Timestamp),
            },
            joined: Seq(get::<_, DB>(row, at + 4)?),
            read_number: get::<_, DB>(row, at + 6)?,
            discount: get::<_, DB>(row, at + 7)?,
        })
    }

    pub(in crate::store) fn message_row(row: &DB::Row, at: usize) -> Result<MessageRow> {
        let author = Author {
            user: get::<Option<i64>, DB>(row, at + 4)?.map(UserId),
            bot: get::<_, DB>(row, at + 5)?,
            name: get::<_, DB>(row, at + 6)?,
        };
        let status: String = get::<_, DB>(row, at + 8)?;
        let meta: Option<String> = get::<_, DB>(row, at + 11)?;
        let hash: Option<Vec<u8>> = get::<_, DB>(row, at + 13)?;
        let created_at = Timestamp(get::<_, DB>(row, at + 14)?);
        let (id, room, seq) = (
            get::<_, DB>(row, at)?,
            get::<_, DB>(row, at + 1)?,
            get::<_, DB>(row, at + 3)?,
        );
        let text = get::<_, DB>(row, at + 7)?;
        Ok(MessageRow {
            message: Message {
                status: MessageStatus::from_word(&status).ok_or_else(|| unknown(&status))?,
                error: get::<_, DB>(row, at + 9)?,
                reply_to: get::<Option<i64>, DB>(row, at + 10)?.map(MessageId),
                meta: meta.map(Meta::from_json).transpose().map_err(broken)?,
                client_id: get::<_, DB>(row, at + 12)?,
                edited_at: get::<Option<i64>, DB>(row, at + 15)?.map(Timestamp),
                deleted_at: get::<Option<i64>, DB>(row, at + 16)?.map(Timestamp),
                edits: u32::try_from(get::<i64, DB>(row, at + 17)?).map_err(broken)?,
                ..Message::new(MessageId(id), RoomId(room), Seq(seq), author, text, created_at)
            },
            number: get::<_, DB>(row, at + 2)?,
            body_hash: hash.and_then(|hash| hash.try_into().ok()),
        })
    }

    pub(in crate::store) fn turn_row(row: &DB::Row, at: usize) -> Result<TurnRow> {
        let status: String = get::<_, DB>(row, at + 8)?;
        let ending: Option<String> = get::<_, DB>(row, at + 9)?;
        let usage: Option<String> = get::<_, DB>(row, at + 13)?;
        Ok(TurnRow {
            info: TurnInfo {
                id: TurnId(get::<_, DB>(row, at)?),
                room: RoomId(get::<_, DB>(row, at + 1)?),
                bot: get::<_, DB>(row, at + 2)?,
                asked_by: UserId(get::<_, DB>(row, at + 3)?),
                ask: MessageId(get::<_, DB>(row, at + 5)?),
                ask_seq: Seq(get::<_, DB>(row, at + 6)?),
                message: get::<Option<i64>, DB>(row, at + 7)?.map(MessageId),
                status: TurnStatus::from_word(&status).ok_or_else(|| unknown(&status))?,
                attempt: u32::try_from(get::<i64, DB>(row, at + 11)?).map_err(broken)?,
                end: ending.map(|json| read_json(&json)).transpose()?,
            },
            asker: get::<_, DB>(row, at + 4)?,
            created_at: Timestamp(get::<_, DB>(row, at + 10)?),
            hop: u32::try_from(get::<i64, DB>(row, at + 12)?).map_err(broken)?,
            usage: usage.map(|json| read_json(&json)).transpose()?,
        })
    }

    pub(super) fn event_row(row: &DB::Row, at: usize) -> Result<EventRow> {
        let kind: String = get::<_, DB>(row, at + 1)?;
        Ok(EventRow {
            seq: Seq(get::<_, DB>(row, at)?),
            kind: EventKind::from_word(&kind).ok_or_else(|| unknown(&kind))?,
            message: get::<Option<i64>, DB>(row, at + 2)?.map(MessageId),
            turn: get::<Option<i64>, DB>(row, at + 3)?.map(TurnId),
            user: get::<Option<i64>, DB>(row, at + 4)?.map(UserId),
            by: get::<Option<i64>, DB>(row, at + 5)?.map(UserId),
            name: get::<_, DB>(row, at + 6)?,
            position: u32::try_from(get::<i64, DB>(row, at + 7)?).map_err(broken)?,
            at: Timestamp(get::<_, DB>(row, at + 8)?),
        })
    }

    pub(super) fn account(row: &DB::Row) -> Result<Account> {
        let id = UserId(get::<_, DB>(row, 0)?);
        let created_at = Timestamp(get::<_, DB>(row, 3)?);
        Ok(
            Account::new(id, get::<String, DB>(row, 1)?, get::<_, DB>(row, 2)?, created_at).with_token_version(get::<
                _,
                DB,
            >(
                row, 4,
            )?),
        )
    }
}

pub(in crate::store) fn get<T, DB>(row: &DB::Row, at: usize) -> Result<T>
where
    DB: Database,
    usize: ColumnIndex<DB::Row>,
    T: Type<DB> + for<'r> Decode<'r, DB>,
{
    row.try_get(at).map_err(broken)
}

/// What was written down as JSON.
pub(in crate::store) fn read_json<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(broken)
}

pub(in crate::store) fn role_of(word: &str) -> Option<Role> {
    [Role::Owner, Role::Member]
        .into_iter()
        .find(|role| word_of(*role) == word)
}

pub(in crate::store) fn word_of(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
    }
}

fn unknown(word: &str) -> Error {
    Error::internal("the store holds something this program does not know").with_source(format!("the word `{word}`"))
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("the store holds something this program cannot read").with_source(error)
}
