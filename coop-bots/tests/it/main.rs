//! The tests of coop-bots from outside.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod fake;
mod gemini;
