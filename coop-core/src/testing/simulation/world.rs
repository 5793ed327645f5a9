//! What outlives the engines: the disk, the clock, and a ledger of everything that was promised or seen.

use super::{Shown, Weather};
use crate::id::{MessageId, RoomId, TurnId, UserId};
use crate::store::memory::MemoryStore;
use crate::sync::lock;
use crate::time::{Clock, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) disk: MemoryStore,
    /// Print what readers read.
    pub(super) trace: bool,
    pub(super) ledger: Mutex<Ledger>,
    random: Mutex<fastrand::Rng>,
    /// No more faults and crashes.
    fair: AtomicBool,
    /// People stop doing things; readers read to the end and rest.
    quiet: AtomicBool,
    time: Mutex<Time>,
    broken: Mutex<Option<String>>,
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
    pub(super) removed: BTreeSet<(RoomId, UserId)>,
    /// Invitations under way: a removal that is acknowledged meanwhile may already be undone.
    pub(super) inviting: BTreeMap<(RoomId, UserId), usize>,
    /// What roaming readers show, while they are away.
    pub(super) shown: BTreeMap<(RoomId, UserId), Shown>,
    /// What the readers of the last life showed at its end.
    pub(super) finally: Vec<Shown>,
    pub(super) next_client_id: u32,
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

#[derive(Default)]
pub(super) struct Wrote {
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
            trace: std::env::var_os("COOP_SIM_TRACE").is_some(),
            ledger: Mutex::default(),
            random: Mutex::new(random.fork()),
            fair: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            time: Mutex::new(Time {
                before: 1_000_000,
                began: None,
            }),
            broken: Mutex::new(None),
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
        self.weather.faults && !self.fair.load(Ordering::Relaxed) && !self.is_quiet()
    }

    pub(super) fn clear_up(&self) {
        self.fair.store(true, Ordering::Relaxed);
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

    pub(super) fn end_life(&self, crashed: bool) {
        let now = self.now();
        *lock(&self.time) = Time {
            before: now,
            began: None,
        };
        let mut ledger = self.ledger();
        for wrote in ledger.wrote.values_mut().filter(|wrote| !wrote.over) {
            wrote.over = true;
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
