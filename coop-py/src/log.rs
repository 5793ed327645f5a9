//! What the engine has to tell its operator, as records for Python's `logging`. They go the way of everything else:
//! threads of the engine never call into Python.

use crate::bridge::{Way, lock};
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One record: a level of Python's `logging`, where it comes from, its text.
pub(crate) struct Record {
    level: u8,
    from: String,
    text: String,
}

impl Record {
    pub(crate) fn lost(many: u64) -> Self {
        Self {
            level: WARNING,
            from: "coop_py".to_owned(),
            text: format!("{many} records were lost: the loop did not run"),
        }
    }

    pub(crate) fn into_tuple(self) -> (u8, String, String) {
        (self.level, self.from, self.text)
    }
}

const OFF: u8 = u8::MAX;
const WARNING: u8 = 30;

/// The lowest level that is told.
static LEVEL: AtomicU8 = AtomicU8::new(OFF);
/// The way that was opened last: for threads that are no engine's.
static LATEST: Mutex<Weak<Way>> = Mutex::new(Weak::new());

thread_local! {
    /// The way of the engine whose thread this is.
    static OWN: RefCell<Weak<Way>> = const { RefCell::new(Weak::new()) };
}

/// This thread works for the engine at that way's end.
pub(crate) fn works_for(way: &Weak<Way>) {
    OWN.with_borrow_mut(|own| own.clone_from(way));
}

/// Records of threads that are no engine's go this way from now on.
pub(crate) fn opened(way: &Arc<Way>) {
    *lock(&LATEST) = Arc::downgrade(way);
}

/// Tells records of this level and above. False if this process has another subscriber of tracing already.
#[pyo3::pyfunction]
pub(crate) fn enable_logging(level: u8) -> bool {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    LEVEL.store(level, Ordering::Relaxed);
    let mut installed = lock(&INSTALLED);
    if !*installed {
        let subscriber = tracing_subscriber::registry().with(Teller);
        *installed = tracing::subscriber::set_global_default(subscriber).is_ok();
    }
    tracing::callsite::rebuild_interest_cache();
    *installed
}

/// Tells nothing any more.
#[pyo3::pyfunction]
pub(crate) fn disable_logging() {
    LEVEL.store(OFF, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => WARNING,
        Level::INFO => 20,
        _ => 10,
    }
}

struct Teller;

impl Teller {
    /// Ours from the level on that was asked for; of the libraries below what should be looked at.
    fn tells(metadata: &tracing::Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("coop_") || metadata.target() == "_native";
        let level = number(*metadata.level());
        level >= LEVEL.load(Ordering::Relaxed) && (ours || level >= WARNING)
    }
}

impl<S: Subscriber> Layer<S> for Teller {
    fn register_callsite(&self, metadata: &'static tracing::Metadata<'static>) -> tracing::subscriber::Interest {
        match Self::tells(metadata) {
            true => tracing::subscriber::Interest::always(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::tells(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let own = OWN.with_borrow(Weak::upgrade);
        let Some(way) = own.or_else(|| lock(&LATEST).upgrade()) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        way.record(Record {
            level: number(*event.metadata().level()),
            from: event.metadata().target().replace("::", "."),
            text: text.0,
        });
    }
}

/// A record's message with its fields after it.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" if self.0.is_empty() => write!(self.0, "{value:?}"),
            "message" => {
                let rest = std::mem::take(&mut self.0);
                write!(self.0, "{value:?} {rest}")
            }
            name if self.0.is_empty() => write!(self.0, "{name}={value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
