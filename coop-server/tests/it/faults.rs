//! What was wrong with the first system, each fault by its name, and that it is not wrong here.

use crate::client::{Http, PATIENCE, Ws};
use crate::server::Server;
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, EngineBuilder, Finish};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};

fn engine() -> EngineBuilder {
    Engine::builder(MemoryStore::new()).password_cost(Cost::cheap_for_tests())
}

#[tokio::test]
async fn the_next_room_inherits_the_messages_of_a_deleted_one() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let old = http.group(&alice, "old", &[&bob]).await;
    let mut a = server.socket(&alice).await;
    a.say(old, "secret").await;
    a.of_type("message").await;
    assert_eq!(http.delete(&alice, &format!("/api/chats/{old}")).await.status, 200);
    // Who was in the old one makes the next: every call on it works, and nothing of the old one is in it.
    let new = http.group(&bob, "new", &[]).await;
    assert_ne!(new, old);
    let path = format!("/api/chats/{new}");
    assert_eq!(http.get(&bob, &format!("{path}/messages")).await.json(), json!([]));
    let members = http.get(&bob, &format!("{path}/participants")).await.json();
    assert_eq!(members.as_array().unwrap().len(), 1);
    assert_eq!(http.get(&alice, &path).await.status, 403);
    assert_eq!(http.get(&alice, "/api/chats").await.json(), json!([]));
}

#[tokio::test]
async fn messages_of_a_deleted_room_stay_readable() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "old", &[&bob]).await;
    let mut a = server.socket(&alice).await;
    a.say(room, "secret").await;
    a.of_type("message").await;
    http.delete(&alice, &format!("/api/chats/{room}")).await;
    for path in ["/messages", "/participants", "/read-receipts", ""] {
        for who in [&alice, &bob] {
            let refused = http.get(who, &format!("/api/chats/{room}{path}")).await;
            assert!([403, 404].contains(&refused.status), "{path}: {refused:?}");
            assert!(!refused.body.contains("secret"));
        }
    }
}

#[tokio::test]
async fn who_has_left_hears_bots_on() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    for socket in [&mut a, &mut b] {
        socket.join(room).await;
        socket.settle().await;
    }
    a.say(room, "/bot tell").await;
    server.piece("before ");
    b.answer("before ").await;
    let left = server
        .http()
        .post(&bob, &format!("/api/chats/{room}/leave"), Value::Null)
        .await;
    assert_eq!(left.status, 200);
    server.piece("and after");
    a.answer("before and after").await;
    server.done();
    assert_eq!(b.rest().await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_asker_is_not_heard_while_the_answer_streams() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    a.join(room).await;
    a.say(room, "/bot tell").await;
    server.piece("The bot goes on");
    a.answer("The bot goes on").await;
    a.say(room, "and so do I").await;
    assert_eq!(a.of_type("message").await["message"]["content"], "and so do I");
    server.done();
    let end = a.of_type("bot_stream").await;
    assert_eq!(end["message"]["status"], "done");
}

#[tokio::test]
async fn two_answers_wait_for_each_other_and_everything_for_both() {
    // Each waits for the other to have begun, and both for the test.
    let (both, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(3)));
    let (begun, ended) = (Arc::clone(&both), Arc::clone(&go_on));
    let engine = engine().bot_fn("pair", move |_, out| {
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        async move {
            begun.wait().await;
            out.push("together").await?;
            ended.wait().await;
            Ok(Finish::stop())
        }
    });
    let server = Server::on(engine, |api| api, None).await;
    let alice = server.person("alice").await;
    let mut sockets = Vec::new();
    for name in ["one", "two"] {
        let room = server.http().group(&alice, name, &[]).await;
        let mut socket = server.socket(&alice).await;
        socket.join(room).await;
        socket.say(room, "/bot").await;
        socket.say(room, "/bot now").await;
        sockets.push(socket);
    }
    for socket in &mut sockets {
        socket.answer("together").await;
    }
    for path in ["/api/chats", "/api/auth/me", "/health"] {
        assert_eq!(server.http().get(&alice, path).await.status, 200, "{path}");
    }
    go_on.wait().await;
    for socket in &mut sockets {
        assert_eq!(socket.of_type("bot_stream").await["message"]["status"], "done");
    }
}

