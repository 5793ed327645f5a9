//! Serves an [`Api`] on a listener: accepts connections, speaks HTTP/1.1 with upgrades on them, and ends in order.

use crate::api::Api;
use crate::limits::{ClientAddr, Visit};
use crate::patient::{Patient, Serving};
use crate::reply::Body;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{self, IntoFuture};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

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

/// A body, while which is sent a request is served: some come bit by bit, and take as long as they like.
struct Served {
    body: Body,
    serving: Serving,
}

impl hyper::body::Body for Served {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.set(false);
    }
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
    while let Some(place) = api.place().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Of one address too many: closed without a word, which would cost more than it is worth.
                if let Some(visit) = api.enter(place, peer.ip()) {
                    let visit = Arc::new(visit);
                    connections.spawn(connection(
                        stream,
                        visit,
                        peer.ip(),
                        api.clone(),
                        ending.clone(),
                        keep_alive,
                    ));
                }
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
async fn connection(
    stream: TcpStream,
    visit: Arc<Visit>,
    peer: IpAddr,
    api: Api,
    ending: CancellationToken,
    keep_alive: bool,
) {
    // Everything is written whole; waiting for more to send would only delay it.
    let _ = stream.set_nodelay(true);
    let limits = api.limits();
    let serving = Serving::default();
    let io = Patient::new(TokioIo::new(stream), limits, serving.clone());
    let mut http = http1::Builder::new();
    // The head's time is kept by `Patient`: hyper has one timer for a head and for having none.
    http.header_read_timeout(None)
        .keep_alive(keep_alive)
        .max_headers(limits.headers as usize)
        .max_header_size(limits.header_bytes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        serving.set(true);
        request.extensions_mut().insert(ClientAddr(peer));
        request.extensions_mut().insert(Arc::clone(&visit));
        let answering = api.clone().call(request);
        let serving = serving.clone();
        async move {
            let answer = answering.await;
            answer.map(|answer| answer.map(|body| Served { body, serving }))
        }
    });
    let served = http.serve_connection(io, service).with_upgrades();
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
