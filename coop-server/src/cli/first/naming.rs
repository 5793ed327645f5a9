//! What people of the first system are called here, where names have rules that it had not.
//!
//! Pure: it knows neither databases nor what else people have.

use coop_core::names;
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Before a name that may be nobody's, because it stands for the house or for a bot.
const PREFIX: &str = "user-";

/// Gives out names, each once.
pub(super) struct Naming {
    taken: BTreeSet<String>,
}

impl Naming {
    /// Where these are not to be had.
    pub(super) fn new(taken: impl IntoIterator<Item = String>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
        }
    }

    /// Whether somebody can go on being called so.
    pub(super) fn keep(&mut self, name: &str) -> bool {
        names::check_name(name).is_ok_and(|key| key == name) && self.taken.insert(name.to_owned())
    }

    /// The name nearest to this one. Those who can keep theirs are asked first, or theirs may be gone.
    pub(super) fn near(&mut self, name: &str) -> String {
        let shaped = shape(name);
        let shaped = match names::check_name(&shaped) {
            Ok(key) => key,
            Err(_) if shaped.is_empty() => "user".to_owned(),
            Err(_) => format!("{PREFIX}{shaped}"),
        };
        let numbered = (1_u64..).map(|number| {
            let suffix = match number {
                1 => String::new(),
                _ => format!("-{number}"),
            };
            let room = names::MAX_NAME_CHARS.saturating_sub(suffix.len());
            shaped.chars().take(room).chain(suffix.chars()).collect::<String>()
        });
        let free = numbered.into_iter().find(|name| self.taken.insert(name.clone()));
        free.unwrap_or(shaped)
    }
}

/// The characters of it that a name can have: letters without their accents, and something else for all else.
fn shape(name: &str) -> String {
    let plain = name.trim().nfkd().filter(|c| !is_combining_mark(*c));
    let lower = plain.flat_map(char::to_lowercase).take(4 * names::MAX_NAME_CHARS);
    let allowed = lower.map(|c| match c {
        'a'..='z' | '0'..='9' | '_' | '.' | '-' => c,
        _ => '_',
    });
    let shaped: String = allowed.skip_while(|c| matches!(c, '_' | '.' | '-')).collect();
    let shaped: String = shaped.chars().take(names::MAX_NAME_CHARS).collect();
    shaped.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_as_near_as_can_be() {
        let mut naming = Naming::new(["scribe".to_owned()]);
        assert!(naming.keep("anna"));
        assert!(!naming.keep("anna"), "once");
        assert!(!naming.keep("Anna") && !naming.keep("al") && !naming.keep("admin") && !naming.keep("scribe"));
        for (name, near) in [
            ("Anna", "anna-2"),
            ("ANNA", "anna-3"),
            ("Anna B.", "anna_b."),
            ("  Élodie Müller ", "elodie_muller"),
            ("al", "user-al"),
            ("admin", "user-admin"),
            ("gemini-fan", "user-gemini-fan"),
            ("scribe", "scribe-2"),
            ("_x_", "user-x"),
            ("日本", "user"),
            ("", "user-2"),
            ("ａｎｎａ", "anna-4"),
        ] {
            assert_eq!(naming.near(name), near, "{name:?}");
        }
        let long = "x".repeat(40);
        assert_eq!(naming.near(&long), "x".repeat(32));
        assert_eq!(naming.near(&long), format!("{}-2", "x".repeat(30)));
    }

    proptest! {
        #[test]
        fn whatever_they_are_called_they_get_a_name_of_their_own(all in prop::collection::vec(".{0,40}", 1..20)) {
            let mut naming = Naming::new([]);
            let mut given = BTreeSet::new();
            for name in all {
                let got = naming.near(&name);
                prop_assert_eq!(names::check_name(&got), Ok(got.clone()));
                prop_assert!(given.insert(got));
            }
        }
    }
}
