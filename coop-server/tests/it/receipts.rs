//! Who has read what, as it reaches everybody: merged, and yet nothing of it lost.

use crate::client::{Person, Ws};
use crate::server::Server;
use crate::socket::narrow;
use serde_json::Value;
use std::time::{Duration, Instant};

async fn mark_read(server: &Server, who: &Person, room: i64) {
    let marked = server
        .http()
        .post(who, &format!("/api/chats/{room}/mark-read"), Value::Null)
        .await;
    assert_eq!(marked.status, 200, "{marked:?}");
}

/// Who is said to have read a message, in the order of reading.
fn readers(receipts: &Value, message: i64) -> Vec<i64> {
    let told = receipts[message.to_string()].as_array().into_iter().flatten();
    let told: Vec<_> = told.collect();
    let times: Vec<_> = told
        .iter()
        .map(|receipt| receipt["read_at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    told.iter()
        .map(|receipt| receipt["user_id"].as_i64().unwrap())
        .collect()
}

/// One viewer as the page is: it marks what others say as read, and fetches its list whenever somebody has read
/// something. Returns how many frames of receipts came until everybody had read the message.
async fn view(server: &Server, who: &Person, mut socket: Ws, room: i64, everybody: usize) -> usize {
    let said = socket.of_type("message").await;
    let id = said["message"]["id"].as_i64().unwrap();
    if said["message"]["user_id"] != who.id {
        mark_read(server, who, room).await;
    }
    let mut frames = 0;
    loop {
        let told = socket.of_type("read_receipts_updated").await;
        frames += 1;
        let list = server.http().get(who, "/api/chats").await.json();
        if readers(&told["read_receipts"], id).len() == everybody {
            assert_eq!(list[0]["unread_count"], 0);
            return frames;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_room_that_reads_at_once_is_told_a_few_times_and_misses_nobody() {
    const VIEWERS: usize = 20;
    let server = Server::start().await;
    let mut people = Vec::new();
    for number in 0..VIEWERS {
        people.push(server.person(&format!("person{number}")).await);
    }
    let others: Vec<_> = people[1..].iter().collect();
    let room = server.http().group(&people[0], "full", &others).await;
    let mut sockets = Vec::new();
    for person in &people {
        let mut socket = server.socket(person).await;
        socket.join(room).await;
        socket.settle().await;
        sockets.push(socket);
    }
    let begun = Instant::now();
    sockets[0].say(room, "look").await;
    let viewers = people.iter().zip(sockets);
    let viewers = viewers.map(|(person, socket)| view(&server, person, socket, room, VIEWERS - 1));
    let frames = futures::future::join_all(viewers).await;
    // One in a quarter of a second at most, however many have read.
    let most = usize::try_from(begun.elapsed().as_millis() / 250).unwrap() + 1;
    assert!(frames.iter().all(|&frames| frames <= most), "{frames:?} of {most}");
    assert!(most < VIEWERS, "this machine is too slow to tell");
}

#[tokio::test]
async fn a_large_room_is_told_less_often() {
    let server = Server::start().await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let room = server.http().group(&alice, "large", &[&bob, &carol]).await;
    let owner = server.engine.find_user("alice").await.unwrap();
    let large = owner.room(room.into()).await.unwrap();
    for number in 0..60 {
        let member = server.engine.create_user(&format!("member{number}")).await.unwrap();
        large.invite(&member).await.unwrap();
    }
    let mut a = server.socket(&alice).await;
    a.settle().await;
    a.say(room, "look").await;
    let id = a.of_type("message").await["message"]["id"].as_i64().unwrap();
    mark_read(&server, &bob, room).await;
    let first = a.of_type("read_receipts_updated").await;
    let told = Instant::now();
    assert_eq!(readers(&first["read_receipts"], id), [bob.id]);
    mark_read(&server, &carol, room).await;
    let second = a.of_type("read_receipts_updated").await;
    assert!(told.elapsed() > Duration::from_millis(1_500), "{:?}", told.elapsed());
    assert_eq!(readers(&second["read_receipts"], id), [bob.id, carol.id]);
}

#[tokio::test]
async fn who_could_not_take_the_receipts_gets_the_newest_when_they_can() {
    let server = Server::start_with(|api| api, Some(8_192)).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let room = server.http().group(&alice, "lab", &[&bob]).await;
    let mut a = server.socket(&alice).await;
    let mut slow = narrow(&server, &bob).await;
    slow.settle().await;
    let long = "x".repeat(20_000);
    for _ in 0..20 {
        a.say(room, &long).await;
    }
    let mut last = 0;
    for _ in 0..20 {
        last = a.of_type("message").await["message"]["id"].as_i64().unwrap();
    }
    mark_read(&server, &bob, room).await;
    let told = a.of_type("read_receipts_updated").await;
    assert_eq!(readers(&told["read_receipts"], last), [bob.id]);
    // Only now does Bob read; what he is told is what there is, and not what there was.
    let told = slow.of_type("read_receipts_updated").await;
    assert_eq!(readers(&told["read_receipts"], last), [bob.id]);
}

#[tokio::test]
async fn receipts_are_of_each_authors_newest_message_and_not_of_ones_own() {
    let server = Server::start().await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let room = server.http().group(&alice, "lab", &[&bob, &carol]).await;
    let (mut a, mut b) = (server.socket(&alice).await, server.socket(&bob).await);
    let mut ids = Vec::new();
    for text in ["first", "second"] {
        a.say(room, text).await;
        ids.push(a.of_type("message").await["message"]["id"].as_i64().unwrap());
    }
    b.say(room, "third").await;
    ids.push(a.of_type("message").await["message"]["id"].as_i64().unwrap());
    mark_read(&server, &carol, room).await;
    let told = a.of_type("read_receipts_updated").await["read_receipts"].take();
    assert_eq!(readers(&told, ids[0]), [0_i64; 0]);
    // Who writes has read what is above.
    assert_eq!(readers(&told, ids[1]), [bob.id, carol.id]);
    assert_eq!(readers(&told, ids[2]), [carol.id]);
    let path = format!("/api/chats/{room}/read-receipts");
    assert_eq!(server.http().get(&alice, &path).await.json(), told);
    // Whoever is removed is in nobody's receipts any more, and hears of none.
    let mut c = server.socket(&carol).await;
    c.settle().await;
    let carols = format!("/api/chats/{room}/participants/{}", carol.id);
    assert_eq!(server.http().delete(&alice, &carols).await.status, 200);
    c.of_type("removed_from_chat").await;
    mark_read(&server, &alice, room).await;
    let told = a.of_type("read_receipts_updated").await["read_receipts"].take();
    assert_eq!(readers(&told, ids[2]), [alice.id]);
    assert_eq!(c.rest().await, Vec::<Value>::new());
}
