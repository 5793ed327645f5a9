//! A room as one member sees it, and a turn in it, as Python calls them. Each call takes the number under which the loop
//! awaits its outcome.

use crate::bridge::{Call, Link};
use crate::here::Here;
use crate::subscription::Subscription;
use crate::user::User;
use crate::value::{Member, Message, RoomEntry, TurnEnd, TurnInfo};
use coop_core::{
    Draft, Error, MessageId, Meta, Page, Position, Range, Result, RoomSettings, Seq, TurnHandle, TurnId, UserId,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// A room, seen by one member.
#[pyclass(frozen)]
pub(crate) struct Room(Here<(Link, coop_core::Room)>);

impl Room {
    pub(crate) fn new(link: &Link, room: coop_core::Room) -> Self {
        Self(Here::new((link.clone(), room)))
    }

    /// Begins a call on a handle of its own.
    fn begin<F, T>(&self, call: u64, doing: impl FnOnce(coop_core::Room) -> F) -> Call
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: for<'py> IntoPyObjectExt<'py> + Send + 'static,
    {
        let (link, room) = self.0.get();
        link.start(call, doing(room.clone()))
    }

    /// The same for what makes a handle.
    fn begin_with<F, T>(&self, call: u64, doing: impl FnOnce(coop_core::Room, Link) -> F) -> Call
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: for<'py> IntoPyObjectExt<'py> + Send + 'static,
    {
        let (link, room) = self.0.get();
        link.start(call, doing(room.clone(), link.clone()))
    }
}

fn messages(page: Page) -> (Vec<Message>, bool) {
    (page.messages.into_iter().map(Message).collect(), page.more)
}

#[pymethods]
impl Room {
    #[getter]
    fn id(&self) -> i64 {
        self.0.get().1.id().0
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one for each thing that can be said of a message"
    )]
    fn send(
        &self,
        call: u64,
        text: String,
        client_id: Option<String>,
        reply_to: Option<i64>,
        meta: Option<String>,
        asks_nobody: bool,
    ) -> Call {
        self.begin_with(call, async move |room, link| {
            let draft = Draft {
                text,
                client_id,
                reply_to: reply_to.map(MessageId),
                meta: meta.map(Meta::from_json).transpose()?,
                asks_nobody,
            };
            let sent = room.send(draft).await?;
            let turns: Vec<_> = sent.turns.into_iter().map(|turn| Turn::new(&link, turn)).collect();
            Ok((Message(sent.message), turns, sent.duplicate))
        })
    }

    fn edit(&self, call: u64, message: i64, text: String) -> Call {
        self.begin(call, async move |room| {
            room.edit(MessageId(message), text).await.map(Message)
        })
    }

    fn delete(&self, call: u64, message: i64) -> Call {
        self.begin(call, async move |room| room.delete(MessageId(message)).await)
    }

    fn message(&self, call: u64, message: i64) -> Call {
        self.begin(call, async move |room| {
            room.message(MessageId(message)).await.map(Message)
        })
    }

    /// The messages, and whether there are more in that direction.
    fn history(&self, call: u64, limit: u32, before: Option<i64>, after: Option<i64>) -> Call {
        self.begin(call, async move |room| {
            let range = match (before, after) {
                (None, None) => Range::Newest,
                (Some(seq), None) => Range::Before(Seq(seq)),
                (None, Some(seq)) => Range::After(Seq(seq)),
                _ => return Err(Error::bad_request("give before or after, not both")),
            };
            room.history(range, limit).await.map(messages)
        })
    }

    fn search(&self, call: u64, text: String, limit: u32, before: Option<i64>) -> Call {
        self.begin(call, async move |room| {
            let found = room.search(&text, before.map(Seq), limit).await;
            found.map(messages)
        })
    }

    /// At a position (JSON), behind a seq of the log as it is now, or from a snapshot on.
    fn subscribe(&self, call: u64, number: u64, position: Option<String>, after: Option<i64>) -> Call {
        self.begin_with(call, async move |room, link| {
            let stream = match (position, after) {
                (Some(json), _) => {
                    let position: Position = serde_json::from_str(&json)
                        .map_err(|error| Error::bad_request("that is no position").with_source(error))?;
                    room.resume(position).await?
                }
                (None, Some(seq)) => {
                    let position = Position {
                        epoch: room.entry().await?.epoch,
                        seq: Seq(seq),
                        ..Position::default()
                    };
                    room.resume(position).await?
                }
                (None, None) => room.subscribe().await?,
            };
            Ok(Subscription::new(link, number, stream))
        })
    }

    fn entry(&self, call: u64) -> Call {
        self.begin(call, async move |room| room.entry().await.map(RoomEntry))
    }

    fn members(&self, call: u64) -> Call {
        self.begin(call, async move |room| {
            let members = room.members().await?;
            Ok(members.into_iter().map(Member).collect::<Vec<_>>())
        })
    }

    fn turns(&self, call: u64) -> Call {
        self.begin(call, async move |room| {
            let turns = room.open_turns().await?;
            Ok(turns.into_iter().map(TurnInfo).collect::<Vec<_>>())
        })
    }

    fn invite(&self, call: u64, user: PyRef<'_, User>) -> Call {
        let user = user.user().clone();
        self.begin(call, async move |room| room.invite(&user).await)
    }

    fn remove(&self, call: u64, user: i64) -> Call {
        self.begin(call, async move |room| room.remove(UserId(user)).await)
    }

    fn leave(&self, call: u64) -> Call {
        self.begin(call, async move |room| room.leave().await)
    }

    fn rename(&self, call: u64, name: String) -> Call {
        self.begin(call, async move |room| room.rename(name).await)
    }

    fn hand_over(&self, call: u64, to: i64) -> Call {
        self.begin(call, async move |room| room.hand_over(UserId(to)).await)
    }

    fn delete_room(&self, call: u64) -> Call {
        self.begin(call, async move |room| room.delete_room().await)
    }

    /// Up to a seq, or everything there is.
    fn mark_read(&self, call: u64, seq: Option<i64>) -> Call {
        self.begin(call, async move |room| match seq {
            Some(seq) => room.mark_read(Seq(seq)).await,
            None => room.mark_all_read().await,
        })
    }

    fn typing(&self, call: u64) -> Call {
        self.begin(call, async move |room| room.typing().await)
    }

    fn presence(&self, call: u64, here: bool) -> Call {
        self.begin(call, async move |room| room.presence(here).await)
    }

    fn stop(&self, call: u64, turn: i64) -> Call {
        self.begin(call, async move |room| room.stop(TurnId(turn)).await)
    }

    fn stop_answer(&self, call: u64, message: i64) -> Call {
        self.begin(call, async move |room| room.stop_answer(MessageId(message)).await)
    }

    fn retry(&self, call: u64, turn: i64) -> Call {
        self.begin_with(call, async move |room, link| {
            let turn = room.retry(TurnId(turn)).await?;
            Ok(Turn::new(&link, turn))
        })
    }

    fn retry_answer(&self, call: u64, message: i64) -> Call {
        self.begin_with(call, async move |room, link| {
            let turn = room.retry_answer(MessageId(message)).await?;
            Ok(Turn::new(&link, turn))
        })
    }

    /// The settings as JSON.
    fn settings(&self, call: u64) -> Call {
        self.begin(call, async move |room| json(&room.settings().await?))
    }

    /// Changes the settings that this JSON names; its outcome is all of them.
    fn configure(&self, call: u64, changes: String) -> Call {
        self.begin(call, async move |room| {
            let bad = |error| Error::bad_request("these are no settings of a room").with_source(error);
            let mut now = serde_json::to_value(room.settings().await?).map_err(bad)?;
            let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&changes).map_err(bad)?;
            for (name, value) in changes {
                match now.get_mut(&name) {
                    Some(setting) => *setting = value,
                    None => return Err(Error::bad_request(format!("a room has no setting {name}"))),
                }
            }
            let settings: RoomSettings = serde_json::from_value(now).map_err(bad)?;
            room.configure(settings.clone()).await?;
            json(&settings)
        })
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let broken = |error| Error::internal("settings that cannot be written").with_source(error);
    serde_json::to_string(value).map_err(broken)
}

