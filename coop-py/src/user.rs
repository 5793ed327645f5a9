//! A user who acts, as Python calls them. Each call takes the number under which the loop awaits its outcome.

use crate::bridge::{Call, Link};
use crate::here::Here;
use crate::room::Room;
use crate::subscription::Subscription;
use crate::value::{Account, RoomEntry};
use coop_core::{RoomDraft, RoomId};
use pyo3::prelude::*;

/// A user who acts.
#[pyclass(frozen)]
pub(crate) struct User(Here<(Link, coop_core::User)>);

impl User {
    pub(crate) fn new(link: &Link, user: coop_core::User) -> Self {
        Self(Here::new((link.clone(), user)))
    }

    pub(crate) fn user(&self) -> &coop_core::User {
        &self.0.get().1
    }
}

#[pymethods]
impl User {
    #[getter]
    fn id(&self) -> i64 {
        self.user().id().0
    }

    #[getter]
    fn name(&self) -> &str {
        self.user().name()
    }

    fn create_room(&self, call: u64, name: Option<String>, members: Vec<PyRef<'_, User>>, ai_chat: bool) -> Call {
        let (link, user) = self.0.get();
        let mut draft = name.map_or_else(RoomDraft::default, RoomDraft::named);
        draft = draft.with(members.iter().map(|member| member.user().clone()));
        if ai_chat {
            draft = draft.ai_chat();
        }
        let (user, own) = (user.clone(), link.clone());
        link.start(call, async move {
            user.create_room(draft).await.map(|room| Room::new(&own, room))
        })
    }

    fn room(&self, call: u64, room: i64) -> Call {
        let (link, user) = self.0.get();
        let (user, own) = (user.clone(), link.clone());
        link.start(call, async move {
            user.room(RoomId(room)).await.map(|room| Room::new(&own, room))
        })
    }

    fn rooms(&self, call: u64) -> Call {
        let (link, user) = self.0.get();
        let user = user.clone();
        link.start(call, async move {
            let rooms = user.rooms().await?;
            Ok::<_, coop_core::Error>(rooms.into_iter().map(RoomEntry).collect::<Vec<_>>())
        })
    }

    fn search(&self, call: u64, text: String, limit: u32) -> Call {
        let (link, user) = self.0.get();
        let user = user.clone();
        link.start(call, async move {
            let found = user.search(&text, limit).await?;
            Ok::<_, coop_core::Error>(found.into_iter().map(Account).collect::<Vec<_>>())
        })
    }

    fn subscribe(&self, call: u64, number: u64) -> Call {
        let (link, user) = self.0.get();
        let (user, own) = (user.clone(), link.clone());
        link.start(call, async move {
            let stream = user.subscribe().await?;
            Ok::<_, coop_core::Error>(Subscription::new(own, number, stream))
        })
    }

    fn set_password(&self, call: u64, password: String) -> Call {
        let (link, user) = self.0.get();
        let user = user.clone();
        link.start(call, async move { user.set_password(password).await })
    }
}
