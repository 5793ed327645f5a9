//! RFC 6455 over a real socket: what is sent, and whether the connection lives, answers or is closed with which code.

use crate::client::{PATIENCE, Person};
use crate::server::Server;
use crate::socket::raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame, its length written in as few bytes as possible.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | 8, &[&code.to_be_bytes()[..], reason].concat())
}

/// A head that says so many bytes follow.
fn claims(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &MASK].concat()
}

enum Then {
    /// It is answered with this, and the connection lives.
    Says(&'static [u8]),
    /// Nothing is said, and the connection lives.
    Lives,
    /// It is closed with this code.
    Closes(u16),
    /// It is closed without a code.
    ClosesEmpty,
}

const NOT_JSON: &[u8] = br#"{"error":"Not a JSON object"}"#;

fn cases() -> Vec<(&'static str, Vec<u8>, Then)> {
    use Then::{Closes, ClosesEmpty, Lives, Says};
    let ok = br#"{"type":"dance"}"#;
    let split = |at: usize| [frame(1, &ok[..at]), frame(FIN, &ok[at..])].concat();
    let fragments = |count: usize| {
        let middle = (0..count - 2).flat_map(|_| frame(0, b" "));
        [frame(1, b"{"), middle.collect(), frame(FIN, b"}")].concat()
    };
    let padded = |length: usize| [b"{".as_slice(), &vec![b' '; length - 2], b"}"].concat();
    vec![
        // What is right.
        ("text", frame(FIN | 1, ok), Lives),
        ("empty text", frame(FIN | 1, b""), Says(NOT_JSON)),
        (
            "text of other things",
            frame(FIN | 1, "grüße €😀".as_bytes()),
            Says(NOT_JSON),
        ),
        ("binary", frame(FIN | 2, b"\x00\xff"), Says(NOT_JSON)),
        ("two fragments", split(5), Lives),
        ("an empty first fragment", split(0), Lives),
        ("an empty last fragment", split(ok.len()), Lives),
        (
            "a character in two fragments",
            [frame(1, b"{\xe2"), frame(0, b"\x82"), frame(FIN, b"\xac}")].concat(),
            Says(NOT_JSON),
        ),
        ("126 bytes", frame(FIN | 1, &padded(126)), Lives),
        ("65,535 bytes", frame(FIN | 1, &padded(65_535)), Lives),
        ("65,536 bytes", frame(FIN | 1, &padded(65_536)), Lives),
        ("as large as may be", frame(FIN | 1, &padded(256 * 1024)), Lives),
        ("as many fragments as may be", fragments(256), Lives),
        ("a ping", frame(FIN | 9, b"hello"), Says(b"\x8a\x05hello")),
        ("an empty ping", frame(FIN | 9, b""), Says(b"\x8a\x00")),
        (
            "a ping between fragments",
            [frame(1, b"{"), frame(FIN | 9, b"x"), frame(FIN, b"}")].concat(),
            Says(b"\x8a\x01x"),
        ),
        ("a pong nobody asked for", frame(FIN | 10, b"x"), Lives),
        // What is closed as it should be.
        ("a close", close(1000, b""), Closes(1000)),
        ("a close with a reason", close(1001, "tschüß".as_bytes()), Closes(1001)),
        ("a close of an application", close(4999, b""), Closes(4999)),
        ("a close without a code", frame(FIN | 8, b""), ClosesEmpty),
        // Bits and opcodes.
        ("reserved bit 1", frame(FIN | 0x40 | 1, ok), Closes(1002)),
        ("reserved bit 2", frame(FIN | 0x20 | 1, ok), Closes(1002)),
        ("reserved bit 3 on a ping", frame(FIN | 0x10 | 9, b""), Closes(1002)),
        ("reserved opcode 3", frame(FIN | 3, b""), Closes(1002)),
        ("reserved opcode 7", frame(FIN | 7, b""), Closes(1002)),
        ("reserved opcode 11", frame(FIN | 11, b""), Closes(1002)),
        ("reserved opcode 15", frame(FIN | 15, b""), Closes(1002)),
        // Masks.
        ("text without a mask", b"\x81\x02hi".to_vec(), Closes(1002)),
        ("a ping without a mask", b"\x89\x00".to_vec(), Closes(1002)),
        ("a close without a mask", b"\x88\x02\x03\xe8".to_vec(), Closes(1002)),
        // Control frames.
        ("a fragmented ping", frame(9, b"x"), Closes(1002)),
        ("a fragmented close", frame(8, b"\x03\xe8"), Closes(1002)),
        ("a ping of 126 bytes", frame(FIN | 9, &[b'x'; 126]), Closes(1002)),
        ("a close of 126 bytes", close(1000, &[b'x'; 124]), Closes(1002)),
        // Fragments.
        ("a continuation of nothing", frame(FIN, b"x"), Closes(1002)),
        (
            "a text within a text",
            [frame(1, b"{"), frame(FIN | 1, ok)].concat(),
            Closes(1002),
        ),
        (
            "a binary within a text",
            [frame(1, b"{"), frame(2, b"x")].concat(),
            Closes(1002),
        ),
        (
            "a continuation after the end",
            [split(3), frame(FIN, b"x")].concat(),
            Closes(1002),
        ),
        // Lengths.
        (
            "a short length in two bytes",
            [&[FIN | 1, 0xfe, 0, 2][..], &MASK, b"xx"].concat(),
            Closes(1002),
        ),
        (
            "a short length in eight bytes",
            [claims(FIN | 1, 2), b"xx".to_vec()].concat(),
            Closes(1002),
        ),
        ("a length with its highest bit", claims(FIN | 1, 1 << 63), Closes(1002)),
        // Text.
        ("no UTF-8", frame(FIN | 1, b"\xff"), Closes(1007)),
        (
            "half a character at the end",
            frame(FIN | 1, b"{}\xe2\x82"),
            Closes(1007),
        ),
        ("a surrogate", frame(FIN | 1, b"\xed\xa0\x80"), Closes(1007)),
        (
            "a long form of a short character",
            frame(FIN | 1, b"\xc0\xaf"),
            Closes(1007),
        ),
        (
            "no UTF-8 in the second fragment",
            [frame(1, b"{"), frame(FIN, b"\x80}")].concat(),
            Closes(1007),
        ),
        ("no UTF-8 in a close's reason", close(1000, b"\xff"), Closes(1007)),
        // Sizes.
        ("one byte too large", claims(FIN | 1, 256 * 1024 + 1), Closes(1009)),
        ("enormous", claims(FIN | 2, 1 << 40), Closes(1009)),
        (
            "too large in two fragments",
            [frame(1, &padded(200_000)), claims(FIN, 100_000)].concat(),
            Closes(1009),
        ),
        ("too many fragments", fragments(257), Closes(1009)),
        // Closes that are none.
        ("a close with half a code", frame(FIN | 8, b"\x03"), Closes(1002)),
        ("a close with code 0", close(0, b""), Closes(1002)),
        ("a close with code 999", close(999, b""), Closes(1002)),
        ("a close with code 1005", close(1005, b""), Closes(1002)),
        ("a close with code 1006", close(1006, b""), Closes(1002)),
        ("a close with code 1015", close(1015, b""), Closes(1002)),
        ("a close with code 5000", close(5000, b""), Closes(1002)),
    ]
}

/// Reads one frame of the server's, which are short here.
async fn one(stream: &mut TcpStream, what: &str) -> (u8, Vec<u8>) {
    let read = timeout(PATIENCE, async {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        assert_eq!(head[1] & 0x80, 0, "{what}: the server must not mask");
        assert!(head[1] < 126, "{what}");
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>((head[0], payload))
    });
    read.await
        .unwrap_or_else(|_| panic!("{what}: no answer"))
        .unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn lives(stream: &mut TcpStream, what: &str) {
    stream.write_all(&frame(FIN | 9, b"alive?")).await.unwrap();
    assert_eq!(one(stream, what).await, (FIN | 10, b"alive?".to_vec()), "{what}");
}

async fn try_case(server: &Server, person: &Person, what: &str, bytes: &[u8], then: &Then, apart: bool) {
    let mut stream = raw(server, person).await;
    stream.set_nodelay(true).unwrap();
    if apart {
        // However the network cuts it, it is the same. The server may close before all of it is sent.
        for byte in bytes {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    } else {
        stream.write_all(bytes).await.unwrap();
    }
    match then {
        Then::Lives => lives(&mut stream, what).await,
        Then::Says(said) => {
            let (first, payload) = one(&mut stream, what).await;
            let (is_text, is_pong) = (first == FIN | 1, first == FIN | 10);
            let whole = [&[first, payload.len() as u8][..], &payload].concat();
            assert!(
                (is_text && payload == *said) || (is_pong && whole == *said),
                "{what}: {whole:?}"
            );
            lives(&mut stream, what).await;
        }
        Then::Closes(code) => {
            let (first, payload) = one(&mut stream, what).await;
            assert_eq!(first, FIN | 8, "{what}");
            assert_eq!(payload[..2], code.to_be_bytes(), "{what}");
            assert!(std::str::from_utf8(&payload[2..]).is_ok(), "{what}");
        }
        Then::ClosesEmpty => assert_eq!(one(&mut stream, what).await, (FIN | 8, Vec::new()), "{what}"),
    }
    if matches!(then, Then::Closes(_) | Then::ClosesEmpty) {
        // And nothing comes after it.
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap_or_else(|_| panic!("{what}: it stays open"));
        assert!(rest.is_empty(), "{what}: {rest:?}");
    }
}

#[tokio::test]
async fn every_frame_is_answered_as_the_protocol_says() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    for (what, bytes, then) in cases() {
        try_case(&server, &alice, what, &bytes, &then, false).await;
    }
}

#[tokio::test]
async fn the_same_byte_by_byte() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    for (what, bytes, then) in cases().into_iter().filter(|(_, bytes, _)| bytes.len() < 1_000) {
        try_case(&server, &alice, what, &bytes, &then, true).await;
    }
}
