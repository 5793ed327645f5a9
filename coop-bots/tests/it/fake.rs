//! A provider that answers what a test tells it, byte for byte, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What is done with one request.
#[derive(Clone)]
pub(crate) struct Play {
    head: String,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// The same bytes again and again, until so many were sent or nobody listens.
    Flood(Vec<u8>, usize),
    /// Nothing more, until the other end has gone.
    Hang,
}

/// An answer with this status and these headers.
pub(crate) fn answer(status: u16, headers: &str) -> Play {
    Play {
        head: format!("HTTP/1.1 {status} Whatever\r\nConnection: close\r\n{headers}\r\n"),
        steps: Vec::new(),
    }
}

/// A stream of events that ends with the connection.
pub(crate) fn stream() -> Play {
    answer(200, "Content-Type: text/event-stream\r\n")
}

/// One that says where it ends, and may be cut off before.
pub(crate) fn cut_off(text: &str) -> Play {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    answer(200, "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n").bytes(chunk)
}

pub(crate) fn error(status: u16, body: &str) -> Play {
    answer(status, "Content-Type: application/json\r\n").bytes(body)
}

impl Play {
    pub(crate) fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Bytes(bytes.as_ref().to_vec()));
        self
    }

    /// An event with this data.
    pub(crate) fn event(self, data: &str) -> Self {
        self.bytes(format!("data: {data}\r\n\r\n"))
    }

    /// An event with this text.
    pub(crate) fn text(self, text: &str) -> Self {
        self.event(&format!(
            r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}}}}]}}"#
        ))
    }

    /// The last event, with this reason.
    pub(crate) fn end(self, reason: &str) -> Self {
        self.event(&format!(r#"{{"candidates":[{{"finishReason":"{reason}"}}]}}"#))
    }

    /// The same bytes, each in a packet of its own.
    pub(crate) fn one_by_one(mut self) -> Self {
        let single = |step: Step| match step {
            Step::Bytes(bytes) => bytes.into_iter().map(|byte| Step::Bytes(vec![byte])).collect(),
            other => vec![other],
        };
        self.steps = self.steps.into_iter().flat_map(single).collect();
        self
    }

    pub(crate) fn wait(mut self, time: Duration) -> Self {
        self.steps.push(Step::Wait(time));
        self
    }

    pub(crate) fn flood(mut self, bytes: &str, most: usize) -> Self {
        self.steps.push(Step::Flood(bytes.as_bytes().to_vec(), most));
        self
    }

    pub(crate) fn hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How many clients went away while it hung.
    gone: watch::Receiver<usize>,
}

impl Fake {
    /// Answers the first request with the first of these, and so on; further ones like the last.
    pub(crate) async fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (tell, gone) = watch::channel(0);
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let play = plays[number.min(plays.len() - 1)].clone();
                let (log, tell) = (Arc::clone(&log), tell.clone());
                tokio::spawn(async move {
                    let Some(asked) = read(&mut stream).await else { return };
                    log.lock().unwrap().push(asked);
                    let _ = play.run(&mut stream, &tell).await;
                });
            }
        });
        Self { address, asked, gone }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until a client has gone that was left hanging.
    pub(crate) async fn left(&self) {
        self.gone.clone().wait_for(|gone| *gone > 0).await.unwrap();
    }
}

impl Play {
    async fn run(&self, stream: &mut TcpStream, gone: &watch::Sender<usize>) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(self.head.as_bytes()).await?;
        for step in &self.steps {
            match step {
                Step::Bytes(bytes) => {
                    stream.write_all(bytes).await?;
                    tokio::task::yield_now().await;
                }
                Step::Wait(time) => sleep(*time).await,
                Step::Flood(bytes, most) => {
                    for _ in 0..most / bytes.len() {
                        stream.write_all(bytes).await?;
                    }
                }
                Step::Hang => {
                    let mut byte = [0];
                    let _ = stream.read(&mut byte).await;
                    gone.send_modify(|gone| *gone += 1);
                }
            }
        }
        stream.shutdown().await
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length?.parse().ok()?;
    while bytes.len() < end + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    let body = String::from_utf8(bytes[end..].to_vec()).ok()?;
    Some(Asked { head, body })
}
