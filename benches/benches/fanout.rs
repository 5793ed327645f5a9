//! What it costs to deliver one message, and one answer of 200 pieces, to everyone in a room of this process: beside a
//! queue for each reader and beside Tokio's broadcast channel. It knows no sockets and no disk.
//!
//! `cargo bench -p coop-benches --bench fanout`. Criterion's times are **CPU time of the whole process** (user and
//! system), not wall time: a reader that waits costs nothing, one that is woken does. A table at the end sets the three
//! beside each other, with the wall time.
//!
//! - *ours* is the whole way: `room.send` over a store in memory, the room's writer, the live room, subscriptions. An
//!   answer is asked for with a message and written by a bot.
//! - *mpsc* is a bounded `tokio::sync::mpsc` for each reader, *broadcast* a `tokio::sync::broadcast` so large that nobody
//!   lags. Both are handed ready events, one for each piece: no store, no checks, no turn, no late join. That is nearly
//!   all that sending to ten readers costs, so `stored` is the same message once more, which these two send through
//!   an engine as well (into a room that nobody reads) before they hand it out.
//!
//! Every reader is a task, on the same runtime with two workers, and checks every event it gets: the numbers of the log
//! follow each other, the pieces are the answer's text without gap or repeat. A reader that misses something ends the
//! program. Rounds stand 6 ms apart, longer than a room gathers events after the last one. An answer's pieces come one
//! a millisecond (`answer`), which is faster than any provider writes, and once more all at once with a yield after
//! each (`burst`), which none does: there a room merges the most and a channel's readers are woken the least.

use async_trait::async_trait;
use coop_core::store::memory::MemoryStore;
use coop_core::{
    Author, Bot, BotError, BotProfile, Engine, Event, Finish, Message, MessageId, ReplyWriter, Room, RoomDraft, RoomId,
    Seq, Timestamp, Turn, TurnEnd, TurnId, TurnStatus, User, UserId,
};
use cpu_time::ProcessTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, SamplingMode};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::{interval, sleep, timeout};

const SIZES: [usize; 4] = [10, 100, 1_000, 5_000];
const PIECES: usize = 200;
const STEP: Duration = Duration::from_millis(1);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(6);
/// A round that takes longer has lost something.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most members of one room; more readers are further subscriptions of the same people.
const MEMBERS: usize = 1_000;
/// What waits for one reader.
const QUEUE: usize = 64;
const TEXT: &str =
    "a message of about a hundred bytes, as people write them when they are in a hurry and have more to do";

/// The answer, and where its pieces begin and end.
static ANSWER: LazyLock<(String, Vec<(usize, usize)>)> = LazyLock::new(|| {
    let (mut text, mut pieces) = (String::new(), Vec::new());
    for n in 0..PIECES {
        let begin = text.len();
        // Writing to a string cannot fail.
        let _ = write!(text, "piece {n:03} of an answer of some length, ");
        pieces.push((begin, text.len()));
    }
    (text, pieces)
});

/// Measures the processor time of the whole process.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = ProcessTime;
    type Value = Duration;

    fn start(&self) -> ProcessTime {
        ProcessTime::now()
    }

    fn end(&self, start: ProcessTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Message,
    /// A message that every way stores first, so that what is left to tell them apart is the delivery.
    Stored,
    /// Its pieces one a [`STEP`].
    Answer,
    /// Its pieces at once.
    Burst,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Stored => "stored",
            Self::Answer => "answer",
            Self::Burst => "burst",
        }
    }
}

/// A room, and how what happens in it is delivered.
struct Way {
    engine: Engine,
    /// The baselines use it as a store that nobody reads from.
    room: Room,
    how: How,
    log: Log,
}

enum How {
    Ours,
    Mpsc(Vec<mpsc::Sender<Arc<Event>>>),
    Broadcast(broadcast::Sender<Arc<Event>>),
}

