//! How long a message and a piece of an answer take to somebody at another server on the same PostgreSQL database: from the
//! acknowledgement, or from the bot's hand, at one engine to the event at the other; with Redis between them, and without.
//! Without a bus the other looks for what is new every 1.5 seconds, so that it is a matter of luck up to that.
//!
//! `COOP_BENCH_POSTGRES_URL=… COOP_BENCH_REDIS_URL=… cargo bench -p coop-benches --bench others`, with the address of an
//! empty database. `COOP_BENCH_SECONDS` is how long each goes on (60).

use coop_core::bus::redis::RedisBus;
use coop_core::store::postgres::PostgresStore;
use coop_core::{Engine, Event, Finish, Room, Subscription};
use futures::StreamExt;
use std::env;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// When the bot had written how many bytes.
type Written = Arc<Mutex<Vec<(u64, Instant)>>>;

#[tokio::main]
async fn main() -> Anything<()> {
    let Ok(url) = env::var("COOP_BENCH_POSTGRES_URL") else {
        println!("skipped: COOP_BENCH_POSTGRES_URL names no database");
        return Ok(());
    };
    let seconds = env::var("COOP_BENCH_SECONDS").map_or(Ok(60.0), |text| text.parse())?;
    let length = Duration::from_secs_f64(seconds);
    println!("{:>36} {:>10} {:>10} {:>10}", "", "p50 ms", "p99 ms", "count");
    let redis = env::var("COOP_BENCH_REDIS_URL").ok();
    if redis.is_none() {
        println!("{:>36} skipped: COOP_BENCH_REDIS_URL names none", "with Redis");
    }
    for (number, redis) in redis.map(Some).into_iter().chain([None]).enumerate() {
        let written = Written::default();
        let here = engine(&url, redis.as_deref(), &written).await?;
        let there = engine(&url, redis.as_deref(), &written).await?;
        let anne = here.create_user(&format!("anne{number}")).await?;
        let bob = here.create_user(&format!("bob{number}")).await?;
        let room = anne.create_room("between servers").await?;
        room.invite(&bob).await?;
        let elsewhere = there.user(bob.id()).await?.room(room.id()).await?;
        let elsewhere = (
            if redis.is_some() {
                "at another with Redis"
            } else {
                "at another"
            },
            &elsewhere,
        );
        for (which, listening) in [("at the same server", &room), elsewhere] {
            let mut events = listening.subscribe().await?;
            let _ = events.next().await;
            tell(which, "message", &messages(&room, &mut events, length).await?);
            tell(which, "piece", &pieces(&room, &mut events, &written, length).await?);
        }
        here.close(Duration::from_secs(5)).await;
        there.close(Duration::from_secs(5)).await;
    }
    Ok(())
}

fn tell(which: &str, what: &str, millis: &[f64]) {
    let at = |hundredth: usize| millis[millis.len() * hundredth / 100];
    println!(
        "{which:>28} {what:>7} {:>10.2} {:>10.2} {:>10}",
        at(50),
        at(99),
        millis.len()
    );
}

async fn engine(url: &str, redis: Option<&str>, written: &Written) -> Anything<Engine> {
    let mut builder = Engine::builder(PostgresStore::open(url).await?);
    if let Some(redis) = redis {
        builder = builder.bus(RedisBus::new(redis)?);
    }
    let written = Arc::clone(written);
    let builder = builder.bot_fn("writer", move |turn, out| {
        let written = Arc::clone(&written);
        async move {
            let end = Instant::now() + Duration::from_millis(turn.prompt.trim().parse().unwrap_or(1_000));
            let mut bytes = 0;
            while Instant::now() < end {
                let now = Instant::now();
                out.push("and so on ").await?;
                bytes += 10;
                if let Ok(mut written) = written.lock() {
                    written.push((bytes, now));
                }
                sleep(Duration::from_millis(41)).await;
            }
            Ok(Finish::stop())
        }
    });
    Ok(builder.build().await?)
}

/// Has the bot write about twenty-four pieces a second, and gives how long each took to be shown, in order.
async fn pieces(room: &Room, events: &mut Subscription, written: &Written, length: Duration) -> Anything<Vec<f64>> {
    written.lock().map_err(|_| "a bot panicked")?.clear();
    room.send(format!("/writer {}", length.as_millis())).await?;
    let mut shown = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await?;
        match event {
            Some(Ok(Event::Delta { end, .. })) => shown.push((end, Instant::now())),
            Some(Ok(Event::TurnEnded { .. })) => break,
            Some(_) => {}
            None => return Err("the events ended".into()),
        }
    }
    let mut millis = Vec::new();
    for (bytes, at) in written.lock().map_err(|_| "a bot panicked")?.iter() {
        // What comes with the end of the answer was not shown before.
        if let Some((_, then)) = shown.iter().find(|(end, _)| end >= bytes) {
            millis.push(then.saturating_duration_since(*at).as_secs_f64() * 1e3);
        }
    }
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}

/// Sends about twenty-four messages a second, and gives how long each took after it was acknowledged, in order.
async fn messages(room: &Room, events: &mut Subscription, length: Duration) -> Anything<Vec<f64>> {
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
