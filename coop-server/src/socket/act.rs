//! Acting: what the client asks, one thing after the other in the order of asking. Messages are handed over in that
//! order too, but several may be on their way to the disk at a time, which writes them together.

use super::connection::{Connection, Ending};
use super::deliver::encode;
use super::outbox::Written;
use super::wire::Slot;
use crate::dialect::{Asked, Command, Dialect, Outbound, Ref};
use crate::saying::Saying;
use coop_core::live::{Cursor, Level};
use coop_core::{
    Attachment, Draft, Error, ErrorKind, GoneReason, HintKind, Message, MessageId, Page, Position, Range, Room, RoomId,
    Sent, Seq, Start, TurnHandle, TurnId,
};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

/// So many messages of one client are on their way to the disk; before the next one of them must be there.
const MAX_SENDING: usize = 32;

pub(super) struct Actor<'a> {
    connection: &'a Connection,
    attachment: &'a Attachment,
    /// Rooms to be left, in the order of time; each once.
    leaves: Vec<(Instant, RoomId)>,
    /// When typing was last passed on, for the rooms where that was a short time ago.
    typed: Vec<(Instant, RoomId)>,
    /// Messages that are on their way to the disk. There is none while there are none: most connections are idle.
    sending: Option<Sending<'a>>,
}

type Sending<'a> = FuturesUnordered<BoxFuture<'a, Result<(), Ending>>>;

/// What came of a command.
enum Made {
    Nothing,
    Message(Arc<Message>),
    Turn(TurnHandle),
    Page(RoomId, Page),
}

