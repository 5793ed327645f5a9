//! The turns of bots in a room: the queue, stopping, asking again, and what an answer was made from.

use super::rooms::room;
use crate::call::Call;
use crate::reply::{Answer, Reply};
use coop_core::{Receipt, Room, TurnHandle, TurnId, User};
use schemars::JsonSchema;
use serde::Serialize;

/// The turns that have not ended, the oldest first.
pub(crate) async fn list(call: Call, user: User) -> Answer {
    Reply::json(&room(&call, &user).await?.open_turns().await?)
}

/// The turn whose answer this is.
pub(crate) async fn of_answer(call: Call, user: User) -> Answer {
    Reply::json(&room(&call, &user).await?.turn_of(call.message()?).await?)
}

/// Ends a turn for everyone.
pub(crate) async fn stop(call: Call, user: User) -> Answer {
    room(&call, &user).await?.stop(call.turn()?).await?;
    Reply::message("Stopped")
}

/// Ends the turn whose answer this is.
pub(crate) async fn stop_answer(call: Call, user: User) -> Answer {
    room(&call, &user).await?.stop_answer(call.message()?).await?;
    Reply::message("Stopped")
}

/// Asks the same again.
pub(crate) async fn retry(call: Call, user: User) -> Answer {
    let (room, turn) = (room(&call, &user).await?, call.turn()?);
    ask_again(call, &user, room, async |room| room.retry(turn).await).await
}

/// Asks again what this was the answer to.
pub(crate) async fn retry_answer(call: Call, user: User) -> Answer {
    let (room, message) = (room(&call, &user).await?, call.message()?);
    ask_again(call, &user, room, async |room| room.retry_answer(message).await).await
}

/// A turn, and why it was refused if it was.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AskedObject<'a> {
    turn: TurnId,
    bot: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a coop_core::TurnError>,
}

impl<'a> AskedObject<'a> {
    pub(super) fn of(turn: &'a TurnHandle) -> Self {
        Self {
            turn: turn.id(),
            bot: turn.bot(),
            error: turn.refused(),
        }
    }
}

/// Asking again costs what asking costs, until the answer has ended.
async fn ask_again(
    call: Call,
    user: &User,
    room: Room,
    again: impl AsyncFnOnce(Room) -> coop_core::Result<TurnHandle>,
) -> Answer {
    let asking = call.house.tolls.ask(user.id(), 1)?;
    let turn = match again(room).await {
        Ok(turn) => turn,
        Err(error) => {
            asking.forget();
            return Err(error.into());
        }
    };
    let answer = Reply::json(&AskedObject::of(&turn));
    asking.until_answered(std::slice::from_ref(&turn), &call.house.sockets, &call.house.closing);
    answer
}

/// What the bot had read whose answer this is.
pub(crate) async fn receipt(call: Call, user: User) -> Answer {
    let receipt: Receipt = room(&call, &user).await?.receipt(call.message()?).await?;
    Reply::json(&receipt)
}
