//! Running the server: opens what it needs, says what it found, serves until it is told to end.

use super::Fault;
use super::figures;
use super::log::{self, Look};
use crate::config::{BotKind, Config, Database};
use coop_bots::{GeminiBot, MockBot, ScribeBot};
use coop_core::bus::redis::RedisBus;
use coop_core::password::Hashing;
use coop_core::store::connect;
use coop_core::store::memory::MemoryStore;
use coop_core::{BusState, Engine, EngineBuilder, ErrorKind};
use coop_server::{Api, ApiBuilder, Limits, Secret, serve as run};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How many connections may wait to be accepted. The system may allow fewer.
const BACKLOG: u32 = 1_024;

/// Serves until a signal asks it to end.
pub(super) async fn serve(config: &Config) -> Result<(), Fault> {
    let look = log::begin(config)?;
    // Before there is an engine, which counts for whoever is there then.
    let figures = config.metrics.then(figures::gather).transpose()?;
    // Before anything is opened or made.
    let given = try_out(config).await?;
    let cannot = |error| Fault::Listen(format!("cannot listen on {}: {error}", config.listen));
    let listener = listen(config.listen).map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let engine = engine(config, with_bus(config, open(&config.database, &config.limits).await?)?).await?;
    let secret = config.secret().map_err(Fault::Usage)?;
    let mut api = api(config, engine.clone(), secret);
    if let Some(figures) = figures {
        api = api.metrics(move || figures.render());
    }
    let api = api.build().map_err(|error| Fault::Usage(error.to_string()))?;
    let ending = until_told()?;
    introduce(config, &engine, look).await;
    warn(config, given);
    if let Some(path) = &config.port_file {
        write_port(path, address.port()).map_err(|error| Fault::Running(format!("{}: {error}", path.display())))?;
    }
    match look {
        Look::Text => eprintln!("Ready on http://{address}"),
        Look::Json => tracing::info!(url = %format_args!("http://{address}"), "ready"),
    }
    run(listener, api)
        .with_graceful_shutdown(async move {
            let _ = ending.await;
            tracing::info!("ending");
        })
        .and_close_engine(config.shutdown_grace)
        .await;
    Ok(())
}

/// Says whether the server could start with this, as far as that can be known without starting.
pub(super) async fn check(config: &Config) -> Result<(), Fault> {
    tracing_subscriber::EnvFilter::try_new(&config.log).map_err(|error| Fault::Usage(format!("--log: {error}")))?;
    try_out(config).await?;
    eprintln!("The configuration is good.");
    Ok(())
}

/// Builds everything that can be built without the database, on one in memory. Tells whether a secret is given.
async fn try_out(config: &Config) -> Result<bool, Fault> {
    let given = config.given_secret().map_err(Fault::Usage)?;
    let is_given = given.is_some();
    let engine = engine(config, Engine::builder(MemoryStore::new())).await?;
    let secret = match given {
        Some(secret) => secret,
        None => Secret::random().map_err(|error| Fault::Running(error.to_string()))?,
    };
    let api = api(config, engine.clone(), secret);
    api.build().map_err(|error| Fault::Usage(error.to_string()))?;
    engine.close(Duration::ZERO).await;
    Ok(is_given)
}

/// A listener on which many may wait: after a restart everybody comes back at once, and before the database is open.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Elsewhere it means that somebody else may take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn open(database: &Database, limits: &Limits) -> Result<EngineBuilder, Fault> {
    let store = connect::connect_with(&database.address(), limits.pool_timeout).await;
    Ok(Engine::builder_on(
        store.map_err(|error| Fault::opening(database, &error))?,
    ))
}

fn with_bus(config: &Config, builder: EngineBuilder) -> Result<EngineBuilder, Fault> {
    let Some(redis) = &config.redis else {
        return Ok(builder);
    };
    let bus = RedisBus::new(redis.reveal()).map_err(|error| Fault::Usage(format!("--redis: {error}")))?;
    Ok(builder.bus(bus))
}

