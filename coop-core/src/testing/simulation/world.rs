//! What outlives the engines: the disk, the clock, and a ledger of everything that was promised or seen.

use super::servers::Server;
use super::{Carriage, Shown, Weather};
use crate::bus::memory::MemoryBus;
use crate::id::{MessageId, RoomId, TurnId, UserId};
use crate::store::memory::MemoryStore;
use crate::sync::lock;
use crate::time::{Clock, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long something done at one server may take to be effective at another, in milliseconds: two seconds, and what the
/// store takes.
const SEEN: i64 = 2_200;

/// The same with a bus that is a good one.
const HEARD: i64 = 100;

pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) disk: MemoryStore,
    /// What the engines' buses are made of.
    pub(super) bus: MemoryBus,
    trace: bool,
    pub(super) ledger: Mutex<Ledger>,
    random: Mutex<fastrand::Rng>,
    /// Since when there are no more faults and crashes.
    fair_since: AtomicI64,
    /// People stop doing things; readers read to the end and rest.
    quiet: AtomicBool,
    time: Mutex<Time>,
    broken: Mutex<Option<String>>,
    servers: AtomicUsize,
}

struct Time {
    /// Milliseconds of all lives before this one.
    before: i64,
    began: Option<Instant>,
}

/// What was promised or seen.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) people: Vec<UserId>,
    pub(super) rooms: Vec<RoomId>,
    /// Rooms whose deletion was asked for: nothing is promised about them any more.
    pub(super) doomed: BTreeSet<RoomId>,
    /// What was sent, by room, author and client id.
    pub(super) sent: BTreeMap<(RoomId, UserId, String), Attempt>,
    /// Messages somebody tried to delete.
    pub(super) deleted: BTreeSet<MessageId>,
    /// Turns people know of.
    pub(super) turns: BTreeSet<(RoomId, TurnId)>,
    /// What each turn's bot wrote.
    pub(super) wrote: BTreeMap<TurnId, Wrote>,
    /// Removals that were acknowledged, until an invitation begins.
    pub(super) removed: BTreeMap<(RoomId, UserId), Removal>,
    /// A removal that is acknowledged while somebody invites may already be undone.
    pub(super) inviting: BTreeMap<(RoomId, UserId), Invitations>,
    /// What roaming readers show, while they are away.
    pub(super) shown: BTreeMap<(RoomId, UserId), Shown>,
    /// What the readers of the last life showed at its end.
    pub(super) finally: Vec<Shown>,
    pub(super) next_client_id: u32,
    /// Servers that were killed or told to close.
    pub(super) left: BTreeSet<usize>,
}

#[derive(Clone, Default)]
pub(super) struct Attempt {
    pub(super) text: String,
    /// The message, once it was acknowledged.
    pub(super) message: Option<MessageId>,
    pub(super) turns: usize,
    /// Its author tried to change or delete it.
    pub(super) touched: bool,
}

/// A removal that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    pub(super) at: i64,
    /// The number of the server that did it.
    pub(super) server: usize,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Invitations {
    pub(super) begun: usize,
    pub(super) under_way: usize,
}

impl Ledger {
    /// How many invitations have begun.
    pub(super) fn invited(&self, key: (RoomId, UserId)) -> usize {
        self.inviting.get(&key).map_or(0, |invitations| invitations.begun)
    }

    pub(super) fn is_inviting(&self, key: (RoomId, UserId)) -> bool {
        self.inviting
            .get(&key)
            .is_some_and(|invitations| invitations.under_way > 0)
    }
}

#[derive(Default)]
pub(super) struct Wrote {
    /// The number of the server whose bot it is, once one has begun.
    pub(super) server: Option<usize>,
    /// It began when nothing more could befall its server.
    pub(super) in_fair_weather: bool,
    /// Everything it tried to push.
    pub(super) text: String,
    /// When how much of it had been taken, in milliseconds.
    pub(super) taken: Vec<(i64, usize)>,
    /// Its life is over.
    pub(super) over: bool,
    /// How much had been taken a second before its process died.
    pub(super) owed: usize,
}

impl World {
    pub(super) fn new(random: &mut fastrand::Rng, weather: Weather) -> Self {
        Self {
            weather,
            disk: MemoryStore::new(),
            bus: MemoryBus::new(),
            trace: std::env::var_os("COOP_SIM_TRACE").is_some(),
            ledger: Mutex::default(),
            random: Mutex::new(random.fork()),
            fair_since: AtomicI64::new(i64::MAX),
            quiet: AtomicBool::new(false),
            time: Mutex::new(Time {
                before: 1_000_000,
                began: None,
            }),
            broken: Mutex::new(None),
            servers: AtomicUsize::new(0),
        }
    }

