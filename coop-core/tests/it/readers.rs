//! Readers: whoever is behind is filled without a gap, disturbs nobody, and sees nothing any more of what they lost.

use crate::faults::FaultyStore;
use crate::scene::{A_MOMENT, Scene, a_moment, is_end, kind, ms, next, notices, reads, settled, to_the_end, until};
use coop_core::live::Pace;
use coop_core::mutant::Mutant;
use coop_core::store::memory::MemoryStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::testing::simulation::Shown;
use coop_core::{ErrorKind, Event, GoneReason, HintKind, Room, Seq, Subscription};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What a reader shows after these events, each of which must follow.
fn shown(first: &Event, events: &[Event]) -> Shown {
    let mut shown = Shown::begin(first).expect("a snapshot");
    for event in events {
        shown.apply(event).unwrap();
    }
    shown
}

/// What a reader that comes now shows.
async fn fresh(room: &Room) -> Shown {
    let (snapshot, _) = reads(room).await;
    Shown::begin(&Event::Snapshot(Box::new(snapshot))).unwrap()
}

async fn texts(room: &Room) -> Vec<String> {
    let mut texts = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = room.history(coop_core::Range::After(after), 200).await.unwrap();
        texts.extend(page.messages.iter().map(|message| message.text.clone()));
        match page.messages.last() {
            Some(last) => after = last.seq,
            None => return texts,
        }
    }
}

/// What others experience while bob reads or does not.
struct Experience {
    /// From sending to receiving, for each message.
    delays: Vec<Duration>,
    /// The most that was kept in memory for readers behind.
    kept: (usize, usize),
}

const SMALL: Pace = Pace {
    events: ms(5),
    deltas: ms(25),
    entries: 64,
    bytes: 16 * 1024,
};

async fn experience(bob_is_stuck: bool) -> Experience {
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.pace(SMALL)).await;
    let stuck = match bob_is_stuck {
        true => Some((
            scene.bobs.subscribe().await.unwrap(),
            scene.bob.subscribe().await.unwrap(),
        )),
        false => None,
    };
    let (_, mut reader) = reads(&scene.room).await;
    let receiving = tokio::spawn(async move {
        let mut received = Vec::new();
        while received.len() < 600 {
            if let Event::MessagePosted { .. } = next(&mut reader).await {
                received.push(Instant::now());
            }
        }
        received
    });
    let (turn, answering) = scene.ask("a long answer").await;
    let mut sent = vec![Instant::now()];
    let mut kept = (0, 0);
    for n in 1..600 {
        sent.push(Instant::now());
        scene
            .room
            .send(format!("message {n}: {}", "x".repeat(n)))
            .await
            .unwrap();
        answering.say("and so on, ").await.unwrap();
        let now = scene.room.live_queue();
        kept = (now.0.max(kept.0), now.1.max(kept.1));
        sleep(ms(n as u64 % 7)).await;
    }
    answering.finish();
    turn.ended().await.unwrap();
    let received = receiving.await.unwrap();
    // The ask was received before it was noted as sent.
    let delays = sent
        .iter()
        .zip(&received)
        .skip(1)
        .map(|(sent, received)| *received - *sent);
    let experience = Experience {
        delays: delays.collect(),
        kept,
    };
    if let Some((mut room, user)) = stuck {
        // Now bob reads on, and has missed nothing.
        let first = next(&mut room).await;
        let events = settled(&mut room).await;
        let bobs = shown(&first, &events);
        assert_eq!(bobs.position, fresh(&scene.bobs).await.position);
        let posted = events
            .iter()
            .filter_map(Event::message)
            .filter(|message| message.author.user.is_some());
        assert_eq!(posted.count(), 600);
        assert!(events.iter().any(is_end));
        without_gaps(user).await;
    }
    scene.close().await;
    experience
}

/// A subscription to one room's events has every event, in order.
async fn without_gaps(mut user: Subscription) {
    let Event::RoomGained { entry } = next(&mut user).await else {
        panic!("it begins with the rooms")
    };
    let mut at = entry.seq;
    for event in settled(&mut user).await {
        assert_eq!(event.seq(), Some(at.next()));
        at = at.next();
    }
    assert!(at > Seq(600));
}

/// I6: nobody else notices, neither in time nor in memory.
#[test]
fn a_reader_that_does_not_read_disturbs_nobody() {
    notices(Mutant::BoundedQueue, || async {
        let with = experience(true).await;
        let without = experience(false).await;
        assert_eq!(with.delays, without.delays);
        assert!(
            with.kept.0 <= SMALL.entries && with.kept.1 <= SMALL.bytes,
            "{:?}",
            with.kept
        );
    });
}

