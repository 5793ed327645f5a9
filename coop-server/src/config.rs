//! What the server should be, as its operator says: by flag, by variable, in a file, or not at all. A flag beats a
//! variable, a variable beats the file, and what nobody says has a default.
//!
//! [`settings`] is the table of everything there is and finds who says what; [`file`] reads the file. Here the texts
//! become values. It opens no database and no socket.

mod file;
mod gemini;
mod settings;

pub(crate) use file::default_file;
pub(crate) use settings::{Flags, SETTINGS, Setting};

use coop_core::Budgets;
use coop_core::bus::redis::RedisBus;
use coop_server::{Limits, Secret};
use gemini::Gemini;
use settings::{Environment, Layers};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be said, with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where to write the port once the server is ready.
    pub(crate) port_file: Option<PathBuf>,
    /// Where everything is kept.
    pub(crate) database: Database,
    /// How it hears of other servers at once.
    pub(crate) redis: Option<Address>,
    /// Which file holds the token secret.
    jwt_secret_file: Option<PathBuf>,
    /// How long a token is good.
    pub(crate) token_ttl: Duration,
    /// The origins whose pages may call.
    pub(crate) cors_origins: Vec<String>,
    /// Whose word about a client's address counts.
    pub(crate) trusted_proxies: Vec<String>,
    /// Whether anybody may make an account.
    pub(crate) registration: bool,
    /// Whether figures are gathered and told.
    pub(crate) metrics: bool,
    /// Whether the web client is there.
    pub(crate) web: bool,
    /// Where its files are read from instead.
    pub(crate) web_dir: Option<PathBuf>,
    /// The bots; the first answers `/bot`.
    pub(crate) bots: Vec<BotChoice>,
    /// Whether nobody has said which.
    pub(crate) usual_bots: bool,
    /// Where Gemini is asked.
    pub(crate) gemini: Gemini,
    /// How long a turn may take.
    pub(crate) turn_timeout: Duration,
    /// How many tokens may be used.
    pub(crate) budgets: Budgets,
    /// How much anybody may ask.
    pub(crate) limits: Limits,
    /// Whether that is without limits.
    pub(crate) limits_off: bool,
    /// What to log.
    pub(crate) log: String,
    /// How to log.
    pub(crate) log_format: LogFormat,
    /// How long answers that are being written may go on when the server ends.
    pub(crate) shutdown_grace: Duration,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    Text,
    Json,
}

/// A bot by the name it is asked by, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BotChoice {
    pub(crate) name: String,
    pub(crate) kind: BotKind,
}

/// What a bot can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BotKind {
    /// A Gemini model: this one, or the usual one.
    Gemini(Option<String>),
    Mock,
    Scribe,
}

/// Where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// In a SQLite file.
    File(PathBuf),
    /// Nowhere: gone with the process.
    Memory,
    /// On a PostgreSQL server.
    Postgres(Address),
}

/// The address of something on another server. It may hold a password, and shows none.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl Address {
    /// All of it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let (place, _) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        write!(f, "{scheme}://{place}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("in memory"),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

impl Config {
    /// What these flags, the process's environment and the file that they name say together.
    ///
    /// # Errors
    /// Words that name who said what is wrong.
    pub(crate) fn find(flags: Flags) -> Result<Self, String> {
        Self::of(flags, settings::environment())
    }

