//! A bot that pretends: deterministic text in pieces, delays and failures on demand, for tests, demos and benches.
//!
//! It knows no model and no network, and says so: whatever it writes is under a name with "mock" in it. All waiting is
//! on Tokio's timers, so that a test with a paused clock takes no time. The same turn gives the same pieces.
//!
//! Until it is told what to say ([`MockBot::echo`], [`MockBot::text`], [`MockBot::script`]) it writes a demonstration
//! that quotes the prompt, and the first word of the prompt may be a directive:
//!
//! | word | what happens |
//! | --- | --- |
//! | `slow` | everything takes three times as long; another directive may follow |
//! | `fail` | fails before the first piece |
//! | `essay` | 17 KB in 400 pieces, with headings, a block of code and a table |
//! | `echo-context` | answers with the context it was given |
//! | `hang` | writes a little and never ends |
//! | `panic` | writes a little and panics |

use async_trait::async_trait;
use coop_core::{
    Bot, BotError, BotErrorKind, BotLimits, BotProfile, ContextPolicy, Finish, ReplyWriter, Turn, Usage, context,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// How many pieces the demonstration has.
const DEMO_PIECES: usize = 30;
/// How many pieces the essay has.
const ESSAY_PIECES: usize = 400;
/// How many bytes the essay has at least.
const ESSAY_BYTES: usize = 17_000;
/// How much of a prompt is quoted.
const QUOTED_CHARS: usize = 200;
/// After how many pieces the directives `hang` and `panic` take effect.
const A_LITTLE: usize = 3;

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// So many characters each.
    Chars(usize),
    /// So many words each, white space with the word before it.
    Words(usize),
    /// One to eight characters each, as this seed will have it: about how a model's tokens fall.
    Tokens(u64),
    /// This many pieces of about the same length.
    Pieces(usize),
}

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With the error of [`MockBot::error`].
    Error,
    /// The answer breaks off, as when a provider's stream ends without its end.
    Truncate,
    /// Nothing more happens.
    Hang,
    /// A panic.
    Panic,
}

/// What is said of the tokens used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageReport {
    /// Totals that count as exact: a token for each word read and each piece written.
    Exact,
    /// The same, marked as estimated.
    Estimated,
    /// Nothing.
    None,
}

/// A bot without a model behind it. See the [module](self) for what it says.
#[derive(Debug)]
pub struct MockBot {
    profile: BotProfile,
    answer: Answer,
    /// `None` as long as nothing else was asked for than the number of pieces that goes with each text.
    chunking: Option<Chunking>,
    first_delay: Duration,
    delay: Duration,
    failure: Option<(Failure, usize)>,
    error: BotError,
    /// How many replies fail before the first that does not; `None` if a failure is for good.
    fails: Option<u32>,
    /// How many replies have begun.
    replies: AtomicU32,
    usage: UsageReport,
}

#[derive(Debug)]
enum Answer {
    Demo,
    Echo,
    Text(String),
    Script(Vec<(Duration, String)>),
}

impl Default for MockBot {
    /// The bot `mock`, with its demonstration: about 30 pieces in two to three seconds.
    fn default() -> Self {
        Self::named("mock")
    }
}

impl MockBot {
    /// The same under another handle, for rooms with several. The name it shows says in any case that it is a mock.
    #[must_use]
    pub fn named(handle: impl Into<String>) -> Self {
        let mut profile = BotProfile::new(handle);
        if !profile.handle.contains("mock") {
            profile.name = format!("{} (mock)", profile.handle);
        }
        profile.about = "I am a mock bot: I write prepared text, and no model is behind it.".to_owned();
        Self {
            profile,
            answer: Answer::Demo,
            chunking: None,
            first_delay: Duration::from_millis(200),
            delay: Duration::from_millis(80),
            failure: None,
            error: BotError::new(BotErrorKind::Unavailable, "The mock bot fails because it was told to."),
            fails: None,
            replies: AtomicU32::new(0),
            usage: UsageReport::Estimated,
        }
    }

    /// Answers with the prompt itself.
    #[must_use]
    pub fn echo(mut self) -> Self {
        self.answer = Answer::Echo;
        self
    }

