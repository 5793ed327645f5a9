//! A room as one member sees it: everything a member may do there. Each call is checked against the membership as it
//! is in the store at that moment, so a handle that has outlived it is harmless.

use crate::attachment::{Attachment, Feed, Start};
use crate::command;
use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Hint, HintKind};
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::live::Reader;
use crate::model::{
    Draft, Member, Message, MessageStatus, Page, Position, Range, Receipt, RoomEntry, RoomSettings, TurnInfo,
    UsageFilter, UsageSum,
};
use crate::names;
use crate::search;
use crate::store::{Intent, Outcome, Post};
use crate::subscription::Subscription;
use crate::turn::{self, TurnHandle};
use crate::writer;
use std::fmt;
use std::sync::Arc;

/// How often deleting an answer that is being written stops it and tries again.
const STOPS: usize = 3;

/// A room, seen by one member. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    shared: Arc<Shared>,
    id: RoomId,
    user: UserId,
    name: String,
}

/// What [`Room::send`] has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// The message, on disk.
    pub message: Arc<Message>,
    /// The turn of the first bot it asks, if it asks one. A refused one has ended already.
    pub turn: Option<TurnHandle>,
    /// The turns of all bots it asks.
    pub turns: Vec<TurnHandle>,
    /// Whether it had been sent before with the same `client_id`.
    pub duplicate: bool,
}

