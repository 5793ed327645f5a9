//! Transcripts of the whole interface: every route and every event, as a client sees them, in `tests/golden` and in the
//! `transcript` blocks of `PROTOCOL.md`, which are one script.
//!
//! A transcript is a script and what came of it. Lines that are indented are what came; the others are what is done:
//!
//! ```text
//! # for people
//! alice POST /api/chats {"name":"lab"}      alice's request; `-` is nobody
//! + Origin: http://localhost:3000           one more header of it
//! alice connects                            opens alice's socket
//! phone connects as alice                   another one, called phone
//! eve connects with nonsense                with this token
//! alice connects in coop.v1                 a socket that speaks it
//! alice breaks off                          the socket is gone
//! server closes                             and everybody is told
//! alice > {"type":"join","chat_id":1}       alice's socket sends this text
//! alice hears message                       reads until a frame of this type, or of this kind of event, has come
//! alice hears an answer                     reads an answer to its end, and shows how it begins and ends
//! alice hears nothing                       nothing has come, or comes soon
//! ```
//!
//! Times, tokens and epochs are not shown, and `<epoch>` in a script is the one that was seen last; all else must be the same each time. `UPDATE_GOLDEN=1` writes what came into the
//! files, to be looked at before it is kept.

use crate::client::{Http, Person, Reply, Ws};
use crate::server::{PAGE, Server};
use coop_bots::mock::{Chunking, Failure, MockBot};
use coop_core::Engine;
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Headers that are shown if they are there.
const SHOWN: [&str; 6] = [
    "allow",
    "location",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Pieces come far enough apart to be sent one by one: each begins a frame of its own.
async fn server() -> Server {
    let apart = |bot: MockBot| bot.delays(Duration::from_millis(20), Duration::from_millis(200));
    let engine = Engine::builder(MemoryStore::new())
        .password_cost(Cost::cheap_for_tests())
        .bot(apart(MockBot::named("mock")).echo().chunking(Chunking::Pieces(2)))
        .bot(apart(MockBot::named("mock2")).fails(Failure::Error, 0))
        .bot(
            apart(MockBot::named("mock3"))
                .text("One half, the other half.")
                .chunking(Chunking::Pieces(2))
                .fails(Failure::Error, 1),
        );
    Server::on(engine, |api| api, None).await
}

/// Plays a script and writes down what comes of it.
struct Player {
    server: Server,
    people: BTreeMap<String, Person>,
    sockets: BTreeMap<String, Ws>,
    /// Events that were heard before an `ok` that was listened for.
    aside: BTreeMap<String, VecDeque<Value>>,
    /// Whether what was asked last makes something, of which its author may hear before or after the `ok`. Who joins or
    /// resumes has what was missed before it.
    makes: bool,
    /// The one that was seen last.
    epoch: i64,
    transcript: String,
}

/// The lines of a script without what came, and whether each is one: a page's other lines are not.
fn lines(script: &str, is_page: bool) -> Vec<(&str, bool)> {
    let mut inside = !is_page;
    let mut lines = Vec::new();
    for line in script.lines() {
        let fence = is_page && line.starts_with("```");
        if fence {
            inside = line == "```transcript";
        }
        if !(inside && line.starts_with(' ')) {
            lines.push((line, inside && !fence));
        }
    }
    lines
}

impl Player {
    async fn play(script: &str, is_page: bool) -> String {
        let mut player = Self {
            server: server().await,
            people: BTreeMap::new(),
            sockets: BTreeMap::new(),
            aside: BTreeMap::new(),
            makes: false,
            epoch: 0,
            transcript: String::new(),
        };
        let lines = lines(script, is_page);
        for (index, (line, is_done)) in lines.iter().enumerate() {
            if *is_done && line.starts_with('+') {
                // Written with its request.
                continue;
            }
            writeln!(player.transcript, "{line}").unwrap();
            // Where a script stops, if it stops.
            println!("{line}");
            if !is_done || line.is_empty() || line.starts_with('#') {
                continue;
            }
            let headers: Vec<_> = lines[index + 1..]
                .iter()
                .map_while(|(line, _)| line.strip_prefix("+ ")?.split_once(": "))
                .collect();
            for header in &headers {
                writeln!(player.transcript, "+ {}: {}", header.0, header.1).unwrap();
            }
            player.line(line, &headers).await;
        }
        player.transcript
    }

    fn came(&mut self, line: &str) {
        writeln!(self.transcript, "    {line}").unwrap();
    }

    async fn line(&mut self, line: &str, headers: &[(&str, &str)]) {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            [name, ">", ..] => {
                let text = line[name.len() + 3..].replace("\"<epoch>\"", &self.epoch.to_string());
                let joins = [r#"{"type":"join""#, r#"{"type":"resume""#];
                self.makes = !joins.iter().any(|begin| text.starts_with(begin));
                self.socket(name).send_text(&text).await;
            }
            [name, "connects"] => self.connect(name, name, None).await,
            [name, "connects", "in", protocol] => {
                let token = &self.people[name].token;
                let open = Ws::open_in(self.server.address, token, protocol).await;
                self.sockets.insert(name.to_owned(), open);
            }
            [name, "breaks", "off"] => drop(self.sockets.remove(name)),
            ["server", "closes"] => self.server.end(),
            [name, "connects", "as", person] => self.connect(name, person, None).await,
            [name, "connects", "with", token] => self.connect(name, name, Some(token)).await,
            [name, "hears", "an", "answer"] => self.hear_answer(name).await,
            [name, "hears", "nothing"] => {
                let mut frames: Vec<_> = self.aside.remove(name).unwrap_or_default().into();
                frames.extend(self.socket(name).rest().await);
                self.hear_all(name, frames);
            }
            [name, "hears", kind] => {
                let mut frames = Vec::new();
                loop {
                    let frame = self.next(name).await;
                    let found = frame["type"] == kind || frame["kind"] == kind || frame.get(kind).is_some();
                    frames.push(frame);
                    if found {
                        break;
                    }
                }
                if kind == "ok" && self.makes {
                    let events;
                    (events, frames) = frames.into_iter().partition(|frame| frame["type"] == "event");
                    self.aside.entry(name.to_owned()).or_default().extend(events);
                }
                self.hear_all(name, frames);
            }
            [name, method, path, ..] => self.request(name, method, path, words.get(3), headers).await,
            _ => panic!("no line of a script: {line}"),
        }
    }

    fn socket(&mut self, name: &str) -> &mut Ws {
        self.sockets
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} has no socket"))
    }

    /// The next frame, first of those that were put aside.
    async fn next(&mut self, name: &str) -> Value {
        match self.aside.get_mut(name).and_then(VecDeque::pop_front) {
            Some(frame) => frame,
            None => self.socket(name).next().await,
        }
    }

    /// Writes frames down, an `ok` before the events that it is the answer for.
    fn hear_all(&mut self, name: &str, mut frames: Vec<Value>) {
        for index in 1..frames.len() {
            let mut at = index;
            while self.makes && at > 0 && frames[at]["type"] == "ok" && frames[at - 1]["type"] == "event" {
                frames.swap(at, at - 1);
                at -= 1;
            }
        }
        frames.into_iter().for_each(|frame| self.hear(name, frame));
    }

    fn hear(&mut self, name: &str, frame: Value) {
        if let Some(epoch) = epoch(&frame) {
            self.epoch = epoch;
        }
        let frame = steady(frame);
        self.came(&format!("{name} < {frame}"));
    }

    async fn connect(&mut self, socket: &str, person: &str, token: Option<&str>) {
        let token = token.map_or_else(|| self.people[person].token.clone(), str::to_owned);
        let request = Ws::request(self.server.address, &token);
        match Ws::try_open(self.server.address, request).await {
            Ok(mut open) => {
                open.settle().await;
                self.sockets.insert(socket.to_owned(), open);
            }
            Err(status) => self.came(&status.to_string()),
        }
    }

    /// How an answer grows is not the same each time: the first frame stands for all before the last.
    async fn hear_answer(&mut self, name: &str) {
        let mut shown = String::new();
        if self.socket(name).speaks_v1() {
            return self.hear_pieces(name).await;
        }
        loop {
            let mut frame = self.socket(name).of_type("bot_stream").await;
            let content = frame["message"]["content"].as_str().unwrap().to_owned();
            assert!(content.starts_with(&shown), "{content:?} does not go on from {shown:?}");
            let over = frame["message"]["status"] != "streaming";
            if !over {
                frame["message"]["content"] = json!("<so far>");
            }
            if over || shown.is_empty() {
                self.hear(name, frame);
            }
            if over {
                return;
            }
            shown = content;
        }
    }

    /// The same in pieces: the first stands for all, and what they give is what the answer ends with.
    async fn hear_pieces(&mut self, name: &str) {
        let (mut text, mut frames) = (String::new(), Vec::new());
        loop {
            let mut frame = self.next(name).await;
            if frame["type"] == "delta" {
                assert_eq!(frame["offset"], text.len(), "pieces follow each other");
                text.push_str(frame["text"].as_str().unwrap());
                assert_eq!(frame["end"], text.len());
                if frame["offset"] != 0 {
                    continue;
                }
                for part in ["text", "end"] {
                    frame[part] = json!("<so far>");
                }
            }
            let over = frame["kind"] == "turn_ended";
            if over {
                assert!(frame["text"] == text.as_str() || frame["end"] == text.len());
            }
            frames.push(frame);
            if over {
                return self.hear_all(name, frames);
            }
        }
    }

    async fn request(&mut self, name: &str, method: &str, path: &str, body: Option<&&str>, headers: &[(&str, &str)]) {
        let token = self.people.get(name).map(|person| format!("Bearer {}", person.token));
        let mut all = headers.to_vec();
        if let Some(token) = &token {
            all.push(("Authorization", token));
        }
        let http = self.server.http();
        let all: Vec<_> = all
            .iter()
            .map(|(name, value)| (*name, value.replace("<epoch>", &self.epoch.to_string())))
            .collect();
        let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = if path.contains("/events") {
            http.follow(path, &all, "\n\n: ").await
        } else {
            exchange(&http, method, path, &all, body.copied()).await
        };
        if let Some(token) = reply.value("access_token") {
            let login: Value = serde_json::from_str(body.unwrap()).unwrap();
            // Who has another password is known by the old token.
            let name = login["username"].as_str().unwrap_or(name).to_owned();
            let person = Person {
                name: name.clone(),
                id: 0,
                token,
            };
            self.people.insert(name, person);
        }
        let kind = reply.header("content-type").unwrap_or("no content");
        self.came(&format!("{} {kind}", reply.status));
        for header in SHOWN {
            if let Some(value) = reply.header(header) {
                self.came(&format!("{header}: {value}"));
            }
        }
        match serde_json::from_str(&reply.body) {
            Ok(json) => self.came(&steady(json).to_string()),
            Err(_) if reply.body.is_empty() => {}
            Err(_) => {
                for line in reply.body.lines() {
                    match line
                        .split_once(": ")
                        .map(|(name, value)| (name, serde_json::from_str(value)))
                    {
                        Some(("data", Ok(json))) => self.came(&format!("data: {}", steady(json))),
                        Some(("id", Ok(Value::Number(_)))) => {
                            let (_, seq) = line.split_once('.').unwrap();
                            self.came(&format!("id: <epoch>.{seq}"));
                        }
                        _ => self.came(line),
                    }
                }
            }
        }
    }
}

