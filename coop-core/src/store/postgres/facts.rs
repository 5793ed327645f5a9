//! Loading what a batch needs to be decided: the room's row, locked, and then all else in one statement of its own,
//! which sees what the last holder of the lock has written.

use super::Engine;
use super::fault::fault;
use crate::error::{Error, Result};
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::store::plan::{Facts, Ids, Mark, Needs, RoomRow};
use crate::store::sql::{Reads, columns, get, width};
use futures::TryStreamExt;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Postgres};
use std::collections::VecDeque;

/// Nothing, once for each column of a kind of row.
macro_rules! nothing {
    (member) => {
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    };
    (message) => {
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    };
    (turn) => {
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    };
    (numbers) => {
        "NULL, NULL, NULL, NULL"
    };
}

/// A message, by its alias `m`.
macro_rules! a_message {
    () => {
        concat!(
            " UNION ALL SELECT 2, ",
            nothing!(member),
            ", ",
            columns!(message),
            ", ",
            nothing!(turn),
            ", ",
            nothing!(numbers)
        )
    };
}

/// A turn, by its alias `t`, and whether another engine that is alive has it.
macro_rules! a_turn {
    () => {
        concat!(
            " UNION ALL SELECT 3, ",
            nothing!(member),
            ", ",
            nothing!(message),
            ", ",
            columns!(turn),
            ", t.owner <> $10 AND EXISTS (SELECT 1 FROM engines n WHERE n.id = t.owner AND n.lease_until > \
             clock_timestamp()), ",
            nothing!(numbers)
        )
    };
}

/// Rows that are nothing but numbers.
macro_rules! numbers {
    ($kind:literal) => {
        concat!(
            " UNION ALL SELECT ",
            $kind,
            ", ",
            nothing!(member),
            ", ",
            nothing!(message),
            ", ",
            nothing!(turn),
            ", "
        )
    };
}

