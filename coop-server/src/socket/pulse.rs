//! One task that pings all sockets whose clients say nothing, and ends those that do not answer.
//!
//! It knows no frames and no clients: a connection is told of each beat and decides by itself. A connection costs a
//! place in a map here, and no timer.

use super::connection::Connection;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// The parts in which sockets are pinged, so that they do not all answer at once.
const PARTS: usize = 16;
/// How many are told before others get their turn.
const AT_ONCE: usize = 128;

type Part = BTreeMap<u64, Weak<Connection>>;

#[derive(Default)]
pub(crate) struct Pulse {
    parts: [Mutex<Part>; PARTS],
    next: AtomicU64,
    beating: AtomicBool,
}

impl Pulse {
    /// A name that no other connection has.
    pub(super) fn name(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on this connection is told of each beat.
    pub(super) fn feel(&self, connection: &Arc<Connection>) {
        let name = connection.name();
        self.part(name).insert(name, Arc::downgrade(connection));
    }

    /// A connection that is no more.
    pub(super) fn forget(&self, name: u64) {
        self.part(name).remove(&name);
    }

    /// Whether this is the first to ask: it starts the [beating](beat).
    pub(super) fn is_still(&self) -> bool {
        !self.beating.swap(true, Ordering::AcqRel)
    }

    fn part(&self, name: u64) -> MutexGuard<'_, Part> {
        let part = &self.parts[(name % PARTS as u64) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats once in `every` for each connection, until the server closes or nobody can feel it any more.
pub(super) async fn beat(pulse: Weak<Pulse>, every: Duration, closing: CancellationToken) {
    let mut ticks = interval((every / PARTS as u32).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for part in (0..PARTS as u64).cycle() {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(connections) = pulse
            .upgrade()
            .map(|pulse| pulse.part(part).values().cloned().collect::<Vec<_>>())
        else {
            return;
        };
        for some in connections.chunks(AT_ONCE) {
            some.iter()
                .filter_map(Weak::upgrade)
                .for_each(|connection| connection.beat());
            tokio::task::yield_now().await;
        }
    }
}
