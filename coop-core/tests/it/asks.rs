//! Asks as people govern them: a room's settings, interrupting, trying again, bots that ask each other, what an answer was
//! made from, and what it may cost.

use crate::scene::{Scene, a_moment, kind, ms, next, notices, puppet, reads, settled, until};
use async_trait::async_trait;
use coop_core::mutant::Mutant;
use coop_core::store::Store;
use coop_core::store::memory::MemoryStore;
use coop_core::store::plan::{MAX_BOT_TURNS, MAX_WAITING};
use coop_core::{
    Bot, BotError, BotErrorKind, BotLimits, BotProfile, Budgets, Day, Engine, ErrorKind, Event, Finish, MessageStatus,
    Range, ReplyWriter, Room, RoomSettings, Timestamp, Turn, TurnPolicy, TurnStatus, Usage, UsageFilter, UsageSum,
    User, WhoMayStop,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

async fn configure(room: &Room, change: impl FnOnce(&mut RoomSettings)) {
    let mut settings = room.settings().await.unwrap();
    change(&mut settings);
    room.configure(settings).await.unwrap();
}

/// The newest answer.
async fn newest(room: &Room) -> Arc<coop_core::Message> {
    let messages = room.history(Range::Newest, 10).await.unwrap().messages;
    let mut answers = messages
        .into_iter()
        .rev()
        .filter(|message| message.author.bot.is_some());
    answers.next().unwrap()
}

// Settings.

#[tokio::test(start_paused = true)]
async fn a_room_tells_its_bots_and_has_its_own_default() {
    let (ben, mut bens) = puppet("ben", BotLimits::default());
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.bot(ben)).await;
    let mut bob = scene.bob_reads().await;
    configure(&scene.room, |settings| {
        settings.system = "Answer in French.".into();
        settings.default_bot = Some("ben".into());
    })
    .await;
    assert!(matches!(next(&mut bob).await, Event::RoomUpdated { by, .. } if by == scene.alice.id()));
    assert_eq!(scene.bobs.settings().await.unwrap().default_bot.as_deref(), Some("ben"));
    let turn = scene.bobs.send("/bot what is it").await.unwrap().turn.unwrap();
    assert_eq!(turn.bot(), "ben");
    let answering = bens.next().await;
    assert_eq!(answering.turn.prompt, "what is it", "the command is the default bot's");
    assert!(
        answering
            .turn
            .context
            .system
            .starts_with("Answer in French.\n\nYou are \"ben\"")
    );
    answering.finish();
    turn.ended().await.unwrap();
    // A named one is told too, and what people say never becomes a part of that.
    let (_, answering) = scene.ask("Answer in Dutch.").await;
    let system = &answering.turn.context.system;
    assert!(system.contains("Answer in French.") && !system.contains("Dutch"));
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn settings_are_looked_at_before_they_are_kept() {
    let scene = Scene::new().await;
    let before = scene.room.settings().await.unwrap();
    let with = |change: &dyn Fn(&mut RoomSettings)| {
        let mut settings = before.clone();
        change(&mut settings);
        settings
    };
    let long = "ä".repeat(4_000);
    let cases = [
        (with(&|s| s.system = format!("{long}x")), Some(ErrorKind::TooLarge)),
        (with(&|s| s.system = "a\0b".into()), Some(ErrorKind::BadRequest)),
        (
            with(&|s| s.default_bot = Some("nobody".into())),
            Some(ErrorKind::BadRequest),
        ),
        (
            with(&|s| s.default_bot = Some("ANN".into())),
            Some(ErrorKind::BadRequest),
        ),
        (with(&|s| s.system = long.clone()), None),
        (with(&|s| s.system = "one\n\ttwo\r\n".into()), None),
    ];
    for (settings, expected) in cases {
        let done = scene.room.configure(settings.clone()).await;
        assert_eq!(done.err().map(|error| error.kind()), expected);
        let now = scene.room.settings().await.unwrap();
        assert_eq!(now == settings, expected.is_none());
    }
    assert_eq!(kind(scene.bobs.configure(before).await), ErrorKind::Forbidden);
    scene.close().await;
}

// Who may stop.

#[tokio::test(start_paused = true)]
async fn whom_the_room_trusts_may_stop() {
    use WhoMayStop::{Anyone, Asker, Owner};
    // Whether the owner, who asked, and another member may.
    let cases = [
        (Anyone, [true, true, true]),
        (Asker, [true, true, false]),
        (Owner, [true, false, false]),
    ];
    for (who_may_stop, expected) in cases {
        let mut scene = Scene::new().await;
        scene.room.invite(&scene.carol).await.unwrap();
        let carols = scene.carol.room(scene.room.id()).await.unwrap();
        configure(&scene.room, |settings| settings.who_may_stop = who_may_stop).await;
        for (room, may) in [scene.room.clone(), scene.bobs.clone(), carols].iter().zip(expected) {
            let running = scene.bobs.send("/ann talk").await.unwrap().turn.unwrap();
            let waiting = scene.bobs.send("/ann and then").await.unwrap().turn.unwrap();
            let answering = scene.ann.next().await;
            answering.say("so far").await.unwrap();
            let answer = newest(&scene.room).await;
            for turn in [waiting.id(), running.id()] {
                let stopped = room.stop(turn).await;
                assert_eq!(stopped.is_ok(), may, "{who_may_stop:?}: {stopped:?}");
                assert!(may || kind(stopped) == ErrorKind::Forbidden);
            }
            if !may {
                assert_eq!(kind(room.stop_answer(answer.id).await), ErrorKind::Forbidden);
                answering.say(", and on").await.unwrap();
                scene.room.stop(waiting.id()).await.unwrap();
                answering.finish();
            }
            let end = running.ended().await.unwrap();
            assert_eq!(end.status == TurnStatus::Stopped, may);
            waiting.ended().await.unwrap();
        }
        scene.close().await;
    }
}

// Interrupting.

#[tokio::test(start_paused = true)]
async fn a_new_ask_takes_the_place_of_the_old_one_where_the_room_wants_it() {
    let mut scene = Scene::new().await;
    let (first, answering) = scene.ask("a long story").await;
    let waiting = scene.room.send("/ann another one").await.unwrap().turn.unwrap();
    answering.say("Once upon a ti").await.unwrap();
    configure(&scene.room, |settings| settings.policy = TurnPolicy::Interrupt).await;
    let mut bob = scene.bob_reads().await;
    let second = scene.bobs.send("/ann no, in short").await.unwrap().turn.unwrap();
    let next = scene.ann.next().await;
    assert_eq!(next.turn.prompt, "no, in short");
    assert!(answering.dropped().is_some(), "the first one's provider is let go");
    for turn in [&first, &waiting] {
        let end = turn.ended().await.unwrap();
        assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(scene.bob.id())));
    }
    next.say("The end.").await.unwrap();
    next.finish();
    assert_eq!(second.ended().await.unwrap().status, TurnStatus::Done);
    let texts: Vec<_> = settled(&mut bob)
        .await
        .iter()
        .filter_map(|event| match event {
            Event::TurnEnded { turn, text, .. } => Some((*turn, text.to_string())),
            _ => None,
        })
        .collect();
    let expected = [
        (waiting.id(), ""),
        (first.id(), "Once upon a ti"),
        (second.id(), "The end."),
    ];
    assert_eq!(texts, expected.map(|(turn, text)| (turn, text.to_owned())));
    assert!(!scene.ann.has_next(), "what waited never reached the bot");
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn rooms_never_wait_for_each_other() {
    let mut scene = Scene::new().await;
    let (_hangs, _answering) = scene.ask("hang").await;
    for _ in 0..MAX_WAITING {
        scene.room.send("/ann wait").await.unwrap();
    }
    let begun = Instant::now();
    for n in 0..100 {
        let room = scene.bob.create_room(format!("room {n}")).await.unwrap();
        room.send("/ann here?").await.unwrap();
        let answering = scene.ann.next().await;
        assert_eq!(answering.turn.room, room.id());
        std::mem::forget(answering);
    }
    assert!(begun.elapsed() < ms(500), "{:?}", begun.elapsed());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_seen_by_who_comes_late() {
    let mut scene = Scene::new().await;
    let mut alice = reads(&scene.room).await.1;
    let (first, answering) = scene.ask("first").await;
    let second = scene.bobs.send("/ann second").await.unwrap().turn.unwrap();
    let third = scene.room.send("/ann third").await.unwrap().turn.unwrap();
    let positions: Vec<_> = settled(&mut alice)
        .await
        .iter()
        .filter_map(|event| match event {
            Event::TurnQueued { turn, position, .. } => Some((*turn, *position)),
            _ => None,
        })
        .collect();
    assert_eq!(positions, [(first.id(), 0), (second.id(), 1), (third.id(), 2)]);
    let (snapshot, _) = reads(&scene.bobs).await;
    let seen: Vec<_> = snapshot
        .turns
        .iter()
        .map(|turn| (turn.id, turn.status, turn.asked_by))
        .collect();
    let (alice, bob) = (scene.alice.id(), scene.bob.id());
    let (streams, waits) = (TurnStatus::Streaming, TurnStatus::Queued);
    let expected = [
        (first.id(), streams, alice),
        (second.id(), waits, bob),
        (third.id(), waits, alice),
    ];
    assert_eq!(seen, expected);
    assert_eq!(scene.bobs.open_turns().await.unwrap(), snapshot.turns);
    answering.finish();
    first.ended().await.unwrap();
    assert_eq!(scene.bobs.open_turns().await.unwrap().len(), 2);
    scene.close().await;
}

// Trying again.

#[tokio::test(start_paused = true)]
async fn a_retry_asks_the_same_and_reads_nothing_that_was_said_later() {
    let mut scene = Scene::new().await;
    scene.room.send("The sky is blue.").await.unwrap();
    let (turn, answering) = scene.ask("what colour?").await;
    let first = answering.turn.clone();
    assert_eq!(first.attempt, 1);
    answering.say("It is").await.unwrap();
    answering.end(Err(BotError::new(BotErrorKind::Server, "The provider failed.")));
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Failed);
    let failed = newest(&scene.room).await;
    scene.room.send("No, it is green.").await.unwrap();
    let mut alice = reads(&scene.room).await.1;
    let again = scene.bobs.retry_answer(failed.id).await.unwrap();
    // A second click is the same retry.
    assert_eq!(scene.room.retry(turn.id()).await.unwrap().id(), again.id());
    let answering = scene.ann.next().await;
    let second = &answering.turn;
    assert_eq!(
        (second.attempt, second.ask, &second.prompt),
        (2, first.ask, &first.prompt)
    );
    assert_eq!(second.context, first.context);
    answering.say("Blue.").await.unwrap();
    answering.finish();
    again.ended().await.unwrap();
    let events = settled(&mut alice).await;
    assert!(
        matches!(&events[0], Event::TurnQueued { asked_by, ask, .. } if (*asked_by, *ask) == (scene.bob.id(), first.ask))
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::TurnQueued { .. }))
            .count(),
        1
    );
    let answer = newest(&scene.room).await;
    assert_eq!((answer.text.as_str(), answer.reply_to), ("Blue.", Some(first.ask)));
    let old = scene.room.message(failed.id).await.unwrap();
    assert_eq!(
        (old.text.as_str(), old.status),
        ("It is", MessageStatus::Failed),
        "the first one stays"
    );
    assert_eq!(
        scene.room.receipt(failed.id).await.unwrap(),
        scene.room.receipt(answer.id).await.unwrap()
    );
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_can_be_tried_again_and_what_is_gone_cannot() {
    let mut scene = Scene::new().await;
    let (_, answering) = scene.ask("talk").await;
    for _ in 0..MAX_WAITING {
        scene.room.send("/ann wait").await.unwrap();
    }
    let refused = scene.bobs.send("/ann and I?").await.unwrap();
    let turn = refused.turn.unwrap();
    assert_eq!(turn.refused().unwrap().code, "busy");
    let again = scene.bobs.retry(turn.id()).await.unwrap();
    assert_eq!(again.refused().unwrap().code, "busy", "still");
    answering.finish();
    scene.ann.next().await;
    let again = scene.bobs.retry(turn.id()).await.unwrap();
    assert!(again.refused().is_none());
    again.stop().await.unwrap();
    scene.bobs.delete(refused.message.id).await.unwrap();
    assert_eq!(kind(scene.bobs.retry(turn.id()).await), ErrorKind::NotFound);
    assert_eq!(
        kind(scene.bobs.retry_answer(refused.message.id).await),
        ErrorKind::NotFound
    );
    let elsewhere = scene.bob.create_room("elsewhere").await.unwrap();
    assert_eq!(kind(elsewhere.retry(turn.id()).await), ErrorKind::NotFound);
    scene.room.remove(scene.bob.id()).await.unwrap();
    assert_eq!(kind(scene.bobs.retry(turn.id()).await), ErrorKind::NotFound);
    scene.close().await;
}

