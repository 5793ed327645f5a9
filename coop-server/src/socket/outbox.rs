//! What has to go out on one socket before anything else may: the rest of a frame that the socket took only part of,
//! and answers to its client. One order for each socket, and a bound on both.
//!
//! It never waits and knows no rooms; where it stands in time it is told.

use coop_core::live::{Cursor, Frames};
use std::io::{self, ErrorKind};
use tokio::time::Instant;

/// The most bytes of answers that wait for a socket. A client that asks on without reading gets no more.
const MAX_REPLIES: usize = 16 * 1024;

/// Something that takes bytes without waiting.
pub(super) trait TryWrite {
    /// Takes some bytes; `WouldBlock` if it cannot take any now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// What became of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// All of them are out.
    All,
    /// Some are, up to the frame after which a reader stands here; its rest is kept.
    Cut(Cursor),
    /// None of them.
    Nothing,
}

/// More answers than may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The rest of one frame, from `rest_at` on.
    rest: Vec<u8>,
    rest_at: usize,
    /// Frames that go after it; the first may have lost its beginning.
    replies: Vec<u8>,
    /// Since when the socket has taken nothing of what was there for it; `None` while it takes everything.
    blocked: Option<Instant>,
    /// The socket failed. Nothing is written any more.
    broken: bool,
}

