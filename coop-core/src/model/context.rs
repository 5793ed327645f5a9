//! What a bot reads, and what is kept of that.

use crate::id::MessageId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a bot reads: structured turns with speakers taken from rows, never from text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Context {
    /// Operator text: the bot's own, and the engine's block about the room.
    pub system: String,
    /// What was said, oldest first, the two sides alternating; the first is the people's, the last is the prompt.
    pub turns: Vec<ContextTurn>,
    /// How many older messages were left out.
    pub omitted: u32,
    /// The messages that were read, oldest first.
    pub read: Vec<MessageVersion>,
}

impl Context {
    /// What is kept of it with the answer.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt {
            read: self.read.clone(),
            omitted: self.omitted,
            hash: self.hash(),
        }
    }

    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        // Lengths first, so that no two contexts run together into the same bytes.
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(self.system.as_bytes());
        for turn in &self.turns {
            add(&[u8::from(turn.side == Side::Model)]);
            add(&(turn.parts.len() as u64).to_le_bytes());
            turn.parts.iter().for_each(|part| add(part.as_bytes()));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A message as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MessageVersion {
    /// The message.
    pub message: MessageId,
    /// How often it had been changed by then.
    pub edit: u32,
}

/// What an answer was made from: kept with it, so that anybody in the room can see what the bot had read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Receipt {
    /// The messages, oldest first; the last is the ask.
    pub read: Vec<MessageVersion>,
    /// How many older messages were left out.
    pub omitted: u32,
    /// SHA-256 of everything that the bot was given, system text included, in hexadecimal: two answers of the same hash
    /// were made from the same words.
    pub hash: String,
}

/// Neighbouring messages of one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTurn {
    /// Whose.
    pub side: Side,
    /// One part for each message.
    pub parts: Vec<String>,
}

/// The two sides of a conversation, as a model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// People, and bots other than the one that reads.
    User,
    /// The bot that reads.
    Model,
}
