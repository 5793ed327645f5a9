//! Asks, and the turns that answer them.

use super::flat::{ANNE, BOB, Flat, delete, edit, finish, invite, keep, name_of, new_room, post, start, with_id};
use crate::event::Event;
use crate::id::{RoomId, TurnId};
use crate::model::{Author, Finish, MessageStatus, TurnEnd, TurnStatus, Usage};
use crate::store::plan::MAX_WAITING;
use crate::store::{Batch, Intent, NewRoom, Outcome, Post, RoomStore};
use crate::time::Timestamp;
use std::sync::Arc;

fn done() -> TurnEnd {
    TurnEnd::new(TurnStatus::Done)
}

pub(super) async fn an_ask_is_admitted_with_its_message<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let asks = vec!["echo".to_owned(), "gemini".to_owned()];
    let ask = || {
        let asks = asks.clone();
        Intent::Post(Post {
            asks,
            ..with_id(BOB, "c", "well?")
        })
    };
    let mut committed = flat.commit(vec![ask()]).await;
    let Ok(Outcome::Posted { message, turns, .. }) = committed.outcomes.remove(0) else {
        panic!("an ask is a post");
    };
    assert_eq!(committed.events.len(), 3, "the message, then each turn");
    assert_eq!(committed.events[0].message(), Some(&message));
    for ((turn, bot), event) in turns.iter().zip(&asks).zip(&committed.events[1..]) {
        assert_eq!(
            (&turn.bot, turn.asked_by, turn.ask, turn.ask_seq),
            (bot, BOB, message.id, message.seq)
        );
        assert_eq!(
            (turn.status, turn.message, &turn.end),
            (TurnStatus::Queued, None, &None)
        );
        let Event::TurnQueued {
            turn: id,
            position,
            ask,
            ..
        } = &**event
        else {
            panic!("{event:?}");
        };
        assert_eq!((*id, *position, *ask), (turn.id, 0, message.id));
        assert_eq!(flat.turn(turn.id).await, *turn);
    }
    assert_eq!(store.open_turns(None).await.expect("readable"), turns);
    flat.started("echo").await;
    let Outcome::Posted {
        turns: now, duplicate, ..
    } = flat.nothing(ask()).await
    else {
        panic!("a resend is a post");
    };
    assert!(duplicate);
    let states: Vec<_> = now.iter().map(|turn| (turn.id, turn.status)).collect();
    assert_eq!(
        states,
        [(turns[0].id, TurnStatus::Streaming), (turns[1].id, TurnStatus::Queued)]
    );
}

pub(super) async fn an_ai_chat_of_one_is_always_an_ask<S: RoomStore>(store: &S) {
    let new = NewRoom {
        is_ai_chat: true,
        ..new_room("chat", ANNE, &[])
    };
    let flat = Flat::of(store, new).await;
    let say = |asks: &[&str]| Post {
        asks: asks.iter().map(|bot| (*bot).to_owned()).collect(),
        asks_if_alone: true,
        bots: Arc::from(["echo".to_owned(), "other".to_owned()]),
        ..post(ANNE, "hello")
    };
    let bots = async |said| -> Vec<String> { flat.post(said).await.1.into_iter().map(|turn| turn.bot).collect() };
    assert_eq!(bots(say(&[])).await, ["echo"]);
    assert_eq!(bots(say(&["other"])).await, ["other"]);
    flat.one(invite(BOB, ANNE)).await;
    assert_eq!(bots(say(&[])).await, [""; 0]);
    let (by, user) = (ANNE, BOB);
    flat.one(Intent::Remove { user, by }).await;
    assert_eq!(bots(say(&[])).await, ["echo"]);
    let plain = Flat::with(store, &[]).await;
    assert!(plain.post(say(&[])).await.1.is_empty(), "a room that is no AI chat");
}

pub(super) async fn a_bot_has_one_turn_at_a_time<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    assert_eq!(flat.start("echo").await, None);
    let first = flat.ask(ANNE, "echo").await;
    let second = flat.ask(BOB, "echo").await;
    let other = flat.ask(BOB, "gemini").await;
    let queued = flat.log().await;
    let positions: Vec<_> = queued
        .iter()
        .filter_map(|event| match &**event {
            Event::TurnQueued { turn, position, .. } => Some((*turn, *position)),
            _ => None,
        })
        .collect();
    assert_eq!(positions, [(first.id, 0), (second.id, 1), (other.id, 0)]);
    assert_eq!(flat.started("echo").await.0.id, first.id);
    assert!(matches!(flat.nothing(start("echo")).await, Outcome::Done));
    assert_eq!(flat.started("gemini").await.0.id, other.id);
    let mut committed = flat
        .commit(vec![finish(first.id, done(), Some("x")), start("echo"), start("echo")])
        .await;
    assert!(matches!(committed.outcomes.remove(2), Ok(Outcome::Done)));
    let Ok(Outcome::Started { turn, asked_by }) = committed.outcomes.remove(1) else {
        panic!("the next one starts");
    };
    assert_eq!((turn.id, asked_by), (second.id, name_of(BOB)));
    let open: Vec<_> = store
        .open_turns(None)
        .await
        .expect("readable")
        .into_iter()
        .map(|turn| turn.id)
        .collect();
    assert_eq!(open, [second.id, other.id]);
}

