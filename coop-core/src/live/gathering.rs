//! How long what is new for a group of readers waits for more, so that one write to each of them carries several.
//!
//! It knows neither readers nor events: only when something came, and when and for how long it was offered.

use std::time::Duration;
use tokio::time::Instant;

/// After the first wait that brought nothing so many offers are made at once, and after each further one twice as many.
const FIRST_SKIP: u32 = 8;
/// But never more: somebody may have begun to talk.
const MOST_SKIP: u32 = 64;
/// An offer to many readers takes long, and the next one waits for as long again; but no longer than so many times what it
/// would wait behind a short one.
const STRETCH: (u32, u32) = (5, 1);
/// The same for pieces of answers, whose wait is longer to begin with: 25 ms become 40.
const STRETCH_DELTAS: (u32, u32) = (8, 5);

/// What one group of readers waits for.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// When the last offer was begun; `None` before the first.
    last: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// How many times events came since.
    events: u32,
    /// When the first of them came.
    since: Option<Instant>,
    /// Whether deltas have come since.
    deltas: bool,
    /// How many offers of events are yet to be made without waiting, because waiting brought nothing: whoever says one
    /// thing and waits until everybody has it says nothing meanwhile.
    skip: u32,
    next_skip: u32,
}

impl Gathering {
    /// Events have come, of one commit.
    pub(super) fn events_came(&mut self, now: Instant) {
        self.events += 1;
        self.since.get_or_insert(now);
    }

    /// Pieces of answers have come. Returns whether they are the first since the last offer.
    pub(super) fn deltas_came(&mut self) -> bool {
        !std::mem::replace(&mut self.deltas, true)
    }

    /// Whether there are deltas to be offered.
    pub(super) fn has_deltas(&self) -> bool {
        self.deltas
    }

    /// Whether there is nothing to be offered.
    pub(super) fn is_empty(&self) -> bool {
        self.events == 0 && !self.deltas
    }

    /// When what is there should be offered: after quiet, at once.
    pub(super) fn due(&self, now: Instant, events: Duration, deltas: Duration) -> Option<Instant> {
        let wait = match (self.events, self.deltas) {
            (0, false) => return None,
            (0, true) => self.stretched(deltas, STRETCH_DELTAS),
            _ if self.skip > 0 => Duration::ZERO,
            _ => self.stretched(events, STRETCH),
        };
        Some(self.last.map_or(now, |last| last + wait))
    }

    fn stretched(&self, wait: Duration, (times, of): (u32, u32)) -> Duration {
        wait.max((self.took * 2).min(wait * times / of))
    }

    /// What is there is being offered.
    pub(super) fn offer(&mut self, now: Instant, events: Duration) {
        if self.events > 0 {
            if self.skip > 0 {
                self.skip -= 1;
            } else if let (Some(last), Some(since)) = (self.last, self.since)
                && since < last + self.stretched(events, STRETCH)
            {
                // It has been waiting.
                self.next_skip = match self.events {
                    1 => {
                        self.skip = self.next_skip.max(FIRST_SKIP);
                        (self.skip * 2).min(MOST_SKIP)
                    }
                    _ => 0,
                };
            }
        }
        self.last = Some(now);
        (self.events, self.since, self.deltas) = (0, None, false);
    }

    /// The offer that was begun last has been made to everybody.
    pub(super) fn offered(&mut self, took: Duration) {
        self.took = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: Duration = Duration::from_millis(5);
    const DELTAS: Duration = Duration::from_millis(25);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn wait(gathering: &Gathering, now: Instant) -> Option<Duration> {
        gathering
            .due(now, EVENTS, DELTAS)
            .map(|due| due.saturating_duration_since(now))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_what_follows_gathers() {
        let (mut gathering, now) = (Gathering::default(), Instant::now());
        assert_eq!(wait(&gathering, now), None);
        for round in 0..200 {
            let now = now + EVENTS * round;
            gathering.events_came(now);
            gathering.events_came(now);
            assert_eq!(wait(&gathering, now), Some(Duration::ZERO), "{round}");
            gathering.offer(now, EVENTS);
            gathering.events_came(now + ms(1));
            assert_eq!(wait(&gathering, now + ms(1)), Some(ms(4)), "{round}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_waiting_brings_nothing_nobody_waits_but_for_a_look_now_and_then() {
        let (mut gathering, mut now) = (Gathering::default(), Instant::now());
        let mut waits = Vec::new();
        for round in 0..300 {
            gathering.events_came(now);
            let waited = wait(&gathering, now).expect("something is due");
            if !waited.is_zero() {
                waits.push(round);
            }
            now += waited;
            gathering.offer(now, EVENTS);
            now += ms(1);
        }
        assert_eq!(waits, [1, 10, 27, 60, 125, 190, 255]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_talk_is_noticed() {
        let (mut gathering, mut now) = (Gathering::default(), Instant::now());
        for _ in 0..2 {
            gathering.events_came(now);
            now += wait(&gathering, now).expect("something is due");
            gathering.offer(now, EVENTS);
        }
        // One event each millisecond, whatever becomes of them.
        let mut offers = 0;
        for _ in 0..100 {
            now += ms(1);
            gathering.events_came(now);
            if wait(&gathering, now) == Some(Duration::ZERO) {
                offers += 1;
                gathering.offer(now, EVENTS);
            }
        }
        assert!((20..=30).contains(&offers), "{offers}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_offer_more_is_gathered_but_not_for_long() {
        for (took, events, deltas) in [(0, 5, 25), (2, 5, 25), (4, 8, 25), (15, 25, 30), (500, 25, 40)] {
            let (mut gathering, now) = (Gathering::default(), Instant::now());
            gathering.deltas_came();
            gathering.offer(now, EVENTS);
            gathering.offered(ms(took));
            assert!(gathering.deltas_came() && !gathering.deltas_came());
            assert_eq!(wait(&gathering, now), Some(ms(deltas)), "{took}");
            gathering.events_came(now);
            assert_eq!(wait(&gathering, now), Some(ms(events)), "{took}");
        }
    }
}
