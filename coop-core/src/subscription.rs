//! A subscription: a reader in this process, as a [`Stream`] that never skips.

use crate::attachment::{Attachment, Feed, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, GoneReason, Hint};
use crate::id::{RoomId, UserId};
use crate::live::{Cursor, Frames, Level, Offer, Reader};
use crate::model::Position;
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// The most hints that wait for a slow subscriber; older ones are lost.
const HINTS: usize = 64;

/// Events of one room, or of all rooms of a user, in order and without gaps: a subscriber that falls behind is filled
/// from the store. It ends after [`Event::Gone`] (one room) or when the engine closes. Dropping it unsubscribes.
///
/// Cancel safety: an event is taken only when `next()` yields it.
pub struct Subscription {
    events: BoxStream<'static, Result<Event>>,
    /// Where a room subscription stands.
    position: Option<Position>,
}

impl Subscription {
    /// One room, at full level.
    pub(crate) async fn of_room(
        attach: impl FnOnce(Arc<dyn Reader>) -> Attachment,
        room: RoomId,
        start: Start,
    ) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let attachment = attach(Arc::clone(&mailbox) as Arc<dyn Reader>);
        let (entry, feed, _) = attachment.enter(room).await?.ok_or_else(Error::no_such_room)?;
        mailbox.add(room, feed.clone(), Level::Full, Cursor::NOWHERE);
        let position = match &start {
            Start::Position(position) => position.clone(),
            _ => Position {
                epoch: entry.epoch,
                ..Position::default()
            },
        };
        let pulled = attachment.join(&feed, start).await?;
        let mut source = Source {
            attachment,
            mailbox,
            ready: VecDeque::new(),
            one: true,
            ended: false,
        };
        source.take(room, pulled);
        Ok(Self::over(source, Some(position)))
    }

    /// All rooms of a user, at events level.
    pub(crate) async fn of_user(attach: impl FnOnce(Arc<dyn Reader>) -> Attachment) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let attachment = attach(Arc::clone(&mailbox) as Arc<dyn Reader>);
        let mut ready = VecDeque::new();
        for (entry, feed, cursor) in attachment.enter_all().await? {
            mailbox.add(entry.info.id, feed, Level::Events, cursor);
            mailbox.behind(entry.info.id);
            ready.push_back(Event::RoomGained { entry: Box::new(entry) });
        }
        Ok(Self::over(
            Source {
                attachment,
                mailbox,
                ready,
                one: false,
                ended: false,
            },
            None,
        ))
    }

    fn over(source: Source, position: Option<Position>) -> Self {
        let next = |mut source: Source| async move { source.next().await.map(|event| (event, source)) };
        Self {
            events: Box::pin(stream::unfold(source, next).fuse()),
            position,
        }
    }

    /// Where a room subscription stands: what a later [`Room::resume`](crate::Room::resume) takes up from. `None` for
    /// one of all rooms.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }
}

impl Stream for Subscription {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.events.as_mut().poll_next(cx);
        if let (Poll::Ready(Some(Ok(event))), Some(position)) = (&polled, &mut self.position) {
            advance(position, event);
        }
        polled
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Moves a position over an event.
fn advance(position: &mut Position, event: &Event) {
    if let Some(seq) = event.seq() {
        position.seq = seq;
    }
    match event {
        Event::Snapshot(snapshot) => {
            position.epoch = snapshot.epoch;
            position.seq = snapshot.seq;
            position.tapes = snapshot.tapes.iter().map(|tape| (tape.message, tape.end)).collect();
        }
        Event::TurnStarted { message, .. } => {
            position.tapes.insert(message.id, message.text.len() as u64);
        }
        Event::Delta { message, end, .. } | Event::Tape { message, end, .. } => {
            position.tapes.insert(*message, *end);
        }
        Event::TurnEnded {
            message: Some(message), ..
        } => {
            position.tapes.remove(message);
        }
        _ => {}
    }
}

/// What the rooms leave for the subscriber, under one lock.
#[derive(Default)]
struct Mailbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<RoomId, Slot>,
    /// Rooms with something to pull, without repeats.
    behind: Vec<RoomId>,
    hints: VecDeque<Hint>,
    news: VecDeque<News>,
}

struct Slot {
    feed: Feed,
    level: Level,
    cursor: Cursor,
}

enum News {
    Gone(RoomId, GoneReason, Option<UserId>),
    Gained(RoomId),
    Closed,
}

impl Mailbox {
    fn add(&self, room: RoomId, feed: Feed, level: Level, cursor: Cursor) {
        lock(&self.state).rooms.insert(room, Slot { feed, level, cursor });
    }

    /// Keeps at most one loss and one gain for each room, so that news are bounded by the number of rooms.
    fn tell(&self, news: News) {
        let mut state = lock(&self.state);
        match news {
            News::Gone(room, ..) => {
                state.lose(room);
                state
                    .news
                    .retain(|other| !matches!(other, News::Gone(same, ..) | News::Gained(same) if *same == room));
            }
            News::Gained(room) => state
                .news
                .retain(|other| !matches!(other, News::Gained(same) if *same == room)),
            News::Closed => {}
        }
        state.news.push_back(news);
        drop(state);
        self.wake.notify_one();
    }
}

