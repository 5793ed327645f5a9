//! What is counted for users, accounts and addresses, wherever they come from.
//!
//! It knows no requests: whoever serves one names the [`Toll`] and who pays it.

use super::Limits;
use super::bucket::Buckets;
use super::seats::one_less;
use crate::meters::Meters;
use coop_core::{Error, ErrorKind, TurnHandle, UserId};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TOO_MANY_LOGINS: &str = "too many logins; try again later";

/// What a request costs before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toll {
    /// One login from the address.
    Login,
    /// One registration from the address.
    Registration,
    /// One invitation by the user.
    Invitation,
    /// One search by the user.
    Search,
    /// One room made by the user.
    NewRoom,
    /// One message by the user, or one change.
    Message,
    /// One socket or stream of events that the user opens.
    Opening,
}

/// All allowances that outlive a connection.
pub(crate) struct Tolls {
    logins: Buckets<IpAddr>,
    registrations: Buckets<IpAddr>,
    /// By a hash of the name: whoever tries long names fills no memory with them.
    accounts: Buckets<u64>,
    names: RandomState,
    invitations: Buckets<UserId>,
    searches: Buckets<UserId>,
    rooms: Buckets<UserId>,
    messages: Buckets<UserId>,
    openings: Buckets<UserId>,
    asks: Buckets<UserId>,
    asks_in_flight: u32,
    /// Answers that are owed. Bounded by the turns there are.
    in_flight: Mutex<BTreeMap<UserId, u32>>,
}

/// A message that may ask bots, until their answers have ended. Dropping it makes way for the next.
pub(crate) struct Asking {
    tolls: Arc<Tolls>,
    user: UserId,
    /// What was taken for it.
    paid: usize,
}

impl Tolls {
    pub(crate) fn new(limits: &Limits) -> Self {
        fn buckets<K: Eq + std::hash::Hash>(rate: super::Rate, limits: &Limits) -> Buckets<K> {
            Buckets::new(rate, limits.remembered)
        }
        Self {
            logins: buckets(limits.logins_per_address, limits),
            registrations: buckets(limits.registrations_per_address, limits),
            accounts: buckets(limits.logins_per_account, limits),
            names: RandomState::new(),
            invitations: buckets(limits.invitations_per_user, limits),
            searches: buckets(limits.searches_per_user, limits),
            rooms: buckets(limits.new_rooms_per_user, limits),
            messages: buckets(limits.messages_per_user, limits),
            openings: buckets(limits.openings_per_user, limits),
            asks: buckets(limits.asks_per_user, limits),
            asks_in_flight: limits.asks_in_flight,
            in_flight: Mutex::default(),
        }
    }

    /// Pays for a request. From an unknown address there is nobody to count.
    ///
    /// # Errors
    /// `RateLimited`, with when to come back.
    pub(crate) fn pay(&self, toll: Toll, user: Option<UserId>, address: Option<IpAddr>) -> Result<(), Error> {
        let of_user = |buckets: &Buckets<UserId>| user.map_or(Ok(()), |user| buckets.take(user));
        let from = |buckets: &Buckets<IpAddr>| address.map_or(Ok(()), |address| buckets.take(address));
        let (paid, limit, words) = match toll {
            Toll::Login => (from(&self.logins), "logins_per_address", TOO_MANY_LOGINS),
            Toll::Registration => (
                from(&self.registrations),
                "registrations_per_address",
                "too many registrations; try again later",
            ),
            Toll::Invitation => (
                of_user(&self.invitations),
                "invitations_per_user",
                "too many invitations; try again later",
            ),
            Toll::Search => (
                of_user(&self.searches),
                "searches_per_user",
                "too many searches; try again later",
            ),
            Toll::NewRoom => (
                of_user(&self.rooms),
                "new_rooms_per_user",
                "too many new rooms; try again later",
            ),
            Toll::Message => (of_user(&self.messages), "messages_per_user", "too many messages"),
            Toll::Opening => (of_user(&self.openings), "openings_per_user", "you connect too often"),
        };
        paid.map_err(|after| limited(limit, words, after))
    }

    /// Pays for one attempt at an account, known by its name however that is spelled.
    ///
    /// # Errors
    /// As [`pay`](Self::pay).
    pub(crate) fn try_account(&self, name: &str) -> Result<(), Error> {
        let tried = self.accounts.take(self.names.hash_one(name));
        tried.map_err(|after| limited("logins_per_account", TOO_MANY_LOGINS, after))
    }

    /// It was the right password: who logs in often is not who guesses.
    pub(crate) fn forgive_account(&self, name: &str) {
        self.accounts.put_back(&self.names.hash_one(name));
    }

    /// Pays for a message that asks so many bots, all or none of it. One message is one ask in flight, whomever it asks.
    ///
    /// # Errors
    /// As [`pay`](Self::pay).
    pub(crate) fn ask(self: &Arc<Self>, user: UserId, bots: usize) -> Result<Asking, Error> {
        let mut asking = self.begin(user)?;
        // Never more than can be saved up: otherwise there were messages that could not be sent at all.
        for _ in 0..bots.min(self.asks.burst()) {
            if let Err(after) = self.asks.take(user) {
                asking.forget();
                return Err(limited("asks_per_user", "too many asks; try again later", after));
            }
            asking.paid += 1;
        }
        Ok(asking)
    }

    fn begin(self: &Arc<Self>, user: UserId) -> Result<Asking, Error> {
        let mut in_flight = self.in_flight();
        let count = in_flight.entry(user).or_default();
        if *count >= self.asks_in_flight {
            // Nobody knows when an answer ends.
            let soon = Duration::from_secs(1);
            return Err(limited(
                "asks_in_flight",
                "wait until your last asks are answered",
                soon,
            ));
        }
        *count += 1;
        Ok(Asking {
            tolls: Arc::clone(self),
            user,
            paid: 0,
        })
    }

    fn in_flight(&self) -> MutexGuard<'_, BTreeMap<UserId, u32>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// Keeps the place of an ask until all its answers have ended, or gives back what it cost if it asked nobody.
    pub(crate) fn until_answered(self, turns: &[TurnHandle], tasks: &TaskTracker, closing: &CancellationToken) {
        let owed: Vec<_> = turns.iter().filter(|turn| turn.refused().is_none()).cloned().collect();
        if owed.is_empty() {
            self.forget();
            return;
        }
        let closing = closing.clone();
        tasks.spawn(async move {
            let _held = self;
            for turn in owed {
                tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    // However it ended, and also if nobody can say.
                    _ = turn.ended() => {}
                }
            }
        });
    }

    /// Puts back what was paid: it asked nobody.
    pub(crate) fn forget(self) {
        (0..self.paid).for_each(|_| self.tolls.asks.put_back(&self.user));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        one_less(&mut self.tolls.in_flight(), &self.user);
    }
}

/// What is said where this limit is reached.
fn limited(limit: &'static str, words: &'static str, after: Duration) -> Error {
    Meters::refused(limit);
    Error::new(ErrorKind::RateLimited, words).with_retry_after(after)
}
