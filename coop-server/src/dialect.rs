//! What clients say on a socket, whatever words they use for it, and the words. Pure: text in, [`Command`] out; events
//! and [`Outbound`] in, bytes out.
//!
//! There are two dialects: the [first system's](seed), and [`coop.v1`](v1). A connection keeps its [`Dialect`] and knows
//! of it no more than what is here.

pub(crate) mod seed;
pub(crate) mod v1;

use crate::frame;
use crate::meters::Meters;
use crate::receipts::Receipts;
use coop_core::live::{Cursor, Encoder, Entry};
use coop_core::{
    Account, Bounds, Draft, Error, ErrorKind, GoneReason, Message, MessageId, Page, Position, Range, RoomEntry, RoomId,
    Sent, Seq, Start, Timestamp, TurnHandle, TurnId,
};
use http::{HeaderMap, header};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The number a client gave to a command, to know the answer by.
pub(crate) type Ref = serde_json::Number;

/// What a client wants, and how it will know the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) by: Option<Ref>,
    pub(crate) command: Command,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// To take up rooms where an earlier connection stopped.
    Resume(Vec<(RoomId, Position)>),
    /// To get everything of a room, perhaps only what came after an event that it has.
    Join(RoomId, Option<Seq>),
    /// To get only its events again.
    Leave(RoomId),
    /// To say this.
    Send(RoomId, Draft),
    /// To change what it said.
    Edit(RoomId, MessageId, String),
    /// To take it back.
    Delete(RoomId, MessageId),
    /// To tell the others that it is writing.
    Typing(RoomId),
    /// To have read everything up to here.
    Read(RoomId, Seq),
    /// To end an answer for everyone.
    Stop(RoomId, TurnId),
    /// To have the same asked again that this answers.
    Retry(RoomId, MessageId),
    /// To see what was said.
    History(RoomId, Range, u32),
    /// To stay longer, with this token.
    Token(String),
}

/// Why a frame is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) by: Option<Ref>,
    pub(crate) words: Cow<'static, str>,
}

impl From<&'static str> for Malformed {
    fn from(words: &'static str) -> Self {
        let words = words.into();
        Self { by: None, words }
    }
}

/// What the server says to one client, besides the rooms' own events.
#[derive(Debug)]
pub(crate) enum Outbound<'a> {
    /// The first of all: who the client is and where it can be.
    Ready(Welcome<'a>),
    /// It was done.
    Done(&'a Ref),
    /// It was said, and these bots were asked.
    Sent {
        by: Option<&'a Ref>,
        sent: &'a Sent,
        /// Why nobody was asked who would have been.
        unasked: Option<&'a Error>,
    },
    /// A message as it is now.
    Changed { by: &'a Ref, message: &'a Message },
    /// A bot was asked again.
    Asked { by: &'a Ref, turn: &'a TurnHandle },
    /// Part of a room's history.
    Page {
        by: Option<&'a Ref>,
        room: RoomId,
        page: &'a Page,
    },
    /// It was not done.
    Refused { by: Option<&'a Ref>, error: &'a Error },
    /// The user is now in this room.
    Gained(&'a RoomEntry),
    /// The user is not in this room any more. `mine`: they did it themselves.
    Gone {
        room: RoomId,
        reason: GoneReason,
        by: Option<coop_core::UserId>,
        mine: bool,
    },
    /// An answer that has just ended, for who may have missed it.
    JustEnded(&'a Message),
    /// The connection will be closed for this reason, with this code. Whoever may come back is to do so after this long.
    Bye {
        reason: Farewell,
        code: u16,
        again: Duration,
    },
}

/// What a client is told first.
#[derive(Debug)]
pub(crate) struct Welcome<'a> {
    pub(crate) user: &'a Account,
    pub(crate) rooms: &'a [RoomEntry],
    /// The bots' handles and names, the default one first.
    pub(crate) bots: &'a [(String, String)],
    /// The most bytes of one frame from a client.
    pub(crate) frame_bytes: usize,
    pub(crate) bounds: &'a Bounds,
    pub(crate) now: Timestamp,
}

/// Why a server closes a connection that has done nothing wrong, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The client does not read.
    Slow,
    /// Its token is no longer good.
    Expired,
    /// All tokens of the user have been ended.
    LoggedOut,
    /// It answers no ping.
    Silent,
    /// It goes on doing what is refused.
    Unruly,
    /// The server closes.
    Closing,
    /// The store does not say which rooms the user is in.
    Unavailable,
}

/// The words of one connection.
#[derive(Debug, Clone)]
pub(crate) enum Dialect {
    Seed(Arc<seed::Seed>),
    V1(Arc<v1::V1>),
}

/// The dialects there are, each made once: what all its clients get is encoded once.
#[derive(Debug)]
pub(crate) struct Dialects {
    pub(crate) seed: Arc<seed::Seed>,
    pub(crate) v1: Arc<v1::V1>,
}

impl Dialects {
    /// The one that a handshake asks for: `coop.v1` if the client offers it, else the first system's.
    pub(crate) fn chosen(&self, headers: &HeaderMap) -> Dialect {
        if offered(headers).any(|name| name == v1::NAME) {
            Dialect::V1(Arc::clone(&self.v1))
        } else {
            Dialect::Seed(Arc::clone(&self.seed))
        }
    }
}

/// The subprotocols that a handshake offers. One of them may carry a token: a page can set no other header.
pub(crate) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim))
}

