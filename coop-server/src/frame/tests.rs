//! The decoder against a table of frames, against any cut of a stream and against noise; both halves against
//! tungstenite, which shares no code with them.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::io::Cursor;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocket};

const MASK: [u8; 4] = [0xA1, 0x02, 0xF3, 0x44];
const SMALL: Limits = Limits {
    max_message: 300,
    max_fragments: 4,
};

/// A masked client frame: `first` is FIN, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, MASK)
}

fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// All that comes out of `stream` fed in the given pieces, and how it ended.
fn decode(limits: Limits, pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Violation>) {
    let (mut decoder, mut got) = (Decoder::new(limits), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(incoming)) => got.push(incoming),
                Ok(None) => break assert!(input.is_empty(), "nothing is left behind"),
                Err(violation) => return (got, Some(violation)),
            }
        }
    }
    (got, None)
}

fn text_of(s: &str) -> Incoming {
    Incoming::Text(s.into())
}

#[test]
fn framing_cases() {
    use Violation::*;
    type Case = (&'static str, Vec<Vec<u8>>, Vec<Incoming>, Option<Violation>);
    let long = "x".repeat(300);
    let ok = |name, frames, want| -> Case { (name, frames, want, None) };
    let bad = |name, frames, violation| -> Case { (name, frames, vec![], Some(violation)) };
    let head = |bytes: &[u8]| vec![bytes.to_vec()];
    let cases: Vec<Case> = vec![
        ok("text", vec![frame(0x81, b"hi")], vec![text_of("hi")]),
        ok("empty text", vec![frame(0x81, b"")], vec![text_of("")]),
        ok(
            "binary",
            vec![frame(0x82, &[0xFF, 0])],
            vec![Incoming::Binary(vec![0xFF, 0])],
        ),
        ok(
            "125 bytes",
            vec![frame(0x81, &[b'a'; 125])],
            vec![text_of(&"a".repeat(125))],
        ),
        ok(
            "126 bytes",
            vec![frame(0x81, &[b'a'; 126])],
            vec![text_of(&"a".repeat(126))],
        ),
        ok(
            "as large as allowed",
            vec![frame(0x81, long.as_bytes())],
            vec![text_of(&long)],
        ),
        ok("ping", vec![frame(0x89, b"p")], vec![Incoming::Ping(b"p".to_vec())]),
        ok(
            "pong of 125 bytes",
            vec![frame(0x8A, &[7; 125])],
            vec![Incoming::Pong(vec![7; 125])],
        ),
        ok(
            "two in one read",
            vec![frame(0x81, b"a"), frame(0x81, b"b")],
            vec![text_of("a"), text_of("b")],
        ),
        ok(
            "fragments, one of them empty",
            vec![frame(0x01, b"a"), frame(0x00, b""), frame(0x80, b"b")],
            vec![text_of("ab")],
        ),
        ok(
            "a ping between fragments",
            vec![frame(0x01, b"a"), frame(0x89, b""), frame(0x80, b"b")],
            vec![Incoming::Ping(vec![]), text_of("ab")],
        ),
        ok(
            "a character split between fragments",
            vec![frame(0x01, &[0xE2, 0x82]), frame(0x80, &[0xAC])],
            vec![text_of("€")],
        ),
        ok(
            "as many fragments as allowed, twice",
            [0x01, 0x00, 0x00, 0x80, 0x02, 0x00, 0x00, 0x80]
                .map(|b| frame(b, b"x"))
                .to_vec(),
            vec![text_of("xxxx"), Incoming::Binary(b"xxxx".to_vec())],
        ),
        ok(
            "close without a code",
            vec![frame(0x88, b"")],
            vec![Incoming::Close(None)],
        ),
        ok(
            "close with a code",
            vec![close_frame(1000, b"")],
            vec![Incoming::Close(Some((1000, String::new())))],
        ),
        ok(
            "close with a reason",
            vec![close_frame(4999, "grüße".as_bytes())],
            vec![Incoming::Close(Some((4999, "grüße".into())))],
        ),
        ok(
            "nothing after a close",
            vec![close_frame(1001, b""), frame(0x81, b"late"), vec![0xFF; 9]],
            vec![Incoming::Close(Some((1001, String::new())))],
        ),
        ok("half a header", head(&[0x81]), vec![]),
        ok("half a payload", vec![frame(0x81, b"hello")[..8].to_vec()], vec![]),
        bad("not masked", head(&[0x81, 0x02, b'h', b'i']), Unmasked),
        bad("not masked, seen from two bytes", head(&[0x81, 0x7F]), Unmasked),
        bad("reserved bit 1", head(&[0xC1, 0x80]), ReservedBit),
        bad("reserved bit 2", head(&[0xA1, 0x80]), ReservedBit),
        bad("reserved bit 3", head(&[0x91, 0x80]), ReservedBit),
        bad("reserved opcode 3", head(&[0x83, 0x80]), ReservedOpcode),
        bad("reserved opcode 7", head(&[0x87, 0x80]), ReservedOpcode),
        bad("reserved opcode 11", head(&[0x8B, 0x80]), ReservedOpcode),
        bad("reserved opcode 15", head(&[0x8F, 0x80]), ReservedOpcode),
        bad("ping of 126 bytes", head(&[0x89, 0xFE]), LongControl),
        bad("pong of 200 bytes", vec![frame(0x8A, &[0; 200])], LongControl),
        bad("close with a 64-bit length", head(&[0x88, 0xFF]), LongControl),
        bad("a ping in pieces", head(&[0x09, 0x80]), FragmentedControl),
        bad("a close in pieces", head(&[0x08, 0x80]), FragmentedControl),
        bad("a continuation of nothing", head(&[0x80, 0x80]), LoneContinuation),
        bad(
            "a continuation of nothing, unfinished",
            head(&[0x00, 0x80]),
            LoneContinuation,
        ),
        bad(
            "text inside text",
            vec![frame(0x01, b"a"), frame(0x81, b"b")],
            NestedMessage,
        ),
        bad(
            "binary inside an empty text",
            vec![frame(0x01, b""), frame(0x82, b"")],
            NestedMessage,
        ),
        bad(
            "bad text in a fragment, judged at the end",
            vec![frame(0x01, &[0xFF]), frame(0x80, b"")],
            NotUtf8,
        ),
        bad(
            "16-bit length of 125",
            head(&[0x81, 0xFE, 0, 125, 0, 0, 0, 0]),
            BadLength,
        ),
        bad(
            "64-bit length of 65,535",
            head(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]),
            BadLength,
        ),
        bad(
            "64-bit length with the highest bit",
            head(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            BadLength,
        ),
        bad(
            "one byte too large",
            head(&[0x81, 0xFE, 1, 45, 0, 0, 0, 0]),
            MessageTooLarge,
        ),
        bad(
            "as large as 63 bits go",
            head(&[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]),
            MessageTooLarge,
        ),
        bad(
            "too large in total, known from the last header",
            vec![
                frame(0x01, &[b'a'; 200]),
                frame(0x00, &[b'a'; 100]),
                frame(0x80, b"a")[..6].to_vec(),
            ],
            MessageTooLarge,
        ),
        bad(
            "one fragment too many",
            [0x01, 0x00, 0x00, 0x00, 0x80].map(|b| frame(b, b"")).to_vec(),
            TooManyFragments,
        ),
        bad(
            "text that is not UTF-8",
            vec![frame(0x81, &[b'a', 0xC3, 0x28])],
            NotUtf8,
        ),
        bad("a surrogate", vec![frame(0x81, &[0xED, 0xA0, 0x80])], NotUtf8),
        bad("text cut inside a character", vec![frame(0x81, &[0xE2, 0x82])], NotUtf8),
        bad(
            "text cut inside a character at the last fragment",
            vec![frame(0x01, b"a"), frame(0x80, &[0xE2, 0x82])],
            NotUtf8,
        ),
        bad("half a close code", vec![frame(0x88, &[3])], BadClose),
        bad(
            "a close reason that is not UTF-8",
            vec![close_frame(1000, &[0xFF])],
            NotUtf8,
        ),
    ];
    assert!(cases.len() >= 30);
    for (name, frames, want, violation) in cases {
        let whole = frames.concat();
        assert_eq!(
            decode(SMALL, &[&whole]),
            (want.clone(), violation),
            "{name}, in one read"
        );
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(decode(SMALL, &single), (want, violation), "{name}, byte by byte");
    }
}

#[test]
fn close_codes() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let want = match valid {
            true => (vec![Incoming::Close(Some((code, String::new())))], None),
            false => (vec![], Some(Violation::BadClose)),
        };
        assert_eq!(decode(SMALL, &[&close_frame(code, b"")]), want, "{code}");
    }
}

