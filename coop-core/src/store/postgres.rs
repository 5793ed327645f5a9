//! Rooms and users in PostgreSQL, for several servers at once.
//!
//! The lock on a room's row orders its commits, whichever server makes them; rooms commit beside each other. What makes
//! a commit is [`plan`](super::plan)'s affair. This module knows nothing of readers and bots, and of other engines only
//! what is written in the tables.

mod facts;
mod fault;
mod open;
mod others;
#[cfg(test)]
mod tests;
mod write;
mod writers;

use super::plan::{Facts, Needs, RoomRow, plan, plan_creation};
use super::sql::users::{Accounts, Change, unwritten};
use super::sql::write::Rows;
use super::sql::{Reads, columns};
use super::{Batch, Committed, NewAccount, NewRoom, Others, RoomHead, RoomStore, SchemaStep, UserStore, WholeRoom};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Account, Member, Message, Page, Range, Receipt, RoomEntry, RoomInfo, Snapshot, TurnInfo, UsageFilter, UsageSum,
};
use crate::time::Timestamp;
use async_trait::async_trait;
use facts::FreshIds;
use fault::fault;
use sqlx::{Connection, Postgres};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{timeout, timeout_at};
use writers::{Transaction, Writers};

/// Finds messages by their words. See [`Reads::find`].
pub(super) const FIND: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM messages m WHERE message_words(m.chat_id, m.content) @@ to_tsquery('pg_catalog.simple', $1) AND m.chat_id = $2 \
     AND m.seq < $3 AND m.deleted_at IS NULL AND m.status <> 'streaming' ORDER BY m.seq DESC LIMIT $4"
);

/// The room's own word and the beginnings of those wanted: letters and digits alone, so nothing needs escaping. A database
/// whose locale is C knows the case of ASCII only, so that of other letters is tried out.
fn query(room: RoomId, words: &[String]) -> String {
    let mut query = format!("'c{room}'");
    for word in words {
        let mut letters = word.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let cases = [word.clone(), first + letters.as_str(), word.to_uppercase()];
        let cases = &cases[..if word.is_ascii() { 1 } else { 3 }];
        let any: Vec<_> = cases.iter().map(|word| format!("'{word}':*")).collect();
        query += &format!(" & ({})", any.join(" | "));
    }
    query
}

/// How a database is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// How many connections commit at the same time.
    pub write_connections: u32,
    /// How many connections read at the same time.
    pub read_connections: u32,
    /// How long to wait for the database before a call fails as `Unavailable`.
    pub patience: Duration,
    /// How long a read may wait for a free connection. 3 s by default.
    pub pool_wait: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            write_connections: 16,
            read_connections: 8,
            patience: Duration::from_secs(10),
            pool_wait: Duration::from_secs(3),
        }
    }
}

/// This engine among those that share a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Engine(i64);

/// A store in a PostgreSQL database (14 or newer), which other engines may use at the same time.
#[derive(Debug)]
pub struct PostgresStore {
    reads: Reads<Postgres>,
    writers: Writers,
    engine: Engine,
    patience: Duration,
    read_connections: u32,
}

/// Reads, and once more for each connection that turns out to have been lost since its last use.
macro_rules! read {
    ($store:ident.$call:ident($($argument:expr),*)) => {{
        let mut others = $store.read_connections;
        loop {
            match timeout($store.patience, $store.reads.$call($($argument),*)).await {
                Ok(Err(error)) if others > 0 && is_stale(&error) => others -= 1,
                Ok(done) => break done,
                Err(_) => break Err(Error::unavailable("the database does not answer")),
            }
        }
    }};
}

