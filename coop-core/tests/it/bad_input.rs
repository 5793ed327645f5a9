//! What should not be given to an engine, and what should not happen to its database: each has a clear error of the
//! right kind, nothing is lost, nothing panics and nothing hangs.

use crate::faults::FaultyStore;
use crate::scene::{Scene, a_moment, kind, ms, next, puppet, reads, settled};
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::store::sqlite::{SqliteOptions, SqliteStore};
use coop_core::{
    BotLimits, Draft, Engine, ErrorKind, Event, MessageId, MessageStatus, Meta, Position, Range, Result, Room,
    RoomDraft, RoomId, Seq, TurnId, TurnStatus, UserId,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// The shipped builders ask a store for everything, so a broken one shows at the latest here.
async fn opened(path: &Path) -> Result<Engine> {
    Engine::builder(SqliteStore::open(path).await?).build().await
}

async fn said(room: &Room) -> Vec<String> {
    let page = room.history(Range::Newest, 200).await.unwrap();
    page.messages.iter().map(|message| message.text.clone()).collect()
}

/// Another program that has the file open.
async fn another_program(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

// What people send.

#[tokio::test(start_paused = true)]
async fn texts_that_cannot_be_said() {
    let scene = Scene::new().await;
    let good = scene.room.send("good").await.unwrap().message;
    let most = "ä".repeat(32 * 1024);
    let longer = format!("{most}.");
    for (text, expected) in [
        ("", ErrorKind::BadRequest),
        (" \t\r\n\u{a0}\u{2003}", ErrorKind::BadRequest),
        ("a\0b", ErrorKind::BadRequest),
        (&longer, ErrorKind::TooLarge),
    ] {
        assert_eq!(kind(scene.room.send(text).await), expected, "{text:.10}");
        assert_eq!(kind(scene.room.edit(good.id, text).await), expected, "{text:.10}");
    }
    assert_eq!(scene.bobs.message(good.id).await.unwrap(), good);
    assert_eq!(scene.room.send(most.as_str()).await.unwrap().message.text, most);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_with_a_text_and_cannot() {
    let scene = Scene::new().await;
    for id in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(
            kind(scene.room.send(Draft::text("x").client_id(id)).await),
            ErrorKind::BadRequest,
            "{id:?}"
        );
    }
    scene
        .room
        .send(Draft::text("x").client_id("ü".repeat(64)))
        .await
        .unwrap();
    for json in ["", "[1]", "1", "{", "{} {}", "nonsense"] {
        assert_eq!(kind(Meta::from_json(json)), ErrorKind::BadRequest, "{json}");
    }
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(5_000));
    assert_eq!(kind(Meta::from_json(huge)), ErrorKind::TooLarge);
    assert_eq!(kind(Meta::of(&[1])), ErrorKind::BadRequest);
    scene.close().await;
}

#[tokio::test]
async fn a_client_id_means_one_message() {
    for scene in [
        Scene::new().await,
        Scene::on(SqliteStore::memory().await.unwrap()).await,
    ] {
        let draft = |text: &str| Draft::text(text).client_id("c1");
        let first = scene.room.send(draft("one")).await.unwrap();
        let again = scene.room.send(draft("one")).await.unwrap();
        assert_eq!((again.message.id, again.duplicate), (first.message.id, true));
        let meta = Meta::from_json("{}").unwrap();
        for other in [
            draft("two"),
            draft("one").reply_to(first.message.id),
            draft("one").meta(meta),
        ] {
            assert_eq!(kind(scene.room.send(other).await), ErrorKind::Conflict);
        }
        // Also when it does not say that any more, or nothing at all: what was first sent decides.
        scene.room.edit(first.message.id, "two").await.unwrap();
        assert_eq!(kind(scene.room.send(draft("two")).await), ErrorKind::Conflict);
        assert_eq!(scene.room.send(draft("one")).await.unwrap().message.text, "two");
        scene.room.delete(first.message.id).await.unwrap();
        let again = scene.room.send(draft("one")).await.unwrap();
        assert!(again.duplicate && again.message.deleted_at.is_some());
        assert!(said(&scene.room).await.is_empty());
        assert!(!scene.bobs.send(draft("two")).await.unwrap().duplicate, "bob's own");
        scene.close().await;
    }
}

#[tokio::test]
async fn things_that_are_elsewhere_or_nowhere() {
    for mut scene in [
        Scene::new().await,
        Scene::on(SqliteStore::memory().await.unwrap()).await,
    ] {
        let den = scene.alice.create_room("den").await.unwrap();
        let (turn, _answering) = scene.ask("talk").await;
        let foreign = scene.room.send("in the lab").await.unwrap().message.id;
        for id in [
            foreign,
            MessageId(4_711),
            MessageId(0),
            MessageId(-1),
            MessageId(i64::MAX),
        ] {
            assert_eq!(kind(den.message(id).await), ErrorKind::NotFound);
            assert_eq!(kind(den.edit(id, "x").await), ErrorKind::NotFound);
            assert_eq!(kind(den.delete(id).await), ErrorKind::NotFound);
            assert_eq!(kind(den.stop_answer(id).await), ErrorKind::NotFound);
            assert_eq!(kind(den.send(Draft::text("x").reply_to(id)).await), ErrorKind::NotFound);
        }
        for id in [turn.id(), TurnId(4_711), TurnId(-1), TurnId(i64::MIN)] {
            assert_eq!(kind(den.stop(id).await), ErrorKind::NotFound);
        }
        for id in [RoomId(4_711), RoomId(0), RoomId(-1), RoomId(i64::MAX)] {
            assert_eq!(kind(scene.alice.room(id).await), ErrorKind::NotFound);
        }
        for id in [UserId(4_711), UserId(-1), UserId(i64::MAX)] {
            assert_eq!(kind(den.remove(id).await), ErrorKind::NotFound);
            assert_eq!(kind(den.hand_over(id).await), ErrorKind::NotFound);
            assert_eq!(kind(scene.engine.user(id).await), ErrorKind::NotFound);
        }
        assert!(said(&den).await.is_empty());
        scene.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn positions_from_nowhere() {
    for scene in [
        Scene::new().await,
        Scene::with(MemoryStore::new(), |builder| builder.idle_after(ms(1))).await,
    ] {
        let epoch = reads(&scene.room).await.0.epoch;
        for seq in [i64::MIN, -1, 4_711, i64::MAX] {
            let position = Position {
                epoch,
                seq: Seq(seq),
                tapes: [(MessageId(-1), u64::MAX)].into(),
            };
            let mut events = scene.bobs.resume(position).await.unwrap();
            let first = next(&mut events).await;
            // Just before the beginning is a place from which everything can be told.
            assert!(seq == -1 || matches!(first, Event::Snapshot(_)), "{seq}");
            scene.bobs.mark_read(Seq(seq)).await.unwrap();
            scene.bobs.history(Range::Before(Seq(seq)), 1).await.unwrap();
            scene.bobs.history(Range::After(Seq(seq)), 1).await.unwrap();
        }
        scene.room.send("still here").await.unwrap();
        scene.close().await;
    }
}

struct Shows(coop_core::BotProfile);

#[coop_core::async_trait]
impl coop_core::Bot for Shows {
    fn profile(&self) -> coop_core::BotProfile {
        self.0.clone()
    }

    async fn reply(
        &self,
        _: coop_core::Turn,
        _: coop_core::ReplyWriter,
    ) -> std::result::Result<coop_core::Finish, coop_core::BotError> {
        Ok(coop_core::Finish::stop())
    }
}

#[tokio::test]
async fn bots_that_cannot_be_registered() {
    let bot = |handle: &str| puppet(handle, BotLimits::default()).0;
    for handle in ["", "ab", "Ann", "with space", "bot", "admin", &"x".repeat(33)] {
        let built = Engine::builder(MemoryStore::new()).bot(bot(handle)).build().await;
        assert_eq!(kind(built), ErrorKind::BadRequest, "{handle:?}");
    }
    // What would be read as something else than it is.
    for name in ["", "admin\u{202e}", "a\nb", &"x".repeat(65)] {
        let mut shows = coop_core::BotProfile::new("helper");
        shows.name = name.to_owned();
        let built = Engine::builder(MemoryStore::new()).bot(Shows(shows)).build().await;
        assert_eq!(kind(built), ErrorKind::BadRequest, "{name:?}");
    }
    let built = Engine::builder(MemoryStore::new())
        .bot(bot("ann"))
        .bot(bot("ann"))
        .build()
        .await;
    assert_eq!(kind(built), ErrorKind::Conflict);

    // The same holds for one that joins later; what is refused changes nothing.
    let engine = Engine::builder(MemoryStore::new())
        .bot(bot("ann"))
        .build()
        .await
        .unwrap();
    assert_eq!(kind(engine.add_bot(bot("ann"))), ErrorKind::Conflict);
    assert_eq!(kind(engine.add_bot(bot("with space"))), ErrorKind::BadRequest);
    engine.add_bot(bot("carl")).unwrap();
    assert_eq!(engine.bots(), ["ann", "carl"]);
    let carl = engine.create_user("carl").await;
    assert_eq!(kind(carl), ErrorKind::BadRequest, "a bot's name is no person's");
    engine.close(Duration::ZERO).await;
    assert_eq!(kind(engine.add_bot(bot("late"))), ErrorKind::Closed);
}

// A closed engine.

#[tokio::test]
async fn a_closed_engine_says_so_to_everything() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(folder.path().join("chat.db")).await.unwrap();
    let cheap = |builder: coop_core::EngineBuilder| builder.password_cost(Cost::cheap_for_tests());
    for mut scene in [
        Scene::with(MemoryStore::new(), cheap).await,
        Scene::with(sqlite, cheap).await,
    ] {
        let (turn, answering) = scene.ask("talk").await;
        answering.finish();
        turn.ended().await.unwrap();
        let message = scene.room.send("hello").await.unwrap().message.id;
        scene.close().await;
        let Scene {
            engine,
            alice,
            bob,
            room,
            ..
        } = &scene;
        let password = || "correct horse battery".to_owned();
        let closed = ErrorKind::Closed;
        assert_eq!(kind(engine.create_user("dave").await), closed);
        assert_eq!(
            kind(engine.register("dave", "dave@example.org", password()).await),
            closed
        );
        assert_eq!(kind(engine.authenticate("alice", password()).await), closed);
        assert_eq!(kind(engine.user(alice.id()).await), closed);
        assert_eq!(kind(engine.find_user("alice").await), closed);
        assert_eq!(kind(engine.room_info(room.id()).await), closed);
        assert_eq!(kind(alice.create_room("den").await), closed);
        assert_eq!(kind(alice.room(room.id()).await), closed);
        assert_eq!(kind(alice.rooms().await), closed);
        assert_eq!(kind(alice.search("bob", 1).await), closed);
        assert_eq!(kind(alice.subscribe().await), closed);
        assert_eq!(kind(room.entry().await), closed);
        assert_eq!(kind(room.members().await), closed);
        assert_eq!(kind(room.history(Range::Newest, 1).await), closed);
        assert_eq!(kind(room.message(message).await), closed);
        assert_eq!(kind(room.subscribe().await), closed);
        assert_eq!(kind(room.resume(Position::default()).await), closed);
        assert_eq!(kind(room.send("hello?").await), closed);
        assert_eq!(kind(room.edit(message, "hello?").await), closed);
        assert_eq!(kind(room.delete(message).await), closed);
        assert_eq!(kind(room.stop(turn.id()).await), closed);
        assert_eq!(kind(room.stop_answer(message).await), closed);
        assert_eq!(kind(room.mark_read(Seq(1)).await), closed);
        assert_eq!(kind(room.mark_all_read().await), closed);
        assert_eq!(kind(room.typing().await), closed);
        assert_eq!(kind(room.presence(true).await), closed);
        assert_eq!(kind(room.invite(bob).await), closed);
        assert_eq!(kind(room.remove(bob.id()).await), closed);
        assert_eq!(kind(room.leave().await), closed);
        assert_eq!(kind(room.rename("x").await), closed);
        assert_eq!(kind(room.hand_over(bob.id()).await), closed);
        assert_eq!(kind(room.delete_room().await), closed);
        assert_eq!(kind(turn.stop().await), closed);
        assert_eq!(kind(turn.ended().await), closed);
        // What needs no store is still known, and closing again is no error.
        assert_eq!((engine.bots(), room.id()), (vec!["ann".to_owned()], room.id()));
        scene.close().await;
    }
}

// A database that does not play along.

#[tokio::test]
async fn a_second_engine_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let scene = Scene::on(SqliteStore::open(&path).await.unwrap()).await;
    assert_eq!(kind(opened(&path).await), ErrorKind::InUse);
    scene.room.send("undisturbed").await.unwrap();
    scene.close().await;
    let engine = opened(&path).await.unwrap();
    let room = engine
        .find_user("alice")
        .await
        .unwrap()
        .room(scene.room.id())
        .await
        .unwrap();
    assert_eq!(said(&room).await, ["undisturbed"]);
    engine.close(ms(0)).await;
}

#[tokio::test]
async fn files_that_are_no_database_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("letter.txt"), "Dear reader, ".repeat(1_000)).unwrap();
    opened(&at("newer.db")).await.unwrap().close(ms(0)).await;
    let mut newer = another_program(&at("newer.db")).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, \
                 'later', 1, x'00', 0)";
    newer.execute(later).await.unwrap();
    newer.close().await.unwrap();
    for (path, expected) in [
        (at("letter.txt"), ErrorKind::NotADatabase),
        (at("newer.db"), ErrorKind::NewerSchema),
        (folder.path().to_owned(), ErrorKind::BadRequest),
        (at("no/such/folder.db"), ErrorKind::NotFound),
        ("/proc/self/chat.db".into(), ErrorKind::Unavailable),
    ] {
        let before = std::fs::read(&path).ok();
        assert_eq!(kind(opened(&path).await), expected, "{}", path.display());
        assert_eq!(std::fs::read(&path).ok(), before, "it is left as it was");
    }
}