/// The engine with the bots that are configured.
async fn engine(config: &Config, builder: EngineBuilder) -> Result<Engine, Fault> {
    let built = with_bots(config, builder)?
        .hashing(hashing(config)?)
        .bounds(config.limits.bounds())
        .turn_timeout(config.turn_timeout)
        .budgets(config.budgets)
        .build()
        .await;
    built.map_err(|error| match error.kind() {
        ErrorKind::BadRequest | ErrorKind::Conflict => Fault::Usage(format!("--bot: {error}")),
        _ => Fault::Database(format!("the database cannot be used: {error}")),
    })
}

/// What passwords may be and cost.
pub(super) fn hashing(config: &Config) -> Result<Hashing, Fault> {
    config.limits.hashing().map_err(|error| Fault::Usage(error.to_string()))
}

pub(super) fn with_bots(config: &Config, builder: EngineBuilder) -> Result<EngineBuilder, Fault> {
    config.bots.iter().try_fold(builder, |builder, bot| match &bot.kind {
        BotKind::Mock => Ok(builder.bot(MockBot::named(&bot.name))),
        BotKind::Scribe => Ok(builder.bot(ScribeBot::named(&bot.name))),
        BotKind::Gemini(model) => {
            let needs_key = || Fault::Usage("gemini needs a key".to_owned());
            let settings = config.gemini.settings(model.as_deref()).ok_or_else(needs_key)?;
            let bot = GeminiBot::new(&bot.name, settings).map_err(|words| Fault::Usage(format!("gemini: {words}")))?;
            Ok(builder.bot(bot))
        }
    })
}

/// Why Gemini is off, where it would be on.
fn gemini_is_off(config: &Config) -> Option<&'static str> {
    let off = config.usual_bots && !config.gemini.has_key();
    off.then_some("gemini is off: GEMINI_API_KEY is not set")
}

fn api(config: &Config, engine: Engine, secret: Secret) -> ApiBuilder {
    let api = Api::builder(engine)
        .secret(secret)
        .token_ttl(config.token_ttl)
        .cors_origins(config.cors_origins.clone())
        .trusted_proxies(config.trusted_proxies.clone())
        .limits(config.limits.clone())
        .registration(config.registration)
        .web(config.web);
    match &config.web_dir {
        Some(folder) => api.web_dir(folder),
        None => api,
    }
}

/// Tells the operator what was found.
async fn introduce(config: &Config, engine: &Engine, look: Look) {
    let database = match &config.database {
        Database::Memory => "in memory, gone at the end".to_owned(),
        lasting => {
            let steps = connect::schema(&lasting.address()).await.unwrap_or_default();
            let schema = steps.last().map_or(0, |step| step.version);
            format!("{lasting}, schema {schema}")
        }
    };
    let looking = "other servers are seen in the database, within 2 s";
    let bus = match (&config.redis, &config.database) {
        (Some(redis), _) if engine.bus_state() == Some(BusState::Up) => redis.to_string(),
        (Some(redis), _) => format!("{redis}, away: {looking}"),
        (None, Database::Postgres(_)) => format!("none: {looking}"),
        (None, _) => "none: one server".to_owned(),
    };
    let kind = config.database.kind();
    let accounts = match config.registration {
        true => "anybody may register",
        false => "registration is closed; `coop-server user add` makes accounts",
    };
    let (version, bots) = (env!("CARGO_PKG_VERSION"), engine.bots().join(" "));
    let bots = if bots.is_empty() { "none".to_owned() } else { bots };
    let off = gemini_is_off(config);
    match look {
        Look::Text => {
            let off = off.map(|words| format!(" ({words})")).unwrap_or_default();
            eprintln!(
                "coop-server {version} ({kind})\n  database  {database}\n  bus       {bus}\n  bots      {bots}{off}\n  \
                 accounts  {accounts}"
            );
        }
        Look::Json => tracing::info!(version, database, bus, bots, off, accounts, "starting"),
    }
}

fn warn(config: &Config, secret_given: bool) {
    if !secret_given && config.database == Database::Memory {
        tracing::warn!("the token secret is made up and nowhere kept: at a restart everybody is logged out");
    }
    if config.limits_off {
        tracing::warn!("the limits are off");
    }
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
