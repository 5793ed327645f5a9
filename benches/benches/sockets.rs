//! What a delivered message costs a server on real sockets: ours, which stores it first, beside a bare fastwebsockets
//! server that writes it to each socket in turn and stores nothing, and beside a loop of plain writes of the same
//! bytes (the floor).
//!
//! `cargo bench -p coop-benches --bench sockets`. `COOP_BENCH_MEMBERS` (100) and `COOP_BENCH_MESSAGES` (2,000) set the
//! size. Each server is a process of its own on two threads; its CPU time is read from `/proc`. All clients live in this
//! program, read raw frames, and check that every message arrives at each of them exactly once and in order.

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

type Anything<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Names what a child process of this program is, and where it writes its address.
const AS_SERVER: &str = "COOP_BENCH_SERVER";
/// Stands before the number of a message.
const MARK: u8 = b'#';
/// The digits of that number.
const DIGITS: usize = 6;
/// A client that has waited this long for a message will not get it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many messages are on their way at a time.
const IN_FLIGHT: [usize; 2] = [1, 8];

fn main() -> Anything<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Ok(what) = std::env::var(AS_SERVER) {
        let (kind, port_file) = what.split_once(' ').ok_or("what server?")?;
        return match kind {
            "bare" => runtime.block_on(bare(Path::new(port_file))),
            _ => floor(Path::new(port_file)),
        };
    }
    runtime.block_on(measure_all())
}

async fn measure_all() -> Anything<()> {
    let members = setting("COOP_BENCH_MEMBERS", 100)?;
    let messages = setting("COOP_BENCH_MESSAGES", 2_000)?;
    println!("{members} members, {messages} messages; µs of server CPU per delivered message\n");
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>10} {:>11}",
        "in flight", "ours", "bare", "floor", "ours/bare", "bare/floor"
    );
    for in_flight in IN_FLIGHT {
        // One after the other, the same load for each; the others send frames as long as ours turn out to be.
        let ours = Ours::start(members)?;
        let (mine, length) = measure(&ours.process, ours.connect().await?, messages, in_flight, Sender::Chat).await?;
        drop(ours);
        let text = "x".repeat(length);
        let mut others = [0.0; 2];
        for (kind, cost) in ["bare", "floor"].into_iter().zip(&mut others) {
            let server = Plain::start(kind)?;
            let clients = connect(server.address, members, |_| "/".to_owned()).await?;
            (*cost, _) = measure(
                &server.process,
                clients,
                messages,
                in_flight,
                Sender::Text(text.clone()),
            )
            .await?;
        }
        let [bare, floor] = others;
        let (to_bare, to_floor) = (mine / bare, bare / floor);
        println!("{in_flight:>10} {mine:>8.2} {bare:>8.2} {floor:>8.2} {to_bare:>10.2} {to_floor:>11.2}");
    }
    Ok(())
}

fn setting(name: &str, default: usize) -> Anything<usize> {
    Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
}

/// What the first client sends.
#[derive(Clone)]
enum Sender {
    /// A chat message to our server, 100 bytes of content.
    Chat,
    /// As many bytes of text, the number in front.
    Text(String),
}

