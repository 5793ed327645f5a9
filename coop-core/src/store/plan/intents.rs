//! The rule of every intent: who may, what it changes, which events it makes. It knows the overlay's rows, and
//! neither where they come from nor where they go.

use super::overlay::{Overlay, no_such_message};
use super::{
    Discount, EventKind, EventRow, MAX_BOT_TURNS, MAX_HOPS, MAX_WAITING, MemberRow, MessageRow, TurnRow,
    too_many_members,
};
use crate::command::{self, Asks};
use crate::error::{Error, Result};
use crate::id::{MessageId, Seq, TurnId, UserId};
use crate::model::{
    Author, Message, MessageStatus, Receipt, Role, RoomSettings, TurnEnd, TurnError, TurnInfo, TurnPolicy, TurnStatus,
    Usage,
};
use crate::mutant::{Mutant, removed};
use crate::store::{Intent, Outcome, Post};
use crate::time::Timestamp;
use std::sync::Arc;

impl Overlay<'_> {
    pub(super) fn apply(&mut self, intent: Intent) -> Result<Outcome> {
        self.room()?;
        match intent {
            Intent::Post(post) => self.post(post),
            Intent::Edit { message, by, text } => self.edit(message, by, text),
            Intent::Delete { message, by } => self.delete(message, by),
            Intent::Purge { message, author } => self.purge(message, author),
            Intent::Invite { user, name, by } => self.invite(user, name, by),
            Intent::Remove { user, by } => self.remove(user, by),
            Intent::Rename { name, by } => self.rename(name, by),
            Intent::Configure { settings, by } => self.set_up(settings, by),
            Intent::HandOver { to, by } => self.hand_over(to, by),
            Intent::DeleteRoom { by } => {
                self.owner(by)?;
                self.delete_room();
                Ok(Outcome::Done)
            }
            Intent::StartTurn { bot, name } => self.start_turn(&bot, name),
            Intent::Retry { turn, ask, by, name } => self.retry(turn, ask, by, name),
            Intent::Checkpoint {
                turn,
                text,
                usage,
                receipt,
            } => Ok(self.keep(turn, text, usage, receipt)),
            Intent::EndTurn {
                turn,
                end,
                text,
                receipt,
                asks,
            } => self.end_turn(turn, end, text, receipt, asks),
            Intent::Read { user, seq } => self.read(user, seq),
        }
    }

    fn acting(&self, user: UserId) -> Result<&MemberRow> {
        self.member(user).ok_or_else(Error::no_such_room)
    }

    fn owner(&self, user: UserId) -> Result<&MemberRow> {
        let row = self.acting(user)?;
        match row.member.role {
            Role::Owner => Ok(row),
            Role::Member => Err(Error::forbidden("only the room's owner may do this")),
        }
    }

    fn post(&mut self, post: Post) -> Result<Outcome> {
        let author = self.acting(post.author)?.clone();
        if let Some(before) = self.said_before(&post)? {
            return Ok(before);
        }
        if post.reply_to.is_some_and(|id| self.message(id).is_none()) {
            return Err(no_such_message());
        }
        let bots = self.asked(&post)?;
        let (mut message, number) = self.new_message(Author::person(post.author, post.name.clone()), post.text)?;
        message.reply_to = post.reply_to;
        message.meta = post.meta;
        message.client_id = post.client_id;
        self.insert_message(MessageRow {
            message: message.clone(),
            number,
            body_hash: Some(post.body_hash),
        });
        let message = Arc::new(message);
        let row = self.about(EventKind::MessagePosted, &message);
        self.log(row, Some(&message), None)?;
        let role = author.member.role;
        self.put_member(marked(author, message.seq, number, 0, self.now));
        self.turns_since_person = 0;
        let mut turns = Vec::with_capacity(bots.len());
        for bot in bots {
            self.make_way(&bot, post.author, role)?;
            turns.push(self.ask(Ask {
                bot,
                message: &message,
                by: post.author,
                name: post.name.clone(),
                attempt: 1,
                hop: 0,
            })?);
        }
        Ok(Outcome::Posted {
            message,
            turns,
            duplicate: false,
        })
    }

    /// What this author's message of the same client id became, if there is one.
    fn said_before(&self, post: &Post) -> Result<Option<Outcome>> {
        let found = post.client_id.as_deref().filter(|_| !removed(Mutant::ClientIdLookup));
        let Some(row) = found.and_then(|id| self.message_of(post.author, id)) else {
            return Ok(None);
        };
        if row.body_hash != Some(post.body_hash) && !removed(Mutant::BodyHash) {
            return Err(Error::conflict("this client_id was used for another message"));
        }
        let id = row.message.id;
        let turns = self.turns().filter(|turn| turn.info.ask == id);
        Ok(Some(Outcome::Posted {
            message: Arc::new(row.message.clone()),
            turns: turns.map(|turn| turn.info.clone()).collect(),
            duplicate: true,
        }))
    }

    fn asked(&self, post: &Post) -> Result<Vec<String>> {
        if removed(Mutant::AskWithTurn) {
            return Ok(Vec::new());
        }
        let room = self.room()?;
        let alone = post.asks_if_alone && room.info.is_ai_chat && room.members == 1;
        let asks = Asks {
            default: post.asks_default,
            named: post.asks.clone(),
        };
        Ok(command::resolve(&asks, alone, room.settings.default_among(&post.bots)))
    }

    /// Where a new ask of this bot interrupts: ends what its asker may stop, and asks for the end of what streams.
    fn make_way(&mut self, bot: &str, by: UserId, role: Role) -> Result<()> {
        let settings = Arc::clone(&self.room()?.settings);
        if settings.policy != TurnPolicy::Interrupt {
            return Ok(());
        }
        let in_the_way = self.turns().filter(|turn| {
            let open = turn.info.bot == bot && !turn.info.status.is_ended();
            open && settings.who_may_stop.allows(by, role, turn.info.asked_by)
        });
        for turn in in_the_way.cloned().collect::<Vec<_>>() {
            match turn.info.status {
                TurnStatus::Streaming => self.ask_to_stop(turn.info.id, TurnEnd::stopped(by)),
                _ => drop(self.end(turn, TurnEnd::stopped(by), None)?),
            }
        }
        Ok(())
    }

    /// Why an ask is refused, if it is.
    fn refusal(&self, ask: &Ask<'_>, waiting: usize) -> Option<TurnError> {
        let refused = |code: &str, words: &str| {
            Some(TurnError {
                code: code.into(),
                words: words.into(),
            })
        };
        let too_far = ask.hop > MAX_HOPS || self.turns_since_person >= MAX_BOT_TURNS;
        if ask.hop > 0 && ask.attempt == 1 && too_far && !removed(Mutant::HopLimit) {
            return refused(
                "hop_limit",
                "bots have talked long enough: somebody else must speak first",
            );
        }
        if waiting >= MAX_WAITING {
            return refused("busy", "too many asks are waiting for this bot");
        }
        self.over_budget(ask.by)
    }

    /// Admits a turn of a bot, or refuses it.
    fn ask(&mut self, ask: Ask<'_>) -> Result<TurnInfo> {
        let of_bot = |turn: &&TurnRow| turn.info.bot == ask.bot;
        let open = self.turns().filter(of_bot).filter(|turn| !turn.info.status.is_ended());
        let position = open.clone().count();
        let waiting = open.filter(|turn| turn.info.status == TurnStatus::Queued).count();
        let refused = self.refusal(&ask, waiting);
        let (room, id, seq) = (ask.message.room, ask.message.id, ask.message.seq);
        let mut info = TurnInfo::queued(self.ids.turn(), room, ask.bot, ask.by, id, seq);
        info.attempt = ask.attempt;
        let mut row = self.row(EventKind::TurnQueued);
        row.turn = Some(info.id);
        row.position = u32::try_from(position).unwrap_or(u32::MAX);
        if let Some(TurnError { code, words }) = refused {
            info.status = TurnStatus::Failed;
            info.end = Some(TurnEnd::failed(code, words));
            row.kind = EventKind::TurnEnded;
            row.position = 0;
        } else {
            self.turns_since_person = self.turns_since_person.saturating_add(1);
        }
        self.put_turn(TurnRow {
            info: info.clone(),
            asker: ask.name,
            created_at: self.now,
            hop: ask.hop,
            usage: None,
        });
        self.log(row, None, Some(&info))?;
        Ok(info)
    }

    fn retry(&mut self, turn: TurnId, ask: MessageId, by: UserId, name: String) -> Result<Outcome> {
        let role = self.acting(by)?.member.role;
        let again = self.turn(turn).filter(|turn| turn.info.ask == ask);
        let again = again.ok_or_else(Error::no_such_turn)?.clone();
        let message = self.message(ask).map(|row| &row.message);
        let message = message.filter(|message| message.deleted_at.is_none());
        let message = Arc::new(message.ok_or_else(no_such_message)?.clone());
        let same = |turn: &&TurnRow| (turn.info.ask, &turn.info.bot) == (ask, &again.info.bot);
        let under_way = self.turns().filter(same).find(|turn| !turn.info.status.is_ended());
        if let Some(turn) = under_way {
            return Ok(Outcome::Asked(turn.info.clone()));
        }
        self.make_way(&again.info.bot, by, role)?;
        let asked = self.ask(Ask {
            bot: again.info.bot,
            message: &message,
            by,
            name,
            attempt: again.info.attempt.saturating_add(1),
            hop: again.hop,
        })?;
        Ok(Outcome::Asked(asked))
    }

    fn edit(&mut self, id: MessageId, by: UserId, text: String) -> Result<Outcome> {
        self.acting(by)?;
        let row = self.message(id).ok_or_else(no_such_message)?;
        if row.message.deleted_at.is_some() {
            return Err(no_such_message());
        }
        if row.message.author.user != Some(by) {
            return Err(Error::forbidden("only its author may change a message"));
        }
        let now = self.now;
        let message = Arc::new(self.update_message(id, |message| {
            message.text = text;
            message.edited_at = Some(now);
            message.edits = message.edits.saturating_add(1);
        })?);
        let row = self.about(EventKind::MessageEdited, &message);
        self.log(row, Some(&message), None)?;
        Ok(Outcome::Edited(message))
    }

    fn delete(&mut self, id: MessageId, by: UserId) -> Result<Outcome> {
        let role = self.acting(by)?.member.role;
        let row = self.message(id).ok_or_else(no_such_message)?;
        if row.message.author.user != Some(by) && role != Role::Owner {
            return Err(Error::forbidden(
                "only its author or the room's owner may delete a message",
            ));
        }
        if row.message.status == MessageStatus::Streaming {
            return Err(Error::conflict("this answer is still being written"));
        }
        self.scrub(id, by)
    }

    fn purge(&mut self, id: MessageId, author: UserId) -> Result<Outcome> {
        let row = self.message(id).ok_or_else(no_such_message)?;
        if row.message.author.user != Some(author) {
            return Err(no_such_message());
        }
        self.scrub(id, author)
    }

    /// Deletes a message that is not being written.
    fn scrub(&mut self, id: MessageId, by: UserId) -> Result<Outcome> {
        let row = self.message(id).ok_or_else(no_such_message)?;
        if row.message.deleted_at.is_some() {
            return Ok(Outcome::Done);
        }
        let number = row.number;
        // Whoever asked for an answer has it in their discount since it began.
        let answers = |turn: &&TurnRow| turn.info.message == Some(id);
        let asker = self.turns().find(answers).map(|turn| turn.info.asked_by);
        let now = self.now;
        self.update_message(id, |message| message.scrub(now))?;
        self.discount(Discount {
            number,
            only: None,
            except: asker,
        });
        let mut row = self.row(EventKind::MessageDeleted);
        (row.message, row.by) = (Some(id), Some(by));
        self.log(row, None, None)?;
        let waits = |turn: &&TurnRow| turn.info.ask == id && turn.info.status == TurnStatus::Queued;
        let waiting: Vec<_> = self.turns().filter(waits).cloned().collect();
        for turn in waiting {
            self.end(turn, TurnEnd::stopped(by), None)?;
        }
        Ok(Outcome::Done)
    }

    fn invite(&mut self, user: UserId, name: String, by: UserId) -> Result<Outcome> {
        self.acting(by)?;
        if self.member(user).is_some() {
            return Ok(Outcome::Done);
        }
        let (now, most) = (self.now, self.most_members);
        let room = self.room_mut()?;
        if room.members >= most {
            return Err(too_many_members(most));
        }
        room.members += 1;
        let read = (room.seq, room.number);
        let joined = room.seq.next();
        // In the millisecond of the room's making too: it tells who was invited from whom the room was made with.
        let now = now.max(Timestamp(room.info.created_at.0.saturating_add(1)));
        self.put_member(MemberRow::new(user, name.clone(), Role::Member, joined, read, now));
        let row = self.about_user(EventKind::MemberJoined, user, name, by);
        self.log(row, None, None)?;
        Ok(Outcome::Done)
    }

    fn remove(&mut self, user: UserId, by: UserId) -> Result<Outcome> {
        let role = self.acting(by)?.member.role;
        match (user == by, role) {
            (true, Role::Owner) => return Err(Error::conflict("the owner may not leave: hand the room over first")),
            (false, Role::Member) => return Err(Error::forbidden("only the room's owner may remove others")),
            _ => {}
        }
        self.member(user).ok_or_else(no_such_member)?;
        let gone = self.take_member(user).ok_or_else(no_such_member)?;
        self.room_mut()?.members -= 1;
        let row = self.about_user(EventKind::MemberLeft, user, gone.member.name, by);
        self.log(row, None, None)?;
        Ok(Outcome::Done)
    }

    fn rename(&mut self, name: String, by: UserId) -> Result<Outcome> {
        self.owner(by)?;
        self.room_mut()?.info.name = name;
        self.room_updated(by)
    }

    fn set_up(&mut self, settings: Arc<RoomSettings>, by: UserId) -> Result<Outcome> {
        self.owner(by)?;
        self.configure(settings)?;
        self.room_updated(by)
    }

    fn hand_over(&mut self, to: UserId, by: UserId) -> Result<Outcome> {
        let mut old = self.owner(by)?.clone();
        let mut new = self.member(to).ok_or_else(no_such_member)?.clone();
        if to == by {
            return Ok(Outcome::Done);
        }
        old.member.role = Role::Member;
        new.member.role = Role::Owner;
        self.put_member(old);
        self.put_member(new);
        self.room_mut()?.info.owner = to;
        self.room_updated(by)
    }

    fn room_updated(&mut self, by: UserId) -> Result<Outcome> {
        let info = self.room()?.info.clone();
        let row = self.about_user(EventKind::RoomUpdated, info.owner, info.name, by);
        self.log(row, None, None)?;
        Ok(Outcome::Done)
    }

    fn start_turn(&mut self, bot: &str, name: String) -> Result<Outcome> {
        let of_bot = |turn: &&TurnRow| turn.info.bot == bot;
        let busy = |turn: &TurnRow| turn.info.status == TurnStatus::Streaming;
        if self.turns().filter(of_bot).any(busy) {
            return Ok(Outcome::Done);
        }
        let next = loop {
            let next = {
                let mut waiting = self.turns().filter(of_bot);
                waiting.find(|turn| turn.info.status == TurnStatus::Queued).cloned()
            };
            let Some(turn) = next else { break None };
            match self.over_budget(turn.info.asked_by) {
                Some(error) => drop(self.end(turn, TurnEnd::failed(error.code, error.words), None)?),
                None => break Some(turn),
            }
        };
        let Some(mut turn) = next else {
            return Ok(Outcome::Done);
        };
        let (mut message, number) = self.new_message(Author::bot(bot, name), String::new())?;
        message.status = MessageStatus::Streaming;
        message.reply_to = Some(turn.info.ask);
        self.insert_message(MessageRow {
            message: message.clone(),
            number,
            body_hash: None,
        });
        self.discount(Discount {
            number,
            only: Some(turn.info.asked_by),
            except: None,
        });
        turn.info.status = TurnStatus::Streaming;
        turn.info.message = Some(message.id);
        self.put_turn(turn.clone());
        let mut row = self.about(EventKind::TurnStarted, &message);
        row.turn = Some(turn.info.id);
        self.log(row, Some(&Arc::new(message)), Some(&turn.info))?;
        Ok(Outcome::Started {
            turn: turn.info,
            asked_by: turn.asker,
        })
    }

    fn keep(&mut self, turn: TurnId, text: Arc<str>, usage: Option<Usage>, receipt: Option<Arc<Receipt>>) -> Outcome {
        let mine = self.turn(turn).filter(|_| !self.is_elsewhere(turn));
        let streaming = mine.filter(|turn| turn.info.status == TurnStatus::Streaming).cloned();
        let Some((mut row, message)) = streaming.and_then(|row| row.info.message.map(|message| (row, message))) else {
            return Outcome::Checkpointed { kept: false, cut: None };
        };
        self.checkpoint(message, text);
        if let Some(receipt) = receipt {
            self.keep_receipt(turn, receipt);
        }
        if let Some(usage) = usage {
            self.charge(&mut row, usage);
            self.put_turn(row.clone());
        }
        let cut = usage.and_then(|_| self.over_budget(row.info.asked_by));
        Outcome::Checkpointed { kept: true, cut }
    }

    fn end_turn(
        &mut self,
        turn: TurnId,
        end: TurnEnd,
        text: Option<Arc<str>>,
        receipt: Option<Arc<Receipt>>,
        asks: Vec<String>,
    ) -> Result<Outcome> {
        if !end.status.is_ended() {
            return Err(Error::bad_request("a turn cannot end in this status"));
        }
        let turn = self.turn(turn).ok_or_else(Error::no_such_turn)?.clone();
        if turn.info.status.is_ended() && !removed(Mutant::EndOnce) {
            return Ok(Outcome::Ended {
                turn: turn.info,
                now: false,
            });
        }
        // A turn that waits is nobody's yet, and whoever may stop it does; all else is for the engine that has it.
        let stop = end.status == TurnStatus::Stopped;
        if self.is_elsewhere(turn.info.id) && !(stop && turn.info.status == TurnStatus::Queued) {
            if stop {
                self.ask_to_stop(turn.info.id, end);
            }
            return Ok(Outcome::Ended {
                turn: turn.info,
                now: false,
            });
        }
        if let Some(receipt) = receipt {
            self.keep_receipt(turn.info.id, receipt);
        }
        let (hop, name) = (turn.hop, turn.asker.clone());
        let turn = self.end(turn, end, text)?;
        self.pass_on(&turn, hop, &name, asks)?;
        Ok(Outcome::Ended { turn, now: true })
    }

    /// A complete answer asks the bots that it names, where the room allows it.
    fn pass_on(&mut self, turn: &TurnInfo, hop: u32, name: &str, asks: Vec<String>) -> Result<()> {
        let allowed = turn.status == TurnStatus::Done && self.room()?.settings.bots_ask_bots;
        let answer = turn.message.and_then(|id| self.message(id)).filter(|_| allowed);
        let Some(answer) = answer.map(|row| Arc::new(row.message.clone())) else {
            return Ok(());
        };
        for bot in asks.into_iter().filter(|bot| *bot != turn.bot) {
            self.ask(Ask {
                bot,
                message: &answer,
                by: turn.asked_by,
                name: name.to_owned(),
                attempt: 1,
                hop: hop.saturating_add(1),
            })?;
        }
        Ok(())
    }

    fn end(&mut self, mut turn: TurnRow, mut end: TurnEnd, text: Option<Arc<str>>) -> Result<TurnInfo> {
        match end.usage {
            Some(usage) => self.charge(&mut turn, usage),
            // What a dead engine had charged.
            None => end.usage = turn.usage,
        }
        let error = end.error.as_ref().map(|error| error.words.clone());
        let status = end.status;
        let message = match turn.info.message {
            None => None,
            Some(id) => Some(Arc::new(self.update_message(id, |message| {
                if let Some(text) = text {
                    text.as_ref().clone_into(&mut message.text);
                }
                message.status = status.of_message();
                message.error = error;
            })?)),
        };
        turn.info.status = status;
        turn.info.end = Some(end);
        self.put_turn(turn.clone());
        let mut row = self.row(EventKind::TurnEnded);
        (row.turn, row.message) = (Some(turn.info.id), turn.info.message);
        self.log(row, message.as_ref(), Some(&turn.info))?;
        Ok(turn.info)
    }

    fn read(&mut self, user: UserId, asked: Seq) -> Result<Outcome> {
        let row = self.acting(user)?.clone();
        let name = row.member.name.clone();
        let seq = asked.min(self.room()?.seq);
        let moved = seq > row.member.read;
        let seq = seq.max(row.member.read);
        if moved {
            let (number, discount) = self.mark(user, seq);
            self.put_member(marked(row, seq, number, discount, self.now));
        }
        Ok(Outcome::Read { user, name, seq, moved })
    }

    fn about(&self, kind: EventKind, message: &Message) -> EventRow {
        EventRow {
            message: Some(message.id),
            ..self.row(kind)
        }
    }

    fn about_user(&self, kind: EventKind, user: UserId, name: String, by: UserId) -> EventRow {
        EventRow {
            user: Some(user),
            name: Some(name),
            by: Some(by),
            ..self.row(kind)
        }
    }
}

/// The same member with the mark moved here, now.
fn marked(mut row: MemberRow, seq: Seq, number: i64, discount: i64, now: Timestamp) -> MemberRow {
    row.member.read = seq;
    row.member.read_at = Some(now);
    row.read_number = number;
    row.discount = discount;
    row
}

/// An ask that may be admitted.
struct Ask<'a> {
    bot: String,
    /// What asks: a person's message, or another bot's answer.
    message: &'a Arc<Message>,
    /// Who is charged.
    by: UserId,
    name: String,
    attempt: u32,
    /// How many bots lie between it and the person who spoke.
    hop: u32,
}

fn no_such_member() -> Error {
    Error::not_found("no such member")
}
