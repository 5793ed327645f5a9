//! Tokens by hand: for scripts, and for finding out why one is refused.

use super::accounts::{existing, find, people};
use super::{Fault, print};
use crate::config::Config;
use coop_core::ErrorKind;
use coop_server::TokenMaker;
use std::time::Duration;

/// Prints a token as a login would give it.
pub(super) async fn make(config: &Config, name: &str, ttl: Option<Duration>, quiet: bool) -> Result<(), Fault> {
    let ttl = ttl.unwrap_or(config.token_ttl);
    let user = find(&people(config, existing(config)?).await?, name).await?;
    let token = maker(config, ttl)?.make(user.account());
    print(&token.map_err(|error| Fault::Running(format!("no token could be made: {error}")))?)?;
    if !quiet {
        eprintln!(
            "A token for {} (user {}), good for {}.",
            user.name(),
            user.id(),
            time(ttl)
        );
    }
    Ok(())
}

/// Prints whose token this is and how long it is still good.
pub(super) async fn check(config: &Config, token: &str) -> Result<(), Fault> {
    let refused = || Fault::Running("this is not a token of this server, or not good any more".to_owned());
    let database = existing(config)?;
    let (id, left) = maker(config, config.token_ttl)?.check(token).ok_or_else(refused)?;
    let found = people(config, database).await?.user(id).await;
    let user = found.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::Running(format!("this was a token of user {id}, who is gone")),
        _ => error.into(),
    })?;
    print(&format!("user\t{id}\nname\t{}\nleft\t{}", user.name(), time(left)))
}

fn maker(config: &Config, ttl: Duration) -> Result<TokenMaker, Fault> {
    let secret = config.secret().map_err(Fault::Usage)?;
    Ok(TokenMaker::new(&secret, ttl))
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}