#[tokio::test(start_paused = true)]
async fn who_sleeps_through_thousands_of_events_misses_none() {
    let scene = Scene::new().await;
    let mut bob = scene.bobs.subscribe().await.unwrap();
    let first = next(&mut bob).await;
    let sending = (0..3_000).map(|n| scene.room.send(n.to_string()));
    for sent in futures::future::join_all(sending).await {
        sent.unwrap();
    }
    let events = settled(&mut bob).await;
    assert_eq!(events.len(), 3_000);
    let bobs = shown(&first, &events);
    let said: Vec<_> = events
        .iter()
        .map(|event| event.message().unwrap().text.clone())
        .collect();
    assert_eq!(said, texts(&scene.bobs).await, "the one order of the room");
    assert_eq!(bobs.position, fresh(&scene.bobs).await.position);
    // Too far behind to be told everything: whoever comes back so late begins anew.
    let mut position = bobs.position.clone();
    position.seq.0 -= 501;
    let mut late = scene.bobs.resume(position.clone()).await.unwrap();
    assert!(matches!(next(&mut late).await, Event::Snapshot(_)));
    position.seq.0 += 1;
    let mut late = scene.bobs.resume(position).await.unwrap();
    assert_eq!(settled(&mut late).await.len(), 500);
    scene.close().await;
}

#[tokio::test]
async fn who_is_behind_is_filled_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("chat.db")).await.unwrap();
    let scene = Scene::with(store, |builder| builder.pace(SMALL)).await;
    let mut bob = scene.bobs.subscribe().await.unwrap();
    let first = next(&mut bob).await;
    for round in 0..5 {
        let sending = (0..200).map(|n| scene.room.send(format!("{round} {n}")));
        for sent in futures::future::join_all(sending).await {
            sent.unwrap();
        }
    }
    let last = |event: &Event| event.seq() == Some(Seq(1_002));
    let events = until(&mut bob, last).await;
    assert_eq!(events.len(), 1_000);
    assert_eq!(shown(&first, &events).position.seq, Seq(1_002));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_now_is_read_later() {
    let store = FaultyStore::default();
    let scene = Scene::with(store.clone(), |builder| builder.pace(SMALL)).await;
    let mut bob = scene.bobs.subscribe().await.unwrap();
    let first = next(&mut bob).await;
    for n in 0..100 {
        scene.room.send(n.to_string()).await.unwrap();
    }
    store.set(|faults| faults.unreadable = 2);
    // The first was offered at once, the others when the queue had moved on.
    let mut events = vec![next(&mut bob).await];
    for _ in 0..2 {
        assert_eq!(kind(bob.next().await.unwrap()), ErrorKind::Unavailable);
    }
    events.extend(settled(&mut bob).await);
    assert_eq!(events.len(), 100);
    shown(&first, &events);
    scene.close().await;
}

