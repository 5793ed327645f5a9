//! A reader's hold on the rooms of one user: entering and leaving them, and pulling what it missed. Servers'
//! connections and subscriptions in this process use the same. Dropping it detaches the reader everywhere.

use crate::engine::{Enter, LOOKS, Shared};
use crate::error::{Error, Result};
use crate::event::{Event, Hint, HintKind};
use crate::id::{Epoch, MessageId, RoomId, Seq, UserId};
use crate::live::{Cursor, Encoder, Entry, Level, LiveRoom, Pull, Reader, ReaderId};
use crate::model::{Message, MessageStatus, Position, RoomEntry, TapeText};
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use crate::writer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::SemaphorePermit;

/// How many messages a snapshot holds.
pub(crate) const SNAPSHOT: u32 = 50;
/// A reader further behind than this gets a snapshot when it resumes.
const RESUME: u32 = 500;

/// A reader, attached to the rooms of its user.
pub struct Attachment {
    shared: Arc<Shared>,
    id: ReaderId,
    user: UserId,
    name: String,
    reader: Arc<dyn Reader>,
    encoder: Option<Arc<dyn Encoder>>,
    /// The rooms to detach from when this is dropped. More than the reader still reads: rooms it lost stay until then,
    /// and may have left memory. Sorted by room, and no map: most readers are in few rooms, and there are many readers.
    /// Taken after the registry's lock, never before it.
    entered: Mutex<Vec<Arc<LiveRoom>>>,
}

/// A room in memory, as a connection keeps it beside its cursor: one pointer.
#[derive(Clone, Debug)]
pub struct Feed(Arc<LiveRoom>);

/// What a reader gets that is not offered something: entries in order, and where it stands after them.
#[derive(Debug)]
pub struct Pulled {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the reader stands then.
    pub to: Cursor,
}

/// Where a reader begins in a room.
#[derive(Clone, Debug)]
pub enum Start {
    /// With a snapshot.
    Snapshot,
    /// Where an earlier connection stopped; with a snapshot if that is not usable (another epoch, ahead of the log, too
    /// far behind).
    Position(Position),
    /// After this event, which the reader has, in the log as it is now; with a snapshot if that is not usable. Open answers
    /// are given whole.
    After(Seq),
    /// After this event, which the reader has, however far that is back. Open answers are given whole.
    Since(Seq),
}

impl Feed {
    /// The room.
    #[must_use]
    pub fn room(&self) -> RoomId {
        self.0.id
    }

    /// Whether it was made as an AI chat, in which somebody alone asks with every message.
    #[must_use]
    pub fn is_ai_chat(&self) -> bool {
        self.0.ai_chat
    }

    pub(crate) fn live(&self) -> &LiveRoom {
        &self.0
    }
}

impl Attachment {
    pub(crate) fn new(
        shared: Arc<Shared>,
        user: UserId,
        name: String,
        reader: Arc<dyn Reader>,
        encoder: Option<Arc<dyn Encoder>>,
    ) -> Self {
        let id = shared.register(user, Arc::clone(&reader));
        Self {
            shared,
            id,
            user,
            name,
            reader,
            encoder,
            entered: Mutex::default(),
        }
    }

    /// The reader's name, by which hints leave it out.
    #[must_use]
    pub fn id(&self) -> ReaderId {
        self.id
    }

    /// Attaches at events level to all rooms of the user, in one query. The cursors stand where the entries say: what
    /// has happened since is to be pulled.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer, `Closed`.
    pub async fn enter_all(&self) -> Result<Vec<(RoomEntry, Feed, Cursor)>> {
        self.enter_some(None).await
    }

    /// The same for one room; `None` if the user is not a member.
    ///
    /// # Errors
    /// As [`enter_all`](Self::enter_all).
    pub async fn enter(&self, room: RoomId) -> Result<Option<(RoomEntry, Feed, Cursor)>> {
        Ok(self.enter_some(Some(room)).await?.pop())
    }