/// Why a command was not carried out.
enum Failed {
    /// The client should not have asked.
    Refused(Error),
    /// It could not know better: the seed's page joins and leaves all the time, also a room that it does not know it has lost.
    Told(Error),
    /// There is nobody to tell.
    Ended(Ending),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Ending> for Failed {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

impl<'a> Actor<'a> {
    pub(super) fn new(connection: &'a Connection, attachment: &'a Attachment) -> Self {
        Self {
            connection,
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
                asked = self.connection.next_command(), if !full => match asked {
                    // In a box of its own, so that an idle connection does not keep room for all that a command may need.
                    Some(asked) => Box::pin(self.carry_out(asked)).await,
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

    async fn carry_out(&mut self, Asked { by, command }: Asked) -> Result<(), Ending> {
        let made = match command {
            // Answered when it is on disk.
            Command::Send(room, draft) => return self.say(by, room, draft).await,
            Command::Resume(rooms) => self.resume(rooms).await,
            Command::Join(room, after) => self.join(room, |dialect, from| dialect.start(from, after)).await,
            Command::Leave(room) => self.leave(room),
            Command::Edit(room, message, text) => self.edit(room, message, text).await,
            Command::Delete(room, message) => self.delete(room, message).await,
            Command::Typing(room) => self.typing(room).await,
            Command::Read(room, seq) => self.read(room, seq).await,
            Command::Stop(room, turn) => self.stop(room, turn).await,
            Command::Retry(room, message) => self.retry(room, message).await,
            Command::History(room, range, limit) => self.history(room, range, limit).await,
            Command::Token(token) => self.renew(&token).await,
        };
        self.answer(by.as_ref(), made).await
    }

    /// Tells the client what came of it.
    async fn answer(&mut self, by: Option<&Ref>, made: Result<Made, Failed>) -> Result<(), Ending> {
        let connection = self.connection;
        match (made, by) {
            (Err(Failed::Ended(ending)), _) => Err(ending),
            (Err(Failed::Refused(error)), _) => connection.refuse(by, &error),
            (Err(Failed::Told(error)), _) => connection.tell(by, &error),
            // Too long to wait in memory for a client that does not read.
            (Ok(Made::Page(room, page)), _) => {
                let page = connection.encode(&Outbound::Page { by, room, page: &page });
                connection.write_of(room, &page).await
            }
            (Ok(_), None) => Ok(()),
            (Ok(Made::Nothing), Some(by)) => connection.say(&Outbound::Done(by)),
            (Ok(Made::Message(message)), Some(by)) => {
                let message = &message;
                connection.say(&Outbound::Changed { by, message })
            }
            (Ok(Made::Turn(turn)), Some(by)) => connection.say(&Outbound::Asked { by, turn: &turn }),
        }
    }

    /// The handle on a room that the user is in.
    async fn room(&mut self, room: RoomId) -> Result<Room, Error> {
        Ok(self.attachment.room(&self.slot(room).await?.feed))
    }

    async fn slot(&mut self, room: RoomId) -> Result<Slot, Error> {
        self.connection.slot(room).await.ok_or_else(Error::no_such_room)
    }

    /// Joins rooms where an earlier connection stopped. Those that are lost are told of, and are no failure of the rest.
    async fn resume(&mut self, rooms: Vec<(RoomId, Position)>) -> Result<Made, Failed> {
        for (room, position) in rooms {
            match self.join(room, |_, _| Start::Position(position)).await {
                Err(Failed::Told(error)) => match error.kind() {
                    ErrorKind::NotFound => self.connection.say(&Outbound::Gone {
                        room,
                        reason: GoneReason::Removed,
                        by: None,
                        mine: false,
                    })?,
                    _ => return Err(Failed::Told(error)),
                },
                joined => drop(joined?),
            }
        }
        Ok(Made::Nothing)
    }

    async fn join(&mut self, room: RoomId, start: impl FnOnce(&Dialect, Cursor) -> Start) -> Result<Made, Failed> {
        self.leaves.retain(|(_, other)| *other != room);
        let no_such_room = || Failed::Told(Error::no_such_room());
        let slot = self.slot(room).await.map_err(Failed::Told)?;
        let dialect = &self.connection.dialect;
        if slot.level == Level::Full && dialect.joins_once() {
            return Ok(Made::Nothing);
        }
        let joining = |slot: &Slot| slot.level == Level::Full && slot.cursor == Cursor::NOWHERE;
        // Until the room is loaded no offer fits. The slot may have moved on since the look: what counts is where it
        // stands now.
        let from = self.connection.wire().slot(room).map(|slot| {
            slot.level = Level::Full;
            std::mem::replace(&mut slot.cursor, Cursor::NOWHERE)
        });
        let from = from.ok_or_else(no_such_room)?;
        let pulled = match self.attachment.join(&slot.feed, start(dialect, from)).await {
            Ok(pulled) => pulled,
            Err(error) => {
                if let Some(slot) = self.connection.wire().slot(room).filter(|slot| joining(slot)) {
                    (slot.level, slot.cursor) = (Level::Events, from);
                }
                self.attachment.leave(&slot.feed);
                self.connection.fall_behind();
                return Err(Failed::Told(error));
            }
        };
        let frames = encode(dialect, Level::Full, &pulled, &slot.feed, self.attachment).await;
        loop {
            self.connection.until_clear().await?;
            match self.connection.write(room, joining, &pulled, &frames) {
                Some(Written::Nothing) => self.connection.until_writable().await?,
                Some(_) => break,
                None => return Ok(Made::Nothing),
            }
        }
        self.connection.fall_behind();
        if slot.level == Level::Events {
            self.attachment.hint(&slot.feed, HintKind::Presence { here: true });
        }
        self.show_just_ended(&slot).await?;
        Ok(Made::Nothing)
    }

    /// Shows the newest message once more if it is an answer that has just ended: the client may have read its text
    /// before the end, and it joined after. Anywhere but at the bottom it would be shown twice.
    async fn show_just_ended(&mut self, slot: &Slot) -> Result<(), Ending> {
        let ended = self.connection.dialect.just_ended(slot.room);
        if ended.is_empty() {
            return Ok(());
        }
        let last = match self.attachment.room(&slot.feed).entry().await {
            Ok(entry) => entry.last_message,
            Err(_) => return Ok(()),
        };
        match last.filter(|message| ended.contains(&message.id)) {
            Some(message) => {
                let frame = self.connection.encode(&Outbound::JustEnded(&message));
                self.connection.write_of(slot.room, &frame).await
            }
            None => Ok(()),
        }
    }

    /// Leaves a room, now or a little later. Nobody is told that there is no such room: it may have been lost.
    #[allow(clippy::unnecessary_wraps, reason = "as the other commands")]
    fn leave(&mut self, room: RoomId) -> Result<Made, Failed> {
        let after = self.connection.dialect.leaves_after();
        if after.is_zero() {
            self.leave_now(room);
            return Ok(Made::Nothing);
        }
        let joined = self
            .connection
            .wire()
            .slot(room)
            .is_some_and(|slot| slot.level == Level::Full);
        if joined && self.leaves.iter().all(|(_, other)| *other != room) {
            self.leaves.push((Instant::now() + after, room));
        }
        Ok(Made::Nothing)
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

    /// Hands a message over; the rest is done when it is on disk.
    async fn say(&mut self, by: Option<Ref>, room: RoomId, draft: Draft) -> Result<(), Ending> {
        let connection = self.connection;
        let Some(slot) = connection.slot(room).await else {
            return connection.refuse(by.as_ref(), &Error::no_such_room());
        };
        let (room, is_ai_chat) = (self.attachment.room(&slot.feed), slot.feed.is_ai_chat());
        match Saying::begin(&connection.house, connection.user, room, is_ai_chat, draft).await {
            Ok((saying, handed)) => {
                let end = async move {
                    let said = saying.end(&connection.house, handed).await;
                    said_at_last(connection, by.as_ref(), said)
                };
                self.sending.get_or_insert_default().push(end.boxed());
                Ok(())
            }
            Err(error) => connection.refuse(by.as_ref(), &error),
        }
    }

    async fn edit(&mut self, room: RoomId, message: MessageId, text: String) -> Result<Made, Failed> {
        Ok(Made::Message(self.room(room).await?.edit(message, text).await?))
    }

    async fn delete(&mut self, room: RoomId, message: MessageId) -> Result<Made, Failed> {
        self.room(room).await?.delete(message).await?;
        Ok(Made::Nothing)
    }

    async fn typing(&mut self, room: RoomId) -> Result<Made, Failed> {
        let slot = self.slot(room).await?;
        let now = Instant::now();
        let every = self.connection.house.limits.typing_every;
        self.typed.retain(|(at, _)| now < *at + every);
        if self.typed.iter().all(|(_, other)| *other != room) {
            self.typed.push((now, room));
            self.attachment.hint(&slot.feed, HintKind::Typing);
        }
        Ok(Made::Nothing)
    }

    async fn read(&mut self, room: RoomId, seq: Seq) -> Result<Made, Failed> {
        self.room(room).await?.mark_read(seq).await?;
        Ok(Made::Nothing)
    }

    async fn stop(&mut self, room: RoomId, turn: TurnId) -> Result<Made, Failed> {
        self.room(room).await?.stop(turn).await?;
        Ok(Made::Nothing)
    }

    /// Asking again costs what asking costs.
    async fn retry(&mut self, room: RoomId, message: MessageId) -> Result<Made, Failed> {
        let room = self.room(room).await?;
        let house = &self.connection.house;
        let asking = house.tolls.ask(self.connection.user, 1)?;
        match room.retry_answer(message).await {
            Ok(turn) => {
                asking.until_answered(std::slice::from_ref(&turn), &house.sockets, &house.closing);
                Ok(Made::Turn(turn))
            }
            Err(error) => {
                asking.forget();
                Err(error.into())
            }
        }
    }

    async fn history(&mut self, room: RoomId, range: Range, limit: u32) -> Result<Made, Failed> {
        let limit = limit.min(self.connection.house.engine.bounds().page);
        let page = self.room(room).await?.history(range, limit).await?;
        Ok(Made::Page(room, page))
    }

    /// Lets the connection go on for as long as another token of the same user is good.
    async fn renew(&mut self, token: &str) -> Result<Made, Failed> {
        let no_entry = || Error::new(ErrorKind::Unauthorized, "Invalid authentication credentials");
        match self.connection.house.identify(token).await {
            Ok((user, identity)) if user.id() == self.connection.user => {
                self.connection.stay_for(identity.left);
                Ok(Made::Nothing)
            }
            Ok(_) => Err(no_entry().into()),
            Err(failure) if failure.is_unavailable() => {
                Err(Failed::Told(Error::unavailable("the store does not answer")))
            }
            Err(_) => Err(no_entry().into()),
        }
    }
}

/// Tells an author what came of a message.
fn said_at_last(
    connection: &Connection,
    by: Option<&Ref>,
    said: Result<(Sent, Option<Error>), Error>,
) -> Result<(), Ending> {
    let (sent, unasked) = match said {
        Ok(said) => said,
        Err(error) => return connection.refuse(by, &error),
    };
    let (sent, unasked) = (&sent, unasked.as_ref());
    connection.say(&Outbound::Sent { by, sent, unasked })?;
    unasked.map_or(Ok(()), |_| connection.count_error())
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

async fn until(moment: Option<Instant>) {
    match moment {
        // In a box: most connections leave nothing.
        Some(moment) => Box::pin(sleep_until(moment)).await,
        None => std::future::pending().await,
    }
}
