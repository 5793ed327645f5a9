//! A real Redis for tests: a server of their own on loopback, there in some thirty milliseconds and gone with the process.
//! It keeps nothing.

use crate::testing::child::{free_port, send, spawn};
use crate::testing::skipped;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a server may take to be there.
const START: Duration = Duration::from_secs(20);

/// A Redis of one's own.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    running: Mutex<Option<Child>>,
}

impl Redis {
    /// Starts one; nothing, with a note among what was skipped, if this machine has none.
    ///
    /// # Panics
    /// If there is one and it does not start.
    #[must_use]
    pub fn start(test: &str) -> Option<Self> {
        let version = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if version.is_err() {
            skipped(test, "there is no Redis here (no redis-server)");
            return None;
        }
        let redis = Self::later();
        redis.start_again();
        Some(redis)
    }

    /// One that is yet to be [started](Self::start_again), at an address that is known already.
    #[must_use]
    pub fn later() -> Self {
        Self {
            port: free_port(),
            running: Mutex::new(None),
        }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it where it was, empty.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "redis-server"]);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir", "/tmp"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn(command).unwrap_or_else(|error| panic!("redis-server: {error}"));
        *self.child() = Some(child);
        let begun = Instant::now();
        while self.try_run(&["PING"]).as_deref() != Some("PONG") {
            assert!(begun.elapsed() < START, "Redis is not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command and gives what it answers.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, command: &[&str]) -> String {
        let answer = self.try_run(command);
        answer.unwrap_or_else(|| panic!("{command:?} failed"))
    }

    fn try_run(&self, command: &[&str]) -> Option<String> {
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string()]).args(command);
        let output = client.stderr(Stdio::null()).output().ok()?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(answer)
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            send(&child, "KILL");
            let _ = child.wait();
        }
    }

    /// Stops it from doing anything, without closing a connection, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.child().iter().for_each(|child| send(child, "STOP"));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.child().iter().for_each(|child| send(child, "CONT"));
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
