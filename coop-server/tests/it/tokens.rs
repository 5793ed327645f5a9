//! Tokens: which are ours, and that they end for good.

use crate::client::{PASSWORD, PATIENCE, Person, Reply, Ws};
use crate::http::check_failure;
use crate::server::{SECRET, Server};
use coop_core::UserId;
use coop_server::Limits;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signed(header: &Header, claims: &Value, secret: &str) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn claims(of: &Person) -> Value {
    json!({
        "sub": of.id.to_string(), "ver": 0, "iss": "gemini-coop", "aud": "gemini-coop",
        "iat": now(), "exp": now() + 60, "jti": "x",
    })
}

/// What HTTP and the handshake say to a token.
async fn statuses(server: &Server, token: &str) -> (u16, u16) {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let reply = server.http().send("GET", "/api/auth/me", &headers, None).await;
    if reply.status != 200 {
        check_failure(&reply, 401, token);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    let opened = Ws::try_open(server.address, Ws::request(server.address, token)).await;
    (reply.status, opened.map_or_else(|status| status, |_| 101))
}

#[tokio::test]
async fn only_our_tokens_are_good() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let ours = Header::new(Algorithm::HS256);
    assert_eq!(
        statuses(&server, &signed(&ours, &claims(&alice), SECRET)).await,
        (200, 101)
    );
    let mut changed = Vec::new();
    for (claim, values) in [
        (
            "sub",
            vec![
                json!("0"),
                json!("-1"),
                json!("999999"),
                json!("alice"),
                json!(alice.id),
                json!("99999999999999999999"),
            ],
        ),
        ("ver", vec![json!(1), json!(-1), json!("0"), json!(0.5)]),
        ("iss", vec![json!("somebody"), json!(1)]),
        ("aud", vec![json!("somebody"), json!([])]),
        ("exp", vec![json!(now() - 1), json!(0), json!(-1), json!("soon")]),
    ] {
        for value in values.into_iter().map(Some).chain([None]) {
            let mut other = claims(&alice);
            match value {
                Some(value) => other[claim] = value,
                None => drop(other.as_object_mut().unwrap().remove(claim)),
            }
            changed.push(signed(&ours, &other, SECRET));
        }
    }
    for token in changed {
        assert_eq!(statuses(&server, &token).await, (401, 403), "{token}");
    }
    let good = claims(&alice);
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed(&Header::new(algorithm), &good, SECRET);
        assert_eq!(statuses(&server, &token).await, (401, 403), "{algorithm:?}");
    }
    // A header that says where the key is, is not listened to: neither for good nor for bad.
    for (secret, expected) in [
        ("another secret of thirty-two bytes!", (401, 403)),
        (SECRET, (200, 101)),
    ] {
        let mut header = ours.clone();
        header.jku = Some(format!("http://{}/key", server.address));
        header.x5u = header.jku.clone();
        header.kid = Some("../../dev/null".to_owned());
        assert_eq!(
            statuses(&server, &signed(&header, &good, secret)).await,
            expected,
            "{secret}"
        );
    }
    let token = signed(&ours, &good, SECRET);
    let (_, rest) = token.split_once('.').unwrap();
    let (body, _) = rest.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
    for bad in [
        unsigned.as_str(),
        &token[..token.len() - 2],
        "a.b.c",
        "..",
        &"x".repeat(8_000),
    ] {
        assert_eq!(statuses(&server, bad).await, (401, 403), "{bad}");
    }
    // One that is good for longer than a clock can count is good.
    let mut long = claims(&alice);
    long["exp"] = json!(u64::MAX / 4);
    assert_eq!(statuses(&server, &signed(&ours, &long, SECRET)).await, (200, 101));
}

#[tokio::test]
async fn logging_out_everywhere_ends_all_tokens_and_sockets_of_one_user_at_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let second = server.http().log_in("alice").await;
    let (mut one, mut two, mut other) = (
        server.socket(&alice).await,
        server.socket(&second).await,
        server.socket(&bob).await,
    );
    let user = server.engine.user(UserId(alice.id)).await.unwrap();
    user.log_out_everywhere().await.unwrap();
    for person in [&alice, &second] {
        assert_eq!(statuses(&server, &person.token).await, (401, 403));
    }
    assert_eq!(
        (one.close_code().await, two.close_code().await),
        (Some(4401), Some(4401))
    );
    other.say(room, "still here").await;
    assert_eq!(other.of_type("message").await["message"]["content"], "still here");
    let again = server.http().log_in("alice").await;
    assert_eq!(statuses(&server, &again.token).await, (200, 101));
    assert_eq!(server.http().contents(&again, room).await, ["still here"]);
}

