//! The bot that asks Google's Gemini models.
//!
//! `request` makes what is sent, `reply` reads what is streamed back, `failure` tells what went wrong; all three are
//! pure. What is left here is the connection: waiting, trying again before the first piece was shown, following an answer
//! over several requests. It knows no rooms, and no table of models: they change faster than programs.

mod failure;
mod reply;
mod request;

use crate::sse::{Sse, SseDecoder, TooLong};
use async_trait::async_trait;
use coop_core::{Bot, BotError, BotErrorKind, BotProfile, Finish, ReplyWriter, Turn, Usage};
use failure::Failure;
use reply::{Answer, End};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use std::fmt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The model that is asked if nobody says.
pub const DEFAULT_MODEL: &str = "gemini-3.8-flash";
/// Where Google answers.
pub const DEFAULT_BASE_URL: &str = "https://generativelanguage.googleapis.com";
/// The version of the interface.
pub const DEFAULT_API_VERSION: &str = "v1beta";

/// The most bytes of one event.
const MAX_EVENT: usize = 8 << 20;
/// The most bytes of an error that are read.
const MAX_ERROR: usize = 64 << 10;
/// How often an answer may be continued by another request.
const MAX_CONTINUATIONS: u32 = 8;
/// How often a request is tried.
const ATTEMPTS: u32 = 3;
/// The first wait before another try, at most; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// All waits together, at most.
const ALL_WAITS: Duration = Duration::from_secs(20);

/// How a model is asked. Everything has a default but the key.
#[derive(Clone)]
#[non_exhaustive]
pub struct GeminiSettings {
    /// The model's name, as Google spells it.
    pub model: String,
    /// Where to ask.
    pub base_url: String,
    /// `v1beta` or `v1`.
    pub api_version: String,
    /// Whether Google may keep the requests. False by default.
    pub store: bool,
    /// The most tokens of an answer, thinking included. The model's own limit by default.
    pub max_output_tokens: Option<u32>,
    /// `LOW`, `HIGH` …, as the model knows it. Its own by default.
    pub thinking_level: Option<String>,
    /// Categories and thresholds of the provider's filters. Its own by default.
    pub safety: Vec<(String, String)>,
    /// How long connecting may take. 10 seconds by default.
    pub connect_timeout: Duration,
    /// How long the first bytes of an answer may take: a model thinks in silence. 120 seconds by default.
    pub first_byte_timeout: Duration,
    /// How long the next bytes may take. 60 seconds by default.
    pub idle_timeout: Duration,
    key: String,
}

impl GeminiSettings {
    /// The defaults, with this key.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            model: DEFAULT_MODEL.to_owned(),
            base_url: DEFAULT_BASE_URL.to_owned(),
            api_version: DEFAULT_API_VERSION.to_owned(),
            store: false,
            max_output_tokens: None,
            thinking_level: None,
            safety: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            key: key.into(),
        }
    }

    fn url(&self) -> Result<Url, String> {
        let model = self.model.strip_prefix("models/").unwrap_or(&self.model);
        let plain = |text: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            !text.is_empty() && text.chars().all(known)
        };
        if !plain(model) {
            return Err(format!("{model:?} is not the name of a Gemini model"));
        }
        if !plain(&self.api_version) {
            return Err(format!("{:?} is not a version of the Gemini API", self.api_version));
        }
        let base = self.base_url.trim_end_matches('/');
        let url = format!(
            "{base}/{}/models/{model}:streamGenerateContent?alt=sse",
            self.api_version
        );
        let url = Url::parse(&url).map_err(|_| "the base URL of Gemini is not one".to_owned())?;
        match url.scheme() {
            "http" | "https" if url.host().is_some() && url.username().is_empty() && url.password().is_none() => {
                Ok(url)
            }
            _ => Err("the base URL of Gemini is not an address such as https://host".to_owned()),
        }
    }
}

impl fmt::Debug for GeminiSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeminiSettings")
            .field("model", &self.model)
            .field("base_url", &self.base_url)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}

/// A bot that asks a Gemini model.
#[derive(Debug)]
pub struct GeminiBot {
    profile: BotProfile,
    settings: GeminiSettings,
    url: Url,
    key: HeaderValue,
    client: Client,
}

impl GeminiBot {
    /// A bot by this handle.
    ///
    /// # Errors
    /// Words for the operator: about a setting, or a system without certificates.
    pub fn new(handle: impl Into<String>, settings: GeminiSettings) -> Result<Self, String> {
        let mut profile = BotProfile::new(handle);
        if profile.handle == "gemini" {
            profile.name = "Gemini".to_owned();
        }
        profile.metered = true;
        profile.about = "I am Gemini, a language model. Ask me anything; I can be wrong.".to_owned();
        let mut key = HeaderValue::from_str(settings.key.trim())
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or("the key for Gemini is not one")?;
        key.set_sensitive(true);
        let client = Client::builder()
            .connect_timeout(settings.connect_timeout)
            .redirect(Policy::none())
            .user_agent(concat!("gemini-coop/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no connection can be made from here: {}", error.without_url()))?;
        Ok(Self {
            profile,
            url: settings.url()?,
            key,
            client,
            settings,
        })
    }

