//! What is streamed back: events in, text and an end out.

use super::failure::Failure;
use coop_core::{Finish, FinishReason, Usage};
use serde::Deserialize;
use serde_json::Value;

/// One event. Every field may be missing or null, and more may come.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Counts>,
    model_version: Option<String>,
    response_id: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    index: Option<u32>,
    content: Option<Content>,
    finish_reason: Option<String>,
    continuation_token: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    thought: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    prompt_token_count: Option<u32>,
    candidates_token_count: Option<u32>,
    thoughts_token_count: Option<u32>,
    cached_content_token_count: Option<u32>,
    total_token_count: Option<u32>,
}

/// How a stream ended well.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    Finished(Finish),
    /// Another request with this token brings the rest.
    Continues(String),
}

/// An answer that is being read.
#[derive(Default)]
pub(super) struct Answer {
    /// Not taken yet.
    text: String,
    /// What earlier requests of the same answer have used.
    before: Usage,
    used: Option<Usage>,
    /// Whether that was told.
    told: bool,
    /// The last one wins: some say it with every event.
    reason: Option<String>,
    token: Option<String>,
    blocked: Option<String>,
    model: Option<String>,
    id: Option<String>,
    over: bool,
}

impl Answer {
    pub(super) fn after(before: Usage) -> Self {
        Self {
            before,
            ..Self::default()
        }
    }

