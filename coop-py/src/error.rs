//! Errors of the engine as exceptions of the package, which decides their classes.

use coop_core::{BotErrorKind, Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::io;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// As the engine says.
    Engine(Error),
    /// As the system says; Python has its own exceptions for that.
    System(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Failure {
    /// The exception.
    pub(crate) fn into_err(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Engine(error) => raised(py, &error),
            Self::System(error) => match error.raw_os_error() {
                // Made by Python from the number, so that it has its `errno`, and the class that goes with that.
                Some(number) => pyo3::exceptions::PyOSError::new_err((number, error.to_string())),
                None => error.into(),
            },
        }
    }
}

/// The exception for an error.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|broken| broken)
}

/// The codes of all kinds of errors, for which there must be an exception each.
#[pyfunction]
pub(crate) fn error_codes() -> Vec<&'static str> {
    ErrorKind::ALL.into_iter().map(code).collect()
}

/// The codes of all that can go wrong with a bot.
#[pyfunction]
pub(crate) fn bot_error_codes() -> Vec<&'static str> {
    BotErrorKind::ALL.into_iter().map(BotErrorKind::code).collect()
}

fn code(kind: ErrorKind) -> &'static str {
    match kind {
        // On the wire a closed engine is one that is away. Here it is the caller's own.
        ErrorKind::Closed => "closed",
        kind => kind.code(),
    }
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    static OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let of = OF.import(py, "gemini_coop._errors", "of")?;
    let after = error.retry_after().map(|after| after.as_secs_f64());
    let made = of.call1((code(error.kind()), error.words(), error.is_retryable(), after))?;
    Ok(PyErr::from_value(made))
}
