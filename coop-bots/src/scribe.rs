//! A bot of rules: it reads back what was said in a room. No model, no network, and the same words for the same room.
//!
//! | ask | answer |
//! | --- | --- |
//! | `summarize [last N]` | the sentences that say most, in their order, with their speakers |
//! | `actions` | what somebody promised, or was asked to do |
//! | `find WORDS` | the messages that hold all of these words |
//! | `who` | who has spoken, how much, and what they said last |
//! | `help` | this list |
//!
//! To anything else it says what it is and what it can do. It knows what was said from its context alone, so that it reads
//! what every bot reads, and no other room.

use async_trait::async_trait;
use coop_core::{Bot, BotError, BotProfile, Context, Finish, ReplyWriter, Side, Turn};
use std::collections::{BTreeMap, BTreeSet};

/// How many messages it reads, and how many estimated tokens of them.
const READS: (u32, u32) = (500, 200_000);
/// How many sentences a summary has at most.
const SENTENCES: usize = 8;
/// How many lines a list has at most.
const LINES: usize = 20;
/// How many characters of a sentence or message are quoted.
const QUOTED_CHARS: usize = 240;
/// A sentence of fewer words says too little to stand alone.
const FEWEST_WORDS: usize = 3;

const HELP: &str = "- `summarize` or `summarize last 20`: the sentences that say most, with their speakers\n\
                    - `actions`: what somebody promised, or was asked to do\n\
                    - `find some words`: the messages that hold all of them\n\
                    - `who`: who has spoken, and what they said last\n";

/// The bot. See the [module](self) for what it can do.
#[derive(Debug)]
pub struct ScribeBot {
    profile: BotProfile,
}

impl Default for ScribeBot {
    /// The bot `scribe`.
    fn default() -> Self {
        Self::named("scribe")
    }
}

impl ScribeBot {
    /// The same under another handle.
    #[must_use]
    pub fn named(handle: impl Into<String>) -> Self {
        let mut profile = BotProfile::new(handle);
        if profile.handle == "scribe" {
            profile.name = "Scribe".to_owned();
        }
        profile.about =
            "I am a bot of rules, without a model behind me: I can summarize, find, and list what was promised. \
                         Ask me for help."
                .to_owned();
        (profile.context.messages, profile.context.tokens) = READS;
        Self { profile }
    }
}

#[async_trait]
impl Bot for ScribeBot {
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let said = Said::of(&turn.context);
        for line in Ask::of(&turn.prompt).answer(&said) {
            out.push(line).await?;
        }
        Ok(Finish::stop())
    }
}

/// What it is asked.
#[derive(Debug, PartialEq)]
enum Ask {
    Summarize(Option<usize>),
    Actions,
    Find(Vec<String>),
    Who,
    Help,
    /// Nothing it knows.
    Other,
}

impl Ask {
    fn of(prompt: &str) -> Self {
        let words: Vec<String> = words(prompt).collect();
        let mut words = words.iter().map(String::as_str);
        match words.next() {
            Some("summarize" | "summarise" | "summary") => Self::Summarize(words.find_map(|word| word.parse().ok())),
            Some("actions" | "action" | "todo" | "todos") => Self::Actions,
            Some("find" | "search") => match words.map(str::to_owned).collect::<Vec<_>>() {
                wanted if wanted.is_empty() => Self::Help,
                wanted => Self::Find(wanted),
            },
            Some("who") => Self::Who,
            Some("help") => Self::Help,
            _ => Self::Other,
        }
    }

    /// The answer, a line at a time.
    fn answer(&self, said: &Said) -> Vec<String> {
        match self {
            Self::Help => vec!["I can do this:\n".to_owned(), HELP.to_owned()],
            Self::Other => vec![
                "I am a bot of rules and no model is behind me, so I cannot answer that.\n\n".to_owned(),
                "I can do this:\n".to_owned(),
                HELP.to_owned(),
            ],
            _ if said.messages.is_empty() => vec!["Nothing has been said here yet that I can read.".to_owned()],
            Self::Summarize(last) => said.summary(*last),
            Self::Actions => said.list(
                "Promised or asked for",
                "I found nothing that anybody promised.",
                is_action,
            ),
            Self::Find(wanted) => {
                let holds = |text: &str| {
                    let held: BTreeSet<String> = words(text).collect();
                    wanted
                        .iter()
                        .all(|word| held.iter().any(|held| held.starts_with(word.as_str())))
                };
                let title = format!("With \u{201c}{}\u{201d}", wanted.join(" "));
                said.list(&title, "I found no such message.", holds)
            }
            Self::Who => said.who(),
        }
    }
}

