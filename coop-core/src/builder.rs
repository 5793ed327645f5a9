//! The engine's handle and how it is built, opened and closed.

use crate::bot::{Bot, BotError, ReplyWriter, Turn, bot_fn};
use crate::bounds::Bounds;
use crate::bus::{Bus, BusState};
use crate::engine::{Bots, FOR_EVER, Settings, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Hint;
use crate::id::{RoomId, UserId};
use crate::live::{Encoder, Frames, Pace};
use crate::metrics::Meters;
use crate::model::{Budgets, Finish, RoomInfo, Snapshot, TurnEnd, TurnStatus, UsageFilter, UsageSum};
use crate::mutant::{Mutant, removed};
use crate::names;
use crate::others;
use crate::password::{Cost, Hashing, Passwords, Verdict};
use crate::store::{Intent, NewAccount, RoomStore, Store, UserStore, Whose};
use crate::time::{Clock, Timestamp};
use crate::user::User;
use crate::writer::submit;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long closing waits for the store after the turns have ended.
const FLUSH: Duration = Duration::from_secs(10);

/// Owns the rooms of one store. Cheap to clone; all clones are the same engine.
///
/// Call [`close`](Self::close) before the program ends. Without it nothing that was acknowledged is lost, but answers
/// that were being written are ended only by the next engine on the same store.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("bots", &self.shared.bots().handles)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins an engine on one of our stores, or any other that keeps both rooms and users.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, _| {
    /// use coop_core::{Engine, Finish, store::memory::MemoryStore};
    ///
    /// let engine = Engine::builder(MemoryStore::new())
    ///     .bot_fn("echo", |turn, out| async move {
    ///         out.push(turn.prompt).await?;
    ///         Ok(Finish::stop())
    ///     })
    ///     .build()
    ///     .await?;
    /// # engine.close(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn builder(store: impl Store) -> EngineBuilder {
        let store = Arc::new(store);
        EngineBuilder::new(Arc::clone(&store) as Arc<dyn RoomStore>, store)
    }

    /// Begins an engine on a store that was chosen at run time, such as by
    /// [its address](crate::store::connect::connect).
    #[must_use]
    pub fn builder_on(store: Arc<dyn Store>) -> EngineBuilder {
        EngineBuilder::new(Arc::clone(&store) as Arc<dyn RoomStore>, store)
    }

    /// Begins an engine on a room store, with the application's own users.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, _| {
    /// use coop_core::store::{NewAccount, UserStore, memory::MemoryStore};
    /// use coop_core::{Account, Engine, Error, Result, Timestamp, UserId};
    ///
    /// struct Staff;
    ///
    /// #[async_trait::async_trait]
    /// impl UserStore for Staff {
    ///     async fn user(&self, id: UserId) -> Result<Option<Account>> {
    ///         Ok((id == UserId(7)).then(|| Account::new(id, "anna", None, Timestamp(0))))
    ///     }
    ///
    ///     async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
    ///         if name == "anna" { self.user(UserId(7)).await } else { Ok(None) }
    ///     }
    ///
    ///     async fn create_user(&self, _: NewAccount) -> Result<Account> {
    ///         Err(Error::forbidden("ask the personnel department"))
    ///     }
    /// }
    ///
    /// let engine = Engine::builder_with(MemoryStore::new(), Staff).build().await?;
    /// assert_eq!(engine.find_user("Anna").await?.id(), UserId(7));
    /// # Ok(()) });
    /// ```
    pub fn builder_with(rooms: impl RoomStore, users: impl UserStore) -> EngineBuilder {
        EngineBuilder::new(Arc::new(rooms), Arc::new(users))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Makes a user who logs in elsewhere, if at all.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// let carol = engine.create_user("Carol").await?;
    /// assert_eq!(carol.name(), "carol");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` for a malformed or reserved name, `Conflict` for one that is taken, `Unavailable`, `Closed`.
    pub async fn create_user(&self, name: &str) -> Result<User> {
        self.create(name, None, None).await
    }

    /// Makes a user with an e-mail address and a password.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// let carol = engine.register("carol", "carol@example.org", "correct horse".into()).await?;
    /// assert_eq!(engine.authenticate("carol", "correct horse".into()).await?.id(), carol.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user); `BadRequest` for a malformed address or a password that breaks the rules
    /// (8 to 128 characters, neither the name nor the address), `Busy` if too many passwords are being hashed.
    pub async fn register(&self, name: &str, email: &str, password: String) -> Result<User> {
        names::check_email(email)?;
        self.create(name, Some(email), Some(password)).await
    }

    async fn create(&self, name: &str, email: Option<&str>, password: Option<String>) -> Result<User> {
        self.shared.check_open()?;
        let name = names::check_name(name).map_err(Error::bad_request)?;
        if self.shared.bots().get(&name).is_some() {
            return Err(Error::bad_request("this name belongs to a bot"));
        }
        let password = match password {
            Some(password) => {
                let rules = self.shared.passwords.rules();
                let email = email.unwrap_or_default();
                rules.check(&password, &name, email).map_err(Error::bad_request)?;
                Some(self.shared.passwords.hash(password).await?)
            }
            None => None,
        };
        let new = NewAccount {
            name,
            email: email.map(str::to_owned),
            password,
            now: self.shared.now(),
        };
        let as_of = self.shared.token_ends();
        let account = self.shared.patiently(self.shared.users.create_user(new)).await??;
        Ok(User::new(Arc::clone(&self.shared), account, as_of))
    }

    /// The user of this name and password. An unknown name costs the same time as a wrong password and gives the same
    /// error.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// let refused = engine.authenticate("nobody", "correct horse".into()).await;
    /// assert_eq!(refused.unwrap_err().kind(), coop_core::ErrorKind::Unauthorized);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unauthorized`; `Busy` if too many passwords are being hashed; `Unavailable`, `Closed`.
    pub async fn authenticate(&self, name: &str, password: String) -> Result<User> {
        self.shared.check_open()?;
        let rules = self.shared.passwords.rules();
        rules.check_upper_bound(&password).map_err(Error::bad_request)?;
        let as_of = self.shared.token_ends();
        // A name that cannot exist is looked up like any other, so that it costs the same.
        let found = self
            .shared
            .users
            .credentials(&names::fold(name).unwrap_or_default())
            .await?;
        let (account, hash) = found.unzip();
        let verdict = self.shared.passwords.verify(password.clone(), hash.clone()).await?;
        let wrong = || Error::new(ErrorKind::Unauthorized, "incorrect name or password");
        let account = account.ok_or_else(wrong)?;
        match verdict {
            Verdict::Wrong => return Err(wrong()),
            Verdict::Right => {}
            Verdict::RightButStale => {
                // A failure here is no reason to refuse somebody who gave the right password.
                if let Ok(fresh) = self.shared.passwords.hash(password).await {
                    let stale = hash.unwrap_or_default();
                    let _ = self.shared.users.rehash(account.id, &stale, &fresh).await;
                }
            }
        }
        Ok(User::new(Arc::clone(&self.shared), account, as_of))
    }

    /// The user of this id, without authenticating anybody: the host has done that.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, _, _| {
    /// assert_eq!(engine.user(alice.id()).await?.name(), "alice");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn user(&self, id: UserId) -> Result<User> {
        self.shared.check_open()?;
        let as_of = self.shared.token_ends();
        let account = self.shared.users.user(id).await?.ok_or_else(no_such_user)?;
        Ok(User::new(Arc::clone(&self.shared), account, as_of))
    }

    /// The user of this name, without authenticating anybody.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, _, _| {
    /// assert_eq!(engine.find_user("ALICE").await?.id(), alice.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn find_user(&self, name: &str) -> Result<User> {
        self.shared.check_open()?;
        let name = names::fold(name).map_err(|_| no_such_user())?;
        let as_of = self.shared.token_ends();
        let account = self.shared.users.user_by_name(&name).await?.ok_or_else(no_such_user)?;
        Ok(User::new(Arc::clone(&self.shared), account, as_of))
    }

    /// A room's name and owner, whoever asks. For hosts whose contract tells unknown rooms from foreign ones.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, _, room| {
    /// assert_eq!(engine.room_info(room.id()).await?.owner, alice.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn room_info(&self, room: RoomId) -> Result<RoomInfo> {
        self.shared.check_open()?;
        Ok(self
            .shared
            .rooms
            .room(room)
            .await?
            .ok_or_else(Error::no_such_room)?
            .info)
    }

    /// A room, its members and newest messages (as many as `messages` says) at one moment, whoever asks. For hosts that
    /// tell everybody in a room the same. The text of an answer being written may be some moments old, and `tapes` is
    /// empty.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, _, room| {
    /// let seen = engine.snapshot(room.id(), 50).await?;
    /// assert_eq!(seen.members[0].user, alice.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn snapshot(&self, room: RoomId, messages: u32) -> Result<Snapshot> {
        self.shared.check_open()?;
        let found = self.shared.rooms.snapshot(room, messages).await?;
        found.ok_or_else(Error::no_such_room)
    }

    /// Delivers a hint to the readers of one encoder, encoded already: for an encoder that could not
    /// [encode](Encoder::encode_hint) it at once because it must look something up first. Readers get it that are in
    /// the room at this moment, and like any hint it may be missed. Dropping the call leaves some without it.
    pub async fn deliver_hint(&self, hint: &Hint, encoder: &Arc<dyn Encoder>, frames: &Frames) {
        if let Some(live) = self.shared.in_memory(hint.room) {
            live.deliver_hint(hint, encoder, frames).await;
        }
    }

    /// The sum of the tokens that were used: of a bot, a room, a user, since a day, or any of these together. For the host;
    /// what people may see is [`Room::usage`](crate::Room::usage) and [`User::usage`].
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// use coop_core::UsageFilter;
    ///
    /// let of_echo = UsageFilter { bot: Some("echo".into()), ..UsageFilter::default() };
    /// assert_eq!(engine.usage(&of_echo).await?.total, 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unavailable`, `Closed`. Cancel safe.
    pub async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        self.shared.check_open()?;
        self.shared.rooms.usage(of).await
    }

    /// Now, by its clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// How many tokens may be used in a day.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        self.shared.settings.budgets
    }

    /// Adds a bot after the others: it answers whatever is asked from now on. The first one there is answers `/bot`.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, room| {
    /// engine.add_bot(coop_core::bot_fn("late", |turn, out| async move {
    ///     out.push(turn.prompt).await?;
    ///     Ok(coop_core::Finish::stop())
    /// }))?;
    /// assert!(room.send("/late Hello!").await?.turn.is_some());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` for a malformed handle, `Conflict` for one that is taken, `Closed`.
    pub fn add_bot(&self, bot: impl Bot) -> Result<()> {
        self.shared.check_open()?;
        self.shared.add_bot(Arc::new(bot))
    }

    /// The handles of its bots; the first answers `/bot`.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// assert_eq!(engine.bots(), ["echo"]);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn bots(&self) -> Vec<String> {
        self.shared.bots().handles.to_vec()
    }

    /// How large what people make may be.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.shared.settings.bounds
    }

    /// The handles and names of its bots, in the same order.
    #[must_use]
    pub fn bot_names(&self) -> Vec<(String, String)> {
        let bots = self.shared.bots();
        let profiles = bots.all.iter().map(|bot| &bot.profile);
        profiles
            .map(|profile| (profile.handle.clone(), profile.name.clone()))
            .collect()
    }

    /// Whether other engines hear of this one at once; `None` without a bus. While it is down they see what is committed
    /// here when they look at the store, within two seconds.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// assert_eq!(engine.bus_state(), None);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn bus_state(&self) -> Option<BusState> {
        self.shared.bus().map(|bus| bus.state())
    }

    /// Brings those [figures](crate::metrics) up to date that only a look can tell. To be called before they are read.
    pub fn update_metrics(&self) {
        let up = self.bus_state().map(|state| state == BusState::Up);
        Meters::look(self.shared.rooms_in_memory(), up);
    }

    /// For tests: how many rooms are in memory.
    #[must_use]
    pub fn rooms_in_memory(&self) -> usize {
        self.shared.rooms_in_memory()
    }

    /// Closes: refuses what is new, lets turns go on for `grace`, ends the rest as interrupted with all of their text,
    /// waits for what is being written and lets go of the store. Closing twice waits for the same end.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, room| {
    /// engine.close(std::time::Duration::from_secs(10)).await;
    /// let refused = room.send("too late").await;
    /// assert_eq!(refused.unwrap_err().kind(), coop_core::ErrorKind::Closed);
    /// # Ok(()) });
    /// ```
    pub async fn close(&self, grace: Duration) {
        let shared = &self.shared;
        shared.closing.cancel();
        shared.turn_tasks.close();
        let _ = tokio::time::timeout(grace, shared.turn_tasks.wait()).await;
        shared.ending.cancel();
        shared.cancel_turns(None, &TurnEnd::new(TurnStatus::Interrupted));
        let ended = async {
            shared.turn_tasks.wait().await;
            // Those that still wait for their bot.
            interrupt_open(shared, Whose::Mine).await
        };
        match tokio::time::timeout(FLUSH, ended).await {
            Ok(Ok(())) => {}
            // Closed before.
            Ok(Err(error)) if error.kind() == ErrorKind::Closed => {}
            _ => tracing::warn!("not every turn could be ended while closing; the next engine does it"),
        }
        shared.flushing.cancel();
        shared.tasks.close();
        if timeout(FLUSH, shared.tasks.wait()).await.is_err() {
            tracing::warn!("the store did not answer while closing; what was acknowledged is stored");
        }
        shared.all_readers().iter().for_each(|reader| reader.closed());
        shared.deserted.cancel();
        shared.lookouts.close();
        shared.lookouts.wait().await;
        if let Some(bus) = shared.bus() {
            bus.close().await;
        }
        shared.rooms.close().await;
    }
}

