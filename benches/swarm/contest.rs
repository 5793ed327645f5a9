//! Ours beside others, under the same load in the same run: what a delivery costs the server. Everything is told as so many
//! times what it costs the bare fastwebsockets server.

use crate::Anything;
use crate::answering::{self, PIECE, RATE, furnished, moments};
use crate::clients::{Label, PATIENCE, connect_all, connect_v1, hear, join_v1, masked};
use crate::others::{Other, TALKERS};
use crate::report::{Figure, Report};
use crate::scenarios::{Talk, all, joined, keep_pace_with, micros, said};
use crate::servers::{Cpu, Ours, Server, again, other, postgres, redis};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Sqlite,
    Postgres,
    /// Two servers on PostgreSQL, with Redis between them and half of the people at either.
    Pair,
    Other(Other),
}

const OURS: [Contender; 3] = [Contender::Sqlite, Contender::Postgres, Contender::Pair];

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "ours on SQLite",
            Self::Postgres => "ours on PostgreSQL",
            Self::Pair => "two of ours with Redis",
            Self::Other(other) => other.name(),
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::Sqlite => true,
            Self::Postgres => postgres().is_some(),
            Self::Pair => postgres().is_some() && redis().is_some(),
            Self::Other(other) => other.is_here(),
        }
    }

    /// All that can take part here, ours first: the others' messages are as long as ours.
    fn all() -> Vec<Self> {
        let others = Other::ALL.into_iter().map(Self::Other);
        let (here, absent): (Vec<_>, Vec<_>) = OURS.into_iter().chain(others).partition(|who| who.is_here());
        for who in absent {
            println!("{} does not take part: it is not here", who.name());
        }
        here
    }
}

/// A contender's servers with everybody in one room.
pub(crate) struct Field {
    server: Played,
    sockets: Vec<TcpStream>,
    /// How long the content of a message is.
    length: usize,
}

pub(crate) enum Played {
    Ours(Ours),
    Other(Server),
}

impl Cpu for Field {
    fn cpu(&self) -> Anything<Duration> {
        match &self.server {
            Played::Ours(ours) => ours.cpu(),
            Played::Other(server) => server.cpu(),
        }
    }
}

impl Field {
    pub(crate) async fn of(who: Contender, members: usize, length: usize) -> Anything<Self> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let everybody = [(0..members).collect::<Vec<_>>()];
        // No two runs on one database have people of the same name.
        let name = format!("p{}-{}-", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let ours = match (who, postgres()) {
            (Contender::Sqlite, _) => Ours::start(members, &everybody).await?,
            (Contender::Postgres, Some(database)) => {
                Ours::on_postgres(database, None, false, &name, members, &everybody).await?
            }
            (Contender::Pair, Some(database)) => {
                Ours::on_postgres(database, redis(), true, &name, members, &everybody).await?
            }
            (Contender::Other(kind), _) => {
                let server = other(kind, members)?;
                let sockets = connect_all(server.address, vec!["/".to_owned(); members]).await?;
                let server = Played::Other(server);
                return Ok(Self {
                    server,
                    sockets,
                    length,
                });
            }
            _ => return Err("there is no PostgreSQL".into()),
        };
        let sockets = joined(&ours, &everybody).await?;
        let server = Played::Ours(ours);
        Ok(Self {
            server,
            sockets,
            length,
        })
    }

    /// What says this message here.
    fn said(&self) -> impl Fn(Label) -> Vec<u8> + use<> {
        let room = match &self.server {
            Played::Ours(ours) => Some(ours.rooms[0]),
            Played::Other(_) => None,
        };
        let length = self.length;
        move |label| match room {
            Some(room) => said(room, label),
            None => masked(label.content(length).as_bytes()),
        }
    }
}

/// Takes each contender's figures in turn, several times, and tells them beside the bare server's.
async fn compare(
    report: &mut Report,
    name: &str,
    rounds: usize,
    contenders: &[Contender],
    mut one: impl AsyncFnMut(Contender, usize) -> Anything<(f64, usize)>,
) -> Anything<()> {
    let mut taken = vec![Vec::new(); contenders.len()];
    // As long as ours turn out to be.
    let mut length = 280;
    for _ in 0..rounds {
        for (who, taken) in contenders.iter().zip(&mut taken) {
            let (cost, heard) = one(*who, length).await?;
            if *who == Contender::Sqlite {
                length = heard;
            }
            taken.push(cost);
        }
    }
    let figures: Vec<_> = taken.into_iter().map(Figure::of).collect();
    let bare = contenders.iter().position(|who| *who == Contender::Other(Other::Bare));
    let bare = bare.map(|at| ("bare", figures[at].median));
    for (who, figure) in contenders.iter().zip(&figures) {
        report.tell(name, who.name(), "µs", figure, bare);
    }
    Ok(())
}

