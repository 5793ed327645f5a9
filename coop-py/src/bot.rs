//! Bots that are written in Python, as the engine sees them: it asks, and the loop answers when it comes to it. Text goes
//! straight from the loop's thread into the answer, which is bounded by the bot's size limit and never waits for readers.

use crate::bridge::{Way, lock};
use crate::here::Here;
use coop_core::{Bot, BotError, BotErrorKind, BotProfile, Finish, ReplyWriter, Turn, Usage, async_trait};
use futures::FutureExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

type End = Result<Finish, BotError>;

/// An ask on its way to the loop.
pub(crate) struct Ask {
    bot: u64,
    run: u64,
    turn: Turn,
    answer: Answer,
}

impl Ask {
    pub(crate) fn into_tuple(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        let turn = crate::value::json(&self.turn)?;
        (self.bot, self.run, turn, self.answer).into_pyobject(py)
    }
}

/// A bot of the loop's.
pub(crate) struct PythonBot {
    /// By which the loop knows it.
    number: u64,
    profile: BotProfile,
    way: Arc<Way>,
}

/// What Python says of a bot when it adds it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Profile {
    handle: String,
    name: Option<String>,
    about: Option<String>,
    system: String,
    context_messages: u32,
    context_tokens: u32,
    max_bytes: usize,
    timeout: f64,
    metered: bool,
}

impl Profile {
    fn into_profile(self) -> PyResult<BotProfile> {
        let mut profile = BotProfile::new(self.handle);
        if let Some(name) = self.name {
            profile.name = name;
        }
        if let Some(about) = self.about {
            profile.about = about;
        }
        profile.context.system = self.system;
        profile.context.messages = self.context_messages;
        profile.context.tokens = self.context_tokens;
        profile.limits.text_bytes = self.max_bytes;
        profile.limits.time = seconds("timeout", self.timeout)?;
        profile.metered = self.metered;
        Ok(profile)
    }
}

/// A time that was given in seconds.
pub(crate) fn seconds(name: &str, given: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(given)
        .map_err(|_| PyValueError::new_err(format!("{name} must be a number of seconds from 0 on, not {given}")))
}

impl PythonBot {
    pub(crate) fn new(number: u64, profile: Profile, way: Arc<Way>) -> PyResult<Self> {
        let profile = profile.into_profile()?;
        Ok(Self { number, profile, way })
    }
}

/// Tells the loop that a turn is over, unless the loop has ended it itself.
struct Stopping<'a> {
    way: &'a Way,
    run: u64,
    ended: bool,
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.way.stop(self.run);
        }
    }
}

#[async_trait]
impl Bot for PythonBot {
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> End {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = oneshot::channel();
        let mut stopping = Stopping {
            way: &self.way,
            run,
            ended: false,
        };
        self.way.ask(Ask {
            bot: self.number,
            run,
            turn,
            answer: Answer(Here::new(Answering {
                out,
                runtime: Handle::current(),
                end: Mutex::new(Some(end)),
            })),
        });
        let end = ended.await;
        stopping.ended = true;
        end.unwrap_or_else(|_| {
            let gone = BotError::new(BotErrorKind::Internal, "The bot failed.");
            Err(gone.with_detail("its event loop dropped the ask without an answer"))
        })
    }
}

struct Answering {
    out: ReplyWriter,
    /// Of the engine: a piece may set a clock there.
    runtime: Handle,
    end: Mutex<Option<oneshot::Sender<End>>>,
}

/// Where a Python bot's text goes.
#[pyclass(frozen)]
pub(crate) struct Answer(Here<Answering>);

impl Answer {
    fn end(&self, end: End) {
        if let Some(tell) = lock(&self.0.get().end).take() {
            // Nobody listens to a turn that is over.
            let _ = tell.send(end);
        }
    }
}

#[pymethods]
impl Answer {
    /// Appends to the answer. False once the turn is over.
    fn push(&self, text: &str) -> bool {
        let answering = self.0.get();
        let _runtime = answering.runtime.enter();
        // The text is appended before the first suspension; there is nothing to be waited for after that.
        !matches!(answering.out.push(text).now_or_never(), Some(Err(_)))
    }

    /// Replaces what is known of the tokens used.
    fn usage(
        &self,
        input: Option<u32>,
        output: Option<u32>,
        thinking: Option<u32>,
        cached: Option<u32>,
        total: Option<u32>,
        estimated: bool,
    ) {
        self.0.get().out.usage(Usage {
            input,
            output,
            thinking,
            cached,
            total,
            estimated,
        });
    }

    /// It is all said.
    fn finish(&self) {
        self.end(Ok(Finish::stop()));
    }

    /// It failed: a code, words for people if there are any, and words for the log.
    fn fail(&self, code: &str, words: Option<String>, detail: String) {
        let kind = BotErrorKind::from_code(code).unwrap_or(BotErrorKind::Internal);
        let words = words.unwrap_or_else(|| "The bot failed.".to_owned());
        self.end(Err(BotError::new(kind, words).with_detail(detail)));
    }
}