#[test]
fn violations_name_their_close_codes() {
    use Violation::*;
    for violation in [
        ReservedBit,
        ReservedOpcode,
        Unmasked,
        LongControl,
        FragmentedControl,
        NestedMessage,
        LoneContinuation,
        BadLength,
        BadClose,
    ] {
        assert_eq!(violation.close_code(), 1002, "{violation}");
    }
    assert_eq!(NotUtf8.close_code(), 1007);
    assert_eq!(MessageTooLarge.close_code(), 1009);
    assert_eq!(TooManyFragments.close_code(), 1009);
}

#[test]
fn default_limits_hold_at_their_edge() {
    let full = vec![b'a'; 256 * 1024];
    let (got, violation) = decode(Limits::default(), &[&frame(0x81, &full)]);
    assert!(matches!(&got[..], [Incoming::Text(t)] if t.len() == full.len()) && violation.is_none());
    let over = frame(0x82, &vec![0; full.len() + 1]);
    assert_eq!(
        decode(Limits::default(), &[&over[..14]]).1,
        Some(Violation::MessageTooLarge)
    );
    let fragments = |n: usize| {
        let mut all = frame(0x01, b"");
        (0..n - 2).for_each(|_| all.extend(frame(0x00, b"")));
        all.extend(frame(0x80, b""));
        decode(Limits::default(), &[&all])
    };
    assert_eq!(fragments(256), (vec![text_of("")], None));
    assert_eq!(fragments(257), (vec![], Some(Violation::TooManyFragments)));
}

