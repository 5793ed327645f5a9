//! Writing what was decided for several rooms: one round trip that writes every row and commits.
//!
//! Rows travel as JSON arrays, one array per kind of row, so that one statement writes all rows of its kind. They are
//! taken apart with `jsonb_each` (SQLite 3.51, which is compiled in), which parses a text once and not once a column.

use super::committer::Trouble;
use super::fault::commit_fault;
use crate::error::{Error, Result};
use crate::id::RoomId;
use crate::model::Meta;
use crate::store::plan::{Creation, Discount, EventRow, MemberRow, MessageRow, Plan, RoomChange, RoomRow, TurnRow};
use crate::store::sql::word_of;
use futures::TryStreamExt;
use serde::Serialize;
use sqlx::Executor;
use sqlx::sqlite::SqliteConnection;
use std::fmt::Write;

/// What most commits write: `$1` rooms, `$2` new messages, `$3` members, `$4` turns, `$5` events.
macro_rules! usual {
    () => {
        concat!(
            "INSERT INTO chats (id, name, owner_id, is_group, is_ai_chat, created_at, epoch, last_seq, last_number, \
             member_count) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> \
             6, value ->> 7, value ->> 8, value ->> 9 FROM jsonb_each($1) WHERE true ON CONFLICT (id) DO UPDATE SET name = \
             excluded.name, owner_id = excluded.owner_id, last_seq = excluded.last_seq, last_number = \
             excluded.last_number, member_count = excluded.member_count;",
            "INSERT INTO messages (id, chat_id, number, seq, user_id, bot, author_name, content, status, error, reply_to, \
             meta, client_id, body_hash, created_at, edited_at, deleted_at) SELECT value ->> 0, value ->> 1, value ->> 2, \
             value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, \
             value ->> 11, value ->> 12, unhex(value ->> 13), value ->> 14, value ->> '$[15][0]', value ->> '$[15][1]' \
             FROM jsonb_each($2);",
            "INSERT INTO chat_participants (chat_id, user_id, username, role, joined_at, joined_seq, read_seq, \
             read_number, discount, read_at) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value \
             ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9 FROM jsonb_each($3) WHERE true ON CONFLICT (chat_id, user_id) DO UPDATE \
             SET username = excluded.username, role = excluded.role, joined_at = excluded.joined_at, joined_seq = \
             excluded.joined_seq, read_seq = excluded.read_seq, read_number = excluded.read_number, discount = \
             excluded.discount, read_at = excluded.read_at;",
            "INSERT INTO turns (id, chat_id, bot, asked_by, asker_name, ask_id, ask_seq, message_id, status, ending, \
             created_at) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
             value ->> 7, value ->> 8, value ->> 9, value ->> 10 FROM jsonb_each($4) WHERE true ON CONFLICT (id) DO UPDATE \
             SET message_id = excluded.message_id, status = excluded.status, ending = excluded.ending;",
            "INSERT INTO events (chat_id, seq, kind, message_id, turn_id, user_id, by_id, name, position, created_at) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> \
             7, value ->> 8, value ->> 9 FROM jsonb_each($5);",
        )
    };
}

/// The rarer rows too: `$6` changed messages, `$7` checkpoints, `$8` discounts, `$9` removed members, `$10` deleted
/// rooms. The discounts come before the members, whose rows hold them already.
pub(super) const WRITE_ALL: &str = concat!(
    "UPDATE chat_participants SET discount = discount + d.more FROM (SELECT chat_id, user_id, COUNT(*) AS more FROM \
     (SELECT p.chat_id, p.user_id FROM jsonb_each($8) j CROSS JOIN chat_participants p ON p.chat_id = j.value ->> 0 AND \
     p.user_id = j.value ->> 2 WHERE p.read_number < j.value ->> 1 UNION ALL SELECT p.chat_id, p.user_id FROM \
     jsonb_each($8) j CROSS JOIN chat_participants p ON p.chat_id = j.value ->> 0 WHERE j.value ->> 2 IS NULL AND \
     p.read_number < j.value ->> 1 AND p.user_id IS NOT j.value ->> 3) GROUP BY chat_id, user_id) d WHERE \
     chat_participants.chat_id = d.chat_id AND chat_participants.user_id = d.user_id;",
    usual!(),
    "UPDATE messages SET content = j.value ->> 1, status = j.value ->> 2, error = j.value ->> 3, meta = j.value ->> 4, \
     edited_at = j.value ->> 5, deleted_at = j.value ->> 6 FROM jsonb_each($6) j WHERE messages.id = j.value ->> 0;",
    "UPDATE messages SET content = j.value ->> 1 FROM jsonb_each($7) j WHERE messages.id = j.value ->> 0;",
    "DELETE FROM chat_participants WHERE (chat_id, user_id) IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each($9));",
    "DELETE FROM chats WHERE id IN (SELECT value FROM jsonb_each($10));",
    "COMMIT;"
);