    async fn enter_some(&self, only: Option<RoomId>) -> Result<Vec<(RoomEntry, Feed, Cursor)>> {
        self.shared.check_open()?;
        for _ in 0..LOOKS {
            let generation = self.shared.generation();
            let entries = self.shared.rooms.rooms_of(self.user, only).await?;
            let feeds = self.shared.enter(generation, |enter| {
                entries
                    .iter()
                    .map(|entry| self.enter_at(entry, enter))
                    .collect::<Vec<_>>()
            });
            if let Some(feeds) = feeds {
                let with_cursor = |(entry, feed): (RoomEntry, Feed)| {
                    let cursor = Cursor::outside(entry.seq);
                    (entry, feed, cursor)
                };
                return Ok(entries.into_iter().zip(feeds).map(with_cursor).collect());
            }
        }
        Err(Error::unavailable("too much is changing at once"))
    }

    /// Attaches at events level while the registry stands still.
    fn enter_at(&self, entry: &RoomEntry, enter: &mut Enter<'_>) -> Feed {
        let live = enter.live(&entry.info, entry.seq);
        live.detach(self.id);
        live.attach(
            self.id,
            self.user,
            Arc::clone(&self.reader),
            self.encoder.clone(),
            Level::Events,
        );
        let mut entered = lock(&self.entered);
        let kept = Arc::clone(&live);
        match entered.binary_search_by_key(&live.id, |other| other.id) {
            Ok(index) => entered[index] = kept,
            Err(index) => entered.insert(index, kept),
        }
        Feed(live)
    }

    /// Whether a reader at this cursor has all that has been offered, so that the next offer will fit. To be asked
    /// under the reader's own lock before its task sleeps.
    #[must_use]
    pub fn is_current(&self, feed: &Feed, level: Level, cursor: Cursor) -> bool {
        removed(Mutant::HeadBeforeSleep) || feed.0.is_current(cursor, level, self.encoder.as_ref())
    }

    /// What a reader at this cursor missed: from the queue, or from the store.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer; the cursor stays good.
    pub async fn pull(&self, feed: &Feed, level: Level, cursor: Cursor) -> Result<Pulled> {
        match feed.0.pull(cursor, level, self.encoder.as_ref()) {
            Pull::Entries(entries, to) => Ok(Pulled { entries, to }),
            Pull::TooOld => self.load(feed, level, Start::Since(cursor.seq)).await,
        }
    }

    /// Moves the reader to full level. Until the result is taken no offer fits, so the reader must set its level to
    /// full and its cursor to [`Cursor::NOWHERE`] first, and may write what comes back only if it still reads the room.
    ///
    /// # Errors
    /// As [`pull`](Self::pull); also `NotFound` if the room is gone.
    pub async fn join(&self, feed: &Feed, start: Start) -> Result<Pulled> {
        self.find_tapes(&feed.0).await?;
        feed.0.switch(self.id, self.encoder.clone(), Level::Full);
        self.load(feed, Level::Full, start).await
    }

    /// Opens the tapes of answers that other engines were writing when this room came into memory.
    async fn find_tapes(&self, live: &LiveRoom) -> Result<()> {
        let rooms = &self.shared.rooms;
        if rooms.others().is_none() || live.has_all_tapes() {
            return Ok(());
        }
        for _ in 0..LOOKS {
            let ends = live.ends();
            let mut answers = Vec::new();
            for turn in rooms.open_turns(Some(live.id)).await? {
                if let Some(message) = turn.message {
                    answers.extend(rooms.message(live.id, message).await?);
                }
            }
            answers.retain(|message| message.status == MessageStatus::Streaming);
            if live.open_tapes(ends, &answers) {
                return Ok(());
            }
        }
        Err(Error::unavailable("too much is changing at once"))
    }

    /// Moves the reader back to events level, where it goes on from the same cursor.
    pub fn leave(&self, feed: &Feed) {
        feed.0.switch(self.id, self.encoder.clone(), Level::Events);
    }

