//! How long a message takes to somebody at another server on the same PostgreSQL database, without a bus: from the
//! acknowledgement at one engine to the event at the other. The other looks for what is new every 1.5 seconds, so this is
//! a matter of luck up to that.
//!
//! `COOP_BENCH_POSTGRES_URL=… cargo bench -p coop-benches --bench others`, with the address of an empty database.
//! `COOP_BENCH_SECONDS` is how long it goes on (60).

use coop_core::store::postgres::PostgresStore;
use coop_core::{Engine, Event, Room, Subscription};
use futures::StreamExt;
use std::env;
use std::time::{Duration, Instant};
use tokio::time::sleep;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Anything<()> {
    let Ok(url) = env::var("COOP_BENCH_POSTGRES_URL") else {
        println!("skipped: COOP_BENCH_POSTGRES_URL names no database");
        return Ok(());
    };
    let seconds = env::var("COOP_BENCH_SECONDS").map_or(Ok(60.0), |text| text.parse())?;
    let (here, there) = (engine(&url).await?, engine(&url).await?);
    let anne = here.create_user("anne").await?;
    let bob = here.create_user("bob").await?;
    let room = anne.create_room("between servers").await?;
    room.invite(&bob).await?;
    let elsewhere = there.user(bob.id()).await?.room(room.id()).await?;
    println!("{:>24} {:>10} {:>10} {:>10}", "", "p50 ms", "p99 ms", "messages");
    for (which, listening) in [("at the same server", &room), ("at another", &elsewhere)] {
        let mut events = listening.subscribe().await?;
        let _ = events.next().await;
        let millis = measure(&room, &mut events, Duration::from_secs_f64(seconds)).await?;
        let at = |hundredth: usize| millis[millis.len() * hundredth / 100];
        println!("{which:>24} {:>10.2} {:>10.2} {:>10}", at(50), at(99), millis.len());
    }
    here.close(Duration::from_secs(5)).await;
    there.close(Duration::from_secs(5)).await;
    Ok(())
}

async fn engine(url: &str) -> Anything<Engine> {
    Ok(Engine::builder(PostgresStore::open(url).await?).build().await?)
}

/// Sends about twenty-four messages a second, and gives how long each took after it was acknowledged, in order.
async fn measure(room: &Room, events: &mut Subscription, length: Duration) -> Anything<Vec<f64>> {
    let end = Instant::now() + length;
    let room = room.clone();
    let sending = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        while Instant::now() < end {
            let sent = room.send("just talk").await?;
            acknowledged.push((sent.message.id, Instant::now()));
            sleep(Duration::from_millis(41)).await;
        }
        Ok::<_, coop_core::Error>(acknowledged)
    });
    let mut heard = Vec::new();
    let mut told = None;
    let mut sending = Some(sending);
    loop {
        let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
        if let Ok(Some(Ok(Event::MessagePosted { message, .. }))) = &event {
            heard.push((message.id, Instant::now()));
        }
        if let Some(done) = sending.take_if(|sending| sending.is_finished()) {
            told = Some(done.await??);
        }
        if let Some(acknowledged) = told.as_ref().filter(|told| told.len() <= heard.len()) {
            let mut millis = Vec::with_capacity(heard.len());
            for ((sent, at), (id, then)) in acknowledged.iter().zip(&heard) {
                if sent != id {
                    return Err("messages came out of order".into());
                }
                millis.push(then.saturating_duration_since(*at).as_secs_f64() * 1e3);
            }
            millis.sort_by(f64::total_cmp);
            return Ok(millis);
        }
        if event.is_err() {
            return Err("messages did not come".into());
        }
    }
}
