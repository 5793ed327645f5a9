//! HTTP itself: limits, malformed requests, CORS, tokens, and what every failure has in common.

use crate::client::{PATIENCE, Reply, read_reply};
use crate::server::{PAGE, Server};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) fn check_failure(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    assert!(!reply.detail().is_empty(), "{what}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
}

#[tokio::test]
async fn what_is_not_there() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    check_failure(&http.get(&alice, "/api/nothing").await, 404, "path");
    check_failure(&http.get(&alice, "/api/nothing/").await, 404, "path");
    for (path, to) in [
        ("/api/chats/", "/api/chats"),
        ("/api/chats/1/messages/?limit=5", "/api/chats/1/messages?limit=5"),
    ] {
        let moved = http.get(&alice, path).await;
        check_failure(&moved, 307, path);
        assert_eq!(moved.header("location"), Some(to));
    }
    for path in ["//api/chats/", "//evil.example/", "/api/chats//"] {
        check_failure(&http.get(&alice, path).await, 404, path);
    }
    check_failure(&http.get(&alice, "/api/chats/1/messages").await, 403, "room");
    check_failure(&http.get(&alice, "/api/chats/1").await, 404, "room");
    check_failure(&http.get(&alice, "/api/chats/-1").await, 404, "room");
    for id in ["x", "1.5", "99999999999999999999", "%31x", "1'--"] {
        check_failure(&http.get(&alice, &format!("/api/chats/{id}")).await, 422, id);
    }
    let wrong = http.send("PUT", "/api/chats/1", &[], None).await;
    check_failure(&wrong, 405, "method");
    assert_eq!(wrong.header("allow"), Some("GET, DELETE"));
    let health = http.send("GET", "/health", &[], None).await;
    assert_eq!(health.json(), json!({ "status": "healthy" }));
    assert_eq!(http.send("GET", "/ready", &[], None).await.status, 200);
}

#[tokio::test]
async fn no_route_but_the_open_ones_without_a_token() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let routes = [
        ("GET", "/api/auth/me"),
        ("GET", "/api/users/search?query=al"),
        ("GET", "/api/chats"),
        ("POST", "/api/chats"),
        ("GET", "/api/chats/1"),
        ("DELETE", "/api/chats/1"),
        ("GET", "/api/chats/1/messages"),
        ("GET", "/api/chats/1/read-receipts"),
        ("POST", "/api/chats/1/mark-read"),
        ("GET", "/api/chats/1/participants"),
        ("POST", "/api/chats/1/invite"),
        ("POST", "/api/chats/1/leave"),
        ("DELETE", "/api/chats/1/participants/1"),
    ];
    let cut = format!("Bearer {}", &alice.token[..alice.token.len() - 1]);
    let good = alice.token.as_str();
    for (method, path) in routes {
        for authorization in [
            "",
            "Bearer",
            "Bearer ",
            "Basic YWxpY2U6eA==",
            &cut,
            good,
            "Bearer a.b.c",
        ] {
            let reply = http.send(method, path, &[("Authorization", authorization)], None).await;
            check_failure(&reply, 401, &format!("{method} {path} {authorization}"));
        }
        check_failure(&http.send(method, path, &[], None).await, 401, path);
        // In the query it means nothing here.
        let query = if path.contains('?') { "&" } else { "?" };
        let reply = http
            .send(method, &format!("{path}{query}token={good}"), &[], None)
            .await;
        check_failure(&reply, 401, path);
    }
}

#[tokio::test]
async fn bad_bodies() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let register = "/api/auth/register";
    for (body, status) in [
        (json!({}), 422),
        (json!([]), 422),
        (json!("x"), 422),
        (
            json!({ "username": 5, "email": "a@b.org", "password": "password of mine" }),
            422,
        ),
        (
            json!({ "username": "", "email": "a@b.org", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "a b", "email": "a@b.org", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "admin", "email": "a@b.org", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "gemini-ai", "email": "a@b.org", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "teller", "email": "a@b.org", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "bob", "email": "nowhere", "password": "password of mine" }),
            400,
        ),
        (
            json!({ "username": "bob", "email": "bob@example.org", "password": "short" }),
            400,
        ),
        (
            json!({ "username": "bob", "email": "bob@example.org", "password": "x".repeat(200) }),
            400,
        ),
        (
            json!({ "username": "bob", "email": "bob@example.org", "password": "x".repeat(5_000) }),
            413,
        ),
    ] {
        let reply = http.send("POST", register, &[], Some(&body)).await;
        check_failure(&reply, status, &body.to_string());
    }
    let host = format!("Host: {}\r\nAuthorization: Bearer {}\r\n", server.address, alice.token);
    for body in ["", "{", "nul", "{\"name\":\"\\ud800\"}", "\u{0}"] {
        let length = body.len();
        let request = format!("POST /api/chats HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n{body}");
        check_failure(&http.raw(request.as_bytes()).await, 422, body);
    }
    for (path, body, status) in [
        ("/api/chats", json!({ "name": "x".repeat(101) }), 400),
        ("/api/chats", json!({ "name": "a\u{7}b" }), 400),
        ("/api/chats", json!({ "participant_usernames": "bob" }), 422),
        (
            "/api/chats",
            json!({ "participant_usernames": (0..1_001).map(|n| format!("u{n}")).collect::<Vec<_>>() }),
            413,
        ),
        ("/api/chats", json!({ "name": "x".repeat(300_000) }), 413),
        ("/api/chats/1/invite", json!({ "username": "bob" }), 404),
        ("/api/chats/1/invite", json!({ "name": "bob" }), 422),
    ] {
        check_failure(&http.post(&alice, path, body).await, status, path);
    }
    check_failure(&http.get(&alice, "/api/users/search").await, 422, "search");
    check_failure(
        &http.get(&alice, "/api/users/search?query=x&limit=y").await,
        422,
        "search",
    );
    check_failure(&http.get(&alice, "/api/users/search?query=%ff").await, 422, "search");
}