// Bots that ask bots.

/// A bot that always names the other.
fn chatterbox(handle: &'static str, other: &'static str, turns: &Arc<AtomicUsize>) -> impl Bot {
    let turns = Arc::clone(turns);
    coop_core::bot_fn(handle, move |turn, out| {
        let turns = Arc::clone(&turns);
        async move {
            if turns.fetch_add(1, Ordering::Relaxed) > 20 {
                return Err(BotError::new(BotErrorKind::Internal, "This goes on for ever."));
            }
            out.push(format!("{} @{other}, go on, @{handle} says", turn.asked_by))
                .await?;
            Ok(Finish::stop())
        }
    })
}

/// I8: nobody has to be there to end it.
#[test]
fn bots_that_ask_each_other_come_to_an_end() {
    notices(Mutant::HopLimit, || async {
        let turns = Arc::default();
        let (ping, pong) = (chatterbox("ping", "pong", &turns), chatterbox("pong", "ping", &turns));
        let scene = Scene::with(MemoryStore::new(), |builder| builder.bot(ping).bot(pong)).await;
        let mut bob = scene.bob_reads().await;
        scene.room.send("/ping hello").await.unwrap();
        a_moment().await;
        assert_eq!(turns.load(Ordering::Relaxed), 1, "not unless the room allows it");
        configure(&scene.room, |settings| settings.bots_ask_bots = true).await;
        settled(&mut bob).await;
        scene.room.send("/ping hello").await.unwrap();
        let refused = |event: &Event| matches!(event, Event::TurnEnded { message: None, .. });
        let events = timeout(Duration::from_secs(5), until(&mut bob, refused))
            .await
            .expect("it ends");
        let said: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::TurnStarted {
                    message, bot, asked_by, ..
                } => Some((bot.clone(), *asked_by, message.reply_to)),
                _ => None,
            })
            .collect();
        assert_eq!(said.len(), MAX_BOT_TURNS as usize);
        assert!(
            said.iter().all(|(_, by, _)| *by == scene.alice.id()),
            "it is hers all the way"
        );
        let answers = scene.room.history(Range::Newest, 10).await.unwrap().messages;
        for pair in answers[answers.len() - said.len() - 1..].windows(2) {
            assert_eq!(pair[1].reply_to, Some(pair[0].id), "each answers the one before it");
        }
        assert!(answers.last().unwrap().text.starts_with("ping "));
        let Some(Event::TurnEnded { end, .. }) = events.last() else {
            unreachable!()
        };
        assert_eq!(end.error.as_ref().unwrap().code, "hop_limit");
        a_moment().await;
        assert!(scene.room.open_turns().await.unwrap().is_empty());
        scene.close().await;
    });
}