/// What was said, oldest first.
struct Said {
    messages: Vec<Message>,
    /// How many older ones it cannot read.
    omitted: u32,
}

struct Message {
    speaker: String,
    text: String,
}

impl Said {
    /// All that others said before the ask, which is the last of them.
    fn of(context: &Context) -> Self {
        let omission = format!("[earlier: {} messages omitted]", context.omitted);
        let others = context.turns.iter().filter(|turn| turn.side == Side::User);
        let mut parts: Vec<&String> = others.flat_map(|turn| &turn.parts).collect();
        parts.pop();
        let parts = parts.into_iter().filter(|part| **part != omission);
        let messages = parts.filter_map(|part| Message::of(part));
        Self {
            // What was asked of a bot was not said to the room.
            messages: messages.filter(|message| !message.text.starts_with('/')).collect(),
            omitted: context.omitted,
        }
    }

    fn summary(&self, last: Option<usize>) -> Vec<String> {
        let from = self.messages.len().saturating_sub(last.unwrap_or(usize::MAX));
        let messages = &self.messages[from..];
        let sentences: Vec<(usize, &str)> = messages
            .iter()
            .enumerate()
            .flat_map(|(number, message)| sentences(&message.text).map(move |sentence| (number, sentence)))
            .filter(|(_, sentence)| words(sentence).count() >= FEWEST_WORDS)
            .collect();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for (_, sentence) in &sentences {
            for word in telling(sentence).collect::<BTreeSet<_>>() {
                *counts.entry(word).or_default() += 1;
            }
        }
        // What is spoken of often is what the room is about; long sentences must not win by length alone.
        let score = |sentence: &str| {
            let words: BTreeSet<String> = telling(sentence).collect();
            let weight: f64 = words
                .iter()
                .map(|word| f64::from(counts.get(word).copied().unwrap_or(0)).ln_1p())
                .sum();
            let bonus = if is_decision(sentence) { 1.5 } else { 1.0 };
            bonus * weight / (1.0 + words.len() as f64).sqrt()
        };
        let mut order: Vec<usize> = (0..sentences.len()).collect();
        // Of equal ones the later: it may be the last word on the matter.
        order.sort_by(|a, b| score(sentences[*b].1).total_cmp(&score(sentences[*a].1)).then(b.cmp(a)));
        let mut chosen: Vec<usize> = Vec::new();
        for index in order {
            let fresh = |other: &usize| !is_like(sentences[*other].1, sentences[index].1);
            if chosen.len() < SENTENCES && chosen.iter().all(fresh) {
                chosen.push(index);
            }
        }
        chosen.sort_unstable();
        let people: BTreeSet<&str> = messages.iter().map(|message| message.speaker.as_str()).collect();
        let mut answer = vec![format!(
            "{} of {}:\n",
            count(messages.len(), "message"),
            count(people.len(), "speaker")
        )];
        if last.is_none() && self.omitted > 0 {
            answer.push(format!("(I cannot read the {} before them.)\n", self.omitted));
        }
        answer.extend(chosen.into_iter().map(|index| {
            let (number, sentence) = sentences[index];
            line(&messages[number].speaker, sentence)
        }));
        answer
    }

    /// The newest messages of a kind, oldest first.
    fn list(&self, title: &str, none: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let found: Vec<_> = self
            .messages
            .iter()
            .filter(|message| is_wanted(&message.text))
            .collect();
        if found.is_empty() {
            return vec![none.to_owned()];
        }
        let more = found.len().saturating_sub(LINES);
        let mut answer = vec![format!("{title}:\n")];
        if more > 0 {
            answer.push(format!("(and {more} before these)\n"));
        }
        answer.extend(
            found[more..]
                .iter()
                .map(|message| line(&message.speaker, &message.text)),
        );
        answer
    }

    fn who(&self) -> Vec<String> {
        let mut speakers: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for message in &self.messages {
            let entry = speakers.entry(&message.speaker).or_default();
            *entry = (entry.0 + 1, &message.text);
        }
        let mut speakers: Vec<_> = speakers.into_iter().collect();
        speakers.sort_by_key(|(name, (count, _))| (std::cmp::Reverse(*count), *name));
        let spoken = speakers.iter().take(LINES);
        spoken
            .map(|(name, (said, last))| format!("- **{name}**: {}, last: {}\n", count(*said, "message"), quoted(last)))
            .collect()
    }
}

