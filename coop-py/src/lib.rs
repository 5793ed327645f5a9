//! What the Python package `gemini_coop` is made of underneath: an engine, and the way between its threads and Python's.
//! Private to that package, whose own modules give it its shape and its words.
//!
//! Threads of the engine never touch the interpreter: what they have for Python goes into a `bridge`, from which the
//! loop's thread fetches it. Only what is called from Python makes Python objects.

mod bot;
mod bridge;
mod builtin;
mod engine;
mod error;
mod event;
mod here;
mod log;
mod room;
mod server;
mod subscription;
mod user;
mod value;

/// The private extension of `gemini_coop`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::bot::Answer;
    #[pymodule_export]
    use crate::bridge::{Bridge, Call};
    #[pymodule_export]
    use crate::builtin::{BuiltinBot, gemini_bot, mock_bot, scribe_bot};
    #[pymodule_export]
    use crate::engine::{Engine, open};
    #[pymodule_export]
    use crate::error::{bot_error_codes, error_codes};
    #[pymodule_export]
    use crate::event::{
        Delta, Event, Gone, MemberJoined, MemberLeft, MessageDeleted, MessageEdited, MessagePosted, Presence, ReadMark,
        RoomGained, RoomUpdated, Snapshot, Tape, TurnEnded, TurnQueued, TurnStarted, Typing,
    };
    #[pymodule_export]
    use crate::log::{disable_logging, enable_logging};
    #[pymodule_export]
    use crate::room::{Room, Turn};
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::subscription::Subscription;
    #[pymodule_export]
    use crate::user::User;
    #[pymodule_export]
    use crate::value::{Account, Author, Member, Message, RoomEntry, RoomInfo, TurnEnd, TurnInfo, Usage};
}
