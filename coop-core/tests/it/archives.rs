//! Rooms that leave a store and come to another: what is the same there, and what is refused.

use crate::faults::FaultyStore;
use crate::scene::{Scene, kind, ms, next, settled};
use coop_core::store::Store;
use coop_core::store::memory::MemoryStore;
use coop_core::store::postgres::PostgresStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::testing::postgres::shared;
use coop_core::{
    Archive, BotError, BotErrorKind, Departure, Draft, Engine, ErrorKind, Event, ForeignMember, ForeignMessage,
    ForeignRoom, Meta, Range, RoomId, RoomSettings, Speaker, Timestamp, TurnStatus,
};
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;

/// A room in which there is one of everything, as lines.
async fn full_room() -> String {
    let store = MemoryStore::new();
    let mut scene = Scene::on(store.reopen()).await;
    let (room, bobs) = (scene.room.clone(), scene.bobs.clone());
    let mut settings = RoomSettings::default();
    settings.system = "Answer in French.".to_owned();
    room.configure(settings).await.unwrap();
    // Somebody who has left and has no account any more, and somebody of the same name.
    room.invite(&scene.carol).await.unwrap();
    let carols = scene.carol.room(room.id()).await.unwrap();
    carols.send("I was here").await.unwrap();
    scene.carol.delete_account(Departure::default()).await.unwrap();
    let carol = scene.engine.create_user("carol").await.unwrap();
    room.invite(&carol).await.unwrap();
    let carols = carol.room(room.id()).await.unwrap();
    carols.send("I am another").await.unwrap();

    let meta = Meta::from_json("{ \"colour\":\n\t\"red\", \"n\": 1.50 }").unwrap();
    let first = room
        .send(Draft::text("first\nline ü \u{1f600}").client_id("a-1").meta(meta))
        .await
        .unwrap();
    let reply = bobs.send(Draft::text("yes").reply_to(first.message.id)).await.unwrap();
    bobs.edit(reply.message.id, "no").await.unwrap();
    bobs.edit(reply.message.id, "perhaps").await.unwrap();
    let gone = bobs.send("not for long").await.unwrap();
    room.delete(gone.message.id).await.unwrap();
    let (turn, answering) = scene.ask("well?").await;
    answering.say("because").await.unwrap();
    answering.finish();
    turn.ended().await.unwrap();
    let (turn, answering) = scene.ask("and then?").await;
    answering.end(Err(BotError::new(BotErrorKind::Internal, "Too much.")));
    turn.ended().await.unwrap();
    let again = bobs.retry(turn.id()).await.unwrap();
    let answering = scene.ann.next().await;
    answering.say("half of").await.unwrap();
    bobs.stop(again.id()).await.unwrap();
    again.ended().await.unwrap();
    room.rename("laboratory").await.unwrap();
    bobs.mark_all_read().await.unwrap();
    // Closing flushes the marks.
    scene.close().await;
    Archive::of(&store.reopen(), room.id()).await.unwrap().to_string()
}

