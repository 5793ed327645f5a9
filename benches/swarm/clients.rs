//! The people: raw sockets that shake hands, say numbered things and check what they hear. A client fails as soon as
//! something is lost, doubled or out of order.

use crate::Anything;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A client that has waited this long will not get it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Stands before the number of a message.
const MARK: u8 = b'#';
/// The digits of the room's, the sender's and the message's number.
const DIGITS: [usize; 3] = [4, 4, 6];
const LABEL: usize = 1 + DIGITS[0] + DIGITS[1] + DIGITS[2];

/// Which message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) room: usize,
    pub(crate) sender: usize,
    pub(crate) number: usize,
}

impl Label {
    /// The content of this message, `length` bytes.
    pub(crate) fn content(self, length: usize) -> String {
        let Self { room, sender, number } = self;
        let [r, s, n] = DIGITS;
        format!(
            "#{room:0r$}{sender:0s$}{number:0n$}{}",
            "x".repeat(length.saturating_sub(LABEL))
        )
    }

    fn find(payload: &[u8]) -> Option<Self> {
        let mut at = payload.iter().position(|byte| *byte == MARK)? + 1;
        let mut next = |digits: usize| -> Option<usize> {
            let text = std::str::from_utf8(payload.get(at..at + digits)?).ok()?;
            at += digits;
            text.parse().ok()
        };
        Some(Self {
            room: next(DIGITS[0])?,
            sender: next(DIGITS[1])?,
            number: next(DIGITS[2])?,
        })
    }
}

/// What one client has heard.
#[derive(Default)]
pub(crate) struct Heard {
    /// The next number of each sender in each room.
    next: BTreeMap<(usize, usize), usize>,
    /// What stands for the order of everything in each room: equal for all who heard the same.
    order: BTreeMap<usize, u64>,
    pub(crate) messages: usize,
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// The length of the last message's frame, without its head.
    pub(crate) length: usize,
}

impl Heard {
    pub(crate) fn take(&mut self, label: Label) -> Anything<()> {
        let next = self.next.entry((label.room, label.sender)).or_default();
        if label.number != *next {
            return Err(format!("{label:?} came where number {next} was due").into());
        }
        *next += 1;
        let order = self.order.entry(label.room).or_default();
        *order = order.wrapping_mul(0x100_0000_01b3) ^ (label.sender as u64 + 1);
        self.messages += 1;
        Ok(())
    }

    /// Whether everybody has heard the same, in the same order.
    pub(crate) fn compare(all: &[Self]) -> Anything<()> {
        let mut orders = BTreeMap::new();
        for (room, order) in all.iter().flat_map(|heard| &heard.order) {
            if *orders.entry(room).or_insert(order) != order {
                return Err(format!("not everybody heard room {room} in one order").into());
            }
        }
        Ok(())
    }
}

/// Asks one thing over HTTP, on a connection of its own: the status, and what was answered.
pub(crate) async fn ask(
    address: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Anything<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let asking = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        Anything::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(PATIENCE, asking).await??;
    let status = answer.get(9..12).ok_or("no answer")?.parse()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// Opens a socket and shakes hands on it.
pub(crate) async fn connect(address: SocketAddr, path: &str) -> Anything<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    shake(timeout(PATIENCE, socket.connect(address)).await??, path, "").await
}

/// The same for somebody who speaks `coop.v1`.
pub(crate) async fn connect_v1(address: SocketAddr, token: &str) -> Anything<TcpStream> {
    let offered = format!("Sec-WebSocket-Protocol: coop.v1, bearer.{token}\r\n");
    let socket = TcpSocket::new_v4()?;
    shake(timeout(PATIENCE, socket.connect(address)).await??, "/ws", &offered).await
}

/// The same with room for very little that was not read.
pub(crate) async fn connect_narrow(address: SocketAddr, path: &str) -> Anything<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 * 1024)?;
    shake(timeout(PATIENCE, socket.connect(address)).await??, path, "").await
}

