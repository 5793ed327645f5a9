//! What can be read, in which order and in what pieces.

use super::flat::{ANNE, BOB, CARL, Flat, delete, edit, finish, invite, new_room, post, start, with_id};
use crate::event::Event;
use crate::id::Seq;
use crate::model::{Range, TurnEnd, TurnStatus};
use crate::store::{Batch, Intent, NewRoom, Outcome, Post, RoomStore};
use crate::time::Timestamp;
use std::sync::Arc;

/// What of an event never changes: all but the texts it carries, which are as they are when they are read.
fn bones(event: &Event) -> String {
    match event {
        Event::MessagePosted { seq, message, .. } => format!("{seq} posted {}", message.id),
        Event::MessageEdited { seq, message, .. } => format!("{seq} edited {}", message.id),
        Event::TurnStarted { seq, turn, message, .. } => format!("{seq} started {turn} {}", message.id),
        Event::TurnEnded {
            seq,
            turn,
            message,
            end,
            ..
        } => format!("{seq} ended {turn} {message:?} {end:?}"),
        other => format!("{other:?}"),
    }
}

pub(super) async fn events_replay_what_was_committed<S: RoomStore>(store: &S) {
    let (info, mut committed) = store.create_room(new_room("flat", ANNE, &[BOB])).await.expect("made");
    let id = info.id;
    let batch = |intents| Batch::new(id, Timestamp(2_000), intents);
    let ask = Post {
        asks: vec!["echo".into()],
        ..post(BOB, "well?")
    };
    let first = vec![
        Intent::Post(with_id(ANNE, "c", "hello")),
        Intent::Post(ask),
        invite(CARL, BOB),
        Intent::Remove { user: CARL, by: ANNE },
    ];
    let rename = |name: &str| Intent::Rename {
        name: name.to_owned(),
        by: ANNE,
    };
    let first = store.commit(batch(first)).await.expect("committed");
    committed.extend(first.events.iter().cloned());
    assert_eq!(
        store.events(id, Seq(0), 100).await.expect("readable"),
        committed,
        "all as it was"
    );
    let Ok(Outcome::Posted { message, .. }) = &first.outcomes[0] else {
        panic!("a post is posted");
    };
    let Ok(Outcome::Posted { turns, .. }) = &first.outcomes[1] else {
        panic!("an ask is posted");
    };
    let mut later = vec![
        vec![start("echo"), rename("a")],
        vec![rename("b"), Intent::HandOver { to: BOB, by: ANNE }],
        vec![finish(turns[0].id, TurnEnd::stopped(ANNE), Some("text"))],
        vec![edit(message.id, ANNE, "hi")],
        vec![delete(message.id, ANNE)],
    ];
    for intents in later.drain(..) {
        committed.extend(store.commit(batch(intents)).await.expect("committed").events);
    }
    let replayed = store.events(id, Seq(0), 100).await.expect("readable");
    let bones = |events: &[Arc<Event>]| -> Vec<String> { events.iter().map(|event| bones(event)).collect() };
    assert_eq!(bones(&replayed), bones(&committed));
    let now = store.message(id, message.id).await.expect("readable");
    assert_eq!(
        replayed[2].message(),
        now.as_ref(),
        "an event carries its message as it is now"
    );
}

pub(super) async fn events_come_in_pages<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    for n in 0..20 {
        flat.say(ANNE, &n.to_string()).await;
    }
    let all = flat.log().await;
    assert_eq!(all.len(), 21);
    let (mut after, mut pages) = (Seq(0), Vec::new());
    loop {
        let page = store.events(flat.id, after, 6).await.expect("readable");
        let Some(last) = page.last() else { break };
        after = last.seq().expect("a durable event has a position");
        pages.extend(page);
    }
    assert_eq!(pages, all);
    assert_eq!(store.events(flat.id, Seq(20), 6).await.expect("readable"), all[20..]);
    assert_eq!(store.events(flat.id, Seq(99), 6).await.expect("readable"), Vec::new());
}

pub(super) async fn history_comes_in_pages<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(flat.say(ANNE, &n.to_string()).await);
        flat.one(Intent::Rename {
            name: n.to_string(),
            by: ANNE,
        })
        .await;
    }
    for gone in [19, 12, 5] {
        flat.one(delete(all.remove(gone).id, ANNE)).await;
    }
    let page = async |range, limit| store.history(flat.id, range, limit).await.expect("readable");
    let newest = page(Range::Newest, 5).await;
    assert_eq!((&newest.messages[..], newest.more), (&all[12..], true));
    let older = page(Range::Before(newest.messages[0].seq), 5).await;
    assert_eq!((&older.messages[..], older.more), (&all[7..12], true));
    let oldest = page(Range::Before(older.messages[0].seq), 7).await;
    assert_eq!((&oldest.messages[..], oldest.more), (&all[..7], false));
    let before_all = page(Range::Before(all[0].seq), 7).await;
    assert!(before_all.messages.is_empty() && !before_all.more);
    let after = page(Range::After(all[6].seq), 5).await;
    assert_eq!((&after.messages[..], after.more), (&all[7..12], true));
    let last = page(Range::After(all[11].seq), 5).await;
    assert_eq!((&last.messages[..], last.more), (&all[12..], false));
    let between = page(Range::After(Seq(all[11].seq.0 + 1)), 1).await;
    assert_eq!((&between.messages[..], between.more), (&all[12..13], true));
    assert!(page(Range::After(Seq(99)), 5).await.messages.is_empty());
    let none = page(Range::Newest, 0).await;
    assert_eq!((none.messages.len(), none.more), (0, true));
}

