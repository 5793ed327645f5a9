//! Bots for [`coop_core`]: plugins that know providers and rules, and nothing of rooms, stores or readers.
#![forbid(unsafe_code)]

#[cfg(feature = "gemini")]
pub mod gemini;
pub mod mock;
pub mod scribe;
pub mod sse;

#[cfg(feature = "gemini")]
pub use gemini::{GeminiBot, GeminiSettings};
pub use mock::MockBot;
pub use scribe::ScribeBot;