// One room, so many messages on their way at a time.

pub(crate) async fn fanout(quick: bool, report: &mut Report) -> Anything<()> {
    let sizes: &[(usize, usize)] = if quick {
        &[(20, 100)]
    } else {
        &[(100, 1_000), (1_000, 200)]
    };
    let contenders = Contender::all();
    for &(members, messages) in sizes {
        for in_flight in [1, 8] {
            report.scenario(&format!(
                "fanout: {members} members, {in_flight} in flight; µs of server CPU per delivered message"
            ));
            let name = format!("fanout {members} {in_flight}");
            compare(
                report,
                &name,
                if quick { 1 } else { 3 },
                &contenders,
                async |who, length| {
                    let field = Field::of(who, members, length).await?;
                    talk(field, messages, in_flight).await
                },
            )
            .await?;
        }
    }
    Ok(())
}

/// Says messages through the first sockets, so many on their way at a time, until everybody has all of them. The servers'
/// CPU time per delivery in microseconds, and how long a message is.
pub(crate) async fn talk(mut field: Field, messages: usize, in_flight: usize) -> Anything<(f64, usize)> {
    let sockets = std::mem::take(&mut field.sockets);
    let members = sockets.len();
    let arrived: Arc<Vec<AtomicUsize>> = Arc::new((0..messages).map(|_| AtomicUsize::new(0)).collect());
    let window = Arc::new(Semaphore::new(in_flight));
    let mut tasks = JoinSet::new();
    let mut writings = Vec::new();
    for socket in sockets {
        let (mut reading, writing) = socket.into_split();
        writings.push(writing);
        let (arrived, window) = (Arc::clone(&arrived), Arc::clone(&window));
        tasks.spawn(async move {
            hear(&mut reading, |_, label, heard| {
                if let Some(label) = label {
                    let message = label.number * in_flight + label.sender;
                    if arrived[message].fetch_add(1, Ordering::AcqRel) + 1 == members {
                        window.add_permits(1);
                    }
                }
                Ok(heard.messages == messages)
            })
            .await
        });
    }
    let said = field.said();
    let before = field.cpu()?;
    for message in 0..messages {
        timeout(PATIENCE, window.acquire()).await??.forget();
        let (sender, number) = (message % in_flight, message / in_flight);
        let label = Label {
            room: 0,
            sender,
            number,
        };
        writings[sender].write_all(&said(label)).await?;
    }
    let heard = all(tasks).await?;
    let cost = field.cpu()? - before;
    Ok((micros(cost, messages * members), heard[0].length))
}

// One room at a steady pace.

pub(crate) async fn steady(quick: bool, report: &mut Report) -> Anything<()> {
    let (members, time) = if quick { (10, 1) } else { (100, 4) };
    let contenders = Contender::all();
    for rate in if quick { [50, 100] } else { [500, 1_000] } {
        report.scenario(&format!(
            "steady: a room of {members}, {rate} messages a second for {time} s; µs of server CPU per delivered message"
        ));
        let rooms = [(0..members).collect::<Vec<_>>()];
        let name = format!("steady {rate}");
        let mut slowest = Vec::new();
        compare(
            report,
            &name,
            if quick { 1 } else { 3 },
            &contenders,
            async |who, length| {
                let mut field = Field::of(who, members, length).await?;
                let sockets = std::mem::take(&mut field.sockets);
                let time = Duration::from_secs(time);
                // The floor hears no more of them.
                let talk = Talk {
                    rooms: &rooms,
                    deaf: &[],
                    talkers: TALKERS,
                    rate,
                    time,
                };
                let pace = keep_pace_with(&field, field.said(), sockets, &talk).await?;
                if who == Contender::Sqlite {
                    let cores = pace.cost() / 1e6 * (rate * members) as f64;
                    slowest.push((pace.percentile(99), cores));
                }
                Ok((pace.cost(), length))
            },
        )
        .await?;
        let (delays, cores) = slowest.into_iter().unzip();
        report.tell(
            &name,
            "ours on SQLite: 99 of 100 delivered",
            "ms",
            &Figure::of(delays),
            None,
        );
        report.tell(&name, "ours on SQLite: cores", "", &Figure::of(cores), None);
    }
    Ok(())
}

