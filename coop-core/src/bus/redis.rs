//! A bus over Redis: publish and subscribe, a channel for each room and one for what concerns everybody.
//!
//! Two connections, each with a task that makes it again when it is lost: one publishes, what waits meanwhile going
//! together; the other is subscribed. Redis keeps nothing: whatever happens to it, engines go on by looking at the store.
//!
//! Redis is trusted as the database is: whoever may publish on it can show people what nobody has said, until they read it
//! again from the store. Servers on other databases may use the same one; a database that was copied together with its
//! identity, and is used beside the original, needs another.
//!
//! What is sent: the number of the sender, by which it knows its own, and a JSON array of [`BusItem`]s. An engine that
//! cannot read one (of another version) takes it for a gap.

use super::inbox::Inbox;
use super::{Bus, BusItem, BusState};
use crate::error::{Error, Result};
use crate::id::RoomId;
use crate::sync::lock;
use ::redis::aio::PubSubSink;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, Msg, RedisError, RedisResult};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many items wait to be sent; more are dropped.
const QUEUE: usize = 4_096;
/// The most items that are sent together.
const BATCH: usize = 256;
/// The most channels that are asked for at once.
const CHANNELS: usize = 512;
/// How long Redis may take to connect or to answer before it counts as down.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a quiet connection is tried.
const PING: Duration = Duration::from_secs(1);
/// How long to wait before connecting again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long an engine that begins waits for Redis: only to say more truly how things stand.
const START: Duration = Duration::from_secs(1);
/// How long the last items may take.
const FLUSH: Duration = Duration::from_secs(1);
/// How many digits the number of a sender has.
const SENDER: usize = 16;

/// A way to the other engines through Redis. It may be away at any time, also at the start.
pub struct RedisBus {
    client: Client,
    common: Arc<Common>,
    /// What is to be published, until somebody listens.
    unsent: Mutex<Option<mpsc::Receiver<BusItem>>>,
    tasks: TaskTracker,
}

/// What the two tasks and the engine share.
struct Common {
    sender: String,
    queue: mpsc::Sender<BusItem>,
    /// Something did not fit into the queue since it was last empty.
    full: AtomicBool,
    rooms: Mutex<Rooms>,
    /// There is news in `rooms`.
    changed: Notify,
    /// The subscription is lost: the other connection may be, too.
    doubt: Notify,
    health: watch::Sender<Health>,
    closing: CancellationToken,
}

/// The rooms that are followed.
#[derive(Default)]
struct Rooms {
    all: BTreeSet<RoomId>,
    /// Those that have become followed, or not any more, since Redis was told.
    news: BTreeMap<RoomId, bool>,
}

#[derive(Clone, Copy, Default)]
struct Health {
    publishes: bool,
    subscribed: bool,
    /// What the log says.
    told: Option<BusState>,
}

impl Health {
    fn state(self) -> BusState {
        match self.publishes && self.subscribed {
            true => BusState::Up,
            false => BusState::Down,
        }
    }
}

impl RedisBus {
    /// A bus over the Redis at this address, such as `redis://127.0.0.1:6379` or `rediss://…` for TLS. Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// `BadRequest` for an address that is none.
    pub fn new(url: &str) -> Result<Self> {
        let bad = |error| Error::bad_request("this is not the address of a Redis").with_source(error);
        let client = Client::open(url).map_err(bad)?;
        if let ConnectionAddr::TcpTls { .. } = client.get_connection_info().addr() {
            // Without one `rustls` panics when several are built in. If there is one already, that one stays.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let mut sender = [0; SENDER / 2];
        getrandom::fill(&mut sender).map_err(|error| Error::internal("no random numbers").with_source(error))?;
        let (queue, unsent) = mpsc::channel(QUEUE);
        Ok(Self {
            client,
            common: Arc::new(Common {
                sender: sender.iter().map(|byte| format!("{byte:02x}")).collect(),
                queue,
                full: AtomicBool::new(false),
                rooms: Mutex::default(),
                changed: Notify::new(),
                doubt: Notify::new(),
                health: watch::Sender::default(),
                closing: CancellationToken::new(),
            }),
            unsent: Mutex::new(Some(unsent)),
            tasks: TaskTracker::new(),
        })
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn listen(&self, store: &str) -> BoxStream<'static, BusItem> {
        let (inbox, heard) = Inbox::new();
        let unsent = lock(&self.unsent).take();
        if let Some(unsent) = unsent {
            let channels = Channels(format!("coop1:{store}:"));
            let publisher = Publisher {
                client: self.client.clone(),
                common: Arc::clone(&self.common),
                channels: channels.clone(),
                unsent,
            };
            let subscriber = Subscriber {
                client: self.client.clone(),
                common: Arc::clone(&self.common),
                channels,
                inbox,
            };
            self.tasks.spawn(publisher.run());
            self.tasks.spawn(subscriber.run());
            self.tasks.close();
            let mut health = self.common.health.subscribe();
            let _ = timeout(START, health.wait_for(|health| health.state() == BusState::Up)).await;
        }
        heard
    }

    fn publish(&self, item: BusItem) {
        // What waited while Redis was away would come late and help nobody.
        if matches!(item, BusItem::Gap) || !self.common.health.borrow().publishes {
            return;
        }
        if self.common.queue.try_send(item).is_err() && !self.common.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("Redis takes less than there is to say: other servers will see some of it later");
        }
    }