impl Dialect {
    /// The subprotocol that is answered in the handshake.
    pub(crate) fn subprotocol(&self) -> Option<&'static str> {
        match self {
            Self::Seed(_) => None,
            Self::V1(_) => Some(v1::NAME),
        }
    }

    /// What encodes the rooms' events.
    pub(crate) fn encoder(&self) -> Arc<dyn Encoder> {
        match self {
            Self::Seed(seed) => Arc::clone(seed) as Arc<dyn Encoder>,
            Self::V1(v1) => Arc::clone(v1) as Arc<dyn Encoder>,
        }
    }

    /// What a frame says; `None` if it is of a type that means nothing here.
    ///
    /// # Errors
    /// Words for the client.
    pub(crate) fn decode(&self, text: &str) -> Result<Option<Asked>, Malformed> {
        match self {
            Self::Seed(_) => {
                let command = seed::decode(text)?;
                Ok(command.map(|command| Asked { by: None, command }))
            }
            Self::V1(_) => v1::decode(text).map(Some),
        }
    }

    /// The frames that say this; none if this dialect has no words for it.
    pub(crate) fn encode(&self, said: &Outbound<'_>) -> Vec<u8> {
        match self {
            Self::Seed(_) => seed::encode(said),
            Self::V1(_) => v1::encode(said),
        }
    }

    /// Where a client begins in a room that it joins, having all events up to this cursor.
    pub(crate) fn start(&self, from: Cursor, after: Option<Seq>) -> Start {
        match (self, after) {
            // Its clients read the history over HTTP, before or after.
            (Self::Seed(_), _) => Start::Since(from.seq()),
            (Self::V1(_), Some(seq)) => Start::After(seq),
            (Self::V1(_), None) => Start::Snapshot,
        }
    }

    /// Whether joining a room again does nothing.
    pub(crate) fn joins_once(&self) -> bool {
        matches!(self, Self::Seed(_))
    }

    /// How long after a client leaves a room it has left: the seed's page leaves and joins all the time.
    pub(crate) fn leaves_after(&self) -> Duration {
        match self {
            Self::Seed(_) => seed::LEAVES_AFTER,
            Self::V1(_) => Duration::ZERO,
        }
    }

    /// What read marks become where they must not be missed; otherwise they are hints like others.
    pub(crate) fn receipts(&self) -> Option<&Receipts> {
        match self {
            Self::Seed(seed) => Some(seed.receipts()),
            Self::V1(_) => None,
        }
    }

    /// The answers that end in these entries and must be [remembered](Self::remember) before they can be encoded.
    pub(crate) fn unknown(&self, entries: &[Entry]) -> Vec<MessageId> {
        match self {
            Self::Seed(seed) => seed.unknown(entries),
            Self::V1(_) => Vec::new(),
        }
    }

    pub(crate) fn remember(&self, message: &Arc<Message>) {
        if let Self::Seed(seed) = self {
            seed.remember(message);
        }
    }

    /// The answers of a room that ended a moment ago, which a client that joins may have missed.
    pub(crate) fn just_ended(&self, room: RoomId) -> Vec<MessageId> {
        match self {
            Self::Seed(seed) => seed.just_ended(room),
            Self::V1(_) => Vec::new(),
        }
    }

    /// How a connection is closed for this reason.
    pub(crate) fn close_code(&self, reason: Farewell) -> u16 {
        match (self, reason) {
            (_, Farewell::Slow) => 4508,
            (_, Farewell::Expired | Farewell::LoggedOut) => 4401,
            (_, Farewell::Silent) => 4408,
            (Self::Seed(_), Farewell::Unruly) => 1008,
            (Self::V1(_), Farewell::Unruly) => 4400,
            (Self::Seed(_), Farewell::Closing) => 1012,
            (Self::V1(_), Farewell::Closing) => 4503,
            (Self::Seed(_), Farewell::Unavailable) => 1013,
            (Self::V1(_), Farewell::Unavailable) => 4500,
        }
    }
}

impl Farewell {
    /// The reason in a close frame.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Slow => "slow reader",
            Self::Expired => "token expired",
            Self::LoggedOut => "logged out",
            Self::Silent => "no answer to pings",
            Self::Unruly => "too many errors",
            Self::Closing => "the server restarts",
            Self::Unavailable => "try again later",
        }
    }
}

/// A refusal because this limit is reached.
pub(crate) fn too_many(limit: &'static str, words: &'static str, after: Duration) -> Error {
    Meters::refused(limit);
    Error::new(ErrorKind::RateLimited, words).with_retry_after(after)
}

/// Appends a frame; false if there is none.
fn write(out: &mut Vec<u8>, value: &impl Serialize) -> bool {
    let mark = frame::begin_text(out);
    match serde_json::to_writer(&mut *out, value) {
        Ok(()) => {
            frame::end_text(out, mark);
            true
        }
        Err(error) => {
            tracing::error!(%error, "a frame could not be written");
            frame::abandon_text(out, mark);
            false
        }
    }
}

fn alone(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}