/// A message that is under way, made by [`Room::begin_send`]. Dropping it does not take the message back.
#[must_use = "whether it was sent is told by `sent`"]
pub struct Handed {
    shared: Arc<Shared>,
    room: RoomId,
    user: UserId,
    handed: writer::HandedOver,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("room", &self.room)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Handed {
    /// Waits until the message is on disk.
    ///
    /// # Errors
    /// As [`Room::send`]. Cancel safe: dropping it changes nothing.
    pub async fn sent(self) -> Result<Sent> {
        match self.handed.outcome(&self.shared).await? {
            Outcome::Posted {
                message,
                turns,
                duplicate,
            } => {
                let handle = |turn| TurnHandle::new(Arc::clone(&self.shared), self.room, self.user, turn);
                let turns: Vec<_> = turns.into_iter().map(handle).collect();
                Ok(Sent {
                    message,
                    turn: turns.first().cloned(),
                    turns,
                    duplicate,
                })
            }
            _ => Err(Error::internal("a post had another outcome")),
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("id", &self.id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Gives an answer that is being written its text so far, of which the store has only the last checkpoint.
pub(crate) fn complete(shared: &Shared, message: &mut Arc<Message>) {
    if message.status == MessageStatus::Streaming
        && let Some(live) = shared.in_memory(message.room)
        && let Some(tape) = live.tape(message.id)
    {
        Arc::make_mut(message).text = tape.text().to_string();
    }
}

impl Attachment {
    /// The room as this reader's user sees it. Its calls are checked against the store like everyone's.
    #[must_use]
    pub fn room(&self, feed: &Feed) -> Room {
        let (shared, user, name) = self.owner();
        Room::new(Arc::clone(shared), feed.room(), user, name.to_owned())
    }
}

impl Room {
    pub(crate) fn new(shared: Arc<Shared>, id: RoomId, user: UserId, name: String) -> Self {
        Self { shared, id, user, name }
    }

    /// Who acts through this handle.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.user
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// For tests: how many entries, and how many bytes of them, are kept in memory for readers that are behind.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn live_queue(&self) -> (usize, usize) {
        self.shared.in_memory(self.id).map_or((0, 0), |live| live.queued())
    }

    // Reading.

    /// The room, one's role in it, what is unread.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let entry = room.entry().await?;
    /// assert_eq!((entry.info.name.as_str(), entry.role), ("lab", coop_core::Role::Owner));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` for who is no member, `Unavailable`, `Closed`. Cancel safe.
    pub async fn entry(&self) -> Result<RoomEntry> {
        self.shared.check_open()?;
        let mut entries = self.shared.rooms.rooms_of(self.user, Some(self.id())).await?;
        entries.pop().ok_or_else(Error::no_such_room)
    }

    /// Everybody in it, in the order of joining.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let names: Vec<_> = room.members().await?.into_iter().map(|member| member.name).collect();
    /// assert_eq!(names, ["alice", "bob"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry). Cancel safe.
    pub async fn members(&self) -> Result<Vec<Member>> {
        self.shared.check_open()?;
        let members = self.shared.rooms.members(self.id()).await?;
        let inside = members.iter().any(|member| member.user == self.user);
        if inside {
            Ok(members)
        } else {
            Err(Error::no_such_room())
        }
    }

    /// Part of the history: 1 to [`Bounds::page`](crate::Bounds::page) messages, oldest first, without deleted ones. An answer that is being
    /// written has its text so far.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// use coop_core::Range;
    ///
    /// # for n in 0..3 { room.send(n.to_string()).await?; }
    /// let newest = room.history(Range::Newest, 2).await?;
    /// let oldest = newest.messages[0].seq;
    /// let before = room.history(Range::Before(oldest), 2).await?;
    /// assert!(newest.more && !before.more);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` for a limit out of range; as [`entry`](Self::entry). Cancel safe.
    pub async fn history(&self, range: Range, limit: u32) -> Result<Page> {
        self.check_page(limit)?;
        self.check_member().await?;
        let mut page = self.shared.rooms.history(self.id(), range, limit).await?;
        page.messages
            .iter_mut()
            .for_each(|message| complete(&self.shared, message));
        Ok(page)
    }

    fn check_page(&self, limit: u32) -> Result<()> {
        let most = self.shared.settings.bounds.page;
        match (1..=most).contains(&limit) {
            true => Ok(()),
            false => Err(Error::bad_request(format!("a page has 1 to {most} messages"))),
        }
    }

    /// Messages that have all words of a text, whatever their case, or words that begin so: up to `limit` (at most
    /// [`Bounds::page`](crate::Bounds::page)), oldest first, the newest of them or the newest below `before`. An answer is found when it has ended.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// room.send("The migration is done.").await?;
    /// room.send("Which one?").await?;
    /// let found = room.search("Migra DONE", None, 10).await?;
    /// assert_eq!(found.messages.len(), 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` if the text has no word, or for a limit out of range; as [`entry`](Self::entry). Cancel safe.
    pub async fn search(&self, text: &str, before: Option<Seq>, limit: u32) -> Result<Page> {
        self.check_page(limit)?;
        let words = search::wanted(text);
        if words.is_empty() {
            return Err(Error::bad_request("a search needs a word"));
        }
        self.check_member().await?;
        self.shared.rooms.find(self.id, &words, before, limit).await
    }

    /// One message. An answer that is being written has its text so far.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let sent = room.send("Hello!").await?;
    /// assert_eq!(room.message(sent.message.id).await?, sent.message);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` if it is not here or deleted; as [`entry`](Self::entry). Cancel safe.
    pub async fn message(&self, message: MessageId) -> Result<Arc<Message>> {
        self.check_member().await?;
        let found = self.shared.rooms.message(self.id(), message).await?;
        let mut message = found
            .filter(|message| message.deleted_at.is_none())
            .ok_or_else(|| Error::not_found("no such message"))?;
        complete(&self.shared, &mut message);
        Ok(message)
    }

    /// Everything that happens here from now on, after a snapshot of what is.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// use coop_core::Event;
    /// use futures::StreamExt;
    ///
    /// let mut events = bob.room(room.id()).await?.subscribe().await?;
    /// room.send("/echo Hello!").await?;
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         Event::Snapshot(snapshot) => println!("{} people are here", snapshot.members.len()),
    ///         Event::MessagePosted { message, .. } => println!("{}: {}", message.author, message.text),
    ///         Event::Delta { text, .. } => print!("{text}"),
    ///         Event::TurnEnded { .. } => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub async fn subscribe(&self) -> Result<Subscription> {
        self.subscribe_at(Start::Snapshot).await
    }

    /// Takes up where an earlier subscription stopped: the events since, and the rest of each open answer. If that is
    /// not possible (too far behind, another epoch) it begins with a snapshot.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// use coop_core::Event;
    /// use futures::StreamExt;
    ///
    /// let mut events = room.subscribe().await?;
    /// let snapshot = events.next().await;
    /// let position = events.position().cloned().unwrap_or_default();
    /// drop(events);
    /// room.send("missed").await?;
    /// let mut events = room.resume(position).await?;
    /// let missed = events.next().await.transpose()?;
    /// assert!(matches!(missed, Some(Event::MessagePosted { message, .. }) if message.text == "missed"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub async fn resume(&self, position: Position) -> Result<Subscription> {
        self.subscribe_at(Start::Position(position)).await
    }

    async fn subscribe_at(&self, start: Start) -> Result<Subscription> {
        self.shared.check_open()?;
        let attach = |reader: Arc<dyn Reader>| {
            Attachment::new(Arc::clone(&self.shared), self.user, self.name.clone(), reader, None)
        };
        Subscription::of_room(attach, self.id(), start).await
    }

    // Writing.

    /// Says something, and asks the bots it addresses. When this returns the message is on disk.
    ///
    /// Cancel safety: dropping the call means sent or not sent, never half. With a `client_id` it can be sent again
    /// without doubling.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// use coop_core::Draft;
    ///
    /// let sent = room.send(Draft::text("Hello!").client_id("c1")).await?;
    /// let again = room.send(Draft::text("Hello!").client_id("c1")).await?;
    /// assert!(again.duplicate && again.message.id == sent.message.id);
    ///
    /// let asked = room.send("/echo Hello!").await?;
    /// if let Some(turn) = asked.turn {
    ///     turn.ended().await?;
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` (blank text, NUL, a malformed `client_id`), `TooLarge` (over 64 KiB), `NotFound` (no such room for
    /// this user, no such message to answer), `Conflict` (the `client_id` was used with another body), `Unavailable`
    /// (not certain whether it was sent), `Closed`.
    pub async fn send(&self, draft: impl Into<Draft>) -> Result<Sent> {
        self.begin_send(draft).await?.sent().await
    }

    /// The first half of [`send`](Self::send): hands the message over without waiting until it is on disk, so that many
    /// may be under way. They are said in the order of being handed over, and several are one write to the disk.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let first = room.begin_send("one").await?;
    /// let second = room.begin_send("two").await?;
    /// assert!(first.sent().await?.message.seq < second.sent().await?.message.seq);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As `send`; some of them come from [`Handed::sent`]. Cancel safe as `send`.
    pub async fn begin_send(&self, draft: impl Into<Draft>) -> Result<Handed> {
        self.shared.check_open()?;
        let draft = draft.into();
        names::check_text(&draft.text, self.shared.settings.bounds.text_bytes)?;
        if let Some(id) = &draft.client_id {
            names::check_client_id(id)?;
        }
        let may_ask = !draft.asks_nobody;
        let bots = self.shared.bots();
        let asks = may_ask.then(|| command::asks(&draft.text, &bots.names()));
        let asks = asks.unwrap_or_default();
        let bots = Arc::clone(&bots.handles);
        let post = Post {
            author: self.user,
            name: self.name.clone(),
            body_hash: draft.hash(),
            client_id: draft.client_id,
            text: draft.text,
            reply_to: draft.reply_to,
            meta: draft.meta,
            asks: asks.named,
            asks_default: asks.default,
            asks_if_alone: may_ask && !bots.is_empty(),
            bots,
        };
        let handed = writer::hand_over(&self.shared, self.id, Intent::Post(post), Vec::new()).await?;
        Ok(Handed {
            shared: Arc::clone(&self.shared),
            room: self.id,
            user: self.user,
            handed,
        })
    }

    /// Changes the text of one's own message.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let sent = room.send("Helo!").await?;
    /// let edited = room.edit(sent.message.id, "Hello!").await?;
    /// assert!(edited.text == "Hello!" && edited.edited_at.is_some());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden` for another's, `NotFound`, and as [`send`](Self::send). Cancel safe as `send`.
    pub async fn edit(&self, message: MessageId, text: impl Into<String>) -> Result<Arc<Message>> {
        let text = text.into();
        names::check_text(&text, self.shared.settings.bounds.text_bytes)?;
        match self
            .submit(
                Intent::Edit {
                    message,
                    by: self.user,
                    text,
                },
                Vec::new(),
            )
            .await?
        {
            Outcome::Edited(message) => Ok(message),
            _ => Err(Error::internal("an edit had another outcome")),
        }
    }

    /// Deletes a message, one's own or, as the owner, any. An answer that is being written is stopped first. Nothing
    /// of its content is left anywhere.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let sent = room.send("Never mind.").await?;
    /// room.delete(sent.message.id).await?;
    /// assert!(room.message(sent.message.id).await.is_err());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Unavailable`, `Closed`. Cancel safe as [`send`](Self::send).
    pub async fn delete(&self, message: MessageId) -> Result<()> {
        for _ in 0..STOPS {
            match self.submit(Intent::Delete { message, by: self.user }, Vec::new()).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    turn::stop_answer(&self.shared, self.id, message, self.user).await?;
                }
                other => return other.map(|_| ()),
            }
        }
        Err(Error::unavailable("the answer could not be stopped"))
    }