/// I1, I5: a commit of which nobody knows whether it happened.
#[tokio::test(start_paused = true)]
async fn what_was_committed_in_doubt_reaches_everyone_once() {
    let store = FaultyStore::default();
    let scene = Scene::on(store.clone()).await;
    let mut bob = scene.bobs.subscribe().await.unwrap();
    let first = next(&mut bob).await;
    let draft = || coop_core::Draft::text("/ann perhaps").client_id("c1");
    store.set(|faults| faults.doubt = 1);
    assert_eq!(kind(scene.room.send(draft()).await), ErrorKind::Unavailable);
    let again = scene.room.send(draft()).await.unwrap();
    assert!(again.duplicate);
    store.set(|faults| faults.refuse = 1);
    let other = || coop_core::Draft::text("certainly not").client_id("c2");
    assert_eq!(kind(scene.room.send(other()).await), ErrorKind::Unavailable);
    assert!(!scene.room.send(other()).await.unwrap().duplicate);
    let events = settled(&mut bob).await;
    shown(&first, &events);
    let said: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::MessagePosted { message, .. } => Some(message.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["/ann perhaps", "certainly not"]);
    let started = events.iter().filter(|event| matches!(event, Event::TurnStarted { .. }));
    assert_eq!(
        started.count(),
        1,
        "its turn runs, though nobody was told that it was asked for"
    );
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn everyone_sees_the_same() {
    let mut scene = Scene::new().await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(scene.bob_reads().await);
    }
    let (_, answering) = scene.ask("tell").await;
    for n in 0..30 {
        answering.say("piece ").await.unwrap();
        let _ = tokio::join!(scene.room.send(n.to_string()), scene.bobs.send(format!("{n}!")));
    }
    answering.finish();
    let logs = |events: Vec<Event>| {
        events
            .into_iter()
            .filter(|event| event.seq().is_some())
            .collect::<Vec<_>>()
    };
    let first = logs(settled(&mut readers[0]).await);
    assert_eq!(first.len(), 64);
    for reader in &mut readers[1..] {
        assert_eq!(logs(settled(reader).await), first);
    }
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_nowhere_left_to_read() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let mut position = bob.position().unwrap().clone();
    let (turn, answering) = scene.ask("tell").await;
    answering.say("a secret").await.unwrap();
    a_moment().await;
    answering.finish();
    turn.ended().await.unwrap();
    let answer = scene.room.history(coop_core::Range::Newest, 1).await.unwrap().messages[0].id;
    let said = scene.bobs.send("another secret").await.unwrap().message.id;
    scene.bobs.edit(said, "the same secret").await.unwrap();
    for message in [answer, said] {
        scene.room.delete(message).await.unwrap();
    }
    let queued = settled(&mut bob).await;
    position.tapes.clear();
    let stored = settled(&mut scene.bobs.resume(position).await.unwrap()).await;
    for events in [queued, stored] {
        assert_eq!(events.iter().filter(|event| event.seq().is_some()).count(), 8);
        assert!(!format!("{events:?}").contains("secret"), "{events:?}");
    }
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn hints_do_not_pile_up() {
    let scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    for _ in 0..500 {
        scene.room.typing().await.unwrap();
        sleep(ms(1)).await;
        scene.room.presence(true).await.unwrap();
        sleep(ms(1)).await;
    }
    let hints = settled(&mut bob).await;
    assert!((2..=64).contains(&hints.len()), "{}", hints.len());
    assert!(matches!(hints.last(), Some(Event::Hint(hint)) if hint.what == HintKind::Presence { here: true }));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_in_memory_for_those_who_have_gone() {
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.idle_after(ms(100))).await;
    let bob = scene.bob_reads().await;
    let all = scene.bob.subscribe().await.unwrap();
    sleep(ms(500)).await;
    assert_eq!(scene.engine.rooms_in_memory(), 1);
    drop((bob, all));
    scene.room.send("and then silence").await.unwrap();
    sleep(ms(500)).await;
    assert_eq!(scene.engine.rooms_in_memory(), 0);
    let (_turn, _answering) = scene.ask("talk").await;
    sleep(ms(500)).await;
    assert_eq!(scene.engine.rooms_in_memory(), 1, "an answer is being written");
    scene.room.delete_room().await.unwrap();
    sleep(ms(500)).await;
    assert_eq!(scene.engine.rooms_in_memory(), 0, "a deleted room is gone");
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_handle_outlives_the_room_in_memory() {
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.idle_after(ms(100))).await;
    sleep(ms(500)).await;
    assert_eq!(scene.engine.rooms_in_memory(), 0);
    let mut bob = reads(&scene.bob.room(scene.room.id()).await.unwrap()).await.1;
    scene.room.typing().await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::Hint(hint) if hint.user == scene.alice.id()));
    let (turn, answering) = scene.ask("talk").await;
    answering.say("so far").await.unwrap();
    let page = scene.room.history(coop_core::Range::Newest, 1).await.unwrap();
    assert_eq!(page.messages[0].text, "so far");
    turn.stop().await.unwrap();
    let events = until(&mut bob, is_end).await;
    assert!(matches!(
        &events[..],
        [Event::MessagePosted { .. }, .., Event::TurnEnded { .. }]
    ));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_the_engine_and_has_all_that_came_before() {
    let scene = Scene::with(MemoryStore::new(), |builder| builder.pace(SMALL)).await;
    let mut bob = scene.bob_reads().await;
    let mut all = scene.bob.subscribe().await.unwrap();
    scene.room.send("last words").await.unwrap();
    // Gained at the last moment.
    let draft = coop_core::RoomDraft::named("too late").with([scene.bob.clone()]);
    scene.alice.create_room(draft).await.unwrap();
    scene.close().await;
    let events = to_the_end(&mut bob).await;
    assert!(matches!(&events[..], [Event::MessagePosted { message, .. }] if message.text == "last words"));
    assert!(bob.next().await.is_none(), "ended for good");
    let mut results = Vec::new();
    while let Some(result) = tokio::time::timeout(A_MOMENT, all.next()).await.expect("it ends") {
        results.push(result);
        assert!(results.len() < 10, "it ends: {results:?}");
    }
    let posted = |result: &&Result<Event, _>| matches!(result, Ok(Event::MessagePosted { .. }));
    assert_eq!(results.iter().filter(posted).count(), 1);
    assert_eq!(kind(scene.bobs.subscribe().await), ErrorKind::Closed);
    assert_eq!(kind(scene.bob.subscribe().await), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_was_behind_when_the_engine_closed_is_told_so() {
    let scene = Scene::with(MemoryStore::new(), |builder| builder.pace(SMALL)).await;
    let mut bob = scene.bob_reads().await;
    for n in 0..200 {
        scene.room.send(n.to_string()).await.unwrap();
    }
    scene.close().await;
    assert_eq!(
        kind(bob.next().await.unwrap()),
        ErrorKind::Closed,
        "more than the queue holds"
    );
    assert!(bob.next().await.is_none());
}

// I7.

#[test]
fn who_was_removed_reads_nothing_any_more() {
    notices(Mutant::GoneBeforePublish, || async {
        let mut scene = Scene::new().await;
        let mut awake = scene.bob_reads().await;
        let mut asleep = scene.bob_reads().await;
        let mut halfway = scene.bob_reads().await;
        let (_, answering) = scene.ask("talk").await;
        for n in 0..20 {
            answering.say("word ").await.unwrap();
            scene.room.send(n.to_string()).await.unwrap();
        }
        // Taken from the room already, and not by bob yet.
        next(&mut halfway).await;
        settled(&mut awake).await;
        let (removed, last) = tokio::join!(scene.room.remove(scene.bob.id()), async {
            let events = to_the_end(&mut awake).await;
            (Instant::now(), events)
        });
        removed.unwrap();
        scene.room.send("now that we are among ourselves").await.unwrap();
        answering.say("word ").await.unwrap();
        a_moment().await;
        for events in [last.1, to_the_end(&mut asleep).await, to_the_end(&mut halfway).await] {
            let [Event::Gone { room, reason, by }] = &events[..] else {
                panic!("nothing more than that: {events:?}")
            };
            let expected = (scene.room.id(), GoneReason::Removed, Some(scene.alice.id()));
            assert_eq!((*room, *reason, *by), expected);
        }
        scene.close().await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_user_hears_of_rooms_gained_and_lost() {
    let scene = Scene::new().await;
    let mut bob = scene.bob.subscribe().await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::RoomGained { entry } if entry.info.name == "lab"));
    let draft = coop_core::RoomDraft::named("den").with([scene.bob.clone()]);
    let den = scene.alice.create_room(draft).await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::RoomGained { entry } if entry.info.id == den.id()));
    let own = scene.bob.create_room("own").await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::RoomGained { entry } if entry.info.id == own.id()));
    den.send("never read").await.unwrap();
    den.remove(scene.bob.id()).await.unwrap();
    den.send("among ourselves").await.unwrap();
    scene.room.send("still here").await.unwrap();
    let events = settled(&mut bob).await;
    let [
        Event::Gone {
            room,
            reason: GoneReason::Removed,
            ..
        },
        Event::MessagePosted { message, .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*room, message.text.as_str()), (den.id(), "still here"));
    den.invite(&scene.bob).await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::RoomGained { entry } if entry.info.id == den.id()));
    den.send("welcome back").await.unwrap();
    let events = settled(&mut bob).await;
    assert!(matches!(events.last(), Some(Event::MessagePosted { message, .. }) if message.text == "welcome back"));
    own.delete_room().await.unwrap();
    scene.bobs.leave().await.unwrap();
    let mut lost: Vec<_> = settled(&mut bob)
        .await
        .into_iter()
        .map(|event| match event {
            Event::Gone { room, reason, .. } => (room, reason),
            other => panic!("{other:?}"),
        })
        .collect();
    lost.sort_by_key(|(room, _)| *room);
    let expected = [(scene.room.id(), GoneReason::Removed), (own.id(), GoneReason::Deleted)];
    assert_eq!(lost, expected);
    scene.close().await;
}

/// At events level there are neither deltas nor typing, and everything else.
#[tokio::test(start_paused = true)]
async fn a_user_reads_events_and_read_marks_of_all_rooms() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob.subscribe().await.unwrap();
    settled(&mut bob).await;
    let (_, answering) = scene.ask("talk").await;
    answering.say("words").await.unwrap();
    scene.room.typing().await.unwrap();
    a_moment().await;
    answering.finish();
    scene.room.mark_all_read().await.unwrap();
    sleep(ms(300)).await;
    let kinds: Vec<_> = settled(&mut bob)
        .await
        .iter()
        .map(|event| match event {
            Event::MessagePosted { .. } => "posted",
            Event::TurnQueued { .. } => "queued",
            Event::TurnStarted { .. } => "started",
            Event::TurnEnded { text, .. } if &**text == "words" => "ended",
            Event::Hint(hint) if matches!(hint.what, HintKind::Read { .. }) => "read",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "read").count(), 1);
    let log: Vec<_> = kinds.into_iter().filter(|kind| *kind != "read").collect();
    assert_eq!(log, ["posted", "queued", "started", "ended"]);
    scene.close().await;
}
