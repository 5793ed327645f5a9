//! Two small clients of the test's own. Every wait has an end.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Everybody's.
pub(crate) const PASSWORD: &str = "password of mine";

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must come where nothing may come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// An HTTP answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The words of a failure, which must be one string.
    pub(crate) fn detail(&self) -> String {
        let json = self.json();
        json["detail"]
            .as_str()
            .unwrap_or_else(|| panic!("no words: {self:?}"))
            .to_owned()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Http {
    address: SocketAddr,
}

/// Somebody with an account and a token.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) id: i64,
    pub(crate) token: String,
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends these bytes and reads one answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Reply {
        timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request).await.unwrap();
            read_answer(&mut stream, request.starts_with(b"HEAD ")).await
        })
        .await
        .expect("no answer")
    }

    /// The status of an answer that has no body.
    pub(crate) async fn raw_head(&self, request: &[u8]) -> u16 {
        let answered = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                assert_ne!(
                    stream.read_buf(&mut bytes).await.unwrap(),
                    0,
                    "closed without an answer"
                );
            }
            String::from_utf8(bytes).unwrap()
        });
        let head = answered.await.expect("no answer");
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Reads server-sent events until this has come, or there are no more.
    pub(crate) async fn follow(&self, path: &str, headers: &[(&str, &str)], until: &str) -> Reply {
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let following = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
            let mut reply = read_answer(&mut stream, true).await;
            let mut bytes = reply.body.clone().into_bytes();
            let last = Duration::from_millis(300);
            while !String::from_utf8_lossy(&bytes).contains(until) {
                match timeout(last, stream.read_buf(&mut bytes)).await {
                    Ok(Ok(1..)) => {}
                    _ => break,
                }
            }
            reply.body = String::from_utf8(bytes).unwrap();
            reply
        });
        following.await.expect("no events")
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send_text(method, path, headers, &body).await
    }

    /// The same with any body.
    pub(crate) async fn send_text(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.raw(request.as_bytes()).await
    }

    pub(crate) async fn get(&self, who: &Person, path: &str) -> Reply {
        self.call("GET", who, path, None).await
    }

    pub(crate) async fn post(&self, who: &Person, path: &str, body: Value) -> Reply {
        self.call("POST", who, path, Some(&body)).await
    }

    pub(crate) async fn delete(&self, who: &Person, path: &str) -> Reply {
        self.call("DELETE", who, path, None).await
    }

    async fn call(&self, method: &str, who: &Person, path: &str, body: Option<&Value>) -> Reply {
        let token = format!("Bearer {}", who.token);
        self.send(method, path, &[("Authorization", &token)], body).await
    }

    pub(crate) async fn person(&self, name: &str) -> Person {
        let account = json!({ "username": name, "email": format!("{name}@example.org"), "password": PASSWORD });
        let made = self.send("POST", "/api/auth/register", &[], Some(&account)).await;
        assert_eq!(made.status, 200, "{made:?}");
        self.log_in(name).await
    }

    pub(crate) async fn log_in(&self, name: &str) -> Person {
        let credentials = json!({ "username": name, "password": PASSWORD });
        let login = self.send("POST", "/api/auth/login", &[], Some(&credentials)).await;
        assert_eq!(login.status, 200, "{login:?}");
        let token = login.json()["access_token"].as_str().unwrap().to_owned();
        let mut person = Person {
            name: name.to_owned(),
            id: 0,
            token,
        };
        person.id = self.get(&person, "/api/auth/me").await.json()["id"].as_i64().unwrap();
        person
    }

    /// Makes a group with these people in it.
    pub(crate) async fn group(&self, owner: &Person, name: &str, others: &[&Person]) -> i64 {
        let names: Vec<_> = others.iter().map(|person| &person.name).collect();
        let draft = json!({ "name": name, "is_group": true, "is_ai_chat": false, "participant_usernames": names });
        let made = self.post(owner, "/api/chats", draft).await;
        assert_eq!(made.status, 200, "{made:?}");
        made.json()["id"].as_i64().unwrap()
    }

    /// The contents of a room's messages.
    pub(crate) async fn contents(&self, who: &Person, room: i64) -> Vec<String> {
        let messages = self.get(who, &format!("/api/chats/{room}/messages")).await.json();
        let content = |message: &Value| message["content"].as_str().unwrap().to_owned();
        messages.as_array().unwrap().iter().map(content).collect()
    }
}

