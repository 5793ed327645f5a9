//! One HTTP request as an endpoint sees it: read whole, within the limits, with its path's ids and its query taken apart.
//!
//! It knows no routes and answers nothing.

use crate::api::House;
use crate::reply::Failure;
use bytes::Bytes;
use coop_core::{Error, MessageId, RoomId, TurnId, UserId};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use tokio::time::Instant;

/// A request.
pub(crate) struct Call {
    /// What all requests share.
    pub(crate) house: Arc<House>,
    /// The numbers in the path, in order.
    pub(crate) ids: Vec<i64>,
    /// What stands behind the `?`, still encoded.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// Where it comes from, if that is known.
    pub(crate) address: Option<IpAddr>,
    /// How long its user's token is good.
    pub(crate) until: Instant,
    /// The body.
    pub(crate) body: Bytes,
}

impl Call {
    /// The body as JSON of this shape.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::malformed(format!("The body is not right: {error}")))
    }

    /// One parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Result<Option<String>, Failure> {
        parameter(&self.query, name).map_err(|NotText| Failure::malformed("The query is not UTF-8"))
    }

    /// One parameter of the query, as a number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let number = |text: String| {
            text.parse()
                .map_err(|_| Failure::malformed(format!("{name} must be a number")))
        };
        self.parameter(name)?.map(number).transpose()
    }

    /// The room of the path.
    pub(crate) fn room(&self) -> Result<RoomId, Failure> {
        self.id(0).map(RoomId)
    }

    /// The member of the path.
    pub(crate) fn member(&self) -> Result<UserId, Failure> {
        self.id(1).map(UserId)
    }

    /// The turn of the path.
    pub(crate) fn turn(&self) -> Result<TurnId, Failure> {
        self.id(1).map(TurnId)
    }

    /// The message of the path.
    pub(crate) fn message(&self) -> Result<MessageId, Failure> {
        self.id(1).map(MessageId)
    }

    fn id(&self, index: usize) -> Result<i64, Failure> {
        let missing = || Error::internal("a route without the id that its endpoint wants");
        Ok(*self.ids.get(index).ok_or_else(missing)?)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotText;

/// The first value of this name in a query.
pub(crate) fn parameter(query: &str, name: &str) -> Result<Option<String>, NotText> {
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key)? == name {
            return decoded(value).map(Some);
        }
    }
    Ok(None)
}

/// Undoes the encoding of a query: `+` and `%XX`. A percent sign that begins nothing stands for itself.
fn decoded(text: &str) -> Result<String, NotText> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => first,
        });
    }
    String::from_utf8(bytes).map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "query=a%20b+c%25%C3%A9&limit=10&empty&tok%65n=x.y-z_%&limit=20";
        let get = |name| parameter(query, name).unwrap();
        assert_eq!(get("query").as_deref(), Some("a b c%é"));
        assert_eq!(get("limit").as_deref(), Some("10"));
        assert_eq!(get("empty").as_deref(), Some(""));
        assert_eq!(get("token").as_deref(), Some("x.y-z_%"));
        assert_eq!(get("none"), None);
        assert_eq!(parameter("a=%ff", "a"), Err(NotText));
        assert_eq!(parameter("", "a"), Ok(None));
    }
}
