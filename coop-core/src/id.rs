//! Identifiers. Newtypes over `i64`, so that a room's id cannot be passed where a user's is meant.
//!
//! Every id is unique for ever, never reused (also after a deletion) and below 2^53, so that a JavaScript
//! client can hold it in a number. Nothing here knows how ids are made: stores do that.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest id that a JavaScript number holds exactly.
pub const MAX_ID: i64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<i64> for $name {
            fn from(value: i64) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// A person with an account.
    UserId
);
id!(
    /// A room.
    RoomId
);
id!(
    /// A message, unique over all rooms.
    MessageId
);
id!(
    /// One bot's answer to one ask, unique over all rooms.
    TurnId
);
id!(
    /// A position in one room's log: 1, 2, 3 … without holes. 0 stands before the first event.
    Seq
);
id!(
    /// Which life of a room's log a [`Seq`] belongs to; it changes if the log is ever lost or rebuilt.
    Epoch
);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        // Positions come from outside, too.
        Self(self.0.saturating_add(1))
    }
}
