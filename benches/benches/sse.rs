//! How fast server-sent events are taken apart, beside `eventsource-stream` on the same bytes: an answer of 17 KB in 400
//! events, as Gemini frames them, in pieces as a connection brings them.
//!
//! `cargo bench -p coop-benches --bench sse`.

use coop_bots::sse::SseDecoder;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eventsource_stream::Eventsource;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use std::convert::Infallible;
use std::hint::black_box;

const EVENTS: usize = 400;
/// About what a TLS record of a small event brings, and about what fills a buffer.
const PIECES: [usize; 2] = [300, 8 << 10];

fn answer() -> Vec<u8> {
    let event = |number| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \"piece {number} of some forty bytes, as they come \"\
             }}],\"role\": \"model\"}}}}],\"usageMetadata\": {{\"promptTokenCount\": 12,\"totalTokenCount\": {number}}},\
             \"modelVersion\": \"gemini-3.8-flash\"}}\r\n\r\n"
        )
    };
    (0..EVENTS).map(event).collect::<String>().into_bytes()
}

fn ours(pieces: &[Vec<u8>]) -> usize {
    let (mut decoder, mut count) = (SseDecoder::new(8 << 20), 0);
    for piece in pieces {
        let fed = decoder.feed(piece, |event| {
            black_box(event);
            count += 1;
        });
        assert!(fed.is_ok());
    }
    count
}

fn theirs(pieces: Vec<Vec<u8>>) -> usize {
    let bytes = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    // It never waits: all pieces are there.
    bytes
        .eventsource()
        .map(black_box)
        .count()
        .now_or_never()
        .unwrap_or_default()
}

fn sse(criterion: &mut Criterion) {
    let answer = answer();
    for size in PIECES {
        let pieces: Vec<Vec<u8>> = answer.chunks(size).map(<[u8]>::to_vec).collect();
        assert_eq!((ours(&pieces), theirs(pieces.clone())), (EVENTS, EVENTS));
        let mut group = criterion.benchmark_group(format!("sse, pieces of {size} bytes"));
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function("ours", |bencher| bencher.iter(|| ours(&pieces)));
        group.bench_function("eventsource-stream", |bencher| {
            bencher.iter_batched(|| pieces.clone(), theirs, BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(benches, sse);
criterion_main!(benches);
