//! One connection: what its task and the rooms share, the commands that wait, and how it ends.
//!
//! Its task is three loops in one: [receiving](super::receive), [acting](super::act) and
//! [delivering](super::deliver). None of them keeps the others waiting: while a command waits for the store, frames
//! are read and delivered. An idle connection holds no buffer and, but for its token's end, no timer.

use super::act::Actor;
use super::outbox::TryWrite;
use super::pulse;
use super::receive::Rates;
use super::wire::{Slot, Wire};
use crate::api::House;
use crate::dialect::{Asked, Dialect, Farewell, Outbound, Ref, Welcome};
use crate::frame::{self, Violation};
use crate::meters::Meters;
use bytes::Bytes;
use coop_core::live::{Level, Reader};
use coop_core::{Attachment, Error, ErrorKind, HintKind, RoomEntry, RoomId, User, UserId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// While so many commands wait, no more bytes are read. One read may bring some beyond it.
const MAX_COMMANDS: usize = 64;
/// How much is read at once, into a buffer that all connections of a thread share.
const READ: usize = 16 * 1024;
/// How long commands may go on whose client has gone.
const LAST_COMMANDS: Duration = Duration::from_secs(10);
/// How long the last frame may take, and the client's answer to it.
const GOODBYE: Duration = Duration::from_secs(1);
/// About when somebody who is sent away is to come back.
const COME_BACK: Duration = Duration::from_secs(1);

thread_local! {
    pub(super) static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What a connection's task and the rooms share.
pub(super) struct Connection {
    /// Written to by whoever holds `wire`, read by the connection's task alone.
    pub(super) socket: TcpStream,
    /// Whose it is.
    pub(super) user: UserId,
    /// What is spoken.
    pub(super) dialect: Dialect,
    /// When its token ends. Moved by its own task alone.
    until: Mutex<Instant>,
    /// Where it stands and what goes out first. Rooms only try this lock, but for telling that one is gone;
    /// their receipts wait for it.
    wire: Mutex<Wire>,
    /// Set when something could not be offered; cleared by the task before it looks at its rooms.
    behind: AtomicBool,
    /// Wakes delivering.
    wake: Notify,
    /// Tells that a gained room has been entered, or not.
    settled: Notify,
    /// Tells that there is a reason to end.
    closed: Notify,
    /// Commands that wait. Never locked together with `wire`.
    inbox: Mutex<Inbox>,
    /// Wakes acting.
    arrived: Notify,
    /// Wakes receiving, when commands have been taken from a full inbox.
    taken: Notify,
    /// Why it should end, if somebody else has found a reason. The first stands; `closed` is told after.
    reason: OnceLock<Ending>,
    /// What its client may still do.
    pub(super) rates: Mutex<Rates>,
    /// For how many beats of the pulse the client has said nothing.
    pub(super) silent: AtomicU8,
    /// Its name in the pulse.
    beat: u64,
    pub(super) house: Arc<House>,
}

#[derive(Default)]
struct Inbox {
    commands: VecDeque<Asked>,
    /// Nothing more will come.
    ended: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client closed, with this code.
    Closed(Option<u16>),
    /// The client is not there any more.
    Lost,
    /// The client broke the protocol.
    Violated(Violation),
    /// It is sent away.
    Sent(Farewell),
}

impl Ending {
    pub(super) const CLOSING: Self = Self::Sent(Farewell::Closing);
    pub(super) const SLOW: Self = Self::Sent(Farewell::Slow);
    pub(super) const UNAVAILABLE: Self = Self::Sent(Farewell::Unavailable);

    /// The word for it among the figures.
    fn word(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Lost => "lost",
            Self::Violated(_) => "violated",
            Self::Sent(farewell) => farewell.words(),
        }
    }

    /// What the client is told, if it can be told anything.
    fn last_frames(&self, dialect: &Dialect) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Lost => return None,
            // 1005 stands for "no code", and makes the frame an empty one.
            Self::Closed(code) => frame::close(&mut out, code.unwrap_or(1005), ""),
            Self::Violated(violation) => frame::close(&mut out, violation.close_code(), &violation.to_string()),
            Self::Sent(reason) => {
                let (reason, code) = (*reason, dialect.close_code(*reason));
                out = dialect.encode(&Outbound::Bye {
                    reason,
                    code,
                    again: come_back(),
                });
                frame::close(&mut out, code, reason.words());
            }
        }
        Some(out)
    }
}

