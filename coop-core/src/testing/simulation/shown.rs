//! What a client shows of a room, built from nothing but the events it gets. It checks, event by event, what a client
//! may rely on.

use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Message, MessageStatus, Position, RoomInfo, TurnStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A reader's picture of one room.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Where it stands.
    pub position: Position,
    /// The room's name and owner.
    pub info: RoomInfo,
    /// Who is in it.
    pub members: BTreeSet<UserId>,
    /// Messages by id. The order of ids is not the order of the room: that is their seq.
    pub messages: BTreeMap<MessageId, Message>,
    /// Which turn an answer belongs to, of those whose start was seen.
    pub turns: BTreeMap<MessageId, TurnId>,
    /// Turns that have not ended, and whether they have begun.
    pub open: BTreeMap<TurnId, TurnStatus>,
    /// Turns whose end was seen.
    pub ended: BTreeSet<TurnId>,
    /// Nothing below this is known.
    pub since: Seq,
    /// It comes from another engine, which may have known more of an answer than this one does yet.
    pub moved: bool,
}

impl Shown {
    /// The picture that an event begins, if it is one to begin with.
    #[must_use]
    pub fn begin(event: &Event) -> Option<Self> {
        let Event::Snapshot(snapshot) = event else { return None };
        let mut messages: BTreeMap<MessageId, Message> = snapshot
            .messages
            .iter()
            .map(|message| (message.id, Message::clone(message)))
            .collect();
        let mut position = Position {
            epoch: snapshot.epoch,
            seq: snapshot.seq,
            tapes: BTreeMap::new(),
        };
        for tape in &snapshot.tapes {
            if let Some(message) = messages.get_mut(&tape.message) {
                message.text = tape.text.to_string();
                position.tapes.insert(tape.message, tape.end);
            }
        }
        Some(Self {
            position,
            info: snapshot.info.clone(),
            members: snapshot.members.iter().map(|member| member.user).collect(),
            since: messages.values().map(|message| message.seq).min().unwrap_or_default(),
            messages,
            open: snapshot.turns.iter().map(|turn| (turn.id, turn.status)).collect(),
            turns: BTreeMap::new(),
            ended: BTreeSet::new(),
            moved: false,
        })
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> RoomId {
        self.info.id
    }

    /// Applies an event as a client does.
    ///
    /// # Errors
    /// What a client may not be sent here: an event that does not follow (I1), a piece that does not fit or does not
    /// continue what is shown (I2), an end that contradicts what was streamed (I3), a second end (I4).
    pub fn apply(&mut self, event: &Event) -> Result<(), String> {
        if let Some(fresh) = Self::begin(event) {
            if fresh.position.seq < self.position.seq {
                return Err(format!(
                    "I1: a snapshot of {} after {}",
                    fresh.position.seq, self.position.seq
                ));
            }
            *self = Self {
                moved: self.moved,
                ..fresh
            };
            return Ok(());
        }
        if let Some(seq) = event.seq() {
            if seq != self.position.seq.next() {
                return Err(format!("I1: event {seq} after {}: {event:?}", self.position.seq));
            }
            self.position.seq = seq;
        }
        match event {
            Event::MessagePosted { message, .. } => self.put(message),
            // One from before the snapshot is not shown, changed or not.
            Event::MessageEdited { message, .. } if self.messages.contains_key(&message.id) => self.put(message),
            Event::MessageDeleted { message, .. } => {
                self.messages.remove(message);
                self.position.tapes.remove(message);
            }
            Event::MemberJoined { user, .. } => {
                self.members.insert(*user);
            }
            Event::MemberLeft { user, .. } => {
                self.members.remove(user);
            }
            Event::RoomUpdated { info, .. } => self.info = info.clone(),
            Event::TurnQueued { turn, .. } => {
                self.open.insert(*turn, TurnStatus::Queued);
            }
            Event::TurnStarted { message, turn, .. } => {
                self.open.insert(*turn, TurnStatus::Streaming);
                self.put(message);
                self.turns.insert(message.id, *turn);
                self.position.tapes.insert(message.id, message.text.len() as u64);
            }
            Event::TurnEnded {
                turn,
                message,
                text,
                end,
                ..
            } => {
                self.open.remove(turn);
                if !self.ended.insert(*turn) {
                    return Err(format!("I4: turn {turn} ended twice"));
                }
                if let Some(id) = message {
                    self.end(*id, text, end)?;
                }
            }
            Event::Delta {
                message,
                offset,
                end,
                text,
                ..
            } => self.grow(*message, *offset, *end, text)?,
            Event::Tape { message, text, end, .. } => self.replace(*message, *end, text)?,
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, message: &Arc<Message>) {
        // A message that was deleted later arrives without its content, and is followed by its deletion.
        self.messages.insert(message.id, Message::clone(message));
    }

    fn open(&mut self, id: MessageId) -> Option<&mut Message> {
        self.messages
            .get_mut(&id)
            .filter(|message| message.status == MessageStatus::Streaming)
    }

    fn grow(&mut self, id: MessageId, offset: u64, end: u64, text: &str) -> Result<(), String> {
        let Some(message) = self.open(id) else { return Ok(()) };
        let held = message.text.len() as u64;
        if offset == held {
            message.text.push_str(text);
            if message.text.len() as u64 != end {
                return Err(format!(
                    "I2: a delta of {id} that ends at {end} brings it to {}",
                    message.text.len()
                ));
            }
            self.position.tapes.insert(id, end);
        } else if end > held {
            return Err(format!(
                "I2: a delta of {id} from {offset} to {end} where {held} bytes are held"
            ));
        }
        Ok(())
    }

    fn replace(&mut self, id: MessageId, end: u64, text: &str) -> Result<(), String> {
        let moved = self.moved;
        let Some(message) = self.open(id) else { return Ok(()) };
        let fits = text.starts_with(&message.text) || moved && message.text.starts_with(text);
        if !fits || text.len() as u64 != end {
            return Err(format!("I2: {id} showed {:?} and is now {text:?}", message.text));
        }
        message.text = text.to_owned();
        self.position.tapes.insert(id, end);
        Ok(())
    }

    fn end(&mut self, id: MessageId, text: &str, end: &crate::TurnEnd) -> Result<(), String> {
        self.position.tapes.remove(&id);
        let Some(message) = self.messages.get_mut(&id) else {
            return Ok(());
        };
        // A crash may cost a second of text; an answer that was deleted later ends without any.
        let lost = end.status == crate::TurnStatus::Interrupted || text.is_empty();
        if !lost && !text.starts_with(&message.text) && message.status == MessageStatus::Streaming {
            return Err(format!("I3: {id} showed {:?} and ended as {text:?}", message.text));
        }
        message.text = text.to_owned();
        message.status = end.status.of_message();
        message.error = end.error.as_ref().map(|error| error.words.clone());
        Ok(())
    }
}