async fn exchange(http: &Http, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
    http.send_text(method, path, headers, body.unwrap_or_default()).await
}

impl Reply {
    fn value(&self, name: &str) -> Option<String> {
        let json: Value = serde_json::from_str(&self.body).ok()?;
        Some(json.get(name)?.as_str()?.to_owned())
    }
}

/// Which epoch a frame tells of.
fn epoch(frame: &Value) -> Option<i64> {
    let found = frame.get("epoch").or_else(|| frame["rooms"].get(0)?.get("epoch"));
    found.or_else(|| frame["room"].get("epoch"))?.as_i64()
}

/// The same without what is another each time.
fn steady(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            let is_bye = fields.get("type").is_some_and(|kind| kind == "bye");
            for (name, field) in fields.iter_mut() {
                *field = match (name.as_str(), field.take()) {
                    ("access_token", Value::String(_)) => json!("<token>"),
                    // Of words with today's date among them.
                    ("hash", Value::String(hash)) => {
                        assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()));
                        json!("<hash>")
                    }
                    ("epoch", Value::Number(_)) => json!("<epoch>"),
                    // Somebody else is told something else.
                    ("retry_after_ms", Value::Number(after)) if is_bye => {
                        assert!((500..=1_500).contains(&after.as_u64().unwrap()), "{after}");
                        json!("<between 500 and 1500>")
                    }
                    (
                        "created_at" | "last_message_time" | "read_at" | "joined_at" | "edited_at" | "deleted_at"
                        | "server_time",
                        Value::String(time),
                    ) => {
                        let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
                        let shape: String = time.chars().map(shape).collect();
                        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{name}");
                        json!("<time>")
                    }
                    (_, field) => steady(field),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = steady(item.take())),
        _ => {}
    }
    value
}

