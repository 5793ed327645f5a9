//! Servers, Redis and PostgreSQL are killed at random under load, and everything that anybody was told is held against
//! the store: what was acknowledged is there once, everybody saw one log in one order, every turn has ended, and
//! everybody holds the same answers.
//!
//! Two houses at the same time: two servers on PostgreSQL with Redis between them, and one on SQLite. `COOP_CRASH_SECONDS`
//! is how long it goes on, `COOP_CRASH_SEED` decides what is killed when. `make crash` runs it for long, and prints what
//! was measured.

use crate::binary::{Program, with_mock};
use crate::client::{Http, Person};
use coop_core::store::RoomStore;
use coop_core::store::postgres::PostgresStore;
use coop_core::store::sqlite::SqliteStore;
use coop_core::testing::postgres::Cluster;
use coop_core::testing::redis::Redis;
use coop_core::testing::skipped;
use coop_core::{Event, MessageId, RoomId, Seq};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PEOPLE: usize = 6;
const ROOMS: usize = 3;
/// How many messages of one person may wait to be acknowledged.
const WAITING: usize = 20;
/// How long the end of everything may take: a turn is found dead after ten seconds.
const SETTLE: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Some servers on one store, as the people in it see them.
struct House {
    /// Where each of them is; nothing while it is down.
    servers: Mutex<Vec<Option<SocketAddr>>>,
    /// People say nothing new.
    quiet: AtomicBool,
    /// When anybody's message was last acknowledged, and how long nobody's was.
    acknowledged: Mutex<(Instant, Duration)>,
    wrong: Mutex<Vec<String>>,
    /// What each person still waits for.
    waiting: Mutex<BTreeMap<String, String>>,
}

impl House {
    fn new(servers: usize) -> Arc<Self> {
        Arc::new(Self {
            servers: Mutex::new(vec![None; servers]),
            quiet: AtomicBool::new(false),
            acknowledged: Mutex::new((Instant::now(), Duration::ZERO)),
            wrong: Mutex::default(),
            waiting: Mutex::default(),
        })
    }

    fn any(&self, random: &mut fastrand::Rng) -> Option<SocketAddr> {
        let servers = self.servers.lock().unwrap();
        let up: Vec<_> = servers.iter().flatten().copied().collect();
        random.choice(up)
    }

    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    fn note_acknowledged(&self) {
        let (last, longest) = &mut *self.acknowledged.lock().unwrap();
        *longest = (*longest).max(last.elapsed());
        *last = Instant::now();
    }
}

/// What somebody has in front of them of one room.
#[derive(Default)]
struct Shown {
    epoch: Value,
    seq: i64,
    /// The events by which it came about, as far as they were seen: which message each was about.
    log: BTreeMap<i64, (String, Value)>,
    /// Answers being written.
    tapes: BTreeMap<i64, String>,
    /// Turns that have not ended.
    turns: BTreeSet<i64>,
    /// Answers that have ended.
    answers: BTreeMap<i64, String>,
    /// How often it was shown all of it anew.
    snapshots: usize,
    /// The newest frames, for whoever wonders how it came about.
    newest: std::collections::VecDeque<String>,
}

/// Everything one person was told.
#[derive(Default)]
struct Record {
    rooms: BTreeMap<i64, Shown>,
    /// By client id: where, and what.
    waiting: BTreeMap<String, (i64, String)>,
    /// By client id: where, what, and which message that is, at which place of the log.
    acknowledged: BTreeMap<String, (i64, String, i64, i64)>,
    asked: usize,
    connections: usize,
}

struct Somebody {
    house: Arc<House>,
    me: Person,
    rooms: Vec<i64>,
    random: fastrand::Rng,
    record: Record,
    said: usize,
}

type Socket = WebSocketStream<TcpStream>;

impl Somebody {
    async fn live(mut self) -> Record {
        loop {
            if let Some(address) = self.house.any(&mut self.random)
                && let Some(socket) = self.connect(address).await
                && self.talk(socket).await
            {
                self.tell_waiting("done");
                return self.record;
            }
            self.tell_waiting("away");
            sleep(Duration::from_millis(self.random.u64(20..200))).await;
        }
    }