    /// Takes the data of an event.
    pub(super) fn take(&mut self, data: &str) -> Result<(), Failure> {
        let data = data.trim();
        if data == "[DONE]" {
            self.over = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let chunk = parse::<Chunk>(data).ok_or_else(|| Failure::unintelligible("an event that is not an answer"))?;
        if let Some(error) = chunk.error {
            return Err(Failure::of_error(&error));
        }
        self.model = chunk.model_version.or(self.model.take());
        self.id = chunk.response_id.or(self.id.take());
        if let Some(counts) = chunk.usage_metadata {
            self.used = Some(added(self.before, counts));
            self.told = false;
        }
        self.blocked = chunk
            .prompt_feedback
            .and_then(|feedback| feedback.block_reason)
            .or(self.blocked.take());
        let first = chunk
            .candidates
            .into_iter()
            .flatten()
            .find(|one| one.index.unwrap_or(0) == 0);
        if let Some(candidate) = first {
            let parts = candidate
                .content
                .and_then(|content| content.parts)
                .into_iter()
                .flatten();
            for part in parts.filter(|part| part.thought != Some(true)) {
                self.text.push_str(part.text.as_deref().unwrap_or(""));
            }
            self.reason = candidate.finish_reason.or(self.reason.take());
            self.token = candidate.continuation_token.or(self.token.take());
        }
        Ok(())
    }

    /// Takes lines that are no event: an error in bare JSON, or something that is no answer at all.
    pub(super) fn take_stray(&mut self, text: &str) -> Result<(), Failure> {
        let json = parse::<Value>(text);
        match json.as_ref().and_then(Failure::find) {
            Some(failure) => Err(failure),
            None => Err(Failure::unintelligible("lines that are no event")),
        }
    }

    /// The text that has come since it was last asked for.
    pub(super) fn text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The tokens used so far, if that has changed.
    pub(super) fn usage(&mut self) -> Option<Usage> {
        self.used.filter(|_| !std::mem::replace(&mut self.told, true))
    }

    /// Whether nothing more will come, though the connection is open.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// How it ended, with the tokens used, now that nothing more comes.
    pub(super) fn end(self) -> Result<(End, Usage), Failure> {
        let usage = self.used.unwrap_or(self.before);
        if let Some(reason) = self.blocked {
            return Err(Failure::blocked_prompt(&reason));
        }
        let reason = match self.reason.as_deref() {
            None => return Err(Failure::truncated()),
            Some("STOP") => FinishReason::Stop,
            Some("MAX_TOKENS") => FinishReason::Length,
            Some("CONTINUATION") => {
                let token = self
                    .token
                    .ok_or_else(|| Failure::unintelligible("a continuation without its token"))?;
                return Ok((End::Continues(token), usage));
            }
            Some(
                reason @ ("SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII"
                | "ESCALATION" | "IMAGE_SAFETY"),
            ) => return Err(Failure::blocked_output(reason)),
            Some(other) => FinishReason::Other(other.to_owned()),
        };
        let mut finish = Finish::stop();
        finish.reason = reason;
        finish.model = self.model;
        finish.response_id = self.id;
        Ok((End::Finished(finish), usage))
    }
}

/// Running totals of one request, added to what was used before it.
fn added(before: Usage, counts: Counts) -> Usage {
    let add = |before: Option<u32>, now: Option<u32>| match (before, now) {
        (Some(before), Some(now)) => Some(before.saturating_add(now)),
        (before, now) => now.or(before),
    };
    Usage {
        input: add(before.input, counts.prompt_token_count),
        output: add(before.output, counts.candidates_token_count),
        thinking: add(before.thinking, counts.thoughts_token_count),
        cached: add(before.cached, counts.cached_content_token_count),
        total: add(before.total, counts.total_token_count),
        estimated: false,
    }
}

/// JSON as providers write it: half of a surrogate pair, which JSON can spell and no text can hold, reads as U+FFFD.
fn parse<T: for<'de> Deserialize<'de>>(json: &str) -> Option<T> {
    serde_json::from_str(json)
        .ok()
        .or_else(|| serde_json::from_str(&without_lone_surrogates(json)?).ok())
}

/// Nothing, if there are none.
fn without_lone_surrogates(json: &str) -> Option<String> {
    let escape = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut from, mut at, mut found) = (String::new(), 0, 0, false);
    while let Some(next) = json[at..].find('\\').map(|next| at + next) {
        at = match escape(next) {
            Some(0xd800..=0xdbff) if matches!(escape(next + 6), Some(0xdc00..=0xdfff)) => next + 12,
            Some(0xd800..=0xdfff) => {
                out.push_str(&json[from..next]);
                out.push_str("\\ufffd");
                found = true;
                from = next + 6;
                from
            }
            Some(_) => next + 6,
            // Another escape: what is escaped is one character.
            None => next + 1 + json[next + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    out.push_str(&json[from..]);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[&str]) -> (String, Result<(End, Usage), Failure>) {
        let mut answer = Answer::default();
        for event in events {
            if let Err(failure) = answer.take(event) {
                return (answer.text(), Err(failure));
            }
        }
        (answer.text(), answer.end())
    }

    fn text(text: &str) -> String {
        format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}]}}"#)
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_kept() {
        for (json, expected) in [
            (r"\ud83d", "\u{fffd}"),
            (r"\ude42", "\u{fffd}"),
            (r"a\ud83d\ude42b", "a🙂b"),
            (r"\ud83d\ud83d\ude42", "\u{fffd}🙂"),
            (r"\\ud83d \ud83dé", "\\ud83d \u{fffd}é"),
            (r"\n\ud83d\n", "\n\u{fffd}\n"),
        ] {
            assert_eq!(read(&[&text(json)]).0, expected, "{json}");
        }
    }

    #[test]
    fn the_last_reason_and_the_last_count_win() {
        let (said, end) = read(&[
            r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"text":"hm","thought":true},{"inlineData":{}}]},"finishReason":"STOP"},{"index":1,"content":{"parts":[{"text":"other"}]}}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":4}}"#,
            r#"{"candidates":[{"content":null,"finishReason":"MAX_TOKENS"}],"modelVersion":"m","responseId":"r","promptFeedback":null}"#,
            r#"{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":7,"totalTokenCount":12}}"#,
        ]);
        assert_eq!(said, "a");
        let (end, usage) = end.unwrap();
        let mut finish = Finish::length();
        finish.model = Some("m".to_owned());
        finish.response_id = Some("r".to_owned());
        assert_eq!(end, End::Finished(finish));
        assert_eq!(
            (usage.input, usage.output, usage.thinking, usage.total),
            (Some(3), Some(2), Some(7), Some(12))
        );
    }
}