// What an answer was made from.

#[tokio::test(start_paused = true)]
async fn a_receipt_names_what_was_read_and_in_which_version() {
    let mut scene = Scene::new().await;
    let one = scene.room.send("one").await.unwrap().message.id;
    let two = scene.bobs.send("two").await.unwrap().message.id;
    scene.bobs.edit(two, "two, better").await.unwrap();
    let gone = scene.bobs.send("gone").await.unwrap().message.id;
    scene.bobs.delete(gone).await.unwrap();
    let (turn, answering) = scene.ask("what was said?").await;
    let ask = answering.turn.ask;
    scene.room.send("later").await.unwrap();
    answering.say("Two things").await.unwrap();
    let answer = scene.room.open_turns().await.unwrap()[0].message.unwrap();
    assert_eq!(
        kind(scene.room.receipt(answer).await),
        ErrorKind::NotFound,
        "a moment later"
    );
    sleep(Duration::from_secs(1)).await;
    let early = scene.bobs.receipt(answer).await.unwrap();
    answering.finish();
    turn.ended().await.unwrap();
    let receipt = scene.bobs.receipt(answer).await.unwrap();
    assert_eq!(receipt, early);
    assert_eq!(receipt, answering.turn.context.receipt());
    let read: Vec<_> = receipt.read.iter().map(|read| (read.message, read.edit)).collect();
    assert_eq!(read, [(one, 0), (two, 1), (ask, 0)]);
    assert_eq!((receipt.omitted, receipt.hash.len()), (0, 64));
    // Another text, another hash.
    let (turn, answering) = scene.ask("what was said?").await;
    answering.finish();
    turn.ended().await.unwrap();
    let other = scene.room.receipt(newest(&scene.room).await.id).await.unwrap();
    assert_ne!(other.hash, receipt.hash);
    assert_eq!(kind(scene.room.receipt(one).await), ErrorKind::NotFound);
    assert_eq!(kind(scene.carol.room(scene.room.id()).await), ErrorKind::NotFound);
    scene.close().await;
}

