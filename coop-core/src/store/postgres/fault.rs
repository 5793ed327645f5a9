//! PostgreSQL's failures in our words. What is shown to people names no address and no statement; those are in the
//! source.

use crate::error::{Error, ErrorKind};
use sqlx::migrate::MigrateError;

/// The code that PostgreSQL gives with an error: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn state_of(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the connection is no good any more, and another may be.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // The server is ending, or somebody ended this session.
        error => state_of(error).is_some_and(|state| state.starts_with("57P") || state.starts_with("08")),
    }
}

/// A failure while running.
pub(super) fn fault(error: sqlx::Error) -> Error {
    let words = match &error {
        sqlx::Error::PoolClosed => return Error::closed(),
        sqlx::Error::PoolTimedOut => "the database is too busy to answer",
        sqlx::Error::Tls(_) => "the connection to the database could not be secured",
        lost if is_lost(lost) => "the database does not answer",
        other => match state_of(other).as_deref() {
            Some("53100" | "53200") => "the database is full",
            Some(state) if state.starts_with("53") => "the database is too busy to answer",
            // A standby, or a primary that became one.
            Some("25006") => "the database cannot be written to",
            // Waited too long for a lock, or was chosen to end a deadlock.
            Some("55P03" | "40P01" | "40001" | "57014") => "the database is too busy to answer",
            Some(state) if state.starts_with("58") || state.starts_with("XX") => "the database is damaged",
            _ => return Error::internal("the database refused a statement").with_source(error),
        },
    };
    Error::unavailable(words).with_source(error)
}

/// A failure while opening.
pub(super) fn open_fault(error: sqlx::Error) -> Error {
    match state_of(&error).as_deref() {
        // There is no such database, or it lets this user in not at all or to too little.
        Some("3D000") => Error::not_found("there is no such database").with_source(error),
        Some("28000" | "28P01" | "42501") => {
            Error::new(ErrorKind::Forbidden, "the database does not let this user in").with_source(error)
        }
        // Somebody else's tables are in the way.
        Some("42P07" | "42710" | "42723") => {
            let words = "this database holds the tables of another program";
            Error::new(ErrorKind::NotADatabase, words).with_source(error)
        }
        _ => match error {
            sqlx::Error::Configuration(_) => {
                Error::bad_request("this is not the address of a PostgreSQL database").with_source(error)
            }
            other => fault(other),
        },
    }
}

/// A failure of bringing the schema up to date.
pub(super) fn migration_fault(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) | MigrateError::VersionMismatch(_) => {
            newer_schema().with_source(error)
        }
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => open_fault(inner),
        other => Error::internal("the database's schema could not be brought up to date").with_source(other),
    }
}

pub(super) fn newer_schema() -> Error {
    let words = "the database was written by another, newer version of this program";
    Error::new(ErrorKind::NewerSchema, words)
}
