//! Acting: what the client asks, one thing after the other in the order of asking. Messages are handed over in that
//! order too, but several may be on their way to the disk at a time, which writes them together.

use super::connection::{Connection, Ending};
use super::deliver::encode;
use super::outbox::Written;
use super::wire::Slot;
use crate::dialect::Command;
use crate::dialect::seed::{NOT_AUTHORIZED, Seed, answer};
use crate::limits::Asking;
use coop_core::command::asks;
use coop_core::live::{Cursor, Level};
use coop_core::{Attachment, Draft, Error, ErrorKind, Handed, HintKind, Room, RoomId, Start};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A leave takes effect after this, unless the room is joined again: the seed's page leaves and joins all the time.
const LEAVE_AFTER: Duration = Duration::from_secs(1);
/// So many messages of one client are on their way to the disk; before the next one of them must be there.
const MAX_SENDING: usize = 32;

pub(super) struct Actor<'a> {
    connection: &'a Connection,
    seed: &'a Seed,
    attachment: &'a Attachment,
    /// Rooms to be left, in the order of time; each once.
    leaves: Vec<(Instant, RoomId)>,
    /// When typing was last passed on, for the rooms where that was a short time ago.
    typed: Vec<(Instant, RoomId)>,
    /// Messages that are on their way to the disk. There is none while there are none: most connections are idle.
    sending: Option<Sending<'a>>,
}

type Sending<'a> = FuturesUnordered<BoxFuture<'a, Result<(), Ending>>>;

impl<'a> Actor<'a> {
    pub(super) fn new(connection: &'a Connection, seed: &'a Seed, attachment: &'a Attachment) -> Self {
        Self {
            connection,
            seed,
            attachment,
            leaves: Vec::new(),
            typed: Vec::new(),
            sending: None,
        }
    }

    /// Acts until nothing more will be asked.
    pub(super) async fn run(mut self) -> Result<(), Ending> {
        loop {
            let next_leave = self.leaves.first().map(|(at, _)| *at);
            let full = self
                .sending
                .as_ref()
                .is_some_and(|sending| sending.len() >= MAX_SENDING);
            let done = tokio::select! {
                biased;
                command = self.connection.next_command(), if !full => match command {
                    // In a box of its own, so that an idle connection does not keep room for all that a command may need.
                    Some(command) => Box::pin(self.carry_out(command)).await,
                    None => break,
                },
                done = one_of(&mut self.sending) => done,
                () = until(next_leave) => {
                    let (_, room) = self.leaves.remove(0);
                    self.leave_now(room);
                    Ok(())
                }
            };
            go_on(done)?;
        }
        while self.sending.is_some() {
            go_on(one_of(&mut self.sending).await)?;
        }
        Ok(())
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
    async fn show_just_ended(&mut self, slot: &Slot) -> Result<(), Ending> {
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

    async fn say(&mut self, room: RoomId, text: String) -> Result<(), Ending> {
        let Some(slot) = self.connection.slot(room).await else {
            return self.connection.refuse(NOT_AUTHORIZED, None);
        };
        let house = &self.connection.house;
        let bots: Vec<_> = house.bots.iter().map(String::as_str).collect();
        let asks = asks(&text, &bots);
        let asked = asks.named.len() + usize::from(asks.default);
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
        let saying = Saying {
            connection: self.connection,
            room,
            asking,
            refused,
            perhaps,
        };
        match saying.room.begin_send(draft).await {
            Ok(handed) => {
                let sending = self.sending.get_or_insert_default();
                sending.push(saying.end(handed).boxed());
                Ok(())
            }
            Err(error) => saying.failed(&error),
        }
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

/// A message that has been handed over, and what is owed for it.
struct Saying<'a> {
    connection: &'a Connection,
    room: Room,
    /// What it may ask, if it asks.
    asking: Option<Asking>,
    /// Why it does not ask, in an AI chat where it would have.
    refused: Option<Error>,
    /// It asks only if its author is alone in the room.
    perhaps: bool,
}

impl Saying<'_> {
    /// Waits until it is on disk and tells its author what went wrong.
    async fn end(self, handed: Handed) -> Result<(), Ending> {
        match handed.sent().await {
            Ok(sent) => {
                if let Some(asking) = self.asking {
                    let house = &self.connection.house;
                    asking.until_answered(&sent.turns, &house.sockets, &house.closing);
                }
                for error in sent.turns.iter().filter_map(|turn| turn.refused()) {
                    self.connection.tell(&error.words, None)?;
                }
                match self.refused {
                    Some(error) if !self.perhaps || is_alone(&self.room).await => {
                        self.connection.refuse(error.words(), error.retry_after())
                    }
                    _ => Ok(()),
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(self, error: &Error) -> Result<(), Ending> {
        self.asking.into_iter().for_each(Asking::forget);
        match error.kind() {
            ErrorKind::NotFound => self.connection.refuse(NOT_AUTHORIZED, None),
            _ => self.connection.refuse(error.words(), error.retry_after()),
        }
    }
}

/// The next message to be on disk; never if none is on its way.
async fn one_of(sending: &mut Option<Sending<'_>>) -> Result<(), Ending> {
    let Some(under_way) = sending else {
        return std::future::pending().await;
    };
    let done = under_way.next().await.unwrap_or(Ok(()));
    if under_way.is_empty() {
        *sending = None;
    }
    done
}

/// Whether to go on: a client that cannot be told anything has still said what it has said.
fn go_on(done: Result<(), Ending>) -> Result<(), Ending> {
    match done {
        Err(ending) if ending != Ending::Lost => Err(ending),
        _ => Ok(()),
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
