//! What all handles of one engine share: the stores, the bots, the rooms that are in memory, who reads and which turns
//! run. It knows no verbs; [`User`](crate::User) and [`Room`](crate::Room) have those.

use crate::bot::{Bot, BotProfile};
use crate::bounds::Bounds;
use crate::bus::{Bus, BusItem};
use crate::error::{Error, Result};
use crate::event::{Event, GoneReason, Hint};
use crate::id::{RoomId, Seq, TurnId, UserId};
use crate::live::{LiveRoom, Pace, Reader, ReaderId};
use crate::metrics::Meters;
use crate::model::{Budgets, RoomInfo, TurnEnd, TurnStatus};
use crate::mutant::{Mutant, removed};
use crate::names;
use crate::password::Passwords;
use crate::store::{RoomStore, UserStore};
use crate::sync::lock;
use crate::time::{Clock, Timestamp};
use crate::writer::Mail;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many times a look at the rooms of a user is repeated because something changed meanwhile.
pub(crate) const LOOKS: usize = 32;

/// What a longer time is taken for, so that adding it to a moment never overflows.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many readers are filled from the store at a time.
const LOADS: usize = 8;

/// Settings of an engine, all with defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How entries gather before they are delivered.
    pub(crate) pace: Pace,
    /// How often a running turn's text is kept in the store.
    pub(crate) checkpoint: Duration,
    /// A room's writer and queue are let go after this long without work.
    pub(crate) idle: Duration,
    /// Read marks gather this long.
    pub(crate) marks: Duration,
    /// A sender is told `unavailable` after this long without an answer from the store.
    pub(crate) patience: Duration,
    /// How many tokens may be used.
    pub(crate) budgets: Budgets,
    /// How long a turn may take, whatever its bot says.
    pub(crate) turn_timeout: Option<Duration>,
    /// How large what people make may be.
    pub(crate) bounds: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            checkpoint: Duration::from_millis(500),
            idle: Duration::from_secs(10),
            marks: Duration::from_millis(250),
            patience: Duration::from_secs(10),
            budgets: Budgets::default(),
            turn_timeout: None,
            bounds: Bounds::default(),
        }
    }
}

impl Settings {
    /// Every time in it.
    pub(crate) fn durations(&mut self) -> [&mut Duration; 6] {
        let Pace { events, deltas, .. } = &mut self.pace;
        [
            events,
            deltas,
            &mut self.checkpoint,
            &mut self.idle,
            &mut self.marks,
            &mut self.patience,
        ]
    }
}

/// The shared state of an engine.
pub(crate) struct Shared {
    pub(crate) rooms: Arc<dyn RoomStore>,
    pub(crate) users: Arc<dyn UserStore>,
    /// Replaced whole when a bot is added. Never held together with another lock.
    bots: Mutex<Arc<Bots>>,
    /// The way to the other engines, if there is one.
    bus: Option<Arc<dyn Bus>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) passwords: Passwords,
    pub(crate) settings: Settings,
    pub(crate) meters: Arc<Meters>,
    /// Every task of this engine, so that closing can wait for them.
    pub(crate) tasks: TaskTracker,
    /// The tasks of turns, which closing waits for before it lets the writers end.
    pub(crate) turn_tasks: TaskTracker,
    /// A permit for each reader that is being filled from the store: whoever has fallen behind waits, the others do not.
    pub(crate) loads: Semaphore,
    /// Cancelled when the engine begins to close: nothing new is accepted.
    pub(crate) closing: CancellationToken,
    /// Cancelled when a closing engine has waited long enough: no turn starts any more, and none goes on.
    pub(crate) ending: CancellationToken,
    /// Cancelled when the writers should flush and end.
    pub(crate) flushing: CancellationToken,
    /// Cancelled when no reader is left: until then what other engines do is looked for, lest somebody whom they have removed
    /// goes on reading while the writers flush.
    pub(crate) deserted: CancellationToken,
    /// The tasks that look and hear.
    pub(crate) lookouts: TaskTracker,
    /// Rooms in memory. Taken before any live room's own lock.
    registry: Mutex<Registry>,
    /// Readers by user, so that they hear of rooms they gain. Never held together with another lock.
    readers: Mutex<BTreeMap<UserId, Vec<KnownReader>>>,
    /// Turns that run here, so that a stop finds them. Never held together with another lock.
    turns: Mutex<BTreeMap<TurnId, Arc<Running>>>,
    /// Who waits for which turn's end. Never held together with another lock.
    waiting: Mutex<BTreeMap<TurnId, Vec<oneshot::Sender<()>>>>,
    next_reader: AtomicU64,
    /// Until when other engines surely leave this one's turns to it; `None` where there are no others.
    lease: Mutex<Option<Instant>>,
    /// Asks for a look at what other engines have done, sooner than the next would come.
    pub(crate) look: Notify,
    /// How often somebody's tokens were ended here: who looked before and attaches after looks again.
    token_ends: AtomicU64,
}

