//! The servers under load, each a process of its own, and what `/proc` says of them.

use crate::Anything;
use coop_core::postgres::PostgresStore;
use coop_core::sqlite::SqliteStore;
use coop_core::store::{NewAccount, NewRoom, RoomStore, UserStore};
use coop_core::{Timestamp, UserId};
use coop_server::{Secret, TokenMaker};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// Names what a child process of this program is, and where it writes its address.
pub(crate) const AS_SERVER: &str = "COOP_SWARM_SERVER";
/// How many sockets the other two wait for.
const MEMBERS: &str = "COOP_SWARM_MEMBERS";
const START: Duration = Duration::from_secs(60);
const SECRET: &str = "swarm's own secret, of more than thirty-two bytes";

/// User and system time of a process so far.
pub(crate) fn cpu_of(process: &str) -> Anything<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program may hold anything; the fields after it do not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |at: usize| -> Anything<u64> { Ok(fields.get(at).ok_or("stat")?.parse()?) };
    // Linux shows these in hundredths of a second, whatever the kernel counts in.
    Ok(Duration::from_millis((field(11)? + field(12)?) * 10))
}

/// As many files as the system lets this process and its children have.
pub(crate) fn open_many_files() -> Anything<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?)
}

/// What our server allows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// What it does by itself.
    Default,
    /// Everything: what is measured is not how it refuses.
    Off,
}