impl Message {
    /// A part of a context: `[speaker] text`, its further lines indented.
    fn of(part: &str) -> Option<Self> {
        let (speaker, text) = part.strip_prefix('[')?.split_once("] ")?;
        Some(Self {
            speaker: speaker.to_owned(),
            text: text.replace("\n  ", "\n"),
        })
    }
}

fn line(speaker: &str, text: &str) -> String {
    format!("- **{speaker}**: {}\n", quoted(text))
}

/// On one line, and not too long.
fn quoted(text: &str) -> String {
    let flat: Vec<&str> = text.split_whitespace().collect();
    let flat = flat.join(" ");
    match flat.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}\u{2026}", flat[..end].trim_end()),
        None => flat,
    }
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// Lower-case words, without what stands around them.
fn words(text: &str) -> impl Iterator<Item = String> {
    let pieces = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '-' | '_')));
    let bare = pieces.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    bare.filter(|word| !word.is_empty())
        .map(|word| word.to_lowercase().replace('\u{2019}', "'"))
}

/// The words that say what something is about.
fn telling(text: &str) -> impl Iterator<Item = String> {
    const SILENT: &[&str] = &[
        "about", "after", "also", "and", "are", "because", "been", "but", "can", "could", "did", "does", "don't",
        "for", "from", "had", "has", "have", "here", "how", "i'm", "into", "is", "it's", "its", "just", "like", "more",
        "not", "now", "only", "our", "out", "should", "some", "than", "that", "that's", "the", "their", "them", "then",
        "there", "they", "this", "was", "we'll", "were", "what", "when", "where", "which", "who", "why", "will",
        "with", "would", "yes", "you", "your",
    ];
    words(text).filter(|word| word.chars().count() > 2 && SILENT.binary_search(&word.as_str()).is_err())
}

/// The sentences of a text. A line is one at least.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            rest = rest.trim_start();
            if rest.is_empty() {
                return None;
            }
            let mut ends = rest.char_indices().filter(|(at, c)| {
                let after = rest[at + c.len_utf8()..].chars().next();
                matches!(c, '.' | '!' | '?' | '\u{3002}') && after.is_none_or(char::is_whitespace)
            });
            let end = ends.next().map_or(rest.len(), |(at, c)| at + c.len_utf8());
            let (sentence, more) = rest.split_at(end);
            rest = more;
            Some(sentence)
        })
    })
}

/// Whether most of what one says the other says too.
fn is_like(one: &str, other: &str) -> bool {
    let (one, other): (BTreeSet<String>, BTreeSet<String>) = (telling(one).collect(), telling(other).collect());
    let common = one.intersection(&other).count();
    common > 0 && 3 * common >= 2 * one.len().min(other.len())
}

/// Whether something is settled by it.
fn is_decision(text: &str) -> bool {
    let text = words(text).collect::<Vec<_>>().join(" ");
    [
        "decided", "agreed", "let's", "we will", "we'll", "deadline", "so we", "the plan",
    ]
    .iter()
    .any(|cue| holds(&text, cue))
}

/// Whether somebody promises something, or is asked to do it.
fn is_action(text: &str) -> bool {
    let text = words(text).collect::<Vec<_>>().join(" ");
    [
        "i'll",
        "i will",
        "we'll",
        "we will",
        "i am going to",
        "i'm going to",
        "let me",
        "todo",
        "can you",
        "could you",
        "please",
        "needs to",
        "need to",
        "must",
        "by tomorrow",
        "by monday",
        "by friday",
        "remind",
    ]
    .iter()
    .any(|cue| holds(&text, cue))
}