type KnownReader = (ReaderId, Arc<dyn Reader>);

#[derive(Default)]
struct Registry {
    rooms: BTreeMap<RoomId, Active>,
    /// Counts what makes an earlier look at the store unfit for attaching readers by it: a room that left memory
    /// (its seq may have moved on since), a member who was removed.
    generation: u64,
}

struct Active {
    live: Arc<LiveRoom>,
    /// The way to the room's writer while it has one.
    mailbox: Option<mpsc::Sender<Mail>>,
}

/// A bot and what it said of itself when it was registered.
#[derive(Clone)]
pub(crate) struct RegisteredBot {
    pub(crate) bot: Arc<dyn Bot>,
    pub(crate) profile: Arc<BotProfile>,
}

/// The bots of an engine at one moment; they only become more.
#[derive(Clone, Default)]
pub(crate) struct Bots {
    /// In the order of registration; the first answers `/bot`.
    pub(crate) all: Vec<RegisteredBot>,
    /// Their handles, in the same order, as every message that may ask takes them along.
    pub(crate) handles: Arc<[String]>,
}

impl Bots {
    /// These and one more, whose turns may take so long, whatever it says itself.
    ///
    /// # Errors
    /// `BadRequest` for a malformed handle, `Conflict` for one that is taken.
    pub(crate) fn with(&self, bot: Arc<dyn Bot>, turn_timeout: Option<Duration>) -> Result<Self> {
        let mut profile = bot.profile();
        profile.limits.time = turn_timeout.unwrap_or(profile.limits.time).min(FOR_EVER);
        names::check_handle(&profile.handle).map_err(Error::bad_request)?;
        names::check_display_name(&profile.name).map_err(Error::bad_request)?;
        if self.get(&profile.handle).is_some() {
            return Err(Error::conflict(format!("there are two bots called {}", profile.handle)));
        }
        let mut all = self.all.clone();
        all.push(RegisteredBot {
            bot,
            profile: Arc::new(profile),
        });
        Ok(Self {
            handles: all.iter().map(|bot| bot.profile.handle.clone()).collect(),
            all,
        })
    }

    pub(crate) fn get(&self, handle: &str) -> Option<&RegisteredBot> {
        self.all.iter().find(|bot| bot.profile.handle == handle)
    }

    /// Their handles, for reading texts.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.handles.iter().map(String::as_str).collect()
    }
}

