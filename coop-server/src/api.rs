//! The server as a tower `Service`: one request in, one answer out. It can be mounted in any server that speaks hyper's
//! HTTP, or be run by [`serve`](crate::serve).
//!
//! It knows no listeners, signals and configuration files. Everything that every answer has in common is here: the
//! limits of a request, authentication, CORS and the security headers.

use crate::call::Call;
use crate::cors::Origins;
use crate::dialect::Dialects;
use crate::dialect::seed::Seed;
use crate::dialect::v1::V1;
use crate::identity::Identity;
use crate::limits::{Doors, Limits, Proxies, Seats, Tolls, Visit, client};
use crate::meters::Meters;
use crate::reply::{Answer, Body, Failure};
use crate::router::{Endpoint, Found, Route, Router};
use crate::socket::{self, CENTURY, Pulse};
use crate::token::{self, Secret, Tokens, WeakSecret};
#[cfg(feature = "web")]
use crate::web::Web;
use bytes::Bytes;
use coop_core::{Engine, ErrorKind, User};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The service. Cheap to clone; all clones are the same.
///
/// An application mounts it wherever a tower `Service` can be, also under a prefix that the router takes off
/// (`nest_service("/chat", api)` in axum), HTTP and `/ws` alike. It needs HTTP/1.1 over plain TCP for `/ws`, which hands
/// the connection over; TLS belongs to a proxy in front. At its end the application calls
/// [`close_sockets`](Self::close_sockets): its server does not wait for connections that were handed over.
#[derive(Clone)]
pub struct Api(pub(crate) Arc<House>);

/// What all requests and sockets share. Nothing in it changes but the two signs that the end is near.
pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) tokens: Tokens,
    pub(crate) origins: Origins,
    /// Whether anybody may make an account.
    pub(crate) registration: bool,
    pub(crate) limits: Limits,
    /// What is counted for users, accounts and addresses.
    pub(crate) tolls: Arc<Tolls>,
    /// Which sockets there may still be.
    pub(crate) seats: Arc<Seats>,
    /// Which connections there may still be, where this server accepts them.
    doors: Arc<Doors>,
    pub(crate) proxies: Proxies,
    /// Whether the application says who sends a request.
    trust_identity: bool,
    /// What sockets speak.
    pub(crate) dialects: Dialects,
    /// The sockets' tasks, so that the end can wait for them.
    pub(crate) sockets: TaskTracker,
    /// Cancelled when the sockets should close.
    pub(crate) closing: CancellationToken,
    /// What pings the sockets.
    pub(crate) pulse: Arc<Pulse>,
    /// The handles to what is counted often.
    pub(crate) meters: Meters,
    /// Writes the figures of the process, if it gathers them.
    pub(crate) figures: Option<Figures>,
    router: Router,
    #[cfg(feature = "web")]
    web: Option<Web>,
    draining: AtomicBool,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("engine", &self.0.engine)
            .finish_non_exhaustive()
    }
}

/// What writes the figures of the process down.
type Figures = Box<dyn Fn() -> String + Send + Sync>;

/// Builds an [`Api`].
pub struct ApiBuilder {
    engine: Engine,
    secret: Option<Vec<u8>>,
    token_ttl: Duration,
    origins: Vec<String>,
    registration: bool,
    trust_identity: bool,
    limits: Limits,
    trusted_proxies: Vec<String>,
    web: bool,
    web_dir: Option<PathBuf>,
    figures: Option<Figures>,
}

