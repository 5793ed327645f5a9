//! Writing what was decided for several rooms: one round trip that writes every row and commits.
//!
//! Rows travel as JSON arrays, one array per kind of row, so that one statement writes all rows of its kind. They are
//! taken apart with `jsonb_each` (SQLite 3.51, which is compiled in), which parses a text once and not once a column.

use super::committer::Trouble;
use super::fault::commit_fault;
use crate::error::Result;
use crate::store::WholeRoom;
use crate::store::sql::write::Rows;
use futures::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Executor, Sqlite};

/// What most commits write, from these: rooms, new messages, members, turns, events.
macro_rules! usual {
    ($rooms:literal, $messages:literal, $members:literal, $turns:literal, $events:literal) => {
        concat!(
            "INSERT INTO chats (id, name, owner_id, is_group, is_ai_chat, created_at, epoch, last_seq, last_number, \
             member_count) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> \
             6, value ->> 7, value ->> 8, value ->> 9 FROM jsonb_each(", $rooms, ") WHERE true ON CONFLICT (id) DO UPDATE SET name = \
             excluded.name, owner_id = excluded.owner_id, last_seq = excluded.last_seq, last_number = \
             excluded.last_number, member_count = excluded.member_count;",
            "INSERT INTO messages (id, chat_id, number, seq, user_id, bot, author_name, content, status, error, reply_to, \
             meta, client_id, body_hash, created_at, edited_at, deleted_at) SELECT value ->> 0, value ->> 1, value ->> 2, \
             value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, \
             value ->> 11, value ->> 12, unhex(value ->> 13), value ->> 14, value ->> '$[15][0]', value ->> '$[15][1]' \
             FROM jsonb_each(", $messages, ");",
            "INSERT INTO chat_participants (chat_id, user_id, username, role, joined_at, joined_seq, read_seq, \
             read_number, discount, read_at) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value \
             ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9 FROM jsonb_each(", $members, ") WHERE true ON CONFLICT (chat_id, user_id) DO UPDATE \
             SET username = excluded.username, role = excluded.role, joined_at = excluded.joined_at, joined_seq = \
             excluded.joined_seq, read_seq = excluded.read_seq, read_number = excluded.read_number, discount = \
             excluded.discount, read_at = excluded.read_at;",
            "INSERT INTO turns (id, chat_id, bot, asked_by, asker_name, ask_id, ask_seq, message_id, status, ending, \
             created_at, attempt, hop, tokens) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value \
             ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> \
             13 FROM jsonb_each(", $turns, ") WHERE true ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id, \
             status = excluded.status, ending = excluded.ending, tokens = excluded.tokens;",
            "INSERT INTO events (chat_id, seq, kind, message_id, turn_id, user_id, by_id, name, position, created_at) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> \
             7, value ->> 8, value ->> 9 FROM jsonb_each(", $events, ");",
        )
    };
}

/// The rarer rows too: `$6` changed messages, `$7` checkpoints, `$8` discounts, `$9` removed members, `$10` deleted
/// rooms, `$11` settings, `$12` receipts, `$13` tokens used. The discounts come before the members, whose rows hold them already.
pub(super) const WRITE_ALL: &str = concat!(
    "UPDATE chat_participants SET discount = discount + d.more FROM (SELECT chat_id, user_id, COUNT(*) AS more FROM \
     (SELECT p.chat_id, p.user_id FROM jsonb_each($8) j CROSS JOIN chat_participants p ON p.chat_id = j.value ->> 0 AND \
     p.user_id = j.value ->> 2 WHERE p.read_number < j.value ->> 1 UNION ALL SELECT p.chat_id, p.user_id FROM \
     jsonb_each($8) j CROSS JOIN chat_participants p ON p.chat_id = j.value ->> 0 WHERE j.value ->> 2 IS NULL AND \
     p.read_number < j.value ->> 1 AND p.user_id IS NOT j.value ->> 3) GROUP BY chat_id, user_id) d WHERE \
     chat_participants.chat_id = d.chat_id AND chat_participants.user_id = d.user_id;",
    usual!("$1", "$2", "$3", "$4", "$5"),
    "UPDATE messages SET content = j.value ->> 1, status = j.value ->> 2, error = j.value ->> 3, meta = j.value ->> 4, \
     edited_at = j.value ->> 5, deleted_at = j.value ->> 6, edits = j.value ->> 7 FROM jsonb_each($6) j WHERE messages.id = j.value ->> 0;",
    "UPDATE messages SET content = j.value ->> 1 FROM jsonb_each($7) j WHERE messages.id = j.value ->> 0;",
    "DELETE FROM chat_participants WHERE (chat_id, user_id) IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each($9));",
    "UPDATE chats SET settings = j.value ->> 1 FROM jsonb_each($11) j WHERE chats.id = j.value ->> 0;",
    "UPDATE turns SET receipt = j.value ->> 1 FROM jsonb_each($12) j WHERE turns.id = j.value ->> 0;",
    "INSERT INTO usage (user_id, day, chat_id, bot, turns, input, output, total) SELECT value ->> 0, value ->> 1, value ->> \
     2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7 FROM jsonb_each($13) WHERE true ON CONFLICT \
     (user_id, day, chat_id, bot) DO UPDATE SET turns = usage.turns + excluded.turns, input = usage.input + excluded.input, \
     output = usage.output + excluded.output, total = usage.total + excluded.total;",
    "DELETE FROM chats WHERE id IN (SELECT value FROM jsonb_each($10));",
    "COMMIT;"
);

