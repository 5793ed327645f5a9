//! Which words a text has, for finding messages by them: the one rule that all stores keep to.
//!
//! A word is a run of letters and digits, whatever its case. It is found by how it begins.

use crate::model::{Message, MessageStatus};

/// The most words of one search; more are left out.
const MAX_WORDS: usize = 16;
/// The most bytes of a word that are looked for.
const MAX_BYTES: usize = 64;

/// The words of a text, in lower case.
///
/// ```
/// assert_eq!(coop_core::search::words("What's NEW, Élise?"), ["what", "s", "new", "élise"]);
/// ```
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// The words that a search asks for, as many as are looked for.
#[must_use]
pub(crate) fn wanted(text: &str) -> Vec<String> {
    let mut words = words(text);
    words.truncate(MAX_WORDS);
    for word in &mut words {
        word.truncate(word.floor_char_boundary(MAX_BYTES));
    }
    words
}

/// Whether a message is found by these words: it has each of them, or a word that begins so. A deleted message is not
/// found, nor is an answer before its end.
#[must_use]
pub fn finds(wanted: &[String], message: &Message) -> bool {
    let there = message.deleted_at.is_none() && message.status != MessageStatus::Streaming;
    let has = words(&message.text);
    there
        && wanted
            .iter()
            .all(|word| has.iter().any(|other| other.starts_with(word.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_bounded() {
        assert_eq!(wanted(&"word ".repeat(100)).len(), MAX_WORDS);
        assert_eq!(wanted(&"é".repeat(100)), ["é".repeat(MAX_BYTES / 2)]);
        assert!(wanted(" -- ?! ").is_empty());
    }
}
