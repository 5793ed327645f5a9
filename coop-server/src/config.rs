//! How the operator says what the server should be: flags, variables and their defaults. It opens nothing.

use clap::{Args, Parser, Subcommand, ValueEnum};
use coop_server::Secret;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A chat server in which people and bots share rooms.
///
/// Without arguments it serves on http://127.0.0.1:8000 and keeps everything in ./coop.db.
#[derive(Debug, Parser)]
#[command(name = "coop-server", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Verb {
    /// Run (default)
    Serve,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, env = "COOP_LISTEN", default_value = "127.0.0.1:8000", global = true)]
    pub(crate) listen: SocketAddr,
    /// Write the port to this file once the server is ready
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) port_file: Option<PathBuf>,
    /// sqlite:FILE or sqlite::memory:
    #[arg(
        long,
        env = "COOP_DATABASE_URL",
        default_value = "sqlite:coop.db",
        hide_env_values = true,
        global = true
    )]
    pub(crate) database: String,
    /// How long a token is good
    #[arg(long, env = "COOP_TOKEN_TTL", default_value = "24h", value_parser = duration, global = true)]
    pub(crate) token_ttl: Duration,
    /// Let pages of this origin call (repeatable) [default: on loopback localhost and 127.0.0.1, ports 3000 and 3001]
    #[arg(
        long = "cors-origin",
        env = "COOP_CORS_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGIN",
        global = true
    )]
    pub(crate) cors_origins: Vec<String>,
    /// Whether anybody may make an account
    #[arg(long, env = "COOP_REGISTRATION", default_value = "open", global = true)]
    pub(crate) registration: Registration,
    /// A bot, as NAME=KIND; the first answers /bot (repeatable)
    #[arg(long = "bot", env = "COOP_BOTS", value_delimiter = ',', value_name = "NAME=KIND", default_value = "mock=mock", value_parser = bot, global = true)]
    pub(crate) bots: Vec<BotChoice>,
    /// What to log: error, warn, info, debug, trace, or a filter
    #[arg(long, env = "COOP_LOG", default_value = "info", global = true)]
    pub(crate) log: String,
    /// How to log
    #[arg(long, env = "COOP_LOG_FORMAT", default_value = "auto", global = true)]
    pub(crate) log_format: LogFormat,
    /// How long answers that are being written may go on when the server ends
    #[arg(long, env = "COOP_SHUTDOWN_GRACE", default_value = "10s", value_parser = duration, global = true)]
    pub(crate) shutdown_grace: Duration,
}

/// Whether anybody may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registration {
    Open,
    Closed,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, otherwise JSON
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BotKind {
    Mock,
}

fn bot(text: &str) -> Result<BotChoice, String> {
    let (name, kind) = text.split_once('=').ok_or("a bot is NAME=KIND")?;
    let kind = match kind {
        "mock" => BotKind::Mock,
        _ => return Err(format!("there is no kind of bot called {kind}; there is: mock")),
    };
    Ok(BotChoice {
        name: name.to_owned(),
        kind,
    })
}

/// `90`, `90s`, `1500ms`, `10m`, `24h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
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

/// Where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// In a SQLite file.
    File(PathBuf),
    /// Nowhere: gone with the process.
    Memory,
}

impl Options {
    /// # Errors
    /// Words for an address that nothing here can open.
    pub(crate) fn database(&self) -> Result<Database, String> {
        let url = &self.database;
        match url.strip_prefix("sqlite:") {
            Some(":memory:") => Ok(Database::Memory),
            Some(path) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("--database: sqlite: needs a file".to_owned()),
                path => Ok(Database::File(path.into())),
            },
            None => {
                let scheme = url.split(':').next().unwrap_or_default();
                Err(format!(
                    "--database: {scheme} is not supported; it is sqlite:FILE or sqlite::memory:"
                ))
            }
        }
    }

    /// The origins whose pages may call.
    pub(crate) fn origins(&self) -> Vec<String> {
        if !self.cors_origins.is_empty() || !self.listen.ip().is_loopback() {
            return self
                .cors_origins
                .iter()
                .filter(|origin| !origin.is_empty())
                .cloned()
                .collect();
        }
        let hosts = ["localhost", "127.0.0.1"];
        let ports = [3000, 3001];
        let origin = |host| ports.map(|port| format!("http://{host}:{port}"));
        hosts.into_iter().flat_map(origin).collect()
    }

    /// What signs tokens, if the environment says; it must unless the server listens on loopback.
    ///
    /// # Errors
    /// Words for a secret that is missing, too short or cannot be read.
    pub(crate) fn given_secret(&self) -> Result<Option<Secret>, String> {
        let given = if let Some(secret) = set("COOP_JWT_SECRET") {
            Secret::new(secret).map_err(|weak| format!("COOP_JWT_SECRET: {weak}"))?
        } else if let Some(path) = set("COOP_JWT_SECRET_FILE") {
            Secret::read(Path::new(&path)).map_err(|error| format!("COOP_JWT_SECRET_FILE: {error}"))?
        } else if self.listen.ip().is_loopback() {
            return Ok(None);
        } else {
            let needed = "COOP_JWT_SECRET or COOP_JWT_SECRET_FILE is required unless the server listens on loopback";
            return Err(needed.to_owned());
        };
        Ok(Some(given))
    }
}

impl Database {
    /// A secret made up once and kept beside the file, so that starting again logs nobody out.
    ///
    /// # Errors
    /// Words for a file that cannot be read or made.
    pub(crate) fn kept_secret(&self) -> Result<Secret, String> {
        match self {
            Self::Memory => Secret::random().map_err(|error| format!("no token secret could be made: {error}")),
            Self::File(path) => {
                let mut kept = path.clone().into_os_string();
                kept.push(".secret");
                let kept = PathBuf::from(kept);
                Secret::kept_in(&kept).map_err(|error| format!("{}: {error}", kept.display()))
            }
        }
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let all = std::iter::once("coop-server").chain(arguments.iter().copied());
        Cli::try_parse_from(all).unwrap().options
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(options(&["serve", "--listen", "[::1]:0"]).listen.port(), 0);
        assert!(Cli::try_parse_from(["coop-server", "--bot", "x=y"]).is_err());
        assert!(Cli::try_parse_from(["coop-server", "--jwt-secret", "x"]).is_err());
    }

    #[test]
    fn times() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in [
            "",
            "h",
            "-1s",
            "1y",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn databases() {
        let database = |url| options(&["--database", url]).database();
        assert_eq!(database("sqlite:coop.db"), Ok(Database::File("coop.db".into())));
        assert_eq!(
            database("sqlite:///tmp/coop.db"),
            Ok(Database::File("/tmp/coop.db".into()))
        );
        assert_eq!(database("sqlite::memory:"), Ok(Database::Memory));
        let refused = database("mysql://user:password@host/x").unwrap_err();
        assert!(refused.contains("mysql") && !refused.contains("password"), "{refused}");
        assert!(database("sqlite:").is_err());
    }

    #[test]
    fn pages_on_loopback_may_call_by_default_and_no_others() {
        assert!(options(&[]).origins().contains(&"http://127.0.0.1:3001".to_owned()));
        assert_eq!(options(&["--listen", "0.0.0.0:80"]).origins(), Vec::<String>::new());
        let some = options(&["--cors-origin", "https://a.example,https://b.example"]);
        assert_eq!(some.origins(), ["https://a.example", "https://b.example"]);
    }
}