pub(crate) fn transcripts() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

#[tokio::test]
async fn transcripts_are_as_they_were() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let played = transcripts().into_iter().map(|(path, golden)| async move {
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let now = Player::play(&golden, is_page).await;
        (path, golden, now)
    });
    let mut differ = String::new();
    for (path, golden, now) in futures::future::join_all(played).await {
        if update {
            std::fs::write(&path, &now).unwrap();
            continue;
        }
        let mut lines = golden.lines().zip(now.lines()).enumerate();
        let first = lines.find(|(_, (golden, now))| golden != now);
        if let Some((number, (golden, now))) = first {
            writeln!(differ, "{}:{}\n  was {golden}\n  is  {now}", path.display(), number + 1).unwrap();
        } else if golden != now {
            writeln!(differ, "{}: more or fewer lines", path.display()).unwrap();
        }
    }
    assert!(differ.is_empty(), "\n{differ}");
}

/// The method and path of each row of the router's surface.
fn surface() -> Vec<(String, String)> {
    let source = include_str!("../../src/router.rs");
    let start = source.find("static SURFACE").unwrap();
    let rows = source[start..].lines().take_while(|line| !line.starts_with("];"));
    let row = |line: &str| {
        let path = line.split('"').nth(1)?.to_owned();
        let methods = ["GET", "POST", "DELETE", "PUT", "PATCH"];
        let method = methods.into_iter().find(|method| line.contains(method))?;
        Some((method.to_owned(), path))
    };
    rows.filter_map(row).collect()
}

