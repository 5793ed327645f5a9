//! A user, as the handle through which they act. Whoever holds one acts as them: the host obtains it after its own
//! login, or through [`Engine::authenticate`](crate::Engine::authenticate).

use crate::attachment::Attachment;
use crate::bus::BusItem;
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::id::{RoomId, UserId};
use crate::live::{Encoder, Reader};
use crate::model::{Account, RoomEntry, UsageFilter, UsageSum};
use crate::names;
use crate::room::{Room, complete};
use crate::store::{Greeting, Intent, NewRoom};
use crate::subscription::Subscription;
use std::fmt;
use std::sync::Arc;

/// The most users one search returns.
const MAX_FOUND: u32 = 50;

/// A user who acts. Cheap to clone.
#[derive(Clone)]
pub struct User {
    pub(crate) shared: Arc<Shared>,
    account: Arc<Account>,
    /// How often tokens had been ended before the account was read.
    pub(crate) as_of: u64,
}

/// A room to be made by [`User::create_room`]: a name, or more.
#[derive(Clone, Debug, Default)]
pub struct RoomDraft {
    name: Option<String>,
    members: Vec<User>,
    ai_chat: bool,
    direct: bool,
}

impl RoomDraft {
    /// A group of this name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }

    /// With these people in it from the start. Without a name the room is called after its members.
    #[must_use]
    pub fn with(mut self, members: impl IntoIterator<Item = User>) -> Self {
        self.members.extend(members);
        self
    }

    /// As an AI chat: the default bot greets, and while there is one member every message is an ask.
    #[must_use]
    pub fn ai_chat(mut self) -> Self {
        self.ai_chat = true;
        self
    }

    /// Not marked as a group.
    #[must_use]
    pub fn not_a_group(mut self) -> Self {
        self.direct = true;
        self
    }
}

impl<T: Into<String>> From<T> for RoomDraft {
    fn from(name: T) -> Self {
        Self::named(name)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.account.id)
            .field("name", &self.account.name)
            .finish_non_exhaustive()
    }
}

impl Room {
    /// Makes somebody a member. Any member may; inviting a member again changes nothing.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, room| {
    /// let carol = engine.create_user("carol").await?;
    /// room.invite(&carol).await?;
    /// carol.room(room.id()).await?.send("Thank you!").await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `TooLarge` if the room is full (1,000 members), `NotFound`, `Unavailable`, `Closed`. Cancel safe as
    /// [`send`](Self::send).
    pub async fn invite(&self, user: &User) -> Result<()> {
        let (user, name, by) = (user.id(), user.name().to_owned(), self.user_id());
        self.carry_out(Intent::Invite { user, name, by }).await
    }
}

impl User {
    pub(crate) fn new(shared: Arc<Shared>, account: Account, as_of: u64) -> Self {
        Self {
            shared,
            account: Arc::new(account),
            as_of,
        }
    }

    /// Their id.
    #[must_use]
    pub fn id(&self) -> UserId {
        self.account.id
    }

