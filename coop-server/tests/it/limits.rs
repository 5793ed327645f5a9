//! Every limit is met: what is beyond it is refused with words and a time, and the rest goes on.

use crate::client::{Http, PATIENCE, Person, Reply, Ws, read_reply};
use crate::http::check_failure;
use crate::server::{PAGE, SECRET, Server};
use crate::socket::raw;
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::store::{NewAccount, UserStore};
use coop_core::{Account, Engine, UserId};
use coop_server::{Api, Limits, Rate, serve};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

const HOUR: Duration = Duration::from_secs(3_600);

/// So many, and then none for a long time.
fn only(burst: u32) -> Rate {
    Rate::new(1, HOUR, burst)
}

fn check_limited(reply: &Reply, what: &str) {
    check_failure(reply, 429, what);
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&after), "{what}: {after}");
    assert_eq!(reply.json()["code"], "rate_limited", "{what}");
}

async fn try_login(http: &Http, name: &str, password: &str, headers: &[(&str, &str)]) -> Reply {
    let credentials = json!({ "username": name, "password": password });
    http.send("POST", "/api/auth/login", headers, Some(&credentials)).await
}

#[tokio::test]
async fn who_guesses_a_password_is_stopped_and_who_knows_it_is_not() {
    let server = Server::limited(|limits| limits.logins_per_account = only(3)).await;
    let http = server.http();
    server.person("alice").await;
    server.person("bob").await;
    for _ in 0..10 {
        http.log_in("alice").await;
    }
    for spelling in ["alice", "ALICE", "ａｌｉｃｅ"] {
        let wrong = try_login(&http, spelling, "wrong password", &[]).await;
        check_failure(&wrong, 401, spelling);
    }
    // Also the right one: otherwise the refusal would tell that it is.
    for password in ["wrong password", "password of mine"] {
        check_limited(&try_login(&http, "Alice", password, &[]).await, password);
    }
    http.log_in("bob").await;
    // Who does not exist is stopped in the same way.
    for _ in 0..3 {
        assert_eq!(try_login(&http, "nobody", "wrong password", &[]).await.status, 401);
    }
    check_limited(&try_login(&http, "nobody", "wrong password", &[]).await, "nobody");
}

#[tokio::test]
async fn an_address_logs_in_and_registers_only_so_often_whatever_it_sends() {
    let server = Server::limited(|limits| {
        limits.logins_per_address = only(4);
        limits.registrations_per_address = only(2);
    })
    .await;
    let http = server.http();
    let register = async |body: Value| http.send("POST", "/api/auth/register", &[], Some(&body)).await;
    let account =
        |name: &str| json!({ "username": name, "email": format!("{name}@b.org"), "password": "password of mine" });
    assert_eq!(register(account("alice")).await.status, 200);
    assert_eq!(register(json!({})).await.status, 422);
    check_limited(&register(account("bob")).await, "third");
    for name in ["alice", "x", "", "bob"] {
        assert_eq!(
            try_login(&http, name, "wrong password", &[]).await.status,
            401,
            "{name}"
        );
    }
    // Before anything is read, hashed or looked up; and the page may read the words.
    let refused = http
        .send("POST", "/api/auth/login", &[("Origin", PAGE)], Some(&json!("nonsense")))
        .await;
    check_limited(&refused, "fifth");
    check_safe(&refused);
    assert_eq!(http.send("GET", "/health", &[], None).await.status, 200);
}

