//! What was said in a room, and who has read it.

use super::rooms::{not_authorized, own_room};
use crate::call::Call;
use crate::objects::MessageObject;
use crate::receipts;
use crate::reply::{Answer, Failure, Reply};
use coop_core::{MAX_PAGE, Range, Seq, User};

/// How many messages are shown if nobody says.
const PAGE: u32 = 50;

/// Part of the history, oldest first: the newest, or those before or after a position.
pub(crate) async fn list(call: Call, user: User) -> Answer {
    let limit: u32 = call.number("limit")?.unwrap_or(PAGE);
    let range = match (call.number("before")?, call.number("after")?) {
        (None, None) => Range::Newest,
        (Some(before), None) => Range::Before(Seq(before)),
        (None, Some(after)) => Range::After(Seq(after)),
        (Some(_), Some(_)) => return Err(Failure::malformed("before and after exclude each other")),
    };
    if limit == 0 {
        return Err(Failure::malformed("limit must be at least 1"));
    }
    let room = own_room(&call, &user).await?;
    let page = room.history(range, limit.min(MAX_PAGE)).await.map_err(not_authorized)?;
    let shown = page.messages.iter().map(|message| MessageObject::from(&**message));
    Reply::json(&shown.collect::<Vec<_>>())
}

/// Who has read each author's newest message, by message. Clients show no others.
pub(crate) async fn receipts(call: Call, user: User) -> Answer {
    let room = own_room(&call, &user).await?;
    let snapshot = receipts::look(&call.house.engine, room.id()).await;
    Reply::json(&receipts::of(&snapshot.map_err(not_authorized)?))
}

/// Marks everything as read.
pub(crate) async fn mark_read(call: Call, user: User) -> Answer {
    let room = own_room(&call, &user).await?;
    room.mark_all_read().await.map_err(not_authorized)?;
    Reply::json(&serde_json::json!({ "success": true, "message": "Chat marked as read" }))
}