impl PostgresStore {
    /// Opens a database by its address, `postgres://user:password@host:port/name`, and brings its schema up to date. TLS as
    /// `sslmode` and `sslrootcert` in the address say: `verify-full` is the one that trusts nobody in between.
    ///
    /// # Errors
    /// `BadRequest` if this is no such address or the server is too old, `NotFound` if there is no such database,
    /// `Forbidden` if it does not let this user in, `NewerSchema`, `NotADatabase` if another program's tables are in it,
    /// `Unavailable` if it does not answer.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, PostgresOptions::default()).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(url: &str, options: PostgresOptions) -> Result<Self> {
        let mut store = Self::open_quietly(url, &options).await?;
        store.engine = store.enlist().await?;
        Ok(store)
    }

    /// Opens a database beside the engines that use it, for command-line tools: it runs no turns.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_tool(url: &str) -> Result<Self> {
        let options = PostgresOptions {
            write_connections: 1,
            read_connections: 1,
            ..PostgresOptions::default()
        };
        Self::open_quietly(url, &options).await
    }

    async fn open_quietly(url: &str, options: &PostgresOptions) -> Result<Self> {
        let connect = open::connecting(url)?;
        let mut connection = open::connect(&connect, options.patience).await?;
        open::migrate(&mut connection).await?;
        // Its settings are those of a migration.
        let _ = timeout(options.patience, connection.close()).await;
        let reads = Reads {
            pool: open::readers(connect.clone(), options),
            begin: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            find: FIND,
            query,
            fault,
        };
        Ok(Self {
            reads,
            writers: Writers::new(connect, options.write_connections, options.patience),
            engine: Engine(0),
            patience: options.patience,
            read_connections: options.read_connections,
        })
    }

    /// The steps of the schema, and which of them this database has. Changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn schema(url: &str) -> Result<Vec<SchemaStep>> {
        let patience = PostgresOptions::default().patience;
        let connection = open::connect(&open::connecting(url)?, patience).await?;
        open::schema(connection).await
    }

    /// Decides and writes a batch of a room that is locked.
    async fn decide(&self, begun: &mut Transaction<'_>, batch: Batch, room: RoomRow) -> Result<Decided> {
        let id = batch.room;
        let needs = Needs::of(&batch);
        let (facts, mut ids) = facts::load(begun.connection(), room, &needs, self.engine).await?;
        let plan = plan(facts, batch, &mut ids);
        ids.check()?;
        let mut rows = Rows::default();
        rows.add_plan(id, &plan)?;
        let wrote = !plan.is_empty();
        write::write(rows, begun.connection(), self.engine).await?;
        Ok(Decided {
            committed: plan.committed,
            wrote,
        })
    }

    async fn create(&self, begun: &mut Transaction<'_>, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        let (room, message): (i64, i64) = sqlx::query_as("SELECT nextval('chat_ids'), nextval('message_ids')")
            .fetch_one(begun.connection())
            .await
            .map_err(fault)?;
        let mut ids = FreshIds {
            room,
            messages: [message].into(),
            ..FreshIds::default()
        };
        let creation = plan_creation(new, &mut ids)?;
        ids.check()?;
        let mut rows = Rows::default();
        rows.add_creation(&creation)?;
        write::write(rows, begun.connection(), self.engine).await?;
        Ok((creation.room.info, creation.committed))
    }

    async fn write_whole(&self, begun: &mut Transaction<'_>, room: &mut WholeRoom, now: Timestamp) -> Result<RoomInfo> {
        let (messages, turns) = (room.messages.len(), room.turns.len());
        let mut ids = FreshIds::many(begun.connection(), messages, turns).await?;
        room.renumber(&mut ids, Epoch(now.0))?;
        ids.check()?;
        for rows in Rows::pieces(room) {
            write::write(rows?, begun.connection(), self.engine).await?;
        }
        Ok(room.room.info.clone())
    }

    /// Changes an account in a transaction of its own.
    async fn change(&self, user: UserId, change: Change) -> Result<()> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let deadline = begun.deadline();
        let changed = timeout_at(deadline, accounts(&mut begun).change(user, change)).await;
        begun.finish(changed.unwrap_or_else(late)).await
    }
}

/// What became of a batch, and whether it left anything to be committed.
struct Decided {
    committed: Committed,
    wrote: bool,
}

fn accounts<'c>(begun: &'c mut Transaction<'_>) -> Accounts<'c, Postgres> {
    Accounts {
        connection: begun.connection(),
        fault,
    }
}

