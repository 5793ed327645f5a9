//! The Gemini bot against a provider that plays every shape it is known to have, in a room, as people see it.

use crate::fake::{Fake, Play, answer, cut_off, error, stream};
use coop_bots::{GeminiBot, GeminiSettings};
use coop_core::store::memory::MemoryStore;
use coop_core::testing::bot::bot_contract;
use coop_core::{Bot, Engine, Event, FinishReason, Room, Subscription, TurnEnd, TurnStatus};
use futures::StreamExt;
use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, timeout};

const KEY: &str = "sesame-0123456789";
const PATIENCE: Duration = Duration::from_secs(20);
/// What stands for two minutes.
const SHORT: Duration = Duration::from_millis(200);

fn settings(fake: &Fake) -> GeminiSettings {
    let mut settings = GeminiSettings::new(KEY);
    settings.base_url = format!("http://{}", fake.address);
    settings.first_byte_timeout = Duration::from_secs(5);
    settings.idle_timeout = Duration::from_secs(5);
    settings
}

/// A room with the bot in it.
struct Lab {
    engine: Engine,
    room: Room,
    events: Subscription,
}

impl Lab {
    async fn new(settings: GeminiSettings) -> Self {
        let bot = GeminiBot::new("gemini", settings).unwrap();
        let engine = Engine::builder(MemoryStore::new()).bot(bot).build().await.unwrap();
        let ana = engine.create_user("ana").await.unwrap();
        let room = ana.create_room("lab").await.unwrap();
        let events = room.subscribe().await.unwrap();
        Self { engine, room, events }
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.next())
            .await
            .expect("something comes")
            .unwrap()
            .unwrap()
    }

    /// Asks, and tells how the turn ended and with which text.
    async fn ask(&mut self, prompt: &str) -> (TurnEnd, String) {
        self.room.send(format!("/gemini {prompt}")).await.unwrap();
        self.end().await
    }

    async fn end(&mut self) -> (TurnEnd, String) {
        loop {
            if let Event::TurnEnded { end, text, .. } = self.next().await {
                return (TurnEnd::clone(&end), text.to_string());
            }
        }
    }
}

/// Everything that is logged in this process.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    struct Writer;
    impl Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.get().unwrap().lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    LOG.get_or_init(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| Writer)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Mutex::default()
    })
}

/// Plays, asks, and holds the end against what is expected: its code (or the word for how it finished) and the text.
async fn ends(what: &str, plays: Vec<Play>, code: &str, text: &str) -> (Fake, TurnEnd) {
    ends_with(what, plays, |_| {}, code, text).await
}

async fn ends_with(
    what: &str,
    plays: Vec<Play>,
    change: impl FnOnce(&mut GeminiSettings),
    code: &str,
    text: &str,
) -> (Fake, TurnEnd) {
    log();
    let fake = Fake::start(plays).await;
    let mut settings = settings(&fake);
    change(&mut settings);
    let mut lab = Lab::new(settings).await;
    let (end, said) = lab.ask("hi").await;
    let told = match (&end.error, &end.finish) {
        (Some(error), _) => error.code.to_string(),
        (None, Some(finish)) => format!("{:?}", finish.reason).to_lowercase(),
        (None, None) => format!("{:?}", end.status),
    };
    assert_eq!((told.as_str(), said.as_str()), (code, text), "{what}: {end:?}");
    let status = if end.error.is_some() {
        TurnStatus::Failed
    } else {
        TurnStatus::Done
    };
    assert_eq!(end.status, status, "{what}");
    if let Some(error) = &end.error {
        assert!(error.words.contains("Gemini"), "{what}: {}", error.words);
        assert!(!error.words.contains(KEY), "{what}: {}", error.words);
    }
    // The room goes on.
    lab.room.send("never mind").await.unwrap();
    lab.engine.close(Duration::ZERO).await;
    let logged = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
    assert!(!logged.contains(KEY), "{what}: the key is in the log");
    (fake, end)
}

