//! The WebSocket: its handshake, and one task for each connection that reads rooms for its client.
//!
//! Rooms write to sockets themselves, from their own tasks and without waiting ([`reader`]); a connection's task
//! ([`connection`]) does what cannot be done at once: what its client says ([`receive`]) and asks ([`act`]), what it
//! missed ([`deliver`]), the rest of a frame that did not fit ([`outbox`]). What lies between them is one lock ([`wire`]).
//! One more task pings them all ([`pulse`]).

mod act;
mod connection;
mod deliver;
mod outbox;
mod pulse;
mod reader;
mod receive;
mod wire;

pub(crate) use pulse::Pulse;

use crate::api::{House, bearer};
use crate::call::parameter;
use crate::dialect::{Dialect, offered, v1};
use crate::limits::{NoSeat, Toll, Visit};
use crate::patient::Patient;
use crate::reply::{Body, Failure, whole};
use bytes::Bytes;
use coop_core::{Error, ErrorKind, User};
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request};
use http::header::{HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::rt::{Read, Write};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// When somebody who found no seat should look again.
const COME_BACK: Duration = Duration::from_secs(5);

/// What has no end, or a later one, ends then: adding more to the clock would overflow it.
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Answers a handshake, and if it is a good one starts the connection's task.
///
/// A bad token is refused here and not by a close frame: the seed's clients try again at once after every open.
pub(crate) async fn open(
    house: &Arc<House>,
    request: Request<()>,
    query: &str,
    address: Option<IpAddr>,
) -> Result<Response<Body>, Failure> {
    if !house.origins.admits_socket(request.headers()) {
        return Err(Failure::forbidden("Origin not allowed"));
    }
    let patience = house.limits.handshake_timeout;
    let dialect = house.dialects.chosen(request.headers());
    let identified = timeout(patience, opener(house, &request, query, &dialect)).await;
    let (user, left) = identified.map_err(|_| Failure::unavailable("the store does not answer"))??;
    check(&request)?;
    if house.is_draining() {
        return Err(Failure::unavailable("the server is closing"));
    }
    if request.extensions().get::<OnUpgrade>().is_none() {
        tracing::error!("a WebSocket cannot be opened: the server around this service hands no connections over");
        let detail = "WebSockets are not possible here";
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "unavailable", detail));
    }
    // In a box: what a task keeps, it keeps for as long as there is a socket.
    house.tolls.pay(Toll::Opening, Some(user.id()), None)?;
    let seat = house.seats.take(user.id(), address).map_err(no_seat)?;
    let held = Box::new((seat, request.extensions().get::<Arc<Visit>>().cloned()));
    let refused = |_| Failure::bad_request("Not a WebSocket handshake");
    let (mut response, upgrade) = fastwebsockets::upgrade::upgrade(request).map_err(refused)?;
    if let Some(name) = dialect.subprotocol() {
        let name = HeaderValue::from_static(name);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    let until = Instant::now() + left.min(CENTURY);
    let at_home = Arc::clone(house);
    house.sockets.spawn(async move {
        if let Some((stream, ahead)) = taken(upgrade, patience).await {
            let span = tracing::debug_span!("socket", user = %user.id());
            connection::run(at_home, user, dialect, stream, ahead, until)
                .instrument(span)
                .await;
        }
        // Held as long as there was a socket, or might have been one.
        drop(held);
    });
    Ok(response.map(|_| whole(Bytes::new())))
}

pub(crate) fn no_seat(reason: NoSeat) -> Failure {
    let (kind, words) = match reason {
        NoSeat::OfUser => (ErrorKind::RateLimited, "you have too many connections"),
        NoSeat::FromAddress => (
            ErrorKind::RateLimited,
            "there are too many connections from your address",
        ),
        NoSeat::InAll => (ErrorKind::Busy, "the server has too many connections"),
    };
    Error::new(kind, words).with_retry_after(COME_BACK).into()
}

