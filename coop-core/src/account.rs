//! An account from its password to its end: what its owner changes of it, and what becomes of their rooms and messages
//! when they go. It knows no logins: whoever calls has made sure who asks.

use crate::bus::BusItem;
use crate::engine::LOOKS;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{MessageId, RoomId};
use crate::model::{Role, RoomEntry};
use crate::password::Verdict;
use crate::store::Intent;
use crate::user::User;
use crate::writer;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// How many messages are looked up at a time when all of somebody's are deleted.
const PURGE_PAGE: u32 = 1_000;
/// How many of them are under way at a time.
const PURGES: usize = 64;

/// What becomes of somebody's rooms and messages when their account is deleted: by default their rooms go on under another
/// owner, and what they have said stays under their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    deletes_rooms: bool,
    purges_messages: bool,
}

impl Departure {
    /// Deletes the rooms they own, instead of handing each over to the member who has been there longest.
    #[must_use]
    pub fn deleting_rooms(mut self) -> Self {
        self.deletes_rooms = true;
        self
    }

    /// Deletes everything they have said, also in rooms that they have left. What bots have answered stays.
    #[must_use]
    pub fn purging_messages(mut self) -> Self {
        self.purges_messages = true;
        self
    }
}

impl User {
    /// Ends all their tokens, and with them every connection that was opened with one.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, _, _| {
    /// alice.log_out_everywhere().await?;
    /// assert!(!alice.is_token_good().await?, "as of the token with which this handle was got");
    /// assert!(engine.user(alice.id()).await?.is_token_good().await?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` if the user store keeps no tokens, `Unavailable` (not certain whether they have ended),
    /// `Closed`. Dropping the call means ended or not ended.
    pub async fn log_out_everywhere(&self) -> Result<()> {
        let (users, id) = (Arc::clone(&self.shared.users), self.id());
        self.end_tokens(async move { users.end_tokens(id).await }).await
    }

    /// Gives them another password, and ends all their tokens as [`log_out_everywhere`](Self::log_out_everywhere) does.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// let carol = engine.register("carol", "carol@example.org", "correct horse".into()).await?;
    /// carol.set_password("battery staple".into()).await?;
    /// assert!(engine.authenticate("carol", "correct horse".into()).await.is_err());
    /// engine.authenticate("carol", "battery staple".into()).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `BadRequest` for a password that breaks the rules, `Busy` if too many are being hashed, and as
    /// [`log_out_everywhere`](Self::log_out_everywhere).
    pub async fn set_password(&self, password: String) -> Result<()> {
        self.shared.check_open()?;
        let email = self.account().email.as_deref().unwrap_or("");
        let rules = self.shared.passwords.rules();
        rules.check(&password, self.name(), email).map_err(Error::bad_request)?;
        let hash = self.shared.passwords.hash(password).await?;
        let (users, id) = (Arc::clone(&self.shared.users), self.id());
        self.end_tokens(async move { users.set_password(id, &hash).await })
            .await
    }

    /// Does what ends tokens in the store, and tells their readers. In a task of its own: whoever asked may be gone
    /// before the readers have been told.
    async fn end_tokens(&self, ending: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        self.shared.check_open()?;
        let (shared, id) = (Arc::clone(&self.shared), self.id());
        let ended = self.shared.tasks.spawn(async move {
            ending.await?;
            shared.tell_tokens_ended(id);
            shared.publish(|| BusItem::TokensEnded(id));
            Ok::<_, Error>(())
        });
        let failed = |error| Error::internal("the tokens could not be ended").with_source(error);
        self.shared.patiently(ended).await?.map_err(failed)?
    }

    /// Whether a token that was good for this handle's account still is. Asks the store only if somebody's tokens have
    /// been ended since the account was read. For who attaches a reader: between the look and the attaching nothing
    /// tells the reader of it.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`. Cancel safe.
    pub async fn is_token_good(&self) -> Result<bool> {
        self.shared.check_open()?;
        if self.shared.token_ends() == self.as_of {
            return Ok(true);
        }
        let now = self.shared.users.user(self.id()).await?;
        Ok(now.is_some_and(|account| account.token_version == self.account().token_version))
    }

