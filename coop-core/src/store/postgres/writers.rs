//! Connections that write, and transactions on them. A connection goes back only when its transaction has ended well:
//! one that failed, timed out or was given up is dropped, and with it whatever it was about to do.

use super::fault::{fault, is_lost};
use super::open;
use crate::error::{Error, ErrorKind, Result};
use crate::id::RoomId;
use crate::store::plan::RoomRow;
use crate::store::sql::users::unwritten;
use crate::store::sql::{Reads, columns};
use crate::sync::lock;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

pub(super) struct Writers {
    connect: PgConnectOptions,
    /// Those that are free. The one that was used last is used next, so that few are kept busy.
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
    count: u32,
    /// How long a transaction may take, the wait for a connection included.
    patience: Duration,
}

impl std::fmt::Debug for Writers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writers")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// One room orders its commits by this lock, over all servers. Sent with `BEGIN`, as text, to save a trip.
fn begin_and_lock(room: RoomId) -> String {
    const LOCK: &str = concat!("BEGIN; SELECT ", columns!(room), " FROM chats c WHERE c.id = ");
    format!("{LOCK}{} FOR UPDATE", room.0)
}

impl Writers {
    pub(super) fn new(connect: PgConnectOptions, count: u32, patience: Duration) -> Self {
        let count = count.max(1);
        Self {
            connect,
            idle: Mutex::default(),
            permits: Semaphore::new(count as usize),
            count,
            patience,
        }
    }

    /// Begins a transaction and locks this room, if there is one.
    pub(super) async fn begin(&self, room: Option<RoomId>) -> Result<(Transaction<'_>, Option<RoomRow>)> {
        let deadline = Instant::now() + self.patience;
        let late = |_| Error::unavailable("the database does not answer");
        timeout_at(deadline, self.begin_by(room, deadline))
            .await
            .map_err(late)?
    }

    async fn begin_by(&self, room: Option<RoomId>, deadline: Instant) -> Result<(Transaction<'_>, Option<RoomRow>)> {
        let permit = self.permits.acquire().await.map_err(|_| Error::closed())?;
        let statements = room.map_or_else(|| "BEGIN".to_owned(), begin_and_lock);
        loop {
            let kept = lock(&self.idle).pop();
            let used = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => open::connect(&self.connect, self.patience).await?,
            };
            match locked(&mut connection, &statements).await {
                Ok(row) => {
                    let transaction = Transaction {
                        connection,
                        writers: self,
                        deadline,
                        _permit: permit,
                    };
                    return Ok((transaction, row));
                }
                // The server has restarted since: nothing was begun there.
                Err(error) if used && is_lost(&error) => {}
                Err(error) => return Err(unwritten(fault(error))),
            }
        }
    }

    /// Waits for those that are writing, and lets nobody begin any more.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(self.count);
        let _ = tokio::time::timeout(self.patience, all).await;
        self.permits.close();
        let idle = std::mem::take(&mut *lock(&self.idle));
        for connection in idle {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
        }
    }
}

async fn locked(connection: &mut PgConnection, statements: &str) -> Result<Option<RoomRow>, sqlx::Error> {
    // Nothing but a number was put into it.
    let query = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    let row: Option<PgRow> = connection.fetch_optional(query).await?;
    row.map(|row| Reads::<Postgres>::room_row(&row, 0))
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A transaction under way. Dropping it closes its connection, and the server takes back what was not committed.
pub(super) struct Transaction<'a> {
    connection: PgConnection,
    writers: &'a Writers,
    deadline: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Transaction<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// When it must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Commits what went well. What did not is given up, and the connection kept if it was only refused.
    pub(super) async fn finish<T>(self, written: Result<T>) -> Result<T> {
        match written {
            Ok(written) => self.commit().await.map(|()| written),
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal) => Err(unwritten(error)),
            Err(refused) => {
                self.roll_back().await?;
                Err(refused)
            }
        }
    }

    /// # Errors
    /// `Unavailable`: it is in doubt whether anything was written.
    pub(super) async fn commit(self) -> Result<()> {
        self.end("COMMIT").await
    }

    /// Gives up what was begun, of which nothing is kept.
    pub(super) async fn roll_back(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<()> {
        let done = timeout_at(self.deadline, self.connection.execute(sqlx::raw_sql(statement))).await;
        done.map_err(|_| Error::unavailable("the database does not answer"))?
            .map_err(|error| unwritten(fault(error)))?;
        lock(&self.writers.idle).push(self.connection);
        Ok(())
    }
}
