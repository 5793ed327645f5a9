//! What no good client sends: every answer is one clear sentence with the right status, the connection goes on, and
//! many who want the same at once get it once.

use crate::client::{PATIENCE, Person, read_reply};
use crate::server::Server;
use serde_json::json;
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends all of these over one connection and checks the status and the words of each answer.
async fn refused(server: &Server, who: &Person, requests: Vec<(&str, String, Vec<u8>, &[u16])>) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for (method, path, body, expected) in requests {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            who.token,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let reply = timeout(PATIENCE, read_reply(&mut stream)).await.expect("no answer");
        let what = format!(
            "{method} {path} {}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
        assert!(expected.contains(&reply.status), "{what}: {reply:?}");
        assert!(!reply.detail().is_empty(), "{what}");
    }
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_reply(&mut stream).await.status, 200);
}

/// Bodies that are no object of any route.
fn nonsense() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "{",
        "}",
        "nul",
        "null",
        "true",
        "5",
        "[]",
        "\"x\"",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":NaN}",
        "\u{feff}{}",
        "{}{}",
        "{\"username\":\"\\ud800\",\"name\":\"\\ud800\"}",
        "{\"username\":[],\"name\":[]}",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"name\":\"\xff\",\"username\":\"\xff\"}".to_vec());
    bodies.push("[".repeat(3_000).into_bytes());
    bodies.push(format!("{{\"name\":{}", "{\"a\":".repeat(600)).into_bytes());
    bodies
}

#[tokio::test]
async fn bodies_that_are_not_what_a_route_wants() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut requests = Vec::new();
    for path in [
        "/api/auth/register".to_owned(),
        "/api/auth/login".to_owned(),
        "/api/chats".to_owned(),
        format!("/api/chats/{room}/invite"),
    ] {
        for body in nonsense() {
            requests.push(("POST", path.clone(), body, &[422][..]));
        }
    }
    for body in [
        json!({ "name": 5 }),
        json!({ "name": ["x"] }),
        json!({ "is_group": "yes" }),
        json!({ "is_group": 1 }),
        json!({ "is_group": null }),
        json!({ "is_ai_chat": {} }),
        json!({ "participant_usernames": "bob" }),
        json!({ "participant_usernames": [5] }),
        json!({ "participant_usernames": { "0": "bob" } }),
        json!({ "participant_usernames": [null] }),
    ] {
        requests.push(("POST", "/api/chats".into(), body.to_string().into(), &[422]));
    }
    for body in [
        json!({ "username": 5 }),
        json!({ "username": null }),
        json!({ "user": "bob" }),
    ] {
        requests.push((
            "POST",
            format!("/api/chats/{room}/invite"),
            body.to_string().into(),
            &[422],
        ));
        requests.push(("POST", "/api/auth/login".into(), body.to_string().into(), &[422]));
    }
    for name in ["", " ", "no\u{0}body", "\u{202e}", &"x".repeat(4_000), "%", "'; --"] {
        let body = json!({ "username": name }).to_string();
        requests.push(("POST", format!("/api/chats/{room}/invite"), body.into(), &[404, 400]));
    }
    refused(&server, &alice, requests).await;
}

#[tokio::test]
async fn ids_and_numbers_that_are_none() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut requests = Vec::new();
    let routes = [
        ("GET", "/api/chats/{}"),
        ("DELETE", "/api/chats/{}"),
        ("GET", "/api/chats/{}/messages"),
        ("GET", "/api/chats/{}/participants"),
        ("GET", "/api/chats/{}/read-receipts"),
        ("POST", "/api/chats/{}/mark-read"),
        ("POST", "/api/chats/{}/leave"),
        ("DELETE", "/api/chats/{}/participants/1"),
    ];
    for (method, route) in routes {
        for id in [
            "x",
            "1.0",
            "1e3",
            "0x1",
            "%00",
            "%ff",
            "undefined",
            "NaN",
            "9223372036854775808",
            "1%20",
        ] {
            requests.push((method, route.replace("{}", id), Vec::new(), &[422][..]));
        }
        for id in [
            "0",
            "-1",
            "-9223372036854775808",
            "9223372036854775807",
            "9007199254740993",
        ] {
            requests.push((method, route.replace("{}", id), Vec::new(), &[403, 404]));
        }
    }
    for id in ["x", "1.0", "9223372036854775808"] {
        requests.push((
            "DELETE",
            format!("/api/chats/{room}/participants/{id}"),
            Vec::new(),
            &[422],
        ));
    }
    for id in ["0", "-1", "9223372036854775807"] {
        requests.push((
            "DELETE",
            format!("/api/chats/{room}/participants/{id}"),
            Vec::new(),
            &[404],
        ));
    }
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1.5",
        "limit=4294967296",
        "limit=x",
        "limit=",
        "limit=%ff",
        "before=x",
        "after=9223372036854775808",
        "before=1&after=2",
    ] {
        requests.push(("GET", format!("/api/chats/{room}/messages?{query}"), Vec::new(), &[422]));
    }
    for query in [
        "",
        "limit=5",
        "query=ab&limit=x",
        "query=ab&limit=-1",
        "query=%ff%fe",
        "query=ab&limit=99999999999",
    ] {
        requests.push(("GET", format!("/api/users/search?{query}"), Vec::new(), &[422]));
    }
    refused(&server, &alice, requests).await;
    // Out of range, but there is an answer.
    for query in [
        "limit=4294967295",
        "before=-1",
        "after=9223372036854775807",
        "before=0&limit=200",
    ] {
        let reply = server
            .http()
            .get(&alice, &format!("/api/chats/{room}/messages?{query}"))
            .await;
        assert_eq!((reply.status, reply.json()), (200, json!([])), "{query}");
    }
    for query in [
        "query=%25%25",
        "query=__",
        "query=ab&limit=0",
        "query=ab&limit=4294967295",
        "query=%00%00",
    ] {
        let reply = server.http().get(&alice, &format!("/api/users/search?{query}")).await;
        assert_eq!((reply.status, reply.json()), (200, json!([])), "{query}");
    }
}

