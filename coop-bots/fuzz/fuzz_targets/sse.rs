//! A stream of server-sent events means the same however the network cuts it.

#![no_main]

use coop_bots::sse::{Sse, SseDecoder, TooLong};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (cuts, data) = data.split_at(data.len().min(8));
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in cuts {
        let (piece, others) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = others;
    }
    pieces.push(rest);
    assert_eq!(decoded(&pieces), decoded(&[data]), "cut by {cuts:?}");
});

fn decoded(pieces: &[&[u8]]) -> (Vec<Sse>, Result<(), TooLong>) {
    let mut decoder = SseDecoder::new(256);
    let mut all = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.feed(piece, |sse| all.push(sse)) {
            return (all, Err(error));
        }
    }
    let end = decoder.finish(|sse| all.push(sse));
    (all, end)
}
