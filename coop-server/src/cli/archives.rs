//! Rooms as lines of JSON: out of a database, and into one.

use super::accounts::{alone, beside, existing, lasting};
use super::serve::with_bots;
use super::{Fault, print};
use crate::config::Config;
use coop_core::{Archive, Engine, ErrorKind, RoomId};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Prints a room. Beside a server that runs it is the room of one moment.
pub(super) async fn export(config: &Config, room: i64) -> Result<(), Fault> {
    let database = existing(config)?;
    let store = beside(database).await?;
    let archive = Archive::of(&*store, RoomId(room)).await;
    store.close().await;
    let archive = archive.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Running(format!("there is no room {room}")),
        _ => error.into(),
    })?;
    print(archive.to_string().trim_end())
}

/// Makes a room of lines.
pub(super) async fn import(config: &Config, file: Option<&Path>) -> Result<(), Fault> {
    let database = lasting(config)?;
    let mut lines = String::new();
    let read = match file {
        Some(file) => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut lines)),
        None => std::io::stdin().read_to_string(&mut lines),
    };
    let name = file.map_or("the standard input".into(), Path::to_string_lossy);
    read.map_err(|error| Fault::Usage(format!("{name}: {error}")))?;
    let archive: Archive = lines
        .parse()
        .map_err(|error| Fault::Usage(format!("{name}: {error}")))?;
    let engine = with_bots(config, Engine::builder_on(alone(database).await?))?
        .build()
        .await?;
    let messages = archive.messages();
    let made = engine.import_room(archive).await;
    engine.close(Duration::ZERO).await;
    let made = made?;
    eprintln!("{:?} with {messages} messages is room {}.", made.name, made.id);
    print(&made.id.to_string())
}
