//! A thin chat server over [`coop_core`]: the seed's HTTP interface and its WebSocket, as a tower
//! [`Service`](tower_service::Service) that an application mounts, or that [`serve`](serve()) runs.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let engine = coop_core::Engine::builder(coop_core::store::memory::MemoryStore::new()).build().await?;
//! let api = coop_server::Api::builder(engine).jwt_secret("at least thirty-two bytes of secret").build()?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! coop_server::serve(listener, api).await;
//! # Ok(())
//! # }
//! ```
//!
//! It decides nothing about rooms, members and messages; the engine does. It installs no signal handler, no tracing
//! subscriber and no panic hook.
#![forbid(unsafe_code)]

mod api;
mod call;
mod cors;
mod dialect;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod limits;
mod meters;
mod objects;
mod openapi;
mod paging;
mod patient;
mod receipts;
mod reply;
mod router;
mod routes;
mod saying;
mod serve;
mod socket;
mod token;
#[cfg(feature = "web")]
mod web;

pub use api::{Api, ApiBuilder, BuildError};
pub use dialect::v1::event_json;
pub use identity::Identity;
pub use limits::{ClientAddr, LimitError, Limits, Rate};
pub use reply::Body;
pub use serve::{Serve, serve};
pub use token::{MIN_SECRET, Secret, TokenMaker, WeakSecret};
