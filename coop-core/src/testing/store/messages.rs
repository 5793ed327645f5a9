//! What people say, change and take back.

use super::flat::{ANNE, BOB, CARL, DORA, Flat, delete, edit, finish, invite, keep, name_of, post, with_id};
use crate::event::Event;
use crate::id::{MessageId, Seq};
use crate::model::{Author, Message, MessageStatus, Meta, Range, TurnEnd, TurnStatus};
use crate::search;
use crate::store::{Intent, Outcome, Post, RoomStore};
use crate::{Error, Result};
use std::sync::Arc;

pub(super) async fn a_post_appears_once_for_everyone<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let meta = Meta::from_json(r#"{ "colour":  "red", "n": 1.0 }"#).expect("an object");
    let first = flat.say(BOB, "first").await;
    let said = Post {
        meta: Some(meta.clone()),
        reply_to: Some(first.id),
        ..with_id(ANNE, "c-1", "hello")
    };
    let committed = flat.commit(vec![Intent::Post(said)]).await;
    let [event] = &committed.events[..] else {
        panic!("{:?}", committed.events);
    };
    let message = event.message().expect("a post's event carries it").clone();
    let expected = Message {
        reply_to: Some(first.id),
        meta: Some(meta),
        client_id: Some("c-1".into()),
        ..Message::new(
            message.id,
            flat.id,
            Seq(4),
            Author::person(ANNE, name_of(ANNE)),
            "hello".into(),
            flat.now(),
        )
    };
    assert_eq!(*message, expected);
    assert_eq!((committed.seq, message.status), (Seq(4), MessageStatus::Done));
    assert_eq!(flat.message(message.id).await, message);
    assert_eq!(flat.log().await.last(), Some(event));
    let page = store.history(flat.id, Range::Newest, 10).await.expect("readable");
    assert_eq!(page.messages, [first, message.clone()]);
    assert_eq!(flat.entry(BOB).await.last_message, Some(message));
    assert_eq!(
        store.message(flat.id, MessageId(999_999)).await.expect("readable"),
        None
    );
    let other = Flat::with(store, &[]).await;
    let elsewhere = store.message(other.id, expected.id).await.expect("readable");
    assert_eq!(elsewhere, None, "a message is found in its room only");
}

fn repeated(outcome: Result<Outcome>) -> Arc<Message> {
    match outcome {
        Ok(Outcome::Posted {
            message,
            duplicate: true,
            ..
        }) => message,
        other => panic!("a resend is a duplicate, not {other:?}"),
    }
}

pub(super) async fn a_resend_is_the_same_message_for_ever<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let again = || Intent::Post(with_id(BOB, "c", "once"));
    let other = || Intent::Post(with_id(BOB, "c", "other"));
    let said = flat.post(with_id(BOB, "c", "once")).await.0;
    assert_eq!(repeated(Ok(flat.nothing(again()).await)), said);
    flat.refused(other(), "conflict").await;
    flat.one(edit(said.id, BOB, "other")).await;
    assert_eq!(repeated(Ok(flat.nothing(again()).await)).text, "other", "as it is now");
    flat.refused(other(), "conflict").await;
    flat.one(delete(said.id, BOB)).await;
    let left = repeated(Ok(flat.nothing(again()).await));
    assert_eq!((left.id, left.text.as_str()), (said.id, ""));
    assert!(left.deleted_at.is_some());
    let (by, user) = (BOB, BOB);
    flat.one(Intent::Remove { user, by }).await;
    flat.refused(again(), "not_found").await;
    flat.one(invite(BOB, ANNE)).await;
    assert_eq!(repeated(Ok(flat.nothing(again()).await)).id, said.id);
}

pub(super) async fn a_resend_within_a_batch_is_a_duplicate<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let said = |text| Intent::Post(with_id(ANNE, "c", text));
    let mut committed = flat.commit(vec![said("x"), said("x"), said("y")]).await;
    assert_eq!(committed.events.len(), 1);
    let code = committed.outcomes.remove(2).err().map(|error| error.code());
    assert_eq!(code, Some("conflict"));
    let message = repeated(committed.outcomes.remove(1));
    assert_eq!(committed.events[0].message(), Some(&message));
    assert_eq!(repeated(Ok(flat.nothing(said("x")).await)), message);
}

pub(super) async fn one_client_id_of_two_authors_is_two_messages<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let next_door = Flat::with(store, &[BOB]).await;
    let a = flat.post(with_id(ANNE, "same", "x")).await.0;
    let b = flat.post(with_id(BOB, "same", "y")).await.0;
    let c = next_door.post(with_id(ANNE, "same", "z")).await.0;
    assert!(a.id < b.id && b.id < c.id);
    let without = flat.commit(vec![Intent::Post(post(ANNE, "x")), Intent::Post(post(ANNE, "x"))]);
    assert_eq!(without.await.events.len(), 2, "without a client id nothing is a resend");
}

