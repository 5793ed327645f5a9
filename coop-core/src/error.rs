//! The one error of this crate: named by meaning, with words for people and a stable code for programs.
//! It knows nothing of HTTP statuses, close codes or databases.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something malformed; asking again the same way cannot help.
    BadRequest,
    /// Who the caller is could not be established.
    Unauthorized,
    /// The caller is known and may not do this.
    Forbidden,
    /// There is no such thing, or the caller may not know that there is.
    NotFound,
    /// It contradicts something that exists: a name taken, a `client_id` used with another body.
    Conflict,
    /// Larger than the limit.
    TooLarge,
    /// Too many in too short a time.
    RateLimited,
    /// A token budget is spent.
    BudgetExceeded,
    /// A bounded queue is full.
    Busy,
    /// The store cannot answer now (locked, full, read-only, gone), or the outcome of a commit is in doubt.
    /// Resending with the same `client_id` is safe.
    Unavailable,
    /// This engine has been closed.
    Closed,
    /// Another engine owns this database.
    InUse,
    /// The database was written by a newer version of this program.
    NewerSchema,
    /// The file or address is not a database of ours.
    NotADatabase,
    /// A defect.
    Internal,
}

impl ErrorKind {
    /// All kinds, for tables that must have a line for each.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::BudgetExceeded,
        Self::Busy,
        Self::Unavailable,
        Self::Closed,
        Self::InUse,
        Self::NewerSchema,
        Self::NotADatabase,
        Self::Internal,
    ];

    /// The stable word for this kind, the same on every wire and in every language binding.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Busy => "busy",
            Self::Unavailable | Self::Closed => "unavailable",
            Self::InUse => "in_use",
            Self::NewerSchema => "newer_schema",
            Self::NotADatabase => "not_a_database",
            Self::Internal => "internal",
        }
    }
}

/// What every fallible call of this crate returns on failure.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    words: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind with words that may be shown to people.
    pub fn new(kind: ErrorKind, words: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            words: words.into(),
            retry_after: None,
            source: None,
        }
    }

    /// The same error, keeping what caused it for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, saying when another try makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable word for [`kind`](Self::kind).
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// Words that may be shown to people. They name no path, address or statement; those are in the source.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// When another try makes sense, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::RateLimited | ErrorKind::Busy | ErrorKind::Unavailable
        )
    }

    /// The same failure for one more caller of a shared attempt. The source stays with the first.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            kind: self.kind,
            words: self.words.clone(),
            retry_after: self.retry_after,
            source: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! shorthand {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(words: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorKind::$kind, words)
            })*
        }
    };
}

shorthand! {
    /// [`ErrorKind::BadRequest`]
    bad_request => BadRequest,
    /// [`ErrorKind::Forbidden`]
    forbidden => Forbidden,
    /// [`ErrorKind::NotFound`]
    not_found => NotFound,
    /// [`ErrorKind::Conflict`]
    conflict => Conflict,
    /// [`ErrorKind::TooLarge`]
    too_large => TooLarge,
    /// [`ErrorKind::Unavailable`]
    unavailable => Unavailable,
    /// [`ErrorKind::Internal`]
    internal => Internal,
}

impl Error {
    /// The error of every call on an engine that was closed.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the engine is closed")
    }

    pub(crate) fn no_such_turn() -> Self {
        Self::not_found("no such turn")
    }

    /// An unknown room and a room of others look alike: neither exists for who asks.
    #[must_use]
    pub fn no_such_room() -> Self {
        Self::not_found("no such room")
    }
}
