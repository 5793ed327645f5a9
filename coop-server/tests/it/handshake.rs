//! The handshake of a socket, byte by byte: what opens one, and what is answered to everything else.

use crate::http::check_failure;
use crate::server::{PAGE, Server};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UP: &str = "Connection: Upgrade|Upgrade: websocket";
const V13: &str = "Sec-WebSocket-Version: 13";

#[tokio::test]
async fn what_opens_a_socket_and_what_does_not() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let own = format!("Origin: http://{}", server.address);
    let page = format!("Origin: {PAGE}");
    let cases: &[(&str, &[&str], u16)] = &[
        ("GET / HTTP/1.1", &[UP, V13, KEY], 101),
        (
            "GET / HTTP/1.1",
            &["Connection: keep-alive, UPGRADE|Upgrade: WebSocket", V13, KEY],
            101,
        ),
        ("GET / HTTP/1.1", &[UP, V13, KEY, &page], 101),
        ("GET / HTTP/1.1", &[UP, V13, KEY, &own], 101),
        (
            "GET / HTTP/1.1",
            &[UP, V13, KEY, "Sec-WebSocket-Extensions: permessage-deflate"],
            101,
        ),
        // Methods and versions.
        ("POST / HTTP/1.1", &[UP, V13, KEY, "Content-Length: 0"], 405),
        ("HEAD / HTTP/1.1", &[UP, V13, KEY], 400),
        ("GET / HTTP/1.0", &[UP, V13, KEY], 400),
        // The upgrade.
        ("GET / HTTP/1.1", &[V13, KEY], 426),
        ("GET / HTTP/1.1", &["Connection: Upgrade", V13, KEY], 426),
        ("GET / HTTP/1.1", &["Upgrade: websocket", V13, KEY], 426),
        ("GET / HTTP/1.1", &["Connection: Upgrade|Upgrade: h2c", V13, KEY], 426),
        (
            "GET / HTTP/1.1",
            &["Connection: close|Upgrade: websocket", V13, KEY],
            426,
        ),
        // The version.
        ("GET / HTTP/1.1", &[UP, KEY], 426),
        ("GET / HTTP/1.1", &[UP, KEY, "Sec-WebSocket-Version: 8"], 426),
        ("GET / HTTP/1.1", &[UP, KEY, "Sec-WebSocket-Version: 13, 8"], 426),
        ("GET / HTTP/1.1", &[UP, KEY, V13, V13], 426),
        // The key.
        ("GET / HTTP/1.1", &[UP, V13], 400),
        ("GET / HTTP/1.1", &[UP, V13, KEY, KEY], 400),
        ("GET / HTTP/1.1", &[UP, V13, "Sec-WebSocket-Key:"], 400),
        ("GET / HTTP/1.1", &[UP, V13, "Sec-WebSocket-Key: c2hvcnQ="], 400),
        (
            "GET / HTTP/1.1",
            &[UP, V13, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE="],
            400,
        ),
        (
            "GET / HTTP/1.1",
            &[UP, V13, "Sec-WebSocket-Key: ????????????????????????"],
            400,
        ),
        // Where it comes from.
        ("GET / HTTP/1.1", &[UP, V13, KEY, "Origin: null"], 403),
        ("GET / HTTP/1.1", &[UP, V13, KEY, "Origin:"], 403),
        ("GET / HTTP/1.1", &[UP, V13, KEY, "Origin: http://evil.example"], 403),
        (
            "GET / HTTP/1.1",
            &[UP, V13, KEY, "Origin: http://localhost:3000.evil.example"],
            403,
        ),
        ("GET / HTTP/1.1", &[UP, V13, KEY, "Origin: http://localhost"], 403),
        (
            "GET / HTTP/1.1",
            &[UP, V13, KEY, &page, "Origin: http://evil.example"],
            403,
        ),
    ];
    for (line, headers, status) in cases {
        let line = line.replace(" / ", &format!(" /ws?token={} ", alice.token));
        let headers = headers.join("|").replace('|', "\r\n");
        let request = format!("{line}\r\nHost: {}\r\n{headers}\r\n\r\n", server.address);
        let what = request.replace(&alice.token, "TOKEN");
        if *status == 400 && request.starts_with("HEAD") {
            // Its answer has no body to be checked.
            assert_eq!(http.raw_head(request.as_bytes()).await, 400, "{what}");
            continue;
        }
        let reply = http.raw(request.as_bytes()).await;
        if *status == 101 {
            assert_eq!(reply.status, 101, "{what}");
            assert_eq!(
                reply.header("sec-websocket-accept"),
                Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            );
            assert_eq!(reply.header("sec-websocket-extensions"), None, "none is offered");
        } else {
            check_failure(&reply, *status, &what);
        }
        if *status == 426 && what.contains("Version") && what.contains(UP.split('|').next().unwrap()) {
            assert!(reply.header("upgrade").is_some() || reply.header("sec-websocket-version") == Some("13"));
        }
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_before_anything_is_opened() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let headers = format!("{UP}|{V13}|{KEY}").replace('|', "\r\n");
    let token = alice.token.as_str();
    for (query, status) in [
        (format!("?token={token}"), 101),
        (format!("?a=b&token={token}&c"), 101),
        (format!("?t%6fken={token}"), 101),
        (String::new(), 403),
        ("?token=".to_owned(), 403),
        ("?token=a.b.c".to_owned(), 403),
        ("?token=%ff".to_owned(), 403),
        (format!("?Token={token}"), 403),
        (format!("?token=x&token={token}"), 403),
        (format!("?token={token}x"), 403),
        (format!("?token={}", "x".repeat(9_000)), 403),
    ] {
        let request = format!("GET /ws{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
        let reply = http.raw(request.as_bytes()).await;
        assert_eq!(reply.status, status, "{query}");
        if status != 101 {
            check_failure(&reply, status, &query);
            assert!(!reply.body.contains(token), "{query}");
        }
    }
    // In a header it is not looked for: a page cannot set one, and a token in two places is one too many.
    let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{headers}\r\n\r\n");
    assert_eq!(http.raw(request.as_bytes()).await.status, 403);
}
