//! Delivers what a live room has to its readers, in a task of its own that lives only while there is something to
//! deliver, so that the room's writer never waits for sockets and a quiet room costs no task.
//!
//! Where all readers are in this process and few, the writer wakes them [itself](LiveRoom::deliver_here): a task for
//! that would cost more than it does.

use super::{Cursor, Encoder, Entry, Frames, Group, Level, LiveRoom, Offer, Pace, ReaderId, Registered, State};
use crate::event::{Event, Hint, HintKind};
use crate::sync::lock;
use futures::FutureExt;
use std::sync::Arc;
use tokio::time::Instant;

/// After this many readers the task lets others run.
const YIELD_EVERY: usize = 128;
/// So many readers in this process are woken by the writer itself.
const FEW: usize = 32;

/// What is to be done now.
enum Step {
    /// Nothing, and nothing is coming: the task ends.
    Idle,
    /// Nothing before this moment.
    Wait(Instant),
    /// These.
    Deliver(Vec<Delivery>),
}

/// What one group's readers get.
struct Delivery {
    level: Level,
    encoder: Option<Arc<dyn Encoder>>,
    readers: Arc<Vec<Registered>>,
    what: What,
}

enum What {
    /// Entries from one cursor to another.
    Entries {
        from: Cursor,
        to: Cursor,
        /// For an encoder to encode.
        entries: Vec<Entry>,
        /// For readers in this process, which have none.
        events: Option<Arc<[Arc<Event>]>>,
    },
    /// The queue has moved on past what was to be offered: readers turn to the store.
    Lost,
    /// Hints, and whom each leaves out.
    Hints(Vec<(Hint, Option<ReaderId>)>),
}

/// Says that no fan-out runs if this one panics in a reader or an encoder, so that the next entry starts another.
struct Alive<'a>(&'a LiveRoom);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).running = false;
        }
    }
}

/// The fan-out task.
pub(super) async fn run(room: Arc<LiveRoom>) {
    let step = room.step(Instant::now());
    go_on(room, step).await;
}

