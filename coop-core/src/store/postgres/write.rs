//! Writing what was decided for a room. Rows travel as JSON arrays, one for each kind of row, and what most commits make
//! is one statement.

use super::Engine;
use super::fault::fault;
use crate::error::Result;
use crate::store::sql::write::Rows;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Executor, Postgres};

/// `$1` rooms, `$2` new messages, `$3` members, `$4` turns, `$5` events, `$6` this engine, which takes every turn that it
/// admits or starts. Each part writes a table of its own, so that it does not matter that none sees another's rows;
/// references between them are checked at the end.
pub(super) const USUAL: &str = concat!(
    "WITH rooms AS (INSERT INTO chats (id, name, owner_id, is_group, is_ai_chat, created_at, epoch, last_seq, last_number, \
     member_count) SELECT (v ->> 0)::BIGINT, v ->> 1, (v ->> 2)::BIGINT, (v ->> 3)::BOOLEAN, (v ->> 4)::BOOLEAN, (v ->> \
     5)::BIGINT, (v ->> 6)::BIGINT, (v ->> 7)::BIGINT, (v ->> 8)::BIGINT, (v ->> 9)::BIGINT FROM \
     jsonb_array_elements($1::JSONB) v ON CONFLICT (id) DO UPDATE SET name = excluded.name, owner_id = excluded.owner_id, \
     last_seq = excluded.last_seq, last_number = excluded.last_number, member_count = excluded.member_count), ",
    "posted AS (INSERT INTO messages (id, chat_id, number, seq, user_id, bot, author_name, content, status, error, \
     reply_to, meta, client_id, body_hash, created_at, edited_at, deleted_at) SELECT (v ->> 0)::BIGINT, (v ->> 1)::BIGINT, \
     (v ->> 2)::BIGINT, (v ->> 3)::BIGINT, (v ->> 4)::BIGINT, v ->> 5, v ->> 6, v ->> 7, v ->> 8, v ->> 9, (v ->> \
     10)::BIGINT, v ->> 11, v ->> 12, decode(v ->> 13, 'hex'), (v ->> 14)::BIGINT, (v -> 15 ->> 0)::BIGINT, (v -> 15 ->> \
     1)::BIGINT FROM jsonb_array_elements($2::JSONB) v), ",
    "people AS (INSERT INTO chat_participants (chat_id, user_id, username, role, joined_at, joined_seq, read_seq, \
     read_number, discount, read_at) SELECT (v ->> 0)::BIGINT, (v ->> 1)::BIGINT, v ->> 2, v ->> 3, (v ->> 4)::BIGINT, (v \
     ->> 5)::BIGINT, (v ->> 6)::BIGINT, (v ->> 7)::BIGINT, (v ->> 8)::BIGINT, (v ->> 9)::BIGINT FROM \
     jsonb_array_elements($3::JSONB) v ON CONFLICT (chat_id, user_id) DO UPDATE SET username = excluded.username, role = \
     excluded.role, joined_at = excluded.joined_at, joined_seq = excluded.joined_seq, read_seq = excluded.read_seq, \
     read_number = excluded.read_number, discount = excluded.discount, read_at = excluded.read_at), ",
    "asked AS (INSERT INTO turns (id, chat_id, bot, asked_by, asker_name, ask_id, ask_seq, message_id, status, ending, \
     created_at, attempt, hop, tokens, owner) SELECT (v ->> 0)::BIGINT, (v ->> 1)::BIGINT, v ->> 2, (v ->> 3)::BIGINT, v ->> \
     4, (v ->> 5)::BIGINT, (v ->> 6)::BIGINT, (v ->> 7)::BIGINT, v ->> 8, v ->> 9, (v ->> 10)::BIGINT, (v ->> 11)::BIGINT, (v \
     ->> 12)::BIGINT, v ->> 13, $6 FROM jsonb_array_elements($4::JSONB) v ON CONFLICT (id) DO UPDATE SET message_id = \
     excluded.message_id, status = excluded.status, ending = excluded.ending, tokens = excluded.tokens, owner = CASE WHEN excluded.status = 'streaming' THEN excluded.owner ELSE turns.owner END) ",
    "INSERT INTO events (chat_id, seq, kind, message_id, turn_id, user_id, by_id, name, position, created_at) SELECT (v ->> \
     0)::BIGINT, (v ->> 1)::BIGINT, v ->> 2, (v ->> 3)::BIGINT, (v ->> 4)::BIGINT, (v ->> 5)::BIGINT, (v ->> 6)::BIGINT, v \
     ->> 7, (v ->> 8)::BIGINT, (v ->> 9)::BIGINT FROM jsonb_array_elements($5::JSONB) v",
);

