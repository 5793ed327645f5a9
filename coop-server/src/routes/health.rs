//! Whether this process lives, whether it can serve, and what it has counted.

use crate::call::Call;
use crate::reply::{Answer, Failure, Reply};
use coop_core::{BusState, ErrorKind, RoomId};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// How long the store may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// That the process lives.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// That the server can serve.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<&'static str>,
}

/// Answers while the process lives.
#[allow(clippy::unused_async, reason = "endpoints are async")]
pub(crate) async fn health(_: Call) -> Answer {
    Reply::json(&Health { status: "healthy" })
}

/// Answers 503 while the store does not answer or the server drains. A bus that is down is told, and costs readiness
/// nothing: all that matters is in the store.
pub(crate) async fn ready(call: Call) -> Answer {
    let not_ready = || Failure::unavailable("not ready");
    if call.house.is_draining() {
        return Err(not_ready());
    }
    // A room that cannot exist: the cheapest question there is.
    let asked = call.house.engine.room_info(RoomId(0));
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Err(error)) if error.kind() != ErrorKind::NotFound => Err(not_ready()),
        Ok(_) => Reply::json(&Ready {
            status: "ready",
            bus: call.house.engine.bus_state().map(BusState::code),
        }),
        Err(_) => Err(not_ready()),
    }
}

/// The figures of the process.
#[allow(clippy::unused_async, reason = "endpoints are async")]
pub(crate) async fn metrics(call: Call) -> Answer {
    let figures = call.house.figures.as_ref().ok_or_else(Failure::no_route)?;
    call.house.engine.update_metrics();
    Ok(Reply::text("text/plain; version=0.0.4; charset=utf-8", figures()))
}