// What it costs.

/// A bot that uses ten tokens every 100 ms and says so, for ever; with `metered` it says nothing.
struct Spender {
    metered: bool,
    running: Arc<AtomicUsize>,
}

/// Counts down when its bot's future is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Bot for Spender {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new("spender");
        profile.metered = self.metered;
        profile
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(Arc::clone(&self.running));
        let words: u32 = turn.prompt.parse().unwrap_or(u32::MAX);
        for n in 1..=words {
            // 40 bytes: ten tokens, also as they are estimated.
            out.push("0123456789012345678901234567890123456789").await?;
            if !self.metered {
                out.usage(Usage {
                    output: Some(n * 10),
                    ..Usage::default()
                });
            }
            sleep(ms(100)).await;
        }
        Ok(Finish::stop())
    }
}

async fn spending(store: impl Store, metered: bool, budgets: Budgets) -> (Engine, User, Arc<AtomicUsize>) {
    let running = Arc::default();
    let spender = Spender {
        metered,
        running: Arc::clone(&running),
    };
    let builder = Engine::builder(store).bot(spender).budgets(budgets);
    let engine = builder.checkpoint_every(ms(200)).build().await.unwrap();
    let alice = match engine.find_user("alice").await {
        Ok(alice) => alice,
        Err(_) => engine.create_user("alice").await.unwrap(),
    };
    (engine, alice, running)
}

