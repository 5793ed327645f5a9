//! Finding people.

use crate::call::Call;
use crate::objects::UserObject;
use crate::reply::{Answer, Failure, Reply};
use coop_core::User;

/// How many are found if nobody says.
const FOUND: u32 = 10;

/// People whose name contains the query.
pub(crate) async fn search(call: Call, user: User) -> Answer {
    let query = call
        .parameter("query")?
        .ok_or_else(|| Failure::malformed("query is missing"))?;
    let limit = call.number("limit")?.unwrap_or(FOUND);
    let found = user.search(&query, limit).await?;
    Reply::json(&found.iter().map(UserObject::of).collect::<Vec<_>>())
}