impl Outbox {
    /// Whether frames may be written.
    pub(super) fn is_clear(&self) -> bool {
        self.rest.is_empty() && self.replies.is_empty() && !self.broken
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Since when the socket has taken nothing.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    /// Writes frames, if nothing has to go before them.
    pub(super) fn write(&mut self, socket: &impl TryWrite, frames: &Frames) -> Written {
        if !self.is_clear() {
            return Written::Nothing;
        }
        let bytes = &frames.bytes;
        let taken = self.push(socket, bytes);
        if taken == bytes.len() {
            return Written::All;
        }
        let cut = frames.ends().iter().find(|end| end.byte >= taken);
        match cut {
            Some(end) if taken > 0 => {
                self.rest.extend_from_slice(&bytes[taken..end.byte]);
                Written::Cut(end.cursor)
            }
            _ => Written::Nothing,
        }
    }

    /// Writes one frame that has no place in any room's order, whole or not at all but for a rest that is kept.
    pub(super) fn write_one(&mut self, socket: &impl TryWrite, frame: &[u8]) -> bool {
        if !self.is_clear() {
            return false;
        }
        let taken = self.push(socket, frame);
        if taken > 0 {
            self.rest.extend_from_slice(&frame[taken..]);
        }
        taken > 0
    }

    /// Writes an answer, or keeps it until what is before it is out.
    pub(super) fn reply(&mut self, socket: &impl TryWrite, frame: &[u8]) -> Result<(), Overflow> {
        let taken = if self.is_clear() { self.push(socket, frame) } else { 0 };
        if taken == frame.len() || self.broken {
            return Ok(());
        }
        if self.replies.len() + frame.len() > MAX_REPLIES {
            return Err(Overflow);
        }
        self.replies.extend_from_slice(&frame[taken..]);
        Ok(())
    }

    /// The last frame: goes after what was begun, whatever waits besides.
    pub(super) fn finish(&mut self, socket: &impl TryWrite, frame: &[u8]) {
        let taken = if self.is_clear() { self.push(socket, frame) } else { 0 };
        self.replies.extend_from_slice(&frame[taken..]);
    }

    /// Writes what waits, as far as the socket takes it; true if nothing waits any more.
    pub(super) fn flush(&mut self, socket: &impl TryWrite) -> bool {
        if !self.rest.is_empty() {
            let taken = {
                let rest = std::mem::take(&mut self.rest);
                let taken = self.push(socket, &rest[self.rest_at..]);
                self.rest = rest;
                taken
            };
            self.rest_at += taken;
            if self.rest_at < self.rest.len() {
                return false;
            }
            (self.rest, self.rest_at) = (Vec::new(), 0);
        }
        if !self.replies.is_empty() {
            let mut replies = std::mem::take(&mut self.replies);
            let taken = self.push(socket, &replies);
            if taken < replies.len() {
                replies.drain(..taken);
                self.replies = replies;
                return false;
            }
        }
        !self.broken
    }

    /// Hands bytes to the socket and keeps the time since it last took some.
    fn push(&mut self, socket: &impl TryWrite, bytes: &[u8]) -> usize {
        if self.broken {
            return 0;
        }
        let taken = loop {
            match socket.try_write(bytes) {
                Ok(taken) => break taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(_) => {
                    self.broken = true;
                    break 0;
                }
            }
        };
        if taken == bytes.len() {
            self.blocked = None;
        } else if taken > 0 || self.blocked.is_none() {
            self.blocked = Some(Instant::now());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// Takes so many bytes and then blocks.
    #[derive(Default)]
    struct Pipe {
        room: Cell<usize>,
        seen: RefCell<Vec<u8>>,
    }

    impl Pipe {
        fn with(room: usize) -> Self {
            Self {
                room: Cell::new(room),
                ..Self::default()
            }
        }
    }

    impl TryWrite for Pipe {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room.get());
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room.set(self.room.get() - taken);
            self.seen.borrow_mut().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
    }

    /// Three frames: `aaaa`, `bbbb`, `cccc`. Their cursors cannot be told apart from outside the core.
    fn frames() -> Frames {
        let mut frames = Frames::default();
        for byte in *b"abc" {
            frames.bytes.extend_from_slice(&[byte; 4]);
            frames.end(Cursor::NOWHERE);
        }
        frames
    }

    #[test]
    fn a_cut_frame_is_finished_and_no_later_one_begun() {
        for (room, kept) in [
            (1, "aaaa"),
            (4, "aaaa"),
            (5, "aaaabbbb"),
            (8, "aaaabbbb"),
            (11, "aaaabbbbcccc"),
        ] {
            let (pipe, mut outbox) = (Pipe::with(room), Outbox::default());
            assert_eq!(outbox.write(&pipe, &frames()), Written::Cut(Cursor::NOWHERE));
            assert!(outbox.blocked_since().is_some());
            assert_eq!(outbox.is_clear(), room % 4 == 0, "{room}");
            pipe.room.set(100);
            assert!(outbox.flush(&pipe));
            assert_eq!(String::from_utf8_lossy(&pipe.seen.borrow()), kept, "{room}");
        }
    }

    #[test]
    fn all_or_nothing() {
        let (pipe, mut outbox) = (Pipe::with(0), Outbox::default());
        assert_eq!(outbox.write(&pipe, &frames()), Written::Nothing);
        assert!(outbox.is_clear() && outbox.blocked_since().is_some());
        pipe.room.set(12);
        assert_eq!(outbox.write(&pipe, &frames()), Written::All);
        assert_eq!(outbox.blocked_since(), None);
    }

    #[test]
    fn replies_go_behind_the_rest_and_frames_behind_the_replies() {
        let (pipe, mut outbox) = (Pipe::with(2), Outbox::default());
        assert!(matches!(outbox.write(&pipe, &frames()), Written::Cut(_)));
        assert_eq!(outbox.reply(&pipe, b"pong"), Ok(()));
        assert_eq!(outbox.write(&pipe, &frames()), Written::Nothing);
        assert!(!outbox.write_one(&pipe, b"hint"));
        pipe.room.set(3);
        assert!(!outbox.flush(&pipe));
        pipe.room.set(100);
        assert!(outbox.flush(&pipe));
        assert_eq!(&*pipe.seen.borrow(), b"aaaapong");
    }

    #[test]
    fn who_asks_without_reading_gets_no_more() {
        let (pipe, mut outbox) = (Pipe::with(0), Outbox::default());
        let answers = (0..).take_while(|_| outbox.reply(&pipe, &[0; 100]).is_ok()).count();
        assert_eq!(answers, MAX_REPLIES / 100);
    }

    #[test]
    fn after_a_failure_nothing_is_written() {
        struct Broken;
        impl TryWrite for Broken {
            fn try_write(&self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
        }
        let mut outbox = Outbox::default();
        assert_eq!(outbox.write(&Broken, &frames()), Written::Nothing);
        assert!(outbox.is_broken() && !outbox.is_clear() && !outbox.flush(&Broken));
        // Answers to who is gone are no reason to end anything.
        assert!((0..1_000).all(|_| outbox.reply(&Broken, &[0; 100]).is_ok()));
    }
}
