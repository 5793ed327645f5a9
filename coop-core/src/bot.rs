//! What a bot is: something that reads a [`Turn`] and writes its answer into a [`ReplyWriter`].
//!
//! A bot **returns** how it ended, so that one turn has exactly one end by construction, and dropping its future is
//! cancellation. It knows no rooms, readers or stores; checkpoints, deltas, limits and the end event are the engine's.

use crate::id::{MessageId, RoomId, TurnId};
use crate::model::{Author, Context, Finish, Usage};
use crate::time::Timestamp;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Something that answers in rooms.
///
/// ```
/// use coop_core::{Bot, BotError, BotProfile, Finish, ReplyWriter, Turn, async_trait};
///
/// struct Shouter;
///
/// #[async_trait]
/// impl Bot for Shouter {
///     fn profile(&self) -> BotProfile {
///         BotProfile::new("shouter")
///     }
///
///     async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
///         out.push(turn.prompt.to_uppercase()).await?;
///         Ok(Finish::stop())
///     }
/// }
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(coop_core::testing::bot_contract(Shouter));
/// ```
///
/// It is added by [`EngineBuilder::bot`](crate::EngineBuilder::bot) and asked by `/shouter` and `@shouter`.
/// `testing::bot_contract` tries it.
///
/// Without the macro the method reads `async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError>`.
#[async_trait]
pub trait Bot: Send + Sync + 'static {
    /// Who it is and what it may use. Asked once, when the bot is registered.
    fn profile(&self) -> BotProfile;

    /// Answers one ask. The future is dropped when the turn is stopped, runs out of time or exceeds its size; a panic
    /// ends this turn and nothing else.
    ///
    /// # Errors
    /// A [`BotError`] ends the turn as failed, with the text written so far kept and the error's public words shown.
    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError>;
}

#[async_trait]
impl<B: Bot + ?Sized> Bot for Arc<B> {
    fn profile(&self) -> BotProfile {
        (**self).profile()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        (**self).reply(turn, out).await
    }
}

/// Who a bot is and what its turns may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BotProfile {
    /// The name it is asked by: `/handle` and `@handle`. Lower case, as a username.
    pub handle: String,
    /// The name it shows.
    pub name: String,
    /// One line about it; it greets an AI chat with this.
    pub about: String,
    /// How much history it wants to read.
    pub context: ContextPolicy,
    /// How long an answer may take and become.
    pub limits: BotLimits,
    /// Whether its tokens cost something, also those that it does not report: what it has read and written is estimated
    /// until it says. A bot that is not metered is charged for what it reports and no more. Not by default.
    pub metered: bool,
}

impl BotProfile {
    /// A profile with this handle, shown by the same name, with default limits.
    #[must_use]
    pub fn new(handle: impl Into<String>) -> Self {
        let handle = handle.into();
        Self {
            name: handle.clone(),
            about: format!("I am {handle}, a bot."),
            handle,
            context: ContextPolicy::default(),
            limits: BotLimits::default(),
            metered: false,
        }
    }
}

/// How much history a bot reads.
#[derive(Clone, Debug)]
pub struct ContextPolicy {
    /// At most this many messages, newest first. 50 by default.
    pub messages: u32,
    /// At most this many estimated tokens. 8,000 by default.
    pub tokens: u32,
    /// What the operator tells the bot about itself.
    pub system: String,
}

impl Default for ContextPolicy {
    fn default() -> Self {
        Self {
            messages: 50,
            tokens: 8_000,
            system: String::new(),
        }
    }
}

/// How long an answer may take and become.
#[derive(Clone, Copy, Debug)]
pub struct BotLimits {
    /// A longer answer is cut here and ends as done, marked as cut. Bytes of UTF-8; 32 KiB by default.
    pub text_bytes: usize,
    /// A longer turn fails with a timeout. 10 minutes by default.
    pub time: Duration,
}

impl Default for BotLimits {
    fn default() -> Self {
        Self {
            text_bytes: 32 * 1024,
            time: Duration::from_secs(600),
        }
    }
}

/// One ask, as the bot gets it: owned, complete, a snapshot of the moment of asking.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// Where it was asked.
    pub room: RoomId,
    /// The handle it was asked by.
    pub bot: String,
    /// Who asked.
    pub asked_by: Author,
    /// What was asked, without the words that address the bot.
    pub prompt: String,
    /// The message that asked.
    pub ask: MessageId,
    /// What was said before, as the bot's policy wants it.
    pub context: Context,
    /// When the engine will end the turn.
    pub deadline: Timestamp,
    /// 1, or more when the same ask is tried again.
    pub attempt: u32,
}

impl Turn {
    /// A turn with this prompt and nothing before it, for calling a bot as a plain function in tests.
    #[must_use]
    pub fn of_prompt(bot: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self {
            id: TurnId(1),
            room: RoomId(1),
            bot: bot.into(),
            asked_by: Author::person(crate::id::UserId(1), "somebody"),
            prompt: prompt.into(),
            ask: MessageId(1),
            context: Context::default(),
            deadline: Timestamp(0),
            attempt: 1,
        }
    }

