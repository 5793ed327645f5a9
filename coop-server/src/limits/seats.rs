//! How many sockets there are, in all, of each user and from each address.
//!
//! It knows no sockets: who opens one takes a [`Seat`] before and holds it as long.

use super::Limits;
use crate::meters::Meters;
use coop_core::UserId;
use metrics::Gauge;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSeat {
    OfUser,
    FromAddress,
    InAll,
}

#[derive(Debug)]
pub(crate) struct Seats {
    of_user: u32,
    from_address: u32,
    in_all: u32,
    /// Bounded by the sockets there are: whoever has none is not in it.
    taken: Mutex<Taken>,
    /// Tells how many are taken.
    open: Gauge,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u32,
    users: BTreeMap<UserId, u32>,
    addresses: BTreeMap<IpAddr, u32>,
}

/// A place for one socket. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    user: UserId,
    address: Option<IpAddr>,
}

impl Seats {
    pub(crate) fn new(limits: &Limits, open: Gauge) -> Self {
        Self {
            of_user: limits.sockets_per_user,
            from_address: limits.sockets_per_address,
            in_all: limits.sockets.min(files(limits.spare_files)),
            taken: Mutex::default(),
            open,
        }
    }

    /// A seat for this user.
    ///
    /// # Errors
    /// Which of the limits is reached.
    pub(crate) fn take(self: &Arc<Self>, user: UserId, address: Option<IpAddr>) -> Result<Seat, NoSeat> {
        let mut taken = self.taken();
        let of_user = taken.users.get(&user).copied().unwrap_or(0);
        let from_address = address.and_then(|address| taken.addresses.get(&address).copied());
        let none = if taken.in_all >= self.in_all {
            Some((NoSeat::InAll, "sockets"))
        } else if of_user >= self.of_user {
            Some((NoSeat::OfUser, "sockets_per_user"))
        } else if from_address.is_some_and(|sockets| sockets >= self.from_address) {
            Some((NoSeat::FromAddress, "sockets_per_address"))
        } else {
            None
        };
        if let Some((reason, limit)) = none {
            Meters::refused(limit);
            return Err(reason);
        }
        self.open.increment(1);
        taken.in_all += 1;
        *taken.users.entry(user).or_default() += 1;
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        Ok(Seat {
            seats: Arc::clone(self),
            user,
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.open.decrement(1);
        let mut taken = self.seats.taken();
        taken.in_all = taken.in_all.saturating_sub(1);
        one_less(&mut taken.users, &self.user);
        if let Some(address) = &self.address {
            one_less(&mut taken.addresses, address);
        }
    }
}

/// Counts one less, and forgets whoever has none: what is counted is bounded by what there is.
pub(super) fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, whose: &K) {
    if let Some(count) = counts.get_mut(whose) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(whose);
        }
    }
}

/// How many files may be open for connections.
pub(super) fn files(spare: u32) -> u32 {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit = None;
    // At least one: a server that lets nobody in at all would only be a riddle.
    let left = |limit: u64| limit.saturating_sub(u64::from(spare)).max(1);
    limit.map_or(u32::MAX, |limit| u32::try_from(left(limit)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_come_back() {
        let limits = Limits {
            sockets_per_user: 2,
            sockets_per_address: 3,
            sockets: 4,
            ..Limits::off()
        };
        let seats = Arc::new(Seats::new(&limits, Gauge::noop()));
        let (here, there) = (Some("10.0.0.1".parse().unwrap()), Some("10.0.0.2".parse().unwrap()));
        let take = |user: i64, address| seats.take(UserId(user), address);
        let mut held = vec![take(1, here).unwrap(), take(1, there).unwrap()];
        assert_eq!(take(1, here).unwrap_err(), NoSeat::OfUser);
        held.push(take(2, here).unwrap());
        drop(held.pop());
        held.push(take(2, here).unwrap());
        held.push(take(3, here).unwrap());
        assert_eq!(take(4, None).unwrap_err(), NoSeat::InAll);
        drop(held.swap_remove(1));
        assert_eq!(take(4, here).unwrap_err(), NoSeat::FromAddress);
        held.push(take(4, None).unwrap());
        drop(held);
        let taken = seats.taken();
        assert_eq!((taken.in_all, taken.users.len(), taken.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn the_limit_on_files_counts() {
        assert!(Seats::new(&Limits::off(), Gauge::noop()).in_all <= files(256));
    }
}
