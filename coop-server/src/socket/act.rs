//! Acting: what the client asks, one thing after the other in the order of asking.

use super::connection::{Connection, Ending};
use super::deliver::encode;
use super::outbox::Written;
use super::wire::Slot;
use crate::dialect::Command;
use crate::dialect::seed::{NOT_AUTHORIZED, Seed, answer};
use crate::limits::Asking;
use coop_core::command::asks;
use coop_core::live::{Cursor, Level};
use coop_core::{Attachment, Draft, ErrorKind, HintKind, Room, RoomId, Start, TurnHandle};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A leave takes effect after this, unless the room is joined again: the seed's page leaves and joins all the time.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Actor<'a> {
    connection: &'a Connection,
    seed: &'a Seed,
    attachment: &'a Attachment,
    /// Rooms to be left, in the order of time; each once.
    leaves: Vec<(Instant, RoomId)>,
    /// When typing was last passed on, for the rooms where that was a short time ago.
    typed: Vec<(Instant, RoomId)>,
}

impl<'a> Actor<'a> {
    pub(super) fn new(connection: &'a Connection, seed: &'a Seed, attachment: &'a Attachment) -> Self {
        Self {
            connection,
            seed,
            attachment,
            leaves: Vec::new(),
            typed: Vec::new(),
        }
    }

    /// Acts until nothing more will be asked.
    pub(super) async fn run(mut self) -> Result<(), Ending> {
        loop {
            let next_leave = self.leaves.first().map(|(at, _)| *at);
            let command = tokio::select! {
                biased;
                command = self.connection.next_command() => command,
                () = until(next_leave) => {
                    let (_, room) = self.leaves.remove(0);
                    self.leave_now(room);
                    continue;
                }
            };
            match command {
                // In a box of its own, so that an idle connection does not keep room for all that a command may need.
                Some(command) => match Box::pin(self.carry_out(command)).await {
                    // It cannot be told, but what it has said is said.
                    Ok(()) | Err(Ending::Lost) => {}
                    Err(ending) => return Err(ending),
                },
                None => return Ok(()),
            }
        }
    }

    async fn carry_out(&mut self, command: Command) -> Result<(), Ending> {
        match command {
            Command::Join(room) => self.join(room).await,
            Command::Leave(room) => {
                self.leave(room);
                Ok(())
            }
            Command::Message(room, text) => self.say(room, text).await,
            Command::Typing(room) => self.typing(room).await,
        }
    }

    /// Joins a room. A refusal is no error of the client's: the seed's page joins and leaves all the time, also a room
    /// that it does not know it has lost.
    async fn join(&mut self, room: RoomId) -> Result<(), Ending> {
        self.leaves.retain(|(_, other)| *other != room);
        let Some(slot) = self.connection.slot(room).await else {
            return self.connection.tell(NOT_AUTHORIZED, None);
        };
        if slot.level == Level::Full {
            return Ok(());
        }
        let joining = |slot: &Slot| slot.level == Level::Full && slot.cursor == Cursor::NOWHERE;
        // Until the room is loaded no offer fits. The slot may have moved on since the look: what counts is where it
        // stands now.
        let from = self.connection.wire().slot(room).map(|slot| {
            slot.level = Level::Full;
            std::mem::replace(&mut slot.cursor, Cursor::NOWHERE)
        });
        let Some(from) = from else {
            return self.connection.tell(NOT_AUTHORIZED, None);
        };
        let pulled = match self.attachment.join(&slot.feed, Start::Since(from.seq())).await {
            Ok(pulled) => pulled,
            Err(error) => {
                if let Some(slot) = self.connection.wire().slot(room).filter(|slot| joining(slot)) {
                    (slot.level, slot.cursor) = (Level::Events, from);
                }
                self.attachment.leave(&slot.feed);
                self.connection.fall_behind();
                let words = match error.kind() {
                    ErrorKind::NotFound => NOT_AUTHORIZED,
                    _ => error.words(),
                };
                return self.connection.tell(words, error.retry_after());
            }
        };
        let frames = encode(self.seed, Level::Full, &pulled, &slot.feed, self.attachment).await;
        loop {
            self.connection.until_clear().await?;
            match self.connection.write(room, joining, &pulled, &frames) {
                Some(Written::Nothing) => self.connection.until_writable().await?,
                Some(_) => break,
                None => return Ok(()),
            }
        }
        self.connection.fall_behind();
        self.attachment.hint(&slot.feed, HintKind::Presence { here: true });
        self.show_just_ended(&slot).await
    }