/// When there are no rarer rows.
pub(super) const WRITE_USUAL: &str = concat!(usual!(), "COMMIT;");

/// The same as a transaction of its own.
pub(super) const BEGIN_AND_WRITE_USUAL: &str = concat!("BEGIN IMMEDIATE;", usual!(), "COMMIT;");

/// How many statements come before the `COMMIT` of `WRITE_USUAL` and `WRITE_ALL`.
const BEFORE_COMMIT: [usize; 2] = [5, 10];

const BEGIN: &str = "BEGIN IMMEDIATE";

/// The rows of several rooms, as a JSON array for each kind.
#[derive(Default)]
pub(super) struct Rows {
    rooms: Array,
    messages: Array,
    members: Array,
    turns: Array,
    events: Array,
    updated: Array,
    checkpoints: Array,
    discounts: Array,
    removed: Array,
    deleted: Array,
}

impl Rows {
    /// Adds what a batch made of its room.
    pub(super) fn add_plan(&mut self, room: RoomId, plan: &Plan) -> Result<()> {
        match &plan.room {
            RoomChange::Keep => {}
            RoomChange::Write(row) => self.add_room(row)?,
            RoomChange::Delete => self.deleted.push(&room)?,
        }
        plan.inserted.iter().try_for_each(|row| self.add_message(row))?;
        plan.updated.iter().try_for_each(|row| self.add_update(row))?;
        let mut checkpoints = plan.checkpoints.iter();
        checkpoints.try_for_each(|(id, text)| self.checkpoints.push(&(id, text)))?;
        plan.discounts.iter().try_for_each(|one| self.add_discount(room, one))?;
        plan.members.iter().try_for_each(|row| self.add_member(room, row))?;
        plan.removed
            .iter()
            .try_for_each(|user| self.removed.push(&(room, user)))?;
        plan.turns.iter().try_for_each(|row| self.add_turn(row))?;
        plan.events.iter().try_for_each(|row| self.add_event(room, row))
    }

    /// Adds a new room.
    pub(super) fn add_creation(&mut self, new: &Creation) -> Result<()> {
        let room = new.room.info.id;
        self.add_room(&new.room)?;
        new.message.iter().try_for_each(|row| self.add_message(row))?;
        new.members.iter().try_for_each(|row| self.add_member(room, row))?;
        new.events.iter().try_for_each(|row| self.add_event(room, row))
    }

    fn add_room(&mut self, row: &RoomRow) -> Result<()> {
        let info = &row.info;
        self.rooms.push(&(
            info.id,
            &info.name,
            info.owner,
            info.is_group,
            info.is_ai_chat,
            info.created_at.0,
            row.epoch,
            row.seq,
            row.number,
            row.members,
        ))
    }

    fn add_message(&mut self, row: &MessageRow) -> Result<()> {
        let message = &row.message;
        self.messages.push(&(
            message.id,
            message.room,
            row.number,
            message.seq,
            message.author.user,
            &message.author.bot,
            &message.author.name,
            &message.text,
            message.status.as_str(),
            &message.error,
            message.reply_to,
            message.meta.as_ref().map(Meta::as_json),
            &message.client_id,
            row.body_hash.map(|hash| hex(&hash)),
            message.created_at.0,
            (message.edited_at.map(|at| at.0), message.deleted_at.map(|at| at.0)),
        ))
    }