const WAYS: [&str; 3] = ["ours", "mpsc", "broadcast"];

/// Who still waits for the end of this round.
#[derive(Default)]
struct Round {
    waiting: AtomicUsize,
    over: Notify,
}

impl Round {
    fn has_all(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.notify_one();
        }
    }
}

/// What one reader has, and whether that is right.
struct Reader {
    round: Arc<Round>,
    seq: Seq,
    /// Bytes of the answer being written.
    held: usize,
}

impl Reader {
    fn new(round: &Arc<Round>, seq: Seq) -> Self {
        let round = Arc::clone(round);
        Self { round, seq, held: 0 }
    }

    fn take(&mut self, event: &Event) {
        let answer = ANSWER.0.as_str();
        if let Some(seq) = event.seq() {
            assert_eq!(seq, self.seq.next(), "an event is missing or came twice");
            self.seq = seq;
        }
        match event {
            Event::MessagePosted { message, .. } if message.text == TEXT => self.round.has_all(),
            Event::TurnStarted { .. } => self.held = 0,
            Event::Delta { offset, end, text, .. } => {
                let (offset, end) = (*offset as usize, *end as usize);
                assert_eq!(offset, self.held, "a piece is missing or came twice");
                assert_eq!(&answer[offset..end], &**text);
                self.held = end;
            }
            Event::TurnEnded { text, .. } => {
                assert_eq!(self.held, answer.len(), "the answer's end is missing");
                assert_eq!(&**text, answer);
                self.round.has_all();
            }
            _ => {}
        }
    }
}

/// Makes the events of the baselines.
#[derive(Default)]
struct Log(Mutex<Seq>);

impl Log {
    fn next(&self) -> Seq {
        let mut seq = self.0.lock().unwrap();
        *seq = seq.next();
        *seq
    }

    fn message(&self, text: &str) -> Message {
        let author = Author::person(UserId(1), "sender");
        Message::new(MessageId(1), RoomId(1), Seq(1), author, text.to_owned(), Timestamp(0))
    }

    fn posted(&self, message: Arc<Message>) -> Arc<Event> {
        Arc::new(Event::MessagePosted {
            room: RoomId(1),
            seq: self.next(),
            message,
        })
    }

    fn started(&self) -> Arc<Event> {
        let message = self.message("");
        Arc::new(Event::TurnStarted {
            room: RoomId(1),
            seq: self.next(),
            turn: TurnId(1),
            bot: "writer".to_owned(),
            asked_by: UserId(1),
            message: Arc::new(message),
        })
    }

    fn piece(&self, at: usize) -> Arc<Event> {
        let (offset, end) = ANSWER.1[at];
        Arc::new(Event::Delta {
            room: RoomId(1),
            message: MessageId(1),
            offset: offset as u64,
            end: end as u64,
            text: ANSWER.0[offset..end].into(),
        })
    }

    fn ended(&self) -> Arc<Event> {
        let end = Box::new(TurnEnd::new(TurnStatus::Done));
        Arc::new(Event::TurnEnded {
            room: RoomId(1),
            seq: self.next(),
            turn: TurnId(1),
            bot: "writer".to_owned(),
            message: Some(MessageId(1)),
            text: ANSWER.0.as_str().into(),
            end,
        })
    }
}

/// Writes the answer at the pace its prompt asks for. It reads no history: how that is chosen is not measured here.
struct Writer;

#[async_trait]
impl Bot for Writer {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new("writer");
        profile.context.messages = 1;
        profile
    }

    async fn reply(&self, turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        let mut pace = Paced::new(turn.prompt == What::Answer.name());
        for &(begin, end) in &ANSWER.1 {
            out.push(&ANSWER.0[begin..end]).await?;
            pace.wait().await;
        }
        Ok(Finish::stop())
    }
}

/// When the next piece comes; the same for all ways.
struct Paced(Option<tokio::time::Interval>);

