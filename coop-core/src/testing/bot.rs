//! For authors of bots: calling a bot as a plain function, and [`bot_contract`], the suite that every bot must pass.
//!
//! Nothing here is a room: there are no readers, no deltas and no limits but those asked for. All waiting is on Tokio's
//! timers, so that with a paused clock (`#[tokio::test(start_paused = true)]`) the suite takes no real time.

use crate::bot::{Bot, BotError, BotErrorKind, BotProfile, ReplyWriter, Sink, Turn};
use crate::model::{Context, ContextTurn, Finish, MessageVersion, Side, Usage};
use crate::names::{check_display_name, check_handle};
use futures::FutureExt;
use futures::future::join_all;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How soon a bot must be done once it has been told that its turn is over.
const PROMPTLY: Duration = Duration::from_secs(5);
/// How long something that must not happen is waited for.
const A_WHILE: Duration = Duration::from_millis(500);
/// How many replies run side by side.
const SIDE_BY_SIDE: u32 = 8;

/// What a bot wrote: the other end of a [`ReplyWriter`].
#[derive(Clone)]
pub struct Collected(Arc<Record>);

struct Record {
    /// More bytes than this are refused.
    limit: Option<usize>,
    /// Never held across an await.
    written: Mutex<Written>,
    /// Told of every push.
    pushed: Notify,
}

#[derive(Default)]
struct Written {
    pieces: Vec<String>,
    bytes: usize,
    usage: Vec<Usage>,
    /// The turn is over: every push is refused.
    closed: bool,
    refused: u32,
}

impl Collected {
    /// A writer for one answer, and what it writes. With a limit, the first push that would exceed it is refused, as
    /// is every one after it, like those of a turn that is over.
    #[must_use]
    pub fn writer(limit: Option<usize>) -> (ReplyWriter, Self) {
        let record = Arc::new(Record {
            limit,
            written: Mutex::default(),
            pushed: Notify::new(),
        });
        (ReplyWriter::new(record.clone()), Self(record))
    }

