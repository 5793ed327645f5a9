//! What stands between a bot and those who read it: the way of a provider's piece to a reader's frame, and the way of a stop
//! to the provider.
//!
//! `cargo bench -p coop-benches --bench turn`. `COOP_BENCH_READERS` is how many sockets read (1,000). Provider, server and
//! readers share this process and its cores, so the times hold the work of all three; a bare loop over the same sockets,
//! in which the provider itself writes one frame to each, is measured beside them.

use coop_benches::{Anything, heading, told};
use coop_bots::{GeminiBot, GeminiSettings};
use coop_core::store::memory::MemoryStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::{Engine, Event, Room, RoomId};
use coop_server::{Api, Limits, Secret, TokenMaker, serve};
use futures::StreamExt;
use std::env;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SECRET: &str = "a secret of at least thirty-two bytes";
const PATIENCE: Duration = Duration::from_secs(30);
/// How many pieces a provider sends, and how long it waits before each.
const PIECES: usize = 400;
const PACE: Duration = Duration::from_millis(25);
/// How often a turn is stopped.
const STOPS: usize = 200;

#[tokio::main]
async fn main() -> Anything<()> {
    let readers = env::var("COOP_BENCH_READERS").map_or(Ok(1_000), |text| text.parse())?;
    pieces(readers).await?;
    stops().await
}

// A provider on loopback.

/// When each piece of the answer under way was sent, and when its listener went away.
#[derive(Default)]
struct Sent {
    pieces: Mutex<Vec<Instant>>,
    gone: Mutex<Option<Instant>>,
}

struct Provider {
    address: SocketAddr,
    sent: Arc<Sent>,
}

impl Provider {
    /// Answers everything with so many pieces, each of which holds its number; then it waits until its listener goes.
    async fn start(pieces: usize, pace: Duration) -> Anything<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let sent: Arc<Sent> = Arc::default();
        let log = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    // Whoever listens may go away.
                    let _ = answer(stream, &log, pieces, pace).await;
                });
            }
        });
        Ok(Self { address, sent })
    }

    fn bot(&self) -> Anything<GeminiBot> {
        let mut settings = GeminiSettings::new("a key");
        settings.base_url = format!("http://{}", self.address);
        Ok(GeminiBot::new("gemini", settings)?)
    }
}

async fn answer(stream: TcpStream, log: &Arc<Sent>, pieces: usize, pace: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    let mut request = vec![0; 64 * 1024];
    if from.read(&mut request).await? == 0 {
        return Ok(());
    }
    let going = Arc::clone(log);
    let listener = tokio::spawn(async move {
        while from.read(&mut request).await.is_ok_and(|read| read > 0) {}
        let _ = going.gone.lock().map(|mut gone| gone.replace(Instant::now()));
    });
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    to.write_all(head.as_bytes()).await?;
    for number in 0..pieces {
        sleep(pace).await;
        let event = format!(
            "data: {{\"candidates\":[{{\"content\":{{\"role\":\"model\",\"parts\":[{{\"text\":\"#{number:04} so that it \
             goes on. \"}}]}}}}]}}\r\n\r\n"
        );
        let _ = log.pieces.lock().map(|mut pieces| pieces.push(Instant::now()));
        to.write_all(event.as_bytes()).await?;
    }
    to.write_all(b"data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n")
        .await?;
    let _ = listener.await;
    Ok(())
}

// From the provider's piece to the reader's frame.

async fn pieces(readers: usize) -> Anything<()> {
    let provider = Provider::start(PIECES, PACE).await?;
    let engine = Engine::builder(MemoryStore::new()).bot(provider.bot()?).build().await?;
    let anne = engine.create_user("anne").await?;
    let room = anne.create_room("lab").await?;
    let api = Api::builder(engine.clone())
        .jwt_secret(SECRET)
        .limits(Limits::off())
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, api).into_future());
    let token = TokenMaker::new(&Secret::new(SECRET)?, Duration::from_secs(3_600)).make(anne.account())?;
    let mut hearing = JoinSet::new();
    for _ in 0..readers {
        let socket = connect(address, &format!("/ws?token={token}"), room.id()).await?;
        hearing.spawn(hear(socket, Arc::clone(&provider.sent)));
    }
    sleep(Duration::from_millis(500)).await;
    let mut inside = room.subscribe().await?;
    let sent = Arc::clone(&provider.sent);
    let in_process = tokio::spawn(async move {
        let (mut text, mut seen, mut times) = (String::new(), 0, Vec::new());
        while seen < PIECES {
            match inside.next().await {
                Some(Ok(Event::Delta { text: piece, .. })) => text.push_str(&piece),
                Some(Ok(_)) => {}
                _ => break,
            }
            note(&text, &mut seen, &sent, &mut times);
        }
        times
    });
    room.send("/gemini tell me everything").await?;
    let mut all = Vec::new();
    while let Some(heard) = timeout(PATIENCE, hearing.join_next()).await? {
        let heard = heard??;
        assert_eq!(heard.len(), PIECES, "every reader gets every piece");
        all.extend(heard);
    }
    heading(&format!("a provider's piece, every {} ms, at", PACE.as_millis()), "ms");
    told(&format!("{readers} sockets (seed: merged over 75 ms)"), 1e3, all);
    told(
        "a reader in the process (over 25 ms)",
        1e3,
        timeout(PATIENCE, in_process).await??,
    );
    engine.close(Duration::ZERO).await;
    told(
        &format!("{readers} sockets, written by a bare loop"),
        1e3,
        bare(readers).await?,
    );
    Ok(())
}