/// When there are no rarer rows.
pub(super) const WRITE_USUAL: &str = concat!(usual!("$1", "$2", "$3", "$4", "$5"), "COMMIT;");

/// The same as a transaction of its own, in one statement: after each statement of several sqlx wakes whoever waits for
/// the last, and those wakings cost more than the statements. What is inserted into this view, of this connection alone, is
/// written to the tables.
pub(super) const MAKE_USUAL_ONE: [&str; 2] = [
    "CREATE TEMP VIEW usual (rooms, messages, members, turns, events) AS SELECT NULL, NULL, NULL, NULL, NULL",
    concat!(
        "CREATE TEMP TRIGGER usual_is_written INSTEAD OF INSERT ON usual BEGIN ",
        usual!("NEW.rooms", "NEW.messages", "NEW.members", "NEW.turns", "NEW.events"),
        " END"
    ),
];

/// Fails whole or not at all, its commit included.
pub(super) const WRITE_USUAL_AS_ONE: &str = "INSERT INTO usual VALUES ($1, $2, $3, $4, $5)";

/// How many statements come before the `COMMIT` of `WRITE_USUAL` and `WRITE_ALL`.
const BEFORE_COMMIT: [usize; 2] = [5, 13];

const BEGIN: &str = "BEGIN IMMEDIATE";
const COMMIT: &str = "COMMIT;";

/// Writes everything and commits the transaction, which may have `begun`.
pub(super) async fn write(rows: Rows, connection: &mut SqliteConnection, begun: bool) -> Result<(), Trouble> {
    // Where one room cannot begin, no other can.
    let not_begun = |error| Trouble::GiveUp(commit_fault(error));
    let usual = rows.is_usual();
    let as_one = usual && !begun;
    let statements = match (usual, begun) {
        (true, true) => WRITE_USUAL,
        (true, false) => WRITE_USUAL_AS_ONE,
        (false, true) => WRITE_ALL,
        (false, false) => {
            sqlx::query(BEGIN).execute(&mut *connection).await.map_err(not_begun)?;
            WRITE_ALL
        }
    };
    let query = bound(statements, rows, !usual);
    let mut steps = connection.fetch_many(query);
    let mut done = 0;
    loop {
        match steps.try_next().await {
            Ok(Some(step)) => done += usize::from(step.is_left()),
            Ok(None) => return Ok(()),
            // Only what is in the rows can be one room's fault.
            Err(error) if as_one && !is_about_rows(&error) => return Err(Trouble::GiveUp(commit_fault(error))),
            Err(error) if as_one || done < BEFORE_COMMIT[usize::from(!usual)] => {
                return Err(Trouble::Retry(commit_fault(error)));
            }
            // The COMMIT itself: what it left behind is read when somebody asks again.
            Err(error) => return Err(Trouble::GiveUp(commit_fault(error))),
        }
    }
}

/// The statements with the arrays that they take; those of rarer rows if there may be some.
fn bound(statements: &'static str, rows: Rows, rarer: bool) -> Query<'static, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(statements);
    for array in [rows.rooms, rows.messages, rows.members, rows.turns, rows.events] {
        query = query.bind(array.finish());
    }
    if rarer {
        for array in [
            rows.updated,
            rows.checkpoints,
            rows.discounts,
            rows.removed,
            rows.deleted,
            rows.settings,
            rows.receipts,
            rows.usage,
        ] {
            query = query.bind(array.finish());
        }
    }
    query
}

/// Writes a whole room in one transaction. Whoever calls this rolls back if it fails.
pub(super) async fn write_whole(whole: &WholeRoom, connection: &mut SqliteConnection) -> Result<()> {
    let some = WRITE_ALL.strip_suffix(COMMIT).unwrap_or(WRITE_ALL);
    let mut run = async |query: Query<'static, Sqlite, SqliteArguments>| {
        query.execute(&mut *connection).await.map_err(commit_fault)
    };
    run(sqlx::query(BEGIN)).await?;
    for rows in Rows::pieces(whole) {
        run(bound(some, rows?, true)).await?;
    }
    run(sqlx::query(COMMIT)).await?;
    Ok(())
}

/// Whether it failed because of what was written, and not because it could not be.
fn is_about_rows(error: &sqlx::Error) -> bool {
    let kind = error.as_database_error().map(sqlx::error::DatabaseError::kind);
    kind.is_some_and(|kind| kind != sqlx::error::ErrorKind::Other)
}
