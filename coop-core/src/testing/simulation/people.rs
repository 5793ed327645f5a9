//! People: they talk, resend, change their minds, govern and read, each at their own random pace.

use super::servers::{Server, Servers};
use super::world::{Attempt, Removal, World};
use super::{Shown, wire};
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, UserId};
use crate::model::Draft;
use crate::room::{Room, Sent};
use crate::store::RoomStore;
use crate::subscription::Subscription;
use crate::user::RoomDraft;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];

/// Makes the people and their two rooms, if this world has none yet.
pub(super) async fn found(world: &Arc<World>, servers: &Servers) -> std::result::Result<(), String> {
    let say = |error: crate::Error| error.to_string();
    if !world.ledger().people.is_empty() {
        return Ok(());
    }
    let engine = &servers.any().engine;
    let mut people = Vec::new();
    for name in NAMES {
        people.push(engine.create_user(name).await.map_err(say)?);
    }
    for name in ["one", "two"] {
        let draft = RoomDraft::named(name).with(people[1..].iter().cloned());
        // A fault may hide the room from its maker; it is there all the same.
        if let Ok(room) = people[0].create_room(draft).await {
            world.ledger().rooms.push(room.id());
        }
    }
    world.ledger().people = people.iter().map(|user| user.id()).collect();
    Ok(())
}

/// Sets everyone to work.
pub(super) fn wake(world: &Arc<World>, servers: &Arc<Servers>) -> Vec<JoinHandle<()>> {
    let (people, rooms) = {
        let ledger = world.ledger();
        (ledger.people.clone(), ledger.rooms.clone())
    };
    let mut actors = Vec::new();
    for &user in &people {
        let person = Person {
            world: Arc::clone(world),
            servers: Arc::clone(servers),
            user,
        };
        actors.push(tokio::spawn(person.live()));
        for &room in &rooms {
            let person = Person {
                world: Arc::clone(world),
                servers: Arc::clone(servers),
                user,
            };
            actors.push(tokio::spawn(person.read(room)));
        }
        actors.push(tokio::spawn(wire::live(Arc::clone(world), Arc::clone(servers), user)));
    }
    actors
}

