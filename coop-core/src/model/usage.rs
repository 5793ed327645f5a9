//! Tokens: what a turn uses, what that adds up to, and what may be used in a day.

use crate::id::{RoomId, UserId};
use crate::time::Day;
use serde::{Deserialize, Serialize};

/// Tokens a turn has used so far: running totals, the last report wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Read.
    pub input: Option<u32>,
    /// Written.
    pub output: Option<u32>,
    /// Thought, unseen.
    pub thinking: Option<u32>,
    /// Of those read, taken from a cache.
    pub cached: Option<u32>,
    /// All of them.
    pub total: Option<u32>,
    /// Whether these are the bot's guesses.
    pub estimated: bool,
}

impl Usage {
    /// All tokens: as the bot says, else what was read, written and thought.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        let said = self.total.map(u64::from);
        said.unwrap_or_else(|| u64::from(self.input.unwrap_or(0)) + self.written())
    }

    /// Tokens that were written or thought.
    #[must_use]
    pub fn written(&self) -> u64 {
        u64::from(self.output.unwrap_or(0)) + u64::from(self.thinking.unwrap_or(0))
    }
}

/// How many tokens may be used in a day (of UTC). Where nothing is said nothing is limited.
///
/// What a turn uses is charged to who asked for it and to its room as it streams, with each checkpoint. An ask that comes
/// when a budget is spent is refused as `budget_exceeded`, one that waits is refused when its turn comes, and an answer that
/// is being written is cut off. So a budget is overspent by at most what was being written at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// For what one person asks, in all rooms together.
    pub user_tokens_per_day: Option<u64>,
    /// For what is asked in one room, by all people together.
    pub room_tokens_per_day: Option<u64>,
}

impl Budgets {
    /// Whether anything is limited.
    #[must_use]
    pub fn limit_anything(&self) -> bool {
        self.user_tokens_per_day.is_some() || self.room_tokens_per_day.is_some()
    }
}

/// Which usage to sum up. What is not said is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Of what this person has asked for.
    pub user: Option<UserId>,
    /// In this room.
    pub room: Option<RoomId>,
    /// Of this bot.
    pub bot: Option<String>,
    /// From this day on.
    pub since: Option<Day>,
}

/// What was used in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UsageSum {
    /// By how many turns.
    pub turns: u64,
    /// Tokens that were read.
    pub input: u64,
    /// Tokens that were written or thought.
    pub output: u64,
    /// All tokens, as budgets count them.
    pub total: u64,
}
