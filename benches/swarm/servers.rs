//! The servers under load, each a process of its own, and what `/proc` says of them.

use crate::Anything;
use crate::others::Other;
use coop_core::postgres::PostgresStore;
use coop_core::sqlite::SqliteStore;
use coop_core::store::{NewAccount, NewRoom, RoomStore, UserStore};
use coop_core::testing::postgres::Cluster;
use coop_core::testing::redis::Redis;
use coop_core::{Timestamp, UserId};
use coop_server::{Secret, TokenMaker};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Names what a child process of this program is, and where it writes its address.
pub(crate) const AS_SERVER: &str = "COOP_SWARM_SERVER";
/// How many sockets another server waits for.
const MEMBERS: &str = "COOP_SWARM_MEMBERS";
const START: Duration = Duration::from_secs(60);
/// Who takes no CPU time for so long is at rest.
const REST: Duration = Duration::from_millis(150);
pub(crate) const SECRET: &str = "swarm's own secret, of more than thirty-two bytes";

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
}

/// What takes CPU time.
pub(crate) trait Cpu {
    /// User and system time so far.
    fn cpu(&self) -> Anything<Duration>;

    /// Waits until it takes none any more.
    async fn rest(&self) -> Anything<()> {
        let (until, mut before) = (Instant::now() + START, self.cpu()?);
        loop {
            tokio::time::sleep(REST).await;
            let now = self.cpu()?;
            if now == before {
                return Ok(());
            }
            if Instant::now() > until {
                return Err("the server does not come to rest".into());
            }
            before = now;
        }
    }
}

impl Cpu for Server {
    fn cpu(&self) -> Anything<Duration> {
        cpu_of(&self.child.id().to_string())
    }
}

/// Of all of them.
impl Cpu for Ours {
    fn cpu(&self) -> Anything<Duration> {
        let other = self.other.as_ref().map_or(Ok(Duration::ZERO), Server::cpu)?;
        Ok(self.server.cpu()? + other)
    }
}

/// The address of a PostgreSQL that was named, or is started here, if there is one.
pub(crate) fn postgres() -> Option<&'static str> {
    static URL: OnceLock<Option<(String, Option<Cluster>)>> = OnceLock::new();
    let url = URL.get_or_init(|| match std::env::var("COOP_BENCH_POSTGRES_URL") {
        Ok(url) => Some((url, None)),
        Err(_) => Cluster::start(&[]).map(|cluster| (cluster.database(), Some(cluster))),
    });
    url.as_ref().map(|(url, _)| url.as_str())
}

/// The same of a Redis.
pub(crate) fn redis() -> Option<&'static str> {
    static URL: OnceLock<Option<(String, Option<Redis>)>> = OnceLock::new();
    let url = URL.get_or_init(|| match std::env::var("COOP_BENCH_REDIS_URL") {
        Ok(url) => Some((url, None)),
        Err(_) => Redis::start("swarm").map(|redis| (redis.url(), Some(redis))),
    });
    url.as_ref().map(|(url, _)| url.as_str())
}

/// Makes people and rooms. Their tokens, and the rooms' ids.
pub(crate) async fn furnish<S: RoomStore + UserStore>(
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
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
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

/// How many sockets another server waits for, as it was told.
pub(crate) fn members() -> Anything<usize> {
    Ok(std::env::var(MEMBERS)?.parse()?)
}

/// This program once more, as a server of its own that waits for so many sockets.
pub(crate) fn again(word: &str, members: usize, folder: tempfile::TempDir) -> Anything<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env(AS_SERVER, format!("{word} {}", folder.path().join("port").display()))
        .env(MEMBERS, members.to_string());
    Server::start(folder, &mut command)
}

/// Starts another server: this program once more, or a script.
pub(crate) fn other(kind: Other, members: usize) -> Anything<Server> {
    let folder = tempfile::tempdir()?;
    let Some((program, script)) = kind.script() else {
        return again(kind.word(), members, folder);
    };
    let mut command = Command::new(program);
    command.arg(script).arg(folder.path().join("port"));
    Server::start(folder, &mut command)
}

/// A file that is whole as soon as it is there.
pub(crate) fn write_port(port_file: &Path, address: SocketAddr) -> Anything<()> {
    let draft = port_file.with_extension("new");
    std::fs::write(&draft, address.port().to_string())?;
    Ok(std::fs::rename(draft, port_file)?)
}
