//! Turns: how they are admitted, stream, are kept, stopped, fail and end, each exactly once.

use crate::scene::{
    A_MOMENT, Scene, a_moment, answer_of, is_end, kind, ms, next, notices, puppet, reads, settled, streamed,
    to_the_end, until,
};
use coop_core::mutant::Mutant;
use coop_core::store::memory::MemoryStore;
use coop_core::store::plan::MAX_WAITING;
use coop_core::store::{RoomStore, sqlite::SqliteStore};
use coop_core::{
    BotError, BotErrorKind, BotLimits, Engine, ErrorKind, Event, Finish, FinishReason, GoneReason, MessageId,
    MessageStatus, Range, TurnEnd, TurnId, TurnStatus, Usage,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn limits(text_bytes: usize, time: Duration) -> BotLimits {
    BotLimits { text_bytes, time }
}

/// The answer that began last among these events.
fn begun(events: &[Event]) -> MessageId {
    let begun = events.iter().rev().find_map(|event| match event {
        Event::TurnStarted { message, .. } => Some(message.id),
        _ => None,
    });
    begun.expect("an answer begins")
}

/// The ends among these events: which turn, how, with what text.
fn ends(events: &[Event]) -> Vec<(TurnId, TurnEnd, String)> {
    let end = |event: &Event| match event {
        Event::TurnEnded { turn, end, text, .. } => Some((*turn, TurnEnd::clone(end), text.to_string())),
        _ => None,
    };
    events.iter().filter_map(end).collect()
}

// Admission.

#[tokio::test(start_paused = true)]
async fn an_ask_is_admitted_with_its_message_and_later_ones_wait_in_order() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (_, mut answering) = scene.ask("0").await;
    let mut waiting = Vec::new();
    for n in 1..=MAX_WAITING {
        waiting.push(scene.bobs.send(format!("/ann {n}")).await.unwrap().turn.unwrap());
    }
    let refused = scene.bobs.send("/ann too much").await.unwrap().turn.unwrap();
    let end = refused.ended().await.unwrap();
    assert_eq!(end.status, TurnStatus::Failed);
    assert_eq!(end.error.unwrap().code, "busy");
    let words: Vec<String> = settled(&mut bob)
        .await
        .iter()
        .map(|event| match event {
            Event::MessagePosted { message, .. } => message.text.clone(),
            Event::TurnQueued { position, .. } => format!("queued {position}"),
            Event::TurnStarted { .. } => "started".into(),
            Event::TurnEnded { turn, message, .. } => format!("refused {} {message:?}", *turn == refused.id()),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut expected = vec!["/ann 0".to_owned(), "queued 0".into(), "started".into()];
    for n in 1..=MAX_WAITING {
        expected.extend([format!("/ann {n}"), format!("queued {n}")]);
    }
    expected.extend(["/ann too much".into(), "refused true None".into()]);
    assert_eq!(words, expected);
    for n in 0..MAX_WAITING {
        assert_eq!(answering.turn.prompt, n.to_string());
        assert!(!scene.ann.has_next(), "one at a time");
        answering.finish();
        answering = scene.ann.next().await;
    }
    answering.finish();
    assert_eq!(waiting[7].ended().await.unwrap().status, TurnStatus::Done);
    a_moment().await;
    assert!(!scene.ann.has_next());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn different_bots_answer_side_by_side() {
    let (ben, mut bens) = puppet("ben", BotLimits::default());
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.bot(ben)).await;
    let sent = scene.room.send("@ann and @ben, both of you").await.unwrap();
    assert_eq!(
        sent.turns.iter().map(|turn| turn.bot()).collect::<Vec<_>>(),
        ["ann", "ben"]
    );
    let (ann, ben) = (scene.ann.next().await, bens.next().await);
    ben.say("first").await.unwrap();
    ben.finish();
    assert_eq!(sent.turns[1].ended().await.unwrap().status, TurnStatus::Done);
    ann.finish();
    assert_eq!(sent.turn.unwrap().ended().await.unwrap().status, TurnStatus::Done);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_reads_what_stood_there_when_it_was_asked() {
    let mut scene = Scene::new().await;
    let before = scene.room.send("before").await.unwrap().message;
    let (_, first) = scene.ask("first").await;
    let ask = scene.bobs.send("/ann second").await.unwrap();
    scene.room.send("after").await.unwrap();
    first.say("an answer").await.unwrap();
    first.finish();
    let second = scene.ann.next().await;
    let turn = &second.turn;
    assert_eq!((turn.prompt.as_str(), turn.ask), ("second", ask.message.id));
    assert_eq!(
        (turn.asked_by.name.as_str(), turn.asked_by.user),
        ("bob", Some(scene.bob.id()))
    );
    let said = format!("{:?}", turn.context.turns);
    assert!(said.contains("before") && turn.context.read.iter().any(|read| read.message == before.id));
    assert!(!said.contains("after"), "nothing later enters: {said}");
    scene.close().await;
}

// Streaming.

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_while_it_grows_and_the_asker_goes_on_talking() {
    let store = MemoryStore::new();
    let mut scene = Scene::on(store.reopen()).await;
    let (turn, answering) = scene.ask("go on").await;
    let id = answer_of(&store, &scene.room, &turn).await.unwrap();
    let kept = || async {
        let message = store.message(scene.room.id(), id).await.unwrap().unwrap();
        (message.text.clone(), message.status)
    };
    answering.say("one ").await.unwrap();
    sleep(ms(450)).await;
    assert_eq!(kept().await, (String::new(), MessageStatus::Streaming));
    assert_eq!(
        scene.room.history(Range::Newest, 1).await.unwrap().messages[0].text,
        "one "
    );
    assert_eq!(
        scene.room.message(id).await.unwrap().text,
        "one ",
        "what is said, not what is kept"
    );
    sleep(ms(100)).await;
    assert_eq!(kept().await.0, "one ");
    let other = scene.room.send("and meanwhile").await.unwrap();
    assert!(!other.duplicate && other.turn.is_none());
    answering.say("two").await.unwrap();
    sleep(ms(500)).await;
    assert_eq!(kept().await, ("one two".into(), MessageStatus::Streaming));
    answering.finish();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    assert_eq!(kept().await, ("one two".into(), MessageStatus::Done));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_needs_nobody_to_listen() {
    let store = MemoryStore::new();
    let mut scene = Scene::with(store.reopen(), |builder| builder.idle_after(ms(100))).await;
    let (turn, answering) = scene.ask("alone").await;
    let (room, id) = (scene.room.id(), answer_of(&store, &scene.room, &turn).await.unwrap());
    drop((turn, scene.room.clone()));
    for _ in 0..50 {
        answering.say("x").await.unwrap();
        sleep(ms(1_000)).await;
    }
    answering.finish();
    a_moment().await;
    let message = store.message(room, id).await.unwrap().unwrap();
    assert_eq!((message.text.len(), message.status), (50, MessageStatus::Done));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_in_the_middle_gets_the_text_so_far_and_then_every_piece() {
    let mut scene = Scene::new().await;
    let (_, answering) = scene.ask("tell").await;
    answering.say("Es wär").await.unwrap();
    a_moment().await;
    // Said and not yet delivered to anybody.
    answering.say("e einmal").await.unwrap();
    let (snapshot, mut bob) = reads(&scene.bobs).await;
    let [tape] = &snapshot.tapes[..] else {
        panic!("one answer is open: {snapshot:?}")
    };
    assert_eq!((&*tape.text, tape.end), ("Es wäre einmal", 15));
    let shown = snapshot.messages.last().unwrap();
    assert_eq!((shown.id, shown.status), (tape.message, MessageStatus::Streaming));
    for piece in [" ein", " ö", " und", " aus"] {
        answering.say(piece).await.unwrap();
        sleep(ms(10)).await;
    }
    answering.finish();
    let events = until(&mut bob, is_end).await;
    assert_eq!(streamed(&events, tape.message, 15), " ein ö und aus");
    assert_eq!(ends(&events)[0].2, "Es wäre einmal ein ö und aus");
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_gets_the_missing_bytes_and_no_others() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (_, answering) = scene.ask("tell").await;
    answering.say("größer ").await.unwrap();
    let events = settled(&mut bob).await;
    let answer = begun(&events);
    let position = bob.position().unwrap().clone();
    assert_eq!(position.tapes.get(&answer), Some(&9));
    drop(bob);
    scene.room.send("missed").await.unwrap();
    answering.say("als ").await.unwrap();
    a_moment().await;
    let mut bob = scene.bobs.resume(position).await.unwrap();
    answering.say("das").await.unwrap();
    answering.finish();
    let events = until(&mut bob, is_end).await;
    assert!(matches!(&events[0], Event::MessagePosted { message, .. } if message.text == "missed"));
    assert_eq!(streamed(&events, answer, 9), "als das");
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_position_that_fits_nothing_is_healed() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (_, answering) = scene.ask("tell").await;
    answering.say("größer").await.unwrap();
    let answer = begun(&settled(&mut bob).await);
    let good = bob.position().unwrap().clone();
    // In the middle of a character, and beyond what there is: everything comes instead, for a shorter text than its own would
    // not tell the reader that.
    for held in [3, 4_000] {
        let mut position = good.clone();
        position.tapes.insert(answer, held);
        let mut back = scene.bobs.resume(position).await.unwrap();
        let events = settled(&mut back).await;
        let [Event::Snapshot(snapshot)] = &events[..] else {
            panic!("{events:?}")
        };
        let [tape] = &snapshot.tapes[..] else {
            panic!("{snapshot:?}")
        };
        assert_eq!((tape.message, tape.end, &*tape.text), (answer, 8, "größer"));
    }
    // Another life of the log, and a future that has not happened: a snapshot comes instead.
    let mut other = good.clone();
    other.epoch.0 += 1;
    let mut ahead = good.clone();
    ahead.seq.0 += 1;
    for position in [other, ahead] {
        let mut back = scene.bobs.resume(position).await.unwrap();
        assert!(matches!(next(&mut back).await, Event::Snapshot(snapshot) if snapshot.tapes.len() == 1));
    }
    scene.close().await;
}

/// I3: whoever keeps up has every byte by deltas before the end arrives.
#[test]
fn all_deltas_come_before_the_end() {
    notices(Mutant::DeltasBeforeEnd, || async {
        let mut scene = Scene::new().await;
        let mut bob = scene.bob_reads().await;
        let (_, answering) = scene.ask("quickly").await;
        for piece in 0..40 {
            answering.say(&format!("{piece} ")).await.unwrap();
            if piece % 3 == 0 {
                sleep(ms(7)).await;
            }
        }
        answering.finish();
        let events = until(&mut bob, is_end).await;
        let (_, end, text) = ends(&events).remove(0);
        assert_eq!(end.status, TurnStatus::Done);
        assert_eq!(streamed(&events, begun(&events), 0), text);
        let (snapshot, _) = reads(&scene.room).await;
        assert_eq!(
            snapshot.messages.last().unwrap().text,
            text,
            "later readers have the same"
        );
        scene.close().await;
    });
}

// Stopping.

#[tokio::test(start_paused = true)]
async fn anybody_stops_a_running_turn_at_once_and_the_text_is_kept() {
    let mut scene = Scene::new().await;
    let mut alice = reads(&scene.room).await.1;
    let (turn, answering) = scene.ask("talk").await;
    answering.say("as far as th").await.unwrap();
    let stopped = Instant::now();
    scene.bobs.stop(turn.id()).await.unwrap();
    let end = turn.ended().await.unwrap();
    assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(scene.bob.id())));
    assert_eq!(
        answering.dropped(),
        Some(stopped),
        "the bot's future is dropped at once"
    );
    assert!(answering.say("more").await.is_err());
    let events = settled(&mut alice).await;
    let [(id, told, text)] = &ends(&events)[..] else {
        panic!("one end: {events:?}")
    };
    assert_eq!((*id, told, text.as_str()), (turn.id(), &end, "as far as th"));
    let message = scene.bobs.message(begun(&events)).await.unwrap();
    assert_eq!(
        (message.text.as_str(), message.status),
        ("as far as th", MessageStatus::Stopped)
    );
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_reaches_a_turn_by_its_answer_and_by_its_handle() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, _answering) = scene.ask("one").await;
    let answer = begun(&until(&mut bob, |event| matches!(event, Event::TurnStarted { .. })).await);
    scene.bobs.stop_answer(answer).await.unwrap();
    assert_eq!(turn.ended().await.unwrap().by, Some(scene.bob.id()));
    let (turn, answering) = scene.ask("two").await;
    turn.stop().await.unwrap();
    assert_eq!(turn.ended().await.unwrap().by, Some(scene.alice.id()));
    assert!(answering.dropped().is_some());
    let person = scene.room.send("not an answer").await.unwrap().message.id;
    assert_eq!(kind(scene.room.stop_answer(person).await), ErrorKind::NotFound);
    assert_eq!(kind(scene.room.stop(TurnId(4_711)).await), ErrorKind::NotFound);
    scene.close().await;
}

/// I10: also before the bot has written anything, and before it has even been asked.
#[tokio::test(start_paused = true)]
async fn a_turn_can_be_stopped_from_the_moment_it_is_visible() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("before the first piece").await;
    scene.bobs.stop(turn.id()).await.unwrap();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Stopped);
    assert!(answering.dropped().is_some());
    let turn = scene.room.send("/ann nor asked").await.unwrap().turn.unwrap();
    scene.bobs.stop(turn.id()).await.unwrap();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Stopped);
    let events = settled(&mut bob).await;
    let ends = ends(&events);
    assert_eq!(ends.len(), 2);
    assert!(
        ends.iter()
            .all(|(_, end, text)| end.by == Some(scene.bob.id()) && text.is_empty())
    );
    // Nothing hinders the next.
    while scene.ann.has_next() {
        scene.ann.next().await;
    }
    let (turn, answering) = scene.ask("now").await;
    answering.finish();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    scene.close().await;
}

