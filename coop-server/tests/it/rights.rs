//! Who may do what: every route with every role, and requests that are malformed or race.

use crate::client::{Http, Person, Reply, Ws};
use crate::http::check_failure;
use crate::server::{Say, Server};
use coop_core::Range;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROLES: [&str; 5] = ["nobody", "stranger", "removed", "member", "owner"];

/// A room and one person of each role; everything is made anew for each try, because some tries change it.
struct World {
    http: Http,
    people: [Person; 5],
    /// A member who does nothing.
    other: Person,
    /// Somebody who is not in the room.
    outside: Person,
    room: i64,
    /// An answer in it, and its turn.
    turn: i64,
    answer: i64,
    /// What was asked, by the owner.
    ask: i64,
}

impl World {
    fn path(&self, path: &str) -> String {
        let path = path.replace("{room}", &self.room.to_string());
        let path = path.replace("{other}", &self.other.id.to_string());
        let path = path.replace("{turn}", &self.turn.to_string());
        let path = path.replace("{answer}", &self.answer.to_string());
        let path = path.replace("{ask}", &self.ask.to_string());
        path.replace("{outside}", &self.outside.id.to_string())
    }

    async fn call(&self, role: usize, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let authorization = format!("Bearer {}", self.people[role].token);
        let headers = [("Authorization", authorization.as_str())];
        let headers = if role == 0 { &[][..] } else { &headers };
        self.http.send(method, &self.path(path), headers, body).await
    }
}

async fn people(server: &Server) -> ([Person; 5], Person, Person) {
    let stranger = server.person("stranger").await;
    let people = [
        Person {
            token: String::new(),
            ..stranger.clone()
        },
        stranger,
        server.person("removed").await,
        server.person("member").await,
        server.person("owner").await,
    ];
    (people, server.person("other").await, server.person("outside").await)
}

async fn world(server: &Server, people: &([Person; 5], Person, Person)) -> World {
    let (people, other, outside) = people.clone();
    let http = server.http();
    let [_, _, removed, member, owner] = &people;
    let room = http.group(owner, "lab", &[removed, member, &other]).await;
    let path = format!("/api/chats/{room}/participants/{}", removed.id);
    assert_eq!(http.delete(owner, &path).await.status, 200);
    let (ask, turn, answer) = answer(server, owner, room).await;
    World {
        http,
        people,
        other,
        outside,
        room,
        turn,
        answer,
        ask,
    }
}

/// Has the bot asked, and waits for its answer.
async fn answer(server: &Server, owner: &Person, room: i64) -> (i64, i64, i64) {
    let owner = server.engine.user(owner.id.into()).await.unwrap();
    let room = owner.room(room.into()).await.unwrap();
    server.bot.send(Say::Done).unwrap();
    let sent = room.send("/bot well?").await.unwrap();
    let turn = sent.turn.unwrap();
    turn.ended().await.unwrap();
    let answer = room.history(Range::Newest, 1).await.unwrap().messages[0].id;
    // For the roles that ask again.
    server.bot.send(Say::Done).unwrap();
    (sent.message.id.0, turn.id().0, answer.0)
}

