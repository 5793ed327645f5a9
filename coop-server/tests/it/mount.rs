//! The service in somebody else's server: with that one's own login, on its own loop.

use crate::client::{Http, PATIENCE, Ws};
use crate::server::{PAGE, SECRET};
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, UserId};
use coop_server::{Api, ApiBuilder, BuildError, Identity};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower_service::Service;

/// Which loop serves the connections.
#[derive(Clone, Copy)]
enum Loop {
    Plain,
    /// What axum has.
    Auto,
}

async fn engine() -> (Engine, UserId) {
    let engine = Engine::builder(MemoryStore::new()).password_cost(Cost::cheap_for_tests());
    let engine = engine.build().await.unwrap();
    let anna = engine.create_user("anna").await.unwrap().id();
    (engine, anna)
}

fn builder(engine: Engine) -> ApiBuilder {
    Api::builder(engine).cors_origins([PAGE.to_owned()])
}

/// A server that is not ours, in which everybody is who the application says.
async fn mount(api: Api, identity: Option<Identity>, with: Loop) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let api = api.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                api.clone().call(request)
            });
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                match with {
                    Loop::Plain => drop(
                        http1::Builder::new()
                            .serve_connection(io, service)
                            .with_upgrades()
                            .await,
                    ),
                    Loop::Auto => {
                        let builder = auto::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection_with_upgrades(io, service).await);
                    }
                }
            });
        }
    });
    address
}

fn without_token(address: SocketAddr) -> http::Request<()> {
    format!("ws://{address}/ws").into_client_request().unwrap()
}

#[tokio::test]
async fn who_is_known_to_the_application_needs_no_token() {
    for with in [Loop::Plain, Loop::Auto] {
        let (engine, anna) = engine().await;
        let api = builder(engine).trust_identity(true).build().unwrap();
        let address = mount(api.clone(), Some(Identity::of(anna)), with).await;
        let http = Http::new(address);
        let me = http.send("GET", "/api/auth/me", &[], None).await;
        assert_eq!((me.status, &me.json()["username"]), (200, &json!("anna")));
        let draft = json!({ "name": "lab", "is_group": true });
        let room = http.send("POST", "/api/chats", &[], Some(&draft)).await.json()["id"]
            .as_i64()
            .unwrap();
        let mut socket = Ws::try_open(address, without_token(address))
            .await
            .unwrap_or_else(|status| panic!("{status}"));
        socket.join(room).await;
        socket.say(room, "no token anywhere").await;
        assert_eq!(socket.of_type("message").await["message"]["username"], "anna");
        api.close_sockets().await;
        assert_eq!(socket.close_code().await, Some(1012));
        assert_eq!(http.send("GET", "/ready", &[], None).await.status, 503, "it drains");
        assert_eq!(http.send("GET", "/health", &[], None).await.status, 200);
    }
}

#[tokio::test]
async fn an_identity_nobody_vouches_for_counts_for_nothing() {
    let (engine, anna) = engine().await;
    let api = builder(engine).jwt_secret(SECRET).build().unwrap();
    let address = mount(api, Some(Identity::of(anna)), Loop::Plain).await;
    let me = Http::new(address).send("GET", "/api/auth/me", &[], None).await;
    assert_eq!(me.status, 401, "{me:?}");
    let refused = Ws::try_open(address, without_token(address)).await;
    assert_eq!(refused.err(), Some(403));
}

#[tokio::test]
async fn whom_the_application_names_must_exist_and_who_is_not_named_needs_a_token() {
    let (engine, _) = engine().await;
    let api = builder(engine).jwt_secret(SECRET).trust_identity(true).build().unwrap();
    let nobody = mount(api.clone(), Some(Identity::of(UserId(999))), Loop::Plain).await;
    let me = Http::new(nobody).send("GET", "/api/auth/me", &[], None).await;
    assert_eq!(me.status, 401, "{me:?}");
    assert_eq!(Ws::try_open(nobody, without_token(nobody)).await.err(), Some(401));

    let unnamed = mount(api, None, Loop::Plain).await;
    let http = Http::new(unnamed);
    assert_eq!(http.send("GET", "/api/auth/me", &[], None).await.status, 401);
    assert_eq!(Ws::try_open(unnamed, without_token(unnamed)).await.err(), Some(403));
    let bob = http.person("bob").await;
    assert_eq!(http.get(&bob, "/api/chats").await.status, 200);
    Ws::open(unnamed, &bob.token).await;
}