    /// Ends a turn for everyone, also one that waits. The text so far is kept. No effect on one that has ended.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// let asked = room.send("/echo a very long answer").await?;
    /// if let Some(turn) = asked.turn {
    ///     // Anybody in the room may.
    ///     bob.room(room.id()).await?.stop(turn.id()).await?;
    ///     println!("{:?}", turn.ended().await?.status);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden` if the [settings](Self::settings) leave it to others, `NotFound`, `Unavailable`, `Closed`. Dropping the
    /// call means stopped or not stopped.
    pub async fn stop(&self, turn: TurnId) -> Result<()> {
        // Also while the engine closes: what still runs may be stopped.
        turn::stop_by(&self.shared, self.id, turn, self.user).await
    }

    /// Ends the turn whose answer is this message; see [`stop`](Self::stop).
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn stop_answer(&self, message: MessageId) -> Result<()> {
        let turn = self.turn_of(message).await?;
        turn::stop_by(&self.shared, self.id, turn.id, self.user).await
    }

    /// Asks the same again: a new turn of the same bot for the same ask, charged to who retries. It reads what the first one
    /// read: nothing that was said later. If one for that ask is under way, it is that one.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// if let Some(turn) = room.send("/echo Hello!").await?.turn {
    ///     turn.ended().await?;
    ///     let again = bob.room(room.id()).await?.retry(turn.id()).await?;
    ///     assert!(again.id() != turn.id());
    ///     again.ended().await?;
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` for a turn that is not here, or whose ask is deleted; as [`send`](Self::send). Dropping the call means
    /// asked or not asked.
    pub async fn retry(&self, turn: TurnId) -> Result<TurnHandle> {
        self.check_member().await?;
        let turn = self.shared.rooms.turn(self.id, turn).await?;
        self.ask_again(turn.ok_or_else(Error::no_such_turn)?).await
    }

    /// The same for the turn whose answer is this message.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    pub async fn retry_answer(&self, message: MessageId) -> Result<TurnHandle> {
        self.ask_again(self.turn_of(message).await?).await
    }

    /// The turn whose answer this is: who asked, and how it ended if it has.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// let turn = room.send("/echo hello").await?.turn.unwrap();
    /// turn.ended().await?;
    /// let answer = room.history(coop_core::Range::Newest, 1).await?.messages[0].id;
    /// assert_eq!(room.turn_of(answer).await?.id, turn.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` if it is no bot's answer to an ask here; as [`entry`](Self::entry). Cancel safe.
    pub async fn turn_of(&self, message: MessageId) -> Result<TurnInfo> {
        self.check_member().await?;
        let turn = self.shared.rooms.turn_of_message(self.id, message).await?;
        turn.ok_or_else(Error::no_such_turn)
    }