    /// Whether this is their password. One without a password has none that is right.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, _, _, _| {
    /// let carol = engine.register("carol", "carol@example.org", "correct horse".into()).await?;
    /// assert!(carol.has_password("correct horse".into()).await?);
    /// assert!(!carol.has_password("battery staple".into()).await?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `Busy` if too many are being hashed, `Unavailable`, `Closed`. Cancel safe.
    pub async fn has_password(&self, password: String) -> Result<bool> {
        self.shared.check_open()?;
        if self.shared.passwords.rules().check_upper_bound(&password).is_err() {
            return Ok(false);
        }
        let found = self.shared.users.credentials(self.name()).await?;
        let hash = found
            .filter(|(account, _)| account.id == self.id())
            .map(|(_, hash)| hash);
        Ok(self.shared.passwords.verify(password, hash).await? != Verdict::Wrong)
    }

    /// Deletes their account: its address and its password are erased, its id never comes back, all its tokens and
    /// connections end. They leave all rooms; rooms they own get another owner, or are deleted if nobody else is there, or
    /// [if that is wanted](Departure::deleting_rooms).
    ///
    /// What has been begun goes on if the call is dropped, and may be asked for again if it failed: the account itself goes
    /// last. Who else holds a handle of this user should let go of it.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |engine, alice, bob, room| {
    /// room.send("Good bye!").await?;
    /// alice.delete_account(coop_core::Departure::default().purging_messages()).await?;
    /// assert!(engine.user(alice.id()).await.is_err());
    /// let room = bob.room(room.id()).await?;
    /// assert_eq!(room.entry().await?.info.owner, bob.id());
    /// assert!(room.entry().await?.last_message.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` if the user store keeps no accounts, `Unavailable`, `Closed`.
    pub async fn delete_account(&self, how: Departure) -> Result<()> {
        self.shared.check_open()?;
        let user = self.clone();
        // In a task of its own: half a departure would be worse than none.
        let departed = self.shared.tasks.spawn(async move { user.depart(how).await });
        let failed = |error| Error::internal("the account could not be deleted").with_source(error);
        departed.await.map_err(failed)?
    }

    async fn depart(self, how: Departure) -> Result<()> {
        // First, so that they do nothing more meanwhile, and so that a store that keeps no accounts refuses at once.
        self.log_out_everywhere().await?;
        self.leave_all(how).await?;
        if how.purges_messages {
            self.purge().await?;
        }
        let (users, id) = (Arc::clone(&self.shared.users), self.id());
        self.end_tokens(async move { users.delete_user(id).await }).await?;
        // Where somebody has invited them meanwhile.
        self.leave_all(how).await
    }

    async fn leave_all(&self, how: Departure) -> Result<()> {
        for _ in 0..LOOKS {
            let rooms = self.shared.rooms.rooms_of(self.id(), None).await?;
            if rooms.is_empty() {
                return Ok(());
            }
            for entry in rooms {
                match self.leave_one(&entry, how).await {
                    // Something has changed since the look: the next look tells what.
                    Err(error) if is_outdated(&error) => {}
                    left => left?,
                }
            }
        }
        Err(Error::unavailable("too much is changing at once"))
    }

    async fn leave_one(&self, entry: &RoomEntry, how: Departure) -> Result<()> {
        let (room, by) = (entry.info.id, self.id());
        if entry.role == Role::Owner {
            let mut members = self.shared.rooms.members(room).await?.into_iter();
            let successor = members.find(|member| member.user != by).filter(|_| !how.deletes_rooms);
            let Some(successor) = successor else {
                return self.carry_out(room, Intent::DeleteRoom { by }).await;
            };
            self.carry_out(room, Intent::HandOver { to: successor.user, by })
                .await?;
        }
        self.carry_out(room, Intent::Remove { user: by, by }).await
    }

    async fn purge(&self) -> Result<()> {
        let mut after = MessageId(0);
        loop {
            let written = self.shared.rooms.written_by(self.id(), after, PURGE_PAGE).await?;
            let Some(&(_, last)) = written.last() else {
                return Ok(());
            };
            after = last;
            let deletions = written.into_iter().map(|(room, message)| {
                let author = self.id();
                self.carry_out(room, Intent::Purge { message, author })
            });
            let deletions = futures::stream::iter(deletions).buffered(PURGES);
            let gone = |deleted: Result<()>| async move {
                match deleted {
                    // With its room.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    other => other,
                }
            };
            deletions.then(gone).try_collect::<()>().await?;
        }
    }

    async fn carry_out(&self, room: RoomId, intent: Intent) -> Result<()> {
        writer::submit(&self.shared, room, intent, Vec::new()).await.map(|_| ())
    }
}

fn is_outdated(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Forbidden
    )
}
