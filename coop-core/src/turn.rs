//! One turn: the bot's future, its limits, its checkpoints and its one end.
//!
//! The bot runs in a task of its own, so that a panic or a poll that does not return is its own affair. A turn needs
//! nobody to listen.

use crate::bot::{BotError, BotErrorKind, BotLimits, ReplyWriter, Sink, Turn};
use crate::bus::BusItem;
use crate::command;
use crate::context::{self, ContextInput, SelfPrefix};
use crate::engine::{RegisteredBot, Running, Shared};
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::id::{MessageId, RoomId, TurnId, UserId};
use crate::live::{LiveRoom, Tape};
use crate::metrics::Meters;
use crate::model::{
    Context, Finish, FinishReason, Range, Receipt, TurnEnd, TurnError, TurnInfo, TurnStatus, Usage, WhoMayStop,
};
use crate::mutant::{Mutant, removed};
use crate::store::{Intent, Outcome};
use crate::sync::lock;
use crate::time::Timestamp;
use crate::writer::submit;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How long a bot that was stopped may take to be dropped before its turn ends without waiting for that.
const DROP: Duration = Duration::from_secs(1);
/// The most messages read for a context. A builder sees more than it may use, so that where it begins holds still.
const HISTORY: u32 = 400;
/// How long to wait before an end that could not be committed is tried again, at first and at most: no longer than the text
/// of an answer may wait to be kept.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// Runs a turn that has started, up to its committed end.
pub(crate) async fn run(shared: Arc<Shared>, live: Arc<LiveRoom>, running: Arc<Running>, started: Arc<Event>) {
    let Event::TurnStarted { turn, bot, message, .. } = &*started else {
        return;
    };
    // Without one it was over before it was known here (its start was in doubt) and is stopped already: there is nothing
    // to write, but the next turn is still to be proposed together with its end.
    let tape = live.tape(message.id).unwrap_or_else(|| Tape::new(Arc::clone(message)));
    let answer = Answer {
        shared: &shared,
        live: &live,
        running: &running,
        tape: &tape,
        turn: *turn,
        unkept: Mutex::default(),
    };
    let meters = &shared.meters;
    meters.turns_running.increment(1);
    let span = tracing::info_span!("turn", room = %live.id, bot);
    // A panic here is one in the store or the context, and must cost this turn only, as one in the bot does.
    let end = AssertUnwindSafe(answer.stream(bot))
        .catch_unwind()
        .instrument(span)
        .await;
    let end = end.unwrap_or_else(|_| failed(BotError::new(BotErrorKind::Internal, "The bot failed.")));
    let text = if removed(Mutant::TapeCloses) {
        tape.text()
    } else {
        tape.close()
    };
    Meters::turn_ended(bot, &end);
    answer.end(bot, end, text).await;
    meters.turns_running.decrement(1);
    shared.end_turn(*turn);
    shared.tell_end(*turn);
}

struct Answer<'a> {
    shared: &'a Arc<Shared>,
    live: &'a Arc<LiveRoom>,
    running: &'a Running,
    tape: &'a Arc<Tape>,
    turn: TurnId,
    /// What the bot has read, until that is kept.
    unkept: Mutex<Option<Arc<Receipt>>>,
}

/// What the other engines have been told of an answer.
struct Told {
    bytes: usize,
    at: Option<Instant>,
}

/// What a checkpoint has done.
struct Kept {
    /// So many bytes are in the store.
    bytes: usize,
    usage: Option<Usage>,
    /// Why the turn must not go on, if it must not.
    cut: Option<TurnError>,
}

