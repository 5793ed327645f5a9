//! The server program: reads its configuration, opens what it needs, serves until it is told to end.
#![forbid(unsafe_code)]

mod config;

use clap::Parser;
use config::{BotKind, Cli, Database, LogFormat, Options, Registration, Verb};
use coop_bots::MockBot;
use coop_core::store::sqlite::SqliteStore;
use coop_core::{Engine, EngineBuilder, Error};
use coop_server::{Api, serve};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// Why the program ends with something else than 0.
enum Fault {
    /// It failed while running.
    Running(String),
    /// It was asked something that it cannot be.
    Usage(String),
    /// There is no database for it.
    Database(Error),
    /// There is no place for it to listen.
    Listen(std::io::Error),
}

impl Fault {
    fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Usage(_) => 2,
            Self::Database(_) => 3,
            Self::Listen(_) => 4,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(words) | Self::Usage(words) => f.write_str(words),
            Self::Database(error) => write!(f, "the database cannot be used: {error}"),
            Self::Listen(error) => write!(f, "cannot listen: {error}"),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb.unwrap_or(Verb::Serve) {
        Verb::Serve => run(cli.options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("coop-server: {fault}");
            ExitCode::from(fault.code())
        }
    }
}

async fn run(options: Options) -> Result<(), Fault> {
    log(&options)?;
    let database = options.database().map_err(Fault::Usage)?;
    let given = options.given_secret().map_err(Fault::Usage)?;
    let listener = TcpListener::bind(options.listen).await.map_err(Fault::Listen)?;
    let address = listener.local_addr().map_err(Fault::Listen)?;
    let mut builder = open_store(&database).await.map_err(Fault::Database)?;
    let secret = match given {
        Some(secret) => secret,
        None => database.kept_secret().map_err(Fault::Usage)?,
    };
    for bot in &options.bots {
        builder = match bot.kind {
            BotKind::Mock => builder.bot(MockBot::named(&bot.name)),
        };
    }
    let engine = builder.build().await.map_err(|error| match error.kind() {
        coop_core::ErrorKind::BadRequest | coop_core::ErrorKind::Conflict => Fault::Usage(format!("--bot: {error}")),
        _ => Fault::Database(error),
    })?;
    let origins = options.origins();
    let api = Api::builder(engine.clone())
        .secret(secret)
        .token_ttl(options.token_ttl)
        .cors_origins(origins.clone())
        .registration(options.registration == Registration::Open)
        .build()
        .map_err(|error| Fault::Usage(error.to_string()))?;
    let ending = until_told()?;
    introduce(&options, &database, &engine, &origins);
    if let Some(path) = &options.port_file {
        write_port(path, address.port()).map_err(|error| Fault::Running(format!("{}: {error}", path.display())))?;
    }
    eprintln!("Ready on http://{address}");
    serve(listener, api)
        .with_graceful_shutdown(async move {
            let _ = ending.await;
            tracing::info!("ending");
        })
        .and_close_engine(options.shutdown_grace)
        .await;
    Ok(())
}

/// Begins an engine on the store that this address names.
async fn open_store(database: &Database) -> Result<EngineBuilder, Error> {
    let store = match database {
        Database::Memory => SqliteStore::memory().await?,
        Database::File(path) => SqliteStore::open(path).await?,
    };
    Ok(Engine::builder(store))
}

fn log(options: &Options) -> Result<(), Fault> {
    let filter = EnvFilter::try_new(&options.log).map_err(|error| Fault::Usage(format!("--log: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let json = match options.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(())
}

/// Tells a person at a terminal what was found.
fn introduce(options: &Options, database: &Database, engine: &Engine, origins: &[String]) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let place = match database {
        Database::File(path) => path.display().to_string(),
        Database::Memory => "in memory, gone at the end".to_owned(),
    };
    let open = match options.registration {
        Registration::Open => "anybody may register",
        Registration::Closed => "registration is closed",
    };
    let pages = if origins.is_empty() {
        "none".to_owned()
    } else {
        origins.join(" ")
    };
    eprintln!("coop-server {}", env!("CARGO_PKG_VERSION"));
    eprintln!("  database  {place}");
    eprintln!("  bots      {}", engine.bots().join(" "));
    eprintln!("  accounts  {open}");
    eprintln!("  pages     {pages}");
}

/// Whole or not at all: whoever waits for the file must not read half a number.
fn write_port(path: &Path, port: u16) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = std::fs::File::create(&draft)?;
    writeln!(file, "{port}")?;
    drop(file);
    std::fs::rename(&draft, path)
}

/// Tells when a signal asks the program to end. A second one ends it at once.
fn until_told() -> Result<oneshot::Receiver<()>, Fault> {
    let fault = |error: std::io::Error| Fault::Running(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        let _ = tell.send(());
        next().await;
        std::process::exit(1);
    });
    Ok(told)
}
