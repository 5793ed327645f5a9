//! What must hold for whatever a client sends, asked by the fuzz targets in `coop-server/fuzz` and, within bounds, by
//! property tests here.

use crate::dialect::{Command, seed, v1};
use crate::frame::{Decoder, Incoming, Limits, Violation};
use coop_core::id::MAX_ID;
use std::borrow::Cow;

/// Small, so that they are reached.
const LIMITS: Limits = Limits {
    max_message: 512,
    max_fragments: 4,
};

/// Frames mean the same however the network cuts them, and no message is larger than it may be.
///
/// # Panics
/// If not.
pub fn frames(data: &[u8]) {
    let (cuts, data) = data.split_at(data.len().min(8));
    let whole = decoded(&[data]);
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in cuts {
        let (piece, others) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = others;
    }
    pieces.push(rest);
    assert_eq!(decoded(&pieces), whole, "cut by {cuts:?}");
    for incoming in &whole.0 {
        let length = match incoming {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) => bytes.len(),
            Incoming::Ping(bytes) | Incoming::Pong(bytes) => {
                assert!(bytes.len() <= 125);
                0
            }
            Incoming::Close(_) => 0,
        };
        assert!(length <= LIMITS.max_message);
    }
}

fn decoded(pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Violation>) {
    let mut decoder = Decoder::new(LIMITS);
    let mut all = Vec::new();
    for piece in pieces {
        let mut bytes = *piece;
        loop {
            match decoder.next(&mut bytes) {
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(violation) => return (all, Some(violation)),
            }
        }
    }
    (all, None)
}

/// What a text asks for names only ids that a client can hold, in either dialect, and what is refused is refused with
/// few words.
///
/// # Panics
/// If not.
pub fn commands(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let v1 = v1::decode(text)
        .map(|asked| Some(asked.command))
        .map_err(|malformed| malformed.words);
    let seed = seed::decode(text).map_err(Cow::from);
    for decoded in [seed, v1] {
        match decoded {
            Ok(Some(command)) => {
                for id in ids(&command) {
                    assert!((1..=MAX_ID).contains(&id), "{command:?}");
                }
            }
            Ok(None) => {}
            Err(words) => assert!(!words.is_empty() && words.len() < 200, "{words}"),
        }
    }
}

/// The ids that a command names.
fn ids(command: &Command) -> Vec<i64> {
    match command {
        Command::Resume(rooms) => {
            let tapes = rooms.iter().flat_map(|(_, position)| position.tapes.keys());
            rooms
                .iter()
                .map(|(room, _)| room.0)
                .chain(tapes.map(|message| message.0))
                .collect()
        }
        Command::Edit(room, message, _) | Command::Delete(room, message) | Command::Retry(room, message) => {
            vec![room.0, message.0]
        }
        Command::Stop(room, turn) => vec![room.0, turn.0],
        Command::Join(room, _)
        | Command::Leave(room)
        | Command::Send(room, _)
        | Command::Typing(room)
        | Command::Read(room, _)
        | Command::History(room, ..) => vec![room.0],
        Command::Token(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client would send it, or nearly.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let head = (0_u8..=255, prop::bool::weighted(0.9), 0_usize..140);
        (head, any::<[u8; 4]>()).prop_map(|((first, masked, length), mask)| {
            let mut bytes = vec![first & 0x8f, if masked { 0x80 } else { 0 }];
            match length {
                0..126 => bytes[1] |= length as u8,
                _ => {
                    bytes[1] |= 126;
                    bytes.extend((length as u16).to_be_bytes());
                }
            }
            if masked {
                bytes.extend(mask);
            }
            let text = "äh, 🙂 well ".bytes().cycle().take(length);
            bytes.extend(text.zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
            bytes
        })
    }

    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\u0000",
        "\\ud800",
        "null",
        "true",
        "1",
        "-1",
        "0",
        "9007199254740992",
        "1e3",
        "1.0",
        "\"type\"",
        "\"join\"",
        "\"leave\"",
        "\"message\"",
        "\"send\"",
        "\"typing\"",
        "\"read\"",
        "\"stop\"",
        "\"edit\"",
        "\"delete\"",
        "\"retry\"",
        "\"auth\"",
        "\"chat_id\"",
        "\"room\"",
        "\"content\"",
        "\"text\"",
        "\"client_id\"",
        "\"reply_to\"",
        "\"meta\"",
        "\"message\"",
        "\"turn\"",
        "\"seq\"",
        "\"token\"",
        "\"ref\"",
        "\"epoch\"",
        "\"tapes\"",
        " ",
        "é",
    ];

    proptest! {
        #[test]
        fn frames_mean_the_same_however_they_are_cut(
            cuts in any::<[u8; 8]>(),
            stream in prop::collection::vec(frame(), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            frames(&[&cuts[..], &stream.concat(), &noise].concat());
        }

        #[test]
        fn texts_of_any_shape_name_only_ids(
            words in prop::collection::vec(prop::sample::select(WORDS), 0..30),
            pairs in prop::collection::vec((0_usize..WORDS.len(), 0_usize..WORDS.len()), 0..6),
        ) {
            commands(words.concat().as_bytes());
            // Objects at least, of words that mean something.
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}:{}", WORDS[*key], WORDS[*value])).collect();
            commands(format!("{{{}}}", pairs.join(",")).as_bytes());
        }
    }
}
