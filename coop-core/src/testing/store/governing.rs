//! How a room's owner governs its bots, how asks are tried again and passed on, and what all of it uses.

use super::flat::{ANNE, BOB, Flat, delete, edit, finish, invite, keep, name_of, new_room, post, start};
use crate::event::Event;
use crate::id::{MessageId, TurnId, UserId};
use crate::model::{
    Budgets, MessageStatus, MessageVersion, Receipt, RoomSettings, TurnEnd, TurnInfo, TurnPolicy, TurnStatus, Usage,
    UsageFilter, UsageSum, WhoMayStop,
};
use crate::store::plan::{MAX_BOT_TURNS, MAX_WAITING};
use crate::store::{Intent, NewRoom, Outcome, Post, RoomStore};
use std::sync::Arc;

fn configure(settings: &RoomSettings, by: UserId) -> Intent {
    Intent::Configure {
        settings: Arc::new(settings.clone()),
        by,
    }
}

async fn settings<S: RoomStore>(flat: &Flat<'_, S>) -> RoomSettings {
    let head = flat.store.room(flat.id).await.expect("rooms can be read");
    RoomSettings::clone(&head.expect("the room is there").settings)
}

fn done() -> TurnEnd {
    TurnEnd::new(TurnStatus::Done)
}

/// An end with all of its text, which names other bots.
fn pass_on(turn: TurnId, text: &str, asks: &[&str]) -> Intent {
    Intent::EndTurn {
        turn,
        end: done(),
        text: Some(text.into()),
        receipt: None,
        asks: asks.iter().map(|bot| (*bot).to_owned()).collect(),
    }
}

fn error_of(turn: &TurnInfo) -> Option<&str> {
    let end = turn.end.as_ref()?;
    end.error.as_ref().map(|error| error.code.as_str())
}

pub(super) async fn settings_are_the_owners<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    assert_eq!(settings(&flat).await, RoomSettings::default());
    let wanted = RoomSettings {
        system: "Be brief.\n\"Ä\"".into(),
        default_bot: Some("other".into()),
        policy: TurnPolicy::Interrupt,
        who_may_stop: WhoMayStop::Owner,
        bots_ask_bots: true,
    };
    flat.refused(configure(&wanted, BOB), "forbidden").await;
    let committed = flat.commit(vec![configure(&wanted, ANNE)]).await;
    assert!(matches!(&*committed.events[0], Event::RoomUpdated { by: ANNE, info, .. } if info.name == "flat"));
    assert_eq!(settings(&flat).await, wanted);
    // What else changes in the room leaves them as they are.
    flat.say(BOB, "hello").await;
    let (name, by) = ("home".to_owned(), ANNE);
    flat.one(Intent::Rename { name, by }).await;
    flat.one(Intent::HandOver { to: BOB, by: ANNE }).await;
    assert_eq!(settings(&flat).await, wanted);
    flat.refused(configure(&RoomSettings::default(), ANNE), "forbidden")
        .await;
    flat.one(configure(&RoomSettings::default(), BOB)).await;
    assert_eq!(settings(&flat).await, RoomSettings::default());
    let other = Flat::with(store, &[]).await;
    assert_eq!(settings(&other).await, RoomSettings::default(), "of another room");
}

pub(super) async fn the_default_bot_is_the_rooms<S: RoomStore>(store: &S) {
    let new = NewRoom {
        is_ai_chat: true,
        ..new_room("chat", ANNE, &[])
    };
    let flat = Flat::of(store, new).await;
    let say = |asks_default: bool, named: &[&str]| Post {
        asks: named.iter().map(|bot| (*bot).to_owned()).collect(),
        asks_default,
        asks_if_alone: true,
        bots: ["first", "second"].map(String::from).into(),
        ..post(ANNE, "hello")
    };
    let bots = async |said| -> Vec<String> { flat.post(said).await.1.into_iter().map(|turn| turn.bot).collect() };
    let default_bot = async |bot: Option<&str>| {
        let settings = RoomSettings {
            default_bot: bot.map(String::from),
            ..RoomSettings::default()
        };
        flat.one(configure(&settings, ANNE)).await;
    };
    assert_eq!(bots(say(true, &[])).await, ["first"]);
    default_bot(Some("second")).await;
    assert_eq!(bots(say(true, &[])).await, ["second"]);
    assert_eq!(bots(say(false, &[])).await, ["second"]);
    assert_eq!(bots(say(true, &["first", "second"])).await, ["second", "first"]);
    assert_eq!(bots(say(false, &["first"])).await, ["first"]);
    default_bot(Some("gone")).await;
    assert_eq!(bots(say(true, &[])).await, ["first"]);
    flat.one(invite(BOB, ANNE)).await;
    assert_eq!(bots(say(false, &[])).await, [""; 0]);
}