/// The number behind the last mark, and with it every piece up to it, has arrived.
fn note(text: &str, seen: &mut usize, sent: &Sent, times: &mut Vec<Duration>) {
    let newest = text
        .rfind('#')
        .and_then(|at| text.get(at + 1..at + 5)?.parse::<usize>().ok());
    let Some(newest) = newest.filter(|newest| *newest >= *seen) else {
        return;
    };
    let now = Instant::now();
    if let Ok(pieces) = sent.pieces.lock() {
        times.extend(pieces[*seen..=newest].iter().map(|at| now - *at));
    }
    *seen = newest + 1;
}

/// Reads frames as they come, and looks for numbers in them.
async fn hear(mut socket: TcpStream, sent: Arc<Sent>) -> Anything<Vec<Duration>> {
    let (mut seen, mut times, mut text) = (0, Vec::with_capacity(PIECES), String::new());
    let mut bytes = vec![0; 64 * 1024];
    while seen < PIECES {
        let read = timeout(PATIENCE, socket.read(&mut bytes)).await??;
        if read == 0 {
            return Err("a socket was closed".into());
        }
        // A number may be cut in two: what was read last stays.
        let kept = text.len().saturating_sub(8);
        let kept = (kept..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.drain(..kept);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        note(&text, &mut seen, &sent, &mut times);
    }
    Ok(times)
}

async fn connect(address: SocketAddr, path: &str, room: RoomId) -> Anything<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, socket.read_u8()).await??);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(format!("no handshake: {}", String::from_utf8_lossy(&answer)).into());
    }
    let join = format!("{{\"type\":\"join\",\"chat_id\":{room}}}");
    let mut frame = vec![0x81, 0x80 | u8::try_from(join.len())?, 0, 0, 0, 0];
    frame.extend_from_slice(join.as_bytes());
    socket.write_all(&frame).await?;
    Ok(socket)
}

/// The floor: whoever has a piece writes it to every socket, one after the other, and nothing else is done.
async fn bare(readers: usize) -> Anything<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let sent: Arc<Sent> = Arc::default();
    let (mut hearing, mut sockets) = (JoinSet::new(), Vec::new());
    for _ in 0..readers {
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let server = server?.0;
        server.set_nodelay(true)?;
        sockets.push(server);
        hearing.spawn(hear(client?, Arc::clone(&sent)));
    }
    for number in 0..PIECES {
        sleep(PACE).await;
        sent.pieces.lock().map_err(|_| "poisoned")?.push(Instant::now());
        let piece = format!("#{number:04} so that it goes on. ");
        for socket in &mut sockets {
            socket.write_all(piece.as_bytes()).await?;
        }
    }
    let mut all = Vec::new();
    while let Some(heard) = timeout(PATIENCE, hearing.join_next()).await? {
        all.extend(heard??);
    }
    Ok(all)
}

// From a stop to the provider.

async fn stops() -> Anything<()> {
    let provider = Provider::start(usize::MAX, Duration::from_millis(2)).await?;
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("stops.db")).await?;
    let engine = Engine::builder(store).bot(provider.bot()?).build().await?;
    let anne = engine.create_user("anne").await?;
    let room: Room = anne.create_room("lab").await?;
    let mut events = room.subscribe().await?;
    let (mut closed, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..STOPS {
        *provider.sent.gone.lock().map_err(|_| "poisoned")? = None;
        let turn = room.send("/gemini talk for ever").await?.turn.ok_or("it asks")?;
        let mut answer = None;
        loop {
            match timeout(PATIENCE, events.next()).await? {
                Some(Ok(Event::TurnStarted { turn: id, message, .. })) if id == turn.id() => answer = Some(message.id),
                Some(Ok(Event::Delta { message, .. })) if answer == Some(message) => break,
                Some(Ok(_)) => {}
                other => return Err(format!("no answer: {other:?}").into()),
            }
        }
        let begun = Instant::now();
        turn.stop().await?;
        turn.ended().await?;
        ended.push(begun.elapsed());
        let gone = async {
            loop {
                if let Some(at) = provider.sent.gone.lock().ok().and_then(|gone| *gone) {
                    return at;
                }
                sleep(Duration::from_micros(200)).await;
            }
        };
        closed.push(timeout(PATIENCE, gone).await?.saturating_duration_since(begun));
    }
    heading("from a stop, in an answer, until", "ms");
    told("the provider's connection is closed", 1e3, closed);
    told("the end is on disk and told", 1e3, ended);
    engine.close(Duration::ZERO).await;
    Ok(())
}
