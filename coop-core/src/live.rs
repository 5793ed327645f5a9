//! The part of a room that is in memory: a bounded queue of entries (events and deltas), the tapes of answers being
//! written, and the readers.
//!
//! A reader is one [`Cursor`]. Entries are offered to it without blocking (`fanout`); a reader that could not take an
//! offer pulls what it missed, from the queue or, when that has moved on, from the store. Late join, resume, reconnect
//! and slow readers are this one mechanism.
//!
//! This module knows neither sockets nor dialects nor who may read: readers are attached by whoever has checked that.

mod ahead;
pub(crate) mod fanout;
mod gathering;
mod reader;
mod tape;
#[cfg(test)]
mod tests;

pub use reader::{Cursor, Encoder, Entry, FrameEnd, Frames, Level, Offer, Reader, ReaderId};
pub use tape::Tape;
pub(crate) use tape::{Heard, Refused};

use crate::event::{Event, GoneReason, Hint, HintKind};
use crate::id::{MessageId, RoomId, Seq, UserId};
use crate::metrics::Meters;
use crate::model::Message;
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use ::metrics::Counter;
use ahead::Ahead;
use gathering::Gathering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The most hints that wait for the next delivery; more push out the oldest.
const MAX_HINTS: usize = 64;

/// How a live room gathers and keeps what its readers get.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// In a busy room events gather this long before they are offered; the first after quiet goes at once, and where
    /// waiting brings nothing more, so do most others. Behind an offer that takes long they gather for longer, five
    /// times this at most. 5 ms by default.
    pub events: Duration,
    /// The same for deltas, to readers without an encoder that says otherwise; 1.6 times this at most. 25 ms by default.
    pub deltas: Duration,
    /// The most entries that are kept for readers which are behind; older ones they get from the store. 1,024 by
    /// default.
    pub entries: usize,
    /// The most bytes of text that are kept for them. 256 KiB by default.
    pub bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            events: Duration::from_millis(5),
            deltas: Duration::from_millis(25),
            entries: 1_024,
            bytes: 256 * 1024,
        }
    }
}

/// A room in memory. Everything mutable is behind `state`; readers' own locks are taken only after it is released.
pub struct LiveRoom {
    /// The room.
    pub(crate) id: RoomId,
    /// Whether every message may be an ask. Fixed when the room is made.
    pub(crate) ai_chat: bool,
    /// Where the fan-out runs, so that a closing engine can wait for it.
    tasks: TaskTracker,
    meters: Arc<Meters>,
    /// Wakes a fan-out that waits for a later moment than has now become due.
    changed: Notify,
    state: Mutex<State>,
}

struct State {
    /// Counts pieces of answers.
    deltas: Counter,
    /// The newest event in the queue or before it: the room's head, as far as this process knows.
    seq: Seq,
    /// The newest position: the number of entries there have ever been in this live room.
    head: u64,
    /// The oldest first. The entry at index 0 ends at position `head - queue.len() + 1`.
    queue: VecDeque<Entry>,
    /// Bytes of text in `queue`.
    bytes: usize,
    /// The seq that stood before the oldest entry: a reader at or above it needs no store.
    base_seq: Seq,
    /// Answers being written, here or by another engine.
    tapes: BTreeMap<MessageId, Arc<Tape>>,
    /// What other engines have written and no tape here can take yet.
    ahead: Ahead,
    /// Whether every answer that is being written has its tape here: not of a room that came into memory while another
    /// engine wrote in it, until somebody has looked.
    has_all_tapes: bool,
    /// How many answers have ended or were deleted.
    ends: u64,
    /// Readers that get the same bytes at the same moments.
    groups: Vec<Group>,
    /// Hints that wait to be delivered, oldest first, and whom to leave out.
    hints: VecDeque<(Hint, Option<ReaderId>)>,
    /// Whether the fan-out task runs.
    running: bool,
    pace: Pace,
}