impl Answer<'_> {
    /// Lets the bot write until it is done or something ends it.
    async fn stream(&self, handle: &str) -> TurnEnd {
        let bots = self.shared.bots();
        let Some(bot) = bots.get(handle) else {
            return TurnEnd::failed("unavailable", "This bot is not here any more.");
        };
        let limits = bot.profile.limits;
        let deadline = Instant::now() + limits.time;
        let prepared = tokio::select! {
            biased;
            () = self.running.stop.cancelled() => return self.cause(),
            () = sleep_until(deadline) => return timed_out(),
            prepared = self.prepare(bot) => prepared,
        };
        let turn = match prepared {
            Ok(turn) => turn,
            Err(error) => return failed(error),
        };
        *lock(&self.unkept) = Some(Arc::new(turn.context.receipt()));
        let meter = bot.profile.metered.then(|| estimate(&turn.context));
        let sink = Arc::new(TurnSink {
            live: Arc::clone(self.live),
            tape: Arc::clone(self.tape),
            prefix: Mutex::new(SelfPrefix::new(&bot.profile.handle, &bot.profile.name)),
            limits,
            full: CancellationToken::new(),
            usage: Mutex::new(None),
            grown: self.shared.bus().map(|_| Notify::new()),
            first: Mutex::new(Some((handle.to_owned(), Instant::now()))),
        });
        let mut told = Told {
            bytes: self.tape.len(),
            at: None,
        };
        let mut reply = Dropped(tokio::spawn({
            let (bot, out) = (
                Arc::clone(&bot.bot),
                ReplyWriter::new(Arc::clone(&sink) as Arc<dyn Sink>),
            );
            async move { bot.reply(turn, out).await }
        }));
        let end = self.wait(&mut reply, &sink, meter, deadline, &mut told).await;
        reply.stop().await;
        sink.finish();
        self.tell(&mut told);
        TurnEnd {
            usage: self.usage(&sink, meter),
            ..end
        }
    }

    /// What has been used so far: as the bot says, else as it is estimated if the bot is metered.
    fn usage(&self, sink: &TurnSink, meter: Option<u32>) -> Option<Usage> {
        let said = *lock(&sink.usage);
        said.or_else(|| {
            Some(Usage {
                input: Some(meter?),
                output: Some(context::estimate(&self.tape.text())),
                estimated: true,
                ..Usage::default()
            })
        })
    }

    /// Tells the other engines what has been written since they were told.
    fn tell(&self, told: &mut Told) {
        told.at = Some(Instant::now());
        let (room, message) = (self.live.id, self.tape.message.id);
        let more = self.tape.after(told.bytes);
        if let Some(text) = more.filter(|text| !text.is_empty()) {
            let offset = told.bytes as u64;
            told.bytes += text.len();
            self.shared.publish(|| BusItem::Delta {
                room,
                message,
                offset,
                text,
            });
        }
    }

    async fn wait(
        &self,
        reply: &mut Dropped,
        sink: &TurnSink,
        meter: Option<u32>,
        deadline: Instant,
        others: &mut Told,
    ) -> TurnEnd {
        let every = self.shared.settings.checkpoint;
        let mut checkpoints = interval_at(Instant::now() + every, every);
        checkpoints.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut kept, mut charged) = (0, None);
        let mut keeping: Option<JoinHandle<Option<Kept>>> = None;
        let pace = self.shared.settings.pace.deltas;
        let mut untold = false;
        loop {
            let due = others.at.map_or_else(Instant::now, |at| at + pace);
            tokio::select! {
                biased;
                () = self.running.stop.cancelled() => return self.cause(),
                () = sink.full.cancelled() => return done(Finish::length()),
                () = sleep_until(deadline) => return timed_out(),
                result = &mut reply.0 => return match result {
                    Ok(Ok(_)) if sink.full.is_cancelled() => done(Finish::length()),
                    Ok(Ok(finish)) => done(finish),
                    Ok(Err(error)) => failed(error),
                    Err(panic) => failed(
                        BotError::new(BotErrorKind::Internal, "The bot failed.").with_detail(panic.to_string()),
                    ),
                },
                done = told(&mut keeping) => {
                    // What was refused counts as not kept, and is handed over again though nothing was added.
                    if let Some(done) = done {
                        if let Some(error) = done.cut {
                            return TurnEnd::cut(error);
                        }
                        (kept, charged) = (done.bytes, done.usage);
                        *lock(&self.unkept) = None;
                    }
                }
                () = sink.grown(), if !untold => untold = true,
                () = sleep_until(due), if untold => {
                    untold = false;
                    self.tell(others);
                }
                _ = checkpoints.tick() => {
                    let usage = self.usage(sink, meter);
                    let more = self.tape.len() > kept || usage != charged;
                    if more && keeping.is_none() && !removed(Mutant::Checkpoint) {
                        keeping = Some(self.keep(usage));
                    }
                }
            }
        }
    }

    /// Hands a checkpoint to the writer, without waiting for it.
    fn keep(&self, usage: Option<Usage>) -> JoinHandle<Option<Kept>> {
        let (shared, room, text) = (Arc::clone(self.shared), self.live.id, self.tape.text());
        let bytes = text.len();
        let intent = Intent::Checkpoint {
            turn: self.turn,
            text,
            usage,
            receipt: lock(&self.unkept).clone(),
        };
        self.shared.tasks.spawn(async move {
            match submit(&shared, room, intent, Vec::new()).await.ok()? {
                Outcome::Checkpointed { kept: true, cut } => Some(Kept { bytes, usage, cut }),
                _ => None,
            }
        })
    }

    /// Reads what the bot will read.
    async fn prepare(&self, bot: &RegisteredBot) -> Result<Turn, BotError> {
        let (room, profile) = (self.live.id, &bot.profile);
        let rooms = &self.shared.rooms;
        let gone = || BotError::new(BotErrorKind::InvalidRequest, "The question is not there any more.");
        let info = rooms.turn(room, self.turn).await?.ok_or_else(gone)?;
        let ask = rooms
            .message(room, info.ask)
            .await?
            .filter(|ask| ask.deleted_at.is_none())
            .ok_or_else(gone)?;
        let page = rooms
            .history(
                room,
                Range::Before(info.ask_seq),
                profile.context.messages.saturating_mul(2).clamp(1, HISTORY),
            )
            .await?;
        let head = rooms.room(room).await?.ok_or_else(gone)?;
        let present: Vec<String> = rooms
            .members(room)
            .await?
            .into_iter()
            .map(|member| member.name)
            .collect();
        let bots = self.shared.bots();
        let default = head.settings.default_among(&bots.handles);
        // What a bot has written is no command.
        let prompt = match ask.author.bot {
            None => command::prompt(&ask.text, &profile.handle, default, &bots.names()),
            Some(_) => ask.text.clone(),
        };
        let now = self.shared.now();
        let context = context::build(&ContextInput {
            bot: &profile.handle,
            bot_name: &profile.name,
            policy: &profile.context,
            room_system: &head.settings.system,
            room_name: &head.info.name,
            present: &present,
            now,
            history: &page.messages,
            older: page.older,
            ask: &ask,
            prompt: &prompt,
        })?;
        let deadline = Timestamp(
            now.0
                .saturating_add(i64::try_from(profile.limits.time.as_millis()).unwrap_or(i64::MAX)),
        );
        Ok(Turn::new(
            self.turn,
            room,
            profile.handle.clone(),
            ask.author.clone(),
            prompt,
            ask.id,
            context,
            deadline,
            info.attempt,
        ))
    }

    fn cause(&self) -> TurnEnd {
        self.running
            .cause
            .get()
            .cloned()
            .unwrap_or_else(|| TurnEnd::new(TurnStatus::Interrupted))
    }

    /// Commits the end, for as long as it takes: a turn ends exactly once, and it does end.
    async fn end(&self, bot: &str, end: TurnEnd, text: Arc<str>) {
        let mut wait = RETRY.0;
        let mut asks = match end.status {
            TurnStatus::Done => command::mentions(&text, &self.shared.bots().names()),
            _ => Vec::new(),
        };
        asks.retain(|other| other != bot);
        let mut then_start = asks.clone();
        then_start.push(bot.to_owned());
        loop {
            let intent = Intent::EndTurn {
                turn: self.turn,
                end: end.clone(),
                text: Some(Arc::clone(&text)),
                receipt: lock(&self.unkept).clone(),
                asks: asks.clone(),
            };
            match submit(self.shared, self.live.id, intent, then_start.clone()).await {
                Ok(_) => return,
                // The room is gone, or the engine: the next one to open this store ends the turn.
                Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::NotFound) => return,
                Err(_) if removed(Mutant::EndRetry) => return,
                Err(error) => {
                    tracing::warn!(turn = %self.turn, error = %error, "the end of a turn could not be committed yet");
                    tokio::select! {
                        biased;
                        () = self.shared.flushing.cancelled() => return,
                        () = sleep(wait) => {}
                    }
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }
}

/// About how many tokens a bot reads.
fn estimate(context: &Context) -> u32 {
    let parts = context.turns.iter().flat_map(|turn| &turn.parts);
    let parts = parts.map(|part| context::estimate(part));
    parts.fold(context::estimate(&context.system), u32::saturating_add)
}

/// Waits for a checkpoint, if one is under way.
async fn told(keeping: &mut Option<JoinHandle<Option<Kept>>>) -> Option<Kept> {
    let Some(asked) = keeping else {
        return std::future::pending().await;
    };
    let told = asked.await.ok().flatten();
    *keeping = None;
    told
}

fn done(finish: Finish) -> TurnEnd {
    if let FinishReason::Blocked(word) = &finish.reason {
        let detail = format!("withheld: {word}");
        return failed(BotError::new(BotErrorKind::BlockedOutput, "The answer was withheld.").with_detail(detail));
    }
    TurnEnd {
        finish: Some(finish),
        ..TurnEnd::new(TurnStatus::Done)
    }
}

fn failed(error: BotError) -> TurnEnd {
    tracing::warn!(
        kind = error.kind.code(),
        detail = error.detail.as_deref().unwrap_or(""),
        "a bot failed"
    );
    TurnEnd::failed(error.kind.code(), error.public.into_owned())
}

fn timed_out() -> TurnEnd {
    TurnEnd::failed(BotErrorKind::Timeout.code(), "The bot took too long.")
}

/// A bot's task, which does not outlive this.
struct Dropped(JoinHandle<Result<Finish, BotError>>);

impl Dropped {
    /// Drops the bot's future and waits, but not for ever, until it is dropped.
    async fn stop(&mut self) {
        if self.0.is_finished() || removed(Mutant::StopDropsBot) {
            return;
        }
        self.0.abort();
        let _ = timeout(DROP, &mut self.0).await;
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if !removed(Mutant::StopDropsBot) {
            self.0.abort();
        }
    }
}

/// Where the bot's text goes: onto the tape, up to the limit.
struct TurnSink {
    live: Arc<LiveRoom>,
    tape: Arc<Tape>,
    /// Takes away a name that the bot puts before its own words.
    prefix: Mutex<SelfPrefix>,
    limits: BotLimits,
    /// Cancelled when the size limit is reached.
    full: CancellationToken,
    usage: Mutex<Option<Usage>>,
    /// Wakes whoever tells the other engines, if there is a way to them.
    grown: Option<Notify>,
    /// Whose turn it is and since when, until there is some text.
    first: Mutex<Option<(String, Instant)>>,
}

impl TurnSink {
    fn append(&self, text: &str) -> Result<(), BotError> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some((bot, since)) = lock(&self.first).take() {
            Meters::first_piece(&bot, since.elapsed());
        }
        let appended = self.tape.append(text, self.limits.text_bytes);
        self.live.grown();
        if let Some(grown) = &self.grown {
            grown.notify_one();
        }
        appended.map_err(|refused| {
            if refused == crate::live::Refused::Full {
                self.full.cancel();
            }
            BotError::new(BotErrorKind::Cancelled, "The answer has ended.")
        })
    }

    /// Waits for something that other engines are to be told.
    async fn grown(&self) {
        match &self.grown {
            Some(grown) => grown.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Appends what the prefix filter still holds.
    fn finish(&self) {
        let rest = lock(&self.prefix).finish();
        let _ = self.append(&rest);
    }
}

impl Sink for TurnSink {
    fn push(&self, text: &str) -> Result<(), BotError> {
        // Held over the append, so that pieces pushed from two tasks stay in the order of the filter.
        let mut prefix = lock(&self.prefix);
        let text = prefix.push(text);
        self.append(&text)
    }

    fn usage(&self, usage: Usage) {
        *lock(&self.usage) = Some(usage);
    }
}

/// A turn, as whoever asked for it holds it. Dropping it does nothing.
#[derive(Clone)]
pub struct TurnHandle {
    shared: Arc<Shared>,
    room: RoomId,
    user: UserId,
    turn: TurnId,
    bot: String,
    refused: Option<TurnError>,
}

impl std::fmt::Debug for TurnHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnHandle")
            .field("turn", &self.turn)
            .field("bot", &self.bot)
            .finish_non_exhaustive()
    }
}

