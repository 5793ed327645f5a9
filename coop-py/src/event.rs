//! Events as Python sees them: a frozen class for each kind, made for `match`, over the engine's own event. A field is made
//! into a Python object when it is looked at, so an event that is only counted costs little more than its class.

use crate::value::{Member, Message, RoomEntry, RoomInfo, TurnEnd, TurnInfo, hash, loads, repr};
use coop_core::{Event as Of, GoneReason, HintKind};
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// Something that happened in a room.
#[pyclass(frozen, subclass, weakref, module = "gemini_coop")]
pub(crate) struct Event(Of);

impl Event {
    fn wire(&self) -> PyResult<(&'static str, String)> {
        let json = coop_server::event_json(&self.0);
        json.ok_or_else(|| PyValueError::new_err("an event that has no place on the wire"))
    }
}

#[pymethods]
impl Event {
    /// Its type on the wire.
    #[getter]
    fn r#type(&self) -> &'static str {
        match &self.0 {
            Of::Delta { .. } | Of::Tape { .. } => "delta",
            Of::Snapshot(_) => "snapshot",
            Of::Hint(_) => "hint",
            Of::RoomGained { .. } => "room",
            Of::Gone { .. } => "gone",
            _ => "event",
        }
    }

    /// The id of the room it happened in.
    #[getter]
    fn room(&self) -> i64 {
        self.0.room().0
    }

    /// Its position in the room's log, if it is part of the log.
    #[getter]
    fn seq(&self) -> Option<i64> {
        self.0.seq().map(|seq| seq.0)
    }

    /// The same as on the wire: what JSON has, in dicts and lists.
    fn to_dict(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        loads(py, &self.wire()?.1)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self) -> PyResult<u64> {
        Ok(hash(&self.wire()?.1))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf.as_any())
    }
}

fn of_another_kind() -> PyErr {
    PyAttributeError::new_err("an event of another kind")
}

