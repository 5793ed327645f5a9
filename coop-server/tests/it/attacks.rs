//! A server's bad days: who holds it up, who says what is no protocol, who is removed while everybody speaks, and a
//! database that is somebody else's for a while. The others go on.

use crate::binary::{Program, with_mock};
use crate::client::{PATIENCE, Ws};
use crate::server::Server;
use coop_server::Limits;
use serde_json::{Value, json};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A connection on which nothing is said.
async fn silent(address: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap()
}

/// Whether the server closes it at once. It stays open if nothing comes for a while.
async fn is_closed(stream: &mut TcpStream) -> bool {
    match timeout(Duration::from_millis(200), stream.read_u8()).await {
        Err(_) => false,
        Ok(read) => read.is_err(),
    }
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let server = Server::limited(|limits| limits.connections_per_address = 4).await;
    let alice = server.person("alice").await;
    // A socket is one of them, for as long as there is one.
    let mut socket = server.socket(&alice).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(silent(server.address).await);
        assert!(!is_closed(held.last_mut().unwrap()).await);
    }
    assert!(is_closed(&mut silent(server.address).await).await);
    socket.send(json!({ "type": "typing", "chat_id": 1 })).await;
    assert_eq!(socket.next().await["error"], "Not authorized", "who is in is served");
    held.pop();
    let served = timeout(PATIENCE, async {
        loop {
            let mut next = silent(server.address).await;
            if !is_closed(&mut next).await {
                return;
            }
        }
    });
    served.await.expect("one that is closed makes way");
}

/// The files that a process may have are not for the taking: sockets that are open, and the database, do not miss any.
#[tokio::test]
async fn who_holds_connections_open_takes_nothing_from_who_is_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // 64 more than are kept for all else.
    let script = "ulimit -n 320 && exec \"$0\" \"$@\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_coop-server"), "--bot", "mock=mock"])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("COOP_LIMITS", "off")
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .kill_on_drop(true);
    let program = Program::start_as(folder.path(), command).await;
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open_in(program.address, &alice.token, "coop.v1").await;
    // More than may come in. Those that wait have been accepted by the system alone.
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(silent(program.address).await);
    }
    for number in 0..20 {
        let said = json!({ "type": "send", "ref": number, "room": room, "text": format!("number {number}") });
        socket.send(said).await;
        let done = socket.of_type("ok").await;
        assert_eq!(done["ref"], number, "{done}");
    }
    socket
        .send(json!({ "type": "history", "ref": 99, "room": room, "limit": 20 }))
        .await;
    let page = socket.of_type("page").await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 20, "{page}");
    drop(held);
    assert_eq!(http.contents(&alice, room).await.len(), 20, "and then others come in");
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!log.contains("could not be accepted"), "{log}");
}

