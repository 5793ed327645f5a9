//! A store by its address, for programs that let their operator choose: `sqlite:FILE`, `sqlite::memory:` or
//! `postgres://user:password@host/name`.

use super::{SchemaStep, Store};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "postgres")]
use super::postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
use super::sqlite::{SqliteOptions, SqliteStore};

/// Which store an address means.
enum Address<'a> {
    Memory,
    File(&'a str),
    Server(&'a str),
}

impl<'a> Address<'a> {
    fn of(text: &'a str) -> Result<Self> {
        match text.split_once(':') {
            Some(("sqlite", ":memory:")) => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::File(path.strip_prefix("//").unwrap_or(path))),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Server(text)),
            _ => Err(Error::bad_request(
                "a database is sqlite:FILE, sqlite::memory: or postgres://USER@HOST/NAME",
            )),
        }
    }
}

#[allow(dead_code, reason = "not with every choice of features")]
fn not_built_in<T>() -> Result<T> {
    Err(Error::bad_request(
        "this program was built without this kind of database",
    ))
}

/// Opens a store for an engine.
///
/// # Errors
/// As the store's own `open`; `BadRequest` for what is no address of a store that is built in.
pub async fn connect(address: &str) -> Result<Arc<dyn Store>> {
    connect_with(address, Duration::from_secs(3)).await
}

/// The same, with how long a read may wait for a free connection, and anything for a file that another program holds, instead
/// of 3 s.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(address: &str, pool_wait: Duration) -> Result<Arc<dyn Store>> {
    match Address::of(address)? {
        #[cfg(feature = "sqlite")]
        Address::Memory => Ok(Arc::new(SqliteStore::memory().await?)),
        #[cfg(feature = "sqlite")]
        Address::File(path) => {
            let options = SqliteOptions {
                pool_wait,
                busy_timeout: pool_wait,
                ..SqliteOptions::default()
            };
            Ok(Arc::new(SqliteStore::open_with(path, options).await?))
        }
        #[cfg(feature = "postgres")]
        Address::Server(url) => {
            let options = PostgresOptions {
                pool_wait,
                ..PostgresOptions::default()
            };
            Ok(Arc::new(PostgresStore::open_with(url, options).await?))
        }
        #[allow(unreachable_patterns, reason = "with every feature all are there")]
        _ => not_built_in(),
    }
}

/// Opens a store beside the engines that may use it, for command-line tools. Where one engine has it alone only users may
/// be changed this way: of a room's change that engine would not know.
///
/// # Errors
/// As [`connect`]; `BadRequest` for a store in memory, which is nobody else's.
pub async fn connect_tool(address: &str) -> Result<Arc<dyn Store>> {
    match Address::of(address)? {
        Address::Memory => in_memory(),
        #[cfg(feature = "sqlite")]
        Address::File(path) => Ok(Arc::new(SqliteStore::open_tool(path).await?)),
        #[cfg(feature = "postgres")]
        Address::Server(url) => Ok(Arc::new(PostgresStore::open_tool(url).await?)),
        #[allow(unreachable_patterns, reason = "with every feature all are there")]
        _ => not_built_in(),
    }
}

/// The steps of a store's schema, and which of them have been taken. Changes nothing.
///
/// # Errors
/// As [`connect_tool`].
pub async fn schema(address: &str) -> Result<Vec<SchemaStep>> {
    match Address::of(address)? {
        Address::Memory => in_memory(),
        #[cfg(feature = "sqlite")]
        Address::File(path) => SqliteStore::schema(path).await,
        #[cfg(feature = "postgres")]
        Address::Server(url) => PostgresStore::schema(url).await,
        #[allow(unreachable_patterns, reason = "with every feature all are there")]
        _ => not_built_in(),
    }
}

fn in_memory<T>() -> Result<T> {
    Err(Error::bad_request(
        "a database in memory is its server's alone; this needs one that stays",
    ))
}