/// Waits until every turn has ended, as every turn must without any restart.
pub(super) async fn turns_end(world: &Arc<World>) -> std::result::Result<(), String> {
    for _ in 0..600 {
        let open = RoomStore::open_turns(&world.disk, None).now_or_never();
        match open {
            Some(Ok(open)) if open.is_empty() => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Err(format!(
        "I4: turns that never end: {:?}",
        RoomStore::open_turns(&world.disk, None).now_or_never()
    ))
}

struct Person {
    world: Arc<World>,
    servers: Arc<Servers>,
    user: UserId,
}

impl Person {
    async fn live(self) {
        while !self.world.is_quiet() {
            // Several servers take seconds to find out about each other.
            self.world.dawdle(if self.world.is_shared() { 300 } else { 90 }).await;
            let rooms = self.world.ledger().rooms.clone();
            let Some(&id) = rooms.get(self.world.roll(rooms.len())) else {
                continue;
            };
            let server = self.servers.any();
            let Ok(user) = server.engine.user(self.user).await else {
                continue;
            };
            let Ok(room) = user.room(id).await else { continue };
            self.do_something(&server, &room).await;
        }
    }

    async fn do_something(&self, server: &Server, room: &Room) {
        match self.world.roll(24) {
            0..=8 => self.say_something_new(room).await,
            9..=12 => self.say_it_again(room).await,
            13 => self.change_something(room).await,
            14 => self.delete_something(room).await,
            15 | 16 => self.stop_something(room).await,
            17 => drop(room.mark_read(Seq(1 + self.world.roll(30) as i64)).await),
            18 => drop(room.typing().await),
            19 => self.remove_somebody(server, room).await,
            20 | 21 => self.invite_somebody(server, room).await,
            22 => drop(room.rename(format!("room {}", self.world.roll(9))).await),
            _ => self.rarely(room).await,
        }
    }

    fn somebody(&self) -> UserId {
        let people = self.world.ledger().people.clone();
        people[self.world.roll(people.len())]
    }

    async fn say_something_new(&self, room: &Room) {
        let text = match self.world.roll(6) {
            0 => "/bot go on",
            1 => "hello @ben, please",
            2 => "/ben and @ann both",
            _ => "just talk",
        };
        let key = {
            let mut ledger = self.world.ledger();
            ledger.next_client_id += 1;
            let key = (room.id(), self.user, format!("c{}", ledger.next_client_id));
            let attempt = Attempt {
                text: format!("{text} {}", key.2),
                ..Attempt::default()
            };
            ledger.sent.insert(key.clone(), attempt);
            key
        };
        self.send(room, &key).await;
    }

    async fn say_it_again(&self, room: &Room) {
        let mine = |key: &&(RoomId, UserId, String)| key.0 == room.id() && key.1 == self.user;
        let keys: Vec<_> = self.world.ledger().sent.keys().filter(mine).cloned().collect();
        let Some(key) = keys.get(self.world.roll(keys.len())) else {
            return;
        };
        if self.world.roll(4) == 0 {
            self.send_another_body(room, key).await;
        } else {
            self.send(room, key).await;
        }
    }

    async fn send(&self, room: &Room, key: &(RoomId, UserId, String)) {
        let Some(attempt) = self.world.ledger().sent.get(key).cloned() else {
            return;
        };
        let result = room.send(Draft::text(&attempt.text).client_id(&key.2)).await;
        match result {
            Ok(sent) => self.acknowledged(key, &sent),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.world
                    .breaks(format!("I5: {key:?} sent again with the same body: {error}"));
            }
            Err(_) => {}
        }
    }

    fn acknowledged(&self, key: &(RoomId, UserId, String), sent: &Sent) {
        let mut ledger = self.world.ledger();
        let turns: Vec<_> = sent.turns.iter().map(|turn| (key.0, turn.id())).collect();
        ledger.turns.extend(turns);
        let Some(attempt) = ledger.sent.get_mut(key) else {
            return;
        };
        let before = attempt.message.replace(sent.message.id);
        attempt.turns = sent.turns.len();
        if before.is_some_and(|before| before != sent.message.id || !sent.duplicate) {
            self.world
                .breaks(format!("I5: {key:?} was {before:?} and is now {}", sent.message.id));
        }
    }

    async fn send_another_body(&self, room: &Room, key: &(RoomId, UserId, String)) {
        let Some(before) = self.world.ledger().sent.get(key).cloned() else {
            return;
        };
        let text = format!("not: {}", before.text);
        let result = room.send(Draft::text(&text).client_id(&key.2)).await;
        match (before.message, result) {
            (Some(_), Ok(sent)) => {
                self.world.breaks(format!(
                    "I5: {key:?} with another body was accepted as {}",
                    sent.message.id
                ));
            }
            (Some(_), Err(_)) => {}
            // The first body never arrived; this is the one that holds now.
            (None, Ok(sent)) => {
                self.world.ledger().sent.insert(
                    key.clone(),
                    Attempt {
                        text,
                        ..Attempt::default()
                    },
                );
                self.acknowledged(key, &sent);
            }
            // Either of the two may be stored: nothing can be expected of them any more.
            (None, Err(_)) => drop(self.world.ledger().sent.remove(key)),
        }
    }

    fn one_of_mine(&self, room: RoomId) -> Option<MessageId> {
        let mut ledger = self.world.ledger();
        let mine = ledger
            .sent
            .iter()
            .filter(|(key, attempt)| key.0 == room && key.1 == self.user && attempt.message.is_some());
        let keys: Vec<_> = mine.map(|(key, _)| key.clone()).collect();
        let key = keys.get(self.world.roll(keys.len()))?;
        let attempt = ledger.sent.get_mut(key)?;
        attempt.touched = true;
        attempt.message
    }

    async fn change_something(&self, room: &Room) {
        if let Some(message) = self.one_of_mine(room.id()) {
            let _ = room.edit(message, format!("changed {}", self.world.roll(99))).await;
        }
    }

    async fn delete_something(&self, room: &Room) {
        let Some(message) = self.one_of_mine(room.id()) else {
            return;
        };
        // The answer to it, now and then, which only the owner may.
        let message = if self.world.roll(2) == 0 {
            message
        } else {
            MessageId(message.0 + 1)
        };
        self.world.ledger().deleted.insert(message);
        for attempt in self
            .world
            .ledger()
            .sent
            .values_mut()
            .filter(|attempt| attempt.message == Some(message))
        {
            attempt.touched = true;
        }
        let _ = room.delete(message).await;
    }

    async fn stop_something(&self, room: &Room) {
        let turns: Vec<_> = self
            .world
            .ledger()
            .turns
            .iter()
            .filter(|turn| turn.0 == room.id())
            .copied()
            .collect();
        if let Some((_, turn)) = turns.iter().rev().nth(self.world.roll(turns.len().min(3))) {
            let _ = room.stop(*turn).await;
        }
    }

    async fn remove_somebody(&self, server: &Server, room: &Room) {
        let somebody = self.somebody();
        let key = (room.id(), somebody);
        let invited = self.world.ledger().invited(key);
        let result = if somebody == self.user {
            room.leave().await
        } else {
            room.remove(somebody).await
        };
        let removal = Removal {
            at: self.world.now(),
            server: server.number,
        };
        let mut ledger = self.world.ledger();
        // An invitation meanwhile may have come after it.
        if result.is_ok() && ledger.invited(key) == invited && !ledger.is_inviting(key) {
            ledger.removed.insert(key, removal);
        }
    }

    async fn invite_somebody(&self, server: &Server, room: &Room) {
        let somebody = self.somebody();
        let key = (room.id(), somebody);
        {
            let mut ledger = self.world.ledger();
            ledger.removed.remove(&key);
            let invitations = ledger.inviting.entry(key).or_default();
            invitations.begun += 1;
            invitations.under_way += 1;
        }
        if let Ok(user) = server.engine.user(somebody).await {
            let _ = room.invite(&user).await;
        }
        self.world.ledger().inviting.entry(key).or_default().under_way -= 1;
    }

    async fn rarely(&self, room: &Room) {
        match self.world.roll(8) {
            0 => {
                let second = self.world.ledger().rooms.get(1).copied();
                if second == Some(room.id()) {
                    self.world.ledger().doomed.insert(room.id());
                    let _ = room.delete_room().await;
                }
            }
            1 => drop(room.hand_over(self.somebody()).await),
            _ => {}
        }
    }

    /// Reads one room over and over: from where it stopped, at its own pace, at any server.
    async fn read(self, room: RoomId) {
        let mut shown = self.world.ledger().shown.remove(&(room, self.user));
        loop {
            let quiet = self.world.is_quiet();
            let server = self.servers.any();
            if let Some(shown) = &mut shown {
                shown.moved = self.world.is_shared();
            }
            match self.subscribe(&server, room, shown.as_ref()).await {
                Ok(events) => {
                    if self.follow(&server, room, &mut shown, events).await {
                        break;
                    }
                }
                Err(error) => {
                    let away = self.world.is_shared() && error.kind() != ErrorKind::NotFound;
                    if !away {
                        shown = None;
                    }
                    self.world.dawdle(40).await;
                    if quiet && !away {
                        break;
                    }
                }
            }
        }
        if let Some(shown) = shown {
            let mut ledger = self.world.ledger();
            ledger.finally.push(shown.clone());
            ledger.shown.insert((room, self.user), shown);
        }
    }

    async fn subscribe(&self, server: &Server, room: RoomId, shown: Option<&Shown>) -> Result<Subscription> {
        let room = server.engine.user(self.user).await?.room(room).await?;
        match shown {
            Some(shown) => room.resume(shown.position.clone()).await,
            None => room.subscribe().await,
        }
    }

    /// Reads until it loses interest or its server, or, once everything is quiet, to the end: then it returns true.
    async fn follow(&self, server: &Server, room: RoomId, shown: &mut Option<Shown>, mut events: Subscription) -> bool {
        loop {
            // What it shows must survive a crash at any moment, as a client's screen does.
            if let Some(shown) = shown.as_ref() {
                self.world.ledger().shown.insert((room, self.user), shown.clone());
            }
            if self.world.roll(5) == 0 {
                self.world.dawdle(60).await;
            }
            let next = tokio::select! {
                biased;
                () = server.died.cancelled() => return false,
                next = tokio::time::timeout(self.world.silence(), events.next()) => next,
            };
            match next {
                // Nothing for that long: everything is quiet, and all has been read.
                Err(_) if self.world.is_quiet() => return true,
                Err(_) => {}
                Ok(None) => return false,
                Ok(Some(Err(_))) => self.world.dawdle(20).await,
                Ok(Some(Ok(Event::Gone { .. }))) => {
                    *shown = None;
                    self.world.ledger().shown.remove(&(room, self.user));
                    return false;
                }
                Ok(Some(Ok(event))) => {
                    take(&self.world, server, self.user, room, shown, &event, self.world.now());
                    if !self.world.is_quiet() && self.world.roll(40) == 0 {
                        return false;
                    }
                }
            }
        }
    }
}

/// Applies an event to what a reader shows, and notes what must not have happened. `at` is when the server let go of it: what
/// was begun before a removal may still arrive.
pub(super) fn take(
    world: &World,
    server: &Server,
    user: UserId,
    room: RoomId,
    shown: &mut Option<Shown>,
    event: &Event,
    at: i64,
) {
    world.trace(|| format!("{user} at server {} reads {event:?}", server.number));
    let removal = world.ledger().removed.get(&(room, user)).copied();
    if let Some(removal) = removal.filter(|removal| world.must_know(server, *removal, at)) {
        world.breaks(format!(
            "I7: {user} was removed from {room} at {} and got {event:?} at {}",
            removal.at,
            world.now()
        ));
    }
    match shown {
        None => *shown = Shown::begin(event),
        Some(shown) => {
            if let Err(broken) = shown.apply(event) {
                world.breaks(format!("{broken}\n  at {user} in {room}"));
            }
        }
    }
    if let (Some(shown), Event::Delta { message, .. } | Event::Tape { message, .. }) = (shown, event) {
        let ledger = world.ledger();
        let (Some(turn), Some(message)) = (shown.turns.get(message), shown.messages.get(message)) else {
            return;
        };
        let wrote = ledger.wrote.get(turn).map_or("", |wrote| wrote.text.as_str());
        if !wrote.starts_with(&message.text) && !ledger.deleted.contains(&message.id) {
            world.breaks(format!(
                "I2: {:?} is shown of turn {turn}, whose bot wrote {wrote:?}",
                message.text
            ));
        }
    }
}