async fn go_on(room: Arc<LiveRoom>, mut step: Step) {
    let _alive = Alive(&room);
    let mut frames = Frames::default();
    loop {
        match step {
            Step::Idle => return,
            Step::Wait(until) => {
                tokio::select! {
                    biased;
                    () = room.changed.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            Step::Deliver(deliveries) => {
                for delivery in deliveries {
                    delivery.carry_out(&room, &mut frames).await;
                }
            }
        }
        step = room.step(Instant::now());
    }
}

impl LiveRoom {
    /// Delivers what is due, and leaves it to a task if there is more than a few readers to wake. Whoever calls this has
    /// marked the fan-out as running.
    pub(super) fn deliver_here(self: &Arc<Self>) {
        let alive = Alive(self);
        let mut step = self.step(Instant::now());
        if let Step::Deliver(deliveries) = &mut step
            && deliveries.iter().all(Delivery::is_small)
        {
            let mut frames = Frames::default();
            for delivery in deliveries.drain(..) {
                // It never waits, being small.
                let _ = delivery.carry_out(self, &mut frames).now_or_never();
            }
            step = self.step(Instant::now());
        }
        drop(alive);
        if !matches!(step, Step::Idle) {
            self.tasks.spawn(go_on(Arc::clone(self), step));
        }
    }

    /// Decides, under the room's lock, what is due at `now` and marks it as offered.
    fn step(&self, now: Instant) -> Step {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let pace = state.pace;
        let due = |group: &Group| group.due(now, pace);
        if state
            .groups
            .iter()
            .any(|group| group.gathering.has_deltas() && due(group).is_some_and(|due| due <= now))
        {
            state.publish_all(self.id);
        }
        let mut deliveries = Vec::new();
        if !state.hints.is_empty() {
            let hints = std::mem::take(&mut state.hints);
            for group in &state.groups {
                let hints: Vec<_> = hints.iter().filter(|(hint, _)| group.wants(hint)).cloned().collect();
                if !hints.is_empty() {
                    deliveries.push(group.delivery(What::Hints(hints)));
                }
            }
        }
        for index in 0..state.groups.len() {
            if due(&state.groups[index]).is_some_and(|due| due <= now) {
                deliveries.push(state.take_due(index, now, pace));
            }
        }
        if !deliveries.is_empty() {
            return Step::Deliver(deliveries);
        }
        match state.groups.iter().filter_map(due).min() {
            Some(until) => Step::Wait(until),
            None => {
                state.running = false;
                Step::Idle
            }
        }
    }
}

impl State {
    /// Takes what waits for a group and moves its mark to the head.
    fn take_due(&mut self, index: usize, now: Instant, pace: Pace) -> Delivery {
        let group = &self.groups[index];
        let from = group.offered;
        let to = Cursor {
            pos: self.head,
            seq: self.seq,
        };
        let base = self.head - self.queue.len() as u64;
        let lost = match group.level {
            Level::Full => from.pos < base,
            Level::Events => from.seq < self.base_seq,
        };
        let what = if lost {
            What::Lost
        } else {
            let first = match group.level {
                Level::Full => (from.pos - base) as usize,
                Level::Events => self.first_after(from.seq),
            };
            let entries = self.needed(first, to.pos, from.seq, group.level);
            let (entries, events) = match group.encoder {
                Some(_) => (entries.cloned().collect(), None),
                None => (
                    Vec::new(),
                    Some(entries.map(|entry| Arc::clone(&entry.event)).collect()),
                ),
            };
            What::Entries {
                from,
                to,
                entries,
                events,
            }
        };
        let group = &mut self.groups[index];
        group.offered = to;
        group.gathering.offer(now, pace.events);
        group.delivery(what)
    }
}

impl Group {
    /// When this group's readers should be offered what waits for them.
    fn due(&self, now: Instant, pace: Pace) -> Option<Instant> {
        let deltas = |encoder: &Arc<dyn Encoder>| encoder.delta_interval();
        let deltas = self.encoder.as_ref().map_or(pace.deltas, deltas);
        self.gathering.due(now, pace.events, deltas)
    }

    fn delivery(&self, what: What) -> Delivery {
        Delivery {
            level: self.level,
            encoder: self.encoder.clone(),
            readers: Arc::clone(&self.readers),
            what,
        }
    }
}

impl Delivery {
    /// Whether it takes little enough time to be carried out without a pause, and by anybody.
    fn is_small(&self) -> bool {
        self.encoder.is_none() && self.readers.len() <= FEW
    }

    async fn carry_out(mut self, room: &LiveRoom, frames: &mut Frames) {
        match self.what {
            What::Entries {
                from,
                to,
                entries,
                events,
            } => {
                frames.clear();
                if let Some(encoder) = &self.encoder {
                    encoder.encode(self.level, &entries, frames);
                }
                let offer = Offer {
                    room: room.id,
                    level: self.level,
                    from,
                    to,
                    frames,
                    events: events.as_ref(),
                };
                let begun = Instant::now();
                each(&self.readers, |registered| registered.reader.offer(&offer)).await;
                let took = begun.elapsed();
                room.meters.fanout.record(took);
                if self.readers.len() > YIELD_EVERY {
                    let mut state = lock(&room.state);
                    let mut groups = state.groups.iter_mut();
                    if let Some(group) = groups.find(|group| group.is(self.level, self.encoder.as_ref())) {
                        group.gathering.offered(took);
                    }
                }
                let is_delta = |event: &Arc<Event>| matches!(**event, Event::Delta { .. });
                let all = entries.len().max(events.as_ref().map_or(0, |events| events.len()));
                let deltas = match &events {
                    Some(events) => events.iter().filter(|event| is_delta(event)).count(),
                    None => entries.iter().filter(|entry| is_delta(&entry.event)).count(),
                };
                let offers = |of_each: usize| (of_each * self.readers.len()) as u64;
                room.meters.events_offered.increment(offers(all - deltas));
                room.meters.deltas_offered.increment(offers(deltas));
            }
            What::Lost => each(&self.readers, |registered| registered.reader.behind(room.id)).await,
            What::Hints(ref mut hints) => {
                let hints = std::mem::take(hints);
                let (reads, others): (Vec<_>, Vec<_>) = hints
                    .into_iter()
                    .partition(|(hint, _)| matches!(hint.what, HintKind::Read { .. }));
                for hints in [reads, others] {
                    self.pass_on(hints, frames).await;
                }
            }
        }
    }

    /// Passes hints on, all in one write: when a thousand come at the same time, each hears of some dozens at once.
    async fn pass_on(&self, hints: Vec<(Hint, Option<ReaderId>)>, frames: &mut Frames) {
        let (hints, excepts): (Vec<_>, Vec<_>) = hints.into_iter().unzip();
        if !self.encode_hints(hints.iter(), frames) {
            return;
        }
        let frames = &*frames;
        each(&self.readers, |registered| {
            let own = Some(registered.id);
            if !excepts.contains(&own) {
                return registered.reader.hints(&hints, frames);
            }
            let of_others = hints.iter().zip(&excepts).filter(|(_, except)| **except != own);
            let of_others: Vec<_> = of_others.map(|(hint, _)| hint.clone()).collect();
            let mut frames = Frames::default();
            if self.encode_hints(of_others.iter(), &mut frames) {
                registered.reader.hints(&of_others, &frames);
            }
        })
        .await;
    }

    /// Whether there is anything to be passed on.
    fn encode_hints<'a>(&self, hints: impl ExactSizeIterator<Item = &'a Hint>, frames: &mut Frames) -> bool {
        frames.clear();
        let some = hints.len() > 0;
        let Some(encoder) = &self.encoder else { return some };
        hints.for_each(|hint| encoder.encode_hint(hint, frames));
        !frames.is_empty()
    }
}

/// Tells each reader, letting others run in between.
pub(super) async fn each(readers: &[Registered], mut tell: impl FnMut(&Registered)) {
    for some in readers.chunks(YIELD_EVERY) {
        some.iter().for_each(&mut tell);
        if readers.len() > YIELD_EVERY {
            tokio::task::yield_now().await;
        }
    }
}
