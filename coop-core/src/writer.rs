//! A room's writer: the only caller of `commit` for that room. It drains its mailbox into one batch, commits it, hands
//! the events to the live room and only then answers the senders.
//!
//! It awaits the store and nothing else: it never waits for a reader, a bot or a turn.

use crate::bus::BusItem;
use crate::engine::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, GoneReason, Hint, HintKind};
use crate::gate::{Verdict, judge};
use crate::id::{RoomId, Seq, UserId};
use crate::live::LiveRoom;
use crate::model::{Author, Message, TurnEnd, TurnStatus};
use crate::mutant::{Mutant, removed};
use crate::store::{Batch, Committed, Intent, Outcome};
use crate::turn;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::Instrument;

/// How many mails wait in a mailbox before senders wait to put theirs in.
pub(crate) const MAILBOX: usize = 256;
/// The most mails of one batch.
const BATCH: usize = 200;
/// How long a busy room's mails gather for one commit.
const GATHER: Duration = Duration::from_millis(2);
/// How long after a failed commit the room is read again, at first and at most.
const RELOAD: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How many events are read at once when some are missing.
const READ: u32 = 500;

/// What a writer is asked to do.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are intents, and an allocation for each would cost more"
)]
pub(crate) enum Mail {
    /// Make this happen, then propose the next turn of these bots in the same commit.
    Intent {
        intent: Intent,
        then_start: Vec<String>,
        reply: oneshot::Sender<Result<Outcome>>,
    },
    /// Move a read mark soon. Nobody waits for it.
    Read { user: UserId, seq: Seq },
    /// Another engine has committed this event.
    Heard(Arc<Event>),
    /// Another engine has changed the room: read what is new, then tell whoever waits for that.
    Look { then: Option<oneshot::Sender<()>> },
}

/// Hands an intent to the room's writer and waits for what became of it.
///
/// # Errors
/// `Unavailable` also when the store has not answered in time: then the intent may still be carried out.
pub(crate) async fn submit(
    shared: &Arc<Shared>,
    room: RoomId,
    intent: Intent,
    then_start: Vec<String>,
) -> Result<Outcome> {
    hand_over(shared, room, intent, then_start).await?.outcome(shared).await
}

/// Hands an intent to the room's writer. Intents are carried out in the order of being handed over.
///
/// # Errors
/// `Unavailable` if the writer takes nothing for too long.
pub(crate) async fn hand_over(
    shared: &Arc<Shared>,
    room: RoomId,
    intent: Intent,
    then_start: Vec<String>,
) -> Result<HandedOver> {
    let deadline = Instant::now() + shared.settings.patience;
    let (reply, answer) = oneshot::channel();
    let mail = Mail::Intent {
        intent,
        then_start,
        reply,
    };
    put(shared, room, mail, deadline).await?;
    Ok(HandedOver { answer, deadline })
}

/// An intent that a writer has.
pub(crate) struct HandedOver {
    answer: oneshot::Receiver<Result<Outcome>>,
    deadline: Instant,
}

impl HandedOver {
    /// What became of it.
    pub(crate) async fn outcome(self, shared: &Shared) -> Result<Outcome> {
        timeout_at(self.deadline, self.answer)
            .await
            .map_err(|_| Error::unavailable("the store does not answer; it is not certain whether this was done"))?
            .map_err(|_| lost(shared))?
    }
}

/// What a sender is told whose writer is gone: it was told to end, or it panicked with the mail in its hands.
fn lost(shared: &Shared) -> Error {
    if shared.flushing.is_cancelled() {
        Error::closed()
    } else {
        Error::unavailable("the room failed; it is not certain whether this was done")
    }
}

/// Has what other engines have committed to the room so far read, and waits until its readers can be told.
///
/// # Errors
/// `NotFound` if there is no such room any more, `Unavailable`, `Closed`.
pub(crate) async fn look(shared: &Arc<Shared>, room: RoomId) -> Result<()> {
    let deadline = Instant::now() + shared.settings.patience;
    let (then, read) = oneshot::channel();
    put(shared, room, Mail::Look { then: Some(then) }, deadline).await?;
    timeout_at(deadline, read)
        .await
        .map_err(|_| Error::unavailable("the store does not answer"))?
        .map_err(|_| lost(shared))
}

