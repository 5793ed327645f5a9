//! Two programs on one PostgreSQL database, without a bus.

use crate::binary::{Program, command};
use crate::client::Ws;
use coop_core::testing::postgres::shared;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// How long something done at one server may take to be effective at another.
const SEEN: Duration = Duration::from_secs(2);

struct Servers {
    folders: [TempDir; 2],
    variables: [(&'static str, String); 2],
}

impl Servers {
    fn new(test: &str) -> Option<Self> {
        let url = shared(test)?.database();
        let secret = "the same secret of more than thirty-two bytes".to_owned();
        Some(Self {
            folders: [(); 2].map(|()| tempfile::tempdir().unwrap()),
            variables: [("COOP_DATABASE_URL", url), ("COOP_JWT_SECRET", secret)],
        })
    }

    async fn start(&self, which: usize) -> Program {
        let folder = self.folders[which].path();
        let variables = self.variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        Program::start_logging(folder, &folder.join("log"), &variables).await
    }
}

async fn soon(frame: impl Future<Output = Value>) -> Value {
    timeout(SEEN, frame).await.expect("effective in time")
}

#[tokio::test]
async fn people_at_two_servers_share_a_room() {
    let Some(servers) = Servers::new("people_at_two_servers_share_a_room") else {
        return;
    };
    let (one, two) = tokio::join!(servers.start(0), servers.start(1));
    let (http, other) = (one.http(), two.http());
    let (alice, bob) = (http.person("alice").await, other.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut alices = Ws::open(one.address, &alice.token).await;
    // The token of one server is good at the other.
    let mut bobs = Ws::open(two.address, &bob.token).await;
    alices.join(room).await;
    bobs.join(room).await;
    alices.settle().await;
    bobs.settle().await;
    for (count, text) in ["hello", "anybody?"].into_iter().enumerate() {
        alices.say(room, text).await;
        while soon(bobs.of_type("message")).await["message"]["content"] != json!(text) {}
        let reply = format!("yes {count}");
        bobs.say(room, &reply).await;
        while soon(alices.of_type("message")).await["message"]["content"] != json!(reply) {}
    }
    // A reader of pieces at the server that does not write them: what it holds in the end is all of it.
    let mut pieces = Ws::open_in(two.address, &bob.token, "coop.v1").await;
    pieces.send(json!({ "type": "join", "room": room })).await;
    pieces.of_type("snapshot").await;
    alices.say(room, "/bot hello").await;
    let (mut text, mut end) = (String::new(), Value::Null);
    while end["kind"] != "turn_ended" {
        end = timeout(SEEN * 5, pieces.next()).await.expect("it ends");
        if end["kind"] == "turn_started" {
            end["message"]["text"].as_str().unwrap().clone_into(&mut text);
        }
        if end["type"] == "delta" {
            assert_eq!(end["offset"], text.len(), "pieces follow each other");
            text.push_str(end["text"].as_str().unwrap());
        }
    }
    let whole = end["text"].as_str().unwrap_or(&text);
    assert!(
        whole.starts_with(&text) && (end["text"].is_string() || end["end"] == text.len()),
        "{text:?} {end}"
    );
    let mut last = [Value::Null, Value::Null];
    for (last, socket) in last.iter_mut().zip([&mut alices, &mut bobs]) {
        while last["message"]["status"] != "done" {
            *last = timeout(SEEN * 5, socket.of_type("bot_stream")).await.expect("it ends");
        }
    }
    assert_eq!(last[0]["message"]["content"], last[1]["message"]["content"]);
    assert_eq!(last[0]["message"]["content"], *whole);

    // Another password, set anywhere, ends the tokens everywhere.
    let changed = command(servers.folders[0].path())
        .args(["user", "password", "bob"])
        .envs(servers.variables.iter().map(|(name, value)| (name, value)))
        .status();
    assert!(changed.await.unwrap().success());
    timeout(SEEN, bobs.close_code()).await.expect("effective in time");
    assert_eq!(other.get(&bob, "/api/auth/me").await.status, 401);
    one.terminate().await;
    two.terminate().await;
    assert_eq!((one.ends_with().await, two.ends_with().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn the_answer_of_a_killed_server_is_ended_by_the_other() {
    let Some(servers) = Servers::new("the_answer_of_a_killed_server_is_ended_by_the_other") else {
        return;
    };
    let (mut one, two) = tokio::join!(servers.start(0), servers.start(1));
    let (http, other) = (one.http(), two.http());
    let (alice, bob) = (http.person("alice").await, other.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut alices = Ws::open(one.address, &alice.token).await;
    let mut bobs = Ws::open(two.address, &bob.token).await;
    alices.join(room).await;
    bobs.join(room).await;
    bobs.settle().await;
    alices.say(room, "/bot essay").await;
    timeout(SEEN * 2, bobs.of_type("bot_stream"))
        .await
        .expect("it is seen to grow");
    one.kill().await;
    let messages = async || other.get(&bob, &format!("/api/chats/{room}/messages")).await.json();
    let ended = async {
        loop {
            let answer = messages().await[1].clone();
            if answer["status"] != "streaming" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answer = timeout(Duration::from_secs(15), ended)
        .await
        .expect("found dead in time");
    assert_eq!(answer["status"], "interrupted");
    assert!(!answer["content"].as_str().unwrap().is_empty(), "what was kept is kept");
    // The room goes on, and its bot.
    bobs.say(room, "/bot again").await;
    while bobs.of_type("bot_stream").await["message"]["id"] == answer["id"] {}
    let back = servers.start(0).await;
    assert_eq!(
        back.http()
            .get(&alice, &format!("/api/chats/{room}/messages"))
            .await
            .json()[1],
        answer
    );
}