impl std::fmt::Debug for ApiBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiBuilder")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Why there is no [`Api`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No secret was given.
    #[error("a token secret is required")]
    NoSecret,
    /// The secret is too short.
    #[error(transparent)]
    WeakSecret(#[from] WeakSecret),
    /// No secret was needed, and the system has no randomness to make one up.
    #[error("no token secret could be made up")]
    NoRandomness(#[source] std::io::Error),
    /// A trusted proxy is no address and no block of addresses.
    #[error("{0:?} is no trusted proxy: an ADDRESS or a block ADDRESS/PREFIX is")]
    BadProxy(String),
    /// There is no memory for the web client.
    #[error("the web client could not be made ready")]
    Web(#[source] std::io::Error),
    /// Two routes contradict each other: a defect.
    #[error("the routes contradict each other")]
    Routes,
}

impl Api {
    /// Begins a service on an engine.
    #[must_use]
    pub fn builder(engine: Engine) -> ApiBuilder {
        ApiBuilder {
            engine,
            secret: None,
            token_ttl: Duration::from_secs(24 * 60 * 60),
            origins: Vec::new(),
            registration: true,
            trust_identity: false,
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            web: true,
            web_dir: None,
            figures: None,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// A place for a connection that is to be accepted.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.doors.place().await
    }

    /// Lets an accepted connection in, unless there are enough from its address.
    pub(crate) fn enter(&self, place: OwnedSemaphorePermit, peer: IpAddr) -> Option<Visit> {
        self.0.doors.enter(place, peer, &self.0.proxies)
    }

    /// The engine behind it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Says on `/ready` that no more requests should be sent here.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Closes all sockets, telling their clients to come back later, and waits until they are closed: some seconds at
    /// most. The engine goes on.
    pub async fn close_sockets(&self) {
        self.drain();
        self.0.closing.cancel();
        self.0.sockets.close();
        self.0.sockets.wait().await;
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let origin = request.headers().get(ORIGIN).cloned();
        let mut route = None;
        let mut response = match self.0.origins.preflight(request.method(), request.headers()) {
            Some(response) => response,
            None => {
                let span = tracing::debug_span!("http", method = %request.method(), path = request.uri().path());
                let responded = self.respond(request, &mut route).instrument(span).await;
                responded.unwrap_or_else(Failure::into_response)
            }
        };
        let route = route.map(|route: &Route| (&route.method, route.path));
        Meters::answered(route, response.status().as_u16(), begun.elapsed());
        self.0.origins.admit(origin.as_ref(), &mut response);
        for (name, value) in SAFE {
            response.headers_mut().entry(name).or_insert(value);
        }
        response
    }

    async fn respond<B>(
        &self,
        request: Request<B>,
        found: &mut Option<&'static Route>,
    ) -> Result<Response<Body>, Failure>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let deadline = Instant::now() + self.0.limits.request_timeout;
        check_head(request.version(), request.headers())?;
        let (parts, body) = request.into_parts();
        let (route, parameters) = match self.0.router.find(&parts.method, parts.uri.path()) {
            Found::Route(route, parameters) => (route, parameters),
            Found::WrongMethod(allowed) => return Err(Failure::wrong_method(&allowed)),
            Found::WithoutSlash(path) => return Err(Failure::moved(path, parts.uri.query())),
            Found::Nothing => return self.page(&parts),
        };
        *found = Some(route);
        let ids = parameters
            .iter()
            .map(|text| text.parse().map_err(|_| Failure::malformed("Ids are numbers")))
            .collect::<Result<_, _>>()?;
        let address = client(&parts.extensions, &parts.headers, &self.0.proxies);
        let query = parts.uri.query().unwrap_or("").to_owned();
        let mut until = deadline;
        let user = match route.endpoint {
            Endpoint::Open(_) => None,
            Endpoint::Signed(_) => {
                let (user, left) = self.authenticate(&parts.headers, &parts.extensions, deadline).await?;
                until = Instant::now() + left.min(CENTURY);
                Some(user)
            }
            Endpoint::Socket => {
                let parts = Request::from_parts(parts, ());
                return socket::open(&self.0, parts, &query, address).await;
            }
        };
        if let Some(toll) = route.toll {
            self.0.tolls.pay(toll, user.as_ref().map(User::id), address)?;
        }
        let body = read(route.body_limit(&self.0.limits), body, deadline).await?;
        let call = Call {
            house: Arc::clone(&self.0),
            ids,
            query,
            headers: parts.headers,
            address,
            until,
            body,
        };
        match (route.endpoint, user) {
            (Endpoint::Open(endpoint), _) => in_time(deadline, endpoint(call)).await,
            (Endpoint::Signed(endpoint), Some(user)) => in_time(deadline, endpoint(call, user)).await,
            _ => Err(Failure::no_route()),
        }
    }

    /// What is no route: a file of the web client, or nothing.
    #[cfg(feature = "web")]
    fn page(&self, request: &Parts) -> Result<Response<Body>, Failure> {
        let web = self.0.web.as_ref();
        let found = web.and_then(|web| web.find(request.uri.path(), &request.headers));
        let found = found.ok_or_else(Failure::no_route)?;
        match request.method {
            http::Method::GET | http::Method::HEAD => found,
            _ => Err(Failure::wrong_method("GET")),
        }
    }

    #[cfg(not(feature = "web"))]
    fn page(&self, _: &Parts) -> Result<Response<Body>, Failure> {
        Err(Failure::no_route())
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        deadline: Instant,
    ) -> Result<(User, Duration), Failure> {
        let late = |_| Failure::unavailable("the store does not answer");
        if let Some(identity) = self.0.told(extensions) {
            let user = timeout_at(deadline, self.0.trusted(identity)).await.map_err(late)??;
            return Ok((user, identity.left.unwrap_or(CENTURY)));
        }
        let token = bearer(headers).ok_or_else(|| Failure::unauthorized("Not authenticated"))?;
        let (user, identity) = timeout_at(deadline, self.0.identify(token)).await.map_err(late)??;
        Ok((user, identity.left))
    }
}

impl House {
    /// Whose token this is, if it is good and they still exist.
    pub(crate) async fn identify(&self, token: &str) -> Result<(User, token::Identity), Failure> {
        let unknown = || Failure::unauthorized("Invalid authentication credentials");
        let identity = self.tokens.check(token).ok_or_else(unknown)?;
        match self.engine.user(identity.user).await {
            Ok(user) if user.account().token_version == identity.version => Ok((user, identity)),
            Ok(_) => Err(unknown()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// Who the application says this is, if its word counts.
    pub(crate) fn told(&self, extensions: &Extensions) -> Option<Identity> {
        let told = extensions.get::<Identity>();
        told.filter(|_| self.trust_identity).copied()
    }

    /// The user of an identity whose word counts.
    pub(crate) async fn trusted(&self, identity: Identity) -> Result<User, Failure> {
        match self.engine.user(identity.user).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Failure::unauthorized("Invalid authentication credentials"))
            }
            found => Ok(found?),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl ApiBuilder {
    /// What signs the tokens: at least 32 bytes. Required, but where [identities are trusted](Self::trust_identity).
    #[must_use]
    pub fn jwt_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// The same as a [`Secret`] that was checked before.
    #[must_use]
    pub fn secret(self, secret: Secret) -> Self {
        self.jwt_secret(secret.into_bytes())
    }

    /// How long a token is good. 24 hours by default.
    #[must_use]
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = ttl;
        self
    }

    /// Pages of these origins, exactly, may call. None by default.
    #[must_use]
    pub fn cors_origins(mut self, origins: impl IntoIterator<Item = String>) -> Self {
        self.origins = origins.into_iter().collect();
        self
    }

    /// Whether anybody may make an account. Yes by default.
    #[must_use]
    pub fn registration(mut self, open: bool) -> Self {
        self.registration = open;
        self
    }

    /// Whether an [`Identity`] in a request's extensions stands for a token, on HTTP and on `/ws`: for an application
    /// that has its own login. No by default, and then such extensions are not looked at.
    ///
    /// **With this, whoever can put an extension into a request is whoever they like.** Extensions never come over the
    /// network, so that is a matter of the application's own code: every path that leads here must pass its login, and
    /// nothing before that may insert an identity. A login by cookie must also keep pages of other origins from using it
    /// (`SameSite=Strict` or `Lax`); `/ws` checks the `Origin` by itself.
    ///
    /// A request without an identity is taken by its token as before. Without [a secret](Self::jwt_secret) one is made
    /// up, so that tokens from `/api/auth/login` end with the process.
    #[must_use]
    pub fn trust_identity(mut self, trust: bool) -> Self {
        self.trust_identity = trust;
        self
    }

    /// How much anybody may ask.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The proxies, as addresses or blocks of addresses (`10.0.0.0/8`), whose `X-Forwarded-For` is believed. None by
    /// default. A server behind a proxy that it does not trust counts everybody as one.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<String>) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Whether the web client is at `/`. Yes by default, where the feature `web` is on.
    #[must_use]
    pub fn web(mut self, web: bool) -> Self {
        self.web = web;
        self
    }

    /// Reads the web client's files from this folder, each time, instead of taking those in the binary: for those who
    /// work on them.
    #[must_use]
    pub fn web_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.web_dir = Some(folder.into());
        self
    }

    /// Answers `GET /metrics` with what this writes: the figures that the process has gathered through the `metrics`
    /// facade ([the engine's](coop_core::metrics) and the server's), in Prometheus' text format. Whoever can reach the
    /// server can read them, so a proxy should keep that path to itself. 404 by default.
    #[must_use]
    pub fn metrics(mut self, write: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.figures = Some(Box::new(write));
        self
    }

    /// Makes the service.
    ///
    /// # Errors
    /// Without a secret where one is needed, with one that is too short, or with a trusted proxy that is no address.
    pub fn build(self) -> Result<Api, BuildError> {
        let secret = match self.secret {
            Some(secret) => Secret::new(secret)?,
            None if self.trust_identity => Secret::random().map_err(BuildError::NoRandomness)?,
            None => return Err(BuildError::NoSecret),
        };
        let meters = Meters::new();
        Ok(Api(Arc::new(House {
            pulse: Arc::default(),
            dialects: Dialects {
                seed: Seed::new(self.engine.clone()),
                v1: Arc::new(V1),
            },
            engine: self.engine,
            tokens: Tokens::new(&secret, self.token_ttl),
            origins: Origins::new(self.origins),
            registration: self.registration,
            tolls: Arc::new(Tolls::new(&self.limits)),
            seats: Arc::new(Seats::new(&self.limits, meters.connections.clone())),
            doors: Arc::new(Doors::new(&self.limits)),
            meters,
            figures: self.figures,
            proxies: Proxies::new(self.trusted_proxies).map_err(BuildError::BadProxy)?,
            limits: self.limits,
            trust_identity: self.trust_identity,
            sockets: TaskTracker::new(),
            closing: CancellationToken::new(),
            #[cfg(feature = "web")]
            web: match self.web {
                true => Some(Web::new(self.web_dir).map_err(BuildError::Web)?),
                false => None,
            },
            router: Router::new().map_err(|_| BuildError::Routes)?,
            draining: AtomicBool::new(false),
        })))
    }
}

impl<B> tower_service::Service<Request<B>> for Api
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

/// What browsers are told about every answer.
const SAFE: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Refuses heads that two programs may read in two ways.
fn check_head(version: Version, headers: &HeaderMap) -> Result<(), Failure> {
    if version == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        return Err(Failure::bad_request("One Host header is required").and_close());
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        let detail = "Content-Length is required";
        return Err(Failure::new(StatusCode::LENGTH_REQUIRED, "bad_request", detail).and_close());
    }
    Ok(())
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

async fn read<B>(limit: usize, body: B, deadline: Instant) -> Result<Bytes, Failure>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = Limited::new(body, limit);
    match timeout_at(deadline, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("A body here has at most {limit} bytes");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).and_close())
        }
        Ok(Err(_)) => Err(Failure::bad_request("The body broke off").and_close()),
        Err(_) => {
            let detail = "The request took too long to arrive";
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "bad_request", detail).and_close())
        }
    }
}

async fn in_time(deadline: Instant, answer: impl Future<Output = Answer>) -> Result<Response<Body>, Failure> {
    match timeout_at(deadline, answer).await {
        Ok(answer) => Ok(answer?.into_response()),
        Err(_) => Err(Failure::unavailable(
            "this took too long; it is not certain whether it was done",
        )),
    }
}