pub(super) async fn only_so_many_wait<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    flat.ask(ANNE, "echo").await;
    let (running, _) = flat.started("echo").await;
    for _ in 0..MAX_WAITING {
        assert_eq!(flat.ask(ANNE, "echo").await.status, TurnStatus::Queued);
    }
    let ask = Post {
        asks: vec!["echo".into(), "other".into()],
        ..post(ANNE, "one too many")
    };
    let committed = flat.commit(vec![Intent::Post(ask)]).await;
    let Ok(Outcome::Posted { turns, .. }) = &committed.outcomes[0] else {
        panic!("it is posted all the same");
    };
    assert_eq!(
        (turns[0].status, turns[1].status),
        (TurnStatus::Failed, TurnStatus::Queued)
    );
    let Event::TurnEnded {
        turn,
        message,
        text,
        end,
        ..
    } = &*committed.events[1]
    else {
        panic!("{:?}", committed.events);
    };
    assert_eq!((*turn, *message, &**text), (turns[0].id, None, ""));
    assert_eq!(end.error.as_ref().map(|error| error.code.as_str()), Some("busy"));
    assert_eq!(flat.turn(*turn).await.end.as_ref(), Some(&**end));
    assert_eq!(
        flat.log().await.get(committed.seq.0 as usize - 2),
        Some(&committed.events[1])
    );
    assert!(matches!(&*committed.events[2], Event::TurnQueued { position: 0, .. }));
    let (again, now) = flat.end(*turn, done(), None).await;
    assert_eq!((again.status, now), (TurnStatus::Failed, false));
    flat.end(running.id, done(), None).await;
    flat.started("echo").await;
    assert_eq!(flat.ask(ANNE, "echo").await.status, TurnStatus::Queued);
}

pub(super) async fn an_answer_streams_and_ends_once<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let asked = flat.ask(BOB, "echo").await;
    let keep = |text: &str| keep(asked.id, text);
    assert!(matches!(
        flat.nothing(keep("early")).await,
        Outcome::Checkpointed { kept: false, cut: None }
    ));
    let committed = flat.commit(vec![start("echo")]).await;
    let begun = committed.events[0].message().expect("its message appears").clone();
    assert_eq!(
        (begun.author.clone(), begun.text.as_str()),
        (Author::bot("echo", "ECHO"), "")
    );
    assert_eq!(
        (begun.status, begun.reply_to, begun.seq),
        (MessageStatus::Streaming, Some(asked.ask), committed.seq)
    );
    let turn = flat.turn(asked.id).await;
    assert_eq!((turn.status, turn.message), (TurnStatus::Streaming, Some(begun.id)));
    assert_eq!(
        store.turn_of_message(flat.id, begun.id).await.expect("readable"),
        Some(turn)
    );
    flat.refused(edit(begun.id, BOB, "x"), "forbidden").await;
    flat.refused(delete(begun.id, ANNE), "conflict").await;
    assert!(matches!(
        flat.nothing(keep("so")).await,
        Outcome::Checkpointed { kept: true, cut: None }
    ));
    assert!(matches!(
        flat.nothing(keep("so far")).await,
        Outcome::Checkpointed { kept: true, cut: None }
    ));
    assert_eq!(flat.message(begun.id).await.text, "so far");
    let end = TurnEnd {
        finish: Some(Finish::length()),
        usage: Some(Usage {
            input: Some(7),
            ..Usage::default()
        }),
        ..done()
    };
    let mut committed = flat
        .commit(vec![
            keep("so far, so"),
            finish(asked.id, end.clone(), Some("so far, so good")),
        ])
        .await;
    let expected = Event::TurnEnded {
        room: flat.id,
        seq: committed.seq,
        turn: asked.id,
        bot: "echo".into(),
        message: Some(begun.id),
        text: "so far, so good".into(),
        end: Box::new(end.clone()),
    };
    assert_eq!(*committed.events[0], expected);
    assert_eq!(flat.log().await.last(), Some(&committed.events[0]));
    let Ok(Outcome::Ended { turn, now: true }) = committed.outcomes.remove(1) else {
        panic!("it ends");
    };
    assert_eq!((turn.status, turn.end.as_ref()), (TurnStatus::Done, Some(&end)));
    let said = flat.message(begun.id).await;
    assert_eq!(
        (said.text.as_str(), said.status, said.seq),
        ("so far, so good", MessageStatus::Done, begun.seq)
    );
    let Outcome::Ended { turn: again, now } = flat.nothing(finish(asked.id, TurnEnd::stopped(ANNE), Some("no"))).await
    else {
        panic!("an end ends");
    };
    assert_eq!((again, now), (turn, false));
    assert!(matches!(
        flat.nothing(keep("late")).await,
        Outcome::Checkpointed { kept: false, cut: None }
    ));
    assert_eq!(flat.message(begun.id).await, said);
}