async fn shake(mut socket: TcpStream, path: &str, headers: &str) -> Anything<TcpStream> {
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
        socket.peer_addr()?
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, socket.read_u8()).await??);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(format!("no handshake: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(socket)
}

/// Several at once, which still come in their order.
pub(crate) async fn connect_all(address: SocketAddr, paths: Vec<String>) -> Anything<Vec<TcpStream>> {
    let mut sockets = Vec::with_capacity(paths.len());
    for some in paths.chunks(64) {
        let some = some.iter().map(|path| connect(address, path));
        sockets.extend(futures::future::try_join_all(some).await?);
    }
    Ok(sockets)
}

/// A client's text frame; the mask of zeros leaves the payload as it is.
pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
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

/// Joins rooms, and waits until the server has come to the end of that: a room that is nobody's is refused in order.
pub(crate) async fn join(socket: &mut TcpStream, rooms: &[i64]) -> Anything<()> {
    let ask = |room: &i64| masked(format!(r#"{{"type":"join","chat_id":{room}}}"#).as_bytes());
    let mut asked: Vec<u8> = rooms.iter().flat_map(ask).collect();
    asked.extend(ask(&999_999_999));
    socket.write_all(&asked).await?;
    while !one_frame(socket).await?.starts_with(br#"{"error""#) {}
    Ok(())
}

/// The same in `coop.v1`, whose answer is a snapshot.
pub(crate) async fn join_v1(socket: &mut TcpStream, room: i64) -> Anything<serde_json::Value> {
    let ask = format!(r#"{{"type":"join","room":{room}}}"#);
    socket.write_all(&masked(ask.as_bytes())).await?;
    loop {
        let frame = one_frame(socket).await?;
        if frame.starts_with(br#"{"type":"snapshot""#) {
            return Ok(serde_json::from_slice(&frame)?);
        }
    }
}

/// Reads one frame and not a byte more, so that whoever reads on begins with a frame.
async fn one_frame(socket: &mut TcpStream) -> Anything<Vec<u8>> {
    let read = async {
        let length = match socket.read_u16().await? & 0x7f {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await?;
        Anything::Ok(payload)
    };
    timeout(PATIENCE, read).await?
}

/// The first frame's payload and its whole length.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    Some((bytes.get(head..head + length)?, head + length))
}

/// Reads until `done` says so, which is shown each frame, and the label of a message.
pub(crate) async fn hear(
    socket: &mut (impl AsyncReadExt + Unpin),
    mut done: impl FnMut(&[u8], Option<Label>, &mut Heard) -> Anything<bool>,
) -> Anything<Heard> {
    let (mut bytes, mut heard) = (Vec::with_capacity(64 * 1024), Heard::default());
    loop {
        let mut at = 0;
        while let Some((payload, used)) = frame(&bytes[at..]) {
            (heard.frames, heard.bytes) = (heard.frames + 1, heard.bytes + used);
            let label = Label::find(payload);
            if let Some(label) = label {
                heard.length = payload.len();
                heard.take(label)?;
            }
            at += used;
            if done(payload, label, &mut heard)? {
                return Ok(heard);
            }
        }
        bytes.drain(..at);
        if timeout(PATIENCE, socket.read_buf(&mut bytes))
            .await
            .map_err(|_| "nothing comes any more: something is lost")??
            == 0
        {
            return Err("the server closed".into());
        }
    }
}

/// When each message was sent, and how long it took to be heard.
pub(crate) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(labels: &[(usize, usize)]) -> Anything<Heard> {
        let mut heard = Heard::default();
        for &(sender, number) in labels {
            let content = Label {
                room: 3,
                sender,
                number,
            }
            .content(40);
            assert_eq!(content.len(), 40);
            heard.take(Label::find(content.as_bytes()).ok_or("no label")?)?;
        }
        Ok(heard)
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() -> Anything<()> {
        heard(&[(0, 0), (1, 0), (0, 1)])?;
        assert!(heard(&[(0, 0), (0, 2)]).is_err(), "lost");
        assert!(heard(&[(0, 0), (0, 0)]).is_err(), "doubled");
        assert!(heard(&[(0, 1), (0, 0)]).is_err(), "out of order");
        let (one, other) = (heard(&[(0, 0), (1, 0)])?, heard(&[(1, 0), (0, 0)])?);
        assert!(Heard::compare(&[one, other]).is_err(), "two orders");
        let (one, other) = (heard(&[(0, 0), (1, 0)])?, heard(&[(0, 0), (1, 0)])?);
        Heard::compare(&[one, other])
    }
}
