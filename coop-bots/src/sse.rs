//! Server-sent events as providers stream them: bytes in, events out. It reads nothing by itself and knows no provider.
//!
//! The rules are those of <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>, but for
//! two: a last event without a blank line after it counts, because providers end their streams so, and lines that are no
//! field at all are not thrown away but given as [`Sse::Stray`], because some providers put an error among the events as
//! bare JSON, and some gateways a page of HTML.

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sse {
    /// The data of one event, its lines joined by a line feed.
    Event(String),
    /// Lines up to the next blank one that are no field of an event, joined in the same way.
    Stray(String),
}

/// An event or a line is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Takes a stream apart, however it is cut into pieces.
#[derive(Debug)]
pub struct SseDecoder {
    /// The most bytes of one event, and of one line.
    limit: usize,
    /// The line that has begun.
    line: Vec<u8>,
    data: Vec<u8>,
    stray: Vec<u8>,
    /// Whether the event that has begun has data, if only an empty line of it.
    has_data: bool,
    has_stray: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    /// Nothing has been read yet, so that a byte order mark may come.
    at_start: bool,
}

const MARK: &[u8] = b"\xef\xbb\xbf";

impl SseDecoder {
    /// One that takes at most `limit` bytes for an event.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            stray: Vec::new(),
            has_data: false,
            has_stray: false,
            after_return: false,
            at_start: true,
        }
    }

    /// Takes the next bytes, and gives what they complete.
    ///
    /// # Errors
    /// [`TooLong`]: the stream cannot be followed any further.
    pub fn feed(&mut self, mut bytes: &[u8], mut give: impl FnMut(Sse)) -> Result<(), TooLong> {
        if !bytes.is_empty() && std::mem::take(&mut self.after_return) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            self.extend(&bytes[..end])?;
            self.end_line(&mut give)?;
            let rest = &bytes[end + 1..];
            bytes = match (bytes[end], rest) {
                (b'\r', []) => {
                    self.after_return = true;
                    rest
                }
                (b'\r', rest) => rest.strip_prefix(b"\n").unwrap_or(rest),
                _ => rest,
            };
        }
        self.extend(bytes)
    }

    /// Takes the end of the stream, and gives what it completes.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn finish(mut self, mut give: impl FnMut(Sse)) -> Result<(), TooLong> {
        if !self.line.is_empty() {
            self.end_line(&mut give)?;
        }
        self.end_event(&mut give);
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + bytes.len() > self.limit {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, give: &mut impl FnMut(Sse)) -> Result<(), TooLong> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.at_start) && line.starts_with(MARK) {
            line.drain(..MARK.len());
        }
        if line.is_empty() {
            self.end_event(give);
        } else {
            self.take(&line)?;
        }
        // Its memory is used again.
        line.clear();
        self.line = line;
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), TooLong> {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let (buffer, begun, text) = match name {
            b"data" => (
                &mut self.data,
                &mut self.has_data,
                value.strip_prefix(b" ").unwrap_or(value),
            ),
            // A comment, and fields that say nothing about the data.
            b"" | b"event" | b"id" | b"retry" => return Ok(()),
            _ => (&mut self.stray, &mut self.has_stray, line),
        };
        if buffer.len() + text.len() + 1 > self.limit {
            return Err(TooLong);
        }
        if std::mem::replace(begun, true) {
            buffer.push(b'\n');
        }
        buffer.extend_from_slice(text);
        Ok(())
    }

    fn end_event(&mut self, give: &mut impl FnMut(Sse)) {
        if std::mem::take(&mut self.has_stray) {
            give(Sse::Stray(text(&mut self.stray)));
        }
        if std::mem::take(&mut self.has_data) {
            give(Sse::Event(text(&mut self.data)));
        }
    }
}

/// Half a character, which only a stream that broke off can leave, reads as U+FFFD.
fn text(bytes: &mut Vec<u8>) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    bytes.clear();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(pieces: &[&[u8]]) -> Result<Vec<Sse>, TooLong> {
        let (mut decoder, mut found) = (SseDecoder::new(1_000), Vec::new());
        for piece in pieces {
            decoder.feed(piece, |sse| found.push(sse))?;
        }
        decoder.finish(|sse| found.push(sse))?;
        Ok(found)
    }

    fn event(text: &str) -> Sse {
        Sse::Event(text.to_owned())
    }

    #[test]
    fn streams_as_they_come() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", vec![event("a"), event("b")]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec![event("a"), event("b")]),
            ("data: a\r\rdata: b\r\r", vec![event("a"), event("b")]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            (
                "data:a\ndata: b\ndata:  c\ndata\ndata:\n\n",
                vec![event("a\nb\n c\n\n")],
            ),
            (
                ": hello\nevent: x\nid: 1\nretry: 5\ndata: a\n\n: on\n\n",
                vec![event("a")],
            ),
            ("data: no end", vec![event("no end")]),
            ("data: no blank\n", vec![event("no blank")]),
            ("data: \u{2028}\u{85}:\n\n", vec![event("\u{2028}\u{85}:")]),
            (
                "data: a\u{feff}\n\n\u{feff}data: b\n\n",
                vec![event("a\u{feff}"), Sse::Stray("\u{feff}data: b".to_owned())],
            ),
            (
                "{\n  \"error\": 1\n}\n",
                vec![Sse::Stray("{\n  \"error\": 1\n}".to_owned())],
            ),
            ("", vec![]),
            ("\n\n\r\n", vec![]),
        ] {
            assert_eq!(decoded(&[stream.as_bytes()]), Ok(expected), "{stream:?}");
        }
        assert_eq!(decoded(&[b"data: \xf0\x9f"]), Ok(vec![event("\u{fffd}")]));
    }

    #[test]
    fn what_does_not_end_is_given_up() {
        assert_eq!(decoded(&[&[b'a'; 600], &[b'a'; 600]]), Err(TooLong));
        let many = "data: more\n".repeat(300);
        assert_eq!(decoded(&[many.as_bytes()]), Err(TooLong));
        let events = "data: more\n\n".repeat(200);
        assert_eq!(decoded(&[events.as_bytes()]).map(|found| found.len()), Ok(200));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_makes_no_difference(
            stream in r"(\u{feff})?((data: ?|: |x|event:|\{)?[a-c:é🙂\u{2028}]{0,6}(\r|\n|\r\n)){0,20}(data: é)?",
            cuts in prop::collection::vec(0_usize..200, 0..8),
        ) {
            let whole = decoded(&[stream.as_bytes()]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                pieces.push(&stream.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&decoded(&pieces), &whole);
            let bytes: Vec<_> = stream.as_bytes().chunks(1).collect();
            prop_assert_eq!(&decoded(&bytes), &whole);
        }
    }
}
