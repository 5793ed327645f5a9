//! Writing accounts.

use super::fault::{commit_fault, fault};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::model::Account;
use crate::store::NewAccount;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

pub(super) const CREATE_USER: &str = "INSERT INTO users (username, email, email_key, password_hash, created_at) VALUES \
                                      ($1, $2, $3, $4, $5) RETURNING id";
pub(super) const SET_PASSWORD: &str =
    "UPDATE users SET password_hash = $2, token_version = token_version + 1 WHERE id = $1";
pub(super) const REHASH: &str = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
pub(super) const END_TOKENS: &str = "UPDATE users SET token_version = token_version + 1 WHERE id = $1";
pub(super) const DELETE_USER: &str = "DELETE FROM users WHERE id = $1";

/// What can be changed of an account.
pub(super) enum Change {
    /// The password, and with it all tokens end.
    Password(String),
    /// The hash of the same password.
    Hash { from: String, to: String },
    /// The version of the tokens.
    Tokens,
    /// All of it.
    Deletion,
}

pub(super) async fn create(connection: &mut SqliteConnection, new: NewAccount) -> Result<Account> {
    let query = sqlx::query(CREATE_USER)
        .bind(new.name.clone())
        .bind(new.email.clone())
        .bind(new.email.as_deref().map(str::to_lowercase))
        .bind(new.password)
        .bind(new.now.0);
    let row = query.fetch_one(connection).await.map_err(taken)?;
    let id = UserId(row.try_get(0).map_err(fault)?);
    Ok(Account::new(id, new.name, new.email, new.now))
}

fn taken(error: sqlx::Error) -> Error {
    let database = error.as_database_error();
    let unique = database.filter(|error| error.is_unique_violation());
    match unique.map(|error| error.message().contains("email_key")) {
        Some(true) => Error::conflict("this e-mail address is taken"),
        Some(false) => Error::conflict("this name is taken"),
        None => commit_fault(error),
    }
}

pub(super) async fn change(connection: &mut SqliteConnection, user: UserId, change: Change) -> Result<()> {
    let query = match &change {
        Change::Password(hash) => sqlx::query(SET_PASSWORD).bind(user.0).bind(hash),
        Change::Hash { from, to } => sqlx::query(REHASH).bind(user.0).bind(from).bind(to),
        Change::Tokens => sqlx::query(END_TOKENS).bind(user.0),
        Change::Deletion => sqlx::query(DELETE_USER).bind(user.0),
    };
    let changed = query.execute(connection).await.map_err(commit_fault)?.rows_affected();
    match change {
        // Whoever has changed the password meanwhile knows it better.
        Change::Hash { .. } => Ok(()),
        _ if changed == 0 => Err(Error::not_found("no such user")),
        _ => Ok(()),
    }
}