fn no_such_user() -> Error {
    Error::not_found("no such user")
}

/// Builds an [`Engine`]. Everything has a default but the store.
pub struct EngineBuilder {
    rooms: Arc<dyn RoomStore>,
    users: Arc<dyn UserStore>,
    bots: Vec<Arc<dyn Bot>>,
    bus: Option<Arc<dyn Bus>>,
    clock: Arc<dyn Clock>,
    hashing: Hashing,
    settings: Settings,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    fn new(rooms: Arc<dyn RoomStore>, users: Arc<dyn UserStore>) -> Self {
        Self {
            rooms,
            users,
            bots: Vec::new(),
            bus: None,
            clock: Arc::new(SystemClock),
            hashing: Hashing::default(),
            settings: Settings::default(),
        }
    }

    /// With the application's own users.
    #[must_use]
    pub fn users(mut self, users: impl UserStore) -> Self {
        self.users = Arc::new(users);
        self
    }

    /// With the users of a store that was chosen at run time.
    #[must_use]
    pub fn users_of(mut self, store: Arc<dyn Store>) -> Self {
        self.users = store;
        self
    }

    /// With this bot. The first one added answers `/bot` and AI chats.
    #[must_use]
    pub fn bot(mut self, bot: impl Bot) -> Self {
        self.bots.push(Arc::new(bot));
        self
    }