impl TryWrite for Connection {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.socket.try_write(bytes)?;
        self.house.meters.sent.increment(taken as u64);
        Ok(taken)
    }
}

/// Serves a socket until it ends.
pub(super) async fn run(
    house: Arc<House>,
    user: User,
    dialect: Dialect,
    socket: TcpStream,
    ahead: Bytes,
    until: Instant,
) {
    let connection = Arc::new(Connection::new(socket, user.id(), dialect, until, Arc::clone(&house)));
    house.pulse.feel(&connection);
    if house.pulse.is_still() {
        let (pulse, closing) = (Arc::downgrade(&house.pulse), house.closing.clone());
        house
            .sockets
            .spawn(pulse::beat(pulse, house.limits.ping_every, closing));
    }
    let encoder = connection.dialect.encoder();
    let attachment = user.attach(Arc::clone(&connection) as Arc<dyn Reader>, encoder);
    let ending = match Box::pin(connection.begin(&user, &attachment)).await {
        Ok(()) => {
            tokio::select! {
                biased;
                () = house.closing.cancelled() => Ending::CLOSING,
                () = connection.closed.notified() => connection.reason.get().cloned().unwrap_or(Ending::CLOSING),
                () = connection.until_expired() => Ending::Sent(Farewell::Expired),
                ending = connection.serve(&attachment, ahead) => ending,
            }
        }
        Err(ending) => ending,
    };
    tracing::debug!(?ending, "a socket ends");
    Meters::closed(ending.word());
    connection.say_absent(&attachment);
    // From here on no room writes to it.
    drop(attachment);
    Box::pin(connection.say_goodbye(&ending)).await;
}

/// When somebody who is sent away is to come back: not all at the same moment.
fn come_back() -> Duration {
    let random = getrandom::u32().unwrap_or_default();
    COME_BACK / 2 + COME_BACK.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.house.pulse.forget(self.beat);
    }
}

impl Connection {
    fn new(socket: TcpStream, user: UserId, dialect: Dialect, until: Instant, house: Arc<House>) -> Self {
        Self {
            socket,
            user,
            dialect,
            until: Mutex::new(until),
            wire: Mutex::default(),
            behind: AtomicBool::new(false),
            wake: Notify::new(),
            settled: Notify::new(),
            closed: Notify::new(),
            inbox: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
            reason: OnceLock::new(),
            rates: Mutex::default(),
            silent: AtomicU8::new(0),
            beat: house.pulse.name(),
            house,
        }
    }

    /// Enters all rooms of the user, whose token must still be good: what ended it may have come between the look at
    /// the token and the attaching.
    async fn begin(&self, user: &User, attachment: &Attachment) -> Result<(), Ending> {
        match user.is_token_good().await {
            Ok(true) => self.enter_all(user, attachment).await,
            Ok(false) => Err(Ending::Sent(Farewell::LoggedOut)),
            Err(error) if error.kind() == ErrorKind::Closed => Err(Ending::CLOSING),
            Err(_) => Err(Ending::UNAVAILABLE),
        }
    }

    /// The first words to the client.
    pub(super) async fn welcome(&self, user: &User, rooms: &[RoomEntry]) -> Result<(), Ending> {
        let welcome = self.encode(&Outbound::Ready(Welcome {
            user: user.account(),
            rooms,
            bots: &self.house.engine.bot_names(),
            frame_bytes: self.house.limits.message_bytes,
            bounds: self.house.engine.bounds(),
            now: self.house.engine.now(),
        }));
        self.write_when(&welcome, |_| true).await
    }

