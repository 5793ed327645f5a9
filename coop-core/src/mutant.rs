//! Safety mechanisms that a test may take away, to see that another test notices.
//!
//! Without the feature `testing` none of this exists in the program: `removed` is a constant `false`.

/// The mechanisms that can be taken away, each named by what no longer happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mutant {
    /// I5: a `client_id` used before is not looked up.
    ClientIdLookup,
    /// I5: the hash of the body is not compared.
    BodyHash,
    /// I5: a sender is answered before the commit.
    AckAfterCommit,
    /// I1: after a failed commit the room is not read again.
    ReloadInDoubt,
    /// I1: an event that does not follow is applied nevertheless.
    Gate,
    /// I1: a reader takes what is offered wherever it stands.
    OfferChecksPosition,
    /// I1: a reader that could not take an offer is not remembered as behind.
    BehindAfterRefusal,
    /// I1: a reader does not look at the head again before it sleeps.
    HeadBeforeSleep,
    /// I1, I9: what was already inside the snapshot or the store's events is not left out.
    SkipBelowCursor,
    /// I1: a reader behind the queue is not filled from the store.
    FillFromStore,
    /// I2, I3: a tape is written to after its end was taken.
    TapeCloses,
    /// I2: a delta is published twice after a late join.
    TapeWithSnapshot,
    /// I3: pending deltas are not published before the turn's end.
    DeltasBeforeEnd,
    /// I4: turns left open by a dead process are not ended.
    Recovery,
    /// I4: an end that could not be committed is not tried again.
    EndRetry,
    /// I4: an ended turn can be ended again.
    EndOnce,
    /// I4: text is not kept while a turn runs.
    Checkpoint,
    /// I4: a turn is admitted apart from its ask.
    AskWithTurn,
    /// I4: the text and the end of another engine's turn are not fenced off.
    Fence,
    /// I4: turns of engines that are alive are taken for orphans, and an engine goes on without its lease.
    Lease,
    /// I1: what other engines have committed is not looked for.
    Heads,
    /// I1: who is attached by a look at the store does not look again after others have been heard of.
    LookAgain,
    /// I2: a piece from another engine is appended wherever the tape stands.
    PieceFits,
    /// I3: an answer that ended while it was looked for is opened nevertheless.
    TapesAsOfHead,
    /// I7: who was removed at another engine goes on reading until this one has looked at the store.
    ExpelHeard,
    /// I7: a removed member's readers are marked after publishing, not before.
    GoneBeforePublish,
    /// I7: a reader does not look at `gone` again after a load.
    GoneAfterLoad,
    /// I6: a slow reader's queue is not bounded.
    BoundedQueue,
    /// I8: bots ask each other for as long as they like.
    HopLimit,
    /// Budgets: nobody is refused and no answer is cut off.
    Budget,
    /// I10: a stop does not reach a turn that waits.
    StopQueued,
    /// I10: a stop does not drop the bot's future.
    StopDropsBot,
}

#[cfg(feature = "testing")]
mod armed {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static REMOVED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this mechanism is taken away on this thread.
    #[must_use]
    pub fn removed(mutant: Mutant) -> bool {
        REMOVED.get() == Some(mutant)
    }

    /// Takes a mechanism away on this thread until the guard is dropped. Meant for single-threaded runtimes.
    #[must_use]
    pub fn remove(mutant: Mutant) -> Removed {
        Removed(REMOVED.replace(Some(mutant)))
    }

    /// Puts the mechanism back when dropped.
    #[derive(Debug)]
    pub struct Removed(Option<Mutant>);

    impl Drop for Removed {
        fn drop(&mut self) {
            REMOVED.set(self.0);
        }
    }
}

#[cfg(feature = "testing")]
pub use armed::{Removed, remove, removed};

/// Whether this mechanism is taken away: never, in a program that is not a test.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) const fn removed(_mutant: Mutant) -> bool {
    false
}