impl State {
    fn lose(&mut self, room: RoomId) {
        self.rooms.remove(&room);
        self.behind.retain(|other| *other != room);
        self.hints.retain(|hint| hint.room != room);
    }
}

impl Reader for Mailbox {
    fn offer(&self, offer: &Offer<'_>) {
        self.behind(offer.room);
    }

    fn hint(&self, hint: &Hint, _frames: &Frames) {
        let mut state = lock(&self.state);
        if state.rooms.contains_key(&hint.room) {
            if state.hints.len() >= HINTS {
                state.hints.pop_front();
            }
            state.hints.push_back(hint.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    fn behind(&self, room: RoomId) {
        if removed(Mutant::BehindAfterRefusal) {
            return;
        }
        let mut state = lock(&self.state);
        if state.rooms.contains_key(&room) && !state.behind.contains(&room) {
            let first = state.behind.is_empty();
            state.behind.push(room);
            drop(state);
            if first {
                self.wake.notify_one();
            }
        }
    }

    fn gone(&self, room: RoomId, reason: GoneReason, by: Option<UserId>) {
        self.tell(News::Gone(room, reason, by));
    }

    fn gained(&self, room: RoomId) {
        self.tell(News::Gained(room));
    }

    fn closed(&self) {
        self.tell(News::Closed);
    }
}

/// The subscriber's own side.
struct Source {
    attachment: Attachment,
    mailbox: Arc<Mailbox>,
    /// Pulled and not yet yielded.
    ready: VecDeque<Event>,
    /// A subscription of one room ends with it.
    one: bool,
    ended: bool,
}

impl Source {
    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            // First, so that nothing of a lost room is yielded after the loss.
            if let Some(error) = self.hear_news().await {
                return Some(Err(error));
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let (behind, hint) = {
                let mut state = lock(&self.mailbox.state);
                (state.behind.pop(), state.hints.pop_front())
            };
            self.ready.extend(hint.map(Event::Hint));
            match behind {
                Some(room) => {
                    if let Err(error) = self.pull(room).await {
                        if self.ended {
                            // The engine has closed and the store with it: this is as far as anybody gets.
                            lock(&self.mailbox.state).behind.clear();
                        }
                        return Some(Err(error));
                    }
                }
                None if self.ready.is_empty() && self.ended => return None,
                None if self.ready.is_empty() => self.mailbox.wake.notified().await,
                None => {}
            }
        }
    }

    async fn hear_news(&mut self) -> Option<Error> {
        loop {
            let news = lock(&self.mailbox.state).news.pop_front()?;
            match news {
                News::Closed => self.ended = true,
                News::Gone(room, reason, by) => {
                    self.ready.retain(|event| event.room() != room);
                    // It may have been added after the loss was told, by an entry that was under way.
                    lock(&self.mailbox.state).lose(room);
                    self.attachment.forget(room);
                    self.ready.push_back(Event::Gone { room, reason, by });
                    self.ended |= self.one;
                }
                News::Gained(room) => {
                    if !self.one
                        && let Err(error) = self.enter(room).await
                    {
                        // Tried again with the next call, unless that cannot help.
                        if error.kind() != ErrorKind::Closed {
                            lock(&self.mailbox.state).news.push_front(News::Gained(room));
                        }
                        return Some(error);
                    }
                }
            }
        }
    }

    async fn enter(&mut self, room: RoomId) -> Result<()> {
        if lock(&self.mailbox.state).rooms.contains_key(&room) {
            return Ok(());
        }
        if let Some((entry, feed, cursor)) = self.attachment.enter(room).await? {
            self.mailbox.add(room, feed, Level::Events, cursor);
            self.mailbox.behind(room);
            self.ready.push_back(Event::RoomGained { entry: Box::new(entry) });
        }
        Ok(())
    }

    async fn pull(&mut self, room: RoomId) -> Result<()> {
        let slot = {
            let state = lock(&self.mailbox.state);
            state
                .rooms
                .get(&room)
                .map(|slot| (slot.feed.clone(), slot.level, slot.cursor))
        };
        let Some((feed, level, cursor)) = slot else {
            return Ok(());
        };
        match self.attachment.pull(&feed, level, cursor).await {
            Ok(pulled) => {
                self.take(room, pulled);
                Ok(())
            }
            Err(error) => {
                // The cursor is still good: the next call tries again.
                self.mailbox.behind(room);
                Err(error)
            }
        }
    }

    /// Takes what was pulled, unless the room has been lost meanwhile.
    fn take(&mut self, room: RoomId, pulled: crate::attachment::Pulled) {
        let mut state = lock(&self.mailbox.state);
        let Some(slot) = state.rooms.get_mut(&room) else {
            if removed(Mutant::GoneAfterLoad) {
                self.ready
                    .extend(pulled.entries.into_iter().map(|entry| Event::clone(&entry.event)));
            }
            return;
        };
        slot.cursor = pulled.to;
        let current = self.attachment.is_current(&slot.feed, slot.level, slot.cursor);
        drop(state);
        if !current {
            self.mailbox.behind(room);
        }
        self.ready
            .extend(pulled.entries.into_iter().map(|entry| Event::clone(&entry.event)));
    }
}