    /// Always answers with this text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.answer = Answer::Text(text.into());
        self
    }

    /// Always answers with these pieces, each after its own delay. The other delays and the chunking do not apply.
    #[must_use]
    pub fn script<P: Into<String>>(mut self, pieces: impl IntoIterator<Item = (Duration, P)>) -> Self {
        let pieces = pieces.into_iter().map(|(delay, piece)| (delay, piece.into())).collect();
        self.answer = Answer::Script(pieces);
        self
    }

    /// Cuts what it says in this way.
    #[must_use]
    pub fn chunking(mut self, chunking: Chunking) -> Self {
        self.chunking = Some(chunking);
        self
    }

    /// Waits so long before the first piece, and so long before each further one.
    #[must_use]
    pub fn delays(mut self, first: Duration, each: Duration) -> Self {
        (self.first_delay, self.delay) = (first, each);
        self
    }

    /// Goes wrong in this way after so many pieces, or at the end if there are fewer; 0 is before the first one.
    #[must_use]
    pub fn fails(mut self, how: Failure, after_pieces: usize) -> Self {
        self.failure = Some((how, after_pieces));
        self
    }

    /// What it fails with when it is told to fail. By default the bot is unavailable, which may be tried again.
    #[must_use]
    pub fn error(mut self, error: BotError) -> Self {
        self.error = error;
        self
    }

    /// The first so many replies fail, and all later ones do not. They fail before the first piece, if
    /// [`fails`](Self::fails) says nothing else.
    #[must_use]
    pub fn ok_after(mut self, tries: u32) -> Self {
        self.fails = Some(tries);
        self
    }

    /// What it says of the tokens used; estimated totals by default.
    #[must_use]
    pub fn usage(mut self, report: UsageReport) -> Self {
        self.usage = report;
        self
    }

    /// How much history it reads.
    #[must_use]
    pub fn context(mut self, policy: ContextPolicy) -> Self {
        self.profile.context = policy;
        self
    }

    /// How long its answers may take and become.
    #[must_use]
    pub fn limits(mut self, limits: BotLimits) -> Self {
        self.profile.limits = limits;
        self
    }

    /// How many replies have begun since it was made.
    #[must_use]
    pub fn replies(&self) -> u32 {
        self.replies.load(Ordering::Relaxed)
    }

    /// Everything that will happen in a turn, decided before the first of it does.
    fn plan(&self, turn: &Turn) -> Plan {
        let begun = self.replies.fetch_add(1, Ordering::Relaxed);
        let failure = match self.fails {
            Some(fails) if begun >= fails => None,
            Some(_) => Some(self.failure.unwrap_or((Failure::Error, 0))),
            None => self.failure,
        };
        let plan = |text: &str, pieces: usize| {
            let chunking = self.chunking.unwrap_or(Chunking::Pieces(pieces));
            let delays = std::iter::once(self.first_delay).chain(std::iter::repeat(self.delay));
            Plan {
                pieces: delays.zip(cut(text, chunking)).collect(),
                failure,
                error: self.error.clone(),
            }
        };
        match &self.answer {
            Answer::Echo => plan(&turn.prompt, DEMO_PIECES),
            Answer::Text(text) => plan(text, DEMO_PIECES),
            Answer::Script(pieces) => Plan {
                pieces: pieces.clone(),
                failure,
                error: self.error.clone(),
            },
            Answer::Demo => directed(turn, plan),
        }
    }

    fn report(&self, read: u32, written: usize) -> Option<Usage> {
        if self.usage == UsageReport::None {
            return None;
        }
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        Some(Usage {
            input: Some(read),
            output: Some(written),
            total: Some(read.saturating_add(written)),
            estimated: self.usage == UsageReport::Estimated,
            ..Usage::default()
        })
    }
}

#[async_trait]
impl Bot for MockBot {
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let plan = self.plan(&turn);
        let read = words_read(&turn);
        let mut left = plan.pieces.into_iter();
        // A failure that lies behind the end takes its place.
        let before = plan.failure.map_or(usize::MAX, |(_, after)| after);
        for (written, (delay, piece)) in (1..).zip(left.by_ref().take(before)) {
            sleep(delay).await;
            out.push(piece).await?;
            if let Some(usage) = self.report(read, written) {
                out.usage(usage);
            }
        }
        let Some((failure, _)) = plan.failure else {
            return Ok(Finish {
                model: Some("mock".to_owned()),
                ..Finish::stop()
            });
        };
        if let Some((delay, _)) = left.next() {
            sleep(delay).await;
        }
        match failure {
            Failure::Error => Err(plan.error),
            Failure::Truncate => Err(BotError::new(
                BotErrorKind::Truncated,
                "The mock bot's answer broke off.",
            )),
            Failure::Hang => std::future::pending().await,
            Failure::Panic => panic!("the mock bot panics because it was told to"),
        }
    }
}

/// What happens in one turn.
struct Plan {
    /// Each with the time to wait before it.
    pieces: Vec<(Duration, String)>,
    failure: Option<(Failure, usize)>,
    error: BotError,
}

