//! A server of ours whose bot answers at a steady pace and says when it wrote each piece.

use crate::Anything;
use crate::servers::{SECRET, furnish, open_many_files, write_port};
use coop_core::sqlite::SqliteStore;
use coop_core::store::RoomStore;
use coop_core::{Engine, Finish};
use coop_server::{Api, Limits, Secret, serve};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

/// What this process is told to be it.
pub(crate) const WORD: &str = "answering";
/// How many pieces a second it writes.
pub(crate) const RATE: u64 = 50;
/// How many bytes a piece has.
pub(crate) const PIECE: usize = 40;

/// Now, on a clock that all processes share.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// A piece, which begins with the moment at which it was written.
pub(crate) fn piece() -> String {
    format!("@{:016} {}", micros(), "x".repeat(PIECE - 18))
}

/// The moments in this text, which may begin or end in the middle of a piece.
pub(crate) fn moments(text: &[u8]) -> impl Iterator<Item = u64> {
    let at = text.iter().enumerate().filter(|(_, byte)| **byte == b'@');
    at.filter_map(|(at, _)| std::str::from_utf8(text.get(at + 1..at + 17)?).ok()?.parse().ok())
}

/// What stands between the people and it, by their number: their tokens, and the room.
pub(crate) struct Furnished {
    pub(crate) tokens: Vec<String>,
    pub(crate) room: i64,
}

/// Makes the people and their room in this folder, in which the server is then started.
pub(crate) async fn furnished(folder: &Path, people: usize) -> Anything<Furnished> {
    let store = SqliteStore::open(folder.join("coop.db")).await?;
    let (tokens, rooms) = furnish(&store, "person", people, &[(0..people).collect()]).await?;
    RoomStore::close(&store).await;
    Ok(Furnished { tokens, room: rooms[0] })
}

/// Is that server, on the database beside the file that it writes its port to.
pub(crate) fn be(port_file: &Path) -> Anything<()> {
    open_many_files()?;
    let database = port_file.with_file_name("coop.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = SqliteStore::open(database).await?;
        let engine = Engine::builder(store)
            .bot_fn("steady", |turn, out| async move {
                // The question says how many.
                let pieces: u64 = turn.prompt.trim().parse().unwrap_or(1);
                let mut ticks = interval(Duration::from_millis(1_000 / RATE));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for _ in 0..pieces {
                    ticks.tick().await;
                    out.push(&piece()).await?;
                }
                Ok(Finish::stop())
            })
            .build()
            .await?;
        let secret = Secret::new(SECRET)?;
        let api = Api::builder(engine).limits(Limits::off()).secret(secret).build()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        write_port(port_file, listener.local_addr()?)?;
        serve(listener, api).await;
        Ok(())
    })
}
