//! What a text asks of whom: which bots a message reaches, and what is left of its words for each of them.
//!
//! Pure functions over a text and the handles of a room's bots. They know no rooms, members, settings or turns:
//! whether a text may start anything at all is decided by whoever calls.

/// The seed's command: it reaches the default bot, whatever that one is called.
const COMMAND: &str = "/bot ";

/// Whom a text asks, as far as the text alone tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The default bot of wherever it is said, before the others.
    pub default: bool,
    /// Bots by their handles, each once, in the order in which the text names them.
    pub named: Vec<String>,
}

/// Whom a person's text asks.
///
/// `bots` are the handles of all bots. `/bot ` at the very start reaches the default bot, `/name ` there reaches a named
/// one, and `@name` anywhere does too. Both commands are exact, down to the case and the one space: anything else that
/// begins with a slash is an ordinary message.
#[must_use]
pub fn asks(text: &str, bots: &[&str]) -> Asks {
    let mut named = mentions(text, bots);
    if let Some((bot, _)) = command(text, bots) {
        named.retain(|other| other != bot);
        named.insert(0, bot.to_owned());
    }
    Asks {
        default: text.starts_with(COMMAND) && !bots.is_empty(),
        named,
    }
}

/// The bots that are asked, each once, where the default bot is this one. With `alone`, as in an AI chat that has one
/// member, what names nobody asks the default bot.
#[must_use]
pub fn resolve(asks: &Asks, alone: bool, default: Option<&str>) -> Vec<String> {
    let by_default = asks.default || (alone && asks.named.is_empty());
    let mut bots: Vec<String> = default.filter(|_| by_default).map(String::from).into_iter().collect();
    for bot in &asks.named {
        if !bots.contains(bot) {
            bots.push(bot.clone());
        }
    }
    bots
}

/// The handles of the bots that a text names with `@name`, each once, in order. This is all that a bot's own text can
/// reach others by: what a bot writes is never a command.
#[must_use]
pub fn mentions(text: &str, bots: &[&str]) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for mention in Mentions::of(text, bots) {
        if !named.iter().any(|bot| bot == mention.bot) {
            named.push(mention.bot.to_owned());
        }
    }
    named
}

/// What a text says to one bot: the text without the words that only address it, trimmed. `default` is the bot that
/// `/bot ` reaches.
///
/// These are a leading `/bot ` or `/name `, and an `@name` among the mentions at the start, or at the end, with the
/// punctuation that belongs to it. In the middle of a sentence a mention is part of what is said, and stays.
#[must_use]
pub fn prompt(text: &str, bot: &str, default: Option<&str>, bots: &[&str]) -> String {
    let by_default = text.strip_prefix(COMMAND).zip(default);
    let body = match by_default.or(command(text, bots).map(|(bot, rest)| (rest, bot))) {
        Some((rest, asked)) if asked == bot => rest,
        _ => text,
    };
    let body = without_leading(body.trim(), bot, bots);
    without_trailing(&body, bot, bots)
}

/// The bot whose command stands at the very start, and the text after it.
fn command<'b, 't>(text: &'t str, bots: &[&'b str]) -> Option<(&'b str, &'t str)> {
    let (word, rest) = text.strip_prefix('/')?.split_once(' ')?;
    bots.iter().find(|bot| **bot == word).map(|bot| (*bot, rest))
}

/// Takes this bot's mentions out of those that open the text; others among them stay.
fn without_leading(body: &str, bot: &str, bots: &[&str]) -> String {
    let mut others = String::new();
    let mut rest = body;
    while let Some(mention) = Mentions::of(rest, bots).next().filter(|mention| mention.start == 0) {
        let end = rest.len() - rest[mention.end..].trim_start_matches(is_joint).trim_start().len();
        if mention.bot != bot {
            others.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    // What stays ends as it did in the text, so that "@other, @this: hi" becomes "@other, hi".
    (others + rest).trim().to_owned()
}

/// Takes this bot's mentions off the end. How the sentence ends stays: "right, @this?" becomes "right?".
fn without_trailing(body: &str, bot: &str, bots: &[&str]) -> String {
    let mut said = body;
    let mut tail = "";
    // Found once: a text of nothing but mentions must not be searched once for each of them.
    let mentions: Vec<_> = Mentions::of(body, bots).collect();
    for mention in mentions.iter().rev() {
        let after = &said[mention.end..];
        if mention.bot != bot || !after.chars().all(|c| is_joint(c) || c == '?') {
            break;
        }
        if tail.is_empty() {
            tail = after.trim_start_matches(|c: char| !is_sentence_end(c));
            tail = &tail[..tail.len() - tail.trim_start_matches(is_sentence_end).len()];
        }
        said = said[..mention.start].trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ':'));
    }
    if said.ends_with(is_sentence_end) {
        tail = "";
    }
    format!("{said}{tail}").trim().to_owned()
}

/// Punctuation between a mention and the words next to it.
fn is_joint(c: char) -> bool {
    matches!(c, ',' | ':' | ';' | '.' | '!' | '-' | '–' | '—')
}

