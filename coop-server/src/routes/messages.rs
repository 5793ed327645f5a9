//! What was said in a room, and who has read it.

use super::rooms::{not_authorized, own_room, room};
use super::turns::AskedObject;
use crate::call::Call;
use crate::objects::MessageObject;
use crate::paging;
use crate::receipts;
use crate::reply::{Answer, Failure, Reply};
use crate::saying::Saying;
use coop_core::{Draft, Error, Message, MessageId, Meta, Page, Range, Seq, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Part of the history, oldest first: the newest, or those before or after a position.
pub(crate) async fn list(call: Call, user: User) -> Answer {
    let (range, limit) = part(&call)?;
    let room = own_room(&call, &user).await?;
    let page = room.history(range, limit).await.map_err(not_authorized)?;
    let shown = page.messages.iter().map(|message| MessageObject::from(&**message));
    Reply::json(&shown.collect::<Vec<_>>())
}

/// Which part of the history is asked for.
fn part(call: &Call) -> Result<(Range, u32), Failure> {
    let (before, after) = (call.number("before")?.map(Seq), call.number("after")?.map(Seq));
    let (range, limit) = paging::part(before, after, call.number("limit")?).map_err(Failure::malformed)?;
    Ok((range, limit.min(call.house.engine.bounds().page)))
}

/// Messages in the engine's own words, and whether there are more.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PageObject<'a> {
    messages: &'a [Arc<Message>],
    more: bool,
}

fn shown(page: &Page) -> Answer {
    Reply::json(&PageObject {
        messages: &page.messages,
        more: page.more,
    })
}

/// The same part of the history in the engine's own words.
pub(crate) async fn page(call: Call, user: User) -> Answer {
    let (range, limit) = part(&call)?;
    shown(&room(&call, &user).await?.history(range, limit).await?)
}

/// Messages that have all these words, or words that begin so; the newest page of them, or what is before a position.
pub(crate) async fn search(call: Call, user: User) -> Answer {
    let (range, limit) = part(&call)?;
    let before = match range {
        Range::Newest => None,
        Range::Before(seq) => Some(seq),
        Range::After(_) => return Err(Failure::malformed("a search goes back: it has no after")),
    };
    let missing = || Failure::malformed("query is missing");
    let text = call.parameter("query")?.ok_or_else(missing)?;
    shown(&room(&call, &user).await?.search(&text, before, limit).await?)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewMessage {
    text: String,
    client_id: Option<String>,
    reply_to: Option<MessageId>,
    meta: Option<Meta>,
}

/// What was said, and whom it asked.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SentObject<'a> {
    message: &'a Message,
    turns: Vec<AskedObject<'a>>,
    duplicate: bool,
    /// Why nobody was asked who would have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    unasked: Option<&'a str>,
}

/// Says something.
pub(crate) async fn send(call: Call, user: User) -> Answer {
    let asked: NewMessage = call.json()?;
    let room = room(&call, &user).await?;
    let is_ai_chat = room.entry().await?.info.is_ai_chat;
    let draft = Draft {
        text: asked.text,
        client_id: asked.client_id,
        reply_to: asked.reply_to,
        meta: asked.meta,
        asks_nobody: false,
    };
    let house = &call.house;
    let (saying, handed) = Saying::begin(house, user.id(), room, is_ai_chat, draft).await?;
    let (sent, unasked) = saying.end(house, handed).await?;
    Reply::json(&SentObject {
        message: &sent.message,
        turns: sent.turns.iter().map(AskedObject::of).collect(),
        duplicate: sent.duplicate,
        unasked: unasked.as_ref().map(Error::words),
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewText {
    text: String,
}

/// Changes what one said.
pub(crate) async fn edit(call: Call, user: User) -> Answer {
    let NewText { text } = call.json()?;
    let message = room(&call, &user).await?.edit(call.message()?, text).await?;
    Reply::json(&*message)
}

/// Takes back what one said, or, as the owner, what anybody said.
pub(crate) async fn delete(call: Call, user: User) -> Answer {
    room(&call, &user).await?.delete(call.message()?).await?;
    Reply::message("Deleted")
}

/// Who has read each author's newest message, by message. Clients show no others.
pub(crate) async fn receipts(call: Call, user: User) -> Answer {
    let room = own_room(&call, &user).await?;
    let snapshot = receipts::look(&call.house.engine, room.id()).await;
    Reply::json(&receipts::of(&snapshot.map_err(not_authorized)?))
}

/// That a room is read.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MarkedObject {
    success: bool,
    message: &'static str,
}

/// Marks everything as read.
pub(crate) async fn mark_read(call: Call, user: User) -> Answer {
    let room = own_room(&call, &user).await?;
    room.mark_all_read().await.map_err(not_authorized)?;
    Reply::json(&MarkedObject {
        success: true,
        message: "Chat marked as read",
    })
}