fn late<T, E>(_: E) -> Result<T> {
    Err(Error::unavailable("the database does not answer"))
}

/// Whether it failed because its connection had been lost before.
fn is_stale(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    cause.is_some_and(fault::is_lost)
}

#[async_trait]
impl RoomStore for PostgresStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let (mut begun, room) = self.writers.begin(Some(batch.room)).await?;
        let Some(room) = room else {
            begun.roll_back().await?;
            return Ok(plan(Facts::default(), batch, &mut FreshIds::default()).committed);
        };
        let deadline = begun.deadline();
        let decided = timeout_at(deadline, self.decide(&mut begun, batch, room)).await;
        let decided = decided.unwrap_or_else(late).map_err(unwritten)?;
        match decided.wrote {
            true => begun.commit().await?,
            false => begun.roll_back().await?,
        }
        Ok(decided.committed)
    }

    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let deadline = begun.deadline();
        let created = timeout_at(deadline, self.create(&mut begun, new)).await;
        begun.finish(created.unwrap_or_else(late)).await
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        read!(self.room(room))
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        read!(self.member(room, user))
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        read!(self.members(room))
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        read!(self.rooms_of(user, only))
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        read!(self.events(room, after, limit))
    }

    async fn find(&self, room: RoomId, words: &[String], before: Option<Seq>, limit: u32) -> Result<Page> {
        read!(self.find(room, words, before, limit))
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        read!(self.history(room, range, limit))
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        read!(self.snapshot(room, limit))
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        read!(self.message(room, message))
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        read!(self.turn(room, turn))
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        read!(self.turn_of_message(room, message))
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        read!(self.open_turns(only))
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        read!(self.receipt(room, message))
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        read!(self.written_by(user, after, limit))
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        read!(self.usage(of))
    }

    async fn export(&self, room: RoomId) -> Result<Option<WholeRoom>> {
        // As long as it takes: the deadline of a read is for what somebody waits for.
        self.reads.export(room).await
    }

    async fn import(&self, mut room: WholeRoom, now: Timestamp) -> Result<RoomInfo> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let written = self.write_whole(&mut begun, &mut room, now).await;
        begun.finish(written).await
    }

    fn others(&self) -> Option<&dyn Others> {
        Some(self)
    }

    async fn close(&self) {
        // Its turns have ended; whoever finds it gone need not wait for its lease.
        if self.engine != Engine(0)
            && let Err(error) = self.leave().await
            && error.kind() != ErrorKind::Closed
        {
            tracing::debug!(%error, "the database was not told that this engine has gone");
        }
        self.writers.close().await;
        let _ = timeout(self.patience, self.reads.pool.close()).await;
    }
}

#[async_trait]
impl UserStore for PostgresStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        read!(self.user(id))
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        Ok(read!(self.user_by_name(name))?.map(|(account, _)| account))
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let deadline = begun.deadline();
        let created = timeout_at(deadline, accounts(&mut begun).create(new)).await;
        begun.finish(created.unwrap_or_else(late)).await
    }

    async fn credentials(&self, name: &str) -> Result<Option<(Account, String)>> {
        let found = read!(self.user_by_name(name))?;
        Ok(found.and_then(|(account, hash)| Some((account, hash?))))
    }

    async fn set_password(&self, id: UserId, hash: &str) -> Result<()> {
        self.change(id, Change::Password(hash.to_owned())).await
    }

    async fn rehash(&self, id: UserId, from: &str, to: &str) -> Result<()> {
        let change = Change::Hash {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.change(id, change).await
    }

    async fn end_tokens(&self, id: UserId) -> Result<()> {
        self.change(id, Change::Tokens).await
    }

    async fn delete_user(&self, id: UserId) -> Result<()> {
        self.change(id, Change::Deletion).await
    }

    async fn search(&self, text: &str, limit: u32, except: UserId) -> Result<Vec<Account>> {
        read!(self.search(text, limit, except))
    }
}