fn is_sentence_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?')
}

/// One `@name` of a bot: the bytes from the `@` to the end of the name.
struct Mention<'b> {
    start: usize,
    end: usize,
    bot: &'b str,
}

/// Every whole mention of one of the bots, in order.
struct Mentions<'t, 'b, 's> {
    text: &'t str,
    from: usize,
    bots: &'s [&'b str],
}

impl<'t, 'b, 's> Mentions<'t, 'b, 's> {
    fn of(text: &'t str, bots: &'s [&'b str]) -> Self {
        Self { text, from: 0, bots }
    }

    /// The mention whose `@` stands at this byte, if it is one.
    fn at(&self, start: usize) -> Option<Mention<'b>> {
        // A word before it makes it an address (name@host); an @ makes it neither.
        let before = self.text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '@') {
            return None;
        }
        let name = &self.text[start + 1..];
        let name = &name[..name.find(|c| !is_handle_char(c)).unwrap_or(name.len())];
        // One more @ makes it somebody's address on another network.
        if self.text[start + 1 + name.len()..].starts_with('@') {
            return None;
        }
        // A name may end with dots and dashes, and so may a sentence: the longest name that exists is meant.
        let shortest = name.trim_end_matches(['.', '-']).len();
        (shortest.max(1)..=name.len()).rev().find_map(|length| {
            let bot = self.bots.iter().find(|bot| name[..length].eq_ignore_ascii_case(bot))?;
            let end = start + 1 + length;
            Some(Mention { start, end, bot })
        })
    }
}

impl<'b> Iterator for Mentions<'_, 'b, '_> {
    type Item = Mention<'b>;

    fn next(&mut self) -> Option<Mention<'b>> {
        while let Some(found) = self.text[self.from..].find('@') {
            let start = self.from + found;
            self.from = start + 1;
            if let Some(mention) = self.at(start) {
                self.from = mention.end;
                return Some(mention);
            }
        }
        None
    }
}

