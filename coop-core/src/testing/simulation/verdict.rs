//! Holds the world against the invariants when everything is over.

use super::Shown;
use super::world::{Ledger, World};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId};
use crate::model::{Message, Snapshot, TurnEnd, TurnStatus};
use crate::store::RoomStore;
use futures::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The disk answers at once: it is memory.
macro_rules! disk {
    ($world:ident.$($call:tt)*) => {
        match $world.disk.reopen().$($call)*.now_or_never() {
            Some(Ok(answer)) => answer,
            other => return Err(format!("the disk cannot be read: {other:?}")),
        }
    };
}

fn open_turns(world: &World) -> Result<Vec<crate::TurnInfo>, String> {
    match RoomStore::open_turns(&world.disk.reopen(), None).now_or_never() {
        Some(Ok(open)) => Ok(open),
        other => Err(format!("the disk cannot be read: {other:?}")),
    }
}

pub(super) fn of(world: &World) -> Result<(), String> {
    world.broken()?;
    let ledger = world.ledger();
    let open = open_turns(world)?;
    if !open.is_empty() {
        return Err(format!("I4: turns that never ended: {open:?}"));
    }
    for &room in ledger.rooms.iter().filter(|room| !ledger.doomed.contains(room)) {
        let events = disk!(world.events(room, Seq(0), 100_000));
        let log = Log::read(&events)?;
        log.says_everything_once()?;
        acknowledged(world, &ledger, room)?;
        answers(world, &ledger, room, &log)?;
        let Some(fresh) = disk!(world.snapshot(room, 1_000)) else {
            return Err(format!("room {room} is gone"));
        };
        for shown in ledger.finally.iter().filter(|shown| shown.room() == room) {
            same(shown, &fresh)?;
        }
    }
    Ok(())
}

/// A room's whole log, sorted.
#[derive(Default)]
struct Log {
    posted: BTreeMap<MessageId, Arc<Message>>,
    queued: BTreeSet<TurnId>,
    started: BTreeSet<TurnId>,
    ended: BTreeMap<TurnId, (Option<MessageId>, Arc<str>, TurnEnd)>,
}

impl Log {
    fn read(events: &[Arc<Event>]) -> Result<Self, String> {
        let mut log = Self::default();
        for (index, event) in events.iter().enumerate() {
            if event.seq() != Some(Seq(index as i64 + 1)) {
                return Err(format!("I1: the log's event {} is {event:?}", index + 1));
            }
            match &**event {
                Event::MessagePosted { message, .. } => {
                    log.posted.insert(message.id, Arc::clone(message));
                }
                Event::TurnQueued { turn, .. } => {
                    log.queued.insert(*turn);
                }
                Event::TurnStarted { turn, .. } if !log.started.insert(*turn) => {
                    return Err(format!("I4: turn {turn} started twice"));
                }
                Event::TurnEnded {
                    turn,
                    message,
                    text,
                    end,
                    ..
                } => {
                    let entry = (*message, Arc::clone(text), TurnEnd::clone(end));
                    if log.ended.insert(*turn, entry).is_some() {
                        return Err(format!("I4: turn {turn} ended twice"));
                    }
                }
                _ => {}
            }
        }
        Ok(log)
    }

    fn says_everything_once(&self) -> Result<(), String> {
        if let Some(turn) = self
            .queued
            .union(&self.started)
            .find(|turn| !self.ended.contains_key(turn))
        {
            return Err(format!("I4: turn {turn} has no end in the log"));
        }
        let mut said = BTreeSet::new();
        for message in self.posted.values() {
            let key = (message.author.user, message.client_id.clone());
            if message.client_id.is_some() && !said.insert(key) {
                return Err(format!(
                    "I5: {:?} of {} was said twice",
                    message.client_id, message.author
                ));
            }
        }
        Ok(())
    }
}