/// A file that another program holds: refused for now, carried out later, nothing twice; a turn's end waits for it.
#[tokio::test]
async fn a_locked_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut options = SqliteOptions::default();
    options.busy_timeout = Duration::from_millis(50);
    let mut scene = Scene::on(SqliteStore::open_with(&path, options).await.unwrap()).await;
    let mut bob = scene.bobs.subscribe().await.unwrap();
    next(&mut bob).await;
    let (turn, answering) = scene.ask("talk").await;
    let mut other = another_program(&path).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let draft = || Draft::text("held up").client_id("c1");
    let error = scene.room.send(draft()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable() && error.words().contains("locked"), "{error}");
    assert_eq!(kind(scene.alice.create_room("den").await), ErrorKind::Unavailable);
    assert_eq!(kind(scene.engine.create_user("dave").await), ErrorKind::Unavailable);
    answering.say("words").await.unwrap();
    answering.finish();
    assert_eq!(said(&scene.room).await, ["/ann talk", "words"], "reading goes on");
    other.execute("ROLLBACK").await.unwrap();
    assert!(!scene.room.send(draft()).await.unwrap().duplicate);
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    assert_eq!(said(&scene.room).await, ["/ann talk", "words", "held up"]);
    let events = settled(&mut bob).await;
    let seqs: Vec<_> = events.iter().filter_map(Event::seq).map(|seq| seq.0).collect();
    assert_eq!(seqs, (3..=7).collect::<Vec<_>>(), "{events:?}");
    scene.close().await;
}