    pub(super) fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// A number below `below`.
    pub(super) fn roll(&self, below: usize) -> usize {
        lock(&self.random).usize(0..below.max(1))
    }

    /// Lets up to `most` milliseconds pass.
    pub(super) async fn dawdle(&self, most: usize) {
        let wait = self.roll(most + 1) as u64;
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    pub(super) fn faulty(&self) -> bool {
        self.weather.faults && !self.is_fair(0) && !self.is_quiet()
    }

    /// Whether there are no more faults and crashes.
    pub(super) fn is_clear(&self) -> bool {
        self.is_fair(0)
    }

    pub(super) fn clear_up(&self) {
        self.fair_since.store(self.now(), Ordering::Relaxed);
    }

    /// Whether nothing has befallen anybody for as many milliseconds.
    fn is_fair(&self, for_long: i64) -> bool {
        self.fair_since.load(Ordering::Relaxed).saturating_add(for_long) <= self.now()
    }

    pub(super) fn quiet_down(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    pub(super) fn begin_life(&self) {
        self.quiet.store(false, Ordering::Relaxed);
        lock(&self.time).began = Some(Instant::now());
        let mut ledger = self.ledger();
        ledger.finally.clear();
        ledger.inviting.clear();
    }

    /// Prints something, if anybody wants to know.
    pub(super) fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{} {}", self.now(), what());
        }
    }

    pub(super) fn next_server(&self) -> usize {
        self.servers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether several servers use the disk at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.weather.servers > 1
    }

    /// How long nothing may be heard before all has been heard. An owner that died is found out only after its lease.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(if self.is_shared() { 20 } else { 8 })
    }

    /// Whether a server must have kept this removal at this time.
    pub(super) fn must_know(&self, server: &Server, removal: Removal, at: i64) -> bool {
        let fair = !self.weather.faults || self.is_fair(0);
        // One that was away when it was told hears nothing of it any more.
        let told = self.weather.bus == Carriage::Good && server.sound_since() < removal.at;
        let within = if told { HEARD } else { SEEN };
        let looked = removal.at.max(server.sound_since()).saturating_add(within);
        server.number == removal.server && removal.at < at || fair && looked < at
    }

    /// A bot begins with a turn, which happens once.
    pub(super) fn begins(&self, turn: TurnId, server: usize) {
        self.trace(|| format!("server {server} begins turn {turn}"));
        // One that was away may lose its lease before it can renew it.
        let fair = self.is_fair(if self.is_shared() { 1_000 } else { 0 });
        let before = {
            let mut ledger = self.ledger();
            let left = ledger.left.contains(&server);
            let wrote = ledger.wrote.entry(turn).or_default();
            wrote.in_fair_weather = fair && !left;
            wrote.server.replace(server)
        };
        if let Some(before) = before {
            self.breaks(format!("I4: turn {turn} is begun by server {server} after {before}"));
        }
    }

    /// Something befalls a server: of what its bots write less may be kept from now on than they have written.
    pub(super) fn loses(&self, server: &Server, killed: bool) {
        let now = self.now();
        let mut ledger = self.ledger();
        // What it wrote since it came back may still wait for the store.
        let kept = server.sound_since().saturating_add(1_000) < now;
        let of_server = |wrote: &&mut Wrote| wrote.server == Some(server.number) && !wrote.over;
        for wrote in ledger.wrote.values_mut().filter(of_server) {
            wrote.over = killed;
            if !kept {
                continue;
            }
            let old = wrote.taken.iter().rev().find(|(at, _)| *at < now - 1_000);
            wrote.owed = wrote.owed.max(old.map_or(0, |(_, taken)| *taken));
        }
    }

    pub(super) fn end_life(&self, crashed: bool) {
        let now = self.now();
        *lock(&self.time) = Time {
            before: now,
            began: None,
        };
        let mut ledger = self.ledger();
        for wrote in ledger.wrote.values_mut().filter(|wrote| !wrote.over) {
            wrote.over = true;
            if self.is_shared() {
                continue;
            }
            let old = wrote.taken.iter().rev().find(|(at, _)| crashed && *at < now - 1_000);
            wrote.owed = old.map_or(0, |(_, taken)| *taken);
        }
    }

    pub(super) fn now(&self) -> i64 {
        let time = lock(&self.time);
        time.before + time.began.map_or(0, |began| began.elapsed().as_millis() as i64)
    }

    /// The first thing that was found broken stands.
    pub(super) fn breaks(&self, what: String) {
        lock(&self.broken).get_or_insert(what);
    }

    pub(super) fn broken(&self) -> Result<(), String> {
        lock(&self.broken).clone().map_or(Ok(()), Err)
    }
}

/// Virtual time, counted on over all lives.
pub(super) struct SimClock(pub(super) Arc<World>);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.now())
    }
}