/// A child process, killed at the end.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(folder: tempfile::TempDir, command: &mut Command) -> Anything<Self> {
        let port_file = folder.path().join("port");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            _folder: folder,
        };
        let until = Instant::now() + START;
        loop {
            match std::fs::read_to_string(&port_file) {
                Ok(text) if text.trim().parse::<u16>().is_ok() => {
                    server.address.set_port(text.trim().parse()?);
                    return Ok(server);
                }
                _ if server.child.try_wait()?.is_some() => return Err("the server ended".into()),
                _ if Instant::now() > until => return Err("the server does not start".into()),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Our server on this database.
    fn ours(folder: tempfile::TempDir, database: &str, redis: Option<&str>, limits: Limits) -> Anything<Self> {
        let mut command = Command::new(binary()?);
        if limits == Limits::Off {
            command.env("COOP_LIMITS", "off");
        }
        command
            .env("COOP_JWT_SECRET", SECRET)
            .args(["--listen", "127.0.0.1:0", "--log", "error", "--bot", "mock=mock"])
            .args(["--database", database]);
        if let Some(redis) = redis {
            command.args(["--redis", redis]);
        }
        command.arg("--port-file").arg(folder.path().join("port"));
        Self::start(folder, &mut command)
    }

    pub(crate) fn cpu(&self) -> Anything<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// What it has in memory, in bytes.
    pub(crate) fn memory(&self) -> Anything<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("VmRSS")?;
        Ok(kib.parse::<f64>()? * 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our server with people and rooms, made before it starts: passwords are not what is measured here.
pub(crate) struct Ours {
    pub(crate) server: Server,
    /// Another on the same store.
    pub(crate) other: Option<Server>,
    /// By person.
    pub(crate) tokens: Vec<String>,
    /// By room.
    pub(crate) rooms: Vec<i64>,
}

impl Ours {
    /// Rooms by their members, each given by the number of a person.
    pub(crate) async fn start(people: usize, rooms: &[Vec<usize>]) -> Anything<Self> {
        Self::start_with(Limits::Off, people, rooms).await
    }

    pub(crate) async fn start_with(limits: Limits, people: usize, rooms: &[Vec<usize>]) -> Anything<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("coop.db");
        let store = SqliteStore::open(&file).await?;
        let (tokens, rooms) = furnish(&store, "person", people, rooms).await?;
        RoomStore::close(&store).await;
        let database = format!("sqlite:{}", file.display());
        Ok(Self {
            server: Server::ours(folder, &database, None, limits)?,
            other: None,
            tokens,
            rooms,
        })
    }

    /// The same on PostgreSQL, with a second server if that is wanted, and with Redis between them. Everybody's name begins
    /// with `name`: no others in this database may be called so.
    pub(crate) async fn on_postgres(
        database: &str,
        redis: Option<&str>,
        two: bool,
        name: &str,
        people: usize,
        rooms: &[Vec<usize>],
    ) -> Anything<Self> {
        let store = PostgresStore::open(database).await?;
        let (tokens, rooms) = furnish(&store, name, people, rooms).await?;
        RoomStore::close(&store).await;
        let start = || Server::ours(tempfile::tempdir()?, database, redis, Limits::Off);
        Ok(Self {
            server: start()?,
            other: if two { Some(start()?) } else { None },
            tokens,
            rooms,
        })
    }

    /// Where somebody is: everybody at one, or every other at the other.
    pub(crate) fn address_of(&self, person: usize) -> SocketAddr {
        let other = self.other.as_ref().filter(|_| person % 2 == 1);
        other.unwrap_or(&self.server).address
    }

    /// Of all of them.
    pub(crate) fn cpu(&self) -> Anything<Duration> {
        let other = self.other.as_ref().map_or(Ok(Duration::ZERO), Server::cpu)?;
        Ok(self.server.cpu()? + other)
    }
}

/// Makes people and rooms. Their tokens, and the rooms' ids.
async fn furnish<S: RoomStore + UserStore>(
    store: &S,
    name: &str,
    people: usize,
    rooms: &[Vec<usize>],
) -> Anything<(Vec<String>, Vec<i64>)> {
    let maker = TokenMaker::new(&Secret::new(SECRET)?, Duration::from_secs(24 * 60 * 60));
    let (mut known, mut tokens): (Vec<(UserId, String)>, _) = (Vec::new(), Vec::new());
    for number in 0..people {
        let account = store
            .create_user(NewAccount {
                name: format!("{name}{number}"),
                email: Some(format!("{name}{number}@example.org")),
                password: None,
                now: Timestamp(1),
            })
            .await?;
        tokens.push(maker.make(&account)?);
        known.push((account.id, account.name.clone()));
    }
    let mut ids = Vec::new();
    for members in rooms {
        let mut members = members.iter().map(|person| known[*person].clone());
        let room = NewRoom {
            name: "swarm".to_owned(),
            owner: members.next().ok_or("a room without anybody")?,
            members: members.collect(),
            is_group: true,
            is_ai_chat: false,
            greeting: None,
            now: Timestamp(1),
        };
        ids.push(store.create_room(room).await?.0.id.0);
    }
    Ok((tokens, ids))
}

/// Builds the server as `cargo run` does with this program's profile, and says where it is.
fn binary() -> Anything<PathBuf> {
    static BUILT: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let here = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = here.parent().ok_or("no target folder")?.join("coop-server");
        // A debug build is tried out, not measured: what the tests have built will do.
        if cfg!(debug_assertions) && beside.exists() {
            return Ok(beside);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "-p", "coop-server"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        match build.status() {
            Ok(status) if status.success() => {}
            _ => return Err("coop-server does not build".to_owned()),
        }
        Ok(beside)
    });
    Ok(built.clone()?)
}

/// This program once more, as one of the other two servers.
pub(crate) fn plain(kind: &str, members: usize) -> Anything<Server> {
    let folder = tempfile::tempdir()?;
    let what = format!("{kind} {}", folder.path().join("port").display());
    let mut command = Command::new(std::env::current_exe()?);
    command.env(AS_SERVER, what).env(MEMBERS, members.to_string());
    Server::start(folder, &mut command)
}

/// Is that server.
pub(crate) fn be(kind: &str, port_file: &Path) -> Anything<()> {
    open_many_files()?;
    let members: usize = std::env::var(MEMBERS)?.parse()?;
    match kind {
        "bare" => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(bare(port_file)),
        _ => floor(port_file, members),
    }
}

/// A file that is whole as soon as it is there.
fn write_port(port_file: &Path, address: SocketAddr) -> Anything<()> {
    let draft = port_file.with_extension("new");
    std::fs::write(&draft, address.port().to_string())?;
    Ok(std::fs::rename(draft, port_file)?)
}

type Everybody = Arc<Mutex<Vec<WebSocket<TcpStream>>>>;

/// A chat of one room as fastwebsockets' own examples do it: each message is written to each socket in turn. What comes
/// in is read from a second handle of the same socket.
async fn bare(port_file: &Path) -> Anything<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    write_port(port_file, listener.local_addr()?)?;
    let everybody = Everybody::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let everybody = Arc::clone(&everybody);
        let service = service_fn(move |request| accept(request, Arc::clone(&everybody)));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn accept(mut request: Request<Incoming>, everybody: Everybody) -> Result<Response<Empty<Bytes>>, Infallible> {
    let Ok((response, socket)) = upgrade(&mut request) else {
        return Ok(Response::builder().status(400).body(Empty::new()).unwrap_or_default());
    };
    tokio::spawn(async move {
        let _ = converse(socket, everybody).await;
    });
    Ok(response)
}

async fn converse(socket: UpgradeFut, everybody: Everybody) -> Anything<()> {
    let upgraded = socket.await?.into_inner().into_inner();
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| "not a socket")?;
    let socket = parts.io.into_inner().into_std()?;
    let reading = TcpStream::from_std(socket.try_clone()?)?;
    let mut writing = WebSocket::after_handshake(TcpStream::from_std(socket)?, Role::Server);
    writing.set_auto_apply_mask(true);
    everybody.lock().await.push(writing);
    let mut reading = FragmentCollector::new(WebSocket::after_handshake(reading, Role::Server));
    loop {
        let frame = reading.read_frame().await?;
        if frame.opcode != OpCode::Text {
            return Ok(());
        }
        let text = frame.payload.to_vec();
        for other in &mut *everybody.lock().await {
            other.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
        }
    }
}

/// The same bytes written to each socket in turn, by nobody: what the system takes for it. It reads from the first eight.
fn floor(port_file: &Path, members: usize) -> Anything<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    write_port(port_file, listener.local_addr()?)?;
    let mut sockets = Vec::new();
    for _ in 0..members {
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
    let sockets = Arc::new(std::sync::Mutex::new(sockets));
    let senders: Vec<_> = {
        let sockets = sockets.lock().map_err(|_| "a sender panicked")?;
        sockets
            .iter()
            .take(8)
            .map(std::net::TcpStream::try_clone)
            .collect::<Result<_, _>>()?
    };
    let senders = senders.into_iter().map(|reading| {
        let sockets = Arc::clone(&sockets);
        std::thread::spawn(move || repeat(reading, &sockets))
    });
    senders
        .collect::<Vec<_>>()
        .into_iter()
        .try_for_each(|sender| sender.join().map_err(|_| "a sender panicked")?)
}

fn repeat(mut reading: std::net::TcpStream, sockets: &std::sync::Mutex<Vec<std::net::TcpStream>>) -> Anything<()> {
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
            let mut sockets = sockets.lock().map_err(|_| "a sender panicked")?;
            for socket in &mut *sockets {
                match socket.write_all(&out) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    other => other?,
                }
            }
        }
    }
}
