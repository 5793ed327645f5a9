//! Two people and a bot: everything that the seed's page does, with exact objects.

use crate::client::{Person, Ws};
use crate::server::{Say, Server};
use serde_json::{Value, json};

/// A server, two people in a room, and a joined socket of each.
struct Lab {
    server: Server,
    alice: Person,
    bob: Person,
    room: i64,
    a: Ws,
    b: Ws,
}

async fn lab() -> Lab {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    for socket in [&mut a, &mut b] {
        socket.join(room).await;
        socket.settle().await;
    }
    a.of_type("user_joined").await;
    Lab {
        server,
        alice,
        bob,
        room,
        a,
        b,
    }
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.len() == "2026-11-24T18:46:23.042Z".len() && text.ends_with('Z') && &text[10..11] == "T"
}

/// Takes the times out, having looked at them.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for name in ["created_at", "last_message_time", "read_at"] {
                if let Some(time) = fields.remove(name) {
                    assert!(time.is_null() || is_time(&time), "{name}: {time}");
                }
            }
            for field in fields.values_mut() {
                *field = without_times(field.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn accounts() {
    let server = Server::start().await;
    let http = server.http();
    let account = json!({ "username": "Alice", "email": "Alice@Example.org", "password": "password of mine" });
    let made = http.send("POST", "/api/auth/register", &[], Some(&account)).await;
    assert_eq!(made.status, 200);
    let alice = json!({ "id": 1, "username": "alice", "email": "Alice@Example.org" });
    assert_eq!(without_times(made.json()), alice);

    let again = http.send("POST", "/api/auth/register", &[], Some(&account)).await;
    assert_eq!(
        (again.status, again.detail().as_str()),
        (400, "Username already registered")
    );
    let same_address = json!({ "username": "other", "email": "alice@example.org", "password": "password of mine" });
    let again = http.send("POST", "/api/auth/register", &[], Some(&same_address)).await;
    assert_eq!(
        (again.status, again.detail().as_str()),
        (400, "Email already registered")
    );

    for wrong in [
        json!({ "username": "alice", "password": "another" }),
        json!({ "username": "nobody", "password": "password of mine" }),
        json!({ "username": "", "password": "" }),
        json!({ "username": "alice", "password": "x".repeat(2_000) }),
    ] {
        let refused = http.send("POST", "/api/auth/login", &[], Some(&wrong)).await;
        assert_eq!(
            (refused.status, refused.detail().as_str()),
            (401, "Incorrect username or password")
        );
    }
    let right = json!({ "username": "alice", "password": "password of mine" });
    let login = http.send("POST", "/api/auth/login", &[], Some(&right)).await.json();
    assert_eq!(login["token_type"], "bearer");
    let token = format!("Bearer {}", login["access_token"].as_str().unwrap());
    let me = http
        .send("GET", "/api/auth/me", &[("authorization", &token)], None)
        .await;
    assert_eq!(without_times(me.json()), alice);
}

#[tokio::test]
async fn rooms_and_lists() {
    let server = Server::start().await;
    let http = server.http();
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let mut b = server.socket(&bob).await;
    let mut c = server.socket(&carol).await;

    let draft = json!({ "name": "lab", "is_group": true, "is_ai_chat": false, "participant_usernames": ["bob", "nobody", "bob", "alice", "x y"] });
    let made = http.post(&alice, "/api/chats", draft).await;
    let room = made.json()["id"].as_i64().unwrap();
    let chat = json!({ "id": room, "name": "lab", "owner_id": alice.id, "is_group": true, "is_ai_chat": false });
    assert_eq!(without_times(made.json()), chat);
    let told = without_times(b.next().await);
    assert_eq!(
        told,
        json!({ "type": "chat_created", "chat": chat, "notification": "You were added to \"lab\"" })
    );

    let show = http.get(&alice, &format!("/api/chats/{room}")).await;
    assert_eq!(without_times(show.json()), chat);
    let mut row = chat.clone();
    row["unread_count"] = 0.into();
    row["last_message"] = Value::Null;
    assert_eq!(without_times(http.get(&bob, "/api/chats").await.json()), json!([row]));

    let invited = http
        .post(
            &bob,
            &format!("/api/chats/{room}/invite"),
            json!({ "username": "Carol" }),
        )
        .await;
    assert_eq!(invited.json(), json!({ "message": "User carol invited to chat" }));
    let told = without_times(c.next().await);
    assert_eq!(
        told,
        json!({ "type": "chat_invite", "chat": chat, "notification": "You were invited to \"lab\"" })
    );
    let again = http
        .post(
            &bob,
            &format!("/api/chats/{room}/invite"),
            json!({ "username": "carol" }),
        )
        .await;
    assert_eq!(again.status, 200);

    let members = http.get(&bob, &format!("/api/chats/{room}/participants")).await;
    let expected = json!([
        { "id": alice.id, "username": "alice", "email": "" },
        { "id": bob.id, "username": "bob", "email": "bob@example.org" },
        { "id": carol.id, "username": "carol", "email": "" },
    ]);
    assert_eq!(without_times(members.json()), expected);

    let found = http.get(&alice, "/api/users/search?query=AR&limit=10").await;
    assert_eq!(
        without_times(found.json()),
        json!([{ "id": carol.id, "username": "carol", "email": "" }])
    );
    for query in ["a", "", "%25%25", "alice", "example"] {
        let found = http.get(&alice, &format!("/api/users/search?query={query}")).await;
        assert_eq!(found.json(), json!([]), "{query}");
    }

    b.say(room, "hello").await;
    b.of_type("message").await;
    let row = |list: Value| without_times(list)[0].clone();
    let for_alice = row(http.get(&alice, "/api/chats").await.json());
    assert_eq!(
        (&for_alice["unread_count"], &for_alice["last_message"]),
        (&json!(1), &json!("hello"))
    );
    assert_eq!(row(http.get(&bob, "/api/chats").await.json())["unread_count"], 0);
    let marked = http
        .post(&alice, &format!("/api/chats/{room}/mark-read"), Value::Null)
        .await;
    assert_eq!(
        marked.json(),
        json!({ "success": true, "message": "Chat marked as read" })
    );
    let receipts = loop {
        let receipts = http.get(&bob, &format!("/api/chats/{room}/read-receipts")).await.json();
        if receipts != json!({}) {
            break receipts;
        }
    };
    let messages = http.get(&bob, &format!("/api/chats/{room}/messages")).await.json();
    let id = messages[0]["id"].to_string();
    assert_eq!(
        without_times(receipts),
        json!({ id: [{ "user_id": alice.id, "username": "alice" }] })
    );
    assert_eq!(row(http.get(&alice, "/api/chats").await.json())["unread_count"], 0);
}

#[tokio::test]
async fn a_message_reaches_every_socket_of_every_member_exactly() {
    let mut lab = lab().await;
    let mut unjoined = lab.server.socket(&lab.bob).await;
    unjoined.settle().await;
    let content = "  spaces, \"quotes\", emoji 📎, line\nbreak, \u{202e}, </script> \t";
    lab.a.say(lab.room, content).await;
    let mut seen = Vec::new();
    for socket in [&mut lab.a, &mut lab.b, &mut unjoined] {
        seen.push(without_times(socket.of_type("message").await));
    }
    let id = seen[0]["message"]["id"].as_i64().unwrap();
    assert!(id > 0);
    let message = json!({
        "id": id, "chat_id": lab.room, "user_id": lab.alice.id, "content": content, "is_bot": false,
        "username": "alice", "seq": 3, "status": "done",
    });
    for frame in seen {
        assert_eq!(frame, json!({ "type": "message", "message": message }));
    }
    let history = lab
        .server
        .http()
        .get(&lab.bob, &format!("/api/chats/{}/messages", lab.room))
        .await;
    assert_eq!(without_times(history.json()), json!([message]));
}

#[tokio::test]
async fn an_answer_streams_to_those_who_have_joined() {
    let mut lab = lab().await;
    let mut unjoined = lab.server.socket(&lab.bob).await;
    unjoined.settle().await;
    lab.a.say(lab.room, "/bot tell").await;
    for socket in [&mut lab.a, &mut lab.b, &mut unjoined] {
        let said = socket.next().await;
        assert_eq!(
            (&said["type"], &said["message"]["content"]),
            (&json!("message"), &json!("/bot tell"))
        );
    }
    lab.server.piece("Once ");
    let first = without_times(lab.a.answer("Once ").await);
    let id = first["message"]["id"].as_i64().unwrap();
    let expected = json!({ "type": "bot_stream", "message": {
        "id": id, "chat_id": lab.room, "user_id": null, "content": "Once ", "is_bot": true, "username": "teller",
        "seq": first["message"]["seq"], "status": "streaming",
    }});
    assert_eq!(first, expected);
    // The text so far is in the history as well.
    assert_eq!(
        lab.server.http().contents(&lab.bob, lab.room).await,
        ["/bot tell", "Once "]
    );

    // The asker is heard while the bot writes.
    lab.a.say(lab.room, "go on").await;
    lab.b.answer("Once ").await;
    assert_eq!(lab.b.of_type("message").await["message"]["content"], "go on");
    assert_eq!(unjoined.of_type("message").await["message"]["content"], "go on");

    for piece in ["upon ", "a ", "time."] {
        lab.server.piece(piece);
    }
    lab.server.done();
    for socket in [&mut lab.a, &mut lab.b] {
        loop {
            let frame = socket.answer("Once upon a time.").await;
            assert_eq!(frame["message"]["id"], id);
            if frame["message"]["status"] == "done" {
                break;
            }
        }
    }
    assert_eq!(unjoined.rest().await, Vec::<Value>::new());
    let contents = lab.server.http().contents(&lab.bob, lab.room).await;
    assert_eq!(contents, ["/bot tell", "Once upon a time.", "go on"]);
    // An answer to one's own ask is not unread.
    let rows = lab.server.http().get(&lab.alice, "/api/chats").await.json();
    assert_eq!(rows[0]["unread_count"], 0);
}

#[tokio::test]
async fn who_joins_in_the_middle_gets_the_text_so_far() {
    let mut lab = lab().await;
    lab.a.say(lab.room, "/bot tell").await;
    lab.server.piece("The beginning, ");
    lab.a.answer("The beginning, ").await;
    let mut late = lab.server.socket(&lab.bob).await;
    late.join(lab.room).await;
    late.answer("The beginning, ").await;
    lab.server.piece("the end.");
    late.answer("The beginning, the end.").await;
    lab.server.done();
    assert_eq!(late.of_type("bot_stream").await["message"]["status"], "done");
}

#[tokio::test]
async fn who_joins_after_the_end_of_an_answer_it_saw_begin_gets_its_whole_text() {
    let mut lab = lab().await;
    lab.a.say(lab.room, "/bot tell").await;
    lab.server.piece("So far. ");
    lab.a.answer("So far. ").await;
    // It connects while the answer is written and joins when it has ended.
    let mut late = lab.server.socket(&lab.bob).await;
    late.settle().await;
    lab.server.piece("The end.");
    lab.server.done();
    lab.a.answer("So far. The end.").await;
    assert_eq!(late.rest().await, Vec::<Value>::new());
    late.join(lab.room).await;
    let shown = late.next().await;
    assert_eq!(shown["type"], "bot_stream");
    assert_eq!(shown["message"]["content"], "So far. The end.");
    // It would be shown twice above another message.
    lab.a.say(lab.room, "good night").await;
    late.of_type("message").await;
    let mut later = lab.server.socket(&lab.bob).await;
    later.join(lab.room).await;
    later.settle().await;
    assert_eq!(later.rest().await, Vec::<Value>::new());
}

#[tokio::test]
async fn leaving_and_joining_at_once_loses_no_piece() {
    let mut lab = lab().await;
    lab.a.say(lab.room, "/bot tell").await;
    let mut whole = String::new();
    for round in 0..50 {
        let piece = format!("{round} ");
        lab.server.piece(&piece);
        whole.push_str(&piece);
        lab.b.send(json!({ "type": "leave", "chat_id": lab.room })).await;
        lab.b.join(lab.room).await;
    }
    lab.b.answer(&whole).await;
    lab.server.done();
    assert_eq!(lab.b.of_type("bot_stream").await["message"]["status"], "done");
    // The others never saw it leave.
    let seen = lab.a.rest().await;
    assert!(seen.iter().all(|frame| frame["type"] != "user_left"), "{seen:?}");
}

#[tokio::test]
async fn who_leaves_gets_no_more_pieces_after_a_while() {
    let mut lab = lab().await;
    lab.b.send(json!({ "type": "leave", "chat_id": lab.room })).await;
    let left = lab.a.of_type("user_left").await;
    assert_eq!(
        left,
        json!({ "type": "user_left", "chat_id": lab.room, "username": "bob" })
    );
    lab.a.say(lab.room, "/bot tell").await;
    lab.server.piece("All of it.");
    lab.server.done();
    lab.a.answer("All of it.").await;
    let seen = lab.b.rest().await;
    let kinds: Vec<_> = seen.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message"]);
}

#[tokio::test]
async fn a_failed_answer_shows_its_words_everywhere() {
    let mut lab = lab().await;
    lab.a.say(lab.room, "/bot tell").await;
    lab.server.bot.send(Say::Fail("The bot is ill.")).unwrap();
    for socket in [&mut lab.a, &mut lab.b] {
        let end = socket.of_type("bot_stream").await;
        assert_eq!(end["message"]["content"], "The bot is ill.");
        assert_eq!(end["message"]["status"], "failed");
    }
    let contents = lab.server.http().contents(&lab.bob, lab.room).await;
    assert_eq!(contents, ["/bot tell", "The bot is ill."]);
    let rows = lab.server.http().get(&lab.bob, "/api/chats").await.json();
    assert_eq!(rows[0]["last_message"], "The bot is ill.");
}

#[tokio::test]
async fn a_refused_ask_is_told_to_the_asker_alone() {
    let mut lab = lab().await;
    for number in 0..10 {
        lab.a.say(lab.room, &format!("/bot {number}")).await;
    }
    let refused = loop {
        let frame = lab.a.next().await;
        if frame.get("error").is_some() {
            break frame;
        }
    };
    assert_eq!(refused, json!({ "error": "too many asks are waiting for this bot" }));
    let seen = lab.b.rest().await;
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(seen.iter().all(|frame| frame["type"] == "message"));
}

#[tokio::test]
async fn an_ai_chat_greets_and_answers_without_being_called() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let http = server.http();
    let draft = json!({ "name": "AI Chat", "is_group": false, "is_ai_chat": true });
    let made = http.post(&alice, "/api/chats", draft).await.json();
    assert_eq!((&made["is_group"], &made["name"]), (&json!(false), &json!("AI Chat")));
    let room = made["id"].as_i64().unwrap();
    let greeting = http.get(&alice, &format!("/api/chats/{room}/messages")).await.json()[0].clone();
    assert_eq!(
        (&greeting["is_bot"], &greeting["user_id"]),
        (&json!(true), &Value::Null)
    );
    let mut a = server.socket(&alice).await;
    a.join(room).await;
    a.say(room, "hello").await;
    server.piece("hello to you");
    server.done();
    a.answer("hello to you").await;
    let unnamed = http.post(&alice, "/api/chats", json!({})).await.json();
    assert_eq!(unnamed["name"], "alice");
}

#[tokio::test]
async fn a_room_just_made_can_be_used_at_once_on_an_open_socket() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut a = server.socket(&alice).await;
    a.settle().await;
    for number in 0..20 {
        let room = server.http().group(&alice, &format!("room {number}"), &[]).await;
        a.join(room).await;
        a.say(room, "first").await;
        let frame = a.next().await;
        assert_eq!(frame["message"]["content"], "first", "{frame}");
    }
}

