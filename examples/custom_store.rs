//! An application's own storage. Here the tables are lists in memory; with a database each of them is a table, and what
//! happens under the lock is one transaction.
//!
//! A store loads rows, lets [`plan`] decide what a commit does, and writes rows. Who may do what, what counts as unread
//! and when a bot's turn comes is decided there, and need not be known here. Whether everything is as it should be is
//! found out by the suite that the engine's own stores are held to.

use async_trait::async_trait;
use coop_core::store::plan::{
    EventRow, Facts, Mark, MemberRow, MessageRow, Needs, NextIds, Plan, RoomChange, RoomRow, TurnRow, UsageRow, plan,
    plan_creation,
};
use coop_core::store::{Batch, Committed, NewAccount, NewRoom, RoomHead, RoomStore, UserStore};
use coop_core::testing::store_contract;
use coop_core::{
    Account, Day, Engine, Error, Event, Finish, Member, Message, MessageId, Page, Range, Receipt, Result, RoomEntry,
    RoomId, RoomInfo, Seq, Snapshot, TurnId, TurnInfo, TurnStatus, UsageFilter, UsageSum, UserId,
};
use futures::StreamExt;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The store.
#[derive(Default)]
struct TableStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    rooms: Vec<RoomRow>,
    members: Vec<(RoomId, MemberRow)>,
    /// In the order of their positions.
    messages: Vec<MessageRow>,
    turns: Vec<TurnRow>,
    /// In the order of their positions.
    events: Vec<(RoomId, EventRow)>,
    /// What the bots of turns had read.
    receipts: Vec<(TurnId, Arc<Receipt>)>,
    /// Tokens that were used, as they were. Kept also when their room is deleted.
    usage: Vec<(RoomId, UsageRow)>,
    /// Accounts and the hashes of their passwords.
    users: Vec<(Account, Option<String>)>,
    /// The newest user's id. Never set back either.
    last_user: i64,
    /// What the next room, message and turn are called. Never set back, so that no id is given out twice.
    ids: NextIds,
    closed: bool,
}

impl TableStore {
    fn tables(&self) -> Result<MutexGuard<'_, Tables>> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.closed {
            Err(Error::closed())
        } else {
            Ok(tables)
        }
    }
}

// Looking.

impl Tables {
    fn room(&self, room: RoomId) -> Option<&RoomRow> {
        self.rooms.iter().find(|row| row.info.id == room)
    }

    fn members(&self, room: RoomId) -> impl Iterator<Item = &MemberRow> {
        self.members
            .iter()
            .filter(move |(at, _)| *at == room)
            .map(|(_, row)| row)
    }

    fn member(&self, room: RoomId, user: UserId) -> Option<&MemberRow> {
        self.members(room).find(|row| row.member.user == user)
    }

    fn messages(&self, room: RoomId) -> impl DoubleEndedIterator<Item = &MessageRow> {
        self.messages.iter().filter(move |row| row.message.room == room)
    }

    fn message(&self, room: RoomId, id: MessageId) -> Option<Arc<Message>> {
        let row = self.messages(room).find(|row| row.message.id == id)?;
        Some(Arc::new(row.message.clone()))
    }

    fn turns(&self, room: RoomId) -> impl Iterator<Item = &TurnRow> {
        self.turns.iter().filter(move |row| row.info.room == room)
    }

    fn turn(&self, room: RoomId, is: impl Fn(&TurnInfo) -> bool) -> Option<TurnInfo> {
        self.turns(room).map(|row| &row.info).find(|turn| is(turn)).cloned()
    }

    fn open_turns(&self, only: Option<RoomId>) -> Vec<TurnInfo> {
        let turns = self.turns.iter().map(|row| &row.info);
        let turns = turns.filter(|turn| only.is_none_or(|room| turn.room == room));
        let mut open: Vec<_> = turns.filter(|turn| !turn.status.is_ended()).cloned().collect();
        open.sort_by_key(|turn| turn.id);
        open
    }

    fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        let Some(info) = self.room(room).map(|row| &row.info) else {
            return Ok(Vec::new());
        };
        let rows = self.events.iter().filter(|(at, row)| *at == room && row.seq > after);
        let event = |(_, row): &(RoomId, EventRow)| {
            // An event is what the rows that it names are now: a deleted text is nowhere left.
            let message = row.message.and_then(|id| self.message(room, id));
            let turn = row.turn.and_then(|id| self.turn(room, |turn| turn.id == id));
            Ok(Arc::new(row.event(info, message.as_ref(), turn.as_ref())?))
        };
        rows.take(limit as usize).map(event).collect()
    }

    fn history(&self, room: RoomId, range: Range, limit: u32) -> Page {
        let there = self.messages(room).filter(|row| row.message.deleted_at.is_none());
        let limit = limit as usize;
        // One more than asked for, to see whether there are more.
        let mut rows: Vec<_> = match range {
            Range::Newest => there.rev().take(limit + 1).collect(),
            Range::Before(seq) => there
                .rev()
                .filter(|row| row.message.seq < seq)
                .take(limit + 1)
                .collect(),
            Range::After(seq) => there.filter(|row| row.message.seq > seq).take(limit + 1).collect(),
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        rows.sort_by_key(|row| row.message.seq);
        let older = rows.first().map_or(0, |row| row.number - 1);
        Page {
            messages: rows.into_iter().map(|row| Arc::new(row.message.clone())).collect(),
            more,
            older: u32::try_from(older).unwrap_or(u32::MAX),
        }
    }

    fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Vec<RoomEntry> {
        let rooms = self
            .rooms
            .iter()
            .filter(|row| only.is_none_or(|only| only == row.info.id));
        let entry = |row: &RoomRow| {
            let member = self.member(row.info.id, user)?;
            let last = self.history(row.info.id, Range::Newest, 1).messages.pop();
            Some(row.entry(member, last))
        };
        let mut entries: Vec<_> = rooms.filter_map(entry).collect();
        entries.sort_by_key(|entry| {
            let last = entry.last_message.as_ref();
            let active = last.map_or(entry.info.created_at, |message| message.created_at);
            Reverse((active, entry.info.id))
        });
        entries
    }
}

// Committing.

impl Tables {
    /// The rows that a batch must see.
    fn facts(&self, room: RoomId, needs: &Needs) -> Facts {
        let sent_before = |row: &MessageRow| {
            let id = row.message.client_id.clone();
            let key = row.message.author.user.zip(id);
            key.is_some_and(|key| needs.client_ids.contains(&key))
        };
        let asked_before = |turn: &TurnInfo| {
            let mut messages = self.messages(room);
            messages.any(|row| row.message.id == turn.ask && sent_before(row))
        };
        let turns = self.turns(room).filter(|row| {
            let turn = &row.info;
            needs.turns.contains(&turn.id)
                || (needs.open_turns && !turn.status.is_ended())
                || turn.message.is_some_and(|answer| needs.messages.contains(&answer))
                || asked_before(turn)
        });
        let answers: Vec<_> = needs
            .answers
            .iter()
            .filter_map(|id| self.turn(room, |turn| turn.id == *id)?.message)
            .collect();
        let messages = self.messages(room).filter(|row| {
            let id = row.message.id;
            needs.messages.contains(&id) || answers.contains(&id) || sent_before(row)
        });
        Facts {
            room: self.room(room).cloned(),
            members: needs
                .users
                .iter()
                .filter_map(|user| self.member(room, *user))
                .cloned()
                .collect(),
            messages: messages.cloned().collect(),
            turns: turns.cloned().collect(),
            marks: needs
                .marks
                .iter()
                .map(|(user, seq)| self.mark(room, *user, *seq))
                .collect(),
            turns_since_person: self.turns_since_person(room),
            spent_in_room: needs.spent.map_or(0, |day| self.spent(day, |at, _| at == room)),
            spent_by: needs.spent.map_or_else(BTreeMap::new, |day| {
                let askers = self.turns(room).map(|row| row.info.asked_by);
                let users = needs.users.iter().copied().chain(askers);
                users.map(|by| (by, self.spent(day, |_, user| user == by))).collect()
            }),
            // One engine has this store alone.
            ..Facts::default()
        }
    }

    /// The tokens that were used on a day.
    fn spent(&self, day: Day, by: impl Fn(RoomId, UserId) -> bool) -> u64 {
        let rows = self.usage.iter();
        let rows = rows.filter(|(room, row)| row.day == day && by(*room, row.user));
        let mut sum = UsageSum::default();
        rows.for_each(|(_, row)| row.add_to(&mut sum));
        sum.total
    }

