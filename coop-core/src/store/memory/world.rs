//! What a [`MemoryStore`](super::MemoryStore) holds, and how facts are taken from it and plans written to it.

use super::shared::{EngineId, Shared};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Account, Receipt, RoomInfo, TurnStatus, UsageFilter, UsageSum};
use crate::store::WholeRoom;
use crate::store::plan::{
    Creation, Discount, EventRow, Facts, Mark, MemberRow, MessageRow, Needs, NextIds, Plan, RoomChange, RoomRow,
    TurnRow, UsageRow,
};
use crate::store::{Committed, NewAccount};
use crate::time::Day;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) ids: NextIds,
    pub(super) rooms: BTreeMap<RoomId, Room>,
    pub(super) users: BTreeMap<UserId, User>,
    /// The newest id that was given to a user. Never goes back.
    last_user: i64,
    /// What the engines that use it together know of each other.
    pub(super) shared: Shared,
    /// Tokens used. Outlives its rooms.
    usage: BTreeMap<UsageKey, UsageSum>,
}

/// Who asked, on which day, where, which bot.
type UsageKey = (UserId, Day, RoomId, String);

#[derive(Debug)]
pub(super) struct Room {
    pub(super) row: RoomRow,
    pub(super) members: BTreeMap<UserId, MemberRow>,
    /// By number, which is the order of their positions too: number `n` is at `n - 1`.
    pub(super) messages: Vec<MessageRow>,
    /// Where each message is among them.
    pub(super) places: BTreeMap<MessageId, usize>,
    pub(super) by_client_id: BTreeMap<(UserId, String), MessageId>,
    pub(super) turns: BTreeMap<TurnId, TurnRow>,
    /// By position: `seq` is at `seq - 1`.
    pub(super) events: Vec<EventRow>,
    /// What the bots of turns had read.
    pub(super) receipts: BTreeMap<TurnId, Arc<Receipt>>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) account: Account,
    pub(super) password: Option<String>,
}

impl World {
    pub(super) fn room(&self, room: RoomId) -> Option<&Room> {
        self.rooms.get(&room)
    }

    pub(super) fn facts(&self, room: RoomId, needs: &Needs, engine: Option<EngineId>) -> Facts {
        let mut facts = self.room(room).map_or_else(Facts::default, |room| room.facts(needs));
        if let Some(day) = needs.spent {
            let on = |key: &UsageKey, only: &dyn Fn(&UsageKey) -> bool| key.1 == day && only(key);
            let spent = |only: &dyn Fn(&UsageKey) -> bool| {
                let rows = self.usage.iter().filter(|(key, _)| on(key, only));
                rows.map(|(_, sum)| sum.total).sum()
            };
            facts.spent_in_room = spent(&|key| key.2 == room);
            let askers = facts.turns.iter().map(|turn| turn.info.asked_by);
            let users = needs.users.iter().copied().chain(askers);
            facts.spent_by = users.map(|user| (user, spent(&|key| key.0 == user))).collect();
        }
        facts.elsewhere = self.shared.elsewhere(engine, &facts.turns);
        facts
    }

    pub(super) fn usage(&self, of: &UsageFilter) -> UsageSum {
        let asked = |(user, day, room, bot): &UsageKey| {
            of.user.is_none_or(|only| only == *user)
                && of.room.is_none_or(|only| only == *room)
                && of.bot.as_ref().is_none_or(|only| only == bot)
                && of.since.is_none_or(|since| since <= *day)
        };
        let mut all = UsageSum::default();
        for (_, sum) in self.usage.iter().filter(|(key, _)| asked(key)) {
            all.turns += sum.turns;
            all.input += sum.input;
            all.output += sum.output;
            all.total += sum.total;
        }
        all
    }

    pub(super) fn write(&mut self, room: RoomId, plan: Plan, engine: Option<EngineId>) -> Committed {
        self.shared.follow(room, &plan, engine);
        for row in &plan.usage {
            let key = (row.user, row.day, room, row.bot.clone());
            UsageRow::add_to(row, self.usage.entry(key).or_default());
        }
        if plan.room == RoomChange::Delete {
            self.rooms.remove(&room);
        } else if let Some(room) = self.rooms.get_mut(&room) {
            return room.write(plan);
        }
        plan.committed
    }

    pub(super) fn create(&mut self, creation: Creation) -> (RoomInfo, Vec<Arc<Event>>) {
        let info = self.take_in(WholeRoom {
            room: creation.room,
            members: creation.members,
            messages: creation.message.into_iter().collect(),
            turns: Vec::new(),
            receipts: Vec::new(),
            events: creation.events,
        });
        (info, creation.committed)
    }

    pub(super) fn take_in(&mut self, whole: WholeRoom) -> RoomInfo {
        let info = whole.room.info.clone();
        self.shared.note(info.id, whole.room.seq, &whole.events);
        let mut room = Room {
            row: whole.room,
            members: whole.members.into_iter().map(|row| (row.member.user, row)).collect(),
            messages: Vec::new(),
            places: BTreeMap::new(),
            by_client_id: BTreeMap::new(),
            turns: whole.turns.into_iter().map(|row| (row.info.id, row)).collect(),
            events: whole.events,
            receipts: whole.receipts.into_iter().collect(),
        };
        room.insert(whole.messages);
        self.rooms.insert(info.id, room);
        info
    }