#[tokio::test]
async fn a_socket_ends_when_the_application_says() {
    let (engine, anna) = engine().await;
    let api = builder(engine).trust_identity(true).build().unwrap();
    let identity = Identity::of(anna).good_for(Duration::from_millis(50));
    let address = mount(api, Some(identity), Loop::Auto).await;
    let mut socket = Ws::try_open(address, without_token(address))
        .await
        .unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(socket.close_code().await, Some(4401));
}

#[tokio::test]
async fn where_no_connection_is_handed_over_there_are_no_sockets() {
    let (engine, anna) = engine().await;
    let mut api = builder(engine).trust_identity(true).build().unwrap();
    let mut request = without_token(SocketAddr::from(([127, 0, 0, 1], 80))).map(|()| Empty::<Bytes>::new());
    request.extensions_mut().insert(Identity::of(anna));
    let Ok(response) = api.call(request).await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("WebSockets are not possible here"));
}

#[tokio::test]
async fn a_socket_over_something_else_than_tcp_is_closed_at_once() {
    let (engine, anna) = engine().await;
    let api = builder(engine).trust_identity(true).build().unwrap();
    let (mut ours, theirs) = tokio::io::duplex(4_096);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Identity::of(anna));
        api.clone().call(request)
    });
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(theirs), service)
        .with_upgrades();
    tokio::spawn(served);
    let handshake = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
                     13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    ours.write_all(handshake.as_bytes()).await.unwrap();
    let mut all = String::new();
    timeout(PATIENCE, ours.read_to_string(&mut all))
        .await
        .expect("not closed")
        .unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.ends_with("\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn what_is_needed_to_build() {
    let (engine, _) = engine().await;
    let refused = |api: ApiBuilder| api.build().map(drop).unwrap_err();
    assert!(matches!(refused(builder(engine.clone())), BuildError::NoSecret));
    assert!(matches!(
        refused(builder(engine.clone()).jwt_secret("short")),
        BuildError::WeakSecret(_)
    ));
    let proxied = builder(engine).jwt_secret(SECRET);
    let proxied = proxied.trusted_proxies(vec!["10.0.0.0/8".to_owned(), "10.0.0.0/33".to_owned()]);
    assert!(matches!(refused(proxied), BuildError::BadProxy(bad) if bad == "10.0.0.0/33"));
}

/// Under axum, at its root and below a prefix, which axum takes away before the service sees the path.
#[tokio::test]
async fn axum_serves_it_wherever_it_is_mounted() {
    for prefix in ["", "/chat"] {
        let (engine, anna) = engine().await;
        let api = builder(engine).trust_identity(true).build().unwrap();
        let router = match prefix {
            "" => axum::Router::new().fallback_service(api.clone()),
            prefix => axum::Router::new().nest_service(prefix, api.clone()),
        };
        let app = router.layer(axum::Extension(Identity::of(anna)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let http = Http::new(address);
        let draft = json!({ "name": "lab", "is_group": true });
        let made = http
            .send("POST", &format!("{prefix}/api/chats"), &[], Some(&draft))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        let request = format!("ws://{address}{prefix}/ws").into_client_request().unwrap();
        let mut socket = Ws::try_open(address, request)
            .await
            .unwrap_or_else(|status| panic!("{status}"));
        socket.join(made.json()["id"].as_i64().unwrap()).await;
        socket.say(made.json()["id"].as_i64().unwrap(), "through axum").await;
        assert_eq!(socket.of_type("message").await["message"]["content"], "through axum");
        api.close_sockets().await;
        assert_eq!(socket.close_code().await, Some(1012));
        let nothing = http.send("GET", &format!("{prefix}/nowhere"), &[], None).await;
        assert_eq!(nothing.status, 404);
    }
}