    /// How many turns there were since a person last spoke, those left out that never began.
    fn turns_since_person(&self, room: RoomId) -> u32 {
        let said = self.messages(room).filter(|row| row.message.author.user.is_some());
        let last = said.map(|row| row.message.seq).max().unwrap_or_default();
        let turns = self.turns(room).map(|row| &row.info);
        let turns = turns.filter(|turn| turn.ask_seq >= last);
        let turns = turns.filter(|turn| turn.status == TurnStatus::Queued || turn.message.is_some());
        u32::try_from(turns.count()).unwrap_or(u32::MAX)
    }

    /// What lies below and above a read mark.
    fn mark(&self, room: RoomId, user: UserId, seq: Seq) -> Mark {
        let below = self.messages(room).filter(|row| row.message.seq <= seq);
        let own = |row: &MessageRow| {
            let mut turns = self.turns(room).map(|row| &row.info);
            turns.any(|turn| turn.message == Some(row.message.id) && turn.asked_by == user)
        };
        let above = self.messages(room).filter(|row| row.message.seq > seq);
        let quiet = above.filter(|row| row.message.deleted_at.is_some() || own(row));
        Mark {
            user,
            seq,
            number: below.map(|row| row.number).max().unwrap_or(0),
            quiet: i64::try_from(quiet.count()).unwrap_or(i64::MAX),
        }
    }

    /// Writes what was decided, in this order.
    fn write(&mut self, room: RoomId, plan: Plan) -> Committed {
        self.usage.extend(plan.usage.into_iter().map(|row| (room, row)));
        match plan.room {
            RoomChange::Keep => {}
            RoomChange::Write(row) => {
                if let Some(old) = self.rooms.iter_mut().find(|old| old.info.id == room) {
                    *old = row;
                }
            }
            RoomChange::Delete => {
                self.rooms.retain(|row| row.info.id != room);
                self.members.retain(|(at, _)| *at != room);
                self.messages.retain(|row| row.message.room != room);
                self.turns.retain(|row| row.info.room != room);
                self.events.retain(|(at, _)| *at != room);
                return plan.committed;
            }
        }
        self.messages.extend(plan.inserted);
        for row in plan.updated {
            if let Some(old) = self.messages.iter_mut().find(|old| old.message.id == row.message.id) {
                *old = row;
            }
        }
        for (id, text) in plan.checkpoints {
            if let Some(row) = self.messages.iter_mut().find(|row| row.message.id == id) {
                row.message.text = text.to_string();
            }
        }
        for discount in plan.discounts {
            let here = self.members.iter_mut().filter(|(at, _)| *at == room);
            for (_, row) in here.filter(|(_, row)| discount.applies_to(row)) {
                row.discount += 1;
            }
        }
        for row in plan.members {
            let user = row.member.user;
            self.members.retain(|(at, old)| *at != room || old.member.user != user);
            self.members.push((room, row));
        }
        self.members
            .retain(|(at, row)| *at != room || !plan.removed.contains(&row.member.user));
        for row in plan.turns {
            self.turns.retain(|old| old.info.id != row.info.id);
            self.turns.push(row);
        }
        self.receipts.extend(plan.receipts);
        self.events.extend(plan.events.into_iter().map(|row| (room, row)));
        plan.committed
    }
}