/// Every row that is needed, in one answer: 1 a member, 2 a message, 3 a turn, 4 a mark, 5 a fresh id of a message, 6 of a
/// turn, 7 how many turns there have been since a person spoke, 8 what was used, by whom or in the room. `$1` room; `$2` users; `$3` and `$4` client ids and their authors; `$5` messages; `$6` whether open turns are
/// needed; `$7` turns; `$8` and `$9` marks; `$10` this engine; `$11` and `$12` how many fresh ids; `$13` turns whose answers
/// are needed; `$14` whether turns since a person spoke are counted; `$15` the day on which what was used is needed, if it is.
/// The first line gives the columns their types and has no rows.
pub(super) const LOAD: &str = concat!(
    "SELECT 0::BIGINT, ",
    columns!(member),
    ", ",
    columns!(message),
    ", ",
    columns!(turn),
    ", false, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT FROM chat_participants p, messages m, turns t WHERE false",
    " UNION ALL SELECT 1, ",
    columns!(member),
    ", ",
    nothing!(message),
    ", ",
    nothing!(turn),
    ", ",
    nothing!(numbers),
    " FROM chat_participants p WHERE p.chat_id = $1 AND p.user_id = ANY ($2)",
    a_message!(),
    " FROM messages m WHERE m.id = ANY ($5) AND m.chat_id = $1",
    a_message!(),
    " FROM UNNEST($3::TEXT[], $4::BIGINT[]) k (client_id, author) JOIN messages m ON m.chat_id = $1 AND m.user_id = k.author \
     AND m.client_id = k.client_id",
    a_message!(),
    " FROM turns t JOIN messages m ON m.id = t.message_id WHERE t.id = ANY ($13) AND t.chat_id = $1",
    a_turn!(),
    " FROM turns t WHERE $6 AND t.chat_id = $1 AND t.status IN ('queued', 'streaming')",
    a_turn!(),
    " FROM turns t WHERE t.id = ANY ($7) AND t.chat_id = $1",
    a_turn!(),
    " FROM turns t WHERE t.message_id = ANY ($5) AND t.chat_id = $1",
    a_turn!(),
    " FROM UNNEST($3::TEXT[], $4::BIGINT[]) k (client_id, author) JOIN messages m ON m.chat_id = $1 AND m.user_id = k.author \
     AND m.client_id = k.client_id JOIN turns t ON t.ask_id = m.id",
    // The mark's number first, then what is quiet above it.
    numbers!("4"),
    "k.who, k.seq, k.number, (SELECT COUNT(*) FROM messages q WHERE q.chat_id = $1 AND q.number > k.number AND \
     (q.deleted_at IS NOT NULL OR q.bot IS NOT NULL) AND (q.deleted_at IS NOT NULL OR EXISTS (SELECT 1 FROM turns t WHERE \
     t.message_id = q.id AND t.asked_by = k.who))) FROM (SELECT j.who, j.seq, COALESCE((SELECT m.number FROM messages m \
     WHERE m.chat_id = $1 AND m.seq <= j.seq ORDER BY m.seq DESC LIMIT 1), 0) AS number FROM UNNEST($8::BIGINT[], \
     $9::BIGINT[]) j (who, seq)) k",
    numbers!("5"),
    "nextval('message_ids'), NULL, NULL, NULL FROM generate_series(1, $11)",
    numbers!("6"),
    "nextval('turn_ids'), NULL, NULL, NULL FROM generate_series(1, $12)",
    numbers!("7"),
    "COUNT(*), NULL, NULL, NULL FROM turns t WHERE $14 AND t.chat_id = $1 AND t.ask_seq >= COALESCE((SELECT m.seq FROM messages \
     m WHERE m.chat_id = $1 AND m.user_id IS NOT NULL ORDER BY m.seq DESC LIMIT 1), 0) AND (t.status = 'queued' OR \
     t.message_id IS NOT NULL)",
    numbers!("8"),
    "SUM(u.total)::BIGINT, NULL, NULL, NULL FROM usage u WHERE u.chat_id = $1 AND u.day = $15",
    numbers!("8"),
    "SUM(u.total)::BIGINT, u.user_id, NULL, NULL FROM usage u WHERE u.day = $15 AND u.user_id IN (SELECT UNNEST($2) UNION \
     SELECT t.asked_by FROM turns t WHERE t.chat_id = $1 AND t.status IN ('queued', 'streaming')) GROUP BY u.user_id",
);

/// Ids for a whole room: 0 for the room, 1 for messages, 2 for turns.
pub(super) const MANY: &str = "SELECT 0::BIGINT, nextval('chat_ids') UNION ALL SELECT 1, nextval('message_ids') FROM \
     generate_series(1, $1) UNION ALL SELECT 2, nextval('turn_ids') FROM generate_series(1, $2)";

/// Fresh ids, taken while the room was locked: later turns of a room have larger ones, whichever server admits them.
#[derive(Debug, Default)]
pub(super) struct FreshIds {
    pub(super) room: i64,
    pub(super) messages: VecDeque<i64>,
    pub(super) turns: VecDeque<i64>,
    /// Whether more were taken than there are: a defect, and nothing may be written.
    pub(super) short: bool,
}

impl FreshIds {
    fn take(ids: &mut VecDeque<i64>, short: &mut bool) -> i64 {
        let next = ids.pop_front();
        *short |= next.is_none();
        next.unwrap_or_default()
    }

    /// Ids for a room of so many messages and turns.
    pub(super) async fn many(connection: &mut PgConnection, messages: usize, turns: usize) -> Result<Self> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let mut fresh: Vec<(i64, i64)> = sqlx::query_as(MANY)
            .bind(count(messages))
            .bind(count(turns))
            .fetch_all(connection)
            .await
            .map_err(fault)?;
        fresh.sort_unstable();
        let of = |kind: i64| fresh.iter().filter(move |(of, _)| *of == kind).map(|(_, id)| *id);
        Ok(Self {
            room: of(0).next().unwrap_or_default(),
            messages: of(1).collect(),
            turns: of(2).collect(),
            short: false,
        })
    }

    /// # Errors
    /// `Internal` if there were too few.
    pub(super) fn check(&self) -> Result<()> {
        match self.short {
            true => Err(Error::internal("a batch took more ids than it said it would")),
            false => Ok(()),
        }
    }
}