async fn stores() -> Vec<(&'static str, Arc<dyn Store>)> {
    let mut stores: Vec<(_, Arc<dyn Store>)> = vec![
        ("memory", Arc::new(MemoryStore::new())),
        ("sqlite", Arc::new(SqliteStore::memory().await.unwrap())),
    ];
    if let Some(cluster) = shared("a_room_is_the_same_wherever_it_goes") {
        let store = PostgresStore::open(&cluster.database()).await.unwrap();
        stores.push(("postgres", Arc::new(store)));
    }
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_the_same_wherever_it_goes() {
    let lines = full_room().await;
    // Each has had rooms before, so that nothing is called as it was.
    for (name, store) in stores().await {
        let engine = Engine::builder_on(store).build().await.unwrap();
        let dora = engine.create_user("dora").await.unwrap();
        let other = dora.create_room("other").await.unwrap();
        other.send("something else").await.unwrap();
        let bob = engine.create_user("bob").await.unwrap();
        let mut of_bob = bob.subscribe().await.unwrap();
        let info = engine.import_room(lines.parse().unwrap()).await.unwrap();
        assert_eq!(info.name, "laboratory", "{name}");
        assert_eq!(engine.export_room(info.id).await.unwrap().to_string(), lines, "{name}");
        // It is a room like any other: whoever was here has it at once, reads it and speaks in it.
        let gained = next(&mut of_bob).await;
        assert!(
            matches!(&gained, Event::RoomGained { entry } if entry.info.id == info.id),
            "{gained:?}"
        );
        let room = bob.room(info.id).await.unwrap();
        let alice = engine.find_user("alice").await.unwrap();
        let alices = alice.room(info.id).await.unwrap();
        let again = alices.send(
            Draft::text("first\nline ü \u{1f600}")
                .client_id("a-1")
                .meta(Meta::from_json("{ \"colour\":\n\t\"red\", \"n\": 1.50 }").unwrap()),
        );
        assert!(
            again.await.unwrap().duplicate,
            "{name}: what was sent once is known for ever"
        );
        let unread = alices.entry().await.unwrap().unread;
        room.send("and on it goes").await.unwrap();
        assert_eq!(alices.entry().await.unwrap().unread, unread + 1);
        let found = room.search("another", None, 10).await.unwrap();
        assert_eq!(found.messages[0].author.name, "carol");
        let history = room.history(Range::Newest, 200).await.unwrap().messages;
        let ghost = history.iter().find(|message| message.text == "I was here").unwrap();
        let carol = engine.find_user("carol").await.unwrap();
        assert_ne!(
            ghost.author.user,
            Some(carol.id()),
            "{name}: a namesake is somebody else"
        );
        let answer = history.iter().find(|message| message.text == "because").unwrap();
        let receipt = room.receipt(answer.id).await.unwrap();
        assert!(
            receipt
                .read
                .iter()
                .all(|read| history.iter().any(|message| message.id == read.message)),
            "{name}: the receipt names messages of this room"
        );
        let members = room.members().await.unwrap();
        let members: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(members, ["alice", "bob", "carol"], "{name}");
        // And out of this store again.
        let lines = engine.export_room(info.id).await.unwrap().to_string();
        let third = Engine::builder(MemoryStore::new()).build().await.unwrap();
        let info = third.import_room(lines.parse().unwrap()).await.unwrap();
        assert_eq!(third.export_room(info.id).await.unwrap().to_string(), lines, "{name}");
        third.close(ms(0)).await;
        engine.close(ms(0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_being_written_is_interrupted() {
    let mut scene = Scene::new().await;
    let (turn, answering) = scene.ask("well?").await;
    answering.say("half of").await.unwrap();
    tokio::time::sleep(ms(600)).await;
    let archive = scene.engine.export_room(scene.room.id()).await.unwrap();
    let info = scene.engine.import_room(archive).await.unwrap();
    let room = scene.alice.room(info.id).await.unwrap();
    let last = room.history(Range::Newest, 1).await.unwrap().messages[0].clone();
    assert_eq!(last.text, "half of");
    let copy = room.turn_of(last.id).await.unwrap();
    assert_eq!(copy.status, TurnStatus::Interrupted);
    answering.finish();
    assert_eq!(
        turn.ended().await.unwrap().status,
        TurnStatus::Done,
        "the one it was copied from goes on"
    );
    scene.close().await;
}

#[tokio::test]
async fn a_store_that_cannot_says_so() {
    let scene = Scene::on(FaultyStore::default()).await;
    assert_eq!(
        kind(scene.engine.export_room(scene.room.id()).await),
        ErrorKind::Forbidden
    );
    scene.close().await;
    let scene = Scene::new().await;
    assert_eq!(kind(scene.engine.export_room(RoomId(4_711)).await), ErrorKind::NotFound);
    scene.close().await;
}

#[tokio::test]
async fn what_is_no_room_is_refused_whole() {
    let lines = full_room().await;
    let line = |part: &str| lines.lines().find(|line| line.contains(part)).unwrap().to_owned();
    let without = |part: &str| {
        let others = lines.lines().filter(|line| !line.contains(part));
        others.map(|line| format!("{line}\n")).collect::<String>()
    };
    let ann = lines.replace(r#""name":"bob","account""#, r#""name":"ann","account""#);
    let scene = Scene::new().await;
    let taken = scene.engine.import_room(ann.parse().unwrap()).await;
    assert_eq!(kind(taken), ErrorKind::Conflict, "ann is a bot here");
    for (what, bad) in [
        ("nothing", String::new()),
        ("no JSON", "hello".to_owned()),
        ("no room", line(r#"{"person""#)),
        ("two rooms", format!("{}{}", lines, line(r#"{"room""#))),
        ("another version", lines.replace(r#""version":1"#, r#""version":2"#)),
        (
            "a word too many",
            lines.replace(r#""version":1"#, r#""version":1,"epoch":1"#),
        ),
        ("an owner who is no member", without(r#""role":"owner""#)),
        ("a hole in the log", without(r#""kind":"message_edited""#)),
        ("a message that is not there", without("I am another")),
        (
            "an event twice",
            format!("{}{}", lines, line(r#""kind":"message_edited""#)),
        ),
        ("an unknown event", lines.replace("message_edited", "message_eaten")),
        (
            "an unknown person",
            lines.replace(r#"{"user":2,"name":"bob"}"#, r#"{"user":99,"name":"bob"}"#),
        ),
        (
            "an unknown message",
            lines.replace(r#""reply_to":"#, r#""reply_to":99"#),
        ),
        (
            "a name that is none",
            lines.replace(r#"{"person":{"name":"bob"#, r#"{"person":{"name":"B ob"#),
        ),
        (
            "one person twice",
            lines.replace(r#"{"person":{"name":"bob"#, r#"{"person":{"name":"alice"#),
        ),
        (
            "half a hash",
            lines.replacen(r#""body_hash":""#, r#""body_hash":"zz"#, 1),
        ),
        ("a text with a NUL", lines.replace("I am another", "I am\\u0000another")),
    ] {
        assert!(bad != lines, "{what} changes something");
        let refused = match bad.parse::<Archive>() {
            Ok(archive) => scene.engine.import_room(archive).await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(kind(refused), ErrorKind::BadRequest, "{what}");
    }
    assert_eq!(scene.alice.rooms().await.unwrap().len(), 1, "nothing was made");
    let mut events = scene.bob_reads().await;
    assert!(settled(&mut events).await.is_empty());
    scene.close().await;
}

/// Lines that were tampered with are refused, or make a room that can be read and spoken in.
#[test]
fn tampered_lines_break_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let lines = runtime.block_on(full_room());
    let mut runner = TestRunner::new(Config::with_cases(400));
    let strategy = (
        0..lines.len(),
        0..lines.len().min(40),
        proptest::collection::vec(0_u8..128, 0..4),
    );
    let tried = runner.run(&strategy, |(at, cut, with)| {
        let mut bytes = lines.clone().into_bytes();
        let end = (at + cut % 4).min(bytes.len());
        bytes.splice(at..end, with);
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(());
        };
        let Ok(archive) = text.parse::<Archive>() else {
            return Ok(());
        };
        runtime.block_on(async {
            let engine = Engine::builder(SqliteStore::memory().await.unwrap())
                .build()
                .await
                .unwrap();
            if let Ok(info) = engine.import_room(archive).await {
                let lines = engine.export_room(info.id).await.unwrap().to_string();
                let owner = engine.user(info.owner).await.unwrap();
                let room = owner.room(info.id).await.unwrap();
                let mut events = room.subscribe().await.unwrap();
                next(&mut events).await;
                room.send("still here").await.unwrap();
                room.history(Range::Newest, 200).await.unwrap();
                assert!(lines.parse::<Archive>().is_ok());
            }
            engine.close(ms(0)).await;
        });
        Ok(())
    });
    tried.unwrap();
}

fn foreign() -> ForeignRoom {
    let member = |name: &str| ForeignMember {
        name: name.to_owned(),
        joined_at: Timestamp(1),
        read_at: None,
    };
    let said = |by: Speaker, text: &str, at, reply_to| ForeignMessage {
        by,
        text: text.to_owned(),
        at: Timestamp(at),
        reply_to,
    };
    let person = |name: &str| Speaker::Person(name.to_owned());
    let bot = || Speaker::Bot {
        handle: "gemini".to_owned(),
        name: "Gemini".to_owned(),
    };
    ForeignRoom {
        name: "kitchen".to_owned(),
        owner: "mia".to_owned(),
        is_group: true,
        is_ai_chat: false,
        created_at: Timestamp(0),
        members: vec![member("noah"), member("mia")],
        messages: vec![
            said(bot(), "I am a bot", 1, None),
            said(person("noah"), "what is salt?", 2, None),
            said(bot(), "a mineral", 3, Some(1)),
            said(person("mia"), "and pepper?", 4, None),
            said(Speaker::Former("mia".to_owned()), "a berry", 5, None),
        ],
    }
}

#[tokio::test]
async fn a_foreign_room_is_a_room_like_any_other() {
    let engine = Engine::builder_on(Arc::new(MemoryStore::new())).build().await.unwrap();
    let made = engine.import_room(Archive::foreign(foreign()).unwrap()).await.unwrap();
    let mia = engine.find_user("mia").await.unwrap();
    assert_eq!(made.owner, mia.id());
    let room = mia.room(made.id).await.unwrap();
    let unread = async |name: &str| {
        let user = engine.find_user(name).await.unwrap();
        user.room(made.id).await.unwrap().entry().await.unwrap().unread
    };
    // What follows one's own words, and what a bot said to them.
    assert_eq!((unread("noah").await, unread("mia").await), (2, 1));
    let history = room.history(Range::Newest, 200).await.unwrap().messages;
    assert_eq!(history[2].reply_to, Some(history[1].id));
    assert_ne!(history[4].author.user, Some(mia.id()), "somebody of the same name");
    let mut events = room.subscribe().await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Snapshot(_)));
    room.send("and sugar?").await.unwrap();
    let next = next(&mut events).await;
    assert!(
        matches!(&next, Event::MessagePosted { seq, .. } if seq.0 == 8),
        "{next:?}"
    );
    let lines = engine.export_room(made.id).await.unwrap().to_string();
    assert_eq!(lines.parse::<Archive>().unwrap().to_string(), lines);
}

#[tokio::test]
async fn what_can_be_no_room_is_refused() {
    let refused = |change: fn(&mut ForeignRoom)| {
        let mut room = foreign();
        change(&mut room);
        Archive::foreign(room).unwrap_err().kind()
    };
    assert_eq!(
        refused(|room| room.messages[1].reply_to = Some(2)),
        ErrorKind::BadRequest
    );
    assert_eq!(
        refused(|room| room.messages[1].reply_to = Some(1)),
        ErrorKind::BadRequest
    );
    assert_eq!(refused(|room| room.owner = "carol".to_owned()), ErrorKind::BadRequest);
    assert_eq!(
        refused(|room| room.members.push(room.members[0].clone())),
        ErrorKind::BadRequest
    );
    assert_eq!(refused(|room| room.name = " ".to_owned()), ErrorKind::BadRequest);
    assert_eq!(
        refused(|room| room.messages[1].text = "x".repeat((1 << 20) + 1)),
        ErrorKind::BadRequest
    );
    let crowd = |room: &mut ForeignRoom| {
        let member = |n| ForeignMember {
            name: format!("user{n}"),
            joined_at: Timestamp(1),
            read_at: None,
        };
        room.members.extend((0..1_000).map(member));
    };
    assert_eq!(refused(crowd), ErrorKind::TooLarge);
}
