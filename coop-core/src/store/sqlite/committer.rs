//! The one task that writes: it takes what is waiting, of several rooms, and commits it in one transaction.
//!
//! Nobody waits for company: while one group is on its way to the disk the next one gathers by itself.

use super::facts::{Loaded, load};
use super::kept::{Changed, Kept};
use super::words::{self, Progress};
use super::write::{write, write_whole};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Epoch, RoomId, UserId};
use crate::model::{Account, RoomInfo};
use crate::store::plan::{Needs, NextIds, plan, plan_creation};
use crate::store::sql::users::{Accounts, Change};
use crate::store::sql::write::Rows;
use crate::store::{Batch, Committed, NewAccount, NewRoom, WholeRoom};
use crate::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Pool, Sqlite};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Where an answer goes. Nobody may be waiting for it any more.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What can be asked of the committer.
pub(super) enum Job {
    Commit(Batch, Reply<Committed>),
    Create(NewRoom, Reply<(RoomInfo, Vec<Arc<Event>>)>),
    CreateUser(NewAccount, Reply<Account>),
    ChangeUser(UserId, Change, Reply<()>),
    Import(Box<WholeRoom>, Timestamp, Reply<RoomInfo>),
    /// To add the words of some more messages to the index.
    Index(Reply<Progress>),
}

/// When nothing was written for so long, words are added to the index.
const IDLE: Duration = Duration::from_millis(200);
/// The most intents in one transaction, so that nobody waits long for others.
const MAX_INTENTS: usize = 200;

/// What writes.
pub(super) struct Writer {
    pub(super) connection: Connected,
    /// The ids that are free. A transaction that fails skips some.
    pub(super) ids: NextIds,
}

/// The connection that writes.
pub(super) enum Connected {
    /// A connection of its own.
    Own(SqliteConnection),
    /// The only connection there is, shared with those who read.
    Shared(Pool<Sqlite>),
}

/// Serves jobs until nobody can send any more. The lock is held as long.
pub(super) async fn run(mut writer: Writer, mut jobs: mpsc::Receiver<Job>, lock: Option<File>) {
    let mut next = None;
    let mut kept = Kept::default();
    // Whether there may be messages whose words are not in the index.
    let mut behind = true;
    loop {
        let first = match next.take() {
            Some(job) => Ok(Some(job)),
            None if behind => timeout(IDLE, jobs.recv()).await,
            None => Ok(jobs.recv().await),
        };
        let group = match first {
            Ok(Some(job)) => gather(job, &mut jobs, &mut next),
            Ok(None) => break,
            Err(_) => Group::Idle,
        };
        let ids = &mut writer.ids;
        match &mut writer.connection {
            Connected::Own(connection) => behind = serve(connection, ids, &mut kept, group).await,
            Connected::Shared(pool) => match pool.acquire().await {
                Ok(mut connection) => behind = serve(&mut connection, ids, &mut kept, group).await,
                Err(error) => refuse(group, &super::fault::commit_fault(error)),
            },
        }
    }
    if let Connected::Own(connection) = writer.connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the database did not close cleanly; its log will be read at the next start");
    }
    drop(lock);
}

/// One room's part of a transaction.
enum Part {
    Commit(Batch, Reply<Committed>),
    Create(NewRoom, Reply<(RoomInfo, Vec<Arc<Event>>)>),
}

/// What is served together: parts of one transaction, or one thing about a user.
enum Group {
    Parts(Vec<Part>),
    User(NewAccount, Reply<Account>),
    Change(UserId, Change, Reply<()>),
    Import(Box<WholeRoom>, Timestamp, Reply<RoomInfo>),
    Index(Reply<Progress>),
    /// Nobody wants anything.
    Idle,
}