pub(super) async fn a_retry_is_a_new_turn_of_the_same_ask<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let asked = flat.ask(ANNE, "echo").await;
    let retry = |turn: TurnId, ask: MessageId, by: UserId| Intent::Retry {
        turn,
        ask,
        by,
        name: name_of(by),
    };
    // While one is under way, that is it.
    let Outcome::Asked(same) = flat.nothing(retry(asked.id, asked.ask, BOB)).await else {
        panic!("a retry asks");
    };
    assert_eq!((same.id, same.attempt), (asked.id, 1));
    flat.started("echo").await;
    flat.end(asked.id, TurnEnd::failed("server", "it broke"), Some("half"))
        .await;
    let committed = flat.commit(vec![retry(asked.id, asked.ask, BOB), start("echo")]).await;
    let Ok(Outcome::Asked(again)) = &committed.outcomes[0] else {
        panic!("{:?}", committed.outcomes);
    };
    assert!(again.id > asked.id);
    assert_eq!(
        (again.ask, again.ask_seq, again.asked_by, again.attempt),
        (asked.ask, asked.ask_seq, BOB, 2)
    );
    assert!(matches!(&*committed.events[0], Event::TurnQueued { asked_by: BOB, ask, .. } if *ask == asked.ask));
    assert_eq!(flat.turn(again.id).await.status, TurnStatus::Streaming);
    flat.end(again.id, done(), Some("whole")).await;
    let first = flat
        .message(flat.turn(asked.id).await.message.expect("an answer"))
        .await;
    assert_eq!((first.text.as_str(), first.status), ("half", MessageStatus::Failed));
    // Also what was never admitted, and not for strangers, in other rooms, or of what is not there any more.
    flat.refused(retry(again.id, asked.ask, UserId(77)), "not_found").await;
    flat.refused(retry(TurnId(999_999), asked.ask, BOB), "not_found").await;
    let other = Flat::with(store, &[BOB]).await;
    other.refused(retry(again.id, asked.ask, BOB), "not_found").await;
    flat.one(delete(asked.ask, ANNE)).await;
    flat.refused(retry(again.id, asked.ask, BOB), "not_found").await;
    for _ in 0..MAX_WAITING {
        flat.ask(ANNE, "other").await;
    }
    let refused = flat.ask(ANNE, "other").await;
    assert_eq!(error_of(&refused), Some("busy"));
    flat.started("other").await;
    match flat.one(retry(refused.id, refused.ask, ANNE)).await {
        Outcome::Asked(turn) => assert_eq!((turn.status, turn.attempt), (TurnStatus::Queued, 2)),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn an_ask_may_interrupt<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let running = flat.ask(ANNE, "echo").await;
    flat.started("echo").await;
    let waiting = flat.ask(ANNE, "echo").await;
    let other = flat.ask(ANNE, "other").await;
    let settings = RoomSettings {
        policy: TurnPolicy::Interrupt,
        ..RoomSettings::default()
    };
    flat.one(configure(&settings, ANNE)).await;
    let ask = Intent::Post(Post {
        asks: vec!["echo".into()],
        ..post(BOB, "no: this")
    });
    let committed = flat.commit(vec![ask]).await;
    assert_eq!(committed.stops, [(running.id, TurnEnd::stopped(BOB))]);
    let Event::TurnEnded { turn, end, .. } = &*committed.events[1] else {
        panic!("{:?}", committed.events);
    };
    assert_eq!((*turn, &**end), (waiting.id, &TurnEnd::stopped(BOB)));
    assert!(matches!(&*committed.events[2], Event::TurnQueued { position: 1, .. }));
    let open = store.open_turns(Some(flat.id)).await.expect("readable");
    let open: Vec<_> = open.iter().map(|turn| (turn.bot.as_str(), turn.status)).collect();
    let (streams, waits) = (TurnStatus::Streaming, TurnStatus::Queued);
    assert_eq!(open, [("echo", streams), ("other", waits), ("echo", waits)]);
    assert_eq!(flat.turn(other.id).await.status, TurnStatus::Queued);
}