impl TurnHandle {
    /// A handle on a turn as it was when the asker's message was committed.
    pub(crate) fn new(shared: Arc<Shared>, room: RoomId, user: UserId, turn: TurnInfo) -> Self {
        let never_started = turn.message.is_none();
        Self {
            shared,
            room,
            user,
            turn: turn.id,
            bot: turn.bot,
            refused: turn.end.and_then(|end| end.error).filter(|_| never_started),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TurnId {
        self.turn
    }

    /// The bot's handle.
    #[must_use]
    pub fn bot(&self) -> &str {
        &self.bot
    }

    /// Why it was refused at once, if it was: it has ended then and never started.
    #[must_use]
    pub fn refused(&self) -> Option<&TurnError> {
        self.refused.as_ref()
    }

    /// Ends it for everyone; the text so far is kept. No effect on a turn that has ended.
    ///
    /// Cancel safety: dropping the call means stopped or not stopped.
    ///
    /// # Errors
    /// `Forbidden` if the room's settings leave it to the owner; `NotFound` if the asker is no longer a member; `Unavailable`
    /// if the store does not answer; `Closed`.
    pub async fn stop(&self) -> Result<()> {
        stop_by(&self.shared, self.room, self.turn, self.user).await
    }

    /// Where it stands: also how it ended, and which message its answer is, once there is one.
    ///
    /// # Errors
    /// `NotFound` if its room is deleted, `Unavailable`, `Closed`. Cancel safe.
    pub async fn info(&self) -> Result<TurnInfo> {
        self.shared.check_open()?;
        let info = self.shared.rooms.turn(self.room, self.turn).await?;
        info.ok_or_else(crate::Error::no_such_turn)
    }

    /// Waits for its end. Cancel safe.
    ///
    /// ```
    /// # coop_core::testing::in_a_lab(async |_, _, _, room| {
    /// if let Some(turn) = room.send("/echo Hello!").await?.turn {
    ///     let end = turn.ended().await?;
    ///     assert_eq!(end.status, coop_core::TurnStatus::Done);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// `NotFound` if its room is deleted, `Closed` if the engine closes, `Unavailable` if the store does not answer.
    pub async fn ended(&self) -> Result<TurnEnd> {
        ended(&self.shared, self.room, self.turn).await
    }
}

/// Leaves nothing behind of a wait, also of one that was given up or in vain.
struct Waiting<'a> {
    shared: &'a Shared,
    turn: TurnId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.stop_waiting(self.turn);
    }
}