pub(super) async fn replies_stay_in_their_room<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let other = Flat::with(store, &[]).await;
    let there = other.say(ANNE, "there").await;
    let reply = |to| {
        Intent::Post(Post {
            reply_to: Some(to),
            ..post(ANNE, "reply")
        })
    };
    flat.refused(reply(there.id), "not_found").await;
    flat.refused(reply(MessageId(999_999)), "not_found").await;
    flat.refused(edit(there.id, ANNE, "x"), "not_found").await;
    flat.refused(delete(there.id, ANNE), "not_found").await;
    other.one(reply(there.id)).await;
}

pub(super) async fn only_authors_edit<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let said = flat.say(BOB, "befor").await;
    flat.refused(edit(said.id, ANNE, "mine"), "forbidden").await;
    flat.refused(edit(said.id, DORA, "mine"), "not_found").await;
    flat.refused(edit(MessageId(999_999), BOB, "x"), "not_found").await;
    let committed = flat.commit(vec![edit(said.id, BOB, "before")]).await;
    let changed = Message {
        text: "before".into(),
        edited_at: Some(flat.now()),
        edits: 1,
        ..(*said).clone()
    };
    let event = Event::MessageEdited {
        room: flat.id,
        seq: committed.seq,
        message: Arc::new(changed.clone()),
    };
    assert_eq!(*committed.events[0], event);
    assert_eq!(*flat.message(said.id).await, changed);
    let posted = &flat.log().await[2];
    assert_eq!(posted.message().map(|message| message.text.as_str()), Some("before"));
    flat.one(delete(said.id, BOB)).await;
    flat.refused(edit(said.id, BOB, "back"), "not_found").await;
}

pub(super) async fn deleting_scrubs_everywhere<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB, CARL]).await;
    let secret = Post {
        meta: Some(Meta::from_json(r#"{"s":"secret"}"#).expect("an object")),
        ..with_id(BOB, "c", "secret")
    };
    let said = flat.post(secret).await.0;
    flat.one(edit(said.id, BOB, "secret, edited")).await;
    let after = flat.say(ANNE, "after").await;
    flat.refused(delete(said.id, CARL), "forbidden").await;
    let committed = flat.commit(vec![delete(said.id, ANNE)]).await;
    let deleted_at = Some(flat.now());
    let event = Event::MessageDeleted {
        room: flat.id,
        seq: committed.seq,
        message: said.id,
        by: ANNE,
    };
    assert_eq!(*committed.events[0], event);
    flat.nothing(delete(said.id, ANNE)).await;
    flat.nothing(delete(said.id, BOB)).await;
    let left = flat.message(said.id).await;
    assert_eq!(
        (left.text.as_str(), &left.meta, left.deleted_at),
        ("", &None, deleted_at)
    );
    assert_eq!(
        left.client_id.as_deref(),
        Some("c"),
        "the sender's id stays, to know a resend"
    );
    let everything = format!(
        "{:?} {:?} {:?}",
        flat.log().await,
        store.history(flat.id, Range::Newest, 10).await.expect("readable"),
        store.snapshot(flat.id, 10).await.expect("readable"),
    );
    assert!(!everything.contains("secret"), "{everything}");
    let page = store.history(flat.id, Range::Newest, 10).await.expect("readable");
    assert_eq!(page.messages, std::slice::from_ref(&after));
    flat.one(delete(after.id, ANNE)).await;
    assert_eq!(flat.entry(BOB).await.last_message, None);
}

pub(super) async fn words_are_found_in_their_room<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let other = Flat::with(store, &[]).await;
    let first = flat
        .say(ANNE, "Élise, the MIGRATION (v2.1) is at example.com/plan_b")
        .await;
    let second = flat.say(BOB, "which migrations? c1 c2 c3").await;
    other.say(ANNE, "another migration").await;
    let find = async |text: &str, before, limit| {
        let page = store.find(flat.id, &search::wanted(text), before, limit).await;
        let page = page.expect("readable");
        let ids: Vec<_> = page.messages.iter().map(|message| message.id).collect();
        (ids, page.more)
    };
    let all = async |text: &str| find(text, None, 10).await.0;
    for (text, found) in [
        ("migration", vec![first.id, second.id]),
        ("MIGRA", vec![first.id, second.id]),
        ("is migration", vec![first.id]),
        ("migrations", vec![second.id]),
        ("igration", vec![]),
        ("élise", vec![first.id]),
        ("1 example plan b com", vec![first.id]),
        ("v2 1", vec![first.id]),
        ("migration nowhere", vec![]),
    ] {
        assert_eq!(all(text).await, found, "{text}");
    }
    assert_eq!(find("migration", None, 1).await, (vec![second.id], true));
    assert_eq!(find("migration", Some(second.seq), 1).await, (vec![first.id], false));

    flat.one(edit(second.id, BOB, "which plans?")).await;
    assert_eq!(
        all("migration").await,
        [first.id],
        "an edited message has its new words alone"
    );
    assert_eq!(all("plan").await, [first.id, second.id]);
    flat.one(delete(first.id, ANNE)).await;
    assert_eq!(all("plan").await, [second.id], "a deleted one is not found");

    let turn = flat.ask(ANNE, "echo").await;
    let (_, answer) = flat.started("echo").await;
    flat.one(keep(turn.id, "the plan so far")).await;
    assert_eq!(all("plan").await, [second.id], "an answer is not found before its end");
    flat.one(finish(
        turn.id,
        TurnEnd::new(TurnStatus::Done),
        Some("the plan is a secret"),
    ))
    .await;
    assert_eq!(all("plan secret").await, [answer]);
    assert_eq!(all("far").await, []);
}