/// I10: a waiting turn ends without ever reaching its bot; the one before it goes on.
#[test]
fn a_waiting_turn_can_be_stopped() {
    notices(Mutant::StopQueued, || async {
        let mut scene = Scene::new().await;
        let mut bob = scene.bob_reads().await;
        let (first, answering) = scene.ask("first").await;
        let second = scene.room.send("/ann second").await.unwrap().turn.unwrap();
        let third = scene.room.send("/ann third").await.unwrap().turn.unwrap();
        scene.bobs.stop(second.id()).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(5), second.ended()).await;
        let end = end.expect("it ends at once").unwrap();
        assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(scene.bob.id())));
        answering.say("still here").await.unwrap();
        answering.finish();
        let next = scene.ann.next().await;
        assert_eq!(next.turn.prompt, "third");
        next.finish();
        third.ended().await.unwrap();
        let events = settled(&mut bob).await;
        let ended: Vec<_> = ends(&events).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ended, [second.id(), first.id(), third.id()]);
        scene.close().await;
    });
}

/// I10: a stop drops what the bot holds, a provider's stream for instance.
#[test]
fn a_stop_drops_the_bots_future() {
    notices(Mutant::StopDropsBot, || async {
        let mut scene = Scene::new().await;
        let (turn, answering) = scene.ask("talk").await;
        answering.say("a").await.unwrap();
        turn.stop().await.unwrap();
        turn.ended().await.unwrap();
        assert!(answering.dropped().is_some());
        scene.close().await;
    });
}

