//! A connection that does not wait for ever. HTTP itself bounds neither how long a client may take to send the head of a
//! request, nor how long it may have none, nor how long it may take nothing of an answer that is there for it.
//!
//! It knows no HTTP: it is told when a request is being served, because only then may nothing be expected of the client.

use crate::limits::Limits;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

pub(crate) struct Patient<T> {
    inner: T,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Runs while no request is served: until its first byte comes, and then until its head is whole.
    awaiting: Option<(Expected, Pin<Box<Sleep>>)>,
    /// How long a write may wait.
    patience: Duration,
    /// How long it may be until the first byte of a head.
    idle: Duration,
    /// How long it may be from there until the head is whole.
    head: Duration,
    serving: Serving,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    FirstByte,
    WholeHead,
}

/// Whether a request of this connection is being served.
#[derive(Clone, Default)]
pub(crate) struct Serving(Arc<AtomicBool>);

impl Serving {
    pub(crate) fn set(&self, serving: bool) {
        self.0.store(serving, Ordering::Relaxed);
    }
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, limits: &Limits, serving: Serving) -> Self {
        Self {
            inner,
            waiting: None,
            awaiting: None,
            patience: limits.request_timeout,
            idle: limits.idle_timeout,
            head: limits.header_timeout,
            serving,
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
    }

    /// Fails when what is expected has not come in time; otherwise whoever asks is woken then.
    fn check(&mut self, came: bool, cx: &mut Context<'_>) -> io::Result<()> {
        if self.serving.0.load(Ordering::Relaxed) {
            self.awaiting = None;
            return Ok(());
        }
        let (expected, sleeping) = self
            .awaiting
            .get_or_insert_with(|| (Expected::FirstByte, Box::pin(sleep(self.idle))));
        if came && *expected == Expected::FirstByte {
            *expected = Expected::WholeHead;
            sleeping.as_mut().reset(Instant::now() + self.head);
        }
        match sleeping.as_mut().poll(cx) {
            Poll::Ready(()) => Err(ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: Unpin> Patient<T> {
    fn bounded<V>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<V>>,
    ) -> Poll<io::Result<V>> {
        if let Poll::Ready(done) = step(Pin::new(&mut self.inner), cx) {
            self.waiting = None;
            return Poll::Ready(done);
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<T: Read + Unpin> Read for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.check(read.is_ready(), cx)?;
        read
    }
}

impl<T: Write + Unpin> Write for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bounded(cx, |inner, cx| inner.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.bounded(cx, |inner, cx| inner.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.bounded(cx, |inner, cx| inner.poll_flush(cx));
        // After an answer HTTP may not read again before it is woken; the time without a request runs from here. That
        // it has run out is told to the reader.
        let _ = self.check(false, cx);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bounded(cx, |inner, cx| inner.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PATIENCE: Duration = Duration::from_secs(15);
    const IDLE: Duration = Duration::from_secs(30);
    const HEAD: Duration = Duration::from_secs(10);

    fn patient(io: tokio::io::DuplexStream, serving: Serving) -> Patient<TokioIo<tokio::io::DuplexStream>> {
        Patient::new(TokioIo::new(io), &Limits::default(), serving)
    }

    /// Reads up to this many bytes at a time until it fails; after how long that is.
    async fn fails_after(patient: Patient<TokioIo<tokio::io::DuplexStream>>) -> Duration {
        let begun = Instant::now();
        let mut patient = TokioIo::new(patient);
        let mut bytes = [0; 16];
        loop {
            match patient.read(&mut bytes).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    return begun.elapsed();
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_however_it_drips() {
        let (ours, mut theirs) = duplex(16);
        let failed = tokio::spawn(fails_after(patient(ours, Serving::default())));
        sleep(IDLE - Duration::from_secs(1)).await;
        while !failed.is_finished() {
            let _ = theirs.write_all(b"x").await;
            sleep(Duration::from_millis(700)).await;
        }
        let late = failed.await.unwrap() - (IDLE - Duration::from_secs(1));
        assert!(late >= HEAD && late < HEAD + Duration::from_secs(1), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_request_it_is_kept_for_a_while_and_while_one_is_served_for_ever() {
        let (ours, _theirs) = duplex(16);
        let serving = Serving::default();
        serving.set(true);
        let failing = tokio::spawn(fails_after(patient(ours, serving.clone())));
        sleep(10 * IDLE).await;
        assert!(!failing.is_finished());
        let (ours, _theirs) = duplex(16);
        assert_eq!(
            fails_after(patient(ours, Serving::default())).await.as_secs(),
            IDLE.as_secs()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_when_nothing_is_taken_for_a_while_and_not_before() {
        let (ours, mut theirs) = duplex(16);
        let mut patient = patient(ours, Serving::default());
        let begun = Instant::now();
        let reading = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 16]).await.unwrap();
            }
            theirs
        });
        let mut written = 0;
        let error = loop {
            match poll_fn(|cx| Pin::new(&mut patient).poll_write(cx, &[0; 16])).await {
                Ok(bytes) => written += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), written), (ErrorKind::TimedOut, 4 * 16));
        assert_eq!(
            begun.elapsed().as_secs(),
            3 * (PATIENCE.as_secs() - 1) + PATIENCE.as_secs()
        );
        drop(reading.await.unwrap());
    }
}
