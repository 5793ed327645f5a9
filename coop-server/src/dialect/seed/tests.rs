use super::*;

fn say(text: &str) -> Result<Option<Command>, &'static str> {
    decode(text)
}

#[test]
fn what_clients_say() {
    let room = RoomId(5);
    assert_eq!(
        say(r#"{"type":"join","chat_id":5}"#),
        Ok(Some(Command::Join(room, None)))
    );
    assert_eq!(
        say(r#"{"chat_id":5,"type":"leave","x":[1]}"#),
        Ok(Some(Command::Leave(room)))
    );
    assert_eq!(say(r#"{"type":"typing","chat_id":5}"#), Ok(Some(Command::Typing(room))));
    assert_eq!(
        say(r#"{"type":"message","chat_id":5,"content":" \u00e9\n "}"#),
        Ok(Some(Command::Send(room, Draft::text(" é\n "))))
    );
}

#[test]
fn what_means_nothing_is_ignored() {
    for text in [
        "{}",
        r#"{"type":null}"#,
        r#"{"type":7,"chat_id":5}"#,
        r#"{"type":"dance","chat_id":"x"}"#,
        r#"{"type":"JOIN","chat_id":5}"#,
    ] {
        assert_eq!(say(text), Ok(None), "{text}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    for text in [
        "",
        "nonsense",
        "5",
        "null",
        r#"["join",5]"#,
        "\"join\"",
        "{\"type\":",
        r#"{"type":"join","type":"join"}"#,
    ] {
        assert_eq!(say(text), Err("Not a JSON object"), "{text}");
    }
    for text in [
        r#"{"type":"join"}"#,
        r#"{"type":"join","chat_id":null}"#,
        r#"{"type":"join","chat_id":"5"}"#,
        r#"{"type":"join","chat_id":1e30}"#,
        r#"{"type":"message","content":"x"}"#,
    ] {
        assert_eq!(say(text), Err(NOT_AUTHORIZED), "{text}");
    }
    for text in [
        r#"{"type":"message","chat_id":5}"#,
        r#"{"type":"message","chat_id":5,"content":null}"#,
        r#"{"type":"message","chat_id":5,"content":{"a":1}}"#,
        r#"{"type":"message","chat_id":5,"content":"\ud800"}"#,
    ] {
        assert_eq!(say(text), Err("content must be a text"), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(say(&deep), Err("Not a JSON object"));
}
