//! The rows of a room while a batch is walked: the facts, what the intents so far have changed in them, and what has
//! to be written. It knows how rows hang together, not who may change them.

use super::{
    Discount, EventKind, EventRow, Facts, Ids, Mark, MemberRow, MessageRow, Plan, RoomChange, RoomRow, TurnRow,
    UsageRow,
};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{MessageId, Seq, TurnId, UserId};
use crate::model::{Author, Budgets, Message, Receipt, RoomSettings, TurnEnd, TurnError, TurnInfo, Usage};
use crate::mutant::{Mutant, removed};
use crate::store::{Committed, Outcome};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct Overlay<'a> {
    pub(super) now: Timestamp,
    budgets: Budgets,
    pub(super) most_members: u32,
    pub(super) ids: &'a mut dyn Ids,
    /// `None` if there is no room, or from the moment it is deleted.
    pub(super) room: Option<RoomRow>,
    deleted: bool,
    room_changed: bool,
    members: BTreeMap<UserId, MemberRow>,
    /// Users whose membership was touched: there now means to be written, gone means to be removed.
    members_changed: BTreeSet<UserId>,
    messages: BTreeMap<MessageId, MessageRow>,
    by_client_id: BTreeMap<(UserId, String), MessageId>,
    inserted: BTreeSet<MessageId>,
    updated: BTreeSet<MessageId>,
    checkpoints: BTreeMap<MessageId, Arc<str>>,
    discounts: Vec<Discount>,
    turns: BTreeMap<TurnId, TurnRow>,
    turns_changed: BTreeSet<TurnId>,
    marks: Vec<Mark>,
    /// Turns since a person last spoke.
    pub(super) turns_since_person: u32,
    spent_in_room: u64,
    spent_by: BTreeMap<UserId, u64>,
    settings: Option<Arc<RoomSettings>>,
    receipts: Vec<(TurnId, Arc<Receipt>)>,
    usage: Vec<UsageRow>,
    elsewhere: BTreeSet<TurnId>,
    stops: Vec<(TurnId, TurnEnd)>,
    rows: Vec<EventRow>,
    events: Vec<Arc<Event>>,
    /// The newest position, kept apart from the room because it is answered also when the room is deleted.
    seq: Seq,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(
        facts: Facts,
        (now, budgets, most_members): (Timestamp, Budgets, u32),
        ids: &'a mut dyn Ids,
    ) -> Self {
        let by_client_id = facts.messages.iter().filter_map(client_key).collect();
        Self {
            now,
            budgets,
            most_members,
            ids,
            seq: facts.room.as_ref().map_or(Seq(0), |room| room.seq),
            room: facts.room,
            deleted: false,
            room_changed: false,
            members: facts.members.into_iter().map(|row| (row.member.user, row)).collect(),
            members_changed: BTreeSet::new(),
            by_client_id,
            messages: facts.messages.into_iter().map(|row| (row.message.id, row)).collect(),
            inserted: BTreeSet::new(),
            updated: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            discounts: Vec::new(),
            turns: facts.turns.into_iter().map(|row| (row.info.id, row)).collect(),
            turns_changed: BTreeSet::new(),
            marks: facts.marks,
            turns_since_person: facts.turns_since_person,
            spent_in_room: facts.spent_in_room,
            spent_by: facts.spent_by,
            settings: None,
            receipts: Vec::new(),
            usage: Vec::new(),
            elsewhere: facts.elsewhere,
            stops: Vec::new(),
            rows: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn into_plan(self, outcomes: Vec<Result<Outcome>>) -> Plan {
        let mut plan = Plan {
            room: RoomChange::Keep,
            inserted: Vec::new(),
            updated: Vec::new(),
            checkpoints: Vec::new(),
            discounts: Vec::new(),
            members: Vec::new(),
            removed: Vec::new(),
            turns: Vec::new(),
            settings: self.settings,
            receipts: self.receipts,
            usage: self.usage,
            stops: self.stops.clone(),
            events: Vec::new(),
            committed: Committed {
                seq: self.seq,
                events: self.events,
                outcomes,
                stops: self.stops,
            },
        };
        if self.deleted {
            plan.room = RoomChange::Delete;
            return plan;
        }
        if let Some(room) = self.room.filter(|_| self.room_changed) {
            plan.room = RoomChange::Write(room);
        }
        for (id, row) in self.messages {
            if self.inserted.contains(&id) {
                plan.inserted.push(row);
            } else if self.updated.contains(&id) {
                plan.updated.push(row);
            }
        }
        plan.checkpoints = self.checkpoints.into_iter().collect();
        plan.discounts = self.discounts;
        let mut members = self.members;
        for user in self.members_changed {
            match members.remove(&user) {
                Some(row) => plan.members.push(row),
                None => plan.removed.push(user),
            }
        }
        let mut turns = self.turns;
        plan.turns = self.turns_changed.iter().filter_map(|id| turns.remove(id)).collect();
        plan.events = self.rows;
        plan
    }

    /// The room, to be changed.
    pub(super) fn room_mut(&mut self) -> Result<&mut RoomRow> {
        let room = self.room.as_mut().ok_or_else(Error::no_such_room)?;
        self.room_changed = true;
        Ok(room)
    }

    pub(super) fn room(&self) -> Result<&RoomRow> {
        self.room.as_ref().ok_or_else(Error::no_such_room)
    }

    pub(super) fn delete_room(&mut self) {
        self.room = None;
        self.deleted = true;
    }

    pub(super) fn member(&self, user: UserId) -> Option<&MemberRow> {
        self.members.get(&user)
    }

    pub(super) fn put_member(&mut self, row: MemberRow) {
        self.members_changed.insert(row.member.user);
        self.members.insert(row.member.user, row);
    }

    pub(super) fn take_member(&mut self, user: UserId) -> Option<MemberRow> {
        self.members_changed.insert(user);
        self.members.remove(&user)
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&MessageRow> {
        self.messages.get(&id)
    }

    pub(super) fn message_of(&self, author: UserId, client_id: &str) -> Option<&MessageRow> {
        let id = self.by_client_id.get(&(author, client_id.to_owned()))?;
        self.messages.get(id)
    }

    /// A message that now appears: with the next number, at the next position. The caller logs the event that shows it.
    pub(super) fn new_message(&mut self, author: Author, text: String) -> Result<(Message, i64)> {
        let room = self.room_mut()?;
        room.number += 1;
        let (room_id, seq, number) = (room.info.id, room.seq.next(), room.number);
        let id = self.ids.message();
        Ok((Message::new(id, room_id, seq, author, text, self.now), number))
    }

    pub(super) fn insert_message(&mut self, row: MessageRow) {
        self.by_client_id.extend(client_key(&row));
        self.inserted.insert(row.message.id);
        self.messages.insert(row.message.id, row);
    }

    pub(super) fn update_message(&mut self, id: MessageId, change: impl FnOnce(&mut Message)) -> Result<Message> {
        let row = self.messages.get_mut(&id).ok_or_else(no_such_message)?;
        change(&mut row.message);
        self.updated.insert(id);
        Ok(row.message.clone())
    }

    /// Keeps the text so far of an answer, whose row may not have been loaded.
    pub(super) fn checkpoint(&mut self, id: MessageId, text: Arc<str>) {
        if let Some(row) = self.messages.get_mut(&id) {
            text.as_ref().clone_into(&mut row.message.text);
            self.updated.insert(id);
        } else {
            self.checkpoints.insert(id, text);
        }
    }

    /// Takes a message out of the unread of some. Members whose rows were not loaded are left to the store.
    pub(super) fn discount(&mut self, discount: Discount) {
        for (user, row) in &mut self.members {
            if discount.applies_to(row) {
                row.discount += 1;
                self.members_changed.insert(*user);
            }
        }
        self.discounts.push(discount);
    }

    /// The number that a read mark at this position stands for, and how many above it do not count as unread.
    pub(super) fn mark(&self, user: UserId, seq: Seq) -> (i64, i64) {
        let newest = self.room.as_ref().map_or((Seq(0), 0), |room| (room.seq, room.number));
        if seq >= newest.0 {
            return (newest.1, 0);
        }
        let found = self.marks.iter().find(|mark| mark.user == user && mark.seq == seq);
        let (stored, quiet) = found.map_or((0, 0), |mark| (mark.number, mark.quiet));
        let new = self.inserted.iter().filter_map(|id| self.messages.get(id));
        let below = new.filter(|row| row.message.seq <= seq).map(|row| row.number);
        let number = below.fold(stored, i64::max);
        // A mark among this batch's messages has no older quiet ones above it.
        let before = if number == stored { quiet } else { 0 };
        let since = self
            .discounts
            .iter()
            .filter(|one| one.means(user) && one.number > number);
        (number, before + i64::try_from(since.count()).unwrap_or(i64::MAX))
    }

    pub(super) fn turn(&self, id: TurnId) -> Option<&TurnRow> {
        self.turns.get(&id)
    }

    /// Whether its text and its end are another engine's.
    pub(super) fn is_elsewhere(&self, id: TurnId) -> bool {
        self.elsewhere.contains(&id) && !removed(Mutant::Fence)
    }

    /// Asks the engine that runs a turn to end it like this.
    pub(super) fn ask_to_stop(&mut self, id: TurnId, end: TurnEnd) {
        self.stops.push((id, end));
    }

    /// Keeps what a turn's bot has read.
    pub(super) fn keep_receipt(&mut self, id: TurnId, receipt: Arc<Receipt>) {
        self.receipts.push((id, receipt));
    }

    /// Sets what the owner wants.
    pub(super) fn configure(&mut self, settings: Arc<RoomSettings>) -> Result<()> {
        self.room_mut()?.settings = Arc::clone(&settings);
        self.settings = Some(settings);
        Ok(())
    }

    /// Charges a turn's running totals to who asked for it and to the room: what is more than the last time.
    pub(super) fn charge(&mut self, turn: &mut TurnRow, now: Usage) {
        let before = turn.usage.replace(now);
        if before == Some(now) {
            return;
        }
        let more = |of: fn(&Usage) -> u64| {
            let count = |usage: &Usage| i64::try_from(of(usage)).unwrap_or(i64::MAX);
            count(&now).saturating_sub(before.as_ref().map_or(0, count))
        };
        let row = UsageRow {
            user: turn.info.asked_by,
            day: self.now.day(),
            bot: turn.info.bot.clone(),
            turns: i64::from(before.is_none()),
            input: more(|usage| usage.input.unwrap_or(0).into()),
            output: more(Usage::written),
            total: more(Usage::tokens),
        };
        self.spent_in_room = self.spent_in_room.saturating_add_signed(row.total);
        let by = self.spent_by.entry(row.user).or_default();
        *by = by.saturating_add_signed(row.total);
        self.usage.push(row);
    }

    /// Why this user may not use any more tokens here today, if they may not.
    pub(super) fn over_budget(&self, user: UserId) -> Option<TurnError> {
        let spent = |limit: Option<u64>, spent: u64| limit.is_some_and(|limit| spent >= limit);
        let by = self.spent_by.get(&user).copied().unwrap_or(0);
        let words = if spent(self.budgets.user_tokens_per_day, by) {
            "the tokens of who asked are used up for today"
        } else if spent(self.budgets.room_tokens_per_day, self.spent_in_room) {
            "the room's tokens are used up for today"
        } else {
            return None;
        };
        (!removed(Mutant::Budget)).then(|| TurnError {
            code: "budget_exceeded".into(),
            words: words.into(),
        })
    }

    /// All known turns, the oldest first.
    pub(super) fn turns(&self) -> impl Iterator<Item = &TurnRow> + Clone {
        self.turns.values()
    }

    pub(super) fn put_turn(&mut self, row: TurnRow) {
        self.turns_changed.insert(row.info.id);
        self.turns.insert(row.info.id, row);
    }

    /// Appends an event to the log.
    pub(super) fn log(&mut self, row: EventRow, message: Option<&Arc<Message>>, turn: Option<&TurnInfo>) -> Result<()> {
        let room = self.room_mut()?;
        room.seq = room.seq.next();
        let row = EventRow { seq: room.seq, ..row };
        let event = row.event(&room.info, message, turn)?;
        self.events.push(Arc::new(event));
        self.seq = row.seq;
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn row(&self, kind: EventKind) -> EventRow {
        EventRow::new(kind, self.now)
    }
}

fn client_key(row: &MessageRow) -> Option<((UserId, String), MessageId)> {
    let message = &row.message;
    Some(((message.author.user?, message.client_id.clone()?), message.id))
}

pub(super) fn no_such_message() -> Error {
    Error::not_found("no such message")
}
