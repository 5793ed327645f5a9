//! The examples that serve, used over real sockets.

use crate::example;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

const PATIENCE: Duration = Duration::from_secs(20);

/// An example that runs until it is told to end.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(name: &str, folder: &Path) -> Self {
        let mut child = Command::new(example(name))
            .arg("127.0.0.1:0")
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self { child, address }
    }

    /// The status, the head and the body of an answer.
    fn call(&self, method: &str, path: &str, headers: &[String], body: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (headers, length) = (headers.join("\r\n"), body.len());
        let more = if headers.is_empty() { "" } else { "\r\n" };
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}{more}\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    /// An interrupt, as at a terminal; it ends in order.
    fn end(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Says something in a room, and what is heard there up to this text.
    async fn converse(&self, path: &str, header: Option<&str>, room: i64, say: &str, until: &str) {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        if let Some(cookie) = header {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        let stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let frames = [
            json!({ "type": "join", "chat_id": room }),
            json!({ "type": "message", "chat_id": room, "content": say }),
        ];
        for frame in frames {
            socket.send(Message::text(frame.to_string())).await.unwrap();
        }
        let heard = async {
            while let Some(frame) = socket.next().await {
                let frame: Value = match frame.unwrap() {
                    Message::Text(text) => serde_json::from_str(&text).unwrap(),
                    _ => continue,
                };
                if frame["message"]["content"] == until {
                    return;
                }
            }
            panic!("it ends before {until:?}");
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("heard");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn id_of(body: &str) -> i64 {
    let json: Value = serde_json::from_str(body).unwrap();
    json["id"].as_i64().unwrap()
}

#[tokio::test]
async fn mount_in_axum() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start("mount_in_axum", folder.path());
    assert_eq!(served.call("GET", "/", &[], "").2, "Log in first.\n");
    let (status, head, _) = served.call("POST", "/login/alice", &[], "");
    assert_eq!(status, 200);
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let known = [format!("Cookie: {cookie}")];
    let draft = r#"{"name": "lab", "is_group": true}"#;
    let (status, _, body) = served.call("POST", "/api/chats", &known, draft);
    assert_eq!(status, 200, "{body}");
    assert_eq!(served.call("GET", "/", &known, "").2, "alice has 1 rooms.\n");
    served
        .converse("/ws", Some(cookie), id_of(&body), "hello", "hello")
        .await;

    // Nobody is somebody by saying so.
    let forged = [
        "Cookie: session=guessed".to_owned(),
        "Identity: 1".to_owned(),
        "X-User-Id: 1".to_owned(),
    ];
    assert_eq!(served.call("GET", "/api/chats", &forged, "").0, 401);
    let stream = tokio::net::TcpStream::connect(&served.address).await.unwrap();
    let request = format!("ws://{}/ws", served.address);
    match tokio_tungstenite::client_async(request, stream).await {
        Err(Error::Http(refused)) => assert_eq!(refused.status(), 403),
        other => panic!("{other:?}"),
    }
    served.end();
}

#[tokio::test]
async fn standalone() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = None;
    for start in 0..2 {
        let served = Served::start("standalone", folder.path());
        let person = r#"{"username": "alice", "email": "a@example.org", "password": "correct horse"}"#;
        let token = kept.get_or_insert_with(|| {
            assert_eq!(served.call("POST", "/api/auth/register", &[], person).0, 200);
            let login = served.call("POST", "/api/auth/login", &[], person).2;
            let login: Value = serde_json::from_str(&login).unwrap();
            login["access_token"].as_str().unwrap().to_owned()
        });
        let bearer = [format!("Authorization: Bearer {token}")];
        let draft = r#"{"name": "lab", "is_group": true}"#;
        let (status, _, body) = served.call("POST", "/api/chats", &bearer, draft);
        assert_eq!(status, 200, "start {start}: {body}");
        let socket = format!("/ws?token={token}");
        served
            .converse(&socket, None, id_of(&body), "/shout hear me", "HEAR ME")
            .await;
        served.end();
    }
}
