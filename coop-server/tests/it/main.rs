//! The server from outside: real sockets, real HTTP, an engine whose bot writes what the test tells it.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod attacks;
mod bad_input;
mod binary;
mod cli;
mod client;
mod core_path;
mod crash;
mod faults;
mod first;
mod framing;
mod golden;
mod governing;
mod handshake;
mod http;
mod limits;
mod metrics;
mod mount;
mod openapi;
mod receipts;
mod resume;
mod rights;
mod secrets;
mod server;
mod several;
mod socket;
mod sse;
mod tokens;
mod v1;
mod web;