fn a_user_may_use(tokens: u64) -> Budgets {
    Budgets {
        user_tokens_per_day: Some(tokens),
        ..Budgets::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_turns_use_is_kept_and_adds_up() {
    let (engine, alice, _) = spending(MemoryStore::new(), false, Budgets::default()).await;
    let room = alice.create_room("lab").await.unwrap();
    let den = alice.create_room("den").await.unwrap();
    for (room, words) in [(&room, 3), (&den, 5), (&room, 12)] {
        let turn = room.send(format!("/bot {words}")).await.unwrap().turn.unwrap();
        let usage = turn.ended().await.unwrap().usage.unwrap();
        assert_eq!((usage.output, usage.estimated), (Some(words * 10), false));
    }
    let sum = |turns, total| UsageSum {
        turns,
        output: total,
        total,
        input: 0,
    };
    let all = UsageFilter::default;
    assert_eq!(room.usage(all()).await.unwrap(), sum(2, 150));
    assert_eq!(den.usage(all()).await.unwrap(), sum(1, 50));
    assert_eq!(alice.usage(all()).await.unwrap(), sum(3, 200));
    let of_bot = UsageFilter {
        bot: Some("spender".into()),
        ..all()
    };
    assert_eq!(engine.usage(&of_bot).await.unwrap(), sum(3, 200));
    let nobody = UsageFilter {
        bot: Some("scribe".into()),
        ..all()
    };
    assert_eq!(engine.usage(&nobody).await.unwrap(), UsageSum::default());
    // One that is stopped has used what it has.
    let turn = den.send("/bot talk").await.unwrap().turn.unwrap();
    sleep(ms(950)).await;
    turn.stop().await.unwrap();
    assert_eq!(turn.ended().await.unwrap().usage.unwrap().output, Some(100));
    assert_eq!(den.usage(all()).await.unwrap(), sum(2, 150));
    engine.close(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_metered_bot_that_says_nothing_is_estimated() {
    let (engine, alice, _) = spending(MemoryStore::new(), true, Budgets::default()).await;
    let room = alice.create_room("lab").await.unwrap();
    let turn = room.send("/bot 4").await.unwrap().turn.unwrap();
    let usage = turn.ended().await.unwrap().usage.unwrap();
    assert_eq!((usage.output, usage.estimated), (Some(40), true));
    assert!(usage.input.unwrap() > 40, "the system text and the prompt");
    assert_eq!(room.usage(UsageFilter::default()).await.unwrap().total, usage.tokens());
    engine.close(ms(0)).await;
}

#[test]
fn a_budget_cuts_off_in_the_middle_and_refuses_from_then_on() {
    notices(Mutant::Budget, || async {
        let (engine, alice, running) = spending(MemoryStore::new(), false, a_user_may_use(100)).await;
        let bob = engine.create_user("bob").await.unwrap();
        let room = alice.create_room("lab").await.unwrap();
        room.invite(&bob).await.unwrap();
        let bobs = bob.room(room.id()).await.unwrap();
        let turn = room.send("/bot talk for ever").await.unwrap().turn.unwrap();
        let waiting = room.send("/bot and on").await.unwrap().turn.unwrap();
        let end = timeout(Duration::from_secs(5), turn.ended())
            .await
            .expect("it is cut off")
            .unwrap();
        assert_eq!((end.status, end.by), (TurnStatus::Stopped, None));
        assert_eq!(end.error.as_ref().unwrap().code, "budget_exceeded");
        let used = end.usage.unwrap().tokens();
        assert!((100..=130).contains(&used), "{used}");
        let refused = waiting.ended().await.unwrap();
        assert_eq!(
            (refused.status, refused.error.unwrap().code.as_str()),
            (TurnStatus::Failed, "budget_exceeded")
        );
        assert_eq!(running.load(Ordering::Relaxed), 0);
        let answer = newest(&room).await;
        assert_eq!(
            (answer.status, answer.text.len() as u64),
            (MessageStatus::Stopped, used * 4),
            "what was said stays"
        );
        assert!(answer.error.as_ref().unwrap().contains("used up"));
        // Elsewhere too, but others may ask, and people may talk.
        let den = alice.create_room("den").await.unwrap();
        let turn = den.send("/bot hello?").await.unwrap().turn.unwrap();
        assert_eq!(turn.refused().unwrap().code, "budget_exceeded");
        room.send("well then").await.unwrap();
        let turn = bobs.send("/bot 2").await.unwrap().turn.unwrap();
        assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
        let again = room.retry(turn.id()).await.unwrap();
        assert_eq!(
            again.refused().unwrap().code,
            "budget_exceeded",
            "charged to who retries"
        );
        engine.close(ms(0)).await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_day_is_a_new_budget_and_a_room_has_one_too() {
    struct Days(Arc<AtomicUsize>);
    impl coop_core::Clock for Days {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed) as i64 * 24 * 60 * 60 * 1_000 + 5)
        }
    }
    let day = Arc::new(AtomicUsize::new(20_000));
    let budgets = Budgets {
        room_tokens_per_day: Some(50),
        ..Budgets::default()
    };
    let running = Arc::default();
    let spender = Spender {
        metered: false,
        running,
    };
    let builder = Engine::builder(MemoryStore::new()).bot(spender).budgets(budgets);
    let engine = builder.clock(Days(Arc::clone(&day))).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let ask = async |room: &Room| {
        let turn = room.send("/bot 3").await.unwrap().turn.unwrap();
        turn.ended().await.unwrap().error.map(|error| error.code)
    };
    assert_eq!(ask(&room).await, None);
    assert_eq!(
        ask(&room).await,
        None,
        "the answer that uses it up is not cut if it is over before anybody looks"
    );
    assert_eq!(ask(&room).await.as_deref(), Some("budget_exceeded"));
    assert_eq!(ask(&alice.create_room("den").await.unwrap()).await, None);
    day.store(20_001, Ordering::Relaxed);
    assert_eq!(ask(&room).await, None);
    let since = |day| UsageFilter {
        since: Some(Day(day)),
        ..UsageFilter::default()
    };
    assert_eq!(room.usage(since(20_001)).await.unwrap().total, 30);
    assert_eq!(room.usage(since(20_000)).await.unwrap().total, 90);
    engine.close(ms(0)).await;
}

/// The owner's checkpoints, which charge, leave what another server asks for as it is.
#[tokio::test(start_paused = true)]
async fn a_turn_that_is_charged_can_be_stopped_from_another_server() {
    let world = MemoryStore::new();
    let (one, alice, running) = spending(world.join(), false, Budgets::default()).await;
    let (two, alices, _) = spending(world.join(), false, Budgets::default()).await;
    let room = alice.create_room("lab").await.unwrap();
    let turn = room.send("/bot talk for ever").await.unwrap().turn.unwrap();
    sleep(ms(700)).await;
    alices.room(room.id()).await.unwrap().stop(turn.id()).await.unwrap();
    let end = timeout(Duration::from_secs(2), turn.ended())
        .await
        .expect("it stops")
        .unwrap();
    assert_eq!((end.status, end.by), (TurnStatus::Stopped, Some(alice.id())));
    assert_eq!(running.load(Ordering::Relaxed), 0);
    one.close(ms(0)).await;
    two.close(ms(0)).await;
}

/// Fifty asks of one person at once, in fifty rooms, half at each of two servers. What is used beyond the budget is what was
/// in flight: what each of them may write between two looks.
async fn fifty_asks_at_two_servers(stores: [impl Store; 2], between_looks: u64) {
    const BUDGET: u64 = 3_000;
    let [one, two] = stores;
    let (one, alice, at_one) = spending(one, false, a_user_may_use(BUDGET)).await;
    let (two, alices, at_two) = spending(two, false, a_user_may_use(BUDGET)).await;
    let mut rooms = Vec::new();
    for n in 0..50 {
        let user = if n % 2 == 0 { &alice } else { &alices };
        rooms.push(user.create_room(format!("room {n}")).await.unwrap());
    }
    let asks = rooms
        .iter()
        .map(async |room| room.send("/bot talk for ever").await.unwrap().turn.unwrap());
    let turns = futures::future::join_all(asks).await;
    for turn in &turns {
        let end = timeout(Duration::from_secs(30), turn.ended())
            .await
            .expect("it is cut off")
            .unwrap();
        assert_eq!(end.error.expect("a reason").code, "budget_exceeded");
    }
    assert_eq!((at_one.load(Ordering::Relaxed), at_two.load(Ordering::Relaxed)), (0, 0));
    let used = alice.usage(UsageFilter::default()).await.unwrap().total;
    assert!(
        used >= BUDGET && used <= BUDGET + 50 * between_looks,
        "{used} tokens used"
    );
    for room in [&rooms[0], &rooms[1]] {
        let turn = room.send("/bot once more").await.unwrap().turn.unwrap();
        assert_eq!(turn.refused().expect("refused").code, "budget_exceeded");
    }
    let after = alice.usage(UsageFilter::default()).await.unwrap().total;
    assert_eq!(after, used);
    one.close(ms(0)).await;
    two.close(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn fifty_asks_overspend_by_what_was_in_flight() {
    let world = MemoryStore::new();
    fifty_asks_at_two_servers([world.join(), world.join()], 30).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn fifty_asks_overspend_by_what_was_in_flight_on_postgres() {
    use coop_core::store::postgres::PostgresStore;
    use coop_core::testing::postgres::shared;
    let Some(cluster) = shared("fifty_asks_overspend_by_what_was_in_flight_on_postgres") else {
        return;
    };
    let url = cluster.database();
    let stores = [
        PostgresStore::open(&url).await.unwrap(),
        PostgresStore::open(&url).await.unwrap(),
    ];
    // A machine under load looks less often.
    fifty_asks_at_two_servers(stores, 150).await;
}
