//! Who is in a room: listing, inviting, removing and leaving.

use super::rooms::{known_room, no_such_chat, not_authorized, own_room};
use crate::call::Call;
use crate::objects::UserObject;
use crate::reply::{Answer, Failure, Reply};
use coop_core::{ErrorKind, User};
use schemars::JsonSchema;
use serde::Deserialize;

/// Everybody in a room. Bots are no members.
pub(crate) async fn list(call: Call, user: User) -> Answer {
    let members = own_room(&call, &user).await?.members().await.map_err(not_authorized)?;
    let seen = members
        .iter()
        .map(|member| UserObject::of_member(member, user.account()));
    Reply::json(&seen.collect::<Vec<_>>())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Invitation {
    username: String,
}

/// Makes somebody a member. Any member may.
pub(crate) async fn invite(call: Call, user: User) -> Answer {
    let asked: Invitation = call.json()?;
    let foreign = || Failure::forbidden("Not authorized");
    let room = known_room(&call, &user, foreign).await?;
    let invited = match call.house.engine.find_user(&asked.username).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Failure::not_found("User not found")),
        found => found?,
    };
    room.invite(&invited).await.map_err(not_authorized)?;
    Reply::message(&format!("User {} invited to chat", invited.name()))
}

/// Takes another's membership away. Only the owner may.
pub(crate) async fn remove(call: Call, user: User) -> Answer {
    let not_yours = || Failure::forbidden("Only chat admin can remove participants");
    let room = known_room(&call, &user, not_yours).await?;
    let member = call.member()?;
    if member == user.id() {
        return Err(if room.entry().await?.info.owner == user.id() {
            Failure::bad_request("Cannot remove yourself. Use leave endpoint instead")
        } else {
            not_yours()
        });
    }
    match room.remove(member).await {
        Err(error) if error.kind() == ErrorKind::Forbidden => Err(not_yours()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::not_found("User is not a participant")),
        Err(error) => Err(error.into()),
        Ok(()) => Reply::message("Participant removed successfully"),
    }
}

/// Gives up one's own membership. The owner cannot.
pub(crate) async fn leave(call: Call, user: User) -> Answer {
    let room = known_room(&call, &user, || Failure::not_found("Not a participant")).await?;
    match room.leave().await {
        Err(error) if error.kind() == ErrorKind::Conflict => {
            Err(Failure::bad_request("Chat owner cannot leave. Delete the chat instead"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_such_chat()),
        Err(error) => Err(error.into()),
        Ok(()) => Reply::message("Left chat successfully"),
    }
}