    async fn until_expired(&self) {
        loop {
            let until = *self.until();
            sleep_until(until).await;
            if *self.until() <= until {
                return;
            }
        }
    }

    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it go on for at least so long.
    pub(super) fn stay_for(&self, left: Duration) {
        let until = Instant::now() + left.min(super::CENTURY);
        let mut kept = self.until();
        *kept = until.max(*kept);
    }

    // What is shared.

    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same without waiting.
    pub(super) fn try_wire(&self) -> Option<MutexGuard<'_, Wire>> {
        match self.wire.try_lock() {
            Ok(wire) => Some(wire),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Remembers that something could not be offered, and wakes the task.
    pub(super) fn fall_behind(&self) {
        if !self.behind.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Forgets it, before the task looks at its rooms: what comes after this wakes it again.
    pub(super) fn catch_up_begins(&self) {
        self.behind.store(false, Ordering::Release);
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Its name in the pulse.
    pub(super) fn name(&self) -> u64 {
        self.beat
    }

    /// Ends it, for a reason that its own task does not see.
    pub(super) fn close(&self, reason: Ending) {
        let _ = self.reason.set(reason);
        self.closed.notify_one();
    }

    /// One beat of the pulse: a client that says nothing is pinged, and given up when it has not answered twice.
    pub(super) fn beat(&self) {
        // Whoever holds it writes at this very moment; the next beat will do.
        let Some(mut wire) = self.try_wire() else { return };
        match self.silent.fetch_add(1, Ordering::Relaxed) {
            0 => {}
            1 | 2 => {
                let mut ping = Vec::new();
                frame::ping(&mut ping, b"");
                let wire = &mut *wire;
                let _ = wire.outbox.reply(self, &ping);
                if !wire.outbox.is_clear() {
                    self.wake();
                }
            }
            _ => self.close(Ending::Sent(Farewell::Silent)),
        }
    }

    /// A gained room has been entered, or it turned out that it cannot be.
    pub(super) fn settle(&self) {
        self.wire().entered();
        self.settled.notify_waiters();
    }

    /// Where it stands in a room, waiting until one that was just gained is entered. `None` for rooms the user is not
    /// in.
    pub(super) async fn slot(&self, room: RoomId) -> Option<Slot> {
        loop {
            // Made before the look, so that what happens in between is not missed.
            let settled = self.settled.notified();
            {
                let mut wire = self.wire();
                if let Some(slot) = wire.slot(room) {
                    return Some(slot.clone());
                }
                if !wire.is_gaining(room) {
                    return None;
                }
            }
            settled.await;
        }
    }

    // Waiting for the socket.

    /// Waits until nothing is to go out before frames.
    pub(super) async fn until_clear(&self) -> Result<(), Ending> {
        loop {
            {
                let wire = &mut *self.wire();
                if wire.outbox.flush(self) {
                    return Ok(());
                }
            }
            self.until_writable().await?;
        }
    }

    /// Waits until the socket takes something, which it must within the patience.
    pub(super) async fn until_writable(&self) -> Result<(), Ending> {
        let blocked_since = || {
            let wire = self.wire();
            (!wire.outbox.is_broken()).then(|| wire.outbox.blocked_since().unwrap_or_else(Instant::now))
        };
        let since = blocked_since().ok_or(Ending::Lost)?;
        match timeout_at(since + self.house.limits.write_timeout, self.socket.writable()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ending::Lost),
            // Somebody else may have written meanwhile.
            Err(_) if blocked_since().ok_or(Ending::Lost)? > since => Ok(()),
            Err(_) => Err(Ending::SLOW),
        }
    }

    /// Answers the client. One that asks on without reading is too slow.
    pub(super) fn reply(&self, frame: &[u8]) -> Result<(), Ending> {
        if frame.is_empty() {
            return Ok(());
        }
        let wire = &mut *self.wire();
        let replied = wire.outbox.reply(self, frame);
        if !wire.outbox.is_clear() {
            self.wake();
        }
        replied.map_err(|_| Ending::SLOW)
    }

    pub(super) fn encode(&self, said: &Outbound<'_>) -> Vec<u8> {
        self.dialect.encode(said)
    }

    /// Says something short.
    pub(super) fn say(&self, said: &Outbound<'_>) -> Result<(), Ending> {
        self.reply(&self.encode(said))
    }

    /// Tells the client why something was not done.
    pub(super) fn tell(&self, by: Option<&Ref>, error: &Error) -> Result<(), Ending> {
        self.say(&Outbound::Refused { by, error })
    }

    // Receiving.

    /// Receives, acts and delivers until one of them ends. What the client asked before it left is still done.
    async fn serve(&self, attachment: &Attachment, ahead: Bytes) -> Ending {
        let mut act = pin!(Actor::new(self, attachment).run());
        let mut receive = pin!(self.receive(ahead));
        let ending = tokio::select! {
            biased;
            ending = self.deliver(attachment) => {
                if ending == Ending::Lost {
                    // Nothing can be written any more, but what it said last may not have been read yet. In a box, as all
                    // that comes at the end: a connection does not keep room for that.
                    let last = async {
                        tokio::select! {
                            _ = &mut receive => {}
                            ending = &mut act => return ending,
                        }
                        self.end_inbox();
                        act.await
                    };
                    let _ = Box::pin(timeout(LAST_COMMANDS, last)).await;
                }
                return ending;
            }
            acted = &mut act => return acted.err().unwrap_or(Ending::Lost),
            ending = &mut receive => ending,
        };
        self.end_inbox();
        let _ = Box::pin(timeout(LAST_COMMANDS, act)).await;
        ending
    }

    // Commands between receiving and acting.

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until not too many commands wait.
    pub(super) async fn until_taken(&self) {
        while self.inbox().commands.len() >= MAX_COMMANDS {
            self.taken.notified().await;
        }
    }

    fn end_inbox(&self) {
        self.inbox().ended = true;
        self.arrived.notify_one();
    }

    pub(super) fn put(&self, asked: Asked) {
        self.inbox().commands.push_back(asked);
        self.arrived.notify_one();
    }

    /// The next command; `None` when no more will come.
    pub(super) async fn next_command(&self) -> Option<Asked> {
        loop {
            {
                let mut inbox = self.inbox();
                let next = inbox.commands.pop_front();
                if next.is_some() {
                    self.taken.notify_one();
                    return next;
                }
                inbox.commands = VecDeque::new();
                if inbox.ended {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    // The end.

    /// Tells the rooms that were open here that they are not any more.
    fn say_absent(&self, attachment: &Attachment) {
        let open: Vec<_> = {
            let wire = self.wire();
            let full = wire.slots().iter().filter(|slot| slot.level == Level::Full);
            full.map(|slot| slot.feed.clone()).collect()
        };
        for feed in open {
            attachment.hint(&feed, HintKind::Presence { here: false });
        }
    }

    /// Sends the last frame and waits, but not long nor for much, until the client has closed too: closing first could destroy what
    /// it has not read yet.
    async fn say_goodbye(&self, ending: &Ending) {
        let Some(last_frames) = ending.last_frames(&self.dialect) else {
            return;
        };
        let last = async {
            {
                let wire = &mut *self.wire();
                wire.outbox.finish(self, &last_frames);
            }
            self.until_clear().await?;
            if matches!(ending, Ending::Closed(_)) {
                return Ok(());
            }
            // One that goes on sending would cost as much as if it were served.
            let mut left = self.house.limits.message_bytes;
            loop {
                self.socket.readable().await.map_err(|_| Ending::Lost)?;
                let read = BUFFER.with_borrow_mut(|buffer| self.socket.try_read(buffer));
                match read {
                    Ok(0) => return Ok(()),
                    Ok(length) => left = left.checked_sub(length).ok_or(Ending::Lost)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Err(Ending::Lost),
                }
                tokio::task::consume_budget().await;
            }
        };
        let said = timeout(GOODBYE, last).await;
        if *ending == Ending::SLOW && !matches!(said, Ok(Ok(()))) {
            // Nobody will read it: what the system still holds for this client need not be kept either.
            let _ = self.socket.set_zero_linger();
        }
    }
}
