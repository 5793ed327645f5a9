//! How many acknowledged messages a second an engine takes on a SQLite file, and on a PostgreSQL server: every sender sends one message, waits until
//! it is on disk, and sends the next. First it says how fast this disk is, without which no other number means
//! anything. Nobody reads the rooms: what delivery costs is measured elsewhere.
//!
//! `cargo bench -p coop-benches --bench store`. `COOP_BENCH_SECONDS` is the length of each row (3), `COOP_BENCH_DIR`
//! the folder whose disk is measured (the system's temporary folder), `COOP_BENCH_DURABILITY=normal` leaves out the
//! wait for the disk. `COOP_BENCH_POSTGRES_URL` names an empty database, whose server is measured as well.

use coop_core::store::Store;
use coop_core::store::postgres::PostgresStore;
use coop_core::store::sqlite::{Durability, SqliteOptions, SqliteStore};
use coop_core::{Engine, Error, Room, RoomDraft};
use std::env;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A disk that is faster than this, in microseconds, keeps nothing through a power cut, or is no disk.
const IMPLAUSIBLE: f64 = 200.0;
/// What 256 senders in one room must reach of a lone one's rate.
const TIMES: f64 = 10.0;
const TEXT: &str =
    "a message of about a hundred bytes, as people write them when they are in a hurry and have more to do";

#[tokio::main]
async fn main() -> Anything<()> {
    let seconds = env::var("COOP_BENCH_SECONDS").map_or(Ok(3.0), |text| text.parse())?;
    let length = Duration::from_secs_f64(seconds);
    let folder = env::var_os("COOP_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let micros = fdatasync(folder.path())?;
    println!("disk: {micros:.0} µs for fdatasync after 4 KiB (median of 200)");
    if micros < IMPLAUSIBLE {
        println!("THIS DISK DOES NOT WAIT: under 200 µs is a cache or memory, and the figures below flatter");
    }
    measure_all("SQLite", length, async |row| {
        open(&folder.path().join(format!("{row}.db"))).await
    })
    .await?;
    if let Ok(url) = env::var("COOP_BENCH_POSTGRES_URL") {
        let open = async |_| {
            let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&url).await?);
            Ok(store)
        };
        measure_all("PostgreSQL", length, open).await?;
    }
    Ok(())
}

async fn measure_all(
    database: &str,
    length: Duration,
    open: impl AsyncFn(usize) -> Anything<Arc<dyn Store>>,
) -> Anything<()> {
    println!(
        "\n{database}\n{:>6} {:>8} {:>10} {:>10} {:>10}",
        "rooms", "senders", "acks/s", "p50 ms", "p99 ms"
    );
    let mut rates = Vec::new();
    for (row, (rooms, senders)) in [(1, 1), (1, 16), (1, 256), (256, 256)].into_iter().enumerate() {
        let engine = Engine::builder_on(open(row).await?).build().await?;
        let seats = seats(&engine, row, rooms, senders).await?;
        let before = logged(&seats, rooms).await?;
        let row = measure(&seats, length).await?;
        let (rate, p50, p99) = (row.rate(length), row.percentile(50), row.percentile(99));
        println!("{rooms:>6} {senders:>8} {rate:>10.0} {p50:>10.2} {p99:>10.2}");
        // Every acknowledged message is in a log, once.
        let found = logged(&seats, rooms).await? - before;
        if usize::try_from(found)? != row.millis.len() {
            return Err(format!("{} messages were acknowledged and {found} are there", row.millis.len()).into());
        }
        rates.push(rate);
        engine.close(Duration::from_secs(5)).await;
    }
    let times = rates[2] / rates[0];
    let verdict = if times >= TIMES { "as it must" } else { "TOO FEW" };
    println!("\n256 senders in one room reach {times:.1} times the rate of one, of {TIMES} wanted: {verdict}");
    Ok(())
}

async fn open(path: &Path) -> Anything<Arc<dyn Store>> {
    let mut options = SqliteOptions::default();
    if env::var("COOP_BENCH_DURABILITY").is_ok_and(|word| word == "normal") {
        options.durability = Durability::Normal;
    }
    Ok(Arc::new(SqliteStore::open_with(path, options).await?))
}

/// Where each sender sends: a user of its own, in one of the rooms.
async fn seats(engine: &Engine, row: usize, rooms: usize, senders: usize) -> Anything<Vec<Room>> {
    let mut users = Vec::with_capacity(senders);
    for n in 0..senders {
        users.push(engine.create_user(&format!("sender{row}.{n}")).await?);
    }
    let mut seats = Vec::with_capacity(senders);
    for n in 0..rooms {
        let inside: Vec<_> = users.iter().skip(n).step_by(rooms).cloned().collect();
        let draft = RoomDraft::named(format!("room {n}")).with(inside.iter().skip(1).cloned());
        let room = inside[0].create_room(draft).await?;
        for user in &inside {
            seats.push(user.room(room.id()).await?);
        }
    }
    Ok(seats)
}

/// How many events the rooms' logs have together.
async fn logged(seats: &[Room], rooms: usize) -> Anything<i64> {
    let mut all = 0;
    for room in seats.iter().step_by(seats.len() / rooms) {
        all += room.entry().await?.seq.0;
    }
    Ok(all)
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

/// Lets senders send as fast as they are answered.
async fn measure(seats: &[Room], length: Duration) -> Anything<Measured> {
    let end = Instant::now() + length;
    let sender = |room: Room| {
        tokio::spawn(async move {
            let mut millis = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                room.send(TEXT).await?;
                millis.push(start.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, Error>(millis)
        })
    };
    let senders: Vec<_> = seats.iter().cloned().map(sender).collect();
    let mut millis = Vec::new();
    for sender in senders {
        millis.extend(sender.await??);
    }
    millis.sort_by(f64::total_cmp);
    Ok(Measured { millis })
}