    /// The turn of an ask.
    #[allow(
        clippy::too_many_arguments,
        reason = "one per field of a non-exhaustive struct, used by the engine alone"
    )]
    pub(crate) fn new(
        id: TurnId,
        room: RoomId,
        bot: String,
        asked_by: Author,
        prompt: String,
        ask: MessageId,
        context: Context,
        deadline: Timestamp,
        attempt: u32,
    ) -> Self {
        Self {
            id,
            room,
            bot,
            asked_by,
            prompt,
            ask,
            context,
            deadline,
            attempt,
        }
    }
}

/// Where a bot's text goes.
pub(crate) trait Sink: Send + Sync {
    /// Appends to the answer.
    fn push(&self, text: &str) -> Result<(), BotError>;
    /// Replaces what is known of the tokens used.
    fn usage(&self, usage: Usage);
}

/// Where a bot writes its answer. Cheap to clone; of no effect once its turn has ended.
#[derive(Clone)]
pub struct ReplyWriter(Arc<dyn Sink>);

impl ReplyWriter {
    pub(crate) fn new(sink: Arc<dyn Sink>) -> Self {
        Self(sink)
    }

    /// Appends to the answer; everyone in the room sees it within a few milliseconds.
    ///
    /// Cancel safety: the text is appended before the first suspension, so a dropped call has either appended all of
    /// it or was never polled.
    ///
    /// # Errors
    /// [`BotErrorKind::Cancelled`] once the turn is over (stopped, out of time, at its size limit): return it.
    pub async fn push(&self, text: impl AsRef<str>) -> Result<(), BotError> {
        self.0.push(text.as_ref())?;
        // A bot that writes without ever waiting must still let others run.
        tokio::task::consume_budget().await;
        Ok(())
    }

    /// Reports the tokens used so far: running totals, the last report wins.
    pub fn usage(&self, usage: Usage) {
        self.0.usage(usage);
    }
}

impl fmt::Debug for ReplyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyWriter")
    }
}

/// Why a bot could not finish.
///
/// It is not a [`std::error::Error`] itself, so that `?` turns any error into one: its words go to the log as
/// `detail`, and people are told only that the bot failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BotError {
    /// What kind of failure.
    pub kind: BotErrorKind,
    /// Words for people.
    pub public: Cow<'static, str>,
    /// Words for the log.
    pub detail: Option<String>,
    /// When another try makes sense, if the provider said.
    pub retry_after: Option<Duration>,
}

impl BotError {
    /// A failure of this kind with words for people.
    pub fn new(kind: BotErrorKind, public: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            public: public.into(),
            detail: None,
            retry_after: None,
        }
    }

    /// The same failure with words for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Whether the same ask may succeed on another try. Holds only while nothing of this attempt has been shown.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use BotErrorKind as K;
        matches!(
            self.kind,
            K::RateLimited | K::Unavailable | K::Server | K::Timeout | K::Transport
        )
    }
}

impl fmt::Display for BotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for BotError {
    fn from(error: E) -> Self {
        Self::new(BotErrorKind::Internal, "The bot failed.").with_detail(error.to_string())
    }
}

/// The kinds of [`BotError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BotErrorKind {
    /// The provider asks to slow down.
    RateLimited,
    /// The provider's quota is spent for now.
    QuotaExhausted,
    /// The provider does not accept the key.
    Auth,
    /// The provider does not accept the request.
    InvalidRequest,
    /// More to read than the model can.
    ContextTooLong,
    /// The provider refuses the prompt.
    BlockedPrompt,
    /// The provider withholds the answer.
    BlockedOutput,
    /// The provider is overloaded or away.
    Unavailable,
    /// The provider failed.
    Server,
    /// It took too long.
    Timeout,
    /// The connection to the provider failed.
    Transport,
    /// The provider answered something unintelligible.
    Protocol,
    /// The provider's answer broke off.
    Truncated,
    /// The turn ended while the bot was writing.
    Cancelled,
    /// A defect in the bot, a panic for instance.
    Internal,
}

impl BotErrorKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Auth,
        Self::InvalidRequest,
        Self::ContextTooLong,
        Self::BlockedPrompt,
        Self::BlockedOutput,
        Self::Unavailable,
        Self::Server,
        Self::Timeout,
        Self::Transport,
        Self::Protocol,
        Self::Truncated,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The kind of this word.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The stable word for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Auth => "auth",
            Self::InvalidRequest => "invalid_request",
            Self::ContextTooLong => "context_too_long",
            Self::BlockedPrompt => "blocked_prompt",
            Self::BlockedOutput => "blocked_output",
            Self::Unavailable => "unavailable",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Protocol => "protocol",
            Self::Truncated => "truncated",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

/// A bot from a handle and an async function.
///
/// ```
/// let echo = coop_core::bot_fn("echo", |turn, out| async move {
///     out.push(turn.prompt).await?;
///     Ok(coop_core::Finish::stop())
/// });
/// ```
pub fn bot_fn<F, Fut>(handle: impl Into<String>, reply: F) -> impl Bot
where
    F: Fn(Turn, ReplyWriter) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Finish, BotError>> + Send + 'static,
{
    BotFn {
        profile: BotProfile::new(handle),
        reply,
    }
}

struct BotFn<F> {
    profile: BotProfile,
    reply: F,
}

#[async_trait]
impl<F, Fut> Bot for BotFn<F>
where
    F: Fn(Turn, ReplyWriter) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Finish, BotError>> + Send + 'static,
{
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        (self.reply)(turn, out).await
    }
}
