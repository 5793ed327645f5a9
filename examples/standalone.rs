//! The whole server as a library, for a program that wants to start it itself: a database, a bot, an address, an orderly
//! end. What `coop-server` reads from flags and files is said here in code.
//!
//! `cargo run -p coop-examples --example standalone [ADDRESS]`

use coop_bots::MockBot;
use coop_core::{Engine, sqlite::SqliteStore};
use coop_server::{Api, Limits, Secret, serve};
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".into());
    let engine = Engine::builder(SqliteStore::open("standalone.db").await?)
        .bot(MockBot::named("mock"))
        .bot_fn("shout", |turn, out| async move {
            out.push(turn.prompt.to_uppercase()).await?;
            Ok(coop_core::Finish::stop())
        })
        .build()
        .await?;
    let api = Api::builder(engine)
        // Made at the first start and kept, so that starting again logs nobody out.
        .secret(Secret::kept_in("standalone.secret".as_ref())?)
        .token_ttl(Duration::from_secs(24 * 60 * 60))
        .limits(Limits::default())
        .build()?;
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, api)
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .and_close_engine(Duration::from_secs(10))
        .await;
    Ok(())
}