    fn of(flags: Flags, environment: Environment) -> Result<Self, String> {
        let layers = Layers::find(flags, &environment)?;
        let gemini = Gemini::of(&layers, &environment)?;
        let bots = layers.many("bots", |text| bot(text, &gemini))?;
        let database = layers.one("database", database)?;
        let redis = layers.optional("redis", |url| match &database {
            Database::Postgres(_) => redis(url),
            _ => Err("it joins servers on one PostgreSQL database, and this is none".to_owned()),
        })?;
        let listen: SocketAddr = layers.one("listen", |text| {
            text.parse()
                .map_err(|_| "this is not an address and a port, such as 127.0.0.1:8000".to_owned())
        })?;
        let (limits, limits_off) = layers.limits(listen.ip().is_loopback())?;
        Ok(Self {
            listen,
            port_file: layers.optional("port_file", path)?,
            database,
            redis,
            jwt_secret_file: layers.optional("jwt_secret_file", path)?,
            token_ttl: layers.one("token_ttl", duration)?,
            cors_origins: match layers.many("cors_origins", text)? {
                Some(origins) => origins,
                None => usual_origins(listen),
            },
            trusted_proxies: layers.many("trusted_proxies", text)?.unwrap_or_default(),
            registration: layers.one("registration", |text| match text {
                "open" => Ok(true),
                "closed" => Ok(false),
                other => Err(format!("it is open or closed, not {other}")),
            })?,
            metrics: layers.one("metrics", on)?,
            web: layers.one("web", on)?,
            web_dir: layers.optional("web_dir", path)?,
            usual_bots: bots.is_none(),
            bots: bots.unwrap_or_else(|| usual_bots(&gemini)),
            gemini,
            turn_timeout: layers.one("turn_timeout", duration)?,
            budgets: Budgets {
                user_tokens_per_day: layers.optional("user_tokens_per_day", tokens)?,
                room_tokens_per_day: layers.optional("room_tokens_per_day", tokens)?,
            },
            limits,
            limits_off,
            log: layers.one("log", text)?,
            log_format: layers.one("log_format", |text| match text {
                "auto" => Ok(LogFormat::Auto),
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                other => Err(format!("it is auto, text or json, not {other}")),
            })?,
            shutdown_grace: layers.one("shutdown_grace", duration)?,
        })
    }

    /// What signs tokens, if the operator says; they must unless the server listens on loopback.
    ///
    /// # Errors
    /// Words for a secret that is missing, too short or cannot be read.
    pub(crate) fn given_secret(&self) -> Result<Option<Secret>, String> {
        if let Some(secret) = settings::environment()
            .get("COOP_JWT_SECRET")
            .filter(|text| !text.is_empty())
        {
            let secret = Secret::new(secret.as_str()).map_err(|weak| format!("COOP_JWT_SECRET: {weak}"))?;
            return Ok(Some(secret));
        }
        if let Some(path) = &self.jwt_secret_file {
            let secret = Secret::read(path).map_err(|error| format!("the secret in {}: {error}", path.display()))?;
            return Ok(Some(secret));
        }
        if let Database::Postgres(_) = self.database {
            return self.database.kept_secret().map(Some);
        }
        if self.listen.ip().is_loopback() {
            return Ok(None);
        }
        Err("COOP_JWT_SECRET or COOP_JWT_SECRET_FILE is required unless the server listens on loopback".to_owned())
    }

    /// What signs tokens: what is given, or what is kept beside the database.
    ///
    /// # Errors
    /// As [`given_secret`](Self::given_secret), and words for a file that cannot be made.
    pub(crate) fn secret(&self) -> Result<Secret, String> {
        match self.given_secret()? {
            Some(secret) => Ok(secret),
            None => self.database.kept_secret(),
        }
    }
}

impl Database {
    /// A secret made up once and kept beside the file, so that starting again logs nobody out.
    fn kept_secret(&self) -> Result<Secret, String> {
        match self {
            Self::Postgres(_) => Err(
                "COOP_JWT_SECRET or COOP_JWT_SECRET_FILE is required with PostgreSQL: all servers on it need the same secret"
                    .to_owned(),
            ),
            Self::Memory => Secret::random().map_err(|error| format!("no token secret could be made: {error}")),
            Self::File(path) => {
                let mut kept = path.clone().into_os_string();
                kept.push(".secret");
                let kept = PathBuf::from(kept);
                Secret::kept_in(&kept).map_err(|error| format!("{}: {error}", kept.display()))
            }
        }
    }

