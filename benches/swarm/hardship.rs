//! What a server has to bear: people who want in with wrong passwords, a room next door in which everybody shouts, and
//! coming and going for minutes on end.

use crate::Anything;
use crate::clients::{ask, connect, connect_narrow, connect_v1, join, join_v1, masked};
use crate::report::{Figure, Report};
use crate::scenarios::keep_pace;
use crate::servers::{Limits, Ours};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

// A quiet room while others are loud.

/// Who is in the quiet room.
const QUIET: usize = 4;
/// Who is in the other. Fewer sockets than one address may have.
const LOUD: usize = 80;
/// How many try passwords at a time.
const GUESSERS: usize = 32;

pub(crate) async fn flood(quick: bool, report: &mut Report) -> Anything<()> {
    let (rounds, rate, time) = if quick { (1, 40, 1) } else { (5, 40, 5) };
    for limits in [Limits::Default, Limits::Off] {
        let name = match limits {
            Limits::Default => "flood",
            Limits::Off => "flood off",
        };
        report.scenario(&format!(
            "{name}: {QUIET} people say {rate} messages a second, {rounds} times {time} s; meanwhile {GUESSERS} guess \
             passwords, or {LOUD} shout next door{}",
            match limits {
                Limits::Default => "",
                Limits::Off => ", all without limits",
            }
        ));
        let rooms = [(0..QUIET).collect::<Vec<_>>(), (QUIET..QUIET + LOUD).collect()];
        let ours = Ours::start_with(limits, QUIET + LOUD, &rooms).await?;
        let mut taken = [Vec::new(), Vec::new(), Vec::new()];
        let flooded = Arc::new(AtomicU64::new(0));
        for _ in 0..rounds {
            for (what, taken) in taken.iter_mut().enumerate() {
                let mut flood = JoinSet::new();
                match what {
                    1 => (0..GUESSERS).for_each(|_| {
                        flood.spawn(guess(ours.server.address, Arc::clone(&flooded)));
                    }),
                    2 => (QUIET..QUIET + LOUD).for_each(|person| {
                        let token = ours.tokens[person].clone();
                        flood.spawn(shout(ours.server.address, token, ours.rooms[1], Arc::clone(&flooded)));
                    }),
                    _ => {}
                }
                let mut sockets = Vec::new();
                for token in &ours.tokens[..QUIET] {
                    let mut socket = connect(ours.server.address, &format!("/ws?token={token}")).await?;
                    join(&mut socket, &ours.rooms[..1]).await?;
                    sockets.push(socket);
                }
                let pace = keep_pace(&ours, &rooms[..1], sockets, &[], rate, Duration::from_secs(time)).await?;
                taken.push(pace.percentile(99));
                flood.shutdown().await;
                // What is still on its way is nobody's flood.
                sleep(Duration::from_millis(500)).await;
            }
        }
        let [calm, guessed, shouted] = taken.map(Figure::of);
        let beside = Some(("calm", calm.median));
        report.tell(name, "99 of 100 delivered, calm", "ms", &calm, None);
        report.tell(name, "the same while passwords are guessed", "ms", &guessed, beside);
        report.tell(name, "the same while others shout", "ms", &shouted, beside);
        let flooded = flooded.load(Ordering::Relaxed) as f64;
        report.tell(name, "guesses and shouts in all", "", &Figure::of(vec![flooded]), None);
    }
    Ok(())
}

