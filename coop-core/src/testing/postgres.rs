//! A real PostgreSQL for tests: a server of their own on loopback, started from the installed programs in about a second
//! and gone with the process. `COOP_TEST_POSTGRES_URL` names one that runs already instead.

mod disk;

pub use disk::SmallDisk;

use crate::testing::child::{free_port, send, spawn};
use crate::testing::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a server may take to be there.
const START: Duration = Duration::from_secs(60);

/// Where databases for tests are made.
#[derive(Debug)]
pub struct Cluster {
    url: String,
    /// Nothing if it is somebody else's server.
    server: Option<Mutex<Server>>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    running: Option<Child>,
}

/// The cluster that the tests of this process share, or nothing, with a note among what was skipped, if this machine has
/// no PostgreSQL.
///
/// # Panics
/// If there is one and it does not start.
pub fn shared(test: &str) -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = SHARED.get_or_init(|| match std::env::var("COOP_TEST_POSTGRES_URL") {
        Ok(url) => Some(Cluster::elsewhere(url)),
        Err(_) => Cluster::start(&["fsync=off", "full_page_writes=off"]),
    });
    if cluster.is_none() {
        skipped(test, "there is no PostgreSQL here (no initdb)");
    }
    cluster.as_ref()
}

/// The newest folder of PostgreSQL's own programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.map(|entry| entry.path()).max_by_key(|path| version(path));
    let places = newest.map(|path| path.join("bin")).into_iter();
    let searched = std::env::var_os("PATH");
    let searched: Vec<_> = searched.iter().flat_map(std::env::split_paths).collect();
    places.chain(searched).find(|place| place.join("initdb").exists())
}

impl Cluster {
    fn elsewhere(url: String) -> Self {
        Self {
            url,
            server: None,
            databases: AtomicU32::new(0),
        }
    }

    /// Starts a server with these settings, each `name=value`; nothing if this machine has no PostgreSQL.
    ///
    /// # Panics
    /// If there is one and it does not start.
    #[must_use]
    pub fn start(settings: &[&str]) -> Option<Self> {
        let folder = folder();
        let server = Server {
            folder: folder.clone(),
            ..Server::new(programs()?, settings)
        };
        server.run(
            "initdb",
            &[
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            ],
            |command| command.arg("-D").arg(&folder),
        );
        Some(Self::over(server))
    }

    /// Starts a standby of this server, which it follows under this name.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn standby(&self, name: &str) -> Self {
        let folder = folder();
        let (programs, url) = {
            let primary = self.server();
            (
                primary.programs.clone(),
                format!("{} application_name={name}", primary.conninfo()),
            )
        };
        let server = Server {
            folder: folder.clone(),
            ..Server::new(programs, &["fsync=off", "full_page_writes=off"])
        };
        server.run(
            "pg_basebackup",
            &["-R", "-X", "stream", "-c", "fast", "-d", &url],
            |command| command.arg("-D").arg(&folder),
        );
        Self::over(server)
    }

    fn over(mut server: Server) -> Self {
        server.start();
        Self {
            url: format!("postgres://postgres@127.0.0.1:{}/postgres", server.port),
            server: Some(Mutex::new(server)),
            databases: AtomicU32::new(0),
        }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        let server = self.server.as_ref();
        let server = server.unwrap_or_else(|| panic!("this needs a server of its own"));
        server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an empty database and gives its address.
    ///
    /// # Panics
    /// If the server does not make one.
    #[must_use]
    pub fn database(&self) -> String {
        let count = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("coop_{}_{count}", std::process::id());
        self.run(&format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// The address of a database on this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').unwrap_or((&self.url, ""));
        format!("{server}/{database}")
    }

    /// Runs a statement as the server's owner, and gives what it answers.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, statement: &str) -> String {
        self.psql(&self.url, statement)
    }

    /// The same in one of its databases.
    ///
    /// # Panics
    /// If it fails.
    pub fn run_in(&self, database: &str, statement: &str) -> String {
        self.psql(&self.url_of(database), statement)
    }

    #[allow(clippy::unused_self, reason = "it is this server's program")]
    fn psql(&self, url: &str, statement: &str) -> String {
        let psql = programs().map_or_else(|| PathBuf::from("psql"), |programs| programs.join("psql"));
        let mut command = Command::new(psql);
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            "-d",
            url,
        ]);
        let output = command.output().unwrap_or_else(|error| panic!("psql: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends every session of every database but one's own.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn end_sessions(&self) {
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = \
             'client backend'",
        );
    }

    /// Has commits wait for the standby of this name.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn wait_for_standby(&self, name: &str) {
        self.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        self.run("SELECT pg_reload_conf()");
        let begun = Instant::now();
        let sync = "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        while self.run(sync) != "1" {
            assert!(begun.elapsed() < START, "the standby does not follow");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the server as a power cut would.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&self) {
        self.server().start();
    }

    /// Stops it from doing anything, without closing a connection, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.server().signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.server().signal("CONT");
    }

    /// Makes a standby the primary.
    ///
    /// # Panics
    /// If it is none.
    pub fn promote(&self) {
        let server = self.server();
        server.run("pg_ctl", &["promote", "-w"], |command| {
            command.arg("-D").arg(&server.folder)
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let server = server.get_mut().unwrap_or_else(PoisonError::into_inner);
            server.kill();
            let _ = fs::remove_dir_all(&server.folder);
            let _ = fs::remove_file(server.folder.with_extension("log"));
        }
    }
}

/// A folder that bears the number of this process, so that a later one can clear away what a killed one has left.
fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let place = std::env::temp_dir();
    let prefix = "coop-postgres-";
    for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // One that was mounted there.
            let mut unmount = Command::new("umount");
            let _ = unmount.arg("-lq").arg(entry.path()).stderr(Stdio::null()).status();
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    place.join(format!("{prefix}{}-{count}", std::process::id()))
}

impl Server {
    fn new(programs: PathBuf, settings: &[&str]) -> Self {
        Self {
            programs,
            folder: PathBuf::new(),
            port: free_port(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            running: None,
        }
    }

    fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// One of PostgreSQL's programs. It refuses to run as root, and is killed when this process ends.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if root {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
        }
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(self.programs.join(program)).stdin(Stdio::null());
        command.current_dir("/");
        command
    }

    fn run(&self, program: &str, arguments: &[&str], more: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = self.command(program);
        let output = more(command.args(arguments)).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} failed: {said}");
    }

    fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.folder);
        let port = format!("port={}", self.port);
        let fixed = [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=300",
            "shared_buffers=64MB",
        ];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.with_extension("log"));
        let log = log.unwrap_or_else(|error| panic!("no log: {error}"));
        command.stdout(Stdio::null()).stderr(log);
        let child = spawn(command);
        self.running = Some(child.unwrap_or_else(|error| panic!("postgres: {error}")));
        self.await_start();
    }

    fn await_start(&mut self) {
        let begun = Instant::now();
        let connect = self.conninfo();
        loop {
            let mut ready = self.command("pg_isready");
            let ready = ready.args(["-q", "-d", &connect]).status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            let ended = self.running.as_mut().and_then(|child| child.try_wait().ok()?);
            let said = || fs::read_to_string(self.folder.with_extension("log")).unwrap_or_default();
            assert!(ended.is_none(), "postgres ended: {}", said());
            assert!(begun.elapsed() < START, "postgres is not ready: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// To the server and everything it has started.
    fn signal(&self, signal: &str) {
        let Some(child) = &self.running else { return };
        send(child, signal);
    }

    fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut child) = self.running.take() {
            let _ = child.wait();
        }
    }
}
