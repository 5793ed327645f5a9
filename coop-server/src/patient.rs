//! A connection that does not wait for ever until its client takes an answer: writing that makes no progress for a
//! while fails. HTTP itself has no such bound, and an answer may be some megabytes that would stay in memory.

use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Patient<T> {
    inner: T,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, waiting: None }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
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
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<T: Read + Unpin> Read for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
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
        self.bounded(cx, |inner, cx| inner.poll_flush(cx))
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
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_when_nothing_is_taken_for_a_while_and_not_before() {
        let (ours, mut theirs) = duplex(16);
        let mut patient = Patient::new(TokioIo::new(ours));
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