#[tokio::test]
async fn heads_that_two_programs_may_read_in_two_ways_are_refused() {
    let server = Server::start().await;
    let http = server.http();
    let chunked = "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let both =
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for request in [chunked, both] {
        let reply = http.raw(request.as_bytes()).await;
        check_failure(&reply, 411, request);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    check_failure(&http.raw(b"GET /health HTTP/1.1\r\n\r\n").await, 400, "no host");
    check_failure(
        &http.raw(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await,
        400,
        "two hosts",
    );
    assert_eq!(http.raw(b"GET /health HTTP/1.0\r\n\r\n").await.status, 200);
    let many: String = (0..70).map(|number| format!("X-{number}: y\r\n")).collect();
    let reply = http
        .raw(format!("GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes())
        .await;
    assert_eq!(reply.status, 431);
    let long = "y".repeat(17_000);
    let reply = http
        .raw(format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(reply.status, 431);
}

#[tokio::test]
async fn a_closed_connection_is_closed_and_a_kept_one_is_kept() {
    let server = Server::start().await;
    let all = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        for _ in 0..3 {
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(read_reply(&mut stream).await.status, 200);
        }
        let chunked = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        stream.write_all(chunked).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status, 411);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    });
    all.await.unwrap();
}

#[tokio::test]
async fn pages_of_the_list_may_call_and_are_told_errors_too() {
    let server = Server::start().await;
    let http = server.http();
    let asked = [
        ("Origin", PAGE),
        ("Access-Control-Request-Method", "DELETE"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    for path in ["/api/auth/login", "/api/chats/1/participants/2", "/api/nothing"] {
        let reply = http.send("OPTIONS", path, &asked, None).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
        assert!(reply.header("access-control-allow-methods").unwrap().contains("DELETE"));
        let headers = reply.header("access-control-allow-headers").unwrap();
        assert!(headers.contains("authorization") && headers.contains("content-type"));
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
    for (path, status) in [
        ("/health", 200),
        ("/api/chats", 401),
        ("/api/nothing", 404),
        ("/ws?token=x", 403),
    ] {
        let reply = http.send("GET", path, &[("Origin", PAGE)], None).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE), "{path}");
        assert_eq!(reply.header("vary"), Some("Origin"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    let chunked =
        format!("POST /api/chats HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let reply = http.raw(chunked.as_bytes()).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
    for origin in [
        "http://localhost:3002",
        "https://localhost:3000",
        "null",
        "http://localhost:3000.evil.example",
    ] {
        let refused = http
            .send("OPTIONS", "/api/chats", &[("Origin", origin), asked[1]], None)
            .await;
        assert_eq!(refused.status, 400, "{origin}");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        let reply = http.send("GET", "/health", &[("Origin", origin)], None).await;
        assert_eq!(
            (reply.status, reply.header("access-control-allow-origin")),
            (200, None),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn registration_can_be_closed() {
    let server = Server::start_with(|api| api.registration(false), None).await;
    let account = json!({ "username": "alice", "email": "a@b.org", "password": "password of mine" });
    let reply = server
        .http()
        .send("POST", "/api/auth/register", &[], Some(&account))
        .await;
    check_failure(&reply, 403, "closed");
}

#[tokio::test]
async fn a_token_ends() {
    let server = Server::start_with(|api| api.token_ttl(Duration::from_secs(2)), None).await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let mut socket = server.socket(&alice).await;
    assert_eq!(socket.close_code().await, Some(4401));
    let ended = timeout(PATIENCE, async {
        while http.get(&alice, "/api/auth/me").await.status == 200 {}
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_server() {
    let mut server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut socket = server.socket(&alice).await;
    socket.join(room).await;
    socket.say(room, "/bot tell").await;
    server.piece("unfinished");
    socket.answer("unfinished").await;
    server.end();
    // The answer is ended with what it has, and only then the socket.
    let end = socket.of_type("bot_stream").await;
    assert_eq!(
        (&end["message"]["content"], &end["message"]["status"]),
        (&json!("unfinished"), &json!("interrupted"))
    );
    assert_eq!(socket.close_code().await, Some(1012));
    timeout(PATIENCE, server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    let _: Value = end;
}
