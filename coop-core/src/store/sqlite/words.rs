//! The words of messages, added to their index some time after the messages: while nobody writes, or when somebody searches.

use super::fault::fault;
use crate::error::Result;
use crate::store::sql::get;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Sqlite};

/// So many messages at a time: a few milliseconds, for which others wait.
const STEP: i64 = 500;

/// Up to where the words are there, where a step would end, and the newest message.
pub(super) const WHERE: &str = "SELECT s.indexed, (SELECT COALESCE(MAX(d.id), 0) FROM (SELECT m.id FROM messages m WHERE m.id > \
     s.indexed ORDER BY m.id LIMIT $1) d), (SELECT COALESCE(MAX(x.id), 0) FROM messages x) FROM message_words_state s";
/// `$1` up to where they are there, `$2` up to where they will be.
pub(super) const ADD: &str = "INSERT INTO message_words (rowid, chat, content) SELECT m.id, 'c' || m.chat_id, m.content FROM \
     messages m WHERE m.id > $1 AND m.id <= $2 AND m.status <> 'streaming' AND m.deleted_at IS NULL";
const DONE: &str = "UPDATE message_words_state SET indexed = $1";

/// How far the words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The newest message whose words are there.
    pub(super) indexed: i64,
    /// The newest message.
    pub(super) newest: i64,
}

impl Progress {
    pub(super) fn is_done(self) -> bool {
        self.indexed >= self.newest
    }
}

/// Adds the words of some more messages, if there are any.
pub(super) async fn step(connection: &mut SqliteConnection) -> Result<Progress> {
    // Nobody else writes, so what is found here stands until the step is done.
    let row = sqlx::query(WHERE).bind(STEP).fetch_one(&mut *connection).await;
    let row = row.map_err(fault)?;
    let at = |index| get::<i64, Sqlite>(&row, index);
    let (indexed, next, newest) = (at(0)?, at(1)?, at(2)?);
    if next <= indexed {
        return Ok(Progress { indexed, newest });
    }
    let mut step = connection.begin().await.map_err(fault)?;
    let added = sqlx::query(ADD).bind(indexed).bind(next).execute(&mut *step).await;
    added.map_err(fault)?;
    sqlx::query(DONE).bind(next).execute(&mut *step).await.map_err(fault)?;
    step.commit().await.map_err(fault)?;
    Ok(Progress { indexed: next, newest })
}