    /// With a bot from a handle and an async function; see [`bot_fn`].
    #[must_use]
    pub fn bot_fn<F, Fut>(self, handle: &str, reply: F) -> Self
    where
        F: Fn(Turn, ReplyWriter) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Finish, BotError>> + Send + 'static,
    {
        self.bot(bot_fn(handle, reply))
    }

    /// With a quick way to the other engines on the same store, which must be one that several can use.
    #[must_use]
    pub fn bus(mut self, bus: impl Bus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }

    /// With another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What hashing a password costs.
    #[must_use]
    pub fn password_cost(mut self, cost: Cost) -> Self {
        self.hashing.cost = cost;
        self
    }

    /// What passwords may be, and what hashing them may take. Replaces the [cost](Self::password_cost), too.
    #[must_use]
    pub fn hashing(mut self, hashing: Hashing) -> Self {
        self.hashing = hashing;
        self
    }

    /// How large what people make may be.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.settings.bounds = bounds.within();
        self
    }

    /// How rooms gather and keep what their readers get.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.settings.pace = pace;
        self
    }

    /// How often the text of a running turn is kept: what a crash may cost. 500 ms by default.
    #[must_use]
    pub fn checkpoint_every(mut self, every: Duration) -> Self {
        self.settings.checkpoint = every;
        self
    }

    /// How long a quiet room stays in memory. 10 s by default.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.settings.idle = idle;
        self
    }

    /// How long a caller waits for the store before it is told `unavailable`. 10 s by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// How many tokens may be used in a day. Without limits by default.
    #[must_use]
    pub fn budgets(mut self, budgets: Budgets) -> Self {
        self.settings.budgets = budgets;
        self
    }

    /// How long a turn may take, whatever the bot's own [limits](crate::BotLimits::time) say.
    #[must_use]
    pub fn turn_timeout(mut self, time: Duration) -> Self {
        self.settings.turn_timeout = Some(time);
        self
    }

    /// Opens the engine and ends, as interrupted, the turns that an earlier one left open.
    ///
    /// # Errors
    /// `BadRequest` for a bot whose handle or name is malformed and for a bus beside a store that serves one engine, `Conflict` for
    /// two bots of the same handle, `Unavailable` if the store does not answer.
    pub async fn build(self) -> Result<Engine> {
        let mut bots = Bots::default();
        for bot in self.bots {
            bots = bots.with(bot, self.settings.turn_timeout)?;
        }
        let passwords = Passwords::new(self.hashing);
        let mut settings = self.settings;
        for time in settings.durations() {
            *time = (*time).min(FOR_EVER);
        }
        settings.checkpoint = settings.checkpoint.max(Duration::from_millis(1));
        let shared = Arc::new(Shared::new(
            self.rooms, self.users, bots, self.bus, self.clock, passwords, settings,
        ));
        others::begin(&shared).await?;
        if !removed(Mutant::Recovery) {
            interrupt_open(&shared, Whose::Nobodys).await?;
        }
        Ok(Engine { shared })
    }
}

/// Ends what a dead process left open, or what this one leaves: the text up to the last checkpoint is kept. An engine
/// that has its store alone ends whatever there is.
async fn interrupt_open(shared: &Arc<Shared>, whose: Whose) -> Result<()> {
    let open = match shared.rooms.others() {
        None => shared.rooms.open_turns(None).await?,
        Some(others) => {
            let open = others.open_turns().await?.into_iter();
            open.filter(|turn| turn.whose == whose).map(|turn| turn.info).collect()
        }
    };
    for turn in open {
        let intent = Intent::end(turn.id, TurnEnd::new(TurnStatus::Interrupted));
        submit(shared, turn.room, intent, Vec::new()).await?;
    }
    Ok(())
}

/// The system's wall clock.
#[derive(Clone, Copy, Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
