//! What is read from a store that has grown: a page of a room of many messages, and the list of somebody in 500 rooms.
//!
//! `cargo bench -p coop-benches --bench history`. `COOP_BENCH_MESSAGES` is the length of the long room (100,000),
//! `COOP_BENCH_POSTGRES_URL` names an empty PostgreSQL database, which is measured as well.

use coop_benches::{ANNE, Anything, fill, room};
use coop_core::store::Store;
use coop_core::store::postgres::PostgresStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::{Range, Seq};
use std::env;
use std::sync::Arc;
use std::time::Instant;

const ROOMS: usize = 500;
/// How many messages a page has.
const PAGE: u32 = 50;
/// How often each thing is read.
const READS: usize = 1_000;

#[tokio::main]
async fn main() -> Anything<()> {
    let messages = env::var("COOP_BENCH_MESSAGES").map_or(Ok(100_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let store = Arc::new(SqliteStore::open(folder.path().join("long.db")).await?);
    measure("SQLite", store, messages).await?;
    if let Ok(url) = env::var("COOP_BENCH_POSTGRES_URL") {
        measure("PostgreSQL", Arc::new(PostgresStore::open(&url).await?), messages).await?;
    }
    Ok(())
}

async fn measure(database: &str, store: Arc<dyn Store>, messages: usize) -> Anything<()> {
    let begun = Instant::now();
    let long = room(&*store).await?;
    fill(&*store, long, messages).await?;
    for _ in 1..ROOMS {
        let room = room(&*store).await?;
        fill(&*store, room, 20).await?;
    }
    println!(
        "\n{database}: {messages} messages in one room, {ROOMS} rooms, made in {:.0?}",
        begun.elapsed()
    );
    println!("{:>24} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    tell("the newest page", async |_| {
        store.history(long, Range::Newest, PAGE).await.map(drop)
    })
    .await?;
    // Places all over the room, none twice in a row.
    let before = |read: usize| Range::Before(Seq((read * 7_919 % messages.max(1)) as i64 + 2));
    tell("a page somewhere", async |read| {
        store.history(long, before(read), PAGE).await.map(drop)
    })
    .await?;
    tell("the room list", async |_| store.rooms_of(ANNE, None).await.map(drop)).await?;
    store.close().await;
    Ok(())
}

async fn tell(what: &str, read: impl AsyncFn(usize) -> coop_core::Result<()>) -> Anything<()> {
    let mut millis = Vec::with_capacity(READS);
    for count in 0..READS {
        let begun = Instant::now();
        read(count).await?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    let at = |hundredth: usize| millis[millis.len() * hundredth / 100];
    println!("{what:>24} {:>10.2} {:>10.2}", at(50), at(99));
    Ok(())
}
