//! What the load does. Each scenario starts the servers it wants, checks that everything arrives as it should, and tells
//! its figures.

use crate::Anything;
use crate::clients::{
    Clock, Heard, Label, PATIENCE, connect, connect_all, connect_narrow, connect_v1, hear, join, join_v1, masked,
};
use crate::report::{Figure, Report};
use crate::servers::{Cpu, Ours, postgres, redis};
use crate::{contest, growth, hardship};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// All of them, in the order in which they are played.
pub(crate) const NAMES: [&str; 14] = [
    "fanout", "steady", "stream", "paced", "answer", "resume", "rooms", "idle", "churn", "slow", "pair", "growth",
    "flood", "soak",
];

/// The bytes of a message's content.
const CONTENT: usize = 100;

pub(crate) async fn play(name: &str, quick: bool, minutes: f64, report: &mut Report) -> Anything<()> {
    match name {
        "fanout" => contest::fanout(quick, report).await,
        "steady" => contest::steady(quick, report).await,
        "stream" => contest::stream(quick, report).await,
        "growth" => growth::growth(quick, report).await,
        "paced" => paced(quick, report).await,
        "answer" => answer(quick, report).await,
        "resume" => resume(quick, report).await,
        "rooms" => rooms(quick, report).await,
        "idle" => idle(quick, report).await,
        "churn" => churn(quick, report).await,
        "pair" => pair(quick, report).await,
        "flood" => hardship::flood(quick, report).await,
        "soak" => hardship::soak(quick, minutes, report).await,
        _ => slow(quick, report).await,
    }
}

/// Sockets of all people of a server, who have joined the rooms they are in.
pub(crate) async fn joined(ours: &Ours, rooms: &[Vec<usize>]) -> Anything<Vec<TcpStream>> {
    let paths: Vec<_> = ours.tokens.iter().map(|token| format!("/ws?token={token}")).collect();
    let mut sockets = match ours.other {
        None => connect_all(ours.server.address, paths).await?,
        Some(_) => {
            let paths = paths.iter().enumerate();
            let connecting = paths.map(|(person, path)| connect(ours.address_of(person), path));
            futures::future::try_join_all(connecting).await?
        }
    };
    for (person, socket) in sockets.iter_mut().enumerate() {
        let mine = rooms
            .iter()
            .zip(&ours.rooms)
            .filter(|(members, _)| members.contains(&person));
        let mine: Vec<i64> = mine.map(|(_, room)| *room).collect();
        join(socket, &mine).await?;
    }
    // Those who came first are still being told of those who came last.
    ours.rest().await?;
    Ok(sockets)
}