/// Whether these words stand in the text, whole.
fn holds(text: &str, cue: &str) -> bool {
    let edge = |at: Option<char>| at.is_none_or(|c| c == ' ');
    text.match_indices(cue)
        .any(|(at, _)| edge(text[..at].chars().next_back()) && edge(text[at + cue.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_core::ContextTurn;
    use coop_core::testing::bot::{bot_contract, run};

    fn turn(said: &[&str], prompt: &str) -> Turn {
        let mut turn = Turn::of_prompt("scribe", prompt);
        let parts = said.iter().map(|part| (*part).to_owned());
        turn.context.turns = vec![ContextTurn {
            side: Side::User,
            parts: parts.chain([format!("[ana] {prompt}")]).collect(),
        }];
        turn
    }

    const TALK: [&str; 9] = [
        "[ana] Hello everybody.",
        "[bo] The release is late because the database migration fails on old files.",
        "[cy] Which files? The migration works here.",
        "[bo] Old files from before spring. I'll send you one.\n  It is large.",
        "[dora (bot)] The weather is nice.",
        "[ana] We decided to move the release to Friday, so that the migration can be mended.",
        "[cy] Can you write that down, bo?",
        "[bo] yes",
        "[cy] /scribe summarize, and please be brief",
    ];

    async fn answer(said: &[&str], prompt: &str) -> String {
        let (end, text) = run(&ScribeBot::default(), turn(said, prompt)).await;
        assert_eq!(end.unwrap(), Finish::stop());
        text
    }

    #[tokio::test]
    async fn what_it_can_do() {
        let summary = answer(&TALK, "summarize").await;
        let lines: Vec<_> = summary.lines().collect();
        assert_eq!(lines[0], "8 messages of 4 speakers:");
        let order = [
            "database migration fails",
            "The migration works here",
            "decided to move the release to Friday",
        ];
        let at = order.map(|words| {
            summary
                .find(words)
                .unwrap_or_else(|| panic!("{words} is not in\n{summary}"))
        });
        assert!(at.is_sorted(), "{summary}");
        assert!(!summary.contains("yes"), "{summary}");
        assert_eq!(answer(&TALK, "summarize").await, summary, "the same for the same");
        let last = answer(&TALK, "Summarize the last 3, please").await;
        assert!(
            last.starts_with("3 messages of 3 speakers:\n") && !last.contains("database"),
            "{last}"
        );
        assert_eq!(
            answer(&TALK, "actions").await,
            "Promised or asked for:\n- **bo**: Old files from before spring. I'll send you one. It is large.\n- **cy**: Can you \
             write that down, bo?\n"
        );
        assert_eq!(
            answer(&TALK, "find FRI release").await,
            "With \u{201c}fri release\u{201d}:\n- **ana**: We decided to move the release to Friday, so that the migration can be \
             mended.\n"
        );
        assert_eq!(answer(&TALK, "find unicorns").await, "I found no such message.");
        let who = answer(&TALK, "who?").await;
        assert!(
            who.starts_with("- **bo**: 3 messages, last: yes\n- **ana**: 2 messages, last: We decided"),
            "{who}"
        );
        for (prompt, words) in [
            ("help", "I can do this"),
            ("find", "I can do this"),
            ("what is love?", "no model"),
            ("", "no model"),
        ] {
            assert!(answer(&TALK, prompt).await.contains(words), "{prompt}");
        }
        assert_eq!(
            answer(&[], "summarize").await,
            "Nothing has been said here yet that I can read."
        );
    }

    #[tokio::test]
    async fn a_long_room_stays_readable() {
        let topics = ["the budget", "the garden", "the new office", "lunch"];
        let said: Vec<String> = (0..500)
            .map(|n| {
                format!(
                    "[p{}] Message {n} speaks of {} and of nothing else.",
                    n % 7,
                    topics[n % 4]
                )
            })
            .collect();
        let mut said: Vec<&str> = said.iter().map(String::as_str).collect();
        said[250] = "[p1] We decided that the budget is closed and the garden stays.";
        let mut asked = turn(&said, "summarize");
        asked.context.omitted = 12;
        asked.context.turns[0]
            .parts
            .insert(0, "[earlier: 12 messages omitted]".to_owned());
        let (_, text) = run(&ScribeBot::default(), asked).await;
        assert!(
            text.starts_with("500 messages of 7 speakers:\n(I cannot read the 12 before them.)\n"),
            "{text}"
        );
        assert!(text.contains("the budget is closed"), "{text}");
        assert!(text.lines().count() <= SENTENCES + 2, "{text}");
        let found = answer(&said, "find garden").await;
        assert_eq!(found.lines().count(), LINES + 2);
        assert!(found.contains("before these"), "{found}");
        let long = format!("[ana] {}", "word ".repeat(5_000));
        let who = answer(&[&long], "who").await;
        assert!(who.ends_with("\u{2026}\n") && who.len() < 400, "{who}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_contract() {
        bot_contract(ScribeBot::default()).await;
    }

    #[test]
    fn the_silent_words_are_in_order() {
        assert_eq!(telling("what about the budget and you").collect::<Vec<_>>(), ["budget"]);
        assert_eq!(telling("yes your about").count(), 0);
    }

    #[test]
    fn texts_have_sentences() {
        let found = |text| sentences(text).collect::<Vec<_>>();
        assert_eq!(
            found("One. Two 2.5 is one! And? three\nfour"),
            ["One.", "Two 2.5 is one!", "And?", "three", "four"]
        );
        assert_eq!(found(" \n."), ["."]);
        assert!(holds("i will do", "i will") && !holds("mini william", "i will"));
    }
}