/// The type of each frame that a dialect can send.
fn events(source: &str) -> Vec<String> {
    let start = source.find("enum Say<").unwrap();
    let lines = source[start..].lines().take_while(|line| !line.starts_with('}'));
    let names = lines.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let snake = |name: &str| {
        let mut word = String::new();
        for (index, c) in name.char_indices() {
            if c.is_ascii_uppercase() && index > 0 {
                word.push('_');
            }
            word.push(c.to_ascii_lowercase());
        }
        word
    };
    names
        // Another shape of an event.
        .filter(|name| name.starts_with(char::is_uppercase) && *name != "TurnEnded")
        .map(snake)
        .collect()
}

pub(crate) fn is_of(path: &str, pattern: &str) -> bool {
    let path = path.split('?').next().unwrap();
    let (path, pattern): (Vec<_>, Vec<_>) = (path.split('/').collect(), pattern.split('/').collect());
    let same = |(part, wanted): (&&str, &&str)| wanted.starts_with('{') || part == wanted;
    path.len() == pattern.len() && path.iter().zip(&pattern).all(same)
}

#[test]
fn every_route_and_every_event_has_a_transcript() {
    let all: String = transcripts().into_iter().map(|(_, text)| text).collect();
    let requests: Vec<(&str, &str, bool)> = all
        .lines()
        .zip(all.lines().skip(1))
        .filter(|(line, _)| !line.starts_with(' '))
        .filter_map(|(line, came)| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?, came.starts_with("    200 ")))
        })
        .collect();
    let (seed, v1) = (
        events(include_str!("../../src/dialect/seed.rs")),
        events(include_str!("../../src/dialect/v1.rs")),
    );
    assert!(v1.len() >= 11, "{v1:?}");
    let (routes, events) = (surface(), [seed, v1].concat());
    assert!(routes.len() >= 18 && events.len() >= 10, "{routes:?} {events:?}");
    // Documents for programs have tests of their own.
    let apart = |path: &str| ["/ws", "/metrics", "/api/openapi.json"].contains(&path);
    for (method, path) in routes.iter().filter(|(_, path)| !apart(path)) {
        let done = requests
            .iter()
            .any(|(its, at, done)| its == method && is_of(at, path) && *done);
        assert!(done, "no transcript shows {method} {path} succeed");
    }
    for event in events {
        assert!(
            all.contains(&format!("\"type\":\"{event}\"")),
            "no transcript shows {event}"
        );
    }
    for (what, shown) in [("a socket", " connects"), ("a refusal", "< {\"error\":"), (PAGE, PAGE)] {
        assert!(all.contains(shown), "no transcript shows {what}");
    }
}
