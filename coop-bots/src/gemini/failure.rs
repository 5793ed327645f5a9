//! What went wrong, from whatever the provider answered: a kind, words for people, words for the log, and whether and when
//! another try makes sense. A provider's words may echo the key, which is taken out before anybody sees them.

use coop_core::{BotError, BotErrorKind};
use serde_json::Value;
use std::time::Duration;

/// A longer wait than this is not for a person who has asked.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How much of a provider's words goes into the log.
const DETAIL_CHARS: usize = 500;

/// Something went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    error: BotError,
    /// Whether another try may go better.
    passes: bool,
}

impl Failure {
    fn new(kind: BotErrorKind, public: impl Into<std::borrow::Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let error = BotError::new(kind, public).with_detail(detail);
        Self {
            passes: error.is_retryable(),
            error,
        }
    }

    /// Nothing came for too long.
    pub(super) fn late() -> Self {
        Self::new(
            BotErrorKind::Timeout,
            "Gemini takes too long to answer.",
            "no bytes in time",
        )
    }

    pub(super) fn of_transport(error: reqwest::Error) -> Self {
        let kind = if error.is_timeout() {
            BotErrorKind::Timeout
        } else {
            BotErrorKind::Transport
        };
        // It may hold the address, which is the operator's affair.
        let error = error.without_url();
        let mut detail = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            detail.push_str(": ");
            detail.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::new(kind, "Gemini cannot be reached.", detail)
    }

    pub(super) fn unintelligible(detail: &str) -> Self {
        Self::new(
            BotErrorKind::Protocol,
            "Gemini answered something unintelligible.",
            detail,
        )
    }

    pub(super) fn truncated() -> Self {
        Self::new(
            BotErrorKind::Truncated,
            "Gemini's answer broke off.",
            "the stream ended without a reason",
        )
    }

    pub(super) fn blocked_prompt(reason: &str) -> Self {
        Self::new(
            BotErrorKind::BlockedPrompt,
            "Gemini does not answer this: its filters refuse the question.",
            reason,
        )
    }

    pub(super) fn blocked_output(reason: &str) -> Self {
        Self::new(
            BotErrorKind::BlockedOutput,
            "Gemini's filters have withheld the rest of this answer.",
            reason,
        )
    }

    /// The turn is over, and the engine has said so.
    pub(super) fn over(error: BotError) -> Self {
        Self { error, passes: false }
    }

    /// An answer that is none: its status, and as much of its body as was read.
    pub(super) fn of_answer(status: u16, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let error = json.as_ref().and_then(error_in);
        match error {
            Some(error) => Self::of(status, error),
            None => Self::of(status, &Value::Null),
        }
    }

    /// An error within a stream that had begun.
    pub(super) fn of_error(error: &Value) -> Self {
        let status = number(&error["code"]).unwrap_or(500);
        Self::of(status, error)
    }

    /// The error in this, if there is one.
    pub(super) fn find(json: &Value) -> Option<Self> {
        error_in(json).map(Self::of_error)
    }

    fn of(status: u16, error: &Value) -> Self {
        use BotErrorKind as K;
        let message = error["message"].as_str().unwrap_or("");
        let detail = format!("{status} {} {message}", error["status"].as_str().unwrap_or(""));
        let reasons = || details(error).filter_map(|detail| detail["reason"].as_str());
        if reasons().any(|reason| reason == "API_KEY_INVALID") || matches!(status, 401 | 403) {
            return Self::new(K::Auth, "Gemini does not accept this server's key.", detail);
        }
        match status {
            400 if message.contains("token count") => {
                Self::new(K::ContextTooLong, "This is more than Gemini can read at once.", detail)
            }
            404 => {
                let words = "Gemini does not know this model; set COOP_GEMINI_MODEL to one that exists.";
                Self::new(K::InvalidRequest, words, detail)
            }
            429 => Self::too_much(error, detail),
            408 | 504 => Self::new(K::Timeout, "Gemini takes too long to answer.", detail),
            503 => Self::new(K::Unavailable, "Gemini is overloaded. Try again in a moment.", detail),
            500 | 502 | 505..600 => Self::new(K::Server, "Gemini failed. Try again in a moment.", detail),
            300..400 => Self::new(K::Protocol, "Gemini is not where this server looks for it.", detail),
            _ => Self::new(K::InvalidRequest, "Gemini does not accept the request.", detail),
        }
    }

