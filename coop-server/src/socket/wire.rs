//! What the rooms' tasks and a connection's own task share: where the connection stands in each room, what must go out
//! first, and news about its rooms. All of it is behind one lock, which is held for a write to the socket at most.

use super::outbox::Outbox;
use coop_core::live::{Cursor, Level};
use coop_core::{Feed, GoneReason, RoomId, UserId};
use std::collections::VecDeque;

/// Where a connection stands in one room. It has one for exactly the rooms its user is in.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) room: RoomId,
    pub(super) feed: Feed,
    pub(super) level: Level,
    pub(super) cursor: Cursor,
}

/// What the connection's task must hear of.
#[derive(Debug, Clone, Copy)]
pub(super) enum News {
    /// A room was lost. Its slot is gone already.
    Gone(RoomId, GoneReason, Option<UserId>),
    /// The user is now in this room.
    Gained(RoomId),
}

impl News {
    fn room(&self) -> RoomId {
        match self {
            Self::Gone(room, ..) | Self::Gained(room) => *room,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Sorted by room; compact, because a connection may be in thousands of quiet ones.
    slots: Vec<Slot>,
    /// At most one loss and one gain for each room, in that order.
    news: VecDeque<News>,
    /// Rooms whose newest receipts could not be written; each once.
    missed: Vec<RoomId>,
    /// The gained room that the connection's task is entering.
    entering: Option<RoomId>,
    pub(super) outbox: Outbox,
}

impl Wire {
    pub(super) fn slot(&mut self, room: RoomId) -> Option<&mut Slot> {
        let index = self.slots.binary_search_by_key(&room, |slot| slot.room).ok()?;
        self.slots.get_mut(index)
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Adds a room, unless it has been lost since whoever adds it looked.
    pub(super) fn add(&mut self, slot: Slot) -> bool {
        let lost = |news: &News| matches!(news, News::Gone(room, ..) if *room == slot.room);
        if self.news.iter().any(lost) {
            return false;
        }
        match self.slots.binary_search_by_key(&slot.room, |slot| slot.room) {
            Ok(_) => false,
            Err(index) => {
                self.slots.insert(index, slot);
                true
            }
        }
    }

    pub(super) fn reserve(&mut self, rooms: usize) {
        self.slots.reserve_exact(rooms);
    }

    /// Forgets a room.
    pub(super) fn remove(&mut self, room: RoomId) {
        if let Ok(index) = self.slots.binary_search_by_key(&room, |slot| slot.room) {
            self.slots.remove(index);
        }
    }

    pub(super) fn lose(&mut self, room: RoomId, reason: GoneReason, by: Option<UserId>) {
        self.remove(room);
        self.missed.retain(|other| *other != room);
        self.news.retain(|news| news.room() != room);
        self.news.push_back(News::Gone(room, reason, by));
    }

    pub(super) fn gain(&mut self, room: RoomId) {
        let same = |news: &News| matches!(news, News::Gained(other) if *other == room);
        if !self.news.iter().any(same) {
            self.news.push_back(News::Gained(room));
        }
    }

    /// The next news. A gained room counts as being entered until [`entered`](Self::entered).
    pub(super) fn next_news(&mut self) -> Option<News> {
        let news = self.news.pop_front();
        if self.news.is_empty() {
            self.news = VecDeque::new();
        }
        if let Some(News::Gained(room)) = news {
            self.entering = Some(room);
        }
        news
    }

    /// Remembers that a room's receipts are to be shown as soon as that is possible.
    pub(super) fn miss(&mut self, room: RoomId) {
        if self.slot(room).is_some() && !self.missed.contains(&room) {
            self.missed.push(room);
        }
    }

    pub(super) fn next_missed(&mut self) -> Option<RoomId> {
        self.missed.pop()
    }

    pub(super) fn entered(&mut self) {
        self.entering = None;
    }

    /// Whether this room will soon have a slot.
    pub(super) fn is_gaining(&self, room: RoomId) -> bool {
        let gained = |news: &News| matches!(news, News::Gained(other) if *other == room);
        self.entering == Some(room) || self.news.iter().any(gained)
    }
}
