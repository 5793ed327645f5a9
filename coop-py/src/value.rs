//! Messages, members and other values as Python sees them: frozen classes over the engine's own, whose fields are made
//! into Python objects when they are looked at.

use coop_core::{Timestamp, model};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyString, PyTuple, PyTzInfo};
use serde::Serialize;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A moment as an aware datetime.
pub(crate) fn moment(py: Python<'_>, at: Timestamp) -> PyResult<Py<PyAny>> {
    let seconds = at.0.div_euclid(1_000);
    let micros = at.0.rem_euclid(1_000) * 1_000;
    static SINCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let epoch = SINCE.get_or_try_init(py, || {
        let utc = PyTzInfo::utc(py)?;
        PyResult::Ok(
            PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc))?
                .into_any()
                .unbind(),
        )
    })?;
    static DELTA: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let delta = DELTA.import(py, "datetime", "timedelta")?.call1((0, seconds, micros))?;
    Ok(epoch.bind(py).add(delta)?.unbind())
}

/// JSON as Python's own objects.
pub(crate) fn loads(py: Python<'_>, json: &str) -> PyResult<Py<PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(LOADS.import(py, "json", "loads")?.call1((json,))?.unbind())
}

pub(crate) fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

/// `Name(field=value, ...)`, of the fields that a pattern takes by place.
pub(crate) fn repr(of: &Bound<'_, PyAny>) -> PyResult<String> {
    let class = of.get_type();
    let mut shown = format!("{}(", class.name()?);
    for (place, name) in class.getattr("__match_args__")?.try_iter()?.enumerate() {
        let name = name?;
        let name = name.cast::<PyString>()?;
        let value = of.getattr(name)?.repr()?;
        let comma = if place == 0 { "" } else { ", " };
        shown.push_str(&format!("{comma}{name}={value}"));
    }
    shown.push(')');
    Ok(shown)
}

pub(crate) fn hash(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}

