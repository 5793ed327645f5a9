//! Keeping up with the other engines on the same store: what they commit reaches the rooms in memory here, what they ask
//! of this engine's turns is done, and turns whose engine is dead are ended.
//!
//! Everything is found by looking at the store every [`LOOK`], and at once when a bus may have lost something; a bus, which
//! [`relay`] hears, only makes it faster. Tasks of their own, so that a slow look does not cost the lease. This module
//! applies no event itself: rooms are told that there is something to read.

use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::event::GoneReason;
use crate::id::{RoomId, Seq};
use crate::model::{TurnEnd, TurnStatus};
use crate::mutant::{Mutant, removed};
use crate::relay;
use crate::store::{Changes, Intent, LEASE, Look, OpenTurn, Others, RoomStore, Whose};
use crate::writer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How often the store is asked what is new: how long something committed elsewhere may take to be seen here.
const LOOK: Duration = Duration::from_millis(1_500);

/// The least time between two looks, whoever asks for one.
const APART: Duration = Duration::from_millis(50);

/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// How long before its lease ends, by its own clock, an engine takes it for lost: nobody else can have taken its turns by
/// then.
const MARGIN: Duration = Duration::from_secs(3);

/// Stands for the newest event of a room that was deleted.
const GONE: Seq = Seq(i64::MAX);

/// Begins to keep up, if there can be others.
///
/// # Errors
/// `Unavailable` if the store does not answer; `BadRequest` for a bus beside a store that no other engine can use.
pub(crate) async fn begin(shared: &Arc<Shared>) -> Result<()> {
    let Some(others) = shared.rooms.others() else {
        return match shared.bus() {
            Some(_) => Err(Error::bad_request(
                "a bus is of no use here: this store serves one engine",
            )),
            None => Ok(()),
        };
    };
    if let Some(bus) = shared.bus() {
        let store = shared.patiently(others.identity()).await??;
        let items = bus.listen(&store).await;
        shared.lookouts.spawn(relay::hear(Arc::clone(shared), items));
    }
    let asked = Instant::now();
    shared.patiently(others.renew()).await??;
    let look = shared.patiently(others.now()).await??;
    shared.hold_lease(asked + LEASE - MARGIN);
    shared.tasks.spawn(heartbeat(Arc::clone(shared), asked));
    shared.lookouts.spawn(keep_up(Arc::clone(shared), look));
    Ok(())
}

/// Renews the lease. When that fails for too long the turns that run here end before others take them for dead.
async fn heartbeat(shared: Arc<Shared>, mut renewed: Instant) {
    let Some(others) = shared.rooms.others() else { return };
    let mut next = renewed + HEARTBEAT;
    let mut lost = false;
    loop {
        let end = renewed + LEASE - MARGIN;
        let renewal = async {
            sleep_until(next).await;
            let asked = Instant::now();
            timeout(HEARTBEAT, others.renew())
                .await
                .map(|done| done.map(|()| asked))
        };
        tokio::select! {
            biased;
            () = shared.flushing.cancelled() => return,
            () = sleep_until(end), if !lost => {
                lost = true;
                tracing::error!("the lease of this engine is lost: what its bots were writing is cut short");
                if !removed(Mutant::Lease) {
                    shared.cancel_turns(None, &TurnEnd::new(TurnStatus::Interrupted));
                }
            }
            answer = renewal => match answer {
                Ok(Ok(asked)) => {
                    (renewed, lost) = (asked, false);
                    next = asked + HEARTBEAT;
                    shared.hold_lease(asked + LEASE - MARGIN);
                }
                failed => {
                    if let Ok(Err(error)) = failed {
                        tracing::warn!(%error, "the lease of this engine could not be renewed");
                    }
                    next = Instant::now() + HEARTBEAT / 6;
                }
            }
        }
    }
}

async fn keep_up(shared: Arc<Shared>, mut look: Look) {
    let Some(others) = shared.rooms.others() else { return };
    let mut behind = BTreeMap::new();
    let (mut looked, mut regular) = (Instant::now(), None);
    loop {
        let asked = async {
            shared.look.notified().await;
            sleep_until(looked + APART).await;
        };
        tokio::select! {
            biased;
            () = shared.deserted.cancelled() => return,
            () = asked => {}
            () = sleep_until(regular.map_or(looked, |regular| regular + LOOK)) => {}
        }
        looked = Instant::now();
        let is_regular = regular.is_none_or(|regular| regular + LOOK <= looked);
        if is_regular {
            regular = Some(looked);
        }
        let looked = async {
            let changes = others.changes(look).await?;
            look = changes.next;
            if !removed(Mutant::Heads) {
                follow(&shared, changes, &mut behind);
            }
            mind_turns(&shared, others, is_regular).await
        };
        tokio::select! {
            biased;
            () = shared.deserted.cancelled() => return,
            looked = shared.patiently(looked) => if let Ok(Err(error)) | Err(error) = looked {
                tracing::warn!(%error, "what other engines did could not be looked at");
            }
        }
    }
}

