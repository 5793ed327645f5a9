//! The server of `coop-server` on an engine's own threads.

use crate::bot::seconds;
use crate::bridge::{Call, Link, lock};
use crate::error::Failure;
use crate::here::Here;
use coop_core::{Error, ErrorKind};
use coop_server::{Api, Limits, Secret};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What Python says of a server.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    host: String,
    port: u16,
    secret: Option<String>,
    registration: bool,
    web: bool,
    cors_origins: Vec<String>,
    trusted_proxies: Vec<String>,
    token_ttl: f64,
    /// By name; `None` for without any.
    limits: Option<Vec<(String, String)>>,
}

impl Settings {
    /// The address, and the service.
    fn build(self, engine: coop_core::Engine) -> PyResult<((String, u16), Api)> {
        let limits = match self.limits {
            None => Limits::off(),
            Some(given) => {
                let mut limits = Limits::default();
                for (name, value) in given {
                    limits.set(&name, &value).map_err(bad)?;
                }
                limits
            }
        };
        let secret = match self.secret {
            Some(secret) => Secret::new(secret).map_err(bad)?,
            None => Secret::random()?,
        };
        let api = Api::builder(engine)
            .secret(secret)
            .token_ttl(seconds("token_ttl", self.token_ttl)?)
            .registration(self.registration)
            .web(self.web)
            .cors_origins(self.cors_origins)
            .trusted_proxies(self.trusted_proxies)
            .limits(limits)
            .build()
            .map_err(bad)?;
        Ok(((self.host, self.port), api))
    }
}

fn bad(error: impl std::error::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Begins to serve. The outcome is the server, once it listens.
pub(crate) fn serve(link: &Link, call: u64, engine: coop_core::Engine, settings: Settings) -> PyResult<Call> {
    let (at, api) = settings.build(engine)?;
    let own = link.clone();
    Ok(link.start(call, async move {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let told = stop.clone().cancelled_owned();
        let task = own.runtime.spawn(
            coop_server::serve(listener, api)
                .with_graceful_shutdown(told)
                .into_future(),
        );
        Ok::<_, Failure>(Server(Here::new(Running {
            link: own,
            address,
            stop,
            task: Mutex::new(Some(task)),
        })))
    }))
}

struct Running {
    link: Link,
    address: SocketAddr,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A server that runs.
#[pyclass(frozen)]
pub(crate) struct Server(Here<Running>);

#[pymethods]
impl Server {
    /// Where it listens.
    #[getter]
    fn address(&self) -> (String, u16) {
        let address = self.0.get().address;
        (address.ip().to_string(), address.port())
    }

    /// Begins its end: requests get their answers, sockets are closed.
    fn begin_stop(&self) {
        self.0.get().stop.cancel();
    }

    /// The outcome comes when it has ended. Asked for once.
    fn ended(&self, call: u64) -> Call {
        let running = self.0.get();
        let task = lock(&running.task).take();
        running.link.start(call, async move {
            match task {
                Some(task) => task
                    .await
                    .map_err(|error| Error::new(ErrorKind::Internal, "the server failed").with_source(error)),
                None => Ok(()),
            }
        })
    }
}
