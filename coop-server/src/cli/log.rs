//! Where the log goes and how it looks. Everything is on the standard error.

use super::Fault;
use crate::config::{Config, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log.
///
/// # Errors
/// For a filter that is none.
pub(super) fn begin(config: &Config) -> Result<Look, Fault> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| Fault::Usage(format!("--log: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let look = match config.log_format {
        LogFormat::Auto if terminal => Look::Text,
        LogFormat::Text => Look::Text,
        LogFormat::Auto | LogFormat::Json => Look::Json,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    match look {
        Look::Text => builder.init(),
        Look::Json => builder.json().init(),
    }
    Ok(look)
}
