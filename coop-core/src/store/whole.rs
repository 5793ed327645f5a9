//! A room as all of its rows at one moment: read to be kept elsewhere, and written as another room, of other ids.
//!
//! It knows neither SQL nor in which form rows are kept elsewhere.

use super::plan::{EventKind, EventRow, Ids, MAX_MEMBERS, MemberRow, MessageRow, RoomRow, TurnRow};
use crate::bounds::Bounds;
use crate::error::{Error, Result};
use crate::id::{Epoch, MessageId, RoomId, TurnId, UserId};
use crate::model::{Receipt, Role};
use crate::names;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All rows of a room. The tokens that were used in it are not among them: they are those of who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRoom {
    /// The room.
    pub room: RoomRow,
    /// In the order of joining.
    pub members: Vec<MemberRow>,
    /// In the order of their numbers, deleted ones included.
    pub messages: Vec<MessageRow>,
    /// In the order of their ids.
    pub turns: Vec<TurnRow>,
    /// What the bots of turns had read, in the same order.
    pub receipts: Vec<(TurnId, Arc<Receipt>)>,
    /// In the order of the log.
    pub events: Vec<EventRow>,
}

/// What is called how from now on.
#[derive(Clone, Debug, Default)]
pub struct Renaming {
    /// The room.
    pub room: RoomId,
    /// Everybody who is named in it.
    pub users: BTreeMap<UserId, UserId>,
    /// Its messages.
    pub messages: BTreeMap<MessageId, MessageId>,
    /// Its turns.
    pub turns: BTreeMap<TurnId, TurnId>,
}

impl WholeRoom {
    /// Gives the room, its messages and its turns fresh ids, and its log another life that begins now. Users stay.
    ///
    /// # Errors
    /// `BadRequest` if its rows contradict each other.
    pub fn renumber(&mut self, ids: &mut dyn Ids, epoch: Epoch) -> Result<()> {
        let same = |user: UserId| (user, user);
        let renaming = Renaming {
            room: ids.room(),
            users: self.users().into_iter().map(same).collect(),
            messages: self
                .messages
                .iter()
                .map(|row| (row.message.id, ids.message()))
                .collect(),
            turns: self.turns.iter().map(|row| (row.info.id, ids.turn())).collect(),
        };
        self.room.epoch = epoch;
        self.rename(&renaming)
    }

