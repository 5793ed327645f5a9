//! The rows of plans as JSON arrays, one array per kind of row, so that one statement writes all rows of its kind. How
//! a database takes them apart, and in which transaction, is its own affair.

use crate::error::{Error, Result};
use crate::id::RoomId;
use crate::model::{Meta, RoomSettings};
use crate::store::WholeRoom;
use crate::store::plan::{
    Creation, Discount, EventRow, MemberRow, MessageRow, Plan, RoomChange, RoomRow, TurnRow, UsageRow,
};
use crate::store::sql::word_of;
use serde::Serialize;
use std::fmt::Write;

/// How many rows of a whole room are written at a time.
const PIECE: usize = 2_000;

/// The rows of several rooms, as a JSON array for each kind.
#[derive(Default)]
pub(in crate::store) struct Rows {
    pub(in crate::store) rooms: Array,
    pub(in crate::store) messages: Array,
    pub(in crate::store) members: Array,
    pub(in crate::store) turns: Array,
    pub(in crate::store) events: Array,
    pub(in crate::store) updated: Array,
    pub(in crate::store) checkpoints: Array,
    pub(in crate::store) discounts: Array,
    pub(in crate::store) removed: Array,
    pub(in crate::store) deleted: Array,
    pub(in crate::store) settings: Array,
    pub(in crate::store) receipts: Array,
    pub(in crate::store) usage: Array,
    /// Only where several engines write.
    pub(in crate::store) stops: Array,
}

impl Rows {
    /// Adds what a batch made of its room.
    pub(in crate::store) fn add_plan(&mut self, room: RoomId, plan: &Plan) -> Result<()> {
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
        if let Some(settings) = &plan.settings {
            self.settings.push(&(room, json(&**settings)?))?;
        }
        plan.receipts
            .iter()
            .try_for_each(|(turn, receipt)| self.receipts.push(&(turn, json(&**receipt)?)))?;
        plan.usage.iter().try_for_each(|row| self.add_usage(room, row))?;
        plan.stops
            .iter()
            .try_for_each(|(turn, end)| self.stops.push(&(turn, json(end)?)))?;
        plan.events.iter().try_for_each(|row| self.add_event(room, row))
    }

    /// Adds a new room.
    pub(in crate::store) fn add_creation(&mut self, new: &Creation) -> Result<()> {
        let room = new.room.info.id;
        self.add_room(&new.room)?;
        new.message.iter().try_for_each(|row| self.add_message(row))?;
        new.members.iter().try_for_each(|row| self.add_member(room, row))?;
        new.events.iter().try_for_each(|row| self.add_event(room, row))
    }

    /// The rows of a whole room, some at a time, in an order in which they can be written.
    pub(in crate::store) fn pieces(whole: &WholeRoom) -> impl Iterator<Item = Result<Self>> {
        let room = whole.room.info.id;
        let first = std::iter::once_with(move || {
            let mut rows = Self::default();
            rows.add_room(&whole.room)?;
            if *whole.room.settings != RoomSettings::default() {
                rows.settings.push(&(room, json(&*whole.room.settings)?))?;
            }
            whole.members.iter().try_for_each(|row| rows.add_member(room, row))?;
            Ok(rows)
        });
        let messages = whole.messages.chunks(PIECE).map(|some| {
            let mut rows = Self::default();
            some.iter().try_for_each(|row| rows.add_message(row))?;
            // A new message has not been changed.
            let mut changed = some.iter().filter(|row| row.message.edits > 0);
            changed.try_for_each(|row| rows.add_update(row))?;
            Ok(rows)
        });
        let turns = whole.turns.chunks(PIECE).map(|some| {
            let mut rows = Self::default();
            some.iter().try_for_each(|row| rows.add_turn(row))?;
            Ok(rows)
        });
        let receipts = whole.receipts.chunks(PIECE).map(|some| {
            let mut rows = Self::default();
            let mut some = some.iter();
            some.try_for_each(|(turn, receipt)| rows.receipts.push(&(turn, json(&**receipt)?)))?;
            Ok(rows)
        });
        let events = whole.events.chunks(PIECE).map(move |some| {
            let mut rows = Self::default();
            some.iter().try_for_each(|row| rows.add_event(room, row))?;
            Ok(rows)
        });
        first.chain(messages).chain(turns).chain(receipts).chain(events)
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
            message.edits,
        ))
    }

    fn add_usage(&mut self, room: RoomId, row: &UsageRow) -> Result<()> {
        self.usage.push(&(
            row.user, row.day.0, room, &row.bot, row.turns, row.input, row.output, row.total,
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
        let ending = turn.end.as_ref().map(json).transpose()?;
        let usage = row.usage.as_ref().map(json).transpose()?;
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
            ending,
            row.created_at.0,
            turn.attempt,
            row.hop,
            usage,
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

    /// Whether there are only new rooms, messages, members, turns and events, as most commits make.
    pub(in crate::store) fn is_usual(&self) -> bool {
        let rare = [
            &self.updated,
            &self.checkpoints,
            &self.discounts,
            &self.removed,
            &self.deleted,
            &self.settings,
            &self.receipts,
            &self.usage,
            &self.stops,
        ];
        rare.iter().all(|array| array.is_empty())
    }
}

/// A JSON array that grows; empty text until it has an item.
#[derive(Default)]
pub(in crate::store) struct Array(String);

impl Array {
    pub(in crate::store) fn push(&mut self, item: &impl Serialize) -> Result<()> {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(&serde_json::to_string(item).map_err(unwritable)?);
        Ok(())
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::store) fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "[]" } else { "]" });
        self.0
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(unwritable)
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
