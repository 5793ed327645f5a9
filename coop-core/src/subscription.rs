//! A subscription: a reader in this process, as a [`Stream`] that never skips. It knows neither the queue nor the store
//! behind it, only that it can pull.

use crate::attachment::{Attachment, Feed, Pulled, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, GoneReason, Hint};
use crate::id::{RoomId, UserId};
use crate::live::{Cursor, Frames, Level, Offer, Reader};
use crate::model::{Position, RoomEntry};
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use futures::Stream;
use futures::future::{BoxFuture, FutureExt};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

/// The most hints that wait for a slow subscriber; older ones are lost.
const HINTS: usize = 64;

/// Events of one room, or of all rooms of a user, in order and without gaps: a subscriber that falls behind is filled
/// from the store. It ends after [`Event::Gone`] (one room) or when the engine closes. Dropping it unsubscribes.
///
/// Cancel safety: an event is taken only when `next()` yields it.
pub struct Subscription {
    /// Shared with what is being asked of the store.
    attachment: Arc<Attachment>,
    mailbox: Arc<Mailbox>,
    /// What the store is being asked. Nothing is yielded meanwhile.
    asking: Option<BoxFuture<'static, Answer>>,
    /// Pulled and not yet yielded.
    ready: VecDeque<Event>,
    /// A subscription of one room ends with it.
    one: bool,
    ended: bool,
    /// Where a room subscription stands.
    position: Option<Position>,
}

/// What the store was asked, and what it said.
enum Answer {
    Pulled(RoomId, Result<Pulled>),
    Entered(RoomId, Result<Option<(RoomEntry, Feed, Cursor)>>),
}