    async fn connect(&self, address: SocketAddr) -> Option<Socket> {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        let offered = format!("coop.v1, bearer.{}", self.me.token).parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let opening = async {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            Some(tokio_tungstenite::client_async(request, stream).await.ok()?.0)
        };
        timeout(Duration::from_secs(3), opening).await.ok()?
    }

    /// Until the line breaks, or everything is over and settled: then this is true.
    async fn talk(&mut self, mut socket: Socket) -> bool {
        self.record.connections += 1;
        // What happens before this is answered comes again with the answer.
        let mut refs = BTreeMap::from([(0, String::new())]);
        let mut next_ref = 0;
        for frame in self.first_frames() {
            if socket.send(Message::text(frame.to_string())).await.is_err() {
                return false;
            }
        }
        let mut again: Vec<String> = self.record.waiting.keys().cloned().collect();
        let mut next_say = Instant::now();
        let mut next_ping = Instant::now() + Duration::from_secs(2);
        let mut heard = Instant::now();
        let (mut news, mut last) = (Instant::now(), String::new());
        loop {
            let frame = tokio::select! {
                biased;
                frame = socket.next() => frame,
                () = sleep_until(next_say) => {
                    next_say = Instant::now() + Duration::from_millis(self.random.u64(20..120));
                    if let Some(stop) = self.something_to_stop() {
                        if socket.send(Message::text(stop.to_string())).await.is_err() {
                            return false;
                        }
                        continue;
                    }
                    let key = again.pop().or_else(|| self.something_new());
                    let Some((key, (room, text))) = key.and_then(|key| {
                        let what = self.record.waiting.get(&key)?.clone();
                        Some((key, what))
                    }) else {
                        continue;
                    };
                    next_ref += 1;
                    refs.insert(next_ref, key.clone());
                    let send = json!({ "type": "send", "ref": next_ref, "room": room, "client_id": key, "text": text });
                    if socket.send(Message::text(send.to_string())).await.is_err() {
                        return false;
                    }
                    continue;
                }
                () = sleep_until(next_ping) => {
                    next_ping = Instant::now() + Duration::from_secs(2);
                    self.tell_waiting(&format!("talking, {:.0?} since {last}", news.elapsed()));
                    let settled = self.house.is_quiet()
                        && self.record.waiting.is_empty()
                        && self.record.rooms.values().all(|shown| shown.tapes.is_empty() && shown.seq > 0)
                        && news.elapsed() > Duration::from_secs(4);
                    if settled {
                        return true;
                    }
                    if heard.elapsed() > Duration::from_secs(8) || socket.send(Message::Ping("".into())).await.is_err() {
                        return false;
                    }
                    continue;
                }
            };
            heard = Instant::now();
            match frame {
                Some(Ok(Message::Text(text))) => {
                    news = heard;
                    last = text.chars().take(200).collect();
                    let said: Value = serde_json::from_str(&text).unwrap();
                    let frames = match said {
                        Value::Array(frames) => frames,
                        frame => vec![frame],
                    };
                    for frame in frames {
                        if let Some(key) = self.hear(&frame, &mut refs) {
                            again.push(key);
                        }
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Notes what keeps this from being settled.
    fn tell_waiting(&self, phase: &str) {
        let rooms = self.record.rooms.iter();
        let rooms: Vec<_> = rooms
            .map(|(room, shown)| (*room, shown.seq, shown.tapes.keys().collect::<Vec<_>>()))
            .collect();
        let words = format!(
            "{phase}: {:?}, rooms with open answers {rooms:?}",
            self.record.waiting.keys()
        );
        self.house.waiting.lock().unwrap().insert(self.me.name.clone(), words);
    }

    /// Takes up where it stands.
    fn first_frames(&mut self) -> Vec<Value> {
        let mut resumed = serde_json::Map::new();
        let mut frames = Vec::new();
        for room in &self.rooms {
            match self.record.rooms.get(room).filter(|shown| shown.seq > 0) {
                Some(shown) => {
                    let tapes: BTreeMap<_, _> = shown
                        .tapes
                        .iter()
                        .map(|(id, text)| (id.to_string(), text.len()))
                        .collect();
                    resumed.insert(
                        room.to_string(),
                        json!({ "epoch": shown.epoch, "seq": shown.seq, "tapes": tapes }),
                    );
                }
                None => frames.push(json!({ "type": "join", "room": room })),
            }
        }
        for (room, shown) in &mut self.record.rooms {
            shown.note(&json!({ "resumed": resumed.get(&room.to_string()) }));
        }
        frames.push(json!({ "type": "resume", "ref": 0, "rooms": resumed }));
        frames
    }

    /// A turn, now and then; and each that is left when everything is to end.
    fn something_to_stop(&mut self) -> Option<Value> {
        if self.random.usize(0..if self.house.is_quiet() { 8 } else { 80 }) > 0 {
            return None;
        }
        let open = self
            .record
            .rooms
            .iter()
            .flat_map(|(room, shown)| shown.turns.iter().map(move |turn| (room, turn)));
        let (room, turn) = self.random.choice(open.collect::<Vec<_>>())?;
        Some(json!({ "type": "stop", "room": room, "turn": turn }))
    }

    fn something_new(&mut self) -> Option<String> {
        if self.house.is_quiet() || self.record.waiting.len() >= WAITING {
            return None;
        }
        self.said += 1;
        let key = format!("{}-{}", self.me.name, self.said);
        let room = *self.random.choice(&self.rooms)?;
        let text = match self.random.usize(0..40) {
            0 if self.random.bool() => "/bot essay".to_owned(),
            1 => "/bot what is new?".to_owned(),
            _ => format!("{key} says something"),
        };
        self.record.asked += usize::from(text.starts_with('/'));
        self.record.waiting.insert(key.clone(), (room, text));
        Some(key)
    }

    /// Takes a frame. Returns what is to be sent again.
    fn hear(&mut self, frame: &Value, refs: &mut BTreeMap<u64, String>) -> Option<String> {
        let of_ref = |refs: &mut BTreeMap<u64, String>| frame["ref"].as_u64().and_then(|number| refs.remove(&number));
        match frame["type"].as_str().unwrap_or_default() {
            "ok" => {
                let key = of_ref(refs)?;
                if key.is_empty() {
                    return None;
                }
                let (message, seq) = (frame["message"].as_i64()?, frame["seq"].as_i64()?);
                if let Some((room, text)) = self.record.waiting.remove(&key) {
                    self.record.acknowledged.insert(key, (room, text, message, seq));
                    self.house.note_acknowledged();
                }
                None
            }
            "error" => {
                let key = of_ref(refs);
                // A turn may have ended when somebody wants it stopped.
                let late = frame["ref"].is_null() && frame["code"] == "not_found";
                if frame["code"] != "unavailable" && !late {
                    self.house.wrong(format!("{} was told {frame}", self.me.name));
                }
                key.filter(|key| !key.is_empty())
            }
            "snapshot" | "event" | "delta" => {
                let room = frame["room"].as_i64().or_else(|| frame["id"].as_i64())?;
                let shown = self.record.rooms.entry(room).or_default();
                shown.note(frame);
                let unanswered = refs.contains_key(&0) && frame["type"] == "event";
                if unanswered && frame["seq"].as_i64() != Some(shown.seq + 1) {
                    return None;
                }
                if let Err(what) = shown.take(frame) {
                    let newest = &shown.newest;
                    self.house
                        .wrong(format!("{} in room {room}: {what} {newest:#?}", self.me.name));
                }
                None
            }
            _ => None,
        }
    }
}

impl Shown {
    fn note(&mut self, frame: &Value) {
        self.newest.push_back(frame.to_string().chars().take(300).collect());
        if self.newest.len() > 12 {
            self.newest.pop_front();
        }
    }

    fn take(&mut self, frame: &Value) -> Result<(), String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str() {
            Some("snapshot") => {
                let seq = frame["seq"].as_i64().unwrap_or_default();
                if seq < self.seq {
                    return Err(format!("a snapshot goes back from {} to {seq}", self.seq));
                }
                self.seq = seq;
                self.epoch = frame["epoch"].clone();
                self.snapshots += 1;
                self.tapes.clear();
                let turns = frame["turns"].as_array().into_iter().flatten();
                self.turns = turns.filter_map(|turn| turn["id"].as_i64()).collect();
                let streaming = frame["messages"].as_array().into_iter().flatten();
                for message in streaming.filter(|message| message["status"] == "streaming") {
                    self.tapes
                        .insert(message["id"].as_i64().unwrap_or_default(), text(&message["text"]));
                }
                for tape in frame["tapes"].as_array().into_iter().flatten() {
                    self.tapes
                        .insert(tape["message"].as_i64().unwrap_or_default(), text(&tape["text"]));
                }
            }
            Some("delta") => {
                let id = frame["message"].as_i64().unwrap_or_default();
                let piece = text(&frame["text"]);
                let (offset, end) = (frame["offset"].as_u64(), frame["end"].as_u64());
                // Older than what was shown, or over: a client passes over it.
                let Some(tape) = self.tapes.get_mut(&id) else {
                    return Ok(());
                };
                if offset != Some(tape.len() as u64) {
                    return Err(format!("I2: a piece at {offset:?} where {} bytes are", tape.len()));
                }
                tape.push_str(&piece);
                if end != Some(tape.len() as u64) {
                    return Err(format!("I2: a piece ends at {end:?} and not at {}", tape.len()));
                }
            }
            _ => {
                let seq = frame["seq"].as_i64().unwrap_or_default();
                if seq != self.seq + 1 {
                    return Err(format!("I1: event {seq} after {}", self.seq));
                }
                self.seq = seq;
                let kind = text(&frame["kind"]);
                let about = match kind.as_str() {
                    "message_posted" | "turn_started" => frame["message"]["id"].clone(),
                    _ => frame["turn"].clone(),
                };
                match (kind.as_str(), frame["turn"].as_i64()) {
                    ("turn_queued" | "turn_started", Some(turn)) => drop(self.turns.insert(turn)),
                    ("turn_ended", Some(turn)) => drop(self.turns.remove(&turn)),
                    _ => {}
                }
                match kind.as_str() {
                    "turn_started" => {
                        let id = frame["message"]["id"].as_i64().unwrap_or_default();
                        self.tapes.insert(id, text(&frame["message"]["text"]));
                    }
                    "turn_ended" if frame["message"].is_i64() => {
                        let id = frame["message"].as_i64().unwrap_or_default();
                        let held = self.tapes.remove(&id);
                        let whole = frame["text"].as_str().map(str::to_owned).or(held);
                        self.answers.extend(whole.map(|whole| (id, whole)));
                    }
                    _ => {}
                }
                self.log.insert(seq, (kind, about));
            }
        }
        Ok(())
    }
}

/// The people and rooms of a house, and what they do until it is quiet.
async fn people(house: &Arc<House>, seed: u64) -> (Vec<Somebody>, Vec<i64>) {
    let address = house.any(&mut fastrand::Rng::with_seed(seed)).unwrap();
    let http = Http::new(address);
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        people.push(http.person(&format!("person{number}")).await);
    }
    let others: Vec<_> = people[1..].iter().collect();
    let mut rooms = Vec::new();
    for number in 0..ROOMS {
        rooms.push(http.group(&people[0], &format!("room {number}"), &others).await);
    }
    *house.acknowledged.lock().unwrap() = (Instant::now(), Duration::ZERO);
    let somebody = |(number, me)| Somebody {
        house: Arc::clone(house),
        me,
        rooms: rooms.clone(),
        random: fastrand::Rng::with_seed(seed + number as u64),
        record: Record::default(),
        said: 0,
    };
    (people.into_iter().enumerate().map(somebody).collect(), rooms)
}

/// What became of a house.
#[derive(Default)]
struct Outcome {
    name: &'static str,
    faults: BTreeMap<&'static str, usize>,
    acknowledged: usize,
    lost: usize,
    doubled: usize,
    out_of_order: usize,
    turns: usize,
    without_end: usize,
    answers: usize,
    differing: usize,
    snapshots: usize,
    connections: usize,
    outage: Duration,
    wrong: Vec<String>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.lost + self.doubled + self.out_of_order + self.without_end + self.differing == 0 && self.wrong.is_empty()
    }

    fn print(&self) {
        println!(
            "{:<22} acknowledged {}, lost {}, doubled {}, out of order {}, turns {} of which without an end {}, answers seen \
             {} of which differing {}, connections {}, snapshots {}, longest outage {:.1} s, faults {:?}",
            self.name,
            self.acknowledged,
            self.lost,
            self.doubled,
            self.out_of_order,
            self.turns,
            self.without_end,
            self.answers,
            self.differing,
            self.connections,
            self.snapshots,
            self.outage.as_secs_f64(),
            self.faults
        );
        for wrong in self.wrong.iter().take(20) {
            println!("    {wrong}");
        }
    }
}

/// Holds what everybody was told against the store.
async fn verdict(house: &House, store: &dyn RoomStore, rooms: &[i64], records: &[Record]) -> Outcome {
    let mut outcome = Outcome {
        wrong: std::mem::take(&mut house.wrong.lock().unwrap()),
        outage: house.acknowledged.lock().unwrap().1,
        connections: records.iter().map(|record| record.connections).sum(),
        ..Outcome::default()
    };
    let open = store.open_turns(None).await.unwrap();
    outcome.without_end = open.len();
    for &id in rooms {
        let room = RoomId(id);
        let mut log: Vec<Arc<Event>> = Vec::new();
        loop {
            let more = store.events(room, Seq(log.len() as i64), 1_000).await.unwrap();
            if more.is_empty() {
                break;
            }
            log.extend(more);
        }
        let mut said: BTreeMap<String, Vec<(i64, i64, String)>> = BTreeMap::new();
        let mut answers = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for (index, event) in log.iter().enumerate() {
            let seq = event.seq().unwrap_or_default();
            outcome.out_of_order += usize::from(seq.0 != index as i64 + 1);
            let (kind, about) = match &**event {
                Event::MessagePosted { message, .. } => {
                    if let Some(key) = &message.client_id {
                        said.entry(key.clone())
                            .or_default()
                            .push((message.id.0, seq.0, message.text.clone()));
                    }
                    ("message_posted", json!(message.id.0))
                }
                Event::TurnQueued { turn, .. } => {
                    begun.insert(*turn);
                    ("turn_queued", json!(turn.0))
                }
                Event::TurnStarted { turn, message, .. } => {
                    begun.insert(*turn);
                    ("turn_started", json!(message.id.0))
                }
                Event::TurnEnded {
                    turn, message, text, ..
                } => {
                    if !ended.insert(*turn) {
                        outcome.wrong.push(format!("I4: turn {turn} ended twice"));
                    }
                    if let Some(MessageId(id)) = message {
                        answers.insert(*id, text.to_string());
                    }
                    ("turn_ended", json!(turn.0))
                }
                _ => ("", Value::Null),
            };
            kinds.insert(seq.0, (kind, about));
        }
        outcome.turns += begun.len();
        outcome.without_end += begun.difference(&ended).count();
        outcome.doubled += said.values().filter(|times| times.len() > 1).count();
        for record in records {
            for (key, (_, text, message, seq)) in record.acknowledged.iter().filter(|(_, (room, ..))| *room == id) {
                outcome.acknowledged += 1;
                let stored = said.get(key).and_then(|times| times.first());
                let there = stored.is_some_and(|(id, at, words)| (id, at, words) == (message, seq, text));
                outcome.lost += usize::from(!there);
            }
            let Some(shown) = record.rooms.get(&id) else {
                outcome.wrong.push(format!("somebody was never shown room {id}"));
                continue;
            };
            outcome.snapshots += shown.snapshots;
            if shown.seq != log.len() as i64 {
                outcome.wrong.push(format!(
                    "I1: somebody stands at {} of {} in room {id}",
                    shown.seq,
                    log.len()
                ));
            }
            for (seq, (kind, about)) in shown.log.iter().filter(|(_, (kind, _))| !kind.starts_with("member")) {
                let (its_kind, its_about) = &kinds[seq];
                let same = kind == its_kind && about == its_about;
                outcome.out_of_order += usize::from(!same && !its_kind.is_empty());
            }
            for (message, text) in &shown.answers {
                outcome.answers += 1;
                outcome.differing += usize::from(answers.get(message) != Some(text));
            }
        }
    }
    outcome
}

/// Waits until everybody has seen everything.
async fn settle(house: &House, living: Vec<tokio::task::JoinHandle<Record>>) -> Vec<Record> {
    house.quiet.store(true, Ordering::Relaxed);
    let ended = timeout(SETTLE, futures::future::join_all(living)).await;
    let ended = ended.unwrap_or_else(|_| panic!("somebody never sees the end: {:#?}", house.waiting.lock().unwrap()));
    ended.into_iter().map(Result::unwrap).collect()
}

async fn start(folder: &TempDir, variables: &[(&str, String)]) -> Program {
    let mut command = with_mock(folder.path());
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"));
    command
        .env("COOP_LIMITS", "off")
        .envs(variables.iter().map(|(name, value)| (name, value)));
    command.stderr(log.unwrap());
    Program::start_graceful(folder.path(), command, "500ms").await
}

/// Two servers on PostgreSQL with Redis between them, and people in them.
struct Pair {
    house: Arc<House>,
    folders: [TempDir; 2],
    variables: [(&'static str, String); 3],
    programs: Vec<Program>,
    rooms: Vec<i64>,
    living: Vec<tokio::task::JoinHandle<Record>>,
    faults: BTreeMap<&'static str, usize>,
}

impl Pair {
    async fn begin(seed: u64, cluster: &Cluster, redis: &Redis) -> Self {
        let secret = "the same secret of more than thirty-two bytes".to_owned();
        let variables = [
            ("COOP_DATABASE_URL", cluster.database()),
            ("COOP_REDIS_URL", redis.url()),
            ("COOP_JWT_SECRET", secret),
        ];
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let house = House::new(2);
        let mut programs = Vec::new();
        for folder in &folders {
            programs.push(start(folder, &variables).await);
        }
        *house.servers.lock().unwrap() = programs.iter().map(|program| Some(program.address)).collect();
        let (people, rooms) = people(&house, seed).await;
        Self {
            house,
            folders,
            variables,
            programs,
            rooms,
            living: people
                .into_iter()
                .map(|somebody| tokio::spawn(somebody.live()))
                .collect(),
            faults: BTreeMap::new(),
        }
    }

    /// Ends one of the servers, as it wants or not, and starts it again after a while.
    async fn restart(&mut self, index: usize, kill: bool, down: Duration) {
        self.house.servers.lock().unwrap()[index] = None;
        if kill {
            self.programs[index].kill().await;
        } else {
            self.programs[index].terminate().await;
        }
        sleep(down).await;
        let program = start(&self.folders[index], &self.variables).await;
        self.house.servers.lock().unwrap()[index] = Some(program.address);
        let before = std::mem::replace(&mut self.programs[index], program);
        if !kill {
            assert_eq!(before.ends_with().await, Some(0));
        }
        self.count(if kill { "server killed" } else { "server restarted" });
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    async fn end(self, name: &'static str) -> Outcome {
        let records = settle(&self.house, self.living).await;
        let store = PostgresStore::open(&self.variables[0].1).await.unwrap();
        let outcome = verdict(&self.house, &store, &self.rooms, &records).await;
        RoomStore::close(&store).await;
        Outcome {
            name,
            faults: self.faults,
            ..outcome
        }
    }
}

async fn two_servers(length: Duration, seed: u64, cluster: &Cluster, redis: &Redis) -> Outcome {
    let mut pair = Pair::begin(seed, cluster, redis).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + length;
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(800..3_000))).await;
        let down = Duration::from_millis(random.u64(50..2_500));
        match random.usize(0..10) {
            which @ 0..=5 => pair.restart(which % 2, which < 4, down).await,
            6 | 7 => {
                redis.kill();
                sleep(down).await;
                redis.start_again();
                pair.count("Redis killed");
            }
            8 => {
                redis.pause();
                sleep(down * 2).await;
                redis.resume();
                pair.count("Redis paused");
            }
            _ => {
                cluster.kill();
                sleep(down).await;
                cluster.start_again();
                pair.count("PostgreSQL killed");
            }
        }
    }
    pair.end("two on PostgreSQL").await
}

async fn one_server(length: Duration, seed: u64) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(1);
    let mut program = start(&folder, &[]).await;
    house.servers.lock().unwrap()[0] = Some(program.address);
    let (people, rooms) = people(&house, seed).await;
    let living: Vec<_> = people
        .into_iter()
        .map(|somebody| tokio::spawn(somebody.live()))
        .collect();
    let mut random = fastrand::Rng::with_seed(seed ^ 1);
    let mut faults: BTreeMap<&'static str, usize> = BTreeMap::new();
    let end = Instant::now() + length;
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(1_000..4_000))).await;
        house.servers.lock().unwrap()[0] = None;
        let fault = if random.usize(0..4) > 0 {
            program.kill().await;
            "server killed"
        } else {
            program.terminate().await;
            let ended = program.ends_with().await;
            assert_eq!(ended, Some(0));
            "server restarted"
        };
        *faults.entry(fault).or_default() += 1;
        sleep(Duration::from_millis(random.u64(0..1_500))).await;
        program = start(&folder, &[]).await;
        house.servers.lock().unwrap()[0] = Some(program.address);
    }
    let records = settle(&house, living).await;
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let store = SqliteStore::open(&folder.path().join("coop.db").display().to_string())
        .await
        .unwrap();
    let outcome = verdict(&house, &store, &rooms, &records).await;
    RoomStore::close(&store).await;
    Outcome {
        name: "one on SQLite",
        faults,
        ..outcome
    }
}