impl Sender {
    fn payload(&self, number: usize) -> String {
        match self {
            Self::Chat => {
                let filling = "x".repeat(100 - DIGITS - 1);
                format!(r##"{{"type":"message","chat_id":1,"content":"#{number:0DIGITS$}{filling}"}}"##)
            }
            Self::Text(filling) => format!(
                "#{number:0DIGITS$}{}",
                &filling[..filling.len().saturating_sub(DIGITS + 1)]
            ),
        }
    }
}

/// Sends the messages through the first client and waits until all clients have all of them. Returns the server's CPU
/// time per delivery in microseconds, and the length of the messages delivered.
async fn measure(
    server: &Process,
    clients: Vec<TcpStream>,
    messages: usize,
    in_flight: usize,
    sender: Sender,
) -> Anything<(f64, usize)> {
    let members = clients.len();
    let arrived: Arc<Vec<AtomicUsize>> = Arc::new((0..messages).map(|_| AtomicUsize::new(0)).collect());
    let window = Arc::new(Semaphore::new(in_flight));
    let mut tasks = JoinSet::new();
    // All are kept: dropping one would close its direction.
    let mut writings = Vec::new();
    for client in clients {
        let (reading, writing) = client.into_split();
        writings.push(writing);
        let (arrived, window) = (Arc::clone(&arrived), Arc::clone(&window));
        tasks.spawn(read_all(reading, messages, move |number| {
            if arrived[number].fetch_add(1, Ordering::AcqRel) + 1 == members {
                window.add_permits(1);
            }
        }));
    }
    let writing = writings.first_mut().ok_or("no clients")?;
    let before = server.cpu()?;
    for number in 0..messages {
        tokio::time::timeout(PATIENCE, window.acquire()).await??.forget();
        writing.write_all(&masked(sender.payload(number).as_bytes())).await?;
    }
    let mut length = 0;
    while let Some(read) = tasks.join_next().await {
        length = read??;
    }
    let cost = server.cpu()? - before;
    Ok((cost.as_secs_f64() * 1e6 / (messages * members) as f64, length))
}

/// Reads frames until all numbered messages have come, in order and each once.
async fn read_all(
    mut socket: tokio::net::tcp::OwnedReadHalf,
    messages: usize,
    mut tell: impl FnMut(usize),
) -> Anything<usize> {
    let (mut bytes, mut next, mut length) = (Vec::with_capacity(64 * 1024), 0, 0);
    while next < messages {
        while let Some((payload, rest)) = frame(&bytes) {
            if let Some(number) = numbered(payload) {
                if number != next {
                    return Err(format!("message {number} came where {next} was due").into());
                }
                length = payload.len();
                next += 1;
                tell(number);
            }
            let used = bytes.len() - rest;
            bytes.drain(..used);
        }
        if next < messages && tokio::time::timeout(PATIENCE, socket.read_buf(&mut bytes)).await?? == 0 {
            return Err("the server closed".into());
        }
    }
    Ok(length)
}

/// The first frame's payload and how many bytes follow it.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(head..head + length)?;
    Some((payload, bytes.len() - head - length))
}

fn numbered(payload: &[u8]) -> Option<usize> {
    let at = payload.iter().position(|byte| *byte == MARK)?;
    std::str::from_utf8(payload.get(at + 1..at + 1 + DIGITS)?)
        .ok()?
        .parse()
        .ok()
}

/// A client's text frame; the mask of zeros leaves the payload as it is.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Opens sockets and shakes hands on each.
async fn connect(address: SocketAddr, members: usize, path: impl Fn(usize) -> String) -> Anything<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for member in 0..members {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            path(member)
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(socket.read_u8().await?);
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no handshake: {}", String::from_utf8_lossy(&answer)).into());
        }
        clients.push(socket);
    }
    Ok(clients)
}

// Servers.

/// A child process, killed at the end.
struct Process(Child);

