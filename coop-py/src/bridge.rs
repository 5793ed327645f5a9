//! The way between the engine's threads and the loop: one queue, and one file descriptor that wakes the loop when
//! something comes into an empty queue.
//!
//! Why not a coroutine or a callback for each thing: a thread that calls into Python waits for the interpreter, which a
//! busy bot may hold for as long as it likes, and every such call costs a switch of threads. Here a thread appends to a
//! list, and the loop fetches a hundred things with one wake-up. Nothing in the queue is a Python object, so nothing of
//! Python is touched or freed by a foreign thread, also not while the interpreter ends.
//!
//! A future's result is looked up by its number on the loop's side; a wait that was cancelled there has aborted its task
//! here, and a result that has overtaken that finds nobody and is dropped.

use crate::bot::Ask;
use crate::error::Failure;
use crate::here::Here;
use crate::log::Record;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How many log records wait at most; of more only the number is told.
const RECORDS: usize = 1_000;

/// Locks. What is behind these locks is changed in steps that cannot panic halfway.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a result's Python object, on the loop's thread.
type Make = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Py<PyAny>> + Send>;

/// What has come for the loop. Bounded by what was begun from Python: one result for each call that is under way, one
/// wake-up for each subscription that is waited for, and an ask and a stop for each turn of a Python bot.
#[derive(Default)]
struct Queue {
    results: Vec<(u64, Result<Make, Failure>)>,
    ready: Vec<u64>,
    asks: Vec<Ask>,
    stops: Vec<u64>,
    records: VecDeque<Record>,
    /// How many records found no room.
    lost: u64,
    /// When the loop was woken, if it has not come yet.
    woken: Option<Instant>,
}

/// The engine's end of the way.
pub(crate) struct Way {
    queue: Mutex<Queue>,
    wake: Wake,
}

/// What wakes the loop.
struct Wake {
    /// The loop waits until this can be read.
    read: OwnedFd,
    /// Where that is another descriptor than the one that is read.
    write: Option<OwnedFd>,
}

impl Wake {
    #[cfg(target_os = "linux")]
    fn new() -> rustix::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let read = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { read, write: None })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> rustix::io::Result<Self> {
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            rustix::io::ioctl_fionbio(end, true)?;
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        }
        let write = Some(write);
        Ok(Self { read, write })
    }

    fn wake(&self) {
        // It can only be full, and then the loop is awake.
        let _ = rustix::io::write(self.write.as_ref().unwrap_or(&self.read).as_fd(), &1_u64.to_ne_bytes());
    }

    fn awake(&self) {
        let mut bytes = [0; 64];
        let _ = rustix::io::read(&self.read, &mut bytes);
    }
}

impl Way {
    fn add(&self, what: impl FnOnce(&mut Queue)) {
        let mut queue = lock(&self.queue);
        what(&mut queue);
        if queue.woken.is_none() {
            queue.woken = Some(Instant::now());
            drop(queue);
            self.wake.wake();
        }
    }

    fn result(&self, call: u64, result: Result<Make, Failure>) {
        self.add(|queue| queue.results.push((call, result)));
    }

    /// The subscription of this number has something.
    pub(crate) fn ready(&self, subscription: u64) {
        self.add(|queue| queue.ready.push(subscription));
    }

    /// A Python bot is asked.
    pub(crate) fn ask(&self, ask: Ask) {
        self.add(|queue| queue.asks.push(ask));
    }

    /// That turn is over, whatever its bot does.
    pub(crate) fn stop(&self, run: u64) {
        self.add(|queue| queue.stops.push(run));
    }

    pub(crate) fn record(&self, record: Record) {
        self.add(|queue| {
            if queue.records.len() < RECORDS {
                queue.records.push_back(record);
            } else {
                queue.lost += 1;
            }
        });
    }
}

/// Begins what Python has asked for.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) way: Arc<Way>,
    pub(crate) runtime: Handle,
}

impl Link {
    /// Does this on the engine's threads. Its outcome goes to the loop under the call's number.
    pub(crate) fn start<T, E>(&self, call: u64, doing: impl Future<Output = Result<T, E>> + Send + 'static) -> Call
    where
        T: for<'py> IntoPyObjectExt<'py> + Send + 'static,
        E: Into<Failure> + 'static,
    {
        let way = Arc::clone(&self.way);
        let task = self.runtime.spawn(async move {
            let result = doing.await;
            let made = result.map(|made| Box::new(move |py: Python<'_>| made.into_py_any(py)) as Make);
            way.result(call, made.map_err(Into::into));
        });
        Call(Here::new(task.abort_handle()))
    }
}

/// A call that is under way.
#[pyclass(frozen)]
pub(crate) struct Call(Here<AbortHandle>);

#[pymethods]
impl Call {
    /// Nobody waits for it any more: its future is dropped, wherever it stands.
    fn abort(&self) {
        self.0.get().abort();
    }
}

/// The loop's end of the way.
#[pyclass(frozen)]
pub(crate) struct Bridge(Here<Arc<Way>>);

impl Bridge {
    pub(crate) fn way(&self) -> &Arc<Way> {
        self.0.get()
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Self> {
        let way = Way {
            queue: Mutex::default(),
            wake: Wake::new().map_err(io::Error::from)?,
        };
        Ok(Self(Here::new(Arc::new(way))))
    }

    /// What the loop must watch.
    fn fileno(&self) -> i32 {
        self.way().wake.read.as_raw_fd()
    }

    /// Everything that has come: results as (call, object or exception, whether it failed), subscriptions that have
    /// something, asks as (bot, run, turn as JSON, answer), runs that are over, and log records as (level, name, text); and
    /// how many seconds the loop did not come after it was woken.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let way = self.way();
        let came = Instant::now();
        let mut queue = {
            let mut queue = lock(&way.queue);
            // Before the queue is seen as empty by who adds, so that no wake-up is taken back after it was given.
            way.wake.awake();
            std::mem::take(&mut *queue)
        };
        let results = PyList::empty(py);
        for (call, result) in queue.results {
            let made = match result {
                Ok(make) => make(py),
                Err(failure) => Err(failure.into_err(py)),
            };
            match made {
                Ok(object) => results.append((call, object, false))?,
                Err(error) => results.append((call, error.into_value(py), true))?,
            }
        }
        let asks = PyList::empty(py);
        for ask in queue.asks {
            asks.append(ask.into_tuple(py)?)?;
        }
        if queue.lost > 0 {
            queue.records.push_back(Record::lost(queue.lost));
        }
        let records: Vec<_> = queue.records.into_iter().map(Record::into_tuple).collect();
        let late = queue
            .woken
            .map_or(0.0, |woken| came.saturating_duration_since(woken).as_secs_f64());
        (results, queue.ready, asks, queue.stops, records, late).into_pyobject(py)
    }
}