    /// The same with other words of the operator, and other limits.
    #[must_use]
    pub fn with_profile(mut self, change: impl FnOnce(&mut BotProfile)) -> Self {
        change(&mut self.profile);
        self
    }

    /// Sends one request, until it is answered by a stream. Once something was shown it is sent only once.
    async fn ask(&self, body: &str, tries: &mut Tries, shown: bool) -> Result<Response, BotError> {
        loop {
            let failure = match self.ask_once(body).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match tries.wait_before_next(&failure).filter(|_| !shown) {
                Some(wait) => sleep(wait).await,
                None => return Err(failure.into_error(&self.settings.key)),
            }
        }
    }

    async fn ask_once(&self, body: &str) -> Result<Response, Failure> {
        let request = self
            .client
            .post(self.url.clone())
            .header("x-goog-api-key", self.key.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .body(body.to_owned());
        let response = timeout(self.settings.first_byte_timeout, request.send()).await;
        let response = response.map_err(|_| Failure::late())?.map_err(Failure::of_transport)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(Failure::of_answer(status.as_u16(), &self.error_body(response).await)),
        }
    }

    /// As much of an error as is there and is wanted.
    async fn error_body(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        let read = async {
            while body.len() < MAX_ERROR
                && let Ok(Some(piece)) = response.chunk().await
            {
                body.extend_from_slice(&piece[..piece.len().min(MAX_ERROR - body.len())]);
            }
        };
        // What has come by then will do.
        let _ = timeout(self.settings.idle_timeout, read).await;
        body
    }

    /// Reads one stream to its end. Tells whether anything of it was shown.
    async fn read(
        &self,
        mut response: Response,
        out: &ReplyWriter,
        before: Usage,
        shown: &mut bool,
    ) -> Result<(End, Usage), Failure> {
        let (mut decoder, mut answer) = (SseDecoder::new(MAX_EVENT), Answer::after(before));
        let mut patience = self.settings.first_byte_timeout;
        let mut events = Vec::new();
        loop {
            let piece = timeout(patience, response.chunk()).await;
            let piece = match piece {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Err(Failure::of_transport(error)),
                Err(_) => return Err(Failure::late()),
            };
            patience = self.settings.idle_timeout;
            let last = piece.is_none();
            let too_long = |_: TooLong| Failure::unintelligible("an event without an end");
            match piece {
                Some(bytes) => decoder.feed(&bytes, |event| events.push(event)).map_err(too_long)?,
                None => {
                    let decoder = std::mem::replace(&mut decoder, SseDecoder::new(0));
                    decoder.finish(|event| events.push(event)).map_err(too_long)?;
                }
            }
            for event in events.drain(..) {
                match event {
                    Sse::Event(data) => answer.take(&data)?,
                    Sse::Stray(text) => answer.take_stray(&text)?,
                }
                let text = answer.text();
                if !text.is_empty() {
                    *shown = true;
                    out.push(text).await.map_err(Failure::over)?;
                }
                if let Some(usage) = answer.usage() {
                    out.usage(usage);
                }
                if answer.is_over() {
                    return answer.end();
                }
            }
            if last {
                return answer.end();
            }
        }
    }
}

#[async_trait]
impl Bot for GeminiBot {
    fn profile(&self) -> BotProfile {
        self.profile.clone()
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let mut tries = Tries::default();
        let (mut continuation, mut usage, mut shown) = (None, Usage::default(), false);
        for _ in 0..=MAX_CONTINUATIONS {
            let body = request::body(&turn, &self.settings, continuation.as_deref());
            let (end, used) = loop {
                let response = self.ask(&body, &mut tries, shown).await?;
                match self.read(response, &out, usage, &mut shown).await {
                    Ok(read) => break read,
                    Err(failure) => match tries.wait_before_next(&failure).filter(|_| !shown) {
                        Some(wait) => sleep(wait).await,
                        None => return Err(failure.into_error(&self.settings.key)),
                    },
                }
            };
            usage = used;
            match end {
                End::Finished(finish) => return Ok(finish),
                End::Continues(token) => continuation = Some(token),
            }
        }
        let words = "Gemini did not come to an end.";
        Err(BotError::new(BotErrorKind::Protocol, words).with_detail("too many continuations"))
    }
}

/// How often and how long it has been tried.
struct Tries {
    left: u32,
    late_left: u32,
    next_wait: Duration,
    waits_left: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            left: ATTEMPTS - 1,
            late_left: 1,
            next_wait: FIRST_WAIT,
            waits_left: ALL_WAITS,
        }
    }
}

impl Tries {
    /// How long to wait before the next try; nothing, if there is to be none.
    fn wait_before_next(&mut self, failure: &Failure) -> Option<Duration> {
        if !failure.may_pass() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        if failure.is_late() {
            self.late_left = self.late_left.checked_sub(1)?;
        }
        let jitter = self.next_wait.mul_f64(fastrand::f64());
        self.next_wait *= 2;
        let wait = failure.retry_after().unwrap_or_default() + jitter;
        self.waits_left = self.waits_left.checked_sub(wait)?;
        Some(wait)
    }
}