pub(crate) async fn read_reply(stream: &mut TcpStream) -> Reply {
    read_answer(stream, false).await
}

/// An answer that may have no body, whatever its head says.
async fn read_answer(stream: &mut TcpStream, only_head: bool) -> Reply {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "closed without an answer"
        );
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<_> = lines.filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let length = if only_head { 0 } else { length };
    while bytes.len() < head + length {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed within an answer");
    }
    Reply {
        status,
        headers,
        body: String::from_utf8(bytes[head..].to_vec()).unwrap(),
    }
}

/// A socket that speaks the seed's dialect, or another.
pub(crate) struct Ws {
    stream: WebSocketStream<TcpStream>,
    is_v1: bool,
}

impl Ws {
    pub(crate) fn request(address: SocketAddr, token: &str) -> Request {
        format!("ws://{address}/ws?token={token}")
            .into_client_request()
            .unwrap()
    }

    pub(crate) async fn open(address: SocketAddr, token: &str) -> Self {
        Self::try_open(address, Self::request(address, token))
            .await
            .expect("no socket")
    }

    /// In this subprotocol, the token among those that are offered.
    pub(crate) async fn open_in(address: SocketAddr, token: &str, protocol: &str) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        let offered = format!("{protocol}, bearer.{token}").parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offered);
        Self::try_open(address, request).await.expect("no socket")
    }

    pub(crate) fn speaks_v1(&self) -> bool {
        self.is_v1
    }

    /// Opens, or gives the status with which that was refused.
    pub(crate) async fn try_open(address: SocketAddr, request: Request) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, request).await
    }

    pub(crate) async fn over(stream: TcpStream, request: Request) -> Result<Self, u16> {
        match timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await {
            Ok(Ok((stream, response))) => Ok(Self {
                stream,
                is_v1: response.headers().get("sec-websocket-protocol").is_some(),
            }),
            Ok(Err(Error::Http(response))) => Err(response.status().as_u16()),
            other => panic!("no handshake: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    pub(crate) async fn join(&mut self, room: i64) {
        self.send(json!({ "type": "join", "chat_id": room })).await;
    }

    pub(crate) async fn say(&mut self, room: i64, content: &str) {
        self.send(json!({ "type": "message", "chat_id": room, "content": content }))
            .await;
    }

    /// The next message of any kind; `None` when the connection is over.
    pub(crate) async fn next_message(&mut self) -> Option<Message> {
        match timeout(PATIENCE, self.stream.next()).await.expect("nothing came") {
            Some(Ok(message)) => Some(message),
            _ => None,
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match self.next_message().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("not a frame: {other:?}"),
            }
        }
    }

    /// The next frame of this type; others are skipped.
    pub(crate) async fn of_type(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Reads pieces until the answer is this.
    pub(crate) async fn answer(&mut self, whole: &str) -> Value {
        let mut before = String::new();
        loop {
            let frame = self.of_type("bot_stream").await;
            let content = frame["message"]["content"].as_str().unwrap();
            assert!(
                content.starts_with(&before),
                "{content:?} does not go on from {before:?}"
            );
            if content == whole {
                return frame;
            }
            assert!(whole.starts_with(content), "{content:?} is not how {whole:?} begins");
            before = content.to_owned();
        }
    }

    /// Waits until everything sent before has been handled: a refusal comes back in order.
    pub(crate) async fn settle(&mut self) {
        self.join(i64::MAX >> 11).await;
        loop {
            let frame = self.next().await;
            if frame["error"] == "Not authorized" {
                return;
            }
        }
    }

    /// Everything that comes until nothing has come for a while.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Ok(Some(Ok(message))) = timeout(SILENCE, self.stream.next()).await {
            if let Message::Text(text) = message {
                frames.push(serde_json::from_str(&text).unwrap());
            }
        }
        frames
    }

    /// The code with which the server closes; what comes before is skipped. `None` if the connection just ends.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        let until = Instant::now() + PATIENCE;
        loop {
            match timeout_at(until, self.stream.next()).await.expect("not closed") {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                _ => return None,
            }
        }
    }
}