    /// Everything between a start and now. A reader that holds of an answer what nobody has written here is given a snapshot:
    /// a shorter text than its own would be dropped.
    async fn load(&self, feed: &Feed, level: Level, start: Start) -> Result<Pulled> {
        let held: Vec<MessageId> = match &start {
            Start::Position(position) => position.tapes.keys().copied().collect(),
            _ => Vec::new(),
        };
        let pulled = self.load_from(feed, level, start).await?;
        let misfits = |entry: &Entry| held.iter().any(|answer| is_tape_of(&entry.event, *answer));
        if pulled.entries.iter().any(misfits) {
            return self.load_from(feed, level, Start::Snapshot).await;
        }
        Ok(pulled)
    }

    /// The same, from the store and the queue.
    async fn load_from(&self, feed: &Feed, level: Level, start: Start) -> Result<Pulled> {
        let (live, room) = (&feed.0, feed.room());
        self.shared.meters.backfills.increment(1);
        let mut permit = self.permit().await?;
        let mut entries = Vec::new();
        let (mut seq, tapes) = match self.usable(feed, start).await? {
            Some((seq, tapes)) => (seq, tapes),
            None => {
                let snapshot = self
                    .shared
                    .rooms
                    .snapshot(room, SNAPSHOT)
                    .await?
                    .ok_or_else(Error::no_such_room)?;
                let seq = snapshot.seq;
                entries.push(Entry::outside(Arc::new(Event::Snapshot(Box::new(snapshot))), seq));
                (seq, BTreeMap::new())
            }
        };
        permit = self.abreast(live, seq, permit).await?;
        if let Some((more, to)) = live.catch_up(seq, &tapes, level, self.encoder.as_ref()) {
            Self::append(&mut entries, more);
            return Ok(Pulled { entries, to });
        }
        let events = self.shared.rooms.events(room, seq, RESUME).await?;
        if events.is_empty() && self.shared.rooms.room(room).await?.is_none() {
            return Err(Error::no_such_room());
        }
        for event in events {
            seq = event.seq().unwrap_or(seq);
            entries.push(Entry::outside(event, seq));
        }
        let _permit = self.abreast(live, seq, permit).await?;
        match live.catch_up(seq, &tapes, level, self.encoder.as_ref()) {
            Some((more, to)) => {
                Self::append(&mut entries, more);
                Ok(Pulled { entries, to })
            }
            // More is missing than one load may hold, or the queue has moved on: what there is goes first.
            None => Ok(Pulled {
                entries,
                to: Cursor::outside(seq),
            }),
        }
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.shared.loads.acquire().await.map_err(|_| Error::closed())
    }

