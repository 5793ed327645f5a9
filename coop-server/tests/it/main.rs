//! The server from outside: real sockets, real HTTP, an engine whose bot writes what the test tells it.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod binary;
mod client;
mod core_path;
mod golden;
mod http;
mod server;
mod socket;