impl Process {
    /// User and system time so far.
    fn cpu(&self) -> Anything<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name of the program may hold anything; the fields after it do not.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).ok_or("stat")?.parse::<u64>()? + fields.get(12).ok_or("stat")?.parse::<u64>()?;
        // Linux shows these in hundredths of a second, whatever the kernel counts in.
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a server to write where it listens.
fn listening(port_file: &Path) -> Anything<SocketAddr> {
    let until = Instant::now() + PATIENCE;
    loop {
        match std::fs::read_to_string(port_file) {
            Ok(text) if text.trim().parse::<u16>().is_ok() => {
                return Ok(([127, 0, 0, 1], text.trim().parse()?).into());
            }
            _ if Instant::now() > until => return Err("the server does not start".into()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// coop-server with a room in which everybody is.
struct Ours {
    process: Process,
    address: SocketAddr,
    tokens: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Ours {
    fn start(members: usize) -> Anything<Self> {
        let folder = tempfile::tempdir()?;
        let port_file = folder.path().join("port");
        let child = Command::new(binary()?)
            .stdout(std::process::Stdio::null())
            .env("COOP_LIMITS", "off")
            .args(["--listen", "127.0.0.1:0", "--log", "error", "--port-file"])
            .arg(&port_file)
            .arg("--database")
            .arg(format!("sqlite:{}", folder.path().join("coop.db").display()))
            .spawn()?;
        let process = Process(child);
        let address = listening(&port_file)?;
        let mut tokens = Vec::new();
        let names: Vec<String> = (0..members).map(|member| format!("member{member}")).collect();
        for name in &names {
            let account = format!(r#"{{"username":"{name}","email":"{name}@example.org","password":"correct horse"}}"#);
            post(address, "/api/auth/register", &account, "")?;
            let login = post(address, "/api/auth/login", &account, "")?;
            tokens.push(text_field(&login, "access_token").ok_or("no token")?);
        }
        let others = names[1..].join("\",\"");
        let room = format!(r#"{{"name":"bench","is_group":true,"participant_usernames":["{others}"]}}"#);
        let room = post(address, "/api/chats", &room, &tokens[0])?;
        if !room.contains(r#""id":1,"#) {
            return Err(format!("another room than the first: {room}").into());
        }
        Ok(Self {
            process,
            address,
            tokens,
            _folder: folder,
        })
    }

    async fn connect(&self) -> Anything<Vec<TcpStream>> {
        let mut clients = connect(self.address, self.tokens.len(), |member| {
            format!("/ws?token={}", self.tokens[member])
        })
        .await?;
        for client in &mut clients {
            client.write_all(&masked(br#"{"type":"join","chat_id":1}"#)).await?;
        }
        // The joins are through when the last of them has been told to the others.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(clients)
    }
}

/// Builds the server as `cargo run --release` does, and says where it is.
fn binary() -> Anything<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--locked", "-p", "coop-server"])
        .status()?;
    if !built.success() {
        return Err("coop-server does not build".into());
    }
    // This program lies in target/release/deps.
    let here = std::env::current_exe()?;
    Ok(here.ancestors().nth(2).ok_or("no target folder")?.join("coop-server"))
}

fn post(address: SocketAddr, path: &str, body: &str, token: &str) -> Anything<String> {
    let mut socket = StdStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 2") {
        Ok(answer)
    } else {
        Err(format!("{path}: {answer}").into())
    }
}

fn text_field(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// This program once more, as one of the other two servers.
struct Plain {
    process: Process,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Plain {
    fn start(kind: &str) -> Anything<Self> {
        let folder = tempfile::tempdir()?;
        let port_file = folder.path().join("port");
        let what = format!("{kind} {}", port_file.display());
        let process = Process(Command::new(std::env::current_exe()?).env(AS_SERVER, what).spawn()?);
        Ok(Self {
            address: listening(&port_file)?,
            process,
            _folder: folder,
        })
    }
}

/// Reads a request's head and accepts it as a WebSocket; these clients do not check the key.
async fn shake(socket: &mut TcpStream) -> Anything<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    Ok(socket.write_all(answer).await?)
}

/// One write for each message and socket, by fastwebsockets, as its examples do it.
async fn bare(port_file: &Path) -> Anything<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    std::fs::write(port_file, listener.local_addr()?.port().to_string())?;
    let (mut first, mut others) = (None, Vec::new());
    let members = setting("COOP_BENCH_MEMBERS", 100)?;
    for _ in 0..members {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        shake(&mut socket).await?;
        let mut socket = WebSocket::after_handshake(socket, Role::Server);
        socket.set_auto_apply_mask(true);
        if first.is_none() {
            first = Some(socket)
        } else {
            others.push(socket)
        }
    }
    let mut first = first.ok_or("no clients")?;
    loop {
        let text = match first.read_frame().await {
            Ok(frame) if frame.opcode == OpCode::Text => frame.payload.to_vec(),
            _ => return Ok(()),
        };
        first.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
        for other in &mut others {
            other.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
        }
    }
}

/// The same bytes written to each socket in turn, by nobody: what the system takes for it.
fn floor(port_file: &Path) -> Anything<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    std::fs::write(port_file, listener.local_addr()?.port().to_string())?;
    let mut sockets = Vec::new();
    for _ in 0..setting("COOP_BENCH_MEMBERS", 100)? {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte)?;
            head.extend(byte);
        }
        socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
        sockets.push(socket);
    }
    let mut reading = sockets.first().ok_or("no clients")?.try_clone()?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let read = reading.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        bytes.extend(&buffer[..read]);
        // A masked frame is four bytes longer than the one that goes out.
        while let Some(length) = bytes
            .get(2..4)
            .map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])))
            && bytes.len() >= 8 + length
        {
            let mut out = vec![0x81, 126];
            out.extend(&bytes[2..4]);
            out.extend(&bytes[8..8 + length]);
            bytes.drain(..8 + length);
            for socket in &mut sockets {
                match socket.write_all(&out) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    other => other?,
                }
            }
        }
    }
}
