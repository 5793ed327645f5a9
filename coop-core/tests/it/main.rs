//! coop-core from outside: everything here goes through its public surface.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod stores;
