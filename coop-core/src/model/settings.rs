//! What a room's owner sets for the bots in it.

use crate::id::UserId;
use crate::model::Role;
use serde::{Deserialize, Serialize};

/// How bots are asked and governed in one room. Every member may read them, the owner may change them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoomSettings {
    /// What every bot of the room is told, after what its own operator tells it. Up to 4,000 characters.
    pub system: String,
    /// The bot that `/bot` asks, and a message in an AI chat that names nobody. The engine's first one if there is none, or
    /// no longer any of that handle.
    pub default_bot: Option<String>,
    /// What becomes of an ask while the bot is answering another.
    pub policy: TurnPolicy,
    /// Who may stop an answer.
    pub who_may_stop: WhoMayStop,
    /// Whether an answer that names another bot (`@name`) asks it. Such a chain ends after
    /// [`MAX_HOPS`](crate::store::plan::MAX_HOPS) hops, or [`MAX_BOT_TURNS`](crate::store::plan::MAX_BOT_TURNS) turns, since a
    /// person last spoke.
    pub bots_ask_bots: bool,
}

impl RoomSettings {
    /// The room's default bot, where these are all bots.
    #[must_use]
    pub fn default_among<'a>(&'a self, bots: &'a [String]) -> Option<&'a str> {
        let own = self.default_bot.as_ref().filter(|bot| bots.contains(bot));
        own.or(bots.first()).map(String::as_str)
    }
}

/// What becomes of an ask while the bot is answering another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TurnPolicy {
    /// It waits.
    #[default]
    Queue,
    /// It stops the other, and those that wait, if whoever asks may stop them; else it waits.
    Interrupt,
}

/// Who may stop an answer, or take back one that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WhoMayStop {
    /// Everybody in the room.
    #[default]
    Anyone,
    /// Who asked for it, and the room's owner.
    Asker,
    /// The room's owner.
    Owner,
}

impl WhoMayStop {
    /// Whether this member may stop what `asked_by` has asked for.
    #[must_use]
    pub fn allows(self, user: UserId, role: Role, asked_by: UserId) -> bool {
        match (self, role) {
            (Self::Anyone, _) | (_, Role::Owner) => true,
            (Self::Asker, Role::Member) => user == asked_by,
            (Self::Owner, Role::Member) => false,
        }
    }
}