#[tokio::test(start_paused = true)]
async fn stopping_again_or_too_late_changes_nothing() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, _answering) = scene.ask("talk").await;
    let (a, b) = tokio::join!(scene.room.stop(turn.id()), scene.bobs.stop(turn.id()));
    a.and(b).unwrap();
    let end = turn.ended().await.unwrap();
    for _ in 0..3 {
        scene.bobs.stop(turn.id()).await.unwrap();
        scene.room.stop(turn.id()).await.unwrap();
    }
    assert_eq!(turn.ended().await.unwrap(), end, "the first stop stands");
    let (done, answering) = scene.ask("done").await;
    answering.finish();
    done.ended().await.unwrap();
    scene.room.stop(done.id()).await.unwrap();
    assert_eq!(done.ended().await.unwrap().status, TurnStatus::Done);
    assert_eq!(ends(&settled(&mut bob).await).len(), 2);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_left_stops_nothing_any_more() {
    let mut scene = Scene::new().await;
    let turn = scene.bobs.send("/ann mine").await.unwrap().turn.unwrap();
    let answering = scene.ann.next().await;
    scene.room.remove(scene.bob.id()).await.unwrap();
    assert_eq!(kind(turn.stop().await), ErrorKind::NotFound);
    assert_eq!(kind(scene.bobs.stop(turn.id()).await), ErrorKind::NotFound);
    answering.say("goes on").await.unwrap();
    answering.finish();
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_stopped_from_its_own_room_only() {
    let mut scene = Scene::new().await;
    let elsewhere = scene.alice.create_room("elsewhere").await.unwrap();
    let (running, answering) = scene.ask("here").await;
    let waiting = scene.room.send("/ann waits").await.unwrap().turn.unwrap();
    for turn in [running.id(), waiting.id()] {
        assert_eq!(kind(elsewhere.stop(turn).await), ErrorKind::NotFound);
    }
    answering.say("goes on").await.unwrap();
    scene.close().await;
}

// Ending.

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_cut_at_a_character() {
    let small = limits(9, Duration::from_secs(600));
    let mut scene = Scene::limited(MemoryStore::new(), small, |builder| builder).await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("long").await;
    answering.say("1234").await.unwrap();
    let refused = answering.say("5678é and so on").await.unwrap_err();
    assert_eq!(refused.kind, BotErrorKind::Cancelled);
    let end = turn.ended().await.unwrap();
    assert_eq!((end.status, end.finish), (TurnStatus::Done, Some(Finish::length())));
    assert!(answering.dropped().is_some());
    let events = until(&mut bob, is_end).await;
    assert_eq!(streamed(&events, begun(&events), 0), "12345678");
    assert_eq!(ends(&events)[0].2, "12345678");
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_hangs_runs_out_of_time() {
    let short = limits(1_000, Duration::from_secs(5));
    let mut scene = Scene::limited(MemoryStore::new(), short, |builder| builder).await;
    let mut bob = scene.bob_reads().await;
    let asked = Instant::now();
    let (turn, answering) = scene.ask("hang").await;
    let next = scene.room.send("/ann next").await.unwrap().turn.unwrap();
    answering.say("a little").await.unwrap();
    let end = turn.ended().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(5));
    assert_eq!(end.error.unwrap().code, "timeout");
    assert!(answering.dropped().is_some());
    assert_eq!(scene.ann.next().await.turn.prompt, "next", "the next has its turn");
    let events = settled(&mut bob).await;
    assert_eq!(ends(&events)[0].2, "a little");
    let message = scene.room.message(begun(&events[..6])).await.unwrap();
    assert_eq!(
        (message.status, message.text.as_str()),
        (MessageStatus::Failed, "a little")
    );
    next.stop().await.unwrap();
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_host_may_say_how_long_turns_take() {
    let hang = |_, _| std::future::pending::<Result<Finish, BotError>>();
    let engine = Engine::builder(MemoryStore::new()).bot_fn("slow", hang);
    let engine = engine.turn_timeout(Duration::from_secs(3_600)).build().await.unwrap();
    let anne = engine.create_user("anne").await.unwrap();
    let room = anne.create_room("lab").await.unwrap();
    let asked = Instant::now();
    let turn = room.send("/slow go").await.unwrap().turn.unwrap();
    assert_eq!(turn.ended().await.unwrap().error.unwrap().code, "timeout");
    assert_eq!(
        asked.elapsed(),
        Duration::from_secs(3_600),
        "not the bot's own ten minutes"
    );
    engine.close(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_text_and_show_public_words_only() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let server = BotError::new(BotErrorKind::Server, "The provider is down.").with_detail("key=secret");
    let blocked = Finish {
        reason: FinishReason::Blocked("SAFETY secret".into()),
        ..Finish::stop()
    };
    for (end, code, words) in [
        (Err(server), "server", "The provider is down."),
        (
            Err(std::io::Error::other("secret").into()),
            "internal",
            "The bot failed.",
        ),
        (Ok(blocked), "blocked_output", "The answer was withheld."),
    ] {
        let (turn, answering) = scene.ask("fail").await;
        answering.say("so far").await.unwrap();
        answering.end(end);
        let end = turn.ended().await.unwrap();
        let error = end.error.unwrap();
        assert_eq!(
            (end.status, error.code.as_str(), error.words.as_str()),
            (TurnStatus::Failed, code, words)
        );
        let events = until(&mut bob, is_end).await;
        assert_eq!(ends(&events)[0].2, "so far");
        assert!(!format!("{events:?}").contains("secret"));
        let message = scene.room.message(begun(&events)).await.unwrap();
        assert_eq!(
            (message.status, message.text.as_str()),
            (MessageStatus::Failed, "so far")
        );
        assert_eq!(message.error.as_deref(), Some(words));
    }
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_turn_and_nothing_else() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("panic").await;
    answering.say("so far").await.unwrap();
    answering.panic();
    let end = turn.ended().await.unwrap();
    assert_eq!(
        (end.status, end.error.unwrap().code.as_str()),
        (TurnStatus::Failed, "internal")
    );
    scene.room.send("are you there?").await.unwrap();
    let (turn, answering) = scene.ask("again").await;
    answering.finish();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    let events = settled(&mut bob).await;
    let texts: Vec<_> = ends(&events).into_iter().map(|(.., text)| text).collect();
    assert_eq!(texts, ["so far", ""]);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_bot_says_of_itself_is_kept() {
    let engine = Engine::builder(MemoryStore::new())
        .bot_fn("ann", |_, out| async move {
            out.push("ann").await?;
            out.push(": hello").await?;
            let usage = |output| Usage {
                output: Some(output),
                ..Usage::default()
            };
            out.usage(usage(1));
            out.usage(usage(2));
            Ok(Finish {
                model: Some("m-1".into()),
                ..Finish::stop()
            })
        })
        .build()
        .await
        .unwrap();
    let room = engine
        .create_user("alice")
        .await
        .unwrap()
        .create_room("lab")
        .await
        .unwrap();
    let turn = room.send("/bot hi").await.unwrap().turn.unwrap();
    let end = turn.ended().await.unwrap();
    assert_eq!(end.usage.unwrap().output, Some(2));
    assert_eq!(end.finish.unwrap().model.as_deref(), Some("m-1"));
    let page = room.history(Range::Newest, 1).await.unwrap();
    assert_eq!(
        page.messages[0].text, "hello",
        "its own name before its words is taken away"
    );
    engine.close(ms(0)).await;
}

/// I4: whatever comes together, one end comes of it.
#[tokio::test(start_paused = true)]
async fn a_turn_ends_exactly_once() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let mut asked = Vec::new();
    for round in 0..8 {
        let (turn, answering) = scene.ask("end").await;
        let answer = begun(&settled(&mut bob).await);
        answering.say("text").await.unwrap();
        if round & 1 > 0 {
            answering.finish();
        }
        let (stopped, deleted) = tokio::join!(
            async {
                match round & 2 {
                    0 => scene.room.stop(turn.id()).await,
                    _ => scene.bobs.stop(turn.id()).await,
                }
            },
            async {
                match round & 4 {
                    0 => Ok(()),
                    _ => scene.room.delete(answer).await,
                }
            }
        );
        stopped.and(deleted).unwrap();
        turn.ended().await.unwrap();
        asked.push(turn.id());
        let events = settled(&mut bob).await;
        let ended: Vec<_> = ends(&events).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ended, [turn.id()], "round {round}");
    }
    scene.close().await;
}

// Deleting.

#[tokio::test(start_paused = true)]
async fn deleting_an_answer_that_is_being_written_stops_it_first() {
    let store = MemoryStore::new();
    let mut scene = Scene::on(store.reopen()).await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("something embarrassing").await;
    answering.say("embarrassing").await.unwrap();
    let answer = begun(&settled(&mut bob).await);
    assert_eq!(kind(scene.bobs.delete(answer).await), ErrorKind::Forbidden);
    assert!(answering.dropped().is_none(), "who may not delete does not stop either");
    scene.room.delete(answer).await.unwrap();
    assert!(answering.dropped().is_some());
    let end = turn.ended().await.unwrap();
    assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(scene.alice.id())));
    let events = settled(&mut bob).await;
    let [Event::TurnEnded { text, .. }, Event::MessageDeleted { message, by, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((&**text, *message, *by), ("", answer, scene.alice.id()));
    let stored = store.message(scene.room.id(), answer).await.unwrap().unwrap();
    assert!(stored.text.is_empty() && stored.deleted_at.is_some());
    assert_eq!(kind(scene.room.message(answer).await), ErrorKind::NotFound);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn deleting_an_ask_stops_the_turn_that_waits_for_it() {
    let mut scene = Scene::new().await;
    let (_, answering) = scene.ask("first").await;
    let sent = scene.bobs.send("/ann second").await.unwrap();
    scene.room.delete(sent.message.id).await.unwrap();
    let end = sent.turn.unwrap().ended().await.unwrap();
    assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(scene.alice.id())));
    answering.finish();
    a_moment().await;
    assert!(!scene.ann.has_next());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_room_ends_its_bots_and_its_readers() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("talk").await;
    let waiting = scene.room.send("/ann waits").await.unwrap().turn.unwrap();
    answering.say("words").await.unwrap();
    settled(&mut bob).await;
    scene.room.delete_room().await.unwrap();
    a_moment().await;
    assert!(answering.dropped().is_some());
    let events = to_the_end(&mut bob).await;
    let [Event::Gone { room, reason, by }] = &events[..] else {
        panic!("no turn's end is owed: {events:?}")
    };
    assert_eq!(
        (*room, *reason, *by),
        (scene.room.id(), GoneReason::Deleted, Some(scene.alice.id()))
    );
    for turn in [turn, waiting] {
        assert_eq!(kind(turn.ended().await), ErrorKind::NotFound);
        assert_eq!(kind(turn.stop().await), ErrorKind::NotFound);
    }
    assert!(!scene.ann.has_next());
    scene.close().await;
}

// Closing and dying.

#[tokio::test(start_paused = true)]
async fn a_turn_may_finish_while_the_engine_closes() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("last words").await;
    let begun = Instant::now();
    let ((), ()) = tokio::join!(scene.engine.close(Duration::from_secs(2)), async {
        a_moment().await;
        assert_eq!(kind(scene.room.send("too late").await), ErrorKind::Closed);
        sleep(ms(500)).await;
        answering.say("good bye").await.unwrap();
        answering.finish();
        assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    });
    assert!(begun.elapsed() < Duration::from_secs(1), "no longer than the turn");
    let events = to_the_end(&mut bob).await;
    assert_eq!(ends(&events)[0].2, "good bye");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_is_interrupted_with_all_of_its_text() {
    let store = MemoryStore::new();
    let mut scene = Scene::on(store.reopen()).await;
    let mut bob = scene.bob_reads().await;
    let (turn, answering) = scene.ask("never ending").await;
    let waiting = scene.room.send("/ann waits").await.unwrap().turn.unwrap();
    let begun = Instant::now();
    let ((), ()) = tokio::join!(scene.engine.close(Duration::from_secs(2)), async {
        sleep(ms(1_990)).await;
        answering.say("to the very last").await.unwrap();
    });
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(answering.dropped().is_some());
    assert!(!scene.ann.has_next(), "what waits does not begin now");
    assert!(
        store.open_turns(None).await.unwrap().is_empty(),
        "nothing is left to the next engine"
    );
    let events = to_the_end(&mut bob).await;
    let ended: Vec<_> = ends(&events)
        .into_iter()
        .map(|(id, end, text)| (id, end.status, text))
        .collect();
    let interrupted = TurnStatus::Interrupted;
    let expected = [
        (turn.id(), interrupted, "to the very last".to_owned()),
        (waiting.id(), interrupted, String::new()),
    ];
    assert_eq!(ended, expected);
    let room = scene.room.id();
    let stored = store.turn(room, turn.id()).await.unwrap().unwrap();
    let answer = store.message(room, stored.message.unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.status),
        ("to the very last", MessageStatus::Interrupted)
    );
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// I4: a process that dies leaves no turn open and loses no more than a moment's text.
#[test]
fn after_a_crash_the_next_engine_ends_what_was_open() {
    notices_recovery(|| {
        let store = MemoryStore::new();
        let (room, asks) = paused().block_on(async {
            let mut scene = Scene::on(store.reopen()).await;
            let (turn, answering) = scene.ask("tell").await;
            let waiting = scene.bobs.send("/ann waits").await.unwrap().turn.unwrap();
            answering.say("kept ").await.unwrap();
            sleep(ms(600)).await;
            answering.say("lost").await.unwrap();
            a_moment().await;
            (scene.room.id(), [turn.id(), waiting.id()])
        });
        // The runtime is gone in the middle of everything.
        paused().block_on(async {
            let (bot, mut ann) = puppet("ann", BotLimits::default());
            let engine = Engine::builder(store.reopen()).bot(bot).build().await.unwrap();
            let alice = engine.find_user("alice").await.unwrap();
            let room = alice.room(room).await.unwrap();
            let (snapshot, mut events) = reads(&room).await;
            assert!(snapshot.tapes.is_empty());
            for turn in asks {
                let turn = store.turn(room.id(), turn).await.unwrap().unwrap();
                assert_eq!(turn.status, TurnStatus::Interrupted);
            }
            let answer = snapshot.messages.iter().find(|message| message.author.bot.is_some());
            let answer = answer.unwrap();
            assert_eq!(
                (answer.text.as_str(), answer.status),
                ("kept ", MessageStatus::Interrupted)
            );
            // People ask again.
            let turn = room.send("/ann again").await.unwrap().turn.unwrap();
            let again = tokio::time::timeout(A_MOMENT, ann.next())
                .await
                .expect("the way is free");
            again.finish();
            assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
            assert_eq!(ends(&settled(&mut events).await).len(), 1);
            engine.close(ms(0)).await;
        });
    });
}

fn notices_recovery(check: impl Fn() + std::panic::RefUnwindSafe) {
    check();
    for mutant in [Mutant::Recovery, Mutant::Checkpoint] {
        let _removed = coop_core::mutant::remove(mutant);
        assert!(
            std::panic::catch_unwind(&check).is_err(),
            "nothing notices that {mutant:?} is gone"
        );
    }
}

#[tokio::test]
async fn answers_are_in_the_file_whole_and_interrupted_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut scene = Scene::on(SqliteStore::open(&path).await.unwrap()).await;
    let (turn, answering) = scene.ask("one").await;
    answering.say("whole ☂").await.unwrap();
    answering.finish();
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    let (_, answering) = scene.ask("two").await;
    scene.bobs.send("/ann waits").await.unwrap();
    answering.say("all of ☂").await.unwrap();
    scene.close().await;
    let engine = Engine::builder(SqliteStore::open(&path).await.unwrap())
        .build()
        .await
        .unwrap();
    let room = engine
        .find_user("bob")
        .await
        .unwrap()
        .room(scene.room.id())
        .await
        .unwrap();
    let page = room.history(Range::Newest, 10).await.unwrap();
    let answers: Vec<_> = page
        .messages
        .iter()
        .filter(|message| message.author.bot.is_some())
        .map(|message| (message.text.as_str(), message.status))
        .collect();
    let expected = [
        ("whole ☂", MessageStatus::Done),
        ("all of ☂", MessageStatus::Interrupted),
    ];
    assert_eq!(answers, expected);
    engine.close(ms(0)).await;
}
