//! The rows that rooms are kept in, as values. A store translates between these and its tables; it decides nothing
//! about them. They know neither SQL nor who may do what.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Epoch, MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Member, Message, Role, RoomEntry, RoomInfo, RoomSettings, TurnInfo, Usage, UsageSum};
use crate::store::RoomHead;
use crate::time::{Day, Timestamp};
use std::sync::Arc;

/// A room, with the counters of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRow {
    /// What members see of it.
    pub info: RoomInfo,
    /// Which life of the log.
    pub epoch: Epoch,
    /// The newest event.
    pub seq: Seq,
    /// The number of the newest message: how many messages there ever were.
    pub number: i64,
    /// How many members it has.
    pub members: u32,
    /// What its owner has set. Changed by [`Plan::settings`](super::Plan::settings) alone.
    pub settings: Arc<RoomSettings>,
}

impl RoomRow {
    /// The room and where its log stands.
    #[must_use]
    pub fn head(&self) -> RoomHead {
        RoomHead {
            info: self.info.clone(),
            epoch: self.epoch,
            seq: self.seq,
            members: self.members,
            settings: Arc::clone(&self.settings),
        }
    }

    /// The room as it stands in the list of one of its members.
    #[must_use]
    pub fn entry(&self, member: &MemberRow, last: Option<Arc<Message>>) -> RoomEntry {
        RoomEntry::new(
            self.info.clone(),
            self.epoch,
            self.seq,
            member.member.role,
            member.member.joined_at,
            member.unread(self.number),
            last,
        )
    }
}

/// A membership, with what is needed to count the unread without looking at messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// What others see of it; its `read` is the mark's position.
    pub member: Member,
    /// The event by which they joined: the order of members, also of those who joined in one millisecond.
    pub joined: Seq,
    /// The number of the last message at or below the mark.
    pub read_number: i64,
    /// How many messages above the mark do not count as unread: deleted ones, and answers to one's own asks.
    pub discount: i64,
}

impl MemberRow {
    /// A member who has read everything up to here.
    #[must_use]
    pub fn new(user: UserId, name: String, role: Role, joined: Seq, read: (Seq, i64), now: Timestamp) -> Self {
        Self {
            member: Member {
                user,
                name,
                role,
                read: read.0,
                read_at: None,
                joined_at: now,
            },
            joined,
            read_number: read.1,
            discount: 0,
        }
    }

    /// How many of a room's messages they have not read, if the newest has this number.
    #[must_use]
    pub fn unread(&self, newest: i64) -> u32 {
        u32::try_from((newest - self.read_number - self.discount).max(0)).unwrap_or(u32::MAX)
    }
}

/// A message, with what only the store needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// The message.
    pub message: Message,
    /// Its number in the room: 1, 2, 3 … without holes, kept also when it is deleted.
    pub number: i64,
    /// The hash of what was first sent; a bot's message has none.
    pub body_hash: Option<[u8; 32]>,
}

/// A turn, with what only the store needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnRow {
    /// The turn.
    pub info: TurnInfo,
    /// The name of who asked, as it was then.
    pub asker: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// How many bots lie between it and the person who spoke: 0 if it was a person who asked.
    pub hop: u32,
    /// The tokens it has used so far.
    pub usage: Option<Usage>,
}

/// What is added to the tokens that were used: by one bot, for one person, in one room, on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Who asked.
    pub user: UserId,
    /// When.
    pub day: Day,
    /// The bot.
    pub bot: String,
    /// By how many turns more.
    pub turns: i64,
    /// Tokens read.
    pub input: i64,
    /// Tokens written or thought.
    pub output: i64,
    /// All tokens. Less than nothing if a bot corrects itself.
    pub total: i64,
}

impl UsageRow {
    /// Adds it to a sum.
    pub fn add_to(&self, sum: &mut UsageSum) {
        let add = |sum: &mut u64, more: i64| *sum = sum.saturating_add_signed(more);
        add(&mut sum.turns, self.turns);
        add(&mut sum.input, self.input);
        add(&mut sum.output, self.output);
        add(&mut sum.total, self.total);
    }
}

/// What kind of durable event a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the variants of Event")]
pub enum EventKind {
    MessagePosted,
    MessageEdited,
    MessageDeleted,
    MemberJoined,
    MemberLeft,
    RoomUpdated,
    TurnQueued,
    TurnStarted,
    TurnEnded,
}

impl EventKind {
    const ALL: [Self; 9] = [
        Self::MessagePosted,
        Self::MessageEdited,
        Self::MessageDeleted,
        Self::MemberJoined,
        Self::MemberLeft,
        Self::RoomUpdated,
        Self::TurnQueued,
        Self::TurnStarted,
        Self::TurnEnded,
    ];

