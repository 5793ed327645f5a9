//! How many connections there are, in all and from each address, whatever is spoken on them: who only holds one open takes a
//! file that the database may need.
//!
//! It accepts none: who does waits for a place before, and holds a [`Visit`] as long as there is a connection.

use super::Limits;
use super::address::{Proxies, counted};
use super::seats::{files, one_less};
use crate::meters::Meters;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(crate) struct Doors {
    from_address: u32,
    places: Arc<Semaphore>,
    /// Bounded by the connections there are.
    inside: Mutex<BTreeMap<IpAddr, u32>>,
}

/// A connection. Dropping it makes way for another.
#[derive(Debug)]
pub(crate) struct Visit {
    doors: Arc<Doors>,
    address: Option<IpAddr>,
    _place: OwnedSemaphorePermit,
}

impl Doors {
    pub(crate) fn new(limits: &Limits) -> Self {
        let in_all = limits.connections.min(files(limits.spare_files));
        let in_all = usize::try_from(in_all).unwrap_or(usize::MAX);
        Self {
            from_address: limits.connections_per_address,
            places: Arc::new(Semaphore::new(in_all.min(Semaphore::MAX_PERMITS))),
            inside: Mutex::default(),
        }
    }

    /// A place for the next connection, which waits before the door meanwhile. `None` only if there never will be one.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Lets a connection in, unless there are enough from its address. A trusted proxy speaks for many.
    pub(crate) fn enter(
        self: &Arc<Self>,
        place: OwnedSemaphorePermit,
        peer: IpAddr,
        proxies: &Proxies,
    ) -> Option<Visit> {
        let address = (!proxies.trust(peer)).then(|| counted(peer));
        if let Some(address) = address {
            let mut inside = self.inside();
            let connections = inside.get(&address).copied().unwrap_or(0);
            if connections >= self.from_address {
                Meters::refused("connections_per_address");
                return None;
            }
            inside.insert(address, connections + 1);
        }
        Some(Visit {
            doors: Arc::clone(self),
            address,
            _place: place,
        })
    }

    fn inside(&self) -> MutexGuard<'_, BTreeMap<IpAddr, u32>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            one_less(&mut self.doors.inside(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_is_counted_and_makes_way() {
        let limits = Limits {
            connections: 4,
            connections_per_address: 2,
            ..Limits::off()
        };
        let doors = Arc::new(Doors::new(&limits));
        let proxies = Proxies::new(vec!["10.0.0.9".to_owned()]).unwrap();
        let enter = async |address: &str| {
            let place = doors.place().await.unwrap();
            doors.enter(place, address.parse().unwrap(), &proxies)
        };
        let first = enter("10.0.0.1").await.unwrap();
        let _second = enter("10.0.0.1").await.unwrap();
        assert!(enter("10.0.0.1").await.is_none());
        assert!(enter("::ffff:10.0.0.1").await.is_none(), "the same address");
        drop(first);
        let _again = enter("10.0.0.1").await.unwrap();
        let proxied = enter("10.0.0.9").await.unwrap();
        let _proxied = enter("10.0.0.9").await.unwrap();
        assert_eq!(doors.places.available_permits(), 0, "the next waits");
        drop(proxied);
        assert_eq!(doors.inside().len(), 1, "a proxy is not counted");
        let _other = enter("10.0.0.2").await.unwrap();
    }
}