#[tokio::test]
async fn typing_is_passed_on_but_not_to_the_typist_and_not_too_often() {
    let mut lab = lab().await;
    let mut phone = lab.server.socket(&lab.alice).await;
    phone.join(lab.room).await;
    phone.settle().await;
    lab.b.of_type("user_joined").await;
    lab.a.of_type("user_joined").await;
    for _ in 0..20 {
        lab.a.send(json!({ "type": "typing", "chat_id": lab.room })).await;
    }
    lab.a.settle().await;
    let seen = lab.b.rest().await;
    assert_eq!(
        seen,
        [json!({ "type": "typing", "chat_id": lab.room, "username": "alice" })]
    );
    assert_eq!(phone.rest().await, seen);
    assert_eq!(lab.a.rest().await, Vec::<Value>::new());
}

#[tokio::test]
async fn who_is_removed_in_the_middle_of_an_answer_gets_not_one_more_frame_of_the_room() {
    let mut lab = lab().await;
    lab.a.say(lab.room, "/bot tell").await;
    lab.server.piece("before ");
    lab.b.answer("before ").await;
    let path = format!("/api/chats/{}/participants/{}", lab.room, lab.bob.id);
    let stop = tokio_util::sync::CancellationToken::new();
    let writing = tokio::spawn({
        let (bot, stop) = (lab.server.bot.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                bot.send(Say::Piece("x".into())).unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let removed = lab.server.http().delete(&lab.alice, &path).await;
    assert_eq!(removed.json(), json!({ "message": "Participant removed successfully" }));
    // What was written before the answer is in the socket already: a marker tells where it ends.
    lab.b.send_text("not JSON").await;
    let mut after = Vec::new();
    loop {
        let frame = lab.b.next().await;
        if frame["error"] == "Not a JSON object" {
            break;
        }
    }
    lab.a.say(lab.room, "he is gone").await;
    after.extend(lab.b.rest().await);
    stop.cancel();
    writing.await.unwrap();
    let of_room = |frame: &&Value| frame["type"] != "removed_from_chat";
    assert_eq!(after.iter().filter(of_room).count(), 0, "{after:?}");
    let left = lab.a.of_type("user_left").await;
    assert_eq!(
        left,
        json!({ "type": "user_left", "chat_id": lab.room, "user_id": lab.bob.id, "username": "bob" })
    );

    lab.b.say(lab.room, "let me in").await;
    assert_eq!(lab.b.next().await, json!({ "error": "Not authorized" }));
    for path in ["", "/messages", "/participants", "/read-receipts"] {
        let refused = lab
            .server
            .http()
            .get(&lab.bob, &format!("/api/chats/{}{path}", lab.room))
            .await;
        assert_eq!(
            (refused.status, refused.detail().as_str()),
            (403, "Not authorized"),
            "{path}"
        );
    }
    // Invited again, everything works again.
    let invite = format!("/api/chats/{}/invite", lab.room);
    lab.server
        .http()
        .post(&lab.alice, &invite, json!({ "username": "bob" }))
        .await;
    lab.b.of_type("chat_invite").await;
    lab.b.say(lab.room, "back").await;
    assert_eq!(lab.b.of_type("message").await["message"]["content"], "back");
}

#[tokio::test]
async fn leaving_and_deleting_a_room() {
    let mut lab = lab().await;
    let http = lab.server.http();
    let path = format!("/api/chats/{}", lab.room);
    let refused = http.post(&lab.alice, &format!("{path}/leave"), Value::Null).await;
    let words = "Chat owner cannot leave. Delete the chat instead";
    assert_eq!((refused.status, refused.detail().as_str()), (400, words));
    let refused = http.delete(&lab.bob, &path).await;
    assert_eq!(
        (refused.status, refused.detail().as_str()),
        (403, "Only chat admin can delete chat")
    );

    let left = http.post(&lab.bob, &format!("{path}/leave"), Value::Null).await;
    assert_eq!(left.json(), json!({ "message": "Left chat successfully" }));
    let again = http.post(&lab.bob, &format!("{path}/leave"), Value::Null).await;
    assert_eq!((again.status, again.detail().as_str()), (404, "Not a participant"));
    assert_eq!(lab.a.of_type("user_left").await["user_id"], lab.bob.id);
    assert_eq!(lab.b.rest().await, Vec::<Value>::new());

    http.post(&lab.alice, &format!("{path}/invite"), json!({ "username": "bob" }))
        .await;
    lab.b.of_type("chat_invite").await;
    let deleted = http.delete(&lab.alice, &path).await;
    assert_eq!(deleted.json(), json!({ "message": "Chat deleted successfully" }));
    assert_eq!(lab.b.next().await["type"], "chat_deleted");
    let gone = http.get(&lab.alice, &path).await;
    assert_eq!((gone.status, gone.detail().as_str()), (404, "Chat not found"));
    let gone = http.get(&lab.alice, &format!("{path}/messages")).await;
    assert_eq!((gone.status, gone.detail().as_str()), (403, "Not authorized"));
    assert_eq!(http.get(&lab.bob, "/api/chats").await.json(), json!([]));
}

#[tokio::test]
async fn a_room_gained_while_the_socket_is_open_is_heard() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    let room = server.http().group(&alice, "new", &[&bob]).await;
    a.say(room, "welcome").await;
    assert_eq!(b.next().await["type"], "chat_created");
    assert_eq!(b.next().await["message"]["content"], "welcome");
}

#[tokio::test]
async fn history_is_paged() {
    let mut lab = lab().await;
    for number in 0..60 {
        lab.a.say(lab.room, &format!("{number}")).await;
    }
    loop {
        if lab.a.of_type("message").await["message"]["content"] == "59" {
            break;
        }
    }
    let http = lab.server.http();
    let numbers = async |query: &str| -> Vec<String> {
        let path = format!("/api/chats/{}/messages{query}", lab.room);
        let page = http.get(&lab.bob, &path).await.json();
        let page = page.as_array().unwrap().clone();
        page.iter()
            .map(|message| message["content"].as_str().unwrap().to_owned())
            .collect()
    };
    let span = |from: i32, to: i32| (from..to).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(numbers("").await, span(10, 60));
    assert_eq!(numbers("?limit=3").await, span(57, 60));
    assert_eq!(numbers("?limit=100000").await, span(0, 60));
    // The first message is at seq 3.
    assert_eq!(numbers("?before=23&limit=5").await, span(15, 20));
    assert_eq!(numbers("?after=23&limit=5").await, span(21, 26));
    for query in ["?limit=0", "?limit=-1", "?limit=x", "?before=1&after=1", "?before=x"] {
        let path = format!("/api/chats/{}/messages{query}", lab.room);
        let refused = http.get(&lab.bob, &path).await;
        assert_eq!(refused.status, 422, "{query}");
        refused.detail();
    }
}