/// Before the members, whose rows hold them already.
pub(super) const DISCOUNTS: &str = "UPDATE chat_participants p SET discount = p.discount + d.more FROM (SELECT q.chat_id, \
     q.user_id, COUNT(*) AS more FROM jsonb_array_elements($1::JSONB) v JOIN chat_participants q ON q.chat_id = (v ->> \
     0)::BIGINT AND q.read_number < (v ->> 1)::BIGINT AND (v ->> 2 IS NULL OR q.user_id = (v ->> 2)::BIGINT) AND q.user_id IS \
     DISTINCT FROM (v ->> 3)::BIGINT GROUP BY q.chat_id, q.user_id) d WHERE p.chat_id = d.chat_id AND p.user_id = d.user_id";
pub(super) const UPDATED: &str = "UPDATE messages m SET content = v ->> 1, status = v ->> 2, error = v ->> 3, meta = v ->> 4, \
     edited_at = (v ->> 5)::BIGINT, deleted_at = (v ->> 6)::BIGINT, edits = (v ->> 7)::BIGINT FROM jsonb_array_elements($1::JSONB) v WHERE m.id = (v ->> \
     0)::BIGINT";
pub(super) const CHECKPOINTS: &str =
    "UPDATE messages m SET content = v ->> 1 FROM jsonb_array_elements($1::JSONB) v WHERE m.id = (v ->> 0)::BIGINT";
pub(super) const REMOVED: &str = "DELETE FROM chat_participants p USING jsonb_array_elements($1::JSONB) v WHERE p.chat_id = (v \
     ->> 0)::BIGINT AND p.user_id = (v ->> 1)::BIGINT";
pub(super) const DELETED: &str =
    "DELETE FROM chats c USING jsonb_array_elements($1::JSONB) v WHERE c.id = (v #>> '{}')::BIGINT";
pub(super) const SETTINGS: &str =
    "UPDATE chats c SET settings = v ->> 1 FROM jsonb_array_elements($1::JSONB) v WHERE c.id = (v ->> 0)::BIGINT";
pub(super) const RECEIPTS: &str =
    "UPDATE turns t SET receipt = v ->> 1 FROM jsonb_array_elements($1::JSONB) v WHERE t.id = (v ->> 0)::BIGINT";
/// Added up first: one statement may not touch a row twice.
pub(super) const USAGE: &str = "INSERT INTO usage (user_id, day, chat_id, bot, turns, input, output, total) SELECT (v ->> \
     0)::BIGINT, (v ->> 1)::BIGINT, (v ->> 2)::BIGINT, v ->> 3, SUM((v ->> 4)::BIGINT), SUM((v ->> 5)::BIGINT), SUM((v ->> \
     6)::BIGINT), SUM((v ->> 7)::BIGINT) FROM jsonb_array_elements($1::JSONB) v GROUP BY 1, 2, 3, 4 ON CONFLICT (user_id, day, \
     chat_id, bot) DO UPDATE SET turns = usage.turns + excluded.turns, input = usage.input + excluded.input, output = \
     usage.output + excluded.output, total = usage.total + excluded.total";
pub(super) const STOPS: &str = "UPDATE turns t SET stop = v ->> 1 FROM jsonb_array_elements($1::JSONB) v WHERE t.id = (v ->> \
     0)::BIGINT AND t.stop IS NULL";

/// Writes everything, in a transaction or as one if it is [usual](Rows::is_usual).
pub(super) async fn write(rows: Rows, connection: &mut PgConnection, engine: Engine) -> Result<()> {
    let common = [&rows.rooms, &rows.messages, &rows.members, &rows.turns, &rows.events];
    let common = common.iter().any(|array| !array.is_empty());
    let before = [(DISCOUNTS, rows.discounts)];
    let after = [
        (UPDATED, rows.updated),
        (CHECKPOINTS, rows.checkpoints),
        (REMOVED, rows.removed),
        (SETTINGS, rows.settings),
        (RECEIPTS, rows.receipts),
        (USAGE, rows.usage),
        (DELETED, rows.deleted),
        (STOPS, rows.stops),
    ];
    for (statement, array) in before {
        if !array.is_empty() {
            run(connection, sqlx::query(statement).bind(array.finish())).await?;
        }
    }
    if common {
        let query = sqlx::query(USUAL)
            .bind(rows.rooms.finish())
            .bind(rows.messages.finish())
            .bind(rows.members.finish())
            .bind(rows.turns.finish())
            .bind(rows.events.finish())
            .bind(engine.0);
        run(connection, query).await?;
    }
    for (statement, array) in after {
        if !array.is_empty() {
            run(connection, sqlx::query(statement).bind(array.finish())).await?;
        }
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, query: Query<'_, Postgres, PgArguments>) -> Result<()> {
    connection.execute(query).await.map(drop).map_err(fault)
}
