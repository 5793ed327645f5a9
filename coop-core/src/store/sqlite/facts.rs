//! Loading what several batches need to be decided: one round trip that begins the transaction and reads everything.
//!
//! Each hop to sqlx's worker thread costs more than any of these statements, so all are one query text whose
//! statements share their arguments (SQLite's driver allows it as long as they are numbered). A statement with nothing
//! to look for costs about a microsecond.

use super::committer::Trouble;
use super::fault::{commit_fault, open_fault};
use crate::error::Result;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::store::plan::{Facts, Mark, Needs, NextIds};
use crate::store::sql::write::Array;
use crate::store::sql::{Reads, columns, get};
use futures::TryStreamExt;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Either, Executor, Sqlite};
use std::collections::BTreeMap;

/// The statements, in order. `$1` rooms; `$2` their users, `$3` client ids, `$4` messages, `$5` rooms whose open turns
/// are needed, `$6` turns, `$7` turns whose answers are needed, `$8` read marks: JSON arrays of rooms, or of arrays
/// that begin with a room. `$9` rooms whose turns since a person spoke are counted, `$10` rooms and the day on which what was
/// used in them, by `$2` and whoever asked for an open turn, is needed. `CROSS JOIN` tells SQLite to begin with the array.
pub(super) const LOAD: &str = concat!(
    "BEGIN IMMEDIATE;",
    "SELECT ",
    columns!(room),
    " FROM jsonb_each($1) j CROSS JOIN chats c ON c.id = j.value;",
    "SELECT p.chat_id, ",
    columns!(member),
    " FROM jsonb_each($2) j CROSS JOIN chat_participants p ON p.chat_id = j.value ->> 0 AND p.user_id = j.value ->> 1;",
    "SELECT ",
    columns!(message),
    " FROM jsonb_each($4) j CROSS JOIN messages m ON m.id = j.value ->> 1 AND m.chat_id = j.value ->> 0 UNION ALL SELECT ",
    columns!(message),
    " FROM jsonb_each($3) j CROSS JOIN messages m ON m.chat_id = j.value ->> 0 AND m.user_id = j.value ->> 1 AND \
     m.client_id = j.value ->> 2 UNION ALL SELECT ",
    columns!(message),
    " FROM jsonb_each($7) j CROSS JOIN turns t ON t.id = j.value ->> 1 AND t.chat_id = j.value ->> 0 CROSS JOIN messages \
     m ON m.id = t.message_id;",
    "SELECT ",
    columns!(turn),
    " FROM jsonb_each($5) j CROSS JOIN turns t ON t.chat_id = j.value WHERE t.status IN ('queued', 'streaming') UNION ALL \
     SELECT ",
    columns!(turn),
    " FROM jsonb_each($6) j CROSS JOIN turns t ON t.id = j.value ->> 1 AND t.chat_id = j.value ->> 0 UNION ALL SELECT ",
    columns!(turn),
    " FROM jsonb_each($4) j CROSS JOIN turns t ON t.message_id = j.value ->> 1 AND t.chat_id = j.value ->> 0 UNION ALL \
     SELECT ",
    columns!(turn),
    " FROM jsonb_each($3) j CROSS JOIN messages m ON m.chat_id = j.value ->> 0 AND m.user_id = j.value ->> 1 AND \
     m.client_id = j.value ->> 2 CROSS JOIN turns t ON t.ask_id = m.id;",
    // The mark's number first, then what is quiet above it.
    "SELECT k.room, k.user, k.seq, k.number, (SELECT COUNT(*) FROM messages q WHERE q.chat_id = k.room AND q.number > \
     k.number AND (q.deleted_at IS NOT NULL OR q.bot IS NOT NULL) AND (q.deleted_at IS NOT NULL OR EXISTS (SELECT 1 FROM \
     turns t WHERE t.message_id = q.id AND t.asked_by = k.user))) FROM (SELECT j.value ->> 0 AS room, j.value ->> 1 AS \
     user, j.value ->> 2 AS seq, COALESCE((SELECT m.number FROM messages m WHERE m.chat_id = j.value ->> 0 AND m.seq <= \
     j.value ->> 2 ORDER BY m.seq DESC LIMIT 1), 0) AS number FROM jsonb_each($8) j) k;",
    "SELECT j.value, (SELECT COUNT(*) FROM turns t WHERE t.chat_id = j.value AND t.ask_seq >= COALESCE((SELECT m.seq FROM \
     messages m WHERE m.chat_id = j.value AND m.user_id IS NOT NULL ORDER BY m.seq DESC LIMIT 1), 0) AND (t.status = \
     'queued' OR t.message_id IS NOT NULL)) FROM jsonb_each($9) j;",
    "SELECT j.value ->> 0, NULL, COALESCE((SELECT SUM(u.total) FROM usage u WHERE u.chat_id = j.value ->> 0 AND u.day = \
     j.value ->> 1), 0) FROM jsonb_each($10) j UNION ALL SELECT k.room, k.user, COALESCE((SELECT SUM(u.total) FROM usage u \
     WHERE u.user_id = k.user AND u.day = k.day), 0) FROM (SELECT j.value ->> 0 AS room, j.value ->> 1 AS day, i.value ->> \
     1 AS user FROM jsonb_each($10) j JOIN jsonb_each($2) i ON i.value ->> 0 = j.value ->> 0 UNION SELECT j.value ->> 0, \
     j.value ->> 1, t.asked_by FROM jsonb_each($10) j CROSS JOIN turns t ON t.chat_id = j.value ->> 0 WHERE t.status IN \
     ('queued', 'streaming')) k;",
);

