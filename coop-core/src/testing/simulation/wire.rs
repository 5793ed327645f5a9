//! A connection as a server has it, on a socket that takes as much as it likes: it is offered frames, keeps the rest of
//! a cut one, and pulls what it missed. It reads one room at full level and the others at events level.

use super::Shown;
use super::people::take;
use super::servers::{Server, Servers};
use super::world::World;
use crate::attachment::{Attachment, Feed, Start};
use crate::event::{Event, GoneReason, Hint};
use crate::id::{RoomId, Seq, UserId};
use crate::live::{Cursor, Encoder, Entry, Frames, Level, Offer, Reader};
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One frame is a length and an event as JSON.
struct Json;

impl Encoder for Json {
    fn delta_interval(&self) -> Duration {
        Duration::from_millis(40)
    }

    fn encode(&self, _level: Level, entries: &[Entry], frames: &mut Frames) {
        for entry in entries {
            let json = serde_json::to_vec(&*entry.event).unwrap_or_default();
            frames.bytes.extend((json.len() as u32).to_le_bytes());
            frames.bytes.extend(json);
            frames.end(entry.cursor());
        }
    }

    fn encode_hint(&self, _hint: &Hint, _frames: &mut Frames) {}
}

/// All connections share one encoder, so that they are one group.
fn encoder() -> Arc<dyn Encoder> {
    static ENCODER: OnceLock<Arc<dyn Encoder>> = OnceLock::new();
    Arc::clone(ENCODER.get_or_init(|| Arc::new(Json)))
}

struct Wire {
    world: Arc<World>,
    state: Mutex<State>,
    /// Something could not be taken. Cleared by the connection's task before it looks at the heads.
    behind: AtomicBool,
    wake: Notify,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<RoomId, Slot>,
    /// How many bytes the socket takes before it is full.
    space: usize,
    /// The rest of one frame that was cut.
    rest: Vec<u8>,
    /// What has reached the client.
    arrived: VecDeque<u8>,
    /// How many bytes the client has read.
    read: u64,
    /// When what was written: the position of the first byte of each write that is still of interest, and its time.
    written: VecDeque<(u64, i64)>,
    gained: Vec<RoomId>,
    gone: Vec<RoomId>,
    closed: bool,
}

struct Slot {
    feed: Feed,
    level: Level,
    cursor: Cursor,
}

impl State {
    fn write(&mut self, now: i64, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.space);
        self.space -= taken;
        self.written.push_back((self.read + self.arrived.len() as u64, now));
        self.arrived.extend(&bytes[..taken]);
        taken
    }

    /// Takes a whole frame that has arrived, and when its first byte was written.
    fn next_frame(&mut self) -> Option<(Vec<u8>, i64)> {
        let head: Vec<u8> = self.arrived.iter().take(4).copied().collect();
        let length = u32::from_le_bytes(<[u8; 4]>::try_from(head).ok()?) as usize;
        if self.arrived.len() < 4 + length {
            return None;
        }
        while self.written.get(1).is_some_and(|(from, _)| *from <= self.read) {
            self.written.pop_front();
        }
        let at = self.written.front().map_or(i64::MAX, |(_, at)| *at);
        self.read += 4 + length as u64;
        Some((self.arrived.drain(..4 + length).skip(4).collect(), at))
    }

    /// Writes frames; where they are cut the rest of one is kept, and the cursor stands after that one.
    fn write_frames(&mut self, now: i64, room: RoomId, frames: &Frames, to: Cursor) -> bool {
        let taken = self.write(now, &frames.bytes);
        let complete = taken == frames.bytes.len();
        let reached = if complete {
            Some(to)
        } else {
            let cut = frames.ends().iter().find(|end| end.byte >= taken);
            let untouched = taken == 0 || frames.ends().iter().any(|end| end.byte == taken);
            match cut {
                Some(end) if !untouched => {
                    self.rest.extend(&frames.bytes[taken..end.byte]);
                    Some(end.cursor)
                }
                Some(end) if taken > 0 => Some(end.cursor),
                _ => None,
            }
        };
        if let (Some(reached), Some(slot)) = (reached, self.slots.get_mut(&room)) {
            slot.cursor = reached;
        }
        complete
    }
}