/// A disk that is full: what was acknowledged stays, what was not can be sent again when there is room.
#[tokio::test]
async fn a_full_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut options = SqliteOptions::default();
    options.max_pages = Some(80);
    let scene = Scene::on(SqliteStore::open_with(&path, options).await.unwrap()).await;
    let draft = |n: usize| Draft::text(format!("{n} {}", "x".repeat(30_000))).client_id(n.to_string());
    let mut kept = 0;
    let error = loop {
        match scene.room.send(draft(kept)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the limit is reached");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.words().contains("full"), "{error}");
    assert_eq!(said(&scene.bobs).await.len(), kept);
    assert_eq!(kind(scene.room.send(draft(kept)).await), ErrorKind::Unavailable);
    scene.close().await;
    let engine = opened(&path).await.unwrap();
    let room = engine
        .find_user("alice")
        .await
        .unwrap()
        .room(scene.room.id())
        .await
        .unwrap();
    assert!(!room.send(draft(kept)).await.unwrap().duplicate);
    assert!(room.send(draft(kept - 1)).await.unwrap().duplicate);
    assert_eq!(said(&room).await.len(), kept + 1);
    engine.close(ms(0)).await;
}

/// A room whose rows cannot be written, as on a disk that has become read-only under a running engine: the others go
/// on, and so does it when the trouble is over.
#[tokio::test]
async fn a_room_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut scene = Scene::on(SqliteStore::open(&path).await.unwrap()).await;
    let den = scene.alice.create_room("den").await.unwrap();
    let (turn, answering) = scene.ask("talk").await;
    let mut other = another_program(&path).await;
    let room = scene.room.id();
    let broken = format!(
        "CREATE TRIGGER broken BEFORE UPDATE ON chats WHEN NEW.id = {room} BEGIN SELECT RAISE(ABORT, 'no'); END"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(broken))
        .execute(&mut other)
        .await
        .unwrap();
    let draft = || Draft::text("again and again").client_id("c1");
    let (here, there) = tokio::join!(scene.room.send(draft()), den.send("undisturbed"));
    assert_eq!(kind(here), ErrorKind::Unavailable);
    there.unwrap();
    assert_eq!(kind(scene.room.invite(&scene.carol).await), ErrorKind::Unavailable);
    assert_eq!(kind(scene.carol.room(room).await), ErrorKind::NotFound);
    answering.say("words").await.unwrap();
    answering.finish();
    other.execute("DROP TRIGGER broken").await.unwrap();
    assert!(!scene.room.send(draft()).await.unwrap().duplicate);
    assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
    scene.close().await;
}

