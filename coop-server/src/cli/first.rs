//! A whole database of the first system, taken over: everybody with their password, every room with its messages.
//!
//! What cannot be here as it was there is changed as little as possible, and told.

mod naming;
mod rows;

use super::accounts::{alone, lasting};
use super::serve::with_bots;
use super::{Fault, print};
use crate::config::Config;
use coop_core::store::{NewAccount, Store};
use coop_core::{
    Archive, Bounds, Engine, ForeignMember, ForeignMessage, ForeignRoom, Speaker, Timestamp, UserId, names, password,
};
use futures::TryStreamExt;
use naming::Naming;
use rows::{Chat, Message, Participant, Tables, User};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Who the bot was, as a user.
const BOT_USER: &str = "gemini-ai";
/// Where its address was.
const BOT_HOST: &str = "@system.bot";
/// How bots were asked.
const ASK: &str = "/bot ";
/// Who speaks for the bot from now on: its answers are its own in the context of the next ones.
const BOT: &str = "gemini";
/// What it is called where nothing else is known.
const BOT_NAME: &str = "AI Assistant";
/// The most members of a room.
const MAX_MEMBERS: usize = Bounds::CEILING.room_members as usize;

/// Takes it over, into a database that has nobody yet.
pub(super) async fn take_over(config: &Config, from: &str) -> Result<(), Fault> {
    let database = lasting(config)?;
    let wrong = |words: String| Fault::Database(format!("the database to import: {words}"));
    let mut tables = Tables::open(from).await.map_err(wrong)?;
    let users = tables.users().await.map_err(wrong)?;
    let chats = tables.chats().await.map_err(wrong)?;
    let participants = tables.participants().await.map_err(wrong)?;
    // A wrong column is told before anything is made.
    let mut messages = tables.messages().await.map_err(wrong)?;

    let store = alone(database).await?;
    let engine = with_bots(config, Engine::builder_on(Arc::clone(&store)))?
        .build()
        .await?;
    let done = async {
        let anybody = store.search("", 1, UserId(0)).await?;
        if !anybody.is_empty() {
            return Err(Fault::Usage(format!(
                "{database} has users already; a whole database can only be imported into a new one"
            )));
        }
        let mut told = Told::default();
        let people = People::make(&*store, users, engine.bots(), &mut told).await?;
        let mut rooms = Rooms::new(&engine, &people, chats, participants);
        while let Some(message) = messages.try_next().await.map_err(wrong)? {
            rooms.add(message, &mut told).await?;
        }
        rooms.end(&mut told).await?;
        Ok(told)
    }
    .await;
    engine.close(Duration::ZERO).await;
    let told = done?;
    for line in &told.changed {
        eprintln!("{line}");
    }
    eprintln!(
        "{} users, {} rooms, {} messages.",
        told.users, told.rooms, told.messages
    );
    print(told.ids.trim_end())
}

/// What the operator has to know.
#[derive(Default)]
struct Told {
    /// What is not as it was.
    changed: Vec<String>,
    /// `user OLD NEW NAME` and `room OLD NEW NAME`, by tabulators.
    ids: String,
    users: u64,
    rooms: u64,
    messages: u64,
}

impl Told {
    fn changed(&mut self, words: String) {
        self.changed.push(words);
    }

    fn id(&mut self, what: &str, then: i64, now: i64, name: &str) {
        self.ids.push_str(&format!("{what}\t{then}\t{now}\t{name}\n"));
    }
}

/// Who somebody was is who they are now.
struct People {
    names: HashMap<i64, String>,
    /// What bots that were users were called.
    bots: HashMap<i64, String>,
}

