//! Reading rooms and users with SQL that more than one database understands (`$1`, plain joins, `LIMIT`), and turning
//! its rows into ours. It knows the tables; it knows neither how they are written nor which database this is.

mod rows;
pub(super) mod users;
pub(super) mod write;

pub(super) use rows::{columns, get, read_json, word_of};

use super::plan::RoomRow;
use super::{RoomHead, WholeRoom};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Account, Member, Message, Page, Range, Receipt, RoomEntry, Snapshot, TurnInfo, UsageFilter, UsageSum,
};
use futures::TryStreamExt;
#[cfg(feature = "postgres")]
pub(super) use rows::width;
#[cfg(not(feature = "postgres"))]
use rows::width;
use sqlx::{ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Pool, Type};
use std::sync::Arc;

const ROOM: &str = concat!("SELECT ", columns!(room), " FROM chats c WHERE c.id = $1");
const MEMBER: &str = concat!(
    "SELECT ",
    columns!(member),
    " FROM chat_participants p WHERE p.chat_id = $1 AND p.user_id = $2"
);
const MEMBERS: &str = concat!(
    "SELECT ",
    columns!(member),
    " FROM chat_participants p WHERE p.chat_id = $1 ORDER BY p.joined_seq"
);
const ROOMS_OF: &str = concat!(
    "SELECT ",
    columns!(room),
    ", ",
    columns!(member),
    ", ",
    columns!(message),
    " FROM chat_participants p JOIN chats c ON c.id = p.chat_id LEFT JOIN messages m ON m.id = (SELECT x.id FROM \
     messages x WHERE x.chat_id = p.chat_id AND x.deleted_at IS NULL ORDER BY x.seq DESC LIMIT 1) WHERE p.user_id = \
     $1 AND ($2 = 0 OR p.chat_id = $2) ORDER BY COALESCE(m.created_at, c.created_at) DESC, c.id DESC"
);
const EVENTS: &str = concat!(
    "SELECT ",
    columns!(room),
    ", ",
    columns!(event),
    ", ",
    columns!(message),
    ", ",
    columns!(turn),
    " FROM events e JOIN chats c ON c.id = e.chat_id LEFT JOIN messages m ON m.id = e.message_id LEFT JOIN turns t ON \
     t.id = e.turn_id WHERE e.chat_id = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3"
);
const BEFORE: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM messages m WHERE m.chat_id = $1 AND m.seq < $2 AND m.deleted_at IS NULL ORDER BY m.seq DESC LIMIT $3"
);
const AFTER: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM messages m WHERE m.chat_id = $1 AND m.seq > $2 AND m.deleted_at IS NULL ORDER BY m.seq LIMIT $3"
);
const MESSAGE: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM messages m WHERE m.id = $2 AND m.chat_id = $1"
);
const TURN: &str = concat!(
    "SELECT ",
    columns!(turn),
    " FROM turns t WHERE t.id = $2 AND t.chat_id = $1"
);
const TURN_OF_MESSAGE: &str = concat!(
    "SELECT ",
    columns!(turn),
    " FROM turns t WHERE t.message_id = $2 AND t.chat_id = $1"
);
const OPEN_TURNS: &str = concat!(
    "SELECT ",
    columns!(turn),
    " FROM turns t WHERE t.status IN ('queued', 'streaming') AND ($1 = 0 OR t.chat_id = $1) ORDER BY t.chat_id, t.id"
);
/// Reads all there is above `$2`.
pub(super) const WRITTEN_BY: &str = "SELECT m.chat_id, m.id FROM messages m WHERE m.id > $2 AND m.user_id = $1 AND m.deleted_at IS NULL ORDER BY m.id LIMIT $3";
const RECEIPT: &str = "SELECT t.receipt FROM turns t WHERE t.message_id = $2 AND t.chat_id = $1";
/// `$1` user, `$2` room, `$3` bot, `$4` first day.
macro_rules! usage {
    ($who:literal) => {
        concat!(
            "SELECT CAST(COALESCE(SUM(u.turns), 0) AS BIGINT), CAST(COALESCE(SUM(u.input), 0) AS BIGINT), \
             CAST(COALESCE(SUM(u.output), 0) AS BIGINT), CAST(COALESCE(SUM(u.total), 0) AS BIGINT) FROM usage u WHERE ",
            $who,
            " AND ($3 = '' OR u.bot = $3) AND u.day >= $4"
        )
    };
}
const USAGE_OF_USER: &str = usage!("u.user_id = $1 AND ($2 = 0 OR u.chat_id = $2)");
const USAGE_IN_ROOM: &str = usage!("u.chat_id = $2 AND ($1 = 0 OR u.user_id = $1)");
/// Reads all there is.
pub(super) const USAGE_IN_ALL: &str = usage!("$1 = 0 AND $2 = 0");
const ALL_MESSAGES: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM messages m WHERE m.chat_id = $1 ORDER BY m.seq"
);
const ALL_TURNS: &str = concat!(
    "SELECT ",
    columns!(turn),
    ", t.receipt FROM turns t WHERE t.chat_id = $1"
);
const ALL_EVENTS: &str = concat!(
    "SELECT ",
    columns!(event),
    " FROM events e WHERE e.chat_id = $1 ORDER BY e.seq"
);
const USER: &str = concat!("SELECT ", columns!(account), " FROM users u WHERE u.id = $1");
const USER_BY_NAME: &str = concat!(
    "SELECT ",
    columns!(account),
    ", u.password_hash FROM users u WHERE u.username = $1"
);
const SEARCH: &str = concat!(
    "SELECT ",
    columns!(account),
    " FROM users u WHERE u.username LIKE $1 ESCAPE '\\' AND u.id <> $2 ORDER BY u.username LIMIT $3"
);