/// What is known of each room.
pub(super) type Loaded = BTreeMap<RoomId, Facts>;

/// The largest id that each table has ever had.
pub(super) const SEQUENCES: &str = "SELECT name, seq FROM sqlite_sequence";

/// The ids that are free, for ever after to be counted in memory: this file has one writer.
pub(super) async fn next_ids(connection: &mut SqliteConnection) -> Result<NextIds> {
    let rows = sqlx::query(SEQUENCES).fetch_all(connection).await.map_err(open_fault)?;
    let mut ids = NextIds::default();
    for row in rows {
        let table: String = get::<_, Sqlite>(&row, 0)?;
        let next = get::<i64, Sqlite>(&row, 1)? + 1;
        match table.as_str() {
            "chats" => ids.room = RoomId(next),
            "messages" => ids.message = MessageId(next),
            "turns" => ids.turn = TurnId(next),
            _ => {}
        }
    }
    Ok(ids)
}

/// Begins the transaction and loads what these rooms need. Rooms that do not exist have no row in their facts.
pub(super) async fn load(connection: &mut SqliteConnection, wanted: &[(RoomId, Needs)]) -> Result<Loaded, Trouble> {
    let mut facts: BTreeMap<_, _> = wanted.iter().map(|(room, _)| (*room, Facts::default())).collect();
    let mut query = sqlx::query(LOAD);
    for argument in arguments(wanted).map_err(Trouble::Retry)? {
        query = query.bind(argument);
    }
    let mut steps = connection.fetch_many(query);
    let mut statement = 0;
    loop {
        let taken = match steps.try_next().await {
            Ok(None) => return Ok(facts),
            Ok(Some(Either::Left(_))) => {
                statement += 1;
                Ok(())
            }
            Ok(Some(Either::Right(row))) => take(&mut facts, statement, &row),
            // Where one room cannot begin, no other can.
            Err(error) if statement == 0 => return Err(Trouble::GiveUp(commit_fault(error))),
            Err(error) => Err(commit_fault(error)),
        };
        taken.map_err(Trouble::Retry)?;
    }
}

/// The rows of `LOAD`'s statements, by their place in it.
fn take(facts: &mut BTreeMap<RoomId, Facts>, statement: usize, row: &SqliteRow) -> Result<()> {
    type Rows = Reads<Sqlite>;
    let at_room = usize::from(matches!(statement, 3 | 4));
    let room = RoomId(get::<i64, Sqlite>(row, at_room)?);
    // A read that was not asked for cannot be: every statement begins with the rooms that were.
    let Some(facts) = facts.get_mut(&room) else {
        return Ok(());
    };
    match statement {
        1 => facts.room = Some(Rows::room_row(row, 0)?),
        2 => facts.members.push(Rows::member_row(row, 1)?),
        3 => facts.messages.push(Rows::message_row(row, 0)?),
        4 => facts.turns.push(Rows::turn_row(row, 0)?),
        5 => facts.marks.push(Mark {
            user: UserId(get::<_, Sqlite>(row, 1)?),
            seq: Seq(get::<_, Sqlite>(row, 2)?),
            number: get::<_, Sqlite>(row, 3)?,
            quiet: get::<_, Sqlite>(row, 4)?,
        }),
        6 => facts.turns_since_person = u32::try_from(get::<i64, Sqlite>(row, 1)?).unwrap_or(u32::MAX),
        _ => facts.spend(
            get::<Option<i64>, Sqlite>(row, 1)?.map(UserId),
            get::<i64, Sqlite>(row, 2)?,
        ),
    }
    Ok(())
}

fn arguments(wanted: &[(RoomId, Needs)]) -> Result<[String; 10]> {
    Ok([
        json(wanted.iter().map(|(room, _)| room))?,
        json(each(wanted, |needs| &needs.users))?,
        json(wanted.iter().flat_map(|(room, needs)| {
            let ids = needs.client_ids.iter();
            ids.map(move |(user, id)| (*room, *user, id))
        }))?,
        json(each(wanted, |needs| &needs.messages))?,
        json(
            wanted
                .iter()
                .filter(|(_, needs)| needs.open_turns)
                .map(|(room, _)| room),
        )?,
        json(each(wanted, |needs| &needs.turns))?,
        json(each(wanted, |needs| &needs.answers))?,
        json(wanted.iter().flat_map(|(room, needs)| {
            let marks = needs.marks.iter();
            marks.map(move |(user, seq)| (*room, *user, *seq))
        }))?,
        json(
            wanted
                .iter()
                .filter(|(_, needs)| needs.turns_since_person)
                .map(|(room, _)| room),
        )?,
        json(wanted.iter().filter_map(|(room, needs)| Some((*room, needs.spent?.0))))?,
    ])
}

fn each<'a, T, I>(
    wanted: &'a [(RoomId, Needs)],
    of: impl Fn(&'a Needs) -> I + 'a,
) -> impl Iterator<Item = (RoomId, &'a T)>
where
    T: 'a,
    I: IntoIterator<Item = &'a T>,
{
    wanted
        .iter()
        .flat_map(move |(room, needs)| of(needs).into_iter().map(move |id| (*room, id)))
}

/// A JSON array of these.
fn json(items: impl Iterator<Item = impl Serialize>) -> Result<String> {
    let mut array = Array::default();
    for item in items {
        array.push(&item)?;
    }
    Ok(array.finish())
}