/// Which this machine may not have.
fn parts(test: &str) -> Option<(Cluster, Redis)> {
    let redis = Redis::start(test)?;
    let cluster = Cluster::start(&[]);
    if cluster.is_none() {
        skipped(test, "there is no PostgreSQL here (no initdb)");
    }
    Some((cluster?, redis))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_is_killed() {
    let (length, seed) = (
        Duration::from_secs(number("COOP_CRASH_SECONDS", 12)),
        number("COOP_CRASH_SEED", 1),
    );
    let both = async {
        let (cluster, redis) = parts("nothing_is_lost_whatever_is_killed")?;
        Some(two_servers(length, seed, &cluster, &redis).await)
    };
    let (two, one) = tokio::join!(both, one_server(length, seed));
    let outcomes: Vec<_> = two.into_iter().chain([one]).collect();
    println!("{} s, seed {seed}", length.as_secs());
    outcomes.iter().for_each(Outcome::print);
    for outcome in &outcomes {
        assert!(outcome.acknowledged > 100, "{}: hardly anything was said", outcome.name);
        assert!(outcome.is_good(), "{} with COOP_CRASH_SEED={seed}", outcome.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_restarted_one_after_the_other_and_nobody_misses_anything() {
    let Some((cluster, redis)) = parts("servers_are_restarted_one_after_the_other_and_nobody_misses_anything") else {
        return;
    };
    let mut pair = Pair::begin(3, &cluster, &redis).await;
    for index in [0, 1] {
        sleep(Duration::from_secs(2)).await;
        pair.restart(index, false, Duration::ZERO).await;
    }
    sleep(Duration::from_secs(1)).await;
    let outcome = pair.end("one after the other").await;
    outcome.print();
    assert!(outcome.acknowledged > 100 && outcome.is_good());
    // Who was sent away has turned to the other at once.
    assert!(outcome.outage < Duration::from_secs(2), "{:?}", outcome.outage);
}
