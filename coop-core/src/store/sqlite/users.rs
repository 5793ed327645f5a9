//! Writing accounts.

use super::fault::{commit_fault, fault};
use crate::error::{Error, Result};
use crate::id::UserId;
use crate::model::Account;
use crate::store::NewAccount;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};

pub(super) const CREATE_USER: &str = "INSERT INTO users (username, email, email_key, password_hash, created_at) VALUES \
                                      ($1, $2, $3, $4, $5) RETURNING id";
pub(super) const SET_PASSWORD: &str = "UPDATE users SET password_hash = $2 WHERE id = $1";
pub(super) const DELETE_USER: &str = "DELETE FROM users WHERE id = $1";

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

pub(super) async fn set_password(connection: &mut SqliteConnection, user: UserId, hash: String) -> Result<()> {
    let query = sqlx::query(SET_PASSWORD).bind(user.0).bind(hash);
    somebody(query.execute(connection).await)
}

pub(super) async fn delete(connection: &mut SqliteConnection, user: UserId) -> Result<()> {
    somebody(sqlx::query(DELETE_USER).bind(user.0).execute(connection).await)
}

fn somebody(done: sqlx::Result<SqliteQueryResult>) -> Result<()> {
    match done.map_err(commit_fault)?.rows_affected() {
        0 => Err(Error::not_found("no such user")),
        _ => Ok(()),
    }
}
