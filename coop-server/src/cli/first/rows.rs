//! The four tables of the first system, as values.
//!
//! What the columns hold is known, what they are called a little less: each has the names it may have. It reads, in one
//! transaction, and knows nothing of our rules.

use coop_core::Timestamp;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, Connection, Row};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the next row may take, which the database may have to sort all others for.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// An open database of the first system.
pub(super) struct Tables {
    connection: AnyConnection,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// Somebody, or the bot.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) email: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) created_at: Option<Timestamp>,
}

/// A room.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) owner: Option<i64>,
    pub(super) is_group: bool,
    /// Unless that is not kept.
    pub(super) is_ai_chat: Option<bool>,
    pub(super) created_at: Option<Timestamp>,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) chat: i64,
    pub(super) user: i64,
    pub(super) joined_at: Option<Timestamp>,
    pub(super) last_read_at: Option<Timestamp>,
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) chat: i64,
    pub(super) user: Option<i64>,
    pub(super) content: String,
    pub(super) is_bot: bool,
    pub(super) created_at: Option<Timestamp>,
}

/// What a column holds.
#[derive(Clone, Copy)]
enum Holds {
    Number,
    Text,
    Flag,
    Moment,
}

/// A column: what it may be called, what it holds, and whether the table is useless without it.
struct Column(&'static [&'static str], Holds, bool);

const USERS: &[Column] = &[
    Column(&["id"], Holds::Number, true),
    Column(&["username", "name"], Holds::Text, true),
    Column(&["email"], Holds::Text, false),
    Column(&["hashed_password", "password_hash", "password"], Holds::Text, true),
    Column(&["created_at"], Holds::Moment, false),
];
const CHATS: &[Column] = &[
    Column(&["id"], Holds::Number, true),
    Column(&["name"], Holds::Text, true),
    Column(&["owner_id", "created_by"], Holds::Number, true),
    Column(&["is_group"], Holds::Flag, false),
    Column(&["is_ai_chat"], Holds::Flag, false),
    Column(&["created_at"], Holds::Moment, false),
];
const PARTICIPANTS: &[Column] = &[
    Column(&["chat_id"], Holds::Number, true),
    Column(&["user_id"], Holds::Number, true),
    Column(&["joined_at", "created_at"], Holds::Moment, false),
    Column(&["last_read_at"], Holds::Moment, false),
];
const MESSAGES: &[Column] = &[
    Column(&["chat_id"], Holds::Number, true),
    Column(&["user_id"], Holds::Number, true),
    Column(&["content"], Holds::Text, true),
    Column(&["is_bot"], Holds::Flag, true),
    Column(&["created_at"], Holds::Moment, true),
    Column(&["id"], Holds::Number, true),
];

impl Tables {
    /// Opens them for reading.
    ///
    /// # Errors
    /// Words about why it cannot be.
    pub(super) async fn open(address: &str) -> Result<Self, String> {
        let (url, dialect) = url(address)?;
        sqlx::any::install_default_drivers();
        let options = AnyConnectOptions::from_str(&url).map_err(|error| error.to_string())?;
        let opened = timeout(CONNECT, async {
            let mut connection = AnyConnection::connect_with(&options).await?;
            // All that is read is of one moment.
            sqlx::raw_sql(dialect.begin()).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        });
        let connection = opened.await.map_err(|_| "it does not answer".to_owned())?;
        let connection = connection.map_err(|error| error.to_string())?;
        Ok(Self { connection, dialect })
    }

    pub(super) async fn users(&mut self) -> Result<Vec<User>, String> {
        let query = self.query("users", USERS, "1").await?;
        let rows = self.rows(query).map(|row| {
            let row = row?;
            Ok(User {
                id: get(&row, 0)?,
                name: get::<Option<_>>(&row, 1)?.unwrap_or_default(),
                email: get(&row, 2)?,
                hash: get(&row, 3)?,
                created_at: moment(&row, 4)?,
            })
        });
        rows.try_collect().await
    }

    pub(super) async fn chats(&mut self) -> Result<Vec<Chat>, String> {
        let query = self.query("chats", CHATS, "1").await?;
        let rows = self.rows(query).map(|row| {
            let row = row?;
            Ok(Chat {
                id: get(&row, 0)?,
                name: get(&row, 1)?,
                owner: get(&row, 2)?,
                is_group: get::<Option<i64>>(&row, 3)?.unwrap_or(1) != 0,
                is_ai_chat: get::<Option<i64>>(&row, 4)?.map(|flag| flag != 0),
                created_at: moment(&row, 5)?,
            })
        });
        rows.try_collect().await
    }

    /// In the order of rooms, and of joining.
    pub(super) async fn participants(&mut self) -> Result<Vec<Participant>, String> {
        let query = self.query("chat_participants", PARTICIPANTS, "1, 3, 2").await?;
        let rows = self.rows(query).map(|row| {
            let row = row?;
            Ok(Participant {
                chat: nobody_if_none(&row, 0)?,
                user: nobody_if_none(&row, 1)?,
                joined_at: moment(&row, 2)?,
                last_read_at: moment(&row, 3)?,
            })
        });
        rows.try_collect().await
    }