/// Bytes of all kinds, also behind beginnings that make sense.
#[tokio::test]
async fn what_is_no_protocol_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let program = Program::start_logging(folder.path(), &log, &[("COOP_LIMITS", "off")]).await;
    let http = program.http();
    let alice = http.person("alice").await;
    let token = &alice.token;
    let beginnings = [
        String::new(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(),
        "GET ".to_owned(),
        "GET / HTTP/1.1\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nRange: ".to_owned(),
        format!("GET /ws?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: "),
        format!("POST /api/chats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 300\r\n\r\n"),
        format!(
            "POST /api/chats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        format!(
            "GET /ws?token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
             13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    ];
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let beginning = &beginnings[random.usize(..beginnings.len())];
        let length = random.usize(1..2_000);
        let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let mut stream = silent(program.address).await;
        let cut = random.usize(..=beginning.len());
        let said = match random.bool() {
            true => [beginning.as_bytes(), &noise].concat(),
            false => [&beginning.as_bytes()[..cut], &noise].concat(),
        };
        // It may have closed already.
        let _ = stream.write_all(&said).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(
            read.is_ok(),
            "seed {seed}: it holds on to {} bytes of nonsense",
            said.len()
        );
    }
    assert_eq!(http.get(&alice, "/api/chats").await.status, 200);
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

/// Another program holds the file: nobody is told that something is stored which is not, what can be read is, and what
/// was refused can be sent again.
#[tokio::test]
async fn a_database_that_is_locked_is_told_and_health_is_not_kept_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start_as(folder.path(), with_mock(folder.path())).await;
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let path = format!("/api/rooms/{room}/messages");
    let say = |text: &str| json!({ "text": text, "client_id": text });
    assert_eq!(http.post(&alice, &path, say("before")).await.status, 200);
    let mut socket = Ws::open_in(program.address, &alice.token, "coop.v1").await;
    socket.of_type("ready").await;

    install_default_drivers();
    let url = format!("sqlite:{}", folder.path().join("coop.db").display());
    let mut other = AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    socket
        .send(json!({ "type": "send", "ref": 1, "room": room, "text": "by socket", "client_id": "by socket" }))
        .await;
    let (refused, ()) = tokio::join!(http.post(&alice, &path, say("during")), async {
        for path in ["/health", "/ready"] {
            let begun = Instant::now();
            assert_eq!(http.send("GET", path, &[], None).await.status, 200, "{path}");
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{path}: {:?}",
                begun.elapsed()
            );
        }
        assert_eq!(http.contents(&alice, room).await, ["before"], "what is there is read");
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let error = socket.of_type("error").await;
    assert_eq!(
        (&error["ref"], &error["code"]),
        (&json!(1), &json!("unavailable")),
        "{error}"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    assert_eq!(http.post(&alice, &path, say("during")).await.status, 200);
    socket
        .send(json!({ "type": "send", "ref": 2, "room": room, "text": "by socket", "client_id": "by socket" }))
        .await;
    assert_eq!(socket.of_type("ok").await["ref"], 2);
    assert_eq!(http.contents(&alice, room).await, ["before", "during", "by socket"]);
}

/// Somebody goes out and in while four others speak without end: what they hear lies between an invitation and the next
/// removal, what they say is there if they were told so and only then, and nobody else misses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_while_everybody_speaks_hears_nothing_more() {
    let server = Server::start_with(|api| api.limits(Limits::off()), None).await;
    let names = ["alice", "bob", "carol", "dave", "eve", "victor"];
    let mut people = Vec::new();
    for name in names {
        people.push(server.person(name).await);
    }
    let http = server.http();
    let members: Vec<_> = people[1..].iter().collect();
    let room = http.group(&people[0], "lab", &members).await;
    let victor = people.pop().unwrap();
    let mut ear = server.socket(&victor).await;
    ear.join(room).await;
    let mut tasks = JoinSet::new();
    for person in &people[1..] {
        let mut socket = server.socket(person).await;
        let name = person.name.clone();
        tasks.spawn(async move {
            for number in 0..150 {
                let said = format!("{name} {number}");
                socket.say(room, &said).await;
                // One's own comes back, whoever goes out and in.
                while socket.of_type("message").await["message"]["content"] != *said {}
            }
        });
    }
    let (mut out, mut told) = (0, Vec::new());
    let path = format!("/api/rooms/{room}/messages");
    while !tasks.is_empty() {
        let said = format!("victor {out}");
        let remove = format!("/api/chats/{room}/participants/{}", victor.id);
        let (removed, spoken) = tokio::join!(
            http.delete(&people[0], &remove),
            http.post(&victor, &path, json!({ "text": said }))
        );
        assert_eq!(removed.status, 200, "{removed:?}");
        match spoken.status {
            200 => told.push(said),
            404 => {}
            _ => panic!("{spoken:?}"),
        }
        assert_eq!(
            http.post(&victor, &path, json!({ "text": "from outside" }))
                .await
                .status,
            404
        );
        let invite = json!({ "username": "victor" });
        let invited = http
            .post(&people[0], &format!("/api/chats/{room}/invite"), invite)
            .await;
        assert_eq!(invited.status, 200, "{invited:?}");
        ear.join(room).await;
        out += 1;
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(out > 5, "went out only {out} times");

    let mut inside = true;
    for frame in ear.rest().await {
        match frame["type"].as_str() {
            Some("removed_from_chat") => inside = false,
            Some("chat_invite") => inside = true,
            Some("message" | "bot_stream" | "typing" | "read_receipts_updated") => {
                assert!(inside, "{frame} is heard outside");
            }
            _ => {}
        }
    }
    let mut stored = Vec::new();
    let mut before: Option<Value> = None;
    loop {
        let part = before.map_or(String::new(), |seq| format!("&before={seq}"));
        let page = http.get(&people[0], &format!("{path}?limit=200{part}")).await.json();
        let messages = page["messages"].as_array().unwrap();
        stored.extend(
            messages
                .iter()
                .map(|message| message["text"].as_str().unwrap().to_owned()),
        );
        if page["more"] == false {
            break;
        }
        before = Some(messages[0]["seq"].clone());
    }
    let of = |name: &str| stored.iter().filter(|text| text.starts_with(name)).count();
    for name in &names[1..5] {
        assert_eq!(of(name), 150, "{name}");
    }
    told.sort();
    let mut victors: Vec<_> = stored
        .iter()
        .filter(|text| text.starts_with("victor"))
        .cloned()
        .collect();
    victors.sort();
    assert_eq!(victors, told, "what was acknowledged, and nothing else");
    assert_eq!(of("from outside"), 0);
}
