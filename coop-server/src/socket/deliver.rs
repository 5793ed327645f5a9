//! Delivering: news about rooms, the rest of what did not fit, and what the connection missed.

use super::connection::{Connection, Ending};
use super::outbox::Written;
use super::wire::{News, Slot, Wire};
use crate::dialect::{Dialect, Outbound};
use coop_core::live::{Frames, Level};
use coop_core::{Attachment, ErrorKind, Feed, Pulled, Result, RoomEntry, RoomId, User};
use std::time::Duration;
use tokio::time::sleep;

/// How long after the store did not answer it is asked again.
const PAUSE: Duration = Duration::from_millis(250);

impl Connection {
    /// Enters all rooms of the user, and says so.
    pub(super) async fn enter_all(&self, user: &User, attachment: &Attachment) -> Result<(), Ending> {
        let rooms = match attachment.enter_all().await {
            Ok(rooms) => rooms,
            Err(error) if error.kind() == ErrorKind::Closed => return Err(Ending::CLOSING),
            Err(_) => return Err(Ending::UNAVAILABLE),
        };
        let (entries, places): (Vec<_>, Vec<_>) = rooms
            .into_iter()
            .map(|(entry, feed, cursor)| (entry, (feed, cursor)))
            .unzip();
        // Before there are slots: nothing of a room can be written before it.
        self.welcome(user, &entries).await?;
        let mut wire = self.wire();
        wire.reserve(places.len());
        for (feed, cursor) in places {
            wire.add(Slot {
                room: feed.room(),
                feed,
                level: Level::Events,
                cursor,
            });
        }
        drop(wire);
        self.fall_behind();
        Ok(())
    }

    /// Delivers until the connection ends.
    pub(super) async fn deliver(&self, attachment: &Attachment) -> Ending {
        loop {
            match Box::pin(self.catch_up(attachment)).await {
                Ok(()) => self.woken().await,
                Err(ending) => return ending,
            }
        }
    }

    /// Brings everything up to date, as of the moment before it returns: what comes later wakes the task.
    async fn catch_up(&self, attachment: &Attachment) -> Result<(), Ending> {
        loop {
            self.until_clear().await?;
            // The guard must not live through the arms.
            let news = self.wire().next_news();
            if let Some(news) = news {
                self.hear(news, attachment).await?;
                continue;
            }
            let missed = self.wire().next_missed();
            if let Some(room) = missed {
                self.show_receipts(room).await?;
                continue;
            }
            self.catch_up_begins();
            let behind = self.rooms_behind(attachment);
            if behind.is_empty() {
                return Ok(());
            }
            for room in behind {
                self.pull(room, attachment).await?;
            }
        }
    }

    /// The rooms in which the next offer would not fit.
    fn rooms_behind(&self, attachment: &Attachment) -> Vec<RoomId> {
        let wire = self.wire();
        let behind = |slot: &&Slot| !attachment.is_current(&slot.feed, slot.level, slot.cursor);
        wire.slots().iter().filter(behind).map(|slot| slot.room).collect()
    }

    async fn hear(&self, news: News, attachment: &Attachment) -> Result<(), Ending> {
        match news {
            News::Gone(room, reason, by) => {
                attachment.forget(room);
                let mine = by == Some(self.user);
                self.say(&Outbound::Gone { room, reason, by, mine })
            }
            News::Gained(room) => {
                let entered = self.enter(room, attachment).await;
                self.settle();
                match entered {
                    Ok(Some(entry)) => self.announce(&entry).await,
                    Ok(None) => Ok(()),
                    Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
                    Err(_) => {
                        self.wire().gain(room);
                        sleep(PAUSE).await;
                        Ok(())
                    }
                }
            }
        }
    }

    /// Enters a gained room; `None` if that has been done, or it is lost again.
    async fn enter(&self, room: RoomId, attachment: &Attachment) -> Result<Option<RoomEntry>> {
        if self.wire().slot(room).is_some() {
            return Ok(None);
        }
        let Some((entry, feed, cursor)) = attachment.enter(room).await? else {
            return Ok(None);
        };
        let slot = Slot {
            room,
            feed,
            level: Level::Events,
            cursor,
        };
        Ok(self.wire().add(slot).then_some(entry))
    }

