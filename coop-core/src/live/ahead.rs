//! Pieces of answers that another engine writes and that came before what they continue: a piece that was lost, or the
//! answer's beginning. Bounded; what does not fit comes with the answer's next checkpoint.

use crate::id::MessageId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most that one room keeps.
const PIECES: usize = 256;
const BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    pieces: BTreeMap<(MessageId, u64), Arc<str>>,
    bytes: usize,
}

impl Ahead {
    /// Keeps a piece. Returns whether it is the first of its answer.
    pub(super) fn keep(&mut self, message: MessageId, offset: u64, text: Arc<str>) -> bool {
        let first = !self.has(message);
        if self.pieces.len() < PIECES && self.bytes + text.len() <= BYTES {
            self.bytes += text.len();
            if let Some(same) = self.pieces.insert((message, offset), text) {
                self.bytes -= same.len();
            }
        }
        first
    }

    /// Whether there is any of an answer.
    pub(super) fn has(&self, message: MessageId) -> bool {
        self.pieces.range(Self::of(message)).next().is_some()
    }

    /// Takes the first piece of an answer if it begins at or before `length`.
    pub(super) fn take(&mut self, message: MessageId, length: u64) -> Option<(u64, Arc<str>)> {
        let first = self.pieces.range(Self::of(message)).next();
        let key = first.map(|(key, _)| *key).filter(|(_, offset)| *offset <= length)?;
        let text = self.pieces.remove(&key)?;
        self.bytes -= text.len();
        Some((key.1, text))
    }

    /// Forgets an answer that has ended.
    pub(super) fn forget(&mut self, message: MessageId) {
        while self.take(message, u64::MAX).is_some() {}
    }

    fn of(message: MessageId) -> std::ops::RangeInclusive<(MessageId, u64)> {
        (message, 0)..=(message, u64::MAX)
    }
}
