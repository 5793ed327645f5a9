//! Rooms and memberships as they are in the file, kept from one commit to the next. The file has one writer, so what it
//! wrote last is what is there, and a commit that needs nothing else is decided without asking: one trip to sqlx's
//! thread instead of two.
//!
//! It knows no messages and no turns: a commit that needs those asks the file.

use crate::id::{RoomId, UserId};
use crate::store::plan::{Facts, MemberRow, Needs, Plan, RoomChange, RoomRow};
use std::collections::BTreeMap;

/// The most rows that are kept. With one more all are forgotten, and those that are used come back.
const MAX_ROWS: usize = 16_384;

/// What is kept.
#[derive(Default)]
pub(super) struct Kept {
    rooms: BTreeMap<RoomId, KeptRoom>,
    /// How many there are, rooms and members. Those that were let go still count.
    rows: usize,
}

struct KeptRoom {
    row: RoomRow,
    /// Those that were asked for since the room is kept, and are members.
    members: BTreeMap<UserId, MemberRow>,
}

/// What a commit changes of what is kept.
pub(super) struct Changed {
    room: RoomChange,
    /// Whether some members have more messages that do not count as unread.
    discounts: bool,
    members: Vec<MemberRow>,
    removed: Vec<UserId>,
}

impl Changed {
    /// Takes its part out of a plan whose rows have been written down.
    pub(super) fn of(plan: &mut Plan) -> Self {
        Self {
            room: std::mem::replace(&mut plan.room, RoomChange::Keep),
            discounts: !plan.discounts.is_empty(),
            members: std::mem::take(&mut plan.members),
            removed: std::mem::take(&mut plan.removed),
        }
    }
}

impl Kept {
    /// What a batch needs, if all of it is kept.
    pub(super) fn facts(&self, room: RoomId, needs: &Needs) -> Option<Facts> {
        let Needs {
            users,
            client_ids,
            messages,
            open_turns: false,
            turns,
            answers,
            marks,
            ..
        } = needs
        else {
            return None;
        };
        let none = client_ids.is_empty() && messages.is_empty() && turns.is_empty();
        if !(none && answers.is_empty() && marks.is_empty()) {
            return None;
        }
        let kept = self.rooms.get(&room)?;
        let members = users.iter().map(|user| kept.members.get(user).cloned());
        Some(Facts {
            room: Some(kept.row.clone()),
            members: members.collect::<Option<_>>()?,
            ..Facts::default()
        })
    }

    /// Keeps what was read in a transaction that goes on to write.
    pub(super) fn learn(&mut self, room: RoomId, facts: &Facts) {
        let Some(row) = &facts.room else { return };
        if self.rows + 1 + facts.members.len() > MAX_ROWS {
            self.forget();
        }
        let kept = self.rooms.entry(room).or_insert_with(|| {
            self.rows += 1;
            KeptRoom {
                row: row.clone(),
                members: BTreeMap::new(),
            }
        });
        kept.row = row.clone();
        for member in &facts.members {
            let known = kept.members.insert(member.member.user, member.clone());
            self.rows += usize::from(known.is_none());
        }
    }

    /// Follows a commit that is on disk.
    pub(super) fn follow(&mut self, room: RoomId, changed: Changed) {
        let Some(kept) = self.rooms.get_mut(&room) else { return };
        match changed.room {
            RoomChange::Keep => {}
            RoomChange::Write(row) => kept.row = row,
            RoomChange::Delete => {
                self.rooms.remove(&room);
                return;
            }
        }
        if changed.discounts {
            // They are counted in the file, for members who need not be known here.
            kept.members.clear();
        }
        for row in changed.members {
            if let Some(member) = kept.members.get_mut(&row.member.user) {
                *member = row;
            }
        }
        for user in changed.removed {
            kept.members.remove(&user);
        }
    }

    /// Lets go of everything: nobody knows what is in the file.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
