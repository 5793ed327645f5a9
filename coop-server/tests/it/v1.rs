//! `coop.v1` where a transcript cannot show it: who is let in, what each level gets, and how a connection ends.

use crate::client::{Person, Ws};
use crate::server::{SECRET, Server};
use coop_server::{Secret, TokenMaker};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

async fn open(server: &Server, person: &Person) -> Ws {
    let mut socket = Ws::open_in(server.address, &person.token, "coop.v1").await;
    assert_eq!(socket.next().await["type"], "ready", "the first of all");
    socket
}

async fn join(socket: &mut Ws, room: i64) -> Value {
    socket.send(json!({ "type": "join", "room": room, "ref": 1 })).await;
    let snapshot = socket.of_type("snapshot").await;
    socket.of_type("ok").await;
    snapshot
}

/// The next frame of this kind of event; others are skipped.
async fn event(socket: &mut Ws, kind: &str) -> Value {
    loop {
        let frame = socket.of_type("event").await;
        if frame["kind"] == kind {
            return frame;
        }
    }
}

fn request(server: &Server, query: &str, headers: &[(&'static str, &str)]) -> Request {
    let url = format!("ws://{}/ws{query}", server.address);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

const PROTOCOL: &str = "sec-websocket-protocol";

#[tokio::test]
async fn a_token_may_come_three_ways_and_a_bad_one_is_refused_beforehand() {
    let server = Server::start().await;
    let token = server.person("alice").await.token;
    let bearer = format!("Bearer {token}");
    let among = format!("coop.v1, bearer.{token}");
    let query = format!("?token={token}");
    for (query, headers) in [
        ("", vec![(PROTOCOL, "coop.v1"), ("authorization", bearer.as_str())]),
        ("", vec![(PROTOCOL, among.as_str())]),
        (query.as_str(), vec![(PROTOCOL, "coop.v1")]),
        // In its header it goes before the others.
        (
            "?token=nonsense",
            vec![
                (PROTOCOL, "coop.v1, bearer.nonsense"),
                ("authorization", bearer.as_str()),
            ],
        ),
    ] {
        let mut socket = Ws::try_open(server.address, request(&server, query, &headers))
            .await
            .unwrap();
        assert!(socket.speaks_v1());
        assert_eq!(socket.next().await["user"]["name"], "alice");
    }
    for (query, headers) in [
        ("", vec![(PROTOCOL, "coop.v1")]),
        ("?token=nonsense", vec![(PROTOCOL, "coop.v1")]),
        ("", vec![(PROTOCOL, "coop.v1, bearer.nonsense")]),
        (
            query.as_str(),
            vec![(PROTOCOL, "coop.v1"), ("authorization", "Bearer nonsense")],
        ),
    ] {
        let refused = Ws::try_open(server.address, request(&server, query, &headers)).await;
        assert_eq!(refused.err(), Some(401), "{headers:?}");
    }
    let among_others = Ws::try_open(
        server.address,
        request(&server, &query, &[(PROTOCOL, "chat, coop.v1 , x")]),
    );
    assert_eq!(among_others.await.unwrap().next().await["type"], "ready");
    // What is not known is not answered: whoever must have it goes away, and others speak the first dialect.
    let raw = format!(
        "GET /ws?token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
    let answered = server.http().raw(raw.as_bytes()).await;
    assert_eq!((answered.status, answered.header(PROTOCOL)), (101, None));
}

#[tokio::test]
async fn everything_of_joined_rooms_and_events_of_the_others() {
    let server = Server::start().await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let room = server.http().group(&anne, "lab", &[&bob]).await;
    let (mut a, mut b) = (open(&server, &anne).await, open(&server, &bob).await);
    join(&mut a, room).await;
    a.send(json!({ "type": "send", "room": room, "text": "/bot tell", "ref": 2 }))
        .await;
    let sent = a.of_type("ok").await;
    assert!(sent["message"].is_i64() && sent["turn"].is_i64());
    event(&mut a, "turn_started").await;
    server.piece("one ");
    let piece = a.of_type("delta").await;
    assert_eq!((&piece["offset"], &piece["text"]), (&json!(0), &json!("one ")));
    server.piece("two");
    server.done();
    let end = event(&mut a, "turn_ended").await;
    assert_eq!(
        (&end["end"], end.get("text")),
        (&json!(7), None),
        "it was told in pieces"
    );
    // Elsewhere there are no pieces, so the end has them all.
    for kind in ["message_posted", "turn_queued", "turn_started"] {
        assert_eq!(b.next().await["kind"], kind);
    }
    let end = b.next().await;
    assert_eq!((&end["kind"], &end["text"]), (&json!("turn_ended"), &json!("one two")));
}

#[tokio::test]
async fn a_late_joiner_and_a_resumed_one_go_on_in_the_middle() {
    let server = Server::start().await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let room = server.http().group(&anne, "lab", &[&bob]).await;
    let mut a = open(&server, &anne).await;
    let epoch = join(&mut a, room).await["epoch"].clone();
    a.send(json!({ "type": "send", "room": room, "text": "/bot tell" }))
        .await;
    let started = event(&mut a, "turn_started").await;
    let (answer, seq) = (started["message"]["id"].clone(), started["seq"].clone());
    server.piece("größ");
    a.of_type("delta").await;
    drop(a);
    let mut b = open(&server, &bob).await;
    let snapshot = join(&mut b, room).await;
    assert_eq!(
        snapshot["tapes"],
        json!([{ "message": answer, "end": 6, "text": "größ" }])
    );
    server.piece("er");
    assert_eq!(b.of_type("delta").await["offset"], 6);
    let resume = |end: u64| {
        let position = json!({ "epoch": epoch, "seq": seq, "tapes": { answer.to_string(): end } });
        json!({ "type": "resume", "rooms": { room.to_string(): position }, "ref": 9 })
    };
    // From where it was; from inside a character, and from where nobody has written: anew.
    for (held, offset) in [(6, Some(6)), (0, Some(0)), (3, None), (100, None)] {
        let mut a = open(&server, &anne).await;
        a.send(resume(held)).await;
        match offset {
            Some(offset) => assert_eq!(a.of_type("delta").await["offset"], offset, "{held}"),
            None => {
                let snapshot = a.of_type("snapshot").await;
                assert_eq!(snapshot["tapes"][0]["text"], "größer", "{held}");
            }
        }
        a.of_type("ok").await;
    }
    // Who had all pieces hears where it ends; who was away when the last ones came hears the text.
    server.done();
    assert_eq!(event(&mut b, "turn_ended").await["end"], 8);
    let mut a = open(&server, &anne).await;
    a.send(resume(6)).await;
    assert_eq!(event(&mut a, "turn_ended").await["text"], "größer");
}

#[tokio::test]
async fn who_is_sent_away_hears_it_and_nothing_more() {
    let server = Server::start().await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let room = server.http().group(&anne, "lab", &[&bob]).await;
    let (mut a, mut b) = (open(&server, &anne).await, open(&server, &bob).await);
    join(&mut a, room).await;
    join(&mut b, room).await;
    let path = format!("/api/chats/{room}/participants/{}", bob.id);
    assert_eq!(server.http().delete(&anne, &path).await.status, 200);
    let gone = b.of_type("gone").await;
    assert_eq!(
        (&gone["room"], &gone["reason"], &gone["by"]),
        (&json!(room), &json!("removed"), &json!(anne.id))
    );
    a.send(json!({ "type": "send", "room": room, "text": "secret" })).await;
    event(&mut a, "message_posted").await;
    for command in ["join", "typing"] {
        b.send(json!({ "type": command, "room": room, "ref": 5 })).await;
        let refused = b.next().await;
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!("not_found")),
            "{refused}"
        );
    }
    assert_eq!(b.rest().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends() {
    let server = Server::start_with(|api| api.token_ttl(Duration::from_secs(2)), None).await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let (mut a, mut b) = (open(&server, &anne).await, open(&server, &bob).await);
    let secret = Secret::new(SECRET).unwrap();
    let account = server.engine.user(anne.id.into()).await.unwrap().account().clone();
    let longer = TokenMaker::new(&secret, Duration::from_secs(60))
        .make(&account)
        .unwrap();
    // Another's token is none.
    a.send(json!({ "type": "token", "token": bob.token, "ref": 1 })).await;
    assert_eq!(a.of_type("error").await["code"], "unauthorized");
    a.send(json!({ "type": "token", "token": longer, "ref": 2 })).await;
    assert_eq!(a.of_type("ok").await["ref"], 2);
    assert_eq!(b.of_type("bye").await["code"], 4401);
    assert_eq!(b.close_code().await, Some(4401));
    a.send(json!({ "type": "leave", "room": 1, "ref": 3 })).await;
    assert_eq!(a.of_type("ok").await["ref"], 3);
}

/// Each reads the room anew.
#[tokio::test]
async fn only_so_many_rooms_are_joined_at_a_time() {
    let server = Server::limited(|limits| {
        limits.frames_per_socket.burst = NonZeroU32::new(3).unwrap();
        limits.frames_per_socket.every = Duration::from_secs(60);
    })
    .await;
    let anne = server.person("anne").await;
    let room = server.http().group(&anne, "lab", &[]).await;
    let mut socket = open(&server, &anne).await;
    for number in 0..5 {
        socket
            .send(json!({ "type": "join", "room": room, "ref": number }))
            .await;
    }
    socket.send(json!({ "type": "leave", "room": 0, "ref": 9 })).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &Value| last["ref"] != 9) {
        told.push(socket.next().await);
    }
    let of = |kind: &str| told.iter().filter(|frame| frame["type"] == kind).count();
    assert_eq!((of("snapshot"), of("error"), of("ok")), (3, 2, 4), "{told:?}");
    let refused = told.iter().find(|frame| frame["type"] == "error").unwrap();
    assert_eq!(
        (&refused["code"], refused["retry_after_ms"].is_u64()),
        (&json!("rate_limited"), true)
    );
}

#[tokio::test]
async fn how_a_connection_ends() {
    let mut server = Server::limited(|limits| {
        limits.errors_per_socket.burst = NonZeroU32::new(3).unwrap();
        limits.errors_per_socket.every = Duration::from_secs(60);
    })
    .await;
    let anne = server.person("anne").await;
    let mut unruly = open(&server, &anne).await;
    for _ in 0..4 {
        unruly.send_text("nonsense").await;
    }
    assert_eq!(unruly.of_type("bye").await["code"], 4400);
    assert_eq!(unruly.close_code().await, Some(4400));
    let mut logged_out = open(&server, &anne).await;
    let user = server.engine.user(anne.id.into()).await.unwrap();
    user.log_out_everywhere().await.unwrap();
    let bye = logged_out.of_type("bye").await;
    assert_eq!((&bye["code"], bye.get("retry_after_ms")), (&json!(4401), None));
    assert_eq!(logged_out.close_code().await, Some(4401));
    let anne = server.http().log_in("anne").await;
    let mut last = open(&server, &anne).await;
    server.end();
    let bye = last.of_type("bye").await;
    assert_eq!((&bye["code"], bye["retry_after_ms"].is_u64()), (&json!(4503), true));
    assert_eq!(last.close_code().await, Some(4503));
}

#[tokio::test]
async fn a_list_of_rooms_has_the_beginning_of_what_was_said_last() {
    let server = Server::start().await;
    let anne = server.person("anne").await;
    let room = server.http().group(&anne, "lab", &[]).await;
    let long = json!({ "text": "é".repeat(20_000), "meta": { "colour": "red" } });
    server
        .http()
        .post(&anne, &format!("/api/rooms/{room}/messages"), long)
        .await;
    let mut socket = Ws::open_in(server.address, &anne.token, "coop.v1").await;
    let last = socket.next().await["rooms"][0]["last_message"].clone();
    assert_eq!(
        (last["text"].as_str().unwrap(), last.get("meta")),
        ("é".repeat(150).as_str(), None)
    );
    let whole = join(&mut socket, room).await["messages"][0]["text"].clone();
    assert_eq!(whole, "é".repeat(20_000));
}
