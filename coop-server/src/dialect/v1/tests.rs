use super::*;
use coop_core::{Author, Epoch, Range, TurnEnd, TurnStatus};

fn command(text: &str) -> Command {
    decode(text)
        .unwrap_or_else(|malformed| panic!("{text}: {malformed:?}"))
        .command
}

#[test]
fn what_clients_say() {
    let room = RoomId(5);
    let position = Position {
        epoch: Epoch(7),
        seq: Seq(9),
        tapes: [(MessageId(12), 40)].into(),
    };
    for (text, said) in [
        (
            r#"{"type":"resume","rooms":{"5":{"epoch":7,"seq":9,"tapes":{"12":40}}}}"#,
            Command::Resume(vec![(room, position)]),
        ),
        (r#"{"type":"join","room":5}"#, Command::Join(room, None)),
        (r#"{"type":"join","room":5,"after":null}"#, Command::Join(room, None)),
        (
            r#"{"type":"join","room":5,"after":8}"#,
            Command::Join(room, Some(Seq(8))),
        ),
        (r#"{"type":"leave","room":5,"x":[1]}"#, Command::Leave(room)),
        (
            r#"{"type":"send","room":5,"text":" \u00e9\n"}"#,
            Command::Send(room, Draft::text(" é\n")),
        ),
        (
            r#"{"type":"send","room":5,"text":"x","client_id":"c","reply_to":3,"meta":{"a":1}}"#,
            Command::Send(
                room,
                Draft::text("x")
                    .client_id("c")
                    .reply_to(MessageId(3))
                    .meta(Meta::from_json(r#"{"a":1}"#).unwrap()),
            ),
        ),
        (
            r#"{"type":"edit","room":5,"message":3,"text":"y"}"#,
            Command::Edit(room, MessageId(3), "y".into()),
        ),
        (
            r#"{"type":"delete","room":5,"message":3}"#,
            Command::Delete(room, MessageId(3)),
        ),
        (r#"{"type":"typing","room":5}"#, Command::Typing(room)),
        (r#"{"type":"read","room":5,"seq":4}"#, Command::Read(room, Seq(4))),
        (r#"{"type":"stop","room":5,"turn":6}"#, Command::Stop(room, TurnId(6))),
        (
            r#"{"type":"retry","room":5,"message":3}"#,
            Command::Retry(room, MessageId(3)),
        ),
        (
            r#"{"type":"history","room":5}"#,
            Command::History(room, Range::Newest, 50),
        ),
        (
            r#"{"type":"history","room":5,"before":9,"limit":100000}"#,
            Command::History(room, Range::Before(Seq(9)), 100_000),
        ),
        (
            r#"{"type":"history","room":5,"after":9,"limit":1}"#,
            Command::History(room, Range::After(Seq(9)), 1),
        ),
        (r#"{"type":"token","token":"t"}"#, Command::Token("t".into())),
    ] {
        assert_eq!(command(text), said, "{text}");
    }
}

#[test]
fn numbers_come_back_as_they_were_given() {
    for number in ["1", "0", "-7", "9007199254740993", "1.5"] {
        let asked = decode(&format!(r#"{{"type":"typing","room":5,"ref":{number}}}"#)).unwrap();
        assert_eq!(asked.by.unwrap().to_string(), number);
        let malformed = decode(&format!(r#"{{"type":"typing","ref":{number}}}"#)).unwrap_err();
        assert_eq!(malformed.by.unwrap().to_string(), number);
    }
}

#[test]
fn what_is_wrong_is_told() {
    for (text, words) in [
        ("", "a frame must be one JSON object"),
        ("5", "a frame must be one JSON object"),
        (r#"["join",5]"#, "a frame must be one JSON object"),
        (r#"{"type":"join","type":"join"}"#, "a frame must be one JSON object"),
        ("{}", "type is missing"),
        (r#"{"type":7}"#, "type is not what it should be"),
        (r#"{"type":"dance"}"#, "no command is called \"dance\""),
        (r#"{"type":"join"}"#, "room is missing"),
        (r#"{"type":"join","room":"5"}"#, "room is not what it should be"),
        (r#"{"type":"join","room":1e30}"#, "room is not what it should be"),
        (
            r#"{"type":"typing","room":5,"ref":"a"}"#,
            "ref is not what it should be",
        ),
        (r#"{"type":"send","room":5}"#, "text is missing"),
        (
            r#"{"type":"send","room":5,"text":"\ud800"}"#,
            "text is not what it should be",
        ),
        (
            r#"{"type":"send","room":5,"text":"x","meta":[]}"#,
            "meta must be a JSON object",
        ),
        (
            r#"{"type":"resume","rooms":{"5":{"seq":9}}}"#,
            "rooms is not what it should be",
        ),
        (
            r#"{"type":"resume","rooms":{"a":{"epoch":1,"seq":9}}}"#,
            "rooms is not what it should be",
        ),
        (r#"{"type":"history","room":5,"limit":0}"#, "limit must be at least 1"),
        (
            r#"{"type":"history","room":5,"before":1,"after":2}"#,
            "before and after exclude each other",
        ),
    ] {
        assert_eq!(decode(text).unwrap_err().words, words, "{text}");
    }
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(1_000));
    assert!(decode(&long).unwrap_err().words.len() < 100);
    assert!(decode(&"[".repeat(100_000)).is_err());
    assert!(decode(&format!(r#"{{"type":"join","room":{}}}"#, "[".repeat(100_000))).is_err());
}

fn frames(bytes: &[u8]) -> Vec<serde_json::Value> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let [_, short, after @ ..] = rest {
        let (length, after) = match short {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            length => (usize::from(*length), after),
        };
        found.push(serde_json::from_slice(&after[..length]).unwrap());
        rest = &after[length..];
    }
    found
}

fn entries(events: Vec<Event>) -> Vec<Entry> {
    let outside = |event| Entry::outside(Arc::new(event), Seq(0));
    events.into_iter().map(outside).collect()
}

fn delta(message: i64, offset: u64, text: &str) -> Event {
    Event::Delta {
        room: RoomId(5),
        message: MessageId(message),
        offset,
        end: offset + text.len() as u64,
        text: text.into(),
    }
}

fn encoded(level: Level, events: Vec<Event>) -> Vec<serde_json::Value> {
    let mut out = Frames::default();
    let entries = entries(events);
    V1.encode(level, &entries, &mut out);
    let told = frames(&out.bytes);
    assert_eq!(out.ends().len(), told.len());
    told
}

#[test]
fn pieces_that_go_on_from_each_other_are_one_frame() {
    let told = encoded(
        Level::Full,
        vec![
            delta(1, 0, "a"),
            delta(1, 1, "é"),
            delta(2, 0, "x"),
            delta(1, 3, "c"),
            delta(1, 9, "gap"),
        ],
    );
    let seen: Vec<_> = told
        .iter()
        .map(|frame| {
            (
                frame["message"].as_i64().unwrap(),
                frame["offset"].as_i64().unwrap(),
                frame["text"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [(1, 0, "aé"), (2, 0, "x"), (1, 3, "c"), (1, 9, "gap")]);
    assert_eq!(told[0]["end"], 3);
    assert!(encoded(Level::Events, vec![delta(1, 0, "a")]).is_empty());
}

#[test]
fn a_tape_is_a_piece_from_the_beginning() {
    let told = encoded(
        Level::Full,
        vec![
            Event::Tape {
                room: RoomId(5),
                message: MessageId(1),
                end: 2,
                text: "ab".into(),
            },
            delta(1, 2, "c"),
        ],
    );
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["offset"], &told[0]["end"], &told[0]["text"]),
        (&0.into(), &3.into(), &"abc".into())
    );
}

#[test]
fn an_event_has_its_type_and_its_kind() {
    let message = Message::new(
        MessageId(1),
        RoomId(5),
        Seq(3),
        Author::person(UserId(9), "anne"),
        "hi".into(),
        Timestamp(0),
    );
    let told = encoded(
        Level::Events,
        vec![
            Event::MessagePosted {
                room: RoomId(5),
                seq: Seq(3),
                message: Arc::new(message),
            },
            Event::TurnEnded {
                room: RoomId(5),
                seq: Seq(4),
                turn: coop_core::TurnId(2),
                bot: "echo".into(),
                message: None,
                text: "".into(),
                end: Box::new(TurnEnd::new(TurnStatus::Stopped)),
            },
        ],
    );
    assert_eq!(
        (&told[0]["type"], &told[0]["kind"]),
        (&"event".into(), &"message_posted".into())
    );
    assert_eq!(told[0]["message"]["author"]["name"], "anne");
    assert_eq!(told[1]["status"], "stopped");
    assert!(
        told[1].get("message").is_none(),
        "a turn that never began has no message"
    );
}