impl Plan {
    fn stretched(mut self, change: impl Fn(Duration) -> Duration) -> Self {
        for (delay, _) in &mut self.pieces {
            *delay = change(*delay);
        }
        self
    }

    fn failing(mut self, how: Failure, after: usize) -> Self {
        self.failure = Some((how, after));
        self
    }
}

/// The demonstration, or what the prompt's first word wants instead.
fn directed(turn: &Turn, plan: impl Fn(&str, usize) -> Plan) -> Plan {
    let mut slow = false;
    let mut words = turn.prompt.split_whitespace();
    let plan = loop {
        match words.next().unwrap_or_default() {
            "slow" if !slow => slow = true,
            "fail" => {
                // For people who look at it: not worth another try.
                let mut plan = plan(&demo(&turn.prompt), DEMO_PIECES).failing(Failure::Error, 0);
                plan.error.kind = BotErrorKind::Internal;
                break plan;
            }
            // Long enough as it is.
            "essay" => break plan(&essay(), ESSAY_PIECES).stretched(|delay| delay / 4),
            "echo-context" => break plan(&context::render(&turn.context), DEMO_PIECES),
            "hang" => break plan(&demo(&turn.prompt), DEMO_PIECES).failing(Failure::Hang, A_LITTLE),
            "panic" => break plan(&demo(&turn.prompt), DEMO_PIECES).failing(Failure::Panic, A_LITTLE),
            _ => break plan(&demo(&turn.prompt), DEMO_PIECES),
        }
    };
    if slow { plan.stretched(|delay| delay * 3) } else { plan }
}

fn demo(prompt: &str) -> String {
    // On one line and without what would end the quotation.
    let mut quoted: String = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = quoted.char_indices().nth(QUOTED_CHARS) {
        quoted.truncate(end);
        quoted.push('…');
    }
    format!(
        "This is the mock bot; no model wrote this. You asked: “{quoted}”\n\n\
         It can show what an answer looks like while it grows, a block of code for instance:\n\n\
         ```rust\n\
         fn main() {{\n    \
             println!(\"Hello from the mock bot\");\n\
         }}\n\
         ```\n\n\
         and a table:\n\n\
         | piece | what it is |\n\
         | ----- | ---------- |\n\
         | first | a greeting |\n\
         | last  | this table |\n"
    )
}

fn essay() -> String {
    let mut text =
        "# An essay by the mock bot\n\nNo model wrote this; it is long so that one can watch it grow.\n".to_owned();
    let mut section = 0;
    while text.len() < ESSAY_BYTES {
        section += 1;
        text += &format!("\n## Section {section}\n\n");
        for sentence in 1..=8 {
            text += &format!(
                "This is sentence {sentence} of section {section}, and it says no more than that it is there. "
            );
        }
        text += &format!(
            "\n\n```rust\n/// How far this essay has come.\nconst SECTION: u32 = {section};\n```\n\n\
             | section | sentences |\n| ------- | --------- |\n| {section} | 8 |\n"
        );
    }
    text
}

/// A token for each word of what a model would have been given.
fn words_read(turn: &Turn) -> u32 {
    let parts = turn.context.turns.iter().flat_map(|turn| &turn.parts);
    let words = parts
        .chain([&turn.context.system])
        .map(|text| text.split_whitespace().count())
        .sum::<usize>();
    u32::try_from(words).unwrap_or(u32::MAX)
}

/// Cuts a text into pieces, none of them empty.
fn cut(text: &str, chunking: Chunking) -> Vec<String> {
    match chunking {
        Chunking::Chars(size) => by_chars(text, || size),
        Chunking::Words(size) => {
            let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
            words.chunks(size.max(1)).map(<[&str]>::concat).collect()
        }
        Chunking::Tokens(seed) => {
            let mut random = SplitMix(seed);
            by_chars(text, || (random.next() % 8 + 1) as usize)
        }
        Chunking::Pieces(pieces) => {
            // The first so many are one longer, so that there are neither fewer nor more.
            let (pieces, chars) = (pieces.max(1), text.chars().count());
            let mut made = 0;
            by_chars(text, || {
                made += 1;
                chars / pieces + usize::from(made <= chars % pieces)
            })
        }
    }
}

fn by_chars(text: &str, mut size: impl FnMut() -> usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .char_indices()
            .nth(size().max(1))
            .map_or(rest.len(), |(end, _)| end);
        pieces.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    pieces
}