impl People {
    async fn make(store: &dyn Store, users: Vec<User>, bots: Vec<String>, told: &mut Told) -> Result<Self, Fault> {
        let mut people = Self {
            names: HashMap::new(),
            bots: HashMap::new(),
        };
        // By both: anybody could have had the one or the other, and would speak as a bot now.
        let is_bot =
            |user: &User| user.name == BOT_USER && user.email.as_ref().is_some_and(|email| email.ends_with(BOT_HOST));
        let (was_bot, users): (Vec<_>, Vec<_>) = users.into_iter().partition(is_bot);
        for user in was_bot {
            told.changed(format!("user {} {:?}: is the bot {BOT} here", user.id, user.name));
            people.bots.insert(user.id, user.name);
        }

        let mut naming = Naming::new(bots);
        for user in &users {
            if naming.keep(&user.name) {
                people.names.insert(user.id, user.name.clone());
            }
        }
        let mut addresses = BTreeSet::new();
        for user in users {
            let was = format!("user {} {:?}", user.id, user.name);
            let name = match people.names.get(&user.id) {
                Some(name) => name.clone(),
                None => {
                    let name = naming.near(&user.name);
                    told.changed(format!("{was}: is called {name} here"));
                    people.names.insert(user.id, name.clone());
                    name
                }
            };
            let email = user.email.filter(|email| !email.is_empty()).filter(|email| {
                let fault = match names::check_email(email) {
                    Ok(key) if addresses.insert(key.clone()) => return true,
                    Ok(_) => "the address is somebody else's already",
                    Err(_) => "the address is none",
                };
                told.changed(format!("{was}: has no address here: {fault}"));
                false
            });
            let password = user.hash.filter(|hash| password::is_hash(hash));
            if password.is_none() {
                told.changed(format!(
                    "{was}: cannot log in before `coop-server user password {name}`: the hash of the password is of no kind \
                     that is known here"
                ));
            }
            let made = store.create_user(NewAccount {
                name,
                email,
                password,
                now: user.created_at.unwrap_or_default(),
            });
            let made = made.await?;
            told.id("user", user.id, made.id.0, &made.name);
            told.users += 1;
        }
        Ok(people)
    }

    fn speaker(&self, message: &Message) -> Speaker {
        let user = message.user;
        let bot = user.and_then(|user| self.bots.get(&user));
        match user.and_then(|user| self.names.get(&user)) {
            Some(name) if !message.is_bot => Speaker::Person(name.clone()),
            _ if message.is_bot || bot.is_some() => Speaker::Bot {
                handle: BOT.to_owned(),
                name: bot.map_or(BOT_NAME, String::as_str).to_owned(),
            },
            _ => Speaker::Former(user.map_or("unknown".to_owned(), |user| format!("former user {user}"))),
        }
    }
}

/// The rooms that are still to be made, while messages come in their order.
struct Rooms<'a> {
    engine: &'a Engine,
    people: &'a People,
    chats: BTreeMap<i64, Chat>,
    members: HashMap<i64, Vec<Participant>>,
    open: Option<Open>,
    /// Messages in rooms that there are not.
    strays: BTreeMap<i64, u64>,
}

/// The room whose messages come.
struct Open {
    chat: Chat,
    messages: Vec<ForeignMessage>,
    /// Which message asked last, and has no answer yet.
    asked: Option<usize>,
}

impl<'a> Rooms<'a> {
    fn new(engine: &'a Engine, people: &'a People, chats: Vec<Chat>, participants: Vec<Participant>) -> Self {
        let mut members: HashMap<_, Vec<_>> = HashMap::new();
        for participant in participants {
            members.entry(participant.chat).or_default().push(participant);
        }
        Self {
            engine,
            people,
            chats: chats.into_iter().map(|chat| (chat.id, chat)).collect(),
            members,
            open: None,
            strays: BTreeMap::new(),
        }
    }

    async fn add(&mut self, message: Message, told: &mut Told) -> Result<(), Fault> {
        let chat = message.chat;
        if self.open.as_ref().is_none_or(|open| open.chat.id != chat) {
            self.finish(told).await?;
            // In the order of their ids, also those without messages.
            while self.chats.first_key_value().is_some_and(|(id, _)| *id < chat) {
                self.open = self.chats.pop_first().map(|(_, chat)| Open::new(chat));
                self.finish(told).await?;
            }
            self.open = self.chats.remove(&chat).map(Open::new);
        }
        match &mut self.open {
            Some(open) => {
                let speaker = self.people.speaker(&message);
                open.add(speaker, message, told);
            }
            None => *self.strays.entry(message.chat).or_default() += 1,
        }
        Ok(())
    }

    async fn end(mut self, told: &mut Told) -> Result<(), Fault> {
        self.finish(told).await?;
        while let Some((_, chat)) = self.chats.pop_first() {
            self.open = Some(Open::new(chat));
            self.finish(told).await?;
        }
        for (chat, messages) in self.strays {
            told.changed(format!(
                "chat {chat}: is not there, but had {messages} messages; they are left out"
            ));
        }
        Ok(())
    }