impl Wire {
    fn mark_behind(&self) {
        if !removed(Mutant::BehindAfterRefusal) {
            self.behind.store(true, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }
}

impl Reader for Wire {
    fn offer(&self, offer: &Offer<'_>) {
        // Now and then its lock is busy.
        if self.world.roll(16) == 0 {
            return self.mark_behind();
        }
        let mut state = lock(&self.state);
        let Some(slot) = state.slots.get(&offer.room) else {
            return;
        };
        if !state.rest.is_empty() || !offer.fits(slot.level, slot.cursor) {
            return self.mark_behind();
        }
        if !state.write_frames(self.world.now(), offer.room, offer.frames, offer.to) {
            self.mark_behind();
        }
    }

    fn hints(&self, _hints: &[Hint], _frames: &Frames) {}

    fn behind(&self, _room: RoomId) {
        self.mark_behind();
    }

    fn gone(&self, room: RoomId, _reason: GoneReason, _by: Option<UserId>) {
        let mut state = lock(&self.state);
        state.slots.remove(&room);
        state.gone.push(room);
        drop(state);
        self.wake.notify_one();
    }

    fn gained(&self, room: RoomId) {
        lock(&self.state).gained.push(room);
        self.wake.notify_one();
    }

    fn closed(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_one();
    }
}

/// Connects over and over until everything is quiet.
pub(super) async fn live(world: Arc<World>, servers: Arc<Servers>, user: UserId) {
    while !world.is_quiet() {
        world.dawdle(60).await;
        let server = servers.any();
        let Ok(account) = server.engine.user(user).await else {
            continue;
        };
        let wire = Arc::new(Wire {
            world: Arc::clone(&world),
            state: Mutex::default(),
            behind: AtomicBool::new(true),
            wake: Notify::new(),
        });
        let attachment = account.attach(Arc::clone(&wire) as Arc<dyn Reader>, encoder());
        Connection {
            world: &world,
            server: &server,
            user,
            wire: &wire,
            attachment,
            clients: BTreeMap::new(),
        }
        .serve()
        .await;
    }
}

/// What the client at the other end knows of a room.
#[allow(clippy::large_enum_variant, reason = "one for each room of a few readers")]
enum Client {
    /// Full level: everything it shows.
    Full(Option<Shown>),
    /// Events level: only that nothing is missing or doubled.
    Events(Seq),
}

struct Connection<'a> {
    world: &'a World,
    server: &'a Server,
    user: UserId,
    wire: &'a Wire,
    attachment: Attachment,
    clients: BTreeMap<RoomId, Client>,
}

impl Connection<'_> {
    async fn serve(mut self) {
        let Ok(rooms) = self.attachment.enter_all().await else {
            return;
        };
        for (entry, feed, cursor) in rooms {
            self.enter(entry.info.id, entry.seq, feed, cursor);
        }
        let favourite = self.world.ledger().rooms.first().copied();
        if let Some(room) = favourite {
            self.join(room).await;
        }
        let mut last = Instant::now();
        while last.elapsed() < self.world.silence() + Duration::from_secs(2) {
            let quiet = self.world.is_quiet();
            if !quiet && self.world.roll(60) == 0 {
                return;
            }
            let patience = Duration::from_millis(if quiet { 1_000 } else { 25 });
            let _ = tokio::time::timeout(patience, self.wire.wake.notified()).await;
            if self.server.died.is_cancelled() {
                return;
            }
            {
                let mut state = lock(&self.wire.state);
                state.space = if quiet {
                    usize::MAX / 2
                } else {
                    (state.space + self.world.roll(500)).min(2_000)
                };
                let rest = std::mem::take(&mut state.rest);
                let taken = state.write(self.world.now(), &rest);
                state.rest = rest[taken..].to_vec();
                if state.closed {
                    return;
                }
            }
            self.hear_news().await;
            self.catch_up().await;
            if self.show() || !quiet {
                last = Instant::now();
            }
        }
        for client in self.clients.into_values() {
            if let Client::Full(Some(shown)) = client {
                self.world.ledger().finally.push(shown);
            }
        }
    }

    fn enter(&mut self, room: RoomId, seq: Seq, feed: Feed, cursor: Cursor) {
        lock(&self.wire.state).slots.insert(
            room,
            Slot {
                feed,
                level: Level::Events,
                cursor,
            },
        );
        self.clients.insert(room, Client::Events(seq));
    }

