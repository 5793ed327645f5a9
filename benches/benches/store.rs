//! How many acknowledged messages a second the store takes: every sender posts one message, waits until it is on disk,
//! and posts the next. First it says how fast this disk is, without which no other number means anything.
//!
//! `cargo bench -p coop-benches --bench store`. `COOP_BENCH_SECONDS` is the length of each row (3), `COOP_BENCH_DIR`
//! the folder whose disk is measured (the system's temporary folder), `COOP_BENCH_DURABILITY=normal` leaves out the
//! wait for the disk.

use coop_core::store::sqlite::{Durability, SqliteOptions, SqliteStore};
use coop_core::store::{Batch, Intent, NewRoom, Post, RoomStore};
use coop_core::{Error, RoomId, Timestamp, UserId};
use std::env;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What waits to be sent, and who waits for it.
type Waiting = Vec<(Intent, oneshot::Sender<Result<(), Error>>)>;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Anything<()> {
    let seconds = env::var("COOP_BENCH_SECONDS").map_or(Ok(3.0), |text| text.parse())?;
    let length = Duration::from_secs_f64(seconds);
    let folder = env::var_os("COOP_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    println!(
        "disk: {:.0} µs for fdatasync after 4 KiB (median of 200)",
        fdatasync(folder.path())?
    );
    println!(
        "\n{:>6} {:>8} {:>10} {:>10} {:>10}",
        "rooms", "senders", "acks/s", "p50 ms", "p99 ms"
    );
    for (rooms, senders) in [(1, 1), (1, 16), (1, 256), (16, 16), (256, 256)] {
        let store = open(&folder.path().join(format!("{rooms}-{senders}.db"))).await?;
        let writers = Arc::new(Writers::with(store, rooms).await?);
        // The one line to change when something else is to be measured: what one sender does and waits for.
        let sending = writers.clone();
        let send = move |room: usize, sender: usize| sending.clone().send(room, sender);
        let row = measure(rooms, senders, length, send).await?;
        let (rate, p50, p99) = (row.rate(length), row.percentile(50), row.percentile(99));
        println!("{rooms:>6} {senders:>8} {rate:>10.0} {p50:>10.2} {p99:>10.2}");
        writers.check(row.millis.len()).await?;
        writers.store.close().await;
    }
    Ok(())
}

async fn open(path: &Path) -> Anything<SqliteStore> {
    let mut options = SqliteOptions::default();
    if env::var("COOP_BENCH_DURABILITY").is_ok_and(|word| word == "normal") {
        options.durability = Durability::Normal;
    }
    Ok(SqliteStore::open_with(path, options).await?)
}

/// The median time in microseconds that the disk needs to keep 4 KiB more.
fn fdatasync(folder: &Path) -> Anything<f64> {
    let mut file = File::create(folder.join("probe"))?;
    let page = [7_u8; 4096];
    let mut micros = Vec::with_capacity(200);
    for _ in 0..200 {
        file.write_all(&page)?;
        let start = Instant::now();
        file.sync_data()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Ok(micros[micros.len() / 2])
}

/// What was measured: how long each acknowledged message took, in milliseconds and in order.
struct Measured {
    millis: Vec<f64>,
}

impl Measured {
    fn rate(&self, length: Duration) -> f64 {
        self.millis.len() as f64 / length.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let at = self.millis.len().saturating_sub(1) * percent / 100;
        self.millis.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Lets senders send as fast as they are answered. A sender keeps to one room.
async fn measure<F, Sent>(rooms: usize, senders: usize, length: Duration, send: F) -> Anything<Measured>
where
    F: Fn(usize, usize) -> Sent + Clone + Send + 'static,
    Sent: Future<Output = Result<(), Error>> + Send + 'static,
{
    let end = Instant::now() + length;
    let senders: Vec<_> = (0..senders)
        .map(|sender| {
            let send = send.clone();
            tokio::spawn(async move {
                let mut millis = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    send(sender % rooms, sender).await?;
                    millis.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok::<_, Error>(millis)
            })
        })
        .collect();
    let mut millis = Vec::new();
    for sender in senders {
        millis.extend(sender.await??);
    }
    millis.sort_by(f64::total_cmp);
    Ok(Measured { millis })
}

/// The smallest thing that may stand before a store: for each room, one commit at a time, and what came meanwhile
/// goes with the next one.
struct Writers {
    store: SqliteStore,
    rooms: Vec<Writer>,
    /// Names each message.
    sent: AtomicU64,
}

struct Writer {
    room: RoomId,
    waiting: Mutex<Waiting>,
    /// Held by whoever commits what is waiting.
    committing: tokio::sync::Mutex<()>,
}

const SENDER: UserId = UserId(1);

impl Writers {
    async fn with(store: SqliteStore, rooms: usize) -> Anything<Self> {
        let mut writers = Vec::with_capacity(rooms);
        for n in 0..rooms {
            let new = NewRoom {
                name: n.to_string(),
                owner: (SENDER, "sender".into()),
                members: Vec::new(),
                is_group: true,
                is_ai_chat: false,
                greeting: None,
                now: Timestamp(0),
            };
            writers.push(Writer {
                room: store.create_room(new).await?.0.id,
                waiting: Mutex::default(),
                committing: tokio::sync::Mutex::default(),
            });
        }
        Ok(Self {
            store,
            rooms: writers,
            sent: AtomicU64::new(0),
        })
    }

    async fn send(self: Arc<Self>, room: usize, sender: usize) -> Result<(), Error> {
        let writer = &self.rooms[room];
        let (reply, mut answer) = oneshot::channel();
        let intent = Intent::Post(self.post(sender));
        writer.waiting().push((intent, reply));
        let turn = writer.committing.lock().await;
        if let Ok(sent) = answer.try_recv() {
            return sent;
        }
        let waiting = std::mem::take(&mut *writer.waiting());
        let (intents, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let batch = Batch {
            room: writer.room,
            now: Timestamp(1),
            intents,
        };
        let committed = self.store.commit(batch).await;
        for (at, reply) in replies.into_iter().enumerate() {
            let outcome = match &committed {
                Ok(committed) => committed.outcomes[at].as_ref().map(drop).map_err(Error::again),
                Err(error) => Err(error.again()),
            };
            // A sender that has gone away wants no answer.
            let _ = reply.send(outcome);
        }
        // Only now, so that whoever was waiting for this turn finds its answer.
        drop(turn);
        answer.await.map_err(|_| Error::internal("nobody answered"))?
    }

    fn post(&self, sender: usize) -> Post {
        let n = self.sent.fetch_add(1, Ordering::Relaxed);
        Post {
            author: SENDER,
            name: "sender".into(),
            client_id: Some(format!("{sender}-{n}")),
            body_hash: [7; 32],
            text:
                "a message of about a hundred bytes, as people write them when they are in a hurry and have more to do"
                    .into(),
            reply_to: None,
            meta: None,
            asks: Vec::new(),
            asks_if_alone: None,
        }
    }

    /// Every acknowledged message is in a log, once.
    async fn check(&self, acknowledged: usize) -> Anything<()> {
        let mut found = 0;
        for writer in &self.rooms {
            let head = self.store.room(writer.room).await?.ok_or("a room is gone")?;
            found += usize::try_from(head.seq.0 - 1)?;
        }
        if found == acknowledged {
            Ok(())
        } else {
            Err(format!("{acknowledged} messages were acknowledged and {found} are there").into())
        }
    }
}

impl Writer {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
