//! Token buckets: one is a moment, many are a map that forgets who has not been seen for the longest.
//!
//! It knows no wall clock and nobody by name.

use super::figure::Rate;
use hashlink::LruCache;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One allowance. A full one is the default.
///
/// What is kept is when it will be full again: every taking moves that moment by what it costs to earn one, and there
/// is nothing to take when the moment is more than the whole burst away.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// With nothing left: how long until there is one. Nothing is taken then, so that who keeps asking is not kept out
    /// for longer.
    pub(crate) fn take(&mut self, rate: &Rate) -> Result<(), Duration> {
        if rate.every.is_zero() {
            return Ok(());
        }
        let now = Instant::now();
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let slack = rate.every.saturating_mul(rate.burst.get() - 1);
        let missing = (full_at - now).saturating_sub(slack);
        if !missing.is_zero() {
            return Err(missing);
        }
        self.full_at = Some(full_at + rate.every);
        Ok(())
    }

    /// Puts one back.
    fn put_back(&mut self, rate: &Rate) {
        self.full_at = self.full_at.and_then(|full_at| full_at.checked_sub(rate.every));
    }
}

/// An allowance for each of many.
pub(crate) struct Buckets<K> {
    rate: Rate,
    /// Bounded: the one used the longest ago is forgotten first, and that is most likely full.
    buckets: Mutex<LruCache<K, Bucket>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, remembered: u32) -> Self {
        Self {
            rate,
            buckets: Mutex::new(LruCache::new(remembered.max(1) as usize)),
        }
    }

    /// How many can be saved up.
    pub(super) fn burst(&self) -> usize {
        self.rate.burst.get() as usize
    }

    /// As [`Bucket::take`].
    pub(super) fn take(&self, whose: K) -> Result<(), Duration> {
        if self.rate.every.is_zero() {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&whose) {
            return bucket.take(&self.rate);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(&self.rate);
        buckets.insert(whose, bucket);
        taken
    }

    /// Puts back what was taken for something that then did not count.
    pub(super) fn put_back(&self, whose: &K) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(whose) {
            bucket.put_back(&self.rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_at_a_time() {
        let rate = Rate::new(2, SECOND, 3);
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(&rate), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(bucket.take(&rate), Err(SECOND / 2));
        }
        advance(SECOND / 4).await;
        assert_eq!(bucket.take(&rate), Err(SECOND / 4));
        advance(SECOND / 4).await;
        assert_eq!(bucket.take(&rate), Ok(()));
        assert_eq!(bucket.take(&rate), Err(SECOND / 2));
        bucket.put_back(&rate);
        assert_eq!(bucket.take(&rate), Ok(()));
        // However long the pause, no more than the burst is saved up.
        advance(1_000 * SECOND).await;
        assert_eq!((0..10).filter(|_| bucket.take(&rate).is_ok()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn putting_back_fills_no_more_than_it_holds() {
        let rate = Rate::new(1, SECOND, 2);
        let mut bucket = Bucket::default();
        (0..5).for_each(|_| bucket.put_back(&rate));
        assert_eq!((0..10).filter(|_| bucket.take(&rate).is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..1_000).all(|_| bucket.take(&Rate::OFF).is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_and_those_not_seen_for_long_are_forgotten() {
        let buckets = Buckets::new(Rate::new(1, SECOND, 1), 3);
        for whose in 0..3 {
            assert_eq!(buckets.take(whose), Ok(()));
        }
        assert_eq!(buckets.take(0), Err(SECOND));
        for whose in 3..1_000 {
            assert_eq!(buckets.take(whose), Ok(()));
            assert_eq!(buckets.take(0), Err(SECOND), "it is seen all the time");
        }
        assert_eq!(buckets.buckets.lock().unwrap().len(), 3);
        assert_eq!(buckets.take(1), Ok(()));
    }
}