/// Readers of one level and one encoder.
struct Group {
    level: Level,
    /// `None` for readers in this process, which are only woken.
    encoder: Option<Arc<dyn Encoder>>,
    /// Everything up to here has been offered.
    offered: Cursor,
    /// Copied on write, so that a delivery holds no lock while it walks them.
    readers: Arc<Vec<Registered>>,
    /// What waits for them.
    gathering: Gathering,
}

#[derive(Clone)]
struct Registered {
    id: ReaderId,
    user: UserId,
    reader: Arc<dyn Reader>,
}

/// What is missing before a piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Nothing,
    /// The answer's start is not known here.
    Start,
    /// Some of its text.
    Text,
}

/// What a reader that missed something gets.
pub(crate) enum Pull {
    /// These, in order; then it stands at the cursor.
    Entries(Vec<Entry>, Cursor),
    /// Its cursor is older than the queue: the store has what it missed.
    TooOld,
}

impl LiveRoom {
    pub(crate) fn new(
        id: RoomId,
        ai_chat: bool,
        seq: Seq,
        pace: Pace,
        tasks: TaskTracker,
        meters: Arc<Meters>,
    ) -> Arc<Self> {
        let state = State {
            seq,
            head: Cursor::OUTSIDE + 1,
            queue: VecDeque::new(),
            bytes: 0,
            base_seq: seq,
            tapes: BTreeMap::new(),
            ahead: Ahead::default(),
            has_all_tapes: false,
            ends: 0,
            groups: Vec::new(),
            hints: VecDeque::new(),
            running: false,
            pace,
            deltas: meters.deltas.clone(),
        };
        Arc::new(Self {
            id,
            ai_chat,
            tasks,
            meters,
            changed: Notify::new(),
            state: Mutex::new(state),
        })
    }

    /// The newest event that readers have been or will be offered.
    pub(crate) fn seq(&self) -> Seq {
        lock(&self.state).seq
    }

