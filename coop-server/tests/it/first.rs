//! A database of the first system becomes one of ours: everybody logs in as before and finds what was said.

use crate::binary::{Program, with_mock};
use crate::cli::{folder, prints, run};
use crate::client::{Http, Ws};
use coop_core::testing::postgres::shared;
use serde_json::{Value, json};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection};
use std::path::Path;

/// The same password twice, as the first system's libraries hash it.
const BCRYPT: &str = "$2b$04$UEgtmxd5f7BO76ONEgz.N.y.BtF5eZTZMOswaWMkSeTPxk.xTfSrO";
const ARGON2: &str = "$argon2id$v=19$m=1024,t=3,p=4$1fpnBBaGpHdLH5f6/6FJag$96HeYFjO/YYOXNHm+lJP1I3Ss6ifghbkGA759tqAbnw";

/// The four tables. Without a zone on SQLite, with one on PostgreSQL, as they are there.
fn tables(moment: &str, id: &str) -> [String; 4] {
    [
        format!(
            "CREATE TABLE users (id {id}, username VARCHAR, email VARCHAR, hashed_password VARCHAR, created_at {moment})"
        ),
        format!("CREATE TABLE chats (id {id}, name VARCHAR, owner_id INTEGER, is_group BOOLEAN, created_at {moment})"),
        format!(
            "CREATE TABLE chat_participants (id {id}, chat_id INTEGER, user_id INTEGER, joined_at {moment}, last_read_at \
             {moment})"
        ),
        format!(
            "CREATE TABLE messages (id {id}, chat_id INTEGER, user_id INTEGER, content TEXT, is_bot BOOLEAN, created_at \
             {moment})"
        ),
    ]
}

async fn fill(url: &str, tables: [String; 4]) {
    install_default_drivers();
    let mut old = AnyConnection::connect(url).await.unwrap();
    let users = format!(
        "INSERT INTO users VALUES (1, 'anna', 'Anna@Example.org', '{BCRYPT}', '2026-01-02 03:04:05.678901'), (2, 'Ben B.', \
         'ben@system.bot', '{ARGON2}', '2026-01-02 04:00:00'), (3, 'gemini-ai', 'gemini@system.bot', 'x', '2026-01-03 \
         00:00:00'), (5, 'Anna', 'anna@example.org', 'plain', '2026-01-04 00:00:00'), (7, 'mock', 'no address', '{BCRYPT}', \
         '2026-01-05 00:00:00')"
    );
    let statements = tables.into_iter().chain([
        users,
        "INSERT INTO chats VALUES (1, NULL, 1, TRUE, '2026-02-01 00:00:00'), (2, 'AI Chat', 2, FALSE, '2026-02-02 00:00:00'), \
         (4, 'Deserted', 99, TRUE, '2026-02-03 00:00:00'), (6, 'Orphaned', 99, TRUE, '2026-02-04 00:00:00'), (9, 'Quiet', 1, \
         TRUE, '2026-02-05 00:00:00')"
            .to_owned(),
        "INSERT INTO chat_participants VALUES (1, 1, 1, '2026-02-01 00:00:00', '2026-02-01 10:00:01'), (2, 1, 2, '2026-02-01 \
         00:00:00', NULL), (3, 1, 3, '2026-02-01 00:00:00', NULL), (4, 2, 2, '2026-02-02 00:00:00', '2026-02-02 00:00:09'), \
         (5, 6, 7, '2026-02-04 00:00:00', NULL), (6, 6, 5, '2026-02-04 00:00:01', NULL), (7, 77, 5, '2026-02-04 00:00:01', \
         NULL), (8, NULL, 5, NULL, NULL)"
            .to_owned(),
        // Not in the order of their ids.
        "INSERT INTO messages VALUES (10, 1, 1, 'Hello', FALSE, '2026-02-01 10:00:00.250'), (12, 1, 2, '/bot what is new? ', \
         FALSE, '2026-02-01 10:00:02'), (13, 1, 3, 'Nothing.', TRUE, '2026-02-01 10:00:03'), (11, 1, 99, 'I am leaving', \
         FALSE, '2026-02-01 10:00:01'), (20, 2, NULL, 'Hello! I am your AI assistant.', TRUE, '2026-02-02 00:00:00'), (21, 2, \
         2, 'thanks', FALSE, '2026-02-02 00:00:05'), (30, 4, 99, 'alone', FALSE, '2026-02-03 00:00:00'), (31, 5, 1, 'no room', \
         FALSE, '2026-02-03 00:00:00'), (33, NULL, 1, 'nowhere', FALSE, '2026-02-03 00:00:00'), (32, 6, 5, 'ours now', FALSE, '2026-02-04 00:00:02')"
            .to_owned(),
    ]);
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut old)
            .await
            .unwrap();
    }
    old.close().await.unwrap();
}