pub(super) async fn only_what_one_may_stop_is_interrupted<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let settings = RoomSettings {
        policy: TurnPolicy::Interrupt,
        who_may_stop: WhoMayStop::Asker,
        ..RoomSettings::default()
    };
    flat.one(configure(&settings, ANNE)).await;
    let annes = flat.ask(ANNE, "echo").await;
    flat.started("echo").await;
    let ask = |by| {
        let asks = vec!["echo".to_owned()];
        Intent::Post(Post {
            asks,
            ..post(by, "and?")
        })
    };
    let committed = flat.commit(vec![ask(BOB)]).await;
    assert!(committed.stops.is_empty(), "a member waits for what another asked");
    let committed = flat.commit(vec![ask(ANNE)]).await;
    let ended = committed
        .events
        .iter()
        .filter(|event| matches!(***event, Event::TurnEnded { .. }));
    assert_eq!((committed.stops.len(), ended.count()), (1, 1), "the owner stops all");
    assert_eq!(committed.stops[0].0, annes.id);
}

pub(super) async fn answers_ask_others_where_the_room_allows_it<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let answer = async |asks: &[&str], end: TurnEnd| {
        let turn = flat.ask(BOB, "echo").await.id;
        let (_, answer) = flat.started("echo").await;
        let mut intent = pass_on(turn, "@other, @third: go on", asks);
        if let Intent::EndTurn { end: how, .. } = &mut intent {
            *how = end;
        }
        let committed = flat.commit(vec![intent]).await;
        (answer, committed.events[1..].to_vec())
    };
    let (_, asked) = answer(&["other"], done()).await;
    assert_eq!(asked, [], "not unless the room allows it");
    let settings = RoomSettings {
        bots_ask_bots: true,
        ..RoomSettings::default()
    };
    flat.one(configure(&settings, ANNE)).await;
    for end in [
        TurnEnd::failed("server", "no"),
        TurnEnd::stopped(ANNE),
        TurnEnd::new(TurnStatus::Interrupted),
    ] {
        let (_, asked) = answer(&["other"], end).await;
        assert_eq!(asked, [], "only a complete answer");
    }
    let (message, asked) = answer(&["other", "echo", "third"], done()).await;
    let asked: Vec<_> = asked
        .iter()
        .map(|event| match &**event {
            Event::TurnQueued { bot, asked_by, ask, .. } => (bot.as_str(), *asked_by, *ask),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        asked,
        [("other", BOB, message), ("third", BOB, message)],
        "but not itself"
    );
    let (turn, _) = flat.started("other").await;
    assert_eq!(
        (turn.asked_by, turn.ask),
        (BOB, message),
        "charged to the person who spoke"
    );
}