    /// How many entries, and how many bytes of them, are kept for readers that are behind.
    #[cfg(feature = "testing")]
    pub(crate) fn queued(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.queue.len(), state.bytes)
    }

    /// Whether nothing here is worth keeping in memory.
    pub(crate) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.groups.is_empty() && state.tapes.is_empty()
    }

    /// Lets go of the queue of a room that has become quiet. A reader that still needs it turns to the store.
    pub(crate) fn quiet(&self) {
        let mut state = lock(&self.state);
        if state.groups.iter().all(|group| group.gathering.is_empty()) {
            state.queue = VecDeque::new();
            state.bytes = 0;
            state.base_seq = state.seq;
            state.ahead = Ahead::default();
        }
    }

    /// Appends committed events, in order and following `seq`, and opens and closes the tapes they speak of.
    pub(crate) fn append(self: &Arc<Self>, events: &[Arc<Event>]) {
        self.meters.events.increment(events.len() as u64);
        let mut state = lock(&self.state);
        for event in events {
            match &**event {
                Event::TurnStarted { message, .. } => {
                    state.open(message);
                }
                Event::TurnEnded {
                    message: Some(message),
                    text,
                    ..
                } => {
                    state.ahead.forget(*message);
                    state.ends += 1;
                    if let Some(tape) = state.tapes.get(message).map(Arc::clone) {
                        tape.close();
                        if !removed(Mutant::DeltasBeforeEnd) {
                            state.publish(self.id, &tape);
                        }
                        state.tapes.remove(message);
                        // What another engine wrote may not have been offered here.
                        let told = tape.with_prefix(u64::MAX, |written| written == &**text);
                        state.push(Arc::clone(event), None, told);
                        continue;
                    }
                }
                Event::MessageDeleted { message, .. } => state.scrub(*message),
                _ => {}
            }
            state.push(Arc::clone(event), None, false);
        }
        if !events.is_empty() {
            let now = Instant::now();
            state
                .groups
                .iter_mut()
                .for_each(|group| group.gathering.events_came(now));
        }
        if events
            .iter()
            .any(|event| matches!(**event, Event::MessageDeleted { .. }))
        {
            let woken = state.groups.iter().filter(|group| group.encoder.is_none());
            let woken: Vec<_> = woken.map(|group| Arc::clone(&group.readers)).collect();
            drop(state);
            // What they were handed and have not looked at is as it was: they take it from the queue instead.
            for registered in woken.iter().flat_map(|readers| readers.iter()) {
                registered.reader.behind(self.id);
            }
            state = lock(&self.state);
        }
        if !state.running && !state.groups.is_empty() && state.groups.iter().all(|group| group.encoder.is_none()) {
            state.running = true;
            drop(state);
            self.deliver_here();
        } else {
            self.kick(&mut state);
        }
    }

    /// The tape of an answer being written, if its turn has started here and not ended.
    pub(crate) fn tape(&self, message: MessageId) -> Option<Arc<Tape>> {
        lock(&self.state).tapes.get(&message).map(Arc::clone)
    }

    /// Takes a piece of an answer that another engine writes. Returns whether something is missing before it that is to be
    /// looked for: the piece itself is kept, and taken as soon as it fits.
    pub(crate) fn hear(self: &Arc<Self>, message: MessageId, offset: u64, text: Arc<str>) -> Missing {
        let mut state = lock(&self.state);
        let Some(tape) = state.tapes.get(&message).map(Arc::clone) else {
            return match state.ahead.keep(message, offset, text) {
                true => Missing::Start,
                false => Missing::Nothing,
            };
        };
        match tape.hear(offset, &text) {
            Heard::Known => return Missing::Nothing,
            Heard::Ahead => {
                return match state.ahead.keep(message, offset, text) {
                    true => Missing::Text,
                    false => Missing::Nothing,
                };
            }
            Heard::Grown => {
                state.take_ahead(&tape);
            }
        }
        drop(state);
        self.grown();
        Missing::Nothing
    }

    /// Takes what an answer that another engine writes held at its last checkpoint, and the pieces that fit then.
    pub(crate) fn hear_all(self: &Arc<Self>, message: MessageId, text: &str) {
        let mut state = lock(&self.state);
        let Some(tape) = state.tapes.get(&message).map(Arc::clone) else {
            return;
        };
        let grown = tape.extend(text);
        let grown = state.take_ahead(&tape) || grown;
        drop(state);
        if grown {
            self.grown();
        }
    }

    /// Whether pieces of an answer that is being written wait for what comes before them.
    pub(crate) fn lacks(&self, message: MessageId) -> bool {
        let state = lock(&self.state);
        state.tapes.contains_key(&message) && state.ahead.has(message)
    }

    /// Whether every answer that is being written has its tape here.
    pub(crate) fn has_all_tapes(&self) -> bool {
        lock(&self.state).has_all_tapes
    }

    /// How many answers have been taken off the tapes, to be asked before the store is.
    pub(crate) fn ends(&self) -> u64 {
        lock(&self.state).ends
    }

    /// Opens the tapes of answers that other engines are writing, as the store says which are. False if an answer has
    /// ended since there were `ends`: it may have been one of these.
    pub(crate) fn open_tapes(&self, ends: u64, answers: &[Arc<Message>]) -> bool {
        let mut state = lock(&self.state);
        if state.ends != ends && !removed(Mutant::TapesAsOfHead) {
            return false;
        }
        for message in answers {
            // One that begins later is opened by its beginning.
            if message.seq <= state.seq {
                state.open(message);
            }
        }
        state.has_all_tapes = true;
        true
    }

    /// Lets go of the tapes of a room that was deleted: no end of their turns will be appended.
    pub(crate) fn abandon_tapes(&self) {
        let tapes = std::mem::take(&mut lock(&self.state).tapes);
        tapes.values().for_each(|tape| drop(tape.close()));
    }

    /// Tells the fan-out that a tape has grown.
    pub(crate) fn grown(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let mut news = false;
        for group in state.groups.iter_mut().filter(|group| group.level == Level::Full) {
            news |= group.gathering.deltas_came();
        }
        if news {
            self.kick(&mut state);
        }
    }

    /// Delivers something that may be missed, to all who read at full level (a read mark to everyone).
    pub(crate) fn hint(self: &Arc<Self>, hint: Hint, except: Option<ReaderId>) {
        let mut state = lock(&self.state);
        if state.groups.is_empty() {
            return;
        }
        let same = |other: &Hint| {
            other.user == hint.user && std::mem::discriminant(&other.what) == std::mem::discriminant(&hint.what)
        };
        state.hints.retain(|(other, _)| !same(other));
        if state.hints.len() >= MAX_HINTS {
            state.hints.pop_front();
        }
        state.hints.push_back((hint, except));
        self.kick(&mut state);
    }

    /// Gives the readers of one encoder a hint that was encoded elsewhere.
    pub(crate) async fn deliver_hint(&self, hint: &Hint, encoder: &Arc<dyn Encoder>, frames: &Frames) {
        let of_encoder = |group: &&Group| group.is(group.level, Some(encoder)) && group.wants(hint);
        let told: Vec<_> = {
            let state = lock(&self.state);
            let groups = state.groups.iter().filter(of_encoder);
            groups.map(|group| Arc::clone(&group.readers)).collect()
        };
        for readers in told {
            fanout::each(&readers, |registered| {
                registered.reader.hints(std::slice::from_ref(hint), frames)
            })
            .await;
        }
    }

    /// Adds a reader. It stands nowhere yet: it must be [loaded](Self::catch_up) before an offer can fit.
    pub(crate) fn attach(
        self: &Arc<Self>,
        id: ReaderId,
        user: UserId,
        reader: Arc<dyn Reader>,
        encoder: Option<Arc<dyn Encoder>>,
        level: Level,
    ) {
        let mut state = lock(&self.state);
        state.attach(self.id, Registered { id, user, reader }, encoder, level);
        self.kick_if_waiting(&mut state);
    }

    /// Moves a reader to another level, if it is still here. It stands nowhere there, as after [`attach`](Self::attach).
    pub(crate) fn switch(self: &Arc<Self>, id: ReaderId, encoder: Option<Arc<dyn Encoder>>, level: Level) {
        let mut state = lock(&self.state);
        if let Some(registered) = state.detach(id) {
            state.attach(self.id, registered, encoder, level);
            self.kick_if_waiting(&mut state);
        }
    }

    /// Removes a reader, at whatever level it is.
    pub(crate) fn detach(&self, id: ReaderId) {
        lock(&self.state).detach(id);
    }

    /// Removes all readers of one user, or of everyone, and tells each under its own lock: when this returns, nothing
    /// more of this room is written to any of them (I7).
    pub(crate) fn expel(&self, user: Option<UserId>, reason: GoneReason, by: Option<UserId>) {
        let mut expelled = Vec::new();
        {
            let mut state = lock(&self.state);
            for group in &mut state.groups {
                let goes = |other: &Registered| user.is_none_or(|user| other.user == user);
                if group.readers.iter().any(goes) {
                    expelled.extend(group.readers.iter().filter(|other| goes(other)).cloned());
                    Arc::make_mut(&mut group.readers).retain(|other| !goes(other));
                }
            }
            state.groups.retain(|group| !group.readers.is_empty());
        }
        for registered in expelled {
            registered.reader.gone(self.id, reason, by);
        }
    }

    /// Whether a reader at this cursor has everything that has been offered to its group.
    pub(crate) fn is_current(&self, cursor: Cursor, level: Level, encoder: Option<&Arc<dyn Encoder>>) -> bool {
        let state = lock(&self.state);
        state.group(level, encoder).is_none_or(|group| match level {
            Level::Full => cursor.pos >= group.offered.pos && cursor.seq >= group.offered.seq,
            Level::Events => cursor.seq >= group.offered.seq,
        })
    }

    /// What a reader at this cursor missed, up to what its group has been offered, so that the next offer fits.
    pub(crate) fn pull(&self, cursor: Cursor, level: Level, encoder: Option<&Arc<dyn Encoder>>) -> Pull {
        let state = lock(&self.state);
        match state.missed(cursor, level, encoder) {
            Some((missed, to)) => Pull::Entries(missed.map(|entry| entry.for_reader_at(cursor.seq)).collect(), to),
            None => Pull::TooOld,
        }
    }

    /// The same for a reader in this process, which wants the events alone. `None` if its cursor is older than the
    /// queue.
    pub(crate) fn pull_events(&self, cursor: Cursor, level: Level, mut give: impl FnMut(&Event)) -> Option<Cursor> {
        let state = lock(&self.state);
        let (missed, to) = state.missed(cursor, level, None)?;
        missed.for_each(|entry| give(&entry.event));
        Some(to)
    }

    /// Where a reader that knows everything up to `seq` (from the store, or because it was there) takes up: the events
    /// since then, and of each open tape what it lacks. `tapes` says how many bytes of a tape the reader holds; of
    /// others it gets the whole text. `None` if the queue begins later than `seq`: the store must be read again.
    pub(crate) fn catch_up(
        &self,
        seq: Seq,
        tapes: &BTreeMap<MessageId, u64>,
        level: Level,
        encoder: Option<&Arc<dyn Encoder>>,
    ) -> Option<(Vec<Entry>, Cursor)> {
        let state = lock(&self.state);
        let Some(group) = state.group(level, encoder) else {
            return Some((Vec::new(), Cursor { pos: state.head, seq }));
        };
        if seq < state.base_seq && seq < group.offered.seq && !removed(Mutant::FillFromStore) {
            return None;
        }
        let offered = group.offered;
        let cursor = Cursor {
            pos: offered.pos,
            seq: seq.max(offered.seq),
        };
        let mut entries = state.events(seq, offered.pos);
        if level == Level::Full {
            for tape in state
                .tapes_at(offered.pos)
                .values()
                .filter(|_| !removed(Mutant::TapeWithSnapshot))
            {
                // Deltas after `offered` are still to be offered: the text given here ends where they begin.
                let end = state.offset_at(tape, offered.pos);
                let held = tapes.get(&tape.message.id).copied();
                entries.extend(tape.missing(self.id, held, end).map(|event| Entry {
                    event: Arc::new(event),
                    tape: Some(Arc::clone(tape)),
                    told: false,
                    pos: cursor.pos,
                    seq: cursor.seq,
                }));
            }
        }
        // Whoever is cut short in these has not had all the tapes, and cannot go on from the queue.
        if let [before @ .., _] = entries.as_mut_slice() {
            before.iter_mut().for_each(|entry| entry.pos = Cursor::OUTSIDE);
        }
        Some((entries, cursor))
    }

    /// What a new reader has made entries of waits for the others: whoever wrote it finds that out and does not kick.
    fn kick_if_waiting(self: &Arc<Self>, state: &mut State) {
        if state.groups.iter().any(|group| !group.gathering.is_empty()) {
            self.kick(state);
        }
    }

    /// Starts the fan-out, or wakes it if it waits for a later moment.
    fn kick(self: &Arc<Self>, state: &mut State) {
        if state.groups.is_empty() {
            state.hints.clear();
        } else if state.running {
            self.changed.notify_one();
        } else {
            state.running = true;
            self.tasks.spawn(fanout::run(Arc::clone(self)));
        }
    }
}

