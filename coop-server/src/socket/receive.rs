//! Receiving: how a client's bytes become commands, and how many of them it may send.

use super::connection::{BUFFER, Connection, Ending};
use crate::dialect::{Asked, Command, Farewell, Malformed, Ref, too_many};
use crate::frame::{self, Decoder, Incoming};
use crate::limits::{Bucket, Toll};
use crate::meters::Meters;
use bytes::Bytes;
use coop_core::Error;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

/// What one client may do at a time.
#[derive(Default)]
pub(super) struct Rates {
    messages: Bucket,
    frames: Bucket,
    pings: Bucket,
    errors: Bucket,
}

impl Connection {
    pub(super) async fn receive(&self, ahead: Bytes) -> Ending {
        let mut decoder = Decoder::new(frame::Limits {
            max_message: self.house.limits.message_bytes,
            max_fragments: self.house.limits.message_fragments as usize,
        });
        if let Err(ending) = self.decode(&mut decoder, &ahead) {
            return ending;
        }
        drop(ahead);
        loop {
            self.until_taken().await;
            // Smaller than `readable`, which several could await.
            if poll_fn(|cx| self.socket.poll_read_ready(cx)).await.is_err() {
                return Ending::Lost;
            }
            let read = BUFFER.with_borrow_mut(|buffer| match self.socket.try_read(buffer) {
                Ok(0) => Err(Ending::Lost),
                Ok(length) => {
                    self.silent.store(0, Ordering::Relaxed);
                    self.decode(&mut decoder, &buffer[..length])
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                Err(_) => Err(Ending::Lost),
            });
            if let Err(ending) = read {
                return ending;
            }
            // A client that always has more must let others have their turn.
            tokio::task::consume_budget().await;
        }
    }

    fn decode(&self, decoder: &mut Decoder, mut bytes: &[u8]) -> Result<(), Ending> {
        while let Some(incoming) = decoder.next(&mut bytes).map_err(Ending::Violated)? {
            match incoming {
                Incoming::Text(text) => self.heed(self.dialect.decode(&text))?,
                Incoming::Binary(_) => self.heed(self.dialect.decode(""))?,
                Incoming::Ping(payload) => {
                    let limit = &self.house.limits.pings_per_socket;
                    let allowed = self.rates().pings.take(limit);
                    match allowed {
                        Ok(()) => {
                            let mut pong = Vec::new();
                            frame::pong(&mut pong, &payload);
                            self.reply(&pong)?;
                        }
                        Err(after) => self.refuse(None, &too_many("pings_per_socket", "too many pings", after))?,
                    }
                }
                Incoming::Pong(_) => {
                    // It is there, and says nothing: the next beat asks again.
                    self.silent.store(1, Ordering::Relaxed);
                    self.heed(Ok(None))?;
                }
                Incoming::Close(reason) => return Err(Ending::Closed(reason.map(|(code, _)| code))),
            }
        }
        Ok(())
    }

    /// Takes a frame up, if the client has not sent too many.
    fn heed(&self, frame: Result<Option<Asked>, Malformed>) -> Result<(), Ending> {
        let limits = &self.house.limits;
        let allowed = match frame.as_ref().map(|asked| asked.as_ref().map(|asked| &asked.command)) {
            Ok(Some(Command::Leave(_))) => Ok(()),
            // What does nothing the second time costs nothing.
            Ok(Some(Command::Join(..))) if self.dialect.joins_once() => Ok(()),
            Ok(Some(Command::Send(..) | Command::Edit(..) | Command::Delete(..) | Command::Retry(..))) => {
                let here = self.rates().messages.take(&limits.messages_per_socket);
                here.map_err(|after| too_many("messages_per_socket", "too many messages", after))
                    .and_then(|()| self.house.tolls.pay(Toll::Message, Some(self.user), None))
            }
            _ => {
                let here = self.rates().frames.take(&limits.frames_per_socket);
                here.map_err(|after| too_many("frames_per_socket", "too many frames", after))
            }
        };
        match (allowed, frame) {
            (Err(error), frame) => {
                let by = frame.map_or_else(|malformed| malformed.by, |asked| asked?.by);
                self.refuse(by.as_ref(), &error)
            }
            (Ok(()), Ok(Some(asked))) => {
                self.put(asked);
                Ok(())
            }
            (Ok(()), Ok(None)) => Ok(()),
            (Ok(()), Err(Malformed { by, words })) => self.refuse(by.as_ref(), &Error::bad_request(words)),
        }
    }

    /// Tells the client that it should not have asked this. One that goes on asking such things is sent away.
    pub(super) fn refuse(&self, by: Option<&Ref>, error: &Error) -> Result<(), Ending> {
        self.tell(by, error)?;
        self.count_error()
    }

    pub(super) fn count_error(&self) -> Result<(), Ending> {
        let erred = self.rates().errors.take(&self.house.limits.errors_per_socket);
        erred.map_err(|_| {
            Meters::refused("errors_per_socket");
            Ending::Sent(Farewell::Unruly)
        })
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