pub(super) async fn bots_alone_come_to_an_end<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let settings = RoomSettings {
        bots_ask_bots: true,
        ..RoomSettings::default()
    };
    flat.one(configure(&settings, ANNE)).await;
    for _ in 0..2 {
        flat.ask(ANNE, "ping").await;
        let mut turns = 0;
        let mut bots = ["ping", "pong"].into_iter().cycle();
        let refused = loop {
            let bot = bots.next().expect("for ever");
            let (turn, _) = flat.started(bot).await;
            turns += 1;
            let other = if bot == "ping" { "pong" } else { "ping" };
            let committed = flat.commit(vec![pass_on(turn.id, "your turn", &[other])]).await;
            let Event::TurnEnded {
                turn,
                end,
                message: None,
                ..
            } = &*committed.events[1]
            else {
                continue;
            };
            assert_eq!(flat.turn(*turn).await.end.as_ref(), Some(&**end));
            break end.error.as_ref().expect("a reason").code.clone();
        };
        assert_eq!((turns, refused.as_str()), (MAX_BOT_TURNS, "hop_limit"));
        assert_eq!(store.open_turns(None).await.expect("readable"), []);
        // A person speaks, and it may begin again.
        flat.say(ANNE, "go on").await;
    }
    // Many at once are too many as well.
    let ask = Post {
        asks: ["a", "b", "c"].map(String::from).into(),
        ..post(ANNE, "all of you")
    };
    flat.post(ask).await;
    let (a, _) = flat.started("a").await;
    let committed = flat.commit(vec![pass_on(a.id, "x", &["ping", "pong"])]).await;
    assert!(matches!(&*committed.events[1], Event::TurnQueued { bot, .. } if bot == "ping"));
    assert!(matches!(&*committed.events[2], Event::TurnEnded { bot, .. } if bot == "pong"));
}

pub(super) async fn receipts_stay_with_their_answers<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let receipt = |hash: &str, ask: MessageId| Receipt {
        read: vec![
            MessageVersion {
                message: MessageId(7),
                edit: 2,
            },
            MessageVersion { message: ask, edit: 0 },
        ],
        omitted: 3,
        hash: hash.to_owned(),
    };
    let first = flat.ask(BOB, "echo").await;
    let (_, answer) = flat.started("echo").await;
    let kept = async |message| store.receipt(flat.id, message).await.expect("readable");
    assert_eq!(kept(answer).await, None);
    let early = receipt("aa", first.ask);
    let checkpoint = Intent::Checkpoint {
        turn: first.id,
        text: "so".into(),
        usage: None,
        receipt: Some(Arc::new(early.clone())),
    };
    flat.nothing(checkpoint).await;
    assert_eq!(kept(answer).await, Some(early.clone()));
    flat.end(first.id, TurnEnd::new(TurnStatus::Interrupted), None).await;
    assert_eq!(kept(answer).await, Some(early), "also of what was interrupted");
    let second = flat.ask(BOB, "echo").await;
    let (_, other) = flat.started("echo").await;
    let late = receipt("bb", second.ask);
    flat.one(Intent::EndTurn {
        turn: second.id,
        end: done(),
        text: Some("all".into()),
        receipt: Some(Arc::new(late.clone())),
        asks: Vec::new(),
    })
    .await;
    assert_eq!(kept(other).await, Some(late));
    assert_eq!(kept(second.ask).await, None, "what people say has none");
    let elsewhere = Flat::with(store, &[]).await;
    assert_eq!(store.receipt(elsewhere.id, other).await.expect("readable"), None);
    // Versions are counted.
    let said = flat.say(BOB, "one").await;
    for text in ["two", "three"] {
        flat.one(edit(said.id, BOB, text)).await;
    }
    assert_eq!((said.edits, flat.message(said.id).await.edits), (0, 2));
}

fn used(input: u32, output: u32) -> Usage {
    Usage {
        input: Some(input),
        output: Some(output),
        ..Usage::default()
    }
}

fn charge(turn: TurnId, usage: Usage) -> Intent {
    let mut intent = keep(turn, "text");
    if let Intent::Checkpoint { usage: to, .. } = &mut intent {
        *to = Some(usage);
    }
    intent
}

fn end_with(turn: TurnId, end: TurnEnd, usage: Option<Usage>) -> Intent {
    finish(turn, TurnEnd { usage, ..end }, Some("text"))
}