impl State {
    fn group(&self, level: Level, encoder: Option<&Arc<dyn Encoder>>) -> Option<&Group> {
        self.groups.iter().find(|group| group.is(level, encoder))
    }

    fn attach(&mut self, room: RoomId, registered: Registered, encoder: Option<Arc<dyn Encoder>>, level: Level) {
        if level == Level::Full {
            // What nobody was there to be offered stands before the new reader's place, not after it.
            self.publish_all(room);
        }
        let index = match self.groups.iter().position(|group| group.is(level, encoder.as_ref())) {
            Some(index) => index,
            None => {
                let offered = Cursor {
                    pos: self.head,
                    seq: self.seq,
                };
                let readers = Arc::default();
                self.groups.push(Group {
                    level,
                    encoder,
                    offered,
                    readers,
                    gathering: Gathering::default(),
                });
                self.groups.len() - 1
            }
        };
        Arc::make_mut(&mut self.groups[index].readers).push(registered);
    }

    fn detach(&mut self, id: ReaderId) -> Option<Registered> {
        let mut found = None;
        for group in &mut self.groups {
            if let Some(index) = group.readers.iter().position(|other| other.id == id) {
                found = Some(Arc::make_mut(&mut group.readers).swap_remove(index));
            }
        }
        self.groups.retain(|group| !group.readers.is_empty());
        found
    }