    /// Their name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.account.name
    }

    /// Their account, as it was when this handle was made.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Makes a room and becomes its owner.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, alice, bob, _| {
    /// use coop_core::RoomDraft;
    ///
    /// let room = alice.create_room("den").await?;
    /// let with_bob = alice.create_room(RoomDraft::named("office").with([bob])).await?;
    /// let with_a_bot = alice.create_room(RoomDraft::default().ai_chat()).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` (name), `TooLarge` (more members than [`Bounds::room_members`](crate::Bounds::room_members)), `Unavailable`, `Closed`. Dropping the call means made or not
    /// made.
    pub async fn create_room(&self, draft: impl Into<RoomDraft>) -> Result<Room> {
        self.shared.check_open()?;
        let draft = draft.into();
        let mut members: Vec<(UserId, String)> = Vec::new();
        for user in &draft.members {
            if user.id() != self.id() && members.iter().all(|(id, _)| *id != user.id()) {
                members.push((user.id(), user.name().to_owned()));
            }
        }
        let name = draft.name.unwrap_or_else(|| self.name_for(draft.ai_chat, &members));
        let bounds = &self.shared.settings.bounds;
        names::check_room_name(&name, bounds.room_name_chars)?;
        if members.len() >= bounds.room_members as usize {
            return Err(Error::too_large(format!(
                "a room may have at most {} members",
                bounds.room_members
            )));
        }
        let bots = self.shared.bots();
        let greeting = bots.all.first().filter(|_| draft.ai_chat).map(|bot| Greeting {
            bot: bot.profile.handle.clone(),
            name: bot.profile.name.clone(),
            text: bot.profile.about.clone(),
        });
        let gained: Vec<UserId> = members.iter().map(|(id, _)| *id).chain([self.id()]).collect();
        let new = NewRoom {
            name,
            owner: (self.id(), self.name().to_owned()),
            members,
            is_group: !draft.direct && !draft.ai_chat,
            is_ai_chat: draft.ai_chat,
            greeting,
            now: self.shared.now(),
        };
        // In a task of its own: whoever asked may be gone before the others have been told of their new room.
        let shared = Arc::clone(&self.shared);
        let made = self.shared.tasks.spawn(async move {
            let (info, _) = shared.rooms.create_room(new).await?;
            for user in gained {
                shared.readers_of(user).iter().for_each(|reader| reader.gained(info.id));
                shared.publish(|| BusItem::Joined { room: info.id, user });
            }
            Ok::<_, Error>(info)
        });
        let info = self
            .shared
            .patiently(made)
            .await?
            .map_err(|error| Error::internal("the room could not be made").with_source(error))??;
        self.room(info.id).await
    }

    /// A name for a room that was given none: its members', as many as fit.
    fn name_for(&self, ai_chat: bool, members: &[(UserId, String)]) -> String {
        if ai_chat {
            return "AI Chat".to_owned();
        }
        let mut name = self.name().to_owned();
        for (_, other) in members {
            if name.chars().count() + other.chars().count() + 2 > self.shared.settings.bounds.room_name_chars {
                break;
            }
            name.push_str(", ");
            name.push_str(other);
        }
        name
    }

    /// One of their rooms.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, bob, room| {
    /// let as_bob_sees_it = bob.room(room.id()).await?;
    ///
    /// let carol = engine.create_user("carol").await?;
    /// let refused = carol.room(room.id()).await;
    /// assert_eq!(refused.unwrap_err().kind(), coop_core::ErrorKind::NotFound);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` for a room they are not in (whether or not it exists), `Unavailable`, `Closed`. Cancel safe.
    pub async fn room(&self, room: RoomId) -> Result<Room> {
        self.shared.check_open()?;
        self.shared.check_member(room, self.id()).await?;
        let name = self.name().to_owned();
        Ok(Room::new(Arc::clone(&self.shared), room, self.id(), name))
    }

    /// The sum of the tokens that were used for what they asked, since a day or ever; in one room or by one bot if the filter
    /// says so. Its user is this one.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, alice, _, _| {
    /// assert_eq!(alice.usage(coop_core::UsageFilter::default()).await?.total, 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unavailable`, `Closed`. Cancel safe.
    pub async fn usage(&self, of: UsageFilter) -> Result<UsageSum> {
        self.shared.check_open()?;
        let mine = UsageFilter {
            user: Some(self.id()),
            ..of
        };
        self.shared.rooms.usage(&mine).await
    }

    /// Their rooms, newest activity first. One query. An answer that is being written has its text so far.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, bob, room| {
    /// room.send("Hello!").await?;
    /// for entry in bob.rooms().await? {
    ///     println!("{}: {} unread", entry.info.name, entry.unread);
    /// #   assert_eq!(entry.unread, 1);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unavailable`, `Closed`. Cancel safe.
    pub async fn rooms(&self) -> Result<Vec<RoomEntry>> {
        self.shared.check_open()?;
        let mut rooms = self.shared.rooms.rooms_of(self.id(), None).await?;
        let last = rooms.iter_mut().filter_map(|entry| entry.last_message.as_mut());
        last.for_each(|message| complete(&self.shared, message));
        Ok(rooms)
    }

    /// Everything that happens in all their rooms, those they gain included: events and read marks, without deltas and
    /// other hints. It begins with one [`RoomGained`](crate::Event::RoomGained) for each room.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, alice, bob, _| {
    /// use coop_core::{Event, RoomDraft};
    /// use futures::StreamExt;
    ///
    /// let mut events = bob.subscribe().await?;
    /// alice.create_room(RoomDraft::named("den").with([bob])).await?;
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         Event::RoomGained { entry } if entry.info.name == "den" => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unavailable`, `Closed`.
    pub async fn subscribe(&self) -> Result<Subscription> {
        Subscription::of_user(|reader| self.attach_as(reader, None)).await
    }

    /// Registers a reader of one's own for their rooms, as a server does for each connection. It hears of rooms that
    /// are gained and lost from now on; [`Attachment::enter_all`] attaches it to those there are.
    #[must_use]
    pub fn attach(&self, reader: Arc<dyn Reader>, encoder: Arc<dyn Encoder>) -> Attachment {
        self.attach_as(reader, Some(encoder))
    }

    fn attach_as(&self, reader: Arc<dyn Reader>, encoder: Option<Arc<dyn Encoder>>) -> Attachment {
        Attachment::new(
            Arc::clone(&self.shared),
            self.id(),
            self.name().to_owned(),
            reader,
            encoder,
        )
    }

    /// Up to 50 users whose name contains `text`, without oneself. Fewer than two characters find nobody.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, alice, bob, _| {
    /// let found = alice.search("bo", 10).await?;
    /// assert_eq!(found[0].id, bob.id());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Unavailable`, `Closed`. Cancel safe.
    pub async fn search(&self, text: &str, limit: u32) -> Result<Vec<Account>> {
        self.shared.check_open()?;
        let Ok(text) = names::fold(text) else {
            return Ok(Vec::new());
        };
        if text.chars().count() < 2 {
            return Ok(Vec::new());
        }
        let mut found = self
            .shared
            .users
            .search(&text, limit.clamp(1, MAX_FOUND), self.id())
            .await?;
        for account in &mut found {
            account.email = None;
        }
        Ok(found)
    }
}