/// All that is told of it, and then the program on it.
async fn comes_over(folder: &Path, from: &str) {
    let wrong = run(
        folder,
        &["import", "--from", "sqlite:nowhere.db", "--database", "sqlite:new.db"],
    )
    .await;
    assert_eq!(wrong.code, Some(3), "{}", wrong.err);
    assert!(
        !folder.join("new.db").exists(),
        "nothing is made before all is known to be there"
    );

    let arguments = [
        "import",
        "--from",
        from,
        "--database",
        "sqlite:new.db",
        "--bot",
        "mock=mock",
    ];
    let ended = run(folder, &arguments).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let told: Vec<&str> = ended.err.lines().collect();
    let cannot = "cannot log in before `coop-server user password anna-2`: the hash of the password is of no kind that is \
                  known here";
    assert_eq!(
        told,
        [
            "user 3 \"gemini-ai\": is the bot gemini here",
            "user 2 \"Ben B.\": is called ben_b. here",
            "user 5 \"Anna\": is called anna-2 here",
            "user 5 \"Anna\": has no address here: the address is somebody else's already",
            &format!("user 5 \"Anna\": {cannot}"),
            "user 7 \"mock\": is called mock-2 here",
            "user 7 \"mock\": has no address here: the address is none",
            "chat 4 \"Deserted\": is left out with 1 messages, because nobody is in it",
            "chat 6 \"Orphaned\": is mock-2's here, because its owner is gone",
            "chat 9 \"Quiet\": anna owned it, and is a member here",
            "chat 0: is not there, but had 1 messages; they are left out",
            "chat 5: is not there, but had 1 messages; they are left out",
            "4 users, 4 rooms, 7 messages.",
        ]
    );
    let ids = "user\t1\t1\tanna\nuser\t2\t2\tben_b.\nuser\t5\t3\tanna-2\nuser\t7\t4\tmock-2\nroom\t1\t1\tanna, \
               ben_b.\nroom\t2\t2\tAI Chat\nroom\t6\t3\tOrphaned\nroom\t9\t4\tQuiet\n";
    assert_eq!(ended.out, ids);

    let again = run(folder, &arguments).await;
    assert_eq!(again.code, Some(2), "{}", again.err);
    assert!(again.err.contains("has users already"), "{}", again.err);
    let ours = run(
        folder,
        &["import", "--from", "sqlite:new.db", "--database", "sqlite:other.db"],
    )
    .await;
    assert_eq!(ours.code, Some(3), "{}", ours.err);
    assert!(ours.err.contains("is one of this program already"), "{}", ours.err);

    let mut command = with_mock(folder);
    command.env("COOP_DATABASE_URL", "sqlite:new.db");
    let program = Program::start_as(folder, command).await;
    let http = program.http();
    all_is_there(&http).await;
    // It goes on as if nothing had happened.
    let anna = http.log_in("anna").await;
    let mut socket = Ws::open(program.address, &anna.token).await;
    socket.join(1).await;
    socket.say(1, "/bot still here?").await;
    assert_eq!(socket.of_type("bot_stream").await["message"]["username"], "mock");
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let password = prints(folder, &["user", "password", "anna-2", "--database", "sqlite:new.db"]).await;
    assert!(!password.is_empty());
}