impl Subscription {
    /// One room, at full level.
    pub(crate) async fn of_room(
        attach: impl FnOnce(Arc<dyn Reader>) -> Attachment,
        room: RoomId,
        start: Start,
    ) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::of(Rooms::One(None)));
        let attachment = attach(Arc::clone(&mailbox) as Arc<dyn Reader>);
        let (entry, feed, _) = attachment.enter(room).await?.ok_or_else(Error::no_such_room)?;
        mailbox.add(feed.clone(), Level::Full, Cursor::NOWHERE);
        let position = match &start {
            Start::Position(position) => position.clone(),
            _ => Position {
                epoch: entry.epoch,
                ..Position::default()
            },
        };
        let pulled = attachment.join(&feed, start).await?;
        let mut subscription = Self::new(attachment, mailbox, true);
        subscription.position = Some(position);
        subscription.take(room, pulled);
        Ok(subscription)
    }

    /// All rooms of a user, at events level.
    pub(crate) async fn of_user(attach: impl FnOnce(Arc<dyn Reader>) -> Attachment) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::of(Rooms::default()));
        let attachment = attach(Arc::clone(&mailbox) as Arc<dyn Reader>);
        let entries = attachment.enter_all().await?;
        let mut subscription = Self::new(attachment, mailbox, false);
        for entered in entries {
            subscription.entered(entered);
        }
        Ok(subscription)
    }

    fn new(attachment: Attachment, mailbox: Arc<Mailbox>, one: bool) -> Self {
        Self {
            attachment: Arc::new(attachment),
            mailbox,
            asking: None,
            ready: VecDeque::new(),
            one,
            ended: false,
            position: None,
        }
    }

    /// Where a room subscription stands: what a later [`Room::resume`](crate::Room::resume) takes up from. `None` for
    /// one of all rooms.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            if let Some(asking) = &mut self.asking {
                let answer = ready!(asking.poll_unpin(cx));
                self.asking = None;
                if let Err(error) = self.hear(answer) {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let mut state = lock(&self.mailbox.state);
            loop {
                // First, so that nothing of a lost room is yielded after the loss.
                if let Some(news) = state.rest.as_mut().and_then(|rest| rest.news.pop_front()) {
                    drop(state);
                    self.learn(news);
                    break;
                }
                if let Some(event) = self.ready.pop_front() {
                    return Poll::Ready(Some(Ok(event)));
                }
                let hint = state.rest.as_mut().and_then(|rest| rest.hints.pop_front());
                self.ready.extend(hint.map(Event::Hint));
                let Some((slot, due)) = state.rooms.take_due() else {
                    if !self.ready.is_empty() {
                        continue;
                    }
                    // Only now: what came before the end is yielded before it.
                    if self.ended {
                        return Poll::Ready(None);
                    }
                    state.wait(cx.waker());
                    return Poll::Pending;
                };
                // Under the mailbox's lock, so that who takes the room away waits for this.
                let mut first = None;
                let mut give = |event: &Event| match first {
                    // Most often there is one, which need not go through the queue.
                    None if self.ready.is_empty() => first = Some(event.clone()),
                    _ => self.ready.push_back(event.clone()),
                };
                let to = match due {
                    Due::Events { events, .. } => {
                        events.iter().for_each(|event| give(event));
                        Some(slot.cursor)
                    }
                    _ => slot.feed.live().pull_events(slot.cursor, slot.level, give),
                };
                match to {
                    Some(to) => {
                        slot.cursor = to;
                        if let Some(event) = first {
                            return Poll::Ready(Some(Ok(event)));
                        }
                    }
                    None => {
                        let (feed, level, cursor) = (slot.feed.clone(), slot.level, slot.cursor);
                        let attachment = Arc::clone(&self.attachment);
                        let pull = async move { attachment.pull(&feed, level, cursor).await };
                        let room = slot.feed.room();
                        self.asking = Some(pull.map(move |pulled| Answer::Pulled(room, pulled)).boxed());
                        break;
                    }
                }
            }
        }
    }

    fn hear(&mut self, answer: Answer) -> Result<()> {
        match answer {
            Answer::Pulled(room, pulled) => {
                let pulled = pulled.inspect_err(|_| {
                    if self.ended {
                        // The engine has closed and the store with it: this is as far as anybody gets.
                        lock(&self.mailbox.state).rooms.give_up();
                    } else {
                        // The cursor is still good: the next call tries again.
                        self.mailbox.behind(room);
                    }
                })?;
                self.take(room, pulled);
            }
            Answer::Entered(room, entered) => {
                // Tried again with the next call, unless that cannot help.
                let again = |error: &Error| {
                    if error.kind() != ErrorKind::Closed {
                        lock(&self.mailbox.state).rest().news.push_front(News::Gained(room));
                    }
                };
                if let Some(entered) = entered.inspect_err(again)? {
                    self.entered(entered);
                }
            }
        }
        Ok(())
    }

    fn learn(&mut self, news: News) {
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
                if !self.one && !lock(&self.mailbox.state).rooms.has(room) {
                    let attachment = Arc::clone(&self.attachment);
                    let enter = async move { Answer::Entered(room, attachment.enter(room).await) };
                    self.asking = Some(enter.boxed());
                }
            }
        }
    }

    fn entered(&mut self, (entry, feed, cursor): (RoomEntry, Feed, Cursor)) {
        self.mailbox.add(feed, Level::Events, cursor);
        self.mailbox.behind(entry.info.id);
        self.ready.push_back(Event::RoomGained { entry: Box::new(entry) });
    }

    /// Takes what was loaded, unless the room has been lost meanwhile.
    fn take(&mut self, room: RoomId, pulled: Pulled) {
        let mut state = lock(&self.mailbox.state);
        let slot = state.rooms.get(room);
        let kept = slot.is_some() || removed(Mutant::GoneAfterLoad);
        if let Some(slot) = slot {
            slot.cursor = pulled.to;
            if !matches!(slot.due, Due::Nothing) {
                // An offer that was taken meanwhile does not follow what was loaded.
                slot.due = Due::Pull;
            }
            let current = self.attachment.is_current(&slot.feed, slot.level, slot.cursor);
            drop(state);
            if !current {
                self.mailbox.behind(room);
            }
        }
        if kept {
            self.ready
                .extend(pulled.entries.into_iter().map(|entry| Event::clone(&entry.event)));
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll(cx);
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

/// What the rooms leave for the subscriber, under one lock. A message to a thousand readers touches a thousand of
/// these, each cold, so what an offer needs lies close together and nowhere else.
struct Mailbox {
    state: Mutex<State>,
}

struct State {
    rooms: Rooms,
    /// The subscriber, while it waits for any of this. Whoever brings the first thing takes it.
    waiting: Option<Waker>,
    /// There is some from the first hint or news on.
    rest: Option<Box<Rest>>,
}

/// What comes less often.
#[derive(Default)]
struct Rest {
    hints: VecDeque<Hint>,
    news: VecDeque<News>,
}

/// The rooms that are read.
enum Rooms {
    /// By a subscription of one room, until it is lost.
    One(Option<Slot>),
    /// By one of all rooms.
    Many {
        slots: BTreeMap<RoomId, Slot>,
        /// Those with something for the subscriber, in turn: a busy one does not keep the others waiting.
        due: VecDeque<RoomId>,
    },
}

struct Slot {
    feed: Feed,
    level: Level,
    /// Where it stands once it has what is due.
    cursor: Cursor,
    due: Due,
}

/// What a room has for the subscriber.
#[derive(Default)]
enum Due {
    #[default]
    Nothing,
    /// These, which begin at a cursor. Only ever one offer: what a subscriber that does not come keeps in memory beside
    /// the room's queue would otherwise grow with what it misses.
    Events { from: Cursor, events: Arc<[Arc<Event>]> },
    /// It must look into the room.
    Pull,
}

enum News {
    Gone(RoomId, GoneReason, Option<UserId>),
    Gained(RoomId),
    Closed,
}

impl Mailbox {
    fn of(rooms: Rooms) -> Self {
        Self {
            state: Mutex::new(State {
                rooms,
                waiting: None,
                rest: None,
            }),
        }
    }

    fn add(&self, feed: Feed, level: Level, cursor: Cursor) {
        let slot = Slot {
            feed,
            level,
            cursor,
            due: Due::Nothing,
        };
        lock(&self.state).rooms.add(slot);
    }

    /// Changes what is there and wakes the subscriber if that is news to it.
    fn leave(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = lock(&self.state);
        let waiting = if change(&mut state) { state.waiting.take() } else { None };
        // Whoever is woken wants this lock.
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Keeps at most one loss and one gain for each room, so that news are bounded by the number of rooms.
    fn tell(&self, news: News) {
        self.leave(|state| {
            if let News::Gone(room, ..) = news {
                state.lose(room);
            }
            let others = &mut state.rest().news;
            others.retain(|other| match (&news, other) {
                (News::Gone(room, ..), News::Gone(same, ..) | News::Gained(same)) => room != same,
                (News::Gained(room), News::Gained(same)) => room != same,
                _ => true,
            });
            others.push_back(news);
            true
        });
    }
}

impl State {
    fn lose(&mut self, room: RoomId) {
        self.rooms.lose(room);
        if let Some(rest) = &mut self.rest {
            rest.hints.retain(|hint| hint.room != room);
        }
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn wait(&mut self, waker: &Waker) {
        match &mut self.waiting {
            Some(waiting) => waiting.clone_from(waker),
            None => self.waiting = Some(waker.clone()),
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self::Many {
            slots: BTreeMap::new(),
            due: VecDeque::new(),
        }
    }
}

impl Rooms {
    fn get(&mut self, room: RoomId) -> Option<&mut Slot> {
        match self {
            Self::One(slot) => slot.as_mut().filter(|slot| slot.feed.room() == room),
            Self::Many { slots, .. } => slots.get_mut(&room),
        }
    }

    fn has(&mut self, room: RoomId) -> bool {
        self.get(room).is_some()
    }

    fn add(&mut self, slot: Slot) {
        match self {
            Self::One(one) => *one = Some(slot),
            Self::Many { slots, .. } => drop(slots.insert(slot.feed.room(), slot)),
        }
    }

    fn lose(&mut self, room: RoomId) {
        match self {
            Self::One(slot) => drop(slot.take_if(|slot| slot.feed.room() == room)),
            Self::Many { slots, due } => {
                slots.remove(&room);
                due.retain(|other| *other != room);
            }
        }
    }

    /// Takes an offer, or notes that there is something to pull; false if that is not news to the subscriber, or the room
    /// is not read.
    fn offer(&mut self, offer: &Offer<'_>) -> bool {
        let Some(slot) = self.get(offer.room) else { return false };
        match (&slot.due, offer.events) {
            (Due::Nothing, Some(events)) if offer.fits(slot.level, slot.cursor) => {
                slot.cursor = offer.to;
                slot.due = Due::Events {
                    from: offer.from,
                    events: Arc::clone(events),
                };
                self.list(offer.room);
                true
            }
            _ => self.set_behind(offer.room),
        }
    }

    /// Notes that there is something to pull; false if the subscriber knows that there is something, or the room is not
    /// read.
    fn set_behind(&mut self, room: RoomId) -> bool {
        let Some(slot) = self.get(room).filter(|_| !removed(Mutant::BehindAfterRefusal)) else {
            return false;
        };
        match std::mem::replace(&mut slot.due, Due::Pull) {
            Due::Nothing => {
                self.list(room);
                true
            }
            Due::Events { from, .. } => {
                slot.cursor = from;
                false
            }
            Due::Pull => false,
        }
    }

    fn list(&mut self, room: RoomId) {
        if let Self::Many { due, .. } = self {
            due.push_back(room);
        }
    }

    /// Forgets that there is anything to take.
    fn give_up(&mut self) {
        while self.take_due().is_some() {}
    }

    /// A room with something to take, which is taken for done.
    fn take_due(&mut self) -> Option<(&mut Slot, Due)> {
        let slot = match self {
            Self::One(slot) => slot.as_mut().filter(|slot| !matches!(slot.due, Due::Nothing))?,
            Self::Many { slots, due } => slots.get_mut(&due.pop_front()?)?,
        };
        let due = std::mem::take(&mut slot.due);
        Some((slot, due))
    }
}

impl Reader for Mailbox {
    fn offer(&self, offer: &Offer<'_>) {
        self.leave(|state| state.rooms.offer(offer));
    }

    fn hints(&self, hints: &[Hint], _frames: &Frames) {
        self.leave(|state| {
            if !hints.first().is_some_and(|hint| state.rooms.has(hint.room)) {
                return false;
            }
            let waiting = &mut state.rest().hints;
            for hint in hints {
                if waiting.len() >= HINTS {
                    waiting.pop_front();
                }
                waiting.push_back(hint.clone());
            }
            true
        });
    }

    fn behind(&self, room: RoomId) {
        self.leave(|state| state.rooms.set_behind(room));
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
