//! Bots that run in Rust, made from Python.

use crate::bot::seconds;
use coop_bots::mock::{Chunking, Failure};
use coop_bots::{GeminiBot, GeminiSettings, MockBot, ScribeBot};
use coop_core::Bot;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// A bot that runs in Rust.
#[pyclass(frozen)]
pub(crate) struct BuiltinBot(pub(crate) Arc<dyn Bot>);

/// Asks a Gemini model.
#[pyfunction]
#[pyo3(signature = (handle, key, *, model, base_url, system, max_output_tokens))]
pub(crate) fn gemini_bot(
    handle: String,
    key: String,
    model: Option<String>,
    base_url: Option<String>,
    system: String,
    max_output_tokens: Option<u32>,
) -> PyResult<BuiltinBot> {
    let mut settings = GeminiSettings::new(key);
    if let Some(model) = model {
        settings.model = model;
    }
    if let Some(url) = base_url {
        settings.base_url = url;
    }
    settings.max_output_tokens = max_output_tokens.or(settings.max_output_tokens);
    let bot = GeminiBot::new(handle, settings).map_err(PyValueError::new_err)?;
    let bot = bot.with_profile(|profile| profile.context.system = system);
    Ok(BuiltinBot(Arc::new(bot)))
}

/// Says prepared things.
#[pyfunction]
#[pyo3(signature = (handle, *, text, script, echo, words, first_delay, delay, hangs_after, breaks_off_after))]
#[allow(clippy::too_many_arguments, reason = "one for each thing that can be asked of it")]
pub(crate) fn mock_bot(
    handle: String,
    text: Option<String>,
    script: Option<Vec<(f64, String)>>,
    echo: bool,
    words: Option<usize>,
    first_delay: Option<f64>,
    delay: Option<f64>,
    hangs_after: Option<usize>,
    breaks_off_after: Option<usize>,
) -> PyResult<BuiltinBot> {
    let mut bot = MockBot::named(handle);
    if let Some(text) = text {
        bot = bot.text(text);
    }
    if let Some(script) = script {
        let pieces: PyResult<Vec<_>> = script
            .into_iter()
            .map(|(wait, piece)| Ok((seconds("a delay", wait)?, piece)))
            .collect();
        bot = bot.script(pieces?);
    }
    if echo {
        bot = bot.echo();
    }
    if let Some(words) = words {
        bot = bot.chunking(Chunking::Words(words));
    }
    if first_delay.is_some() || delay.is_some() {
        let first = seconds("first_delay", first_delay.unwrap_or(0.2))?;
        bot = bot.delays(first, seconds("delay", delay.unwrap_or(0.08))?);
    }
    if let Some(pieces) = hangs_after {
        bot = bot.fails(Failure::Hang, pieces);
    }
    if let Some(pieces) = breaks_off_after {
        bot = bot.fails(Failure::Truncate, pieces);
    }
    Ok(BuiltinBot(Arc::new(bot)))
}

/// Answers from the room's own history by rules.
#[pyfunction]
pub(crate) fn scribe_bot(handle: String) -> BuiltinBot {
    BuiltinBot(Arc::new(ScribeBot::named(handle)))
}