/// Every route that needs a token, with what each role gets: nobody, stranger, removed, member, owner. The seed tells
/// unknown rooms from those of others on some routes; these are the same numbers as its own.
fn surface() -> Vec<(&'static str, &'static str, Option<Value>, [u16; 5])> {
    let invite = || Some(json!({ "username": "outside" }));
    let text = || Some(json!({ "text": "other words" }));
    vec![
        ("GET", "/api/auth/me", None, [401, 200, 200, 200, 200]),
        ("GET", "/api/users/search?query=ou", None, [401, 200, 200, 200, 200]),
        ("GET", "/api/chats", None, [401, 200, 200, 200, 200]),
        ("POST", "/api/chats", Some(json!({})), [401, 200, 200, 200, 200]),
        ("GET", "/api/chats/{room}", None, [401, 403, 403, 200, 200]),
        ("DELETE", "/api/chats/{room}", None, [401, 403, 403, 403, 200]),
        ("GET", "/api/chats/{room}/messages", None, [401, 403, 403, 200, 200]),
        (
            "GET",
            "/api/chats/{room}/read-receipts",
            None,
            [401, 403, 403, 200, 200],
        ),
        ("POST", "/api/chats/{room}/mark-read", None, [401, 403, 403, 200, 200]),
        ("GET", "/api/chats/{room}/participants", None, [401, 403, 403, 200, 200]),
        ("POST", "/api/chats/{room}/invite", invite(), [401, 403, 403, 200, 200]),
        ("POST", "/api/chats/{room}/leave", None, [401, 404, 404, 200, 400]),
        (
            "DELETE",
            "/api/chats/{room}/participants/{other}",
            None,
            [401, 403, 403, 403, 200],
        ),
        (
            "DELETE",
            "/api/chats/{room}/participants/{outside}",
            None,
            [401, 403, 403, 403, 404],
        ),
        ("GET", "/api/rooms/{room}/settings", None, [401, 404, 404, 200, 200]),
        (
            "PATCH",
            "/api/rooms/{room}/settings",
            Some(json!({ "policy": "interrupt" })),
            [401, 404, 404, 403, 200],
        ),
        ("GET", "/api/rooms/{room}/turns", None, [401, 404, 404, 200, 200]),
        (
            "POST",
            "/api/rooms/{room}/turns/{turn}/stop",
            None,
            [401, 404, 404, 200, 200],
        ),
        (
            "POST",
            "/api/rooms/{room}/turns/{turn}/retry",
            None,
            [401, 404, 404, 200, 200],
        ),
        (
            "POST",
            "/api/rooms/{room}/messages/{answer}/stop",
            None,
            [401, 404, 404, 200, 200],
        ),
        (
            "POST",
            "/api/rooms/{room}/messages/{answer}/retry",
            None,
            [401, 404, 404, 200, 200],
        ),
        (
            "GET",
            "/api/rooms/{room}/messages/{answer}/receipt",
            None,
            [401, 404, 404, 200, 200],
        ),
        ("GET", "/api/rooms/{room}/usage", None, [401, 404, 404, 200, 200]),
        (
            "GET",
            "/api/rooms/{room}/messages/{answer}/turn",
            None,
            [401, 404, 404, 200, 200],
        ),
        ("GET", "/api/rooms/{room}", None, [401, 404, 404, 200, 200]),
        (
            "PATCH",
            "/api/rooms/{room}",
            Some(json!({ "name": "den" })),
            [401, 404, 404, 403, 200],
        ),
        ("GET", "/api/rooms/{room}/events", None, [401, 404, 404, 200, 200]),
        (
            "GET",
            "/api/rooms/{room}/search?query=well",
            None,
            [401, 404, 404, 200, 200],
        ),
        ("GET", "/api/rooms/{room}/messages", None, [401, 404, 404, 200, 200]),
        ("POST", "/api/rooms/{room}/messages", text(), [401, 404, 404, 200, 200]),
        (
            "PATCH",
            "/api/rooms/{room}/messages/{ask}",
            text(),
            [401, 404, 404, 403, 200],
        ),
        (
            "DELETE",
            "/api/rooms/{room}/messages/{ask}",
            None,
            [401, 404, 404, 403, 200],
        ),
        ("GET", "/api/usage", None, [401, 200, 200, 200, 200]),
        (
            "DELETE",
            "/api/auth/me",
            Some(json!({ "password": "not mine" })),
            [401, 403, 403, 403, 403],
        ),
        (
            "POST",
            "/api/auth/password",
            Some(json!({ "current_password": "not mine", "new_password": "another password" })),
            [401, 403, 403, 403, 403],
        ),
        // At the end: after it nobody has a token.
        ("POST", "/api/auth/logout-everywhere", None, [401, 200, 200, 200, 200]),
    ]
}

/// The routes without a token, which are open to all.
const OPEN: [&str; 6] = [
    "/health",
    "/ready",
    "/metrics",
    "/api/openapi.json",
    "/api/auth/register",
    "/api/auth/login",
];