    fn follow(&self, room: RoomId) {
        self.common.change(room, true);
    }

    fn unfollow(&self, room: RoomId) {
        self.common.change(room, false);
    }

    fn state(&self) -> BusState {
        self.common.health.borrow().state()
    }

    async fn close(&self) {
        self.common.closing.cancel();
        if timeout(FLUSH, self.tasks.wait()).await.is_err() {
            tracing::debug!("Redis did not take the last that was said");
        }
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.common.closing.cancel();
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Common {
    fn change(&self, room: RoomId, follow: bool) {
        let mut rooms = lock(&self.rooms);
        match follow {
            true => rooms.all.insert(room),
            false => rooms.all.remove(&room),
        };
        rooms.news.insert(room, follow);
        drop(rooms);
        self.changed.notify_one();
    }

    /// Every room there is to follow, whatever Redis was told before.
    fn all_rooms(&self) -> Vec<RoomId> {
        let mut rooms = lock(&self.rooms);
        rooms.news.clear();
        rooms.all.iter().copied().collect()
    }

    /// Those that Redis is to be asked for, and not any more.
    fn news(&self) -> (Vec<RoomId>, Vec<RoomId>) {
        let news = std::mem::take(&mut lock(&self.rooms).news);
        let (begun, ended): (Vec<_>, Vec<_>) = news.into_iter().partition(|(_, followed)| *followed);
        let ids = |rooms: Vec<(RoomId, bool)>| rooms.into_iter().map(|(room, _)| room).collect();
        (ids(begun), ids(ended))
    }

    /// Notes how one of the connections is, and logs what becomes of the whole by that.
    fn note(&self, why: Option<&RedisError>, change: impl FnOnce(&mut Health)) {
        self.health.send_modify(|health| {
            change(health);
            let now = health.state();
            if health.told.replace(now) == Some(now) {
                return;
            }
            match (now, why) {
                (BusState::Up, _) => tracing::info!("Redis is there"),
                (BusState::Down, Some(why)) => {
                    tracing::warn!(error = %why, "Redis is away: other servers are seen in the database, within 2 s");
                }
                // One of two connections is there, and the other is coming.
                (BusState::Down, None) => health.told = None,
            }
        });
    }

    /// Waits before a connection is made again. False if that is not wanted any more.
    async fn pause(&self, wait: &mut Duration) -> bool {
        let now = *wait;
        *wait = (now * 2).min(AGAIN.1);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => false,
            () = sleep(now) => true,
        }
    }
}

/// The names of the channels.
#[derive(Clone)]
struct Channels(String);

impl Channels {
    fn of(&self, room: Option<RoomId>) -> String {
        match room {
            Some(room) => format!("{}room:{room}", self.0),
            None => format!("{}all", self.0),
        }
    }
}

fn late<E>(_: E) -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Says what this engine has to say.
struct Publisher {
    client: Client,
    common: Arc<Common>,
    channels: Channels,
    unsent: mpsc::Receiver<BusItem>,
}

impl Publisher {
    async fn run(mut self) {
        let (common, mut wait) = (Arc::clone(&self.common), AGAIN.0);
        loop {
            let lost = match self.publish(&mut wait).await {
                Ok(()) => return,
                Err(lost) => lost,
            };
            common.note(Some(&lost), |health| health.publishes = false);
            if !common.pause(&mut wait).await {
                return;
            }
            while self.unsent.try_recv().is_ok() {}
        }
    }