/// A turn that was asked for.
#[pyclass(frozen)]
pub(crate) struct Turn(Here<(Link, TurnHandle)>);

impl Turn {
    fn new(link: &Link, turn: TurnHandle) -> Self {
        Self(Here::new((link.clone(), turn)))
    }
}

#[pymethods]
impl Turn {
    #[getter]
    fn id(&self) -> i64 {
        self.0.get().1.id().0
    }

    #[getter]
    fn bot(&self) -> &str {
        self.0.get().1.bot()
    }

    /// Why it was refused at once, if it was: a code, and words.
    #[getter]
    fn refused(&self) -> Option<(&str, &str)> {
        let refused = self.0.get().1.refused();
        refused.map(|error| (error.code.as_str(), error.words.as_str()))
    }

    fn stop(&self, call: u64) -> Call {
        let (link, turn) = self.0.get();
        let turn = turn.clone();
        link.start(call, async move { turn.stop().await })
    }

    fn ended(&self, call: u64) -> Call {
        let (link, turn) = self.0.get();
        let turn = turn.clone();
        link.start(call, async move { turn.ended().await.map(TurnEnd) })
    }

    fn info(&self, call: u64) -> Call {
        let (link, turn) = self.0.get();
        let turn = turn.clone();
        link.start(call, async move { turn.info().await.map(TurnInfo) })
    }
}