pub(super) async fn a_waiting_turn_ends_without_a_message<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let asked = flat.ask(ANNE, "echo").await;
    let end = TurnEnd::stopped(ANNE);
    let committed = flat
        .commit(vec![finish(asked.id, end.clone(), Some("never said"))])
        .await;
    let Event::TurnEnded {
        message,
        text,
        end: ended,
        ..
    } = &*committed.events[0]
    else {
        panic!("{:?}", committed.events);
    };
    assert_eq!((*message, &**text, &**ended), (None, "", &end));
    let turn = flat.turn(asked.id).await;
    assert_eq!(
        (turn.status, turn.message, turn.end),
        (TurnStatus::Stopped, None, Some(end))
    );
    assert_eq!(flat.start("echo").await, None);
    assert_eq!(store.open_turns(None).await.expect("readable"), Vec::new());
}

pub(super) async fn failures_keep_text_and_words<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let failed = TurnEnd::failed("timeout", "it took too long");
    let interrupted = TurnEnd::new(TurnStatus::Interrupted);
    for (end, status, words) in [
        (failed, MessageStatus::Failed, Some("it took too long")),
        (interrupted, MessageStatus::Interrupted, None),
        (TurnEnd::stopped(ANNE), MessageStatus::Stopped, None),
    ] {
        let turn = flat.ask(ANNE, "echo").await.id;
        let (_, answer) = flat.started("echo").await;
        flat.one(keep(turn, "half")).await;
        flat.end(turn, end, None).await;
        let said = flat.message(answer).await;
        assert_eq!(
            (said.text.as_str(), said.status, said.error.as_deref()),
            ("half", status, words)
        );
        let log = flat.log().await;
        assert!(matches!(log.last().map(|event| &**event), Some(Event::TurnEnded { text, .. }) if &**text == "half"));
    }
}

pub(super) async fn deleting_an_ask_stops_what_waits_for_it<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let running = flat.ask(BOB, "echo").await;
    flat.started("echo").await;
    let ask = Post {
        asks: vec!["echo".into(), "other".into()],
        ..post(BOB, "two of you")
    };
    let (message, turns) = flat.post(ask).await;
    let committed = flat
        .commit(vec![delete(message.id, ANNE), delete(running.ask, ANNE)])
        .await;
    assert_eq!(
        committed.events.len(),
        4,
        "two deletions and two ends: what streams goes on"
    );
    for (turn, event) in turns.iter().zip(&committed.events[1..]) {
        let Event::TurnEnded {
            turn: id, message, end, ..
        } = &**event
        else {
            panic!("{event:?}");
        };
        assert_eq!((*id, *message, &**end), (turn.id, None, &TurnEnd::stopped(ANNE)));
    }
    let open = store.open_turns(None).await.expect("readable");
    assert_eq!(open.iter().map(|turn| turn.id).collect::<Vec<_>>(), [running.id]);
}

pub(super) async fn answers_are_deleted_by_the_owner<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let turn = flat.ask(BOB, "echo").await.id;
    let (_, answer) = flat.started("echo").await;
    flat.end(turn, TurnEnd::failed("x", "secret words"), Some("secret"))
        .await;
    flat.refused(delete(answer, BOB), "forbidden").await;
    flat.one(delete(answer, ANNE)).await;
    let left = flat.message(answer).await;
    assert_eq!(
        (left.text.as_str(), &left.error, left.deleted_at.is_some()),
        ("", &None, true)
    );
    let ended = flat.log().await;
    let texts = ended.iter().filter_map(|event| match &**event {
        Event::TurnEnded { text, .. } => Some(&**text),
        Event::TurnStarted { message, .. } => Some(message.text.as_str()),
        _ => None,
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["", ""]);
}

pub(super) async fn a_turn_belongs_to_its_room<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let other = Flat::with(store, &[]).await;
    let turn = flat.ask(ANNE, "echo").await.id;
    other.refused(finish(turn, done(), None), "not_found").await;
    other.refused(finish(TurnId(999_999), done(), None), "not_found").await;
    flat.refused(finish(turn, TurnEnd::new(TurnStatus::Streaming), None), "bad_request")
        .await;
    assert_eq!(other.start("echo").await, None);
    assert_eq!(store.turn(other.id, turn).await.expect("readable"), None);
    assert!(flat.turn(turn).await.end.is_none());
    let batch = Batch::new(
        RoomId(999_999),
        Timestamp(1),
        vec![start("echo"), finish(turn, done(), None)],
    );
    let committed = store.commit(batch).await.expect("no failure");
    assert!(committed.outcomes.iter().all(Result::is_err));
}
