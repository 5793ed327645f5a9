//! Two programs on one PostgreSQL database, without a bus and with Redis between them.

use crate::binary::{Program, command};
use crate::client::Ws;
use coop_core::testing::postgres::shared;
use coop_core::testing::redis::Redis;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::time::timeout;

/// How long something done at one server may take to be effective at another.
const SEEN: Duration = Duration::from_secs(2);

struct Servers {
    folders: [TempDir; 2],
    variables: Vec<(&'static str, String)>,
}

impl Servers {
    fn new(test: &str) -> Option<Self> {
        let url = shared(test)?.database();
        let secret = "the same secret of more than thirty-two bytes".to_owned();
        Some(Self {
            folders: [(); 2].map(|()| tempfile::tempdir().unwrap()),
            variables: vec![("COOP_DATABASE_URL", url), ("COOP_JWT_SECRET", secret)],
        })
    }

    fn with_redis(test: &str) -> Option<(Self, Redis)> {
        let redis = Redis::start(test)?;
        let mut servers = Self::new(test)?;
        servers.variables.push(("COOP_REDIS_URL", redis.url()));
        Some((servers, redis))
    }

    fn log(&self, which: usize) -> String {
        std::fs::read_to_string(self.folders[which].path().join("log")).unwrap()
    }

    async fn start(&self, which: usize) -> Program {
        let folder = self.folders[which].path();
        let variables: Vec<_> = self
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Program::start_logging(folder, &folder.join("log"), &variables).await
    }
}

async fn soon(frame: impl Future<Output = Value>) -> Value {
    timeout(SEEN, frame).await.expect("effective in time")
}

#[tokio::test]
async fn people_at_two_servers_share_a_room() {
    if let Some(servers) = Servers::new("people_at_two_servers_share_a_room") {
        people_share_a_room(servers).await;
    }
}

#[tokio::test]
async fn people_at_two_servers_with_redis_share_a_room() {
    if let Some((servers, _redis)) = Servers::with_redis("people_at_two_servers_with_redis_share_a_room") {
        people_share_a_room(servers).await;
    }
}

async fn people_share_a_room(servers: Servers) {
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

/// What is fleeting comes over Redis, as does what is to be done at the other server. While Redis is away the servers are
/// ready, say so, and find what was said in the database.
#[tokio::test]
async fn redis_makes_two_servers_one_and_may_go_away() {
    let Some((servers, redis)) = Servers::with_redis("redis_makes_two_servers_one_and_may_go_away") else {
        return;
    };
    let (one, two) = tokio::join!(servers.start(0), servers.start(1));
    let (http, other) = (one.http(), two.http());
    let (alice, bob) = (http.person("alice").await, other.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut alices = Ws::open_in(one.address, &alice.token, "coop.v1").await;
    let mut bobs = Ws::open_in(two.address, &bob.token, "coop.v1").await;
    for socket in [&mut alices, &mut bobs] {
        socket.send(json!({ "type": "join", "room": room })).await;
        socket.of_type("snapshot").await;
    }
    let hint = async |socket: &mut Ws, kind: &str| {
        let wanted = async { while socket.of_type("hint").await["kind"] != kind {} };
        timeout(SEEN, wanted).await.unwrap_or_else(|_| panic!("no {kind}"));
    };
    hint(&mut alices, "presence").await;
    alices.send(json!({ "type": "typing", "room": room })).await;
    hint(&mut bobs, "typing").await;
    alices
        .send(json!({ "type": "send", "room": room, "text": "/bot essay", "ref": 1 }))
        .await;
    let event = async |socket: &mut Ws, kind: &str| {
        let wanted = async {
            loop {
                let event = socket.of_type("event").await;
                if event["kind"] == kind {
                    return event;
                }
            }
        };
        timeout(SEEN, wanted).await.unwrap_or_else(|_| panic!("no {kind}"))
    };
    let turn = event(&mut bobs, "turn_started").await["turn"].clone();
    // Many pieces a second, where the database has two checkpoints.
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        soon(bobs.of_type("delta")).await;
    }
    assert!(begun.elapsed() < SEEN, "{:?}", begun.elapsed());
    bobs.send(json!({ "type": "stop", "room": room, "turn": turn })).await;
    assert_eq!(event(&mut alices, "turn_ended").await["status"], "stopped");

    let ready = async |http: &crate::client::Http| http.send("GET", "/ready", &[], None).await;
    assert_eq!(ready(&http).await.json(), json!({ "status": "ready", "bus": "up" }));
    redis.kill();
    let becomes = async |bus: &str| {
        for http in [&http, &other] {
            let is = async {
                loop {
                    let answer = ready(http).await;
                    assert_eq!(answer.status, 200, "readiness is the store's alone");
                    if answer.json()["bus"] == bus {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(SEEN * 5, is)
                .await
                .unwrap_or_else(|_| panic!("the bus is not {bus}"));
        }
    };
    becomes("down").await;
    alices
        .send(json!({ "type": "send", "room": room, "text": "without", "ref": 2 }))
        .await;
    assert_eq!(event(&mut bobs, "message_posted").await["message"]["text"], "without");
    redis.start_again();
    becomes("up").await;
    alices
        .send(json!({ "type": "send", "room": room, "text": "with", "ref": 3 }))
        .await;
    assert_eq!(event(&mut bobs, "message_posted").await["message"]["text"], "with");
    for which in [0, 1] {
        let log = servers.log(which);
        let at = |words: &str| {
            log.rfind(words)
                .unwrap_or_else(|| panic!("the log does not say: {words}"))
        };
        assert!(at("Redis is away") < at("Redis is there"));
    }

    // Who is removed is out at once, and hears nothing that is said after it.
    let removed = http
        .delete(&alice, &format!("/api/chats/{room}/participants/{}", bob.id))
        .await;
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(soon(bobs.of_type("gone")).await["reason"], "removed");
    alices
        .send(json!({ "type": "send", "room": room, "text": "among us", "ref": 4 }))
        .await;
    assert!(bobs.rest().await.iter().all(|frame| frame["type"] != "event"));
    one.terminate().await;
    two.terminate().await;
    assert_eq!((one.ends_with().await, two.ends_with().await), (Some(0), Some(0)));
}

/// The script among the examples that starts all of it, and leaves nothing behind.
#[tokio::test]
async fn the_script_starts_two_servers() {
    let test = "the_script_starts_two_servers";
    if Redis::start(test).is_none() || shared(test).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut script = tokio::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two_servers.sh"))
        .env("COOP_SERVER", env!("CARGO_BIN_EXE_coop-server"))
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // PostgreSQL's own user must get there.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = tokio::io::BufReader::new(script.stdout.take().unwrap());
    let line = timeout(Duration::from_secs(60), said.lines().next_line())
        .await
        .expect("nothing is said");
    let line = line.unwrap().expect("it has ended");
    let addresses = line
        .split("http://")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    let addresses: Vec<std::net::SocketAddr> = addresses.collect();
    assert_eq!(addresses.len(), 2, "{line}");
    for address in &addresses {
        let ready = crate::client::Http::new(*address)
            .send("GET", "/ready", &[], None)
            .await;
        assert_eq!(ready.json(), json!({ "status": "ready", "bus": "up" }));
    }
    let id = script.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let ended = timeout(Duration::from_secs(30), script.wait())
        .await
        .expect("it goes on")
        .unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something is left"
    );
    for address in addresses {
        assert!(
            tokio::net::TcpStream::connect(address).await.is_err(),
            "{address} is still there"
        );
    }
}
