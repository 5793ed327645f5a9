//! Connecting, and bringing the schema up to date.

use super::PostgresOptions;
use super::fault::{migration_fault, newer_schema, open_fault};
use crate::error::{Error, Result};
use crate::store::SchemaStep;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Pool, Postgres};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// What an address begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The oldest server that has all that is asked of it here.
const OLDEST: i32 = 140_000;

const FOREIGN_XIDS: &str = "UPDATE events SET xid = 0 WHERE xid > pg_current_xact_id()::TEXT::BIGINT; DELETE FROM endings \
                            WHERE xid > pg_current_xact_id()::TEXT::BIGINT";

/// How every connection to this address is opened. What an address says of `options` is kept.
pub(super) fn connecting(url: &str) -> Result<PgConnectOptions> {
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::bad_request("this is not the address of a PostgreSQL database"));
    }
    let given = PgConnectOptions::from_str(url).map_err(open_fault)?;
    let named = given.get_application_name().is_some();
    let connect = given
        .options([
            // A session whose program has stalled must not keep a room locked.
            ("idle_in_transaction_session_timeout", "15s"),
            ("lock_timeout", "5s"),
            // The server notices that nobody waits for a statement any more.
            ("client_connection_check_interval", "2s"),
            // Deciding anew how to run each of a handful of statements costs more than running it.
            ("plan_cache_mode", "force_generic_plan"),
            // Nor may a way that was decided on while the tables were small be kept when they have grown.
            ("enable_seqscan", "off"),
            // Compiling a statement pays for itself only where it reads very much.
            ("jit", "off"),
        ])
        .disable_statement_logging();
    // No statement_timeout: it would also end the wait for a standby within COMMIT, which PostgreSQL then reports as done.
    Ok(if named {
        connect
    } else {
        connect.application_name("gemini-coop")
    })
}

/// Opens a connection, within `patience`.
pub(super) async fn connect(connect: &PgConnectOptions, patience: Duration) -> Result<PgConnection> {
    timeout(patience, connect.connect())
        .await
        .map_err(|_| Error::unavailable("the database does not answer"))?
        .map_err(open_fault)
}

/// Makes the database ours and current. Servers that start at once wait for each other here.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<()> {
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::INT")
        .fetch_one(&mut *connection)
        .await
        .map_err(open_fault)?;
    if version < OLDEST {
        return Err(Error::bad_request("this needs PostgreSQL 14 or newer"));
    }
    sqlx::raw_sql("SET lock_timeout = '60s'")
        .execute(&mut *connection)
        .await
        .map_err(open_fault)?;
    MIGRATOR
        .run_direct(None, connection, false)
        .await
        .map_err(migration_fault)?;
    // Transactions of another server, from whose dump this database was made, would look new for ever.
    sqlx::raw_sql(FOREIGN_XIDS)
        .execute(&mut *connection)
        .await
        .map_err(open_fault)?;
    let kept: bool = sqlx::query_scalar("SELECT current_setting('synchronous_commit') <> 'off'")
        .fetch_one(connection)
        .await
        .map_err(open_fault)?;
    if !kept {
        tracing::warn!("synchronous_commit is off in this database: what was acknowledged may not survive its crash");
    }
    Ok(())
}

/// What a database has of the schema. Changes nothing.
pub(super) async fn schema(mut connection: PgConnection) -> Result<Vec<SchemaStep>> {
    let kept: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut connection)
        .await
        .map_err(open_fault)?;
    let applied: Vec<i64> = match kept {
        false => Vec::new(),
        true => sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(&mut connection)
            .await
            .map_err(open_fault)?,
    };
    connection.close().await.map_err(open_fault)?;
    SchemaStep::all(&MIGRATOR, &applied).ok_or_else(newer_schema)
}

/// Connections for reading.
pub(super) fn readers(connect: PgConnectOptions, options: &PostgresOptions) -> Pool<Postgres> {
    PgPoolOptions::new()
        .max_connections(options.read_connections.max(1))
        .acquire_timeout(options.pool_wait.min(options.patience))
        // A connection that was lost is found out by its first statement, which is then tried on another.
        .test_before_acquire(false)
        .connect_lazy_with(connect)
}