#[tokio::test]
async fn answers_in_every_shape() {
    let all = || stream().text("Hello ").text("world.").end("STOP");
    ends("as it is", vec![all()], "stop", "Hello world.").await;
    ends(
        "byte by byte",
        vec![all().text("é🙂").end("STOP").one_by_one()],
        "stop",
        "Hello world.é🙂",
    )
    .await;
    let framed = stream().bytes(
        "\u{feff}: keep\n\ndata: {\"candidates\":[{\"content\":\ndata: {\"parts\":[{\"text\":\"a\\ud83d\"}]}}]}\n\n: alive\r\r\
         event: x\ndata:{\"candidates\":[{\"finishReason\":\"STOP\",\"content\":{\"parts\":[{\"text\":\"b\"}]}}]}",
    );
    ends(
        "LF, CR, a mark, comments, two lines, no end",
        vec![framed],
        "stop",
        "a\u{fffd}b",
    )
    .await;
    let thinking = stream()
        .event(r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"so"},{"call":{}}]},"finishReason":"STOP"}]}"#)
        .event(r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"no"}]}}]}"#)
        .event(r#"{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1,"thoughtsTokenCount":9,"totalTokenCount":15},"modelVersion":"gemini-x","responseId":"r1"}"#);
    let (_, end) = ends("thoughts, other candidates, usage last", vec![thinking], "stop", "so").await;
    let usage = end.usage.unwrap();
    assert_eq!(
        (usage.input, usage.thinking, usage.total, usage.estimated),
        (Some(5), Some(9), Some(15), false)
    );
    assert_eq!(end.finish.unwrap().model.as_deref(), Some("gemini-x"));
    ends(
        "at its limit",
        vec![stream().text("a").end("MAX_TOKENS")],
        "length",
        "a",
    )
    .await;
    let (_, end) = ends(
        "an unknown reason",
        vec![stream().text("a").end("BORED")],
        "other(\"bored\")",
        "a",
    )
    .await;
    assert_eq!(end.finish.unwrap().reason, FinishReason::Other("BORED".to_owned()));
    ends(
        "done",
        vec![stream().text("a").end("STOP").event("[DONE]").hang()],
        "stop",
        "a",
    )
    .await;
}

