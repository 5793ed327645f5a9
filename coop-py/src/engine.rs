//! An engine with threads of its own, as Python opens, calls and closes it.

use crate::bot::{Profile, PythonBot, seconds};
use crate::bridge::{Bridge, Call, Link, lock};
use crate::builtin::BuiltinBot;
use crate::error::raised;
use crate::here::Here;
use crate::log;
use crate::server::{self, Settings};
use crate::user::User;
use coop_core::bus::redis::RedisBus;
use coop_core::store::connect;
use coop_core::{BusState, Error, Result, UserId};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The most threads an engine has: it waits more than it computes.
const THREADS: usize = 4;
/// How long an engine that nobody has closed may take to end with the process.
const LAST: Duration = Duration::from_secs(2);
/// How long its threads may take to end.
const JOIN: Duration = Duration::from_secs(1);

struct House {
    link: Link,
    engine: Mutex<Option<coop_core::Engine>>,
    /// Until it is closed.
    runtime: Mutex<Option<Runtime>>,
}

/// An engine.
#[pyclass(frozen)]
pub(crate) struct Engine(Here<Arc<House>>);

/// Makes an engine's threads. Nothing is opened yet.
#[pyfunction]
pub(crate) fn open(bridge: &Bridge) -> PyResult<Engine> {
    let way = Arc::clone(bridge.way());
    let weak = Arc::downgrade(&way);
    log::opened(&way);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS))
        .thread_name("coop-engine")
        .on_thread_start(move || log::works_for(&weak))
        .enable_all()
        .build()?;
    Ok(Engine(Here::new(Arc::new(House {
        link: Link {
            way,
            runtime: runtime.handle().clone(),
        },
        engine: Mutex::default(),
        runtime: Mutex::new(Some(runtime)),
    }))))
}

async fn connected(url: String, bus: Option<String>, migrate: bool) -> Result<coop_core::Engine> {
    let is_memory = url == "sqlite::memory:";
    if !migrate && !is_memory {
        let steps = connect::schema(&url).await?;
        if let Some(step) = steps.iter().find(|step| !step.applied) {
            return Err(Error::bad_request(format!(
                "the schema lacks step {} ({}), and migrate=False forbids to take it",
                step.version, step.description
            )));
        }
    }
    let mut builder = coop_core::Engine::builder_on(connect::connect(&url).await?);
    if let Some(bus) = bus {
        builder = builder.bus(RedisBus::new(&bus)?);
    }
    builder.build().await
}

impl House {
    /// # Errors
    /// `Closed` before it is connected, and after it was closed.
    fn engine(&self) -> Result<coop_core::Engine> {
        lock(&self.engine).clone().ok_or_else(Error::closed)
    }
}

impl Engine {
    fn user_call<F>(&self, py: Python<'_>, call: u64, doing: impl FnOnce(coop_core::Engine) -> F) -> PyResult<Call>
    where
        F: Future<Output = Result<coop_core::User>> + Send + 'static,
    {
        let house = self.0.get();
        let engine = house.engine().map_err(|error| raised(py, &error))?;
        let (doing, link) = (doing(engine), house.link.clone());
        Ok(house
            .link
            .start(call, async move { doing.await.map(|user| User::new(&link, user)) }))
    }
}

#[pymethods]
impl Engine {
    /// Opens the store, and the engine on it.
    fn connect(&self, call: u64, url: String, bus: Option<String>, migrate: bool) -> Call {
        let house = self.0.get();
        let own = Arc::clone(house);
        house.link.start(call, async move {
            let engine = connected(url, bus, migrate).await?;
            *lock(&own.engine) = Some(engine);
            Result::<(), Error>::Ok(())
        })
    }

    fn create_user(&self, py: Python<'_>, call: u64, name: String) -> PyResult<Call> {
        self.user_call(py, call, async move |engine| engine.create_user(&name).await)
    }

    fn register(&self, py: Python<'_>, call: u64, name: String, email: String, password: String) -> PyResult<Call> {
        self.user_call(py, call, async move |engine| {
            engine.register(&name, &email, password).await
        })
    }

    fn authenticate(&self, py: Python<'_>, call: u64, name: String, password: String) -> PyResult<Call> {
        self.user_call(py, call, async move |engine| engine.authenticate(&name, password).await)
    }

    fn user(&self, py: Python<'_>, call: u64, id: i64) -> PyResult<Call> {
        self.user_call(py, call, async move |engine| engine.user(UserId(id)).await)
    }

    fn find_user(&self, py: Python<'_>, call: u64, name: String) -> PyResult<Call> {
        self.user_call(py, call, async move |engine| engine.find_user(&name).await)
    }

    /// A bot of the loop's, which knows it by this number.
    fn add_python_bot(&self, py: Python<'_>, number: u64, profile: Profile) -> PyResult<()> {
        let house = self.0.get();
        let bot = PythonBot::new(number, profile, Arc::clone(&house.link.way))?;
        let added = house.engine().and_then(|engine| engine.add_bot(bot));
        added.map_err(|error| raised(py, &error))
    }

    fn add_builtin_bot(&self, py: Python<'_>, bot: &BuiltinBot) -> PyResult<()> {
        let added = self.0.get().engine();
        let added = added.and_then(|engine| engine.add_bot(Arc::clone(&bot.0)));
        added.map_err(|error| raised(py, &error))
    }

    /// The handles of its bots; the first is the default.
    fn bots(&self) -> Vec<String> {
        self.0.get().engine().map(|engine| engine.bots()).unwrap_or_default()
    }

    fn rooms_in_memory(&self) -> usize {
        let engine = self.0.get().engine();
        engine.map(|engine| engine.rooms_in_memory()).unwrap_or_default()
    }

    /// Whether the way to other engines is up; None if there is none.
    fn bus_is_up(&self) -> Option<bool> {
        let state = self.0.get().engine().ok()?.bus_state()?;
        Some(state == BusState::Up)
    }

    fn serve(&self, py: Python<'_>, call: u64, settings: Settings) -> PyResult<Call> {
        let house = self.0.get();
        let engine = house.engine().map_err(|error| raised(py, &error))?;
        server::serve(&house.link, call, engine, settings)
    }

    /// Closes the engine: answers go on for so long. Its threads go on until they are joined.
    fn close(&self, call: u64, grace: f64) -> PyResult<Call> {
        let house = self.0.get();
        let grace = seconds("grace", grace)?;
        let engine = lock(&house.engine).clone();
        Ok(house.link.start(call, async move {
            if let Some(engine) = engine {
                engine.close(grace).await;
            }
            Result::<(), Error>::Ok(())
        }))
    }

    /// Ends its threads. What is not done yet is dropped.
    fn join(&self, py: Python<'_>) {
        let house = self.0.get();
        let (runtime, engine) = (lock(&house.runtime).take(), lock(&house.engine).take());
        py.detach(|| {
            drop(engine);
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(JOIN);
            }
        });
    }

    /// Ends an engine that nobody has closed, as the process ends. Says whether there was something to end.
    fn abandon(&self, py: Python<'_>) -> bool {
        let house = self.0.get();
        let engine = lock(&house.engine).take();
        let runtime = lock(&house.runtime).take();
        let Some(runtime) = runtime else { return false };
        py.detach(|| {
            if let Some(engine) = engine {
                runtime.block_on(async {
                    // What was acknowledged is on disk already. This tidies up.
                    let _ = timeout(LAST, engine.close(Duration::ZERO)).await;
                });
            }
            runtime.shutdown_timeout(JOIN);
        });
        true
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            // Threads that nobody waits for: this may run wherever Python collects garbage.
            runtime.shutdown_background();
        }
    }
}