/// Waits until a turn has ended.
pub(crate) async fn ended(shared: &Arc<Shared>, room: RoomId, turn: TurnId) -> Result<TurnEnd> {
    // Dropped after every `told` below.
    let _waiting = Waiting { shared, turn };
    loop {
        let told = shared.await_end(turn);
        let info = shared.rooms.turn(room, turn).await?;
        if info.as_ref().is_none_or(|info| info.end.is_some()) {
            // No end will be told any more: whoever waits for one looks for themselves.
            shared.tell_end(turn);
        }
        if let Some(end) = info.ok_or_else(crate::Error::no_such_room)?.end {
            return Ok(end);
        }
        tokio::select! {
            biased;
            _ = told => {}
            () = shared.flushing.cancelled() => return Err(crate::Error::closed()),
            // An end that another process commits is not told here.
            () = sleep(Duration::from_secs(2)) => {}
        }
    }
}

/// Ends a turn for everyone, if this member may.
pub(crate) async fn stop_by(shared: &Arc<Shared>, room: RoomId, turn: TurnId, by: UserId) -> Result<()> {
    let member = shared.rooms.member(room, by).await?;
    let member = member.ok_or_else(crate::Error::no_such_room)?;
    let head = shared.rooms.room(room).await?.ok_or_else(crate::Error::no_such_room)?;
    let who = head.settings.who_may_stop;
    if who != WhoMayStop::Anyone {
        let info = shared
            .rooms
            .turn(room, turn)
            .await?
            .ok_or_else(crate::Error::no_such_turn)?;
        if !who.allows(by, member.role, info.asked_by) {
            return Err(crate::Error::forbidden(match who {
                WhoMayStop::Owner => "only the room's owner may stop an answer here",
                _ => "only who asked, or the room's owner, may stop this answer",
            }));
        }
    }
    stop(shared, room, turn, by).await
}