impl Paced {
    fn new(steps: bool) -> Self {
        Self(steps.then(|| interval(STEP)))
    }

    async fn wait(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => tokio::task::yield_now().await,
        }
    }
}

impl Way {
    async fn with(name: &str, readers: usize, round: &Arc<Round>) -> Self {
        let engine = Engine::builder(MemoryStore::new()).bot(Writer).build().await.unwrap();
        let mut members = Vec::new();
        for n in 0..readers.min(MEMBERS) {
            members.push(engine.create_user(&format!("member{n}")).await.unwrap());
        }
        let draft = RoomDraft::named("room").with(members.iter().cloned());
        let room = members[0].create_room(draft).await.unwrap();
        let how = match name {
            "ours" => How::ours(&members, room.id(), readers, round).await,
            "mpsc" => How::mpsc(readers, round),
            _ => How::broadcast(readers, round),
        };
        Self {
            engine,
            room,
            how,
            log: Log::default(),
        }
    }

    /// Delivers once.
    async fn deliver(&self, what: What) {
        match (what, &self.how) {
            (What::Message | What::Stored, How::Ours) => drop(self.room.send(TEXT).await.unwrap()),
            (_, How::Ours) => drop(self.room.send(format!("/bot {}", what.name())).await.unwrap()),
            (What::Message, _) => {
                let message = Arc::new(self.log.message(TEXT));
                self.hand(self.log.posted(message)).await;
            }
            (What::Stored, _) => {
                let sent = self.room.send(TEXT).await.unwrap();
                self.hand(self.log.posted(sent.message)).await;
            }
            (What::Answer | What::Burst, _) => {
                self.hand(self.log.started()).await;
                let mut pace = Paced::new(what == What::Answer);
                for at in 0..PIECES {
                    self.hand(self.log.piece(at)).await;
                    pace.wait().await;
                }
                self.hand(self.log.ended()).await;
            }
        }
    }

    /// Gives a baseline's readers an event.
    async fn hand(&self, event: Arc<Event>) {
        match &self.how {
            How::Ours => {}
            How::Mpsc(readers) => {
                for reader in readers {
                    reader.send(Arc::clone(&event)).await.unwrap();
                }
            }
            How::Broadcast(sender) => drop(sender.send(event).unwrap()),
        }
    }

    /// Delivers some times, each time until everyone has everything.
    async fn rounds(&self, what: What, rounds: u64, readers: usize, round: &Round) {
        for _ in 0..rounds {
            round.waiting.store(readers, Ordering::Release);
            self.deliver(what).await;
            timeout(PATIENCE, round.over.notified())
                .await
                .expect("a reader has lost something");
            sleep(PAUSE).await;
        }
    }
}

impl How {
    async fn ours(members: &[User], room: RoomId, readers: usize, round: &Arc<Round>) -> Self {
        for n in 0..readers {
            let room = members[n % members.len()].room(room).await.unwrap();
            let mut events = room.subscribe().await.unwrap();
            let Some(Ok(Event::Snapshot(snapshot))) = events.next().await else {
                panic!("a subscription begins with a snapshot");
            };
            let mut reader = Reader::new(round, snapshot.seq);
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    reader.take(&event.unwrap());
                }
            });
        }
        Self::Ours
    }

    fn mpsc(readers: usize, round: &Arc<Round>) -> Self {
        let queue = |_| {
            let (sender, mut events) = mpsc::channel::<Arc<Event>>(QUEUE);
            let mut reader = Reader::new(round, Seq(0));
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    reader.take(&event);
                }
            });
            sender
        };
        Self::Mpsc((0..readers).map(queue).collect())
    }

    fn broadcast(readers: usize, round: &Arc<Round>) -> Self {
        let sender = broadcast::Sender::<Arc<Event>>::new(4 * PIECES);
        for _ in 0..readers {
            let mut events = sender.subscribe();
            let mut reader = Reader::new(round, Seq(0));
            tokio::spawn(async move {
                loop {
                    match events.recv().await {
                        Ok(event) => reader.take(&event),
                        Err(broadcast::error::RecvError::Closed) => return,
                        Err(lagged) => panic!("{lagged}"),
                    }
                }
            });
        }
        Self::Broadcast(sender)
    }
}

