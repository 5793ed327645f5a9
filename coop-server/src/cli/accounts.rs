//! Accounts by hand. Adding one and giving another password go on beside a running server, which sees both at the next
//! request; removing one needs a SQLite file for itself, because the rooms have to know.

use super::serve::{hashing, with_bots};
use super::{Fault, OwnedRooms, print};
use crate::config::{Config, Database};
use coop_core::password::Passwords;
use coop_core::store::memory::MemoryStore;
use coop_core::store::{Store, connect};
use coop_core::{Departure, Engine, ErrorKind, User};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// More is no password.
const MAX_PASSWORD: u64 = 4 * 1024;
/// What made-up passwords consist of: what is not mistaken for something else. 32 characters, so that no byte is wasted.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Makes an account.
pub(super) async fn add(config: &Config, name: &str, email: &str, from_stdin: bool) -> Result<(), Fault> {
    let database = lasting(config)?;
    let (password, made_up) = new_password(from_stdin)?;
    let user = people(config, database).await?.register(name, email, password).await?;
    eprintln!("{} is user {}.", user.name(), user.id());
    made_up.map_or(Ok(()), |password| print(&password))
}

/// Gives somebody another password.
pub(super) async fn password(config: &Config, name: &str, from_stdin: bool) -> Result<(), Fault> {
    let database = existing(config)?;
    let (password, made_up) = new_password(from_stdin)?;
    let user = find(&people(config, database).await?, name).await?;
    let email = user.account().email.as_deref().unwrap_or("");
    let passwords = Passwords::new(hashing(config)?);
    let checked = passwords.rules().check(&password, user.name(), email);
    checked.map_err(Fault::Usage)?;
    let hash = passwords.hash(password).await;
    let hash = hash.map_err(|error| Fault::Running(error.to_string()))?;
    let users = beside(database).await?;
    let done = users.set_password(user.id(), &hash).await;
    users.close().await;
    done?;
    eprintln!("{} has another password.", user.name());
    made_up.map_or(Ok(()), |password| print(&password))
}

/// Takes somebody out of all rooms and removes the account.
pub(super) async fn delete(config: &Config, name: &str, rooms: Option<OwnedRooms>, purge: bool) -> Result<(), Fault> {
    let database = existing(config)?;
    let engine = Engine::builder_on(alone(database).await?).build().await?;
    let done = depart(&engine, name, rooms, purge).await;
    engine.close(Duration::ZERO).await;
    done
}

async fn depart(engine: &Engine, name: &str, rooms: Option<OwnedRooms>, purge: bool) -> Result<(), Fault> {
    let user = find(engine, name).await?;
    let mut how = Departure::default();
    if purge {
        how = how.purging_messages();
    }
    match rooms {
        Some(OwnedRooms::HandOver) => {}
        Some(OwnedRooms::Delete) => how = how.deleting_rooms(),
        None => check_owns_nothing(&user).await?,
    }
    user.delete_account(how).await?;
    eprintln!("{} (user {}) is removed.", user.name(), user.id());
    Ok(())
}

async fn check_owns_nothing(user: &User) -> Result<(), Fault> {
    let entries = user.rooms().await?;
    let owned = entries.iter().filter(|entry| entry.info.owner == user.id());
    let owned: Vec<_> = owned
        .map(|entry| format!("{} ({:?})", entry.info.id, entry.info.name))
        .collect();
    if owned.is_empty() {
        return Ok(());
    }
    let words = format!(
        "{} owns rooms; say what becomes of them by --rooms hand-over or --rooms delete: {}",
        user.name(),
        owned.join(", ")
    );
    Err(Fault::Running(words))
}

/// The users of a database, as an engine without any of its rooms sees them: nothing there is touched. The bots are known,
/// because their names are nobody's.
pub(super) async fn people(config: &Config, database: &Database) -> Result<Engine, Fault> {
    let builder = Engine::builder(MemoryStore::new()).users_of(beside(database).await?);
    Ok(with_bots(config, builder)?.hashing(hashing(config)?).build().await?)
}

pub(super) async fn find(engine: &Engine, name: &str) -> Result<User, Fault> {
    engine.find_user(name).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Running(format!("there is no user called {name}")),
        _ => error.into(),
    })
}

/// The database, which must not be one in memory.
pub(super) fn lasting(config: &Config) -> Result<&Database, Fault> {
    config.database.is_there().map_err(Fault::Usage)?;
    Ok(&config.database)
}

/// The database, which must be there already.
pub(super) fn existing(config: &Config) -> Result<&Database, Fault> {
    let database = &config.database;
    match database.is_there().map_err(Fault::Usage)? {
        true => Ok(database),
        false => Err(Fault::Database(format!("there is no database {database}"))),
    }
}

/// The database for changing its rooms. A SQLite file must be nobody else's meanwhile: a server that runs would not know.
pub(super) async fn alone(database: &Database) -> Result<Arc<dyn Store>, Fault> {
    let store = connect::connect(&database.address()).await;
    store.map_err(|error| match error.kind() {
        ErrorKind::InUse => Fault::Database("a server is running on this database; stop it first".to_owned()),
        _ => Fault::opening(database, &error),
    })
}

pub(super) async fn beside(database: &Database) -> Result<Arc<dyn Store>, Fault> {
    let store = connect::connect_tool(&database.address()).await;
    store.map_err(|error| Fault::opening(database, &error))
}

/// A password, and once more if it was made up and has to be shown.
fn new_password(from_stdin: bool) -> Result<(String, Option<String>), Fault> {
    if from_stdin {
        let mut text = String::new();
        let read = std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text);
        read.map_err(|error| Fault::Usage(format!("the password on the standard input: {error}")))?;
        return match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Ok((line.to_owned(), None)),
            None => Err(Fault::Usage("there is no password on the standard input".to_owned())),
        };
    }
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| Fault::Running(format!("no password could be made up: {error}")))?;
    let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32)));
    let password: String = letters.map(|letter| char::from(*letter)).collect();
    Ok((password.clone(), Some(password)))
}