    async fn ask_again(&self, turn: TurnInfo) -> Result<TurnHandle> {
        let intent = Intent::Retry {
            turn: turn.id,
            ask: turn.ask,
            by: self.user,
            name: self.name.clone(),
        };
        match self.submit(intent, vec![turn.bot]).await? {
            Outcome::Asked(turn) => Ok(TurnHandle::new(Arc::clone(&self.shared), self.id, self.user, turn)),
            _ => Err(Error::internal("a retry had another outcome")),
        }
    }

    /// The turns that have not ended, the oldest first: those that stream, and the queue.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// assert!(room.open_turns().await?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry). Cancel safe.
    pub async fn open_turns(&self) -> Result<Vec<TurnInfo>> {
        self.check_member().await?;
        self.shared.rooms.open_turns(Some(self.id)).await
    }

    /// What the bot had read whose answer is this message: which messages, in which version, and a hash of all of it. It is
    /// there from the first second of an answer on.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// use coop_core::Range;
    ///
    /// let asked = room.send("/echo Hello!").await?;
    /// if let Some(turn) = asked.turn {
    ///     turn.ended().await?;
    ///     let answer = room.history(Range::Newest, 1).await?.messages[0].id;
    ///     let receipt = room.receipt(answer).await?;
    ///     assert_eq!(receipt.read[0].message, asked.message.id);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` for a message that is no bot's answer, or whose bot has read nothing (yet); as [`entry`](Self::entry).
    /// Cancel safe.
    pub async fn receipt(&self, answer: MessageId) -> Result<Receipt> {
        self.check_member().await?;
        let receipt = self.shared.rooms.receipt(self.id, answer).await?;
        receipt.ok_or_else(|| Error::not_found("no such receipt"))
    }