/// Asks the room's writer to move a read mark soon.
///
/// # Errors
/// `NotFound` if there is no such room, `Unavailable`, `Closed`.
pub(crate) async fn mark_read(shared: &Arc<Shared>, room: RoomId, user: UserId, seq: Seq) -> Result<()> {
    let deadline = Instant::now() + shared.settings.patience;
    put(shared, room, Mail::Read { user, seq }, deadline).await
}

async fn put(shared: &Arc<Shared>, room: RoomId, mail: Mail, deadline: Instant) -> Result<()> {
    let sent = async {
        let mailbox = shared.mailbox(room).await?;
        mailbox.send(mail).await.map_err(|_| lost(shared))
    };
    timeout_at(deadline, sent)
        .await
        .map_err(|_| Error::unavailable("the room does not answer"))?
}

/// The writer's task.
pub(crate) async fn run(shared: Arc<Shared>, live: Arc<LiveRoom>, mut mails: mpsc::Receiver<Mail>) {
    let mut writer = Writer {
        shared,
        live,
        marks: BTreeMap::new(),
        marks_due: None,
        reload: None,
        looking: Vec::new(),
        heard: Vec::new(),
        busy: 0,
        worked: Instant::now(),
    };
    let mut rest = pin!(sleep_until(writer.worked + writer.shared.settings.idle));
    while let Some(next) = writer.next(&mut mails, rest.as_mut()).await {
        writer.worked = Instant::now();
        match next {
            Next::Mail(mail) => {
                let batch = writer.gather(mail, &mut mails).await;
                if !writer.heard.is_empty() {
                    let heard = std::mem::take(&mut writer.heard);
                    writer.apply(heard).await;
                }
                writer.commit(batch).await;
            }
            Next::Marks => writer.commit(Vec::new()).await,
            Next::Reload => writer.reload().await,
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Next {
    Mail(Mail),
    /// Read marks have gathered long enough.
    Marks,
    /// A commit's outcome was in doubt, or another engine has committed: look.
    Reload,
}

struct Writer {
    shared: Arc<Shared>,
    live: Arc<LiveRoom>,
    /// Read marks that wait for the next commit.
    marks: BTreeMap<UserId, Seq>,
    /// When they go alone.
    marks_due: Option<Instant>,
    /// When to read the room again after a commit failed, and how long to wait after that.
    reload: Option<(Instant, Duration)>,
    /// Who waits for the room to be read.
    looking: Vec<oneshot::Sender<()>>,
    /// What other engines have committed, as far as they were heard.
    heard: Vec<News>,
    /// How many intents the last commit had. More than one: others are at work here, and theirs are worth waiting for.
    busy: usize,
    /// When there was last something to do.
    worked: Instant,
}

/// An event that is to be told.
struct News {
    event: Arc<Event>,
    /// Whether this engine has committed it.
    ours: bool,
}

struct Waiting {
    intent: Intent,
    reply: oneshot::Sender<Result<Outcome>>,
}

impl Writer {
    /// What comes next; `None` when the writer has retired. `rest` ends when it may have been idle for long enough: it is
    /// not set anew for each mail, which costs more than looking at the end.
    async fn next(&mut self, mails: &mut mpsc::Receiver<Mail>, mut rest: Pin<&mut Sleep>) -> Option<Next> {
        loop {
            let idle = self.worked + self.shared.settings.idle;
            let marks = self.marks_due.unwrap_or(idle);
            let reload = self.reload.map_or(idle, |(at, _)| at);
            let flushing = self.shared.flushing.is_cancelled();
            tokio::select! {
                biased;
                mail = mails.recv() => return mail.map(Next::Mail),
                () = self.shared.flushing.cancelled(), if !flushing => {}
                () = sleep_until(reload), if self.reload.is_some() => return Some(Next::Reload),
                () = sleep_until(marks), if self.marks_due.is_some() => return Some(Next::Marks),
                () = rest.as_mut(), if !flushing && self.marks.is_empty() && self.reload.is_none() => {
                    if Instant::now() >= idle {
                        if self.shared.retire(&self.live, mails) {
                            return None;
                        }
                        self.worked = Instant::now();
                    }
                    rest.as_mut().reset(self.worked + self.shared.settings.idle);
                }
                () = std::future::ready(()), if flushing => {
                    if !self.marks.is_empty() && self.reload.is_none() {
                        self.marks_due = None;
                        return Some(Next::Marks);
                    }
                    mails.close();
                }
            }
        }
    }

    /// What waits in the mailbox, and in a busy room what comes within [`GATHER`].
    async fn gather(&mut self, first: Mail, mails: &mut mpsc::Receiver<Mail>) -> Vec<(Waiting, Vec<String>)> {
        let mut batch = Vec::new();
        self.sort(first, &mut batch);
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH && self.heard.len() < BATCH {
            match mails.try_recv() {
                Ok(mail) => self.sort(mail, &mut batch),
                Err(_) if self.busy > 1 && batch.len() < self.busy.min(BATCH) => {
                    match timeout_at(until, mails.recv()).await {
                        Ok(Some(mail)) => self.sort(mail, &mut batch),
                        _ => break,
                    }
                }
                Err(_) => break,
            }
        }
        batch
    }

    fn sort(&mut self, mail: Mail, batch: &mut Vec<(Waiting, Vec<String>)>) {
        match mail {
            Mail::Intent {
                intent,
                then_start,
                reply,
            } => {
                let (mut intent, mut then_start) = (intent, then_start);
                if let Intent::Post(post) = &mut intent {
                    // Most messages ask nobody, and their commit need not look at turns.
                    post.asks_if_alone &= self.live.ai_chat && post.asks.is_empty();
                    // Which one is the default the commit decides. To start a bot that nobody asked does nothing.
                    match post.asks_default || post.asks_if_alone {
                        true => then_start.extend(post.bots.iter().cloned()),
                        false => then_start.extend(post.asks.iter().cloned()),
                    }
                }
                batch.push((Waiting { intent, reply }, then_start));
            }
            Mail::Heard(event) => self.heard.push(News { event, ours: false }),
            Mail::Look { then } => {
                self.reload = Some((Instant::now(), RELOAD.0));
                self.looking.extend(then);
            }
            Mail::Read { user, seq } => {
                let mark = self.marks.entry(user).or_default();
                *mark = (*mark).max(seq);
                self.marks_due
                    .get_or_insert_with(|| Instant::now() + self.shared.settings.marks);
            }
        }
    }

    /// Commits what was gathered together with the read marks that wait, and tells everyone.
    async fn commit(&mut self, batch: Vec<(Waiting, Vec<String>)>) {
        let marks_alone = self.marks_due.is_none_or(|due| due <= Instant::now());
        if batch.is_empty() && (self.marks.is_empty() || !marks_alone) {
            return;
        }
        self.busy = batch.len();
        let mut intents = Vec::with_capacity(batch.len() + 1);
        let mut replies = Vec::with_capacity(batch.len());
        let mut bots: Vec<String> = Vec::new();
        for (waiting, then_start) in batch {
            if let Intent::EndTurn {
                turn, end, text: None, ..
            } = &waiting.intent
                && let Some(running) = self.shared.running(*turn)
            {
                // It started while the stop was on its way: its own task ends it, with all of its text. An end for a
                // turn that its engine seemed to have left behind is not for one that runs here.
                if end.status == TurnStatus::Stopped {
                    running.cancel(end.clone());
                }
                let _ = waiting.reply.send(Ok(Outcome::Done));
                continue;
            }
            intents.push(waiting.intent);
            replies.push(waiting.reply);
            bots.extend(then_start);
        }
        if self.shared.ending.is_cancelled() || !self.shared.holds_lease() {
            bots.clear();
        }
        bots.sort_unstable();
        bots.dedup();
        let known = self.shared.bots();
        for bot in bots {
            let name = known
                .get(&bot)
                .map_or_else(|| bot.clone(), |bot| bot.profile.name.clone());
            intents.push(Intent::StartTurn { bot, name });
        }
        if intents.is_empty() && self.marks.is_empty() {
            return;
        }
        let marks = std::mem::take(&mut self.marks);
        self.marks_due = None;
        intents.extend(marks.iter().map(|(&user, &seq)| Intent::Read { user, seq }));

        let deletes: Vec<(usize, UserId)> = intents
            .iter()
            .enumerate()
            .filter_map(|(index, intent)| match intent {
                Intent::DeleteRoom { by } => Some((index, *by)),
                _ => None,
            })
            .collect();
        let unsaid = removed(Mutant::AckAfterCommit).then(|| intents.clone());
        let room = self.live.id;
        let batch = Batch {
            room,
            now: self.shared.now(),
            budgets: self.shared.settings.budgets,
            most_members: self.shared.settings.bounds.room_members,
            intents,
        };
        let span = tracing::debug_span!("commit", %room, n = batch.intents.len());
        let meters = &self.shared.meters;
        meters.intents.increment(batch.intents.len() as u64);
        let begun = Instant::now();
        let committed = self.shared.rooms.commit(batch).instrument(span).await;
        meters.commit.record(begun.elapsed());
        match committed {
            Ok(committed) => self.committed(committed, replies, &deletes).await,
            Err(error) => {
                meters.commit_failures.increment(1);
                tracing::warn!(%room, error = %error, source = ?std::error::Error::source(&error), "a commit failed");
                self.marks.extend(marks);
                if !self.marks.is_empty() && !self.shared.flushing.is_cancelled() {
                    self.marks_due = Some(Instant::now() + self.shared.settings.marks);
                } else {
                    self.marks.clear();
                }
                if error.kind() != ErrorKind::Closed && !removed(Mutant::ReloadInDoubt) {
                    self.reload = Some((Instant::now() + RELOAD.0, RELOAD.0));
                }
                for (index, reply) in replies.into_iter().enumerate() {
                    let said = unsaid.as_ref().and_then(|intents| as_if_said(room, &intents[index]));
                    let _ = reply.send(said.unwrap_or_else(|| Err(error.again())));
                }
            }
        }
    }

    /// After a commit: first those who lose the room, then the log, then those who asked for it.
    async fn committed(
        &mut self,
        committed: Committed,
        replies: Vec<oneshot::Sender<Result<Outcome>>>,
        deletes: &[(usize, UserId)],
    ) {
        let Committed {
            events,
            mut outcomes,
            stops,
            ..
        } = committed;
        let late = removed(Mutant::GoneBeforePublish).then(|| events.clone());
        let news = events.into_iter().map(|event| News { event, ours: true });
        self.apply(news.collect()).await;
        for (turn, end) in stops {
            match self.shared.running(turn) {
                Some(running) => running.cancel(end),
                // One that runs elsewhere, by an engine that would also find it in the store.
                None => self.shared.publish(|| BusItem::Stop {
                    room: self.live.id,
                    turn,
                    end: Box::new(end),
                }),
            }
        }
        let done = |(index, _): &&(usize, UserId)| outcomes.get(*index).is_some_and(Result::is_ok);
        if let Some((_, by)) = deletes.iter().find(done) {
            let (room, by) = (self.live.id, Some(*by));
            self.shared.publish(|| BusItem::Deleted { room, by });
            self.deleted(by);
        }
        let marks = outcomes.split_off(replies.len().min(outcomes.len()));
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            let _ = reply.send(outcome);
        }
        for outcome in marks {
            if let Ok(Outcome::Read {
                user,
                name,
                seq,
                moved: true,
            }) = outcome
            {
                let hint = Hint {
                    room: self.live.id,
                    user,
                    name,
                    what: HintKind::Read { seq },
                };
                self.shared.hint(hint, None);
            }
        }
        if let Some(events) = late {
            tokio::time::sleep(Duration::from_millis(20)).await;
            events.iter().for_each(|event| self.expel(event));
        }
    }

    /// Hands what was committed to the live room through the gate, reading from the store what is missing before it.
    async fn apply(&mut self, news: Vec<News>) {
        let mut follow = Vec::with_capacity(news.len());
        let mut head = self.live.seq();
        let mut news = news.into_iter();
        while let Some(one) = news.next() {
            let Some(seq) = one.event.seq() else { continue };
            let mut verdict = judge(head, seq);
            while let Verdict::Missing { after } = verdict {
                match self.read(after).await {
                    Ok(missing) if !missing.is_empty() => {
                        for missing in missing.into_iter().take_while(|other| other.event.seq() < Some(seq)) {
                            head = missing.event.seq().unwrap_or(head);
                            follow.push(missing);
                        }
                        verdict = judge(head, seq);
                        if verdict == (Verdict::Missing { after }) {
                            break;
                        }
                    }
                    // Never skip: what cannot be read now is read later, together with what follows it.
                    _ => break,
                }
            }
            match verdict {
                Verdict::Apply => {
                    head = seq;
                    follow.push(one);
                }
                Verdict::Drop => {}
                Verdict::Missing { .. } => {
                    self.reload = Some((Instant::now() + RELOAD.0, RELOAD.0));
                    // Readers wait for what is missing, but whoever was removed is out now.
                    std::iter::once(one)
                        .chain(news.by_ref())
                        .for_each(|late| self.expel(&late.event));
                }
            }
        }
        self.publish(follow);
    }

    /// What the log holds after this position, whoever committed it. A turn that a commit of this engine has started
    /// without anybody being told is this engine's to run.
    async fn read(&self, after: Seq) -> Result<Vec<News>> {
        let events = self.shared.rooms.events(self.live.id, after, READ).await?;
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            let ours = match (&*event, self.shared.rooms.others()) {
                (Event::TurnStarted { turn, .. }, Some(others)) => others.is_mine(*turn).await?,
                (_, others) => others.is_none(),
            };
            news.push(News { event, ours });
        }
        Ok(news)
    }

    fn publish(&mut self, news: Vec<News>) {
        let mut started = Vec::new();
        for News { event, ours } in &news {
            match &**event {
                Event::MemberLeft { .. } if !removed(Mutant::GoneBeforePublish) => self.expel(event),
                Event::TurnStarted { turn, .. } if *ours => {
                    // Known before it is visible, so that a stop always finds it.
                    let running = self.shared.begin_turn(self.live.id, *turn);
                    started.push((Arc::clone(event), running));
                }
                _ => {}
            }
        }
        let events: Vec<_> = news.iter().map(|one| Arc::clone(&one.event)).collect();
        self.live.append(&events);
        for event in &events {
            match &**event {
                Event::MemberJoined { user, .. } => {
                    self.shared
                        .readers_of(*user)
                        .iter()
                        .for_each(|reader| reader.gained(self.live.id));
                }
                Event::TurnEnded { turn, end, .. } => {
                    // Ended from elsewhere (its answer was deleted, its engine taken for dead): the bot must not go on.
                    if let Some(running) = self.shared.running(*turn) {
                        running.cancel(TurnEnd::clone(end));
                    }
                    self.shared.tell_end(*turn);
                }
                _ => {}
            }
        }
        for (event, running) in started {
            let task = turn::run(Arc::clone(&self.shared), Arc::clone(&self.live), running, event);
            self.shared.turn_tasks.spawn(task);
        }
        for News { event, .. } in news.into_iter().filter(|one| one.ours) {
            if let Event::MemberJoined { room, user, .. } = *event {
                self.shared.publish(|| BusItem::Joined { room, user });
            }
            self.shared.publish(|| BusItem::Committed(event));
        }
    }

    fn expel(&self, event: &Event) {
        if let Event::MemberLeft { user, by, .. } = event {
            self.shared
                .expel(&self.live, Some(*user), GoneReason::Removed, Some(*by));
        }
    }

    /// The room is gone: so are its readers and its turns, and no turn's end is owed.
    fn deleted(&self, by: Option<UserId>) {
        self.shared.expel(&self.live, None, GoneReason::Deleted, by);
        self.shared
            .cancel_turns(Some(self.live.id), &TurnEnd::new(TurnStatus::Stopped));
        self.live.abandon_tapes();
    }

    /// Finds out what became of a commit whose outcome was in doubt, and what others have committed.
    async fn reload(&mut self) {
        let Some((_, waited)) = self.reload.take() else { return };
        let room = self.live.id;
        loop {
            let read = match self.shared.rooms.room(room).await {
                Ok(None) => {
                    self.looking.clear();
                    return self.deleted(None);
                }
                Ok(Some(_)) => self.read(self.live.seq()).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(news) if news.is_empty() => {
                    for then in self.looking.drain(..) {
                        let _ = then.send(());
                    }
                    return;
                }
                Ok(news) => self.publish(news),
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(_) => {
                    let wait = (waited * 2).min(RELOAD.1);
                    self.reload = Some((Instant::now() + wait, wait));
                    return;
                }
            }
        }
    }
}

/// What a sender would be told if it were told too early.
fn as_if_said(room: RoomId, intent: &Intent) -> Option<Result<Outcome>> {
    let Intent::Post(post) = intent else { return None };
    let author = Author::person(post.author, post.name.clone());
    let message = Message::new(0.into(), room, Seq(0), author, post.text.clone(), crate::Timestamp(0));
    Some(Ok(Outcome::Posted {
        message: Arc::new(message),
        turns: Vec::new(),
        duplicate: false,
    }))
}