impl Ids for FreshIds {
    fn room(&mut self) -> RoomId {
        RoomId(self.room)
    }

    fn message(&mut self) -> MessageId {
        MessageId(Self::take(&mut self.messages, &mut self.short))
    }

    fn turn(&mut self) -> TurnId {
        TurnId(Self::take(&mut self.turns, &mut self.short))
    }
}

/// Loads what else this batch needs of a room that is locked.
pub(super) async fn load(
    connection: &mut PgConnection,
    room: RoomRow,
    needs: &Needs,
    engine: Engine,
) -> Result<(Facts, FreshIds)> {
    let ids = |ids: &mut dyn Iterator<Item = i64>| ids.collect::<Vec<_>>();
    let (authors, client_ids): (Vec<_>, Vec<_>) = needs
        .client_ids
        .iter()
        .map(|(author, id)| (author.0, id.as_str()))
        .unzip();
    let (readers, marks): (Vec<_>, Vec<_>) = needs.marks.iter().map(|(user, seq)| (user.0, seq.0)).unzip();
    let query = sqlx::query(LOAD)
        .bind(room.info.id.0)
        .bind(ids(&mut needs.users.iter().map(|user| user.0)))
        .bind(client_ids)
        .bind(authors)
        .bind(ids(&mut needs.messages.iter().map(|message| message.0)))
        .bind(needs.open_turns)
        .bind(ids(&mut needs.turns.iter().map(|turn| turn.0)))
        .bind(readers)
        .bind(marks)
        .bind(engine.0)
        .bind(i32::try_from(needs.new_messages).unwrap_or(i32::MAX))
        .bind(i32::try_from(needs.new_turns).unwrap_or(i32::MAX))
        .bind(ids(&mut needs.answers.iter().map(|turn| turn.0)))
        .bind(needs.turns_since_person)
        .bind(needs.spent.map(|day| day.0));
    let mut facts = Facts {
        room: Some(room),
        ..Facts::default()
    };
    let mut fresh = FreshIds::default();
    let mut rows = connection.fetch(query);
    while let Some(row) = rows.try_next().await.map_err(fault)? {
        take(&mut facts, &mut fresh, &row)?;
    }
    Ok((facts, fresh))
}

fn take(facts: &mut Facts, fresh: &mut FreshIds, row: &PgRow) -> Result<()> {
    type Rows = Reads<Postgres>;
    const MESSAGE: usize = 1 + width::MEMBER;
    const TURN: usize = MESSAGE + width::MESSAGE;
    const ELSEWHERE: usize = TURN + width::TURN;
    let number = |at: usize| get::<i64, Postgres>(row, ELSEWHERE + 1 + at);
    match get::<i64, Postgres>(row, 0)? {
        1 => facts.members.push(Rows::member_row(row, 1)?),
        2 => facts.messages.push(Rows::message_row(row, MESSAGE)?),
        3 => {
            let turn = Rows::turn_row(row, TURN)?;
            if get::<bool, Postgres>(row, ELSEWHERE)? {
                facts.elsewhere.insert(turn.info.id);
            }
            facts.turns.push(turn);
        }
        4 => facts.marks.push(Mark {
            user: UserId(number(0)?),
            seq: Seq(number(1)?),
            number: number(2)?,
            quiet: number(3)?,
        }),
        5 => fresh.messages.push_back(number(0)?),
        7 => facts.turns_since_person = u32::try_from(number(0)?).unwrap_or(u32::MAX),
        8 => {
            let maybe = |at: usize| get::<Option<i64>, Postgres>(row, ELSEWHERE + 1 + at);
            facts.spend(maybe(1)?.map(UserId), maybe(0)?.unwrap_or(0));
        }
        _ => fresh.turns.push_back(number(0)?),
    }
    Ok(())
}