/// Ends a turn for everyone, wherever it stands. The caller has checked that `by` may.
pub(crate) async fn stop(shared: &Arc<Shared>, room: RoomId, turn: TurnId, by: UserId) -> Result<()> {
    let cause = TurnEnd::stopped(by);
    if let Some(running) = shared.running(turn) {
        if running.room != room {
            return Err(crate::Error::no_such_turn());
        }
        running.cancel(cause);
        return Ok(());
    }
    if removed(Mutant::StopQueued) {
        return Ok(());
    }
    // It waits, or has ended. If it starts before this is committed the commit ends it, and the writer its bot.
    submit(shared, room, Intent::end(turn, cause), Vec::new())
        .await
        .map(|_| ())
}

/// Stops the answer in this message, if it is being written, and waits for its end.
pub(crate) async fn stop_answer(shared: &Arc<Shared>, room: RoomId, message: MessageId, by: UserId) -> Result<()> {
    let Some(info) = shared.rooms.turn_of_message(room, message).await? else {
        return Ok(());
    };
    if !info.status.is_ended() {
        stop(shared, room, info.id, by).await?;
        timeout(shared.settings.patience, ended(shared, room, info.id))
            .await
            .map_err(|_| crate::Error::unavailable("the answer could not be stopped yet"))??;
    }
    Ok(())
}