/// Takes what is waiting, in its order, up to the first that cannot go along: that one is `next`.
fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>, next: &mut Option<Job>) -> Group {
    let (mut parts, mut rooms, mut intents) = (Vec::new(), BTreeSet::new(), 0);
    let mut job = Some(first);
    while let Some(one) = job.take() {
        match one {
            Job::Commit(batch, reply) if rooms.insert(batch.room) => {
                intents += batch.intents.len();
                parts.push(Part::Commit(batch, reply));
            }
            Job::Create(new, reply) => {
                intents += 1 + new.members.len();
                parts.push(Part::Create(new, reply));
            }
            Job::CreateUser(new, reply) if parts.is_empty() => return Group::User(new, reply),
            Job::ChangeUser(user, change, reply) if parts.is_empty() => return Group::Change(user, change, reply),
            Job::Import(room, now, reply) if parts.is_empty() => return Group::Import(room, now, reply),
            Job::Index(reply) if parts.is_empty() => return Group::Index(reply),
            // A second batch of a room must see the first one's rows, and users go by themselves.
            other => {
                *next = Some(other);
                break;
            }
        }
        if intents < MAX_INTENTS {
            job = jobs.try_recv().ok();
        }
    }
    Group::Parts(parts)
}

/// Whether there may be words to be added after it.
async fn serve(connection: &mut SqliteConnection, ids: &mut NextIds, kept: &mut Kept, group: Group) -> bool {
    match group {
        Group::Index(reply) => {
            let done = words::step(connection).await;
            let behind = !done.as_ref().is_ok_and(|progress| progress.is_done());
            drop(reply.send(done));
            return behind;
        }
        // What fails now is tried again when somebody searches, or after the next message.
        Group::Idle => match words::step(connection).await {
            Ok(progress) => return !progress.is_done(),
            Err(error) => {
                tracing::debug!(%error, "words could not be added to the index");
                return false;
            }
        },
        Group::User(new, reply) => drop(reply.send(accounts(connection).create(new).await)),
        Group::Change(user, change, reply) => {
            drop(reply.send(accounts(connection).change(user, change).await));
        }
        Group::Import(room, now, reply) => {
            let done = import(connection, ids, *room, now).await;
            if done.is_err() {
                roll_back(connection).await;
            }
            drop(reply.send(done));
        }
        Group::Parts(parts) => together_or_alone(connection, ids, kept, parts).await,
    }
    true
}

async fn import(
    connection: &mut SqliteConnection,
    ids: &mut NextIds,
    mut room: WholeRoom,
    now: Timestamp,
) -> Result<RoomInfo> {
    room.renumber(ids, Epoch(now.0))?;
    write_whole(&room, connection).await?;
    Ok(room.room.info)
}

fn accounts(connection: &mut SqliteConnection) -> Accounts<'_, Sqlite> {
    Accounts {
        connection,
        fault: super::fault::fault,
    }
}

fn refuse(group: Group, error: &Error) {
    match group {
        Group::User(_, reply) => drop(reply.send(Err(error.again()))),
        Group::Change(_, _, reply) => drop(reply.send(Err(error.again()))),
        Group::Import(_, _, reply) => drop(reply.send(Err(error.again()))),
        Group::Index(reply) => drop(reply.send(Err(error.again()))),
        Group::Idle => {}
        Group::Parts(parts) => parts.into_iter().for_each(|part| part.refuse(error)),
    }
}

impl Part {
    fn refuse(self, error: &Error) {
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error.again()))),
            Self::Create(_, reply) => drop(reply.send(Err(error.again()))),
        }
    }
}

/// How a transaction went wrong.
pub(super) enum Trouble {
    /// One room may be the cause; the others can go on without it.
    Retry(Error),
    /// Trying again at once cannot help, or nobody knows what was written.
    GiveUp(Error),
}

async fn together_or_alone(connection: &mut SqliteConnection, ids: &mut NextIds, kept: &mut Kept, parts: Vec<Part>) {
    let several = parts.len() > 1;
    match transaction(connection, ids, kept, &parts).await {
        Ok(answers) => {
            for (part, answer) in parts.into_iter().zip(answers) {
                part.answer(answer);
            }
        }
        Err(Trouble::Retry(_)) if several => {
            for part in parts {
                match transaction(connection, ids, kept, std::slice::from_ref(&part)).await {
                    Ok(mut answers) => match answers.pop() {
                        Some(answer) => part.answer(answer),
                        None => part.refuse(&Error::internal("a commit without an answer")),
                    },
                    Err(Trouble::Retry(error) | Trouble::GiveUp(error)) => tell(vec![part], &error),
                }
            }
        }
        Err(Trouble::Retry(error) | Trouble::GiveUp(error)) => tell(parts, &error),
    }
}