    pub(super) fn create_user(&mut self, new: NewAccount) -> Result<Account> {
        if self.user_by_name(&new.name).is_some() {
            return Err(Error::conflict("this name is taken"));
        }
        let address = new.email.as_deref().map(str::to_lowercase);
        let same = |user: &User| address.is_some() && user.account.email.as_deref().map(str::to_lowercase) == address;
        if self.users.values().any(same) {
            return Err(Error::conflict("this e-mail address is taken"));
        }
        self.last_user += 1;
        let id = UserId(self.last_user);
        let account = Account::new(id, new.name, new.email, new.now);
        let user = User {
            account: account.clone(),
            password: new.password,
        };
        self.users.insert(id, user);
        Ok(account)
    }
}

impl Room {
    fn facts(&self, needs: &Needs) -> Facts {
        let known = needs
            .client_ids
            .iter()
            .filter_map(|key| self.by_client_id.get(key).copied());
        let known: Vec<_> = known.collect();
        let wanted = |row: &&TurnRow| {
            let turn = &row.info;
            needs.turns.contains(&turn.id)
                || (needs.open_turns && !turn.status.is_ended())
                || turn.message.is_some_and(|message| needs.messages.contains(&message))
                || known.contains(&turn.ask)
        };
        let answers = needs
            .answers
            .iter()
            .filter_map(|turn| self.turns.get(turn)?.info.message);
        let messages = needs
            .messages
            .iter()
            .copied()
            .chain(known.iter().copied())
            .chain(answers);
        Facts {
            room: Some(self.row.clone()),
            members: needs
                .users
                .iter()
                .filter_map(|user| self.members.get(user))
                .cloned()
                .collect(),
            messages: messages.filter_map(|id| self.message_row(id)).cloned().collect(),
            turns: self.turns.values().filter(wanted).cloned().collect(),
            marks: needs.marks.iter().map(|(user, seq)| self.mark(*user, *seq)).collect(),
            turns_since_person: if needs.turns_since_person {
                self.turns_since_person()
            } else {
                0
            },
            ..Facts::default()
        }
    }

    fn turns_since_person(&self) -> u32 {
        let mut said = self.messages.iter().rev();
        let last = said.find(|row| row.message.author.user.is_some());
        let last = last.map_or(Seq(0), |row| row.message.seq);
        let admitted = |turn: &&TurnRow| {
            let waits = turn.info.status == TurnStatus::Queued;
            turn.info.ask_seq >= last && (waits || turn.info.message.is_some())
        };
        u32::try_from(self.turns.values().filter(admitted).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn message_row(&self, id: MessageId) -> Option<&MessageRow> {
        self.messages.get(*self.places.get(&id)?)
    }

    fn mark(&self, user: UserId, seq: Seq) -> Mark {
        let below = self.messages.partition_point(|row| row.message.seq <= seq);
        let asked = |id: MessageId| {
            let mut turns = self.turns.values();
            turns.any(|turn| turn.info.message == Some(id) && turn.info.asked_by == user)
        };
        let quiet = |row: &&MessageRow| row.message.deleted_at.is_some() || asked(row.message.id);
        let above = self.messages.iter().skip(below);
        Mark {
            user,
            seq,
            number: i64::try_from(below).unwrap_or(i64::MAX),
            quiet: i64::try_from(above.filter(quiet).count()).unwrap_or(i64::MAX),
        }
    }

    fn write(&mut self, plan: Plan) -> Committed {
        // The settings are in it.
        if let RoomChange::Write(row) = plan.room {
            self.row = row;
        }
        self.insert(plan.inserted);
        for row in plan.updated {
            if let Some(old) = self.message_mut(row.message.id) {
                *old = row;
            }
        }
        for (id, text) in plan.checkpoints {
            if let Some(row) = self.message_mut(id) {
                text.as_ref().clone_into(&mut row.message.text);
            }
        }
        for discount in &plan.discounts {
            self.discount(discount);
        }
        self.members
            .extend(plan.members.into_iter().map(|row| (row.member.user, row)));
        for user in &plan.removed {
            self.members.remove(user);
        }
        self.turns.extend(plan.turns.into_iter().map(|row| (row.info.id, row)));
        self.receipts.extend(plan.receipts);
        self.events.extend(plan.events);
        plan.committed
    }

    fn insert(&mut self, rows: impl IntoIterator<Item = MessageRow>) {
        for row in rows {
            let message = &row.message;
            self.places.insert(message.id, self.messages.len());
            if let (Some(author), Some(client_id)) = (message.author.user, &message.client_id) {
                self.by_client_id.insert((author, client_id.clone()), message.id);
            }
            self.messages.push(row);
        }
    }

    fn message_mut(&mut self, id: MessageId) -> Option<&mut MessageRow> {
        self.messages.get_mut(*self.places.get(&id)?)
    }

    fn discount(&mut self, discount: &Discount) {
        for row in self.members.values_mut().filter(|row| discount.applies_to(row)) {
            row.discount += 1;
        }
    }
}
