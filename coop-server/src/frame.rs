//! WebSocket frames (RFC 6455), the server's side: a decoder for what clients send and writers for what we answer.
//!
//! It is bytes in, messages out, and the other way round. It refuses to know sockets, time, the handshake, extensions
//! (none is ever negotiated) and what a message says.
//!
//! Opcodes, close codes and unmasking are those of `fastwebsockets`. The rules are ours, because that crate accepts
//! unmasked client frames, fragments without a bound, text cut inside a character and a message within a message; so is
//! the state, because its reader loses its place when a read is cancelled. Here nothing is lost: whatever has been
//! taken from the input lives in the [`Decoder`].
//!
//! Costs, which are promises: a connection between two frames owns no heap memory here; a frame that arrives whole is
//! copied once (into the message that is handed out); a message's memory grows with the bytes that have arrived, never
//! with the length that a header claims.

#[cfg(test)]
mod tests;

use fastwebsockets::{CloseCode, OpCode, unmask};

/// The longest header a client can send: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;
/// The longest payload of a control frame.
const MAX_CONTROL: usize = 125;
/// What [`begin_text`] reserves: the header of a payload of 126 to 65,535 bytes, which most events are.
const RESERVED: usize = 4;

/// How much one client may send in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload, over all fragments of the message.
    pub max_message: usize,
    /// Frames that may make up one message; a message in one piece is one.
    pub max_fragments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message: 256 * 1024,
            max_fragments: 256,
        }
    }
}

/// A whole message or control frame from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, all its fragments together.
    Text(String),
    /// A binary message, all its fragments together.
    Binary(Vec<u8>),
    /// A ping; to be answered by a [`pong`] with the same payload.
    Ping(Vec<u8>),
    /// A pong, asked for or not.
    Pong(Vec<u8>),
    /// The client closes, with a code and a reason if it gave them. Nothing comes after it.
    Close(Option<(u16, String)>),
}

/// What a client did against the rules. The connection must be closed with [`close_code`](Violation::close_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set, but no extension was negotiated.
    #[error("reserved bit set")]
    ReservedBit,
    /// An opcode that the RFC keeps for later.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// Clients must mask every frame.
    #[error("frame not masked")]
    Unmasked,
    /// A control frame of more than 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// A control frame in several pieces.
    #[error("control frame fragmented")]
    FragmentedControl,
    /// A new message began before the last one was finished.
    #[error("new message inside an unfinished one")]
    NestedMessage,
    /// A continuation of nothing.
    #[error("continuation without a message")]
    LoneContinuation,
    /// A length written in more bytes than it needs, or with its highest bit set.
    #[error("length badly encoded")]
    BadLength,
    /// A close frame with half a code, or with a code that must not be sent.
    #[error("bad close frame")]
    BadClose,
    /// Text or a close reason that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// More bytes than [`Limits::max_message`].
    #[error("message too large")]
    MessageTooLarge,
    /// More frames than [`Limits::max_fragments`].
    #[error("message in too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// The close code that tells the client what it did: 1002, 1007 or 1009.
    pub fn close_code(&self) -> u16 {
        match self {
            Violation::NotUtf8 => CloseCode::Invalid,
            Violation::MessageTooLarge | Violation::TooManyFragments => CloseCode::Size,
            _ => CloseCode::Protocol,
        }
        .into()
    }
}

/// Turns the bytes of one connection into messages, however the network has cut them.
///
/// ```
/// # use coop_server::frame::{Decoder, Incoming, Limits};
/// let mut decoder = Decoder::new(Limits::default());
/// let mut bytes: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i', 0x89];
/// assert_eq!(decoder.next(&mut bytes), Ok(Some(Incoming::Text("hi".into()))));
/// assert_eq!(decoder.next(&mut bytes), Ok(None)); // the begun ping is remembered
/// assert!(bytes.is_empty());
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    phase: Phase,
    /// The header being collected; `head_len` bytes of it are there.
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// The frame whose payload is being collected: its header is complete and was accepted.
    frame: Option<Frame>,
    /// Text or binary while a message is unfinished, so between its fragments too.
    kind: Option<OpCode>,
    /// Frames of the unfinished message so far.
    fragments: usize,
    /// Unmasked payload of the unfinished message.
    message: Vec<u8>,
    /// Unmasked payload of an unfinished control frame; apart, because one may stand between two fragments.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    /// A close frame was read; the RFC forbids to read on.
    Closed,
    /// The place in the stream is lost, so every further call says the same.
    Failed(Violation),
}