pub(super) async fn every_text_comes_back_as_it_was<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let long = "ä\"\\\n".repeat(16_000);
    let texts = [
        "",
        " ",
        "null",
        "1e3",
        "007",
        "[1]",
        "{\"a\":1}",
        "'; DROP TABLE messages; --",
        "a\u{1}b\u{7f}\u{2028}",
        "👩‍👩‍👧 \u{10ffff} \u{feff}",
        "\r\n\t",
        "%_\\",
        &long,
    ];
    for text in texts {
        let said = flat.post(with_id(ANNE, text.get(..60).unwrap_or(text), text)).await.0;
        assert_eq!(flat.message(said.id).await.text, text);
        flat.one(edit(said.id, ANNE, text)).await;
        assert_eq!(flat.message(said.id).await.text, text);
        let turn = flat.ask(ANNE, "echo").await;
        let (_, answer) = flat.started("echo").await;
        let text: Arc<str> = text.into();
        let turn = turn.id;
        flat.one(keep(turn, &text)).await;
        assert_eq!(flat.message(answer).await.text, *text);
        flat.end(turn, crate::TurnEnd::new(crate::TurnStatus::Done), None).await;
        assert_eq!(flat.message(answer).await.text, *text);
    }
}

pub(super) async fn a_batch_is_applied_in_order_and_fails_piecemeal<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let said = flat.say(BOB, "x").await;
    let (by, user) = (ANNE, BOB);
    let intents = vec![
        Intent::Post(post(CARL, "too early")),
        invite(CARL, BOB),
        Intent::Post(post(CARL, "in time")),
        edit(said.id, BOB, "changed"),
        Intent::Remove { user, by },
        edit(said.id, BOB, "too late"),
        delete(said.id, ANNE),
        Intent::Post(post(ANNE, "end")),
    ];
    let committed = flat.commit(intents).await;
    let fine: Vec<_> = committed.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [false, true, true, true, true, false, true, true]);
    let code = committed.outcomes[0].as_ref().err().map(Error::code);
    assert_eq!(code, Some("not_found"));
    assert_eq!((committed.events.len(), committed.seq), (6, Seq(9)));
    assert_eq!(flat.seq().await, Seq(9));
    assert_eq!(flat.members().await, [ANNE, CARL]);
    let page = store.history(flat.id, Range::Newest, 10).await.expect("readable");
    let texts: Vec<_> = page.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, ["in time", "end"]);
}

pub(super) async fn all_that_somebody_has_written_can_go<S: RoomStore>(store: &S) {
    let (one, two) = (Flat::with(store, &[BOB]).await, Flat::with(store, &[BOB]).await);
    let mut written = Vec::new();
    for text in ["first", "second", "third"] {
        for flat in [&one, &two] {
            written.push((flat.id, flat.say(BOB, text).await.id));
            flat.say(ANNE, text).await;
        }
    }
    let by = async |author, after, limit| store.written_by(author, after, limit).await.expect("readable");
    assert_eq!(by(BOB, MessageId(0), 100).await, written);
    assert_eq!(by(BOB, written[1].1, 2).await, written[2..4]);
    assert_eq!(by(DORA, MessageId(0), 100).await, []);

    one.one(delete(written[0].1, BOB)).await;
    assert_eq!(
        by(BOB, MessageId(0), 100).await,
        written[1..],
        "deleted ones are no more"
    );
    one.one(Intent::Remove { user: BOB, by: BOB }).await;
    one.refused(delete(written[2].1, BOB), "not_found").await;
    let purge = |message, author| Intent::Purge { message, author };
    one.refused(purge(written[2].1, ANNE), "not_found").await;
    one.refused(purge(written[1].1, BOB), "not_found").await;
    let before = one.unread(ANNE).await;
    let committed = one.commit(vec![purge(written[2].1, BOB)]).await;
    assert!(
        matches!(&*committed.events[0], Event::MessageDeleted { message, by: BOB, .. } if *message == written[2].1),
        "{:?}",
        committed.events
    );
    one.nothing(purge(written[2].1, BOB)).await;
    assert_eq!(one.unread(ANNE).await, before, "nobody had it unread");
    let gone = one.message(written[2].1).await;
    assert_eq!((gone.text.as_str(), gone.deleted_at.is_some()), ("", true));
    assert_eq!(
        by(BOB, MessageId(0), 100).await,
        [&written[1..2], &written[3..]].concat()
    );
}
