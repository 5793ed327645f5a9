//! The servers that ours is held against. None of them stores anything, knows anybody or has more than one room.

use crate::Anything;
use crate::servers::{members, open_many_files, write_port};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, broadcast};
use tokio_tungstenite::tungstenite::Message;

/// How many bytes the floor with a disk writes before each message: what SQLite writes for one of ours.
static PAGES: [u8; 6 * (4096 + 24)] = [1; 6 * (4096 + 24)];
/// From how many sockets the floor reads: the first ones.
pub(crate) const TALKERS: usize = 8;
/// How many messages a reader of the tokio-tungstenite chat may be behind, as in the examples.
const BEHIND: usize = 1_024;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// fastwebsockets and one loop over all sockets for each message.
    Bare,
    /// A loop of plain writes: what the system takes for it.
    Floor,
    /// The same behind one durable write for each message.
    DurableFloor,
    /// The usual chat: tokio-tungstenite, and a broadcast channel from which each socket's task takes its messages.
    Tungstenite,
    /// `websockets.broadcast` of Python's package.
    Python,
    /// The package `ws` of Node.
    Node,
}

impl Other {
    pub(crate) const ALL: [Self; 6] = [
        Self::Bare,
        Self::Floor,
        Self::DurableFloor,
        Self::Tungstenite,
        Self::Python,
        Self::Node,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare fastwebsockets",
            Self::Floor => "plain writes, the floor",
            Self::DurableFloor => "plain writes behind a durable one",
            Self::Tungstenite => "tokio-tungstenite, broadcast",
            Self::Python => "Python websockets",
            Self::Node => "Node ws",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Floor => "floor",
            Self::DurableFloor => "durable",
            Self::Tungstenite => "tungstenite",
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// The program and the script, if it is none of this program's.
    pub(crate) fn script(self) -> Option<(OsString, PathBuf)> {
        let (variable, program, script) = match self {
            Self::Python => ("COOP_BENCH_PYTHON", "python3", "python/chat.py"),
            Self::Node => ("COOP_BENCH_NODE", "node", "node/chat.cjs"),
            _ => return None,
        };
        let program = std::env::var_os(variable).unwrap_or_else(|| program.into());
        Some((program, Path::new(env!("CARGO_MANIFEST_DIR")).join(script)))
    }

    /// Whether it can be started here.
    pub(crate) fn is_here(self) -> bool {
        let Some((program, script)) = self.script() else {
            return true;
        };
        let check = Command::new(program)
            .arg(script)
            .arg("--check")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        check.is_ok_and(|status| status.success())
    }

    /// Is that server.
    pub(crate) fn be(word: &str, port_file: &Path) -> Anything<()> {
        open_many_files()?;
        let kind = Self::ALL.into_iter().find(|kind| kind.word() == word);
        match kind.ok_or("which server?")? {
            Self::Floor => floor(port_file, members()?, None),
            Self::DurableFloor => {
                let file = port_file.with_extension("log");
                floor(port_file, members()?, Some(&File::create(file)?))
            }
            kind => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(async {
                    match kind {
                        Self::Tungstenite => tungstenite(port_file).await,
                        _ => bare(port_file).await,
                    }
                }),
        }
    }
}

/// The usual chat of one room.
async fn tungstenite(port_file: &Path) -> Anything<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    write_port(port_file, listener.local_addr()?)?;
    let (sender, _) = broadcast::channel::<Message>(BEHIND);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (sender, mut receiver) = (sender.clone(), sender.subscribe());
        tokio::spawn(async move {
            let (mut writing, mut reading) = tokio_tungstenite::accept_async(stream).await?.split();
            let telling = tokio::spawn(async move {
                while let Ok(message) = receiver.recv().await {
                    if writing.send(message).await.is_err() {
                        break;
                    }
                }
            });
            while let Some(Ok(message)) = reading.next().await {
                if message.is_text() {
                    let _ = sender.send(message);
                }
            }
            telling.abort();
            Anything::Ok(())
        });
    }
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

/// The same bytes written to each socket in turn, by nobody: what the system takes for it. It reads from the first [`TALKERS`].
fn floor(port_file: &Path, members: usize, disk: Option<&File>) -> Anything<()> {
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
    let sockets = std::sync::Mutex::new(sockets);
    let senders: Vec<_> = {
        let sockets = sockets.lock().map_err(|_| "a sender panicked")?;
        sockets
            .iter()
            .take(TALKERS)
            .map(std::net::TcpStream::try_clone)
            .collect::<Result<_, _>>()?
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = senders
            .into_iter()
            .map(|reading| scope.spawn(|| repeat(reading, &sockets, disk)))
            .collect();
        senders
            .into_iter()
            .try_for_each(|sender| sender.join().map_err(|_| "a sender panicked")?)
    })
}

fn repeat(
    mut reading: std::net::TcpStream,
    sockets: &std::sync::Mutex<Vec<std::net::TcpStream>>,
    disk: Option<&File>,
) -> Anything<()> {
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
            if let Some(disk) = disk {
                disk.write_all_at(&PAGES, 0)?;
                disk.sync_data()?;
            }
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
