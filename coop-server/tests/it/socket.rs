//! The socket itself: its handshake, its rules, and clients that do not read.

use crate::client::{PATIENCE, Person, Ws};
use crate::server::{PAGE, Server};
use coop_server::Limits;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

async fn status(server: &Server, token: &str, headers: &[(&'static str, &str)]) -> u16 {
    let mut request = Ws::request(server.address, token);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match Ws::try_open(server.address, request).await {
        Ok(_) => 101,
        Err(status) => status,
    }
}

fn patient(patience: Duration) -> Limits {
    let mut limits = Limits::off();
    limits.write_timeout = patience;
    limits
}

#[tokio::test]
async fn who_may_open_a_socket() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let good = alice.token.as_str();
    assert_eq!(status(&server, good, &[]).await, 101);
    assert_eq!(status(&server, good, &[("origin", PAGE)]).await, 101);
    let own = format!("http://{}", server.address);
    assert_eq!(status(&server, good, &[("origin", &own)]).await, 101);
    for origin in ["null", "http://evil.example", "file://"] {
        assert_eq!(status(&server, good, &[("origin", origin)]).await, 403, "{origin}");
    }
    for token in ["", "x", "a.b.c", &good[1..]] {
        assert_eq!(status(&server, token, &[]).await, 403, "{token}");
    }
    assert_eq!(status(&server, good, &[("sec-websocket-version", "8")]).await, 426);
    assert_eq!(status(&server, good, &[("sec-websocket-key", "AAAA")]).await, 400);
    let http = server.http();
    assert_eq!(http.send("GET", "/ws", &[], None).await.status, 403);
    assert_eq!(
        http.send("GET", &format!("/ws?token={good}"), &[], None).await.status,
        426
    );
}

/// A socket on which the test writes frames itself.
pub(crate) async fn raw(server: &Server, person: &Person) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        person.token, server.address
    );
    // A frame in the same packet as the handshake: it must not be lost. Masked with zeros.
    let ahead = b"\x89\x82\0\0\0\0hi";
    stream.write_all(&[request.as_bytes(), ahead].concat()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\x8a\x02hi") {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        assert_ne!(read.expect("no pong").unwrap(), 0);
    }
    let head = String::from_utf8_lossy(&seen).to_lowercase();
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    stream
}

#[tokio::test]
async fn what_the_protocol_forbids_ends_the_connection_with_its_code() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let big = [&b"\x81\xff"[..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (&b"\x81\x02hi"[..], 1002_u16),
        (b"\xc1\x82\0\0\0\0hi", 1002),
        (b"\x83\x82\0\0\0\0hi", 1002),
        (b"\x09\x82\0\0\0\0hi", 1002),
        (b"\x80\x82\0\0\0\0hi", 1002),
        (b"\x01\x82\0\0\0\0hi\x81\x82\0\0\0\0hi", 1002),
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),
        (&big, 1009),
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
    ] {
        let mut stream = raw(&server, &alice).await;
        stream.write_all(bytes).await.unwrap();
        let mut seen = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut seen)).await.unwrap().unwrap();
        assert_eq!(seen[0], 0x88, "{bytes:?}");
        assert_eq!(u16::from_be_bytes([seen[2], seen[3]]), code, "{bytes:?}");
        // And then it is over, whether or not the client does anything.
        if bytes[0] != 0x83 {
            stream.shutdown().await.unwrap();
        }
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_the_connection_stays() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let foreign = server.http().group(&bob, "his", &[]).await;
    let room = server.http().group(&alice, "hers", &[]).await;
    let mut a = server.socket(&alice).await;
    let refused = |words: &str| json!({ "error": words });
    for (frame, words) in [
        ("nonsense".to_owned(), "Not a JSON object"),
        ("[]".to_owned(), "Not a JSON object"),
        (json!({ "type": "join" }).to_string(), "Not authorized"),
        (
            json!({ "type": "join", "chat_id": foreign }).to_string(),
            "Not authorized",
        ),
        (
            json!({ "type": "join", "chat_id": 999_999 }).to_string(),
            "Not authorized",
        ),
        (
            json!({ "type": "typing", "chat_id": foreign }).to_string(),
            "Not authorized",
        ),
        (
            json!({ "type": "message", "chat_id": foreign, "content": "x" }).to_string(),
            "Not authorized",
        ),
        (
            json!({ "type": "message", "chat_id": room }).to_string(),
            "content must be a text",
        ),
        (
            json!({ "type": "message", "chat_id": room, "content": " \n\t" }).to_string(),
            "a message may not be blank",
        ),
        (
            json!({ "type": "message", "chat_id": room, "content": "a\0b" }).to_string(),
            "a message may not have a NUL character",
        ),
        (
            json!({ "type": "message", "chat_id": room, "content": "x".repeat(65_537) }).to_string(),
            "a message may have at most 64 KiB of text",
        ),
    ] {
        a.send_text(&frame).await;
        let shown: String = frame.chars().take(60).collect();
        assert_eq!(a.next().await, refused(words), "{shown}");
    }
    a.send_message(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(a.next().await, refused("Not a JSON object"));
    for ignored in [
        json!({ "type": "dance" }),
        json!({}),
        json!({ "type": "leave", "chat_id": foreign }),
    ] {
        a.send(ignored).await;
    }
    let long = "é".repeat(20_000);
    a.say(room, &long).await;
    assert_eq!(a.next().await["message"]["content"], long);
    a.send_message(Message::Ping(vec![7; 125].into())).await;
    assert_eq!(a.next_message().await, Some(Message::Pong(vec![7; 125].into())));
}