/// A turn that runs here.
pub(crate) struct Running {
    pub(crate) room: RoomId,
    /// Cancelled to end it; `cause` is set before.
    pub(crate) stop: CancellationToken,
    /// Why it should end.
    pub(crate) cause: OnceLock<TurnEnd>,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "called once, by the builder")]
    pub(crate) fn new(
        rooms: Arc<dyn RoomStore>,
        users: Arc<dyn UserStore>,
        bots: Bots,
        bus: Option<Arc<dyn Bus>>,
        clock: Arc<dyn Clock>,
        passwords: Passwords,
        settings: Settings,
    ) -> Self {
        Self {
            rooms,
            users,
            bots: Mutex::new(Arc::new(bots)),
            bus,
            clock,
            passwords,
            settings,
            meters: Arc::new(Meters::new()),
            tasks: TaskTracker::new(),
            turn_tasks: TaskTracker::new(),
            loads: Semaphore::new(LOADS),
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
            flushing: CancellationToken::new(),
            deserted: CancellationToken::new(),
            lookouts: TaskTracker::new(),
            registry: Mutex::default(),
            readers: Mutex::default(),
            turns: Mutex::default(),
            waiting: Mutex::default(),
            next_reader: AtomicU64::new(1),
            lease: Mutex::new(None),
            look: Notify::new(),
            token_ends: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// # Errors
    /// `Closed` once the engine has begun to close.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            Err(Error::closed())
        } else {
            Ok(())
        }
    }

    /// Waits for the store, but not for ever.
    ///
    /// # Errors
    /// `Unavailable` if it does not answer in time.
    pub(crate) async fn patiently<F: Future + Send>(&self, doing: F) -> Result<F::Output> {
        let late = |_| Error::unavailable("the store does not answer; it is not certain whether this was done");
        tokio::time::timeout(self.settings.patience, doing).await.map_err(late)
    }

    /// # Errors
    /// `NotFound` ("no such room") for who is no member, `Unavailable`.
    pub(crate) async fn check_member(&self, room: RoomId, user: UserId) -> Result<()> {
        let member = self.rooms.member(room, user).await?;
        member.map(|_| ()).ok_or_else(Error::no_such_room)
    }

    /// The bots there are now.
    pub(crate) fn bots(&self) -> Arc<Bots> {
        Arc::clone(&lock(&self.bots))
    }

    /// # Errors
    /// As [`Bots::with`].
    pub(crate) fn add_bot(&self, bot: Arc<dyn Bot>) -> Result<()> {
        let mut bots = lock(&self.bots);
        *bots = Arc::new(bots.with(bot, self.settings.turn_timeout)?);
        Ok(())
    }

    // Rooms in memory.

    /// The room, if it is in memory. If it is not, it has no readers and no open tapes. Not to be kept: a room that
    /// leaves memory comes back as another [`LiveRoom`], and only readers, the writer and open tapes hold it there.
    pub(crate) fn in_memory(&self, room: RoomId) -> Option<Arc<LiveRoom>> {
        let registry = lock(&self.registry);
        registry.rooms.get(&room).map(|active| Arc::clone(&active.live))
    }

    /// How many rooms are in memory.
    pub(crate) fn rooms_in_memory(&self) -> usize {
        lock(&self.registry).rooms.len()
    }

    /// The count to be taken before a look at the store by which readers will be attached.
    pub(crate) fn generation(&self) -> u64 {
        lock(&self.registry).generation
    }

    /// Runs `with` on the registry if nothing has changed since `generation` that makes a look at the store from
    /// then unfit.
    pub(crate) fn enter<T>(&self, generation: u64, with: impl FnOnce(&mut Enter<'_>) -> T) -> Option<T> {
        let mut registry = lock(&self.registry);
        (registry.generation == generation).then(|| {
            with(&mut Enter {
                shared: self,
                registry: &mut registry,
            })
        })
    }

    /// A way to the room's writer, which is started if there is none. A room that is not in memory is read from the
    /// store first.
    ///
    /// # Errors
    /// `NotFound` if there is no such room, `Unavailable` if the store does not answer.
    pub(crate) async fn mailbox(self: &Arc<Self>, room: RoomId) -> Result<mpsc::Sender<Mail>> {
        for _ in 0..LOOKS {
            let generation = {
                let mut registry = lock(&self.registry);
                if let Some(active) = registry.rooms.get_mut(&room) {
                    return Ok(self.mailbox_of(active));
                }
                registry.generation
            };
            let head = self.rooms.room(room).await?.ok_or_else(Error::no_such_room)?;
            let mailbox = self.enter(generation, |enter| self.mailbox_of(enter.active(&head.info, head.seq)));
            if let Some(mailbox) = mailbox {
                return Ok(mailbox);
            }
        }
        Err(Error::unavailable("too much is changing at once"))
    }

    fn mailbox_of(self: &Arc<Self>, active: &mut Active) -> mpsc::Sender<Mail> {
        // A writer that is gone without having retired has panicked, unless it was told to end.
        let usable = |mailbox: &&mpsc::Sender<Mail>| !mailbox.is_closed() || self.flushing.is_cancelled();
        if let Some(mailbox) = active.mailbox.as_ref().filter(usable) {
            return mailbox.clone();
        }
        let (mailbox, mails) = mpsc::channel(crate::writer::MAILBOX);
        active.mailbox = Some(mailbox.clone());
        let writer = crate::writer::run(Arc::clone(self), Arc::clone(&active.live), mails);
        self.tasks.spawn(writer);
        mailbox
    }

    /// Called by a writer that has been idle: takes its mailbox away if nothing is in it or on its way, so that the next
    /// sender starts another writer.
    pub(crate) fn retire(&self, live: &LiveRoom, mails: &mut mpsc::Receiver<Mail>) -> bool {
        let mut registry = lock(&self.registry);
        // Copies of the mailbox are made under this lock only: if the registry holds the last one, no mail is on its way.
        if mails.sender_strong_count() > 1 || !mails.is_empty() {
            return false;
        }
        if let Some(active) = registry.rooms.get_mut(&live.id) {
            active.mailbox = None;
        }
        live.quiet();
        self.forget(&mut registry, live.id);
        true
    }

    /// Lets a room leave memory if nobody needs it.
    pub(crate) fn release(&self, room: RoomId) {
        self.forget(&mut lock(&self.registry), room);
    }

    fn forget(&self, registry: &mut Registry, room: RoomId) {
        let unused = |active: &Active| active.mailbox.is_none() && active.live.is_idle();
        if registry.rooms.get(&room).is_some_and(unused) {
            registry.rooms.remove(&room);
            registry.generation += 1;
            // Under the registry's lock, as the following is: the bus hears of both in their order.
            if let Some(bus) = &self.bus {
                bus.unfollow(room);
            }
        }
    }

    /// Something has been heard of rooms that were not in memory: who is being attached by a look at the store from
    /// before looks again.
    pub(crate) fn look_again(&self) {
        if !removed(Mutant::LookAgain) {
            lock(&self.registry).generation += 1;
        }
    }

    /// Takes a room away from one user's readers, or from everyone's.
    pub(crate) fn expel(&self, live: &LiveRoom, user: Option<UserId>, reason: GoneReason, by: Option<UserId>) {
        // First, so that whoever looked at memberships before attaches nobody by what they saw.
        lock(&self.registry).generation += 1;
        live.expel(user, reason, by);
    }

    // Readers by user.

    pub(crate) fn register(&self, user: UserId, reader: Arc<dyn Reader>) -> ReaderId {
        let id = ReaderId(self.next_reader.fetch_add(1, Ordering::Relaxed));
        lock(&self.readers).entry(user).or_default().push((id, reader));
        id
    }

    pub(crate) fn unregister(&self, user: UserId, id: ReaderId) {
        let mut readers = lock(&self.readers);
        if let Some(of_user) = readers.get_mut(&user) {
            of_user.retain(|(other, _)| *other != id);
            if of_user.is_empty() {
                readers.remove(&user);
            }
        }
    }

    pub(crate) fn readers_of(&self, user: UserId) -> Vec<Arc<dyn Reader>> {
        let readers = lock(&self.readers);
        readers
            .get(&user)
            .into_iter()
            .flatten()
            .map(|(_, reader)| Arc::clone(reader))
            .collect()
    }

    /// The count to be taken before a look at an account whose token is checked.
    pub(crate) fn token_ends(&self) -> u64 {
        self.token_ends.load(Ordering::SeqCst)
    }

    /// The user's tokens have ended: counts it, then tells their readers. A reader that is registered later is of
    /// somebody who sees the count.
    pub(crate) fn tell_tokens_ended(&self, user: UserId) {
        self.token_ends.fetch_add(1, Ordering::SeqCst);
        self.readers_of(user).iter().for_each(|reader| reader.tokens_ended());
    }

    pub(crate) fn all_readers(&self) -> Vec<Arc<dyn Reader>> {
        lock(&self.readers)
            .values()
            .flatten()
            .map(|(_, reader)| Arc::clone(reader))
            .collect()
    }

    // Other engines on the same store.

    /// Tells the other engines, if there is a way.
    pub(crate) fn publish(&self, item: impl FnOnce() -> BusItem) {
        if let Some(bus) = &self.bus {
            bus.publish(item());
        }
    }

    pub(crate) fn bus(&self) -> Option<&Arc<dyn Bus>> {
        self.bus.as_ref()
    }

    /// Delivers something that may be missed, here and at the other engines.
    pub(crate) fn hint(&self, hint: Hint, except: Option<ReaderId>) {
        self.publish(|| BusItem::Hint(hint.clone()));
        if let Some(live) = self.in_memory(hint.room) {
            live.hint(hint, except);
        }
    }

    /// The lease has been renewed, and surely holds until then.
    pub(crate) fn hold_lease(&self, until: Instant) {
        *lock(&self.lease) = Some(until);
    }

    /// Whether turns may be started here.
    pub(crate) fn holds_lease(&self) -> bool {
        lock(&self.lease).is_none_or(|until| Instant::now() < until) || removed(Mutant::Lease)
    }

    /// Tells a room in memory that the store has something new of it. False if it is too busy to be told.
    pub(crate) fn nudge(self: &Arc<Self>, room: RoomId) -> bool {
        self.mail(room, Mail::Look { then: None })
    }

    /// Hands a room in memory an event that another engine has committed. False if it is too busy to take it.
    pub(crate) fn hand_on(self: &Arc<Self>, event: Arc<Event>) -> bool {
        self.mail(event.room(), Mail::Heard(event))
    }

    fn mail(self: &Arc<Self>, room: RoomId, mail: Mail) -> bool {
        let mailbox = {
            let mut registry = lock(&self.registry);
            registry.rooms.get_mut(&room).map(|active| self.mailbox_of(active))
        };
        mailbox.is_none_or(|mailbox| mailbox.try_send(mail).is_ok())
    }

    // Turns that run here.

    /// Makes a turn known before it is visible, so that a stop always finds it.
    pub(crate) fn begin_turn(&self, room: RoomId, turn: TurnId) -> Arc<Running> {
        let running = Arc::new(Running {
            room,
            stop: CancellationToken::new(),
            cause: OnceLock::new(),
        });
        lock(&self.turns).insert(turn, Arc::clone(&running));
        // After it was inserted: either this sees that turns are being ended, or who ends them sees this one.
        if self.ending.is_cancelled() {
            running.cancel(TurnEnd::new(TurnStatus::Interrupted));
        }
        running
    }

    pub(crate) fn running(&self, turn: TurnId) -> Option<Arc<Running>> {
        lock(&self.turns).get(&turn).cloned()
    }

    pub(crate) fn end_turn(&self, turn: TurnId) {
        lock(&self.turns).remove(&turn);
    }

    /// Ends every turn that runs here, or those of one room.
    pub(crate) fn cancel_turns(&self, room: Option<RoomId>, cause: &TurnEnd) {
        let running: Vec<_> = lock(&self.turns).values().cloned().collect();
        for running in running
            .iter()
            .filter(|running| room.is_none_or(|room| running.room == room))
        {
            running.cancel(cause.clone());
        }
    }

    /// A turn's end, when it becomes known here. Ask the store after this, lest it has ended already, and
    /// [stop waiting](Self::stop_waiting) when done.
    pub(crate) fn await_end(&self, turn: TurnId) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        let of_turn = waiting.entry(turn).or_default();
        of_turn.retain(|other| !other.is_closed());
        of_turn.push(tell);
        told
    }

    /// Forgets those who do not wait for a turn's end any more.
    pub(crate) fn stop_waiting(&self, turn: TurnId) {
        let mut waiting = lock(&self.waiting);
        if let Some(of_turn) = waiting.get_mut(&turn) {
            of_turn.retain(|other| !other.is_closed());
            if of_turn.is_empty() {
                waiting.remove(&turn);
            }
        }
    }

    pub(crate) fn tell_end(&self, turn: TurnId) {
        for tell in lock(&self.waiting).remove(&turn).into_iter().flatten() {
            let _ = tell.send(());
        }
    }
}

