//! What is particular to a SQLite file: whose it is, what it survives, and what becomes of it when the disk does not
//! play along.

use coop_core::store::sqlite::{Durability, SqliteOptions, SqliteStore};
use coop_core::store::{Batch, Intent, NewAccount, NewRoom, Outcome, Post, RoomStore, UserStore};
use coop_core::testing::store::store_contract;
use coop_core::{Error, ErrorKind, MessageId, Range, RoomId, Seq, Timestamp, UserId};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ANNE: UserId = UserId(1);

#[tokio::test]
async fn a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    store_contract(|| {
        let path = folder
            .path()
            .join(format!("{}.db", count.fetch_add(1, Ordering::Relaxed)));
        async move { SqliteStore::open(path).await.unwrap() }
    })
    .await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    store_contract(|| async { SqliteStore::memory().await.unwrap() }).await;
}

async fn room(store: &SqliteStore) -> RoomId {
    let new = NewRoom {
        name: "room".into(),
        owner: (ANNE, "anne".into()),
        members: Vec::new(),
        is_group: true,
        is_ai_chat: false,
        greeting: None,
        now: Timestamp(1),
    };
    store.create_room(new).await.unwrap().0.id
}

async fn post(store: &SqliteStore, room: RoomId, client_id: &str, text: &str) -> Result<(MessageId, bool), Error> {
    let post = Post {
        author: ANNE,
        name: "anne".into(),
        client_id: Some(client_id.into()),
        body_hash: [7; 32],
        text: text.into(),
        reply_to: None,
        meta: None,
        asks: Vec::new(),
        asks_default: false,
        asks_if_alone: false,
        bots: std::sync::Arc::from([]),
    };
    let batch = Batch::new(room, Timestamp(2), vec![Intent::Post(post)]);
    match store.commit(batch).await?.outcomes.remove(0)? {
        Outcome::Posted { message, duplicate, .. } => Ok((message.id, duplicate)),
        other => panic!("a post is posted, not {other:?}"),
    }
}

/// More than are added to the index at a time, and more said while it is looked at.
#[tokio::test]
async fn words_are_found_however_many_messages_are_not_in_the_index_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coop.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let room = room(&store).await;
    let posts = (0..1_300).map(|number| {
        let (store, text) = (&store, format!("word{number} and others"));
        async move { post(store, room, &number.to_string(), &text).await.unwrap().0 }
    });
    let ids = futures::future::join_all(posts).await;
    let found = async |store: &SqliteStore, word: &str| {
        let page = store.find(room, &[word.to_owned()], None, 10).await.unwrap();
        page.messages.iter().map(|message| message.id).collect::<Vec<_>>()
    };
    for number in [0, 499, 500, 1_299] {
        let all = found(&store, &format!("word{number}")).await;
        assert!(all.contains(&ids[number]), "word{number}: {all:?}");
    }
    let last = post(&store, room, "last", "afterwards").await.unwrap().0;
    // A file that was closed before they were added.
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(found(&store, "afterwards").await, [last]);
    assert_eq!(found(&store, "others").await.len(), 10);
    store.close().await;
}

async fn texts(store: &SqliteStore, room: RoomId) -> Vec<String> {
    let page = store.history(room, Range::Newest, 10_000).await.unwrap();
    page.messages.iter().map(|message| message.text.clone()).collect()
}

async fn kind_of_opening(path: &Path) -> ErrorKind {
    let error = SqliteStore::open(path).await.map(drop).unwrap_err();
    assert!(
        !error.words().contains(&*path.to_string_lossy()),
        "words name no path: {error}"
    );
    error.kind()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_again_and_a_resend_is_a_duplicate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    for durability in [Durability::Full, Durability::Normal] {
        let mut options = SqliteOptions::default();
        options.durability = durability;
        let store = SqliteStore::open_with(&path, options).await.unwrap();
        let room = room(&store).await;
        let (id, _) = post(&store, room, "c", "with a NUL: a\0b").await.unwrap();
        let head = store.room(room).await.unwrap();
        let name = format!("{durability:?}").to_lowercase();
        let new = NewAccount {
            name: name.clone(),
            email: None,
            password: None,
            now: Timestamp(3),
        };
        let user = store.create_user(new).await.unwrap();
        store.close().await;
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.room(room).await.unwrap(), head);
        assert_eq!(post(&store, room, "c", "with a NUL: a\0b").await.unwrap(), (id, true));
        assert_eq!(texts(&store, room).await, ["with a NUL: a\0b"]);
        assert_eq!(store.user_by_name(&name).await.unwrap(), Some(user));
        assert!(post(&store, room, "d", "next").await.unwrap().0 > id);
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_has_one_engine_at_a_time_and_tools_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let room = room(&store).await;
    assert_eq!(kind_of_opening(&path).await, ErrorKind::InUse);
    let tool = SqliteStore::open_tool(&path).await.unwrap();
    let new = NewAccount {
        name: "anne".into(),
        email: None,
        password: None,
        now: Timestamp(3),
    };
    tool.create_user(new).await.unwrap();
    assert!(tool.room(room).await.unwrap().is_some());
    tool.close().await;
    assert!(store.user_by_name("anne").await.unwrap().is_some());
    post(&store, room, "c", "still here").await.unwrap();
    store.close().await;
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(texts(&again, room).await, ["still here"]);
    drop(again);
    // Without `close` the committer lets go a moment later.
    while SqliteStore::open(&path).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_file_has_of_the_schema_is_told_without_changing_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let steps = SqliteStore::schema(&path).await.unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| !step.applied), "{steps:?}");
    assert!(!path.exists());
    let store = SqliteStore::open(&path).await.unwrap();
    let steps = SqliteStore::schema(&path).await.unwrap();
    assert!(steps.iter().all(|step| step.applied), "{steps:?}");
    store.close().await;
    std::fs::write(&path, "Dear reader, ".repeat(1_000)).unwrap();
    let error = SqliteStore::schema(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADatabase);
}