#[tokio::test]
async fn what_was_sent_just_before_leaving_is_said() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    for number in 0..30 {
        a.say(room, &number.to_string()).await;
    }
    a.send_message(Message::Close(None)).await;
    drop(a);
    let expected: Vec<_> = (0..30).map(|number| number.to_string()).collect();
    let said = timeout(PATIENCE, async {
        while server.http().contents(&alice, room).await != expected {}
    });
    said.await.unwrap();
}

/// A socket whose client takes little at once.
pub(crate) async fn narrow(server: &Server, person: &Person) -> Ws {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Ws::over(stream, Ws::request(server.address, &person.token))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_closed_and_nobody_waits_for_them() {
    let patience = Duration::from_millis(1_500);
    let server = Server::start_with(|api| api.limits(patient(patience)), Some(8_192)).await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let room = server.http().group(&alice, "lab", &[&bob, &carol]).await;
    let mut slow = narrow(&server, &bob).await;
    slow.join(room).await;
    slow.settle().await;
    let (mut a, mut c) = (server.socket(&alice).await, server.socket(&carol).await);
    let text = "x".repeat(10_000);
    let begun = tokio::time::Instant::now();
    let mut slowest = Duration::ZERO;
    let mut number = 0;
    // Until well after the slow one is given up.
    while begun.elapsed() < 3 * patience {
        number += 1;
        let sent = tokio::time::Instant::now();
        a.say(room, &format!("{number} {text}")).await;
        let content = c.of_type("message").await["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(content.starts_with(&format!("{number} ")), "lost one");
        a.of_type("message").await;
        slowest = slowest.max(sent.elapsed());
    }
    assert!(slowest < Duration::from_millis(1_000), "somebody waited {slowest:?}");
    // What had been written by then may still be read; then it is over.
    assert!(matches!(slow.close_code().await, None | Some(4508)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_misses_nothing() {
    let server = Server::start_with(|api| api, Some(8_192)).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let mut slow = narrow(&server, &bob).await;
    slow.join(room).await;
    slow.settle().await;
    let mut a = server.socket(&alice).await;
    // Twice what the room keeps in memory, in frames that do not fit the socket.
    let text = "x".repeat(20_000);
    for number in 0..30 {
        a.say(room, &format!("{number} {text}")).await;
        a.of_type("message").await;
        if number == 15 {
            a.say(room, "/bot tell").await;
            server.piece("an answer");
            server.done();
        }
    }
    let mut numbers = Vec::new();
    let mut answer = Value::Null;
    while numbers.len() < 31 {
        let frame = slow.next().await;
        if frame["type"] == "message" {
            let content = frame["message"]["content"].as_str().unwrap();
            numbers.push(content.split(' ').next().unwrap().to_owned());
        } else if frame["type"] == "bot_stream" {
            answer = frame["message"]["content"].clone();
        }
    }
    let mut expected: Vec<_> = (0..30).map(|number| number.to_string()).collect();
    expected.insert(16, "/bot".to_owned());
    assert_eq!(numbers, expected);
    assert_eq!(answer, "an answer");
    slow.say(room, "I am back").await;
    assert_eq!(slow.of_type("message").await["message"]["content"], "I am back");
}

#[tokio::test]
async fn who_asks_without_reading_is_closed() {
    let server = Server::start_with(|api| api.limits(patient(Duration::from_millis(500))), Some(4_096)).await;
    let alice = server.person("alice").await;
    let mut stream = raw(&server, &alice).await;
    let ping = [&b"\x89\xfd\0\0\0\0"[..], &[b'x'; 125]].concat();
    let flood = timeout(PATIENCE, async { while stream.write_all(&ping).await.is_ok() {} });
    flood.await.expect("it is still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sockets_and_senders_see_one_order() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut others = Vec::new();
    for number in 0..5 {
        others.push(server.person(&format!("user{number}")).await);
    }
    let room = server
        .http()
        .group(&alice, "lab", &others.iter().collect::<Vec<_>>())
        .await;
    let mut tasks = Vec::new();
    let all_here = std::sync::Arc::new(tokio::sync::Barrier::new(6));
    for person in others.iter().chain([&alice]) {
        let mut socket = server.socket(person).await;
        let name = person.name.clone();
        let all_here = std::sync::Arc::clone(&all_here);
        tasks.push(tokio::spawn(async move {
            socket.join(room).await;
            socket.settle().await;
            all_here.wait().await;
            for number in 0..50 {
                socket.say(room, &format!("{name} {number}")).await;
            }
            let mut seen = Vec::new();
            while seen.len() < 6 * 50 {
                seen.push(socket.of_type("message").await["message"]["content"].to_string());
            }
            seen
        }));
    }
    let mut orders = Vec::new();
    for task in tasks {
        orders.push(task.await.unwrap());
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
    let said_by_alice: Vec<_> = orders[0].iter().filter(|content| content.contains("alice")).collect();
    let expected: Vec<_> = (0..50).map(|number| format!("\"alice {number}\"")).collect();
    assert_eq!(said_by_alice, expected.iter().collect::<Vec<_>>());
}
