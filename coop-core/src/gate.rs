//! One room's log is applied in the order of its seq, whoever hands the events over. Pure.

use crate::id::Seq;
use crate::mutant::{Mutant, removed};

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It follows: apply it.
    Apply,
    /// It has been applied.
    Drop,
    /// Those after this position come first: read them from the store. Never skip them.
    Missing {
        /// The newest that has been applied.
        after: Seq,
    },
}

/// Judges the event at `seq` where the newest applied one is `head`.
pub(crate) fn judge(head: Seq, seq: Seq) -> Verdict {
    if removed(Mutant::Gate) || seq == head.next() {
        Verdict::Apply
    } else if seq <= head {
        Verdict::Drop
    } else {
        Verdict::Missing { after: head }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_is_applied() {
        assert_eq!(judge(Seq(4), Seq(5)), Verdict::Apply);
        assert_eq!(judge(Seq(4), Seq(4)), Verdict::Drop);
        assert_eq!(judge(Seq(4), Seq(1)), Verdict::Drop);
        assert_eq!(judge(Seq(4), Seq(6)), Verdict::Missing { after: Seq(4) });
    }
}
