//! What the HTTP surface does, one file per resource. An endpoint turns a [`Call`](crate::call::Call) into calls of the
//! engine and the outcome into the seed's JSON and words; rules about who may do what are the engine's.

pub(crate) mod accounts;
pub(crate) mod events;
pub(crate) mod governing;
pub(crate) mod health;
pub(crate) mod members;
pub(crate) mod messages;
pub(crate) mod rooms;
pub(crate) mod turns;
pub(crate) mod users;