    /// Opens the tape of an answer, with what has been heard of it.
    fn open(&mut self, message: &Arc<Message>) {
        let tape = self
            .tapes
            .entry(message.id)
            .or_insert_with(|| Tape::new(Arc::clone(message)));
        let tape = Arc::clone(tape);
        if self.take_ahead(&tape) {
            let full = self.groups.iter_mut().filter(|group| group.level == Level::Full);
            for group in full {
                group.gathering.deltas_came();
            }
        }
    }

    /// Lets a tape take the pieces that fit now. Returns whether it has grown.
    fn take_ahead(&mut self, tape: &Tape) -> bool {
        let mut grown = false;
        while let Some((offset, text)) = self.ahead.take(tape.message.id, tape.len() as u64) {
            grown |= tape.hear(offset, &text) == Heard::Grown;
        }
        grown
    }

    fn push(&mut self, event: Arc<Event>, tape: Option<Arc<Tape>>, told: bool) {
        self.head += 1;
        if let Some(seq) = event.seq() {
            self.seq = seq;
        }
        if tape.is_some() {
            for group in self.groups.iter_mut().filter(|group| group.level == Level::Full) {
                group.gathering.deltas_came();
            }
        }
        let entry = Entry {
            event,
            tape,
            told,
            pos: self.head,
            seq: self.seq,
        };
        self.bytes += entry.weight();
        self.queue.push_back(entry);
        while (self.queue.len() > self.pace.entries || self.bytes > self.pace.bytes) && !removed(Mutant::BoundedQueue) {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.base_seq = oldest.seq;
        }
    }