// One long answer to many.

pub(crate) async fn stream(quick: bool, report: &mut Report) -> Anything<()> {
    let (readers, pieces) = if quick { (10, 50) } else { (1_000, 500) };
    report.scenario(&format!(
        "stream: {pieces} pieces at {RATE} a second to {readers} readers; µs of server CPU per piece and reader"
    ));
    let contenders = [
        Contender::Sqlite,
        Contender::Other(Other::Bare),
        Contender::Other(Other::Floor),
    ];
    let mut delays = vec![Vec::new(); contenders.len()];
    compare(
        report,
        "stream",
        if quick { 1 } else { 3 },
        &contenders,
        async |who, _| {
            let (cost, mut delay) = match who {
                Contender::Other(kind) => stream_of(kind, readers, pieces).await?,
                _ => stream_of_ours(readers, pieces).await?,
            };
            delay.sort_unstable();
            let at = contenders.iter().position(|other| *other == who).ok_or("nobody")?;
            delays[at].push(delay[delay.len() * 99 / 100] as f64 / 1e3);
            Ok((cost, 0))
        },
    )
    .await?;
    for (who, delays) in contenders.iter().zip(delays) {
        let what = format!("{}: 99 of 100 pieces", who.name());
        report.tell("stream", &what, "ms", &Figure::of(delays), None);
    }
    Ok(())
}

/// Has everybody read until they have as many pieces, and how long each took to everybody.
fn read_pieces(
    sockets: Vec<TcpStream>,
    pieces: usize,
) -> (JoinSet<Anything<Vec<u64>>>, Vec<tokio::net::tcp::OwnedWriteHalf>) {
    let (mut tasks, mut writings) = (JoinSet::new(), Vec::new());
    for socket in sockets {
        let (mut reading, writing) = socket.into_split();
        writings.push(writing);
        tasks.spawn(async move {
            let mut delays = Vec::with_capacity(pieces);
            hear(&mut reading, |payload, _, _| {
                let now = answering::micros();
                // What is stored at the end holds all of them once more.
                if !payload.starts_with(br#"{"type":"event""#) {
                    delays.extend(moments(payload).map(|then| now.saturating_sub(then)));
                }
                Ok(delays.len() >= pieces)
            })
            .await?;
            Ok(delays)
        });
    }
    (tasks, writings)
}

async fn gathered(mut tasks: JoinSet<Anything<Vec<u64>>>) -> Anything<Vec<u64>> {
    let mut delays = Vec::new();
    while let Some(some) = tasks.join_next().await {
        delays.extend(some??);
    }
    Ok(delays)
}

async fn stream_of_ours(readers: usize, pieces: usize) -> Anything<(f64, Vec<u64>)> {
    let folder = tempfile::tempdir()?;
    let known = furnished(folder.path(), readers).await?;
    let server = again(answering::WORD, readers, folder)?;
    let mut sockets = Vec::with_capacity(readers);
    for token in &known.tokens {
        let mut socket = connect_v1(server.address, token).await?;
        join_v1(&mut socket, known.room).await?;
        sockets.push(socket);
    }
    server.rest().await?;
    let (tasks, mut writings) = read_pieces(sockets, pieces);
    let before = server.cpu()?;
    let ask = format!(r#"{{"type":"send","room":{},"text":"/steady {pieces}"}}"#, known.room);
    writings[0].write_all(&masked(ask.as_bytes())).await?;
    let delays = gathered(tasks).await?;
    Ok((micros(server.cpu()? - before, readers * pieces), delays))
}

/// The same pieces as messages of one person.
async fn stream_of(kind: Other, readers: usize, pieces: usize) -> Anything<(f64, Vec<u64>)> {
    let server = other(kind, readers)?;
    let sockets = connect_all(server.address, vec!["/".to_owned(); readers]).await?;
    let (tasks, mut writings) = read_pieces(sockets, pieces);
    let before = server.cpu()?;
    let mut ticks = interval(Duration::from_millis(1_000 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..pieces {
        ticks.tick().await;
        // As long as a delta's frame.
        let text = format!("{}{}", answering::piece(), "x".repeat(130 - PIECE));
        writings[0].write_all(&masked(text.as_bytes())).await?;
    }
    let delays = gathered(tasks).await?;
    Ok((micros(server.cpu()? - before, readers * pieces), delays))
}