pub(super) async fn a_snapshot_is_of_one_moment<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    for n in 0..9 {
        flat.say(ANNE, &n.to_string()).await;
    }
    let writing = async {
        for n in 0..60 {
            flat.commit(vec![
                Intent::Post(post(BOB, &n.to_string())),
                Intent::Rename {
                    name: n.to_string(),
                    by: ANNE,
                },
            ])
            .await;
        }
    };
    let reading = async {
        for _ in 0..60 {
            let snapshot = store.snapshot(flat.id, 3).await.expect("readable").expect("there");
            let last = snapshot.messages.last().expect("messages");
            let settled = snapshot.seq == Seq(11);
            assert!(
                settled || last.seq.0 == snapshot.seq.0 - 1,
                "what is inside is up to its seq"
            );
            assert!(
                settled || last.text == snapshot.info.name,
                "all of one commit or none of it"
            );
            assert_eq!((snapshot.messages.len(), snapshot.members.len()), (3, 2));
            tokio::task::yield_now().await;
        }
    };
    futures::join!(writing, reading);
    let snapshot = store.snapshot(flat.id, 3).await.expect("readable").expect("there");
    let head = store.room(flat.id).await.expect("readable").expect("there");
    assert_eq!(
        (snapshot.seq, snapshot.epoch, &snapshot.info),
        (head.seq, head.epoch, &head.info)
    );
    assert_eq!(snapshot.members, store.members(flat.id).await.expect("readable"));
    let page = store.history(flat.id, Range::Newest, 3).await.expect("readable");
    assert_eq!((snapshot.messages, snapshot.tapes), (page.messages, Vec::new()));
}

pub(super) async fn rooms_come_newest_first<S: RoomStore>(store: &S) {
    let room = |name: &str, at| NewRoom {
        now: Timestamp(at),
        ..new_room(name, ANNE, &[BOB])
    };
    let old = Flat::of(store, room("old", 1_000)).await;
    let mid = Flat::of(store, room("mid", 2_000)).await;
    let new = Flat::of(store, room("new", 3_000)).await;
    Flat::of(store, new_room("not his", CARL, &[])).await;
    let order = async || -> Vec<_> {
        let rooms = store.rooms_of(BOB, None).await.expect("readable");
        rooms.into_iter().map(|entry| entry.info.id).collect()
    };
    assert_eq!(order().await, [new.id, mid.id, old.id], "by creation");
    let batch = |now, intent| Batch::new(old.id, Timestamp(now), vec![intent]);
    store
        .commit(batch(2_500, Intent::Post(post(ANNE, "x"))))
        .await
        .expect("committed");
    assert_eq!(order().await, [new.id, old.id, mid.id], "by the last message");
    let newest = store
        .commit(batch(3_500, Intent::Post(post(ANNE, "y"))))
        .await
        .expect("committed");
    assert_eq!(order().await, [old.id, new.id, mid.id]);
    let only = store.rooms_of(BOB, Some(old.id)).await.expect("readable");
    assert_eq!((only.len(), only[0].unread, only[0].seq), (1, 2, newest.seq));
    let head = store.room(old.id).await.expect("readable").expect("there");
    assert_eq!((only[0].epoch, &only[0].info), (head.epoch, &head.info));
    assert_eq!(
        only[0].last_message.as_ref().map(|message| message.text.as_str()),
        Some("y")
    );
}

pub(super) async fn parallel_commits_of_many_rooms<S: RoomStore>(store: &S) {
    let mut flats = Vec::new();
    for _ in 0..12 {
        flats.push(Flat::with(store, &[BOB]).await);
    }
    let talking = flats.iter().map(|flat| async move {
        for n in 0..15 {
            flat.post(with_id(ANNE, &n.to_string(), "x")).await;
            flat.refused(Intent::Post(with_id(ANNE, &n.to_string(), "y")), "conflict")
                .await;
            flat.ask(BOB, "echo").await;
            let (turn, _) = flat.started("echo").await;
            flat.end(turn.id, TurnEnd::new(TurnStatus::Done), Some("z")).await;
        }
    });
    futures::future::join_all(talking).await;
    let mut ids = Vec::new();
    for flat in &flats {
        let log = flat.log().await;
        assert_eq!(log.len(), 2 + 15 * 5);
        for (event, seq) in log.iter().zip(1..) {
            assert_eq!(event.seq(), Some(Seq(seq)), "a room's log has no holes");
        }
        let page = store.history(flat.id, Range::Newest, 100).await.expect("readable");
        assert_eq!(page.messages.len(), 45);
        ids.extend(page.messages.iter().map(|message| message.id));
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "no id twice");
}

pub(super) async fn a_closed_store_says_so<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    store.close().await;
    store.close().await;
    let closed = crate::ErrorKind::Closed;
    let batch = Batch::new(flat.id, Timestamp(1), vec![Intent::Post(post(ANNE, "x"))]);
    assert_eq!(store.commit(batch).await.expect_err("closed").kind(), closed);
    assert_eq!(store.room(flat.id).await.expect_err("closed").kind(), closed);
    assert_eq!(store.snapshot(flat.id, 1).await.expect_err("closed").kind(), closed);
    let error = store.create_room(new_room("x", ANNE, &[])).await.expect_err("closed");
    assert_eq!(error.kind(), closed);
}
