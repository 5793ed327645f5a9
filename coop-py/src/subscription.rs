//! A subscription as Python reads it: a look that never waits, and a number under which the loop is told to look again.
//!
//! No event is ever taken inside a wait. A wait can be cancelled at any moment, and what a cancelled one had taken would be
//! lost; a look takes an event and returns it in one step of the loop's own thread.

use crate::bridge::{Link, Way, lock};
use crate::error::raised;
use crate::event;
use crate::here::Here;
use coop_core::{Event, Position};
use futures::Stream;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

struct Reading {
    from: From,
    position: Option<Position>,
}

enum From {
    /// The engine.
    Stream(coop_core::Subscription),
    /// What was left when the engine's threads ended, with where each leads.
    Rest(VecDeque<(coop_core::Result<Event>, Option<Position>)>),
    /// It was closed.
    Nothing,
}

struct Again {
    way: Arc<Way>,
    number: u64,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.way.ready(self.number);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.way.ready(self.number);
    }
}

/// A subscription.
#[pyclass(frozen, weakref)]
pub(crate) struct Subscription(Here<Inner>);

struct Inner {
    link: Link,
    waker: Waker,
    reading: Mutex<Reading>,
}

impl Subscription {
    pub(crate) fn new(link: Link, number: u64, stream: coop_core::Subscription) -> Self {
        let way = Arc::clone(&link.way);
        let position = stream.position().cloned();
        Self(Here::new(Inner {
            link,
            waker: Arc::new(Again { way, number }).into(),
            reading: Mutex::new(Reading {
                from: From::Stream(stream),
                position,
            }),
        }))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        let mut reading = lock(&self.reading);
        reading.position = reading.stands();
        // What it lets go of may be let go by a task of its own.
        let _runtime = self.link.runtime.enter();
        reading.from = From::Nothing;
    }

    /// The next event, if there is one now.
    fn look(&self, reading: &mut Reading) -> Poll<Option<coop_core::Result<Event>>> {
        match &mut reading.from {
            From::Stream(stream) => {
                // What it asks of the store may want a clock or a socket.
                let _runtime = self.link.runtime.enter();
                Pin::new(stream).poll_next(&mut Context::from_waker(&self.waker))
            }
            From::Rest(rest) => Poll::Ready(rest.pop_front().map(|(next, position)| {
                reading.position = position;
                next
            })),
            From::Nothing => Poll::Ready(None),
        }
    }
}

#[pymethods]
impl Subscription {
    /// The next event, or None if there is none yet: then the loop is told under this subscription's number when it is
    /// worth looking again. StopAsyncIteration at the end.
    fn look(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let inner = self.0.get();
        // Let go of before Python is called: whoever waits for it may hold the interpreter.
        let looked = inner.look(&mut lock(&inner.reading));
        match looked {
            Poll::Pending => Ok(None),
            Poll::Ready(None) => Err(PyStopAsyncIteration::new_err(())),
            Poll::Ready(Some(Err(error))) => Err(raised(py, &error)),
            Poll::Ready(Some(Ok(event))) => event::object(py, event).map(Some),
        }
    }

    /// Where it stands, as JSON: after the last event that was looked at. None for one of all rooms.
    fn position(&self) -> Option<String> {
        let position = lock(&self.0.get().reading).stands();
        position.and_then(|position| serde_json::to_string(&position).ok())
    }

    /// Takes out what is left, as the engine's threads are about to end.
    fn keep_rest(&self) {
        let inner = self.0.get();
        let mut reading = lock(&inner.reading);
        if !matches!(reading.from, From::Stream(_)) {
            return;
        }
        reading.position = reading.stands();
        let mut rest = VecDeque::new();
        while let Poll::Ready(Some(next)) = inner.look(&mut reading) {
            let failed = next.is_err();
            rest.push_back((next, reading.stands()));
            if failed {
                break;
            }
        }
        reading.from = From::Rest(rest);
    }

    /// Ends it: nothing more is read.
    fn close(&self) {
        self.0.get().close();
    }
}

impl Reading {
    fn stands(&self) -> Option<Position> {
        match &self.from {
            From::Stream(stream) => stream.position().cloned(),
            _ => self.position.clone(),
        }
    }
}