/// A message to our server.
pub(crate) fn said(room: i64, label: Label) -> Vec<u8> {
    let content = label.content(CONTENT);
    masked(format!(r#"{{"type":"message","chat_id":{room},"content":"{content}"}}"#).as_bytes())
}

pub(crate) fn micros(cost: Duration, deliveries: usize) -> f64 {
    cost.as_secs_f64() * 1e6 / deliveries as f64
}

/// What everybody heard, which must be the same.
pub(crate) async fn all(mut tasks: JoinSet<Anything<Heard>>) -> Anything<Vec<Heard>> {
    let mut all = Vec::new();
    while let Some(heard) = tasks.join_next().await {
        all.push(heard??);
    }
    Heard::compare(&all)?;
    Ok(all)
}

// Many rooms at a steady pace.

/// How a pace went.
pub(crate) struct Pace {
    /// How long each delivery took, in microseconds, in ascending order.
    delays: Vec<u64>,
    cost: Duration,
}

impl Pace {
    /// CPU time of a delivery, in microseconds.
    pub(crate) fn cost(&self) -> f64 {
        micros(self.cost, self.delays.len())
    }

    pub(crate) fn percentile(&self, hundredth: usize) -> f64 {
        let at = (self.delays.len() * hundredth / 100).min(self.delays.len().saturating_sub(1));
        self.delays.get(at).map_or(f64::NAN, |delay| *delay as f64 / 1e3)
    }
}

/// Has the members of rooms talk in turn, so many messages a second in all. Who is `deaf` neither talks nor reads.
pub(crate) async fn keep_pace(
    ours: &Ours,
    rooms: &[Vec<usize>],
    sockets: Vec<TcpStream>,
    deaf: &[usize],
    rate: usize,
    time: Duration,
) -> Anything<Pace> {
    let said = |label: Label| said(ours.rooms[label.room], label);
    let talk = Talk {
        rooms,
        deaf,
        talkers: usize::MAX,
        rate,
        time,
    };
    keep_pace_with(ours, said, sockets, &talk).await
}

/// Who talks where, how often and for how long.
pub(crate) struct Talk<'a> {
    /// The people of each room.
    pub(crate) rooms: &'a [Vec<usize>],
    pub(crate) deaf: &'a [usize],
    /// How many of a room's people talk.
    pub(crate) talkers: usize,
    /// Messages a second in all rooms together.
    pub(crate) rate: usize,
    pub(crate) time: Duration,
}

/// The same at any server, in its own words.
pub(crate) async fn keep_pace_with(
    server: &impl Cpu,
    said: impl Fn(Label) -> Vec<u8>,
    sockets: Vec<TcpStream>,
    &Talk {
        rooms,
        deaf,
        talkers,
        rate,
        time,
    }: &Talk<'_>,
) -> Anything<Pace> {
    let people = sockets.len();
    let total = (rate as f64 * time.as_secs_f64()) as usize;
    let clock = Arc::new(Clock::new());
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..total).map(|_| AtomicU64::new(0)).collect());
    // Which message this is of all: each person's own numbers in each room, in the order of being sent.
    let turns: Vec<(usize, usize, usize)> = turns(rooms, deaf, talkers, total);
    let mut index = std::collections::HashMap::new();
    for (message, turn) in turns.iter().enumerate() {
        index.insert(*turn, message);
    }
    let index = Arc::new(index);
    let mut due = vec![0; people];
    for (room, ..) in &turns {
        rooms[*room].iter().for_each(|person| due[*person] += 1);
    }
    let (mut tasks, mut writings, mut kept) = (JoinSet::new(), Vec::new(), Vec::new());
    for (person, socket) in sockets.into_iter().enumerate() {
        let (mut reading, writing): (OwnedReadHalf, _) = socket.into_split();
        writings.push(writing);
        if deaf.contains(&person) {
            kept.push(reading);
            continue;
        }
        let (clock, sent, index, due) = (Arc::clone(&clock), Arc::clone(&sent), Arc::clone(&index), due[person]);
        tasks.spawn(async move {
            let mut delays = Vec::with_capacity(due);
            if due == 0 {
                return Ok((Heard::default(), delays));
            }
            let heard = hear(&mut reading, |_, label, heard| {
                if let Some(Label { room, sender, number }) = label {
                    let message = index.get(&(room, sender, number)).ok_or("a message nobody sent")?;
                    delays.push(clock.micros() - sent[*message].load(Ordering::Acquire));
                }
                Ok(heard.messages == due)
            })
            .await?;
            Anything::Ok((heard, delays))
        });
    }
    let before = server.cpu()?;
    let begun = Instant::now();
    let mut ticks = interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut next = 0;
    while next < total {
        ticks.tick().await;
        let now = ((begun.elapsed().as_secs_f64() * rate as f64) as usize).min(total);
        for message in next..now {
            let (room, sender, number) = turns[message];
            sent[message].store(clock.micros(), Ordering::Release);
            let frame = said(Label { room, sender, number });
            writings[sender].write_all(&frame).await?;
        }
        next = now;
    }
    let (mut delays, mut all) = (Vec::new(), Vec::new());
    while let Some(heard) = tasks.join_next().await {
        let (heard, some) = heard??;
        delays.extend(some);
        all.push(heard);
    }
    Heard::compare(&all)?;
    let cost = server.cpu()? - before;
    delays.sort_unstable();
    drop((writings, kept));
    Ok(Pace { delays, cost })
}

/// Who says what where: the rooms in turn, and in each so many of its members in turn.
fn turns(rooms: &[Vec<usize>], deaf: &[usize], talkers: usize, total: usize) -> Vec<(usize, usize, usize)> {
    let mut said = std::collections::HashMap::new();
    let turn = |message: usize| {
        let room = message % rooms.len();
        let talking: Vec<_> = rooms[room]
            .iter()
            .filter(|person| !deaf.contains(person))
            .take(talkers)
            .collect();
        let sender = *talking[message / rooms.len() % talking.len()];
        let number = said.entry((room, sender)).or_insert(0);
        *number += 1;
        (room, sender, *number - 1)
    };
    (0..total).map(turn).collect()
}