async fn all_is_there(http: &Http) {
    // Both kinds of hash let people in, and again once they have become ours.
    for _ in 0..2 {
        for name in ["anna", "ben_b.", "mock-2"] {
            http.log_in(name).await;
        }
    }
    let credentials = json!({ "username": "anna-2", "password": "plain" });
    let refused = http.send("POST", "/api/auth/login", &[], Some(&credentials)).await;
    assert_eq!(refused.status, 401, "what is no hash is no password");

    let anna = http.log_in("anna").await;
    let me = http.get(&anna, "/api/auth/me").await.json();
    assert_eq!(
        (&me["email"], &me["created_at"]),
        (&json!("Anna@Example.org"), &json!("2026-01-02T03:04:05.679Z"))
    );
    let said = http.get(&anna, "/api/chats/1/messages").await.json();
    let lines: Vec<_> = said.as_array().unwrap().iter().map(line).collect();
    assert_eq!(
        lines,
        [
            ("anna", "Hello", false, "2026-02-01T10:00:00.250Z"),
            ("former user 99", "I am leaving", false, "2026-02-01T10:00:01.000Z"),
            ("ben_b.", "/bot what is new? ", false, "2026-02-01T10:00:02.000Z"),
            ("gemini-ai", "Nothing.", true, "2026-02-01T10:00:03.000Z"),
        ]
    );
    let members = http.get(&anna, "/api/chats/1/participants").await.json();
    assert_eq!(
        members.as_array().unwrap().len(),
        2,
        "the bot is not among them: {members}"
    );
    // She had read the first two. He has read what he said and what was said to him.
    assert_eq!(unread(&http.get(&anna, "/api/chats").await.json(), 1), 2);
    let ben = http.log_in("ben_b.").await;
    let bens = http.get(&ben, "/api/chats").await.json();
    assert_eq!((unread(&bens, 1), unread(&bens, 2)), (0, 0));
    let greeted = http.get(&ben, "/api/chats/2/messages").await.json();
    assert_eq!(
        line(&greeted[0]),
        (
            "AI Assistant",
            "Hello! I am your AI assistant.",
            true,
            "2026-02-02T00:00:00.000Z"
        )
    );
    let stranger = http.get(&anna, "/api/chats/2/messages").await;
    assert_eq!(stranger.status, 403);
}

fn line(message: &Value) -> (&str, &str, bool, &str) {
    let text = |key: &str| message[key].as_str().unwrap();
    (
        text("username"),
        text("content"),
        message["is_bot"].as_bool().unwrap(),
        text("created_at"),
    )
}

fn unread(rooms: &Value, id: i64) -> u64 {
    let room = rooms.as_array().unwrap().iter().find(|room| room["id"] == id).unwrap();
    room["unread_count"].as_u64().unwrap()
}

#[tokio::test]
async fn from_sqlite_everybody_comes_over() {
    let folder = folder();
    let old = folder.path().join("old 100%.db");
    std::fs::File::create(&old).unwrap();
    let url = format!("sqlite:{}", old.display().to_string().replace('%', "%25"));
    fill(&url, tables("DATETIME", "INTEGER PRIMARY KEY")).await;
    comes_over(folder.path(), "sqlite+aiosqlite:///./old 100%.db").await;
}

#[tokio::test]
async fn from_postgres_everybody_comes_over() {
    let Some(cluster) = shared("from_postgres_everybody_comes_over") else {
        return;
    };
    let url = cluster.database();
    fill(&url, tables("TIMESTAMPTZ", "INTEGER PRIMARY KEY")).await;
    let folder = folder();
    comes_over(folder.path(), &url).await;
}

#[tokio::test]
async fn a_database_that_is_none_is_told_before_anything_is_made() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(
        path.join("letter.db"),
        "Dear database, this is a letter, and a long one. ".repeat(40),
    )
    .unwrap();
    let half = path.join("half.db");
    std::fs::File::create(&half).unwrap();
    install_default_drivers();
    let mut old = AnyConnection::connect(&format!("sqlite:{}", half.display()))
        .await
        .unwrap();
    let users = "CREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT, hashed_password TEXT)";
    sqlx::raw_sql(users).execute(&mut old).await.unwrap();
    sqlx::raw_sql("CREATE TABLE chats (id INTEGER PRIMARY KEY, name TEXT)")
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();
    for (from, words) in [
        ("sqlite:letter.db", "not a database"),
        ("sqlite:half.db", "its table chats has no column owner_id or created_by"),
        ("sqlite:absent.db", "there is no such file"),
        ("mysql://x/y", "a database is sqlite:FILE or postgres://USER@HOST/NAME"),
        ("postgres://anna:hush@127.0.0.1:1/chat", "onnect"),
    ] {
        let refused = run(path, &["import", "--from", from]).await;
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(3), ""),
            "{from}: {}",
            refused.err
        );
        assert!(refused.err.contains(words), "{from}: {}", refused.err);
        assert!(!refused.err.contains("hush"), "{}", refused.err);
        assert!(!path.join("coop.db").exists(), "{from}");
    }
}