/// Tells rooms and readers here what has changed. `behind` holds the rooms that have not read it yet.
fn follow(shared: &Arc<Shared>, changes: Changes, behind: &mut BTreeMap<RoomId, Seq>) {
    if !(changes.rooms.is_empty() && changes.joined.is_empty() && changes.gone.is_empty()) {
        // Before the rooms in memory are looked for: one that comes into memory after that is of a later look.
        shared.look_again();
    }
    behind.extend(changes.rooms);
    behind.extend(changes.gone.into_iter().map(|room| (room, GONE)));
    behind.retain(|room, seq| match shared.in_memory(*room) {
        // Told once, it has nothing more to read, and may leave memory when it has been quiet for long.
        Some(_) if *seq == GONE => !shared.nudge(*room),
        Some(live) if live.seq() < *seq => {
            shared.nudge(*room);
            true
        }
        _ => false,
    });
    for left in changes.left {
        // At once: the room's writer may be waiting for the store.
        if let Some(live) = shared.in_memory(left.room).filter(|live| live.seq() < left.seq) {
            shared.expel(&live, Some(left.user), GoneReason::Removed, Some(left.by));
        }
    }
    for (room, user) in changes.joined {
        // A room in memory tells them itself when it reads the event.
        if shared.in_memory(room).is_none() {
            shared.readers_of(user).iter().for_each(|reader| reader.gained(room));
        }
    }
    for user in changes.tokens_ended {
        shared.tell_tokens_ended(user);
    }
}

/// Does what is to be done about turns that have not ended. `grow_too`: and reads what others write.
async fn mind_turns(shared: &Arc<Shared>, others: &dyn Others, grow_too: bool) -> Result<()> {
    let open = others.open_turns().await?;
    for turn in &open {
        let info = &turn.info;
        if turn.whose == Whose::Nobodys {
            end_orphan(shared, turn);
        } else if turn.whose == Whose::Mine {
            match &turn.stop {
                Some(end) => {
                    if let Some(running) = shared.running(info.id) {
                        running.cancel(end.clone());
                    }
                }
                None if info.status == TurnStatus::Queued && !is_busy(&open, turn) => propose(shared, turn),
                None => {}
            }
        } else if grow_too && info.status == TurnStatus::Streaming {
            grow(shared, &*shared.rooms, turn).await?;
        }
    }
    Ok(())
}

fn is_busy(open: &[OpenTurn], turn: &OpenTurn) -> bool {
    let same = |other: &&OpenTurn| other.info.room == turn.info.room && other.info.bot == turn.info.bot;
    let mut of_bot = open.iter().filter(same);
    of_bot.any(|other| other.info.status == TurnStatus::Streaming)
}

/// Ends a turn whose engine is dead, and proposes the next of its bot. The text of its last checkpoint is kept.
fn end_orphan(shared: &Arc<Shared>, turn: &OpenTurn) {
    let intent = Intent::end(turn.info.id, TurnEnd::new(TurnStatus::Interrupted));
    submit(shared, turn, intent);
}

/// Whoever was to start a turn of this engine when the one before it ended has not: it was closing, or has died.
fn propose(shared: &Arc<Shared>, turn: &OpenTurn) {
    let bots = shared.bots();
    let Some(bot) = bots.get(&turn.info.bot) else { return };
    let intent = Intent::StartTurn {
        bot: turn.info.bot.clone(),
        name: bot.profile.name.clone(),
    };
    submit(shared, turn, intent);
}

/// Nobody waits for it: what fails is found again by the next look.
fn submit(shared: &Arc<Shared>, turn: &OpenTurn, intent: Intent) {
    if shared.ending.is_cancelled() {
        return;
    }
    let (shared, room, bot) = (Arc::clone(shared), turn.info.room, turn.info.bot.clone());
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = writer::submit(&shared, room, intent, vec![bot]).await {
            tracing::debug!(%room, %error, "a turn left behind could not be minded yet");
        }
    });
}

/// Shows the readers here what another engine's turn has written up to its last checkpoint.
async fn grow(shared: &Arc<Shared>, rooms: &dyn RoomStore, turn: &OpenTurn) -> Result<()> {
    let Some(live) = shared.in_memory(turn.info.room) else {
        return Ok(());
    };
    let Some(tape) = turn.info.message.and_then(|message| live.tape(message)) else {
        return Ok(());
    };
    if let Some(message) = rooms.message(turn.info.room, tape.message.id).await? {
        live.hear_all(message.id, &message.text);
    }
    Ok(())
}