/// What was acknowledged is there, and so are the turns it asked for.
fn acknowledged(world: &World, ledger: &Ledger, room: RoomId) -> Result<(), String> {
    for (key, attempt) in ledger.sent.iter().filter(|(key, _)| key.0 == room) {
        let Some(id) = attempt.message else { continue };
        let Some(message) = disk!(world.message(room, id)) else {
            return Err(format!("I5: {key:?} was acknowledged as {id} and is not there"));
        };
        if message.author.user != Some(key.1) || message.client_id.as_deref() != Some(&key.2) {
            return Err(format!("I5: {key:?} was acknowledged as {id}, which is {message:?}"));
        }
        if !attempt.touched && !ledger.deleted.contains(&id) && message.text != attempt.text {
            return Err(format!("I5: {key:?} said {:?} and is {:?}", attempt.text, message.text));
        }
        let asks = ["/bot ", "/ben "].iter().any(|word| attempt.text.starts_with(word))
            || ["@ann", "@ben"].iter().any(|name| attempt.text.contains(name));
        if asks && attempt.turns == 0 {
            return Err(format!("I4: {key:?} asked and no turn came of it"));
        }
    }
    Ok(())
}

/// Every answer is what its bot wrote, up to where it ended.
fn answers(world: &World, ledger: &Ledger, room: RoomId, log: &Log) -> Result<(), String> {
    for (turn, (message, text, end)) in &log.ended {
        let Some(id) = message else { continue };
        if ledger.deleted.contains(id) {
            continue;
        }
        let Some(message) = disk!(world.message(room, *id)) else {
            return Err(format!("I3: the answer {id} is not there"));
        };
        if message.text != **text || message.status != end.status.of_message() {
            return Err(format!(
                "I3: turn {turn} ended as {text:?} and its message is {message:?}"
            ));
        }
        let nothing = Default::default();
        let wrote = ledger.wrote.get(turn).unwrap_or(&nothing);
        if !wrote.text.starts_with(&**text) {
            return Err(format!(
                "I2: turn {turn} ended as {text:?}; its bot wrote {:?}",
                wrote.text
            ));
        }
        if end.status == TurnStatus::Interrupted && !world.weather.faults && text.len() < wrote.owed.min(160) {
            return Err(format!(
                "I4: turn {turn} had {} bytes a second before the crash and kept {text:?}",
                wrote.owed
            ));
        }
        if end.status == TurnStatus::Interrupted && wrote.in_fair_weather {
            return Err(format!("I4: turn {turn} was interrupted though its server is well"));
        }
        if end.status == TurnStatus::Done
            && end
                .finish
                .as_ref()
                .is_some_and(|f| f.reason == crate::FinishReason::Stop)
        {
            let taken = wrote.taken.last().map_or(0, |(_, taken)| *taken);
            if text.len() < taken.min(160) && !left_behind(wrote, text.len()) {
                return Err(format!("I3: turn {turn} is done with {text:?} of {:?}", wrote.text));
            }
        }
    }
    Ok(())
}

/// A bot that left a writer behind loses what that wrote after the end; only then may an answer that is done be less
/// than what was taken.
fn left_behind(wrote: &super::world::Wrote, length: usize) -> bool {
    wrote.taken.iter().any(|(_, taken)| *taken == length) || length == 0
}

/// I9: what a reader shows is what a fresh reader would be shown.
fn same(shown: &Shown, fresh: &Snapshot) -> Result<(), String> {
    if shown.position.seq != fresh.seq {
        return Err(format!(
            "I1: a reader stands at {} where the log ends at {}",
            shown.position.seq, fresh.seq
        ));
    }
    let members: BTreeSet<_> = fresh.members.iter().map(|member| member.user).collect();
    if shown.members != members || shown.info != fresh.info {
        return Err(format!(
            "I9: {:?} {:?} are shown; fresh are {members:?} {:?}",
            shown.members, shown.info, fresh.info
        ));
    }
    let open: BTreeMap<_, _> = fresh.turns.iter().map(|turn| (turn.id, turn.status)).collect();
    if shown.open != open {
        return Err(format!("I9: turns {:?} are shown, fresh are {open:?}", shown.open));
    }
    let mut mine: Vec<&Message> = shown
        .messages
        .values()
        .filter(|message| message.deleted_at.is_none())
        .collect();
    mine.sort_by_key(|message| message.seq);
    let theirs: Vec<&Message> = fresh
        .messages
        .iter()
        .map(|message| &**message)
        .filter(|message| message.seq >= shown.since)
        .collect();
    if mine != theirs {
        let odd = mine.iter().zip(&theirs).find(|(mine, theirs)| mine != theirs);
        return Err(format!(
            "I9/I3: {} messages are shown, fresh are {}; {odd:?}",
            mine.len(),
            theirs.len()
        ));
    }
    Ok(())
}
