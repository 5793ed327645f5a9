//! Bots as they are governed over HTTP: settings, the queue, stopping, asking again, receipts, usage and budgets.

use crate::client::{Http, Person, Ws};
use crate::http::check_failure;
use crate::server::{Say, Server};
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::{Budgets, Engine, Finish, Usage};
use serde_json::{Value, json};

async fn patch(http: &Http, who: &Person, path: &str, body: Value) -> crate::client::Reply {
    let authorization = format!("Bearer {}", who.token);
    http.send("PATCH", path, &[("Authorization", &authorization)], Some(&body))
        .await
}

#[tokio::test]
async fn settings_are_read_and_changed_in_parts() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let path = format!("/api/rooms/{room}/settings");
    let usual = json!({
        "system": "", "default_bot": null, "policy": "queue", "who_may_stop": "anyone", "bots_ask_bots": false,
    });
    assert_eq!(http.get(&bob, &path).await.json(), usual);
    let changed = patch(
        &http,
        &alice,
        &path,
        json!({ "system": "Be brief.", "who_may_stop": "asker" }),
    )
    .await;
    assert_eq!((changed.status, &changed.json()["system"]), (200, &json!("Be brief.")));
    let changed = patch(
        &http,
        &alice,
        &path,
        json!({ "default_bot": "teller", "policy": "interrupt" }),
    )
    .await;
    let expected = json!({
        "system": "Be brief.", "default_bot": "teller", "policy": "interrupt", "who_may_stop": "asker",
        "bots_ask_bots": false,
    });
    assert_eq!(changed.json(), expected);
    assert_eq!(http.get(&bob, &path).await.json(), expected);
    let changed = patch(&http, &alice, &path, json!({ "default_bot": null })).await;
    assert_eq!(changed.json()["default_bot"], Value::Null);
    for (body, status) in [
        (json!({ "default_bot": "nobody" }), 400),
        (json!({ "policy": "sometimes" }), 422),
        (json!({ "sistem": "x" }), 422),
        (json!({ "system": 7 }), 422),
        (json!([]), 422),
        (json!({ "system": "x".repeat(4_001) }), 413),
        (json!({ "system": "a\u{0}" }), 400),
    ] {
        let reply = patch(&http, &alice, &path, body.clone()).await;
        check_failure(&reply, status, &body.to_string());
    }
    check_failure(&patch(&http, &bob, &path, json!({})).await, 403, "as a member");
    check_failure(&http.get(&alice, "/api/rooms/999/settings").await, 404, "of no room");
    check_failure(&http.get(&alice, "/api/rooms/x/settings").await, 422, "of no number");
}

#[tokio::test]
async fn the_queue_is_seen_stopped_and_tried_again() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut socket = Ws::open(server.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot first").await;
    server.bot.send(Say::Piece("as far as th".into())).unwrap();
    socket.of_type("bot_stream").await;
    socket.say(room, "/bot second").await;
    socket.of_type("message").await;
    let turns = format!("/api/rooms/{room}/turns");
    let open = http.get(&bob, &turns).await.json();
    let open = open.as_array().unwrap();
    let seen: Vec<_> = open.iter().map(|turn| turn["status"].as_str().unwrap()).collect();
    assert_eq!(seen, ["streaming", "queued"]);
    assert_eq!(
        (&open[0]["bot"], &open[0]["asked_by"]),
        (&json!("teller"), &json!(alice.id))
    );
    for turn in open.iter().rev() {
        let path = format!("{turns}/{}/stop", turn["id"]);
        assert_eq!(http.post(&bob, &path, json!({})).await.status, 200);
    }
    let answer = open[0]["message"].as_i64().unwrap();
    while !http.get(&bob, &turns).await.json().as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        http.contents(&bob, room).await,
        ["/bot first", "as far as th", "/bot second"]
    );
    // Asked again, it answers with what it is told now.
    server.bot.send(Say::Piece("all of it".into())).unwrap();
    server.bot.send(Say::Done).unwrap();
    let retry = format!("/api/rooms/{room}/messages/{answer}/retry");
    let asked = http.post(&bob, &retry, json!({})).await;
    assert_eq!((asked.status, &asked.json()["bot"]), (200, &json!("teller")));
    assert!(asked.json()["turn"].as_i64() > open[1]["id"].as_i64());
    while http.contents(&bob, room).await.last().map(String::as_str) != Some("all of it")
        || !http.get(&bob, &turns).await.json().as_array().unwrap().is_empty()
    {
        tokio::task::yield_now().await;
    }
    // Both were made from the same.
    let messages = http.get(&bob, &format!("/api/chats/{room}/messages")).await.json();
    let last = messages.as_array().unwrap().last().unwrap()["id"].as_i64().unwrap();
    let receipt = async |of: i64| {
        http.get(&bob, &format!("/api/rooms/{room}/messages/{of}/receipt"))
            .await
    };
    let first = receipt(last).await.json();
    assert_eq!(first["read"].as_array().unwrap().len(), 1);
    assert_eq!(first["read"][0]["message"], messages[0]["id"]);
    assert_eq!(
        (first["omitted"].as_u64(), first["hash"].as_str().unwrap().len()),
        (Some(0), 64)
    );
    assert_eq!(receipt(answer).await.json(), first);
    check_failure(
        &receipt(messages[0]["id"].as_i64().unwrap()).await,
        404,
        "of what a person said",
    );
    check_failure(
        &http.post(&bob, &format!("{turns}/999/stop"), json!({})).await,
        404,
        "of no turn",
    );
    check_failure(
        &http.post(&bob, &format!("{turns}/999/retry"), json!({})).await,
        404,
        "of no turn",
    );
}

