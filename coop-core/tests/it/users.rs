//! People: names, passwords, finding others, and an application's own accounts.

use crate::faults::FaultyStore;
use crate::scene::{Scene, kind, ms, settled};
use async_trait::async_trait;
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::store::{NewAccount, UserStore};
use coop_core::{Account, Departure, Engine, Error, ErrorKind, Event, Range, Result, Timestamp, UserId};

async fn engine() -> Engine {
    let builder = Engine::builder(MemoryStore::new()).password_cost(Cost::cheap_for_tests());
    builder.build().await.unwrap()
}

#[tokio::test]
async fn a_name_is_one_name_however_it_is_spelled() {
    let engine = engine().await;
    let alice = engine.create_user("Alice").await.unwrap();
    assert_eq!(alice.name(), "alice");
    for spelling in ["alice", "ALICE", "ＡＬＩＣＥ"] {
        assert_eq!(kind(engine.create_user(spelling).await), ErrorKind::Conflict);
        assert_eq!(engine.find_user(spelling).await.unwrap().id(), alice.id());
    }
    assert_eq!(engine.user(alice.id()).await.unwrap().name(), "alice");
    assert_eq!(kind(engine.user(UserId(4_711)).await), ErrorKind::NotFound);
    for unknown in ["bob", "", "no such name at all", &"x".repeat(10_000)] {
        assert_eq!(kind(engine.find_user(unknown).await), ErrorKind::NotFound);
    }
    engine.close(ms(0)).await;
}

#[tokio::test]
async fn some_names_nobody_may_have() {
    let scene = Scene::new().await;
    for name in [
        "",
        "ab",
        "has space",
        "-dash",
        "ünter",
        "admin",
        "bot",
        "gemini-fan",
        "ann",
        "Ann",
        &"x".repeat(33),
    ] {
        assert_eq!(
            kind(scene.engine.create_user(name).await),
            ErrorKind::BadRequest,
            "{name:?}"
        );
    }
    scene.close().await;
}

