//! The growing text of one answer: append-only, addressed by byte offset. It knows nothing of rooms and readers.

use crate::event::Event;
use crate::id::RoomId;
use crate::model::Message;
use crate::mutant::{Mutant, removed};
use crate::sync::lock;
use std::sync::{Arc, Mutex};

/// The text of an answer that is being written.
#[derive(Debug)]
pub struct Tape {
    /// The answer's message, as it was when its turn started.
    pub message: Arc<Message>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    text: String,
    /// How many bytes deltas have been made of.
    published: usize,
    /// Set when the turn's end was decided: what is inside then is the answer.
    closed: bool,
}

/// What became of a piece that another engine has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The tape has grown.
    Grown,
    /// There was nothing new in it, or the tape takes no more.
    Known,
    /// It comes after something that is not here.
    Ahead,
}

/// Why a tape took less than it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The turn is over.
    Closed,
    /// The size limit is reached; what fitted was taken.
    Full,
}

impl Tape {
    /// The tape of an answer that has just begun, or that another engine writes: its text so far is known to whoever
    /// knows the message.
    pub(crate) fn new(message: Arc<Message>) -> Arc<Self> {
        let state = State {
            text: message.text.clone(),
            published: message.text.len(),
            closed: false,
        };
        Arc::new(Self {
            message,
            state: Mutex::new(state),
        })
    }

    /// Appends, up to `limit` bytes in all, cut at a character.
    pub(crate) fn append(&self, text: &str, limit: usize) -> Result<(), Refused> {
        let mut state = lock(&self.state);
        if state.closed && !removed(Mutant::TapeCloses) {
            return Err(Refused::Closed);
        }
        let room = limit.saturating_sub(state.text.len());
        if text.len() <= room {
            state.text.push_str(text);
            return Ok(());
        }
        let cut = text.floor_char_boundary(room);
        state.text.push_str(&text[..cut]);
        Err(Refused::Full)
    }

    /// Takes over what was written elsewhere, if that is more than what is here. Returns whether it was.
    pub(crate) fn extend(&self, text: &str) -> bool {
        let mut state = lock(&self.state);
        let more = text.strip_prefix(state.text.as_str()).filter(|_| !state.closed);
        let Some(more) = more.filter(|more| !more.is_empty()) else {
            return false;
        };
        state.text.push_str(more);
        true
    }

    /// Takes a piece that was written elsewhere, if it continues what is here.
    pub(super) fn hear(&self, offset: u64, text: &str) -> Heard {
        let mut state = lock(&self.state);
        if state.closed {
            return Heard::Known;
        }
        let here = state.text.len();
        let Ok(offset) = usize::try_from(offset) else {
            return Heard::Ahead;
        };
        let Some(known) = here.checked_sub(offset) else {
            if removed(Mutant::PieceFits) {
                state.text.push_str(text);
                return Heard::Grown;
            }
            return Heard::Ahead;
        };
        let more = match text.split_at_checked(known) {
            // What is here already must be the same: it is one bot's one answer.
            Some((same, more)) if !more.is_empty() && state.text.ends_with(same) => more,
            _ => return Heard::Known,
        };
        state.text.push_str(more);
        Heard::Grown
    }

    /// Ends the writing and gives all that was written.
    pub(crate) fn close(&self) -> Arc<str> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.text.as_str().into()
    }

    /// Takes the words away and keeps the length, so that what is still to be read of it fits and says nothing.
    pub(crate) fn scrub(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.text = " ".repeat(state.text.len());
    }

    /// All that was written so far.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        lock(&self.state).text.as_str().into()
    }

    /// Gives the first `end` bytes to `look`, without copying them. `end` is the end of one of this tape's deltas.
    pub fn with_prefix<T>(&self, end: u64, look: impl FnOnce(&str) -> T) -> T {
        let state = lock(&self.state);
        let end = state
            .text
            .floor_char_boundary(usize::try_from(end).unwrap_or(usize::MAX));
        look(&state.text[..end])
    }

    /// What was written after the first `start` bytes, which end at a character.
    pub(crate) fn after(&self, start: usize) -> Option<Arc<str>> {
        lock(&self.state).text.get(start..).map(Arc::from)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).text.len()
    }

    pub(crate) fn published(&self) -> u64 {
        lock(&self.state).published as u64
    }

    /// A delta of what has been written since the last one.
    pub(crate) fn publish(&self, room: RoomId) -> Option<Event> {
        let mut state = lock(&self.state);
        let (offset, end) = (state.published, state.text.len());
        if offset == end {
            return None;
        }
        state.published = end;
        let text = Arc::from(&state.text[offset..end]);
        Some(Event::Delta {
            room,
            message: self.message.id,
            offset: offset as u64,
            end: end as u64,
            text,
        })
    }

    /// What brings a reader that holds `held` bytes (`None`: it holds nothing certain) to `end` bytes.
    pub(crate) fn missing(&self, room: RoomId, held: Option<u64>, end: u64) -> Option<Event> {
        let state = lock(&self.state);
        let message = self.message.id;
        let upto = state.text.floor_char_boundary(end as usize);
        let fits = |held: u64| {
            let held = usize::try_from(held).ok()?;
            (held <= upto && state.text.is_char_boundary(held)).then_some(held)
        };
        match held.and_then(fits) {
            Some(held) if held == upto => None,
            Some(held) => {
                let text = Arc::from(&state.text[held..upto]);
                Some(Event::Delta {
                    room,
                    message,
                    offset: held as u64,
                    end: upto as u64,
                    text,
                })
            }
            None => Some(Event::Tape {
                room,
                message,
                end: upto as u64,
                text: Arc::from(&state.text[..upto]),
            }),
        }
    }
}