    /// The sum of the tokens that were used here, since a day or ever; by one bot or person if the filter says so. Its room
    /// is this one.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// assert_eq!(room.usage(coop_core::UsageFilter::default()).await?.total, 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry). Cancel safe.
    pub async fn usage(&self, of: UsageFilter) -> Result<UsageSum> {
        self.check_member().await?;
        let here = UsageFilter {
            room: Some(self.id),
            ..of
        };
        self.shared.rooms.usage(&here).await
    }

    // Hints.

    /// Says that everything up to `seq` has been read. Stored within 250 ms, after which the others are told; never
    /// moves back.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// let sent = room.send("Hello!").await?;
    /// bob.room(room.id()).await?.mark_read(sent.message.seq).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn mark_read(&self, seq: Seq) -> Result<()> {
        self.check_member().await?;
        writer::mark_read(&self.shared, self.id, self.user, seq).await
    }

    /// The same for everything there is.
    ///
    /// # Errors
    /// As [`mark_read`](Self::mark_read).
    pub async fn mark_all_read(&self) -> Result<()> {
        self.mark_read(Seq(i64::MAX)).await
    }

    /// Tells the others that one is writing.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// room.typing().await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn typing(&self) -> Result<()> {
        self.hint(HintKind::Typing).await
    }

    /// Tells the others that one has opened or closed the room.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// room.presence(true).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Closed`. Cancel safe.
    pub async fn presence(&self, here: bool) -> Result<()> {
        self.hint(HintKind::Presence { here }).await
    }

    async fn hint(&self, what: HintKind) -> Result<()> {
        self.check_member().await?;
        let hint = Hint {
            room: self.id,
            user: self.user,
            name: self.name.clone(),
            what,
        };
        self.shared.hint(hint, None);
        Ok(())
    }

    // Governing.

    /// Takes another's membership away. Only the owner may. When this returns, nothing more of the room is written to
    /// any of their connections.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// room.remove(bob.id()).await?;
    /// assert!(bob.rooms().await?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Unavailable`, `Closed`; `BadRequest` for oneself (that is [`leave`](Self::leave)).
    pub async fn remove(&self, user: UserId) -> Result<()> {
        if user == self.user {
            return Err(Error::bad_request("to remove oneself is to leave"));
        }
        self.carry_out(Intent::Remove { user, by: self.user }).await
    }

    /// Gives up one's own membership. The owner cannot: they hand the room over, or delete it.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// bob.room(room.id()).await?.leave().await?;
    /// assert_eq!(room.members().await?.len(), 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Conflict` for the owner, `NotFound`, `Unavailable`, `Closed`.
    pub async fn leave(&self) -> Result<()> {
        self.carry_out(Intent::Remove {
            user: self.user,
            by: self.user,
        })
        .await
    }

    /// Gives the room another name (1 to 100 characters). Only the owner may.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// room.rename("laboratory").await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest`, `Forbidden`, `NotFound`, `Unavailable`, `Closed`.
    pub async fn rename(&self, name: impl Into<String>) -> Result<()> {
        let name = name.into();
        names::check_room_name(&name, self.shared.settings.bounds.room_name_chars)?;
        self.carry_out(Intent::Rename { name, by: self.user }).await
    }

    /// How bots are asked and governed here.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// assert_eq!(room.settings().await?, coop_core::RoomSettings::default());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`entry`](Self::entry). Cancel safe.
    pub async fn settings(&self) -> Result<RoomSettings> {
        self.check_member().await?;
        let head = self.shared.rooms.room(self.id).await?.ok_or_else(Error::no_such_room)?;
        Ok(Arc::unwrap_or_clone(head.settings))
    }

    /// Sets how bots are asked and governed here. Only the owner may. Members are told by a
    /// [`RoomUpdated`](crate::Event::RoomUpdated); turns that are under way go on as they began.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// use coop_core::WhoMayStop;
    ///
    /// let mut settings = room.settings().await?;
    /// settings.system = "Answer in French.".into();
    /// settings.who_may_stop = WhoMayStop::Asker;
    /// room.configure(settings).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` (control characters, a default bot that does not exist), `TooLarge` (more than 4,000 characters),
    /// `Forbidden`, `NotFound`, `Unavailable`, `Closed`.
    pub async fn configure(&self, settings: RoomSettings) -> Result<()> {
        names::check_system_text(&settings.system)?;
        let bots = self.shared.bots();
        if settings.default_bot.as_ref().is_some_and(|own| bots.get(own).is_none()) {
            return Err(Error::bad_request("there is no such bot"));
        }
        self.carry_out(Intent::Configure {
            settings: Arc::new(settings),
            by: self.user,
        })
        .await
    }

    /// Makes another member the owner. Only the owner may.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// room.hand_over(bob.id()).await?;
    /// room.leave().await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Unavailable`, `Closed`.
    pub async fn hand_over(&self, to: UserId) -> Result<()> {
        self.carry_out(Intent::HandOver { to, by: self.user }).await
    }

    /// Deletes the room with everything in it. Only the owner may. Its id never comes back.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, alice, _, room| {
    /// room.delete_room().await?;
    /// assert!(alice.room(room.id()).await.is_err());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Unavailable`, `Closed`.
    pub async fn delete_room(&self) -> Result<()> {
        self.carry_out(Intent::DeleteRoom { by: self.user }).await
    }

    pub(crate) async fn carry_out(&self, intent: Intent) -> Result<()> {
        self.submit(intent, Vec::new()).await.map(|_| ())
    }

    async fn submit(&self, intent: Intent, then_start: Vec<String>) -> Result<Outcome> {
        self.shared.check_open()?;
        writer::submit(&self.shared, self.id, intent, then_start).await
    }

    async fn check_member(&self) -> Result<()> {
        self.shared.check_open()?;
        self.shared.check_member(self.id, self.user).await
    }
}