// A store that does not answer.

#[tokio::test(start_paused = true)]
async fn a_room_whose_store_does_not_answer_holds_up_nobody_else() {
    let store = FaultyStore::default();
    let patient = |builder: coop_core::EngineBuilder| builder.patience(Duration::from_secs(3));
    let scene = Scene::with(store.clone(), patient).await;
    let den = scene.alice.create_room("den").await.unwrap();
    let mut dens = reads(&den).await.1;
    store.set(|faults| {
        faults.hang.insert(scene.room.id());
    });
    let asked = Instant::now();
    let sending = (0..600).map(|n| scene.room.send(n.to_string()));
    let (sent, there) = tokio::join!(futures::future::join_all(sending), async {
        let begun = Instant::now();
        den.send("undisturbed").await.unwrap();
        assert!(matches!(next(&mut dens).await, Event::MessagePosted { .. }));
        begun.elapsed()
    });
    assert!(there < ms(50), "{there:?}");
    assert_eq!(asked.elapsed(), Duration::from_secs(3), "no longer than the patience");
    for refused in sent {
        assert_eq!(kind(refused), ErrorKind::Unavailable);
    }
    assert_eq!(
        kind(scene.bobs.mark_all_read().await),
        ErrorKind::Unavailable,
        "its mailbox is full"
    );
    assert!(said(&scene.bobs).await.is_empty(), "reading goes on");
    let closing = Instant::now();
    scene.close().await;
    assert!(closing.elapsed() < Duration::from_secs(30), "{:?}", closing.elapsed());
}