    /// Its address, which may hold a password.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::File(path) => format!("sqlite:{}", path.display()),
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::Postgres(url) => url.0.clone(),
        }
    }

    /// What kind of database it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Memory => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Whether it is there before anything makes it. A server's is asked later.
    ///
    /// # Errors
    /// Words for a database in memory.
    pub(crate) fn is_there(&self) -> Result<bool, String> {
        match self {
            Self::File(path) => Ok(path.exists()),
            Self::Postgres(_) => Ok(true),
            Self::Memory => Err("a database in memory is its server's alone; this needs one that stays".to_owned()),
        }
    }
}

fn usual_origins(listen: SocketAddr) -> Vec<String> {
    if !listen.ip().is_loopback() {
        return Vec::new();
    }
    let hosts = ["localhost", "127.0.0.1"];
    let origin = |host| [3000, 3001].map(|port| format!("http://{host}:{port}"));
    hosts.into_iter().flat_map(origin).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "one of several readers of texts")]
fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

#[allow(clippy::unnecessary_wraps, reason = "one of several readers of texts")]
fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

fn database(url: &str) -> Result<Database, String> {
    match url.strip_prefix("sqlite:") {
        Some(":memory:") => Ok(Database::Memory),
        Some(path) => match path.strip_prefix("//").unwrap_or(path) {
            "" => Err("sqlite: needs a file".to_owned()),
            path => Ok(Database::File(path.into())),
        },
        None if ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme)) =>
        {
            Ok(Database::Postgres(Address(url.to_owned())))
        }
        None => {
            // What stands behind it may be a password.
            let scheme = url.split_once(':').map_or("this", |(scheme, _)| scheme);
            Err(format!(
                "{scheme} is not supported; it is sqlite:FILE, sqlite::memory: or postgres://…"
            ))
        }
    }
}

fn redis(url: &str) -> Result<Address, String> {
    RedisBus::new(url).map_err(|_| "this is not redis://HOST:PORT, or rediss:// for TLS".to_owned())?;
    Ok(Address(url.to_owned()))
}

fn usual_bots(gemini: &Gemini) -> Vec<BotChoice> {
    let bot = |name: &str, kind| BotChoice {
        name: name.to_owned(),
        kind,
    };
    let gemini = gemini.has_key().then(|| bot("gemini", BotKind::Gemini(None)));
    gemini.into_iter().chain([bot("scribe", BotKind::Scribe)]).collect()
}

fn bot(text: &str, gemini: &Gemini) -> Result<BotChoice, String> {
    let (name, kind) = text.split_once('=').ok_or("a bot is NAME=KIND or NAME=KIND:MODEL")?;
    let (kind, model) = kind
        .split_once(':')
        .map_or((kind, None), |(kind, model)| (kind, Some(model)));
    let kind = match (kind, model) {
        ("mock", None) => BotKind::Mock,
        ("scribe", None) => BotKind::Scribe,
        ("mock" | "scribe", Some(_)) => return Err(format!("a {kind} has no model")),
        ("gemini", _) if !gemini.has_key() => {
            return Err(
                "gemini needs a key: GEMINI_API_KEY, or GEMINI_API_KEY_FILE with a file that holds it".to_owned(),
            );
        }
        ("gemini", model) => BotKind::Gemini(model.map(str::to_owned)),
        _ => {
            return Err(format!(
                "there is no kind of bot called {kind}; there are: gemini, scribe, mock"
            ));
        }
    };
    Ok(BotChoice {
        name: name.to_owned(),
        kind,
    })
}

/// `500000`, or `500_000` as in TOML.
fn tokens(text: &str) -> Result<u64, String> {
    let number = text.replace('_', "").parse();
    number.map_err(|_| format!("a number of tokens is digits, not {text}"))
}

/// `90`, `90s`, `1500ms`, `10m`, `24h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a time is a number with ms, s, m, h or d")?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let time = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        unit => return Err(format!("unknown unit {unit}; there are ms, s, m, h and d")),
    };
    time.ok_or_else(|| "this is too long".to_owned())
}

/// Whether it is on.
fn on(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("it is on or off, not {other}")),
    }
}

#[cfg(test)]
mod tests;
