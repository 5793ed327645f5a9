//! Conformance suites for those who bring a part of their own: run them in a test, and the part keeps the promises
//! that the engine is built on. A suite panics with the name of the rule that is broken.

pub mod bot;
pub mod bus;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod child;
mod lab;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
pub mod simulation;
pub mod store;

pub use bot::bot_contract;
pub use bus::bus_contract;
#[doc(hidden)]
pub use lab::in_a_lab;
pub use store::{room_store_contract, store_contract};

/// Notes that a test could not be run here, and why, for the table at the end of `make test`.
pub fn skipped(test: &str, reason: &str) {
    use std::io::Write;
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("COOP_SKIPS") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        let noted = file.and_then(|mut file| writeln!(file, "{test}\t{reason}"));
        noted.unwrap_or_else(|error| panic!("what was skipped cannot be noted: {error}"));
    }
}