#[async_trait]
impl RoomStore for TableStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let tables = &mut *self.tables()?;
        let room = batch.room;
        let facts = tables.facts(room, &Needs::of(&batch));
        let plan = plan(facts, batch, &mut tables.ids);
        Ok(tables.write(room, plan))
    }

    async fn create_room(&self, new: NewRoom) -> Result<(RoomInfo, Vec<Arc<Event>>)> {
        let tables = &mut *self.tables()?;
        let creation = plan_creation(new, &mut tables.ids)?;
        let info = creation.room.info.clone();
        tables.rooms.push(creation.room);
        tables
            .members
            .extend(creation.members.into_iter().map(|row| (info.id, row)));
        tables.messages.extend(creation.message);
        tables
            .events
            .extend(creation.events.into_iter().map(|row| (info.id, row)));
        Ok((info, creation.committed))
    }

    async fn room(&self, room: RoomId) -> Result<Option<RoomHead>> {
        Ok(self.tables()?.room(room).map(RoomRow::head))
    }

    async fn member(&self, room: RoomId, user: UserId) -> Result<Option<Member>> {
        Ok(self.tables()?.member(room, user).map(|row| row.member.clone()))
    }

    async fn members(&self, room: RoomId) -> Result<Vec<Member>> {
        let tables = self.tables()?;
        let mut rows: Vec<_> = tables.members(room).collect();
        rows.sort_by_key(|row| row.joined);
        Ok(rows.into_iter().map(|row| row.member.clone()).collect())
    }

    async fn rooms_of(&self, user: UserId, only: Option<RoomId>) -> Result<Vec<RoomEntry>> {
        Ok(self.tables()?.rooms_of(user, only))
    }

    async fn events(&self, room: RoomId, after: Seq, limit: u32) -> Result<Vec<Arc<Event>>> {
        self.tables()?.events(room, after, limit)
    }

    async fn history(&self, room: RoomId, range: Range, limit: u32) -> Result<Page> {
        Ok(self.tables()?.history(room, range, limit))
    }

    async fn snapshot(&self, room: RoomId, limit: u32) -> Result<Option<Snapshot>> {
        let tables = self.tables()?;
        let Some(row) = tables.room(room) else { return Ok(None) };
        let mut members: Vec<_> = tables.members(room).collect();
        members.sort_by_key(|row| row.joined);
        let members = members.into_iter().map(|row| row.member.clone()).collect();
        let messages = tables.history(room, Range::Newest, limit).messages;
        let turns = tables.open_turns(Some(room));
        Ok(Some(Snapshot::new(
            row.info.clone(),
            row.epoch,
            row.seq,
            members,
            messages,
            turns,
        )))
    }

    async fn message(&self, room: RoomId, message: MessageId) -> Result<Option<Arc<Message>>> {
        Ok(self.tables()?.message(room, message))
    }

    async fn turn(&self, room: RoomId, turn: TurnId) -> Result<Option<TurnInfo>> {
        Ok(self.tables()?.turn(room, |row| row.id == turn))
    }

    async fn turn_of_message(&self, room: RoomId, message: MessageId) -> Result<Option<TurnInfo>> {
        Ok(self.tables()?.turn(room, |turn| turn.message == Some(message)))
    }

    async fn open_turns(&self, only: Option<RoomId>) -> Result<Vec<TurnInfo>> {
        Ok(self.tables()?.open_turns(only))
    }

    async fn receipt(&self, room: RoomId, message: MessageId) -> Result<Option<Receipt>> {
        let tables = self.tables()?;
        let turn = tables.turn(room, |turn| turn.message == Some(message));
        let kept = |turn: TurnInfo| tables.receipts.iter().find(|(of, _)| *of == turn.id);
        Ok(turn.and_then(kept).map(|(_, receipt)| Receipt::clone(receipt)))
    }

    async fn written_by(&self, user: UserId, after: MessageId, limit: u32) -> Result<Vec<(RoomId, MessageId)>> {
        let tables = self.tables()?;
        let theirs = |row: &&MessageRow| row.message.author.user == Some(user) && row.message.deleted_at.is_none();
        let rows = tables
            .messages
            .iter()
            .filter(theirs)
            .filter(|row| row.message.id > after);
        let mut written: Vec<_> = rows.map(|row| (row.message.room, row.message.id)).collect();
        written.sort_by_key(|(_, id)| *id);
        written.truncate(limit as usize);
        Ok(written)
    }

    async fn usage(&self, of: &UsageFilter) -> Result<UsageSum> {
        let tables = self.tables()?;
        let asked = |room: RoomId, row: &UsageRow| {
            of.room.is_none_or(|only| only == room)
                && of.user.is_none_or(|only| only == row.user)
                && of.bot.as_ref().is_none_or(|only| *only == row.bot)
                && of.since.is_none_or(|since| since <= row.day)
        };
        let mut sum = UsageSum::default();
        let rows = tables.usage.iter().filter(|(room, row)| asked(*room, row));
        rows.for_each(|(_, row)| row.add_to(&mut sum));
        Ok(sum)
    }

    async fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

