//! What the engines on one world know of each other: who is alive, whose turns are whose, what has changed. It follows
//! commits and decides nothing about them.

use crate::id::{RoomId, Seq, TurnId, UserId};
use crate::model::{TurnEnd, TurnInfo, TurnStatus};
use crate::mutant::{Mutant, removed};
use crate::store::plan::{EventKind, EventRow, Plan, RoomChange, TurnRow};
use crate::store::{Changes, LEASE, Left, Look, OpenTurn, Whose};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// One of the engines.
pub(super) type EngineId = u32;

/// Empty, and not kept, until a second handle [joins](crate::store::memory::MemoryStore::join).
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Until when each engine is taken to be alive.
    leases: BTreeMap<EngineId, Instant>,
    newest: EngineId,
    /// Whose each turn is, and the end that was asked for.
    turns: BTreeMap<TurnId, (EngineId, Option<TurnEnd>)>,
    /// Everything that has changed, in order; a [`Look`] is a place in it.
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Room(RoomId, Seq),
    Joined(RoomId, UserId),
    Left(Left),
    Gone(RoomId),
    TokensEnded(UserId),
}

impl Shared {
    pub(super) fn enlist(&mut self) -> EngineId {
        self.newest += 1;
        self.renew(self.newest);
        self.newest
    }

    pub(super) fn renew(&mut self, engine: EngineId) {
        self.leases.insert(engine, Instant::now() + LEASE);
    }

    pub(super) fn leave(&mut self, engine: EngineId) {
        self.leases.remove(&engine);
    }

    fn is_used(&self) -> bool {
        self.newest > 0
    }

    fn whose(&self, turn: TurnId, engine: Option<EngineId>) -> Whose {
        let alive = |owner: &EngineId| self.leases.get(owner).is_some_and(|until| *until > Instant::now());
        match self.turns.get(&turn) {
            Some((owner, _)) if Some(*owner) == engine => Whose::Mine,
            Some((owner, _)) if alive(owner) && !removed(Mutant::Lease) => Whose::Anothers,
            _ => Whose::Nobodys,
        }
    }

    pub(super) fn elsewhere(&self, engine: Option<EngineId>, turns: &[TurnRow]) -> BTreeSet<TurnId> {
        let ids = turns.iter().map(|turn| turn.info.id);
        ids.filter(|turn| self.whose(*turn, engine) == Whose::Anothers)
            .collect()
    }

    pub(super) fn is_mine(&self, turn: TurnId, engine: Option<EngineId>) -> bool {
        self.whose(turn, engine) == Whose::Mine
    }

    pub(super) fn open_turn(&self, info: TurnInfo, engine: Option<EngineId>) -> OpenTurn {
        OpenTurn {
            whose: self.whose(info.id, engine),
            stop: self.turns.get(&info.id).and_then(|(_, stop)| stop.clone()),
            info,
        }
    }

    /// What a commit changes.
    pub(super) fn follow(&mut self, room: RoomId, plan: &Plan, engine: Option<EngineId>) {
        if !self.is_used() {
            return;
        }
        for row in &plan.turns {
            let started = row.info.status == TurnStatus::Streaming;
            if let Some(engine) = engine.filter(|_| started || !self.turns.contains_key(&row.info.id)) {
                let whose = self.turns.entry(row.info.id).or_insert((engine, None));
                if whose.0 != engine {
                    *whose = (engine, None);
                }
            }
        }
        for (turn, end) in &plan.stops {
            if let Some((_, stop)) = self.turns.get_mut(turn) {
                stop.get_or_insert_with(|| end.clone());
            }
        }
        match &plan.room {
            RoomChange::Delete => self.changes.push(Change::Gone(room)),
            RoomChange::Write(row) => self.note(room, row.seq, &plan.events),
            RoomChange::Keep => {}
        }
    }

    /// New events of a room.
    pub(super) fn note(&mut self, room: RoomId, seq: Seq, events: &[EventRow]) {
        if !self.is_used() || events.is_empty() {
            return;
        }
        self.changes.push(Change::Room(room, seq));
        self.changes.extend(events.iter().filter_map(|row| match row.kind {
            EventKind::MemberJoined => Some(Change::Joined(room, row.user?)),
            EventKind::MemberLeft => Some(Change::Left(Left {
                room,
                user: row.user?,
                seq: row.seq,
                by: row.by?,
            })),
            _ => None,
        }));
    }

    pub(super) fn tokens_ended(&mut self, user: UserId) {
        if self.is_used() {
            self.changes.push(Change::TokensEnded(user));
        }
    }

    pub(super) fn now(&self) -> Look {
        Look(i64::try_from(self.changes.len()).unwrap_or(i64::MAX))
    }

    pub(super) fn changes(&self, since: Look) -> Changes {
        let mut found = Changes {
            next: self.now(),
            ..Changes::default()
        };
        let mut rooms = BTreeMap::new();
        for change in self.changes.iter().skip(usize::try_from(since.0).unwrap_or_default()) {
            match *change {
                Change::Room(room, seq) => drop(rooms.insert(room, seq)),
                Change::Joined(room, user) => found.joined.push((room, user)),
                Change::Left(left) => found.left.push(left),
                Change::Gone(room) => found.gone.push(room),
                Change::TokensEnded(user) => found.tokens_ended.push(user),
            }
        }
        found.rooms = rooms.into_iter().collect();
        found
    }
}