    /// Everything written so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().pieces.concat()
    }

    /// The same in the pieces in which it was pushed.
    #[must_use]
    pub fn pieces(&self) -> Vec<String> {
        self.0.lock().pieces.clone()
    }

    /// Every report of the tokens used, in order.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.0.lock().usage.clone()
    }

    /// How many pushes were refused.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.0.lock().refused
    }

    /// Ends the turn: from now on every push is refused.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Waits until this many pieces were written.
    pub async fn pieces_written(&self, pieces: usize) {
        self.until(|written| written.pieces.len() >= pieces).await;
    }

    async fn until(&self, done: impl Fn(&Written) -> bool + Send) {
        loop {
            let pushed = self.0.pushed.notified();
            tokio::pin!(pushed);
            // Before looking, so that a push between the look and the wait is not missed.
            pushed.as_mut().enable();
            if done(&self.0.lock()) {
                return;
            }
            pushed.await;
        }
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collected").field(&self.pieces()).finish()
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Record {
    fn push(&self, text: &str) -> Result<(), BotError> {
        let mut written = self.lock();
        let bytes = written.bytes + text.len();
        written.closed |= self.limit.is_some_and(|limit| bytes > limit);
        let result = if written.closed {
            written.refused += 1;
            Err(BotError::new(BotErrorKind::Cancelled, "The turn is over."))
        } else {
            written.bytes = bytes;
            written.pieces.push(text.to_owned());
            Ok(())
        };
        drop(written);
        self.pushed.notify_waiters();
        result
    }

    fn usage(&self, usage: Usage) {
        self.lock().usage.push(usage);
    }
}

/// Asks a bot and returns how it ended and all that it wrote.
pub async fn run(bot: &dyn Bot, turn: Turn) -> (Result<Finish, BotError>, String) {
    let (out, collected) = Collected::writer(None);
    let end = bot.reply(turn, out).await;
    (end, collected.text())
}

/// A turn with this prompt, which is also its context, as the engine gives it for the first message of a room.
#[must_use]
pub fn turn(bot: impl Into<String>, prompt: impl Into<String>) -> Turn {
    let mut turn = Turn::of_prompt(bot, prompt);
    turn.context = Context {
        turns: vec![ContextTurn {
            side: Side::User,
            parts: vec![format!("[{}] {}", turn.asked_by.name, turn.prompt)],
        }],
        read: vec![MessageVersion {
            message: turn.ask,
            edit: 0,
        }],
        ..Context::default()
    };
    turn
}

/// What every bot must do, whatever it says. Give it a bot that is set up to answer.
///
/// - Its profile is sane: a handle as [`check_handle`] wants it, a name and a line about it, limits above zero.
/// - It ends within its own limits: for a simple prompt, an empty one, one of 1 MB and one of odd characters, with and
///   without a context. It may end with an error, but with words for people, and not as cancelled when nobody
///   cancelled. It never panics.
/// - When it is told that its turn is over it returns that error within five seconds.
/// - It may be dropped at any moment; it then writes nothing more, and the next reply is as any other.
/// - Replies run side by side.
/// - The totals of its usage never go down.
///
/// # Panics
/// With the rule that the bot breaks.
pub async fn bot_contract(bot: impl Bot) {
    let bot: Arc<dyn Bot> = Arc::new(bot);
    let subject = Subject {
        profile: bot.profile(),
        bot,
    };
    subject.has_a_sane_profile();
    subject.answers_or_says_why().await;
    subject.survives_any_prompt().await;
    subject.returns_when_its_turn_is_over().await;
    subject.may_be_dropped_at_any_moment().await;
    subject.replies_side_by_side().await;
}

struct Subject {
    bot: Arc<dyn Bot>,
    profile: BotProfile,
}

impl Subject {
    fn turn(&self, prompt: impl Into<String>) -> Turn {
        turn(&self.profile.handle, prompt)
    }

    fn has_a_sane_profile(&self) {
        let profile = &self.profile;
        if let Err(why) = check_handle(&profile.handle) {
            panic!("the handle {:?} is not one: {why}", profile.handle);
        }
        if let Err(why) = check_display_name(&profile.name) {
            panic!("the name {:?} is not one: {why}", profile.name);
        }
        let about = &profile.about;
        assert!(!about.trim().is_empty(), "the profile has no line about it");
        assert!(!about.contains(char::is_control), "its line has control characters");
        assert!(profile.limits.text_bytes > 0, "no text is allowed");
        assert!(profile.limits.time > Duration::ZERO, "no time is allowed");
        assert!(profile.context.tokens > 0, "no context is allowed");
        assert_eq!(
            self.bot.profile().handle,
            profile.handle,
            "the handle differs from one call to the next"
        );
    }

    async fn answers_or_says_why(&self) {
        if let Some(text) = self.ends("a simple prompt", self.turn("Hello.")).await {
            assert!(!text.trim().is_empty(), "it answers nothing to a simple prompt");
        }
    }

    async fn survives_any_prompt(&self) {
        let odd = "\0\u{7}\r\n\u{feff}\u{202e}e\u{301}\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}\u{10ffff}```|[x]: @@/ \\ \"";
        let prompts = [
            ("an empty prompt", String::new()),
            ("a blank prompt", " \n".to_owned()),
            ("a prompt of 1 MB", "a word and ".repeat(100_000)),
            ("a prompt of odd characters", odd.to_owned()),
        ];
        for (what, prompt) in prompts {
            self.ends(what, self.turn(prompt)).await;
        }
        let bare = Turn::of_prompt(&self.profile.handle, "Hello.");
        self.ends("a turn without context", bare).await;
    }

    async fn returns_when_its_turn_is_over(&self) {
        for limit in [0, 1, 200] {
            let (out, written) = Collected::writer(Some(limit));
            let reply = self.bot.reply(self.turn("Hello."), out);
            let overdue = async {
                written.until(|written| written.refused > 0).await;
                sleep(PROMPTLY).await;
            };
            let end = tokio::select! {
                biased;
                end = reply => end,
                () = overdue => panic!("it goes on after it was told that its turn is over"),
                () = sleep(self.profile.limits.time) => panic!("it does not end within its own limit"),
            };
            if written.refused() > 0 {
                let kind = end.err().map(|error| error.kind);
                let told = Some(BotErrorKind::Cancelled);
                assert_eq!(
                    kind, told,
                    "it does not return the error by which it is told that its turn is over"
                );
            }
        }
    }

    async fn may_be_dropped_at_any_moment(&self) {
        // Before it was polled.
        let (out, written) = Collected::writer(None);
        drop(self.bot.reply(self.turn("Hello."), out));
        let mut dropped = vec![(written, 0)];
        // After it was polled once, and after some pieces.
        for pieces in [0, 1, 3] {
            let (out, written) = Collected::writer(None);
            {
                let reply = self.bot.reply(self.turn("Hello."), out);
                tokio::pin!(reply);
                let polled = futures::poll!(reply.as_mut());
                if polled.is_pending() {
                    tokio::select! {
                        biased;
                        () = written.pieces_written(pieces) => {}
                        _ = reply => {}
                        () = sleep(self.profile.limits.time) => panic!("it does not end within its own limit"),
                    }
                }
            }
            let pieces = written.pieces().len();
            dropped.push((written, pieces));
        }
        sleep(A_WHILE).await;
        for (written, pieces) in dropped {
            assert_eq!(written.pieces().len(), pieces, "it writes on after it was dropped");
        }
        self.answers_or_says_why().await;
    }

    async fn replies_side_by_side(&self) {
        let start = Instant::now();
        self.ends("a simple prompt", self.turn("Hello.")).await;
        let one = start.elapsed();

        let start = Instant::now();
        join_all((0..SIDE_BY_SIDE).map(|_| self.ends("a prompt beside others", self.turn("Hello.")))).await;
        let all = start.elapsed();
        // Half of what they would take one after another; the second is for bots that take almost no time.
        let most = one * SIDE_BY_SIDE / 2 + Duration::from_secs(1);
        assert!(
            all < most,
            "replies wait for one another: one takes {one:?}, {SIDE_BY_SIDE} take {all:?}"
        );
    }

    /// Runs one reply and checks what holds for every end. Returns the text if it did not fail.
    async fn ends(&self, what: &str, turn: Turn) -> Option<String> {
        // As in a room: a longer answer is cut at the bot's own limit.
        let (out, written) = Collected::writer(Some(self.profile.limits.text_bytes));
        let reply = AssertUnwindSafe(async { self.bot.reply(turn, out).await }).catch_unwind();
        let end = match timeout(self.profile.limits.time, reply).await {
            Err(_) => panic!("{what}: it does not end within its own limit"),
            Ok(Err(_)) => panic!("{what}: it panics"),
            Ok(Ok(end)) => end,
        };
        if let Err(error) = &end {
            assert!(
                !error.public.trim().is_empty(),
                "{what}: it fails without words for people: {error:?}"
            );
            assert!(
                error.kind != BotErrorKind::Cancelled || written.refused() > 0,
                "{what}: it says cancelled, and nobody cancelled"
            );
        }
        for totals in written.usage().windows(2) {
            assert!(
                !goes_down(totals[0], totals[1]),
                "{what}: its usage goes down: {totals:?}"
            );
        }
        end.is_ok().then(|| written.text())
    }
}

fn goes_down(before: Usage, after: Usage) -> bool {
    // Something known is more than nothing known, so a total that is forgotten goes down too.
    after.input < before.input
        || after.output < before.output
        || after.thinking < before.thinking
        || after.cached < before.cached
        || after.total < before.total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::bot_fn;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn good() -> impl Bot {
        bot_fn("echo", |turn, out| async move {
            for (count, word) in (1..).zip(turn.prompt.split(' ').take(50)) {
                out.push(word).await?;
                out.push(" .").await?;
                out.usage(Usage {
                    output: Some(count),
                    ..Usage::default()
                });
                sleep(Duration::from_millis(200)).await;
            }
            Ok(Finish::stop())
        })
    }

    /// What the suite says about a bot that breaks a rule.
    async fn complaint(bot: impl Bot) -> String {
        let suite = tokio::spawn(bot_contract(bot));
        let panic = suite.await.unwrap_err().into_panic();
        match panic.downcast::<String>() {
            Ok(words) => *words,
            Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_bot_passes() {
        bot_contract(good()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_bot_that_always_fails_with_words_passes() {
        bot_contract(bot_fn("away", |_, _| async {
            Err(BotError::new(BotErrorKind::Unavailable, "The provider is away."))
        }))
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn every_rule_is_noticed_when_it_is_broken() {
        let ok = || async { Ok::<_, BotError>(Finish::stop()) };

        let words = complaint(bot_fn("Not A Handle", move |_, _| ok())).await;
        assert!(words.contains("handle"), "{words}");

        let words = complaint(bot_fn("silent", move |_, _| ok())).await;
        assert!(words.contains("answers nothing"), "{words}");

        let words = complaint(bot_fn("hangs", |_, _| async { std::future::pending().await })).await;
        assert!(words.contains("does not end"), "{words}");

        let words = complaint(bot_fn("panics", |turn, out| async move {
            out.push(&turn.prompt[..1]).await?;
            Ok(Finish::stop())
        }))
        .await;
        assert_eq!(words, "an empty prompt: it panics");

        let words = complaint(bot_fn("wordless", |_, _| async {
            Err(BotError::new(BotErrorKind::Server, ""))
        }))
        .await;
        assert!(words.contains("without words"), "{words}");

        let words = complaint(bot_fn("deaf", |_, out| async move {
            for _ in 0..100 {
                let _ = out.push("on and on").await;
                sleep(Duration::from_secs(1)).await;
            }
            Ok(Finish::stop())
        }))
        .await;
        assert!(words.contains("goes on"), "{words}");

        let words = complaint(bot_fn("polite", |_, out| async move {
            let _ = out.push("well").await;
            Ok(Finish::stop())
        }))
        .await;
        assert!(words.contains("does not return the error"), "{words}");

        let words = complaint(bot_fn("zombie", |_, out| async move {
            out.push("first").await?;
            let task = tokio::spawn(async move {
                sleep(Duration::from_millis(100)).await;
                out.push("second").await
            });
            task.await??;
            Ok(Finish::stop())
        }))
        .await;
        assert!(words.contains("writes on"), "{words}");

        let one_at_a_time = Arc::new(tokio::sync::Mutex::new(()));
        let words = complaint(bot_fn("queue", move |_, out| {
            let lock = one_at_a_time.clone();
            async move {
                let _turn = lock.lock().await;
                sleep(Duration::from_secs(2)).await;
                out.push("done").await?;
                Ok(Finish::stop())
            }
        }))
        .await;
        assert!(words.contains("wait for one another"), "{words}");

        let words = complaint(bot_fn("forgets", |_, out| async move {
            for output in [Some(2), Some(1)] {
                out.push("word").await?;
                out.usage(Usage {
                    output,
                    ..Usage::default()
                });
            }
            Ok(Finish::stop())
        }))
        .await;
        assert!(words.contains("goes down"), "{words}");

        // A bot that is left in a bad state by being dropped.
        let busy = Arc::new(AtomicBool::new(false));
        let words = complaint(bot_fn("stuck", move |_, out| {
            let busy = busy.clone();
            async move {
                assert!(!busy.swap(true, Ordering::SeqCst), "still busy");
                sleep(Duration::from_secs(1)).await;
                busy.store(false, Ordering::SeqCst);
                out.push("done").await?;
                Ok(Finish::stop())
            }
        }))
        .await;
        assert!(words.contains("it panics") || words.contains("still busy"), "{words}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bot_is_called_as_a_function() {
        let bot = good();
        let (end, text) = run(&bot, turn("echo", "a b")).await;
        assert_eq!((end.unwrap(), text.as_str()), (Finish::stop(), "a .b ."));

        let (out, written) = Collected::writer(Some(4));
        let end = bot.reply(turn("echo", "a b"), out.clone()).await;
        assert_eq!(end.unwrap_err().kind, BotErrorKind::Cancelled);
        assert_eq!(
            (written.pieces(), written.refused()),
            (vec!["a".into(), " .".into(), "b".into()], 1)
        );
        assert_eq!(written.usage().len(), 1);
        written.close();
        assert!(out.push("").await.is_err());
    }
}
