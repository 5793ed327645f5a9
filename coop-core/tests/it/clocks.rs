//! Clocks that jump: times are only told, and nothing is decided by them that must not be lost.

use crate::scene::{Scene, next, settled};
use coop_core::store::Store;
use coop_core::store::memory::MemoryStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::testing::postgres::shared;
use coop_core::{Archive, Clock, Event, Range, Timestamp, TurnStatus, UsageFilter};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Clone)]
struct Wild(Arc<AtomicI64>);

impl Clock for Wild {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

const DAY: i64 = 24 * 60 * 60 * 1_000;
/// 2026.
const NOW: i64 = 1_795_000_000_000;

/// Everything that people do, while the clock is what it likes.
async fn goes_on(store: impl Store, times: &[i64]) {
    let clock = Wild(Arc::new(AtomicI64::new(NOW)));
    let mut scene = Scene::with(store, |builder| builder.clock(clock.clone())).await;
    let (room, bobs) = (scene.room.clone(), scene.bobs.clone());
    let mut heard = room.subscribe().await.unwrap();
    let Event::Snapshot(first) = next(&mut heard).await else {
        panic!("no snapshot");
    };
    let mut said = Vec::new();
    for (number, time) in times.iter().enumerate() {
        clock.0.store(*time, Ordering::Relaxed);
        let text = format!("number {number}");
        let sent = room.send(text.as_str()).await.unwrap().message;
        said.push(text);
        assert_eq!(bobs.entry().await.unwrap().unread, 1, "at {time}");
        bobs.mark_all_read().await.unwrap();
        room.edit(sent.id, "changed").await.unwrap();
        *said.last_mut().unwrap() = "changed".to_owned();
        let (turn, answering) = scene.ask("and you?").await;
        said.push("/ann and you?".to_owned());
        answering.say("well").await.unwrap();
        answering.finish();
        assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done, "at {time}");
        said.push("well".to_owned());
        room.remove(scene.bob.id()).await.unwrap();
        room.invite(&scene.bob).await.unwrap();
        room.usage(UsageFilter::default()).await.unwrap();
    }
    let history = room.history(Range::Newest, 200).await.unwrap().messages;
    let texts: Vec<_> = history.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, said, "in the order of being said, whatever the clock says");
    let seqs: Vec<_> = settled(&mut heard)
        .await
        .iter()
        .filter_map(Event::seq)
        .map(|seq| seq.0)
        .collect();
    let last = room.entry().await.unwrap().seq.0;
    assert_eq!(seqs, (first.seq.0 + 1..=last).collect::<Vec<_>>());
    let archive = scene.engine.export_room(room.id()).await.unwrap().to_string();
    assert_eq!(archive.parse::<Archive>().unwrap().to_string(), archive);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_changes_no_order_and_loses_nothing() {
    // A day ahead, back, before 1970, and as far as anybody can write a date.
    let times = [NOW + DAY, NOW - DAY, NOW, -5 * DAY, 0, 253_000_000_000_000, NOW + 1];
    goes_on(MemoryStore::new(), &times).await;
    goes_on(SqliteStore::memory().await.unwrap(), &times).await;
    if let Some(cluster) = shared("a_clock_that_jumps_changes_no_order_and_loses_nothing") {
        let store = coop_core::postgres::PostgresStore::open(&cluster.database())
            .await
            .unwrap();
        goes_on(store, &times).await;
    }
}

/// Such a time is no date that anybody could write down; nothing panics all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_makes_no_sense_breaks_nothing() {
    let times = [i64::MIN, i64::MAX, -1, i64::MAX - 1, i64::MIN + 1];
    goes_on(MemoryStore::new(), &times).await;
    goes_on(SqliteStore::memory().await.unwrap(), &times).await;
}