/// Tries passwords, and goes on whatever is answered.
async fn guess(address: SocketAddr, count: Arc<AtomicU64>) {
    for number in 0_u64.. {
        let body = format!(
            r#"{{"username":"person{}","password":"guess number {number}"}}"#,
            number % 40
        );
        if ask(address, "", "POST", "/api/auth/login", &body).await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Says as much as the socket takes, and comes back when it is closed.
async fn shout(address: SocketAddr, token: String, room: i64, count: Arc<AtomicU64>) {
    let frame = masked(
        format!(
            r#"{{"type":"message","chat_id":{room},"content":"{}"}}"#,
            "A".repeat(100)
        )
        .as_bytes(),
    );
    loop {
        let shouting = async {
            let mut socket = connect(address, &format!("/ws?token={token}")).await?;
            join(&mut socket, &[room]).await?;
            let (mut reading, mut writing) = socket.split();
            let hear = async {
                let mut heard = vec![0; 64 * 1024];
                while reading.read(&mut heard).await? > 0 {}
                Anything::Ok(())
            };
            let speak = async {
                loop {
                    writing.write_all(&frame).await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            tokio::select! {
                ended = hear => ended,
                ended = speak => ended,
            }
        };
        let _: Anything<()> = shouting.await;
        sleep(Duration::from_millis(20)).await;
    }
}

// Coming and going for long.

const PEOPLE: usize = 100;
/// How many do something at a time.
const BUSY: usize = 12;
/// The most that memory may grow in the second half, in bytes a minute. A leak of a hundred bytes each time that something
/// is done is more.
const MOST_GROWTH: f64 = 2.0 * 1024.0 * 1024.0;

/// Does what people do, and watches the server's memory: it must not grow for ever, and all that is open must close.
pub(crate) async fn soak(quick: bool, minutes: f64, report: &mut Report) -> Anything<()> {
    let time = Duration::from_secs_f64(if quick { 3.0 } else { minutes * 60.0 });
    report.scenario(&format!(
        "soak: {BUSY} come, do something and go, for {} s",
        time.as_secs()
    ));
    let rooms: Vec<Vec<usize>> = (0..10).map(|room| (room * 10..room * 10 + 10).collect()).collect();
    let ours = Arc::new(Ours::start(PEOPLE, &rooms).await?);
    let (begun, done) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..BUSY {
        let (ours, done) = (Arc::clone(&ours), Arc::clone(&done));
        tasks.spawn(async move {
            while begun.elapsed() < time {
                let number = done.fetch_add(1, Ordering::Relaxed);
                timeout(Duration::from_secs(30), something(&ours, number))
                    .await
                    .map_err(|_| format!("number {number} hangs"))??;
            }
            Anything::Ok(())
        });
    }
    let mut memory = Vec::new();
    let mut next = begun;
    loop {
        next += time / 200;
        tokio::select! {
            () = tokio::time::sleep_until(next) => memory.push((begun.elapsed().as_secs_f64() / 60.0, ours.server.memory()?)),
            ended = tasks.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
        }
    }
    let one = |value| Figure::of(vec![value]);
    let mib = |bytes: f64| one(bytes / f64::from(1 << 20));
    let half = memory.split_off(memory.len() / 2);
    let growth = slope(&half);
    let at = |part: &[(f64, f64)]| part.last().map_or(f64::NAN, |(_, bytes)| *bytes);
    let things = done.load(Ordering::Relaxed) as f64;
    report.tell("soak", "things done", "", &one(things), None);
    let tenths = memory.iter().chain(&half).skip(19).step_by(20);
    let tenths: Vec<_> = tenths
        .map(|(_, bytes)| format!("{:.1}", bytes / f64::from(1 << 20)))
        .collect();
    println!("  memory after each tenth of the time, in MiB: {}", tenths.join(" "));
    report.tell("soak", "memory after half of the time", "MiB", &mib(at(&memory)), None);
    report.tell("soak", "memory at the end", "MiB", &mib(at(&half)), None);
    report.tell("soak", "growth in the second half, a minute", "MiB", &mib(growth), None);
    nothing_is_left(ours.server.address, quick).await?;
    if !quick && growth > MOST_GROWTH {
        return Err(format!("memory grows by {growth:.0} bytes a minute").into());
    }
    Ok(())
}

/// Bytes a minute, by least squares.
fn slope(taken: &[(f64, f64)]) -> f64 {
    let count = taken.len() as f64;
    let (x, y) = taken
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = taken.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    above / below
}

/// One of the things that people do.
async fn something(ours: &Ours, number: usize) -> Anything<()> {
    let address = ours.server.address;
    let person = number.wrapping_mul(37) % PEOPLE;
    let (token, room) = (&ours.tokens[person], ours.rooms[person / 10]);
    let path = format!("/ws?token={token}");
    let say =
        |content: &str| masked(format!(r#"{{"type":"message","chat_id":{room},"content":"{content}"}}"#).as_bytes());
    match number % 10 {
        // Somebody says something and is gone before it is answered.
        0 | 1 => {
            let mut socket = connect(address, &path).await?;
            join(&mut socket, &[room]).await?;
            socket.write_all(&say(&format!("this is number {number}"))).await?;
            read_for(&mut socket, Duration::from_millis(20)).await
        }
        2 => {
            let mut socket = connect(address, &path).await?;
            join(&mut socket, &[room]).await?;
            socket.write_all(&say("/bot tell me")).await?;
            read_for(&mut socket, Duration::from_millis(200)).await
        }
        3 => {
            let mut socket = connect_v1(address, token).await?;
            join_v1(&mut socket, room).await?;
            let typing = format!(r#"{{"type":"typing","room":{room}}}"#);
            socket.write_all(&masked(typing.as_bytes())).await?;
            read_for(&mut socket, Duration::from_millis(20)).await
        }
        // Who reads nothing.
        4 => {
            let mut socket = connect_narrow(address, &path).await?;
            join(&mut socket, &[room]).await?;
            sleep(Duration::from_millis(300)).await;
            Ok(())
        }
        // A handshake that ends in the middle, and what is none.
        5 => {
            let mut socket = TcpStream::connect(address).await?;
            socket
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nUpgr").as_bytes())
                .await?;
            drop(socket);
            let (status, _) = ask(address, "nobody", "GET", "/api/chats", "").await?;
            expect(status == 401, "a token that is none", status)
        }
        6 => {
            let body = format!(
                r#"{{"name":"room {number}","is_group":true,"participant_usernames":["person{}"]}}"#,
                number % PEOPLE
            );
            let (status, made) = ask(address, token, "POST", "/api/chats", &body).await?;
            expect(status == 200, "a new room", status)?;
            let id = serde_json::from_str::<serde_json::Value>(&made)?["id"]
                .as_i64()
                .ok_or("no id")?;
            let (status, _) = ask(
                address,
                token,
                "POST",
                &format!("/api/rooms/{id}/messages"),
                r#"{"text":"hello"}"#,
            )
            .await?;
            expect(status == 200, "a message", status)?;
            let (status, _) = ask(address, token, "DELETE", &format!("/api/chats/{id}"), "").await?;
            expect(status == 200, "the end of a room", status)
        }
        7 => {
            for path in ["/api/chats", &format!("/api/chats/{room}/messages"), "/metrics", "/"] {
                let (status, _) = ask(address, token, "GET", path, "").await?;
                expect(status == 200, path, status)?;
            }
            let (status, _) = ask(address, token, "POST", &format!("/api/chats/{room}/mark-read"), "").await?;
            expect(status == 200, "a read mark", status)
        }
        // Events of which only the first are read.
        8 => {
            let mut socket = TcpStream::connect(address).await?;
            let request =
                format!("GET /api/rooms/{room}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
            socket.write_all(request.as_bytes()).await?;
            read_for(&mut socket, Duration::from_millis(50)).await
        }
        // An account comes and goes.
        _ if number % 50 == 9 => {
            let account = format!(
                r#"{{"username":"guest{number}","email":"guest{number}@example.org","password":"password of mine"}}"#
            );
            let (status, _) = ask(address, "", "POST", "/api/auth/register", &account).await?;
            expect(status == 200, "an account", status)?;
            let (status, login) = ask(address, "", "POST", "/api/auth/login", &account).await?;
            expect(status == 200, "a login", status)?;
            let login: serde_json::Value = serde_json::from_str(&login)?;
            let token = login["access_token"].as_str().ok_or("no token")?;
            let password = r#"{"password":"password of mine"}"#;
            let (status, _) = ask(address, token, "DELETE", "/api/auth/me", password).await?;
            expect(status == 200, "the end of an account", status)
        }
        _ => {
            let (status, said) = ask(
                address,
                token,
                "POST",
                &format!("/api/rooms/{room}/messages"),
                r#"{"text":"first"}"#,
            )
            .await?;
            expect(status == 200, "a message", status)?;
            let said: serde_json::Value = serde_json::from_str(&said)?;
            let id = said["message"]["id"].as_i64().ok_or("no message")?;
            let (status, _) = ask(
                address,
                token,
                "DELETE",
                &format!("/api/rooms/{room}/messages/{id}"),
                "",
            )
            .await?;
            expect(status == 200, "the end of a message", status)
        }
    }
}

fn expect(holds: bool, what: &str, status: u16) -> Anything<()> {
    match holds {
        true => Ok(()),
        false => Err(format!("{what} was answered with {status}").into()),
    }
}

async fn read_for(socket: &mut TcpStream, time: Duration) -> Anything<()> {
    let mut heard = [0; 4 * 1024];
    let reading = async { while socket.read(&mut heard).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(time, reading).await;
    Ok(())
}

/// Nobody is there any more: no connection is open, and after a while no room is in memory.
async fn nothing_is_left(address: SocketAddr, quick: bool) -> Anything<()> {
    let until = Instant::now() + Duration::from_secs(60);
    let names: &[&str] = match quick {
        true => &["coop_connections"],
        false => &["coop_connections", "coop_rooms_in_memory"],
    };
    loop {
        let (_, figures) = ask(address, "", "GET", "/metrics", "").await?;
        let value = |name: &str| {
            let line = figures
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok())
        };
        let left: Vec<_> = names.iter().map(|name| (*name, value(name))).collect();
        if left.iter().all(|(_, value)| *value == Some(0.0)) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("nobody is there, and yet {left:?}").into());
        }
        sleep(Duration::from_millis(200)).await;
    }
}
