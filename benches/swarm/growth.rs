//! How cost grows: with a room, with their number, with sockets, with senders and with a room's history. What is told here
//! is drawn by `python/readme.py`.

use crate::Anything;
use crate::clients::{Label, hear};
use crate::contest::{Contender, Field, talk};
use crate::report::{Figure, Report};
use crate::scenarios::{joined, micros, said, say_all};
use crate::servers::{Cpu, Ours};
use coop_benches::{fill, room};
use coop_core::sqlite::SqliteStore;
use coop_core::store::RoomStore;
use coop_core::{Engine, Error, Range, RoomDraft, Seq};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// How many messages a page of history has, and how many pages are read.
const PAGE: u32 = 50;
const READS: usize = 500;
/// The server may rest so long before it is asked what it has in memory.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn growth(quick: bool, report: &mut Report) -> Anything<()> {
    room_size(quick, report).await?;
    room_count(quick, report).await?;
    sockets(quick, report).await?;
    senders(quick, report).await?;
    history(quick, report).await
}

/// One message at a time to ever more people, about as many deliveries each time.
async fn room_size(quick: bool, report: &mut Report) -> Anything<()> {
    report.scenario("growth: members of a room, one message at a time; µs of server CPU per delivered message");
    let sizes: &[usize] = if quick { &[5, 20] } else { &[10, 30, 100, 300, 1_000] };
    for &size in sizes {
        let field = Field::of(Contender::Sqlite, size, 0).await?;
        let messages = (if quick { 200 } else { 100_000 } / size).clamp(10, 2_000);
        let (cost, _) = talk(field, messages, 1).await?;
        tell(report, "growth: room size", size, "µs", cost);
    }
    Ok(())
}

/// Ever more rooms of ten people in which is talked at the same time.
async fn room_count(quick: bool, report: &mut Report) -> Anything<()> {
    report.scenario("growth: rooms of ten, a hundred messages on their way; µs of server CPU per delivered message");
    let counts: &[usize] = if quick { &[2, 10] } else { &[10, 30, 100, 300, 1_000] };
    for &count in counts {
        let people = 100.min(count * 10);
        let rooms: Vec<Vec<usize>> = (0..count)
            .map(|room| (0..10).map(|place| (room * 10 + place) % people).collect())
            .collect();
        let ours = Ours::start(people, &rooms).await?;
        let sockets = joined(&ours, &rooms).await?;
        let total = if quick { 50 } else { 5_000 };
        let (cost, _) = say_all(&ours, &rooms, sockets, total).await?;
        tell(report, "growth: rooms", count, "µs", micros(cost, total * 10));
    }
    Ok(())
}

/// Ever more sockets, joined and idle.
async fn sockets(quick: bool, report: &mut Report) -> Anything<()> {
    report.scenario("growth: idle sockets; MiB that they add");
    let (step, steps) = if quick { (20, 2) } else { (2_000, 5) };
    let people = step / 10;
    let rooms: Vec<Vec<usize>> = (0..people / 2).map(|room| vec![room * 2, room * 2 + 1]).collect();
    let ours = Ours::start(people, &rooms).await?;
    drop(joined(&ours, &rooms).await?);
    tokio::time::sleep(REST).await;
    let before = ours.server.memory()?;
    let mut kept = Vec::new();
    for count in 1..=steps {
        for _ in 0..10 {
            kept.extend(joined(&ours, &rooms).await?);
        }
        ours.rest().await?;
        tokio::time::sleep(REST).await;
        let more = (ours.server.memory()? - before) / f64::from(1 << 20);
        tell(report, "growth: sockets", step * count, "MiB", more);
    }
    // Somebody is still there.
    if let [first, ..] = &mut *kept {
        let label = Label {
            room: 0,
            sender: 0,
            number: 0,
        };
        first.write_all(&said(ours.rooms[0], label)).await?;
        hear(first, |_, label, _| Ok(label.is_some())).await?;
    }
    Ok(())
}

/// Ever more senders in one room, in this process.
async fn senders(quick: bool, report: &mut Report) -> Anything<()> {
    report.scenario("growth: senders in one room; acknowledged messages a second");
    let (counts, length): (&[usize], _) = match quick {
        true => (&[1, 4], Duration::from_millis(300)),
        false => (&[1, 4, 16, 64, 256, 1_000], Duration::from_secs(3)),
    };
    for &count in counts {
        let folder = tempfile::tempdir()?;
        let engine = Engine::builder(SqliteStore::open(folder.path().join("coop.db")).await?)
            .build()
            .await?;
        let mut users = Vec::with_capacity(count);
        for number in 0..count {
            users.push(engine.create_user(&format!("sender{number}")).await?);
        }
        let room = users[0]
            .create_room(RoomDraft::named("growth").with(users.iter().skip(1).cloned()))
            .await?;
        let end = Instant::now() + length;
        let mut tasks = tokio::task::JoinSet::new();
        for user in &users {
            let room = user.room(room.id()).await?;
            tasks.spawn(async move {
                let mut acknowledged = 0;
                while Instant::now() < end {
                    room.send("as many words as people write who are in a hurry").await?;
                    acknowledged += 1;
                }
                Ok::<_, Error>(acknowledged)
            });
        }
        let mut acknowledged = 0;
        while let Some(some) = tasks.join_next().await {
            acknowledged += some??;
        }
        let rate = f64::from(acknowledged) / length.as_secs_f64();
        tell(report, "growth: senders", count, "a second", rate);
        engine.close(Duration::from_secs(5)).await;
    }
    Ok(())
}

/// Pages from all over a room that grows.
async fn history(quick: bool, report: &mut Report) -> Anything<()> {
    report.scenario("growth: messages of a room; ms in which 99 of 100 pages are read");
    let lengths: &[usize] = if quick {
        &[100, 1_000]
    } else {
        &[1_000, 10_000, 100_000, 1_000_000]
    };
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("coop.db")).await?;
    let room = room(&store).await?;
    let mut written = 0;
    for &length in lengths {
        fill(&store, room, length - written).await?;
        written = length;
        let mut taken = Vec::with_capacity(READS);
        for read in 0..READS {
            // Places all over the room, none twice in a row.
            let before = Seq((read * 7_919 % length) as i64 + 2);
            let begun = Instant::now();
            store.history(room, Range::Before(before), PAGE).await?;
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        taken.sort_by(f64::total_cmp);
        tell(report, "growth: history", length, "ms", taken[READS * 99 / 100]);
    }
    RoomStore::close(&store).await;
    Ok(())
}

fn tell(report: &mut Report, series: &str, at: usize, unit: &str, value: f64) {
    report.tell(series, &at.to_string(), unit, &Figure::of(vec![value]), None);
}