#[tokio::test]
async fn asking_again_is_limited_like_asking() {
    let server = Server::limited(|limits| limits.asks_in_flight = 1).await;
    let http = server.http();
    let alice = server.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open(server.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot first").await;
    server.bot.send(Say::Fail("The provider failed.")).unwrap();
    let failed = socket.of_type("bot_stream").await;
    let answer = failed["message"]["id"].as_i64().unwrap();
    let retry = format!("/api/rooms/{room}/messages/{answer}/retry");
    // The ask is counted until its end has been heard.
    let asked = loop {
        let reply = http.post(&alice, &retry, json!({})).await;
        if reply.status != 429 {
            break reply;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(asked.status, 200, "{asked:?}");
    let again = http.post(&alice, &retry, json!({})).await;
    check_failure(&again, 429, "while that one is being answered");
    server.bot.send(Say::Done).unwrap();
}

#[tokio::test]
async fn what_is_used_is_told_and_a_budget_is_kept() {
    let engine = Engine::builder(MemoryStore::new())
        .password_cost(Cost::cheap_for_tests())
        .bot_fn("mock", |_, out| async move {
            out.usage(Usage {
                output: Some(7),
                ..Usage::default()
            });
            out.push("One half, the other half.").await?;
            Ok(Finish::stop())
        })
        .budgets(Budgets {
            user_tokens_per_day: Some(1),
            ..Budgets::default()
        });
    let server = Server::on(engine, |api| api, None).await;
    let http = server.http();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let own = http.get(&alice, "/api/usage").await.json();
    let nothing = json!({ "turns": 0, "input": 0, "output": 0, "total": 0 });
    let used = json!({ "today": nothing, "ever": nothing });
    assert_eq!(
        own,
        json!({ "today": nothing, "ever": nothing, "bots": { "mock": used }, "tokens_per_day": 1 })
    );
    let mut socket = Ws::open(server.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot hello").await;
    socket.answer("One half, the other half.").await;
    let own = http.get(&alice, "/api/usage").await.json();
    assert_eq!(own["ever"], json!({ "turns": 1, "input": 0, "output": 7, "total": 7 }));
    let of_room = http.get(&bob, &format!("/api/rooms/{room}/usage")).await.json();
    assert_eq!(
        (&of_room["today"], &of_room["tokens_per_day"]),
        (&own["today"], &Value::Null)
    );
    assert_eq!(
        of_room["bots"]["mock"],
        json!({ "today": own["today"], "ever": own["ever"] })
    );
    assert_eq!(http.get(&bob, "/api/usage").await.json()["ever"], nothing);
    // Alice's tokens are used up, and she is told so; bob's are not.
    socket.say(room, "/bot more").await;
    let refused = loop {
        let frame = socket.next().await;
        if let Some(words) = frame["error"].as_str() {
            break words.to_owned();
        }
    };
    assert!(refused.contains("used up"), "{refused}");
    let turn = http.get(&alice, &format!("/api/rooms/{room}/turns")).await.json();
    assert_eq!(turn, json!([]));
    let mut bobs = Ws::open(server.address, &bob.token).await;
    bobs.join(room).await;
    bobs.say(room, "/bot and I?").await;
    bobs.answer("One half, the other half.").await;
}