fn heap(decoder: &Decoder) -> usize {
    decoder.message.capacity() + decoder.control.capacity()
}

#[test]
fn nothing_pending_holds_no_memory() {
    let mut decoder = Decoder::new(Limits::default());
    for whole in [frame(0x81, &[b'a'; 5000]), frame(0x89, b"ping"), frame(0x8A, b"pong")] {
        // Even if it came in two reads.
        let (mut one, mut two) = whole.split_at(20.min(whole.len() - 1));
        assert_eq!(decoder.next(&mut one), Ok(None));
        assert!(matches!(decoder.next(&mut two), Ok(Some(_))));
        assert_eq!(heap(&decoder), 0);
    }
    let mut open: &[u8] = &frame(0x01, &[b'a'; 500]);
    assert_eq!(decoder.next(&mut open), Ok(None));
    assert_eq!(heap(&decoder), 500);
    let mut bad: &[u8] = &[0xFF, 0xFF];
    assert!(decoder.next(&mut bad).is_err());
    assert_eq!(heap(&decoder), 0, "nor does a failed one");
    assert!(
        size_of::<Decoder>() <= 144,
        "{} bytes on every connection",
        size_of::<Decoder>()
    );
}

#[test]
fn memory_follows_what_came_not_what_was_claimed() {
    let mut decoder = Decoder::new(Limits::default());
    let whole = frame(0x82, &vec![1; 256 * 1024]);
    let mut first = &whole[..14 + 100];
    assert_eq!(decoder.next(&mut first), Ok(None));
    assert_eq!(heap(&decoder), 100);
    for piece in whole[14 + 100..whole.len() - 1].chunks(999) {
        let mut piece = piece;
        assert_eq!(decoder.next(&mut piece), Ok(None));
        assert!(heap(&decoder) <= decoder.limits.max_message);
        assert!(heap(&decoder) <= 2 * decoder.message.len());
    }
    // A frame that arrives whole is allocated once and exactly.
    let mut one: &[u8] = &frame(0x81, &[b'a'; 77]);
    match Decoder::new(Limits::default()).next(&mut one) {
        Ok(Some(Incoming::Text(text))) => assert_eq!(text.capacity(), 77),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_violation_is_repeated() {
    let mut decoder = Decoder::new(SMALL);
    let mut bad: &[u8] = &[0x83, 0x80];
    assert_eq!(decoder.next(&mut bad), Err(Violation::ReservedOpcode));
    let mut good: &[u8] = &frame(0x81, b"hi");
    assert_eq!(decoder.next(&mut good), Err(Violation::ReservedOpcode));
}

#[test]
fn headers_of_every_size() {
    for (length, header) in [
        (0, &[0x81, 0][..]),
        (125, &[0x81, 125]),
        (126, &[0x81, 126, 0, 126]),
        (65_535, &[0x81, 126, 0xFF, 0xFF]),
        (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let payload: Vec<u8> = (0..length).map(|i| b'a' + (i % 26) as u8).collect();
        let want = [b"before", header, &payload].concat();
        let mut direct = b"before".to_vec();
        text(&mut direct, &payload);
        assert!(direct == want, "text of {length}");
        let mut marked = b"before".to_vec();
        let mark = begin_text(&mut marked);
        marked.extend_from_slice(&payload);
        end_text(&mut marked, mark);
        assert!(marked == want, "marked text of {length}");
        let mark = begin_text(&mut marked);
        marked.extend_from_slice(b"half of some");
        abandon_text(&mut marked, mark);
        assert!(marked == want, "abandoned after {length}");
    }
}

#[test]
fn control_frames_written() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    assert_eq!(written(&|o| ping(o, b"")), [0x89, 0]);
    assert_eq!(written(&|o| pong(o, b"ab")), [0x8A, 2, b'a', b'b']);
    assert_eq!(written(&|o| pong(o, &[0; 200]))[..2], [0x8A, 125]);
    assert_eq!(written(&|o| close(o, 1000, "")), [0x88, 2, 3, 232]);
    assert_eq!(
        written(&|o| close(o, 1005, "never said")),
        [0x88, 0],
        "1005 is not sent"
    );
    assert_eq!(written(&|o| close(o, 1014, ""))[..2], [0x88, 2]);
    let long = written(&|o| close(o, 4001, &"€".repeat(60)));
    assert_eq!(long[..2], [0x88, 2 + 123]);
    let cut = written(&|o| close(o, 4001, &format!("x{}", "€".repeat(60))));
    assert_eq!(cut[1], 2 + 121, "123 bytes would end inside the 41st character");
    assert!(std::str::from_utf8(&cut[4..]).is_ok());
}

/// Another implementation's client understands what we write, and we what it writes.
#[test]
fn tungstenite_agrees() {
    let (big, bigger) = ("ü".repeat(100), "ü".repeat(40_000));
    let mut out = Vec::new();
    text(&mut out, b"hi");
    let mark = begin_text(&mut out);
    out.extend_from_slice(big.as_bytes());
    end_text(&mut out, mark);
    text(&mut out, bigger.as_bytes());
    ping(&mut out, b"you");
    close(&mut out, 4401, "token");
    let mut client = WebSocket::from_raw_socket(Cursor::new(out), Role::Client, None);
    let frame = CloseFrame {
        code: 4401.into(),
        reason: "token".into(),
    };
    for want in [
        Message::text("hi"),
        Message::text(&big),
        Message::text(&bigger),
        Message::Ping(b"you".to_vec().into()),
        Message::Close(Some(frame.clone())),
    ] {
        assert_eq!(client.read().unwrap(), want);
    }

    let mut client = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
    for message in [
        Message::text("hi"),
        Message::text(&bigger),
        Message::Binary(vec![1, 2, 3].into()),
        Message::Pong(vec![9].into()),
        Message::Close(Some(frame)),
    ] {
        client.send(message).unwrap();
    }
    client.flush().ok();
    let (got, violation) = decode(Limits::default(), &[client.get_ref().get_ref()]);
    assert_eq!(violation, None);
    assert!(
        got == [
            text_of("hi"),
            text_of(&bigger),
            Incoming::Binary(vec![1, 2, 3]),
            Incoming::Pong(vec![9]),
            Incoming::Close(Some((4401, "token".into()))),
        ]
    );
}

/// What a well-behaved client does next.
#[derive(Debug, Clone)]
enum Act {
    /// A message cut at these places, with a ping after each piece but the last where `pings` says so.
    Say {
        text: Option<String>,
        binary: Vec<u8>,
        cuts: Vec<Index>,
        pings: Vec<bool>,
        mask: [u8; 4],
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    let say = (
        proptest::option::of("[a-zäß€🦀]{0,80}"),
        vec(any::<u8>(), 0..400),
        vec(any::<Index>(), 0..5),
        vec(any::<bool>(), 5),
        any::<[u8; 4]>(),
    );
    prop_oneof![
        3 => say.prop_map(|(text, binary, cuts, pings, mask)| Act::Say { text, binary, cuts, pings, mask }),
        1 => vec(any::<u8>(), 0..126).prop_map(Act::Ping),
        1 => vec(any::<u8>(), 0..126).prop_map(Act::Pong),
    ]
}

/// The bytes of some acts, and what they must decode to.
fn play(acts: &[Act]) -> (Vec<u8>, Vec<Incoming>) {
    let (mut stream, mut want) = (Vec::new(), Vec::new());
    for act in acts {
        match act {
            Act::Ping(payload) => {
                stream.extend(frame(0x89, payload));
                want.push(Incoming::Ping(payload.clone()));
            }
            Act::Pong(payload) => {
                stream.extend(frame(0x8A, payload));
                want.push(Incoming::Pong(payload.clone()));
            }
            Act::Say {
                text,
                binary,
                cuts,
                pings,
                mask,
            } => {
                let body = text.as_ref().map_or(&binary[..], |t| t.as_bytes());
                let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
                ends.sort_unstable();
                ends.push(body.len());
                let mut from = 0;
                for (i, end) in ends.iter().enumerate() {
                    let last = i + 1 == ends.len();
                    let opcode = match (i, text) {
                        (0, Some(_)) => 1,
                        (0, None) => 2,
                        _ => 0,
                    };
                    let fin = if last { 0x80 } else { 0 };
                    stream.extend(masked(fin | opcode, &body[from..*end], *mask));
                    from = *end;
                    if !last && pings[i] {
                        stream.extend(masked(0x89, &[i as u8], *mask));
                        want.push(Incoming::Ping(vec![i as u8]));
                    }
                }
                want.push(match text {
                    Some(text) => Incoming::Text(text.clone()),
                    None => Incoming::Binary(binary.clone()),
                });
            }
        }
    }
    (stream, want)
}

/// `bytes` cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_messages(acts in vec(act(), 0..8), cuts in vec(any::<Index>(), 0..40)) {
        let (stream, want) = play(&acts);
        let (got, violation) = decode(Limits::default(), &pieces(&stream, &cuts));
        prop_assert_eq!(violation, None);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn noise_never_panics_and_is_judged_the_same_however_cut(
        noise in vec(any::<u8>(), 0..300),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        prop_assert_eq!(decode(SMALL, &pieces(&noise, &cuts)), decode(SMALL, &[&noise]));
    }

    /// Pure noise rarely survives two bytes; damaged streams get deeper.
    #[test]
    fn damage_never_panics_and_is_judged_the_same_however_cut(
        acts in vec(act(), 1..6),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let (mut stream, _) = play(&acts);
        if !stream.is_empty() {
            damage.iter().for_each(|(at, byte)| { let at = at.index(stream.len()); stream[at] = *byte; });
        }
        prop_assert_eq!(decode(SMALL, &pieces(&stream, &cuts)), decode(SMALL, &[&stream]));
    }

    #[test]
    fn what_is_written_is_what_was_said(body in "\\PC{0,300}") {
        let mut out = Vec::new();
        text(&mut out, body.as_bytes());
        let mark = begin_text(&mut out);
        out.extend_from_slice(body.as_bytes());
        end_text(&mut out, mark);
        let mut client = WebSocket::from_raw_socket(Cursor::new(out), Role::Client, None);
        for _ in 0..2 {
            prop_assert_eq!(client.read().unwrap(), Message::text(&body));
        }
    }
}