#[tokio::test]
async fn who_registered_can_log_in_and_nobody_else() {
    let stores = tempfile::tempdir().unwrap();
    let path = stores.path().join("chat.db");
    let sqlite = Engine::builder(SqliteStore::open(&path).await.unwrap()).password_cost(Cost::cheap_for_tests());
    for engine in [engine().await, sqlite.build().await.unwrap()] {
        let password = || "correct horse battery".to_owned();
        let alice = engine.register("alice", "Alice@Example.org", password()).await.unwrap();
        assert_eq!(alice.account().email.as_deref(), Some("Alice@Example.org"));
        assert_eq!(engine.authenticate("Alice", password()).await.unwrap().id(), alice.id());
        engine.create_user("bob").await.unwrap();
        let mut words = Vec::new();
        for (name, password) in [
            ("alice", "correct horse batterY"),
            ("alice", ""),
            ("bob", "correct horse battery"),
            ("nobody", "correct horse battery"),
            ("", "correct horse battery"),
        ] {
            let error = engine.authenticate(name, password.into()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{name} {password}");
            words.push(error.words().to_owned());
        }
        words.dedup();
        assert_eq!(words.len(), 1, "they say the same: {words:?}");
        assert_eq!(
            kind(engine.authenticate("alice", "x".repeat(100_000)).await),
            ErrorKind::BadRequest
        );
        for (name, email, password) in [
            ("carol", "not an address", "correct horse battery"),
            ("carol", "carol@example.org", "short"),
            ("carol", "carol@example.org", "carol@example.org"),
            ("carolcarol", "carol@example.org", "CarolCarol"),
        ] {
            let refused = engine.register(name, email, password.into()).await;
            assert_eq!(kind(refused), ErrorKind::BadRequest, "{name} {email} {password}");
        }
        let taken = engine.register("carol", "alice@example.ORG", password()).await;
        assert_eq!(kind(taken), ErrorKind::Conflict);
        engine.close(ms(0)).await;
    }
}

#[tokio::test]
async fn a_hash_of_another_cost_is_made_anew() {
    let store = MemoryStore::new();
    let engine = Engine::builder(store.reopen()).password_cost(Cost::cheap_for_tests());
    let engine = engine.build().await.unwrap();
    let password = || "correct horse battery".to_owned();
    engine.register("alice", "alice@example.org", password()).await.unwrap();
    let hash = async || store.credentials("alice").await.unwrap().unwrap().1;
    let before = hash().await;
    engine.authenticate("alice", password()).await.unwrap();
    assert_eq!(hash().await, before);
    engine.close(ms(0)).await;
    let dearer = Cost::new(64, 2, 1).unwrap();
    let engine = Engine::builder(store.reopen())
        .password_cost(dearer)
        .build()
        .await
        .unwrap();
    engine
        .authenticate("alice", "wrong horse battery".into())
        .await
        .unwrap_err();
    assert_eq!(hash().await, before);
    engine.authenticate("alice", password()).await.unwrap();
    let after = hash().await;
    assert_ne!(after, before);
    engine.authenticate("alice", password()).await.unwrap();
    assert_eq!(hash().await, after);
    engine.close(ms(0)).await;
}

#[tokio::test]
async fn a_hash_of_bcrypt_is_good_once_and_no_token_ends_with_it() {
    let store = MemoryStore::new();
    let engine = Engine::builder(store.reopen()).password_cost(Cost::cheap_for_tests());
    let engine = engine.build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let bcrypt = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e";
    store.set_password(alice.id(), bcrypt).await.unwrap();
    let hash = async || store.credentials("alice").await.unwrap().unwrap().1;
    assert!(engine.authenticate("alice", "wrong horse".into()).await.is_err());
    assert_eq!(hash().await, bcrypt);
    for _ in 0..2 {
        let logged_in = engine.authenticate("alice", "correct horse".into()).await.unwrap();
        assert_eq!(logged_in.account().token_version, 1, "only the import has ended tokens");
        assert!(hash().await.starts_with("$argon2id$"));
    }
    engine.close(ms(0)).await;
}

#[tokio::test]
async fn who_is_logged_out_everywhere_is_told_apart_by_the_version() {
    let scene = Scene::new().await;
    let before = scene.engine.user(scene.alice.id()).await.unwrap();
    scene.bob.log_out_everywhere().await.unwrap();
    assert!(before.is_token_good().await.unwrap(), "others keep theirs");
    before.log_out_everywhere().await.unwrap();
    assert!(!before.is_token_good().await.unwrap());
    let after = scene.engine.user(scene.alice.id()).await.unwrap();
    assert_eq!(after.account().token_version, 1);
    assert!(after.is_token_good().await.unwrap());
    scene.close().await;
}

#[tokio::test]
async fn people_are_found_by_a_part_of_their_name() {
    let cheap = |builder: coop_core::EngineBuilder| builder.password_cost(Cost::cheap_for_tests());
    let scene = Scene::with(MemoryStore::new(), cheap).await;
    for n in 0..60 {
        scene.engine.create_user(&format!("crowd{n:02}")).await.unwrap();
    }
    let registered = scene
        .engine
        .register("oscar", "oscar@example.org", "correct horse".into());
    registered.await.unwrap();
    let found = async |text: &str, limit| {
        let found = scene.alice.search(text, limit).await.unwrap();
        assert!(found.iter().all(|account| account.email.is_none()));
        found.into_iter().map(|account| account.name).collect::<Vec<_>>()
    };
    assert_eq!(found("OB", 10).await, ["bob"]);
    assert_eq!(found("osc", 10).await, ["oscar"], "and not their address");
    assert_eq!(found("crowd0", 3).await, ["crowd00", "crowd01", "crowd02"]);
    assert_eq!(found("crowd", 1_000).await.len(), 50);
    assert_eq!(found("crowd", 0).await.len(), 1);
    for nobody in ["", "c", "%%", "__", "alice", "zz", &"x".repeat(10_000)] {
        assert!(found(nobody, 10).await.is_empty(), "{nobody:.10}");
    }
    scene.close().await;
}

/// An application that has users already.
struct Staff;

fn account(id: i64, name: &str) -> Account {
    let email = Some(format!("{name}@example.org"));
    Account::new(UserId(id), name, email, Timestamp(0))
}

#[async_trait]
impl UserStore for Staff {
    async fn user(&self, id: UserId) -> Result<Option<Account>> {
        Ok([account(7, "anna"), account(9, "otto")]
            .into_iter()
            .find(|account| account.id == id))
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<Account>> {
        Ok([account(7, "anna"), account(9, "otto")]
            .into_iter()
            .find(|account| account.name == name))
    }

    async fn create_user(&self, _new: NewAccount) -> Result<Account> {
        Err(Error::forbidden("ask the personnel department"))
    }
}

#[tokio::test]
async fn an_application_keeps_its_own_users() {
    let folder = tempfile::tempdir().unwrap();
    for builder in [
        Engine::builder_with(SqliteStore::open(folder.path().join("chat.db")).await.unwrap(), Staff),
        Engine::builder(SqliteStore::memory().await.unwrap()).users(Staff),
    ] {
        let engine = builder.build().await.unwrap();
        let anna = engine.user(UserId(7)).await.unwrap();
        let otto = engine.find_user("Otto").await.unwrap();
        let room = anna.create_room("office").await.unwrap();
        room.invite(&otto).await.unwrap();
        otto.room(room.id()).await.unwrap().send("good morning").await.unwrap();
        let entry = room.entry().await.unwrap();
        assert_eq!(
            (entry.unread, entry.last_message.unwrap().author.name.as_str()),
            (1, "otto")
        );
        assert_eq!(kind(engine.create_user("karl").await), ErrorKind::Forbidden);
        let login = engine.authenticate("anna", "correct horse battery".into()).await;
        assert_eq!(kind(login), ErrorKind::Unauthorized);
        assert!(anna.search("otto", 10).await.unwrap().is_empty());
        engine.close(ms(0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_leaves_nothing_behind_but_what_was_said() {
    let scene = Scene::new().await;
    let (bob, room) = (&scene.bob, &scene.room);
    room.invite(&scene.carol).await.unwrap();
    // Alice's, with others and alone; carol's, in which alice is, and another that she has left.
    let alone = scene.alice.create_room("alone").await.unwrap();
    let carols = scene.carol.create_room("carols").await.unwrap();
    carols.invite(&scene.alice).await.unwrap();
    let left = scene.carol.create_room("left").await.unwrap();
    left.invite(&scene.alice).await.unwrap();
    for id in [room.id(), alone.id(), carols.id(), left.id()] {
        scene.alice.room(id).await.unwrap().send("hello").await.unwrap();
    }
    scene.alice.room(left.id()).await.unwrap().leave().await.unwrap();
    let mut events = scene.bob_reads().await;
    let mut of_alice = scene.alice.subscribe().await.unwrap();

    scene.alice.delete_account(Departure::default()).await.unwrap();
    assert_eq!(kind(scene.engine.user(scene.alice.id()).await), ErrorKind::NotFound);
    assert!(!scene.alice.is_token_good().await.unwrap());
    assert!(
        scene.engine.snapshot(alone.id(), 1).await.is_err(),
        "a room of nobody is gone"
    );
    let entry = scene.bobs.entry().await.unwrap();
    assert_eq!(entry.info.owner, bob.id(), "who has been there longest has it now");
    let members: Vec<_> = scene
        .bobs
        .members()
        .await
        .unwrap()
        .into_iter()
        .map(|m| m.name)
        .collect();
    assert_eq!(members, ["bob", "carol"]);
    assert_eq!(carols.members().await.unwrap().len(), 1);
    for room in [&scene.bobs, &carols, &left] {
        let last = room.entry().await.unwrap().last_message.unwrap();
        assert_eq!((last.text.as_str(), last.author.name.as_str()), ("hello", "alice"));
    }
    let seen = settled(&mut events).await;
    assert!(
        matches!(seen[..], [Event::RoomUpdated { .. }, Event::MemberLeft { .. }]),
        "{seen:?}"
    );
    let lost = settled(&mut of_alice).await;
    let lost = lost.iter().filter(|event| matches!(event, Event::Gone { .. }));
    assert_eq!(lost.count(), 3, "her own readers have lost all rooms");
    assert_eq!(
        kind(scene.alice.delete_account(Departure::default()).await),
        ErrorKind::NotFound
    );
    // Her name is free, and it is somebody else's.
    let other = scene.engine.create_user("alice").await.unwrap();
    assert_ne!(other.id(), scene.alice.id());
    assert!(other.rooms().await.unwrap().is_empty());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_takes_rooms_and_words_along() {
    let mut scene = Scene::new().await;
    let carols = scene.carol.create_room("carols").await.unwrap();
    carols.invite(&scene.alice).await.unwrap();
    let alices = scene.alice.room(carols.id()).await.unwrap();
    // More than are deleted at a time, and an ask whose answer is under way.
    for n in 0..70 {
        alices.send(format!("word {n}")).await.unwrap();
    }
    let asked = alices.send("/ann well?").await.unwrap().turn.unwrap();
    let answering = scene.ann.next().await;
    answering.say("because").await.unwrap();
    alices.leave().await.unwrap();
    let how = Departure::default().deleting_rooms().purging_messages();
    scene.alice.delete_account(how).await.unwrap();
    assert_eq!(
        kind(scene.bobs.entry().await),
        ErrorKind::NotFound,
        "bob was in it, and it is gone"
    );
    answering.finish();
    asked.ended().await.unwrap();
    let history = carols.history(Range::Newest, 200).await.unwrap();
    let texts: Vec<_> = history.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, ["because"], "what the bot has said is the bot's");
    scene.close().await;
}

#[tokio::test]
async fn half_a_departure_is_finished_by_the_next() {
    let store = FaultyStore::default();
    let scene = Scene::on(store.clone()).await;
    store.faults.lock().unwrap().refuse = 1;
    let refused = scene.alice.delete_account(Departure::default()).await;
    assert_eq!(kind(refused), ErrorKind::Unavailable);
    let alice = scene.engine.user(scene.alice.id()).await.unwrap();
    assert!(!scene.alice.is_token_good().await.unwrap(), "the tokens went first");
    alice.delete_account(Departure::default()).await.unwrap();
    assert_eq!(scene.bobs.members().await.unwrap().len(), 1);
    scene.close().await;
}

#[tokio::test]
async fn an_application_keeps_the_accounts_it_keeps() {
    let engine = Engine::builder_with(MemoryStore::new(), Staff).build().await.unwrap();
    let anna = engine.find_user("anna").await.unwrap();
    let room = anna.create_room("lab").await.unwrap();
    assert_eq!(
        kind(anna.delete_account(Departure::default()).await),
        ErrorKind::Forbidden
    );
    assert!(!anna.has_password("correct horse".into()).await.unwrap());
    assert_eq!(room.members().await.unwrap().len(), 1, "nothing has happened");
    engine.close(ms(0)).await;
}