    /// Makes the open room.
    async fn finish(&mut self, told: &mut Told) -> Result<(), Fault> {
        let Some(Open { chat, messages, .. }) = self.open.take() else {
            return Ok(());
        };
        let was = format!("chat {} {:?}", chat.id, chat.name.as_deref().unwrap_or_default());
        let since = chat
            .created_at
            .or(messages.first().map(|said| said.at))
            .unwrap_or_default();
        let rows = self.members.remove(&chat.id).unwrap_or_default();
        let mut members = self.members_of(&rows, since);
        if members.len() > MAX_MEMBERS {
            let more = members.split_off(MAX_MEMBERS).len();
            told.changed(format!(
                "{was}: has {MAX_MEMBERS} members here, without the last {more}"
            ));
        }
        let owner = chat.owner.and_then(|owner| self.people.names.get(&owner));
        let owner = match (owner, members.first().map(|member| member.name.clone())) {
            (Some(owner), _) => {
                if !members.iter().any(|member| &member.name == owner) {
                    members.truncate(MAX_MEMBERS - 1);
                    members.insert(
                        0,
                        ForeignMember {
                            name: owner.clone(),
                            joined_at: since,
                            read_at: None,
                        },
                    );
                    told.changed(format!("{was}: {owner} owned it, and is a member here"));
                }
                owner.clone()
            }
            (None, Some(first)) => {
                told.changed(format!("{was}: is {first}'s here, because its owner is gone"));
                first
            }
            (None, None) => {
                let count = messages.len();
                told.changed(format!(
                    "{was}: is left out with {count} messages, because nobody is in it"
                ));
                return Ok(());
            }
        };
        let greets = messages
            .first()
            .is_some_and(|said| matches!(said.by, Speaker::Bot { .. }));
        let is_ai_chat = chat.is_ai_chat.unwrap_or(!chat.is_group && greets);
        let name = room_name(chat.name.as_deref(), is_ai_chat, &members);
        if chat.name.as_ref().is_some_and(|before| *before != name) {
            told.changed(format!("{was}: is called {name:?} here"));
        }
        let count = messages.len() as u64;
        let archive = Archive::foreign(ForeignRoom {
            name,
            owner,
            is_group: chat.is_group,
            is_ai_chat,
            created_at: since,
            members,
            messages,
        })?;
        let made = self.engine.import_room(archive).await?;
        told.id("room", chat.id, made.id.0, &made.name);
        told.rooms += 1;
        told.messages += count;
        Ok(())
    }

    fn members_of(&self, rows: &[Participant], since: Timestamp) -> Vec<ForeignMember> {
        let mut seen = BTreeSet::new();
        let known = rows
            .iter()
            .filter_map(|row| Some((row, self.people.names.get(&row.user)?)));
        let known = known.filter(|(row, _)| seen.insert(row.user));
        let members = known.map(|(row, name)| ForeignMember {
            name: name.clone(),
            joined_at: row.joined_at.unwrap_or(since),
            read_at: row.last_read_at,
        });
        members.collect()
    }
}

impl Open {
    fn new(chat: Chat) -> Self {
        Self {
            chat,
            messages: Vec::new(),
            asked: None,
        }
    }

    fn add(&mut self, by: Speaker, message: Message, told: &mut Told) {
        let number = self.messages.len();
        let is_bot = matches!(by, Speaker::Bot { .. });
        let reply_to = match is_bot {
            true => self.asked.take(),
            false => None,
        };
        if !is_bot && message.content.starts_with(ASK) {
            self.asked = Some(number);
        }
        let before = self.messages.last().map(|said| said.at).or(self.chat.created_at);
        let at = message.created_at.or(before).unwrap_or_default();
        let mut text = message.content;
        let chat = self.chat.id;
        if text.contains('\0') {
            text = text.replace('\0', "\u{fffd}");
            told.changed(format!("chat {chat}: a message had a NUL character"));
        }
        let pieces = match is_bot {
            true => vec![text],
            false => in_pieces(text),
        };
        if pieces.len() > 1 {
            told.changed(format!(
                "chat {chat}: a message of more than 1 MiB is {} messages here",
                pieces.len()
            ));
        }
        self.messages.extend(pieces.into_iter().map(|text| ForeignMessage {
            by: by.clone(),
            text,
            at,
            reply_to,
        }));
    }
}

/// A text as messages that are not too long.
fn in_pieces(mut text: String) -> Vec<String> {
    let mut pieces = Vec::new();
    while text.len() > Bounds::CEILING.text_bytes {
        let rest = text.split_off(text.floor_char_boundary(Bounds::CEILING.text_bytes));
        pieces.push(std::mem::replace(&mut text, rest));
    }
    pieces.push(text);
    pieces
}

/// What a room is called that may have no name, or one that is none here.
fn room_name(name: Option<&str>, is_ai_chat: bool, members: &[ForeignMember]) -> String {
    let plain: String = name.unwrap_or_default().replace(char::is_control, " ");
    let named: String = plain.chars().take(Bounds::CEILING.room_name_chars).collect();
    if !named.trim().is_empty() {
        return named;
    }
    if is_ai_chat {
        return "AI Chat".to_owned();
    }
    let all: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    all.join(", ").chars().take(Bounds::CEILING.room_name_chars).collect()
}
