//! Rooms and users in one SQLite file, for one engine in one process.
//!
//! One connection writes: a committer task puts what is waiting, of several rooms, into one transaction. Reads have
//! connections of their own and never wait for it. What a commit does is decided by [`plan`](super::plan); this module
//! knows only how to load and write its rows.

mod committer;
mod facts;
mod fault;
mod kept;
mod open;
#[cfg(test)]
mod tests;
mod words;
mod write;

use super::sql::users::Change;
use super::sql::{Reads, columns};
use super::{Batch, Committed, NewAccount, NewRoom, RoomHead, RoomStore, SchemaStep, UserStore, WholeRoom};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{
    Account, Member, Message, Page, Range, Receipt, RoomEntry, RoomInfo, Snapshot, TurnInfo, UsageFilter, UsageSum,
};
use crate::time::Timestamp;
use async_trait::async_trait;
use committer::{Connected, Job, Reply, Writer};
use sqlx::{Pool, Sqlite};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// How a file is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// When a commit counts as done.
    pub durability: Durability,
    /// How many connections read at the same time.
    pub read_connections: u32,
    /// How long to wait for another program that holds the file.
    pub busy_timeout: Duration,
    /// How long a read may wait for a free connection. 3 s by default.
    pub pool_wait: Duration,
    /// The most pages the file may have. For tests of a full disk.
    #[doc(hidden)]
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            read_connections: 4,
            busy_timeout: Duration::from_secs(5),
            pool_wait: Duration::from_secs(3),
            max_pages: None,
        }
    }
}

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the disk has it: what was acknowledged survives a power cut.
    #[default]
    Full,
    /// When the operating system has it: it survives the process, not a power cut. Faster.
    Normal,
}

/// A store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    reads: Reads<Sqlite>,
    /// The way to the committer; gone once closed. Held for a clone only.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// The committer, to wait for.
    tasks: TaskTracker,
}

/// How many jobs may wait for the committer; then senders wait.
/// Finds messages by their words. See [`Reads::find`].
pub(super) const FIND: &str = concat!(
    "SELECT ",
    columns!(message),
    " FROM message_words w JOIN messages m ON m.id = w.rowid WHERE message_words MATCH $1 AND m.chat_id = $2 AND m.seq < \
     $3 AND m.deleted_at IS NULL ORDER BY w.rowid DESC LIMIT $4"
);

/// The room's own word and the beginnings of those wanted: letters and digits alone, so nothing needs escaping.
fn query(room: RoomId, words: &[String]) -> String {
    let wanted: Vec<_> = words.iter().map(|word| format!("\"{word}\" *")).collect();
    format!("chat : c{room} AND content : ({})", wanted.join(" AND "))
}

const WAITING_JOBS: usize = 1_024;

impl SqliteStore {
    /// Opens a file, or makes it, for this engine alone.
    ///
    /// # Errors
    /// `InUse` if another engine has it, `NewerSchema` if a newer program wrote it, `NotADatabase` if it is something
    /// else, `NotFound` if its folder does not exist, `BadRequest` if it is a folder itself, `Unavailable` if it cannot
    /// be written to.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self> {
        open::check_path(path.as_ref())?;
        let lock = open::lock(path.as_ref())?;
        Self::begin(path.as_ref(), &options, Some(lock)).await
    }

    /// Opens a file, or makes it, beside an engine that may be running, for command-line tools: it takes no lock and
    /// touches no turn. Only users may be changed this way; of a room's change the engine would not know.
    ///
    /// # Errors
    /// As [`open`](Self::open); `InUse` only if the schema is older than this program and an engine runs on it.
    pub async fn open_tool(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        open::check_path(path)?;
        // Held while the schema is brought up to date, which must not happen beneath an engine.
        let _lock = match open::lock(path) {
            Err(error) if error.kind() == ErrorKind::InUse => {
                if open::schema(path).await?.iter().any(|step| !step.applied) {
                    return Err(error);
                }
                None
            }
            locked => Some(locked?),
        };
        Self::begin(path, &SqliteOptions::default(), None).await
    }

    /// The steps of the schema, and which of them this file has. Of a file that does not exist, or is empty, none. Takes
    /// no lock and changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), without `InUse`.
    pub async fn schema(path: impl AsRef<Path>) -> Result<Vec<SchemaStep>> {
        open::check_path(path.as_ref())?;
        open::schema(path.as_ref()).await
    }

    /// A private database in memory, gone when it is closed or dropped.
    ///
    /// # Errors
    /// `Unavailable` if there is no memory for it.
    pub async fn memory() -> Result<Self> {
        let (pool, ids) = open::open_memory().await?;
        let connection = Connected::Shared(pool.clone());
        Ok(Self::running(pool, Writer { connection, ids }, None))
    }

    async fn begin(path: &Path, options: &SqliteOptions, lock: Option<File>) -> Result<Self> {
        let connect = open::connecting(path, options);
        let (connection, ids) = open::open_writer(&connect).await?;
        let connection = Connected::Own(connection);
        let readers = open::readers(connect, options);
        Ok(Self::running(readers, Writer { connection, ids }, lock))
    }

    fn running(pool: Pool<Sqlite>, writer: Writer, lock: Option<File>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_JOBS);
        let tasks = TaskTracker::new();
        // The lock goes with the committer, so that no other engine comes while it still writes.
        tasks.spawn(committer::run(writer, receiver, lock));
        tasks.close();
        let reads = Reads {
            pool,
            begin: "BEGIN",
            find: FIND,
            query,
            fault: fault::fault,
        };
        Self {
            reads,
            jobs: Mutex::new(Some(sender)),
            tasks,
        }
    }

    async fn job<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let sender = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or_else(Error::closed)?;
        let (reply, answer) = oneshot::channel();
        sender.send(job(reply)).await.map_err(|_| Error::closed())?;
        drop(sender);
        answer
            .await
            .map_err(|_| Error::unavailable("the database stopped before it answered"))?
    }
}