/// Numbers that look random and are the same every time.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_core::testing::bot::{Collected, bot_contract, run, turn};
    use std::sync::Arc;
    use tokio::time::{Instant, timeout};

    const QUICK: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

    fn quick() -> MockBot {
        MockBot::default().delays(QUICK.0, QUICK.1)
    }

    /// How a reply ends, what it wrote and how long it took.
    async fn watched(bot: &MockBot, prompt: &str) -> (Result<Finish, BotError>, Collected, Duration) {
        let start = Instant::now();
        let (out, written) = Collected::writer(None);
        let end = bot.reply(turn("mock", prompt), out).await;
        (end, written, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_contract_however_it_is_set_up() {
        let script = [(Duration::from_secs(1), "one "), (Duration::from_secs(2), "two")];
        for bot in [
            MockBot::default(),
            MockBot::named("other")
                .chunking(Chunking::Tokens(7))
                .usage(UsageReport::Exact),
            MockBot::default()
                .echo()
                .chunking(Chunking::Chars(7))
                .usage(UsageReport::None),
            MockBot::default().text("Some words.").chunking(Chunking::Words(1)),
            MockBot::default().script(script),
            MockBot::default().fails(Failure::Error, 0),
            MockBot::default().fails(Failure::Truncate, 5),
            quick(),
        ] {
            bot_contract(bot).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_demonstration() {
        let (end, written, took) = watched(&MockBot::default(), "what is\nnew?").await;
        assert_eq!(end.unwrap().model.as_deref(), Some("mock"));
        assert_eq!(written.pieces().len(), 30);
        assert!(
            (Duration::from_secs(2)..=Duration::from_secs(3)).contains(&took),
            "{took:?}"
        );
        let text = written.text();
        assert!(text.len() > 100 && text.contains("mock bot"));
        assert!(text.contains("“what is new?”"));
        assert!(text.contains("\n```rust\nfn main() {\n    println!") && text.contains("\n}\n```\n"));
        assert!(text.contains("\n| ----- | ---------- |\n"));

        let (_, again, _) = watched(&MockBot::default(), "what is\nnew?").await;
        assert_eq!(written.pieces(), again.pieces());
        let (_, long, _) = watched(&quick(), &"word ".repeat(9_000)).await;
        assert!(long.text().len() < 1_500);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_always_seen_to_be_a_mock() {
        for (handle, name) in [("mock", "mock"), ("mock2", "mock2"), ("helen", "helen (mock)")] {
            let profile = MockBot::named(handle).profile();
            assert_eq!((profile.handle.as_str(), profile.name.as_str()), (handle, name));
            assert!(profile.about.contains("mock"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn directives() {
        let bot = MockBot::default();
        let (_, usual, took) = watched(&bot, "hello slow").await;
        let (end, written, slow) = watched(&bot, "slow hello").await;
        assert!(end.is_ok());
        assert_eq!((slow, written.pieces().len()), (took * 3, usual.pieces().len()));

        let (end, written, _) = watched(&bot, "fail please").await;
        let error = end.unwrap_err();
        assert!(!error.is_retryable() && error.public.contains("mock") && written.pieces().is_empty());

        let (end, written, took) = watched(&bot, "essay").await;
        let text = written.text();
        assert!(end.is_ok());
        assert_eq!(written.pieces().len(), 400);
        assert!((17_000..19_000).contains(&text.len()), "{} bytes", text.len());
        assert!(text.contains("\n## Section 9\n") && text.contains("\n```rust\n") && text.contains("\n| --"));
        assert!(took < Duration::from_secs(10));
        let (_, _, slow) = watched(&bot, "slow essay").await;
        assert_eq!(slow, took * 3);

        let asked = turn("mock", "echo-context");
        let (end, text) = run(&bot, asked.clone()).await;
        assert!(end.is_ok());
        assert_eq!(text, context::render(&asked.context));
        assert!(text.ends_with("[somebody] echo-context\n"));

        let (out, written) = Collected::writer(None);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, bot.reply(turn("mock", "hang"), out)).await.is_err());
        assert_eq!(written.pieces().len(), 3);

        let bot = Arc::new(bot);
        let (out, written) = Collected::writer(None);
        let panics = tokio::spawn(async move { bot.reply(turn("mock", "panic"), out).await });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(written.pieces().len(), 3);

        // Words like any other for a bot that was told what to say, or inside a sentence.
        assert_eq!(run(&quick().echo(), turn("mock", "fail")).await.1, "fail");
        assert!(run(&quick(), turn("mock", "please fail")).await.0.is_ok());
        assert!(run(&quick(), turn("mock", "failing")).await.0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn texts_and_scripts() {
        assert_eq!(run(&quick().echo(), turn("mock", "tell me")).await.1, "tell me");
        assert_eq!(run(&quick().echo(), turn("mock", "")).await.1, "");

        let second = Duration::from_secs(1);
        let bot = MockBot::default()
            .text("a b c")
            .chunking(Chunking::Words(1))
            .delays(second * 5, second);
        let (_, written, took) = watched(&bot, "").await;
        assert_eq!(
            (written.pieces(), took),
            (vec!["a ".into(), "b ".into(), "c".into()], second * 7)
        );

        let bot = MockBot::default().script([(second, "x"), (second * 2, ""), (second * 3, "y z")]);
        let (_, written, took) = watched(&bot, "").await;
        assert_eq!(
            (written.pieces(), took),
            (vec!["x".into(), String::new(), "y z".into()], second * 6)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures() {
        let fails = |how, after| quick().text("a b c").chunking(Chunking::Words(1)).fails(how, after);
        for (after, text) in [(0, ""), (2, "a b "), (3, "a b c"), (9, "a b c")] {
            let (end, written) = run(&fails(Failure::Error, after), turn("mock", "")).await;
            let error = end.unwrap_err();
            assert_eq!((error.kind, written.as_str()), (BotErrorKind::Unavailable, text));
            let (end, written) = run(&fails(Failure::Truncate, after), turn("mock", "")).await;
            assert_eq!(
                (end.unwrap_err().kind, written.as_str()),
                (BotErrorKind::Truncated, text)
            );
        }
        let auth = BotError::new(BotErrorKind::Auth, "No key.");
        let (end, _) = run(&fails(Failure::Error, 1).error(auth), turn("mock", "")).await;
        assert_eq!(end.unwrap_err().kind, BotErrorKind::Auth);

        let hang = fails(Failure::Hang, 1);
        assert!(
            timeout(Duration::from_secs(3600), run(&hang, turn("mock", "")))
                .await
                .is_err()
        );
        let panics = tokio::spawn(async move { run(&fails(Failure::Panic, 1), turn("mock", "")).await });
        assert!(panics.await.unwrap_err().is_panic());
    }

    #[tokio::test(start_paused = true)]
    async fn it_works_after_so_many_tries() {
        let bot = quick().ok_after(2);
        for ok in [false, false, true, true] {
            let (end, text) = run(&bot, turn("mock", "hi")).await;
            assert_eq!((end.is_ok(), text.is_empty()), (ok, !ok));
        }
        assert_eq!(bot.replies(), 4);

        let bot = quick()
            .text("a b")
            .chunking(Chunking::Words(1))
            .fails(Failure::Truncate, 1)
            .ok_after(1);
        assert_eq!(run(&bot, turn("mock", "")).await.1, "a ");
        assert_eq!(run(&bot, turn("mock", "")).await.1, "a b");
    }

    #[tokio::test(start_paused = true)]
    async fn usage() {
        let bot = |report| quick().text("a b c").chunking(Chunking::Words(1)).usage(report);
        for (report, estimated) in [(UsageReport::Exact, false), (UsageReport::Estimated, true)] {
            let (_, written, _) = watched(&bot(report), "one two three").await;
            // "[somebody] one two three"
            let expected = |output| Usage {
                input: Some(4),
                output: Some(output),
                total: Some(4 + output),
                estimated,
                ..Usage::default()
            };
            assert_eq!(written.usage(), [expected(1), expected(2), expected(3)]);
        }
        let (_, written, _) = watched(&bot(UsageReport::None), "hi").await;
        assert!(written.usage().is_empty());
    }

    #[test]
    fn every_way_of_cutting_keeps_the_text() {
        let text = "Héllo  wörld,\n\n```rust\nlet x = 1;\n```\n🏳️‍🌈 end";
        for chunking in [
            Chunking::Chars(0),
            Chunking::Chars(3),
            Chunking::Words(0),
            Chunking::Words(2),
            Chunking::Tokens(1),
            Chunking::Pieces(0),
            Chunking::Pieces(7),
            Chunking::Pieces(1_000),
        ] {
            let pieces = cut(text, chunking);
            assert_eq!(pieces.concat(), text, "{chunking:?}");
            assert!(pieces.iter().all(|piece| !piece.is_empty()), "{chunking:?}");
            assert!(cut("", chunking).is_empty(), "{chunking:?}");
        }
        assert_eq!(cut(text, Chunking::Pieces(7)).len(), 7);
        assert_eq!(cut(text, Chunking::Tokens(1)), cut(text, Chunking::Tokens(1)));
        assert_ne!(cut(text, Chunking::Tokens(1)), cut(text, Chunking::Tokens(2)));
    }
}