/// Who opens, and for how long: whom the application names, where its word counts, or else whose token it is.
async fn opener(
    house: &House,
    request: &Request<()>,
    query: &str,
    dialect: &Dialect,
) -> Result<(User, Duration), Failure> {
    if let Some(identity) = house.told(request.extensions()) {
        let user = house.trusted(identity).await?;
        return Ok((user, identity.left.unwrap_or(CENTURY)));
    }
    let words = "Invalid authentication credentials";
    let no_entry = || match dialect {
        Dialect::Seed(_) => Failure::forbidden(words),
        Dialect::V1(_) => Failure::unauthorized(words),
    };
    let token = token(dialect, request.headers(), query).ok_or_else(no_entry)?;
    match house.identify(&token).await {
        Ok((user, identity)) => Ok((user, identity.left)),
        Err(failure) if failure.status == StatusCode::UNAUTHORIZED => Err(no_entry()),
        Err(failure) => Err(failure),
    }
}

/// The token of a handshake: in its own header, among the subprotocols, where a page can put one, or in the query. The
/// first system's is in the query alone.
fn token(dialect: &Dialect, headers: &HeaderMap, query: &str) -> Option<String> {
    let in_query = || parameter(query, "token").ok().flatten();
    if matches!(dialect, Dialect::Seed(_)) {
        return in_query();
    }
    let in_header = || bearer(headers).map(str::to_owned);
    let among = || offered(headers).find_map(|name| name.strip_prefix(v1::BEARER).map(str::to_owned));
    in_header().or_else(among).or_else(in_query)
}

/// The rules of RFC 6455 for a client's handshake.
fn check(request: &Request<()>) -> Result<(), Failure> {
    let headers = request.headers();
    if !is_upgrade_request(request) {
        let failure = Failure::new(StatusCode::UPGRADE_REQUIRED, "bad_request", "This is a WebSocket");
        return Err(failure.with_header(UPGRADE, HeaderValue::from_static("websocket")));
    }
    if request.version() != Version::HTTP_11 || request.method() != http::Method::GET {
        return Err(Failure::bad_request("Not a WebSocket handshake"));
    }
    if one(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let failure = Failure::new(StatusCode::UPGRADE_REQUIRED, "bad_request", "Unknown WebSocket version");
        return Err(failure.with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    if !one(headers, &SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Failure::bad_request("Sec-WebSocket-Key must be 16 bytes in Base64"));
    }
    Ok(())
}

fn one<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Whether this is the Base64 of 16 bytes: 22 digits, of which the last carries 4 bits that must be zero, and padding.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key {
        [digits @ .., last, b'=', b'='] => {
            digits.len() == 21 && digits.iter().all(digit) && matches!(last, b'A' | b'Q' | b'g' | b'w')
        }
        _ => false,
    }
}

/// The TCP connection under an upgraded one, and what the client sent ahead. HTTP's buffers go with the rest.
async fn taken(upgrade: UpgradeFut, patience: Duration) -> Option<(TcpStream, Bytes)> {
    let upgraded = timeout(patience, upgrade).await.ok()?.ok()?.into_inner().into_inner();
    let found = bare::<Patient<TokioIo<TcpStream>>>(upgraded)
        .map(|(io, ahead)| (io.into_inner(), ahead))
        // Served by somebody else's loop.
        .or_else(bare::<TokioIo<TcpStream>>);
    match found {
        Ok((io, ahead)) => Some((io.into_inner(), ahead)),
        // It was not to be known before: until here a connection does not say what it is.
        Err(_) => {
            tracing::error!(
                "a WebSocket came over something that is not plain TCP and is closed: this is not supported"
            );
            None
        }
    }
}

/// What is under an upgraded connection, be it served by hyper itself or by the loop that looks for the version of HTTP
/// first, as axum's does.
fn bare<T: Read + Write + Unpin + Send + 'static>(upgraded: Upgraded) -> Result<(T, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<T>() {
        Ok(parts) => return Ok((parts.io, parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    auto::upgrade::downcast::<T>(upgraded).map(|parts| (parts.io, parts.read_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_keys_are_keys() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub2 jZQ==",
            "AAAA",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }
}