    /// Everybody who is named in it, in the order of being named.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        let members = self.members.iter().map(|row| row.member.user);
        let authors = self.messages.iter().filter_map(|row| row.message.author.user);
        let askers = self.turns.iter().flat_map(|row| {
            let by = row.info.end.as_ref().and_then(|end| end.by);
            [Some(row.info.asked_by), by].into_iter().flatten()
        });
        let told = self.events.iter().flat_map(|row| row.user.into_iter().chain(row.by));
        let mut seen = BTreeSet::new();
        let all = std::iter::once(self.room.info.owner).chain(members).chain(authors);
        all.chain(askers)
            .chain(told)
            .filter(|user| seen.insert(*user))
            .collect()
    }

    /// Calls everything by other names.
    ///
    /// # Errors
    /// `BadRequest` if something is named that there is not.
    pub fn rename(&mut self, to: &Renaming) -> Result<()> {
        let user = |id: &mut UserId| swap(id, &to.users);
        let message = |id: &mut MessageId| swap(id, &to.messages);
        let turn = |id: &mut TurnId| swap(id, &to.turns);
        self.room.info.id = to.room;
        user(&mut self.room.info.owner)?;
        self.members.iter_mut().try_for_each(|row| user(&mut row.member.user))?;
        for row in &mut self.messages {
            let said = &mut row.message;
            said.room = to.room;
            message(&mut said.id)?;
            said.author.user.iter_mut().try_for_each(user)?;
            said.reply_to.iter_mut().try_for_each(message)?;
        }
        for row in &mut self.turns {
            let info = &mut row.info;
            info.room = to.room;
            turn(&mut info.id)?;
            user(&mut info.asked_by)?;
            message(&mut info.ask)?;
            info.message.iter_mut().try_for_each(message)?;
            let by = info.end.iter_mut().filter_map(|end| end.by.as_mut());
            by.into_iter().try_for_each(user)?;
        }
        for (of, receipt) in &mut self.receipts {
            turn(of)?;
            let read = Arc::make_mut(receipt).read.iter_mut();
            read.map(|version| &mut version.message).try_for_each(message)?;
        }
        for row in &mut self.events {
            row.message.iter_mut().try_for_each(message)?;
            row.turn.iter_mut().try_for_each(turn)?;
            row.user.iter_mut().try_for_each(user)?;
            row.by.iter_mut().try_for_each(user)?;
        }
        Ok(())
    }

    /// Whether this could be a room of ours: whoever has it from elsewhere asks before it is written.
    ///
    /// # Errors
    /// `BadRequest` with what is wrong, `TooLarge` for too many members.
    pub fn check(&self) -> Result<()> {
        let room = &self.room;
        names::check_room_name(&room.info.name, Bounds::CEILING.room_name_chars)?;
        names::check_system_text(&room.settings.system)?;
        if self.members.len() > MAX_MEMBERS as usize {
            return Err(Error::too_large("a room may have at most 1,000 members"));
        }
        let users: BTreeSet<_> = self.members.iter().map(|row| row.member.user).collect();
        let mut owners = self.members.iter().filter(|row| row.member.role == Role::Owner);
        let owned = owners.next().is_some_and(|row| row.member.user == room.info.owner) && owners.next().is_none();
        claim(owned, "a room has one owner, who is a member")?;
        claim(
            users.len() == self.members.len() && room.members as usize == self.members.len(),
            "the members do not add up",
        )?;
        let numbered = (1..).zip(&self.messages).all(|(number, row)| row.number == number);
        let last = self.messages.last().map_or(0, |row| row.number);
        claim(
            numbered && last == room.number,
            "a message is missing, or is there twice",
        )?;
        let logged = (1..).zip(&self.events).all(|(seq, row)| row.seq.0 == seq);
        let head = self.events.last().map_or(0, |row| row.seq.0);
        claim(
            logged && head == room.seq.0 && head > 0,
            "an event is missing, or is there twice",
        )?;
        let mut before = 0;
        let rising = self.messages.iter().all(|row| {
            let seq = row.message.seq.0;
            std::mem::replace(&mut before, seq) < seq && seq <= head
        });
        claim(rising, "a message stands nowhere in the log")?;
        for row in &self.messages {
            let author = &row.message.author;
            claim(
                author.user.is_none() || author.bot.is_none(),
                "a message has two authors",
            )?;
            claim(
                row.message.text.len() <= Bounds::CEILING.text_bytes || author.bot.is_some(),
                "a message is longer than 1 MiB",
            )?;
            claim(!row.message.text.contains('\0'), "a message has a NUL character")?;
        }
        for row in &self.members {
            let read = row.member.read.0;
            claim((0..=head).contains(&read), "a read mark stands nowhere in the log")?;
            claim(
                (0..=room.number).contains(&row.read_number) && row.discount >= 0,
                "a read mark does not add up",
            )?;
        }
        let ended = |row: &TurnRow| row.info.status.is_ended() == row.info.end.is_some();
        claim(self.turns.iter().all(ended), "a turn has half ended")?;
        self.events.iter().try_for_each(check_event)
    }
}

/// Whether an event has what its kind speaks of.
fn check_event(row: &EventRow) -> Result<()> {
    let about_user = row.user.is_some() && row.name.is_some() && row.by.is_some();
    let whole = match row.kind {
        EventKind::MessagePosted | EventKind::MessageEdited => row.message.is_some(),
        EventKind::MessageDeleted => row.message.is_some() && row.by.is_some(),
        EventKind::MemberJoined | EventKind::MemberLeft | EventKind::RoomUpdated => about_user,
        EventKind::TurnStarted => row.turn.is_some() && row.message.is_some(),
        EventKind::TurnQueued | EventKind::TurnEnded => row.turn.is_some(),
    };
    claim(whole, "an event lacks what it is about")
}

fn claim(holds: bool, otherwise: &'static str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::bad_request(otherwise))
    }
}

fn swap<Id: Ord + Copy>(id: &mut Id, to: &BTreeMap<Id, Id>) -> Result<()> {
    let unknown = || Error::bad_request("something is named that is not there");
    *id = *to.get(id).ok_or_else(unknown)?;
    Ok(())
}
