//! Which pages of other origins may use this server, told to browsers. An exact list: no patterns, no `*`, no `null`.
//!
//! It knows no routes; every answer passes through it, errors included, because a browser hides from its page the
//! words of an answer that does not name its origin.

use crate::reply::{Body, Failure, whole};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_TYPE, HOST, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Response, StatusCode};

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(Vec<String>);

impl Origins {
    pub(crate) fn new(origins: impl IntoIterator<Item = String>) -> Self {
        let trimmed = |origin: String| origin.trim_end_matches('/').to_ascii_lowercase();
        Self(
            origins
                .into_iter()
                .map(trimmed)
                .filter(|origin| origin != "null")
                .collect(),
        )
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.as_bytes();
        self.0
            .iter()
            .any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
    }

    /// The answer to a browser that asks beforehand; `None` for any other request.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        let origin = headers.get(ORIGIN)?;
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        if !self.allows(origin) {
            return Some(Failure::bad_request("Disallowed CORS origin").into_response());
        }
        // Who may call may send any header.
        let usual = HeaderValue::from_static("authorization, content-type");
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(usual);
        let mut response = Response::new(whole("OK"));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(response)
    }

    /// Names the origin in an answer, if its pages may read it.
    pub(crate) fn admit(&self, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Whether a socket may be opened from where this request comes: a native client (no origin), a page of this very
    /// host, or one on the list. Browsers do not keep pages from opening sockets elsewhere, so this must.
    pub(crate) fn admits_socket(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => self.allows(origin) || is_own(origin, headers.get(HOST)),
            _ => false,
        }
    }
}

fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), host.map(HeaderValue::to_str)) else {
        return false;
    };
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Origins::new(["http://page.example:3000/".to_owned(), "null".to_owned()]).admits_socket(&headers)
    }

    #[test]
    fn who_may_open_a_socket() {
        let host = ("host", "chat.example:8000");
        assert!(socket(&[host]));
        assert!(socket(&[host, ("origin", "http://page.example:3000")]));
        assert!(socket(&[host, ("origin", "https://Chat.example:8000")]));
        assert!(!socket(&[host, ("origin", "http://page.example")]));
        assert!(!socket(&[host, ("origin", "http://chat.example")]));
        assert!(!socket(&[host, ("origin", "http://chat.example:8000.evil.example")]));
        assert!(!socket(&[host, ("origin", "null")]));
        assert!(!socket(&[
            host,
            ("origin", "http://page.example:3000"),
            ("origin", "http://evil.example")
        ]));
    }
}