async fn paced(quick: bool, report: &mut Report) -> Anything<()> {
    let (count, rate, time) = if quick { (5, 100, 1) } else { (50, 1_000, 15) };
    report.scenario(&format!(
        "paced: {count} rooms of ten, {rate} messages a second in all for {time} s"
    ));
    let rooms: Vec<Vec<usize>> = (0..count).map(|room| (room * 10..room * 10 + 10).collect()).collect();
    let ours = Ours::start(count * 10, &rooms).await?;
    let sockets = joined(&ours, &rooms).await?;
    let pace = keep_pace(&ours, &rooms, sockets, &[], rate, Duration::from_secs(time)).await?;
    let one = |value| Figure::of(vec![value]);
    report.tell("paced", "delivered, median", "ms", &one(pace.percentile(50)), None);
    report.tell("paced", "delivered, 99 of 100", "ms", &one(pace.percentile(99)), None);
    let cost = pace.cost();
    report.tell("paced", "server CPU per delivery", "µs", &one(cost), None);
    Ok(())
}

// One long answer.

/// What readers speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Seed,
    V1,
}

async fn answer(quick: bool, report: &mut Report) -> Anything<()> {
    let members = if quick { 5 } else { 100 };
    report.scenario(&format!("answer: {members} readers, 17 KB in 400 pieces"));
    for (dialect, name) in [(Dialect::Seed, "answer"), (Dialect::V1, "answer, coop.v1")] {
        answer_in(dialect, name, members, quick, report).await?;
    }
    Ok(())
}

