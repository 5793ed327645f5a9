//! Sending what may ask bots, over a socket or HTTP alike: what it costs its author, for how long, and what becomes of it
//! where that is too much.

use crate::api::House;
use crate::limits::Asking;
use coop_core::command::asks;
use coop_core::{Draft, Error, Handed, Room, Sent, UserId};

/// A draft that may be sent, and what is owed for it.
pub(crate) struct Saying {
    room: Room,
    /// What it may ask, if it asks.
    paid: Option<Asking>,
    /// Why it does not ask, in an AI chat where it would have.
    unasked: Option<Error>,
    /// It asks only if its author is alone in the room.
    perhaps: bool,
}

impl Saying {
    /// Hands a draft over to be sent.
    ///
    /// # Errors
    /// As [`Room::begin_send`]; `RateLimited` if it asks too much. In an AI chat it is then sent without asking.
    pub(crate) async fn begin(
        house: &House,
        user: UserId,
        room: Room,
        is_ai_chat: bool,
        mut draft: Draft,
    ) -> Result<(Self, Handed), Error> {
        let bots = house.engine.bots();
        let bots: Vec<_> = bots.iter().map(String::as_str).collect();
        let asks = asks(&draft.text, &bots);
        let asked = asks.named.len() + usize::from(asks.default);
        // In an AI chat somebody alone asks with every message; whether they are alone the commit decides.
        let perhaps = is_ai_chat && asked == 0 && !bots.is_empty();
        let (mut paid, mut unasked) = (None, None);
        if asked > 0 || perhaps {
            match house.tolls.ask(user, asked.max(1)) {
                Ok(allowed) => paid = Some(allowed),
                Err(error) if is_ai_chat => {
                    draft = draft.asking_nobody();
                    unasked = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let saying = Self {
            room,
            paid,
            unasked,
            perhaps,
        };
        match saying.room.begin_send(draft).await {
            Ok(handed) => Ok((saying, handed)),
            Err(error) => {
                saying.forget();
                Err(error)
            }
        }
    }

    /// Waits until it is on disk. With it comes why it asked nobody, if it would have.
    ///
    /// # Errors
    /// As [`Room::send`].
    pub(crate) async fn end(self, house: &House, handed: Handed) -> Result<(Sent, Option<Error>), Error> {
        let sent = match handed.sent().await {
            Ok(sent) => sent,
            Err(error) => {
                self.forget();
                return Err(error);
            }
        };
        if let Some(paid) = self.paid {
            paid.until_answered(&sent.turns, &house.sockets, &house.closing);
        }
        let unasked = match self.unasked {
            Some(error) if !self.perhaps || is_alone(&self.room).await => Some(error),
            _ => None,
        };
        Ok((sent, unasked))
    }

    /// It asked nobody.
    fn forget(self) {
        self.paid.into_iter().for_each(Asking::forget);
    }
}

/// Whether nobody else is in a room.
async fn is_alone(room: &Room) -> bool {
    room.members().await.is_ok_and(|members| members.len() == 1)
}