#[tokio::test(start_paused = true)]
async fn making_something_in_a_store_that_does_not_answer_takes_no_longer_than_the_patience() {
    let store = FaultyStore::default();
    let patient = |builder: coop_core::EngineBuilder| builder.patience(Duration::from_secs(3));
    let scene = Scene::with(store.clone(), patient).await;
    store.set(|faults| faults.hang_creation = true);
    for _ in 0..2 {
        let asked = Instant::now();
        assert_eq!(kind(scene.alice.create_room("den").await), ErrorKind::Unavailable);
        assert_eq!(kind(scene.engine.create_user("dave").await), ErrorKind::Unavailable);
        assert_eq!(asked.elapsed(), Duration::from_secs(6));
    }
    scene.room.send("undisturbed").await.unwrap();
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_is_made_and_told_of_or_not_made() {
    let store = FaultyStore::default();
    let scene = Scene::on(store.clone()).await;
    let mut bob = scene.bob.subscribe().await.unwrap();
    settled(&mut bob).await;
    store.set(|faults| faults.slow_creation = ms(500));
    let draft = RoomDraft::named("den").with([scene.bob.clone()]);
    let given_up = tokio::time::timeout(ms(100), scene.alice.create_room(draft)).await;
    assert!(given_up.is_err());
    assert!(matches!(next(&mut bob).await, Event::RoomGained { entry } if entry.info.name == "den"));
    assert_eq!(scene.alice.rooms().await.unwrap().len(), 2);
    scene.close().await;
}

/// I4: an end that cannot be committed now is committed later.
#[tokio::test(start_paused = true)]
async fn a_turn_ends_also_if_its_end_is_refused_at_first() {
    let store = FaultyStore::default();
    let mut scene = Scene::on(store.clone()).await;
    let mut bob = scene.bob_reads().await;
    for (refuse, doubt) in [(3, 0), (0, 2), (2, 2)] {
        let (turn, answering) = scene.ask("talk").await;
        let next = scene.room.send("/ann next").await.unwrap().turn.unwrap();
        answering.say("words").await.unwrap();
        a_moment().await;
        store.set(|faults| (faults.refuse, faults.doubt) = (refuse, doubt));
        answering.finish();
        assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
        scene.ann.next().await.finish();
        assert_eq!(next.ended().await.unwrap().status, TurnStatus::Done);
        let events = settled(&mut bob).await;
        let ended: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::TurnEnded { turn, text, .. } => Some((*turn, text.to_string())),
                _ => None,
            })
            .collect();
        assert_eq!(ended, [(turn.id(), "words".to_owned()), (next.id(), String::new())]);
    }
    let last = scene.room.history(Range::Newest, 1).await.unwrap().messages[0].status;
    assert_eq!(last, MessageStatus::Done);
    scene.close().await;
}
