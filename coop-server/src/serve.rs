//! Serves an [`Api`] on a listener: accepts connections, speaks HTTP/1.1 with upgrades on them, and ends in order.

use crate::api::Api;
use crate::patient::Patient;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::{self, IntoFuture};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// How long the head of a request may take, and how long a connection is kept that has no request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How long requests that are being answered have when the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(15);
/// How long to wait when the system has no more files, before the next connection is accepted.
const BREATH: Duration = Duration::from_millis(50);

/// A server that will run when it is awaited; made by [`serve`].
#[must_use = "a server runs when it is awaited"]
pub struct Serve {
    listener: TcpListener,
    api: Api,
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    grace: Option<Duration>,
}

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Serves on this listener, for ever or until [a signal](Serve::with_graceful_shutdown).
pub fn serve(listener: TcpListener, api: Api) -> Serve {
    Serve {
        listener,
        api,
        signal: Box::pin(future::pending()),
        grace: None,
    }
}

impl Serve {
    /// Ends when this future does: `/ready` says so, requests get their answers, sockets are closed.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Box::pin(signal);
        self
    }

    /// At the end closes the engine too, before the sockets: people see answers go on for this long, and until they have
    /// ended `/ready` can still be asked.
    pub fn and_close_engine(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    async fn run(self) {
        let Self {
            listener,
            api,
            signal,
            grace,
        } = self;
        let connections = TaskTracker::new();
        let ending = CancellationToken::new();
        tokio::select! {
            biased;
            () = signal => {}
            () = accept(&listener, &api, &connections, &ending, true) => {}
        }
        api.drain();
        ending.cancel();
        // Whoever asks while answers go on is told that this server is not ready, rather than nothing.
        let last = CancellationToken::new();
        if let Some(grace) = grace {
            tokio::select! {
                biased;
                () = api.engine().close(grace) => {}
                () = accept(&listener, &api, &connections, &last, false) => {}
            }
        }
        drop(listener);
        last.cancel();
        connections.close();
        api.close_sockets().await;
        if timeout(LAST_ANSWERS, connections.wait()).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
    }
}

/// Accepts connections for ever. Each ends in order when `ending` is cancelled.
async fn accept(
    listener: &TcpListener,
    api: &Api,
    connections: &TaskTracker,
    ending: &CancellationToken,
    keep_alive: bool,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, api.clone(), ending.clone(), keep_alive));
            }
            Err(error) => {
                // Of one connection, or of the whole process: either way the next one may do better soon.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(BREATH).await;
            }
        }
    }
}

impl IntoFuture for Serve {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Serves one connection until it is closed, upgraded or the server ends.
async fn connection(stream: TcpStream, api: Api, ending: CancellationToken, keep_alive: bool) {
    // Everything is written whole; waiting for more to send would only delay it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| api.clone().call(request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(Patient::new(TokioIo::new(stream)), service)
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        biased;
        ended = &mut served => ended,
        () = ending.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