#[async_trait]
impl UserStore for TableStore {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        let tables = self.tables()?;
        Ok(tables
            .users
            .iter()
            .map(|(account, _)| account)
            .find(|account| account.id == id)
            .cloned())
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        let tables = self.tables()?;
        Ok(tables
            .users
            .iter()
            .map(|(account, _)| account)
            .find(|account| account.name == name)
            .cloned())
    }

    async fn create_user(&self, new: NewAccount) -> Result<Account> {
        let mut tables = self.tables()?;
        let address = |account: &Account| account.email.as_ref().map(|email| email.to_lowercase());
        let id = UserId(tables.last_user + 1);
        let account = Account::new(id, new.name, new.email, new.now);
        for (other, _) in &tables.users {
            if other.name == account.name {
                return Err(Error::conflict("this name is taken"));
            }
            if address(other).is_some() && address(other) == address(&account) {
                return Err(Error::conflict("this e-mail address is taken"));
            }
        }
        tables.last_user = id.0;
        tables.users.push((account.clone(), new.password));
        Ok(account)
    }

    async fn credentials(&self, name: &str) -> Result<Option<(Account, String)>> {
        let tables = self.tables()?;
        let user = tables.users.iter().find(|(account, _)| account.name == name);
        Ok(user.and_then(|(account, hash)| Some((account.clone(), hash.clone()?))))
    }

    async fn set_password(&self, id: UserId, hash: &str) -> Result<()> {
        let mut tables = self.tables()?;
        let user = tables.users.iter_mut().find(|(account, _)| account.id == id);
        let (account, password) = user.ok_or_else(|| Error::not_found("no such user"))?;
        *password = Some(hash.to_owned());
        account.token_version += 1;
        Ok(())
    }

    async fn rehash(&self, id: UserId, from: &str, to: &str) -> Result<()> {
        let mut tables = self.tables()?;
        let user = tables.users.iter_mut().find(|(account, _)| account.id == id);
        if let Some((_, password)) = user.filter(|(_, password)| password.as_deref() == Some(from)) {
            *password = Some(to.to_owned());
        }
        Ok(())
    }

    async fn end_tokens(&self, id: UserId) -> Result<()> {
        let mut tables = self.tables()?;
        let user = tables.users.iter_mut().find(|(account, _)| account.id == id);
        user.ok_or_else(|| Error::not_found("no such user"))?.0.token_version += 1;
        Ok(())
    }

    async fn delete_user(&self, id: UserId) -> Result<()> {
        let mut tables = self.tables()?;
        let at = tables.users.iter().position(|(account, _)| account.id == id);
        tables.users.remove(at.ok_or_else(|| Error::not_found("no such user"))?);
        Ok(())
    }

    async fn search(&self, text: &str, limit: u32, except: UserId) -> Result<Vec<Account>> {
        let tables = self.tables()?;
        let accounts = tables.users.iter().map(|(account, _)| account);
        let mut found: Vec<_> = accounts
            .filter(|account| account.id != except && account.name.contains(text))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.truncate(limit as usize);
        Ok(found)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // In an application this is a test.
    store_contract(|| async { TableStore::default() }).await;
    println!("The store keeps the contract.");

    let engine = Engine::builder(TableStore::default())
        .bot_fn("echo", |turn, out| async move {
            out.push(turn.prompt).await?;
            Ok(Finish::stop())
        })
        .build()
        .await?;
    let alice = engine.create_user("alice").await?;
    let bob = engine.create_user("bob").await?;
    let room = alice.create_room("lab").await?;
    room.invite(&bob).await?;
    let mut events = bob.room(room.id()).await?.subscribe().await?;
    let hello = room.send("Hello, Bob!").await?.message;
    room.edit(hello.id, "Hello, Bob.").await?;
    if let Some(turn) = bob.room(room.id()).await?.send("/echo What is kept here?").await?.turn {
        turn.ended().await?;
    }
    let entry = room.entry().await?;
    engine.close(Duration::from_secs(5)).await;
    while let Some(event) = events.next().await {
        match event? {
            Event::MessagePosted { message, .. } => println!("{}: {}", message.author, message.text),
            Event::MessageEdited { message, .. } => println!("{} (edited): {}", message.author, message.text),
            Event::TurnEnded { bot, text, .. } => println!("{bot}: {text}"),
            _ => {}
        }
    }
    println!(
        "Alice has {} unread messages, and the log has {} events.",
        entry.unread, entry.seq
    );
    Ok(())
}