#[async_trait]
impl RoomStore for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.job(|reply| Job::Commit(batch, reply)).await
    }

    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        self.job(|reply| Job::Create(new, reply)).await
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        self.reads.room(room).await
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        self.reads.member(room, user).await
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        self.reads.members(room).await
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        self.reads.rooms_of(user, only).await
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        self.reads.events(room, after, limit).await
    }

    async fn find(&self, room: RoomId, words: &[String], before: Option<Seq>, limit: u32) -> Result<Page> {
        // What was there when the search began is found, however much is said meanwhile.
        let mut progress = self.job(Job::Index).await?;
        let newest = progress.newest;
        while progress.indexed < newest {
            progress = self.job(Job::Index).await?;
        }
        self.reads.find(room, words, before, limit).await
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        self.reads.history(room, range, limit).await
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        self.reads.snapshot(room, limit).await
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        self.reads.message(room, message).await
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        self.reads.turn(room, turn).await
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        self.reads.turn_of_message(room, message).await
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        self.reads.open_turns(only).await
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        self.reads.receipt(room, message).await
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        self.reads.written_by(user, after, limit).await
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        self.reads.usage(of).await
    }

    async fn export(&self, room: RoomId) -> Result<Option<WholeRoom>> {
        self.reads.export(room).await
    }

    async fn import(&self, room: WholeRoom, now: Timestamp) -> Result<RoomInfo> {
        self.job(|reply| Job::Import(Box::new(room), now, reply)).await
    }

    async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.tasks.wait().await;
        self.reads.pool.close().await;
    }
}

#[async_trait]
impl UserStore for SqliteStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        self.reads.user(id).await
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        Ok(self.reads.user_by_name(name).await?.map(|(account, _)| account))
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        self.job(|reply| Job::CreateUser(new, reply)).await
    }

    async fn credentials(&self, name: &str) -> Result<Option<(Account, String)>> {
        let found = self.reads.user_by_name(name).await?;
        Ok(found.and_then(|(account, hash)| Some((account, hash?))))
    }

    async fn set_password(&self, id: UserId, hash: &str) -> Result<()> {
        let change = Change::Password(hash.to_owned());
        self.job(|reply| Job::ChangeUser(id, change, reply)).await
    }

    async fn rehash(&self, id: UserId, from: &str, to: &str) -> Result<()> {
        let change = Change::Hash {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.job(|reply| Job::ChangeUser(id, change, reply)).await
    }

    async fn end_tokens(&self, id: UserId) -> Result<()> {
        self.job(|reply| Job::ChangeUser(id, Change::Tokens, reply)).await
    }

    async fn delete_user(&self, id: UserId) -> Result<()> {
        self.job(|reply| Job::ChangeUser(id, Change::Deletion, reply)).await
    }

    async fn search(&self, text: &str, limit: u32, except: UserId) -> Result<Vec<Account>> {
        self.reads.search(text, limit, except).await
    }
}
