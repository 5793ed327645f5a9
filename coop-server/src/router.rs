//! The whole HTTP surface on one screen, and who may knock where. It knows neither bodies nor answers.

use crate::call::Call;
use crate::limits::{Limits, Toll};
use crate::openapi;
use crate::reply::Answer;
use crate::routes::{accounts, events, governing, health, members, messages, rooms, turns, users};
use coop_core::User;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;

/// What stands behind a method and a path.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint {
    /// Anyone may call it.
    Open(fn(Call) -> BoxFuture<'static, Answer>),
    /// Only with a good token, whose user it is given.
    Signed(fn(Call, User) -> BoxFuture<'static, Answer>),
    /// The WebSocket, which checks its token by itself.
    Socket,
}

/// A row of the surface.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) endpoint: Endpoint,
    /// What it costs, before its body is read.
    pub(crate) toll: Option<Toll>,
}

macro_rules! toll {
    () => {
        None
    };
    ($toll:ident) => {
        Some(Toll::$toll)
    };
}

macro_rules! open {
    ($method:ident $path:literal $endpoint:path $(, $toll:ident)?) => {
        Route {
            method: Method::$method,
            path: $path,
            endpoint: Endpoint::Open(|call| $endpoint(call).boxed()),
            toll: toll!($($toll)?),
        }
    };
}

macro_rules! signed {
    ($method:ident $path:literal $endpoint:path $(, $toll:ident)?) => {
        Route {
            method: Method::$method,
            path: $path,
            endpoint: Endpoint::Signed(|call, user| $endpoint(call, user).boxed()),
            toll: toll!($($toll)?),
        }
    };
}

/// Everything there is.
#[rustfmt::skip]
pub(crate) static SURFACE: &[Route] = &[
    open!  (GET    "/health"                           health::health),
    open!  (GET    "/ready"                            health::ready),
    open!  (GET    "/api/openapi.json"                 openapi::serve),
    open!  (GET    "/metrics"                          health::metrics),
    open!  (POST   "/api/auth/register"                accounts::register, Registration),
    open!  (POST   "/api/auth/login"                   accounts::login, Login),
    signed!(GET    "/api/auth/me"                      accounts::me),
    signed!(DELETE "/api/auth/me"                      accounts::delete, Login),
    signed!(POST   "/api/auth/password"                accounts::change_password, Login),
    signed!(POST   "/api/auth/logout-everywhere"       accounts::log_out_everywhere),
    signed!(GET    "/api/users/search"                 users::search, Search),
    signed!(GET    "/api/chats"                        rooms::list),
    signed!(POST   "/api/chats"                        rooms::create, NewRoom),
    signed!(GET    "/api/chats/{id}"                   rooms::show),
    signed!(DELETE "/api/chats/{id}"                   rooms::delete),
    signed!(GET    "/api/chats/{id}/messages"          messages::list),
    signed!(GET    "/api/chats/{id}/read-receipts"     messages::receipts),
    signed!(POST   "/api/chats/{id}/mark-read"         messages::mark_read),
    signed!(GET    "/api/chats/{id}/participants"      members::list),
    signed!(POST   "/api/chats/{id}/invite"            members::invite, Invitation),
    signed!(POST   "/api/chats/{id}/leave"             members::leave),
    signed!(DELETE "/api/chats/{id}/participants/{member}" members::remove),
    signed!(GET    "/api/rooms/{id}"                   rooms::entry),
    signed!(PATCH  "/api/rooms/{id}"                   rooms::change),
    signed!(GET    "/api/rooms/{id}/events"            events::stream),
    signed!(GET    "/api/rooms/{id}/search"            messages::search, Search),
    signed!(GET    "/api/rooms/{id}/messages"          messages::page),
    signed!(POST   "/api/rooms/{id}/messages"          messages::send, Message),
    signed!(PATCH  "/api/rooms/{id}/messages/{message}" messages::edit, Message),
    signed!(DELETE "/api/rooms/{id}/messages/{message}" messages::delete, Message),
    signed!(GET    "/api/rooms/{id}/settings"          governing::settings),
    signed!(PATCH  "/api/rooms/{id}/settings"          governing::configure),
    signed!(GET    "/api/rooms/{id}/turns"             turns::list),
    signed!(POST   "/api/rooms/{id}/turns/{turn}/stop"        turns::stop),
    signed!(POST   "/api/rooms/{id}/turns/{turn}/retry"       turns::retry),
    signed!(POST   "/api/rooms/{id}/messages/{message}/stop"   turns::stop_answer),
    signed!(POST   "/api/rooms/{id}/messages/{message}/retry"  turns::retry_answer),
    signed!(GET    "/api/rooms/{id}/messages/{message}/turn"  turns::of_answer),
    signed!(GET    "/api/rooms/{id}/messages/{message}/receipt" turns::receipt),
    signed!(GET    "/api/rooms/{id}/usage"             governing::room_usage),
    signed!(GET    "/api/usage"                        governing::own_usage),
    Route { method: Method::GET, path: "/ws", endpoint: Endpoint::Socket, toll: None },
];

impl Route {
    /// The most bytes of its body: less before we know from whom it comes.
    pub(crate) fn body_limit(&self, limits: &Limits) -> usize {
        if self.path.starts_with("/api/auth/") {
            limits.auth_body_bytes
        } else {
            limits.body_bytes
        }
    }
}

/// Finds rows by path and method.
pub(crate) struct Router(matchit::Router<Vec<&'static Route>>);

/// What a path and a method lead to.
pub(crate) enum Found<'path> {
    /// This, with the values of the path's parameters in order.
    Route(&'static Route, Vec<&'path str>),
    /// The path has only these methods.
    WrongMethod(String),
    /// Nothing, but this path without its last slash leads somewhere.
    WithoutSlash(&'path str),
    /// Nothing.
    Nothing,
}

impl Router {
    /// # Errors
    /// If two paths of the surface contradict each other.
    pub(crate) fn new() -> Result<Self, matchit::InsertError> {
        let mut router = matchit::Router::new();
        let mut paths: Vec<&str> = SURFACE.iter().map(|route| route.path).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            router.insert(path, SURFACE.iter().filter(|route| route.path == path).collect())?;
        }
        Ok(Self(router))
    }

    pub(crate) fn find<'path>(&self, method: &Method, path: &'path str) -> Found<'path> {
        let Ok(matched) = self.0.at(path) else {
            let shorter = path.strip_suffix('/').filter(|shorter| self.0.at(shorter).is_ok());
            return shorter.map_or(Found::Nothing, Found::WithoutSlash);
        };
        // HEAD is GET whose body is not sent.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match matched.value.iter().find(|route| route.method == method) {
            Some(route) => Found::Route(route, matched.params.iter().map(|(_, value)| value).collect()),
            None => {
                let methods: Vec<_> = matched.value.iter().map(|route| route.method.as_str()).collect();
                Found::WrongMethod(methods.join(", "))
            }
        }
    }
}
