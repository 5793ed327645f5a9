//! SQLite's failures in our words. What is shown to people names no path and no statement; those are in the source.

use crate::error::Error;
use crate::store::sql::users::unwritten;
use sqlx::migrate::MigrateError;

/// SQLite's primary result codes, as far as they tell people apart what to do.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

/// The primary result code, without what SQLite adds to it.
fn code_of(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// A failure while running.
pub(super) fn fault(error: sqlx::Error) -> Error {
    if matches!(error, sqlx::Error::PoolClosed) {
        return Error::closed();
    }
    if let sqlx::Error::PoolTimedOut = error {
        return Error::unavailable("the database is too busy to answer").with_source(error);
    }
    let words = match code_of(&error) {
        Some(code::BUSY | code::LOCKED) => "the database is locked by another program",
        Some(code::READONLY) => "the database cannot be written to",
        Some(code::FULL) => "the disk or the database is full",
        Some(code::IOERR | code::CANTOPEN) => "the database's disk does not answer",
        Some(code::CORRUPT | code::NOTADB) => "the database is damaged",
        _ => return Error::internal("the database refused a statement").with_source(error),
    };
    Error::unavailable(words).with_source(error)
}

/// A failure of a commit: whatever it is, nothing was written or nobody knows.
pub(super) fn commit_fault(error: sqlx::Error) -> Error {
    unwritten(fault(error))
}

/// A failure while opening.
pub(super) fn open_fault(error: sqlx::Error) -> Error {
    match code_of(&error) {
        Some(code::NOTADB | code::CORRUPT) => not_a_database().with_source(error),
        Some(code::CANTOPEN) => Error::unavailable("the database file cannot be opened").with_source(error),
        _ => fault(error),
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
    Error::new(crate::ErrorKind::NewerSchema, words)
}

pub(super) fn not_a_database() -> Error {
    Error::new(crate::ErrorKind::NotADatabase, "this file is not a database of ours")
}
