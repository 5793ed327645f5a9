//! Read receipts: who has read each author's newest message, in the seed's shape, and telling everybody in a room when
//! that changes.
//!
//! One read makes each of a room's clients fetch their lists again, so changes are merged: everybody gets one frame,
//! looked up and built once, and not the next one before a while. It knows no sockets; a room that is quiet costs
//! nothing here, and one whose marks move costs an entry.

use crate::dialect::seed::{self, Seed};
use crate::objects::ReceiptObject;
use coop_core::live::{Encoder, Frames};
use coop_core::{Engine, ErrorKind, Hint, MessageId, Result, RoomId, Snapshot};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long changes of one room gather.
const INTERVAL: Duration = Duration::from_millis(250);
/// The same in a room of more than [`LARGE`] members.
const LARGE_INTERVAL: Duration = Duration::from_secs(2);
const LARGE: usize = 50;
/// Authors are looked for among so many of a room's newest messages: clients show no others when they open it.
const MESSAGES: u32 = 50;
/// The most readers told of one message.
const READERS: usize = 50;
/// How many rooms are looked up at a time.
const LOOKS: usize = 4;

/// The receipts of one room, by message. What nobody has read is not in it.
pub(crate) type RoomReceipts<'a> = BTreeMap<MessageId, Vec<ReceiptObject<'a>>>;

/// What a room's receipts are.
pub(crate) async fn look(engine: &Engine, room: RoomId) -> Result<Snapshot> {
    engine.snapshot(room, MESSAGES).await
}

/// Who has read each author's newest message. Whoever has read nothing yet has not read what was said before they came,
/// though their mark stands after it.
pub(crate) fn of(snapshot: &Snapshot) -> RoomReceipts<'_> {
    let mut authors = BTreeSet::new();
    let newest = snapshot.messages.iter().rev().filter(|message| {
        let author = &message.author;
        authors.insert((author.user, author.bot.as_deref()))
    });
    let mut receipts = RoomReceipts::new();
    for message in newest {
        let readers = snapshot
            .members
            .iter()
            .filter(|member| message.author.user != Some(member.user) && member.read >= message.seq);
        let mut told: Vec<_> = readers
            .filter_map(|member| {
                Some(ReceiptObject {
                    user_id: member.user,
                    username: &member.name,
                    read_at: member.read_at?.max(message.created_at),
                })
            })
            .collect();
        told.sort_by_key(|receipt| receipt.read_at);
        told.truncate(READERS);
        if !told.is_empty() {
            receipts.insert(message.id, told);
        }
    }
    receipts
}

/// Tells rooms of their changes.
#[derive(Debug)]
pub(crate) struct Receipts {
    engine: Engine,
    /// Whose readers are told. It holds this.
    encoder: Weak<Seed>,
    changes: Mutex<Changes>,
    /// Tells the task that a room is due earlier than it thinks.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Changes {
    /// Rooms that changed, and those that were told a moment ago.
    rooms: BTreeMap<RoomId, Change>,
    /// Whether there is a task. It lives while there are rooms.
    running: bool,
}

#[derive(Debug)]
struct Change {
    /// The newest mark that nobody was told of; without one the room only rests.
    mark: Option<Hint>,
    /// When to tell, or when the rest is over.
    due: Instant,
}

impl Receipts {
    pub(crate) fn new(engine: Engine, encoder: Weak<Seed>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            encoder,
            changes: Mutex::default(),
            earlier: Notify::new(),
        })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame that tells a room's receipts as they are now.
    ///
    /// # Errors
    /// `NotFound` if there is no such room, `Unavailable`, `Closed`.
    pub(crate) async fn frame(&self, room: RoomId) -> Result<Vec<u8>> {
        let snapshot = look(&self.engine, room).await?;
        Ok(seed::receipts(room, of(&snapshot)))
    }

    /// A read mark has moved: everybody in its room is told soon. To be called within the runtime.
    pub(crate) fn changed(self: &Arc<Self>, mark: &Hint) {
        let due = Instant::now() + INTERVAL;
        let mut changes = self.changes();
        let change = changes.rooms.entry(mark.room);
        change.or_insert(Change { mark: None, due }).mark = Some(mark.clone());
        if changes.running {
            self.earlier.notify_one();
        } else {
            changes.running = true;
            tokio::spawn(Arc::clone(self).run());
        }
    }

    async fn run(self: Arc<Self>) {
        let _alive = Alive(&self);
        loop {
            let (marks, next) = self.due(Instant::now());
            if !marks.is_empty() {
                let told = futures::stream::iter(marks);
                told.for_each_concurrent(LOOKS, |mark| self.tell(mark)).await;
                continue;
            }
            let Some(next) = next else { return };
            tokio::select! {
                biased;
                () = self.earlier.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// The marks to tell of now, and when to look again; neither if the task should end.
    fn due(&self, now: Instant) -> (Vec<Hint>, Option<Instant>) {
        let mut changes = self.changes();
        changes
            .rooms
            .retain(|_, change| change.mark.is_some() || change.due > now);
        let due = changes.rooms.values_mut().filter(|change| change.due <= now);
        let marks: Vec<_> = due
            .filter_map(|change| {
                change.due = now + INTERVAL;
                change.mark.take()
            })
            .collect();
        let next = changes.rooms.values().map(|change| change.due).min();
        changes.running = next.is_some();
        (marks, next)
    }

    async fn tell(&self, mark: Hint) {
        let Some(seed) = self.encoder.upgrade() else { return };
        let room = mark.room;
        match look(&self.engine, room).await {
            Ok(snapshot) => {
                if snapshot.members.len() > LARGE {
                    self.rest(room, None);
                }
                let mut frames = Frames::default();
                frames.bytes = seed::receipts(room, of(&snapshot));
                let encoder: Arc<dyn Encoder> = seed;
                self.engine.deliver_hint(&mark, &encoder, &frames).await;
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => {}
            Err(_) => self.rest(room, Some(mark)),
        }
    }

    /// Leaves a room alone for the longer while, after which it is told of this mark or a newer one.
    fn rest(&self, room: RoomId, mark: Option<Hint>) {
        if let Some(change) = self.changes().rooms.get_mut(&room) {
            change.due = Instant::now() + LARGE_INTERVAL;
            change.mark = change.mark.take().or(mark);
        }
    }
}

/// Says that no task runs if this one panics, so that the next change starts another.
struct Alive<'a>(&'a Receipts);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.changes().running = false;
        }
    }
}
