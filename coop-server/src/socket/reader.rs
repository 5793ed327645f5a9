//! A connection as the rooms see it: they write to its socket from their own tasks, without waiting. What cannot be
//! written at once is left to the connection's task, which pulls it.

use super::connection::{Connection, Ending};
use super::outbox::Written;
use crate::dialect::Farewell;
use coop_core::live::{Frames, Level, Offer, Reader};
use coop_core::{GoneReason, Hint, HintKind, RoomId, UserId};

impl Connection {
    /// Takes an offer; false if the connection's task must see to it.
    fn take(&self, offer: &Offer<'_>) -> bool {
        let Some(mut wire) = self.try_wire() else {
            return false;
        };
        let wire = &mut *wire;
        let Some(slot) = wire.slot(offer.room) else {
            // Lost, or not yet entered: its first pull begins where it stands then.
            return true;
        };
        if !offer.fits(slot.level, slot.cursor) {
            return false;
        }
        let written = if offer.frames.is_empty() {
            Written::All
        } else {
            wire.outbox.write(self, offer.frames)
        };
        let (cursor, all) = match written {
            Written::All => (offer.to, true),
            Written::Cut(cursor) => (cursor, false),
            Written::Nothing => return false,
        };
        if let Some(slot) = wire.slot(offer.room) {
            slot.cursor = cursor;
        }
        all
    }
}

impl Connection {
    /// Writes a room's receipts, at any level. The newest must not be missed, because clients show them until others
    /// come; so unlike a room's fan-out this waits for the lock, and what cannot be written is looked up again later.
    fn take_receipts(&self, room: RoomId, frames: &Frames) {
        let mut wire = self.wire();
        if wire.slot(room).is_none() {
            return;
        }
        let written = wire.outbox.write_one(self, &frames.bytes);
        if !written {
            wire.miss(room);
        }
        let whole = written && wire.outbox.is_clear();
        drop(wire);
        if !whole {
            self.fall_behind();
        }
    }
}

impl Reader for Connection {
    fn offer(&self, offer: &Offer<'_>) {
        if !self.take(offer) {
            self.fall_behind();
        }
    }

    fn hints(&self, hints: &[Hint], frames: &Frames) {
        let Some(hint) = hints.first() else { return };
        let read = matches!(hint.what, HintKind::Read { .. });
        if read && self.dialect.receipts().is_some() {
            return self.take_receipts(hint.room, frames);
        }
        let Some(mut wire) = self.try_wire() else { return };
        if !wire
            .slot(hint.room)
            .is_some_and(|slot| read || slot.level == Level::Full)
        {
            return;
        }
        let whole = wire.outbox.write_one(self, &frames.bytes) && wire.outbox.is_clear();
        drop(wire);
        if !whole {
            // Nothing was missed, but there may be a rest to be written.
            self.fall_behind();
        }
    }

    fn behind(&self, _: RoomId) {
        self.fall_behind();
    }

    fn gone(&self, room: RoomId, reason: GoneReason, by: Option<UserId>) {
        self.wire().lose(room, reason, by);
        self.wake();
    }

    fn gained(&self, room: RoomId) {
        self.wire().gain(room);
        self.wake();
    }

    fn tokens_ended(&self) {
        self.close(Ending::Sent(Farewell::LoggedOut));
    }

    fn closed(&self) {
        self.close(Ending::CLOSING);
    }
}
