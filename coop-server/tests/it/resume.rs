//! A client whose line breaks all the time, between any two bytes: what it holds in the end is what the store holds, and
//! what it has said is said once.

use crate::client::PATIENCE;
use crate::server::Server;
use coop_bots::mock::MockBot;
use coop_core::password::Cost;
use coop_core::sqlite::SqliteStore;
use coop_core::{Engine, Message as Said, MessageStatus, Range, Room, Seq};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long the line is broken again and again.
const BREAKING: Duration = Duration::from_secs(60);

/// The `ref` by which a connection knows that it has taken up the room.
const RESUME: i64 = -1;

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, from: u64, to: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + self.0 % (to - from)
    }
}

/// A line that breaks at some moment, after however many bytes there were then: some of a frame, or of a handshake.
async fn breaking(server: SocketAddr, lasts: Duration, mut dice: Dice) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let end = Instant::now() + lasts;
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(server).await.unwrap();
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
        let there = async {
            let mut bytes = vec![0; 512];
            while let Ok(length @ 1..) = from_near.read(&mut bytes).await {
                if to_far.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        };
        let back = async {
            let mut bytes = vec![0; 4_096];
            loop {
                let most = dice.roll(1, 4_096) as usize;
                match from_far.read(&mut bytes[..most]).await {
                    Ok(length @ 1..) => {
                        if to_near.write_all(&bytes[..length]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
            () = sleep_until(end) => {}
        }
    });
    address
}

/// What the client holds, by the rules of PROTOCOL.md.
#[derive(Default)]
struct Held {
    epoch: i64,
    seq: i64,
    /// The oldest it has been told of without a gap: a snapshot begins anew.
    from: i64,
    messages: BTreeMap<i64, Value>,
    ends: BTreeMap<i64, u64>,
    /// Whether this connection has taken up the room.
    resumed: bool,
    snapshots: u32,
    events: u32,
    pieces: u32,
    /// What it has said and nobody has acknowledged.
    unsaid: BTreeSet<u32>,
    said: u32,
}

impl Held {
    fn text(&self, message: i64) -> &str {
        self.messages[&message]["text"].as_str().unwrap()
    }

    fn hear(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "snapshot" => self.begin(frame),
            "event" => self.event(frame),
            "delta" => self.piece(frame),
            "ok" if frame["ref"] == RESUME => self.resumed = true,
            "ok" => {
                if let Some(by) = frame["ref"].as_u64().filter(|_| frame["message"].is_i64()) {
                    self.unsaid.remove(&(by as u32));
                }
            }
            "error" => panic!("{frame}"),
            _ => {}
        }
    }

    fn begin(&mut self, frame: &Value) {
        self.snapshots += 1;
        self.epoch = frame["epoch"].as_i64().unwrap();
        self.seq = frame["seq"].as_i64().unwrap();
        self.messages.clear();
        self.ends.clear();
        for message in frame["messages"].as_array().unwrap() {
            let id = message["id"].as_i64().unwrap();
            if message["status"] == "streaming" {
                self.ends.insert(id, message["text"].as_str().unwrap().len() as u64);
            }
            self.messages.insert(id, message.clone());
        }
        for tape in frame["tapes"].as_array().unwrap() {
            let id = tape["message"].as_i64().unwrap();
            self.messages.get_mut(&id).unwrap()["text"] = tape["text"].clone();
            self.ends.insert(id, tape["end"].as_u64().unwrap());
        }
        let oldest = self.messages.values().map(|message| message["seq"].as_i64().unwrap());
        self.from = oldest.min().unwrap_or(self.seq + 1);
    }

    fn event(&mut self, frame: &Value) {
        let seq = frame["seq"].as_i64().unwrap();
        if seq <= self.seq {
            return;
        }
        if seq > self.seq + 1 && !self.resumed {
            // Of before the room was taken up again: it comes once more.
            return;
        }
        assert_eq!(seq, self.seq + 1, "a gap before {frame}");
        self.seq = seq;
        self.events += 1;
        match frame["kind"].as_str().unwrap() {
            "message_posted" | "message_edited" => self.put(&frame["message"]),
            "message_deleted" => {
                let id = frame["message"].as_i64().unwrap();
                self.messages.remove(&id);
                self.ends.remove(&id);
            }
            "turn_started" => {
                let message = &frame["message"];
                let begun = message["text"].as_str().unwrap().len() as u64;
                self.ends.insert(message["id"].as_i64().unwrap(), begun);
                self.put(message);
            }
            "turn_ended" => {
                let Some(id) = frame["message"].as_i64() else { return };
                let end = self.ends.remove(&id);
                let Some(message) = self.messages.get_mut(&id) else {
                    return;
                };
                message["status"] = frame["status"].clone();
                match frame["text"].as_str() {
                    Some(text) => message["text"] = json!(text),
                    None => assert_eq!(
                        frame["end"].as_u64(),
                        end,
                        "an end without a text is not where the pieces led"
                    ),
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, message: &Value) {
        // One that was deleted since is told as it is now: empty.
        self.messages.insert(message["id"].as_i64().unwrap(), message.clone());
    }

    fn piece(&mut self, frame: &Value) {
        let (id, text) = (frame["message"].as_i64().unwrap(), frame["text"].as_str().unwrap());
        let (offset, end) = (frame["offset"].as_u64().unwrap(), frame["end"].as_u64().unwrap());
        assert_eq!(offset + text.len() as u64, end);
        let Some(&at) = self.ends.get(&id) else { return };
        if end <= at {
            return;
        }
        self.pieces += 1;
        let before = self.text(id).to_owned();
        assert_eq!(before.len() as u64, at);
        let after = if offset == at {
            before + text
        } else {
            assert_eq!(offset, 0, "a piece that does not fit: {frame}, at {at}");
            assert!(text.starts_with(&before), "words are taken back");
            text.to_owned()
        };
        self.messages.get_mut(&id).unwrap()["text"] = json!(after);
        self.ends.insert(id, end);
    }

    /// One connection, until it breaks or everything is as it should be.
    async fn connection(&mut self, address: SocketAddr, token: &str, room: i64, until: Option<i64>) {
        let request = format!("ws://{address}/ws?token={token}").into_client_request();
        let mut request = request.unwrap();
        let protocol = "coop.v1".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let Ok(stream) = TcpStream::connect(address).await else {
            return;
        };
        let Ok(Ok((mut socket, _))) = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await else {
            return;
        };
        let tapes: BTreeMap<String, u64> = self.ends.iter().map(|(id, end)| (id.to_string(), *end)).collect();
        let begin = match self.seq {
            0 => json!({ "type": "join", "room": room, "ref": RESUME }),
            seq => {
                let position = json!({ "epoch": self.epoch, "seq": seq, "tapes": tapes });
                json!({ "type": "resume", "rooms": { room.to_string(): position }, "ref": RESUME })
            }
        };
        if until.is_none() {
            self.said += 1;
            self.unsaid.insert(self.said);
        }
        self.resumed = false;
        let mut out = vec![begin];
        out.extend(self.unsaid.iter().map(|number| say(room, *number)));
        for frame in out {
            if socket.send(Message::text(frame.to_string())).await.is_err() {
                return;
            }
        }
        loop {
            if until.is_some_and(|seq| self.seq >= seq) && self.unsaid.is_empty() {
                return;
            }
            match timeout(Duration::from_millis(100), socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => self.hear(&serde_json::from_str(&text).unwrap()),
                Ok(Some(Ok(_))) => {}
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }
}

fn say(room: i64, number: u32) -> Value {
    json!({ "type": "send", "room": room, "client_id": format!("n-{number}"), "text": format!("said {number}"), "ref": number })
}

/// Says, changes and takes back, until it is enough.
async fn sender(room: Room, until: Instant, mut dice: Dice) {
    let mut mine = Vec::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(dice.roll(20, 120))).await;
        match dice.roll(0, 10) {
            0 if !mine.is_empty() => {
                let id = mine[dice.roll(0, mine.len() as u64) as usize];
                let _ = room.edit(id, format!("changed to {}", dice.roll(0, 1_000))).await;
            }
            1 if !mine.is_empty() => {
                let id = mine.swap_remove(dice.roll(0, mine.len() as u64) as usize);
                room.delete(id).await.unwrap();
            }
            _ => mine.push(
                room.send(format!("words {} ü", dice.roll(0, 1_000_000)))
                    .await
                    .unwrap()
                    .message
                    .id,
            ),
        }
    }
}

/// Asks one bot, again and again; every other answer is stopped.
async fn asker(room: Room, bot: &'static str, until: Instant, mut dice: Dice) {
    while Instant::now() < until {
        let turn = room.send(format!("/{bot} essay")).await.unwrap().turn.unwrap();
        if dice.roll(0, 2) == 0 {
            sleep(Duration::from_millis(dice.roll(0, 3_000))).await;
            turn.stop().await.unwrap();
        }
        turn.ended().await.unwrap();
    }
}

async fn whole_history(room: &Room) -> Vec<std::sync::Arc<Said>> {
    let mut messages = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = room.history(Range::After(after), 200).await.unwrap();
        messages.extend(page.messages.iter().cloned());
        match messages.last() {
            Some(last) if page.more => after = last.seq,
            _ => return messages,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_all_the_time_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("coop.db")).await.unwrap();
    let engine = Engine::builder(store)
        .password_cost(Cost::cheap_for_tests())
        .bot(MockBot::named("mock"))
        .bot(MockBot::named("other"));
    let server = Server::on(engine, |api| api, None).await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let id = server.http().group(&anne, "lab", &[&bob]).await;
    let room = server
        .engine
        .user(anne.id.into())
        .await
        .unwrap()
        .room(id.into())
        .await
        .unwrap();
    let end = Instant::now() + BREAKING;
    let load = async {
        tokio::join!(
            sender(room.clone(), end, Dice(11)),
            sender(room.clone(), end, Dice(12)),
            sender(room.clone(), end, Dice(13)),
            asker(room.clone(), "mock", end, Dice(14)),
            asker(room.clone(), "other", end, Dice(15)),
        );
    };
    let mut held = Held::default();
    let mut lines = 0;
    let client = async {
        let mut dice = Dice(0x5eed);
        while Instant::now() < end {
            let lasts = Duration::from_millis(dice.roll(50, 500));
            let line = breaking(server.address, lasts, Dice(dice.roll(1, u64::MAX))).await;
            held.connection(line, &bob.token, id, None).await;
            lines += 1;
        }
    };
    tokio::join!(load, client);
    let head = room.entry().await.unwrap().seq.0 + i64::try_from(held.unsaid.len()).unwrap();
    let last = held.connection(server.address, &bob.token, id, Some(head));
    timeout(PATIENCE, last).await.expect("it does not get to the end");

    let store = whole_history(&room).await;
    let kept: Vec<_> = store.iter().filter(|message| message.seq.0 >= held.from).collect();
    // Those that were deleted before they were told are told as empty, and then as deleted.
    assert_eq!(held.messages.len(), kept.len());
    for message in kept {
        let mine = &held.messages[&message.id.0];
        assert_eq!(mine["text"], message.text.as_str(), "message {}", message.id);
        assert_eq!(mine["status"], message.status.as_str());
        assert_ne!(message.status, MessageStatus::Streaming);
    }
    let said = store
        .iter()
        .filter(|message| message.author.user == Some(bob.id.into()));
    let said: Vec<_> = said.map(|message| message.text.clone()).collect();
    let wanted: BTreeSet<_> = (1..=held.said).map(|number| format!("said {number}")).collect();
    assert_eq!(said.len(), wanted.len(), "something was said twice, or not");
    assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), wanted);
    println!(
        "{lines} lines, {} events, {} pieces, {} snapshots, {} messages said",
        held.events, held.pieces, held.snapshots, held.said
    );
    assert!(
        lines > 100 && held.events > 300 && held.pieces > 300 && held.said > 100,
        "too little happened"
    );
    assert!(held.snapshots <= 5, "it began anew {} times", held.snapshots);
}