pub(super) async fn usage_is_charged_and_summed_up<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let other = Flat::with(store, &[BOB]).await;
    let sum = async |of: UsageFilter| store.usage(&of).await.expect("readable");
    let all = UsageFilter::default;
    assert_eq!(sum(all()).await, UsageSum::default());
    let turn = flat.ask(BOB, "echo").await.id;
    flat.started("echo").await;
    flat.nothing(charge(turn, used(100, 5))).await;
    let at = |turns, input, output, total| UsageSum {
        turns,
        input,
        output,
        total,
    };
    assert_eq!(sum(all()).await, at(1, 100, 5, 105));
    flat.nothing(charge(turn, used(100, 20))).await;
    flat.nothing(charge(turn, used(100, 20))).await;
    assert_eq!(sum(all()).await, at(1, 100, 20, 120), "running totals are not added up");
    let thought = Usage {
        thinking: Some(7),
        total: Some(140),
        ..used(90, 30)
    };
    flat.one(end_with(turn, done(), Some(thought))).await;
    assert_eq!(
        sum(all()).await,
        at(1, 90, 37, 140),
        "the last report counts, the bot's own total first"
    );
    assert_eq!(flat.turn(turn).await.end.and_then(|end| end.usage), Some(thought));
    // Whose process dies has been charged what was known.
    let lost = other.ask(ANNE, "gemini").await.id;
    other.started("gemini").await;
    other.nothing(charge(lost, used(10, 1))).await;
    other
        .one(Intent::end(lost, TurnEnd::new(TurnStatus::Interrupted)))
        .await;
    assert_eq!(other.turn(lost).await.end.and_then(|end| end.usage), Some(used(10, 1)));
    let free = other.ask(ANNE, "scribe").await.id;
    other.started("scribe").await;
    other.end(free, done(), Some("nothing used")).await;
    let today = flat.now().day();
    let cases = [
        (
            UsageFilter {
                user: Some(BOB),
                ..all()
            },
            at(1, 90, 37, 140),
        ),
        (
            UsageFilter {
                user: Some(ANNE),
                ..all()
            },
            at(1, 10, 1, 11),
        ),
        (
            UsageFilter {
                user: Some(UserId(77)),
                ..all()
            },
            UsageSum::default(),
        ),
        (
            UsageFilter {
                room: Some(other.id),
                ..all()
            },
            at(1, 10, 1, 11),
        ),
        (
            UsageFilter {
                bot: Some("echo".into()),
                ..all()
            },
            at(1, 90, 37, 140),
        ),
        (
            UsageFilter {
                bot: Some("echo".into()),
                room: Some(other.id),
                ..all()
            },
            UsageSum::default(),
        ),
        (
            UsageFilter {
                user: Some(ANNE),
                room: Some(other.id),
                bot: Some("gemini".into()),
                since: Some(today),
            },
            at(1, 10, 1, 11),
        ),
        (
            UsageFilter {
                since: Some(crate::time::Day(today.0 + 1)),
                ..all()
            },
            UsageSum::default(),
        ),
        (all(), at(2, 100, 38, 151)),
    ];
    for (filter, expected) in cases {
        assert_eq!(sum(filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn budgets_refuse_and_cut_off<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let elsewhere = Flat::with(store, &[BOB]).await;
    let of_user = Budgets {
        user_tokens_per_day: Some(100),
        ..Budgets::default()
    };
    let of_room = Budgets {
        room_tokens_per_day: Some(150),
        ..Budgets::default()
    };
    let ask = |by| {
        let asks = vec!["echo".to_owned()];
        Intent::Post(Post { asks, ..post(by, "?") })
    };
    let asked = async |flat: &Flat<'_, S>, budgets, by| -> TurnInfo {
        let mut committed = flat.commit_within(budgets, vec![ask(by)]).await;
        match committed.outcomes.remove(0) {
            Ok(Outcome::Posted { mut turns, .. }) => turns.remove(0),
            other => panic!("it is posted, whatever becomes of the turn: {other:?}"),
        }
    };
    let kept = async |flat: &Flat<'_, S>, turn, usage| -> Option<String> {
        let mut committed = flat.commit_within(of_user, vec![charge(turn, usage)]).await;
        match committed.outcomes.remove(0) {
            Ok(Outcome::Checkpointed { kept: true, cut }) => cut.map(|cut| cut.code),
            other => panic!("{other:?}"),
        }
    };
    let first = asked(&flat, of_user, BOB).await;
    let (_, answer) = flat.started("echo").await;
    let waiting = asked(&flat, of_user, BOB).await;
    assert_eq!(kept(&flat, first.id, used(60, 20)).await, None);
    assert_eq!(
        kept(&flat, first.id, used(60, 40)).await.as_deref(),
        Some("budget_exceeded")
    );
    let cut = crate::model::TurnError {
        code: "budget_exceeded".into(),
        words: "no more".into(),
    };
    flat.one(end_with(first.id, TurnEnd::cut(cut), Some(used(60, 41))))
        .await;
    let message = flat.message(answer).await;
    assert_eq!(
        (message.status, message.error.as_deref()),
        (MessageStatus::Stopped, Some("no more"))
    );
    // What waits is refused when its turn comes, a new ask at once, in every room.
    let committed = flat.commit_within(of_user, vec![start("echo")]).await;
    assert!(matches!(&*committed.events[0], Event::TurnEnded { turn, .. } if *turn == waiting.id));
    assert_eq!(error_of(&flat.turn(waiting.id).await), Some("budget_exceeded"));
    for flat in [&flat, &elsewhere] {
        let refused = asked(flat, of_user, BOB).await;
        assert_eq!(
            (refused.status, error_of(&refused)),
            (TurnStatus::Failed, Some("budget_exceeded"))
        );
    }
    // Others may still ask, until the room's budget is used up.
    let annes = asked(&flat, of_user, ANNE).await;
    assert_eq!(flat.started("echo").await.0.id, annes.id);
    flat.one(end_with(annes.id, done(), Some(used(40, 9)))).await;
    assert_eq!(asked(&flat, of_room, ANNE).await.status, TurnStatus::Failed);
    assert_eq!(asked(&elsewhere, of_room, ANNE).await.status, TurnStatus::Queued);
    assert_eq!(asked(&flat, Budgets::default(), BOB).await.status, TurnStatus::Queued);
}

