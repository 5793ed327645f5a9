//! What clients say on a socket, whatever words they use for it, and the words. Pure: text in, [`Command`] out; events
//! in, bytes out.

pub(crate) mod seed;

use coop_core::RoomId;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// To get everything of a room.
    Join(RoomId),
    /// To get only its events again.
    Leave(RoomId),
    /// To say this.
    Message(RoomId, String),
    /// To tell the others that it is writing.
    Typing(RoomId),
}
