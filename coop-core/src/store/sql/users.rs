//! Writing accounts, with SQL that more than one database understands.

use super::get;
use crate::error::{Error, ErrorKind, Result};
use crate::id::UserId;
use crate::model::Account;
use crate::store::NewAccount;
use sqlx::{ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Type};

pub(in crate::store) const CREATE_USER: &str = "INSERT INTO users (username, email, email_key, password_hash, created_at) VALUES \
                                      ($1, $2, $3, $4, $5) RETURNING id";
pub(in crate::store) const SET_PASSWORD: &str =
    "UPDATE users SET password_hash = $2, token_version = token_version + 1 WHERE id = $1 RETURNING id";
pub(in crate::store) const REHASH: &str =
    "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2 RETURNING id";
pub(in crate::store) const END_TOKENS: &str =
    "UPDATE users SET token_version = token_version + 1 WHERE id = $1 RETURNING id";
pub(in crate::store) const DELETE_USER: &str = "DELETE FROM users WHERE id = $1 RETURNING id";

/// What can be changed of an account.
pub(in crate::store) enum Change {
    /// The password, and with it all tokens end.
    Password(String),
    /// The hash of the same password.
    Hash { from: String, to: String },
    /// The version of the tokens.
    Tokens,
    /// All of it.
    Deletion,
}

/// Accounts of a database whose errors are told by `fault`.
pub(in crate::store) struct Accounts<'c, DB: Database> {
    pub(in crate::store) connection: &'c mut DB::Connection,
    pub(in crate::store) fault: fn(sqlx::Error) -> Error,
}

impl<DB> Accounts<'_, DB>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    usize: ColumnIndex<DB::Row>,
    i64: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB>,
    String: Type<DB> + for<'q> Encode<'q, DB>,
    Option<String>: Type<DB> + for<'q> Encode<'q, DB>,
{
    pub(in crate::store) async fn create(self, new: NewAccount) -> Result<Account> {
        let query = sqlx::query(CREATE_USER)
            .bind(new.name.clone())
            .bind(new.email.clone())
            .bind(new.email.as_deref().map(str::to_lowercase))
            .bind(new.password)
            .bind(new.now.0);
        let row = query.fetch_one(self.connection).await;
        let row = row.map_err(|error| taken(&error).unwrap_or_else(|| unwritten((self.fault)(error))))?;
        Ok(Account::new(
            UserId(get::<_, DB>(&row, 0)?),
            new.name,
            new.email,
            new.now,
        ))
    }

    pub(in crate::store) async fn change(self, user: UserId, change: Change) -> Result<()> {
        let renewal = matches!(change, Change::Hash { .. });
        let query = match change {
            Change::Password(hash) => sqlx::query(SET_PASSWORD).bind(user.0).bind(hash),
            Change::Hash { from, to } => sqlx::query(REHASH).bind(user.0).bind(from).bind(to),
            Change::Tokens => sqlx::query(END_TOKENS).bind(user.0),
            Change::Deletion => sqlx::query(DELETE_USER).bind(user.0),
        };
        let changed = query.fetch_optional(self.connection).await;
        match changed.map_err(|error| unwritten((self.fault)(error)))? {
            // Whoever has changed the password meanwhile knows it better.
            None if !renewal => Err(Error::not_found("no such user")),
            _ => Ok(()),
        }
    }
}

fn taken(error: &sqlx::Error) -> Option<Error> {
    let database = error.as_database_error()?;
    let words = match database.message().contains("email_key") {
        true => "this e-mail address is taken",
        false => "this name is taken",
    };
    database.is_unique_violation().then(|| Error::conflict(words))
}

/// A failure of a write: whatever it is, nothing was written or nobody knows.
pub(in crate::store) fn unwritten(told: Error) -> Error {
    match told.kind() {
        ErrorKind::Internal => Error::unavailable("the database could not write this").with_source(told),
        _ => told,
    }
}
