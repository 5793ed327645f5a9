//! What the other engines say over the bus, handed to those here whom it concerns. It decides nothing: events go through
//! the gate of their room's writer, pieces onto the tape they continue, and whatever is missing is read from the store.

use crate::bus::BusItem;
use crate::engine::Shared;
use crate::event::{Event, GoneReason};
use crate::id::{MessageId, RoomId};
use crate::live::{LiveRoom, Missing};
use crate::model::TurnStatus;
use crate::mutant::{Mutant, removed};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often an answer with a piece missing is read from the store, where its checkpoints come twice a second.
const FILL: Duration = Duration::from_millis(250);

/// The most answers that are filled so at a time. Others wait for the next regular look.
const FILLS: usize = 256;

/// An answer that lacks a piece.
type Lacking = (Arc<LiveRoom>, MessageId);

/// Hears the other engines until this one closes.
pub(crate) async fn hear(shared: Arc<Shared>, mut items: BoxStream<'static, BusItem>) {
    let mut filling = BTreeSet::new();
    let mut fills: FuturesUnordered<BoxFuture<'static, Lacking>> = FuturesUnordered::new();
    loop {
        let lacking = tokio::select! {
            biased;
            () = shared.deserted.cancelled() => return,
            item = items.next() => match item {
                Some(item) => take(&shared, item),
                None => return,
            },
            Some((live, message)) = fills.next() => {
                filling.remove(&message);
                // Another piece may have been lost meanwhile, and was passed over because this was under way.
                live.lacks(message).then_some((live, message))
            }
        };
        let Some((live, message)) = lacking else { continue };
        if filling.len() < FILLS && filling.insert(message) {
            fills.push(Box::pin(fill(Arc::clone(&shared), live, message)));
        }
    }
}

/// Hands on one item. Returns an answer that begins to lack a piece.
fn take(shared: &Arc<Shared>, item: BusItem) -> Option<Lacking> {
    match item {
        BusItem::Gap => shared.look.notify_one(),
        BusItem::Committed(event) => committed(shared, event),
        BusItem::Delta {
            room,
            message,
            offset,
            text,
        } => {
            let live = shared.in_memory(room)?;
            match live.hear(message, offset, text) {
                Missing::Nothing => {}
                Missing::Start => drop(shared.nudge(room)),
                Missing::Text => return Some((live, message)),
            }
        }
        BusItem::Hint(hint) => {
            if let Some(live) = shared.in_memory(hint.room) {
                live.hint(hint, None);
            }
        }
        BusItem::Joined { room, user } => {
            // A room in memory tells them itself when it reads the event.
            if shared.in_memory(room).is_none() {
                shared.readers_of(user).iter().for_each(|reader| reader.gained(room));
            }
        }
        BusItem::Deleted { room, by } => {
            if let Some(live) = shared.in_memory(room) {
                shared.expel(&live, None, GoneReason::Deleted, by);
                shared.nudge(room);
            }
        }
        BusItem::Stop { room, turn, end } => {
            if let Some(running) = shared.running(turn).filter(|running| running.room == room) {
                running.cancel(*end);
            }
        }
        BusItem::TokensEnded(user) => shared.tell_tokens_ended(user),
    }
    None
}

fn committed(shared: &Arc<Shared>, event: Arc<Event>) {
    let (room, Some(seq)) = (event.room(), event.seq()) else {
        return;
    };
    let Some(live) = shared.in_memory(room).filter(|live| live.seq() < seq) else {
        return;
    };
    if let Event::MemberLeft { user, by, .. } = &*event
        && !removed(Mutant::ExpelHeard)
    {
        // At once: the room's writer may be waiting for the store.
        shared.expel(&live, Some(*user), GoneReason::Removed, Some(*by));
    }
    // A closing engine leaves those that wait behind its answers to the others.
    let left = matches!(&*event, Event::TurnEnded { end, .. } if end.status == TurnStatus::Interrupted);
    if !shared.hand_on(event) || left {
        shared.look.notify_one();
    }
}

/// Reads what is missing of an answer, as often as it takes.
async fn fill(shared: Arc<Shared>, live: Arc<LiveRoom>, message: MessageId) -> Lacking {
    loop {
        if let Some(text) = kept(&shared, live.id, message).await {
            live.hear_all(message, &text);
        }
        if !live.lacks(message) {
            return (live, message);
        }
        sleep(FILL).await;
    }
}

/// The text of an answer as of its last checkpoint.
async fn kept(shared: &Arc<Shared>, room: RoomId, message: MessageId) -> Option<String> {
    let _permit = shared.loads.acquire().await.ok()?;
    let read = shared.patiently(shared.rooms.message(room, message)).await;
    let message = read.ok()?.ok()??;
    Some(message.text.clone())
}
