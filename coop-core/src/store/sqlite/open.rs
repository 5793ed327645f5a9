//! Opening a database file: whose it is, whether it is ours, and bringing its schema up to date.

use super::facts::next_ids;
use super::fault::{migration_fault, newer_schema, not_a_database, open_fault};
use super::write::MAKE_USUAL_ONE;
use super::{Durability, SqliteOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::store::SchemaStep;
use crate::store::plan::NextIds;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Pool, Sqlite};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// What the first migration writes into the file's header: "Coop".
const APPLICATION_ID: i64 = 0x436f_6f70;

/// Says in clear words what SQLite would only call "unable to open".
pub(super) fn check_path(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::bad_request("the database path is a folder, not a file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Error::not_found("the folder of the database does not exist"));
    }
    Ok(())
}

/// Takes the file for this engine alone, until the returned handle is dropped or the process ends.
pub(super) fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(PathBuf::from(name))
        .map_err(|error| Error::unavailable("the database's lock file cannot be written").with_source(error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::InUse, "another engine uses this database")),
        Err(TryLockError::Error(error)) => {
            Err(Error::unavailable("the database's lock file cannot be locked").with_source(error))
        }
    }
}

/// How every connection to a file is opened.
pub(super) fn connecting(path: &Path, options: &SqliteOptions) -> SqliteConnectOptions {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .synchronous(match options.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .disable_statement_logging();
    match options.max_pages {
        Some(pages) => connect.pragma("max_page_count", pages.to_string()),
        None => connect,
    }
}

/// Opens the connection that writes, and makes the file ours and current.
pub(super) async fn open_writer(connect: &SqliteConnectOptions) -> Result<(SqliteConnection, NextIds)> {
    let mut connection = connect.connect().await.map_err(open_fault)?;
    check_owner(&mut connection).await?;
    // Only now: it is written into the file, and somebody else's file is not ours to change. Then a transaction for
    // nothing, because a file that cannot be written to is better found now than at the first message.
    run(&mut connection, "PRAGMA journal_mode = WAL").await?;
    migrate(&mut connection).await?;
    run(&mut connection, "BEGIN IMMEDIATE").await?;
    run(&mut connection, "ROLLBACK").await?;
    prepare_writing(&mut connection).await?;
    let ids = next_ids(&mut connection).await?;
    Ok((connection, ids))
}

async fn prepare_writing(connection: &mut SqliteConnection) -> Result<()> {
    for statement in MAKE_USUAL_ONE {
        run(connection, statement).await?;
    }
    Ok(())
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) -> Result<()> {
    let done = sqlx::query(statement).execute(connection).await;
    done.map(drop).map_err(open_fault)
}

async fn migrate(connection: &mut SqliteConnection) -> Result<()> {
    // `run` would do, but its future cannot be proved `Send`, and then nobody could open a store in a spawned task.
    MIGRATOR
        .run_direct(None, connection, false)
        .await
        .map_err(migration_fault)
}

/// What a file has of the schema.
pub(super) async fn schema(path: &Path) -> Result<Vec<SchemaStep>> {
    let applied = if path.exists() {
        applied(path).await?
    } else {
        Vec::new()
    };
    SchemaStep::all(&MIGRATOR, &applied).ok_or_else(newer_schema)
}

async fn applied(path: &Path) -> Result<Vec<i64>> {
    let connect = connecting(path, &SqliteOptions::default())
        .create_if_missing(false)
        .pragma("query_only", "ON");
    let mut connection = connect.connect().await.map_err(open_fault)?;
    check_owner(&mut connection).await?;
    let kept = "SELECT COUNT(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let kept: i64 = sqlx::query_scalar(kept)
        .fetch_one(&mut connection)
        .await
        .map_err(open_fault)?;
    let versions = match kept {
        0 => Vec::new(),
        _ => {
            let versions = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version");
            versions.fetch_all(&mut connection).await.map_err(open_fault)?
        }
    };
    connection.close().await.map_err(open_fault)?;
    Ok(versions)
}

/// Connections for reading.
pub(super) fn readers(connect: SqliteConnectOptions, options: &SqliteOptions) -> Pool<Sqlite> {
    pool(options.read_connections, options.pool_wait).connect_lazy_with(connect.pragma("query_only", "ON"))
}

fn pool(count: u32, wait: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(count.max(1))
        .acquire_timeout(wait)
        // A file does not go away like a server does: asking first would cost a hop each time.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// A private database that lives as long as its only connection.
pub(super) async fn open_memory() -> Result<(Pool<Sqlite>, NextIds)> {
    let connect = SqliteConnectOptions::new()
        .foreign_keys(true)
        .disable_statement_logging();
    let pool = pool(1, SqliteOptions::default().pool_wait)
        .connect_with(connect)
        .await
        .map_err(open_fault)?;
    let mut connection = pool.acquire().await.map_err(open_fault)?;
    migrate(&mut connection).await?;
    prepare_writing(&mut connection).await?;
    let ids = next_ids(&mut connection).await?;
    drop(connection);
    Ok((pool, ids))
}

/// Refuses a file that holds something and does not bear our mark.
async fn check_owner(connection: &mut SqliteConnection) -> Result<()> {
    let found: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT COUNT(*) FROM sqlite_schema)",
    )
    .fetch_one(connection)
    .await
    .map_err(open_fault)?;
    match found {
        (APPLICATION_ID, _) | (0, 0) => Ok(()),
        _ => Err(not_a_database()),
    }
}
