//! Conformance suites for those who bring a part of their own: run them in a test, and the part keeps the promises
//! that the engine is built on. A suite panics with the name of the rule that is broken.

pub mod bot;
pub mod simulation;
pub mod store;

pub use bot::bot_contract;
pub use store::{room_store_contract, store_contract};
