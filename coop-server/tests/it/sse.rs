//! A room as server-sent events: what comes, where it is taken up again, and what ends it.

use crate::client::{PATIENCE, Person};
use crate::http::check_failure;
use crate::server::Server;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An event as a browser's `EventSource` would have it.
#[derive(Debug)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Value,
}

struct Stream {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Stream {
    async fn open(server: &Server, person: &Person, path: &str, last: Option<&str>) -> Self {
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {}\r\n{last}\r\n",
            person.token
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut me = Self {
            stream,
            bytes: Vec::new(),
        };
        let head = me.until("\r\n\r\n").await.expect("no answer").to_ascii_lowercase();
        assert!(head.starts_with("http/1.0 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        me
    }

    /// What comes before this; `None` at the end.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            let found = self
                .bytes
                .windows(mark.len())
                .position(|window| window == mark.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8(self.bytes[..at].to_vec()).unwrap();
                self.bytes.drain(..at + mark.len());
                return Some(before);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await;
            if read.expect("nothing came").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.until("\n\n").await?;
            let field = |name: &str| {
                let mut lines = block.lines();
                lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                let data = serde_json::from_str(&data).unwrap();
                return Some(Event {
                    id: field("id: "),
                    kind,
                    data,
                });
            }
        }
    }

    async fn of_kind(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.expect("it ended");
            if event.kind == kind || event.data["kind"] == kind {
                return event;
            }
        }
    }

    async fn is_over(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }
}

#[tokio::test]
async fn a_conversation_live_and_from_where_it_was_left() {
    let server = Server::start().await;
    let (anne, bob) = (server.person("anne").await, server.person("bob").await);
    let room = server.http().group(&anne, "lab", &[&bob]).await;
    let (path, post) = (
        format!("/api/rooms/{room}/events"),
        format!("/api/rooms/{room}/messages"),
    );
    let mut live = Stream::open(&server, &bob, &path, None).await;
    let snapshot = live.next().await.unwrap();
    assert_eq!(
        (snapshot.kind.as_str(), &snapshot.data["seq"]),
        ("snapshot", &Value::from(2))
    );
    let say = async |text: &str| {
        server
            .http()
            .post(&anne, &post, serde_json::json!({ "text": text }))
            .await
    };
    assert_eq!(say("/bot tell").await.json()["turns"][0]["bot"], "teller");
    let started = live.of_kind("turn_started").await;
    let epoch = snapshot.data["epoch"].as_i64().unwrap();
    assert_eq!(started.id, Some(format!("{epoch}.{}", started.data["seq"])));
    server.piece("one ");
    let piece = live.of_kind("delta").await;
    assert_eq!((&piece.id, &piece.data["text"]), (&None, &Value::from("one ")));
    server.piece("two");
    live.of_kind("delta").await;
    drop(live);
    // In the middle of the answer: the text so far, from its beginning, and then what follows.
    let mut again = Stream::open(&server, &bob, &path, started.id.as_deref()).await;
    let piece = again.next().await.unwrap();
    assert_eq!(
        (&piece.data["offset"], &piece.data["text"]),
        (&Value::from(0), &Value::from("one two"))
    );
    server.done();
    let end = again.of_kind("turn_ended").await;
    assert_eq!(end.data["text"], "one two");
    say("and that is that").await;
    let posted = again.of_kind("message_posted").await;
    drop(again);
    let seq = started.data["seq"].as_i64().unwrap();
    for (path, last) in [
        (path.clone(), started.id.as_deref()),
        (format!("{path}?after={seq}"), None),
    ] {
        let mut missed = Stream::open(&server, &bob, &path, last).await;
        let kinds =
            [missed.next().await.unwrap(), missed.next().await.unwrap()].map(|event| event.data["kind"].clone());
        assert_eq!(kinds, ["turn_ended", "message_posted"]);
    }
    // Another life of the log, and what lies ahead of it: everything anew.
    for last in [format!("{}.{seq}", epoch + 1), format!("{epoch}.999")] {
        let mut anew = Stream::open(&server, &bob, &path, Some(&last)).await;
        assert_eq!(anew.next().await.unwrap().kind, "snapshot");
    }
    assert!(posted.id.is_some());
    for (path, last) in [(path.clone(), "nonsense"), (path.clone(), "1"), (path.clone(), "1.x")] {
        let headers = [
            ("Authorization", format!("Bearer {}", bob.token)),
            ("Last-Event-ID", last.to_owned()),
        ];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refused = server.http().send("GET", &path, &headers, None).await;
        check_failure(&refused, 422, last);
    }
}

#[tokio::test]
async fn what_ends_it() {
    let mut server = Server::limited(|limits| limits.sockets_per_user = 1).await;
    let (anne, bob, carol) = (
        server.person("anne").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let room = server.http().group(&anne, "lab", &[&bob, &carol]).await;
    let path = format!("/api/rooms/{room}/events");
    let mut removed = Stream::open(&server, &bob, &path, None).await;
    // It counts as a socket.
    check_failure(&server.http().get(&bob, &path).await, 429, "a second one");
    let member = format!("/api/chats/{room}/participants/{}", bob.id);
    assert_eq!(server.http().delete(&anne, &member).await.status, 200);
    let gone = removed.of_kind("gone").await;
    assert_eq!(
        (&gone.data["reason"], &gone.data["by"]),
        (&Value::from("removed"), &Value::from(anne.id))
    );
    assert!(removed.is_over().await);
    check_failure(&server.http().get(&bob, &path).await, 404, "who was removed");

    let mut logged_out = Stream::open(&server, &carol, &path, None).await;
    let user = server.engine.user(carol.id.into()).await.unwrap();
    user.log_out_everywhere().await.unwrap();
    assert!(logged_out.is_over().await);

    let mut last = Stream::open(&server, &anne, &path, None).await;
    server.end();
    assert!(last.is_over().await);
    timeout(PATIENCE, &mut server.task)
        .await
        .expect("the server does not end")
        .unwrap();
}