    /// Makes an entry of what a tape has gained since its last one.
    fn publish(&mut self, room: RoomId, tape: &Arc<Tape>) {
        if let Some(delta) = tape.publish(room) {
            self.deltas.increment(1);
            self.push(Arc::new(delta), Some(Arc::clone(tape)), false);
        }
    }

    fn publish_all(&mut self, room: RoomId) {
        let tapes: Vec<_> = self.tapes.values().map(Arc::clone).collect();
        for tape in tapes {
            self.publish(room, &tape);
        }
    }

    /// Takes a deleted message's content out of everything that is still to be read.
    fn scrub(&mut self, deleted: MessageId) {
        self.tapes.remove(&deleted);
        self.ahead.forget(deleted);
        self.ends += 1;
        for entry in &mut self.queue {
            if let Some(tape) = entry.tape.as_ref().filter(|tape| tape.message.id == deleted) {
                tape.scrub();
            }
            let event = match &*entry.event {
                Event::Delta { message, .. } if *message == deleted => {
                    let mut event = (*entry.event).clone();
                    if let Event::Delta { text, .. } = &mut event {
                        // The length stays, so that what follows still fits; the words do not.
                        *text = " ".repeat(text.len()).into();
                    }
                    event
                }
                Event::TurnEnded {
                    message: Some(message), ..
                } if *message == deleted => {
                    let mut event = (*entry.event).clone();
                    if let Event::TurnEnded { text, .. } = &mut event {
                        *text = "".into();
                    }
                    event
                }
                other if other.message().is_some_and(|message| message.id == deleted) => {
                    let mut event = (*entry.event).clone();
                    if let Event::MessagePosted { message, .. }
                    | Event::MessageEdited { message, .. }
                    | Event::TurnStarted { message, .. } = &mut event
                    {
                        let at = message.created_at;
                        Arc::make_mut(message).scrub(at);
                    }
                    event
                }
                _ => continue,
            };
            self.bytes -= entry.weight();
            entry.event = Arc::new(event);
            self.bytes += entry.weight();
        }
    }