    /// The word for it in stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessagePosted => "message_posted",
            Self::MessageEdited => "message_edited",
            Self::MessageDeleted => "message_deleted",
            Self::MemberJoined => "member_joined",
            Self::MemberLeft => "member_left",
            Self::RoomUpdated => "room_updated",
            Self::TurnQueued => "turn_queued",
            Self::TurnStarted => "turn_started",
            Self::TurnEnded => "turn_ended",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One event of a log, small and never changed: which rows it is about, not what they held. What it carries is read
/// from those rows when it is read, so that a deleted text is nowhere left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Where in the log.
    pub seq: Seq,
    /// What happened.
    pub kind: EventKind,
    /// The message it is about.
    pub message: Option<MessageId>,
    /// The turn it is about.
    pub turn: Option<TurnId>,
    /// The user it is about; the owner, when the room was updated.
    pub user: Option<UserId>,
    /// Who did it.
    pub by: Option<UserId>,
    /// The user's name, or the room's when it was updated.
    pub name: Option<String>,
    /// How many turns were before a queued one.
    pub position: u32,
    /// When.
    pub at: Timestamp,
}

impl EventRow {
    pub(crate) fn new(kind: EventKind, at: Timestamp) -> Self {
        Self {
            seq: Seq(0),
            kind,
            message: None,
            turn: None,
            user: None,
            by: None,
            name: None,
            position: 0,
            at,
        }
    }

    /// The event that this row stands for: `room` is its room, `message` and `turn` are the rows it names, as they
    /// are now.
    ///
    /// # Errors
    /// `Internal` if a row that it names is not given.
    pub fn event(&self, room: &RoomInfo, message: Option<&Arc<Message>>, turn: Option<&TurnInfo>) -> Result<Event> {
        let (id, seq) = (room.id, self.seq);
        Ok(match self.kind {
            EventKind::MessagePosted => Event::MessagePosted {
                room: id,
                seq,
                message: self.given(message)?.clone(),
            },
            EventKind::MessageEdited => Event::MessageEdited {
                room: id,
                seq,
                message: self.given(message)?.clone(),
            },
            EventKind::MessageDeleted => Event::MessageDeleted {
                room: id,
                seq,
                message: self.given(self.message)?,
                by: self.given(self.by)?,
            },
            EventKind::MemberJoined => Event::MemberJoined {
                room: id,
                seq,
                user: self.given(self.user)?,
                name: self.given(self.name.clone())?,
                by: self.given(self.by)?,
            },
            EventKind::MemberLeft => Event::MemberLeft {
                room: id,
                seq,
                user: self.given(self.user)?,
                name: self.given(self.name.clone())?,
                by: self.given(self.by)?,
            },
            EventKind::RoomUpdated => Event::RoomUpdated {
                room: id,
                seq,
                info: self.info_then(room)?,
                by: self.given(self.by)?,
            },
            EventKind::TurnQueued | EventKind::TurnStarted | EventKind::TurnEnded => {
                self.turn_event(id, message, self.given(turn)?)?
            }
        })
    }

    fn turn_event(&self, room: RoomId, message: Option<&Arc<Message>>, turn: &TurnInfo) -> Result<Event> {
        let (seq, bot) = (self.seq, turn.bot.clone());
        Ok(match self.kind {
            EventKind::TurnQueued => Event::TurnQueued {
                room,
                seq,
                turn: turn.id,
                bot,
                asked_by: turn.asked_by,
                ask: turn.ask,
                position: self.position,
            },
            EventKind::TurnStarted => Event::TurnStarted {
                room,
                seq,
                turn: turn.id,
                bot,
                asked_by: turn.asked_by,
                message: self.given(message)?.clone(),
            },
            _ => Event::TurnEnded {
                room,
                seq,
                turn: turn.id,
                bot,
                message: self.message,
                text: message.map_or("", |message| &message.text).into(),
                end: Box::new(self.given(turn.end.clone())?),
            },
        })
    }

    fn info_then(&self, room: &RoomInfo) -> Result<RoomInfo> {
        Ok(RoomInfo {
            name: self.given(self.name.clone())?,
            owner: self.given(self.user)?,
            ..room.clone()
        })
    }

    fn given<T>(&self, part: Option<T>) -> Result<T> {
        part.ok_or_else(|| {
            Error::internal(format!(
                "event {} ({}) lacks what it is about",
                self.seq,
                self.kind.as_str()
            ))
        })
    }
}