    /// Tells the client of a room that others made or invited it to.
    async fn announce(&self, entry: &RoomEntry) -> Result<(), Ending> {
        let frame = self.encode(&Outbound::Gained(entry));
        self.write_of(entry.info.id, &frame).await
    }

    /// Shows a room's receipts, which replace those of before, because some could not be written.
    async fn show_receipts(&self, room: RoomId) -> Result<(), Ending> {
        let Some(receipts) = self.dialect.receipts() else {
            return Ok(());
        };
        match receipts.frame(room).await {
            Ok(frame) => self.write_of(room, &frame).await,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => Ok(()),
            Err(_) => {
                self.wire().miss(room);
                sleep(PAUSE).await;
                Ok(())
            }
        }
    }

    /// Writes one frame about a room, outside its order. If the room is lost before, nothing of it is said.
    pub(super) async fn write_of(&self, room: RoomId, frame: &[u8]) -> Result<(), Ending> {
        self.write_when(frame, |wire| wire.slot(room).is_some()).await
    }

    /// Writes one frame as soon as the socket takes it, unless there is no more reason to.
    pub(super) async fn write_when(
        &self,
        frame: &[u8],
        mut wanted: impl FnMut(&mut Wire) -> bool,
    ) -> Result<(), Ending> {
        if frame.is_empty() {
            return Ok(());
        }
        loop {
            self.until_clear().await?;
            {
                let wire = &mut *self.wire();
                if !wanted(wire) || wire.outbox.write_one(self, frame) {
                    return Ok(());
                }
            }
            self.until_writable().await?;
        }
    }

    /// Brings one room up to date, or as far as the socket takes it.
    async fn pull(&self, room: RoomId, attachment: &Attachment) -> Result<(), Ending> {
        let Some(Slot {
            feed, level, cursor, ..
        }) = self.wire().slot(room).map(|slot| slot.clone())
        else {
            return Ok(());
        };
        match attachment.pull(&feed, level, cursor).await {
            Ok(pulled) => {
                let frames = encode(&self.dialect, level, &pulled, &feed, attachment).await;
                let unmoved = |slot: &Slot| slot.level == level && slot.cursor == cursor;
                if self.write(room, unmoved, &pulled, &frames) == Some(Written::Nothing) {
                    // It is pulled again: to keep it would be a queue.
                    self.until_writable().await?;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.wire().remove(room);
                attachment.forget(room);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Closed => Err(Ending::CLOSING),
            Err(_) => {
                sleep(PAUSE).await;
                Ok(())
            }
        }
    }

    /// Writes what was pulled, if the room is still read and stands as it did; `None` if not.
    pub(super) fn write(
        &self,
        room: RoomId,
        unmoved: impl FnOnce(&Slot) -> bool,
        pulled: &Pulled,
        frames: &Frames,
    ) -> Option<Written> {
        let wire = &mut *self.wire();
        wire.slot(room).filter(|slot| unmoved(slot))?;
        let written = if frames.is_empty() {
            Written::All
        } else {
            wire.outbox.write(self, frames)
        };
        let slot = wire.slot(room)?;
        match written {
            Written::All => slot.cursor = pulled.to,
            Written::Cut(cursor) => slot.cursor = cursor,
            Written::Nothing => {}
        }
        Some(written)
    }
}

/// Encodes what was pulled. The end of an answer whose beginning nobody here was there for is looked up first.
pub(super) async fn encode(
    dialect: &Dialect,
    level: Level,
    pulled: &Pulled,
    feed: &Feed,
    attachment: &Attachment,
) -> Frames {
    for message in dialect.unknown(&pulled.entries) {
        if let Ok(message) = attachment.room(feed).message(message).await {
            dialect.remember(&message);
        }
    }
    let mut frames = Frames::default();
    dialect.encoder().encode(level, &pulled.entries, &mut frames);
    frames
}