#[tokio::test]
async fn another_password_ends_all_tokens_and_the_old_password() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut socket = server.socket(&alice).await;
    let user = server.engine.user(UserId(alice.id)).await.unwrap();
    assert!(user.set_password("short".into()).await.is_err());
    assert_eq!(statuses(&server, &alice.token).await, (200, 101));
    user.set_password("another password".into()).await.unwrap();
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(statuses(&server, &alice.token).await, (401, 403));
    for (password, status) in [("password of mine", 401), ("another password", 200)] {
        let credentials = json!({ "username": "alice", "password": password });
        let login = server
            .http()
            .send("POST", "/api/auth/login", &[], Some(&credentials))
            .await;
        assert_eq!(login.status, status, "{password}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_opened_while_its_token_ends_does_not_outlive_it() {
    let server = Server::start().await;
    for round in 0..10 {
        let alice = server.person(&format!("alice{round}")).await;
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let (address, request) = (server.address, Ws::request(server.address, &alice.token));
                tokio::spawn(async move { Ws::try_open(address, request).await })
            })
            .collect();
        let user = server.engine.user(UserId(alice.id)).await.unwrap();
        user.log_out_everywhere().await.unwrap();
        for opened in opening {
            match timeout(PATIENCE, opened).await.unwrap().unwrap() {
                Ok(mut socket) => assert_eq!(socket.close_code().await, Some(4401)),
                Err(status) => assert_eq!(status, 403),
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_good_as_long_as_it_says() {
    let server = Server::start_with(|api| api.token_ttl(Duration::from_secs(1)), None).await;
    let alice = server.person("alice").await;
    let mut socket = server.socket(&alice).await;
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(statuses(&server, &alice.token).await, (401, 403));
}

async fn ask(server: &Server, person: &Person, method: &str, path: &str, body: Value) -> Reply {
    let authorization = format!("Bearer {}", person.token);
    let headers = [("Authorization", authorization.as_str())];
    server.http().send(method, path, &headers, Some(&body)).await
}

#[tokio::test]
async fn people_change_their_password_and_go_on_with_a_new_token() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut socket = server.socket(&alice).await;
    let change = async |current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        ask(&server, &alice, "POST", "/api/auth/password", body).await
    };
    check_failure(&change("not mine", "another password").await, 403, "a wrong password");
    check_failure(&change(PASSWORD, "short").await, 400, "a short one");
    check_failure(&change(PASSWORD, "alice").await, 400, "the name");
    assert_eq!(statuses(&server, &alice.token).await, (200, 101), "nothing has changed");

    let changed = change(PASSWORD, "another password").await.json();
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(statuses(&server, &alice.token).await, (401, 403));
    let token = changed["access_token"].as_str().unwrap();
    assert_eq!(statuses(&server, token).await, (200, 101));
    let login = async |password: &str| {
        let credentials = json!({ "username": "alice", "password": password });
        let login = server
            .http()
            .send("POST", "/api/auth/login", &[], Some(&credentials))
            .await;
        login.status
    };
    assert_eq!((login(PASSWORD).await, login("another password").await), (401, 200));
}

#[tokio::test]
async fn people_log_out_everywhere() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut socket = server.socket(&server.http().log_in("alice").await).await;
    let reply = ask(&server, &alice, "POST", "/api/auth/logout-everywhere", json!({})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(statuses(&server, &alice.token).await, (401, 403));
    assert_eq!(
        statuses(&server, &server.http().log_in("alice").await.token).await,
        (200, 101)
    );
}

#[tokio::test]
async fn people_delete_their_account() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let http = server.http();
    let lab = http.group(&alice, "lab", &[&bob]).await;
    let den = http.group(&bob, "den", &[&alice]).await;
    let (mut hers, mut his) = (server.socket(&alice).await, server.socket(&bob).await);
    hers.say(den, "hello").await;
    his.of_type("message").await;
    let delete = async |body: Value| ask(&server, &alice, "DELETE", "/api/auth/me", body).await;
    for (body, status) in [
        (json!({}), 422),
        (json!({ "password": "not mine" }), 403),
        (json!({ "password": PASSWORD, "rooms": "burn" }), 422),
        (json!({ "password": PASSWORD, "massages": "purge" }), 422),
    ] {
        check_failure(&delete(body.clone()).await, status, &body.to_string());
    }
    assert_eq!(statuses(&server, &alice.token).await, (200, 101), "nothing has changed");

    assert_eq!(
        delete(json!({ "password": PASSWORD, "messages": "purge" }))
            .await
            .status,
        200
    );
    assert_eq!(hers.close_code().await, Some(4401));
    assert_eq!(statuses(&server, &alice.token).await, (401, 403));
    let credentials = json!({ "username": "alice", "password": PASSWORD });
    let login = http.send("POST", "/api/auth/login", &[], Some(&credentials)).await;
    assert_eq!(login.status, 401);
    let rooms = http.get(&bob, "/api/chats").await.json();
    let owners: Vec<_> = rooms
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["owner_id"].as_i64())
        .collect();
    assert_eq!(owners, [Some(bob.id), Some(bob.id)], "both are bob's now");
    assert_eq!(http.contents(&bob, den).await, [""; 0]);
    assert_eq!(http.contents(&bob, lab).await, [""; 0]);
    // The address may be had again, and nothing of her comes back with it.
    let again = server.person("alice").await;
    assert_ne!(again.id, alice.id);
    assert_eq!(http.get(&again, "/api/chats").await.json(), json!([]));
}

#[tokio::test]
async fn a_stolen_token_is_no_way_to_guess_the_password() {
    let hourly = |limits: &mut Limits| limits.set("logins_per_account", "1/1h burst 3").unwrap();
    let server = Server::limited(hourly).await;
    let alice = server.person("alice").await;
    let guess = async || {
        let body = json!({ "password": "not mine" });
        ask(&server, &alice, "DELETE", "/api/auth/me", body).await
    };
    // One was spent, and given back, by her own login.
    for _ in 0..3 {
        check_failure(&guess().await, 403, "a guess");
    }
    let refused = guess().await;
    check_failure(&refused, 429, "one guess more");
    assert!(refused.header("retry-after").is_some());
}
