//! Which part of a room's history a client asks for, over HTTP or on a socket alike. How much of it a page may have is the
//! engine's to say.

use coop_core::{Range, Seq};

/// How many messages a page has if nobody says.
const PAGE: u32 = 50;

/// The part that lies before or after a position, or the newest; how many messages of it.
///
/// # Errors
/// Words for the client.
pub(crate) fn part(before: Option<Seq>, after: Option<Seq>, limit: Option<u32>) -> Result<(Range, u32), &'static str> {
    let range = match (before, after) {
        (None, None) => Range::Newest,
        (Some(before), None) => Range::Before(before),
        (None, Some(after)) => Range::After(after),
        (Some(_), Some(_)) => return Err("before and after exclude each other"),
    };
    match limit.unwrap_or(PAGE) {
        0 => Err("limit must be at least 1"),
        limit => Ok((range, limit)),
    }
}
