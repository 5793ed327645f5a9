//! What is particular to a PostgreSQL database: that it restarts, ends sessions, stalls, refuses, fills up, fails over; and
//! that several servers start on it at once.

use coop_core::store::postgres::{PostgresOptions, PostgresStore};
use coop_core::store::{RoomStore, UserStore};
use coop_core::testing::postgres::{Cluster, shared};
use coop_core::testing::skipped;
use coop_core::testing::store::store_contract;
use coop_core::{Draft, Engine, ErrorKind, Event, MessageId, Range, Room, Seq};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_the_contract() {
    let Some(cluster) = shared("a_database_keeps_the_contract") else {
        return;
    };
    store_contract(|| async { PostgresStore::open(&cluster.database()).await.unwrap() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_make_one_schema() {
    let Some(cluster) = shared("servers_that_start_at_once_make_one_schema") else {
        return;
    };
    let url = cluster.database();
    let opened = futures::future::join_all((0..8).map(|_| PostgresStore::open(&url))).await;
    for store in opened {
        store.unwrap().close().await;
    }
    let steps = PostgresStore::schema(&url).await.unwrap();
    assert!(steps.iter().all(|step| step.applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_told_apart_and_not_changed() {
    let Some(cluster) = shared("what_is_not_ours_is_told_apart_and_not_changed") else {
        return;
    };
    let refused = async |url: &str| PostgresStore::open(url).await.unwrap_err().kind();
    assert_eq!(refused("mysql://localhost/x").await, ErrorKind::BadRequest);
    assert_eq!(
        refused("postgres://postgres@127.0.0.1:1/x").await,
        ErrorKind::Unavailable
    );
    assert_eq!(refused(&cluster.url_of("nowhere")).await, ErrorKind::NotFound);
    let url = cluster.database();
    let name = url.rsplit('/').next().unwrap();
    let pending = PostgresStore::schema(&url).await.unwrap();
    assert!(pending.iter().all(|step| !step.applied));
    cluster.run_in(name, "CREATE TABLE users (id INT)");
    assert_eq!(refused(&url).await, ErrorKind::NotADatabase);
    let url = cluster.database();
    PostgresStore::open(&url).await.unwrap().close().await;
    let name = url.rsplit('/').next().unwrap();
    cluster.run_in(
        name,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', \
         true, '', 0)",
    );
    assert_eq!(refused(&url).await, ErrorKind::NewerSchema);
}

/// What a sender was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<(String, MessageId)>,
    /// Why it had to send again.
    refusals: Vec<String>,
}

/// Sends until told to end, each message until it is acknowledged.
async fn sender(room: Room, who: usize, ended: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for count in 0.. {
        if ended.load(Ordering::Acquire) {
            break;
        }
        let text = format!("{who} {count}");
        loop {
            match room.send(Draft::from(text.as_str()).client_id(&text)).await {
                Ok(sent) => {
                    told.acknowledged.push((text, sent.message.id));
                    break;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    told.refusals.push(error.to_string());
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    told
}

async fn whole_history(room: &Room) -> Vec<(String, MessageId, Seq)> {
    let (mut all, mut after) = (Vec::new(), Seq(0));
    loop {
        let page = room.history(Range::After(after), 100).await.unwrap();
        let Some(last) = page.messages.last() else { return all };
        after = last.seq;
        all.extend(
            page.messages
                .iter()
                .map(|message| (message.text.clone(), message.id, message.seq)),
        );
    }
}

async fn goes_on_after(cluster: &Cluster, trouble: impl AsyncFnOnce()) {
    both_go_on_after(&cluster.database(), trouble).await;
}

/// Lets four people talk and two listen, at two servers, in one room, while `trouble` befalls their database. Nothing that
/// was acknowledged is lost, nothing is doubled, everything is heard once and in order at both, and once `trouble` is over
/// it goes on in time. Returns what senders were refused with.
async fn both_go_on_after(url: &str, trouble: impl AsyncFnOnce()) -> Vec<String> {
    let mut engines = Vec::new();
    for _ in 0..2 {
        let store = PostgresStore::open(url).await.unwrap();
        engines.push(Engine::builder(store).build().await.unwrap());
    }
    let owner = engines[0].create_user("owner").await.unwrap();
    let room = owner.create_room("lab").await.unwrap();
    let elsewhere = engines[1].find_user("owner").await.unwrap();
    let rooms = [room.clone(), elsewhere.room(room.id()).await.unwrap()];
    let listeners = [rooms[0].subscribe().await.unwrap(), rooms[1].subscribe().await.unwrap()];
    let ended = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|who| tokio::spawn(sender(rooms[who % 2].clone(), who, Arc::clone(&ended))))
        .collect();
    sleep(Duration::from_millis(500)).await;
    trouble().await;
    let over = Instant::now();
    let back = rooms.iter().map(async |room| {
        while let Err(error) = room.send("back?").await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            sleep(Duration::from_millis(20)).await;
        }
    });
    let back = futures::future::join_all(back);
    timeout(Duration::from_secs(5), back)
        .await
        .expect("both are back in time");
    eprintln!("back after {:?}", over.elapsed());
    sleep(Duration::from_millis(500)).await;
    ended.store(true, Ordering::Release);
    let (mut acknowledged, mut refusals) = (Vec::new(), Vec::new());
    for sender in senders {
        let told = sender.await.unwrap();
        acknowledged.extend(told.acknowledged);
        refusals.extend(told.refusals);
    }
    room.send("the last").await.unwrap();

    let history = whole_history(&room).await;
    let mut found: Vec<_> = history
        .iter()
        .filter(|(text, ..)| text.contains(' ') && text != "the last")
        .collect();
    found.sort();
    let mut expected: Vec<_> = acknowledged.iter().collect();
    expected.sort();
    assert!(expected.len() > 50, "they have talked: {}", expected.len());
    let found: Vec<_> = found.iter().map(|(text, id, _)| (text.clone(), *id)).collect();
    let expected: Vec<_> = expected.into_iter().cloned().collect();
    assert_eq!(
        found, expected,
        "what was acknowledged is there, once, and nothing else"
    );

    for mut events in listeners {
        let mut heard: Vec<(String, MessageId, Seq)> = Vec::new();
        while heard.last().is_none_or(|(text, ..)| text != "the last") {
            let event = timeout(Duration::from_secs(10), events.next()).await.expect("heard");
            if let Event::MessagePosted { seq, message, .. } = event.unwrap().unwrap() {
                heard.push((message.text.clone(), message.id, seq));
            }
        }
        assert_eq!(heard, history, "heard once and in order");
    }
    for engine in engines {
        engine.close(Duration::ZERO).await;
    }
    refusals
}

/// A server of one's own, to be ill-treated.
fn own(test: &str) -> Option<Cluster> {
    let cluster = Cluster::start(&["fsync=off"]);
    if cluster.is_none() {
        skipped(test, "there is no PostgreSQL here (no initdb)");
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_that_comes_back_loses_and_doubles_nothing() {
    let Some(cluster) = own("a_killed_server_that_comes_back_loses_and_doubles_nothing") else {
        return;
    };
    goes_on_after(&cluster, async || {
        cluster.kill();
        sleep(Duration::from_secs(1)).await;
        cluster.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_sessions_lose_and_double_nothing() {
    let Some(cluster) = own("ended_sessions_lose_and_double_nothing") else {
        return;
    };
    goes_on_after(&cluster, async || {
        for _ in 0..5 {
            cluster.end_sessions();
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_loses_and_doubles_nothing() {
    let Some(cluster) = own("a_server_that_stalls_loses_and_doubles_nothing") else {
        return;
    };
    goes_on_after(&cluster, async || {
        cluster.pause();
        sleep(Duration::from_secs(2)).await;
        cluster.resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_loses_and_doubles_nothing() {
    let Some(cluster) = own("a_server_that_refuses_loses_and_doubles_nothing") else {
        return;
    };
    goes_on_after(&cluster, async || {
        // As a standby that was a primary a moment ago refuses.
        cluster.run("ALTER SYSTEM SET default_transaction_read_only = on");
        cluster.run("SELECT pg_reload_conf()");
        sleep(Duration::from_secs(1)).await;
        cluster.run("ALTER SYSTEM RESET default_transaction_read_only");
        cluster.run("SELECT pg_reload_conf()");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_and_doubles_nothing() {
    let test = "a_full_disk_loses_and_doubles_nothing";
    let Some(cluster) = own(test) else { return };
    let Some((url, disk)) = cluster.small_database(32) else {
        return skipped(test, "this process may not mount a disk");
    };
    let refusals = both_go_on_after(&url, async || {
        disk.fill();
        sleep(Duration::from_secs(2)).await;
        disk.empty();
    })
    .await;
    let full = refusals.iter().filter(|words| words.contains("full")).count();
    assert!(full > 0, "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_is_told_of_in_time() {
    let Some(cluster) = own("a_stalled_server_is_told_of_in_time") else {
        return;
    };
    let mut options = PostgresOptions::default();
    options.patience = Duration::from_millis(500);
    let store = PostgresStore::open_with(&cluster.database(), options).await.unwrap();
    cluster.pause();
    let begun = Instant::now();
    let refused = store.user_by_name("anne").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let refused = store.end_tokens(coop_core::UserId(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5));
    cluster.resume();
    assert_eq!(store.user_by_name("anne").await.unwrap(), None);
    store.close().await;
}

/// With a standby that commits wait for, the loss of the primary loses nothing that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_acknowledged() {
    let Some(primary) = own("a_failover_loses_nothing_acknowledged") else {
        return;
    };
    let standby = primary.standby("second");
    primary.wait_for_standby("second");
    let url = primary.database();
    let engine = Engine::builder(PostgresStore::open(&url).await.unwrap())
        .build()
        .await
        .unwrap();
    let owner = engine.create_user("owner").await.unwrap();
    let room = owner.create_room("lab").await.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let talking: Vec<_> = (0..4)
        .map(|who| tokio::spawn(until_refused(room.clone(), who, Arc::clone(&ended))))
        .collect();
    sleep(Duration::from_secs(1)).await;
    primary.kill();
    ended.store(true, Ordering::Release);
    let mut acknowledged = Vec::new();
    for sender in talking {
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(acknowledged.len() > 20, "they have talked: {}", acknowledged.len());
    standby.promote();
    let store = PostgresStore::open(&standby.url_of(url.rsplit('/').next().unwrap()))
        .await
        .unwrap();
    let second = Engine::builder(store).build().await.unwrap();
    let room = second.find_user("owner").await.unwrap().room(room.id()).await.unwrap();
    let history = whole_history(&room).await;
    for (text, id) in &acknowledged {
        let found = history
            .iter()
            .filter(|(said, other, _)| said == text && other == id)
            .count();
        assert_eq!(found, 1, "{text} was acknowledged");
    }
    // Whoever was in doubt sends again.
    for who in 0..4 {
        let next = acknowledged
            .iter()
            .filter(|(text, _)| text.starts_with(&format!("{who} ")))
            .count();
        let text = format!("{who} {next}");
        let sent = room.send(Draft::from(text.as_str()).client_id(&text)).await.unwrap();
        let said = whole_history(&room).await;
        assert_eq!(said.iter().filter(|(other, ..)| *other == text).count(), 1);
        assert!(said.iter().any(|(_, id, _)| *id == sent.message.id));
    }
    second.close(Duration::ZERO).await;
    engine.close(Duration::ZERO).await;
}

/// Sends until something is refused, and tells what was acknowledged.
async fn until_refused(room: Room, who: usize, ended: Arc<AtomicBool>) -> Vec<(String, MessageId)> {
    let mut acknowledged = Vec::new();
    for count in 0.. {
        let text = format!("{who} {count}");
        match room.send(Draft::from(text.as_str()).client_id(&text)).await {
            Ok(sent) => acknowledged.push((text, sent.message.id)),
            Err(_) => break,
        }
        if ended.load(Ordering::Acquire) {
            break;
        }
    }
    acknowledged
}