#[tokio::test]
async fn no_tool_changes_the_schema_beneath_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut file = plain(&path).await;
    file.execute("DELETE FROM _sqlx_migrations").await.unwrap();
    file.close().await.unwrap();
    let error = SqliteStore::open_tool(&path).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    store.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut file = plain(&path).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, \
                 'later', 1, x'00', 0)";
    file.execute(later).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(kind_of_opening(&path).await, ErrorKind::NewerSchema);
    let error = SqliteStore::schema(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerSchema);
}

async fn plain(path: &Path) -> sqlx::SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn what_is_not_ours_is_told_apart_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("letter.txt");
    std::fs::write(&text, "Dear reader, ".repeat(1_000)).unwrap();
    assert_eq!(kind_of_opening(&text).await, ErrorKind::NotADatabase);
    let other = folder.path().join("other.db");
    let mut file = plain(&other).await;
    file.execute("CREATE TABLE users (name TEXT)").await.unwrap();
    file.close().await.unwrap();
    let before = std::fs::read(&other).unwrap();
    assert_eq!(kind_of_opening(&other).await, ErrorKind::NotADatabase);
    assert_eq!(std::fs::read(&other).unwrap(), before);
    assert_eq!(kind_of_opening(folder.path()).await, ErrorKind::BadRequest);
    assert_eq!(
        kind_of_opening(&folder.path().join("no/such.db")).await,
        ErrorKind::NotFound
    );
    // Exists, is a folder, and takes no files, not even from root.
    assert_eq!(
        kind_of_opening(Path::new("/proc/self/chat.db")).await,
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut options = SqliteOptions::default();
    options.max_pages = Some(60);
    let store = SqliteStore::open_with(&path, options).await.unwrap();
    let room = room(&store).await;
    let mut kept = Vec::new();
    let error = loop {
        let text = format!("{} {}", kept.len(), "x".repeat(20_000));
        match post(&store, room, &kept.len().to_string(), &text).await {
            Ok(_) => kept.push(text),
            Err(error) => break error,
        }
        assert!(kept.len() < 100, "the limit is reached");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.words().contains("full"), "{error}");
    assert_eq!(
        texts(&store, room).await,
        kept,
        "nothing is lost and nothing half there"
    );
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let id = kept.len().to_string();
    let (first, duplicate) = post(&store, room, &id, "now it fits").await.unwrap();
    assert!(!duplicate, "what was refused had not been written");
    assert_eq!(post(&store, room, &id, "now it fits").await.unwrap(), (first, true));
    assert_eq!(texts(&store, room).await.len(), kept.len() + 1);
}

#[tokio::test]
async fn a_locked_file_is_unavailable_and_a_resend_is_not_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let mut options = SqliteOptions::default();
    options.busy_timeout = Duration::from_millis(50);
    let store = SqliteStore::open_with(&path, options.clone()).await.unwrap();
    let (one, other) = (room(&store).await, room(&store).await);
    post(&store, one, "a", "before").await.unwrap();
    let mut holder = plain(&path).await;
    holder.execute("BEGIN IMMEDIATE").await.unwrap();
    let (first, second) = tokio::join!(post(&store, one, "b", "held up"), post(&store, other, "b", "held up"));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.words().contains("locked") && error.is_retryable(), "{error}");
    }
    assert_eq!(texts(&store, one).await, ["before"], "reading goes on");
    holder.execute("ROLLBACK").await.unwrap();
    let (id, duplicate) = post(&store, one, "b", "held up").await.unwrap();
    assert!(!duplicate);
    assert_eq!(post(&store, one, "b", "held up").await.unwrap(), (id, true));
    assert_eq!(texts(&store, one).await, ["before", "held up"]);
    assert_eq!(store.room(one).await.unwrap().unwrap().seq, Seq(3));
    store.close().await;
    holder.execute("BEGIN IMMEDIATE").await.unwrap();
    let error = SqliteStore::open_with(&path, options).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_room_that_cannot_be_written_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..6 {
        rooms.push(room(&store).await);
    }
    let mut file = plain(&path).await;
    let broken = format!(
        "CREATE TRIGGER broken BEFORE INSERT ON messages WHEN NEW.chat_id = {} BEGIN SELECT RAISE(ABORT, 'no'); END; \
         UPDATE chats SET member_count = -1 WHERE id = {}",
        rooms[2], rooms[4]
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(broken))
        .execute(&mut file)
        .await
        .unwrap();
    let sending = rooms.iter().map(|room| post(&store, *room, "c", "x"));
    let sent = futures::future::join_all(sending).await;
    for (at, sent) in sent.into_iter().enumerate() {
        match at {
            2 => assert_eq!(sent.unwrap_err().kind(), ErrorKind::Unavailable),
            4 => assert!(sent.is_err()),
            _ => assert!(!sent.unwrap().1),
        }
    }
    sqlx::query("DROP TRIGGER broken").execute(&mut file).await.unwrap();
    assert!(!post(&store, rooms[2], "c", "x").await.unwrap().1);
}

#[tokio::test]
async fn closing_waits_for_what_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let room = room(&store).await;
    let names: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let sending = names.iter().map(|name| post(&store, room, name, name));
    let (sent, ()) = tokio::join!(futures::future::join_all(sending), store.close());
    let acknowledged = sent.into_iter().filter(Result::is_ok).count();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(texts(&store, room).await.len(), acknowledged);
    assert_eq!(acknowledged, 50, "what was handed over before is written");
    drop(store);
    assert_send(SqliteStore::open(&path));
}

fn assert_send(_: impl Send) {}