#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: OpCode,
    /// Rotated, so that its first byte always belongs to the next byte of payload.
    mask: [u8; 4],
    left: usize,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Decoder {
            limits,
            phase: Phase::Open,
            head: [0; MAX_HEAD],
            head_len: 0,
            frame: None,
            kind: None,
            fragments: 0,
            message: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Takes bytes off the front of `input` until a message is whole.
    ///
    /// `None` means that all of `input` was taken and more is needed, so the buffer behind it may be used for another
    /// connection. After a violation the decoder only repeats it; after a close frame it swallows what follows.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        match self.phase {
            Phase::Open => {}
            Phase::Closed => {
                *input = &[];
                return Ok(None);
            }
            Phase::Failed(violation) => return Err(violation),
        }
        let step = self.advance(input);
        match step {
            Err(violation) => self.stop(Phase::Failed(violation)),
            Ok(Some(Incoming::Close(_))) => self.stop(Phase::Closed),
            Ok(_) => {}
        }
        step
    }

    /// Ends decoding and gives back the memory of whatever was unfinished.
    fn stop(&mut self, phase: Phase) {
        *self = Decoder {
            phase,
            ..Decoder::new(self.limits)
        };
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            if !self.payload(&mut frame, input) {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(incoming) = self.finish(&frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Collects a header; every rule that it can break is checked before a byte of payload is kept.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        // The first two bytes are judged alone: a client that is wrong already is not waited for.
        if !self.head_to(2, input) {
            return Ok(None);
        }
        let (fin, opcode, short) = self.start(self.head[0], self.head[1])?;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if !self.head_to(2 + extended + 4, input) {
            return Ok(None);
        }
        self.head_len = 0;
        let length = match extended {
            0 => u64::from(short),
            _ => self.head[2..2 + extended]
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        let minimal = match extended {
            0 => true,
            2 => length > 125,
            _ => length > u64::from(u16::MAX) && length >> 63 == 0,
        };
        if !minimal {
            return Err(Violation::BadLength);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.head[2 + extended..2 + extended + 4]);
        if !is_control(opcode) {
            let room = self.limits.max_message.saturating_sub(self.message.len());
            if length > room as u64 {
                return Err(Violation::MessageTooLarge);
            }
            if self.fragments >= self.limits.max_fragments {
                return Err(Violation::TooManyFragments);
            }
            self.fragments += 1;
            self.kind.get_or_insert(opcode);
        }
        // At most `max_message` or 125 by now, so this loses nothing.
        let left = length as usize;
        Ok(Some(Frame {
            fin,
            opcode,
            mask,
            left,
        }))
    }

    /// Judges the first two bytes of a frame; gives `fin`, the opcode and the seven-bit length.
    fn start(&self, first: u8, second: u8) -> Result<(bool, OpCode, u8), Violation> {
        let (fin, short) = (first & 0x80 != 0, second & 0x7F);
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = OpCode::try_from(first & 0x0F).map_err(|_| Violation::ReservedOpcode)?;
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        match opcode {
            OpCode::Close | OpCode::Ping | OpCode::Pong if !fin => Err(Violation::FragmentedControl),
            OpCode::Close | OpCode::Ping | OpCode::Pong if usize::from(short) > MAX_CONTROL => {
                Err(Violation::LongControl)
            }
            OpCode::Continuation if self.kind.is_none() => Err(Violation::LoneContinuation),
            OpCode::Text | OpCode::Binary if self.kind.is_some() => Err(Violation::NestedMessage),
            _ => Ok((fin, opcode, short)),
        }
    }

    /// Fills the header up to `wanted` bytes; false if the input ended before.
    fn head_to(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let have = usize::from(self.head_len);
        let taken = wanted.saturating_sub(have).min(input.len());
        let (now, later) = input.split_at(taken);
        self.head[have..have + taken].copy_from_slice(now);
        self.head_len += taken as u8;
        *input = later;
        have + taken >= wanted
    }

    /// Moves payload from the input to where it is collected; true when the frame is complete.
    fn payload(&mut self, frame: &mut Frame, input: &mut &[u8]) -> bool {
        let (into, most) = match is_control(frame.opcode) {
            true => (&mut self.control, MAX_CONTROL),
            false => (&mut self.message, self.limits.max_message),
        };
        let (now, later) = input.split_at(frame.left.min(input.len()));
        let start = into.len();
        if into.capacity() - start < now.len() {
            // Doubling, as `Vec` does, but never beyond what the message may become.
            into.reserve_exact(now.len().max(start.min(most.saturating_sub(start))));
        }
        into.extend_from_slice(now);
        unmask(&mut into[start..], frame.mask);
        frame.mask.rotate_left(now.len() % 4);
        frame.left -= now.len();
        *input = later;
        frame.left == 0
    }

    /// What a complete frame completes: itself, the message it ends, or nothing yet.
    fn finish(&mut self, frame: &Frame) -> Result<Option<Incoming>, Violation> {
        let incoming = match frame.opcode {
            OpCode::Ping => Incoming::Ping(std::mem::take(&mut self.control)),
            OpCode::Pong => Incoming::Pong(std::mem::take(&mut self.control)),
            OpCode::Close => Incoming::Close(close_body(&self.control)?),
            OpCode::Continuation | OpCode::Text | OpCode::Binary if !frame.fin => return Ok(None),
            OpCode::Continuation | OpCode::Text | OpCode::Binary => {
                self.fragments = 0;
                let (kind, bytes) = (self.kind.take(), std::mem::take(&mut self.message));
                match kind {
                    // Checked as a whole: a character may be split between fragments, but not at the end.
                    Some(OpCode::Text) => Incoming::Text(String::from_utf8(bytes).map_err(|_| Violation::NotUtf8)?),
                    _ => Incoming::Binary(bytes),
                }
            }
        };
        Ok(Some(incoming))
    }
}

fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

/// Whether a close frame may carry this code. `CloseCode` does not know 1014 (bad gateway), registered after it.
fn may_be_sent(code: u16) -> bool {
    code == 1014 || CloseCode::from(code).is_allowed()
}

fn close_body(payload: &[u8]) -> Result<Option<(u16, String)>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::BadClose);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Some((code, reason.to_owned())))
        }
        [_] => Err(Violation::BadClose),
    }
}