/// What browsers are told of every answer.
fn check_safe(reply: &Reply) {
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("vary", "Origin"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_tells_whom_it_speaks_for_and_nobody_else_does() {
    for trusted in [true, false] {
        let mut limits = Limits::off();
        limits.logins_per_address = only(1);
        let proxies = trusted.then(|| "127.0.0.0/8".to_owned());
        let set = |api: coop_server::ApiBuilder| api.limits(limits).trusted_proxies(proxies.into_iter().collect());
        let server = Server::start_with(set, None).await;
        let http = server.http();
        let mut seen = Vec::new();
        for from in ["1.2.3.4", "1.2.3.5", "9.9.9.9, 1.2.3.4", "2001:db8::1", "2001:db8::2"] {
            let reply = try_login(&http, "x", "wrong password", &[("X-Forwarded-For", from)]).await;
            seen.push(reply.status);
        }
        let expected = if trusted {
            [401, 401, 429, 401, 429]
        } else {
            [401, 429, 429, 429, 429]
        };
        assert_eq!(seen, expected, "{trusted}");
    }
    let server = Server::start().await;
    let built = Api::builder(server.engine.clone())
        .jwt_secret(SECRET)
        .trusted_proxies(vec!["10.0.0.0/8".into(), "nowhere".into()])
        .build();
    assert!(built.unwrap_err().to_string().contains("\"nowhere\""));
}

#[tokio::test]
async fn a_user_searches_invites_and_makes_rooms_only_so_often() {
    let server = Server::limited(|limits| {
        limits.searches_per_user = only(2);
        limits.invitations_per_user = only(2);
        limits.new_rooms_per_user = only(2);
    })
    .await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[]).await;
    http.group(&alice, "den", &[]).await;
    check_limited(&http.post(&alice, "/api/chats", json!({ "name": "x" })).await, "room");
    let invite = format!("/api/chats/{room}/invite");
    for _ in 0..2 {
        let invited = http.post(&alice, &invite, json!({ "username": "bob" })).await;
        assert_eq!(invited.status, 200);
        assert_eq!(http.get(&alice, "/api/users/search?query=bo").await.status, 200);
    }
    check_limited(
        &http.post(&alice, &invite, json!({ "username": "bob" })).await,
        "invite",
    );
    check_limited(&http.get(&alice, "/api/users/search?query=bo").await, "search");
    // Others have theirs, and everything else goes on.
    assert_eq!(http.get(&bob, "/api/users/search?query=al").await.status, 200);
    assert_eq!(http.get(&alice, "/api/chats").await.status, 200);
}

/// The next refusal, its words and its time.
async fn refusal(socket: &mut Ws) -> (String, Option<u64>) {
    loop {
        let frame = socket.next().await;
        if let Some(words) = frame["error"].as_str() {
            return (words.to_owned(), frame["retry_after"].as_u64());
        }
    }
}

#[tokio::test]
async fn a_bot_is_asked_only_so_often_and_nothing_of_what_is_refused_is_said() {
    let server = Server::limited(|limits| limits.asks_per_user = only(2)).await;
    let (http, alice, bob) = (server.http(), server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut a = server.socket(&alice).await;
    a.join(room).await;
    for number in 0..2 {
        server.piece("yes");
        server.done();
        a.say(room, &format!("/bot {number}")).await;
        a.answer("yes").await;
    }
    for text in ["/bot again", "what does @teller say?"] {
        a.say(room, text).await;
        let (words, after) = refusal(&mut a).await;
        assert_eq!(words, "too many asks; try again later");
        assert!(after.is_some_and(|after| (3_500..=3_600).contains(&after)), "{after:?}");
    }
    a.say(room, "never mind").await;
    assert_eq!(a.of_type("message").await["message"]["content"], "never mind");
    assert_eq!(
        http.contents(&alice, room).await,
        ["/bot 0", "yes", "/bot 1", "yes", "never mind"]
    );
    // Others may still ask.
    let mut b = server.socket(&bob).await;
    b.join(room).await;
    server.piece("of course");
    server.done();
    b.say(room, "/bot and I?").await;
    b.answer("of course").await;
}

#[tokio::test]
async fn in_an_ai_chat_what_is_refused_is_said_but_not_answered() {
    let server = Server::limited(|limits| limits.asks_per_user = only(1)).await;
    let (http, alice, bob) = (server.http(), server.person("alice").await, server.person("bob").await);
    let draft = json!({ "name": "AI", "is_group": false, "is_ai_chat": true });
    let room = http.post(&alice, "/api/chats", draft).await.json()["id"]
        .as_i64()
        .unwrap();
    let mut a = server.socket(&alice).await;
    a.join(room).await;
    server.piece("one");
    server.done();
    a.say(room, "first").await;
    a.answer("one").await;
    for text in ["second", "/bot third"] {
        a.say(room, text).await;
        let (words, after) = refusal(&mut a).await;
        assert_eq!(
            (words.as_str(), after.is_some()),
            ("too many asks; try again later", true)
        );
    }
    assert_eq!(
        http.contents(&alice, room).await[1..],
        ["first", "one", "second", "/bot third"]
    );
    // With somebody else there, plain words ask nobody and cost nothing.
    let invited = http
        .post(
            &alice,
            &format!("/api/chats/{room}/invite"),
            json!({ "username": "bob" }),
        )
        .await;
    assert_eq!(invited.status, 200);
    let mut b = server.socket(&bob).await;
    b.join(room).await;
    for number in 0..3 {
        for socket in [&mut a, &mut b] {
            socket.say(room, &format!("hello {number}")).await;
        }
    }
    for socket in [&mut a, &mut b] {
        let refused = socket
            .rest()
            .await
            .into_iter()
            .filter(|frame| !frame["error"].is_null())
            .count();
        assert_eq!(refused, 0);
    }
    server.piece("two");
    server.done();
    b.say(room, "/bot me?").await;
    b.answer("two").await;
}

#[tokio::test]
async fn only_so_many_answers_are_owed_to_one_user_at_once() {
    let server = Server::limited(|limits| limits.asks_in_flight = 2).await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let rooms = [
        http.group(&alice, "one", &[]).await,
        http.group(&alice, "two", &[]).await,
        http.group(&alice, "three", &[]).await,
    ];
    let (mut a, mut other) = (server.socket(&alice).await, server.socket(&alice).await);
    for room in rooms {
        a.join(room).await;
    }
    a.say(rooms[0], "/bot 1").await;
    a.say(rooms[1], "/bot 2").await;
    a.settle().await;
    // On whichever socket, in whichever room.
    other.say(rooms[2], "/bot 3").await;
    let (words, after) = refusal(&mut other).await;
    assert_eq!(
        (words.as_str(), after),
        ("wait until your last asks are answered", Some(1))
    );
    // A message that asks nobody always may.
    other.say(rooms[2], "patience").await;
    server.done();
    let answered = timeout(PATIENCE, async {
        loop {
            other.say(rooms[2], "/bot now?").await;
            let frame = loop {
                let frame = other.next().await;
                let said = &frame["message"]["content"];
                if !frame["error"].is_null() || said == "/bot now?" {
                    break frame;
                }
            };
            if frame["error"].is_null() {
                break;
            }
        }
    });
    answered.await.expect("its place is never given back");
}

#[tokio::test]
async fn a_socket_says_only_so_much_at_a_time() {
    let server = Server::limited(|limits| limits.messages_per_socket = only(5)).await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let room = http.group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    for number in 0..7 {
        a.say(room, &number.to_string()).await;
    }
    for _ in 0..2 {
        let (words, after) = refusal(&mut a).await;
        assert_eq!((words.as_str(), after), ("too many messages", Some(3_600)));
    }
    // The connection stays, and another one has its own allowance.
    let mut other = server.socket(&alice).await;
    other.say(room, "5").await;
    while a.of_type("message").await["message"]["content"] != "5" {}
    let said: Vec<_> = (0..6).map(|number| number.to_string()).collect();
    assert_eq!(http.contents(&alice, room).await, said);
}

/// An allowance is a person's, whatever they open anew to get another.
#[tokio::test]
async fn who_comes_back_on_another_socket_has_no_new_allowance() {
    let server = Server::limited(|limits| {
        limits.messages_per_user = only(4);
        limits.openings_per_user = only(3);
    })
    .await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let room = http.group(&alice, "lab", &[]).await;
    for number in 0..2 {
        let mut socket = server.socket(&alice).await;
        socket.say(room, &number.to_string()).await;
        socket.of_type("message").await;
    }
    let path = format!("/api/rooms/{room}/messages");
    assert_eq!(http.post(&alice, &path, json!({ "text": "2" })).await.status, 200);
    let mut last = server.socket(&alice).await;
    for number in 3..5 {
        last.say(room, &number.to_string()).await;
    }
    let (words, after) = refusal(&mut last).await;
    assert_eq!((words.as_str(), after), ("too many messages", Some(3_600)));
    assert_eq!(http.post(&alice, &path, json!({ "text": "4" })).await.status, 429);
    assert_eq!(http.contents(&alice, room).await, ["0", "1", "2", "3"]);

    let Err(refused) = try_socket(&server, &alice).await else {
        panic!("a fourth opening");
    };
    check_failure(&refused, 429, "you connect too often");
    let events = http.get(&alice, &format!("/api/rooms/{room}/events")).await;
    check_failure(&events, 429, "you connect too often");
    let bob = server.person("bob").await;
    assert!(try_socket(&server, &bob).await.is_ok(), "others are not to blame");
}

#[tokio::test]
async fn joining_and_leaving_is_never_refused_whatever_else_is() {
    let server = Server::limited(|limits| {
        limits.frames_per_socket = only(3);
        limits.pings_per_socket = only(3);
        limits.errors_per_socket = only(10);
    })
    .await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let room = http.group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    for _ in 0..4 {
        a.send(json!({ "type": "typing", "chat_id": room })).await;
    }
    assert_eq!(refusal(&mut a).await, ("too many frames".to_owned(), Some(3_600)));
    for _ in 0..4 {
        a.send_message(Message::Ping(b"x"[..].into())).await;
    }
    let mut pongs = 0;
    let refused = loop {
        match a.next_message().await.unwrap() {
            Message::Pong(_) => pongs += 1,
            Message::Text(text) => break text.to_string(),
            _ => {}
        }
    };
    assert_eq!((pongs, refused.contains("too many pings")), (3, true), "{refused}");
    for _ in 0..300 {
        a.join(room).await;
        a.send(json!({ "type": "leave", "chat_id": room })).await;
        a.join(999_999).await;
    }
    a.join(room).await;
    for _ in 0..300 {
        assert_eq!(refusal(&mut a).await, ("Not authorized".to_owned(), None));
    }
    server.piece("still here");
    server.done();
    a.say(room, "/bot").await;
    a.say(room, "/bot hello").await;
    a.answer("still here").await;
}

#[tokio::test]
async fn who_goes_on_with_what_is_refused_is_sent_away() {
    let server = Server::limited(|limits| limits.errors_per_socket = only(20)).await;
    let alice = server.person("alice").await;
    let mut a = server.socket(&alice).await;
    for _ in 0..20 {
        a.send_text("nonsense").await;
        assert_eq!(refusal(&mut a).await.0, "Not a JSON object");
    }
    a.send_text("nonsense").await;
    assert_eq!(refusal(&mut a).await.0, "Not a JSON object");
    assert_eq!(a.close_code().await, Some(1008));
}

/// To be sent away is no way to have the server read without end.
#[tokio::test]
async fn who_is_sent_away_and_goes_on_is_not_listened_to() {
    let server = Server::limited(|limits| limits.errors_per_socket = only(3)).await;
    let alice = server.person("alice").await;
    let mut stream = raw(&server, &alice).await;
    // An empty text, masked with zeros, is no command.
    let nonsense = [0x81, 0x80, 0, 0, 0, 0].repeat(10_000);
    let mut sent = 0;
    let until_closed = async {
        while stream.write_all(&nonsense).await.is_ok() {
            sent += nonsense.len();
        }
    };
    timeout(PATIENCE, until_closed).await.expect("it is never closed");
    // What the system has room for, and not a second's worth.
    assert!(sent < 32 << 20, "it took {sent} bytes");
}

#[tokio::test]
async fn typing_is_passed_on_as_often_as_is_set() {
    let server = Server::limited(|limits| limits.typing_every = HOUR).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    b.join(room).await;
    b.settle().await;
    for _ in 0..5 {
        a.send(json!({ "type": "typing", "chat_id": room })).await;
    }
    a.say(room, "done").await;
    b.of_type("typing").await;
    loop {
        let frame = b.next().await;
        assert_ne!(frame["type"], "typing");
        if frame["type"] == "message" {
            break;
        }
    }
}

/// Opens a socket and gives the status if that is refused, whose answer must be in order.
async fn try_socket(server: &Server, person: &Person) -> Result<Ws, Reply> {
    let request = Ws::request(server.address, &person.token);
    if let Ok(socket) = Ws::try_open(server.address, request).await {
        return Ok(socket);
    }
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ];
    let path = format!("/ws?token={}", person.token);
    Err(server.http().send("GET", &path, &headers, None).await)
}

#[tokio::test]
async fn there_are_only_so_many_sockets() {
    type Set = fn(&mut Limits);
    let cases: [(Set, u16, &str); 3] = [
        (
            |limits| limits.sockets_per_user = 2,
            429,
            "you have too many connections",
        ),
        (
            |limits| limits.sockets_per_address = 2,
            429,
            "there are too many connections from your address",
        ),
        (|limits| limits.sockets = 2, 503, "the server has too many connections"),
    ];
    for (set, status, words) in cases {
        let server = Server::limited(set).await;
        let (alice, bob) = (server.person("alice").await, server.person("bob").await);
        let mut held = vec![server.socket(&alice).await, server.socket(&alice).await];
        let Err(refused) = try_socket(&server, &alice).await else {
            panic!("a third socket: {words}");
        };
        check_failure(&refused, status, words);
        assert_eq!(
            (refused.detail().as_str(), refused.header("retry-after")),
            (words, Some("5"))
        );
        assert_eq!(
            try_socket(&server, &bob).await.is_ok(),
            words.starts_with("you"),
            "{words}"
        );
        // A closed one makes way.
        held.pop().unwrap().send_message(Message::Close(None)).await;
        let opened = timeout(PATIENCE, async { while try_socket(&server, &alice).await.is_err() {} });
        opened.await.expect(words);
    }
}

const SHORT: Duration = Duration::from_millis(300);

/// How long until the server closes this connection.
async fn closed_after(mut stream: TcpStream) -> (Duration, Vec<u8>) {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("not closed");
    (begun.elapsed(), rest)
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off_and_a_connection_without_one_is_not_kept() {
    let server = Server::limited(|limits| {
        limits.header_timeout = SHORT;
        limits.idle_timeout = 4 * SHORT;
    })
    .await;
    let connect = async || TcpStream::connect(server.address).await.unwrap();
    // A byte now and then.
    let mut stream = connect().await;
    let begun = Instant::now();
    let dripping = timeout(PATIENCE, async {
        for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nX: "
            .iter()
            .chain(std::iter::repeat(&b'y'))
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(SHORT / 10).await;
        }
    });
    dripping.await.expect("it may drip for ever");
    assert!(
        begun.elapsed() >= SHORT && begun.elapsed() < 4 * SHORT,
        "{:?}",
        begun.elapsed()
    );
    // Half a head and then nothing.
    let mut stream = connect().await;
    stream.write_all(b"GET /health HT").await.unwrap();
    let (after, rest) = closed_after(stream).await;
    assert!(rest.is_empty() && after >= SHORT / 2 && after < 4 * SHORT, "{after:?}");
    // Nothing at all, and nothing more.
    let (after, _) = closed_after(connect().await).await;
    assert!(after >= 3 * SHORT, "{after:?}");
    let mut stream = connect().await;
    for _ in 0..2 {
        sleep(2 * SHORT).await;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_reply(&mut stream).await.status, 200);
    }
    let (after, rest) = closed_after(stream).await;
    assert!(rest.is_empty() && after >= 3 * SHORT, "{after:?}");
}