#[tokio::test]
async fn answers_that_go_wrong() {
    let a = || stream().text("a");
    ends("broken off", vec![a()], "truncated", "a").await;
    ends(
        "cut off",
        vec![cut_off(
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n",
        )],
        "transport",
        "a",
    )
    .await;
    ends(
        "half a character",
        vec![a().bytes(b"data: {\"x\":\"\xf0\x9f")],
        "protocol",
        "a",
    )
    .await;
    ends("garbage", vec![a().event("{nonsense")], "protocol", "a").await;
    ends(
        "HTML",
        vec![answer(200, "").bytes("<html>\n<body>Hello</body>\n</html>\n")],
        "protocol",
        "",
    )
    .await;
    ends(
        "a list, as without alt=sse",
        vec![answer(200, "").bytes("[{\n\"candidates\": []\n}]")],
        "protocol",
        "",
    )
    .await;
    ends(
        "a line without end",
        vec![stream().flood(&"x".repeat(1 << 16), 100 << 20)],
        "protocol",
        "",
    )
    .await;
    ends(
        "an error in an event",
        vec![a().event(r#"{"error":{"code":503,"message":"sesame-0123456789"}}"#)],
        "unavailable",
        "a",
    )
    .await;
    let bare = "{\n  \"error\": {\n    \"code\": 429,\n    \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n";
    ends("an error in bare JSON", vec![a().bytes(bare)], "rate_limited", "a").await;
    ends(
        "a blocked prompt",
        vec![stream().event(r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#)],
        "blocked_prompt",
        "",
    )
    .await;
    ends("a blocked answer", vec![a().end("SAFETY")], "blocked_output", "a").await;
    ends(
        "a continuation without its token",
        vec![a().end("CONTINUATION")],
        "protocol",
        "a",
    )
    .await;
    let endless = (0..5_000).fold(stream(), |play, _| play.text("0123456789"));
    let (_, end) = ends(
        "without end",
        vec![endless.hang()],
        "length",
        &"0123456789".repeat(3277)[..32 * 1024],
    )
    .await;
    assert_eq!(end.status, TurnStatus::Done);
}

#[tokio::test]
async fn silence_ends() {
    let short = |settings: &mut GeminiSettings| {
        settings.first_byte_timeout = SHORT;
        settings.idle_timeout = SHORT;
    };
    let (fake, _) = ends_with(
        "nothing at all",
        vec![Play::hang(answer(200, "").wait(Duration::ZERO))],
        short,
        "timeout",
        "",
    )
    .await;
    assert_eq!(fake.asked().len(), 2, "once more");
    let (fake, _) = ends_with(
        "nothing after a piece",
        vec![stream().text("a").hang()],
        short,
        "timeout",
        "a",
    )
    .await;
    assert_eq!(fake.asked().len(), 1, "what was shown is not asked for again");
    fake.left().await;
    // A model that thinks is not silent for too long.
    let slow = stream().wait(SHORT * 2).text("a").end("STOP");
    let patient = |settings: &mut GeminiSettings| settings.idle_timeout = SHORT;
    ends_with("a slow first byte", vec![slow], patient, "stop", "a").await;
}

#[tokio::test]
async fn refusals() {
    let key = format!(
        r#"{{"error":{{"code":400,"message":"API key {KEY} not valid.","details":[{{"reason":"API_KEY_INVALID"}},{{"detail":"{KEY}"}}]}}}}"#
    );
    for (what, play, code) in [
        ("a bad key", error(400, &key), "auth"),
        ("no access", error(403, ""), "auth"),
        (
            "a bad request",
            error(400, r#"{"error":{"message":"no"}}"#),
            "invalid_request",
        ),
        ("no such model", error(404, "{}"), "invalid_request"),
        (
            "a redirect",
            answer(302, "Location: http://127.0.0.1:1/\r\n"),
            "protocol",
        ),
        (
            "a day's quota",
            error(429, r#"{"error":{"details":[{"violations":[{"quotaId":"PerDay"}]}]}}"#),
            "quota_exhausted",
        ),
        (
            "a long wait",
            error(429, r#"{"error":{"details":[{"retryDelay":"36.5s"}]}}"#),
            "rate_limited",
        ),
    ] {
        let (fake, end) = ends(what, vec![play], code, "").await;
        assert_eq!(fake.asked().len(), 1, "{what} is not tried again");
        assert!(what != "no such model" || end.error.unwrap().words.contains("COOP_GEMINI_MODEL"));
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let good = || stream().text("a").end("STOP");
    for (what, plays, code, asked) in [
        ("overloaded", vec![error(503, ""), good()], "stop", 2),
        ("HTML", vec![error(502, "<html>"), error(500, ""), good()], "stop", 3),
        (
            "soon",
            vec![error(429, r#"{"error":{"details":[{"retryDelay":"0.1s"}]}}"#), good()],
            "stop",
            2,
        ),
        (
            "broken off before anything",
            vec![cut_off(": alive\n\n"), good()],
            "stop",
            2,
        ),
        (
            "an error before anything",
            vec![stream().event(r#"{"error":{"code":500}}"#), good()],
            "stop",
            2,
        ),
        ("late", vec![error(504, ""), good()], "stop", 2),
        ("late twice", vec![error(504, ""), error(408, ""), good()], "timeout", 2),
        ("overloaded for good", vec![error(503, "")], "unavailable", 3),
    ] {
        let text = if code == "stop" { "a" } else { "" };
        let (fake, _) = ends(what, plays, code, text).await;
        assert_eq!(fake.asked().len(), asked, "{what}");
    }
    let nobody = |settings: &mut GeminiSettings| settings.base_url = "http://127.0.0.1:1".to_owned();
    ends_with("nobody there", vec![good()], nobody, "transport", "").await;
}

#[tokio::test]
async fn an_answer_goes_on_over_several_requests() {
    let part = |text: &str, count: u32| {
        stream().text(text).event(&format!(
            r#"{{"candidates":[{{"finishReason":"CONTINUATION","continuationToken":"t{count}"}}],"usageMetadata":{{"totalTokenCount":10}}}}"#
        ))
    };
    let last = stream()
        .text("c")
        .end("STOP")
        .event(r#"{"usageMetadata":{"totalTokenCount":3}}"#);
    let (fake, end) = ends("in parts", vec![part("a", 1), part("b", 2), last], "stop", "abc").await;
    assert_eq!(end.usage.unwrap().total, Some(23), "added over the parts");
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].body.contains("continuationToken"));
    assert!(
        asked[1].body.ends_with(r#","continuationToken":"t1"}"#),
        "{}",
        asked[1].body
    );
    assert!(
        asked[2].body.ends_with(r#","continuationToken":"t2"}"#),
        "{}",
        asked[2].body
    );
    let (fake, _) = ends("without end", vec![part("a", 1)], "protocol", &"a".repeat(9)).await;
    assert_eq!(fake.asked().len(), 9);
}

#[tokio::test]
async fn it_asks_as_google_wants_it() {
    let (fake, _) = ends("the request", vec![stream().text("a").end("STOP")], "stop", "a").await;
    let asked = &fake.asked()[0];
    let head: Vec<_> = asked.head.lines().collect();
    assert_eq!(
        head[0],
        "post /v1beta/models/gemini-3.8-flash:streamgeneratecontent?alt=sse http/1.1"
    );
    assert!(head.contains(&"content-type: application/json"), "{head:?}");
    assert!(head.contains(&format!("x-goog-api-key: {KEY}").as_str()), "{head:?}");
    let body: String = asked.body.clone();
    assert!(
        body.contains(r#""contents":[{"role":"user","parts":[{"text":"[ana] hi"}]}]"#),
        "{body}"
    );
    assert!(
        body.contains(r#""systemInstruction":{"parts":[{"text":"#) && body.contains(r#""store":false"#),
        "{body}"
    );
    let other = |settings: &mut GeminiSettings| {
        settings.model = "models/gemini-9-pro".to_owned();
        settings.api_version = "v1".to_owned();
    };
    let (fake, _) = ends_with(
        "another model",
        vec![stream().text("a").end("STOP")],
        other,
        "stop",
        "a",
    )
    .await;
    assert!(fake.asked()[0].head.starts_with("post /v1/models/gemini-9-pro:stream"));
}

#[tokio::test]
async fn a_stop_closes_the_connection() {
    let fake = Fake::start(vec![stream().text("a").hang()]).await;
    let mut lab = Lab::new(settings(&fake)).await;
    let turn = lab.room.send("/gemini hi").await.unwrap().turn.unwrap();
    while !matches!(lab.next().await, Event::Delta { .. }) {}
    let stopped = Instant::now();
    lab.room.stop(turn.id()).await.unwrap();
    timeout(PATIENCE, fake.left()).await.expect("it is told");
    println!("the provider is left {:?} after the stop", stopped.elapsed());
    let (end, text) = lab.end().await;
    assert_eq!((end.status, text.as_str()), (TurnStatus::Stopped, "a"));
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let fake = Fake::start(vec![
        stream()
            .text("Hello ")
            .wait(Duration::from_millis(20))
            .text("there.")
            .end("STOP"),
    ])
    .await;
    bot_contract(GeminiBot::new("gemini", settings(&fake)).unwrap()).await;
}

#[test]
fn what_cannot_be_is_refused_and_the_key_is_not_shown() {
    let made = |change: fn(&mut GeminiSettings)| {
        let mut settings = GeminiSettings::new(KEY);
        change(&mut settings);
        GeminiBot::new("gemini", settings)
    };
    let bot = made(|_| {}).unwrap();
    assert!(!format!("{bot:?}").contains(KEY), "{bot:?}");
    assert_eq!(bot.profile().name, "Gemini");
    let changes: [fn(&mut GeminiSettings); 6] = [
        |settings| settings.model = "../x".to_owned(),
        |settings| settings.model = String::new(),
        |settings| settings.api_version = "v1?x".to_owned(),
        |settings| settings.base_url = "ftp://host".to_owned(),
        |settings| settings.base_url = "https://user:word@host".to_owned(),
        |settings| settings.base_url = "nonsense".to_owned(),
    ];
    for change in changes {
        let words = made(change).unwrap_err();
        assert!(!words.contains(KEY) && !words.contains("word@"), "{words}");
    }
    for key in ["", " ", "two\nlines"] {
        assert!(GeminiBot::new("gemini", GeminiSettings::new(key)).is_err());
    }
}