    /// Shows the newest message once more if it is an answer that has just ended: the client may have read its text
    /// before the end, and it joined after. Anywhere but at the bottom it would be shown twice.
    async fn show_just_ended(&self, slot: &Slot) -> Result<(), Ending> {
        let ended = self.seed.just_ended(slot.room);
        if ended.is_empty() {
            return Ok(());
        }
        let last = match self.attachment.room(&slot.feed).entry().await {
            Ok(entry) => entry.last_message,
            Err(_) => return Ok(()),
        };
        match last.filter(|message| ended.contains(&message.id)) {
            Some(message) => self.connection.write_of(slot.room, &answer(&message)).await,
            None => Ok(()),
        }
    }

    fn leave(&mut self, room: RoomId) {
        let joined = self
            .connection
            .wire()
            .slot(room)
            .is_some_and(|slot| slot.level == Level::Full);
        if joined && self.leaves.iter().all(|(_, other)| *other != room) {
            self.leaves.push((Instant::now() + LEAVE_AFTER, room));
        }
    }

    fn leave_now(&self, room: RoomId) {
        let feed = match self.connection.wire().slot(room) {
            Some(slot) if slot.level == Level::Full => {
                slot.level = Level::Events;
                slot.feed.clone()
            }
            _ => return,
        };
        self.attachment.leave(&feed);
        self.connection.fall_behind();
        self.attachment.hint(&feed, HintKind::Presence { here: false });
    }

    async fn say(&self, room: RoomId, text: String) -> Result<(), Ending> {
        let Some(slot) = self.connection.slot(room).await else {
            return self.connection.refuse(NOT_AUTHORIZED, None);
        };
        let house = &self.connection.house;
        let bots: Vec<_> = house.bots.iter().map(String::as_str).collect();
        let asked = asks(&text, &bots, false).len();
        // In an AI chat somebody alone asks with every message; whether they are alone the commit decides.
        let perhaps = slot.feed.is_ai_chat() && asked == 0 && !bots.is_empty();
        let room = self.attachment.room(&slot.feed);
        let mut draft = Draft::text(text);
        let (mut asking, mut refused) = (None, None);
        if asked > 0 || perhaps {
            match house.tolls.ask(self.connection.user, asked.max(1)) {
                Ok(allowed) => asking = Some(allowed),
                Err(error) if slot.feed.is_ai_chat() => {
                    draft = draft.asking_nobody();
                    refused = Some(error);
                }
                Err(error) => return self.connection.refuse(error.words(), error.retry_after()),
            }
        }
        match room.send(draft).await {
            Ok(sent) => {
                self.owe(asking, &sent.turns);
                for error in sent.turns.iter().filter_map(|turn| turn.refused()) {
                    self.connection.tell(&error.words, None)?;
                }
                match refused {
                    Some(error) if !perhaps || is_alone(&room).await => {
                        self.connection.refuse(error.words(), error.retry_after())
                    }
                    _ => Ok(()),
                }
            }
            Err(error) => {
                asking.into_iter().for_each(Asking::forget);
                match error.kind() {
                    ErrorKind::NotFound => self.connection.refuse(NOT_AUTHORIZED, None),
                    _ => self.connection.refuse(error.words(), error.retry_after()),
                }
            }
        }
    }

    /// Keeps the place of an ask until all its answers have ended, or gives back what it cost if it asked nobody.
    fn owe(&self, asking: Option<Asking>, turns: &[TurnHandle]) {
        let Some(asking) = asking else { return };
        let owed: Vec<_> = turns.iter().filter(|turn| turn.refused().is_none()).cloned().collect();
        if owed.is_empty() {
            asking.forget();
            return;
        }
        let closing = self.connection.house.closing.clone();
        self.connection.house.sockets.spawn(async move {
            let _held = asking;
            for turn in owed {
                tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    // However it ended, and also if nobody can say.
                    _ = turn.ended() => {}
                }
            }
        });
    }

    async fn typing(&mut self, room: RoomId) -> Result<(), Ending> {
        let Some(slot) = self.connection.slot(room).await else {
            return self.connection.refuse(NOT_AUTHORIZED, None);
        };
        let now = Instant::now();
        let every = self.connection.house.limits.typing_every;
        self.typed.retain(|(at, _)| now < *at + every);
        if self.typed.iter().all(|(_, other)| *other != room) {
            self.typed.push((now, room));
            self.attachment.hint(&slot.feed, HintKind::Typing);
        }
        Ok(())
    }
}

/// Whether nobody else is in a room.
async fn is_alone(room: &Room) -> bool {
    room.members().await.is_ok_and(|members| members.len() == 1)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