impl Running {
    /// Ends the turn: its bot's future is dropped and this is recorded as the reason. The first reason stands.
    pub(crate) fn cancel(&self, cause: TurnEnd) {
        let _ = self.cause.set(cause);
        self.stop.cancel();
    }
}

/// The registry, while nothing can change.
pub(crate) struct Enter<'a> {
    shared: &'a Shared,
    registry: &'a mut Registry,
}

impl Enter<'_> {
    /// The room in memory, begun at this position of its log if it is not there. Whoever calls this gives it a reader
    /// or a writer before the registry moves on: nothing else lets it leave memory again.
    pub(crate) fn live(&mut self, room: &RoomInfo, seq: Seq) -> Arc<LiveRoom> {
        Arc::clone(&self.active(room, seq).live)
    }

    fn active(&mut self, room: &RoomInfo, seq: Seq) -> &mut Active {
        let shared = self.shared;
        self.registry.rooms.entry(room.id).or_insert_with(|| {
            if let Some(bus) = &self.shared.bus {
                bus.follow(room.id);
            }
            Active {
                live: LiveRoom::new(
                    room.id,
                    room.is_ai_chat,
                    seq,
                    shared.settings.pace,
                    shared.tasks.clone(),
                    Arc::clone(&shared.meters),
                ),
                mailbox: None,
            }
        })
    }
}
