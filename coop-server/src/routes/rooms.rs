//! Rooms: one's list, making, showing and deleting them. And the seed's words for rooms one has no business in.

use crate::call::Call;
use crate::objects::{ChatObject, ChatRow};
use crate::reply::{Answer, Failure, Reply};
use coop_core::{Error, ErrorKind, Room, RoomDraft, User, UserId};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The most names looked up for one new room: as many as a room may have members.
const MAX_NAMES: usize = 1_000;

/// One's rooms, newest activity first.
pub(crate) async fn list(_: Call, user: User) -> Answer {
    let rooms = user.rooms().await?;
    Reply::json(&rooms.iter().map(ChatRow::from).collect::<Vec<_>>())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewChat {
    name: Option<String>,
    #[serde(default)]
    is_group: bool,
    #[serde(default)]
    is_ai_chat: bool,
    participant_usernames: Option<Vec<String>>,
}

/// Makes a room. Names that nobody has are left out.
pub(crate) async fn create(call: Call, user: User) -> Answer {
    let asked: NewChat = call.json()?;
    let names: BTreeSet<String> = asked.participant_usernames.into_iter().flatten().collect();
    if names.len() > MAX_NAMES {
        return Err(Error::too_large("a room has at most 1,000 members").into());
    }
    let mut members = Vec::new();
    for name in names {
        match call.house.engine.find_user(&name).await {
            Ok(member) => members.push(member),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name = asked.name.filter(|name| !name.trim().is_empty());
    let mut draft = name.map_or_else(RoomDraft::default, RoomDraft::named).with(members);
    if asked.is_ai_chat {
        draft = draft.ai_chat();
    }
    if !asked.is_group {
        draft = draft.not_a_group();
    }
    let entry = user.create_room(draft).await?.entry().await?;
    Reply::json(&ChatObject::from(&entry.info))
}

/// One room.
pub(crate) async fn show(call: Call, user: User) -> Answer {
    let room = known_room(&call, &user, || Failure::forbidden("Not authorized")).await?;
    let entry = room.entry().await?;
    Reply::json(&ChatObject::from(&entry.info))
}

/// One room as its user has it in the list, in the engine's own words.
pub(crate) async fn entry(call: Call, user: User) -> Answer {
    Reply::json(&room(&call, &user).await?.entry().await?)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    name: Option<String>,
    owner: Option<UserId>,
}

/// Gives a room another name, or another owner. Only its owner may.
pub(crate) async fn change(call: Call, user: User) -> Answer {
    let Change { name, owner } = call.json()?;
    let room = room(&call, &user).await?;
    if let Some(name) = name {
        room.rename(name).await?;
    }
    if let Some(owner) = owner {
        room.hand_over(owner).await?;
    }
    Reply::json(&room.entry().await?)
}

/// Deletes a room with everything in it.
pub(crate) async fn delete(call: Call, user: User) -> Answer {
    let not_yours = || Failure::forbidden("Only chat admin can delete chat");
    let room = known_room(&call, &user, not_yours).await?;
    match room.delete_room().await {
        Err(error) if error.kind() == ErrorKind::Forbidden => Err(not_yours()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_such_chat()),
        Err(error) => Err(error.into()),
        Ok(()) => Reply::message("Chat deleted successfully"),
    }
}

/// The path's room where the seed says nothing: in the engine's own words.
pub(crate) async fn room(call: &Call, user: &User) -> Result<Room, Failure> {
    Ok(user.room(call.room()?).await?)
}

/// The path's room, where the seed tells rooms that do not exist from those of others.
pub(crate) async fn known_room(call: &Call, user: &User, foreign: impl FnOnce() -> Failure) -> Result<Room, Failure> {
    let id = call.room()?;
    match user.room(id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let exists = call.house.engine.room_info(id).await;
            exists.map_err(no_such_chat_if_not_found)?;
            Err(foreign())
        }
        found => Ok(found?),
    }
}

/// The path's room, where the seed does not tell them apart.
pub(crate) async fn own_room(call: &Call, user: &User) -> Result<Room, Failure> {
    user.room(call.room()?).await.map_err(not_authorized)
}

/// What the engine says to who is no member, in the seed's words.
pub(crate) fn not_authorized(error: Error) -> Failure {
    if error.kind() == ErrorKind::NotFound {
        Failure::forbidden("Not authorized")
    } else {
        error.into()
    }
}

pub(crate) fn no_such_chat() -> Failure {
    Failure::not_found("Chat not found")
}

fn no_such_chat_if_not_found(error: Error) -> Failure {
    if error.kind() == ErrorKind::NotFound {
        no_such_chat()
    } else {
        error.into()
    }
}