    fn too_much(error: &Value, detail: String) -> Self {
        let delay = details(error).find_map(|detail| seconds(detail["retryDelay"].as_str()?));
        let daily = details(error).any(|detail| {
            let violations = detail["violations"].as_array().into_iter().flatten();
            let mut ids = violations.filter_map(|violation| violation["quotaId"].as_str());
            ids.any(|id| id.contains("PerDay"))
        });
        let mut failure = if daily || delay.is_some_and(|delay| delay > LONGEST_WAIT) {
            let words = "This server's quota for Gemini is used up for now.";
            Self::new(BotErrorKind::QuotaExhausted, words, detail)
        } else {
            let words = "Gemini is asked too much at the moment. Try again in a minute.";
            Self::new(BotErrorKind::RateLimited, words, detail)
        };
        failure.error.retry_after = delay;
        failure
    }

    pub(super) fn may_pass(&self) -> bool {
        self.passes
    }

    pub(super) fn is_late(&self) -> bool {
        self.error.kind == BotErrorKind::Timeout
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.error.retry_after
    }

    /// What the turn fails with, without the key.
    pub(super) fn into_error(self, key: &str) -> BotError {
        let mut error = self.error;
        let key = key.trim();
        let clean = |text: &str| match key.is_empty() {
            true => text.to_owned(),
            false => text.replace(key, "[key]"),
        };
        error.detail = error
            .detail
            .map(|detail| clean(&detail).chars().take(DETAIL_CHARS).collect());
        error
    }
}

/// The error of an answer, which may stand in a list of one.
fn error_in(json: &Value) -> Option<&Value> {
    let json = json.as_array().map_or(Some(json), |list| list.first())?;
    json.get("error").filter(|error| error.is_object())
}

fn details(error: &Value) -> impl Iterator<Item = &Value> {
    error["details"].as_array().into_iter().flatten()
}

fn number(json: &Value) -> Option<u16> {
    let number = json.as_u64().or_else(|| json.as_str()?.trim().parse().ok())?;
    u16::try_from(number).ok()
}

/// `36.429760048s`
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_none() {
        use BotErrorKind as K;
        let key = r#"{"error":{"code":400,"message":"API key not valid: sesame","status":"INVALID_ARGUMENT","details":[{"@type":"x","reason":"API_KEY_INVALID"}]}}"#;
        let soon = r#"[{"error":{"code":"429","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"7.25s"}]}}]"#;
        let later = soon.replace("7.25s", "3600s");
        let daily = r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]},{"retryDelay":"7s"}]}}"#;
        let long =
            r#"{"error":{"message":"The input token count (9) exceeds the maximum number of tokens allowed (8)."}}"#;
        for (status, body, kind, passes) in [
            (400, key, K::Auth, false),
            (401, "", K::Auth, false),
            (403, "<html>", K::Auth, false),
            (400, "", K::InvalidRequest, false),
            (400, long, K::ContextTooLong, false),
            (404, "{}", K::InvalidRequest, false),
            (413, "[]", K::InvalidRequest, false),
            (429, "", K::RateLimited, true),
            (429, soon, K::RateLimited, true),
            (429, &later, K::QuotaExhausted, false),
            (429, daily, K::QuotaExhausted, false),
            (500, "", K::Server, true),
            (502, "<html>bad gateway", K::Server, true),
            (503, "", K::Unavailable, true),
            (504, "", K::Timeout, true),
            (408, "", K::Timeout, true),
            (301, "", K::Protocol, false),
        ] {
            let failure = Failure::of_answer(status, body.as_bytes());
            assert_eq!(
                (failure.error.kind, failure.may_pass()),
                (kind, passes),
                "{status} {body}"
            );
            let error = failure.into_error("sesame");
            assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        }
        let failure = Failure::of_answer(429, soon.as_bytes());
        assert_eq!(failure.retry_after(), Some(Duration::from_millis(7_250)));
        let in_stream: Value = serde_json::from_str(soon).unwrap();
        assert_eq!(Failure::find(&in_stream).unwrap().error.kind, K::RateLimited);
        for strange in [
            r#"{"error":{"code":-1}}"#,
            r#"{"error":{"details":7}}"#,
            r#"{"error":{"details":[{"retryDelay":"NaNs"}]}}"#,
        ] {
            Failure::of_answer(429, strange.as_bytes());
        }
    }
}