/// The class of a kind of event: its pattern, and its fields with how each is got from what the pattern binds.
macro_rules! event {
    (
        $(#[doc = $class_doc:literal])+ $class:ident |$py:ident|
        $($(#[doc = $doc:literal])+ $field:ident: $kind:ty, $pattern:pat => $get:expr;)+
    ) => {
        $(#[doc = $class_doc])+
        #[pyclass(frozen, extends = Event, module = "gemini_coop")]
        pub(crate) struct $class;

        #[pymethods]
        impl $class {
            #[classattr]
            fn __match_args__(py: Python<'_>) -> PyResult<Py<PyTuple>> {
                Ok(PyTuple::new(py, [$(stringify!($field)),+])?.unbind())
            }

            $(
                $(#[doc = $doc])+
                #[getter]
                fn $field(slf: PyRef<'_, Self>) -> PyResult<$kind> {
                    let $py = slf.py();
                    let _ = $py;
                    match &slf.as_super().0 {
                        $pattern => Ok($get),
                        _ => Err(of_another_kind()),
                    }
                }
            )+
        }
    };
}

event! {
    /// Something was said.
    MessagePosted |py|
    /// What.
    message: Message, Of::MessagePosted { message, .. } => Message(message.clone());
}

event! {
    /// A message was changed by its author.
    MessageEdited |py|
    /// The message as it is now.
    message: Message, Of::MessageEdited { message, .. } => Message(message.clone());
}

event! {
    /// A message was deleted.
    MessageDeleted |py|
    /// Its id.
    message: i64, Of::MessageDeleted { message, .. } => message.0;
    /// Who deleted it.
    by: i64, Of::MessageDeleted { by, .. } => by.0;
}

event! {
    /// Somebody is now a member.
    MemberJoined |py|
    /// Their name.
    name: String, Of::MemberJoined { name, .. } => name.clone();
    /// Their id.
    user: i64, Of::MemberJoined { user, .. } => user.0;
    /// Who invited them.
    by: i64, Of::MemberJoined { by, .. } => by.0;
}

event! {
    /// Somebody left or was removed.
    MemberLeft |py|
    /// Their name.
    name: String, Of::MemberLeft { name, .. } => name.clone();
    /// Their id.
    user: i64, Of::MemberLeft { user, .. } => user.0;
    /// Who did it: themselves, or the owner.
    by: i64, Of::MemberLeft { by, .. } => by.0;
}

event! {
    /// The room's name, owner or settings changed.
    RoomUpdated |py|
    /// The room as it is now.
    info: RoomInfo, Of::RoomUpdated { info, .. } => RoomInfo(info.clone());
    /// Who changed it.
    by: i64, Of::RoomUpdated { by, .. } => by.0;
}

event! {
    /// A bot was asked and will answer.
    TurnQueued |py|
    /// The turn's id.
    turn: i64, Of::TurnQueued { turn, .. } => turn.0;
    /// The bot's handle.
    bot: String, Of::TurnQueued { bot, .. } => bot.clone();
    /// Who asked.
    asked_by: i64, Of::TurnQueued { asked_by, .. } => asked_by.0;
    /// The message that asked.
    ask: i64, Of::TurnQueued { ask, .. } => ask.0;
    /// How many turns of that bot are before it.
    position: u32, Of::TurnQueued { position, .. } => *position;
}

event! {
    /// A bot begins its answer.
    TurnStarted |py|
    /// The answer; it grows by each `Delta`.
    message: Message, Of::TurnStarted { message, .. } => Message(message.clone());
    /// The turn's id.
    turn: i64, Of::TurnStarted { turn, .. } => turn.0;
    /// The bot's handle.
    bot: String, Of::TurnStarted { bot, .. } => bot.clone();
    /// Who asked.
    asked_by: i64, Of::TurnStarted { asked_by, .. } => asked_by.0;
}

event! {
    /// A turn is over, or was refused; then it never started and has no message.
    TurnEnded |py|
    /// `done`, `stopped`, `failed` or `interrupted`.
    status: &'static str, Of::TurnEnded { end, .. } => end.status.as_str();
    /// All that was written.
    text: Py<PyString>, Of::TurnEnded { text, .. } => PyString::new(py, text).unbind();
    /// The answer's message, if the turn had started.
    message: Option<i64>, Of::TurnEnded { message, .. } => message.map(|id| id.0);
    /// The turn's id.
    turn: i64, Of::TurnEnded { turn, .. } => turn.0;
    /// The bot's handle.
    bot: String, Of::TurnEnded { bot, .. } => bot.clone();
    /// How it ended, in full.
    end: TurnEnd, Of::TurnEnded { end, .. } => TurnEnd((**end).clone());
}

event! {
    /// A piece of an answer: where a reader holds `offset` bytes of it, it appends.
    Delta |py|
    /// The piece.
    text: Py<PyString>, Of::Delta { text, .. } => PyString::new(py, text).unbind();
    /// The answer's message.
    message: i64, Of::Delta { message, .. } => message.0;
    /// Where it begins, in bytes of UTF-8.
    offset: u64, Of::Delta { offset, .. } => *offset;
    /// Where it ends.
    end: u64, Of::Delta { end, .. } => *end;
}

event! {
    /// An answer's whole text so far, for a reader that was behind: it replaces what the reader holds.
    Tape |py|
    /// All of it.
    text: Py<PyString>, Of::Tape { text, .. } => PyString::new(py, text).unbind();
    /// The answer's message.
    message: i64, Of::Tape { message, .. } => message.0;
    /// How long it is, in bytes of UTF-8.
    end: u64, Of::Tape { end, .. } => *end;
}

event! {
    /// Everything up to now, before the events that follow.
    Snapshot |py|
    /// The room.
    info: RoomInfo, Of::Snapshot(snapshot) => RoomInfo(snapshot.info.clone());
    /// Everybody in it, in the order of joining.
    members: Py<PyTuple>, Of::Snapshot(snapshot) =>
        PyTuple::new(py, snapshot.members.iter().cloned().map(Member).collect::<Vec<_>>())?.unbind();
    /// The newest messages, oldest first.
    messages: Py<PyTuple>, Of::Snapshot(snapshot) =>
        PyTuple::new(py, snapshot.messages.iter().cloned().map(Message).collect::<Vec<_>>())?.unbind();
    /// Turns that have not ended, the oldest first.
    turns: Py<PyTuple>, Of::Snapshot(snapshot) =>
        PyTuple::new(py, snapshot.turns.iter().cloned().map(TurnInfo).collect::<Vec<_>>())?.unbind();
    /// Answers that are being written: the text so far by message.
    tapes: Py<PyDict>, Of::Snapshot(snapshot) => {
        let tapes = PyDict::new(py);
        for tape in &snapshot.tapes {
            tapes.set_item(tape.message.0, &*tape.text)?;
        }
        tapes.unbind()
    };
}

event! {
    /// Somebody is writing.
    Typing |py|
    /// Their name.
    name: String, Of::Hint(hint) => hint.name.clone();
    /// Their id.
    user: i64, Of::Hint(hint) => hint.user.0;
}

event! {
    /// Somebody has opened or closed the room.
    Presence |py|
    /// Their name.
    name: String, Of::Hint(hint) => hint.name.clone();
    /// Whether they are there now.
    here: bool, Of::Hint(hint) => matches!(hint.what, HintKind::Presence { here: true });
    /// Their id.
    user: i64, Of::Hint(hint) => hint.user.0;
}

event! {
    /// Somebody has read everything up to a place.
    ReadMark |py|
    /// Their name.
    name: String, Of::Hint(hint) => hint.name.clone();
    /// Up to and including this position.
    read: i64, Of::Hint(hint) => match hint.what {
        HintKind::Read { seq } => seq.0,
        _ => return Err(of_another_kind()),
    };
    /// Their id.
    user: i64, Of::Hint(hint) => hint.user.0;
}

event! {
    /// One has gained a room. Only in what a user subscribes to.
    RoomGained |py|
    /// The room, as in one's list.
    entry: RoomEntry, Of::RoomGained { entry } => RoomEntry((**entry).clone());
}

event! {
    /// One has lost the room; nothing of it follows.
    Gone |py|
    /// `removed` or `deleted`.
    reason: &'static str, Of::Gone { reason, .. } => match reason {
        GoneReason::Removed => "removed",
        GoneReason::Deleted => "deleted",
    };
    /// Who did it, if somebody did.
    by: Option<i64>, Of::Gone { by, .. } => by.map(|user| user.0);
}

/// The Python object of an event.
pub(crate) fn object(py: Python<'_>, event: Of) -> PyResult<Py<PyAny>> {
    macro_rules! object {
        ($class:ident) => {
            Py::new(py, PyClassInitializer::from(Event(event)).add_subclass($class)).map(Py::into_any)
        };
    }
    match &event {
        Of::Delta { .. } => object!(Delta),
        Of::MessagePosted { .. } => object!(MessagePosted),
        Of::MessageEdited { .. } => object!(MessageEdited),
        Of::MessageDeleted { .. } => object!(MessageDeleted),
        Of::MemberJoined { .. } => object!(MemberJoined),
        Of::MemberLeft { .. } => object!(MemberLeft),
        Of::RoomUpdated { .. } => object!(RoomUpdated),
        Of::TurnQueued { .. } => object!(TurnQueued),
        Of::TurnStarted { .. } => object!(TurnStarted),
        Of::TurnEnded { .. } => object!(TurnEnded),
        Of::Tape { .. } => object!(Tape),
        Of::Snapshot(_) => object!(Snapshot),
        Of::RoomGained { .. } => object!(RoomGained),
        Of::Gone { .. } => object!(Gone),
        Of::Hint(hint) => match hint.what {
            HintKind::Typing => object!(Typing),
            HintKind::Presence { .. } => object!(Presence),
            HintKind::Read { .. } => object!(ReadMark),
            _ => object!(Typing),
        },
        // A kind that is newer than this package is an event of no special class.
        _ => Py::new(py, Event(event)).map(Py::into_any),
    }
}