/// The class of a value: its fields, each with how it is got.
macro_rules! value {
    (
        $(#[doc = $class_doc:literal])+ $class:ident($inner:ty) |$it:ident, $py:ident|
        $($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $get:expr;)+
        $(also { $($more:tt)+ })?
    ) => {
        $(#[doc = $class_doc])+
        #[pyclass(frozen, eq, module = "gemini_coop")]
        #[derive(PartialEq)]
        pub(crate) struct $class(pub(crate) $inner);

        #[pymethods]
        impl $class {
            #[classattr]
            fn __match_args__(py: Python<'_>) -> PyResult<Py<PyTuple>> {
                Ok(PyTuple::new(py, [$(stringify!($field)),+])?.unbind())
            }

            $(
                $(#[doc = $doc])+
                #[getter]
                #[allow(clippy::unnecessary_wraps, reason = "some of them fail")]
                fn $field(&self, $py: Python<'_>) -> PyResult<$kind> {
                    let $it = &self.0;
                    let _ = $py;
                    Ok($get)
                }
            )+

            /// The same as on the wire: what JSON has, in dicts and lists.
            fn to_dict(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                loads(py, &json(&self.0)?)
            }

            fn __hash__(&self) -> PyResult<u64> {
                Ok(hash(&json(&self.0)?))
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                repr(slf.as_any())
            }

            $($($more)+)?
        }
    };
}

value! {
    /// Who wrote a message: a person or a bot. As a string, the name.
    Author(model::Author) |it, py|
    /// The name shown.
    name: String = it.name.clone();
    /// The person's id; None for a bot.
    user: Option<i64> = it.user.map(|user| user.0);
    /// The bot's handle; None for a person.
    bot: Option<String> = it.bot.clone();
    also {
        /// For calling a bot as a plain function.
        #[new]
        #[pyo3(signature = (name, user=None, bot=None))]
        fn new(name: String, user: Option<i64>, bot: Option<String>) -> Self {
            let mut author = model::Author::bot("", name);
            author.user = user.map(Into::into);
            author.bot = bot;
            Self(author)
        }

        fn __str__(&self) -> &str {
            &self.0.name
        }
    }
}

value! {
    /// Something said.
    Message(Arc<model::Message>) |it, py|
    /// Its id, unique over all rooms.
    id: i64 = it.id.0;
    /// Who wrote it.
    author: Author = Author(it.author.clone());
    /// What is said. Of an answer that is being written, so far.
    text: Py<PyString> = PyString::new(py, &it.text).unbind();
    /// `streaming` while a bot writes it, then `done`, `stopped`, `failed` or `interrupted`; of a person, `done`.
    status: &'static str = it.status.as_str();
    /// Its room's id.
    room: i64 = it.room.0;
    /// Its place in the room.
    seq: i64 = it.seq.0;
    /// When it was said.
    created_at: Py<PyAny> = moment(py, it.created_at)?;
    /// When it was last changed, if it was.
    edited_at: Option<Py<PyAny>> = it.edited_at.map(|at| moment(py, at)).transpose()?;
    /// How often it was changed.
    edits: u32 = it.edits;
    /// The message it answers, if it says so.
    reply_to: Option<i64> = it.reply_to.map(|id| id.0);
    /// What the application has attached, if anything.
    meta: Option<Py<PyAny>> = it.meta.as_ref().map(|meta| loads(py, meta.as_json())).transpose()?;
    /// The sender's own id for it, if it had one. Only its author is told.
    client_id: Option<String> = it.client_id.clone();
    /// Why the bot could not finish, in words for people.
    error: Option<String> = it.error.clone();
}

value! {
    /// Somebody with an account.
    Account(model::Account) |it, py|
    /// Their id.
    id: i64 = it.id.0;
    /// Their name.
    name: String = it.name.clone();
    /// When it was made.
    created_at: Py<PyAny> = moment(py, it.created_at)?;
}

value! {
    /// Somebody in a room.
    Member(model::Member) |it, py|
    /// Their user id.
    user: i64 = it.user.0;
    /// Their name.
    name: String = it.name.clone();
    /// `owner` or `member`.
    role: &'static str = role(it.role);
    /// Up to where they have read.
    read: i64 = it.read.0;
    /// When they said so last, if ever.
    read_at: Option<Py<PyAny>> = it.read_at.map(|at| moment(py, at)).transpose()?;
    /// Since when they are in it.
    joined_at: Py<PyAny> = moment(py, it.joined_at)?;
}

fn role(role: model::Role) -> &'static str {
    match role {
        model::Role::Owner => "owner",
        model::Role::Member => "member",
    }
}

value! {
    /// A room.
    RoomInfo(model::RoomInfo) |it, py|
    /// Its id.
    id: i64 = it.id.0;
    /// Its name.
    name: String = it.name.clone();
    /// Whose it is.
    owner: i64 = it.owner.0;
    /// Whether it was made as a group.
    is_group: bool = it.is_group;
    /// Whether a lone member asks the default bot with everything they say.
    is_ai_chat: bool = it.is_ai_chat;
    /// When it was made.
    created_at: Py<PyAny> = moment(py, it.created_at)?;
}

value! {
    /// A room in somebody's list.
    RoomEntry(model::RoomEntry) |it, py|
    /// Its id.
    id: i64 = it.info.id.0;
    /// Its name.
    name: String = it.info.name.clone();
    /// The room.
    info: RoomInfo = RoomInfo(it.info.clone());
    /// One's own role in it: `owner` or `member`.
    role: &'static str = role(it.role);
    /// How many messages one has not read.
    unread: u32 = it.unread;
    /// The newest message, if there is one.
    last_message: Option<Message> = it.last_message.clone().map(Message);
    /// The newest position in it.
    seq: i64 = it.seq.0;
    /// Since when one is in it.
    joined_at: Py<PyAny> = moment(py, it.joined_at)?;
}

value! {
    /// Tokens that a turn has used.
    Usage(model::Usage) |it, py|
    /// Read.
    input: Option<u32> = it.input;
    /// Written.
    output: Option<u32> = it.output;
    /// Thought, unseen.
    thinking: Option<u32> = it.thinking;
    /// Of those read, taken from a cache.
    cached: Option<u32> = it.cached;
    /// All of them.
    total: Option<u32> = it.total;
    /// Whether these are guesses.
    estimated: bool = it.estimated;
}

value! {
    /// How a turn has ended.
    TurnEnd(model::TurnEnd) |it, py|
    /// `done`, `stopped`, `failed` or `interrupted`.
    status: &'static str = it.status.as_str();
    /// Who stopped it, if a person did.
    by: Option<i64> = it.by.map(|user| user.0);
    /// The stable word for why it failed or was refused, if it was.
    error_code: Option<String> = it.error.as_ref().map(|error| error.code.clone());
    /// The same in words for people.
    error: Option<String> = it.error.as_ref().map(|error| error.words.clone());
    /// The tokens it used, if that is known.
    usage: Option<Usage> = it.usage.map(Usage);
    /// Whether the answer was cut at its size limit.
    cut: bool = it.finish.as_ref().is_some_and(|finish| finish.reason == model::FinishReason::Length);
}

value! {
    /// A bot's answer to one ask.
    TurnInfo(model::TurnInfo) |it, py|
    /// Its id.
    id: i64 = it.id.0;
    /// The bot's handle.
    bot: String = it.bot.clone();
    /// `queued`, `streaming`, or how it has ended.
    status: &'static str = it.status.as_str();
    /// The answer's message, once the turn has started.
    message: Option<i64> = it.message.map(|id| id.0);
    /// Who asked.
    asked_by: i64 = it.asked_by.0;
    /// The message that asked.
    ask: i64 = it.ask.0;
    /// Where.
    room: i64 = it.room.0;
    /// How it has ended, once it has.
    end: Option<TurnEnd> = it.end.clone().map(TurnEnd);
}