/// Every statement of this module, for a test that prepares them all.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    ROOM,
    MEMBER,
    MEMBERS,
    ROOMS_OF,
    EVENTS,
    BEFORE,
    AFTER,
    MESSAGE,
    TURN,
    TURN_OF_MESSAGE,
    OPEN_TURNS,
    WRITTEN_BY,
    RECEIPT,
    USAGE_OF_USER,
    USAGE_IN_ROOM,
    USAGE_IN_ALL,
    ALL_MESSAGES,
    ALL_TURNS,
    ALL_EVENTS,
    USER,
    USER_BY_NAME,
    SEARCH,
];

/// The reads of one database.
#[derive(Debug)]
pub(super) struct Reads<DB: Database> {
    /// Connections that only read.
    pub(super) pool: Pool<DB>,
    /// How this database begins a transaction that sees one moment.
    pub(super) begin: &'static str,
    /// How this database finds messages: `$1` what [`query`](Self::query) makes of the words, `$2` room, `$3` before,
    /// `$4` limit. The newest first.
    pub(super) find: &'static str,
    /// How this database asks for words in a room.
    pub(super) query: fn(RoomId, &[String]) -> String,
    /// How this database's errors are told.
    pub(super) fault: fn(sqlx::Error) -> Error,
}

impl<DB> Reads<DB>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    usize: ColumnIndex<DB::Row>,
    i64: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB>,
    String: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB>,
    Vec<u8>: Type<DB> + for<'r> Decode<'r, DB>,
    bool: Type<DB> + for<'r> Decode<'r, DB>,
{
    pub(super) async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        let row = sqlx::query(ROOM).bind(room.0).fetch_optional(&self.pool).await;
        let row = row.map_err(self.fault)?;
        row.map(|row| Ok(Self::room_row(&row, 0)?.head())).transpose()
    }

    pub(super) async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        let query = sqlx::query(MEMBER).bind(room.0).bind(user.0);
        let row = query.fetch_optional(&self.pool).await.map_err(self.fault)?;
        row.map(|row| Ok(Self::member_row(&row, 0)?.member)).transpose()
    }

    pub(super) async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        let rows = sqlx::query(MEMBERS).bind(room.0).fetch_all(&self.pool).await;
        Self::all_members(&rows.map_err(self.fault)?)
    }

    pub(super) async fn written_by(
        &self,
        user: UserId,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>> {
        let query = sqlx::query(WRITTEN_BY)
            .bind(user.0)
            .bind(after.0)
            .bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        let pair = |row: &DB::Row| Ok((RoomId(get::<_, DB>(row, 0)?), MessageId(get::<_, DB>(row, 1)?)));
        rows.iter().map(pair).collect()
    }

    pub(super) async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        let query = sqlx::query(ROOMS_OF).bind(user.0).bind(only.map_or(0, |room| room.0));
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        let entry = |row: &DB::Row| {
            let room = Self::room_row(row, 0)?;
            let member = Self::member_row(row, width::ROOM)?;
            let last = Self::maybe_message(row, width::ROOM + width::MEMBER)?;
            Ok(room.entry(&member, last))
        };
        rows.iter().map(entry).collect()
    }

    pub(super) async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        let query = sqlx::query(EVENTS).bind(room.0).bind(after.0).bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        let event = |row: &DB::Row| {
            let room = Self::room_row(row, 0)?;
            let message = Self::maybe_message(row, width::ROOM + width::EVENT)?;
            let at = width::ROOM + width::EVENT + width::MESSAGE;
            let turn = match get::<Option<i64>, DB>(row, at)? {
                Some(_) => Some(Self::turn_row(row, at)?.info),
                None => None,
            };
            let event = Self::event_row(row, width::ROOM)?;
            Ok(Arc::new(event.event(&room.info, message.as_ref(), turn.as_ref())?))
        };
        rows.iter().map(event).collect()
    }

    pub(super) async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        let mut connection = self.pool.acquire().await.map_err(self.fault)?;
        self.page(&mut connection, room, range, limit).await
    }

    pub(super) async fn find(&self, room: RoomId, words: &[String], before: Option<Seq>, limit: u32) -> Result<Page> {
        let query = sqlx::query(self.find)
            .bind((self.query)(room, words))
            .bind(room.0)
            .bind(before.map_or(i64::MAX, |seq| seq.0))
            .bind(i64::from(limit) + 1);
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        let found = rows.iter().map(|row| Ok(Arc::new(Self::message_row(row, 0)?.message)));
        Ok(Page::newest_first(found.collect::<Result<_>>()?, limit as usize))
    }

    async fn page(&self, connection: &mut DB::Connection, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        let (sql, seq) = match range {
            Range::Newest => (BEFORE, Seq(i64::MAX)),
            Range::Before(seq) => (BEFORE, seq),
            Range::After(seq) => (AFTER, seq),
        };
        let query = sqlx::query(sql).bind(room.0).bind(seq.0).bind(i64::from(limit) + 1);
        let rows = query.fetch_all(connection).await.map_err(self.fault)?;
        let limit = limit as usize;
        let wanted = rows.iter().take(limit);
        let mut found = wanted
            .map(|row| Self::message_row(row, 0))
            .collect::<Result<Vec<_>>>()?;
        if !matches!(range, Range::After(_)) {
            found.reverse();
        }
        let older = found
            .first()
            .map_or(0, |first| u32::try_from(first.number - 1).unwrap_or(u32::MAX));
        let messages = found.into_iter().map(|row| Arc::new(row.message)).collect();
        Ok(Page {
            messages,
            more: rows.len() > limit,
            older,
        })
    }

    pub(super) async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        let mut moment = self.pool.begin_with(self.begin).await.map_err(self.fault)?;
        let row = sqlx::query(ROOM).bind(room.0).fetch_optional(&mut *moment).await;
        let Some(row) = row.map_err(self.fault)? else {
            return Ok(None);
        };
        let rows = sqlx::query(MEMBERS).bind(room.0).fetch_all(&mut *moment).await;
        let members = Self::all_members(&rows.map_err(self.fault)?)?;
        let messages = self.page(&mut moment, room, Range::Newest, limit).await?.messages;
        let rows = sqlx::query(OPEN_TURNS).bind(room.0).fetch_all(&mut *moment).await;
        let turns = Self::all_turns(&rows.map_err(self.fault)?)?;
        // Nothing was written: what is told is told already, whatever becomes of this.
        drop(moment);
        let RoomRow { info, epoch, seq, .. } = Self::room_row(&row, 0)?;
        Ok(Some(Snapshot::new(info, epoch, seq, members, messages, turns)))
    }

    pub(super) async fn export(&self, room: RoomId) -> Result<Option<WholeRoom>> {
        let mut moment = self.pool.begin_with(self.begin).await.map_err(self.fault)?;
        let row = sqlx::query(ROOM).bind(room.0).fetch_optional(&mut *moment).await;
        let Some(row) = row.map_err(self.fault)? else {
            return Ok(None);
        };
        let mut whole = WholeRoom {
            room: Self::room_row(&row, 0)?,
            members: Vec::new(),
            messages: Vec::new(),
            turns: Vec::new(),
            receipts: Vec::new(),
            events: Vec::new(),
        };
        // One row at a time: what the database has of them need not be there twice.
        {
            let mut rows = sqlx::query(MEMBERS).bind(room.0).fetch(&mut *moment);
            while let Some(row) = rows.try_next().await.map_err(self.fault)? {
                whole.members.push(Self::member_row(&row, 0)?);
            }
        }
        {
            let mut rows = sqlx::query(ALL_MESSAGES).bind(room.0).fetch(&mut *moment);
            while let Some(row) = rows.try_next().await.map_err(self.fault)? {
                whole.messages.push(Self::message_row(&row, 0)?);
            }
        }
        {
            let mut rows = sqlx::query(ALL_TURNS).bind(room.0).fetch(&mut *moment);
            while let Some(row) = rows.try_next().await.map_err(self.fault)? {
                let turn = Self::turn_row(&row, 0)?;
                let receipt: Option<String> = get::<_, DB>(&row, width::TURN)?;
                let receipt = receipt.map(|json| read_json(&json)).transpose()?;
                whole.receipts.extend(receipt.map(|receipt| (turn.info.id, receipt)));
                whole.turns.push(turn);
            }
        }
        {
            let mut rows = sqlx::query(ALL_EVENTS).bind(room.0).fetch(&mut *moment);
            while let Some(row) = rows.try_next().await.map_err(self.fault)? {
                whole.events.push(Self::event_row(&row, 0)?);
            }
        }
        whole.turns.sort_by_key(|row| row.info.id);
        whole.receipts.sort_by_key(|(turn, _)| *turn);
        Ok(Some(whole))
    }

    pub(super) async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        let query = sqlx::query(MESSAGE).bind(room.0).bind(message.0);
        let row = query.fetch_optional(&self.pool).await.map_err(self.fault)?;
        row.map_or(Ok(None), |row| Self::maybe_message(&row, 0))
    }

    pub(super) async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        self.one_turn(TURN, room, turn.0).await
    }

    pub(super) async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        self.one_turn(TURN_OF_MESSAGE, room, message.0).await
    }

    async fn one_turn(&self, sql: &'static str, room: RoomId, id: i64) -> Result<Option<TurnInfo>> {
        let row = sqlx::query(sql).bind(room.0).bind(id).fetch_optional(&self.pool).await;
        let row = row.map_err(self.fault)?;
        row.map(|row| Ok(Self::turn_row(&row, 0)?.info)).transpose()
    }

    pub(super) async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        let query = sqlx::query(OPEN_TURNS).bind(only.map_or(0, |room| room.0));
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        Self::all_turns(&rows)
    }

    fn all_turns(rows: &[DB::Row]) -> Result<Vec<TurnInfo>> {
        let turns = rows.iter().map(|row| Ok(Self::turn_row(row, 0)?.info));
        let mut turns = turns.collect::<Result<Vec<_>>>()?;
        // Not sorted by the database, which would then read every turn there ever was in the order of ids.
        turns.sort_by_key(|turn| turn.id);
        Ok(turns)
    }

    pub(super) async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        let query = sqlx::query(RECEIPT).bind(room.0).bind(message.0);
        let row = query.fetch_optional(&self.pool).await.map_err(self.fault)?;
        let json = row.map(|row| get::<Option<String>, DB>(&row, 0)).transpose()?;
        json.flatten().map(|json| read_json(&json)).transpose()
    }

    pub(super) async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        let sql = match (of.user, of.room) {
            (Some(_), _) => USAGE_OF_USER,
            (None, Some(_)) => USAGE_IN_ROOM,
            (None, None) => USAGE_IN_ALL,
        };
        let query = sqlx::query(sql)
            .bind(of.user.map_or(0, |user| user.0))
            .bind(of.room.map_or(0, |room| room.0))
            .bind(of.bot.clone().unwrap_or_default())
            .bind(of.since.map_or(i64::MIN, |day| day.0));
        let row = query.fetch_one(&self.pool).await.map_err(self.fault)?;
        let sum = |at: usize| get::<i64, DB>(&row, at).map(|sum| u64::try_from(sum).unwrap_or(0));
        Ok(UsageSum {
            turns: sum(0)?,
            input: sum(1)?,
            output: sum(2)?,
            total: sum(3)?,
        })
    }

    pub(super) async fn user(&self, id: UserId) -> Result<Option<Account>> {
        let row = sqlx::query(USER).bind(id.0).fetch_optional(&self.pool).await;
        row.map_err(self.fault)?.map(|row| Self::account(&row)).transpose()
    }

    /// The account of this name, and its password's hash if it has one.
    pub(super) async fn user_by_name(&self, name: &str) -> Result<Option<(Account, Option<String>)>> {
        let query = sqlx::query(USER_BY_NAME).bind(name.to_owned());
        let row = query.fetch_optional(&self.pool).await.map_err(self.fault)?;
        row.map(|row| Ok((Self::account(&row)?, get::<_, DB>(&row, width::ACCOUNT)?)))
            .transpose()
    }

    pub(super) async fn search(&self, text: &str, limit: u32, except: UserId) -> Result<Vec<Account>> {
        let query = sqlx::query(SEARCH)
            .bind(pattern(text))
            .bind(except.0)
            .bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await.map_err(self.fault)?;
        rows.iter().map(Self::account).collect()
    }

    fn all_members(rows: &[DB::Row]) -> Result<Vec<Member>> {
        rows.iter().map(|row| Ok(Self::member_row(row, 0)?.member)).collect()
    }
}

/// A `LIKE` pattern for whatever contains this text, in which every character stands for itself.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}
