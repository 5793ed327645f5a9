//! The tests of coop-core from outside, in one binary, because each binary is linked anew.

mod layers;
mod rooms;
mod simulation;
mod stores;