/// What an answer grows to, frame by frame; whether it is over.
fn grow(dialect: Dialect, payload: &[u8], text: &mut String) -> Anything<bool> {
    let is_its = match dialect {
        Dialect::Seed => payload.starts_with(br#"{"type":"bot_stream""#),
        Dialect::V1 => payload.starts_with(br#"{"type":"delta""#) || payload.starts_with(br#"{"type":"event""#),
    };
    if !is_its {
        return Ok(false);
    }
    let frame: serde_json::Value = serde_json::from_slice(payload)?;
    if dialect == Dialect::Seed {
        let content = frame["message"]["content"].as_str();
        let content = content.ok_or("an answer without content")?;
        if !content.starts_with(text.as_str()) {
            return Err("a piece does not go on from the one before".into());
        }
        content.clone_into(text);
        return Ok(frame["message"]["status"] == "done");
    }
    if frame["type"] == "delta" {
        if frame["offset"] != text.len() {
            return Err("a piece does not go on from the one before".into());
        }
        text.push_str(frame["text"].as_str().ok_or("a piece without text")?);
    }
    let is_over = frame["kind"] == "turn_ended";
    if is_over && frame["end"] != text.len() {
        return Err("the end is not where the pieces led".into());
    }
    Ok(is_over)
}

async fn answer_in(dialect: Dialect, name: &str, members: usize, quick: bool, report: &mut Report) -> Anything<()> {
    let ask = if quick { "/mock quick" } else { "/mock essay" };
    let everybody = [(0..members).collect::<Vec<_>>()];
    let ours = Ours::start(members, &everybody).await?;
    let room = ours.rooms[0];
    let sockets = match dialect {
        Dialect::Seed => joined(&ours, &everybody).await?,
        Dialect::V1 => {
            let mut sockets = Vec::with_capacity(members);
            for token in &ours.tokens {
                let mut socket = connect_v1(ours.server.address, token).await?;
                join_v1(&mut socket, room).await?;
                sockets.push(socket);
            }
            sockets
        }
    };
    let mut tasks = JoinSet::new();
    let mut writings = Vec::new();
    for socket in sockets {
        let (mut reading, writing) = socket.into_split();
        writings.push(writing);
        tasks.spawn(async move {
            let mut text = String::new();
            let heard = hear(&mut reading, |payload, _, _| grow(dialect, payload, &mut text)).await?;
            Anything::Ok((heard, text))
        });
    }
    let before = ours.server.cpu()?;
    let question = match dialect {
        Dialect::Seed => format!(r#"{{"type":"message","chat_id":{room},"content":"{ask}"}}"#),
        Dialect::V1 => format!(r#"{{"type":"send","room":{room},"text":"{ask}"}}"#),
    };
    writings[0].write_all(&masked(question.as_bytes())).await?;
    let mut all = Vec::new();
    while let Some(heard) = tasks.join_next().await {
        all.push(heard??);
    }
    let cost = ours.server.cpu()? - before;
    if all.iter().any(|(_, text)| *text != all[0].1) {
        return Err("not everybody has the same answer".into());
    }
    let one = |value| Figure::of(vec![value]);
    let text = all[0].1.len() as f64;
    let bytes = all.iter().map(|(heard, _)| heard.bytes).sum::<usize>() as f64 / members as f64;
    let frames = all.iter().map(|(heard, _)| heard.frames).sum::<usize>() as f64 / members as f64;
    report.tell(name, "text", "KB", &one(text / 1e3), None);
    let than = Some(("the text", text / 1e3));
    report.tell(name, "sent to each reader", "KB", &one(bytes / 1e3), than);
    report.tell(name, "frames for each reader", "", &one(frames), None);
    report.tell(name, "server CPU per reader", "µs", &one(micros(cost, members)), None);
    let pieces = micros(cost, members * 400);
    report.tell(name, "server CPU per piece and reader", "µs", &one(pieces), None);
    Ok(())
}

// Coming back after some time.

async fn resume(quick: bool, report: &mut Report) -> Anything<()> {
    let (messages, times) = if quick { (60, 3) } else { (1_100, 300) };
    report.scenario(&format!("resume: from the handshake until all is there, {times} times"));
    let ours = Ours::start(2, &[vec![0, 1]]).await?;
    let (room, address) = (ours.rooms[0], ours.server.address);
    let mut author = connect_v1(address, &ours.tokens[0]).await?;
    join_v1(&mut author, room).await?;
    for number in 0..messages {
        let text = "x".repeat(CONTENT);
        let ask = format!(r#"{{"type":"send","room":{room},"text":"{text}","ref":{number}}}"#);
        author.write_all(&masked(ask.as_bytes())).await?;
        let said = format!(r#"{{"type":"ok","ref":{number},"#);
        hear(&mut author, |payload, _, _| Ok(payload.starts_with(said.as_bytes()))).await?;
    }
    let mut reader = connect_v1(address, &ours.tokens[1]).await?;
    let snapshot = join_v1(&mut reader, room).await?;
    let head = snapshot["seq"].as_i64().ok_or("a snapshot without a place")?;
    let missed: &[i64] = if quick { &[10] } else { &[0, 100, 1_000] };
    for &missed in missed {
        let position = format!(r#"{{"epoch":{},"seq":{}}}"#, snapshot["epoch"], head - missed);
        let ask = format!(r#"{{"type":"resume","rooms":{{"{room}":{position}}},"ref":7}}"#);
        let (mut taken, mut told) = (Vec::new(), 0);
        for _ in 0..times {
            let begun = Instant::now();
            let mut socket = connect_v1(address, &ours.tokens[1]).await?;
            socket.write_all(&masked(ask.as_bytes())).await?;
            let (mut events, mut anew) = (0, false);
            hear(&mut socket, |payload, _, _| {
                events += i64::from(payload.starts_with(br#"{"type":"event""#));
                anew |= payload.starts_with(br#"{"type":"snapshot""#);
                Ok(payload.starts_with(br#"{"type":"ok","ref":7"#))
            })
            .await?;
            taken.push(begun.elapsed().as_secs_f64() * 1e3);
            if !anew && events != missed {
                return Err(format!("{events} events where {missed} were missed").into());
            }
            told = events;
        }
        taken.sort_by(f64::total_cmp);
        let one = |value| Figure::of(vec![value]);
        let name = format!("resume after {missed}");
        report.tell(
            &name,
            "events told, or none with a snapshot",
            "",
            &one(told as f64),
            None,
        );
        report.tell(&name, "median", "ms", &one(taken[taken.len() / 2]), None);
        report.tell(&name, "99 of 100", "ms", &one(taken[taken.len() * 99 / 100]), None);
    }
    Ok(())
}

// Many rooms, few messages in each.

async fn rooms(quick: bool, report: &mut Report) -> Anything<()> {
    let (people, count, each) = if quick { (20, 50, 2) } else { (100, 1_000, 5) };
    report.scenario(&format!(
        "rooms: {count} of ten, {people} people, {each} messages in each, 100 on their way"
    ));
    // Ten people beside each other, so that everybody is in as many rooms.
    let rooms: Vec<Vec<usize>> = (0..count)
        .map(|room| (0..10).map(|place| (room + place * people / 10) % people).collect())
        .collect();
    let ours = Ours::start(people, &rooms).await?;
    let sockets = joined(&ours, &rooms).await?;
    let total = count * each;
    let (cost, _) = say_all(&ours, &rooms, sockets, total).await?;
    let cost = micros(cost, total * 10);
    report.tell("rooms", "server CPU per delivery", "µs", &Figure::of(vec![cost]), None);
    Ok(())
}

/// Says so many messages in all rooms in turn, a hundred on their way at a time. What that costs the servers, and how long
/// it takes.
pub(crate) async fn say_all(
    ours: &Ours,
    rooms: &[Vec<usize>],
    sockets: Vec<TcpStream>,
    total: usize,
) -> Anything<(Duration, Duration)> {
    let said_in = turns(rooms, &[], usize::MAX, total);
    let mut due = vec![0; sockets.len()];
    for (room, ..) in &said_in {
        rooms[*room].iter().for_each(|person| due[*person] += 1);
    }
    let window = Arc::new(Semaphore::new(100));
    let (mut tasks, mut writings) = (JoinSet::new(), Vec::new());
    for (person, socket) in sockets.into_iter().enumerate() {
        let (mut reading, writing) = socket.into_split();
        writings.push(writing);
        let (due, window) = (due[person], Arc::clone(&window));
        tasks.spawn(async move {
            hear(&mut reading, |_, label, heard| {
                // Whoever said it has it back.
                if label.is_some_and(|label| label.sender == person) {
                    window.add_permits(1);
                }
                Ok(heard.messages == due)
            })
            .await
        });
    }
    let (before, begun) = (ours.cpu()?, Instant::now());
    for (room, sender, number) in said_in {
        timeout(PATIENCE, window.acquire()).await??.forget();
        let frame = said(ours.rooms[room], Label { room, sender, number });
        writings[sender].write_all(&frame).await?;
    }
    all(tasks).await?;
    Ok((ours.cpu()? - before, begun.elapsed()))
}

// Two servers with half of each room's members at either.

async fn pair(quick: bool, report: &mut Report) -> Anything<()> {
    let (Some(database), Some(redis)) = (postgres(), redis()) else {
        println!("pair: skipped, there is no PostgreSQL or no Redis here");
        return Ok(());
    };
    let (count, rate, time, total) = if quick { (4, 50, 1, 100) } else { (20, 200, 10, 8_000) };
    report.scenario(&format!(
        "pair: {count} rooms of ten on PostgreSQL, {rate} messages a second in all for {time} s, then {total} with 100 on their \
         way"
    ));
    let rooms: Vec<Vec<usize>> = (0..count).map(|room| (room * 10..room * 10 + 10).collect()).collect();
    let run = std::process::id();
    for (number, (name, redis, two)) in [
        ("one server", None, false),
        ("two with Redis", Some(redis), true),
        ("two without", None, true),
    ]
    .into_iter()
    .enumerate()
    {
        let people = format!("run{run}-{number}-");
        let ours = Ours::on_postgres(database, redis, two, &people, count * 10, &rooms).await?;
        let sockets = joined(&ours, &rooms).await?;
        let pace = keep_pace(&ours, &rooms, sockets, &[], rate, Duration::from_secs(time)).await?;
        let mut tell = |what: &str, unit: &str, value: f64| {
            report.tell(name, &format!("{name}: {what}"), unit, &Figure::of(vec![value]), None);
        };
        tell("delivered, median", "ms", pace.percentile(50));
        tell("delivered, 99 of 100", "ms", pace.percentile(99));
        let cost = pace.cost();
        tell("CPU per delivery, all servers", "µs", cost);
        drop(ours);
        let people = format!("all{run}-{number}-");
        let ours = Ours::on_postgres(database, redis, two, &people, count * 10, &rooms).await?;
        let sockets = joined(&ours, &rooms).await?;
        let (cost, taken) = say_all(&ours, &rooms, sockets, total).await?;
        tell("messages a second", "", total as f64 / taken.as_secs_f64());
        let cost = micros(cost, total);
        tell("CPU per message, all servers", "µs", cost);
    }
    Ok(())
}

// Sockets on which nothing happens.

async fn idle(quick: bool, report: &mut Report) -> Anything<()> {
    let count = if quick { 200 } else { 10_000 };
    report.scenario(&format!("idle: {count} sockets, authenticated and joined"));
    let (people, size) = (count / 20, 10);
    let rooms: Vec<Vec<usize>> = (0..people / size)
        .map(|room| (room * size..(room + 1) * size).collect())
        .collect();
    let ours = Ours::start(people, &rooms).await?;
    // What the first ones make it load is not theirs alone.
    let warm = joined(&ours, &rooms).await?;
    drop(warm);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = ours.server.memory()?;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count / people {
        sockets.extend(joined(&ours, &rooms).await?);
    }
    // Rooms that are quiet for long let go of what they hold.
    tokio::time::sleep(Duration::from_secs(if quick { 1 } else { 15 })).await;
    let each = (ours.server.memory()? - before) / sockets.len() as f64;
    report.tell("idle", "memory per socket", "B", &Figure::of(vec![each]), None);
    let cpu = ours.server.cpu()?;
    tokio::time::sleep(Duration::from_secs(if quick { 1 } else { 5 })).await;
    let share = (ours.server.cpu()? - cpu).as_secs_f64() * 1e3 / if quick { 1.0 } else { 5.0 };
    report.tell(
        "idle",
        "server CPU a second, all sockets",
        "ms",
        &Figure::of(vec![share]),
        None,
    );
    Ok(())
}

// Coming and going.

async fn churn(quick: bool, report: &mut Report) -> Anything<()> {
    let (cycles, at_once) = if quick { (50, 4) } else { (4_000, 16) };
    report.scenario(&format!(
        "churn: {cycles} times connect, authenticate, join, leave, {at_once} at once"
    ));
    let rooms: Vec<Vec<usize>> = (0..10).map(|room| (room * 10..room * 10 + 10).collect()).collect();
    let ours = Arc::new(Ours::start(100, &rooms).await?);
    let before = ours.server.cpu()?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (ours, next) = (Arc::clone(&ours), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let cycle = next.fetch_add(1, Ordering::Relaxed);
                if cycle >= cycles {
                    return Anything::Ok(());
                }
                let person = cycle % ours.tokens.len();
                let path = format!("/ws?token={}", ours.tokens[person]);
                let mut socket = connect(ours.server.address, &path).await?;
                let room = ours.rooms[person / 10];
                join(&mut socket, &[room]).await?;
                let leave = format!(r#"{{"type":"leave","chat_id":{room}}}"#);
                socket.write_all(&masked(leave.as_bytes())).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let cost = micros(ours.server.cpu()? - before, cycles) / 1e3;
    report.tell("churn", "server CPU for each", "ms", &Figure::of(vec![cost]), None);
    Ok(())
}

// Readers that do not read.

async fn slow(quick: bool, report: &mut Report) -> Anything<()> {
    let (members, rate, time) = if quick { (20, 50, 1) } else { (100, 200, 6) };
    report.scenario(&format!(
        "slow: {members} members, {rate} messages a second for {time} s; a tenth of the readers does not read"
    ));
    let rooms = [(0..members).collect::<Vec<_>>()];
    let deaf: Vec<usize> = (members - members / 10..members).collect();
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..if quick { 1 } else { 3 } {
        for (deaf, taken) in [&[][..], &deaf].into_iter().zip(&mut taken) {
            let ours = Ours::start(members, &rooms).await?;
            let mut sockets = Vec::new();
            for (person, token) in ours.tokens.iter().enumerate() {
                let path = format!("/ws?token={token}");
                let mut socket = match deaf.contains(&person) {
                    true => connect_narrow(ours.server.address, &path).await?,
                    false => connect(ours.server.address, &path).await?,
                };
                join(&mut socket, &ours.rooms).await?;
                sockets.push(socket);
            }
            let pace = keep_pace(&ours, &rooms, sockets, deaf, rate, Duration::from_secs(time)).await?;
            taken.push(pace.percentile(99));
        }
    }
    let [calm, beside] = taken.map(Figure::of);
    report.tell("slow", "99 of 100 delivered, all read", "ms", &calm, None);
    report.tell(
        "slow",
        "99 of 100 delivered to the others",
        "ms",
        &beside,
        Some(("when all read", calm.median)),
    );
    Ok(())
}