    /// Lets a live room that is behind what was read catch up with other engines: an answer has to begin here before a
    /// reader may have some of it.
    async fn abreast<'a>(
        &'a self,
        live: &LiveRoom,
        seq: Seq,
        permit: SemaphorePermit<'a>,
    ) -> Result<SemaphorePermit<'a>> {
        if self.shared.rooms.others().is_none() || seq <= live.seq() {
            return Ok(permit);
        }
        drop(permit);
        writer::look(&self.shared, live.id).await?;
        self.permit().await
    }

    /// The position a start stands for, if it can be taken up.
    async fn usable(&self, feed: &Feed, start: Start) -> Result<Option<(Seq, BTreeMap<MessageId, u64>)>> {
        match start {
            Start::Snapshot => Ok(None),
            Start::Since(seq) => Ok(Some((seq, BTreeMap::new()))),
            Start::After(seq) => Ok(self.reachable(feed, None, seq).await?.then(|| (seq, BTreeMap::new()))),
            Start::Position(Position { epoch, seq, tapes }) => {
                let usable = self.reachable(feed, Some(epoch), seq).await?;
                Ok(usable.then_some((seq, tapes)))
            }
        }
    }

    /// Whether a reader that stands here, in this life of the log, can be given what it missed.
    async fn reachable(&self, feed: &Feed, epoch: Option<Epoch>, seq: Seq) -> Result<bool> {
        let head = self.shared.rooms.room(feed.room()).await?;
        let head = head.ok_or_else(Error::no_such_room)?;
        let behind = head.seq.0.saturating_sub(seq.0);
        Ok(epoch.is_none_or(|epoch| epoch == head.epoch) && (0..=i64::from(RESUME)).contains(&behind))
    }

    /// Appends what follows. The store may be ahead of the live room: an answer that has ended by what was read there is
    /// complete, whatever its tape holds. Tapes that directly follow a snapshot become part of it.
    fn append(entries: &mut Vec<Entry>, mut more: Vec<Entry>) {
        let ended: BTreeSet<MessageId> = entries.iter().flat_map(|entry| ended_by(&entry.event)).collect();
        more.retain(|entry| entry.tape.as_ref().is_none_or(|tape| !ended.contains(&tape.message.id)));
        // The store may also know more of an answer than has been offered here: what is offered next continues the tape.
        for entry in entries.iter_mut() {
            let has_tape = |message: &Message| more.iter().any(|entry| is_tape_of(&entry.event, message.id));
            let begun = |event: &Event| matches!(event, Event::TurnStarted { message, .. } if has_tape(message));
            if begun(&entry.event)
                && let Event::TurnStarted { message, .. } = Arc::make_mut(&mut entry.event)
            {
                Arc::make_mut(message).text.clear();
            }
            if let Event::Snapshot(snapshot) = Arc::make_mut(&mut entry.event) {
                let begun = snapshot.messages.iter_mut().filter(|message| has_tape(message));
                begun.for_each(|message| Arc::make_mut(message).text.clear());
            }
        }
        if let [Entry { event, .. }] = entries.as_mut_slice()
            && more.iter().all(|entry| entry.event.seq().is_none())
            && let Event::Snapshot(snapshot) = Arc::make_mut(event)
        {
            snapshot.tapes = more.iter().filter_map(|entry| tape_text(&entry.event)).collect();
        } else {
            entries.extend(more);
        }
    }

    /// Tells the others in a room something fleeting about this user; this reader is left out.
    pub fn hint(&self, feed: &Feed, what: HintKind) {
        let hint = Hint {
            room: feed.room(),
            user: self.user,
            name: self.name.clone(),
            what,
        };
        self.shared.hint(hint, Some(self.id));
    }

    /// What a handle on one of its rooms is made of.
    pub(crate) fn owner(&self) -> (&Arc<Shared>, UserId, &str) {
        (&self.shared, self.user, &self.name)
    }

    /// Forgets a room the reader has lost, so that it can be entered again later.
    pub fn forget(&self, room: RoomId) {
        // In a statement of its own: the registry's lock is never waited for while this one is held.
        let entered = {
            let mut entered = lock(&self.entered);
            let index = entered.binary_search_by_key(&room, |live| live.id);
            index.ok().map(|index| entered.remove(index))
        };
        if let Some(live) = entered {
            live.detach(self.id);
            self.shared.release(room);
        }
    }

    /// The rooms this reader has entered.
    #[must_use]
    pub fn rooms(&self) -> BTreeSet<RoomId> {
        lock(&self.entered).iter().map(|live| live.id).collect()
    }
}

/// The answers that are over once this has been read.
fn ended_by(event: &Event) -> Vec<MessageId> {
    match event {
        Event::Snapshot(snapshot) => {
            let over = |message: &&Arc<Message>| message.status != MessageStatus::Streaming;
            snapshot
                .messages
                .iter()
                .filter(over)
                .map(|message| message.id)
                .collect()
        }
        Event::TurnEnded {
            message: Some(message), ..
        } => vec![*message],
        _ => Vec::new(),
    }
}

fn is_tape_of(event: &Event, answer: MessageId) -> bool {
    matches!(event, Event::Tape { message, .. } if *message == answer)
}

fn tape_text(event: &Event) -> Option<TapeText> {
    match event {
        Event::Tape { message, end, text, .. } => Some(TapeText {
            message: *message,
            end: *end,
            text: Arc::clone(text),
        }),
        _ => None,
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.shared.unregister(self.user, self.id);
        for live in std::mem::take(&mut *lock(&self.entered)) {
            live.detach(self.id);
            self.shared.release(live.id);
        }
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("id", &self.id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