    /// Until the connection is lost, or there will be no more.
    async fn publish(&mut self, wait: &mut Duration) -> RedisResult<()> {
        let closing = self.common.closing.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = tokio::select! {
            biased;
            () = closing.cancelled() => return Ok(()),
            connected = timeout(PATIENCE, connecting) => connected.map_err(late)??,
        };
        ::redis::cmd("PING").query_async::<()>(&mut connection).await?;
        *wait = AGAIN.0;
        self.common.note(None, |health| health.publishes = true);
        let mut batch = Vec::new();
        loop {
            let last = tokio::select! {
                biased;
                _ = self.unsent.recv_many(&mut batch, BATCH) => false,
                () = closing.cancelled() => true,
                () = self.common.doubt.notified() => false,
                () = sleep(PING) => false,
            };
            if last && batch.is_empty() {
                return Ok(());
            }
            if self.unsent.is_empty() {
                self.common.full.store(false, Ordering::Relaxed);
            }
            if batch.is_empty() {
                ::redis::cmd("PING").query_async::<()>(&mut connection).await?;
                continue;
            }
            let mut by_room: BTreeMap<Option<RoomId>, Vec<BusItem>> = BTreeMap::new();
            for item in batch.drain(..) {
                by_room.entry(item.room()).or_default().push(item);
            }
            let mut pipe = ::redis::pipe();
            for (room, items) in by_room {
                let mut payload = self.common.sender.clone().into_bytes();
                if let Err(error) = serde_json::to_writer(&mut payload, &items) {
                    tracing::error!(%error, "something cannot be said over the bus");
                    continue;
                }
                pipe.cmd("PUBLISH").arg(self.channels.of(room)).arg(payload).ignore();
            }
            pipe.query_async::<()>(&mut connection).await?;
        }
    }
}

/// Hears what others say.
struct Subscriber {
    client: Client,
    common: Arc<Common>,
    channels: Channels,
    inbox: Arc<Inbox>,
}

impl Subscriber {
    async fn run(self) {
        let mut wait = AGAIN.0;
        loop {
            let lost = tokio::select! {
                biased;
                () = self.common.closing.cancelled() => return,
                lost = self.subscribe(&mut wait) => lost,
            };
            if let Err(lost) = lost {
                self.common.note(Some(&lost), |health| health.subscribed = false);
                self.common.doubt.notify_one();
            }
            if !self.common.pause(&mut wait).await {
                return;
            }
        }
    }

    /// Until the connection is lost.
    async fn subscribe(&self, wait: &mut Duration) -> RedisResult<()> {
        let connected = timeout(PATIENCE, self.client.get_async_pubsub()).await;
        let (sink, mut heard) = connected.map_err(late)??.split();
        let hear = async {
            while let Some(message) = heard.next().await {
                self.hear(&message);
            }
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
        };
        tokio::select! {
            biased;
            lost = hear => lost,
            lost = self.tend(sink, wait) => lost,
        }
    }

    /// Keeps Redis told of what to send, and sees that it is there.
    async fn tend(&self, mut sink: PubSubSink, wait: &mut Duration) -> RedisResult<()> {
        let all = [self.channels.of(None)];
        timeout(PATIENCE, sink.subscribe(&all)).await.map_err(late)??;
        self.begin(&mut sink, &self.common.all_rooms()).await?;
        *wait = AGAIN.0;
        self.common.note(None, |health| health.subscribed = true);
        self.inbox.put_gap();
        loop {
            let ping = tokio::select! {
                biased;
                () = self.common.changed.notified() => false,
                () = sleep(PING) => true,
            };
            if ping {
                timeout(PATIENCE, sink.ping::<::redis::Value>()).await.map_err(late)??;
                continue;
            }
            let (begun, ended) = self.common.news();
            for rooms in ended.chunks(CHANNELS) {
                let channels = self.channels_of(rooms);
                timeout(PATIENCE, sink.unsubscribe(&channels)).await.map_err(late)??;
            }
            self.begin(&mut sink, &begun).await?;
            if !begun.is_empty() {
                self.inbox.put_gap();
            }
        }
    }

    async fn begin(&self, sink: &mut PubSubSink, rooms: &[RoomId]) -> RedisResult<()> {
        for rooms in rooms.chunks(CHANNELS) {
            let channels = self.channels_of(rooms);
            timeout(PATIENCE, sink.subscribe(&channels)).await.map_err(late)??;
        }
        Ok(())
    }

    fn channels_of(&self, rooms: &[RoomId]) -> Vec<String> {
        rooms.iter().map(|room| self.channels.of(Some(*room))).collect()
    }

    fn hear(&self, message: &Msg) {
        let Some((sender, items)) = message.get_payload_bytes().split_at_checked(SENDER) else {
            return self.inbox.put_gap();
        };
        if sender == self.common.sender.as_bytes() {
            return;
        }
        match serde_json::from_slice::<Vec<BusItem>>(items) {
            Ok(items) => items.into_iter().for_each(|item| self.inbox.put(item)),
            Err(error) => {
                tracing::debug!(%error, "a server of another version says something");
                self.inbox.put_gap();
            }
        }
    }
}
