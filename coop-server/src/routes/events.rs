//! One room as server-sent events: the same content as on a `coop.v1` socket, for `curl -N` and simple scripts.
//!
//! Each event of the log and each snapshot carries an id, `epoch.seq`; a client that comes back with it in `Last-Event-ID`
//! goes on after that event. Pieces of answers have none, so an answer in its middle is given again from its beginning.

use super::rooms::room;
use crate::call::Call;
use crate::dialect::v1::event_json;
use crate::limits::{Seat, Toll};
use crate::reply::{Answer, Failure, Reply};
use crate::socket::no_seat;
use bytes::Bytes;
use coop_core::live::{Frames, Offer, Reader};
use coop_core::{Attachment, Epoch, Event, GoneReason, Hint, Position, Room, RoomId, Seq, Subscription, User, UserId};
use futures::{Stream, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// While nothing happens something is sent this often, so that proxies keep the connection and the dead are found out.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client should wait before it comes back.
const RETRY: &str = "retry: 1000\n\n";

/// What happens in a room, as it happens.
pub(crate) async fn stream(call: Call, user: User) -> Answer {
    let room = room(&call, &user).await?;
    let position = position(&call, &room).await?;
    call.house.tolls.pay(Toll::Opening, Some(user.id()), None)?;
    let seat = call.house.seats.take(user.id(), call.address).map_err(no_seat)?;
    let watch = Watch::default();
    let ended = watch.0.clone();
    let attachment = user.attach(Arc::new(watch), call.house.dialects.v1.clone());
    // What ended the token may have come between the look at it and the attaching.
    if !user.is_token_good().await? {
        return Err(Failure::unauthorized("Invalid authentication credentials"));
    }
    let subscription = match position {
        Some(position) => room.resume(position).await?,
        None => room.subscribe().await?,
    };
    Reply::events(events(Events {
        subscription,
        ended,
        closing: call.house.closing.clone(),
        until: call.until,
        begun: false,
        _attachment: attachment,
        _seat: seat,
    }))
}

/// Where a client stands, if it says.
async fn position(call: &Call, room: &Room) -> Result<Option<Position>, Failure> {
    let of = |epoch, seq| Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
        ..Position::default()
    };
    if let Some(id) = call.headers.get("last-event-id") {
        let id = id.to_str().ok().and_then(|id| id.split_once('.'));
        let id = id.and_then(|(epoch, seq)| Some((epoch.parse().ok()?, seq.parse().ok()?)));
        let (epoch, seq) = id.ok_or_else(|| Failure::malformed("Last-Event-ID must be epoch.seq"))?;
        return Ok(Some(of(epoch, seq)));
    }
    match call.number("after")? {
        Some(seq) => Ok(Some(of(room.entry().await?.epoch.0, seq))),
        None => Ok(None),
    }
}

struct Events {
    subscription: Subscription,
    /// Cancelled when the user's tokens have ended, or the engine closes.
    ended: CancellationToken,
    closing: CancellationToken,
    until: Instant,
    begun: bool,
    _attachment: Attachment,
    _seat: Seat,
}

fn events(events: Events) -> impl Stream<Item = Bytes> + Send {
    futures::stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((bytes, events))
    })
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from_static(RETRY.as_bytes()));
        }
        let mut heartbeat = pin!(sleep(HEARTBEAT));
        loop {
            let event = tokio::select! {
                biased;
                () = self.ended.cancelled() => return None,
                () = self.closing.cancelled() => return None,
                () = sleep_until(self.until) => return None,
                event = self.subscription.next() => event,
                () = &mut heartbeat => return Some(Bytes::from_static(b": \n\n")),
            };
            // Where the store does not answer the client comes back with what it has.
            let event = event?.ok()?;
            if let Some(bytes) = self.written(&event) {
                return Some(bytes);
            }
        }
    }

    fn written(&self, event: &Event) -> Option<Bytes> {
        let (kind, json) = event_json(event)?;
        let is_place = event.seq().is_some() || matches!(event, Event::Snapshot(_));
        let id = match self.subscription.position().filter(|_| is_place) {
            Some(position) => format!("id: {}.{}\n", position.epoch, position.seq),
            None => String::new(),
        };
        Some(format!("{id}event: {kind}\ndata: {json}\n\n").into())
    }
}

/// Sees that the user's tokens end. It reads no rooms.
#[derive(Default)]
struct Watch(CancellationToken);

impl Reader for Watch {
    fn offer(&self, _: &Offer<'_>) {}

    fn hints(&self, _: &[Hint], _: &Frames) {}

    fn behind(&self, _: RoomId) {}

    fn gone(&self, _: RoomId, _: GoneReason, _: Option<UserId>) {}

    fn gained(&self, _: RoomId) {}

    fn tokens_ended(&self) {
        self.0.cancel();
    }

    fn closed(&self) {
        self.0.cancel();
    }
}
