//! The tests of coop-core from outside, in one binary, because each binary is linked anew.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod archives;
mod asks;
mod bad_input;
mod buses;
mod clocks;
mod closing;
mod excess;
mod faults;
mod governing;
mod isolation;
mod layers;
mod others;
mod readers;
mod residence;
mod rooms;
mod scene;
mod simulation;
mod stores;
mod turns;
mod users;
