//! What is sent: a turn's context as Gemini wants it. Nothing that was not configured is sent, because models refuse
//! settings they do not know.

use super::GeminiSettings;
use coop_core::{Side, Turn};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<Generation<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    safety_settings: Vec<Safety<'a>>,
    store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_token: Option<&'a str>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Generation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<Thinking<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Thinking<'a> {
    thinking_level: &'a str,
}

#[derive(Serialize)]
struct Safety<'a> {
    category: &'a str,
    threshold: &'a str,
}

/// The JSON of a request, or of the one that continues its answer.
pub(super) fn body(turn: &Turn, settings: &GeminiSettings, continuation: Option<&str>) -> String {
    let mut contents: Vec<Content<'_>> = Vec::new();
    let said = turn.context.turns.iter();
    for (side, text) in said.flat_map(|turn| turn.parts.iter().map(|part| (turn.side, part.as_str()))) {
        add(&mut contents, side, text);
    }
    // The last word must be the people's. A turn without a context, as tests make them, has its prompt.
    if contents
        .last()
        .is_none_or(|content| content.role != Some(role(Side::User)))
    {
        let prompt = if turn.prompt.trim().is_empty() {
            "."
        } else {
            &turn.prompt
        };
        add(&mut contents, Side::User, prompt);
    }
    let system = turn.context.system.trim();
    let generation = Generation {
        max_output_tokens: settings.max_output_tokens,
        thinking_config: settings
            .thinking_level
            .as_deref()
            .map(|thinking_level| Thinking { thinking_level }),
    };
    let configured = generation.max_output_tokens.is_some() || generation.thinking_config.is_some();
    let safety = settings.safety.iter();
    let body = Body {
        contents,
        system_instruction: (!system.is_empty()).then(|| Content {
            role: None,
            parts: vec![Part { text: system }],
        }),
        generation_config: configured.then_some(generation),
        safety_settings: safety
            .map(|(category, threshold)| Safety { category, threshold })
            .collect(),
        store: settings.store,
        continuation_token: continuation,
    };
    // Texts and numbers: this cannot fail.
    serde_json::to_string(&body).unwrap_or_default()
}

fn role(side: Side) -> &'static str {
    match side {
        Side::User => "user",
        Side::Model => "model",
    }
}

/// Adds a part, to the last content if that is of the same side. An empty part is no valid history.
fn add<'a>(contents: &mut Vec<Content<'a>>, side: Side, text: &'a str) {
    if text.is_empty() {
        return;
    }
    match contents.last_mut() {
        Some(last) if last.role == Some(role(side)) => last.parts.push(Part { text }),
        _ => contents.push(Content {
            role: Some(role(side)),
            parts: vec![Part { text }],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_core::ContextTurn;

    fn turn(said: &[(Side, &[&str])]) -> Turn {
        let mut turn = Turn::of_prompt("gemini", "summarise?");
        turn.context.turns = said
            .iter()
            .map(|(side, parts)| ContextTurn {
                side: *side,
                parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            })
            .collect();
        turn
    }

    #[test]
    fn requests() {
        let plain = GeminiSettings::new("key");
        let full = GeminiSettings {
            max_output_tokens: Some(8192),
            thinking_level: Some("LOW".to_owned()),
            safety: vec![("HARM_CATEGORY_HARASSMENT".to_owned(), "BLOCK_ONLY_HIGH".to_owned())],
            store: true,
            ..plain.clone()
        };
        let conversation = turn(&[
            (Side::User, &["[ana] hi", "[bo] hello"]),
            (Side::Model, &["Hello both."]),
            (Side::User, &["[ana] summarise?"]),
        ]);
        let mut instructed = conversation.clone();
        instructed.context.system = "Be brief.".to_owned();
        let said = r#"{"role":"user","parts":[{"text":"[ana] hi"},{"text":"[bo] hello"}]},{"role":"model","parts":[{"text":"Hello both."}]},{"role":"user","parts":[{"text":"[ana] summarise?"}]}"#;
        let alone = r#"{"contents":[{"role":"user","parts":[{"text":"summarise?"}]}],"store":false}"#;
        let mut blank = Turn::of_prompt("gemini", " ");
        blank.context.system = " ".to_owned();
        for (turn, settings, token, expected) in [
            (&conversation, &plain, None, format!(r#"{{"contents":[{said}],"store":false}}"#)),
            (
                &instructed,
                &full,
                Some("more"),
                format!(
                    r#"{{"contents":[{said}],"systemInstruction":{{"parts":[{{"text":"Be brief."}}]}},"generationConfig":{{"maxOutputTokens":8192,"thinkingConfig":{{"thinkingLevel":"LOW"}}}},"safetySettings":[{{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_ONLY_HIGH"}}],"store":true,"continuationToken":"more"}}"#
                ),
            ),
            (&turn(&[]), &plain, None, alone.to_owned()),
            // Empty parts go, and what they leave is one side's.
            (
                &turn(&[(Side::User, &["a", ""]), (Side::Model, &[""]), (Side::User, &["b"])]),
                &plain,
                None,
                r#"{"contents":[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}],"store":false}"#.to_owned(),
            ),
            // The people have the last word.
            (
                &turn(&[(Side::User, &["a"]), (Side::Model, &["b"])]),
                &plain,
                None,
                r#"{"contents":[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]},{"role":"user","parts":[{"text":"summarise?"}]}],"store":false}"#.to_owned(),
            ),
            (&blank, &plain, None, alone.replace("summarise?", ".")),
        ] {
            assert_eq!(body(turn, settings, token), expected);
        }
    }
}