fn is_handle_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTS: &[&str] = &["gemini", "scribe", "mock", "mock2", "dr."];

    /// The bots that are asked where the first is the default.
    fn who_is_asked_by(text: &str, bots: &[&str], alone: bool) -> Vec<String> {
        resolve(&asks(text, bots), alone, bots.first().copied())
    }

    #[test]
    fn who_is_asked() {
        let cases: &[(&str, &[&str])] = &[
            // The default bot's command: five characters, exactly, at the very start.
            ("/bot hi", &["gemini"]),
            ("/bot ", &["gemini"]),
            ("/bot  hi", &["gemini"]),
            ("/bot", &[]),
            ("/bot\nhi", &[]),
            ("/bot\thi", &[]),
            ("/Bot hi", &[]),
            (" /bot hi", &[]),
            ("hi /bot hi", &[]),
            ("/bots hi", &[]),
            ("//bot hi", &[]),
            // A named bot's command has the same shape.
            ("/mock hi", &["mock"]),
            ("/gemini hi", &["gemini"]),
            ("/mock", &[]),
            ("/Mock hi", &[]),
            ("/mock2 hi", &["mock2"]),
            ("/help me", &[]),
            ("/ bot", &[]),
            ("/", &[]),
            // Mentions.
            ("@mock hi", &["mock"]),
            ("hi @mock", &["mock"]),
            ("hi @MoCk!", &["mock"]),
            ("(@mock)", &["mock"]),
            ("what does \"@mock\" say", &["mock"]),
            ("@mock's", &["mock"]),
            ("@mock.", &["mock"]),
            ("@mock...", &["mock"]),
            ("@mock- really", &["mock"]),
            ("@mock-up", &[]),
            ("@mock.example", &[]),
            ("@mock_", &[]),
            ("@mocks", &[]),
            ("@mock2", &["mock2"]),
            ("@mock3", &[]),
            ("@dr. who", &["dr."]),
            ("@dr.. who", &["dr."]),
            ("@dr who", &[]),
            ("你好 @mock你好", &["mock"]),
            ("@", &[]),
            ("@ mock", &[]),
            ("@@mock", &[]),
            ("@mock@example.org", &[]),
            ("mail me@mock", &[]),
            ("mail me@mock.example", &[]),
            ("é@mock", &[]),
            ("_@mock", &[]),
            ("@nobody hi", &[]),
            ("@bot hi", &[]),
            // Several: each once, in the order of mention.
            ("@mock and @scribe and @mock", &["mock", "scribe"]),
            ("@scribe/@mock", &["scribe", "mock"]),
            ("/bot ask @scribe", &["gemini", "scribe"]),
            ("/mock ask @mock", &["mock"]),
            ("/bot @gemini", &["gemini"]),
            ("/help @scribe", &["scribe"]),
            ("", &[]),
            ("hello", &[]),
        ];
        for (text, asked) in cases {
            assert_eq!(who_is_asked_by(text, BOTS, false), *asked, "{text:?}");
        }
    }

    #[test]
    fn in_an_ai_chat_what_names_nobody_asks_the_default() {
        assert_eq!(who_is_asked_by("hello", BOTS, true), ["gemini"]);
        assert_eq!(who_is_asked_by("/help", BOTS, true), ["gemini"]);
        assert_eq!(who_is_asked_by("@mock hello", BOTS, true), ["mock"]);
        assert_eq!(who_is_asked_by("/bot hello", BOTS, true), ["gemini"]);
    }

    #[test]
    fn a_room_has_its_own_default() {
        let cases: &[(&str, bool, &[&str])] = &[
            ("/bot hi", false, &["mock"]),
            ("/bot @gemini hi", false, &["mock", "gemini"]),
            ("/bot hi @mock", false, &["mock"]),
            ("/gemini hi", false, &["gemini"]),
            ("@gemini hi", true, &["gemini"]),
            ("hi", true, &["mock"]),
            ("hi", false, &[]),
        ];
        for (text, alone, expected) in cases {
            assert_eq!(resolve(&asks(text, BOTS), *alone, Some("mock")), *expected, "{text:?}");
        }
        assert_eq!(prompt("/bot hi", "mock", Some("mock"), BOTS), "hi");
        assert_eq!(prompt("/bot hi", "gemini", Some("mock"), BOTS), "/bot hi");
        assert_eq!(prompt("/bot hi", "gemini", None, BOTS), "/bot hi");
    }

    #[test]
    fn without_bots_nothing_is_an_ask() {
        for text in ["/bot hi", "/bot ", "@gemini", "/gemini hi", "hi"] {
            assert!(who_is_asked_by(text, &[], true).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_bot_reaches_others_by_mention_only() {
        assert_eq!(mentions("/bot go on, @scribe and @Scribe", BOTS), ["scribe"]);
        assert!(mentions("/scribe who", BOTS).is_empty());
    }

    #[test]
    fn what_is_left_to_say() {
        let cases: &[(&str, &str, &str)] = &[
            ("/bot hi", "gemini", "hi"),
            ("/bot ", "gemini", ""),
            ("/bot   what\n now ", "gemini", "what\n now"),
            ("/mock hi", "mock", "hi"),
            ("/mock hi", "gemini", "/mock hi"),
            ("/bot @gemini hi", "gemini", "hi"),
            ("/bot ask @scribe too", "gemini", "ask @scribe too"),
            ("/bot tell me, @scribe", "scribe", "/bot tell me"),
            ("/help me", "gemini", "/help me"),
            ("@mock hi", "mock", "hi"),
            ("@mock, hi", "mock", "hi"),
            ("@Mock: hi", "mock", "hi"),
            ("  @mock - hi", "mock", "- hi"),
            ("@mock -5 + 3", "mock", "-5 + 3"),
            ("@mock?", "mock", "?"),
            ("@mock", "mock", ""),
            ("@mock.", "mock", ""),
            ("@mock @mock hi @mock", "mock", "hi"),
            ("@scribe, @mock: hi", "mock", "@scribe, hi"),
            ("@scribe, @mock: hi", "scribe", "@mock: hi"),
            ("@dr. who", "dr.", "who"),
            ("hi @mock", "mock", "hi"),
            ("hi, @mock!", "mock", "hi!"),
            ("Is that right, @mock?", "mock", "Is that right?"),
            ("Is that right? @mock", "mock", "Is that right?"),
            ("Is that right? @mock.", "mock", "Is that right?"),
            ("Thanks, @mock @mock.", "mock", "Thanks."),
            ("hi @mock (again)", "mock", "hi @mock (again)"),
            ("ask @mock about it", "mock", "ask @mock about it"),
            ("mail me@mock", "mock", "mail me@mock"),
            ("hello", "gemini", "hello"),
        ];
        for (text, bot, left) in cases {
            assert_eq!(prompt(text, bot, Some("gemini"), BOTS), *left, "{text:?} for {bot}");
        }
    }

    /// Texts of the pieces that matter here, in every order, and anything else.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "/bot ", "/bot", "/mock ", "/", "@mock", "@MOCK", "@scribe", "@dr.", "@", " ", "\n", ",", ".", "?",
                "-", "é", "x",
            ])
            .prop_map(String::from),
            any::<String>(),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in texts(), ai_chat: bool) {
            let asked = who_is_asked_by(&text, BOTS, ai_chat);
            for (index, bot) in asked.iter().enumerate() {
                prop_assert!(BOTS.contains(&bot.as_str()));
                prop_assert!(!asked[..index].contains(bot));
            }
            prop_assert!(!(ai_chat && asked.is_empty()));
            for bot in BOTS {
                let left = prompt(&text, bot, BOTS.first().copied(), BOTS);
                prop_assert!(left.len() <= text.len());
                prop_assert_eq!(left.trim(), &left);
                if !asked.iter().any(|asked| asked == bot) {
                    prop_assert_eq!(left, text.trim());
                }
            }
            prop_assert!(who_is_asked_by(&text, &[], ai_chat).is_empty());
        }
    }
}