#[tokio::test]
async fn frames_that_are_not_what_a_room_wants() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let room = server.http().group(&alice, "lab", &[]).await;
    let mut a = server.socket(&alice).await;
    let deep = format!(
        "{{\"type\":\"message\",\"chat_id\":{room},\"content\":{}",
        "[".repeat(50_000)
    );
    let (object, known, text) = ("Not a JSON object", "Not authorized", "content must be a text");
    let mut frames = vec![
        (deep, object),
        (format!("{{\"a\":{}", "{\"a\":".repeat(20_000)), object),
    ];
    for frame in [
        "",
        " ",
        "{",
        "[]",
        "null",
        "\"join\"",
        "5",
        "{}{}",
        "{\"type\":\"join\"",
        "\u{0}",
    ] {
        frames.push((frame.to_owned(), object));
    }
    for id in [
        "\"1\"",
        "1.5",
        "1e30",
        "-1",
        "0",
        "null",
        "[1]",
        "9223372036854775808",
        "{}",
        "true",
    ] {
        for kind in ["join", "typing", "message"] {
            frames.push((format!(r#"{{"type":"{kind}","chat_id":{id},"content":"x"}}"#), known));
        }
    }
    for content in ["5", "null", "[]", "{}", "true", r#""\ud800""#, r#""\ude00\ud83d""#] {
        frames.push((
            format!(r#"{{"type":"message","chat_id":{room},"content":{content}}}"#),
            text,
        ));
    }
    let message = |content: &str| format!(r#"{{"type":"message","chat_id":{room},"content":"{content}"}}"#);
    frames.push((message("a\\u0000b"), "a message may not have a NUL character"));
    frames.push((
        message(&"x".repeat(65_537)),
        "a message may have at most 64 KiB of text",
    ));
    // More refusals in a minute than these would end the connection sooner or later; each has a few.
    for frames in frames.chunks(15) {
        for (frame, words) in frames {
            a.send_text(frame).await;
            let shown = &frame[..frame.len().min(80)];
            assert_eq!(a.next().await, json!({ "error": words }), "{shown}");
        }
        // Means nothing, says nothing, and the connection goes on.
        for frame in [
            r#"{}"#,
            r#"{"type":5}"#,
            r#"{"type":"\ud800"}"#,
            r#"{"type":"dance","chat_id":"x"}"#,
        ] {
            a.send_text(frame).await;
        }
        a.say(room, "still here").await;
        assert_eq!(a.next().await["message"]["content"], "still here");
        a = server.socket(&alice).await;
    }
}

/// How often each status and its words came.
async fn tally(
    replies: impl Iterator<Item = impl Future<Output = crate::client::Reply>>,
) -> BTreeMap<(u16, String), u32> {
    let mut tally = BTreeMap::new();
    for reply in futures::future::join_all(replies).await {
        let words = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        *tally.entry((reply.status, words)).or_default() += 1;
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_register_the_same_at_once() {
    let server = Server::start().await;
    let http = server.http();
    let register = |name: String, email: String| async move {
        let account = json!({ "username": name, "email": email, "password": "password of mine" });
        http.send("POST", "/api/auth/register", &[], Some(&account)).await
    };
    let same_name = (0..8).map(|number| register("alice".into(), format!("{number}@example.org")));
    let words = |words: &str| words.to_owned();
    assert_eq!(
        tally(same_name).await,
        BTreeMap::from([((200, words("")), 1), ((400, words("Username already registered")), 7)])
    );
    let same_address = (0..8).map(|number| register(format!("bob{number}"), "bob@example.org".into()));
    assert_eq!(
        tally(same_address).await,
        BTreeMap::from([((200, words("")), 1), ((400, words("Email already registered")), 7)])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_invite_the_same_at_once() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let mut b = server.socket(&bob).await;
    b.settle().await;
    let room = http.group(&alice, "lab", &[]).await;
    let path = format!("/api/chats/{room}/invite");
    let invite = (0..8).map(|_| http.post(&alice, &path, json!({ "username": "bob" })));
    assert_eq!(tally(invite).await, BTreeMap::from([((200, String::new()), 8)]));
    let members = http.get(&bob, &format!("/api/chats/{room}/participants")).await.json();
    assert_eq!(members.as_array().unwrap().len(), 2);
    let told = b.rest().await;
    let kinds: Vec<_> = told.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["chat_invite"]);
    // And gone once, however many send him away.
    let path = format!("/api/chats/{room}/participants/{}", bob.id);
    let remove = (0..8).map(|_| http.delete(&alice, &path));
    let words = "User is not a participant".to_owned();
    let removed = tally(remove).await;
    assert_eq!(removed, BTreeMap::from([((200, String::new()), 1), ((404, words), 7)]));
    assert_eq!(b.rest().await.len(), 1);
}