/// Appends a text message, which must be UTF-8 (JSON is).
pub fn text(out: &mut Vec<u8>, payload: &[u8]) {
    out.reserve(10 + payload.len());
    head(out, OpCode::Text, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a ping; a payload of more than 125 bytes is cut.
pub fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, OpCode::Ping, payload);
}

/// Appends the answer to a ping; a payload of more than 125 bytes (which no ping has) is cut.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, OpCode::Pong, payload);
}

/// Appends a close frame; the reason is cut to 123 bytes, not inside a character.
///
/// A code that must not be sent (1005, "no code", is one) makes the frame an empty one, so that this never writes what
/// the RFC forbids.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = Vec::new();
    if may_be_sent(code) {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX_CONTROL - 2)]);
    }
    control(out, OpCode::Close, &payload);
}

/// The place of a header that [`begin_text`] has left open.
#[derive(Debug)]
#[must_use = "the frame has no header until `end_text` writes it"]
pub struct Mark {
    at: usize,
}

/// Begins a text message whose payload will be serialized straight into `out`, to be ended by [`end_text`].
///
/// Between the two, `out` may only grow.
pub fn begin_text(out: &mut Vec<u8>) -> Mark {
    let at = out.len();
    out.resize(at + RESERVED, 0);
    Mark { at }
}

/// Ends a text message: all that was appended since [`begin_text`] is its payload.
///
/// In place for 126 to 65,535 bytes; otherwise the payload moves, by two bytes back or by six forth.
pub fn end_text(out: &mut Vec<u8>, mark: Mark) {
    let from = (mark.at + RESERVED).min(out.len());
    let length = out.len() - from;
    let (bytes, size) = head_bytes(OpCode::Text, length);
    let to = mark.at + size;
    if to > from {
        out.resize(to + length, 0);
    }
    out.copy_within(from..from + length, to);
    out.truncate(to + length);
    out[mark.at..to].copy_from_slice(&bytes[..size]);
}

/// Forgets a text message that was begun, with all that was appended since: for a payload that failed to serialize.
pub fn abandon_text(out: &mut Vec<u8>, mark: Mark) {
    out.truncate(mark.at);
}

fn control(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    out.reserve(2 + payload.len());
    head(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

fn head(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let (bytes, size) = head_bytes(opcode, length);
    out.extend_from_slice(&bytes[..size]);
}

/// The header of an unmasked, unfragmented frame and how many of the bytes it takes.
fn head_bytes(opcode: OpCode, length: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let size = match length {
        0..=125 => {
            bytes[1] = length as u8;
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (bytes, size)
}