#[tokio::test]
async fn the_bot_reads_the_oldest_messages_of_nameless_people_and_the_question_twice() {
    let engine = engine().bot_fn("reader", |turn, out| async move {
        let parts: Vec<_> = turn
            .context
            .turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .cloned()
            .collect();
        out.push(parts.join("\n")).await?;
        Ok(Finish::stop())
    });
    let server = Server::on(engine, |api| api, None).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    a.join(room).await;
    for number in 0..15 {
        a.say(room, &format!("line {number} of hers")).await;
        a.of_type("message").await;
        b.say(room, &format!("line {number} of his")).await;
        a.of_type("message").await;
    }
    a.say(room, "/bot what was the last?").await;
    let read = loop {
        let frame = a.of_type("bot_stream").await;
        if frame["message"]["status"] == "done" {
            break frame["message"]["content"].as_str().unwrap().to_owned();
        }
    };
    let newest = read.find("line 14 of his").expect("the newest is read");
    assert!(read.find("line 14 of hers").unwrap() < newest, "{read}");
    assert!(read.contains("alice") && read.contains("bob"), "{read}");
    assert_eq!(read.matches("what was the last?").count(), 1, "{read}");
}

#[tokio::test]
async fn an_answer_is_unread_for_who_asked() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    a.join(room).await;
    a.say(room, "/bot tell").await;
    server.piece("told");
    let unread = async || server.http().get(&alice, "/api/chats").await.json()[0].clone();
    a.answer("told").await;
    let row = unread().await;
    // The list shows what has been written so far.
    assert_eq!(
        (&row["unread_count"], &row["last_message"]),
        (&json!(0), &json!("told"))
    );
    server.done();
    while a.of_type("bot_stream").await["message"]["status"] != "done" {}
    assert_eq!(unread().await["unread_count"], 0);
}

#[tokio::test]
async fn a_bot_asked_where_nobody_has_joined_says_nothing() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    server.piece("all ");
    server.piece("of it");
    server.done();
    a.say(room, "/bot tell").await;
    a.of_type("message").await;
    let told = timeout(PATIENCE, async {
        while server.http().contents(&alice, room).await != ["/bot tell", "all of it"] {}
    });
    told.await.expect("no answer");
}

#[tokio::test]
async fn empty_messages_are_accepted() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    for blank in ["", " ", "\n\t "] {
        a.say(room, blank).await;
        assert_eq!(a.next().await, json!({ "error": "a message may not be blank" }));
    }
    assert_eq!(server.http().contents(&alice, room).await, [""; 0]);
}

#[tokio::test]
async fn the_token_stands_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_coop-server"))
        .current_dir(folder.path())
        .env_clear()
        .args(["--listen", "127.0.0.1:0", "--port-file", "port", "--log", "trace"])
        .args(["--shutdown-grace", "10ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let port = timeout(PATIENCE, async {
        loop {
            if let Ok(text) = std::fs::read_to_string(folder.path().join("port")) {
                return text.trim().parse::<u16>().unwrap();
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let address = ([127, 0, 0, 1], port.await.expect("not ready")).into();
    let http = Http::new(address);
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut a = Ws::open(address, &alice.token).await;
    a.say(room, "a private word").await;
    a.of_type("message").await;
    let query = format!("/api/auth/me?token={}", alice.token);
    assert_eq!(http.send("GET", &query, &[], None).await.status, 401);
    program.start_kill().unwrap();
    program.wait().await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!log.is_empty());
    for secret in [alice.token.as_str(), "password of mine", "a private word"] {
        assert!(!log.contains(secret), "{secret} stands in {log}");
    }
}
