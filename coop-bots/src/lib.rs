//! Bots for [`coop_core`]: plugins that know providers and rules, and nothing of rooms, stores or readers.
#![forbid(unsafe_code)]

pub mod mock;

pub use mock::MockBot;