fn tell(parts: Vec<Part>, error: &Error) {
    let cause = std::error::Error::source(error);
    tracing::warn!(%error, cause, "a commit failed");
    parts.into_iter().for_each(|part| part.refuse(error));
}

/// What to answer to one part, once everything is durable.
enum Answer {
    Committed(Committed),
    Created(Result<(RoomInfo, Vec<Arc<Event>>)>),
}

impl Part {
    fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Commit(_, reply), Answer::Committed(committed)) => drop(reply.send(Ok(committed))),
            (Self::Create(_, reply), Answer::Created(created)) => drop(reply.send(created)),
            (part, _) => part.refuse(&Error::internal("a commit with another's answer")),
        }
    }
}

/// Decides and writes all parts in one transaction, which is over when this returns.
async fn transaction(
    connection: &mut SqliteConnection,
    ids: &mut NextIds,
    kept: &mut Kept,
    parts: &[Part],
) -> Result<Vec<Answer>, Trouble> {
    let tried = decide_and_write(connection, ids, kept, parts).await;
    if tried.is_err() {
        kept.forget();
        roll_back(connection).await;
    }
    tried
}

async fn decide_and_write(
    connection: &mut SqliteConnection,
    ids: &mut NextIds,
    kept: &mut Kept,
    parts: &[Part],
) -> Result<Vec<Answer>, Trouble> {
    let wanted: Vec<_> = parts.iter().filter_map(Part::needs).collect();
    let known = wanted
        .iter()
        .map(|(room, needs)| Some((*room, kept.facts(*room, needs)?)));
    let known: Option<Loaded> = known.collect();
    let begun = known.is_none();
    let facts = match known {
        Some(known) => known,
        None => {
            let loaded = load(connection, &wanted).await?;
            loaded.iter().for_each(|(room, facts)| kept.learn(*room, facts));
            loaded
        }
    };
    let Decided { answers, rows, changed } = decide(parts, facts, ids).map_err(Trouble::Retry)?;
    write(rows, connection, begun).await?;
    for (room, changed) in changed {
        kept.follow(room, changed);
    }
    Ok(answers)
}

/// What becomes of the parts of a transaction.
struct Decided {
    answers: Vec<Answer>,
    rows: Rows,
    /// What changes of that which is kept, once the rows are on disk.
    changed: Vec<(RoomId, Changed)>,
}

impl Part {
    fn needs(&self) -> Option<(RoomId, Needs)> {
        match self {
            Self::Commit(batch, _) => Some((batch.room, Needs::of(batch))),
            Self::Create(..) => None,
        }
    }
}

fn decide(parts: &[Part], mut facts: Loaded, ids: &mut NextIds) -> Result<Decided> {
    let (mut rows, mut changed) = (Rows::default(), Vec::with_capacity(parts.len()));
    let mut answers = Vec::with_capacity(parts.len());
    for part in parts {
        answers.push(match part {
            Part::Commit(batch, _) => {
                let facts = facts.remove(&batch.room).unwrap_or_default();
                let mut plan = plan(facts, batch.clone(), ids);
                rows.add_plan(batch.room, &plan)?;
                changed.push((batch.room, Changed::of(&mut plan)));
                Answer::Committed(plan.committed)
            }
            Part::Create(new, _) => Answer::Created(match plan_creation(new.clone(), ids) {
                Ok(creation) => {
                    rows.add_creation(&creation)?;
                    Ok((creation.room.info, creation.committed))
                }
                Err(error) => Err(error),
            }),
        });
    }
    Ok(Decided { answers, rows, changed })
}

/// Ends a transaction that failed. SQLite may have ended it already, which is then an error of no interest.
async fn roll_back(connection: &mut SqliteConnection) {
    if let Err(error) = sqlx::query("ROLLBACK").execute(connection).await {
        tracing::debug!(%error, "nothing to roll back");
    }
}