    /// What a reader at this cursor missed, up to what its group has been offered, and where it stands then. `None` if
    /// its cursor is older than the queue.
    fn missed(
        &self,
        cursor: Cursor,
        level: Level,
        encoder: Option<&Arc<dyn Encoder>>,
    ) -> Option<(impl Iterator<Item = &Entry>, Cursor)> {
        let Some(group) = self.group(level, encoder) else {
            // Nothing is offered to a reader that is not here.
            return Some((self.needed(0, Cursor::OUTSIDE, cursor.seq, level), cursor));
        };
        let base = self.head - self.queue.len() as u64;
        let in_queue = match level {
            // A cursor that came from the store has no place in the queue, only a seq.
            Level::Full => cursor.pos >= base && cursor.seq >= self.base_seq,
            Level::Events => cursor.seq >= self.base_seq,
        };
        if !in_queue && !removed(Mutant::FillFromStore) {
            return None;
        }
        let first = match level {
            Level::Full => cursor.pos.saturating_sub(base) as usize,
            Level::Events => self.first_after(cursor.seq),
        };
        let to = Cursor {
            pos: group.offered.pos,
            seq: cursor.seq.max(group.offered.seq),
        };
        Some((self.needed(first, to.pos, cursor.seq, level), to))
    }

    /// The index of the first entry that may bring an event after `seq`.
    fn first_after(&self, seq: Seq) -> usize {
        if removed(Mutant::SkipBelowCursor) {
            return 0;
        }
        self.queue.partition_point(|entry| entry.seq <= seq)
    }

    /// The entries from index `first` up to position `to` that a reader needs who has seen the log up to `seq`, which
    /// may be further than this live room has.
    fn needed(&self, first: usize, to: u64, seq: Seq, level: Level) -> impl Iterator<Item = &Entry> {
        let queue = self.queue.iter().skip(first).take_while(move |entry| entry.pos <= to);
        queue.filter(move |entry| match entry.event.seq() {
            Some(its) => its > seq || removed(Mutant::SkipBelowCursor),
            None => level == Level::Full,
        })
    }

    /// The events after `seq`, up to position `to`.
    fn events(&self, seq: Seq, to: u64) -> Vec<Entry> {
        let needed = self.needed(self.first_after(seq), to, seq, Level::Events);
        // Without the pieces.
        let alone = |entry: &Entry| Entry {
            told: false,
            ..entry.for_reader_at(seq)
        };
        needed.map(alone).collect()
    }

    /// The tapes that a reader at `pos` needs the text of: the open ones, and those that have been closed by what it
    /// is still to be offered.
    fn tapes_at(&self, pos: u64) -> BTreeMap<MessageId, Arc<Tape>> {
        let later = self.queue.iter().rev().take_while(|entry| entry.pos > pos);
        let closed = later
            .filter_map(|entry| entry.tape.as_ref())
            .map(|tape| (tape.message.id, Arc::clone(tape)));
        self.tapes
            .iter()
            .map(|(id, tape)| (*id, Arc::clone(tape)))
            .chain(closed)
            .collect()
    }

    /// How many bytes of a tape the deltas up to position `pos` bring.
    fn offset_at(&self, tape: &Arc<Tape>, pos: u64) -> u64 {
        let after = |entry: &&Entry| entry.pos > pos;
        self.queue
            .iter()
            .rev()
            .take_while(after)
            .filter_map(|entry| match &*entry.event {
                Event::Delta { message, offset, .. } if *message == tape.message.id => Some(*offset),
                _ => None,
            })
            .last()
            .unwrap_or_else(|| tape.published())
    }
}

impl Group {
    fn is(&self, level: Level, encoder: Option<&Arc<dyn Encoder>>) -> bool {
        self.level == level
            && match (&self.encoder, encoder) {
                (None, None) => true,
                (Some(mine), Some(other)) => Arc::ptr_eq(mine, other),
                _ => false,
            }
    }

    /// Whether this hint is for this group's readers.
    fn wants(&self, hint: &Hint) -> bool {
        self.level == Level::Full || matches!(hint.what, HintKind::Read { .. })
    }
}

impl std::fmt::Debug for LiveRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveRoom").field("id", &self.id).finish_non_exhaustive()
    }
}