    /// In the order of rooms, and of being said.
    pub(super) async fn messages(&mut self) -> Result<BoxStream<'_, Result<Message, String>>, String> {
        let query = self.query("messages", MESSAGES, "1, 5, 6").await?;
        let rows = self.rows(query).map(|row| {
            let row = row?;
            Ok(Message {
                chat: nobody_if_none(&row, 0)?,
                user: get(&row, 1)?,
                content: get::<Option<_>>(&row, 2)?.unwrap_or_default(),
                is_bot: get::<Option<i64>>(&row, 3)?.unwrap_or(0) != 0,
                created_at: moment(&row, 4)?,
            })
        });
        Ok(rows.boxed())
    }

    /// What reads a table, by the names that its columns have.
    async fn query(&mut self, table: &'static str, columns: &[Column], order: &str) -> Result<String, String> {
        let rows: Vec<_> = self.rows(self.dialect.columns(table)).try_collect().await?;
        let there: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        if there.is_empty() {
            return Err(format!("it has no table {table}"));
        }
        if there.iter().any(|name| name == "last_seq") {
            return Err("it is one of this program already; `export` and `import` move single rooms".to_owned());
        }
        let expressions = columns.iter().map(|Column(names, holds, needed)| {
            match names.iter().find(|name| there.iter().any(|column| column == *name)) {
                Some(name) => Ok(self.dialect.reads(name, *holds)),
                None if !needed => Ok(self.dialect.nothing(*holds)),
                None => Err(format!("its table {table} has no column {}", names.join(" or "))),
            }
        });
        let expressions: Vec<_> = expressions.collect::<Result<_, _>>()?;
        Ok(format!(
            "SELECT {} FROM {table} ORDER BY {order}",
            expressions.join(", ")
        ))
    }

    fn rows(&mut self, query: String) -> impl futures::Stream<Item = Result<AnyRow, String>> + Send + '_ {
        // Made of words of this file alone.
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch(&mut self.connection);
        futures::stream::try_unfold(rows, |mut rows| async move {
            let row = timeout(PATIENCE, rows.try_next()).await;
            let row = row.map_err(|_| "it does not answer any more".to_owned())?;
            Ok(row.map_err(|error| error.to_string())?.map(|row| (row, rows)))
        })
    }
}

impl Dialect {
    fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    fn columns(self, table: &str) -> String {
        match self {
            Self::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
            Self::Postgres => format!(
                "SELECT CAST(attname AS TEXT) FROM pg_attribute WHERE attrelid = to_regclass('{table}') AND attnum > 0 AND \
                 NOT attisdropped"
            ),
        }
    }

    fn reads(self, column: &str, holds: Holds) -> String {
        match (holds, self) {
            (Holds::Number, _) => format!("CAST(\"{column}\" AS BIGINT)"),
            (Holds::Text, _) => format!("CAST(\"{column}\" AS TEXT)"),
            (Holds::Flag, _) => format!("CAST(CASE WHEN \"{column}\" THEN 1 ELSE 0 END AS BIGINT)"),
            // A time without a zone is in UTC.
            (Holds::Moment, Self::Postgres) => format!("CAST(EXTRACT(EPOCH FROM \"{column}\") * 1000 AS BIGINT)"),
            (Holds::Moment, Self::Sqlite) => {
                format!("CAST(ROUND((JULIANDAY(\"{column}\") - 2440587.5) * 86400000.0) AS BIGINT)")
            }
        }
    }

    fn nothing(self, holds: Holds) -> String {
        match holds {
            Holds::Text => "CAST(NULL AS TEXT)".to_owned(),
            _ => "CAST(NULL AS BIGINT)".to_owned(),
        }
    }
}

fn get<'r, T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>>(row: &'r AnyRow, at: usize) -> Result<T, String> {
    row.try_get(at).map_err(|error| error.to_string())
}

/// An id, or one that nothing has: what was deleted may have left rows that point nowhere.
fn nobody_if_none(row: &AnyRow, at: usize) -> Result<i64, String> {
    Ok(get::<Option<i64>>(row, at)?.unwrap_or_default())
}

fn moment(row: &AnyRow, at: usize) -> Result<Option<Timestamp>, String> {
    Ok(get::<Option<i64>>(row, at)?.map(Timestamp))
}

/// The database's address as sqlx has it. Ours is understood, and the first system's own, which names a driver.
fn url(address: &str) -> Result<(String, Dialect), String> {
    let (scheme, rest) = address.split_once(':').unwrap_or((address, ""));
    let (kind, driver) = match scheme.split_once('+') {
        Some((kind, _)) => (kind, true),
        None => (scheme, false),
    };
    match kind {
        "postgres" | "postgresql" => Ok((format!("postgres:{rest}"), Dialect::Postgres)),
        "sqlite" => {
            // With a driver's name three slashes come before a path of this folder, and four before one from the root.
            let path = match driver {
                true => rest.strip_prefix("///"),
                false => Some(rest.strip_prefix("//").unwrap_or(rest)),
            };
            let path = path.filter(|path| !path.is_empty()).ok_or("it has no path")?;
            if !Path::new(path).exists() {
                return Err("there is no such file".to_owned());
            }
            let escaped: String = path
                .chars()
                .map(|c| match c {
                    '%' | '?' | '#' => format!("%{:02X}", u32::from(c)),
                    _ => c.to_string(),
                })
                .collect();
            Ok((format!("sqlite:{escaped}?mode=ro"), Dialect::Sqlite))
        }
        _ => Err("a database is sqlite:FILE or postgres://USER@HOST/NAME".to_owned()),
    }
}