/// CPU and wall time of one round, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

/// What each row's samples have cost.
type Costs = BTreeMap<(What, usize), BTreeMap<&'static str, Vec<Cost>>>;

fn measure(criterion: &mut Criterion<CpuTime>, runtime: &Runtime, what: What, costs: &mut Costs) {
    let mut group = criterion.benchmark_group(what.name());
    group.sampling_mode(SamplingMode::Flat);
    if matches!(what, What::Message | What::Stored) {
        // How much of it a second worker takes over differs from round to round.
        group.sample_size(30).measurement_time(Duration::from_millis(2_000));
    }
    for readers in SIZES {
        for name in WAYS {
            let round = Arc::new(Round::default());
            let mut way = None;
            group.bench_function(BenchmarkId::new(name, readers), |bencher| {
                // Made only if this case is wanted at all.
                if way.is_none() {
                    way = Some(Arc::new(runtime.block_on(async {
                        let way = Way::with(name, readers, &round).await;
                        way.rounds(what, 1, readers, &round).await;
                        way
                    })));
                }
                let Some(way) = &way else { return };
                bencher.iter_custom(|rounds| {
                    let (way, round) = (Arc::clone(way), Arc::clone(&round));
                    let (cpu, wall) = (ProcessTime::now(), Instant::now());
                    // In a worker, as a server's tasks are.
                    let task = async move { way.rounds(what, rounds, readers, &round).await };
                    runtime.block_on(runtime.spawn(task)).unwrap();
                    let (cpu, wall) = (cpu.elapsed(), wall.elapsed());
                    costs
                        .entry((what, readers))
                        .or_default()
                        .entry(name)
                        .or_default()
                        .push(Cost {
                            cpu: cpu.as_secs_f64() / rounds as f64,
                            wall: wall.as_secs_f64() / rounds as f64,
                        });
                    cpu
                });
            });
            if let Some(way) = way {
                runtime.block_on(way.engine.close(Duration::from_secs(5)));
            }
        }
    }
    group.finish();
}

fn median(costs: &[Cost], part: fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sets the ways beside each other.
fn report(costs: &Costs) {
    println!("\nCPU time of one round, µs (wall time, ms), medians; ours as a part of the better of the others");
    println!(
        "{:<8} {:>7}  {:>20} {:>20} {:>20} {:>8}",
        "", "readers", WAYS[0], WAYS[1], WAYS[2], "ours"
    );
    for (&(what, readers), ways) in costs {
        let of = |name: &str, part| ways.get(name).map_or(f64::NAN, |costs| median(costs, part));
        let cpu = WAYS.map(|name| of(name, |cost| cost.cpu * 1e6));
        let wall = WAYS.map(|name| of(name, |cost| cost.wall * 1e3));
        print!("{:<8} {readers:>7} ", what.name());
        for (cpu, wall) in cpu.iter().zip(wall) {
            print!(" {:>20}", format!("{cpu:.0} ({wall:.0})"));
        }
        println!(" {:>8.2}", cpu[0] / cpu[1].min(cpu[2]));
    }
    println!("Every reader had every event of every round, in order.");
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .sample_size(10)
        .nresamples(2_000)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let hook = std::panic::take_hook();
    // A reader that panics would otherwise only be waited for.
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::exit(101);
    }));
    let mut costs = Costs::new();
    for what in [What::Message, What::Stored, What::Answer, What::Burst] {
        measure(&mut criterion, &runtime, what, &mut costs);
    }
    criterion.final_summary();
    report(&costs);
}