pub(super) async fn a_budget_is_not_given_back<S: RoomStore>(store: &S) {
    let budgets = Budgets {
        user_tokens_per_day: Some(100),
        ..Budgets::default()
    };
    let flat = Flat::with(store, &[]).await;
    let turn = flat.ask(ANNE, "echo").await.id;
    flat.started("echo").await;
    flat.one(end_with(turn, done(), Some(used(99, 1)))).await;
    flat.one(Intent::DeleteRoom { by: ANNE }).await;
    let again = Flat::with(store, &[]).await;
    let ask = Intent::Post(Post {
        asks: vec!["echo".into()],
        ..post(ANNE, "?")
    });
    let committed = again.commit_within(budgets, vec![ask]).await;
    let Ok(Outcome::Posted { turns, .. }) = &committed.outcomes[0] else {
        panic!("{:?}", committed.outcomes);
    };
    assert_eq!(error_of(&turns[0]), Some("budget_exceeded"), "with its room");
}

pub(super) async fn open_turns_are_told_by_room<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[]).await;
    let other = Flat::with(store, &[]).await;
    let first = flat.ask(ANNE, "echo").await.id;
    let elsewhere = other.ask(ANNE, "echo").await.id;
    flat.started("echo").await;
    let second = flat.ask(ANNE, "echo").await.id;
    let ids = async |only| -> Vec<TurnId> {
        let open = store.open_turns(only).await.expect("readable");
        open.into_iter().map(|turn| turn.id).collect()
    };
    assert_eq!(ids(Some(flat.id)).await, [first, second]);
    assert_eq!(ids(None).await, [first, elsewhere, second]);
    let seen = store.snapshot(flat.id, 10).await.expect("readable").expect("there");
    assert_eq!(seen.turns, store.open_turns(Some(flat.id)).await.expect("readable"));
    flat.end(first, done(), None).await;
    let seen = store.snapshot(flat.id, 10).await.expect("readable").expect("there");
    assert_eq!(seen.turns.iter().map(|turn| turn.id).collect::<Vec<_>>(), [second]);
}
