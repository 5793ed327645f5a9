//! What can be asked of a world, without changing it.

use super::world::{Room, User, World};
use crate::error::Result;
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, UserId};
use crate::model::{Account, Member, Message, Page, Range, Receipt, RoomEntry, Snapshot, TurnInfo};
use crate::store::WholeRoom;
use crate::store::plan::MemberRow;
use std::cmp::Reverse;
use std::sync::Arc;

impl World {
    pub(super) fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Vec<RoomEntry> {
        let rooms = self
            .rooms
            .values()
            .filter(|room| only.is_none_or(|only| only == room.row.info.id));
        let mut entries: Vec<_> = rooms
            .filter_map(|room| Some(room.row.entry(room.members.get(&user)?, room.last())))
            .collect();
        entries.sort_by_key(|entry| {
            let last = entry.last_message.as_ref();
            let active = last.map_or(entry.info.created_at, |message| message.created_at);
            (Reverse(active), Reverse(entry.info.id))
        });
        entries
    }

    pub(super) fn open_turns(&self, only: Option<RoomId>) -> Vec<TurnInfo> {
        let rooms = self.rooms.values();
        let rooms = rooms.filter(|room| only.is_none_or(|only| only == room.row.info.id));
        let mut open: Vec<_> = rooms.flat_map(Room::open_turns).collect();
        open.sort_by_key(|turn| turn.id);
        open
    }

    pub(super) fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Vec<(RoomId, MessageId)> {
        let messages = self
            .rooms
            .values()
            .flat_map(|room| &room.messages)
            .map(|row| &row.message);
        let theirs = messages.filter(|message| message.author.user == Some(user) && message.deleted_at.is_none());
        let mut written: Vec<_> = theirs
            .filter(|message| message.id > after)
            .map(|message| (message.room, message.id))
            .collect();
        written.sort_by_key(|(_, id)| *id);
        written.truncate(limit as usize);
        written
    }

    pub(super) fn user_by_name(&self, name: &str) -> Option<&User> {
        self.users.values().find(|user| user.account.name == name)
    }

    pub(super) fn search(&self, text: &str, limit: u32, except: UserId) -> Vec<Account> {
        let accounts = self.users.values().map(|user| &user.account);
        let mut found: Vec<_> = accounts
            .filter(|account| account.id != except && account.name.contains(text))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.truncate(limit as usize);
        found
    }
}

impl Room {
    pub(super) fn members(&self) -> Vec<Member> {
        let mut rows: Vec<&MemberRow> = self.members.values().collect();
        rows.sort_by_key(|row| row.joined);
        rows.into_iter().map(|row| row.member.clone()).collect()
    }

    pub(super) fn message(&self, id: MessageId) -> Option<Arc<Message>> {
        self.message_row(id).map(|row| Arc::new(row.message.clone()))
    }

    pub(super) fn events(&self, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        let skipped = usize::try_from(after.0).unwrap_or(0);
        let rows = self.events.iter().skip(skipped).take(limit as usize);
        rows.map(|row| {
            let message = row.message.and_then(|id| self.message(id));
            let turn = row.turn.and_then(|id| self.turns.get(&id));
            let event = row.event(&self.row.info, message.as_ref(), turn.map(|turn| &turn.info))?;
            Ok(Arc::new(event))
        })
        .collect()
    }

    pub(super) fn history(&self, range: Range, limit: u32) -> Page {
        let limit = limit as usize;
        let cut = |seq: Seq| self.messages.partition_point(|row| row.message.seq < seq);
        let part = match range {
            Range::Newest => &self.messages[..],
            Range::Before(seq) => &self.messages[..cut(seq)],
            Range::After(seq) => &self.messages[cut(seq.next())..],
        };
        let there = part.iter().filter(|row| row.message.deleted_at.is_none());
        let mut found: Vec<_> = match range {
            Range::After(_) => there.take(limit + 1).collect(),
            _ => there.rev().take(limit + 1).collect(),
        };
        let more = found.len() > limit;
        found.truncate(limit);
        if !matches!(range, Range::After(_)) {
            found.reverse();
        }
        let older = found
            .first()
            .map_or(0, |first| u32::try_from(first.number - 1).unwrap_or(u32::MAX));
        let messages = found.into_iter().map(|row| Arc::new(row.message.clone())).collect();
        Page { messages, more, older }
    }

    pub(super) fn snapshot(&self, limit: u32) -> Snapshot {
        let row = &self.row;
        let messages = self.history(Range::Newest, limit).messages;
        let turns = self.open_turns().collect();
        Snapshot::new(row.info.clone(), row.epoch, row.seq, self.members(), messages, turns)
    }

    pub(super) fn whole(&self) -> WholeRoom {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.sort_by_key(|row| row.joined);
        let receipts = self.receipts.iter();
        WholeRoom {
            room: self.row.clone(),
            members,
            messages: self.messages.clone(),
            turns: self.turns.values().cloned().collect(),
            receipts: receipts.map(|(turn, receipt)| (*turn, Arc::clone(receipt))).collect(),
            events: self.events.clone(),
        }
    }

    fn open_turns(&self) -> impl Iterator<Item = TurnInfo> {
        let open = self.turns.values().map(|row| &row.info);
        open.filter(|turn| !turn.status.is_ended()).cloned()
    }

    pub(super) fn receipt(&self, message: MessageId) -> Option<Receipt> {
        let turn = self.turns.values().find(|turn| turn.info.message == Some(message))?;
        self.receipts.get(&turn.info.id).map(|receipt| Receipt::clone(receipt))
    }

    pub(super) fn last(&self) -> Option<Arc<Message>> {
        self.history(Range::Newest, 1).messages.into_iter().next()
    }
}