#[tokio::test]
async fn a_body_that_drips_is_answered_and_cut_off() {
    let server = Server::limited(|limits| {
        limits.request_timeout = SHORT;
        limits.header_timeout = SHORT / 3;
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nContent-Length: 1000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    });
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, reading.read_to_end(&mut answer))
        .await
        .expect("not closed");
    assert!(begun.elapsed() >= SHORT / 2, "{:?}", begun.elapsed());
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains(&format!("allow-origin: {PAGE}")));
    timeout(PATIENCE, dripping)
        .await
        .expect("it may drip for ever")
        .unwrap();
}

#[tokio::test]
async fn sizes_of_bodies_and_heads_are_as_set() {
    let server = Server::limited(|limits| {
        limits.body_bytes = 300;
        limits.auth_body_bytes = 200;
        limits.headers = 10;
    })
    .await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let name = "x".repeat(250);
    check_failure(
        &http.post(&alice, "/api/chats", json!({ "name": name })).await,
        400,
        "fits",
    );
    check_failure(
        &http.post(&alice, "/api/chats", json!({ "name": name.repeat(2) })).await,
        413,
        "body",
    );
    check_failure(&try_login(&http, &name, "x", &[]).await, 413, "login");
    let many: String = (0..11).map(|number| format!("X-{number}: y\r\n")).collect();
    let request = format!("GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    assert_eq!(http.raw(request.as_bytes()).await.status, 431);
}

#[tokio::test]
async fn every_answer_carries_what_browsers_are_told() {
    let server = Server::limited(|limits| {
        limits.searches_per_user = only(1);
        limits.sockets = 1;
        limits.body_bytes = 100;
    })
    .await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let _socket = server.socket(&alice).await;
    let token = format!("Bearer {}", alice.token);
    let ws = format!("/ws?token={}", alice.token);
    let signed = [("Origin", PAGE), ("Authorization", token.as_str())];
    let upgrade = [
        ("Origin", PAGE),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let long = json!("x".repeat(200));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Headers<'_>, Option<&Value>, u16); 12] = [
        ("GET", "/health", &signed, None, 200),
        ("GET", "/api/auth/me", &signed, None, 200),
        ("GET", "/api/users/search?query=xx", &signed, None, 200),
        ("GET", "/api/users/search?query=xx", &signed, None, 429),
        ("POST", "/api/chats", &signed, Some(&json!([])), 422),
        ("POST", "/api/chats", &signed, Some(&long), 413),
        ("PUT", "/api/chats", &signed, None, 405),
        ("GET", "/api/chats/77", &signed, None, 404),
        ("GET", "/api/chats/77/messages", &signed, None, 403),
        ("GET", "/api/chats", &signed[..1], None, 401),
        ("GET", &ws, &signed, None, 426),
        ("GET", &ws, &upgrade, None, 503),
    ];
    for (method, path, headers, body, status) in cases {
        let reply = http.send(method, path, headers, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        check_safe(&reply);
    }
}

#[tokio::test]
async fn who_is_silent_is_pinged_and_who_does_not_answer_is_closed() {
    let every = Duration::from_millis(200);
    let server = Server::limited(|limits| limits.ping_every = every).await;
    let alice = server.person("alice").await;
    let mut answering = server.socket(&alice).await;
    let mut talking = raw(&server, &alice).await;
    let mut dead = raw(&server, &alice).await;
    let begun = Instant::now();
    let answers = tokio::spawn(async move {
        let mut pings = 0;
        while begun.elapsed() < 8 * every {
            // Its library answers while it is read.
            match answering.next_message().await {
                Some(Message::Ping(_)) => pings += 1,
                other => panic!("{other:?}"),
            }
        }
        (pings, answering)
    });
    // This one answers no ping, but it says something.
    let talk = tokio::spawn(async move {
        let mut seen = Vec::new();
        while begun.elapsed() < 8 * every {
            // A pong that was not asked for, masked with zeros.
            talking.write_all(b"\x8a\x80\0\0\0\0").await.unwrap();
            let _ = timeout(every / 2, talking.read_buf(&mut seen)).await;
        }
        seen
    });
    let mut seen = Vec::new();
    let dying = timeout(PATIENCE, async {
        while seen.len() < 8 {
            assert_ne!(dead.read_buf(&mut seen).await.unwrap(), 0);
        }
    });
    dying.await.expect("it is still open");
    let lived = begun.elapsed();
    assert!(lived >= 2 * every && lived < 6 * every, "{lived:?}");
    assert!(seen.starts_with(b"\x89\x00\x89\x00\x88"), "{seen:?}");
    assert_eq!(seen[6..8], 4_408_u16.to_be_bytes());
    let (pings, mut answering) = answers.await.unwrap();
    assert!((4..=9).contains(&pings), "{pings}");
    let talked = talk.await.unwrap();
    assert!(!talked.contains(&0x88), "it was closed: {talked:?}");
    answering.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_answers_while_forty_log_in_and_who_is_too_many_is_told_when_to_come_back() {
    let server = Server::start_as(Cost::default(), |api| api.limits(Limits::off()), None).await;
    let http = server.http();
    server.person("alice").await;
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let http = server.http();
            tokio::spawn(async move { try_login(&http, "alice", "password of mine", &[]).await })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    while logins.iter().any(|login| !login.is_finished()) {
        let begun = Instant::now();
        assert_eq!(http.send("GET", "/health", &[], None).await.status, 200);
        slowest = slowest.max(begun.elapsed());
        asked += 1;
    }
    assert!(
        asked > 3 && slowest < Duration::from_millis(1_500),
        "{asked} answers, the slowest after {slowest:?}"
    );
    let (mut in_time, mut too_many) = (0, 0);
    for login in logins {
        let reply = login.await.unwrap();
        match reply.status {
            200 => in_time += 1,
            503 => {
                assert_eq!(
                    (reply.header("retry-after"), reply.detail().as_str()),
                    (Some("2"), "too many logins at once")
                );
                too_many += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!(in_time > 0 && too_many > 0, "{in_time} in time, {too_many} too many");
}

/// Users who are never found, and never not found.
struct Away;

#[coop_core::async_trait]
impl UserStore for Away {
    async fn user(&self, _: UserId) -> coop_core::Result<Option<Account>> {
        std::future::pending().await
    }

    async fn user_by_name(&self, _: &str) -> coop_core::Result<Option<Account>> {
        std::future::pending().await
    }

    async fn create_user(&self, _: NewAccount) -> coop_core::Result<Account> {
        std::future::pending().await
    }

    async fn credentials(&self, _: &str) -> coop_core::Result<Option<(Account, String)>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_told_and_health_is_not_kept_by_it() {
    let there = Server::start().await;
    let alice = there.person("alice").await;
    let mut limits = Limits::off();
    (limits.request_timeout, limits.handshake_timeout) = (SHORT, SHORT);
    let engine = Engine::builder_with(MemoryStore::new(), Away)
        .password_cost(Cost::cheap_for_tests())
        .build()
        .await
        .unwrap();
    let api = Api::builder(engine).jwt_secret(SECRET).limits(limits).build().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, api).into_future());
    let http = Http::new(address);
    let account = json!({ "username": "bob", "email": "b@b.org", "password": "password of mine" });
    let begun = Instant::now();
    let (health, me, login, register, socket) = tokio::join!(
        http.send("GET", "/health", &[], None),
        http.get(&alice, "/api/auth/me"),
        http.send("POST", "/api/auth/login", &[], Some(&account)),
        http.send("POST", "/api/auth/register", &[], Some(&account)),
        Ws::try_open(address, Ws::request(address, &alice.token)),
    );
    assert_eq!(health.status, 200);
    for (what, reply) in [("me", me), ("login", login), ("register", register)] {
        check_failure(&reply, 503, what);
        assert_eq!(reply.header("retry-after"), Some("1"), "{what}");
    }
    assert_eq!(socket.map(|_| ()).unwrap_err(), 503);
    assert!(begun.elapsed() < 10 * SHORT, "{:?}", begun.elapsed());
}
