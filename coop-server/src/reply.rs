//! What is answered over HTTP: JSON with a status, and the one table from the engine's errors to statuses.
//!
//! It knows no routes. Every failure is `{"detail": words, "code": word}`, `detail` being one string for people, because
//! clients show it as it is.

use bytes::Bytes;
use coop_core::{Error, ErrorKind};
use futures::{Stream, StreamExt};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

/// The body of every answer: most are there at once, some come bit by bit.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is there at once.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// `{"message": words}`, as the seed confirms things.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Said<'a> {
    message: &'a str,
}

/// Why a request was not done: words for people, and a stable word for programs.
#[derive(Serialize, JsonSchema)]
pub(crate) struct FailureObject<'a> {
    code: &'a str,
    detail: &'a str,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply(Response<Body>);

/// What an endpoint returns.
pub(crate) type Answer = Result<Reply, Failure>;

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// This value as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok(Self(json_response(StatusCode::OK, bytes.into()))),
            Err(error) => Err(Error::internal("the answer could not be written")
                .with_source(error)
                .into()),
        }
    }

    /// `{"message": words}`, as the seed confirms things.
    pub(crate) fn message(words: &str) -> Answer {
        Self::json(&Said { message: words })
    }

    /// Text of some kind.
    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        let mut response = Response::new(whole(text));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Self(response)
    }

    /// Events as they come, until the stream ends.
    pub(crate) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
        let frames = events.map(|bytes| Ok(Frame::data(bytes)));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // Proxies that gather answers must not gather this one.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(Self(response))
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        self.0
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            headers: Vec::new(),
        }
    }

    /// The request is malformed in itself.
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", detail)
    }

    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(crate) fn unauthorized(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(crate) fn not_found(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn unavailable(detail: &'static str) -> Self {
        Error::unavailable(detail).into()
    }

    /// No such path.
    pub(crate) fn no_route() -> Self {
        Self::not_found("Not Found")
    }

    /// The same is to be asked at this path, with the same query.
    pub(crate) fn moved(path: &str, query: Option<&str>) -> Self {
        let location = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        match HeaderValue::try_from(location) {
            Ok(location) => Self::new(StatusCode::TEMPORARY_REDIRECT, "moved", "Moved").with_header(LOCATION, location),
            Err(_) => Self::no_route(),
        }
    }

    /// The path has other methods.
    pub(crate) fn wrong_method(allowed: &str) -> Self {
        let mut failure = Self::new(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "Method Not Allowed");
        if let Ok(allowed) = HeaderValue::from_str(allowed) {
            failure.headers.push((ALLOW, allowed));
        }
        failure
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The same failure with one more header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same failure, after which the connection cannot be used for another request.
    pub(crate) fn and_close(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = FailureObject {
            detail: &self.detail,
            code: self.code,
        };
        // Two strings can always be written.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = json_response(self.status, body.into());
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %error, source = ?std::error::Error::source(&error), "a request failed");
        }
        let mut failure = Self::new(status, error.code(), error.words().to_owned());
        let after = error.retry_after().or_else(|| {
            let soon = status == StatusCode::SERVICE_UNAVAILABLE;
            soon.then_some(Duration::from_secs(1))
        });
        if let Some(after) = after {
            failure
                .headers
                .push((RETRY_AFTER, HeaderValue::from(whole_seconds(after))));
        }
        failure
    }
}

/// When to come back, rounded up: whoever comes too early is refused again.
pub(crate) fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}

/// The status of each kind of error: the only place that knows both.
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::RateLimited | ErrorKind::BudgetExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::InUse | ErrorKind::NewerSchema | ErrorKind::NotADatabase | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        // The core may grow kinds; what is unknown here is our defect, not the client's.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        for (kind, expected) in [
            (ErrorKind::BadRequest, 400),
            (ErrorKind::Unauthorized, 401),
            (ErrorKind::Forbidden, 403),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::TooLarge, 413),
            (ErrorKind::RateLimited, 429),
            (ErrorKind::BudgetExceeded, 429),
            (ErrorKind::Busy, 503),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Closed, 503),
            (ErrorKind::InUse, 500),
            (ErrorKind::NewerSchema, 500),
            (ErrorKind::NotADatabase, 500),
            (ErrorKind::Internal, 500),
        ] {
            assert_eq!(status(kind).as_u16(), expected, "{kind:?}");
        }
    }

    #[test]
    fn when_to_come_back_is_rounded_up() {
        let busy = Error::new(ErrorKind::Busy, "busy").with_retry_after(Duration::from_millis(1_200));
        let response = Failure::from(busy).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
