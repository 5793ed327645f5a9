//! Servers for tests, as children of this process: they are gone with it, however it ends.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

/// A port on loopback that nobody uses.
pub(super) fn free_port() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.unwrap_or_else(|error| panic!("no port is free: {error}")).port()
}

/// Sends a signal to a child and everything it has started.
pub(super) fn send(child: &Child, signal: &str) {
    let parent = child.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let mut command = Command::new("kill");
    command.args([&format!("-{signal}"), &parent.to_string()]);
    // Some of them may have ended meanwhile.
    let _ = command.args(children.split_whitespace()).stderr(Stdio::null()).status();
}

/// Spawns from a thread that lives as long as the process: the death of the spawning thread, not of the process, is what
/// ends the child.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, spawned) = mpsc::channel();
    let sender = spawner.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = |_| io::Error::other("the spawning thread is gone");
    sender
        .send((command, reply))
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    spawned.recv().map_err(gone)?
}
