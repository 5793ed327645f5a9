//! How fast a client's frames are taken apart, beside tungstenite and fastwebsockets on the same bytes: messages of 150
//! bytes, masked, in pieces as a connection brings them.
//!
//! `cargo bench -p coop-benches --bench frame`.

use coop_server::frame::{Decoder, Incoming, Limits};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::{OpCode, Role, WebSocket};
use futures::FutureExt;
use std::hint::black_box;
use std::io::{Cursor, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::Role as TheirRole;
use tokio_tungstenite::tungstenite::{Message, WebSocket as Tungstenite};

const MESSAGES: usize = 1_000;
/// What one read of the server takes at most.
const READ: usize = 16 << 10;

/// What a client sends that talks.
fn talk() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..MESSAGES {
        let words = "as many words as people write who are in a hurry, and then some more of them";
        let text =
            format!(r#"{{"type":"message","chat_id":12,"content":"{words} {number:04}","client_id":"{number:020}"}}"#);
        let key = (number as u32).wrapping_mul(0x9e37_79b9).to_be_bytes();
        bytes.extend([0x81, 0x80 | 126]);
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(key);
        bytes.extend(text.bytes().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    bytes
}

fn ours(bytes: &[u8]) -> usize {
    let (mut decoder, mut count) = (Decoder::new(Limits::default()), 0);
    for mut some in bytes.chunks(READ) {
        while let Ok(Some(incoming)) = decoder.next(&mut some) {
            assert!(matches!(black_box(incoming), Incoming::Text(_)));
            count += 1;
        }
    }
    count
}

/// A connection that brings these bytes and takes any.
struct Connection(Cursor<Vec<u8>>);

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(READ);
        self.0.read(&mut buffer[..most])
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let most = buffer.remaining().min(READ);
        let read = self.0.read(buffer.initialize_unfilled_to(most))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn tungstenite(bytes: Vec<u8>) -> usize {
    let mut socket = Tungstenite::from_raw_socket(Connection(Cursor::new(bytes)), TheirRole::Server, None);
    let mut count = 0;
    while let Ok(message) = socket.read() {
        assert!(matches!(black_box(message), Message::Text(_)));
        count += 1;
    }
    count
}

fn fast(bytes: Vec<u8>) -> usize {
    let mut socket = WebSocket::after_handshake(Connection(Cursor::new(bytes)), Role::Server);
    socket.set_auto_apply_mask(true);
    let reading = async {
        let mut count = 0;
        while let Ok(frame) = socket.read_frame().await {
            // The others check this as well.
            assert!(frame.opcode == OpCode::Text && frame.is_utf8());
            black_box(frame.payload.to_vec());
            count += 1;
        }
        count
    };
    // It never waits: all bytes are there.
    reading.now_or_never().unwrap_or_default()
}

fn frame(criterion: &mut Criterion) {
    let bytes = talk();
    let counts = (ours(&bytes), tungstenite(bytes.clone()), fast(bytes.clone()));
    assert_eq!(counts, (MESSAGES, MESSAGES, MESSAGES));
    let mut group = criterion.benchmark_group("frames of 150 bytes");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("ours", |bencher| bencher.iter(|| ours(&bytes)));
    let mut beside = |name, theirs: fn(Vec<u8>) -> usize| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| bytes.clone(), theirs, BatchSize::SmallInput);
        });
    };
    beside("tungstenite", tungstenite);
    beside("fastwebsockets", fast);
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
