//! Conformance suites for those who bring a part of their own: run them in a test, and the part keeps the promises
//! that the engine is built on. A suite panics with the name of the rule that is broken.

pub mod bot;
mod lab;
pub mod simulation;
pub mod store;

pub use bot::bot_contract;
#[doc(hidden)]
pub use lab::in_a_lab;
pub use store::{room_store_contract, store_contract};
