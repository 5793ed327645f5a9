//! What a reader of a room is, and what it is offered. A server's connections implement [`Reader`] and [`Encoder`];
//! subscriptions in this process are readers too.

use super::Tape;
use crate::event::{Event, GoneReason, Hint};
use crate::id::{RoomId, Seq};
use std::sync::Arc;
use std::time::Duration;

/// Names a reader, so that it can be left out or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub(crate) u64);

/// How much of a room a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Events, deltas and hints.
    Full,
    /// Events and read marks.
    Events,
}

/// Where a reader stands in one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its place in the live room's queue. Means nothing outside this process.
    pub(crate) pos: u64,
    /// The newest event of the log that it has, or that it had from elsewhere.
    pub(crate) seq: Seq,
}

impl Cursor {
    /// A place that no offer fits and that no queue reaches back to.
    pub const NOWHERE: Self = Self {
        pos: u64::MAX,
        seq: Seq(i64::MAX),
    };

    /// The position of what came from the store: no queue reaches back to it.
    pub(crate) const OUTSIDE: u64 = 0;

    /// Where a reader stands that has had everything up to `seq` from the store.
    pub(crate) fn outside(seq: Seq) -> Self {
        Self {
            pos: Self::OUTSIDE,
            seq,
        }
    }

    /// The newest event of the log that a reader here has.
    #[must_use]
    pub fn seq(self) -> Seq {
        self.seq
    }
}

/// One item of a live room's queue: an event of the log, or a delta.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What happened. Besides the log's events this can be [`Event::Delta`] and, for a reader that has missed
    /// something, [`Event::Tape`] and [`Event::Snapshot`].
    pub event: Arc<Event>,
    /// For a delta or tape: the text it is part of, for encoders that send more than the piece.
    pub tape: Option<Arc<Tape>>,
    /// For the end of an answer: whether its readers at full level have been given all of its text in pieces before it.
    pub told: bool,
    pub(crate) pos: u64,
    pub(crate) seq: Seq,
}

impl Entry {
    /// Where a reader stands that has taken this entry and all before it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            pos: self.pos,
            seq: self.seq,
        }
    }

    /// The same for a reader that has the log up to `seq`, perhaps from elsewhere: nobody is moved back by stopping in
    /// the middle.
    pub(super) fn for_reader_at(&self, seq: Seq) -> Self {
        Self {
            seq: self.seq.max(seq),
            ..self.clone()
        }
    }

    /// Something that is not in a queue, for a reader that takes up at `seq`.
    #[must_use]
    pub fn outside(event: Arc<Event>, seq: Seq) -> Self {
        Self {
            event,
            tape: None,
            told: false,
            pos: Cursor::OUTSIDE,
            seq,
        }
    }

    /// Roughly the bytes it keeps in memory.
    pub(crate) fn weight(&self) -> usize {
        64 + match &*self.event {
            Event::Delta { text, .. } | Event::TurnEnded { text, .. } | Event::Tape { text, .. } => text.len(),
            event => event.message().map_or(64, |message| 128 + message.text.len()),
        }
    }
}

/// Turns entries into the bytes of one dialect. Called once for all readers of the same level, never under a lock.
pub trait Encoder: Send + Sync + 'static {
    /// Deltas gather at least this long before readers of this encoder are offered them.
    fn delta_interval(&self) -> Duration;

    /// Appends the frames of these entries, in order, calling [`Frames::end`] after each with the cursor of the newest
    /// entry that the frames so far stand for. An entry may have no frame; neighbouring deltas of one tape may share
    /// one, but a frame never stands for an entry that comes after one which has no frame yet.
    fn encode(&self, level: Level, entries: &[Entry], frames: &mut Frames);

    /// Appends the frame of a hint, if this dialect has one for it.
    fn encode_hint(&self, hint: &Hint, frames: &mut Frames);
}

/// Encoded frames, one after the other, that know where each of them ends.
#[derive(Debug, Default)]
pub struct Frames {
    /// The bytes of all frames.
    pub bytes: Vec<u8>,
    ends: Vec<FrameEnd>,
}

/// Where a frame ends, in bytes, and where a reader stands after it.
#[derive(Clone, Copy, Debug)]
pub struct FrameEnd {
    /// The length of all frames up to and including this one.
    pub byte: usize,
    /// Where a reader stands that has it.
    pub cursor: Cursor,
}

impl Frames {
    /// Says that a frame ends at the end of `bytes`.
    pub fn end(&mut self, cursor: Cursor) {
        self.ends.push(FrameEnd {
            byte: self.bytes.len(),
            cursor,
        });
    }

    /// Where the frames end, in order.
    #[must_use]
    pub fn ends(&self) -> &[FrameEnd] {
        &self.ends
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes room for other frames, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Some entries, encoded, for readers that stand at `from`.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The room.
    pub room: RoomId,
    /// Whom it is for.
    pub level: Level,
    /// Where it begins.
    pub from: Cursor,
    /// Where a reader stands that has taken all of it.
    pub to: Cursor,
    /// The bytes; empty if the entries mean nothing to these readers, who then only move on. Always empty for readers
    /// without an encoder.
    pub frames: &'a Frames,
    /// For readers without an encoder: the events themselves, so that they need not look into the room for them.
    pub(crate) events: Option<&'a Arc<[Arc<Event>]>>,
}

impl Offer<'_> {
    /// Whether a reader at this cursor may take it.
    #[must_use]
    pub fn fits(&self, level: Level, cursor: Cursor) -> bool {
        use crate::mutant::{Mutant, removed};
        self.level == level
            && (removed(Mutant::OfferChecksPosition)
                || match level {
                    Level::Full => cursor == self.from,
                    Level::Events => cursor.seq == self.from.seq,
                })
    }
}

/// Something that reads rooms: a connection or a subscription. One reader reads many rooms and keeps a cursor and a
/// level for each, under one lock of its own.
///
/// No method may block or wait. They are called from the rooms' own tasks.
pub trait Reader: Send + Sync + 'static {
    /// Takes the offer if [it fits](Offer::fits) where this reader stands in that room and it can be written now; then
    /// the cursor moves to `to`. Anything else (it stands elsewhere, its lock is busy, its socket is full) must be
    /// remembered and the reader's own task woken, which then pulls. A room it does not read any more is ignored.
    fn offer(&self, offer: &Offer<'_>);

    /// Takes hints of one room if that is possible at once: all of them read marks, or none. `frames` is empty for readers
    /// without an encoder, and holds the frames of all of them for others.
    fn hints(&self, hints: &[Hint], frames: &Frames);

    /// Something in this room cannot be offered: as after an offer that could not be taken.
    fn behind(&self, room: RoomId);

    /// Forgets the room. When this returns, nothing more of it may be written, but the rest of a frame already begun.
    fn gone(&self, room: RoomId, reason: GoneReason, by: Option<crate::id::UserId>);

    /// The user has become a member of this room; the reader's task should enter it.
    fn gained(&self, room: RoomId);

    /// All tokens of the user have been ended: whoever reads for somebody who came with one should end too.
    fn tokens_ended(&self) {}

    /// The engine closes.
    fn closed(&self);
}