    /// Moves to full level, with a snapshot.
    async fn join(&mut self, room: RoomId) {
        let feed = {
            let mut state = lock(&self.wire.state);
            let Some(slot) = state.slots.get_mut(&room) else { return };
            slot.level = Level::Full;
            slot.cursor = Cursor::NOWHERE;
            slot.feed.clone()
        };
        for _ in 0..20 {
            if let Ok(pulled) = self.attachment.join(&feed, Start::Snapshot).await {
                // Big enough a buffer for one snapshot, as every server has.
                let mut frames = Frames::default();
                Json.encode(Level::Full, &pulled.entries, &mut frames);
                let mut state = lock(&self.wire.state);
                let here = state.slots.contains_key(&room);
                if here || removed(Mutant::GoneAfterLoad) {
                    state.space += frames.bytes.len();
                    let rest = std::mem::take(&mut state.rest);
                    state.arrived.extend(rest);
                    self.clients.insert(room, Client::Full(None));
                    state.write_frames(self.world.now(), room, &frames, pulled.to);
                }
                break;
            }
        }
        self.wire.mark_behind();
    }

    async fn hear_news(&mut self) {
        let (gone, gained) = {
            let mut state = lock(&self.wire.state);
            (std::mem::take(&mut state.gone), std::mem::take(&mut state.gained))
        };
        if !gone.is_empty() {
            // What arrived before the loss has been read by then.
            self.show();
        }
        for room in gone {
            lock(&self.wire.state).slots.remove(&room);
            self.attachment.forget(room);
            self.clients.remove(&room);
        }
        for room in gained {
            let here = lock(&self.wire.state).slots.contains_key(&room);
            if !here && let Ok(Some((entry, feed, cursor))) = self.attachment.enter(room).await {
                self.enter(room, entry.seq, feed, cursor);
                self.wire.mark_behind();
            }
        }
    }

    /// Brings every room up to date.
    async fn catch_up(&mut self) {
        if !self.wire.behind.swap(false, Ordering::SeqCst) {
            return;
        }
        let rooms: Vec<RoomId> = lock(&self.wire.state).slots.keys().copied().collect();
        for room in rooms {
            let (feed, level, cursor) = {
                let state = lock(&self.wire.state);
                let Some(slot) = state.slots.get(&room) else { continue };
                if self.attachment.is_current(&slot.feed, slot.level, slot.cursor) || slot.cursor == Cursor::NOWHERE {
                    continue;
                }
                (slot.feed.clone(), slot.level, slot.cursor)
            };
            let Ok(pulled) = self.attachment.pull(&feed, level, cursor).await else {
                self.wire.mark_behind();
                continue;
            };
            let mut frames = Frames::default();
            Json.encode(level, &pulled.entries, &mut frames);
            let mut state = lock(&self.wire.state);
            let unchanged = state
                .slots
                .get(&room)
                .is_some_and(|slot| slot.cursor == cursor && slot.level == level);
            let allowed = unchanged || (removed(Mutant::GoneAfterLoad) && !state.slots.contains_key(&room));
            let complete =
                allowed && state.rest.is_empty() && state.write_frames(self.world.now(), room, &frames, pulled.to);
            let current = state
                .slots
                .get(&room)
                .is_none_or(|slot| self.attachment.is_current(&slot.feed, slot.level, slot.cursor));
            if !complete || !current {
                self.wire.mark_behind();
            }
        }
    }

    /// The client reads what has arrived, and tells whether anything had.
    fn show(&mut self) -> bool {
        for frames in 0.. {
            let Some((frame, at)) = lock(&self.wire.state).next_frame() else {
                return frames > 0;
            };
            match serde_json::from_slice::<Event>(&frame) {
                Ok(event) => self.take(&event, at),
                Err(error) => self.world.breaks(format!("a frame that is none: {error}")),
            }
        }
        true
    }

    /// Takes an event whose frame was begun at this time.
    fn take(&mut self, event: &Event, at: i64) {
        let room = event.room();
        self.world.trace(|| "over the wire:".to_owned());
        match self.clients.get_mut(&room) {
            Some(Client::Full(shown)) => take(self.world, self.server, self.user, room, shown, event, at),
            Some(Client::Events(seq)) => {
                if event.seq() != Some(seq.next()) {
                    self.world
                        .breaks(format!("I1: {} got {event:?} after {seq} at events level", self.user));
                }
                *seq = event.seq().unwrap_or(*seq);
            }
            None => {}
        }
    }
}