    fn add_update(&mut self, row: &MessageRow) -> Result<()> {
        let message = &row.message;
        self.updated.push(&(
            message.id,
            &message.text,
            message.status.as_str(),
            &message.error,
            message.meta.as_ref().map(Meta::as_json),
            message.edited_at.map(|at| at.0),
            message.deleted_at.map(|at| at.0),
        ))
    }

    fn add_discount(&mut self, room: RoomId, one: &Discount) -> Result<()> {
        self.discounts.push(&(room, one.number, one.only, one.except))
    }

    fn add_member(&mut self, room: RoomId, row: &MemberRow) -> Result<()> {
        let member = &row.member;
        self.members.push(&(
            room,
            member.user,
            &member.name,
            word_of(member.role),
            member.joined_at.0,
            row.joined,
            member.read,
            row.read_number,
            row.discount,
            member.read_at.map(|at| at.0),
        ))
    }

    fn add_turn(&mut self, row: &TurnRow) -> Result<()> {
        let turn = &row.info;
        let ending = turn.end.as_ref().map(serde_json::to_string).transpose();
        self.turns.push(&(
            turn.id,
            turn.room,
            &turn.bot,
            turn.asked_by,
            &row.asker,
            turn.ask,
            turn.ask_seq,
            turn.message,
            turn.status.as_str(),
            ending.map_err(unwritable)?,
            row.created_at.0,
        ))
    }

    fn add_event(&mut self, room: RoomId, row: &EventRow) -> Result<()> {
        self.events.push(&(
            room,
            row.seq,
            row.kind.as_str(),
            row.message,
            row.turn,
            row.user,
            row.by,
            &row.name,
            row.position,
            row.at.0,
        ))
    }

    fn is_usual(&self) -> bool {
        let rare = [
            &self.updated,
            &self.checkpoints,
            &self.discounts,
            &self.removed,
            &self.deleted,
        ];
        rare.iter().all(|array| array.0.is_empty())
    }

    /// Writes everything and commits the transaction, which may have `begun`.
    pub(super) async fn write(self, connection: &mut SqliteConnection, begun: bool) -> Result<(), Trouble> {
        // Where one room cannot begin, no other can.
        let not_begun = |error| Trouble::GiveUp(commit_fault(error));
        let usual = self.is_usual();
        let statements = match (usual, begun) {
            (true, true) => WRITE_USUAL,
            (true, false) => BEGIN_AND_WRITE_USUAL,
            (false, true) => WRITE_ALL,
            (false, false) => {
                sqlx::query(BEGIN).execute(&mut *connection).await.map_err(not_begun)?;
                WRITE_ALL
            }
        };
        let begins = usize::from(usual && !begun);
        let mut query = sqlx::query(statements);
        for array in [self.rooms, self.messages, self.members, self.turns, self.events] {
            query = query.bind(array.finish());
        }
        if !usual {
            for array in [
                self.updated,
                self.checkpoints,
                self.discounts,
                self.removed,
                self.deleted,
            ] {
                query = query.bind(array.finish());
            }
        }
        let mut steps = connection.fetch_many(query);
        let mut done = 0;
        loop {
            match steps.try_next().await {
                Ok(Some(step)) => done += usize::from(step.is_left()),
                Ok(None) => return Ok(()),
                Err(error) if done < begins => return Err(not_begun(error)),
                Err(error) if done < begins + BEFORE_COMMIT[usize::from(!usual)] => {
                    return Err(Trouble::Retry(commit_fault(error)));
                }
                // The COMMIT itself: what it left behind is read when somebody asks again.
                Err(error) => return Err(Trouble::GiveUp(commit_fault(error))),
            }
        }
    }
}

/// A JSON array that grows; empty text until it has an item.
#[derive(Default)]
pub(super) struct Array(String);

impl Array {
    pub(super) fn push(&mut self, item: &impl Serialize) -> Result<()> {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(&serde_json::to_string(item).map_err(unwritable)?);
        Ok(())
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "[]" } else { "]" });
        self.0
    }
}

fn hex(hash: &[u8]) -> String {
    let mut text = String::with_capacity(hash.len() * 2);
    for byte in hash {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::internal("a row could not be written down").with_source(error)
}
