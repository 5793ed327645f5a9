//! What the server counts, beside what [the engine does](coop_core::metrics): by the same facade, and as little about
//! anybody. It decides nothing.
//!
//! | name | what |
//! | --- | --- |
//! | `coop_connections` | sockets and event streams that are open |
//! | `coop_sockets_closed_total{why}` | sockets that have ended, and why: `slow reader` is one that did not read |
//! | `coop_sent_bytes_total` | bytes that sockets took |
//! | `coop_http_requests_total{method,route,status}` | requests |
//! | `coop_http_request_seconds{route}` | from a request's head to its answer's |
//! | `coop_refused_total{limit}` | what was refused because of a limit, by the limit's name in the configuration |

use http::Method;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

/// The handles to what is counted often.
pub(crate) struct Meters {
    pub(crate) connections: Gauge,
    pub(crate) sent: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe_gauge!("coop_connections", "Sockets and event streams that are open");
        describe_counter!("coop_sockets_closed_total", "Sockets that have ended, and why");
        describe_counter!("coop_sent_bytes_total", Unit::Bytes, "Bytes that sockets took");
        describe_counter!("coop_http_requests_total", "Requests");
        describe_histogram!(
            "coop_http_request_seconds",
            Unit::Seconds,
            "From a request's head to its answer's"
        );
        describe_counter!("coop_refused_total", "What was refused because of a limit");
        Self {
            connections: gauge!("coop_connections"),
            sent: counter!("coop_sent_bytes_total"),
        }
    }

    /// A request was answered. What it asked for is only told where there is such a thing: a path is anybody's text.
    pub(crate) fn answered(route: Option<(&'static Method, &'static str)>, status: u16, took: Duration) {
        let (method, route) = route.map_or(("other", "other"), |(method, path)| (method.as_str(), path));
        let status = status.to_string();
        counter!("coop_http_requests_total", "method" => method, "route" => route, "status" => status).increment(1);
        histogram!("coop_http_request_seconds", "route" => route).record(took);
    }

    /// A limit was reached.
    pub(crate) fn refused(limit: &'static str) {
        counter!("coop_refused_total", "limit" => limit).increment(1);
    }

    /// A socket has ended.
    pub(crate) fn closed(why: &'static str) {
        counter!("coop_sockets_closed_total", "why" => why).increment(1);
    }
}