#[tokio::test]
async fn every_route_with_every_role() {
    let server = Server::start().await;
    let everybody = people(&server).await;
    for (method, path, body, statuses) in surface() {
        for (role, status) in statuses.into_iter().enumerate() {
            let world = world(&server, &everybody).await;
            let reply = world.call(role, method, path, body.as_ref()).await;
            let what = format!("{method} {path} as {}", ROLES[role]);
            if status == 200 {
                assert_eq!(reply.status, 200, "{what}: {reply:?}");
            } else {
                check_failure(&reply, status, &what);
            }
            // Who was refused has changed nothing, and who sees nothing has seen nothing.
            if status != 200 {
                assert!(!reply.body.contains("lab"), "{what} tells the room's name");
                let owner = &world.people[4];
                let members = world
                    .http
                    .get(owner, &world.path("/api/chats/{room}/participants"))
                    .await;
                let names: BTreeSet<_> = members
                    .json()
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|user| user["username"].to_string())
                    .collect();
                assert_eq!(names.len(), 3, "{what}: {names:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_table_has_every_route_of_the_server() {
    let source = include_str!("../../src/router.rs");
    let listed: BTreeSet<String> = surface()
        .into_iter()
        .map(|(method, path, ..)| {
            let path = path.split('?').next().unwrap_or(path);
            format!(
                "{method} {}",
                path.replace("{room}", "{id}")
                    .replace("{other}", "{member}")
                    .replace("{outside}", "{member}")
                    .replace("{ask}", "{message}")
                    .replace("{answer}", "{message}")
            )
        })
        .collect();
    let mut routes = 0;
    for line in source
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("open!") || line.starts_with("signed!"))
    {
        let inside = line.split_once('(').unwrap().1;
        let method = inside.split_whitespace().next().unwrap();
        let path = inside.split('"').nth(1).unwrap();
        let known = if line.starts_with("open!") {
            OPEN.contains(&path)
        } else {
            listed.contains(&format!("{method} {path}"))
        };
        assert!(known, "{method} {path} is in no table of who may call it");
        routes += 1;
    }
    assert_eq!(routes, listed.len() + OPEN.len());
}

#[tokio::test]
async fn on_a_socket_too() {
    let server = Server::start().await;
    let everybody = people(&server).await;
    let world = world(&server, &everybody).await;
    for (role, name) in ROLES.iter().enumerate().skip(1) {
        let mut socket = Ws::open(server.address, &world.people[role].token).await;
        let may = role >= 3;
        for (frame, word) in [
            (json!({ "type": "join", "chat_id": world.room }), "join"),
            (json!({ "type": "typing", "chat_id": world.room }), "typing"),
            (
                json!({ "type": "message", "chat_id": world.room, "content": *name }),
                "message",
            ),
        ] {
            socket.send(frame).await;
            let refused = if may && word != "message" {
                None
            } else {
                Some(socket.next().await)
            };
            match refused {
                None => {}
                Some(frame) if may => assert_eq!(frame["message"]["content"], *name),
                Some(frame) => assert_eq!(frame, json!({ "error": "Not authorized" }), "{word} as {}", *name),
            }
        }
    }
    let said = world.http.contents(&world.people[4], world.room).await;
    assert_eq!(said[2..], ["member", "owner"], "after the question and its answer");
}

#[tokio::test]
async fn ids_that_are_none_are_refused_on_every_route() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    http.group(&alice, "lab", &[]).await;
    let bad = [
        "0",
        "-1",
        "9007199254740992",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "1e3",
        "0x1",
        "1.0",
        "one",
        "%00",
        "%F0%9F%98%80",
        "1%20OR%201=1",
        "%2e%2e",
        "\u{2460}",
        "null",
        "true",
    ];
    for (method, path, body, _) in surface().into_iter().filter(|(_, path, ..)| path.contains('{')) {
        for id in bad {
            for path in [
                path.replace("{room}", id)
                    .replace("{other}", "1")
                    .replace("{outside}", "1"),
                path.replace("{room}", "1")
                    .replace("{other}", id)
                    .replace("{outside}", id),
            ] {
                if !path.contains(id) || !path.is_ascii() {
                    continue;
                }
                let authorization = format!("Bearer {}", alice.token);
                let headers = [("Authorization", authorization.as_str())];
                let reply = http.send(method, &path, &headers, body.as_ref()).await;
                assert!((400..500).contains(&reply.status), "{method} {path}: {reply:?}");
                assert!(!reply.detail().is_empty(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn ids_that_are_none_are_refused_on_a_socket() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    server.http().group(&alice, "lab", &[]).await;
    let mut socket = server.socket(&alice).await;
    let bad = [
        "0",
        "-1",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999",
        "1e400",
        "1.5",
        "\"1\"",
        "null",
        "true",
        "[1]",
        "{}",
        "\"\\ud800\"",
    ];
    for kind in ["join", "typing", "message"] {
        for id in bad {
            socket
                .send_text(&format!("{{\"type\":\"{kind}\",\"chat_id\":{id},\"content\":\"x\"}}"))
                .await;
            let refused = socket.next().await;
            let words = refused["error"]
                .as_str()
                .unwrap_or_else(|| panic!("{kind} {id}: {refused}"));
            assert!(
                ["Not authorized", "Not a JSON object"].contains(&words),
                "{kind} {id}: {words}"
            );
        }
    }
    for text in ["\"\\ud800\"", "\"\\udc00x\"", "5", "null", "[]", "{\"a\":1}"] {
        socket
            .send_text(&format!("{{\"type\":\"message\",\"chat_id\":1,\"content\":{text}}}"))
            .await;
        assert!(socket.next().await["error"].is_string(), "{text}");
    }
    socket.settle().await;
}

#[tokio::test]
async fn bodies_and_queries_of_any_shape_are_refused_with_words() {
    let server = Server::start().await;
    let (http, alice) = (server.http(), server.person("alice").await);
    let room = http.group(&alice, "lab", &[]).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let bodies = [
        "",
        "null",
        "0",
        "-1e999",
        "\"\\ud800\"",
        "{\"username\":\"\\ud800\"}",
        "{\"username\":5}",
        "{\"username\":null}",
        "{\"username\":[\"a\"]}",
        "{\"username\":",
        "[[[[",
        "{\"username\":\"x\",\"username\":\"y\"}",
        "\u{feff}{}",
    ];
    for path in [
        "/api/auth/register".to_owned(),
        "/api/auth/login".to_owned(),
        format!("/api/chats/{room}/invite"),
    ] {
        for body in bodies.iter().copied().chain([deep.as_str()]) {
            let length = body.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {length}\r\n\r\n{body}",
                alice.token
            );
            let reply = http.raw(request.as_bytes()).await;
            assert!((400..500).contains(&reply.status), "{path} {body:.40}: {reply:?}");
            assert!(!reply.detail().is_empty(), "{path} {body:.40}");
        }
    }
    for query in [
        "messages?limit=0",
        "messages?limit=-1",
        "messages?limit=x",
        "messages?limit=99999999999999999999",
        "messages?limit=",
        "messages?before=x",
        "messages?after=1.5",
        "messages?before=1&after=1",
        "messages?limit=%ff",
    ] {
        let reply = http.get(&alice, &format!("/api/chats/{room}/{query}")).await;
        check_failure(&reply, 422, query);
    }
    for query in [
        "messages?limit=4294967295",
        "messages?before=-5",
        "messages?after=9223372036854775807",
        "messages?before=-9223372036854775808",
    ] {
        assert_eq!(
            http.get(&alice, &format!("/api/chats/{room}/{query}")).await.status,
            200,
            "{query}"
        );
    }
    for query in ["%25", "_%", "'%20OR%201=1--", "%00%00", "%F0%9F%98%80x"] {
        let found = http
            .get(&alice, &format!("/api/users/search?query={query}&limit=4294967295"))
            .await;
        assert_eq!((found.status, found.json()), (200, json!([])), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_second_is_told_so_however_close() {
    let server = Server::start().await;
    let account = |name: &str, email: &str| json!({ "username": name, "email": email, "password": "password of mine" });
    for (second, words) in [
        (account("CAROL", "other@example.org"), "Username already registered"),
        (account("dave", "CAROL@example.org"), "Email already registered"),
    ] {
        let first = account("carol", "carol@example.org");
        let tries: Vec<_> = [first.clone(), second.clone(), first, second]
            .into_iter()
            .map(|body| {
                let http = server.http();
                tokio::spawn(async move { http.send("POST", "/api/auth/register", &[], Some(&body)).await })
            })
            .collect();
        for made in tries {
            let reply = made.await.unwrap();
            if reply.status != 200 {
                check_failure(&reply, 400, words);
                assert!(["Username already registered", "Email already registered"].contains(&reply.detail().as_str()));
            }
        }
    }
    let (http, alice, bob) = (server.http(), server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[]).await;
    let path = format!("/api/chats/{room}/invite");
    let invitations: Vec<_> = (0..8)
        .map(|_| {
            let (http, alice, path) = (server.http(), alice.clone(), path.clone());
            tokio::spawn(async move { http.post(&alice, &path, json!({ "username": "bob" })).await.status })
        })
        .collect();
    for invited in invitations {
        assert_eq!(invited.await.unwrap(), 200);
    }
    let members = http.get(&bob, &format!("/api/chats/{room}/participants")).await.json();
    assert_eq!(members.as_array().unwrap().len(), 2);
    // Leaving, removing and inviting at once: everybody gets a clear answer, and the room is in order.
    let removal = format!("/api/chats/{room}/participants/{}", bob.id);
    for _ in 0..5 {
        let leave = format!("/api/chats/{room}/leave");
        let (left, removed, invited) = tokio::join!(
            http.post(&bob, &leave, json!({})),
            http.delete(&alice, &removal),
            http.post(&alice, &path, json!({ "username": "bob" }))
        );
        for reply in [left, removed, invited] {
            assert!(reply.status == 200 || (400..500).contains(&reply.status), "{reply:?}");
        }
        assert_eq!(http.post(&alice, &path, json!({ "username": "bob" })).await.status, 200);
    }
}

#[tokio::test]
async fn names_that_nobody_may_have_and_what_others_see_of_one() {
    let server = Server::start().await;
    let http = server.http();
    let register = async |name: &str| {
        let body = json!({ "username": name, "email": "hidden@example.org", "password": "password of mine" });
        http.send("POST", "/api/auth/register", &[], Some(&body)).await
    };
    for name in [
        "admin",
        "ROOT",
        "system",
        "support",
        "moderator",
        "bot",
        "here",
        "all",
        "everyone",
        "gemini",
        "Gemini-Fan",
        "teller",
        "TELLER",
        "ab",
        "-ab",
        ".ab",
        "a b",
        "a/b",
        "ünter",
        "al\u{200b}ice",
        "al\u{202e}ice",
        "а\u{043b}ice",
        "x\u{0}y",
        &"x".repeat(33),
        &"x".repeat(2_000),
    ] {
        check_failure(&register(name).await, 400, name);
    }
    let made = register("Ａnna_1.x-y").await;
    assert_eq!((made.status, &made.json()["username"]), (200, &json!("anna_1.x-y")));
    // The name of a bot opens no account, and an address finds nobody.
    let credentials = json!({ "username": "teller", "password": "password of mine" });
    assert_eq!(
        http.send("POST", "/api/auth/login", &[], Some(&credentials))
            .await
            .status,
        401
    );
    let alice = server.person("alice").await;
    for (query, found) in [("hidden", 0), ("example.org", 0), ("teller", 0), ("anna", 1)] {
        let users = http
            .get(&alice, &format!("/api/users/search?query={query}"))
            .await
            .json();
        assert_eq!(users.as_array().unwrap().len(), found, "{query}");
        assert!(!users.to_string().contains("hidden@"), "{users}");
    }
}
